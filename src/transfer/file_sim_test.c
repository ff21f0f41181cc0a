/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/file_sim_test.c
 *
 * Goal:    whatever the disk does, no wrong byte is reported as right, none lands after a final
 *          state, in memory or in the file, and what was synced survives the power going out.
 * Method:  one engine on a simulated host, whose disk fails, has too little space, or refuses to go
 *          past its cache. Tasks over disjoint ranges with random deadlines and cancels; now and
 *          then the file is cut, synced, closed and opened, the process killed, the power cut. When
 *          a task ends, its range is overwritten at both ends, by plain calls, and must stay so
 *          until the next task. The model is what was last put in each range, and what was there at
 *          the last sync. `SEED=n` replays one seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_sim.h"
#include "base/log.h"
#include "base/rng.h"
#include "seed.h"
#include "yolk/transfer.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail_msg("seed %llu: %s", (unsigned long long)current_seed, #condition); \
    } while (0)

enum { SLOTS = 6, SLOT_SIZE = 160 << 10, STEPS = 250, PARTS = 2 };
enum { SIZE = SLOTS * SLOT_SIZE, CUT_AT = SIZE - SLOT_SIZE / 2 };
#ifdef YOLK_EXPENSIVE_ASSERTS
enum { SEEDS = 10 }; /* sanitizers take their time */
#else
enum { SEEDS = 40 };
#endif
#define HOST "10.0.0.1"
#define STEP_NS (3 * ENV_NS_PER_MS)

static uint64_t current_seed;
static const char *const paths[PARTS] = { "/tmp/a", "/tmp/b" };

/* What a walk counts: final states, then these. */
enum { DIRECT_BYTES = YOLK_TRANSFER_FAILED + 1, SYNCS, KEPT, POWER_CUTS, FAULTS, TOTALS };

struct world;

struct slot {
    struct world *world;
    uint32_t index;
    bool busy, read;
    uint32_t at, length;      /* of the task, in the slot */
    uint8_t here[SLOT_SIZE];  /* what is in memory, while idle */
    uint8_t there[SLOT_SIZE]; /* what is in the file, while idle */
    uint8_t synced[SLOT_SIZE];
    bool durable; /* `synced` is on the disk, and nothing was written since */
    struct yolk_transfer_batch batch;
};

struct world {
    struct env_sim *sim;
    struct env_sim_options options;
    struct rng rng;
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    struct env_file *plain[PARTS]; /* past the engine */
    uint8_t *memory;
    bool cut; /* the last file is shorter than the segment */
    bool syncing;
    bool sync_counts; /* nothing was written since it was asked for */
    struct slot slots[SLOTS];
    uint64_t totals[TOTALS];
};

/* ---- past the engine: the disk may fail, so again until it does not ---- */

enum { PART_SIZE = SIZE / PARTS };

static void plain_write(struct world *world, uint64_t at, const uint8_t *data, size_t len)
{
    while (len > 0) {
        const uint64_t part = at / PART_SIZE, offset = at % PART_SIZE;
        const size_t step = len < PART_SIZE - offset ? len : (size_t)(PART_SIZE - offset);
        while (env_file_pwrite(world->plain[part], data, step, offset) != STATUS_OK) {
        }
        at += step;
        data += step;
        len -= step;
    }
}

/* Bytes beyond the end are zero. */
static void plain_read(struct world *world, uint64_t at, uint8_t *data, size_t len)
{
    memset(data, 0, len);
    while (len > 0) {
        const uint64_t part = at / PART_SIZE, offset = at % PART_SIZE;
        const size_t step = len < PART_SIZE - offset ? len : (size_t)(PART_SIZE - offset);
        size_t n;
        while (env_file_pread(world->plain[part], data, step, offset, &n) != STATUS_OK) {
        }
        at += step;
        data += step;
        len -= step;
    }
}

static uint8_t *slot_memory(const struct slot *slot)
{
    return slot->world->memory + (size_t)slot->index * SLOT_SIZE;
}

static uint64_t slot_at(const struct slot *slot)
{
    return (uint64_t)slot->index * SLOT_SIZE;
}

