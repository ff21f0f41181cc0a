/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_test.c
 *
 * Goal:    the engine moves exactly the bytes it was asked to, over every path, refuses what it
 *          must, and tells each end once; handles survive misuse.
 * Method:  two engines on one real loop, over real sockets and shared memory. Boundary cases by
 *          hand; a random walk of reads and writes of 1 B to 8 MiB against a model in plain memory.
 *          `SEED=n` replays it. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "transfer/wire.h"

#define CHECK(condition) assert_true(condition)

#ifdef YOLK_EXPENSIVE_ASSERTS
/* Sanitizers take their time. */
enum { MEMORY = 24 << 20, CUT_MEMORY = 8 << 20, WALK_MEMORY = 4 << 20, WALK_ROUNDS = 24 };
#else
enum { MEMORY = 64 << 20, CUT_MEMORY = 32 << 20, WALK_MEMORY = 16 << 20, WALK_ROUNDS = 40 };
#endif

struct pair {
    struct env *env;
    struct yolk_transfer *a, *b;
    struct yolk_transfer_segment segment; /* of b, at a */
    uint8_t *here;                        /* a's memory */
    uint8_t *there;                       /* b's */
    bool shared;
};

static void pair_open(struct pair *pair, size_t size, bool shm,
                      const struct yolk_transfer_options *options)
{
    struct yolk_transfer_options own =
        options != NULL ? *options : (struct yolk_transfer_options){ 0 };
    void *memory;

    own.forbid_shm = !shm;
    pair->shared = shm;
    CHECK(env_real_create(NULL, &pair->env, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(pair->env, &own, &pair->a, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(pair->env, &own, &pair->b, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(pair->a, size, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL) == STATUS_OK);
    pair->here = memory;
    CHECK(yolk_transfer_alloc(pair->b, size, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL) == STATUS_OK);
    pair->there = memory;
    CHECK(yolk_transfer_open(pair->a, yolk_transfer_name(pair->b), &pair->segment) == STATUS_OK);
}

static void pair_close(struct pair *pair)
{
    yolk_transfer_destroy(pair->a);
    yolk_transfer_destroy(pair->b);
    env_real_destroy(pair->env);
}

static struct yolk_transfer_request request(const struct pair *pair,
                                            enum yolk_transfer_opcode opcode, size_t here,
                                            size_t there, size_t length)
{
    return (struct yolk_transfer_request){ .opcode = opcode,
                                           .local = pair->here + here,
                                           .segment = pair->segment,
                                           .remote = (uintptr_t)pair->there + there,
                                           .length = length };
}

static struct yolk_transfer_result run(struct pair *pair, const struct yolk_transfer_request *req,
                                       struct yolk_transfer_explain *explain)
{
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    CHECK(yolk_transfer_batch_create(pair->a, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(pair->a, batch, req, 1) == STATUS_OK);
    CHECK(yolk_transfer_wait(pair->a, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(pair->a, batch, 0, &result) == STATUS_OK);
    if (explain != NULL) CHECK(yolk_transfer_explain(pair->a, batch, 0, explain) == STATUS_OK);
    CHECK(yolk_transfer_batch_free(pair->a, batch) == STATUS_OK);
    return result;
}

static void fill(uint8_t *data, size_t len, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    rng_fill(&rng, data, len);
}

/* Sizes from 1 byte to `memory`. */
static void move_both_ways(bool shm, enum yolk_transfer_path path, size_t memory)
{
    const size_t sizes[] = { 1, 4095, 4096, 65536, 65537, 256 << 10, memory / 13, memory - 3 };
    struct pair pair;

    pair_open(&pair, memory, shm, NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const size_t len = sizes[i], at = len < 1 << 20 ? 77 : 3;
        struct yolk_transfer_explain explain;
        struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, at, at, len);
        req.checksum = i % 2 == 0;
        fill(pair.here + at, len, i);
        struct yolk_transfer_result result = run(&pair, &req, &explain);
        assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
        assert_int_equal(result.bytes, len);
        assert_true(memcmp(pair.here + at, pair.there + at, len) == 0);
        if (len >= 65536) assert_int_equal(explain.path, path);
        memset(pair.here + at, 0, len);
        req.opcode = YOLK_TRANSFER_READ;
        result = run(&pair, &req, &explain);
        assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
        assert_true(memcmp(pair.here + at, pair.there + at, len) == 0);
        assert_int_equal(explain.path, path);
        assert_int_equal(explain.bytes, len);
    }
    pair_close(&pair);
}

static void bytes_arrive_over_tcp(void **state)
{
    (void)state;
    move_both_ways(false, YOLK_TRANSFER_PATH_TCP, MEMORY);
}

static void bytes_arrive_over_shm(void **state)
{
    (void)state;
    move_both_ways(true, YOLK_TRANSFER_PATH_SHM, MEMORY);
}

static void shared_memory_can_be_forbidden(void **state)
{
    (void)state;
    assert_int_equal(setenv("MC_FORCE_TCP", "1", 1), 0);
    move_both_ways(true, YOLK_TRANSFER_PATH_TCP, 8 << 20);
    assert_int_equal(setenv("MC_FORCE_TCP", "0", 1), 0);
    move_both_ways(true, YOLK_TRANSFER_PATH_SHM, 8 << 20);
    assert_int_equal(unsetenv("MC_FORCE_TCP"), 0);
}

/* Two engines over memory that malloc() gave. */
static void user_pair_open(struct pair *pair, size_t size, bool shm)
{
    const struct yolk_transfer_options options = { .forbid_shm = !shm };

    CHECK(env_real_create(NULL, &pair->env, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(pair->env, &options, &pair->a, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(pair->env, &options, &pair->b, NULL) == STATUS_OK);
    pair->here = malloc(size);
    pair->there = malloc(size);
    CHECK(pair->here != NULL && pair->there != NULL);
    CHECK(yolk_transfer_register(pair->a, pair->here, size, NULL, 0) == STATUS_OK);
    CHECK(yolk_transfer_register(pair->b, pair->there, size, NULL, YOLK_TRANSFER_REMOTE_ALL) ==
          STATUS_OK);
    CHECK(yolk_transfer_open(pair->a, yolk_transfer_name(pair->b), &pair->segment) == STATUS_OK);
}

static void user_pair_close(struct pair *pair)
{
    pair_close(pair);
    free(pair->here);
    free(pair->there);
}

static void memory_a_user_brought_is_read_from_the_other_process(void **state)
{
    (void)state;
    enum { SIZE = 3 << 20 };
    for (int shm = 0; shm <= 1; shm++) {
        const enum yolk_transfer_path path = shm ? YOLK_TRANSFER_PATH_VM : YOLK_TRANSFER_PATH_TCP;
        struct yolk_transfer_explain explain;
        struct pair pair;
        user_pair_open(&pair, SIZE, shm != 0);
        fill(pair.here, SIZE, 1);
        struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 5, 5, SIZE - 9);
        CHECK(run(&pair, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
        assert_int_equal(explain.path, path);
        CHECK(memcmp(pair.here + 5, pair.there + 5, SIZE - 9) == 0);
        fill(pair.there, SIZE, 2);
        req = request(&pair, YOLK_TRANSFER_READ, 5, 5, SIZE - 9);
        CHECK(run(&pair, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
        assert_int_equal(explain.path, path);
        CHECK(memcmp(pair.here + 5, pair.there + 5, SIZE - 9) == 0);
        /* The owner takes it back: nobody reads it any more, and nobody gets a wrong byte. */
        CHECK(yolk_transfer_unregister(pair.b, pair.there) == STATUS_OK);
        CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_INVALID);
        CHECK(yolk_transfer_register(pair.b, pair.there, SIZE, NULL, YOLK_TRANSFER_REMOTE_WRITE) ==
              STATUS_OK);
        CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_INVALID);
        user_pair_close(&pair);
    }
}

static enum status borrow(struct pair *pair, uint64_t remote, uint64_t length, uint64_t epoch,
                          struct yolk_transfer_loan *loan)
{
    enum status status = STATUS_AGAIN;

    for (int i = 0; i < 1000 && status == STATUS_AGAIN; i++) {
        status = yolk_transfer_borrow(pair->a, pair->segment, remote, length, epoch, loan);
        if (status == STATUS_AGAIN) env_poll(pair->env, 10 * ENV_NS_PER_MS);
    }
    return status;
}

static void loans_are_looked_at_and_returned(void **state)
{
    (void)state;
    struct yolk_transfer_loan loan, other;
    struct pair pair;

    pair_open(&pair, 1 << 20, true, NULL);
    const uint64_t remote = (uintptr_t)pair.there;
    fill(pair.there, 1 << 20, 4);
    CHECK(borrow(&pair, remote + 4096, 65536, 0, &loan) == STATUS_OK);
    CHECK(loan.data != pair.there + 4096); /* a mapping of its own */
    CHECK(memcmp(loan.data, pair.there + 4096, 65536) == 0);
    pair.there[4096] ^= 1;
    CHECK(*(const uint8_t *)loan.data == pair.there[4096]); /* and no copy */
    CHECK(yolk_transfer_loan_check(pair.a, loan) == STATUS_OK);
    yolk_transfer_loan_ahead(pair.a, loan, 0, 0);
    yolk_transfer_loan_ahead(pair.a, loan, 65536, 1);
    yolk_transfer_loan_ahead(pair.a, loan, 4096, UINT64_MAX); /* no further than the offer */
    yolk_transfer_loan_ahead(pair.a, loan, UINT64_MAX, 1);
    CHECK(borrow(&pair, remote, (1 << 20) + 1, 0, &other) == STATUS_NOT_FOUND);
    CHECK(borrow(&pair, 4096, 1, 0, &other) == STATUS_NOT_FOUND);
    CHECK(borrow(&pair, remote, 0, 0, &other) == STATUS_INVALID);
    CHECK(borrow(&pair, remote, 1, 7, &other) == STATUS_STALE);
    CHECK(borrow(&pair, remote, 1, 1, &other) == STATUS_OK);
    CHECK(yolk_transfer_set_epoch(pair.b, 2) == STATUS_OK);
    CHECK(yolk_transfer_loan_check(pair.a, other) == STATUS_STALE);
    CHECK(yolk_transfer_return(pair.a, other) == STATUS_OK);
    CHECK(yolk_transfer_return(pair.a, other) == STATUS_INVALID);
    CHECK(yolk_transfer_loan_check(pair.a, other) == STATUS_INVALID);
    /* The owner withdraws: the loan stays readable, and says that it is worth nothing. */
    CHECK(yolk_transfer_free(pair.b, pair.there) == STATUS_OK);
    CHECK(yolk_transfer_loan_check(pair.a, loan) == STATUS_NOT_FOUND);
    (void)((const volatile uint8_t *)loan.data)[0]; /* or we would not get any further */
    CHECK(yolk_transfer_return(pair.a, loan) == STATUS_OK);
    /* Our own segment. */
    CHECK(yolk_transfer_open(pair.a, yolk_transfer_name(pair.a), &pair.segment) == STATUS_OK);
    CHECK(borrow(&pair, (uintptr_t)pair.here, 4096, 0, &loan) == STATUS_OK);
    CHECK(loan.data == pair.here);
    yolk_transfer_loan_ahead(pair.a, loan, 0, UINT64_MAX); /* it is ours already */
    CHECK(yolk_transfer_free(pair.a, pair.here) == STATUS_BUSY);
    pair_close(&pair); /* with a loan out */
    user_pair_open(&pair, 1 << 20, true);
    CHECK(borrow(&pair, (uintptr_t)pair.there, 4096, 0, &loan) == STATUS_UNSUPPORTED);
    user_pair_close(&pair);
}

static void local_segment_is_a_copy(void **state)
{
    (void)state;
    struct pair pair;
    struct yolk_transfer_explain explain;

    pair_open(&pair, 16 << 20, false, NULL);
    CHECK(yolk_transfer_open(pair.a, yolk_transfer_name(pair.a), &pair.segment) == STATUS_OK);
    fill(pair.here, 6 << 20, 5);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 6 << 20);
    req.remote = (uintptr_t)pair.here + (8 << 20);
    assert_int_equal(run(&pair, &req, &explain).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(pair.here, pair.here + (8 << 20), 6 << 20);
    assert_int_equal(explain.path, YOLK_TRANSFER_PATH_LOCAL);
    req.remote = (uintptr_t)pair.here + 1; /* overlaps */
    assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_INVALID);
    req.remote = (uintptr_t)pair.there;
    assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_INVALID);
    pair_close(&pair);
}

static void expect_refused(struct pair *pair, struct yolk_transfer_request req, enum status reason)
{
    const struct yolk_transfer_result result = run(pair, &req, NULL);

    assert_int_equal(result.reason, reason);
    assert_true(result.state == YOLK_TRANSFER_INVALID || result.state == YOLK_TRANSFER_FAILED);
    assert_int_equal(result.bytes, 0);
}

static void bad_addresses(bool shm)
{
    const size_t size = 1 << 20;
    struct pair pair;
    struct yolk_transfer_request req;

    pair_open(&pair, size, shm, NULL);
    for (int opcode = YOLK_TRANSFER_READ; opcode <= YOLK_TRANSFER_WRITE; opcode++) {
        const struct yolk_transfer_request good = request(&pair, opcode, 0, 0, 32 << 10);
        assert_int_equal(run(&pair, &good, NULL).state, YOLK_TRANSFER_COMPLETED);
        req = good;
        req.remote += size - (32 << 10) + 1; /* one byte beyond */
        expect_refused(&pair, req, STATUS_NOT_FOUND);
        req.remote = (uintptr_t)pair.there - 1;
        expect_refused(&pair, req, STATUS_NOT_FOUND);
        req.remote = 4096;
        expect_refused(&pair, req, STATUS_NOT_FOUND);
        req.remote = UINT64_MAX - 5;
        expect_refused(&pair, req, STATUS_INVALID);
        req = good;
        req.local = pair.there; /* not ours */
        expect_refused(&pair, req, STATUS_NOT_FOUND);
        req.local = pair.here + size - 5;
        expect_refused(&pair, req, STATUS_NOT_FOUND);
        req = good;
        req.length = UINT64_MAX;
        expect_refused(&pair, req, STATUS_INVALID);
        req = good;
        req.class = YOLK_TRANSFER_CLASSES;
        expect_refused(&pair, req, STATUS_INVALID);
        req = good;
        req.segment.id = 0;
        expect_refused(&pair, req, STATUS_INVALID);
        req = good;
        req.length = 0;
        assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_COMPLETED);
        assert_int_equal(run(&pair, &good, NULL).state, YOLK_TRANSFER_COMPLETED);
    }
    pair_close(&pair);
}

static void bad_addresses_are_refused(void **state)
{
    (void)state;
    bad_addresses(false);
    bad_addresses(true);
}

static void permissions_hold(void **state)
{
    (void)state;
    struct pair pair;
    void *memory;

    pair_open(&pair, 1 << 20, true, NULL);
    for (unsigned flags = 0; flags <= YOLK_TRANSFER_REMOTE_ALL; flags++) {
        CHECK(yolk_transfer_alloc(pair.b, 1 << 20, flags, &memory, NULL) == STATUS_OK);
        struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 64 << 10);
        req.remote = (uintptr_t)memory;
        const bool read = (flags & YOLK_TRANSFER_REMOTE_READ) != 0;
        const bool write = (flags & YOLK_TRANSFER_REMOTE_WRITE) != 0;
        assert_int_equal(run(&pair, &req, NULL).reason, read ? STATUS_OK : STATUS_DENIED);
        req.opcode = YOLK_TRANSFER_WRITE;
        assert_int_equal(run(&pair, &req, NULL).reason, write ? STATUS_OK : STATUS_DENIED);
        CHECK(yolk_transfer_free(pair.b, memory) == STATUS_OK);
        assert_int_equal(run(&pair, &req, NULL).reason, STATUS_NOT_FOUND);
        req.opcode = YOLK_TRANSFER_READ;
        assert_int_equal(run(&pair, &req, NULL).reason, STATUS_NOT_FOUND);
    }
    pair_close(&pair);
}

static void epochs_and_terms(bool shm)
{
    struct pair pair;

    pair_open(&pair, 1 << 20, shm, NULL);
    for (int opcode = YOLK_TRANSFER_READ; opcode <= YOLK_TRANSFER_WRITE; opcode++) {
        struct yolk_transfer_request req = request(&pair, opcode, 0, 0, 64 << 10);
        const uint64_t epoch = yolk_transfer_epoch(pair.b);
        req.epoch = epoch;
        req.term = (uint64_t)opcode + 5;
        CHECK(yolk_transfer_set_term(pair.b, req.term) == STATUS_OK);
        assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
        CHECK(yolk_transfer_set_epoch(pair.b, epoch + 1) == STATUS_OK);
        expect_refused(&pair, req, STATUS_STALE);
        req.epoch = epoch + 1;
        req.term--;
        expect_refused(&pair, req, STATUS_STALE);
        req.term = 0;
        assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
        req.generation = yolk_transfer_generation(pair.b);
        assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
        req.generation++;
        expect_refused(&pair, req, STATUS_STALE);
    }
    CHECK(yolk_transfer_set_epoch(pair.b, 1) == STATUS_STALE);
    CHECK(yolk_transfer_set_term(pair.b, 1) == STATUS_STALE);
    pair_close(&pair);
}

static void old_epochs_and_terms_are_refused(void **state)
{
    (void)state;
    epochs_and_terms(false);
    epochs_and_terms(true);
}

static void registration_refuses(void **state)
{
    (void)state;
    static uint8_t memory[65536];
    struct pair pair;

    pair_open(&pair, 1 << 20, false, NULL);
    CHECK(yolk_transfer_register(pair.a, memory + 4096, 8192, NULL, 3) == STATUS_OK);
    CHECK(yolk_transfer_register(pair.a, memory, 4097, NULL, 3) == STATUS_EXISTS);
    CHECK(yolk_transfer_register(pair.a, memory + 12287, 1, NULL, 3) == STATUS_EXISTS);
    CHECK(yolk_transfer_register(pair.a, memory + 5000, 10, NULL, 3) == STATUS_EXISTS);
    CHECK(yolk_transfer_register(pair.a, memory, 65536, NULL, 3) == STATUS_EXISTS);
    CHECK(yolk_transfer_register(pair.a, memory + 12288, 1, NULL, 3) == STATUS_OK);
    CHECK(yolk_transfer_register(pair.a, memory, 4096, NULL, 3) == STATUS_OK);
    CHECK(yolk_transfer_register(pair.a, NULL, 4096, NULL, 3) == STATUS_INVALID);
    CHECK(yolk_transfer_register(pair.a, memory + 20000, 0, NULL, 3) == STATUS_INVALID);
    CHECK(yolk_transfer_register(pair.a, memory + 20000, SIZE_MAX, NULL, 3) == STATUS_INVALID);
    CHECK(yolk_transfer_register(pair.a, memory + 20000, 1, NULL, 1u << 31) == STATUS_INVALID);
    CHECK(yolk_transfer_register(pair.a, memory + 20000, SIZE_MAX, NULL, YOLK_TRANSFER_POPULATE) ==
          STATUS_INVALID);
    CHECK(yolk_transfer_unregister(pair.a, memory + 1) == STATUS_NOT_FOUND);
    CHECK(yolk_transfer_unregister(pair.a, memory + 4096) == STATUS_OK);
    CHECK(yolk_transfer_unregister(pair.a, memory + 4096) == STATUS_NOT_FOUND);
    CHECK(yolk_transfer_free(pair.a, memory) == STATUS_NOT_FOUND);
    pair_close(&pair);
}

static void pages_can_be_made_ahead(void **state)
{
    (void)state;
    enum { SIZE = 3 << 20 };
    struct pair pair;
    void *memory;
    uint8_t *own = malloc(SIZE);

    CHECK(own != NULL);
    fill(own, SIZE, 3);
    pair_open(&pair, 1 << 20, false, NULL);
    const unsigned flags = YOLK_TRANSFER_REMOTE_READ | YOLK_TRANSFER_POPULATE;
    const enum status status = yolk_transfer_alloc(pair.a, SIZE, flags, &memory, NULL);
    if (status == STATUS_UNSUPPORTED) {
        print_message("SKIPPED: this kernel cannot populate\n");
    } else {
        CHECK(status == STATUS_OK && ((uint8_t *)memory)[SIZE - 1] == 0);
        CHECK(yolk_transfer_register(pair.a, own + 100, SIZE - 200, NULL, flags) == STATUS_OK);
        memcpy(memory, own, SIZE);
        fill(own, SIZE, 3);
        CHECK(memcmp(memory, own, SIZE) == 0);
        CHECK(yolk_transfer_register(pair.a, own, 10, NULL, flags) == STATUS_OK);
        CHECK(yolk_transfer_register(pair.a, own + 90, 20, NULL, flags) == STATUS_EXISTS);
    }
    pair_close(&pair);
    free(own);
}

static void handles_survive_misuse(void **state)
{
    (void)state;
    struct pair pair;
    struct yolk_transfer_batch batch, none = { 0 };
    struct yolk_transfer_result result;
    struct yolk_transfer_stats stats = { 0 };

    pair_open(&pair, 1 << 20, false, NULL);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 100);
    CHECK(yolk_transfer_batch_create(pair.a, 2, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_poll(pair.a, batch, 0, &result) == STATUS_INVALID);
    CHECK(yolk_transfer_submit(pair.a, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_BUSY);
    CHECK(yolk_transfer_unregister(pair.a, pair.here) == STATUS_BUSY);
    const struct yolk_transfer_request two[2] = { req, req };
    CHECK(yolk_transfer_submit(pair.a, batch, two, 2) == STATUS_FULL);
    CHECK(yolk_transfer_wait(pair.a, batch, 60 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_cancel(pair.a, batch, 0) == STATUS_OK); /* too late, and harmless */
    CHECK(yolk_transfer_poll_batch(pair.a, batch, &result) == STATUS_OK);
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_OK);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_INVALID);
    CHECK(yolk_transfer_submit(pair.a, batch, &req, 1) == STATUS_INVALID);
    CHECK(yolk_transfer_poll(pair.a, batch, 0, &result) == STATUS_INVALID);
    CHECK(yolk_transfer_wait(pair.a, batch, 1) == STATUS_INVALID);
    CHECK(yolk_transfer_batch_free(pair.a, none) == STATUS_INVALID);
    CHECK(yolk_transfer_close(pair.a, pair.segment) == STATUS_OK);
    CHECK(yolk_transfer_close(pair.a, pair.segment) == STATUS_INVALID);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_INVALID);
    CHECK(yolk_transfer_submit(NULL, batch, &req, 1) == STATUS_INVALID);
    CHECK(yolk_transfer_batch_create(NULL, 1, NULL, NULL, &batch) == STATUS_INVALID);
    CHECK(yolk_transfer_batch_create(pair.a, 0, NULL, NULL, &batch) == STATUS_INVALID);
    CHECK(yolk_transfer_open(pair.a, "no port", &pair.segment) == STATUS_INVALID);
    CHECK(yolk_transfer_open(pair.a, "host:99999", &pair.segment) == STATUS_INVALID);
    assert_string_equal(yolk_transfer_name(NULL), "");
    yolk_transfer_stats(pair.a, &stats);
    assert_int_equal(stats.tasks[YOLK_TRANSFER_COMPLETED], 1);
    yolk_transfer_destroy(NULL);
    pair_close(&pair);
}

/* ---- callbacks ---- */

struct calls {
    struct yolk_transfer *transfer;
    struct yolk_transfer_batch batch;
    unsigned tasks;
    unsigned batches;
    struct yolk_transfer_result whole;
};

static void on_task(void *ctx, const struct yolk_transfer_result *result)
{
    struct calls *calls = ctx;
    CHECK(result->state >= YOLK_TRANSFER_INVALID);
    CHECK(calls->batches == 0);
    calls->tasks++;
}

static void on_batch(void *ctx, const struct yolk_transfer_result *result)
{
    struct calls *calls = ctx;
    calls->batches++;
    calls->whole = *result;
    CHECK(yolk_transfer_batch_free(calls->transfer, calls->batch) == STATUS_OK);
}

static void callbacks_run_once_and_later(void **state)
{
    (void)state;
    struct pair pair;
    struct yolk_transfer_request req[3];
    struct calls calls = { 0 };

    pair_open(&pair, 1 << 20, false, NULL);
    calls.transfer = pair.a;
    for (int i = 0; i < 3; i++) {
        req[i] = request(&pair, YOLK_TRANSFER_READ, (size_t)i * 1000, 0, 1000);
        req[i].on_done = on_task;
        req[i].ctx = &calls;
    }
    req[1].remote = 1; /* ends alone */
    CHECK(yolk_transfer_batch_create(pair.a, 3, on_batch, &calls, &calls.batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(pair.a, calls.batch, req, 3) == STATUS_OK);
    assert_int_equal(calls.tasks, 0);
    CHECK(yolk_transfer_wait(pair.a, calls.batch, 60 * ENV_NS_PER_S) == STATUS_OK);
    assert_int_equal(calls.tasks, 3);
    assert_int_equal(calls.batches, 1);
    assert_int_equal(calls.whole.state, YOLK_TRANSFER_INVALID);
    assert_int_equal(calls.whole.reason, STATUS_NOT_FOUND);
    assert_int_equal(calls.whole.bytes, 2000);
    pair_close(&pair);
}

/* ---- cancel, deadline, peers that vanish ---- */

/* After a task has ended its range at the target is scribbled over; nothing may change it then. */
static void expect_quiet(struct pair *pair, uint8_t *range, size_t len)
{
    memset(range, 0x5a, len);
    for (int i = 0; i < 50; i++)
        env_poll(pair->env, ENV_NS_PER_MS);
    if (range[0] != 0x5a || memcmp(range, range + 1, len - 1) != 0) {
        fail_msg("something landed after the final state");
    }
}

/* Whether it was in time. */
static bool cancel_and_check(bool shm, int opcode, int turns)
{
    const size_t len = CUT_MEMORY;
    struct pair pair;
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    pair_open(&pair, len, shm, NULL);
    struct yolk_transfer_request req = request(&pair, opcode, 0, 0, len);
    memset(opcode == YOLK_TRANSFER_WRITE ? pair.here : pair.there, 0x11, len);
    CHECK(yolk_transfer_batch_create(pair.a, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(pair.a, batch, &req, 1) == STATUS_OK);
    for (int i = 0; i < turns; i++)
        env_poll(pair.env, ENV_NS_PER_MS);
    CHECK(yolk_transfer_cancel(pair.a, batch, 0) == STATUS_OK);
    CHECK(yolk_transfer_wait(pair.a, batch, 60 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(pair.a, batch, 0, &result) == STATUS_OK);
    CHECK(result.state == YOLK_TRANSFER_CANCELED || result.state == YOLK_TRANSFER_COMPLETED);
    expect_quiet(&pair, opcode == YOLK_TRANSFER_WRITE ? pair.there : pair.here, len);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_OK);
    req.length = 1 << 20; /* and the engine goes on */
    assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_COMPLETED);
    pair_close(&pair);
    return result.state == YOLK_TRANSFER_CANCELED;
}

static void a_cancelled_task_lands_no_more(void **state)
{
    (void)state;
    int cut = 0;

    for (int turns = 0; turns < 24; turns += 6) {
        for (int kind = 0; kind < 4; kind++) {
            cut += cancel_and_check(
                kind / 2 != 0, kind % 2 == 0 ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE, turns);
        }
    }
    assert_true(cut >= 4); /* those of the first turn at least */
}

static void deadlines_end_tasks(void **state)
{
    (void)state;
    struct pair pair;
    struct yolk_transfer_segment nobody;

    pair_open(&pair, 1 << 20, false, NULL);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 1 << 20);
    req.deadline_ns = 1;
    assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_TIMEOUT);
    req.deadline_ns = env_now_ns(pair.env) + 20 * ENV_NS_PER_MS;
    /* A port that accepts nobody's greeting: our own stream of zeros ends there. */
    CHECK(yolk_transfer_open(pair.a, "192.0.2.1:9", &nobody) == STATUS_OK);
    req.segment = nobody;
    const uint64_t before = env_now_ns(pair.env);
    const struct yolk_transfer_result result = run(&pair, &req, NULL);
    CHECK(result.state == YOLK_TRANSFER_TIMEOUT || result.state == YOLK_TRANSFER_FAILED);
    CHECK(env_now_ns(pair.env) - before < 2 * ENV_NS_PER_S);
    pair_close(&pair);
}

static void nobody_there_is_a_failure(void **state)
{
    (void)state;
    struct pair pair;
    char name[YOLK_TRANSFER_NAME_SIZE];

    pair_open(&pair, 1 << 20, false, NULL);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 4096);
    snprintf(name, sizeof(name), "%s", yolk_transfer_name(pair.b));
    yolk_transfer_destroy(pair.b);
    pair.b = NULL;
    const struct yolk_transfer_result result = run(&pair, &req, NULL);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_CONN_REFUSED);
    pair_close(&pair);
}

