/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_test.c
 *
 * Goal:   memory of devices moves like any other, by every path, without the CPU touching it; a
 *         final state means that the device has ended its copies; errors end tasks, nothing else.
 * Method: a fake driver (tests/fake_cuda.h), whose memory kills who touches it and whose copies are
 *         made late, under two engines on real sockets. What faults of networks and peers do to it
 *         is in transfer_sim_test.c. */
#include "yolk/transfer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "fake_cuda_use.h"
#include "transfer/cuda.h"

enum { POOLS_SIZE = 96 << 20 };
#ifdef YOLK_EXPENSIVE_ASSERTS
enum { SIZE = 5 << 20, LARGE = 2 << 20, TASKS = 6 }; /* sanitizers take their time */
#else
enum {
    SIZE = 12 << 20,
    LARGE = 9 << 20,
    TASKS = 40
}; /* more than a portion of a local copy; than the pools hold */
#endif

static struct gpu gpu;

/* ---- two engines, each with memory of a device and of the host ---- */

struct side {
    struct yolk_transfer *transfer;
    uint8_t *device, *host;
    struct yolk_transfer_segment peer, own;
};

struct pair {
    struct env *env;
    struct side a, b;
    struct rng rng;
};

static void side_open(struct pair *pair, struct side *side, uint32_t device,
                      const struct yolk_transfer_options *options)
{
    assert_int_equal(yolk_transfer_create(pair->env, options, &side->transfer, NULL), STATUS_OK);
    side->device = gpu_alloc(&gpu, device, SIZE);
    assert_non_null(side->device);
    assert_int_equal(
        yolk_transfer_register(side->transfer, side->device, SIZE, NULL, YOLK_TRANSFER_REMOTE_ALL),
        STATUS_OK);
    void *host;
    assert_int_equal(
        yolk_transfer_alloc(side->transfer, SIZE, YOLK_TRANSFER_REMOTE_ALL, &host, NULL),
        STATUS_OK);
    side->host = host;
    rng_fill(&pair->rng, side->host, SIZE);
    rng_fill(&pair->rng, gpu_see(&gpu, side->device), SIZE);
}

static void pair_open(struct pair *pair, const struct yolk_transfer_options *options)
{
    *pair = (struct pair){ .env = NULL };
    rng_init(&pair->rng, 7);
    *gpu.fake = (struct fake_cuda){ .polls = 2 };
    assert_int_equal(env_real_create(NULL, &pair->env, NULL), STATUS_OK);
    side_open(pair, &pair->a, 0, options);
    side_open(pair, &pair->b, 1, options);
    assert_int_equal(gpu.fake->pinned, 2 * (uint64_t)POOLS_SIZE);
    assert_int_equal(
        yolk_transfer_open(pair->a.transfer, yolk_transfer_name(pair->b.transfer), &pair->a.peer),
        STATUS_OK);
    assert_int_equal(
        yolk_transfer_open(pair->a.transfer, yolk_transfer_name(pair->a.transfer), &pair->a.own),
        STATUS_OK);
}

static void pair_close(struct pair *pair)
{
    yolk_transfer_destroy(pair->a.transfer);
    yolk_transfer_destroy(pair->b.transfer);
    assert_int_equal(gpu.fake->pinned, 0);
    assert_int_equal(gpu.fake->pending, 0);
    gpu_free(&gpu, 0, pair->a.device);
    gpu_free(&gpu, 1, pair->b.device);
    env_real_destroy(pair->env);
}

static struct yolk_transfer_batch begin(struct pair *pair, enum yolk_transfer_opcode opcode,
                                        void *local, struct yolk_transfer_segment segment,
                                        void *remote, uint64_t length)
{
    const struct yolk_transfer_request request = { .opcode = opcode,
                                                   .local = local,
                                                   .segment = segment,
                                                   .remote = (uintptr_t)remote,
                                                   .length = length,
                                                   .checksum = true };
    struct yolk_transfer_batch batch;

    assert_int_equal(yolk_transfer_batch_create(pair->a.transfer, 1, NULL, NULL, &batch),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_submit(pair->a.transfer, batch, &request, 1), STATUS_OK);
    return batch;
}

static struct yolk_transfer_result look(struct pair *pair, struct yolk_transfer_batch batch)
{
    struct yolk_transfer_result result;
    assert_int_equal(yolk_transfer_poll(pair->a.transfer, batch, 0, &result), STATUS_OK);
    return result;
}

