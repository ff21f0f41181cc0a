/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_sim_test.c
 *
 * Goal:    whatever breaks, no wrong byte is reported as right, and no byte lands after a final
 *          state; and when nothing breaks any more, every task ends.
 * Method:  a simulated world with one target and two initiators, one of them on the target's host.
 *          Each initiator moves random ranges with random deadlines and cancels while connections
 *          break, the network parts, whole or one rail of several, and the target is stopped,
 *          killed and started again. When a task ends, its ranges at both ends are overwritten, and
 *          must stay as they are until the next task. In some worlds the target has a name, and
 *          another port at each start, and the server that knows it is killed, too; in some the
 *          memory is that of a device (tests/fake_cuda.h), which copies late and sometimes fails.
 *          `SEED=n` replays one seed. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "fake_cuda_use.h"
#include "seed.h"
#include "transfer/metadata_server.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail_msg("seed %llu: %s", (unsigned long long)current_seed, #condition); \
    } while (0)

enum { RAILS = 3 };

/* What a walk counts: final states, then these. */
enum {
    FENCES = YOLK_TRANSFER_FAILED + 1,
    RAIL_PAUSES,
    EVICTIONS,
    RAIL_BYTES, /* over others than the named one */
    IPC_BYTES,  /* from device to device */
    FAULTS,
    TOTALS,
};

enum { SLOTS = 6, SLOT_SIZE = 192 << 10, INITIATORS = 2, STEPS = 600 };
#ifdef YOLK_EXPENSIVE_ASSERTS
enum { SEEDS = 10, CUTS = 2 }; /* sanitizers take their time */
#else
enum { SEEDS = 60, CUTS = 6 };
#endif
#define STEP_NS (20 * ENV_NS_PER_MS)
#define TARGET "10.0.0.1:7000"
#define NAMES "10.0.0.9:8080"

static uint64_t current_seed;
static struct gpu gpu;
static unsigned stops_in_time;

struct world;
struct initiator;

struct slot {
    struct initiator *initiator;
    uint32_t index;
    bool busy;
    bool read;
    uint64_t length;
    uint64_t starts;              /* of the target, when the task began */
    uint64_t here_sum, there_sum; /* of the whole slot, while idle */
    struct yolk_transfer_batch batch;
};

struct initiator {
    struct world *world;
    struct env *env;
    const char *host;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    uint8_t *memory;  /* as we see it */
    uint8_t *address; /* as the engine does */
    void *owned;      /* NULL: the engine's, or a device's */
    struct slot slots[SLOTS];
    uint64_t ended[YOLK_TRANSFER_FAILED + 1];
};

struct world {
    struct env_sim *sim;
    struct rng rng;
    struct env *target_env;
    struct yolk_transfer *target;
    uint8_t *memory, *address; /* of the target: INITIATORS * SLOTS * SLOT_SIZE */
    uint64_t starts;
    bool target_alive, parted, paused;
    bool user_memory;               /* that of the initiators is not the engine's */
    uint32_t lanes_max;             /* of the initiators; 0: the default */
    bool here_device, there_device; /* memory of devices */
    bool flips;                     /* bits, in flight: every task asks for checksums */
    bool encrypt;                   /* the initiators insist on it */
    bool rails;                     /* the hosts have further addresses, and use them */
    bool named;                     /* the target is opened by a name, and moves */
    struct env *names_env;
    struct metadata_server *names; /* NULL: down, or not `named` */
    bool rail_cut[RAILS];          /* [0] is `parted` */
    struct initiator initiators[INITIATORS];
};

static uint8_t *slot_here(const struct slot *slot)
{
    return slot->initiator->memory + (size_t)slot->index * SLOT_SIZE;
}

static uint8_t *slot_there(const struct slot *slot)
{
    const size_t initiator = (size_t)(slot->initiator - slot->initiator->world->initiators);
    return slot->initiator->world->memory + (initiator * SLOTS + slot->index) * SLOT_SIZE;
}

/* What requests say. */
static uint8_t *slot_local(const struct slot *slot)
{
    return slot->initiator->address + (slot_here(slot) - slot->initiator->memory);
}

static uint64_t slot_remote(const struct slot *slot)
{
    const struct world *world = slot->initiator->world;
    return (uintptr_t)world->address + (uint64_t)(slot_there(slot) - world->memory);
}

