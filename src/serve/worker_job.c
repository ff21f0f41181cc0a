/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_job.c - the life of one attempt on this node: see worker_int.h. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "model/model.h"
#include "serve/worker_int.h"

/* ---- talking to the gateway ---- */

static enum status send_item(struct worker *worker, struct rpc_call *call,
                             const struct proto_item *item)
{
    buf_clear(&worker->scratch);
    const enum status status = proto_item_encode(item, &worker->scratch);
    if (status != STATUS_OK) return status;
    return rpc_send(call, buf_data(&worker->scratch), worker->scratch.len);
}

enum status job_send(struct job *job, const struct proto_item *item)
{
    ASSERT(job->call != NULL);
    return send_item(job->worker, job->call, item);
}

static void end_call(struct worker *worker, struct rpc_call *call,
                     const struct proto_failed *failed, enum status status)
{
    const struct proto_item item = { .kind = PROTO_ITEM_FAILED, .failed = *failed };
    worker->totals.failed++;
    /* If the stream is full or gone the status below still says the essential. */
    (void)!send_item(worker, call, &item);
    rpc_fail(call, status, failed->text);
}

void job_refuse(struct worker *worker, struct rpc_call *call, enum proto_cause cause,
                enum status status, const char *text)
{
    struct proto_failed failed = { .cause = cause };
    snprintf(failed.text, sizeof(failed.text), "%s", text);
    end_call(worker, call, &failed, status);
}

/* ---- arrival ---- */

/* NULL if the sequence can be computed here, else what is wrong with it. */
static const char *check_sequence(const struct worker *worker,
                                  const struct proto_sequence *sequence, enum proto_cause *cause)
{
    const uint32_t vocab = model_params(worker->options.model)->vocab;
    *cause = PROTO_CAUSE_CONTEXT;
    if (sequence->tokens.count > worker->context_max) return "longer than the context";
    *cause = PROTO_CAUSE_PAGES;
    if (worker_blocks(worker, sequence->tokens.count) > worker->totals.pages_total) {
        return "longer than the memory of this node";
    }
    *cause = PROTO_CAUSE_INVALID;
    if (sequence->keys_count != sequence->tokens.count / worker->layout.block_tokens) {
        return "not one key for each full block";
    }
    for (uint32_t i = 0; i < sequence->tokens.count; i++) {
        if (proto_u32_at(sequence->tokens, i) >= vocab) return "a token outside the vocabulary";
    }
    return NULL;
}

static_assert((int)ENGINE_ROWS_MAX <= (int)PROTO_SCORES_MAX, "what a step finds is said at once");

uint32_t job_row_words(uint32_t wanted)
{
    return wanted > 0 ? LOGPROBS_HEAD_WORDS + 2 * (wanted - 1) : 0;
}

/* Words of the rows of a step. */
static size_t score_words(const struct proto_sampling *sampling)
{
    return (size_t)ENGINE_ROWS_MAX * job_row_words(sampling->scores);
}

/* All that the job keeps is in one arena. */
static struct job *job_allocate(const struct worker *worker, enum sched_kind kind,
                                const struct job_room *room, const struct proto_sampling *sampling)
{
    struct arena *arena;
    const size_t blocks = worker_blocks(worker, room->tokens_max);
    const size_t size = sizeof(struct job) + room->tokens_max * sizeof(uint32_t) +
                        blocks * (sizeof(struct block_key) + sizeof(struct store_page)) +
                        ((size_t)room->sums + room->addresses) * sizeof(uint64_t) +
                        (size_t)room->rows * sizeof(uint32_t) +
                        (size_t)sampling->biases.count * (sizeof(uint32_t) + sizeof(float)) +
                        (sampling->held.count + score_words(sampling)) * sizeof(uint32_t) + 4096;

    if (size > WORKER_JOB_SIZE_MAX / 2) return NULL;
    if (arena_create(size, WORKER_JOB_SIZE_MAX, &arena) != STATUS_OK) return NULL;
    struct job *job = arena_calloc(arena, 1, sizeof(*job));
    uint32_t *tokens = arena_calloc(arena, room->tokens_max, sizeof(*tokens));
    struct block_key *keys = arena_calloc(arena, blocks, sizeof(*keys));
    struct store_page *pages = arena_calloc(arena, blocks, sizeof(*pages));
    uint64_t *sums = arena_calloc(arena, room->sums, sizeof(*sums));
    uint64_t *addresses = arena_calloc(arena, room->addresses, sizeof(*addresses));
    ASSERT(job != NULL && tokens != NULL && keys != NULL && pages != NULL); /* `size` counts them */
    uint32_t *rows = arena_calloc(arena, room->rows, sizeof(*rows));
    ASSERT(sums != NULL && addresses != NULL && rows != NULL);
    job->arena = arena;
    job->kind = kind;
    job->tokens = tokens;
    job->tokens_max = room->tokens_max;
    job->keys = keys;
    job->pages = pages;
    if (kind == SCHED_KIND_PREFILL) {
        job->prefill.sums = sums;
        job->prefill.addresses = addresses;
    } else {
        job->decode.sums = sums;
        job->decode.rows = rows;
    }
    return job;
}

