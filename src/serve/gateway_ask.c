/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_ask.c - one HTTP request, from its arrival to its last byte: what the client wrote
 * and what it is shown. Each answer that it asks for is a request of its own (gateway_request.c):
 * `n` of them for each prompt, numbered as OpenAI numbers choices.
 *
 *     ask_start: may it ask at all? gateway_read, beside the loop if it is long (gateway_beside.h)
 *     on_read: a request for each choice, begun together
 *         streamed      ask_show: a chunk for each piece of text of any choice
 *         whole         texts stay with their requests until the last one has finished
 *     ask_finished, of the last choice: usage, the end
 *     ask_fail, ask_abandon: the other requests are stopped too
 *
 * The answers to one prompt differ by their seeds. The first leads: the others wait until its
 * prompt has been computed, and find it in the cache.
 *
 * Usage counts each prompt once, its cached tokens as its first answer found them, and the tokens
 * of all answers.
 *
 * Invariants
 *   I1  http is not NULL until the HTTP request has been ended, exactly once.
 *   I2  an ask is freed with the last of its requests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/http.h"
#include "serve/api_tools.h"
#include "serve/gateway_logprobs.h"
#include "serve/gateway_beside.h"
#include "serve/gateway_prompt.h"
#include "serve/gateway_read.h"
#include "serve/gateway_request.h"
#include "serve/tenants.h"

static struct api_answer answer_of(const struct ask *ask)
{
    return (struct api_answer){
        .kind = ask->api.kind,
        .id = ask->answer_id,
        .model = ask->gateway->served_name,
        .fingerprint = gateway_fingerprint(ask->gateway),
        .created_s = ask->created_s,
        .include_usage = ask->api.include_usage,
    };
}

/* An answer that ends by itself and has called waits for what the tools say. */
static const char *finish_reason_of(const struct request *choice)
{
    const char *reason = choice->finish_reason;

    if (choice->calls.count == 0 || reason == NULL || strcmp(reason, "stop") != 0) return reason;
    return "tool_calls";
}

static struct api_choice choice_of(const struct request *choice)
{
    return (struct api_choice){
        .index = choice->choice,
        .text = (const char *)buf_data(&choice->shown),
        .len = choice->shown.len,
        .finish_reason = finish_reason_of(choice),
        .calls = { choice->called.len > 0 ? (const char *)buf_data(&choice->called) : NULL,
                   choice->called.len },
    };
}

static struct api_usage usage_of(const struct ask *ask)
{
    struct api_usage usage = { 0 };

    for (uint32_t i = 0; i < ask->choices_count; i++) {
        const struct request *choice = ask->choices[i];
        usage.completion_tokens += choice->tokens_count - choice->prompt_tokens;
        if (choice->leader != NULL) continue;
        usage.prompt_tokens += choice->prompt_tokens;
        usage.cached_tokens += choice->cached_tokens;
    }
    return usage;
}

/* As answer_of(), for a chunk. */
static struct api_answer chunk_of(const struct ask *ask, const struct api_usage *so_far)
{
    struct api_answer answer = answer_of(ask);

    if (ask->api.continuous_usage) answer.so_far = so_far;
    return answer;
}

/* ---- the HTTP answer ---- */

static void stop_all(struct ask *ask, const char *reason)
{
    for (uint32_t i = 0; i < ask->choices_count; i++)
        request_stop(ask->choices[i], reason);
}

/* Ends the HTTP answer as what it is. */
static void end_http(struct ask *ask)
{
    struct http_request *http = ask->http;

    ask->http = NULL;
    if (ask->failed) {
        http_abort(http);
    } else {
        http_end(http);
    }
    request_pump(ask->gateway); /* somebody has to free it */
}

void ask_abandon(struct ask *ask, const char *reason)
{
    struct http_request *http = ask->http;

    if (http == NULL) return;
    LOG_DEBUG("gateway", "request_abandoned", "req=%s reason=%s", ask->request_id, reason);
    ask->http = NULL;
    stop_all(ask, "abort");
    http_abort(http);
    request_pump(ask->gateway);
}

static void flush(struct ask *ask);

static void on_writable(void *ctx)
{
    struct ask *ask = ctx;

    ask->writable_armed = false;
    if (ask->http != NULL) flush(ask);
}

