/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_test.c
 *
 * Goal:   the hashes are the published ones, whole or in pieces, from any thread.
 * Method: vectors of FIPS 180-2, RFC 4231 and RFC 5869, and xxHash's own answers for XXH3, from
 *         every way this CPU has of computing it: any length and alignment, copying or not. */
#include "base/hash.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash_wide.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static void expect_hex(const uint8_t digest[HASH_SHA256_SIZE], const char *hex)
{
    char text[HASH_SHA256_HEX_SIZE];
    hash_sha256_hex(digest, text);
    assert_string_equal(text, hex);
}

static const char abc_hex[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char empty_hex[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static void sha256_matches_vectors(void **state)
{
    (void)state;
    uint8_t digest[HASH_SHA256_SIZE];

    hash_sha256("abc", 3, digest);
    expect_hex(digest, abc_hex);
    hash_sha256(NULL, 0, digest);
    expect_hex(digest, empty_hex);
}

static void sha256_in_pieces_is_the_same(void **state)
{
    (void)state;
    uint8_t digest[HASH_SHA256_SIZE];
    struct hash_stream *stream = hash_sha256_create();

    for (int round = 0; round < 3; round++) { /* final starts over */
        hash_sha256_update(stream, "a", 1);
        hash_sha256_update(stream, "", 0);
        hash_sha256_update(stream, "bc", 2);
        hash_sha256_final(stream, digest);
        expect_hex(digest, abc_hex);
    }
    hash_sha256_final(stream, digest);
    expect_hex(digest, empty_hex);
    hash_sha256_destroy(stream);
    hash_sha256_destroy(NULL);
}

/* The short way of some CPUs and the library's, on both sides of where they part. */
static void sha256_of_every_length_is_the_same(void **state)
{
    (void)state;
    uint8_t bytes[80];
    uint8_t digest[HASH_SHA256_SIZE];
    uint8_t other[HASH_SHA256_SIZE];
    struct hash_stream *stream = hash_sha256_create();

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 73 + 128);
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        hash_sha256(bytes, len, digest);
        hash_sha256_update(stream, bytes, len);
        hash_sha256_final(stream, other);
        assert_memory_equal(digest, other, sizeof(digest));
    }
    hash_sha256_destroy(stream);
}

