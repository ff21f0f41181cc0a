/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway.c - making the gateway, the routes of its HTTP server, and the cost profile on
 * disk.
 *
 * A route is a row of a table. What the two POST routes do is in gateway_ask.c; what the nodes
 * do, in gateway_cluster.c. */
#include "serve/gateway.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "conductor/profile.h"
#include "model/chat.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "net/http.h"
#include "serve/gateway_beside.h"
#include "serve/gateway_record.h"
#include "serve/gateway_debug.h"
#include "serve/gateway_explain.h"
#include "serve/gateway_int.h"
#include "serve/gateway_nodes.h"
#include "serve/gateway_prompt.h"
#include "serve/tenants.h"
#include "serve/worker.h"

enum {
    REQUESTS_MAX = 1024,
    SEQUENCES_MAX = 64,
    WAIT_MS = 30000,
    QUEUE_MS = 120000,
    REQUEST_MS = 600000,
    ATTEMPTS_MAX = 16,
    PROFILE_MS = 30000,
    PAGE_SIZE_MAX = 4 << 20, /* of /metrics and the like */
    CLIENT_ID_LEN_MAX = API_ID_SIZE - 1,
    BESIDE_SIZE = 16 << 10,
};

double gateway_now_ms(const struct gateway *gateway)
{
    return (double)env_now_ns(gateway->env) / (double)ENV_NS_PER_MS;
}

/* ---- answers ---- */

/* Printable, so that it can neither break a log line nor a header. */
static bool good_client_id(const char *id)
{
    const size_t len = id != NULL ? strlen(id) : 0;

    if (len == 0 || len > CLIENT_ID_LEN_MAX) return false;
    for (size_t i = 0; i < len; i++) {
        if (id[i] <= ' ' || id[i] > '~') return false;
    }
    return true;
}

void gateway_request_id(struct gateway *gateway, struct http_request *http, uint64_t id,
                        char out[API_ID_SIZE])
{
    const char *from_client = http_header(http, "X-Request-Id");

    (void)gateway;
    if (good_client_id(from_client)) {
        snprintf(out, API_ID_SIZE, "%s", from_client);
    } else {
        snprintf(out, API_ID_SIZE, "req-%016llx", (unsigned long long)id);
    }
    http_set_header(http, "X-Request-Id", out);
}

void gateway_respond_error(struct gateway *gateway, struct http_request *http,
                           const struct api_error *error)
{
    struct buf out;

    buf_init(&out, PAGE_SIZE_MAX);
    const enum status status = api_write_error(&out, error);
    ASSERT(status == STATUS_OK);
    if (error->http_status == 429 || error->http_status == 503) {
        char seconds[16];
        snprintf(seconds, sizeof(seconds), "%u",
                 error->retry_after_s > 0 ? error->retry_after_s : 1);
        http_set_header(http, "Retry-After", seconds);
    }
    gateway_metrics_http(gateway->metrics, error->http_status);
    http_respond(http, error->http_status, "application/json", buf_data(&out), out.len);
    buf_fini(&out);
}

void gateway_respond(struct gateway *gateway, struct http_request *http, int code, const char *type,
                     const char *text, size_t len)
{
    gateway_metrics_http(gateway->metrics, code);
    http_respond(http, code, type, text, len);
}

/* ---- routes ---- */

static void route_chat(struct gateway *gateway, struct http_request *http)
{
    ask_start(gateway, http, API_CHAT);
}

static void route_completion(struct gateway *gateway, struct http_request *http)
{
    ask_start(gateway, http, API_COMPLETION);
}

static struct api_model model_of(const struct gateway *gateway)
{
    return (struct api_model){ gateway->served_name, gateway->started_s,
                               gateway_context_max(gateway) };
}

static void route_tokenize(struct gateway *gateway, struct http_request *http)
{
    gateway_tokens_route(gateway, http, API_TOKENIZE);
}

static void route_detokenize(struct gateway *gateway, struct http_request *http)
{
    gateway_tokens_route(gateway, http, API_DETOKENIZE);
}

