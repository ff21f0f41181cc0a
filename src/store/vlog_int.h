/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_int.h - the inside of the log of values, shared by vlog.c (index, reading, life),
 * vlog_write.c (appending, sealing, giving up) and vlog_recover.c (opening what is there). */
#ifndef STORE_VLOG_INT_H
#define STORE_VLOG_INT_H

#include "base/env.h"
#include "store/ssd_format.h"
#include "store/vlog.h"

struct map;
struct sketch;
struct slab;
struct staging;

/* Life of a segment.
 *
 *                  space, header are there    full           written, synced, footer
 *    -> OPENING ------------------> OPEN -----------> SEALING ----------> SEALED
 *          | refused                                                        | the oldest, and
 *          v                            no reader left                      v room is wanted
 *        freed <-------------------------------------------------------- DOOMED
 *
 * What recovery finds is SEALED from the start. */
enum vlog_state { VLOG_OPENING, VLOG_OPEN, VLOG_SEALING, VLOG_SEALED, VLOG_DOOMED };

struct vlog_segment {
    struct vlog *vlog;
    struct vlog_segment *newer; /* the list of all, the oldest first */
    enum vlog_state state;
    uint64_t id;
    uint64_t nonce;
    struct ssd_seal *seal; /* NULL: clear */
    struct ssd_seal_info seal_info;
    bool packed;   /* values in it may be */
    uint64_t size; /* bytes of disk it counts for */
    struct env_file *file;
    uint32_t used; /* units, from the first, given out */
    uint32_t live; /* values that the index points to */
    uint32_t writing;
    uint32_t readers;
    struct vlog_entry *entries;
    uint64_t entries_size; /* that the footer needs at most */
    struct block_key *gone;
    uint32_t gone_count;
    uint32_t gone_capacity;
    bool dirty; /* written to since the last sync began */
    bool syncing;
    struct env_io io; /* opening, sealing: one after the other */
    struct env_io sync_io;
    uint8_t *io_bytes;
    uint32_t io_units;
};

/* A record on its way. */
struct vlog_write {
    struct vlog *vlog;
    bool busy;
    struct vlog_segment *segment;
    struct vlog_entry *entry; /* NULL: a list of what is gone, or dropped meanwhile */
    struct block_key id;      /* of what was to be written */
    bool value;
    uint8_t *buffer;
    uint64_t size; /* of the buffer */
    struct env_io io;
    /* While it is packed: it has no place yet, and behind the record is the value as it was. */
    bool packing;
    bool waiting;    /* packed, and for a place */
    bool packed;     /* that is done: */
    uint32_t stored; /* units of what became of the value */
    uint32_t head;   /* of its record */
    uint64_t value_size;
    uint64_t order; /* they are packed, and get places, in this order */
    struct env_job job;
};

struct vlog {
    struct env *env;
    struct vlog_options options;
    char *directory;
    struct env_file *lock;
    uint64_t segment_size;
    struct map *index;  /* id -> struct vlog_entry * */
    struct slab *slots; /* struct vlog_entry *, for walks */
    struct sketch *sketch;
    struct ssd_packer *packer;       /* of packing_now's job; NULL: what is written is not packed */
    struct ssd_packer *unpacker;     /* of unpacking_now's job, and of recovery; NULL: nothing was
                                        packed */
    struct vlog_write *packing_now;  /* NULL: none */
    uint64_t order_next;             /* of packing */
    struct vlog_read *unpacking;     /* the one that waits longest is the last */
    struct vlog_read *unpacking_now; /* of them; NULL: none */
    struct vlog_segment *oldest;
    struct vlog_segment *newest;
    uint32_t segments_count;
    struct vlog_segment *open; /* OPENING or OPEN; NULL */
    uint64_t id_next;
    uint64_t size;
    uint64_t memory; /* of entries */
    struct vlog_write writes[VLOG_WRITES_MAX];
    uint64_t writes_size;    /* bytes of buffers on their way */
    struct staging *staging; /* the buffers */
    struct block_key *gone;  /* to be written */
    uint32_t gone_count;
    uint32_t gone_capacity;
    bool room_wanted;
    bool full; /* the disk had no room for the last segment begun */
    uint32_t errors_in_row;
    uint64_t rest_until_ns;
    struct env_timer rest_timer;
    struct env_timer sync_timer;
    struct env_timer gone_timer;
    bool opened;
    bool closing;
    struct vlog_counts counts;
};

/* ---- vlog.c ---- */

void vlog_path(const struct vlog *vlog, uint64_t id, char out[], size_t size);
enum { VLOG_PATH_SIZE = 4096 + SSD_NAME_SIZE };

/* Behind the newest. NULL: no memory, or too many. */
struct vlog_segment *vlog_segment_new(struct vlog *vlog, uint64_t id);
/* Closes and forgets it; the file stays. It has no entries. */
void vlog_segment_free(struct vlog_segment *segment);
void vlog_segment_remove(struct vlog_segment *segment);
void vlog_segment_size(struct vlog_segment *segment, uint64_t size);

/* NULL: no memory. */
struct vlog_entry *vlog_entry_new(const struct vlog_meta *meta, struct store_key key);
/* The index has it from here on, in place of what it had. False: no memory; the entry is freed. */
bool vlog_index_put(struct vlog_segment *segment, struct vlog_entry *entry);
/* Out of the index, told to nobody, and freed. */
void vlog_index_remove(struct vlog *vlog, struct vlog_entry *entry);

uint8_t *vlog_alloc_units(uint32_t units);

/* ---- vlog_write.c ---- */

/* False: no memory; vlog_write_fini() is due in any case. */
bool vlog_write_init(struct vlog *vlog);
void vlog_write_fini(struct vlog *vlog);
/* To the list of the segment's footer. False: no memory. */
bool vlog_segment_gone(struct vlog_segment *segment, const struct block_key *ids, uint32_t count);
MUST_USE enum status vlog_seal_now(struct vlog_segment *segment);
/* Writes what is gone, blocking, and finishes the open segment. */
void vlog_finish_now(struct vlog *vlog);
void vlog_write_go_on(struct vlog *vlog);

/* ---- vlog_recover.c ---- */

MUST_USE enum status vlog_recover(struct vlog *vlog, struct errmsg *err);

#endif