static void scribble_here(struct slot *slot)
{
    rng_fill(&slot->initiator->world->rng, slot_here(slot), SLOT_SIZE);
    slot->here_sum = hash_xxh3(slot_here(slot), SLOT_SIZE);
}

static void scribble_there(struct slot *slot)
{
    rng_fill(&slot->initiator->world->rng, slot_there(slot), SLOT_SIZE);
    slot->there_sum = hash_xxh3(slot_there(slot), SLOT_SIZE);
}

static void expect_quiet(const struct slot *slot)
{
    const struct world *world = slot->initiator->world;

    CHECK(hash_xxh3(slot_here(slot), SLOT_SIZE) == slot->here_sum);
    if (world->target_alive) CHECK(hash_xxh3(slot_there(slot), SLOT_SIZE) == slot->there_sum);
}

static void names_start(struct world *world)
{
    const struct metadata_server_options options = { .listen = NAMES, .state_file = "/names" };

    world->names_env = env_sim_add(world->sim, "10.0.0.9");
    CHECK(metadata_server_create(world->names_env, &options, &world->names, NULL) == STATUS_OK);
}

static void names_kill(struct world *world)
{
    env_sim_kill(world->names_env);
    metadata_server_destroy(world->names);
    world->names = NULL;
}

static const char *target_name(const struct world *world)
{
    return world->named ? "target" : TARGET;
}

static void target_start(struct world *world)
{
    void *memory;
    char listen[64] = TARGET;
    const struct yolk_transfer_options options = {
        .listen = listen,
        .metadata = world->named ? "http://" NAMES "/metadata" : NULL,
        .segment = "target",
        .metadata_ttl_ms = 1000,
        .secret = "s",
        .slice_size = 8192,
        .fence_ms = 2000,
        .rails = world->rails ? "auto" : NULL,
    };

    if (world->named)
        snprintf(listen, sizeof(listen), "10.0.0.1:%u", 7000 + (unsigned)world->starts % 3);
    world->target_env = env_sim_add(world->sim, "10.0.0.1");
    CHECK(yolk_transfer_create(world->target_env, &options, &world->target, NULL) == STATUS_OK);
    if (world->there_device) {
        memory = gpu_alloc(&gpu, 0, (size_t)INITIATORS * SLOTS * SLOT_SIZE);
        CHECK(memory != NULL);
        CHECK(yolk_transfer_register(world->target, memory, (size_t)INITIATORS * SLOTS * SLOT_SIZE,
                                     NULL, YOLK_TRANSFER_REMOTE_ALL) == STATUS_OK);
    } else {
        CHECK(yolk_transfer_alloc(world->target, (size_t)INITIATORS * SLOTS * SLOT_SIZE,
                                  YOLK_TRANSFER_REMOTE_ALL, &memory, NULL) == STATUS_OK);
    }
    world->address = memory;
    world->memory = gpu_see(&gpu, memory);
    world->starts++;
    world->target_alive = true;
    world->paused = false;
    for (int i = 0; i < INITIATORS; i++) {
        for (int j = 0; j < SLOTS; j++) {
            if (world->initiators[i].memory != NULL) scribble_there(&world->initiators[i].slots[j]);
        }
    }
}

static void target_kill(struct world *world)
{
    env_sim_kill(world->target_env);
    yolk_transfer_destroy(world->target);
    if (world->there_device) gpu_free(&gpu, 0, world->address);
    world->target = NULL;
    world->target_alive = false;
}

