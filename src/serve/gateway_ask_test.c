/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_ask_test.c
 *
 * Goal:   an HTTP request that asks for several answers gets each of them, whole, under its number,
 *         computes a prompt once, counts as often as it has answers, and ends as one: with the last
 *         of them, with one error, or with its client.
 * Method: a real gateway among simulated nodes (tests/gateway_world.h). SEED=n replays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "gateway_world.h"

enum { CHOICES_MAX = 8, TEXT_MAX = 512 };

/* What the choices of an answer said. */
struct said {
    char text[CHOICES_MAX][TEXT_MAX];
    char finish[CHOICES_MAX][16];
    int finishes; /* each exactly once */
    int64_t prompt, completion;
};

static void note_choice(struct said *said, const struct json_value *choice)
{
    const int64_t index = api_json_int(api_json_member(choice, "index"));
    const struct json_value *reason = api_json_member(choice, "finish_reason");
    size_t len = 0;

    assert_in_range(index, 0, CHOICES_MAX - 1);
    const char *text = api_json_str(api_json_member(choice, "text"), &len);
    char *at = said->text[index];
    snprintf(at + strlen(at), TEXT_MAX - strlen(at), "%.*s", (int)len, text);
    if (api_json_type_of(reason) == JSON_TYPE_NULL) return;
    assert_string_equal(said->finish[index], "");
    snprintf(said->finish[index], sizeof(said->finish[index]), "%s", api_json_str(reason, &len));
    said->finishes++;
}

static void note(struct said *said, const char *json, size_t len)
{
    struct json_doc *doc = NULL;

    assert_int_equal(api_json_parse(json, len, &doc, NULL), STATUS_OK);
    const struct json_value *choices = api_json_member(api_json_root(doc), "choices");
    const struct json_value *usage = api_json_member(api_json_root(doc), "usage");
    assert_non_null(choices);
    for (size_t i = 0; i < api_json_len(choices); i++)
        note_choice(said, api_json_at(choices, i));
    if (usage != NULL && api_json_type_of(usage) == JSON_TYPE_OBJECT) {
        said->prompt = api_json_int(api_json_member(usage, "prompt_tokens"));
        said->completion = api_json_int(api_json_member(usage, "completion_tokens"));
    }
    api_json_destroy(doc);
}

/* Reads a whole answer, or all chunks of a streamed one. */
static void hear(struct client *client, bool stream, struct said *said)
{
    *said = (struct said){ .prompt = -1 };
    assert_int_equal(wait_for(client), 200);
    char *at = (char *)buf_data(&client->body), *next = NULL;
    if (!stream) {
        note(said, at, strlen(at));
    } else {
        for (; (next = strstr(at, "\n\n")) != NULL; at = next + 2) {
            if (strncmp(at, "data: [DONE]", 12) == 0) break;
            note(said, at + 6, (size_t)(next - at - 6));
        }
        assert_string_equal(at, "data: [DONE]\n\n");
    }
    buf_fini(&client->body);
}

static void expect_choices(const struct said *said, int from, int to, const char *want)
{
    for (int i = from; i < to; i++) {
        assert_string_equal(said->text[i], want);
        assert_string_equal(said->finish[i], "length");
    }
}