static void route_version(struct gateway *gateway, struct http_request *http)
{
    const char *version = gateway->options.version;
    char text[128];
    const int len = snprintf(text, sizeof(text), "{\"version\":\"%.64s\"}\n",
                             version != NULL ? version : "unknown");
    gateway_respond(gateway, http, 200, "application/json", text, (size_t)len);
}

static void route_load(struct gateway *gateway, struct http_request *http)
{
    char text[64];
    const int len = snprintf(text, sizeof(text), "{\"server_load\":%u}\n",
                             gateway->requests_count + gateway->besides_count);
    gateway_respond(gateway, http, 200, "application/json", text, (size_t)len);
}

static void route_models(struct gateway *gateway, struct http_request *http)
{
    const struct api_model model = model_of(gateway);
    struct buf out;

    buf_init(&out, PAGE_SIZE_MAX);
    const enum status status = api_write_models(&out, &model);
    ASSERT(status == STATUS_OK);
    gateway_respond(gateway, http, 200, "application/json", (const char *)buf_data(&out), out.len);
    buf_fini(&out);
}

static void route_model(struct gateway *gateway, struct http_request *http, const char *name)
{
    const struct api_model model = model_of(gateway);
    struct api_error error;
    struct buf out;

    if (strcmp(name, gateway->served_name) != 0) {
        api_refuse(&error, 404, "model_not_found", "model",
                   "The model '%.100s' does not exist; this server has '%.100s'", name,
                   gateway->served_name);
        gateway_respond_error(gateway, http, &error);
        return;
    }
    buf_init(&out, PAGE_SIZE_MAX);
    const enum status status = api_write_model(&out, &model);
    ASSERT(status == STATUS_OK);
    gateway_respond(gateway, http, 200, "application/json", (const char *)buf_data(&out), out.len);
    buf_fini(&out);
}

static void route_health(struct gateway *gateway, struct http_request *http)
{
    gateway_respond(gateway, http, 200, NULL, "", 0);
}

static void route_ready(struct gateway *gateway, struct http_request *http)
{
    char text[128];
    const bool ready = gateway_is_ready(gateway);
    const int len =
        snprintf(text, sizeof(text), "{\"ready\":%s,\"prefill\":%u,\"decode\":%u}\n",
                 ready ? "true" : "false", cluster_count_up(gateway->cluster, PROTO_ROLE_PREFILL),
                 cluster_count_up(gateway->cluster, PROTO_ROLE_DECODE));
    ASSERT(len > 0 && (size_t)len < sizeof(text));
    gateway_respond(gateway, http, ready ? 200 : 503, "application/json", text, (size_t)len);
}

static void route_metrics(struct gateway *gateway, struct http_request *http)
{
    struct yolk_conductor *conductor = cluster_conductor(gateway->cluster);
    struct yolk_conductor_stats stats = { 0 };
    struct yolk_admission_stats admission = { 0 };
    struct yolk_explain_stats explain = { 0 };
    struct yolk_elastic_stats elastic = { 0 };
    struct yolk_replication_stats copies = { 0 };
    const uint32_t waiting = request_count_waiting(gateway);
    struct gateway_gauges gauges = {
        .running = gateway->requests_count - waiting,
        .waiting = waiting,
        .reading = gateway->besides_count,
        .prefill_up = cluster_count_up(gateway->cluster, PROTO_ROLE_PREFILL),
        .decode_up = cluster_count_up(gateway->cluster, PROTO_ROLE_DECODE),
        .known = cluster_count_known(gateway->cluster),
    };
    struct buf out;

    cluster_pages(gateway->cluster, &gauges.pages_total, &gauges.pages_used);
    cluster_disk(gateway->cluster, gauges.disk);
    cluster_moves(gateway->cluster, gauges.moves);
    if (conductor != NULL) {
        yolk_conductor_stats(conductor, &stats);
        yolk_conductor_admission_stats(conductor, gateway_now_ms(gateway), &admission);
        yolk_conductor_elastic_stats(conductor, &elastic);
        gauges.conductor = &stats;
        gauges.elastic = &elastic;
        yolk_conductor_replication_stats(conductor, &copies);
        gauges.copies = &copies;
        gauges.admission = &admission;
        yolk_conductor_explain_stats(conductor, &explain);
        gauges.explain = &explain;
        gauges.block_tokens = cluster_block_tokens(gateway->cluster);
    }
    buf_init(&out, PAGE_SIZE_MAX);
    if (gateway_metrics_render(gateway->metrics, &gauges, &out) == STATUS_OK) {
        gateway_respond(gateway, http, 200, "text/plain; version=0.0.4; charset=utf-8",
                        (const char *)buf_data(&out), out.len);
    } else {
        gateway_respond(gateway, http, 500, "text/plain", "the page is too large\n", 22);
    }
    buf_fini(&out);
}

