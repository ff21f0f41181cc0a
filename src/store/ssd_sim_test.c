/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_sim_test.c
 *
 * Goal:   no byte from the disk is ever wrong; what was written and synced is found again unless it
 *         was given up; the files are never larger than they may be; and when nothing breaks any
 *         more, everything works.
 * Method: one disk tier in a simulated world, from a seed. Blocks are written, read part by part,
 *         touched and dropped, in an order that the seed chooses; bytes are a function of the key.
 *         Meanwhile, by kind of world:
 *           crash   the process is killed or the power goes, at any event: between any two writes
 *                   and in the middle of each. Whatever the index knew to be synced (power), or
 *                   written (kill), must be found again.
 *           failing operations fail, and none lies
 *           lying   reads flip bits, files are damaged for good, operations fail
 *           full    the disk is smaller than the tier was promised
 *         A third of the worlds is sealed, a quarter packed; what was written by one life is
 *         read by others that write otherwise.
 *         Besides: the power goes after every single event of writing and sealing a segment, and
 *         records are exchanged as a disk does that reads from the wrong place.
 *         YOLK_SIM_SEEDS=n runs n seeds of each kind; SEED=n starts there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "store/ssd_int.h"
#include "seed.h"

enum {
    LAYERS = 5,
    LAYER_SIZE = 3000,
    PAGE_SIZE = 16384,
    PART_SIZE = 8192,
    RECORD_SIZE = PAGE_SIZE + SSD_ALIGN,
    KEYS = 150,
    READS = 6,
    STEPS = 300,
    SIZE_MAX_BLOCKS = 60,
    STARTS_SEEDS = 60,
    SEEDS_DEFAULT = 40,
};

enum kind { CRASH, FAILING, LYING, FULL };

#define HOST "10.0.0.1"
#define DIRECTORY "/tmp/tier"

static uint64_t current_seed;
static unsigned long long reads_right, reads_refused, found_again, crashes, carried, reclaimed,
    faults, packed_from, packed_to;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail_msg("SEED=%llu: %s", (unsigned long long)current_seed, #condition); \
    } while (0)

struct world;

struct reading {
    struct world *world;
    bool busy;
    unsigned key;
    struct ssd_read read;
    uint8_t *page;
    uint8_t *header;
    uint64_t sums[STORE_LAYERS_MAX];
};

struct world {
    struct env_sim *sim;
    struct env *env;
    struct ssd *ssd;
    struct rng rng;
    enum kind kind;
    uint64_t size_max;
    unsigned lives;
    bool stored[KEYS]; /* as on_stored and on_removed said */
    struct reading readings[READS];
};

static struct block_key key_of(unsigned n)
{
    struct block_key key;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t word = rng_counter(n, i);
        memcpy(key.bytes + 8 * i, &word, sizeof(word));
    }
    return key;
}

static unsigned number_of(const struct block_key *key)
{
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key other = key_of(n);
        if (block_key_equal(&other, key)) return n;
    }
    CHECK(false);
    return 0;
}

/* A third is noise, a third as F16 numbers, of which one byte in two is, a third of few values. */
static const uint8_t *bytes_of(unsigned n)
{
    static uint8_t all[KEYS][LAYERS * LAYER_SIZE];
    static bool made[KEYS];
    uint8_t *bytes = all[n];
    struct rng rng;

    if (made[n]) return bytes;
    made[n] = true;
    rng_init(&rng, 1000 + n);
    rng_fill(&rng, bytes, sizeof(all[n]));
    for (size_t i = 0; n % 3 != 0 && i < sizeof(all[n]); i++) {
        if (n % 3 == 1 || i % 2 == 1) bytes[i] = 0x34 + (bytes[i] & 3);
    }
    return bytes;
}

static struct store_layout layout_of_test(void)
{
    struct store_layout layout = { .pages = 8,
                                   .page_size = PAGE_SIZE,
                                   .layers = LAYERS,
                                   .layer_size = LAYER_SIZE,
                                   .block_tokens = 16 };
    memcpy(layout.id, "simulated layout", sizeof(layout.id));
    return layout;
}

/* ---- the tier's owner ---- */

