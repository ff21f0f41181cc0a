/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_recover.c - what is in a directory when it is opened.
 *
 *   a file of another model, version or key         counted as space, first to go
 *   a header that is none                           removed: it never held a record
 *   a footer at the end, with its checksum          believed: one read for all its keys
 *   anything else                                   the records are looked at one by one
 *
 * Looking at records: a header that agrees with itself, its place and the segment's nonce names a
 * block. Each says how many slots were synced before it was written, so those before the highest
 * such number are on the disk; of the few from there on, the layers are read and compared, because
 * the power may have gone between a record's first byte and its last. Then the torn tail is cut
 * off, and the segment gets a footer behind the last block found; not where the disk refused to
 * read some of it: that is looked at again at the next start.
 *
 * Segments are taken oldest first, so that the newest record of a key wins. Blocking, at start-up
 * only. Damage is met with warnings, never with an error. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/ssd_int.h"

enum { NAMES_MAX = 4 * SSD_SEGMENTS_MAX };

struct names {
    uint64_t ids[NAMES_MAX];
    uint32_t count;
};

static void on_name(void *ctx, const char *name)
{
    struct names *names = ctx;
    uint64_t id;
    if (ssd_name_parse(name, &id) && names->count < NAMES_MAX) names->ids[names->count++] = id;
}

static int compare_ids(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return *left < *right ? -1 : *left > *right;
}

static bool read_exactly(struct env_file *file, void *buf, size_t len, uint64_t offset)
{
    size_t n = 0;
    return env_file_pread(file, buf, len, offset, &n) == STATUS_OK && n == len;
}

static uint64_t round_up(uint64_t size)
{
    return (size + SSD_ALIGN - 1) / SSD_ALIGN * SSD_ALIGN;
}

/* ---- with a footer ---- */

static bool footer_find(const struct ssd_segment *segment, uint64_t file_size, uint8_t *page,
                        struct ssd_footer *footer)
{
    const struct store_layout *layout = &segment->ssd->layout;
    const bool packed = segment->places != NULL;

    if (file_size % SSD_ALIGN != 0 || file_size < 2 * SSD_ALIGN) return false;
    if (!read_exactly(segment->file, page, SSD_ALIGN, file_size - SSD_ALIGN)) return false;
    if (ssd_trailer_decode(page + SSD_ALIGN - SSD_TRAILER_SIZE, footer) != STATUS_OK) return false;
    return footer->nonce == segment->nonce && footer->used <= segment->slots &&
           footer->packed == packed && footer->offset % SSD_ALIGN == 0 &&
           (packed || footer->offset == ssd_record_offset(layout, footer->used)) &&
           footer->offset + ssd_footer_size(footer->entries, packed) == file_size;
}

static void slot_found(struct ssd_segment *segment, uint32_t slot, const struct block_key *key)
{
    segment->states[slot] = SLOT_WRITTEN;
    ssd_index_put(segment, slot, key);
}

static void all_dead(struct ssd_segment *segment, uint32_t used)
{
    segment->used = used;
    segment->written = used;
    memset(segment->states, SLOT_DEAD, used);
}

/* What it says of places can be of what we write. */
static bool places_right(const struct ssd *ssd, const uint8_t *bytes,
                         const struct ssd_footer *footer)
{
    for (uint32_t i = 0; footer->packed && i < footer->entries; i++) {
        const struct ssd_entry entry = ssd_footer_entry(bytes, footer, i);
        if (!ssd_place_right(ssd, &entry.place)) return false;
    }
    return true;
}

static bool footer_take(struct ssd_segment *segment, uint64_t file_size, uint8_t *page)
{
    struct ssd_footer footer;
    if (!footer_find(segment, file_size, page, &footer)) return false;
    const uint64_t size = ssd_footer_size(footer.entries, footer.packed);
    uint8_t *bytes = ssd_alloc_aligned(size);
    const bool right =
        bytes != NULL && read_exactly(segment->file, bytes, size, footer.offset) &&
        (segment->seal == NULL ||
         ssd_seal_footer_open(segment->seal, bytes, size, SSD_TRAILER_SIZE) == STATUS_OK) &&
        ssd_footer_decode(bytes, size, &footer) == STATUS_OK &&
        places_right(segment->ssd, bytes, &footer);

    if (right) {
        all_dead(segment, footer.used);
        segment->end = (uint32_t)(footer.offset / SSD_ALIGN);
        for (uint32_t i = 0; i < footer.entries; i++) {
            const struct ssd_entry entry = ssd_footer_entry(bytes, &footer, i);
            if (footer.packed) segment->places[entry.slot] = entry.place;
            slot_found(segment, entry.slot, &entry.key);
        }
    }
    free(bytes);
    return right;
}

