/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_calls_test.c
 *
 * Goal:   content and calls come apart the same way however the text was cut, and nothing is lost.
 * Method: answers by hand, given whole, byte by byte, and in random pieces; calls written in pieces
 * are put together as a client does. */
#include "serve/gateway_calls.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "seed.h"

static const char F[] = "{\"index\":0,\"id\":\"call_0000000000000007_0\",\"type\":\"function\","
                        "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}";
static const char FG[] = "{\"index\":0,\"id\":\"call_0000000000000007_0\",\"type\":\"function\","
                         "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}},"
                         "{\"index\":1,\"id\":\"call_0000000000000007_1\",\"type\":\"function\","
                         "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}";

static const struct {
    enum chat_tools style;
    bool forced;
    const char *text, *content, *calls;
} ANSWERS[] = {
    { CHAT_TOOLS_NONE, false, "<tool_call>{}</tool_call>", "<tool_call>{}</tool_call>", "" },
    { CHAT_TOOLS_HERMES, false, "Just text < here.", "Just text < here.", "" },
    { CHAT_TOOLS_HERMES, false,
      "So:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>", "So:\n", F },
    { CHAT_TOOLS_HERMES, true, "{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n", "",
      F },
    { CHAT_TOOLS_HERMES, false,
      "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":1}}</tool_call>\n\n<tool_call>\n"
      "{\"name\":\"g\"}</tool_call> ",
      "", FG },
    { CHAT_TOOLS_HERMES, false, "<tool_call>not JSON</tool_call>!",
      "<tool_call>not JSON</tool_call>!", "" },
    { CHAT_TOOLS_HERMES, false, "<tool_call>{\"name\":1}</tool_call>",
      "<tool_call>{\"name\":1}</tool_call>", "" },
    { CHAT_TOOLS_HERMES, false, "half a <tool_", "half a <tool_", "" },
    { CHAT_TOOLS_LLAMA3, false, "Text {\"name\": \"f\"}", "Text {\"name\": \"f\"}", "" },
    { CHAT_TOOLS_LLAMA3, false, " {\"name\": \"f\", \"parameters\": {\"x\": 1}}", "", F },
    { CHAT_TOOLS_LLAMA3, false, "{\"name\": \"f\", \"parameters\": [1]}",
      "{\"name\": \"f\", \"parameters\": [1]}", "" },
    { CHAT_TOOLS_LLAMA3, true, "{\"name\": \"f\", \"parameters\": {\"x\": 1}}", "", F },
    { CHAT_TOOLS_MISTRAL, false, "[1, 2]", "[1, 2]", "" },
    { CHAT_TOOLS_MISTRAL, true,
      "[{\"name\": \"f\", \"arguments\": {\"x\": 1}}, {\"name\": \"g\", \"arguments\": {}}]", "",
      FG },
    { CHAT_TOOLS_MISTRAL, true, "[{\"name\": \"f\"}, 7]", "[{\"name\": \"f\"}, 7]", "" },
};

/* In pieces of `piece` bytes; 0: random ones. */
static void check(size_t which, size_t piece, struct rng *rng)
{
    const char *text = ANSWERS[which].text;
    const size_t len = strlen(text);
    struct gateway_calls calls;
    struct buf content, out;

    buf_init(&content, 1 << 16);
    buf_init(&out, 1 << 16);
    gateway_calls_init(&calls, ANSWERS[which].style, ANSWERS[which].forced, false, 7);
    for (size_t at = 0; at < len;) {
        size_t n = piece > 0 ? piece : 1 + rng_below(rng, 9);
        if (n > len - at) n = len - at;
        assert_int_equal(gateway_calls_push(&calls, text + at, n, &content, &out), STATUS_OK);
        at += n;
    }
    assert_int_equal(gateway_calls_finish(&calls, &content, &out), STATUS_OK);
    assert_int_equal(content.len, strlen(ANSWERS[which].content));
    assert_memory_equal(buf_data(&content), ANSWERS[which].content, content.len);
    assert_int_equal(out.len, strlen(ANSWERS[which].calls));
    assert_memory_equal(buf_data(&out), ANSWERS[which].calls, out.len);
    gateway_calls_fini(&calls);
    buf_fini(&content);
    buf_fini(&out);
}

static void calls_come_out_of_any_pieces(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (size_t i = 0; i < sizeof(ANSWERS) / sizeof(ANSWERS[0]); i++) {
        check(i, 1 << 16, &rng);
        check(i, 1, &rng);
        for (int k = 0; k < 20; k++)
            check(i, 0, &rng);
    }
}

/* ---- in pieces ---- */

