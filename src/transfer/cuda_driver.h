/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_driver.h - the few things asked of NVIDIA's driver, loaded at run time.
 *
 * Only the driver API (libcuda.so.1) is used, so neither its headers, nor nvcc, nor the CUDA
 * toolkit is needed to build or to run. Calls push and pop the context they need: the thread's own
 * is as it was afterwards. Copies go into streams of ours; what the user does in theirs must have
 * ended before memory is given to the engine.
 *
 * YOLK_CUDA_DRIVER, a path, takes the place of libcuda.so.1: for tests.
 *
 * Memory:  devices and events are on the heap.
 * Threads: loading may happen from any thread; a cuda_device and its events belong to one.
 * Limits:  CUDA_DEVICES_MAX devices. */
#ifndef TRANSFER_CUDA_DRIVER_H
#define TRANSFER_CUDA_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { CUDA_DEVICES_MAX = 64, CUDA_PCI_SIZE = 16 };

/* True if this process has loaded the driver already: memory of a device can be its own only then.
 */
bool cuda_driver_here(void);

/* Loads it, once for the process. STATUS_UNSUPPORTED, and err says what is missing. */
MUST_USE enum status cuda_driver_load(struct errmsg *err);

/* The functions below need a driver that was loaded. */

/* Which device [address, address+length) lies on. STATUS_NOT_FOUND for memory of the host, and for
 * managed memory, which the host may touch; STATUS_INVALID if the ends lie in different places. */
MUST_USE enum status cuda_device_of(uint64_t address, uint64_t length, uint32_t *device);

/* "0000:3b:00.0", as sysfs has it. */
MUST_USE enum status cuda_device_pci(uint32_t device, char out[CUDA_PCI_SIZE]);

struct cuda_device; /* a device, with two streams of ours: into it, and out of it */

/* STATUS_NOT_FOUND for a device that is not there; STATUS_IO with the driver's reason. */
MUST_USE enum status cuda_device_open(uint32_t device, struct cuda_device **out,
                                      struct errmsg *err);
void cuda_device_close(struct cuda_device *device); /* NULL is allowed; nothing may be under way */

/* Memory of the host that the device copies from and to by itself; good for every device. */
MUST_USE enum status cuda_pinned_alloc(struct cuda_device *device, size_t size, void **out);
void cuda_pinned_free(struct cuda_device *device, void *memory); /* NULL is allowed */

/* Memory of the device: for tests and benches. */
MUST_USE enum status cuda_memory_alloc(struct cuda_device *device, size_t size, uint64_t *out);
void cuda_memory_free(struct cuda_device *device, uint64_t address);

/* ---- memory of another process ---- */

enum { CUDA_IPC_SIZE = 64 };

/* What another process of this host opens the range with: a handle of the allocation that it lies
 * in, and where in it. STATUS_UNSUPPORTED where the driver cannot: an old one, memory from a pool
 * or mapped by hand, a range over several allocations. */
MUST_USE enum status cuda_ipc_export(struct cuda_device *device, uint64_t address, uint64_t length,
                                     uint8_t handle[CUDA_IPC_SIZE], uint64_t *offset);

/* Maps the allocation for `device`, or counts one more user of it if it is mapped; *base is its
 * first byte. The handle may be anything: STATUS_UNSUPPORTED if the driver refuses it (our own
 * process's, a process that is gone, devices that do not reach each other), STATUS_INVALID if
 * [offset, offset+length) is not in what it opens. Blocks for as long as the driver maps. */
MUST_USE enum status cuda_ipc_open(struct cuda_device *device, const uint8_t handle[CUDA_IPC_SIZE],
                                   uint64_t offset, uint64_t length, uint64_t *base);
void cuda_ipc_close(struct cuda_device *device, uint64_t base); /* no copy of it is under way */

/* ---- copies, behind whatever went into the same stream before ---- */

struct cuda_event; /* a copy's end */

/* STATUS_IO when the driver refuses; then nothing is copied and there is no event. */
MUST_USE enum status cuda_copy_in(struct cuda_device *device, uint64_t to, const void *from,
                                  size_t len, struct cuda_event **out);
MUST_USE enum status cuda_copy_out(struct cuda_device *device, void *to, uint64_t from, size_t len,
                                   struct cuda_event **out);
/* From memory of `device` to memory of `other`, which may be the same. */
MUST_USE enum status cuda_copy_across(struct cuda_device *device, uint64_t from,
                                      struct cuda_device *other, uint64_t to, size_t len,
                                      struct cuda_event **out);

/* STATUS_OK: the copy has ended; STATUS_AGAIN: not yet; STATUS_IO: it failed, and has ended. */
MUST_USE enum status cuda_event_poll(struct cuda_event *event);
/* Blocks until then. */
enum status cuda_event_wait(struct cuda_event *event);
void cuda_event_free(struct cuda_event *event); /* of a copy that has ended */

#endif
