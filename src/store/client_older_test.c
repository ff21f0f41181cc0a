/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_older_test.c
 *
 * Goal:   today's client writes to and reads from an owner of the release before, which commits one
 *         value at a time, passes over that it only looks and never vouches: right bytes, nothing
 *         believed that the owner did not say, and no pin left behind; also when owners are
 *         updated, and taken back, while it runs. And of an owner of today, that what it says of
 *         one of many values is of that one.
 * Method: a simulated cluster of one node, behind a front that passes everything on, but takes from
 *         questions and answers what the release before does not know, by the numbers of the
 *         fields. Pins are counted at the front. That older readers are served by today's owner is
 *         tests/e2e/test_77_store.py. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "net/msg.h"
#include "net/rpc.h"
#include "seed.h"
#include "store/client_int.h"
#include "store/proto.h"
#include "yolk/store.h"

#define FRONT "10.0.3.1:7100"

enum {
    VALUES = 4,
    SIZE = 100000, /* of the largest, two pieces */
    METHODS = STORE_METHOD_COMMITS - STORE_METHOD_ACQUIRE + 1,
    /* What the release before does not know; frozen. */
    FIELD_LOOK = 6,
    FIELD_VOUCHED = 13,
    FIELD_PIN = 1,
};

struct front {
    struct env *env;
    struct rpc_server *server;
    struct rpc_client *owner;
    bool older;
    unsigned looks, pins, releases;
    unsigned commits, commits_of_many; /* messages */
    bool damages;                      /* the last sum of the next message of many */
    bool lies;                         /* answers such messages itself, about one value less */
    unsigned lies_told;
};

/* A call on its way through the front. */
struct relay {
    struct rpc_call *call;
    struct rpc_call_id id;
    bool acquire;
};

static struct sim_cluster cluster;
static struct front front;
static struct env *env;
static struct yolk_transfer *transfer;
static struct yolk_store *store;
static uint8_t *memory; /* VALUES times SIZE */
static uint32_t left;
static enum status last;

/* ---- the front ---- */

/* The message without this field, into an empty buffer. True: it had it. */
static bool without(const uint8_t *body, size_t len, uint64_t field, struct buf *out)
{
    struct msg_reader reader;
    struct msg_writer writer;
    struct buf rest;
    uint32_t kept = 0;
    uint64_t key;

    msg_reader_init(&reader, body, len);
    buf_init(&rest, RPC_BODY_SIZE_MAX);
    const uint32_t count = msg_get_map(&reader);
    uint32_t more = count;
    for (size_t from = reader.off; msg_next_key(&reader, &more, &key); from = reader.off) {
        msg_skip(&reader);
        if (key == field) continue;
        assert_int_equal(buf_append(&rest, body + from, reader.off - from), STATUS_OK);
        kept++;
    }
    assert_int_equal(msg_end(&reader), STATUS_OK);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, kept);
    assert_int_equal(buf_append(out, buf_data(&rest), rest.len), STATUS_OK);
    buf_fini(&rest);
    return kept < count;
}

static uint64_t pin_of(const uint8_t *body, size_t len)
{
    struct msg_reader reader;
    uint64_t key;
    msg_reader_init(&reader, body, len);
    for (uint32_t more = msg_get_map(&reader); msg_next_key(&reader, &more, &key);) {
        if (key == FIELD_PIN) return msg_get_u64(&reader);
        msg_skip(&reader);
    }
    return 0;
}

static void on_relay_item(void *ctx, const uint8_t *body, size_t len)
{
    const struct relay *relay = ctx;
    assert_int_equal(rpc_send(relay->call, body, len), STATUS_OK);
}

static void on_relay_end(void *ctx, const struct rpc_result *result)
{
    struct relay *relay = ctx;
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (result->status != STATUS_OK) {
        rpc_fail(relay->call, result->status, result->message);
    } else if (relay->acquire && front.older) {
        front.pins += pin_of(result->body, result->len) != 0;
        without(result->body, result->len, FIELD_VOUCHED, &buf);
        rpc_reply(relay->call, buf_data(&buf), buf.len);
    } else {
        front.pins += relay->acquire && pin_of(result->body, result->len) != 0;
        rpc_reply(relay->call, result->body, result->len);
    }
    buf_fini(&buf);
    free(relay);
}

