/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/timed_test.c
 *
 * Goal:   a step of the timed engine takes the modelled time, to the nanosecond, whatever a hook
 *         waits and however badly one sleeps; and its pages and tokens depend on the tokens alone.
 * Method: a clock that only sleeping moves; the same sequence in one go, in random parts, beside
 *         others, and in pages that were moved. SEED=n replays the random cases. */
#include "infer/timed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "model/model.h"
#include "seed.h"

enum { BLOCK = 16, PAGES = 256, PAGE_SIZE = 4096, CONTEXT = 2048, VOCAB = 1000, END_TOKEN = 7 };

static const struct timed_profile profile = {
    .prefill_fixed_s = 0.068,
    .prefill_new_s = 1.1e-4,
    .prefill_square_s = 7.5e-10,
    .prefill_reused_s = 2.5e-6,
    .decode_base_s = 0.0235,
    .decode_sequence_s = 0.004,
    .decode_context_s = 3.5e-8,
    .speed = 1,
};

/* ---- a clock, and an engine on it ---- */

struct stage {
    struct timed *timed;
    uint8_t *slab;
    uint64_t now_ns;
    uint64_t oversleep_ns; /* by which each sleep is too long */
    uint64_t wait_ns;      /* that before_layer takes */
    uint64_t before_ns[TIMED_LAYERS], after_ns[TIMED_LAYERS];
    uint32_t refuse_layer; /* TIMED_LAYERS: none */
};

static uint64_t clock_now(void *ctx)
{
    return ((struct stage *)ctx)->now_ns;
}

static void clock_sleep(void *ctx, uint64_t duration_ns)
{
    struct stage *stage = ctx;
    stage->now_ns += duration_ns + stage->oversleep_ns;
}

static struct timed_options options_of(struct stage *stage)
{
    return (struct timed_options){ .profile = profile,
                                   .end_token = END_TOKEN,
                                   .now_ns = clock_now,
                                   .sleep_ns = clock_sleep,
                                   .clock_ctx = stage };
}

static enum status stage_create(struct stage *stage, const struct timed_options *options,
                                uint32_t context_max, struct errmsg *err)
{
    const struct model_params params = { .context = CONTEXT, .vocab = VOCAB };
    const struct engine_options engine = { .block_tokens = BLOCK,
                                           .context_max = context_max,
                                           .pages = stage->slab,
                                           .pages_count = PAGES };
    return timed_create(&params, &engine, options, &stage->timed, err);
}

static void stage_init(struct stage *stage)
{
    struct errmsg err = { "" };
    memset(stage, 0, sizeof(*stage));
    stage->slab = aligned_alloc(PAGE_SIZE, (size_t)PAGES * PAGE_SIZE);
    assert_non_null(stage->slab);
    memset(stage->slab, 0xee, (size_t)PAGES * PAGE_SIZE);
    stage->refuse_layer = TIMED_LAYERS;
    const struct timed_options options = options_of(stage);
    if (stage_create(stage, &options, 0, &err) != STATUS_OK) fail_msg("%s", err.text);
}

static void stage_fini(struct stage *stage)
{
    timed_destroy(stage->timed);
    free(stage->slab);
}

static bool before_layer(void *ctx, uint32_t layer)
{
    struct stage *stage = ctx;
    stage->now_ns += stage->wait_ns;
    stage->before_ns[layer] = stage->now_ns;
    return layer != stage->refuse_layer;
}

static void after_layer(void *ctx, uint32_t layer)
{
    struct stage *stage = ctx;
    stage->after_ns[layer] = stage->now_ns;
}

static enum status step(struct stage *stage, struct backend_item *items, uint32_t count)
{
    const struct engine_hooks hooks = { before_layer, after_layer, stage };
    return timed_step(stage->timed, items, count, &hooks);
}

/* ---- a sequence ---- */

struct sequence {
    uint32_t pages[PAGES];
    uint32_t tokens[CONTEXT];
};