static void on_stored(void *ctx, const struct block_key *key)
{
    struct world *world = ctx;
    world->stored[number_of(key)] = true;
    CHECK(ssd_has(world->ssd, key));
}

static void on_removed(void *ctx, const struct block_key *key)
{
    struct world *world = ctx;
    world->stored[number_of(key)] = false;
}

static void on_room(void *ctx)
{
    (void)ctx;
}

/* Two of three worlds are clear; in the third each life writes with the other of two keys. */
static const struct ssd_keys *keys_of(const struct world *world)
{
    static struct ssd_keys keys;
    char text[2 * 65];

    if (current_seed % 3 != 0) return NULL;
    for (unsigned i = 0; i < 2; i++) {
        memset(text + 65 * i, (world->lives + i) % 2 == 0 ? 'a' : '7', 64);
        text[65 * i + 64] = '\n';
    }
    CHECK(ssd_keys_parse(text, sizeof(text), &keys, NULL) == STATUS_OK);
    return &keys;
}

/* Every fourth world has packed blocks, in two of three of its lives. */
static struct ssd_packing packing_of(const struct world *world)
{
    const bool packed = current_seed % 4 == 0 && world->lives % 3 != 0;
    return (struct ssd_packing){ .level = packed ? 1 + world->lives % 2 : 0,
                                 .unit = world->lives % 4 == 0 ? 0 : 2 };
}

/* Clear, and in parts of the usual size. */
static struct ssd_options options_with(struct world *world, const struct store_layout *layout)
{
    return (struct ssd_options){ .env = world->env,
                                 .directory = DIRECTORY,
                                 .size_max = world->size_max,
                                 .layout = *layout,
                                 .on_stored = on_stored,
                                 .on_removed = on_removed,
                                 .on_room = on_room,
                                 .ctx = world };
}

static enum status tier_open(struct world *world)
{
    const struct store_layout layout = layout_of_test();
    struct ssd_options options = options_with(world, &layout);
    options.seed = 3;
    options.keys = keys_of(world);
    options.part_size = PART_SIZE;
    options.packing = packing_of(world);
    struct errmsg err = { "" };
    const enum status status = ssd_open(&options, &world->ssd, &err);
    if (status != STATUS_OK) {
        CHECK((world->kind == LYING || world->kind == FAILING) && err.text[0] != '\0');
        world->ssd = NULL;
        return status;
    }
    struct block_key key;
    uint64_t cursor = 0;
    memset(world->stored, 0, sizeof(world->stored));
    while (ssd_next(world->ssd, &cursor, &key))
        world->stored[number_of(&key)] = true;
    return STATUS_OK;
}

static void tier_start(struct world *world)
{
    world->env = env_sim_add(world->sim, HOST);
    world->lives++;
    /* A disk that says no may also say it at the start: then it is tried again. */
    for (int tries = 0; tier_open(world) != STATUS_OK; tries++)
        CHECK(tries < 1000);
}

/* ---- steps ---- */

static void on_part_read(void *ctx, enum status status)
{
    struct reading *reading = ctx;
    struct world *world = reading->world;
    struct ssd_read *read = &reading->read;

    CHECK(reading->busy);
    CHECK(read->layers_ready <= LAYERS);
    CHECK(memcmp(reading->page, bytes_of(reading->key), (size_t)read->layers_ready * LAYER_SIZE) ==
          0); /* whatever is called ready is right */
    if (status == STATUS_OK && read->parts_done < ssd_parts(world->ssd)) {
        if (ssd_read_part(read) == STATUS_OK) return;
    } else if (status == STATUS_OK) {
        CHECK(read->layers_ready == LAYERS);
        CHECK(memcmp(read->sums, (uint64_t[]){ hash_xxh3(bytes_of(reading->key), LAYER_SIZE) },
                     8) == 0);
        reads_right++;
    } else {
        CHECK(world->kind == LYING || (world->kind == FAILING && status == STATUS_IO));
        reads_refused++;
    }
    reading->busy = false;
    ssd_read_close(read);
}

