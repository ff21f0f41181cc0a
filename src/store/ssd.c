/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd.c - the disk tier: its index, its segments, and reading.
 *
 * See ssd.h for the invariants, ssd_format.h for the bytes, ssd_int.h for the life of a segment.
 * The index says in which segment and slot a key lies; everything else about a block is read with
 * the block: the header of its record is compared with what the index said, then each layer with
 * its checksum in the header. A packed part is unpacked in between, beside the loop. */
#include "store/ssd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "store/sketch.h"
#include "store/ssd_int.h"

enum {
    SEGMENTS_WANTED = 64,          /* how finely a large disk is given up */
    SEGMENTS_LEAST = 8,            /* and a small one */
    SEGMENT_SIZE_LEAST = 64 << 20, /* bytes, where the disk is large enough */
    SKETCH_KEYS_LEAST = 4096,
    SKETCH_WINDOW = 8,                /* additions remembered, for each key expected */
    BLOCKS_MAX = MAP_ENTRIES_MAX / 4, /* that one directory can hold */
};

/* ---- segments ---- */

static bool edge_allowed(enum segment_state from, enum segment_state to)
{
    switch (from) {
    case SEGMENT_OPENING: return to == SEGMENT_OPEN || to == SEGMENT_DOOMED;
    case SEGMENT_OPEN: return to == SEGMENT_SEALING;
    case SEGMENT_SEALING: return to == SEGMENT_SEALED;
    case SEGMENT_SEALED: return to == SEGMENT_RECLAIMING;
    case SEGMENT_RECLAIMING: return to == SEGMENT_DOOMED;
    case SEGMENT_DOOMED: return false;
    }
    return false;
}

void ssd_segment_state(struct ssd_segment *segment, enum segment_state state)
{
    ASSERT(edge_allowed(segment->state, state));
    LOG_DEBUG("ssd", "segment_state", "id=%llu from=%d to=%d", (unsigned long long)segment->id,
              (int)segment->state, (int)state);
    segment->state = state;
}

void ssd_path(const struct ssd *ssd, uint64_t id, char out[], size_t size)
{
    char name[SSD_NAME_SIZE];
    ssd_name_print(id, name);
    snprintf(out, size, "%s/%s", ssd->directory, name);
}

struct ssd_segment *ssd_segment_new(struct ssd *ssd, uint64_t id, uint32_t slots)
{
    uint32_t number = 0;
    while (number < SSD_SEGMENTS_MAX && ssd->segments[number] != NULL)
        number++;
    struct ssd_segment *segment = number < SSD_SEGMENTS_MAX ? calloc(1, sizeof(*segment)) : NULL;
    if (segment == NULL) return NULL;
    segment->ssd = ssd;
    segment->number = number;
    segment->id = id;
    segment->slots = slots;
    segment->failed = UINT32_MAX;
    segment->foreign = slots == 0;
    if (slots > 0) {
        segment->keys = calloc(slots, sizeof(*segment->keys));
        segment->states = calloc(slots, sizeof(*segment->states));
        if (segment->keys == NULL || segment->states == NULL) {
            free(segment->keys);
            free(segment->states);
            free(segment);
            return NULL;
        }
    }
    ssd->segments[number] = segment;
    ssd->segments_count++;
    if (id >= ssd->id_next) ssd->id_next = id + 1;
    return segment;
}

bool ssd_segment_pack(struct ssd_segment *segment)
{
    segment->places = calloc(segment->slots, sizeof(*segment->places));
    segment->end = 1; /* the header */
    return segment->places != NULL;
}

uint64_t ssd_slot_offset(const struct ssd_segment *segment, uint32_t slot)
{
    if (segment->places == NULL) return ssd_record_offset(&segment->ssd->layout, slot);
    return (uint64_t)segment->places[slot].at * SSD_ALIGN;
}