static void sequence_init(struct sequence *sequence, uint32_t page_first, struct rng *rng)
{
    for (uint32_t i = 0; i < PAGES; i++)
        sequence->pages[i] = (page_first + i) % PAGES;
    for (uint32_t i = 0; i < CONTEXT; i++)
        sequence->tokens[i] = (uint32_t)rng_below(rng, VOCAB);
}

static struct backend_item part(const struct sequence *sequence, uint32_t from, uint32_t to)
{
    return (struct backend_item){ .pages = sequence->pages,
                                  .pages_count = PAGES,
                                  .position = from,
                                  .tokens = sequence->tokens + from,
                                  .tokens_count = to - from,
                                  .prefill = true,
                                  .prefill_first = from == 0,
                                  .sample = true };
}

static uint32_t whole(struct stage *stage, const struct sequence *sequence, uint32_t count)
{
    struct backend_item item = part(sequence, 0, count);
    assert_int_equal(step(stage, &item, 1), STATUS_OK);
    return item.sampled;
}

/* ---- time ---- */

/* The parts of a prompt add up to the formula of the whole. */
static void parts_add_up(void **state)
{
    static struct sequence sequence;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    sequence_init(&sequence, 0, &rng);
    for (int i = 0; i < 200; i++) {
        const uint32_t n = (uint32_t)rng_between(&rng, 2, CONTEXT);
        const uint32_t p = (uint32_t)rng_below(&rng, n);
        double seconds = 0;
        for (uint32_t from = p; from < n;) {
            const uint32_t rest = n - from;
            const uint32_t rows = (uint32_t)rng_between(&rng, 1, rest);
            struct backend_item item = part(&sequence, from, from + rows);
            item.prefill_first = from == p;
            seconds += timed_step_s(&profile, &item, 1);
            from += rows;
        }
        const double want =
            0.068 + 1.1e-4 * (n - p) + 7.5e-10 * ((double)n * n - (double)p * p) + 2.5e-6 * p;
        assert_true(fabs(seconds - want) < 1e-12 * 1e3);
    }
}

static void decode_rows_share_a_step(void **state)
{
    static struct sequence sequence;
    struct backend_item items[3];
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    sequence_init(&sequence, 0, &rng);
    for (uint32_t i = 0; i < 3; i++) {
        items[i] = part(&sequence, 100 * i, 100 * i + 1);
        items[i].prefill = items[i].prefill_first = false;
    }
    const double want = 0.0235 + 0.004 * 3 + 3.5e-8 * (1 + 101 + 201);
    assert_true(fabs(timed_step_s(&profile, items, 3) - want) < 1e-12);
    items[2] = part(&sequence, 0, 200);
    const double mixed = 0.0235 + 0.004 * 2 + 3.5e-8 * 102 + 0.068 + 1.1e-4 * 200 + 7.5e-10 * 4e4;
    assert_true(fabs(timed_step_s(&profile, items, 3) - mixed) < 1e-12);
    struct timed_profile fast = profile;
    fast.speed = 10;
    assert_true(fabs(timed_step_s(&fast, items, 3) - mixed / 10) < 1e-12);
}

/* Each layer a quarter; a bad sleeper is right in the end; what a hook waits comes on top. */
static void layers_share_the_time(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    sequence_init(&sequence, 0, &rng);
    struct backend_item item = part(&sequence, 0, 400);
    const uint64_t share_ns = (uint64_t)(timed_step_s(&profile, &item, 1) * 1e9 / TIMED_LAYERS);
    assert_int_equal(step(&stage, &item, 1), STATUS_OK);
    for (uint32_t layer = 0; layer < TIMED_LAYERS; layer++) {
        assert_int_equal(stage.before_ns[layer], layer * share_ns);
        assert_int_equal(stage.after_ns[layer], (layer + 1) * share_ns);
    }

    stage.now_ns = 0;
    stage.oversleep_ns = share_ns / 3;
    assert_int_equal(step(&stage, &item, 1), STATUS_OK);
    assert_int_equal(stage.now_ns, TIMED_LAYERS * share_ns + share_ns / 3);

    stage.now_ns = stage.oversleep_ns = 0;
    stage.wait_ns = 5000000;
    assert_int_equal(step(&stage, &item, 1), STATUS_OK);
    assert_int_equal(stage.now_ns, TIMED_LAYERS * (share_ns + 5000000));
    stage_fini(&stage);
}

