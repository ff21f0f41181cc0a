/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog.h - values by key on a disk: an append-only log of segment files, bounded, that
 * survives the process and is never believed without its checksums. What store/ssd.h is to blocks,
 * for values of any size that can be replaced and removed.
 *
 *   segment 7 | a1 | b1 | c1 | footer |    segment 8 | a2 | -b | d1 ...
 *
 * Opening replays the log, so its order is its meaning: a later record of a key counts, and a key
 * that was dropped has a record that says so (-b). The oldest segment is given up first, always:
 * what says that something is gone outlives what it is said of.
 *
 *   I1  A key is in the index only while all of its record is in the file: it is put there when the
 *       write has ended, or when recovery has seen it.
 *   I2  What a reader gets has been compared with the checksums of the record, whose head has been
 *       compared with its own, with the key and with the place. Whatever does not agree is taken
 *       out of the index and counted.
 *   I3  The files together are never larger than size_max.
 *   I4  A segment's bytes, once written, are never written again.
 *   I5  A segment with readers or writes on their way is neither closed nor removed.
 *   I6  Recovery never finds an older value of a key of which a newer one, or its drop, is on the
 *       disk, whole or torn; what is older than damage is not believed, unless it is the newest two
 *       segments that are damaged, where it looks like a crash.
 *
 * A drop is on its way to the disk within a millisecond, or when the disk has room again; a process
 * that ends before that finds the value again.
 *
 * With `packing` values are compressed (store/vlog_pack.h), on a thread beside the loop (env_job),
 * one after the other, before they get their place, which is in the order in which they were given;
 * and unpacked likewise when they are read.
 *
 * Memory:  about 170 bytes and the key of each value; buffers of VLOG_BUFFERS_SIZE, or one record
 *          if that is larger, which with `packing` is twice the value; of each read its head, and
 *          of a packed value what it takes on the disk.
 * Threads: the env's loop thread. vlog_open() and vlog_close() block.
 * Limits:  VLOG_SEGMENTS_MAX files, VLOG_VALUES_MAX values; a full or failing disk costs values,
 *          never answers. */
#ifndef STORE_VLOG_H
#define STORE_VLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "base/status.h"
#include "store/objects.h"
#include "store/ssd_pack.h"
#include "store/vlog_format.h"

struct vlog;         /* opaque */
struct vlog_segment; /* opaque */

enum {
    VLOG_SEGMENTS_MAX = 512,
    VLOG_VALUES_MAX = 1 << 24,
    VLOG_WRITES_MAX = 16,
    VLOG_BUFFERS_SIZE = 16 << 20,
};

/* A value that is there. Borrowed; invalid after the next call that is not const. */
struct vlog_entry {
    struct vlog_meta meta;
    struct vlog_segment *segment; /* private, like the next three */
    struct vlog_entry *prev;
    struct vlog_entry *next;
    uint32_t slot;
    uint64_t generation; /* the owner's to set; 0 at first */
    uint32_t key_len;
    uint8_t key[];
};

struct vlog_options {
    struct env *env;
    const char *directory; /* ours alone (a lock says so); made if missing; copied */
    uint64_t size_max;     /* bytes of disk */
    uint64_t seed;
    const struct ssd_keys *keys; /* outlives it; NULL: what is written is clear */
    struct ssd_packing packing;  /* of what is written; all 0: as it is */
    /* A write is over: the value is there, or it is not. */
    void (*on_written)(void *ctx, const struct block_key *id, enum status status);
    /* It is about to be not there any more, for another reason than vlog_drop(). May run inside
     * vlog_write(), and calls nothing of this header but vlog_find(). */
    void (*on_removed)(void *ctx, const struct vlog_entry *entry);
    /* vlog_write() said STATUS_FULL or STATUS_UNAVAILABLE, and may say something else now. */
    void (*on_room)(void *ctx);
    void *ctx;
};

/* Takes the directory over and finds what is in it. STATUS_INVALID: size_max is too small for
 * segments; STATUS_DENIED: what is there was written with a key that is not among ours, and stays;
 * STATUS_UNSUPPORTED: a library is not installed; else as ssd_open(). Damage inside costs values,
 * not the call. */