/* Gives HTTP what it takes. The ask may be over afterwards. */
static void flush(struct ask *ask)
{
    if (ask->writable_armed || ask->http == NULL) return;
    const enum status status = http_send(ask->http, buf_data(&ask->chunks), ask->chunks.len);
    if (status == STATUS_OK) {
        buf_clear(&ask->chunks);
        if (ask->final) end_http(ask);
    } else if (status == STATUS_FULL) {
        ask->writable_armed = true;
        http_on_writable(ask->http, on_writable, ask);
    } else {
        ask_abandon(ask, "hangup");
    }
}

static void on_hangup(void *ctx)
{
    ask_abandon(ctx, "hangup");
}

static void begin_stream(struct ask *ask)
{
    ask->began = true;
    http_set_header(ask->http, "Cache-Control", "no-cache");
    http_set_header(ask->http, "X-Accel-Buffering", "no");
    http_begin(ask->http, 200, "text/event-stream");
    gateway_metrics_http(ask->gateway->metrics, 200);
}

/* As choice_of(), with what its rows say. */
static enum status choice_with_rows(struct request *choice, struct api_choice *out)
{
    *out = choice_of(choice);
    enum status status = request_echo_scores(choice);
    if (status == STATUS_OK) status = request_list_scores(choice, &out->prompt_logprobs);
    if (status != STATUS_OK || choice->rows.len == 0) return status;
    status = gateway_logprobs_render(choice->gateway->tokenizer, choice->ask->api.kind,
                                     &choice->rows, &choice->offset);
    out->logprobs = (struct api_text){ (const char *)buf_data(&choice->rows), choice->rows.len };
    return status;
}

/* Rows of tokens whose text is not shown yet wait for it. */
static enum status write_shown(struct ask *ask, struct request *choice)
{
    const struct api_usage usage = usage_of(ask);
    const struct api_answer answer = chunk_of(ask, &usage);
    enum status status = STATUS_OK;
    struct api_choice shown;

    if (!choice->opened && answer.kind == API_CHAT)
        status = api_write_chunk_role(&ask->chunks, &answer, choice->choice);
    choice->opened = true;
    if (status != STATUS_OK || (choice->shown.len == 0 && choice->called.len == 0)) return status;
    status = choice_with_rows(choice, &shown);
    if (status == STATUS_OK) status = api_write_chunk_text(&ask->chunks, &answer, &shown);
    buf_clear(&choice->rows);
    return status;
}

void ask_show(struct request *choice)
{
    struct ask *ask = choice->ask;

    ASSERT(ask->http != NULL && ask->api.stream);
    if (request_wants_scores(choice)) return; /* nothing is shown before them */
    if (!ask->began) begin_stream(ask);
    gateway_explain_shown(choice, buf_data(&choice->shown), choice->shown.len);
    if (write_shown(ask, choice) != STATUS_OK) {
        ask_abandon(ask, "slow_client"); /* it has not read GATEWAY_ANSWER_SIZE_MAX bytes */
        return;
    }
    buf_clear(&choice->shown);
    buf_clear(&choice->called);
    flush(ask);
}

/* ---- ends ---- */

static enum status write_finish(struct ask *ask, struct request *choice)
{
    const struct api_usage usage = usage_of(ask);
    const struct api_answer answer = chunk_of(ask, &usage);
    struct buf *out = &ask->chunks;
    struct api_choice finish;

    enum status status = choice_with_rows(choice, &finish);
    if (status == STATUS_OK) status = api_write_chunk_finish(out, &answer, &finish);
    if (status != STATUS_OK || ask->unfinished > 0) return status;
    if (ask->api.include_usage) status = api_write_chunk_usage(out, &answer, &usage);
    return status == STATUS_OK ? api_write_chunk_done(out) : status;
}

static enum status write_whole(const struct ask *ask, struct buf *out)
{
    const struct api_answer answer = answer_of(ask);
    const struct api_usage usage = usage_of(ask);
    struct api_choice choices[API_CHOICES_MAX];

    for (uint32_t i = 0; i < ask->choices_count; i++) {
        const enum status status = choice_with_rows(ask->choices[i], &choices[i]);
        if (status != STATUS_OK) return status;
    }
    return api_write_answer(out, &answer, choices, ask->choices_count, &usage);
}

static void respond_whole(struct ask *ask)
{
    struct http_request *http = ask->http;
    struct buf out;

    buf_init(&out, GATEWAY_ANSWER_SIZE_MAX);
    if (write_whole(ask, &out) != STATUS_OK) {
        buf_fini(&out);
        ask_abandon(ask, "too_long");
        return;
    }
    ask->http = NULL;
    gateway_metrics_http(ask->gateway->metrics, 200);
    http_respond(http, 200, "application/json", buf_data(&out), out.len);
    buf_fini(&out);
    request_pump(ask->gateway);
}

