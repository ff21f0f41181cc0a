/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_tally_test.c
 *
 * Goal:   each request moves the counters of its kind, and no others, by what it was.
 * Method: single cases by hand; then random requests beside a model that keeps every answer and
 *         counts when it is asked. */
#include "store/master_tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"
#include "store/proto.h"

enum { REQUESTS = 2000, KEYS_MAX = 9 };

struct request {
    enum master_op op;
    uint32_t count;
    enum status statuses[KEYS_MAX];
};

static struct request requests[REQUESTS];

static bool is_failure(enum master_op op, enum status status)
{
    if (op == MASTER_OP_EXIST_KEY && status == STATUS_NOT_FOUND) return false;
    return status != STATUS_OK;
}

static struct master_tally counted(void)
{
    struct master_tally sum;
    memset(&sum, 0, sizeof(sum));
    for (unsigned r = 0; r < REQUESTS; r++) {
        const struct request *request = &requests[r];
        const enum master_op op = request->op;
        uint32_t count = 0, failed = 0;
        for (uint32_t i = 0; i < request->count; i++) {
            if (op == MASTER_OP_PUT_END && request->statuses[i] == STATUS_AGAIN) continue;
            count++;
            failed += is_failure(op, request->statuses[i]) ? 1 : 0;
        }
        if (count == 0) continue;
        if (op <= MASTER_OP_REPLICA_CLEAR && count > 1) {
            sum.batch[op].requests += 1;
            sum.batch[op].items += count;
            sum.batch[op].failed_items += failed;
            if (failed == count) sum.batch[op].failures += 1;
            if (failed > 0 && failed < count) sum.batch[op].partial_successes += 1;
        } else {
            sum.one[op].requests += count;
            sum.one[op].failures += failed;
        }
    }
    return sum;
}

static void every_request_counts_once(void **state)
{
    static const enum status some[] = { STATUS_OK, STATUS_OK, STATUS_NOT_FOUND, STATUS_FULL,
                                        STATUS_AGAIN };
    struct master_tally tally;
    struct rng rng;
    uint32_t codes[KEYS_MAX];
    (void)state;

    memset(&tally, 0, sizeof(tally));
    rng_init(&rng, test_seed());
    for (unsigned r = 0; r < REQUESTS; r++) {
        struct request *request = &requests[r];
        request->op = (enum master_op)rng_below(&rng, MASTER_OPS);
        request->count = 1 + (uint32_t)rng_below(&rng, KEYS_MAX);
        const bool alike = rng_below(&rng, 3) == 0; /* so that all of a batch fail, too */
        const enum status all = some[rng_below(&rng, 5)];
        for (uint32_t i = 0; i < request->count; i++) {
            request->statuses[i] = alike ? all : some[rng_below(&rng, 5)];
            codes[i] = store_status_code(request->statuses[i]);
        }
        master_tally_codes(&tally, request->op, codes, request->count);
    }
    const struct master_tally sum = counted();
    assert_memory_equal(&tally, &sum, sizeof(sum));
}

static void pages_are_one_request(void **state)
{
    struct master_tally tally;
    (void)state;

    memset(&tally, 0, sizeof(tally));
    master_tally_page(&tally, MASTER_OP_REMOVE_ALL, true, STATUS_OK);
    master_tally_page(&tally, MASTER_OP_REMOVE_ALL, false, STATUS_OK);
    assert_int_equal(tally.one[MASTER_OP_REMOVE_ALL].requests, 1);
    assert_int_equal(tally.one[MASTER_OP_REMOVE_ALL].failures, 0);
    master_tally_page(&tally, MASTER_OP_REMOVE_ALL, false, STATUS_INVALID);
    assert_int_equal(tally.one[MASTER_OP_REMOVE_ALL].requests, 1);
    assert_int_equal(tally.one[MASTER_OP_REMOVE_ALL].failures, 1);
    master_tally_one(&tally, MASTER_OP_PING, STATUS_NOT_FOUND);
    assert_int_equal(tally.one[MASTER_OP_PING].requests, 1);
    assert_int_equal(tally.one[MASTER_OP_PING].failures, 1);
}

static void every_operation_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (unsigned a = 0; a < MASTER_OPS; a++) {
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(master_op_name((enum master_op)a),
                                    master_op_name((enum master_op)b));
    }
    assert_string_equal(master_op_name(MASTER_OP_PUT_END), "put_end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_counts_once),
        cmocka_unit_test(pages_are_one_request),
        cmocka_unit_test(every_operation_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
