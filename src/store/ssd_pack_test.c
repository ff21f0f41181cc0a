/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_pack_test.c
 *
 * Goal:   what was packed comes back the same, of every length and unit; what is not worth it is
 *         said to be so, and costs a sample; and whatever is done to a pack, nothing but the bytes
 *         that went in ever comes out of it, in no more memory than they take.
 * Method: numbers as KVCache has them, text, zeros and noise, of lengths around every border; every
 *         bit of a pack is flipped, every prefix of it is tried, and packs are made by hand that
 *         are right but for what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/le.h"
#include "base/rng.h"
#include "store/ssd_pack.h"
#include "seed.h"

enum { LEN_MAX = 300 << 10 };

enum content { NUMBERS, TEXT, ZEROS, NOISE, CONTENTS };

/* F16 numbers whose exponents differ little. */
static void fill(struct rng *rng, enum content content, uint8_t *out, size_t len)
{
    rng_fill(rng, out, len);
    for (size_t i = 0; i < len && content != NOISE; i++) {
        if (content == TEXT) out[i] = (uint8_t)('a' + out[i] % 8);
        if (content == ZEROS) out[i] = 0;
        if (content == NUMBERS && i % 2 == 1) out[i] = (uint8_t)(0x34 + out[i] % 8);
    }
}

static struct ssd_packer *packer_new(void)
{
    struct ssd_packer *packer;
    assert_int_equal(ssd_packer_create(LEN_MAX, &packer), STATUS_OK);
    return packer;
}

static void all_comes_back(void **state)
{
    static uint8_t in[LEN_MAX], out[LEN_MAX], back[LEN_MAX];
    static const uint32_t units[] = { 0, 1, 2, 3, 34, SSD_PACK_UNIT_MAX };
    struct ssd_packer *packer = packer_new();
    struct rng rng;
    unsigned packed = 0;
    (void)state;

    rng_init(&rng, test_seed());
    for (unsigned i = 0; i < 600; i++) {
        const enum content content = (enum content)(i % CONTENTS);
        const struct ssd_packing how = { .level = 1 + i % 4, .unit = units[i / CONTENTS % 6] };
        const size_t most = i % 3 == 0 ? 200 : i % 3 == 1 ? 30000 : LEN_MAX;
        const size_t len = 1 + rng_below(&rng, most);
        fill(&rng, content, in, len);
        memset(out, 0x5a, sizeof(out));
        const size_t size = ssd_pack(packer, &how, in, len, out, len);
        if (size == 0) {
            assert_true(out[0] == 0x5a && out[len - 1] == 0x5a);
            assert_true(content != ZEROS || len < 2000);
            continue;
        }
        packed++;
        assert_true(content != NOISE || len < 100);
        assert_true(size <= len - len / SSD_PACK_GAIN && out[size] == 0x5a);
        assert_int_equal(ssd_pack_size(out, size), size);
        assert_int_equal(ssd_unpack(packer, out, size, back, len), STATUS_OK);
        assert_memory_equal(back, in, len);
        assert_int_equal(ssd_unpack(packer, out, size, out, len), STATUS_OK); /* in place */
        assert_memory_equal(out, in, len);
        assert_int_equal(ssd_pack(packer, &how, in, len, in, len), size);
        assert_int_equal(ssd_unpack(packer, in, size, in, len), STATUS_OK);
        assert_memory_equal(out, in, len);
    }
    assert_true(packed > 200);
    ssd_packer_destroy(packer);
}

/* Of numbers, the unit matters, and the sample finds it; noise is not worth a frame. */
static void separated_bytes_are_smaller(void **state)
{
    static uint8_t in[LEN_MAX], out[LEN_MAX];
    struct ssd_packer *packer = packer_new();
    struct rng rng;
    size_t size[3];
    (void)state;

    rng_init(&rng, 7);
    fill(&rng, NUMBERS, in, LEN_MAX);
    for (uint32_t unit = 0; unit < 3; unit++) {
        const struct ssd_packing how = { .level = 1, .unit = unit };
        size[unit] = ssd_pack(packer, &how, in, LEN_MAX, out, LEN_MAX);
    }
    assert_true(size[2] > 0 && size[2] < LEN_MAX * 3 / 4);
    assert_true(size[0] > 0 && size[0] < size[2] + size[2] / 50);
    assert_true(size[1] == 0 || size[1] > size[2]);
    const struct ssd_packing how = { .level = 1, .unit = 2 };
    assert_int_equal(ssd_pack(packer, &how, in, LEN_MAX, out, size[2] + 4096), size[2]);
    assert_int_equal(ssd_pack(packer, &how, in, LEN_MAX, out, size[2] - 1), 0);
    assert_int_equal(ssd_pack(packer, &how, in, LEN_MAX, out, SSD_PACK_HEADER_SIZE), 0);
    ssd_packer_destroy(packer);
}

static void sum_again(uint8_t *pack, size_t size)
{
    le_put64(pack, hash_xxh3(pack + 8, size - 8));
}

