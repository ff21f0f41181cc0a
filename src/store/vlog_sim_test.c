/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_sim_test.c
 *
 * Goal:   no byte from the disk is ever wrong; no value that was replaced or dropped comes back;
 *         what was written is found again unless it was given up; the files are never larger than
 *         they may be; and when nothing breaks any more, everything works.
 * Method: one log of values in a simulated world, from a seed, beside a table of what was written,
 *         replaced and dropped. Bytes are a function of key and version. By kind of world:
 *           crash   the process is killed or the power goes, at any event
 *           failing operations fail, and none lies
 *           lying   reads flip bits, files are damaged for good
 *           full    the disk is smaller than the log was promised
 *         YOLK_SIM_SEEDS=n runs n seeds of each kind; SEED=n starts there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/assert.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "store/proto.h"
#include "store/vlog_int.h"
#include "store/vlog_pack.h"
#include "seed.h"

enum {
    KEYS = 40,
    READS = 4,
    STEPS = 300,
    SIZE_MOST = 90000,
    LOG_SIZE = 1 << 20,
    SEEDS_DEFAULT = 25,
};

enum kind { CRASH, FAILING, LYING, FULL };

#define HOST "10.0.0.1"
#define DIRECTORY "/tmp/values"

static uint64_t current_seed;
static unsigned long long reads_right, reads_refused, found_again, crashes, reclaimed, dropped,
    faults;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail_msg("SEED=%llu: %s", (unsigned long long)current_seed, #condition); \
    } while (0)

struct world;

struct reading {
    struct world *world;
    bool busy;
    unsigned key;
    uint32_t version;
    uint8_t *data;
    struct vlog_read read;
};

struct world {
    struct env_sim *sim;
    struct env *env;
    struct vlog *vlog;
    struct rng rng;
    enum kind kind;
    unsigned lives;
    bool there[KEYS];       /* as the callbacks said */
    uint32_t version[KEYS]; /* then, of the value; else, of the last one written or dropped */
    uint32_t next[KEYS];    /* to be written */
    uint32_t floor[KEYS];   /* all before this were dropped */
    uint64_t waiting_ns;    /* since then a writer waits for on_room; 0: none does */
    struct reading readings[READS];
};

/* ---- values ---- */

static struct store_key key_of(unsigned n, char text[32])
{
    snprintf(text, 32, "key-%u%s", n, n % 3 == 0 ? "-with-a-longer-name" : "");
    return (struct store_key){ (const uint8_t *)text, (uint32_t)strlen(text) };
}

static struct block_key id_of(unsigned n)
{
    char text[32];
    return store_key_id(key_of(n, text));
}

static unsigned number_of(const struct block_key *id)
{
    static struct block_key ids[KEYS];
    static bool known;
    for (unsigned n = 0; !known && n < KEYS; n++)
        ids[n] = id_of(n);
    known = true;
    for (unsigned n = 0; n < KEYS; n++) {
        if (block_key_equal(&ids[n], id)) return n;
    }
    CHECK(false);
    return 0;
}

static uint64_t size_of(unsigned n, uint32_t version)
{
    return 1 + rng_counter(n, version) % (n % 8 == 0 ? SIZE_MOST : 9000);
}

/* Every fourth key is of a release that says none. */
static uint64_t term_of(unsigned n, uint32_t version)
{
    return n % 4 == 0 ? 0 : (UINT64_C(7) << 32 | 9) + version / 3;
}

static const uint8_t *bytes_of(unsigned n, uint32_t version)
{
    static uint8_t bytes[SIZE_MOST + 1];
    struct rng rng;
    rng_init(&rng, 1000 + n + (uint64_t)version * KEYS);
    rng_fill(&rng, bytes, size_of(n, version));
    for (size_t i = 0; n % 2 == 0 && i < size_of(n, version); i++)
        bytes[i] = 'a' + (bytes[i] & 7);
    return bytes;
}

/* ---- the log's owner ---- */

static void on_written(void *ctx, const struct block_key *id, enum status status)
{
    struct world *world = ctx;
    const unsigned n = number_of(id);
    const struct vlog_entry *entry = vlog_find(world->vlog, id);

    if (status != STATUS_OK) return;
    CHECK(entry != NULL);
    world->there[n] = true;
    world->version[n] = entry->meta.attributes.version;
    CHECK(entry->meta.attributes.term == term_of(n, world->version[n]));
}

