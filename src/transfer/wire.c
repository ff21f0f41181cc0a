/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/wire.c - see wire.h and docs/internals/transfer-wire.md.
 *
 * Header   0 magic u32 | 4 version u8 | 5 opcode u8 | 6 flags u8 | 7 class u8 | 8 attempt u64
 *         16 request u64 | 24 epoch u64 | 32 term u64 | 40 address u64 | 48 length u64
 *         56 payload XXH3-64 u64 | 64 source u64 | 72 status u32 | 76 zero u32
 *         80 XXH3-64 of bytes 0..80 u64 */
#include "transfer/wire.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

enum { HEADER_CHECKED = 80, SECRET_ROLE_MAX = 64 };

_Static_assert(HEADER_CHECKED + 8 == WIRE_HEADER_SIZE, "the checksum ends the header");
_Static_assert(WIRE_HELLO_SIZE <= WIRE_CONTROL_MAX && WIRE_SHARE_SIZE <= WIRE_CONTROL_MAX,
               "control payloads fit");

/* `size` is known where they are called, so each becomes one move: a header has ten of them, and
 * every small transfer four headers. */
static inline void put_uint(uint8_t *out, size_t size, uint64_t value)
{
    value = htole64(value);
    memcpy(out, &value, size);
}

static inline uint64_t get_uint(const uint8_t *in, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, in, size);
    return le64toh(value);
}

/* Our numbers may change, those on the wire may not. */
static const struct {
    enum status status;
    uint32_t code;
} status_codes[] = {
    { STATUS_OK, 0 },    { STATUS_INVALID, 1 }, { STATUS_NOT_FOUND, 2 }, { STATUS_DENIED, 3 },
    { STATUS_STALE, 4 }, { STATUS_CORRUPT, 5 }, { STATUS_CANCELLED, 6 }, { STATUS_UNSUPPORTED, 7 },
    { STATUS_FULL, 8 },  { STATUS_BUSY, 9 },    { STATUS_PROTOCOL, 10 }, { STATUS_IO, 255 },
};

enum { STATUS_CODES = sizeof(status_codes) / sizeof(status_codes[0]) };

static uint32_t status_encode(enum status status)
{
    for (int i = 0; i < STATUS_CODES; i++) {
        if (status_codes[i].status == status) return status_codes[i].code;
    }
    return 255;
}

static enum status status_decode(uint32_t code)
{
    for (int i = 0; i < STATUS_CODES; i++) {
        if (status_codes[i].code == code) return status_codes[i].status;
    }
    return STATUS_IO;
}

static bool opcode_is_control(enum wire_opcode opcode)
{
    return opcode == WIRE_HELLO || opcode == WIRE_AUTH || opcode == WIRE_SHARE ||
           opcode == WIRE_RAILS || opcode == WIRE_NOTIFY || opcode == WIRE_FABRIC ||
           opcode == WIRE_FABRIC_GRANT || opcode == WIRE_ACKS;
}

static bool opcode_is_data(enum wire_opcode opcode)
{
    return opcode == WIRE_WRITE || opcode == WIRE_READ_DATA;
}

void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_SIZE])
{
    ASSERT(header->opcode >= WIRE_HELLO && header->opcode <= WIRE_FABRIC_GRANT);
    ASSERT(header->class < WIRE_CLASSES);
    put_uint(out, 4, WIRE_MAGIC);
    out[4] = WIRE_VERSION;
    out[5] = (uint8_t)header->opcode;
    out[6] = header->flags;
    out[7] = header->class;
    put_uint(out + 8, 8, header->attempt);
    put_uint(out + 16, 8, header->request);
    put_uint(out + 24, 8, header->epoch);
    put_uint(out + 32, 8, header->term);
    put_uint(out + 40, 8, header->address);
    put_uint(out + 48, 8, header->length);
    put_uint(out + 56, 8, header->checksum);
    put_uint(out + 64, 8, header->source);
    put_uint(out + 72, 4, status_encode(header->status));
    put_uint(out + 76, 4, 0);
    put_uint(out + HEADER_CHECKED, 8, hash_xxh3(out, HEADER_CHECKED));
}