static const struct {
    enum chat_tools style;
    bool forced;
    const char *text, *content, *calls; /* as "name(arguments) ..." */
} PIECES[] = {
    { CHAT_TOOLS_HERMES, false,
      "So:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, \"a \\\" "
      "}\"]}}\n</tool_call>\n"
      "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call> ok",
      "So:\nok", "f({\"x\":[1,\"a \\\" }\"]}) g({}) " },
    { CHAT_TOOLS_HERMES, true,
      "{\"name\": \"f\", \"arguments\": {\"x\": \"a\\\\\"}}\n</tool_call> ok", "ok",
      "f({\"x\":\"a\\\\\"}) " },
    { CHAT_TOOLS_HERMES, true, "{\"name\": \"f\", \"arguments\": {\"x\": 1", "", "f({\"x\":1) " },
    { CHAT_TOOLS_HERMES, true, "{\"name\": \"f", "{\"name\": \"f", "" },
    { CHAT_TOOLS_HERMES, false, "<tool_call>{\"name\":\"f\"}</tool_call>!", "!", "f({}) " },
    { CHAT_TOOLS_LLAMA3, false, " {\"name\": \"f\", \"parameters\": {\"x\": {}}}", "",
      "f({\"x\":{}}) " },
    { CHAT_TOOLS_LLAMA3, false, "{\"a\": 1}", "{\"a\": 1}", "" },
    { CHAT_TOOLS_MISTRAL, true,
      "[{\"name\": \"f\", \"arguments\": {\"x\": 1}}, {\"name\": \"g\", \"arguments\": {}}]", "",
      "f({\"x\":1}) g({}) " },
};

/* As a client puts them together: a name begins a call, arguments are added to the last one. */
static void put_together(const struct buf *out, struct buf *calls)
{
    struct json_value *list;
    struct errmsg err;
    struct buf text;
    int64_t index = -1, now = 0;

    buf_init(&text, 1 << 16);
    assert_int_equal(
        buf_printf(&text, "[%.*s]", (int)out->len, out->len > 0 ? (char *)buf_data(out) : ""),
        STATUS_OK);
    assert_int_equal(json_document_parse((const char *)buf_data(&text), text.len, &list, &err),
                     STATUS_OK);
    for (size_t i = 0; i < json_value_count(list); i++) {
        const struct json_value *one = json_value_at(list, i);
        const struct json_value *function = json_value_member(one, "function");
        const char *name = json_value_text(json_value_member(function, "name"));
        assert_true(json_value_integer(json_value_member(one, "index"), &now));
        assert_int_equal(now, name != NULL ? index + 1 : index);
        assert_int_equal(json_value_member(one, "id") != NULL, name != NULL);
        if (name != NULL)
            assert_int_equal(buf_printf(calls, "%s%s(", index >= 0 ? ") " : "", name), STATUS_OK);
        index = now;
        const char *arguments = json_value_text(json_value_member(function, "arguments"));
        assert_int_equal(buf_append_text(calls, arguments), STATUS_OK);
    }
    if (index >= 0) assert_int_equal(buf_append_text(calls, ") "), STATUS_OK);
    json_document_destroy(list);
    buf_fini(&text);
}

static void pieces_are_put_together(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (size_t i = 0; i < sizeof(PIECES) / sizeof(PIECES[0]) * 12; i++) {
        const size_t which = i / 12, len = strlen(PIECES[which].text);
        struct gateway_calls calls;
        struct buf content, out, together;
        buf_init(&content, 1 << 16);
        buf_init(&out, 1 << 16);
        buf_init(&together, 1 << 16);
        gateway_calls_init(&calls, PIECES[which].style, PIECES[which].forced, true, 7);
        for (size_t at = 0; at < len;) {
            size_t n = i % 12 == 0 ? len : i % 12 == 1 ? 1 : 1 + rng_below(&rng, 9);
            if (n > len - at) n = len - at;
            assert_int_equal(gateway_calls_push(&calls, PIECES[which].text + at, n, &content, &out),
                             STATUS_OK);
            at += n;
        }
        assert_int_equal(gateway_calls_finish(&calls, &content, &out), STATUS_OK);
        put_together(&out, &together);
        assert_int_equal(content.len, strlen(PIECES[which].content));
        assert_memory_equal(buf_data(&content), PIECES[which].content, content.len);
        assert_int_equal(together.len, strlen(PIECES[which].calls));
        assert_memory_equal(buf_data(&together), PIECES[which].calls, together.len);
        gateway_calls_fini(&calls);
        buf_fini(&content);
        buf_fini(&out);
        buf_fini(&together);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(calls_come_out_of_any_pieces),
                                        cmocka_unit_test(pieces_are_put_together) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
