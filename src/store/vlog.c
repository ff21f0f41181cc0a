/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog.c - the log of values: its index, its segments, and reading.
 *
 * See vlog.h for the invariants, vlog_format.h for the bytes, vlog_int.h for the life of a segment.
 */
#include "store/vlog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "store/sketch.h"
#include "store/slab.h"
#include "store/vlog_int.h"
#include "store/vlog_pack.h"

enum {
    SEGMENTS_WANTED = 64,          /* how finely a large disk is given up */
    SEGMENTS_LEAST = 8,            /* and a small one */
    SEGMENT_SIZE_LEAST = 64 << 20, /* bytes, where the disk is large enough */
    SEGMENT_SIZE_MAX = 1 << 30,
    SEGMENT_UNITS_LEAST = 8,
    SKETCH_KEYS = 1 << 16,
    SKETCH_WINDOW = 8, /* additions remembered, for each key expected */
};

/* ---- segments ---- */

void vlog_path(const struct vlog *vlog, uint64_t id, char out[], size_t size)
{
    char name[SSD_NAME_SIZE];
    ssd_name_print(id, name);
    snprintf(out, size, "%s/%s", vlog->directory, name);
}

struct vlog_segment *vlog_segment_new(struct vlog *vlog, uint64_t id)
{
    ASSERT(vlog->newest == NULL || vlog->newest->id < id);
    if (vlog->segments_count == VLOG_SEGMENTS_MAX) return NULL;
    struct vlog_segment *segment = calloc(1, sizeof(*segment));
    if (segment == NULL) return NULL;
    segment->vlog = vlog;
    segment->id = id;
    segment->used = 1; /* the header */
    if (vlog->newest != NULL) {
        vlog->newest->newer = segment;
    } else {
        vlog->oldest = segment;
    }
    vlog->newest = segment;
    vlog->segments_count++;
    if (id >= vlog->id_next) vlog->id_next = id + 1;
    return segment;
}

void vlog_segment_size(struct vlog_segment *segment, uint64_t size)
{
    struct vlog *vlog = segment->vlog;
    ASSERT(vlog->size >= segment->size);
    vlog->size = vlog->size - segment->size + size;
    segment->size = size;
}

void vlog_segment_free(struct vlog_segment *segment)
{
    struct vlog *vlog = segment->vlog;
    struct vlog_segment **link = &vlog->oldest;
    struct vlog_segment *older = NULL;
    ASSERT(vlog->closing || (segment->readers == 0 && segment->writing == 0)); /* I5 */
    ASSERT(segment->entries == NULL);

    env_file_close(segment->file);
    vlog_segment_size(segment, 0);
    while (*link != segment) {
        older = *link;
        link = &older->newer;
    }
    *link = segment->newer;
    if (vlog->newest == segment) vlog->newest = older;
    vlog->segments_count--;
    if (vlog->open == segment) vlog->open = NULL;
    free(segment->gone);
    free(segment->io_bytes);
    ssd_seal_destroy(segment->seal);
    free(segment);
}

void vlog_segment_remove(struct vlog_segment *segment)
{
    struct vlog *vlog = segment->vlog;
    char path[VLOG_PATH_SIZE];

    vlog_path(vlog, segment->id, path, sizeof(path));
    vlog_segment_free(segment);
    const enum status status = env_file_remove(vlog->env, path);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        LOG_WARN("vlog", "segment_not_removed", "path=%s reason=%s", path, status_name(status));
    }
}

/* ---- the index ---- */

struct vlog_entry *vlog_entry_new(const struct vlog_meta *meta, struct store_key key)
{
    struct vlog_entry *entry = calloc(1, sizeof(*entry) + key.len);
    if (entry == NULL) return NULL;
    entry->meta = *meta;
    entry->key_len = key.len;
    memcpy(entry->key, key.bytes, key.len);
    return entry;
}

