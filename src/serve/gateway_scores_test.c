/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_scores_test.c
 *
 * Goal:   the probabilities of a prompt are told once, in front of the answer's, whole or streamed,
 *         to each choice, and are the same when a node has died or they have been lost on the way;
 *         nothing is shown before them.
 * Method: a real gateway among simulated nodes (tests/gateway_world.h), which say the same of token
 *         number i of a prompt or an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "gateway_world.h"

enum { PROMPT_TOKENS = 35, HEARD_MAX = 8192, CHOICES_MAX = 2 };

/* Each choice's text, then its rows: "token value offset" a line. */
struct heard {
    char text[CHOICES_MAX][128], rows[CHOICES_MAX][HEARD_MAX];
    uint32_t count[CHOICES_MAX];
};

static void hear_rows(struct heard *heard, size_t index, const struct json_value *logprobs)
{
    const struct json_value *tokens = api_json_member(logprobs, "tokens");

    for (size_t i = 0; i < api_json_len(tokens); i++) {
        const struct json_value *value =
            api_json_at(api_json_member(logprobs, "token_logprobs"), i);
        const struct json_value *offset = api_json_at(api_json_member(logprobs, "text_offset"), i);
        const bool first = heard->count[index]++ == 0;
        char *end = heard->rows[index] + strlen(heard->rows[index]);
        size_t len = 0;
        assert_int_equal(api_json_type_of(value) == JSON_TYPE_NULL, first);
        snprintf(end, (size_t)(heard->rows[index] + HEARD_MAX - end), "%s %g %lld\n",
                 api_json_str(api_json_at(tokens, i), &len), first ? 1 : api_json_num(value),
                 (long long)api_json_int(offset));
    }
}

static void hear_choices(struct heard *heard, const char *json, size_t len)
{
    struct json_doc *doc = NULL;

    assert_int_equal(api_json_parse(json, len, &doc, NULL), STATUS_OK);
    const struct json_value *choices = api_json_member(api_json_root(doc), "choices");
    for (size_t i = 0; i < api_json_len(choices); i++) {
        const struct json_value *choice = api_json_at(choices, i);
        const struct json_value *logprobs = api_json_member(choice, "logprobs");
        const size_t index = (size_t)api_json_int(api_json_member(choice, "index"));
        size_t more = 0;
        const char *text = api_json_str(api_json_member(choice, "text"), &more);
        strncat(heard->text[index], text, more);
        if (api_json_type_of(logprobs) == JSON_TYPE_OBJECT) hear_rows(heard, index, logprobs);
    }
    api_json_destroy(doc);
}

static void hear(struct client *client, bool stream, struct heard *heard)
{
    *heard = (struct heard){ 0 };
    assert_int_equal(wait_for(client), 200);
    char *at = (char *)buf_data(&client->body), *end = NULL;
    if (!stream) hear_choices(heard, at, strlen(at));
    for (; stream && (end = strstr(at, "\n\n")) != NULL; at = end + 2) {
        if (strncmp(at, "data: [DONE]", 12) != 0)
            hear_choices(heard, at + 6, (size_t)(end - at - 6));
    }
    buf_fini(&client->body);
}

/* What any of them must have heard. */
static void want_rows(struct heard *want, const char *answer)
{
    *want = (struct heard){ 0 };
    for (int choice = 0; choice < CHOICES_MAX; choice++) {
        size_t len = 0;
        snprintf(want->text[choice], sizeof(want->text[choice]), "%s%s", PROMPT, answer);
        want->count[choice] = (uint32_t)strlen(want->text[choice]);
        for (uint32_t i = 0; i < want->count[choice]; i++) {
            const int row = (int)(i < PROMPT_TOKENS ? i : i - PROMPT_TOKENS);
            len += (size_t)snprintf(want->rows[choice] + len, HEARD_MAX - len, "%c %g %u\n",
                                    want->text[choice][i], i == 0 ? 1 : 0 - row / 8.0, i);
        }
    }
}

static const char *const ASKS[] = {
    BODY(",\"echo\":true,\"logprobs\":1,\"n\":2,\"max_tokens\":20"),
    BODY(",\"echo\":true,\"logprobs\":1,\"n\":2,\"max_tokens\":20,\"stream\":true"),
    BODY(",\"echo\":true,\"logprobs\":0,\"n\":2,\"max_tokens\":0"),
    BODY(",\"echo\":true,\"logprobs\":0,\"n\":2,\"max_tokens\":0,\"stream\":true"),
};

