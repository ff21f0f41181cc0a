/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_ipc_test.c
 *
 * Goal:   between processes of one host devices copy from each other's memory; what the driver does
 *         not open goes through pinned memory, whatever the handle says; what its owner has taken
 *         back, or has died with, is never reported as read, and never stays open.
 * Method: a fake driver (tests/fake_cuda.h) in two processes: this one asks, a forked one is asked,
 *         and shows what its device holds when it is told to. Faults of networks and peers over the
 *         same path are in transfer_sim_test.c. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "fake_cuda_use.h"

enum { SIZE = 6 << 20, SMALL = 64 << 10, FENCE_MS = 300, EPOCH = 7 };

enum command { NOTHING, SHOW, RENEW, NEXT_EPOCH, STOP };

/* Between the two processes. */
struct notice {
    _Atomic bool ready;
    _Atomic int command; /* the child sets NOTHING when it is done */
    struct fake_cuda turned;
    char name[YOLK_TRANSFER_NAME_SIZE];
    _Atomic uint64_t address;
    _Atomic uint64_t opened;
    uint64_t read_only, write_only; /* SMALL each */
    uint8_t shown[SIZE];
};

struct scene {
    struct notice *notice;
    pid_t child;
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    uint8_t *device; /* ours */
    uint8_t *small;
    struct rng rng;
};

static struct gpu gpu;

/* ---- the other process ---- */

struct other {
    struct yolk_transfer *transfer;
    uint8_t *device;
    unsigned fill;
};

static void other_fill(struct other *other, struct notice *notice)
{
    uint8_t *see;

    other->device = gpu_alloc(&gpu, 1, SIZE);
    if (other->device == NULL) _exit(3);
    see = gpu_see(&gpu, other->device);
    for (size_t i = 0; i < SIZE; i++)
        see[i] = (uint8_t)(i * 5 + i / 4099 + other->fill);
    other->fill++;
    if (yolk_transfer_register(other->transfer, other->device, SIZE, NULL,
                               YOLK_TRANSFER_REMOTE_ALL) != STATUS_OK) {
        _exit(4);
    }
    atomic_store(&notice->address, (uintptr_t)other->device);
}

static uint64_t other_small(struct other *other, unsigned flags)
{
    void *memory = gpu_alloc(&gpu, 1, SMALL);

    if (memory == NULL) _exit(7);
    if (yolk_transfer_register(other->transfer, memory, SMALL, NULL, flags) != STATUS_OK) _exit(8);
    return (uintptr_t)memory;
}

static void other_obey(struct other *other, struct notice *notice)
{
    switch (atomic_load(&notice->command)) {
    case SHOW: memcpy(notice->shown, gpu_see(&gpu, other->device), SIZE); break;
    case RENEW:
        if (yolk_transfer_unregister(other->transfer, other->device) != STATUS_OK) _exit(5);
        gpu_free(&gpu, 1, other->device);
        other_fill(other, notice);
        break;
    case NEXT_EPOCH:
        if (yolk_transfer_set_epoch(other->transfer, EPOCH + 1) != STATUS_OK) _exit(6);
        break;
    case STOP: _exit(0);
    default: return;
    }
    atomic_store(&notice->command, NOTHING);
}

static _Noreturn void other_main(struct notice *notice)
{
    const struct yolk_transfer_options options = { .fence_ms = FENCE_MS, .epoch = EPOCH };
    struct other other = { .fill = 0 };
    struct env *env;

    alarm(60); /* never outlives a test that went wrong */
    *gpu.fake = notice->turned;
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) _exit(1);
    if (yolk_transfer_create(env, &options, &other.transfer, NULL) != STATUS_OK) _exit(2);
    notice->read_only = other_small(&other, YOLK_TRANSFER_REMOTE_READ);
    notice->write_only = other_small(&other, YOLK_TRANSFER_REMOTE_WRITE);
    other_fill(&other, notice);
    memcpy(notice->name, yolk_transfer_name(other.transfer), sizeof(notice->name));
    atomic_store(&notice->ready, true);
    for (;;) {
        env_poll(env, ENV_NS_PER_MS);
        other_obey(&other, notice);
        atomic_store(&notice->opened, gpu.fake->opened);
    }
}

