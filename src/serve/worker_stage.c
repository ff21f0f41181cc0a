/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_stage.c - a prefill job that is one stage of a group (serve/proto_stage.h).
 *
 * It is a job like any other (worker_prefill.c) with four differences. It computes its own range of
 * layers. It starts the next stage when it starts to compute, and relays what that one says to
 * whoever called. Of its prompt only so much is offered to the scheduler as has come from the stage
 * before, and as the stage after has room for. And when its layers are written, the checksums go to
 * the next stage instead of to d; the last one, which hears those of all others, tells d.
 *
 *     stage.run arrives       the job of the next stage is called when computing begins
 *     stage.rows arrives      the chunk waits in a slot; answered when it has been computed
 *     a step is done          its rows go to the next stage
 *     all computed, written, stage.sums here    stage.sums to the next; the last: decode.kv_done
 *     the next stage's call ends                this one's call ends the same way
 *
 * Invariants
 *   S1  A chunk is computed whole, in order: slots[first] is the one that is offered, no other.
 *   S2  At most PROTO_STAGE_WINDOW chunks wait here, and as many at the next stage.
 *   S3  Nothing that a peer sends changes a job but what fits it exactly; the rest is refused and
 *       changes nothing. A stage that is refused gives up, and with it the group.
 *
 * Two groups that have the same two nodes in opposite order, when both nodes are short of pages,
 * can wait for each other; then the one that waits gives up after WORKER_QUEUE_MS. */
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "infer/backend.h"
#include "model/model.h"
#include "serve/proto_stage.h"
#include "serve/worker_int.h"

enum { ENGINE_ROWS = ENGINE_ROWS_MAX };

/* A chunk that has come and is not computed. */
struct slot {
    float *rows; /* room for as many as a step may have */
    uint32_t position, count;
    struct rpc_call *call; /* NULL: nobody waits for the answer any more */
};

/* A chunk on its way to the next stage. */
struct passing {
    struct job *job;
    struct rpc_call_id call;
    bool live;
};

struct stage {
    uint32_t index, count;
    uint32_t first, last; /* its layers */
    uint32_t hidden_size; /* floats of a row */
    uint32_t reuse_blocks;
    char addresses[PROTO_STAGES_MAX][PROTO_ADDRESS_SIZE];
    uint8_t *run; /* for the next stage, as it came */
    size_t run_len;
    /* From the stage before. */
    struct slot slots[PROTO_STAGE_WINDOW];
    uint32_t slot_first, slots_count;
    uint32_t received; /* tokens before it are here, or were */
    bool sums_here;
    /* To the stage after. */
    struct peer *next; /* NULL: this is the last one */
    struct rpc_call_id next_call, sums_call;
    bool next_live, sums_live;
    bool next_done; /* it has said prefill_done */
    bool told;      /* checksums have been sent */
    float *out;     /* rows of the step under way */
    struct passing passing[PROTO_STAGE_WINDOW];
    char why[PROTO_TEXT_SIZE]; /* of the next stage's failure */
};

static uint32_t index_of(const struct job *job)
{
    return job->prefill.stage->index;
}

bool stage_is_last(const struct job *job)
{
    return job->prefill.stage->next == NULL;
}

uint32_t stage_writer(const struct job *job)
{
    return job->prefill.stage == NULL ? 0 : index_of(job);
}

bool stage_follows(const struct job *job)
{
    return job->prefill.stage != NULL && index_of(job) > 0;
}

uint32_t stage_reuse_blocks(const struct job *job)
{
    return job->prefill.stage->reuse_blocks;
}

bool stage_told(const struct job *job)
{
    return job->prefill.stage != NULL && job->prefill.stage->told;
}

bool stage_gathered(const struct job *job)
{
    return index_of(job) == 0 || job->prefill.stage->sums_here;
}

/* ---- what may be computed ---- */

static uint32_t passing_count(const struct stage *stage)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PROTO_STAGE_WINDOW; i++)
        count += stage->passing[i].live;
    return count;
}

