/* SPDX-License-Identifier: Apache-2.0
 *
 * base/metrics.c - the registry, and the page that Prometheus scrapes.
 *
 * A value is a double kept as its bits in a relaxed atomic. One thread writes a series, so an
 * addition is a load and a store, without a locked instruction; the renderer reads whole doubles.
 *
 * A histogram's series has one count a bucket, not cumulative, so that an observation touches one
 * of them; the page adds them up. */
#include "base/metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/utf8.h"

const double metrics_latency_bounds[METRICS_LATENCY_BOUNDS] = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
};

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct series {
    const struct metric *metric;
    char values[METRICS_LABELS_MAX][METRICS_VALUE_LEN_MAX + 1];
    _Atomic uint64_t value; /* bits of a double: the value; a histogram's sum */
    /* A histogram's: observations up to each bound, and above all. Written by the series' thread.
     */
    _Atomic uint64_t buckets[METRICS_BUCKETS_MAX + 1];
};

struct metric {
    enum metric_type type;
    const char *name, *help;
    const char *const *labels;
    uint32_t labels_count;
    const double *bounds;
    uint32_t bounds_count;
    struct series **series;
    uint32_t series_count; /* the last may be the one for all others: METRICS_SERIES_MAX + 1 */
};

struct metrics {
    struct metric metrics[METRICS_MAX];
    uint32_t count;
};

/* ---- the registry ---- */

struct metrics *metrics_create(void)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    ASSERT(metrics != NULL);
    return metrics;
}

void metrics_destroy(struct metrics *metrics)
{
    if (metrics == NULL) return;
    for (uint32_t i = 0; i < metrics->count; i++) {
        struct metric *metric = &metrics->metrics[i];
        for (uint32_t j = 0; j < metric->series_count; j++)
            free(metric->series[j]);
        free(metric->series);
    }
    free(metrics);
}

static bool is_name(const char *name)
{
    if (!isalpha((unsigned char)name[0]) && name[0] != '_') return false;
    for (const char *c = name; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '_' && *c != ':') return false;
    }
    return true;
}

static uint32_t count_labels(const char *const *labels)
{
    uint32_t count = 0;

    while (labels != NULL && labels[count] != NULL) {
        ASSERT(is_name(labels[count]));
        count++;
    }
    ASSERT(count <= METRICS_LABELS_MAX);
    return count;
}

static struct metric *add_metric(struct metrics *metrics, const struct metric *like)
{
    ASSERT(metrics->count < METRICS_MAX);
    ASSERT(is_name(like->name));
    for (uint32_t i = 0; i < metrics->count; i++)
        ASSERT(strcmp(metrics->metrics[i].name, like->name) != 0);
    struct metric *metric = &metrics->metrics[metrics->count++];
    *metric = *like;
    metric->labels_count = count_labels(like->labels);
    metric->series = calloc(METRICS_SERIES_MAX + 1, sizeof(struct series *));
    ASSERT(metric->series != NULL);
    return metric;
}

struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *help,
                               const char *const *labels)
{
    const struct metric like = {
        .type = METRIC_COUNTER, .name = name, .help = help, .labels = labels
    };
    return add_metric(metrics, &like);
}

struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *help,
                             const char *const *labels)
{
    const struct metric like = {
        .type = METRIC_GAUGE, .name = name, .help = help, .labels = labels
    };
    return add_metric(metrics, &like);
}

struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                                 const char *const *labels, const double *bounds, uint32_t count)
{
    const struct metric like = { .type = METRIC_HISTOGRAM,
                                 .name = name,
                                 .help = help,
                                 .labels = labels,
                                 .bounds = bounds,
                                 .bounds_count = count };
    ASSERT(count >= 1 && count <= METRICS_BUCKETS_MAX);
    for (uint32_t i = 1; i < count; i++)
        ASSERT(bounds[i - 1] < bounds[i]);
    return add_metric(metrics, &like);
}

/* ---- series ---- */

static void clean_value(const char *value, char out[METRICS_VALUE_LEN_MAX + 1])
{
    size_t len = 0;

    for (; value[len] != '\0' && len < METRICS_VALUE_LEN_MAX; len++) {
        const unsigned char c = (unsigned char)value[len];
        out[len] = c < ' ' || c == 0x7f ? '_' : (char)c;
    }
    /* Not in the middle of a UTF-8 sequence, and nothing else that is none: the page must stay
     * valid, or whoever scrapes it throws all of it away. */
    while (value[len] != '\0' && len > 0 && ((unsigned char)value[len] & 0xc0) == 0x80)
        len--;
    for (size_t valid; (valid = utf8_valid_prefix(out, len)) < len;)
        out[valid] = '_';
    memset(out + len, 0, METRICS_VALUE_LEN_MAX + 1 - len);
}

static struct series *find_series(const struct metric *metric, const struct series *like)
{
    for (uint32_t i = 0; i < metric->series_count; i++) {
        if (memcmp(metric->series[i]->values, like->values, sizeof(like->values)) == 0)
            return metric->series[i];
    }
    return NULL;
}

static struct series *add_series(struct metric *metric, const struct series *like)
{
    struct series *series = calloc(1, sizeof(*series));

    ASSERT(series != NULL);
    ASSERT(metric->series_count <= METRICS_SERIES_MAX);
    series->metric = metric;
    memcpy(series->values, like->values, sizeof(series->values));
    metric->series[metric->series_count++] = series;
    return series;
}

struct series *metrics_series(struct metric *metric, const char *const *values)
{
    struct series like = { 0 };
    uint32_t count = 0;