static void read_step(struct world *world)
{
    struct reading *reading = &world->readings[rng_below(&world->rng, READS)];
    const unsigned n = (unsigned)rng_below(&world->rng, KEYS);
    const struct block_key key = key_of(n);

    if (reading->busy) return;
    reading->world = world;
    reading->key = n;
    if (reading->page == NULL) reading->page = ssd_alloc_aligned(PAGE_SIZE);
    if (reading->header == NULL) reading->header = ssd_alloc_aligned(SSD_ALIGN);
    reading->read = (struct ssd_read){ .page = reading->page,
                                       .header = reading->header,
                                       .sums = reading->sums,
                                       .fn = on_part_read,
                                       .ctx = reading };
    const enum status status = ssd_read_open(world->ssd, &key, &reading->read);
    CHECK((status == STATUS_OK) == world->stored[n]);
    if (status != STATUS_OK) return;
    ssd_touch(world->ssd, &key);
    memset(reading->page, 0xee, PAGE_SIZE);
    CHECK(ssd_read_part(&reading->read) == STATUS_OK);
    reading->busy = true;
}

static void write_step(struct world *world)
{
    const unsigned n = (unsigned)rng_below(&world->rng, KEYS);
    const struct block_key key = key_of(n);
    const uint8_t *bytes = bytes_of(n);
    uint64_t sums[LAYERS];

    for (unsigned i = 0; i < LAYERS; i++)
        sums[i] = hash_xxh3(bytes + (size_t)i * LAYER_SIZE, LAYER_SIZE);
    const enum status status = ssd_write(world->ssd, &key, bytes, sums);
    CHECK(status == STATUS_OK || status == STATUS_EXISTS || status == STATUS_FULL);
    CHECK(status != STATUS_OK || !world->stored[n]);
}

static void step(struct world *world)
{
    const uint64_t dice = rng_below(&world->rng, 20);
    const unsigned n = (unsigned)rng_below(&world->rng, KEYS);
    const struct block_key key = key_of(n);

    if (dice < 12) {
        write_step(world);
    } else if (dice < 18) {
        read_step(world);
    } else if (dice < 19) {
        ssd_touch(world->ssd, &key);
        ssd_touch(world->ssd, &key);
    } else if (rng_below(&world->rng, 4) == 0) {
        const bool was = world->stored[n];
        CHECK((ssd_drop(world->ssd, &key) == STATUS_OK) == was && !world->stored[n]);
    }
}

static void check_now(const struct world *world)
{
    ssd_check(world->ssd);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key key = key_of(n);
        CHECK(ssd_has(world->ssd, &key) == world->stored[n]);
    }
}

/* ---- crashes ---- */

/* What must be there after the process (or the power) has gone at this instant. */
static void promise(const struct world *world, bool power, bool promised[KEYS])
{
    struct block_key key;

    memset(promised, 0, KEYS * sizeof(*promised));
    for (uint32_t i = 0; i < SSD_SEGMENTS_MAX; i++) {
        const struct ssd_segment *segment = world->ssd->segments[i];
        if (segment == NULL) continue;
        for (uint32_t slot = 0; slot < segment->used; slot++) {
            if (!ssd_index_points(segment, slot)) continue;
            key = segment->keys[slot];
            promised[number_of(&key)] = !power || slot < segment->synced;
        }
    }
}

static void readings_forget(struct world *world)
{
    for (unsigned i = 0; i < READS; i++)
        world->readings[i].busy = false;
}

static void crash(struct world *world)
{
    const bool power = rng_below(&world->rng, 2) == 0;
    bool promised[KEYS];

    promise(world, power, promised);
    if (power) {
        env_sim_power_off(world->sim, HOST);
    } else {
        env_sim_kill(world->env);
    }
    readings_forget(world);
    ssd_close(world->ssd);
    tier_start(world);
    crashes++;
    if (world->kind == LYING || world->kind == FAILING) return;
    for (unsigned n = 0; n < KEYS; n++) {
        CHECK(!promised[n] || world->stored[n]);
        found_again += promised[n];
    }
}

static bool no_reading(void *ctx)
{
    const struct world *world = ctx;
    for (unsigned i = 0; i < READS; i++) {
        if (world->readings[i].busy) return false;
    }
    return true;
}

