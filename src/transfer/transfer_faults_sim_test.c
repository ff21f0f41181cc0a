/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_faults_sim_test.c
 *
 * Goal:    each way in which the other end can be no end at all has a final status within its time,
 *          leaves nothing behind, and holds up nobody else: a port that never greets, connections
 *          that never speak, another version, a peer that stops reading, one that vanishes without
 *          a word, and no connection to be had.
 * Method:  one fault at a time in a simulated world, beside a peer that is well. The random walk of
 *          them all is in transfer_sim_test.c. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/env_sim.h"
#include "base/log.h"
#include "transfer/wire.h"

enum { SIZE = 4 << 20, FENCE_MS = 2000, CONNECT_MS = 1000, STRANGERS = 50 };

#define SICK "10.0.0.2:7000"
#define WELL "10.0.0.3:7000"
#define LIMIT_NS (60 * ENV_NS_PER_S)

struct end {
    struct env *env;
    struct yolk_transfer *transfer;
    uint8_t *memory;
};

/* Ours, the one that will be sick, and one that is well. */
struct world {
    struct env_sim *sim;
    struct end here, sick, well;
};

static void end_open(struct world *world, struct end *end, const char *host, const char *listen)
{
    const struct yolk_transfer_options options = {
        .listen = listen, .allow_open = true, .connect_ms = CONNECT_MS, .fence_ms = FENCE_MS
    };
    void *memory;

    end->env = env_sim_add(world->sim, host);
    assert_int_equal(yolk_transfer_create(end->env, &options, &end->transfer, NULL), STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(end->transfer, SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    end->memory = memory;
}

static void world_open(struct world *world, bool with_sick)
{
    *world = (struct world){ .sim = env_sim_create(&(struct env_sim_options){ .seed = 1 }) };
    end_open(world, &world->here, "10.0.0.1", "10.0.0.1:7000");
    end_open(world, &world->well, "10.0.0.3", WELL);
    if (with_sick) end_open(world, &world->sick, "10.0.0.2", SICK);
}

static void world_close(struct world *world)
{
    yolk_transfer_destroy(world->here.transfer);
    yolk_transfer_destroy(world->sick.transfer);
    yolk_transfer_destroy(world->well.transfer);
    env_sim_destroy(world->sim);
}

static struct yolk_transfer_batch begin(struct world *world, enum yolk_transfer_opcode opcode,
                                        const char *name, const struct end *to,
                                        uint64_t deadline_ns)
{
    struct yolk_transfer_request request = {
        .opcode = opcode,
        .local = world->here.memory,
        .remote = to->memory != NULL ? (uintptr_t)to->memory : 4096,
        .length = SIZE,
        .deadline_ns = deadline_ns != 0 ? env_now_ns(world->here.env) + deadline_ns : 0,
    };
    struct yolk_transfer *transfer = world->here.transfer;
    struct yolk_transfer_batch batch;

    assert_int_equal(yolk_transfer_open(transfer, name, &request.segment), STATUS_OK);
    assert_int_equal(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(transfer, batch, &request, 1), STATUS_OK);
    assert_int_equal(yolk_transfer_close(transfer, request.segment), STATUS_OK);
    return batch;
}

struct watched {
    struct yolk_transfer *transfer;
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;
};

static bool ended(void *ctx)
{
    struct watched *watched = ctx;

    assert_int_equal(yolk_transfer_poll_batch(watched->transfer, watched->batch, &watched->result),
                     STATUS_OK);
    return watched->result.state >= YOLK_TRANSFER_INVALID;
}

/* Its end, which has to come within `limit_ns`. */
static struct yolk_transfer_result end_of(struct world *world, struct yolk_transfer_batch batch,
                                          uint64_t limit_ns)
{
    struct watched watched = { world->here.transfer, batch, { 0 } };

    assert_true(env_sim_run_until(world->sim, ended, &watched, limit_ns));
    env_sim_run_for(world->sim, ENV_NS_PER_MS); /* it has been called back */
    assert_int_equal(yolk_transfer_batch_free(world->here.transfer, batch), STATUS_OK);
    return watched.result;
}

/* Whoever is well is served, whatever happens beside. */
static void expect_well(struct world *world)
{
    const struct yolk_transfer_batch batch =
        begin(world, YOLK_TRANSFER_WRITE, WELL, &world->well, 0);

    assert_int_equal(end_of(world, batch, ENV_NS_PER_S).state, YOLK_TRANSFER_COMPLETED);
}

static uint64_t lanes_of(const struct end *end)
{
    struct yolk_transfer_stats stats;

    yolk_transfer_stats(end->transfer, &stats);
    return stats.lanes_open;
}

/* ---- strangers ---- */

struct stranger {
    struct env_stream *stream;
    uint8_t bytes[WIRE_HEADER_SIZE + WIRE_HELLO_SIZE];
    size_t len; /* to send */
    bool closed;
};

static void on_stranger(void *ctx, unsigned events)
{
    struct stranger *stranger = ctx;
    uint8_t waste[4096];
    size_t n;

    if ((events & ENV_WRITE) != 0 && stranger->len > 0) {
        const struct iovec iov = { stranger->bytes, stranger->len };
        if (env_stream_writev(stranger->stream, &iov, 1, &n) == STATUS_OK) stranger->len = 0;
    }
    enum status status = STATUS_OK;
    while (status == STATUS_OK)
        status = env_stream_read(stranger->stream, waste, sizeof(waste), &n);
    stranger->closed = status != STATUS_AGAIN;
    env_stream_watch(stranger->stream, stranger->closed ? 0 : ENV_READ, on_stranger, stranger);
}

/* What listens where an engine should: it says `greeting` to everybody, or nothing. */
struct port {
    struct stranger greeting;
    struct stranger strangers[STRANGERS];
    uint32_t count;
};

static void on_accepted(void *ctx, struct env_stream *stream)
{
    struct port *port = ctx;

    assert_true(port->count < STRANGERS); /* whoever meets it does not try for ever */
    struct stranger *stranger = &port->strangers[port->count++];
    *stranger = port->greeting;
    stranger->stream = stream;
    env_stream_watch(stream, ENV_READ | (stranger->len > 0 ? ENV_WRITE : 0), on_stranger, stranger);
}

static void hello_write(struct stranger *stranger, uint8_t version)
{
    const struct wire_header header = { .opcode = WIRE_HELLO, .length = WIRE_HELLO_SIZE };
    const struct wire_hello hello = { .version_min = version,
                                      .version_max = version,
                                      .generation = 77,
                                      .connection = 1,
                                      .lease_ms = FENCE_MS,
                                      .name = "stranger:1" };

    wire_header_encode(&header, stranger->bytes);
    wire_hello_encode(&hello, stranger->bytes + WIRE_HEADER_SIZE);
    stranger->len = sizeof(stranger->bytes);
}

/* The port of `sick` is somebody's who says nothing, or speaks version 9. */
static void a_port_that_is_no_engine(uint8_t version, enum status reason)
{
    static struct port port;
    struct env_listener *listener;
    struct world world;

    world_open(&world, false);
    struct env *env = env_sim_add(world.sim, "10.0.0.2");
    memset(&port, 0, sizeof(port));
    if (version != 0) hello_write(&port.greeting, version);
    assert_int_equal(env_listen(env, SICK, on_accepted, &port, &listener, NULL), STATUS_OK);
    for (int opcode = 0; opcode < 2; opcode++) {
        const uint64_t deadline_ns = ENV_NS_PER_S / 2;
        struct yolk_transfer_batch batch =
            begin(&world, (enum yolk_transfer_opcode)opcode, SICK, &world.sick, deadline_ns);
        expect_well(&world);
        struct yolk_transfer_result result = end_of(&world, batch, deadline_ns + ENV_NS_PER_MS);
        assert_true(result.state == YOLK_TRANSFER_TIMEOUT || result.reason == reason);
        assert_int_equal(result.bytes, 0);
        batch = begin(&world, (enum yolk_transfer_opcode)opcode, SICK, &world.sick, 0);
        result = end_of(&world, batch, LIMIT_NS); /* without a deadline it ends, too */
        assert_int_equal(result.reason, reason);
    }
    for (uint32_t i = 0; i < port.count; i++)
        env_stream_close(port.strangers[i].stream);
    env_listener_close(listener);
    world_close(&world);
}

static void a_port_that_never_greets(void **state)
{
    (void)state;
    a_port_that_is_no_engine(0, STATUS_TIMEOUT);
}

static void a_port_of_another_version(void **state)
{
    (void)state;
    a_port_that_is_no_engine(9, STATUS_UNSUPPORTED);
}

static void connections_that_never_speak(void **state)
{
    (void)state;
    static struct stranger strangers[STRANGERS];
    struct world world;

    world_open(&world, false);
    struct env *env = env_sim_add(world.sim, "10.0.0.2");
    memset(strangers, 0, sizeof(strangers));
    for (int i = 0; i < STRANGERS; i++) {
        if (i == 0) hello_write(&strangers[i], 9); /* one speaks, of another version */
        assert_int_equal(env_connect(env, WELL, &strangers[i].stream, NULL), STATUS_OK);
        env_stream_watch(strangers[i].stream, ENV_READ | ENV_WRITE, on_stranger, &strangers[i]);
    }
    env_sim_run_for(world.sim, ENV_NS_PER_S / 10);
    assert_true(strangers[0].closed && !strangers[1].closed);
    expect_well(&world);
    env_sim_run_for(world.sim, 2 * CONNECT_MS * ENV_NS_PER_MS);
    assert_true(lanes_of(&world.well) <= 4); /* ours */
    for (int i = 0; i < STRANGERS; i++) {
        assert_true(strangers[i].closed);
        env_stream_close(strangers[i].stream);
    }
    expect_well(&world);
    world_close(&world);
}

/* ---- peers that were well ---- */

/* Its kernel goes on taking bytes until its buffers are full. */
static void a_peer_that_stops_reading(void **state)
{
    (void)state;
    for (int opcode = 0; opcode < 2; opcode++) {
        struct world world;
        world_open(&world, true);
        struct yolk_transfer_batch batch = begin(&world, YOLK_TRANSFER_READ, SICK, &world.sick, 0);
        assert_int_equal(end_of(&world, batch, ENV_NS_PER_S).state, YOLK_TRANSFER_COMPLETED);
        batch =
            begin(&world, (enum yolk_transfer_opcode)opcode, SICK, &world.sick, ENV_NS_PER_S / 10);
        env_sim_pause(world.sick.env);
        expect_well(&world);
        const struct yolk_transfer_result result =
            end_of(&world, batch, (FENCE_MS * 2) * ENV_NS_PER_MS);
        assert_int_equal(result.state, YOLK_TRANSFER_TIMEOUT);
        assert_true(result.bytes < SIZE);
        memset(world.sick.memory, 0x5a, SIZE);
        env_sim_resume(world.sick.env);
        env_sim_run_for(world.sim, 10 * ENV_NS_PER_S);
        assert_true(memcmp(world.sick.memory, world.sick.memory + 1, SIZE - 1) == 0);
        batch = begin(&world, (enum yolk_transfer_opcode)opcode, SICK, &world.sick, 0);
        assert_int_equal(end_of(&world, batch, 10 * ENV_NS_PER_S).state, YOLK_TRANSFER_COMPLETED);
        world_close(&world);
    }
}

/* Neither end hears that the other has gone: what is open on one side only goes with its lease. */
static void half_open_connections_end(void **state)
{
    (void)state;
    struct world world;

    world_open(&world, true);
    struct yolk_transfer_batch batch = begin(&world, YOLK_TRANSFER_WRITE, SICK, &world.sick, 0);
    assert_int_equal(end_of(&world, batch, ENV_NS_PER_S).state, YOLK_TRANSFER_COMPLETED);
    assert_true(lanes_of(&world.sick) > 0);
    batch = begin(&world, YOLK_TRANSFER_WRITE, SICK, &world.sick, 0);
    env_sim_partition(world.sim, "10.0.0.1", "10.0.0.2");
    expect_well(&world);
    const enum yolk_transfer_state state_then = end_of(&world, batch, LIMIT_NS).state;
    assert_true(state_then == YOLK_TRANSFER_FAILED || state_then == YOLK_TRANSFER_TIMEOUT);
    env_sim_run_for(world.sim, 4 * FENCE_MS * ENV_NS_PER_MS);
    assert_int_equal(lanes_of(&world.sick), 0);
    env_sim_heal(world.sim, "10.0.0.1", "10.0.0.2");
    batch = begin(&world, YOLK_TRANSFER_WRITE, SICK, &world.sick, 0);
    assert_int_equal(end_of(&world, batch, 10 * ENV_NS_PER_S).state, YOLK_TRANSFER_COMPLETED);
    world_close(&world);
}

/* ---- no connection to be had ---- */

static void nothing_accepted(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

/* On the real body, whose limit of streams stands for ports, or descriptors, that have run out. */
static void no_connection_to_be_had(void **state)
{
    (void)state;
    enum { STREAMS = 4 };
    const struct env_real_options few = { .streams_max = STREAMS };
    const struct yolk_transfer_options options = { .forbid_shm = true };
    struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE, .length = 4096 };
    struct yolk_transfer_result result = { 0 };
    struct yolk_transfer *transfer, *other;
    struct env_listener *taken[STREAMS];
    struct yolk_transfer_batch batch;
    struct env *env, *there;
    uint32_t count = 0;
    void *memory;

    assert_int_equal(env_real_create(&few, &env, NULL), STATUS_OK);
    assert_int_equal(env_real_create(NULL, &there, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(env, &options, &transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_create(there, &options, &other, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(transfer, 4096, 0, &memory, NULL), STATUS_OK);
    request.local = memory;
    assert_int_equal(yolk_transfer_alloc(other, 4096, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
                     STATUS_OK);
    request.remote = (uintptr_t)memory;
    while (env_listen(env, "127.0.0.1:0", nothing_accepted, NULL, &taken[count], NULL) == STATUS_OK)
        count++;
    for (int round = 0; round < 2; round++) { /* without, and again with connections */
        assert_int_equal(yolk_transfer_open(transfer, yolk_transfer_name(other), &request.segment),
                         STATUS_OK);
        request.deadline_ns = round == 0 ? env_now_ns(env) + ENV_NS_PER_S / 5 : 0;
        assert_int_equal(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch), STATUS_OK);
        assert_int_equal(yolk_transfer_submit(transfer, batch, &request, 1), STATUS_OK);
        do {
            env_poll(env, ENV_NS_PER_MS);
            env_poll(there, 0);
            assert_int_equal(yolk_transfer_poll(transfer, batch, 0, &result), STATUS_OK);
        } while (result.state < YOLK_TRANSFER_INVALID);
        if (round == 1) break;
        assert_true(result.state == YOLK_TRANSFER_FAILED || result.state == YOLK_TRANSFER_TIMEOUT);
        assert_int_equal(result.bytes, 0);
        while (count > 0)
            env_listener_close(taken[--count]);
    }
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    yolk_transfer_destroy(transfer);
    yolk_transfer_destroy(other);
    env_real_destroy(env);
    env_real_destroy(there);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_that_never_greets),     cmocka_unit_test(a_port_of_another_version),
        cmocka_unit_test(connections_that_never_speak), cmocka_unit_test(a_peer_that_stops_reading),
        cmocka_unit_test(half_open_connections_end),    cmocka_unit_test(no_connection_to_be_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
