/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_attempt.c - one placement of a request: the Conductor's decision, the stream from
 * the decode node, the stream from the prefill node, and what is learned from both.
 *
 *     attempt_start: place, decode.open -> d
 *     d: opened            -> prefill.run -> p; of a group, stage.run -> its first stage
 *     p: first_token       -> request_take_token; not where d has the last word, or a door
 *     d: token...          -> request_take_token, each; from the first on p may fail without harm
 *     p: prefill_done      -> cached tokens, samples for the cost model
 *     d: finish            -> request_finish
 *     inlined: no p; d says prefill_done before its tokens
 *     any failure          -> attempt_failed: the request leaves, avoids who failed, and waits
 *
 * A callback may find that its attempt has left the request (attempt->request is NULL): it then
 * only notes the end of its call. */
#include "serve/gateway_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "serve/proto_stage.h"

enum {
    BACKOFF_MS = 50,
    BACKOFF_MS_MAX = 1000,
    MESSAGE_SIZE_MAX = 8 << 20, /* of one call */
    SILENT_MS = 1000,           /* that a suspected node has been, for its streams to move */
    SAMPLE_TOKENS = 128,        /* of an answer are a sample of what decoding costs */
};
static const double RESERVE_SHARE = 0.75; /* of answers, for which room is kept at first */

static double now_ms(const struct gateway *gateway)
{
    return (double)env_now_ns(gateway->env) / (double)ENV_NS_PER_MS;
}

static uint32_t generated(const struct request *request)
{
    ASSERT(request->tokens_count >= request->prompt_tokens);
    return request->tokens_count - request->prompt_tokens;
}

/* ---- ends of attempts ---- */

void attempt_leave(struct attempt *attempt, enum status outcome)
{
    struct request *request = attempt->request;
    struct gateway *gateway = attempt->gateway;
    struct yolk_conductor *conductor = cluster_conductor(gateway->cluster);
    struct rpc_client *decode = cluster_client(gateway->cluster, attempt->decode);
    struct rpc_client *prefill = cluster_client(gateway->cluster, attempt->prefill);

    ASSERT(request != NULL && request->attempt == attempt);
    request->attempt = NULL;
    attempt->request = NULL;
    if (attempt->open_live && decode != NULL) rpc_cancel(decode, attempt->open);
    if (attempt->run_live && prefill != NULL) rpc_cancel(prefill, attempt->run);
    gateway_explain_regret(attempt, outcome);
    yolk_conductor_finish(conductor, attempt->decision.ticket, outcome, now_ms(gateway));
    gateway_explain_hits(gateway);
    request_pump(gateway); /* there may be room now; and somebody has to free it */
}

void attempt_reap(struct gateway *gateway)
{
    struct attempt **at = &gateway->attempts;

    while (*at != NULL) {
        struct attempt *attempt = *at;
        if (attempt->request != NULL || attempt->open_live || attempt->run_live) {
            at = &attempt->next;
            continue;
        }
        *at = attempt->next;
        free(attempt);
    }
}

void attempt_end_all(struct gateway *gateway)
{
    attempt_reap(gateway);
    ASSERT(gateway->attempts == NULL);
}

static void avoid(struct request *request, const struct attempt *attempt, bool at_decode,
                  enum proto_cause cause)
{
    if (cause == PROTO_CAUSE_SOURCE) {
        request->avoid_holder = attempt->holder;
    } else if (cause == PROTO_CAUSE_STAGE) {
        request->alone = true; /* which one it was is not known, nor does it matter */
    } else if (at_decode) {
        request->avoid_decode = attempt->decode;
        if (attempt->decision.inlined) request->avoid_prefill = attempt->decode;
    } else if (cause != PROTO_CAUSE_PUSH) {
        request->avoid_prefill = attempt->prefill;
    }
}

static uint64_t backoff_ns(const struct request *request)
{
    uint64_t ms = BACKOFF_MS;

    if (request->failures <= 1) return 0; /* the first time another node is tried at once */
    for (uint32_t i = 2; i < request->failures && ms < BACKOFF_MS_MAX; i++)
        ms *= 2;
    return (ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX) * ENV_NS_PER_MS;
}

/* True if trying again is pointless: fills *error. */
static bool hopeless(const struct request *request, enum status status, enum proto_cause cause,
                     struct api_error *error)
{
    if (cause == PROTO_CAUSE_CONTEXT) {
        api_refuse(error, 400, "context_length_exceeded", NULL,
                   "The nodes take fewer tokens than this prompt has");
    } else if (cause == PROTO_CAUSE_INVALID || status == STATUS_UNSUPPORTED) {
        api_refuse(error, 500, "internal_error", NULL,
                   "A node could not make sense of the request");
    } else if (request->failures >= request->gateway->options.attempts_max) {
        api_refuse(error, 503, "attempts_exhausted", NULL, "%u placements in a row have failed",
                   request->failures);
    } else {
        return false;
    }
    return true;
}