static void route_decisions(struct gateway *gateway, struct http_request *http)
{
    struct buf out;

    buf_init(&out, PAGE_SIZE_MAX);
    if (gateway_debug_list(cluster_conductor(gateway->cluster), gateway_now_ms(gateway),
                           http_query(http), &out) == STATUS_OK) {
        gateway_respond(gateway, http, 200, "application/json", (const char *)buf_data(&out),
                        out.len);
    } else {
        gateway_respond(gateway, http, 500, "text/plain", "the page is too large\n", 22);
    }
    buf_fini(&out);
}

static void route_nodes(struct gateway *gateway, struct http_request *http)
{
    struct buf out;

    buf_init(&out, PAGE_SIZE_MAX);
    if (gateway_nodes_list(gateway->cluster, &out) == STATUS_OK) {
        gateway_respond(gateway, http, 200, "application/json", (const char *)buf_data(&out),
                        out.len);
    } else {
        gateway_respond(gateway, http, 500, "text/plain", "the page is too large\n", 22);
    }
    buf_fini(&out);
}

static void route_decision(struct gateway *gateway, struct http_request *http, const char *id)
{
    struct api_error error;
    struct buf out;

    buf_init(&out, PAGE_SIZE_MAX);
    if (gateway_debug_explain(cluster_conductor(gateway->cluster), gateway_now_ms(gateway), id,
                              &out) == STATUS_OK) {
        gateway_respond(gateway, http, 200, "text/plain; charset=utf-8",
                        (const char *)buf_data(&out), out.len);
    } else {
        api_refuse(&error, 404, "not_found", NULL, "No decision about '%.100s' is remembered", id);
        gateway_respond_error(gateway, http, &error);
    }
    buf_fini(&out);
}

/* ---- recording ---- */

static void on_recorded(void *ctx)
{
    struct gateway *gateway = ctx;

    recorder_destroy(gateway->recorder);
    gateway->recorder = NULL;
}

/* Of "block=N", or what the nodes have; 0 for a number that is no size of a block. */
static uint32_t recorded_block(const struct gateway *gateway, const char *query)
{
    const bool known = cluster_conductor(gateway->cluster) != NULL;
    const char *found = strstr(query, "block=");
    const unsigned long asked = found != NULL ? strtoul(found + strlen("block="), NULL, 10) : 0;

    if (found == NULL) return known ? cluster_block_tokens(gateway->cluster) : RECORD_BLOCK_DEFAULT;
    const bool power = (asked & (asked - 1)) == 0;
    return power && asked >= RECORD_BLOCK_MIN && asked <= RECORD_BLOCK_MAX ? (uint32_t)asked : 0;
}

