/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_test.c
 *
 * Goal:   both bodies of env keep the contract of env.h, so that what passes in simulation is not a
 *         property of the simulation.
 * Method: the same tests run on both. Two processes, a and b: two simulated ones, or two real loops
 *         that one thread polls in turn over loopback. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/env_sim.h"

#define LIMIT_NS (120 * ENV_NS_PER_S) /* a sanitizer on a busy machine takes its time */

static bool simulated; /* which body the group runs on */
static bool threaded;  /* the real one: bulk I/O through threads */

struct world {
    struct env_sim *sim;
    struct env *a, *b;
    const char *host_a; /* where b reaches a */
    char directory[256];
};

static struct world world_new(void)
{
    struct world world = { .host_a = simulated ? "10.0.0.1" : "127.0.0.1" };

    if (simulated) {
        world.sim = env_sim_create(&(struct env_sim_options){ .seed = 1 });
        world.a = env_sim_add(world.sim, "10.0.0.1");
        world.b = env_sim_add(world.sim, "10.0.0.2");
    } else {
        const struct env_real_options options = { .no_io_uring = threaded };
        assert_int_equal(env_real_create(&options, &world.a, NULL), STATUS_OK);
        assert_int_equal(env_real_create(NULL, &world.b, NULL), STATUS_OK);
    }
    uint64_t nonce;
    env_random(world.a, &nonce, sizeof(nonce));
    snprintf(world.directory, sizeof(world.directory), "/tmp/yolk-env-test-%016llx",
             (unsigned long long)nonce);
    assert_int_equal(env_make_dirs(world.a, world.directory, NULL), STATUS_OK);
    return world;
}

static void world_free(struct world *world)
{
    if (simulated) {
        env_sim_destroy(world->sim);
        return;
    }
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", world->directory);
    assert_int_equal(system(command), 0);
    env_real_destroy(world->a);
    env_real_destroy(world->b);
}

static bool world_run(struct world *world, bool (*done)(void *ctx), void *ctx, uint64_t limit_ns)
{
    if (simulated) return env_sim_run_until(world->sim, done, ctx, limit_ns);
    const uint64_t end = env_now_ns(world->a) + limit_ns;
    for (int turns = 0; !done(ctx); turns++) {
        /* Some turns in any case: on a busy machine the time may pass without one. */
        if (turns > 20 && env_now_ns(world->a) > end) return false;
        (void)env_poll(world->a, ENV_NS_PER_MS / 4);
        (void)env_poll(world->b, ENV_NS_PER_MS / 4);
    }
    return true;
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

/* ---- timers and posts ---- */

struct journal {
    struct env *env;
    int entries[32];
    int count;
};

struct note {
    struct journal *journal;
    int value;
    struct env_timer timer;
    uint64_t fired_ns;
};

static void journal_add(struct journal *journal, int value)
{
    assert_true(journal->count < 32);
    journal->entries[journal->count++] = value;
}

static void on_note(void *ctx)
{
    struct note *note = ctx;
    note->fired_ns = env_now_ns(note->journal->env);
    journal_add(note->journal, note->value);
}

static bool journal_has(void *ctx)
{
    const struct journal *journal = ctx;
    return journal->count >= journal->entries[31]; /* the last entry holds the goal */
}

static void timers_fire_in_order_and_never_early(void **state)
{
    (void)state;
    struct world world = world_new();
    struct journal journal = { .env = world.a, .entries[31] = 4 };
    struct note notes[5];
    const uint64_t start = env_now_ns(world.a);
    const uint64_t delays_ms[5] = { 8, 3, 3, 5, 1 };

    for (int i = 0; i < 5; i++) {
        notes[i] = (struct note){ .journal = &journal, .value = i };
        env_timer_init(&notes[i].timer, on_note, &notes[i]);
        env_timer_set(world.a, &notes[i].timer, start + delays_ms[i] * ENV_NS_PER_MS);
        assert_true(env_timer_armed(&notes[i].timer));
    }
    env_timer_cancel(world.a, &notes[4].timer);
    env_timer_cancel(world.a, &notes[4].timer); /* idempotent */
    assert_false(env_timer_armed(&notes[4].timer));
    env_timer_set(world.a, &notes[3].timer, start + 9 * ENV_NS_PER_MS); /* moved behind the first */

    assert_true(world_run(&world, journal_has, &journal, LIMIT_NS));
    assert_int_equal(journal.entries[0], 1);
    assert_int_equal(journal.entries[1], 2); /* a tie fires in the order of setting */
    assert_int_equal(journal.entries[2], 0);
    assert_int_equal(journal.entries[3], 3);
    for (int i = 0; i < 3; i++) {
        assert_true(notes[i].fired_ns >= start + delays_ms[i] * ENV_NS_PER_MS);
    }
    assert_true(notes[3].fired_ns >= start + 9 * ENV_NS_PER_MS);
    world_free(&world);
}

struct repeater {
    struct env *env;
    struct env_timer timer;
    int count;
};

static void on_repeat(void *ctx)
{
    struct repeater *repeater = ctx;
    repeater->count++;
    if (repeater->count < 1000) env_timer_set(repeater->env, &repeater->timer, 0);
}

static void timer_set_in_the_past_does_not_starve_others(void **state)
{
    (void)state;
    struct world world = world_new();
    struct repeater greedy = { .env = world.a };
    struct journal journal = { .env = world.a, .entries[31] = 1 };
    struct note note = { .journal = &journal, .value = 7 };

    env_timer_init(&greedy.timer, on_repeat, &greedy);
    env_timer_init(&note.timer, on_note, &note);
    env_timer_set(world.a, &greedy.timer, 0);
    env_timer_set(world.a, &note.timer, 1);
    assert_true(world_run(&world, journal_has, &journal, LIMIT_NS));
    assert_true(greedy.count < 10);
    env_timer_cancel(world.a, &greedy.timer);
    world_free(&world);
}

static void post_note(void *ctx)
{
    struct note *note = ctx;
    journal_add(note->journal, note->value);
}

static void post_again(void *ctx)
{
    struct note *note = ctx;
    journal_add(note->journal, note->value);
    if (note->value++ == 10) assert_int_equal(env_post(note->journal->env, post_again, ctx), 0);
    journal_add(note->journal, 99); /* before the second run: a post never runs inside env_post */
}

static void posts_keep_their_order(void **state)
{
    (void)state;
    struct world world = world_new();
    struct journal journal = { .env = world.a, .entries[31] = 6 };
    struct note first = { .journal = &journal, .value = 1 };
    struct note again = { .journal = &journal, .value = 10 };
    struct note last = { .journal = &journal, .value = 2 };
    const int expected[6] = { 1, 10, 99, 2, 11, 99 };

    assert_int_equal(env_post(world.a, post_note, &first), STATUS_OK);
    assert_int_equal(env_post(world.a, post_again, &again), STATUS_OK);
    assert_int_equal(env_post(world.a, post_note, &last), STATUS_OK);
    assert_int_equal(journal.count, 0);
    assert_true(world_run(&world, journal_has, &journal, LIMIT_NS));
    assert_memory_equal(journal.entries, expected, sizeof(expected));
    world_free(&world);
}

static void post_nothing(void *ctx)
{
    (void)ctx;
}

static void post_beyond_the_limit_is_full(void **state)
{
    (void)state;
    struct world world = world_new();

    for (int i = 0; i < ENV_POSTS_MAX; i++) {
        assert_int_equal(env_post(world.a, post_nothing, NULL), STATUS_OK);
    }
    assert_int_equal(env_post(world.a, post_nothing, NULL), STATUS_FULL);
    assert_true(env_poll(world.a, 0));
    assert_int_equal(env_post(world.a, post_nothing, NULL), STATUS_OK);
    world_free(&world);
}

static void stop_post(void *ctx)
{
    env_stop(ctx);
}

static void run_ends_at_stop_and_can_run_again(void **state)
{
    (void)state;
    struct world world = world_new();

    for (int i = 0; i < 2; i++) {
        assert_int_equal(env_post(world.a, stop_post, world.a), STATUS_OK);
        env_run(world.a);
    }
    const uint64_t start = env_now_ns(world.a);
    assert_false(env_poll(world.a, 2 * ENV_NS_PER_MS)); /* nothing to do: it waited */
    assert_true(env_now_ns(world.a) >= start + 2 * ENV_NS_PER_MS);
    world_free(&world);
}

/* ---- streams ---- */

/* One end: sends `to_send` bytes of a pattern, then perhaps closes; checks the pattern it receives.
 */
struct peer {
    struct env_stream *stream;
    uint64_t sent, to_send;
    uint64_t received, read_max; /* stops reading at read_max */
    bool close_when_sent;
    bool ended; /* the other side has closed */
    enum status end_status;
    int callbacks;
};

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 131 + (at >> 9));
}

