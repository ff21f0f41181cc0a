/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/supervisor_test.c
 *
 * Goal:   what dies is started again, what its user must fix ends the set, and stopping leaves
 *         nobody behind, not even a child that ignores SIGTERM.
 * Method: real children (/bin/sh) on the real env. */
#include "serve/supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"

struct outcome {
    struct env *env;
    bool done;
    bool user_error;
};

static void on_done(void *ctx, bool user_error)
{
    struct outcome *outcome = ctx;
    assert_false(outcome->done);
    outcome->done = true;
    outcome->user_error = user_error;
    env_stop(outcome->env);
}

static struct supervisor *supervisor_new(struct outcome *outcome)
{
    struct supervisor *supervisor = NULL;
    assert_int_equal(env_real_create(NULL, &outcome->env, NULL), STATUS_OK);
    struct supervisor_options options = { outcome->env, on_done, outcome, 0 };
    assert_int_equal(supervisor_create(&options, &supervisor), STATUS_OK);
    return supervisor;
}

static void poll_for_ms(struct env *env, uint64_t ms)
{
    const uint64_t end = env_now_ns(env) + ms * ENV_NS_PER_MS;
    while (env_now_ns(env) < end)
        env_poll(env, 10 * ENV_NS_PER_MS);
}

static void child_that_ends_is_started_again(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    const char *argv[] = { "/bin/sh", "-c", "exit 1", NULL };

    assert_int_equal(supervisor_start(supervisor, "short", argv, NULL), STATUS_OK);
    poll_for_ms(outcome.env, 1000);
    assert_true(supervisor_restarts(supervisor) >= 2);
    assert_true(supervisor_restarts(supervisor) <= 5); /* the pause doubles */
    assert_false(outcome.done);
    supervisor_stop(supervisor);
    if (!outcome.done) env_run(outcome.env);
    assert_false(outcome.user_error);
    supervisor_destroy(supervisor);
    env_real_destroy(outcome.env);
}

static void user_error_ends_all(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    const char *sleeper[] = { "/bin/sh", "-c", "exec sleep 60", NULL };
    const char *refuser[] = { "/bin/sh", "-c", "exit 2", NULL };

    assert_int_equal(supervisor_start(supervisor, "sleeper", sleeper, NULL), STATUS_OK);
    assert_int_equal(supervisor_start(supervisor, "refuser", refuser, NULL), STATUS_OK);
    env_run(outcome.env);
    assert_true(outcome.done);
    assert_true(outcome.user_error);
    assert_int_equal(supervisor_restarts(supervisor), 0);
    supervisor_destroy(supervisor);
    env_real_destroy(outcome.env);
}

static void second_stop_insists(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    const char *deaf[] = { "/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done", NULL };

    assert_int_equal(supervisor_start(supervisor, "deaf", deaf, NULL), STATUS_OK);
    poll_for_ms(outcome.env, 300);
    supervisor_stop(supervisor);
    poll_for_ms(outcome.env, 300);
    assert_false(outcome.done);
    supervisor_stop(supervisor);
    env_run(outcome.env);
    assert_true(outcome.done);
    supervisor_destroy(supervisor);
    env_real_destroy(outcome.env);
}

/* A stage is asked to end when those above it have: the lower child writes down whether the upper
 * one's pause was over. */
static void stages_end_in_turn(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    char directory[] = "/tmp/yolk-stages-XXXXXX", lower[256], upper[256], file[64];
    const char *low[] = { "/bin/sh", "-c", lower, NULL };
    const char *high[] = { "/bin/sh", "-c", upper, NULL };
    char *text = NULL;
    size_t len = 0;

    assert_non_null(mkdtemp(directory));
    snprintf(file, sizeof(file), "%s/order", directory);
    snprintf(lower, sizeof(lower),
             "trap 'echo low >>%s; exit 0' TERM; while :; do sleep 0.02; done", file);
    snprintf(upper, sizeof(upper),
             "trap 'sleep 0.2; echo high >>%s; exit 0' TERM; while :; do sleep 0.02; done", file);
    assert_int_equal(supervisor_start(supervisor, "low", low, NULL), STATUS_OK);
    supervisor_next_stage(supervisor);
    assert_int_equal(supervisor_start(supervisor, "high", high, NULL), STATUS_OK);
    poll_for_ms(outcome.env, 300);
    supervisor_stop(supervisor);
    env_run(outcome.env);
    assert_true(outcome.done);
    supervisor_destroy(supervisor);
    assert_int_equal(env_file_read_all(outcome.env, file, 4096, &text, &len, NULL), STATUS_OK);
    assert_string_equal(text, "high\nlow\n");
    free(text);
    assert_int_equal(env_file_remove(outcome.env, file), STATUS_OK);
    assert_int_equal(rmdir(directory), 0);
    env_real_destroy(outcome.env);
}

static void command_that_is_not_there_is_refused(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    const char *nothing[] = { "/nowhere/yolk", NULL };
    struct errmsg err = { "" };

    assert_int_equal(supervisor_start(supervisor, "nothing", nothing, &err), STATUS_NOT_FOUND);
    assert_string_not_equal(err.text, "");
    supervisor_destroy(supervisor);
    env_real_destroy(outcome.env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_that_ends_is_started_again),
        cmocka_unit_test(user_error_ends_all),
        cmocka_unit_test(second_stop_insists),
        cmocka_unit_test(stages_end_in_turn),
        cmocka_unit_test(command_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
