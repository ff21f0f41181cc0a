/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_real_test.c
 *
 * Goal:   what cuda_test.c shows with a fake driver is true of the real one.
 * Method: device memory is filled and looked at by local transfers, and moved between two engines
 *         over sockets. Exits 77, and says so, where there is no driver or no device. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "transfer/cuda_driver.h"

enum { SIZE = 24 << 20 };

static struct cuda_device *device;
static struct env *env;

static void move(struct yolk_transfer *transfer, enum yolk_transfer_opcode opcode, void *local,
                 const char *name, uint64_t remote)
{
    struct yolk_transfer_segment segment;
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    assert_int_equal(yolk_transfer_open(transfer, name, &segment), STATUS_OK);
    const struct yolk_transfer_request request = { .opcode = opcode,
                                                   .local = local,
                                                   .segment = segment,
                                                   .remote = remote,
                                                   .length = SIZE,
                                                   .checksum = true };
    assert_int_equal(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(transfer, batch, &request, 1), STATUS_OK);
    assert_int_equal(yolk_transfer_wait(transfer, batch, 60 * ENV_NS_PER_S), STATUS_OK);
    assert_int_equal(yolk_transfer_poll(transfer, batch, 0, &result), STATUS_OK);
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    assert_int_equal(yolk_transfer_batch_free(transfer, batch), STATUS_OK);
    assert_int_equal(yolk_transfer_close(transfer, segment), STATUS_OK);
}

/* Host to device, over the wire into the other device range, across, back, and out again. */
static void bytes_come_back_as_they_went(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct yolk_transfer *a, *b;
    uint64_t here, there;
    struct errmsg err;
    struct rng rng;
    uint8_t *out = malloc(SIZE), *back = calloc(1, SIZE);

    assert_true(out != NULL && back != NULL);
    rng_init(&rng, 1);
    rng_fill(&rng, out, SIZE);
    assert_int_equal(yolk_transfer_create(env, &options, &a, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(env, &options, &b, NULL), STATUS_OK);
    assert_int_equal(cuda_memory_alloc(device, 2 * (size_t)SIZE, &here), STATUS_OK);
    assert_int_equal(cuda_memory_alloc(device, SIZE, &there), STATUS_OK);
    void *const local = (void *)(uintptr_t)here, *const second = (uint8_t *)local + SIZE;
    assert_int_equal(yolk_transfer_register_at(a, local, 2 * (size_t)SIZE, "cuda:0",
                                               YOLK_TRANSFER_REMOTE_ALL, &err),
                     STATUS_OK);
    assert_int_equal(
        yolk_transfer_register(b, (void *)(uintptr_t)there, SIZE, NULL, YOLK_TRANSFER_REMOTE_ALL),
        STATUS_OK); /* recognised */
    assert_int_equal(yolk_transfer_register(a, out, SIZE, NULL, 0), STATUS_OK);
    assert_int_equal(yolk_transfer_register(a, back, SIZE, NULL, 0), STATUS_OK);

    move(a, YOLK_TRANSFER_WRITE, out, yolk_transfer_name(a), here);
    move(a, YOLK_TRANSFER_WRITE, local, yolk_transfer_name(b), there);
    move(a, YOLK_TRANSFER_READ, second, yolk_transfer_name(b), there);
    move(a, YOLK_TRANSFER_WRITE, second, yolk_transfer_name(a), here);
    move(a, YOLK_TRANSFER_READ, back, yolk_transfer_name(a), here);
    assert_memory_equal(out, back, SIZE);
    memset(back, 0, SIZE);
    move(a, YOLK_TRANSFER_READ, back, yolk_transfer_name(b), there);
    assert_memory_equal(out, back, SIZE);

    yolk_transfer_destroy(a);
    yolk_transfer_destroy(b);
    cuda_memory_free(device, here);
    cuda_memory_free(device, there);
    free(out);
    free(back);
}

int main(void)
{
    struct errmsg err;

    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (cuda_driver_load(&err) != STATUS_OK || cuda_device_open(0, &device, &err) != STATUS_OK) {
        printf("SKIPPED: no GPU to test memory of devices with: %s\n", err.text);
        return 77;
    }
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_as_they_went),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    env_real_destroy(env);
    cuda_device_close(device);
    return failed;
}