/* What passes between steps is made up for, unless it is so long that nothing was to be done. */
static void steps_in_a_row_keep_time(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    sequence_init(&sequence, 0, &rng);
    struct backend_item item = part(&sequence, 0, 1);
    item.prefill = item.prefill_first = false;
    const uint64_t step_ns =
        (uint64_t)(timed_step_s(&profile, &item, 1) * 1e9 / TIMED_LAYERS) * TIMED_LAYERS;
    stage.now_ns = 1000000000;
    stage.oversleep_ns = 60000;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(step(&stage, &item, 1), STATUS_OK);
        stage.now_ns += 500000;
    }
    assert_int_equal(stage.now_ns, 1000000000 + 100 * step_ns + 560000);
    stage.now_ns += 1000000000;
    const uint64_t start_ns = stage.now_ns;
    assert_int_equal(step(&stage, &item, 1), STATUS_OK);
    assert_int_equal(stage.now_ns, start_ns + step_ns + 60000);
    stage_fini(&stage);
}

static void refused_layer_ends_the_step(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    sequence_init(&sequence, 0, &rng);
    struct backend_item item = part(&sequence, 0, 40);
    stage.refuse_layer = 2;
    item.sampled = 4711;
    assert_int_equal(step(&stage, &item, 1), STATUS_CANCELLED);
    assert_int_equal(item.sampled, 4711);
    assert_int_equal(stage.after_ns[2], 0);
    assert_true(stage.after_ns[1] > 0);
    stage_fini(&stage);
}

/* ---- content ---- */

static bool same_pages(const struct stage *a, const struct stage *b, const struct sequence *of_a,
                       const struct sequence *of_b, uint32_t tokens)
{
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t layer = 0; layer < TIMED_LAYERS; layer++) {
            const size_t at = layer * BLOCK * TIMED_STATE_SIZE + t % BLOCK * TIMED_STATE_SIZE;
            if (memcmp(a->slab + (size_t)of_a->pages[t / BLOCK] * PAGE_SIZE + at,
                       b->slab + (size_t)of_b->pages[t / BLOCK] * PAGE_SIZE + at,
                       TIMED_STATE_SIZE) != 0)
                return false;
        }
    }
    return true;
}

/* In one go here; there in parts, beside another sequence, in other pages. */
static void content_depends_on_tokens_alone(void **state)
{
    static struct sequence here, there, other;
    struct stage a, b;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&a);
    stage_init(&b);
    for (int i = 0; i < 50; i++) {
        const uint32_t n = (uint32_t)rng_between(&rng, 1, 500);
        sequence_init(&here, 0, &rng);
        sequence_init(&other, 128, &rng);
        there = here;
        for (uint32_t page = 0; page < PAGES; page++)
            there.pages[page] = (page + 77) % 128;
        const uint32_t want = whole(&a, &here, n);
        uint32_t got = 0;
        for (uint32_t from = 0; from < n;) {
            const uint32_t rest = n - from;
            const uint32_t rows = (uint32_t)rng_between(&rng, 1, rest);
            const uint32_t beside = (uint32_t)rng_between(&rng, 1, ENGINE_ROWS_MAX + 1 - rows);
            struct backend_item items[2] = { part(&other, 0, beside < 12 ? beside : 12),
                                             part(&there, from, from + rows) };
            items[1].prefill = rows > 1;
            assert_int_equal(step(&b, items, rows < 500 ? 2 : 1), STATUS_OK);
            got = items[1].sampled;
            if (rows == 500) {
                assert_int_equal(step(&b, &items[1], 1), STATUS_OK);
                got = items[1].sampled;
            }
            from += rows;
        }
        assert_int_equal(got, want);
        assert_true(same_pages(&a, &b, &here, &there, n));
    }
    stage_fini(&a);
    stage_fini(&b);
}

