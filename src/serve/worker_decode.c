/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_decode.c - d's side of an attempt: lend pages, gather the KV, verify it, decode.
 *
 *   decode.open arrives    QUEUED      until there are pages for the prompt
 *   pages taken            WAITING_KV  `opened` to the gateway; reused blocks are fetched
 *   decode.push            WAITING_KV  p may write, for lease_ms
 *   decode.kv_done         WAITING_KV  pushed pieces are compared with checksums, a part a turn
 *   all there              DECODE      limits are checked again; full blocks of the prompt are
 *                                      published; the first token
 *     computed here        PREFILL     instead of the two calls: the rest of the prompt is
 *                                      computed beside steps of the batch; `prefill_done`
 *     with a door          WAITING_KV  the blocks are published; it waits at the door, until
 *                          DECODE      the batch has a place for it; the first token
 *   after each step        DECODE      the token to the gateway; blocks that became full, published
 *   eos, max_tokens        FINISHED
 *
 * Tokens are streamed from job->tokens; when the gateway reads slowly they wait there.
 *
 * Invariant: bytes that p wrote are read by the engine only after their checksums matched, and p
 * cannot write any more by then (push_ended). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "model/model.h"
#include "serve/worker_int.h"

/* Words of a row that is kept until it is sent. */
static uint32_t row_stride(uint32_t logprobs)
{
    return logprobs > 0 ? 1 + job_row_words(logprobs) : 0;
}

/* ---- arrival ---- */

void decode_open(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_decode_open open;

    if (worker->ending || proto_decode_open_decode(body, len, &open) != STATUS_OK) {
        job_refuse(worker, call, worker->ending ? PROTO_CAUSE_SHUTDOWN : PROTO_CAUSE_INVALID,
                   worker->ending ? STATUS_UNAVAILABLE : STATUS_INVALID, "malformed or too late");
        return;
    }
    const uint32_t prompt = open.sequence.tokens.count;
    const uint64_t most = (uint64_t)prompt + (open.max_tokens - open.sequence.generated_before);
    const uint64_t room_max = (uint64_t)worker->context_max + 1; /* the last one needs no KV */
    const uint32_t tokens_max = (uint32_t)(most < room_max ? most : room_max);
    const struct job_room room = {
        .tokens_max = tokens_max,
        .sums = worker_blocks(worker, prompt) * worker->layout.n_layers,
        .rows = (tokens_max - prompt) * row_stride(open.sequence.sampling.logprobs),
    };
    struct job *job = job_create(worker, SCHED_KIND_DECODE, call, &open.sequence, &room);
    if (job == NULL) return;
    job->decode.max_tokens = open.max_tokens;
    job->decode.ignore_eos = open.ignore_eos;
    job->decode.limits = open.limits;
    job->decode.computes = open.computes;
}

/* ---- pages, and the blocks that exist already ---- */

/* Nobody else was told what to push, so what did not come is computed as if nobody had it. */
static void compute_the_rest(struct job *job, const struct store_fetch_result *result)
{
    struct decode *decode = &job->decode;

    decode->push_from -= decode->fetch_blocks - result->blocks;
    decode->fetch_blocks = result->blocks;
}

static void on_fetch_done(void *ctx, const struct store_fetch_result *result)
{
    struct job *job = ctx;
    const bool came_short = result->blocks < job->decode.fetch_blocks;

    if (came_short) job_fetch_short(job, job->decode.fetch_blocks, result);
    if (came_short && job->decode.computes) {
        compute_the_rest(job, result);
    } else if (came_short) {
        job_fail(job, PROTO_CAUSE_SOURCE, STATUS_UNAVAILABLE, "%u of %u blocks from %s: %s",
                 result->blocks, job->decode.fetch_blocks, job->plan.holder,
                 store_miss_name(result->reason));
        return;
    }
    job->decode.fetched = true;
    worker_kick(job->worker);
}

/* Leading blocks that need not be computed here: all full ones, if p computes the last token. */
static uint32_t reusable_blocks(const struct job *job)
{
    const uint32_t before_last = (job->prompt_count - 1) / job->worker->layout.block_tokens;

    if (job->worker->options.no_reuse || (job->decode.computes && job->scores > 0)) return 0;
    return job->decode.computes && before_last < job->keys_count ? before_last : job->keys_count;
}

