/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_test.c
 *
 * Goal:    what only the real body has: posts from threads, limits of descriptors, children,
 *          signals.
 * Method:  one loop, real threads, real children (the shell), real signals. What both bodies share
 *          is in env_test.c. */
#include "base/env_real.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"

#define LIMIT_NS (120 * ENV_NS_PER_S) /* a sanitizer on a busy machine takes its time */

static bool run_until(struct env *env, const bool *done)
{
    const uint64_t end = env_now_ns(env) + LIMIT_NS;
    while (!*done && env_now_ns(env) < end) {
        (void)env_poll(env, 10 * ENV_NS_PER_MS);
    }
    return *done;
}

static struct env *env_new(uint32_t streams_max)
{
    struct env *env;
    const struct env_real_options options = { .streams_max = streams_max };
    assert_int_equal(env_real_create(&options, &env, NULL), STATUS_OK);
    return env;
}

/* ---- posts ---- */

enum { POSTERS = 3, POSTS_EACH = 20000 };

struct poster {
    struct env *env;
    uint32_t next; /* the loop's: what this poster's next post must be */
    uint32_t total;
    struct post_item {
        struct poster *poster;
        uint32_t number;
    } * items;
};

static void on_item(void *ctx)
{
    struct post_item *item = ctx;
    assert_int_equal(item->number, item->poster->next);
    item->poster->next++;
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    for (uint32_t i = 0; i < POSTS_EACH; i++) {
        poster->items[i] = (struct post_item){ .poster = poster, .number = i };
        while (env_post(poster->env, on_item, &poster->items[i]) == STATUS_FULL) {
        }
        if (i % 1000 == 0) env_real_sleep_ns(ENV_NS_PER_US * 50); /* lets the loop fall asleep */
    }
    return NULL;
}

static void posts_of_threads_all_arrive_in_order(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];

    for (int i = 0; i < POSTERS; i++) {
        posters[i] =
            (struct poster){ .env = env, .items = calloc(POSTS_EACH, sizeof(struct post_item)) };
        assert_non_null(posters[i].items);
        assert_int_equal(pthread_create(&threads[i], NULL, post_all, &posters[i]), 0);
    }
    const uint64_t end = env_now_ns(env) + LIMIT_NS;
    uint32_t arrived = 0;
    while (arrived < POSTERS * POSTS_EACH && env_now_ns(env) < end) {
        (void)env_poll(env, LIMIT_NS); /* a lost wake-up would wait it out */
        arrived = posters[0].next + posters[1].next + posters[2].next;
    }
    assert_int_equal(arrived, POSTERS * POSTS_EACH);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        free(posters[i].items);
    }
    env_real_destroy(env);
}

static void stop_it(void *ctx)
{
    env_stop(ctx);
}

static void *run_loop(void *arg)
{
    env_run(arg);
    return NULL;
}

static void a_loop_may_live_in_another_thread(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run_loop, env), 0);
    assert_int_equal(env_post(env, stop_it, env), STATUS_OK);
    pthread_join(thread, NULL);
    assert_true(env_now_ns(env) > 0); /* nobody runs it: ours again */
    env_real_destroy(env);
    env_real_destroy(NULL);
}

/* ---- limits ---- */

struct door {
    struct env *env;
    struct env_listener *listener;
    struct env_stream *accepted[8];
    int count;
    char address[64];
};

static void on_door_accept(void *ctx, struct env_stream *stream)
{
    struct door *door = ctx;
    assert_true(door->count < 8);
    door->accepted[door->count++] = stream;
}

static void door_open(struct door *door, uint32_t streams_max)
{
    *door = (struct door){ .env = env_new(streams_max) };
    assert_int_equal(
        env_listen(door->env, "127.0.0.1:0", on_door_accept, door, &door->listener, NULL),
        STATUS_OK);
    snprintf(door->address, sizeof(door->address), "127.0.0.1:%u",
             env_listener_port(door->listener));
}

/* For some time, and some turns: a machine may be so busy that there is no turn in the time. */
static void poll_for(struct env *env, uint64_t duration_ns)
{
    const uint64_t end = env_now_ns(env) + duration_ns;
    for (int turns = 0; turns < 20 || env_now_ns(env) < end; turns++) {
        (void)env_poll(env, ENV_NS_PER_MS);
    }
}

