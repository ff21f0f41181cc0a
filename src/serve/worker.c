/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker.c - the node as a whole: what it consists of, and its turn.
 *
 * Everything that happens (a call, a fetched layer, a finished write, a finished step) is noted
 * where it happens and asks for a turn. The turn, on a timer that is due at once, does what has
 * become possible, in this order:
 *
 *   admit    oldest first, sequences get their pages; the first that cannot stops those behind it
 *   gather   decode sequences whose KV has come: verify a part, join the batch or go to its door
 *   let in   between steps, those at the door join as the limits between tokens allow
 *   step     if the engine is free, the scheduler picks, pages for new blocks are taken, it runs
 *
 * Threads: the loop thread; the engine thread behind the runner calls back through the loop. */
#include "serve/worker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "infer/grammar.h"
#include "model/model.h"
#include "serve/worker_int.h"

enum { SCRATCH_SIZE_MAX = 64 << 20, CONNECTIONS_MAX = 4096 };
#define WITHDRAW_NS ENV_NS_PER_S
static const uint64_t POOL_SIZE_DEFAULT = UINT64_C(1) << 30;

static_assert((int)PROTO_FINGERPRINT_SIZE == (int)STORE_FINGERPRINT_SIZE, "told to the master");
static_assert((int)PROTO_FINGERPRINT_SIZE == (int)CONDUCTOR_FINGERPRINT_SIZE, "goes into keys");
static_assert((int)PROTO_FINGERPRINT_SIZE == (int)HASH_SHA256_SIZE, "is a SHA-256");

uint64_t worker_call_deadline_ns(const struct job *job)
{
    const uint64_t limit_ns = env_now_ns(job->worker->env) + WORKER_CALL_MS * ENV_NS_PER_MS;
    return job->deadline_ns < limit_ns ? job->deadline_ns : limit_ns;
}

void worker_kick(struct worker *worker)
{
    if (worker->ending || env_timer_armed(&worker->turn)) return;
    env_timer_set(worker->env, &worker->turn, 0);
}

/* ---- the turn ---- */

/* A decode sequence that waits for KV may be waiting for a prompt that needs as many pages again on
 * this very node. So those who wait never hold so many that the longest of them could not be
 * computed here; unless there is only one. Who is at the door has its KV and waits for no prompt,
 * but for those who decode. */
static bool may_wait_for_kv(const struct worker *worker, const struct job *candidate)
{
    uint64_t held = 0;
    uint32_t longest = candidate->prompt_blocks;
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        const struct job *job = worker->jobs[i];
        if (job == NULL || job->over || job->kind != SCHED_KIND_DECODE) continue;
        if (sched_state(worker->sched, job->id) != SCHED_WAITING_KV) continue;
        if (job->decode.door_ns != 0) continue;
        held += job->pages_count;
        if (job->prompt_blocks > longest) longest = job->prompt_blocks;
    }
    return held == 0 || held + candidate->prompt_blocks + longest <= worker->totals.pages_total;
}

/* Oldest first. A prompt that gets no pages stops all behind it; a decode sequence only those of
 * its kind. */
static void admit(struct worker *worker)
{
    struct sched_id id;
    bool decode_too = true;
    for (uint32_t nth = 0; sched_queued(worker->sched, nth, &id);) {
        struct job *job = worker->jobs[id.index];
        ASSERT(job != NULL && !job->over);
        bool admitted = false;
        if (job->kind == SCHED_KIND_PREFILL) {
            const bool may = !prefill_waits_for_lease(job);
            admitted = may && prefill_admit(job);
            if (may && !admitted) return;
        } else if (decode_too) {
            admitted = may_wait_for_kv(worker, job) && decode_admit(job);
            decode_too = admitted;
        }
        if (!admitted) nth++;
    }
}

/* True if there is more to verify at once. */
static bool gather(struct worker *worker)
{
    bool more = false;
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL || job->over || job->kind != SCHED_KIND_DECODE) continue;
        more |= decode_advance(job);
    }
    return more;
}

static uint32_t pages_free(const struct worker *worker)
{
    struct store_node_counts counts;
    store_node_counts(worker->node, &counts);
    return counts.free + counts.evictable;
}