static void initiator_start(struct world *world, struct initiator *initiator, const char *host)
{
    char listen[64];
    void *memory;

    snprintf(listen, sizeof(listen), "%s:7100", host);
    const struct yolk_transfer_options options = { .listen = listen,
                                                   .secret = "s",
                                                   .encrypt = world->encrypt,
                                                   .slice_size = 4096 << rng_below(&world->rng, 4),
                                                   .lanes_per_peer =
                                                       1 + (uint32_t)rng_below(&world->rng, 3),
                                                   .fence_ms = 2000,
                                                   .rails = world->rails ? "auto" : NULL,
                                                   .metadata = world->named ? "http://" NAMES : "",
                                                   .lanes_max = world->lanes_max };
    initiator->world = world;
    initiator->host = host;
    initiator->env = env_sim_add(world->sim, host);
    CHECK(yolk_transfer_create(initiator->env, &options, &initiator->transfer, NULL) == STATUS_OK);
    if (world->here_device) {
        memory = gpu_alloc(&gpu, 1, (size_t)SLOTS * SLOT_SIZE);
        CHECK(memory != NULL);
        CHECK(yolk_transfer_register(initiator->transfer, memory, (size_t)SLOTS * SLOT_SIZE, NULL,
                                     0) == STATUS_OK);
    } else if (world->user_memory) { /* of which a write is pulled out of this process */
        memory = initiator->owned = malloc((size_t)SLOTS * SLOT_SIZE);
        CHECK(memory != NULL);
        CHECK(yolk_transfer_register(initiator->transfer, memory, (size_t)SLOTS * SLOT_SIZE, NULL,
                                     0) == STATUS_OK);
    } else {
        CHECK(yolk_transfer_alloc(initiator->transfer, (size_t)SLOTS * SLOT_SIZE, 0, &memory,
                                  NULL) == STATUS_OK);
    }
    initiator->address = memory;
    initiator->memory = gpu_see(&gpu, memory);
    CHECK(yolk_transfer_open(initiator->transfer, target_name(world), &initiator->segment) ==
          STATUS_OK);
    for (uint32_t i = 0; i < SLOTS; i++) {
        initiator->slots[i].initiator = initiator;
        initiator->slots[i].index = i;
        scribble_here(&initiator->slots[i]);
        scribble_there(&initiator->slots[i]);
    }
}

static void reopen(struct initiator *initiator)
{
    /* Several tasks of one handle may have ended STALE; a fresh handle does no harm. */
    CHECK(yolk_transfer_close(initiator->transfer, initiator->segment) == STATUS_OK);
    CHECK(yolk_transfer_open(initiator->transfer, target_name(initiator->world),
                             &initiator->segment) == STATUS_OK);
}

static void on_ended(void *ctx, const struct yolk_transfer_result *result)
{
    struct slot *slot = ctx;
    struct initiator *initiator = slot->initiator;
    struct world *world = initiator->world;
    const bool same = world->target_alive && world->starts == slot->starts;

    CHECK(slot->busy);
    slot->busy = false;
    initiator->ended[result->state]++;
    if (result->state == YOLK_TRANSFER_COMPLETED) {
        CHECK(result->bytes == slot->length);
        if (same) CHECK(memcmp(slot_here(slot), slot_there(slot), slot->length) == 0);
    }
    if (result->reason == STATUS_STALE) reopen(initiator);
    scribble_here(slot);
    /* Also when the target is another by now: an unbound handle may have met that one. */
    if (world->target_alive) scribble_there(slot);
    CHECK(yolk_transfer_batch_free(initiator->transfer, slot->batch) == STATUS_OK);
}

static void task_start(struct slot *slot)
{
    struct initiator *initiator = slot->initiator;
    struct world *world = initiator->world;
    struct rng *rng = &world->rng;

    expect_quiet(slot);
    slot->busy = true;
    slot->read = rng_below(rng, 2) == 0;
    slot->length = rng_between(rng, 1, rng_below(rng, 2) == 0 ? 20000 : SLOT_SIZE);
    slot->starts = world->starts;
    struct yolk_transfer_request req = {
        .opcode = slot->read ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE,
        .class = (enum yolk_transfer_class)rng_below(rng, YOLK_TRANSFER_CLASSES),
        .local = slot_local(slot),
        .segment = initiator->segment,
        .remote = slot_remote(slot),
        .length = slot->length,
        .checksum = rng_below(rng, 2) == 0,
    };
    if (world->flips) req.checksum = true;
    if (rng_below(rng, 3) == 0) {
        req.deadline_ns = env_now_ns(initiator->env) + rng_below(rng, 50 * ENV_NS_PER_MS);
    }
    CHECK(yolk_transfer_batch_create(initiator->transfer, 1, on_ended, slot, &slot->batch) ==
          STATUS_OK);
    CHECK(yolk_transfer_submit(initiator->transfer, slot->batch, &req, 1) == STATUS_OK);
}

