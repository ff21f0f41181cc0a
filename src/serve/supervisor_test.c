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

#define LIMIT_NS (60 * ENV_NS_PER_S)

enum { TURNS_MIN = 10 }; /* a busy machine may give none in so many milliseconds */

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
    for (int turns = 0; turns < TURNS_MIN || env_now_ns(env) < end; turns++)
        env_poll(env, 10 * ENV_NS_PER_MS);
}

/* Where children say by a file that they listen: a signal before that would be their end. */
struct room {
    char directory[32];
    char files[3][48];
};

static struct room room_new(void)
{
    struct room room = { .directory = "/tmp/yolk-supervisor-XXXXXX" };

    assert_non_null(mkdtemp(room.directory));
    for (int i = 0; i < 3; i++)
        snprintf(room.files[i], sizeof(room.files[i]), "%s/%d", room.directory, i);
    return room;
}

static void poll_until_there(struct env *env, const char *file)
{
    const uint64_t end = env_now_ns(env) + LIMIT_NS;
    while (access(file, F_OK) != 0) {
        assert_true(env_now_ns(env) < end);
        env_poll(env, ENV_NS_PER_MS);
    }
}

static void room_free(struct room *room)
{
    for (int i = 0; i < 3; i++)
        unlink(room->files[i]);
    assert_int_equal(rmdir(room->directory), 0);
}

static void child_that_ends_is_started_again(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    const char *argv[] = { "/bin/sh", "-c", "exit 1", NULL };

    assert_int_equal(supervisor_start(supervisor, "short", argv, NULL), STATUS_OK);
    const uint64_t start = env_now_ns(outcome.env);
    while (supervisor_restarts(supervisor) < 4) {
        assert_true(env_now_ns(outcome.env) - start < LIMIT_NS);
        env_poll(outcome.env, 10 * ENV_NS_PER_MS);
    }
    const uint64_t pauses_ms = (1 + 2 + 4 + 8) * SUPERVISOR_PAUSE_MS_MIN; /* each is doubled */
    assert_true(env_now_ns(outcome.env) - start >= pauses_ms * ENV_NS_PER_MS);
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
    struct room room = room_new();
    char script[256];
    const char *deaf[] = { "/bin/sh", "-c", script, NULL };

    snprintf(script, sizeof(script), "trap '' TERM; : >%s; while :; do sleep 1; done",
             room.files[0]);
    assert_int_equal(supervisor_start(supervisor, "deaf", deaf, NULL), STATUS_OK);
    poll_until_there(outcome.env, room.files[0]);
    supervisor_stop(supervisor);
    poll_for_ms(outcome.env, 300);
    assert_false(outcome.done);
    supervisor_stop(supervisor);
    env_run(outcome.env);
    assert_true(outcome.done);
    supervisor_destroy(supervisor);
    env_real_destroy(outcome.env);
    room_free(&room);
}

/* A stage is asked to end when those above it have: the lower child writes down whether the upper
 * one's pause was over. */
static void stages_end_in_turn(void **state)
{
    (void)state;
    struct outcome outcome = { 0 };
    struct supervisor *supervisor = supervisor_new(&outcome);
    struct room room = room_new();
    const char *file = room.files[0], *low_listens = room.files[1], *high_listens = room.files[2];
    char lower[256], upper[256];
    const char *low[] = { "/bin/sh", "-c", lower, NULL };
    const char *high[] = { "/bin/sh", "-c", upper, NULL };
    char *text = NULL;
    size_t len = 0;

    snprintf(lower, sizeof(lower),
             "trap 'echo low >>%s; exit 0' TERM; : >%s; while :; do sleep 0.02; done", file,
             low_listens);
    snprintf(upper, sizeof(upper),
             "trap 'sleep 0.2; echo high >>%s; exit 0' TERM; : >%s; while :; do sleep 0.02; done",
             file, high_listens);
    assert_int_equal(supervisor_start(supervisor, "low", low, NULL), STATUS_OK);
    supervisor_next_stage(supervisor);
    assert_int_equal(supervisor_start(supervisor, "high", high, NULL), STATUS_OK);
    poll_until_there(outcome.env, low_listens);
    poll_until_there(outcome.env, high_listens);
    supervisor_stop(supervisor);
    env_run(outcome.env);
    assert_true(outcome.done);
    supervisor_destroy(supervisor);
    assert_int_equal(env_file_read_all(outcome.env, file, 4096, &text, &len, NULL), STATUS_OK);
    assert_string_equal(text, "high\nlow\n");
    free(text);
    room_free(&room);
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
