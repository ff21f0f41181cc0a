/* SPDX-License-Identifier: Apache-2.0
 *
 * net/msg.c - see msg.h. msgpack-c packs; reading is our own cursor.
 *
 * msgpack-c reads into a tree of objects on its heap: a peer's 64 MiB frame of one-byte integers
 * becomes 1.5 GiB of objects before anybody can refuse it. A cursor needs no memory, and batch
 * calls read their columns where they lie. msg_test.c checks the cursor against msgpack-c's own
 * reader.
 *
 * Reading is in one place: next_head() takes the first byte of a value and the big-endian number
 * behind it, after checking that all of it, and the payload it announces, is there. A number that
 * is its own first byte, as keys are, does without (take_uint()). */
#include "net/msg.h"

#include <endian.h>
#include <msgpack/pack.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

enum { FIXINT_MAX = 0x7f }; /* the largest number that is its own first byte */

/* ---- writing ---- */

static int append(void *ctx, const char *data, size_t len)
{
    struct msg_writer *writer = ctx;

    if (writer->status != STATUS_OK) return -1;
    writer->status = buf_append(writer->buf, data, len);
    return writer->status == STATUS_OK ? 0 : -1;
}

static msgpack_packer packer_of(struct msg_writer *writer)
{
    msgpack_packer packer;
    ASSERT(writer->buf != NULL);
    msgpack_packer_init(&packer, writer, append);
    return packer;
}

void msg_writer_init(struct msg_writer *writer, struct buf *buf)
{
    writer->buf = buf;
    writer->status = STATUS_OK;
}

void msg_put_map(struct msg_writer *writer, uint32_t count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_map(&packer, count);
}

void msg_put_array(struct msg_writer *writer, uint32_t count)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_array(&packer, count);
}

void msg_put_u64(struct msg_writer *writer, uint64_t value)
{
    if (value <= FIXINT_MAX) {
        const char byte = (char)value;
        (void)append(writer, &byte, 1);
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_uint64(&packer, value);
}

void msg_put_i64(struct msg_writer *writer, int64_t value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_int64(&packer, value);
}

void msg_put_f64(struct msg_writer *writer, double value)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_double(&packer, value);
}

void msg_put_bool(struct msg_writer *writer, bool value)
{
    msgpack_packer packer = packer_of(writer);
    if (value) {
        msgpack_pack_true(&packer);
    } else {
        msgpack_pack_false(&packer);
    }
}

void msg_put_nil(struct msg_writer *writer)
{
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_nil(&packer);
}

void msg_put_bin_head(struct msg_writer *writer, size_t len)
{
    msgpack_packer packer = packer_of(writer);
    ASSERT(len <= UINT32_MAX);
    msgpack_pack_bin(&packer, len);
}

void msg_put_bin_part(struct msg_writer *writer, const void *data, size_t len)
{
    msgpack_packer packer = packer_of(writer);
    if (len > 0) msgpack_pack_bin_body(&packer, data, len);
}

void msg_put_bin(struct msg_writer *writer, const void *data, size_t len)
{
    msg_put_bin_head(writer, len);
    msg_put_bin_part(writer, data, len);
}

void msg_put_text_len(struct msg_writer *writer, const char *text, size_t len)
{
    msgpack_packer packer = packer_of(writer);
    ASSERT(len <= UINT32_MAX);
    msgpack_pack_str(&packer, len);
    if (len > 0) msgpack_pack_str_body(&packer, text, len);
}

