/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/fair.h - who is next among tenants: start-time fair queueing, in tokens.
 *
 * A request gets a stamp when it arrives, and waits in the order of stamps. The stamp is where its
 * tenant's work so far ends in virtual time, or the present, whichever is later; the present is
 * the latest stamp that has been served. So a tenant's requests stand one behind the other, as far
 * apart as they have tokens, and tenants stand beside each other: one that asks for much waits
 * behind its own requests, not in front of everybody else's. A tenant that was idle starts at the
 * present: it neither saved anything up nor owes anything. With one tenant it is first come, first
 * served.
 *
 * How far apart service gets: of two tenants that both have requests waiting, neither is served
 * more than the two longest requests, one of each, ahead of the other.
 *
 * Memory:  a value. Threads: belongs to one thread at a time.
 * Limits:  FAIR_TENANTS tenants with work ahead of the present; further ones share with others. */
#ifndef CONDUCTOR_FAIR_H
#define CONDUCTOR_FAIR_H

#include <stdint.h>

enum { FAIR_TENANTS = 128 };

struct fair {
    uint64_t now; /* the latest stamp served */
    struct {
        uint64_t tenant;
        uint64_t end; /* of its work so far; up to `now`: the slot is free */
    } slots[FAIR_TENANTS];
};

/* `tenant` is any number that tells tenants apart, such as a hash of the name. */
uint64_t fair_stamp(struct fair *fair, uint64_t tenant, uint32_t tokens);

/* A request with this stamp is served. */
void fair_served(struct fair *fair, uint64_t stamp);

#endif
