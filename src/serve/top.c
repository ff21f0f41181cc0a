/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/top.c - reading the pages. Of /metrics only the few series below are looked at, by their
 * names and labels as serve/gateway_metrics.c writes them. */
#include "serve/top.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "serve/api_json.h"

enum { LINE_SIZE = 512 };

/* ---- metrics ---- */

struct series {
    const char *name;
    const char *label; /* has to be among the labels; NULL: any */
    size_t offset;     /* of a double in struct top_look, which the value is added to */
};

#define FIELD(field) offsetof(struct top_look, field)

static const struct series SERIES[] = {
    { "vllm:num_requests_running", NULL, FIELD(running) },
    { "vllm:num_requests_waiting", NULL, FIELD(waiting) },
    { "vllm:prompt_tokens_total", NULL, FIELD(prompt_tokens) },
    { "vllm:generation_tokens_total", NULL, FIELD(answer_tokens) },
    { "vllm:request_success_total", "finished_reason=\"stop\"", FIELD(answered) },
    { "vllm:request_success_total", "finished_reason=\"length\"", FIELD(answered) },
    { "vllm:request_success_total", "finished_reason=\"tool_calls\"", FIELD(answered) },
    { "vllm:request_success_total", "finished_reason=\"error\"", FIELD(failed) },
    { "vllm:admission_rejections_total", NULL, FIELD(refused) },
    { "yolk_gateway_tenant_limited_total", NULL, FIELD(limited) },
    { "vllm:prefix_cache_queries_total", NULL, FIELD(looked_up) },
    { "vllm:prefix_cache_hits_total", NULL, FIELD(found) },
    { "yolk_gateway_cached_tokens_total", "tier=\"local\"", FIELD(local) },
    { "yolk_gateway_cached_tokens_total", "tier=\"remote\"", FIELD(remote) },
    { "yolk_gateway_cached_tokens_total", "tier=\"disk\"", FIELD(disk) },
    { "vllm:request_prefill_kv_computed_tokens_sum", NULL, FIELD(computed) },
    { "yolk_cluster_pages_total", NULL, FIELD(pages_total) },
    { "yolk_cluster_pages_used", NULL, FIELD(pages_used) },
    { "yolk_conductor_limit_seconds", "stage=\"ttft\"", FIELD(ttft_limit) },
    { "yolk_conductor_limit_seconds", "stage=\"tbt\"", FIELD(tbt_limit) },
};

/* A line "name{labels} value" in its parts. */
struct sample {
    char text[LINE_SIZE];
    const char *name, *labels;
    double value;
};

static bool take_sample(const char *line, size_t len, struct sample *out)
{
    char *end = NULL;

    if (len == 0 || len >= sizeof(out->text) || line[0] == '#') return false;
    memcpy(out->text, line, len);
    out->text[len] = '\0';
    char *space = strrchr(out->text, ' ');
    if (space == NULL) return false;
    *space = '\0';
    out->value = strtod(space + 1, &end);
    if (end == space + 1 || !isfinite(out->value)) return false;
    char *brace = strchr(out->text, '{');
    out->name = out->text;
    out->labels = "";
    if (brace == NULL) return true;
    *brace = '\0';
    out->labels = brace + 1;
    return true;
}

/* The value of a label, cut to fit. */
static bool label_of(const struct sample *sample, const char *label, char *out, size_t size)
{
    const char *at = strstr(sample->labels, label);
    size_t len = 0;

    if (at == NULL) return false;
    at += strlen(label);
    while (at[len] != '"' && at[len] != '\0' && len + 1 < size)
        len++;
    memcpy(out, at, len);
    out[len] = '\0';
    return true;
}

static void take_bucket(const struct sample *sample, struct top_histogram *out)
{
    char bound[32];

    if (out->buckets == TOP_BUCKETS_MAX || !label_of(sample, "le=\"", bound, sizeof(bound))) return;
    const double value = strcmp(bound, "+Inf") == 0 ? INFINITY : strtod(bound, NULL);
    if (out->buckets > 0 && value <= out->bounds[out->buckets - 1]) return;
    out->bounds[out->buckets] = value;
    out->counts[out->buckets++] = sample->value;
}

static void take(const struct sample *sample, struct top_look *out)
{
    for (size_t i = 0; i < sizeof(SERIES) / sizeof(SERIES[0]); i++) {
        if (strcmp(sample->name, SERIES[i].name) != 0) continue;
        if (SERIES[i].label != NULL && strstr(sample->labels, SERIES[i].label) == NULL) continue;
        double *field = (double *)(void *)((char *)out + SERIES[i].offset);
        *field += sample->value;
        (void)label_of(sample, "model_name=\"", out->model, sizeof(out->model));
    }
    if (strcmp(sample->name, "vllm:time_to_first_token_seconds_bucket") == 0)
        take_bucket(sample, &out->ttft);
    if (strcmp(sample->name, "vllm:inter_token_latency_seconds_bucket") == 0)
        take_bucket(sample, &out->tbt);
}