static void route_record(struct gateway *gateway, struct http_request *http)
{
    const struct recorder_options options = {
        .env = gateway->env,
        .http = http,
        .block_tokens = recorded_block(gateway, http_query(http)),
        .on_over = on_recorded,
        .ctx = gateway,
    };
    struct api_error error;

    if (options.block_tokens == 0) {
        api_refuse(&error, 400, "invalid_value", "block", "A block is a power of two in %d..%d",
                   RECORD_BLOCK_MIN, RECORD_BLOCK_MAX);
    } else if (gateway->recorder != NULL) {
        api_refuse(&error, 409, "busy", NULL, "Somebody is recording already");
    } else if (gateway->draining) {
        api_refuse(&error, 503, "shutting_down", NULL, "The server is shutting down");
    } else if (recorder_create(&options, &gateway->recorder) == STATUS_OK) {
        return;
    } else {
        api_refuse(&error, 503, "overloaded", NULL, "Not enough memory");
    }
    gateway_respond_error(gateway, http, &error);
}

static const struct {
    const char *method, *path;
    void (*fn)(struct gateway *gateway, struct http_request *http);
    bool guarded; /* by an API key, if there are any */
} ROUTES[] = {
    { "POST", "/v1/chat/completions", route_chat, true },
    { "POST", "/v1/completions", route_completion, true },
    { "GET", "/v1/models", route_models, true },
    { "POST", "/tokenize", route_tokenize, true },
    { "POST", "/detokenize", route_detokenize, true },
    { "POST", "/v1/tokenize", route_tokenize, true },
    { "POST", "/v1/detokenize", route_detokenize, true },
    { "GET", "/load", route_load, false },
    { "GET", "/version", route_version, false },
    { "GET", "/ping", route_health, false },
    { "GET", "/health", route_health, false },
    { "GET", "/ready", route_ready, false },
    { "GET", "/metrics", route_metrics, false },
    { "GET", "/debug/decisions", route_decisions, true },
    { "GET", "/debug/nodes", route_nodes, true },
    { "GET", "/debug/record", route_record, true },
};
enum { ROUTES_COUNT = sizeof(ROUTES) / sizeof(ROUTES[0]) };

/* What lies below a path: the rest of the path names it. */
static const struct {
    const char *prefix;
    void (*fn)(struct gateway *gateway, struct http_request *http, const char *name);
    bool guarded;
} BELOW[] = {
    { "/v1/models/", route_model, true },
    { "/debug/decisions/", route_decision, true },
};
enum { BELOW_COUNT = sizeof(BELOW) / sizeof(BELOW[0]) };

/* What other servers have: refused by name, so that nobody looks for a wrong address. */
static const char *const UNSUPPORTED[] = {
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/score",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/rerank",
    "/score",
    "/pooling",
    "/classify",
    "/generate",
    "/health_generate",
    "/get_server_info",
    "/flush_cache",
    "/reset_prefix_cache",
};

static bool is_unsupported(const char *path)
{
    for (size_t i = 0; i < sizeof(UNSUPPORTED) / sizeof(UNSUPPORTED[0]); i++) {
        if (strcmp(path, UNSUPPORTED[i]) == 0) return true;
    }
    return false;
}

static bool method_fits(const char *method, const char *wanted)
{
    if (strcmp(method, "HEAD") == 0) return strcmp(wanted, "GET") == 0;
    return strcmp(method, wanted) == 0;
}

static void refuse_method(struct gateway *gateway, struct http_request *http, const char *allowed)
{
    struct api_error error;

    http_set_header(http, "Allow", allowed);
    api_refuse(&error, 405, "method_not_allowed", NULL, "%s takes only %s", http_path(http),
               allowed);
    gateway_respond_error(gateway, http, &error);
}

