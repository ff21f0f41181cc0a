/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store.c - the disk tier beside the bare disk: the same bytes, the same directory, the
 * same run, both past the page cache.
 *
 * Blocks of 1 MiB are written and read back by store/ssd.h, with their headers, checksums and
 * verification, and values of 1 MiB by store/vlog.h; the yardstick writes and reads 1 MiB pieces of
 * one file with as many on their way, through memory as fio has it (ordinary pages).
 * The same again sealed, and packed (--ssd-compress zstd): numbers of F16, normally distributed
 * around 0 with a deviation of 1, of which KV of a real model is about as compressible; and noise,
 * which is not. Packed rows have the clear ones beside them. What a turn of the loop takes at most
 * while blocks of STALL_SIZE are packed stands beside what it takes while they are not.
 *
 * Then segments of RECOVER_BLOCKS tiny blocks are made, headers and footers only (recovery reads no
 * more of a segment that was finished), and opened.
 *
 * Files go to --data-dir, by default the cache directory, and are removed. */
#include "cli/bench_store.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/hash.h"
#include "base/le.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/report.h"
#include "store/ssd.h"
#include "store/ssd_format.h"

enum {
    LAYERS = 16,
    LAYER_SIZE = 64 << 10,
    BLOCK_SIZE = BENCH_STORE_DISK_SIZE,
    BLOCKS = 192, /* of one run */
    DEPTH = BENCH_STORE_DISK_DEPTH,
    RECOVER_BLOCKS = 1500000,
    RECOVER_SLOTS = 25000,
    STALL_SIZE = 4 << 20, /* of a block */
    STALL_BLOCKS = 40,
};

static_assert(LAYERS * LAYER_SIZE == (int)BLOCK_SIZE, "a block is its layers");

#define DISK_SIZE_MAX (UINT64_C(16) * BLOCKS * BLOCK_SIZE) /* bytes: more than it takes */

struct bench {
    struct env *env;
    struct ssd *ssd;
    char directory[CLI_PATH_SIZE];
    struct store_layout layout;
    uint8_t *data;    /* DEPTH blocks, to read into */
    uint8_t *block;   /* what is written */
    uint8_t *numbers; /* what is written packed */
    uint64_t sums[LAYERS];
    struct ssd_keys keys; /* count 0: clear */
    struct ssd_packing packing;
    double packed;       /* what is left of what was packed last */
    uint64_t longest_ns; /* of a turn, or of ssd_write() */
    uint32_t started, done;
    bool failed;
};

static struct block_key key_of(uint64_t n)
{
    const uint64_t words[2] = { rng_counter(1, n), n };
    struct block_key key;
    memcpy(key.bytes, words, sizeof(words));
    return key;
}

static bool turn(struct bench *bench, uint32_t until)
{
    while (bench->done < until && !bench->failed)
        (void)env_poll(bench->env, ENV_NS_PER_S);
    return !bench->failed;
}

static double mib_per_s(uint64_t ns)
{
    return (double)BLOCKS * BLOCK_SIZE / (1 << 20) / ((double)ns / 1e9);
}

/* ---- the bare disk ---- */

struct piece {
    struct bench *bench;
    struct env_io io;
    struct env_file *file;
    enum env_io_op op;
    uint8_t *data;
};

static void piece_next(struct piece *piece);

static void on_piece(void *ctx, enum status status, size_t n)
{
    struct piece *piece = ctx;
    piece->bench->done++;
    if (status != STATUS_OK || n != BLOCK_SIZE) piece->bench->failed = true;
    piece_next(piece);
}

static void piece_next(struct piece *piece)
{
    struct bench *bench = piece->bench;
    if (bench->started == BLOCKS || bench->failed) return;
    piece->io = (struct env_io){ .op = piece->op,
                                 .file = piece->file,
                                 .parts = { { piece->data, BLOCK_SIZE } },
                                 .parts_count = 1,
                                 .offset = (uint64_t)bench->started++ * BLOCK_SIZE,
                                 .fn = on_piece,
                                 .ctx = piece };
    if (env_io_start(&piece->io) != STATUS_OK) bench->failed = true;
}

