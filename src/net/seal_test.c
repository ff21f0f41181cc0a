/* SPDX-License-Identifier: Apache-2.0
 *
 * net/seal_test.c
 *
 * Goal:   an encrypted stream gives what was put in, byte by byte, whatever the stream under it
 *         does; and of what somebody in between made of it, nothing.
 * Method: both ends in a simulated world of short reads and writes, random texts against the bytes
 *         that were sent, with keys changed every few records; then records that were collected
 *         from the wire are flipped, cut, dropped, repeated, exchanged, taken from another
 *         connection or from the other direction. `SEED=n` replays. */
#include "net/seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_sim.h"
#include "base/rng.h"
#include "seed.h"

enum { RECORDS = 8, RECORD = 1000, WIRE_MAX = 64 << 10, STREAM_SIZE = 3 << 20, WALKS = 6 };

struct world {
    struct env_sim *sim;
    struct env *env[2];
    struct env_listener *listener;
    struct env_stream *accepted;
};

static void on_accept(void *ctx, struct env_stream *stream)
{
    struct world *world = ctx;
    world->accepted = stream;
}

static void world_open(struct world *world, const struct env_sim_options *options)
{
    *world = (struct world){ .sim = env_sim_create(options) };
    world->env[0] = env_sim_add(world->sim, "10.0.0.1");
    world->env[1] = env_sim_add(world->sim, "10.0.0.2");
    assert_int_equal(
        env_listen(world->env[1], "10.0.0.2:7", on_accept, world, &world->listener, NULL),
        STATUS_OK);
}

static void world_close(struct world *world)
{
    env_listener_close(world->listener);
    env_sim_destroy(world->sim);
}

static bool was_accepted(void *ctx)
{
    return ((struct world *)ctx)->accepted != NULL;
}

static void streams_open(struct world *world, struct env_stream *ends[2])
{
    world->accepted = NULL;
    assert_int_equal(env_connect(world->env[0], "10.0.0.2:7", &ends[0], NULL), STATUS_OK);
    assert_true(env_sim_run_until(world->sim, was_accepted, world, ENV_NS_PER_S));
    env_sim_run_for(world->sim, ENV_NS_PER_MS); /* the connecting side knows, too */
    ends[1] = world->accepted;
}

static struct seal *seal_new(bool initiator, enum aead_cipher cipher, const char *secret,
                             const char *salt, const char *context)
{
    const struct seal_options options = { .cipher = cipher,
                                          .initiator = initiator,
                                          .secret = secret,
                                          .salt = salt,
                                          .salt_len = strlen(salt),
                                          .context = context,
                                          .context_len = strlen(context),
                                          .rekey_records = 3 };
    struct seal *seal;

    assert_int_equal(seal_create(&options, &seal), STATUS_OK);
    return seal;
}

/* ---- whatever the stream does ---- */

struct flow {
    struct seal *out, *in;
    struct env_stream *to, *from;
    uint8_t *bytes; /* STREAM_SIZE of them are sent */
    size_t sent, got;
};

static void flow_send(struct flow *flow, struct rng *rng)
{
    struct iovec iov[5];
    size_t at = flow->sent, n = 0;
    int count = 0;

    while (count < 5 && at < STREAM_SIZE) {
        const size_t max = rng_below(rng, 3) == 0 ? 100 << 10 : 200;
        size_t len = (size_t)rng_between(rng, 1, max);
        if (len > STREAM_SIZE - at) len = STREAM_SIZE - at;
        iov[count++] = (struct iovec){ flow->bytes + at, len };
        at += len;
    }
    const enum status status = count > 0 ? seal_writev(flow->out, flow->to, iov, count, &n)
                                         : seal_flush(flow->out, flow->to);
    if (status == STATUS_AGAIN) return;
    assert_int_equal(status, STATUS_OK);
    assert_true(n <= at - flow->sent && (n > 0 || count == 0));
    flow->sent += n;
}