static void on_request(void *ctx, struct http_request *http)
{
    struct gateway *gateway = ctx;
    const char *method = http_method(http), *path = http_path(http);
    struct api_error error;

    for (size_t i = 0; i < ROUTES_COUNT; i++) {
        if (strcmp(path, ROUTES[i].path) != 0) continue;
        if (ROUTES[i].guarded && !gateway_keys_admit(gateway, http)) return;
        if (method_fits(method, ROUTES[i].method)) {
            ROUTES[i].fn(gateway, http);
        } else {
            refuse_method(gateway, http, ROUTES[i].method);
        }
        return;
    }
    for (size_t i = 0; i < BELOW_COUNT; i++) {
        if (strncmp(path, BELOW[i].prefix, strlen(BELOW[i].prefix)) != 0) continue;
        if (BELOW[i].guarded && !gateway_keys_admit(gateway, http)) return;
        if (method_fits(method, "GET")) {
            BELOW[i].fn(gateway, http, path + strlen(BELOW[i].prefix));
        } else {
            refuse_method(gateway, http, "GET");
        }
        return;
    }
    if (is_unsupported(path)) {
        if (!gateway_keys_admit(gateway, http)) return;
        api_refuse(&error, 501, "unsupported_endpoint", NULL,
                   "%s is not supported; this server answers /v1/chat/completions and "
                   "/v1/completions",
                   path);
    } else {
        api_refuse(&error, 404, "not_found", NULL, "There is nothing at %.200s", path);
    }
    gateway_respond_error(gateway, http, &error);
}

/* ---- the cost profile on disk ---- */

static uint64_t samples_of(struct gateway *gateway)
{
    struct yolk_conductor *conductor = cluster_conductor(gateway->cluster);
    struct yolk_conductor_stats stats;

    if (conductor == NULL) return 0;
    yolk_conductor_stats(conductor, &stats);
    return stats.samples_prefill + stats.samples_decode + stats.samples_transfer;
}

static void save_profile(struct gateway *gateway)
{
    const uint64_t samples = samples_of(gateway);
    struct errmsg err = { "" };
    char *text = NULL;
    size_t len = 0;

    if (gateway->profile_path[0] == '\0' || samples == gateway->samples_saved) return;
    if (samples == 0) return;
    if (yolk_conductor_profile_save(cluster_conductor(gateway->cluster), &text, &len) !=
        STATUS_OK) {
        return;
    }
    const enum status status =
        env_file_replace(gateway->env, gateway->profile_path, text, len, &err);
    if (status == STATUS_OK) {
        gateway->samples_saved = samples;
    } else {
        LOG_WARN("gateway", "profile_not_saved", "reason=%s", err.text);
    }
    free(text);
}

static void on_profile_timer(void *ctx)
{
    struct gateway *gateway = ctx;

    save_profile(gateway);
    env_timer_set(gateway->env, &gateway->profile_timer,
                  env_now_ns(gateway->env) + gateway->options.profile_ms * ENV_NS_PER_MS);
}

/* So that what is learned can be kept: told at once if not, not when it is lost. */
static void make_profile_directory(struct gateway *gateway)
{
    const char *slash = strrchr(gateway->profile_path, '/');
    char directory[GATEWAY_TEXT_SIZE];
    struct errmsg err = { "" };

    if (slash == NULL || slash == gateway->profile_path) return;
    snprintf(directory, sizeof(directory), "%.*s", (int)(slash - gateway->profile_path),
             gateway->profile_path);
    if (env_make_dirs(gateway->env, directory, &err) == STATUS_OK) return;
    LOG_WARN("gateway", "profile_not_kept", "path=%s reason=%s", gateway->profile_path, err.text);
}

/* The text, or NULL: a profile that is not there or cannot be read only costs a slower start. */
static char *read_profile(struct gateway *gateway)
{
    struct errmsg err = { "" };
    char *text = NULL;
    size_t len = 0;

    if (gateway->profile_path[0] == '\0') return NULL;
    make_profile_directory(gateway);
    const enum status status = env_file_read_all(gateway->env, gateway->profile_path,
                                                 CONDUCTOR_PROFILE_SIZE_MAX, &text, &len, &err);
    if (status == STATUS_OK) return text;
    if (status != STATUS_NOT_FOUND) LOG_WARN("gateway", "profile_ignored", "reason=%s", err.text);
    return NULL;
}

/* ---- making ---- */

static uint32_t or_default(uint32_t value, uint32_t def)
{
    return value != 0 ? value : def;
}

