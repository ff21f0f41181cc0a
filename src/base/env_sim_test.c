/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_test.c
 *
 * Goal:    the simulated world breaks things only in the ways the real one does, all of them, and
 *          the same way for the same seed.
 * Method:  each kind of fault alone; then many seeds of a small cluster of echo servers under every
 *          fault together, where what arrives must be a prefix of what was sent, each seed run
 *          twice to the same trace, and after the faults end everything must work. YOLK_SIM_SEEDS
 *          sets how many seeds. */
#include "base/env_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/rng.h"
#include "seed.h"

static uint64_t seed;

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 8));
}

/* ---- a server that echoes, and a client that checks the echo ---- */

enum { CONNS_MAX = 64 };

struct server;

struct session {
    struct server *server;
    struct env_stream *stream;
    uint8_t buf[512];
    size_t buf_len;
};

struct server {
    struct env *env;
    struct env_listener *listener;
    struct session sessions[CONNS_MAX];
    uint64_t accepted;
};

static void session_close(struct session *session)
{
    env_stream_close(session->stream);
    session->stream = NULL;
}

static void on_session_ready(void *ctx, unsigned events)
{
    struct session *session = ctx;
    size_t n = 0;

    if ((events & ENV_WRITE) != 0 && session->buf_len > 0) {
        const struct iovec iov = { .iov_base = session->buf, .iov_len = session->buf_len };
        const enum status status = env_stream_writev(session->stream, &iov, 1, &n);
        if (status == STATUS_OK) {
            memmove(session->buf, session->buf + n, session->buf_len - n);
            session->buf_len -= n;
        } else if (status != STATUS_AGAIN) {
            session_close(session);
            return;
        }
    }
    if ((events & ENV_READ) != 0 && session->buf_len == 0) {
        const enum status status =
            env_stream_read(session->stream, session->buf, sizeof(session->buf), &n);
        if (status == STATUS_OK) {
            session->buf_len = n;
        } else if (status != STATUS_AGAIN) {
            session_close(session);
            return;
        }
    }
    env_stream_watch(session->stream, session->buf_len > 0 ? ENV_WRITE : ENV_READ, on_session_ready,
                     session);
}

static void on_server_accept(void *ctx, struct env_stream *stream)
{
    struct server *server = ctx;

    for (int i = 0; i < CONNS_MAX; i++) {
        struct session *session = &server->sessions[i];
        if (session->stream != NULL) continue;
        *session = (struct session){ .server = server, .stream = stream };
        server->accepted++;
        env_stream_watch(stream, ENV_READ, on_session_ready, session);
        return;
    }
    env_stream_close(stream);
}

static void server_start(struct server *server, struct env *env)
{
    *server = (struct server){ .env = env };
    assert_int_equal(env_listen(env, ":7000", on_server_accept, server, &server->listener, NULL),
                     STATUS_OK);
}

static void server_free(struct server *server)
{
    for (int i = 0; i < CONNS_MAX; i++) {
        session_close(&server->sessions[i]);
    }
    env_listener_close(server->listener);
    server->listener = NULL;
}

struct client {
    struct env *env;
    struct env_stream *stream;
    uint64_t sent, echoed, goal;
    enum status end; /* STATUS_OK while it lives */
};

static void on_client_ready(void *ctx, unsigned events)
{
    struct client *client = ctx;
    uint8_t buf[1000];
    size_t n = 0;

    if ((events & ENV_READ) != 0) {
        const enum status status = env_stream_read(client->stream, buf, sizeof(buf), &n);
        if (status == STATUS_OK) {
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(buf[i], pattern(client->echoed + i));
            }
            client->echoed += n;
            assert_true(client->echoed <= client->sent);
        } else if (status != STATUS_AGAIN) {
            client->end = status;
        }
    }
    if ((events & ENV_WRITE) != 0 && client->end == STATUS_OK && client->sent < client->goal) {
        const uint64_t left = client->goal - client->sent;
        const size_t len = left < sizeof(buf) ? (size_t)left : sizeof(buf);
        for (size_t i = 0; i < len; i++) {
            buf[i] = pattern(client->sent + i);
        }
        const struct iovec iov = { .iov_base = buf, .iov_len = len };
        const enum status status = env_stream_writev(client->stream, &iov, 1, &n);
        if (status == STATUS_OK)
            client->sent += n;
        else if (status != STATUS_AGAIN)
            client->end = status;
    }
    unsigned wanted = ENV_READ | (client->sent < client->goal ? ENV_WRITE : 0);
    if (client->end != STATUS_OK) wanted = 0;
    env_stream_watch(client->stream, wanted, on_client_ready, client);
}