static void peer_watch(struct peer *peer);

static void peer_send(struct peer *peer)
{
    uint8_t bytes[10000];
    size_t n = 0;

    if (peer->sent == peer->to_send) return;
    const uint64_t left = peer->to_send - peer->sent;
    const size_t len = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = pattern(peer->sent + i);
    }
    const struct iovec iov[2] = { { .iov_base = bytes, .iov_len = len / 3 },
                                  { .iov_base = bytes + len / 3, .iov_len = len - len / 3 } };
    const enum status status = env_stream_writev(peer->stream, iov, 2, &n);
    if (status == STATUS_AGAIN) return;
    if (status != STATUS_OK) {
        peer->ended = true;
        peer->end_status = status;
        return;
    }
    assert_in_range(n, 1, len);
    peer->sent += n;
}

static void peer_receive(struct peer *peer)
{
    uint8_t bytes[7000];
    size_t n = 0;

    const enum status status = env_stream_read(peer->stream, bytes, sizeof(bytes), &n);
    if (status == STATUS_AGAIN) return;
    if (status != STATUS_OK) {
        peer->ended = true;
        peer->end_status = status;
        return;
    }
    assert_in_range(n, 1, sizeof(bytes));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(bytes[i], pattern(peer->received + i));
    }
    peer->received += n;
}

static void on_peer_ready(void *ctx, unsigned events)
{
    struct peer *peer = ctx;

    peer->callbacks++;
    assert_non_null(peer->stream);
    if ((events & ENV_READ) != 0) peer_receive(peer);
    if ((events & ENV_WRITE) != 0 && !peer->ended) peer_send(peer);
    if (peer->close_when_sent && peer->sent == peer->to_send) {
        env_stream_close(peer->stream);
        peer->stream = NULL;
        return;
    }
    peer_watch(peer);
}

static void peer_watch(struct peer *peer)
{
    unsigned events = 0;

    if (peer->received < peer->read_max && !peer->ended) events |= ENV_READ;
    if (peer->sent < peer->to_send && !peer->ended) events |= ENV_WRITE;
    env_stream_watch(peer->stream, events, on_peer_ready, peer);
}

static void on_peer_accept(void *ctx, struct env_stream *stream)
{
    struct peer *peer = ctx;
    assert_null(peer->stream);
    peer->stream = stream;
    assert_non_null(strchr(env_stream_peer(stream), ':'));
    peer_watch(peer);
}

struct pair {
    struct peer server, client;
    struct env_listener *listener;
    char address[64];
};

static void pair_listen(struct pair *pair, struct world *world)
{
    struct errmsg err = { "" };
    char address[64];

    snprintf(address, sizeof(address), "%s:0", world->host_a);
    assert_int_equal(
        env_listen(world->a, address, on_peer_accept, &pair->server, &pair->listener, &err),
        STATUS_OK);
    assert_int_not_equal(env_listener_port(pair->listener), 0);
    snprintf(pair->address, sizeof(pair->address), "%s:%u", world->host_a,
             env_listener_port(pair->listener));
}

static void pair_connect(struct pair *pair, struct world *world)
{
    pair_listen(pair, world);
    assert_int_equal(env_connect(world->b, pair->address, &pair->client.stream, NULL), STATUS_OK);
    assert_string_equal(env_stream_peer(pair->client.stream), pair->address);
    peer_watch(&pair->client);
}

static void pair_close(struct pair *pair)
{
    env_stream_close(pair->server.stream);
    env_stream_close(pair->client.stream);
    env_listener_close(pair->listener);
}

static bool pair_exchanged(void *ctx)
{
    const struct pair *pair = ctx;
    return pair->server.received == pair->client.to_send &&
           pair->client.received == pair->server.to_send;
}

static bool pair_ended(void *ctx)
{
    const struct pair *pair = ctx;
    return pair->server.ended || pair->client.ended;
}

