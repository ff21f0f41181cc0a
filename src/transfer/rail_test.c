/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/rail_test.c
 *
 * Goal:   what a rail is believed to be worth follows from what it did.
 * Method: a rail with a known rate and delay is played against the functions of rail.h, as a queue
 *         of slices that leave one after the other; and the states by hand. */
#include "transfer/rail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

enum { SLICES = 4096 };

/* A line: slices leave in order at `rate`, and are answered `delay_ns` later. */
struct line {
    struct rail rail;
    uint64_t rate, delay_ns, now_ns, free_ns;
    struct {
        uint64_t length, sent_ns, answer_ns;
    } slices[SLICES];
    uint32_t head, tail;
};

static void line_init(struct line *line, uint64_t rate, uint64_t delay_ns)
{
    memset(line, 0, sizeof(*line));
    line->rate = rate;
    line->delay_ns = delay_ns;
    line->now_ns = line->free_ns = ENV_NS_PER_S;
    rail_init(&line->rail, "", "10.0.0.1:1", 0);
}

static void line_send(struct line *line, uint64_t length)
{
    const uint64_t begin = line->free_ns > line->now_ns ? line->free_ns : line->now_ns;

    assert_true(line->tail - line->head < SLICES);
    line->free_ns = begin + length * ENV_NS_PER_S / line->rate;
    line->slices[line->tail % SLICES].length = length;
    line->slices[line->tail % SLICES].sent_ns = line->now_ns;
    line->slices[line->tail++ % SLICES].answer_ns = line->free_ns + line->delay_ns;
    rail_sent(&line->rail, length, line->now_ns);
}

static void line_answer(struct line *line)
{
    const uint32_t at = line->head++ % SLICES;

    line->now_ns = line->slices[at].answer_ns;
    rail_done(&line->rail, line->slices[at].length, line->now_ns - line->slices[at].sent_ns, true,
              line->now_ns);
}

/* Keeps the window full for `ns`. */
static void line_flood(struct line *line, int class, uint64_t ns)
{
    const uint64_t end_ns = line->now_ns + ns;

    while (line->now_ns < end_ns) {
        while (line->rail.inflight < rail_window(&line->rail, class)) {
            line_send(line, rail_slice_size(&line->rail, 256 << 10));
        }
        line_answer(line);
    }
}

static void rate_is_found_and_the_window_fills_the_line(void **state)
{
    static const uint64_t rates[] = { 2000000, 12500000, 125000000, 1250000000, 5000000000 };
    static const uint64_t delays[] = { 20000, 200000, 2000000, 40000000 };

    (void)state;
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        for (size_t j = 0; j < sizeof(delays) / sizeof(delays[0]); j++) {
            struct line line;
            line_init(&line, rates[i], delays[j]);
            line_flood(&line, YOLK_TRANSFER_LOAD, 20 * ENV_NS_PER_S);
            const uint64_t before = line.rail.bytes, start_ns = line.now_ns;
            line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
            const double seen =
                (double)(line.rail.bytes - before) * 1e9 / (double)(line.now_ns - start_ns);
            assert_true(seen > 0.93 * (double)rates[i]);
            assert_true(line.rail.rate > rates[i] / 10 * 8 && line.rail.rate < rates[i] / 10 * 12);
            /* and no slice waits longer than the delays and some slices */
            const double wait_ns =
                (double)rail_window(&line.rail, YOLK_TRANSFER_LOAD) * 1e9 / (double)rates[i];
            assert_true(wait_ns < 3.0 * (double)delays[j] + 8e6 + 6e9 * 65536 / (double)rates[i]);
        }
    }
}

static void little_traffic_does_not_lower_the_rate(void **state)
{
    (void)state;
    struct line line;

    line_init(&line, 125000000, 200000);
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    while (line.head != line.tail)
        line_answer(&line);
    const uint64_t rate = line.rail.rate;
    for (int i = 0; i < 1000; i++) { /* one at a time, far apart */
        line_send(&line, 4096);
        while (line.head != line.tail)
            line_answer(&line);
        line.now_ns += 3 * ENV_NS_PER_MS;
    }
    assert_true(line.rail.rate == rate && line.rail.inflight == 0 && line.rail.busy_ns == 0);
}

static void a_slower_line_is_noticed(void **state)
{
    (void)state;
    struct line line;

    line_init(&line, 1250000000, 50000);
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    line.rate = 125000000;
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    assert_true(line.rail.rate < 150000000);
    line.rate = 1250000000;
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    assert_true(line.rail.rate > 1000000000);
}