static void step_initiator(struct world *world, struct initiator *initiator)
{
    struct slot *slot = &initiator->slots[rng_below(&world->rng, SLOTS)];

    if (!slot->busy) {
        task_start(slot);
    } else if (rng_below(&world->rng, 8) == 0) {
        CHECK(yolk_transfer_cancel(initiator->transfer, slot->batch, 0) == STATUS_OK);
    }
}

static void rail_cut(struct world *world, int rail, bool cut)
{
    char here[32], there[32];

    if (world->rail_cut[rail] == cut) return;
    world->rail_cut[rail] = cut;
    snprintf(here, sizeof(here), "10.%d.0.1", rail);
    snprintf(there, sizeof(there), "10.%d.0.2", rail);
    (cut ? env_sim_partition : env_sim_heal)(world->sim, here, there);
}

static void step_rails(struct world *world)
{
    const int rail = 1 + (int)rng_below(&world->rng, RAILS - 1);

    if (rng_below(&world->rng, 20) == 0) rail_cut(world, rail, true);
    if (rng_below(&world->rng, 10) == 0) rail_cut(world, rail, false);
}

static void step_names(struct world *world)
{
    if (world->names != NULL && rng_below(&world->rng, 60) == 0) {
        names_kill(world);
    } else if (world->names == NULL && rng_below(&world->rng, 20) == 0) {
        names_start(world);
    }
}

static void step_device(struct world *world)
{
    if (rng_below(&world->rng, 40) == 0)
        gpu.fake->fail_start = (unsigned)rng_between(&world->rng, 1, 9);
    if (rng_below(&world->rng, 40) == 0)
        gpu.fake->fail_end = (unsigned)rng_between(&world->rng, 1, 9);
    if (rng_below(&world->rng, 30) == 0) gpu.fake->refuse_open = !gpu.fake->refuse_open;
    if (rng_below(&world->rng, 20) == 0) gpu.fake->polls = (unsigned)rng_below(&world->rng, 60);
}

static void addresses_add(struct world *world)
{
    env_sim_add_address(world->sim, "10.0.0.1", "10.1.0.1");
    env_sim_add_address(world->sim, "10.0.0.1", "10.2.0.1");
    env_sim_add_address(world->sim, "10.0.0.2", "10.1.0.2");
    env_sim_add_address(world->sim, "10.0.0.2", "10.2.0.2");
}

static void step_faults(struct world *world)
{
    const char *other = world->initiators[1].host;

    switch (rng_below(&world->rng, 150)) {
    case 0:
        if (world->target_alive) {
            target_kill(world);
        }
        break;
    case 1:
    case 2:
        if (!world->parted) env_sim_partition(world->sim, "10.0.0.1", other);
        world->parted = true;
        break;
    case 3:
    case 4:
        if (world->target_alive && !world->paused) {
            env_sim_pause(world->target_env);
            gpu.pass(); /* devices do not stand still with it */
            world->paused = true;
        }
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        if (!world->target_alive) target_start(world);
        break;
    case 9:
    case 10:
    case 11:
        if (world->parted) env_sim_heal(world->sim, "10.0.0.1", other);
        world->parted = false;
        break;
    case 12:
    case 13:
    case 14:
        if (world->target_alive && world->paused) env_sim_resume(world->target_env);
        world->paused = false;
        break;
    default: break;
    }
}

static bool all_idle(void *ctx)
{
    const struct world *world = ctx;

    for (int i = 0; i < INITIATORS; i++) {
        for (int j = 0; j < SLOTS; j++) {
            if (world->initiators[i].slots[j].busy) return false;
        }
    }
    return true;
}

static void finish(struct world *world)
{
    env_sim_calm(world->sim);
    world->paused = false;
    gpu.fake->fail_start = gpu.fake->fail_end = 0;
    gpu.fake->refuse_open = false;
    if (!world->target_alive) target_start(world);
    CHECK(env_sim_run_until(world->sim, all_idle, world, 60 * ENV_NS_PER_S) || all_idle(world));
    env_sim_run_for(world->sim, 20 * ENV_NS_PER_S);
    for (int i = 0; i < INITIATORS; i++) {
        for (int j = 0; j < SLOTS; j++)
            expect_quiet(&world->initiators[i].slots[j]);
    }
}