/* What the pages hold is used: a byte that changes there changes the rest of the answer. */
static void damaged_pages_change_the_answer(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    sequence_init(&sequence, 0, &rng);
    (void)whole(&stage, &sequence, 100);
    struct backend_item next = part(&sequence, 100, 101);
    assert_int_equal(step(&stage, &next, 1), STATUS_OK);
    const uint32_t want = next.sampled;
    for (uint32_t layer = 0; layer < TIMED_LAYERS; layer++) {
        uint8_t *byte = stage.slab + (size_t)sequence.pages[99 / BLOCK] * PAGE_SIZE +
                        layer * BLOCK * TIMED_STATE_SIZE + 99 % BLOCK * TIMED_STATE_SIZE;
        *byte ^= 1;
        assert_int_equal(step(&stage, &next, 1), STATUS_OK);
        assert_int_not_equal(next.sampled, want);
        *byte ^= 1;
    }
    assert_int_equal(step(&stage, &next, 1), STATUS_OK);
    assert_int_equal(next.sampled, want);
    stage_fini(&stage);
}

static bool is_even(const void *ctx, uint32_t token)
{
    (void)ctx;
    return token % 2 == 0;
}

/* Tokens are usable ones; seed and index matter only when tokens are drawn by chance. */
static void tokens_are_chosen(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;
    struct errmsg err;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    struct timed_options options = options_of(&stage);
    options.usable = is_even;
    timed_destroy(stage.timed);
    assert_int_equal(stage_create(&stage, &options, 0, &err), STATUS_OK);
    sequence_init(&sequence, 0, &rng);
    uint32_t differ = 0;
    for (uint32_t n = 1; n <= 200; n++) {
        const uint32_t greedy = whole(&stage, &sequence, n);
        assert_int_equal(greedy % 2, 0);
        assert_true(greedy < VOCAB);
        struct backend_item item = part(&sequence, 0, n);
        item.sampling.seed = item.sample_index = n;
        assert_int_equal(step(&stage, &item, 1), STATUS_OK);
        assert_int_equal(item.sampled, greedy);
        item.sampling.temperature = 0.5f;
        assert_int_equal(step(&stage, &item, 1), STATUS_OK);
        differ += item.sampled != greedy;
    }
    assert_true(differ > 150);
    stage_fini(&stage);
}

static void answers_end_when_asked(void **state)
{
    static struct sequence sequence;
    struct stage stage;
    struct rng rng;
    struct errmsg err;
    uint32_t ends = 0;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    struct timed_options options = options_of(&stage);
    options.profile.answer_tokens = 20;
    timed_destroy(stage.timed);
    assert_int_equal(stage_create(&stage, &options, 0, &err), STATUS_OK);
    for (int i = 0; i < 2000; i++) {
        sequence_init(&sequence, 0, &rng);
        ends += whole(&stage, &sequence, 5) == END_TOKEN;
    }
    assert_in_range(ends, 50, 170); /* 100 expected, and seven times the deviation */
    stage_fini(&stage);
}

/* ---- bad input ---- */

static void bad_profiles_are_refused(void **state)
{
    struct timed_profile wrong[6];
    struct errmsg err;

    (void)state;
    for (size_t i = 0; i < 6; i++)
        wrong[i] = profile;
    wrong[0].prefill_new_s = -1;
    wrong[1].decode_base_s = (double)NAN;
    wrong[2].speed = 0;
    wrong[3].prefill_fixed_s = (double)INFINITY;
    wrong[4].answer_tokens = 0.5;
    wrong[5].speed = -2;
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(timed_profile_check(&wrong[i], &err), STATUS_INVALID);
    assert_int_equal(timed_profile_check(&profile, &err), STATUS_OK);
    assert_int_equal(timed_profile_check(&timed_profile_default, &err), STATUS_OK);
}

