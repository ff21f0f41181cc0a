/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_seal_test.c
 *
 * Goal:   with `encrypt` nobody on the way can read what is moved, or change it; and without it
 *         nothing is different from before.
 * Method: two engines over real sockets, with a go-between of ours on the way that keeps what
 *         passes, and flips bytes of it, or edits a greeting. `SEED=n` replays. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/aead.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "seed.h"
#include "transfer/wire.h"

enum { SIZE = 3 << 20, PIPE_SIZE = 64 << 10, CONNECTIONS = 256, KEPT = 32 << 20 };

static const char text[] = "what nobody else should read, ";
enum { TEXT_LEN = sizeof(text) - 1 };

/* ---- the go-between ---- */

struct pipe {
    struct env_stream *from, *to;
    uint64_t passed; /* bytes, ever */
    uint32_t start, end;
    uint8_t bytes[PIPE_SIZE];
};

struct connection {
    struct between *between;
    struct pipe pipes[2]; /* to the target, and back */
    uint64_t flip_at;     /* which byte of pipes[flip] is changed; 0: none */
    int flip;
    bool open;
};

struct between {
    struct env *env;
    struct env_listener *listener;
    char upstream[YOLK_TRANSFER_NAME_SIZE];
    struct rng rng;
    struct connection *all;
    uint32_t count;
    uint32_t flips;   /* connections that still get a byte flipped */
    uint32_t flipped; /* those that got it */
    bool clear_offer; /* greetings are edited: nobody can encrypt */
    uint8_t *kept;    /* what passed, in both directions; up to KEPT */
    size_t kept_len;
};

static void connection_close(struct connection *connection)
{
    if (!connection->open) return;
    connection->open = false;
    env_stream_close(connection->pipes[0].from);
    env_stream_close(connection->pipes[0].to);
}

/* The capabilities in a HELLO, which is the first frame of each direction. */
static void edit_greeting(struct pipe *pipe)
{
    const uint64_t at = WIRE_HEADER_SIZE + 4;

    for (uint64_t i = at; i < at + 4; i++) {
        if (i >= pipe->passed && i < pipe->passed + (pipe->end - pipe->start)) {
            pipe->bytes[pipe->start + (i - pipe->passed)] &= i == at ? 0x0f : 0xff;
        }
    }
}

static void look_at(struct connection *connection, struct pipe *pipe)
{
    struct between *between = connection->between;
    const uint32_t len = pipe->end - pipe->start;
    const uint64_t at = connection->flip_at;

    if (between->clear_offer) edit_greeting(pipe);
    if (at != 0 && pipe == &connection->pipes[connection->flip] && at >= pipe->passed &&
        at < pipe->passed + len) {
        pipe->bytes[pipe->start + (at - pipe->passed)] ^= 1;
        between->flipped++;
    }
    if (between->kept_len + len <= KEPT) {
        memcpy(between->kept + between->kept_len, pipe->bytes + pipe->start, len);
        between->kept_len += len;
    }
    pipe->passed += len;
}

/* False if the connection has ended. */
static bool pump(struct connection *connection, struct pipe *pipe)
{
    size_t n = 0;

    if (pipe->start == pipe->end) {
        pipe->start = pipe->end = 0;
        const enum status status = env_stream_read(pipe->from, pipe->bytes, PIPE_SIZE, &n);
        if (status == STATUS_AGAIN) return true;
        if (status != STATUS_OK) return false;
        pipe->end = (uint32_t)n;
        look_at(connection, pipe);
    }
    const struct iovec iov = { pipe->bytes + pipe->start, pipe->end - pipe->start };
    const enum status status = env_stream_writev(pipe->to, &iov, 1, &n);
    if (status == STATUS_OK) pipe->start += (uint32_t)n;
    return status == STATUS_OK || status == STATUS_AGAIN;
}

static void on_ready(void *ctx, unsigned events);

static void watch(struct connection *connection)
{
    for (int i = 0; i < 2; i++) {
        const struct pipe *out = &connection->pipes[i], *in = &connection->pipes[1 - i];
        const bool read = out->start == out->end, write = in->start < in->end;
        env_stream_watch(out->from, (read ? ENV_READ : 0u) | (write ? ENV_WRITE : 0u), on_ready,
                         connection);
    }
}

