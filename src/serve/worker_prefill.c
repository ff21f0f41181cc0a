/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_prefill.c - p's side of an attempt: load what exists, compute the rest, push it to
 * d.
 *
 *   prefill.run arrives      QUEUED    asks d for the lease, if anything is to be pushed
 *   lease held, pages taken  LOADING   when blocks come from another node, else PREFILL
 *   first layer loaded       PREFILL   the engine waits for each further layer at the gate
 *   after each layer of a chunk        WRITEs of that layer of the chunk's blocks start
 *   last row computed        PUSHING   first token to the gateway; full blocks are published
 *   last WRITE acknowledged            decode.kv_done with checksums to d
 *   d has verified           FINISHED  prefill_done to the gateway
 *
 * A stage of a group does the same with some of the layers: worker_stage.c.
 *
 * A fetch that breaks off is no failure here: what came is kept, the rest is computed. The
 * checksums are taken from the very bytes that the WRITEs read, by the engine's thread, when a
 * layer is done: pages of computed blocks do not change afterwards. (When a step is given up and
 * done again, its first layers are computed and pushed twice: the engine is row-invariant, so the
 * bytes are equal.) */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

static uint32_t blocks_reusable(const struct job *job)
{
    if (stage_follows(job)) return stage_reuse_blocks(job);
    if (job->scores > 0) return 0; /* the logits of all tokens are */
    /* The last token of the prompt is always computed: its logits are the point. */
    return (job->prompt_count - 1) / job->worker->layout.block_tokens;
}

/* ---- the lease ---- */

static void lease_renew(void *ctx);

static void on_lease(void *ctx, const struct rpc_result *result)
{
    struct job *job = ctx;
    struct prefill *prefill = &job->prefill;
    struct proto_push_lease lease;
    enum status status = result->status;

    ASSERT(prefill->lease_calling && job->inflight > 0);
    prefill->lease_calling = false;
    job->inflight--;
    if (status == STATUS_OK) status = proto_push_lease_decode(result->body, result->len, &lease);
    if (status == STATUS_OK) {
        prefill->lease_held = true;
        prefill->lease_until_ns = prefill->lease_sent_ns + lease.lease_ms * ENV_NS_PER_MS;
    }
    if (job->over) {
        job_settle(job);
        return;
    }
    if (stage_told(job)) return; /* nothing is written any more */
    if (status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_PUSH, status, "no permission to push: %s", status_name(status));
        return;
    }
    env_timer_set(job->worker->env, &prefill->lease_timer,
                  prefill->lease_sent_ns + job->worker->options.lease_ms / 3 * ENV_NS_PER_MS);
    worker_kick(job->worker);
}

static enum status send_push(struct job *job, enum proto_push_kind kind,
                             void (*on_end)(void *ctx, const struct rpc_result *result), void *ctx,
                             struct rpc_call_id *id)
{
    struct worker *worker = job->worker;
    const struct proto_push push = { .request_id = job->request_id,
                                     .attempt = job->attempt,
                                     .epoch = job->prefill.target.epoch,
                                     .kind = kind,
                                     .writer = stage_writer(job) };
    buf_clear(&worker->scratch);
    const enum status status = proto_push_encode(&push, &worker->scratch);
    if (status != STATUS_OK) return status;
    return rpc_call(
        job->prefill.peer->client,
        &(struct rpc_request){
            .method = PROTO_DECODE_PUSH,
            .body = buf_data(&worker->scratch),
            .len = worker->scratch.len,
            .deadline_ns = env_now_ns(worker->env) + worker->options.lease_ms / 2 * ENV_NS_PER_MS,
            .wait_until_up = kind == PROTO_PUSH_BEGIN,
            .on_end = on_end,
            .ctx = ctx,
        },
        id);
}

