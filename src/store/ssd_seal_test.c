/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_seal_test.c
 *
 * Goal:   every byte of what is sealed counts: one that differs is noticed, in whatever region; so
 *         is a part in another place, or of another segment; keys are read as they are meant.
 * Method: a record of a block and one of a value, what is gone, footers and headers are sealed as
 *         the tiers do it; then each byte in turn is flipped, and opening must say no. */
#include "store/ssd_seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "seed.h"
#include "store/proto.h"
#include "store/ssd_format.h"
#include "store/vlog_format.h"

enum { LAYERS = 3, LAYER_SIZE = 1500, SIZE_MAX_PART = 4 * 4096 };

static const char TWO_KEYS[] =
    "# new\n"
    "  000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F # the first\r\n"
    "\n"
    "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

static struct ssd_keys keys;
static struct ssd_seal_info info;
static struct ssd_seal *seal, *other;

static int setup(void **state)
{
    uint8_t salt[SSD_SALT_SIZE] = { 1 };
    (void)state;
    assert_int_equal(ssd_keys_parse(TWO_KEYS, strlen(TWO_KEYS), &keys, NULL), STATUS_OK);
    info = ssd_seal_info_new(&keys, salt);
    assert_int_equal(ssd_seal_create(&keys, &info, &seal), STATUS_OK);
    salt[0] = 2; /* another segment, the same key */
    const struct ssd_seal_info second = ssd_seal_info_new(&keys, salt);
    assert_int_equal(ssd_seal_create(&keys, &second, &other), STATUS_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ssd_seal_destroy(seal);
    ssd_seal_destroy(other);
    return 0;
}

static void fill(uint8_t *out, size_t len)
{
    struct rng rng;
    rng_init(&rng, 7);
    rng_fill(&rng, out, len);
}

/* `opens`: whether a copy of the part, of `size` bytes, is taken for right with this seal. */
static void every_byte_counts(const uint8_t *part, size_t size,
                              bool (*opens)(struct ssd_seal *with, uint8_t *copy))
{
    static uint8_t copy[SIZE_MAX_PART];
    assert_true(size <= sizeof(copy));
    memcpy(copy, part, size);
    assert_true(opens(seal, copy));
    memcpy(copy, part, size);
    assert_false(opens(other, copy));
    for (size_t i = 0; i < size; i++) {
        memcpy(copy, part, size);
        copy[i] ^= (uint8_t)(1u << i % 8);
        assert_false(opens(seal, copy));
    }
}

/* ---- blocks ---- */

static const struct store_layout layout = {
    .pages = 1, .page_size = 8192, .layers = LAYERS, .layer_size = LAYER_SIZE, .block_tokens = 16
};

static bool block_opens(struct ssd_seal *with, uint8_t *record)
{
    uint8_t tags[SSD_SEALED_LAYERS_MAX * SSD_SEAL_TAG_SIZE];
    uint64_t sums[STORE_LAYERS_MAX];
    struct ssd_record got;

    if (ssd_record_open(with, 5, LAYERS, record, tags) != STATUS_OK) return false;
    if (ssd_record_decode(record, &got, sums) != STATUS_OK) return false;
    for (uint32_t i = 0; i < LAYERS; i++) {
        uint8_t *layer = record + SSD_ALIGN + (size_t)i * LAYER_SIZE;
        if (ssd_layer_open(with, 5, i, layer, LAYER_SIZE, tags) != STATUS_OK) return false;
        assert_int_equal(hash_xxh3(layer, LAYER_SIZE), sums[i]);
    }
    return got.slot == 5 && got.layers == LAYERS;
}

static void a_block_is_what_was_sealed(void **state)
{
    static uint8_t record[SSD_ALIGN + LAYERS * LAYER_SIZE], clear[sizeof(record)];
    uint8_t tags[SSD_SEALED_LAYERS_MAX * SSD_SEAL_TAG_SIZE];
    const struct ssd_record head = { .nonce = 9, .slot = 5, .layers = LAYERS };
    uint64_t sums[LAYERS];
    (void)state;

    fill(record + SSD_ALIGN, sizeof(record) - SSD_ALIGN);
    for (uint32_t i = 0; i < LAYERS; i++)
        sums[i] = hash_xxh3(record + SSD_ALIGN + (size_t)i * LAYER_SIZE, LAYER_SIZE);
    ssd_record_encode(&head, sums, record);
    memcpy(clear, record, sizeof(record));
    ssd_record_seal(seal, 5, &layout, record);
    assert_null(memmem(record, sizeof(record), clear + SSD_ALIGN, 16));
    assert_null(memmem(record, sizeof(record), &sums[1], 8));
    every_byte_counts(record, sizeof(record), block_opens);
    assert_int_equal(ssd_record_open(seal, 6, LAYERS, record, tags), STATUS_CORRUPT); /* moved */
}

enum { ENTRIES = 3 };

static bool footer_opens(struct ssd_seal *with, uint8_t *bytes)
{
    const uint64_t size = ssd_footer_size(ENTRIES, false);
    struct ssd_footer got;
    return ssd_seal_footer_open(with, bytes, size, SSD_TRAILER_SIZE) == STATUS_OK &&
           ssd_footer_decode(bytes, size, &got) == STATUS_OK && got.entries == ENTRIES;
}

static void a_footer_is_what_was_sealed(void **state)
{
    static uint8_t bytes[SIZE_MAX_PART];
    struct ssd_entry entries[ENTRIES] = { { .slot = 0 }, { .slot = 1 }, { .slot = 4 } };
    const struct ssd_footer footer = { .nonce = 9, .offset = 4096, .entries = ENTRIES, .used = 7 };
    (void)state;

    fill(entries[1].key.bytes, BLOCK_KEY_SIZE);
    ssd_footer_encode(&footer, entries, bytes);
    ssd_seal_footer(seal, 77, bytes, ssd_footer_size(ENTRIES, false), SSD_TRAILER_SIZE);
    assert_null(memmem(bytes, ssd_footer_size(ENTRIES, false), entries[1].key.bytes, 8));
    every_byte_counts(bytes, ssd_footer_size(ENTRIES, false), footer_opens);
}

/* ---- values ---- */

static const struct store_key value_key = { (const uint8_t *)"a key of a value", 16 };
static struct vlog_meta value_meta;

static bool value_opens(struct ssd_seal *with, uint8_t *record)
{
    struct vlog_head head;
    uint8_t *data = record + (size_t)value_meta.head * VLOG_UNIT;
    return vlog_head_sniff(record, 9, 3) == value_meta.head &&
           vlog_head_open(with, 3, value_meta.head, record) == STATUS_OK &&
           vlog_head_decode(record, value_meta.head, 9, 3, &head) == STATUS_OK &&
           vlog_bytes_open(with, &head.meta, record, data) == STATUS_OK &&
           vlog_bytes_right(&head, data);
}

static void a_value_is_what_was_sealed(void **state)
{
    static uint8_t record[SIZE_MAX_PART], text[5000];
    (void)state;

    fill(text, sizeof(text));
    const uint64_t sum = hash_xxh3(text, sizeof(text));
    value_meta = (struct vlog_meta){ .at = 3,
                                     .head = vlog_head_units(value_key.len, 1),
                                     .size = sizeof(text) };
    value_meta.pages = value_meta.head + vlog_units(sizeof(text));
    vlog_head_encode(&value_meta, 9, value_key, &sum, 1, record);
    memcpy(record + (size_t)value_meta.head * VLOG_UNIT, text, sizeof(text));
    vlog_value_seal(seal, &value_meta, record);
    const size_t size = (size_t)value_meta.pages * VLOG_UNIT;
    assert_null(memmem(record, size, value_key.bytes, value_key.len));
    assert_null(memmem(record, size, text + 4000, 16));
    every_byte_counts(record, size, value_opens);
}

static bool gone_opens(struct ssd_seal *with, uint8_t *record)
{
    const uint8_t *ids;
    uint32_t count;
    return vlog_gone_sniff(record, 9, 3) == 1 && vlog_gone_open(with, 3, 1, record) == STATUS_OK &&
           vlog_gone_decode(record, 1, &ids, &count) == STATUS_OK && count == 2;
}

static void what_is_gone_is_what_was_sealed(void **state)
{
    static uint8_t record[VLOG_UNIT];
    struct block_key ids[2];
    (void)state;

    fill(ids[0].bytes, sizeof(ids));
    vlog_gone_encode(9, 3, ids, 2, record);
    vlog_gone_seal(seal, 3, 1, record);
    assert_null(memmem(record, sizeof(record), ids[1].bytes, BLOCK_KEY_SIZE));
    every_byte_counts(record, sizeof(record), gone_opens);
}

/* ---- headers and keys ---- */

static bool header_opens(struct ssd_seal *with, uint8_t *page)
{
    struct ssd_header got;
    return ssd_header_decode(page, &got) == STATUS_OK && got.sealed &&
           memcmp(&got.seal, &info, sizeof(info)) == 0 &&
           ssd_seal_header_check(with, page) == STATUS_OK;
}

static void a_header_is_what_was_sealed(void **state)
{
    static uint8_t page[SSD_ALIGN];
    const struct ssd_header header = {
        .id = 4, .nonce = 9, .slots = 8, .layout = layout, .sealed = true
    };
    struct vlog_header value_header = { .id = 4, .nonce = 9, .sealed = true };
    (void)state;

    ssd_header_encode(&header, page);
    ssd_seal_header(seal, &info, page, SSD_ALIGN);
    every_byte_counts(page, sizeof(page), header_opens);
    vlog_header_encode(&value_header, page);
    ssd_seal_header(seal, &info, page, VLOG_UNIT);
    assert_int_equal(vlog_header_decode(page, &value_header), STATUS_OK);
    assert_true(value_header.sealed && ssd_seal_header_check(seal, page) == STATUS_OK);
    assert_int_equal(ssd_seal_header_check(other, page), STATUS_CORRUPT);
}

static void keys_are_read_as_they_are_meant(void **state)
{
    struct ssd_keys got;
    struct errmsg err = { "" };
    struct ssd_seal *none = NULL;
    char many[66 * (SSD_KEYS_MAX + 1)];
    (void)state;

    assert_int_equal(keys.count, 2);
    assert_int_equal(keys.list[0].bytes[31], 0x1f);
    assert_int_equal(keys.list[1].bytes[0], 0xf0);
    assert_memory_not_equal(keys.list[0].id, keys.list[1].id, SSD_KEY_ID_SIZE);
    assert_int_equal(ssd_keys_parse("", 0, &got, &err), STATUS_INVALID);
    assert_int_equal(ssd_keys_parse("# no\nabcd\n", 10, &got, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "line 2"));
    assert_null(strstr(err.text, "abcd"));
    for (unsigned i = 0; i <= SSD_KEYS_MAX; i++) {
        memset(many + 65 * i, 'a', 64);
        many[65 * i + 64] = '\n';
    }
    assert_int_equal(ssd_keys_parse(many, 65 * SSD_KEYS_MAX, &got, &err), STATUS_OK);
    assert_int_equal(ssd_keys_parse(many, 65 * (SSD_KEYS_MAX + 1), &got, &err), STATUS_INVALID);
    assert_int_equal(ssd_seal_create(&got, &info, &none), STATUS_NOT_FOUND);
    assert_int_equal(ssd_seal_create(NULL, &info, &none), STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_what_was_sealed),
        cmocka_unit_test(a_footer_is_what_was_sealed),
        cmocka_unit_test(a_value_is_what_was_sealed),
        cmocka_unit_test(what_is_gone_is_what_was_sealed),
        cmocka_unit_test(a_header_is_what_was_sealed),
        cmocka_unit_test(keys_are_read_as_they_are_meant),
    };
    if (!aead_available()) return 77;
    return cmocka_run_group_tests(tests, setup, teardown);
}
