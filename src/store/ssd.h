/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd.h - blocks on a disk: an append-only log of segment files, bounded, that survives the
 * process and is never believed without its checksums.
 *
 * A block is written whole, once, and read back in parts of whole layers, so that computing can
 * begin before the last part is there. When the disk space given is used up, the oldest segment is
 * given up; blocks in it that are still asked for are carried over into the newest one first.
 *
 *   I1  A key is in the index only while all of its record is in the file: it is put there when the
 *       write has ended, or when recovery has seen it.
 *   I2  What a reader gets has been compared with the checksums of the record, whose header has
 *       been compared with its own, with the key and with the place. Whatever does not agree is
 *       taken out of the index and counted.
 *   I3  The files together are never larger than size_max; a segment's space is taken before its
 *       first byte is written.
 *   I4  A segment's bytes, once written, are never written again.
 *   I5  A segment with readers or writes on their way is neither closed nor removed.
 *   I6  At any instant the files can be opened again (recovery) and everything that was written and
 *       synced is found, except what was given up.
 *
 * With `packing` blocks are compressed part by part (store/ssd_pack.h), on a thread beside the loop
 * (env_job), one after the other, before they get their place; read parts are unpacked likewise.
 *
 * Memory:  17 bytes a slot, and one entry of a base/map a block (at most 67 bytes); a sketch of 4
 *          bytes a block; buffers of SSD_BUFFERS_SIZE, or two blocks if these are larger. Packed:
 *          29 bytes a slot, of which there are SSD_PACKED_SLOTS times as many, and two packers.
 * Threads: the env's loop thread. ssd_open() and ssd_close() block.
 * Limits:  SSD_SEGMENTS_MAX files; a full or failing disk costs blocks, never answers. */
#ifndef STORE_SSD_H
#define STORE_SSD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "base/status.h"
#include "store/layout.h"
#include "store/ssd_format.h"
#include "store/ssd_pack.h"

struct ssd;         /* opaque */
struct ssd_segment; /* opaque */

enum {
    SSD_SEGMENTS_MAX = 512,
    SSD_WRITES_MAX = 8,
    SSD_BUFFERS_SIZE = 32 << 20, /* bytes that may wait for the disk, when blocks are small */
    SSD_PART_SIZE = 256 << 10,
};

struct ssd_options {
    struct env *env;
    const char *directory; /* ours alone (a lock says so); made if missing; copied */
    uint64_t size_max;     /* bytes of disk */
    struct store_layout layout;
    uint64_t seed;
    uint32_t part_size;          /* about the bytes of one read; 0: SSD_PART_SIZE */
    const struct ssd_keys *keys; /* outlives it; NULL: what is written is clear. What was written
                                    with a key that is not among them is another model's */
    struct ssd_packing packing;  /* of what is written; all 0: as it is. What is there is read in
                                    any case, where the library is */
    /* The key can be read, or read from another place. / It cannot any more. Never from inside a
     * call of this header except ssd_drop(). */
    void (*on_stored)(void *ctx, const struct block_key *key);
    void (*on_removed)(void *ctx, const struct block_key *key);
    /* ssd_write() said STATUS_FULL, and may not any more. */
    void (*on_room)(void *ctx);
    void *ctx;
};

/* Takes the directory over and finds what is in it. STATUS_INVALID: size_max holds no three
 * segments of one block; STATUS_EXISTS: another process has the directory; STATUS_DENIED,
 * STATUS_FULL, STATUS_IO: it cannot be used. err says what. Damage inside costs blocks, not the
 * call. */
MUST_USE enum status ssd_open(const struct ssd_options *options, struct ssd **out,
                              struct errmsg *err);

/* Waits for what is on its way, finishes the open segment where nothing is, and lets go. Readers
 * must have closed, or their env be dead. NULL is allowed. */
void ssd_close(struct ssd *ssd);

bool ssd_has(const struct ssd *ssd, const struct block_key *key);

/* The key was asked for: what is asked for often is kept longer. */
void ssd_touch(struct ssd *ssd, const struct block_key *key);
/* How often lately, roughly. */
uint32_t ssd_heat(const struct ssd *ssd, const struct block_key *key);

/* Copies the block (layers * layer_size bytes, `sums` of each layer) and writes it behind.
 * STATUS_OK: taken, on_stored follows unless the disk fails; STATUS_EXISTS: it is there or on its
 * way; STATUS_FULL: not now, on_room follows. */
