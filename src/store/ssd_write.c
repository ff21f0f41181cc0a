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

/* The footer of what can be found in the segment; NULL: no memory. */
static uint8_t *footer_make(const struct ssd_segment *segment, struct ssd_footer *footer)
{
    struct ssd_entry *entries = calloc(segment->live + 1, sizeof(*entries));
    uint8_t *bytes = NULL;

    *footer =
        (struct ssd_footer){ .nonce = segment->nonce,
                             .offset = ssd_record_offset(&segment->ssd->layout, segment->used),
                             .used = segment->used };
    for (uint32_t slot = 0; entries != NULL && slot < segment->used; slot++) {
        if (!ssd_index_points(segment, slot)) continue;
        ASSERT(footer->entries < segment->live);
        entries[footer->entries++] = (struct ssd_entry){ segment->keys[slot], slot };
    }
    if (entries != NULL) bytes = ssd_alloc_aligned(ssd_footer_size(footer->entries));
    if (bytes != NULL) ssd_footer_encode(footer, entries, bytes);
    if (bytes != NULL && segment->seal != NULL) {
        uint64_t random;
        env_random(segment->ssd->env, &random, sizeof(random));
        ssd_seal_footer(segment->seal, random, bytes, ssd_footer_size(footer->entries),
                        SSD_TRAILER_SIZE);
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
    const uint64_t size = ssd_footer_size(footer.entries);
    enum status status = env_file_sync(segment->file); /* see seal_start() */
    if (status == STATUS_OK) status = env_file_pwrite(segment->file, bytes, size, footer.offset);
    if (status == STATUS_OK) {
        if (footer.offset + size > segment->size) size_set(segment, footer.offset + size);
        sealed_cut(segment, footer.offset + size);
    }
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
        segment->io =
            (struct env_io){ .op = ENV_IO_WRITE,
                             .file = segment->file,
                             .parts = { { segment->io_bytes, ssd_footer_size(footer.entries) } },
                             .parts_count = 1,
                             .offset = footer.offset,
                             .fn = on_footer_written,
                             .ctx = segment };
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
    struct ssd_segment *segment = ssd_segment_new(ssd, ssd->id_next, ssd->slots);
    char path[SSD_PATH_SIZE];

    if (segment == NULL) return STATUS_NO_MEMORY;
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

static bool segment_fits(const struct ssd *ssd)
{
    const uint64_t size = ssd_segment_size(&ssd->layout, ssd->slots);
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
    const enum status status = segment_create(ssd, ssd_segment_size(&ssd->layout, ssd->slots));
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

/* The record of the segment's next slot. */
static void record_fill(const struct ssd_segment *segment, const struct block_key *key,
                        const uint8_t *data, const uint64_t *sums, uint8_t *out)
{
    const struct store_layout *layout = &segment->ssd->layout;
    const size_t size = (size_t)layout->layers * layout->layer_size;
    const struct ssd_record record = { .key = *key,
                                       .nonce = segment->nonce,
                                       .slot = segment->used,
                                       .synced = segment->synced,
                                       .layers = layout->layers };

    ASSERT(segment->used < segment->slots);
    ssd_record_encode(&record, sums, out);
    memcpy(out + SSD_ALIGN, data, size);
    memset(out + SSD_ALIGN + size, 0, segment->ssd->record_size - SSD_ALIGN - size);
    if (segment->seal != NULL) ssd_record_seal(segment->seal, segment->used, layout, out);
}

static enum status append(struct ssd *ssd, const struct block_key *key, const uint8_t *data,
                          const uint64_t *sums, bool carried)
{
    struct ssd_write *write = may_append(ssd) ? write_free(ssd) : NULL;
    if (write == NULL) return STATUS_FULL;

    struct ssd_segment *segment = ssd->open;
    record_fill(segment, key, data, sums, write->buffer);
    write->ssd = ssd;
    write->segment = segment;
    write->slot = segment->used;
    write->key = *key;
    write->carried = carried;
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
    if (segment->used == segment->slots) {
        ssd_segment_state(segment, SEGMENT_SEALING);
        ssd->open = NULL;
        segment_begin(ssd);
    }
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

    if (ssd_has(ssd, key) || on_its_way(ssd, key)) return STATUS_EXISTS;
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
    if (ssd->room_wanted) segment_begin(ssd);
    if (ssd->open != NULL && ssd->open->state == SEGMENT_OPEN && !segment_fits(ssd)) {
        reclaim_start(ssd);
    }
    reclaim_step(ssd);
    if (!ssd->room_wanted || !may_append(ssd) || write_free(ssd) == NULL) return;
    ssd->room_wanted = false;
    ssd->options.on_room(ssd->options.ctx);
}

/* ---- reclaiming ---- */

/* Another model's first, then what holds little, then the oldest. */
static bool goes_before(const struct ssd_segment *a, const struct ssd_segment *b)
{
    if (b == NULL) return true;
    if (a->foreign != b->foreign) return a->foreign;
    const bool a_poor = a->live <= a->slots / 8;
    const bool b_poor = b->live <= b->slots / 8;
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
    reclaim->budget = victim->slots / CARRY_SHARE;
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
