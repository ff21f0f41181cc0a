/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/pipeline_test.c
 *
 * Goal:   the recurrence is the papers', a group is chosen exactly when it is the cheapest, and the
 *         books of groups balance.
 * Method: random pipelines against the definition written as a recursion, without any state; the
 *         choice against all sizes tried by it; then a random walk of placements in groups through
 *         the conductor's interface. SEED repeats a run. */
#include "conductor/pipeline.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "conductor/conductor_fixture.h"
#include "yolk/conductor.h"

enum { CHUNKS = 9, ROUNDS = 300, WALK_STEPS = 5000, WALK_LIVE = 24, NODES = 6 };

static struct rng rng;

static void seed(void)
{
    const char *text = getenv("SEED");
    const uint64_t value = text ? strtoull(text, NULL, 10) : 7;
    printf("SEED=%llu\n", (unsigned long long)value);
    rng_init(&rng, value);
}

static void near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-9 * (1 + fabs(expected))))
        fail_msg("%.12g is not %.12g", value, expected);
}

/* ---- the recurrence ---- */

struct line {
    struct pipeline_chunk chunks[CHUNKS];
    int count, stages;
    double ready[PIPELINE_STAGES_MAX];
};

/* end(c, j), by definition. */
static double naive_end(const struct line *line, int c, int j)
{
    const double before = c > 0 ? naive_end(line, c - 1, j) : line->ready[j];
    const double there = j > 0 ? naive_end(line, c, j - 1) + line->chunks[c].hop : 0;
    return fmax(before, there) + line->chunks[c].work / line->stages;
}

static struct line random_line(int stages)
{
    struct line line = { .count = 1 + (int)rng_below(&rng, 6), .stages = stages };

    for (int c = 0; c < line.count; c++)
        line.chunks[c] = (struct pipeline_chunk){ 10 * rng_unit(&rng), rng_unit(&rng), 0 };
    for (int j = 0; j < stages; j++)
        line.ready[j] = rng_below(&rng, 2) ? 0 : 20 * rng_unit(&rng);
    return line;
}

static void the_recurrence_is_the_definition(void **state)
{
    (void)state;
    seed();
    for (int round = 0; round < ROUNDS; round++) {
        const struct line line = random_line(1 + (int)rng_below(&rng, 5));
        struct line moved = line;
        for (int j = 0; j < line.stages; j++) {
            (void)pipeline_stage(moved.chunks, (uint32_t)line.count, (uint32_t)line.stages,
                                 line.ready[j], j == 0);
            for (int c = 0; c < line.count; c++)
                near(moved.chunks[c].at, naive_end(&line, c, j));
        }
    }
}

/* K equal chunks without hops on X free stages take (K + X - 1) t / X; one stage takes the sum. */
static void equal_chunks_take_the_closed_form(void **state)
{
    (void)state;
    for (uint32_t stages = 1; stages <= PIPELINE_STAGES_MAX; stages++) {
        struct pipeline_chunk chunks[CHUNKS] = { { 0 } };
        for (int c = 0; c < CHUNKS; c++)
            chunks[c].work = 12;
        for (uint32_t j = 0; j < stages; j++)
            near(pipeline_stage(chunks, CHUNKS, stages, 0, j == 0), 12.0 * j / stages);
        near(chunks[CHUNKS - 1].at, (CHUNKS + stages - 1) * 12.0 / stages);
    }
}

static void chunks_cover_the_prompt(void **state)
{
    (void)state;
    const uint32_t sizes[] = { 1, 2047, 2048, 2049, 131072, 4000000 };
    assert_int_equal(pipeline_chunks(0, 2048), 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint32_t count = pipeline_chunks(sizes[i], 2048);
        assert_in_range(count, 1, PIPELINE_CHUNKS_MAX);
        assert_int_equal(pipeline_begin(sizes[i], 2048, 0), 0);
        assert_int_equal(pipeline_begin(sizes[i], 2048, count), sizes[i]);
        for (uint32_t c = 0; c < count; c++)
            assert_true(pipeline_begin(sizes[i], 2048, c) < pipeline_begin(sizes[i], 2048, c + 1));
    }
}

/* ---- the choice ---- */

static struct conductor_fit prefill_fit, transfer_fit;
static struct pipeline_chunk scratch[PIPELINE_CHUNKS_MAX];

static struct pipeline_input random_input(struct pipeline_helper *helpers)
{
    const uint32_t tokens = 1 + (uint32_t)rng_below(&rng, 6 * 2048);
    const uint32_t reused = rng_below(&rng, 2) ? 0 : (uint32_t)rng_below(&rng, tokens);
    struct pipeline_input input = {
        .prefill = &prefill_fit,
        .transfer = &transfer_fit,
        .tokens = tokens,
        .reused_tokens = reused,
        .chunk_tokens = 2048,
        .token_bytes = 20000 * rng_unit(&rng),
        .activation_bytes = 5000 * rng_unit(&rng),
        .queue_ms = rng_below(&rng, 2) ? 0 : 5000 * rng_unit(&rng),
        .compute_ms = conductor_cost_prefill(&prefill_fit, tokens, reused),
        .pressure = rng_below(&rng, 2) ? 0 : 2 * rng_unit(&rng),
        .helpers = helpers,
        .helpers_count = (uint32_t)rng_below(&rng, 5),
        .chunks = scratch,
    };
    for (uint32_t i = 0; i < input.helpers_count; i++) {
        const double before = i > 0 ? helpers[i - 1].queue_ms : 0;
        helpers[i] = (struct pipeline_helper){ i, before + 1000 * rng_unit(&rng) };
    }
    return input;
}

