/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_hostile_test.c
 *
 * Goal:   a peer that knows the secret but talks nonsense cannot crash an engine, make it write
 *         outside what is registered, or keep a task from ending.
 * Method: puppets that greet properly by the functions of wire.h and then send frames whose headers
 *         are well formed and whose fields are random: one as initiator, one as target. Memory
 *         around the registered ranges is watched. `SEED=n` replays. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "transfer/wire.h"

#define CHECK(condition) assert_true(condition)

enum { RANGE = 64 << 10, CONNECTIONS = 150, FABRIC_CONNECTIONS = 40, FRAMES = 40 };

/* The middle is registered, the rest must stay as it is. */
struct guarded {
    uint8_t before[RANGE], middle[RANGE], after[RANGE];
};

static struct guarded here, there;

static uint64_t guard_sum(const struct guarded *memory)
{
    return hash_xxh3(memory->before, RANGE) ^ hash_xxh3(memory->after, RANGE) * 3;
}

struct puppet {
    struct env *env;
    struct rng rng;
    struct env_stream *stream;
    bool writable;
    uint64_t requests[8]; /* the last ones seen */
    uint64_t frames;
    uint32_t capabilities; /* beside sharing */
    bool fabric;           /* it speaks of libfabric, too */
};

static void on_puppet(void *ctx, unsigned events)
{
    struct puppet *puppet = ctx;
    if ((events & ENV_WRITE) != 0) puppet->writable = true;
}

static enum status puppet_send(struct puppet *puppet, const uint8_t *data, size_t len)
{
    for (int turns = 0; len > 0 && turns < 2000; turns++) {
        const struct iovec iov = { (void *)(uintptr_t)data, len };
        size_t n = 0;
        const enum status status = env_stream_writev(puppet->stream, &iov, 1, &n);
        if (status != STATUS_OK && status != STATUS_AGAIN) return status;
        data += n;
        len -= n;
        env_poll(puppet->env, 0);
    }
    return len == 0 ? STATUS_OK : STATUS_TIMEOUT;
}

static enum status puppet_receive(struct puppet *puppet, uint8_t *data, size_t len, int turns_max)
{
    for (int turns = 0; len > 0 && turns < turns_max; turns++) {
        size_t n = 0;
        const enum status status = env_stream_read(puppet->stream, data, len, &n);
        if (status != STATUS_OK && status != STATUS_AGAIN) return status;
        data += n;
        len -= n;
        if (len > 0) env_poll(puppet->env, 100 * ENV_NS_PER_US);
    }
    return len == 0 ? STATUS_OK : STATUS_AGAIN;
}

static enum status send_header(struct puppet *puppet, const struct wire_header *header)
{
    uint8_t bytes[WIRE_HEADER_SIZE];
    wire_header_encode(header, bytes);
    return puppet_send(puppet, bytes, sizeof(bytes));
}

static void hello_make(struct puppet *puppet, uint64_t connection, struct wire_hello *hello)
{
    *hello = (struct wire_hello){ .version_min = 1,
                                  .version_max = 1,
                                  .capabilities = WIRE_CAP_SHM | puppet->capabilities,
                                  .generation = rng_u64(&puppet->rng) | 1,
                                  .connection = connection,
                                  .lease_ms = 1000,
                                  .name = "puppet:1" };
}

static void receive_frame(struct puppet *puppet, uint8_t *payload, struct wire_header *header)
{
    uint8_t bytes[WIRE_HEADER_SIZE];

    CHECK(puppet_receive(puppet, bytes, sizeof(bytes), 5000) == STATUS_OK);
    CHECK(wire_header_decode(bytes, header) == STATUS_OK);
    CHECK(wire_payload_size(header) <= WIRE_CONTROL_MAX);
    CHECK(puppet_receive(puppet, payload, wire_payload_size(header), 5000) == STATUS_OK);
}

