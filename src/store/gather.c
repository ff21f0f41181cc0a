/* SPDX-License-Identifier: Apache-2.0
 *
 * store/gather.c - a stack that threads push to and the loop takes as a whole, a queue a kind, and
 * gates that the threads sleep at.
 *
 * A gate is a word that is counted up, and then its sleepers are woken, all with one system call.
 * Askers of one pile mostly have one gate, others mostly have others; who wakes for nothing looks
 * at its question and sleeps again. So the choice of the gate matters to speed only.
 *
 * While answers are brief nobody sleeps (store/pace.h): askers look, and the loop gives way to
 * those it has just answered, until they are back or have had the time, so that they leave with
 * those who waited meanwhile. Else the threads fall into two halves, one of which always waits for
 * the flight of the other: twice the flights, each half as full.
 *
 * Memory order: a push releases what the asker wrote, the taking of the pile acquires it.
 * `answered` releases the answer. It is set before its gate is counted up (release): an asker that
 * read the gate after that (acquire) sees it, one that read it before does not fall asleep. */
#include "store/gather.h"

#include <sched.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/futex.h"
#include "store/pace.h"

enum { GATES = 16, GIVE_WAY_MOST = 8 };

struct gate {
    _Alignas(64) _Atomic uint32_t opened; /* times; counted by the loop */
};

/* Of one kind. */
struct lane {
    struct gather *gather;
    uint32_t kind;
    struct gather_op *head; /* waits for a flight, in the order of its coming */
    struct gather_op *tail;
    uint32_t waiting;
    uint32_t flights;
    struct env_timer late;
};

struct gather {
    struct gather_options options;
    struct lane lanes[GATHER_KINDS_MAX];
    struct env_timer timer; /* serves when posts are full */
    bool serving;           /* serve() comes soon */
    bool going;             /* on_go() has the questions of a lane: it is not to be added to */
    uint32_t gates_due;     /* to be opened: one bit each */
    uint32_t answered;      /* since the loop last gave way to them */

    _Alignas(64) _Atomic(struct gather_op *) pile; /* pushed to by askers, emptied by the loop */
    _Atomic uint32_t gate; /* of those who ask now: the loop chooses, a guess is enough */
    struct gate gates[GATES];
    _Alignas(64) struct pace pace;
};

static void serve(void *ctx);
static void on_late(void *ctx);

enum status gather_create(const struct gather_options *options, struct gather **out)
{
    struct gather *gather = aligned_alloc(_Alignof(struct gather), sizeof(*gather));
    ASSERT(options->kinds > 0 && options->kinds <= GATHER_KINDS_MAX);

    if (gather == NULL) return STATUS_NO_MEMORY;
    *gather = (struct gather){ .options = *options };
    pace_init(&gather->pace);
    env_timer_init(&gather->timer, serve, gather);
    for (uint32_t kind = 0; kind < options->kinds; kind++) {
        struct lane *lane = &gather->lanes[kind];
        ASSERT(options->flights[kind] > 0);
        lane->gather = gather;
        lane->kind = kind;
        env_timer_init(&lane->late, on_late, lane);
    }
    *out = gather;
    return STATUS_OK;
}

void gather_destroy(struct gather *gather)
{
    if (gather == NULL) return;
    ASSERT(atomic_load(&gather->pile) == NULL);
    env_timer_cancel(gather->options.env, &gather->timer);
    for (uint32_t kind = 0; kind < gather->options.kinds; kind++) {
        ASSERT(gather->lanes[kind].waiting == 0);
        env_timer_cancel(gather->options.env, &gather->lanes[kind].late);
    }
    free(gather);
}

/* ---- flights ---- */

static void lane_queue(struct lane *lane, struct gather_op *op)
{
    op->next = NULL;
    if (lane->head == NULL) {
        lane->head = op;
    } else {
        lane->tail->next = op;
    }
    lane->tail = op;
    lane->waiting++;
}

static void lane_go(struct lane *lane)
{
    const struct gather_options *options = &lane->gather->options;

    lane->flights++;
    lane->gather->going = true;
    lane->head = options->on_go(options->ctx, lane->kind, lane->head);
    lane->gather->going = false;
    lane->waiting = 0; /* the rest is seldom, and short */
    for (const struct gather_op *op = lane->head; op != NULL; op = op->next)
        lane->waiting++;
}

static bool lane_may_go(const struct lane *lane)
{
    const uint32_t usual = lane->gather->options.flights[lane->kind];
    return lane->flights < (lane->waiting >= GATHER_CROWD ? usual + 1 : usual);
}

static void late_in(struct lane *lane)
{
    struct env *env = lane->gather->options.env;
    env_timer_set(env, &lane->late, env_now_ns(env) + GATHER_LATE_MS * ENV_NS_PER_MS);
}

/* Sends what waits, as far as it may go. */
static void lane_serve(struct lane *lane)
{
    while (lane->head != NULL && lane_may_go(lane))
        lane_go(lane);
    if (lane->head != NULL && !env_timer_armed(&lane->late)) late_in(lane);
}

