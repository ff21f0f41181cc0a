/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto_stage_fuzz.c - the decoders of serve/proto_stage.h: what one of them takes is encoded
 * and decoded again to the same bytes. The first byte says which. */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "serve/proto_stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROUND_TRIP(name)                                                                           \
    do {                                                                                           \
        struct proto_##name first, second;                                                         \
        if (proto_##name##_decode(data + 1, size - 1, &first) != STATUS_OK) break;                 \
        ASSERT(proto_##name##_encode(&first, &one) == STATUS_OK);                                  \
        ASSERT(proto_##name##_decode(buf_data(&one), one.len, &second) == STATUS_OK);              \
        ASSERT(proto_##name##_encode(&second, &two) == STATUS_OK);                                 \
        ASSERT(one.len == two.len && memcmp(buf_data(&one), buf_data(&two), one.len) == 0);        \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf one, two;

    if (size == 0) return 0;
    buf_init(&one, 64 << 20);
    buf_init(&two, 64 << 20);
    switch (data[0] % 3) {
    case 0: ROUND_TRIP(stage_run); break;
    case 1: ROUND_TRIP(stage_rows); break;
    default: ROUND_TRIP(stage_sums); break;
    }
    buf_fini(&one);
    buf_fini(&two);
    return 0;
}