static void door_close(struct door *door)
{
    for (int i = 0; i < door->count; i++) {
        env_stream_close(door->accepted[i]);
    }
    env_listener_close(door->listener);
    env_real_destroy(door->env);
}

static void at_the_limit_of_streams_the_others_wait(void **state)
{
    (void)state;
    struct door door;
    struct env *outside = env_new(0);
    struct env_stream *clients[3];

    door_open(&door, 2); /* the listener and one stream */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(env_connect(outside, door.address, &clients[i], NULL), STATUS_OK);
    }
    poll_for(door.env, 60 * ENV_NS_PER_MS);
    assert_int_equal(door.count, 1);
    struct env_stream *refused;
    assert_int_equal(env_connect(door.env, door.address, &refused, NULL), STATUS_FULL);
    env_stream_close(door.accepted[0]);
    poll_for(door.env, 60 * ENV_NS_PER_MS);
    assert_int_equal(door.count, 2);
    door.accepted[0] = door.accepted[1];
    door.count = 1;
    for (int i = 0; i < 3; i++) {
        env_stream_close(clients[i]);
    }
    door_close(&door);
    env_real_destroy(outside);
}

static void without_descriptors_accepting_rests(void **state)
{
    (void)state;
    struct door door;
    struct env_stream *client;
    struct rlimit before, tight;

    door_open(&door, 0);
    assert_int_equal(env_connect(door.env, door.address, &client, NULL), STATUS_OK);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = 0; /* no new descriptor can be made */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    uint64_t turns = 0;
    const uint64_t end = env_now_ns(door.env) + 100 * ENV_NS_PER_MS;
    while (env_now_ns(door.env) < end) {
        (void)env_poll(door.env, 100 * ENV_NS_PER_MS);
        turns++;
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(door.count, 0);
    assert_true(turns < 50); /* it rested; it did not spin */
    poll_for(door.env, 60 * ENV_NS_PER_MS);
    assert_int_equal(door.count, 1);
    env_stream_close(client);
    door_close(&door);
}

/* ---- children ---- */

struct child {
    bool ended;
    struct env_exit how;
};

static void on_child_exit(void *ctx, struct env_exit how)
{
    struct child *child = ctx;
    assert_false(child->ended);
    child->ended = true;
    child->how = how;
}

static void children_end_once_and_say_how(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct child child = { 0 };
    struct env_process *process;

    const char *const exits[] = { "sh", "-c", "exit 7", NULL };
    assert_int_equal(env_process_spawn(env, exits, on_child_exit, &child, &process, NULL), 0);
    assert_true(env_process_pid(process) > 0);
    assert_true(run_until(env, &child.ended));
    assert_int_equal(child.how.code, 7);
    assert_int_equal(child.how.signo, 0);

    child = (struct child){ 0 };
    const char *const sleeps[] = { "/bin/sleep", "100", NULL };
    assert_int_equal(env_process_spawn(env, sleeps, on_child_exit, &child, &process, NULL), 0);
    env_process_kill(process, SIGTERM);
    assert_true(run_until(env, &child.ended));
    assert_int_equal(child.how.signo, SIGTERM);
    assert_int_equal(child.how.code, -1);
    env_real_destroy(env);
}

static void what_cannot_be_executed_is_told(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct child child = { 0 };
    struct env_process *process = NULL;
    struct errmsg err = { "" };

    const char *const nothing[] = { "/nowhere/to/be/found", NULL };
    assert_int_equal(env_process_spawn(env, nothing, on_child_exit, &child, &process, &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere"));
    const char *const directory[] = { "/tmp", NULL };
    assert_int_equal(env_process_spawn(env, directory, on_child_exit, &child, &process, NULL),
                     STATUS_DENIED);
    assert_null(process);
    poll_for(env, 5 * ENV_NS_PER_MS);
    assert_false(child.ended);
    env_real_destroy(env);
}

/* True while the process runs: it is there, and not just waiting to be reaped. */
static bool process_runs(pid_t pid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    const size_t got = fread(text, 1, sizeof(text) - 1, file);
    text[got] = '\0';
    fclose(file);
    const char *after = strrchr(text, ')');
    return after != NULL && after[1] == ' ' && after[2] != 'Z' && after[2] != 'X';
}

static bool ends_soon(pid_t pid)
{
    for (int i = 0; i < 500 && process_runs(pid); i++) {
        env_real_sleep_ns(10 * ENV_NS_PER_MS);
    }
    return !process_runs(pid);
}

static void destroying_the_env_ends_its_children(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct child child = { 0 };
    struct env_process *process;

    const char *const sleeps[] = { "sleep", "100", NULL };
    assert_int_equal(env_process_spawn(env, sleeps, on_child_exit, &child, &process, NULL), 0);
    const pid_t pid = env_process_pid(process);
    assert_true(process_runs(pid));
    env_real_destroy(env);
    assert_false(process_runs(pid));
    assert_false(child.ended); /* on_exit does not run */
}

/* A parent that is killed cannot tidy up: the kernel must. */
static void children_die_with_a_killed_parent(void **state)
{
    (void)state;
    int fds[2];
    pid_t grandchild = 0;

    assert_int_equal(pipe(fds), 0);
    const pid_t parent = fork();
    if (parent == 0) {
        struct env *env;
        struct child child = { 0 };
        struct env_process *process;
        const char *const sleeps[] = { "sleep", "100", NULL };
        if (env_real_create(NULL, &env, NULL) != STATUS_OK) _exit(1);
        if (env_process_spawn(env, sleeps, on_child_exit, &child, &process, NULL) != STATUS_OK)
            _exit(1);
        grandchild = env_process_pid(process);
        if (write(fds[1], &grandchild, sizeof(grandchild)) < 0) _exit(1);
        for (;;) {
            (void)env_poll(env, ENV_NS_PER_S);
        }
    }
    assert_int_equal(read(fds[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
    assert_true(process_runs(grandchild));
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    assert_true(ends_soon(grandchild));
    close(fds[0]);
    close(fds[1]);
}

/* ---- signals ---- */

static void on_signal(void *ctx, int signo)
{
    int *last = ctx;
    *last = signo;
}

static void signals_are_events(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    int first = 0, second = 0;

    assert_int_equal(env_on_signal(env, SIGUSR1, on_signal, &first), STATUS_OK);
    assert_int_equal(env_on_signal(env, SIGUSR2, on_signal, &second), STATUS_OK);
    kill(getpid(), SIGUSR2);
    assert_int_equal(second, 0); /* not before the loop runs */
    poll_for(env, 5 * ENV_NS_PER_MS);
    assert_int_equal(first, 0);
    assert_int_equal(second, SIGUSR2);
    kill(getpid(), SIGUSR1);
    poll_for(env, 5 * ENV_NS_PER_MS);
    assert_int_equal(first, SIGUSR1);
    env_real_destroy(env);
}

static volatile sig_atomic_t stolen; /* signals that a thread took which waits for none */

static void on_stolen(int signo)
{
    (void)signo;
    stolen++;
}

static void no_work(void *ctx)
{
    (void)ctx;
}

static void note_done(void *ctx)
{
    *(bool *)ctx = true;
}

static void note_read(void *ctx, enum status status, size_t n)
{
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(n, 1);
    note_done(ctx);
}

static struct env_file *file_read_by_a_thread(struct env *env, const char *path)
{
    struct env_file *file;
    char byte;
    bool done = false;

    assert_int_equal(env_file_open(env, path, ENV_FILE_READ, &file, NULL), STATUS_OK);
    struct env_io io = { .op = ENV_IO_READ,
                         .file = file,
                         .parts = { { &byte, 1 } },
                         .parts_count = 1,
                         .fn = note_read,
                         .ctx = &done };
    assert_int_equal(env_io_start(&io), STATUS_OK);
    assert_true(run_until(env, &done));
    return file;
}

/* Threads beside the loop leave the signals to those that wait for them: of this program, or of the
 * one that we are a library of. */
static void threads_take_no_signals(void **state)
{
    (void)state;
    const struct env_real_options options = { .no_io_uring = true };
    const struct sigaction action = { .sa_handler = on_stolen };
    const struct timespec limit = { 20, 0 };
    struct sigaction before;
    struct env *env;
    sigset_t set;
    bool done = false;
    char self[4096];
    struct env_job job = { .run = no_work, .done = note_done, .ctx = &done };

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* as it is when threads start */
    assert_int_equal(env_real_create(&options, &env, NULL), STATUS_OK);
    assert_int_equal(env_real_self_path(self, sizeof(self)), STATUS_OK);
    assert_int_equal(env_job_start(env, &job), STATUS_OK);
    assert_true(run_until(env, &done));
    struct env_file *file = file_read_by_a_thread(env, self);
    stolen = 0;
    sigaction(SIGUSR1, &action, &before);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 10; i++) {
        kill(getpid(), SIGUSR1);
        const int got = stolen == 0 ? sigtimedwait(&set, NULL, &limit) : 0;
        assert_int_equal(got, SIGUSR1);
    }
    sigaction(SIGUSR1, &before, NULL);
    env_file_close(file);
    env_real_destroy(env);
}

/* What never was under way is nobody's to settle. */
static void a_job_that_cannot_start_is_no_job(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct rlimit before;
    bool done = false;
    struct env_job job = { .run = no_work, .done = note_done, .ctx = &done };

    getrlimit(RLIMIT_NOFILE, &before);
    const struct rlimit none = { 3, before.rlim_max };
    setrlimit(RLIMIT_NOFILE, &none);
    const enum status status = env_job_start(env, &job);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(status, STATUS_NO_MEMORY);
    env_job_settle(&job);
    assert_int_equal(env_job_start(env, &job), STATUS_OK);
    assert_true(run_until(env, &done));
    env_real_destroy(env);
}

/* The parent blocks signals for its signalfd; a child must not inherit that. */
static void children_get_default_signals(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    struct child child = { 0 };
    struct env_process *process;
    int seen = 0;

    assert_int_equal(env_on_signal(env, SIGUSR1, on_signal, &seen), STATUS_OK);
    const char *const suicides[] = { "sh", "-c", "kill -USR1 $$; exit 3", NULL };
    assert_int_equal(env_process_spawn(env, suicides, on_child_exit, &child, &process, NULL), 0);
    assert_true(run_until(env, &child.ended));
    assert_int_equal(child.how.signo, SIGUSR1);
    assert_int_equal(seen, 0);
    env_real_destroy(env);
}

static void the_binary_knows_its_path(void **state)
{
    (void)state;
    char path[4096];

    assert_int_equal(env_real_self_path(path, sizeof(path)), STATUS_OK);
    assert_int_equal(access(path, X_OK), 0);
    assert_non_null(strstr(path, "env_real_test"));
    assert_int_equal(env_real_self_path(path, 4), STATUS_FULL);
}

/* Files of /proc say that they are empty. */
static void a_file_without_a_size_is_read_whole(void **state)
{
    (void)state;
    struct env *env = NULL;
    char *text = NULL;
    size_t len = 0;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(env_file_read_all(env, "/proc/self/status", 1 << 20, &text, &len, NULL),
                     STATUS_OK);
    assert_non_null(strstr(text, "VmRSS:"));
    assert_int_equal(strlen(text), len);
    free(text);
    assert_int_equal(env_file_read_all(env, "/proc/self/status", 100, &text, &len, NULL),
                     STATUS_FULL);
    assert_int_equal(env_file_read_all(env, "/proc/self/smaps", 1 << 22, &text, &len, NULL),
                     STATUS_OK); /* longer than the first buffer */
    assert_true(len > 4096);
    free(text);
    env_real_destroy(env);
}

struct connecting {
    struct env_stream *stream;
    enum status status;
    bool over;
};

static void on_connecting(void *ctx, unsigned events)
{
    struct connecting *connecting = ctx;
    uint8_t byte;
    size_t n;

    (void)events;
    connecting->status = env_stream_read(connecting->stream, &byte, 1, &n);
    connecting->over = true;
}

static enum status connect_status(struct env *env, const char *from, const char *address)
{
    struct connecting connecting = { 0 };

    const enum status status = env_connect_from(env, from, address, &connecting.stream, NULL);
    if (status != STATUS_OK) return status;
    env_stream_watch(connecting.stream, ENV_WRITE, on_connecting, &connecting);
    while (!connecting.over)
        env_poll(env, ENV_NS_PER_S);
    env_stream_close(connecting.stream);
    return connecting.status;
}

/* Who cannot be reached has not refused: whoever waits for a refusal must not take it for one. */
static void unreachable_is_not_refused(void **state)
{
    (void)state;
    struct env *env = NULL;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(connect_status(env, NULL, "127.0.0.1:1"), STATUS_CONN_REFUSED);
    assert_int_equal(connect_status(env, NULL, "255.255.255.255:1"), STATUS_UNAVAILABLE);
    assert_int_equal(connect_status(env, "192.0.2.1", "127.0.0.1:1"), STATUS_UNAVAILABLE);
    assert_int_equal(connect_status(env, "no address", "127.0.0.1:1"), STATUS_UNAVAILABLE);
    env_real_destroy(env);
}

static void keep_stream(void *ctx, struct env_stream *stream)
{
    *(struct env_stream **)ctx = stream;
}

static void connections_leave_from_where_they_should(void **state)
{
    (void)state;
    struct env *env = NULL;
    struct env_listener *listener;
    struct env_stream *accepted = NULL, *stream = NULL;
    char address[64];

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(env_listen(env, "127.0.0.1:0", keep_stream, &accepted, &listener, NULL),
                     STATUS_OK);
    snprintf(address, sizeof(address), "127.0.0.1:%u", env_listener_port(listener));
    assert_int_equal(env_connect_from(env, "127.0.0.9", address, &stream, NULL), STATUS_OK);
    while (accepted == NULL)
        env_poll(env, ENV_NS_PER_S);
    assert_int_equal(strncmp(env_stream_peer(accepted), "127.0.0.9:", 10), 0);
    env_stream_close(accepted);
    env_stream_close(stream);
    env_listener_close(listener);
    env_real_destroy(env);
}

struct asked {
    struct env_stream *stream;
    uint32_t calls, empty, bytes;
};

static void on_asked(void *ctx, unsigned events)
{
    struct asked *asked = ctx;
    uint8_t byte;
    size_t n = 0;

    assert_int_equal(events, ENV_READ);
    asked->calls++;
    const enum status status = env_stream_read(asked->stream, &byte, 1, &n);
    assert_true(status == STATUS_OK || status == STATUS_AGAIN);
    asked->empty += status == STATUS_AGAIN;
    asked->bytes += (uint32_t)n;
}

static void on_writable(void *ctx, unsigned events)
{
    struct env_stream **stream = ctx;

    assert_int_equal(events, ENV_WRITE);
    env_stream_watch(*stream, 0, NULL, NULL);
}

static void say(struct env_stream *stream)
{
    const struct iovec byte = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
    size_t n;

    assert_int_equal(env_stream_writev(stream, &byte, 1, &n), STATUS_OK);
}

static void polled(struct env *env, const struct asked *asked, uint32_t bytes)
{
    while (asked->bytes < bytes)
        env_poll(env, 0);
}

/* Who polls asks the eager stream that spoke last, and no other, before it knows; the others are
 * heard all the same, and so is everyone when the eager one has gone. */
static void an_eager_stream_is_asked_first(void **state)
{
    (void)state;
    struct env *env = NULL;
    struct env_listener *listener;
    struct asked ends[2] = { { 0 } };
    struct env_stream *far[2];
    char address[64];

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            env_listen(env, "127.0.0.1:0", keep_stream, &ends[i].stream, &listener, NULL),
            STATUS_OK);
        snprintf(address, sizeof(address), "127.0.0.1:%u", env_listener_port(listener));
        assert_int_equal(env_connect(env, address, &far[i], NULL), STATUS_OK);
        env_stream_watch(far[i], ENV_WRITE, on_writable, &far[i]);
        while (ends[i].stream == NULL)
            env_poll(env, ENV_NS_PER_S);
        env_listener_close(listener);
        env_stream_watch(ends[i].stream, i == 0 ? ENV_READ | ENV_EAGER : ENV_READ, on_asked,
                         &ends[i]);
    }
    while (env_poll(env, ENV_NS_PER_MS)) {
    }
    say(far[0]);
    polled(env, &ends[0], 1);
    for (int i = 0; i < 20; i++)
        env_poll(env, 0);
    assert_true(ends[0].empty > 0);
    say(far[1]);
    polled(env, &ends[1], 1);
    say(far[0]);
    polled(env, &ends[0], 2);
    for (int i = 0; i < 1000; i++)
        env_poll(env, 0);
    const uint32_t calls = ends[0].calls;
    for (int i = 0; i < 100; i++)
        env_poll(env, 0);
    assert_int_equal(ends[0].calls, calls); /* long ago */
    say(far[0]);
    polled(env, &ends[0], 3);
    for (int i = 0; i < 1000; i++)
        env_poll(env, 0);
    const uint32_t empty = ends[0].empty;
    say(ends[0].stream); /* who says something waits for the answer */
    for (int i = 0; i < 20; i++)
        env_poll(env, 0);
    assert_true(ends[0].empty > empty);
    env_stream_close(ends[0].stream);
    say(far[1]);
    polled(env, &ends[1], 2);
    assert_int_equal(ends[1].empty, 0);
    env_stream_close(ends[1].stream);
    env_stream_close(far[0]);
    env_stream_close(far[1]);
    env_real_destroy(env);
}

/* A timer that is set again `left` times, at once, and then ends the loop; each time it notes
 * whether the loop polls. */
struct ticking {
    struct env *env;
    struct env_timer timer;
    uint32_t left;
    uint32_t polling;
};

static void on_tick(void *ctx)
{
    struct ticking *ticking = ctx;

    ticking->polling += env_real_polls(ticking->env);
    if (ticking->left-- == 0) {
        env_stop(ticking->env);
    } else {
        env_timer_set(ticking->env, &ticking->timer, env_now_ns(ticking->env));
    }
}

static uint32_t tick(struct env *env, uint32_t times)
{
    struct ticking ticking = { .env = env, .left = times };
    env_timer_init(&ticking.timer, on_tick, &ticking);
    env_timer_set(env, &ticking.timer, env_now_ns(env));
    env_run(env);
    return ticking.polling;
}

static void *post_stop(void *arg)
{
    env_real_sleep_ns(ENV_NS_PER_MS); /* the loop polls meanwhile */
    while (env_post(arg, stop_it, arg) == STATUS_FULL) {
    }
    return NULL;
}

/* Against a limit that every wait is shorter than, and one that every wait is longer than. A thread
 * still reaches a loop that polls. */
static void a_loop_polls_while_it_pays(void **state)
{
    (void)state;
    struct env *env = env_new(0);
    pthread_t thread;

    assert_int_equal(tick(env, 20), 0); /* nobody said that it may */
    env_real_set_poll(env, LIMIT_NS);
    assert_true(tick(env, 20) >= 15);
    assert_int_equal(pthread_create(&thread, NULL, post_stop, env), 0);
    env_run(env);
    pthread_join(thread, NULL);
    assert_true(env_real_polls(env));
    env_real_set_poll(env, 1);
    struct ticking late = { .env = env };
    env_timer_init(&late.timer, on_tick, &late);
    env_timer_set(env, &late.timer, env_now_ns(env) + ENV_NS_PER_MS);
    env_run(env);
    assert_int_equal(late.polling, 0);
    assert_int_equal(tick(env, 20), 0);
    env_real_destroy(env);
}

static void the_loopback_is_an_interface(void **state)
{
    (void)state;
    struct env *env = NULL;
    struct env_interface interfaces[ENV_INTERFACES_MAX];
    bool found = false;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    const uint32_t count = env_interfaces(env, interfaces, ENV_INTERFACES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(interfaces[i].address, "127.0.0.1") != 0) continue;
        found = true;
        assert_true(interfaces[i].loopback && interfaces[i].up && interfaces[i].prefix_bits == 8);
        assert_string_equal(interfaces[i].name, "lo");
    }
    assert_true(found);
    assert_int_equal(env_interfaces(env, interfaces, 0), 0);
    assert_true(env_same_network("10.1.2.3", "10.1.3.3", 16));
    assert_false(env_same_network("10.1.2.3", "10.1.3.3", 24));
    assert_true(env_same_network("10.1.2.3", "10.1.3.3", 23));
    assert_false(env_same_network("10.1.2.3", "fd00::1", 8));
    assert_true(env_same_network("fd00:1::1", "fd00:1::2", 64));
    env_real_destroy(env);
}

struct watched {
    struct env_watch *watch;
    int fd, seen;
};

static void on_watched(void *ctx)
{
    struct watched *watched = ctx;

    if (++watched->seen < 3) return; /* nobody has read it: it is told again */
    env_watch_close(watched->watch);
    watched->watch = NULL;
}

static void a_foreign_descriptor_is_watched_and_stays_open(void **state)
{
    (void)state;
    struct watched watched = { NULL, -1, 0 };
    struct env *env = NULL;
    uint64_t count;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(env_event_create(env, &watched.fd), STATUS_OK);
    assert_int_equal(env_watch_open(env, watched.fd, on_watched, &watched, &watched.watch),
                     STATUS_OK);
    env_poll(env, 0);
    assert_int_equal(watched.seen, 0);
    env_event_signal(watched.fd, 5);
    for (int i = 0; i < 10; i++)
        env_poll(env, 0);
    assert_int_equal(watched.seen, 3);
    assert_int_equal(read(watched.fd, &count, sizeof(count)), sizeof(count));
    assert_true(count == 5);
    env_watch_close(NULL);
    env_event_close(watched.fd);
    env_real_destroy(env);
}

/* ---- memory of a process that is killed ---- */

enum { KILLS = 20 };

static void *pause_forever(void *unused)
{
    (void)unused;
    while (true)
        pause();
    return NULL;
}

/* A process of several threads that shares memory, tells its name, and waits. */
static void sharer_run(int out)
{
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map map;
    pthread_t thread;

    if (env_map_create(env_new(0), 4096, &map, name, NULL) != STATUS_OK) _exit(1);
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&thread, NULL, pause_forever, NULL) != 0) _exit(1);
    }
    if (write(out, name, sizeof(name)) != sizeof(name)) _exit(1);
    (void)pause_forever(NULL);
}

