/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/file_test.c
 *
 * Goal:    segments of files move exactly the bytes they were asked to, whatever the alignment, in
 *          whatever number of files, touch nothing else, refuse what they must, and report every
 *          failure of the disk as one.
 * Method:  an engine on a real loop over real files, on the file system of /tmp and on tmpfs, with
 *          io_uring and without. What is in the files is looked at by plain reads, past the engine.
 *          A random walk against a model in memory; `SEED=n` replays it. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "seed.h"
#include "yolk/transfer.h"

#define CHECK(condition) assert_true(condition)

enum { MEMORY = 8 << 20, FILE_SIZE = 4 << 20, PATH_SIZE = 128, SLICE = 64 << 10 };

struct bed {
    char directory[PATH_SIZE];
    char path[PATH_SIZE];
    struct env *env;
    struct yolk_transfer *transfer;
    uint8_t *memory;
};

static void bed_open(struct bed *bed, const char *where, bool no_io_uring)
{
    const struct env_real_options env_options = { .no_io_uring = no_io_uring };
    const struct yolk_transfer_options options = { .slice_size = SLICE };
    void *memory;

    snprintf(bed->directory, sizeof(bed->directory), "%s/yolk-file-XXXXXX", where);
    CHECK(mkdtemp(bed->directory) != NULL);
    snprintf(bed->path, sizeof(bed->path), "%.100s/segment", bed->directory);
    CHECK(env_real_create(&env_options, &bed->env, NULL) == STATUS_OK);
    CHECK(yolk_transfer_create(bed->env, &options, &bed->transfer, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(bed->transfer, MEMORY, 0, &memory, NULL) == STATUS_OK);
    bed->memory = memory;
}

static void bed_close(struct bed *bed)
{
    yolk_transfer_destroy(bed->transfer);
    env_real_destroy(bed->env);
    (void)unlink(bed->path);
    assert_int_equal(rmdir(bed->directory), 0); /* nothing else was made there */
}

static struct yolk_transfer_segment file_open(struct bed *bed, uint64_t length, unsigned flags)
{
    const struct yolk_transfer_file file = { .path = bed->path, .length = length };
    struct yolk_transfer_segment segment;
    struct errmsg err = { "" };

    if (yolk_transfer_open_files(bed->transfer, &file, 1, flags, &segment, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    return segment;
}

static struct yolk_transfer_result run(struct bed *bed, const struct yolk_transfer_request *req,
                                       struct yolk_transfer_explain *explain)
{
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    CHECK(yolk_transfer_batch_create(bed->transfer, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(bed->transfer, batch, req, 1) == STATUS_OK);
    CHECK(yolk_transfer_wait(bed->transfer, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(bed->transfer, batch, 0, &result) == STATUS_OK);
    if (explain != NULL) CHECK(yolk_transfer_explain(bed->transfer, batch, 0, explain) == 0);
    CHECK(yolk_transfer_batch_free(bed->transfer, batch) == STATUS_OK);
    return result;
}

static struct yolk_transfer_request request(struct bed *bed, struct yolk_transfer_segment segment,
                                            enum yolk_transfer_opcode opcode, size_t here,
                                            uint64_t there, uint64_t length)
{
    return (struct yolk_transfer_request){ .opcode = opcode,
                                           .local = bed->memory + here,
                                           .segment = segment,
                                           .remote = there,
                                           .length = length };
}

static void fill(uint8_t *data, size_t len, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    rng_fill(&rng, data, len);
}

static void expect_in_file(const char *path, const uint8_t *bytes, size_t len, off_t offset)
{
    uint8_t *data = malloc(len);
    const int fd = open(path, O_RDONLY);

    CHECK(fd >= 0 && data != NULL);
    assert_int_equal(pread(fd, data, len, offset), len);
    CHECK(memcmp(data, bytes, len) == 0);
    close(fd);
    free(data);
}

/* ---- what is moved ---- */

struct shape {
    size_t here;
    uint64_t there;
    uint64_t length;
    bool aligned; /* the middle of it, in memory and file alike */
};

static const struct shape shapes[] = {
    { 0, 0, 1, false },         { 0, 0, 4096, true },         { 4096, 8192, 4096, true },
    { 0, 0, 1 << 20, true },    { 100, 4196, 1 << 20, true }, { 1, 1, 5000, false },
    { 5, 4096, 300000, false }, { 4096, 4096, 70001, true },  { 4097, 1, FILE_SIZE - 1, true },
    { 0, 0, FILE_SIZE, true },
};

static void move_shapes(const char *where, bool no_io_uring)
{
    struct bed bed;

    bed_open(&bed, where, no_io_uring);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    struct stat info;
    assert_int_equal(stat(bed.path, &info), 0);
    assert_int_equal(info.st_size, FILE_SIZE);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        struct yolk_transfer_explain explain;
        uint8_t *here = bed.memory + shape->here;
        fill(here, shape->length, i);
        struct yolk_transfer_request req =
            request(&bed, segment, YOLK_TRANSFER_WRITE, shape->here, shape->there, shape->length);
        struct yolk_transfer_result result = run(&bed, &req, &explain);
        assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
        assert_int_equal(result.bytes, shape->length);
        assert_int_equal(explain.path, YOLK_TRANSFER_PATH_FILE);
        CHECK(strncmp(explain.peer, "file:", 5) == 0);
        expect_in_file(bed.path, here, shape->length, (off_t)shape->there);
        if (i == 0 && explain.direct_bytes == 0 && shape->aligned) {
            print_message("no O_DIRECT below %s: all cached\n", where);
        }
        CHECK(shape->aligned || explain.direct_bytes == 0);
        memset(here, 0, shape->length);
        req.opcode = YOLK_TRANSFER_READ;
        result = run(&bed, &req, &explain);
        assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
        expect_in_file(bed.path, here, shape->length, (off_t)shape->there);
        CHECK(explain.direct_bytes <= shape->length);
    }
    bed_close(&bed);
}

static void bytes_arrive_whatever_the_alignment(void **state)
{
    (void)state;
    move_shapes("/tmp", false);
    move_shapes("/tmp", true);
}

static void bytes_arrive_on_tmpfs(void **state)
{
    (void)state;
    if (access("/dev/shm", W_OK) != 0) {
        print_message("SKIPPED: no tmpfs that we may write at /dev/shm\n");
        skip();
    }
    move_shapes("/dev/shm", false);
}

/* All but the ends of a long range goes past the page cache, if anything does. */
static void ends_do_not_spoil_the_middle(void **state)
{
    (void)state;
    struct yolk_transfer_explain explain;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, FILE_SIZE);
    CHECK(run(&bed, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
    if (explain.direct_bytes == 0) {
        print_message("SKIPPED: no O_DIRECT below /tmp\n");
        bed_close(&bed);
        skip();
    }
    assert_int_equal(explain.direct_bytes, FILE_SIZE);
    req = request(&bed, segment, YOLK_TRANSFER_WRITE, 4096 + 10, 10, (1 << 20) + 20);
    CHECK(run(&bed, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
    assert_int_equal(explain.direct_bytes, (1 << 20) - 4096);
    /* From memory that lies otherwise nothing can. */
    req = request(&bed, segment, YOLK_TRANSFER_READ, 11, 10, 1 << 20);
    CHECK(run(&bed, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
    assert_int_equal(explain.direct_bytes, 0);
    /* Nor where the user does not want it. */
    const struct yolk_transfer_segment cached = file_open(&bed, 0, YOLK_TRANSFER_FILE_CACHED);
    req = request(&bed, cached, YOLK_TRANSFER_READ, 0, 0, 1 << 20);
    CHECK(run(&bed, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
    assert_int_equal(explain.direct_bytes, 0);
    bed_close(&bed);
}

static void several_files_are_one_segment(void **state)
{
    (void)state;
    enum { PART = 100000, START = 4096 };
    static uint8_t around[START];
    char paths[3][PATH_SIZE];
    struct yolk_transfer_file files[3];
    struct yolk_transfer_segment segment;
    struct yolk_transfer_explain explain;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    fill(around, sizeof(around), 5);
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], PATH_SIZE, "%.100s/part%d", bed.directory, i);
        const int fd = open(paths[i], O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0);
        CHECK(pwrite(fd, around, START, 0) == START);
        CHECK(pwrite(fd, around, START, START + PART) == START);
        close(fd);
        files[i] = (struct yolk_transfer_file){ .path = paths[i], .offset = START, .length = PART };
    }
    CHECK(yolk_transfer_open_files(bed.transfer, files, 3, YOLK_TRANSFER_FILE_WRITE, &segment,
                                   NULL) == STATUS_OK);
    fill(bed.memory, 3 * PART, 6);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, 3 * PART);
    CHECK(run(&bed, &req, &explain).state == YOLK_TRANSFER_COMPLETED);
    CHECK(strstr(explain.peer, "part0+2") != NULL);
    for (int i = 0; i < 3; i++) {
        expect_in_file(paths[i], bed.memory + (size_t)i * PART, PART, START);
        expect_in_file(paths[i], around, START, 0); /* what was not given is not touched */
        expect_in_file(paths[i], around, START, START + PART);
    }
    req = request(&bed, segment, YOLK_TRANSFER_READ, 4 * PART, PART - 50, PART + 100);
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    CHECK(memcmp(bed.memory + (size_t)4 * PART, bed.memory + PART - 50, PART + 100) == 0);
    req = request(&bed, segment, YOLK_TRANSFER_READ, 0, 3 * PART - 1, 2);
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_INVALID);
    for (int i = 0; i < 3; i++)
        assert_int_equal(unlink(paths[i]), 0);
    bed_close(&bed);
}

/* ---- what is refused ---- */

static enum status try_open(struct bed *bed, const char *path, uint64_t offset, uint64_t length,
                            unsigned flags)
{
    const struct yolk_transfer_file file = { path, offset, length };
    struct yolk_transfer_segment segment = { 77 };
    struct errmsg err = { "" };

    const enum status status =
        yolk_transfer_open_files(bed->transfer, &file, 1, flags, &segment, &err);
    assert_int_equal(segment.id, status == STATUS_OK ? segment.id : 77);
    if (status != STATUS_OK) CHECK(err.text[0] != '\0');
    return status;
}

static void what_cannot_be_a_segment_is_refused(void **state)
{
    (void)state;
    struct yolk_transfer_segment segment;
    struct bed bed;
    const struct yolk_transfer_file file = { .path = "/tmp" };

    bed_open(&bed, "/tmp", false);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, 0), STATUS_NOT_FOUND);
    assert_int_equal(try_open(&bed, bed.path, 0, 4096, YOLK_TRANSFER_FILE_WRITE), STATUS_NOT_FOUND);
    assert_int_equal(access(bed.path, F_OK), -1);
    assert_int_equal(try_open(&bed, NULL, 0, 0, 0), STATUS_INVALID);
    assert_int_equal(try_open(&bed, "/tmp", 0, 0, 0), STATUS_UNSUPPORTED);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, YOLK_TRANSFER_FILE_CREATE), STATUS_INVALID);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, 64), STATUS_INVALID);
    assert_int_equal(try_open(&bed, bed.path, 0, 10, YOLK_TRANSFER_FILE_CREATE), STATUS_OK);
    assert_int_equal(try_open(&bed, bed.path, 0, 11, YOLK_TRANSFER_FILE_WRITE), STATUS_INVALID);
    assert_int_equal(try_open(&bed, bed.path, 10, 0, 0), STATUS_INVALID);
    assert_int_equal(try_open(&bed, bed.path, 9, 1, 0), STATUS_OK);
    assert_int_equal(try_open(&bed, bed.path, UINT64_MAX, 2, 0), STATUS_INVALID);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, YOLK_TRANSFER_FILE_LOCK), STATUS_OK);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, YOLK_TRANSFER_FILE_LOCK), STATUS_EXISTS);
    CHECK(yolk_transfer_open_files(NULL, &file, 1, 0, &segment, NULL) == STATUS_INVALID);
    CHECK(yolk_transfer_open_files(bed.transfer, NULL, 1, 0, &segment, NULL) == STATUS_INVALID);
    CHECK(yolk_transfer_open_files(bed.transfer, &file, 0, 0, &segment, NULL) == STATUS_INVALID);
    CHECK(yolk_transfer_open_files(bed.transfer, &file, 1, 0, NULL, NULL) == STATUS_INVALID);
    /* The name of a segment of memory never opens a file. */
    CHECK(yolk_transfer_open(bed.transfer, bed.path, &segment) == STATUS_INVALID);
    bed_close(&bed);
}