/* Stopped in order: all that was stored is found again, and so is nothing else. */
static void restart(struct world *world)
{
    bool before[KEYS];

    CHECK(env_sim_run_until(world->sim, no_reading, world, 10 * ENV_NS_PER_S));
    memcpy(before, world->stored, sizeof(before));
    ssd_close(world->ssd);
    env_sim_kill(world->env);
    tier_start(world);
    if (world->kind == LYING || world->kind == FAILING) return;
    for (unsigned n = 0; n < KEYS; n++)
        CHECK(!before[n] || world->stored[n]);
}

/* ---- worlds ---- */

static void disturb(struct world *world)
{
    const uint64_t dice = rng_below(&world->rng, 40);

    if (dice == 0) restart(world);
    if (dice < 3 && dice > 0) crash(world);
    if (dice == 3 && world->kind == LYING) (void)env_sim_disk_damage(world->sim, HOST);
}

/* Nothing breaks any more: what is written is there, and is read. */
static void check_liveness(struct world *world)
{
    struct ssd_counts before, after;

    env_sim_calm(world->sim);
    env_sim_run_for(world->sim, 20 * ENV_NS_PER_S); /* rests are over */
    ssd_counts(world->ssd, &before);
    for (int i = 0; i < 200; i++) {
        write_step(world);
        env_sim_run_for(world->sim, 20 * ENV_NS_PER_MS);
    }
    ssd_counts(world->ssd, &after);
    CHECK(after.blocks > 0);
    if (world->kind != FULL) CHECK(after.blocks_written_total > before.blocks_written_total);
    for (int i = 0; i < 200; i++) {
        read_step(world);
        env_sim_run_for(world->sim, 20 * ENV_NS_PER_MS);
    }
    CHECK(no_reading(world));
    check_now(world);
}

static void world_run(enum kind kind, uint64_t seed)
{
    static const char *const NAMES[] = { "crash", "failing", "lying", "full" };
    struct world world = { .kind = kind };
    struct ssd_counts counts;

    current_seed = seed;
    printf("%s SEED=%llu\n", NAMES[kind], (unsigned long long)seed);
    rng_init(&world.rng, seed);
    world.size_max = (8 + rng_below(&world.rng, SIZE_MAX_BLOCKS)) * RECORD_SIZE + 16 * SSD_ALIGN;
    const struct env_sim_options options = {
        .seed = seed,
        .buggify_ppm = 10000,
        .disk_corrupt_ppm = kind == LYING ? 20000 : 0,
        .disk_error_ppm = kind == LYING || kind == FAILING ? 20000 : 0,
        .disk_size_max = kind == FULL ? world.size_max * (3 + rng_below(&world.rng, 7)) / 10 : 0,
    };
    world.sim = env_sim_create(&options);
    tier_start(&world);
    for (int i = 0; i < STEPS; i++) {
        step(&world);
        disturb(&world);
        env_sim_run_for(world.sim, rng_below(&world.rng, 4 * ENV_NS_PER_MS));
        if (rng_below(&world.rng, 30) == 0) env_sim_run_for(world.sim, 3 * ENV_NS_PER_S);
        check_now(&world);
    }
    check_liveness(&world);
    ssd_counts(world.ssd, &counts);
    carried += counts.blocks_carried_total;
    reclaimed += counts.segments_reclaimed_total;
    packed_from += counts.packed_from_total;
    packed_to += counts.packed_to_total;
    ssd_close(world.ssd);
    for (unsigned i = 0; i < READS; i++) {
        free(world.readings[i].page);
        free(world.readings[i].header);
    }
    faults += env_sim_fault_count(world.sim);
    env_sim_destroy(world.sim);
}

static void run_seeds(enum kind kind)
{
    const unsigned count = test_seeds(SEEDS_DEFAULT);
    const uint64_t first = test_seed();
    for (unsigned i = 0; i < count; i++)
        world_run(kind, first + i);
}

static void crashes_lose_nothing_that_was_synced(void **state)
{
    (void)state;
    run_seeds(CRASH);
    assert_true(crashes > 0 && found_again > 0 && reads_right > 0);
    assert_true(carried > 0 && reclaimed > 0);
    assert_true(packed_to > 0 && packed_to < packed_from);
    assert_int_equal(reads_refused, 0);
}

