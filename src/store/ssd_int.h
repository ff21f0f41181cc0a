/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_int.h - the inside of the disk tier, shared by ssd.c (index, reading), ssd_write.c
 * (appending, sealing, reclaiming) and ssd_recover.c (opening what is there). */
#ifndef STORE_SSD_INT_H
#define STORE_SSD_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "store/ssd.h"
#include "store/ssd_format.h"

struct map;
struct sketch;

/* Life of a segment; ssd_segment_state() is the only one to change it.
 *
 *                   space, header     all slots taken      footer and
 *                   are there         and written          sync done
 *    -> OPENING ------------> OPEN ------------> SEALING ------------> SEALED
 *          | refused            | a write of header or footer failed:     |  chosen to go
 *          |                    +--> SEALED, without a footer             v
 *          |                                                         RECLAIMING
 *          |                                                              | hot blocks are
 *          v                            no reader left                    v carried over
 *        freed <------------------------------------------------------ DOOMED
 *
 * What recovery finds is SEALED from the start. A foreign one has no file open and no keys. */
enum segment_state {
    SEGMENT_OPENING,
    SEGMENT_OPEN,
    SEGMENT_SEALING,
    SEGMENT_SEALED,
    SEGMENT_RECLAIMING,
    SEGMENT_DOOMED,
};

enum slot_state { SLOT_EMPTY = 0, SLOT_WRITING, SLOT_WRITTEN, SLOT_DEAD };

struct ssd_segment {
    struct ssd *ssd;
    uint32_t number; /* in ssd->segments */
    enum segment_state state;
    bool foreign;
    uint64_t id;
    uint64_t nonce;
    struct ssd_seal *seal; /* NULL: clear */
    struct ssd_seal_info seal_info;
    uint64_t size; /* bytes of disk it counts for */
    struct env_file *file;
    uint32_t slots;
    uint32_t used;    /* slots given out, from the first */
    uint32_t written; /* slots, from the first, that are written or dead */
    uint32_t synced;  /* of them, known to be on the disk, or dead */
    uint32_t failed;  /* the first one whose write failed; UINT32_MAX: none */
    uint32_t live;    /* slots that the index points to */
    uint32_t writing;
    uint32_t readers;
    struct block_key *keys;   /* of each slot */
    uint8_t *states;          /* enum slot_state of each slot */
    struct ssd_place *places; /* of each slot of a packed segment; NULL: it is not packed */
    uint32_t end;             /* of a packed one: the unit behind the last slot used, */
    uint32_t end_max;         /* and where its footer must begin at the latest */

    struct env_io io;  /* opening, sealing: one after the other */
    uint8_t *io_bytes; /* header or footer on its way */
    struct env_io sync_io;
    bool syncing;
    bool sync_failed;   /* the last one */
    uint32_t sync_upto; /* `written` when the sync began */
};

struct ssd_write {
    struct ssd *ssd;
    bool busy;
    bool carried;
    struct ssd_segment *segment;
    uint32_t slot;
    struct block_key key;
    uint8_t *buffer; /* a record, in ssd->buffers */
    struct env_io io;
    /* While it is packed: it has no place yet. */
    bool packing;
    bool waiting; /* packed, and for a place */
    struct env_job job;
    bool packed;    /* it has run */
    uint64_t order; /* they are packed in this order */
    uint32_t units[SSD_PARTS_MAX];
    uint64_t sums[STORE_LAYERS_MAX];
};

/* The giving up of one segment. */
struct ssd_reclaim {
    struct ssd_segment *segment; /* NULL: none */
    uint32_t cursor;             /* next slot to look at */
    uint32_t budget;             /* blocks that may still be carried over */
    uint32_t writes;             /* carried blocks on their way */
    bool reading;
    bool ready; /* `read` holds a block that waits for a buffer */
    struct ssd_read read;
    uint8_t *page;
    uint8_t *header;
    uint64_t sums[STORE_LAYERS_MAX];
};

