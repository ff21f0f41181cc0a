/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_pin_test.c
 *
 * Goal:   an owner is asked once for all that fits one exchange, and told once that it is over;
 *         every ask is answered once, in order, with what its owner has; what an owner says that
 *         makes no sense, or an owner of before that never heard of inline values, is got along
 *         with.
 * Method: two owners made of a bare RPC server in a simulated world, which count what they are
 *         asked. A value's size is a function of its number, and its sums and bytes of both; a
 *         random walk asks for random ones and compares every answer with that model. */
#include "store/client_pin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/rng.h"
#include "net/rpc.h"
#include "store/proto.h"
#include "seed.h"

enum {
    OWNERS = 2,
    ASKS = 64,
    VALUES = 40,
    SMALL_MAX = 20000, /* bytes of a value that may be asked for inline */
    LEASE_MS = 900,
    WALKS = 200,
};

/* What an owner does to its answers. */
enum whim { SANE, OLD, NO_PIN, TOO_FEW, WRONG_SUMS, PIECES_OF_NOTHING, REFUSES, WHIMS };

struct owner {
    struct env *env;
    struct rpc_server *server;
    struct rpc_client *client; /* ours, to it */
    enum whim whim;
    uint64_t pins; /* of it that are held, a bit each */
    uint32_t acquires, releases, renewals;
    uint32_t most; /* values asked for at once */
};

struct asking {
    struct pin_ask ask;
    unsigned value;
    struct owner *owner;
    bool answered;
    uint32_t order; /* of the answer */
    struct pin_answer answer;
    struct client_pin *pin;
};

static struct env_sim *sim;
static struct env *env;
static struct owner owners[OWNERS];
static struct asking askings[ASKS];
static uint32_t answered;

/* ---- the model ---- */

/* Every fifth is not there. */
static bool value_there(unsigned value)
{
    return value % 5 != 4;
}

static uint64_t value_size(unsigned value)
{
    return value % 3 == 0 ? 1 + value : 1 + rng_counter(7, value) % 200000;
}

static uint64_t value_sum(unsigned value, uint64_t piece)
{
    return rng_counter(value, piece);
}

static const uint8_t *value_bytes(unsigned value)
{
    static uint8_t bytes[VALUES][SMALL_MAX];
    struct rng rng;
    rng_init(&rng, value);
    rng_fill(&rng, bytes[value], SMALL_MAX);
    return bytes[value];
}

static struct block_key value_id(unsigned value)
{
    struct block_key id = { { 0 } };
    memcpy(id.bytes, &value, sizeof(value));
    return id;
}

/* ---- an owner ---- */