void msg_put_text(struct msg_writer *writer, const char *text)
{
    msg_put_text_len(writer, text, text != NULL ? strlen(text) : 0);
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "columns are written as they lie in memory, little-endian"
#endif

void msg_put_u32s(struct msg_writer *writer, const uint32_t *values, size_t count)
{
    ASSERT(count <= UINT32_MAX / sizeof(*values));
    msg_put_bin(writer, values, count * sizeof(*values));
}

void msg_put_u64s(struct msg_writer *writer, const uint64_t *values, size_t count)
{
    ASSERT(count <= UINT32_MAX / sizeof(*values));
    msg_put_bin(writer, values, count * sizeof(*values));
}

void msg_field_map(struct msg_writer *writer, uint32_t key, uint32_t count)
{
    msg_put_u64(writer, key);
    msg_put_map(writer, count);
}

void msg_field_array(struct msg_writer *writer, uint32_t key, uint32_t count)
{
    msg_put_u64(writer, key);
    msg_put_array(writer, count);
}

void msg_field_u64(struct msg_writer *writer, uint32_t key, uint64_t value)
{
    msg_put_u64(writer, key);
    msg_put_u64(writer, value);
}

void msg_field_i64(struct msg_writer *writer, uint32_t key, int64_t value)
{
    msg_put_u64(writer, key);
    msg_put_i64(writer, value);
}

void msg_field_f64(struct msg_writer *writer, uint32_t key, double value)
{
    msg_put_u64(writer, key);
    msg_put_f64(writer, value);
}

void msg_field_bool(struct msg_writer *writer, uint32_t key, bool value)
{
    msg_put_u64(writer, key);
    msg_put_bool(writer, value);
}

void msg_field_bin(struct msg_writer *writer, uint32_t key, const void *data, size_t len)
{
    msg_put_u64(writer, key);
    msg_put_bin(writer, data, len);
}

void msg_field_text(struct msg_writer *writer, uint32_t key, const char *text)
{
    msg_put_u64(writer, key);
    msg_put_text(writer, text);
}

void msg_field_u32s(struct msg_writer *writer, uint32_t key, const uint32_t *values, size_t count)
{
    msg_put_u64(writer, key);
    msg_put_u32s(writer, values, count);
}

void msg_field_u64s(struct msg_writer *writer, uint32_t key, const uint64_t *values, size_t count)
{
    msg_put_u64(writer, key);
    msg_put_u64s(writer, values, count);
}

/* ---- reading ---- */

/* The first part of a value: what it is, its number, and where its payload starts and ends. For
 * MSG_UINT and MSG_INT `number` is the value (two's complement); for MSG_FLOAT its bits as a
 * double; for MSG_BOOL 0 or 1; for MSG_ARRAY and MSG_MAP the count; otherwise the payload's length.
 */
struct head {
    enum msg_type type;
    uint64_t number;
    size_t payload; /* offset */
    size_t end;     /* offset of the next value; for arrays and maps of the first child */
};

static const uint8_t nothing[1];

void msg_reader_init(struct msg_reader *reader, const void *data, size_t len)
{
    ASSERT(data != NULL || len == 0);
    *reader = (struct msg_reader){ .data = data != NULL ? data : nothing, .len = len };
}

void msg_fail(struct msg_reader *reader)
{
    reader->status = STATUS_INVALID;
}

static uint64_t big_endian(const uint8_t *data, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | data[i];
    return value;
}

/* What the first byte says: the type, how many bytes of number follow, and the number if none do.
 */
struct lead {
    enum msg_type type;
    uint8_t size;    /* of the number behind the first byte */
    uint8_t ext;     /* bytes of extension type behind the number */
    uint64_t number; /* when size is 0 */
};

/* 0xc0..0xdf, in order. 0xc1 is never used. */
static const struct lead leads[32] = {
    { MSG_NIL, 0, 0, 0 },   { MSG_NONE, 0, 0, 0 },  { MSG_BOOL, 0, 0, 0 },  { MSG_BOOL, 0, 0, 1 },
    { MSG_BIN, 1, 0, 0 },   { MSG_BIN, 2, 0, 0 },   { MSG_BIN, 4, 0, 0 },   { MSG_EXT, 1, 1, 0 },
    { MSG_EXT, 2, 1, 0 },   { MSG_EXT, 4, 1, 0 },   { MSG_FLOAT, 4, 0, 0 }, { MSG_FLOAT, 8, 0, 0 },
    { MSG_UINT, 1, 0, 0 },  { MSG_UINT, 2, 0, 0 },  { MSG_UINT, 4, 0, 0 },  { MSG_UINT, 8, 0, 0 },
    { MSG_INT, 1, 0, 0 },   { MSG_INT, 2, 0, 0 },   { MSG_INT, 4, 0, 0 },   { MSG_INT, 8, 0, 0 },
    { MSG_EXT, 0, 1, 1 },   { MSG_EXT, 0, 1, 2 },   { MSG_EXT, 0, 1, 4 },   { MSG_EXT, 0, 1, 8 },
    { MSG_EXT, 0, 1, 16 },  { MSG_TEXT, 1, 0, 0 },  { MSG_TEXT, 2, 0, 0 },  { MSG_TEXT, 4, 0, 0 },
    { MSG_ARRAY, 2, 0, 0 }, { MSG_ARRAY, 4, 0, 0 }, { MSG_MAP, 2, 0, 0 },   { MSG_MAP, 4, 0, 0 },
};

static struct lead lead_of(uint8_t first)
{
    if (first <= 0x7f) return (struct lead){ MSG_UINT, 0, 0, first };
    if (first <= 0x8f) return (struct lead){ MSG_MAP, 0, 0, first & 0x0f };
    if (first <= 0x9f) return (struct lead){ MSG_ARRAY, 0, 0, first & 0x0f };
    if (first <= 0xbf) return (struct lead){ MSG_TEXT, 0, 0, first & 0x1f };
    if (first >= 0xe0) return (struct lead){ MSG_INT, 0, 0, (uint64_t)(int64_t)(int8_t)first };
    return leads[first - 0xc0];
}

static uint64_t float_bits(uint64_t raw, unsigned size)
{
    if (size == 8) return raw;
    const uint32_t small = (uint32_t)raw;
    float narrow;
    uint64_t bits;
    memcpy(&narrow, &small, sizeof(narrow));
    const double wide = (double)narrow;
    memcpy(&bits, &wide, sizeof(bits));
    return bits;
}

static uint64_t sign_extend(uint64_t raw, unsigned size)
{
    const unsigned shift = 64 - 8 * size;
    return (uint64_t)((int64_t)(raw << shift) >> shift);
}

/* False at the end and for anything malformed or cut short. Does not move the reader. */
static bool next_head(const struct msg_reader *reader, struct head *out)
{
    ASSERT(reader->off <= reader->len);
    if (reader->status != STATUS_OK || reader->off == reader->len) return false;

    const struct lead lead = lead_of(reader->data[reader->off]);
    const size_t left = reader->len - reader->off - 1;
    const size_t extra = (size_t)lead.size + lead.ext;
    if (lead.type == MSG_NONE || extra > left) return false;

    struct head head = { .type = lead.type, .number = lead.number };
    if (lead.size > 0) head.number = big_endian(reader->data + reader->off + 1, lead.size);
    if (lead.type == MSG_FLOAT) head.number = float_bits(head.number, lead.size);
    if (lead.type == MSG_INT && lead.size > 0) head.number = sign_extend(head.number, lead.size);
    if (lead.type == MSG_INT && (int64_t)head.number >= 0) head.type = MSG_UINT;
    head.payload = reader->off + 1 + extra;
    head.end = head.payload;

    const size_t rest = left - extra;
    if (lead.type == MSG_TEXT || lead.type == MSG_BIN || lead.type == MSG_EXT) {
        if (head.number > rest) return false;
        head.end += head.number;
    }
    /* Every item is at least one byte, every pair two. */
    if (lead.type == MSG_ARRAY && head.number > rest) return false;
    if (lead.type == MSG_MAP && head.number > rest / 2) return false;
    *out = head;
    return true;
}

/* Takes the next value's head if it is of that type; makes the error sticky otherwise. */
static bool take_head(struct msg_reader *reader, enum msg_type type, struct head *out)
{
    struct head head;

    if (!next_head(reader, &head) || head.type != type) {
        msg_fail(reader);
        return false;
    }
    reader->off = head.end;
    *out = head;
    return true;
}

/* The next number; most are keys and small, one byte that is its own value. */
static bool take_uint(struct msg_reader *reader, uint64_t *out)
{
    struct head head;

    if (reader->status == STATUS_OK && reader->off < reader->len &&
        reader->data[reader->off] <= FIXINT_MAX) {
        *out = reader->data[reader->off++];
        return true;
    }
    if (!take_head(reader, MSG_UINT, &head)) return false;
    *out = head.number;
    return true;
}

enum msg_type msg_peek(const struct msg_reader *reader)
{
    struct head head;
    return next_head(reader, &head) ? head.type : MSG_NONE;
}

uint32_t msg_get_map(struct msg_reader *reader)
{
    struct head head;
    return take_head(reader, MSG_MAP, &head) ? (uint32_t)head.number : 0;
}

uint32_t msg_get_array(struct msg_reader *reader)
{
    struct head head;
    return take_head(reader, MSG_ARRAY, &head) ? (uint32_t)head.number : 0;
}

bool msg_next_key(struct msg_reader *reader, uint32_t *left, uint64_t *key)
{
    if (*left == 0 || !take_uint(reader, key)) return false;
    (*left)--;
    return true;
}

uint64_t msg_get_u64_max(struct msg_reader *reader, uint64_t max)
{
    uint64_t number;

    if (!take_uint(reader, &number)) return 0;
    if (number > max) {
        msg_fail(reader);
        return 0;
    }
    return number;
}

uint64_t msg_get_u64(struct msg_reader *reader)
{
    return msg_get_u64_max(reader, UINT64_MAX);
}

uint32_t msg_get_u32(struct msg_reader *reader)
{
    return (uint32_t)msg_get_u64_max(reader, UINT32_MAX);
}

int64_t msg_get_i64(struct msg_reader *reader)
{
    struct head head;

    if (msg_peek(reader) == MSG_INT && take_head(reader, MSG_INT, &head))
        return (int64_t)head.number;
    return (int64_t)msg_get_u64_max(reader, INT64_MAX);
}

double msg_get_f64(struct msg_reader *reader)
{
    struct head head;
    double value;

    const enum msg_type type = msg_peek(reader);
    if (type == MSG_INT) return (double)msg_get_i64(reader);
    if (type == MSG_UINT) return (double)msg_get_u64(reader);
    if (!take_head(reader, MSG_FLOAT, &head)) return 0;
    memcpy(&value, &head.number, sizeof(value));
    return value;
}

bool msg_get_bool(struct msg_reader *reader)
{
    struct head head;
    return take_head(reader, MSG_BOOL, &head) && head.number == 1;
}

static struct msg_bytes get_bytes(struct msg_reader *reader, enum msg_type type, size_t len_max)
{
    struct head head;

    if (!take_head(reader, type, &head)) return (struct msg_bytes){ nothing, 0 };
    if (head.number > len_max) {
        msg_fail(reader);
        return (struct msg_bytes){ nothing, 0 };
    }
    return (struct msg_bytes){ reader->data + head.payload, (size_t)head.number };
}

struct msg_bytes msg_get_bin(struct msg_reader *reader, size_t len_max)
{
    return get_bytes(reader, MSG_BIN, len_max);
}

struct msg_bytes msg_get_text(struct msg_reader *reader, size_t len_max)
{
    return get_bytes(reader, MSG_TEXT, len_max);
}

void msg_get_bin_exact(struct msg_reader *reader, void *out, size_t len)
{
    const struct msg_bytes bytes = msg_get_bin(reader, len);

    if (reader->status != STATUS_OK || bytes.len != len) {
        msg_fail(reader);
        return;
    }
    memcpy(out, bytes.data, len);
}

void msg_get_text_copy(struct msg_reader *reader, char *out, size_t size)
{
    ASSERT(size > 0);
    const struct msg_bytes text = msg_get_text(reader, size - 1);

    if (memchr(text.data, '\0', text.len) != NULL) msg_fail(reader);
    const size_t len = reader->status == STATUS_OK ? text.len : 0;
    memcpy(out, text.data, len);
    out[len] = '\0';
}

static struct msg_column get_column(struct msg_reader *reader, size_t count_max, size_t size)
{
    const size_t len_max = count_max > SIZE_MAX / size ? SIZE_MAX : count_max * size;
    const struct msg_bytes bytes = msg_get_bin(reader, len_max);

    if (bytes.len % size == 0) return (struct msg_column){ bytes.data, bytes.len / size };
    msg_fail(reader);
    return (struct msg_column){ nothing, 0 };
}

struct msg_column msg_get_u32s(struct msg_reader *reader, size_t count_max)
{
    return get_column(reader, count_max, sizeof(uint32_t));
}

struct msg_column msg_get_u64s(struct msg_reader *reader, size_t count_max)
{
    return get_column(reader, count_max, sizeof(uint64_t));
}

uint32_t msg_u32_at(struct msg_column column, size_t index)
{
    uint32_t value;
    ASSERT(index < column.count);
    memcpy(&value, column.data + index * sizeof(value), sizeof(value));
    return le32toh(value);
}

uint64_t msg_u64_at(struct msg_column column, size_t index)
{
    uint64_t value;
    ASSERT(index < column.count);
    memcpy(&value, column.data + index * sizeof(value), sizeof(value));
    return le64toh(value);
}

/* Counts the values still to pass instead of recursing. Each is at least one byte, so a count
 * beyond the bytes left is malformed, and the loop ends. */
void msg_skip(struct msg_reader *reader)
{
    struct head head;

    for (uint64_t values = 1; values > 0; values--) {
        if (values > reader->len - reader->off || !next_head(reader, &head)) {
            msg_fail(reader);
            return;
        }
        reader->off = head.end;
        if (head.type == MSG_ARRAY) values += head.number;
        if (head.type == MSG_MAP) values += 2 * head.number;
    }
}

enum status msg_end(const struct msg_reader *reader)
{
    if (reader->status != STATUS_OK || reader->off != reader->len) return STATUS_INVALID;
    return STATUS_OK;
}