static void refused_with(struct bed *bed, const struct yolk_transfer_request *req,
                         enum yolk_transfer_state final, enum status reason)
{
    const struct yolk_transfer_result result = run(bed, req, NULL);

    assert_int_equal(result.state, final);
    assert_int_equal(result.reason, reason);
    assert_int_equal(result.bytes, 0);
}

static void requests_outside_are_refused(void **state)
{
    (void)state;
    struct yolk_transfer_loan loan;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment = file_open(&bed, 10000, YOLK_TRANSFER_FILE_CREATE);
    const struct yolk_transfer_segment reader = file_open(&bed, 0, 0);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_READ, 0, 9999, 2);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_NOT_FOUND);
    req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 10001, 1);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_NOT_FOUND);
    req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, UINT64_MAX - 1, 10);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_INVALID);
    req = request(&bed, reader, YOLK_TRANSFER_WRITE, 0, 0, 10);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_DENIED);
    req = request(&bed, segment, YOLK_TRANSFER_READ, MEMORY - 5, 0, 10);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_NOT_FOUND);
    req = request(&bed, segment, YOLK_TRANSFER_READ, 0, 0, 10);
    req.epoch = 2;
    refused_with(&bed, &req, YOLK_TRANSFER_FAILED, STATUS_STALE);
    req.epoch = 1;
    req.generation = yolk_transfer_generation(bed.transfer) + 1;
    refused_with(&bed, &req, YOLK_TRANSFER_FAILED, STATUS_STALE);
    req.generation = yolk_transfer_generation(bed.transfer);
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_borrow(bed.transfer, segment, 0, 10, 0, &loan) == STATUS_UNSUPPORTED);
    CHECK(yolk_transfer_probe(bed.transfer, segment, ENV_NS_PER_S, NULL, NULL) ==
          STATUS_UNSUPPORTED);
    CHECK(yolk_transfer_notify(bed.transfer, segment, (struct yolk_transfer_batch){ 0 }, "n", NULL,
                               0, ENV_NS_PER_S, NULL, NULL) == STATUS_UNSUPPORTED);
    CHECK(yolk_transfer_close(bed.transfer, segment) == STATUS_OK);
    CHECK(yolk_transfer_close(bed.transfer, segment) == STATUS_INVALID);
    refused_with(&bed, &req, YOLK_TRANSFER_INVALID, STATUS_INVALID);
    bed_close(&bed);
}

