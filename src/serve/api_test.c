/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_test.c
 *
 * Goal:   every field is parsed, ignored, tolerated or refused as the table promises, refusals name
 *         the field, and answers are the JSON that clients of this API expect.
 * Method: tables of bodies with the expected field or error; answers compared as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "model/chat.h"
#include "serve/api.h"
#include "serve/api_json.h"

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

static void test_full_chat(void **state)
{
    (void)state;
    static const char BODY[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"be \\u00e4\"},"
        "{\"role\":\"user\",\"name\":\"x\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\\u0000c\"}]},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":null}],"
        "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":5,"
        "\"max_completion_tokens\":9,\"temperature\":0,\"top_p\":0.25,\"seed\":-1,"
        "\"stop\":[\"x\",\"yy\"],\"ignore_eos\":true,\"user\":\"u\",\"n\":1,\"tools\":[],"
        "\"presence_penalty\":0.0,\"response_format\":{\"type\":\"text\"},\"logit_bias\":{}}";
    struct api_request request;
    struct api_error error;

    assert_int_equal(api_parse(API_CHAT, BODY, strlen(BODY), &request, &error), STATUS_OK);
    assert_memory_equal(request.model.data, "m", 2);
    assert_true(request.stream && request.include_usage && request.ignore_eos && request.has_seed);
    assert_int_equal(request.max_tokens, 9);
    assert_true(request.temperature == 0 && request.top_p == 0.25);
    assert_true(request.seed == UINT64_MAX);
    assert_int_equal(request.stops_count, 2);
    assert_string_equal(request.stops[1].data, "yy");
    assert_int_equal(request.messages_count, 3);
    assert_string_equal(request.messages[0].role, "system");
    assert_string_equal(request.messages[0].content, "be \xc3\xa4");
    assert_int_equal(request.messages[1].content_len, 4);
    assert_memory_equal(request.messages[1].content, "ab\0c", 4);
    assert_int_equal(request.messages[2].content_len, 0);
    api_request_fini(&request);
}

static void test_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t prompts;
        const char *text; /* of the last one */
        size_t tokens;
    } GOOD[] = {
        { "{\"prompt\":\"abc\"}", 1, "abc", 0 },
        { "{\"prompt\":\"\"}", 1, "", 0 },
        { "{\"prompt\":[\"abc\"]}", 1, "abc", 0 },
        { "{\"prompt\":[7,8,9]}", 1, NULL, 3 },
        { "{\"prompt\":[[7,8]]}", 1, NULL, 2 },
        { "{\"prompt\":[\"abc\",\"d\",\"\"],\"n\":42}", 3, "", 0 },
        { "{\"prompt\":[[7],[7,8,9]],\"n\":2,\"best_of\":2}", 2, NULL, 3 },
        { "{\"prompt\":[\"abc\",[7,8]],\"echo\":true}", 2, NULL, 2 },
    };

    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        struct api_request request;
        struct api_error error;
        assert_int_equal(
            api_parse(API_COMPLETION, GOOD[i].body, strlen(GOOD[i].body), &request, &error),
            STATUS_OK);
        assert_int_equal(request.max_tokens, 16);
        assert_int_equal(request.prompts_count, GOOD[i].prompts);
        const struct api_prompt *last = &request.prompts[GOOD[i].prompts - 1];
        assert_int_equal(last->tokens_count, GOOD[i].tokens);
        if (GOOD[i].text != NULL) assert_string_equal(last->text.data, GOOD[i].text);
        if (GOOD[i].tokens > 0) assert_int_equal(last->tokens[0], 7);
        api_request_fini(&request);
    }
}

/* Prompts that are none, and too many of them; the message names the place. */
static void test_bad_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *fields, *param;
    } BAD[] = {
        { "[]", "", "prompt" },
        { "[[]]", "", "prompt[0]" },
        { "[\"a\",[]]", "", "prompt[1]" },
        { "[\"a\",5]", "", "prompt[1]" },
        { "[5,\"a\"]", "", "prompt[1]" },
        { "[[5],[6,-1]]", "", "prompt[1][1]" },
        { "{}", "", "prompt" },
        { "[\"a\",\"b\"]", ",\"n\":65", "n" },
    };
    struct api_request request;
    struct api_error error;
    char body[1024];

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        snprintf(body, sizeof(body), "{\"prompt\":%s%s}", BAD[i].prompt, BAD[i].fields);
        if (api_parse(API_COMPLETION, body, strlen(body), &request, &error) == STATUS_OK)
            fail_msg("accepted: %s", body);
        assert_string_equal(error.param, BAD[i].param);
    }
    size_t len = (size_t)snprintf(body, sizeof(body), "{\"prompt\":[\"\"");
    for (int i = 0; i < API_CHOICES_MAX; i++)
        len += (size_t)snprintf(body + len, sizeof(body) - len, ",\"\"");
    snprintf(body + len, sizeof(body) - len, "]}");
    assert_int_equal(api_parse(API_COMPLETION, body, strlen(body), &request, &error),
                     STATUS_INVALID);
    assert_string_equal(error.param, "prompt");
}

