/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda.h - memory of devices in the engine: what its other files call when a range is not
 * the CPU's to touch.
 *
 * A registered range of a device has buffer->device != 0. Its bytes are never read or written by
 * the CPU: they go through pinned buffers (bounces) or, locally, from place to place by the device.
 * cuda.c has the rules. Everything here does nothing, quickly, in an engine that has no such range.
 */
#ifndef TRANSFER_CUDA_H
#define TRANSFER_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct bounce; /* pinned memory that somebody holds */
struct buffer;
struct cuda;
struct cuda_device;
struct lane;
struct share;
struct slice;
struct task;
struct wire_header;
struct yolk_transfer;

/* ---- registering ---- */

/* Which device the range is on, as buffer->device has it; 0: none, or no driver in this process.
 * STATUS_INVALID for a range that is on several. */
MUST_USE enum status cuda_find(uint64_t address, uint64_t length, uint32_t *device);

/* The same for a place that somebody named: "cuda:0". STATUS_UNSUPPORTED without a driver,
 * STATUS_INVALID for a name that is none and memory that is elsewhere. */
MUST_USE enum status cuda_find_named(const char *location, uint64_t address, uint64_t length,
                                     uint32_t *device, struct errmsg *err);

/* Opens the device for the engine, if it is not. What cuda_device_open() says, STATUS_NO_MEMORY. */
MUST_USE enum status cuda_add(struct yolk_transfer *transfer, uint32_t device, struct errmsg *err);

/* The topology's number for it: of "cuda:N" if the topology names it, else of its NUMA node. */
uint32_t cuda_location(const struct yolk_transfer *transfer, uint32_t device);

/* ---- life ---- */

/* Ends what has ended, starts what can start. */
void cuda_turn(struct yolk_transfer *transfer);
/* Waits for every copy; nobody is told, and nothing is started any more. */
void cuda_stop(struct yolk_transfer *transfer);
/* After cuda_stop(), when nothing holds a bounce any more. */
void cuda_destroy(struct yolk_transfer *transfer);

void cuda_bounce_free(struct bounce *bounce); /* NULL is allowed */
uint8_t *cuda_bounce_memory(struct bounce *bounce);

/* ---- initiator ---- */

/* The task moves memory of a device, which a peer's device cannot reach, and was taken as by
 * cuda_stage_rest(). False: not so. */
bool cuda_submit(struct yolk_transfer *transfer, struct task *task);

/* From its offset on: peer.c sees its slices when they can go, each with a bounce, which for a
 * WRITE is full. The task is in no queue. */
void cuda_stage_rest(struct yolk_transfer *transfer, struct task *task);
/* The same with a slice that has been cut, and counts nowhere. */
void cuda_stage(struct yolk_transfer *transfer, struct slice *slice);

/* The slice of a READ has arrived in its bounce: goes on to the device, and is done when there. */
void cuda_land(struct yolk_transfer *transfer, struct slice *slice);

/* The local slice is from or to a device, and was taken. False: not so. */
bool cuda_copy(struct yolk_transfer *transfer, struct slice *slice);

/* The slice is freed, and its bounce, if it has one. */
void cuda_slice_free(struct slice *slice);

/* Takes back what waits; what the device is doing it ends, and counts in slices_out until then. */
void cuda_withdraw(struct yolk_transfer *transfer, struct task *task);

/* ---- other processes of this host (cuda_ipc.c) ---- */

/* Offers the registered range to peers' devices: gives it a handle and an identity, which the
 * caller starts, unless that is forbidden, or the driver cannot. */
void cuda_export(struct yolk_transfer *transfer, struct buffer *buffer);

/* Where the share's range lies for our device `number` (as buffer->device): opens it if need be.
 * What cuda_ipc_open() says. */
MUST_USE enum status cuda_import(struct yolk_transfer *transfer, struct share *share,
                                 uint32_t number, uint64_t *address);
void cuda_import_close(struct yolk_transfer *transfer, struct share *share);
/* Closes what its owner has withdrawn. */
void cuda_imports_look(struct yolk_transfer *transfer);
/* Calls that after `ns`, unless it is about to be called anyway. */
void cuda_look_later(struct yolk_transfer *transfer, uint64_t ns);
/* That was added. */
struct cuda_device *cuda_device(struct yolk_transfer *transfer, uint32_t number);

/* A slice of a READ, or a pull, takes what lies at `from` in its share's owner to slice->to, which
 * is memory of a device; from now on it counts as a user of share and session. False, and it is
 * nobody's: the driver does not open it. */
bool cuda_fetch(struct yolk_transfer *transfer, struct slice *slice, uint64_t from);

/* As slice_filter(), of such slices that no device has begun. */
void cuda_pulls_filter(struct yolk_transfer *transfer,
                       bool (*match)(const struct slice *, const void *), const void *what,
                       void (*fn)(struct yolk_transfer *, struct slice *));

/* ---- target ---- */

/* True if a request for that address is for one of the next four. */
bool cuda_has(const struct yolk_transfer *transfer, uint64_t address);

/* A READ that passed its checks: answered when the bytes have been fetched. */
MUST_USE enum status cuda_serve(struct lane *lane, const struct wire_header *request);

/* Where a WRITE or PULL of `length` lands first; NULL without memory. */
struct bounce *cuda_landing(struct yolk_transfer *transfer, uint64_t length);

/* It has landed: answered when it is in the device. Takes the bounce. */
MUST_USE enum status cuda_store(struct lane *lane, const struct wire_header *request,
                                struct bounce *bounce);

/* READs of that attempt that are not on the lane yet are answered CANCELLED. */
void cuda_cancel(struct lane *lane, uint64_t attempt);

/* The lane is dead: when this returns, nothing that came on it lands any more. */
void cuda_lane_gone(struct lane *lane);

/* When this returns, nothing of a peer moves into or out of the buffer, or, NULL, under rights that
 * it no longer has. */
void cuda_revoke(struct yolk_transfer *transfer, const struct buffer *buffer);

#endif