static void on_relay_cancel(void *ctx, enum status why)
{
    const struct relay *relay = ctx;
    (void)why;
    rpc_cancel(front.owner, relay->id);
}

/* The message, with the last value's sum changed. */
static void damage(const uint8_t *body, size_t len, struct buf *out)
{
    struct store_commits commits;
    struct store_commits_iter iter = { 0 };
    struct store_commit messages[VALUES];
    uint64_t sums[VALUES][2];

    assert_int_equal(store_decode_commits(body, len, &commits), STATUS_OK);
    assert_in_range(commits.count, 2, VALUES);
    for (unsigned i = 0; i < commits.count; i++) {
        assert_true(store_commits_next(&commits, &iter, &messages[i]));
        assert_in_range(messages[i].sums.count, 1, 2);
        for (unsigned k = 0; k < messages[i].sums.count; k++)
            sums[i][k] = msg_u64_at(messages[i].sums, k);
        messages[i].sums_data = sums[i];
    }
    sums[commits.count - 1][0]++;
    assert_int_equal(store_encode_commits(out, messages, commits.count), STATUS_OK);
}

/* Says that all is done, and has done nothing. */
static void lie(struct rpc_call *call, const uint8_t *body, size_t len)
{
    const uint32_t ok[VALUES] = { 0 };
    struct store_commits commits;
    struct buf buf;

    assert_int_equal(store_decode_commits(body, len, &commits), STATUS_OK);
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    assert_int_equal(store_encode_statuses(&buf, ok, commits.count - 1), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
    front.lies_told++;
}

static void on_any(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    const uint16_t method = (uint16_t)(uintptr_t)ctx;
    struct relay *relay = calloc(1, sizeof(*relay));
    struct buf buf;

    front.commits += method == STORE_METHOD_COMMIT;
    front.commits_of_many += method == STORE_METHOD_COMMITS;
    if (front.older && method == STORE_METHOD_COMMITS) { /* which it does not know */
        free(relay);
        rpc_fail(call, STATUS_UNSUPPORTED, "no such method");
        return;
    }
    if (front.lies && method == STORE_METHOD_COMMITS) {
        free(relay);
        lie(call, body, len);
        return;
    }
    assert_non_null(relay);
    *relay = (struct relay){ .call = call, .acquire = method == STORE_METHOD_ACQUIRE };
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (relay->acquire && front.older)
        front.looks += without(body, len, FIELD_LOOK, &buf);
    else if (front.damages && method == STORE_METHOD_COMMITS) {
        front.damages = false;
        damage(body, len, &buf);
    } else
        assert_int_equal(buf_append(&buf, body, len), STATUS_OK);
    front.releases += method == STORE_METHOD_RELEASE;
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = rpc_call_deadline_ns(call),
                                         .wait_until_up = true,
                                         .on_item = on_relay_item,
                                         .on_end = on_relay_end,
                                         .ctx = relay };
    assert_int_equal(rpc_call(front.owner, &request, &relay->id), STATUS_OK);
    rpc_on_cancel(call, on_relay_cancel, relay);
    buf_fini(&buf);
}

static void front_start(void)
{
    const struct rpc_server_options server = { .address = FRONT,
                                               .secret = SIM_SECRET,
                                               .name = "front" };
    const struct rpc_client_options owner = { .address = "10.0.1.1:7100",
                                              .secret = SIM_SECRET,
                                              .name = "front" };
    front = (struct front){ .env = env_sim_add(cluster.sim, "10.0.3.1"), .older = true };
    assert_int_equal(rpc_server_create(front.env, &server, &front.server, NULL), STATUS_OK);
    assert_int_equal(rpc_client_create(front.env, &owner, &front.owner, NULL), STATUS_OK);
    for (uint16_t i = 0; i < METHODS; i++) {
        const uint16_t method = (uint16_t)(STORE_METHOD_ACQUIRE + i);
        rpc_server_add(front.server, method, "store.any", on_any, (void *)(uintptr_t)method);
    }
}

/* ---- the world ---- */