static void client_start(struct client *client, struct env *env, const char *address, uint64_t goal)
{
    *client = (struct client){ .env = env, .goal = goal };
    assert_int_equal(env_connect(env, address, &client->stream, NULL), STATUS_OK);
    env_stream_watch(client->stream, ENV_READ | ENV_WRITE, on_client_ready, client);
}

static void client_free(struct client *client)
{
    env_stream_close(client->stream);
    client->stream = NULL;
}

static void client_send_more(struct client *client, uint64_t goal)
{
    client->goal = goal;
    env_stream_watch(client->stream, ENV_READ | ENV_WRITE, on_client_ready, client);
}

static bool client_done(void *ctx)
{
    const struct client *client = ctx;
    return client->echoed == client->goal;
}

static bool client_ended(void *ctx)
{
    return ((const struct client *)ctx)->end != STATUS_OK;
}

struct duo {
    struct env_sim *sim;
    struct env *env_a, *env_b;
    struct server server; /* on 10.0.0.1:7000 */
    struct client client; /* on 10.0.0.2, has exchanged 10 bytes */
};

static struct duo *duo_new(const struct env_sim_options *options)
{
    struct duo *duo = calloc(1, sizeof(*duo));

    assert_non_null(duo);
    duo->sim = env_sim_create(options);
    duo->env_a = env_sim_add(duo->sim, "10.0.0.1");
    duo->env_b = env_sim_add(duo->sim, "10.0.0.2");
    server_start(&duo->server, duo->env_a);
    client_start(&duo->client, duo->env_b, "10.0.0.1:7000", 10);
    assert_true(env_sim_run_until(duo->sim, client_done, &duo->client, ENV_NS_PER_S));
    return duo;
}

static struct duo *duo_calm(void)
{
    return duo_new(&(struct env_sim_options){ .seed = seed });
}

static void duo_free(struct duo *duo)
{
    client_free(&duo->client);
    server_free(&duo->server);
    env_sim_destroy(duo->sim);
    free(duo);
}

/* ---- faults, one by one ---- */

static void fire(void *ctx)
{
    (*(int *)ctx)++;
}

static void the_killed_stay_silent_and_can_be_restarted(void **state)
{
    (void)state;
    struct duo *duo = duo_calm();
    struct env_timer timer;
    int fired = 0;

    env_timer_init(&timer, fire, &fired);
    env_timer_set(duo->env_a, &timer, env_now_ns(duo->env_a) + ENV_NS_PER_MS);
    assert_int_equal(env_post(duo->env_a, fire, &fired), STATUS_OK);
    env_sim_kill(duo->env_a);
    assert_false(env_sim_alive(duo->env_a));
    assert_true(env_sim_run_until(duo->sim, client_ended, &duo->client, ENV_NS_PER_S));
    assert_int_equal(duo->client.end, STATUS_CONN_CLOSED);
    env_sim_run_for(duo->sim, ENV_NS_PER_S);
    assert_int_equal(fired, 0);
    assert_false(env_timer_armed(&timer));
    /* The dead can be tidied up, and do nothing else. */
    struct env_stream *stream;
    struct env_listener *listener;
    assert_int_equal(env_post(duo->env_a, fire, &fired), STATUS_UNAVAILABLE);
    assert_int_equal(env_connect(duo->env_a, "10.0.0.2:1", &stream, NULL), STATUS_UNAVAILABLE);
    assert_int_equal(env_listen(duo->env_a, ":1", on_server_accept, NULL, &listener, NULL),
                     STATUS_UNAVAILABLE);
    env_timer_set(duo->env_a, &timer, 0);
    assert_false(env_timer_armed(&timer));
    env_timer_cancel(duo->env_a, &timer);
    server_free(&duo->server);
    client_free(&duo->client);

    client_start(&duo->client, duo->env_b, "10.0.0.1:7000", 10);
    assert_true(env_sim_run_until(duo->sim, client_ended, &duo->client, ENV_NS_PER_S));
    assert_int_equal(duo->client.end, STATUS_CONN_REFUSED); /* nobody listens */
    client_free(&duo->client);
    duo->env_a = env_sim_add(duo->sim, "10.0.0.1");
    server_start(&duo->server, duo->env_a);
    client_start(&duo->client, duo->env_b, "10.0.0.1:7000", 1000);
    assert_true(env_sim_run_until(duo->sim, client_done, &duo->client, ENV_NS_PER_S));
    duo_free(duo);
}

