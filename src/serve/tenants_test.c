/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/tenants_test.c
 *
 * Goal:   a key is its tenant's and nobody else's; files that are no lists of keys are refused with
 *         the line, and never with the key; limits hold over any minute.
 * Method: files by hand; a random walk against a bucket in long double; and over each walk, what
 *         was taken in any window against what the limit allows. SEED=n replays. */
#include "serve/tenants.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/rng.h"
#include "seed.h"

static const char KEYS[] = "# all of them\n"
                           "sk-0123456789abcd  research  requests=60 tokens=600 # fast\r\n"
                           "\n"
                           "\tsk-fedcba98765432 sales salted\n"
                           "sk-second-of-research research";

static struct tenants *parse(const char *text, uint64_t now_ns)
{
    struct tenants *tenants = NULL;
    struct errmsg err = { "" };
    if (tenants_parse(text, strlen(text), now_ns, &tenants, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return tenants;
}

static void keys_are_their_tenants(void **state)
{
    (void)state;
    struct tenants *tenants = parse(KEYS, 0);
    struct tenant *research = tenants_find(tenants, "sk-0123456789abcd");
    struct tenant *sales = tenants_find(tenants, "sk-fedcba98765432");

    assert_string_equal(tenant_name(research), "research");
    assert_string_equal(tenant_name(sales), "sales");
    assert_ptr_equal(tenants_find(tenants, "sk-second-of-research"), research);
    assert_true(tenant_is_salted(sales) && !tenant_is_salted(research));
    assert_int_equal(tenant_requests(research, 0).limit, 60);
    assert_int_equal(tenant_tokens(research, 0).remaining, 600);
    assert_int_equal(tenant_requests(sales, 0).limit, 0);
    assert_null(tenants_find(tenants, NULL));
    assert_null(tenants_find(tenants, ""));
    assert_null(tenants_find(tenants, "sk-0123456789abc"));
    assert_null(tenants_find(tenants, "sk-0123456789abcde"));
    assert_null(tenants_find(tenants, "research"));
    tenants_destroy(tenants);
}

static void bad_files_are_refused_by_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } BAD[] = {
        { "", "no key" },
        { "# nothing\n", "no key" },
        { "\n\nsk-0123456789abcd\n", "line 3" },
        { "short x\n", "line 1" },
        { "sk-0123456789abcd a/b\n", "line 1" },
        { "sk-0123456789abcd a requests=0\n", "option 1" },
        { "sk-0123456789abcd a salted requests=-1\n", "option 2" },
        { "sk-0123456789abcd a tokens=1e6\n", "option 1" },
        { "sk-0123456789abcd a tokens=99999999999999999999\n", "option 1" },
        { "sk-0123456789abcd a fast\n", "option 1" },
        { "sk-0123456789abcd a\nsk-0123456789abcd b\n", "line 2" },
        { "sk-0123456789abcd a\nsk-1123456789abcd a salted\n", "first line" },
        { "sk-0123456789abcd a b c d e f g h i\n", "line 1" },
        { "sk-0123456\x01 a\n", "line 1" },
    };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        struct tenants *tenants = NULL;
        struct errmsg err = { "" };
        if (tenants_parse(BAD[i].text, strlen(BAD[i].text), 0, &tenants, &err) == STATUS_OK)
            fail_msg("accepted: %s", BAD[i].text);
        if (strstr(err.text, BAD[i].word) == NULL) fail_msg("%s: %s", BAD[i].text, err.text);
        assert_null(strstr(err.text, "sk-"));
        assert_null(strstr(err.text, "0123456"));
    }
}

