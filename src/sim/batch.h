/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/batch.h - a continuous batch: sequences that get one token each with every step.
 *
 * All members of a batch share its steps, so that a step costs the same whatever its size: the ends
 * of the latest steps are kept in a ring, and a sequence is the step it joined at and the step it
 * will be done with. The time between its tokens is read from the ring when it leaves.
 *
 * Memory:  fixed at creation.
 * Threads: one. */
#ifndef SIM_BATCH_H
#define SIM_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct batch_member {
    uint32_t who;      /* the caller's */
    uint32_t context;  /* tokens when it joined */
    uint64_t first_ns; /* when it had its first token, before its first step */
    uint64_t joined;   /* steps done before */
    uint64_t done;     /* steps done when it leaves */
};

struct batch; /* opaque */

/* steps_max: the most tokens a member stays for. */
MUST_USE enum status batch_create(uint32_t members_max, uint32_t steps_max, struct batch **out);
void batch_destroy(struct batch *batch); /* NULL is allowed */

uint32_t batch_count(const struct batch *batch);
double batch_context(const struct batch *batch); /* tokens of all members now */

/* Members in no order: who, and how many steps it has had. */
uint32_t batch_who(const struct batch *batch, uint32_t index);
uint32_t batch_had(const struct batch *batch, uint32_t index);
uint64_t batch_steps(const struct batch *batch); /* done in all */

/* For `steps` steps, at least one. There is room: batch_count() < members_max. */
void batch_join(struct batch *batch, uint32_t who, uint32_t context, uint32_t steps,
                uint64_t first_ns);

/* Everybody has one token more. */
void batch_step(struct batch *batch, uint64_t now_ns);

/* A member that has all its tokens leaves; false if there is none. */
bool batch_leave(struct batch *batch, struct batch_member *out);

/* Any member leaves as it is: its `done` is what the batch has done. False if there is none. */
bool batch_drop(struct batch *batch, struct batch_member *out);

struct batch_intervals {
    double mean_ms;
    double longest_ms; /* mean of the longest tenth of the intervals, at least one */
};

/* Of a member that has left since the latest step. */
struct batch_intervals batch_measure(struct batch *batch, const struct batch_member *member);

/* The times between its tokens, ns, and how many; out has room for done - joined. */
uint32_t batch_read(const struct batch *batch, const struct batch_member *member, uint64_t *out);
/* When it had its latest token. */
uint64_t batch_latest_ns(const struct batch *batch, const struct batch_member *member);
/* Of intervals from anywhere, at least one; it changes their order. */
struct batch_intervals batch_summary(uint64_t *intervals, uint32_t count);

#endif