void ask_finished(struct request *choice)
{
    struct ask *ask = choice->ask;

    ASSERT(ask->http != NULL && ask->unfinished > 0 && choice->state == REQUEST_OVER);
    ask->unfinished--;
    if (!ask->api.stream) {
        if (ask->unfinished == 0) respond_whole(ask);
    } else if (write_finish(ask, choice) != STATUS_OK) {
        ask_abandon(ask, "slow_client");
    } else {
        ask->final = ask->unfinished == 0;
        flush(ask);
    }
}

void ask_fail(struct ask *ask, const struct api_error *error)
{
    struct http_request *http = ask->http;

    ASSERT(http != NULL && !ask->final);
    stop_all(ask, "error");
    if (!ask->began) {
        ask->http = NULL;
        gateway_respond_error(ask->gateway, http, error);
        request_pump(ask->gateway);
        return;
    }
    ask->failed = true;
    ask->final = true;
    if (api_write_chunk_error(&ask->chunks, error) != STATUS_OK) {
        ask_abandon(ask, "slow_client");
    } else {
        flush(ask);
    }
}

static void ask_free(struct ask *ask)
{
    ASSERT(ask->refs == 0);
    api_request_fini(&ask->api);
    buf_fini(&ask->chunks);
    free(ask->choices);
    free(ask);
}

void ask_unref(struct ask *ask)
{
    ASSERT(ask->refs > 0);
    if (--ask->refs == 0) ask_free(ask);
}

/* ---- starting ---- */

/* The trace of W3C's "00-<32 hex digits>-<16 hex digits>-<2 hex digits>". */
static void take_trace(struct ask *ask, const char *parent)
{
    static const size_t FIRST = 3, LEN = TRACE_ID_SIZE - 1;
    static const char HEX[] = "0123456789abcdef";

    if (parent == NULL || strspn(parent, HEX) != FIRST - 1 || parent[FIRST - 1] != '-') return;
    if (strspn(parent + FIRST, HEX) != LEN || parent[FIRST + LEN] != '-') return;
    memcpy(ask->trace, parent + FIRST, LEN);
    ask->trace[LEN] = '\0';
}

/* Who asks, and what it is called: known before it is clear whether it makes sense. */
static void identify(struct ask *ask, struct http_request *http, enum api_kind kind)
{
    struct gateway *gateway = ask->gateway;

    ask->payer = gateway_keys_tenant(gateway, http);
    const char *tenant = ask->payer != NULL ? tenant_name(ask->payer)
                                            : http_header(http, "X-Llm-D-Inference-Fairness-Id");
    if (tenant != NULL) snprintf(ask->tenant, sizeof(ask->tenant), "%s", tenant);
    if (tenant != NULL) ask->tenant_id = hash_xxh3(ask->tenant, strlen(ask->tenant));
    take_trace(ask, http_header(http, "traceparent"));
    ask->class = slo_find(&gateway->classes, http_header(http, "X-Gateway-Inference-Objective"));
    env_random(gateway->env, &ask->id, sizeof(ask->id));
    gateway_request_id(gateway, http, ask->id, ask->request_id);
    snprintf(ask->answer_id, sizeof(ask->answer_id), "%s-%016llx",
             kind == API_CHAT ? "chatcmpl" : "cmpl", (unsigned long long)ask->id);
    ask->created_s = env_wall_ns(gateway->env) / ENV_NS_PER_S;
    ask->arrived_ns = http_arrived_ns(http);
    ask->deadline_ns = ask->arrived_ns + gateway->options.request_ms * ENV_NS_PER_MS;
    buf_init(&ask->chunks, GATEWAY_ANSWER_SIZE_MAX);
}

/* ---- what a tenant may still ask for ---- */

static void set_limit_header(struct http_request *http, const char *what, const char *of,
                             double value, const char *unit)
{
    char name[64], text[32];

    snprintf(name, sizeof(name), "x-ratelimit-%s-%s", what, of);
    snprintf(text, sizeof(text), "%.*f%s", unit[0] != '\0' ? 3 : 0, value, unit);
    http_set_header(http, name, text);
}

