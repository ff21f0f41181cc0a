/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_write.c - appending to the open segment, sealing it, and giving up the oldest.
 *
 * A value is copied into a buffer behind its head, and the record is one write. What was dropped is
 * gathered for GONE_DELAY_NS and is one record too. A record that does not fit beside the footer
 * that the segment will need ends the segment; the next one is begun, and the full one is synced,
 * gets its footer and is synced again when its last write has ended. Where there is no room for
 * another segment the oldest goes, with all that is in it.
 *
 * Where values are packed, that comes first, beside the loop, from one half of a buffer to the
 * other:
 *
 *     FREE -- vlog_write() --> packing -- on_packed() --> waiting -- packed_place() --> written
 *       ^                                                   | dropped, or the disk failed |
 *       +---------------------------------------------------+-----------------------------+
 *
 * The order of the log is its meaning, so they get their places in the order in which they were
 * given. What is said to be gone has no value on its way: that was taken back.
 *
 * After ERRORS_MAX failed writes in a row, or when there is no room for a segment that size_max
 * allows, nothing is written for REST_NS: a full or broken disk is asked again now and then.
 *
 * The open segment is synced SYNC_DELAY_NS after a write at the latest: that much is lost with the
 * power. A process that is killed loses nothing that was written. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/le.h"
#include "base/log.h"
#include "store/rank.h"
#include "store/staging.h"
#include "store/vlog_int.h"
#include "store/vlog_pack.h"

#define SYNC_DELAY_NS ENV_NS_PER_S
#define REST_NS (5 * ENV_NS_PER_S)
#define GONE_DELAY_NS ENV_NS_PER_MS

static_assert((int)VLOG_WRITES_MAX <= (int)STAGING_PIECES_MAX, "each write has a piece");

enum { ERRORS_MAX = 3, GONE_BATCH_MAX = 4096 };

static bool resting(const struct vlog *vlog)
{
    return vlog->rest_until_ns > env_now_ns(vlog->env);
}

static void rest(struct vlog *vlog, enum status why)
{
    if (resting(vlog)) return;
    LOG_WARN("vlog", "writing_rests", "directory=%s reason=%s seconds=%u", vlog->directory,
             status_name(why), (unsigned)(REST_NS / ENV_NS_PER_S));
    const uint64_t now_ns = env_now_ns(vlog->env);
    vlog->rest_until_ns = now_ns + REST_NS;
    env_timer_set(vlog->env, &vlog->rest_timer, vlog->room_wanted ? now_ns : vlog->rest_until_ns);
}

/* The rest begins, and whoever waits for room since it was only a matter of time has to know: he
 * asks again, and is told STATUS_UNAVAILABLE. Or it is over. */
static void on_rested(void *ctx)
{
    struct vlog *vlog = ctx;
    if (resting(vlog)) {
        env_timer_set(vlog->env, &vlog->rest_timer, vlog->rest_until_ns);
        vlog->room_wanted = false;
        vlog->options.on_room(vlog->options.ctx);
        return;
    }
    vlog->errors_in_row = 0;
    vlog_write_go_on(vlog);
}

static void write_error(struct vlog *vlog, enum status why)
{
    vlog->counts.write_errors_total++;
    if (++vlog->errors_in_row >= ERRORS_MAX) rest(vlog, why);
}

/* ---- syncing ---- */

static void on_synced(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    (void)n;
    segment->syncing = false;
    if (status != STATUS_OK) segment->dirty = true;
    vlog_write_go_on(segment->vlog); /* sealing may wait for it */
}

static void sync_start(struct vlog_segment *segment)
{
    if (segment->syncing || !segment->dirty) return;
    segment->sync_io = (struct env_io){
        .op = ENV_IO_SYNC, .file = segment->file, .fn = on_synced, .ctx = segment
    };
    segment->syncing = env_io_start(&segment->sync_io) == STATUS_OK;
    if (segment->syncing) segment->dirty = false;
}

static void on_sync_due(void *ctx)
{
    struct vlog *vlog = ctx;
    if (vlog->open != NULL && vlog->open->state == VLOG_OPEN) sync_start(vlog->open);
}

static void written_to(struct vlog_segment *segment)
{
    struct vlog *vlog = segment->vlog;
    segment->dirty = true;
    if (env_timer_armed(&vlog->sync_timer)) return;
    env_timer_set(vlog->env, &vlog->sync_timer, env_now_ns(vlog->env) + SYNC_DELAY_NS);
}

/* ---- sealing ---- */

