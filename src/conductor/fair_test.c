/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/fair_test.c
 *
 * Goal:   tenants with work waiting get equal tokens, whatever each asks for; nobody saves up while
 *         idle; one tenant alone is served in the order of arrival.
 * Method: queues served by stamp, by hand and in a seeded walk with greedy and modest tenants, in
 *         which what each has been served is added up. SEED repeats the walk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "conductor/fair.h"
#include "seed.h"

enum { WAITING_MAX = 4000, TOKENS_MAX = 1000, TENANTS = 4 };

struct waiting {
    uint64_t stamp, tenant;
    uint32_t tokens;
};

struct line {
    struct fair fair;
    struct waiting waiting[WAITING_MAX];
    uint32_t count;
};

static void come(struct line *line, uint64_t tenant, uint32_t tokens)
{
    assert_true(line->count < WAITING_MAX);
    line->waiting[line->count++] =
        (struct waiting){ fair_stamp(&line->fair, tenant, tokens), tenant, tokens };
}

/* The least stamp; of equals the first that came. */
static struct waiting serve(struct line *line)
{
    uint32_t best = 0;

    assert_true(line->count > 0);
    for (uint32_t i = 1; i < line->count; i++) {
        if (line->waiting[i].stamp < line->waiting[best].stamp) best = i;
    }
    const struct waiting served = line->waiting[best];
    for (uint32_t i = best; i + 1 < line->count; i++)
        line->waiting[i] = line->waiting[i + 1];
    line->count--;
    fair_served(&line->fair, served.stamp);
    return served;
}

static void one_tenant_is_served_in_order(void **state)
{
    (void)state;
    static struct line line;

    for (uint32_t i = 1; i <= 50; i++)
        come(&line, 7, i);
    for (uint32_t i = 1; i <= 50; i++)
        assert_int_equal(serve(&line).tokens, i);
}

static void a_modest_tenant_waits_for_one_request_not_for_all(void **state)
{
    (void)state;
    static struct line line;

    for (uint32_t i = 0; i < 100; i++)
        come(&line, 1, 500);
    assert_int_equal(serve(&line).tenant, 1);
    come(&line, 2, 10);
    come(&line, 2, 10);
    assert_int_equal(serve(&line).tenant, 2);
    assert_int_equal(serve(&line).tenant, 2);
    assert_int_equal(serve(&line).tenant, 1);
}

/* Who comes late is not owed what others had before. */
static void idle_tenants_save_nothing_up(void **state)
{
    (void)state;
    static struct line line;
    uint32_t had[3] = { 0 };

    for (uint32_t i = 0; i < 200; i++)
        come(&line, 1, 100);
    for (uint32_t i = 0; i < 100; i++)
        (void)serve(&line);
    for (uint32_t i = 0; i < 100; i++)
        come(&line, 2, 100);
    for (uint32_t i = 0; i < 100; i++) {
        const struct waiting served = serve(&line);
        had[served.tenant] += served.tokens;
        assert_in_range(had[1] + 200 - had[2], 0, 400);
    }
}

static void equal_tokens_while_all_have_work(void **state)
{
    (void)state;
    static struct line line;
    uint64_t had[TENANTS] = { 0 }, waiting[TENANTS] = { 0 };
    struct rng rng;

    rng_init(&rng, test_seed());
    for (uint32_t step = 0; step < 6000; step++) {
        for (uint64_t tenant = 0; tenant < TENANTS; tenant++) { /* tenant 3 asks for the most */
            const uint32_t tokens = 1 + (uint32_t)rng_below(&rng, TOKENS_MAX / (TENANTS - tenant));
            while (waiting[tenant] < 3 + 5 * tenant) {
                come(&line, tenant, tokens);
                waiting[tenant]++;
            }
        }
        const struct waiting served = serve(&line);
        waiting[served.tenant]--;
        had[served.tenant] += served.tokens;
        for (uint32_t i = 0; i < TENANTS; i++) {
            for (uint32_t j = 0; j < TENANTS; j++)
                assert_true(had[i] <= had[j] + 2 * (uint64_t)TOKENS_MAX);
        }
    }
    assert_true(had[0] > 100 * TOKENS_MAX);
}

/* More tenants than slots share them; nobody is lost, and idle ones make room again. */
static void more_tenants_than_slots(void **state)
{
    (void)state;
    static struct line line;

    for (uint64_t tenant = 0; tenant < 3 * FAIR_TENANTS; tenant++)
        come(&line, tenant, 10);
    for (uint64_t tenant = 0; tenant < 3 * FAIR_TENANTS; tenant++)
        (void)serve(&line);
    come(&line, 1, 10);
    come(&line, 2, 10);
    const uint64_t first = serve(&line).stamp, second = serve(&line).stamp;
    come(&line, 1000, 10);
    assert_true(serve(&line).stamp - second <= 10 && second - first <= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_tenant_is_served_in_order),
        cmocka_unit_test(a_modest_tenant_waits_for_one_request_not_for_all),
        cmocka_unit_test(idle_tenants_save_nothing_up),
        cmocka_unit_test(equal_tokens_while_all_have_work),
        cmocka_unit_test(more_tenants_than_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