static void greet_as_initiator(struct puppet *puppet, const char *name)
{
    const struct wire_header greeting = { .opcode = WIRE_HELLO, .length = WIRE_HELLO_SIZE };
    const struct wire_header proof = { .opcode = WIRE_AUTH, .length = WIRE_PROOF_SIZE };
    uint8_t ours[WIRE_HELLO_SIZE], theirs[WIRE_CONTROL_MAX], bytes[WIRE_PROOF_SIZE];
    struct wire_hello hello;
    struct wire_header header;

    puppet->writable = false;
    CHECK(env_connect(puppet->env, name, &puppet->stream, NULL) == STATUS_OK);
    env_stream_watch(puppet->stream, ENV_WRITE, on_puppet, puppet);
    while (!puppet->writable)
        env_poll(puppet->env, ENV_NS_PER_S);
    env_stream_watch(puppet->stream, 0, on_puppet, puppet);
    hello_make(puppet, 1, &hello);
    wire_hello_encode(&hello, ours);
    CHECK(send_header(puppet, &greeting) == STATUS_OK);
    CHECK(puppet_send(puppet, ours, sizeof(ours)) == STATUS_OK);
    receive_frame(puppet, theirs, &header);
    CHECK(header.opcode == WIRE_HELLO);
    wire_proof("", "yolk-transfer initiator", ours, theirs, bytes);
    CHECK(send_header(puppet, &proof) == STATUS_OK);
    CHECK(puppet_send(puppet, bytes, sizeof(bytes)) == STATUS_OK);
    receive_frame(puppet, theirs, &header);
    CHECK(header.opcode == WIRE_ACK && header.status == STATUS_OK);
}

/* An address in, at the edge of, or far from the range. */
static uint64_t random_address(struct rng *rng, const struct guarded *memory)
{
    const uint64_t base = (uintptr_t)memory->middle;

    switch (rng_below(rng, 4)) {
    case 0: return rng_u64(rng);
    case 1: return base + RANGE - rng_below(rng, 4096);
    case 2: return base - rng_below(rng, 4096);
    default: return base + rng_below(rng, RANGE);
    }
}

static uint64_t random_length(struct rng *rng, enum wire_opcode opcode)
{
    const bool control = opcode == WIRE_HELLO || opcode == WIRE_AUTH || opcode == WIRE_SHARE ||
                         opcode == WIRE_RAILS || opcode == WIRE_NOTIFY || opcode == WIRE_FABRIC ||
                         opcode == WIRE_FABRIC_GRANT || opcode == WIRE_ACKS;

    if (control) return rng_below(rng, WIRE_CONTROL_MAX + 1);
    if (opcode == WIRE_WRITE || opcode == WIRE_READ_DATA) {
        return rng_between(rng, 1, rng_below(rng, 8) == 0 ? 2 * RANGE : 3000);
    }
    return rng_below(rng, 3) == 0 ? rng_u64(rng) : rng_below(rng, 3000);
}

/* Mostly what an initiator may say, or the connection would never last. */
static enum wire_opcode random_opcode(struct rng *rng)
{
    static const enum wire_opcode usual[] = { WIRE_READ,   WIRE_READ,  WIRE_READ, WIRE_WRITE,
                                              WIRE_WRITE,  WIRE_WRITE, WIRE_PULL, WIRE_PULL,
                                              WIRE_CANCEL, WIRE_FENCE, WIRE_ASK,  WIRE_PING };

    if (rng_below(rng, 40) == 0) {
        return (enum wire_opcode)rng_between(rng, WIRE_HELLO, WIRE_FABRIC_GRANT);
    }
    return usual[rng_below(rng, sizeof(usual) / sizeof(usual[0]))];
}

/* A link's address, of a kind that may be right, that leads nowhere. */
static void random_fabric(struct rng *rng, uint8_t out[WIRE_FABRIC_SIZE])
{
    struct wire_fabric fabric = { .provider = "tcp;ofi_rxm", .address_len = 16 };

    rng_fill(rng, fabric.address, sizeof(fabric.address));
    if (rng_below(rng, 4) != 0) memcpy(fabric.address, "\x02\0\0\x01\x7f\0\0\x01", 8);
    if (rng_below(rng, 4) == 0) fabric.address_len = (uint32_t)rng_between(rng, 1, 192);
    wire_fabric_encode(&fabric, out);
}

static enum status send_random(struct puppet *puppet, const struct guarded *memory)
{
    static uint8_t payload[2 * RANGE];
    struct rng *rng = &puppet->rng;
    struct wire_header header = {
        .opcode = random_opcode(rng),
        .flags = (uint8_t)rng_below(rng, 2),
        .class = (uint8_t)rng_below(rng, WIRE_CLASSES),
        .attempt = rng_below(rng, 4),
        .epoch = rng_below(rng, 3),
        .term = rng_below(rng, 3),
        .address = random_address(rng, memory),
        .source = rng_u64(rng),
        .status = rng_below(rng, 2) == 0 ? STATUS_OK : STATUS_STALE,
    };