/* The footer of what is in the segment now. NULL: no memory. */
static uint8_t *footer_make(const struct vlog_segment *segment, struct vlog_footer *footer)
{
    *footer = (struct vlog_footer){ .nonce = segment->nonce,
                                    .at = segment->used,
                                    .gone = segment->gone_count };
    for (const struct vlog_entry *entry = segment->entries; entry != NULL; entry = entry->next) {
        footer->entries_size += vlog_entry_size(entry->key_len);
        footer->entries++;
    }
    footer->pages = vlog_footer_units(footer->gone, footer->entries_size);
    uint8_t *bytes = vlog_alloc_units(footer->pages);
    if (bytes == NULL) return NULL;
    uint8_t *at = bytes + (size_t)BLOCK_KEY_SIZE * footer->gone;
    if (footer->gone > 0) memcpy(bytes, segment->gone, (size_t)(at - bytes));
    for (const struct vlog_entry *entry = segment->entries; entry != NULL; entry = entry->next) {
        at += vlog_entry_encode(&entry->meta, (struct store_key){ entry->key, entry->key_len }, at);
    }
    for (const struct vlog_entry *entry = segment->entries; entry != NULL; entry = entry->next) {
        le_put64(at, entry->meta.attributes.term);
        at += VLOG_TERM_SIZE;
    }
    vlog_footer_encode(footer, bytes);
    if (segment->seal != NULL) {
        uint64_t random;
        env_random(segment->vlog->env, &random, sizeof(random));
        ssd_seal_footer(segment->seal, random, bytes, (size_t)footer->pages * VLOG_UNIT,
                        VLOG_TRAILER_SIZE);
    }
    return bytes;
}

/* What is not needed any more; the file ends behind its footer. */
static void sealed_cut(struct vlog_segment *segment, uint32_t units)
{
    const uint64_t size = (uint64_t)units * VLOG_UNIT;
    free(segment->gone);
    segment->gone = NULL;
    segment->gone_count = segment->gone_capacity = 0;
    if (size > segment->size) return;
    if (env_file_truncate(segment->file, size) == STATUS_OK) vlog_segment_size(segment, size);
}

enum status vlog_seal_now(struct vlog_segment *segment)
{
    struct vlog_footer footer;
    uint8_t *bytes = footer_make(segment, &footer);
    if (bytes == NULL) return STATUS_NO_MEMORY;
    const uint64_t size = (uint64_t)footer.pages * VLOG_UNIT;
    const uint64_t end = (uint64_t)segment->used * VLOG_UNIT + size;
    /* The footer is believed without a look at the records: they have to be there first. */
    enum status status = env_file_sync(segment->file);
    if (status == STATUS_OK) {
        /* Before it is written: one that fails may have made the file longer. */
        if (end > segment->size) vlog_segment_size(segment, end);
        status = env_file_pwrite(segment->file, bytes, size, end - size);
    }
    if (status == STATUS_OK) {
        sealed_cut(segment, segment->used + footer.pages);
        status = env_file_sync(segment->file);
    }
    free(bytes);
    return status;
}

static void sealed(struct vlog_segment *segment, enum status status)
{
    free(segment->io_bytes);
    segment->io_bytes = NULL;
    if (status != STATUS_OK) segment->vlog->counts.write_errors_total++;
    segment->state = VLOG_SEALED; /* without a footer its records are looked at */
    vlog_write_go_on(segment->vlog);
}

static void on_footer_synced(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    (void)n;
    if (status == STATUS_OK) {
        segment->dirty = false;
        sealed_cut(segment, segment->used + segment->io_units);
    }
    sealed(segment, status);
}

static void on_footer_written(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    segment->vlog->counts.bytes_written_total += n;
    segment->io.op = ENV_IO_SYNC;
    segment->io.parts_count = 0;
    segment->io.fn = on_footer_synced;
    if (status == STATUS_OK) status = env_io_start(&segment->io);
    if (status != STATUS_OK) sealed(segment, status);
}

static void on_records_synced(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    struct vlog_footer footer;
    (void)n;

    if (status == STATUS_OK) {
        segment->io_bytes = footer_make(segment, &footer);
        status = segment->io_bytes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    }
    if (status == STATUS_OK) {
        segment->io_units = footer.pages;
        segment->io =
            (struct env_io){ .op = ENV_IO_WRITE,
                             .file = segment->file,
                             .offset = (uint64_t)segment->used * VLOG_UNIT,
                             .parts = { { segment->io_bytes, (size_t)footer.pages * VLOG_UNIT } },
                             .parts_count = 1,
                             .fn = on_footer_written,
                             .ctx = segment };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) sealed(segment, status);
}

static void seal_start(struct vlog_segment *segment)
{
    if (segment->writing > 0 || segment->syncing || segment->io.fn != NULL) return;
    segment->io = (struct env_io){
        .op = ENV_IO_SYNC, .file = segment->file, .fn = on_records_synced, .ctx = segment
    };
    if (env_io_start(&segment->io) != STATUS_OK) segment->io.fn = NULL; /* tried again */
}

/* ---- beginning and giving up ---- */

static bool segment_fits(const struct vlog *vlog)
{
    return vlog->size + vlog->segment_size <= vlog->options.size_max &&
           vlog->segments_count < VLOG_SEGMENTS_MAX;
}