static void there_are_limits_on_files(void **state)
{
    (void)state;
    enum { LINE = 32 };
    static char text[(TENANTS_KEYS_MAX + 1) * LINE];
    struct tenants *tenants = NULL;
    struct errmsg err = { "" };

    for (int same = 0; same < 2; same++) {
        const int count = same ? TENANTS_KEYS_MAX : TENANTS_MAX;
        size_t len = 0;
        for (int i = 0; i < count; i++)
            len += (size_t)snprintf(text + len, LINE, "sk-key-%08d t%d\n", i, same ? 0 : i);
        assert_int_equal(tenants_parse(text, len, 0, &tenants, &err), STATUS_OK);
        assert_non_null(tenants_find(tenants, "sk-key-00000255"));
        tenants_destroy(tenants);
        len += (size_t)snprintf(text + len, LINE, "sk-key-%08d more\n", count);
        assert_int_equal(tenants_parse(text, len, 0, &tenants, &err), STATUS_INVALID);
    }
}

/* The level by definition: a steady flow in, never above a minute's worth, and what is taken. */
static void buckets_match_the_definition(void **state)
{
    enum { STEPS = 3000, PER_MINUTE = 600 };
    struct tenants *tenants = parse(KEYS, 0);
    struct tenant *tenant = tenants_find(tenants, "sk-0123456789abcd");
    long double level = PER_MINUTE;
    uint64_t now = 0;
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int i = 0; i < STEPS; i++) {
        const uint64_t step = rng_below(&rng, 3 * ENV_NS_PER_S);
        const uint32_t amount = (uint32_t)rng_below(&rng, i % 50 == 0 ? 2000 : 60);
        const long double needed = amount < PER_MINUTE ? amount : PER_MINUTE;
        uint64_t wait_ns = 0;
        now += step;
        level = fminl(PER_MINUTE, level + (long double)step / ENV_NS_PER_S * PER_MINUTE / 60);
        const enum status status = tenant_take_tokens(tenant, amount, now, &wait_ns);
        if (status == STATUS_OK) {
            assert_true(level >= needed - 1e-6L);
            level -= amount;
        } else {
            const long double short_by = needed - level;
            assert_true(short_by > -1e-6L);
            assert_true(fabsl((long double)wait_ns / ENV_NS_PER_S - short_by / 10) < 1e-6L);
        }
        const long double seen = tenant_tokens(tenant, now).remaining;
        assert_true(fabsl(fmaxl(0, level) - seen) < 1.000001L);
    }
    tenants_destroy(tenants);
}

static void requests_come_at_once_then_one_a_second(void **state)
{
    (void)state;
    struct tenants *tenants = parse(KEYS, 0);
    struct tenant *tenant = tenants_find(tenants, "sk-0123456789abcd");
    uint64_t wait_ns = 0, now = 0;

    for (int i = 0; i < 60; i++)
        assert_int_equal(tenant_take_request(tenant, now, &wait_ns), STATUS_OK);
    assert_int_equal(tenant_take_request(tenant, now, &wait_ns), STATUS_FULL);
    assert_int_equal(wait_ns, ENV_NS_PER_S);
    for (int i = 0; i < 5; i++) {
        now += ENV_NS_PER_S;
        assert_int_equal(tenant_take_request(tenant, now, &wait_ns), STATUS_OK);
        assert_int_equal(tenant_take_request(tenant, now, &wait_ns), STATUS_FULL);
    }
    assert_int_equal(tenant_requests(tenant, now).remaining, 0);
    assert_int_equal(tenant_requests(tenant, now).full_ns, 60 * ENV_NS_PER_S);
    /* A clock that goes back gives nothing and breaks nothing. */
    assert_int_equal(tenant_take_request(tenant, 0, &wait_ns), STATUS_FULL);
    tenants_destroy(tenants);
}

