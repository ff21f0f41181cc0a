/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_read_test.c
 *
 * Goal:   a body that is read beside the loop gives the answer that it gives when it is read on it;
 *         its client may leave, the gateway may drain or end, at every moment of that; what is read
 *         counts among what is under way; and reading needs nothing that the loop changes.
 * Method: a real gateway among simulated nodes (tests/gateway_world.h), where reading takes virtual
 *         time; and gateway_read() itself, by several threads at once. SEED=n replays. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "conductor/keys.h"
#include "gateway_world.h"
#include "serve/gateway_beside.h"
#include "serve/gateway_int.h"
#include "serve/gateway_read.h"

enum { READ_MS_MAX = 10, BODIES = 6 };

static const struct gateway_options ALWAYS = { .beside_size = 1 };
static const struct gateway_options NEVER = { .beside_size = UINT32_MAX };

static const struct {
    const char *path, *body;
    int code;
} REQUESTS[] = {
    { "/v1/completions", BODY(",\"max_tokens\":9"), 200 },
    { "/v1/completions", BODY(",\"max_tokens\":9,\"n\":3,\"seed\":5,\"echo\":true"), 200 },
    { "/v1/completions", BODY(",\"max_tokens\":9,\"cache_salt\":\"s\",\"stream\":true"), 200 },
    { "/v1/completions",
      "{\"prompt\":[[40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57],[60,61,62]],"
      "\"max_tokens\":3}",
      200 },
    { "/v1/completions", BODY(",\"max_tokens\":-1"), 400 },
    { "/v1/completions", BODY(",\"model\":\"other\""), 404 },
    { "/v1/completions", "{\"prompt\":[7,999999]}", 400 },
    { "/v1/completions", "{\"prompt\":", 400 },
    { "/v1/chat/completions",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"twelve words\"}],\"max_tokens\":4}", 200 },
    { "/v1/chat/completions", "{\"messages\":[{\"role\":\"nobody\",\"content\":\"x\"}]}", 400 },
    { "/tokenize", "{\"prompt\":\"abc\"}", 200 },
    { "/tokenize", "{\"prompt\":7}", 400 },
    { "/detokenize", "{\"tokens\":[99,100,101]}", 200 },
    { "/detokenize", "{\"tokens\":[999999]}", 400 },
};
enum { REQUESTS_COUNT = sizeof(REQUESTS) / sizeof(REQUESTS[0]) };

static void start_pair_with(const struct gateway_options *options)
{
    start_world(options);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway));
}

/* The body without what is drawn for each request: ids and times. */
static char *answer_without_names(size_t i)
{
    static const char *const NAMES[] = { "\"id\":\"", "\"created\":" };
    struct client client;

    ask(&client, "POST", REQUESTS[i].path, REQUESTS[i].body);
    assert_int_equal(wait_for(&client), REQUESTS[i].code);
    char *text = strdup((const char *)buf_data(&client.body));
    for (size_t name = 0; name < sizeof(NAMES) / sizeof(NAMES[0]); name++) {
        const size_t len = strlen(NAMES[name]);
        for (char *at = strstr(text, NAMES[name]); at != NULL; at = strstr(at, NAMES[name])) {
            at += len;
            while (*at != ',' && *at != '\0')
                *at++ = '*';
        }
    }
    buf_fini(&client.body);
    return text;
}

static void test_answers_are_the_same(void **state)
{
    (void)state;
    static struct block_key keys[REQUESTS_COUNT][4];
    char *answers[REQUESTS_COUNT];

    for (int beside = 0; beside < 2; beside++) {
        start_pair_with(beside == 0 ? &NEVER : &ALWAYS);
        for (size_t i = 0; i < REQUESTS_COUNT; i++) {
            char *answer = answer_without_names(i);
            if (beside == 0) {
                answers[i] = answer;
                memcpy(keys[i], world.fakes[1].keys, sizeof(keys[i]));
                continue;
            }
            assert_string_equal(answer, answers[i]);
            assert_memory_equal(world.fakes[1].keys, keys[i], sizeof(keys[i]));
            free(answer);
            free(answers[i]);
        }
        stop_world();
    }
}

