/* SPDX-License-Identifier: Apache-2.0
 *
 * store/reading_test.c
 *
 * Goal:   a read gives the bytes that the checksums are of, whole, or says that they are wrong.
 * Method: a random walk over values in memory of the own segment that are replaced, rot, recover
 *         and get other checksums, beside a model that knows which piece is wrong now. */
#include "store/reading.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "seed.h"

#define ADDRESS "10.0.0.1:7200"

enum {
    VALUES = 6,
    PIECES = 4,
    PIECE_SIZE = 1000, /* of no alignment */
    LAST_SIZE = 300,
    VALUE_SIZE = (PIECES - 1) * PIECE_SIZE + LAST_SIZE,
    AT_A_TIME = 3,
    STEPS = 10000,
    LARGE = 2 * READING_TURN_SIZE + (64 << 10) + 5,
};

struct value {
    uint64_t sums[PIECES];
    bool rotten[PIECES]; /* a bit of it is flipped */
    bool other[PIECES];  /* the owner says another sum than it has */
};

struct world {
    struct env_sim *sim;
    struct env *env;
    struct yolk_transfer *transfer;
    struct readings *readings;
    uint8_t *owner; /* VALUES * VALUE_SIZE */
    struct value values[VALUES];
    struct rng rng;
};

struct read {
    struct world *world;
    struct reading reading;
    struct value *value;
    unsigned first, last; /* pieces */
    uint64_t want;
    uint8_t *to;
    bool ended;
    enum status status;
};

static uint64_t seed;
static unsigned long long corrupt, right, bytes;