/* Whoever waits has waited for as long, or for less if others have left meanwhile. */
static void on_late(void *ctx)
{
    struct lane *lane = ctx;

    if (lane->head != NULL && lane->flights < GATHER_FLIGHTS_MAX) lane_go(lane);
    if (lane->head != NULL) late_in(lane);
}

/* ---- the loop ---- */

static void open_gates(struct gather *gather)
{
    while (gather->gates_due != 0) {
        const uint32_t gate = (uint32_t)__builtin_ctz(gather->gates_due);
        gather->gates_due &= gather->gates_due - 1;
        atomic_fetch_add_explicit(&gather->gates[gate].opened, 1, memory_order_release);
        futex_wake(&gather->gates[gate].opened, UINT32_MAX);
    }
}

/* Into the queues; how many. */
static uint32_t take_pile(struct gather *gather)
{
    const uint32_t gate = atomic_load_explicit(&gather->gate, memory_order_relaxed);
    struct gather_op *op = atomic_exchange_explicit(&gather->pile, NULL, memory_order_acquire);
    struct gather_op *next;
    uint32_t count = 0;

    if (op == NULL) return 0;
    atomic_store_explicit(&gather->gate, (gate + 1) % GATES, memory_order_relaxed);
    for (; op != NULL; op = next) {
        next = op->next;
        ASSERT(op->kind < gather->options.kinds);
        lane_queue(&gather->lanes[op->kind], op);
        count++;
    }
    return count;
}

/* What those who were answered ask next, if they are quick. */
static void take_back(struct gather *gather)
{
    uint32_t back = take_pile(gather);

    for (int i = 0; i < GIVE_WAY_MOST && back < gather->answered && pace_looks(&gather->pace);
         i++) {
        sched_yield();
        back += take_pile(gather);
    }
    gather->answered = 0;
}

static void serve(void *ctx)
{
    struct gather *gather = ctx;

    gather->serving = false;
    open_gates(gather);
    take_back(gather);
    for (uint32_t kind = 0; kind < gather->options.kinds; kind++)
        lane_serve(&gather->lanes[kind]);
}

static void serve_soon(struct gather *gather)
{
    if (gather->serving) return;
    gather->serving = true;
    if (env_post(gather->options.env, serve, gather) != STATUS_OK)
        env_timer_set(gather->options.env, &gather->timer, 0);
}

void gather_landed(struct gather *gather, uint32_t kind)
{
    ASSERT(gather->lanes[kind].flights > 0);
    gather->lanes[kind].flights--;
    serve_soon(gather);
}

void gather_answer(struct gather *gather, struct gather_op *op)
{
    if (gather->answered++ == 0 && !gather->going && pace_looks(&gather->pace))
        (void)take_pile(gather); /* those who come from here on are back */
    gather->gates_due |= UINT32_C(1) << op->gate;
    atomic_store_explicit(&op->answered, true, memory_order_release);
    serve_soon(gather);
}

/* ---- the threads ---- */

/* Takes its own question back, if nobody else has come meanwhile. */
static bool give_up(struct gather *gather, struct gather_op *op)
{
    struct gather_op *expected = op;
    return atomic_compare_exchange_strong(&gather->pile, &expected, NULL);
}

static bool is_answered(const struct gather_op *op)
{
    return atomic_load_explicit(&op->answered, memory_order_acquire);
}

static void sleep_at(struct gate *gate, const struct gather_op *op)
{
    for (;;) {
        const uint32_t opened = atomic_load_explicit(&gate->opened, memory_order_acquire);
        if (is_answered(op)) return;
        futex_wait(&gate->opened, opened, UINT64_MAX);
    }
}

static void wait_for(struct gather *gather, const struct gather_op *op)
{
    const uint64_t from_ns = env_real_now_ns();
    const uint64_t brief_ns = PACE_BRIEF_US * ENV_NS_PER_US;

    while (pace_looks(&gather->pace) && !is_answered(op) && env_real_now_ns() - from_ns < brief_ns)
        sched_yield();
    sleep_at(&gather->gates[op->gate], op);
    pace_note(&gather->pace, env_real_now_ns() - from_ns < brief_ns);
}

enum status gather_ask(struct gather *gather, struct gather_op *op)
{
    op->gate = atomic_load_explicit(&gather->gate, memory_order_relaxed);
    atomic_init(&op->answered, false);
    struct gather_op *next = atomic_load_explicit(&gather->pile, memory_order_relaxed);
    do {
        op->next = next;
    } while (!atomic_compare_exchange_weak_explicit(&gather->pile, &next, op, memory_order_release,
                                                    memory_order_relaxed));
    /* From here on it is the loop's. Whoever found the pile empty wakes the loop. While posts are
     * full it must insist, unless it is alone: others count on it. */
    while (next == NULL && env_post(gather->options.env, serve, gather) != STATUS_OK) {
        if (give_up(gather, op)) return STATUS_FULL;
    }
    wait_for(gather, op);
    return STATUS_OK;
}