static void a_failing_disk_costs_blocks_and_nothing_else(void **state)
{
    (void)state;
    const unsigned long long before = reads_refused;
    run_seeds(FAILING);
    assert_true(reads_refused > before);
}

static void a_lying_disk_costs_blocks_and_never_gives_wrong_bytes(void **state)
{
    (void)state;
    run_seeds(LYING);
    assert_true(reads_refused > 0);
}

/* A world in which the header of a record had come to the disk, its bytes had not, the write had
 * failed, and the process was killed: it was taken for a block. */
static void what_failed_half_way_is_not_found(void **state)
{
    (void)state;
    world_run(FAILING, 60000256);
}

static void a_full_disk_is_lived_with(void **state)
{
    (void)state;
    run_seeds(FULL);
}

/* ---- one thing at a time ---- */

/* Everything that the tier says it has is read, and right (on_part_read() checks). */
static void read_all(struct world *world)
{
    struct reading *reading = &world->readings[0];

    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key key = key_of(n);
        if (!world->stored[n]) continue;
        reading->key = n;
        reading->read = (struct ssd_read){ .page = reading->page,
                                           .header = reading->header,
                                           .sums = reading->sums,
                                           .fn = on_part_read,
                                           .ctx = reading };
        CHECK(ssd_read_open(world->ssd, &key, &reading->read) == STATUS_OK);
        reading->busy = true;
        CHECK(ssd_read_part(&reading->read) == STATUS_OK);
        CHECK(env_sim_run_until(world->sim, no_reading, world, ENV_NS_PER_S));
    }
}

static void world_begin_with(struct world *world, uint64_t seed, uint32_t disk_error_ppm)
{
    const struct env_sim_options options = { .seed = seed, .disk_error_ppm = disk_error_ppm };

    *world = (struct world){ .kind = disk_error_ppm > 0 ? FAILING : CRASH };
    current_seed = seed;
    rng_init(&world->rng, seed);
    world->size_max = 3 * 8 * (4 * RECORD_SIZE + 2 * SSD_ALIGN) / 3;
    world->sim = env_sim_create(&options);
    world->readings[0].world = world;
    world->readings[0].page = ssd_alloc_aligned(PAGE_SIZE);
    world->readings[0].header = ssd_alloc_aligned(SSD_ALIGN);
    tier_start(world);
}

static void world_begin(struct world *world, uint64_t seed)
{
    world_begin_with(world, seed, 0);
}

static void world_end(struct world *world)
{
    ssd_close(world->ssd);
    free(world->readings[0].page);
    free(world->readings[0].header);
    env_sim_destroy(world->sim);
}

static void block_write(struct world *world, unsigned n)
{
    const struct block_key key = key_of(n);
    uint64_t sums[LAYERS];

    for (unsigned i = 0; i < LAYERS; i++)
        sums[i] = hash_xxh3(bytes_of(n) + (size_t)i * LAYER_SIZE, LAYER_SIZE);
    CHECK(ssd_write(world->ssd, &key, bytes_of(n), sums) != STATUS_INVALID);
}

struct until {
    struct env_sim *sim;
    uint64_t events;
};

static bool events_reached(void *ctx)
{
    const struct until *until = ctx;
    return env_sim_event_count(until->sim) >= until->events;
}

/* Writes more than a segment, as fast as the disk takes it, and pulls the plug after so many
 * events; what is found then is what was written. */
static void the_power_goes_at_every_event(void **state)
{
    (void)state;
    unsigned found = 0, found_most = 0;

    for (uint64_t seed = 1; seed <= 4; seed++) {
        for (uint64_t events = 1; events < 150; events++) {
            struct world world;
            bool promised[KEYS];
            world_begin(&world, seed * 1000 + events);
            struct until until = { world.sim, 0 };
            for (unsigned n = 0; until.events < events; until.events++) {
                if (n < 12 && !world.stored[n]) block_write(&world, n);
                if (n < 12 && world.stored[n]) n++;
                CHECK(env_sim_run_until(world.sim, events_reached, &until, 5 * ENV_NS_PER_S) ||
                      n == 12);
            }
            promise(&world, true, promised);
            env_sim_power_off(world.sim, HOST);
            ssd_close(world.ssd);
            tier_start(&world);
            found = 0;
            for (unsigned n = 0; n < KEYS; n++) {
                CHECK(!promised[n] || world.stored[n]);
                found += world.stored[n];
            }
            read_all(&world);
            if (found > found_most) found_most = found;
            world_end(&world);
        }
    }
    assert_true(found_most >= 8); /* some crashes came after a whole segment */
}