/* Moved over rails whose far end begins with `prefix`. */
static uint64_t rail_bytes(const struct initiator *initiator, const char *prefix)
{
    struct yolk_transfer_rail rails[YOLK_TRANSFER_RAILS_MAX + 1];
    const uint32_t count = yolk_transfer_rails(initiator->transfer, rails, RAILS + 1);
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < count && i < RAILS + 1; i++) {
        if (strncmp(rails[i].remote, prefix, strlen(prefix)) == 0) bytes += rails[i].bytes;
    }
    return bytes;
}

static void count(const struct world *world, uint64_t totals[TOTALS])
{
    for (int i = 0; i < INITIATORS; i++) {
        struct yolk_transfer_stats stats = { 0 };
        for (int j = 0; j <= YOLK_TRANSFER_FAILED; j++)
            totals[j] += world->initiators[i].ended[j];
        yolk_transfer_stats(world->initiators[i].transfer, &stats);
        totals[FENCES] += stats.fences;
        totals[RAIL_PAUSES] += stats.rail_pauses;
        totals[EVICTIONS] += stats.evictions;
        totals[IPC_BYTES] +=
            stats.bytes_sent[YOLK_TRANSFER_PATH_CUDA] + stats.bytes_read[YOLK_TRANSFER_PATH_CUDA];
        totals[RAIL_BYTES] +=
            rail_bytes(&world->initiators[i], "10.1.") + rail_bytes(&world->initiators[i], "10.2.");
    }
}

static void run_seed(uint64_t seed, uint64_t totals[TOTALS])
{
    struct world world = { 0 };
    struct env_sim_options options = { .seed = seed };

    current_seed = seed;
    rng_init(&world.rng, seed);
    options.conn_loss_ppm = (uint32_t)rng_below(&world.rng, 3000);
    options.conn_refuse_ppm = (uint32_t)rng_below(&world.rng, 100000);
    options.slow_ppm = (uint32_t)rng_below(&world.rng, 20000);
    options.buggify_ppm = (uint32_t)rng_below(&world.rng, 50000);
    world.flips = seed % 3 == 1;
    if (world.flips) options.flip_ppm = 3000;
    options.flip_spares = "10.0.0.9"; /* HTTP has no checksums */
    options.bytes_per_s = rng_below(&world.rng, 2) == 0 ? 0 : 20 << 20;
    /* Small ones cut every payload in pieces that come a round trip apart. */
    options.stream_buffer_size = 3000u << rng_below(&world.rng, 7);
    world.rails = seed % 2 == 0;
    world.user_memory = seed % 3 == 0;
    world.encrypt = seed % 5 < 2;
    world.here_device = seed % 4 == 1 || seed % 8 == 6;
    world.there_device = seed % 4 == 1 || seed % 8 == 2;
    *gpu.fake = (struct fake_cuda){ .polls = (unsigned)rng_below(&world.rng, 6),
                                    .own_handles = seed / 8 % 2 == 0 };
    world.lanes_max = world.rails ? 4 : 0;
    world.named = seed % 4 > 1;
    world.sim = env_sim_create(&options);
    if (world.rails) addresses_add(&world);
    if (world.named) names_start(&world);
    target_start(&world);
    initiator_start(&world, &world.initiators[0], "10.0.0.1");
    initiator_start(&world, &world.initiators[1], "10.0.0.2");
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < INITIATORS; i++)
            step_initiator(&world, &world.initiators[i]);
        step_faults(&world);
        if (world.rails) step_rails(&world);
        if (world.named) step_names(&world);
        if (world.here_device || world.there_device) step_device(&world);
        env_sim_run_for(world.sim, rng_below(&world.rng, STEP_NS));
    }
    finish(&world);
    count(&world, totals);
    for (int i = 0; i < INITIATORS; i++)
        yolk_transfer_destroy(world.initiators[i].transfer);
    yolk_transfer_destroy(world.target);
    assert_int_equal(gpu.fake->open, 0);
    metadata_server_destroy(world.names);
    for (int i = 0; i < INITIATORS; i++) {
        free(world.initiators[i].owned);
        if (world.here_device) gpu_free(&gpu, 1, world.initiators[i].address);
    }
    if (world.there_device) gpu_free(&gpu, 0, world.address);
    totals[FAULTS] += env_sim_fault_count(world.sim);
    env_sim_destroy(world.sim);
}