/* How many blocks beyond `local` are fetched; 0: the rest is computed. Our disk is looked at only
 * where the prompt is computed here. */
static uint32_t fetch(struct job *job, uint32_t local)
{
    const uint32_t reusable = reusable_blocks(job);
    const uint32_t below = job->decode.computes ? reusable : 0;
    const uint32_t wanted = job_wanted_blocks(job, local, reusable, below);

    return job_fetch(job, local, wanted, NULL, on_fetch_done) ? wanted - local : 0;
}

static enum status send_opened(struct job *job)
{
    struct worker *worker = job->worker;
    struct proto_item item = { .kind = PROTO_ITEM_OPENED };
    uint64_t *addresses = arena_alloc(job->arena, job->pages_count * sizeof(*addresses));

    if (addresses == NULL) return STATUS_FULL;
    for (uint32_t i = 0; i < job->pages_count; i++) {
        addresses[i] = store_node_address(worker->node, job->pages[i]);
    }
    item.opened.epoch = yolk_transfer_generation(worker->transfer);
    snprintf(item.opened.segment, sizeof(item.opened.segment), "%s",
             store_node_segment(worker->node));
    item.opened.addresses = proto_u64s_of(addresses, job->pages_count);
    item.opened.push_from = job->decode.push_from;
    item.opened.blocks_local = job->decode.blocks_local;
    return job_send(job, &item);
}

bool decode_admit(struct job *job)
{
    struct worker *worker = job->worker;
    struct decode *decode = &job->decode;
    const uint32_t local =
        store_node_acquire(worker->node, job->keys, reusable_blocks(job), job->pages);

    ASSERT(local <= reusable_blocks(job));
    if (job_alloc(job, local) != STATUS_OK) {
        for (uint32_t i = 0; i < local; i++)
            store_node_unref(worker->node, job->pages[i]);
        return false;
    }
    job->admitted_ns = env_now_ns(worker->env);
    sched_ready(worker->sched, job->id, 0, false);
    decode->blocks_local = local;
    decode->fetch_blocks = fetch(job, local);
    decode->fetched = decode->fetch_blocks == 0;
    decode->push_from = local + decode->fetch_blocks;
    const enum status status = send_opened(job);
    if (status == STATUS_OK || status == STATUS_CANCELLED) return true; /* on_cancel follows */
    job_fail(job, PROTO_CAUSE_INTERNAL, status, "the gateway does not read");
    return true;
}

/* ---- p's permission to write ---- */

static void reply_lease(struct worker *worker, struct rpc_call *call, uint32_t lease_ms)
{
    const struct proto_push_lease lease = { .lease_ms = lease_ms };
    buf_clear(&worker->scratch);
    const enum status status = proto_push_lease_encode(&lease, &worker->scratch);
    ASSERT(status == STATUS_OK);
    rpc_reply(call, buf_data(&worker->scratch), worker->scratch.len);
}

static void lease_over(void *ctx);

/* Also finds jobs that are over: their pages may wait for p's word. */
static struct job *find_lender(const struct worker *worker, const struct proto_push *push)
{
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL || job->kind != SCHED_KIND_DECODE) continue;
        if (job->request_id == push->request_id && job->attempt == push->attempt) return job;
    }
    return NULL;
}