static void tier_again(struct world *world)
{
    ssd_close(world->ssd);
    env_sim_kill(world->env);
    tier_start(world);
}

/* A start that cannot read all of a file leaves it so that later ones find only what is whole. */
static void starts_at_a_failing_disk_believe_nothing_half(void **state)
{
    (void)state;
    struct world world;

    for (uint64_t seed = 1; seed <= STARTS_SEEDS; seed++) {
        world_begin_with(&world, seed, 200000);
        for (unsigned n = 0; n < 20; n++) {
            block_write(&world, n);
            env_sim_run_for(world.sim, ENV_NS_PER_S);
        }
        for (unsigned start = 0; start < 3; start++)
            tier_again(&world);
        env_sim_calm(world.sim);
        tier_again(&world);
        world.kind = CRASH; /* and now it reads everything, and all is right */
        read_all(&world);
        world_end(&world);
    }
}

/* Reads from the wrong place give a block that is right in itself. */
static void a_record_in_the_wrong_place_is_refused(void **state)
{
    (void)state;
    struct world world;
    const struct store_layout layout = layout_of_test();
    uint8_t *first = ssd_alloc_aligned(RECORD_SIZE), *second = ssd_alloc_aligned(RECORD_SIZE);
    struct env_file *file;
    struct ssd_counts counts;
    size_t n = 0;

    world_begin(&world, 5);
    for (unsigned i = 0; i < 2; i++) {
        block_write(&world, i);
        env_sim_run_for(world.sim, ENV_NS_PER_S);
        block_write(&world, i); /* the first time there was no segment yet */
        env_sim_run_for(world.sim, 3 * ENV_NS_PER_S);
    }
    CHECK(world.stored[0] && world.stored[1]);
    assert_int_equal(env_file_open(world.env, DIRECTORY "/seg-0000000000000001.kv",
                                   ENV_FILE_READ | ENV_FILE_WRITE, &file, NULL),
                     STATUS_OK);
    const uint64_t offsets[] = { ssd_record_offset(&layout, 0), ssd_record_offset(&layout, 1) };
    assert_int_equal(env_file_pread(file, first, RECORD_SIZE, offsets[0], &n), STATUS_OK);
    assert_int_equal(env_file_pread(file, second, RECORD_SIZE, offsets[1], &n), STATUS_OK);
    assert_int_equal(env_file_pwrite(file, second, RECORD_SIZE, offsets[0]), STATUS_OK);
    assert_int_equal(env_file_pwrite(file, first, RECORD_SIZE, offsets[1]), STATUS_OK);
    env_file_close(file);
    world.kind = LYING; /* so that a refusal is expected */
    const unsigned long long before = reads_refused;
    read_all(&world);
    assert_int_equal(reads_refused, before + 2);
    ssd_counts(world.ssd, &counts);
    assert_int_equal(counts.corrupt_total, 2);
    assert_false(world.stored[0] || world.stored[1]);
    free(first);
    free(second);
    world_end(&world);
}

static struct env_file *segment_file(const struct world *world)
{
    struct env_file *file;
    CHECK(env_file_open(world->env, DIRECTORY "/seg-0000000000000001.kv",
                        ENV_FILE_READ | ENV_FILE_WRITE, &file, NULL) == STATUS_OK);
    return file;
}

/* A pack may be right in itself, and of other bytes than the header speaks of: its record's first
 * part is exchanged with that of another. What comes out is compared with what went in. */
