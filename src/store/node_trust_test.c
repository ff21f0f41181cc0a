/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_trust_test.c
 *
 * Goal:   a node doubts what it has exactly when it was out of touch for too long, or has found it
 *         on disk, or was not long enough with the master of a later term, or may have missed one,
 *         until it has been in touch for long enough; and vouches exactly while it neither doubts
 *         nor has been silent for a short time.
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
        node_trust_heard(trust, 5, ms * MS);
}

static void silence_is_doubt(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    assert_false(node_trust_doubts(&trust, 5, 1000000 * MS)); /* nothing is held yet */
    beats(&trust, 1000, 60000);
    assert_false(node_trust_doubts(&trust, 5, (60000 + NODE_DOUBT_MS) * MS - 1));
    assert_true(node_trust_doubts(&trust, 5, (60000 + NODE_DOUBT_MS) * MS));
    node_trust_heard(&trust, 5, 67000 * MS); /* the answer was only late */
    assert_false(node_trust_doubts(&trust, 5, 67000 * MS));
    node_trust_heard(&trust, 5, (67000 + NODE_DOUBT_MS) * MS);
    assert_true(node_trust_doubts(&trust, 5, (67000 + NODE_DOUBT_MS) * MS));
}

static void being_in_touch_ends_it(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    node_trust_found(&trust);
    assert_true(node_trust_doubts(&trust, 5, 1));
    beats(&trust, 1000, 20000);
    beats(&trust, 29000, 29000 + NODE_TRUST_MS - 1000); /* a gap: from the start */
    assert_true(node_trust_doubts(&trust, 5, 29000 * MS));
    assert_true(node_trust_doubts(&trust, 5, (29000 + NODE_TRUST_MS - 1000) * MS));
    node_trust_heard(&trust, 5, (29000 + NODE_TRUST_MS) * MS);
    assert_false(node_trust_doubts(&trust, 5, (29000 + NODE_TRUST_MS) * MS));
}

/* A master of term 6 has us too short: the next one is told that it may have replaced what is of
 * term 5, and not what it granted itself. */
static void a_short_master_leaves_doubt(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    beats(&trust, 1000, 1000 + NODE_TRUST_MS);
    node_trust_heard(&trust, 6, (2000 + NODE_TRUST_MS) * MS);
    assert_false(node_trust_doubts(&trust, 5, (2000 + NODE_TRUST_MS) * MS)); /* that one knows */
    node_trust_heard(&trust, 7, (3000 + NODE_TRUST_MS) * MS);
    assert_true(node_trust_doubts(&trust, 0, (3000 + NODE_TRUST_MS) * MS));
    assert_true(node_trust_doubts(&trust, 5, (3000 + NODE_TRUST_MS) * MS));
    assert_false(node_trust_doubts(&trust, 6, (3000 + NODE_TRUST_MS) * MS));
    for (uint64_t ms = 4000; ms < 3000 + NODE_TRUST_MS; ms += 1000)
        node_trust_heard(&trust, 7, (ms + NODE_TRUST_MS) * MS);
    assert_true(node_trust_doubts(&trust, 5, (2000 + 2 * NODE_TRUST_MS) * MS));
    node_trust_heard(&trust, 7, (3000 + 2 * NODE_TRUST_MS) * MS);
    assert_false(node_trust_doubts(&trust, 5, (3000 + 2 * NODE_TRUST_MS) * MS));
}

/* A master that it never heard may have settled without it, taken puts of its keys, and gone: the
 * next one is told so, though it comes long before silence alone is doubt. */
static void a_master_may_have_been_missed(void **state)
{
    struct node_trust trust = { 0 };
    const uint64_t last = 1000 + NODE_TRUST_MS;
    (void)state;

    beats(&trust, 1000, last);
    node_trust_heard(&trust, 6, (last + NODE_VOUCH_MS) * MS - 1); /* none had the time */
    assert_false(node_trust_doubts(&trust, 5, (last + NODE_VOUCH_MS) * MS));
    trust = (struct node_trust){ 0 };
    beats(&trust, 1000, last);
    node_trust_heard(&trust, 5, (last + NODE_VOUCH_MS) * MS); /* it was there all along */
    assert_false(node_trust_doubts(&trust, 5, (last + NODE_VOUCH_MS) * MS));
    trust = (struct node_trust){ 0 };
    beats(&trust, 1000, last);
    node_trust_heard(&trust, 7, (last + NODE_VOUCH_MS) * MS);
    assert_true(node_trust_doubts(&trust, 5, (last + NODE_VOUCH_MS) * MS));
    assert_false(node_trust_doubts(&trust, 7, (last + NODE_VOUCH_MS) * MS));
    node_trust_heard(&trust, 7, (last + NODE_VOUCH_MS + NODE_DOUBT_MS - 1) * MS);
    for (uint64_t ms = 1000; ms <= NODE_TRUST_MS; ms += 1000)
        node_trust_heard(&trust, 7, (last + NODE_VOUCH_MS + ms) * MS);
    assert_false(node_trust_doubts(&trust, 5, (last + NODE_VOUCH_MS + NODE_TRUST_MS) * MS));
}

static void who_is_in_touch_vouches(void **state)
{
    struct node_trust trust = { 0 };
    (void)state;

    assert_false(node_trust_vouches(&trust, 1)); /* it was never in touch */
    beats(&trust, 1000, 5000);
    assert_true(node_trust_vouches(&trust, 5000 * MS));
    assert_true(node_trust_vouches(&trust, (5000 + NODE_VOUCH_MS) * MS - 1));
    assert_false(node_trust_vouches(&trust, (5000 + NODE_VOUCH_MS) * MS));
    node_trust_heard(&trust, 5, 10000 * MS);
    assert_true(node_trust_vouches(&trust, 10000 * MS));
    node_trust_left(&trust);
    assert_false(node_trust_vouches(&trust, 10000 * MS));
    node_trust_heard(&trust, 5, 11000 * MS); /* joined again */
    assert_true(node_trust_vouches(&trust, 11000 * MS));
    node_trust_quiet(&trust, 11000 * MS);
    assert_false(node_trust_vouches(&trust, 11001 * MS));
    beats(&trust, 12000, 22000);
    assert_true(node_trust_vouches(&trust, (11000 + NODE_QUIET_MS) * MS));
    node_trust_heard(&trust, 5, (22000 + NODE_DOUBT_MS) * MS);
    assert_false(node_trust_vouches(&trust, (22000 + NODE_DOUBT_MS) * MS)); /* in doubt */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_doubt),
        cmocka_unit_test(being_in_touch_ends_it),
        cmocka_unit_test(a_short_master_leaves_doubt),
        cmocka_unit_test(a_master_may_have_been_missed),
        cmocka_unit_test(who_is_in_touch_vouches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