static void a_restarted_peer_is_another(bool shm)
{
    struct pair pair;
    char name[YOLK_TRANSFER_NAME_SIZE];
    void *memory;

    pair_open(&pair, 1 << 20, shm, NULL);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 4096);
    assert_int_equal(run(&pair, &req, NULL).state, YOLK_TRANSFER_COMPLETED);
    snprintf(name, sizeof(name), "%s", yolk_transfer_name(pair.b));
    yolk_transfer_destroy(pair.b);
    const struct yolk_transfer_options options = { .listen = name, .forbid_shm = !shm };
    CHECK(yolk_transfer_create(pair.env, &options, &pair.b, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(pair.b, 1 << 20, 3, &memory, NULL) == STATUS_OK);
    req.remote = (uintptr_t)memory;
    for (int i = 0; i < 20; i++)
        env_poll(pair.env, ENV_NS_PER_MS);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_STALE);
    CHECK(yolk_transfer_open(pair.a, name, &req.segment) == STATUS_OK);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
    req.segment = pair.segment;
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_STALE);
    pair_close(&pair);
}

static void restarts_are_recognised(void **state)
{
    (void)state;
    a_restarted_peer_is_another(false);
    a_restarted_peer_is_another(true);
}

static void a_dying_peer_ends_its_tasks(void **state)
{
    (void)state;
    for (int turns = 0; turns < 30; turns += 5) {
        struct pair pair;
        struct yolk_transfer_batch batch;
        struct yolk_transfer_result result;
        pair_open(&pair, 32 << 20, false, NULL);
        const struct yolk_transfer_request req[2] = {
            request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 16 << 20),
            request(&pair, YOLK_TRANSFER_READ, 16 << 20, 16 << 20, 16 << 20),
        };
        CHECK(yolk_transfer_batch_create(pair.a, 2, NULL, NULL, &batch) == STATUS_OK);
        CHECK(yolk_transfer_submit(pair.a, batch, req, 2) == STATUS_OK);
        for (int i = 0; i < turns; i++)
            env_poll(pair.env, ENV_NS_PER_MS);
        yolk_transfer_destroy(pair.b);
        pair.b = NULL;
        CHECK(yolk_transfer_wait(pair.a, batch, 60 * ENV_NS_PER_S) == STATUS_OK);
        CHECK(yolk_transfer_poll_batch(pair.a, batch, &result) == STATUS_OK);
        CHECK(result.state == YOLK_TRANSFER_FAILED || turns > 10);
        CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_OK);
        pair_close(&pair);
    }
}

