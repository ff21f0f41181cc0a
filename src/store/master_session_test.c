/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_session_test.c
 *
 * Goal:   a writer may ask for more time than others have, up to when the master takes it for dead;
 *         and as long as it may write, nobody else gets its range.
 * Method: tickets that are given up early, and puts that need their ranges, at chosen times. */
#include "store/master.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "seed.h"
#include "store/master_fixture.h"

enum { HALF = REGION_SIZE / 2, PUT_MS = 100, DISCARD_MS = 300, FENCE_MS = 40 };

static struct store_ticket ticket_for(struct model *model, unsigned key, uint32_t write_ms)
{
    const struct store_wish wish = { .write_ms = write_ms };
    struct store_ticket ticket = { 0 };
    char text[KEY_TEXT];
    assert_int_equal(store_master_put_start(model->master, model->now, 1 + key, key_of(key, text),
                                            HALF, &wish, &ticket),
                     STATUS_OK);
    return ticket;
}

static void give_back(struct model *model, unsigned key, const struct store_ticket *ticket)
{
    char text[KEY_TEXT];
    assert_int_equal(store_master_put_revoke(model->master, model->now, 1 + key, key_of(key, text),
                                             ticket->put_id),
                     STATUS_OK);
}

static void at(struct model *model, uint64_t now)
{
    model->now = now;
    assert_true(store_master_tick(model->master, now) > now);
    store_master_check(model->master);
}

static void time_is_given_within_limits(void **state)
{
    static struct model model;
    const uint32_t wished[] = { 0, PUT_MS - 1, PUT_MS + 50, DISCARD_MS, UINT32_MAX };
    const uint32_t given[] = { PUT_MS, PUT_MS, PUT_MS + 50, DISCARD_MS, DISCARD_MS };
    (void)state;

    model_init(&model);
    for (unsigned i = 0; i < 5; i++) {
        const struct store_ticket ticket = ticket_for(&model, i, wished[i]);
        assert_int_equal(ticket.expires_ns, model.now + given[i] * MS);
        const struct store_ticket again = ticket_for(&model, i, wished[i]);
        assert_int_equal(again.put_id, ticket.put_id);
        assert_int_equal(again.expires_ns, ticket.expires_ns);
    }
    store_master_destroy(model.master);
}

static void a_range_is_kept_as_long_as_its_writer_has(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    const uint64_t start = model.now;
    const struct store_ticket patient = ticket_for(&model, 1, DISCARD_MS);
    const struct store_ticket quick = ticket_for(&model, 2, 0);
    at(&model, start + 10 * MS);
    give_back(&model, 1, &patient);
    at(&model, start + 20 * MS);
    give_back(&model, 2, &quick);
    at(&model, start + (20 + PUT_MS + FENCE_MS - 1) * MS);
    assert_int_equal(try_put(&model, 3, HALF), STATUS_FULL);
    at(&model, start + (20 + PUT_MS + FENCE_MS) * MS); /* the range of the one that came later */
    const struct store_ticket next = ticket_for(&model, 3, 0);
    assert_int_equal(next.where.address, quick.where.address);
    at(&model, start + (DISCARD_MS + FENCE_MS - 1) * MS);
    assert_int_equal(try_put(&model, 4, HALF), STATUS_FULL);
    at(&model, start + (DISCARD_MS + FENCE_MS) * MS);
    assert_int_equal(ticket_for(&model, 4, 0).where.address, patient.where.address);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_is_given_within_limits),
        cmocka_unit_test(a_range_is_kept_as_long_as_its_writer_has),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
