/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf.c - the GGUF container: one pass that checks everything, two sorted indexes.
 *
 * Format (little-endian, packed; "string" is a length u64 and that many bytes)
 *
 *   0 magic "GGUF" | 4 version u32 | 8 tensors u64 | 16 keys u64
 *   keys:    name string | kind u32 | value
 *            value: a number, a bool (one byte), a string, or
 *                   an array: kind u32 | count u64 | elements
 *   tensors: name string | dims_count u32 | dims u64[dims_count] | type u32 | offset u64
 *   padding to general.alignment (32 if absent), then tensor data; offsets count from there.
 *
 * Version 2 has the same layout and is read as well; version 1 had 32-bit lengths and is refused.
 *
 * Invariants after gguf_parse()
 *   I1  Every struct gguf_string and gguf_array handed out lies inside the file.
 *   I2  Names are unique among keys and among tensors, and not empty.
 *   I3  An array's elements fill its range exactly, so walking its strings needs no check.
 *   I4  Tensor offsets are aligned, and not beyond the end of the file. */
#include "model/gguf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum {
    HEADER_SIZE = 24,
    KEY_SIZE_MIN = 8 + 1 + 4 + 1,        /* a one-byte name and a one-byte value */
    TENSOR_SIZE_MIN = 8 + 1 + 4 + 4 + 8, /* a one-byte name and no dimension */
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
};

struct entry {
    struct gguf_string name;
    enum gguf_kind kind;
    const uint8_t *value; /* for GGUF_STRING and GGUF_ARRAY: the bytes after the lengths */
    uint64_t count;       /* elements, or the string's length; 1 for a number */
    enum gguf_kind inner; /* of an array */
    size_t size;          /* bytes at value */
};

struct gguf {
    const uint8_t *data;
    size_t size;
    size_t head_size; /* up to the first byte of tensor data */
    uint32_t version;
    uint32_t entries_count;
    uint32_t tensors_count;
    struct entry *entries;
    struct gguf_tensor *tensors;
    const struct entry **entries_by_name;
    const struct gguf_tensor **tensors_by_name;
};

/* ---- reading ---- */

struct cursor {
    const uint8_t *data;
    size_t size;
    size_t at; /* <= size */
};

static uint64_t load(const uint8_t *bytes, size_t width)
{
    uint64_t value = 0;

    for (size_t i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static bool take(struct cursor *cursor, uint64_t len, const uint8_t **out)
{
    ASSERT(cursor->at <= cursor->size);
    if (len > cursor->size - cursor->at) return false;
    *out = cursor->data + cursor->at;
    cursor->at += (size_t)len;
    return true;
}

static bool take_u32(struct cursor *cursor, uint32_t *out)
{
    const uint8_t *bytes;

    if (!take(cursor, 4, &bytes)) return false;
    *out = (uint32_t)load(bytes, 4);
    return true;
}

static bool take_u64(struct cursor *cursor, uint64_t *out)
{
    const uint8_t *bytes;

    if (!take(cursor, 8, &bytes)) return false;
    *out = load(bytes, 8);
    return true;
}

static bool take_string(struct cursor *cursor, struct gguf_string *out)
{
    const uint8_t *bytes;
    uint64_t len;

    if (!take_u64(cursor, &len) || !take(cursor, len, &bytes)) return false;
    *out = (struct gguf_string){ (const char *)bytes, (size_t)len };
    return true;
}

struct gguf_shown gguf_show(struct gguf_string name)
{
    struct gguf_shown shown;
    size_t len = name.len < sizeof(shown.text) - 4 ? name.len : sizeof(shown.text) - 4;

    for (size_t i = 0; i < len; i++) {
        char c = name.data[i];
        shown.text[i] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    snprintf(shown.text + len, sizeof(shown.text) - len, "%s", len < name.len ? "..." : "");
    return shown;
}

/* ---- values ---- */

static const char *const kind_names[GGUF_KINDS] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
};
static const uint8_t kind_sizes[GGUF_KINDS] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

static enum status take_array(struct cursor *cursor, struct entry *entry, struct errmsg *err)
{
    uint32_t inner;
    uint64_t count;

    if (!take_u32(cursor, &inner) || !take_u64(cursor, &count)) goto truncated;
    if (inner == GGUF_ARRAY) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "key %s: nested arrays are not supported",
                          gguf_show(entry->name).text);
    }
    if (inner >= GGUF_KINDS) {
        return errmsg_set(err, STATUS_INVALID, "key %s: array of unknown type %u",
                          gguf_show(entry->name).text, inner);
    }
    entry->inner = (enum gguf_kind)inner;
    entry->count = count;
    entry->value = cursor->data + cursor->at;
    if (inner == GGUF_STRING) {
        struct gguf_string string;
        for (uint64_t i = 0; i < count; i++) {
            if (!take_string(cursor, &string)) goto truncated;
        }
    } else {
        const uint8_t *bytes;
        if (count > cursor->size / kind_sizes[inner]) goto truncated;
        if (!take(cursor, count * kind_sizes[inner], &bytes)) goto truncated;
    }
    entry->size = (size_t)(cursor->data + cursor->at - entry->value);
    return STATUS_OK;
truncated:
    return errmsg_set(err, STATUS_INVALID, "key %s: the array runs past the end of the file",
                      gguf_show(entry->name).text);
}