/* The oldest goes, if it can. False: it is not finished, or its last reader is awaited. */
static bool oldest_go(struct vlog *vlog)
{
    struct vlog_segment *segment = vlog->oldest;

    if (segment == NULL || segment->state != VLOG_SEALED) return false;
    segment->state = VLOG_DOOMED;
    while (segment->entries != NULL) {
        struct vlog_entry *entry = segment->entries;
        vlog->counts.values_reclaimed_total++;
        vlog->options.on_removed(vlog->options.ctx, entry);
        vlog_index_remove(vlog, entry);
    }
    if (segment->readers > 0) return false;
    vlog_segment_remove(segment);
    return true;
}

static void segment_refused(struct vlog_segment *segment, enum status status)
{
    struct vlog *vlog = segment->vlog;
    vlog->errors_in_row = ERRORS_MAX;
    vlog->counts.write_errors_total++;
    vlog->full = status == STATUS_FULL;
    vlog->id_next = segment->id; /* no gap: see store/vlog_recover.c */
    vlog_segment_remove(segment);
    rest(vlog, status);
}

static void on_header_written(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    struct vlog *vlog = segment->vlog;

    vlog->counts.bytes_written_total += n;
    free(segment->io_bytes);
    segment->io_bytes = NULL;
    segment->io.fn = NULL;
    if (status != STATUS_OK) {
        segment_refused(segment, status);
        return;
    }
    segment->state = VLOG_OPEN;
    vlog_write_go_on(vlog);
}

static void on_reserved(void *ctx, enum status status, size_t n)
{
    struct vlog_segment *segment = ctx;
    (void)n;
    if (status == STATUS_OK) {
        const struct vlog_header header = { .id = segment->id,
                                            .nonce = segment->nonce,
                                            .packed = segment->packed,
                                            .sealed = segment->seal != NULL };
        segment->io_bytes = vlog_alloc_units(1);
        status = segment->io_bytes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
        if (status == STATUS_OK) vlog_header_encode(&header, segment->io_bytes);
        if (status == STATUS_OK && segment->seal != NULL)
            ssd_seal_header(segment->seal, &segment->seal_info, segment->io_bytes, VLOG_UNIT);
    }
    if (status == STATUS_OK) {
        segment->io = (struct env_io){ .op = ENV_IO_WRITE,
                                       .file = segment->file,
                                       .parts = { { segment->io_bytes, VLOG_UNIT } },
                                       .parts_count = 1,
                                       .fn = on_header_written,
                                       .ctx = segment };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) segment_refused(segment, status);
}

/* With one being finished beside the open one, recovery knows where holes are no damage. */
static bool too_many_unfinished(const struct vlog *vlog)
{
    uint32_t sealing = 0;
    for (const struct vlog_segment *s = vlog->oldest; s != NULL; s = s->newer)
        sealing += s->state == VLOG_SEALING;
    return sealing > 1;
}

/* What is written there is sealed, if that is asked for. */
static enum status segment_key(struct vlog_segment *segment)
{
    const struct ssd_keys *keys = segment->vlog->options.keys;
    uint8_t salt[SSD_SALT_SIZE];

    if (keys == NULL) return STATUS_OK;
    env_random(segment->vlog->env, salt, sizeof(salt));
    segment->seal_info = ssd_seal_info_new(keys, salt);
    return ssd_seal_create(keys, &segment->seal_info, &segment->seal);
}

static void segment_begin(struct vlog *vlog)
{
    const unsigned flags =
        ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE | ENV_FILE_DIRECT;
    char path[VLOG_PATH_SIZE];

    if (vlog->open != NULL || resting(vlog) || too_many_unfinished(vlog)) return;
    while (!segment_fits(vlog) || vlog->full) {
        if (!oldest_go(vlog)) break;
        vlog->full = false;
    }
    if (!segment_fits(vlog)) return;
    struct vlog_segment *segment = vlog_segment_new(vlog, vlog->id_next);
    if (segment == NULL) return;
    vlog->open = segment;
    segment->state = VLOG_OPENING;
    segment->packed = vlog->packer != NULL;
    env_random(vlog->env, &segment->nonce, sizeof(segment->nonce));
    vlog_segment_size(segment, vlog->segment_size);
    vlog_path(vlog, segment->id, path, sizeof(path));
    enum status status = segment_key(segment);
    if (status == STATUS_OK) status = env_file_open(vlog->env, path, flags, &segment->file, NULL);
    if (status == STATUS_OK) {
        segment->io = (struct env_io){ .op = ENV_IO_RESERVE,
                                       .file = segment->file,
                                       .offset = vlog->segment_size,
                                       .fn = on_reserved,
                                       .ctx = segment };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) segment_refused(segment, status);
}

static void segment_full(struct vlog *vlog)
{
    struct vlog_segment *segment = vlog->open;
    segment->state = VLOG_SEALING;
    vlog->open = NULL;
    seal_start(segment);
    segment_begin(vlog);
}

/* ---- appending ---- */

static bool may_append(const struct vlog *vlog)
{
    return vlog->open != NULL && vlog->open->state == VLOG_OPEN && !resting(vlog);
}

