/* SPDX-License-Identifier: Apache-2.0
 *
 * store/tombs_test.c
 *
 * Goal:   what was said last of a key is never lowered while it is remembered; the newest keys are.
 * Method: random raises beside an array. */
#include "store/tombs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { ALIKE = 1000, KEYS = 20000, RAISES = 60000, STRANGERS = 1000000 };

static struct block_key key_of(uint64_t n)
{
    struct block_key key;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t word = rng_counter(n, i);
        memcpy(key.bytes + 8 * i, &word, sizeof(word));
    }
    return key;
}

static void expect_floor(const struct tombs *tombs, unsigned n, struct rank want)
{
    const struct block_key key = key_of(n);
    const struct rank floor = tombs_floor(tombs, &key);
    assert_int_equal(floor.term, want.term);
    assert_int_equal(floor.version, want.version);
}

static void floors_only_rise(void **state)
{
    static struct rank want[KEYS];
    struct tombs tombs = { 0 };
    struct rng rng;
    (void)state;

    rng_init(&rng, test_seed());
    for (unsigned i = 0; i < RAISES; i++) {
        const unsigned n = (unsigned)rng_below(&rng, KEYS);
        const struct rank rank = { rng_below(&rng, 3) * 70, (uint32_t)rng_below(&rng, 10) };
        const struct block_key key = key_of(n);
        tombs_raise(&tombs, &key, rank);
        const bool any = rank.term != 0 || rank.version != 0;
        if (any && rank_compare(rank, want[n]) >= 0) want[n] = rank;
        expect_floor(&tombs, n, want[n]);
    }
    for (unsigned n = 0; n < KEYS; n++)
        expect_floor(&tombs, n, want[n]);
    tombs_fini(&tombs);
}

/* The term of one too many is not known, and its version is. */
static void so_many_terms_are_known(void **state)
{
    struct tombs tombs = { 0 };
    (void)state;

    for (unsigned n = 0; n <= TOMBS_TERMS_MAX; n++) {
        const struct block_key key = key_of(n);
        tombs_raise(&tombs, &key, (struct rank){ 1000 + n, n + 1 });
    }
    for (unsigned n = 0; n <= TOMBS_TERMS_MAX; n++)
        expect_floor(&tombs, n, (struct rank){ n < TOMBS_TERMS_MAX ? 1000 + n : 0, n + 1 });
    tombs_fini(&tombs);
}

/* Keys of 16 bytes are their own identities, and alike. */
static void keys_alike_are_told_apart(void **state)
{
    struct tombs tombs = { 0 };
    char text[BLOCK_KEY_SIZE + 1];
    struct block_key key;
    (void)state;

    for (unsigned n = 0; n < ALIKE; n++) {
        snprintf(text, sizeof(text), "a key of %07u", n);
        memcpy(key.bytes, text, sizeof(key.bytes));
        tombs_raise(&tombs, &key, (struct rank){ 3, n + 1 });
    }
    for (unsigned n = 0; n < ALIKE; n++) {
        snprintf(text, sizeof(text), "a key of %07u", n);
        memcpy(key.bytes, text, sizeof(key.bytes));
        assert_int_equal(tombs_floor(&tombs, &key).version, n + 1);
    }
    tombs_fini(&tombs);
}

static void the_newest_are_remembered(void **state)
{
    struct tombs tombs = { 0 };
    unsigned known = 0;
    (void)state;

    for (unsigned n = 0; n < STRANGERS; n++) {
        const struct block_key key = key_of(n);
        tombs_raise(&tombs, &key, (struct rank){ 3, 7 });
    }
    for (unsigned n = STRANGERS - TOMBS_KEYS_MAX / 4; n < STRANGERS; n++) {
        const struct block_key key = key_of(n);
        known += tombs_floor(&tombs, &key).version == 7;
    }
    assert_true(known > TOMBS_KEYS_MAX / 4 / 1000 * 995);
    const struct block_key never = key_of(UINT64_MAX);
    assert_int_equal(tombs_floor(&tombs, &never).version, 0);
    tombs_fini(&tombs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floors_only_rise),
        cmocka_unit_test(so_many_terms_are_known),
        cmocka_unit_test(keys_alike_are_told_apart),
        cmocka_unit_test(the_newest_are_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