/* Answers that come all at once, to what was sent long before, do not say that a line is fast. */
static void late_answers_are_no_burst(void **state)
{
    (void)state;
    struct rail rail;
    const uint64_t size = 256 << 10, rate = 125000000;

    rail_init(&rail, "10.0.0.1", "10.0.0.2", 1000);
    assert_int_equal(rail.rate, rate);
    for (int i = 0; i < 4; i++)
        rail_sent(&rail, size, 1);
    rail_done(&rail, size, ENV_NS_PER_MS, true, 3 * ENV_NS_PER_MS);
    rail_done(&rail, size, ENV_NS_PER_MS, true, 5 * ENV_NS_PER_MS); /* a sample is over */
    const uint64_t seen = rail.rate;
    rail_done(&rail, size, ENV_NS_PER_MS, true, 5 * ENV_NS_PER_MS + 1000);
    rail_done(&rail, size, ENV_NS_PER_MS, true, 5 * ENV_NS_PER_MS + 2000);
    assert_int_equal(rail.inflight, 0);
    assert_int_equal(rail.rate, seen);
    assert_true(rail.rate < 2 * rate);
}

/* A call's worth at a time, and nothing in between. */
static void line_burst(struct line *line, uint64_t size)
{
    for (uint64_t left = size; left > 0 || line->head != line->tail;) {
        while (left > 0 && line->rail.inflight < rail_window(&line->rail, YOLK_TRANSFER_LOAD)) {
            line_send(line, 64 << 10);
            left -= 64 << 10;
        }
        line_answer(line);
    }
    line->now_ns += ENV_NS_PER_MS;
}

static void bursts_say_that_a_line_is_faster(void **state)
{
    (void)state;
    struct line line;

    line_init(&line, 1250000000, 50000);
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    line.rate = 50000000; /* it was held up for a moment */
    line_flood(&line, YOLK_TRANSFER_LOAD, 100 * ENV_NS_PER_MS);
    while (line.head != line.tail)
        line_answer(&line);
    assert_true(rail_window(&line.rail, YOLK_TRANSFER_LOAD) < 256 << 10);
    line.rate = 1250000000;
    for (int i = 0; i < 20; i++)
        line_burst(&line, 1 << 20);
    assert_true(line.rail.rate > 1000000000 && line.rail.rate <= 1250000000);
    assert_true(rail_window(&line.rail, YOLK_TRANSFER_LOAD) > 1 << 20);
    const uint64_t rate = line.rail.rate;
    for (int i = 0; i < 20; i++)
        line_burst(&line, 128 << 10); /* most of that is the delay */
    assert_true(line.rail.rate == rate);
}

static void background_leaves_room(void **state)
{
    (void)state;
    struct line line;

    line_init(&line, 125000000, 100000);
    line_flood(&line, YOLK_TRANSFER_LOAD, ENV_NS_PER_S);
    while (line.head != line.tail)
        line_answer(&line);
    const uint64_t before = line.rail.bytes, start_ns = line.now_ns;
    line_flood(&line, YOLK_TRANSFER_BACKGROUND, ENV_NS_PER_S);
    const double seen = (double)(line.rail.bytes - before) * 1e9 / (double)(line.now_ns - start_ns);
    assert_true(seen > 0.9 * 125000000); /* and still fills the line */
    assert_true(line.rail.inflight <= 256 << 10);
}

static void scores_prefer_the_sooner(void **state)
{
    (void)state;
    struct rail fast, slow;

    rail_init(&fast, "", "a:1", 10000);
    rail_init(&slow, "", "b:1", 1000);
    assert_true(rail_score(&fast, 65536, RAIL_PREFERRED) <
                rail_score(&slow, 65536, RAIL_PREFERRED));
    rail_sent(&fast, 1 << 20, 1);
    assert_true(rail_score(&fast, 65536, RAIL_PREFERRED) >
                rail_score(&slow, 65536, RAIL_PREFERRED));
    assert_true(rail_score(&slow, 65536, RAIL_SECONDARY) == 3 * rail_score(&slow, 65536, 0));
    assert_true(rail_score(&slow, 65536, RAIL_LAST) > rail_score(&fast, 65536, RAIL_SECONDARY));
    rail_taken(&fast, 1 << 20);
    assert_true(fast.inflight == 0 && fast.bytes == 0 && fast.slices == 1);
}

