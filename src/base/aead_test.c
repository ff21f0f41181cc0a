/* SPDX-License-Identifier: Apache-2.0
 *
 * base/aead_test.c
 *
 * Goal:   the ciphers are the published ones, in one part or many, and what was changed anywhere
 *         does not open.
 * Method: test case 16 of the GCM submission (NIST), section 2.8.2 of RFC 8439; then every bit of a
 *         sealed text, its tag, its aad and its nonce is flipped in turn. Exits 77 where the
 *         library is not installed. */
#include "base/aead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TEXT_MAX = 256 };

struct vector {
    enum aead_cipher cipher;
    const char *key, *nonce, *aad, *text, *sealed, *tag; /* hexadecimal */
};

static const struct vector vectors[] = {
    { AEAD_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
      "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449"
      "a6b525b16aedf5aa0de657ba637b39",
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056"
      "828838c5f61e6393ba7a0abcc9f662",
      "76fc6ece0f4e1768cddf8853bb2d551b" },
    { AEAD_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
      "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
      "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620"
      "4920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c"
      "2073756e73637265656e20776f756c642062652069742e",
      "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da"
      "92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585"
      "808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
      "1ae10b594f09e26a7e902ecbd0600691" },
};

enum { VECTORS = sizeof(vectors) / sizeof(vectors[0]) };

static size_t from_hex(const char *hex, uint8_t *out)
{
    const size_t len = strlen(hex) / 2;

    assert_true(len <= TEXT_MAX);
    for (size_t i = 0; i < len; i++) {
        const char byte[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
        out[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return len;
}

struct sealed {
    struct aead *aead;
    uint8_t nonce[AEAD_NONCE_SIZE], tag[AEAD_TAG_SIZE];
    uint8_t aad[TEXT_MAX], text[TEXT_MAX], bytes[TEXT_MAX];
    size_t aad_len, len;
};

static void sealed_make(const struct vector *vector, struct sealed *out)
{
    uint8_t key[TEXT_MAX], nonce[TEXT_MAX], tag[TEXT_MAX];

    assert_int_equal(from_hex(vector->key, key), AEAD_KEY_SIZE);
    assert_int_equal(from_hex(vector->nonce, nonce), AEAD_NONCE_SIZE);
    assert_int_equal(from_hex(vector->tag, tag), AEAD_TAG_SIZE);
    memcpy(out->nonce, nonce, sizeof(out->nonce));
    memcpy(out->tag, tag, sizeof(out->tag));
    out->aad_len = from_hex(vector->aad, out->aad);
    out->len = from_hex(vector->text, out->text);
    assert_int_equal(from_hex(vector->sealed, out->bytes), out->len);
    assert_int_equal(aead_create(vector->cipher, key, &out->aead), STATUS_OK);
}

static enum status open_it(const struct sealed *s, uint8_t *out)
{
    return aead_open(s->aead, s->nonce, s->aad, s->aad_len, s->bytes, s->len, s->tag, out);
}

static void vectors_match_in_any_parts(void **state)
{
    (void)state;
    for (int i = 0; i < VECTORS; i++) {
        struct sealed s;
        sealed_make(&vectors[i], &s);
        for (size_t cut = 0; cut <= s.len; cut++) {
            uint8_t out[TEXT_MAX], tag[AEAD_TAG_SIZE];
            const struct iovec parts[3] = { { s.text, cut / 2 },
                                            { s.text + cut / 2, cut - cut / 2 },
                                            { s.text + cut, s.len - cut } };
            aead_seal(s.aead, s.nonce, s.aad, s.aad_len, parts, 3, out, tag);
            assert_memory_equal(out, s.bytes, s.len);
            assert_memory_equal(tag, s.tag, sizeof(tag));
            /* Opened by the same object, and in place. */
            assert_int_equal(open_it(&s, out), STATUS_OK);
            assert_memory_equal(out, s.text, s.len);
        }
        aead_destroy(s.aead);
    }
}

static void refuses_each_bit_of(struct sealed *s, uint8_t *bytes, size_t len)
{
    uint8_t out[TEXT_MAX];
    static const uint8_t zeros[TEXT_MAX];

    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(open_it(s, out), STATUS_CORRUPT);
        assert_memory_equal(out, zeros, s->len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void a_flipped_bit_anywhere_is_found(void **state)
{
    (void)state;
    for (int i = 0; i < VECTORS; i++) {
        struct sealed s;
        uint8_t out[TEXT_MAX];
        sealed_make(&vectors[i], &s);
        refuses_each_bit_of(&s, s.bytes, s.len);
        refuses_each_bit_of(&s, s.tag, sizeof(s.tag));
        refuses_each_bit_of(&s, s.aad, s.aad_len);
        refuses_each_bit_of(&s, s.nonce, sizeof(s.nonce));
        assert_int_equal(open_it(&s, out), STATUS_OK); /* and what was not changed still opens */
        aead_destroy(s.aead);
    }
}

static void another_key_opens_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < VECTORS; i++) {
        struct sealed s;
        uint8_t out[TEXT_MAX], key[TEXT_MAX];
        sealed_make(&vectors[i], &s);
        from_hex(vectors[i].key, key);
        key[31] ^= 1;
        aead_set_key(s.aead, key);
        assert_int_equal(open_it(&s, out), STATUS_CORRUPT);
        key[31] ^= 1;
        aead_set_key(s.aead, key);
        assert_int_equal(open_it(&s, out), STATUS_OK);
        aead_destroy(s.aead);
    }
}

int main(void)
{
    if (!aead_available()) {
        printf("skipped: libcrypto.so.3 is not installed\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_match_in_any_parts),
        cmocka_unit_test(a_flipped_bit_anywhere_is_found),
        cmocka_unit_test(another_key_opens_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