MUST_USE enum status ssd_write(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                               const uint64_t *sums);

/* The same at once, blocking and without on_stored; nothing but this and ssd_close() may follow.
 * STATUS_FULL: there is no room without waiting for more than the write. */
MUST_USE enum status ssd_write_now(struct ssd *ssd, const struct block_key *key,
                                   const uint8_t *data, const uint64_t *sums);

/* STATUS_NOT_FOUND. */
MUST_USE enum status ssd_drop(struct ssd *ssd, const struct block_key *key);

/* Any order; a key that is stored while the walk goes on may be missed. `*cursor` starts at 0.
 * False: that was all. */
bool ssd_next(const struct ssd *ssd, uint64_t *cursor, struct block_key *key);

/* ---- reading one block, part by part; storage is the caller's ---- */

struct ssd_read {
    uint8_t *page;   /* payload goes here; at a multiple of SSD_ALIGN, page_size bytes long */
    uint8_t *header; /* SSD_ALIGN bytes, so aligned; needed until the first part is done */
    uint64_t *sums;  /* STORE_LAYERS_MAX of them; the block's, from when the first part is done */
    /* The part started last is over. STATUS_OK: `layers_ready` layers are there and right;
     * STATUS_CORRUPT, STATUS_IO: the block is gone. */
    void (*fn)(void *ctx, enum status status);
    void *ctx;

    uint8_t tags[SSD_SEALED_LAYERS_MAX * SSD_SEAL_TAG_SIZE]; /* private */
    uint32_t parts_done;
    uint32_t layers_ready;

    struct ssd *ssd; /* private, from here on */
    struct ssd_segment *segment;
    struct block_key key;
    uint32_t slot;
    bool busy;
    struct env_io io;
    uint32_t units[SSD_PARTS_MAX]; /* of a packed record */
    enum status unpacked;
    struct env_job job;
    struct ssd_read *prev, *next; /* of those that are to be unpacked */
};

uint32_t ssd_parts(const struct ssd *ssd);
/* Payload bytes of a part. */
uint64_t ssd_part_size(const struct ssd *ssd, uint32_t part);
/* Layers that are complete when parts [0, part] are. */
uint32_t ssd_part_layers(const struct ssd *ssd, uint32_t part);

/* STATUS_NOT_FOUND. Until ssd_read_close() the block stays where it is. */
MUST_USE enum status ssd_read_open(struct ssd *ssd, const struct block_key *key,
                                   struct ssd_read *read);
/* Starts the next part. STATUS_FULL: too much is on its way; fn will not run. */
MUST_USE enum status ssd_read_part(struct ssd_read *read);
/* Not while a part is on its way. */
void ssd_read_close(struct ssd_read *read);

/* ---- numbers ---- */

struct ssd_counts {
    uint64_t blocks;
    uint64_t segments;
    uint64_t foreign_segments; /* of other models, kept while there is room */
    uint64_t size;             /* bytes of disk taken */
    uint64_t size_max;
    uint64_t memory; /* bytes of the index, without buffers */
    uint64_t recovered_blocks;
    uint64_t recovered_us;         /* how long ssd_open() took */
    uint64_t blocks_written_total; /* not counting what was carried over */
    uint64_t blocks_carried_total; /* out of segments that were given up */
    uint64_t bytes_accepted_total; /* of blocks, as they were given */
    uint64_t bytes_written_total;  /* to the disk: blocks, headers, footers, carried blocks */
    uint64_t packed_from_total;    /* bytes of blocks that packing was tried on, */
    uint64_t packed_to_total;      /* and what is written of them */
    uint64_t bytes_read_total;
    uint64_t blocks_read_total;      /* whole and right */
    uint64_t blocks_reclaimed_total; /* given up with their segment */
    uint64_t segments_reclaimed_total;
    uint64_t corrupt_total;      /* blocks whose bytes were not what was written */
    uint64_t read_errors_total;  /* the disk said no */
    uint64_t write_errors_total; /* the disk said no */
    uint64_t full_total;         /* there was less room than size_max promised */
    uint64_t syncs_total;
};
void ssd_counts(const struct ssd *ssd, struct ssd_counts *out);

/* Checks the index against the segments, and the space against the files; O(blocks). For tests. */
void ssd_check(const struct ssd *ssd);

#endif