static void attempt_failed(struct attempt *attempt, bool at_decode, enum status status,
                           enum proto_cause cause)
{
    struct request *request = attempt->request;
    struct gateway *gateway = attempt->gateway;
    const char *why = cause != 0 ? proto_cause_name(cause) : status_name(status);
    const char *node = at_decode ? attempt->decision.decode_name : attempt->decision.prefill_name;
    struct api_error error;

    ASSERT(request != NULL);
    if (request->state == REQUEST_ENDING) { /* the answer is there: nothing is lost */
        request_complete(request);
        return;
    }
    if (request->tokens_count == request->tokens_max && request->state != REQUEST_OPENING) {
        request_finish(request, "length"); /* only the word that it is over was lost */
        return;
    }
    LOG_WARN("gateway", "attempt_failed",
             "req=%s trace=%s attempt=%u at=%s node=%s reason=%s generated=%u", request->request_id,
             request->ask->trace, attempt->number, at_decode ? "decode" : "prefill", node, why,
             generated(request));
    gateway_metrics_attempt_failed(gateway->metrics, why);
    request->failures++;
    if (cause == PROTO_CAUSE_PAGES) {
        request->displaced++;
        gateway_metrics_displaced(gateway->metrics);
    }
    avoid(request, attempt, at_decode, cause);
    if (cause == PROTO_CAUSE_SOURCE && !attempt->counted) {
        gateway_explain_miss(attempt, attempt->open_miss != PROTO_MISS_NONE ? attempt->open_miss
                                                                            : PROTO_MISS_FAILED);
    }
    attempt_leave(attempt, status);
    if (hopeless(request, status, cause, &error)) {
        request_fail(request, &error);
    } else {
        request_wait(request, env_now_ns(gateway->env) + backoff_ns(request));
    }
}

/* ---- a node is emptied ---- */

static bool is_same(struct cluster_ref a, struct cluster_ref b)
{
    return a.index == b.index && a.serial == b.serial;
}

static bool prefills_at(const struct attempt *attempt, struct cluster_ref node)
{
    bool stage = is_same(attempt->prefill, node);

    for (uint32_t i = 1; i < attempt->stages_count; i++)
        stage = stage || is_same(attempt->stages[i], node);
    return stage && !attempt->streaming && !attempt->counted;
}

/* True if the attempt was given up, and its request waits for another. */
static bool move_on(struct request *request)
{
    struct attempt *attempt = request->attempt;

    if (request->state == REQUEST_ENDING) return false;
    if (request->tokens_count == request->tokens_max) return false; /* only its end is missing */
    LOG_DEBUG("gateway", "handed_over", "req=%s attempt=%u generated=%u", request->request_id,
              attempt->number, generated(request));
    attempt_leave(attempt, STATUS_CANCELLED);
    request_wait(request, env_now_ns(request->gateway->env));
    return true;
}

uint32_t attempt_hand_over(void *ctx, struct cluster_ref node)
{
    struct gateway *gateway = ctx;
    uint32_t moved = 0;

    for (struct request *request = gateway->requests; request != NULL; request = request->next) {
        const struct attempt *attempt = request->attempt;
        if (attempt == NULL) continue;
        if (!is_same(attempt->decode, node) && !prefills_at(attempt, node)) continue;
        moved += move_on(request);
    }
    return moved;
}

/* Places again what decodes there and has said nothing since `heard_ns`. */
static void move_streams(struct gateway *gateway, struct cluster_ref node, uint64_t heard_ns)
{
    uint32_t moved = 0;

    for (struct request *request = gateway->requests; request != NULL; request = request->next) {
        const struct attempt *attempt = request->attempt;
        if (attempt == NULL || !is_same(attempt->decode, node)) continue;
        if (attempt->heard_ns <= heard_ns) moved += move_on(request);
    }
    if (moved > 0) gateway_metrics_handed_over(gateway->metrics, moved);
}

/* Places again what is prefilled there, and decoded elsewhere. */
static void move_prompts(struct gateway *gateway, struct cluster_ref node)
{
    uint32_t moved = 0;

    for (struct request *request = gateway->requests; request != NULL; request = request->next) {
        const struct attempt *attempt = request->attempt;
        if (attempt == NULL || is_same(attempt->decode, node)) continue;
        if (prefills_at(attempt, node)) moved += move_on(request);
    }
    if (moved > 0) gateway_metrics_handed_over(gateway->metrics, moved);
}

/* A prompt is soon computed, and the node waits for that; an answer may take minutes. It is worth
 * moving if there is a node that decodes, else it goes on there for as long as it may. */
void attempt_node_leaves(void *ctx, struct cluster_ref node)
{
    struct gateway *gateway = ctx;

    if (cluster_count_up(gateway->cluster, PROTO_ROLE_DECODE) == 0) return;
    move_streams(gateway, node, ENV_NEVER);
}

/* Connections find out by themselves that nobody is at their other end, but many seconds later.
 * The master may be wrong, or the only one cut off: so what we hear ourselves stays. Without
 * another node that decodes, one that prefills takes it; with nobody left it waits for who comes
 * back. */
