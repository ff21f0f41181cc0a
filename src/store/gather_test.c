/* SPDX-License-Identifier: Apache-2.0
 *
 * Goal: every question of a thread is answered once and with its own answer, whatever is taken
 * together, whenever it lands, and however many questions of other kinds are under way; and no
 * flight holds up the questions behind it for ever.
 *
 * Method: real threads and a real loop. Flights take some of what waits, land at once or after a
 * while, and answer then or later, item by item, as a seed says; in spells, so that askers look for
 * their answers and sleep in turns. */
#include "store/gather.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/rng.h"
#include "seed.h"

static uint64_t seed;

enum { ASKERS = 8, QUESTIONS = 400, KINDS = 3, FLIGHT_MAX = 5, LATE_QUESTIONS = 20 };
enum { SPELL = 400, SPELL_LONG = 8, SPELL_QUESTIONS = 2000 };

struct question {
    struct gather_op op; /* first */
    uint64_t number;
    uint64_t answer;
};

struct world {
    struct env *env;
    struct gather *gather;
    struct rng rng;
    uint32_t flights[KINDS]; /* that have not landed */
    uint64_t answers;
    _Atomic uint32_t done; /* askers that are through: counted by them */
    _Atomic uint32_t wrong;
    struct flight *held; /* late test */
    uint32_t boarded;    /* spells test: flights */
};

struct flight {
    struct world *world;
    struct env_timer timer;
    uint32_t kind;
    bool landed;
    uint32_t count;
    struct question *questions[FLIGHT_MAX];
};

struct asker {
    struct world *world;
    uint32_t number;
    uint32_t questions;
};

/* ---- threads ---- */

static void *ask_all(void *ctx)
{
    const struct asker *asker = ctx;
    struct world *world = asker->world;
    struct question question;

    for (uint32_t i = 0; i < asker->questions; i++) {
        question.op.kind = (asker->number + i) % KINDS;
        question.number = (uint64_t)asker->number << 32 | i;
        question.answer = 0;
        const enum status status = gather_ask(world->gather, &question.op);
        if (status != STATUS_OK || question.answer != ~question.number)
            atomic_fetch_add(&world->wrong, 1);
    }
    atomic_fetch_add(&world->done, 1);
    return NULL;
}

/* An answer may come before the landing. */
static bool any_under_way(const struct world *world)
{
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        if (world->flights[kind] > 0) return true;
    }
    return false;
}

static void run(struct world *world, uint32_t questions)
{
    struct asker askers[ASKERS];
    pthread_t threads[ASKERS];

    for (uint32_t i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){ world, i, questions };
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all, &askers[i]), 0);
    }
    while (atomic_load(&world->done) < ASKERS || any_under_way(world))
        (void)env_poll(world->env, ENV_NS_PER_MS);
    for (uint32_t i = 0; i < ASKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&world->wrong), 0);
    assert_int_equal(world->answers, ASKERS * questions);
}

/* ---- flights ---- */

static void answer_one(struct flight *flight)
{
    struct question *question = flight->questions[--flight->count];
    question->answer = ~question->number;
    flight->world->answers++;
    gather_answer(flight->world->gather, &question->op);
}

static void land(struct flight *flight)
{
    struct world *world = flight->world;

    assert_false(flight->landed);
    assert_in_range(world->flights[flight->kind], 1, GATHER_FLIGHTS_MAX);
    flight->landed = true;
    world->flights[flight->kind]--;
    gather_landed(world->gather, flight->kind);
}

static void flight_end(struct flight *flight)
{
    if (!flight->landed) land(flight);
    while (flight->count > 0)
        answer_one(flight);
    free(flight);
}

/* Some of it happens now, the rest some time. */
static void on_step(void *ctx)
{
    struct flight *flight = ctx;
    struct world *world = flight->world;

    if (!flight->landed && rng_below(&world->rng, 2) == 0) land(flight);
    while (flight->count > 0 && rng_below(&world->rng, 3) > 0)
        answer_one(flight);
    if (flight->landed && flight->count == 0) {
        free(flight);
        return;
    }
    const uint64_t pause_ns = rng_below(&world->rng, 2) * 50000;
    env_timer_set(world->env, &flight->timer, env_now_ns(world->env) + pause_ns);
}