    header.request =
        rng_below(rng, 3) == 0 ? rng_below(rng, 200) : puppet->requests[rng_below(rng, 8)];
    header.length = random_length(rng, header.opcode);
    header.checksum = rng_u64(rng);
    rng_fill(rng, payload, 64);
    if (puppet->fabric && rng_below(rng, 10) == 0) {
        header.opcode = rng_below(rng, 4) == 0 ? WIRE_FABRIC : WIRE_FABRIC_ASK;
        header.length = header.opcode == WIRE_FABRIC ? WIRE_FABRIC_SIZE : 0;
        random_fabric(rng, payload);
    }
    enum status status = send_header(puppet, &header);
    if (status != STATUS_OK) return status;
    puppet->frames++;
    return puppet_send(puppet, payload, wire_payload_size(&header));
}

static struct yolk_transfer_result move(struct env *env, struct yolk_transfer *transfer,
                                        struct yolk_transfer_segment segment,
                                        enum yolk_transfer_opcode opcode, uint64_t deadline_ms)
{
    const struct yolk_transfer_request req = {
        .opcode = opcode,
        .local = here.middle,
        .segment = segment,
        .remote = (uintptr_t)there.middle,
        .length = RANGE,
        .deadline_ns = env_now_ns(env) + deadline_ms * ENV_NS_PER_MS,
    };
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    CHECK(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch) == STATUS_OK);
    CHECK(yolk_transfer_submit(transfer, batch, &req, 1) == STATUS_OK);
    CHECK(yolk_transfer_wait(transfer, batch, 60 * ENV_NS_PER_S) == STATUS_OK);
    CHECK(yolk_transfer_poll(transfer, batch, 0, &result) == STATUS_OK);
    CHECK(yolk_transfer_batch_free(transfer, batch) == STATUS_OK);
    return result;
}

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;

    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Where there is no libfabric it is without. */
static void engine_start(struct env *env, struct yolk_transfer **transfer, struct guarded *memory,
                         const char *protocol)
{
    struct yolk_transfer_options options = { .fence_ms = 1000, .protocol = protocol };
    struct errmsg err = { "" };
    enum status status = yolk_transfer_create(env, &options, transfer, &err);

    if (status == STATUS_UNSUPPORTED) {
        printf("WITHOUT: %s\n", err.text);
        options.protocol = NULL;
        status = yolk_transfer_create(env, &options, transfer, NULL);
    }
    CHECK(status == STATUS_OK);
    CHECK(yolk_transfer_register(*transfer, memory->middle, RANGE, NULL,
                                 YOLK_TRANSFER_REMOTE_ALL) == STATUS_OK);
}

static void a_hostile_initiator_does_no_harm(void **state)
{
    const char *protocol = *state;
    const int connections = protocol == NULL ? CONNECTIONS : FABRIC_CONNECTIONS;
    struct puppet puppet = { .fabric = protocol != NULL };
    struct yolk_transfer *target, *initiator;
    struct yolk_transfer_segment segment;

    rng_init(&puppet.rng, seed_of_run());
    rng_fill(&puppet.rng, &there, sizeof(there));
    const uint64_t guard = guard_sum(&there);
    CHECK(env_real_create(NULL, &puppet.env, NULL) == STATUS_OK);
    engine_start(puppet.env, &target, &there, protocol);
    engine_start(puppet.env, &initiator, &here, protocol);
    for (int i = 0; i < connections; i++) {
        puppet.capabilities = rng_below(&puppet.rng, 2) == 0 ? WIRE_CAP_ACKS : 0;
        greet_as_initiator(&puppet, yolk_transfer_name(target));
        for (int j = 0; j < FRAMES && send_random(&puppet, &there) == STATUS_OK; j++) {
            env_poll(puppet.env, 0);
        }
        env_stream_close(puppet.stream);
        CHECK(guard_sum(&there) == guard);
    }
    CHECK(puppet.frames > 10u * (unsigned)connections);
    CHECK(yolk_transfer_open(initiator, yolk_transfer_name(target), &segment) == STATUS_OK);
    CHECK(move(puppet.env, initiator, segment, YOLK_TRANSFER_READ, 5000).state ==
          YOLK_TRANSFER_COMPLETED);
    CHECK(memcmp(here.middle, there.middle, RANGE) == 0);
    yolk_transfer_destroy(initiator);
    yolk_transfer_destroy(target);
    env_real_destroy(puppet.env);
}

