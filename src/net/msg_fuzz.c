/* SPDX-License-Identifier: Apache-2.0
 *
 * net/msg_fuzz.c - every getter over foreign bytes.
 *
 * The first byte picks the getters' order; the rest is the message. Each getter must either move
 * forward or make the error sticky, and must hand out only bytes inside the message. */
#include "net/msg.h"

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_inside(const struct msg_reader *reader, const uint8_t *data, size_t len)
{
    if (len == 0) return;
    ASSERT(data >= reader->data && data + len <= reader->data + reader->len);
    volatile uint8_t touched = data[0];
    touched = data[len - 1];
    (void)touched;
}

static void get_as(struct msg_reader *reader, unsigned which)
{
    char text[16];
    uint8_t blob[4];
    uint64_t key;

    switch (which % 10) {
    case 0: (void)msg_get_u64(reader); break;
    case 1: (void)msg_get_i64(reader); break;
    case 2: (void)msg_get_f64(reader); break;
    case 3: (void)msg_get_bool(reader); break;
    case 4: {
        const struct msg_bytes bytes = msg_get_bin(reader, 1000);
        check_inside(reader, bytes.data, bytes.len);
        break;
    }
    case 5: msg_get_text_copy(reader, text, sizeof(text)); break;
    case 6: msg_get_bin_exact(reader, blob, sizeof(blob)); break;
    case 7: {
        const struct msg_column column = msg_get_u64s(reader, 1000);
        if (column.count > 0) (void)msg_u64_at(column, column.count - 1);
        break;
    }
    case 8: {
        uint32_t left = msg_get_map(reader);
        while (msg_next_key(reader, &left, &key))
            msg_skip(reader);
        break;
    }
    default: msg_skip(reader); break;
    }
}

static void read_as_typed(struct msg_reader *reader)
{
    static const unsigned getter_of[] = {
        [MSG_NIL] = 9,  [MSG_BOOL] = 3, [MSG_UINT] = 0, [MSG_INT] = 1,   [MSG_FLOAT] = 2,
        [MSG_TEXT] = 5, [MSG_BIN] = 4,  [MSG_MAP] = 8,  [MSG_ARRAY] = 9, [MSG_EXT] = 9,
    };
    enum msg_type type;

    while ((type = msg_peek(reader)) != MSG_NONE) {
        const size_t before = reader->off;
        get_as(reader, getter_of[type]);
        ASSERT(reader->off > before || reader->status != STATUS_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct msg_reader reader;

    if (len == 0) return 0;
    msg_reader_init(&reader, data + 1, len - 1);
    read_as_typed(&reader);
    msg_reader_init(&reader, data + 1, len - 1);
    for (unsigned i = 0; i < 64 && reader.status == STATUS_OK; i++)
        get_as(&reader, data[0] + i * 7);
    return 0;
}