void ssd_segment_free(struct ssd_segment *segment)
{
    struct ssd *ssd = segment->ssd;
    ASSERT(ssd->closing || (segment->readers == 0 && segment->writing == 0)); /* I5 */
    ASSERT(ssd->segments[segment->number] == segment && ssd->size >= segment->size);

    env_file_close(segment->file);
    ssd->size -= segment->size;
    ssd->segments[segment->number] = NULL;
    ssd->segments_count--;
    if (ssd->open == segment) ssd->open = NULL;
    free(segment->io_bytes);
    ssd_seal_destroy(segment->seal);
    free(segment->keys);
    free(segment->states);
    free(segment->places);
    free(segment);
}

void ssd_segment_remove(struct ssd_segment *segment)
{
    struct ssd *ssd = segment->ssd;
    char path[SSD_PATH_SIZE];

    ssd_path(ssd, segment->id, path, sizeof(path));
    ssd_segment_free(segment);
    const enum status status = env_file_remove(ssd->env, path);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        LOG_WARN("ssd", "segment_not_removed", "path=%s reason=%s", path, status_name(status));
    }
}

/* ---- the index ---- */

static uint64_t place_of(const struct ssd_segment *segment, uint32_t slot)
{
    return (uint64_t)segment->number << 32 | slot;
}

static struct ssd_segment *segment_at(const struct ssd *ssd, uint64_t place)
{
    struct ssd_segment *segment = ssd->segments[place >> 32];
    ASSERT(segment != NULL && (uint32_t)place < segment->used);
    return segment;
}

void ssd_index_put(struct ssd_segment *segment, uint32_t slot, const struct block_key *key)
{
    struct ssd *ssd = segment->ssd;
    uint64_t before;
    ASSERT(slot < segment->used && segment->states[slot] == SLOT_WRITTEN); /* I1 */

    if (map_find(ssd->index, key, &before)) segment_at(ssd, before)->live--;
    if (map_set(ssd->index, key, place_of(segment, slot)) != STATUS_OK) {
        LOG_WARN("ssd", "index_full", "blocks=%u", map_count(ssd->index));
        segment->states[slot] = SLOT_DEAD;
        return;
    }
    segment->keys[slot] = *key;
    segment->live++;
}

bool ssd_index_points(const struct ssd_segment *segment, uint32_t slot)
{
    uint64_t place;
    if (segment->states[slot] != SLOT_WRITTEN) return false;
    return map_find(segment->ssd->index, &segment->keys[slot], &place) &&
           place == place_of(segment, slot);
}

void ssd_index_remove(struct ssd *ssd, const struct block_key *key)
{
    uint64_t place;
    const bool there = map_remove(ssd->index, key, &place);
    ASSERT(there);
    struct ssd_segment *segment = segment_at(ssd, place);
    ASSERT(segment->live > 0);
    segment->live--;
    if (ssd->opened) ssd->options.on_removed(ssd->options.ctx, key);
}

bool ssd_has(const struct ssd *ssd, const struct block_key *key)
{
    return map_find(ssd->index, key, NULL);
}

void ssd_touch(struct ssd *ssd, const struct block_key *key)
{
    sketch_add(ssd->sketch, key);
}

uint32_t ssd_heat(const struct ssd *ssd, const struct block_key *key)
{
    return sketch_estimate(ssd->sketch, key);
}

enum status ssd_drop(struct ssd *ssd, const struct block_key *key)
{
    if (!ssd_has(ssd, key)) return STATUS_NOT_FOUND;
    ssd_index_remove(ssd, key);
    return STATUS_OK;
}

bool ssd_next(const struct ssd *ssd, uint64_t *cursor, struct block_key *key)
{
    uint32_t number = (uint32_t)(*cursor >> 32);
    uint32_t slot = (uint32_t)*cursor;

    for (; number < SSD_SEGMENTS_MAX; number++, slot = 0) {
        const struct ssd_segment *segment = ssd->segments[number];
        for (; segment != NULL && segment->live > 0 && slot < segment->used; slot++) {
            if (!ssd_index_points(segment, slot)) continue;
            *key = segment->keys[slot];
            *cursor = place_of(segment, slot + 1);
            return true;
        }
    }
    *cursor = (uint64_t)SSD_SEGMENTS_MAX << 32;
    return false;
}

/* ---- reading ---- */

uint32_t ssd_parts(const struct ssd *ssd)
{
    return ssd->parts;
}

