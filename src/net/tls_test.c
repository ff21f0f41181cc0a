/* SPDX-License-Identifier: Apache-2.0
 *
 * net/tls_test.c
 *
 * Goal:   what TLS carries arrives as it was, whatever the stream does; and who cannot be believed
 *         is refused, by a reason that says which certificate is wrong and how.
 * Method: two processes of a simulated world with certificates made on the spot, and clocks that
 *         are set wrong. Random sizes against the bytes that were sent; then each pair of
 *         identities that must not meet; then HTTP and RPC on top. `SEED=n` replays the sizes. */
#include "net/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/log.h"
#include "base/rng.h"
#include "cert_maker.h"
#include "net/http.h"
#include "net/http_client.h"
#include "net/rpc.h"
#include "net/wire.h"
#include "seed.h"

#define ADDRESS "10.0.0.2:7"
enum { CLIENT, SERVER, STREAM_SIZE = 1 << 20, YEAR = 365 };

struct world {
    struct env_sim *sim;
    struct env *env[2];
    struct cert ca;
    struct env_listener *listener;
    struct env_stream *accepted;
};

static struct world world;

static void on_accept(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    world.accepted = stream;
}

static void listen_here(void)
{
    assert_int_equal(env_listen(world.env[SERVER], ADDRESS, on_accept, NULL, &world.listener, NULL),
                     STATUS_OK);
}

static void world_open(const struct env_sim_options *options)
{
    world = (struct world){ .sim = env_sim_create(options) };
    world.env[CLIENT] = env_sim_add(world.sim, "10.0.0.1");
    world.env[SERVER] = env_sim_add(world.sim, "10.0.0.2");
    world.ca = cert_make(world.env[0], "authority", NULL, -1, YEAR);
}

static void world_close(void)
{
    env_listener_close(world.listener);
    cert_free(&world.ca);
    env_sim_destroy(world.sim);
}

/* A certificate of the days given, signed by `ca`, believing in the world's authority. */
static struct tls_identity *identity_of(int who, const struct cert *ca, int from_days, int to_days)
{
    const struct tls_files files = { .cert = "cert.pem", .key = "key.pem", .ca = "ca.pem" };
    struct env *env = world.env[who];
    struct tls_identity *identity = NULL;
    struct errmsg err = { "" };
    struct cert cert = cert_make(env, "somebody", ca, from_days, to_days);

    cert_write(env, &cert, files.cert, files.key);
    cert_write(env, &world.ca, files.ca, NULL);
    if (tls_identity_load(env, &files, &identity, &err) != STATUS_OK) fail_msg("%s", err.text);
    cert_free(&cert);
    return identity;
}

static struct tls_identity *good(int who)
{
    return identity_of(who, &world.ca, -1, YEAR);
}

/* ---- wires ---- */

struct end {
    struct wire wire;
    enum status failure;
    uint8_t *out;
    size_t sent, tried; /* tried: and not taken, so that the next write has at least as much */
    uint8_t *in;
    size_t got;
    struct rng *rng;
    bool reads; /* now: what waits is kept waiting */
};

static void on_ready(void *ctx, unsigned events)
{
    struct end *end = ctx;
    size_t n = 0;
    enum status status = STATUS_OK;

    if (end->failure != STATUS_OK) return;
    if ((events & ENV_WRITE) != 0 && end->sent < STREAM_SIZE) {
        size_t len = end->tried + (size_t)rng_between(end->rng, 1, 100 << 10);
        if (len > STREAM_SIZE - end->sent) len = STREAM_SIZE - end->sent;
        status = wire_write(&end->wire, end->out + end->sent, len, &n);
        if (status == STATUS_OK) end->sent += n;
        end->tried = status == STATUS_AGAIN ? len : 0;
    }
    if ((events & ENV_READ) != 0 && (status == STATUS_OK || status == STATUS_AGAIN)) {
        uint8_t sink[50000];
        size_t len = (size_t)rng_between(end->rng, 1, sizeof(sink));
        status = wire_read(&end->wire, sink, len, &n);
        if (status == STATUS_OK) {
            assert_true(n > 0 && n <= len && end->got + n <= STREAM_SIZE);
            memcpy(end->in + end->got, sink, n);
            end->got += n;
        }
    }
    if (status != STATUS_OK && status != STATUS_AGAIN) end->failure = status;
    end->reads = rng_below(end->rng, 4) != 0;
    const unsigned writes = end->sent < STREAM_SIZE ? ENV_WRITE : 0;
    wire_watch(&end->wire, (end->reads ? ENV_READ : 0u) | writes, on_ready, end);
}

