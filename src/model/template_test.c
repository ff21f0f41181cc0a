/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_test.c
 *
 * Goal:   templates give what Jinja gives; marks stay with the bytes that messages brought.
 * Method: small templates and their output from Jinja itself (tests/golden/template.txt, made by
 * tools/golden/make_templates.py); marks checked by hand. What is refused is in chat_test.c. */
#include "model/template.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* As in make_templates.py. */
static const char CALLS[] =
    "[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"weather\","
    "\"arguments\":{\"city\":\"K\xc3\xb6ln\",\"days\":2}}}]";
static const char VARIABLES[] =
    "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\","
    "\"description\":\"Says \\\"how\\\" it is\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\","
    "\"default\":1.5}},\"required\":[\"city\"]}}},{\"type\":\"function\",\"function\":"
    "{\"name\":\"time\",\"parameters\":{}}}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\","
    "\"eos_token\":\"</s>\",\"words\":[\"pear\",\"fig\",\"apple\",\"fig\"],\"empty\":[],"
    "\"number\":7,\"nothing\":null}";

#define TEXT(text) .content = (text), .content_len = sizeof(text) - 1
#define ROLE(text) .role = (text), .role_len = sizeof(text) - 1

static struct template_message messages[] = {
    { ROLE("system"), TEXT(" Be brief.\n") },
    { ROLE("user"), TEXT("H\xc3\xa4? <|im_end|>") },
    { ROLE("assistant") },
    { ROLE("tool"), TEXT("{\"rain\": true}"), .tool_call_id = "call_1", .tool_call_id_len = 6 },
    { ROLE("assistant"), TEXT("It rains.") },
    { ROLE("user"), TEXT("Thanks\nfriend") },
};
enum { MESSAGES = sizeof(messages) / sizeof(messages[0]) };

static struct template_input inputs[16];
static size_t inputs_count;
static struct json_value *variables, *calls;

static bool add_input(void *ctx, const char *name, const struct json_value *value)
{
    (void)ctx;
    inputs[inputs_count++] = (struct template_input){
        .name = name, .kind = TEMPLATE_INPUT_JSON, .json = value, .marked = true
    };
    return true;
}