uint64_t ssd_part_begin(const struct ssd *ssd, uint32_t part)
{
    const uint64_t payload = ssd_payload_size(&ssd->layout);
    ASSERT(part <= ssd->parts);
    if (part == ssd->parts) return payload;
    return payload * part / ssd->parts / SSD_ALIGN * SSD_ALIGN;
}

uint64_t ssd_part_size(const struct ssd *ssd, uint32_t part)
{
    return ssd_part_begin(ssd, part + 1) - ssd_part_begin(ssd, part);
}

uint32_t ssd_part_layers(const struct ssd *ssd, uint32_t part)
{
    if (part == ssd->parts) return ssd->layout.layers;
    return (uint32_t)(ssd_part_begin(ssd, part) / ssd->layout.layer_size);
}

enum status ssd_read_open(struct ssd *ssd, const struct block_key *key, struct ssd_read *read)
{
    uint64_t place;
    if (!map_find(ssd->index, key, &place)) return STATUS_NOT_FOUND;
    read->ssd = ssd;
    read->key = *key;
    read->segment = segment_at(ssd, place);
    read->slot = (uint32_t)place;
    read->segment->readers++;
    read->parts_done = 0;
    read->layers_ready = 0;
    read->busy = false;
    read->io = (struct env_io){ 0 };
    return STATUS_OK;
}

void ssd_read_close(struct ssd_read *read)
{
    struct ssd_segment *segment = read->segment;
    ASSERT(!read->busy && segment->readers > 0);
    segment->readers--;
    read->segment = NULL;
    if (segment->state == SEGMENT_DOOMED && segment->readers == 0) {
        ssd_segment_gone(segment);
    }
}

static uint32_t part_units(const struct ssd *ssd, uint32_t part)
{
    return (uint32_t)(ssd_part_size(ssd, part) / SSD_ALIGN);
}

bool ssd_place_right(const struct ssd *ssd, const struct ssd_place *place)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < ssd->parts; i++)
        most += part_units(ssd, i);
    return place->first <= part_units(ssd, 0) && place->units <= most;
}

bool ssd_packed_right(const struct ssd *ssd, const struct ssd_record *record, uint32_t at)
{
    if (record->at != at || record->parts != ssd->parts) return false;
    for (uint32_t i = 0; i < record->parts; i++) {
        if (record->units[i] > part_units(ssd, i)) return false;
    }
    return true;
}

uint32_t ssd_packed_units(const struct ssd_record *record)
{
    uint32_t units = 1;
    for (uint32_t i = 0; i < record->parts; i++)
        units += record->units[i];
    return units;
}

enum status ssd_packer_make(const struct ssd *ssd, struct ssd_packer **out)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < ssd->parts; i++) {
        if (ssd_part_size(ssd, i) > most) most = ssd_part_size(ssd, i);
    }
    return ssd_packer_create(most, out);
}

/* Where the packs of a part end is not said, and need not: a pack says how long it is. */
enum status ssd_part_unpack(const struct ssd *ssd, uint32_t part, uint32_t units, uint8_t *bytes)
{
    const size_t size = ssd_pack_size(bytes, (size_t)units * SSD_ALIGN);
    if (units == part_units(ssd, part)) return STATUS_OK;
    if (size == 0) return STATUS_CORRUPT;
    return ssd_unpack(ssd->unpacker, bytes, size, bytes, ssd_part_size(ssd, part));
}

/* The index knows as much of the record as its header says. */
static bool packed_header_right(struct ssd_read *read, const struct ssd_record *record)
{
    const struct ssd_place *place = &read->segment->places[read->slot];
    if (!ssd_packed_right(read->ssd, record, place->at)) return false;
    if (ssd_packed_units(record) != place->units || record->units[0] != place->first) return false;
    memcpy(read->units, record->units, sizeof(read->units));
    return true;
}

/* I2: the header is one, and of this place and key. */
static bool header_right(struct ssd_read *read)
{
    struct ssd_seal *seal = read->segment->seal;
    struct ssd_record record;
    if (seal != NULL && ssd_record_open(seal, read->slot, read->ssd->layout.layers, read->header,
                                        read->tags) != STATUS_OK)
        return false;
    if (ssd_record_decode(read->header, &record, read->sums) != STATUS_OK) return false;
    if (read->segment->places != NULL && !packed_header_right(read, &record)) return false;
    return record.nonce == read->segment->nonce && record.slot == read->slot &&
           record.layers == read->ssd->layout.layers && block_key_equal(&record.key, &read->key);
}