/* Four peers and room for two connections: the idle go, and every task still ends well. */
static void idle_connections_make_room(void **state)
{
    (void)state;
    enum { PEERS = 4 };
    const struct yolk_transfer_options options = { .lanes_max = 2, .lanes_per_peer = 1 };
    struct yolk_transfer *others[PEERS];
    struct yolk_transfer_stats stats;
    void *memory[PEERS];
    struct pair pair;

    pair_open(&pair, 1 << 20, false, &options);
    for (int i = 0; i < PEERS; i++) {
        CHECK(yolk_transfer_create(pair.env, NULL, &others[i], NULL) == STATUS_OK);
        CHECK(yolk_transfer_alloc(others[i], 4096, YOLK_TRANSFER_REMOTE_ALL, &memory[i], NULL) ==
              STATUS_OK);
    }
    for (int round = 0; round < 3 * PEERS; round++) {
        struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 4096);
        const int at = round % PEERS;
        req.remote = (uintptr_t)memory[at];
        CHECK(yolk_transfer_open(pair.a, yolk_transfer_name(others[at]), &req.segment) ==
              STATUS_OK);
        CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
        CHECK(yolk_transfer_close(pair.a, req.segment) == STATUS_OK);
        yolk_transfer_stats(pair.a, &stats);
        CHECK(stats.lanes_open <= 2);
    }
    CHECK(stats.evictions >= 2 * PEERS);
    for (int i = 0; i < PEERS; i++)
        yolk_transfer_destroy(others[i]);
    pair_close(&pair);
}