static bool was_accepted(void *ctx)
{
    (void)ctx;
    return world.accepted != NULL;
}

/* Connects the two ends under these identities; NULL: plain. */
static void ends_open(struct end ends[2], struct tls_identity *const identities[2])
{
    struct env_stream *stream = NULL;

    assert_int_equal(env_connect(world.env[CLIENT], ADDRESS, &stream, NULL), STATUS_OK);
    assert_int_equal(
        wire_open(&ends[CLIENT].wire, world.env[CLIENT], stream, identities[CLIENT], false),
        STATUS_OK);
    wire_watch(&ends[CLIENT].wire, ENV_READ | ENV_WRITE, on_ready, &ends[CLIENT]);
    assert_true(env_sim_run_until(world.sim, was_accepted, NULL, ENV_NS_PER_S));
    assert_int_equal(
        wire_open(&ends[SERVER].wire, world.env[SERVER], world.accepted, identities[SERVER], true),
        STATUS_OK);
    wire_watch(&ends[SERVER].wire, ENV_READ | ENV_WRITE, on_ready, &ends[SERVER]);
}

static void walk(uint64_t seed)
{
    struct env_sim_options options = { .seed = seed, .buggify_ppm = 50000 };
    struct rng rng;

    rng_init(&rng, seed);
    options.stream_buffer_size = 3000u << rng_below(&rng, 7);
    world_open(&options);
    listen_here();
    struct tls_identity *identities[2] = { good(CLIENT), good(SERVER) };
    struct end ends[2] = { { .rng = &rng }, { .rng = &rng } };
    for (int i = 0; i < 2; i++) {
        ends[i].out = malloc(STREAM_SIZE);
        ends[i].in = malloc(STREAM_SIZE);
        assert_true(ends[i].out != NULL && ends[i].in != NULL);
        rng_fill(&rng, ends[i].out, STREAM_SIZE);
    }
    ends_open(ends, identities);
    for (int i = 0; i < 100000 && (ends[0].got < STREAM_SIZE || ends[1].got < STREAM_SIZE); i++) {
        env_sim_run_for(world.sim, rng_below(&rng, ENV_NS_PER_MS));
        for (int who = 0; who < 2; who++) {
            assert_int_equal(ends[who].failure, STATUS_OK);
            if (ends[who].reads) continue;
            ends[who].reads = true;
            wire_watch(&ends[who].wire, ENV_READ | (ends[who].sent < STREAM_SIZE ? ENV_WRITE : 0u),
                       on_ready, &ends[who]);
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ends[i].got, STREAM_SIZE);
        assert_memory_equal(ends[i].in, ends[1 - i].out, STREAM_SIZE);
    }
    for (int i = 0; i < 2; i++) {
        wire_close(&ends[i].wire);
        free(ends[i].out);
        free(ends[i].in);
        tls_identity_destroy(identities[i]);
    }
    world_close();
}

static void bytes_arrive_as_they_were(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();

    for (uint64_t i = 0; i < 4; i++)
        walk(seed + i);
}

/* ---- who is refused ---- */