static void take_options(struct gateway *gateway, const struct gateway_options *given)
{
    struct gateway_options *options = &gateway->options;

    *options = *given;
    if (options->secret == NULL) options->secret = "";
    options->requests_max = or_default(given->requests_max, REQUESTS_MAX);
    options->sequences_max = or_default(given->sequences_max, SEQUENCES_MAX);
    options->wait_ms = or_default(given->wait_ms, WAIT_MS);
    options->queue_ms = or_default(given->queue_ms, QUEUE_MS);
    options->request_ms = or_default(given->request_ms, REQUEST_MS);
    options->attempts_max = or_default(given->attempts_max, ATTEMPTS_MAX);
    options->profile_ms = or_default(given->profile_ms, PROFILE_MS);
    options->beside_size = or_default(given->beside_size, BESIDE_SIZE);
    if (given->profile_path != NULL) {
        snprintf(gateway->profile_path, sizeof(gateway->profile_path), "%s", given->profile_path);
    }
}

/* "dir/SmolLM2.gguf" is served as "SmolLM2" unless told otherwise. */
static void name_model(struct gateway *gateway, const struct gateway_options *options)
{
    const char *name = options->served_name;

    if (name == NULL || name[0] == '\0') {
        const char *slash = strrchr(options->model_path, '/');
        name = slash != NULL ? slash + 1 : options->model_path;
    }
    snprintf(gateway->served_name, sizeof(gateway->served_name), "%s", name);
    char *end = strrchr(gateway->served_name, '.');
    if (options->served_name == NULL && end != NULL && strcmp(end, ".gguf") == 0) *end = '\0';
}

static size_t longest_token(const struct tokenizer *tokenizer)
{
    size_t longest = 1, len = 0;

    for (uint32_t token = 0; token < tokenizer_vocab(tokenizer); token++) {
        (void)tokenizer_bytes(tokenizer, token, &len);
        if (len > longest) longest = len;
    }
    return longest;
}

static enum status open_model(struct gateway *gateway, const struct gateway_options *options,
                              struct errmsg *err)
{
    enum status status = model_open(gateway->env, options->model_path, &gateway->model, err);
    if (status != STATUS_OK) return status;
    const struct gguf *gguf = model_gguf(gateway->model);
    status = tokenizer_create(gguf, &gateway->tokenizer, err);
    if (status != STATUS_OK) return status;
    status = chat_create(gateway->env, gguf, gateway->tokenizer, options->chat_template,
                         &gateway->chat, err);
    if (status != STATUS_OK) return status;
    gateway->chat_opening = gateway_explain_opening(gateway->chat, (int64_t)gateway->started_s);
    gateway->context_max = model_params(gateway->model)->context;
    if (options->context_max > 0 && options->context_max < gateway->context_max) {
        gateway->context_max = options->context_max;
    }
    if (gateway->context_max < 2) {
        return errmsg_set(err, STATUS_INVALID, "a context of %u tokens leaves no room",
                          gateway->context_max);
    }
    gateway->token_bytes_max = longest_token(gateway->tokenizer);
    for (uint32_t i = 0; i < tokenizer_vocab(gateway->tokenizer); i++) {
        if (!tokenizer_is_end(gateway->tokenizer, i)) continue;
        if (gateway->ends_count < GATEWAY_ENDS_MAX) gateway->ends[gateway->ends_count++] = i;
    }
    return STATUS_OK;
}

static void on_change(void *ctx)
{
    request_pump(ctx);
}

static enum status open_cluster(struct gateway *gateway, const struct gateway_options *given,
                                struct errmsg *err)
{
    char *profile = read_profile(gateway);
    struct cluster_options options = {
        .env = gateway->env,
        .master = given->master,
        .secret = gateway->options.secret,
        .vocab = tokenizer_vocab(gateway->tokenizer),
        .sequences_max = gateway->options.sequences_max,
        .conductor = yolk_conductor_defaults(),
        .admission = { .policy = given->policy,
                       .ttft_ms = given->ttft_slo_ms,
                       .tbt_ms = given->tbt_slo_ms,
                       .door = gateway->door },
        .elastic = given->elastic,
        .replication = yolk_replication_defaults(),
        .replicates = given->replicate,
        .profile = profile,
        .on_change = on_change,
        .on_leaving = attempt_node_leaves,
        .on_suspected = attempt_node_suspected,
        .ctx = gateway,
    };