static uint64_t bare_run(struct bench *bench, struct env_file *file, enum env_io_op op)
{
    struct piece pieces[DEPTH];
    const uint64_t started_ns = env_now_ns(bench->env);

    bench->started = bench->done = 0;
    for (int i = 0; i < DEPTH; i++) {
        pieces[i] = (struct piece){
            .bench = bench, .file = file, .op = op, .data = bench->data + (size_t)i * BLOCK_SIZE
        };
        piece_next(&pieces[i]);
    }
    if (turn(bench, BLOCKS) && op == ENV_IO_WRITE)
        bench->failed |= env_file_sync(file) != STATUS_OK;
    return env_now_ns(bench->env) - started_ns;
}

static enum status bare(struct bench *bench, double *write, double *read, struct errmsg *err)
{
    const unsigned flags =
        ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE | ENV_FILE_DIRECT;
    char path[CLI_PATH_SIZE + 16];
    struct env_file *file;

    snprintf(path, sizeof(path), "%s/bare", bench->directory);
    const enum status status = env_file_open(bench->env, path, flags, &file, err);
    if (status != STATUS_OK) return status;
    *write = mib_per_s(bare_run(bench, file, ENV_IO_WRITE));
    *read = mib_per_s(bare_run(bench, file, ENV_IO_READ));
    env_file_close(file);
    (void)!env_file_remove(bench->env, path);
    return bench->failed ? errmsg_set(err, STATUS_IO, "%s cannot be written", path) : STATUS_OK;
}

static void sums_make(struct bench *bench)
{
    for (int i = 0; i < LAYERS; i++)
        bench->sums[i] = hash_xxh3(bench->block + (size_t)i * LAYER_SIZE, LAYER_SIZE);
}

/* ---- the tier ---- */

static void on_stored(void *ctx, const struct block_key *key)
{
    (void)key;
    ((struct bench *)ctx)->done++;
}

static void on_removed(void *ctx, const struct block_key *key)
{
    (void)key;
    ((struct bench *)ctx)->failed = true;
}

static void on_room(void *ctx)
{
    struct bench *bench = ctx;
    while (bench->started < BLOCKS) {
        const struct block_key key = key_of(bench->started);
        if (ssd_write(bench->ssd, &key, bench->block, bench->sums) != STATUS_OK) return;
        bench->started++;
    }
}

struct reading {
    struct bench *bench;
    struct ssd_read read;
    uint64_t sums[STORE_LAYERS_MAX];
    uint8_t *page;
    uint8_t *header;
};

static void reading_next(struct reading *reading)
{
    struct bench *bench = reading->bench;
    if (bench->started == BLOCKS || bench->failed) return;
    const struct block_key key = key_of(bench->started++);
    reading->read.page = reading->page;
    reading->read.header = reading->header;
    reading->read.sums = reading->sums;
    if (ssd_read_open(bench->ssd, &key, &reading->read) != STATUS_OK ||
        ssd_read_part(&reading->read) != STATUS_OK)
        bench->failed = true;
}

static void on_part(void *ctx, enum status status)
{
    struct reading *reading = ctx;
    struct bench *bench = reading->bench;

    if (status != STATUS_OK) bench->failed = true;
    if (status == STATUS_OK && reading->read.parts_done < ssd_parts(bench->ssd)) {
        if (ssd_read_part(&reading->read) != STATUS_OK) bench->failed = true;
        return;
    }
    ssd_read_close(&reading->read);
    bench->done++;
    reading_next(reading);
}

static uint64_t tier_read(struct bench *bench)
{
    struct reading *readings = calloc(DEPTH, sizeof(*readings));
    uint8_t *headers = aligned_alloc(SSD_ALIGN, (size_t)DEPTH * SSD_ALIGN);
    const uint64_t started_ns = env_now_ns(bench->env);

    bench->started = bench->done = 0;
    bench->failed = readings == NULL || headers == NULL;
    for (int i = 0; i < DEPTH && !bench->failed; i++) {
        readings[i].bench = bench;
        readings[i].page = bench->data + (size_t)i * BLOCK_SIZE;
        readings[i].header = headers + (size_t)i * SSD_ALIGN;
        readings[i].read.fn = on_part;
        readings[i].read.ctx = &readings[i];
        reading_next(&readings[i]);
    }
    (void)turn(bench, BLOCKS);
    free(headers);
    free(readings);
    return env_now_ns(bench->env) - started_ns;
}

static enum status tier_open(struct bench *bench, const struct store_layout *layout,
                             uint64_t size_max, struct errmsg *err)
{
    const struct ssd_options options = { .env = bench->env,
                                         .directory = bench->directory,
                                         .size_max = size_max,
                                         .layout = *layout,
                                         .seed = 1,
                                         .keys = bench->keys.count > 0 ? &bench->keys : NULL,
                                         .packing = bench->packing,
                                         .on_stored = on_stored,
                                         .on_removed = on_removed,
                                         .on_room = on_room,
                                         .ctx = bench };
    return ssd_open(&options, &bench->ssd, err);
}

