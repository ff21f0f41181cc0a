/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_values.c - values by key on a disk, as bench_store.c has it of blocks: put behind
 * memory as fast as the log takes them, until all are on the disk and the log is closed; then read
 * from a log that was opened anew, each with its head and checksums compared. */
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/hash.h"
#include "cli/bench_store.h"
#include "store/proto.h"
#include "store/ssd.h"
#include "store/vlog.h"

enum { SPACE = 1, SUMS = BENCH_STORE_DISK_SIZE / STORE_PIECE_SIZE };

struct values {
    const struct bench_store_disk *disk;
    struct vlog *vlog;
    uint64_t sums[SUMS];
    uint64_t digest;
    uint32_t started, done;
    bool failed;
};

struct value_key {
    uint8_t bytes[BENCH_STORE_KEY_SIZE];
    struct block_key id;
};

static struct store_key key_of(struct value_key *key, uint32_t n)
{
    bench_store_key(key->bytes, SPACE, n);
    const struct store_key name = { key->bytes, sizeof(key->bytes) };
    key->id = store_key_id(name);
    return name;
}

/* Until all are done. */
static void turn(struct values *values)
{
    while (values->done < values->disk->count && !values->failed)
        (void)env_poll(values->disk->env, ENV_NS_PER_S);
}

static double mib_per_s(const struct values *values, uint64_t since_ns)
{
    const uint64_t ns = env_now_ns(values->disk->env) - since_ns;
    return (double)values->disk->count * BENCH_STORE_DISK_SIZE / (1 << 20) / ((double)ns / 1e9);
}

/* ---- writing ---- */

static void on_written(void *ctx, const struct block_key *id, enum status status)
{
    struct values *values = ctx;
    (void)id;
    values->done++;
    values->failed |= status != STATUS_OK;
}

static void on_removed(void *ctx, const struct vlog_entry *entry)
{
    (void)entry;
    ((struct values *)ctx)->failed = true;
}

static void on_room(void *ctx)
{
    struct values *values = ctx;
    enum status status = STATUS_OK;

    while (values->started < values->disk->count && status == STATUS_OK) {
        struct value_key key;
        struct object object = { .key = key_of(&key, values->started),
                                 .size = BENCH_STORE_DISK_SIZE,
                                 .put_id = 1,
                                 .attributes = { .version = 1 },
                                 .digest = values->digest,
                                 .sums = values->sums,
                                 .sums_count = SUMS };
        object.id = key.id;
        status = vlog_write(values->vlog, &object, values->disk->block);
        if (status == STATUS_OK) values->started++;
    }
    values->failed |= status != STATUS_OK && status != STATUS_FULL;
}

static enum status log_open(struct values *values, struct errmsg *err)
{
    const struct vlog_options options = { .env = values->disk->env,
                                          .directory = values->disk->directory,
                                          .size_max = values->disk->size_max,
                                          .seed = 1,
                                          .on_written = on_written,
                                          .on_removed = on_removed,
                                          .on_room = on_room,
                                          .ctx = values };
    return vlog_open(&options, &values->vlog, err);
}

/* ---- reading ---- */

struct reading {
    struct values *values;
    struct vlog_read read;
};

static void reading_next(struct reading *reading)
{
    struct values *values = reading->values;
    struct value_key key;

    if (values->started == values->disk->count || values->failed) return;
    (void)key_of(&key, values->started++);
    if (vlog_read(values->vlog, &key.id, &reading->read) != STATUS_OK) values->failed = true;
}

static void on_read(void *ctx, enum status status, const struct vlog_head *head)
{
    struct reading *reading = ctx;
    struct values *values = reading->values;

    values->done++;
    values->failed |= status != STATUS_OK || head->meta.size != BENCH_STORE_DISK_SIZE;
    reading_next(reading);
}

static void read_all(struct values *values)
{
    struct reading readings[BENCH_STORE_DISK_DEPTH];

    values->started = values->done = 0;
    for (uint32_t i = 0; i < BENCH_STORE_DISK_DEPTH; i++) {
        struct reading *reading = &readings[i];
        *reading = (struct reading){ .values = values };
        reading->read.data = values->disk->data + (size_t)i * BENCH_STORE_DISK_SIZE;
        reading->read.fn = on_read;
        reading->read.ctx = reading;
        reading_next(reading);
    }
    turn(values);
}

enum status bench_store_values(const struct bench_store_disk *disk, double *write, double *read,
                               struct errmsg *err)
{
    struct values values = { .disk = disk };

    for (uint32_t i = 0; i < SUMS; i++)
        values.sums[i] = hash_xxh3(disk->block + (size_t)i * STORE_PIECE_SIZE, STORE_PIECE_SIZE);
    values.digest = hash_xxh3(values.sums, sizeof(values.sums));
    enum status status = log_open(&values, err);
    if (status != STATUS_OK) return status;
    const uint64_t write_ns = env_now_ns(disk->env);
    on_room(&values);
    turn(&values);
    vlog_close(values.vlog); /* seals and syncs */
    *write = mib_per_s(&values, write_ns);
    if (values.failed) return errmsg_set(err, STATUS_IO, "the log of values failed");
    status = log_open(&values, err);
    if (status != STATUS_OK) return status;
    const uint64_t read_ns = env_now_ns(disk->env);
    read_all(&values);
    *read = mib_per_s(&values, read_ns);
    vlog_close(values.vlog);
    if (values.failed) status = errmsg_set(err, STATUS_IO, "values could not be read back");
    return status;
}