void wire_ack_encode(uint64_t request, uint8_t out[WIRE_ACK_SIZE])
{
    put_uint(out, WIRE_ACK_SIZE, request);
}

uint64_t wire_ack_decode(const uint8_t in[WIRE_ACK_SIZE])
{
    return get_uint(in, WIRE_ACK_SIZE);
}

uint64_t wire_payload_size(const struct wire_header *header)
{
    const bool any = opcode_is_control(header->opcode) || opcode_is_data(header->opcode);
    return any ? header->length : 0;
}

static enum status header_check(const struct wire_header *header)
{
    if (header->opcode < WIRE_HELLO || header->opcode > WIRE_FABRIC_GRANT) return STATUS_PROTOCOL;
    if ((header->flags & ~(unsigned)WIRE_CHECKSUM) != 0) return STATUS_PROTOCOL;
    if (header->class >= WIRE_CLASSES) return STATUS_PROTOCOL;
    if (opcode_is_control(header->opcode) && header->length > WIRE_CONTROL_MAX) {
        return STATUS_PROTOCOL;
    }
    if (opcode_is_data(header->opcode) &&
        (header->length == 0 || header->length > WIRE_SLICE_MAX)) {
        return STATUS_PROTOCOL;
    }
    return STATUS_OK;
}

/* With our magic and version it would be a header: theirs were damaged. A stranger's is none. */
static bool start_damaged(const uint8_t in[WIRE_HEADER_SIZE])
{
    uint8_t ours[HEADER_CHECKED];

    memcpy(ours, in, sizeof(ours));
    put_uint(ours, 4, WIRE_MAGIC);
    ours[4] = WIRE_VERSION;
    return get_uint(in + HEADER_CHECKED, 8) == hash_xxh3(ours, sizeof(ours));
}

enum status wire_header_decode(const uint8_t in[WIRE_HEADER_SIZE], struct wire_header *out)
{
    struct wire_header header;

    if (get_uint(in, 4) != WIRE_MAGIC || in[4] != WIRE_VERSION)
        return start_damaged(in) ? STATUS_CORRUPT : STATUS_PROTOCOL;
    if (get_uint(in + HEADER_CHECKED, 8) != hash_xxh3(in, HEADER_CHECKED)) return STATUS_CORRUPT;
    if (get_uint(in + 76, 4) != 0) return STATUS_PROTOCOL;
    header.opcode = (enum wire_opcode)in[5];
    header.flags = in[6];
    header.class = in[7];
    header.attempt = get_uint(in + 8, 8);
    header.request = get_uint(in + 16, 8);
    header.epoch = get_uint(in + 24, 8);
    header.term = get_uint(in + 32, 8);
    header.address = get_uint(in + 40, 8);
    header.length = get_uint(in + 48, 8);
    header.checksum = get_uint(in + 56, 8);
    header.source = get_uint(in + 64, 8);
    header.status = status_decode((uint32_t)get_uint(in + 72, 4));
    enum status status = header_check(&header);
    if (status == STATUS_OK) *out = header;
    return status;
}

/* A name is text with a NUL inside its field, and nothing but zeros after it. */
static bool name_valid(const uint8_t *in, size_t size)
{
    const size_t len = strnlen((const char *)in, size);

    if (len == size) return false;
    for (size_t i = 0; i < len; i++) {
        if (in[i] <= ' ' || in[i] > '~') return false;
    }
    for (size_t i = len; i < size; i++) {
        if (in[i] != 0) return false;
    }
    return true;
}

static void name_encode(uint8_t *out, size_t size, const char *name)
{
    const size_t len = strnlen(name, size);

    ASSERT(len < size);
    memset(out, 0, size);
    memcpy(out, name, len);
}

