/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_write.c - appending to the open segment, sealing it, and giving up the oldest.
 *
 * A block is copied into a buffer behind the header of its record, and the record is one write. The
 * pages of the pool are never waited for. When the last slot of a segment is given out, the next
 * segment is begun at once, while the full one finishes its writes, gets its footer and is synced.
 *
 * Room is made ahead: as soon as a segment is open and no other would fit beside it, one is chosen
 * to go. Its blocks that were asked for at least CARRY_HEAT times lately are read, verified, and
 * appended like new ones, at most a quarter of its slots: a byte accepted costs at most 4/3 bytes
 * written. Blocks stay readable in the old place until the new one is written.
 *
 * After ERRORS_MAX failed writes in a row, or when there is no room for a segment that size_max
 * allows, nothing is written for REST_NS: a full or broken disk is asked again now and then.
 *
 * Where blocks are packed, that comes first, in the buffer, beside the loop:
 *
 *     FREE --- append() ---> packing --- on_packed() ---> waiting --- packed_place() ---> written
 *       ^                                                 |  for a segment                    |
 *       +-------------------------------------------------+-----------------------------------+
 *                                    carried, and there is nowhere to go
 *
 * A record gets slot and place when it is known how long it is; what does not fit the segment ends
 * it. So the order of the log is that of the ends of packing.
 *
 * The open segment is synced SYNC_DELAY_NS after a write at the latest: that much is lost with the
 * power. A process that is killed loses nothing that was written. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/huge.h"
#include "base/log.h"
#include "store/ssd_int.h"

#define SYNC_DELAY_NS ENV_NS_PER_S
#define REST_NS (5 * ENV_NS_PER_S)

enum { CARRY_HEAT = 2, CARRY_SHARE = 4, ERRORS_MAX = 3, SEGMENTS_SPARE = 4 };

static void reclaim_start(struct ssd *ssd);
static void reclaim_step(struct ssd *ssd);

static bool resting(const struct ssd *ssd)
{
    return ssd->rest_until_ns > env_now_ns(ssd->env);
}

static void rest(struct ssd *ssd, const char *why)
{
    if (resting(ssd)) return;
    LOG_WARN("ssd", "writing_rests", "directory=%s reason=%s seconds=%u", ssd->directory, why,
             (unsigned)(REST_NS / ENV_NS_PER_S));
    ssd->rest_until_ns = env_now_ns(ssd->env) + REST_NS;
    env_timer_set(ssd->env, &ssd->rest_timer, ssd->rest_until_ns);
}

static void on_rested(void *ctx)
{
    struct ssd *ssd = ctx;
    ssd->errors_in_row = 0;
    ssd_write_go_on(ssd);
}

static void size_set(struct ssd_segment *segment, uint64_t size)
{
    struct ssd *ssd = segment->ssd;
    ASSERT(ssd->size >= segment->size);
    ssd->size = ssd->size - segment->size + size;
    segment->size = size;
}

/* ---- syncing ---- */

static void on_synced(void *ctx, enum status status, size_t n)
{
    struct ssd_segment *segment = ctx;
    (void)n;
    segment->syncing = false;
    segment->ssd->counts.syncs_total++;
    segment->sync_failed = status != STATUS_OK;
    if (status == STATUS_OK && segment->sync_upto > segment->synced) {
        segment->synced = segment->sync_upto;
    }
    ssd_write_go_on(segment->ssd); /* sealing may wait for it */
}

static void sync_start(struct ssd_segment *segment)
{
    if (segment->syncing || segment->synced == segment->written) return;
    segment->sync_upto = segment->written;
    segment->sync_io = (struct env_io){
        .op = ENV_IO_SYNC, .file = segment->file, .fn = on_synced, .ctx = segment
    };
    segment->syncing = env_io_start(&segment->sync_io) == STATUS_OK;
}

static void on_sync_due(void *ctx)
{
    struct ssd *ssd = ctx;
    if (ssd->open != NULL && ssd->open->state == SEGMENT_OPEN) sync_start(ssd->open);
}

static void sync_soon(struct ssd *ssd)
{
    if (env_timer_armed(&ssd->sync_timer)) return;
    env_timer_set(ssd->env, &ssd->sync_timer, env_now_ns(ssd->env) + SYNC_DELAY_NS);
}

/* ---- sealing ---- */

uint64_t ssd_end_offset(const struct ssd_segment *segment)
{
    if (segment->places != NULL) return (uint64_t)segment->end * SSD_ALIGN;
    return ssd_record_offset(&segment->ssd->layout, segment->used);
}

