/* SPDX-License-Identifier: Apache-2.0
 *
 * base/metrics.h - counters, gauges and histograms, and their page in Prometheus text format 0.0.4.
 *
 * A metric is registered once, at start-up, with its name, help and label names. A series is one
 * metric with one set of label values; look it up once and keep the pointer: changing it is then
 * one addition. Series live as long as the registry.
 *
 *     static const char *const labels[] = { "code", NULL };
 *     struct metric *requests = metrics_counter(metrics, "yolk_http_requests_total", "...",
 * labels); struct series *ok = metrics_series(requests, (const char *const[]){ "200", NULL });
 *     series_add(ok, 1);
 *
 * Threads: registering, looking up and rendering belong to one thread (the loop's). series_add(),
 *          series_set() and series_observe() may run on any one thread per series: values are
 * relaxed atomics, written by one thread, read by the renderer; each is right by itself, and a page
 *          may show one change without another made at the same time.
 * Limits:  METRICS_MAX metrics; METRICS_SERIES_MAX series a metric. Beyond it every new set of
 * label values is counted in one series whose values are "other": cardinality that a client can
 *          drive up must not cost memory. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdint.h>

#include "base/status.h"

struct buf;
struct metric;  /* opaque */
struct metrics; /* opaque: the registry */
struct series;  /* opaque */

enum {
    METRICS_MAX = 256,
    METRICS_LABELS_MAX = 4,
    METRICS_SERIES_MAX = 128,
    METRICS_BUCKETS_MAX = 32,
    METRICS_VALUE_LEN_MAX = 64, /* longer label values are cut */
};

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *metrics); /* NULL is allowed */

/* `labels`: names, NULL-terminated, or NULL for none. Name, help and labels are borrowed for ever.
 * A name that Prometheus does not allow, or twice, is a bug. */
struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *help,
                               const char *const *labels);
struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *help,
                             const char *const *labels);

/* `bounds`: ascending upper bounds, `count` of them, without infinity. */
struct metric *metrics_histogram(struct metrics *metrics, const char *name, const char *help,
                                 const char *const *labels, const double *bounds, uint32_t count);

/* The series with these label values, one for each label name, NULL-terminated; NULL if the metric
 * has no labels. Made, at zero, when it is new. Control characters in values become '_'. */
struct series *metrics_series(struct metric *metric, const char *const *values);

/* The one series of a metric without labels. */
struct series *metrics_only(struct metric *metric);

void series_add(struct series *series, double amount);    /* a counter's amount is not negative */
void series_set(struct series *series, double value);     /* gauges only */
void series_observe(struct series *series, double value); /* histograms only; NaN is a bug */
double series_value(const struct series *series); /* of a counter or gauge; a histogram's count */

/* Bounds in seconds that suit latencies from 1 ms to 60 s. */
enum { METRICS_LATENCY_BOUNDS = 15 };
extern const double metrics_latency_bounds[METRICS_LATENCY_BOUNDS];

/* Appends the whole page. */
MUST_USE enum status metrics_render(const struct metrics *metrics, struct buf *out);

#endif
