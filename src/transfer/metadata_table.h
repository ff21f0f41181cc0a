/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_table.h - what a metadata server holds: keys with a value, an owner and a life.
 *
 * Pure: the time is told, nothing is opened. An entry without owner belongs to nobody and may be
 * changed by anyone; one without a life (ttl 0) stays until it is removed. That is what clients of
 * other engines ask for.
 *
 * The image is a header "YOLKMETA", version, length and XXH3-64 of what follows, and that is one
 * message (net/msg.h): an array of [key, owner, ttl, value]. It has no times: whoever reads it
 * grants every entry a whole life from then on, in which its owner can renew it.
 *
 * Memory:  as the limits say, and what the map of base/map.h takes. Threads: any one at a time.
 * Limits:  the options; METADATA_TABLE_KEY_MAX, METADATA_TABLE_VALUE_MAX. Beyond them FULL. */
#ifndef TRANSFER_METADATA_TABLE_H
#define TRANSFER_METADATA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;
struct metadata_table; /* opaque */

enum {
    METADATA_TABLE_KEY_MAX = 1024,
    METADATA_TABLE_OWNER_MAX = 64,
    METADATA_TABLE_VALUE_MAX = 1 << 20,
    METADATA_TABLE_ENTRIES_MAX = 1 << 20,
};

/* `size_max`: bytes of keys, owners and values together. NULL without memory. */
struct metadata_table *metadata_table_create(uint32_t entries_max, uint64_t size_max,
                                             uint64_t seed);
void metadata_table_destroy(struct metadata_table *table); /* NULL is allowed */

struct metadata_put {
    const char *key;
    const char *owner; /* "": nobody's */
    const void *value;
    size_t len;
    uint32_t ttl_ms; /* 0: for ever */
    bool keep;       /* only if it is ours, nobody's or not there: else EXISTS */
};

/* OK: it is there from now on; *changed says whether the image is another one now: a renewal leaves
 * it as it was. INVALID for an empty or too long key or owner; EXISTS; FULL. */
MUST_USE enum status metadata_table_put(struct metadata_table *table,
                                        const struct metadata_put *put, uint64_t now_ns,
                                        bool *changed);

/* The value is borrowed until the next call. NOT_FOUND also when its life is over. */
MUST_USE enum status metadata_table_get(const struct metadata_table *table, const char *key,
                                        uint64_t now_ns, const char **value, size_t *len);

/* `owner` "": whoever it belongs to. EXISTS if it is another's, NOT_FOUND. */
MUST_USE enum status metadata_table_remove(struct metadata_table *table, const char *key,
                                           const char *owner, uint64_t now_ns);

/* Forgets those whose life is over; how many they were. */
uint32_t metadata_table_expire(struct metadata_table *table, uint64_t now_ns);

uint32_t metadata_table_count(const struct metadata_table *table);
uint64_t metadata_table_size(const struct metadata_table *table);

/* Appends. FULL if the buffer is too small. */
MUST_USE enum status metadata_table_write(const struct metadata_table *table, struct buf *out);

/* Into an empty table. CORRUPT for anything but an image, FULL for one beyond the limits; then some
 * may be there. */
MUST_USE enum status metadata_table_read(struct metadata_table *table, const void *data, size_t len,
                                         uint64_t now_ns);

#endif