static void without_power_peers_hear_nothing(void **state)
{
    (void)state;
    struct duo *duo = duo_calm();

    env_sim_power_off(duo->sim, "10.0.0.1");
    client_send_more(&duo->client, 20);
    env_sim_run_for(duo->sim, 10 * ENV_NS_PER_S);
    assert_int_equal(duo->client.end, STATUS_OK);
    assert_int_equal(duo->client.echoed, 10);
    server_free(&duo->server);
    /* When the host is back it does not know the connection. */
    duo->env_a = env_sim_add(duo->sim, "10.0.0.1");
    assert_true(env_sim_run_until(duo->sim, client_ended, &duo->client, 2 * ENV_NS_PER_S));
    assert_int_equal(duo->client.end, STATUS_CONN_CLOSED);
    duo_free(duo);
}

static void partitions_hold_back_and_heal(void **state)
{
    (void)state;
    struct duo *duo = duo_calm();
    struct client second;

    env_sim_partition(duo->sim, "10.0.0.1", "10.0.0.2");
    client_send_more(&duo->client, 5000);
    client_start(&second, duo->env_b, "10.0.0.1:7000", 10);
    env_sim_run_for(duo->sim, 5 * ENV_NS_PER_S);
    assert_int_equal(duo->client.echoed, 10);
    assert_int_equal(second.echoed, 0);
    env_sim_heal(duo->sim, "10.0.0.1", "10.0.0.2");
    assert_true(env_sim_run_until(duo->sim, client_done, &duo->client, 2 * ENV_NS_PER_S));
    assert_true(env_sim_run_until(duo->sim, client_done, &second, 2 * ENV_NS_PER_S));
    client_free(&second);

    env_sim_partition(duo->sim, "10.0.0.1", "10.0.0.2");
    client_start(&second, duo->env_b, "10.0.0.1:7000", 10);
    assert_true(env_sim_run_until(duo->sim, client_ended, &second, 200 * ENV_NS_PER_S));
    assert_int_equal(second.end, STATUS_TIMEOUT);
    client_free(&second);
    duo_free(duo);
}

static void the_paused_are_silent_until_resumed(void **state)
{
    (void)state;
    struct duo *duo = duo_calm();
    struct client second;

    env_sim_pause(duo->env_a);
    client_send_more(&duo->client, 100);
    client_start(&second, duo->env_b, "10.0.0.1:7000", 10);
    env_sim_run_for(duo->sim, ENV_NS_PER_S);
    assert_int_equal(duo->client.echoed, 10);
    assert_int_equal(second.sent, 10); /* its kernel took it */
    assert_int_equal(duo->server.accepted, 1);
    env_sim_resume(duo->env_a);
    assert_true(env_sim_run_until(duo->sim, client_done, &duo->client, ENV_NS_PER_S));
    assert_true(env_sim_run_until(duo->sim, client_done, &second, ENV_NS_PER_S));
    client_free(&second);
    duo_free(duo);
}

static void lost_connections_end_at_both_ends(void **state)
{
    (void)state;
    struct duo *duo = duo_calm();
    struct env_sim *other =
        env_sim_create(&(struct env_sim_options){ .seed = seed, .conn_loss_ppm = 1000000 });
    struct server *server = calloc(1, sizeof(*server));
    struct client client;

    assert_non_null(server);
    server_start(server, env_sim_add(other, "10.0.0.1"));
    client_start(&client, env_sim_add(other, "10.0.0.2"), "10.0.0.1:7000", 10);
    assert_int_equal(env_sim_fault_count(other), 0);
    assert_true(env_sim_run_until(other, client_ended, &client, ENV_NS_PER_S));
    assert_int_equal(client.end, STATUS_CONN_CLOSED);
    const uint64_t faults = env_sim_fault_count(other);
    assert_true(faults > 0);
    env_sim_partition(other, "10.0.0.1", "10.0.0.2");
    env_sim_heal(other, "10.0.0.1", "10.0.0.2");
    assert_int_equal(env_sim_fault_count(other), faults + 1);
    env_sim_run_for(other, ENV_NS_PER_S);
    assert_int_equal(server->accepted, 1);
    assert_null(server->sessions[0].stream);
    client_free(&client);
    server_free(server);
    free(server);
    env_sim_destroy(other);
    duo_free(duo);
}