void attempt_node_suspected(void *ctx, struct cluster_ref node)
{
    struct gateway *gateway = ctx;
    const struct cluster *cluster = gateway->cluster;

    if (cluster_count_up(cluster, PROTO_ROLE_DECODE) == 0 &&
        cluster_count_up(cluster, PROTO_ROLE_PREFILL) == 0)
        return;
    move_streams(gateway, node, env_now_ns(gateway->env) - SILENT_MS * ENV_NS_PER_MS);
    /* Who computes a prompt has nothing to say meanwhile: there, what it is asked counts. */
    if (cluster_is_silent(cluster, node)) move_prompts(gateway, node);
}

/* ---- learning ---- */

/* Prefill and decode are one instance, and not by way of exception. */
static bool is_coupled(const struct attempt *attempt)
{
    return attempt->decision.prefill.index == attempt->decision.decode.index;
}

/* Nobody was to be fetched from: what came from elsewhere came from the node's own disk. */
static bool holds_itself(const struct attempt *attempt)
{
    const struct cluster_ref holder = attempt->holder, prefill = attempt->prefill;
    return holder.serial == 0 || (holder.index == prefill.index && holder.serial == prefill.serial);
}

static void learn_prefill(struct attempt *attempt, const struct proto_prefill_done *done)
{
    struct cluster *cluster = attempt->gateway->cluster;
    struct yolk_conductor *conductor = cluster_conductor(cluster);
    const struct yolk_instance_id prefill = cluster_instance(cluster, attempt->prefill);
    const uint32_t block_tokens = cluster_block_tokens(cluster);
    enum status status = STATUS_OK;

    if (prefill.index == YOLK_INSTANCE_NONE.index) return;
    /* Steps that were shared say little about prefills; but where all are, nothing says more. */
    if (attempt->decision.inlined && !is_coupled(attempt)) return;
    if (done->fetched_tokens > 0 && done->fetched_tokens <= done->cached_tokens) {
        const uint64_t bytes =
            (uint64_t)(done->fetched_tokens / block_tokens) * cluster_page_size(cluster);
        const enum yolk_path path = cluster_path(cluster, attempt->holder, attempt->prefill);
        const double ms = (double)done->times.load_us / 1000;
        status = holds_itself(attempt) ? yolk_conductor_learn_load(conductor, bytes, ms)
                                       : yolk_conductor_learn_transfer(conductor, path, bytes, ms);
    } else {
        /* With a fetch, compute waits for layers that load; that sample would blame computing. */
        status = yolk_conductor_learn_prefill(conductor, prefill, attempt->sequence_tokens,
                                              done->cached_tokens,
                                              (double)done->times.compute_us / 1000);
    }
    if (status != STATUS_OK) {
        LOG_DEBUG("gateway", "sample_refused", "node=%s", attempt->decision.prefill_name);
    }
}

/* One token takes `ms`, it was found. */
static void learn_decode(struct attempt *attempt, double ms)
{
    struct cluster *cluster = attempt->gateway->cluster;
    const struct yolk_instance_id decode = cluster_instance(cluster, attempt->decode);

    if (decode.index == YOLK_INSTANCE_NONE.index || attempt->tokens == 0) return;
    if (yolk_conductor_learn_decode(cluster_conductor(cluster), decode,
                                    attempt->batch_sum / attempt->tokens,
                                    attempt->context_sum / attempt->tokens, ms) != STATUS_OK) {
        LOG_DEBUG("gateway", "sample_refused", "node=%s", attempt->decision.decode_name);
    }
}

/* A short answer is one sample, as the node timed it. A long one is several, as its tokens came: a
 * node that has become slow should not be found out only when they have ended. */
static void learn_finished(struct attempt *attempt, const struct proto_finish *finish)
{
    if (attempt->sampled || finish->steps == 0) return;
    learn_decode(attempt, (double)finish->times.compute_us / 1000 / finish->steps);
}

static void learn_streaming(struct attempt *attempt)
{
    const double now = now_ms(attempt->gateway);
    const uint32_t timed = attempt->tokens - attempt->timed_from;

    if (!attempt->streaming) return;
    if (attempt->timed_ms > 0) {
        if (timed < SAMPLE_TOKENS) return;
        learn_decode(attempt, (now - attempt->timed_ms) / timed);
        attempt->sampled = true;
        attempt->batch_sum = 0;
        attempt->context_sum = 0;
        attempt->tokens = 0;
    }
    attempt->timed_ms = now;
    attempt->timed_from = attempt->tokens;
}

static void note_token(struct attempt *attempt)
{
    struct yolk_conductor *conductor = cluster_conductor(attempt->gateway->cluster);
    uint32_t sequences = 0;
    uint64_t context = 0;

    yolk_conductor_decoded(conductor, attempt->decision.ticket, 1);
    yolk_conductor_batch(conductor, attempt->decision.ticket, &sequences, &context);
    attempt->batch_sum += sequences;
    attempt->context_sum += (double)context;
    attempt->tokens++;
    learn_streaming(attempt);
}

