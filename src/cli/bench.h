/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench.h - the benches of `yolk bench`, and what they share: a child to measure, a request to
 * wait for.
 *
 * Threads: one; each call turns the command's env until it has its answer. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"
#include "cli/cli.h"

struct report;

enum { BENCH_RUNS = 5 };

MUST_USE enum status bench_engine(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_serve(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_gateway(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_conductor(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_sim(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_store(struct cli *cli, struct report *report, struct errmsg *err);
MUST_USE enum status bench_transfer(struct cli *cli, struct report *report, struct errmsg *err);
/* The other host of a transfer bench, at --listen, until a signal. */
MUST_USE enum status bench_transfer_serve(struct cli *cli, struct errmsg *err);

/* Was this row asked for? ROWS, the second word of the command, is a part of its name or absent. */
bool bench_asked(const struct cli *cli, const char *name);

/* ---- a child of ours ---- */

struct bench_child {
    struct env *env;
    struct env_process *process; /* NULL when it has ended */
};

/* Starts this binary with `args` (ended by NULL, without the program). */
MUST_USE enum status bench_spawn(struct cli *cli, struct bench_child *child,
                                 const char *const args[], struct errmsg *err);
/* SIGTERM, and waits. */
void bench_end(struct bench_child *child);

/* Process ids of the children of `parent`; at most count_max. */
uint32_t bench_children(struct cli *cli, pid_t parent, pid_t *out, uint32_t count_max);

/* A line of /proc/<pid>/status in bytes, such as "VmRSS" or "RssShmem"; 0 if it cannot be read. */
uint64_t bench_memory(struct cli *cli, pid_t pid, const char *field);

/* ---- a request ---- */

struct bench_answer {
    enum status status;
    int code;
    uint64_t first_ns; /* from the request until the first bytes of the body */
    uint64_t total_ns;
    size_t len;
    char body[64 << 10]; /* what fits, NUL-terminated */
};

/* GET when body is NULL, POST of JSON otherwise. Fails only through out->status. */
void bench_request(struct cli *cli, const char *address, const char *path, const char *body,
                   struct bench_answer *out);

/* Polls path until it answers 200; STATUS_TIMEOUT after the given time. */
MUST_USE enum status bench_wait_ok(struct cli *cli, const char *address, const char *path,
                                   uint64_t timeout_ns);

/* A port that was free a moment ago. */
MUST_USE enum status bench_free_port(struct cli *cli, uint16_t *out);

#endif