static void streams_carry_both_ways(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .server = { .to_send = 3000000, .read_max = UINT64_MAX },
                         .client = { .to_send = 5000000, .read_max = UINT64_MAX } };

    pair_connect(&pair, &world);
    assert_true(world_run(&world, pair_exchanged, &pair, LIMIT_NS));
    assert_string_equal(env_stream_local_host(pair.server.stream), world.host_a);
    pair_close(&pair);
    world_free(&world);
}

static void close_delivers_what_was_written(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .server = { .read_max = UINT64_MAX },
                         .client = { .to_send = 300000, .close_when_sent = true } };

    pair_connect(&pair, &world);
    assert_true(world_run(&world, pair_ended, &pair, LIMIT_NS));
    assert_int_equal(pair.server.received, 300000);
    assert_int_equal(pair.server.end_status, STATUS_CONN_CLOSED);
    pair_close(&pair);
    world_free(&world);
}

static bool server_has_closed(void *ctx)
{
    const struct pair *pair = ctx;
    return pair->server.sent > 0 && pair->server.stream == NULL;
}

/* The client sends more than is read and reads nothing yet; the server answers and closes: all of
 * the answer must still arrive. It is larger than what the client's kernel takes unasked, so that a
 * reset would lose the rest. */
static void close_with_unread_input_delivers_the_answer(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .server = { .to_send = 200000, .read_max = 1000, .close_when_sent = true },
                         .client = { .to_send = 50000, .read_max = 0 } };

    pair_connect(&pair, &world);
    assert_true(world_run(&world, server_has_closed, &pair, LIMIT_NS));
    pair.client.read_max = UINT64_MAX;
    peer_watch(&pair.client);
    assert_true(world_run(&world, pair_ended, &pair, LIMIT_NS));
    assert_int_equal(pair.client.received, 200000);
    assert_int_equal(pair.client.end_status, STATUS_CONN_CLOSED);
    pair_close(&pair);
    world_free(&world);
}

static bool client_was_called(void *ctx)
{
    const struct pair *pair = ctx;
    return pair->client.callbacks > 0;
}

static void connect_to_nobody_is_refused(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .client = { .read_max = 1, .to_send = 1 } };
    size_t n = 7;

    pair_listen(&pair, &world);
    env_listener_close(pair.listener);
    pair.listener = NULL;
    assert_int_equal(env_connect(world.b, pair.address, &pair.client.stream, NULL), STATUS_OK);
    assert_int_equal(pair.client.callbacks, 0);
    peer_watch(&pair.client);
    assert_true(world_run(&world, client_was_called, &pair, LIMIT_NS));
    assert_int_equal(pair.client.end_status, STATUS_CONN_REFUSED);
    /* The failure is sticky. */
    char byte;
    assert_int_equal(env_stream_read(pair.client.stream, &byte, 1, &n), STATUS_CONN_REFUSED);
    assert_int_equal(n, 7);
    pair_close(&pair);
    world_free(&world);
}

static void writer_is_pushed_back_and_goes_on(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .server = { .read_max = 0 }, .client = { .to_send = 64 << 20 } };

    pair_connect(&pair, &world);
    assert_false(world_run(&world, never, NULL, 300 * ENV_NS_PER_MS));
    const uint64_t stuck = pair.client.sent;
    assert_true(stuck > 0 && stuck < pair.client.to_send);
    assert_non_null(pair.server.stream);
    pair.server.read_max = UINT64_MAX;
    peer_watch(&pair.server);
    assert_true(world_run(&world, pair_exchanged, &pair, LIMIT_NS));
    pair_close(&pair);
    world_free(&world);
}

static void watch_of_nothing_is_silent(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { .server = { .read_max = 0 },
                         .client = { .to_send = 10, .close_when_sent = true } };

    pair_connect(&pair, &world);
    assert_false(world_run(&world, never, NULL, 20 * ENV_NS_PER_MS));
    assert_non_null(pair.server.stream);
    assert_int_equal(pair.server.callbacks, 0); /* bytes and an end are there, but not wanted */
    pair.server.read_max = UINT64_MAX;
    peer_watch(&pair.server);
    assert_true(world_run(&world, pair_ended, &pair, LIMIT_NS));
    assert_int_equal(pair.server.received, 10);
    pair_close(&pair);
    world_free(&world);
}

/* Two streams become ready together; the first that runs closes both. */
struct duel {
    struct env_stream *streams[2];
    int accepted;
    int callbacks;
};

static void on_duel_ready(void *ctx, unsigned events)
{
    struct duel *duel = ctx;
    (void)events;
    duel->callbacks++;
    env_stream_close(duel->streams[0]);
    env_stream_close(duel->streams[1]);
}

static void on_duel_accept(void *ctx, struct env_stream *stream)
{
    struct duel *duel = ctx;
    assert_true(duel->accepted < 2);
    duel->streams[duel->accepted++] = stream;
}

static bool duel_accepted(void *ctx)
{
    return ((struct duel *)ctx)->accepted == 2;
}

/* Runs a duel whose first callback is to be the only one. The streams are still open if `open`. */
static void fight(env_ready_fn on_ready, bool open)
{
    struct world world = world_new();
    struct duel duel = { 0 };
    struct env_listener *listener;
    struct env_stream *clients[2];
    char address[64];

    snprintf(address, sizeof(address), "%s:0", world.host_a);
    assert_int_equal(env_listen(world.a, address, on_duel_accept, &duel, &listener, NULL), 0);
    snprintf(address, sizeof(address), "%s:%u", world.host_a, env_listener_port(listener));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(env_connect(world.b, address, &clients[i], NULL), STATUS_OK);
    }
    assert_true(world_run(&world, duel_accepted, &duel, LIMIT_NS));
    for (int i = 0; i < 2; i++) {
        env_stream_watch(duel.streams[i], ENV_READ | ENV_WRITE, on_ready, &duel);
    }
    assert_false(world_run(&world, never, NULL, 20 * ENV_NS_PER_MS));
    assert_int_equal(duel.callbacks, 1);
    for (int i = 0; i < 2 && open; i++) {
        env_stream_close(duel.streams[i]);
    }
    env_stream_close(clients[0]);
    env_stream_close(clients[1]);
    env_listener_close(listener);
    world_free(&world);
}