/* Both ends' handshakes to their ends; what each came to, and why. */
static void meet(struct tls_identity *const identities[2], enum status status[2],
                 char why[2][TLS_WHY_SIZE])
{
    struct env_stream *streams[2] = { NULL };
    struct tls *tls[2];
    uint8_t byte;
    size_t n;

    world.accepted = NULL;
    assert_int_equal(env_connect(world.env[CLIENT], ADDRESS, &streams[CLIENT], NULL), STATUS_OK);
    assert_true(env_sim_run_until(world.sim, was_accepted, NULL, ENV_NS_PER_S));
    streams[SERVER] = world.accepted;
    for (int i = 0; i < 2; i++) {
        status[i] = STATUS_AGAIN;
        assert_int_equal(tls_create(world.env[i], streams[i], identities[i], i == SERVER, &tls[i]),
                         STATUS_OK);
    }
    for (int round = 0; round < 100; round++) {
        env_sim_run_for(world.sim, ENV_NS_PER_MS);
        for (int i = 0; i < 2; i++) {
            /* In TLS 1.3 the client hears of its refusal when it reads. */
            if (status[i] == STATUS_AGAIN) status[i] = tls_handshake(tls[i]);
            if (status[i] != STATUS_OK) continue;
            const enum status read = tls_read(tls[i], &byte, 1, &n);
            if (read != STATUS_AGAIN) status[i] = read;
        }
    }
    for (int i = 0; i < 2; i++)
        snprintf(why[i], TLS_WHY_SIZE, "%s", tls_why(tls[i]));
    for (int i = 0; i < 2; i++) {
        tls_destroy(tls[i]);
        env_stream_close(streams[i]);
    }
}

/* `judge` refuses the other end with these words, and that one is told. */
static void expect_refusal(struct tls_identity *client, struct tls_identity *server, int judge,
                           const char *words)
{
    struct tls_identity *const identities[2] = { client, server };
    char why[2][TLS_WHY_SIZE];
    enum status status[2];

    meet(identities, status, why);
    assert_int_equal(status[judge], STATUS_DENIED);
    if (strstr(why[judge], words) == NULL) fail_msg("not '%s': '%s'", words, why[judge]);
    assert_int_equal(status[1 - judge], STATUS_DENIED);
    assert_string_not_equal(why[1 - judge], "");
    tls_identity_destroy(client);
    tls_identity_destroy(server);
}

static void strangers_are_refused(void **state)
{
    (void)state;
    const struct env_sim_options calm = { .seed = 1 };
    const struct tls_files only_ca = { .ca = "ca.pem" };
    struct tls_identity *nobody = NULL;

    world_open(&calm);
    listen_here();
    struct cert other = cert_make(world.env[0], "another authority", NULL, -1, YEAR);
    expect_refusal(good(CLIENT), identity_of(SERVER, &other, -1, YEAR), CLIENT,
                   "unable to get local issuer certificate");
    expect_refusal(identity_of(CLIENT, &other, -1, YEAR), good(SERVER), SERVER,
                   "unable to get local issuer certificate");
    expect_refusal(good(CLIENT), identity_of(SERVER, &world.ca, -9, -2), CLIENT,
                   "certificate has expired");
    expect_refusal(identity_of(CLIENT, &world.ca, -9, -2), good(SERVER), SERVER,
                   "certificate has expired");
    expect_refusal(good(CLIENT), identity_of(SERVER, &world.ca, 2, YEAR), CLIENT,
                   "certificate is not yet valid");
    struct tls_identity *server = good(SERVER);
    cert_write(world.env[CLIENT], &world.ca, "ca.pem", NULL);
    assert_int_equal(tls_identity_load(world.env[CLIENT], &only_ca, &nobody, NULL), STATUS_OK);
    expect_refusal(nobody, server, SERVER, "did not return a certificate");
    cert_free(&other);
    world_close();
}

static struct tls_identity *calling(const char *name)
{
    const struct tls_files files = { .ca = "ca.pem", .name = name };
    struct tls_identity *identity = NULL;

    cert_write(world.env[CLIENT], &world.ca, files.ca, NULL);
    assert_int_equal(tls_identity_load(world.env[CLIENT], &files, &identity, NULL), STATUS_OK);
    return identity;
}

static struct tls_identity *called(void)
{
    const struct tls_files files = { .cert = "cert.pem", .key = "key.pem" };
    struct tls_identity *identity = NULL;

