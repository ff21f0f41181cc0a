/* SPDX-License-Identifier: Apache-2.0
 *
 * base/ring_test.c
 *
 * Goal:   nothing is lost, doubled or overtaken, and no wake-up is missed.
 * Method: a random walk against a plain array; then producers on threads against a consumer that
 *         sleeps, where a lost wake-up would hang (the test has a time limit). */
#include "base/ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

static uint64_t seed;

struct item {
    uint32_t producer;
    uint32_t number;
    uint8_t pad[5]; /* an odd size */
};

static void full_and_empty_are_answers(void **state)
{
    (void)state;
    struct ring *ring;
    uint32_t value = 7;

    assert_int_equal(ring_create(5, sizeof(value), &ring), STATUS_OK); /* rounded up to 8 */
    assert_int_equal(ring_pop(ring, &value), STATUS_AGAIN);
    assert_int_equal(value, 7);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(ring_push(ring, &i), STATUS_OK);
    }
    assert_int_equal(ring_push(ring, &value), STATUS_FULL);
    assert_int_equal(ring_count(ring), 8);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(ring_pop(ring, &value), STATUS_OK);
        assert_int_equal(value, i);
    }
    assert_int_equal(ring_pop(ring, &value), STATUS_AGAIN);
    ring_destroy(ring);
    ring_destroy(NULL);
}

static void a_walk_matches_an_array(void **state)
{
    (void)state;
    enum { STEPS = 20000, SIZE = 16 };
    struct ring *ring;
    struct rng rng;
    uint32_t pushed = 0, popped = 0;

    rng_init(&rng, seed);
    assert_int_equal(ring_create(SIZE, sizeof(struct item), &ring), STATUS_OK);
    for (int step = 0; step < STEPS; step++) {
        struct item item = { .number = pushed };
        memset(item.pad, (int)(pushed & 0xff), sizeof(item.pad));
        if (rng_below(&rng, 2) == 0) {
            const enum status expected = pushed - popped == SIZE ? STATUS_FULL : STATUS_OK;
            assert_int_equal(ring_push(ring, &item), expected);
            pushed += expected == STATUS_OK;
        } else {
            const enum status expected = pushed == popped ? STATUS_AGAIN : STATUS_OK;
            assert_int_equal(ring_pop(ring, &item), expected);
            if (expected != STATUS_OK) continue;
            assert_int_equal(item.number, popped);
            assert_int_equal(item.pad[4], popped & 0xff);
            popped++;
        }
        assert_int_equal(ring_count(ring), pushed - popped);
    }
    ring_destroy(ring);
}

enum { PRODUCERS = 3, ITEMS_EACH = 30000 };

struct producer {
    struct ring *ring;
    uint32_t id;
};

static void *produce(void *arg)
{
    const struct producer *producer = arg;
    for (uint32_t i = 0; i < ITEMS_EACH;) {
        const struct item item = { .producer = producer->id, .number = i };
        if (ring_push(producer->ring, &item) == STATUS_OK) i++;
    }
    return NULL;
}

static void producers_on_threads_keep_their_order(void **state)
{
    (void)state;
    struct ring *ring;
    pthread_t threads[PRODUCERS];
    struct producer producers[PRODUCERS];
    uint32_t next[PRODUCERS] = { 0 };
    struct item item;

    assert_int_equal(ring_create(64, sizeof(struct item), &ring), STATUS_OK);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){ .ring = ring, .id = i };
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (uint32_t left = PRODUCERS * ITEMS_EACH; left > 0;) {
        if (ring_pop(ring, &item) != STATUS_OK) {
            ring_wait(ring, UINT64_MAX);
            continue;
        }
        assert_in_range(item.producer, 0, PRODUCERS - 1);
        assert_int_equal(item.number, next[item.producer]++);
        left--;
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(next[i], ITEMS_EACH);
    }
    assert_int_equal(ring_pop(ring, &item), STATUS_AGAIN);
    ring_destroy(ring);
}

/* Strict ping-pong: both sides sleep before every message, so that each wake-up counts. */
struct table {
    struct ring *there, *back;
    int rounds;
};

static void take_or_sleep(struct ring *ring, uint32_t *value)
{
    while (ring_pop(ring, value) != STATUS_OK) {
        ring_wait(ring, UINT64_MAX);
    }
}

static void *answer(void *arg)
{
    const struct table *table = arg;
    for (int i = 0; i < table->rounds; i++) {
        uint32_t value;
        take_or_sleep(table->there, &value);
        assert_int_equal(ring_push(table->back, &value), STATUS_OK);
    }
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    struct table table = { .rounds = 5000 };
    pthread_t thread;

    assert_int_equal(ring_create(1, sizeof(uint32_t), &table.there), STATUS_OK);
    assert_int_equal(ring_create(1, sizeof(uint32_t), &table.back), STATUS_OK);
    assert_int_equal(pthread_create(&thread, NULL, answer, &table), 0);
    for (uint32_t i = 0; i < (uint32_t)table.rounds; i++) {
        uint32_t value = 0;
        assert_int_equal(ring_push(table.there, &i), STATUS_OK);
        take_or_sleep(table.back, &value);
        assert_int_equal(value, i);
    }
    pthread_join(thread, NULL);
    ring_destroy(table.there);
    ring_destroy(table.back);
}

static void wake_is_remembered_and_waits_end(void **state)
{
    (void)state;
    struct ring *ring;

    assert_int_equal(ring_create(4, 4, &ring), STATUS_OK);
    ring_wake(ring);
    ring_wait(ring, UINT64_MAX); /* returns: it was woken before */
    ring_wait(ring, 1000000);    /* returns: the time is over */
    ring_wait(ring, 0);
    ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_and_empty_are_answers),
        cmocka_unit_test(a_walk_matches_an_array),
        cmocka_unit_test(producers_on_threads_keep_their_order),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(wake_is_remembered_and_waits_end),
    };

    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
