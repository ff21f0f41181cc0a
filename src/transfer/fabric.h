/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric.h - one-sided reads and writes through libfabric: verbs, EFA, Slingshot, and its
 * providers over sockets and shared memory.
 *
 * libfabric is loaded when the first fabric is opened and never unloaded; the program does not
 * depend on it. fabric_ofi.c is the one file that knows it. Where its headers were not there when
 * this was built, fabric_none.c takes its place and refuses with that reason.
 *
 *   fabric   a provider, found by name
 *   link     an endpoint of it with its own queue of completions, and one peer that it knows
 *   memory   a range that a link may read from or write to, or that its peer may
 *
 * Closing a link ends everything that goes through it: nothing of ours leaves any more, nothing
 * that comes lands any more, no completion is reported, and its memory is as if never registered.
 * That, not a key that is withdrawn, is how rights are taken away: the providers over sockets look
 * at a key once, when a message begins.
 *
 * Progress. Nothing moves by itself, at either end, unless fabric_link_poll() is called: when the
 * link's descriptor is readable, or, where there is none, again and again.
 *
 * Threads: a fabric, its links and memory belong to one thread; several fabrics may be used by
 *          several threads.
 * Limits:  those of the provider. A full queue is STATUS_AGAIN. */
#ifndef TRANSFER_FABRIC_H
#define TRANSFER_FABRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct fabric;
struct fabric_link;
struct fabric_memory;

enum { FABRIC_ADDRESS_SIZE = 192, FABRIC_NAME_SIZE = 64 };

/* `provider` as libfabric names them, "tcp;ofi_rxm", "shm", "verbs"; "": the best there is. `host`:
 * an address of ours, without a port, that links are bound to where the provider knows addresses;
 * NULL: its choice. STATUS_UNSUPPORTED, and err says what is missing. */
MUST_USE enum status fabric_open(const char *provider, const char *host, struct fabric **out,
                                 struct errmsg *err);
void fabric_close(struct fabric *fabric); /* NULL allowed; its links are closed already */

/* What the provider calls itself: "tcp;ofi_rxm". Both ends of a link must say the same. */
const char *fabric_provider(const struct fabric *fabric);

/* True if its links are bound to addresses of this host. */
bool fabric_knows_hosts(const struct fabric *fabric);

/* ---- links ---- */

/* STATUS_NO_MEMORY, STATUS_UNAVAILABLE. */
MUST_USE enum status fabric_link_open(struct fabric *fabric, struct fabric_link **out);
void fabric_link_close(struct fabric_link *link); /* NULL allowed; and its memory */

const char *fabric_link_provider(const struct fabric_link *link);

/* Where peers reach it; how many bytes were written. */
size_t fabric_link_address(const struct fabric_link *link, uint8_t out[FABRIC_ADDRESS_SIZE]);

/* The one peer, by its link's address. STATUS_INVALID if that is none. */
MUST_USE enum status fabric_link_connect(struct fabric_link *link, const uint8_t *address,
                                         size_t len);

/* Readable when fabric_link_poll() has something to do, if fabric_link_quiet() was true before; -1
 * where the provider has no such thing. Closed with the link. */
int fabric_link_fd(const struct fabric_link *link);
bool fabric_link_quiet(struct fabric_link *link);

/* ---- memory ---- */

enum {
    FABRIC_LOCAL = 1, /* the link itself moves to and from it */
    FABRIC_REMOTE_READ = 2,
    FABRIC_REMOTE_WRITE = 4,
};

/* `key`: drawn at random, so that nobody guesses it; the provider may choose another. STATUS_EXISTS
 * if the key is in use, STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status fabric_memory_open(struct fabric_link *link, void *address, size_t length,
                                        unsigned access, uint64_t key, struct fabric_memory **out);
/* For FABRIC_LOCAL memory that nothing on its way uses; what peers use goes with the link. */
void fabric_memory_close(struct fabric_link *link, struct fabric_memory *memory);
uint64_t fabric_memory_key(const struct fabric_memory *memory);
/* What a peer calls the first byte of it. */
uint64_t fabric_memory_base(const struct fabric_memory *memory);

/* ---- moving ---- */

enum fabric_op { FABRIC_READ, FABRIC_WRITE };

struct fabric_request {
    enum fabric_op op;
    void *local;
    size_t length;
    const struct fabric_memory *memory; /* holds `local` */
    uint64_t remote;                    /* counted from the base of the peer's memory */
    uint64_t key;
    void *ctx;
};

struct fabric_done {
    void *ctx;
    enum status status; /* OK: a READ has arrived; a WRITE is in the peer's memory */
};

/* STATUS_OK: it is reported exactly once, unless the link is closed. STATUS_AGAIN: the queue is
 * full, or the link is still connecting; poll, then try again. STATUS_CONN_CLOSED: never again. */
MUST_USE enum status fabric_post(struct fabric_link *link, const struct fabric_request *request);

/* Moves things on and takes what has ended, at most `max`; waits up to `timeout_ms` for the first
 * where the provider can wait. How many, or -1: the link is broken. */
int fabric_link_poll(struct fabric_link *link, struct fabric_done *out, int max, int timeout_ms);

#endif