static void test_answers_to_one_prompt(void **state)
{
    (void)state;
    struct client client;
    struct said said;
    char want[64];

    start_pair();
    answer_to(PROMPT, 20, want);
    for (int stream = 0; stream < 2; stream++) {
        const uint32_t before = world.fakes[1].opened;
        complete(&client, stream ? BODY(",\"n\":3,\"max_tokens\":20,\"stream\":true,"
                                        "\"stream_options\":{\"include_usage\":true}")
                                 : BODY(",\"n\":3,\"max_tokens\":20"));
        run_ms(PREFILL_MS);
        assert_int_equal(world.fakes[1].opened - before, 1); /* the others wait for its prompt */
        hear(&client, stream, &said);
        assert_int_equal(world.fakes[1].opened - before, 3);
        assert_int_equal(said.finishes, 3);
        expect_choices(&said, 0, 3, want);
        assert_int_equal(said.prompt, 35);
        assert_int_equal(said.completion, 60);
    }
    run_ms(100);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

static void test_several_prompts(void **state)
{
    (void)state;
    struct client client;
    struct said said;
    char first[64], second[64];

    start_pair();
    answer_to("one", 9, first);
    answer_to("two", 9, second);
    for (int stream = 0; stream < 2; stream++) {
        const uint32_t before = world.fakes[1].opened;
        complete(&client, stream ? "{\"prompt\":[\"one\",\"two\"],\"n\":2,\"max_tokens\":9,"
                                   "\"stream\":true}"
                                 : "{\"prompt\":[\"one\",\"two\"],\"n\":2,\"max_tokens\":9}");
        run_ms(PREFILL_MS);
        assert_int_equal(world.fakes[1].opened - before, 2); /* one for each prompt */
        hear(&client, stream, &said);
        assert_int_equal(said.finishes, 4);
        expect_choices(&said, 0, 2, first);
        expect_choices(&said, 2, 4, second);
        assert_int_equal(said.prompt, stream ? -1 : 6);
    }
    /* Tokens beside text: those of "one". */
    complete(&client, "{\"prompt\":[[113,112,103],\"two\"],\"max_tokens\":9}");
    hear(&client, false, &said);
    expect_choices(&said, 0, 1, first);
    expect_choices(&said, 1, 2, second);
    stop_world();
}

static void test_echo(void **state)
{
    (void)state;
    struct client client;
    struct said said;
    char want[64] = "one";

    start_pair();
    answer_to("one", 9, want + 3);
    complete(&client, "{\"prompt\":\"one\",\"echo\":true,\"n\":2,\"max_tokens\":9}");
    hear(&client, false, &said);
    expect_choices(&said, 0, 2, want);
    assert_int_equal(said.completion, 18);
    complete(&client, "{\"prompt\":[113,112,103],\"echo\":true,\"max_tokens\":9,\"stream\":true}");
    hear(&client, true, &said);
    expect_choices(&said, 0, 1, want);
    /* A stop string in the prompt stops nothing. */
    complete(&client, "{\"prompt\":\"one\",\"echo\":true,\"stop\":\"one\",\"max_tokens\":9}");
    hear(&client, false, &said);
    expect_choices(&said, 0, 1, want);
    stop_world();
}

/* ---- probabilities ---- */

/* Looks at one choice's "logprobs" of a completion: tokens are those of `want`, numbered on from
 * *next, each with what the fake nodes say of it. */
static void check_columns(const struct json_value *logprobs, const char *want, uint32_t *next)
{
    const struct json_value *tokens = api_json_member(logprobs, "tokens");
    const struct json_value *values = api_json_member(logprobs, "token_logprobs");
    const struct json_value *top = api_json_member(logprobs, "top_logprobs");
    const struct json_value *offsets = api_json_member(logprobs, "text_offset");

    for (size_t i = 0; i < api_json_len(tokens); i++, (*next)++) {
        const struct json_value *pairs = api_json_at(top, i);
        char name[2] = { want[*next], '\0' };
        size_t len = 0;
        assert_string_equal(api_json_str(api_json_at(tokens, i), &len), name);
        assert_true(api_json_num(api_json_at(values, i)) == *next / -8.0);
        assert_int_equal(api_json_int(api_json_at(offsets, i)), *next);
        assert_true(api_json_num(api_json_member(pairs, "z")) == 0);
        if (name[0] != 'z') assert_true(api_json_num(api_json_member(pairs, name)) == *next / -8.0);
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    struct client client;
    char want[64], *at = NULL, *end = NULL;
    uint32_t next = 0;

    start_pair();
    answer_to(PROMPT, 20, want);
    complete(&client, BODY(",\"max_tokens\":20,\"logprobs\":1,\"stream\":true"));
    run_ms(70); /* in the middle of the answer: nothing is lost, nothing comes twice */
    stop_fake(1, true);
    run_ms(1000);
    start_fake(1, PROTO_ROLE_DECODE);
    assert_int_equal(wait_for(&client), 200);
    for (at = (char *)buf_data(&client.body); (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        struct json_doc *doc = NULL;
        if (strncmp(at, "data: [DONE]", 12) == 0) break;
        assert_int_equal(api_json_parse(at + 6, (size_t)(end - at - 6), &doc, NULL), STATUS_OK);
        const struct json_value *choice =
            api_json_at(api_json_member(api_json_root(doc), "choices"), 0);
        const struct json_value *logprobs = api_json_member(choice, "logprobs");
        if (api_json_type_of(logprobs) == JSON_TYPE_OBJECT) check_columns(logprobs, want, &next);
        api_json_destroy(doc);
    }
    assert_int_equal(next, 20);
    buf_fini(&client.body);
    /* Rows of tokens that a stop string has eaten come with the end. */
    want[12] = '\0';
    char body[256];
    snprintf(body, sizeof(body),
             BODY(",\"max_tokens\":20,\"logprobs\":0,\"stream\":true,\"stop\":\"%s\""), want);
    complete(&client, body);
    expect_body(&client, 200, "\"text\":\"\",\"logprobs\":{\"tokens\":[\"");
    ask(&client, "POST", "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":2,\"logprobs\":"
        "true}");
    expect_body(&client, 200, "\"logprob\":-0.125,\"bytes\":[");
    stop_world();
}

/* ---- salts ---- */

/* The key of the first block, as the nodes hear it. */
static struct block_key first_key(const char *body)
{
    struct client client;

    complete(&client, body);
    expect_body(&client, 200, "\"index\":0");
    assert_int_equal(world.fakes[1].keys_count, 2);
    return world.fakes[1].keys[0];
}

static void test_salts_part_blocks(void **state)
{
    (void)state;

    start_pair();
    const struct block_key plain = first_key(BODY(",\"max_tokens\":2"));
    const struct block_key one = first_key(BODY(",\"max_tokens\":2,\"cache_salt\":\"one\""));
    const struct block_key two = first_key(BODY(",\"max_tokens\":2,\"cache_salt\":\"two\""));
    const struct block_key again = first_key(BODY(",\"max_tokens\":2,\"cache_salt\":\"one\""));
    assert_true(block_key_equal(&one, &again));
    assert_false(block_key_equal(&one, &two));
    assert_false(block_key_equal(&one, &plain));
    assert_false(block_key_equal(&two, &plain));
    stop_world();
}

/* ---- ends ---- */

/* The client leaves at every moment: nothing is left of any answer. */
static void test_hangup_stops_all(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    for (uint64_t after = 1; after < 200; after += 29) {
        complete(&client, BODY(",\"n\":4,\"max_tokens\":900,\"stream\":true"));
        run_ms(after);
        http_client_cancel(client.http);
        buf_fini(&client.body);
        run_ms(100);
        assert_true(gateway_idle(world.gateway));
        assert_int_equal(world.fakes[1].cancelled, world.fakes[1].opened);
    }
    stop_world();
}

/* Nodes die at every moment: every answer goes on where it was. */
static void test_node_lost(void **state)
{
    (void)state;
    struct client client;
    struct said said;
    char want[128];

    answer_to(PROMPT, 40, want);
    for (int victim = 0; victim < 2; victim++) {
        for (uint64_t after = 1; after < 300; after += 67) {
            start_pair();
            complete(&client, BODY(",\"n\":4,\"max_tokens\":40,\"stream\":true"));
            run_ms(after);
            stop_fake(victim, true);
            run_ms(1000);
            start_fake(victim, victim == 0 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE);
            hear(&client, true, &said);
            assert_int_equal(said.finishes, 4);
            expect_choices(&said, 0, 4, want);
            run_ms(100);
            assert_true(gateway_idle(world.gateway));
            stop_world();
        }
    }
}

/* One answer cannot be had: the client hears of it once, and the others stop. */
static void test_one_failure_ends_all(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    world.fakes[1].fail_next = PROTO_CAUSE_CONTEXT;
    complete(&client, BODY(",\"n\":4,\"max_tokens\":900"));
    expect_body(&client, 400, "context_length_exceeded");
    run_ms(100);
    complete(&client, BODY(",\"n\":4,\"max_tokens\":900,\"stream\":true"));
    run_ms(PREFILL_MS);
    world.fakes[1].fail_next = PROTO_CAUSE_INVALID;
    run_ms(1000);
    assert_true(client.done && client.reply.status != STATUS_OK); /* it does not look complete */
    assert_int_equal(buf_append(&client.body, "", 1), STATUS_OK);
    const char *body = (const char *)buf_data(&client.body);
    assert_non_null(strstr(body, "\"error\""));
    assert_null(strstr(body, "[DONE]"));
    assert_true(gateway_idle(world.gateway));
    buf_fini(&client.body);
    stop_world();
}

/* Each answer takes a place. */
static void test_answers_are_counted(void **state)
{
    (void)state;
    const struct gateway_options few = { .requests_max = 4 };
    struct client client, other;

    start_world(&few);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    complete(&client, BODY(",\"n\":5,\"max_tokens\":9"));
    expect_body(&client, 429, "rate_limit_error");
    complete(&client, BODY(",\"n\":3,\"max_tokens\":900"));
    run_ms(10);
    complete(&other, BODY(",\"n\":2,\"max_tokens\":9"));
    expect_body(&other, 429, "3 requests");
    complete(&other, BODY(",\"max_tokens\":9"));
    expect_body(&other, 200, "\"index\":0");
    http_client_cancel(client.http);
    buf_fini(&client.body);
    run_ms(100);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_to_one_prompt),
        cmocka_unit_test(test_several_prompts),
        cmocka_unit_test(test_salts_part_blocks),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_hangup_stops_all),
        cmocka_unit_test(test_node_lost),
        cmocka_unit_test(test_one_failure_ends_all),
        cmocka_unit_test(test_answers_are_counted),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
