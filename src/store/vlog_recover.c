/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_recover.c - what is in a directory of values when it is opened: the log is replayed,
 * the oldest segment first.
 *
 *   a footer at the end, with its checksum     believed: what it says is gone, then what is there
 *   anything else                              the records are looked at one by one, with their
 *                                              bytes; then the segment gets a footer
 *   a header that is none, or was changed      the file is removed
 *   a header of a key that we have not         nothing is opened, and nothing is touched
 *   a packed one, and no library               likewise
 *
 * Where nothing is found that is a record, the next unit is looked at, and so on: writes end in any
 * order, and the last ones before a crash are missing or torn, in the open segment and in the one
 * that was being finished beside it. In any but the newest two segments such a hole is damage, and
 * may have held the newer value of a key, or its drop: older segments are not believed any more and
 * are given up. So are those before a file that has lost its header, or is not there: segments are
 * numbered without a gap and given up from the oldest, so what stands before a gap should have been
 * removed before what is missing was.
 *
 * Blocking, at start-up only. Damage is met with warnings, never with an error. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "store/vlog_int.h"
#include "store/vlog_pack.h"

enum { NAMES_MAX = 4 * VLOG_SEGMENTS_MAX };

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

/* NULL: no memory, or the file has not so much. */
static uint8_t *read_units(const struct vlog_segment *segment, uint32_t at, uint32_t units)
{
    const size_t len = (size_t)units * VLOG_UNIT;
    size_t n = 0;
    uint8_t *bytes = vlog_alloc_units(units);
    if (bytes == NULL) return NULL;
    if (env_file_pread(segment->file, bytes, len, (uint64_t)at * VLOG_UNIT, &n) == STATUS_OK &&
        n == len) {
        return bytes;
    }
    free(bytes);
    return NULL;
}

static void value_found(struct vlog_segment *segment, const struct vlog_meta *meta,
                        struct store_key key)
{
    struct vlog_entry *entry = vlog_entry_new(meta, key);
    if (entry == NULL || !vlog_index_put(segment, entry)) return;
    segment->entries_size += vlog_entry_size(key.len);
}

static void value_gone(struct vlog *vlog, const struct block_key *id)
{
    struct vlog_entry *entry = vlog_find(vlog, id);
    if (entry != NULL) vlog_index_remove(vlog, entry);
}

static void all_gone(struct vlog *vlog, const uint8_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct block_key id;
        memcpy(id.bytes, ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
        value_gone(vlog, &id);
    }
}

/* ---- with a footer ---- */

static bool footer_find(const struct vlog_segment *segment, uint32_t units,
                        struct vlog_footer *footer)
{
    if (units < 2) return false;
    uint8_t *page = read_units(segment, units - 1, 1);
    const bool found =
        page != NULL &&
        vlog_trailer_decode(page + VLOG_UNIT - VLOG_TRAILER_SIZE, footer) == STATUS_OK &&
        footer->nonce == segment->nonce && footer->at >= 1 && footer->at < units &&
        footer->pages == units - footer->at;
    free(page);
    return found;
}

static bool footer_take(struct vlog_segment *segment, uint32_t units)
{
    struct vlog_footer footer;
    struct vlog_meta meta;
    struct store_key key;

    if (!footer_find(segment, units, &footer)) return false;
    uint8_t *bytes = read_units(segment, footer.at, footer.pages);
    const size_t size = (size_t)footer.pages * VLOG_UNIT;
    const bool opened = bytes != NULL && (segment->seal == NULL ||
                                          ssd_seal_footer_open(segment->seal, bytes, size,
                                                               VLOG_TRAILER_SIZE) == STATUS_OK);
    const bool right = opened && vlog_footer_decode(bytes, &footer) == STATUS_OK;
    if (right) {
        segment->used = footer.at;
        all_gone(segment->vlog, bytes, footer.gone);
        uint64_t offset = (uint64_t)BLOCK_KEY_SIZE * footer.gone;
        for (uint32_t i = 0; i < footer.entries; i++) {
            if (vlog_entry_decode(bytes, &footer, i, &offset, &meta, &key) != STATUS_OK) break;
            if (vlog_meta_packed(&meta) && !segment->packed) break;
            value_found(segment, &meta, key);
        }
    }
    free(bytes);
    return right;
}

/* ---- without ---- */

struct scan {
    struct vlog_segment *segment;
    uint32_t units; /* of the file */
    uint32_t holes; /* units that are no part of a record, in front of one that is */
    uint32_t skipped;
    uint32_t torn;
};

/* The key has no value from here on, and the footer is to say so. */
static void gone_found(struct vlog_segment *segment, const struct block_key *id)
{
    value_gone(segment->vlog, id);
    if (vlog_segment_gone(segment, id, 1)) return;
    LOG_WARN("vlog", "drop_not_noted", "reason=%s", "out of memory");
}