static enum status lease_ask(struct job *job)
{
    struct prefill *prefill = &job->prefill;
    ASSERT(!prefill->lease_calling);
    prefill->lease_sent_ns = env_now_ns(job->worker->env); /* before d can answer: see proto.h */
    const enum status status =
        send_push(job, PROTO_PUSH_BEGIN, on_lease, job, &prefill->lease_call);
    if (status != STATUS_OK) return status;
    prefill->lease_calling = true;
    job->inflight++;
    return STATUS_OK;
}

static void lease_renew(void *ctx)
{
    struct job *job = ctx;
    if (job->over || job->prefill.lease_calling || job->prefill.calling) return;
    if (stage_told(job)) return;
    const enum status status = lease_ask(job);
    if (status == STATUS_OK) return;
    job_fail(job, PROTO_CAUSE_PUSH, status, "cannot renew the permission to push");
}

static void on_nothing(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    (void)result;
}

bool prefill_waits_for_lease(const struct job *job)
{
    return job->prefill.lease_wanted && !job->prefill.lease_held;
}

/* ---- arrival ---- */

/* NULL if what d said fits the sequence. */
static const char *check_target(const struct worker *worker, const struct proto_prefill_run *run)
{
    const uint32_t blocks = worker_blocks(worker, run->sequence.tokens.count);
    if (run->target.addresses.count != blocks) return "not one address for each block";
    if (run->target.rpc_address[0] == '\0' || run->target.segment[0] == '\0') return "no target";
    return NULL;
}

struct job *prefill_accept(struct worker *worker, struct rpc_call *call, const uint8_t *body,
                           size_t len)
{
    struct proto_prefill_run run;

    if (worker->ending || proto_prefill_run_decode(body, len, &run) != STATUS_OK) {
        job_refuse(worker, call, worker->ending ? PROTO_CAUSE_SHUTDOWN : PROTO_CAUSE_INVALID,
                   worker->ending ? STATUS_UNAVAILABLE : STATUS_INVALID, "malformed or too late");
        return NULL;
    }
    const char *wrong = check_target(worker, &run);
    if (wrong != NULL) {
        job_refuse(worker, call, PROTO_CAUSE_INVALID, STATUS_INVALID, wrong);
        return NULL;
    }
    const uint32_t blocks = run.target.addresses.count;
    const struct job_room room = { .tokens_max = run.sequence.tokens.count,
                                   .sums = blocks * worker->layout.n_layers,
                                   .addresses = blocks };
    struct job *job = job_create(worker, SCHED_KIND_PREFILL, call, &run.sequence, &room);
    if (job == NULL) return NULL;

    struct prefill *prefill = &job->prefill;
    prefill->target = run.target;
    proto_u64s_copy(run.target.addresses, prefill->addresses);
    prefill->target.addresses = proto_u64s_of(prefill->addresses, blocks);
    env_timer_init(&prefill->lease_timer, lease_renew, job);
    return job;
}

void prefill_connect(struct job *job)
{
    struct prefill *prefill = &job->prefill;
    const struct proto_target *target = &prefill->target;
    enum status status =
        peer_acquire(job->worker, target->rpc_address, target->segment, &prefill->peer);
    if (status == STATUS_OK && target->push_from < job->prompt_blocks) {
        prefill->lease_wanted = true;
        status = lease_ask(job);
    }
    if (status == STATUS_OK) return;
    job_fail(job, PROTO_CAUSE_PUSH, status, "cannot reach the decode node: %s",
             status_name(status));
}

void prefill_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct job *job = prefill_accept(ctx, call, body, len);
    if (job != NULL) prefill_connect(job);
}

/* ---- loading ---- */

static void start_computing(struct job *job, uint32_t reuse_blocks, bool alone)
{
    struct worker *worker = job->worker;
    ASSERT(reuse_blocks <= blocks_reusable(job));
    const bool staged = job->prefill.stage != NULL;
    job->prefill.reuse_blocks = reuse_blocks;
    job->prefill.computing_ns = env_now_ns(worker->env);
    if (staged && !stage_begin(job)) return;
    sched_ready(worker->sched, job->id, reuse_blocks * worker->layout.block_tokens,
                alone || staged);
    worker_kick(worker);
}