struct ssd {
    struct env *env;
    struct ssd_options options;
    struct store_layout layout;
    char *directory;
    struct env_file *lock;
    uint64_t record_size;
    uint32_t slots; /* of a new segment */
    uint32_t parts;
    struct map *index; /* key -> number of the segment << 32 | slot */
    struct sketch *sketch;
    struct ssd_packer *packer;      /* of packing_now's job; NULL: what is written is not packed */
    struct ssd_packer *unpacker;    /* of unpacking_now's job, and of recovery; NULL: nothing was
                                      packed */
    struct ssd_write *packing_now;  /* NULL: none */
    uint64_t order_next;            /* of packing */
    struct ssd_read *unpacking;     /* the one that waits longest is the last */
    struct ssd_read *unpacking_now; /* of them; NULL: none */
    struct ssd_segment *segments[SSD_SEGMENTS_MAX];
    uint32_t segments_count;
    struct ssd_segment *open; /* OPENING or OPEN; NULL */
    uint64_t id_next;
    uint64_t size; /* of all segments */
    struct ssd_write writes[SSD_WRITES_MAX];
    uint32_t writes_max;
    uint8_t *buffers; /* of all writes; NULL: nothing was written yet */
    struct ssd_reclaim reclaim;
    bool room_wanted;
    bool full;              /* the disk had no room for the last segment begun */
    uint32_t errors_in_row; /* of writes */
    uint64_t rest_until_ns;
    struct env_timer rest_timer;
    struct env_timer sync_timer;
    bool opened; /* the owner knows us, and may be called back */
    bool closing;
    struct ssd_counts counts; /* the totals */
};

/* ---- ssd.c ---- */

void ssd_segment_state(struct ssd_segment *segment, enum segment_state state);
void ssd_path(const struct ssd *ssd, uint64_t id, char out[], size_t size);
enum { SSD_PATH_SIZE = 4096 + SSD_NAME_SIZE };

/* A new member of the table, with room for `slots` (0: a foreign one). NULL: no memory, or the
 * table is full. */
struct ssd_segment *ssd_segment_new(struct ssd *ssd, uint64_t id, uint32_t slots);
/* It is a packed one. False: no memory. */
MUST_USE bool ssd_segment_pack(struct ssd_segment *segment);
uint64_t ssd_slot_offset(const struct ssd_segment *segment, uint32_t slot);
/* Behind the last slot used: where the footer goes. */
uint64_t ssd_end_offset(const struct ssd_segment *segment);
/* For the largest part of a block. */
MUST_USE enum status ssd_packer_make(const struct ssd *ssd, struct ssd_packer **out);
/* Whether a record can be that long. */
bool ssd_place_right(const struct ssd *ssd, const struct ssd_place *place);
/* Whether the header is of this place, and its parts are none too long. */
bool ssd_packed_right(const struct ssd *ssd, const struct ssd_record *record, uint32_t at);
uint32_t ssd_packed_units(const struct ssd_record *record);
/* Part p of a packed record, `units` of it, to the bytes of the block, in place. */
MUST_USE enum status ssd_part_unpack(const struct ssd *ssd, uint32_t part, uint32_t units,
                                     uint8_t *bytes);
/* Closes and forgets it; the file stays. */
void ssd_segment_free(struct ssd_segment *segment);
/* And removes the file. */
void ssd_segment_remove(struct ssd_segment *segment);

/* The index points to the slot from here on, wherever it pointed before. */
void ssd_index_put(struct ssd_segment *segment, uint32_t slot, const struct block_key *key);
bool ssd_index_points(const struct ssd_segment *segment, uint32_t slot);
/* Out of the index, and said. */
void ssd_index_remove(struct ssd *ssd, const struct block_key *key);

/* Payload bytes of part p: [ssd_part_begin(p), ssd_part_begin(p + 1)). */
uint64_t ssd_part_begin(const struct ssd *ssd, uint32_t part);

void *ssd_alloc_aligned(uint64_t size);

/* ---- ssd_write.c ---- */

MUST_USE enum status ssd_write_init(struct ssd *ssd);
void ssd_write_fini(struct ssd *ssd);
/* What is being packed is packed and written now, blocking. */
void ssd_packs_finish(struct ssd *ssd);
/* Writes the footer of the slots written, blocking. */
MUST_USE enum status ssd_seal_now(struct ssd_segment *segment);
/* A doomed segment without readers: removes it, and goes on with what waited for its room. */
void ssd_segment_gone(struct ssd_segment *segment);
/* Something has ended that others may wait for: goes on with what can. */
void ssd_write_go_on(struct ssd *ssd);

/* ---- ssd_recover.c ---- */

MUST_USE enum status ssd_recover(struct ssd *ssd, struct errmsg *err);

#endif
