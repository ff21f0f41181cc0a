/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_request.c - one answer, from its prompt to its last token, over as many placements
 * as it takes. Whose answer it is, and how it is shown, is gateway_ask.c's; how its prompt becomes
 * tokens, gateway_prompt.c's.
 *
 *                     request_begin
 *        NEW ------------------------> WAITING <---------+  attempt_failed, from any of
 *         |      request_prefilled       |               |  OPENING, PREFILLING, DECODING
 *         | request_discard              | try_place     |
 *         v                              v               |
 *       OVER <--- request_complete,   OPENING -----------+
 *         ^       request_stop:          | on_opened     |
 *         |       from any state         v               |
 *         |                           PREFILLING --------+
 *         |                              | on_token      |
 *         |                              v               |
 *         |                           DECODING ----------+
 *         |                              | finish
 *         |                              v
 *         +--------------------------- ENDING
 *
 * An attempt (gateway_attempt.c) is one placement: a ticket of the Conductor, a stream from the
 * decode node d (open) and one from the prefill node p (run). It may outlive its place in the
 * request: cancelled calls still end, once, later. So attempts and requests are never freed inside
 * callbacks but by the pump, a timer that also places those who wait, oldest first.
 *
 * From ENDING it goes back to WAITING only if rows of its prompt were lost (gateway_scores.c): all
 * of the answer is forgotten, and made again.
 *
 * ENDING: all tokens are there; p's last item, which says how much was cached, is on its way (d may
 * finish a short answer before p has heard that its push was acknowledged). It is waited for, but
 * not long.
 *
 * Invariants
 *   I1  tokens[0..prompt_tokens) is the prompt, behind it every generated token in order. A token
 *       is taken once, when its index is the next one; so a new attempt repeats nothing.
 *   I2  it is freed only when its ask's HTTP request has been ended.
 *   I3  a request has an attempt exactly in OPENING, PREFILLING, DECODING and ENDING.
 *   I4  a ticket is finished exactly once, when its attempt leaves the request.
 *
 * Limits: options.requests_max requests; attempts_max failures in a row without a new token. */
#include "serve/gateway_request.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "net/http.h"
#include "serve/gateway_logprobs.h"
#include "serve/gateway_record.h"
#include "serve/tenants.h"

enum { ENDING_MS = 1000 };

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / (double)ENV_NS_PER_S : 0;
}

static uint32_t generated(const struct request *request)
{
    ASSERT(request->tokens_count >= request->prompt_tokens);
    return request->tokens_count - request->prompt_tokens;
}

/* ---- states ---- */

static bool edge_allowed(enum request_state from, enum request_state to)
{
    if (to == REQUEST_OVER) return from != REQUEST_OVER;
    switch (from) {
    case REQUEST_NEW: return to == REQUEST_WAITING;
    case REQUEST_WAITING: return to == REQUEST_OPENING;
    case REQUEST_OPENING: return to == REQUEST_PREFILLING || to == REQUEST_WAITING;
    case REQUEST_PREFILLING:
        return to == REQUEST_DECODING || to == REQUEST_WAITING || to == REQUEST_ENDING;
    case REQUEST_DECODING: return to == REQUEST_WAITING || to == REQUEST_ENDING;
    case REQUEST_ENDING: return to == REQUEST_WAITING;
    case REQUEST_OVER: return false;
    }
    return false;
}

static const char *state_name(enum request_state state)
{
    static const char *const NAMES[] = { "new",      "waiting", "opening", "prefilling",
                                         "decoding", "ending",  "over" };
    ASSERT((size_t)state < sizeof(NAMES) / sizeof(NAMES[0]));
    return NAMES[state];
}

static void waiting_leave(struct request *request)
{
    struct gateway *gateway = request->gateway;
    struct request *next = request->waiting_next, *previous = request->waiting_previous;

    *(previous != NULL ? &previous->waiting_next : &gateway->waiting_first) = next;
    *(next != NULL ? &next->waiting_previous : &gateway->waiting_last) = previous;
    if (gateway->placing_next == request) gateway->placing_next = next;
    request->waiting_next = NULL;
    request->waiting_previous = NULL;
}

static int priority_of(const struct request *request)
{
    return request->ask->class != NULL ? request->ask->class->priority : 0;
}