/* Whether so many units fit beside the footer of all that is there, and of this. */
static bool record_fits(const struct vlog_segment *segment, uint32_t units, uint64_t entry_size,
                        uint32_t gone)
{
    const uint64_t footer =
        vlog_footer_units((uint64_t)segment->gone_count + gone, segment->entries_size + entry_size);
    return ((uint64_t)segment->used + units + footer) * VLOG_UNIT <= segment->vlog->segment_size;
}

static struct vlog_write *write_free(struct vlog *vlog, uint64_t size)
{
    if (vlog->writes_size > 0 && vlog->writes_size + size > VLOG_BUFFERS_SIZE) return NULL;
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) {
        if (!vlog->writes[i].busy) return &vlog->writes[i];
    }
    return NULL;
}

static struct vlog_write *write_of(struct vlog *vlog, const struct block_key *id)
{
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) {
        struct vlog_write *write = &vlog->writes[i];
        if (write->busy && write->entry != NULL && block_key_equal(&write->id, id)) return write;
    }
    return NULL;
}

static bool ids_add(struct block_key **list, uint32_t *count, uint32_t *capacity,
                    const struct block_key *ids, uint32_t more)
{
    if (*count + more > *capacity) {
        uint32_t room = *capacity == 0 ? 16 : *capacity;
        while (room < *count + more)
            room *= 2;
        struct block_key *grown = realloc(*list, room * sizeof(*grown));
        if (grown == NULL) return false;
        *list = grown;
        *capacity = room;
    }
    memcpy(*list + *count, ids, more * sizeof(*ids));
    *count += more;
    return true;
}

/* To be written soon: the key has no value. */
static void gone_note(struct vlog *vlog, const struct block_key *id)
{
    if (!ids_add(&vlog->gone, &vlog->gone_count, &vlog->gone_capacity, id, 1)) {
        LOG_WARN("vlog", "drop_not_noted", "reason=%s", "out of memory");
    }
    if (env_timer_armed(&vlog->gone_timer)) return;
    env_timer_set(vlog->env, &vlog->gone_timer, env_now_ns(vlog->env) + GONE_DELAY_NS);
}

static void write_over(struct vlog_write *write, enum status status)
{
    struct vlog *vlog = write->vlog;
    struct vlog_segment *segment = write->segment;
    struct vlog_entry *entry = write->entry;
    const struct vlog_entry *present = vlog_find(vlog, &write->id);
    bool dropped = entry == NULL;

    if (!dropped && present != NULL &&
        rank_compare(rank_of(&present->meta.attributes), rank_of(&entry->meta.attributes)) > 0) {
        free(entry); /* a later write was quicker */
        entry = NULL;
        dropped = true;
    }
    if (status == STATUS_OK) {
        vlog->errors_in_row = 0;
        vlog->counts.values_written_total++;
        if (!dropped && !vlog_index_put(segment, entry)) status = STATUS_FULL;
    } else {
        if (present == NULL) gone_note(vlog, &write->id); /* what it would have replaced */
        free(entry);
    }
    if (dropped) status = STATUS_STALE;
    vlog->options.on_written(vlog->options.ctx, &write->id, status);
}