static void on_ready(void *ctx, unsigned events)
{
    struct connection *connection = ctx;

    (void)events;
    for (int i = 0; i < 2; i++) {
        if (!pump(connection, &connection->pipes[i])) {
            connection_close(connection);
            return;
        }
    }
    watch(connection);
}

static void on_accept(void *ctx, struct env_stream *stream)
{
    struct between *between = ctx;

    assert_true(between->count < CONNECTIONS);
    struct connection *connection = &between->all[between->count++];
    struct pipe *there = &connection->pipes[0], *back = &connection->pipes[1];
    connection->between = between;
    connection->open = true;
    there->from = back->to = stream;
    assert_int_equal(env_connect(between->env, between->upstream, &back->from, NULL), STATUS_OK);
    there->to = back->from;
    if (between->flips > 0) {
        between->flips--;
        connection->flip = (int)rng_below(&between->rng, 2);
        /* After the greeting: HELLO and AUTH one way, HELLO and ACK the other. */
        connection->flip_at = 2 * WIRE_HEADER_SIZE + WIRE_HELLO_SIZE + WIRE_PROOF_SIZE +
                              rng_below(&between->rng, connection->flip == 0 ? SIZE / 4 : 400);
    }
    watch(connection);
}

static void between_open(struct between *between, struct env *env, const char *upstream)
{
    *between = (struct between){ .env = env };
    snprintf(between->upstream, sizeof(between->upstream), "%s", upstream);
    between->all = calloc(CONNECTIONS, sizeof(struct connection));
    between->kept = malloc(KEPT);
    assert_true(between->all != NULL && between->kept != NULL);
    assert_int_equal(env_listen(env, "127.0.0.1:0", on_accept, between, &between->listener, NULL),
                     STATUS_OK);
}

static void between_close(struct between *between)
{
    for (uint32_t i = 0; i < between->count; i++)
        connection_close(&between->all[i]);
    env_listener_close(between->listener);
    free(between->all);
    free(between->kept);
}

static bool passed_in_clear(const struct between *between)
{
    return memmem(between->kept, between->kept_len, text, TEXT_LEN) != NULL;
}

/* ---- two engines ---- */

struct pair {
    struct env *env;
    struct yolk_transfer *a, *b;
    struct between between;
    struct yolk_transfer_segment segment;
    uint8_t *here, *there;
};

static void fill(uint8_t *memory)
{
    for (size_t i = 0; i < SIZE; i++)
        memory[i] = (uint8_t)text[i % TEXT_LEN];
}

