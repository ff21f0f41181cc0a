/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/seen_test.c
 *
 * Goal:   a prompt that came before is found as far as it goes, in the shape it came in, and a text
 *         is known although it became other tokens.
 * Method: random prompts that share beginnings, in several shapes, against lists of all prompts;
 *         few enough that nothing is forgotten. Then more than fit: nothing may be found that never
 *         was. SEED repeats a run. */
#include "conductor/seen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

enum { PROMPTS = 60, BLOCKS = 300, BLOCK_TOKENS = 4 };

struct made {
    uint32_t blocks;
    uint64_t prefixes[BLOCKS];
    struct yolk_prompt prompt;
};

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 31;
    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Block i of tree `branch`: branches part at multiples of 50 blocks. */
static void make(struct made *made, struct rng *rng)
{
    const uint32_t branch = (uint32_t)rng_below(rng, 4), fork = 50 * (uint32_t)rng_below(rng, 4);
    uint64_t prefix = YOLK_PREFIX_ROOT;

    made->blocks = 1 + (uint32_t)rng_below(rng, BLOCKS);
    for (uint32_t i = 0; i < made->blocks; i++) {
        uint32_t tokens[BLOCK_TOKENS];
        for (uint32_t t = 0; t < BLOCK_TOKENS; t++)
            tokens[t] = i * BLOCK_TOKENS + t + (i >= fork ? 100000 * (branch + 4 * fork) : 0);
        prefix = yolk_prefix_next(prefix, tokens, BLOCK_TOKENS);
        made->prefixes[i] = prefix;
    }
    made->prompt = (struct yolk_prompt){ .prefixes = made->prefixes,
                                         .layout = rng_below(rng, 2),
                                         .salt = rng_below(rng, 3) };
}

/* Leading blocks that two prompts share, whatever their shape. */
static uint32_t shared(const struct made *a, const struct made *b)
{
    uint32_t n = 0;

    while (n < a->blocks && n < b->blocks && a->prefixes[n] == b->prefixes[n])
        n++;
    return n;
}

static bool same_shape(const struct made *a, const struct made *b)
{
    return a->prompt.layout == b->prompt.layout && a->prompt.salt == b->prompt.salt;
}

/* What is remembered of n shared blocks: the last point of the grid, or the end of the other. */
static uint32_t remembered(const struct made *other, uint32_t n)
{
    if (n <= SEEN_DENSE || n == other->blocks) return n;
    return n / SEEN_STRIDE * SEEN_STRIDE;
}

static void check(const struct seen *seen, const struct made *made, const struct made *all,
                  uint32_t count)
{
    const uint32_t from = made->blocks / 7;
    uint32_t same = from, other = from;
    enum yolk_miss why = YOLK_MISS_NEVER_SEEN;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t n = remembered(&all[i], shared(made, &all[i]));
        uint32_t *best = same_shape(made, &all[i]) ? &same : &other;
        if (n > *best) *best = n;
    }
    assert_int_equal(seen_same(seen, &made->prompt, from, made->blocks), same);
    assert_int_equal(seen_other(seen, &made->prompt, from, made->blocks, &why), other);
    if (other > from) assert_true(why == YOLK_MISS_LAYOUT || why == YOLK_MISS_SALT);
}

static void test_matches_model(void **state)
{
    (void)state;
    static struct made all[PROMPTS];
    struct seen *seen = NULL;
    struct rng rng;

    rng_init(&rng, seed_of_run());
    assert_int_equal(seen_create(&seen), STATUS_OK);
    for (uint32_t i = 0; i < PROMPTS; i++) {
        make(&all[i], &rng);
        check(seen, &all[i], all, i);
        seen_note(seen, &all[i].prompt, all[i].blocks);
        check(seen, &all[i], all, i + 1);
    }
    seen_destroy(seen);
}