static void rails_are_told_and_recognised(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .rails = "lo" };
    const struct yolk_transfer_options nobody = { .rails = "lo,nowhere0" };
    struct yolk_transfer_rail rails[4];
    struct yolk_transfer *none = NULL;
    struct pair pair;

    pair_open(&pair, MEMORY, false, &options);
    CHECK(yolk_transfer_create(pair.env, &nobody, &none, NULL) == STATUS_NOT_FOUND);
    fill(pair.here, MEMORY, 9);
    const struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, MEMORY);
    CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    CHECK(memcmp(pair.here, pair.there, MEMORY) == 0);
    /* The name and the rail are the same way: one rail, from an address that is known now. */
    CHECK(yolk_transfer_rails(pair.a, rails, 4) == 1);
    CHECK(strcmp(rails[0].local, "127.0.0.1") == 0 && rails[0].bytes == MEMORY);
    CHECK(strcmp(rails[0].peer, yolk_transfer_name(pair.b)) == 0);
    CHECK(yolk_transfer_set_location(pair.a, pair.here, "cpu:0") == STATUS_OK);
    CHECK(yolk_transfer_set_location(pair.a, pair.there, "cpu:0") == STATUS_NOT_FOUND);
    pair_close(&pair);
}

static void what_ended_can_be_explained(void **state)
{
    (void)state;
    struct yolk_transfer_explain explain, again;
    char text[4096], tiny[10];
    struct pair pair;

    pair_open(&pair, 4 << 20, false, NULL);
    CHECK(yolk_transfer_explain_last(pair.a, 0, &explain) == STATUS_NOT_FOUND);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 4 << 20);
    req.attempt = 77;
    for (int i = 0; i < 30; i++)
        CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_explain_last(pair.a, 0, &explain) == STATUS_OK);
    CHECK(explain.id == 30 && explain.bytes == 4 << 20 && explain.rail_bytes[0] == 4 << 20);
    CHECK(explain.state == YOLK_TRANSFER_COMPLETED && explain.reason == STATUS_OK);
    CHECK(explain.predicted_us > 0); /* it has seen 29 */
    CHECK(yolk_transfer_explain_id(pair.a, 12, &again) == STATUS_OK);
    CHECK(again.id == 12);
    CHECK(yolk_transfer_explain_id(pair.a, 31, &again) == STATUS_NOT_FOUND);
    CHECK(yolk_transfer_explain_text(pair.a, &explain, text, sizeof(text)) == strlen(text));
    CHECK(strstr(text, "transfer 30: write, decode, completed over tcp") != NULL);
    CHECK(strstr(text, "attempt 77") != NULL && strstr(text, "4194304 of 4194304") != NULL);
    CHECK(strstr(text, yolk_transfer_name(pair.b)) != NULL && strstr(text, "predicted") != NULL);
    CHECK(yolk_transfer_explain_text(pair.a, &explain, tiny, sizeof(tiny)) == 9);
    CHECK(strlen(tiny) == 9);
    req.remote += 1;
    CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_INVALID);
    CHECK(yolk_transfer_explain_last(pair.a, 0, &explain) == STATUS_OK);
    CHECK(explain.state == YOLK_TRANSFER_INVALID && explain.reason == STATUS_NOT_FOUND);
    for (int i = 0; i < YOLK_TRANSFER_HISTORY_MAX; i++) {
        req.length = 0;
        CHECK(run(&pair, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    }
    CHECK(yolk_transfer_explain_id(pair.a, 30, &again) == STATUS_NOT_FOUND); /* forgotten */
    CHECK(yolk_transfer_explain_last(pair.a, YOLK_TRANSFER_HISTORY_MAX, &again) ==
          STATUS_NOT_FOUND);
    CHECK(yolk_transfer_metrics_text(pair.a, text, sizeof(text)) == strlen(text));
    CHECK(strstr(text, "yolk_transfer_bytes_total{path=\"tcp\",direction=\"write\"} 12") != NULL);
    CHECK(strstr(text, "yolk_transfer_tasks_total{state=\"invalid\"} 1\n") != NULL);
    CHECK(strstr(text, "yolk_transfer_rail_up{peer=") != NULL);
    pair_close(&pair);
}

struct told {
    int times;
    enum status status;
    uint64_t rtt_us;
};

static void on_told(void *ctx, enum status status, uint64_t rtt_us)
{
    struct told *told = ctx;

    told->times++;
    told->status = status;
    told->rtt_us = rtt_us;
}

static void wait_told(struct pair *pair, const struct told *told)
{
    for (int i = 0; i < 3000 && told->times == 0; i++)
        env_poll(pair->env, 10 * ENV_NS_PER_MS);
    CHECK(told->times == 1);
}

static void notices_come_after_the_data(void **state)
{
    (void)state;
    const struct yolk_transfer_batch none = { 0 }, dead = { 12345 };
    struct yolk_transfer_notice notice;
    struct yolk_transfer_batch batch;
    struct told told = { 0 };
    char name[16];
    struct pair pair;

    pair_open(&pair, 32 << 20, false, NULL);
    fill(pair.here, 32 << 20, 6);
    struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 32 << 20);
    CHECK(yolk_transfer_batch_create(pair.a, 2, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(pair.a, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_notify(pair.a, pair.segment, batch, "kv", "ready", 5, 30 * ENV_NS_PER_S,
                               on_told, &told) == STATUS_OK);
    while (yolk_transfer_take_notice(pair.b, &notice) == STATUS_NOT_FOUND)
        env_poll(pair.env, ENV_NS_PER_S);
    CHECK(memcmp(pair.here, pair.there, 32 << 20) == 0); /* all of it was there before */
    CHECK(strcmp(notice.name, "kv") == 0 && notice.len == 5);
    CHECK(memcmp(notice.message, "ready", 5) == 0);
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_OK && told.rtt_us > 0);
    /* A task that fails takes the notice with it. */
    req.remote += 1;
    CHECK(yolk_transfer_submit(pair.a, batch, &req, 1) == STATUS_OK);
    told = (struct told){ 0 };
    CHECK(yolk_transfer_notify(pair.a, pair.segment, batch, "kv", NULL, 0, 30 * ENV_NS_PER_S,
                               on_told, &told) == STATUS_OK);
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_CANCELLED);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_OK);
    /* Many, in order, until the other side holds enough. */
    told = (struct told){ 0 };
    for (int i = 0; i <= YOLK_TRANSFER_NOTICES_MAX; i++) {
        snprintf(name, sizeof(name), "%d", i);
        CHECK(yolk_transfer_notify(pair.a, pair.segment, none, name, NULL, 0, 60 * ENV_NS_PER_S,
                                   on_told, &told) == STATUS_OK);
        while (told.times + 256 <= i || (i == YOLK_TRANSFER_NOTICES_MAX && told.times <= i))
            env_poll(pair.env, ENV_NS_PER_S);
    }
    CHECK(told.status == STATUS_FULL);
    for (int i = 0; i < YOLK_TRANSFER_NOTICES_MAX; i++) {
        CHECK(yolk_transfer_take_notice(pair.b, &notice) == STATUS_OK);
        snprintf(name, sizeof(name), "%d", i);
        CHECK(strcmp(notice.name, name) == 0);
    }
    CHECK(yolk_transfer_take_notice(pair.b, &notice) == STATUS_NOT_FOUND);
    CHECK(yolk_transfer_notify(pair.a, pair.segment, dead, "x", NULL, 0, 1, NULL, NULL) ==
          STATUS_INVALID);
    CHECK(yolk_transfer_notify(pair.a, pair.segment, none, "x", "", 961, 1, NULL, NULL) ==
          STATUS_INVALID);
    pair_close(&pair);
}