/* The second key of the latest prompt, at whichever of the two nodes heard of it, forgotten. */
static struct block_key take_second_key(void)
{
    struct fake *node = &world.fakes[world.fakes[0].keys_count > 0 ? 0 : 1];

    assert_int_equal(node->keys_count, 2);
    world.fakes[0].keys_count = 0;
    world.fakes[1].keys_count = 0;
    return node->keys[1];
}

/* What the nodes have in common is known only after the body was read. */
static void test_nodes_come_later(void **state)
{
    (void)state;
    struct client client;
    char want[64];

    start_world(&ALWAYS);
    answer_to(PROMPT, 20, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    run_ms(100);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    expect_body(&client, 200, want);
    const struct block_key early = take_second_key();
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200, want);
    const struct block_key late = take_second_key();
    assert_true(block_key_equal(&early, &late));
    stop_world();
}

/* ---- ends ---- */

static void test_client_leaves(void **state)
{
    (void)state;
    struct client client;

    start_pair_with(&ALWAYS);
    for (uint32_t i = 0; i < 10 * READ_MS_MAX; i++) {
        const size_t which = i % REQUESTS_COUNT;
        ask(&client, "POST", REQUESTS[which].path, REQUESTS[which].body);
        run_ms(1 + i / 5);
        if (!client.done) http_client_cancel(client.http);
        buf_fini(&client.body);
        run_ms(500);
        assert_true(gateway_idle(world.gateway));
        assert_int_equal(world.gateway->besides_count, 0);
    }
    assert_int_equal((int)metric("yolk_gateway_requests_reading{model_name=\"tiny\"} "), 0);
    stop_world();
}

static void test_gateway_ends(void **state)
{
    (void)state;
    static struct client clients[REQUESTS_COUNT];

    for (uint64_t after = 0; after < 2 * READ_MS_MAX; after++) {
        start_pair_with(&ALWAYS);
        for (size_t i = 0; i < REQUESTS_COUNT; i++)
            ask(&clients[i], "POST", REQUESTS[i].path, REQUESTS[i].body);
        run_ms(after);
        gateway_destroy(world.gateway);
        world.gateway = NULL;
        run_ms(1000);
        for (size_t i = 0; i < REQUESTS_COUNT; i++) {
            assert_true(clients[i].done);
            buf_fini(&clients[i].body);
        }
        stop_world();
    }
}

/* What has been let in is answered. */
static void test_gateway_drains(void **state)
{
    (void)state;
    struct client client;
    char want[64];

    start_pair_with(&ALWAYS);
    answer_to(PROMPT, 20, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    for (int turns = 0; world.gateway->besides_count == 0; turns++) {
        assert_in_range(turns, 0, 20000);
        env_sim_run_for(world.sim, ENV_NS_PER_MS / 20);
    }
    gateway_drain(world.gateway);
    assert_false(gateway_idle(world.gateway));
    expect_body(&client, 200, want);
    run_ms(1000);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* ---- limits ---- */

static void test_what_is_read_is_counted(void **state)
{
    (void)state;
    enum { CLIENTS = 6, ROOM = 4 };
    const struct gateway_options few = { .requests_max = ROOM, .beside_size = 1 };
    struct client clients[CLIENTS];
    int refused = 0;

    start_pair_with(&few);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":900"));
    for (int i = 0; i < CLIENTS; i++) {
        const int code = wait_for(&clients[i]);
        assert_true(code == 200 || code == 429);
        refused += code == 429;
        buf_fini(&clients[i].body);
    }
    assert_int_equal(refused, CLIENTS - ROOM);
    stop_world();
}