/* *data becomes what it is a pack of. */
static bool value_unpack(const struct vlog_segment *segment, const struct vlog_meta *meta,
                         uint8_t **data)
{
    uint8_t *bytes = vlog_alloc_units(vlog_units(meta->size));
    const bool right =
        bytes != NULL && vlog_unpack(segment->vlog->unpacker, *data, meta->pages - meta->head,
                                     bytes, meta->size) == STATUS_OK;
    if (!right) {
        free(bytes);
        return false;
    }
    free(*data);
    *data = bytes;
    return true;
}

/* A value's record at this unit; its units, or 0. */
static uint32_t value_scan(struct scan *scan, uint32_t at, uint32_t head_units)
{
    struct vlog_segment *segment = scan->segment;
    struct vlog_head head;
    uint8_t *bytes = read_units(segment, at, head_units);
    uint8_t *data = NULL;

    struct ssd_seal *seal = segment->seal;
    if (bytes == NULL ||
        (seal != NULL && vlog_head_open(seal, at, head_units, bytes) != STATUS_OK) ||
        vlog_head_decode(bytes, head_units, segment->nonce, at, &head) != STATUS_OK) {
        free(bytes);
        return 0;
    }
    if (vlog_meta_packed(&head.meta) && !segment->packed) {
        free(bytes);
        return 0;
    }
    data = read_units(segment, at + head_units, head.meta.pages - head_units);
    bool opened = data != NULL &&
                  (seal == NULL || vlog_bytes_open(seal, &head.meta, bytes, data) == STATUS_OK);
    if (opened && vlog_meta_packed(&head.meta)) opened = value_unpack(segment, &head.meta, &data);
    if (opened && vlog_bytes_right(&head, data)) {
        value_found(segment, &head.meta, head.key);
    } else {
        gone_found(segment, &head.meta.id); /* I6 */
        scan->torn++;
    }
    const uint32_t units = data != NULL ? head.meta.pages : head_units;
    free(data);
    free(bytes);
    return units;
}