static void probes_find_who_is_there(void **state)
{
    (void)state;
    struct yolk_transfer_segment own, nobody;
    struct told told = { 0 };
    struct pair pair;

    pair_open(&pair, 1 << 20, true, NULL);
    CHECK(yolk_transfer_probe(pair.a, pair.segment, 5 * ENV_NS_PER_S, on_told, &told) == STATUS_OK);
    CHECK(told.times == 0); /* never from inside */
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_OK && told.rtt_us > 0);
    CHECK(yolk_transfer_open(pair.a, yolk_transfer_name(pair.a), &own) == STATUS_OK);
    told = (struct told){ 0 };
    CHECK(yolk_transfer_probe(pair.a, own, 5 * ENV_NS_PER_S, on_told, &told) == STATUS_OK);
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_OK);
    CHECK(yolk_transfer_open(pair.a, "127.0.0.1:1", &nobody) == STATUS_OK);
    told = (struct told){ 0 };
    CHECK(yolk_transfer_probe(pair.a, nobody, 5 * ENV_NS_PER_S, on_told, &told) == STATUS_OK);
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_CONN_REFUSED);
    told = (struct told){ 0 };
    CHECK(yolk_transfer_probe(pair.a, nobody, ENV_NS_PER_MS, on_told, &told) == STATUS_OK);
    wait_told(&pair, &told);
    CHECK(told.status == STATUS_TIMEOUT || told.status == STATUS_CONN_REFUSED);
    CHECK(yolk_transfer_probe(pair.a, nobody, ENV_NS_PER_S, on_told, &told) == STATUS_OK);
    pair_close(&pair); /* with one under way: nobody is told */
    CHECK(told.times == 1);
}

