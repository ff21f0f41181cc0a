/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/wire_test.c
 *
 * Goal:   what is encoded decodes to itself, the layout never moves, and nothing else decodes.
 * Method: one frame byte by byte against the table of the document; a random walk of round trips;
 *         every single-bit change of a header refused. */
#include "transfer/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"

static void header_layout_is_frozen(void **state)
{
    (void)state;
    const struct wire_header header = { .opcode = WIRE_WRITE,
                                        .flags = WIRE_CHECKSUM,
                                        .class = 2,
                                        .attempt = 0x0102030405060708,
                                        .request = 2,
                                        .epoch = 3,
                                        .term = 4,
                                        .address = 0x1122334455667788,
                                        .length = 65536,
                                        .checksum = 5,
                                        .source = 6,
                                        .status = STATUS_STALE };
    uint8_t bytes[WIRE_HEADER_SIZE];

    wire_header_encode(&header, bytes);
    assert_memory_equal(bytes, "YKXF\x01\x05\x01\x02\x08\x07\x06\x05\x04\x03\x02\x01", 16);
    assert_int_equal(bytes[16], 2);
    assert_int_equal(bytes[24], 3);
    assert_int_equal(bytes[32], 4);
    assert_memory_equal(bytes + 40, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    assert_memory_equal(bytes + 48, "\x00\x00\x01\x00\x00\x00\x00\x00", 8);
    assert_int_equal(bytes[56], 5);
    assert_int_equal(bytes[64], 6);
    assert_int_equal(bytes[72], 4);
    uint64_t sum = hash_xxh3(bytes, 80);
    for (int i = 0; i < 8; i++)
        assert_int_equal(bytes[80 + i], (uint8_t)(sum >> (8 * i)));
}

static struct wire_header random_header(struct rng *rng)
{
    static const enum status statuses[] = { STATUS_OK,     STATUS_INVALID,   STATUS_NOT_FOUND,
                                            STATUS_DENIED, STATUS_CANCELLED, STATUS_IO };
    struct wire_header header = { 0 };

    header.opcode = (enum wire_opcode)rng_between(rng, WIRE_HELLO, WIRE_ACKS);
    header.flags = (uint8_t)rng_below(rng, 2);
    header.class = (uint8_t)rng_below(rng, WIRE_CLASSES);
    header.attempt = rng_u64(rng);
    header.request = rng_u64(rng);
    header.epoch = rng_u64(rng);
    header.term = rng_u64(rng);
    header.address = rng_u64(rng);
    header.length = rng_between(rng, 1, WIRE_CONTROL_MAX);
    header.checksum = rng_u64(rng);
    header.source = rng_u64(rng);
    header.status = statuses[rng_below(rng, 6)];
    return header;
}

static void headers_round_trip(void **state)
{
    (void)state;
    struct rng rng;

    rng_init(&rng, 1);
    for (int i = 0; i < 2000; i++) {
        uint8_t first[WIRE_HEADER_SIZE], second[WIRE_HEADER_SIZE];
        struct wire_header header = random_header(&rng), back;
        wire_header_encode(&header, first);
        assert_int_equal(wire_header_decode(first, &back), STATUS_OK);
        wire_header_encode(&back, second);
        assert_memory_equal(first, second, WIRE_HEADER_SIZE);
        assert_true(back.address == header.address && back.status == header.status);
    }
}

/* As damage, which is worth another connection; a stranger is not. */
static void any_flipped_bit_is_damage(void **state)
{
    (void)state;
    struct rng rng;
    uint8_t bytes[WIRE_HEADER_SIZE];
    struct wire_header header, out;

    rng_init(&rng, 2);
    header = random_header(&rng);
    wire_header_encode(&header, bytes);
    for (int bit = 0; bit < WIRE_HEADER_SIZE * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << (bit % 8));
        assert_int_equal(wire_header_decode(bytes, &out), STATUS_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << (bit % 8));
    }
    assert_int_equal(wire_header_decode(bytes, &out), STATUS_OK);
}