    tls_identity_destroy(good(SERVER)); /* leaves its files */
    assert_int_equal(tls_identity_load(world.env[SERVER], &files, &identity, NULL), STATUS_OK);
    return identity;
}

/* The certificate is for "somebody". */
static void names_are_looked_at(void **state)
{
    (void)state;
    const struct env_sim_options calm = { .seed = 1 };
    char why[2][TLS_WHY_SIZE];
    enum status status[2];

    world_open(&calm);
    listen_here();
    struct tls_identity *const identities[2] = { calling("somebody"), called() };
    meet(identities, status, why);
    assert_true(status[CLIENT] == STATUS_OK && status[SERVER] == STATUS_OK);
    tls_identity_destroy(identities[CLIENT]);
    tls_identity_destroy(identities[SERVER]);
    expect_refusal(calling("somebody.else"), called(), CLIENT, "hostname mismatch");
    expect_refusal(calling("10.0.0.2"), called(), CLIENT, "IP address mismatch");
    world_close();
}

/* A clock that is wrong changes nothing while it is within the certificates' time, and is the
 * certificate's fault beyond it. */
static void clocks_may_differ(void **state)
{
    (void)state;
    const struct env_sim_options calm = { .seed = 1 };
    const int64_t day_ns = (int64_t)(CERT_DAY_S * ENV_NS_PER_S);
    char why[2][TLS_WHY_SIZE];
    enum status status[2];

    world_open(&calm);
    listen_here();
    struct tls_identity *const identities[2] = { good(CLIENT), good(SERVER) };
    for (int days = 0; days < 300; days += 150) {
        env_sim_skew(world.env[CLIENT], days * day_ns);
        meet(identities, status, why);
        assert_true(status[CLIENT] == STATUS_OK && status[SERVER] == STATUS_OK);
    }
    env_sim_skew(world.env[CLIENT], 400 * day_ns);
    expect_refusal(identities[CLIENT], identities[SERVER], CLIENT, "certificate has expired");
    world_close();
}

static void expect_bad_files(const char *cert, const char *key, const char *ca, const char *words)
{
    const struct tls_files files = { .cert = cert, .key = key, .ca = ca };
    struct tls_identity *identity = NULL;
    struct errmsg err = { "" };

    assert_int_not_equal(tls_identity_load(world.env[0], &files, &identity, &err), STATUS_OK);
    if (strstr(err.text, words) == NULL) fail_msg("not '%s': '%s'", words, err.text);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    const struct env_sim_options calm = { .seed = 1 };
    struct env *env;

    world_open(&calm);
    env = world.env[0];
    struct cert one = cert_make(env, "one", &world.ca, -1, 1);
    struct cert two = cert_make(env, "two", &world.ca, -1, 1);
    cert_write(env, &one, "one.pem", "one.key");
    cert_write(env, &two, "two.pem", "two.key");
    assert_int_equal(env_file_replace(env, "text", "not PEM\n", 8, NULL), STATUS_OK);
    expect_bad_files("none.pem", "one.key", NULL, "none.pem");
    expect_bad_files("one.pem", NULL, NULL, "go together");
    expect_bad_files("text", "one.key", NULL, "text: no certificate");
    expect_bad_files("one.pem", "text", NULL, "text: no private key");
    expect_bad_files("one.pem", "two.key", NULL, "two.key: the key is not that of the certificate");
    expect_bad_files("one.pem", "one.key", "text", "text: no certificate");
    cert_free(&one);
    cert_free(&two);
    world_close();
}

/* ---- HTTP ---- */

static void on_request(void *ctx, struct http_request *req)
{
    size_t len = 0;
    const char *body = http_body(req, &len);

    (void)ctx;
    http_respond(req, 200, "text/plain", body, len);
}

struct answer {
    struct buf body;
    struct http_reply reply;
    bool done;
};

static void on_data(void *ctx, const char *data, size_t len)
{
    struct answer *answer = ctx;
    assert_int_equal(buf_append(&answer->body, data, len), STATUS_OK);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct answer *answer = ctx;
    answer->reply = *reply;
    answer->done = true;
}