static void no_byte_lands_after_the_end(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    uint64_t totals[TOTALS] = { 0 };
    const uint64_t first = text != NULL ? strtoull(text, NULL, 0) : 1;
    const char *more = getenv("YOLK_SIM_SEEDS");
    const uint64_t seeds = more != NULL ? strtoull(more, NULL, 0) : text != NULL ? 1 : SEEDS;
    const uint64_t last = first + seeds - 1;

    printf("SEED=%llu..%llu\n", (unsigned long long)first, (unsigned long long)last);
    for (uint64_t seed = first; seed <= last; seed++)
        run_seed(seed, totals);
    for (int i = YOLK_TRANSFER_INVALID; i <= YOLK_TRANSFER_FAILED; i++) {
        printf("%s=%llu ", yolk_transfer_state_name((enum yolk_transfer_state)i),
               (unsigned long long)totals[i]);
    }
    printf("fences=%llu rail_pauses=%llu evictions=%llu rail_bytes=%llu\n",
           (unsigned long long)totals[FENCES], (unsigned long long)totals[RAIL_PAUSES],
           (unsigned long long)totals[EVICTIONS], (unsigned long long)totals[RAIL_BYTES]);
    test_soaked(seeds, totals[FAULTS]);
    if (text != NULL || more != NULL) return;
    /* A walk that never met a fault, or never got anything across, proves nothing. */
    assert_true(totals[YOLK_TRANSFER_COMPLETED] > 1000u);
    assert_true(totals[YOLK_TRANSFER_CANCELED] > 50);
    assert_true(totals[YOLK_TRANSFER_TIMEOUT] > 50);
    assert_true(totals[YOLK_TRANSFER_FAILED] > 50);
    assert_true(totals[FENCES] > 5);
    assert_true(totals[RAIL_PAUSES] > SEEDS / 10);
    assert_true(totals[RAIL_BYTES] > 1 << 20);
    assert_true(totals[IPC_BYTES] > 1 << 20);
    assert_true(totals[FAULTS] > 100 * SEEDS);
}

/* ---- calm worlds ---- */

static void world_open(struct world *world, uint64_t seed, uint32_t stream_buffer_size)
{
    const struct env_sim_options options = { .seed = seed,
                                             .stream_buffer_size = stream_buffer_size };

    memset(world, 0, sizeof(*world));
    current_seed = seed;
    rng_init(&world->rng, seed);
    world->sim = env_sim_create(&options);
    target_start(world);
    initiator_start(world, &world->initiators[0], "10.0.0.1");
    initiator_start(world, &world->initiators[1], "10.0.0.2");
}

static void world_close(struct world *world)
{
    for (int i = 0; i < INITIATORS; i++)
        yolk_transfer_destroy(world->initiators[i].transfer);
    yolk_transfer_destroy(world->target);
    env_sim_destroy(world->sim);
}

/* A task over the whole slot, from the host that has no shared memory with the target. */
static void whole_slot_start(struct slot *slot, bool read, bool checksum)
{
    struct initiator *initiator = slot->initiator;
    const struct yolk_transfer_request req = {
        .opcode = read ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE,
        .local = slot_here(slot),
        .segment = initiator->segment,
        .remote = (uintptr_t)slot_there(slot),
        .length = SLOT_SIZE,
        .checksum = checksum,
    };

    slot->busy = true;
    slot->read = read;
    slot->length = SLOT_SIZE;
    slot->starts = initiator->world->starts;
    CHECK(yolk_transfer_batch_create(initiator->transfer, 1, on_ended, slot, &slot->batch) ==
          STATUS_OK);
    CHECK(yolk_transfer_submit(initiator->transfer, slot->batch, &req, 1) == STATUS_OK);
}

static bool slot_idle(void *ctx)
{
    return !((const struct slot *)ctx)->busy;
}

/* The last byte changes after its checksum was taken and before it has left: as good as damage on
 * the way. */
