/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_file_test.c
 *
 * Goal:   the yardstick moves every byte it says it moved, to where it belongs, and says so when it
 *         did not.
 * Method: a small file that is compared byte by byte. */
#include "base/env_bare_file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { SIZE = 8192, PARTS = 3, COUNT = 40 };

static _Alignas(4096) uint8_t memory[PARTS * SIZE];
static uint8_t bytes[COUNT * SIZE];
static char path[] = "/var/tmp/yolk-bare-XXXXXX";

static struct env_bare_file bare_of(bool read, uint32_t depth)
{
    return (struct env_bare_file){ .path = path,
                                   .read = read,
                                   .depth = depth,
                                   .size = SIZE,
                                   .memory = memory,
                                   .memory_size = sizeof(memory) };
}

static void fill(int fd)
{
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i % 251);
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
}

static int open_or_skip(void)
{
    const struct env_bare_file bare = bare_of(true, 1);
    uint64_t ns = 0;
    const int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    fill(fd);
    if (env_bare_file_run(&bare, 1, &ns) == STATUS_UNSUPPORTED) {
        printf("SKIPPED: no io_uring, or no O_DIRECT in /var/tmp\n");
        skip();
    }
    return fd;
}

static void all_bytes_move(void **state)
{
    (void)state;
    const int fd = open_or_skip();
    uint64_t ns = 0;

    for (uint32_t depth = 1; depth <= 64; depth += 21) {
        struct env_bare_file bare = bare_of(true, depth);
        memset(memory, 0, sizeof(memory));
        assert_int_equal(env_bare_file_run(&bare, PARTS, &ns), STATUS_OK);
        assert_memory_equal(memory, bytes, sizeof(memory));
        for (size_t i = 0; i < sizeof(memory); i++)
            memory[i] = (uint8_t)(i % 241 + depth);
        bare.read = false;
        assert_int_equal(env_bare_file_run(&bare, COUNT - 1, &ns), STATUS_OK);
        assert_true(ns > 0);
        const uint8_t behind = bytes[(COUNT - 1) * SIZE];
        assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
        for (int i = 0; i < COUNT - 1; i++)
            assert_memory_equal(bytes + i * SIZE, memory + i % PARTS * SIZE, SIZE);
        assert_int_equal(bytes[(COUNT - 1) * SIZE], behind);
        fill(fd);
    }
    close(fd);
}

static void what_cannot_be_is_said(void **state)
{
    (void)state;
    const int fd = open_or_skip();
    struct env_bare_file bare = bare_of(true, 4);
    uint64_t ns = 0;

    assert_int_equal(env_bare_file_run(&bare, COUNT + 1, &ns), STATUS_IO); /* beyond the end */
    bare.depth = 65;
    assert_int_equal(env_bare_file_run(&bare, 1, &ns), STATUS_INVALID);
    bare = bare_of(true, 0);
    assert_int_equal(env_bare_file_run(&bare, 1, &ns), STATUS_INVALID);
    bare = bare_of(true, 1);
    bare.size = 512;
    assert_int_equal(env_bare_file_run(&bare, 1, &ns), STATUS_INVALID);
    bare = bare_of(true, 1);
    bare.memory_size = SIZE + 1;
    assert_int_equal(env_bare_file_run(&bare, 1, &ns), STATUS_INVALID);
    bare = bare_of(true, 1);
    bare.path = "/nowhere/file";
    assert_int_equal(env_bare_file_run(&bare, 1, &ns), STATUS_IO);
    close(fd);
}

int main(void)
{
    const int fd = mkstemp(path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_bytes_move),
        cmocka_unit_test(what_cannot_be_is_said),
    };

    if (fd < 0) return 1;
    close(fd);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
