/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_fabric_test.c
 *
 * Goal:   through libfabric the engine keeps its promises: the protocol named is obeyed or refused,
 *         what is read and written is what a naive model says, what is not allowed touches nothing,
 *         and after a final state, a withdrawn registration or a new epoch no byte lands, in the
 *         target or here, whoever was stopped or killed in the middle.
 * Method: the target is a forked child, whose memory both see and which does what it is told, over
 *         libfabric's providers for tcp and shared memory. (Two ends in one process share what the
 *         shm provider maps, and one crashes when the other closes.) Without the library the tests
 *         are skipped, and fail where CI=true. */
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
#include "base/rng.h"
#include "seed.h"

#define CHECK(condition) assert_true(condition)

enum { PROVIDERS = 2, FENCE_MS = 1500, PART = 512 << 10, PARTS = 4, MEMORY = PART * PARTS };
enum { LIMIT_S = 20, SLICE = 64 << 10, FABRIC_SLICE = 4 * SLICE };
#ifdef YOLK_EXPENSIVE_ASSERTS
enum { STEPS = 40 }; /* sanitizers take their time */
#else
enum { STEPS = 80 };
#endif

static const char *const protocols[PROVIDERS] = { "fabric:tcp;ofi_rxm", "fabric:shm" };

static struct yolk_transfer_options options_of(const char *protocol)
{
    return (struct yolk_transfer_options){
        .protocol = protocol, .forbid_shm = true, .fence_ms = FENCE_MS, .slice_size = SLICE
    };
}

/* ---- the target ---- */

enum command { NOTHING, NEXT_EPOCH, TOGGLE, STOP };

enum { MARK = 0xee };

struct child {
    pid_t pid;
    uint8_t *memory; /* seen by both */
    struct notice {
        _Atomic bool ready;
        char name[YOLK_TRANSFER_NAME_SIZE];
        _Atomic enum command command; /* NOTHING: done */
        bool mark;                    /* and fill with MARK what was taken back, there and then */
        uint32_t part;
        uint64_t epoch;
        bool registered[PARTS];
    } * notice;
};

static struct child children[PROVIDERS];

static void part_toggle(const struct child *child, struct yolk_transfer *transfer, uint32_t part)
{
    struct notice *notice = child->notice;
    uint8_t *at = child->memory + (size_t)part * PART;
    const enum status status =
        notice->registered[part]
            ? yolk_transfer_unregister(transfer, at)
            : yolk_transfer_register(transfer, at, PART, NULL, YOLK_TRANSFER_REMOTE_ALL);

    if (status != STATUS_OK) _exit(4);
    if (notice->registered[part] && notice->mark) memset(at, MARK, PART);
    notice->registered[part] = !notice->registered[part];
}

static void child_obey(const struct child *child, struct yolk_transfer *transfer)
{
    struct notice *notice = child->notice;

    switch (atomic_load(&notice->command)) {
    case NOTHING: return;
    case NEXT_EPOCH:
        if (yolk_transfer_set_epoch(transfer, ++notice->epoch) != STATUS_OK) _exit(5);
        if (notice->mark) memset(child->memory, MARK, MEMORY);
        break;
    case TOGGLE: part_toggle(child, transfer, notice->part); break;
    case STOP: /* not inside a call of libfabric, see I4 */
        atomic_store(&notice->command, NOTHING);
        (void)raise(SIGSTOP);
        return;
    }
    atomic_store(&notice->command, NOTHING);
}

static _Noreturn void child_main(const struct child *child, const char *protocol)
{
    const struct yolk_transfer_options options = options_of(protocol);
    struct yolk_transfer *transfer;
    struct env *env;

    alarm(100); /* never outlives a test that went wrong */
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) _exit(1);
    if (yolk_transfer_create(env, &options, &transfer, NULL) != STATUS_OK) _exit(2);
    child->notice->epoch = 1;
    for (uint32_t part = 0; part < PARTS; part++)
        part_toggle(child, transfer, part);
    memcpy(child->notice->name, yolk_transfer_name(transfer), sizeof(child->notice->name));
    atomic_store(&child->notice->ready, true);
    for (;;) {
        env_poll(env, ENV_NS_PER_MS);
        child_obey(child, transfer);
    }
}