static void scribble(struct slot *slot)
{
    struct world *world = slot->world;

    rng_fill(&world->rng, slot->here, SLOT_SIZE);
    memcpy(slot_memory(slot), slot->here, SLOT_SIZE);
    rng_fill(&world->rng, slot->there, SLOT_SIZE);
    plain_write(world, slot_at(slot), slot->there, SLOT_SIZE);
    slot->durable = false;
    if (slot->index == SLOTS - 1) world->cut = false;
}

static void expect_quiet(const struct slot *slot)
{
    static uint8_t found[SLOT_SIZE];

    CHECK(memcmp(slot_memory(slot), slot->here, SLOT_SIZE) == 0);
    plain_read(slot->world, slot_at(slot), found, SLOT_SIZE);
    CHECK(memcmp(found, slot->there, SLOT_SIZE) == 0);
}

/* ---- the engine ---- */

static void segment_open(struct world *world)
{
    struct yolk_transfer_file files[PARTS];
    enum status status = STATUS_IO;

    for (int i = 0; i < PARTS; i++)
        files[i] = (struct yolk_transfer_file){ .path = paths[i], .length = PART_SIZE };
    while (status == STATUS_IO) {
        status = yolk_transfer_open_files(world->transfer, files, PARTS, YOLK_TRANSFER_FILE_CREATE,
                                          &world->segment, NULL);
    }
    CHECK(status == STATUS_OK);
}

static void process_start(struct world *world)
{
    const struct yolk_transfer_options options = {
        .listen = HOST ":7000", .secret = "s", .slice_size = 4096u << rng_below(&world->rng, 5)
    };
    void *memory;

    world->env = env_sim_add(world->sim, HOST);
    CHECK(yolk_transfer_create(world->env, &options, &world->transfer, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(world->transfer, SIZE, 0, &memory, NULL) == STATUS_OK);
    world->memory = memory;
    segment_open(world);
    for (int i = 0; i < PARTS; i++) {
        while (env_file_open(world->env, paths[i], ENV_FILE_READ | ENV_FILE_WRITE, &world->plain[i],
                             NULL) != STATUS_OK) {
        }
    }
    world->cut = false;
    world->syncing = false;
}

static void process_end(struct world *world)
{
    yolk_transfer_destroy(world->transfer);
    for (int i = 0; i < PARTS; i++)
        env_file_close(world->plain[i]);
    for (int i = 0; i < SLOTS; i++)
        world->slots[i].busy = false;
}

static void check_content(const struct slot *slot)
{
    static uint8_t found[SLOT_SIZE];
    const uint8_t *memory = slot_memory(slot);

    plain_read(slot->world, slot_at(slot), found, SLOT_SIZE);
    CHECK(memcmp(memory + slot->at, found + slot->at, slot->length) == 0);
    /* What was not asked for was not touched, at either end. */
    CHECK(memcmp(found, slot->there, slot->at) == 0);
    const uint32_t end = slot->at + slot->length;
    CHECK(memcmp(found + end, slot->there + end, SLOT_SIZE - end) == 0);
    CHECK(memcmp(memory, slot->here, slot->at) == 0);
    CHECK(memcmp(memory + end, slot->here + end, SLOT_SIZE - end) == 0);
    const uint8_t *source = slot->read ? slot->there : slot->here;
    CHECK(memcmp(memory + slot->at, source + slot->at, slot->length) == 0);
}

static void on_ended(void *ctx, const struct yolk_transfer_result *result)
{
    struct slot *slot = ctx;
    struct world *world = slot->world;
    struct yolk_transfer_explain explain;

    CHECK(slot->busy);
    slot->busy = false;
    world->totals[result->state]++;
    CHECK(result->state != YOLK_TRANSFER_INVALID);
    if (result->state == YOLK_TRANSFER_COMPLETED) {
        CHECK(result->bytes == slot->length);
        check_content(slot);
    } else {
        CHECK(result->bytes < slot->length);
    }
    if (result->state == YOLK_TRANSFER_FAILED) {
        CHECK(result->reason == STATUS_IO || result->reason == STATUS_FULL);
    }
    CHECK(yolk_transfer_explain(world->transfer, slot->batch, 0, &explain) == STATUS_OK);
    world->totals[DIRECT_BYTES] += explain.direct_bytes;
    CHECK(!world->options.disk_no_direct || explain.direct_bytes == 0);
    scribble(slot);
    CHECK(yolk_transfer_batch_free(world->transfer, slot->batch) == STATUS_OK);
}

static void task_start(struct slot *slot)
{
    struct world *world = slot->world;
    struct rng *rng = &world->rng;

    expect_quiet(slot);
    slot->busy = true;
    slot->read = rng_below(rng, 2) == 0;
    slot->at = (uint32_t)rng_below(rng, SLOT_SIZE);
    if (rng_below(rng, 2) == 0) slot->at &= ~4095u;
    slot->length = (uint32_t)rng_between(rng, 1, SLOT_SIZE - slot->at);
    if (rng_below(rng, 3) == 0 && slot->length > 4096) slot->length &= ~4095u;
    if (!slot->read) world->sync_counts = slot->durable = false;
    struct yolk_transfer_request req = {
        .opcode = slot->read ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE,
        .class = (enum yolk_transfer_class)rng_below(rng, YOLK_TRANSFER_CLASSES),
        .local = slot_memory(slot) + slot->at,
        .segment = world->segment,
        .remote = slot_at(slot) + slot->at,
        .length = slot->length,
    };
    if (rng_below(rng, 3) == 0) {
        req.deadline_ns = env_now_ns(world->env) + rng_below(rng, 8 * ENV_NS_PER_MS);
    }
    CHECK(yolk_transfer_batch_create(world->transfer, 1, on_ended, slot, &slot->batch) ==
          STATUS_OK);
    CHECK(yolk_transfer_submit(world->transfer, slot->batch, &req, 1) == STATUS_OK);
}

/* ---- what happens to it ---- */

static bool all_idle(void *ctx)
{
    const struct world *world = ctx;

    for (int i = 0; i < SLOTS; i++) {
        if (world->slots[i].busy) return false;
    }
    return true;
}

static void on_synced(void *ctx, enum status status, uint64_t rtt_us)
{
    struct world *world = ctx;

    (void)rtt_us;
    CHECK(world->syncing);
    world->syncing = false;
    if (status != STATUS_OK || !world->sync_counts) return;
    world->totals[SYNCS]++;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &world->slots[i];
        if (slot->busy && !slot->read) continue;
        slot->durable = true;
        memcpy(slot->synced, slot->there, SLOT_SIZE);
    }
}