/* ---- tokens ---- */

/* Both the end of its prefill and d's first token are known: it has passed d's door. Which of the
 * two news comes first is up to the network. */
static void note_let_in(struct attempt *attempt)
{
    struct gateway *gateway = attempt->gateway;
    const double waited_ms = now_ms(gateway) - attempt->prefilled_ms;

    if (!attempt->door || !attempt->counted || !attempt->streaming) return;
    yolk_conductor_joined(cluster_conductor(gateway->cluster), attempt->decision.ticket,
                          now_ms(gateway));
    gateway_metrics_door(gateway->metrics, waited_ms / 1000);
}

/* The second check: prefill has ended, and nothing has been shown yet. False, and the request is
 * refused, when its decode instance has no room under the limits any more. */
static bool may_join(struct attempt *attempt)
{
    struct request *request = attempt->request;
    struct yolk_conductor *conductor = cluster_conductor(attempt->gateway->cluster);
    struct yolk_verdict verdict;

    if (attempt->may_join || attempt->counted || request->attempts > 1) return true;
    attempt->may_join = true;
    if (yolk_conductor_admit_join(conductor, attempt->decision.ticket, now_ms(attempt->gateway),
                                  &verdict) == STATUS_OK) {
        return true;
    }
    attempt_leave(attempt, STATUS_BUSY);
    request_refuse(request, &verdict);
    return false;
}

