/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_file.c - the rows of files: with io_uring, past the page cache, over one file, in
 * the same order, in requests of the same size, as many at once, and through the same memory.
 *
 * Memory decides half of it. A disk of a virtual machine is a copy by its host, and fio moves each
 * request in flight through memory of its own, 2 MiB at 64 KiB, that a cache holds: 64 KiB a
 * request are written at 3.6 GB/s from there, and at 2.8 from 256 MiB, whoever writes. So there are
 * two kinds of rows:
 *
 *   file_*_depth32   fio is the yardstick, and the engine uses as little memory as fio does;
 *   file_*_cold      both walk through 256 MiB, as users of the engine do; the yardstick is bare
 *                    io_uring (env_bare_file.h), because fio cannot walk.
 *
 * The file lies in $TMPDIR, or /var/tmp, and is gone afterwards. It is written once before anything
 * is measured, so that writes find their blocks. fio runs as a child per measurement and says how
 * fast it was, its start not counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_bare_file.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"

enum {
    FILE_SIZE = BENCH_MEMORY_SIZE,
    DEPTH = 32,
    OPS_MAX = 16384,
    PATH_SIZE = 256,
    FIELD_READ_RATE = 6, /* of fio's terse output, version 3, from 0; KiB/s */
    FIELD_WRITE_RATE = 47,
};

struct kind {
    const char *name;
    enum yolk_transfer_opcode opcode;
    uint32_t size;
    bool cold; /* through all of the memory, beside bare io_uring */
};

static const struct kind kinds[] = {
    { "file_read_4k_depth32", YOLK_TRANSFER_READ, 4096, false },
    { "file_write_4k_depth32", YOLK_TRANSFER_WRITE, 4096, false },
    { "file_read_64k_depth32", YOLK_TRANSFER_READ, 64 << 10, false },
    { "file_write_64k_depth32", YOLK_TRANSFER_WRITE, 64 << 10, false },
    { "file_read_1m_depth32", YOLK_TRANSFER_READ, 1 << 20, false },
    { "file_write_1m_depth32", YOLK_TRANSFER_WRITE, 1 << 20, false },
    { "file_read_64k_cold", YOLK_TRANSFER_READ, 64 << 10, true },
    { "file_write_64k_cold", YOLK_TRANSFER_WRITE, 64 << 10, true },
    { "file_read_1m_cold", YOLK_TRANSFER_READ, 1 << 20, true },
    { "file_write_1m_cold", YOLK_TRANSFER_WRITE, 1 << 20, true },
};

struct disk {
    struct transfer_bench *bench;
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    uint8_t *here;
    char path[PATH_SIZE], output[PATH_SIZE + 8]; /* of the file; of what fio says */
    bool there;                                  /* the file is */
    uint32_t size;
    const struct kind *kind;
    uint64_t count;
    int exit_code; /* of fio; -1: still running, or killed */
    bool ended;
};

/* ---- fio ---- */

static void on_exit_of_fio(void *ctx, struct env_exit how)
{
    struct disk *disk = ctx;

    disk->exit_code = how.code;
    disk->ended = true;
}

static enum status spawn_and_wait(struct disk *disk, const char *const argv[])
{
    struct env_process *process;

    disk->ended = false;
    const enum status status =
        env_process_spawn(disk->env, argv, on_exit_of_fio, disk, &process, NULL);
    if (status != STATUS_OK) return status;
    while (!disk->ended)
        env_poll(disk->env, ENV_NS_PER_S);
    return disk->exit_code == 0 ? STATUS_OK : STATUS_IO;
}

/* The `index`th of the fields between semicolons; 0 if there is none. */
static double field(const char *text, int index)
{
    for (; index > 0; index--) {
        text = strchr(text, ';');
        if (text == NULL) return 0;
        text++;
    }
    return strtod(text, NULL);
}

/* GB/s. */
static enum status fio_run(struct disk *disk, double *rate)
{
    const bool read = disk->kind->opcode == YOLK_TRANSFER_READ;
    char file[PATH_SIZE + 16], output[PATH_SIZE + 24], block[32], size[32];
    char *text;
    size_t len;

    snprintf(file, sizeof(file), "--filename=%s", disk->path);
    snprintf(output, sizeof(output), "--output=%s", disk->output);
    snprintf(block, sizeof(block), "--bs=%u", disk->kind->size);
    snprintf(size, sizeof(size), "--size=%llu",
             (unsigned long long)(disk->count * disk->kind->size));
    const char *const argv[] = { "fio",
                                 "--name=yardstick",
                                 "--ioengine=io_uring",
                                 "--direct=1",
                                 "--iodepth=32",
                                 "--minimal",
                                 "--terse-version=3",
                                 read ? "--rw=read" : "--rw=write",
                                 file,
                                 output,
                                 block,
                                 size,
                                 NULL };
    enum status status = spawn_and_wait(disk, argv);
    if (status != STATUS_OK) return status;
    status = env_file_read_all(disk->env, disk->output, 1 << 16, &text, &len, NULL);
    if (status != STATUS_OK) return status;
    *rate = field(text, read ? FIELD_READ_RATE : FIELD_WRITE_RATE) * 1024 / 1e9;
    free(text);
    return *rate > 0 ? STATUS_OK : STATUS_IO;
}

static bool fio_is_there(struct disk *disk)
{
    char output[PATH_SIZE + 24];

    snprintf(output, sizeof(output), "--output=%s", disk->output);
    const char *const argv[] = { "fio", "--name=nothing", "--parse-only", output, NULL };
    return spawn_and_wait(disk, argv) == STATUS_OK;
}