static void sync_all(struct world *world)
{
    if (world->syncing || !all_idle(world)) return;
    world->syncing = world->sync_counts = true;
    CHECK(yolk_transfer_sync(world->transfer, world->segment, on_synced, world) == STATUS_OK);
    env_sim_run_for(world->sim, 5 * ENV_NS_PER_MS);
}

static void file_cut(struct world *world)
{
    struct slot *last = &world->slots[SLOTS - 1];

    if (last->busy || world->cut) return;
    while (env_file_truncate(world->plain[PARTS - 1], CUT_AT % PART_SIZE) != STATUS_OK) {
    }
    memset(last->there + SLOT_SIZE / 2, 0, SLOT_SIZE / 2);
    last->durable = false;
    world->sync_counts = false;
    world->cut = true;
}

/* Everything on its way may have landed, or a part of it. */
static void restart(struct world *world, bool power)
{
    static uint8_t found[SLOT_SIZE];
    bool quiet[SLOTS];

    for (int i = 0; i < SLOTS; i++)
        quiet[i] = power ? world->slots[i].durable : !world->slots[i].busy;
    if (power) {
        env_sim_power_off(world->sim, HOST);
        world->totals[POWER_CUTS]++;
    } else {
        env_sim_kill(world->env);
    }
    process_end(world);
    process_start(world);
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &world->slots[i];
        if (quiet[i]) {
            plain_read(world, slot_at(slot), found, SLOT_SIZE);
            CHECK(memcmp(found, power ? slot->synced : slot->there, SLOT_SIZE) == 0);
            world->totals[KEPT]++;
        }
        scribble(slot);
    }
}