static int setup(void **state)
{
    const struct env_sim_options options = { .seed = test_seed() };
    const struct yolk_transfer_options engine = { .listen = "10.0.2.1:7200", .secret = SIM_SECRET };
    void *room;
    (void)state;

    sim_cluster_start(&cluster, &options);
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_kill(&cluster.nodes[i]);
    front_start();
    cluster.nodes[0].front = FRONT;
    sim_node_start(&cluster, 0);
    env = env_sim_add(cluster.sim, "10.0.2.1");
    assert_int_equal(yolk_transfer_create(env, &engine, &transfer, NULL), STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(transfer, (size_t)VALUES * SIZE, YOLK_TRANSFER_REMOTE_ALL, &room, NULL),
        STATUS_OK);
    memory = room;
    const struct yolk_store_options client = { .env = env,
                                               .transfer = transfer,
                                               .master = SIM_MASTER,
                                               .secret = SIM_SECRET,
                                               .timeout_ms = 6000 };
    assert_int_equal(yolk_store_create(&client, &store, NULL), STATUS_OK);
    sim_run_ms(&cluster, 40000); /* settled, and trusted by its node */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    yolk_store_destroy(store);
    yolk_transfer_destroy(transfer);
    rpc_client_destroy(front.owner);
    rpc_server_destroy(front.server);
    cluster.nodes[0].front = NULL;
    sim_cluster_end(&cluster);
    return 0;
}

/* ---- what is asked ---- */

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    (void)ctx;
    (void)index;
    (void)size;
    left--;
    last = status;
}

static bool is_over(void *ctx)
{
    (void)ctx;
    return left == 0;
}

static enum status wait_for(enum status started)
{
    assert_int_equal(started, STATUS_OK);
    assert_true(env_sim_run_until(cluster.sim, is_over, NULL, 20 * ENV_NS_PER_S));
    return last;
}

/* One that comes inline, and three that are read. */
static uint64_t size_of(unsigned value)
{
    return value == 0 ? 100 : SIZE - value;
}

static struct yolk_store_key key_of(unsigned value)
{
    static const char *const names[VALUES] = { "zero", "one", "two", "three" };
    return (struct yolk_store_key){ names[value], strlen(names[value]) };
}

static void put_all(unsigned revision)
{
    const struct yolk_store_call call = { .on_item = on_item, .replace = true };
    for (unsigned i = 0; i < VALUES; i++) {
        const struct yolk_store_value value = { .key = key_of(i),
                                                .data = memory,
                                                .size = size_of(i) };
        sim_bytes(i + VALUES * revision, memory, size_of(i));
        left = 1;
        assert_int_equal(wait_for(yolk_store_put(store, &value, 1, &call)), STATUS_OK);
    }
}

static void put_begin(unsigned revision)
{
    const struct yolk_store_call call = { .on_item = on_item, .replace = true };
    struct yolk_store_value values[VALUES];

    for (unsigned i = 0; i < VALUES; i++) {
        uint8_t *data = memory + (size_t)i * SIZE;
        values[i] = (struct yolk_store_value){ .key = key_of(i), .data = data, .size = size_of(i) };
        sim_bytes(i + VALUES * revision, data, size_of(i));
    }
    left = VALUES;
    assert_int_equal(yolk_store_put(store, values, VALUES, &call), STATUS_OK);
}

static void put_together(unsigned revision)
{
    put_begin(revision);
    assert_int_equal(wait_for(STATUS_OK), STATUS_OK);
}

/* All with one call, and all right. */
static void get_all(unsigned revision)
{
    static uint8_t want[SIZE];
    const struct yolk_store_call call = { .on_item = on_item };
    struct yolk_store_buffer buffers[VALUES];

    memset(memory, 0, (size_t)VALUES * SIZE);
    for (unsigned i = 0; i < VALUES; i++) {
        buffers[i] = (struct yolk_store_buffer){ .key = key_of(i),
                                                 .data = memory + (size_t)i * SIZE,
                                                 .size = SIZE };
    }
    left = VALUES;
    assert_int_equal(wait_for(yolk_store_get(store, buffers, VALUES, &call)), STATUS_OK);
    for (unsigned i = 0; i < VALUES; i++) {
        sim_bytes(i + VALUES * revision, want, size_of(i));
        assert_memory_equal(memory + (size_t)i * SIZE, want, size_of(i));
    }
}