/* ---- without ---- */

struct scan {
    struct ssd_segment *segment;
    uint8_t *record; /* header and payload */
    uint32_t slots;  /* that the file is long enough for */
    uint32_t synced; /* the highest that a record said */
    uint32_t used;
    uint32_t torn;
    bool unread; /* the disk has refused to read some of it */
    uint8_t tags[SSD_SEALED_LAYERS_MAX * SSD_SEAL_TAG_SIZE]; /* of the header read last */
};

static bool scan_read(struct scan *scan, uint8_t *out, uint64_t len, uint64_t offset)
{
    const bool read = read_exactly(scan->segment->file, out, len, offset);
    if (!read) scan->unread = true;
    return read;
}

static bool header_scan(struct scan *scan, uint32_t slot, struct ssd_record *record, uint64_t *sums)
{
    const struct ssd_segment *segment = scan->segment;
    const struct store_layout *layout = &segment->ssd->layout;

    if (!scan_read(scan, scan->record, SSD_ALIGN, ssd_slot_offset(segment, slot))) return false;
    if (segment->seal != NULL &&
        ssd_record_open(segment->seal, slot, layout->layers, scan->record, scan->tags) != STATUS_OK)
        return false;
    if (ssd_record_decode(scan->record, record, sums) != STATUS_OK) return false;
    return record->nonce == segment->nonce && record->slot == slot &&
           record->layers == layout->layers;
}

/* The parts of a packed record become what they are of. */
static bool parts_unpack(struct scan *scan, uint32_t slot, const struct ssd_record *record)
{
    const struct ssd_segment *segment = scan->segment;
    uint64_t offset = ssd_slot_offset(segment, slot) + SSD_ALIGN;

    for (uint32_t i = 0; i < record->parts; i++) {
        uint8_t *part = scan->record + SSD_ALIGN + ssd_part_begin(segment->ssd, i);
        const size_t size = (size_t)record->units[i] * SSD_ALIGN;
        if (!scan_read(scan, part, size, offset)) return false;
        if (segment->seal != NULL &&
            ssd_layer_open(segment->seal, slot, i, part, size, scan->tags) != STATUS_OK)
            return false;
        if (ssd_part_unpack(segment->ssd, i, record->units[i], part) != STATUS_OK) return false;
        offset += size;
    }
    return true;
}

static bool payload_read(struct scan *scan, uint32_t slot, const struct ssd_record *record)
{
    const struct store_layout *layout = &scan->segment->ssd->layout;
    if (record->parts > 0) return parts_unpack(scan, slot, record);
    return scan_read(scan, scan->record + SSD_ALIGN, ssd_payload_size(layout),
                     ssd_record_offset(layout, slot) + SSD_ALIGN);
}

static bool payload_right(struct scan *scan, uint32_t slot, const struct ssd_record *record,
                          const uint64_t *sums)
{
    const struct store_layout *layout = &scan->segment->ssd->layout;
    struct ssd_seal *seal = record->parts == 0 ? scan->segment->seal : NULL;
    uint8_t *payload = scan->record + SSD_ALIGN;

    if (!payload_read(scan, slot, record)) return false;
    for (uint32_t i = 0; i < layout->layers; i++) {
        uint8_t *layer = payload + (size_t)i * layout->layer_size;
        if (seal != NULL &&
            ssd_layer_open(seal, slot, i, layer, layout->layer_size, scan->tags) != STATUS_OK)
            return false;
        if (hash_xxh3(layer, layout->layer_size) != sums[i]) return false;
    }
    return true;
}

/* The next record of a packed segment, if one begins at this unit; its units, or 0. */
static uint32_t packed_scan_at(struct scan *scan, uint32_t at)
{
    struct ssd_segment *segment = scan->segment;
    uint64_t sums[STORE_LAYERS_MAX];
    struct ssd_record record;
    uint32_t slot;

    if (!scan_read(scan, scan->record, SSD_ALIGN, (uint64_t)at * SSD_ALIGN) ||
        !ssd_record_sniff(scan->record, segment->nonce, &slot))
        return 0;
    if (slot < scan->used || slot >= segment->slots) return 0;
    segment->places[slot].at = at;
    if (!header_scan(scan, slot, &record, sums) || !ssd_packed_right(segment->ssd, &record, at)) {
        segment->places[slot].at = 0;
        return 0;
    }
    if (record.synced > scan->synced) scan->synced = record.synced;
    scan->used = slot + 1;
    segment->places[slot].units = ssd_packed_units(&record);
    segment->places[slot].first = record.units[0];
    return segment->places[slot].units;
}