/* ---- the engine ---- */

static enum status engine_run(struct disk *disk, const struct kind *kind, uint64_t count,
                              uint64_t *ns)
{
    struct bench_mover mover = { .env = disk->env,
                                 .transfer = disk->transfer,
                                 .segment = disk->segment,
                                 .here = disk->here,
                                 .memory_size = disk->size,
                                 .opcode = kind->opcode,
                                 .here_size = kind->cold ? 0 : (size_t)DEPTH * kind->size,
                                 .size = kind->size,
                                 .depth = DEPTH };
    return bench_move(&mover, count, ns);
}

/* ---- the yardstick that walks ---- */

static enum status bare_run(struct disk *disk, double *rate)
{
    const struct env_bare_file bare = { .path = disk->path,
                                        .read = disk->kind->opcode == YOLK_TRANSFER_READ,
                                        .depth = DEPTH,
                                        .size = disk->kind->size,
                                        .memory = disk->here,
                                        .memory_size = disk->size };
    uint64_t ns = 0;
    const enum status status = env_bare_file_run(&bare, disk->count, &ns);

    if (status == STATUS_OK) *rate = (double)(disk->count * disk->kind->size) / (double)ns;
    return status;
}

/* ---- rows ---- */

static enum status file_pair(void *ctx, double *value, double *baseline)
{
    struct disk *disk = ctx;
    uint64_t ns;
    const enum status status = engine_run(disk, disk->kind, disk->count, &ns);

    if (status != STATUS_OK) return status;
    *value = (double)(disk->count * disk->kind->size) / (double)ns;
    return disk->kind->cold ? bare_run(disk, baseline) : fio_run(disk, baseline);
}

static struct transfer_bench_row row_of(const struct kind *kind)
{
    return (struct transfer_bench_row){ .name = kind->name,
                                        .unit = "GB/s",
                                        .yardstick = kind->cold ? "io_uring" : "fio",
                                        .target = 0.95 };
}

static enum status file_row(struct disk *disk, const struct kind *kind, struct errmsg *err)
{
    const struct transfer_bench_row row = row_of(kind);

    disk->kind = kind;
    const uint64_t ops_max = disk->bench->quick ? DEPTH : OPS_MAX;
    disk->count = disk->size / kind->size < ops_max ? disk->size / kind->size : ops_max;
    return bench_row(disk->bench, &row, file_pair, disk, err);
}

/* ---- all of them ---- */

static bool any_wanted(const struct transfer_bench *bench)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (bench_wants(bench, kinds[i].name)) return true;
    }
    return false;
}

static enum status disk_open(struct disk *disk, struct errmsg *err)
{
    static const struct kind all = { .opcode = YOLK_TRANSFER_WRITE, .size = 1 << 20 };
    const struct yolk_transfer_file file = { .path = disk->path, .length = disk->size };
    void *memory;
    uint64_t ns;

    enum status status = yolk_transfer_create(disk->env, NULL, &disk->transfer, err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_alloc(disk->transfer, disk->size, 0, &memory, err);
    if (status != STATUS_OK) return status;
    disk->here = memory;
    memset(memory, 3, disk->size);
    disk->there = true;
    status = yolk_transfer_open_files(disk->transfer, &file, 1, YOLK_TRANSFER_FILE_CREATE,
                                      &disk->segment, err);
    if (status != STATUS_OK) return status;
    status = engine_run(disk, &all, disk->size / all.size, &ns);
    return status == STATUS_OK ? STATUS_OK : errmsg_set(err, status, "%s: not written", disk->path);
}

static enum status rows(struct disk *disk, const char *no_room, const char *no_fio,
                        struct errmsg *err)
{
    enum status status = no_room == NULL ? disk_open(disk, err) : STATUS_OK;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && status == STATUS_OK; i++) {
        const struct transfer_bench_row row = row_of(&kinds[i]);
        const char *reason = no_room != NULL ? no_room : kinds[i].cold ? NULL : no_fio;
        if (!bench_wants(disk->bench, kinds[i].name)) continue;
        if (reason == NULL) {
            status = file_row(disk, &kinds[i], err);
        } else {
            bench_skip(disk->bench, &row, reason);
        }
    }
    return status;
}

static const char *why_no_room(struct disk *disk, const char *directory)
{
    uint64_t room;

    if (env_disk_free(disk->env, directory, &room) != STATUS_OK || room < 2 * (uint64_t)FILE_SIZE) {
        return "no room for a file of 256 MiB in $TMPDIR or /var/tmp";
    }
    return NULL;
}

enum status bench_file(struct transfer_bench *bench, struct errmsg *err)
{
    const char *given = getenv("TMPDIR");
    const char *directory = given != NULL && given[0] != '\0' ? given : "/var/tmp";
    struct disk disk = { .bench = bench, .size = bench->quick ? BENCH_MEMORY_QUICK : FILE_SIZE };

    if (!any_wanted(bench)) return STATUS_OK;
    snprintf(disk.path, sizeof(disk.path), "%.200s/yolk-bench-%d", directory, (int)getpid());
    snprintf(disk.output, sizeof(disk.output), "%s.fio", disk.path);
    enum status status = env_real_create(NULL, &disk.env, err);
    if (status != STATUS_OK) return status;
    status = rows(&disk, why_no_room(&disk, directory),
                  fio_is_there(&disk) ? NULL : "fio is not installed", err);
    yolk_transfer_destroy(disk.transfer);
    (void)!env_file_remove(disk.env, disk.output);
    if (disk.there) (void)!env_file_remove(disk.env, disk.path);
    env_real_destroy(disk.env);
    return status;
}