static void offer(struct job *job)
{
    const struct stage *stage = job->prefill.stage;
    const struct slot *slot = &stage->slots[stage->slot_first];
    uint32_t until = job->prompt_count;

    if (stage->index > 0) {
        until = stage->slots_count > 0 ? slot->position + slot->count : stage->received;
    }
    if (passing_count(stage) == PROTO_STAGE_WINDOW) until = 0;
    sched_offer(job->worker->sched, job->id, until);
    worker_kick(job->worker);
}

/* ---- arrival ---- */

/* NULL if this node can be a stage; *cause says whether one node alone could do it. */
static const char *check_run(const struct worker *worker, const struct proto_stage_run *message,
                             enum proto_cause *cause)
{
    const uint64_t row = backend_hidden_size(worker->options.model, worker->options.timed);

    *cause = PROTO_CAUSE_STAGE;
    if (message->stages > worker->layout.n_layers) return "more stages than layers";
    if (row * sizeof(float) * ENGINE_ROWS > PROTO_ROWS_SIZE_MAX) return "rows too long to pass on";
    *cause = PROTO_CAUSE_INVALID;
    for (uint32_t i = 0; i < message->stages; i++) {
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(message->addresses[i], message->addresses[j]) == 0) return "a stage twice";
    }
    return NULL;
}

static float *rows_new(struct job *job)
{
    const uint32_t rows = job->prompt_count < ENGINE_ROWS ? job->prompt_count : ENGINE_ROWS;
    return arena_alloc(job->arena, (size_t)rows * job->prefill.stage->hidden_size * sizeof(float));
}

static enum status make_room(struct job *job)
{
    struct stage *stage = job->prefill.stage;

    for (uint32_t i = 0; stage->index > 0 && i < PROTO_STAGE_WINDOW; i++) {
        stage->slots[i].rows = rows_new(job);
        if (stage->slots[i].rows == NULL) return STATUS_FULL;
    }
    if (stage->next == NULL) return STATUS_OK;
    stage->out = rows_new(job);
    stage->run = arena_alloc(job->arena, stage->run_len);
    return stage->out != NULL && stage->run != NULL ? STATUS_OK : STATUS_FULL;
}

static enum status attach(struct job *job, const struct proto_stage_run *message)
{
    struct worker *worker = job->worker;
    const uint32_t layers = worker->layout.n_layers;
    struct stage *stage = arena_calloc(job->arena, 1, sizeof(*stage));
    enum status status = STATUS_OK;

    if (stage == NULL) return STATUS_FULL;
    job->prefill.stage = stage;
    stage->index = message->stage;
    stage->count = message->stages;
    stage->first = layers * message->stage / message->stages;
    stage->last = layers * (message->stage + 1) / message->stages;
    stage->hidden_size = backend_hidden_size(worker->options.model, worker->options.timed);
    stage->reuse_blocks = message->reuse_blocks;
    stage->received = message->reuse_blocks * worker->layout.block_tokens;
    memcpy(stage->addresses, message->addresses, sizeof(stage->addresses));
    stage->run_len = message->run_len;
    if (stage->index + 1 < stage->count) {
        status = peer_acquire(worker, stage->addresses[stage->index + 1], "", &stage->next);
    }
    if (status == STATUS_OK) status = make_room(job);
    if (status == STATUS_OK && stage->next != NULL)
        memcpy(stage->run, message->run, stage->run_len);
    if (status != STATUS_OK || stage->index == 0) return status;
    /* What is reused is what the first stage reuses, and it has it. */
    job->plan.reuse_blocks = stage->reuse_blocks;
    memcpy(job->plan.holder, stage->addresses[0], sizeof(job->plan.holder));
    return STATUS_OK;
}

