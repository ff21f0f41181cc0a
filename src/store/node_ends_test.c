/* SPDX-License-Identifier: Apache-2.0
 *
 * How a node tells the master of what was committed (node_ends.c): the node is real, its master is
 * this test's, which counts the questions and answers them as it pleases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/hash.h"
#include "seed.h"
#include "store/cluster_sim.h"
#include "store/node_int.h"
#include "store/objects.h"
#include "store/proto.h"

enum { VALUES = 100, SIZE = 100, CALLS_MAX = 64 };

#define OTHER_MASTER "10.0.3.1:7000"

/* What the master does with a batch. */
enum mood { ANSWERS, HOLDS, MISCOUNTS };

struct other_master {
    struct env *env;
    struct rpc_server *server;
    struct rpc_client *client; /* the node's, to it */
    enum mood mood;
    enum status codes[VALUES];   /* of each value, in a batch */
    uint32_t batches[CALLS_MAX]; /* how many were in each */
    uint32_t batches_count;
    uint32_t singles[VALUES]; /* put_ends of each */
    struct rpc_call *held;
    uint32_t held_count;
};

struct outcome {
    bool done;
    enum status status;
};

static struct sim_cluster cluster;
static struct other_master other;
static struct rpc_client *writer;
static struct outcome outcomes[VALUES];

static uint32_t value_of(const uint8_t *key, size_t len)
{
    uint32_t value = 0;
    assert_int_equal(len, 4);
    for (size_t i = 1; i < len; i++)
        value = value * 10 + (uint32_t)(key[i] - '0');
    assert_true(value < VALUES);
    return value;
}

static void answer(struct rpc_call *call, const uint32_t *codes, uint32_t count)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    assert_int_equal(store_encode_statuses(&buf, codes, count), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static void on_batch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_put_ends ends;
    uint32_t codes[VALUES + 1] = { 0 };
    size_t offset = 0;
    (void)ctx;

    assert_int_equal(store_decode_put_ends(body, len, &ends), STATUS_OK);
    assert_true(other.batches_count < CALLS_MAX);
    other.batches[other.batches_count++] = ends.count;
    for (uint32_t i = 0; i < ends.count; i++) {
        struct store_ended end;
        store_put_ends_at(&ends, i, &offset, &end);
        codes[i] = store_status_code(other.codes[value_of(end.stored.key, end.stored.key_len)]);
    }
    if (other.mood == HOLDS) {
        assert_null(other.held); /* one at a time */
        other.held = call;
        other.held_count = ends.count;
    } else {
        answer(call, codes, ends.count + (other.mood == MISCOUNTS));
    }
}

static void on_single(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_put_end end;
    (void)ctx;

    assert_int_equal(store_decode_put_end(body, len, &end), STATUS_OK);
    other.singles[value_of(end.stored.key, end.stored.key_len)]++;
    rpc_reply(call, NULL, 0);
}

static void other_start(bool batches)
{
    const struct rpc_server_options server = { .address = OTHER_MASTER,
                                               .secret = SIM_SECRET,
                                               .name = "master" };
    const struct rpc_client_options client = { .address = OTHER_MASTER,
                                               .secret = SIM_SECRET,
                                               .name = "node" };
    other = (struct other_master){ .env = env_sim_add(cluster.sim, "10.0.3.1") };
    assert_int_equal(rpc_server_create(other.env, &server, &other.server, NULL), STATUS_OK);
    if (batches) {
        rpc_server_add(other.server, MASTER_METHOD_PUT_ENDS, "master.put_ends", on_batch, NULL);
    }
    rpc_server_add(other.server, MASTER_METHOD_PUT_END, "master.put_end", on_single, NULL);
    assert_int_equal(rpc_client_create(cluster.nodes[0].env, &client, &other.client, NULL),
                     STATUS_OK);
    cluster.nodes[0].node->master = other.client;
}

static void on_committed(void *ctx, const struct rpc_result *result)
{
    struct outcome *outcome = ctx;
    assert_false(outcome->done);
    *outcome = (struct outcome){ true, result->status };
}

static struct store_key key_of(uint32_t value, char text[5])
{
    snprintf(text, 5, "v%03u", value);
    return (struct store_key){ (const uint8_t *)text, 4 };
}

/* `sum` becomes that of what lies there. */
static struct store_commit commit_of(uint32_t value, char text[5], uint64_t *sum)
{
    struct store_node *node = cluster.nodes[0].node;
    uint8_t *data = (uint8_t *)(uintptr_t)node_region_address(node) + (size_t)4096 * value;
    *sum = hash_xxh3(data, SIZE);
    return (struct store_commit){ .key = key_of(value, text),
                                  .put_id = value + 1,
                                  .term = SIM_TERM,
                                  .epoch = store_node_epoch(node),
                                  .address = (uintptr_t)data,
                                  .size = SIZE,
                                  .sums_data = sum };
}