static void on_name(void *ctx, const char *name)
{
    const struct bench *bench = ctx;
    char path[CLI_PATH_SIZE + 64];
    snprintf(path, sizeof(path), "%s/%s", bench->directory, name);
    (void)!env_file_remove(bench->env, path);
}

static void files_remove(struct bench *bench)
{
    (void)!env_dir_list(bench->env, bench->directory, on_name, bench, NULL);
}

/* Until all is on the disk: the close seals and syncs. */
static enum status tier(struct bench *bench, double *write, double *read, struct errmsg *err)
{
    enum status status = tier_open(bench, &bench->layout, DISK_SIZE_MAX, err);
    if (status != STATUS_OK) return status;
    const uint64_t started_ns = env_now_ns(bench->env);
    bench->started = bench->done = 0;
    on_room(bench);
    (void)turn(bench, BLOCKS);
    struct ssd_counts counts;
    ssd_counts(bench->ssd, &counts);
    if (counts.packed_from_total > 0)
        bench->packed = (double)counts.packed_to_total / (double)counts.packed_from_total;
    ssd_close(bench->ssd);
    *write = mib_per_s(env_now_ns(bench->env) - started_ns);
    status = tier_open(bench, &bench->layout, DISK_SIZE_MAX, err);
    if (status != STATUS_OK) return status;
    *read = mib_per_s(tier_read(bench));
    bench->done = bench->started;
    const bool failed = bench->failed;
    ssd_close(bench->ssd);
    files_remove(bench);
    return failed ? errmsg_set(err, STATUS_IO, "the tier failed") : STATUS_OK;
}

/* ---- recovery ---- */

static enum status segment_make(struct bench *bench, const struct store_layout *layout, uint64_t id,
                                struct errmsg *err)
{
    const unsigned flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE;
    const struct ssd_header header = {
        .id = id, .nonce = id, .slots = RECOVER_SLOTS, .layout = *layout
    };
    const struct ssd_footer footer = { .nonce = id,
                                       .offset = ssd_record_offset(layout, RECOVER_SLOTS),
                                       .entries = RECOVER_SLOTS,
                                       .used = RECOVER_SLOTS };
    const uint64_t size = ssd_footer_size(RECOVER_SLOTS, false);
    struct ssd_entry *entries = calloc(RECOVER_SLOTS, sizeof(*entries));
    uint8_t *bytes = malloc(size);
    char name[SSD_NAME_SIZE], path[CLI_PATH_SIZE + SSD_NAME_SIZE];
    struct env_file *file = NULL;
    enum status status = entries != NULL && bytes != NULL ? STATUS_OK : STATUS_NO_MEMORY;

    ssd_name_print(id, name);
    snprintf(path, sizeof(path), "%s/%s", bench->directory, name);
    if (status == STATUS_OK) status = env_file_open(bench->env, path, flags, &file, err);
    if (status == STATUS_OK) {
        ssd_header_encode(&header, bytes);
        status = env_file_pwrite(file, bytes, SSD_ALIGN, 0);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < RECOVER_SLOTS; i++)
        entries[i] = (struct ssd_entry){ .key = key_of(id * RECOVER_SLOTS + i), .slot = i };
    if (status == STATUS_OK) {
        ssd_footer_encode(&footer, entries, bytes);
        status = env_file_pwrite(file, bytes, size, footer.offset);
    }
    env_file_close(file);
    free(entries);
    free(bytes);
    return status;
}

static enum status recovery(struct bench *bench, double *seconds, double *memory,
                            struct errmsg *err)
{
    struct store_layout layout = bench->layout;
    struct ssd_counts counts;

    layout.page_size = SSD_ALIGN;
    layout.layers = 1;
    layout.layer_size = SSD_ALIGN;
    const uint64_t size = ssd_segment_size(&layout, RECOVER_SLOTS, false);
    enum status status = STATUS_OK;
    for (uint64_t id = 1; status == STATUS_OK && id <= RECOVER_BLOCKS / RECOVER_SLOTS; id++)
        status = segment_make(bench, &layout, id, err);
    if (status == STATUS_OK) {
        status = tier_open(bench, &layout, (RECOVER_BLOCKS / RECOVER_SLOTS + 2) * size, err);
    }
    if (status == STATUS_OK) {
        ssd_counts(bench->ssd, &counts);
        *seconds = (double)counts.recovered_us / 1e6;
        *memory = (double)counts.memory / (double)counts.blocks;
        if (counts.blocks != RECOVER_BLOCKS) {
            status = errmsg_set(err, STATUS_CORRUPT, "%llu blocks were found, not %d",
                                (unsigned long long)counts.blocks, RECOVER_BLOCKS);
        }
        ssd_close(bench->ssd);
    }
    files_remove(bench);
    return status;
}