static bool goes_before(const struct request *a, const struct request *b)
{
    if (priority_of(a) != priority_of(b)) return priority_of(a) > priority_of(b);
    return a->stamp != b->stamp ? a->stamp < b->stamp : a->ask->arrived_ns < b->ask->arrived_ns;
}

/* By priority, then by tenants' turns, then by arrival: who was placed before and comes back keeps
 * his place. */
static void waiting_join(struct request *request)
{
    struct gateway *gateway = request->gateway;
    struct request *previous = gateway->waiting_last;

    while (previous != NULL && goes_before(request, previous)) {
        previous = previous->waiting_previous;
    }
    struct request *next = previous != NULL ? previous->waiting_next : gateway->waiting_first;
    request->waiting_previous = previous;
    request->waiting_next = next;
    *(previous != NULL ? &previous->waiting_next : &gateway->waiting_first) = request;
    *(next != NULL ? &next->waiting_previous : &gateway->waiting_last) = request;
}

/* 0: none. */
static double limit_of(double own_ms, double general_ms)
{
    const double limit_ms = own_ms > 0 ? own_ms : general_ms;
    return isfinite(limit_ms) ? limit_ms : 0;
}

double request_ttft_limit_ms(const struct request *request)
{
    return limit_of(request->ask->class != NULL ? request->ask->class->ttft_ms : 0,
                    request->gateway->options.ttft_slo_ms);
}

double request_tbt_limit_ms(const struct request *request)
{
    return limit_of(request->ask->class != NULL ? request->ask->class->tbt_ms : 0,
                    request->gateway->options.tbt_slo_ms);
}

static uint64_t wait_limit_ns(const struct request *request)
{
    const struct gateway_options *options = &request->gateway->options;
    const double limit_ms = request_ttft_limit_ms(request);
    const bool limited = options->policy != YOLK_POLICY_NONE && limit_ms > 0;
    const bool full = request->refused == STATUS_FULL;
    uint64_t ms = full ? options->queue_ms : options->wait_ms;

    if (full && generated(request) > 0) return ENV_NEVER; /* it had a place, and gets the next */
    /* Waiting beyond the limit on the first token is of no use to anybody. */
    if (full && limited && request->attempts == 0 && limit_ms < (double)ms) {
        ms = (uint64_t)limit_ms + 1;
    }
    return request->waiting_ns + ms * ENV_NS_PER_MS;
}

/* Sets the timer to whatever comes first in this state. */
static void arm(struct request *request)
{
    struct gateway *gateway = request->gateway;
    uint64_t at = request->ask->deadline_ns;

    if (request->state == REQUEST_WAITING && wait_limit_ns(request) < at) {
        at = wait_limit_ns(request);
    }
    if (request->state == REQUEST_ENDING) {
        at = env_now_ns(gateway->env) + ENDING_MS * ENV_NS_PER_MS;
    }
    env_timer_set(gateway->env, &request->timer, at);
}

void request_set_state(struct request *request, enum request_state state)
{
    ASSERT(edge_allowed(request->state, state));
    LOG_TRACE("gateway", "request_state", "req=%s from=%s to=%s", request->request_id,
              state_name(request->state), state_name(state));
    if (request->state == REQUEST_WAITING) waiting_leave(request);
    request->state = state;
    if (state == REQUEST_WAITING) waiting_join(request);
    if (state != REQUEST_OVER) arm(request);
}

/* ---- time ---- */

static void on_timer(void *ctx)
{
    struct request *request = ctx;
    const uint64_t now = env_now_ns(request->gateway->env);
    struct api_error error;

    if (request->state == REQUEST_OVER) return;
    if (request->state == REQUEST_ENDING) {
        request_complete(request);
        return;
    }
    if (now >= request->ask->deadline_ns) {
        api_refuse(&error, 504, "timeout", NULL, "No complete answer within %u ms",
                   request->gateway->options.request_ms);
    } else if (request->refused == STATUS_FULL) {
        api_refuse(&error, 429, "overloaded", NULL, "No room on any node within %u ms",
                   request->gateway->options.queue_ms);
    } else {
        api_refuse(&error, 503, "no_nodes", NULL, "No node to serve this within %u ms",
                   request->gateway->options.wait_ms);
    }
    request_fail(request, &error);
}