/* What two fields of a chat and one of a completion ask for. */
static void test_logprobs_fields(void **state)
{
    (void)state;
    static const struct {
        enum api_kind kind;
        const char *body;
        uint32_t logprobs;
    } GOOD[] = {
        { API_CHAT, "{" HELLO ",\"logprobs\":false,\"top_logprobs\":0}", 0 },
        { API_CHAT, "{" HELLO ",\"logprobs\":true}", 1 },
        { API_CHAT, "{" HELLO ",\"top_logprobs\":20,\"logprobs\":true}", 21 },
        { API_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":null}", 0 },
        { API_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":0}", 1 },
        { API_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":5}", 6 },
    };

    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        struct api_request request;
        struct api_error error;
        assert_int_equal(
            api_parse(GOOD[i].kind, GOOD[i].body, strlen(GOOD[i].body), &request, &error),
            STATUS_OK);
        assert_int_equal(request.logprobs, GOOD[i].logprobs);
        api_request_fini(&request);
    }
}

static void test_sampling_fields(void **state)
{
    (void)state;
    static const char BODY[] =
        "{\"prompt\":\"x\",\"top_k\":-1,\"min_p\":0.1,\"frequency_penalty\":-2,"
        "\"presence_penalty\":0.5,\"repetition_penalty\":1.25,\"min_tokens\":3,"
        "\"logit_bias\":{\"7\":-100,\"50256\":1.5},\"stop_token_ids\":[4,5]}";
    struct api_request request;
    struct api_error error;

    assert_int_equal(api_parse(API_COMPLETION, BODY, strlen(BODY), &request, &error), STATUS_OK);
    assert_int_equal(request.top_k, 0);
    assert_true(request.min_p == 0.1 && request.repetition_penalty == 1.25);
    assert_true(request.frequency_penalty == -2 && request.presence_penalty == 0.5);
    assert_int_equal(request.min_tokens, 3);
    assert_int_equal(request.biases_count, 2);
    assert_true(request.bias_tokens[0] == 7 && request.biases[0] == -100);
    assert_true(request.bias_tokens[1] == 50256 && request.biases[1] == 1.5f);
    assert_int_equal(request.stop_tokens_count, 2);
    assert_int_equal(request.stop_tokens[1], 5);
    api_request_fini(&request);
}

