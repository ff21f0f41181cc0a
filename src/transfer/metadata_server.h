/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_server.h - a small metadata server over HTTP, for engines that should find each
 * other by name where no etcd or Redis is at hand.
 *
 *   GET    /metadata?key=K                                      200 with the value; 404
 *   PUT    /metadata?key=K[&owner=O][&ttl_ms=N][&keep=1]        200; 409, 413, 507, 500
 *   DELETE /metadata?key=K[&owner=O]                            200; 404, 409, 500
 *   GET    /health, /metrics                                    200
 *
 * Without owner and ttl_ms a PUT replaces whatever is there and stays for ever, and a DELETE
 * removes it: what clients of other engines send. With an owner a DELETE, or a PUT with keep, of
 * another owner's entry is 409.
 *
 * State file. A PUT or DELETE that changes something is answered when the file that says so has
 * replaced the one before; all that came in one turn of the loop share one file. A renewal changes
 * nothing. 500 says that it holds now and may not after a restart; it is tried again every second.
 * A file that is not whole is put aside as FILE.corrupt and the server starts empty: the owners
 * renew what they have within a third of its life.
 *
 * There is no authentication, as there is none in the protocol: whoever can reach the address can
 * change where a name leads, but not pass for an engine of a cluster that has a secret.
 *
 * Memory:  as the limits say; up to twice as much again while the file is written.
 * Threads: the env's. Limits: the options. */
#ifndef TRANSFER_METADATA_SERVER_H
#define TRANSFER_METADATA_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct metadata_server; /* opaque */

struct metadata_server_options {
    const char *listen;     /* "host:port" */
    const char *state_file; /* NULL or "": nothing survives a restart */
    uint32_t entries_max;   /* 0: 65536 */
    uint64_t size_max;      /* of keys, owners and values together; 0: 64 MiB */
};

/* env_listen()'s statuses, or those of a state file that cannot be read. */
MUST_USE enum status metadata_server_create(struct env *env,
                                            const struct metadata_server_options *options,
                                            struct metadata_server **out, struct errmsg *err);
void metadata_server_destroy(struct metadata_server *server); /* NULL is allowed */
uint16_t metadata_server_port(const struct metadata_server *server);
uint32_t metadata_server_entries(const struct metadata_server *server);

/* The value of `name` in a query such as "key=a%2Fb&ttl_ms=5", unescaped, with a NUL; "" when it is
 * not there. False if it does not fit, or its escapes make no sense. */
bool metadata_server_query(const char *query, const char *name, char *out, size_t size);

#endif