static void on_acquire(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    static uint64_t addresses[ASKS], sizes[ASKS], sums[ASKS * 8];
    static uint32_t inlines[ASKS];
    struct owner *owner = ctx;
    struct store_acquire request;
    struct store_acquired_out reply = {
        .head = { .lease_ms = LEASE_MS, .piece_size = STORE_PIECE_SIZE, .segment = "s" },
        .addresses = addresses,
        .generations = addresses,
        .sizes = sizes,
        .sums = sums,
        .inlines = inlines
    };
    struct buf buf;

    assert_int_equal(store_decode_acquire(body, len, &request), STATUS_OK);
    assert_true(request.count <= ASKS && request.class == STORE_CLASS_OBJECT);
    owner->acquires++;
    if (request.count > owner->most) owner->most = request.count;
    if (owner->whim == REFUSES) {
        rpc_fail(call, STATUS_FULL, "no");
        return;
    }
    reply.count = request.count;
    for (uint32_t i = 0; i < request.count; i++) {
        unsigned value;
        memcpy(&value, request.ids + (size_t)i * BLOCK_KEY_SIZE, sizeof(value));
        addresses[i] = sizes[i] = inlines[i] = 0;
        if (!value_there(value)) continue;
        addresses[i] = (uint64_t)(uintptr_t)value_bytes(value);
        sizes[i] = value_size(value);
        if (sizes[i] <= request.inline_max && owner->whim != OLD) inlines[i] = (uint32_t)sizes[i];
        reply.inline_len += inlines[i];
        for (uint64_t p = 0; p < store_pieces(sizes[i], STORE_PIECE_SIZE); p++)
            sums[reply.sums_count++] = value_sum(value, p);
        if (inlines[i] == 0 && (!request.look || owner->whim == OLD)) reply.head.pin = 1;
    }
    if (reply.head.pin != 0) {
        unsigned bit = 0;
        while (owner->pins >> bit & 1)
            bit++;
        assert_true(bit < 64);
        owner->pins |= UINT64_C(1) << bit;
        reply.head.pin = bit + 1;
    }
    if (owner->whim == NO_PIN) reply.head.pin = 0;
    if (owner->whim == WRONG_SUMS) reply.sums_count++;
    if (owner->whim == PIECES_OF_NOTHING) reply.head.piece_size = 0;
    if (owner->whim == TOO_FEW) reply.count--;
    if (owner->whim == TOO_FEW) reply.inline_len = 0;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    assert_int_equal(store_encode_acquired(&buf, &reply), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static void on_release(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct owner *owner = ctx;
    uint64_t pin;
    assert_int_equal(store_decode_pin(body, len, &pin), STATUS_OK);
    assert_true(pin >= 1 && (owner->pins >> (pin - 1) & 1)); /* held, and told once */
    owner->pins &= ~(UINT64_C(1) << (pin - 1));
    owner->releases++;
    rpc_reply(call, NULL, 0);
}

static void on_renewal(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct owner *owner = ctx;
    uint64_t pin;
    assert_int_equal(store_decode_pin(body, len, &pin), STATUS_OK);
    assert_true(pin >= 1 && (owner->pins >> (pin - 1) & 1));
    owner->renewals++;
    rpc_reply(call, NULL, 0);
}

static void owner_start(struct owner *owner, const char *host)
{
    char address[64];
    memset(owner, 0, sizeof(*owner));
    owner->env = env_sim_add(sim, host);
    snprintf(address, sizeof(address), "%s:7100", host);
    const struct rpc_server_options server = { .address = address, .secret = "s", .name = "o" };
    const struct rpc_client_options client = { .address = address, .secret = "s", .name = "c" };
    assert_int_equal(rpc_server_create(owner->env, &server, &owner->server, NULL), STATUS_OK);
    rpc_server_add(owner->server, STORE_METHOD_ACQUIRE, "store.acquire", on_acquire, owner);
    rpc_server_add(owner->server, STORE_METHOD_RELEASE, "store.release", on_release, owner);
    rpc_server_add(owner->server, STORE_METHOD_RENEW, "store.renew", on_renewal, owner);
    assert_int_equal(rpc_client_create(env, &client, &owner->client, NULL), STATUS_OK);
}

static int setup(void **state)
{
    const struct env_sim_options options = { .seed = test_seed() };
    (void)state;
    sim = env_sim_create(&options);
    env = env_sim_add(sim, "10.0.0.9");
    owner_start(&owners[0], "10.0.0.1");
    owner_start(&owners[1], "10.0.0.2");
    answered = 0;
    env_sim_run_for(sim, ENV_NS_PER_S);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < OWNERS; i++) {
        rpc_client_destroy(owners[i].client);
        rpc_server_destroy(owners[i].server);
    }
    env_sim_destroy(sim);
    return 0;
}

/* ---- asking ---- */

static void check_value(const struct asking *asking, const struct pin_answer *answer)
{
    const unsigned value = asking->value;
    const uint64_t size = value_size(value);

    assert_int_equal(answer->size, size);
    assert_int_equal(answer->piece_size, STORE_PIECE_SIZE);
    assert_int_equal(answer->sums.count, store_pieces(size, STORE_PIECE_SIZE));
    for (uint32_t p = 0; p < answer->sums.count; p++)
        assert_int_equal(msg_u64_at(answer->sums, p), value_sum(value, p));
    assert_true((answer->bytes == NULL && !asking->ask.look) == (answer->pin != NULL));
    if (answer->bytes != NULL) assert_memory_equal(answer->bytes, value_bytes(value), size);
}

static void on_answer(void *ctx, const struct pin_answer *answer)
{
    struct asking *asking = ctx;
    assert_false(asking->answered);
    asking->answered = true;
    asking->answer = *answer;
    asking->pin = answer->pin;
    if (answer->status == STATUS_OK) check_value(asking, answer);
    asking->order = answered++;
}

static void ask_for(struct pin_asks *asks, unsigned i, struct owner *owner, unsigned value,
                    bool alone)
{
    askings[i] = (struct asking){ .value = value, .owner = owner };
    askings[i].ask = (struct pin_ask){ .owner = owner->client,
                                       .id = value_id(value),
                                       .size = value_size(value),
                                       .alone = alone,
                                       .on_answer = on_answer,
                                       .ctx = &askings[i] };
    pin_asks_add(asks, &askings[i].ask);
}

/* Sends all; how many exchanges that took. */
static uint32_t send_all(struct pin_asks *asks, uint32_t inline_max)
{
    const struct pin_terms terms = { .deadline_ns = env_now_ns(env) + ENV_NS_PER_S,
                                     .inline_max = inline_max };
    uint32_t exchanges = 0;
    uint32_t count;
    enum status why;

    for (; asks->first != NULL; exchanges++)
        assert_null(pin_asks_send(asks, env, &terms, &count, &why));
    return exchanges;
}

static void run(void)
{
    env_sim_run_for(sim, 100 * ENV_NS_PER_MS);
}

static void many_values_take_one_exchange_with_each_owner(void **state)
{
    struct pin_asks asks = { 0 };
    (void)state;

    for (unsigned i = 0; i < 16; i++)
        ask_for(&asks, i, &owners[i % 2], i, false);
    assert_int_equal(send_all(&asks, 0), 2);
    run();
    assert_int_equal(answered, 16);
    for (unsigned i = 0; i < OWNERS; i++) {
        assert_int_equal(owners[i].acquires, 1);
        assert_int_equal(owners[i].most, 8);
        assert_int_equal(owners[i].pins, 1);
    }
    for (unsigned i = 0; i < 16; i++) {
        /* Among others a value that is missing is to be asked for alone. */
        assert_int_equal(askings[i].answer.status, value_there(i) ? STATUS_OK : STATUS_AGAIN);
        if (i >= 2) assert_true(askings[i].order > askings[i - 2].order);
        run();
        assert_int_equal(owners[i % 2].releases, 0); /* the last one ends it */
        if (askings[i].pin != NULL && i < 12) client_pin_unref(askings[i].pin);
    }
    env_sim_run_for(sim, 3 * LEASE_MS * ENV_NS_PER_MS);
    assert_true(owners[0].renewals >= 8 && owners[1].renewals >= 8); /* three a lease */
    for (unsigned i = 12; i < 16; i++)
        if (askings[i].pin != NULL) client_pin_unref(askings[i].pin);
    run();
    for (unsigned i = 0; i < OWNERS; i++)
        assert_true(owners[i].releases == 1 && owners[i].pins == 0);
    const uint32_t renewals = owners[0].renewals;
    env_sim_run_for(sim, 3 * LEASE_MS * ENV_NS_PER_MS);
    assert_int_equal(owners[0].renewals, renewals);
}

/* Nothing is pinned for who only looks; what an owner of before pins all the same is released. */
static void who_looks_pins_nothing(void **state)
{
    struct pin_asks asks = { 0 };
    (void)state;

    owners[1].whim = OLD;
    for (unsigned i = 0; i < 12; i++) {
        ask_for(&asks, i, &owners[i % 2], i, false);
        askings[i].ask.look = i < 8;
    }
    assert_int_equal(send_all(&asks, 0), 4); /* they do not share an exchange with others */
    run();
    assert_int_equal(answered, 12);
    for (unsigned i = 0; i < 12; i++) {
        const bool there = value_there(i);
        assert_int_equal(askings[i].answer.status, there ? STATUS_OK : STATUS_AGAIN);
        assert_true((askings[i].pin != NULL) == (there && i >= 8));
        if (askings[i].pin != NULL) client_pin_unref(askings[i].pin);
    }
    run();
    assert_true(owners[0].pins == 0 && owners[0].releases == 1);
    assert_true(owners[1].pins == 0 && owners[1].releases == 2);
}

static void a_value_that_is_not_there_alone_is_not_there(void **state)
{
    struct pin_asks asks = { 0 };
    (void)state;

    ask_for(&asks, 0, &owners[0], 4, true);
    ask_for(&asks, 1, &owners[0], 1, false);
    ask_for(&asks, 2, &owners[0], 9, true);
    ask_for(&asks, 3, &owners[0], 2, false);
    assert_int_equal(send_all(&asks, 0), 3);
    run();
    assert_int_equal(askings[0].answer.status, STATUS_NOT_FOUND);
    assert_int_equal(askings[2].answer.status, STATUS_NOT_FOUND);
    assert_ptr_equal(askings[1].pin, askings[3].pin);
    client_pin_unref(askings[1].pin);
    client_pin_unref(askings[3].pin);
    run();
    assert_int_equal(owners[0].pins, 0);
}

/* Inline is what is little in all; of many bytes the owner is asked twice. */
static void exchanges_are_bounded(void **state)
{
    struct pin_asks asks = { 0 };
    const uint32_t size = PIN_INLINE_MAX / 8;
    (void)state;

    for (uint32_t count = 8; count <= 9; count++) {
        for (unsigned i = 0; i < count; i++) {
            ask_for(&asks, i, &owners[0], 0, false);
            askings[i].ask.size = size;
        }
        assert_int_equal(send_all(&asks, size), 1);
        run();
        for (unsigned i = 0; i < count; i++) {
            assert_true((askings[i].pin == NULL) == (count == 8));
            if (askings[i].pin != NULL) client_pin_unref(askings[i].pin);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        ask_for(&asks, i, &owners[1], 0, false);
        askings[i].ask.size = i == 1 ? UINT64_MAX : PIN_BYTES_MAX / 2;
    }
    assert_int_equal(send_all(&asks, 0), 3); /* 0 and 2, 1, 3 */
    run();
    for (unsigned i = 0; i < 4; i++)
        client_pin_unref(askings[i].pin);
    run();
    assert_int_equal(owners[1].pins, 0);
}

static void answers_without_sense_are_refused(void **state)
{
    (void)state;

    for (enum whim whim = SANE; whim < WHIMS; whim++) {
        struct pin_asks asks = { 0 };
        const bool good = whim == SANE || whim == OLD;
        owners[0].whim = whim;
        for (unsigned i = 0; i < 6; i++)
            ask_for(&asks, i, &owners[0], i, false);
        assert_int_equal(send_all(&asks, 100), 1);
        run();
        for (unsigned i = 0; i < 6; i++) {
            const enum status status = askings[i].answer.status;
            assert_true(askings[i].answered);
            if (value_there(i)) assert_true((status == STATUS_OK) == good);
            if (whim == OLD && value_there(i)) assert_non_null(askings[i].pin);
            if (askings[i].pin != NULL) client_pin_unref(askings[i].pin);
        }
        run();
        if (whim != NO_PIN) assert_int_equal(owners[0].pins, 0); /* released all the same */
        owners[0].pins = 0;
    }
}

static void an_owner_that_cannot_be_asked_returns_the_asks(void **state)
{
    const struct rpc_client_options options = {
        .address = "10.0.0.1:7100", .secret = "s", .name = "c", .calls_max = 1
    };
    struct pin_asks asks = { 0 };
    struct pin_terms terms = { .deadline_ns = env_now_ns(env) + ENV_NS_PER_S };
    uint32_t count;
    enum status why;
    (void)state;

    rpc_client_destroy(owners[0].client);
    assert_int_equal(rpc_client_create(env, &options, &owners[0].client, NULL), STATUS_OK);
    ask_for(&asks, 0, &owners[0], 3, true);
    ask_for(&asks, 1, &owners[0], 1, false);
    ask_for(&asks, 2, &owners[1], 1, false);
    ask_for(&asks, 3, &owners[0], 2, false);
    assert_null(pin_asks_send(&asks, env, &terms, &count, &why));
    const struct pin_ask *back = pin_asks_send(&asks, env, &terms, &count, &why);
    assert_int_equal(why, STATUS_FULL);
    assert_int_equal(count, 2);
    assert_true(back == &askings[1].ask && back->next == &askings[3].ask);
    assert_null(back->next->next);
    assert_null(pin_asks_send(&asks, env, &terms, &count, &why));
    assert_null(asks.first);
    run();
    assert_true(askings[0].answered && askings[2].answered && answered == 2);
    client_pin_unref(askings[0].pin);
    client_pin_unref(askings[2].pin);
    run();
}

static void a_random_walk_agrees_with_the_model(void **state)
{
    struct rng rng;
    (void)state;

    rng_init(&rng, test_seed());
    for (unsigned walk = 0; walk < WALKS; walk++) {
        struct pin_asks asks = { 0 };
        const uint32_t count = 1 + (uint32_t)rng_below(&rng, ASKS);
        const uint32_t inlines[] = { 0, 50, SMALL_MAX };
        for (unsigned i = 0; i < OWNERS; i++)
            owners[i].whim = (enum whim)rng_below(&rng, 2);
        answered = 0;
        for (unsigned i = 0; i < count; i++) {
            ask_for(&asks, i, &owners[rng_below(&rng, OWNERS)], (unsigned)rng_below(&rng, VALUES),
                    rng_below(&rng, 8) == 0);
        }
        (void)send_all(&asks, inlines[rng_below(&rng, 3)]);
        env_sim_run_for(sim, rng_below(&rng, 400) * ENV_NS_PER_MS);
        run();
        assert_int_equal(answered, count);
        for (unsigned i = 0; i < count; i++) {
            assert_true((askings[i].answer.status == STATUS_OK) == value_there(askings[i].value));
            if (askings[i].pin != NULL) client_pin_unref(askings[i].pin);
        }
        run();
        assert_true(owners[0].pins == 0 && owners[1].pins == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_values_take_one_exchange_with_each_owner, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_looks_pins_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_value_that_is_not_there_alone_is_not_there, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(exchanges_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_without_sense_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_owner_that_cannot_be_asked_returns_the_asks, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_random_walk_agrees_with_the_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