/* What the record was to say has not been said. */
static void gone_again(const struct vlog_write *write)
{
    const uint32_t units = (uint32_t)(write->size / VLOG_UNIT);
    const uint32_t at = (uint32_t)(write->io.offset / VLOG_UNIT);
    struct ssd_seal *seal = write->segment->seal;
    const uint8_t *ids;
    uint32_t count;
    enum status status = STATUS_OK;
    if (seal != NULL) status = vlog_gone_open(seal, at, units, write->buffer);
    if (status == STATUS_OK) status = vlog_gone_decode(write->buffer, units, &ids, &count);
    ASSERT(status == STATUS_OK); /* it is our own */
    for (uint32_t i = 0; i < count; i++) {
        struct block_key id;
        memcpy(id.bytes, ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
        if (vlog_find(write->vlog, &id) == NULL) gone_note(write->vlog, &id);
    }
}

static void on_record_written(void *ctx, enum status status, size_t n)
{
    struct vlog_write *write = ctx;
    struct vlog *vlog = write->vlog;
    struct vlog_segment *segment = write->segment;
    ASSERT(write->busy && segment->writing > 0);

    segment->writing--;
    if (status != STATUS_OK && !write->value) gone_again(write);
    staging_give(vlog->staging, write->buffer);
    vlog->writes_size -= write->size;
    vlog->counts.bytes_written_total += n;
    written_to(segment);
    if (status != STATUS_OK) write_error(vlog, status);
    if (write->value) write_over(write, status);
    write->entry = NULL;
    write->busy = false;
    vlog_write_go_on(vlog);
}

/* The buffer becomes the segment's next units. The entry, or NULL, is the write's. */
static bool append(struct vlog_write *write, struct vlog_segment *segment, uint8_t *buffer,
                   uint32_t units, struct vlog_entry *entry)
{
    struct vlog *vlog = segment->vlog;
    *write = (struct vlog_write){
        .vlog = vlog,
        .segment = segment,
        .entry = entry,
        .value = entry != NULL,
        .buffer = buffer,
        .size = (uint64_t)units * VLOG_UNIT,
        .io = { .op = ENV_IO_WRITE,
                .file = segment->file,
                .parts = { { buffer, (size_t)units * VLOG_UNIT } },
                .parts_count = 1,
                .offset = (uint64_t)segment->used * VLOG_UNIT,
                .fn = on_record_written,
                .ctx = write },
    };
    if (entry != NULL) write->id = entry->meta.id;
    if (env_io_start(&write->io) != STATUS_OK) return false;
    write->busy = true;
    vlog->writes_size += write->size;
    segment->used += units;
    segment->writing++;
    return true;
}

/* What is said of the value, but for its place, where nothing of it is packed. */
static struct vlog_meta meta_of(const struct object *object)
{
    struct vlog_meta meta = { .id = object->id,
                              .head = vlog_head_units(object->key.len, object->sums_count),
                              .size = object->size,
                              .put_id = object->put_id,
                              .digest = object->digest,
                              .attributes = object->attributes };
    meta.pages = meta.head + vlog_units(meta.size);
    return meta;
}

/* The value as a record at the segment's next unit: record_units() of it. */
static void record_fill(const struct vlog_segment *segment, const struct object *object,
                        const uint8_t *data, struct vlog_meta *meta, uint8_t *buffer)
{
    *meta = meta_of(object);
    meta->at = segment->used;
    vlog_head_encode(meta, segment->nonce, object->key, object->sums, object->sums_count, buffer);
    uint8_t *at = buffer + (size_t)meta->head * VLOG_UNIT;
    memcpy(at, data, object->size);
    memset(at + object->size, 0, (size_t)vlog_units(meta->size) * VLOG_UNIT - object->size);
    if (segment->seal != NULL) vlog_value_seal(segment->seal, meta, buffer);
}

static uint32_t record_units(const struct object *object)
{
    return vlog_head_units(object->key.len, object->sums_count) + vlog_units(object->size);
}

/* Is it, or a newer one, there or on its way? */
static bool there(struct vlog *vlog, const struct object *object)
{
    const struct vlog_entry *entry = vlog_find(vlog, &object->id);
    const struct vlog_write *write = write_of(vlog, &object->id);
    const struct rank rank = rank_of(&object->attributes);

    if (write != NULL && rank_compare(rank_of(&write->entry->meta.attributes), rank) >= 0) {
        return true;
    }
    return entry != NULL && rank_compare(rank_of(&entry->meta.attributes), rank) >= 0;
}

/* A record of the key is about to follow, which says the same and more. */
static void gone_forget(struct vlog *vlog, const struct block_key *id)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < vlog->gone_count; i++) {
        if (!block_key_equal(&vlog->gone[i], id)) vlog->gone[kept++] = vlog->gone[i];
    }
    vlog->gone_count = kept;
}

/* ---- packing ---- */

/* Beside the loop: nothing but the write itself, the packer, and what does not change. */
static void pack_run(void *ctx)
{
    struct vlog_write *write = ctx;
    const struct vlog *vlog = write->vlog;
    const uint32_t data = vlog_units(write->value_size);
    uint8_t *record = write->buffer + (size_t)write->head * VLOG_UNIT;
    write->stored = vlog_pack(vlog->packer, &vlog->options.packing,
                              record + (size_t)data * VLOG_UNIT, write->value_size, record);
    write->packed = true;
}

static void packed_end(struct vlog_write *write)
{
    struct vlog *vlog = write->vlog;
    staging_give(vlog->staging, write->buffer);
    vlog->writes_size -= write->size;
    write->packing = write->waiting = false;
    write->entry = NULL;
    write->busy = false;
}

/* At the segment's next unit; the units of the record. */
static uint32_t packed_fill(struct vlog_write *write, const struct vlog_segment *segment)
{
    struct vlog *vlog = write->vlog;
    struct vlog_meta *meta = &write->entry->meta;
    meta->at = segment->used;
    meta->pages = meta->head + write->stored;
    vlog_head_move(write->buffer, segment->nonce, meta->at, meta->pages);
    if (segment->seal != NULL) vlog_value_seal(segment->seal, meta, write->buffer);
    vlog->counts.packed_from_total += (uint64_t)vlog_units(meta->size) * VLOG_UNIT;
    vlog->counts.packed_to_total += (uint64_t)write->stored * VLOG_UNIT;
    return meta->pages;
}

static bool packed_fits(const struct vlog_write *write, const struct vlog_segment *segment)
{
    return record_fits(segment, write->head + write->stored, vlog_entry_size(write->entry->key_len),
                       0);
}

/* It gets no place: it was dropped, or the disk said no. */
static void packed_lost(struct vlog_write *write, enum status status)
{
    struct vlog *vlog = write->vlog;
    const struct block_key id = write->id;
    if (write->entry != NULL && vlog_find(vlog, &id) == NULL)
        gone_note(vlog, &id); /* what it would have replaced */
    free(write->entry);
    packed_end(write);
    vlog->options.on_written(vlog->options.ctx, &id, status);
}