struct vlog_entry *vlog_find(const struct vlog *vlog, const struct block_key *id)
{
    uint64_t value;
    if (!map_find(vlog->index, id, &value)) return NULL;
    return (struct vlog_entry *)(uintptr_t)value;
}

void vlog_index_remove(struct vlog *vlog, struct vlog_entry *entry)
{
    struct vlog_segment *segment = entry->segment;
    const bool there = map_remove(vlog->index, &entry->meta.id, NULL);
    ASSERT(there && segment->live > 0);

    LIST_REMOVE(segment->entries, entry);
    segment->live--;
    vlog->memory -= sizeof(*entry) + entry->key_len;
    slab_free(vlog->slots, entry->slot);
    free(entry);
}

bool vlog_index_put(struct vlog_segment *segment, struct vlog_entry *entry)
{
    struct vlog *vlog = segment->vlog;
    struct vlog_entry *before = vlog_find(vlog, &entry->meta.id);

    if (before != NULL) vlog_index_remove(vlog, before);
    struct vlog_entry **place = slab_alloc(vlog->slots, &entry->slot);
    if (place == NULL || map_insert(vlog->index, &entry->meta.id, (uint64_t)(uintptr_t)entry)) {
        LOG_WARN("vlog", "index_full", "values=%u", map_count(vlog->index));
        if (place != NULL) slab_free(vlog->slots, entry->slot);
        free(entry);
        return false;
    }
    *place = entry;
    entry->segment = segment;
    LIST_PUSH(segment->entries, entry);
    segment->live++;
    vlog->memory += sizeof(*entry) + entry->key_len;
    return true;
}

struct vlog_entry *vlog_next(const struct vlog *vlog, uint64_t *cursor)
{
    const uint32_t slot = slab_next(vlog->slots, (uint32_t)*cursor);
    if (slot == SLAB_NONE) return NULL;
    *cursor = (uint64_t)slot + 1;
    return *(struct vlog_entry **)slab_at(vlog->slots, slot);
}

void vlog_touch(struct vlog *vlog, const struct block_key *id)
{
    sketch_add(vlog->sketch, id);
}

uint32_t vlog_heat(const struct vlog *vlog, const struct block_key *id)
{
    return sketch_estimate(vlog->sketch, id);
}

/* ---- reading ---- */

uint8_t *vlog_alloc_units(uint32_t units)
{
    ASSERT(units > 0);
    return aligned_alloc(VLOG_UNIT, (size_t)units * VLOG_UNIT);
}

/* Where the bytes of the value were read to. */
static uint8_t *read_bytes(const struct vlog_read *read, bool packed)
{
    return packed ? read->head + (size_t)read->units * VLOG_UNIT : read->data;
}

/* I2, up to the bytes themselves, which may be packed. */
static enum status read_check(const struct vlog_read *read, enum status status, size_t n,
                              struct vlog_head *head)
{
    struct ssd_seal *seal = read->segment->seal;
    if (status != STATUS_OK) return STATUS_IO;
    if (n != read->io.parts[0].iov_len + read->io.parts[1].iov_len) return STATUS_CORRUPT;
    if (seal != NULL) status = vlog_head_open(seal, read->at, read->units, read->head);
    if (status != STATUS_OK) return status;
    status = vlog_head_decode(read->head, read->units, read->segment->nonce, read->at, head);
    if (status != STATUS_OK) return status;
    if (!block_key_equal(&head->meta.id, &read->id)) return STATUS_CORRUPT;
    if ((uint64_t)head->meta.pages * VLOG_UNIT != n) return STATUS_CORRUPT; /* its index lied */
    const bool packed = vlog_meta_packed(&head->meta);
    if (packed != (read->io.parts_count == 1)) return STATUS_CORRUPT;
    if (seal == NULL) return STATUS_OK;
    return vlog_bytes_open(seal, &head->meta, read->head, read_bytes(read, packed));
}