/* Turns the scheduler's step into the runner's. */
static void fill_step(struct worker *worker)
{
    struct runner_step *run = &worker->run;
    run->items_count = 0;
    run->part = (struct engine_part){ 0 };
    for (uint32_t i = 0; i < worker->step.items_count; i++) {
        const struct sched_item *from = &worker->step.items[i];
        struct job *job = worker->jobs[from->id.index];
        struct runner_item *item = &run->items[run->items_count];

        ASSERT(job != NULL && !job->over);
        job->inflight++; /* also keeps a job that fails here until the step is over */
        worker->run_jobs[i] = job;
        if (job->kind == SCHED_KIND_PREFILL) {
            prefill_fill_item(job, from, item);
            ASSERT(job->prefill.stage == NULL || worker->step.items_count == 1); /* it is alone */
            if (job->prefill.stage != NULL) stage_fill_part(job, from, &run->part);
        } else if (from->prompt) {
            decode_fill_prompt(job, from, item);
        } else if (!decode_fill_item(job, from, item)) {
            continue;
        }
        if (job->step_first_ns == 0) job->step_first_ns = worker->step_started_ns;
        worker->run_items[run->items_count++] = i;
    }
}

static void finish_step(struct worker *worker);

static void start_step(struct worker *worker)
{
    if (!worker->engine_ready || worker->step_under_way) return;
    for (;;) {
        const enum sched_pick pick = sched_pick(worker->sched, pages_free(worker), &worker->step);
        if (pick == SCHED_PICK_IDLE) return;
        if (pick == SCHED_PICK_STEP) break;
        job_fail(worker->jobs[worker->step.items[0].id.index], PROTO_CAUSE_PAGES, STATUS_FULL,
                 "no page for the next token: older requests go first");
    }
    worker->step_under_way = true;
    worker->step_started_ns = env_now_ns(worker->env);
    fill_step(worker);
    if (worker->run.items_count > 0) {
        runner_submit(worker->runner, &worker->run);
        return;
    }
    sched_step_done(worker->sched, &worker->step, false);
    worker->step_under_way = false;
    finish_step(worker);
}

static void turn(void *ctx)
{
    struct worker *worker = ctx;
    admit(worker);
    const bool more = gather(worker);
    if (!worker->step_under_way) decode_let_in(worker);
    start_step(worker);
    if (more) worker_kick(worker);
}

/* ---- what grows old ---- */

void worker_sweep_later(struct worker *worker)
{
    if (worker->ending || env_timer_armed(&worker->sweep)) return;
    env_timer_set(worker->env, &worker->sweep,
                  env_now_ns(worker->env) + WORKER_SWEEP_MS * ENV_NS_PER_MS);
}

static void sweep(void *ctx)
{
    struct worker *worker = ctx;
    const uint64_t now_ns = env_now_ns(worker->env);
    bool any = false;

    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL) continue;
        any = true;
        if (job->over || sched_state(worker->sched, job->id) != SCHED_QUEUED) continue;
        if (now_ns - job->arrived_ns < WORKER_QUEUE_MS * ENV_NS_PER_MS) continue;
        job_fail(job, PROTO_CAUSE_PAGES, STATUS_FULL, "no pages for %d s", WORKER_QUEUE_MS / 1000);
    }
    peer_sweep_all(worker);
    if (any || worker->peers_count > 0) worker_sweep_later(worker);
}

/* ---- answers of the engine thread ---- */

static void on_layer(void *ctx, uint32_t layer)
{
    struct worker *worker = ctx;
    if (worker->ending) return;
    for (uint32_t i = 0; i < worker->run.items_count; i++) {
        struct job *job = worker->run_jobs[worker->run_items[i]];
        if (job->kind != SCHED_KIND_PREFILL || job->over) continue;
        prefill_layer_done(job, &worker->run.items[i], layer);
    }
}

/* The last of a step: its jobs may go. */
static void finish_step(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->step.items_count; i++) {
        struct job *job = worker->run_jobs[i];
        ASSERT(job->inflight > 0);
        job->inflight--;
        if (job->over) job_settle(job);
    }
    worker_kick(worker);
}

/* What a step of sequences that all decode costs. Prompts beside them would blur it. */
static void learn_step(struct worker *worker, uint64_t duration_ns)
{
    uint64_t context = 0;
    uint32_t decoding = 0;

    for (uint32_t i = 0; i < worker->step.items_count; i++) {
        if (worker->step.items[i].prompt) continue;
        context += worker->step.items[i].position + 1;
        decoding++;
    }
    if (decoding > worker->batch_seen && ++worker->batch_steps >= WORKER_BATCH_STEPS) {
        worker->batch_seen = decoding;
        worker->batch_steps = 0;
    }
    if (decoding != worker->step.items_count) return;
    if (worker->run.items_count != worker->step.items_count) return; /* some had no page */
    const enum status status =
        conductor_fit_decode(&worker->decode_fit, worker->step.items_count, (double)context,
                             (double)duration_ns / ENV_NS_PER_MS);
    ASSERT(status == STATUS_OK);
}