/* Hello    0 version_min u8 | 1 version_max u8 | 2 zero u16 | 4 capabilities u32 | 8 generation u64
 *         16 epoch u64 | 24 connection u64 | 32 host u64 | 40 lease_ms u32 | 44 zero u32
 *         48 nonce [32] | 80 name [128] | 208 proof [32] */
void wire_hello_encode(const struct wire_hello *hello, uint8_t out[WIRE_HELLO_SIZE])
{
    ASSERT(hello->version_min >= 1 && hello->version_min <= hello->version_max);
    out[0] = hello->version_min;
    out[1] = hello->version_max;
    put_uint(out + 2, 2, 0);
    put_uint(out + 4, 4, hello->capabilities);
    put_uint(out + 8, 8, hello->generation);
    put_uint(out + 16, 8, hello->epoch);
    put_uint(out + 24, 8, hello->connection);
    put_uint(out + 32, 8, hello->host);
    put_uint(out + 40, 4, hello->lease_ms);
    put_uint(out + 44, 4, 0);
    memcpy(out + 48, hello->nonce, WIRE_NONCE_SIZE);
    name_encode(out + 80, WIRE_NAME_SIZE, hello->name);
    memcpy(out + 208, hello->proof, WIRE_PROOF_SIZE);
}

enum status wire_hello_decode(const uint8_t *in, size_t len, struct wire_hello *out)
{
    if (len < WIRE_HELLO_SIZE || in[0] == 0 || in[0] > in[1]) return STATUS_PROTOCOL;
    if (!name_valid(in + 80, WIRE_NAME_SIZE)) return STATUS_PROTOCOL;
    if (get_uint(in + 8, 8) == 0) return STATUS_PROTOCOL;
    out->version_min = in[0];
    out->version_max = in[1];
    out->capabilities = (uint32_t)get_uint(in + 4, 4);
    out->generation = get_uint(in + 8, 8);
    out->epoch = get_uint(in + 16, 8);
    out->connection = get_uint(in + 24, 8);
    out->host = get_uint(in + 32, 8);
    out->lease_ms = (uint32_t)get_uint(in + 40, 4);
    memcpy(out->nonce, in + 48, WIRE_NONCE_SIZE);
    memcpy(out->name, in + 80, WIRE_NAME_SIZE);
    memcpy(out->proof, in + 208, WIRE_PROOF_SIZE);
    return STATUS_OK;
}

/* Share    0 address u64 | 8 length u64 | 16 flags u32 | 20 zero u32 | 24 token [16] | 40 name [96]
 *          and, of memory of a device, 136 kind u32 | 140 size of the handle u32 | 144 offset u64 |
 *          152 handle [64] */
enum { SHARE_OF_CUDA = 1 };

size_t wire_share_encode(const struct wire_share *share, uint8_t out[WIRE_SHARE_DEVICE_SIZE])
{
    put_uint(out, 8, share->address);
    put_uint(out + 8, 8, share->length);
    put_uint(out + 16, 4, share->flags);
    put_uint(out + 20, 4, 0);
    memcpy(out + 24, share->token, WIRE_TOKEN_SIZE);
    name_encode(out + 40, WIRE_SHARE_NAME_SIZE, share->name);
    if (!share->device) return WIRE_SHARE_SIZE;
    put_uint(out + 136, 4, SHARE_OF_CUDA);
    put_uint(out + 140, 4, share->has_handle ? WIRE_IPC_SIZE : 0);
    put_uint(out + 144, 8, share->handle_offset);
    memset(out + 152, 0, WIRE_IPC_SIZE);
    if (share->has_handle) memcpy(out + 152, share->handle, WIRE_IPC_SIZE);
    return WIRE_SHARE_DEVICE_SIZE;
}

/* The tail of a share: what kind of memory it is, and what opens it. */
static enum status share_device_decode(const uint8_t *in, struct wire_share *out)
{
    const uint64_t size = get_uint(in + 140, 4), offset = get_uint(in + 144, 8);