/* ---- what fails ---- */

static void a_file_that_became_shorter_is_a_failure(void **state)
{
    (void)state;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_READ, 0, 0, FILE_SIZE);
    assert_int_equal(truncate(bed.path, 1 << 20), 0);
    const struct yolk_transfer_result result = run(&bed, &req, NULL);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_IO);
    CHECK(result.bytes <= 1 << 20);
    req.remote = 1000;
    req.length = 3 << 20;
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_FAILED);
    req.remote = 0;
    req.length = 1 << 20;
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    bed_close(&bed);
}

static void no_space_is_a_failure(void **state)
{
    (void)state;
    const struct rlimit tight = { 1 << 20, RLIM_INFINITY };
    struct rlimit before;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, FILE_SIZE);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    const struct yolk_transfer_result result = run(&bed, &req, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_FULL);
    CHECK(result.bytes <= 1 << 20);
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    bed_close(&bed);
}

/* ---- order, cancelling, closing ---- */

struct crowd {
    unsigned background_done, background_when_urgent;
};

static void on_background(void *ctx, const struct yolk_transfer_result *result)
{
    struct crowd *crowd = ctx;
    assert_int_equal(result->state, YOLK_TRANSFER_COMPLETED);
    crowd->background_done++;
}

static void on_urgent(void *ctx, const struct yolk_transfer_result *result)
{
    struct crowd *crowd = ctx;
    assert_int_equal(result->state, YOLK_TRANSFER_COMPLETED);
    crowd->background_when_urgent = crowd->background_done;
}