    options.conductor.reuse = !given->pool_off;
    options.conductor.congestion = true;
    options.conductor.stretch = gateway->stretch;
    options.conductor.inline_tbt_ms = given->inline_tbt_ms;
    options.conductor.inline_tokens = WORKER_ROWS_DEFAULT - WORKER_DECODES_DEFAULT; /* one step */
    if (given->group_max > 0) options.conductor.group_max = given->group_max;
    options.conductor.chunk_tokens = WORKER_ROWS_DEFAULT;
    options.conductor.activation_bytes =
        model_params(gateway->model)->d_model * (uint32_t)sizeof(float);
    options.conductor.placement = given->placement;
    env_random(gateway->env, &options.conductor.seed, sizeof(options.conductor.seed));
    if (given->replicate_hot > 0) options.replication.hot = given->replicate_hot;
    if (given->theta > 0) options.conductor.theta = given->theta;
    const enum status status = cluster_create(&options, &gateway->cluster, err);
    free(profile);
    return status;
}

static enum status open_elastic(struct gateway *gateway)
{
    const struct yolk_elastic_options *given = &gateway->options.elastic;
    const struct elastic_options options = {
        .env = gateway->env,
        .cluster = gateway->cluster,
        .metrics = gateway->metrics,
        .window_ms = given->window_ms,
        .drain_ms = given->drain_ms,
        .outside = request_outside,
        .hand_over = attempt_hand_over,
        .on_change = on_change,
        .ctx = gateway,
    };
    return given->on ? elastic_create(&options, &gateway->elastic) : STATUS_OK;
}

static enum status open_copies(struct gateway *gateway)
{
    const struct copies_options options = { gateway->env, gateway->cluster, gateway->metrics };
    return gateway->options.replicate ? copies_create(&options, &gateway->copies) : STATUS_OK;
}

static enum status open_http(struct gateway *gateway, const struct gateway_options *given,
                             struct errmsg *err)
{
    const struct http_server_options options = {
        .address = given->address,
        .identity = given->identity,
        .on_request = on_request,
        .ctx = gateway,
        .connections_max = given->connections_max,
        .body_size_max = given->body_size_max,
    };
    return http_server_create(gateway->env, &options, &gateway->http, err);
}

static enum status take_classes(struct gateway *gateway, const struct gateway_options *options,
                                struct errmsg *err)
{
    const enum status status = slo_parse(options->slo_classes, &gateway->classes, err);
    bool ttft = options->ttft_slo_ms > 0, tbt = options->tbt_slo_ms > 0;

    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < gateway->classes.count; i++) {
        const struct slo_class *class = &gateway->classes.classes[i];
        ttft |= class->ttft_ms > 0 && isfinite(class->ttft_ms);
        tbt |= class->tbt_ms > 0 && isfinite(class->tbt_ms);
    }
    const bool adaptive = options->policy == YOLK_POLICY_ADAPTIVE;
    gateway->paces_tokens = tbt && options->policy != YOLK_POLICY_NONE;
    gateway->door = options->door && tbt && adaptive;
    gateway->stretch = ttft && adaptive ? options->stretch : 0;
    return STATUS_OK;
}

enum status gateway_create(struct env *env, const struct gateway_options *options,
                           struct gateway **out, struct errmsg *err)
{
    struct gateway *gateway = calloc(1, sizeof(*gateway));
    if (gateway == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "gateway: not enough memory");
    gateway->env = env;
    gateway->started_s = env_wall_ns(env) / ENV_NS_PER_S;
    env_timer_init(&gateway->pump_timer, request_pump_run, gateway);
    env_timer_init(&gateway->profile_timer, on_profile_timer, gateway);
    take_options(gateway, options);
    name_model(gateway, options);