static void read_failed(struct vlog_read *read, struct vlog_entry *entry, enum status status)
{
    struct vlog *vlog = read->vlog;
    const bool corrupt = status == STATUS_CORRUPT;

    vlog->counts.corrupt_total += corrupt;
    vlog->counts.read_errors_total += !corrupt;
    LOG_WARN("vlog", corrupt ? "value_wrong" : "value_unreadable", "segment=%llu at=%u",
             (unsigned long long)read->segment->id, read->at);
    vlog->options.on_removed(vlog->options.ctx, entry);
    const bool dropped = vlog_drop(vlog, &read->id);
    ASSERT(dropped);
}

static void read_over(struct vlog_read *read, enum status status)
{
    struct vlog *vlog = read->vlog;
    struct vlog_segment *segment = read->segment;
    struct vlog_entry *entry = vlog_find(vlog, &read->id);
    const bool still = entry != NULL && entry->segment == segment && entry->meta.at == read->at;
    const struct vlog_head head = read->found;

    if (status == STATUS_OK && !vlog_bytes_right(&head, read->data)) status = STATUS_CORRUPT;
    if (status == STATUS_OK) {
        vlog->counts.values_read_total++;
    } else if (still) {
        read_failed(read, entry, status);
    }
    uint8_t *bytes = read->head;
    segment->readers--;
    if (segment->state == VLOG_DOOMED && segment->readers == 0) {
        vlog_segment_remove(segment);
        vlog_write_go_on(vlog);
    }
    read->fn(read->ctx, still ? status : STATUS_STALE, &head); /* may free the read */
    free(bytes);
}

/* Beside the loop: of the read only its memory, and what does not change. */
static void read_unpack(void *ctx)
{
    struct vlog_read *read = ctx;
    const struct vlog_meta *meta = &read->found.meta;
    read->unpacked = vlog_unpack(read->vlog->unpacker, read_bytes(read, true),
                                 meta->pages - meta->head, read->data, meta->size);
}

static void unpack_next(struct vlog *vlog);

static void on_unpacked(void *ctx)
{
    struct vlog_read *read = ctx;
    struct vlog *vlog = read->vlog;
    ASSERT(vlog->unpacking_now == read);
    LIST_REMOVE(vlog->unpacking, read);
    vlog->unpacking_now = NULL;
    unpack_next(vlog);
    read_over(read, read->unpacked);
}

/* One at a time, the one that waits longest. */
static void unpack_next(struct vlog *vlog)
{
    struct vlog_read *read = vlog->unpacking;
    if (read == NULL || vlog->unpacking_now != NULL) return;
    while (read->next != NULL)
        read = read->next;
    vlog->unpacking_now = read;
    read->job = (struct env_job){ .run = read_unpack, .done = on_unpacked, .ctx = read };
    if (env_job_start(vlog->env, &read->job) == STATUS_OK) return;
    read_unpack(read); /* better late than never */
    on_unpacked(read);
}

static void on_read(void *ctx, enum status status, size_t n)
{
    struct vlog_read *read = ctx;
    struct vlog *vlog = read->vlog;

    vlog->counts.bytes_read_total += n;
    status = read_check(read, status, n, &read->found);
    if (status != STATUS_OK || !vlog_meta_packed(&read->found.meta)) {
        read_over(read, status);
        return;
    }
    LIST_PUSH(vlog->unpacking, read);
    unpack_next(vlog);
}

enum status vlog_read(struct vlog *vlog, const struct block_key *id, struct vlog_read *read)
{
    const struct vlog_entry *entry = vlog_find(vlog, id);
    if (entry == NULL) return STATUS_NOT_FOUND;