static void batches_count_their_ends_in_an_event(void **state)
{
    (void)state;
    struct yolk_transfer_batch batch;
    struct pair pair;
    uint64_t count = 0;
    int fd = -1, again = -1;

    pair_open(&pair, 1 << 20, true, NULL);
    struct yolk_transfer_request reqs[3];
    for (int i = 0; i < 3; i++)
        reqs[i] = request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 65536);
    CHECK(yolk_transfer_batch_create(pair.a, 4, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_batch_event(pair.a, batch, &fd) == STATUS_OK);
    CHECK(yolk_transfer_batch_event(pair.a, batch, &again) == STATUS_OK && again == fd);
    CHECK(read(fd, &count, sizeof(count)) < 0); /* nothing yet, and no waiting */
    CHECK(yolk_transfer_submit(pair.a, batch, reqs, 3) == STATUS_OK);
    CHECK(yolk_transfer_wait(pair.a, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(read(fd, &count, sizeof(count)) == sizeof(count) && count == 3);
    CHECK(yolk_transfer_batch_free(pair.a, batch) == STATUS_OK);
    CHECK(read(fd, &count, sizeof(count)) < 0); /* closed */
    CHECK(yolk_transfer_batch_event(pair.a, batch, &fd) == STATUS_INVALID);
    pair_close(&pair);
}

static void secrets_must_agree(void **state)
{
    (void)state;
    struct pair pair;
    struct yolk_transfer *stranger, *friend;
    const struct yolk_transfer_options options = { .secret = "right" };
    const struct yolk_transfer_options wrong = { .secret = "wrong" };
    const struct yolk_transfer_options open = { .listen = "0.0.0.0:0",
                                                .advertise_host = "127.0.0.1" };
    struct yolk_transfer_request req;

    pair_open(&pair, 1 << 20, false, &options);
    req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 4096);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
    CHECK(yolk_transfer_create(pair.env, &wrong, &stranger, NULL) == STATUS_OK);
    CHECK(yolk_transfer_open(pair.a, yolk_transfer_name(stranger), &req.segment) == STATUS_OK);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_DENIED);
    CHECK(yolk_transfer_create(pair.env, &open, &friend, NULL) == STATUS_DENIED);
    yolk_transfer_destroy(stranger);
    pair_close(&pair);
}