/* Echoes until told otherwise, and counts the bytes that came back as others. */
static uint64_t wrong_bytes(struct env_sim *sim, struct env *here, uint64_t rounds)
{
    uint8_t sent[100], got[100];
    struct env_stream *stream;
    uint64_t wrong = 0;

    assert_int_equal(env_connect(here, "10.0.0.1:7000", &stream, NULL), STATUS_OK);
    for (uint64_t i = 0; i < rounds; i++) {
        const struct iovec iov = { sent, sizeof(sent) };
        size_t n = 0;
        memset(sent, (int)i, sizeof(sent));
        env_sim_run_for(sim, 10 * ENV_NS_PER_MS);
        assert_int_equal(env_stream_writev(stream, &iov, 1, &n), STATUS_OK);
        env_sim_run_for(sim, 10 * ENV_NS_PER_MS);
        assert_int_equal(env_stream_read(stream, got, sizeof(got), &n), STATUS_OK);
        assert_int_equal(n, sizeof(got));
        for (size_t at = 0; at < sizeof(got); at++)
            wrong += got[at] != sent[at];
    }
    env_stream_close(stream);
    return wrong;
}

static void bits_flip_in_flight_until_calm(void **state)
{
    (void)state;
    enum { ROUNDS = 200 };
    const struct env_sim_options options = { .seed = seed,
                                             .flip_ppm = 100000,
                                             .flip_spares = "10.0.0.9" };
    struct env_sim *sim = env_sim_create(&options);
    struct server *server = calloc(1, sizeof(*server));

    assert_non_null(server);
    server_start(server, env_sim_add(sim, "10.0.0.1"));
    struct env *here = env_sim_add(sim, "10.0.0.2");
    const uint64_t wrong = wrong_bytes(sim, here, ROUNDS);
    assert_in_range(wrong, ROUNDS / 20, ROUNDS);
    assert_in_range(env_sim_fault_count(sim), wrong, wrong + 10); /* a bit may flip back */
    assert_int_equal(wrong_bytes(sim, env_sim_add(sim, "10.0.0.9"), ROUNDS), 0);
    env_sim_calm(sim);
    assert_int_equal(wrong_bytes(sim, here, ROUNDS), 0);
    server_free(server);
    free(server);
    env_sim_destroy(sim);
}

static void bandwidth_takes_time(void **state)
{
    (void)state;
    struct duo *duo = duo_new(&(struct env_sim_options){ .seed = seed, .bytes_per_s = 1000000 });
    const uint64_t start = env_sim_now_ns(duo->sim);

    client_send_more(&duo->client, 1000010);
    assert_true(env_sim_run_until(duo->sim, client_done, &duo->client, 10 * ENV_NS_PER_S));
    const uint64_t took = env_sim_now_ns(duo->sim) - start;
    assert_in_range(took, ENV_NS_PER_S, 3 * ENV_NS_PER_S);
    duo_free(duo);
}

/* ---- disks ---- */

static void write_file(struct env *env, const char *path, const char *text, bool sync)
{
    struct env_file *file;
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE;

    assert_int_equal(env_file_open(env, path, flags, &file, NULL), STATUS_OK);
    assert_int_equal(env_file_pwrite(file, text, strlen(text), 0), STATUS_OK);
    if (sync) assert_int_equal(env_file_sync(file), STATUS_OK);
    env_file_close(file);
}

/* The file as text; "missing" when it is not there. The caller frees. */
static char *read_file(struct env *env, const char *path)
{
    char *data;
    size_t len;
    const enum status status = env_file_read_all(env, path, 4096, &data, &len, NULL);

    if (status == STATUS_NOT_FOUND) return strdup("missing");
    assert_int_equal(status, STATUS_OK);
    return data;
}