/* Bodies are wrapped: "{" HELLO "," fields "}" for a chat, {"prompt":"x", fields} otherwise. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        enum api_kind kind;
        const char *fields, *param, *code;
    } BAD[] = {
        { API_CHAT, "\"tools\":[{}]", "tools[0]", "invalid_value" },
        { API_CHAT, "\"tools\":{}", "tools", "invalid_type" },
        { API_CHAT, "\"tool_choice\":\"required\"", "tool_choice", "invalid_value" },
        { API_CHAT, "\"tool_choice\":7", "tool_choice", "invalid_value" },
        { API_CHAT, "\"parallel_tool_calls\":1", "parallel_tool_calls", "invalid_type" },
        { API_CHAT, "\"chat_template_kwargs\":[]", "chat_template_kwargs", "invalid_type" },
        { API_CHAT, "\"response_format\":\"json\"", "response_format", "invalid_type" },
        { API_CHAT, "\"response_format\":{\"type\":\"text\",\"x\":1}", "response_format.x",
          "unknown_parameter" },
        { API_CHAT,
          "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"
          "{\"not\":{}}}}",
          "response_format.json_schema.schema", "invalid_value" },
        { API_CHAT, "\"response_format\":{\"type\":\"json_object\"},\"ignore_eos\":true",
          "ignore_eos", "invalid_value" },
        { API_CHAT, "\"min_tokens\":3,\"response_format\":{\"type\":\"json_object\"}", "min_tokens",
          "invalid_value" },
        { API_CHAT, "\"logprobs\":1", "logprobs", "invalid_type" },
        { API_CHAT, "\"top_logprobs\":2", "top_logprobs", "invalid_value" },
        { API_CHAT, "\"logprobs\":true,\"top_logprobs\":21", "top_logprobs", "invalid_value" },
        { API_CHAT, "\"n\":0", "n", "invalid_value" },
        { API_CHAT, "\"n\":1000000000", "n", "invalid_value" },
        { API_CHAT, "\"n\":1.5", "n", "invalid_type" },
        { API_CHAT, "\"echo\":true", "echo", "unsupported_parameter" },
        { API_CHAT, "\"frequency_penalty\":2.1", "frequency_penalty", "invalid_value" },
        { API_CHAT, "\"presence_penalty\":\"1\"", "presence_penalty", "invalid_type" },
        { API_CHAT, "\"repetition_penalty\":0", "repetition_penalty", "invalid_value" },
        { API_CHAT, "\"logit_bias\":[]", "logit_bias", "invalid_type" },
        { API_CHAT, "\"logit_bias\":{\"5\":101}", "logit_bias.5", "invalid_value" },
        { API_CHAT, "\"logit_bias\":{\"5\":null}", "logit_bias.5", "invalid_type" },
        { API_CHAT, "\"logit_bias\":{\"-1\":1}", "logit_bias.-1", "invalid_value" },
        { API_CHAT, "\"logit_bias\":{\"\":1}", "logit_bias.", "invalid_value" },
        { API_CHAT, "\"logit_bias\":{\"99999999999\":1}", "logit_bias.99999999999",
          "invalid_value" },
        { API_CHAT, "\"min_tokens\":-1", "min_tokens", "invalid_value" },
        { API_CHAT, "\"min_tokens\":9,\"max_tokens\":8", "min_tokens", "invalid_value" },
        { API_CHAT, "\"top_k\":-2", "top_k", "invalid_value" },
        { API_CHAT, "\"min_p\":1.5", "min_p", "invalid_value" },
        { API_CHAT, "\"stop_token_ids\":5", "stop_token_ids", "invalid_type" },
        { API_CHAT, "\"stop_token_ids\":[1,-1]", "stop_token_ids[1]", "invalid_value" },
        { API_CHAT, "\"store\":true", "store", "unsupported_parameter" },
        { API_CHAT, "\"best_of\":1", "best_of", "unknown_parameter" },
        { API_CHAT, "\"cache_salt\":\"\"", "cache_salt", "invalid_value" },
        { API_CHAT, "\"cache_salt\":5", "cache_salt", "invalid_type" },
        { API_CHAT, "\"temprature\":1", "temprature", "unknown_parameter" },
        { API_CHAT, "\"temperature\":\"1\"", "temperature", "invalid_type" },
        { API_CHAT, "\"temperature\":2.1", "temperature", "invalid_value" },
        { API_CHAT, "\"temperature\":-0.1", "temperature", "invalid_value" },
        { API_CHAT, "\"top_p\":0", "top_p", "invalid_value" },
        { API_CHAT, "\"max_tokens\":0", "max_tokens", "invalid_value" },
        { API_CHAT, "\"max_tokens\":-5", "max_tokens", "invalid_value" },
        { API_CHAT, "\"max_tokens\":1.5", "max_tokens", "invalid_type" },
        { API_CHAT, "\"max_tokens\":999999999999", "max_tokens", "invalid_value" },
        { API_CHAT, "\"max_tokens\":true", "max_tokens", "invalid_type" },
        { API_CHAT, "\"seed\":1.5", "seed", "invalid_type" },
        { API_CHAT, "\"stream\":1", "stream", "invalid_type" },
        { API_CHAT, "\"stream_options\":{}", "stream_options", "invalid_value" },
        { API_CHAT, "\"stream\":true,\"stream_options\":{\"x\":1}", "stream_options.x",
          "unknown_parameter" },
        { API_CHAT, "\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":1}",
          "stream_options.continuous_usage_stats", "invalid_type" },
        { API_CHAT, "\"stop\":\"\"", "stop", "invalid_value" },
        { API_CHAT, "\"stop\":[\"a\",3]", "stop[1]", "invalid_type" },
        { API_CHAT, "\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "stop",
          "invalid_value" },
        { API_CHAT, "\"model\":5", "model", "invalid_type" },
        { API_COMPLETION, "\"echo\":1", "echo", "invalid_type" },
        { API_COMPLETION, "\"suffix\":\"x\"", "suffix", "unsupported_parameter" },
        { API_COMPLETION, "\"best_of\":2", "best_of", "unsupported_parameter" },
        { API_COMPLETION, "\"n\":2,\"best_of\":1", "best_of", "unsupported_parameter" },
        { API_COMPLETION, "\"logprobs\":true", "logprobs", "invalid_type" },
        { API_COMPLETION, "\"logprobs\":21", "logprobs", "invalid_value" },
        { API_COMPLETION, "\"prompt_logprobs\":0,\"stream\":true", "prompt_logprobs",
          "unsupported_parameter" },
        { API_CHAT, "\"prompt_logprobs\":-1", "prompt_logprobs", "invalid_value" },
        { API_CHAT, "\"kv_transfer_params\":{}", "kv_transfer_params", "unsupported_parameter" },
        { API_CHAT, "\"guided_json\":\"{\"", "guided_json", "invalid_value" },
        { API_CHAT, "\"guided_json\":{\"type\":\"x\"}", "guided_json", "invalid_value" },
        { API_CHAT, "\"guided_json\":\"{},\\\"object\\\":true\"", "guided_json", "invalid_value" },
        { API_CHAT, "\"structured_outputs\":{\"regex\":\"a\"}", "structured_outputs",
          "unsupported_parameter" },
        { API_CHAT, "\"structured_outputs\":{\"xml\":1}", "structured_outputs.xml",
          "unknown_parameter" },
        { API_CHAT, "\"structured_outputs\":[]", "structured_outputs", "invalid_type" },
        { API_CHAT, "\"structured_outputs\":{\"json\":{\"not\":{}}}", "structured_outputs.json",
          "invalid_value" },
        { API_COMPLETION, "\"max_tokens\":0", "max_tokens", "invalid_value" },
        { API_COMPLETION, "\"messages\":[]", "messages", "unknown_parameter" },
    };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        char body[512];
        struct api_request request;
        struct api_error error;
        snprintf(body, sizeof(body), "{%s,%s}",
                 BAD[i].kind == API_CHAT ? HELLO : "\"prompt\":\"x\"", BAD[i].fields);
        if (api_parse(BAD[i].kind, body, strlen(body), &request, &error) == STATUS_OK) {
            fail_msg("accepted: %s", body);
        }
        assert_int_equal(error.http_status, 400);
        assert_string_equal(error.type, "invalid_request_error");
        assert_string_equal(error.param, BAD[i].param);
        assert_string_equal(error.code, BAD[i].code);
        assert_true(error.message[0] != '\0');
    }
}

/* Whole bodies that are refused, with the words that the message must contain. */
static void test_bad_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param, *word;
    } BAD[] = {
        { "", "", "line 1" },
        { "{\"messages\":[", "", "line 1" },
        { "{} x", "", "column" },
        { "[1]", "", "object" },
        { "{}", "messages", "required" },
        { "{\"messages\":null}", "messages", "required" },
        { "{\"messages\":[]}", "messages", "empty" },
        { "{\"messages\":{}}", "messages", "array" },
        { "{\"messages\":[3]}", "messages[0]", "object" },
        { "{\"messages\":[{\"role\":\"user\"}]}", "messages[0]", "content" },
        { "{\"messages\":[{\"content\":\"x\"}]}", "messages[0]", "role" },
        { "{\"messages\":[{\"role\":\"function\",\"content\":\"x\"}]}", "messages[0].role",
          "tool" },
        { "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[]}]}", "messages[0]", "content" },
        { "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}]}",
          "messages[0].tool_calls[0]", "arguments" },
        { "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":"
          "{\"name\":\"f\",\"arguments\":\"[\"}}]}]}",
          "messages[0].tool_calls[0]", "not the text of an object" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0].content", "string" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "messages[0].content", "empty" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
          "messages[0].content[0]", "text" },
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"audio\":{}}]}",
          "messages[0].audio", "audio" },
        { "{\"user\":\"\xff\"}", "", "UTF-8 at byte 9" },
        { "{\"seed\":123456789012345678901234567890}", "", "big" },
        { "{\"user\":\"a\",\"user\":\"b\"}", "", "duplicate" },
        { "{\"user\":\"\\ud800\"}", "", "" },
        { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "", "deeper" },
    };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        struct api_request request;
        struct api_error error;
        assert_int_equal(api_parse(API_CHAT, BAD[i].body, strlen(BAD[i].body), &request, &error),
                         STATUS_INVALID);
        assert_int_equal(error.http_status, 400);
        assert_string_equal(error.param, BAD[i].param);
        if (strstr(error.message, BAD[i].word) == NULL) {
            fail_msg("%s: '%s' lacks '%s'", BAD[i].body, error.message, BAD[i].word);
        }
    }
}