void decode_push(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_push push;

    if (proto_push_decode(body, len, &push) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    struct job *job = find_lender(worker, &push);
    const bool same_life = push.epoch == yolk_transfer_generation(worker->transfer);
    if (push.kind == PROTO_PUSH_END) {
        reply_lease(worker, call, 0);
        if (job == NULL || !same_life) return;
        job->decode.writers_ended |= 1u << push.writer;
        if ((job->decode.writers_begun & ~job->decode.writers_ended) != 0) return;
        job->decode.push_ended = true;
        if (job->decode.lending) lease_over(job);
        return;
    }
    const bool waits = job != NULL && !job->over && same_life && !job->decode.push_ended &&
                       !job->decode.computes &&
                       sched_state(worker->sched, job->id) == SCHED_WAITING_KV;
    if (!waits) {
        rpc_fail(call, STATUS_STALE, "the attempt is over");
        return;
    }
    job->decode.lease_given = true;
    job->decode.writers_begun |= 1u << push.writer;
    job->decode.lease_until_ns = env_now_ns(worker->env) + worker->options.lease_ms * ENV_NS_PER_MS;
    reply_lease(worker, call, worker->options.lease_ms);
}

/* ---- the KV is there, says p ---- */

static const char *check_kv_done(const struct job *job, const struct proto_kv_done *done)
{
    const struct worker *worker = job->worker;
    const uint32_t pieces = (job->prompt_blocks - job->decode.push_from) * worker->layout.n_layers;
    if (done->epoch != yolk_transfer_generation(worker->transfer)) return "another life";
    if (sched_state(worker->sched, job->id) != SCHED_WAITING_KV) return "not waiting for KV";
    if (job->decode.computes) return "computed here";
    if (job->decode.kv_here) return "said twice";
    if (done->push_from != job->decode.push_from) return "not the blocks that were asked for";
    if (done->checksums.count != pieces) return "not one checksum for each piece";
    if (done->first_token >= model_params(worker->options.model)->vocab) return "no such token";
    if ((done->first_row.count > 0) != (job->logprobs > 0)) return "a row more or less";
    if (done->first_row.count > job_row_words(job->logprobs)) return "a long row";
    return NULL;
}

static void on_kv_call_cancel(void *ctx, enum status why)
{
    struct job *job = ctx;
    struct rpc_call *call = job->decode.kv_call;
    job->decode.kv_call = NULL;
    rpc_fail(call, why, NULL); /* p is gone; its KV may be complete all the same */
}

void decode_kv_done(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_kv_done done;

    if (proto_kv_done_decode(body, len, &done) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    struct job *job = job_find(worker, SCHED_KIND_DECODE, done.request_id, done.attempt);
    if (job == NULL) {
        rpc_fail(call, STATUS_STALE, "the attempt is over");
        return;
    }
    const char *wrong = check_kv_done(job, &done);
    if (wrong != NULL) {
        rpc_fail(call, STATUS_INVALID, wrong);
        return;
    }
    struct decode *decode = &job->decode;
    proto_u64s_copy(done.checksums, decode->sums);
    decode->sums_count = done.checksums.count;
    decode->first_token = done.first_token;
    job->row_count = done.first_row.count;
    proto_u32s_copy(done.first_row, job->row);
    decode->kv_here = true;
    decode->push_ended = true; /* p says so only when every write is final */
    decode->kv_call = call;
    rpc_on_cancel(call, on_kv_call_cancel, job);
    worker_kick(worker);
}

static void end_kv_call(struct job *job, enum status status, const char *text)
{
    struct rpc_call *call = job->decode.kv_call;
    if (call == NULL) return;
    job->decode.kv_call = NULL;
    if (status == STATUS_OK) {
        rpc_reply(call, NULL, 0);
    } else {
        rpc_fail(call, status, text);
    }
}

/* ---- tokens ---- */

static uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? (to_ns - from_ns) / ENV_NS_PER_US : 0;
}

static enum status send_finish(struct job *job)
{
    const struct decode *decode = &job->decode;
    const uint64_t now_ns = env_now_ns(job->worker->env);
    const struct proto_item item = {
        .kind = PROTO_ITEM_FINISH,
        .finish = {
            .reason = decode->reason,
            .generated = job->generated_before + job->tokens_count - job->prompt_count,
            .steps = decode->steps,
            .times = {
                .queue_us = us_between(job->arrived_ns, job->admitted_ns),
                .load_us = us_between(job->admitted_ns, job->loaded_ns),
                .compute_us = us_between(job->step_first_ns, job->step_last_ns),
                .push_us = us_between(job->admitted_ns, job->step_first_ns),
                .total_us = us_between(job->arrived_ns, now_ns),
            },
        },
    };
    return job_send(job, &item);
}

/* Of the token sampled last, which is the number `index` of this attempt. */
static void keep_row(struct job *job, uint32_t index)
{
    uint32_t *at = job->decode.rows + (size_t)index * row_stride(job->logprobs);

    if (job->logprobs == 0) return;
    ASSERT(job->row_count > 0 && job->row_count < row_stride(job->logprobs));
    at[0] = job->row_count;
    memcpy(at + 1, job->row, job->row_count * sizeof(*at));
}

static struct proto_u32s kept_row(const struct job *job, uint32_t index)
{
    const uint32_t *at = job->decode.rows + (size_t)index * row_stride(job->logprobs);

    return job->logprobs == 0 ? proto_u32s_of(NULL, 0) : proto_u32s_of(at + 1, at[0]);
}

static void flush(struct job *job);

static void on_writable(void *ctx)
{
    struct job *job = ctx;
    job->decode.writable_armed = false;
    flush(job);
}

/* True if the item was taken. Otherwise the rest waits, or nobody does any more (on_cancel). */
static bool taken(struct job *job, enum status status)
{
    if (status == STATUS_OK) return true;
    if (status == STATUS_FULL && !job->decode.writable_armed) {
        job->decode.writable_armed = true;
        rpc_on_writable(job->call, on_writable, job);
    }
    return false;
}

/* Streams what has not been streamed; when the answer is over, says so and ends the call (I4). */
static void flush(struct job *job)
{
    struct decode *decode = &job->decode;
    if (job->call == NULL) return;
    while (job->prompt_count + decode->sent < job->tokens_count) {
        const struct proto_item item = {
            .kind = PROTO_ITEM_TOKEN,
            .token = { .index = job->generated_before + decode->sent,
                       .token = job->tokens[job->prompt_count + decode->sent],
                       .row = kept_row(job, decode->sent) },
        };
        if (!taken(job, job_send(job, &item))) return;
        decode->sent++;
    }
    if (decode->reason == 0) return;
    if (!taken(job, send_finish(job))) return;
    struct rpc_call *call = job->call;
    job->call = NULL;
    rpc_reply(call, NULL, 0);
    job_settle(job);
}

/* A token was sampled. True if the answer goes on. */
static bool take_token(struct job *job, uint32_t token)
{
    const struct worker_options *options = &job->worker->options;
    struct decode *decode = &job->decode;
    const bool ends = !decode->ignore_eos && options->is_end != NULL &&
                      options->is_end(options->is_end_ctx, token);
    if (ends) {
        decode->reason = PROTO_FINISH_STOP;
        return false;
    }
    ASSERT(job->tokens_count < job->tokens_max);
    keep_row(job, job->tokens_count - job->prompt_count);
    job->tokens[job->tokens_count++] = token;
    job->worker->totals.tokens_generated++;
    if (job->tokens_count < job->tokens_max) return true;
    decode->reason = PROTO_FINISH_LENGTH;
    return false;
}

/* After take_token(): streams, and ends what is over (I4). */
static void go_on(struct job *job, bool more)
{
    ASSERT(job->call != NULL); /* so job_end() leaves the job to flush() */
    if (!more) job_end(job, SCHED_FINISHED);
    flush(job);
}

/* ---- joining ---- */

/* True if the piece is what p sent. */
static bool verify_piece(const struct job *job, uint32_t piece)
{
    const struct engine_layout *layout = &job->worker->layout;
    const uint32_t block = job->decode.push_from + piece / layout->n_layers;
    const uint64_t offset = (piece % layout->n_layers) * layout->layer_size;
    const uint8_t *data = store_node_data(job->worker->node, job->pages[block]) + offset;
    return hash_xxh3(data, layout->layer_size) == job->decode.sums[piece];
}

/* Publishes the full blocks that p pushed, or that were computed here. */
static void commit_prompt(struct job *job)
{
    struct worker *worker = job->worker;
    const uint32_t from = job->decode.push_from;
    if (worker->options.no_reuse) return;
    for (uint32_t block = from; block < job->keys_count; block++) {
        const uint64_t *sums =
            job->decode.computes
                ? NULL
                : job->decode.sums + (size_t)(block - from) * worker->layout.n_layers;
        const enum status status =
            store_node_commit(worker->node, &job->keys[block], job->pages[block], sums);
        ASSERT(status == STATUS_OK || status == STATUS_EXISTS);
    }
}

/* What the batch would be like with this sequence. */
struct crowd {
    uint32_t sequences; /* that decode now */
    uint64_t context;   /* tokens of all, with this one's */
    uint32_t tbt_us;    /* the tightest limit, with this one's; 0: nobody has one */
};

static uint32_t tighter(uint32_t a_us, uint32_t b_us)
{
    if (a_us == 0 || b_us == 0) return a_us + b_us;
    return a_us < b_us ? a_us : b_us;
}

static struct crowd crowd_of(const struct job *candidate)
{
    const struct worker *worker = candidate->worker;
    struct crowd crowd = { .context = candidate->tokens_count,
                           .tbt_us = candidate->decode.limits.tbt_us };

    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        const struct job *job = worker->jobs[i];
        if (job == NULL || job->over || job->kind != SCHED_KIND_DECODE) continue;
        if (sched_state(worker->sched, job->id) != SCHED_DECODE) continue;
        crowd.sequences++;
        crowd.context += job->tokens_count;
        crowd.tbt_us = tighter(crowd.tbt_us, job->decode.limits.tbt_us);
    }
    return crowd;
}