static void the_urgent_overtakes(void **state)
{
    (void)state;
    enum { CROWD = 400 };
    struct crowd crowd = { 0, 0 };
    struct yolk_transfer_batch batch;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    CHECK(yolk_transfer_batch_create(bed.transfer, CROWD + 1, NULL, NULL, &batch) == STATUS_OK);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, 64 << 10);
    req.class = YOLK_TRANSFER_BACKGROUND;
    req.on_done = on_background;
    req.ctx = &crowd;
    for (int i = 0; i < CROWD; i++) {
        req.remote = (uint64_t)(i % 60) * (64 << 10);
        CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
    }
    req.class = YOLK_TRANSFER_DECODE;
    req.remote = 61 * (64 << 10);
    req.on_done = on_urgent;
    CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_wait(bed.transfer, batch, 60 * ENV_NS_PER_S) == STATUS_OK);
    assert_int_equal(crowd.background_done, CROWD);
    /* It may wait for what the kernel had, and for what that let in, not for all of them. */
    CHECK(crowd.background_when_urgent <= 96);
    CHECK(yolk_transfer_batch_free(bed.transfer, batch) == STATUS_OK);
    bed_close(&bed);
}

static void cancelled_tasks_end_and_land_nothing_more(void **state)
{
    (void)state;
    enum { TASKS = 30 };
    static uint8_t after[MEMORY];
    struct yolk_transfer_batch batch;
    struct bed bed;
    unsigned cancelled = 0;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    for (int round = 0; round < 8; round++) {
        CHECK(yolk_transfer_batch_create(bed.transfer, TASKS, NULL, NULL, &batch) == STATUS_OK);
        for (int i = 0; i < TASKS; i++) {
            struct yolk_transfer_request req =
                request(&bed, segment, YOLK_TRANSFER_READ, (size_t)i * (256 << 10),
                        (uint64_t)(i % 16) * (256 << 10), 256 << 10);
            if (i % 3 == 0) req.deadline_ns = env_now_ns(bed.env) + 1000;
            CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
        }
        for (int i = 0; i < round; i++)
            env_poll(bed.env, 0);
        CHECK(yolk_transfer_cancel_batch(bed.transfer, batch) == STATUS_OK);
        CHECK(yolk_transfer_wait(bed.transfer, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
        fill(bed.memory, MEMORY, (uint64_t)round);
        memcpy(after, bed.memory, MEMORY);
        for (uint32_t i = 0; i < TASKS; i++) {
            struct yolk_transfer_result result;
            CHECK(yolk_transfer_poll(bed.transfer, batch, i, &result) == STATUS_OK);
            CHECK(result.state == YOLK_TRANSFER_CANCELED || result.state == YOLK_TRANSFER_TIMEOUT ||
                  result.state == YOLK_TRANSFER_COMPLETED);
            cancelled += result.state == YOLK_TRANSFER_CANCELED;
        }
        CHECK(yolk_transfer_batch_free(bed.transfer, batch) == STATUS_OK);
        for (int i = 0; i < 5; i++)
            env_poll(bed.env, ENV_NS_PER_MS);
        CHECK(memcmp(after, bed.memory, MEMORY) == 0);
    }
    CHECK(cancelled > 0);
    bed_close(&bed);
}

static void tasks_go_on_when_the_handle_is_closed(void **state)
{
    (void)state;
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;
    struct yolk_transfer_segment segments[YOLK_TRANSFER_FILES_MAX];
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    struct yolk_transfer_segment segment = file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    fill(bed.memory, FILE_SIZE, 9);
    CHECK(yolk_transfer_batch_create(bed.transfer, 2, NULL, NULL, &batch) == STATUS_OK);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, FILE_SIZE);
    CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_close(bed.transfer, segment) == STATUS_OK);
    CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_wait(bed.transfer, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(bed.transfer, batch, 0, &result) == STATUS_OK);
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_poll(bed.transfer, batch, 1, &result) == STATUS_OK);
    assert_int_equal(result.state, YOLK_TRANSFER_INVALID);
    CHECK(yolk_transfer_batch_free(bed.transfer, batch) == STATUS_OK);
    expect_in_file(bed.path, bed.memory, FILE_SIZE, 0);
    /* As many as there may be, and one more. */
    for (int i = 0; i < YOLK_TRANSFER_FILES_MAX; i++)
        segments[i] = file_open(&bed, 0, YOLK_TRANSFER_FILE_WRITE);
    assert_int_equal(try_open(&bed, bed.path, 0, 0, 0), STATUS_FULL);
    for (int i = 0; i < YOLK_TRANSFER_FILES_MAX; i++)
        CHECK(yolk_transfer_close(bed.transfer, segments[i]) == STATUS_OK);
    /* An engine that ends with work under way waits for the kernel. */
    req.segment = file_open(&bed, 0, YOLK_TRANSFER_FILE_WRITE);
    CHECK(yolk_transfer_batch_create(bed.transfer, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(bed.transfer, batch, &req, 1) == STATUS_OK);
    bed_close(&bed);
}