/* The footer of what can be found in the segment; NULL: no memory. */
static uint8_t *footer_make(const struct ssd_segment *segment, struct ssd_footer *footer)
{
    struct ssd_entry *entries = calloc(segment->live + 1, sizeof(*entries));
    uint8_t *bytes = NULL;

    *footer = (struct ssd_footer){ .nonce = segment->nonce,
                                   .offset = ssd_end_offset(segment),
                                   .used = segment->used,
                                   .packed = segment->places != NULL };
    for (uint32_t slot = 0; entries != NULL && slot < segment->used; slot++) {
        if (!ssd_index_points(segment, slot)) continue;
        ASSERT(footer->entries < segment->live);
        entries[footer->entries] = (struct ssd_entry){ .key = segment->keys[slot], .slot = slot };
        if (footer->packed) entries[footer->entries].place = segment->places[slot];
        footer->entries++;
    }
    const uint64_t size = ssd_footer_size(footer->entries, footer->packed);
    if (entries != NULL) bytes = ssd_alloc_aligned(size);
    if (bytes != NULL) ssd_footer_encode(footer, entries, bytes);
    if (bytes != NULL && segment->seal != NULL) {
        uint64_t random;
        env_random(segment->ssd->env, &random, sizeof(random));
        ssd_seal_footer(segment->seal, random, bytes, size, SSD_TRAILER_SIZE);
    }
    free(entries);
    return bytes;
}

/* The file ends behind its footer: gives back what was reserved for more. */
static void sealed_cut(struct ssd_segment *segment, uint64_t size)
{
    if (size > segment->size) return;
    if (env_file_truncate(segment->file, size) == STATUS_OK) size_set(segment, size);
}

enum status ssd_seal_now(struct ssd_segment *segment)
{
    struct ssd_footer footer;
    uint8_t *bytes = footer_make(segment, &footer);
    if (bytes == NULL) return STATUS_NO_MEMORY;
    const uint64_t size = ssd_footer_size(footer.entries, footer.packed);
    enum status status = env_file_sync(segment->file); /* see seal_start() */
    if (status == STATUS_OK) {
        /* Before it is written: one that fails may have made the file longer. */
        if (footer.offset + size > segment->size) size_set(segment, footer.offset + size);
        status = env_file_pwrite(segment->file, bytes, size, footer.offset);
    }
    if (status == STATUS_OK) sealed_cut(segment, footer.offset + size);
    free(bytes);
    return status == STATUS_OK ? env_file_sync(segment->file) : status;
}

static void sealed(struct ssd_segment *segment, enum status status)
{
    free(segment->io_bytes);
    segment->io_bytes = NULL;
    segment->io.fn = NULL;
    if (status == STATUS_OK) {
        segment->synced = segment->used;
    } else {
        LOG_WARN("ssd", "not_sealed", "segment=%llu reason=%s", (unsigned long long)segment->id,
                 status_name(status));
    }
    ssd_segment_state(segment, SEGMENT_SEALED);
    ssd_write_go_on(segment->ssd);
}

static void on_seal_synced(void *ctx, enum status status, size_t n)
{
    (void)n;
    sealed(ctx, status);
}

static void on_footer_written(void *ctx, enum status status, size_t n)
{
    struct ssd_segment *segment = ctx;

    segment->ssd->counts.bytes_written_total += n;
    if (status == STATUS_OK) {
        sealed_cut(segment, segment->io.offset + n);
        segment->io = (struct env_io){
            .op = ENV_IO_SYNC, .file = segment->file, .fn = on_seal_synced, .ctx = segment
        };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) sealed(segment, status);
}

/* When nothing is on its way in it any more, and all of it is on the disk: a footer is believed, so
 * it must not get there before what it speaks of. */
static void seal_start(struct ssd_segment *segment)
{
    struct ssd_footer footer;
    if (segment->writing > 0 || segment->syncing || segment->io.fn != NULL) return;
    if (segment->synced < segment->used && !segment->sync_failed) {
        sync_start(segment);
        if (segment->syncing) return;
    }
    if (segment->synced < segment->used) { /* no footer: it is looked at when it is opened again */
        sealed(segment, STATUS_IO);
        return;
    }
    segment->io_bytes = footer_make(segment, &footer);
    enum status status = segment->io_bytes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        segment->io = (struct env_io){
            .op = ENV_IO_WRITE,
            .file = segment->file,
            .parts = { { segment->io_bytes, ssd_footer_size(footer.entries, footer.packed) } },
            .parts_count = 1,
            .offset = footer.offset,
            .fn = on_footer_written,
            .ctx = segment
        };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) sealed(segment, status);
}

/* ---- beginning a segment ---- */