/* ---- as target ---- */

struct stage {
    struct puppet puppet;
    struct env_listener *listener;
    bool proven;
    uint8_t in[4096];
    size_t in_len;
    uint8_t initiator_hello[WIRE_HELLO_SIZE];
};

static void stage_drop(struct stage *stage)
{
    env_stream_close(stage->puppet.stream);
    stage->puppet.stream = NULL;
    stage->proven = false;
    stage->in_len = 0;
}

/* Without waiting: this runs inside the loop. */
static bool stage_say(struct stage *stage, const struct wire_header *header, const uint8_t *payload)
{
    uint8_t bytes[WIRE_HEADER_SIZE];
    struct iovec iov[2] = { { bytes, sizeof(bytes) },
                            { (void *)(uintptr_t)payload, wire_payload_size(header) } };
    size_t n = 0;

    wire_header_encode(header, bytes);
    const int parts = iov[1].iov_len > 0 ? 2 : 1;
    return env_stream_writev(stage->puppet.stream, iov, parts, &n) == STATUS_OK &&
           n == WIRE_HEADER_SIZE + iov[1].iov_len;
}

static bool stage_greet(struct stage *stage, const uint8_t *theirs)
{
    const struct wire_header greeting = { .opcode = WIRE_HELLO, .length = WIRE_HELLO_SIZE };
    struct wire_hello hello, mine;
    uint8_t bytes[WIRE_HELLO_SIZE];

    if (wire_hello_decode(theirs, WIRE_HELLO_SIZE, &hello) != STATUS_OK) return false;
    hello_make(&stage->puppet, hello.connection, &mine);
    mine.generation = 77;
    wire_hello_encode(&mine, bytes);
    wire_proof("", "yolk-transfer target", theirs, bytes, mine.proof);
    wire_hello_encode(&mine, bytes);
    return stage_say(stage, &greeting, bytes);
}

static bool stage_lie(struct stage *stage, const struct wire_header *request)
{
    static const enum wire_opcode answers[] = { WIRE_READ_DATA, WIRE_READ_DATA, WIRE_ACK,
                                                WIRE_ACK,       WIRE_SHARE,     WIRE_FENCE_ACK,
                                                WIRE_PONG,      WIRE_WRITE,     WIRE_ACKS };
    static uint8_t payload[2 * RANGE];
    struct rng *rng = &stage->puppet.rng;
    struct wire_header header = { .opcode = answers[rng_below(rng, 9)],
                                  .request = request->request,
                                  .flags = (uint8_t)rng_below(rng, 2),
                                  .address = random_address(rng, &here),
                                  .length = request->length,
                                  .status = rng_below(rng, 2) == 0 ? STATUS_OK : STATUS_CORRUPT };

    if (rng_below(rng, 4) == 0) header.request = rng_below(rng, 300);
    if (rng_below(rng, 4) == 0 || header.opcode == WIRE_SHARE || header.length == 0 ||
        header.length > 2 * RANGE) {
        header.length = random_length(rng, header.opcode);
    }
    if (header.opcode == WIRE_ACKS) {
        header.length = rng_below(rng, 4) == 0 ? rng_below(rng, 64) : 8 * rng_between(rng, 1, 8);
        for (int i = 0; i < 8; i++)
            wire_ack_encode(request->request + rng_below(rng, 2) * i, payload + 8 * i);
        header.flags = WIRE_CHECKSUM;
        header.checksum = rng_below(rng, 4) == 0 ? 1 : hash_xxh3(payload, (size_t)header.length);
    }
    stage->puppet.frames++;
    return stage_say(stage, &header, payload);
}

static bool stage_frame(struct stage *stage, const struct wire_header *header,
                        const uint8_t *payload)
{
    const struct wire_header accepted = { .opcode = WIRE_ACK };

    if (header->opcode == WIRE_HELLO) return stage_greet(stage, payload);
    if (header->opcode != WIRE_AUTH) return stage_lie(stage, header);
    stage->proven = true;
    return stage_say(stage, &accepted, NULL);
}