static enum status take_value(struct cursor *cursor, struct entry *entry, struct errmsg *err)
{
    struct gguf_string string;

    ASSERT(entry->kind < GGUF_KINDS);
    if (entry->kind == GGUF_ARRAY) return take_array(cursor, entry, err);
    if (entry->kind == GGUF_STRING) {
        if (!take_string(cursor, &string)) goto truncated;
        entry->value = (const uint8_t *)string.data;
        entry->size = string.len;
        entry->count = string.len;
        return STATUS_OK;
    }
    entry->size = kind_sizes[entry->kind];
    entry->count = 1;
    if (!take(cursor, entry->size, &entry->value)) goto truncated;
    if (entry->kind == GGUF_BOOL && entry->value[0] > 1) {
        return errmsg_set(err, STATUS_INVALID, "key %s: a bool is %u", gguf_show(entry->name).text,
                          entry->value[0]);
    }
    return STATUS_OK;
truncated:
    return errmsg_set(err, STATUS_INVALID, "key %s: the value runs past the end of the file",
                      gguf_show(entry->name).text);
}

static enum status take_name(struct cursor *cursor, const char *what, uint32_t index,
                             struct gguf_string *out, struct errmsg *err)
{
    struct gguf_string name;
    const size_t at = cursor->at;

    if (!take_string(cursor, &name)) {
        return errmsg_set(err, STATUS_INVALID, "%s %u at byte %zu: the file ends inside its name",
                          what, index, at);
    }
    if (name.len == 0 || name.len > GGUF_NAME_SIZE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%s %u: a name of %zu bytes, expected 1 to %d", what,
                          index, name.len, GGUF_NAME_SIZE_MAX);
    }
    *out = name;
    return STATUS_OK;
}

static enum status take_entry(struct cursor *cursor, uint32_t index, struct entry *entry,
                              struct errmsg *err)
{
    uint32_t kind;

    enum status status = take_name(cursor, "key", index, &entry->name, err);
    if (status != STATUS_OK) return status;
    if (!take_u32(cursor, &kind)) {
        return errmsg_set(err, STATUS_INVALID, "key %s: the file ends inside its type",
                          gguf_show(entry->name).text);
    }
    if (kind >= GGUF_KINDS) {
        return errmsg_set(err, STATUS_INVALID, "key %s: unknown value type %u",
                          gguf_show(entry->name).text, kind);
    }
    entry->kind = (enum gguf_kind)kind;
    return take_value(cursor, entry, err);
}