/* The disk would not have it. */
static void segment_refused(struct ssd_segment *segment, enum status status)
{
    struct ssd *ssd = segment->ssd;

    ssd->counts.full_total += status == STATUS_FULL;
    ssd->counts.write_errors_total += status != STATUS_FULL;
    ssd->full = status == STATUS_FULL;
    ssd_segment_state(segment, SEGMENT_DOOMED);
    ssd_segment_remove(segment);
    rest(ssd, status_name(status));
    if (ssd->full) reclaim_start(ssd); /* others have taken the disk: with less, then */
}

static void on_header_written(void *ctx, enum status status, size_t n)
{
    struct ssd_segment *segment = ctx;
    struct ssd *ssd = segment->ssd;

    ssd->counts.bytes_written_total += n;
    free(segment->io_bytes);
    segment->io_bytes = NULL;
    segment->io = (struct env_io){ 0 };
    if (status != STATUS_OK) {
        segment_refused(segment, status);
        return;
    }
    ssd->full = false;
    ssd_segment_state(segment, SEGMENT_OPEN);
    ssd_write_go_on(ssd);
}

static void on_reserved(void *ctx, enum status status, size_t n)
{
    struct ssd_segment *segment = ctx;
    struct ssd *ssd = segment->ssd;
    (void)n;

    if (status == STATUS_OK) {
        segment->io_bytes = ssd_alloc_aligned(SSD_ALIGN);
        status = segment->io_bytes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    }
    if (status == STATUS_OK) {
        const struct ssd_header header = { .id = segment->id,
                                           .nonce = segment->nonce,
                                           .slots = segment->slots,
                                           .layout = ssd->layout,
                                           .parts = segment->places != NULL ? ssd->parts : 0,
                                           .sealed = segment->seal != NULL };
        ssd_header_encode(&header, segment->io_bytes);
        if (segment->seal != NULL)
            ssd_seal_header(segment->seal, &segment->seal_info, segment->io_bytes, SSD_ALIGN);
        segment->io = (struct env_io){ .op = ENV_IO_WRITE,
                                       .file = segment->file,
                                       .parts = { { segment->io_bytes, SSD_ALIGN } },
                                       .parts_count = 1,
                                       .fn = on_header_written,
                                       .ctx = segment };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) segment_refused(segment, status);
}

static enum status segment_create(struct ssd *ssd, uint64_t size)
{
    const unsigned flags =
        ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE | ENV_FILE_DIRECT;
    const bool packed = ssd->packer != NULL;
    struct ssd_segment *segment =
        ssd_segment_new(ssd, ssd->id_next, packed ? SSD_PACKED_SLOTS * ssd->slots : ssd->slots);
    char path[SSD_PATH_SIZE];

    if (segment == NULL) return STATUS_NO_MEMORY;
    if (packed && !ssd_segment_pack(segment)) {
        ssd_segment_free(segment);
        return STATUS_NO_MEMORY;
    }
    segment->end_max = (uint32_t)(ssd_record_offset(&ssd->layout, ssd->slots) / SSD_ALIGN);
    segment->state = SEGMENT_OPENING;
    env_random(ssd->env, &segment->nonce, sizeof(segment->nonce));
    ssd->open = segment;
    size_set(segment, size);
    ssd_path(ssd, segment->id, path, sizeof(path));
    enum status status = STATUS_OK;
    if (ssd->options.keys != NULL) {
        uint8_t salt[SSD_SALT_SIZE];
        env_random(ssd->env, salt, sizeof(salt));
        segment->seal_info = ssd_seal_info_new(ssd->options.keys, salt);
        status = ssd_seal_create(ssd->options.keys, &segment->seal_info, &segment->seal);
    }
    if (status == STATUS_OK) status = env_file_open(ssd->env, path, flags, &segment->file, NULL);
    if (status == STATUS_OK) {
        segment->io = (struct env_io){ .op = ENV_IO_RESERVE,
                                       .file = segment->file,
                                       .offset = size,
                                       .fn = on_reserved,
                                       .ctx = segment };
        status = env_io_start(&segment->io);
    }
    if (status != STATUS_OK) ssd_segment_remove(segment);
    return status;
}

static uint64_t new_segment_size(const struct ssd *ssd)
{
    return ssd_segment_size(&ssd->layout, ssd->slots, ssd->packer != NULL);
}

static bool segment_fits(const struct ssd *ssd)
{
    const uint64_t size = new_segment_size(ssd);
    return ssd->size + size <= ssd->options.size_max &&
           ssd->segments_count + SEGMENTS_SPARE <= SSD_SEGMENTS_MAX;
}