static void power_loss_keeps_what_was_synced(void **state)
{
    (void)state;
    int kept = 0, lost = 0, torn = 0, missing = 0;

    for (uint64_t i = 0; i < 100; i++) {
        struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = seed + i });
        struct env *env = env_sim_add(sim, "h");
        write_file(env, "synced", "old", true);
        write_file(env, "rewritten", "aaaaaaaa", true);
        write_file(env, "rewritten", "bbbbbbbb", false);
        write_file(env, "new", "x", false);
        assert_int_equal(env_file_replace(env, "replaced", "one", 3, NULL), STATUS_OK);
        assert_int_equal(env_file_replace(env, "replaced", "two", 3, NULL), STATUS_OK);
        env_sim_power_off(sim, "h");
        env = env_sim_add(sim, "h");

        char *text = read_file(env, "synced");
        assert_string_equal(text, "old");
        free(text);
        text = read_file(env, "replaced");
        assert_string_equal(text, "two");
        free(text);
        text = read_file(env, "rewritten");
        assert_int_equal(strlen(text), 8);
        const size_t changed = strspn(text, "b");
        assert_int_equal(strspn(text + changed, "a"), 8 - changed);
        kept += changed == 8;
        lost += changed == 0;
        torn += changed > 0 && changed < 8;
        free(text);
        text = read_file(env, "new");
        missing += strcmp(text, "missing") == 0;
        free(text);
        env_sim_destroy(sim);
    }
    assert_true(kept > 10 && lost > 10 && torn > 10); /* every outcome is met */
    assert_in_range(missing, 20, 80);
}

static void a_kill_keeps_what_was_written(void **state)
{
    (void)state;
    struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = seed });
    struct env *env = env_sim_add(sim, "h");
    struct env_map ours, theirs;
    char name[ENV_SHARE_NAME_SIZE];

    write_file(env, "f", "text", false);
    assert_int_equal(env_map_create(env, 100, &ours, name, NULL), STATUS_OK);
    struct env *again = env_sim_add(sim, "h");
    assert_int_equal(env_map_open(again, name, 100, &theirs), STATUS_OK);
    assert_true(env_map_alive(&theirs));
    env_sim_kill(env);
    assert_false(env_map_alive(&theirs));
    env_map_close(&theirs);
    char *text = read_file(again, "f");
    assert_string_equal(text, "text");
    free(text);
    assert_int_equal(env_map_open(again, name, 100, &theirs), STATUS_NOT_FOUND); /* vanished */
    env_map_close(&ours);
    struct env *elsewhere = env_sim_add(sim, "h2");
    assert_int_equal(env_map_create(again, 100, &ours, name, NULL), STATUS_OK);
    assert_int_equal(env_map_open(elsewhere, name, 100, &theirs), STATUS_NOT_FOUND);
    env_map_close(&ours);
    text = read_file(elsewhere, "f");
    assert_string_equal(text, "missing"); /* each host has its own disk */
    free(text);
    env_sim_destroy(sim);
}

static void on_never(void *ctx, enum status status, size_t n)
{
    (void)ctx;
    (void)status;
    (void)n;
    fail_msg("a dead process was called back");
}

static void a_crash_meets_bulk_io_half_done(void **state)
{
    (void)state;
    int outcomes[3] = { 0 };

    for (uint64_t i = 0; i < 100; i++) {
        struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = seed + i });
        struct env *env = env_sim_add(sim, "h");
        struct env_file *file;
        char data[] = "bbbbbbbb";

        write_file(env, "f", "aaaaaaaa", true);
        assert_int_equal(env_file_open(env, "f", ENV_FILE_WRITE | ENV_FILE_LOCK, &file, NULL),
                         STATUS_OK);
        struct env_io io = { .op = ENV_IO_WRITE,
                             .file = file,
                             .parts = { { data, 8 } },
                             .parts_count = 1,
                             .fn = on_never };
        assert_int_equal(env_io_start(&io), STATUS_OK);
        env_sim_power_off(sim, "h");
        memset(data, 'x', 8); /* the dead process's memory means nothing any more */
        env_sim_run_for(sim, ENV_NS_PER_S);
        struct env *again = env_sim_add(sim, "h");
        char *text = read_file(again, "f");
        const size_t changed = strspn(text, "b");
        assert_int_equal(strlen(text), 8);
        assert_int_equal(strspn(text + changed, "a"), 8 - changed);
        outcomes[changed == 0 ? 0 : changed == 8 ? 1 : 2]++;
        free(text);
        env_file_close(file);
        assert_int_equal(env_file_open(again, "f", ENV_FILE_WRITE | ENV_FILE_LOCK, &file, NULL),
                         STATUS_OK); /* the dead hold no lock */
        env_file_close(file);
        assert_true(env_sim_disk_damage(sim, "h"));
        text = read_file(again, "f");
        assert_true(strspn(text, "b") + strspn(text + strspn(text, "b"), "a") < 8);
        free(text);
        env_sim_destroy(sim);
    }
    assert_true(outcomes[0] > 10 && outcomes[1] > 5 && outcomes[2] > 5);
}