static void damage_is_found_and_repaired(void **state)
{
    (void)state;
    for (int read = 0; read <= 1; read++) {
        struct world world;
        struct yolk_transfer_stats stats = { 0 };
        world_open(&world, 3, 16 << 10);
        struct slot *slot = &world.initiators[1].slots[0];
        struct yolk_transfer *transfer = slot->initiator->transfer;
        whole_slot_start(slot, false, true); /* connects */
        CHECK(env_sim_run_until(world.sim, slot_idle, slot, ENV_NS_PER_S));
        whole_slot_start(slot, read != 0, true);
        env_sim_run_for(world.sim, 1500 * ENV_NS_PER_US);
        CHECK(slot->busy);
        (read ? slot_there(slot) : slot_here(slot))[SLOT_SIZE - 1] ^= 1;
        CHECK(env_sim_run_until(world.sim, slot_idle, slot, ENV_NS_PER_S));
        yolk_transfer_stats(transfer, &stats);
        CHECK(stats.retries >= 1);
        CHECK(slot->initiator->ended[YOLK_TRANSFER_COMPLETED] == 2); /* on_ended compared them */
        world_close(&world);
    }
}

static void idle_lanes_stay(void **state)
{
    (void)state;
    struct world world;
    struct yolk_transfer_stats before = { 0 }, after = { 0 };

    world_open(&world, 4, 0);
    struct slot *slot = &world.initiators[1].slots[0];
    whole_slot_start(slot, false, false);
    CHECK(env_sim_run_until(world.sim, slot_idle, slot, ENV_NS_PER_S));
    env_sim_run_for(world.sim, ENV_NS_PER_S);
    yolk_transfer_stats(slot->initiator->transfer, &before);
    env_sim_run_for(world.sim, 60 * ENV_NS_PER_S);
    yolk_transfer_stats(slot->initiator->transfer, &after);
    CHECK(before.lanes_open > 0 && after.lanes_open == before.lanes_open);
    world_close(&world);
}

/* ---- rails ---- */

static void rails_open(struct world *world, uint64_t seed)
{
    const struct env_sim_options options = { .seed = seed,
                                             .bytes_per_s = 64 << 20,
                                             .stream_buffer_size = 16 << 10 };

    memset(world, 0, sizeof(*world));
    current_seed = seed;
    rng_init(&world->rng, seed);
    world->sim = env_sim_create(&options);
    world->rails = true;
    addresses_add(world);
    target_start(world);
    initiator_start(world, &world->initiators[0], "10.0.0.1");
    initiator_start(world, &world->initiators[1], "10.0.0.2");
}

/* Moves slots over and over for `ns`; returns the longest time in which nothing arrived. */
static uint64_t keep_moving(struct world *world, bool read, uint64_t ns)
{
    struct initiator *initiator = &world->initiators[1];
    const uint64_t end_ns = env_sim_now_ns(world->sim) + ns;
    uint64_t moved = 0, moved_ns = env_sim_now_ns(world->sim), stall_ns = 0;

    while (env_sim_now_ns(world->sim) < end_ns) {
        uint64_t now_moved = 0;
        for (int i = 0; i < SLOTS; i++) {
            if (!initiator->slots[i].busy) whole_slot_start(&initiator->slots[i], read, false);
        }
        env_sim_run_for(world->sim, ENV_NS_PER_MS);
        now_moved = rail_bytes(initiator, "10.");
        const uint64_t now_ns = env_sim_now_ns(world->sim);
        if (now_ns - moved_ns > stall_ns) stall_ns = now_ns - moved_ns;
        if (now_moved != moved) moved_ns = now_ns;
        moved = now_moved;
    }
    return stall_ns;
}

static void a_cut_rail_is_left_and_used_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= CUTS; seed++) {
        struct world world;
        const int rail = (int)(seed % RAILS);
        char prefix[16];
        rails_open(&world, seed);
        struct initiator *initiator = &world.initiators[1];
        snprintf(prefix, sizeof(prefix), "10.%d.", rail);
        keep_moving(&world, seed % 2 == 0, ENV_NS_PER_S / 2);
        for (int i = 0; i < RAILS; i++) {
            char each[16];
            snprintf(each, sizeof(each), "10.%d.", i);
            CHECK(rail_bytes(initiator, each) > 1 << 20); /* all are used */
        }
        rail_cut(&world, rail, true);
        CHECK(keep_moving(&world, seed % 2 == 0, ENV_NS_PER_S) <= 50 * ENV_NS_PER_MS);
        const uint64_t before = rail_bytes(initiator, prefix);
        rail_cut(&world, rail, false);
        keep_moving(&world, seed % 2 == 0, 2 * ENV_NS_PER_S);
        CHECK(rail_bytes(initiator, prefix) > before + (256 << 10));
        finish(&world);
        CHECK(initiator->ended[YOLK_TRANSFER_COMPLETED] > 20);
        CHECK(initiator->ended[YOLK_TRANSFER_FAILED] == 0);
        world_close(&world);
    }
}