static void on_synced(void *ctx, enum status status, uint64_t rtt_us)
{
    (void)rtt_us;
    *(enum status *)ctx = status;
}

static void a_sync_is_told_once_it_is_done(void **state)
{
    (void)state;
    enum status told = STATUS_PENDING;
    struct yolk_transfer_segment memory;
    struct bed bed;

    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    struct yolk_transfer_request req = request(&bed, segment, YOLK_TRANSFER_WRITE, 0, 0, FILE_SIZE);
    CHECK(run(&bed, &req, NULL).state == YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_sync(bed.transfer, segment, on_synced, &told) == STATUS_OK);
    CHECK(yolk_transfer_close(bed.transfer, segment) == STATUS_OK);
    while (told == STATUS_PENDING)
        env_poll(bed.env, ENV_NS_PER_S);
    assert_int_equal(told, STATUS_OK);
    CHECK(yolk_transfer_sync(bed.transfer, segment, on_synced, &told) == STATUS_INVALID);
    CHECK(yolk_transfer_open(bed.transfer, yolk_transfer_name(bed.transfer), &memory) == 0);
    CHECK(yolk_transfer_sync(bed.transfer, memory, on_synced, &told) == STATUS_UNSUPPORTED);
    bed_close(&bed);
}

/* ---- a walk ---- */