static void segment_begin(struct ssd *ssd)
{
    if (ssd->open != NULL || resting(ssd)) return;
    if (!segment_fits(ssd) || ssd->full) {
        reclaim_start(ssd); /* may end at once, and begin the segment */
        if (ssd->open != NULL || resting(ssd) || !segment_fits(ssd)) return;
    }
    const enum status status = segment_create(ssd, new_segment_size(ssd));
    if (status == STATUS_OK) return;
    ssd->counts.write_errors_total++;
    rest(ssd, status_name(status));
}

/* ---- appending ---- */

static void written_advance(struct ssd_segment *segment)
{
    while (segment->written < segment->used && segment->states[segment->written] != SLOT_WRITING)
        segment->written++;
}

static void on_record_written(void *ctx, enum status status, size_t n)
{
    struct ssd_write *write = ctx;
    struct ssd *ssd = write->ssd;
    struct ssd_segment *segment = write->segment;
    ASSERT(write->busy && segment->writing > 0 && segment->states[write->slot] == SLOT_WRITING);

    write->busy = false;
    segment->writing--;
    segment->states[write->slot] = status == STATUS_OK ? SLOT_WRITTEN : SLOT_DEAD;
    written_advance(segment);
    ssd->counts.bytes_written_total += n;
    if (write->carried) ssd->reclaim.writes--;
    if (status == STATUS_OK) {
        ssd->errors_in_row = 0;
        ssd->counts.blocks_carried_total += write->carried;
        ssd->counts.blocks_written_total += !write->carried;
        ssd_index_put(segment, write->slot, &write->key);
        sync_soon(ssd);
        ssd->options.on_stored(ssd->options.ctx, &write->key);
    } else {
        if (write->slot < segment->failed) segment->failed = write->slot;
        ssd->counts.write_errors_total++;
        if (++ssd->errors_in_row >= ERRORS_MAX) rest(ssd, status_name(status));
    }
    ssd_write_go_on(ssd);
}

static bool on_its_way(const struct ssd *ssd, const struct block_key *key)
{
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        const struct ssd_write *write = &ssd->writes[i];
        if (write->busy && block_key_equal(&write->key, key)) return true;
    }
    return false;
}

/* On huge pages: of those a disk takes a record in a piece or two, else in hundreds. */
static bool buffers_make(struct ssd *ssd)
{
    if (ssd->buffers == NULL)
        ssd->buffers = huge_alloc(SSD_ALIGN, ssd->writes_max * ssd->record_size);
    return ssd->buffers != NULL;
}

static struct ssd_write *write_free(struct ssd *ssd)
{
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        struct ssd_write *write = &ssd->writes[i];
        if (write->busy) continue;
        if (!buffers_make(ssd)) return NULL;
        write->buffer = ssd->buffers + i * ssd->record_size;
        return write;
    }
    return NULL;
}

static bool may_append(const struct ssd *ssd)
{
    return ssd->open != NULL && ssd->open->state == SEGMENT_OPEN && !resting(ssd);
}

/* Slots, from the first, that are whole on the disk or have nothing there that is taken for a
 * record. Of one whose write failed, the header may have come there without all of its bytes. */
static uint32_t known_whole(const struct ssd_segment *segment)
{
    return segment->synced < segment->failed ? segment->synced : segment->failed;
}

/* The record of the segment's next slot. */
static void record_fill(const struct ssd_segment *segment, const struct block_key *key,
                        const uint8_t *data, const uint64_t *sums, uint8_t *out)
{
    const struct store_layout *layout = &segment->ssd->layout;
    const size_t size = (size_t)layout->layers * layout->layer_size;
    const struct ssd_record record = { .key = *key,
                                       .nonce = segment->nonce,
                                       .slot = segment->used,
                                       .synced = known_whole(segment),
                                       .layers = layout->layers };

    ASSERT(segment->used < segment->slots);
    ssd_record_encode(&record, sums, out);
    memcpy(out + SSD_ALIGN, data, size);
    memset(out + SSD_ALIGN + size, 0, segment->ssd->record_size - SSD_ALIGN - size);
    if (segment->seal != NULL) ssd_record_seal(segment->seal, segment->used, layout, out);
}

static void segment_full(struct ssd *ssd)
{
    ssd_segment_state(ssd->open, SEGMENT_SEALING);
    ssd->open = NULL;
    segment_begin(ssd);
}

/* ---- packing ---- */

/* Beside the loop: nothing but the write itself, the packer, and what does not change. A part never
 * becomes longer, so all is done where it is. */