/* The same, sealed. */
static enum status sealed(struct bench *bench, double *write, double *read, struct errmsg *err)
{
    char key[2 * AEAD_KEY_SIZE];
    memset(key, 'a', sizeof(key));
    enum status status = ssd_keys_parse(key, sizeof(key), &bench->keys, err);
    if (status == STATUS_OK) status = tier(bench, write, read, err);
    bench->keys.count = 0;
    return status;
}

/* The same, packed, of these bytes. */
static enum status packed(struct bench *bench, uint8_t *bytes, double *write, double *read,
                          double *size, struct errmsg *err)
{
    uint8_t *before = bench->block;
    bench->block = bytes;
    bench->packing = (struct ssd_packing){ .level = 1, .unit = 2 };
    sums_make(bench);
    const enum status status = tier(bench, write, read, err);
    *size = bench->packed;
    bench->packing.level = 0;
    bench->block = before;
    sums_make(bench);
    return status;
}

/* ---- how long the loop stands still ---- */

static void turn_timed(struct bench *bench)
{
    const uint64_t from_ns = env_now_ns(bench->env);
    if (!env_poll(bench->env, 0)) return;
    const uint64_t ns = env_now_ns(bench->env) - from_ns;
    if (ns > bench->longest_ns) bench->longest_ns = ns;
}

/* Block `n`; true if it was taken. */
static bool write_timed(struct bench *bench, uint32_t n, const uint8_t *block, const uint64_t *sums)
{
    const uint64_t from_ns = env_now_ns(bench->env);
    const struct block_key key = key_of(n);
    const bool taken = ssd_write(bench->ssd, &key, block, sums) == STATUS_OK;
    const uint64_t ns = env_now_ns(bench->env) - from_ns;
    if (ns > bench->longest_ns) bench->longest_ns = ns;
    return taken;
}

/* The first blocks make segment, threads and the memory of buffers, and are not timed. */
static void stall_run(struct bench *bench, const uint8_t *block, const uint64_t *sums)
{
    uint32_t next = 0;
    bench->started = BLOCKS; /* on_room() has nothing to do */
    bench->done = 0;
    while (bench->done < STALL_BLOCKS && !bench->failed) {
        if (bench->done <= SSD_WRITES_MAX) bench->longest_ns = 0;
        if (next < (bench->done == 0 ? 1 : STALL_BLOCKS))
            next += write_timed(bench, next, block, sums);
        turn_timed(bench);
    }
}