static void hmac_matches_rfc4231(void **state)
{
    (void)state;
    uint8_t digest[HASH_SHA256_SIZE];
    uint8_t key[20];

    memset(key, 0x0b, sizeof(key));
    hash_hmac_sha256(key, sizeof(key), "Hi There", 8, digest);
    expect_hex(digest, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hash_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, digest);
    expect_hex(digest, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    hash_hmac_sha256(NULL, 0, NULL, 0, digest);
    expect_hex(digest, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void hkdf_matches_rfc5869(void **state)
{
    (void)state;
    static const uint8_t expected[42] = {
        0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f, 0x64, 0xd0, 0x36,
        0x2f, 0x2a, 0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a, 0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56,
        0xec, 0xc4, 0xc5, 0xbf, 0x34, 0x00, 0x72, 0x08, 0xd5, 0xb8, 0x87, 0x18, 0x58, 0x65,
    };
    static const uint8_t without[42] = {
        0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f, 0x71, 0x5f, 0x80, 0x2a, 0x06, 0x3c,
        0x5a, 0x31, 0xb8, 0xa1, 0x1f, 0x5c, 0x5e, 0xe1, 0x87, 0x9e, 0xc3, 0x45, 0x4e, 0x5f,
        0x3c, 0x73, 0x8d, 0x2d, 0x9d, 0x20, 0x13, 0x95, 0xfa, 0xa4, 0xb6, 0x1a, 0x96, 0xc8,
    };
    uint8_t key[22], salt[13], info[10], out[42];

    memset(key, 0x0b, sizeof(key));
    for (uint8_t i = 0; i < sizeof(salt); i++)
        salt[i] = i;
    for (uint8_t i = 0; i < sizeof(info); i++)
        info[i] = (uint8_t)(0xf0 + i);
    hash_hkdf_sha256(salt, sizeof(salt), key, sizeof(key), info, sizeof(info), out, sizeof(out));
    assert_memory_equal(out, expected, sizeof(out)); /* case 1 */
    hash_hkdf_sha256(NULL, 0, key, sizeof(key), NULL, 0, out, sizeof(out));
    assert_memory_equal(out, without, sizeof(out)); /* case 3 */
}

static void xxh3_matches_published_values(void **state)
{
    (void)state;
    assert_true(hash_xxh3(NULL, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash_xxh3("", 0) == hash_xxh3(NULL, 0));
    assert_true(hash_xxh3("a", 1) == UINT64_C(0xe6c632b61e964e1f));
    assert_true(hash_xxh3("abc", 3) == UINT64_C(0x78af5f94892f3950));
}

static void xxh3_sees_every_flipped_bit(void **state)
{
    (void)state;
    uint8_t data[517] = { 1, 2, 3 };
    const uint64_t whole = hash_xxh3(data, sizeof(data));

    for (size_t bit = 0; bit < 8 * sizeof(data); bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(hash_xxh3(data, sizeof(data)) != whole);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

enum { COPY_MAX = (64 << 10) + 1100, MARGIN = 64 };

/* Copies as `copy` does, between memory that is `shift` bytes off a multiple of 64. */
static void copy_is_right(uint64_t (*copy)(void *, const void *, size_t), size_t len, size_t shift)
{
    static uint8_t from[COPY_MAX + MARGIN] __attribute__((aligned(64)));
    static uint8_t room[COPY_MAX + 3 * MARGIN] __attribute__((aligned(64)));
    uint8_t *to = room + MARGIN + shift % 64;
    static const uint8_t untouched[MARGIN] = { 0 };

    if (from[1] == 0) {
        for (size_t i = 0; i < sizeof(from); i++)
            from[i] = (uint8_t)(i * i % 251 + i / 1000 + 1);
    }
    memset(to - MARGIN, 0, len + 2 * MARGIN);
    const uint8_t *source = from + shift / 64 % 64;
    assert_true(copy(to, source, len) == XXH3_64bits(source, len));
    assert_memory_equal(to, source, len);
    assert_memory_equal(to - MARGIN, untouched, MARGIN);
    assert_memory_equal(to + len, untouched, MARGIN);
}

static uint64_t copy_and_sum(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return hash_xxh3(from, len);
}

static const struct hash_wide *under_test;

static uint64_t copy_and_wide_sum(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    return under_test->sum(from, len);
}

static void copies_are_right(uint64_t (*copy)(void *, const void *, size_t), size_t len_min)
{
    for (size_t len = len_min; len < 2 * 1024 + 130; len++)
        copy_is_right(copy, len, len * 37);
    for (size_t shift = 0; shift < 64; shift++)
        copy_is_right(copy, COPY_MAX - 17 * shift, shift * 65);
    copy_is_right(copy, 64 << 10, 0);
    copy_is_right(copy, 64 << 10, 5);
}

static void wide_is_right(const struct hash_wide *wide)
{
    under_test = wide;
    copies_are_right(copy_and_wide_sum, HASH_WIDE_MIN);
    copies_are_right(wide->copy, HASH_WIDE_MIN);
    copies_are_right(wide->stream, HASH_WIDE_MIN);
}

static void every_way_of_xxh3_is_the_same(void **state)
{
    (void)state;
    copies_are_right(copy_and_sum, 0);
    copies_are_right(hash_xxh3_copy, 0);
    copies_are_right(hash_xxh3_stream, 0);
#if defined(__x86_64__)
    if (hash_wide_avx2_usable()) wide_is_right(&hash_wide_avx2);
    if (hash_wide_avx512_usable()) wide_is_right(&hash_wide_avx512);
#endif
}

static void secrets_compare_by_content(void **state)
{
    (void)state;
    assert_true(hash_equal_secret("abcd", "abcd", 4));
    assert_false(hash_equal_secret("abcd", "abce", 4));
    assert_false(hash_equal_secret("xbcd", "abcd", 4));
    assert_true(hash_equal_secret("xbcd", "abcd", 0));
}

static void *digest_on_thread(void *out)
{
    for (int i = 0; i < 100; i++)
        hash_sha256("abc", 3, out);
    return NULL;
}

static void threads_do_not_share_state(void **state)
{
    (void)state;
    pthread_t threads[4];
    uint8_t digests[4][HASH_SHA256_SIZE];

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, digest_on_thread, digests[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        expect_hex(digests[i], abc_hex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_matches_vectors),
        cmocka_unit_test(sha256_in_pieces_is_the_same),
        cmocka_unit_test(sha256_of_every_length_is_the_same),
        cmocka_unit_test(hmac_matches_rfc4231),
        cmocka_unit_test(hkdf_matches_rfc5869),
        cmocka_unit_test(xxh3_matches_published_values),
        cmocka_unit_test(xxh3_sees_every_flipped_bit),
        cmocka_unit_test(every_way_of_xxh3_is_the_same),
        cmocka_unit_test(secrets_compare_by_content),
        cmocka_unit_test(threads_do_not_share_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