static void on_removed(void *ctx, const struct vlog_entry *entry)
{
    struct world *world = ctx;
    world->there[number_of(&entry->meta.id)] = false;
}

static void on_room(void *ctx)
{
    struct world *world = ctx;
    world->waiting_ns = 0;
}

/* Two of three worlds are clear; in the third each life writes with the other of two keys. */
static const struct ssd_keys *keys_of(const struct world *world)
{
    static struct ssd_keys keys;
    char text[2 * 65 + 1];

    if (current_seed % 3 != 0) return NULL;
    for (unsigned i = 0; i < 2; i++) {
        memset(text + 65 * i, (world->lives + i) % 2 == 0 ? 'a' : '7', 64);
        text[65 * i + 64] = '\n';
    }
    CHECK(ssd_keys_parse(text, 2 * 65, &keys, NULL) == STATUS_OK);
    return &keys;
}

/* Every other pair of worlds has packed values, in two of three of its lives. */
static struct ssd_packing packing_of(const struct world *world)
{
    const bool packed = current_seed % 4 < 2 && world->lives % 3 != 0;
    return (struct ssd_packing){ .level = packed ? 1 : 0 };
}

static bool log_open(struct world *world)
{
    const struct vlog_options options = { .env = world->env,
                                          .directory = DIRECTORY,
                                          .size_max = LOG_SIZE,
                                          .seed = 3,
                                          .keys = keys_of(world),
                                          .packing = packing_of(world),
                                          .on_written = on_written,
                                          .on_removed = on_removed,
                                          .on_room = on_room,
                                          .ctx = world };
    struct errmsg err = { "" };
    world->waiting_ns = 0;
    const enum status status = vlog_open(&options, &world->vlog, &err);
    CHECK(status == STATUS_OK || world->kind == LYING || world->kind == FAILING);
    if (status != STATUS_OK) world->vlog = NULL;
    return status == STATUS_OK;
}

static void log_start(struct world *world)
{
    world->env = env_sim_add(world->sim, HOST);
    world->lives++;
    for (int tries = 0; !log_open(world); tries++)
        CHECK(tries < 1000);
}

/* ---- steps ---- */

static void on_read(void *ctx, enum status status, const struct vlog_head *head)
{
    struct reading *reading = ctx;
    const struct world *world = reading->world;

    CHECK(reading->busy);
    reading->busy = false;
    if (status == STATUS_OK) {
        CHECK(head->meta.attributes.version == reading->version);
        CHECK(head->meta.attributes.term == term_of(reading->key, reading->version));
        CHECK(head->meta.size == size_of(reading->key, reading->version));
        CHECK(memcmp(reading->data, bytes_of(reading->key, reading->version), head->meta.size) ==
              0);
        reads_right++;
        return;
    }
    CHECK(status == STATUS_STALE || world->kind == LYING ||
          (world->kind == FAILING && status == STATUS_IO));
    reads_refused++;
}

static void read_step(struct world *world)
{
    struct reading *reading = &world->readings[rng_below(&world->rng, READS)];
    const unsigned n = (unsigned)rng_below(&world->rng, KEYS);
    const struct block_key id = id_of(n);

    if (reading->busy) return;
    if (reading->data == NULL) reading->data = vlog_alloc_units(vlog_units(SIZE_MOST));
    reading->world = world;
    reading->key = n;
    reading->version = world->version[n];
    reading->read = (struct vlog_read){ .data = reading->data, .fn = on_read, .ctx = reading };
    const enum status status = vlog_read(world->vlog, &id, &reading->read);
    CHECK((status == STATUS_OK) == world->there[n]);
    reading->busy = status == STATUS_OK;
}

static void value_write(struct world *world, unsigned n)
{
    const uint32_t version = world->next[n];
    const uint8_t *bytes = bytes_of(n, version);
    uint64_t sums[SIZE_MOST / STORE_PIECE_SIZE + 1];
    char text[32];
    struct object object = { .key = key_of(n, text),
                             .size = size_of(n, version),
                             .put_id = version,
                             .attributes = { .term = term_of(n, version), .version = version },
                             .sums = sums };

    object.id = store_key_id(object.key);
    for (uint64_t at = 0; at < object.size; at += STORE_PIECE_SIZE) {
        const uint64_t left = object.size - at;
        sums[object.sums_count++] =
            hash_xxh3(bytes + at, left < STORE_PIECE_SIZE ? left : STORE_PIECE_SIZE);
    }
    object.digest = hash_xxh3(sums, object.sums_count * sizeof(*sums));
    const enum status status = vlog_write(world->vlog, &object, bytes);
    CHECK(status == STATUS_OK || status == STATUS_FULL || status == STATUS_UNAVAILABLE);
    if (status == STATUS_FULL && world->waiting_ns == 0) world->waiting_ns = env_now_ns(world->env);
    if (status == STATUS_OK) world->next[n]++;
}