static void pack_run(void *ctx)
{
    struct ssd_write *write = ctx;
    const struct ssd *ssd = write->ssd;
    uint8_t *to = write->buffer + SSD_ALIGN;

    for (uint32_t i = 0; i < ssd->parts; i++) {
        uint8_t *part = write->buffer + SSD_ALIGN + ssd_part_begin(ssd, i);
        const size_t len = ssd_part_size(ssd, i);
        size_t size = ssd_pack(ssd->packer, &ssd->options.packing, part, len, to, len - SSD_ALIGN);
        if (size == 0) {
            memmove(to, part, len);
            size = len;
        }
        write->units[i] = (uint32_t)((size + SSD_ALIGN - 1) / SSD_ALIGN);
        memset(to + size, 0, (size_t)write->units[i] * SSD_ALIGN - size);
        to += (size_t)write->units[i] * SSD_ALIGN;
    }
    write->packed = true;
}

static void pack_fill(struct ssd_write *write, struct ssd *ssd, const struct block_key *key,
                      const uint8_t *data, const uint64_t *sums)
{
    const size_t size = (size_t)ssd->layout.layers * ssd->layout.layer_size;
    write->ssd = ssd;
    write->key = *key;
    write->segment = NULL;
    write->packed = false;
    memcpy(write->sums, sums, ssd->layout.layers * sizeof(*sums));
    memcpy(write->buffer + SSD_ALIGN, data, size);
    memset(write->buffer + SSD_ALIGN + size, 0, ssd->record_size - SSD_ALIGN - size);
}

/* The record of the segment's next slot, which it has room for; its units. */
static uint32_t packed_fill(struct ssd_write *write, const struct ssd_segment *segment)
{
    struct ssd_record record = { .key = write->key,
                                 .nonce = segment->nonce,
                                 .slot = segment->used,
                                 .synced = known_whole(segment),
                                 .layers = segment->ssd->layout.layers,
                                 .parts = segment->ssd->parts,
                                 .at = segment->end };
    memcpy(record.units, write->units, sizeof(record.units));
    ssd_record_encode(&record, write->sums, write->buffer);
    if (segment->seal != NULL) ssd_packed_seal(segment->seal, &record, write->buffer);
    return ssd_packed_units(&record);
}

static void packed_count(struct ssd_write *write, uint32_t units)
{
    struct ssd_counts *counts = &write->ssd->counts;
    counts->packed_from_total += write->ssd->record_size;
    counts->packed_to_total += (uint64_t)units * SSD_ALIGN;
}

/* The next slot of the segment is the write's. */
static void packed_take(struct ssd_write *write, struct ssd_segment *segment, uint32_t units)
{
    write->segment = segment;
    write->slot = segment->used++;
    segment->places[write->slot] =
        (struct ssd_place){ .at = segment->end, .units = units, .first = write->units[0] };
    segment->end += units;
    packed_count(write, units);
}

static bool packed_fits(const struct ssd_write *write, const struct ssd_segment *segment)
{
    uint64_t units = 1;
    for (uint32_t i = 0; i < write->ssd->parts; i++)
        units += write->units[i];
    return segment->used < segment->slots && segment->end + units <= segment->end_max;
}

static void packed_drop(struct ssd_write *write)
{
    write->waiting = write->busy = false;
    if (write->carried) write->ssd->reclaim.writes--;
}

/* The write gets its place, if there is one now. */
static void packed_place(struct ssd_write *write)
{
    struct ssd *ssd = write->ssd;
    struct ssd_segment *segment = ssd->open;
    ASSERT(write->busy && write->waiting);

    if (may_append(ssd) && !packed_fits(write, segment)) {
        segment_full(ssd);
        if (!write->waiting) return; /* it was looked at again meanwhile */
    }
    if (!may_append(ssd)) {
        /* Room for a segment may have to wait for those who are carried over. */
        if (write->carried && (ssd->open == NULL || resting(ssd))) packed_drop(write);
        return;
    }
    segment = ssd->open;
    const uint64_t offset = (uint64_t)segment->end * SSD_ALIGN;
    const uint32_t units = packed_fill(write, segment);
    write->io = (struct env_io){ .op = ENV_IO_WRITE,
                                 .file = segment->file,
                                 .parts = { { write->buffer, (size_t)units * SSD_ALIGN } },
                                 .parts_count = 1,
                                 .offset = offset,
                                 .fn = on_record_written,
                                 .ctx = write };
    if (env_io_start(&write->io) != STATUS_OK) { /* it may be sealed: it cannot be tried again */
        ssd->counts.write_errors_total++;
        packed_drop(write);
        return;
    }
    write->waiting = false;
    packed_take(write, segment, units);
    segment->states[write->slot] = SLOT_WRITING;
    segment->writing++;
}

