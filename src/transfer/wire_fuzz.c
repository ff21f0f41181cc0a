/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/wire_fuzz.c - every decoder over any bytes; what decodes must encode to the same frame.
 *
 * The input is a sequence of frames; the checksum of each header is set right on a copy, so that
 * the walk gets past it to the fields, after it has been tried as it came. */
#include "transfer/wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void fuzz_payload(const struct wire_header *header, const uint8_t *data, size_t len)
{
    struct wire_hello hello;
    struct wire_share share;
    struct wire_rails rails;
    struct wire_fabric fabric;
    struct wire_grant grant;
    uint8_t bytes[WIRE_RAILS_SIZE];

    if (header->opcode == WIRE_HELLO && wire_hello_decode(data, len, &hello) == STATUS_OK) {
        ASSERT(memchr(hello.name, 0, sizeof(hello.name)) != NULL);
        wire_hello_encode(&hello, bytes);
    }
    if (header->opcode == WIRE_SHARE && wire_share_decode(data, len, &share) == STATUS_OK) {
        ASSERT(share.address + share.length > share.address);
        wire_share_encode(&share, bytes);
    }
    if (header->opcode == WIRE_RAILS && wire_rails_decode(data, len, &rails) == STATUS_OK) {
        ASSERT(rails.count <= WIRE_RAILS_MAX);
        wire_rails_encode(&rails, bytes);
    }
    if (header->opcode == WIRE_FABRIC && wire_fabric_decode(data, len, &fabric) == STATUS_OK) {
        ASSERT(memchr(fabric.provider, 0, sizeof(fabric.provider)) != NULL);
        wire_fabric_encode(&fabric, bytes);
    }
    if (header->opcode == WIRE_FABRIC_GRANT && wire_grant_decode(data, len, &grant) == STATUS_OK) {
        ASSERT(grant.address + grant.length > grant.address);
        wire_grant_encode(&grant, bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    while (len >= WIRE_HEADER_SIZE) {
        struct wire_header header;
        uint8_t bytes[WIRE_HEADER_SIZE], again[WIRE_HEADER_SIZE];

        memcpy(bytes, data, sizeof(bytes));
        if (wire_header_decode(bytes, &header) != STATUS_OK) {
            const uint64_t sum = hash_xxh3(bytes, 80);
            for (int i = 0; i < 8; i++)
                bytes[80 + i] = (uint8_t)(sum >> (8 * i));
            if (wire_header_decode(bytes, &header) != STATUS_OK) return 0;
        }
        wire_header_encode(&header, again);
        if (header.status != STATUS_IO) ASSERT(memcmp(bytes, again, sizeof(bytes)) == 0);
        data += WIRE_HEADER_SIZE;
        len -= WIRE_HEADER_SIZE;
        const uint64_t size = wire_payload_size(&header);
        ASSERT(size <= WIRE_SLICE_MAX);
        if (size > len) return 0;
        fuzz_payload(&header, data, (size_t)size);
        data += size;
        len -= (size_t)size;
    }
    return 0;
}