/* Seals bytes whose fields were changed, so that only the field decides. */
static void seal(uint8_t bytes[WIRE_HEADER_SIZE])
{
    uint64_t sum = hash_xxh3(bytes, 80);
    for (int i = 0; i < 8; i++)
        bytes[80 + i] = (uint8_t)(sum >> (8 * i));
}

static void fields_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        int at;
        uint8_t value;
    } bad[] = { { 0, 'Z' }, { 4, 2 },  { 5, 0 },     { 5, 16 }, { 6, 2 },
                { 7, 3 },   { 51, 1 }, { 55, 0x80 }, { 76, 1 } };
    const struct wire_header header = { .opcode = WIRE_WRITE, .length = 4096 };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t bytes[WIRE_HEADER_SIZE];
        struct wire_header out;
        wire_header_encode(&header, bytes);
        bytes[bad[i].at] = bad[i].value;
        seal(bytes);
        assert_int_equal(wire_header_decode(bytes, &out), STATUS_PROTOCOL);
    }
}

static void hello_round_trips_and_refuses(void **state)
{
    (void)state;
    struct wire_hello hello = { .version_min = 1,
                                .version_max = 3,
                                .capabilities = WIRE_CAP_SHM,
                                .generation = 7,
                                .epoch = 8,
                                .connection = 9,
                                .host = 10,
                                .lease_ms = 11,
                                .name = "10.0.0.1:7000" };
    uint8_t bytes[WIRE_HELLO_SIZE + 8] = { 0 };
    struct wire_hello out;

    memset(hello.nonce, 0xab, sizeof(hello.nonce));
    memset(hello.proof, 0xcd, sizeof(hello.proof));
    wire_hello_encode(&hello, bytes);
    assert_int_equal(wire_hello_decode(bytes, sizeof(bytes), &out), STATUS_OK);
    assert_memory_equal(out.nonce, hello.nonce, sizeof(out.nonce));
    assert_memory_equal(out.proof, hello.proof, sizeof(out.proof));
    assert_string_equal(out.name, hello.name);
    assert_true(out.generation == 7 && out.epoch == 8 && out.connection == 9 && out.host == 10 &&
                out.lease_ms == 11);
    assert_int_equal(wire_hello_decode(bytes, WIRE_HELLO_SIZE - 1, &out), STATUS_PROTOCOL);
    memset(bytes + 80, 'x', WIRE_NAME_SIZE); /* no NUL */
    assert_int_equal(wire_hello_decode(bytes, WIRE_HELLO_SIZE, &out), STATUS_PROTOCOL);
    wire_hello_encode(&hello, bytes);
    bytes[82] = '\n';
    assert_int_equal(wire_hello_decode(bytes, WIRE_HELLO_SIZE, &out), STATUS_PROTOCOL);
    wire_hello_encode(&hello, bytes);
    bytes[0] = 4; /* min above max */
    assert_int_equal(wire_hello_decode(bytes, WIRE_HELLO_SIZE, &out), STATUS_PROTOCOL);
}

static void share_round_trips_and_refuses(void **state)
{
    (void)state;
    const struct wire_share share = { .address = 4096, .length = 8192, .flags = 3, .name = "/a-b" };
    uint8_t bytes[WIRE_SHARE_DEVICE_SIZE];
    struct wire_share out;

    assert_int_equal(wire_share_encode(&share, bytes), WIRE_SHARE_SIZE);
    assert_int_equal(wire_share_decode(bytes, WIRE_SHARE_SIZE, &out), STATUS_OK);
    assert_true(!out.device && !out.has_handle);
    assert_true(out.address == 4096 && out.length == 8192 && out.flags == 3);
    assert_string_equal(out.name, "/a-b");
    memset(bytes, 0xff, 8); /* wraps */
    assert_int_equal(wire_share_decode(bytes, WIRE_SHARE_SIZE, &out), STATUS_PROTOCOL);
    assert_int_equal(wire_share_decode(bytes, WIRE_SHARE_SIZE - 1, &out), STATUS_PROTOCOL);
}