/* The offset is still relative to the data; place_tensors() makes it absolute. */
static enum status take_tensor(struct cursor *cursor, uint32_t index, struct gguf_tensor *tensor,
                               struct errmsg *err)
{
    enum status status = take_name(cursor, "tensor", index, &tensor->name, err);
    if (status != STATUS_OK) return status;
    if (!take_u32(cursor, &tensor->dims_count)) goto truncated;
    if (tensor->dims_count > GGUF_DIMS_MAX) {
        return errmsg_set(err, STATUS_INVALID, "tensor %s: %u dimensions, at most %d",
                          gguf_show(tensor->name).text, tensor->dims_count, GGUF_DIMS_MAX);
    }
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        tensor->dims[i] = 1;
        if (i < tensor->dims_count && !take_u64(cursor, &tensor->dims[i])) goto truncated;
        if (tensor->dims[i] == 0 || tensor->dims[i] > INT64_MAX) {
            return errmsg_set(err, STATUS_INVALID, "tensor %s: dimension %u is %llu",
                              gguf_show(tensor->name).text, i, (unsigned long long)tensor->dims[i]);
        }
    }
    if (!take_u32(cursor, &tensor->type) || !take_u64(cursor, &tensor->offset)) goto truncated;
    return STATUS_OK;
truncated:
    return errmsg_set(err, STATUS_INVALID, "tensor %s: the file ends inside its description",
                      gguf_show(tensor->name).text);
}

/* ---- the indexes ---- */

static int compare_names(struct gguf_string a, struct gguf_string b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);

    if (order != 0) return order;
    return (a.len > b.len) - (a.len < b.len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    return compare_names((*x)->name, (*y)->name);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return compare_names((*x)->name, (*y)->name);
}

static enum status index_names(struct gguf *gguf, struct errmsg *err)
{
    for (uint32_t i = 0; i < gguf->entries_count; i++)
        gguf->entries_by_name[i] = &gguf->entries[i];
    for (uint32_t i = 0; i < gguf->tensors_count; i++)
        gguf->tensors_by_name[i] = &gguf->tensors[i];
    qsort(gguf->entries_by_name, gguf->entries_count, sizeof(void *), compare_entries);
    qsort(gguf->tensors_by_name, gguf->tensors_count, sizeof(void *), compare_tensors);

    for (uint32_t i = 1; i < gguf->entries_count; i++) {
        if (compare_entries(&gguf->entries_by_name[i - 1], &gguf->entries_by_name[i]) == 0) {
            return errmsg_set(err, STATUS_INVALID, "key %s appears twice",
                              gguf_show(gguf->entries_by_name[i]->name).text);
        }
    }
    for (uint32_t i = 1; i < gguf->tensors_count; i++) {
        if (compare_tensors(&gguf->tensors_by_name[i - 1], &gguf->tensors_by_name[i]) == 0) {
            return errmsg_set(err, STATUS_INVALID, "tensor %s appears twice",
                              gguf_show(gguf->tensors_by_name[i]->name).text);
        }
    }
    return STATUS_OK;
}

