/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/roles.h - which instance should change its role, and when that is worth it.
 *
 * What a pool has to do is measured in instances' worth of work; its load is that over the number
 * of its instances, and 1 is full. The cluster is as good as its fuller pool. Moving one instance
 * from a to b gains
 *
 *     gain = max(loads now) - max(loads after)
 *
 * and costs half the time that the instance drains, since meanwhile it still works off what it has,
 * and a share of the window for what cannot be known: blocks that lie elsewhere afterwards, and
 * that it may have to come back. For each direction the
 * gain, less a margin, is added up over time, never below zero (a CUSUM test): a proposal is made
 * when what was lost by standing still exceeds what the flip costs. So a large imbalance is acted
 * upon soon and a small one late; and a demand that swings to and fro faster than a flip pays for
 * itself takes away again what it has added, and nothing flips.
 *
 *     STEADY -- evidence >= cost --> DRAINING -- drained --> STEADY in the other role
 *                                        +----- cancelled --> STEADY in the old one
 *
 * The caller keeps these states and says in each look which members drain. A draining member counts
 * where it goes, so that nothing is proposed twice.
 *
 * Guarantees
 *   G1  a proposal leaves at least one instance, not draining, in the pool it takes from.
 *   G2  an instance is proposed only when it has had its role for dwell_ms; but a pool that is
 *       empty because its instances have gone gets one at once, and one that never had any, whose
 *       instances may be starting still, after dwell_ms.
 *   G3  at most flips_max members drain at once.
 *
 * Memory:  a value; nothing is allocated. A look costs O(members).
 * Threads: belongs to whoever owns its storage. */
#ifndef CONDUCTOR_ROLES_H
#define CONDUCTOR_ROLES_H

#include <stdbool.h>
#include <stdint.h>

enum roles_pool { ROLES_PREFILL = 0, ROLES_DECODE = 1 };
enum { ROLES_POOLS = 2 };

struct roles_options {
    double window_ms;   /* demand is averaged over about so long; above 0 */
    double dwell_ms;    /* a role lasts at least so long; >= 0 */
    uint32_t flips_max; /* 0: a quarter of the members, at least one */
};

struct roles {
    struct roles_options options;
    double rate;    /* of prefill work, ms of it per ms: instances' worth */
    double rate_ms; /* when `rate` was right */
    double looked_ms;
    double evidence[ROLES_POOLS]; /* ms, for an instance more in this pool */
    double load[ROLES_POOLS];     /* of the latest look */
    bool known[ROLES_POOLS];      /* somebody has been seen there */
    double began_ms;              /* the first look with anybody in it */
};

/* One instance that is up and has one role. */
struct roles_member {
    uint32_t instance;
    enum roles_pool pool; /* where it is; draining: where it goes to */
    bool draining;
    double since_ms; /* in this role since */
    double drain_ms; /* predicted, until it would be free for another role */
};

struct roles_view {
    const struct roles_member *members;
    uint32_t members_count;
    double now_ms;
    /* In instances' worth. Backlog: work that waits, over the time it may wait. */
    double prefill_backlog, decode_need;
};

struct roles_proposal {
    uint32_t instance;
    enum roles_pool to;
    double load[ROLES_POOLS]; /* when it was made */
    double cost_ms;
};

void roles_init(struct roles *roles, const struct roles_options *options);

/* Prefill work that has been given to somebody. */
void roles_arrive(struct roles *roles, double work_ms, double now_ms);

/* Call it regularly, several times per window. True: *out is to be done, now. */
bool roles_look(struct roles *roles, const struct roles_view *view, struct roles_proposal *out);

#endif