/* ---- ends ---- */

/* What became of it, as its class sees it. */
static const char *class_outcome(const struct request *request, const char *reason, double ttft_ms,
                                 double tbt_ms)
{
    const double ttft_limit_ms = request_ttft_limit_ms(request);
    const double tbt_limit_ms = request_tbt_limit_ms(request);

    if (request->verdict.refusal != YOLK_REFUSAL_NONE) return "refused";
    if (strcmp(reason, "error") == 0 || strcmp(reason, "abort") == 0) return reason;
    const bool late = (ttft_limit_ms > 0 && ttft_ms > ttft_limit_ms) ||
                      (tbt_limit_ms > 0 && tbt_ms > tbt_limit_ms);
    return late ? "late" : "in_time";
}

static void end(struct request *request)
{
    request_set_state(request, REQUEST_OVER);
    env_timer_cancel(request->gateway->env, &request->timer);
    request_pump(request->gateway);
}

static void outcome(struct request *request, const char *reason)
{
    struct gateway *gateway = request->gateway;
    const uint64_t now = env_now_ns(gateway->env);
    const bool any = request->first_token_ns != 0;
    const uint32_t count = generated(request);
    const double ttft = any ? seconds(request->ask->arrived_ns, request->first_token_ns) : -1;
    const double decode = any ? seconds(request->first_token_ns, request->last_token_ns) : -1;
    const struct gateway_outcome result = {
        .reason = reason,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens = count,
        .total_s = seconds(request->ask->arrived_ns, now),
        .prefill_s = any ? seconds(request->placed_ns, request->first_token_ns) : -1,
        .decode_s = decode,
        .inference_s = any ? seconds(request->placed_ns, now) : -1,
    };

    gateway_metrics_finished(gateway->metrics, &result);
    if (request->ask->payer != NULL) {
        tenant_charge_tokens(request->ask->payer, count, now);
        gateway_metrics_tenant(gateway->metrics, request->ask->tenant, "answer", count);
    }
    if (gateway->recorder != NULL) recorder_ended(gateway->recorder, request->id, any ? count : 0);
    if (gateway->classes.count > 0) {
        gateway_metrics_class(gateway->metrics,
                              request->ask->class != NULL ? request->ask->class->name : "none",
                              class_outcome(request, reason, ttft * 1000,
                                            count > 1 ? decode * 1000 / (count - 1) : 0));
    }
    LOG_INFO("gateway", "request_done",
             "req=%s trace=%s tenant=%s finish=%s prompt=%u cached=%u output=%u attempts=%u "
             "ttft_ms=%.1f "
             "predicted_ttft_ms=%.1f tbt_ms=%.2f total_ms=%.1f",
             request->request_id, request->ask->trace, request->ask->tenant, reason,
             request->prompt_tokens, request->cached_tokens, count, request->attempts, ttft * 1000,
             request->first_ttft_ms, count > 1 && any ? decode * 1000 / (count - 1) : 0.0,
             result.total_s * 1000);
}

void request_stop(struct request *request, const char *reason)
{
    if (request->state == REQUEST_OVER) return;
    LOG_DEBUG("gateway", "request_stopped", "req=%s reason=%s generated=%u", request->request_id,
              reason, generated(request));
    if (request->attempt != NULL) attempt_leave(request->attempt, STATUS_CANCELLED);
    outcome(request, reason);
    end(request);
}

/* ---- tokens ---- */

static void note_token_time(struct request *request)
{
    struct gateway *gateway = request->gateway;
    const uint64_t now = env_now_ns(gateway->env);

    if (request->first_token_ns == 0) {
        request->first_token_ns = now;
        gateway_metrics_first_token(gateway->metrics, seconds(request->ask->arrived_ns, now));
    } else {
        gateway_metrics_next_token(gateway->metrics, seconds(request->last_token_ns, now));
    }
    request->last_token_ns = now;
}

/* Text that is safe to show, parted into content and calls. */
static enum status part_calls(struct request *request, const struct buf *text)
{
    return gateway_calls_push(&request->calls, (const char *)buf_data(text), text->len,
                              &request->shown, &request->called);
}