static bool packs_wait(const struct ssd *ssd)
{
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        if (ssd->writes[i].waiting) return true;
    }
    return false;
}

static void packs_place(struct ssd *ssd)
{
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        if (ssd->writes[i].waiting) packed_place(&ssd->writes[i]);
    }
}

static void pack_next(struct ssd *ssd);

static void packed(struct ssd_write *write)
{
    ASSERT(write->busy && write->packing && write->packed && write->ssd->packing_now == write);
    write->ssd->packing_now = NULL;
    write->packing = false;
    write->waiting = true;
}

static void on_packed(void *ctx)
{
    struct ssd_write *write = ctx;
    packed(write);
    pack_next(write->ssd);
    ssd_write_go_on(write->ssd);
}

/* One at a time, in the order in which they came. */
static void pack_next(struct ssd *ssd)
{
    struct ssd_write *first = NULL;
    if (ssd->packing_now != NULL) return;
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        struct ssd_write *write = &ssd->writes[i];
        if (write->packing && (first == NULL || write->order < first->order)) first = write;
    }
    if (first == NULL) return;
    ssd->packing_now = first;
    first->job = (struct env_job){ .run = pack_run, .done = on_packed, .ctx = first };
    if (env_job_start(ssd->env, &first->job) == STATUS_OK) return;
    pack_run(first); /* slow, but no block is lost */
    packed(first);
    packed_place(first);
    pack_next(ssd);
}

static void pack_start(struct ssd_write *write)
{
    write->busy = write->packing = true;
    write->order = write->ssd->order_next++;
    pack_next(write->ssd);
}

/* At the end, and blocking. */
static enum status packed_write_now(struct ssd_write *write)
{
    struct ssd *ssd = write->ssd;
    struct ssd_segment *segment = ssd->open;

    if (!may_append(ssd) || !packed_fits(write, segment)) return STATUS_FULL;
    const uint64_t offset = (uint64_t)segment->end * SSD_ALIGN;
    const uint32_t units = packed_fill(write, segment);
    const enum status status =
        env_file_pwrite(segment->file, write->buffer, (size_t)units * SSD_ALIGN, offset);
    packed_take(write, segment, units);
    segment->states[write->slot] = status == STATUS_OK ? SLOT_WRITTEN : SLOT_DEAD;
    written_advance(segment);
    if (status == STATUS_OK) ssd_index_put(segment, write->slot, &write->key);
    return status;
}

void ssd_packs_finish(struct ssd *ssd)
{
    for (uint32_t i = 0; i < ssd->writes_max; i++) {
        struct ssd_write *write = &ssd->writes[i];
        if (!write->packing && !write->waiting) continue;
        if (write == ssd->packing_now) env_job_settle(&write->job);
        if (!write->packed) pack_run(write);
        (void)!packed_write_now(write); /* what has no room now is lost */
        write->packing = false;
        packed_drop(write);
    }
    ssd->packing_now = NULL;
}

static enum status pack_write_now(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                                  const uint64_t *sums)
{
    struct ssd_write *write = calloc(1, sizeof(*write));
    enum status status = STATUS_FULL;

    if (write != NULL) write->buffer = ssd_alloc_aligned(ssd->record_size);
    if (write != NULL && write->buffer != NULL) {
        pack_fill(write, ssd, key, data, sums);
        pack_run(write);
        status = packed_write_now(write);
    }
    if (write != NULL) free(write->buffer);
    free(write);
    return status;
}

static enum status append(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                          const uint64_t *sums, bool carried)
{
    struct ssd_write *write = may_append(ssd) ? write_free(ssd) : NULL;
    if (write == NULL) return STATUS_FULL;

    write->carried = carried;
    if (ssd->packer != NULL) {
        pack_fill(write, ssd, key, data, sums);
        pack_start(write);
        return STATUS_OK;
    }
    struct ssd_segment *segment = ssd->open;
    record_fill(segment, key, data, sums, write->buffer);
    write->ssd = ssd;
    write->segment = segment;
    write->slot = segment->used;
    write->key = *key;
    write->io = (struct env_io){ .op = ENV_IO_WRITE,
                                 .file = segment->file,
                                 .parts = { { write->buffer, ssd->record_size } },
                                 .parts_count = 1,
                                 .offset = ssd_record_offset(&ssd->layout, write->slot),
                                 .fn = on_record_written,
                                 .ctx = write };
    if (env_io_start(&write->io) != STATUS_OK) return STATUS_FULL;
    write->busy = true;
    segment->states[segment->used++] = SLOT_WRITING;
    segment->writing++;
    if (segment->used == segment->slots) segment_full(ssd);
    return STATUS_OK;
}