static bool layers_right(struct ssd_read *read, uint32_t upto)
{
    const uint64_t size = read->ssd->layout.layer_size;
    /* Of a packed record the parts are sealed, and have been opened. */
    struct ssd_seal *seal = read->segment->places == NULL ? read->segment->seal : NULL;
    for (uint32_t i = read->layers_ready; i < upto; i++) {
        uint8_t *layer = read->page + i * size;
        if (seal != NULL &&
            ssd_layer_open(seal, read->slot, i, layer, size, read->tags) != STATUS_OK)
            return false;
        if (hash_xxh3(layer, size) != read->sums[i]) return false;
    }
    return true;
}

static uint8_t *part_bytes(const struct ssd_read *read)
{
    return read->page + ssd_part_begin(read->ssd, read->parts_done);
}

/* What the disk said, and the header if it came with it. */
static enum status part_arrived(struct ssd_read *read, enum status status, size_t n)
{
    const uint32_t part = read->parts_done;
    const uint64_t want = read->io.parts[0].iov_len + read->io.parts[1].iov_len;
    struct ssd_seal *seal = read->segment->seal;

    if (status != STATUS_OK) return STATUS_IO;
    if (n != want) return STATUS_CORRUPT; /* the file was cut */
    if (part == 0 && !header_right(read)) return STATUS_CORRUPT;
    if (read->segment->places == NULL || seal == NULL) return STATUS_OK;
    return ssd_layer_open(seal, read->slot, part, part_bytes(read),
                          (size_t)read->units[part] * SSD_ALIGN, read->tags);
}

static enum status part_check(struct ssd_read *read)
{
    const uint32_t upto = ssd_part_layers(read->ssd, read->parts_done + 1);

    if (!layers_right(read, upto)) return STATUS_CORRUPT;
    read->layers_ready = upto;
    read->parts_done++;
    return STATUS_OK;
}

/* The block is not what it was: nobody shall look for it here again. */
static void read_failed(struct ssd_read *read, enum status status)
{
    struct ssd *ssd = read->ssd;
    const bool corrupt = status == STATUS_CORRUPT;

    ssd->counts.corrupt_total += corrupt;
    ssd->counts.read_errors_total += !corrupt;
    LOG_WARN("ssd", corrupt ? "block_wrong" : "block_unreadable", "segment=%llu slot=%u part=%u",
             (unsigned long long)read->segment->id, read->slot, read->parts_done);
    uint64_t place;
    if (map_find(ssd->index, &read->key, &place) && place == place_of(read->segment, read->slot)) {
        ssd_index_remove(ssd, &read->key);
    }
}

static void part_over(struct ssd_read *read, enum status status)
{
    struct ssd *ssd = read->ssd;

    read->busy = false;
    if (status == STATUS_OK) status = part_check(read);
    if (status != STATUS_OK) read_failed(read, status);
    if (status == STATUS_OK && read->parts_done == ssd->parts) ssd->counts.blocks_read_total++;
    read->fn(read->ctx, status);
}

static void unpack_next(struct ssd *ssd);

/* Beside the loop: of the read only its page, and what does not change. */
static void part_unpack(void *ctx)
{
    struct ssd_read *read = ctx;
    const uint32_t part = read->parts_done;
    read->unpacked = ssd_part_unpack(read->ssd, part, read->units[part], part_bytes(read));
}

static void on_unpacked(void *ctx)
{
    struct ssd_read *read = ctx;
    struct ssd *ssd = read->ssd;
    ASSERT(ssd->unpacking_now == read);
    LIST_REMOVE(ssd->unpacking, read);
    ssd->unpacking_now = NULL;
    unpack_next(ssd);
    part_over(read, read->unpacked);
}