/* Asks, and when the prompt is half computed its node dies, if that is wanted. */
static void ask_and_compare(int which, bool dies)
{
    struct client client;
    struct heard heard, want;
    char answer[64];

    answer_to(PROMPT, 20, answer);
    want_rows(&want, which < 2 ? answer : "");
    complete(&client, ASKS[which]);
    if (dies) {
        run_ms(PREFILL_MS / 2);
        stop_fake(0, true);
        run_ms(500);
        start_fake(0, PROTO_ROLE_PREFILL);
    }
    hear(&client, which % 2 == 1, &heard);
    for (int i = 0; i < CHOICES_MAX; i++) {
        assert_string_equal(heard.text[i], want.text[i]);
        assert_string_equal(heard.rows[i], want.rows[i]);
    }
}

static void whole_and_streamed(void **state)
{
    (void)state;
    start_pair();
    assert_int_equal(strlen(PROMPT), PROMPT_TOKENS);
    for (int i = 0; i < 4; i++)
        ask_and_compare(i, false);
    stop_world();
}

/* The node that computes the prompt dies before it has said anything, or what it says gets lost
 * once; or always. */
static void lost_with_a_node(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    for (int i = 0; i < 4; i++) {
        const uint32_t before = world.fakes[0].scored;
        world.fakes[0].loses_scores = 1;
        ask_and_compare(i, false);
        assert_int_equal(world.fakes[0].scored, before + 1); /* the second time */
    }
    for (int i = 0; i < 4; i++)
        ask_and_compare(i, true);
    for (int i = 0; i < 4; i++) {
        world.fakes[0].loses_scores = world.fakes[1].loses_scores = UINT32_MAX;
        complete(&client, ASKS[i]);
        expect_body(&client, 503, "attempts_exhausted"); /* nothing was shown before */
    }
    run_ms(100);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* Rows that do not follow each other are no rows: they are asked for again. */
static void left_out(void **state)
{
    (void)state;
    start_pair();
    start_fake(2, PROTO_ROLE_PREFILL);
    run_ms(3000);
    for (int i = 0; i < 4; i++) {
        world.fakes[0].skips_scores = world.fakes[2].skips_scores = 1;
        ask_and_compare(i, false);
        assert_true(world.fakes[0].skips_scores + world.fakes[2].skips_scores < 2);
    }
    stop_world();
}

/* As vLLM lists them: the token, then others, likeliest first. */
static void prompt_logprobs(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    for (int lost = 0; lost < 2; lost++) {
        world.fakes[0].loses_scores = (uint32_t)lost;
        complete(&client, "{\"prompt\":\"ab\",\"prompt_logprobs\":1,\"max_tokens\":1}");
        expect_body(&client, 200,
                    "\"prompt_logprobs\":[null,"
                    "{\"100\":{\"logprob\":-0.125,\"rank\":2,\"decoded_token\":\"b\"},"
                    "\"124\":{\"logprob\":0,\"rank\":1,\"decoded_token\":\"z\"}}]}");
    }
    /* Beside rows with fewer pairs, to each choice of a completion. */
    complete(&client, "{\"prompt\":\"az\",\"prompt_logprobs\":5,\"logprobs\":0,\"echo\":true,"
                      "\"max_tokens\":0,\"n\":2}");
    expect_body(&client, 200,
                "\"token_logprobs\":[null,-0.125],\"top_logprobs\":[null,{\"z\":-0.125}],"
                "\"text_offset\":[0,1]},\"finish_reason\":\"length\",\"prompt_logprobs\":[null,"
                "{\"124\":{\"logprob\":-0.125,\"rank\":2,\"decoded_token\":\"z\"}}]}],");
    /* Once, in front of what is counted, in a chat. */
    ask(&client, "POST", "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":1,\"n\":2,"
        "\"prompt_logprobs\":0}");
    expect_body(&client, 200, "}],\"prompt_logprobs\":[null,{\"");
    complete(&client, "{\"prompt\":\"a\",\"prompt_logprobs\":0,\"max_tokens\":0}");
    expect_body(&client, 200,
                "\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\","
                "\"prompt_logprobs\":[null]}");
    complete(&client, BODY(",\"prompt_logprobs\":1,\"stream\":true"));
    expect_body(&client, 400, "\"param\":\"prompt_logprobs\"");
    stop_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_streamed),
        cmocka_unit_test(lost_with_a_node),
        cmocka_unit_test(left_out),
        cmocka_unit_test(prompt_logprobs),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