enum { WALK_TASKS = 6, WALK_ROUNDS = 60, WALK_SLOT = FILE_SIZE / WALK_TASKS };

/* Tasks of one round lie apart; the model is a plain copy of the file. */
static void walk_round(struct bed *bed, struct yolk_transfer_segment segment, struct rng *rng,
                       uint8_t *model)
{
    struct yolk_transfer_request reqs[WALK_TASKS];
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result whole;

    for (int i = 0; i < WALK_TASKS; i++) {
        const uint64_t at = rng_below(rng, WALK_SLOT), left = WALK_SLOT - at;
        const bool near = rng_below(rng, 2) == 0; /* the same place in its page here and there */
        const uint64_t there = (uint64_t)i * WALK_SLOT + at;
        const size_t here = (size_t)i * (1 << 20) + (near ? there % 4096 : rng_below(rng, 4096));
        reqs[i] =
            request(bed, segment, rng_below(rng, 2) == 0 ? YOLK_TRANSFER_READ : YOLK_TRANSFER_WRITE,
                    here, there, rng_between(rng, 1, left));
        reqs[i].class = (enum yolk_transfer_class)rng_below(rng, YOLK_TRANSFER_CLASSES);
        rng_fill(rng, reqs[i].local, reqs[i].length);
        if (reqs[i].opcode == YOLK_TRANSFER_WRITE) {
            memcpy(model + there, reqs[i].local, reqs[i].length);
        }
    }
    CHECK(yolk_transfer_batch_create(bed->transfer, WALK_TASKS, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(bed->transfer, batch, reqs, WALK_TASKS) == STATUS_OK);
    CHECK(yolk_transfer_wait(bed->transfer, batch, 30 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll_batch(bed->transfer, batch, &whole) == STATUS_OK);
    assert_int_equal(whole.state, YOLK_TRANSFER_COMPLETED);
    CHECK(yolk_transfer_batch_free(bed->transfer, batch) == STATUS_OK);
    for (int i = 0; i < WALK_TASKS; i++)
        CHECK(memcmp(reqs[i].local, model + reqs[i].remote, reqs[i].length) == 0);
}

static void a_walk_agrees_with_the_model(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();
    struct rng rng;
    struct bed bed;
    uint8_t *model = calloc(1, FILE_SIZE);

    CHECK(model != NULL);
    rng_init(&rng, seed);
    bed_open(&bed, "/tmp", false);
    const struct yolk_transfer_segment segment =
        file_open(&bed, FILE_SIZE, YOLK_TRANSFER_FILE_CREATE);
    for (int round = 0; round < WALK_ROUNDS; round++)
        walk_round(&bed, segment, &rng, model);
    expect_in_file(bed.path, model, FILE_SIZE, 0);
    bed_close(&bed);
    free(model);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_whatever_the_alignment),
        cmocka_unit_test(bytes_arrive_on_tmpfs),
        cmocka_unit_test(ends_do_not_spoil_the_middle),
        cmocka_unit_test(several_files_are_one_segment),
        cmocka_unit_test(what_cannot_be_a_segment_is_refused),
        cmocka_unit_test(requests_outside_are_refused),
        cmocka_unit_test(a_file_that_became_shorter_is_a_failure),
        cmocka_unit_test(no_space_is_a_failure),
        cmocka_unit_test(the_urgent_overtakes),
        cmocka_unit_test(cancelled_tasks_end_and_land_nothing_more),
        cmocka_unit_test(tasks_go_on_when_the_handle_is_closed),
        cmocka_unit_test(a_sync_is_told_once_it_is_done),
        cmocka_unit_test(a_walk_agrees_with_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