static bool is_nothing(const void *ctx, uint32_t token)
{
    (void)ctx;
    (void)token;
    return false;
}

static void bad_options_are_refused(void **state)
{
    struct stage stage;
    struct errmsg err;

    (void)state;
    stage_init(&stage);
    timed_destroy(stage.timed);
    stage.timed = NULL;
    struct timed_options options = options_of(&stage);
    assert_int_equal(stage_create(&stage, &options, CONTEXT + 1, &err), STATUS_INVALID);
    options.usable = is_nothing;
    assert_int_equal(stage_create(&stage, &options, 0, &err), STATUS_INVALID);
    options = options_of(&stage);
    options.profile.answer_tokens = 5;
    options.end_token = VOCAB;
    assert_int_equal(stage_create(&stage, &options, 0, &err), STATUS_INVALID);
    assert_null(stage.timed);
    stage_fini(&stage);
}

static void bad_items_are_refused(void **state)
{
    static struct sequence sequence;
    struct backend_item items[2];
    struct stage stage;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    stage_init(&stage);
    sequence_init(&sequence, 0, &rng);
    items[0] = part(&sequence, 0, 40);
    assert_int_equal(step(&stage, items, 0), STATUS_INVALID);
    items[0].tokens_count = 0;
    assert_int_equal(step(&stage, items, 1), STATUS_INVALID);
    items[0] = part(&sequence, 0, 40);
    items[0].pages_count = 2;
    assert_int_equal(step(&stage, items, 1), STATUS_INVALID);
    items[0] = part(&sequence, CONTEXT - 10, CONTEXT);
    items[0].tokens_count = 11;
    assert_int_equal(step(&stage, items, 1), STATUS_INVALID);
    items[0] = part(&sequence, 0, 400);
    items[1] = part(&sequence, 400, 700);
    assert_int_equal(step(&stage, items, 2), STATUS_INVALID); /* too many rows */
    items[0] = part(&sequence, 0, 40);
    sequence.pages[2] = PAGES;
    assert_int_equal(step(&stage, items, 1), STATUS_INVALID);
    sequence.pages[2] = 2;
    sequence.tokens[39] = VOCAB;
    assert_int_equal(step(&stage, items, 1), STATUS_INVALID);
    sequence.tokens[39] = 0;
    assert_int_equal(step(&stage, items, 1), STATUS_OK);
    stage_fini(&stage);
}

static void layout_is_its_own(void **state)
{
    struct engine_layout layout = { .isa = ENGINE_ISA_AVX2 };

    (void)state;
    for (uint32_t block = ENGINE_BLOCK_TOKENS_MIN; block <= ENGINE_BLOCK_TOKENS_MAX; block *= 2) {
        timed_layout_of(block, &layout);
        assert_string_equal(layout.isa_name, "timed");
        assert_int_equal(strncmp(layout.id, "timed-", 6), 0);
        assert_int_equal(layout.layer_size, block * TIMED_STATE_SIZE);
        assert_true(layout.page_size >= TIMED_LAYERS * layout.layer_size);
        assert_int_equal(layout.page_size % ENGINE_PAGE_ALIGN, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(decode_rows_share_a_step),
        cmocka_unit_test(layers_share_the_time),
        cmocka_unit_test(steps_in_a_row_keep_time),
        cmocka_unit_test(refused_layer_ends_the_step),
        cmocka_unit_test(content_depends_on_tokens_alone),
        cmocka_unit_test(damaged_pages_change_the_answer),
        cmocka_unit_test(tokens_are_chosen),
        cmocka_unit_test(answers_end_when_asked),
        cmocka_unit_test(bad_profiles_are_refused),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(bad_items_are_refused),
        cmocka_unit_test(layout_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