static void commit(uint32_t value)
{
    char text[5];
    uint64_t sum;
    const struct store_commit message = commit_of(value, text, &sum);
    struct rpc_call_id id;
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    assert_int_equal(store_encode_commit(&buf, &message), STATUS_OK);
    outcomes[value].done = false;
    const struct rpc_request request = { .method = STORE_METHOD_COMMIT,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             env_now_ns(cluster.nodes[1].env) + 3 * ENV_NS_PER_S,
                                         .wait_until_up = true,
                                         .on_end = on_committed,
                                         .ctx = &outcomes[value] };
    assert_int_equal(rpc_call(writer, &request, &id), STATUS_OK);
    buf_fini(&buf);
}

static void on_committed_together(void *ctx, const struct rpc_result *result)
{
    struct msg_column codes;
    uint32_t *count = ctx;
    enum status status = result->status;

    if (status == STATUS_OK) status = store_decode_statuses(result->body, result->len, &codes);
    if (status == STATUS_OK) assert_int_equal(codes.count, *count);
    for (uint32_t i = 0; i < *count; i++) {
        outcomes[i].done = true;
        outcomes[i].status = status == STATUS_OK ? store_status_of(msg_u32_at(codes, i)) : status;
    }
    *count = 0;
}

/* The first values, with one message; what is wrong with it is wrong with value `wrong` alone. */
enum wrong { WRONG_NOTHING, WRONG_SUM, WRONG_PLACE };
static uint32_t together;

static void commit_together(uint32_t count, uint32_t wrong, enum wrong how)
{
    struct store_commit messages[VALUES];
    uint64_t sums[VALUES];
    char texts[VALUES][5];
    struct rpc_call_id id;
    struct buf buf;

    for (uint32_t i = 0; i < count; i++) {
        messages[i] = commit_of(i, texts[i], &sums[i]);
        outcomes[i].done = false;
    }
    sums[wrong] += how == WRONG_SUM;
    if (how == WRONG_PLACE) messages[wrong].address -= UINT64_C(1) << 30;
    together = count;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    assert_int_equal(store_encode_commits(&buf, messages, count), STATUS_OK);
    const struct rpc_request request = { .method = STORE_METHOD_COMMITS,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             env_now_ns(cluster.nodes[1].env) + 3 * ENV_NS_PER_S,
                                         .wait_until_up = true,
                                         .on_end = on_committed_together,
                                         .ctx = &together };
    assert_int_equal(rpc_call(writer, &request, &id), STATUS_OK);
    buf_fini(&buf);
}

static void expect(uint32_t value, enum status status)
{
    char text[5];
    const struct block_key id = store_key_id(key_of(value, text));
    assert_true(outcomes[value].done);
    assert_int_equal(outcomes[value].status, status);
    assert_int_equal(objects_find(cluster.nodes[0].node->objects, &id) != NULL,
                     status == STATUS_OK || status == STATUS_TIMEOUT);
}

static int setup(void **state)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    (void)state;

    sim_cluster_start(&cluster, &calm);
    sim_run_ms(&cluster, 5000);
    const struct rpc_client_options options = { .address = cluster.nodes[0].rpc_address,
                                                .secret = SIM_SECRET };
    assert_int_equal(rpc_client_create(cluster.nodes[1].env, &options, &writer, NULL), STATUS_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rpc_client_destroy(writer);
    rpc_client_destroy(other.client);
    rpc_server_destroy(other.server);
    sim_cluster_end(&cluster);
    return 0;
}

/* While the first is asked about the others come, and are the next batch. */
static void what_comes_meanwhile_is_asked_together(void **state)
{
    (void)state;
    other_start(true);
    other.mood = HOLDS;
    for (uint32_t i = 0; i < VALUES; i++)
        commit(i);
    sim_run_ms(&cluster, 500);
    assert_non_null(other.held);
    const uint32_t first = other.held_count, ok[VALUES] = { 0 };
    assert_true(first < VALUES);
    other.mood = ANSWERS;
    answer(other.held, ok, first);
    sim_run_ms(&cluster, 500);
    assert_int_equal(other.batches_count, 2);
    assert_int_equal(other.batches[1], VALUES - first);
    for (uint32_t i = 0; i < VALUES; i++) {
        expect(i, STATUS_OK);
        assert_int_equal(other.singles[i], 0);
    }
}

/* Each has its own end: who was refused lets go of the value, who waits for an owner is asked about
 * alone, and neither keeps the others. */
static void each_of_a_batch_has_its_end(void **state)
{
    (void)state;
    other_start(true);
    other.codes[3] = STATUS_STALE;
    other.codes[4] = STATUS_EXISTS;
    other.codes[5] = STATUS_AGAIN;
    for (uint32_t i = 0; i < 10; i++)
        commit(i);
    sim_run_ms(&cluster, 500);
    for (uint32_t i = 0; i < 10; i++) {
        expect(i, other.codes[i] == STATUS_AGAIN ? STATUS_OK : other.codes[i]);
        assert_int_equal(other.singles[i], i == 5);
    }
}