/* One at a time, the one that waits longest. */
static void unpack_next(struct ssd *ssd)
{
    struct ssd_read *read = ssd->unpacking;
    if (read == NULL || ssd->unpacking_now != NULL) return;
    while (read->next != NULL)
        read = read->next;
    ssd->unpacking_now = read;
    read->job = (struct env_job){ .run = part_unpack, .done = on_unpacked, .ctx = read };
    if (env_job_start(ssd->env, &read->job) == STATUS_OK) return;
    part_unpack(read); /* better late than never */
    on_unpacked(read);
}

static void on_part(void *ctx, enum status status, size_t n)
{
    struct ssd_read *read = ctx;
    struct ssd *ssd = read->ssd;
    const uint32_t part = read->parts_done;

    ASSERT(read->busy);
    ssd->counts.bytes_read_total += n;
    status = part_arrived(read, status, n);
    if (status == STATUS_OK && read->segment->places != NULL &&
        read->units[part] < part_units(ssd, part)) {
        LIST_PUSH(ssd->unpacking, read);
        unpack_next(ssd);
        return;
    }
    part_over(read, status);
}

/* Where part `part` of a record is stored; the header is in front of the first. */
static uint64_t part_offset(const struct ssd_read *read, uint32_t part)
{
    const uint64_t record = ssd_slot_offset(read->segment, read->slot);
    uint64_t units = 1;
    if (part == 0) return record;
    if (read->segment->places == NULL) return record + SSD_ALIGN + ssd_part_begin(read->ssd, part);
    for (uint32_t i = 0; i < part; i++)
        units += read->units[i];
    return record + units * SSD_ALIGN;
}

static uint64_t part_stored(const struct ssd_read *read, uint32_t part)
{
    const struct ssd_segment *segment = read->segment;
    if (segment->places == NULL) return ssd_part_size(read->ssd, part);
    const uint32_t units = part == 0 ? segment->places[read->slot].first : read->units[part];
    return (uint64_t)units * SSD_ALIGN;
}

enum status ssd_read_part(struct ssd_read *read)
{
    const struct ssd *ssd = read->ssd;
    const uint32_t part = read->parts_done;
    const uint64_t begin = ssd_part_begin(ssd, part);
    const uint64_t len = part_stored(read, part);
    ASSERT(!read->busy && part < ssd->parts && len <= ssd_part_size(ssd, part));

    read->io = (struct env_io){
        .op = ENV_IO_READ,
        .file = read->segment->file,
        .offset = part_offset(read, part),
        .parts = { { read->page + begin, len } },
        .parts_count = 1,
        .fn = on_part,
        .ctx = read,
    };
    if (part == 0) {
        read->io.parts[0] = (struct iovec){ read->header, SSD_ALIGN };
        read->io.parts[1] = (struct iovec){ read->page, len };
        read->io.parts_count = 2;
    }
    const enum status status = env_io_start(&read->io);
    read->busy = status == STATUS_OK;
    return status == STATUS_OK ? STATUS_OK : STATUS_FULL;
}

/* ---- life ---- */

void *ssd_alloc_aligned(uint64_t size)
{
    ASSERT(size % SSD_ALIGN == 0);
    return aligned_alloc(SSD_ALIGN, size);
}

/* How many slots a segment has; 0: the space is too small for three segments of one. */
static uint32_t slots_wanted(const struct store_layout *layout, uint64_t size_max, bool packed)
{
    const uint64_t most = packed ? SSD_SLOTS_MAX / SSD_PACKED_SLOTS : SSD_SLOTS_MAX;
    uint64_t target = size_max / SEGMENTS_WANTED;
    if (target < SEGMENT_SIZE_LEAST) target = SEGMENT_SIZE_LEAST;
    if (target > size_max / SEGMENTS_LEAST) target = size_max / SEGMENTS_LEAST;
    uint64_t slots = target / ssd_record_size(layout);
    if (slots > most) slots = most;
    if (slots == 0) slots = 1;
    return 3 * ssd_segment_size(layout, (uint32_t)slots, packed) <= size_max ? (uint32_t)slots : 0;
}