/* The write gets its place, or ends. False: not now. */
static bool packed_place(struct vlog_write *write)
{
    struct vlog *vlog = write->vlog;
    struct vlog_segment *segment = vlog->open;
    ASSERT(write->busy && write->waiting);

    if (write->entry == NULL || resting(vlog)) {
        packed_lost(write, write->entry == NULL ? STATUS_STALE : STATUS_IO);
        return true;
    }
    if (!may_append(vlog)) return false;
    if (!packed_fits(write, segment)) {
        segment_full(vlog);
        return false;
    }
    const struct vlog_write before = *write;
    const uint64_t entry_size = vlog_entry_size(write->entry->key_len);
    const uint32_t units = packed_fill(write, segment);
    if (!append(write, segment, write->buffer, units, write->entry)) {
        *write = before; /* but sealed by now: it cannot be tried again */
        write_error(vlog, STATUS_IO);
        packed_lost(write, STATUS_IO);
        return true;
    }
    vlog->writes_size -= before.size;
    segment->entries_size += entry_size;
    gone_forget(vlog, &write->id);
    return true;
}

/* The first of those that have no place yet. NULL: all have. */
static struct vlog_write *packed_first(struct vlog *vlog)
{
    struct vlog_write *first = NULL;
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) {
        struct vlog_write *write = &vlog->writes[i];
        if (!write->packing && !write->waiting) continue;
        if (first == NULL || write->order < first->order) first = write;
    }
    return first;
}

static void packs_place(struct vlog *vlog)
{
    struct vlog_write *write = packed_first(vlog);
    if (write != NULL) segment_begin(vlog);
    while (write != NULL && write->waiting && packed_place(write))
        write = packed_first(vlog);
}

static void pack_next(struct vlog *vlog);

static void packed(struct vlog_write *write)
{
    ASSERT(write->busy && write->packing && write->packed && write->vlog->packing_now == write);
    write->vlog->packing_now = NULL;
    write->packing = false;
    write->waiting = true;
}

static void on_packed(void *ctx)
{
    struct vlog_write *write = ctx;
    packed(write);
    pack_next(write->vlog);
    vlog_write_go_on(write->vlog);
}

/* One at a time, in the order in which they came. */
static void pack_next(struct vlog *vlog)
{
    struct vlog_write *first = NULL;
    if (vlog->packing_now != NULL) return;
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) {
        struct vlog_write *write = &vlog->writes[i];
        if (write->packing && (first == NULL || write->order < first->order)) first = write;
    }
    if (first == NULL) return;
    vlog->packing_now = first;
    first->job = (struct env_job){ .run = pack_run, .done = on_packed, .ctx = first };
    if (env_job_start(vlog->env, &first->job) == STATUS_OK) return;
    pack_run(first); /* slow, but no value is lost */
    packed(first);
    pack_next(vlog);
    packs_place(vlog);
}

/* The head is there, but for its place, and behind what is to become of the value it is itself. */
static void pack_fill(struct vlog_write *write, const struct object *object, const uint8_t *data)
{
    const struct vlog_meta meta = meta_of(object);
    vlog_head_encode(&meta, 0, object->key, object->sums, object->sums_count, write->buffer);
    memcpy(write->buffer + (size_t)meta.pages * VLOG_UNIT, data, object->size);
    write->head = meta.head;
    write->value_size = object->size;
}

static enum status pack_start(struct vlog *vlog, const struct object *object, const uint8_t *data)
{
    const struct vlog_meta meta = meta_of(object);
    const uint64_t size = (uint64_t)(meta.pages + vlog_units(meta.size)) * VLOG_UNIT;
    struct vlog_write *write = may_append(vlog) ? write_free(vlog, size) : NULL;
    if (write == NULL) return STATUS_FULL;
    uint8_t *buffer = staging_take(vlog->staging, size);
    struct vlog_entry *entry = buffer != NULL ? vlog_entry_new(&meta, object->key) : NULL;
    if (entry == NULL) {
        if (buffer != NULL) staging_give(vlog->staging, buffer);
        return STATUS_FULL;
    }
    *write = (struct vlog_write){ .vlog = vlog,
                                  .busy = true,
                                  .entry = entry,
                                  .id = object->id,
                                  .value = true,
                                  .buffer = buffer,
                                  .size = size,
                                  .packing = true,
                                  .order = vlog->order_next++ };
    pack_fill(write, object, data);
    vlog->writes_size += size;
    pack_next(vlog);
    return STATUS_OK;
}