/* What a step of it all would take. */
static double crowd_ms(const struct worker *worker, const struct crowd *crowd)
{
    return conductor_cost_decode(&worker->decode_fit, crowd->sequences + 1.0,
                                 (double)crowd->context);
}

/* The limits, checked once more by who will have to keep them: the load may have changed since the
 * gateway looked, and only this node sees its own steps. True if the job was refused. Who would
 * decode alone is let in: nobody is slowed down, and without steps nothing is ever learned. */
static bool refuse_join(struct job *job)
{
    struct worker *worker = job->worker;
    const struct crowd crowd = crowd_of(job);

    if (!job->decode.limits.may_refuse || crowd.tbt_us == 0 || crowd.sequences == 0) return false;
    if (worker->decode_fit.samples < WORKER_JOIN_SAMPLES) return false;
    const double limit_ms = crowd.tbt_us / 1e3;
    const double ms = crowd_ms(worker, &crowd);
    if (ms <= limit_ms) return false;
    commit_prompt(job); /* its prefill was paid for: the next attempt finds it */
    worker->totals.refused++;
    job->decode.load_permille = (uint32_t)fmin(ceil(ms / limit_ms * 1000), 1e9);
    job_fail(job, PROTO_CAUSE_LIMIT, STATUS_BUSY,
             "%.1f ms between tokens with %u others, the limit is %.1f ms", ms, crowd.sequences,
             limit_ms);
    return true;
}

