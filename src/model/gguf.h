/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf.h - a GGUF file, read in place: its keys, its tensor table, its bytes.
 *
 * A file is hostile until gguf_parse() has returned STATUS_OK. From then on every key, string,
 * array and tensor range handed out lies inside the file, and the getters cannot meet a bad length.
 *
 * Memory:  gguf_parse() allocates two index tables, bounded below; everything else is borrowed from
 *          the bytes given, which must outlive the object and must not change.
 * Threads: immutable after gguf_parse(); any thread may read.
 * Limits:  GGUF_KEYS_MAX keys, GGUF_TENSORS_MAX tensors, names up to GGUF_NAME_SIZE_MAX bytes. */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    GGUF_KEYS_MAX = 65536,
    GGUF_TENSORS_MAX = 65536,
    GGUF_NAME_SIZE_MAX = 256,
    GGUF_DIMS_MAX = 4,
};

/* The type of a metadata value, as numbered in the file. */
enum gguf_kind {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
    GGUF_KINDS = 13,
};

/* Borrowed bytes, not NUL-terminated, any content. */
struct gguf_string {
    const char *data;
    size_t len;
};

/* A string from the file made safe to print: cut, and '?' for what is not printable ASCII. */
struct gguf_shown {
    char text[80];
};
struct gguf_shown gguf_show(struct gguf_string string);

/* Elements are packed, little-endian and unaligned; read them with gguf_array_u32() and the like,
 * or walk strings with gguf_array_next_string(). */
struct gguf_array {
    enum gguf_kind kind; /* never GGUF_ARRAY: nested arrays are refused */
    uint64_t count;
    const uint8_t *data;
    size_t size;
};

/* One row of the tensor table. `dims` beyond dims_count are 1. The element type is the file's
 * number; model.h says which ones are understood, and gguf does not know the size of the others, so
 * only `offset` is checked here to lie inside the file; see gguf_tensor_data(). */
struct gguf_tensor {
    struct gguf_string name;
    uint32_t type;
    uint32_t dims_count;
    uint64_t dims[GGUF_DIMS_MAX];
    uint64_t offset; /* from the start of the file */
};

struct gguf; /* opaque */

/* STATUS_INVALID for what is not a GGUF file or is damaged, STATUS_UNSUPPORTED for another version,
 * byte order or nested arrays, STATUS_FULL for a limit above, STATUS_NO_MEMORY. err names the key
 * or tensor, what was found and what was expected. */
MUST_USE enum status gguf_parse(const void *data, size_t size, struct gguf **out,
                                struct errmsg *err);
void gguf_destroy(struct gguf *gguf); /* NULL is allowed */

/* Getters: STATUS_NOT_FOUND if the key is absent (err is not touched), STATUS_INVALID if its value
 * has another type or does not fit (err says so). Integers of any width convert when the value
 * fits. */
MUST_USE enum status gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out,
                                  struct errmsg *err);
MUST_USE enum status gguf_get_f32(const struct gguf *gguf, const char *key, float *out,
                                  struct errmsg *err);
MUST_USE enum status gguf_get_bool(const struct gguf *gguf, const char *key, bool *out,
                                   struct errmsg *err);
MUST_USE enum status gguf_get_string(const struct gguf *gguf, const char *key,
                                     struct gguf_string *out, struct errmsg *err);
MUST_USE enum status gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_kind kind,
                                    struct gguf_array *out, struct errmsg *err);

/* Element `index` of an array of 32-bit integers (U32 or I32, the bits as they are) or of F32. */
uint32_t gguf_array_u32(const struct gguf_array *array, uint64_t index);
float gguf_array_f32(const struct gguf_array *array, uint64_t index);

/* Walks an array of strings: start with *cursor = 0; false after the last one. */
bool gguf_array_next_string(const struct gguf_array *array, size_t *cursor,
                            struct gguf_string *out);

bool gguf_has(const struct gguf *gguf, const char *key);
uint32_t gguf_version(const struct gguf *gguf);
uint32_t gguf_key_count(const struct gguf *gguf);
/* The index-th key and its kind, in file order. */
struct gguf_string gguf_key_at(const struct gguf *gguf, uint32_t index, enum gguf_kind *kind);

uint32_t gguf_tensor_count(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, uint32_t index);
/* NULL if there is none. */
const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name);

/* The tensor's bytes if `size` of them lie inside the file, else NULL. */
const void *gguf_tensor_data(const struct gguf *gguf, const struct gguf_tensor *tensor,
                             size_t size);

/* Header, keys and tensor table: the first bytes of the file, up to where tensor data starts. */
const void *gguf_head(const struct gguf *gguf, size_t *size);

#endif