    if (get_uint(in + 136, 4) != SHARE_OF_CUDA) {
        memset(out->name, 0, sizeof(out->name));
        return STATUS_OK;
    }
    if (size != 0 && size != WIRE_IPC_SIZE) return STATUS_PROTOCOL;
    if (offset + out->length < offset) return STATUS_PROTOCOL;
    out->device = true;
    out->has_handle = size != 0;
    out->handle_offset = offset;
    memcpy(out->handle, in + 152, WIRE_IPC_SIZE);
    return STATUS_OK;
}

enum status wire_share_decode(const uint8_t *in, size_t len, struct wire_share *out)
{
    struct wire_share share = { .device = false };

    if (len < WIRE_SHARE_SIZE) return STATUS_PROTOCOL;
    share.address = get_uint(in, 8);
    share.length = get_uint(in + 8, 8);
    if (share.length == 0 || share.address + share.length < share.address) return STATUS_PROTOCOL;
    if (!name_valid(in + 40, WIRE_SHARE_NAME_SIZE)) return STATUS_PROTOCOL;
    share.flags = (uint32_t)get_uint(in + 16, 4);
    memcpy(share.token, in + 24, WIRE_TOKEN_SIZE);
    memcpy(share.name, in + 40, WIRE_SHARE_NAME_SIZE);
    if (len >= WIRE_SHARE_DEVICE_SIZE) {
        const enum status status = share_device_decode(in, &share);
        if (status != STATUS_OK) return status;
    }
    *out = share;
    return STATUS_OK;
}

/* Rails    0 count u32 | 4 zero u32 | count times
 *          0 address [64] | 64 interface [16] | 80 speed_mbps u32 | 84 numa_node i32 | 88 rank u8
 *         89 zero [7] */
void wire_rails_encode(const struct wire_rails *rails, uint8_t out[WIRE_RAILS_SIZE])
{
    ASSERT(rails->count <= WIRE_RAILS_MAX);
    memset(out, 0, WIRE_RAILS_SIZE);
    put_uint(out, 4, rails->count);
    for (uint32_t i = 0; i < rails->count; i++) {
        const struct wire_rail *rail = &rails->rails[i];
        uint8_t *at = out + 8 + (size_t)i * WIRE_RAIL_SIZE;
        name_encode(at, WIRE_RAIL_ADDRESS_SIZE, rail->address);
        name_encode(at + 64, WIRE_RAIL_INTERFACE_SIZE, rail->interface);
        put_uint(at + 80, 4, rail->speed_mbps);
        put_uint(at + 84, 4, (uint32_t)rail->numa_node);
        at[88] = rail->rank;
    }
}

static enum status rail_decode(const uint8_t *at, struct wire_rail *out)
{
    if (!name_valid(at, WIRE_RAIL_ADDRESS_SIZE) || at[0] == '\0') return STATUS_PROTOCOL;
    if (!name_valid(at + 64, WIRE_RAIL_INTERFACE_SIZE) || at[88] > 1) return STATUS_PROTOCOL;
    memcpy(out->address, at, WIRE_RAIL_ADDRESS_SIZE);
    memcpy(out->interface, at + 64, WIRE_RAIL_INTERFACE_SIZE);
    out->speed_mbps = (uint32_t)get_uint(at + 80, 4);
    out->numa_node = (int32_t)get_uint(at + 84, 4);
    out->rank = at[88];
    return STATUS_OK;
}

enum status wire_rails_decode(const uint8_t *in, size_t len, struct wire_rails *out)
{
    struct wire_rails rails = { 0 };
    enum status status = STATUS_OK;