static const struct entry *find(const struct gguf *gguf, const char *key)
{
    const struct gguf_string name = { key, strlen(key) };
    uint32_t low = 0, high = gguf->entries_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_names(name, gguf->entries_by_name[middle]->name);
        if (order == 0) return gguf->entries_by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    const struct gguf_string wanted = { name, strlen(name) };
    uint32_t low = 0, high = gguf->tensors_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_names(wanted, gguf->tensors_by_name[middle]->name);
        if (order == 0) return gguf->tensors_by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* ---- parsing ---- */

static enum status check_header(struct cursor *cursor, uint32_t *version, uint64_t *tensors,
                                uint64_t *keys, struct errmsg *err)
{
    const uint8_t *magic;

    if (cursor->size < HEADER_SIZE) {
        return errmsg_set(err, STATUS_INVALID, "not a GGUF file: only %zu bytes", cursor->size);
    }
    ASSERT(take(cursor, 4, &magic) && take_u32(cursor, version));
    ASSERT(take_u64(cursor, tensors) && take_u64(cursor, keys));
    if (memcmp(magic, "GGUF", 4) != 0) {
        return errmsg_set(err, STATUS_INVALID,
                          "not a GGUF file: it starts with %02x %02x %02x %02x", magic[0], magic[1],
                          magic[2], magic[3]);
    }
    if (*version != 2 && *version != 3) {
        const bool big_endian = *version != 0 && (*version & 0xffff) == 0;
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "GGUF version %u%s is not supported, only 2 and 3",
                          big_endian ? __builtin_bswap32(*version) : *version,
                          big_endian ? " in big-endian byte order" : "");
    }
    if (*keys > GGUF_KEYS_MAX || *tensors > GGUF_TENSORS_MAX) {
        return errmsg_set(err, STATUS_FULL, "%llu keys and %llu tensors, at most %d and %d",
                          (unsigned long long)*keys, (unsigned long long)*tensors, GGUF_KEYS_MAX,
                          GGUF_TENSORS_MAX);
    }
    if (*keys * KEY_SIZE_MIN + *tensors * TENSOR_SIZE_MIN > cursor->size - HEADER_SIZE) {
        return errmsg_set(err, STATUS_INVALID, "%llu keys and %llu tensors do not fit in %zu bytes",
                          (unsigned long long)*keys, (unsigned long long)*tensors, cursor->size);
    }
    return STATUS_OK;
}

static enum status alignment_of(const struct gguf *gguf, uint32_t *out, struct errmsg *err)
{
    uint32_t alignment = ALIGNMENT_DEFAULT;

    enum status status = gguf_get_u32(gguf, "general.alignment", &alignment, err);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) return status;
    if (alignment < 8 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0) {
        return errmsg_set(err, STATUS_INVALID,
                          "key general.alignment is %u, expected a power of two from 8 to %d",
                          alignment, ALIGNMENT_MAX);
    }
    *out = alignment;
    return STATUS_OK;
}

static enum status place_tensors(struct gguf *gguf, size_t table_end, struct errmsg *err)
{
    uint32_t alignment = ALIGNMENT_DEFAULT;

    enum status status = alignment_of(gguf, &alignment, err);
    if (status != STATUS_OK) return status;
    size_t head_size = (table_end + alignment - 1) / alignment * alignment;
    if (head_size > gguf->size) {
        if (gguf->tensors_count > 0) {
            return errmsg_set(err, STATUS_INVALID, "the file ends before its tensor data");
        }
        head_size = gguf->size;
    }
    gguf->head_size = head_size;

    for (uint32_t i = 0; i < gguf->tensors_count; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        if (tensor->offset % alignment != 0) {
            return errmsg_set(err, STATUS_INVALID, "tensor %s: offset %llu is not a multiple of %u",
                              gguf_show(tensor->name).text, (unsigned long long)tensor->offset,
                              alignment);
        }
        if (tensor->offset > gguf->size - head_size) {
            return errmsg_set(err, STATUS_INVALID,
                              "tensor %s: offset %llu, but the file has %zu bytes of tensor data",
                              gguf_show(tensor->name).text, (unsigned long long)tensor->offset,
                              gguf->size - head_size);
        }
        tensor->offset += head_size;
    }
    return STATUS_OK;
}

static enum status parse_body(struct gguf *gguf, struct cursor *cursor, struct errmsg *err)
{
    for (uint32_t i = 0; i < gguf->entries_count; i++) {
        enum status status = take_entry(cursor, i, &gguf->entries[i], err);
        if (status != STATUS_OK) return status;
    }
    for (uint32_t i = 0; i < gguf->tensors_count; i++) {
        enum status status = take_tensor(cursor, i, &gguf->tensors[i], err);
        if (status != STATUS_OK) return status;
    }
    enum status status = index_names(gguf, err);
    if (status != STATUS_OK) return status;
    return place_tensors(gguf, cursor->at, err);
}