/* What of the step's time the rows of its i-th item took, taking all rows as alike. */
static uint64_t share_of(const struct worker *worker, uint32_t i, uint64_t duration_ns)
{
    const struct sched_item *item = &worker->step.items[worker->run_items[i]];

    ASSERT(item->rows > 0 && item->rows <= worker->step.rows);
    return duration_ns * item->rows / worker->step.rows;
}

static void deliver(struct worker *worker, const struct runner_result *result)
{
    const bool computed = result->status == STATUS_OK;
    for (uint32_t i = 0; i < worker->run.items_count; i++) {
        const struct runner_item *item = &worker->run.items[i];
        struct job *job = worker->run_jobs[worker->run_items[i]];
        if (job->over) continue;
        job->step_last_ns = env_now_ns(worker->env);
        job->engine_ns += share_of(worker, i, result->duration_ns);
        if (item->gate != NULL) job->prefill.waited_ns += result->waited_ns; /* it is alone */
        if (result->status != STATUS_OK && result->status != STATUS_CANCELLED) {
            job_fail(job, PROTO_CAUSE_INTERNAL, STATUS_IO, "the engine refused: %s",
                     status_name(result->status));
        } else if (job->kind == SCHED_KIND_PREFILL) {
            prefill_step_done(job, item, computed);
        } else if (computed && worker->step.items[worker->run_items[i]].prompt) {
            decode_prompt_done(job, item);
        } else if (computed) {
            decode_step_done(job, item);
        }
    }
}

static void on_step_done(void *ctx, const struct runner_result *result)
{
    struct worker *worker = ctx;
    ASSERT(worker->step_under_way);
    if (worker->ending) return;
    worker->totals.step_us = result->duration_ns / ENV_NS_PER_US;
    if (result->status != STATUS_OK && result->status != STATUS_CANCELLED) {
        LOG_ERROR("worker", "step_refused", "items=%u reason=%s", worker->run.items_count,
                  status_name(result->status));
    }
    /* The scheduler learns first, so that what follows sees the new states; the jobs' own counts
     * last, so that none is freed meanwhile. */
    sched_step_done(worker->sched, &worker->step, result->status == STATUS_OK);
    worker->step_under_way = false;
    if (result->status == STATUS_OK) learn_step(worker, result->duration_ns);
    deliver(worker, result);
    finish_step(worker);
}

/* ---- what others may ask ---- */

const char *worker_address(const struct worker *worker)
{
    return worker->address;
}

static uint32_t element_of(enum engine_kv kv)
{
    return kv == ENGINE_KV_Q8_0 ? CONDUCTOR_ELEMENT_Q8_0 : CONDUCTOR_ELEMENT_F16;
}

/* Bytes after which elements of pages repeat. */
static uint32_t element_size(enum engine_kv kv)
{
    return kv == ENGINE_KV_Q8_0 ? 34 : 2;
}

void worker_info(const struct worker *worker, struct proto_node_info *out)
{
    const struct engine_layout *layout = &worker->layout;
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "%s", worker->name);
    snprintf(out->model, sizeof(out->model), "%s", worker->model_name);
    snprintf(out->isa, sizeof(out->isa), "%s", layout->isa_name);
    snprintf(out->segment, sizeof(out->segment), "%s", store_node_segment(worker->node));
    memcpy(out->fingerprint, worker->fingerprint, sizeof(out->fingerprint));
    out->role = worker->options.role;
    out->block_tokens = layout->block_tokens;
    out->element = element_of(layout->kv);
    out->layers = layout->n_layers;
    out->layer_size = layout->layer_size;
    out->page_size = layout->page_size;
    out->context_max = worker->context_max;
    out->vocab_count = model_params(worker->options.model)->vocab;
    out->epoch = store_node_epoch(worker->node);
}