    const struct vlog_meta *meta = &entry->meta;
    read->vlog = vlog;
    read->segment = entry->segment;
    read->id = *id;
    read->at = meta->at;
    read->units = meta->head;
    const bool packed = vlog_meta_packed(meta);
    read->head = vlog_alloc_units(packed ? meta->pages : meta->head);
    if (read->head == NULL) return STATUS_FULL;
    read->io = (struct env_io){
        .op = ENV_IO_READ,
        .file = entry->segment->file,
        .offset = (uint64_t)meta->at * VLOG_UNIT,
        .parts = { { read->head, (size_t)meta->head * VLOG_UNIT },
                   { read->data, (size_t)(meta->pages - meta->head) * VLOG_UNIT } },
        .parts_count = 2,
        .fn = on_read,
        .ctx = read,
    };
    if (packed) {
        read->io.parts[0].iov_len = (size_t)meta->pages * VLOG_UNIT;
        read->io.parts[1].iov_len = 0;
        read->io.parts_count = 1;
    }
    if (env_io_start(&read->io) != STATUS_OK) {
        free(read->head);
        return STATUS_FULL;
    }
    read->segment->readers++;
    return STATUS_OK;
}

void vlog_read_abandon(struct vlog_read *read)
{
    free(read->head);
}

/* ---- life ---- */

static uint64_t segment_size_wanted(uint64_t size_max)
{
    uint64_t size = size_max / SEGMENTS_WANTED;
    if (size < SEGMENT_SIZE_LEAST) size = SEGMENT_SIZE_LEAST;
    if (size > SEGMENT_SIZE_MAX) size = SEGMENT_SIZE_MAX;
    if (size > size_max / SEGMENTS_LEAST) size = size_max / SEGMENTS_LEAST;
    return size / VLOG_UNIT * VLOG_UNIT;
}

uint64_t vlog_value_max(const struct vlog *vlog)
{
    /* What is neither header, head, nor a footer that names one key of full length. */
    const uint64_t rest =
        (uint64_t)VLOG_UNIT *
        (3 + vlog_head_units(STORE_KEY_SIZE_MAX, (uint32_t)(vlog->segment_size / 65536)));
    return vlog->segment_size > rest ? vlog->segment_size - rest : 0;
}

static enum status directory_take(struct vlog *vlog, struct errmsg *err)
{
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_LOCK;
    char path[VLOG_PATH_SIZE];

    snprintf(path, sizeof(path), "%s/lock", vlog->directory);
    const enum status status = env_make_dirs(vlog->env, vlog->directory, err);
    return status == STATUS_OK ? env_file_open(vlog->env, path, flags, &vlog->lock, err) : status;
}

enum status vlog_open(const struct vlog_options *options, struct vlog **out, struct errmsg *err)
{
    const uint64_t started_ns = env_now_ns(options->env);
    const struct map_options map = { .entries_max = VLOG_VALUES_MAX, .seed = options->seed };
    ASSERT(options->on_written != NULL && options->on_removed != NULL && options->on_room != NULL);

