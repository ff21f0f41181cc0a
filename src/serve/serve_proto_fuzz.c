/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/serve_proto_fuzz.c
 *
 * Goal:    no bytes of a peer make a decoder of serve/proto.h read beyond them, or accept what
 *          cannot be encoded again.
 * Method:  the first byte chooses the message. What is accepted is encoded, decoded and encoded
 *          once more: both encodings must be equal, and every borrowed column is read to its end.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "serve/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void read_u64s(struct proto_u64s view)
{
    for (uint32_t i = 0; i < view.count; i++)
        sink += proto_u64_at(view, i);
}

static void read_sequence(const struct proto_sequence *sequence)
{
    for (uint32_t i = 0; i < sequence->tokens.count; i++) {
        sink += proto_u32_at(sequence->tokens, i);
    }
    for (uint32_t i = 0; i < sequence->keys_count; i++) {
        sink += block_key_hash(&sequence->keys[i]);
    }
    sink += strlen(sequence->plan.holder);
}

static void read_item(const struct proto_item *item)
{
    if (item->kind == PROTO_ITEM_OPENED) read_u64s(item->opened.addresses);
    if (item->kind == PROTO_ITEM_SCORES) {
        for (uint32_t i = 0; i < item->scores.rows.count; i++)
            sink += proto_u32_at(item->scores.rows, i);
    }
    if (item->kind == PROTO_ITEM_FAILED) sink += strlen(item->failed.text);
}

static void expect_equal(const struct buf *a, const struct buf *b)
{
    ASSERT(a->len == b->len);
    ASSERT(memcmp(buf_data(a), buf_data(b), a->len) == 0);
}

#define ROUND_TRIP(name, read)                                                                     \
    do {                                                                                           \
        struct proto_##name first, second;                                                         \
        if (proto_##name##_decode(data, size, &first) != STATUS_OK) break;                         \
        read;                                                                                      \
        ASSERT(proto_##name##_encode(&first, &one) == STATUS_OK);                                  \
        ASSERT(proto_##name##_decode(buf_data(&one), one.len, &second) == STATUS_OK);              \
        ASSERT(proto_##name##_encode(&second, &two) == STATUS_OK);                                 \
        expect_equal(&one, &two);                                                                  \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf one, two;
    if (size == 0) return 0;
    const uint8_t which = data[0] % 12;
    data++;
    size--;
    buf_init(&one, 64 << 20);
    buf_init(&two, 64 << 20);
    switch (which) {
    case 0: ROUND_TRIP(decode_open, read_sequence(&first.sequence)); break;
    case 1:
        ROUND_TRIP(prefill_run, {
            read_sequence(&first.sequence);
            read_u64s(first.target.addresses);
        });
        break;
    case 2: ROUND_TRIP(kv_done, read_u64s(first.checksums)); break;
    case 3: ROUND_TRIP(item, read_item(&first)); break;
    case 4: ROUND_TRIP(node_info, sink += strlen(first.name)); break;
    case 5: ROUND_TRIP(node_status, sink += first.requests); break;
    case 6: ROUND_TRIP(push, sink += first.attempt); break;
    case 7: ROUND_TRIP(push_lease, sink += first.lease_ms); break;
    case 8: ROUND_TRIP(node_role, sink += (uint64_t)first.role); break;
    case 9: ROUND_TRIP(node_refused, sink += strlen(first.reason)); break;
    case 10: ROUND_TRIP(node_blocks, sink += first.keys_count + strlen(first.holder)); break;
    default: ROUND_TRIP(node_copied, sink += first.had); break;
    }
    buf_fini(&one);
    buf_fini(&two);
    return 0;
}