/* A body of about `size` bytes with a field that nobody reads: an array of `element` only. */
static enum status parse_filled(const char *element, size_t size, struct api_error *error)
{
    static const char START[] = "{" HELLO ",\"metadata\":[";
    const size_t element_len = strlen(element);
    struct api_request request;
    struct buf body;

    buf_init(&body, size + 1024);
    assert_int_equal(buf_append(&body, START, sizeof(START) - 1), STATUS_OK);
    while (body.len + element_len < size) {
        assert_int_equal(buf_append(&body, element, element_len), STATUS_OK);
        assert_int_equal(buf_append(&body, ",", 1), STATUS_OK);
    }
    assert_int_equal(buf_append(&body, "1]}", 3), STATUS_OK);
    const enum status status =
        api_parse(API_CHAT, (const char *)buf_data(&body), body.len, &request, error);
    if (status == STATUS_OK) api_request_fini(&request);
    buf_fini(&body);
    return status;
}

/* A body takes no more memory than some times its size, however much smaller than their values its
 * texts are: the tree lives as long as its request. */
static void test_small_values_by_the_million(void **state)
{
    (void)state;
    static const char *const WIDE[] = { "{}", "[]", "\"\"", "{\"a\":{}}", "\"\\\\\"" };
    static const char *const USUAL[] = { "7", "128000", "\"some words\"",
                                         "{\"role\":\"user\",\"content\":\"some words of it\"}" };
    struct api_error error;

    for (size_t i = 0; i < sizeof(WIDE) / sizeof(WIDE[0]); i++) {
        assert_int_equal(parse_filled(WIDE[i], 1000, &error), STATUS_OK);
        assert_int_equal(parse_filled(WIDE[i], 1 << 20, &error), STATUS_INVALID);
        assert_int_equal(error.http_status, 400);
        assert_non_null(strstr(error.message, "memory"));
    }
    for (size_t i = 0; i < sizeof(USUAL) / sizeof(USUAL[0]); i++)
        assert_int_equal(parse_filled(USUAL[i], 4 << 20, &error), STATUS_OK);
}