/* It decodes, or its answer is over with the first token (I4). */
static void begin(struct job *job)
{
    job->step_first_ns = env_now_ns(job->worker->env);
    job->step_last_ns = job->step_first_ns;
    go_on(job, take_token(job, job->decode.first_token));
}

static void join(struct job *job)
{
    struct worker *worker = job->worker;
    const bool only_one = job->decode.max_tokens == job->generated_before + 1;
    const bool ends = !job->decode.ignore_eos && worker->options.is_end != NULL &&
                      worker->options.is_end(worker->options.is_end_ctx, job->decode.first_token);

    /* An answer of one token needs no place in the batch. */
    if (!ends && !only_one) {
        if (job->decode.limits.door) {
            commit_prompt(job);
            job->decode.door_ns = env_now_ns(worker->env);
            return;
        }
        if (refuse_join(job) || sched_decode(worker->sched, job->id) != STATUS_OK) return;
    }
    commit_prompt(job);
    begin(job);
}

/* ---- the door ---- */

enum { BATCH_GROWTH = 8 };

static bool at_door(const struct job *job)
{
    return job != NULL && !job->over && job->kind == SCHED_KIND_DECODE && job->decode.door_ns != 0;
}

/* Whose answer has begun, elsewhere, goes first: somebody is reading it. */
static bool enters_before(const struct job *a, const struct job *b)
{
    if ((a->generated_before > 0) != (b->generated_before > 0)) return a->generated_before > 0;
    if (a->priority != b->priority) return a->priority > b->priority;
    return a->decode.door_ns < b->decode.door_ns;
}

static struct job *first_at_door(const struct worker *worker)
{
    struct job *first = NULL;

    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (at_door(job) && (first == NULL || enters_before(job, first))) first = job;
    }
    return first;
}

/* May it decode beside those that do? Before this node knows its steps, what the gateway believes
 * of them counts. What a batch costs that is much larger than any before is a guess, and all would
 * come in on it at once: so batches grow by a part of themselves, and the model with them. */