    if (len < 8) return STATUS_PROTOCOL;
    rails.count = (uint32_t)get_uint(in, 4);
    if (rails.count > WIRE_RAILS_MAX) return STATUS_PROTOCOL;
    if (len < 8 + (size_t)rails.count * WIRE_RAIL_SIZE) return STATUS_PROTOCOL;
    for (uint32_t i = 0; i < rails.count && status == STATUS_OK; i++) {
        status = rail_decode(in + 8 + (size_t)i * WIRE_RAIL_SIZE, &rails.rails[i]);
    }
    if (status == STATUS_OK) *out = rails;
    return status;
}

/* Fabric   0 provider [64] | 64 address_len u32 | 68 zero u32 | 72 address [192] */
void wire_fabric_encode(const struct wire_fabric *fabric, uint8_t out[WIRE_FABRIC_SIZE])
{
    ASSERT(fabric->address_len >= 1 && fabric->address_len <= WIRE_FABRIC_ADDRESS_SIZE);
    memset(out, 0, WIRE_FABRIC_SIZE);
    name_encode(out, WIRE_PROVIDER_SIZE, fabric->provider);
    put_uint(out + 64, 4, fabric->address_len);
    memcpy(out + 72, fabric->address, fabric->address_len);
}

enum status wire_fabric_decode(const uint8_t *in, size_t len, struct wire_fabric *out)
{
    if (len < WIRE_FABRIC_SIZE || !name_valid(in, WIRE_PROVIDER_SIZE)) return STATUS_PROTOCOL;
    const uint32_t address_len = (uint32_t)get_uint(in + 64, 4);
    if (address_len == 0 || address_len > WIRE_FABRIC_ADDRESS_SIZE) return STATUS_PROTOCOL;
    memcpy(out->provider, in, WIRE_PROVIDER_SIZE);
    out->address_len = address_len;
    memcpy(out->address, in + 72, WIRE_FABRIC_ADDRESS_SIZE);
    return STATUS_OK;
}

/* Grant    0 address u64 | 8 length u64 | 16 flags u32 | 20 zero u32 | 24 base u64 | 32 key u64 */
void wire_grant_encode(const struct wire_grant *grant, uint8_t out[WIRE_GRANT_SIZE])
{
    put_uint(out, 8, grant->address);
    put_uint(out + 8, 8, grant->length);
    put_uint(out + 16, 4, grant->flags);
    put_uint(out + 20, 4, 0);
    put_uint(out + 24, 8, grant->base);
    put_uint(out + 32, 8, grant->key);
}

enum status wire_grant_decode(const uint8_t *in, size_t len, struct wire_grant *out)
{
    if (len < WIRE_GRANT_SIZE) return STATUS_PROTOCOL;
    const struct wire_grant grant = { .address = get_uint(in, 8),
                                      .length = get_uint(in + 8, 8),
                                      .flags = (uint32_t)get_uint(in + 16, 4),
                                      .base = get_uint(in + 24, 8),
                                      .key = get_uint(in + 32, 8) };
    if (grant.length == 0 || grant.address + grant.length < grant.address) return STATUS_PROTOCOL;
    if (grant.base + grant.length < grant.base) return STATUS_PROTOCOL;
    *out = grant;
    return STATUS_OK;
}

/* HMAC-SHA256(secret, role padded with zeros to 64 | initiator's hello | target's hello, without
 * their proofs). The role keeps one side's proof from serving as the other's. */
void wire_proof(const char *secret, const char *role, const uint8_t initiator[WIRE_HELLO_SIZE],
                const uint8_t target[WIRE_HELLO_SIZE], uint8_t out[WIRE_PROOF_SIZE])
{
    enum { GREETING = WIRE_HELLO_SIZE - WIRE_PROOF_SIZE };
    uint8_t text[SECRET_ROLE_MAX + 2 * GREETING] = { 0 };

    ASSERT(strlen(role) < SECRET_ROLE_MAX);
    memcpy(text, role, strlen(role));
    memcpy(text + SECRET_ROLE_MAX, initiator, GREETING);
    memcpy(text + SECRET_ROLE_MAX + GREETING, target, GREETING);
    hash_hmac_sha256(secret, strlen(secret), text, sizeof(text), out);
}