static uint32_t gone_scan(struct scan *scan, uint32_t at, uint32_t units)
{
    struct vlog_segment *segment = scan->segment;
    const uint8_t *ids;
    uint32_t count;
    uint8_t *bytes = read_units(segment, at, units);
    struct ssd_seal *seal = segment->seal;
    const bool opened =
        bytes != NULL && (seal == NULL || vlog_gone_open(seal, at, units, bytes) == STATUS_OK);
    const bool right = opened && vlog_gone_decode(bytes, units, &ids, &count) == STATUS_OK;

    if (right) {
        for (uint32_t i = 0; i < count; i++) {
            struct block_key id;
            memcpy(id.bytes, ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
            gone_found(segment, &id);
        }
    }
    free(bytes);
    return right ? units : 0;
}

static uint32_t record_scan(struct scan *scan, uint32_t at)
{
    const struct vlog_segment *segment = scan->segment;
    uint8_t *page = read_units(segment, at, 1);
    if (page == NULL) return 0;
    const uint32_t head = vlog_head_sniff(page, segment->nonce, at);
    const uint32_t gone = vlog_gone_sniff(page, segment->nonce, at);
    free(page);
    if (head > 0 && head <= scan->units - at) return value_scan(scan, at, head);
    if (gone > 0 && gone <= scan->units - at) return gone_scan(scan, at, gone);
    return 0;
}

static void records_take(struct scan *scan)
{
    struct vlog_segment *segment = scan->segment;

    for (uint32_t at = 1; at < scan->units;) {
        const uint32_t units = record_scan(scan, at);
        if (units == 0) {
            scan->skipped++;
            at++;
            continue;
        }
        scan->holes += scan->skipped;
        scan->skipped = 0;
        at += units;
    }
    segment->used = scan->units; /* I4: what could not be read is not written over */
    LOG_INFO("vlog", "segment_scanned", "segment=%llu values=%u torn=%u holes=%u",
             (unsigned long long)segment->id, segment->live, scan->torn, scan->holes);
    if (vlog_seal_now(segment) != STATUS_OK) {
        LOG_WARN("vlog", "not_sealed", "segment=%llu", (unsigned long long)segment->id);
    }
}

/* ---- files ---- */

static void give_up(struct vlog_segment *segment)
{
    while (segment->entries != NULL)
        vlog_index_remove(segment->vlog, segment->entries);
    vlog_segment_remove(segment);
}

/* What came before `segment` (NULL: everything) is not believed any more. */
static void give_up_older(struct vlog *vlog, const struct vlog_segment *segment)
{
    uint32_t count = 0;
    while (vlog->oldest != NULL && vlog->oldest != segment) {
        give_up(vlog->oldest);
        count++;
    }
    if (count > 0) LOG_WARN("vlog", "older_segments_given_up", "count=%u", count);
}

static enum status unpacker_need(struct vlog *vlog)
{
    if (vlog->unpacker != NULL) return STATUS_OK;
    return ssd_packer_create(VLOG_PART_SIZE, &vlog->unpacker);
}

static bool header_take(struct vlog_segment *segment)
{
    struct vlog_header header;
    uint8_t *page = read_units(segment, 0, 1);
    bool right =
        page != NULL && vlog_header_decode(page, &header) == STATUS_OK && header.id == segment->id;
    if (right && header.sealed) {
        right = ssd_seal_create(segment->vlog->options.keys, &header.seal, &segment->seal) ==
                    STATUS_OK &&
                ssd_seal_header_check(segment->seal, page) == STATUS_OK;
    }
    /* Not for the first time, unless the disk would not say what it is when the key was checked. */
    if (right && header.packed) right = unpacker_need(segment->vlog) == STATUS_OK;
    if (right) segment->nonce = header.nonce;
    if (right) segment->packed = header.packed;
    free(page);
    return right;
}

/* `age`: of the segment, in newer ones. */
static void file_take(struct vlog *vlog, uint64_t id, uint32_t age)
{
    const unsigned flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_DIRECT;
    char path[VLOG_PATH_SIZE];
    uint64_t size = 0;
    struct vlog_segment *segment = vlog_segment_new(vlog, id);

    if (segment == NULL) return;
    segment->state = VLOG_SEALED;
    vlog_path(vlog, id, path, sizeof(path));
    enum status status = env_file_open(vlog->env, path, flags, &segment->file, NULL);
    if (status == STATUS_OK) status = env_file_size(segment->file, &size);
    if (status != STATUS_OK || !header_take(segment)) {
        LOG_WARN("vlog", "segment_removed", "path=%s", path);
        vlog_segment_remove(segment);
        if (age > 0) give_up_older(vlog, NULL); /* a new one may never have had a header */
        if (age == 0) vlog->id_next = id;
        return;
    }
    vlog_segment_size(segment, (uint64_t)vlog_units(size) * VLOG_UNIT);
    struct scan scan = { .segment = segment, .units = vlog_units(size) };
    if (!footer_take(segment, scan.units)) {
        records_take(&scan);
        if (age > 1 && scan.holes > 0) give_up_older(vlog, segment);
    }
    /* What a process that was killed wrote is in the file, but maybe not yet on the disk. */
    segment->dirty = env_file_sync(segment->file) != STATUS_OK;
    free(segment->gone);
    segment->gone = NULL;
    segment->gone_count = segment->gone_capacity = 0;
}

/* Whether the file can be read with what we have: STATUS_NOT_FOUND, it is of another key;
 * STATUS_UNSUPPORTED or STATUS_NO_MEMORY, it is packed. Else its damage will show. */
static enum status file_check(struct vlog *vlog, uint64_t id, uint8_t *page)
{
    char path[VLOG_PATH_SIZE];
    struct env_file *file;
    struct vlog_header header;
    struct ssd_seal *seal = NULL;
    size_t n = 0;

    vlog_path(vlog, id, path, sizeof(path));
    if (env_file_open(vlog->env, path, ENV_FILE_READ | ENV_FILE_DIRECT, &file, NULL) != STATUS_OK)
        return STATUS_OK;
    const bool read = env_file_pread(file, page, VLOG_UNIT, 0, &n) == STATUS_OK && n == VLOG_UNIT;
    env_file_close(file);
    if (!read || vlog_header_decode(page, &header) != STATUS_OK) return STATUS_OK;
    enum status status = STATUS_OK;
    if (header.packed) status = unpacker_need(vlog);
    if (status == STATUS_OK && header.sealed)
        status = ssd_seal_create(vlog->options.keys, &header.seal, &seal);
    ssd_seal_destroy(seal);
    return status;
}

static enum status unreadable(const struct vlog *vlog, enum status status, struct errmsg *err)
{
    if (status != STATUS_NOT_FOUND) {
        return errmsg_set(err, status, "%.150s holds values that cannot be opened: %s",
                          vlog->directory, status_name(status));
    }
    return errmsg_set(err, STATUS_DENIED,
                      "%.150s holds values written with another key: name that one, too "
                      "(--ssd-key-file), or remove the directory",
                      vlog->directory);
}

/* A log makes no sense without its middle: all of it is left alone. */
static enum status files_check(struct vlog *vlog, const struct names *names, struct errmsg *err)
{
    uint8_t *page = vlog_alloc_units(1);
    enum status status = STATUS_OK;

    if (page == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < names->count && status == STATUS_OK; i++) {
        status = file_check(vlog, names->ids[i], page);
        if (status != STATUS_OK) status = unreadable(vlog, status, err);
    }
    free(page);
    return status;
}

enum status vlog_recover(struct vlog *vlog, struct errmsg *err)
{
    struct names *names = calloc(1, sizeof(*names));
    enum status status = STATUS_NO_MEMORY;

    if (names != NULL) status = env_dir_list(vlog->env, vlog->directory, on_name, names, err);
    if (status == STATUS_OK) status = files_check(vlog, names, err);
    if (status == STATUS_OK) {
        qsort(names->ids, names->count, sizeof(names->ids[0]), compare_ids);
        for (uint32_t i = 0; i < names->count; i++) {
            if (i > 0 && names->ids[i] != names->ids[i - 1] + 1) give_up_older(vlog, NULL);
            file_take(vlog, names->ids[i], names->count - 1 - i);
        }
        while (vlog->size > vlog->options.size_max)
            give_up(vlog->oldest);
    }
    free(names);
    return status;
}
