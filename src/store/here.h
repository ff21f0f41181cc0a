/* SPDX-License-Identifier: Apache-2.0
 *
 * store/here.h - which nodes are on this host. Inside of a client.
 *
 * Memory of the same host is read where it lies, several times faster than over TCP, so a reader
 * takes the replica of its own host where it may choose. A node is here if its address is one of
 * those that this host had when the client began. Where nodes give names for addresses none is. */
#ifndef STORE_HERE_H
#define STORE_HERE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"

enum { HERE_MAX = 16 }; /* addresses; those that come after them are not known */

struct here {
    uint32_t count;
    char addresses[HERE_MAX][ENV_ADDRESS_SIZE];
};

void here_init(struct here *here, struct env *env);

/* `address` is "host:port", or "[host]:port". */
bool here_is(const struct here *here, const char *address);

#endif