static void set_limit_headers(struct http_request *http, const char *of, struct tenant_state state)
{
    if (state.limit == 0) return;
    set_limit_header(http, "limit", of, (double)state.limit, "");
    set_limit_header(http, "remaining", of, (double)state.remaining, "");
    set_limit_header(http, "reset", of, (double)state.full_ns / (double)ENV_NS_PER_S, "s");
}

static enum status over_limit(const struct ask *ask, const char *limit, uint64_t wait_ns,
                              struct api_error *error)
{
    const uint64_t seconds = (wait_ns + ENV_NS_PER_S - 1) / ENV_NS_PER_S;

    gateway_metrics_limited(ask->gateway->metrics, ask->tenant, limit);
    LOG_INFO("gateway", "rate_limited", "req=%s trace=%s tenant=%s limit=%s wait_s=%llu",
             ask->request_id, ask->trace, ask->tenant, limit, (unsigned long long)seconds);
    api_refuse(error, 429, "rate_limit_exceeded", NULL,
               "The tenant's %s of this minute are used up; try again in %llu s", limit,
               (unsigned long long)seconds);
    error->retry_after_s = (uint32_t)seconds;
    return STATUS_INVALID;
}

static enum status pay_request(const struct ask *ask, struct api_error *error)
{
    uint64_t wait_ns = 0;

    if (ask->payer == NULL) return STATUS_OK;
    if (tenant_take_request(ask->payer, env_now_ns(ask->gateway->env), &wait_ns) == STATUS_OK)
        return STATUS_OK;
    return over_limit(ask, "requests", wait_ns, error);
}

/* Of every prompt once. */
static enum status pay_prompts(const struct ask *ask, struct api_error *error)
{
    uint64_t wait_ns = 0;
    uint32_t tokens = 0;

    if (ask->payer == NULL) return STATUS_OK;
    for (uint32_t i = 0; i < ask->choices_count; i += ask->api.n)
        tokens += ask->choices[i]->prompt_tokens;
    if (tenant_take_tokens(ask->payer, tokens, env_now_ns(ask->gateway->env), &wait_ns) !=
        STATUS_OK) {
        return over_limit(ask, "tokens", wait_ns, error);
    }
    gateway_metrics_tenant(ask->gateway->metrics, ask->tenant, "prompt", tokens);
    return STATUS_OK;
}

static void say_limits(const struct ask *ask, struct http_request *http)
{
    const uint64_t now_ns = env_now_ns(ask->gateway->env);

    if (ask->payer == NULL) return;
    set_limit_headers(http, "requests", tenant_requests(ask->payer, now_ns));
    set_limit_headers(http, "tokens", tenant_tokens(ask->payer, now_ns));
}

/* Each answer counts where requests are counted, and so does what is still read. */
static enum status check_room(const struct gateway *gateway, uint32_t answers,
                              struct api_error *error)
{
    const uint32_t max = gateway->options.requests_max;
    const uint32_t under_way = gateway->requests_count + gateway->besides_count;

    if (answers <= max && under_way <= max - answers) return STATUS_OK;
    return api_refuse(error, 429, "overloaded", NULL, "%u requests are under way already",
                      under_way);
}

/* Before anybody looks at what it says. */
static enum status admit(const struct ask *ask, struct api_error *error)
{
    if (ask->gateway->draining) {
        return api_refuse(error, 503, "shutting_down", NULL, "The server is shutting down");
    }
    const enum status status = check_room(ask->gateway, 1, error);
    return status == STATUS_OK ? pay_request(ask, error) : status;
}

static enum status make_choices(struct ask *ask, const struct reading *reading,
                                struct api_error *error)
{
    enum status status = STATUS_OK;

    ask->choices = calloc(ask->choices_count, sizeof(struct request *));
    if (ask->choices == NULL) {
        return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    }
    for (uint32_t i = 0; i < ask->choices_count && status == STATUS_OK; i++) {
        const uint32_t which = i % ask->api.n;
        struct request *leader = which > 0 ? ask->choices[i - which] : NULL;
        struct read_prompt *prompt = which > 0 ? NULL : &reading->prompts[i / ask->api.n];
        status = request_create(ask, i, prompt, leader, &ask->choices[i], error);
    }
    return status;
}

static void refuse(struct ask *ask, struct http_request *http, const struct api_error *error)
{
    say_limits(ask, http);
    gateway_respond_error(ask->gateway, http, error);
    for (uint32_t i = 0; ask->choices != NULL && i < ask->choices_count; i++) {
        if (ask->choices[i] != NULL) request_discard(ask->choices[i]);
    }
    ask_unref(ask);
}