static void disks_can_lie_and_fill(void **state)
{
    (void)state;
    struct env_sim *sim = env_sim_create(&(struct env_sim_options){
        .seed = seed, .disk_corrupt_ppm = 1000000, .disk_size_max = 10 });
    struct env *env = env_sim_add(sim, "h");
    struct env_file *file;

    write_file(env, "f", "12345678", true);
    char *text = read_file(env, "f");
    int bits = 0;
    for (int i = 0; i < 8; i++) {
        bits += __builtin_popcount((uint8_t)(text[i] ^ "12345678"[i]));
    }
    assert_int_equal(bits, 1);
    free(text);
    assert_int_equal(env_file_open(env, "f", ENV_FILE_WRITE, &file, NULL), STATUS_OK);
    assert_int_equal(env_file_pwrite(file, "abc", 3, 8), STATUS_FULL);
    env_file_close(file);
    env_sim_calm(sim);
    text = read_file(env, "f");
    assert_string_equal(text, "12345678"); /* the answer was wrong, not the disk */
    free(text);
    env_sim_destroy(sim);

    sim = env_sim_create(&(struct env_sim_options){ .seed = seed, .disk_error_ppm = 1000000 });
    env = env_sim_add(sim, "h");
    assert_int_equal(env_file_replace(env, "f", "x", 1, NULL), STATUS_IO);
    env_sim_destroy(sim);
}

static void a_write_that_fails_has_done_any_part(void **state)
{
    (void)state;
    int nothing = 0, part = 0;

    for (uint64_t i = 0; i < 100; i++) {
        const struct env_sim_options options = { .seed = seed + i, .disk_error_ppm = 500000 };
        struct env_sim *sim = env_sim_create(&options);
        struct env *env = env_sim_add(sim, "h");
        struct env_file *file;
        const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE;

        while (env_file_open(env, "f", flags, &file, NULL) != STATUS_OK)
            continue;
        const enum status status = env_file_pwrite(file, "bbbb", 4, 0);
        env_file_close(file);
        env_sim_calm(sim);
        char *text = read_file(env, "f");
        const size_t done = strspn(text, "b");
        assert_int_equal(text[done], '\0');
        assert_true(status == STATUS_OK ? done == 4 : status == STATUS_IO && done < 4);
        nothing += done == 0;
        part += done > 0 && done < 4;
        free(text);
        env_sim_destroy(sim);
    }
    assert_true(nothing > 0 && part > 10);
}

/* ---- everything at once ---- */

enum { HOSTS = 4, CLIENTS = 12, STEPS = 150 };

struct cluster {
    struct env_sim *sim;
    struct env *envs[HOSTS];
    struct server servers[HOSTS];
    struct client clients[CLIENTS];
    int client_home[CLIENTS];
};

static void host_name(char *out, size_t size, uint64_t index)
{
    snprintf(out, size, "10.0.0.%u", (unsigned)index + 1);
}

static void cluster_connect(struct cluster *cluster, int which)
{
    char address[32];
    struct client *client = &cluster->clients[which];
    const uint64_t home = env_sim_random(cluster->sim, HOSTS);

    client_free(client);
    snprintf(address, sizeof(address), "10.0.0.%u:7000",
             (unsigned)env_sim_random(cluster->sim, HOSTS) + 1);
    cluster->client_home[which] = (int)home;
    client_start(client, cluster->envs[home], address, env_sim_random(cluster->sim, 100000));
}

/* Whatever lived there is dead: free it, and start anew. */
static void cluster_restart(struct cluster *cluster, uint64_t index)
{
    char host[32];

    server_free(&cluster->servers[index]);
    for (int i = 0; i < CLIENTS; i++) {
        if (cluster->client_home[i] == (int)index) client_free(&cluster->clients[i]);
    }
    host_name(host, sizeof(host), index);
    cluster->envs[index] = env_sim_add(cluster->sim, host);
    server_start(&cluster->servers[index], cluster->envs[index]);
}