static void on_stage(void *ctx, unsigned events)
{
    struct stage *stage = ctx;
    struct wire_header header;
    size_t n = 0, at = 0;

    (void)events;
    const enum status status = env_stream_read(stage->puppet.stream, stage->in + stage->in_len,
                                               sizeof(stage->in) - stage->in_len, &n);
    if (status == STATUS_AGAIN) return;
    if (status != STATUS_OK) {
        stage_drop(stage);
        return;
    }
    stage->in_len += n;
    while (stage->in_len - at >= WIRE_HEADER_SIZE) {
        if (wire_header_decode(stage->in + at, &header) != STATUS_OK) break; /* inside a WRITE */
        const size_t size = WIRE_HEADER_SIZE +
                            (header.opcode == WIRE_WRITE ? 0 : (size_t)wire_payload_size(&header));
        if (stage->in_len - at < size) break;
        if (!stage_frame(stage, &header, stage->in + at + WIRE_HEADER_SIZE)) {
            stage_drop(stage);
            return;
        }
        at += size;
    }
    if (at == 0 && stage->in_len == sizeof(stage->in)) at = stage->in_len; /* payload: forget it */
    memmove(stage->in, stage->in + at, stage->in_len - at);
    stage->in_len -= at;
}

static void on_stage_accept(void *ctx, struct env_stream *stream)
{
    struct stage *stage = ctx;

    stage_drop(stage);
    stage->puppet.stream = stream;
    env_stream_watch(stream, ENV_READ, on_stage, stage);
}

enum { TOGETHER = 20, TOGETHER_SIZE = 16 };

/* Takes answers until each of the writes 1..TOGETHER has one; how many frames that took. */
static int acks_receive(struct puppet *puppet)
{
    uint8_t payload[WIRE_CONTROL_MAX];
    struct wire_header header;
    uint32_t seen = 0;
    int frames = 0;

    while (seen != (1u << TOGETHER) - 1) {
        receive_frame(puppet, payload, &header);
        frames++;
        CHECK(header.status == STATUS_OK);
        if (header.opcode == WIRE_ACK) wire_ack_encode(header.request, payload);
        const uint64_t len = header.opcode == WIRE_ACK ? WIRE_ACK_SIZE : header.length;
        CHECK(header.opcode == WIRE_ACK || (puppet->capabilities & WIRE_CAP_ACKS) != 0);
        CHECK(header.opcode == WIRE_ACK || header.checksum == hash_xxh3(payload, len));
        for (uint64_t at = 0; at < len; at += WIRE_ACK_SIZE) {
            const uint64_t request = wire_ack_decode(payload + at);
            CHECK(request >= 1 && request <= TOGETHER && (seen & 1u << (request - 1)) == 0);
            seen |= 1u << (request - 1);
        }
    }
    return frames;
}

/* Writes that arrive together are acknowledged together, if the initiator has said that it
 * understands that, and one by one if it has not. */
static void acks_come_as_they_are_understood(void **state)
{
    (void)state;
    static struct puppet puppet;
    static uint8_t bytes[TOGETHER * (WIRE_HEADER_SIZE + TOGETHER_SIZE)];
    struct yolk_transfer *target;

    rng_init(&puppet.rng, seed_of_run());
    CHECK(env_real_create(NULL, &puppet.env, NULL) == STATUS_OK);
    engine_start(puppet.env, &target, &there, NULL);
    for (int i = 0; i < TOGETHER; i++) {
        const struct wire_header header = { .opcode = WIRE_WRITE,
                                            .request = (uint64_t)i + 1,
                                            .address = (uintptr_t)there.middle,
                                            .length = TOGETHER_SIZE };
        wire_header_encode(&header, bytes + i * (WIRE_HEADER_SIZE + TOGETHER_SIZE));
    }
    for (int round = 0; round < 2; round++) {
        puppet.capabilities = round == 0 ? 0 : WIRE_CAP_ACKS;
        greet_as_initiator(&puppet, yolk_transfer_name(target));
        CHECK(puppet_send(&puppet, bytes, sizeof(bytes)) == STATUS_OK);
        const int frames = acks_receive(&puppet);
        CHECK(round == 0 ? frames == TOGETHER : frames < TOGETHER);
        env_stream_close(puppet.stream);
    }
    yolk_transfer_destroy(target);
    env_real_destroy(puppet.env);
}

