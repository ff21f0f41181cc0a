/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/replay.c - see replay.h.
 *
 * One timer sends what is due. Requests under way are a list, so that a replay can be given up. */
#include "cli/replay.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/list.h"
#include "base/rng.h"
#include "net/http_client.h"
#include "sim/trace.h"

enum { BODY_SIZE_MAX = 8 << 20, DIGITS = 6, SAMPLES_FIRST = 1024 };

/* Milliseconds, growing. */
struct samples {
    float *values;
    size_t count, room;
    double sum;
};

struct flight {
    struct replay *replay;
    struct flight *prev, *next;
    struct http_client *client;
    uint64_t due_ns, first_ns, last_ns;
    uint32_t tokens;
    uint32_t prompt_tokens, cached_tokens;
};

struct replay {
    struct env *env;
    struct replay_options options;
    char address[256];
    char model[256];
    uint32_t count; /* requests to send */
    struct env_timer timer;
    struct flight *flights;
    struct replay_counts counts;
    struct samples ttft, gaps, paces;
    struct http_reply failure; /* the first */
    bool over;
};

/* ---- samples ---- */

static void samples_add(struct samples *samples, double ms, size_t count_max)
{
    if (samples->count == samples->room) {
        const size_t room = samples->room == 0 ? SAMPLES_FIRST : 2 * samples->room;
        float *values = room > count_max ? NULL : realloc(samples->values, room * sizeof(*values));
        if (values == NULL) return;
        samples->values = values;
        samples->room = room;
    }
    samples->values[samples->count++] = (float)ms;
    samples->sum += ms;
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* By nearest rank. */
static double rank(const struct samples *samples, double share)
{
    const double at = ceil(share * (double)samples->count);
    return (double)samples->values[at < 1 ? 0 : (size_t)at - 1];
}

static void summarize(struct samples *samples, struct replay_quantiles *out)
{
    *out = (struct replay_quantiles){ 0 };
    if (samples->count == 0) return;
    qsort(samples->values, samples->count, sizeof(*samples->values), compare_floats);
    *out = (struct replay_quantiles){
        .count = (uint32_t)samples->count,
        .mean = samples->sum / (double)samples->count,
        .p50 = rank(samples, 0.5),
        .p90 = rank(samples, 0.9),
        .p99 = rank(samples, 0.99),
        .max = (double)samples->values[samples->count - 1],
    };
}

/* ---- requests ---- */

static uint32_t scaled(double tokens, double scale, uint32_t max)
{
    const double value = floor(tokens * scale + 0.5);
    return value < 1 ? 1 : value > max ? max : (uint32_t)value;
}

static enum status write_prompt(const struct replay_options *options,
                                const struct trace_request *request, struct buf *out)
{
    const struct trace *trace = options->trace;
    const uint32_t max = options->input_max != 0 ? options->input_max : REPLAY_PROMPT_MAX;
    const uint32_t count = scaled(request->input_tokens, options->scale, max);
    const uint32_t block = scaled(trace->block_tokens, options->scale, REPLAY_PROMPT_MAX);
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const uint32_t at = i / block;
        /* Rounding may leave tokens behind the last id: they continue it. */
        const uint32_t id = at < request->blocks ? at : request->blocks - 1;
        const uint64_t seed = request->blocks == 0 ? (uint64_t)(request - trace->requests) << 32
                                                   : trace->ids[request->first + id];
        const uint64_t bits = rng_counter(seed ^ options->salt << 33, i);
        status = buf_printf(out, "%s%u", i == 0 ? "" : ",",
                            REPLAY_VOCAB_FIRST + (uint32_t)(bits % REPLAY_VOCAB));
    }
    return status;
}

enum status replay_body(const struct replay_options *options, uint32_t index, struct buf *out)
{
    const struct trace_request *request = &options->trace->requests[index];
    const uint32_t answer =
        scaled(request->output_tokens, options->output_scale, REPLAY_PROMPT_MAX);

    ASSERT(index < options->trace->count);
    enum status status = buf_printf(out,
                                    "{\"model\":\"%s\",\"stream\":true,\"temperature\":0,"
                                    "\"ignore_eos\":true,\"max_tokens\":%u,"
                                    "\"stream_options\":{\"include_usage\":true},\"prompt\":[",
                                    options->model, answer);
    if (status == STATUS_OK) status = write_prompt(options, request, out);
    return status == STATUS_OK ? buf_append_text(out, "]}") : status;
}

/* ---- answers ---- */

static void check_over(struct replay *replay)
{
    if (replay->over || replay->flights != NULL || replay->counts.due < replay->count) return;
    replay->over = true;
    replay->counts.ended_ns = env_now_ns(replay->env);
    replay->options.on_end(replay->options.ctx);
}