static void on_fetch_layer(void *ctx, uint32_t layer, uint32_t blocks)
{
    struct job *job = ctx;
    struct prefill *prefill = &job->prefill;
    if (prefill->gate_broken) return;
    if (blocks < prefill->wanted_blocks - prefill->local_blocks) {
        prefill->gate_broken = true;
        runner_gate_break(job->worker->runner, &prefill->gate);
        return;
    }
    ASSERT(layer == prefill->layers_loaded);
    prefill->layers_loaded = layer + 1;
    runner_gate_open(job->worker->runner, &prefill->gate, layer + 1);
    /* How much is reused binds a whole group, so a stage waits for all of it. */
    if (sched_state(job->worker->sched, job->id) == SCHED_LOADING && prefill->stage == NULL) {
        start_computing(job, prefill->wanted_blocks, true);
    }
}

/* Nothing is on the way any more, and the step that counted on it is over: with what came. */
static void reload(struct job *job, uint32_t blocks)
{
    struct worker *worker = job->worker;
    ASSERT(!sched_in_step(worker->sched, job->id));
    if (sched_state(worker->sched, job->id) == SCHED_PREFILL) {
        sched_loading(worker->sched, job->id);
    }
    start_computing(job, job->prefill.local_blocks + blocks, false);
}

static void sched_loaded_if_computing(struct job *job)
{
    struct sched *sched = job->worker->sched;
    if (sched_state(sched, job->id) == SCHED_PREFILL) sched_loaded(sched, job->id);
}

static void on_fetch_done(void *ctx, const struct store_fetch_result *result)
{
    struct job *job = ctx;
    struct worker *worker = job->worker;
    struct prefill *prefill = &job->prefill;
    const uint32_t wanted = prefill->wanted_blocks - prefill->local_blocks;

    ASSERT(result->blocks <= wanted);
    if (result->blocks < wanted) job_fetch_short(job, wanted, result);
    prefill->wanted_blocks = prefill->local_blocks + result->blocks;
    if (sched_state(worker->sched, job->id) == SCHED_LOADING) {
        reload(job, result->blocks);
    } else if (prefill->layers_loaded == worker->layout.n_layers) {
        sched_loaded_if_computing(job); /* at worst, blocks were verified but not published */
    } else {
        prefill->gate_broken = true;
        runner_gate_break(worker->runner, &prefill->gate);
        if (!sched_in_step(worker->sched, job->id)) reload(job, result->blocks);
        /* else prefill_step_done() does, when the step has given up */
    }
    worker_kick(worker);
}

bool prefill_admit(struct job *job)
{
    struct worker *worker = job->worker;
    struct prefill *prefill = &job->prefill;
    const uint32_t reusable = worker->options.no_reuse ? 0 : blocks_reusable(job);
    const uint32_t local = store_node_acquire(worker->node, job->keys, reusable, job->pages);

    ASSERT(local <= reusable && !prefill_waits_for_lease(job));
    if (job_alloc(job, local) != STATUS_OK) {
        for (uint32_t i = 0; i < local; i++)
            store_node_unref(worker->node, job->pages[i]);
        return false;
    }
    job->admitted_ns = env_now_ns(worker->env);
    prefill->local_blocks = local;
    prefill->wanted_blocks = job_wanted_blocks(job, local, reusable, reusable);
    if (job_fetch(job, local, prefill->wanted_blocks, on_fetch_layer, on_fetch_done)) {
        sched_loading(worker->sched, job->id);
    } else {
        prefill->wanted_blocks = local;
        start_computing(job, local, false);
    }
    return true;
}

/* ---- computing ---- */