/* Time to the first token on so many stages, and what they stand still, by the definition. */
static double naive_group(const struct pipeline_input *in, int stages, double *waste)
{
    struct line line = { .stages = stages };
    const int fresh = (int)(in->tokens - in->reused_tokens);
    const double moved = conductor_cost_transfer(
        in->transfer, (double)in->reused_tokens * in->token_bytes * (stages - 1) / stages);
    double sum = 0;

    for (int at = 0; at < fresh; at += 2048) {
        const int end = at + 2048 < fresh ? at + 2048 : fresh;
        const double all =
            conductor_cost_prefill(in->prefill, (double)in->reused_tokens + end, in->reused_tokens);
        line.chunks[line.count++] = (struct pipeline_chunk){
            all - sum, conductor_cost_transfer(in->transfer, (end - at) * in->activation_bytes), 0
        };
        sum = all;
    }
    *waste = -sum;
    for (int j = 0; j < stages; j++) {
        const double free = j == 0 ? in->queue_ms : in->helpers[j - 1].queue_ms;
        const double share = in->queue_ms + (in->reused_tokens > 0 ? moved : 0);
        line.ready[j] = j == 0 ? free : fmax(free, share);
    }
    for (int j = 0; j < stages; j++)
        *waste += naive_end(&line, line.count - 1, j) -
                  (j == 0 ? in->queue_ms : in->helpers[j - 1].queue_ms);
    return naive_end(&line, line.count - 1, stages - 1);
}

static void the_cheapest_size_is_chosen(void **state)
{
    (void)state;
    int grouped = 0;
    seed();
    conductor_fit_init(&prefill_fit, CONDUCTOR_FIT_PREFILL);
    conductor_fit_init(&transfer_fit, CONDUCTOR_FIT_TRANSFER);
    for (int round = 0; round < ROUNDS; round++) {
        struct pipeline_helper helpers[PIPELINE_STAGES_MAX];
        const struct pipeline_input input = random_input(helpers);
        struct pipeline_choice choice;
        double least = input.queue_ms + input.compute_ms, waste = 0;

        pipeline_choose(&input, &choice);
        const double chosen = choice.ttft_ms + input.pressure * choice.waste_ms;
        for (int stages = 2; stages <= (int)input.helpers_count + 1; stages++) {
            const double ttft = naive_group(&input, stages, &waste);
            least = fmin(least, ttft + input.pressure * fmax(waste, 0));
            if ((uint32_t)stages == choice.stages) near(choice.ttft_ms, ttft);
        }
        near(chosen, least);
        assert_true(choice.ttft_ms <= input.queue_ms + input.compute_ms + 1e-9);
        grouped += choice.stages > 1;
    }
    assert_in_range(grouped, ROUNDS / 10, ROUNDS * 9 / 10);
}

/* ---- the books ---- */

struct walk {
    struct yolk_conductor *c;
    struct yolk_instance_id nodes[NODES];
    struct yolk_decision live[WALK_LIVE];
    bool prefilled[WALK_LIVE];
    uint32_t count;
    double now;
};

static void add(struct walk *walk, uint32_t i)
{
    char name[8];
    const struct yolk_instance node = { name, name, i ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE,
                                        100000, 1000 };
    snprintf(name, sizeof(name), "n%u", i);
    walk->nodes[i] = fixture_add(walk->c, node);
}

static void start(struct walk *walk, uint32_t group_max)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();

    *walk = (struct walk){ 0 };
    options.instances_max = NODES;
    options.tickets_max = WALK_LIVE;
    options.block_tokens = 32;
    options.block_size = 32 * 1024;
    options.group_max = group_max;
    options.activation_bytes = 64;
    assert_int_equal(yolk_conductor_create(&options, &walk->c, NULL), STATUS_OK);
    for (uint32_t i = 0; i < NODES; i++)
        add(walk, i);
}

static struct yolk_place_request prompt(uint32_t tokens)
{
    return fixture_request(tokens, 0, NULL, 0);
}

static void place(struct walk *walk)
{
    const struct yolk_place_request request = prompt(1 + (uint32_t)rng_below(&rng, 40000));
    struct yolk_decision *decision = &walk->live[walk->count];
    const enum status status = yolk_conductor_place(walk->c, &request, walk->now, decision);

    if (status == STATUS_FULL) return;
    assert_int_equal(status, STATUS_OK);
    assert_in_range(decision->group_count, 1, 4);
    assert_int_equal(decision->group[0].index, decision->prefill.index);
    for (uint32_t i = 0; i < decision->group_count; i++) {
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(decision->group[i].index, decision->group[j].index);
    }
    walk->prefilled[walk->count++] = false;
}