static void a_pack_of_other_bytes_is_refused(void **state)
{
    (void)state;
    struct world world;
    struct ssd_counts counts;
    uint8_t *parts[2];
    size_t n = 0;

    world_begin(&world, 8); /* clear, packed */
    for (unsigned i = 0; i < 3; i++) {
        block_write(&world, i == 0 ? 1 : 3 * i - 2); /* 1 twice, then 4 */
        env_sim_run_for(world.sim, 3 * ENV_NS_PER_S);
    }
    CHECK(world.stored[1] && world.stored[4]);
    const struct ssd_segment *segment = world.ssd->segments[0];
    CHECK(segment->places != NULL && segment->used == 2);
    CHECK(segment->places[0].first == segment->places[1].first);
    CHECK(segment->places[0].first < PART_SIZE / SSD_ALIGN);
    const size_t size = (size_t)segment->places[0].first * SSD_ALIGN;
    struct env_file *file = segment_file(&world);
    for (uint32_t i = 0; i < 2; i++) {
        parts[i] = ssd_alloc_aligned(size);
        CHECK(env_file_pread(file, parts[i], size, ssd_slot_offset(segment, i) + SSD_ALIGN, &n) ==
              STATUS_OK);
    }
    for (uint32_t i = 0; i < 2; i++) {
        CHECK(env_file_pwrite(file, parts[1 - i], size, ssd_slot_offset(segment, i) + SSD_ALIGN) ==
              STATUS_OK);
    }
    free(parts[0]);
    free(parts[1]);
    env_file_close(file);
    world.kind = LYING; /* so that a refusal is expected */
    const unsigned long long before = reads_refused;
    read_all(&world);
    assert_int_equal(reads_refused, before + 2);
    ssd_counts(world.ssd, &counts);
    assert_int_equal(counts.corrupt_total, 2);
    world_end(&world);
}

/* What a footer says of its places is right in itself, and longer than a part can be. */
static void a_footer_of_other_parts_is_none(void **state)
{
    (void)state;
    struct world world;
    struct ssd_footer footer;
    struct ssd_entry entries[KEYS];
    size_t n = 0;

    world_begin(&world, 8);             /* clear, packed */
    for (unsigned i = 0; i < 12; i++) { /* more than a segment */
        block_write(&world, i);
        env_sim_run_for(world.sim, ENV_NS_PER_S);
    }
    const struct ssd_segment *segment = world.ssd->segments[0];
    CHECK(segment->places != NULL && segment->live > 0 && segment->live <= KEYS);
    const uint64_t size = ssd_footer_size(segment->live, true);
    const uint64_t offset = (uint64_t)segment->end * SSD_ALIGN;
    uint8_t *bytes = ssd_alloc_aligned(size);
    struct env_file *file = segment_file(&world);
    CHECK(env_file_pread(file, bytes, size, offset, &n) == STATUS_OK && n == size);
    CHECK(ssd_footer_decode(bytes, size, &footer) == STATUS_OK);
    for (uint32_t i = 0; i < footer.entries; i++) {
        entries[i] = ssd_footer_entry(bytes, &footer, i);
        entries[i].place.first = PART_SIZE / SSD_ALIGN + 1;
        entries[i].place.units = entries[i].place.first + 1;
        entries[i].place.at = 1;
    }
    ssd_footer_encode(&footer, entries, bytes);
    CHECK(ssd_footer_decode(bytes, size, &footer) == STATUS_OK);
    CHECK(env_file_pwrite(file, bytes, size, offset) == STATUS_OK);
    entries[1].slot = entries[0].slot; /* nor are two in one slot */
    ssd_footer_encode(&footer, entries, bytes);
    assert_int_equal(ssd_footer_decode(bytes, size, &footer), STATUS_CORRUPT);
    env_file_close(file);
    free(bytes);
    tier_again(&world);
    read_all(&world);
    world_end(&world);
}

/* Another model in the same directory: its blocks are not seen, are kept while there is room, and
 * are found again by itself. */