/* Milliseconds, in which the copy of the block is included. */
static enum status stall(struct bench *bench, uint32_t level, double *ms, struct errmsg *err)
{
    struct store_layout layout = bench->layout;
    const size_t layer = STALL_SIZE / LAYERS;
    uint64_t sums[LAYERS];
    uint8_t *block = malloc(STALL_SIZE);
    if (block == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    for (size_t at = 0; at < STALL_SIZE; at += BLOCK_SIZE)
        memcpy(block + at, bench->numbers, BLOCK_SIZE);
    for (size_t i = 0; i < LAYERS; i++)
        sums[i] = hash_xxh3(block + i * layer, layer);
    layout.page_size = STALL_SIZE;
    layout.layer_size = (uint32_t)layer;
    bench->packing = (struct ssd_packing){ .level = level, .unit = 2 };
    enum status status = tier_open(bench, &layout, DISK_SIZE_MAX, err);
    bench->packing.level = 0;
    if (status == STATUS_OK) {
        stall_run(bench, block, sums);
        *ms = (double)bench->longest_ns / 1e6;
        ssd_close(bench->ssd);
    }
    files_remove(bench);
    free(block);
    return status;
}

/* Values by key, beside the same bare disk. */
static enum status values(struct bench *bench, double *write, double *read, struct errmsg *err)
{
    const struct bench_store_disk disk = { .env = bench->env,
                                           .directory = bench->directory,
                                           .count = BLOCKS,
                                           .size_max = DISK_SIZE_MAX,
                                           .block = bench->block,
                                           .data = bench->data };
    const enum status status = bench_store_values(&disk, write, read, err);
    files_remove(bench);
    return status;
}

/* ---- rows ---- */

static void add(struct report *report, const char *name, double value, const char *unit,
                double baseline, enum report_target kind, double target)
{
    struct report_row *row = report_add(report, name, value, unit);
    row->baseline = baseline;
    row->kind = kind;
    row->target = target;
}

struct packed_runs {
    double write[BENCH_RUNS], read[BENCH_RUNS], size[BENCH_RUNS];
    double noise_write[BENCH_RUNS], noise_read[BENCH_RUNS];
    double stall[BENCH_RUNS], clear_stall[BENCH_RUNS];
};

static enum status packed_run(struct bench *bench, struct packed_runs *runs, int i,
                              struct errmsg *err)
{
    double none;
    enum status status =
        packed(bench, bench->numbers, &runs->write[i], &runs->read[i], &runs->size[i], err);
    if (status == STATUS_OK)
        status =
            packed(bench, bench->block, &runs->noise_write[i], &runs->noise_read[i], &none, err);
    if (status == STATUS_OK) status = stall(bench, 1, &runs->stall[i], err);
    if (status == STATUS_OK) status = stall(bench, 0, &runs->clear_stall[i], err);
    return status;
}

/* `write`, `read`: of clear blocks. */
static void packed_add(struct report *report, struct packed_runs *runs, double write, double read)
{
    add(report, "ssd_packed_write_1MiB", report_median(runs->write, BENCH_RUNS), "MiB/s", write,
        REPORT_NO_TARGET, 0);
    add(report, "ssd_packed_cold_read_1MiB", report_median(runs->read, BENCH_RUNS), "MiB/s", read,
        REPORT_NO_TARGET, 0);
    add(report, "ssd_packed_size", report_median(runs->size, BENCH_RUNS), "of 1", NAN,
        REPORT_NO_TARGET, 0);
    add(report, "ssd_packed_noise_write_1MiB", report_median(runs->noise_write, BENCH_RUNS),
        "MiB/s", write, REPORT_NO_TARGET, 0);
    add(report, "ssd_packed_noise_cold_read_1MiB", report_median(runs->noise_read, BENCH_RUNS),
        "MiB/s", read, REPORT_NO_TARGET, 0);
    add(report, "ssd_packed_longest_turn_4MiB", report_median(runs->stall, BENCH_RUNS), "ms",
        report_median(runs->clear_stall, BENCH_RUNS), REPORT_NO_TARGET, 0);
}

static enum status measure(struct bench *bench, struct report *report, struct errmsg *err)
{
    double write[BENCH_RUNS], read[BENCH_RUNS], bare_write[BENCH_RUNS], bare_read[BENCH_RUNS];
    double sealed_write[BENCH_RUNS], sealed_read[BENCH_RUNS];
    double values_write[BENCH_RUNS], values_read[BENCH_RUNS];
    double recover[BENCH_RUNS], memory = 0;
    struct packed_runs packed_runs;
    enum status status = STATUS_OK;

