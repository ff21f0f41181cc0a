/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_text_test.c
 *
 * Goal:   what is shown is exactly the text before the first complete stop string, never a part of
 *         one, always whole code points, however the text is cut into tokens.
 * Method: random texts over a tiny alphabet with random stop strings, cut at random places, against
 *         a naive search over the whole text; after each push the shown text must be valid UTF-8
 * and a beginning of the final one. SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "serve/gateway_text.h"

enum { ROUNDS = 20000, TEXT_MAX = 120 };

/* Letters of one, two, three and four bytes; the second shares its first byte with the third. */
static const char *const LETTERS[] = {
    "a", "b", "\xc3\xa4", "\xc3\xb6", "\xe2\x82\xac", "\xf0\x9f\x98\x80"
};
enum { LETTERS_COUNT = 6 };

static size_t random_text(struct rng *rng, size_t letters_max, char *out)
{
    const size_t letters = 1 + rng_below(rng, letters_max);
    const uint64_t variety = 1 + rng_below(rng, LETTERS_COUNT);
    size_t len = 0;

    for (size_t i = 0; i < letters; i++) {
        const char *letter = LETTERS[rng_below(rng, variety)];
        memcpy(out + len, letter, strlen(letter));
        len += strlen(letter);
    }
    return len;
}

/* The first end at which some stop string is complete; of several the longest. */
static size_t naive_end(const char *text, size_t len, const struct api_text *stops, uint32_t count,
                        bool *stopped)
{
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (stops[i].len > end || stops[i].len < longest) continue;
            if (memcmp(text + end - stops[i].len, stops[i].data, stops[i].len) == 0) {
                longest = stops[i].len;
            }
        }
        *stopped = longest > 0;
        if (*stopped) return end - longest;
    }
    *stopped = false;
    return len;
}

static void test_matches_naive(void **state)
{
    (void)state;
    const char *seed_text = getenv("SEED");
    const uint64_t seed = seed_text ? strtoull(seed_text, NULL, 10) : 1;
    struct rng rng;
    int stopped_count = 0;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    for (int round = 0; round < ROUNDS; round++) {
        char stop_room[3][64], text_room[TEXT_MAX * 4];
        struct api_text stops[3];
        struct gateway_text text;
        struct buf out;
        const uint32_t count = (uint32_t)rng_below(&rng, 4);
        bool want_stopped = false;

        for (uint32_t i = 0; i < count; i++) {
            stops[i] = (struct api_text){ stop_room[i], random_text(&rng, 6, stop_room[i]) };
        }
        const size_t len = random_text(&rng, 60, text_room);
        const size_t want = naive_end(text_room, len, stops, count, &want_stopped);
        gateway_text_init(&text, stops, count);
        buf_init(&out, 4096);
        for (size_t at = 0; at < len && !text.stopped;) {
            const size_t piece = 1 + rng_below(&rng, 5);
            const size_t take = piece < len - at ? piece : len - at;
            assert_int_equal(gateway_text_push(&text, text_room + at, take, &out), STATUS_OK);
            assert_int_equal(utf8_valid_prefix(buf_data(&out), out.len), out.len);
            assert_true(out.len <= want);
            assert_memory_equal(buf_data(&out), text_room, out.len);
            at += take;
        }
        assert_int_equal(text.stopped, want_stopped);
        assert_int_equal(gateway_text_finish(&text, &out), STATUS_OK);
        assert_int_equal(out.len, want);
        assert_memory_equal(buf_data(&out), text_room, want);
        stopped_count += want_stopped;
        buf_fini(&out);
    }
    assert_true(stopped_count > ROUNDS / 10 && stopped_count < ROUNDS * 9 / 10);
}

static void test_invalid_bytes_become_replacements(void **state)
{
    (void)state;
    struct gateway_text text;
    struct buf out;

    buf_init(&out, 64);
    gateway_text_init(&text, NULL, 0);
    assert_int_equal(gateway_text_push(&text, "x\xff\xe2\x82", 4, &out), STATUS_OK);
    assert_int_equal(out.len, 4); /* x and U+FFFD; the euro sign waits */
    assert_int_equal(gateway_text_finish(&text, &out), STATUS_OK);
    assert_int_equal(out.len, 7);
    assert_memory_equal(buf_data(&out), "x\xef\xbf\xbd\xef\xbf\xbd", 7);
    buf_fini(&out);
}

/* Nothing is held longer than needed: each byte that cannot be part of a stop string is out. */
static void test_releases_at_once(void **state)
{
    (void)state;
    const struct api_text stop = { "END", 3 };
    struct gateway_text text;
    struct buf out;

    buf_init(&out, 64);
    gateway_text_init(&text, &stop, 1);
    assert_int_equal(gateway_text_push(&text, "abE", 3, &out), STATUS_OK);
    assert_int_equal(out.len, 2);
    assert_int_equal(gateway_text_push(&text, "E", 1, &out), STATUS_OK);
    assert_int_equal(out.len, 3);
    assert_int_equal(gateway_text_push(&text, "NX", 2, &out), STATUS_OK);
    assert_int_equal(out.len, 6);
    assert_int_equal(gateway_text_push(&text, "ENDmore", 7, &out), STATUS_OK);
    assert_true(text.stopped);
    assert_int_equal(out.len, 6);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_naive),
        cmocka_unit_test(test_invalid_bytes_become_replacements),
        cmocka_unit_test(test_releases_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