/* ---- classes ---- */

static void urgent_overtakes_background(void **state)
{
    (void)state;
    const size_t size = 32 << 20;

    for (int opcode = YOLK_TRANSFER_READ; opcode <= YOLK_TRANSFER_WRITE; opcode++) {
        struct pair pair;
        struct yolk_transfer_batch flood, urgent;
        struct yolk_transfer_result result;
        pair_open(&pair, size + 65536, false, NULL);
        struct yolk_transfer_request req = request(&pair, opcode, 0, 0, size);
        req.class = YOLK_TRANSFER_BACKGROUND;
        CHECK(yolk_transfer_batch_create(pair.a, 1, NULL, NULL, &flood) == STATUS_OK);
        CHECK(yolk_transfer_batch_create(pair.a, 1, NULL, NULL, &urgent) == STATUS_OK);
        CHECK(yolk_transfer_submit(pair.a, flood, &req, 1) == STATUS_OK);
        req = request(&pair, opcode, size, size, 65536);
        req.class = YOLK_TRANSFER_DECODE;
        CHECK(yolk_transfer_submit(pair.a, urgent, &req, 1) == STATUS_OK);
        CHECK(yolk_transfer_wait(pair.a, urgent, 60 * ENV_NS_PER_S) == STATUS_OK);
        CHECK(yolk_transfer_poll(pair.a, flood, 0, &result) == STATUS_OK);
        CHECK(result.state < YOLK_TRANSFER_INVALID && result.bytes < size / 4);
        CHECK(yolk_transfer_wait(pair.a, flood, 60 * ENV_NS_PER_S) == STATUS_OK);
        CHECK(yolk_transfer_poll(pair.a, flood, 0, &result) == STATUS_OK);
        assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
        pair_close(&pair);
    }
}

/* ---- strangers on the port ---- */

static void on_stranger(void *ctx, unsigned events)
{
    (void)events;
    *(bool *)ctx = true;
}

