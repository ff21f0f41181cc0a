/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_file.h - the bare path to a disk: what io_uring and O_DIRECT give a program that
 * does nothing else. A yardstick for benches; no part of Yolk runs on it.
 *
 * Requests of one size go through the file from its start, `depth` at a time: each that ends is
 * followed by the next, which the kernel is told of at once. Memory is walked through likewise, as
 * far as it reaches, and from its start again. */
#ifndef BASE_ENV_BARE_FILE_H
#define BASE_ENV_BARE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env_bare_file {
    const char *path; /* of a file that is long enough */
    bool read;
    uint32_t depth;     /* 1..64 */
    uint32_t size;      /* of a request; a multiple of 4096 */
    uint8_t *memory;    /* aligned to 4096 */
    size_t memory_size; /* a multiple of size */
};

/* Moves `count` requests; *ns: how long it took, without opening the file and making the ring.
 * STATUS_INVALID for numbers out of range; STATUS_UNSUPPORTED where the kernel has no io_uring for
 * us, or the file system no O_DIRECT; STATUS_IO if a request did not move all of its bytes: then
 * others may still be under way, and the memory must stay. */
MUST_USE enum status env_bare_file_run(const struct env_bare_file *bare, uint64_t count,
                                       uint64_t *ns);

#endif