/* Nothing but what went in comes out; `sums`: the checksum of the pack is made right before. */
static void refused_or_right(struct ssd_packer *packer, uint8_t *pack, size_t size, bool sums,
                             const uint8_t *in, size_t len)
{
    static uint8_t back[LEN_MAX];
    memset(back, 0x5a, len + 1);
    if (sums && size > 8) sum_again(pack, size);
    if (ssd_unpack(packer, pack, size, back, len) == STATUS_OK) {
        assert_true(sums || memcmp(back, in, len) == 0);
    } else {
        assert_true(back[0] == 0x5a && back[len - 1] == 0x5a);
    }
    assert_true(back[len] == 0x5a);
}

static void a_damaged_pack_is_refused(void **state)
{
    enum { LEN = 3000 };
    static uint8_t in[LEN], pack[LEN], bad[LEN];
    struct ssd_packer *packer = packer_new();
    const struct ssd_packing how = { .level = 1, .unit = 2 };
    struct rng rng;
    (void)state;

    rng_init(&rng, 9);
    fill(&rng, NUMBERS, in, LEN);
    const size_t size = ssd_pack(packer, &how, in, LEN, pack, LEN);
    assert_true(size > SSD_PACK_HEADER_SIZE);
    for (int sums = 0; sums < 2; sums++) {
        for (size_t bit = 0; bit < size * 8; bit++) {
            memcpy(bad, pack, size);
            bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (sums == 0) assert_int_equal(ssd_unpack(packer, bad, size, in, LEN), STATUS_CORRUPT);
            refused_or_right(packer, bad, size, sums == 1, in, LEN);
        }
        for (size_t cut = 0; cut < size; cut++) {
            memcpy(bad, pack, size);
            le_put32(bad + 16,
                     cut > SSD_PACK_HEADER_SIZE ? (uint32_t)(cut - SSD_PACK_HEADER_SIZE) : 0);
            refused_or_right(packer, bad, cut, sums == 1, in, LEN);
        }
    }
    ssd_packer_destroy(packer);
}

/* Right in all but what it says it is of: a frame of more, of less, two frames, an older format. */
static void a_pack_of_something_else_is_refused(void **state)
{
    static uint8_t in[LEN_MAX], pack[LEN_MAX], back[LEN_MAX];
    struct ssd_packer *packer = packer_new();
    const struct ssd_packing how = { .level = 1, .unit = 1 };
    (void)state;

    const size_t size = ssd_pack(packer, &how, in, 200000, pack, 200000); /* of zeros */
    assert_true(size > 0 && size < 200);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 199999), STATUS_CORRUPT);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 200001), STATUS_CORRUPT);
    le_put32(pack + 8, 1000); /* a bomb: its frame says otherwise */
    sum_again(pack, size);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 1000), STATUS_CORRUPT);
    le_put32(pack + 8, 200000);
    le_put32(pack + 12, 2); /* of two planes there is one */
    sum_again(pack, size);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 200000), STATUS_CORRUPT);
    le_put32(pack + 12, 1);
    sum_again(pack, size);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 200000), STATUS_OK);
    const size_t frame = size - SSD_PACK_HEADER_SIZE;
    memcpy(pack + size, pack + SSD_PACK_HEADER_SIZE, frame);
    le_put32(pack + 16, (uint32_t)(2 * frame));
    sum_again(pack, size + frame);
    assert_int_equal(ssd_unpack(packer, pack, size + frame, back, 200000), STATUS_CORRUPT);
    le_put32(pack + 16, (uint32_t)frame);
    pack[SSD_PACK_HEADER_SIZE] = 0x27; /* zstd 0.7 */
    sum_again(pack, size);
    assert_int_equal(ssd_unpack(packer, pack, size, back, 200000), STATUS_CORRUPT);
    ssd_packer_destroy(packer);
}

static void what_is_asked_for_is_read(void **state)
{
    static const char *const bad[] = { "",       "on",      "zstd:",   "zstd:0",  "zstd:20",
                                       "zstd:x", "zstd:1x", "zstd:-1", "zstd:01", "zstd:4294967297",
                                       "lz4",    "zstdx",   "offf" };
    struct ssd_packing how = { .level = 7, .unit = 7 };
    struct errmsg err;
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ssd_packing_parse(bad[i], &how, &err), STATUS_INVALID);
        assert_int_equal(how.level, 7);
    }
    assert_int_equal(ssd_packing_parse("off", &how, &err), STATUS_OK);
    assert_int_equal(how.level, 0);
    assert_int_equal(ssd_packing_parse("zstd", &how, &err), STATUS_OK);
    assert_int_equal(how.level, 1);
    assert_int_equal(ssd_packing_parse("zstd:19", &how, &err), STATUS_OK);
    assert_int_equal(how.level, 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_comes_back),
        cmocka_unit_test(separated_bytes_are_smaller),
        cmocka_unit_test(a_damaged_pack_is_refused),
        cmocka_unit_test(a_pack_of_something_else_is_refused),
        cmocka_unit_test(what_is_asked_for_is_read),
    };
    if (!ssd_pack_available()) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