static bool has_place(const struct job *job)
{
    const struct worker *worker = job->worker;
    const struct crowd crowd = crowd_of(job);

    if (crowd.sequences == 0 || crowd.tbt_us == 0) return true;
    if (crowd.sequences > worker->batch_seen + worker->batch_seen / BATCH_GROWTH) return false;
    if (worker->decode_fit.samples < WORKER_JOIN_SAMPLES) {
        return job->decode.limits.places == 0 || crowd.sequences < job->decode.limits.places;
    }
    return crowd_ms(worker, &crowd) <= crowd.tbt_us / 1e3;
}

void decode_let_in(struct worker *worker)
{
    ASSERT(!worker->step_under_way);
    for (;;) {
        struct job *job = first_at_door(worker);
        if (job == NULL || !has_place(job)) return; /* nobody overtakes it: it would never get in */
        if (sched_decode(worker->sched, job->id) != STATUS_OK) return;
        LOG_DEBUG("worker", "let_in", "req=%016llx attempt=%u waited_us=%llu",
                  (unsigned long long)job->request_id, job->attempt,
                  (unsigned long long)us_between(job->decode.door_ns, env_now_ns(worker->env)));
        job->decode.door_ns = 0;
        begin(job);
    }
}

/* ---- gathering ---- */

/* All that is reused is here: the rest of the prompt is computed beside the next steps. */
static void compute(struct job *job)
{
    sched_compute(job->worker->sched, job->id,
                  job->decode.push_from * job->worker->layout.block_tokens);
}

bool decode_advance(struct job *job)
{
    struct decode *decode = &job->decode;
    const uint64_t layer_size = job->worker->layout.layer_size;
    uint64_t size = 0;

    ASSERT(!job->over);
    if (decode->door_ns != 0) return false;
    if (sched_state(job->worker->sched, job->id) != SCHED_WAITING_KV) return false;
    if (!decode->kv_here) {
        if (decode->computes && decode->fetched) compute(job);
        return false;
    }
    while (decode->sums_checked < decode->sums_count) {
        if (size >= WORKER_VERIFY_SIZE) return true;
        if (!verify_piece(job, decode->sums_checked)) {
            end_kv_call(job, STATUS_CORRUPT, "a checksum does not match");
            job_fail(job, PROTO_CAUSE_PUSH, STATUS_CORRUPT, "piece %u is not what was sent",
                     decode->sums_checked);
            return false;
        }
        decode->sums_checked++;
        size += layer_size;
    }
    end_kv_call(job, STATUS_OK, NULL);
    if (decode->fetched) join(job);
    return false;
}

/* ---- steps ---- */

/* Does the step under way decode anything? */
static bool step_decodes(const struct worker *worker)
{
    for (uint32_t i = 0; i < worker->step.items_count; i++)
        if (!worker->step.items[i].prompt) return true;
    return false;
}

void decode_fill_prompt(struct job *job, const struct sched_item *from, struct runner_item *item)
{
    const bool first = from->position == job->decode.push_from * job->worker->layout.block_tokens;

    *item = (struct runner_item){
        .pages = &job->pages[0].index,
        .pages_count = job->pages_count,
        .position = from->position,
        .tokens = job->tokens + from->position,
        .tokens_count = from->rows,
        .prefill = true,
        .prefill_first = first && !step_decodes(job->worker), /* or the step has paid for that */
        .sample = from->last,
    };
    job_fill_sample(job, from->position + from->rows, job->generated_before, item);
    job_fill_score(job, item);
}

/* What p would say. */
static enum status send_prefill_done(struct job *job)
{
    struct worker *worker = job->worker;
    const struct decode *decode = &job->decode;
    const uint32_t block_tokens = worker->layout.block_tokens;
    const uint32_t cached = decode->push_from * block_tokens;
    const struct proto_item item = {
        .kind = PROTO_ITEM_PREFILL_DONE,
        .prefill_done = {
            .cached_tokens = cached,
            .fetched_tokens = decode->fetch_blocks * block_tokens,
            .computed_tokens = job->prompt_count - cached,
            .miss = job->fetching.miss,
            .times = {
                .queue_us = us_between(job->arrived_ns, job->admitted_ns),
                .load_us = us_between(job->admitted_ns, job->loaded_ns),
                .compute_us = job->engine_ns / ENV_NS_PER_US,
                .total_us = us_between(job->arrived_ns, env_now_ns(worker->env)),
            },
        },
    };
    worker->totals.tokens_reused += cached;
    return job_send(job, &item);
}