static bool is_done(void *ctx)
{
    return ((struct answer *)ctx)->done;
}

static int post(const struct tls_identity *identity, const void *body, size_t len,
                struct answer *answer)
{
    const struct http_client_options options = {
        .address = ADDRESS,
        .method = "POST",
        .path = "/",
        .body = body,
        .len = len,
        .deadline_ns = env_now_ns(world.env[CLIENT]) + 60 * ENV_NS_PER_S,
        .identity = identity,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = answer,
    };
    struct http_client *client = NULL;

    *answer = (struct answer){ .done = false };
    buf_init(&answer->body, 8 << 20);
    assert_int_equal(http_client_start(world.env[CLIENT], &options, &client, NULL), STATUS_OK);
    assert_true(env_sim_run_until(world.sim, is_done, answer, 100 * ENV_NS_PER_S));
    return answer->reply.status == STATUS_OK ? answer->reply.code : 0;
}

/* Bodies of megabytes, a client that believes nobody, one that speaks HTTP, and a certificate that
 * is replaced while the server runs. */
static void http_is_served(void **state)
{
    enum { SIZE = 3 << 20 };
    (void)state;
    const struct env_sim_options calm = { .seed = 1, .buggify_ppm = 10000 };
    const struct tls_files believing = { .ca = "ca.pem" }, anybody = { .anybody = true };
    struct http_server *server = NULL;
    struct tls_identity *client = NULL, *loose = NULL;
    struct answer answer;

    world_open(&calm);
    struct tls_identity *first = called(), *second;
    const struct http_server_options options = { .address = ADDRESS,
                                                 .on_request = on_request,
                                                 .identity = first };
    assert_int_equal(http_server_create(world.env[SERVER], &options, &server, NULL), STATUS_OK);
    cert_write(world.env[CLIENT], &world.ca, "ca.pem", NULL);
    assert_int_equal(tls_identity_load(world.env[CLIENT], &believing, &client, NULL), STATUS_OK);
    assert_int_equal(tls_identity_load(world.env[CLIENT], &anybody, &loose, NULL), STATUS_OK);
    uint8_t *body = malloc(SIZE);
    assert_non_null(body);
    memset(body, 'x', SIZE);
    assert_int_equal(post(client, body, SIZE, &answer), 200);
    assert_int_equal(answer.body.len, SIZE);
    assert_memory_equal(buf_data(&answer.body), body, SIZE);
    buf_fini(&answer.body);
    assert_int_equal(post(NULL, "x", 1, &answer), 400);
    assert_int_equal(buf_append(&answer.body, "", 1), STATUS_OK);
    assert_non_null(strstr((char *)buf_data(&answer.body), "HTTPS only"));
    buf_fini(&answer.body);

    cert_free(&world.ca); /* of another authority, which the client does not believe */
    world.ca = cert_make(world.env[0], "another authority", NULL, -1, YEAR);
    second = called();
    http_server_set_identity(server, second);
    tls_identity_destroy(first);
    assert_int_equal(post(client, "x", 1, &answer), 0);
    assert_int_equal(answer.reply.status, STATUS_DENIED);
    assert_non_null(strstr(answer.reply.why, "certificate is refused"));
    buf_fini(&answer.body);
    assert_int_equal(post(loose, "x", 1, &answer), 200);
    buf_fini(&answer.body);

    free(body);
    http_server_destroy(server);
    tls_identity_destroy(client);
    tls_identity_destroy(loose);
    tls_identity_destroy(second);
    world_close();
}

/* ---- RPC ---- */

enum { ECHO = 1, CALLS = 20, CALL_SIZE = 300000 };

static void on_echo(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    rpc_reply(call, body, len);
}

struct calls {
    bool up;
    enum status why; /* of the last time that it went down */
    uint32_t answered;
    const uint8_t *body;
};

static void on_state(void *ctx, bool up, enum status why)
{
    struct calls *calls = ctx;
    calls->up = up;
    if (!up) calls->why = why;
}