enum status ssd_write(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                      const uint64_t *sums)
{
    if (ssd_has(ssd, key) || on_its_way(ssd, key)) return STATUS_EXISTS;
    segment_begin(ssd);
    const enum status status = append(ssd, key, data, sums, false);
    if (status == STATUS_OK) {
        ssd->counts.bytes_accepted_total += (uint64_t)ssd->layout.layers * ssd->layout.layer_size;
    } else {
        ssd->room_wanted = true;
        if (resting(ssd)) return status; /* the rest's end says so */
    }
    return status;
}

enum status ssd_write_now(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                          const uint64_t *sums)
{
    struct ssd_segment *segment = ssd->open;

    ssd_packs_finish(ssd);
    if (ssd_has(ssd, key) || on_its_way(ssd, key)) return STATUS_EXISTS;
    if (ssd->packer != NULL) return pack_write_now(ssd, key, data, sums);
    if (!may_append(ssd) || segment->used == segment->slots) return STATUS_FULL;
    uint8_t *record = ssd_alloc_aligned(ssd->record_size);
    if (record == NULL) return STATUS_FULL;
    const uint32_t slot = segment->used;
    record_fill(segment, key, data, sums, record);
    const enum status status = env_file_pwrite(segment->file, record, ssd->record_size,
                                               ssd_record_offset(&ssd->layout, slot));
    free(record);
    segment->states[slot] = status == STATUS_OK ? SLOT_WRITTEN : SLOT_DEAD;
    segment->used++;
    written_advance(segment);
    if (status == STATUS_OK) ssd_index_put(segment, slot, key);
    return status;
}

void ssd_write_go_on(struct ssd *ssd)
{
    if (ssd->closing) return;
    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        struct ssd_segment *segment = ssd->segments[i];
        if (segment != NULL && segment->state == SEGMENT_SEALING) seal_start(segment);
    }
    if (ssd->room_wanted || packs_wait(ssd)) segment_begin(ssd);
    packs_place(ssd);
    if (ssd->open != NULL && ssd->open->state == SEGMENT_OPEN && !segment_fits(ssd)) {
        reclaim_start(ssd);
    }
    reclaim_step(ssd);
    if (!ssd->room_wanted || !may_append(ssd) || write_free(ssd) == NULL) return;
    ssd->room_wanted = false;
    ssd->options.on_room(ssd->options.ctx);
}

/* ---- reclaiming ---- */

/* How many it is meant for: a packed one has more slots than it needs. */
static uint32_t records_of(const struct ssd_segment *segment)
{
    return segment->places != NULL ? segment->used : segment->slots;
}

/* Another model's first, then what holds little, then the oldest. */
static bool goes_before(const struct ssd_segment *a, const struct ssd_segment *b)
{
    if (b == NULL) return true;
    if (a->foreign != b->foreign) return a->foreign;
    const bool a_poor = a->live <= records_of(a) / 8;
    const bool b_poor = b->live <= records_of(b) / 8;
    if (a_poor != b_poor) return a_poor;
    return a->id < b->id;
}

static void reclaim_start(struct ssd *ssd)
{
    struct ssd_reclaim *reclaim = &ssd->reclaim;
    struct ssd_segment *victim = NULL;

    if (reclaim->segment != NULL) return;
    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        struct ssd_segment *segment = ssd->segments[i];
        if (segment == NULL || segment->state == SEGMENT_DOOMED) continue;
        if (segment->state == SEGMENT_SEALED && goes_before(segment, victim)) victim = segment;
    }
    if (victim == NULL) return;
    ssd_segment_state(victim, SEGMENT_RECLAIMING);
    victim->readers++; /* ours, until all is carried over */
    reclaim->segment = victim;
    reclaim->cursor = 0;
    reclaim->budget = records_of(victim) / CARRY_SHARE;
    reclaim_step(ssd);
}

static void reclaim_finish(struct ssd *ssd)
{
    struct ssd_segment *segment = ssd->reclaim.segment;
    ASSERT(ssd->reclaim.writes == 0 && !ssd->reclaim.reading && !ssd->reclaim.ready);

    ssd->reclaim.segment = NULL;
    for (uint32_t slot = 0; slot < segment->used && segment->live > 0; slot++) {
        if (!ssd_index_points(segment, slot)) continue;
        ssd->counts.blocks_reclaimed_total++;
        ssd_index_remove(ssd, &segment->keys[slot]);
    }
    ASSERT(segment->live == 0);
    ssd->counts.segments_reclaimed_total++;
    ssd_segment_state(segment, SEGMENT_DOOMED);
    segment->readers--;
    if (segment->readers == 0) ssd_segment_gone(segment); /* else the last reader does */
}