static uint32_t parts_wanted(const struct store_layout *layout, uint32_t part_size)
{
    ASSERT(part_size >= SSD_ALIGN);
    const uint64_t parts = ssd_payload_size(layout) / part_size;
    const uint32_t most = layout->layers < SSD_PARTS_MAX ? layout->layers : SSD_PARTS_MAX;
    if (parts == 0) return 1;
    return parts > most ? most : (uint32_t)parts;
}

static enum status books_open(struct ssd *ssd)
{
    uint64_t blocks = ssd->options.size_max / ssd->record_size + 1;
    if (blocks > BLOCKS_MAX) blocks = BLOCKS_MAX;
    const uint32_t keys = blocks < SKETCH_KEYS_LEAST ? SKETCH_KEYS_LEAST : (uint32_t)blocks;
    const struct map_options map = { .entries_max = BLOCKS_MAX, .seed = ssd->options.seed };

    enum status status = map_create(&map, &ssd->index);
    if (status == STATUS_OK)
        status = sketch_create(keys, keys * SKETCH_WINDOW, ssd->options.seed, &ssd->sketch);
    if (status == STATUS_OK) status = ssd_write_init(ssd);
    if (status == STATUS_OK && ssd->options.packing.level > 0)
        status = ssd_packer_make(ssd, &ssd->packer);
    if (status == STATUS_OK && ssd->packer != NULL) status = ssd_packer_make(ssd, &ssd->unpacker);
    return status;
}

static enum status directory_take(struct ssd *ssd, struct errmsg *err)
{
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_LOCK;
    char path[SSD_PATH_SIZE];

    snprintf(path, sizeof(path), "%s/lock", ssd->directory);
    const enum status status = env_make_dirs(ssd->env, ssd->directory, err);
    return status == STATUS_OK ? env_file_open(ssd->env, path, flags, &ssd->lock, err) : status;
}

enum status ssd_open(const struct ssd_options *options, struct ssd **out, struct errmsg *err)
{
    const uint64_t started_ns = env_now_ns(options->env);
    const bool packed = options->packing.level > 0;
    const uint32_t slots = slots_wanted(&options->layout, options->size_max, packed);
    ASSERT(options->on_stored != NULL && options->on_removed != NULL && options->on_room != NULL);
    ASSERT(store_layout_valid(&options->layout));

    if (slots == 0) {
        return errmsg_set(err, STATUS_INVALID, "%llu bytes of disk are too few for blocks of %llu",
                          (unsigned long long)options->size_max,
                          (unsigned long long)ssd_record_size(&options->layout));
    }
    if (options->keys != NULL && options->layout.layers > SSD_SEALED_LAYERS_MAX) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "blocks of more than %d layers cannot be sealed",
                          SSD_SEALED_LAYERS_MAX);
    }
    if (options->keys != NULL && !aead_available())
        return errmsg_set(err, STATUS_UNSUPPORTED, "libcrypto.so.3 is not installed");
    if (packed && !ssd_pack_available())
        return errmsg_set(err, STATUS_UNSUPPORTED, "libzstd.so.1 is not installed");
    struct ssd *ssd = calloc(1, sizeof(*ssd));
    if (ssd == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    ssd->env = options->env;
    ssd->options = *options;
    ssd->layout = options->layout;
    ssd->layout.pages = 1;
    ssd->record_size = ssd_record_size(&ssd->layout);
    ssd->slots = slots;
    ssd->parts =
        parts_wanted(&ssd->layout, options->part_size == 0 ? SSD_PART_SIZE : options->part_size);
    ssd->id_next = 1;
    ssd->directory = strdup(options->directory);
    ssd->options.directory = ssd->directory;
    enum status status = ssd->directory == NULL ? STATUS_NO_MEMORY : books_open(ssd);
    if (status != STATUS_OK) {
        errmsg_set(err, status, "out of memory for the books of %s", options->directory);
    } else {
        status = directory_take(ssd, err);
    }
    if (status == STATUS_OK) status = ssd_recover(ssd, err);
    if (status != STATUS_OK) {
        ssd_close(ssd);
        return status;
    }
    ssd->opened = true;
    ssd->counts.recovered_blocks = map_count(ssd->index);
    ssd->counts.recovered_us = (env_now_ns(ssd->env) - started_ns) / ENV_NS_PER_US;
    *out = ssd;
    return STATUS_OK;
}

