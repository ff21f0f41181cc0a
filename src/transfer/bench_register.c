/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_register.c - the rows of registering: memory that is there already, and memory
 * whose pages are made by it, beside one MADV_POPULATE_WRITE of as much.
 *
 * Both want gigabytes. Where the machine has not as much to spare, less is used, and the row is
 * named after what it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/env_real.h"
#include "transfer/bench_int.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct memory {
    struct transfer_bench *bench;
    struct env *env;
    struct yolk_transfer *transfer;
    struct env_map map;
    uint64_t size;
};

struct size {
    uint64_t size;
    const char *resident, *populate;
};

static const struct size sizes[] = {
    { UINT64_C(8) << 30, "register_8g_resident", "register_8g_populate" },
    { UINT64_C(4) << 30, "register_4g_resident", "register_4g_populate" },
    { UINT64_C(1) << 30, "register_1g_resident", "register_1g_populate" },
    { UINT64_C(64) << 20, "register_64m_resident", "register_64m_populate" },
};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* What may be taken without pushing others out. */
static uint64_t available(struct env *env)
{
    char *text;
    size_t len;
    unsigned long long kib = 0;

    if (env_file_read_all(env, "/proc/meminfo", 1 << 16, &text, &len, NULL) != STATUS_OK) return 0;
    const char *line = strstr(text, "MemAvailable:");
    if (line != NULL) kib = strtoull(line + sizeof("MemAvailable:") - 1, NULL, 10);
    free(text);
    return (uint64_t)kib << 10;
}

/* The largest with a quarter of it left over, at most `size_max`. */
static const struct size *size_for(const struct memory *memory, uint64_t size_max)
{
    const uint64_t room = available(memory->env);
    const struct size *size = sizes;

    if (memory->bench->quick) size_max = 64 << 20;
    while (size < &sizes[SIZES - 1] &&
           (size->size > size_max || size->size + size->size / 4 > room))
        size++;
    return size;
}

static enum status resident_pair(void *ctx, double *value, double *baseline)
{
    struct memory *memory = ctx;
    const uint64_t start_ns = env_now_ns(memory->env);
    const enum status status = yolk_transfer_register(memory->transfer, memory->map.data,
                                                      memory->size, NULL, YOLK_TRANSFER_REMOTE_ALL);

    *value = (double)(env_now_ns(memory->env) - start_ns) / 1e6;
    *baseline = 1;
    if (status != STATUS_OK) return status;
    return yolk_transfer_unregister(memory->transfer, memory->map.data);
}

static enum status resident_row(struct memory *memory, struct errmsg *err)
{
    const struct size *size = size_for(memory, UINT64_MAX);
    const struct transfer_bench_row row = {
        .name = size->resident, .unit = "ms", .target = 10, .at_most = true
    };
    char name[ENV_SHARE_NAME_SIZE];

    if (!bench_wants(memory->bench, row.name)) return STATUS_OK;
    memory->size = size->size;
    enum status status = env_map_create(memory->env, size->size, &memory->map, name, err);
    if (status != STATUS_OK) return status;
    status = env_populate(memory->env, memory->map.data, size->size);
    if (status == STATUS_OK) {
        status = bench_row(memory->bench, &row, resident_pair, memory, err);
    } else {
        bench_skip(memory->bench, &row, "pages cannot be made ahead here");
        status = STATUS_OK;
    }
    env_map_close(&memory->map);
    return status;
}

static enum status populate_pair(void *ctx, double *value, double *baseline)
{
    struct memory *memory = ctx;
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map map;
    void *data;
    uint64_t start_ns = env_now_ns(memory->env);

    enum status status =
        yolk_transfer_alloc(memory->transfer, memory->size, YOLK_TRANSFER_POPULATE, &data, NULL);
    if (status != STATUS_OK) return status;
    *value = (double)memory->size / (double)(env_now_ns(memory->env) - start_ns);
    status = yolk_transfer_free(memory->transfer, data);
    if (status != STATUS_OK) return status;
    start_ns = env_now_ns(memory->env);
    status = env_map_create(memory->env, memory->size, &map, name, NULL);
    if (status != STATUS_OK) return status;
    if (madvise(map.data, map.size, MADV_POPULATE_WRITE) != 0) status = STATUS_UNSUPPORTED;
    *baseline = (double)memory->size / (double)(env_now_ns(memory->env) - start_ns);
    env_map_close(&map);
    return status;
}

static enum status populate_row(struct memory *memory, struct errmsg *err)
{
    const struct size *size = size_for(memory, UINT64_C(1) << 30);
    const struct transfer_bench_row row = {
        .name = size->populate, .unit = "GB/s", .yardstick = "MADV_POPULATE_WRITE", .target = 0.9
    };

    if (!bench_wants(memory->bench, row.name)) return STATUS_OK;
    memory->size = size->size;
    return bench_row(memory->bench, &row, populate_pair, memory, err);
}

enum status bench_register(struct transfer_bench *bench, struct errmsg *err)
{
    struct memory memory = { .bench = bench };
    enum status status = env_real_create(NULL, &memory.env, err);

    if (status != STATUS_OK) return status;
    status = yolk_transfer_create(memory.env, NULL, &memory.transfer, err);
    if (status == STATUS_OK) status = resident_row(&memory, err);
    if (status == STATUS_OK) status = populate_row(&memory, err);
    yolk_transfer_destroy(memory.transfer);
    env_real_destroy(memory.env);
    return status;
}
