/* SPDX-License-Identifier: Apache-2.0
 *
 * Goal: pieces that are out never overlap and keep what was written to them; when none is out any
 * size fits; what is larger than the area is had, too.
 *
 * Method: pieces of random sizes are taken, filled with a number of their own, and given back in
 * random order, fuller and emptier, as a seed says. */
#include "store/staging.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { AREA = 1 << 20, ALIGN = 4096, STEPS = 20000, LARGE_ONE_IN = 50 };

static uint64_t seed;

struct out {
    uint8_t *piece;
    uint64_t size;
    uint8_t fill;
};

static void fill(struct out *out, uint8_t number)
{
    out->fill = number;
    memset(out->piece, number, 16); /* both ends, and nothing that would cost time */
    memset(out->piece + out->size - 16, number, 16);
}

static void check(const struct out *out)
{
    uint8_t expected[16];
    memset(expected, out->fill, sizeof(expected));
    assert_memory_equal(out->piece, expected, 16);
    assert_memory_equal(out->piece + out->size - 16, expected, 16);
}

static void pieces_do_not_overlap(void **state)
{
    struct staging *staging = staging_create(AREA, ALIGN);
    struct out outs[STAGING_PIECES_MAX];
    uint32_t count = 0;
    uint64_t sum = 0; /* in the area, rounded up */
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int step = 0; step < STEPS; step++) {
        const bool fuller = step / 100 % 2 == 0;
        if (count > 0 && rng_below(&rng, 4) == (fuller ? 0 : rng_below(&rng, 4))) {
            const uint32_t i = (uint32_t)rng_below(&rng, count);
            check(&outs[i]);
            const uint64_t rounded = (outs[i].size + ALIGN - 1) / ALIGN * ALIGN;
            sum -= rounded <= AREA ? rounded : 0;
            staging_give(staging, outs[i].piece);
            outs[i] = outs[--count];
            continue;
        }
        const bool large = rng_below(&rng, LARGE_ONE_IN) == 0;
        struct out *out = &outs[count < STAGING_PIECES_MAX ? count : 0];
        const uint64_t size = large ? AREA + 1 + rng_below(&rng, AREA)
                                    : 16 + rng_below(&rng, AREA >> rng_below(&rng, 8));
        uint8_t *piece = count < STAGING_PIECES_MAX ? staging_take(staging, size) : NULL;
        if (piece == NULL) {
            assert_true(sum > 0 || count == STAGING_PIECES_MAX);
            continue;
        }
        assert_int_equal((uintptr_t)piece % ALIGN, 0);
        *out = (struct out){ .piece = piece, .size = size };
        fill(out, (uint8_t)step);
        sum += large ? 0 : (size + ALIGN - 1) / ALIGN * ALIGN;
        assert_true(sum <= AREA);
        count++;
        for (uint32_t i = 0; i < count; i++)
            check(&outs[i]);
    }
    staging_destroy(staging); /* with what is out */
}

static void an_empty_area_takes_any_size(void **state)
{
    struct staging *staging = staging_create(AREA, ALIGN);
    static const uint64_t sizes[] = { 1, ALIGN, AREA - 1, AREA, AREA + 1, 3 * AREA };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *piece = staging_take(staging, sizes[i]);
        assert_non_null(piece);
        piece[sizes[i] - 1] = 1;
        staging_give(staging, piece);
    }
    uint8_t *all = staging_take(staging, AREA);
    assert_non_null(all);
    assert_null(staging_take(staging, 1));
    staging_give(staging, all);
    assert_ptr_equal(staging_take(staging, 1), all); /* the beginning is used first */
    staging_destroy(staging);
    staging_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(an_empty_area_takes_any_size),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