static void flow_receive(struct flow *flow)
{
    uint8_t buf[SEAL_RECORD_SIZE];
    size_t n = 0;
    const enum status status = seal_read(flow->in, flow->from, buf, &n);

    if (status == STATUS_AGAIN) {
        assert_false(seal_waiting(flow->in));
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 0 && n <= SEAL_RECORD_SIZE && flow->got + n <= flow->sent);
    assert_memory_equal(buf, flow->bytes + flow->got, n);
    flow->got += n;
}

static void walk(uint64_t seed)
{
    struct env_sim_options options = { .seed = seed, .buggify_ppm = 100000 };
    struct env_stream *ends[2];
    struct flow flows[2];
    struct world world;
    struct rng rng;

    rng_init(&rng, seed);
    options.stream_buffer_size = 3000u << rng_below(&rng, 7);
    world_open(&world, &options);
    streams_open(&world, ends);
    const enum aead_cipher cipher =
        rng_below(&rng, 2) == 0 ? AEAD_AES_256_GCM : AEAD_CHACHA20_POLY1305;
    struct seal *seals[2] = { seal_new(true, cipher, "s", "salt", "hello"),
                              seal_new(false, cipher, "s", "salt", "hello") };
    for (int i = 0; i < 2; i++) {
        flows[i] = (struct flow){ .out = seals[i],
                                  .in = seals[1 - i],
                                  .to = ends[i],
                                  .from = ends[1 - i],
                                  .bytes = malloc(STREAM_SIZE) };
        assert_non_null(flows[i].bytes);
        rng_fill(&rng, flows[i].bytes, STREAM_SIZE);
    }
    while (flows[0].got < STREAM_SIZE || flows[1].got < STREAM_SIZE) {
        struct flow *flow = &flows[rng_below(&rng, 2)];
        if (rng_below(&rng, 2) == 0) {
            flow_send(flow, &rng);
        } else {
            flow_receive(flow);
        }
        env_sim_run_for(world.sim, rng_below(&rng, 200 * ENV_NS_PER_US));
    }
    for (int i = 0; i < 2; i++) {
        free(flows[i].bytes);
        seal_destroy(seals[i]);
        env_stream_close(ends[i]);
    }
    world_close(&world);
}

static void what_goes_in_comes_out(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();

    for (uint64_t i = 0; i < WALKS; i++)
        walk(seed + i);
}

/* ---- somebody in between ---- */

/* What went over the wire: RECORDS of RECORD bytes each. */
struct tape {
    uint8_t texts[RECORDS * RECORD];
    uint8_t wire[WIRE_MAX];
    size_t len;
};

enum { ON_WIRE = RECORD + SEAL_OVERHEAD };

static void read_raw(struct world *world, struct env_stream *stream, uint8_t *out, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t n = 0;
        const enum status status = env_stream_read(stream, out + at, len - at, &n);
        assert_true(status == STATUS_OK || status == STATUS_AGAIN);
        at += n;
        env_sim_run_for(world->sim, ENV_NS_PER_MS);
    }
}

static void tape_record(struct world *world, struct seal *seal, struct tape *tape)
{
    struct env_stream *ends[2];

    streams_open(world, ends);
    for (size_t i = 0; i < RECORDS; i++) {
        uint8_t *text = tape->texts + i * RECORD;
        const struct iovec iov = { text, RECORD };
        size_t n = 0;
        memset(text, 'a' + (int)i, RECORD);
        assert_int_equal(seal_writev(seal, ends[0], &iov, 1, &n), STATUS_OK);
        assert_int_equal(n, RECORD);
    }
    assert_int_equal(seal_flush(seal, ends[0]), STATUS_OK);
    tape->len = RECORDS * ON_WIRE;
    read_raw(world, ends[1], tape->wire, tape->len);
    env_stream_close(ends[0]);
    env_stream_close(ends[1]);
}

