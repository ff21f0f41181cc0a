/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store.h - the parts of `yolk bench store`: the disk tiers (bench_store.c, of values
 * bench_store_values.c), the directory (bench_store_meta.c), values (bench_store_data.c), a master
 * that is killed (bench_store_restart.c); the loads they are measured under, which are processes of
 * their own (bench_store_load.c); and a node that lends memory that is not there
 * (bench_store_node.c), so that the directory can be measured by itself.
 *
 * Threads: one, but for the loads, which say. */
#ifndef CLI_BENCH_STORE_H
#define CLI_BENCH_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/cli.h"

struct env;
struct report;

enum {
    BENCH_STORE_KEY_SIZE = 40,
    BENCH_STORE_BATCH = 128,
    BENCH_STORE_THREADS = 8,
    BENCH_STORE_VALUE_SIZE = 4096, /* of values that are only named */
    BENCH_STORE_ECHO_SIZE = 112,   /* as long as an exist of one key on the wire */
};

/* Key `number` of those that loads of this `space` put. */
void bench_store_key(uint8_t out[BENCH_STORE_KEY_SIZE], uint32_t space, uint64_t number);

/* ---- the parts ---- */

/* Which rows: all, or those whose name contains `only`; `brief` takes a fraction of the time, and
 * its figures mean little. */
struct bench_store_choice {
    const char *only; /* NULL: all */
    bool brief;
};
bool bench_store_wanted(const struct bench_store_choice *choice, const char *name);

MUST_USE enum status bench_store_meta(struct cli *cli, const struct bench_store_choice *choice,
                                      struct report *report, struct errmsg *err);
MUST_USE enum status bench_store_data(struct cli *cli, const struct bench_store_choice *choice,
                                      struct report *report, struct errmsg *err);

MUST_USE enum status bench_store_restart(struct cli *cli, const struct bench_store_choice *choice,
                                         struct report *report, struct errmsg *err);

/* ---- values on a disk ---- */

enum {
    BENCH_STORE_DISK_SIZE = 1 << 20, /* bytes of a block, and of a value */
    BENCH_STORE_DISK_DEPTH = 8,      /* reads on their way */
};

/* What blocks, values and the bare disk have in common. */
struct bench_store_disk {
    struct env *env;
    const char *directory;
    uint32_t count;       /* how many are written, and read */
    uint64_t size_max;    /* bytes of disk: more than they take */
    const uint8_t *block; /* what is written, always the same */
    uint8_t *data;        /* BENCH_STORE_DISK_DEPTH blocks, to read into */
};

/* MiB/s; what it writes stays in the directory. STATUS_IO: the disk failed. */
MUST_USE enum status bench_store_values(const struct bench_store_disk *disk, double *write,
                                        double *read, struct errmsg *err);

/* ---- loads ---- */

/* Runs until it is killed, or until `count` keys are put by a load that fills; `space` is whose
 * keys. STATUS_INVALID for a name that is no load's. */
MUST_USE enum status bench_store_load(struct cli *cli, const char *name, struct errmsg *err);

/* The load that is a node: it lends so many MiB of real memory until it is killed. `directory`: of
 * the disk below them; "": none. */
MUST_USE enum status bench_store_own(struct cli *cli, const char *master, uint32_t mib, bool tcp,
                                     const char *directory, struct errmsg *err);

/* ---- a node that lends nothing ---- */

#define BENCH_STORE_NODE_NAME "bench"
#define BENCH_STORE_LENT (UINT64_C(1) << 40) /* bytes: nothing is ever evicted */
enum { BENCH_STORE_NODE_EPOCH = 77 };

struct bench_store_node; /* opaque */

/* Registers with the master, lends it `size` bytes, and drops whatever it is asked to drop, at
 * once. It lives as long as the loop turns. */
MUST_USE enum status bench_store_node_open(struct env *env, const char *master, uint64_t size,
                                           struct bench_store_node **out, struct errmsg *err);
/* The master has heard what it lends: puts find room. */
bool bench_store_node_ready(const struct bench_store_node *node);
void bench_store_node_close(struct bench_store_node *node); /* NULL is allowed */

#endif
