/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_lane.h - the data of a lane through libfabric, the lane's connection carrying the
 * control: what the other files of the engine call when the protocol is "fabric".
 *
 * A lane that needs it opens a link (fabric.h) at both ends; the initiator's reads and writes go
 * through it, one-sided, into memory that the target has granted to that link. A link lives and
 * dies with its lane, so everything that is said of lanes holds for it, fences included:
 *
 *     initiator                                target
 *       FABRIC(provider, address)  ---------->   opens a link for this lane
 *                                  <----------   FABRIC(provider, address), its epoch and term
 *       FABRIC_ASK(address)        ---------->   checks epoch, term, registration
 *                                  <----------   FABRIC_GRANT(range, rights, key)
 *       reads and writes           ==========>   (the target's program has no part in them)
 *
 * A final state means that no later byte can land, here or there:
 *   I1  A slice that was posted stays in its lane's slots until the provider reports it done; a
 *       WRITE is done when it is in the target's memory. A report of failure says nothing of bytes
 *       that are on their way, so it kills the lane, and the slice stays lost until F2..F4
 *       (peer.c).
 *   I2  READs too are lost with their lane and wait for the fence: the shm provider has the target
 *       write into our memory.
 *   I3  A lane that dies closes its link before anything is concluded from its death. So the
 *       initiator sends nothing more; and when the target has confirmed the fence, said goodbye, or
 *       let its lease run out, the target's end is closed, and what was on the way lands nowhere.
 *   I4  The target closes a link whose lane was silent for its lease before it next lets libfabric
 *       progress. Hardware that progresses by itself has by then long lost its other end (I3). The
 *       gap that is known of F4 is here one call into libfabric wide: a process stopped inside it
 *       may land what that call still reads.
 *   I5  What the target takes back (a registration, an epoch, a term) it takes back by killing the
 *       lanes that have a grant of it, before its caller goes on: one-sided operations are checked
 *       by nobody, so a grant is good for the epoch and term that it was given under, no longer.
 *
 * Waiting. Where the provider has a descriptor, the env watches it. Where it has none (shm), it is
 * polled, but only while there is work: by the initiator while something is posted, less and less
 * often when nothing comes; by the target for AWAKE_NS after it last heard from the initiator,
 * which sends PINGs while it waits.
 *
 * Not encrypted; keys are random, so a stranger in the network does not know them.
 *
 * Memory:  a registration per link and buffer. Providers of hardware pin it.
 * Threads: that of the env. */
#ifndef TRANSFER_FABRIC_LANE_H
#define TRANSFER_FABRIC_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct buffer;
struct fabric_engine; /* the providers that an engine has opened */
struct fabric_lane;   /* the link of a lane */
struct lane;
struct slice;
struct task;
struct wire_header;
struct yolk_transfer;

/* Of a slice: not through here; not yet posted; the provider has it. */
enum fabric_stage { FABRIC_NONE = 0, FABRIC_WAITING = 1, FABRIC_POSTED = 2 };

/* ---- the engine ---- */

/* `protocol`: NULL, "" or "tcp": transfer->fabric stays NULL; "fabric", "fabric:PROVIDER". INVALID
 * for another; UNSUPPORTED, and err says what is missing. */
MUST_USE enum status fabric_engine_start(struct yolk_transfer *transfer, const char *protocol,
                                         struct errmsg *err);
void fabric_engine_stop(struct yolk_transfer *transfer); /* lanes are gone already */

/* ---- a lane ---- */

/* Initiator: may this range of the task go through the lane's link now? AGAIN: an answer is
 * awaited, and the peer is kicked when it is here (the lane may have died of asking). Else the
 * reason why not, for good. */
MUST_USE enum status fabric_lane_gate(struct lane *lane, struct task *task, uint64_t offset,
                                      uint64_t length);

/* Initiator: takes a slice that has passed the gate and has a slot. */
void fabric_lane_issue(struct lane *lane, struct slice *slice);
/* Posts what waits; the lane may die of it. */
void fabric_lane_flush(struct lane *lane);
/* Takes a slice back; false if the provider has it. */
bool fabric_lane_unsend(struct lane *lane, struct slice *slice);
/* The task is over: its question is nobody's. */
void fabric_lane_forget_task(struct lane *lane, const struct task *task);

/* Both: something was heard on the lane's connection. */
void fabric_lane_heard(struct lane *lane);
/* FABRIC, FABRIC_ASK, FABRIC_GRANT: the header, then, where there is one, the payload in
 * lane->control. */
MUST_USE enum status fabric_lane_frame(struct lane *lane, const struct wire_header *header);
MUST_USE enum status fabric_lane_payload(struct lane *lane);

/* Closes the link, if there is one. */
void fabric_lane_close(struct lane *lane);

/* Target: the initiator may be reading or writing the buffer, or, NULL, anything. */
bool fabric_lane_exposes(const struct lane *lane, const struct buffer *buffer);
/* Initiator: no lane has the buffer registered any more. */
void fabric_lanes_forget_buffer(struct yolk_transfer *transfer, const struct buffer *buffer);

#endif