static void take_sampling(struct job *job, const struct proto_sampling *from)
{
    const uint32_t biases_count = from->biases.count;
    uint32_t *tokens = arena_calloc(job->arena, biases_count, sizeof(*tokens));
    float *biases = arena_calloc(job->arena, biases_count, sizeof(*biases));
    uint32_t *held = arena_calloc(job->arena, from->held.count, sizeof(*held));

    ASSERT(tokens != NULL && biases != NULL && held != NULL); /* job_allocate() counts them */
    proto_u32s_copy(from->bias_tokens, tokens);
    proto_u32s_copy(from->held, held);
    for (uint32_t i = 0; i < biases_count; i++)
        biases[i] = proto_bias_at(from, i);
    job->sampling = (struct sampling){ .temperature = (float)from->temperature,
                                       .top_p = (float)from->top_p,
                                       .min_p = (float)from->min_p,
                                       .top_k = from->top_k,
                                       .repetition = (float)from->repetition,
                                       .frequency = (float)from->frequency,
                                       .presence = (float)from->presence,
                                       .seed = from->seed,
                                       .bias_tokens = tokens,
                                       .biases = biases,
                                       .biases_count = biases_count,
                                       .held = held,
                                       .held_count = from->held.count,
                                       .held_until = from->held_until };
    job->logprobs = from->logprobs;
    job->scores = from->scores;
    job->score_rows = arena_calloc(job->arena, score_words(from), sizeof(*job->score_rows));
    ASSERT(job->score_rows != NULL); /* likewise */
}

static void take_sequence(struct job *job, const struct proto_sequence *sequence)
{
    job->request_id = sequence->request_id;
    job->attempt = sequence->attempt;
    job->tokens_count = sequence->tokens.count;
    job->prompt_count = sequence->tokens.count;
    job->prompt_blocks = worker_blocks(job->worker, job->prompt_count);
    proto_u32s_copy(sequence->tokens, job->tokens);
    job->keys_count = sequence->keys_count;
    if (job->keys_count > 0) {
        memcpy(job->keys, sequence->keys, job->keys_count * sizeof(*job->keys));
    }
    job->salted = sequence->salt != NULL;
    if (job->salted) job->salt = *sequence->salt;
    job->generated_before = sequence->generated_before;
    job->priority = sequence->priority;
    job->tenant = sequence->tenant;
    job->plan = sequence->plan;
    take_sampling(job, &sequence->sampling);
}

struct block_key job_key(const struct job *job, uint32_t block, const struct block_key *parent)
{
    const uint32_t block_tokens = job->worker->layout.block_tokens;

    return conductor_key_next(parent, block == 0 && job->salted ? &job->salt : NULL,
                              job->tokens + (size_t)block * block_tokens, block_tokens);
}

/* The keys are ours to check: they name KV by its tokens, and a gateway that serves another model,
 * or errs, must not make us find or publish blocks under wrong names. */
static bool keys_match(const struct job *job)
{
    struct block_key key = job->worker->root;
    for (uint32_t i = 0; i < job->keys_count; i++) {
        key = job_key(job, i, &key);
        if (!block_key_equal(&key, &job->keys[i])) return false;
    }
    return true;
}

struct job *job_find(const struct worker *worker, enum sched_kind kind, uint64_t request_id,
                     uint32_t attempt)
{
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL || job->over || job->kind != kind) continue;
        if (job->request_id == request_id && job->attempt == attempt) return job;
    }
    return NULL;
}