static void test_names_the_difference(void **state)
{
    (void)state;
    struct seen *seen = NULL;
    static struct made made;
    struct rng rng;
    enum yolk_miss why = YOLK_MISS_NEVER_SEEN;

    rng_init(&rng, 1);
    make(&made, &rng);
    made.prompt.layout = 7;
    made.prompt.salt = 8;
    assert_int_equal(seen_create(&seen), STATUS_OK);
    seen_note(seen, &made.prompt, made.blocks);
    made.prompt.salt = 9;
    assert_int_equal(seen_same(seen, &made.prompt, 0, made.blocks), 0);
    assert_int_equal(seen_other(seen, &made.prompt, 0, made.blocks, &why), made.blocks);
    assert_int_equal(why, YOLK_MISS_SALT);
    made.prompt.layout = 6;
    assert_int_equal(seen_other(seen, &made.prompt, 0, made.blocks, &why), made.blocks);
    assert_int_equal(why, YOLK_MISS_LAYOUT);
    seen_destroy(seen);
}

/* However much is noted: what never came is not found. */
static void test_forgets_and_invents_nothing(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct seen *seen = NULL;
    struct rng rng;
    uint64_t prefixes[64];
    uint32_t found = 0;

    rng_init(&rng, 77);
    assert_int_equal(seen_create(&seen), STATUS_OK);
    for (uint32_t i = 0; i < 2 * MANY; i++) {
        const struct yolk_prompt prompt = { .prefixes = prefixes };
        for (uint32_t j = 0; j < 64; j++)
            prefixes[j] = rng_counter(i, j);
        if (i < MANY) {
            seen_note(seen, &prompt, 64);
        } else {
            found += seen_same(seen, &prompt, 0, 64) > 0;
        }
    }
    assert_int_equal(found, 0);
    seen_destroy(seen);
}

static void test_texts(void **state)
{
    (void)state;
    struct seen *seen = NULL;
    uint64_t before[40], after[40], texts[3];
    uint32_t token = 0;

    for (uint32_t i = 0; i < 40; i++) {
        token = i;
        before[i] = yolk_prefix_next(i > 0 ? before[i - 1] : YOLK_PREFIX_ROOT, &token, 1);
        token = i == 5 ? 1000 : i; /* one token in block 5 is another */
        after[i] = yolk_prefix_next(i > 0 ? after[i - 1] : YOLK_PREFIX_ROOT, &token, 1);
    }
    for (uint32_t i = 0; i < 3; i++)
        texts[i] = yolk_text_next(i > 0 ? texts[i - 1] : 0, "message", 7);
    struct yolk_prompt prompt = {
        .prefixes = before, .texts = texts, .texts_count = 1, .text_blocks = 20
    };
    assert_int_equal(seen_create(&seen), STATUS_OK);
    seen_note(seen, &prompt, 22);
    /* One more turn, the same tokens: no matter of templates. */
    prompt.texts_count = 3;
    assert_int_equal(seen_text(seen, &prompt, 0, 40), 0);
    /* The first message became other tokens: its 20 blocks, and no more. */
    prompt.prefixes = after;
    assert_int_equal(seen_text(seen, &prompt, 0, 40), 20);
    assert_int_equal(seen_text(seen, &prompt, 25, 40), 25);
    assert_int_equal(seen_text(seen, &prompt, 3, 10), 10);
    /* Once it has come in this form, that is the form to compare with. */
    prompt.texts_count = 1;
    seen_note(seen, &prompt, 22);
    assert_int_equal(seen_text(seen, &prompt, 0, 40), 0);
    seen_destroy(seen);
}

static void test_names_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    const uint32_t tokens[] = { 5, 0, 0, 7, 1u << 31, 0 };
    const uint64_t whole = yolk_prefix_next(YOLK_PREFIX_ROOT, tokens, 6);

    for (size_t cut = 0; cut <= 6; cut++) {
        const uint64_t head = yolk_prefix_next(YOLK_PREFIX_ROOT, tokens, cut);
        assert_true(yolk_prefix_next(head, tokens + cut, 6 - cut) == whole);
        assert_true(cut == 6 || head != whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_names_the_difference),
        cmocka_unit_test(test_forgets_and_invents_nothing),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_names_do_not_depend_on_the_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
