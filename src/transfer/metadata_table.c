/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata_table.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/map.h"
#include "net/msg.h"

enum { IMAGE_VERSION = 1, IMAGE_HEADER_SIZE = 32, IMAGE_FIELDS = 4 };

static const uint8_t IMAGE_MAGIC[8] = "YOLKMETA";

struct entry {
    char *key, *owner; /* in `memory`; NULL: the slot is free */
    uint8_t *value;
    uint8_t *memory;
    size_t len;
    uint32_t ttl_ms;
    uint64_t ends_ns; /* ENV_NEVER: never */
    uint32_t free_next;
};

struct metadata_table {
    struct map *map; /* digest of the key to index */
    struct entry *entries;
    uint32_t high, free; /* indices + 1; 0: none */
    uint32_t count, entries_max;
    uint64_t size, size_max;
};

static struct block_key digest_of(const char *key)
{
    uint8_t digest[HASH_SHA256_SIZE];
    struct block_key out;

    hash_sha256(key, strlen(key), digest);
    memcpy(out.bytes, digest, sizeof(out.bytes));
    return out;
}

static uint64_t size_of(const struct entry *entry)
{
    return strlen(entry->key) + strlen(entry->owner) + entry->len;
}

static struct entry *find(const struct metadata_table *table, const char *key)
{
    const struct block_key digest = digest_of(key);
    uint64_t index;

    return map_find(table->map, &digest, &index) ? &table->entries[index] : NULL;
}

static bool alive(const struct entry *entry, uint64_t now_ns)
{
    return entry->ends_ns > now_ns;
}

static uint64_t ends_at(uint32_t ttl_ms, uint64_t now_ns)
{
    return ttl_ms == 0 ? ENV_NEVER : now_ns + ttl_ms * ENV_NS_PER_MS;
}

struct metadata_table *metadata_table_create(uint32_t entries_max, uint64_t size_max, uint64_t seed)
{
    const struct map_options options = { .entries_max = entries_max, .seed = seed };
    struct metadata_table *table = calloc(1, sizeof(*table));

    ASSERT(entries_max > 0 && entries_max <= METADATA_TABLE_ENTRIES_MAX);
    if (table == NULL) return NULL;
    table->entries_max = entries_max;
    table->size_max = size_max;
    table->entries = calloc(entries_max, sizeof(struct entry));
    if (table->entries == NULL || map_create(&options, &table->map) != STATUS_OK) {
        metadata_table_destroy(table);
        return NULL;
    }
    return table;
}

void metadata_table_destroy(struct metadata_table *table)
{
    if (table == NULL) return;
    for (uint32_t i = 0; i < table->high; i++)
        free(table->entries[i].memory);
    free(table->entries);
    map_destroy(table->map);
    free(table);
}

/* ---- one entry ---- */

static void forget(struct metadata_table *table, struct entry *entry)
{
    const struct block_key digest = digest_of(entry->key);

    table->size -= size_of(entry);
    table->count--;
    map_remove(table->map, &digest, NULL);
    free(entry->memory);
    *entry = (struct entry){ .free_next = table->free };
    table->free = (uint32_t)(entry - table->entries) + 1;
}

static enum status entry_make(const struct metadata_put *put, uint64_t now_ns, struct entry *out)
{
    const size_t key_size = strlen(put->key) + 1, owner_size = strlen(put->owner) + 1;
    uint8_t *memory = malloc(key_size + owner_size + put->len);

    if (memory == NULL) return STATUS_FULL;
    memcpy(memory, put->key, key_size);
    memcpy(memory + key_size, put->owner, owner_size);
    if (put->len > 0) memcpy(memory + key_size + owner_size, put->value, put->len);
    *out = (struct entry){ .key = (char *)memory,
                           .owner = (char *)memory + key_size,
                           .value = memory + key_size + owner_size,
                           .memory = memory,
                           .len = put->len,
                           .ttl_ms = put->ttl_ms,
                           .ends_ns = ends_at(put->ttl_ms, now_ns) };
    return STATUS_OK;
}