static void cluster_step(struct cluster *cluster)
{
    char host[32], other[32];
    const uint64_t a = env_sim_random(cluster->sim, HOSTS);
    const uint64_t b = (a + 1 + env_sim_random(cluster->sim, HOSTS - 1)) % HOSTS;

    host_name(host, sizeof(host), a);
    host_name(other, sizeof(other), b);
    switch (env_sim_random(cluster->sim, 12)) {
    case 0:
        env_sim_kill(cluster->envs[a]);
        cluster_restart(cluster, a);
        break;
    case 1:
        env_sim_power_off(cluster->sim, host);
        env_sim_run_for(cluster->sim, env_sim_random(cluster->sim, ENV_NS_PER_S));
        cluster_restart(cluster, a);
        break;
    case 2: env_sim_partition(cluster->sim, host, other); break;
    case 3:
    case 4: env_sim_heal(cluster->sim, host, other); break;
    case 5: env_sim_pause(cluster->envs[a]); break;
    case 6:
    case 7: env_sim_resume(cluster->envs[a]); break;
    default: cluster_connect(cluster, (int)env_sim_random(cluster->sim, CLIENTS)); break;
    }
    env_sim_run_for(cluster->sim, env_sim_random(cluster->sim, 50 * ENV_NS_PER_MS));
}

static uint64_t run_cluster(uint64_t world_seed)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    const struct env_sim_options options = {
        .seed = world_seed,
        .stream_buffer_size = 4096,
        .conn_loss_ppm = 300,
        .conn_refuse_ppm = 20000,
        .slow_ppm = 1000,
        .buggify_ppm = world_seed % 2 == 0 ? 50000 : 0,
    };

    assert_non_null(cluster);
    cluster->sim = env_sim_create(&options);
    for (uint64_t i = 0; i < HOSTS; i++) {
        cluster_restart(cluster, i);
    }
    for (int step = 0; step < STEPS; step++) {
        cluster_step(cluster);
    }
    env_sim_calm(cluster->sim);
    for (int i = 0; i < CLIENTS; i++) {
        cluster_connect(cluster, i);
        assert_true(
            env_sim_run_until(cluster->sim, client_done, &cluster->clients[i], 100 * ENV_NS_PER_S));
    }
    const uint64_t hash = env_sim_trace_hash(cluster->sim);
    for (int i = 0; i < CLIENTS; i++) {
        client_free(&cluster->clients[i]);
    }
    for (int i = 0; i < HOSTS; i++) {
        server_free(&cluster->servers[i]);
    }
    env_sim_destroy(cluster->sim);
    free(cluster);
    return hash;
}

static void a_cluster_survives_everything_twice_alike(void **state)
{
    (void)state;
    const char *text = getenv("YOLK_SIM_SEEDS");
    const uint64_t count = text != NULL ? strtoull(text, NULL, 10) : 20;
    uint64_t previous = 0;

    for (uint64_t i = 0; i < count; i++) {
        printf("world %llu\n", (unsigned long long)(seed + i));
        fflush(stdout);
        const uint64_t hash = run_cluster(seed + i);
        assert_true(hash == run_cluster(seed + i));
        assert_true(hash != previous);
        previous = hash;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_killed_stay_silent_and_can_be_restarted),
        cmocka_unit_test(without_power_peers_hear_nothing),
        cmocka_unit_test(partitions_hold_back_and_heal),
        cmocka_unit_test(the_paused_are_silent_until_resumed),
        cmocka_unit_test(lost_connections_end_at_both_ends),
        cmocka_unit_test(bits_flip_in_flight_until_calm),
        cmocka_unit_test(bandwidth_takes_time),
        cmocka_unit_test(power_loss_keeps_what_was_synced),
        cmocka_unit_test(a_kill_keeps_what_was_written),
        cmocka_unit_test(a_crash_meets_bulk_io_half_done),
        cmocka_unit_test(disks_can_lie_and_fill),
        cmocka_unit_test(a_write_that_fails_has_done_any_part),
        cmocka_unit_test(a_cluster_survives_everything_twice_alike),
    };

    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