static enum status allocate(struct gguf *gguf, uint32_t keys, uint32_t tensors)
{
    gguf->entries = calloc(keys + 1, sizeof(*gguf->entries));
    gguf->tensors = calloc(tensors + 1, sizeof(*gguf->tensors));
    gguf->entries_by_name = calloc(keys + 1, sizeof(*gguf->entries_by_name));
    gguf->tensors_by_name = calloc(tensors + 1, sizeof(*gguf->tensors_by_name));
    if (gguf->entries == NULL || gguf->tensors == NULL) return STATUS_NO_MEMORY;
    if (gguf->entries_by_name == NULL || gguf->tensors_by_name == NULL) return STATUS_NO_MEMORY;
    gguf->entries_count = keys;
    gguf->tensors_count = tensors;
    return STATUS_OK;
}

enum status gguf_parse(const void *data, size_t size, struct gguf **out, struct errmsg *err)
{
    struct cursor cursor = { data, size, 0 };
    uint64_t tensors, keys;
    uint32_t version;

    ASSERT(data != NULL || size == 0);
    enum status status = check_header(&cursor, &version, &tensors, &keys, err);
    if (status != STATUS_OK) return status;

    struct gguf *gguf = calloc(1, sizeof(*gguf));
    if (gguf == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the model's index");
    gguf->data = data;
    gguf->size = size;
    gguf->version = version;
    status = allocate(gguf, (uint32_t)keys, (uint32_t)tensors);
    if (status == STATUS_OK)
        status = parse_body(gguf, &cursor, err);
    else
        errmsg_set(err, status, "no memory for the model's index");
    if (status != STATUS_OK) {
        gguf_destroy(gguf);
        return status;
    }
    *out = gguf;
    return STATUS_OK;
}

void gguf_destroy(struct gguf *gguf)
{
    if (gguf == NULL) return;
    free(gguf->entries);
    free(gguf->tensors);
    free(gguf->entries_by_name);
    free(gguf->tensors_by_name);
    free(gguf);
}

/* ---- getters ---- */

static enum status wrong_kind(const struct entry *entry, const char *wanted, struct errmsg *err)
{
    return errmsg_set(err, STATUS_INVALID, "key %s is of type %s, expected %s",
                      gguf_show(entry->name).text, kind_names[entry->kind], wanted);
}

static bool is_signed(enum gguf_kind kind)
{
    return kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
}

static bool is_integer(enum gguf_kind kind)
{
    return is_signed(kind) || kind == GGUF_U8 || kind == GGUF_U16 || kind == GGUF_U32 ||
           kind == GGUF_U64;
}

enum status gguf_get_u32(const struct gguf *gguf, const char *key, uint32_t *out,
                         struct errmsg *err)
{
    const struct entry *entry = find(gguf, key);

    if (entry == NULL) return STATUS_NOT_FOUND;
    if (!is_integer(entry->kind)) return wrong_kind(entry, "an integer", err);
    const uint64_t value = load(entry->value, entry->size);
    const bool negative = is_signed(entry->kind) && (value >> (8 * entry->size - 1)) != 0;
    if (negative || value > UINT32_MAX) {
        return errmsg_set(err, STATUS_INVALID, "key %s is %s, expected 0 to %u", key,
                          negative ? "negative" : "too large", UINT32_MAX);
    }
    *out = (uint32_t)value;
    return STATUS_OK;
}

static float float_of(uint32_t bits)
{
    float value;

    static_assert(sizeof(value) == sizeof(bits), "F32 is four bytes");
    memcpy(&value, &bits, sizeof(value));
    return value;
}

enum status gguf_get_f32(const struct gguf *gguf, const char *key, float *out, struct errmsg *err)
{
    const struct entry *entry = find(gguf, key);