MUST_USE enum status vlog_open(const struct vlog_options *options, struct vlog **out,
                               struct errmsg *err);

/* Waits for what is on its way, finishes the open segment, and lets go. NULL is allowed. */
void vlog_close(struct vlog *vlog);

/* NULL if it is not there. */
struct vlog_entry *vlog_find(const struct vlog *vlog, const struct block_key *id);

/* Bytes that the largest value may have. */
uint64_t vlog_value_max(const struct vlog *vlog);

/* Copies the value and writes it behind. STATUS_OK: taken, on_written follows; STATUS_EXISTS: one
 * of no lower rank is there or on its way; STATUS_FULL: not now, on_room follows;
 * STATUS_UNAVAILABLE: the disk failed lately, on_room follows; STATUS_INVALID: too large. */
MUST_USE enum status vlog_write(struct vlog *vlog, const struct object *object,
                                const uint8_t *data);

/* The same at once, blocking and without on_written; nothing but this and vlog_close() may follow.
 */
MUST_USE enum status vlog_write_now(struct vlog *vlog, const struct object *object,
                                    const uint8_t *data);

/* The value, written or on its way, is no more. False: there was none. */
bool vlog_drop(struct vlog *vlog, const struct block_key *id);

/* Any order; a value that is stored while the walk goes on may be missed. `*cursor` starts at 0.
 * NULL: that was all. */
struct vlog_entry *vlog_next(const struct vlog *vlog, uint64_t *cursor);

/* The key was asked for. / How often lately, roughly. */
void vlog_touch(struct vlog *vlog, const struct block_key *id);
uint32_t vlog_heat(const struct vlog *vlog, const struct block_key *id);

/* ---- reading one value; storage is the caller's ---- */

struct vlog_read {
    uint8_t *data; /* vlog_units(size) units, so aligned */
    /* STATUS_OK: the bytes are there and right, `head` says what they are until this returns;
     * STATUS_CORRUPT, STATUS_IO: the value is gone, and on_removed was told; STATUS_STALE: it was
     * dropped meanwhile. */
    void (*fn)(void *ctx, enum status status, const struct vlog_head *head);
    void *ctx;

    struct vlog *vlog; /* private, from here on */
    struct vlog_segment *segment;
    struct block_key id;
    uint32_t at;
    uint32_t units;
    uint8_t *head; /* and behind it, if they are packed, the bytes */
    struct env_io io;
    struct vlog_head found;
    enum status unpacked;
    struct env_job job;
    struct vlog_read *prev, *next; /* of those that are to be unpacked */
};

/* STATUS_NOT_FOUND; STATUS_FULL: too much is on its way; fn will not run. */
MUST_USE enum status vlog_read(struct vlog *vlog, const struct block_key *id,
                               struct vlog_read *read);
/* The log was closed, and the read with it: frees, calls nobody. */
void vlog_read_abandon(struct vlog_read *read);

/* ---- numbers ---- */

struct vlog_counts {
    uint64_t values;
    uint64_t segments;
    uint64_t size; /* bytes of disk taken */
    uint64_t size_max;
    uint64_t memory; /* bytes of the index, without buffers */
    uint64_t recovered_values;
    uint64_t recovered_us;
    uint64_t values_written_total;
    uint64_t bytes_accepted_total; /* of values, as they were given */
    uint64_t bytes_written_total;  /* to the disk */
    uint64_t packed_from_total;    /* bytes of values that packing was tried on, */
    uint64_t packed_to_total;      /* and what is written of them */
    uint64_t values_read_total;    /* whole and right */
    uint64_t bytes_read_total;
    uint64_t values_reclaimed_total; /* given up with their segment */
    uint64_t corrupt_total;
    uint64_t read_errors_total;
    uint64_t write_errors_total;
};
void vlog_counts(const struct vlog *vlog, struct vlog_counts *out);

/* Checks the index against the segments, and the space against the files; O(values). For tests. */
void vlog_check(const struct vlog *vlog);

#endif