static void tape_make(struct world *world, const char *salt, struct tape *tape)
{
    struct seal *sender = seal_new(true, AEAD_AES_256_GCM, "s", salt, "hello");

    tape_record(world, sender, tape);
    seal_destroy(sender);
}

/* Plays it to another end; how many records opened, and why no more did. */
static size_t tape_play(struct world *world, struct seal *seal, const struct tape *tape,
                        const uint8_t *wire, size_t len, enum status *why)
{
    static uint8_t buf[SEAL_RECORD_SIZE];
    struct env_stream *ends[2];
    size_t opened = 0, n = 0;
    const struct iovec iov = { (void *)(uintptr_t)wire, len };

    streams_open(world, ends);
    assert_int_equal(env_stream_writev(ends[0], &iov, 1, &n), STATUS_OK);
    assert_int_equal(n, len);
    env_stream_close(ends[0]);
    env_sim_run_for(world->sim, 10 * ENV_NS_PER_MS);
    for (;;) {
        *why = seal_read(seal, ends[1], buf, &n);
        if (*why == STATUS_AGAIN) env_sim_run_for(world->sim, ENV_NS_PER_MS);
        if (*why == STATUS_AGAIN) continue;
        if (*why != STATUS_OK) break;
        assert_int_equal(n, RECORD);
        assert_memory_equal(buf, tape->texts + opened * RECORD, RECORD);
        opened++;
    }
    env_stream_close(ends[1]);
    if (*why != STATUS_CONN_CLOSED) { /* it stays so, though there is no stream */
        assert_int_equal(seal_read(seal, NULL, buf, &n), *why);
    }
    seal_destroy(seal);
    return opened;
}

static struct seal *target(const char *secret, const char *salt, const char *context)
{
    return seal_new(false, AEAD_AES_256_GCM, secret, salt, context);
}

static void tampering_is_found(void **state)
{
    (void)state;
    static struct tape tape, changed;
    struct world world;
    enum status why;
    const struct env_sim_options calm = { .seed = 1 };

    world_open(&world, &calm);
    tape_make(&world, "salt", &tape);

    /* As it was. */
    assert_int_equal(
        tape_play(&world, target("s", "salt", "hello"), &tape, tape.wire, tape.len, &why), RECORDS);
    assert_int_equal(why, STATUS_CONN_CLOSED);

    /* A bit of each byte of one record: of its length (too long, too short, not there yet), its
     * text, its tag. */
    for (size_t byte = 2 * ON_WIRE; byte < 3 * ON_WIRE; byte += byte < 2 * ON_WIRE + 8 ? 1 : 61) {
        changed = tape;
        changed.wire[byte] ^= 0x10;
        assert_int_equal(
            tape_play(&world, target("s", "salt", "hello"), &tape, changed.wire, tape.len, &why),
            2);
        assert_int_not_equal(why, STATUS_OK);
        if (byte >= 2 * ON_WIRE + SEAL_HEAD_SIZE) assert_int_equal(why, STATUS_CORRUPT);
    }

    /* Cut, in the middle of a record. */
    assert_int_equal(
        tape_play(&world, target("s", "salt", "hello"), &tape, tape.wire, 3 * ON_WIRE - 1, &why),
        2);
    assert_int_equal(why, STATUS_CONN_CLOSED);

    /* The third one left out; repeated; exchanged with the fourth. */
    changed = tape;
    memmove(changed.wire + 2 * ON_WIRE, tape.wire + 3 * ON_WIRE, 5 * ON_WIRE);
    assert_int_equal(
        tape_play(&world, target("s", "salt", "hello"), &tape, changed.wire, 7 * ON_WIRE, &why), 2);
    assert_int_equal(why, STATUS_CORRUPT);
    changed = tape;
    memcpy(changed.wire + 3 * ON_WIRE, tape.wire + 2 * ON_WIRE, ON_WIRE);
    assert_int_equal(
        tape_play(&world, target("s", "salt", "hello"), &tape, changed.wire, tape.len, &why), 3);
    assert_int_equal(why, STATUS_CORRUPT);
    changed = tape;
    memcpy(changed.wire + 2 * ON_WIRE, tape.wire + 3 * ON_WIRE, ON_WIRE);
    memcpy(changed.wire + 3 * ON_WIRE, tape.wire + 2 * ON_WIRE, ON_WIRE);
    assert_int_equal(
        tape_play(&world, target("s", "salt", "hello"), &tape, changed.wire, tape.len, &why), 2);
    assert_int_equal(why, STATUS_CORRUPT);
    world_close(&world);
}