static void test_reading_has_a_limit(void **state)
{
    (void)state;
    enum { CLIENTS = BESIDE_MAX + 40 };
    static struct client clients[CLIENTS];
    const struct gateway_options many = { .requests_max = 10000, .beside_size = 1 };
    int refused = 0;

    start_pair_with(&many);
    for (int i = 0; i < CLIENTS; i++)
        ask(&clients[i], "POST", "/tokenize", "{\"prompt\":\"abc\"}");
    for (int i = 0; i < CLIENTS; i++) {
        const int code = wait_for(&clients[i]);
        assert_true(code == 200 || code == 429);
        refused += code == 429;
        if (code == 429)
            assert_non_null(strstr((char *)buf_data(&clients[i].body), "are being read"));
        buf_fini(&clients[i].body);
    }
    assert_in_range(refused, 1, 40);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* ---- threads ---- */

static const char *const BODIES_READ[BODIES] = {
    "{\"prompt\":\"a prompt of some length, and another word, so that there are three blocks\"}",
    "{\"prompt\":[[40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56],[7]],\"n\":2}",
    "{\"prompt\":\"with a salt, longer than a block\",\"cache_salt\":\"x\",\"stop\":[\"a\",\"b\"]}",
    "{\"prompt\":\"json\",\"response_format\":{\"type\":\"json_object\"}}",
    "{\"prompt\":\"wrong\",\"top_p\":7}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hello <|im_end|>\"}]}",
};

static struct reading read_now(size_t i)
{
    struct reading reading = {
        .gateway = world.gateway,
        .kind = i + 1 < BODIES ? API_COMPLETION : API_CHAT,
        .body = BODIES_READ[i],
        .len = strlen(BODIES_READ[i]),
        .context_max = 2048,
        .tenant = i == 1 ? "tenant" : "",
        .salted = i == 1,
        .root = { .bytes = { (uint8_t)i } },
        .block_tokens = 16,
    };

    gateway_read(&reading);
    return reading;
}

/* Not cmocka's, which longjmps. */
static bool same(const struct reading *a, const struct reading *b)
{
    if (a->status != b->status) return false;
    if (a->status != STATUS_OK) return strcmp(a->error.message, b->error.message) == 0;
    if (a->prompts_count != b->prompts_count || a->salted != b->salted) return false;
    if (!block_key_equal(&a->salt, &b->salt)) return false;
    for (uint32_t i = 0; i < a->prompts_count; i++) {
        const struct read_prompt *p = &a->prompts[i], *q = &b->prompts[i];
        if (p->count != q->count || p->max != q->max || p->keys_count != q->keys_count)
            return false;
        if (memcmp(p->tokens, q->tokens, p->count * sizeof(*p->tokens)) != 0) return false;
        if (memcmp(p->keys, q->keys, p->keys_count * sizeof(*p->keys)) != 0) return false;
    }
    return true;
}

struct reader {
    pthread_t thread;
    const struct reading *expected;
    uint32_t wrong;
};

static void *reader_main(void *ctx)
{
    struct reader *reader = ctx;

    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < BODIES; i++) {
            struct reading reading = read_now(i);
            reader->wrong += !same(&reading, &reader->expected[i]);
            if (reading.status == STATUS_OK) gateway_read_fini(&reading);
        }
    }
    return NULL;
}

static void test_threads_read_at_once(void **state)
{
    (void)state;
    struct reading expected[BODIES];
    struct reader readers[4];

    start_pair();
    for (size_t i = 0; i < BODIES; i++)
        expected[i] = read_now(i);
    assert_int_equal(expected[0].prompts[0].keys_count, 4);
    assert_int_equal(expected[4].status, STATUS_INVALID);
    for (size_t i = 0; i < 4; i++) {
        readers[i] = (struct reader){ .expected = expected };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
    for (size_t i = 0; i < BODIES; i++)
        if (expected[i].status == STATUS_OK) gateway_read_fini(&expected[i]);
    stop_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_the_same), cmocka_unit_test(test_nodes_come_later),
        cmocka_unit_test(test_client_leaves),        cmocka_unit_test(test_gateway_ends),
        cmocka_unit_test(test_gateway_drains),       cmocka_unit_test(test_what_is_read_is_counted),
        cmocka_unit_test(test_reading_has_a_limit),  cmocka_unit_test(test_threads_read_at_once),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