static void write_step(struct world *world)
{
    value_write(world, (unsigned)rng_below(&world->rng, KEYS));
}

static void drop_step(struct world *world)
{
    const unsigned n = (unsigned)rng_below(&world->rng, KEYS);
    const struct block_key id = id_of(n);
    const bool was = vlog_drop(world->vlog, &id);

    CHECK(was || !world->there[n]);
    world->there[n] = false;
    if (was) world->floor[n] = world->next[n];
    dropped += was;
}

static void step(struct world *world)
{
    const uint64_t dice = rng_below(&world->rng, 20);
    if (dice < 11) {
        write_step(world);
    } else if (dice < 17) {
        read_step(world);
    } else {
        drop_step(world);
    }
}

static void check_now(const struct world *world)
{
    const uint64_t waited = world->waiting_ns == 0 ? 0 : env_now_ns(world->env) - world->waiting_ns;
    CHECK(waited < 3 * ENV_NS_PER_S); /* a disk that says no says it soon */
    vlog_check(world->vlog);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = id_of(n);
        const struct vlog_entry *entry = vlog_find(world->vlog, &id);
        CHECK((entry != NULL) == world->there[n]);
        CHECK(entry == NULL || entry->meta.attributes.version == world->version[n]);
    }
}

/* ---- crashes ---- */

static bool gone_on_its_way(const struct vlog *vlog, const struct block_key *id)
{
    for (uint32_t i = 0; i < vlog->gone_count; i++) {
        if (block_key_equal(&vlog->gone[i], id)) return true;
    }
    for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) { /* maybe in one of these */
        if (vlog->writes[i].busy && !vlog->writes[i].value) return true;
    }
    return false;
}

static bool all_synced(const struct vlog *vlog)
{
    for (const struct vlog_segment *s = vlog->oldest; s != NULL; s = s->newer) {
        if (s->dirty || s->syncing || s->writing > 0) return false;
    }
    return true;
}

struct promise {
    bool there;       /* it must be found, in this version or a later one */
    uint32_t version; /* no older one may be found */
};

/* What must be there, or not, after the process (or the power) has gone at this instant. */
static void promise(const struct world *world, bool power, struct promise out[KEYS])
{
    const bool synced = all_synced(world->vlog);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = id_of(n);
        const struct vlog_entry *entry = vlog_find(world->vlog, &id);
        out[n] = (struct promise){ 0 };
        if (power && !synced) continue;
        out[n].there = entry != NULL;
        if (entry != NULL) out[n].version = entry->meta.attributes.version;
        if (entry == NULL && !gone_on_its_way(world->vlog, &id)) out[n].version = world->floor[n];
        for (uint32_t i = 0; i < VLOG_WRITES_MAX; i++) { /* may have come to its end */
            const struct vlog_write *write = &world->vlog->writes[i];
            const bool may = write->busy && write->value && block_key_equal(&write->id, &id);
            if (may && !out[n].there) out[n].version = 0;
            if (may) out[n].there = false; /* torn, it takes the older one with it */
        }
    }
}