enum status top_read_metrics(const char *text, size_t len, struct top_look *out)
{
    struct sample sample;

    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        const size_t size = end != NULL ? (size_t)(end - text) - at : len - at;
        if (take_sample(text + at, size, &sample)) take(&sample, out);
        at += size + 1;
    }
    return out->model[0] != '\0' ? STATUS_OK : STATUS_INVALID;
}

/* ---- percentiles ---- */

/* What was counted up to bucket i since then, whose page had the same buckets, or none. */
static double counted(const struct top_histogram *then, const struct top_histogram *now, uint32_t i)
{
    const double before = then->buckets == now->buckets ? then->counts[i] : 0;
    return now->counts[i] > before ? now->counts[i] - before : 0;
}

double top_quantile(const struct top_histogram *then, const struct top_histogram *now, double q)
{
    const double all = now->buckets > 0 ? counted(then, now, now->buckets - 1) : 0;
    double low = 0, below = 0;

    if (!(all > 0)) return -1;
    for (uint32_t i = 0; i < now->buckets; i++) {
        const double count = counted(then, now, i);
        if (count >= q * all && count > below) {
            if (!isfinite(now->bounds[i])) return low;
            return low + (now->bounds[i] - low) * (q * all - below) / (count - below);
        }
        below = count;
        low = isfinite(now->bounds[i]) ? now->bounds[i] : low;
    }
    return low;
}

/* ---- nodes ---- */

static void take_text(const struct json_value *node, const char *name, char out[TOP_NAME_SIZE])
{
    const struct json_value *value = api_json_member(node, name);
    size_t len = 0;

    if (value == NULL || api_json_type_of(value) != JSON_TYPE_STRING) return;
    const char *text = api_json_str(value, &len);
    snprintf(out, TOP_NAME_SIZE, "%s", text);
    for (char *c = out; *c; c++) /* for a terminal */
        if (*c < ' ' || *c > '~') *c = '?';
}

static uint32_t number_of(const struct json_value *node, const char *name)
{
    const struct json_value *value = api_json_member(node, name);

    if (value == NULL || api_json_type_of(value) != JSON_TYPE_INTEGER) return 0;
    const int64_t number = api_json_int(value);
    return number > 0 && number < UINT32_MAX ? (uint32_t)number : 0;
}

static bool flag_of(const struct json_value *node, const char *name)
{
    const struct json_value *value = api_json_member(node, name);
    return value != NULL && api_json_type_of(value) == JSON_TYPE_BOOL && api_json_bool(value);
}

static void take_node(const struct json_value *value, struct top_look *out)
{
    struct top_node node = {
        .works = flag_of(value, "works"),
        .leaving = flag_of(value, "leaving"),
        .draining = flag_of(value, "draining"),
        .queued = number_of(value, "queued"),
        .running = number_of(value, "running"),
        .decoding = number_of(value, "decoding"),
        .at_door = number_of(value, "at_door"),
        .pages_total = number_of(value, "pages_total"),
        .pages_free = number_of(value, "pages_free"),
        .pages_cached = number_of(value, "pages_cached"),
    };

    take_text(value, "name", node.name);
    take_text(value, "role", node.role);
    take_text(value, "state", node.state);
    if (node.works) out->nodes_up++;
    if (out->nodes_count < TOP_NODES_MAX) {
        out->nodes[out->nodes_count++] = node;
    } else {
        out->nodes_more++;
    }
}

static int rank_of(const struct top_node *node)
{
    return strcmp(node->role, "prefill") == 0 ? 0 : strcmp(node->role, "decode") == 0 ? 1 : 2;
}

/* Prefill, decode, others; by name. */
static int compare_nodes(const void *left, const void *right)
{
    const struct top_node *a = left, *b = right;
    return rank_of(a) != rank_of(b) ? rank_of(a) - rank_of(b) : strcmp(a->name, b->name);
}

enum status top_read_nodes(const char *text, size_t len, struct top_look *out, struct errmsg *err)
{
    struct json_doc *doc = NULL;
    const struct json_value *nodes = NULL;

    const enum status status = api_json_parse(text, len, &doc, err);
    if (status != STATUS_OK) return status;
    if (api_json_type_of(api_json_root(doc)) == JSON_TYPE_OBJECT)
        nodes = api_json_member(api_json_root(doc), "nodes");
    const bool good = nodes != NULL && api_json_type_of(nodes) == JSON_TYPE_ARRAY;
    for (size_t i = 0; good && i < api_json_len(nodes); i++) {
        const struct json_value *node = api_json_at(nodes, i);
        if (api_json_type_of(node) == JSON_TYPE_OBJECT) take_node(node, out);
    }
    qsort(out->nodes, out->nodes_count, sizeof(out->nodes[0]), compare_nodes);
    api_json_destroy(doc);
    return good ? STATUS_OK : errmsg_set(err, STATUS_INVALID, "there is no list of nodes");
}