    if (segment_size_wanted(options->size_max) < SEGMENT_UNITS_LEAST * VLOG_UNIT) {
        return errmsg_set(err, STATUS_INVALID, "%llu bytes of disk are too few for values",
                          (unsigned long long)options->size_max);
    }
    if (options->keys != NULL && !aead_available())
        return errmsg_set(err, STATUS_UNSUPPORTED, "libcrypto.so.3 is not installed");
    if (options->packing.level > 0 && !ssd_pack_available())
        return errmsg_set(err, STATUS_UNSUPPORTED, "libzstd.so.1 is not installed");
    struct vlog *vlog = calloc(1, sizeof(*vlog));
    if (vlog == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    vlog->env = options->env;
    vlog->options = *options;
    vlog->segment_size = segment_size_wanted(options->size_max);
    vlog->id_next = 1;
    vlog->directory = strdup(options->directory);
    vlog->options.directory = vlog->directory;
    vlog->slots = slab_create(sizeof(struct vlog_entry *), VLOG_VALUES_MAX);
    const bool can_write = vlog_write_init(vlog);
    enum status status = !can_write || vlog->directory == NULL || vlog->slots == NULL
                             ? STATUS_NO_MEMORY
                             : map_create(&map, &vlog->index);
    if (status == STATUS_OK) {
        status =
            sketch_create(SKETCH_KEYS, SKETCH_KEYS * SKETCH_WINDOW, options->seed, &vlog->sketch);
    }
    if (status == STATUS_OK && options->packing.level > 0) {
        status = ssd_packer_create(VLOG_PART_SIZE, &vlog->packer);
        if (status == STATUS_OK) status = ssd_packer_create(VLOG_PART_SIZE, &vlog->unpacker);
    }
    if (status != STATUS_OK) {
        errmsg_set(err, status, "out of memory for the books of %s", options->directory);
    } else {
        status = directory_take(vlog, err);
    }
    if (status == STATUS_OK) status = vlog_recover(vlog, err);
    if (status != STATUS_OK) {
        vlog_close(vlog);
        return status;
    }
    vlog->opened = true;
    vlog->counts.recovered_values = map_count(vlog->index);
    vlog->counts.recovered_us = (env_now_ns(vlog->env) - started_ns) / ENV_NS_PER_US;
    *out = vlog;
    return STATUS_OK;
}

void vlog_close(struct vlog *vlog)
{
    if (vlog == NULL) return;
    while (vlog->unpacking != NULL) {
        struct vlog_read *read = vlog->unpacking;
        LIST_REMOVE(vlog->unpacking, read);
        if (read == vlog->unpacking_now) env_job_settle(&read->job);
    }
    vlog->unpacking_now = NULL;
    if (vlog->opened) vlog_finish_now(vlog);
    vlog->closing = true;
    while (vlog->oldest != NULL) {
        struct vlog_segment *segment = vlog->oldest;
        const bool keep = segment->state != VLOG_OPENING && segment->state != VLOG_DOOMED;
        while (segment->entries != NULL)
            vlog_index_remove(vlog, segment->entries);
        if (keep) {
            vlog_segment_free(segment);
        } else {
            vlog_segment_remove(segment);
        }
    }
    ASSERT(vlog->size == 0 && vlog->segments_count == 0 && vlog->memory == 0);
    vlog_write_fini(vlog);
    env_file_close(vlog->lock);
    ssd_packer_destroy(vlog->packer);
    ssd_packer_destroy(vlog->unpacker);
    sketch_destroy(vlog->sketch);
    map_destroy(vlog->index);
    slab_destroy(vlog->slots);
    free(vlog->directory);
    free(vlog);
}

/* ---- numbers ---- */

void vlog_counts(const struct vlog *vlog, struct vlog_counts *out)
{
    *out = vlog->counts;
    out->values = map_count(vlog->index);
    out->segments = vlog->segments_count;
    out->size = vlog->size;
    out->size_max = vlog->options.size_max;
    out->memory = map_memory(vlog->index) + slab_memory(vlog->slots) + vlog->memory;
}

static uint64_t segment_check(const struct vlog_segment *segment)
{
    uint32_t live = 0;
    uint64_t size = 0;

    for (const struct vlog_entry *entry = segment->entries; entry != NULL; entry = entry->next) {
        ASSERT(entry->segment == segment && vlog_find(segment->vlog, &entry->meta.id) == entry);
        ASSERT(entry->meta.at >= 1 && entry->meta.at + entry->meta.pages <= segment->used);
        live++;
    }
    ASSERT(live == segment->live);
    if (segment->file != NULL && env_file_size(segment->file, &size) == STATUS_OK) {
        ASSERT(size <= segment->size); /* I3 */
    }
    return live;
}

void vlog_check(const struct vlog *vlog)
{
    uint64_t size = 0;
    uint64_t live = 0;
    uint32_t count = 0;

    for (const struct vlog_segment *s = vlog->oldest; s != NULL; s = s->newer) {
        ASSERT(s->vlog == vlog && (s->newer == NULL || s->newer->id > s->id));
        size += s->size;
        live += segment_check(s);
        count++;
    }
    ASSERT(size == vlog->size && size <= vlog->options.size_max); /* I3 */
    ASSERT(count == vlog->segments_count && live == map_count(vlog->index));
}
