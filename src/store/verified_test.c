/* SPDX-License-Identifier: Apache-2.0
 *
 * store/verified_test.c
 *
 * Goal:   a piece is believed only if it, and nothing like it, was hashed a short time ago; and
 *         what was hashed is mostly remembered.
 * Method: a random walk beside a plain list of all that was ever added, over pieces that differ in
 *         little. */
#include "store/verified.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { KINDS = 3, PIECES = KINDS * KINDS * KINDS * KINDS * KINDS, STEPS = 60000 };

static uint64_t seed;

/* Piece i of all that have one of a few values in each field. */
static struct verified_piece piece_at(uint32_t i)
{
    const uint32_t field[] = { i % KINDS, i / KINDS % KINDS, i / 9 % KINDS, i / 27 % KINDS,
                               i / 81 };
    return (struct verified_piece){ .owner = 7 + field[0],
                                    .generation = 1 + field[1],
                                    .address = field[2] << 16,
                                    .sum = UINT64_C(0x1234567890) + field[3],
                                    .len = 1 + (field[4] << 15) };
}

struct model {
    bool added;
    uint64_t at_ns;
};

static void only_what_was_hashed_lately_is_believed(void **state)
{
    static struct model model[PIECES];
    struct verified *verified;
    uint64_t now_ns = 1;
    uint32_t believed = 0, known = 0;
    struct rng rng;
    (void)state;

    rng_init(&rng, seed);
    assert_int_equal(verified_create(&verified), STATUS_OK);
    for (uint32_t i = 0; i < PIECES; i++) {
        const struct verified_piece piece = piece_at(i);
        assert_false(verified_has(verified, &piece, now_ns));
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t i = (uint32_t)rng_below(&rng, PIECES);
        const struct verified_piece piece = piece_at(i);
        now_ns += rng_below(&rng, VERIFIED_TRUST_NS / 100);
        if (rng_below(&rng, 4) == 0) {
            verified_add(verified, &piece, now_ns);
            model[i] = (struct model){ true, now_ns };
            assert_true(verified_has(verified, &piece, now_ns));
            continue;
        }
        const bool may = model[i].added && now_ns - model[i].at_ns < VERIFIED_TRUST_NS;
        const bool has = verified_has(verified, &piece, now_ns);
        if (has && !may) fail_msg("SEED=%llu step %u", (unsigned long long)seed, step);
        believed += has;
        known += may;
    }
    assert_true(known > 0 && believed > known / 2); /* those that differ in sum or length alone
                                                        share a set, and push each other out */
    verified_destroy(verified);
}

static void as_much_as_is_promised_is_remembered(void **state)
{
    struct verified *verified;
    struct verified_piece piece = { .owner = 1, .generation = 1, .len = 65536 };
    uint32_t believed = 0;
    const uint32_t count = VERIFIED_PIECES / 2;
    (void)state;

    assert_int_equal(verified_create(&verified), STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        piece.address = (uint64_t)i << 16;
        verified_add(verified, &piece, 5);
    }
    for (uint32_t i = 0; i < count; i++) {
        piece.address = (uint64_t)i << 16;
        believed += verified_has(verified, &piece, 5);
    }
    assert_true(believed > count / 10 * 9);
    verified_destroy(verified);
}

static void the_one_used_last_stays(void **state)
{
    struct verified *verified;
    struct verified_piece used = { .owner = 1, .generation = 1, .len = 1 };
    struct verified_piece other = used; /* of the same set */
    (void)state;

    assert_int_equal(verified_create(&verified), STATUS_OK);
    verified_add(verified, &used, 5);
    for (other.sum = 1; other.sum < 3 * VERIFIED_WAYS; other.sum++) {
        verified_add(verified, &other, 5);
        assert_true(verified_has(verified, &used, 5));
    }
    for (; other.sum < 4 * VERIFIED_WAYS; other.sum++)
        verified_add(verified, &other, 5);
    assert_false(verified_has(verified, &used, 5));
    verified_destroy(verified);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_was_hashed_lately_is_believed),
        cmocka_unit_test(as_much_as_is_promised_is_remembered),
        cmocka_unit_test(the_one_used_last_stays),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