static struct flight *board(struct world *world, uint32_t kind, struct gather_op **ops,
                            uint32_t most)
{
    struct flight *flight = calloc(1, sizeof(*flight));

    assert_non_null(flight);
    assert_non_null(*ops);
    flight->world = world;
    flight->kind = kind;
    env_timer_init(&flight->timer, on_step, flight);
    for (; *ops != NULL && flight->count < most; *ops = (*ops)->next) {
        struct question *question = (struct question *)(void *)*ops;
        assert_int_equal(question->op.kind, kind);
        assert_int_equal(question->answer, 0);
        flight->questions[flight->count++] = question;
    }
    world->flights[kind]++;
    return flight;
}

static struct gather_op *go_as_it_comes(void *ctx, uint32_t kind, struct gather_op *ops)
{
    struct world *world = ctx;
    struct flight *flight =
        board(world, kind, &ops, 1 + (uint32_t)rng_below(&world->rng, FLIGHT_MAX));

    if (rng_below(&world->rng, 4) == 0) {
        flight_end(flight);
    } else {
        env_timer_set(world->env, &flight->timer, 0);
    }
    return ops;
}

/* The first flight ends only when most of the questions of others have been answered. */
static struct gather_op *go_past_the_first(void *ctx, uint32_t kind, struct gather_op *ops)
{
    struct world *world = ctx;
    struct flight *flight = board(world, kind, &ops, 1);

    if (world->held == NULL && world->answers == 0) {
        world->held = flight;
        return ops;
    }
    flight_end(flight);
    if (world->held != NULL && world->answers >= (ASKERS - 1) * LATE_QUESTIONS) {
        flight_end(world->held);
        world->held = NULL;
    }
    return ops;
}

/* Hundreds of answers at once, so that askers look for them, then some that take their time, so
 * that they sleep, and again. */
static struct gather_op *go_by_spells(void *ctx, uint32_t kind, struct gather_op *ops)
{
    struct world *world = ctx;
    struct flight *flight = board(world, kind, &ops, FLIGHT_MAX);

    if (world->boarded++ % SPELL < SPELL_LONG) {
        env_timer_set(world->env, &flight->timer, env_now_ns(world->env) + ENV_NS_PER_MS);
    } else {
        flight_end(flight);
    }
    return ops;
}

/* ---- tests ---- */

static void world_open(struct world *world,
                       struct gather_op *(*on_go)(void *, uint32_t, struct gather_op *))
{
    struct gather_options options = {
        .kinds = KINDS, .flights = { 1, 1, 2 }, .on_go = on_go, .ctx = world
    };
    struct errmsg err;

    *world = (struct world){ 0 };
    rng_init(&world->rng, seed);
    assert_int_equal(env_real_create(NULL, &world->env, &err), STATUS_OK);
    options.env = world->env;
    assert_int_equal(gather_create(&options, &world->gather), STATUS_OK);
}

static void world_close(struct world *world)
{
    gather_destroy(world->gather);
    env_real_destroy(world->env);
}

static void every_question_is_answered(void **state)
{
    struct world world;
    (void)state;

    world_open(&world, go_as_it_comes);
    run(&world, QUESTIONS);
    world_close(&world);
}

static void a_flight_that_stays_away_holds_up_nobody(void **state)
{
    struct world world;
    (void)state;

    world_open(&world, go_past_the_first);
    run(&world, LATE_QUESTIONS);
    assert_null(world.held);
    world_close(&world);
}

static void askers_that_look_and_sleep_are_answered(void **state)
{
    struct world world;
    (void)state;

    world_open(&world, go_by_spells);
    run(&world, SPELL_QUESTIONS);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_is_answered),
        cmocka_unit_test(a_flight_that_stays_away_holds_up_nobody),
        cmocka_unit_test(askers_that_look_and_sleep_are_answered),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
