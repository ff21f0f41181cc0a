/* SPDX-License-Identifier: Apache-2.0
 *
 * store/here_test.c
 *
 * Goal:   the addresses of this host, and no others, are here.
 * Method: addresses by hand, in all ways to write them, and those of a simulated host. */
#include "store/here.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/env_sim.h"
#include "base/log.h"

static void only_whole_addresses_are_here(void **state)
{
    const struct here here = { 3, { "10.0.1.1", "127.0.0.1", "fd00::1" } };
    (void)state;

    assert_true(here_is(&here, "10.0.1.1:7100"));
    assert_true(here_is(&here, "127.0.0.1:1"));
    assert_true(here_is(&here, "[fd00::1]:7100"));
    assert_true(here_is(&here, "10.0.1.1"));
    assert_false(here_is(&here, "10.0.1.11:7100"));
    assert_false(here_is(&here, "10.0.1.:7100"));
    assert_false(here_is(&here, "10.0.1.2:7100"));
    assert_false(here_is(&here, "[fd00::2]:7100"));
    assert_false(here_is(&here, "localhost:7100"));
    assert_false(here_is(&here, "[]:7100"));
    assert_false(here_is(&here, ":7100"));
    assert_false(here_is(&here, ""));
}

static void a_host_knows_its_own(void **state)
{
    const struct env_sim_options options = { .seed = 1 };
    struct env_sim *sim = env_sim_create(&options);
    struct here here;
    (void)state;

    struct env *env = env_sim_add(sim, "10.0.1.1");
    (void)env_sim_add(sim, "10.0.1.2");
    here_init(&here, env);
    assert_true(here_is(&here, "10.0.1.1:7100"));
    assert_false(here_is(&here, "10.0.1.2:7100"));
    env_sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_addresses_are_here),
        cmocka_unit_test(a_host_knows_its_own),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