static void step(struct world *world)
{
    struct slot *slot = &world->slots[rng_below(&world->rng, SLOTS)];

    if (!slot->busy) {
        task_start(slot);
    } else if (rng_below(&world->rng, 6) == 0) {
        CHECK(yolk_transfer_cancel(world->transfer, slot->batch, 0) == STATUS_OK);
    }
    switch (rng_below(&world->rng, 60)) {
    case 0:
    case 1: file_cut(world); break;
    case 2:
        CHECK(yolk_transfer_close(world->transfer, world->segment) == STATUS_OK);
        segment_open(world);
        world->cut = false; /* opening has made it as long as it should be, with zeros */
        break;
    case 3:
        env_sim_run_for(world->sim, 30 * ENV_NS_PER_MS); /* so that all is idle, perhaps */
        sync_all(world);
        break;
    case 4:
        if (rng_below(&world->rng, 3) == 0) restart(world, false);
        break;
    case 5:
        if (rng_below(&world->rng, 3) == 0) restart(world, true);
        break;
    default: break;
    }
    env_sim_run_for(world->sim, rng_below(&world->rng, STEP_NS));
}

static struct world *world_open(uint64_t seed, const struct env_sim_options *options)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    current_seed = seed;
    rng_init(&world->rng, seed);
    world->options = *options;
    world->options.seed = seed;
    world->sim = env_sim_create(&world->options);
    process_start(world);
    for (uint32_t i = 0; i < SLOTS; i++) {
        world->slots[i].world = world;
        world->slots[i].index = i;
        scribble(&world->slots[i]);
    }
    return world;
}

static void world_close(struct world *world)
{
    process_end(world);
    env_sim_destroy(world->sim);
    free(world);
}

static void run_seed(uint64_t seed, uint64_t totals[TOTALS])
{
    struct rng rng;

    rng_init(&rng, ~seed);
    const struct env_sim_options options = {
        .buggify_ppm = (uint32_t)rng_below(&rng, 50000),
        .disk_error_ppm = (uint32_t)rng_below(&rng, 8000),
        .disk_no_direct = seed % 4 == 0,
    };
    struct world *world = world_open(seed, &options);
    for (int i = 0; i < STEPS; i++)
        step(world);
    env_sim_calm(world->sim);
    CHECK(env_sim_run_until(world->sim, all_idle, world, 10 * ENV_NS_PER_S) || all_idle(world));
    env_sim_run_for(world->sim, ENV_NS_PER_S);
    for (int i = 0; i < SLOTS; i++)
        expect_quiet(&world->slots[i]);
    for (int i = 0; i < TOTALS; i++)
        totals[i] += world->totals[i];
    totals[FAULTS] += env_sim_fault_count(world->sim);
    world_close(world);
}

static void no_byte_lands_after_the_end(void **state)
{
    (void)state;
    const char *text = getenv("SEED"), *more = getenv("YOLK_SIM_SEEDS");
    const uint64_t first = text != NULL ? strtoull(text, NULL, 0) : 1;
    const uint64_t seeds = more != NULL ? strtoull(more, NULL, 0) : text != NULL ? 1 : SEEDS;
    uint64_t totals[TOTALS] = { 0 };

    printf("SEED=%llu, %llu of them\n", (unsigned long long)first, (unsigned long long)seeds);
    for (uint64_t seed = first; seed < first + seeds; seed++)
        run_seed(seed, totals);
    printf("completed=%llu cancelled=%llu timeout=%llu failed=%llu direct=%llu syncs=%llu "
           "kept=%llu power_cuts=%llu\n",
           (unsigned long long)totals[YOLK_TRANSFER_COMPLETED],
           (unsigned long long)totals[YOLK_TRANSFER_CANCELED],
           (unsigned long long)totals[YOLK_TRANSFER_TIMEOUT],
           (unsigned long long)totals[YOLK_TRANSFER_FAILED],
           (unsigned long long)totals[DIRECT_BYTES], (unsigned long long)totals[SYNCS],
           (unsigned long long)totals[KEPT], (unsigned long long)totals[POWER_CUTS]);
    test_soaked(seeds, totals[FAULTS]);
    if (text != NULL || more != NULL) return;
    /* A walk that never met a fault, or never got anything across, proves nothing. */
    assert_true(totals[YOLK_TRANSFER_COMPLETED] > 10 * SEEDS);
    assert_true(totals[YOLK_TRANSFER_CANCELED] > SEEDS / 2);
    assert_true(totals[YOLK_TRANSFER_TIMEOUT] > SEEDS);
    assert_true(totals[YOLK_TRANSFER_FAILED] > SEEDS / 2);
    assert_true(totals[DIRECT_BYTES] > 1 << 20);
    assert_true(totals[SYNCS] > SEEDS / 4 && totals[KEPT] > SEEDS / 4);
    assert_true(totals[POWER_CUTS] > SEEDS / 4);
}

