/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/rail.h - one way to a peer, and how good it is.
 *
 * A rail is a pair of addresses, one of ours and one of the peer's; lanes run on it. Here is what
 * is known of it and what follows from that, as functions of what happened and when: nothing here
 * looks at a clock or opens anything. peer_rails.c acts on it.
 *
 *     UP --connect failed, or silent while others speak--> PAUSED --retry_ns, and work--> PROBING
 *      ^                                                     ^                              |  |
 *      |                                                     `------- connect failed -------'  |
 *      `------------------------------------ greeting accepted ---------------------------------'
 *
 * Rate. Measured from acknowledged bytes, in samples of RAIL_SAMPLE_NS. A sample during which the
 * rail ran nearly empty says only that it can do at least that much, so it never lowers the rate.
 * Such a sample is over when the rail is empty, if it began with one that was (what is sent before
 * a sample and answered in it would count as too fast): who reads call by call would else never be
 * measured again after the one call that was held up.
 *
 * Window. A rail begins with little and may carry more as bytes arrive, so that a first burst does
 * not pile up on one. Once measured, bytes in flight are bounded by what the rail moves in twice
 * its shortest latency and 2 ms more: enough to keep it busy, and little enough that a fence, or a
 * slice of a higher class, does not wait behind a full socket. Background gets 1 ms worth of bytes.
 * Under load the shortest latency cannot be seen, since a full window is part of what a slice waits
 * for; so every RAIL_DRAIN_NS the window is closed until a slice has gone over a nearly empty rail.
 *
 * Silence. A rail on which something is in flight and nothing was heard for a while, though another
 * rail of the same peer was heard since, is broken. Half way there the others are asked (PING), in
 * case they have nothing to do. If all are silent it is the peer, and leases decide.
 *
 * Threads: none of its own.
 * Limits:  RAILS_MAX per engine, and one more per peer: the named address. */
#ifndef TRANSFER_RAIL_H
#define TRANSFER_RAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "yolk/transfer.h"

enum { RAILS_MAX = YOLK_TRANSFER_RAILS_MAX, RAIL_SLICE_SIZE_MIN = 64 << 10 };

#define RAIL_SAMPLE_NS (4 * ENV_NS_PER_MS)
#define RAIL_SILENCE_NS (20 * ENV_NS_PER_MS) /* and the usual latency */
#define RAIL_WATCH_NS (4 * ENV_NS_PER_MS)    /* how often silence is looked for */
#define RAIL_DRAIN_NS (5 * ENV_NS_PER_S)     /* how often the shortest latency is */

enum rail_state { RAIL_UP, RAIL_PAUSED, RAIL_PROBING };

/* Which rails a piece of memory should use. */
enum rail_rank {
    RAIL_PREFERRED = 0,
    RAIL_SECONDARY = 1, /* when the preferred ones have more to do than three times it has */
    RAIL_LAST = 2,      /* when nothing else is up */
};

struct rail {
    bool used;
    char local[ENV_ADDRESS_SIZE];         /* of ours; "": the kernel's choice */
    char remote[YOLK_TRANSFER_NAME_SIZE]; /* "host:port" */
    int local_index;                      /* in the engine's list, -1: none */
    enum rail_rank remote_rank;           /* what the peer thinks of its end */
    enum rail_state state;
    uint32_t failures; /* in a row */
    uint64_t retry_ns; /* no connect before */
    uint32_t lanes;    /* on it: connecting or ready */
    bool connecting;
    bool proven; /* it has worked, so it is worth asking often whether it does again */

    uint64_t inflight; /* bytes */
    uint64_t fences;   /* asked for on it and not answered */
    uint64_t busy_ns;  /* since when something is in flight or asked */
    uint64_t heard_ns; /* when it last moved on */

    uint64_t rate; /* bytes per second */
    bool measured;
    uint64_t latency_ns;     /* of a slice, smoothed */
    uint64_t latency_min_ns; /* the shortest since it was last looked for */
    uint64_t drained_ns;     /* when that was */
    bool draining;           /* it is looked for now */
    uint64_t clean_ns;       /* DRAINING: since when little is in flight; 0: too much still is */
    uint64_t sample_ns;      /* 0: none is being taken */
    uint64_t sample_size;
    bool sample_thin;
    bool sample_burst; /* it began with nothing in flight: all of its bytes were sent within it */

    uint64_t bytes, slices, retries, pauses; /* counted for explain and metrics */
};

/* `speed_mbps` is what the interface claims, 0 if nothing. */
void rail_init(struct rail *rail, const char *local, const char *remote, uint32_t speed_mbps);

/* A slice of `length` goes out on it. */
void rail_sent(struct rail *rail, uint64_t length, uint64_t now_ns);
/* It was answered `latency_ns` later; `measure`: the bytes went over the wire. */
void rail_done(struct rail *rail, uint64_t length, uint64_t latency_ns, bool measure,
               uint64_t now_ns);
/* It is no longer on the rail, and nothing was learnt. */
void rail_taken(struct rail *rail, uint64_t length);
void rail_heard(struct rail *rail, uint64_t now_ns);

/* Bytes that may be in flight before a slice of `class` is added. */
uint64_t rail_window(const struct rail *rail, int class);
/* A good length for slices: 1 ms worth, between RAIL_SLICE_SIZE_MIN and `size_max`, in multiples of
 * the former. */
uint64_t rail_slice_size(const struct rail *rail, uint64_t size_max);

/* Nanoseconds until a slice of `length` given to it now would be through; more for lower ranks. */
uint64_t rail_score(const struct rail *rail, uint64_t length, enum rail_rank rank);

/* Quiet long enough to ask whether others still get answers; quiet for long, and others do. */
bool rail_suspect(const struct rail *rail, uint64_t now_ns);
bool rail_silent(const struct rail rails[], uint32_t count, uint32_t at, uint64_t now_ns);

/* True if a connect may start now: none is under way, and the last failure is long enough ago. */
bool rail_may_connect(const struct rail *rail, uint64_t now_ns);
void rail_connect(struct rail *rail);
void rail_connected(struct rail *rail, uint64_t now_ns);
/* A connect failed, or it fell silent. `usable`: another lane on it works, so it stays UP. */
void rail_fail(struct rail *rail, bool usable, uint64_t now_ns);
/* A fence was asked for on it, and answered or given up: it counts as busy in between. */
void rail_fence(struct rail *rail, uint64_t now_ns);
void rail_fenced(struct rail *rail, uint64_t count);

const char *rail_state_name(enum rail_state state);

#endif