void stage_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_stage_run message;

    if (proto_stage_run_decode(body, len, &message) != STATUS_OK) {
        job_refuse(worker, call, PROTO_CAUSE_INVALID, STATUS_INVALID, "malformed");
        return;
    }
    enum proto_cause cause;
    const char *wrong = check_run(worker, &message, &cause);
    if (wrong != NULL) {
        job_refuse(worker, call, cause, STATUS_INVALID, wrong);
        return;
    }
    struct job *job = prefill_accept(worker, call, message.run, message.run_len);
    if (job == NULL) return;
    if (message.stage > 0 &&
        message.reuse_blocks > (job->prompt_count - 1) / worker->layout.block_tokens) {
        job_fail(job, PROTO_CAUSE_INVALID, STATUS_INVALID, "more reused than there is");
        return;
    }
    const enum status status = attach(job, &message);
    if (status == STATUS_OK) {
        offer(job);
        prefill_connect(job);
    } else {
        job_fail(job, PROTO_CAUSE_STAGE, status, "cannot be stage %u: %s", message.stage,
                 status_name(status));
    }
}

/* ---- what the next stage says ---- */

/* The last stage has told; what only this one knows is put in. Computing is counted together: the
 * sum is what one node alone would have taken. */
static enum status relay_done(struct job *job, struct proto_item *item)
{
    struct proto_prefill_done own;

    prefill_describe_done(job, &own);
    own.times.compute_us += item->prefill_done.times.compute_us;
    own.times.push_us = item->prefill_done.times.push_us;
    item->prefill_done = own;
    job->prefill.stage->next_done = true;
    return job_send(job, item);
}

static bool token_fits(const struct job *job, const struct proto_token *token)
{
    return token->index == job->generated_before &&
           token->token < model_params(job->worker->options.model)->vocab;
}

static void on_next_item(void *ctx, const uint8_t *body, size_t len)
{
    struct job *job = ctx;
    struct stage *stage = job->prefill.stage;
    struct proto_item item;
    enum status status = STATUS_INVALID;

    if (job->over || job->call == NULL) return;
    if (proto_item_decode(body, len, &item) == STATUS_OK) {
        if (item.kind == PROTO_ITEM_FAILED) {
            memcpy(stage->why, item.failed.text, sizeof(stage->why));
            return;
        }
        if (item.kind == PROTO_ITEM_FIRST_TOKEN && token_fits(job, &item.token)) {
            status = job_send(job, &item);
        } else if (item.kind == PROTO_ITEM_PREFILL_DONE && stage->told) {
            status = relay_done(job, &item);
        }
    }
    if (status == STATUS_OK || status == STATUS_CANCELLED) return; /* on_cancel follows */
    job_fail(job, PROTO_CAUSE_STAGE, status, "stage %u said what makes no sense", stage->index + 1);
}

static void on_next_end(void *ctx, const struct rpc_result *result)
{
    struct job *job = ctx;
    struct stage *stage = job->prefill.stage;

    ASSERT(stage->next_live && job->inflight > 0);
    stage->next_live = false;
    job->inflight--;
    if (job->over) {
        job_settle(job);
        return;
    }
    if (result->status != STATUS_OK || !stage->next_done) {
        job_fail(job, PROTO_CAUSE_STAGE, STATUS_UNAVAILABLE, "stage %u: %s %.160s",
                 stage->index + 1, status_name(result->status), stage->why);
        return;
    }
    job->prefill.done = true;
    prefill_finish(job);
}

static enum status call_next(struct job *job, enum proto_method method, uint64_t deadline_ns,
                             void (*on_item)(void *ctx, const uint8_t *body, size_t len),
                             void (*on_end)(void *ctx, const struct rpc_result *result), void *ctx,
                             struct rpc_call_id *id)
{
    struct worker *worker = job->worker;
    const struct rpc_request request = { .method = (uint16_t)method,
                                         .body = buf_data(&worker->scratch),
                                         .len = worker->scratch.len,
                                         .deadline_ns = deadline_ns,
                                         .on_item = on_item,
                                         .on_end = on_end,
                                         .ctx = ctx };
    const enum status status = rpc_call(job->prefill.stage->next->client, &request, id);
    if (status == STATUS_OK) job->inflight++;
    return status;
}