void decode_prompt_done(struct job *job, const struct runner_item *item)
{
    struct worker *worker = job->worker;
    struct decode *decode = &job->decode;

    ASSERT(!job->over && decode->computes && !decode->kv_here);
    worker->totals.tokens_computed += item->tokens_count;
    if (!job_send_score(job, item)) return;
    if (sched_state(worker->sched, job->id) != SCHED_WAITING_KV) return; /* more to compute */
    ASSERT(item->sample);
    decode->first_token = item->sampled;
    job->row_count = item->row_count;
    decode->kv_here = true;
    const enum status status = send_prefill_done(job);
    if (status == STATUS_OK || status == STATUS_CANCELLED) return; /* on_cancel follows */
    job_fail(job, PROTO_CAUSE_INTERNAL, status, "the gateway does not read");
}

bool decode_fill_item(struct job *job, const struct sched_item *from, struct runner_item *item)
{
    struct worker *worker = job->worker;
    const uint32_t block = from->position / worker->layout.block_tokens;

    ASSERT(from->rows == 1 && from->position + 1 == job->tokens_count);
    ASSERT(block <= job->pages_count);
    if (block == job->pages_count) {
        if (store_node_alloc(worker->node, 1, &job->pages[block]) != STATUS_OK) {
            job_fail(job, PROTO_CAUSE_PAGES, STATUS_FULL, "no page for the next token");
            return false;
        }
        job->pages_count++;
    }
    *item = (struct runner_item){
        .pages = &job->pages[0].index,
        .pages_count = job->pages_count,
        .position = from->position,
        .tokens = job->tokens + from->position,
        .tokens_count = 1,
        .sample = true,
    };
    job_fill_sample(job, from->position + from->rows,
                    job->generated_before + (job->tokens_count - job->prompt_count), item);
    return true;
}

/* Publishes the block that the last row filled, if it did. */
static void commit_generated(struct job *job, uint32_t computed)
{
    struct worker *worker = job->worker;
    const uint32_t block_tokens = worker->layout.block_tokens;
    const uint32_t block = computed / block_tokens - 1;

    if (computed % block_tokens != 0 || worker->options.no_reuse) return;
    ASSERT(block == job->keys_count && block < job->pages_count);
    const struct block_key *parent = block == 0 ? &worker->root : &job->keys[block - 1];
    job->keys[block] = job_key(job, block, parent);
    job->keys_count++;
    const enum status status =
        store_node_commit(worker->node, &job->keys[block], job->pages[block], NULL);
    ASSERT(status == STATUS_OK || status == STATUS_EXISTS);
}

void decode_step_done(struct job *job, const struct runner_item *item)
{
    ASSERT(!job->over && item->sample);
    job->decode.steps++;
    commit_generated(job, item->position + 1);
    job->row_count = item->row_count;
    go_on(job, take_token(job, item->sampled));
}

/* ---- the end ---- */

/* I3: the pages come back when p has said that it is done, or cannot write any more. */
static void lease_over(void *ctx)
{
    struct job *job = ctx;
    ASSERT(job->over && job->decode.lending && job->inflight > 0);
    env_timer_cancel(job->worker->env, &job->decode.lease_timer);
    job->decode.lending = false;
    job->inflight--;
    job_settle(job);
}

void decode_stop(struct job *job)
{
    struct decode *decode = &job->decode;
    const uint64_t fence_ms = job->worker->options.lease_ms;
    end_kv_call(job, STATUS_STALE, "the attempt is over");
    if (!decode->lease_given || decode->push_ended) return;
    decode->lending = true;
    job->inflight++;
    env_timer_init(&decode->lease_timer, lease_over, job);
    env_timer_set(job->worker->env, &decode->lease_timer,
                  decode->lease_until_ns + (fence_ms + WORKER_FENCE_SLACK_MS) * ENV_NS_PER_MS);
}

void decode_release(struct job *job)
{
    ASSERT(job->decode.kv_call == NULL && !job->decode.lending);
    for (uint32_t i = 0; i < job->pages_count; i++) {
        store_node_unref(job->worker->node, job->pages[i]);
    }
}