void prefill_fill_item(struct job *job, const struct sched_item *from, struct runner_item *item)
{
    const uint32_t block_tokens = job->worker->layout.block_tokens;
    struct prefill *prefill = &job->prefill;
    const uint32_t first = from->position / block_tokens;
    const bool first_chunk = first == prefill->reuse_blocks;
    const uint32_t push_from = prefill->target.push_from;

    ASSERT(from->position % block_tokens == 0 && first >= prefill->reuse_blocks);
    *item = (struct runner_item){
        .pages = &job->pages[0].index,
        .pages_count = job->pages_count,
        .position = from->position,
        .tokens = job->tokens + from->position,
        .tokens_count = from->rows,
        .prefill = true,
        .prefill_first = first_chunk,
        .gate = job->fetching.fetch != NULL ? &prefill->gate : NULL,
        .sums = prefill->sums,
        /* With the first chunk go the reused blocks that d lacks. */
        .sums_from = first_chunk && push_from < first ? push_from : first,
        .sums_to = worker_blocks(job->worker, from->position + from->rows),
        .sample = from->last && (prefill->stage == NULL || stage_is_last(job)),
    };
    job_fill_sample(job, from->position + from->rows, job->generated_before, item);
    job_fill_score(job, item);
}

static void kv_done(struct job *job);

/* Then d may know, or the next stage. */
void prefill_check_pushed(struct job *job)
{
    const struct prefill *prefill = &job->prefill;
    if (job->over || !prefill->computed || prefill->pushes != NULL || prefill->calling) return;
    if (prefill->stage != NULL && (stage_told(job) || !stage_gathered(job))) return;
    if (prefill->stage != NULL && !stage_is_last(job)) {
        stage_pass_sums(job);
    } else {
        kv_done(job);
    }
}

/* ---- how much of the moving is hidden ---- */

/* What was on its way until now, to d. Behind the last row nothing hides it. */
static void note_stored(struct job *job)
{
    struct worker *worker = job->worker;
    const struct prefill *prefill = &job->prefill;
    const uint64_t now_ns = env_now_ns(worker->env), since_ns = prefill->pushing_ns;
    const uint64_t until_ns = prefill->computed_ns != 0 ? prefill->computed_ns : now_ns;

    worker->totals.moves[PROTO_STORE_MOVED_US] += (now_ns - since_ns) / ENV_NS_PER_US;
    if (until_ns <= since_ns) return;
    worker->totals.moves[PROTO_STORE_HIDDEN_US] += (until_ns - since_ns) / ENV_NS_PER_US;
}

/* What was fetched before, or while, it computed: the engine waited for the first layer, and at the
 * gates of others. */
static void note_loaded(const struct job *job)
{
    struct worker *worker = job->worker;
    const struct prefill *prefill = &job->prefill;

    if (job->loaded_ns == 0) return; /* nothing was */
    const uint64_t moved_ns = job->loaded_ns - job->admitted_ns;
    const uint64_t waited_ns = prefill->computing_ns - job->admitted_ns + prefill->waited_ns;
    worker->totals.moves[PROTO_LOAD_MOVED_US] += moved_ns / ENV_NS_PER_US;
    if (waited_ns >= moved_ns) return;
    worker->totals.moves[PROTO_LOAD_HIDDEN_US] += (moved_ns - waited_ns) / ENV_NS_PER_US;
}

/* ---- pushing ---- */

static void push_unlink(struct push *push)
{
    struct prefill *prefill = &push->job->prefill;
    if (push->previous != NULL) push->previous->next = push->next;
    if (push->next != NULL) push->next->previous = push->previous;
    if (prefill->pushes == push) prefill->pushes = push->next;
    push->next = prefill->pushes_free;
    push->previous = NULL;
    prefill->pushes_free = push;
    if (prefill->pushes == NULL) note_stored(push->job);
}