static void disk_status(const struct store_node_counts *counts, uint64_t out[PROTO_DISK_NUMBERS])
{
    const struct ssd_counts *ssd = &counts->ssd;
    const struct vlog_counts *values = &counts->vlog;

    out[PROTO_DISK_BLOCKS] = ssd->blocks;
    out[PROTO_DISK_SIZE] = ssd->size;
    out[PROTO_DISK_SIZE_MAX] = ssd->size_max;
    out[PROTO_DISK_QUEUE] = counts->disk_queue;
    out[PROTO_DISK_BYTES_ACCEPTED] = ssd->bytes_accepted_total;
    out[PROTO_DISK_BYTES_WRITTEN] = ssd->bytes_written_total;
    out[PROTO_DISK_BYTES_READ] = ssd->bytes_read_total;
    out[PROTO_DISK_BLOCKS_WRITTEN] = ssd->blocks_written_total;
    out[PROTO_DISK_BLOCKS_READ] = ssd->blocks_read_total;
    out[PROTO_DISK_CORRUPT] = ssd->corrupt_total;
    out[PROTO_DISK_ERRORS] = ssd->read_errors_total + ssd->write_errors_total + ssd->full_total;
    out[PROTO_DISK_DROPPED] = counts->disk_dropped_total;
    out[PROTO_DISK_PROMOTED] = counts->disk_promoted_total;
    out[PROTO_DISK_RECLAIMED] = ssd->blocks_reclaimed_total;
    out[PROTO_DISK_VALUES] = values->values;
    out[PROTO_DISK_VALUES_SIZE] = values->size;
    out[PROTO_DISK_VALUES_QUEUE] = counts->values_queue;
    out[PROTO_DISK_VALUES_ACCEPTED] = values->bytes_accepted_total;
    out[PROTO_DISK_VALUES_WRITTEN] = values->bytes_written_total;
    out[PROTO_DISK_VALUES_READ] = values->values_read_total;
    out[PROTO_DISK_VALUES_KEPT] = counts->values_evicted_total;
    out[PROTO_DISK_VALUES_LOST] = counts->values_lost_total;
    out[PROTO_DISK_VALUES_CORRUPT] = values->corrupt_total;
    out[PROTO_DISK_VALUES_ERRORS] = values->read_errors_total + values->write_errors_total;
    out[PROTO_DISK_PACKED_FROM] = ssd->packed_from_total + values->packed_from_total;
    out[PROTO_DISK_PACKED_TO] = ssd->packed_to_total + values->packed_to_total;
}

static uint32_t count_at_door(const struct worker *worker)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        const struct job *job = worker->jobs[i];
        if (job != NULL && !job->over && job->kind == SCHED_KIND_DECODE) {
            count += job->decode.door_ns != 0;
        }
    }
    return count;
}

void worker_status(const struct worker *worker, struct proto_node_status *out)
{
    struct sched_counts counts;
    struct store_node_counts pages;

    sched_counts(worker->sched, &counts);
    store_node_counts(worker->node, &pages);
    *out = worker->totals;
    out->queued = counts.states[SCHED_QUEUED];
    out->decoding = counts.states[SCHED_DECODE];
    out->at_door = count_at_door(worker);
    out->running = counts.states[SCHED_LOADING] + counts.states[SCHED_PREFILL] +
                   counts.states[SCHED_PUSHING] + counts.states[SCHED_WAITING_KV] +
                   counts.states[SCHED_DECODE];
    out->queued_tokens = counts.tokens_to_compute;
    out->pages_free = pages.free;
    out->pages_cached = pages.evictable;
    out->role = worker->options.role;
    disk_status(&pages, out->disk);
}

static void node_info(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_node_info info;
    (void)body;
    (void)len;
    worker_info(worker, &info);
    buf_clear(&worker->scratch);
    const enum status status = proto_node_info_encode(&info, &worker->scratch);
    ASSERT(status == STATUS_OK);
    rpc_reply(call, buf_data(&worker->scratch), worker->scratch.len);
}

static void node_status(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_node_status numbers;
    (void)body;
    (void)len;
    worker_status(worker, &numbers);
    buf_clear(&worker->scratch);
    const enum status status = proto_node_status_encode(&numbers, &worker->scratch);
    ASSERT(status == STATUS_OK);
    rpc_reply(call, buf_data(&worker->scratch), worker->scratch.len);
}