/* Takes what was read, and makes requests of it. */
static enum status take_reading(struct ask *ask, struct reading *reading, struct api_error *error)
{
    struct gateway *gateway = ask->gateway;

    ask->api = reading->api;
    reading->api = (struct api_request){ .kind = reading->kind };
    ask->salted = reading->salted;
    ask->salt = reading->salt;
    ask->choices_count = reading->prompts_count * ask->api.n;
    ask->seed = ask->api.seed;
    if (!ask->api.has_seed) env_random(gateway->env, &ask->seed, sizeof(ask->seed));
    enum status status = check_room(gateway, ask->choices_count, error);
    if (status == STATUS_OK) status = make_choices(ask, reading, error);
    return status == STATUS_OK ? pay_prompts(ask, error) : status;
}

static void begin(struct ask *ask, struct http_request *http)
{
    say_limits(ask, http);
    ask->http = http;
    ask->unfinished = ask->choices_count;
    gateway_metrics_asked(ask->gateway->metrics, ask->api.n, ask->api.max_tokens);
    http_on_hangup(http, on_hangup, ask);
    for (uint32_t i = 0; i < ask->choices_count; i++)
        request_begin(ask->choices[i]);
    ask_unref(ask);
}

/* An ask whose body is read. */
struct opening {
    struct ask *ask;
    struct http_request *http;
    struct beside beside;
    struct reading reading;
};

static void read_body(void *ctx)
{
    struct opening *opening = ctx;

    gateway_read(&opening->reading);
}

static void on_read(void *ctx, enum beside_end how)
{
    struct opening *opening = ctx;
    struct reading *reading = &opening->reading;
    struct ask *ask = opening->ask;
    struct api_error error;

    switch (how) {
    case BESIDE_WORKED:
        error = reading->error;
        if (reading->status == STATUS_OK && take_reading(ask, reading, &error) == STATUS_OK) {
            begin(ask, opening->http);
        } else {
            refuse(ask, opening->http, &error);
        }
        break;
    case BESIDE_LEFT:
        LOG_DEBUG("gateway", "request_abandoned", "req=%s reason=hangup", ask->request_id);
        http_abort(opening->http);
        ask_unref(ask);
        break;
    case BESIDE_SHUTDOWN:
        api_refuse(&error, 503, "shutting_down", NULL, "The server is shutting down");
        refuse(ask, opening->http, &error);
        break;
    }
    gateway_read_fini(reading);
    free(opening);
}

static struct reading reading_of(const struct ask *ask, const struct http_request *http,
                                 enum api_kind kind)
{
    const struct gateway *gateway = ask->gateway;
    const bool known = cluster_conductor(gateway->cluster) != NULL;
    struct reading reading = {
        .gateway = gateway,
        .kind = kind,
        .context_max = gateway_context_max(gateway),
        .now_s = (int64_t)ask->created_s,
        .tenant = ask->payer != NULL ? ask->tenant : "", /* only a key proves a name */
        .salted = ask->payer != NULL && tenant_is_salted(ask->payer),
    };

    reading.body = http_body(http, &reading.len);
    if (known) reading.root = *cluster_key_root(gateway->cluster);
    if (known) reading.block_tokens = cluster_block_tokens(gateway->cluster);
    return reading;
}

static enum status start_reading(struct ask *ask, struct http_request *http, enum api_kind kind,
                                 struct api_error *error)
{
    struct opening *opening = malloc(sizeof(*opening));

    if (opening == NULL) return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    *opening = (struct opening){
        .ask = ask,
        .http = http,
        .beside = { .work = read_body, .done = on_read, .ctx = opening },
        .reading = reading_of(ask, http, kind),
    };
    const enum status status = beside_start(ask->gateway, http, &opening->beside);
    if (status == STATUS_OK) return STATUS_OK;
    free(opening);
    return beside_refuse(status, error);
}

void ask_start(struct gateway *gateway, struct http_request *http, enum api_kind kind)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    struct api_error error;

    if (ask == NULL) {
        api_refuse(&error, 503, "overloaded", NULL, "Not enough memory");
        gateway_respond_error(gateway, http, &error);
        return;
    }
    ask->gateway = gateway;
    ask->refs = 1; /* ours, until it has begun */
    identify(ask, http, kind);
    if (admit(ask, &error) != STATUS_OK || start_reading(ask, http, kind, &error) != STATUS_OK)
        refuse(ask, http, &error);
}