static void crash(struct world *world)
{
    const bool power = rng_below(&world->rng, 2) == 0;
    struct promise promised[KEYS];

    struct vlog_counts counts;
    vlog_counts(world->vlog, &counts);
    reclaimed += counts.values_reclaimed_total;
    promise(world, power, promised);
    if (power) {
        env_sim_power_off(world->sim, HOST);
    } else {
        env_sim_kill(world->env);
    }
    vlog_close(world->vlog);
    for (unsigned i = 0; i < READS; i++) {
        if (world->readings[i].busy) vlog_read_abandon(&world->readings[i].read);
        world->readings[i].busy = false;
    }
    log_start(world);
    crashes++;
    const bool honest = world->kind == CRASH || world->kind == FULL;
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = id_of(n);
        const struct vlog_entry *entry = vlog_find(world->vlog, &id);
        world->there[n] = entry != NULL;
        if (entry != NULL) {
            world->version[n] = entry->meta.attributes.version;
            CHECK(entry->meta.attributes.term == term_of(n, world->version[n]));
        }
        if (entry != NULL && entry->meta.attributes.version < world->floor[n]) {
            world->floor[n] = 0; /* its drop had not arrived */
        }
        if (!honest) continue;
        CHECK(!promised[n].there || entry != NULL);
        CHECK(entry == NULL || entry->meta.attributes.version >= promised[n].version);
        found_again += promised[n].there;
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

/* ---- the end ---- */

/* In a calm world everything can be written, read, dropped, and is as it was after a restart. */
static void check_liveness(struct world *world)
{
    struct promise before[KEYS];
    const enum kind kind = world->kind;

    env_sim_calm(world->sim);
    CHECK(env_sim_run_until(world->sim, no_reading, world, 10 * ENV_NS_PER_S));
    world->kind = LYING; /* what was damaged is still there, and found now */
    for (int i = 0; i < 200; i++) {
        write_step(world);
        read_step(world);
        drop_step(world);
        env_sim_run_for(world->sim, 50 * ENV_NS_PER_MS);
    }
    world->kind = kind;
    env_sim_run_for(world->sim, 10 * ENV_NS_PER_S);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = id_of(n);
        const struct vlog_entry *entry = vlog_find(world->vlog, &id);
        before[n].there = entry != NULL;
        before[n].version = entry == NULL ? 0 : entry->meta.attributes.version;
    }
    const bool told = world->vlog->gone_count == 0; /* else there was no room to say it */
    vlog_close(world->vlog);
    CHECK(log_open(world));
    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = id_of(n);
        const struct vlog_entry *entry = vlog_find(world->vlog, &id);
        CHECK(entry == NULL || before[n].there || !told); /* nothing comes back */
        CHECK(entry == NULL || !before[n].there ||
              entry->meta.attributes.version == before[n].version);
        CHECK(kind != CRASH || entry != NULL || !before[n].there);
    }
}