static void segment_end(struct ssd_segment *segment)
{
    const bool idle = segment->writing == 0 && !segment->syncing;

    if (segment->state == SEGMENT_OPENING || segment->state == SEGMENT_DOOMED ||
        (segment->state == SEGMENT_OPEN && segment->used == 0)) {
        ssd_segment_remove(segment);
        return;
    }
    if (segment->state == SEGMENT_OPEN && idle && ssd_seal_now(segment) != STATUS_OK) {
        LOG_WARN("ssd", "not_sealed", "segment=%llu", (unsigned long long)segment->id);
    }
    ssd_segment_free(segment);
}

void ssd_close(struct ssd *ssd)
{
    if (ssd == NULL) return;
    while (ssd->unpacking != NULL) {
        struct ssd_read *read = ssd->unpacking;
        LIST_REMOVE(ssd->unpacking, read);
        if (read == ssd->unpacking_now) env_job_settle(&read->job);
    }
    ssd->unpacking_now = NULL;
    ssd_packs_finish(ssd);
    ssd->closing = true;
    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        if (ssd->segments[i] != NULL) segment_end(ssd->segments[i]);
    }
    ASSERT(ssd->size == 0 && ssd->segments_count == 0);
    ssd_write_fini(ssd);
    env_file_close(ssd->lock);
    ssd_packer_destroy(ssd->packer);
    ssd_packer_destroy(ssd->unpacker);
    sketch_destroy(ssd->sketch);
    map_destroy(ssd->index);
    free(ssd->directory);
    free(ssd);
}

/* ---- numbers ---- */

void ssd_counts(const struct ssd *ssd, struct ssd_counts *out)
{
    *out = ssd->counts;
    out->blocks = map_count(ssd->index);
    out->segments = ssd->segments_count;
    out->size = ssd->size;
    out->size_max = ssd->options.size_max;
    out->memory = map_memory(ssd->index);
    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        const struct ssd_segment *segment = ssd->segments[i];
        if (segment == NULL) continue;
        out->foreign_segments += segment->foreign;
        const size_t place = segment->places != NULL ? sizeof(*segment->places) : 0;
        out->memory +=
            sizeof(*segment) +
            (uint64_t)segment->slots * (sizeof(*segment->keys) + sizeof(*segment->states) + place);
    }
}

/* One record after the other. */
static void places_check(const struct ssd_segment *segment)
{
    uint32_t end = 1;
    for (uint32_t slot = 0; segment->places != NULL && slot < segment->used; slot++) {
        const struct ssd_place *place = &segment->places[slot];
        if (place->units == 0) continue; /* it was not found */
        ASSERT(place->at >= end && place->first > 0 && place->first < place->units);
        end = place->at + place->units;
    }
    ASSERT(segment->places == NULL || end <= segment->end);
}

static uint32_t segment_check(const struct ssd_segment *segment)
{
    uint32_t live = 0;
    uint32_t writing = 0;
    uint64_t size = 0;

    for (uint32_t slot = 0; slot < segment->slots; slot++) {
        ASSERT((segment->states[slot] == SLOT_EMPTY) == (slot >= segment->used));
        writing += segment->states[slot] == SLOT_WRITING;
        live += slot < segment->used && ssd_index_points(segment, slot);
    }
    ASSERT(live == segment->live && writing == segment->writing);
    places_check(segment);
    ASSERT(segment->synced <= segment->written && segment->written <= segment->used);
    if (segment->file != NULL && env_file_size(segment->file, &size) == STATUS_OK) {
        ASSERT(size <= segment->size); /* I3 */
    }
    return live;
}

void ssd_check(const struct ssd *ssd)
{
    uint64_t size = 0;
    uint32_t live = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        const struct ssd_segment *segment = ssd->segments[i];
        if (segment == NULL) continue;
        ASSERT(segment->number == i && segment->ssd == ssd);
        size += segment->size;
        live += segment_check(segment);
        count++;
    }
    ASSERT(size == ssd->size && size <= ssd->options.size_max); /* I3 */
    ASSERT(count == ssd->segments_count);
    ASSERT(live == map_count(ssd->index));
}
