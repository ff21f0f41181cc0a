/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_bench_test.c
 *
 * Goal:   the bench's rows of memory of devices end with numbers where there is a driver, and are
 *         skipped with the reason where something is missing; how good they are is not for a test
 *         to say.
 * Method: one quick pair of each with a fake driver (tests/fake_cuda.h). The other process is this
 *         binary, started as the bench starts yolk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env_real.h"
#include "base/log.h"
#include "fake_cuda_use.h"
#include "transfer/bench.h"

static struct gpu gpu;

/* `bench transfer --listen ADDRESS`, until it is killed. */
static int serve(const char *address)
{
    struct transfer_bench_server *server;
    struct env *env;

    alarm(60); /* never outlives a test that went wrong */
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) return 1;
    if (transfer_bench_serve(env, address, "", &server, NULL) != STATUS_OK) return 2;
    env_run(env);
    return 0;
}

static void run(struct transfer_bench *bench, const char *only)
{
    struct errmsg err = { "" };

    *bench = (struct transfer_bench){ .pairs = 1, .quick = true, .only = only };
    if (transfer_bench(bench, &err) != STATUS_OK) fail_msg("%s", err.text);
}

static void rows_are_filled(void **state)
{
    (void)state;
    static struct transfer_bench bench;

    *gpu.fake = (struct fake_cuda){ .polls = 1 };
    run(&bench, "cuda_");
    assert_int_equal(bench.count, 5);
    for (uint32_t i = 0; i < bench.count; i++) {
        const struct transfer_bench_row *row = &bench.rows[i];
        assert_string_equal(row->skipped, "");
        assert_true(row->value > 0 && row->baseline > 0 && row->ratio > 0 && row->target > 0);
    }
    assert_true(gpu.fake->opened > 0);
    assert_int_equal(gpu.fake->open, 0);
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    static struct transfer_bench bench;

    *gpu.fake = (struct fake_cuda){ .refuse_open = true };
    run(&bench, "cuda_ipc_read");
    assert_int_equal(bench.count, 1);
    assert_non_null(strstr(bench.rows[0].skipped, "does not open"));
}

int main(int argc, char **argv)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (argc > 4 && strcmp(argv[3], "--listen") == 0) return serve(argv[4]);
    if (!gpu_open(&gpu, FAKE_CUDA)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_filled),
        cmocka_unit_test(what_is_missing_is_said),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < GPU_DEVICES; i++)
        cuda_device_close(gpu.devices[i]);
    return failed;
}
