/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/top.h - a cluster at a glance: what a gateway's /metrics and /debug/nodes say, and how that
 * looks in a terminal, in a pipe, and as JSON. Pure; `yolk top` fetches the pages and prints.
 *
 * Two looks at different times make rates, and percentiles of what happened between them; a look
 * beside an empty one (all zero) makes those since the gateway's start.
 *
 * Memory:  values; nothing allocates but the buffer that is written to.
 * Threads: any, one at a time.
 * Limits:  TOP_NODES_MAX nodes are kept, and more are counted. */
#ifndef SERVE_TOP_H
#define SERVE_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

enum {
    TOP_NODES_MAX = 64,
    TOP_BUCKETS_MAX = 32,
    TOP_NAME_SIZE = 64,
    TOP_WIDTH_MIN = 60,
    TOP_TREND_MAX = 60,
};

struct top_histogram {
    double bounds[TOP_BUCKETS_MAX]; /* rising; the last one may be infinite */
    double counts[TOP_BUCKETS_MAX]; /* up to that bound */
    uint32_t buckets;
};

struct top_node {
    char name[TOP_NAME_SIZE], role[TOP_NAME_SIZE], state[TOP_NAME_SIZE];
    bool works, leaving, draining;
    uint32_t queued, running, decoding, at_door, pages_total, pages_free, pages_cached;
};

/* Numbers that the page does not have are 0. */
struct top_look {
    uint64_t at_ns; /* the caller's */
    char model[TOP_NAME_SIZE];
    double running, waiting;                   /* requests */
    double answered, refused, limited, failed; /* likewise, counted up */
    double prompt_tokens, answer_tokens;
    double looked_up, found;              /* tokens of prompts */
    double computed, local, remote, disk; /* likewise, by where they came from */
    double pages_total, pages_used;       /* of all nodes */
    double ttft_limit, tbt_limit;         /* seconds; 0: none */
    struct top_histogram ttft, tbt;       /* seconds */
    struct top_node nodes[TOP_NODES_MAX];
    uint32_t nodes_count, nodes_up, nodes_more; /* kept, at work, and not kept */
};

/* Each adds what its page says. STATUS_INVALID: that is no such page. */
MUST_USE enum status top_read_metrics(const char *text, size_t len, struct top_look *out);
MUST_USE enum status top_read_nodes(const char *text, size_t len, struct top_look *out,
                                    struct errmsg *err);

/* The value that the share q of what was counted between the looks does not exceed, evenly spread
 * within a bucket; negative if nothing was. */
double top_quantile(const struct top_histogram *then, const struct top_histogram *now, double q);

struct top_screen {
    const char *url;
    uint32_t width; /* columns, at least TOP_WIDTH_MIN */
    bool colour;    /* and bars: a terminal */
    const struct top_look *then, *now;
    double trend[TOP_TREND_MAX]; /* tokens a second, oldest first; for a terminal */
    uint32_t trend_count;
};

/* Lines of at most `width` columns, each ended by \n. STATUS_FULL as buf_append(). */
MUST_USE enum status top_draw(const struct top_screen *screen, struct buf *out);

/* One JSON object and a line's end. */
MUST_USE enum status top_write_json(const struct top_look *then, const struct top_look *now,
                                    struct buf *out);

#endif