static void expect_text(struct buf *out, const char *want)
{
    assert_int_equal(buf_append(out, "", 1), STATUS_OK);
    assert_string_equal((const char *)buf_data(out), want);
    buf_clear(out);
}

static void test_answers(void **state)
{
    (void)state;
    struct api_answer chat = {
        .kind = API_CHAT, .id = "chatcmpl-1", .model = "m\"x", .created_s = 12
    };
    const struct api_answer text = {
        .kind = API_COMPLETION, .id = "cmpl-1", .model = "m", .fingerprint = "fp_1", .created_s = 12
    };
    const struct api_usage usage = { 10, 3, 8 };
    const struct api_choice one = { .text = "a\n\"\x01", .len = 4, .finish_reason = "stop" };
    const struct api_choice two[] = { { .text = "ab", .len = 2, .finish_reason = "length" },
                                      { .index = 1, .finish_reason = "stop" } };
    const struct api_choice piece = {
        .index = 3, .text = "z", .len = 1, .logprobs = { "{\"tokens\":[]}", 13 }
    };
    struct buf out;

    buf_init(&out, 4096);
    assert_int_equal(api_write_answer(&out, &chat, &one, 1, &usage), STATUS_OK);
    expect_text(&out, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":12,"
                      "\"model\":\"m\\\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
                      "\"assistant\",\"content\":\"a\\n\\\"\\u0001\"},\"logprobs\":null,"
                      "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,"
                      "\"completion_tokens\":3,\"total_tokens\":13,\"prompt_tokens_details\":"
                      "{\"cached_tokens\":8}}}");
    assert_int_equal(api_write_answer(&out, &text, two, 2, &usage), STATUS_OK);
    expect_text(&out, "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":12,"
                      "\"model\":\"m\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,"
                      "\"text\":\"ab\",\"logprobs\":null,"
                      "\"finish_reason\":\"length\"},{\"index\":1,\"text\":\"\",\"logprobs\":null,"
                      "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,"
                      "\"completion_tokens\":3,\"total_tokens\":13,\"prompt_tokens_details\":"
                      "{\"cached_tokens\":8}}}");

    chat.include_usage = true;
    assert_int_equal(api_write_chunk_role(&out, &chat, 1), STATUS_OK);
    expect_text(&out, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                      "\"created\":12,\"model\":\"m\\\"x\",\"choices\":[{\"index\":1,\"delta\":"
                      "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                      "\"finish_reason\":null}],\"usage\":null}\n\n");
    chat.so_far = &usage;
    assert_int_equal(api_write_chunk_role(&out, &chat, 0), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    assert_non_null(strstr((char *)buf_data(&out), "}],\"usage\":{\"prompt_tokens\":10,"));
    buf_clear(&out);
    assert_int_equal(api_write_chunk_usage(&out, &chat, &usage), STATUS_OK);
    expect_text(&out, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                      "\"created\":12,\"model\":\"m\\\"x\",\"choices\":[],\"usage\":"
                      "{\"prompt_tokens\":10,\"completion_tokens\":3,\"total_tokens\":13,"
                      "\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n");
    assert_int_equal(api_write_chunk_text(&out, &text, &piece), STATUS_OK);
    expect_text(&out, "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":12,"
                      "\"model\":\"m\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":3,"
                      "\"text\":\"z\",\"logprobs\":"
                      "{\"tokens\":[]},\"finish_reason\":null}]}\n\n");
    assert_int_equal(api_write_chunk_done(&out), STATUS_OK);
    expect_text(&out, "data: [DONE]\n\n");
    buf_fini(&out);
}

/* Everything we write, we can read. */
static void test_answers_are_json(void **state)
{
    (void)state;
    struct api_error error;
    const struct api_model model = { "m", 5, 8192 };
    char text[256];
    struct buf out;

    for (int i = 0; i < 128; i++)
        text[i] = (char)i;
    buf_init(&out, 8192);
    for (int kind = API_CHAT; kind <= API_COMPLETION; kind++) {
        const struct api_answer answer = { .kind = (enum api_kind)kind,
                                           .id = "i",
                                           .model = "m",
                                           .created_s = 1,
                                           .include_usage = true };
        const struct api_usage usage = { 1, 1, 1 };
        const struct api_choice choice = { .text = text, .len = 128, .finish_reason = "stop" };
        struct json_doc *doc = NULL;
        buf_clear(&out);
        assert_int_equal(api_write_answer(&out, &answer, &choice, 1, &usage), STATUS_OK);
        assert_int_equal(api_json_parse((char *)buf_data(&out), out.len, &doc, NULL), STATUS_OK);
        api_json_destroy(doc);
        buf_clear(&out);
        assert_int_equal(api_write_chunk_finish(&out, &answer, &choice), STATUS_OK);
        assert_int_equal(api_json_parse((char *)buf_data(&out) + 6, out.len - 8, &doc, NULL),
                         STATUS_OK);
        api_json_destroy(doc);
        buf_clear(&out);
        assert_int_equal(api_write_models(&out, &model), STATUS_OK);
        assert_int_equal(api_json_parse((char *)buf_data(&out), out.len, &doc, NULL), STATUS_OK);
        api_json_destroy(doc);
    }
    buf_clear(&out);
    assert_int_equal(api_refuse(&error, 404, "model_not_found", "model", "no '%s'", "q\n"),
                     STATUS_INVALID);
    assert_int_equal(api_write_error(&out, &error), STATUS_OK);
    expect_text(&out, "{\"error\":{\"message\":\"no 'q\\n'\",\"type\":\"not_found_error\","
                      "\"param\":\"model\",\"code\":\"model_not_found\"}}");
    buf_fini(&out);
}

/* A buffer that is full says so and never holds more than it may. */
static void test_full_buffer(void **state)
{
    (void)state;
    const struct api_answer answer = { .kind = API_CHAT, .id = "id", .model = "m", .created_s = 1 };
    const struct api_usage usage = { 1, 1, 0 };
    const struct api_choice choice = { .text = "text", .len = 4, .finish_reason = "stop" };

    for (size_t max = 1; max < 300; max++) {
        struct buf out;
        buf_init(&out, max);
        const enum status status = api_write_answer(&out, &answer, &choice, 1, &usage);
        assert_true(status == STATUS_OK || status == STATUS_FULL);
        assert_true(out.len <= max);
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_chat),       cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_logprobs_fields), cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_sampling_fields), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bad_bodies),      cmocka_unit_test(test_small_values_by_the_million),
        cmocka_unit_test(test_answers),         cmocka_unit_test(test_answers_are_json),
        cmocka_unit_test(test_full_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
