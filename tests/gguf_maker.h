/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/gguf_maker.h - makes small GGUF files in memory, well-formed or not, for tests.
 *
 * Keys first, then tensors, then gguf_maker_finish(), which lays out header, table and data. For
 * files that are broken on purpose, tests change the bytes afterwards, or use gguf_maker_raw(). */
#ifndef TESTS_GGUF_MAKER_H
#define TESTS_GGUF_MAKER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gguf_maker_bytes {
    uint8_t *data;
    size_t len, cap;
};

struct gguf_maker {
    struct gguf_maker_bytes keys, table, body, file;
    uint64_t keys_count, tensors_count;
    uint32_t version;
};

static inline void gguf_maker_put(struct gguf_maker_bytes *to, const void *data, size_t len)
{
    while (to->cap - to->len < len) {
        to->cap = to->cap == 0 ? 1024 : to->cap * 2;
        to->data = realloc(to->data, to->cap);
        if (to->data == NULL) abort();
    }
    if (len > 0) memcpy(to->data + to->len, data, len);
    to->len += len;
}

static inline void gguf_maker_int(struct gguf_maker_bytes *to, uint64_t value, size_t width)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    gguf_maker_put(to, bytes, width);
}

static inline void gguf_maker_text(struct gguf_maker_bytes *to, const char *text)
{
    gguf_maker_int(to, strlen(text), 8);
    gguf_maker_put(to, text, strlen(text));
}

static inline void gguf_maker_init(struct gguf_maker *maker)
{
    *maker = (struct gguf_maker){ .version = 3 };
}

static inline void gguf_maker_fini(struct gguf_maker *maker)
{
    free(maker->keys.data);
    free(maker->table.data);
    free(maker->body.data);
    free(maker->file.data);
}

/* A key of any kind; `value` is its encoding. */
static inline void gguf_maker_raw(struct gguf_maker *maker, const char *key, uint32_t kind,
                                  const void *value, size_t len)
{
    gguf_maker_text(&maker->keys, key);
    gguf_maker_int(&maker->keys, kind, 4);
    gguf_maker_put(&maker->keys, value, len);
    maker->keys_count++;
}

static inline void gguf_maker_u32(struct gguf_maker *maker, const char *key, uint32_t value)
{
    const uint8_t bytes[4] = { (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                               (uint8_t)(value >> 24) };
    gguf_maker_raw(maker, key, 4, bytes, 4);
}

static inline void gguf_maker_f32(struct gguf_maker *maker, const char *key, float value)
{
    gguf_maker_raw(maker, key, 6, &value, 4);
}

static inline void gguf_maker_bool(struct gguf_maker *maker, const char *key, uint8_t value)
{
    gguf_maker_raw(maker, key, 7, &value, 1);
}

static inline void gguf_maker_string(struct gguf_maker *maker, const char *key, const char *value)
{
    gguf_maker_raw(maker, key, 8, NULL, 0);
    gguf_maker_text(&maker->keys, value);
}

static inline void gguf_maker_strings(struct gguf_maker *maker, const char *key,
                                      const char *const *values, uint32_t count)
{
    gguf_maker_raw(maker, key, 9, NULL, 0);
    gguf_maker_int(&maker->keys, 8, 4);
    gguf_maker_int(&maker->keys, count, 8);
    for (uint32_t i = 0; i < count; i++)
        gguf_maker_text(&maker->keys, values[i]);
}

static inline void gguf_maker_i32s(struct gguf_maker *maker, const char *key, const int32_t *values,
                                   uint32_t count)
{
    gguf_maker_raw(maker, key, 9, NULL, 0);
    gguf_maker_int(&maker->keys, 5, 4);
    gguf_maker_int(&maker->keys, count, 8);
    for (uint32_t i = 0; i < count; i++)
        gguf_maker_int(&maker->keys, (uint32_t)values[i], 4);
}

static inline void gguf_maker_f32s(struct gguf_maker *maker, const char *key, const float *values,
                                   uint32_t count)
{
    gguf_maker_raw(maker, key, 9, NULL, 0);
    gguf_maker_int(&maker->keys, 6, 4);
    gguf_maker_int(&maker->keys, count, 8);
    gguf_maker_put(&maker->keys, values, count * sizeof(*values));
}

/* A tensor of `size` bytes; `data` NULL means zeros. A vector has ne1 == 1. */
static inline void gguf_maker_tensor(struct gguf_maker *maker, const char *name, uint32_t type,
                                     uint64_t ne0, uint64_t ne1, const void *data, size_t size)
{
    static const uint8_t zeros[32] = { 0 };

    gguf_maker_text(&maker->table, name);
    gguf_maker_int(&maker->table, ne1 == 1 ? 1 : 2, 4);
    gguf_maker_int(&maker->table, ne0, 8);
    if (ne1 != 1) gguf_maker_int(&maker->table, ne1, 8);
    gguf_maker_int(&maker->table, type, 4);
    gguf_maker_int(&maker->table, maker->body.len, 8);
    if (data != NULL)
        gguf_maker_put(&maker->body, data, size);
    else
        for (size_t i = 0; i < size; i++)
            gguf_maker_put(&maker->body, zeros, 1);
    while (maker->body.len % 32 != 0)
        gguf_maker_put(&maker->body, zeros, 1);
    maker->tensors_count++;
}

/* The file; 32-byte aligned, owned by the maker. */
static inline uint8_t *gguf_maker_finish(struct gguf_maker *maker, size_t *size)
{
    static const uint8_t zero = 0;
    struct gguf_maker_bytes file = { 0 };

    gguf_maker_put(&file, "GGUF", 4);
    gguf_maker_int(&file, maker->version, 4);
    gguf_maker_int(&file, maker->tensors_count, 8);
    gguf_maker_int(&file, maker->keys_count, 8);
    gguf_maker_put(&file, maker->keys.data, maker->keys.len);
    gguf_maker_put(&file, maker->table.data, maker->table.len);
    while (file.len % 32 != 0)
        gguf_maker_put(&file, &zero, 1);
    gguf_maker_put(&file, maker->body.data, maker->body.len);

    maker->file = file;
    maker->file.data = aligned_alloc(32, (file.len + 31) / 32 * 32);
    if (maker->file.data == NULL) abort();
    memcpy(maker->file.data, file.data, file.len);
    free(file.data);
    *size = file.len;
    return maker->file.data;
}

#endif