static void a_master_that_knows_no_batches_is_asked_one_by_one(void **state)
{
    (void)state;
    other_start(false);
    for (uint32_t i = 0; i < 10; i++)
        commit(i);
    sim_run_ms(&cluster, 50); /* without waiting for a retry */
    for (uint32_t i = 0; i < 10; i++) {
        expect(i, STATUS_OK);
        assert_int_equal(other.singles[i], 1);
    }
}

/* Nothing is acknowledged on the word of an answer that does not fit its question. */
static void a_wrong_answer_is_none(void **state)
{
    (void)state;
    other_start(true);
    other.mood = MISCOUNTS;
    commit(0);
    commit(1);
    sim_run_ms(&cluster, 1000);
    assert_true(other.batches_count > 2); /* asked again */
    assert_false(outcomes[0].done || outcomes[1].done);
    other.mood = ANSWERS;
    sim_run_ms(&cluster, 500);
    expect(0, STATUS_OK);
    expect(1, STATUS_OK);
}

/* What a master that has gone never answered is asked of the next one; until the deadline. */
static void commits_outlive_a_master(void **state)
{
    (void)state;
    other_start(true);
    other.mood = HOLDS;
    commit(0);
    commit(1);
    sim_run_ms(&cluster, 200);
    cluster.nodes[0].node->master = NULL;
    rpc_client_destroy(other.client);
    other.client = NULL;
    sim_run_ms(&cluster, 300);
    assert_false(outcomes[0].done || outcomes[1].done);
    rpc_fail(other.held, STATUS_UNAVAILABLE, NULL); /* nobody is there to hear it */
    rpc_server_destroy(other.server);
    env_sim_kill(other.env);
    other_start(true);
    sim_run_ms(&cluster, 500);
    expect(0, STATUS_OK);
    expect(1, STATUS_OK);
    cluster.nodes[0].node->master = NULL;
    commit(2);
    sim_run_ms(&cluster, 3500);
    expect(2, STATUS_TIMEOUT);
}

/* Many commits of one message are one batch to the master, and each has its own answer: those the
 * owner refuses, those the master refuses, and the others, in their places. */
static void each_commit_of_a_message_has_its_answer(void **state)
{
    (void)state;
    for (enum wrong how = WRONG_SUM; how <= WRONG_PLACE; how++) {
        other_start(true);
        other.codes[3] = STATUS_STALE;
        other.codes[9] = STATUS_EXISTS;
        commit_together(VALUES, 7, how);
        sim_run_ms(&cluster, 500);
        assert_int_equal(other.batches_count, 1);
        assert_int_equal(other.batches[0], VALUES - 1);
        for (uint32_t i = 0; i < VALUES; i++) {
            const enum status own = how == WRONG_SUM ? STATUS_CORRUPT : STATUS_INVALID;
            expect(i, i == 7 ? own : other.codes[i]);
        }
        if (how == WRONG_PLACE) break;
        rpc_client_destroy(other.client);
        rpc_server_destroy(other.server);
        env_sim_kill(other.env);
        sim_run_ms(&cluster, 100);
        sim_node_kill(&cluster.nodes[0]); /* its values go */
        sim_node_start(&cluster, 0);
        sim_run_ms(&cluster, 5000);
    }
}

/* What waits for another owner is left out of the answer, and does not keep the others; committed
 * again, alone, it is told when it is there. */
static void what_waits_is_left_out_of_the_answer(void **state)
{
    (void)state;
    other_start(true);
    other.codes[5] = STATUS_AGAIN;
    commit_together(10, 0, WRONG_NOTHING);
    sim_run_ms(&cluster, 500);
    assert_int_equal(together, 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(outcomes[i].done);
        assert_int_equal(outcomes[i].status, other.codes[i]);
    }
    commit(5);
    sim_run_ms(&cluster, 500);
    expect(5, STATUS_OK);
}

/* Whether the first one was heard, or its answer lost: the second finds what it made. */
static void a_message_may_come_twice(void **state)
{
    (void)state;
    other_start(true);
    other.mood = MISCOUNTS; /* nothing is settled */
    commit_together(10, 0, WRONG_NOTHING);
    sim_run_ms(&cluster, 3500); /* longer than the client waits */
    for (uint32_t i = 0; i < 10; i++)
        expect(i, STATUS_TIMEOUT);
    other.mood = ANSWERS;
    commit_together(10, 0, WRONG_NOTHING);
    sim_run_ms(&cluster, 500);
    for (uint32_t i = 0; i < 10; i++)
        expect(i, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_comes_meanwhile_is_asked_together, setup, teardown),
        cmocka_unit_test_setup_teardown(each_of_a_batch_has_its_end, setup, teardown),
        cmocka_unit_test_setup_teardown(a_master_that_knows_no_batches_is_asked_one_by_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_wrong_answer_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(commits_outlive_a_master, setup, teardown),
        cmocka_unit_test_setup_teardown(each_commit_of_a_message_has_its_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_is_left_out_of_the_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_message_may_come_twice, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