/* Whoever finds its connection broken must know that it is dead, though nobody has waited for it
 * yet. */
static void killed_processes_are_dead_before_their_connections_break(void **state)
{
    (void)state;
    for (int i = 0; i < KILLS; i++) {
        char name[ENV_SHARE_NAME_SIZE];
        struct env_map map;
        int ends[2];

        assert_int_equal(pipe(ends), 0);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(ends[0]);
            sharer_run(ends[1]);
        }
        close(ends[1]);
        assert_int_equal(read(ends[0], name, sizeof(name)), sizeof(name));
        struct env *env = env_new(0);
        assert_int_equal(env_map_open(env, name, 4096, &map), STATUS_OK);
        assert_true(env_map_alive(&map));
        kill(child, SIGKILL);
        assert_int_equal(read(ends[0], name, 1), 0); /* closed */
        assert_false(env_map_alive(&map));
        assert_int_equal(waitpid(child, NULL, 0), child);
        assert_false(env_map_alive(&map));
        env_map_close(&map);
        env_real_destroy(env);
        close(ends[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_processes_are_dead_before_their_connections_break),
        cmocka_unit_test(a_foreign_descriptor_is_watched_and_stays_open),
        cmocka_unit_test(a_file_without_a_size_is_read_whole),
        cmocka_unit_test(posts_of_threads_all_arrive_in_order),
        cmocka_unit_test(a_loop_may_live_in_another_thread),
        cmocka_unit_test(at_the_limit_of_streams_the_others_wait),
        cmocka_unit_test(without_descriptors_accepting_rests),
        cmocka_unit_test(children_end_once_and_say_how),
        cmocka_unit_test(what_cannot_be_executed_is_told),
        cmocka_unit_test(destroying_the_env_ends_its_children),
        cmocka_unit_test(children_die_with_a_killed_parent),
        cmocka_unit_test(signals_are_events),
        cmocka_unit_test(threads_take_no_signals),
        cmocka_unit_test(a_job_that_cannot_start_is_no_job),
        cmocka_unit_test(children_get_default_signals),
        cmocka_unit_test(the_binary_knows_its_path),
        cmocka_unit_test(unreachable_is_not_refused),
        cmocka_unit_test(connections_leave_from_where_they_should),
        cmocka_unit_test(an_eager_stream_is_asked_first),
        cmocka_unit_test(a_loop_polls_while_it_pays),
        cmocka_unit_test(the_loopback_is_an_interface),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