static struct yolk_transfer_result end(struct pair *pair, struct yolk_transfer_batch batch,
                                       struct yolk_transfer_explain *explain)
{
    assert_int_equal(yolk_transfer_wait(pair->a.transfer, batch, 30 * ENV_NS_PER_S), STATUS_OK);
    const struct yolk_transfer_result result = look(pair, batch);
    if (explain != NULL) {
        assert_int_equal(yolk_transfer_explain(pair->a.transfer, batch, 0, explain), STATUS_OK);
    }
    assert_int_equal(yolk_transfer_batch_free(pair->a.transfer, batch), STATUS_OK);
    return result;
}

/* Moves it, and compares. */
static void moves(struct pair *pair, enum yolk_transfer_opcode opcode, uint8_t *local,
                  struct yolk_transfer_segment segment, uint8_t *remote, uint64_t length,
                  struct yolk_transfer_explain *explain)
{
    uint8_t *here = gpu_see(&gpu, local), *there = gpu_see(&gpu, remote);
    uint8_t *target = opcode == YOLK_TRANSFER_READ ? here : there;

    rng_fill(&pair->rng, here, (size_t)length);
    const uint8_t behind = target[length];
    memset(target, 0, (size_t)length);
    const struct yolk_transfer_batch batch = begin(pair, opcode, local, segment, remote, length);
    assert_int_equal(end(pair, batch, explain).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(here, there, length);
    assert_int_equal(target[length], behind);
}

static const uint64_t lengths[] = { 1, 4097, (1 << 20) + 7, LARGE };

enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

static void both_ways(struct pair *pair, uint8_t *local, uint8_t *remote,
                      enum yolk_transfer_path path, bool staged_here)
{
    struct yolk_transfer_explain explain;

    for (int i = 0; i < LENGTHS; i++) {
        for (int opcode = 0; opcode < 2; opcode++) {
            /* Another source, so that bytes that were there before are not taken for right. */
            rng_fill(&pair->rng, gpu_see(&gpu, remote), (size_t)lengths[i]);
            moves(pair, (enum yolk_transfer_opcode)opcode, local + 3, pair->a.peer, remote + 5,
                  lengths[i], &explain);
            if (path != YOLK_TRANSFER_PATH_NONE) assert_int_equal(explain.path, path);
            assert_int_equal(explain.staged_bytes, staged_here ? lengths[i] : 0);
        }
    }
}

static void over_tcp(const struct yolk_transfer_options *options)
{
    struct pair pair;

    pair_open(&pair, options);
    both_ways(&pair, pair.a.device, pair.b.device, YOLK_TRANSFER_PATH_TCP, true);
    if (!options->encrypt) { /* which makes no difference at the other end of a wire */
        both_ways(&pair, pair.a.device, pair.b.host, YOLK_TRANSFER_PATH_TCP, true);
        both_ways(&pair, pair.a.host, pair.b.device, YOLK_TRANSFER_PATH_TCP, false);
        both_ways(&pair, pair.a.host, pair.b.host, YOLK_TRANSFER_PATH_TCP, false);
    }
    pair_close(&pair);
}

static void memory_of_devices_moves_over_tcp(void **state)
{
    (void)state;
    const struct yolk_transfer_options clear = { .forbid_shm = true };
    const struct yolk_transfer_options encrypted = {
        .forbid_shm = true, .secret = "s", .encrypt = true, .slice_size = 4 << 20
    };

    over_tcp(&clear);
    over_tcp(&encrypted);
}

static void memory_of_devices_moves_on_one_host(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .fence_ms = 0 };
    struct yolk_transfer_explain explain;
    struct pair pair;

    pair_open(&pair, &options);
    both_ways(&pair, pair.a.device, pair.b.device, YOLK_TRANSFER_PATH_TCP, true);
    both_ways(&pair, pair.a.device, pair.b.host, YOLK_TRANSFER_PATH_NONE, true);
    both_ways(&pair, pair.a.host, pair.b.device, YOLK_TRANSFER_PATH_NONE, false);
    /* A READ of shared memory goes from there to the bounce, a WRITE of it is pulled to one. */
    moves(&pair, YOLK_TRANSFER_READ, pair.a.device, pair.a.peer, pair.b.host, 1 << 20, &explain);
    assert_int_equal(explain.path, YOLK_TRANSFER_PATH_SHM);
    moves(&pair, YOLK_TRANSFER_WRITE, pair.a.host, pair.a.peer, pair.b.device, 1 << 20, &explain);
    assert_int_equal(explain.path, YOLK_TRANSFER_PATH_SHM);
    pair_close(&pair);
}