static void pair_open(struct pair *pair, bool encrypt_a, bool encrypt_b)
{
    struct yolk_transfer_options options = {
        .secret = "sesame", .forbid_shm = true, .encrypt = encrypt_a, .retries_max = 20
    };
    char name[64];

    *pair = (struct pair){ .here = calloc(1, SIZE), .there = calloc(1, SIZE) };
    assert_true(pair->here != NULL && pair->there != NULL);
    assert_int_equal(env_real_create(NULL, &pair->env, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(pair->env, &options, &pair->a, NULL), STATUS_OK);
    options.encrypt = encrypt_b;
    assert_int_equal(yolk_transfer_create(pair->env, &options, &pair->b, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_register(pair->a, pair->here, SIZE, NULL, 0), STATUS_OK);
    assert_int_equal(
        yolk_transfer_register(pair->b, pair->there, SIZE, NULL, YOLK_TRANSFER_REMOTE_ALL),
        STATUS_OK);
    between_open(&pair->between, pair->env, yolk_transfer_name(pair->b));
    snprintf(name, sizeof(name), "127.0.0.1:%u", env_listener_port(pair->between.listener));
    assert_int_equal(yolk_transfer_open(pair->a, name, &pair->segment), STATUS_OK);
}

static void pair_close(struct pair *pair)
{
    yolk_transfer_destroy(pair->a);
    yolk_transfer_destroy(pair->b);
    between_close(&pair->between);
    env_real_destroy(pair->env);
    free(pair->here);
    free(pair->there);
}

static struct yolk_transfer_result move(struct pair *pair, enum yolk_transfer_opcode opcode)
{
    const struct yolk_transfer_request request = {
        .opcode = opcode,
        .local = pair->here,
        .segment = pair->segment,
        .remote = (uintptr_t)pair->there,
        .length = SIZE,
        .deadline_ns = env_now_ns(pair->env) + 20 * ENV_NS_PER_S,
    };
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    assert_int_equal(yolk_transfer_batch_create(pair->a, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(pair->a, batch, &request, 1), STATUS_OK);
    assert_int_equal(yolk_transfer_wait(pair->a, batch, 30 * ENV_NS_PER_S), STATUS_OK);
    assert_int_equal(yolk_transfer_poll(pair->a, batch, 0, &result), STATUS_OK);
    assert_int_equal(yolk_transfer_batch_free(pair->a, batch), STATUS_OK);
    return result;
}

struct told {
    bool done;
    enum status status;
};

static void on_told(void *ctx, enum status status, uint64_t rtt_us)
{
    struct told *told = ctx;
    (void)rtt_us;
    *told = (struct told){ true, status };
}

static void tell(struct pair *pair)
{
    const struct yolk_transfer_batch at_once = { 0 };
    struct told told = { false, STATUS_OK };

    assert_int_equal(yolk_transfer_notify(pair->a, pair->segment, at_once, "note", text, TEXT_LEN,
                                          10 * ENV_NS_PER_S, on_told, &told),
                     STATUS_OK);
    while (!told.done)
        env_poll(pair->env, ENV_NS_PER_S);
    assert_int_equal(told.status, STATUS_OK);
}

/* Writes, reads and tells over a go-between, and asks what it has seen. */
static void everything_over(bool encrypt_a, bool encrypt_b)
{
    struct yolk_transfer_stats stats;
    struct yolk_transfer_notice notice;
    struct pair pair;
    const bool encrypted = encrypt_a || encrypt_b;

    pair_open(&pair, encrypt_a, encrypt_b);
    fill(pair.here);
    assert_int_equal(move(&pair, YOLK_TRANSFER_WRITE).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(pair.here, pair.there, SIZE);
    memset(pair.here, 0, SIZE);
    assert_int_equal(move(&pair, YOLK_TRANSFER_READ).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(pair.here, pair.there, SIZE);
    tell(&pair);
    assert_int_equal(yolk_transfer_take_notice(pair.b, &notice), STATUS_OK);
    assert_memory_equal(notice.message, text, TEXT_LEN);

    assert_true(pair.between.kept_len > 2 * SIZE);
    assert_int_equal(passed_in_clear(&pair.between), !encrypted);
    yolk_transfer_stats(pair.a, &stats);
    assert_true(stats.lanes_open > 0);
    assert_int_equal(stats.lanes_sealed, encrypted ? stats.lanes_open : 0);
    yolk_transfer_stats(pair.b, &stats);
    assert_int_equal(stats.lanes_sealed, encrypted ? stats.lanes_open : 0);
    assert_int_equal(stats.seal_failures, 0);
    pair_close(&pair);
}

static void nothing_can_be_read_on_the_way(void **state)
{
    (void)state;
    everything_over(false, false); /* the test can see it when it is there */
    everything_over(true, false);
    everything_over(false, true);
    everything_over(true, true);
}

static void what_was_changed_on_the_way_does_not_land(void **state)
{
    (void)state;
    struct yolk_transfer_stats stats;
    struct pair pair;
    uint64_t failures = 0;

    pair_open(&pair, true, false);
    rng_init(&pair.between.rng, test_seed());
    pair.between.flips = 8;
    for (int round = 0; round < 6; round++) {
        fill(pair.here);
        memset(pair.there, 0, SIZE);
        assert_int_equal(move(&pair, YOLK_TRANSFER_WRITE).state, YOLK_TRANSFER_COMPLETED);
        assert_memory_equal(pair.here, pair.there, SIZE);
        memset(pair.here, 0, SIZE);
        assert_int_equal(move(&pair, YOLK_TRANSFER_READ).state, YOLK_TRANSFER_COMPLETED);
        assert_memory_equal(pair.here, pair.there, SIZE);
    }
    yolk_transfer_stats(pair.a, &stats);
    failures += stats.seal_failures;
    yolk_transfer_stats(pair.b, &stats);
    failures += stats.seal_failures;
    assert_true(pair.between.flipped >= 2);
    /* A changed length may ask for more than ever comes, and then the connection times out. */
    assert_true(failures > 0 && failures <= pair.between.flipped);
    assert_false(passed_in_clear(&pair.between));
    pair_close(&pair);
}

static void nobody_is_talked_out_of_it(void **state)
{
    (void)state;
    struct pair pair;

    pair_open(&pair, true, true);
    pair.between.clear_offer = true;
    fill(pair.here);
    assert_int_equal(move(&pair, YOLK_TRANSFER_WRITE).state, YOLK_TRANSFER_FAILED);
    assert_true(pair.there[0] == 0);
    assert_false(passed_in_clear(&pair.between));
    pair_close(&pair);
}

/* ---- a peer that cannot ---- */

struct puppet {
    struct env_stream *stream;
    uint8_t in[WIRE_HEADER_SIZE];
    size_t len;
    bool connected, closed;
};

static void on_puppet(void *ctx, unsigned events)
{
    struct puppet *puppet = ctx;
    size_t n = 0;

    if ((events & ENV_WRITE) != 0) puppet->connected = true;
    if ((events & ENV_READ) == 0) return;
    const enum status status = env_stream_read(puppet->stream, puppet->in + puppet->len,
                                               WIRE_HEADER_SIZE - puppet->len, &n);
    puppet->len += n;
    puppet->closed =
        (status != STATUS_OK && status != STATUS_AGAIN) || puppet->len == WIRE_HEADER_SIZE;
}

static void a_peer_that_cannot_is_refused(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .secret = "sesame", .encrypt = true };
    const struct wire_header header = { .opcode = WIRE_HELLO, .length = WIRE_HELLO_SIZE };
    const struct wire_hello hello = { .version_min = 1,
                                      .version_max = 1,
                                      .generation = 5,
                                      .connection = 1,
                                      .lease_ms = 1000,
                                      .name = "puppet:1" };
    uint8_t bytes[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];
    struct wire_header answer;
    struct puppet puppet = { 0 };
    struct yolk_transfer *transfer;
    struct env *env;
    size_t n = 0;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(env, &options, &transfer, NULL), STATUS_OK);
    assert_int_equal(env_connect(env, yolk_transfer_name(transfer), &puppet.stream, NULL),
                     STATUS_OK);
    env_stream_watch(puppet.stream, ENV_WRITE, on_puppet, &puppet);
    while (!puppet.connected)
        env_poll(env, ENV_NS_PER_S);
    wire_header_encode(&header, bytes);
    wire_hello_encode(&hello, bytes + WIRE_HEADER_SIZE);
    const struct iovec iov = { bytes, sizeof(bytes) };
    assert_int_equal(env_stream_writev(puppet.stream, &iov, 1, &n), STATUS_OK);
    assert_int_equal(n, sizeof(bytes));
    env_stream_watch(puppet.stream, ENV_READ, on_puppet, &puppet);
    while (!puppet.closed)
        env_poll(env, ENV_NS_PER_S);
    assert_int_equal(puppet.len, WIRE_HEADER_SIZE);
    assert_int_equal(wire_header_decode(puppet.in, &answer), STATUS_OK);
    assert_int_equal(answer.opcode, WIRE_GOODBYE);
    assert_int_equal(answer.status, STATUS_UNSUPPORTED);
    env_stream_close(puppet.stream);
    yolk_transfer_destroy(transfer);
    env_real_destroy(env);
}

static void it_needs_a_secret(void **state)
{
    (void)state;
    const struct yolk_transfer_options options = { .encrypt = true };
    struct yolk_transfer *transfer;
    struct errmsg err;
    struct env *env;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(env, &options, &transfer, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "secret"));
    env_real_destroy(env);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (!aead_available()) {
        printf("skipped: libcrypto.so.3 is not installed\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_can_be_read_on_the_way),
        cmocka_unit_test(what_was_changed_on_the_way_does_not_land),
        cmocka_unit_test(nobody_is_talked_out_of_it),
        cmocka_unit_test(a_peer_that_cannot_is_refused),
        cmocka_unit_test(it_needs_a_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
