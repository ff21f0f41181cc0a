/* SPDX-License-Identifier: Apache-2.0
 *
 * store/board_test.c
 *
 * Goal:   a reader finds the same exactly while the owner lives, vouches, and has had no change
 *         that shares the value's counter.
 * Method: a simulated host, an owner and a reader; then a random walk of both beside a model that
 *         remembers all changes. */
#include "store/board.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/env_sim.h"
#include "base/rng.h"
#include "seed.h"
#include "store/node_trust.h"

enum { EPOCH = 77, STEPS = 20000, IDS = 8 };

static struct env_sim *sim;
static struct env *owner, *reader;
static struct board *board;
static struct boards *boards;

static int setup(void **state)
{
    (void)state;
    sim = env_sim_create(&(struct env_sim_options){ .seed = test_seed() });
    owner = env_sim_add(sim, "h");
    reader = env_sim_add(sim, "h");
    assert_int_equal(board_create(owner, EPOCH, &board), STATUS_OK);
    assert_int_equal(boards_create(reader, &boards), STATUS_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    boards_destroy(boards);
    board_destroy(board);
    env_sim_destroy(sim);
    return 0;
}

/* Two in a row share a counter. */
static struct block_key id_of(unsigned n)
{
    struct block_key id = { { 0 } };
    id.bytes[0] = (uint8_t)(n / 2);
    id.bytes[15] = (uint8_t)n;
    return id;
}

static void run_ms(uint64_t ms)
{
    env_sim_run_for(sim, ms * ENV_NS_PER_MS);
}

static void vouch(uint64_t ms)
{
    board_post(board, env_now_ns(owner) + ms * ENV_NS_PER_MS);
}

static uint32_t look(unsigned n)
{
    const struct block_key id = id_of(n);
    uint32_t stamp;
    assert_true(boards_look(boards, EPOCH, &id, &stamp));
    return stamp;
}

static bool same(unsigned n, uint32_t stamp)
{
    const struct block_key id = id_of(n);
    boards_turn(boards);
    return boards_same(boards, EPOCH, &id, stamp);
}

static void changed(unsigned n)
{
    const struct block_key id = id_of(n);
    board_changed(board, &id);
}

static void a_change_is_seen(void **state)
{
    (void)state;
    boards_heard(boards, EPOCH, board_name(board));
    const uint32_t zero = look(0), two = look(2);
    assert_false(same(0, zero)); /* it does not vouch */
    vouch(1000);
    assert_true(same(0, zero) && same(2, two));
    changed(1);
    assert_false(same(0, zero)); /* its neighbour's change may be its own */
    assert_true(same(2, two));
    assert_true(same(0, look(0)));
}

static void it_vouches_no_longer_than_it_says(void **state)
{
    (void)state;
    boards_heard(boards, EPOCH, board_name(board));
    const uint32_t stamp = look(0);
    vouch(500);
    run_ms(499);
    assert_true(same(0, stamp));
    run_ms(1);
    assert_false(same(0, stamp));
    vouch(NODE_VOUCH_MS);
    assert_true(same(0, stamp));
    vouch(NODE_VOUCH_MS + 1); /* of another clock */
    assert_false(same(0, stamp));
    vouch(500);
    board_post(board, 0);
    assert_false(same(0, stamp));
}

static void a_dead_owner_says_nothing(void **state)
{
    struct board *next;
    const struct block_key id = id_of(0);
    (void)state;
    boards_heard(boards, EPOCH, board_name(board));
    const uint32_t stamp = look(0);
    vouch(1000);
    assert_true(same(0, stamp));
    env_sim_kill(owner);
    assert_false(same(0, stamp));
    owner = env_sim_add(sim, "h");
    assert_int_equal(board_create(owner, EPOCH + 1, &next), STATUS_OK);
    board_post(next, env_now_ns(owner) + ENV_NS_PER_MS);
    boards_heard(boards, EPOCH + 1, board_name(next));
    assert_false(same(0, stamp));
    assert_true(boards_same(boards, EPOCH + 1, &id, stamp));
    board_destroy(next); /* in good order */
    boards_turn(boards);
    assert_false(boards_same(boards, EPOCH + 1, &id, stamp));
}

/* On another host, of a stranger, or nothing at all; found later, where that is possible. */
static void what_is_not_seen_is_not_believed(void **state)
{
    struct boards *far;
    uint32_t stamp;
    const struct block_key id = id_of(0);
    (void)state;
    vouch(1000);
    boards_heard(boards, EPOCH, "");
    assert_false(boards_look(boards, EPOCH, &id, &stamp));
    boards_heard(boards, EPOCH, "sim:h:99");
    assert_false(boards_look(boards, EPOCH, &id, &stamp));
    boards_heard(boards, EPOCH, board_name(board)); /* too soon */
    assert_false(boards_look(boards, EPOCH, &id, &stamp));
    run_ms(BOARD_RETRY_MS);
    boards_heard(boards, EPOCH, board_name(board));
    assert_true(boards_look(boards, EPOCH, &id, &stamp));
    boards_heard(boards, EPOCH + 1, board_name(board)); /* not his */
    assert_false(boards_look(boards, EPOCH + 1, &id, &stamp));
    assert_false(boards_same(boards, EPOCH + 1, &id, stamp));
    boards_heard(boards, 0, board_name(board));
    assert_false(boards_look(boards, 0, &id, &stamp));

    struct env *elsewhere = env_sim_add(sim, "h2");
    assert_int_equal(boards_create(elsewhere, &far), STATUS_OK);
    boards_heard(far, EPOCH, board_name(board));
    assert_false(boards_look(far, EPOCH, &id, &stamp));
    boards_destroy(far);
}

static void of_many_owners_the_last_ones_are_looked_at(void **state)
{
    const struct block_key id = id_of(0);
    uint32_t stamp;
    (void)state;
    boards_heard(boards, EPOCH, board_name(board));
    for (unsigned i = 1; i <= BOARDS_MAX; i++) {
        char name[ENV_SHARE_NAME_SIZE];
        snprintf(name, sizeof(name), "sim:elsewhere:%u", i);
        assert_true(boards_look(boards, EPOCH, &id, &stamp));
        boards_heard(boards, EPOCH + i, name);
    }
    assert_false(boards_look(boards, EPOCH, &id, &stamp));
    boards_heard(boards, EPOCH, board_name(board));
    assert_true(boards_look(boards, EPOCH, &id, &stamp));
}

static void without_a_board_nothing_is_posted(void **state)
{
    const struct block_key id = id_of(0);
    (void)state;
    board_post(NULL, 1);
    board_changed(NULL, &id);
    assert_string_equal(board_name(NULL), "");
    board_destroy(NULL);
    boards_destroy(NULL);
}

static void it_agrees_with_a_model(void **state)
{
    struct rng rng;
    uint32_t stamps[IDS];
    bool clean[IDS]; /* nothing has changed since the stamp */
    uint64_t until_ns = 0;
    unsigned found = 0;
    (void)state;

    rng_init(&rng, test_seed());
    boards_heard(boards, EPOCH, board_name(board));
    for (unsigned i = 0; i < IDS; i++) {
        stamps[i] = look(i);
        clean[i] = true;
    }
    for (unsigned step = 0; step < STEPS; step++) {
        const unsigned n = (unsigned)rng_below(&rng, IDS);
        switch (rng_below(&rng, 6)) {
        case 0:
            changed(n);
            clean[n / 2 * 2] = clean[n / 2 * 2 + 1] = false;
            break;
        case 1:
            until_ns = env_now_ns(owner) + rng_below(&rng, 10) * ENV_NS_PER_MS;
            board_post(board, until_ns);
            break;
        case 2: run_ms(rng_below(&rng, 4)); break;
        case 3:
            stamps[n] = look(n);
            clean[n] = true;
            break;
        default:
            assert_int_equal(same(n, stamps[n]), clean[n] && env_now_ns(reader) < until_ns);
            found += same(n, stamps[n]);
            break;
        }
    }
    assert_true(found > STEPS / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_change_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(it_vouches_no_longer_than_it_says, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_owner_says_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_seen_is_not_believed, setup, teardown),
        cmocka_unit_test_setup_teardown(of_many_owners_the_last_ones_are_looked_at, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(without_a_board_nothing_is_posted, setup, teardown),
        cmocka_unit_test_setup_teardown(it_agrees_with_a_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
