/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_trust_test.c
 *
 * Goal:   a node doubts what it has exactly when it was out of touch for too long, or has found it
 *         on disk, until it has been in touch for long enough.
 * Method: times by hand, on both sides of each bound. */
#include "store/node_trust.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/env.h"

#define MS ENV_NS_PER_MS

/* Answers to what was sent every second from `from_ms` to `to_ms`. */
static void beats(struct node_trust *trust, uint64_t from_ms, uint64_t to_ms)
{
    for (uint64_t ms = from_ms; ms <= to_ms; ms += 1000)
        node_trust_heard(trust, ms * MS);
}

static void silence_is_doubt(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    assert_false(node_trust_doubts(&trust, 1000000 * MS)); /* nothing is held yet */
    beats(&trust, 1000, 60000);
    assert_false(node_trust_doubts(&trust, (60000 + NODE_DOUBT_MS) * MS - 1));
    assert_true(node_trust_doubts(&trust, (60000 + NODE_DOUBT_MS) * MS));
    node_trust_heard(&trust, 67000 * MS); /* the answer was only late */
    assert_false(node_trust_doubts(&trust, 67000 * MS));
    node_trust_heard(&trust, (67000 + NODE_DOUBT_MS) * MS);
    assert_true(node_trust_doubts(&trust, (67000 + NODE_DOUBT_MS) * MS));
}

static void being_in_touch_ends_it(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    node_trust_found(&trust);
    assert_true(node_trust_doubts(&trust, 1));
    beats(&trust, 1000, 20000);
    beats(&trust, 29000, 29000 + NODE_TRUST_MS - 1000); /* a gap: from the start */
    assert_true(node_trust_doubts(&trust, 29000 * MS));
    assert_true(node_trust_doubts(&trust, (29000 + NODE_TRUST_MS - 1000) * MS));
    node_trust_heard(&trust, (29000 + NODE_TRUST_MS) * MS);
    assert_false(node_trust_doubts(&trust, (29000 + NODE_TRUST_MS) * MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_doubt),
        cmocka_unit_test(being_in_touch_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