static void on_duel_unwatch(void *ctx, unsigned events)
{
    struct duel *duel = ctx;
    (void)events;
    duel->callbacks++;
    env_stream_watch(duel->streams[0], 0, NULL, NULL);
    env_stream_watch(duel->streams[1], 0, NULL, NULL);
}

static struct env_listener *listener_to_close;

static void close_inside_a_callback_silences_all(void **state)
{
    (void)state;
    fight(on_duel_ready, false);
}

static void unwatch_inside_a_callback_silences_all(void **state)
{
    (void)state;
    fight(on_duel_unwatch, true);
}

static void on_accept_close_listener(void *ctx, struct env_stream *stream)
{
    int *count = ctx;
    (*count)++;
    env_stream_close(stream);
    env_listener_close(listener_to_close);
}

static void listener_closed_by_its_callback_accepts_no_more(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_stream *clients[3];
    char address[64];
    int count = 0;

    snprintf(address, sizeof(address), "%s:0", world.host_a);
    assert_int_equal(
        env_listen(world.a, address, on_accept_close_listener, &count, &listener_to_close, NULL),
        STATUS_OK);
    snprintf(address, sizeof(address), "%s:%u", world.host_a, env_listener_port(listener_to_close));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(env_connect(world.b, address, &clients[i], NULL), STATUS_OK);
    }
    assert_false(world_run(&world, never, NULL, 20 * ENV_NS_PER_MS));
    assert_int_equal(count, 1);
    for (int i = 0; i < 3; i++) {
        env_stream_close(clients[i]);
    }
    world_free(&world);
}

static void addresses_are_checked(void **state)
{
    (void)state;
    struct world world = world_new();
    struct pair pair = { 0 };
    struct env_listener *listener = NULL;
    struct env_stream *stream = NULL;
    static const char *const bad[] = { "",           "nothing",     "1.2.3.4:", "1.2.3.4:70000",
                                       "1.2.3.4:-1", "1.2.3.4: 80", "::1:80",   "1.2.3.4:80x" };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct errmsg err = { "" };
        assert_int_equal(env_listen(world.a, bad[i], on_peer_accept, NULL, &listener, &err),
                         STATUS_INVALID);
        assert_int_not_equal(err.text[0], '\0');
        assert_int_equal(env_connect(world.a, bad[i], &stream, NULL), STATUS_INVALID);
    }
    assert_int_equal(env_connect(world.a, ":80", &stream, NULL), STATUS_INVALID);
    pair_listen(&pair, &world);
    struct errmsg err = { "" };
    assert_int_equal(env_listen(world.a, pair.address, on_peer_accept, NULL, &listener, &err),
                     STATUS_EXISTS);
    assert_int_not_equal(err.text[0], '\0');
    env_listener_close(pair.listener);
    assert_int_equal(env_listen(world.a, pair.address, on_peer_accept, NULL, &listener, NULL), 0);
    env_listener_close(listener);
    env_listener_close(NULL);
    env_stream_close(NULL);
    world_free(&world);
}

/* ---- files ---- */

