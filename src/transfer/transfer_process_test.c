/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_process_test.c
 *
 * Goal:   between real processes shared memory is found and used, and a target that is stopped or
 *         killed in the middle ends every task in bounded time, after which nothing lands.
 * Method: the target is a forked child whose memory the test also sees through READs over tcp. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
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

#define CHECK(condition) assert_true(condition)

enum { MEMORY = 32 << 20, FENCE_MS = 1000 };

/* What the child tells. */
struct notice {
    _Atomic bool ready;
    char name[YOLK_TRANSFER_NAME_SIZE];
    uint64_t address;
};

struct scene {
    struct notice *notice;
    pid_t child;
    struct env *env;
    struct yolk_transfer *shm, *tcp; /* two initiators, with and without shared memory */
    struct yolk_transfer_segment shm_segment, tcp_segment;
    uint8_t *shm_memory, *tcp_memory;
};

static _Noreturn void target_main(struct notice *notice)
{
    struct env *env;
    struct yolk_transfer *transfer;
    void *memory;
    const struct yolk_transfer_options options = { .fence_ms = FENCE_MS };

    alarm(60); /* never outlives a test that went wrong */
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) _exit(1);
    if (yolk_transfer_create(env, &options, &transfer, NULL) != STATUS_OK) _exit(2);
    if (yolk_transfer_alloc(transfer, MEMORY, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL) !=
        STATUS_OK) {
        _exit(3);
    }
    memset(memory, 0x33, MEMORY);
    memcpy(notice->name, yolk_transfer_name(transfer), sizeof(notice->name));
    notice->address = (uintptr_t)memory;
    atomic_store(&notice->ready, true);
    env_run(env);
    _exit(0);
}

static void initiator_open(struct scene *scene, bool shm, struct yolk_transfer **transfer,
                           struct yolk_transfer_segment *segment, uint8_t **memory)
{
    void *data;
    const struct yolk_transfer_options options = { .fence_ms = FENCE_MS, .forbid_shm = !shm };