static void world_start(struct world *world, size_t size)
{
    const struct env_sim_options options = { .seed = seed };
    const struct yolk_transfer_options transfer = { .listen = ADDRESS, .secret = "s" };
    void *memory;

    memset(world, 0, sizeof(*world));
    rng_init(&world->rng, seed);
    world->sim = env_sim_create(&options);
    world->env = env_sim_add(world->sim, "10.0.0.1");
    assert_int_equal(yolk_transfer_create(world->env, &transfer, &world->transfer, NULL),
                     STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(world->transfer, size, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    world->owner = memory;
    assert_int_equal(readings_create(world->env, world->transfer, &world->readings), STATUS_OK);
}

static void world_end(struct world *world)
{
    readings_destroy(world->readings);
    yolk_transfer_destroy(world->transfer);
    env_sim_destroy(world->sim);
}

static uint32_t piece_len(unsigned piece)
{
    return piece == PIECES - 1 ? LAST_SIZE : PIECE_SIZE;
}

static uint8_t *value_data(const struct world *world, const struct value *value)
{
    return world->owner + (size_t)(value - world->values) * VALUE_SIZE;
}

/* Another value in the same range. */
static void value_replace(struct world *world, struct value *value)
{
    uint8_t *data = value_data(world, value);

    memset(value, 0, sizeof(*value));
    rng_fill(&world->rng, data, VALUE_SIZE);
    for (unsigned i = 0; i < PIECES; i++)
        value->sums[i] = hash_xxh3(data + i * PIECE_SIZE, piece_len(i));
}

static bool is_wrong(const struct read *read)
{
    for (unsigned i = read->first; i <= read->last; i++) {
        if (read->value->rotten[i] || read->value->other[i]) return true;
    }
    return false;
}

static void on_end(void *ctx, enum status status)
{
    struct read *read = ctx;
    const struct world *world = read->world;
    const uint64_t len = read->want;

    if (status != (is_wrong(read) ? STATUS_CORRUPT : STATUS_OK)) {
        fail_msg("SEED=%llu: pieces %u to %u end %s", (unsigned long long)seed, read->first,
                 read->last, status_name(status));
    }
    if (status == STATUS_OK) {
        const uint8_t *data = value_data(world, read->value) + read->first * PIECE_SIZE;
        assert_memory_equal(read->to, data + read->reading.skip, len);
    }
    assert_int_equal(read->to[len], 0xee);
    corrupt += status == STATUS_CORRUPT;
    right += status == STATUS_OK;
    bytes += status == STATUS_OK ? len : 0;
    read->ended = true;
}

static bool has_ended(void *ctx)
{
    return ((struct read *)ctx)->ended;
}

/* Not all of the first and of the last piece. */
static void read_in_part(struct world *world, struct read *read)
{
    const uint64_t first = piece_len(read->first), last = piece_len(read->last);
    struct reading *reading = &read->reading;

    reading->skip = rng_below(&world->rng, first);
    reading->want = reading->len - reading->skip;
    const uint64_t most = read->first == read->last ? reading->want : last;
    reading->want -= rng_below(&world->rng, most);
}

static void read_start(struct world *world, struct read *read)
{
    static uint8_t room[AT_A_TIME][VALUE_SIZE + 1];
    static unsigned next;

    *read = (struct read){ .world = world,
                           .value = &world->values[rng_below(&world->rng, VALUES)],
                           .to = room[next++ % AT_A_TIME] };
    read->first = (unsigned)rng_below(&world->rng, PIECES);
    read->last = read->first + (unsigned)rng_below(&world->rng, PIECES - read->first);
    read->reading = (struct reading){
        .owner = yolk_transfer_generation(world->transfer),
        .address = (uintptr_t)value_data(world, read->value) + read->first * PIECE_SIZE,
        .piece_size = PIECE_SIZE,
        .sums = read->value->sums + read->first,
        .to = read->to,
        .on_end = on_end,
        .ctx = read,
    };
    for (unsigned i = read->first; i <= read->last; i++)
        read->reading.len += piece_len(i);
    read->reading.want = read->reading.len;
    if (rng_below(&world->rng, 2) == 0) read_in_part(world, read);
    read->want = read->reading.want;
    memset(read->to, 0xee, VALUE_SIZE + 1);
    assert_int_equal(reading_start(world->readings, ADDRESS, &read->reading), STATUS_OK);
    assert_false(read->ended);
}

static void change_something(struct world *world)
{
    struct value *value = &world->values[rng_below(&world->rng, VALUES)];
    const unsigned piece = (unsigned)rng_below(&world->rng, PIECES);

    switch (rng_below(&world->rng, 6)) {
    case 0: value_replace(world, value); break;
    case 1:
    case 2:
        value_data(world, value)[piece * PIECE_SIZE + 17 * piece] ^= 4;
        value->rotten[piece] = !value->rotten[piece];
        break;
    case 3:
        value->sums[piece] ^= 1;
        value->other[piece] = !value->other[piece];
        break;
    default: break;
    }
}

static void what_is_wrong_is_never_given(void **state)
{
    static struct world world;
    struct read reads[AT_A_TIME];
    (void)state;

    world_start(&world, VALUES * VALUE_SIZE);
    for (unsigned i = 0; i < VALUES; i++)
        value_replace(&world, &world.values[i]);
    for (unsigned step = 0; step < STEPS; step++) {
        const unsigned count = 1 + (unsigned)rng_below(&world.rng, AT_A_TIME);
        change_something(&world);
        for (unsigned i = 0; i < count; i++)
            read_start(&world, &reads[i]);
        for (unsigned i = 0; i < count; i++)
            assert_true(env_sim_run_until(world.sim, has_ended, &reads[i], ENV_NS_PER_S));
    }
    assert_true(right > 0 && corrupt > 0);
    assert_true(readings_bytes(world.readings) >= bytes);
    world_end(&world);
}

static void strangers_are_not_looked_at(void **state)
{
    static struct world world;
    uint8_t to[PIECE_SIZE];
    uint64_t sum;
    (void)state;

    world_start(&world, PIECE_SIZE);
    sum = hash_xxh3(world.owner, PIECE_SIZE);
    struct reading reading = { .owner = yolk_transfer_generation(world.transfer) + 1,
                               .address = (uintptr_t)world.owner,
                               .len = PIECE_SIZE,
                               .want = PIECE_SIZE,
                               .piece_size = PIECE_SIZE,
                               .sums = &sum,
                               .to = to,
                               .on_end = on_end };
    assert_int_equal(reading_start(world.readings, ADDRESS, &reading), STATUS_STALE);
    reading.owner--;
    reading.address += 1 << 20; /* nobody offers it */
    assert_int_equal(reading_start(world.readings, ADDRESS, &reading), STATUS_NOT_FOUND);
    world_end(&world);
}

/* ---- turns ---- */

struct large {
    bool ended;
    enum status status;
    bool other; /* something else on the loop had its turn before the end */
};

static void on_large_end(void *ctx, enum status status)
{
    struct large *large = ctx;
    large->ended = true;
    large->status = status;
}

static void on_other(void *ctx)
{
    struct large *large = ctx;
    large->other = !large->ended;
}

static bool large_has_ended(void *ctx)
{
    return ((struct large *)ctx)->ended;
}

static void others_have_their_turn(void **state)
{
    static struct world world;
    static uint64_t sums[LARGE / PIECE_SIZE + 1];
    struct large large = { .ended = false };
    struct env_timer timer;
    void *to;
    (void)state;

    world_start(&world, LARGE);
    rng_fill(&world.rng, world.owner, LARGE);
    for (uint32_t i = 0; i < LARGE / PIECE_SIZE + 1; i++) {
        const uint32_t left = LARGE - i * PIECE_SIZE;
        sums[i] = hash_xxh3(world.owner + i * PIECE_SIZE, left < PIECE_SIZE ? left : PIECE_SIZE);
    }
    assert_int_equal(
        yolk_transfer_alloc(world.transfer, LARGE, YOLK_TRANSFER_REMOTE_ALL, &to, NULL), STATUS_OK);
    struct reading reading = { .owner = yolk_transfer_generation(world.transfer),
                               .address = (uintptr_t)world.owner,
                               .len = LARGE,
                               .want = LARGE,
                               .piece_size = PIECE_SIZE,
                               .sums = sums,
                               .to = to,
                               .on_end = on_large_end,
                               .ctx = &large };
    assert_int_equal(reading_start(world.readings, ADDRESS, &reading), STATUS_OK);
    env_timer_init(&timer, on_other, &large);
    env_timer_set(world.env, &timer, env_now_ns(world.env));
    assert_true(env_sim_run_until(world.sim, large_has_ended, &large, ENV_NS_PER_S));
    assert_int_equal(large.status, STATUS_OK);
    assert_true(large.other);
    assert_memory_equal(to, world.owner, LARGE);
    world_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_never_given),
        cmocka_unit_test(strangers_are_not_looked_at),
        cmocka_unit_test(others_have_their_turn),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