static void files_keep_what_is_written(void **state)
{
    (void)state;
    struct world world = world_new();
    const unsigned flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE;
    struct env_file *file;
    char path[300], buf[64];
    uint64_t size = 0;
    size_t n = 0;

    snprintf(path, sizeof(path), "%s/data", world.directory);
    assert_int_equal(env_file_open(world.a, path, ENV_FILE_READ, &file, NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_file_open(world.a, path, flags, &file, NULL), STATUS_OK);
    assert_int_equal(env_file_pwrite(file, "hello", 5, 3), STATUS_OK);
    assert_int_equal(env_file_sync(file), STATUS_OK);
    assert_int_equal(env_file_size(file, &size), STATUS_OK);
    assert_int_equal(size, 8);
    assert_int_equal(env_file_pread(file, buf, sizeof(buf), 0, &n), STATUS_OK);
    assert_int_equal(n, 8);
    assert_memory_equal(buf, "\0\0\0hello", 8); /* a gap reads as zeros */
    assert_int_equal(env_file_pread(file, buf, sizeof(buf), 100, &n), STATUS_OK);
    assert_int_equal(n, 0);
    assert_int_equal(env_file_truncate(file, 9), STATUS_INVALID);
    assert_int_equal(env_file_truncate(file, 4), STATUS_OK);
    assert_int_equal(env_file_pread(file, buf, sizeof(buf), 0, &n), STATUS_OK);
    assert_int_equal(n, 4);
    env_file_close(file);
    assert_int_equal(env_file_open(world.a, path, flags, &file, NULL), STATUS_OK);
    assert_int_equal(env_file_size(file, &size), STATUS_OK);
    assert_int_equal(size, 0); /* cut */
    env_file_close(file);
    env_file_close(NULL);
    world_free(&world);
}

static void whole_files_are_replaced_renamed_removed(void **state)
{
    (void)state;
    struct world world = world_new();
    char path[300], other[300], missing[300];
    struct errmsg err = { "" };
    char *data = NULL;
    size_t len = 0;

    snprintf(path, sizeof(path), "%s/x/y/data", world.directory);
    snprintf(other, sizeof(other), "%s/x/other", world.directory);
    snprintf(missing, sizeof(missing), "%s/nowhere/data", world.directory);
    assert_int_equal(env_file_replace(world.a, path, "one", 3, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, path)); /* what was asked for, not the temporary file */
    assert_null(strstr(err.text, ".tmp"));
    snprintf(missing, sizeof(missing), "%s/x/y", world.directory);
    assert_int_equal(env_make_dirs(world.a, missing, NULL), STATUS_OK);
    assert_int_equal(env_make_dirs(world.a, missing, NULL), STATUS_OK);
    assert_int_equal(env_file_replace(world.a, path, "one", 3, NULL), STATUS_OK);
    assert_int_equal(env_file_replace(world.a, path, "three", 5, NULL), STATUS_OK);
    assert_int_equal(env_file_read_all(world.a, path, 4, &data, &len, &err), STATUS_FULL);
    assert_null(data);
    assert_int_equal(env_file_read_all(world.a, path, 5, &data, &len, NULL), STATUS_OK);
    assert_int_equal(len, 5);
    assert_string_equal(data, "three");
    free(data);
    assert_int_equal(env_file_rename(world.a, path, other), STATUS_OK);
    assert_int_equal(env_file_read_all(world.a, path, 5, &data, &len, NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_file_remove(world.a, other), STATUS_OK);
    assert_int_equal(env_file_remove(world.a, other), STATUS_NOT_FOUND);
    world_free(&world);
}

/* ---- files in bulk ---- */

enum { BULK_COUNT = 40, BULK_SIZE = 2 * ENV_DIRECT_ALIGN };

struct bulk {
    struct env_io io;
    int ran;
    enum status status;
    size_t n;
    int *left; /* how many of all still run */
};

static void on_bulk(void *ctx, enum status status, size_t n)
{
    struct bulk *bulk = ctx;
    bulk->ran++;
    bulk->status = status;
    bulk->n = n;
    (*bulk->left)--;
}

static bool none_left(void *ctx)
{
    return *(int *)ctx == 0;
}

static void bulk_start(struct bulk *bulk, struct env_file *file, enum env_io_op op,
                       const struct iovec *parts, int parts_count, uint64_t offset, int *left)
{
    memset(bulk, 0, sizeof(*bulk));
    bulk->io = (struct env_io){ .op = op,
                                .file = file,
                                .parts_count = parts_count,
                                .offset = offset,
                                .fn = on_bulk,
                                .ctx = bulk };
    for (int i = 0; i < parts_count; i++)
        bulk->io.parts[i] = parts[i];
    bulk->left = left;
    (*left)++;
    assert_int_equal(env_io_start(&bulk->io), STATUS_OK);
    assert_int_equal(bulk->ran, 0); /* never from inside */
}

static struct bulk bulk_one(struct world *world, struct env_file *file, enum env_io_op op,
                            const struct iovec *parts, int parts_count, uint64_t offset)
{
    static struct bulk bulk;
    int left = 0;
    bulk_start(&bulk, file, op, parts, parts_count, offset, &left);
    assert_true(world_run(world, none_left, &left, LIMIT_NS));
    assert_int_equal(bulk.ran, 1);
    return bulk;
}

static struct env_file *bulk_open(struct world *world, const char *name, unsigned flags)
{
    struct env_file *file;
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", world->directory, name);
    assert_int_equal(env_file_open(world->a, path, flags | ENV_FILE_DIRECT, &file, NULL),
                     STATUS_OK);
    return file;
}

static void bulk_io_moves_what_it_says(void **state)
{
    (void)state;
    struct world world = world_new();
    static struct bulk bulks[BULK_COUNT];
    uint8_t *data = aligned_alloc(ENV_DIRECT_ALIGN, (size_t)BULK_COUNT * BULK_SIZE);
    uint8_t *back = aligned_alloc(ENV_DIRECT_ALIGN, (size_t)BULK_COUNT * BULK_SIZE);
    const uint64_t total = (uint64_t)BULK_COUNT * BULK_SIZE;
    struct env_file *file =
        bulk_open(&world, "bulk", ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE);
    uint64_t size = 0;
    int left = 0;

    for (uint64_t i = 0; i < total; i++)
        data[i] = (uint8_t)(i * 31 + i / BULK_SIZE);
    assert_int_equal(bulk_one(&world, file, ENV_IO_RESERVE, NULL, 0, 2 * total).status, STATUS_OK);
    assert_int_equal(env_file_size(file, &size), STATUS_OK);
    assert_int_equal(size, 0);
    for (unsigned i = 0; i < BULK_COUNT; i++) { /* in two parts, last place first */
        uint8_t *from = data + (size_t)(BULK_COUNT - 1 - i) * BULK_SIZE;
        const struct iovec parts[] = { { from, BULK_SIZE / 2 },
                                       { from + BULK_SIZE / 2, BULK_SIZE / 2 } };
        bulk_start(&bulks[i], file, ENV_IO_WRITE, parts, 2, (uint64_t)(from - data), &left);
    }
    assert_true(world_run(&world, none_left, &left, LIMIT_NS));
    for (unsigned i = 0; i < BULK_COUNT; i++) {
        assert_int_equal(bulks[i].ran, 1);
        assert_int_equal(bulks[i].status, STATUS_OK);
        assert_int_equal(bulks[i].n, BULK_SIZE);
    }
    assert_int_equal(bulk_one(&world, file, ENV_IO_SYNC, NULL, 0, 0).status, STATUS_OK);
    assert_int_equal(env_file_size(file, &size), STATUS_OK);
    assert_int_equal(size, total);
    memset(back, 0, total);
    const struct iovec whole = { back, total };
    struct bulk read = bulk_one(&world, file, ENV_IO_READ, &whole, 1, 0);
    assert_int_equal(read.n, total);
    assert_memory_equal(back, data, total);
    const struct iovec last[] = { { back, BULK_SIZE }, { back + BULK_SIZE, BULK_SIZE } };
    read = bulk_one(&world, file, ENV_IO_READ, last, 2, total - BULK_SIZE - ENV_DIRECT_ALIGN);
    assert_int_equal(read.status, STATUS_OK);
    assert_int_equal(read.n, BULK_SIZE + ENV_DIRECT_ALIGN); /* the file ends inside */
    assert_memory_equal(back, data + total - BULK_SIZE - ENV_DIRECT_ALIGN, read.n);
    read = bulk_one(&world, file, ENV_IO_READ, last, 2, total);
    assert_int_equal(read.status, STATUS_OK);
    assert_int_equal(read.n, 0);
    env_file_close(file);
    free(data);
    free(back);
    world_free(&world);
}

static void bulk_io_has_limits_and_fails_plainly(void **state)
{
    (void)state;
    struct world world = world_new();
    static struct bulk bulks[ENV_IOS_MAX];
    uint8_t *data = aligned_alloc(ENV_DIRECT_ALIGN, BULK_SIZE);
    const struct iovec part = { data, BULK_SIZE };
    struct env_file *file = bulk_open(&world, "x", ENV_FILE_WRITE | ENV_FILE_CREATE);
    struct env_io more = { .op = ENV_IO_SYNC, .file = file, .fn = on_bulk };
    int left = 0;

    memset(data, 7, BULK_SIZE);
    assert_int_equal(bulk_one(&world, file, ENV_IO_READ, &part, 1, 0).status, STATUS_IO);
    for (unsigned i = 0; i < ENV_IOS_MAX; i++)
        bulk_start(&bulks[i], file, ENV_IO_WRITE, &part, 1, 0, &left);
    assert_int_equal(env_io_start(&more), STATUS_FULL);
    assert_true(world_run(&world, none_left, &left, LIMIT_NS));
    assert_int_equal(bulk_one(&world, file, ENV_IO_SYNC, NULL, 0, 0).status, STATUS_OK);

    /* Closing waits for what is on its way, and nobody hears of it. */
    for (unsigned i = 0; i < BULK_COUNT; i++)
        bulk_start(&bulks[i], file, ENV_IO_WRITE, &part, 1, (uint64_t)i * BULK_SIZE, &left);
    struct env_file *other = bulk_open(&world, "y", ENV_FILE_WRITE | ENV_FILE_CREATE);
    struct bulk elsewhere;
    int others = 0;
    bulk_start(&elsewhere, other, ENV_IO_WRITE, &part, 1, 0, &others);
    env_file_close(file);
    assert_true(world_run(&world, none_left, &others, LIMIT_NS));
    assert_int_equal(elsewhere.status, STATUS_OK);
    assert_int_equal(left, BULK_COUNT);
    env_file_close(other);
    file = bulk_open(&world, "x", ENV_FILE_READ);
    uint64_t size = 0;
    assert_int_equal(env_file_size(file, &size), STATUS_OK);
    assert_int_equal(size, (uint64_t)BULK_COUNT * BULK_SIZE);
    /* Past the cache goes only what is aligned; tmpfs takes all. */
    const struct iovec odd = { data + 1, BULK_SIZE / 2 };
    const enum status refused = bulk_one(&world, file, ENV_IO_READ, &odd, 1, 0).status;
    assert_true(refused == STATUS_UNSUPPORTED || (world.sim == NULL && refused == STATUS_OK));
    assert_true(world.sim == NULL || env_file_direct(file));
    bulk_start(&bulks[0], file, ENV_IO_READ, &part, 1, 0, &left);
    env_file_close(file);
    free(data);
    world_free(&world);
}

/* ---- jobs ---- */

enum { JOBS = 60, JOB_WORK = 2000 };

struct job {
    struct env_job job;
    uint64_t input, sum;
    int runs, dones;
    int *left;
    struct job *other; /* that it settles when it is done */
};

static void job_run(void *ctx)
{
    struct job *job = ctx;

    job->runs++;
    for (uint64_t i = 0; i < JOB_WORK; i++)
        job->sum = job->sum * 31 + (job->input ^ i);
}

static void job_done(void *ctx)
{
    struct job *job = ctx;

    assert_int_equal(job->runs, 1);
    job->dones++;
    if (job->left != NULL) (*job->left)--;
}

static void job_start(struct env *env, struct job *job, uint64_t input, int *left)
{
    *job = (struct job){ .job = { .run = job_run, .done = job_done, .ctx = job },
                         .input = input,
                         .left = left };
    if (left != NULL) (*left)++;
    assert_int_equal(env_job_start(env, &job->job), STATUS_OK);
    assert_int_equal(job->dones, 0); /* never from inside */
}

static void jobs_compute_beside_the_loop(void **state)
{
    (void)state;
    static struct job jobs[JOBS];
    struct world world = world_new();
    int left = 0;

    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < JOBS; i++)
            job_start(i % 2 == 0 ? world.a : world.b, &jobs[i], i, &left);
        assert_true(world_run(&world, none_left, &left, LIMIT_NS));
        for (uint64_t i = 0; i < JOBS; i++) {
            struct job again = { .input = i };
            job_run(&again);
            assert_int_equal(jobs[i].sum, again.sum);
            assert_int_equal(jobs[i].dones, 1);
        }
    }
    world_free(&world);
}