static void world_run(enum kind kind, uint64_t seed)
{
    static struct world world;
    const struct env_sim_options options = {
        .seed = seed,
        .buggify_ppm = 2000,
        .disk_error_ppm = kind == FAILING || kind == LYING ? 20000 : 0,
        .disk_corrupt_ppm = kind == LYING ? 20000 : 0,
        .disk_size_max = kind == FULL ? LOG_SIZE / 2 : 0,
    };

    current_seed = seed;
    memset(&world, 0, sizeof(world));
    rng_init(&world.rng, seed);
    world.kind = kind;
    world.sim = env_sim_create(&options);
    log_start(&world);
    for (int i = 0; i < STEPS; i++) {
        step(&world);
        env_sim_run_for(world.sim, rng_below(&world.rng, 4) * ENV_NS_PER_MS);
        if (kind == LYING && rng_below(&world.rng, 30) == 0) env_sim_disk_damage(world.sim, HOST);
        check_now(&world);
        if (rng_below(&world.rng, 40) == 0) crash(&world);
        if (rng_below(&world.rng, 60) == 0) env_sim_run_for(world.sim, 2 * ENV_NS_PER_S);
    }
    struct vlog_counts counts;
    check_liveness(&world);
    vlog_counts(world.vlog, &counts);
    reclaimed += counts.values_reclaimed_total;
    vlog_close(world.vlog);
    for (unsigned i = 0; i < READS; i++)
        free(world.readings[i].data);
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

static void crashes_lose_nothing_and_bring_nothing_back(void **state)
{
    (void)state;
    run_seeds(CRASH);
    assert_true(found_again > 0 && reads_right > 0 && dropped > 0);
}

static void failures_cost_values_only(void **state)
{
    (void)state;
    run_seeds(FAILING);
}

static void lies_are_never_believed(void **state)
{
    (void)state;
    run_seeds(LYING);
    assert_true(reads_refused > 0);
}

static void full_disks_are_lived_with(void **state)
{
    (void)state;
    run_seeds(FULL);
}

/* ---- packed ---- */

/* A pack may be right in itself, and of other bytes than the head speaks of. What comes out is
 * compared with what went in. */
static void a_pack_of_other_bytes_is_refused(void **state)
{
    enum { N = 2 };
    const struct env_sim_options options = { .seed = 4 };
    const struct ssd_packing how = { .level = 1 };
    static struct world world;
    static const uint8_t zeros[SIZE_MOST + 1];
    const struct block_key id = id_of(N);
    struct vlog_counts counts;
    (void)state;

    current_seed = 4; /* clear, packed */
    memset(&world, 0, sizeof(world));
    world.kind = CRASH;
    world.sim = env_sim_create(&options);
    log_start(&world);
    while (size_of(N, world.next[N]) < 6000)
        world.next[N]++;
    for (int i = 0; i < 2 && !world.there[N]; i++) { /* the first time there is no segment yet */
        value_write(&world, N);
        env_sim_run_for(world.sim, 2 * ENV_NS_PER_S);
    }
    const struct vlog_entry *entry = vlog_find(world.vlog, &id);
    CHECK(entry != NULL && vlog_meta_packed(&entry->meta));
    const uint32_t stored = entry->meta.pages - entry->meta.head;
    uint8_t *bytes = vlog_alloc_units(vlog_units(entry->meta.size));
    memset(bytes, 0, (size_t)vlog_units(entry->meta.size) * VLOG_UNIT);
    CHECK(vlog_pack(world.vlog->packer, &how, zeros, entry->meta.size, bytes) <= stored);
    CHECK(env_file_pwrite(entry->segment->file, bytes, (size_t)stored * VLOG_UNIT,
                          (uint64_t)(entry->meta.at + entry->meta.head) * VLOG_UNIT) == STATUS_OK);
    free(bytes);
    world.kind = LYING; /* so that a refusal is expected */
    const unsigned long long before = reads_refused;
    struct reading *reading = &world.readings[0];
    *reading = (struct reading){ .world = &world, .busy = true, .key = N };
    reading->data = vlog_alloc_units(vlog_units(SIZE_MOST));
    reading->read = (struct vlog_read){ .data = reading->data, .fn = on_read, .ctx = reading };
    CHECK(vlog_read(world.vlog, &id, &reading->read) == STATUS_OK);
    CHECK(env_sim_run_until(world.sim, no_reading, &world, ENV_NS_PER_S));
    assert_int_equal(reads_refused, before + 1);
    vlog_counts(world.vlog, &counts);
    assert_int_equal(counts.corrupt_total, 1);
    assert_false(world.there[N]);
    free(reading->data);
    vlog_close(world.vlog);
    env_sim_destroy(world.sim);
}

/* ---- sealed ---- */

enum { TEXTS = 12 };
static const char SECRET_TEXT[] = "what nobody is to find on the disk";

static enum status sealed_open(struct world *world, const char *text)
{
    static struct ssd_keys keys;
    struct vlog_options options = { .env = world->env,
                                    .directory = DIRECTORY,
                                    .size_max = LOG_SIZE,
                                    .seed = 3,
                                    .keys = text == NULL ? NULL : &keys,
                                    .on_written = on_written,
                                    .on_removed = on_removed,
                                    .on_room = on_room,
                                    .ctx = world };
    if (text != NULL) CHECK(ssd_keys_parse(text, strlen(text), &keys, NULL) == STATUS_OK);
    return vlog_open(&options, &world->vlog, NULL);
}

static void text_write(struct world *world, unsigned n)
{
    char key[32];
    uint8_t data[sizeof(SECRET_TEXT) * 20];
    for (unsigned i = 0; i < 20; i++)
        memcpy(data + i * sizeof(SECRET_TEXT), SECRET_TEXT, sizeof(SECRET_TEXT));
    uint64_t sum = hash_xxh3(data, sizeof(data));
    const struct object object = { .id = id_of(n),
                                   .key = key_of(n, key),
                                   .size = sizeof(data),
                                   .digest = hash_xxh3(&sum, sizeof(sum)),
                                   .sums = &sum,
                                   .sums_count = 1,
                                   .attributes = { .term = term_of(n, 0) } };
    CHECK(vlog_write(world->vlog, &object, data) != STATUS_INVALID);
}

struct searched {
    struct world *world;
    const char *needle;
    bool found;
    uint64_t bytes;
};

static void search_file(void *ctx, const char *name)
{
    struct searched *searched = ctx;
    struct env_file *file;
    char path[128];
    uint64_t size = 0;
    size_t n = 0;

    if (strcmp(name, "lock") == 0) return;
    snprintf(path, sizeof(path), "%s/%s", DIRECTORY, name);
    CHECK(env_file_open(searched->world->env, path, ENV_FILE_READ, &file, NULL) == STATUS_OK);
    CHECK(env_file_size(file, &size) == STATUS_OK && size > 0);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    CHECK(env_file_pread(file, bytes, size, 0, &n) == STATUS_OK && n == size);
    searched->bytes += size;
    searched->found |= memmem(bytes, size, searched->needle, strlen(searched->needle)) != NULL;
    free(bytes);
    env_file_close(file);
}

static bool on_disk(struct world *world, const char *needle)
{
    struct searched searched = { .world = world, .needle = needle };
    CHECK(env_dir_list(world->env, DIRECTORY, search_file, &searched, NULL) == STATUS_OK);
    CHECK(searched.bytes > 0);
    return searched.found;
}

static unsigned values_there(const struct world *world)
{
    struct vlog_counts counts;
    vlog_counts(world->vlog, &counts);
    return (unsigned)counts.values;
}

static void texts_write(struct world *world)
{
    for (int round = 0; round < 2; round++) { /* the first time there was no segment yet */
        for (unsigned n = 0; n < TEXTS; n++)
            text_write(world, n);
        env_sim_run_for(world->sim, 2 * ENV_NS_PER_S);
    }
}

/* A world of one host, with texts on its disk. */
static void texts_begin(struct world *world, const char *keys)
{
    const struct env_sim_options options = { .seed = 4 };

    current_seed = 4;
    memset(world, 0, sizeof(*world));
    world->kind = CRASH;
    world->sim = env_sim_create(&options);
    world->env = env_sim_add(world->sim, HOST);
    CHECK(sealed_open(world, keys) == STATUS_OK);
    texts_write(world);
}

/* Neither bytes nor keys are in the files, by footer or by records; with another key, or none,
 * nothing is served and nothing is touched; with the old key behind a new one all of it is read. */
static void sealed_values_need_their_key(void **state)
{
    static const char a[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    static const char b[] = "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    char both[2 * sizeof(a)];
    static struct world world;
    (void)state;

    for (int crashed = 0; crashed < 2; crashed++) {
        texts_begin(&world, a);
        CHECK(values_there(&world) == TEXTS);
        if (crashed) {
            env_sim_power_off(world.sim, HOST);
            vlog_close(world.vlog);
            world.env = env_sim_add(world.sim, HOST);
        } else {
            vlog_close(world.vlog);
        }
        CHECK(!on_disk(&world, SECRET_TEXT) && !on_disk(&world, "key-1"));
        CHECK(on_disk(&world, "YOLKVSG1"));
        CHECK(sealed_open(&world, b) == STATUS_DENIED);
        CHECK(sealed_open(&world, NULL) == STATUS_DENIED);
        snprintf(both, sizeof(both), "%s%s", b, a);
        CHECK(sealed_open(&world, both) == STATUS_OK);
        CHECK(values_there(&world) == TEXTS);
        vlog_close(world.vlog);
        env_sim_destroy(world.sim);
    }
}

/* The same without a key: that the search would find something. */
static void clear_values_are_found_by_the_same_search(void **state)
{
    static struct world world;
    (void)state;

    texts_begin(&world, NULL);
    vlog_close(world.vlog);
    CHECK(on_disk(&world, SECRET_TEXT) && on_disk(&world, "key-1"));
    env_sim_destroy(world.sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crashes_lose_nothing_and_bring_nothing_back),
        cmocka_unit_test(failures_cost_values_only),
        cmocka_unit_test(lies_are_never_believed),
        cmocka_unit_test(full_disks_are_lived_with),
        cmocka_unit_test(a_pack_of_other_bytes_is_refused),
        cmocka_unit_test(sealed_values_need_their_key),
        cmocka_unit_test(clear_values_are_found_by_the_same_search),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("reads_right=%llu refused=%llu found_again=%llu crashes=%llu dropped=%llu "
           "reclaimed=%llu\n",
           reads_right, reads_refused, found_again, crashes, dropped, reclaimed);
    test_soaked(4ULL * test_seeds(SEEDS_DEFAULT), faults);
    return failed;
}