static void on_pushed(void *ctx, const struct yolk_transfer_result *result)
{
    struct push *push = ctx;
    struct job *job = push->job;

    ASSERT(job->inflight > 0);
    const enum status freed = yolk_transfer_batch_free(job->worker->transfer, push->batch);
    ASSERT(freed == STATUS_OK);
    push_unlink(push);
    job->inflight--;
    if (job->over) {
        job_settle(job);
        return;
    }
    if (result->state == YOLK_TRANSFER_COMPLETED) {
        prefill_check_pushed(job);
        return;
    }
    peer_forget_segment(job->worker, job->prefill.peer); /* in case it has restarted */
    job_fail(job, PROTO_CAUSE_PUSH, STATUS_UNAVAILABLE, "a write to the decode node ended %s, %s",
             yolk_transfer_state_name(result->state), status_name(result->reason));
}

static struct push *push_new(struct job *job, uint32_t capacity)
{
    struct prefill *prefill = &job->prefill;
    struct push *push = prefill->pushes_free;

    if (push != NULL) {
        prefill->pushes_free = push->next;
    } else {
        push = arena_calloc(job->arena, 1, sizeof(*push));
        if (push == NULL) return NULL;
    }
    push->job = job;
    if (yolk_transfer_batch_create(job->worker->transfer, capacity, on_pushed, push,
                                   &push->batch) != STATUS_OK) {
        push->next = prefill->pushes_free;
        prefill->pushes_free = push;
        return NULL;
    }
    push->previous = NULL;
    push->next = prefill->pushes;
    if (push->next == NULL) prefill->pushing_ns = env_now_ns(job->worker->env);
    if (push->next != NULL) push->next->previous = push;
    prefill->pushes = push;
    return push;
}

static enum status open_segment(struct job *job)
{
    struct peer *peer = job->prefill.peer;
    if (peer->segment_open) return STATUS_OK;
    const enum status status =
        yolk_transfer_open(job->worker->transfer, peer->segment_name, &peer->segment);
    peer->segment_open = status == STATUS_OK;
    return status;
}

static struct yolk_transfer_request write_request(const struct job *job, uint32_t block,
                                                  uint32_t layer)
{
    const struct worker *worker = job->worker;
    const uint64_t offset = layer * worker->layout.layer_size;
    return (struct yolk_transfer_request){
        .opcode = YOLK_TRANSFER_WRITE,
        .class = YOLK_TRANSFER_DECODE,
        .local = store_node_data(worker->node, job->pages[block]) + offset,
        .segment = job->prefill.peer->segment,
        .remote = job->prefill.addresses[block] + offset,
        .length = worker->layout.layer_size,
        .deadline_ns = job->prefill.lease_until_ns,
        .attempt = job->attempt,
        .generation = job->prefill.target.epoch,
    };
}

/* Writes layer `layer` of blocks [from, to) to d. */
static enum status push_layer(struct job *job, uint32_t from, uint32_t to, uint32_t layer)
{
    enum { PART = 32 };
    struct yolk_transfer_request requests[PART];

    ASSERT(from < to && to <= job->prompt_blocks);
    if (open_segment(job) != STATUS_OK) return STATUS_UNAVAILABLE;
    struct push *push = push_new(job, to - from);
    if (push == NULL) return STATUS_FULL;
    job->inflight++;
    while (from < to) {
        uint32_t count = 0;
        while (count < PART && from < to) {
            requests[count++] = write_request(job, from++, layer);
        }
        const enum status status =
            yolk_transfer_submit(job->worker->transfer, push->batch, requests, count);
        ASSERT(status == STATUS_OK); /* the batch was made for them */
    }
    return STATUS_OK;
}

void prefill_layer_done(struct job *job, const struct runner_item *item, uint32_t layer)
{
    const uint32_t push_from = job->prefill.target.push_from;
    const uint32_t from = item->sums_from > push_from ? item->sums_from : push_from;

    ASSERT(!job->over);
    if (from >= item->sums_to) return;
    const enum status status = push_layer(job, from, item->sums_to, layer);
    if (status == STATUS_OK) return;
    job_fail(job, PROTO_CAUSE_PUSH, status, "cannot write to the decode node: %s",
             status_name(status));
}