/* Whatever is cancelled or settled, before, while or after it runs: nothing happens to it from then
 * on; and nothing else is lost. */
static void jobs_are_cancelled_and_settled(void **state)
{
    (void)state;
    static struct job jobs[JOBS];
    struct job never_started = { .input = 0 };
    struct world world = world_new();
    bool settled[JOBS];
    int runs[JOBS], left = 0;

    env_job_settle(&never_started.job);
    for (unsigned round = 0; round < 20; round++) {
        memset(settled, 0, sizeof(settled));
        for (uint64_t i = 0; i < JOBS; i++)
            job_start(world.a, &jobs[i], i, &left);
        if (round % 2 == 1) (void)world_run(&world, never, NULL, round * ENV_NS_PER_MS / 8);
        for (int i = 0; i < JOBS; i++) {
            if (i % 3 == 2 || jobs[i].dones > 0) continue;
            settled[i] = i % 3 == 0 || env_job_cancel(&jobs[i].job);
            if (i % 3 == 0) env_job_settle(&jobs[i].job);
            if (i % 3 == 1 && settled[i]) assert_int_equal(jobs[i].runs, 0);
            left -= settled[i];
            if (settled[i]) runs[i] = jobs[i].runs; /* it is ours again */
        }
        assert_true(world_run(&world, none_left, &left, LIMIT_NS));
        for (int i = 0; i < JOBS; i++) {
            assert_int_equal(jobs[i].dones, settled[i] ? 0 : 1);
            assert_int_equal(jobs[i].runs, settled[i] ? runs[i] : 1);
            env_job_settle(&jobs[i].job); /* of what is done: nothing */
        }
    }
    world_free(&world);
}

static void on_job_settles(void *ctx)
{
    struct job *job = ctx;

    job_done(job);
    (*job->left) -= job->other->dones == 0;
    env_job_settle(&job->other->job);
}

/* The first to be done settles the other one, also when both have run by then. */
static void a_done_job_settles_another(void **state)
{
    (void)state;
    struct world world = world_new();
    struct job jobs[2];
    int left = 0;

    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2; i++) {
            job_start(world.a, &jobs[i], 1, &left);
            jobs[i].job.done = on_job_settles;
            jobs[i].other = &jobs[1 - i];
        }
        if (!simulated && round % 2 == 0) env_real_sleep_ns(ENV_NS_PER_MS);
        assert_true(world_run(&world, none_left, &left, LIMIT_NS));
        assert_int_equal(jobs[0].dones + jobs[1].dones, 1);
    }
    world_free(&world);
}