static enum status show_bytes(struct request *request, const char *bytes, size_t len)
{
    struct buf text;

    if (request->calls.style == CHAT_TOOLS_NONE)
        return gateway_text_push(&request->text, bytes, len, &request->shown);
    buf_init(&text, GATEWAY_ANSWER_SIZE_MAX);
    enum status status = gateway_text_push(&request->text, bytes, len, &text);
    if (status == STATUS_OK) status = part_calls(request, &text);
    buf_fini(&text);
    return status;
}

/* What the answer holds back comes after all. */
static enum status show_rest(struct request *request)
{
    struct buf text;

    buf_init(&text, GATEWAY_ANSWER_SIZE_MAX);
    enum status status = gateway_text_finish(&request->text, &text);
    if (status == STATUS_OK) status = part_calls(request, &text);
    if (status == STATUS_OK)
        status = gateway_calls_finish(&request->calls, &request->shown, &request->called);
    buf_fini(&text);
    return status;
}

static void show_token(struct request *request, uint32_t token)
{
    const struct tokenizer *tokenizer = request->gateway->tokenizer;
    size_t len = 0;

    const char *bytes = tokenizer_bytes(tokenizer, token, &len);
    if (tokenizer_is_special(tokenizer, token)) {
        const char *mark = chat_tools_opening(CHAT_TOOLS_MISTRAL);
        if (len == strlen(mark) && memcmp(bytes, mark, len) == 0)
            gateway_calls_mark(&request->calls);
        return;
    }
    if (show_bytes(request, bytes, len) != STATUS_OK) ask_abandon(request->ask, "too_long");
}

static bool is_stop_token(const struct api_request *api, uint32_t token)
{
    for (uint32_t i = 0; i < api->stop_tokens_count; i++) {
        if (api->stop_tokens[i] == token) return true;
    }
    return false;
}

/* The row of a token that the answer has now. */
static void note_row(struct request *request, const struct proto_token *token)
{
    if (request->ask->api.logprobs == 0) return;
    if (gateway_logprobs_note(&request->rows, token) != STATUS_OK)
        ask_abandon(request->ask, "too_long");
}

enum status request_take_token(struct request *request, const struct proto_token *taken)
{
    const uint32_t next = generated(request), index = taken->index, token = taken->token;

    ASSERT(request->attempt != NULL && request->state != REQUEST_ENDING);
    if (index > next) return STATUS_INVALID;
    if (index < next) {
        const uint32_t before = request->tokens[request->prompt_tokens + index];
        if (before == token) return STATUS_OK;
        LOG_ERROR("gateway", "token_mismatch", "req=%s index=%u first=%u then=%u",
                  request->request_id, index, before, token);
        return STATUS_OK; /* what the client has seen stands */
    }
    if (request->ask->api.prompt_only) {
        request_finish(request, "length");
        return STATUS_OK;
    }
    /* The end is no part of the answer; d says so itself. */
    if (!request->ask->api.ignore_eos && tokenizer_is_end(request->gateway->tokenizer, token)) {
        return STATUS_OK;
    }
    if (is_stop_token(&request->ask->api, token)) {
        request_finish(request, "stop");
        return STATUS_OK;
    }
    if (request->tokens_count == request->tokens_max) return STATUS_INVALID;
    if (request->ask->api.logprobs > 0 && taken->row.count == 0) return STATUS_INVALID;
    request->tokens[request->tokens_count++] = token; /* I1 */
    request->failures = 0;
    note_token_time(request);
    show_token(request, token);
    if (request->state != REQUEST_OVER) note_row(request, taken);
    if (request->state == REQUEST_OVER) return STATUS_OK;
    if (request->text.stopped) {
        request_finish(request, "stop");
    } else if (request->ask->api.stream) {
        ask_show(request);
    }
    return STATUS_OK;
}

/* ---- an answer from its start ---- */

static void begin_text(struct request *request)
{
    const struct api_request *api = &request->ask->api;

    gateway_text_init(&request->text, api->stops, api->stops_count);
    gateway_calls_init(
        &request->calls, api->tools != NULL ? chat_tools(request->gateway->chat) : CHAT_TOOLS_NONE,
        api->tool_choice == API_TOOL_REQUIRED, api->stream && api->calls_grammar, request->id);
}