/* ---- this one ---- */

static void scene_open(struct scene *scene, struct fake_cuda ours, struct fake_cuda theirs)
{
    const struct yolk_transfer_options options = { .fence_ms = FENCE_MS };

    *scene = (struct scene){ .child = -1 };
    rng_init(&scene->rng, 11);
    scene->notice = mmap(NULL, sizeof(*scene->notice), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(scene->notice != MAP_FAILED);
    scene->notice->turned = theirs;
    scene->child = fork();
    assert_true(scene->child >= 0);
    if (scene->child == 0) other_main(scene->notice);
    *gpu.fake = ours;
    assert_int_equal(env_real_create(NULL, &scene->env, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(scene->env, &options, &scene->transfer, NULL), STATUS_OK);
    scene->small = gpu_alloc(&gpu, 0, SMALL);
    scene->device = gpu_alloc(&gpu, 0, SIZE);
    assert_int_equal(yolk_transfer_register(scene->transfer, scene->device, SIZE, NULL, 0),
                     STATUS_OK);
    while (!atomic_load(&scene->notice->ready))
        env_real_sleep_ns(ENV_NS_PER_MS);
    assert_int_equal(yolk_transfer_open(scene->transfer, scene->notice->name, &scene->segment),
                     STATUS_OK);
}

static void scene_close(struct scene *scene)
{
    yolk_transfer_destroy(scene->transfer);
    assert_int_equal(gpu.fake->open, 0);
    assert_int_equal(gpu.fake->pending, 0);
    gpu_free(&gpu, 0, scene->device);
    gpu_free(&gpu, 0, scene->small);
    env_real_destroy(scene->env);
    kill(scene->child, SIGKILL);
    assert_int_equal(waitpid(scene->child, NULL, 0), scene->child);
    munmap(scene->notice, sizeof(*scene->notice));
}

static void tell(struct scene *scene, enum command command)
{
    atomic_store(&scene->notice->command, (int)command);
    while (atomic_load(&scene->notice->command) != NOTHING)
        env_real_sleep_ns(100 * ENV_NS_PER_US);
}

static struct yolk_transfer_batch begin_at(struct scene *scene, enum yolk_transfer_opcode opcode,
                                           uint64_t remote, uint64_t length, uint64_t epoch)
{
    const struct yolk_transfer_request request = { .opcode = opcode,
                                                   .local = scene->device,
                                                   .segment = scene->segment,
                                                   .remote = remote,
                                                   .length = length,
                                                   .epoch = epoch };
    struct yolk_transfer_batch batch;

    assert_int_equal(yolk_transfer_batch_create(scene->transfer, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(scene->transfer, batch, &request, 1), STATUS_OK);
    return batch;
}

static struct yolk_transfer_batch begin(struct scene *scene, enum yolk_transfer_opcode opcode,
                                        uint64_t length)
{
    return begin_at(scene, opcode, atomic_load(&scene->notice->address), length, 0);
}

static struct yolk_transfer_result end(struct scene *scene, struct yolk_transfer_batch batch,
                                       struct yolk_transfer_explain *explain)
{
    struct yolk_transfer_explain unused;
    struct yolk_transfer_result result;

    assert_int_equal(yolk_transfer_wait(scene->transfer, batch, 20 * ENV_NS_PER_S), STATUS_OK);
    assert_int_equal(yolk_transfer_poll(scene->transfer, batch, 0, &result), STATUS_OK);
    assert_int_equal(
        yolk_transfer_explain(scene->transfer, batch, 0, explain != NULL ? explain : &unused),
        STATUS_OK);
    assert_int_equal(yolk_transfer_batch_free(scene->transfer, batch), STATUS_OK);
    return result;
}

/* Bytes of the other's device come to ours, and others go there. */
static void both_ways(struct scene *scene, uint64_t length, enum yolk_transfer_path path)
{
    struct yolk_transfer_explain explain;
    uint8_t *see = gpu_see(&gpu, scene->device);

    tell(scene, SHOW);
    memset(see, 0, SIZE);
    assert_int_equal(end(scene, begin(scene, YOLK_TRANSFER_READ, length), &explain).state,
                     YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(see, scene->notice->shown, length);
    assert_true(length == SIZE || see[length] == 0);
    assert_int_equal(explain.path, path);
    assert_int_equal(explain.staged_bytes, path == YOLK_TRANSFER_PATH_CUDA ? 0 : length);
    rng_fill(&scene->rng, see, (size_t)length);
    const uint8_t behind = length < SIZE ? scene->notice->shown[length] : 0;
    assert_int_equal(end(scene, begin(scene, YOLK_TRANSFER_WRITE, length), &explain).state,
                     YOLK_TRANSFER_COMPLETED);
    tell(scene, SHOW);
    assert_memory_equal(see, scene->notice->shown, length);
    if (length < SIZE) assert_int_equal(scene->notice->shown[length], behind);
    assert_int_equal(explain.path, path);
    assert_int_equal(explain.staged_bytes, path == YOLK_TRANSFER_PATH_CUDA ? 0 : length);
}

static const struct fake_cuda plain = { .polls = 2 };

static void devices_of_two_processes_exchange(void **state)
{
    (void)state;
    static const uint64_t lengths[] = { 1, 4097, (1 << 20) + 7, SIZE };
    struct scene scene;

    scene_open(&scene, plain, plain);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        both_ways(&scene, lengths[i], YOLK_TRANSFER_PATH_CUDA);
    assert_int_equal(gpu.fake->opened, 1); /* once, for all of them, and at the other end, too */
    assert_int_equal(gpu.fake->copies_in + gpu.fake->copies_out, 0);
    assert_int_equal(atomic_load(&scene.notice->opened), 1);
    scene_close(&scene);
}

/* By either driver, and whatever the bytes of the handle are. */
static void what_is_not_opened_is_staged(void **state)
{
    (void)state;
    const struct fake_cuda bad[] = {
        { .polls = 2, .refuse_export = true },
        { .polls = 2, .refuse_open = true },
        { .polls = 2, .lie_export = 1 },
        { .polls = 2, .lie_export = 2 },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct scene scene;
        struct yolk_transfer_explain explain;
        scene_open(&scene, bad[i], bad[i]);
        both_ways(&scene, (1 << 20) + 7, YOLK_TRANSFER_PATH_TCP);
        both_ways(&scene, SIZE, YOLK_TRANSFER_PATH_TCP);
        assert_int_equal(gpu.fake->open, 0);
        scene_close(&scene);
        /* A WRITE first, which only the other end finds out. */
        scene_open(&scene, bad[i], bad[i]);
        rng_fill(&scene.rng, gpu_see(&gpu, scene.device), SIZE);
        assert_int_equal(end(&scene, begin(&scene, YOLK_TRANSFER_WRITE, SIZE), &explain).state,
                         YOLK_TRANSFER_COMPLETED);
        assert_int_equal(explain.staged_bytes, SIZE);
        tell(&scene, SHOW);
        assert_memory_equal(gpu_see(&gpu, scene.device), scene.notice->shown, SIZE);
        scene_close(&scene);
    }
}

static void what_is_not_lent_is_refused(void **state)
{
    (void)state;
    struct scene scene;

    scene_open(&scene, plain, plain);
    const uint64_t at = atomic_load(&scene.notice->address);
    const struct {
        uint64_t remote, length;
        enum status read, write;
    } cases[] = {
        { at + SIZE - 10, 20, STATUS_NOT_FOUND, STATUS_NOT_FOUND },
        { at + SIZE - 10, SIZE, STATUS_NOT_FOUND, STATUS_NOT_FOUND },
        { 4096, SIZE, STATUS_NOT_FOUND, STATUS_NOT_FOUND },
        { UINT64_MAX - 5, 4096, STATUS_INVALID, STATUS_INVALID },
        { at, UINT64_MAX, STATUS_INVALID, STATUS_INVALID },
        { at, SIZE + 1, STATUS_NOT_FOUND, STATUS_NOT_FOUND }, /* beyond ours, too */
        { scene.notice->read_only, SMALL, STATUS_OK, STATUS_DENIED },
        { scene.notice->write_only, SMALL, STATUS_DENIED, STATUS_OK },
    };
    tell(&scene, SHOW);
    uint8_t *before = malloc(SIZE);
    assert_non_null(before);
    memcpy(before, scene.notice->shown, SIZE);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int opcode = 0; opcode < 2; opcode++) {
            struct yolk_transfer_explain explain;
            const enum status expected =
                opcode == YOLK_TRANSFER_READ ? cases[i].read : cases[i].write;
            const struct yolk_transfer_result result =
                end(&scene,
                    begin_at(&scene, (enum yolk_transfer_opcode)opcode, cases[i].remote,
                             cases[i].length, 0),
                    &explain);
            assert_int_equal(result.reason, expected);
            if (expected == STATUS_OK) assert_int_equal(explain.path, YOLK_TRANSFER_PATH_CUDA);
        }
    }
    tell(&scene, SHOW);
    assert_memory_equal(scene.notice->shown, before, SIZE);
    free(before);
    scene_close(&scene);
}

/* Its final state comes when its lease has passed, and what it does after that lands nothing. */
static void a_stopped_peer_lands_nothing_when_it_wakes(void **state)
{
    (void)state;
    struct scene scene;

    scene_open(&scene, plain, plain);
    assert_int_equal(end(&scene, begin(&scene, YOLK_TRANSFER_WRITE, 4096), NULL).state,
                     YOLK_TRANSFER_COMPLETED);
    tell(&scene, SHOW);
    memset(gpu_see(&gpu, scene.device), 0x77, SIZE);
    kill(scene.child, SIGSTOP);
    const struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE,
                                                   .local = scene.device,
                                                   .segment = scene.segment,
                                                   .remote = atomic_load(&scene.notice->address),
                                                   .length = SIZE,
                                                   .deadline_ns =
                                                       env_now_ns(scene.env) + 50 * ENV_NS_PER_MS };
    struct yolk_transfer_batch batch;
    assert_int_equal(yolk_transfer_batch_create(scene.transfer, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(scene.transfer, batch, &request, 1), STATUS_OK);
    assert_int_equal(end(&scene, batch, NULL).state, YOLK_TRANSFER_TIMEOUT);
    uint8_t *before = malloc(SIZE);
    assert_non_null(before);
    memcpy(before, scene.notice->shown, SIZE);
    kill(scene.child, SIGCONT);
    for (int i = 0; i < 100; i++)
        env_poll(scene.env, ENV_NS_PER_MS);
    tell(&scene, SHOW);
    assert_memory_equal(scene.notice->shown, before, SIZE);
    free(before);
    scene_close(&scene);
}

/* Until our device has begun. */
static void wait_begun(struct scene *scene)
{
    while (gpu.fake->pending == 0)
        env_poll(scene->env, ENV_NS_PER_MS);
}

static void what_is_withdrawn_is_not_read(void **state)
{
    (void)state;
    struct scene scene;

    scene_open(&scene, plain, plain);
    both_ways(&scene, 4096, YOLK_TRANSFER_PATH_CUDA);
    /* While our device reads it; the other's frees it, which our mapping outlives. */
    gpu.fake->polls = 1u << 30;
    const struct yolk_transfer_batch batch = begin(&scene, YOLK_TRANSFER_READ, SIZE);
    wait_begun(&scene);
    tell(&scene, RENEW);
    const bool elsewhere = atomic_load(&scene.notice->address) != 0;
    gpu.fake->hurry = true;
    const struct yolk_transfer_result result = end(&scene, batch, NULL);
    tell(&scene, SHOW);
    if (result.state == YOLK_TRANSFER_COMPLETED) { /* the same address again: then new bytes */
        assert_memory_equal(gpu_see(&gpu, scene.device), scene.notice->shown, SIZE);
    } else {
        assert_true(elsewhere && result.state == YOLK_TRANSFER_INVALID);
    }
    /* What nobody asks for any more is closed, too. */
    both_ways(&scene, 4096, YOLK_TRANSFER_PATH_CUDA);
    const uint64_t opened = gpu.fake->opened;
    tell(&scene, RENEW);
    while (gpu.fake->open > 0)
        env_poll(scene.env, 100 * ENV_NS_PER_MS);
    both_ways(&scene, 4096, YOLK_TRANSFER_PATH_CUDA);
    assert_int_equal(gpu.fake->opened, opened + 1);
    scene_close(&scene);
}

static void an_epoch_that_passes_is_noticed(void **state)
{
    (void)state;
    struct scene scene;

    scene_open(&scene, plain, plain);
    const uint64_t address = atomic_load(&scene.notice->address);
    assert_int_equal(
        end(&scene, begin_at(&scene, YOLK_TRANSFER_READ, address, SIZE, EPOCH), NULL).state,
        YOLK_TRANSFER_COMPLETED);
    gpu.fake->polls = 1u << 30;
    const struct yolk_transfer_batch batch =
        begin_at(&scene, YOLK_TRANSFER_READ, address, SIZE, EPOCH);
    wait_begun(&scene);
    tell(&scene, NEXT_EPOCH);
    gpu.fake->hurry = true;
    struct yolk_transfer_result result = end(&scene, batch, NULL);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_STALE);
    result = end(&scene, begin_at(&scene, YOLK_TRANSFER_WRITE, address, SIZE, EPOCH), NULL);
    assert_int_equal(result.reason, STATUS_STALE);
    scene_close(&scene);
}

/* While its device copies, which takes for ever, or while ours does. */
static void a_killed_peer_ends_its_tasks(void **state)
{
    (void)state;
    const struct fake_cuda endless = { .polls = 1u << 30 };

    for (int opcode = 0; opcode < 2; opcode++) {
        struct scene scene;
        scene_open(&scene, plain, endless);
        assert_int_equal(end(&scene, begin(&scene, YOLK_TRANSFER_READ, 4096), NULL).state,
                         YOLK_TRANSFER_COMPLETED);
        gpu.fake->polls = 1u << 30;
        const struct yolk_transfer_batch batch =
            begin(&scene, (enum yolk_transfer_opcode)opcode, SIZE);
        if (opcode == YOLK_TRANSFER_READ) wait_begun(&scene);
        while (opcode == YOLK_TRANSFER_WRITE && atomic_load(&scene.notice->opened) == 0)
            env_poll(scene.env, ENV_NS_PER_MS);
        kill(scene.child, SIGKILL);
        for (int i = 0; i < 20; i++)
            env_poll(scene.env, ENV_NS_PER_MS);
        gpu.fake->hurry = true;
        const struct yolk_transfer_result result = end(&scene, batch, NULL);
        /* Its memory lives as long as our mapping: those bytes are good. */
        assert_int_equal(result.state, opcode == YOLK_TRANSFER_READ ? YOLK_TRANSFER_COMPLETED
                                                                    : YOLK_TRANSFER_FAILED);
        while (gpu.fake->open > 0)
            env_poll(scene.env, 100 * ENV_NS_PER_MS);
        scene_close(&scene);
    }
}

static void a_cancelled_read_waits_for_the_device(void **state)
{
    (void)state;
    struct yolk_transfer_result result;
    struct scene scene;

    scene_open(&scene, (struct fake_cuda){ .polls = 1u << 30 }, plain);
    const struct yolk_transfer_batch batch = begin(&scene, YOLK_TRANSFER_READ, SIZE);
    wait_begun(&scene);
    assert_int_equal(yolk_transfer_cancel(scene.transfer, batch, 0), STATUS_OK);
    for (int i = 0; i < 20; i++)
        env_poll(scene.env, ENV_NS_PER_MS);
    assert_int_equal(yolk_transfer_poll(scene.transfer, batch, 0, &result), STATUS_OK);
    assert_true(result.state <= YOLK_TRANSFER_PENDING);
    gpu.fake->hurry = true;
    result = end(&scene, batch, NULL);
    assert_true(result.state == YOLK_TRANSFER_CANCELED || result.state == YOLK_TRANSFER_COMPLETED);
    /* And with copies under way and waiting in both engines they end. */
    gpu.fake->hurry = false;
    begin(&scene, YOLK_TRANSFER_READ, SIZE);
    begin(&scene, YOLK_TRANSFER_WRITE, SIZE);
    wait_begun(&scene);
    scene_close(&scene);
}

/* By the driver's own functions. */
static void handles_are_judged(void **state)
{
    (void)state;
    uint8_t handle[CUDA_IPC_SIZE], garbage[CUDA_IPC_SIZE];
    uint64_t offset = 0, base = 0;

    *gpu.fake = (struct fake_cuda){ .own_handles = true };
    uint8_t *memory = gpu_alloc(&gpu, 0, SMALL);
    const uint64_t at = (uintptr_t)memory;
    struct cuda_device *device = gpu.devices[0];
    assert_int_equal(cuda_ipc_export(device, at + 4096, SMALL - 4096, handle, &offset), STATUS_OK);
    assert_int_equal(offset, 4096);
    assert_int_equal(cuda_ipc_export(device, at + 4096, SMALL, garbage, &offset),
                     STATUS_UNSUPPORTED); /* beyond the allocation */
    memset(garbage, 0xa5, sizeof(garbage));
    assert_int_equal(cuda_ipc_open(device, garbage, 0, 1, &base), STATUS_UNSUPPORTED);
    static const uint64_t beyond[][2] = { { 0, SMALL + 1 },  { 4096, SMALL - 4095 },
                                          { SMALL, 1 },      { UINT64_MAX - 1, 1 },
                                          { UINT64_MAX, 1 }, { 0, UINT64_MAX } };
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        assert_int_equal(cuda_ipc_open(device, handle, beyond[i][0], beyond[i][1], &base),
                         STATUS_INVALID);
        assert_int_equal(gpu.fake->open, 0);
    }
    assert_int_equal(cuda_ipc_open(device, handle, 4096, SMALL - 4096, &base), STATUS_OK);
    assert_int_equal(gpu.fake->open, 1);
    cuda_ipc_close(device, base);
    gpu_free(&gpu, 0, memory);
    assert_int_equal(cuda_ipc_open(device, handle, 0, 1, &base), STATUS_UNSUPPORTED); /* stale */
    assert_int_equal(gpu.fake->open, 0);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (!gpu_open(&gpu, FAKE_CUDA)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handles_are_judged),
        cmocka_unit_test(devices_of_two_processes_exchange),
        cmocka_unit_test(what_is_not_opened_is_staged),
        cmocka_unit_test(what_is_not_lent_is_refused),
        cmocka_unit_test(a_stopped_peer_lands_nothing_when_it_wakes),
        cmocka_unit_test(what_is_withdrawn_is_not_read),
        cmocka_unit_test(an_epoch_that_passes_is_noticed),
        cmocka_unit_test(a_killed_peer_ends_its_tasks),
        cmocka_unit_test(a_cancelled_read_waits_for_the_device),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < GPU_DEVICES; i++)
        cuda_device_close(gpu.devices[i]);
    return failed;
}