static void jobs_have_a_limit_and_end_with_their_env(void **state)
{
    (void)state;
    static struct job jobs[ENV_JOBS_MAX], more;
    struct world world = world_new();
    int left = 0;

    for (uint64_t i = 0; i < ENV_JOBS_MAX; i++)
        job_start(world.a, &jobs[i], i, &left);
    more = (struct job){ .job = { .run = job_run, .done = job_done, .ctx = &more } };
    assert_int_equal(env_job_start(world.a, &more.job), STATUS_FULL);
    job_start(world.b, &more, 0, NULL); /* each env has its own */
    env_job_settle(&jobs[7].job);
    assert_int_equal(env_job_start(world.a, &jobs[7].job), STATUS_OK);
    world_free(&world);
    for (int i = 0; i < ENV_JOBS_MAX; i++)
        assert_int_equal(jobs[i].dones, 0);
}

static void note_name(void *ctx, const char *name)
{
    char *all = ctx;
    assert_int_equal(strlen(name), 1);
    all[name[0] - 'a']++;
}

static void directories_are_listed_and_files_locked(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_file *first, *second;
    struct errmsg err = { "" };
    char path[300], seen[26] = { 0 };
    uint64_t room = 0;

    for (char name = 'a'; name < 'd'; name++) {
        snprintf(path, sizeof(path), "%s/%c", world.directory, name);
        assert_int_equal(env_file_replace(world.a, path, "x", 1, NULL), STATUS_OK);
    }
    snprintf(path, sizeof(path), "%s/d/e", world.directory);
    assert_int_equal(env_make_dirs(world.a, path, NULL), STATUS_OK);
    assert_int_equal(env_dir_list(world.a, world.directory, note_name, seen, NULL), STATUS_OK);
    assert_memory_equal(seen, "\1\1\1\1\0", 5); /* d is one, d/e is not */
    snprintf(path, sizeof(path), "%s/nothing", world.directory);
    assert_int_equal(env_dir_list(world.a, path, note_name, seen, &err), STATUS_NOT_FOUND);
    assert_int_not_equal(err.text[0], '\0');
    assert_int_equal(env_disk_free(world.a, world.directory, &room), STATUS_OK);
    assert_true(room > 0);

    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_LOCK;
    snprintf(path, sizeof(path), "%s/lock", world.directory);
    assert_int_equal(env_file_open(world.a, path, flags, &first, NULL), STATUS_OK);
    err.text[0] = '\0';
    assert_int_equal(env_file_open(world.a, path, flags, &second, &err), STATUS_EXISTS);
    assert_int_not_equal(err.text[0], '\0');
    env_file_close(first);
    assert_int_equal(env_file_open(world.a, path, flags, &second, NULL), STATUS_OK);
    env_file_close(second);
    world_free(&world);
}

/* ---- maps ---- */

static void memory_is_shared_on_a_host(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_map ours = { 0 }, theirs = { 0 };
    char name[ENV_SHARE_NAME_SIZE];
    struct env *neighbour = simulated ? env_sim_add(world.sim, "10.0.0.1") : world.b;
    const size_t size = 1 << 20;

    assert_int_equal(env_map_create(world.a, size, &ours, name, NULL), STATUS_OK);
    assert_int_equal(ours.size, size);
    assert_int_equal(((uint8_t *)ours.data)[size - 1], 0);
    assert_int_equal(env_map_open(neighbour, name, size + 4096, &theirs), STATUS_NOT_FOUND);
    assert_int_equal(env_map_open(neighbour, name, size, &theirs), STATUS_OK);
    memcpy((char *)ours.data + 5000, "seen", 5);
    assert_string_equal((char *)theirs.data + 5000, "seen");
    assert_true(env_map_alive(&theirs));
    env_map_close(&ours);
    assert_false(env_map_alive(&theirs));
    assert_null(ours.data);
    assert_string_equal((char *)theirs.data + 5000, "seen"); /* as long as somebody maps it */
    env_map_close(&theirs);
    env_map_close(&theirs);
    assert_int_equal(env_map_open(neighbour, name, size, &theirs), STATUS_NOT_FOUND);
    assert_int_equal(env_map_open(neighbour, "rubbish", size, &theirs), STATUS_INVALID);
    world_free(&world);
}

static size_t resident(const struct env_map *map)
{
    enum { PAGES_MAX = 64 << 8 };
    static unsigned char pages[PAGES_MAX];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), count = map->size / page;
    size_t found = 0;

    assert_true(count <= PAGES_MAX);
    assert_int_equal(mincore(map->data, map->size, pages), 0);
    for (size_t i = 0; i < count; i++)
        found += pages[i] & 1;
    return found * page;
}

static void pages_are_made_ahead(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_map ours = { 0 }, theirs = { 0 };
    char name[ENV_SHARE_NAME_SIZE];
    const size_t size = 64 << 20, some = 40 << 20; /* more than one thread takes at once */

    assert_int_equal(env_map_create(world.a, size, &ours, name, NULL), STATUS_OK);
    memcpy((char *)ours.data + 5000, "stays", 6);
    assert_true(resident(&ours) < 1 << 20);
    const enum status status = env_populate(world.a, (char *)ours.data + 5000, some);
    if (status == STATUS_UNSUPPORTED) {
        print_message("SKIPPED: this kernel cannot populate\n");
    } else {
        assert_int_equal(status, STATUS_OK);
        if (!simulated) {
            assert_true(resident(&ours) >= some && resident(&ours) <= some + (1 << 20));
            assert_int_equal(env_map_open(world.b, name, size, &theirs), STATUS_OK);
            assert_int_equal(env_populate(world.b, theirs.data, size), STATUS_UNSUPPORTED);
        }
    }
    assert_string_equal((char *)ours.data + 5000, "stays");
    env_map_close(&theirs);
    env_map_close(&ours);
    world_free(&world);
}

/* How many pages of [data, data+size) this process has mapped, of those that lie `step` apart. */
static size_t mapped(const uint8_t *data, size_t size, size_t step)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t found = 0;

    assert_true(fd >= 0);
    for (size_t at = 0; at < size; at += step) {
        uint64_t entry;
        const off_t where = (off_t)(((uintptr_t)data + at) / page * sizeof(entry));
        assert_int_equal(pread(fd, &entry, sizeof(entry), where), sizeof(entry));
        found += entry >> 63;
    }
    close(fd);
    return found;
}