static void share_of_a_device_round_trips_and_refuses(void **state)
{
    (void)state;
    struct wire_share share = { .address = 4096,
                                .length = 8192,
                                .flags = 3,
                                .name = "/a-b",
                                .device = true,
                                .has_handle = true,
                                .handle_offset = 512 };
    uint8_t bytes[WIRE_SHARE_DEVICE_SIZE];
    struct wire_share out;

    memset(share.handle, 0x5a, sizeof(share.handle));
    assert_int_equal(wire_share_encode(&share, bytes), WIRE_SHARE_DEVICE_SIZE);
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes), &out), STATUS_OK);
    assert_true(out.device && out.has_handle && out.handle_offset == 512);
    assert_memory_equal(out.handle, share.handle, sizeof(share.handle));
    assert_string_equal(out.name, "/a-b");
    /* Who does not know the tail sees memory under a name, as it always did. */
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes) - 1, &out), STATUS_OK);
    assert_false(out.device);
    bytes[140] = 63; /* size of the handle */
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes), &out), STATUS_PROTOCOL);
    bytes[140] = 64;
    memset(bytes + 144, 0xff, 8); /* the offset wraps */
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes), &out), STATUS_PROTOCOL);
    share.has_handle = false;
    assert_int_equal(wire_share_encode(&share, bytes), WIRE_SHARE_DEVICE_SIZE);
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes), &out), STATUS_OK);
    assert_true(out.device && !out.has_handle);
    bytes[136] = 9; /* a kind of a later version: not shared with us */
    assert_int_equal(wire_share_decode(bytes, sizeof(bytes), &out), STATUS_OK);
    assert_true(!out.device && out.name[0] == '\0');
}

static void rails_round_trip_and_refuse(void **state)
{
    (void)state;
    struct wire_rails rails = { .count = WIRE_RAILS_MAX }, out = { .count = 99 };
    uint8_t bytes[WIRE_RAILS_SIZE];

    for (uint32_t i = 0; i < WIRE_RAILS_MAX; i++) {
        snprintf(rails.rails[i].address, WIRE_RAIL_ADDRESS_SIZE, "10.%u.0.1:7", i);
        snprintf(rails.rails[i].interface, WIRE_RAIL_INTERFACE_SIZE, "eth%u", i);
        rails.rails[i].speed_mbps = 1000 * i;
        rails.rails[i].numa_node = (int32_t)i - 1;
        rails.rails[i].rank = (uint8_t)(i % 2);
    }
    wire_rails_encode(&rails, bytes);
    assert_int_equal(wire_rails_decode(bytes, sizeof(bytes), &out), STATUS_OK);
    assert_memory_equal(&out, &rails, sizeof(out));
    assert_memory_equal(bytes,
                        "\x08\0\0\0\0\0\0\0"
                        "10.0.0.1:7",
                        18); /* the layout stays */
    assert_memory_equal(bytes + 8 + 64, "eth0", 4);
    assert_int_equal(bytes[8 + 84], 0xff);
    assert_int_equal(bytes[8 + 96 + 80], 1000 & 0xff);
    assert_int_equal(bytes[8 + 96 + 88], 1);
    out.count = 99;
    assert_int_equal(wire_rails_decode(bytes, sizeof(bytes) - 1, &out), STATUS_PROTOCOL);
    assert_int_equal(wire_rails_decode(bytes, 7, &out), STATUS_PROTOCOL);
    bytes[0] = WIRE_RAILS_MAX + 1;
    assert_int_equal(wire_rails_decode(bytes, sizeof(bytes), &out), STATUS_PROTOCOL);
    bytes[0] = 1;
    bytes[8 + 88] = 2; /* no such rank */
    assert_int_equal(wire_rails_decode(bytes, sizeof(bytes), &out), STATUS_PROTOCOL);
    bytes[8 + 88] = 0;
    bytes[8] = 0; /* no address */
    assert_int_equal(wire_rails_decode(bytes, sizeof(bytes), &out), STATUS_PROTOCOL);
    assert_int_equal(out.count, 99);
}

