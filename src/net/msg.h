/* SPDX-License-Identifier: Apache-2.0
 *
 * net/msg.h - msgpack, written without a tree and read without trust.
 *
 * Every message of ours is a map from small integers to values, so that a field can be added and an
 * old reader skips it. The writer appends to a struct buf. The reader is a cursor over bytes of a
 * peer: it allocates nothing, recurses nowhere, and checks every length against what is left.
 *
 * Errors are sticky on both sides: after the first one the writer writes nothing and the getters
 * return 0 or empty, so that a decoder reads straight through and asks once, at the end:
 *
 *     uint64_t key;
 *     uint32_t left = msg_get_map(&reader);
 *     while (msg_next_key(&reader, &left, &key)) {
 *         switch (key) {
 *         case FIELD_ID: id = msg_get_u64(&reader); break;
 *         case FIELD_NAME: name = msg_get_text(&reader, NAME_LEN_MAX); break;
 *         default: msg_skip(&reader); break;
 *         }
 *     }
 *     return msg_end(&reader);
 *
 * Threads: none of this is shared.
 * Limits:  what the caller passes; lengths up to 2^32 - 1. */
#ifndef NET_MSG_H
#define NET_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

/* ---- writing ---- */

struct msg_writer {
    struct buf *buf;
    enum status status; /* STATUS_OK, or STATUS_FULL since the first value that did not fit */
};

void msg_writer_init(struct msg_writer *writer, struct buf *buf);

/* Announce `count` pairs or items, which must follow. */
void msg_put_map(struct msg_writer *writer, uint32_t count);
void msg_put_array(struct msg_writer *writer, uint32_t count);

void msg_put_u64(struct msg_writer *writer, uint64_t value);
void msg_put_i64(struct msg_writer *writer, int64_t value);
void msg_put_f64(struct msg_writer *writer, double value);
void msg_put_bool(struct msg_writer *writer, bool value);
void msg_put_nil(struct msg_writer *writer);
void msg_put_bin(struct msg_writer *writer, const void *data, size_t len);
/* A bin whose bytes lie in several places: announced first, then part by part, `len` in all. */
void msg_put_bin_head(struct msg_writer *writer, size_t len);
void msg_put_bin_part(struct msg_writer *writer, const void *data, size_t len);
void msg_put_text(struct msg_writer *writer, const char *text); /* NULL writes "" */
void msg_put_text_len(struct msg_writer *writer, const char *text, size_t len);

/* A column: `count` u32 or u64 as one little-endian blob, the form of hot batch calls. */
void msg_put_u32s(struct msg_writer *writer, const uint32_t *values, size_t count);
void msg_put_u64s(struct msg_writer *writer, const uint64_t *values, size_t count);

/* A key and its value in one line. */
void msg_field_map(struct msg_writer *writer, uint32_t key, uint32_t count);
void msg_field_array(struct msg_writer *writer, uint32_t key, uint32_t count);
void msg_field_u64(struct msg_writer *writer, uint32_t key, uint64_t value);
void msg_field_i64(struct msg_writer *writer, uint32_t key, int64_t value);
void msg_field_f64(struct msg_writer *writer, uint32_t key, double value);
void msg_field_bool(struct msg_writer *writer, uint32_t key, bool value);
void msg_field_bin(struct msg_writer *writer, uint32_t key, const void *data, size_t len);
void msg_field_text(struct msg_writer *writer, uint32_t key, const char *text);
void msg_field_u32s(struct msg_writer *writer, uint32_t key, const uint32_t *values, size_t count);
void msg_field_u64s(struct msg_writer *writer, uint32_t key, const uint64_t *values, size_t count);

/* ---- reading ---- */

enum msg_type {
    MSG_NONE, /* at the end, or after an error */
    MSG_NIL,
    MSG_BOOL,
    MSG_UINT,
    MSG_INT, /* negative */
    MSG_FLOAT,
    MSG_TEXT,
    MSG_BIN,
    MSG_ARRAY,
    MSG_MAP,
    MSG_EXT,
};

struct msg_reader {
    const uint8_t *data;
    size_t len;
    size_t off;
    enum status
        status; /* STATUS_OK, or STATUS_INVALID since the first value that was not as asked */
};

/* Bytes that stay where they are: valid as long as the message. Text has no NUL behind it. */
struct msg_bytes {
    const uint8_t *data; /* never NULL */
    size_t len;
};

void msg_reader_init(struct msg_reader *reader, const void *data, size_t len);

/* The type of the next value, which stays next. */
enum msg_type msg_peek(const struct msg_reader *reader);

/* How many pairs or items follow. Never more than there are bytes left, so that a count may size an
 * allocation. */
uint32_t msg_get_map(struct msg_reader *reader);
uint32_t msg_get_array(struct msg_reader *reader);

/* Takes the next key of a map of *left pairs and counts it off; false when there is none or on an
 * error. The caller then takes or skips exactly one value. */
bool msg_next_key(struct msg_reader *reader, uint32_t *left, uint64_t *key);

uint64_t msg_get_u64(struct msg_reader *reader);
uint64_t msg_get_u64_max(struct msg_reader *reader, uint64_t max); /* greater is an error */
uint32_t msg_get_u32(struct msg_reader *reader);
int64_t msg_get_i64(struct msg_reader *reader);
double msg_get_f64(struct msg_reader *reader); /* a float of either size, or any integer */
bool msg_get_bool(struct msg_reader *reader);
struct msg_bytes msg_get_bin(struct msg_reader *reader, size_t len_max);
struct msg_bytes msg_get_text(struct msg_reader *reader, size_t len_max);

/* Exactly len bytes of bin into out; out is untouched on an error. */
void msg_get_bin_exact(struct msg_reader *reader, void *out, size_t len);

/* A text without NUL inside, copied into out[size] with a NUL behind; "" on an error. */
void msg_get_text_copy(struct msg_reader *reader, char *out, size_t size);

/* A column of at most count_max values; read item i with msg_u32_at / msg_u64_at. */
struct msg_column {
    const uint8_t *data; /* unaligned, little-endian */
    size_t count;
};
struct msg_column msg_get_u32s(struct msg_reader *reader, size_t count_max);
struct msg_column msg_get_u64s(struct msg_reader *reader, size_t count_max);
uint32_t msg_u32_at(struct msg_column column, size_t index);
uint64_t msg_u64_at(struct msg_column column, size_t index);

/* Passes over one value of any type and everything inside it. */
void msg_skip(struct msg_reader *reader);

/* For a decoder's own checks: makes the error sticky. */
void msg_fail(struct msg_reader *reader);

/* STATUS_OK if every value was as asked and nothing is left; STATUS_INVALID otherwise. */
MUST_USE enum status msg_end(const struct msg_reader *reader);

#endif