/* One behind the other; where none begins, the next unit is looked at. */
static void packed_scan(struct scan *scan, uint32_t units)
{
    struct ssd_segment *segment = scan->segment;
    for (uint32_t at = 1; at < units;) {
        const uint32_t found = packed_scan_at(scan, at);
        if (found > 0) segment->end = at + found;
        at += found > 0 ? found : 1;
    }
}

static void slots_scan(struct scan *scan)
{
    struct ssd_segment *segment = scan->segment;
    uint64_t sums[STORE_LAYERS_MAX];
    struct ssd_record record;

    for (uint32_t slot = 0; slot < scan->slots; slot++) {
        if (!header_scan(scan, slot, &record, sums)) continue;
        if (record.synced > scan->synced) scan->synced = record.synced;
        scan->used = slot + 1;
    }
    all_dead(segment, scan->used);
    for (uint32_t slot = 0; slot < scan->used; slot++) {
        if (segment->places != NULL && segment->places[slot].at == 0) continue;
        if (!header_scan(scan, slot, &record, sums)) continue;
        if (slot >= scan->synced && !payload_right(scan, slot, &record, sums)) {
            scan->torn++;
            continue;
        }
        slot_found(segment, slot, &record.key);
    }
}

/* What lies behind the last block found goes first: a footer that could not be read this time would
 * be believed the next time, though ours stands where one of its blocks was. */
static enum status scan_seal(struct ssd_segment *segment)
{
    const enum status status = env_file_truncate(segment->file, ssd_end_offset(segment));
    return status == STATUS_OK ? ssd_seal_now(segment) : status;
}

static void records_take(struct ssd_segment *segment, uint64_t file_size)
{
    const struct ssd *ssd = segment->ssd;
    struct scan scan = { .segment = segment, .record = ssd_alloc_aligned(ssd->record_size) };
    const uint64_t fit = file_size < SSD_ALIGN ? 0 : (file_size - SSD_ALIGN) / ssd->record_size;

    if (scan.record == NULL) return;
    if (segment->places != NULL) {
        packed_scan(&scan, (uint32_t)(file_size / SSD_ALIGN));
    } else {
        scan.slots = fit < segment->slots ? (uint32_t)fit : segment->slots;
    }
    slots_scan(&scan);
    free(scan.record);
    LOG_INFO("ssd", "segment_scanned", "segment=%llu blocks=%u torn=%u synced=%u",
             (unsigned long long)segment->id, segment->live, scan.torn, scan.synced);
    if (segment->live == 0) return;
    if (scan.unread || scan_seal(segment) != STATUS_OK) {
        LOG_WARN("ssd", "not_sealed", "segment=%llu", (unsigned long long)segment->id);
    }
}

/* ---- files ---- */

/* What the file's header says; STATUS_CORRUPT: it is none. */
static enum status header_read(struct ssd *ssd, struct env_file *file, uint64_t id, uint8_t *page,
                               struct ssd_header *header)
{
    size_t n = 0;
    const enum status status = env_file_pread(file, page, SSD_ALIGN, 0, &n);
    (void)ssd;
    if (status != STATUS_OK) return status;
    if (n != SSD_ALIGN || ssd_header_decode(page, header) != STATUS_OK) return STATUS_CORRUPT;
    return header->id == id ? STATUS_OK : STATUS_CORRUPT;
}

/* Packed in the parts that we read, and we have the library. */
static bool can_unpack(struct ssd *ssd, const struct ssd_header *header)
{
    if (header->parts != ssd->parts) return false;
    return ssd->unpacker != NULL || ssd_packer_make(ssd, &ssd->unpacker) == STATUS_OK;
}

/* Our model's, and clear or written with a key of ours, which is *seal then. A header that was
 * changed is nobody's. */