static void finish(struct walk *walk, uint32_t i)
{
    yolk_conductor_finish(walk->c, walk->live[i].ticket, STATUS_OK, walk->now);
    walk->count--;
    walk->live[i] = walk->live[walk->count];
    walk->prefilled[i] = walk->prefilled[walk->count];
}

static void step(struct walk *walk)
{
    const uint32_t i = walk->count > 0 ? (uint32_t)rng_below(&rng, walk->count) : 0;
    const uint64_t dice = rng_below(&rng, 100);

    walk->now += 2000 * rng_unit(&rng);
    if (dice < 40 || walk->count == 0) {
        if (walk->count < WALK_LIVE) place(walk);
    } else if (dice < 60) {
        const struct yolk_decision *d = &walk->live[i];
        const uint32_t j = (uint32_t)rng_below(&rng, d->group_count);
        yolk_conductor_stage_done(walk->c, d->ticket, d->group[j], walk->now);
    } else if (dice < 75 && !walk->prefilled[i]) {
        yolk_conductor_prefill_done(walk->c, walk->live[i].ticket, 0, walk->now);
        walk->prefilled[i] = true;
    } else if (dice < 98) {
        finish(walk, i);
    } else {
        const uint32_t node = 1 + (uint32_t)rng_below(&rng, NODES - 1);
        yolk_conductor_remove(walk->c, walk->nodes[node]);
        add(walk, node);
    }
}

/* Whatever happens: no ticket is lost, and when all have ended every queue is empty. */
static void the_books_balance(void **state)
{
    (void)state;
    struct walk walk;
    struct yolk_conductor_stats stats;
    struct yolk_decision decision;

    seed();
    start(&walk, 4);
    for (int i = 0; i < WALK_STEPS; i++) {
        step(&walk);
        yolk_conductor_stats(walk.c, &stats);
        assert_int_equal(stats.tickets, walk.count);
    }
    while (walk.count > 0)
        finish(&walk, 0);
    assert_true(stats.groups > 100 && stats.group_stages >= 2 * stats.groups);
    const struct yolk_place_request request = prompt(100);
    for (uint32_t i = 0; i < WALK_LIVE; i++) { /* all tickets are there again, all queues empty */
        assert_int_equal(yolk_conductor_place(walk.c, &request, walk.now, &walk.live[i]),
                         STATUS_OK);
        if (i < NODES - 1) assert_true(walk.live[i].queue_ms == 0);
    }
    assert_int_equal(yolk_conductor_place(walk.c, &request, walk.now, &decision), STATUS_FULL);
    yolk_conductor_destroy(walk.c);
}

static void members_are_busy_until_they_are_done(void **state)
{
    (void)state;
    struct walk walk;
    struct yolk_decision first, second;
    const struct yolk_place_request request = prompt(40000);

    start(&walk, NODES - 1);
    assert_int_equal(yolk_conductor_place(walk.c, &request, 0, &first), STATUS_OK);
    assert_int_equal(first.group_count, NODES - 1);
    assert_int_equal(yolk_conductor_place(walk.c, &request, 0, &second), STATUS_OK);
    assert_true(second.queue_ms > 0); /* everybody is taken */
    yolk_conductor_finish(walk.c, second.ticket, STATUS_OK, 1);
    yolk_conductor_stage_done(walk.c, first.ticket, first.group[2], 2);
    assert_int_equal(yolk_conductor_place(walk.c, &request, 3, &second), STATUS_OK);
    assert_int_equal(second.prefill.index, first.group[2].index);
    assert_true(second.queue_ms == 0);
    yolk_conductor_finish(walk.c, second.ticket, STATUS_OK, 4);
    yolk_conductor_prefill_done(walk.c, first.ticket, 0, 5);
    assert_int_equal(yolk_conductor_place(walk.c, &request, 6, &second), STATUS_OK);
    assert_true(second.queue_ms == 0 && second.group_count == NODES - 1);
    yolk_conductor_destroy(walk.c);
}

static void without_the_option_there_are_no_groups(void **state)
{
    (void)state;
    struct walk walk;
    struct yolk_decision decision;
    struct yolk_place_request request = prompt(400000);

    start(&walk, 1);
    assert_int_equal(yolk_conductor_place(walk.c, &request, 0, &decision), STATUS_OK);
    assert_int_equal(decision.group_count, 1);
    yolk_conductor_destroy(walk.c);

    start(&walk, NODES - 1);
    request.alone = true; /* nor for who asks for none */
    assert_int_equal(yolk_conductor_place(walk.c, &request, 0, &decision), STATUS_OK);
    assert_int_equal(decision.group_count, 1);
    yolk_conductor_destroy(walk.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recurrence_is_the_definition),
        cmocka_unit_test(equal_chunks_take_the_closed_form),
        cmocka_unit_test(chunks_cover_the_prompt),
        cmocka_unit_test(the_cheapest_size_is_chosen),
        cmocka_unit_test(the_books_balance),
        cmocka_unit_test(members_are_busy_until_they_are_done),
        cmocka_unit_test(without_the_option_there_are_no_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