/* Asks until that has been done. */
static void await_mapped(struct env *env, const struct env_map *map, size_t at, size_t size)
{
    const size_t step = 64 << 10; /* as much at a time */
    const uint8_t *data = (const uint8_t *)map->data + at;

    for (int ms = 0; ms < 10000 && mapped(data, size, step) < size / step; ms++) {
        env_map_ahead(env, map, at, size); /* it may be left out */
        (void)env_poll(env, ENV_NS_PER_MS);
    }
    assert_int_equal(mapped(data, size, step), size / step);
}

/* What is there is mapped, what is not is not made; and maps may go before that is done. */
static void pages_are_mapped_ahead(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env *neighbour = simulated ? env_sim_add(world.sim, "10.0.0.1") : world.b;
    struct env_map ours = { 0 }, theirs = { 0 };
    char name[ENV_SHARE_NAME_SIZE];
    const size_t size = 32 << 20, start = 7 << 20, some = 3 << 20;

    assert_int_equal(env_map_create(world.a, size, &ours, name, NULL), STATUS_OK);
    memset((char *)ours.data + start, 1, some);
    for (int i = 0; i < 200; i++) { /* more than can wait */
        env_map_close(&theirs);
        assert_int_equal(env_map_open(neighbour, name, size, &theirs), STATUS_OK);
        env_map_ahead(neighbour, &theirs, 0, size);
        env_map_ahead(neighbour, &theirs, size - 1, 1);
    }
    if (!simulated) {
        await_mapped(neighbour, &theirs, start, some);
        assert_int_equal(mapped(theirs.data, start, (size_t)sysconf(_SC_PAGESIZE)), 0);
        assert_int_equal(resident(&ours), some);
    }
    assert_memory_equal((char *)theirs.data + start, (char *)ours.data + start, some);
    env_map_close(&ours);
    env_map_close(&theirs);
    world_free(&world);
}

/* True if writing there ends the process that does it. */
static bool write_is_fatal(void *at)
{
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); /* the test program and sanitizers catch it */
        *(volatile uint8_t *)at = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void readers_cannot_write(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_map ours = { 0 }, theirs = { 0 }, file = { 0 };
    char name[ENV_SHARE_NAME_SIZE], path[300];
    struct env *neighbour = simulated ? env_sim_add(world.sim, "10.0.0.1") : world.b;

    assert_int_equal(env_map_create(world.a, 4096, &ours, name, NULL), STATUS_OK);
    assert_int_equal(env_map_open(neighbour, name, 4096, &theirs), STATUS_OK);
    assert_false(write_is_fatal(ours.data));
    assert_true(write_is_fatal(theirs.data));
    snprintf(path, sizeof(path), "%s/weights", world.directory);
    assert_int_equal(env_file_replace(world.a, path, "12345", 5, NULL), STATUS_OK);
    assert_int_equal(env_map_file(world.a, path, &file, NULL), STATUS_OK);
    assert_true(write_is_fatal(file.data));
    env_map_close(&file);
    env_map_close(&theirs);
    env_map_close(&ours);
    world_free(&world);
}

static void files_are_seen_as_memory(void **state)
{
    (void)state;
    struct world world = world_new();
    struct env_map map = { 0 };
    char path[300];

    snprintf(path, sizeof(path), "%s/weights", world.directory);
    assert_int_equal(env_map_file(world.a, path, &map, NULL), STATUS_NOT_FOUND);
    assert_int_equal(env_file_replace(world.a, path, "12345", 5, NULL), STATUS_OK);
    assert_int_equal(env_map_file(world.a, path, &map, NULL), STATUS_OK);
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "12345", 5);
    env_map_close(&map);
    assert_int_equal(env_file_replace(world.a, path, "", 0, NULL), STATUS_OK);
    assert_int_equal(env_map_file(world.a, path, &map, NULL), STATUS_INVALID); /* nothing to map */
    world_free(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_and_never_early),
        cmocka_unit_test(timer_set_in_the_past_does_not_starve_others),
        cmocka_unit_test(posts_keep_their_order),
        cmocka_unit_test(post_beyond_the_limit_is_full),
        cmocka_unit_test(run_ends_at_stop_and_can_run_again),
        cmocka_unit_test(streams_carry_both_ways),
        cmocka_unit_test(close_delivers_what_was_written),
        cmocka_unit_test(close_with_unread_input_delivers_the_answer),
        cmocka_unit_test(connect_to_nobody_is_refused),
        cmocka_unit_test(writer_is_pushed_back_and_goes_on),
        cmocka_unit_test(watch_of_nothing_is_silent),
        cmocka_unit_test(close_inside_a_callback_silences_all),
        cmocka_unit_test(unwatch_inside_a_callback_silences_all),
        cmocka_unit_test(listener_closed_by_its_callback_accepts_no_more),
        cmocka_unit_test(addresses_are_checked),
        cmocka_unit_test(files_keep_what_is_written),
        cmocka_unit_test(whole_files_are_replaced_renamed_removed),
        cmocka_unit_test(bulk_io_moves_what_it_says),
        cmocka_unit_test(bulk_io_has_limits_and_fails_plainly),
        cmocka_unit_test(jobs_compute_beside_the_loop),
        cmocka_unit_test(jobs_are_cancelled_and_settled),
        cmocka_unit_test(a_done_job_settles_another),
        cmocka_unit_test(jobs_have_a_limit_and_end_with_their_env),
        cmocka_unit_test(directories_are_listed_and_files_locked),
        cmocka_unit_test(memory_is_shared_on_a_host),
        cmocka_unit_test(pages_are_made_ahead),
        cmocka_unit_test(pages_are_mapped_ahead),
        cmocka_unit_test(readers_cannot_write),
        cmocka_unit_test(files_are_seen_as_memory),
    };

    const struct CMUnitTest bulk_tests[] = {
        cmocka_unit_test(bulk_io_moves_what_it_says),
        cmocka_unit_test(bulk_io_has_limits_and_fails_plainly),
    };

    int failed = cmocka_run_group_tests_name("env: real", tests, NULL, NULL);
    threaded = true;
    failed += cmocka_run_group_tests_name("env: real, without io_uring", bulk_tests, NULL, NULL);
    simulated = true;
    failed += cmocka_run_group_tests_name("env: simulated", tests, NULL, NULL);
    return failed;
}
