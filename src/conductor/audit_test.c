/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/audit_test.c
 *
 * Goal:   a refusal is judged once, and by what happened: the queue before it and the pool after.
 * Method: each way a refusal can end by hand, then more refusals than the ring holds. */
#include "conductor/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct yolk_verdict REFUSED = { .policy = YOLK_POLICY_PREDICT,
                                             .refusal = YOLK_REFUSAL_TTFT };

static struct audit *make(void)
{
    struct audit *audit = NULL;
    assert_int_equal(audit_create(&audit), STATUS_OK);
    return audit;
}

/* Three are before it on instance 2; 100 ms of its own; limit 1000 ms; would decode 500 ms. */
static void refuse(struct audit *audit, double now_ms)
{
    const struct audit_case refused = { .request_id = "r",
                                        .tokens = 10,
                                        .prefill = 2,
                                        .ahead = 3,
                                        .own_ms = 100,
                                        .decode_ms = 500,
                                        .ttft_limit_ms = 1000,
                                        .now_ms = now_ms };
    audit_refuse(audit, &refused, &REFUSED);
}

static enum yolk_hindsight latest(const struct audit *audit)
{
    struct yolk_refused refused;
    assert_true(audit_get(audit, 0, &refused));
    assert_string_equal(refused.request_id, "r");
    return refused.hindsight;
}

static void counts_are(const struct audit *audit, uint64_t audited, uint64_t servable)
{
    uint64_t have_audited, have_servable;
    audit_counts(audit, &have_audited, &have_servable);
    assert_int_equal(have_audited, audited);
    assert_int_equal(have_servable, servable);
}

static void test_servable(void **state)
{
    (void)state;
    struct audit *audit = make();
    struct yolk_refused refused;

    assert_false(audit_get(audit, 0, &refused));
    assert_false(audit_wants_look(audit, 0));
    refuse(audit, 0);
    assert_true(audit_wants_look(audit, 0));
    audit_drained(audit, 1, 9, 100); /* another instance */
    audit_drained(audit, 2, 2, 200); /* one is still before it */
    audit_look(audit, 5, 200);       /* it has not joined: this load does not count */
    assert_false(audit_wants_look(audit, 250));
    audit_drained(audit, 2, 3, 300); /* would start now, and join at 400 */
    audit_look(audit, 1.0, 450);
    audit_look(audit, 5, 901); /* its decoding is over */
    assert_int_equal(latest(audit), YOLK_HINDSIGHT_SERVABLE);
    assert_true(audit_get(audit, 0, &refused));
    assert_true(refused.ttft_ms == 400 && refused.peak_load == 1.0);
    counts_are(audit, 1, 1);
    assert_false(audit_wants_look(audit, 2000));
    audit_destroy(audit);
}

static void test_right(void **state)
{
    (void)state;
    struct audit *audit = make();

    refuse(audit, 0); /* the queue takes too long */
    audit_drained(audit, 2, 3, 950);
    audit_look(audit, 0.1, 1700);
    assert_int_equal(latest(audit), YOLK_HINDSIGHT_RIGHT);
    refuse(audit, 2000); /* the queue never moves */
    audit_look(audit, 0.1, 2899);
    assert_int_equal(latest(audit), YOLK_HINDSIGHT_OPEN);
    audit_look(audit, 0.1, 2901);
    assert_int_equal(latest(audit), YOLK_HINDSIGHT_RIGHT);
    refuse(audit, 4000); /* the pool is full for a moment */
    audit_drained(audit, 2, UINT64_MAX, 4000);
    audit_look(audit, 0.5, 4200);
    audit_look(audit, 1.01, 4300);
    audit_look(audit, 0.5, 4400);
    audit_look(audit, 0.5, 4700);
    assert_int_equal(latest(audit), YOLK_HINDSIGHT_RIGHT);
    counts_are(audit, 3, 0);
    audit_destroy(audit);
}

static void test_ring(void **state)
{
    (void)state;
    struct audit *audit = make();
    struct yolk_refused refused;

    for (int i = 0; i < 3 * AUDIT_MAX; i++)
        refuse(audit, i);
    assert_true(audit_get(audit, AUDIT_MAX - 1, &refused));
    assert_true(refused.refused_ms == 2 * AUDIT_MAX);
    assert_false(audit_get(audit, AUDIT_MAX, &refused));
    audit_look(audit, 0, 1e6); /* those that were pushed out stay unjudged */
    counts_are(audit, AUDIT_MAX, 0);
    audit_destroy(audit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_servable),
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