/* The answer begins with the prompt, if that is wanted. */
static enum status echo_prompt(struct request *request)
{
    const struct api_request *api = &request->ask->api;

    if (!api->echo) return STATUS_OK;
    const struct api_prompt *prompt = &api->prompts[request->choice / api->n];
    if (prompt->text.data != NULL)
        return buf_append(&request->shown, prompt->text.data, prompt->text.len);
    return gateway_detokenize(request->gateway, prompt->tokens, prompt->tokens_count,
                              &request->shown);
}

/* As if nothing had been answered: of an answer that has not been shown. */
static enum status forget_answer(struct request *request)
{
    buf_clear(&request->shown);
    buf_clear(&request->called);
    buf_clear(&request->rows);
    gateway_calls_fini(&request->calls);
    begin_text(request);
    request->tokens_count = request->prompt_tokens;
    request->keys_count = 0;
    request->finish_reason = NULL;
    return echo_prompt(request);
}

/* The answer is there, but not how likely its prompt was. */
static void scores_lost(struct request *request)
{
    struct api_error error;

    LOG_WARN("gateway", "scores_lost", "req=%s trace=%s attempt=%u", request->request_id,
             request->ask->trace, request->attempts);
    request->lost++;
    if (request->lost < request->gateway->options.attempts_max &&
        forget_answer(request) == STATUS_OK) {
        request_wait(request, env_now_ns(request->gateway->env));
        return;
    }
    api_refuse(&error, 503, "attempts_exhausted", NULL,
               "The probabilities of the prompt were lost with a node");
    request_fail(request, &error);
}

/* ---- the end of an answer ---- */

/* After a stop string d would go on; it is cancelled when the attempt leaves, at once or as soon as
 * p has said what it found cached. */
void request_finish(struct request *request, const char *reason)
{
    const struct attempt *attempt = request->attempt;

    ASSERT(attempt != NULL);
    request->finish_reason = reason;
    request_set_state(request, REQUEST_ENDING);
    if (show_rest(request) != STATUS_OK) {
        ask_abandon(request->ask, "too_long");
        return;
    }
    if (request->ask->api.stream) ask_show(request);
    if (request->state == REQUEST_OVER) return;
    if (attempt->counted || !attempt->run_live) {
        request_complete(request);
    }
}

void request_complete(struct request *request)
{
    ASSERT(request->state == REQUEST_ENDING && request->finish_reason != NULL);
    struct gateway *gateway = request->gateway;

    if (request->attempt != NULL) attempt_leave(request->attempt, STATUS_OK);
    if (request_wants_scores(request)) {
        scores_lost(request);
        return;
    }
    if (request->ask->api.stream && request->shown.len > 0) ask_show(request); /* it had to wait */
    if (request->state == REQUEST_OVER) return;
    if (!request->ask->api.stream) {
        gateway_explain_shown(request, buf_data(&request->shown), request->shown.len);
    }
    gateway_explain_answered(request);
    gateway_metrics_cached(gateway->metrics, request->prompt_tokens, request->cached_tokens);
    outcome(request, request->finish_reason);
    end(request);
    request_prefilled(request);
    ask_finished(request);
}

void request_fail(struct request *request, const struct api_error *error)
{
    ASSERT(request->state != REQUEST_OVER);
    LOG_INFO("gateway", "request_failed",
             "req=%s trace=%s status=%d code=%s attempts=%u generated=%u", request->request_id,
             request->ask->trace, error->http_status, error->code ? error->code : "",
             request->attempts, generated(request));
    ask_fail(request->ask, error);
}

static void explain_refusal(const struct request *request, const struct yolk_verdict *verdict,
                            struct api_error *error)
{
    switch (verdict->refusal) {
    case YOLK_REFUSAL_TTFT:
        api_refuse(error, 429, "overloaded", NULL,
                   "Overloaded: the first token is predicted after %.0f ms, the limit is %.0f ms",
                   verdict->ttft_ms, request_ttft_limit_ms(request));
        break;
    case YOLK_REFUSAL_TBT:
    case YOLK_REFUSAL_TBT_AT_JOIN:
    case YOLK_REFUSAL_TBT_AT_NODE:
        api_refuse(error, 429, "overloaded", NULL,
                   "Overloaded: decoding is at %.0f %% of its limit",
                   verdict->predicted_load * 100);
        break;
    case YOLK_REFUSAL_TBT_PREDICTED:
        api_refuse(error, 429, "overloaded", NULL,
                   "Overloaded: decoding is predicted at %.0f %% of its limit",
                   verdict->predicted_load * 100);
        break;
    case YOLK_REFUSAL_RESERVED:
    case YOLK_REFUSAL_NONE:
        api_refuse(error, 429, "overloaded", NULL,
                   "Overloaded: the room that is left is kept for smaller requests");
        break;
    }
}