static void send_garbage(struct pair *pair, const uint8_t *data, size_t len)
{
    struct env_stream *stream;
    bool ready = false;
    size_t n = 0;
    uint8_t byte;
    enum status status = STATUS_AGAIN;
    const struct iovec iov = { (void *)(uintptr_t)data, len };

    CHECK(env_connect(pair->env, yolk_transfer_name(pair->b), &stream, NULL) == STATUS_OK);
    env_stream_watch(stream, ENV_WRITE, on_stranger, &ready);
    while (!ready)
        env_poll(pair->env, ENV_NS_PER_S);
    env_stream_watch(stream, 0, on_stranger, &ready);
    CHECK(env_stream_writev(stream, &iov, 1, &n) == STATUS_OK);
    for (int i = 0; i < 500 && (status == STATUS_AGAIN || status == STATUS_OK); i++) {
        env_poll(pair->env, ENV_NS_PER_MS);
        status = env_stream_read(stream, &byte, 1, &n);
    }
    assert_int_equal(status, STATUS_CONN_CLOSED);
    env_stream_close(stream);
}

static void garbage_is_dropped(void **state)
{
    (void)state;
    struct pair pair;
    uint8_t bytes[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];
    struct yolk_transfer_stats stats = { 0 };
    const struct wire_header write = { .opcode = WIRE_WRITE, .length = 100 };
    const struct wire_header hello = { .opcode = WIRE_HELLO, .length = 100 };

    pair_open(&pair, 1 << 20, false, NULL);
    const struct yolk_transfer_request req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 4096);
    fill(bytes, sizeof(bytes), 3);
    send_garbage(&pair, bytes, sizeof(bytes));
    wire_header_encode(&write, bytes); /* before any greeting */
    send_garbage(&pair, bytes, sizeof(bytes));
    wire_header_encode(&hello, bytes); /* a short one */
    send_garbage(&pair, bytes, sizeof(bytes));
    yolk_transfer_stats(pair.b, &stats);
    assert_int_equal(stats.protocol_errors, 3);
    assert_int_equal(run(&pair, &req, NULL).reason, STATUS_OK);
    pair_close(&pair);
}

/* ---- a random walk against plain memory ---- */

enum {
    WALK_TASKS = 12,
    WALK_SLOT = WALK_MEMORY / WALK_TASKS,
    WALK_LENGTH_LOG2 = WALK_MEMORY <= 4 << 20 ? 19 : 21
};

struct walk {
    struct pair pair;
    struct rng rng;
    uint8_t *here, *there; /* the model */
};

static void walk_round(struct walk *walk)
{
    struct yolk_transfer_request req[WALK_TASKS];
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    for (uint32_t i = 0; i < WALK_TASKS; i++) {
        /* Disjoint slots, so that the order of tasks does not matter. */
        const uint64_t len =
            rng_between(&walk->rng, 1, UINT64_C(1) << rng_below(&walk->rng, WALK_LENGTH_LOG2));
        const uint64_t here = i * WALK_SLOT + rng_below(&walk->rng, WALK_SLOT - len);
        const uint64_t there = i * WALK_SLOT + rng_below(&walk->rng, WALK_SLOT - len);
        const bool read = rng_below(&walk->rng, 2) == 0;
        req[i] =
            request(&walk->pair, read ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE, here, there, len);
        req[i].class = (enum yolk_transfer_class)rng_below(&walk->rng, YOLK_TRANSFER_CLASSES);
        req[i].checksum = rng_below(&walk->rng, 2) == 0;
        if (read) {
            memcpy(walk->here + here, walk->there + there, len);
        } else {
            memcpy(walk->there + there, walk->here + here, len);
        }
    }
    CHECK(yolk_transfer_batch_create(walk->pair.a, WALK_TASKS, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(walk->pair.a, batch, req, WALK_TASKS) == STATUS_OK);
    CHECK(yolk_transfer_wait(walk->pair.a, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll_batch(walk->pair.a, batch, &result) == STATUS_OK);
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_batch_free(walk->pair.a, batch) == STATUS_OK);
}

static void walk(bool shm, uint64_t seed)
{
    static const uint32_t slices[] = { 4096, 65536, 256 << 10 };
    struct walk walk = { 0 };
    const struct yolk_transfer_options options = { .slice_size = slices[seed % 3],
                                                   .lanes_per_peer = 1 + (uint32_t)(seed % 4) };

    rng_init(&walk.rng, seed);
    pair_open(&walk.pair, WALK_MEMORY, shm, &options);
    walk.here = malloc(WALK_MEMORY);
    walk.there = malloc(WALK_MEMORY);
    CHECK(walk.here != NULL && walk.there != NULL);
    fill(walk.pair.here, WALK_MEMORY, seed);
    fill(walk.pair.there, WALK_MEMORY, seed + 1);
    memcpy(walk.here, walk.pair.here, WALK_MEMORY);
    memcpy(walk.there, walk.pair.there, WALK_MEMORY);
    for (int round = 0; round < WALK_ROUNDS; round++) {
        walk_round(&walk);
        CHECK(memcmp(walk.here, walk.pair.here, WALK_MEMORY) == 0);
        CHECK(memcmp(walk.there, walk.pair.there, WALK_MEMORY) == 0);
    }
    free(walk.here);
    free(walk.there);
    pair_close(&walk.pair);
}

static void walks_match_the_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;

    printf("SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < 4; i++)
        walk(i % 2 == 0, seed + i);
}

int main(void)
{
    if (log_configure("warn", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_over_tcp),
        cmocka_unit_test(bytes_arrive_over_shm),
        cmocka_unit_test(shared_memory_can_be_forbidden),
        cmocka_unit_test(memory_a_user_brought_is_read_from_the_other_process),
        cmocka_unit_test(loans_are_looked_at_and_returned),
        cmocka_unit_test(local_segment_is_a_copy),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(permissions_hold),
        cmocka_unit_test(old_epochs_and_terms_are_refused),
        cmocka_unit_test(registration_refuses),
        cmocka_unit_test(pages_can_be_made_ahead),
        cmocka_unit_test(handles_survive_misuse),
        cmocka_unit_test(callbacks_run_once_and_later),
        cmocka_unit_test(a_cancelled_task_lands_no_more),
        cmocka_unit_test(deadlines_end_tasks),
        cmocka_unit_test(nobody_there_is_a_failure),
        cmocka_unit_test(restarts_are_recognised),
        cmocka_unit_test(a_dying_peer_ends_its_tasks),
        cmocka_unit_test(urgent_overtakes_background),
        cmocka_unit_test(idle_connections_make_room),
        cmocka_unit_test(rails_are_told_and_recognised),
        cmocka_unit_test(what_ended_can_be_explained),
        cmocka_unit_test(notices_come_after_the_data),
        cmocka_unit_test(probes_find_who_is_there),
        cmocka_unit_test(batches_count_their_ends_in_an_event),
        cmocka_unit_test(secrets_must_agree),
        cmocka_unit_test(garbage_is_dropped),
        cmocka_unit_test(walks_match_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