static int make_inputs(void **state)
{
    struct errmsg err;

    (void)state;
    if (json_document_parse(VARIABLES, sizeof(VARIABLES) - 1, &variables, &err) != STATUS_OK ||
        json_document_parse(CALLS, sizeof(CALLS) - 1, &calls, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    json_value_each(variables, add_input, NULL);
    messages[2].tool_calls = calls;
    return 0;
}

static int drop_inputs(void **state)
{
    (void)state;
    json_document_destroy(variables);
    json_document_destroy(calls);
    return 0;
}

static struct template_output render(const char *text, size_t len)
{
    struct template *template;
    struct template_output output;
    struct errmsg err = { "" };

    if (template_parse(text, len, &template, &err) != STATUS_OK)
        fail_msg("%.*s: %s", (int)len, text, err.text);
    if (template_render(template, messages, MESSAGES, inputs, inputs_count, &output, &err) !=
        STATUS_OK)
        fail_msg("%.*s: %s", (int)len, text, err.text);
    template_destroy(template);
    return output;
}

/* "WORD LENGTH\n" and so many bytes and a newline; false at the end of the file. */
static bool read_part(FILE *file, const char *word, char **data, size_t *len)
{
    char found[16];

    if (fscanf(file, "%15s %zu", found, len) != 2) return false;
    assert_string_equal(found, word);
    assert_int_equal(fgetc(file), '\n');
    *data = malloc(*len + 1);
    assert_non_null(*data);
    assert_int_equal(fread(*data, 1, *len, file), *len);
    (*data)[*len] = '\0';
    assert_int_equal(fgetc(file), '\n');
    return true;
}

static void as_jinja_does(void **state)
{
    FILE *file = fopen("tests/golden/template.txt", "rb"); /* tests run in the tree's root */
    char *template, *text;
    size_t template_len, text_len, count = 0;

    (void)state;
    assert_non_null(file);
    while (read_part(file, "template", &template, &template_len)) {
        assert_true(read_part(file, "text", &text, &text_len));
        struct template_output output = render(template, template_len);
        if (output.len != text_len || (text_len > 0 && memcmp(output.text, text, text_len) != 0)) {
            fail_msg("%s\ngives \"%.*s\"\nnot   \"%s\"", template, (int)output.len, output.text,
                     text);
        }
        template_output_fini(&output);
        free(template);
        free(text);
        count++;
    }
    fclose(file);
    printf("%zu templates\n", count);
    assert_true(count > 50);
}

/* Marks as a text: 'u' for what messages and variables brought, 't' for the template's own. */
static const struct {
    const char *template;
    const char *text, *marks;
} marked[] = {
    { "a{{ messages[4].content }}b", "aIt rains.b", "tuuuuuuuuut" },
    { "{{ 'x' ~ messages[4].content[0:2] ~ 'y' }}", "xIty", "tuut" },
    { "{{ messages[4].content | replace('rains', 'is') | upper }}", "IT IS.", "uuuttu" },
    { "{{ messages[4].content.split(' ') | join('-') }}", "It-rains.", "uutuuuuuu" },
    { "{{ messages[5].content[:6] | tojson }}", "\"Thanks\"", "tuuuuuut" },
    { "{{ (messages[5].content | tojson)[6:9] }}", "s\\n", "uuu" },
    { "{% set x %}<{{ messages[5].content[0] }}>{% endset %}{{ x | trim }}", "<T>", "tut" },
    { "{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(messages[5].content[0]) }}", "<T>", "tut" },
    { "{{ words[1] }}{{ words | first | title }}", "figPear", "uuuuuuu" },
    { "{{ messages[0].content | trim | indent(2, true) }}", "  Be brief.", "ttuuuuuuuuu" },
    { "{% for c in messages[4].content[:2] %}{{ c }}.{% endfor %}", "I.t.", "utut" },
    { "{{ messages[2].tool_calls[0].function.arguments | tojson }}",
      "{\"city\": \"K\xc3\xb6ln\", \"days\": 2}",
      "ttuuuutttt"
      "uuuuu"
      "ttttuuuuttttt" },
};

static const struct {
    int64_t now_s;
    const char *text, *wanted;
} times[] = {
    { 1721563509, "{{ strftime_now('%d %b %Y') }}", "21 Jul 2024" },
    { 951825599, "{{ strftime_now('%A, %B %e; %j %H:%M:%S %I%p%%') }}",
      "Tuesday, February 29; 060 11:59:59 11AM%" },
    { 0, "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d %y%a%Z %') }}{% endif %}",
      "1970-01-01 70ThuUTC %" },
};

/* Whole seconds in UTC; what is not known is refused by name. */
static void the_clock_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        const struct template_input now = { .kind = TEMPLATE_INPUT_NOW, .now_s = times[i].now_s };
        struct template *template;
        struct template_output output;
        struct errmsg err = { "" };
        assert_int_equal(template_parse(times[i].text, strlen(times[i].text), &template, &err),
                         STATUS_OK);
        assert_int_equal(template_render(template, messages, 1, &now, 1, &output, &err), STATUS_OK);
        assert_int_equal(output.len, strlen(times[i].wanted));
        assert_memory_equal(output.text, times[i].wanted, output.len);
        template_output_fini(&output);
        template_destroy(template);
    }
    struct template *template;
    struct template_output output;
    struct errmsg err = { "" };
    assert_int_equal(template_parse("{{ strftime_now('a%Q') }}", 25, &template, &err), STATUS_OK);
    assert_int_equal(template_render(template, messages, 1, NULL, 0, &output, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "knows no %Q"));
    template_destroy(template);
}

static void marks_stay_with_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(marked) / sizeof(marked[0]); i++) {
        const char *text = marked[i].template;
        struct template_output output = render(text, strlen(text));
        if (output.len != strlen(marked[i].text) ||
            memcmp(output.text, marked[i].text, output.len) != 0)
            fail_msg("%s gives \"%.*s\"", text, (int)output.len, output.text);
        assert_int_equal(strlen(marked[i].marks), output.len);
        for (size_t k = 0; k < output.len; k++) {
            if (output.marks[k] != (marked[i].marks[k] == 'u'))
                fail_msg("%s: byte %zu is %s", text, k, output.marks[k] ? "marked" : "not marked");
        }
        template_output_fini(&output);
    }
}

/* Work and memory have ends, whatever a template does. */
static void limits_hold(void **state)
{
    static const char *const GREEDY[] = {
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}",
        "{% macro a() %}{{ a() ~ a() }}{% endmacro %}{{ a() }}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(GREEDY) / sizeof(GREEDY[0]); i++) {
        struct template *template;
        struct template_output output;
        struct errmsg err;
        assert_int_equal(template_parse(GREEDY[i], strlen(GREEDY[i]), &template, &err), STATUS_OK);
        assert_int_equal(
            template_render(template, messages, MESSAGES, inputs, inputs_count, &output, &err),
            STATUS_FULL);
        template_destroy(template);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_jinja_does),
        cmocka_unit_test(marks_stay_with_bytes),
        cmocka_unit_test(the_clock_is_told),
        cmocka_unit_test(limits_hold),
    };

    return cmocka_run_group_tests(tests, make_inputs, drop_inputs);
}