static void expect_no_pins(void)
{
    sim_run_ms(&cluster, 100); /* much less than a pin lasts */
    assert_int_equal(front.pins, front.releases);
}

/* ---- tests ---- */

static void an_owner_of_before_is_read_with_pins(void **state)
{
    (void)state;
    put_all(1);
    for (unsigned n = 0; n < 3; n++) {
        get_all(1);
        sim_run_ms(&cluster, 100);
    }
    assert_int_equal(store->known_gets, 0);
    assert_int_equal(store->guesses.right, 0);
    assert_true(front.pins > 0);
    expect_no_pins();
    put_all(2); /* nobody's pin is in the way */
    get_all(2);
}

/* What is remembered of an owner of today is looked at where it is of before now. */
static void an_owner_that_was_taken_back_is_not_believed(void **state)
{
    (void)state;
    front.older = false;
    put_all(1);
    get_all(1);
    get_all(1);
    assert_int_equal(store->known_gets, VALUES); /* it vouches */
    front.older = true;
    get_all(1);
    assert_true(front.looks > 0);
    assert_int_equal(store->known_gets, VALUES);
    expect_no_pins();

    front.older = false;
    get_all(1);
    front.older = true;
    put_all(2);
    get_all(2);
    expect_no_pins();
}

/* So is what was guessed. */
static void a_guess_at_an_owner_of_before_is_not_used(void **state)
{
    (void)state;
    front.older = false;
    put_all(1);
    get_all(1);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    get_all(1);
    const uint64_t right = store->guesses.right;
    assert_true(right > 0);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    front.older = true;
    get_all(1);
    assert_true(front.looks > 0);
    assert_int_equal(store->guesses.right, right);
    expect_no_pins();

    front.older = false; /* updated: it is believed again, after a while */
    for (unsigned n = 0; n < 3; n++) {
        get_all(1);
        sim_run_ms(&cluster, STORE_KNOWN_MS);
    }
    assert_true(store->guesses.right > right);
    expect_no_pins();
}

/* An owner of today hears of several values with one message. One of before is asked once with
 * many, and from then on one by one; when it is updated, it is another life. */
static void an_owner_of_before_is_told_of_commits_one_by_one(void **state)
{
    (void)state;
    put_together(1);
    const unsigned asked = front.commits_of_many;
    assert_true(asked > 0);
    assert_int_equal(front.commits, VALUES);
    put_together(2);
    assert_int_equal(front.commits, 2 * VALUES);
    assert_int_equal(front.commits_of_many, asked);
    get_all(2);

    sim_node_kill(&cluster.nodes[0]);
    front.older = false;
    sim_node_start(&cluster, 0);
    sim_run_ms(&cluster, 20000);
    front.commits = front.commits_of_many = 0;
    put_together(3);
    assert_true(front.commits_of_many > 0);
    assert_true(front.commits + front.commits_of_many < VALUES);
    get_all(3);
}

/* What the owner says of one value of a message is of that value; it is put again, and is there. */
static void one_that_is_refused_is_put_again(void **state)
{
    (void)state;
    front.older = false;
    front.damages = true;
    put_together(1);
    assert_false(front.damages);
    assert_true(front.commits > 0); /* it came again, alone */
    get_all(1);
}

/* An answer about another number of values than were committed is none. */
static void an_answer_that_does_not_fit_is_not_believed(void **state)
{
    (void)state;
    front.older = false;
    front.lies = true;
    put_begin(1);
    sim_run_ms(&cluster, 500);
    assert_true(front.lies_told > 1); /* asked again */
    assert_true(left > 0);
    front.lies = false;
    assert_int_equal(wait_for(STATUS_OK), STATUS_OK);
    get_all(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_owner_of_before_is_read_with_pins, setup, teardown),
        cmocka_unit_test_setup_teardown(an_owner_that_was_taken_back_is_not_believed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_guess_at_an_owner_of_before_is_not_used, setup, teardown),
        cmocka_unit_test_setup_teardown(an_owner_of_before_is_told_of_commits_one_by_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_that_is_refused_is_put_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_that_does_not_fit_is_not_believed, setup,
                                        teardown),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