static enum status entry_add(struct metadata_table *table, const struct entry *made)
{
    const struct block_key digest = digest_of(made->key);
    const uint32_t index = table->free != 0 ? table->free - 1 : table->high;

    if (table->count == table->entries_max) return STATUS_FULL;
    const uint32_t next = table->free != 0 ? table->entries[index].free_next : 0;
    if (map_insert(table->map, &digest, index) != STATUS_OK) return STATUS_FULL;
    if (table->free != 0)
        table->free = next;
    else
        table->high++;
    table->entries[index] = *made;
    table->count++;
    table->size += size_of(made);
    return STATUS_OK;
}

static bool same(const struct entry *entry, const struct metadata_put *put)
{
    return strcmp(entry->owner, put->owner) == 0 && entry->ttl_ms == put->ttl_ms &&
           entry->len == put->len &&
           (put->len == 0 || memcmp(entry->value, put->value, put->len) == 0);
}

enum status metadata_table_put(struct metadata_table *table, const struct metadata_put *put,
                               uint64_t now_ns, bool *changed)
{
    const size_t key_len = strlen(put->key), owner_len = strlen(put->owner);
    const uint64_t size = key_len + owner_len + put->len;
    struct entry made;

    if (key_len == 0 || key_len > METADATA_TABLE_KEY_MAX || owner_len > METADATA_TABLE_OWNER_MAX)
        return STATUS_INVALID;
    struct entry *entry = find(table, put->key);
    const bool theirs = entry != NULL && alive(entry, now_ns) && entry->owner[0] != '\0' &&
                        strcmp(entry->owner, put->owner) != 0;
    if (put->keep && theirs) return STATUS_EXISTS;
    if (entry != NULL && same(entry, put)) {
        *changed = !alive(entry, now_ns); /* it may have been left out of the image */
        entry->ends_ns = ends_at(put->ttl_ms, now_ns);
        return STATUS_OK;
    }
    const uint64_t left = table->size - (entry != NULL ? size_of(entry) : 0);
    if (put->len > METADATA_TABLE_VALUE_MAX || left + size > table->size_max) return STATUS_FULL;
    if (entry == NULL && table->count == table->entries_max) return STATUS_FULL;
    enum status status = entry_make(put, now_ns, &made);
    if (status != STATUS_OK) return status;
    if (entry != NULL) forget(table, entry);
    status = entry_add(table, &made);
    if (status != STATUS_OK) free(made.memory);
    *changed = true;
    return status;
}

enum status metadata_table_get(const struct metadata_table *table, const char *key, uint64_t now_ns,
                               const char **value, size_t *len)
{
    const struct entry *entry = find(table, key);

    if (entry == NULL || !alive(entry, now_ns)) return STATUS_NOT_FOUND;
    *value = (const char *)entry->value;
    *len = entry->len;
    return STATUS_OK;
}

enum status metadata_table_remove(struct metadata_table *table, const char *key, const char *owner,
                                  uint64_t now_ns)
{
    struct entry *entry = find(table, key);

    if (entry == NULL) return STATUS_NOT_FOUND;
    if (!alive(entry, now_ns)) {
        forget(table, entry);
        return STATUS_NOT_FOUND;
    }
    if (owner[0] != '\0' && strcmp(entry->owner, owner) != 0) return STATUS_EXISTS;
    forget(table, entry);
    return STATUS_OK;
}

uint32_t metadata_table_expire(struct metadata_table *table, uint64_t now_ns)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < table->high; i++) {
        struct entry *entry = &table->entries[i];
        if (entry->key == NULL || alive(entry, now_ns)) continue;
        forget(table, entry);
        count++;
    }
    return count;
}

