/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_older_test.c
 *
 * Goal:   today's ends and those of version 1 understand each other, in both directions; two of
 *         today speak version 2 or not at all, whatever happens to the bits of their handshake.
 * Method: a simulated world. The older peer is bytes on a stream, frozen: it knows no more than
 *         version 1 did. Then a front between two of today that passes everything on but for one
 *         bit, bits of the whole handshake in turn (others with another SEED), or for a greeting
 *         that it makes older. */
#include "net/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/le.h"
#include "base/log.h"
#include "net/msg.h"
#include "net/rpc_int.h"
#include "seed.h"

#define SERVER "10.0.0.1:7000"
#define FRONT "10.0.0.3:7000"
#define SECRET "sesame"

enum { ECHO = 1, STEP_MS = 1, STEPS = 200, STRIDE = 5 };

static uint64_t seed;
static struct env_sim *sim;
static struct env *server_env, *client_env, *front_env;
static struct rpc_server *server;
static struct rpc_client *client;
static uint32_t asked;    /* requests that a handler was given */
static uint32_t answered; /* calls that ended well */
static enum status last;

/* ---- today's ends ---- */

static void on_echo(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    assert_int_equal(len, 3);
    assert_memory_equal(body, "abc", 3);
    asked++;
    rpc_reply(call, body, len);
}

static void on_end(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    last = result->status;
    if (last != STATUS_OK) return;
    assert_int_equal(result->len, 3);
    assert_memory_equal(result->body, "abc", 3);
    answered++;
}

static void world_open(void)
{
    const struct env_sim_options options = { .seed = seed, .stream_buffer_size = 4096 };

    sim = env_sim_create(&options);
    server_env = env_sim_add(sim, "10.0.0.1");
    client_env = env_sim_add(sim, "10.0.0.2");
    front_env = env_sim_add(sim, "10.0.0.3");
    asked = answered = 0;
    last = STATUS_PENDING;
}

static void server_open(void)
{
    const struct rpc_server_options options = { .address = SERVER, .secret = SECRET };
    assert_int_equal(rpc_server_create(server_env, &options, &server, NULL), STATUS_OK);
    rpc_server_add(server, ECHO, "echo", on_echo, NULL);
}

static void client_open(const char *address)
{
    const struct rpc_client_options options = { .address = address, .secret = SECRET };
    assert_int_equal(rpc_client_create(client_env, &options, &client, NULL), STATUS_OK);
}

static void ask(void)
{
    const struct rpc_request request = { .method = ECHO,
                                         .body = "abc",
                                         .len = 3,
                                         .deadline_ns = ENV_NEVER,
                                         .wait_until_up = true,
                                         .on_end = on_end };
    assert_int_equal(rpc_call(client, &request, NULL), STATUS_OK);
}

static void world_close(void)
{
    rpc_client_destroy(client);
    rpc_server_destroy(server);
    client = NULL;
    server = NULL;
    env_sim_destroy(sim);
}

/* ---- a peer of version 1, frozen ---- */

static struct env_stream *older; /* its connection */