static void fabrics_and_grants_round_trip_and_refuse(void **state)
{
    (void)state;
    struct wire_fabric fabric = { .provider = "tcp;ofi_rxm", .address_len = 16 }, fabric_out;
    const struct wire_grant grant = {
        .address = 1 << 20, .length = 4096, .flags = 3, .base = 8, .key = 0x0102030405060708
    };
    uint8_t bytes[WIRE_FABRIC_SIZE];
    struct wire_grant out;

    memset(fabric.address, 0xab, 16);
    wire_fabric_encode(&fabric, bytes);
    assert_memory_equal(bytes + 64, "\x10\0\0\0\0\0\0\0\xab", 9); /* the layout stays */
    assert_int_equal(wire_fabric_decode(bytes, sizeof(bytes), &fabric_out), STATUS_OK);
    assert_memory_equal(&fabric_out, &fabric, sizeof(fabric));
    assert_int_equal(wire_fabric_decode(bytes, sizeof(bytes) - 1, &fabric_out), STATUS_PROTOCOL);
    bytes[64] = WIRE_FABRIC_ADDRESS_SIZE + 1;
    assert_int_equal(wire_fabric_decode(bytes, sizeof(bytes), &fabric_out), STATUS_PROTOCOL);
    bytes[64] = 0;
    assert_int_equal(wire_fabric_decode(bytes, sizeof(bytes), &fabric_out), STATUS_PROTOCOL);
    bytes[64] = 1;
    bytes[3] = '\n';
    assert_int_equal(wire_fabric_decode(bytes, sizeof(bytes), &fabric_out), STATUS_PROTOCOL);

    wire_grant_encode(&grant, bytes);
    assert_memory_equal(bytes + 32, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_int_equal(wire_grant_decode(bytes, WIRE_GRANT_SIZE, &out), STATUS_OK);
    assert_true(out.address == grant.address && out.length == 4096 && out.flags == 3 &&
                out.base == 8 && out.key == grant.key);
    assert_int_equal(wire_grant_decode(bytes, WIRE_GRANT_SIZE - 1, &out), STATUS_PROTOCOL);
    memset(bytes + 24, 0xff, 8); /* wraps */
    assert_int_equal(wire_grant_decode(bytes, WIRE_GRANT_SIZE, &out), STATUS_PROTOCOL);
    wire_grant_encode(&grant, bytes);
    memset(bytes + 8, 0, 8); /* empty */
    assert_int_equal(wire_grant_decode(bytes, WIRE_GRANT_SIZE, &out), STATUS_PROTOCOL);
}

static void proofs_differ_by_everything(void **state)
{
    (void)state;
    uint8_t a[WIRE_HELLO_SIZE] = { 1 }, b[WIRE_HELLO_SIZE] = { 2 };
    uint8_t proof[4][WIRE_PROOF_SIZE];

    wire_proof("secret", "target", a, b, proof[0]);
    wire_proof("secret", "initiator", a, b, proof[1]);
    wire_proof("Secret", "target", a, b, proof[2]);
    a[207] = 9;
    wire_proof("secret", "target", a, b, proof[3]);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(proof[i], proof[j], WIRE_PROOF_SIZE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_layout_is_frozen),
        cmocka_unit_test(headers_round_trip),
        cmocka_unit_test(any_flipped_bit_is_damage),
        cmocka_unit_test(fields_out_of_range_are_refused),
        cmocka_unit_test(hello_round_trips_and_refuses),
        cmocka_unit_test(share_round_trips_and_refuses),
        cmocka_unit_test(share_of_a_device_round_trips_and_refuses),
        cmocka_unit_test(rails_round_trip_and_refuse),
        cmocka_unit_test(fabrics_and_grants_round_trip_and_refuse),
        cmocka_unit_test(proofs_differ_by_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