/* A role is a preference of those who place: nothing here depends on it. */
static void node_role(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_node_role message;

    if (proto_node_role_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    if (message.role != worker->options.role) {
        LOG_INFO("worker", "role_changed", "name=%s from=%s to=%s by=%s", worker->name,
                 proto_role_name(worker->options.role), proto_role_name(message.role),
                 rpc_call_peer(call));
    }
    worker->options.role = message.role;
    rpc_reply(call, NULL, 0);
}

/* Somebody misconfigured one of the two: here is where its operator looks. */
static void node_refused(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    const struct worker *worker = ctx;
    struct proto_node_refused message;

    if (proto_node_refused_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    LOG_WARN("worker", "refused_by_gateway", "name=%s gateway=%s reason=%s", worker->name,
             rpc_call_peer(call), message.reason);
    rpc_reply(call, NULL, 0);
}

/* ---- what the transfer engine did ---- */

enum { TRANSFERS_TEXT_MAX = 256 << 10, TRANSFERS_LAST = 20 };

/* The length of the text, 0 if that transfer is not known. */
static size_t transfers_text(const struct worker *worker, const struct proto_node_transfers *what,
                             char *out, size_t size)
{
    struct yolk_transfer_explain explain;
    size_t len = 0;

    switch (what->what) {
    case PROTO_TRANSFERS_METRICS: return yolk_transfer_metrics_text(worker->transfer, out, size);
    case PROTO_TRANSFERS_ONE:
        if (yolk_transfer_explain_id(worker->transfer, what->id, &explain) != STATUS_OK) return 0;
        return yolk_transfer_explain_text(worker->transfer, &explain, out, size);
    case PROTO_TRANSFERS_LAST:
        for (uint32_t i = 0; i < TRANSFERS_LAST; i++) {
            if (yolk_transfer_explain_last(worker->transfer, i, &explain) != STATUS_OK) break;
            len += yolk_transfer_explain_text(worker->transfer, &explain, out + len, size - len);
        }
        if (len == 0) len = (size_t)snprintf(out, size, "no transfer has ended yet\n");
        return len;
    }
    return 0;
}

static void node_transfers(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_node_transfers message;

    if (proto_node_transfers_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    char *text = malloc(TRANSFERS_TEXT_MAX);
    if (text == NULL) {
        rpc_fail(call, STATUS_NO_MEMORY, "no memory for the answer");
        return;
    }
    const size_t size = transfers_text(worker, &message, text, TRANSFERS_TEXT_MAX);
    if (size == 0) {
        rpc_fail(call, STATUS_NOT_FOUND, "no such transfer is remembered");
    } else {
        rpc_reply(call, text, size);
    }
    free(text);
}

/* ---- becoming ready ---- */

static void tell_ready(struct worker *worker, enum status status, const char *error)
{
    if (worker->ready_told) return;
    worker->ready_told = true;
    if (worker->options.on_ready != NULL) {
        worker->options.on_ready(worker->options.ctx, status, error);
    }
}

static void on_joined(void *ctx, uint64_t term)
{
    struct worker *worker = ctx;
    LOG_INFO("worker", "joined", "name=%s term=%llu", worker->name, (unsigned long long)term);
    tell_ready(worker, STATUS_OK, "");
}

static enum store_role store_role_of(enum proto_role role)
{
    switch (role) {
    case PROTO_ROLE_PREFILL: return STORE_ROLE_PREFILL;
    case PROTO_ROLE_DECODE: return STORE_ROLE_DECODE;
    case PROTO_ROLE_STORE: return STORE_ROLE_STORE;
    case PROTO_ROLE_BOTH: return STORE_ROLE_BOTH;
    }
    ASSERT(false);
    return STORE_ROLE_STORE;
}

static enum status join_cluster(struct worker *worker, struct errmsg *err)
{
    struct store_join_options options = {
        .env = worker->env,
        .master = worker->options.master,
        .secret = worker->secret,
        .node = worker->node,
        .on_joined = on_joined,
        .ctx = worker,
    };
    struct store_member_info *info = &options.info;
    if (strlen(worker->address) >= sizeof(info->rpc_address) ||
        strlen(store_node_segment(worker->node)) >= sizeof(info->segment)) {
        return errmsg_set(err, STATUS_INVALID, "the address %s is too long", worker->address);
    }
    memcpy(info->rpc_address, worker->address, strlen(worker->address) + 1);
    snprintf(info->name, sizeof(info->name), "%s", worker->name);
    snprintf(info->segment, sizeof(info->segment), "%s", store_node_segment(worker->node));
    memcpy(info->fingerprint, worker->fingerprint, sizeof(info->fingerprint));
    info->role = store_role_of(worker->options.role);
    info->layout = *store_node_layout(worker->node);
    info->epoch = store_node_epoch(worker->node);
    return store_join(&options, &worker->member, err);
}

static void on_engine_ready(void *ctx, enum status status, const char *error)
{
    struct worker *worker = ctx;
    struct errmsg err = { "" };

    if (status != STATUS_OK) {
        LOG_ERROR("worker", "no_engine", "reason=%s text=%s", status_name(status), error);
        tell_ready(worker, status, error);
        return;
    }
    worker->engine_ready = true;
    worker_kick(worker);
    if (worker->options.master == NULL) {
        tell_ready(worker, STATUS_OK, "");
        return;
    }
    status = join_cluster(worker, &err);
    if (status != STATUS_OK) tell_ready(worker, status, err.text);
}

/* ---- creation ---- */

void worker_fingerprint(const struct model *model, const struct engine_layout *layout,
                        uint8_t out[PROTO_FINGERPRINT_SIZE])
{
    uint8_t weights[MODEL_FINGERPRINT_SIZE];
    struct hash_stream *stream = hash_sha256_create();

    model_fingerprint(model, weights);
    hash_sha256_update(stream, "yolk-kv-identity-1", sizeof("yolk-kv-identity-1"));
    hash_sha256_update(stream, weights, sizeof(weights));
    hash_sha256_update(stream, layout->isa_name, strlen(layout->isa_name) + 1);
    hash_sha256_update(stream, layout->id, strlen(layout->id) + 1);
    hash_sha256_final(stream, out);
    hash_sha256_destroy(stream);
}

/* "host:port" -> "host"; brackets stay. */
static void host_of(const char *address, char *out, size_t size)
{
    const char *colon = strrchr(address, ':');
    const size_t len = colon != NULL ? (size_t)(colon - address) : strlen(address);
    snprintf(out, size, "%.*s", (int)len, address);
}

static enum status take_options(struct worker *worker, const struct worker_options *options,
                                struct errmsg *err)
{
    struct worker_options *own = &worker->options;
    *own = *options;
    if (options->model == NULL) return errmsg_set(err, STATUS_INVALID, "no model");
    if (options->name == NULL || options->name[0] == '\0' ||
        strlen(options->name) >= PROTO_NAME_SIZE) {
        return errmsg_set(err, STATUS_INVALID, "a node needs a name of 1 to %d bytes",
                          PROTO_NAME_SIZE - 1);
    }
    if (own->listen == NULL || own->listen[0] == '\0') own->listen = "127.0.0.1:0";
    if (own->model_name == NULL) own->model_name = model_name(options->model);
    if (own->master != NULL && own->master[0] == '\0') own->master = NULL;
    if (own->pool_size == 0) own->pool_size = POOL_SIZE_DEFAULT;
    if (own->block_tokens == 0) own->block_tokens = ENGINE_BLOCK_TOKENS_DEFAULT;
    if (own->sequences_max == 0) own->sequences_max = WORKER_SEQUENCES_DEFAULT;
    if (own->decode_max == 0) own->decode_max = WORKER_DECODES_DEFAULT;
    if (own->lease_ms == 0) own->lease_ms = WORKER_LEASE_MS_DEFAULT;
    if (own->lease_ms < WORKER_LEASE_MS_MIN) own->lease_ms = WORKER_LEASE_MS_MIN;
    if (own->fetch_quiet_ms == 0) own->fetch_quiet_ms = WORKER_FETCH_QUIET_MS;
    if (own->rows_max == 0) own->rows_max = WORKER_ROWS_DEFAULT;
    const uint32_t trained = model_params(options->model)->context;
    worker->context_max = own->context_max == 0 ? trained : own->context_max;
    if (worker->context_max > PROTO_TOKENS_MAX / 2) worker->context_max = PROTO_TOKENS_MAX / 2;
    own->context_max = worker->context_max;
    snprintf(worker->name, sizeof(worker->name), "%s", options->name);
    snprintf(worker->model_name, sizeof(worker->model_name), "%s", own->model_name);
    worker->secret = strdup(options->secret != NULL ? options->secret : "");
    if (worker->secret == NULL) return STATUS_NO_MEMORY;
    own->master = own->master != NULL ? strdup(own->master) : NULL;
    return STATUS_OK;
}

static enum status create_transport(struct worker *worker, struct errmsg *err)
{
    const struct worker_options *options = &worker->options;
    char host[PROTO_ADDRESS_SIZE], advertise[PROTO_ADDRESS_SIZE], data[PROTO_ADDRESS_SIZE + 8];

    host_of(options->listen, host, sizeof(host));
    snprintf(advertise, sizeof(advertise), "%s",
             options->advertise != NULL && options->advertise[0] != '\0' ? options->advertise
                                                                         : host);
    snprintf(data, sizeof(data), "%s:0", host);
    const bool chosen = options->transfer != NULL && options->transfer[0] != '\0';
    const struct yolk_transfer_options transfer = {
        .listen = chosen ? options->transfer : data,
        .advertise_host = advertise,
        .secret = worker->secret,
        .rails = options->rails,
        .protocol = options->protocol,
        .topology_file = options->topology,
        .metadata = options->metadata,
        .segment = worker->name,
        .forbid_shm = options->forbid_shm,
        .encrypt = options->encrypt,
        .fence_ms = options->lease_ms,
    };
    enum status status = yolk_transfer_create(worker->env, &transfer, &worker->transfer, err);
    if (status != STATUS_OK) return status;
    const struct rpc_server_options server = { .address = options->listen,
                                               .secret = worker->secret,
                                               .name = worker->name,
                                               .connections_max = CONNECTIONS_MAX };
    status = rpc_server_create(worker->env, &server, &worker->server, err);
    if (status != STATUS_OK) return status;
    const int len = snprintf(worker->address, sizeof(worker->address), "%s:%u", advertise,
                             rpc_server_port(worker->server));
    if (len >= (int)sizeof(worker->address)) {
        return errmsg_set(err, STATUS_INVALID, "the address %s is too long", advertise);
    }
    return STATUS_OK;
}

/* Digest of all that makes two nodes' pages exchangeable. */
static void layout_id(const struct worker *worker, uint8_t out[STORE_LAYOUT_ID_SIZE])
{
    memcpy(out, worker->fingerprint, STORE_LAYOUT_ID_SIZE);
}

static enum status create_node(struct worker *worker, struct errmsg *err)
{
    const struct engine_layout *layout = &worker->layout;
    const uint64_t pages = worker->options.pool_size / layout->page_size;
    struct store_node_options options = {
        .env = worker->env,
        .transfer = worker->transfer,
        .server = worker->server,
        .secret = worker->secret,
        .layout = {
            .pages = pages > STORE_PAGES_MAX ? STORE_PAGES_MAX : (uint32_t)pages,
            .page_size = (uint32_t)layout->page_size,
            .layers = layout->n_layers,
            .layer_size = (uint32_t)layout->layer_size,
            .block_tokens = layout->block_tokens,
        },
        .name = worker->name,
        .disk_directory = worker->options.data_dir,
        .disk_size = worker->options.disk_size,
        .object_size = worker->options.object_size,
        .values_disk_size = worker->options.values_disk_size,
        .disk_keys = worker->options.disk_keys,
        .disk_packing = { worker->options.disk_pack_level, element_size(layout->kv) },
        .populate = worker->options.pool_populate,
    };
    layout_id(worker, options.layout.id);
    if (pages < 2) {
        return errmsg_set(err, STATUS_INVALID, "a pool of %llu bytes holds no two pages of %llu",
                          (unsigned long long)worker->options.pool_size,
                          (unsigned long long)layout->page_size);
    }
    worker->totals.pages_total = options.layout.pages;
    return store_node_create(&options, &worker->node, err);
}

static enum status create_runner(struct worker *worker, struct errmsg *err)
{
    const struct worker_options *options = &worker->options;
    const struct runner_options runner = {
        .env = worker->env,
        .model = options->model,
        .threads = options->threads,
        .block_tokens = options->block_tokens,
        .context_max = worker->context_max,
        .isa = options->isa,
        .kv = options->kv,
        .timed = options->timed,
        .pages = store_node_base(worker->node),
        .pages_count = worker->totals.pages_total,
        .on_ready = on_engine_ready,
        .on_layer = on_layer,
        .on_done = on_step_done,
        .ctx = worker,
    };
    return runner_create(&runner, &worker->runner, err);
}

static enum status create_sched(struct worker *worker, struct errmsg *err)
{
    const struct sched_options options = {
        .sequences_max = worker->options.sequences_max,
        .decode_max = worker->options.decode_max,
        .rows_max = worker->options.rows_max,
        .block_tokens = worker->options.block_tokens,
    };
    const enum status status = sched_create(&options, &worker->sched);
    if (status == STATUS_INVALID) {
        return errmsg_set(err, status, "%u decoding sequences and a block do not fit %u rows",
                          options.decode_max, options.rows_max);
    }
    if (status != STATUS_OK) return status;
    worker->jobs_max = options.sequences_max;
    worker->jobs = calloc(worker->jobs_max, sizeof(struct job *));
    return worker->jobs != NULL ? STATUS_OK : STATUS_NO_MEMORY;
}

static void add_methods(struct worker *worker)
{
    static const struct {
        enum proto_method method;
        rpc_handler_fn handler;
    } methods[] = {
        { PROTO_DECODE_OPEN, decode_open },       { PROTO_DECODE_PUSH, decode_push },
        { PROTO_PREFILL_RUN, prefill_run },       { PROTO_DECODE_KV_DONE, decode_kv_done },
        { PROTO_NODE_INFO, node_info },           { PROTO_NODE_STATUS, node_status },
        { PROTO_NODE_ROLE, node_role },           { PROTO_NODE_REFUSED, node_refused },
        { PROTO_NODE_TRANSFERS, node_transfers }, { PROTO_NODE_COPY, copy_make },
        { PROTO_NODE_DROP, copy_drop },           { PROTO_STAGE_RUN, stage_run },
        { PROTO_STAGE_ROWS, stage_rows },         { PROTO_STAGE_SUMS, stage_sums },
        { PROTO_NODE_LEAVING, drain_watch },
    };
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        rpc_server_add(worker->server, (uint16_t)methods[i].method,
                       proto_method_name(methods[i].method), methods[i].handler, worker);
    }
}

static void identify(struct worker *worker)
{
    struct conductor_key_identity identity = {
        .block_tokens = worker->layout.block_tokens,
        .element = element_of(worker->layout.kv),
    };
    worker_fingerprint(worker->options.model, &worker->layout, worker->fingerprint);
    memcpy(identity.fingerprint, worker->fingerprint, sizeof(identity.fingerprint));
    worker->root = conductor_key_root(&identity);
}

static enum status create_parts(struct worker *worker, const struct worker_options *options,
                                struct errmsg *err)
{
    enum status status = take_options(worker, options, err);
    if (status != STATUS_OK) return status;
    const struct backend_options backend = {
        .engine = { .block_tokens = worker->options.block_tokens,
                    .isa = options->isa,
                    .kv = options->kv },
        .timed = options->timed,
    };
    status = backend_layout_query(options->model, &backend, &worker->layout, err);
    if (status != STATUS_OK) return status;
    identify(worker);
    status = create_sched(worker, err);
    if (status != STATUS_OK) return status;
    status = create_transport(worker, err);
    if (status != STATUS_OK) return status;
    status = create_node(worker, err);
    if (status != STATUS_OK) return status;
    add_methods(worker);
    return create_runner(worker, err);
}

enum status worker_create(struct env *env, const struct worker_options *options,
                          struct worker **out, struct errmsg *err)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) return STATUS_NO_MEMORY;
    worker->env = env;
    env_timer_init(&worker->turn, turn, worker);
    env_timer_init(&worker->sweep, sweep, worker);
    drain_init(worker);
    buf_init(&worker->scratch, SCRATCH_SIZE_MAX);
    conductor_fit_init(&worker->decode_fit, CONDUCTOR_FIT_DECODE);
    const enum status status = create_parts(worker, options, err);
    if (status != STATUS_OK) {
        worker_destroy(worker);
        return status;
    }
    LOG_INFO("worker", "created",
             "name=%s role=%s rpc=%s segment=%s pages=%u page_size=%llu isa=%s", worker->name,
             proto_role_name(worker->options.role), worker->address,
             store_node_segment(worker->node), worker->totals.pages_total,
             (unsigned long long)worker->layout.page_size, worker->layout.isa_name);
    *out = worker;
    return STATUS_OK;
}