    for (int i = 0; i < BENCH_RUNS && status == STATUS_OK; i++) {
        status = bare(bench, &bare_write[i], &bare_read[i], err);
        if (status == STATUS_OK) status = tier(bench, &write[i], &read[i], err);
        if (status == STATUS_OK) status = sealed(bench, &sealed_write[i], &sealed_read[i], err);
        if (status == STATUS_OK && ssd_pack_available())
            status = packed_run(bench, &packed_runs, i, err);
        if (status == STATUS_OK) status = values(bench, &values_write[i], &values_read[i], err);
        if (status == STATUS_OK) status = recovery(bench, &recover[i], &memory, err);
    }
    if (status != STATUS_OK) return status;
    add(report, "ssd_write_1MiB", report_median(write, BENCH_RUNS), "MiB/s",
        report_median(bare_write, BENCH_RUNS), REPORT_AT_LEAST, 0.85);
    add(report, "ssd_cold_read_1MiB", report_median(read, BENCH_RUNS), "MiB/s",
        report_median(bare_read, BENCH_RUNS), REPORT_AT_LEAST, 0.85);
    add(report, "ssd_sealed_write_1MiB", report_median(sealed_write, BENCH_RUNS), "MiB/s",
        report_median(write, BENCH_RUNS), REPORT_NO_TARGET, 0);
    add(report, "ssd_sealed_cold_read_1MiB", report_median(sealed_read, BENCH_RUNS), "MiB/s",
        report_median(read, BENCH_RUNS), REPORT_NO_TARGET, 0);
    if (ssd_pack_available())
        packed_add(report, &packed_runs, report_median(write, BENCH_RUNS),
                   report_median(read, BENCH_RUNS));
    add(report, "ssd_values_write_1MiB", report_median(values_write, BENCH_RUNS), "MiB/s",
        report_median(bare_write, BENCH_RUNS), REPORT_AT_LEAST, 0.85);
    add(report, "ssd_values_cold_read_1MiB", report_median(values_read, BENCH_RUNS), "MiB/s",
        report_median(bare_read, BENCH_RUNS), REPORT_AT_LEAST, 0.85);
    add(report, "ssd_recover_1500000_blocks", report_median(recover, BENCH_RUNS), "s", NAN,
        REPORT_AT_MOST, 2);
    add(report, "ssd_index_memory", memory, "B/block", NAN, REPORT_NO_TARGET, 0);
    return STATUS_OK;
}

/* F16 of F32: rounded towards 0, and what is smaller than 2^-14 is 0. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint32_t sign = bits >> 31;
    const uint32_t exponent = bits >> 23 & 0xff;
    if (exponent < 127 - 14) return (uint16_t)(sign << 15);
    return (uint16_t)(sign << 15 | (exponent - 127 + 15) << 10 | (bits >> 13 & 0x3ff));
}

static void numbers_make(uint8_t *out)
{
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t at = 0; at < BLOCK_SIZE; at += 2) { /* Box and Muller's */
        const double radius = sqrt(-2 * log(1 - rng_unit(&rng)));
        le_put16(out + at, half_of((float)(radius * cos(2 * M_PI * rng_unit(&rng)))));
    }
}

static enum status bench_disk(struct cli *cli, struct report *report, struct errmsg *err)
{
    const char *given = config_text(cli->config, "data-dir");
    struct bench bench = { .env = cli->env,
                           .layout = { .pages = 1,
                                       .page_size = BLOCK_SIZE,
                                       .layers = LAYERS,
                                       .layer_size = LAYER_SIZE,
                                       .block_tokens = 32 },
                           .data = aligned_alloc(SSD_ALIGN, (size_t)DEPTH * BLOCK_SIZE),
                           .block = malloc(BLOCK_SIZE),
                           .numbers = malloc(BLOCK_SIZE) };
    enum status status = STATUS_OK;

    if (bench.data == NULL || bench.block == NULL || bench.numbers == NULL)
        status = STATUS_NO_MEMORY;
    if (status != STATUS_OK) {
        errmsg_set(err, status, "out of memory");
    } else if (given[0] != '\0') {
        snprintf(bench.directory, sizeof(bench.directory), "%.4000s/bench-store", given);
    } else {
        status = cli_cache_path("bench-store", bench.directory, err);
    }
    if (status == STATUS_OK) status = env_make_dirs(cli->env, bench.directory, err);
    if (status == STATUS_OK) {
        env_random(cli->env, bench.data, (size_t)DEPTH * BLOCK_SIZE);
        env_random(cli->env, bench.block, BLOCK_SIZE);
        numbers_make(bench.numbers);
        sums_make(&bench);
        status = measure(&bench, report, err);
    }
    free(bench.numbers);
    free(bench.block);
    free(bench.data);
    return status;
}

bool bench_store_wanted(const struct bench_store_choice *choice, const char *name)
{
    return choice->only == NULL || strstr(name, choice->only) != NULL;
}

enum status bench_store(struct cli *cli, struct report *report, struct errmsg *err)
{
    const uint32_t positions = config_positions(cli->config);
    const char *second = positions > 1 ? config_position(cli->config, 1) : NULL;
    const struct bench_store_choice choice = { .only = second,
                                               .brief = config_bool(cli->config, "short") };

    enum status status = STATUS_OK;
    const bool disk = second == NULL ? !choice.brief : strncmp(second, "ssd", 3) == 0; /* as one */
    if (disk) status = bench_disk(cli, report, err);
    if (status == STATUS_OK) status = bench_store_meta(cli, &choice, report, err);
    if (status == STATUS_OK) status = bench_store_data(cli, &choice, report, err);
    if (status == STATUS_OK) status = bench_store_restart(cli, &choice, report, err);
    return status;
}
