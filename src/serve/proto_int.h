/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto_int.h - what the codecs of serve share: columns, and what every decoder needs. */
#ifndef SERVE_PROTO_INT_H
#define SERVE_PROTO_INT_H

#include "base/assert.h"
#include "net/msg.h"
#include "serve/proto.h"

static inline void put_u32s(struct msg_writer *writer, uint32_t key, struct proto_u32s view)
{
    msg_field_bin(writer, key, view.bytes, (size_t)view.count * sizeof(uint32_t));
}

static inline void put_u64s(struct msg_writer *writer, uint32_t key, struct proto_u64s view)
{
    msg_field_bin(writer, key, view.bytes, (size_t)view.count * sizeof(uint64_t));
}

static inline uint32_t get_column(struct msg_reader *reader, uint32_t count_max, size_t width,
                                  const uint8_t **bytes)
{
    const struct msg_bytes bin = msg_get_bin(reader, count_max * width);
    if (bin.len % width != 0) msg_fail(reader);
    *bytes = bin.data;
    return (uint32_t)(bin.len / width);
}

static inline struct proto_u32s get_u32s(struct msg_reader *reader, uint32_t count_max)
{
    struct proto_u32s view;
    view.count = get_column(reader, count_max, sizeof(uint32_t), &view.bytes);
    return view;
}

static inline struct proto_u64s get_u64s(struct msg_reader *reader, uint32_t count_max)
{
    struct proto_u64s view;
    view.count = get_column(reader, count_max, sizeof(uint64_t), &view.bytes);
    return view;
}

/* ---- what every decoder needs ---- */

static inline uint32_t get_in(struct msg_reader *reader, uint32_t low, uint32_t high)
{
    const uint64_t value = msg_get_u64_max(reader, high);
    if (value < low) msg_fail(reader);
    return (uint32_t)value;
}

/* Takes a key; notes it in *seen (keys are below 64) and refuses a second one of the same. */
static inline bool next_field(struct msg_reader *reader, uint32_t *left, uint64_t *key,
                              uint64_t *seen)
{
    if (!msg_next_key(reader, left, key)) return false;
    if (*key >= 64) return true;
    const uint64_t bit = UINT64_C(1) << *key;
    if ((*seen & bit) != 0) msg_fail(reader);
    *seen |= bit;
    return true;
}

/* The set of fields 1..last. */
static inline uint64_t fields_through(uint32_t last)
{
    ASSERT(last >= 1 && last < 63);
    return (UINT64_C(1) << (last + 1)) - 2;
}

static inline enum status finish(const struct msg_reader *reader, uint64_t seen, uint64_t required)
{
    const enum status status = msg_end(reader);
    if (status != STATUS_OK) return status;
    return (seen & required) == required ? STATUS_OK : STATUS_INVALID;
}

#endif