/* Publishes the full blocks that the item completed. */
static void commit(struct job *job, const struct runner_item *item)
{
    struct worker *worker = job->worker;
    const uint32_t block_tokens = worker->layout.block_tokens;
    const uint32_t to = (item->position + item->tokens_count) / block_tokens;

    if (worker->options.no_reuse) return;
    for (uint32_t block = item->position / block_tokens; block < to; block++) {
        const uint64_t *sums = job->prefill.sums + (size_t)block * worker->layout.n_layers;
        const enum status status =
            store_node_commit(worker->node, &job->keys[block], job->pages[block], sums);
        ASSERT(status == STATUS_OK || status == STATUS_EXISTS); /* EXISTS: another was first */
    }
}

static void computed_all(struct job *job, uint32_t first_token)
{
    job->prefill.computed = true;
    job->prefill.first_token = first_token;
    const struct proto_item item = {
        .kind = PROTO_ITEM_FIRST_TOKEN,
        .token = { .index = job->generated_before,
                   .token = first_token,
                   .row = proto_u32s_of(job->row, job->row_count) },
    };
    const enum status status = job_send(job, &item);
    if (status == STATUS_CANCELLED) return; /* on_cancel follows */
    if (status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_INTERNAL, status, "the gateway does not read");
        return;
    }
    prefill_check_pushed(job);
}

void prefill_step_done(struct job *job, const struct runner_item *item, bool computed)
{
    struct worker *worker = job->worker;
    ASSERT(!job->over);
    if (!computed) { /* the gate broke; if the fetch still runs, on_fetch_done() goes on */
        ASSERT(job->prefill.gate_broken);
        if (job->fetching.fetch == NULL) {
            reload(job, job->prefill.wanted_blocks - job->prefill.local_blocks);
        } else {
            sched_loading(worker->sched, job->id);
        }
        return;
    }
    if (job->prefill.stage != NULL && !stage_step_done(job, item)) return;
    if (job->prefill.stage == NULL) commit(job, item); /* a stage has no whole block */
    if (job->prefill.stage == NULL || stage_is_last(job))
        worker->totals.tokens_computed += item->tokens_count;
    if (!job_send_score(job, item)) return;
    if (sched_state(worker->sched, job->id) != SCHED_PUSHING) return;
    job->prefill.computed_ns = env_now_ns(worker->env);
    note_loaded(job);
    if (job->prefill.stage != NULL && !stage_is_last(job)) {
        job->prefill.computed = true;
        prefill_check_pushed(job);
        return;
    }
    ASSERT(item->sample);
    job->row_count = item->row_count;
    computed_all(job, item->sampled);
}

/* ---- handing over ---- */

static uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? (to_ns - from_ns) / ENV_NS_PER_US : 0;
}

void prefill_describe_done(const struct job *job, struct proto_prefill_done *out)
{
    const struct prefill *prefill = &job->prefill;
    const uint32_t block_tokens = job->worker->layout.block_tokens;
    const uint64_t now_ns = env_now_ns(job->worker->env);
    const uint32_t cached = prefill->reuse_blocks * block_tokens;

    *out = (struct proto_prefill_done){
        .cached_tokens = cached,
        .fetched_tokens = (prefill->reuse_blocks - prefill->local_blocks) * block_tokens,
        .computed_tokens = job->prompt_count - cached,
        .miss = job->fetching.miss,
        .times = {
            .queue_us = us_between(job->arrived_ns, job->admitted_ns),
            .load_us = us_between(job->admitted_ns, job->loaded_ns),
            .compute_us = job->engine_ns / ENV_NS_PER_US,
            .push_us = us_between(job->step_last_ns, now_ns),
            .total_us = us_between(job->arrived_ns, now_ns),
        },
    };
}

void prefill_finish(struct job *job)
{
    struct rpc_call *call = job->call;

    if (call == NULL) return; /* on_cancel has ended it, or does */
    job->call = NULL;
    rpc_reply(call, NULL, 0);
    job_end(job, SCHED_FINISHED);
}