void request_refuse(struct request *request, const struct yolk_verdict *verdict)
{
    struct api_error error;

    ASSERT(verdict->refusal != YOLK_REFUSAL_NONE);
    request->verdict = *verdict;
    explain_refusal(request, verdict, &error);
    error.retry_after_s = (uint32_t)(verdict->retry_after_ms / 1000) + 1;
    gateway_metrics_refused(request->gateway->metrics, verdict->refusal);
    LOG_INFO("gateway", "request_refused",
             "req=%s policy=%s reason=%s ttft_ms=%.1f prefill_load=%.2f decode_load=%.2f "
             "predicted_load=%.2f gate=%.2f retry_after_ms=%.0f",
             request->request_id, yolk_policy_name(verdict->policy),
             yolk_refusal_name(verdict->refusal), verdict->ttft_ms, verdict->prefill_load,
             verdict->decode_load, verdict->predicted_load, verdict->gate, verdict->retry_after_ms);
    request_fail(request, &error);
}

/* ---- waiting ---- */

void request_wait(struct request *request, uint64_t not_before_ns)
{
    request->waiting_ns = env_now_ns(request->gateway->env);
    request->not_before_ns = not_before_ns;
    request->refused = STATUS_UNAVAILABLE;
    request_set_state(request, REQUEST_WAITING);
    request_pump(request->gateway);
}

static void never_placed(struct request *request)
{
    struct api_error error;
    api_refuse(&error, 400, "context_length_exceeded", NULL,
               "%u prompt tokens and room for %u more do not fit any node", request->tokens_count,
               request->tokens_max - request->tokens_count);
    request_fail(request, &error);
}

/* Places whom it can, in their order. Nobody overtakes one who waits for room. */
static void place_waiting(struct gateway *gateway, uint64_t *wake_ns)
{
    const uint64_t now = env_now_ns(gateway->env);
    struct request *request;
    bool full = false;

    gateway->placing_next = gateway->waiting_first;
    while ((request = gateway->placing_next) != NULL) {
        gateway->placing_next = request->waiting_next;
        if (request->not_before_ns > now) {
            if (request->not_before_ns < *wake_ns) *wake_ns = request->not_before_ns;
            continue;
        }
        const enum status status = full ? STATUS_FULL : attempt_start(request);
        if (status == STATUS_OK) {
            fair_served(&gateway->fair, request->stamp);
            continue;
        }
        if (status == STATUS_INVALID) {
            never_placed(request);
            continue;
        }
        if (status == STATUS_BUSY) {
            request_refuse(request, &request->verdict);
            continue;
        }
        full = status == STATUS_FULL;
        request->refused = status;
        arm(request);
    }
}

static void free_request(struct request *request)
{
    ASSERT(request->attempt == NULL);
    buf_fini(&request->shown);
    buf_fini(&request->called);
    gateway_calls_fini(&request->calls);
    buf_fini(&request->rows);
    buf_fini(&request->scores);
    buf_fini(&request->listed);
    free(request->tokens);
    free(request->held);
    free(request->keys);
    gateway_explain_fini(request);
    ask_unref(request->ask);
    free(request);
}

static void reap(struct gateway *gateway)
{
    struct request *next = NULL;

    attempt_reap(gateway);
    for (struct request *request = gateway->requests; request != NULL; request = next) {
        next = request->next;
        if (request->state != REQUEST_OVER || request->ask->http != NULL) continue; /* I2 */
        *(request->previous != NULL ? &request->previous->next : &gateway->requests) = next;
        if (next != NULL) next->previous = request->previous;
        ASSERT(gateway->requests_count > 0);
        gateway->requests_count--;
        free_request(request);
    }
}