/* A notice whose checksum, if it has one, is `sum`. What became of it. */
static enum status notice_answered(struct puppet *puppet, uint64_t request, uint8_t flags,
                                   uint64_t sum)
{
    static const uint8_t payload[WIRE_NOTICE_NAME_SIZE + 3] = "puppet";
    const struct wire_header notice = { .opcode = WIRE_NOTIFY,
                                        .flags = flags,
                                        .request = request,
                                        .length = sizeof(payload),
                                        .checksum = sum ^ hash_xxh3(payload, sizeof(payload)) };
    uint8_t bytes[WIRE_HEADER_SIZE];
    struct wire_header answer;

    CHECK(send_header(puppet, &notice) == STATUS_OK);
    CHECK(puppet_send(puppet, payload, sizeof(payload)) == STATUS_OK);
    const enum status status = puppet_receive(puppet, bytes, sizeof(bytes), 5000);
    if (status != STATUS_OK) return status;
    CHECK(wire_header_decode(bytes, &answer) == STATUS_OK);
    CHECK(answer.opcode == WIRE_NOTIFY_ACK && answer.request == request);
    return answer.status;
}

/* The payload of a control frame is looked at when its checksum was right, or when it comes from an
 * engine of before, which has put none there. */
static void damaged_control_costs_the_connection(void **state)
{
    (void)state;
    static struct puppet puppet;
    struct yolk_transfer *target;
    struct yolk_transfer_notice notice;
    int kept = 0;

    rng_init(&puppet.rng, seed_of_run());
    CHECK(env_real_create(NULL, &puppet.env, NULL) == STATUS_OK);
    engine_start(puppet.env, &target, &there, NULL);
    puppet.capabilities = WIRE_CAP_NOTIFY;
    greet_as_initiator(&puppet, yolk_transfer_name(target));
    CHECK(notice_answered(&puppet, 1, 0, 7) == STATUS_OK);
    CHECK(notice_answered(&puppet, 2, WIRE_CHECKSUM, 0) == STATUS_OK);
    CHECK(notice_answered(&puppet, 3, WIRE_CHECKSUM, 1) == STATUS_CONN_CLOSED);
    env_stream_close(puppet.stream);
    while (yolk_transfer_take_notice(target, &notice) == STATUS_OK)
        kept++;
    CHECK(kept == 2);
    yolk_transfer_destroy(target);
    env_real_destroy(puppet.env);
}

static void a_hostile_target_does_no_harm(void **state)
{
    (void)state;
    static struct stage stage;
    struct yolk_transfer *initiator, *honest;
    struct yolk_transfer_segment segment;
    char name[64];

    rng_init(&stage.puppet.rng, seed_of_run() + 1);
    rng_fill(&stage.puppet.rng, &here, sizeof(here));
    const uint64_t guard = guard_sum(&here);
    CHECK(env_real_create(NULL, &stage.puppet.env, NULL) == STATUS_OK);
    CHECK(env_listen(stage.puppet.env, "127.0.0.1:0", on_stage_accept, &stage, &stage.listener,
                     NULL) == STATUS_OK);
    snprintf(name, sizeof(name), "127.0.0.1:%u", env_listener_port(stage.listener));
    engine_start(stage.puppet.env, &initiator, &here, NULL);
    engine_start(stage.puppet.env, &honest, &there, NULL);
    CHECK(yolk_transfer_open(initiator, name, &segment) == STATUS_OK);
    for (int i = 0; i < CONNECTIONS; i++) {
        /* It may even "complete": lies about content are for checksums above us. It must end. */
        (void)move(stage.puppet.env, initiator, segment, YOLK_TRANSFER_READ, 20);
        CHECK(guard_sum(&here) == guard);
    }
    (void)move(stage.puppet.env, initiator, segment, YOLK_TRANSFER_WRITE, 20);
    CHECK(stage.puppet.frames > CONNECTIONS / 2);
    CHECK(yolk_transfer_open(initiator, yolk_transfer_name(honest), &segment) == STATUS_OK);
    CHECK(move(stage.puppet.env, initiator, segment, YOLK_TRANSFER_WRITE, 5000).state ==
          YOLK_TRANSFER_COMPLETED);
    CHECK(memcmp(here.middle, there.middle, RANGE) == 0);
    CHECK(guard_sum(&here) == guard);
    env_listener_close(stage.listener);
    stage_drop(&stage);
    yolk_transfer_destroy(initiator);
    yolk_transfer_destroy(honest);
    env_real_destroy(stage.puppet.env);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    static char fabric[] = "fabric:tcp;ofi_rxm";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hostile_initiator_does_no_harm),
        cmocka_unit_test_prestate(a_hostile_initiator_does_no_harm, fabric),
        cmocka_unit_test(a_hostile_target_does_no_harm),
        cmocka_unit_test(acks_come_as_they_are_understood),
        cmocka_unit_test(damaged_control_costs_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