static void memory_of_devices_moves_in_one_engine(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .fence_ms = 0 };
    struct yolk_transfer_explain explain;
    struct pair pair;

    pair_open(&pair, &options);
    uint8_t *other = gpu_alloc(&gpu, 1, SIZE); /* of the other device, the same engine */
    assert_non_null(other);
    assert_int_equal(yolk_transfer_register_at(pair.a.transfer, other, SIZE, "cuda:1", 0, NULL),
                     STATUS_OK);
    uint8_t *const places[] = { pair.a.device, pair.a.host, other,
                                pair.a.device + SIZE - (2 << 20) };
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            const uint64_t length = i + j == 1 || i + j == 2 ? LARGE : 1 << 20;
            if (i == j) continue;
            moves(&pair, YOLK_TRANSFER_READ, places[i], pair.a.own, places[j], length, &explain);
            assert_int_equal(explain.path, YOLK_TRANSFER_PATH_LOCAL);
            assert_int_equal(explain.staged_bytes, 0);
            moves(&pair, YOLK_TRANSFER_WRITE, places[i], pair.a.own, places[j], length, NULL);
        }
    }
    assert_true(gpu.fake->copies_across > 0);
    assert_int_equal(yolk_transfer_unregister(pair.a.transfer, other), STATUS_OK);
    gpu_free(&gpu, 1, other);
    pair_close(&pair);
}

static void many_at_once_share_the_pools(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true, .slice_size = 1 << 20 };
    struct yolk_transfer_batch batches[TASKS];
    struct pair pair;

    pair_open(&pair, &options);
    for (int i = 0; i < TASKS; i++) {
        /* Each is all of it: what they leave is one of two. */
        batches[i] = begin(&pair, i % 2 == 0 ? YOLK_TRANSFER_WRITE : YOLK_TRANSFER_READ,
                           pair.a.device, pair.a.peer, pair.b.device, SIZE);
    }
    for (int i = 0; i < TASKS; i++)
        assert_int_equal(end(&pair, batches[i], NULL).state, YOLK_TRANSFER_COMPLETED);
    assert_int_equal(gpu.fake->pinned, 2 * (uint64_t)POOLS_SIZE);
    pair_close(&pair);
}