void request_pump_run(void *ctx)
{
    struct gateway *gateway = ctx;
    uint64_t wake_ns = ENV_NEVER;

    reap(gateway);
    place_waiting(gateway, &wake_ns);
    if (wake_ns != ENV_NEVER && !env_timer_armed(&gateway->pump_timer)) {
        env_timer_set(gateway->env, &gateway->pump_timer, wake_ns);
    }
}

void request_pump(struct gateway *gateway)
{
    env_timer_set(gateway->env, &gateway->pump_timer, env_now_ns(gateway->env));
}

uint32_t request_count_waiting(const struct gateway *gateway)
{
    uint32_t count = 0;
    for (const struct request *request = gateway->waiting_first; request != NULL;
         request = request->waiting_next) {
        count++;
    }
    return count;
}

void request_outside(void *ctx, struct yolk_outside *out)
{
    const struct gateway *gateway = ctx;

    *out = (struct yolk_outside){ 0, 0 };
    for (const struct request *request = gateway->waiting_first; request != NULL;
         request = request->waiting_next) {
        if (request->refused != STATUS_FULL) continue;
        out->requests++;
        out->tokens += request->tokens_count;
    }
}

void request_end_all(struct gateway *gateway)
{
    struct api_error error;

    api_refuse(&error, 503, "shutting_down", NULL, "The server is shutting down");
    for (struct request *request = gateway->requests; request != NULL; request = request->next) {
        if (request->state != REQUEST_OVER) ask_fail(request->ask, &error);
        ask_abandon(request->ask, "shutdown"); /* a slow client loses the end */
    }
    reap(gateway);
    ASSERT(gateway->requests == NULL);
}

/* ---- starting ---- */

const char *gateway_fingerprint(struct gateway *gateway)
{
    const struct block_key *root = cluster_key_root(gateway->cluster);
    uint64_t part = 0;

    if (gateway->fingerprint[0] == '\0' || !block_key_equal(root, &gateway->fingerprint_of)) {
        memcpy(&part, root->bytes, sizeof(part));
        gateway->fingerprint_of = *root;
        snprintf(gateway->fingerprint, sizeof(gateway->fingerprint), "fp_%010llx",
                 (unsigned long long)(part & 0xffffffffff));
    }
    return gateway->fingerprint;
}

static_assert((int)API_STOP_TOKENS_MAX + (int)GATEWAY_ENDS_MAX <= (int)PROTO_HELD_MAX,
              "all that may be held fits");
static_assert((int)API_BIASES_MAX <= (int)PROTO_BIASES_MAX, "all biases fit");

/* What may not come before min_tokens: all that would end the answer. */
static enum status hold_ends(struct request *request)
{
    const struct gateway *gateway = request->gateway;
    const struct api_request *api = &request->ask->api;
    const uint32_t ends = api->ignore_eos ? 0 : gateway->ends_count;

    if (api->min_tokens == 0) return STATUS_OK;
    request->held = malloc(PROTO_HELD_MAX * sizeof(*request->held));
    if (request->held == NULL) return STATUS_NO_MEMORY;
    memcpy(request->held, api->stop_tokens, api->stop_tokens_count * sizeof(*request->held));
    memcpy(request->held + api->stop_tokens_count, gateway->ends, ends * sizeof(*request->held));
    request->held_count = api->stop_tokens_count + ends;
    return STATUS_OK;
}

static enum status overloaded(struct api_error *error)
{
    return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
}

static void take_prompt(struct request *request, struct read_prompt *prompt)
{
    ASSERT(prompt->count > 0 && prompt->count < prompt->max);
    request->tokens = prompt->tokens;
    request->keys = prompt->keys;
    request->key_root = prompt->key_root;
    request->keys_count = prompt->keys_count;
    request->prompt_tokens = prompt->count;
    request->tokens_count = prompt->count;
    request->tokens_max = prompt->max;
    prompt->tokens = NULL;
    prompt->keys = NULL;
}

static enum status copy_prompt(struct request *request, const struct request *leader)
{
    const size_t keys_max = read_keys_max(leader->tokens_max);