static void older_say(const void *bytes, size_t len)
{
    const struct iovec iov = { (void *)(uintptr_t)bytes, len };
    size_t n = 0;
    enum status status = STATUS_AGAIN;

    for (int i = 0; i < STEPS && status == STATUS_AGAIN; i++) {
        env_sim_run_for(sim, STEP_MS * ENV_NS_PER_MS);
        status = env_stream_writev(older, &iov, 1, &n);
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(n, len);
}

static void older_hear_bytes(uint8_t *to, size_t len)
{
    for (int i = 0; i < STEPS && len > 0; i++) {
        size_t n = 0;
        env_sim_run_for(sim, STEP_MS * ENV_NS_PER_MS);
        if (env_stream_read(older, to, len, &n) != STATUS_OK) continue;
        to += n;
        len -= n;
    }
    assert_int_equal(len, 0);
}

/* One frame: its length, then its payload. */
static size_t older_hear(uint8_t payload[256])
{
    uint8_t head[4];
    older_hear_bytes(head, sizeof(head));
    const size_t len = le_get32(head);
    assert_in_range(len, 1, 256);
    older_hear_bytes(payload, len);
    return len;
}

struct greeting {
    uint64_t kind, least, most;
    struct msg_bytes nonce, proof;
};

/* By the numbers of the fields; what it does not know it skips. */
static struct greeting older_hear_greeting(uint8_t payload[256])
{
    struct greeting heard = { 0 };
    struct msg_reader reader;
    uint64_t key;

    msg_reader_init(&reader, payload, older_hear(payload));
    for (uint32_t left = msg_get_map(&reader); msg_next_key(&reader, &left, &key);) {
        switch (key) {
        case 1: heard.kind = msg_get_u64(&reader); break;
        case 2: heard.least = msg_get_u64(&reader); break;
        case 3: heard.most = msg_get_u64(&reader); break;
        case 5: heard.nonce = msg_get_bin(&reader, 32); break;
        case 6: heard.proof = msg_get_bin(&reader, 32); break;
        default: msg_skip(&reader); break;
        }
    }
    assert_int_equal(msg_end(&reader), STATUS_OK);
    return heard;
}

static void older_proof(const char label[16], const uint8_t *nonce_client,
                        const uint8_t *nonce_server, uint32_t most, uint8_t out[32])
{
    uint8_t text[92];

    memcpy(text, label, 16);
    memcpy(text + 16, nonce_client, 32);
    memcpy(text + 48, nonce_server, 32);
    le_put32(text + 80, 1);
    le_put32(text + 84, most);
    le_put32(text + 88, 1);
    hash_hmac_sha256(SECRET, strlen(SECRET), text, sizeof(text), out);
}

#define NONCE "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
static const char hello_v1[] =
    "\x2f\x00\x00\x00\x85\x01\x01\x02\x01\x03\x01\x04\xa3old\x05\xc4\x20" NONCE;
static const char challenge_v1[] =
    "\x2f\x00\x00\x00\x85\x01\x02\x02\x01\x03\x01\x04\xa3old\x05\xc4\x20" NONCE;
static const char proof_v1[] = "\x26\x00\x00\x00\x82\x01\x03\x06\xc4\x20";
static const char ready_v1[] = "\x26\x00\x00\x00\x82\x01\x04\x06\xc4\x20";
static const char request_v1[] = "\x0d\x00\x00\x00\x84\x01\x06\x07\x01\x08\x01\x0c\xc4\x03"
                                 "abc";
static const char reply_v1[] = "\x0b\x00\x00\x00\x83\x01\x09\x07\x01\x0c\xc4\x03"
                               "abc";

static void older_say_proof(const char *head, const uint8_t proof[32])
{
    uint8_t frame[42];
    memcpy(frame, head, 10);
    memcpy(frame + 10, proof, 32);
    older_say(frame, sizeof(frame));
}

/* ---- version 1 with today ---- */

static void an_older_client_is_served(void **state)
{
    (void)state;
    uint8_t payload[256], proof[32], reply[sizeof(reply_v1) - 1], nonce[32];

    world_open();
    server_open();
    assert_int_equal(env_connect(client_env, SERVER, &older, NULL), STATUS_OK);
    older_say(hello_v1, sizeof(hello_v1) - 1);
    const struct greeting challenge = older_hear_greeting(payload);
    assert_int_equal(challenge.kind, 2);
    assert_int_equal(challenge.least, 1);
    assert_int_equal(challenge.most, 1);
    memcpy(nonce, challenge.nonce.data, sizeof(nonce));
    older_proof("yolk-rpc-client", (const uint8_t *)NONCE, nonce, 1, proof);
    older_say_proof(proof_v1, proof);
    const struct greeting ready = older_hear_greeting(payload);
    assert_int_equal(ready.kind, 4);
    older_proof("yolk-rpc-server", (const uint8_t *)NONCE, nonce, 1, proof);
    assert_memory_equal(ready.proof.data, proof, sizeof(proof));
    older_say(request_v1, sizeof(request_v1) - 1);
    older_hear_bytes(reply, sizeof(reply));
    assert_memory_equal(reply, reply_v1, sizeof(reply));
    env_stream_close(older);
    world_close();
}

static void on_older_accept(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    assert_null(older);
    older = stream;
}

static void an_older_server_is_asked(void **state)
{
    (void)state;
    uint8_t payload[256], nonce[32], proof[32], request[sizeof(request_v1) - 1];
    struct env_listener *listener;

    world_open();
    older = NULL;
    assert_int_equal(env_listen(server_env, SERVER, on_older_accept, NULL, &listener, NULL),
                     STATUS_OK);
    client_open(SERVER);
    ask();
    env_sim_run_for(sim, 10 * ENV_NS_PER_MS);
    assert_non_null(older);
    const struct greeting hello = older_hear_greeting(payload);
    assert_int_equal(hello.kind, 1);
    assert_int_equal(hello.least, 1);
    assert_int_equal(hello.most, 2);
    memcpy(nonce, hello.nonce.data, sizeof(nonce));
    older_say(challenge_v1, sizeof(challenge_v1) - 1);
    const struct greeting claim = older_hear_greeting(payload);
    assert_int_equal(claim.kind, 3);
    older_proof("yolk-rpc-client", nonce, (const uint8_t *)NONCE, 2, proof);
    assert_memory_equal(claim.proof.data, proof, sizeof(proof));
    older_proof("yolk-rpc-server", nonce, (const uint8_t *)NONCE, 2, proof);
    older_say_proof(ready_v1, proof);
    older_hear_bytes(request, sizeof(request));
    assert_memory_equal(request, request_v1, sizeof(request));
    older_say(reply_v1, sizeof(reply_v1) - 1);
    env_sim_run_for(sim, 10 * ENV_NS_PER_MS);
    assert_int_equal(answered, 1);
    env_stream_close(older);
    env_listener_close(listener);
    world_close();
}

/* ---- a front that damages ---- */

struct way {
    struct env_stream *from, *to;
    struct buf bytes;  /* read and not passed on yet */
    uint64_t passed;   /* of the first connection */
    uint64_t flip_bit; /* of those; UINT64_MAX: none */
};

static struct env_listener *front_listener;
static struct way ways[2]; /* from the client, from the server */
static bool first;         /* the connection that is damaged */
static bool ageing;        /* the first frame is made one of version 1 */
static struct buf heard;   /* what the client says behind its handshake on the first connection */

enum { TO_SERVER, TO_CLIENT };

static void on_front_ready(void *ctx, unsigned events)
{
    (void)ctx;
    (void)events; /* the test turns the front itself */
}

static void front_hang_up(void)
{
    for (int i = 0; i < 2; i++) {
        env_stream_close(ways[i].from);
        buf_fini(&ways[i].bytes);
        ways[i] = (struct way){ .flip_bit = UINT64_MAX };
    }
    first = false;
}

static void on_front_accept(void *ctx, struct env_stream *stream)
{
    struct env_stream *onward;

    (void)ctx;
    if (ways[0].from != NULL) front_hang_up();
    assert_int_equal(env_connect(front_env, SERVER, &onward, NULL), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        struct way *way = &ways[i];
        way->from = i == TO_SERVER ? stream : onward;
        way->to = i == TO_SERVER ? onward : stream;
        buf_init(&way->bytes, 1 << 20);
        env_stream_watch(way->from, ENV_READ, on_front_ready, NULL);
    }
}

/* Version 2 and the checksum taken out of the greeting, its nonce kept. */
static void age(struct buf *bytes)
{
    enum { KEPT = sizeof(hello_v1) - 1, NONCE_AT = KEPT - 32 };
    uint8_t made[KEPT];

    struct rpc_head head = { .len = le_get32(buf_data(bytes)) };
    struct rpc_frame frame;
    assert_int_equal(rpc_frame_read(buf_data(bytes) + 4, &head, 1, &frame), STATUS_OK);
    memcpy(made, hello_v1, KEPT);
    memcpy(made + NONCE_AT, frame.nonce.data, 32);
    buf_consume(bytes, 4 + head.len);
    assert_int_equal(bytes->len, 0);
    assert_int_equal(buf_append(bytes, made, KEPT), STATUS_OK);
    ageing = false;
}

/* False: an end has hung up, and so did the front. */
static bool pass_on(struct way *way)
{
    uint8_t read[4096];
    size_t n = 0;

    const enum status status = env_stream_read(way->from, read, sizeof(read), &n);
    if (status != STATUS_OK && status != STATUS_AGAIN) {
        front_hang_up();
        return false;
    }
    if (status == STATUS_OK) {
        const uint64_t at = way->flip_bit / 8 - way->passed;
        if (first && at < n) read[at] ^= (uint8_t)(1U << way->flip_bit % 8);
        way->passed += n;
        assert_int_equal(buf_append(&way->bytes, read, n), STATUS_OK);
        if (first && ageing && way == &ways[TO_SERVER]) age(&way->bytes);
        if (first && way == &ways[TO_SERVER]) assert_int_equal(buf_append(&heard, read, n), 0);
    }
    if (way->bytes.len == 0) return true;
    const struct iovec iov = { buf_data(&way->bytes), way->bytes.len };
    if (env_stream_writev(way->to, &iov, 1, &n) == STATUS_OK) buf_consume(&way->bytes, n);
    return true;
}

static void turns(int count)
{
    for (int i = 0; i < count && answered == 0; i++) {
        env_sim_run_for(sim, STEP_MS * ENV_NS_PER_MS);
        for (int way = 0; way < 2 && ways[0].from != NULL && pass_on(&ways[way]); way++)
            continue;
    }
}

static void front_open(void)
{
    world_open();
    server_open();
    first = true;
    ageing = false;
    buf_init(&heard, 1 << 20);
    ways[0] = ways[1] = (struct way){ .flip_bit = UINT64_MAX };
    assert_int_equal(env_listen(front_env, FRONT, on_front_accept, NULL, &front_listener, NULL),
                     STATUS_OK);
    client_open(FRONT);
    ask();
}

static void front_close(void)
{
    front_hang_up();
    buf_fini(&heard);
    env_listener_close(front_listener);
    world_close();
}

/* The call went over the first connection: in a frame of version 2. */
static void check_spoken(size_t handshake_len)
{
    struct rpc_head head;
    struct rpc_frame frame;

    assert_true(heard.len >= handshake_len + RPC_HEAD_SIZE);
    const uint8_t *at = buf_data(&heard) + handshake_len;
    assert_int_equal(rpc_head_read(at, 2, &head), STATUS_OK);
    assert_int_equal(rpc_frame_read(at + RPC_HEAD_SIZE, &head, 2, &frame), STATUS_OK);
    assert_int_equal(frame.kind, RPC_KIND_REQUEST);
}

/* Bytes of the handshake each way; the request's are behind those of the client. */
static void learn_sizes(size_t size[2])
{
    front_open();
    turns(STEPS);
    assert_int_equal(answered, 1);
    size[TO_CLIENT] = (size_t)ways[TO_CLIENT].passed - (16 + sizeof(reply_v1) - 1 - 4);
    size[TO_SERVER] = (size_t)ways[TO_SERVER].passed - (16 + sizeof(request_v1) - 1 - 4);
    check_spoken(size[TO_SERVER]);
    front_close();
}

static void flipped_bits_cannot_change_what_is_agreed(void **state)
{
    (void)state;
    size_t size[2];

    learn_sizes(size);
    for (int way = 0; way < 2; way++) {
        for (size_t bit = seed % STRIDE; bit < size[way] * 8; bit += STRIDE) {
            front_open();
            ways[way].flip_bit = bit;
            turns(STEPS);
            assert_int_equal(answered, 1); /* nobody waits for what never comes */
            assert_int_equal(asked, 1);
            assert_false(first); /* it went over another connection, of version 2 as before */
            front_close();
        }
    }
}

static void a_greeting_made_older_is_found_out(void **state)
{
    (void)state;

    front_open();
    ageing = true;
    turns(STEPS);
    assert_false(first);           /* that connection is no more, */
    assert_int_equal(asked, 1);    /* nothing went over it, */
    assert_int_equal(answered, 1); /* and the next one is of today */
    assert_true(heard.len < 2 * 60 + 16 + sizeof(request_v1));
    front_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_older_client_is_served),
        cmocka_unit_test(an_older_server_is_asked),
        cmocka_unit_test(flipped_bits_cannot_change_what_is_agreed),
        cmocka_unit_test(a_greeting_made_older_is_found_out),
    };
    seed = test_seed();
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