/* At the end, and blocking. False: the value is lost. */
static bool packed_write_now(struct vlog_write *write)
{
    struct vlog *vlog = write->vlog;
    struct vlog_segment *segment = vlog->open;
    if (!may_append(vlog) || !packed_fits(write, segment)) return false;
    struct vlog_entry *entry = write->entry;
    const uint32_t units = packed_fill(write, segment);
    const enum status status =
        env_file_pwrite(segment->file, write->buffer, (size_t)units * VLOG_UNIT,
                        (uint64_t)segment->used * VLOG_UNIT);
    segment->used += units;
    segment->entries_size += vlog_entry_size(entry->key_len);
    segment->dirty = true;
    if (status != STATUS_OK) return false;
    write->entry = NULL; /* the index has it, or it is freed */
    gone_forget(vlog, &write->id);
    return vlog_index_put(segment, entry);
}

static void packs_finish(struct vlog *vlog)
{
    struct vlog_write *write;
    while ((write = packed_first(vlog)) != NULL) {
        if (write == vlog->packing_now) env_job_settle(&write->job);
        if (write == vlog->packing_now) vlog->packing_now = NULL;
        if (write->entry != NULL && !write->packed) pack_run(write);
        if (write->entry != NULL && !packed_write_now(write)) {
            free(write->entry);
            gone_note(vlog, &write->id); /* what it would have replaced */
        }
        packed_end(write);
    }
}

/* ---- writing ---- */

static enum status value_append(struct vlog *vlog, const struct object *object, const uint8_t *data)
{
    const uint32_t units = record_units(object);
    struct vlog_write *write = write_free(vlog, (uint64_t)units * VLOG_UNIT);
    struct vlog_segment *segment = vlog->open;
    const uint64_t entry_size = vlog_entry_size(object->key.len);
    struct vlog_meta meta;

    if (write == NULL || !may_append(vlog)) return STATUS_FULL;
    if (!record_fits(segment, units, entry_size, 0)) {
        segment_full(vlog);
        return STATUS_FULL;
    }
    uint8_t *buffer = staging_take(vlog->staging, (uint64_t)units * VLOG_UNIT);
    if (buffer == NULL) return STATUS_FULL;
    record_fill(segment, object, data, &meta, buffer);
    struct vlog_entry *entry = vlog_entry_new(&meta, object->key);
    if (entry != NULL && append(write, segment, buffer, units, entry)) {
        segment->entries_size += entry_size;
        gone_forget(vlog, &object->id);
        return STATUS_OK;
    }
    free(entry);
    staging_give(vlog->staging, buffer);
    return STATUS_FULL;
}

enum status vlog_write(struct vlog *vlog, const struct object *object, const uint8_t *data)
{
    if (object->size > vlog_value_max(vlog)) return STATUS_INVALID;
    if (there(vlog, object)) return STATUS_EXISTS;
    segment_begin(vlog);
    const enum status status =
        vlog->packer != NULL ? pack_start(vlog, object, data) : value_append(vlog, object, data);
    if (status == STATUS_OK) {
        vlog->counts.bytes_accepted_total += object->size;
        return status;
    }
    vlog->room_wanted = true;
    return resting(vlog) ? STATUS_UNAVAILABLE : status;
}

/* ---- dropping ---- */

bool vlog_segment_gone(struct vlog_segment *segment, const struct block_key *ids, uint32_t count)
{
    return ids_add(&segment->gone, &segment->gone_count, &segment->gone_capacity, ids, count);
}

/* Writes what is gone, as much as there is room for. */
static void gone_write(struct vlog *vlog)
{
    uint32_t count = vlog->gone_count < GONE_BATCH_MAX ? vlog->gone_count : GONE_BATCH_MAX;
    if (count == 0) return;
    segment_begin(vlog);
    if (!may_append(vlog)) return;
    const uint32_t units = vlog_gone_units(count);
    struct vlog_segment *segment = vlog->open;
    struct vlog_write *write = write_free(vlog, 0);
    if (write == NULL) return;
    if (!record_fits(segment, units, 0, count)) {
        segment_full(vlog);
        return;
    }
    uint8_t *buffer = staging_take(vlog->staging, (uint64_t)units * VLOG_UNIT);
    if (buffer == NULL) return;
    if (!vlog_segment_gone(segment, vlog->gone, count)) {
        staging_give(vlog->staging, buffer);
        return;
    }
    vlog_gone_encode(segment->nonce, segment->used, vlog->gone, count, buffer);
    if (segment->seal != NULL) vlog_gone_seal(segment->seal, segment->used, units, buffer);
    if (!append(write, segment, buffer, units, NULL)) {
        segment->gone_count -= count;
        staging_give(vlog->staging, buffer);
        return;
    }
    vlog->gone_count -= count;
    memmove(vlog->gone, vlog->gone + count, vlog->gone_count * sizeof(*vlog->gone));
}

static void on_gone_due(void *ctx)
{
    gone_write(ctx);
}

bool vlog_drop(struct vlog *vlog, const struct block_key *id)
{
    struct vlog_entry *entry = vlog_find(vlog, id);
    struct vlog_write *write = write_of(vlog, id);

    if (entry == NULL && write == NULL) return false;
    if (entry != NULL) vlog_index_remove(vlog, entry);
    for (; write != NULL; write = write_of(vlog, id)) {
        free(write->entry);
        write->entry = NULL;
    }
    gone_note(vlog, id);
    return true;
}