static void nobody_else_can_open_it(void **state)
{
    (void)state;
    static struct tape tape;
    struct world world;
    enum status why;
    const struct env_sim_options calm = { .seed = 1 };

    world_open(&world, &calm);
    tape_make(&world, "salt", &tape);
    struct seal *const others[] = {
        target("S", "salt", "hello"),                           /* another secret */
        target("s", "salz", "hello"),                           /* another connection */
        target("s", "salt", "hallo"),                           /* another greeting */
        seal_new(true, AEAD_AES_256_GCM, "s", "salt", "hello"), /* reflected to its sender */
        seal_new(false, AEAD_CHACHA20_POLY1305, "s", "salt", "hello"),
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(tape_play(&world, others[i], &tape, tape.wire, tape.len, &why), 0);
        assert_int_equal(why, STATUS_CORRUPT);
    }
    world_close(&world);
}

static void equal_texts_look_different(void **state)
{
    (void)state;
    static struct tape tapes[2];
    struct world world;
    const struct env_sim_options calm = { .seed = 1 };

    world_open(&world, &calm);
    tape_make(&world, "salt", &tapes[0]);
    tape_make(&world, "pepper", &tapes[1]);
    for (int i = 0; i < RECORDS; i++) {
        const uint8_t *a = tapes[0].wire + i * ON_WIRE + SEAL_HEAD_SIZE;
        assert_memory_not_equal(a, tapes[1].wire + i * ON_WIRE + SEAL_HEAD_SIZE, RECORD);
        if (i > 0) assert_memory_not_equal(a, tapes[0].wire + SEAL_HEAD_SIZE, 32);
    }
    world_close(&world);
}

static void what_came_with_the_greeting_counts(void **state)
{
    (void)state;
    static struct tape tape;
    static uint8_t flood[SEAL_BUFFER_SIZE + 1], buf[SEAL_RECORD_SIZE];
    struct world world;
    size_t n;
    const struct env_sim_options calm = { .seed = 1 };

    world_open(&world, &calm);
    tape_make(&world, "salt", &tape);
    struct seal *seal = target("s", "salt", "hello");
    assert_false(seal_waiting(seal));
    assert_int_equal(seal_feed(seal, tape.wire, 10), STATUS_OK);
    assert_false(seal_waiting(seal));
    assert_int_equal(seal_feed(seal, tape.wire + 10, 2 * ON_WIRE - 10), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        assert_true(seal_waiting(seal));
        assert_int_equal(seal_read(seal, NULL, buf, &n), STATUS_OK);
        assert_memory_equal(buf, tape.texts + i * RECORD, RECORD);
    }
    assert_false(seal_waiting(seal));
    seal_destroy(seal);
    seal = target("s", "salt", "hello");
    assert_int_equal(seal_feed(seal, flood, sizeof(flood)), STATUS_PROTOCOL);
    seal_destroy(seal);
    world_close(&world);
}

int main(void)
{
    if (!aead_available()) {
        printf("skipped: libcrypto.so.3 is not installed\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(tampering_is_found),
        cmocka_unit_test(nobody_else_can_open_it),
        cmocka_unit_test(equal_texts_look_different),
        cmocka_unit_test(what_came_with_the_greeting_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