/* False if a newer attempt, or this one, is here already. */
static bool drop_older(struct worker *worker, enum sched_kind kind, uint64_t request_id,
                       uint32_t attempt)
{
    for (uint32_t i = 0; i < worker->jobs_max; i++) {
        struct job *job = worker->jobs[i];
        if (job == NULL || job->over || job->kind != kind) continue;
        if (job->request_id != request_id) continue;
        if (job->attempt >= attempt) return false;
        job_fail(job, PROTO_CAUSE_STALE, STATUS_STALE, "attempt %u took over", attempt);
    }
    return true;
}

static void on_cancel(void *ctx, enum status why)
{
    struct job *job = ctx;
    struct rpc_call *call = job->call;
    ASSERT(call != NULL);
    LOG_DEBUG("worker", "cancelled", "req=%016llx attempt=%u reason=%s",
              (unsigned long long)job->request_id, job->attempt, status_name(why));
    job->call = NULL;
    rpc_fail(call, why, NULL);
    if (!job->over) {
        job_end(job, SCHED_CANCELLED);
        return;
    }
    job_settle(job);
}

static struct job *job_enqueue(struct worker *worker, struct job *job, struct rpc_call *call,
                               uint64_t later_us)
{
    if (!drop_older(worker, job->kind, job->request_id, job->attempt)) {
        job_refuse(worker, call, PROTO_CAUSE_STALE, STATUS_STALE, "a newer attempt is here");
        return NULL;
    }
    const struct sched_arrival arrival = {
        .kind = job->kind,
        .tokens = job->tokens_count,
        .priority = job->priority,
        .tenant = job->tenant,
        .order = job->arrived_ns / ENV_NS_PER_US + later_us,
    };
    if (sched_add(worker->sched, &arrival, &job->id) != STATUS_OK) {
        job_refuse(worker, call, PROTO_CAUSE_QUEUE, STATUS_FULL, "too many requests");
        return NULL;
    }
    ASSERT(worker->jobs[job->id.index] == NULL);
    worker->jobs[job->id.index] = job;
    job->call = call;
    job->deadline_ns = rpc_call_deadline_ns(call);
    rpc_on_cancel(call, on_cancel, job);
    worker->totals.requests++;
    worker_kick(worker);
    worker_sweep_later(worker);
    return job;
}

struct job *job_create(struct worker *worker, enum sched_kind kind, struct rpc_call *call,
                       const struct proto_sequence *sequence, const struct job_room *room)
{
    enum proto_cause cause;
    const char *wrong = check_sequence(worker, sequence, &cause);
    if (wrong != NULL) {
        job_refuse(worker, call, cause, STATUS_INVALID, wrong);
        return NULL;
    }
    ASSERT(room->tokens_max >= sequence->tokens.count);
    struct job *job = job_allocate(worker, kind, room, &sequence->sampling);
    if (job == NULL) {
        job_refuse(worker, call, PROTO_CAUSE_QUEUE, STATUS_FULL, "no memory for the request");
        return NULL;
    }
    job->worker = worker;
    job->arrived_ns = env_now_ns(worker->env);
    take_sequence(job, sequence);
    struct arena *arena = job->arena;
    struct job *taken = job;
    const char *no_grammar = job_take_grammar(job, &sequence->sampling);
    if (no_grammar != NULL) {
        job_refuse(worker, call, PROTO_CAUSE_INVALID, STATUS_INVALID, no_grammar);
        job = NULL;
    } else if (!keys_match(job)) {
        job_refuse(worker, call, PROTO_CAUSE_INVALID, STATUS_INVALID,
                   "the keys are not those of the tokens under this model");
        job = NULL;
    } else {
        job = job_enqueue(worker, job, call, sequence->later_us);
    }
    if (job == NULL) {
        job_drop_grammar(taken);
        arena_destroy(arena);
    }
    return job;
}

enum status job_alloc(struct job *job, uint32_t have)
{
    ASSERT(have <= job->prompt_blocks);
    if (have < job->prompt_blocks) {
        const enum status status =
            store_node_alloc(job->worker->node, job->prompt_blocks - have, job->pages + have);
        if (status != STATUS_OK) return status;
    }
    job->pages_count = job->prompt_blocks;
    return STATUS_OK;
}