static void what_lands_faster_than_the_device_copies_waits_for_it(void **state)
{
    (void)state;
    enum { MANY = 8 };
    const struct yolk_transfer_options options = { .lanes_per_peer = 16 };
    struct yolk_transfer_batch batches[MANY];
    struct pair pair;

    pair_open(&pair, &options);
    gpu.fake->polls = 1u << 30; /* by itself it copies nothing */
    for (int i = 0; i < MANY; i++) {
        batches[i] =
            begin(&pair, YOLK_TRANSFER_WRITE, pair.a.host, pair.a.peer, pair.b.device, SIZE);
    }
    while (gpu.fake->waited == 0) /* until the pool of what lands is full */
        env_poll(pair.env, ENV_NS_PER_MS);
    gpu.fake->hurry = true;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(end(&pair, batches[i], NULL).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(pair.a.host, gpu_see(&gpu, pair.b.device), SIZE);
    pair_close(&pair);
}

static void what_finds_no_pinned_memory_lands_in_other(void **state)
{
    (void)state;
    enum { MANY = 20, LENGTH = 4 << 20 };
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct bounce *bounces[MANY];
    struct pair pair;

    pair_open(&pair, &options);
    for (int i = 0; i < MANY; i++) {
        bounces[i] = cuda_landing(pair.b.transfer, LENGTH);
        assert_non_null(bounces[i]);
        memset(cuda_bounce_memory(bounces[i]), i, LENGTH);
    }
    for (int i = 0; i < MANY; i++) {
        const uint8_t *memory = cuda_bounce_memory(bounces[i]);
        assert_true(memory[0] == i && memory[LENGTH - 1] == i);
    }
    assert_int_equal(gpu.fake->pinned, 2 * (uint64_t)POOLS_SIZE);
    /* And so do WRITEs, meanwhile. */
    moves(&pair, YOLK_TRANSFER_WRITE, pair.a.device, pair.a.peer, pair.b.device, LARGE, NULL);
    for (int i = 0; i < MANY; i++)
        cuda_bounce_free(bounces[i]);
    pair_close(&pair);
}

/* ---- ends ---- */

static void turn_for(struct pair *pair, uint64_t ns)
{
    const uint64_t until = env_now_ns(pair->env) + ns;
    while (env_now_ns(pair->env) < until)
        env_poll(pair->env, ENV_NS_PER_MS);
}

static void a_cancelled_task_waits_for_the_device(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct yolk_transfer_result result;
    struct pair pair;

    pair_open(&pair, &options);
    for (int kind = 0; kind < 3; kind++) {
        gpu.fake->polls = 1u << 30;
        const uint64_t before = gpu.fake->copies_in + gpu.fake->copies_out;
        const struct yolk_transfer_batch batch = begin(
            &pair, kind == 1 ? YOLK_TRANSFER_WRITE : YOLK_TRANSFER_READ, pair.a.device,
            kind == 2 ? pair.a.own : pair.a.peer, kind == 2 ? pair.a.host : pair.b.host, 1 << 20);
        while (gpu.fake->copies_in + gpu.fake->copies_out == before)
            env_poll(pair.env, ENV_NS_PER_MS);
        assert_int_equal(yolk_transfer_cancel(pair.a.transfer, batch, 0), STATUS_OK);
        turn_for(&pair, 20 * ENV_NS_PER_MS);
        result = look(&pair, batch);
        assert_true(result.state == YOLK_TRANSFER_PENDING || result.state == YOLK_TRANSFER_WAITING);
        assert_int_equal(yolk_transfer_unregister(pair.a.transfer, pair.a.device), STATUS_BUSY);
        while (gpu.fake->pending > 0) { /* the device gets on with it */
            gpu.fake->hurry = true;
            env_poll(pair.env, ENV_NS_PER_MS);
        }
        gpu.fake->hurry = false;
        result = end(&pair, batch, NULL);
        assert_true(result.state == YOLK_TRANSFER_CANCELED ||
                    result.state == YOLK_TRANSFER_COMPLETED);
    }
    pair_close(&pair);
}

static void waiting_does_not_spin(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct pair pair;

    pair_open(&pair, &options);
    gpu.fake->polls = 1u << 30;
    const struct yolk_transfer_batch batch =
        begin(&pair, YOLK_TRANSFER_WRITE, pair.a.device, pair.a.peer, pair.b.host, 1 << 20);
    turn_for(&pair, 50 * ENV_NS_PER_MS);
    /* Twice a millisecond, some more at the beginning, and once for what else turns the loop. */
    assert_true(gpu.fake->polled > 0 && gpu.fake->polled < 400);
    gpu.fake->hurry = true;
    assert_int_equal(end(&pair, batch, NULL).state, YOLK_TRANSFER_COMPLETED);
    pair_close(&pair);
}

static void the_target_gives_memory_back_when_nothing_moves(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct pair pair;

    pair_open(&pair, &options);
    for (int opcode = 0; opcode < 2; opcode++) {
        gpu.fake->polls = 1u << 30;
        const uint64_t before = gpu.fake->copies_in + gpu.fake->copies_out;
        const struct yolk_transfer_batch batch =
            begin(&pair, (enum yolk_transfer_opcode)opcode, pair.a.host, pair.a.peer, pair.b.device,
                  1 << 20);
        while (gpu.fake->copies_in + gpu.fake->copies_out == before)
            env_poll(pair.env, ENV_NS_PER_MS);
        assert_true(gpu.fake->pending > 0);
        assert_int_equal(yolk_transfer_unregister(pair.b.transfer, pair.b.device), STATUS_OK);
        gpu_free(&gpu, 1, pair.b.device); /* the fake ends the process if a copy still needs it */
        gpu.fake->hurry = true;
        const struct yolk_transfer_result result = end(&pair, batch, NULL);
        assert_true(result.state == YOLK_TRANSFER_INVALID || result.state == YOLK_TRANSFER_FAILED);
        gpu.fake->hurry = false;
        pair.b.device = gpu_alloc(&gpu, 1, SIZE);
        assert_non_null(pair.b.device);
        assert_int_equal(yolk_transfer_register(pair.b.transfer, pair.b.device, SIZE, NULL,
                                                YOLK_TRANSFER_REMOTE_ALL),
                         STATUS_OK);
    }
    pair_close(&pair);
}

static void an_engine_may_go_while_devices_copy(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct pair pair;

    for (int opcode = 0; opcode < 2; opcode++) {
        pair_open(&pair, &options);
        gpu.fake->polls = 1u << 30;
        begin(&pair, (enum yolk_transfer_opcode)opcode, pair.a.device, pair.a.peer, pair.b.device,
              SIZE);
        begin(&pair, (enum yolk_transfer_opcode)opcode, pair.a.device, pair.a.own, pair.a.host,
              SIZE);
        turn_for(&pair, 20 * ENV_NS_PER_MS);
        assert_true(gpu.fake->pending > 0);
        pair_close(&pair);
    }
}

static void errors_of_the_device_end_the_task(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct yolk_transfer_stats a, b;
    struct pair pair;
    uint64_t failed = 0;

    pair_open(&pair, &options);
    for (int where = 0; where < 3; where++) {
        uint8_t *local = where == 1 ? pair.a.host : pair.a.device;
        uint8_t *remote = where == 1 ? pair.b.device : where == 2 ? pair.a.host : pair.b.host;
        const struct yolk_transfer_segment segment = where == 2 ? pair.a.own : pair.a.peer;
        for (int kind = 0; kind < 4; kind++) {
            *(kind / 2 == 0 ? &gpu.fake->fail_start : &gpu.fake->fail_end) = 1;
            const struct yolk_transfer_batch batch = begin(
                &pair, (enum yolk_transfer_opcode)(kind % 2), local, segment, remote, 1 << 20);
            const struct yolk_transfer_result result = end(&pair, batch, NULL);
            assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
            assert_true(result.bytes < 1 << 20);
            failed++;
        }
        moves(&pair, YOLK_TRANSFER_WRITE, local, segment, remote, 1 << 20, NULL);
        moves(&pair, YOLK_TRANSFER_READ, local, segment, remote, 1 << 20, NULL);
    }
    yolk_transfer_stats(pair.a.transfer, &a);
    yolk_transfer_stats(pair.b.transfer, &b);
    assert_int_equal(a.device_errors + b.device_errors, failed);
    pair_close(&pair);
}

/* ---- files ---- */

enum { FILE_SIZE = LARGE + (1 << 20) };

struct on_disk {
    char path[64];
    struct yolk_transfer_segment segment;
};

static void disk_open(struct pair *pair, struct on_disk *disk)
{
    const struct yolk_transfer_file halves[2] = {
        { .path = disk->path, .length = FILE_SIZE / 2 },
        { .path = disk->path, .offset = FILE_SIZE / 2, .length = FILE_SIZE / 2 },
    };
    struct errmsg err = { "" };

    snprintf(disk->path, sizeof(disk->path), "/var/tmp/yolk-cuda-XXXXXX");
    const int fd = mkstemp(disk->path);
    assert_true(fd >= 0);
    close(fd);
    if (yolk_transfer_open_files(pair->a.transfer, halves, 2, YOLK_TRANSFER_FILE_CREATE,
                                 &disk->segment, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void expect_file(const struct on_disk *disk, const uint8_t *bytes, uint64_t length,
                        uint64_t offset)
{
    uint8_t *data = malloc(length);
    const int fd = open(disk->path, O_RDONLY);

    assert_true(data != NULL && fd >= 0);
    assert_int_equal(pread(fd, data, length, (off_t)offset), length);
    assert_memory_equal(data, bytes, length);
    close(fd);
    free(data);
}

static struct yolk_transfer_result move_file(struct pair *pair, const struct on_disk *disk,
                                             enum yolk_transfer_opcode opcode, uint8_t *local,
                                             uint64_t offset, uint64_t length,
                                             struct yolk_transfer_explain *explain)
{
    const struct yolk_transfer_batch batch =
        begin(pair, opcode, local, disk->segment, (void *)(uintptr_t)offset, length);
    return end(pair, batch, explain);
}

/* To the file and back into other memory of the device, wherever it begins; the segment is two
 * parts of one file, whose seam is at no page. */
static void files_and_devices_exchange(void **state)
{
    (void)state;
    static const uint64_t offsets[] = { 0, 1, 4096, FILE_SIZE / 2 - 5000 };
    const struct yolk_transfer_options options = { .slice_size = 256 << 10 };
    struct yolk_transfer_explain explain;
    struct on_disk disk;
    struct pair pair;

    pair_open(&pair, &options);
    disk_open(&pair, &disk);
    for (size_t i = 0; i < LENGTHS; i++) {
        for (size_t j = 0; j < sizeof(offsets) / sizeof(offsets[0]); j++) {
            const uint64_t left = FILE_SIZE - offsets[j];
            const uint64_t length = lengths[i] < left ? lengths[i] : left;
            uint8_t *at = pair.a.device + 3, *see = gpu_see(&gpu, at);
            rng_fill(&pair.rng, see, (size_t)length);
            assert_int_equal(
                move_file(&pair, &disk, YOLK_TRANSFER_WRITE, at, offsets[j], length, &explain)
                    .state,
                YOLK_TRANSFER_COMPLETED);
            assert_int_equal(explain.path, YOLK_TRANSFER_PATH_FILE);
            assert_int_equal(explain.staged_bytes, length);
            expect_file(&disk, see, length, offsets[j]);
            memset(see, 0, (size_t)length);
            const uint8_t behind = see[length];
            assert_int_equal(
                move_file(&pair, &disk, YOLK_TRANSFER_READ, at, offsets[j], length, NULL).state,
                YOLK_TRANSFER_COMPLETED);
            expect_file(&disk, see, length, offsets[j]);
            assert_int_equal(see[length], behind);
        }
    }
    assert_int_equal(
        move_file(&pair, &disk, YOLK_TRANSFER_READ, pair.a.device, FILE_SIZE - 1, 2, NULL).state,
        YOLK_TRANSFER_INVALID);
    (void)unlink(disk.path);
    pair_close(&pair);
}

/* What goes wrong on either side ends the task, after both have let go, and nothing else. */
static void faults_between_files_and_devices_end_the_task(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .slice_size = 256 << 10 };
    const uint64_t length = 1 << 20;
    struct yolk_transfer_result result;
    struct on_disk disk;
    struct pair pair;

    pair_open(&pair, &options);
    disk_open(&pair, &disk);
    for (int kind = 0; kind < 4; kind++) {
        *(kind / 2 == 0 ? &gpu.fake->fail_start : &gpu.fake->fail_end) = 1;
        result = move_file(&pair, &disk, (enum yolk_transfer_opcode)(kind % 2), pair.a.device, 0,
                           length, NULL);
        assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
        assert_true(result.bytes < length);
    }
    for (int opcode = 0; opcode < 2; opcode++) {
        gpu.fake->polls = 1u << 30;
        const uint64_t before = gpu.fake->copies_in + gpu.fake->copies_out;
        const struct yolk_transfer_batch batch = begin(&pair, (enum yolk_transfer_opcode)opcode,
                                                       pair.a.device, disk.segment, NULL, length);
        while (gpu.fake->copies_in + gpu.fake->copies_out == before && gpu.fake->pending == 0)
            env_poll(pair.env, ENV_NS_PER_MS);
        assert_int_equal(yolk_transfer_cancel(pair.a.transfer, batch, 0), STATUS_OK);
        turn_for(&pair, 20 * ENV_NS_PER_MS);
        assert_true(look(&pair, batch).state <= YOLK_TRANSFER_PENDING); /* the device is at it */
        gpu.fake->hurry = true;
        result = end(&pair, batch, NULL);
        assert_true(result.state == YOLK_TRANSFER_CANCELED ||
                    result.state == YOLK_TRANSFER_COMPLETED);
        gpu.fake->hurry = false;
        gpu.fake->polls = 2;
    }
    assert_int_equal(truncate(disk.path, length / 2), 0);
    result = move_file(&pair, &disk, YOLK_TRANSFER_READ, pair.a.device, 0, length, NULL);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_IO);
    begin(&pair, YOLK_TRANSFER_WRITE, pair.a.device, disk.segment, NULL, length);
    (void)unlink(disk.path);
    pair_close(&pair); /* with one under way */
}

/* ---- registering ---- */

static void places_are_checked(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct yolk_transfer_segment self;
    struct yolk_transfer_loan loan;
    struct errmsg err;
    struct pair pair;

    pair_open(&pair, &options);
    struct yolk_transfer *transfer = pair.a.transfer;
    uint8_t *memory = gpu_alloc(&gpu, 0, 1 << 20);
    static uint8_t host[4096];
    static const char *const wrong[] = {
        "cuda:1", "cuda:7", "cuda:64", "cuda:", "cuda:x", "cuda:-1"
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(yolk_transfer_register_at(transfer, memory, 4096, wrong[i], 0, &err),
                         STATUS_INVALID);
        assert_non_null(strstr(err.text, wrong[i]));
    }
    assert_int_equal(yolk_transfer_register_at(transfer, host, 4096, "cuda:0", 0, NULL),
                     STATUS_INVALID);
    assert_int_equal(yolk_transfer_register_at(transfer, memory, 2 << 20, "cuda:0", 0, NULL),
                     STATUS_INVALID);
    assert_int_equal(yolk_transfer_register(transfer, memory, 4096, "name", 0), STATUS_INVALID);
    assert_int_equal(yolk_transfer_register_at(transfer, memory, 4096, "cuda:0", 8, NULL),
                     STATUS_INVALID);
    assert_int_equal(yolk_transfer_register_at(transfer, NULL, 4096, "cuda:0", 0, NULL),
                     STATUS_INVALID);
    assert_int_equal(yolk_transfer_register_at(transfer, memory, 4096, "cuda:0", 0, NULL),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_register_at(transfer, memory, 4096, "*", 0, NULL),
                     STATUS_EXISTS);
    assert_int_equal(yolk_transfer_register_at(transfer, host, 4096, "cpu:0", 0, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_open(transfer, yolk_transfer_name(transfer), &self), STATUS_OK);
    assert_int_equal(yolk_transfer_borrow(transfer, self, (uintptr_t)memory, 4096, 0, &loan),
                     STATUS_UNSUPPORTED);
    assert_int_equal(yolk_transfer_borrow(transfer, self, (uintptr_t)host, 4096, 0, &loan),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_return(transfer, loan), STATUS_OK);
    assert_int_equal(yolk_transfer_unregister(transfer, memory), STATUS_OK);
    gpu_free(&gpu, 0, memory);
    pair_close(&pair);
}

/* In a process that has no driver. */
static int without_a_driver(void)
{
    struct yolk_transfer *transfer;
    struct errmsg err = { "" };
    struct env *env;
    static uint8_t memory[4096];

    setenv("YOLK_CUDA_DRIVER", "/nowhere/libcuda.so.1", 1);
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) return 1;
    if (yolk_transfer_create(env, NULL, &transfer, NULL) != STATUS_OK) return 2;
    if (yolk_transfer_register_at(transfer, memory, 4096, "cuda:0", 0, &err) !=
        STATUS_UNSUPPORTED) {
        return 3;
    }
    if (strstr(err.text, "cuda:0") == NULL || strstr(err.text, "no CUDA driver") == NULL) return 4;
    if (yolk_transfer_register_at(transfer, memory, 4096, "cpu:0", 0, &err) != STATUS_OK) return 5;
    yolk_transfer_destroy(transfer);
    env_real_destroy(env);
    return 0;
}

static void without_a_driver_it_is_refused_by_name(void **state)
{
    (void)state;
    int how;
    const pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) _exit(without_a_driver());
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_true(gpu_open(&gpu, FAKE_CUDA)); /* for the tests that follow */
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_driver_it_is_refused_by_name),
        cmocka_unit_test(places_are_checked),
        cmocka_unit_test(memory_of_devices_moves_over_tcp),
        cmocka_unit_test(memory_of_devices_moves_on_one_host),
        cmocka_unit_test(memory_of_devices_moves_in_one_engine),
        cmocka_unit_test(many_at_once_share_the_pools),
        cmocka_unit_test(what_lands_faster_than_the_device_copies_waits_for_it),
        cmocka_unit_test(what_finds_no_pinned_memory_lands_in_other),
        cmocka_unit_test(a_cancelled_task_waits_for_the_device),
        cmocka_unit_test(waiting_does_not_spin),
        cmocka_unit_test(the_target_gives_memory_back_when_nothing_moves),
        cmocka_unit_test(an_engine_may_go_while_devices_copy),
        cmocka_unit_test(errors_of_the_device_end_the_task),
        cmocka_unit_test(files_and_devices_exchange),
        cmocka_unit_test(faults_between_files_and_devices_end_the_task),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < GPU_DEVICES; i++)
        cuda_device_close(gpu.devices[i]);
    return failed;
}