static void another_model_is_never_served(void **state)
{
    (void)state;
    struct world world;
    struct ssd_counts counts;
    struct store_layout other = layout_of_test();

    world_begin(&world, 6);
    for (int i = 0; i < 2; i++) {
        block_write(&world, 0);
        env_sim_run_for(world.sim, 2 * ENV_NS_PER_S);
    }
    CHECK(world.stored[0]);
    ssd_close(world.ssd);
    other.id[0] ^= 1;
    const struct ssd_options options = options_with(&world, &other);
    assert_int_equal(ssd_open(&options, &world.ssd, NULL), STATUS_OK);
    ssd_counts(world.ssd, &counts);
    assert_int_equal(counts.blocks, 0);
    assert_int_equal(counts.foreign_segments, 1);
    ssd_close(world.ssd);
    assert_int_equal(tier_open(&world), STATUS_OK);
    CHECK(world.stored[0]);
    read_all(&world);
    world_end(&world);
}

static bool file_has(const struct world *world, const void *needle, size_t len)
{
    struct env_file *file;
    uint64_t size = 0;
    size_t n = 0;
    CHECK(env_file_open(world->env, DIRECTORY "/seg-0000000000000001.kv", ENV_FILE_READ, &file,
                        NULL) == STATUS_OK);
    CHECK(env_file_size(file, &size) == STATUS_OK);
    uint8_t *bytes = malloc(size);
    CHECK(env_file_pread(file, bytes, size, 0, &n) == STATUS_OK && n == size);
    const bool found = memmem(bytes, size, needle, len) != NULL;
    free(bytes);
    env_file_close(file);
    return found;
}

/* Neither bytes nor keys are in the file; another key is as another model. */
static void sealed_blocks_need_their_key(void **state)
{
    (void)state;
    for (uint64_t seed = 6; seed < 8; seed++) { /* sealed, and clear */
        struct world world;
        struct ssd_counts counts;
        const struct block_key key = key_of(0);

        world_begin(&world, seed);
        for (int i = 0; i < 2; i++) {
            block_write(&world, 0);
            env_sim_run_for(world.sim, 2 * ENV_NS_PER_S);
        }
        ssd_close(world.ssd);
        const bool sealed = keys_of(&world) != NULL;
        CHECK(sealed == (seed == 6));
        CHECK(file_has(&world, bytes_of(0) + 100, 32) == !sealed);
        CHECK(file_has(&world, key.bytes, sizeof(key)) == !sealed);
        const struct store_layout layout = layout_of_test();
        const struct ssd_options options = options_with(&world, &layout);
        assert_int_equal(ssd_open(&options, &world.ssd, NULL), STATUS_OK);
        ssd_counts(world.ssd, &counts);
        assert_int_equal(counts.blocks, sealed ? 0 : 1);
        assert_int_equal(counts.foreign_segments, sealed ? 1 : 0);
        ssd_close(world.ssd);
        assert_int_equal(tier_open(&world), STATUS_OK);
        CHECK(world.stored[0]);
        read_all(&world);
        world_end(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crashes_lose_nothing_that_was_synced),
        cmocka_unit_test(a_failing_disk_costs_blocks_and_nothing_else),
        cmocka_unit_test(a_lying_disk_costs_blocks_and_never_gives_wrong_bytes),
        cmocka_unit_test(what_failed_half_way_is_not_found),
        cmocka_unit_test(a_full_disk_is_lived_with),
        cmocka_unit_test(the_power_goes_at_every_event),
        cmocka_unit_test(starts_at_a_failing_disk_believe_nothing_half),
        cmocka_unit_test(a_record_in_the_wrong_place_is_refused),
        cmocka_unit_test(a_pack_of_other_bytes_is_refused),
        cmocka_unit_test(a_footer_of_other_parts_is_none),
        cmocka_unit_test(another_model_is_never_served),
        cmocka_unit_test(sealed_blocks_need_their_key),
    };
    if (log_configure(getenv("YOLK_LOG") != NULL ? getenv("YOLK_LOG") : "error", NULL) != STATUS_OK)
        return 1; /* the faults are made on purpose */
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("reads_right=%llu reads_refused=%llu crashes=%llu found_again=%llu carried=%llu "
           "segments_reclaimed=%llu packed=%llu/%llu\n",
           reads_right, reads_refused, crashes, found_again, carried, reclaimed, packed_to,
           packed_from);
    test_soaked(4ULL * test_seeds(SEEDS_DEFAULT), faults);
    return failed;
}