void job_fill_score(struct job *job, struct runner_item *item)
{
    const uint32_t behind = item->position + item->tokens_count; /* the item */
    const uint32_t end = behind < job->prompt_count ? behind + 1 : job->prompt_count;

    if (job->scores == 0 || (job->kind == SCHED_KIND_PREFILL && job->prefill.stage != NULL)) return;
    item->score = (struct backend_score){ .targets = job->tokens + item->position + 1,
                                          .count = end - item->position - 1,
                                          .top = job->scores - 1,
                                          .rows = job->score_rows };
}

bool job_send_score(struct job *job, const struct runner_item *from)
{
    const struct proto_item item = {
        .kind = PROTO_ITEM_SCORES,
        .scores = { .first = from->position + 1,
                    .count = from->score.count,
                    .rows = proto_u32s_of(from->score.rows, from->score.words) },
    };

    if (from->score.count == 0) return true;
    const enum status status = job_send(job, &item);
    if (status == STATUS_OK || status == STATUS_CANCELLED) return true; /* on_cancel follows */
    job_fail(job, PROTO_CAUSE_INTERNAL, status, "the gateway does not read");
    return false;
}

void job_fill_sample(struct job *job, uint32_t past, uint64_t index, struct runner_item *item)
{
    item->sampling = job->sampling;
    item->past = (struct sampler_past){ job->tokens, past };
    item->sample_index = index;
    if (!item->sample || job->logprobs == 0) return;
    item->row = job->row;
    item->row_top = job->logprobs - 1;
}

/* ---- the end ---- */

void job_settle(struct job *job)
{
    struct worker *worker = job->worker;
    if (!job->over || job->inflight > 0 || job->call != NULL) return;
    if (worker->ending) return; /* job_abandon() */
    if (job->kind == SCHED_KIND_PREFILL) {
        prefill_release(job);
    } else {
        decode_release(job);
    }
    ASSERT(worker->jobs[job->id.index] == job);
    worker->jobs[job->id.index] = NULL;
    sched_remove(worker->sched, job->id);
    worker_kick(worker);
    struct arena *arena = job->arena; /* the job is inside */
    job_drop_grammar(job);
    arena_destroy(arena);
}

void job_abandon(struct job *job)
{
    struct arena *arena = job->arena;
    ASSERT(job->worker->ending && job->call == NULL);
    if (job->kind == SCHED_KIND_DECODE && job->decode.lending) {
        env_timer_cancel(job->worker->env, &job->decode.lease_timer);
    }
    job->worker->jobs[job->id.index] = NULL;
    job_drop_grammar(job);
    arena_destroy(arena);
}

/* No new work from here on; what is under way is told to stop. */
static void stop(struct job *job, enum sched_state end)
{
    ASSERT(!job->over);
    sched_end(job->worker->sched, job->id, end);
    job->over = true;
    job_fetch_cancel(job);
    if (job->kind == SCHED_KIND_PREFILL) {
        prefill_stop(job);
    } else {
        decode_stop(job);
    }
    worker_kick(job->worker);
}

void job_end(struct job *job, enum sched_state end)
{
    stop(job, end);
    job_settle(job);
}

void job_fail(struct job *job, enum proto_cause cause, enum status status, const char *fmt, ...)
{
    struct proto_failed failed = { .cause = cause };
    struct rpc_call *call = job->call;
    va_list args;

    va_start(args, fmt);
    vsnprintf(failed.text, sizeof(failed.text), fmt, args);
    va_end(args);
    if (cause == PROTO_CAUSE_SOURCE) failed.miss = job->fetching.miss;
    if (cause == PROTO_CAUSE_LIMIT) failed.load_permille = job->decode.load_permille;
    LOG_INFO("worker", "attempt_failed", "req=%016llx attempt=%u kind=%s state=%s cause=%s text=%s",
             (unsigned long long)job->request_id, job->attempt,
             job->kind == SCHED_KIND_PREFILL ? "prefill" : "decode",
             sched_state_name(sched_state(job->worker->sched, job->id)), proto_cause_name(cause),
             failed.text);
    if (call != NULL) {
        job->call = NULL;
        end_call(job->worker, call, &failed, status);
    }
    stop(job, SCHED_FAILED);
    job_settle(job);
}