static void flight_end(struct flight *flight)
{
    struct replay *replay = flight->replay;
    LIST_REMOVE(replay->flights, flight);
    replay->counts.running--;
    free(flight);
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / (double)ENV_NS_PER_MS;
}

/* The number behind the last `"name":` of a line; 0 if it is not there. */
static uint32_t number_of(const char *line, size_t len, const char *name)
{
    char text[512];
    const size_t tail = len < sizeof(text) - 1 ? len : sizeof(text) - 1;

    memcpy(text, line + len - tail, tail);
    text[tail] = '\0';
    const char *at = strstr(text, name);
    return at == NULL ? 0 : (uint32_t)strtoul(at + strlen(name), NULL, 10);
}

static bool contains(const char *line, size_t len, const char *text)
{
    return memmem(line, len, text, strlen(text)) != NULL;
}

static void take_token(struct flight *flight)
{
    struct replay *replay = flight->replay;
    const uint64_t now = env_now_ns(replay->env);

    if (flight->first_ns == 0) {
        flight->first_ns = now;
        samples_add(&replay->ttft, ms_between(flight->due_ns, now), REPLAY_GAPS_MAX);
    } else {
        samples_add(&replay->gaps, ms_between(flight->last_ns, now), REPLAY_GAPS_MAX);
    }
    flight->last_ns = now;
    flight->tokens++;
    replay->counts.tokens++;
}

/* Chunks with text are tokens; the one with the usage says how many there really were. */
static void on_line(void *ctx, const char *line, size_t len)
{
    struct flight *flight = ctx;

    if (len < 6 || memcmp(line, "data: ", 6) != 0 || contains(line, len, "[DONE]")) return;
    if (contains(line, len, "\"completion_tokens\":")) {
        const uint32_t tokens = number_of(line, len, "\"completion_tokens\":");
        if (tokens > flight->tokens) flight->replay->counts.tokens += tokens - flight->tokens;
        if (tokens > flight->tokens) flight->tokens = tokens;
        flight->prompt_tokens = number_of(line, len, "\"prompt_tokens\":");
        flight->cached_tokens = number_of(line, len, "\"cached_tokens\":");
    } else if (contains(line, len, "\"text\":\"") && !contains(line, len, "\"text\":\"\"")) {
        take_token(flight);
    }
}

/* Mean time between the tokens of this answer. */
static double pace_ms(const struct flight *flight)
{
    if (flight->tokens < 2) return 0;
    return ms_between(flight->first_ns, flight->last_ns) / (double)(flight->tokens - 1);
}

static bool is_good(const struct flight *flight)
{
    const struct replay_options *options = &flight->replay->options;
    const double ttft_ms = ms_between(flight->due_ns, flight->first_ns);
    const double tbt_ms = pace_ms(flight);

    return (options->ttft_limit_ms <= 0 || ttft_ms <= options->ttft_limit_ms) &&
           (options->tbt_limit_ms <= 0 || tbt_ms <= options->tbt_limit_ms);
}

static void count_failure(struct replay *replay, const struct http_reply *reply)
{
    if (replay->counts.failed++ == 0) replay->failure = *reply;
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct flight *flight = ctx;
    struct replay *replay = flight->replay;
    struct replay_counts *counts = &replay->counts;

    if (reply->status == STATUS_OK && reply->code == 429) {
        counts->rejected++;
    } else if (reply->status != STATUS_OK || reply->code != 200 || flight->first_ns == 0 ||
               flight->prompt_tokens == 0) {
        count_failure(replay, reply);
    } else {
        counts->finished++;
        counts->prompt_tokens += flight->prompt_tokens;
        counts->cached_tokens += flight->cached_tokens;
        if (flight->tokens > 1) samples_add(&replay->paces, pace_ms(flight), REPLAY_GAPS_MAX);
        if (is_good(flight)) {
            counts->good++;
            counts->good_tokens += flight->tokens;
        }
    }
    flight_end(flight);
    check_over(replay);
}

/* ---- sending ---- */

static enum status start_client(struct flight *flight, uint32_t index)
{
    struct replay *replay = flight->replay;
    const char *headers = replay->options.headers;
    struct buf body;

    buf_init(&body, BODY_SIZE_MAX);
    enum status status = replay_body(&replay->options, index, &body);
    const struct http_client_options options = {
        .address = replay->address,
        .method = "POST",
        .path = "/v1/completions",
        .headers = headers != NULL ? headers : "Content-Type: application/json\r\n",
        .body = buf_data(&body),
        .len = body.len,
        .deadline_ns = env_now_ns(replay->env) + REPLAY_REQUEST_S * ENV_NS_PER_S,
        .identity = replay->options.identity,
        .on_line = on_line,
        .on_done = on_done,
        .ctx = flight,
    };
    if (status == STATUS_OK)
        status = http_client_start(replay->env, &options, &flight->client, NULL);
    buf_fini(&body);
    return status;
}