/* A call that should be answered soon: the next stage computes, or only notes. */
static uint64_t soon_ns(const struct job *job)
{
    const uint64_t limit_ns = env_now_ns(job->worker->env) + WORKER_STAGE_MS * ENV_NS_PER_MS;
    return job->deadline_ns < limit_ns ? job->deadline_ns : limit_ns;
}

static enum status start_next(struct job *job)
{
    struct stage *stage = job->prefill.stage;
    struct proto_stage_run message = { .stage = stage->index + 1,
                                       .stages = stage->count,
                                       .reuse_blocks = job->prefill.reuse_blocks,
                                       .run = stage->run,
                                       .run_len = stage->run_len };

    memcpy(message.addresses, stage->addresses, sizeof(message.addresses));
    buf_clear(&job->worker->scratch);
    enum status status = proto_stage_run_encode(&message, &job->worker->scratch);
    if (status == STATUS_OK) {
        status = call_next(job, PROTO_STAGE_RUN, job->deadline_ns, on_next_item, on_next_end, job,
                           &stage->next_call);
    }
    stage->next_live = status == STATUS_OK;
    return status;
}

bool stage_begin(struct job *job)
{
    struct stage *stage = job->prefill.stage;

    if (stage->index > 0 && job->prefill.reuse_blocks != stage->reuse_blocks) {
        job_fail(job, PROTO_CAUSE_STAGE, STATUS_UNAVAILABLE, "%u of %u reused blocks",
                 job->prefill.reuse_blocks, stage->reuse_blocks);
        return false;
    }
    const enum status status = stage->next != NULL ? start_next(job) : STATUS_OK;
    if (status == STATUS_OK) return true;
    job_fail(job, PROTO_CAUSE_STAGE, status, "cannot start stage %u: %s", stage->index + 1,
             status_name(status));
    return false;
}

/* ---- rows that come ---- */

static void on_rows_cancel(void *ctx, enum status why)
{
    struct slot *slot = ctx;
    struct rpc_call *call = slot->call;
    slot->call = NULL;
    rpc_fail(call, why, NULL);
}

/* How many rows these are, if they are the next ones; 0 and *wrong otherwise. */
static uint32_t check_rows(const struct job *job, const struct proto_stage_rows *message,
                           const char **wrong)
{
    const struct stage *stage = job->prefill.stage;
    const size_t row = stage->hidden_size * sizeof(float);
    const uint64_t rows = message->size / row;
    const uint64_t end = message->position + rows;

    *wrong = "not the next rows";
    if (message->position != stage->received) return 0;
    *wrong = "not whole rows, or too many";
    if (message->size % row != 0 || rows == 0 || rows > ENGINE_ROWS) return 0;
    if (end > job->prompt_count) return 0;
    if (end != job->prompt_count && end % job->worker->layout.block_tokens != 0) return 0;
    *wrong = "too many chunks wait";
    if (stage->slots_count == PROTO_STAGE_WINDOW) return 0;
    *wrong = "the checksum does not match";
    if (hash_xxh3(message->rows, message->size) != message->checksum) return 0;
    *wrong = NULL;
    return (uint32_t)rows;
}

static struct job *find_follower(struct worker *worker, uint64_t request_id, uint32_t attempt)
{
    struct job *job = job_find(worker, SCHED_KIND_PREFILL, request_id, attempt);
    return job != NULL && stage_follows(job) ? job : NULL;
}