    if (entry == NULL) return STATUS_NOT_FOUND;
    if (entry->kind != GGUF_F32) return wrong_kind(entry, kind_names[GGUF_F32], err);
    *out = float_of((uint32_t)load(entry->value, 4));
    return STATUS_OK;
}

enum status gguf_get_bool(const struct gguf *gguf, const char *key, bool *out, struct errmsg *err)
{
    const struct entry *entry = find(gguf, key);

    if (entry == NULL) return STATUS_NOT_FOUND;
    if (entry->kind != GGUF_BOOL) return wrong_kind(entry, kind_names[GGUF_BOOL], err);
    *out = entry->value[0] != 0;
    return STATUS_OK;
}

enum status gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *out,
                            struct errmsg *err)
{
    const struct entry *entry = find(gguf, key);

    if (entry == NULL) return STATUS_NOT_FOUND;
    if (entry->kind != GGUF_STRING) return wrong_kind(entry, kind_names[GGUF_STRING], err);
    *out = (struct gguf_string){ (const char *)entry->value, entry->size };
    return STATUS_OK;
}

enum status gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_kind kind,
                           struct gguf_array *out, struct errmsg *err)
{
    const struct entry *entry = find(gguf, key);

    ASSERT(kind < GGUF_KINDS && kind != GGUF_ARRAY);
    if (entry == NULL) return STATUS_NOT_FOUND;
    if (entry->kind != GGUF_ARRAY) return wrong_kind(entry, kind_names[GGUF_ARRAY], err);
    if (entry->inner != kind) {
        return errmsg_set(err, STATUS_INVALID, "key %s is an array of %s, expected %s", key,
                          kind_names[entry->inner], kind_names[kind]);
    }
    *out = (struct gguf_array){ kind, entry->count, entry->value, entry->size };
    return STATUS_OK;
}

uint32_t gguf_array_u32(const struct gguf_array *array, uint64_t index)
{
    ASSERT(array->kind == GGUF_U32 || array->kind == GGUF_I32 || array->kind == GGUF_F32);
    ASSERT(index < array->count);
    return (uint32_t)load(array->data + index * 4, 4);
}

float gguf_array_f32(const struct gguf_array *array, uint64_t index)
{
    ASSERT(array->kind == GGUF_F32);
    return float_of(gguf_array_u32(array, index));
}

bool gguf_array_next_string(const struct gguf_array *array, size_t *cursor, struct gguf_string *out)
{
    struct cursor walk = { array->data, array->size, *cursor };

    ASSERT(array->kind == GGUF_STRING);
    if (walk.at == array->size) return false;
    ASSERT(take_string(&walk, out)); /* I3 */
    *cursor = walk.at;
    return true;
}

bool gguf_has(const struct gguf *gguf, const char *key)
{
    return find(gguf, key) != NULL;
}

uint32_t gguf_version(const struct gguf *gguf)
{
    return gguf->version;
}

uint32_t gguf_key_count(const struct gguf *gguf)
{
    return gguf->entries_count;
}

struct gguf_string gguf_key_at(const struct gguf *gguf, uint32_t index, enum gguf_kind *kind)
{
    ASSERT(index < gguf->entries_count);
    *kind = gguf->entries[index].kind;
    return gguf->entries[index].name;
}

uint32_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->tensors_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, uint32_t index)
{
    ASSERT(index < gguf->tensors_count);
    return &gguf->tensors[index];
}

const void *gguf_tensor_data(const struct gguf *gguf, const struct gguf_tensor *tensor, size_t size)
{
    ASSERT(tensor->offset <= gguf->size); /* I4 */
    if (size > gguf->size - tensor->offset) return NULL;
    return gguf->data + tensor->offset;
}

const void *gguf_head(const struct gguf *gguf, size_t *size)
{
    *size = gguf->head_size;
    return gguf->data;
}