uint32_t metadata_table_count(const struct metadata_table *table)
{
    return table->count;
}

uint64_t metadata_table_size(const struct metadata_table *table)
{
    return table->size;
}

/* ---- the image ---- */

static void put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

enum status metadata_table_write(const struct metadata_table *table, struct buf *out)
{
    const uint8_t header[IMAGE_HEADER_SIZE] = { 0 };
    const size_t start = out->len;
    struct msg_writer writer;

    enum status status = buf_append(out, header, sizeof(header));
    if (status != STATUS_OK) return status;
    msg_writer_init(&writer, out);
    msg_put_array(&writer, table->count);
    for (uint32_t i = 0; i < table->high; i++) {
        const struct entry *entry = &table->entries[i];
        if (entry->key == NULL) continue;
        msg_put_array(&writer, IMAGE_FIELDS);
        msg_put_text(&writer, entry->key);
        msg_put_text(&writer, entry->owner);
        msg_put_u64(&writer, entry->ttl_ms);
        msg_put_bin(&writer, entry->value, entry->len);
    }
    if (writer.status != STATUS_OK) return writer.status;
    uint8_t *at = buf_data(out) + start;
    const size_t len = out->len - start - IMAGE_HEADER_SIZE;
    memcpy(at, IMAGE_MAGIC, sizeof(IMAGE_MAGIC));
    put64(at + 8, IMAGE_VERSION);
    put64(at + 16, len);
    put64(at + 24, hash_xxh3(at + IMAGE_HEADER_SIZE, len));
    return STATUS_OK;
}

static enum status read_entry(struct metadata_table *table, struct msg_reader *reader,
                              uint64_t now_ns)
{
    char key[METADATA_TABLE_KEY_MAX + 1], owner[METADATA_TABLE_OWNER_MAX + 1];
    bool changed;

    if (msg_get_array(reader) != IMAGE_FIELDS) return STATUS_CORRUPT;
    msg_get_text_copy(reader, key, sizeof(key));
    msg_get_text_copy(reader, owner, sizeof(owner));
    const uint64_t ttl_ms = msg_get_u64_max(reader, UINT32_MAX);
    const struct msg_bytes value = msg_get_bin(reader, METADATA_TABLE_VALUE_MAX);
    if (reader->status != STATUS_OK || find(table, key) != NULL) return STATUS_CORRUPT;
    const struct metadata_put put = { .key = key,
                                      .owner = owner,
                                      .value = value.data,
                                      .len = value.len,
                                      .ttl_ms = (uint32_t)ttl_ms };
    const enum status status = metadata_table_put(table, &put, now_ns, &changed);
    return status == STATUS_INVALID ? STATUS_CORRUPT : status;
}

enum status metadata_table_read(struct metadata_table *table, const void *data, size_t len,
                                uint64_t now_ns)
{
    const uint8_t *at = data;
    struct msg_reader reader;

    ASSERT(table->count == 0);
    if (len < IMAGE_HEADER_SIZE || memcmp(at, IMAGE_MAGIC, sizeof(IMAGE_MAGIC)) != 0)
        return STATUS_CORRUPT;
    if (get64(at + 8) != IMAGE_VERSION || get64(at + 16) != len - IMAGE_HEADER_SIZE)
        return STATUS_CORRUPT;
    if (get64(at + 24) != hash_xxh3(at + IMAGE_HEADER_SIZE, len - IMAGE_HEADER_SIZE))
        return STATUS_CORRUPT;
    msg_reader_init(&reader, at + IMAGE_HEADER_SIZE, len - IMAGE_HEADER_SIZE);
    const uint32_t count = msg_get_array(&reader);
    for (uint32_t i = 0; i < count; i++) {
        const enum status status = read_entry(table, &reader, now_ns);
        if (status != STATUS_OK) return status;
    }
    return msg_end(&reader) == STATUS_OK ? STATUS_OK : STATUS_CORRUPT;
}