/* ---- a target that is stopped longer than its lease ---- */

/* The WRITE is on its way, partly in the target's socket, when the target stops. The initiator gets
 * its end by the lease alone; what the target finds when it wakes must not land. */
static void stop_and_wake(uint64_t seed, int initiator)
{
    struct world world;

    world_open(&world, seed, 32 << 10);
    struct slot *slot = &world.initiators[initiator].slots[0];
    do {
        task_start(slot);
        if (slot->read || slot->length < SLOT_SIZE / 2) {
            CHECK(env_sim_run_until(world.sim, slot_idle, slot, ENV_NS_PER_S));
        }
    } while (!slot->busy);
    env_sim_run_for(world.sim, seed * 100 * ENV_NS_PER_US);
    const bool stopped_in_time = slot->busy;
    env_sim_pause(world.target_env);
    if (slot->busy) {
        CHECK(yolk_transfer_cancel(slot->initiator->transfer, slot->batch, 0) == STATUS_OK);
        CHECK(env_sim_run_until(world.sim, slot_idle, slot, 10 * ENV_NS_PER_S));
    }
    env_sim_run_for(world.sim, 10 * ENV_NS_PER_S);
    env_sim_resume(world.target_env);
    env_sim_run_for(world.sim, 10 * ENV_NS_PER_S);
    expect_quiet(slot);
    for (int i = 0; i < INITIATORS; i++)
        yolk_transfer_destroy(world.initiators[i].transfer);
    yolk_transfer_destroy(world.target);
    env_sim_destroy(world.sim);
    stops_in_time += stopped_in_time;
}

static void a_stopped_target_lands_nothing_when_it_wakes(void **state)
{
    (void)state;
    stops_in_time = 0;
    for (uint64_t seed = 1; seed <= 40; seed++)
        stop_and_wake(seed, (int)(seed % 2));
    assert_true(stops_in_time > 10);
}

static uint64_t hash_of_seed(uint64_t seed)
{
    struct world world = { 0 };
    const struct env_sim_options options = { .seed = seed, .conn_loss_ppm = 1000 };

    rng_init(&world.rng, seed);
    world.sim = env_sim_create(&options);
    target_start(&world);
    initiator_start(&world, &world.initiators[0], "10.0.0.1");
    initiator_start(&world, &world.initiators[1], "10.0.0.2");
    for (int step = 0; step < 100; step++) {
        for (int i = 0; i < INITIATORS; i++)
            step_initiator(&world, &world.initiators[i]);
        env_sim_run_for(world.sim, STEP_NS);
    }
    const uint64_t hash = env_sim_trace_hash(world.sim);
    for (int i = 0; i < INITIATORS; i++)
        yolk_transfer_destroy(world.initiators[i].transfer);
    yolk_transfer_destroy(world.target);
    env_sim_destroy(world.sim);
    return hash;
}

static void a_seed_repeats_itself(void **state)
{
    (void)state;
    assert_true(hash_of_seed(7) == hash_of_seed(7));
    assert_true(hash_of_seed(7) != hash_of_seed(8));
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (!gpu_open(&gpu, FAKE_CUDA)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_lands_after_the_end),
        cmocka_unit_test(damage_is_found_and_repaired),
        cmocka_unit_test(idle_lanes_stay),
        cmocka_unit_test(a_cut_rail_is_left_and_used_again),
        cmocka_unit_test(a_stopped_target_lands_nothing_when_it_wakes),
        cmocka_unit_test(a_seed_repeats_itself),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < GPU_DEVICES; i++)
        cuda_device_close(gpu.devices[i]);
    return failed;
}