void ssd_segment_gone(struct ssd_segment *segment)
{
    struct ssd *ssd = segment->ssd;

    ASSERT(segment->state == SEGMENT_DOOMED && segment->readers == 0);
    ssd_segment_remove(segment);
    if (ssd->full && ssd->errors_in_row < ERRORS_MAX) ssd->rest_until_ns = 0; /* there is room */
    ssd->full = false;
    ssd_write_go_on(ssd);
}

static void on_carry_read(void *ctx, enum status status)
{
    struct ssd *ssd = ctx;
    struct ssd_reclaim *reclaim = &ssd->reclaim;

    if (status == STATUS_OK && reclaim->read.parts_done < ssd->parts) {
        status = ssd_read_part(&reclaim->read);
        if (status == STATUS_OK) return;
    }
    reclaim->reading = false;
    reclaim->ready = status == STATUS_OK;
    if (!reclaim->ready) ssd_read_close(&reclaim->read);
    reclaim_step(ssd);
}

static bool carry_buffers(struct ssd *ssd)
{
    struct ssd_reclaim *reclaim = &ssd->reclaim;
    if (reclaim->page == NULL) reclaim->page = ssd_alloc_aligned(ssd_payload_size(&ssd->layout));
    if (reclaim->header == NULL) reclaim->header = ssd_alloc_aligned(SSD_ALIGN);
    return reclaim->page != NULL && reclaim->header != NULL;
}

/* Starts to read the slot, if its block is worth another place. */
static void carry_start(struct ssd *ssd, uint32_t slot)
{
    struct ssd_reclaim *reclaim = &ssd->reclaim;
    const struct ssd_segment *segment = reclaim->segment;

    if (reclaim->budget == 0 || !may_append(ssd) || !ssd_index_points(segment, slot)) return;
    if (ssd_heat(ssd, &segment->keys[slot]) < CARRY_HEAT || !carry_buffers(ssd)) return;
    reclaim->read = (struct ssd_read){ .page = reclaim->page,
                                       .header = reclaim->header,
                                       .sums = reclaim->sums,
                                       .fn = on_carry_read,
                                       .ctx = ssd };
    if (ssd_read_open(ssd, &segment->keys[slot], &reclaim->read) != STATUS_OK) return;
    reclaim->reading = ssd_read_part(&reclaim->read) == STATUS_OK;
    if (reclaim->reading) {
        reclaim->budget--;
    } else {
        ssd_read_close(&reclaim->read);
    }
}

/* The block that was read gets its new place. False: not now. */
static bool carry_append(struct ssd *ssd)
{
    struct ssd_reclaim *reclaim = &ssd->reclaim;
    const bool can = may_append(ssd);
    const bool still = ssd_index_points(reclaim->segment, reclaim->read.slot);

    if (still && can) {
        if (append(ssd, &reclaim->read.key, reclaim->page, reclaim->sums, true) != STATUS_OK) {
            return false;
        }
        reclaim->writes++;
    } /* else it was dropped meanwhile, or there is nowhere to go: it goes with its segment */
    reclaim->ready = false;
    ssd_read_close(&reclaim->read);
    return true;
}

static void reclaim_step(struct ssd *ssd)
{
    struct ssd_reclaim *reclaim = &ssd->reclaim;
    struct ssd_segment *segment = reclaim->segment;

    if (segment == NULL || reclaim->reading) return;
    if (ssd->open != NULL && ssd->open->state == SEGMENT_OPENING) return; /* there will be room */
    if (reclaim->ready && !carry_append(ssd)) return;
    while (reclaim->cursor < segment->used && !reclaim->reading)
        carry_start(ssd, reclaim->cursor++);
    if (!reclaim->reading && reclaim->writes == 0) reclaim_finish(ssd);
}

/* ---- life ---- */

enum status ssd_write_init(struct ssd *ssd)
{
    const uint64_t fit = SSD_BUFFERS_SIZE / ssd->record_size;

    env_timer_init(&ssd->rest_timer, on_rested, ssd);
    env_timer_init(&ssd->sync_timer, on_sync_due, ssd);
    ssd->writes_max = fit < 2 ? 2 : fit > SSD_WRITES_MAX ? SSD_WRITES_MAX : (uint32_t)fit;
    return STATUS_OK;
}

void ssd_write_fini(struct ssd *ssd)
{
    env_timer_cancel(ssd->env, &ssd->rest_timer);
    env_timer_cancel(ssd->env, &ssd->sync_timer);
    free(ssd->buffers);
    free(ssd->reclaim.page);
    free(ssd->reclaim.header);
}
