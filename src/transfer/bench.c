/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench.c - see bench.h. Rows and their statistics, a target in a thread of its own, and
 * moving messages with a given depth. */
#include "transfer/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_netns.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"

enum { PAIRS_DEFAULT = 15 };

#define LIMIT_NS (30 * ENV_NS_PER_S)

/* ---- rows ---- */

bool bench_wants(const struct transfer_bench *bench, const char *name)
{
    return bench->only == NULL || strstr(name, bench->only) != NULL;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *sorted, uint32_t count)
{
    return count % 2 == 1 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* Ranks between which the median lies with 95%: binomial, by its normal approximation, rounded
 * outwards; all of it for the few pairs of which nothing better can be said. */
static void interval(const double *sorted, uint32_t count, double *low, double *high)
{
    const double half = 1.96 * sqrt((double)count) / 2;
    const double below = floor((double)count / 2 - half);
    const uint32_t at = below > 1 ? (uint32_t)below - 1 : 0;

    *low = sorted[at];
    *high = sorted[count - 1 - at];
}

void bench_skip(struct transfer_bench *bench, const struct transfer_bench_row *row,
                const char *reason)
{
    ASSERT(bench->count < TRANSFER_BENCH_ROWS_MAX);
    struct transfer_bench_row *out = &bench->rows[bench->count++];
    *out = *row;
    out->value = out->baseline = out->ratio = out->ratio_low = out->ratio_high = NAN;
    snprintf(out->skipped, sizeof(out->skipped), "%s", reason);
}

enum status bench_row(struct transfer_bench *bench, const struct transfer_bench_row *row,
                      bench_pair_fn pair, void *ctx, struct errmsg *err)
{
    double value[TRANSFER_BENCH_PAIRS_MAX], baseline[TRANSFER_BENCH_PAIRS_MAX];
    double ratio[TRANSFER_BENCH_PAIRS_MAX];
    const uint32_t pairs = bench->pairs;
    double waste[2];

    ASSERT(bench->count < TRANSFER_BENCH_ROWS_MAX && pairs >= 1);
    enum status status = bench->quick ? STATUS_OK : pair(ctx, &waste[0], &waste[1]);
    for (uint32_t i = 0; i < pairs && status == STATUS_OK; i++) {
        baseline[i] = 1;
        status = pair(ctx, &value[i], &baseline[i]);
        ratio[i] = value[i] / baseline[i];
    }
    if (status != STATUS_OK) return errmsg_set(err, status, "bench %s did not end", row->name);
    qsort(value, pairs, sizeof(double), by_value);
    qsort(baseline, pairs, sizeof(double), by_value);
    qsort(ratio, pairs, sizeof(double), by_value);
    struct transfer_bench_row *out = &bench->rows[bench->count++];
    *out = *row;
    out->value = median(value, pairs);
    out->baseline = row->yardstick != NULL ? median(baseline, pairs) : NAN;
    out->ratio = median(ratio, pairs);
    interval(ratio, pairs, &out->ratio_low, &out->ratio_high);
    return STATUS_OK;
}

/* ---- the target's thread ---- */

static enum status target_start(struct bench_target *target)
{
    void *memory;
    enum status status = STATUS_OK;

    if (target->netns != NULL) status = env_netns_enter(target->netns, 1);
    if (status == STATUS_OK) status = env_real_create(NULL, &target->env, &target->err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_create(target->env, &target->options, &target->transfer, &target->err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_alloc(target->transfer, target->memory_size, YOLK_TRANSFER_REMOTE_ALL,
                                 &memory, &target->err);
    if (status != STATUS_OK) return status;
    memset(memory, 1, target->memory_size);
    target->memory = memory;
    if (target->user == NULL) return STATUS_OK;
    return yolk_transfer_register(target->transfer, target->user, target->memory_size, NULL,
                                  YOLK_TRANSFER_REMOTE_ALL);
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static void *target_main(void *ctx)
{
    struct bench_target *target = ctx;

    target->status = target_start(target);
    atomic_store(&target->state, target->status == STATUS_OK ? 1 : 2);
    while (target->status == STATUS_OK && !atomic_load(&target->stop)) {
        env_poll(target->env, atomic_load(&target->polling) ? 0 : ENV_NEVER);
    }
    while (target->status == STATUS_OK && !atomic_load(&target->let_go))
        env_real_sleep_ns(ENV_NS_PER_MS);
    yolk_transfer_destroy(target->transfer);
    env_real_destroy(target->env);
    return NULL;
}

enum status bench_target_open(struct bench_target *target, struct errmsg *err)
{
    if (pthread_create(&target->thread, NULL, target_main, target) != 0) {
        return errmsg_set(err, STATUS_NO_MEMORY, "bench: no thread");
    }
    while (atomic_load(&target->state) == 0)
        env_real_sleep_ns(ENV_NS_PER_MS);
    if (atomic_load(&target->state) == 1) return STATUS_OK;
    if (err != NULL) *err = target->err;
    pthread_join(target->thread, NULL);
    return target->status;
}

void bench_target_wake(struct bench_target *target)
{
    const enum status status = env_post(target->env, nothing, NULL);
    ASSERT(status == STATUS_OK);
}

void bench_target_close(struct bench_target *target)
{
    atomic_store(&target->stop, true);
    bench_target_wake(target);
    atomic_store(&target->let_go, true);
    pthread_join(target->thread, NULL);
}

/* ---- moving ---- */

enum status bench_mover_join(struct bench_mover *mover, const struct yolk_transfer_options *options,
                             const char *name, uint8_t *here, size_t size, struct errmsg *err)
{
    enum status status = yolk_transfer_create(mover->env, options, &mover->transfer, err);

    if (status != STATUS_OK) return status;
    mover->here = here;
    mover->memory_size = size;
    status = yolk_transfer_register(mover->transfer, here, size, NULL, 0);
    if (name == NULL) name = yolk_transfer_name(mover->transfer);
    if (status == STATUS_OK) status = yolk_transfer_open(mover->transfer, name, &mover->segment);
    return status == STATUS_OK ? STATUS_OK
                               : errmsg_set(err, status, "bench: %s cannot be opened", name);
}

static void submit_next(struct bench_mover *mover);

static void on_moved(void *ctx, const struct yolk_transfer_result *result)
{
    struct bench_mover *mover = ctx;

    if (result->state != YOLK_TRANSFER_COMPLETED) mover->failed = true;
    mover->under_way--;
    if (mover->left > 0 && !mover->failed) submit_next(mover);
}

static void submit_next(struct bench_mover *mover)
{
    const size_t here_size = mover->here_size != 0 ? mover->here_size : mover->memory_size;
    const struct yolk_transfer_request request = {
        .opcode = mover->opcode,
        .class = mover->class,
        .local = mover->here + mover->at % here_size,
        .segment = mover->segment,
        .remote = (uintptr_t)mover->there + mover->at,
        .length = mover->size,
        .on_done = on_moved,
        .ctx = mover,
    };

    mover->at = (mover->at + mover->size) % mover->memory_size;
    mover->left--;
    mover->under_way++;
    if (yolk_transfer_submit(mover->transfer, mover->batch, &request, 1) != STATUS_OK) {
        mover->failed = true;
    }
}

/* A batch takes so many tasks in its life. */
static void move_part(struct bench_mover *mover, uint32_t count)
{
    const uint64_t limit_ns = env_now_ns(mover->env) + LIMIT_NS;

    if (yolk_transfer_batch_create(mover->transfer, count, NULL, NULL, &mover->batch) !=
        STATUS_OK) {
        mover->failed = true;
        return;
    }
    mover->left = count;
    mover->under_way = 0;
    for (uint32_t i = 0; i < mover->depth && mover->left > 0; i++)
        submit_next(mover);
    while (mover->under_way > 0 && env_now_ns(mover->env) < limit_ns)
        env_poll(mover->env, mover->polling ? 0 : ENV_NS_PER_S);
    if (yolk_transfer_batch_free(mover->transfer, mover->batch) != STATUS_OK) mover->failed = true;
}

enum status bench_move(struct bench_mover *mover, uint64_t count, uint64_t *ns)
{
    const uint64_t start_ns = env_now_ns(mover->env);

    while (count > 0 && !mover->failed) {
        const uint64_t part = count < YOLK_TRANSFER_TASKS_MAX ? count : YOLK_TRANSFER_TASKS_MAX;
        move_part(mover, (uint32_t)part);
        count -= part;
    }
    *ns = env_now_ns(mover->env) - start_ns;
    return mover->failed ? STATUS_IO : STATUS_OK;
}

enum status bench_begin(struct transfer_bench *bench)
{
    bench->count = 0;
    if (bench->pairs > TRANSFER_BENCH_PAIRS_MAX) return STATUS_INVALID;
    if (bench->pairs == 0) bench->pairs = PAIRS_DEFAULT;
    return STATUS_OK;
}

enum status transfer_bench(struct transfer_bench *bench, struct errmsg *err)
{
    enum status status = bench_begin(bench);
    if (status == STATUS_OK) status = bench_paths(bench, err);
    if (status == STATUS_OK) status = bench_fabric(bench, err);
    if (status == STATUS_OK) status = bench_file(bench, err);
    if (status == STATUS_OK) status = bench_cuda(bench, err);
    if (status == STATUS_OK) status = bench_register(bench, err);
    return status == STATUS_OK ? bench_rails(bench, err) : status;
}