/* ---- calm worlds ---- */

/* Somebody takes the space that the file has given back. */
static void a_full_disk_is_a_failure(void **state)
{
    (void)state;
    static const uint8_t bytes[SLOT_SIZE];
    const struct env_sim_options options = { .disk_size_max = SIZE };
    struct world *world = world_open(7, &options);
    const struct yolk_transfer_file another = { .path = "/tmp/c", .length = 1 };
    struct yolk_transfer_segment segment;
    struct env_file *other;

    CHECK(yolk_transfer_open_files(world->transfer, &another, 1, YOLK_TRANSFER_FILE_CREATE,
                                   &segment, NULL) == STATUS_FULL);
    file_cut(world);
    CHECK(env_file_open(world->env, "/tmp/d", ENV_FILE_WRITE | ENV_FILE_CREATE, &other, NULL) ==
          STATUS_OK);
    CHECK(env_file_pwrite(other, bytes, SLOT_SIZE / 2, 0) == STATUS_OK);
    struct slot *slot = &world->slots[SLOTS - 1];
    const struct yolk_transfer_request req = { .opcode = YOLK_TRANSFER_WRITE,
                                               .local = slot_memory(slot),
                                               .segment = world->segment,
                                               .remote = slot_at(slot),
                                               .length = SLOT_SIZE };
    struct yolk_transfer_result result;
    CHECK(yolk_transfer_batch_create(world->transfer, 1, NULL, NULL, &slot->batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(world->transfer, slot->batch, &req, 1) == STATUS_OK);
    env_sim_run_for(world->sim, ENV_NS_PER_S);
    CHECK(yolk_transfer_poll(world->transfer, slot->batch, 0, &result) == STATUS_OK);
    CHECK(result.state == YOLK_TRANSFER_FAILED && result.reason == STATUS_FULL);
    CHECK(result.bytes <= SLOT_SIZE / 2);
    env_file_close(other);
    world_close(world);
}

/* The store's disk has all I/Os of the env: ours wait, and go on when it is done. */
static void on_nothing(void *ctx, enum status status, size_t n)
{
    (void)status;
    (void)n;
    --*(unsigned *)ctx;
}

static void others_may_have_all_the_ios(void **state)
{
    (void)state;
    static struct env_io ios[ENV_IOS_MAX];
    static uint8_t byte;
    const struct env_sim_options options = { 0 };
    struct world *world = world_open(8, &options);
    unsigned left = 0;

    for (int i = 0; i < ENV_IOS_MAX; i++) {
        ios[i] = (struct env_io){ .op = ENV_IO_READ,
                                  .file = world->plain[0],
                                  .parts = { { &byte, 1 } },
                                  .parts_count = 1,
                                  .fn = on_nothing,
                                  .ctx = &left };
        CHECK(env_io_start(&ios[i]) == STATUS_OK);
        left++;
    }
    for (int i = 0; i < SLOTS; i++)
        task_start(&world->slots[i]);
    world->syncing = true;
    CHECK(yolk_transfer_sync(world->transfer, world->segment, on_synced, world) == STATUS_OK);
    CHECK(!all_idle(world));
    env_sim_run_for(world->sim, ENV_NS_PER_S);
    CHECK(left == 0 && all_idle(world) && !world->syncing);
    CHECK(world->totals[YOLK_TRANSFER_FAILED] == 0);
    world_close(world);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_lands_after_the_end),
        cmocka_unit_test(a_full_disk_is_a_failure),
        cmocka_unit_test(others_may_have_all_the_ios),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