static void on_end(void *ctx, const struct rpc_result *result)
{
    struct calls *calls = ctx;

    assert_int_equal(result->status, STATUS_OK);
    assert_int_equal(result->len, CALL_SIZE);
    assert_memory_equal(result->body, calls->body, CALL_SIZE);
    calls->answered++;
}

static bool all_answered(void *ctx)
{
    return ((struct calls *)ctx)->answered == CALLS;
}

static bool has_failed(void *ctx)
{
    const struct calls *calls = ctx;
    return calls->why != STATUS_OK;
}

static struct rpc_client *rpc_open(struct rpc_server **server, struct calls *calls)
{
    const struct rpc_server_options listening = { .address = ADDRESS,
                                                  .secret = "s",
                                                  .name = "server" };
    const struct rpc_client_options calling = {
        .address = ADDRESS, .secret = "s", .name = "client", .on_state = on_state, .ctx = calls
    };
    struct rpc_client *client = NULL;

    assert_int_equal(rpc_server_create(world.env[SERVER], &listening, server, NULL), STATUS_OK);
    rpc_server_add(*server, ECHO, "echo", on_echo, NULL);
    assert_int_equal(rpc_client_create(world.env[CLIENT], &calling, &client, NULL), STATUS_OK);
    return client;
}

static void calls_are_answered(void **state)
{
    (void)state;
    const struct env_sim_options options = { .seed = 1, .buggify_ppm = 10000 };
    struct calls calls = { 0 };
    struct rpc_server *server = NULL;
    struct rpc_call_id id;

    world_open(&options);
    struct tls_identity *identities[2] = { good(CLIENT), good(SERVER) };
    env_sim_skew(world.env[CLIENT], -3600 * (int64_t)ENV_NS_PER_S);
    for (int i = 0; i < 2; i++)
        rpc_set_identity(world.env[i], identities[i]);
    struct rpc_client *client = rpc_open(&server, &calls);
    uint8_t *body = malloc(CALL_SIZE);
    assert_non_null(body);
    for (size_t i = 0; i < CALL_SIZE; i++)
        body[i] = (uint8_t)(i * 7 % 251);
    calls.body = body;
    for (int i = 0; i < CALLS; i++) {
        const struct rpc_request request = { .method = ECHO,
                                             .body = body,
                                             .len = CALL_SIZE,
                                             .deadline_ns = ENV_NEVER,
                                             .wait_until_up = true,
                                             .on_end = on_end,
                                             .ctx = &calls };
        assert_int_equal(rpc_call(client, &request, &id), STATUS_OK);
    }
    assert_true(env_sim_run_until(world.sim, all_answered, &calls, 60 * ENV_NS_PER_S));
    rpc_client_destroy(client);
    rpc_server_destroy(server);
    for (int i = 0; i < 2; i++)
        tls_identity_destroy(identities[i]);
    free(body);
    world_close();
}

/* One end with certificates, the other without. */
static void half_a_cluster_does_not_talk(void **state)
{
    (void)state;
    const struct env_sim_options calm = { .seed = 1 };

    for (int who = 0; who < 2; who++) {
        struct calls calls = { 0 };
        struct rpc_server *server = NULL;
        world_open(&calm);
        struct tls_identity *identity = good(who);
        rpc_set_identity(world.env[who], identity);
        struct rpc_client *client = rpc_open(&server, &calls);
        assert_true(env_sim_run_until(world.sim, has_failed, &calls, 20 * ENV_NS_PER_S));
        assert_false(calls.up);
        /* Who speaks TLS to somebody who does not sees only that he hangs up. */
        assert_int_equal(calls.why, who == SERVER ? STATUS_DENIED : STATUS_CONN_CLOSED);
        rpc_client_destroy(client);
        rpc_server_destroy(server);
        tls_identity_destroy(identity);
        world_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_as_they_were), cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(names_are_looked_at),       cmocka_unit_test(clocks_may_differ),
        cmocka_unit_test(bad_files_are_named),       cmocka_unit_test(http_is_served),
        cmocka_unit_test(calls_are_answered),        cmocka_unit_test(half_a_cluster_does_not_talk),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