/* ---- the end ---- */

static void fail_jobs(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL) continue;
        if (!job->over) {
            job_fail(job, PROTO_CAUSE_SHUTDOWN, STATUS_UNAVAILABLE, "the node goes away");
        } else if (job->call != NULL) {
            struct rpc_call *call = job->call;
            job->call = NULL;
            job_refuse(worker, call, PROTO_CAUSE_SHUTDOWN, STATUS_UNAVAILABLE,
                       "the node goes away");
            job_settle(job);
        }
    }
}

/* What is left had something under way that will not call back any more. */
static void abandon_jobs(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        if (worker->jobs[i] != NULL) job_abandon(worker->jobs[i]);
    }
}

void worker_destroy(struct worker *worker)
{
    if (worker == NULL) return;
    (void)yolk_transfer_withdraw(worker->transfer, WITHDRAW_NS); /* while all of it still works */
    if (worker->jobs != NULL) fail_jobs(worker);
    copy_fail_all(worker);
    drain_end(worker);
    worker->ending = true;
    env_timer_cancel(worker->env, &worker->turn);
    env_timer_cancel(worker->env, &worker->sweep);
    runner_destroy(worker->runner);
    peer_destroy_all(worker); /* calls end inside */
    rpc_server_destroy(worker->server);
    store_leave(worker->member);
    if (worker->node != NULL) store_node_close_disk(worker->node);
    yolk_transfer_destroy(worker->transfer); /* and the pages with it */
    store_node_destroy(worker->node);        /* fetches end inside */
    if (worker->jobs != NULL) abandon_jobs(worker);
    grammar_words_destroy(worker->words);
    free(worker->jobs);
    sched_destroy(worker->sched);
    buf_fini(&worker->scratch);
    free((char *)(uintptr_t)worker->options.master);
    free(worker->secret);
    free(worker);
}