/* Answers are charged when they are over, and paid for before the next prompt. */
static void answers_make_debts(void **state)
{
    (void)state;
    struct tenants *tenants = parse(KEYS, 0);
    struct tenant *tenant = tenants_find(tenants, "sk-0123456789abcd");
    uint64_t wait_ns = 0;

    assert_int_equal(tenant_take_tokens(tenant, 500, 0, &wait_ns), STATUS_OK);
    tenant_charge_tokens(tenant, 700, 0); /* 600 below nothing */
    assert_int_equal(tenant_tokens(tenant, 0).remaining, 0);
    assert_int_equal(tenant_take_tokens(tenant, 10, 60 * ENV_NS_PER_S, &wait_ns), STATUS_FULL);
    assert_int_equal(wait_ns, ENV_NS_PER_S);
    assert_int_equal(tenant_take_tokens(tenant, 10, 61 * ENV_NS_PER_S, &wait_ns), STATUS_OK);
    /* A prompt of more than a minute's worth passes when the bucket is full. */
    assert_int_equal(tenant_take_tokens(tenant, 5000, 100 * ENV_NS_PER_S, &wait_ns), STATUS_FULL);
    assert_int_equal(tenant_take_tokens(tenant, 5000, 130 * ENV_NS_PER_S, &wait_ns), STATUS_OK);
    assert_int_equal(tenant_take_tokens(tenant, 1, 500 * ENV_NS_PER_S, &wait_ns), STATUS_FULL);
    tenants_destroy(tenants);
}

/* What was spent stays spent, limits are the new ones, keys that are gone are nobody's, and who
 * holds a tenant that is gone still holds one. */
static void new_keys_take_the_place_of_old_ones(void **state)
{
    (void)state;
    struct tenants *tenants = parse(KEYS, 0);
    struct tenants *next = parse("sk-0123456789abcd research requests=60 tokens=100 salted\n"
                                 "sk-of-somebody-new other requests=5\n"
                                 "sk-fedcba98765432 other\n",
                                 0);
    struct tenant *research = tenants_find(tenants, "sk-0123456789abcd");
    struct tenant *sales = tenants_find(tenants, "sk-fedcba98765432");
    uint64_t wait_ns;

    for (int i = 0; i < 60; i++)
        assert_int_equal(tenant_take_request(research, 0, &wait_ns), STATUS_OK);
    tenants_update(tenants, next, 0);
    tenants_destroy(next);
    assert_ptr_equal(tenants_find(tenants, "sk-0123456789abcd"), research);
    assert_int_equal(tenant_take_request(research, 0, &wait_ns), STATUS_FULL);
    assert_int_equal(tenant_tokens(research, 0).limit, 100);
    assert_int_equal(tenant_tokens(research, 0).remaining, 100);
    assert_true(tenant_is_salted(research));
    assert_null(tenants_find(tenants, "sk-second-of-research"));
    assert_string_equal(tenant_name(tenants_find(tenants, "sk-fedcba98765432")), "other");
    assert_int_equal(tenant_requests(tenants_find(tenants, "sk-of-somebody-new"), 0).remaining, 5);
    assert_string_equal(tenant_name(sales), "sales");
    tenants_destroy(tenants);
}

/* Again and again other tenants, as many as there can be: the places of those that are gone do. */
static void places_are_used_again(void **state)
{
    (void)state;
    static char text[TENANTS_MAX * 64];
    struct tenants *tenants = parse(KEYS, 0);

    for (unsigned round = 0; round < 4; round++) {
        char key[32], name[32];
        size_t len = 0;
        for (unsigned i = 0; i < TENANTS_MAX; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "sk-%08u t%u\n",
                                    round * 1000 + i, round * 200 + i);
        struct tenants *next = parse(text, 0);
        tenants_update(tenants, next, 0);
        tenants_destroy(next);
        for (unsigned i = 0; i < TENANTS_MAX; i++) {
            snprintf(key, sizeof(key), "sk-%08u", round * 1000 + i);
            snprintf(name, sizeof(name), "t%u", round * 200 + i);
            assert_string_equal(tenant_name(tenants_find(tenants, key)), name);
        }
    }
    tenants_destroy(tenants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_their_tenants),
        cmocka_unit_test(new_keys_take_the_place_of_old_ones),
        cmocka_unit_test(places_are_used_again),
        cmocka_unit_test(bad_files_are_refused_by_line),
        cmocka_unit_test(there_are_limits_on_files),
        cmocka_unit_test(buckets_match_the_definition),
        cmocka_unit_test(requests_come_at_once_then_one_a_second),
        cmocka_unit_test(answers_make_debts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