static void silence_needs_somebody_who_speaks(void **state)
{
    (void)state;
    const uint64_t begin = ENV_NS_PER_S;
    struct rail rails[3];

    for (int i = 0; i < 3; i++)
        rail_init(&rails[i], "", "a:1", 0);
    rails[2].used = false;
    rail_sent(&rails[0], 65536, begin);
    rail_sent(&rails[1], 65536, begin);
    for (uint64_t at = begin; at < begin + ENV_NS_PER_S; at += ENV_NS_PER_MS) {
        assert_false(rail_silent(rails, 3, 0, at)); /* all are silent */
    }
    assert_true(rail_suspect(&rails[0], begin + RAIL_SILENCE_NS));
    rail_heard(&rails[1], begin + RAIL_SILENCE_NS);
    assert_false(rail_silent(rails, 3, 0, begin + RAIL_SILENCE_NS - 1));
    assert_true(rail_silent(rails, 3, 0, begin + RAIL_SILENCE_NS));
    rail_heard(&rails[0], begin + RAIL_SILENCE_NS);
    assert_false(rail_silent(rails, 3, 0, begin + RAIL_SILENCE_NS));
    rail_taken(&rails[0], 65536);
    assert_false(rail_suspect(&rails[0], begin + ENV_NS_PER_S)); /* nothing is expected of it */
    rail_fence(&rails[0], begin + ENV_NS_PER_S);
    assert_true(rail_suspect(&rails[0], begin + 2 * ENV_NS_PER_S));
    rail_fenced(&rails[0], 1);
    assert_false(rail_suspect(&rails[0], begin + 2 * ENV_NS_PER_S));
}

static void states_follow_connects(void **state)
{
    (void)state;
    struct rail rail;
    uint64_t now = ENV_NS_PER_S, longest_ns = 0;

    rail_init(&rail, "", "a:1", 0);
    assert_true(rail_may_connect(&rail, now));
    rail_connect(&rail);
    assert_false(rail_may_connect(&rail, now)); /* one at a time */
    rail_connected(&rail, now);
    assert_int_equal(rail.state, RAIL_UP);
    rail_connect(&rail); /* a second lane */
    rail.connecting = false;
    rail_fail(&rail, true, now);
    assert_int_equal(rail.state, RAIL_UP); /* the first goes on */
    assert_int_equal(rail.pauses, 0);
    for (int i = 0; i < 20; i++) {
        rail_fail(&rail, false, now);
        assert_int_equal(rail.state, RAIL_PAUSED);
        assert_int_equal(rail.pauses, 1);
        assert_false(rail_may_connect(&rail, now));
        if (rail.retry_ns - now > longest_ns) longest_ns = rail.retry_ns - now;
        now = rail.retry_ns;
        assert_true(rail_may_connect(&rail, now));
        rail_connect(&rail);
        assert_int_equal(rail.state, RAIL_PROBING);
        rail.connecting = false;
    }
    assert_true(longest_ns <= 100 * ENV_NS_PER_MS); /* it had worked: it is asked often */
    rail.connecting = true;
    rail_connected(&rail, now);
    assert_int_equal(rail.state, RAIL_UP);
    assert_string_equal(rail_state_name(RAIL_PROBING), "probing");
}

static void books_balance(void **state)
{
    (void)state;
    struct rail rail;
    struct rng rng;
    uint64_t lengths[64] = { 0 }, sum = 0, now = ENV_NS_PER_S;

    rng_init(&rng, 5);
    rail_init(&rail, "", "a:1", 0);
    for (int step = 0; step < 20000; step++) {
        uint64_t *length = &lengths[rng_below(&rng, 64)];
        now += rng_below(&rng, ENV_NS_PER_MS);
        if (*length == 0) {
            *length = rng_between(&rng, 1, 1 << 20);
            rail_sent(&rail, *length, now);
            sum += *length;
        } else {
            if (rng_below(&rng, 2) == 0) {
                rail_taken(&rail, *length);
            } else {
                rail_done(&rail, *length, rng_between(&rng, 1, 1 << 20), true, now);
            }
            sum -= *length;
            *length = 0;
        }
        assert_true(rail.inflight == sum && (rail.busy_ns == 0) == (sum == 0) && rail.rate > 0);
        assert_true(rail_window(&rail, (int)rng_below(&rng, 3)) >= 128 << 10);
        assert_true(rail_slice_size(&rail, 4096) == 4096);
        assert_true(rail_slice_size(&rail, 256 << 10) >= 64 << 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_is_found_and_the_window_fills_the_line),
        cmocka_unit_test(little_traffic_does_not_lower_the_rate),
        cmocka_unit_test(a_slower_line_is_noticed),
        cmocka_unit_test(late_answers_are_no_burst),
        cmocka_unit_test(bursts_say_that_a_line_is_faster),
        cmocka_unit_test(background_leaves_room),
        cmocka_unit_test(scores_prefer_the_sooner),
        cmocka_unit_test(silence_needs_somebody_who_speaks),
        cmocka_unit_test(states_follow_connects),
        cmocka_unit_test(books_balance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