    CHECK(yolk_transfer_create(scene->env, &options, transfer, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(*transfer, MEMORY, 0, &data, NULL) == STATUS_OK);
    CHECK(yolk_transfer_open(*transfer, scene->notice->name, segment) == STATUS_OK);
    *memory = data;
}

static void scene_open(struct scene *scene)
{
    scene->notice = mmap(NULL, sizeof(*scene->notice), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(scene->notice != MAP_FAILED);
    scene->child = fork();
    CHECK(scene->child >= 0);
    if (scene->child == 0) target_main(scene->notice);
    for (int i = 0; i < 60000 && !atomic_load(&scene->notice->ready); i++) {
        env_real_sleep_ns(ENV_NS_PER_MS);
    }
    CHECK(atomic_load(&scene->notice->ready));
    CHECK(env_real_create(NULL, &scene->env, NULL) == STATUS_OK);
    initiator_open(scene, true, &scene->shm, &scene->shm_segment, &scene->shm_memory);
    initiator_open(scene, false, &scene->tcp, &scene->tcp_segment, &scene->tcp_memory);
}

static void scene_close(struct scene *scene)
{
    yolk_transfer_destroy(scene->shm);
    yolk_transfer_destroy(scene->tcp);
    env_real_destroy(scene->env);
    kill(scene->child, SIGKILL);
    CHECK(waitpid(scene->child, NULL, 0) == scene->child);
    munmap(scene->notice, sizeof(*scene->notice));
}

static struct yolk_transfer_request request(const struct scene *scene, bool shm,
                                            enum yolk_transfer_opcode opcode, uint64_t length)
{
    return (struct yolk_transfer_request){ .opcode = opcode,
                                           .local = shm ? scene->shm_memory : scene->tcp_memory,
                                           .segment = shm ? scene->shm_segment : scene->tcp_segment,
                                           .remote = scene->notice->address,
                                           .length = length };
}

static struct yolk_transfer_batch begin(struct yolk_transfer *transfer,
                                        const struct yolk_transfer_request *req)
{
    struct yolk_transfer_batch batch;

    CHECK(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(transfer, batch, req, 1) == STATUS_OK);
    return batch;
}

static struct yolk_transfer_result
end(struct yolk_transfer *transfer, struct yolk_transfer_batch batch, enum yolk_transfer_path *path)
{
    struct yolk_transfer_result result;
    struct yolk_transfer_explain explain;

    CHECK(yolk_transfer_wait(transfer, batch, 120 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(transfer, batch, 0, &result) == STATUS_OK);
    CHECK(yolk_transfer_explain(transfer, batch, 0, &explain) == STATUS_OK);
    if (path != NULL) *path = explain.path;
    CHECK(yolk_transfer_batch_free(transfer, batch) == STATUS_OK);
    return result;
}

static void processes_share_memory(void **state)
{
    (void)state;
    struct scene scene;
    enum yolk_transfer_path path;

    scene_open(&scene);
    struct yolk_transfer_request req = request(&scene, true, YOLK_TRANSFER_READ, MEMORY);
    assert_int_equal(end(scene.shm, begin(scene.shm, &req), &path).state, YOLK_TRANSFER_COMPLETED);
    assert_int_equal(path, YOLK_TRANSFER_PATH_SHM);
    for (size_t i = 0; i < MEMORY; i++)
        CHECK(scene.shm_memory[i] == 0x33);
    for (size_t i = 0; i < MEMORY; i++)
        scene.shm_memory[i] = (uint8_t)(i * 7 + i / 4099);
    req.opcode = YOLK_TRANSFER_WRITE;
    assert_int_equal(end(scene.shm, begin(scene.shm, &req), &path).state, YOLK_TRANSFER_COMPLETED);
    assert_int_equal(path, YOLK_TRANSFER_PATH_SHM);
    req = request(&scene, false, YOLK_TRANSFER_READ, MEMORY);
    assert_int_equal(end(scene.tcp, begin(scene.tcp, &req), &path).state, YOLK_TRANSFER_COMPLETED);
    assert_int_equal(path, YOLK_TRANSFER_PATH_TCP);
    CHECK(memcmp(scene.shm_memory, scene.tcp_memory, MEMORY) == 0);
    scene_close(&scene);
}

/* Reads the target's memory back and says whether any byte is `value`. */
static bool target_has(struct scene *scene, uint8_t value)
{
    const struct yolk_transfer_request req = request(scene, false, YOLK_TRANSFER_READ, MEMORY);

    assert_int_equal(end(scene->tcp, begin(scene->tcp, &req), NULL).state, YOLK_TRANSFER_COMPLETED);
    return memchr(scene->tcp_memory, value, MEMORY) != NULL;
}

static void stop_in_the_middle(bool shm)
{
    struct scene scene;

    scene_open(&scene);
    struct yolk_transfer *transfer = shm ? scene.shm : scene.tcp;
    struct yolk_transfer_request req = request(&scene, shm, YOLK_TRANSFER_WRITE, MEMORY);
    req.length = 4096;
    CHECK(end(transfer, begin(transfer, &req), NULL).state == YOLK_TRANSFER_COMPLETED);
    memset(req.local, 0x77, MEMORY);
    req.length = MEMORY;
    kill(scene.child, SIGSTOP);
    req.deadline_ns = env_now_ns(scene.env) + 100 * ENV_NS_PER_MS;
    const struct yolk_transfer_batch batch = begin(transfer, &req);
    const uint64_t before = env_now_ns(scene.env);
    assert_int_equal(end(transfer, batch, NULL).state, YOLK_TRANSFER_TIMEOUT);
    const uint64_t took = env_now_ns(scene.env) - before;
    CHECK(took < 60 * ENV_NS_PER_S); /* a busy machine is late, but it is not for ever */
    kill(scene.child, SIGCONT);
    for (int i = 0; i < 200; i++)
        env_poll(scene.env, ENV_NS_PER_MS);
    CHECK(!target_has(&scene, 0x77));
    scene_close(&scene);
}

/* What a stopped target has been asked for does not come when it wakes. */
static void a_read_that_is_late_lands_nothing(void **state)
{
    (void)state;
    struct scene scene;

    scene_open(&scene);
    struct yolk_transfer_request req = request(&scene, false, YOLK_TRANSFER_READ, 4096);
    CHECK(end(scene.tcp, begin(scene.tcp, &req), NULL).state == YOLK_TRANSFER_COMPLETED);
    kill(scene.child, SIGSTOP);
    req.length = MEMORY;
    req.deadline_ns = env_now_ns(scene.env) + 50 * ENV_NS_PER_MS;
    assert_int_equal(end(scene.tcp, begin(scene.tcp, &req), NULL).state, YOLK_TRANSFER_TIMEOUT);
    memset(scene.tcp_memory, 0x55, MEMORY);
    kill(scene.child, SIGCONT);
    for (int i = 0; i < 200; i++)
        env_poll(scene.env, ENV_NS_PER_MS);
    CHECK(memchr(scene.tcp_memory, 0x33, MEMORY) == NULL);
    scene_close(&scene);
}

static void a_stopped_target_is_fenced_by_its_lease(void **state)
{
    (void)state;
    stop_in_the_middle(false);
    stop_in_the_middle(true);
}

static void a_killed_target_ends_its_tasks(void **state)
{
    (void)state;
    for (int shm = 0; shm <= 1; shm++) {
        struct scene scene;
        scene_open(&scene);
        struct yolk_transfer *transfer = shm ? scene.shm : scene.tcp;
        struct yolk_transfer_request req = request(&scene, shm, YOLK_TRANSFER_WRITE, MEMORY);
        CHECK(end(transfer, begin(transfer, &req), NULL).state == YOLK_TRANSFER_COMPLETED);
        const struct yolk_transfer_batch batch = begin(transfer, &req);
        kill(scene.child, SIGKILL);
        const uint64_t before = env_now_ns(scene.env);
        const struct yolk_transfer_result result = end(transfer, batch, NULL);
        CHECK(result.state == YOLK_TRANSFER_FAILED);
        CHECK(env_now_ns(scene.env) - before < 30 * ENV_NS_PER_S);
        scene_close(&scene);
    }
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_share_memory),
        cmocka_unit_test(a_read_that_is_late_lands_nothing),
        cmocka_unit_test(a_stopped_target_is_fenced_by_its_lease),
        cmocka_unit_test(a_killed_target_ends_its_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
