/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto_stage_test.c
 *
 * Goal:   messages of stages come out as they went in, and no cut or changed one is taken for what
 *         it is not.
 * Method: round trips; every prefix of each message; fields out of range. `YOLK_CORPUS=DIR` writes
 *         the messages for proto_stage_fuzz. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "serve/proto_stage.h"

static const uint8_t bytes[24] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };

static struct proto_stage_run run_of(uint32_t stage, uint32_t stages)
{
    struct proto_stage_run run = {
        .stage = stage, .stages = stages, .reuse_blocks = 5, .run = bytes, .run_len = sizeof(bytes)
    };

    for (uint32_t i = 0; i < stages && i < PROTO_STAGES_MAX; i++)
        snprintf(run.addresses[i], sizeof(run.addresses[i]), "10.0.0.%u:7", i);
    return run;
}

static void save(const struct buf *body, const char *name, char which)
{
    const char *directory = getenv("YOLK_CORPUS");
    char path[512];

    if (directory == NULL) return;
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&which, 1, 1, file), 1);
    assert_int_equal(fwrite(buf_data(body), 1, body->len, file), body->len);
    fclose(file);
}

static void runs_round_trip(void **state)
{
    struct proto_stage_run run = run_of(1, 3), got;
    struct buf body;

    (void)state;
    buf_init(&body, 1 << 16);
    assert_int_equal(proto_stage_run_encode(&run, &body), STATUS_OK);
    save(&body, "run", 0);
    assert_int_equal(proto_stage_run_decode(buf_data(&body), body.len, &got), STATUS_OK);
    assert_true(got.stage == 1 && got.stages == 3 && got.reuse_blocks == 5);
    assert_string_equal(got.addresses[2], "10.0.0.2:7");
    assert_int_equal(got.run_len, sizeof(bytes));
    assert_memory_equal(got.run, bytes, sizeof(bytes));
    for (size_t len = 0; len < body.len; len++) {
        assert_int_equal(proto_stage_run_decode(buf_data(&body), len, &got), STATUS_INVALID);
    }
    for (uint32_t stages = 0; stages < 2; stages++) { /* a group of nobody, or of one */
        buf_clear(&body);
        run = run_of(0, stages);
        assert_int_equal(proto_stage_run_encode(&run, &body), STATUS_OK);
        assert_int_equal(proto_stage_run_decode(buf_data(&body), body.len, &got), STATUS_INVALID);
    }
    buf_clear(&body);
    run = run_of(3, 3);
    assert_int_equal(proto_stage_run_encode(&run, &body), STATUS_OK);
    assert_int_equal(proto_stage_run_decode(buf_data(&body), body.len, &got), STATUS_INVALID);
    buf_clear(&body);
    run = run_of(0, 3);
    run.addresses[1][0] = '\0';
    assert_int_equal(proto_stage_run_encode(&run, &body), STATUS_OK);
    assert_int_equal(proto_stage_run_decode(buf_data(&body), body.len, &got), STATUS_INVALID);
    buf_fini(&body);
}

static void rows_round_trip(void **state)
{
    const struct proto_stage_rows rows = { .request_id = UINT64_MAX,
                                           .attempt = 2,
                                           .position = 512,
                                           .checksum = 77,
                                           .rows = bytes,
                                           .size = sizeof(bytes) };
    struct proto_stage_rows got;
    struct buf body;

    (void)state;
    buf_init(&body, 1 << 16);
    assert_int_equal(proto_stage_rows_encode(&rows, &body), STATUS_OK);
    save(&body, "rows", 1);
    assert_int_equal(proto_stage_rows_decode(buf_data(&body), body.len, &got), STATUS_OK);
    assert_true(got.request_id == UINT64_MAX && got.attempt == 2);
    assert_true(got.position == 512 && got.checksum == 77 && got.size == sizeof(bytes));
    assert_memory_equal(got.rows, bytes, sizeof(bytes));
    for (size_t len = 0; len < body.len; len++) {
        assert_int_equal(proto_stage_rows_decode(buf_data(&body), len, &got), STATUS_INVALID);
    }
    buf_fini(&body);
}

static void sums_round_trip(void **state)
{
    const uint64_t sums[3] = { 1, UINT64_MAX, 3 };
    const struct proto_stage_sums message = {
        .request_id = 9, .attempt = 1, .layers = 15, .sums = proto_u64s_of(sums, 3)
    };
    struct proto_stage_sums got;
    struct buf body;

    (void)state;
    buf_init(&body, 1 << 16);
    assert_int_equal(proto_stage_sums_encode(&message, &body), STATUS_OK);
    save(&body, "sums", 2);
    assert_int_equal(proto_stage_sums_decode(buf_data(&body), body.len, &got), STATUS_OK);
    assert_true(got.request_id == 9 && got.attempt == 1 && got.layers == 15);
    assert_int_equal(got.sums.count, 3);
    assert_true(proto_u64_at(got.sums, 1) == UINT64_MAX);
    for (size_t len = 0; len < body.len; len++) {
        assert_int_equal(proto_stage_sums_decode(buf_data(&body), len, &got), STATUS_INVALID);
    }
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_round_trip),
        cmocka_unit_test(rows_round_trip),
        cmocka_unit_test(sums_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
