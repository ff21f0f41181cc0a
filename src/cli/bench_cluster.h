/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_cluster.h - a cluster of this machine's processes around an engine that takes a given
 * time, and many streams of answers at once from it: what benches of everything but the engine
 * need.
 *
 * Threads: one; each call turns the command's env until it has its answer.
 * Limits:  BENCH_NODES_MAX nodes, BENCH_STREAMS_MAX streams. */
#ifndef CLI_BENCH_CLUSTER_H
#define CLI_BENCH_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/bench.h"

enum { BENCH_NODES_MAX = 24, BENCH_STREAMS_MAX = 1024, BENCH_ADDRESS_SIZE = 64 };

struct bench_cluster {
    struct cli *cli;
    struct bench_child master, gateway;
    struct bench_child nodes[BENCH_NODES_MAX]; /* one that prefills, then those that decode */
    uint32_t nodes_count;
    char address[BENCH_ADDRESS_SIZE]; /* of the gateway */
};

/* One prefill node that takes no time, `decodes` decode nodes that take step_s for a step. */
MUST_USE enum status bench_cluster_start(struct bench_cluster *cluster, struct cli *cli,
                                         uint32_t decodes, double step_s, struct errmsg *err);
void bench_cluster_end(struct bench_cluster *cluster);

/* The cluster that a user starts, without a disk. */
struct bench_served {
    struct cli *cli;
    struct bench_child child; /* of `yolk serve`: bench_end() ends all */
    char address[BENCH_ADDRESS_SIZE];
};

/* Starts it, with some more options, ended by NULL; *ready_s is from before exec to the first 200
 * of /ready. */
MUST_USE enum status bench_served_start(struct bench_served *served, const char *const *more,
                                        double *ready_s, struct errmsg *err);

/* Seconds of a CPU that the process has used so far. */
double bench_cpu_s(struct cli *cli, pid_t pid);

/* One answer that streams. */
struct bench_stream {
    uint64_t asked_ns, first_ns, last_ns; /* 0: not yet */
    uint64_t gap_ns;                      /* the longest between two pieces */
    uint32_t pieces;
    uint64_t hash; /* of all that came, in order */
    bool done, good;
};

struct bench_streams {
    struct bench_cluster *cluster;
    uint32_t prompt_tokens, output_tokens; /* of each; the prompt's about, and each another */
    uint32_t count, at_once;
    struct bench_stream *streams; /* `count` of them, zero at first */
    uint32_t asked, begun, done;
};

/* Asks for more as others end, and turns the loop until all are done, or `until` (NULL: never) says
 * so; may be called again to go on. STATUS_IO if one ended otherwise than whole. */
MUST_USE enum status bench_streams_run(struct bench_streams *streams,
                                       bool (*until)(const struct bench_streams *streams),
                                       struct errmsg *err);

#endif