/* Before the library is loaded here: what it has in a process is not for its children. */
static int children_open(void **state)
{
    (void)state;
    for (int i = 0; i < PROVIDERS; i++) {
        struct child *child = &children[i];
        child->memory =
            mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        child->notice = mmap(NULL, sizeof(*child->notice), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (child->memory == MAP_FAILED || child->notice == MAP_FAILED) return -1;
        child->pid = fork();
        if (child->pid < 0) return -1;
        if (child->pid == 0) child_main(child, protocols[i]);
    }
    return 0;
}

static int children_close(void **state)
{
    (void)state;
    for (int i = 0; i < PROVIDERS; i++) {
        if (children[i].pid > 0) {
            kill(children[i].pid, SIGKILL);
            waitpid(children[i].pid, NULL, 0);
        }
    }
    return 0;
}

/* ---- the initiator ---- */

struct pair {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    uint8_t *here, *there;
    struct notice *notice;
};

static void initiator_open(struct pair *pair, const char *protocol, uint32_t lanes)
{
    struct yolk_transfer_options options = options_of(protocol);
    struct errmsg err = { "" };
    void *memory;

    options.lanes_per_peer = lanes;
    CHECK(env_real_create(NULL, &pair->env, NULL) == STATUS_OK);
    const enum status status = yolk_transfer_create(pair->env, &options, &pair->transfer, &err);
    if (status != STATUS_OK) fail_msg("%s: %s", protocol, err.text);
    CHECK(posix_memalign(&memory, 4096, MEMORY) == 0);
    pair->here = memory;
    memset(memory, 0, MEMORY);
    for (int i = 0; i < PARTS; i++) {
        CHECK(yolk_transfer_register(pair->transfer, pair->here + i * PART, PART, NULL, 0) ==
              STATUS_OK);
    }
}

static void pair_open(struct pair *pair, const char *protocol, const struct child *child,
                      uint32_t lanes)
{
    for (int i = 0; i < 20000 && !atomic_load(&child->notice->ready); i++)
        env_real_sleep_ns(ENV_NS_PER_MS);
    CHECK(atomic_load(&child->notice->ready));
    initiator_open(pair, protocol, lanes);
    pair->there = child->memory;
    pair->notice = child->notice;
    CHECK(yolk_transfer_open(pair->transfer, child->notice->name, &pair->segment) == STATUS_OK);
}

static void pair_close(struct pair *pair)
{
    yolk_transfer_destroy(pair->transfer);
    env_real_destroy(pair->env);
    free(pair->here);
}

/* The loop goes on meanwhile. */
static void tell(struct pair *pair, enum command command, uint32_t part, bool mark)
{
    const uint64_t end_ns = env_now_ns(pair->env) + LIMIT_S * ENV_NS_PER_S;

    pair->notice->part = part;
    pair->notice->mark = mark;
    atomic_store(&pair->notice->command, command);
    while (atomic_load(&pair->notice->command) != NOTHING) {
        CHECK(env_now_ns(pair->env) < end_ns);
        env_poll(pair->env, ENV_NS_PER_MS / 10);
    }
}

static struct yolk_transfer_request request(const struct pair *pair,
                                            enum yolk_transfer_opcode opcode, size_t here,
                                            size_t there, size_t length)
{
    return (struct yolk_transfer_request){ .opcode = opcode,
                                           .local = pair->here + here,
                                           .segment = pair->segment,
                                           .remote = (uintptr_t)pair->there + there,
                                           .length = length };
}

static struct yolk_transfer_batch
submit(struct yolk_transfer *transfer, const struct yolk_transfer_request *requests, uint32_t count)
{
    struct yolk_transfer_batch batch;

    CHECK(yolk_transfer_batch_create(transfer, count, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(transfer, batch, requests, count) == STATUS_OK);
    return batch;
}

static struct yolk_transfer_result result_of(struct yolk_transfer *transfer,
                                             struct yolk_transfer_batch batch, uint32_t task)
{
    struct yolk_transfer_result result;

    CHECK(yolk_transfer_poll(transfer, batch, task, &result) == STATUS_OK);
    return result;
}

static void finish(struct yolk_transfer *transfer, struct yolk_transfer_batch batch)
{
    CHECK(yolk_transfer_wait(transfer, batch, LIMIT_S * ENV_NS_PER_S) == STATUS_OK);
}

/* One request from beginning to end. */
static struct yolk_transfer_result run(struct pair *pair, struct yolk_transfer_request req,
                                       enum yolk_transfer_path *path)
{
    struct yolk_transfer_explain explain;
    const struct yolk_transfer_batch batch = submit(pair->transfer, &req, 1);

    finish(pair->transfer, batch);
    const struct yolk_transfer_result result = result_of(pair->transfer, batch, 0);
    CHECK(yolk_transfer_explain(pair->transfer, batch, 0, &explain) == STATUS_OK);
    if (path != NULL) *path = explain.path;
    if (explain.path == YOLK_TRANSFER_PATH_FABRIC) { /* not cut more often than it should be */
        CHECK(explain.slices <= req.length / FABRIC_SLICE + 1 + explain.retries);
    }
    CHECK(yolk_transfer_batch_free(pair->transfer, batch) == STATUS_OK);
    return result;
}

static void turn_for(struct env *env, uint64_t ns)
{
    const uint64_t end_ns = env_now_ns(env) + ns;

    while (env_now_ns(env) < end_ns)
        env_poll(env, ENV_NS_PER_MS);
}

/* ---- names ---- */

/* Ours is never swapped; but whoever names tcp is served by one that names a fabric. */
static void a_peer_without_it_is_refused(void)
{
    struct pair pair, other;
    struct yolk_transfer_request req;

    initiator_open(&pair, protocols[0], 2);
    initiator_open(&other, "tcp", 2);
    pair.there = other.here;
    CHECK(yolk_transfer_open(pair.transfer, yolk_transfer_name(other.transfer), &pair.segment) ==
          STATUS_OK);
    req = request(&pair, YOLK_TRANSFER_READ, 0, 0, 4096);
    const struct yolk_transfer_batch batch = submit(pair.transfer, &req, 1);
    while (result_of(pair.transfer, batch, 0).reason == STATUS_PENDING) {
        env_poll(pair.env, ENV_NS_PER_MS / 10);
        env_poll(other.env, ENV_NS_PER_MS / 10);
    }
    CHECK(result_of(pair.transfer, batch, 0).reason == STATUS_UNSUPPORTED);
    pair_close(&other);
    pair_close(&pair);
    pair_open(&pair, "tcp", &children[0], 2);
    CHECK(run(&pair, request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 4096), NULL).reason == STATUS_OK);
    pair_close(&pair);
}

static void a_protocol_is_obeyed_or_refused(void **state)
{
    (void)state;
    struct yolk_transfer_options options = { .protocol = "rdma" };
    struct yolk_transfer *transfer = NULL;
    struct errmsg err = { "" };
    struct env *env;
    struct pair pair;

    CHECK(env_real_create(NULL, &env, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(env, &options, &transfer, &err) == STATUS_INVALID);
    options.protocol = "fabric:";
    CHECK(yolk_transfer_create(env, &options, &transfer, &err) == STATUS_INVALID);
    options.protocol = "fabric:nosuch";
    CHECK(yolk_transfer_create(env, &options, &transfer, &err) == STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "nosuch"));
    env_real_destroy(env);

    pair_open(&pair, protocols[0], &children[1], 2); /* a peer that has another provider */
    const struct yolk_transfer_result result =
        run(&pair, request(&pair, YOLK_TRANSFER_WRITE, 0, 0, 4096), NULL);
    CHECK(result.state == YOLK_TRANSFER_FAILED && result.reason == STATUS_UNSUPPORTED);
    pair_close(&pair);
    a_peer_without_it_is_refused();
}

/* ---- the walk ---- */

struct model {
    uint8_t here[MEMORY], there[MEMORY];
    const struct notice *notice; /* what the target has registered, and its epoch */
};

static enum status model_run(struct model *model, const struct yolk_transfer_request *req,
                             size_t here, size_t there)
{
    const size_t length = req->length, part = there / PART;

    if (here / PART != (here + length - 1) / PART) return STATUS_NOT_FOUND;
    if (req->epoch != 0 && req->epoch != model->notice->epoch) return STATUS_STALE;
    if (!model->notice->registered[part]) return STATUS_NOT_FOUND;
    if (there + length > (part + 1) * PART) return STATUS_NOT_FOUND;
    if (req->opcode == YOLK_TRANSFER_READ) {
        memcpy(model->here + here, model->there + there, length);
    } else {
        memcpy(model->there + there, model->here + here, length);
    }
    return STATUS_OK;
}

static void walk_change(struct pair *pair, struct rng *rng)
{
    const uint32_t part = (uint32_t)rng_below(rng, PARTS);
    uint8_t *ours = pair->here + (size_t)part * PART;

    switch (rng_below(rng, 3)) {
    case 0: tell(pair, NEXT_EPOCH, 0, false); break;
    case 1: tell(pair, TOGGLE, part, false); break;
    default: /* ours is another one at the same place */
        CHECK(yolk_transfer_unregister(pair->transfer, ours) == STATUS_OK);
        CHECK(yolk_transfer_register(pair->transfer, ours, PART, NULL, 0) == STATUS_OK);
    }
}

static void walk_step(struct pair *pair, struct model *model, struct rng *rng)
{
    static const size_t lengths[] = { 1, 100, 4096, 64 << 10, 200000, 400000 };
    const enum yolk_transfer_opcode opcode =
        rng_below(rng, 2) == 0 ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE;
    const size_t length = lengths[rng_below(rng, 6)];
    const size_t here = rng_below(rng, MEMORY - length), there = rng_below(rng, MEMORY - length);
    struct yolk_transfer_request req = request(pair, opcode, here, there, length);
    enum yolk_transfer_path path;

    if (rng_below(rng, 4) == 0) req.epoch = pair->notice->epoch + rng_below(rng, 2);
    const enum status expected = model_run(model, &req, here, there);
    const struct yolk_transfer_result result = run(pair, req, &path);
    if (result.reason != expected) {
        fail_msg("%s of %zu to %zu: %s, not %s", opcode == YOLK_TRANSFER_READ ? "read" : "write",
                 length, there, status_name(result.reason), status_name(expected));
    }
    if (expected == STATUS_OK) CHECK(path == YOLK_TRANSFER_PATH_FABRIC);
    CHECK(memcmp(pair->here, model->here, MEMORY) == 0);
    CHECK(memcmp(pair->there, model->there, MEMORY) == 0);
}

static void walks_as_the_model_says(void **state)
{
    static struct model model;
    const int provider = (int)(intptr_t)*state;
    struct pair pair;
    struct rng rng;

    rng_init(&rng, test_seed());
    pair_open(&pair, protocols[provider], &children[provider], 2);
    model.notice = pair.notice;
    for (size_t i = 0; i < MEMORY; i++) {
        pair.here[i] = model.here[i] = (uint8_t)(i * 7 + i / 251);
        pair.there[i] = model.there[i] = (uint8_t)(i * 13 + i / 241);
    }
    for (int i = 0; i < STEPS; i++) {
        if (rng_below(&rng, 10) == 0) walk_change(&pair, &rng);
        walk_step(&pair, &model, &rng);
    }
    for (uint32_t part = 0; part < PARTS; part++) {
        if (!pair.notice->registered[part]) tell(&pair, TOGGLE, part, false);
    }
    pair_close(&pair);
}

/* ---- nothing lands any more ---- */

static void still_marked(const uint8_t *memory, size_t len)
{
    if (memory[0] != MARK || memcmp(memory, memory + 1, len - 1) != 0) {
        fail_msg("something landed too late");
    }
}

/* Fills the range with a mark, lets everything go on for a while, and looks for what landed. */
static void nothing_lands(struct env *env, uint8_t *memory, size_t len)
{
    memset(memory, MARK, len);
    turn_for(env, 4 * ENV_NS_PER_MS);
    still_marked(memory, len);
}

/* One request for each part, all at once, and a few turns of the loop. */
static struct yolk_transfer_batch begin_all(struct pair *pair, enum yolk_transfer_opcode opcode,
                                            uint64_t epoch, uint64_t deadline_ns, uint64_t turns)
{
    struct yolk_transfer_request requests[PARTS];

    memset(opcode == YOLK_TRANSFER_READ ? pair->there : pair->here, 0x11, MEMORY);
    for (size_t i = 0; i < PARTS; i++) {
        requests[i] = request(pair, opcode, i * PART, i * PART, PART);
        requests[i].epoch = epoch;
        requests[i].deadline_ns = deadline_ns;
    }
    const struct yolk_transfer_batch batch = submit(pair->transfer, requests, PARTS);
    for (uint64_t i = 0; i < turns; i++)
        env_poll(pair->env, ENV_NS_PER_MS / 10);
    return batch;
}

static void nothing_lands_after_a_final_state(void **state)
{
    const int provider = (int)(intptr_t)*state;
    uint64_t cut = 0;
    struct pair pair;
    struct rng rng;

    rng_init(&rng, test_seed());
    pair_open(&pair, protocols[provider], &children[provider], 2);
    for (int i = 0; i < 24; i++) {
        const enum yolk_transfer_opcode opcode =
            i % 2 == 0 ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE;
        const bool late = rng_below(&rng, 2) == 0;
        const uint64_t deadline_ns =
            late ? env_now_ns(pair.env) + rng_below(&rng, 2 * ENV_NS_PER_MS) + 1 : 0;
        const struct yolk_transfer_batch batch =
            begin_all(&pair, opcode, 0, deadline_ns, rng_below(&rng, 30));
        if (!late) (void)yolk_transfer_cancel_batch(pair.transfer, batch);
        finish(pair.transfer, batch);
        for (uint32_t task = 0; task < PARTS; task++) {
            const enum yolk_transfer_state end = result_of(pair.transfer, batch, task).state;
            CHECK(end == YOLK_TRANSFER_COMPLETED || end == YOLK_TRANSFER_CANCELED ||
                  end == YOLK_TRANSFER_TIMEOUT);
            if (end != YOLK_TRANSFER_COMPLETED) cut++;
        }
        nothing_lands(pair.env, opcode == YOLK_TRANSFER_READ ? pair.here : pair.there, MEMORY);
        CHECK(yolk_transfer_batch_free(pair.transfer, batch) == STATUS_OK);
    }
    CHECK(cut > 0);
    pair_close(&pair);
}

/* The target takes back and marks in one go; what is marked must stay so. */
static void nothing_lands_in_what_was_taken_back(void **state)
{
    const int provider = (int)(intptr_t)*state;
    struct pair pair;
    struct rng rng;

    rng_init(&rng, test_seed() + 1);
    pair_open(&pair, protocols[provider], &children[provider], 2);
    for (int i = 0; i < 12; i++) {
        const uint32_t part = (uint32_t)rng_below(&rng, PARTS);
        const bool all = i % 2 == 0;
        const uint8_t *from = pair.there + (all ? 0 : (size_t)part * PART);
        const struct yolk_transfer_batch batch = begin_all(
            &pair, YOLK_TRANSFER_WRITE, all ? pair.notice->epoch : 0, 0, 1 + rng_below(&rng, 30));
        tell(&pair, all ? NEXT_EPOCH : TOGGLE, part, true);
        turn_for(pair.env, 4 * ENV_NS_PER_MS);
        still_marked(from, all ? MEMORY : PART);
        finish(pair.transfer, batch);
        still_marked(from, all ? MEMORY : PART);
        CHECK(yolk_transfer_batch_free(pair.transfer, batch) == STATUS_OK);
        if (!all) tell(&pair, TOGGLE, part, false);
    }
    pair_close(&pair);
}

/* More was given to libfabric than has arrived. */
static bool lost_some(struct pair *pair, struct yolk_transfer_batch batch)
{
    struct yolk_transfer_explain explain;
    bool lost = false;

    for (uint32_t task = 0; task < PARTS; task++) {
        CHECK(yolk_transfer_explain(pair->transfer, batch, task, &explain) == STATUS_OK);
        lost = lost || (uint64_t)explain.slices * FABRIC_SLICE > explain.bytes;
    }
    return lost;
}

static void target_is_stopped_and_killed(void **state)
{
    const int provider = (int)(intptr_t)*state;
    struct child *child = &children[provider];
    struct pair pair;

    pair_open(&pair, protocols[provider], child, 1);
    struct yolk_transfer_batch batch =
        begin_all(&pair, YOLK_TRANSFER_WRITE, 0, env_now_ns(pair.env) + 5 * ENV_NS_PER_S, 0);
    finish(pair.transfer, batch);
    CHECK(result_of(pair.transfer, batch, 0).state == YOLK_TRANSFER_COMPLETED);
    CHECK(memcmp(child->memory, pair.here, MEMORY) == 0);

    for (int stop = 1; stop >= 0; stop--) {
        batch =
            begin_all(&pair, YOLK_TRANSFER_WRITE, 0, env_now_ns(pair.env) + 100 * ENV_NS_PER_MS, 2);
        if (stop) {
            tell(&pair, STOP, 0, false);
            CHECK(waitpid(child->pid, NULL, WUNTRACED) == child->pid);
        } else {
            kill(child->pid, SIGKILL);
        }
        const uint64_t start_ns = env_now_ns(pair.env);
        finish(pair.transfer, batch);
        /* Who is stopped can confirm nothing: what it was given is over with its lease. */
        if (stop && lost_some(&pair, batch)) {
            CHECK(env_now_ns(pair.env) - start_ns >= FENCE_MS * ENV_NS_PER_MS);
        }
        memset(child->memory, MARK, MEMORY);
        if (stop) kill(child->pid, SIGCONT);
        turn_for(pair.env, 50 * ENV_NS_PER_MS);
        still_marked(child->memory, MEMORY);
    }
    CHECK(waitpid(child->pid, NULL, 0) == child->pid);
    child->pid = 0;
    pair_close(&pair);
}

/* Asked in a process of its own; see children_open(). */
static bool available(void)
{
    int how = 0;
    const pid_t pid = fork();

    if (pid == 0) {
        const struct yolk_transfer_options options = options_of(protocols[0]);
        struct yolk_transfer *transfer;
        struct errmsg err = { "" };
        struct env *env;
        if (env_real_create(NULL, &env, NULL) != STATUS_OK) _exit(1);
        const enum status status = yolk_transfer_create(env, &options, &transfer, &err);
        if (status != STATUS_OK) printf("SKIPPED: %s\n", err.text);
        fflush(stdout);
        _exit(status == STATUS_OK ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &how, 0) == pid && WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

#define WITH_BOTH(test)                                                                            \
    cmocka_unit_test_prestate(test, (void *)(intptr_t)0),                                          \
        cmocka_unit_test_prestate(test, (void *)(intptr_t)1)

int main(void)
{
    const char *ci = getenv("CI");

    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (!available()) return ci != NULL && strcmp(ci, "true") == 0 ? 1 : 77;
    const struct CMUnitTest tests[] = {
        WITH_BOTH(walks_as_the_model_says),
        WITH_BOTH(nothing_lands_after_a_final_state),
        WITH_BOTH(nothing_lands_in_what_was_taken_back),
        cmocka_unit_test(a_protocol_is_obeyed_or_refused),
        WITH_BOTH(target_is_stopped_and_killed), /* the last: it is gone then */
    };
    return cmocka_run_group_tests(tests, children_open, children_close);
}