    request->tokens = malloc(leader->tokens_max * sizeof(*request->tokens));
    request->keys = malloc(keys_max * sizeof(*request->keys));
    if (request->tokens == NULL || request->keys == NULL) return STATUS_NO_MEMORY;
    memcpy(request->tokens, leader->tokens, leader->prompt_tokens * sizeof(*request->tokens));
    memcpy(request->keys, leader->keys, leader->keys_count * sizeof(*request->keys));
    request->key_root = leader->key_root;
    request->keys_count = leader->keys_count;
    request->prompt_tokens = leader->prompt_tokens;
    request->tokens_count = leader->prompt_tokens;
    request->tokens_max = leader->tokens_max;
    return STATUS_OK;
}

static enum status prepare(struct request *request, struct api_error *error)
{
    if (hold_ends(request) != STATUS_OK || echo_prompt(request) != STATUS_OK)
        return overloaded(error);
    request->alone = request_wants_scores(request); /* a group finds none */
    if (request_check_scores(request, error) != STATUS_OK) return STATUS_INVALID;
    if (gateway_explain_start(request, read_keys_max(request->tokens_max)) != STATUS_OK)
        return overloaded(error);
    return STATUS_OK;
}

static void name_request(struct request *request)
{
    const struct ask *ask = request->ask;

    if (request->choice == 0) {
        request->id = ask->id;
        snprintf(request->request_id, sizeof(request->request_id), "%s", ask->request_id);
    } else {
        env_random(request->gateway->env, &request->id, sizeof(request->id));
        snprintf(request->request_id, sizeof(request->request_id), "%.*s.%u", API_ID_SIZE - 8,
                 ask->request_id, request->choice);
    }
}

enum status request_create(struct ask *ask, uint32_t choice, struct read_prompt *prompt,
                           struct request *leader, struct request **out, struct api_error *error)
{
    struct request *request = calloc(1, sizeof(*request));

    if (request == NULL) return overloaded(error);
    request->gateway = ask->gateway;
    request->ask = ask;
    ask->refs++;
    request->choice = choice;
    request->leader = leader;
    /* The answers to one prompt differ, and the first is the one that would be alone. */
    request->seed = ask->seed + choice % ask->api.n;
    name_request(request);
    buf_init(&request->shown, GATEWAY_ANSWER_SIZE_MAX);
    buf_init(&request->called, GATEWAY_ANSWER_SIZE_MAX);
    buf_init(&request->rows, GATEWAY_ANSWER_SIZE_MAX);
    begin_text(request);
    buf_init(&request->scores, GATEWAY_ANSWER_SIZE_MAX);
    buf_init(&request->listed, GATEWAY_ANSWER_SIZE_MAX);
    env_timer_init(&request->timer, on_timer, request);
    enum status status = STATUS_OK;
    if (leader == NULL) {
        take_prompt(request, prompt);
    } else if (copy_prompt(request, leader) != STATUS_OK) {
        status = overloaded(error);
    }
    if (status == STATUS_OK) status = prepare(request, error);
    if (status == STATUS_OK) {
        *out = request;
    } else {
        free_request(request);
    }
    return status;
}

void request_discard(struct request *request)
{
    ASSERT(request->state == REQUEST_NEW);
    free_request(request);
}

static void let_go(struct request *request)
{
    const struct ask *ask = request->ask;
    struct gateway *gateway = request->gateway;

    request->stamp = fair_stamp(&gateway->fair, ask->tenant_id, request->prompt_tokens);
    request_wait(request, 0);
}

void request_begin(struct request *request)
{
    struct gateway *gateway = request->gateway;

    request->next = gateway->requests;
    if (gateway->requests != NULL) gateway->requests->previous = request;
    gateway->requests = request;
    gateway->requests_count++;
    gateway_metrics_prompt(gateway->metrics, request->prompt_tokens);
    if (gateway->recorder != NULL) {
        recorder_arrived(gateway->recorder, request->id, request->tokens, request->prompt_tokens);
    }
    if (request->leader == NULL) let_go(request);
}

void request_prefilled(struct request *request)
{
    const struct ask *ask = request->ask;

    if (request->leader != NULL) return;
    for (uint32_t i = request->choice + 1; i < request->choice + ask->api.n; i++) {
        if (ask->choices[i]->state == REQUEST_NEW) let_go(ask->choices[i]);
    }
}