    while (values != NULL && values[count] != NULL) {
        ASSERT(count < metric->labels_count);
        clean_value(values[count], like.values[count]);
        count++;
    }
    ASSERT(count == metric->labels_count);
    struct series *series = find_series(metric, &like);
    if (series != NULL) return series;
    if (metric->series_count < METRICS_SERIES_MAX) return add_series(metric, &like);
    for (uint32_t i = 0; i < count; i++)
        clean_value("other", like.values[i]);
    series = find_series(metric, &like);
    return series != NULL ? series : add_series(metric, &like);
}

struct series *metrics_only(struct metric *metric)
{
    ASSERT(metric->labels_count == 0);
    return metrics_series(metric, NULL);
}

static double load(const _Atomic uint64_t *bits)
{
    const uint64_t raw = atomic_load_explicit(bits, memory_order_relaxed);
    double value;
    memcpy(&value, &raw, sizeof(value));
    return value;
}

static void store(_Atomic uint64_t *bits, double value)
{
    uint64_t raw;
    memcpy(&raw, &value, sizeof(raw));
    atomic_store_explicit(bits, raw, memory_order_relaxed);
}

void series_add(struct series *series, double amount)
{
    ASSERT(series->metric->type != METRIC_HISTOGRAM);
    ASSERT(series->metric->type == METRIC_GAUGE || amount >= 0);
    store(&series->value, load(&series->value) + amount);
}

void series_set(struct series *series, double value)
{
    ASSERT(series->metric->type == METRIC_GAUGE);
    store(&series->value, value);
}

void series_observe(struct series *series, double value)
{
    const struct metric *metric = series->metric;
    uint32_t bucket = 0;

    ASSERT(metric->type == METRIC_HISTOGRAM);
    ASSERT(!isnan(value));
    while (bucket < metric->bounds_count && value > metric->bounds[bucket])
        bucket++;
    _Atomic uint64_t *count = &series->buckets[bucket];
    const uint64_t before = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, before + 1, memory_order_relaxed);
    store(&series->value, load(&series->value) + value);
}

static uint64_t observations(const struct series *series, uint32_t buckets)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < buckets; i++)
        sum += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
    return sum;
}

double series_value(const struct series *series)
{
    const struct metric *metric = series->metric;
    if (metric->type != METRIC_HISTOGRAM) return load(&series->value);
    return (double)observations(series, metric->bounds_count + 1);
}

/* ---- the page ---- */

/* A writer that remembers the first failure, so that rendering reads straight through. */
struct page {
    struct buf *out;
    enum status status;
};

static void put(struct page *page, const char *text)
{
    if (page->status == STATUS_OK) page->status = buf_append_text(page->out, text);
}

static void put_escaped(struct page *page, const char *text, bool quotes)
{
    for (const char *c = text; *c != '\0' && page->status == STATUS_OK; c++) {
        if (*c == '\\') {
            put(page, "\\\\");
        } else if (*c == '\n') {
            put(page, "\\n");
        } else if (*c == '"' && quotes) {
            put(page, "\\\"");
        } else {
            page->status = buf_append(page->out, c, 1);
        }
    }
}

static void put_number(struct page *page, double value)
{
    char text[40];

    if (isnan(value)) {
        put(page, "NaN");
    } else if (isinf(value)) {
        put(page, value > 0 ? "+Inf" : "-Inf");
    } else {
        snprintf(text, sizeof(text), "%.15g", value);
        put(page, text);
    }
}

/* name_suffix{label="value",le="bound"} ; bound NULL: none. */
static void put_series_name(struct page *page, const struct series *series, const char *suffix,
                            const double *bound)
{
    const struct metric *metric = series->metric;
    const char *separator = "{";

    put(page, metric->name);
    put(page, suffix);
    for (uint32_t i = 0; i < metric->labels_count; i++) {
        put(page, separator);
        put(page, metric->labels[i]);
        put(page, "=\"");
        put_escaped(page, series->values[i], true);
        put(page, "\"");
        separator = ",";
    }
    if (bound != NULL) {
        put(page, separator);
        put(page, "le=\"");
        put_number(page, *bound);
        put(page, "\"");
        separator = ",";
    }
    put(page, separator[0] == ',' ? "} " : " ");
}

static void put_line(struct page *page, const struct series *series, const char *suffix,
                     const double *bound, double value)
{
    put_series_name(page, series, suffix, bound);
    put_number(page, value);
    put(page, "\n");
}

static void put_histogram(struct page *page, const struct series *series)
{
    const struct metric *metric = series->metric;
    const double infinity = HUGE_VAL;

    for (uint32_t i = 0; i <= metric->bounds_count; i++) {
        const double *bound = i < metric->bounds_count ? &metric->bounds[i] : &infinity;
        put_line(page, series, "_bucket", bound, (double)observations(series, i + 1));
    }
    put_line(page, series, "_sum", NULL, load(&series->value));
    put_line(page, series, "_count", NULL, series_value(series));
}

static void put_metric(struct page *page, const struct metric *metric)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };

    put(page, "# HELP ");
    put(page, metric->name);
    put(page, " ");
    put_escaped(page, metric->help, false);
    put(page, "\n# TYPE ");
    put(page, metric->name);
    put(page, " ");
    put(page, types[metric->type]);
    put(page, "\n");
    for (uint32_t i = 0; i < metric->series_count; i++) {
        const struct series *series = metric->series[i];
        if (metric->type == METRIC_HISTOGRAM) {
            put_histogram(page, series);
        } else {
            put_line(page, series, "", NULL, load(&series->value));
        }
    }
}

enum status metrics_render(const struct metrics *metrics, struct buf *out)
{
    struct page page = { out, STATUS_OK };

    for (uint32_t i = 0; i < metrics->count; i++)
        put_metric(&page, &metrics->metrics[i]);
    return page.status;
}