    enum status status = open_model(gateway, options, err);
    if (status == STATUS_OK) {
        status = gateway_metrics_create(gateway->served_name, &gateway->metrics);
    }
    if (status == STATUS_OK) {
        gateway_metrics_policies(gateway->metrics, yolk_placement_name(options->placement),
                                 yolk_policy_name(options->policy));
    }
    if (status == STATUS_OK) status = gateway_keys_open(gateway, options, err);
    if (status == STATUS_OK) status = take_classes(gateway, options, err);
    if (status == STATUS_OK) status = open_cluster(gateway, options, err);
    if (status == STATUS_OK) status = open_elastic(gateway);
    if (status == STATUS_OK) status = open_copies(gateway);
    if (status == STATUS_OK) status = open_http(gateway, options, err);
    if (status != STATUS_OK) {
        gateway_destroy(gateway);
        return status;
    }
    /* Texts of the caller are not kept. */
    gateway->options.address = NULL;
    gateway->options.slo_classes = NULL;
    gateway->options.master = NULL;
    gateway->options.secret = NULL;
    gateway->options.api_keys = NULL;
    gateway->options.model_path = NULL;
    gateway->options.served_name = NULL;
    gateway->options.chat_template = NULL;
    gateway->options.profile_path = NULL;
    env_timer_set(env, &gateway->profile_timer,
                  env_now_ns(env) + gateway->options.profile_ms * ENV_NS_PER_MS);
    LOG_INFO("gateway", "listening", "port=%u model=%s context=%u template=%s",
             gateway_port(gateway), gateway->served_name, gateway->context_max,
             chat_name(gateway->chat));
    *out = gateway;
    return STATUS_OK;
}

void gateway_leave(struct gateway *gateway)
{
    if (gateway->leaving) return;
    gateway->leaving = true;
    http_server_leave(gateway->http);
    LOG_INFO("gateway", "leaving", "requests=%u", gateway->requests_count);
}

void gateway_drain(struct gateway *gateway)
{
    if (gateway->draining) return;
    gateway_leave(gateway);
    gateway->draining = true;
    on_recorded(gateway);
    http_server_drain(gateway->http);
    LOG_INFO("gateway", "draining", "requests=%u", gateway->requests_count);
}

bool gateway_idle(const struct gateway *gateway)
{
    return gateway->requests == NULL && gateway->besides == NULL &&
           (!gateway->draining || http_server_connections(gateway->http) == 0);
}

void gateway_destroy(struct gateway *gateway)
{
    if (gateway == NULL) return;
    if (gateway->cluster != NULL) {
        beside_end_all(gateway);
        request_end_all(gateway);
        save_profile(gateway);
    }
    on_recorded(gateway);
    http_server_destroy(gateway->http);
    elastic_stop(gateway->elastic);
    copies_stop(gateway->copies);
    cluster_destroy(gateway->cluster);
    elastic_destroy(gateway->elastic);
    copies_destroy(gateway->copies);
    attempt_end_all(gateway);
    env_timer_cancel(gateway->env, &gateway->pump_timer);
    env_timer_cancel(gateway->env, &gateway->profile_timer);
    gateway_metrics_destroy(gateway->metrics);
    tenants_destroy(gateway->tenants);
    free(gateway->keys_path);
    chat_destroy(gateway->chat);
    tokenizer_destroy(gateway->tokenizer);
    model_destroy(gateway->model);
    free(gateway);
}

void gateway_set_identity(struct gateway *gateway, const struct tls_identity *identity)
{
    http_server_set_identity(gateway->http, identity);
}

uint16_t gateway_port(const struct gateway *gateway)
{
    return http_server_port(gateway->http);
}

bool gateway_is_ready(const struct gateway *gateway)
{
    return !gateway->leaving && cluster_count_up(gateway->cluster, PROTO_ROLE_PREFILL) > 0 &&
           cluster_count_up(gateway->cluster, PROTO_ROLE_DECODE) > 0;
}