void stage_rows(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_stage_rows message;
    const char *wrong = NULL;

    if (proto_stage_rows_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    struct job *job = find_follower(worker, message.request_id, message.attempt);
    if (job == NULL) {
        rpc_fail(call, STATUS_STALE, "the attempt is over");
        return;
    }
    const uint32_t rows = check_rows(job, &message, &wrong);
    if (rows == 0) {
        LOG_WARN("worker", "rows_refused", "req=%016llx peer=%s reason=%s",
                 (unsigned long long)job->request_id, rpc_call_peer(call), wrong);
        rpc_fail(call, STATUS_INVALID, wrong);
        return;
    }
    struct stage *stage = job->prefill.stage;
    struct slot *slot =
        &stage->slots[(stage->slot_first + stage->slots_count++) % PROTO_STAGE_WINDOW];
    memcpy(slot->rows, message.rows, message.size);
    slot->position = message.position;
    slot->count = rows;
    slot->call = call;
    stage->received += rows;
    rpc_on_cancel(call, on_rows_cancel, slot);
    offer(job);
}

/* The first chunk that waits has been computed, or never will be. */
static void pop(struct stage *stage, enum status status)
{
    struct slot *slot = &stage->slots[stage->slot_first];
    struct rpc_call *call = slot->call;

    ASSERT(stage->slots_count > 0);
    slot->call = NULL;
    stage->slot_first = (stage->slot_first + 1) % PROTO_STAGE_WINDOW;
    stage->slots_count--;
    if (call == NULL) return;
    if (status == STATUS_OK) {
        rpc_reply(call, NULL, 0);
    } else {
        rpc_fail(call, status, "the attempt is over");
    }
}

/* ---- rows that go ---- */

static void on_passed(void *ctx, const struct rpc_result *result)
{
    struct passing *passing = ctx;
    struct job *job = passing->job;

    ASSERT(passing->live && job->inflight > 0);
    passing->live = false;
    job->inflight--;
    if (job->over) {
        job_settle(job);
    } else if (result->status == STATUS_OK) {
        offer(job);
    } else {
        job_fail(job, PROTO_CAUSE_STAGE, STATUS_UNAVAILABLE, "stage %u took no rows: %s %.160s",
                 index_of(job) + 1, status_name(result->status), result->message);
    }
}

static enum status pass_rows(struct job *job, uint32_t position, uint32_t count)
{
    struct stage *stage = job->prefill.stage;
    const size_t size = (size_t)count * stage->hidden_size * sizeof(float);
    const struct proto_stage_rows message = { .request_id = job->request_id,
                                              .attempt = job->attempt,
                                              .position = position,
                                              .checksum = hash_xxh3(stage->out, size),
                                              .rows = (const uint8_t *)stage->out,
                                              .size = size };
    struct passing *passing = stage->passing;

    while (passing->live)
        passing++;
    ASSERT(passing < stage->passing + PROTO_STAGE_WINDOW); /* or nothing had been offered */
    passing->job = job;
    buf_clear(&job->worker->scratch);
    enum status status = proto_stage_rows_encode(&message, &job->worker->scratch);
    if (status != STATUS_OK) return status;
    status =
        call_next(job, PROTO_STAGE_ROWS, soon_ns(job), NULL, on_passed, passing, &passing->call);
    passing->live = status == STATUS_OK;
    return status;
}

/* ---- steps ---- */

void stage_fill_part(const struct job *job, const struct sched_item *from, struct engine_part *out)
{
    const struct stage *stage = job->prefill.stage;
    const struct slot *slot = &stage->slots[stage->slot_first];

    *out = (struct engine_part){ .first = stage->first, .last = stage->last, .out = stage->out };
    if (stage->index == 0) return;
    ASSERT(stage->slots_count > 0 && from->position >= slot->position);
    ASSERT(from->position + from->rows <= slot->position + slot->count); /* S1 */
    out->in = slot->rows + (size_t)(from->position - slot->position) * stage->hidden_size;
}

bool stage_step_done(struct job *job, const struct runner_item *item)
{
    struct stage *stage = job->prefill.stage;
    const struct slot *slot = &stage->slots[stage->slot_first];
    const uint32_t end = item->position + item->tokens_count;

    if (stage->index > 0 && end == slot->position + slot->count) pop(stage, STATUS_OK);
    if (stage->next != NULL) {
        const enum status status = pass_rows(job, item->position, item->tokens_count);
        if (status != STATUS_OK) {
            job_fail(job, PROTO_CAUSE_STAGE, status, "cannot pass rows to stage %u: %s",
                     stage->index + 1, status_name(status));
            return false;
        }
    }
    offer(job);
    return true;
}

/* ---- checksums ---- */

static uint32_t pushed_blocks(const struct job *job)
{
    return job->prompt_blocks - job->prefill.target.push_from;
}

void stage_sums(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_stage_sums message;

    if (proto_stage_sums_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    struct job *job = find_follower(worker, message.request_id, message.attempt);
    if (job == NULL) {
        rpc_fail(call, STATUS_STALE, "the attempt is over");
        return;
    }
    struct stage *stage = job->prefill.stage;
    const uint32_t layers = stage->first, blocks = pushed_blocks(job);
    if (stage->sums_here || message.layers != layers ||
        message.sums.count != (uint64_t)blocks * layers) {
        rpc_fail(call, STATUS_INVALID, "not one checksum for each piece, once");
        return;
    }
    for (uint32_t i = 0; i < message.sums.count; i++) {
        const size_t block = job->prefill.target.push_from + i / layers;
        job->prefill.sums[block * worker->layout.n_layers + i % layers] =
            proto_u64_at(message.sums, i);
    }
    stage->sums_here = true;
    rpc_reply(call, NULL, 0);
    prefill_check_pushed(job);
}

static void on_sums_end(void *ctx, const struct rpc_result *result)
{
    struct job *job = ctx;
    struct stage *stage = job->prefill.stage;

    ASSERT(stage->sums_live && job->inflight > 0);
    stage->sums_live = false;
    job->inflight--;
    if (job->over) {
        job_settle(job);
    } else if (result->status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_STAGE, STATUS_UNAVAILABLE, "stage %u took no checksums: %s",
                 stage->index + 1, status_name(result->status));
    }
}

static enum status send_sums(struct job *job, uint64_t *sums)
{
    struct stage *stage = job->prefill.stage;
    const uint32_t count = pushed_blocks(job) * stage->last;
    const struct proto_stage_sums message = { .request_id = job->request_id,
                                              .attempt = job->attempt,
                                              .layers = stage->last,
                                              .sums = proto_u64s_of(sums, count) };

    for (uint32_t i = 0; i < count; i++) {
        const size_t block = job->prefill.target.push_from + i / stage->last;
        sums[i] = job->prefill.sums[block * job->worker->layout.n_layers + i % stage->last];
    }
    buf_clear(&job->worker->scratch);
    const enum status status = proto_stage_sums_encode(&message, &job->worker->scratch);
    if (status != STATUS_OK) return status;
    return call_next(job, PROTO_STAGE_SUMS, soon_ns(job), NULL, on_sums_end, job,
                     &stage->sums_call);
}

void stage_pass_sums(struct job *job)
{
    struct stage *stage = job->prefill.stage;
    const size_t count = (size_t)pushed_blocks(job) * stage->last;
    uint64_t *sums = arena_alloc(job->arena, (count + 1) * sizeof(*sums));

    ASSERT(!stage->told && stage->next != NULL);
    const enum status status = sums != NULL ? send_sums(job, sums) : STATUS_FULL;
    if (status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_STAGE, status, "cannot pass checksums to stage %u: %s",
                 stage->index + 1, status_name(status));
        return;
    }
    stage->sums_live = true;
    stage->told = true;
}

/* ---- the end ---- */

void stage_stop(struct job *job)
{
    struct stage *stage = job->prefill.stage;
    struct rpc_client *client = stage->next != NULL ? stage->next->client : NULL;

    for (uint32_t i = 0; i < stage->slots_count; i++) {
        struct slot *slot = &stage->slots[(stage->slot_first + i) % PROTO_STAGE_WINDOW];
        struct rpc_call *call = slot->call;
        slot->call = NULL;
        if (call != NULL) rpc_fail(call, STATUS_STALE, "the attempt is over");
    }
    if (stage->next_live) rpc_cancel(client, stage->next_call);
    if (stage->sums_live) rpc_cancel(client, stage->sums_call);
    for (uint32_t i = 0; i < PROTO_STAGE_WINDOW; i++) {
        if (stage->passing[i].live) rpc_cancel(client, stage->passing[i].call);
    }
}

void stage_release(struct job *job)
{
    if (job->prefill.stage->next != NULL) peer_unref(job->prefill.stage->next);
}