static void report(struct job *job)
{
    struct proto_item item = { .kind = PROTO_ITEM_PREFILL_DONE };

    prefill_describe_done(job, &item.prefill_done);
    job->worker->totals.tokens_reused += item.prefill_done.cached_tokens;
    const enum status status = job_send(job, &item);
    if (status == STATUS_CANCELLED) return; /* on_cancel follows */
    if (status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_INTERNAL, status, "the gateway does not read");
        return;
    }
    prefill_finish(job);
}

static void on_kv_done(void *ctx, const struct rpc_result *result)
{
    struct job *job = ctx;
    struct prefill *prefill = &job->prefill;

    ASSERT(prefill->calling && job->inflight > 0);
    prefill->calling = false;
    job->inflight--;
    if (result->status == STATUS_OK) prefill->done = true;
    if (job->over) {
        job_settle(job);
    } else if (result->status == STATUS_OK) {
        report(job);
    } else {
        job_fail(job, PROTO_CAUSE_PUSH, result->status, "the decode node refused the KV: %s %s",
                 status_name(result->status), result->message);
    }
}

static void kv_done(struct job *job)
{
    struct worker *worker = job->worker;
    struct prefill *prefill = &job->prefill;
    const uint32_t from = prefill->target.push_from;
    const size_t layers = worker->layout.n_layers;
    const struct proto_kv_done done = {
        .request_id = job->request_id,
        .attempt = job->attempt,
        .epoch = prefill->target.epoch,
        .first_token = prefill->first_token,
        .first_row = proto_u32s_of(job->row, job->row_count),
        .push_from = from,
        .checksums = proto_u64s_of(prefill->sums + from * layers,
                                   (uint32_t)((job->prompt_blocks - from) * layers)),
    };
    buf_clear(&worker->scratch);
    enum status status = proto_kv_done_encode(&done, &worker->scratch);
    if (status == STATUS_OK) {
        status = rpc_call(prefill->peer->client,
                          &(struct rpc_request){
                              .method = PROTO_DECODE_KV_DONE,
                              .body = buf_data(&worker->scratch),
                              .len = worker->scratch.len,
                              .deadline_ns = worker_call_deadline_ns(job),
                              .wait_until_up = true,
                              .on_end = on_kv_done,
                              .ctx = job,
                          },
                          &prefill->done_call);
    }
    if (status != STATUS_OK) {
        job_fail(job, PROTO_CAUSE_PUSH, status, "cannot tell the decode node: %s",
                 status_name(status));
        return;
    }
    prefill->calling = true;
    job->inflight++;
}

/* ---- the end ---- */

void prefill_stop(struct job *job)
{
    struct worker *worker = job->worker;
    struct prefill *prefill = &job->prefill;

    env_timer_cancel(worker->env, &prefill->lease_timer);
    runner_gate_break(worker->runner, &prefill->gate);
    for (struct push *push = prefill->pushes; push != NULL; push = push->next) {
        (void)yolk_transfer_cancel_batch(worker->transfer, push->batch);
    }
    if (prefill->stage != NULL) stage_stop(job);
    if (prefill->lease_calling) rpc_cancel(prefill->peer->client, prefill->lease_call);
    if (prefill->calling) rpc_cancel(prefill->peer->client, prefill->done_call);
}

void prefill_release(struct job *job)
{
    struct worker *worker = job->worker;
    struct prefill *prefill = &job->prefill;
    struct rpc_call_id ignored;

    ASSERT(prefill->pushes == NULL);
    /* Asked for counts as given: the answer may have been lost. d's lease ends by itself if this
     * does not arrive. */
    if (prefill->lease_wanted && !prefill->done && prefill->peer != NULL) {
        (void)!send_push(job, PROTO_PUSH_END, on_nothing, NULL, &ignored);
    }
    for (uint32_t i = 0; i < job->pages_count; i++)
        store_node_unref(worker->node, job->pages[i]);
    if (prefill->peer != NULL) peer_unref(prefill->peer);
    if (prefill->stage != NULL) stage_release(job);
}