/* The attempt may have left its request when this returns. */
static void on_token(struct attempt *attempt, const struct proto_token *token, bool from_decode)
{
    struct request *request = attempt->request;
    const uint32_t before = generated(request);

    if (request->state == REQUEST_ENDING) return;
    if (before == 0 && !may_join(attempt)) return;
    if (!from_decode && (attempt->door || (before == 0 && attempt->checked))) return;
    if (from_decode && request->state == REQUEST_PREFILLING) {
        request_set_state(request, REQUEST_DECODING);
    }
    if (token->index == before) note_token(attempt);
    if (request_take_token(request, token) != STATUS_OK && attempt->request != NULL) {
        attempt_failed(attempt, from_decode, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
    }
}

/* ---- the prefill node ---- */

/* By tier. A node is believed that far. */
static void count_cached(const struct attempt *attempt, const struct proto_prefill_done *done)
{
    const uint32_t tokens = attempt->sequence_tokens;

    if (done->cached_tokens > tokens || done->fetched_tokens > done->cached_tokens) return;
    gateway_metrics_prefilled(attempt->gateway->metrics, tokens,
                              done->cached_tokens - done->fetched_tokens, done->fetched_tokens,
                              holds_itself(attempt));
}

static void on_prefill_done(struct attempt *attempt, const struct proto_prefill_done *done)
{
    struct request *request = attempt->request;
    struct gateway *gateway = attempt->gateway;
    const double actual_ms = now_ms(gateway) - attempt->placed_ms;

    if (attempt->counted) return;
    attempt->counted = true;
    attempt->prefilled_ms = now_ms(gateway);
    gateway_explain_miss(attempt, done->miss);
    yolk_conductor_prefill_done(cluster_conductor(gateway->cluster), attempt->decision.ticket,
                                done->cached_tokens, now_ms(gateway));
    note_let_in(attempt);
    gateway_metrics_predicted(gateway->metrics, attempt->decision.ttft_ms / 1000, actual_ms / 1000);
    learn_prefill(attempt, done);
    count_cached(attempt, done);
    if (!request_wants_scores(request)) request_prefilled(request); /* else they have been lost */
    LOG_DEBUG("gateway", "prefill_done",
              "req=%s node=%s cached=%u fetched=%u computed=%u predicted_ms=%.1f actual_ms=%.1f "
              "queue_us=%llu load_us=%llu compute_us=%llu push_us=%llu",
              request->request_id, attempt->decision.prefill_name, done->cached_tokens,
              done->fetched_tokens, done->computed_tokens, attempt->decision.ttft_ms, actual_ms,
              (unsigned long long)done->times.queue_us, (unsigned long long)done->times.load_us,
              (unsigned long long)done->times.compute_us, (unsigned long long)done->times.push_us);
    if (request->cached_known) return; /* of the first placement: what the client's prompt found */
    request->cached_known = true;
    request->cached_tokens =
        done->cached_tokens < request->prompt_tokens ? done->cached_tokens : request->prompt_tokens;
}

static void on_scores(struct attempt *attempt, const struct proto_scores *scores, bool by_decode)
{
    const enum status status = request_take_scores(attempt->request, scores);

    if (status == STATUS_OK) return;
    attempt_failed(attempt, by_decode, status == STATUS_FULL ? STATUS_FULL : STATUS_PROTOCOL,
                   PROTO_CAUSE_INTERNAL);
}

static void on_run_item(void *ctx, const uint8_t *body, size_t len)
{
    struct attempt *attempt = ctx;
    struct proto_item item;

    if (attempt->request == NULL) return;
    if (proto_item_decode(body, len, &item) != STATUS_OK) {
        attempt_failed(attempt, false, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        return;
    }
    switch (item.kind) {
    case PROTO_ITEM_FIRST_TOKEN: on_token(attempt, &item.token, false); break;
    case PROTO_ITEM_PREFILL_DONE: on_prefill_done(attempt, &item.prefill_done); break;
    case PROTO_ITEM_SCORES: on_scores(attempt, &item.scores, false); break;
    case PROTO_ITEM_FAILED:
        attempt->run_cause = item.failed.cause;
        LOG_DEBUG("gateway", "prefill_failed", "req=%s text=%s", attempt->request->request_id,
                  item.failed.text);
        break;
    case PROTO_ITEM_OPENED:
    case PROTO_ITEM_TOKEN:
    case PROTO_ITEM_FINISH:
        attempt_failed(attempt, false, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        break;
    }
}

static void on_run_end(void *ctx, const struct rpc_result *result)
{
    struct attempt *attempt = ctx;
    struct request *request = attempt->request;

    attempt->run_live = false;
    if (request == NULL) {
        request_pump(attempt->gateway);
    } else if (request->state == REQUEST_ENDING) {
        request_complete(request);
    } else if (attempt->streaming) {
        /* d has the KV: p is not needed any more, however it ended. */
    } else if (result->status != STATUS_OK) {
        attempt_failed(attempt, false, result->status, attempt->run_cause);
    } else if (!attempt->counted) {
        attempt_failed(attempt, false, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
    }
}

/* ---- messages ---- */

static struct proto_sampling sampling_of(const struct request *request)
{
    const struct api_request *api = &request->ask->api;

    return (struct proto_sampling){
        .temperature = api->temperature,
        .top_p = api->top_p,
        .seed = request->seed,
        .min_p = api->min_p,
        .repetition = api->repetition_penalty == 1 ? 0 : api->repetition_penalty,
        .frequency = api->frequency_penalty,
        .presence = api->presence_penalty,
        .top_k = api->top_k,
        .bias_tokens = proto_u32s_of(api->bias_tokens, api->biases_count),
        .biases = proto_u32s_of((const uint32_t *)(const void *)api->biases, api->biases_count),
        .held = proto_u32s_of(request->held, request->held_count),
        .held_until = api->min_tokens,
        .logprobs = api->logprobs,
        .scores = request_wants_scores(request) ? request_scores_wanted(request) : 0,
        .grammar = { (const uint8_t *)api->grammar,
                     api->grammar != NULL ? strlen(api->grammar) : 0 },
    };
}

static void describe(const struct attempt *attempt, struct proto_sequence *out)
{
    const struct request *request = attempt->request;
    const struct yolk_decision *decision = &attempt->decision;
    const char *holder = cluster_address(attempt->gateway->cluster, attempt->holder);

    *out = (struct proto_sequence){
        .request_id = request->id,
        .attempt = attempt->number,
        .tokens = proto_u32s_of(request->tokens, request->tokens_count),
        .keys = request->keys,
        .keys_count = request->keys_count,
        .salt = request->ask->salted ? &request->ask->salt : NULL,
        .sampling = sampling_of(request),
        .generated_before = generated(request),
        .priority = decision->priority,
        .tenant = request->ask->tenant_id,
        .later_us = (uint64_t)(fmin((decision->order_ms - decision->placed_ms) * 1e3,
                                    (double)PROTO_LATER_US_MAX)),
    };
    if (decision->reuse_blocks == 0 || holder == NULL) return;
    out->plan.reuse_blocks = decision->reuse_blocks;
    snprintf(out->plan.holder, sizeof(out->plan.holder), "%s", holder);
}

/* Sends *body to the node behind `ref`; false if it is gone or takes no more. */
static bool call(struct attempt *attempt, struct cluster_ref ref, enum proto_method method,
                 const struct buf *body, void (*on_item)(void *, const uint8_t *, size_t),
                 void (*on_end)(void *, const struct rpc_result *), struct rpc_call_id *out)
{
    struct rpc_client *client = cluster_client(attempt->gateway->cluster, ref);
    const struct rpc_request request = {
        .method = (uint16_t)method,
        .body = buf_data(body),
        .len = body->len,
        .deadline_ns = attempt->request->ask->deadline_ns,
        .on_item = on_item,
        .on_end = on_end,
        .ctx = attempt,
    };
    return client != NULL && rpc_call(client, &request, out) == STATUS_OK;
}

/* What a group is to do, for its first stage, around what each of them is to do. False if one is
 * gone. */
static bool wrap_for_group(const struct attempt *attempt, struct buf *body)
{
    struct proto_stage_run message = { .stages = attempt->stages_count };
    struct buf run = *body;
    bool fits = true;

    buf_init(body, MESSAGE_SIZE_MAX);
    for (uint32_t i = 0; i < attempt->stages_count; i++) {
        const char *address = cluster_address(attempt->gateway->cluster, attempt->stages[i]);
        fits = fits && address != NULL;
        if (!fits) break;
        snprintf(message.addresses[i], sizeof(message.addresses[i]), "%s", address);
    }
    message.run = buf_data(&run);
    message.run_len = run.len;
    fits = fits && proto_stage_run_encode(&message, body) == STATUS_OK;
    buf_fini(&run);
    return fits;
}

static bool start_prefill(struct attempt *attempt, const struct proto_opened *opened)
{
    const char *decode = cluster_address(attempt->gateway->cluster, attempt->decode);
    struct proto_prefill_run message = { .target = { .addresses = opened->addresses,
                                                     .epoch = opened->epoch,
                                                     .push_from = opened->push_from } };
    struct buf body;

    if (decode == NULL) return false;
    describe(attempt, &message.sequence);
    snprintf(message.target.rpc_address, sizeof(message.target.rpc_address), "%s", decode);
    memcpy(message.target.segment, opened->segment, sizeof(message.target.segment));
    buf_init(&body, MESSAGE_SIZE_MAX);
    const bool group = attempt->stages_count > 1;
    attempt->run_live = proto_prefill_run_encode(&message, &body) == STATUS_OK &&
                        (!group || wrap_for_group(attempt, &body)) &&
                        call(attempt, attempt->prefill, group ? PROTO_STAGE_RUN : PROTO_PREFILL_RUN,
                             &body, on_run_item, on_run_end, &attempt->run);
    buf_fini(&body);
    return attempt->run_live;
}

/* ---- the decode node ---- */

static void on_opened(struct attempt *attempt, const struct proto_opened *opened)
{
    const uint32_t block_tokens = cluster_block_tokens(attempt->gateway->cluster);
    const uint32_t blocks = (attempt->sequence_tokens + block_tokens - 1) / block_tokens;

    if (attempt->request->state != REQUEST_OPENING || opened->addresses.count != blocks ||
        opened->push_from > blocks) {
        attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        return;
    }
    if (!attempt->decision.inlined && !start_prefill(attempt, opened)) {
        attempt_failed(attempt, false, STATUS_UNAVAILABLE, 0);
        return;
    }
    request_set_state(attempt->request, REQUEST_PREFILLING);
}

static void on_finish(struct attempt *attempt, const struct proto_finish *finish)
{
    struct request *request = attempt->request;

    attempt->finished = true;
    if (request->state == REQUEST_ENDING) return;
    if (request->state == REQUEST_OPENING || finish->generated != generated(request)) {
        attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        return;
    }
    learn_finished(attempt, finish);
    request_finish(request, finish->reason == PROTO_FINISH_STOP ? "stop" : "length");
}

static void on_open_item(void *ctx, const uint8_t *body, size_t len)
{
    struct attempt *attempt = ctx;
    struct proto_item item;

    if (attempt->request == NULL) return;
    attempt->heard_ns = env_now_ns(attempt->gateway->env);
    if (proto_item_decode(body, len, &item) != STATUS_OK) {
        attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        return;
    }
    switch (item.kind) {
    case PROTO_ITEM_OPENED: on_opened(attempt, &item.opened); break;
    case PROTO_ITEM_TOKEN:
        if (attempt->request->state == REQUEST_OPENING) {
            attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
            break;
        }
        if (!attempt->streaming) {
            attempt->streaming = true;
            note_let_in(attempt);
        }
        on_token(attempt, &item.token, true);
        break;
    case PROTO_ITEM_FINISH: on_finish(attempt, &item.finish); break;
    case PROTO_ITEM_FAILED:
        attempt->open_cause = item.failed.cause;
        attempt->open_miss = item.failed.miss;
        attempt->open_load = item.failed.load_permille / 1e3;
        LOG_DEBUG("gateway", "decode_failed", "req=%s text=%s", attempt->request->request_id,
                  item.failed.text);
        break;
    case PROTO_ITEM_PREFILL_DONE:
        if (!attempt->decision.inlined || attempt->request->state != REQUEST_PREFILLING) {
            attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        } else if (generated(attempt->request) > 0 || may_join(attempt)) {
            on_prefill_done(attempt, &item.prefill_done);
        }
        break;
    case PROTO_ITEM_SCORES: on_scores(attempt, &item.scores, true); break;
    case PROTO_ITEM_FIRST_TOKEN:
        attempt_failed(attempt, true, STATUS_PROTOCOL, PROTO_CAUSE_INTERNAL);
        break;
    }
}

/* d found when the KV was there that the batch would break a limit. */
static void refused_at_node(struct attempt *attempt)
{
    struct request *request = attempt->request;
    const double load = attempt->open_load > 1 ? attempt->open_load : 1;
    struct yolk_verdict verdict;

    yolk_conductor_refused_at_node(cluster_conductor(attempt->gateway->cluster),
                                   attempt->decision.ticket, load, now_ms(attempt->gateway),
                                   &verdict);
    attempt_leave(attempt, STATUS_BUSY);
    request_refuse(request, &verdict);
}

static void on_open_end(void *ctx, const struct rpc_result *result)
{
    struct attempt *attempt = ctx;
    const bool refused = attempt->open_cause == PROTO_CAUSE_LIMIT && attempt->checked;

    attempt->open_live = false;
    if (attempt->request != NULL && refused && generated(attempt->request) == 0) {
        refused_at_node(attempt);
        return;
    }
    if (attempt->request == NULL) {
        request_pump(attempt->gateway);
    } else if (!attempt->finished && attempt->request->state != REQUEST_ENDING) {
        const enum status status = result->status == STATUS_OK ? STATUS_PROTOCOL : result->status;
        attempt_failed(attempt, true, status, attempt->open_cause);
    }
}

/* ---- starting ---- */

/* Keys of all full blocks of tokens[]; those that are there already stay. */
static void make_keys(struct request *request)
{
    const struct cluster *cluster = request->gateway->cluster;
    const struct block_key *root = cluster_key_root(cluster);
    const uint32_t block_tokens = cluster_block_tokens(cluster);
    const uint32_t blocks = request->tokens_count / block_tokens;
    const struct block_key *salt = request->ask->salted ? &request->ask->salt : NULL;

    if (!block_key_equal(root, &request->key_root)) request->keys_count = 0;
    request->key_root = *root;
    while (request->keys_count < blocks) {
        const uint32_t i = request->keys_count++;
        request->keys[i] =
            conductor_key_next(i > 0 ? &request->keys[i - 1] : root, i == 0 ? salt : NULL,
                               request->tokens + (size_t)i * block_tokens, block_tokens);
    }
}

static struct yolk_asker asker_of(const struct request *request)
{
    const uint64_t now = env_now_ns(request->gateway->env);

    return (struct yolk_asker){
        .tenant = request->ask->tenant,
        .route = request->ask->api.kind == API_CHAT ? "chat" : "completion",
        .waited_ms = (double)(now - request->ask->arrived_ns) / (double)ENV_NS_PER_MS,
        .ttft_ms = request->ask->class != NULL ? request->ask->class->ttft_ms : 0,
        .tbt_ms = request->ask->class != NULL ? request->ask->class->tbt_ms : 0,
    };
}

/* The first placement is the policy's to refuse; once accepted, a request is placed until it is
 * served. */
static enum status admit(struct request *request, const struct yolk_place_request *place,
                         struct yolk_decision *out)
{
    struct gateway *gateway = request->gateway;
    const struct yolk_asker asker = asker_of(request);

    return yolk_conductor_admit(cluster_conductor(gateway->cluster), place, &asker, now_ms(gateway),
                                out, &request->verdict);
}

/* Few answers come near their limit, so room is kept for what most answers to such requests take.
 * Who was sent away because others had grown asks for twice as much each time. */
static uint32_t reserve_tokens(const struct request *request)
{
    struct yolk_conductor *conductor = cluster_conductor(request->gateway->cluster);
    const struct yolk_asker asker = asker_of(request);
    const uint64_t most = yolk_conductor_answer_tokens(conductor, &asker, RESERVE_SHARE) + 1u;
    const uint64_t tokens = most << (request->displaced < 16 ? request->displaced : 16);

    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

static enum status decide(struct request *request, bool picky, struct yolk_decision *out)
{
    const struct yolk_prompt prompt = gateway_explain_prompt(request);
    struct gateway *gateway = request->gateway;
    const struct cluster *cluster = gateway->cluster;
    const struct cluster_ref nobody = { 0, 0 };
    const struct yolk_place_request place = {
        .request_id = request->request_id,
        .tokens = request->tokens_count,
        .output_tokens = request->tokens_max - request->tokens_count,
        .reserve_tokens = reserve_tokens(request),
        .keys = request->keys,
        .keys_count = request->keys_count,
        .priority = request->ask->class != NULL ? request->ask->class->priority : 0,
        .avoid_prefill = cluster_instance(cluster, picky ? request->avoid_prefill : nobody),
        .avoid_decode = cluster_instance(cluster, picky ? request->avoid_decode : nobody),
        .avoid_holder = cluster_instance(cluster, request->avoid_holder),
        .alone = request->alone,
        .prompt = &prompt,
    };
    if (request->attempts == 0) return admit(request, &place, out);
    return yolk_conductor_place(cluster_conductor(gateway->cluster), &place, now_ms(gateway), out);
}

static struct attempt *attempt_create(struct request *request, const struct yolk_decision *decision)
{
    struct gateway *gateway = request->gateway;
    struct attempt *attempt = calloc(1, sizeof(*attempt));

    if (attempt == NULL) return NULL;
    attempt->gateway = gateway;
    attempt->request = request;
    attempt->number = ++request->attempts;
    attempt->decision = *decision;
    /* Where one node is left it has got both: what it decodes it need not send to itself. */
    attempt->decision.inlined |= is_coupled(attempt) && decision->group_count == 1;
    decision = &attempt->decision;
    attempt->prefill =
        cluster_ref_of(gateway->cluster, decision->inlined ? decision->decode : decision->prefill);
    attempt->decode = cluster_ref_of(gateway->cluster, decision->decode);
    attempt->holder = cluster_ref_of(gateway->cluster, decision->holder);
    attempt->stages_count = decision->inlined ? 1 : decision->group_count;
    for (uint32_t i = 0; i < attempt->stages_count; i++)
        attempt->stages[i] = cluster_ref_of(gateway->cluster, decision->group[i]);
    attempt->sequence_tokens = request->tokens_count;
    attempt->placed_ms = now_ms(gateway);
    attempt->heard_ns = env_now_ns(gateway->env);
    attempt->next = gateway->attempts;
    gateway->attempts = attempt;
    request->attempt = attempt;
    return attempt;
}

static void take_limits(struct attempt *attempt, struct proto_limits *limits)
{
    const struct request *request = attempt->request;
    struct cluster *cluster = request->gateway->cluster;
    const struct yolk_instance_id decode = attempt->decision.decode;

    attempt->door = request->gateway->door;
    /* Only who has been shown nothing may be refused; nobody is who can wait. */
    attempt->checked = request->attempts == 1 && !attempt->door;
    limits->may_refuse = attempt->checked;
    limits->tbt_us = (uint32_t)ceil(request_tbt_limit_ms(request) * 1e3);
    limits->door = attempt->door;
    if (attempt->door)
        limits->places = yolk_conductor_batch_max(cluster_conductor(cluster), decode);
}

static bool open_decode(struct attempt *attempt)
{
    const struct request *request = attempt->request;
    struct proto_decode_open message = {
        .max_tokens = request->tokens_max - request->prompt_tokens,
        .ignore_eos = request->ask->api.ignore_eos,
        .computes = attempt->decision.inlined,
    };
    struct buf body;

    if (request->gateway->paces_tokens) take_limits(attempt, &message.limits);
    describe(attempt, &message.sequence);
    buf_init(&body, MESSAGE_SIZE_MAX);
    attempt->open_live = proto_decode_open_encode(&message, &body) == STATUS_OK &&
                         call(attempt, attempt->decode, PROTO_DECODE_OPEN, &body, on_open_item,
                              on_open_end, &attempt->open);
    buf_fini(&body);
    return attempt->open_live;
}

static void note_placed(struct request *request, const struct yolk_decision *decision)
{
    struct gateway *gateway = request->gateway;
    const uint64_t waited_ns = env_now_ns(gateway->env) - request->waiting_ns;

    gateway_metrics_placed(gateway->metrics, decision->reason,
                           (double)waited_ns / (double)ENV_NS_PER_S);
    if (request->attempts == 1) {
        request->first_ttft_ms = decision->ttft_ms;
        request->placed_ns = env_now_ns(gateway->env);
    }
    LOG_DEBUG(
        "gateway", "placed",
        "req=%s attempt=%u prefill=%s decode=%s holder=%s reason=%s tokens=%u reuse_blocks=%u "
        "local_blocks=%u best_blocks=%u queue_ms=%.1f transfer_ms=%.1f compute_ms=%.1f "
        "ttft_ms=%.1f tbt_ms=%.1f inlined=%d stages=%u",
        request->request_id, request->attempts, decision->prefill_name, decision->decode_name,
        decision->holder_name, yolk_reuse_reason_name(decision->reason), decision->tokens,
        decision->reuse_blocks, decision->local_blocks, decision->best_blocks, decision->queue_ms,
        decision->transfer_ms, decision->compute_ms, decision->ttft_ms, decision->tbt_ms,
        decision->inlined, decision->group_count);
}

enum status attempt_start(struct request *request)
{
    struct gateway *gateway = request->gateway;
    struct yolk_decision decision;

    ASSERT(request->state == REQUEST_WAITING && request->attempt == NULL);
    if (cluster_conductor(gateway->cluster) == NULL) return STATUS_UNAVAILABLE;
    make_keys(request);
    enum status status = decide(request, true, &decision);
    /* Who has failed is better than nobody. */
    if (status != STATUS_OK && status != STATUS_BUSY) status = decide(request, false, &decision);
    if (status != STATUS_OK) return status;
    struct attempt *attempt = attempt_create(request, &decision);
    if (attempt == NULL) {
        yolk_conductor_finish(cluster_conductor(gateway->cluster), decision.ticket,
                              STATUS_NO_MEMORY, now_ms(gateway));
        return STATUS_FULL;
    }
    note_placed(request, &decision);
    copies_placed(gateway->copies, request->keys, request->keys_count);
    request_set_state(request, REQUEST_OPENING);
    if (!open_decode(attempt)) attempt_failed(attempt, true, STATUS_UNAVAILABLE, 0);
    return STATUS_OK;
}