static void send_one(struct replay *replay, uint32_t index, uint64_t due_ns)
{
    struct flight *flight = calloc(1, sizeof(*flight));

    if (flight == NULL) {
        count_failure(replay, &(struct http_reply){ .status = STATUS_NO_MEMORY });
        return;
    }
    *flight = (struct flight){ .replay = replay, .due_ns = due_ns };
    LIST_PUSH(replay->flights, flight);
    replay->counts.running++;
    const enum status status = start_client(flight, index);
    if (status == STATUS_OK) return;
    count_failure(replay, &(struct http_reply){ .status = status });
    flight_end(flight);
}

static uint64_t due_at(const struct replay *replay, uint32_t index)
{
    const double ms = replay->options.trace->requests[index].arrival_ms / replay->options.speed;
    /* Three years at a millionth of the speed are more than the clock holds. */
    return replay->counts.started_ns + (uint64_t)fmin(ms * (double)ENV_NS_PER_MS, 1e18);
}

static void on_due(void *ctx)
{
    struct replay *replay = ctx;

    while (replay->counts.due < replay->count) {
        const uint32_t index = replay->counts.due;
        const uint64_t due_ns = due_at(replay, index);
        if (due_ns > env_now_ns(replay->env)) {
            env_timer_set(replay->env, &replay->timer, due_ns);
            return;
        }
        replay->counts.due++;
        send_one(replay, index, due_ns);
    }
    check_over(replay);
}

/* ---- life ---- */

static enum status check_number(const char *name, double value, double min, double max,
                                struct errmsg *err)
{
    if (value >= min && value <= max) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "%s is %g: must be in %g..%g", name, value, min, max);
}

static enum status check_options(const struct replay_options *options, struct errmsg *err)
{
    enum status status = check_number("the speed", options->speed, 1e-6, 1e6, err);
    if (status == STATUS_OK) status = check_number("the scale", options->scale, 1e-6, 1e3, err);
    if (status == STATUS_OK)
        status = check_number("the scale of answers", options->output_scale, 1e-6, 1e3, err);
    if (options->input_max > REPLAY_PROMPT_MAX)
        return errmsg_set(err, STATUS_INVALID, "prompts of %u tokens: at most %d",
                          options->input_max, REPLAY_PROMPT_MAX);
    if (strpbrk(options->model, "\"\\\n") != NULL)
        return errmsg_set(err, STATUS_INVALID, "`%.100s` is no name of a model", options->model);
    return status;
}

enum status replay_start(struct env *env, const struct replay_options *options, struct replay **out,
                         struct errmsg *err)
{
    const uint32_t all = options->trace->count;
    const enum status status = check_options(options, err);

    ASSERT(options->on_end != NULL);
    if (status != STATUS_OK) return status;
    struct replay *replay = calloc(1, sizeof(*replay));
    if (replay == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for a replay");
    replay->env = env;
    replay->options = *options;
    snprintf(replay->address, sizeof(replay->address), "%s", options->address);
    snprintf(replay->model, sizeof(replay->model), "%s", options->model);
    replay->options.address = replay->address;
    replay->options.model = replay->model;
    replay->count =
        options->requests_max != 0 && options->requests_max < all ? options->requests_max : all;
    replay->counts.started_ns = env_now_ns(env);
    env_timer_init(&replay->timer, on_due, replay);
    env_timer_set(env, &replay->timer, replay->counts.started_ns);
    *out = replay;
    return STATUS_OK;
}

void replay_stop_sending(struct replay *replay)
{
    replay->count = replay->counts.due;
    env_timer_set(replay->env, &replay->timer, env_now_ns(replay->env));
}

const struct replay_counts *replay_counts(const struct replay *replay)
{
    return &replay->counts;
}

const struct http_reply *replay_first_failure(const struct replay *replay)
{
    return replay->counts.failed > 0 ? &replay->failure : NULL;
}

void replay_result(struct replay *replay, struct replay_result *out)
{
    const uint64_t end_ns =
        replay->counts.ended_ns != 0 ? replay->counts.ended_ns : env_now_ns(replay->env);

    *out = (struct replay_result){ .counts = replay->counts };
    out->seconds = ms_between(replay->counts.started_ns, end_ns) / 1e3;
    summarize(&replay->ttft, &out->ttft);
    summarize(&replay->gaps, &out->tbt);
    summarize(&replay->paces, &out->pace);
}

void replay_destroy(struct replay *replay)
{
    if (replay == NULL) return;
    env_timer_cancel(replay->env, &replay->timer);
    while (replay->flights != NULL) {
        http_client_cancel(replay->flights->client);
        flight_end(replay->flights);
    }
    free(replay->ttft.values);
    free(replay->gaps.values);
    free(replay->paces.values);
    free(replay);
}