static bool header_ours(struct ssd *ssd, const struct ssd_header *header, const uint8_t *page,
                        struct ssd_seal **seal)
{
    *seal = NULL;
    if (!store_layout_matches(&header->layout, &ssd->layout)) return false;
    if (header->parts > 0 && !can_unpack(ssd, header)) return false;
    if (!header->sealed) return true;
    if (header->layout.layers > SSD_SEALED_LAYERS_MAX) return false;
    if (ssd_seal_create(ssd->options.keys, &header->seal, seal) != STATUS_OK) return false;
    if (ssd_seal_header_check(*seal, page) == STATUS_OK) return true;
    ssd_seal_destroy(*seal);
    *seal = NULL;
    return false;
}

static void file_take(struct ssd *ssd, uint64_t id, struct env_file *file, uint64_t file_size,
                      uint8_t *page)
{
    struct ssd_header header;
    const enum status status = header_read(ssd, file, id, page, &header);
    struct ssd_seal *seal = NULL;
    const bool ours = status == STATUS_OK && header_ours(ssd, &header, page, &seal);
    struct ssd_segment *segment = status == STATUS_OK || status == STATUS_IO
                                      ? ssd_segment_new(ssd, id, ours ? header.slots : 0)
                                      : NULL;
    if (segment != NULL && ours && header.parts > 0 && !ssd_segment_pack(segment)) {
        ssd_segment_free(segment);
        ssd_seal_destroy(seal);
        env_file_close(file);
        return;
    }
    if (segment == NULL) {
        char path[SSD_PATH_SIZE];
        ssd_seal_destroy(seal);
        ssd_path(ssd, id, path, sizeof(path));
        env_file_close(file);
        LOG_WARN("ssd", "segment_removed", "path=%s reason=%s", path, status_name(status));
        (void)!env_file_remove(ssd->env, path);
        return;
    }
    segment->state = SEGMENT_SEALED;
    segment->size = round_up(file_size);
    ssd->size += segment->size;
    if (!ours) {
        env_file_close(file);
        return;
    }
    segment->seal = seal;
    segment->file = file;
    segment->nonce = header.nonce;
    if (!footer_take(segment, file_size, page)) records_take(segment, file_size);
    /* What a process that was killed wrote is in the file, but maybe not yet on the disk. */
    if (env_file_sync(file) == STATUS_OK) segment->synced = segment->used;
    if (segment->live == 0) ssd_segment_remove(segment);
}

static void file_open(struct ssd *ssd, uint64_t id, uint8_t *page)
{
    const unsigned flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_DIRECT;
    struct env_file *file;
    struct errmsg err = { "" };
    char path[SSD_PATH_SIZE];
    uint64_t size = 0;

    if (id >= ssd->id_next) ssd->id_next = id + 1;
    ssd_path(ssd, id, path, sizeof(path));
    if (env_file_open(ssd->env, path, flags, &file, &err) != STATUS_OK) {
        LOG_WARN("ssd", "segment_not_opened", "reason=%s", err.text);
        return;
    }
    if (env_file_size(file, &size) != STATUS_OK) {
        env_file_close(file);
        return;
    }
    file_take(ssd, id, file, size, page);
}

/* With less space than last time, what is oldest goes; another model's first. */
static void shrink(struct ssd *ssd)
{
    while (ssd->size > ssd->options.size_max) {
        struct ssd_segment *victim = NULL;
        for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
            struct ssd_segment *segment = ssd->segments[i];
            if (segment == NULL) continue;
            const bool sooner = victim == NULL || (segment->foreign && !victim->foreign) ||
                                (segment->foreign == victim->foreign && segment->id < victim->id);
            if (sooner) victim = segment;
        }
        ASSERT(victim != NULL);
        for (uint32_t slot = 0; slot < victim->used && victim->live > 0; slot++) {
            if (ssd_index_points(victim, slot)) ssd_index_remove(ssd, &victim->keys[slot]);
        }
        ssd_segment_remove(victim);
    }
}

enum status ssd_recover(struct ssd *ssd, struct errmsg *err)
{
    struct names *names = calloc(1, sizeof(*names));
    uint8_t *page = ssd_alloc_aligned(SSD_ALIGN);
    enum status status = STATUS_NO_MEMORY;

    if (names != NULL && page != NULL) {
        status = env_dir_list(ssd->env, ssd->directory, on_name, names, err);
    }
    if (status == STATUS_OK) {
        qsort(names->ids, names->count, sizeof(names->ids[0]), compare_ids);
        for (uint32_t i = 0; i < names->count; i++)
            file_open(ssd, names->ids[i], page);
        shrink(ssd);
    }
    free(page);
    free(names);
    return status;
}