void vlog_write_go_on(struct vlog *vlog)
{
    struct vlog_segment *next;

    if (vlog->closing || !vlog->opened) return;
    for (struct vlog_segment *segment = vlog->oldest; segment != NULL; segment = next) {
        next = segment->newer;
        if (segment->state == VLOG_SEALING) seal_start(segment);
    }
    if (vlog->packer != NULL) packs_place(vlog);
    if (!env_timer_armed(&vlog->gone_timer)) gone_write(vlog);
    if (!vlog->room_wanted) return;
    segment_begin(vlog);
    if (!may_append(vlog) || write_free(vlog, 0) == NULL) return;
    vlog->room_wanted = false;
    vlog->options.on_room(vlog->options.ctx);
}

/* ---- at the end ---- */

enum status vlog_write_now(struct vlog *vlog, const struct object *object, const uint8_t *data)
{
    struct vlog_segment *segment = vlog->open;
    const uint64_t entry_size = vlog_entry_size(object->key.len);
    struct vlog_meta meta;

    if (object->size > vlog_value_max(vlog)) return STATUS_INVALID;
    packs_finish(vlog);
    segment = vlog->open;
    if (there(vlog, object)) return STATUS_EXISTS;
    if (!may_append(vlog) || !record_fits(segment, record_units(object), entry_size, 0)) {
        return STATUS_FULL;
    }
    uint8_t *buffer = vlog_alloc_units(record_units(object));
    if (buffer == NULL) return STATUS_FULL;
    record_fill(segment, object, data, &meta, buffer);
    struct vlog_entry *entry = vlog_entry_new(&meta, object->key);
    enum status status = STATUS_FULL;
    if (entry != NULL) {
        status = env_file_pwrite(segment->file, buffer, (size_t)meta.pages * VLOG_UNIT,
                                 (uint64_t)meta.at * VLOG_UNIT);
        segment->used += meta.pages;
        segment->entries_size += entry_size;
        segment->dirty = true;
    }
    if (status == STATUS_OK) {
        if (!vlog_index_put(segment, entry)) status = STATUS_FULL;
    } else {
        free(entry);
    }
    free(buffer);
    return status;
}

/* Without this a value that was dropped just now would be found again. */
static void gone_write_now(struct vlog *vlog)
{
    struct vlog_segment *segment = vlog->open;
    const uint32_t units = vlog_gone_units(vlog->gone_count);

    if (vlog->gone_count == 0 || !may_append(vlog)) return;
    if (!record_fits(segment, units, 0, vlog->gone_count)) return;
    uint8_t *buffer = vlog_alloc_units(units);
    if (buffer == NULL || !vlog_segment_gone(segment, vlog->gone, vlog->gone_count)) {
        free(buffer);
        return;
    }
    vlog_gone_encode(segment->nonce, segment->used, vlog->gone, vlog->gone_count, buffer);
    if (segment->seal != NULL) vlog_gone_seal(segment->seal, segment->used, units, buffer);
    const enum status status = env_file_pwrite(segment->file, buffer, (size_t)units * VLOG_UNIT,
                                               (uint64_t)segment->used * VLOG_UNIT);
    if (status == STATUS_OK) vlog->gone_count = 0;
    segment->used += units;
    free(buffer);
}

void vlog_finish_now(struct vlog *vlog)
{
    packs_finish(vlog);
    gone_write_now(vlog);
    struct vlog_segment *segment = vlog->open;
    if (vlog->gone_count > 0) LOG_WARN("vlog", "drops_not_written", "count=%u", vlog->gone_count);
    if (segment == NULL || segment->state != VLOG_OPEN) return;
    if (segment->writing > 0 || segment->syncing) return; /* its records are looked at */
    if (segment->live == 0 && segment->gone_count == 0) {
        vlog_segment_remove(segment);
        return;
    }
    if (vlog_seal_now(segment) != STATUS_OK) {
        LOG_WARN("vlog", "not_sealed", "segment=%llu", (unsigned long long)segment->id);
    }
}

bool vlog_write_init(struct vlog *vlog)
{
    const uint64_t buffers =
        vlog->segment_size < VLOG_BUFFERS_SIZE ? vlog->segment_size : VLOG_BUFFERS_SIZE;
    env_timer_init(&vlog->rest_timer, on_rested, vlog);
    env_timer_init(&vlog->sync_timer, on_sync_due, vlog);
    env_timer_init(&vlog->gone_timer, on_gone_due, vlog);
    vlog->staging = staging_create(buffers, VLOG_UNIT);
    return vlog->staging != NULL;
}

void vlog_write_fini(struct vlog *vlog)
{
    env_timer_cancel(vlog->env, &vlog->rest_timer);
    env_timer_cancel(vlog->env, &vlog->sync_timer);
    env_timer_cancel(vlog->env, &vlog->gone_timer);
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) {
        if (vlog->writes[i].busy) free(vlog->writes[i].entry);
    }
    staging_destroy(vlog->staging);
    free(vlog->gone);
}
