/* SPDX-License-Identifier: Apache-2.0
 *
 * store/code_test.c
 *
 * Goal:   no status of the pool is without a code, none but STATUS_OK looks like success, and what
 *         callers of Mooncake's store act on is what they expect.
 * Method: every question with every number that may be a status; then the cases of the contract, by
 *         hand. */
#include "yolk/store_code.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { LOWEST = -300 };

static void every_status_has_a_code(void **state)
{
    (void)state;
    for (unsigned op = 0; op < YOLK_STORE_OPS; op++) {
        assert_int_equal(yolk_store_code((enum yolk_store_op)op, STATUS_OK), 0);
        uint32_t known = 0;
        for (int number = LOWEST; number <= 1; number++) {
            const enum status status = (enum status)number;
            const int code = yolk_store_code((enum yolk_store_op)op, status);
            if (status == STATUS_OK) continue;
            assert_true(code < 0);
            assert_string_not_equal(yolk_store_code_name(code), "UNKNOWN");
            const bool named = strcmp(status_name(status), "unknown") != 0;
            if (named && status != STATUS_PENDING) {
                known++;
                assert_int_not_equal(code, YOLK_STORE_CODE_INTERNAL);
            } else {
                assert_int_equal(code, YOLK_STORE_CODE_INTERNAL);
            }
        }
        assert_int_equal(known, 19); /* of base/status.h: who adds one decides about it here */
    }
}

static void codes_are_those_of_the_contract(void **state)
{
    static const struct {
        enum yolk_store_op op;
        enum status status;
        int code;
    } cases[] = {
        { YOLK_STORE_OP_PUT, STATUS_FULL, -200 },
        { YOLK_STORE_OP_PUT, STATUS_UNAVAILABLE, -200 },
        { YOLK_STORE_OP_PUT, STATUS_EXISTS, -705 },
        { YOLK_STORE_OP_PUT, STATUS_INVALID, -600 },
        { YOLK_STORE_OP_PUT, STATUS_QUOTA, -1700 },
        { YOLK_STORE_OP_PUT, STATUS_DENIED, -1701 },
        { YOLK_STORE_OP_UPSERT, STATUS_BUSY, -714 },
        { YOLK_STORE_OP_GET, STATUS_NOT_FOUND, -704 },
        { YOLK_STORE_OP_GET, STATUS_BUSY, -703 },
        { YOLK_STORE_OP_GET, STATUS_FULL, -600 },
        { YOLK_STORE_OP_GET, STATUS_CORRUPT, -801 },
        { YOLK_STORE_OP_GET, STATUS_UNAVAILABLE, -800 },
        { YOLK_STORE_OP_GET, STATUS_CONN_CLOSED, -900 },
        { YOLK_STORE_OP_GET, STATUS_TIMEOUT, -901 },
        { YOLK_STORE_OP_EXIST, STATUS_AGAIN, -1010 },
        { YOLK_STORE_OP_EXIST, STATUS_PROTOCOL, -300 },
        { YOLK_STORE_OP_EXIST, STATUS_INVALID, -600 },
        { YOLK_STORE_OP_REMOVE, STATUS_NOT_FOUND, -704 },
        { YOLK_STORE_OP_REMOVE, STATUS_BUSY, -706 },
        { YOLK_STORE_OP_REMOVE, STATUS_EXISTS, -703 },
        { YOLK_STORE_OP_REMOVE_FORCE, STATUS_EXISTS, -703 },
        { YOLK_STORE_OP_REMOVE_FORCE, STATUS_BUSY, -703 },
        { YOLK_STORE_OP_REMOVE, STATUS_INVALID, -600 },
        { YOLK_STORE_OP_REPLICAS, STATUS_NOT_FOUND, -704 },
        { YOLK_STORE_OP_REPLICAS, STATUS_BUSY, -708 },
        { YOLK_STORE_OP_REPLICAS, STATUS_FULL, -1401 },
        { YOLK_STORE_OP_TASK, STATUS_NOT_FOUND, -1400 },
        { YOLK_STORE_OP_PUT_SESSION, STATUS_NOT_FOUND, -700 },
        { YOLK_STORE_OP_PUT_SESSION, STATUS_STALE, -700 },
        { YOLK_STORE_OP_PUT_SESSION, STATUS_BUSY, -708 },
        { YOLK_STORE_OP_PUT_SESSION, STATUS_CORRUPT, -801 },
        { YOLK_STORE_OP_GET_SESSION, STATUS_NOT_FOUND, -704 },
        { YOLK_STORE_OP_GET_SESSION, STATUS_STALE, -707 },
        { YOLK_STORE_OP_SEGMENT, STATUS_NOT_FOUND, -101 },
        { YOLK_STORE_OP_SEGMENT, STATUS_EXISTS, -102 },
        { YOLK_STORE_OP_TENANT, STATUS_BUSY, -1702 },
        { YOLK_STORE_OP_TENANT, STATUS_INVALID, -600 },
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(yolk_store_code(cases[i].op, cases[i].status), cases[i].code);
    assert_string_equal(yolk_store_code_name(-200), "NO_AVAILABLE_HANDLE");
    assert_string_equal(yolk_store_code_name(-999), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_code),
        cmocka_unit_test(codes_are_those_of_the_contract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
