/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_test.c
 *
 * Goal:   what is sampled under a mask is JSON and valid by its schema; nothing is ever stuck; what
 *         cannot be done is refused by name.
 * Method: texts by hand that must be taken or not; random schemas, tokens drawn at random from the
 * masks, and the result read by a parser and judged by a validator that knows nothing of rules;
 * masks compared with asking for every token, and with a matcher that follows the tokens anew. */
#include "infer/grammar.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/rng.h"
#include "grammar_words.h"
#include "seed.h"

enum { TOKENS_MAX = 2000, WORDS = (TINY_VOCAB + 63) / 64 };

/* ---- by hand ---- */

static const struct {
    const char *document;
    const char *yes[6], *no[8];
} texts[] = {
    { "{\"object\":true}",
      { "{}", "{\"a\": [1, -2.5e+10, true, null, {}]}", "{\n  \"\\u00e4\\n\": \"h\xc3\xa4\"\n}" },
      { "", "[]", "{} ", "{\"a\":}", "{\"a\":01}", "{'a':1}", "{\"a\":\"\xc3\"}", "{\"a\":1,}" } },
    { "{\"schema\":{\"type\":[\"integer\",\"null\"]}}",
      { "0", "-17", "null" },
      { "1.0", "00", "-", "nul", "1e3", "\"1\"" } },
    { "{\"schema\":{\"enum\":[\"red\",\"re\",\"green\",1,12,{\"a\":[1]}]}}",
      { "\"red\"", "\"re\"", "1", "12", "{\"a\":[1]}" },
      { "\"r\"", "\"redd\"", "2", "{\"a\": [1]}" } },
    { "{\"schema\":{\"const\":\"a\\\"b\"}}", { "\"a\\\"b\"" }, { "\"ab\"", "\"a" } },
    { "{\"schema\":{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"},"
      "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}}",
      { "{\"b\":true}", "{\"a\":1,\"b\":false}", "{\"b\": true, \"c\": null}",
        "{\"a\":1,\"b\":true,\"c\":null}" },
      { "{}", "{\"a\":1}", "{\"a\":1,\"c\":null}", "{\"b\":true,\"a\":1}", "{\"b\":true,}",
        "{\"b\":true,\"d\":1}" } },
    { "{\"schema\":{\"properties\":{\"a\":{},\"b\":{}}}}",
      { "{}", "{\"a\":1}", "{\"b\":[]}", "{\"a\":1,\"b\":2}" },
      { "{,\"a\":1}", "{\"b\":1,\"a\":1}" } },
    { "{\"schema\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}}",
      { "{}", "{\"x\":1}", "{\"x\":1,\"y\":2}" },
      { "{\"x\":\"1\"}" } },
    { "{\"schema\":{\"type\":\"object\",\"additionalProperties\":false}}",
      { "{}" },
      { "{\"a\":1}" } },
    { "{\"schema\":{\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":2}}",
      { "[true]", "[true, false]" },
      { "[]", "[true,false,true]", "[1]" } },
    { "{\"schema\":{\"type\":\"array\",\"minItems\":2,\"items\":{\"type\":\"null\"}}}",
      { "[null,null]", "[null,null,null,null]" },
      { "[null]", "[]" } },
    { "{\"schema\":{\"minLength\":2,\"maxLength\":3}}",
      { "\"ab\"", "\"\xc3\xa4\xf0\x9f\x98\x80\\n\"", "\"\\u00e4bc\"" },
      { "\"a\"", "\"abcd\"", "\"\\ud800\\ud800\"", "\"\\u0000a\"" } },
    { "{\"schema\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"number\"},{\"const\":\"x\"}]}}",
      { "1", "1.5", "\"x\"" },
      { "\"y\"" } },
    { "{\"schema\":{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"value\":"
      "{\"type\":\"integer\"},\"left\":{\"$ref\":\"#/$defs/tree\"}},\"required\":[\"value\"],"
      "\"additionalProperties\":false}},\"$ref\":\"#/$defs/tree\"}}",
      { "{\"value\":1}", "{\"value\":1,\"left\":{\"value\":2,\"left\":{\"value\":3}}}" },
      { "{\"left\":{}}", "{\"value\":1,\"left\":{}}" } },
    { "{\"calls\":{\"style\":\"hermes\",\"many\":true,\"tools\":[{\"name\":\"f\",\"parameters\":"
      "{\"properties\":{\"x\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"x\"],"
      "\"$defs\":{\"n\":{\"type\":\"integer\"}}}},{\"name\":\"g\"}]}}",
      { "{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>",
        "{\"name\": \"g\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
        "{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>" },
      { "{\"name\": \"h\", \"arguments\": {}}\n</tool_call>",
        "{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
        "{\"name\": \"g\", \"arguments\": {}}" } },
    { "{\"calls\":{\"style\":\"llama3\",\"tools\":[{\"name\":\"f\"}]}}",
      { "{\"name\": \"f\", \"parameters\": {\"a\": 1}}" },
      { "{\"name\": \"f\", \"arguments\": {}}" } },
    { "{\"calls\":{\"style\":\"mistral\",\"many\":false,\"tools\":[{\"name\":\"f\"}]}}",
      { "[{\"name\": \"f\", \"arguments\": {}}]" },
      { "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", \"arguments\": {}}]" } },
};

#define LAZY(style, many)                                                                          \
    "{\"calls\":{\"style\":\"" style "\",\"many\":" many ",\"lazy\":true,\"tools\":[{\"name\":"    \
    "\"f\"}]}}"
#define CALL "{\"name\": \"f\", \"arguments\": {\"x\": [1]}}"
#define TAGGED "<tool_call>\n" CALL "\n</tool_call>"

/* Calls that the model makes of its own accord. */
static const struct {
    const char *document;
    const char *yes[6], *no[8];
} lazy_texts[] = {
    { LAZY("hermes", "true"),
      { "", "Just {\"name\": 1} <tool <<tool_call", "So:\n" TAGGED, TAGGED TAGGED ".",
        "<tool_<tool_call>\n" CALL "\n</tool_call> \xff" },
      { "<tool_call>", "<tool_call>x", "a<tool_call>\n{}", "<tool_call>\n" CALL,
        TAGGED "<tool_call>", "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>" } },
    { LAZY("hermes", "false"), { "no", "So: " TAGGED }, { TAGGED " ", TAGGED TAGGED } },
    { LAZY("llama3", "true"),
      { "Hi {\"name\": \"g\"", "{\"name\":\"g\"}", " \n{\"name\": \"f\", \"parameters\": {}}" },
      { "{\"name\": \"g\"", "{\"name\": \"f\", \"parameters\": {}} ", "{\"name\": \"f\"}" } },
    { LAZY("mistral", "true"),
      { "[1]", "[TOOL_CALLS][" CALL "]", "x[TOOL_CALLS] [" CALL ", " CALL "]" },
      { "[TOOL_CALLS]", "[TOOL_CALLS][]", "[TOOL_CALLS][" CALL "] " } },
};

static void calls_of_ones_own_accord_are_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(lazy_texts) / sizeof(lazy_texts[0]); i++) {
        struct grammar *grammar = compiled(lazy_texts[i].document);
        assert_true(grammar_is_lazy(grammar));
        for (size_t k = 0; k < 6 && lazy_texts[i].yes[k] != NULL; k++) {
            if (!takes(grammar, lazy_texts[i].yes[k]))
                fail_msg("%s does not take %s", lazy_texts[i].document, lazy_texts[i].yes[k]);
        }
        for (size_t k = 0; k < 8 && lazy_texts[i].no[k] != NULL; k++) {
            if (takes(grammar, lazy_texts[i].no[k]))
                fail_msg("%s takes %s", lazy_texts[i].document, lazy_texts[i].no[k]);
        }
        grammar_destroy(grammar);
    }
}

static void texts_are_taken_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct grammar *grammar = compiled(texts[i].document);
        for (size_t k = 0; k < 6 && texts[i].yes[k] != NULL; k++) {
            if (!takes(grammar, texts[i].yes[k]))
                fail_msg("%s does not take %s", texts[i].document, texts[i].yes[k]);
        }
        for (size_t k = 0; k < 8 && texts[i].no[k] != NULL; k++) {
            if (takes(grammar, texts[i].no[k]))
                fail_msg("%s takes %s", texts[i].document, texts[i].no[k]);
        }
        grammar_destroy(grammar);
    }
}

static const struct {
    const char *document, *error;
} refused[] = {
    { "{", "line 1" },
    { "{}", "neither object, schema nor calls" },
    { "{\"schema\":{\"type\":\"string\",\"contentEncoding\":\"base64\"}}",
      "schema: not supported here: 'contentEncoding'" },
    { "{\"schema\":{\"properties\":{\"a\":{\"items\":{\"uniqueItems\":true}}}}}",
      "schema.properties.a.items: not supported here: 'uniqueItems'" },
    { "{\"schema\":{\"anyOf\":[{},{\"not\":{}}]}}", "schema.anyOf[1]: nothing fits 'not'" },
    { "{\"schema\":{\"anyOf\":[{}],\"type\":\"string\"}}", "schema: not supported here: 'type'" },
    { "{\"schema\":{\"allOf\":[{},{}]}}", "more than one in 'allOf'" },
    { "{\"schema\":{\"type\":\"text\"}}", "schema: unknown 'type'" },
    { "{\"schema\":{\"enum\":[]}}", "values in 'enum'" },
    { "{\"schema\":{\"enum\":[1],\"type\":\"string\"}}", "no value fits 'type'" },
    { "{\"schema\":{\"enum\":[\"a\"],\"minLength\":2}}", "not supported here: 'minLength'" },
    { "{\"schema\":{\"minItems\":3,\"maxItems\":2}}", "nothing fits 'minItems'" },
    { "{\"schema\":{\"maxLength\":1000000000}}", "'maxLength'" },
    { "{\"schema\":{\"uniqueItems\":true}}", "'uniqueItems'" },
    { "{\"schema\":{\"required\":[\"a\"],\"additionalProperties\":false}}",
      "required and not allowed: 'a'" },
    { "{\"schema\":{\"$ref\":\"http://x/y\"}}", "names nothing in this document" },
    { "{\"schema\":{\"$ref\":\"#/$defs/x\"}}", "names nothing in this document" },
    { "{\"schema\":{\"$ref\":\"#\"}}", "refers to itself with nothing around it" },
    { "{\"schema\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}}",
      "refers to itself with nothing around it" },
    { "{\"schema\":{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}}",
      "nothing that ends is allowed" },
    { "{\"schema\":{\"properties\":{\"a\":false}}}", "schema.properties.a: false allows nothing" },
    { "{\"schema\":{\"items\":{\"items\":{\"maxLength\":8000},\"maxItems\":8000},\"maxItems\":8000,"
      "\"minItems\":8000}}",
      NULL },
    { "{\"calls\":{\"style\":\"other\",\"tools\":[]}}", "unknown 'style'" },
    { "{\"calls\":{\"style\":\"hermes\",\"tools\":[{\"name\":\"f\",\"parameters\":"
      "{\"properties\":{\"x\":{\"not\":{}}}}}]}}",
      "tools[0].parameters.properties.x: nothing fits 'not'" },
};

static void the_rest_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct grammar *grammar;
        struct errmsg err = { "" };
        const enum status status =
            grammar_compile(refused[i].document, strlen(refused[i].document), &grammar, &err);
        if (refused[i].error == NULL) {
            if (status == STATUS_OK) grammar_destroy(grammar); /* large, and bounded */
            continue;
        }
        if (status != STATUS_INVALID) fail_msg("%s: is not refused", refused[i].document);
        if (strstr(err.text, refused[i].error) == NULL)
            fail_msg("%s: %s", refused[i].document, err.text);
    }
}

/* Documents that would be large are refused, or bounded. */
static void explosions_are_bounded(void **state)
{
    struct buf text;
    struct grammar *grammar;

    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        buf_init(&text, 1 << 20);
        assert_int_equal(buf_append_text(&text, "{\"schema\":"), STATUS_OK);
        for (int i = 0; i < 40; i++) {
            /* Each level doubles the ways to read a text, counts up to 8,000, or nests. */
            const char *open = kind == 0   ? "{\"anyOf\":[{\"type\":\"array\"},"
                               : kind == 1 ? "{\"maxItems\":8000,\"items\":"
                                           : "{\"anyOf\":[{},";
            assert_int_equal(buf_append_text(&text, open), STATUS_OK);
        }
        assert_int_equal(buf_append_text(&text, "{}"), STATUS_OK);
        for (int i = 0; i < 40; i++)
            assert_int_equal(buf_append_text(&text, kind == 1 ? "}" : "]}"), STATUS_OK);
        assert_int_equal(buf_append_text(&text, "}"), STATUS_OK);
        if (grammar_compile((const char *)buf_data(&text), text.len, &grammar, NULL) == STATUS_OK) {
            assert_true(takes(grammar, "[[[[]]]]"));
            grammar_destroy(grammar);
        }
        buf_fini(&text);
    }
}

/* ---- random schemas ---- */

static uint32_t below(struct rng *rng, uint32_t n)
{
    return (uint32_t)rng_below(rng, n);
}

static void put(struct buf *out, const char *text)
{
    assert_int_equal(buf_append_text(out, text), STATUS_OK);
}

static const char *const VALUES[] = { "1",           "-20",  "2.5",   "\"a\"",         "\"a b\"",
                                      "true",        "null", "[1,2]", "{\"k\":\"v\"}", "\"\"",
                                      "\"\xc3\xa4\"" };
enum { VALUES_COUNT = sizeof(VALUES) / sizeof(VALUES[0]) };

static void put_schema(struct buf *out, struct rng *rng, int depth);

static void put_object(struct buf *out, struct rng *rng, int depth)
{
    static const char *const NAMES[] = { "a", "ab", "b", "name", "\xc3\xa4", "x y" };
    const uint32_t count = below(rng, 6);
    bool first = true;

    put(out, "{\"type\":\"object\",\"properties\":{");
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%s\"%s\":", i > 0 ? "," : "", NAMES[i]);
        put(out, text);
        put_schema(out, rng, depth + 1);
    }
    put(out, "},\"required\":[");
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        if (below(rng, 2) == 0) continue;
        snprintf(text, sizeof(text), "%s\"%s\"", first ? "" : ",", NAMES[i]);
        put(out, text);
        first = false;
    }
    put(out, "]");
    if (below(rng, 2) == 0) put(out, ",\"additionalProperties\":false");
    put(out, "}");
}

static void put_range(struct buf *out, struct rng *rng, const char *least, const char *most)
{
    char text[64];
    const uint32_t min = below(rng, 4), max = min + below(rng, 4);

    if (below(rng, 2) == 0) {
        snprintf(text, sizeof(text), ",\"%s\":%u", least, min);
        put(out, text);
    }
    if (below(rng, 2) == 0) {
        snprintf(text, sizeof(text), ",\"%s\":%u", most, max);
        put(out, text);
    }
}

static void put_list(struct buf *out, struct rng *rng, const char *name, int depth)
{
    const uint32_t count = 1 + below(rng, 4);

    put(out, "{\"");
    put(out, name);
    put(out, "\":[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) put(out, ",");
        if (name[0] == 'e')
            put(out, VALUES[below(rng, VALUES_COUNT)]);
        else
            put_schema(out, rng, depth + 1);
    }
    put(out, "]}");
}

static void put_schema(struct buf *out, struct rng *rng, int depth)
{
    static const char *const SIMPLE[] = {
        "{}",
        "true",
        "{\"type\":\"number\"}",
        "{\"type\":\"integer\"}",
        "{\"type\":[\"boolean\",\"null\"]}",
        "{\"type\":[\"string\",\"array\",\"object\"]}",
        "{\"type\":\"integer\",\"minimum\":-3,\"exclusiveMaximum\":1200}",
        "{\"exclusiveMinimum\":-0.25,\"maximum\":99.5}",
        "{\"type\":[\"number\",\"null\"],\"minimum\":17.125}",
        "{\"pattern\":\"^(ab|c)+[x-z]?$\"}",
        "{\"pattern\":\"a[^b]c{2}\"}",
        "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"minimum\":2}],\"items\":true}",
        "{\"oneOf\":[{\"type\":\"string\",\"minLength\":3},{\"type\":\"null\"}]}",
        "{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":-50}",
        "{\"multipleOf\":0.25,\"exclusiveMaximum\":12}",
        "{\"not\":{\"type\":[\"object\",\"number\"]}}",
        "{\"type\":\"string\",\"not\":{\"enum\":[\"\",\"a\",\"ab\",\"\xc3\xa4\",3]}}",
        "{\"type\":[\"number\",\"boolean\"],\"not\":{\"enum\":[0,1,2.5,true]}}",
        "{\"not\":{\"anyOf\":[{\"const\":true},{\"type\":[\"object\",\"null\"]}]}}",
        "{\"enum\":[1,2,\"a\",null],\"not\":{\"enum\":[2,null]}}",
    };
    const uint32_t kind = depth > 4 ? below(rng, 3) : below(rng, 8);

    if (kind == 0) {
        put(out, SIMPLE[below(rng, sizeof(SIMPLE) / sizeof(SIMPLE[0]))]);
    } else if (kind == 1) {
        put(out, "{\"type\":\"string\"");
        put_range(out, rng, "minLength", "maxLength");
        put(out, "}");
    } else if (kind == 2) {
        put_list(out, rng, "enum", depth);
    } else if (kind == 3) {
        put_list(out, rng, "anyOf", depth);
    } else if (kind == 4) {
        put(out, "{\"type\":\"array\",\"items\":");
        put_schema(out, rng, depth + 1);
        put_range(out, rng, "minItems", "maxItems");
        put(out, "}");
    } else if (kind == 5) {
        /* The whole again: always inside something that may be left out. */
        put(out, "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}");
    } else {
        put_object(out, rng, depth);
    }
}

/* ---- the validator ---- */

static const struct json_value *root_schema;

static bool same(const struct json_value *a, const struct json_value *b)
{
    double p, q;
    if (json_value_number(a, &p) && json_value_number(b, &q)) return p == q;
    char *x = json_value_dump(a), *y = json_value_dump(b);
    const bool equal = strcmp(x, y) == 0;

    free(x);
    free(y);
    return equal;
}

static bool has_type(const struct json_value *value, const char *type)
{
    int64_t integer;
    double number;
    bool flag;

    if (strcmp(type, "object") == 0) return json_value_is_object(value);
    if (strcmp(type, "array") == 0) return json_value_is_array(value);
    if (strcmp(type, "string") == 0) return json_value_text(value) != NULL;
    if (strcmp(type, "integer") == 0) return json_value_integer(value, &integer);
    if (strcmp(type, "number") == 0) return json_value_number(value, &number);
    if (strcmp(type, "boolean") == 0) return json_value_bool(value, &flag);
    return !json_value_is_object(value) && !json_value_is_array(value) &&
           json_value_text(value) == NULL && !json_value_number(value, &number) &&
           !json_value_bool(value, &flag);
}

static bool in_range(const struct json_value *schema, const char *least, const char *most,
                     size_t count)
{
    int64_t bound;

    if (json_value_integer(json_value_member(schema, least), &bound) && (int64_t)count < bound)
        return false;
    return !json_value_integer(json_value_member(schema, most), &bound) || (int64_t)count <= bound;
}

static bool valid(const struct json_value *value, const struct json_value *schema);

struct members {
    const struct json_value *schema;
    bool ok;
};

static bool check_member(void *ctx, const char *name, const struct json_value *value)
{
    struct members *members = ctx;
    const struct json_value *properties = json_value_member(members->schema, "properties");
    const struct json_value *property = json_value_member(properties, name);
    bool more = true;

    (void)json_value_bool(json_value_member(members->schema, "additionalProperties"), &more);
    members->ok = property != NULL ? valid(value, property) : more;
    return members->ok;
}

static bool valid_object(const struct json_value *value, const struct json_value *schema)
{
    const struct json_value *required = json_value_member(schema, "required");
    struct members members = { schema, true };

    if (!json_value_is_object(value)) return true;
    for (size_t i = 0; i < json_value_count(required); i++) {
        const char *name = json_value_text(json_value_at(required, i));
        if (json_value_member(value, name) == NULL) return false;
    }
    json_value_each(value, check_member, &members);
    return members.ok;
}

static bool valid_array(const struct json_value *value, const struct json_value *schema)
{
    const struct json_value *items = json_value_member(schema, "items");
    const struct json_value *first = json_value_member(schema, "prefixItems");

    if (!json_value_is_array(value)) return true;
    for (size_t i = 0; i < json_value_count(value); i++) {
        const struct json_value *one =
            i < json_value_count(first) ? json_value_at(first, i) : items;
        if (one != NULL && !valid(json_value_at(value, i), one)) return false;
    }
    return in_range(schema, "minItems", "maxItems", json_value_count(value));
}

static bool valid_string(const struct json_value *value, const struct json_value *schema)
{
    const char *text = json_value_text(value);
    size_t count = 0;

    if (text == NULL) return true;
    for (; *text != '\0'; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return in_range(schema, "minLength", "maxLength", count);
}

static bool valid_pattern(const struct json_value *value, const struct json_value *schema)
{
    const char *pattern = json_value_text(json_value_member(schema, "pattern"));
    const char *text = json_value_text(value);
    regex_t regex;

    if (pattern == NULL || text == NULL) return true;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static bool valid_number(const struct json_value *value, const struct json_value *schema)
{
    double number, bound;

    if (!json_value_number(value, &number)) return true;
    if (json_value_number(json_value_member(schema, "minimum"), &bound) && number < bound)
        return false;
    if (json_value_number(json_value_member(schema, "exclusiveMinimum"), &bound) && number <= bound)
        return false;
    if (json_value_number(json_value_member(schema, "maximum"), &bound) && number > bound)
        return false;
    if (json_value_number(json_value_member(schema, "multipleOf"), &bound) &&
        fabs(number / bound - round(number / bound)) > 1e-9)
        return false;
    return !json_value_number(json_value_member(schema, "exclusiveMaximum"), &bound) ||
           number < bound;
}

static bool valid_type(const struct json_value *value, const struct json_value *type)
{
    if (type == NULL) return true;
    if (json_value_text(type) != NULL) return has_type(value, json_value_text(type));
    for (size_t i = 0; i < json_value_count(type); i++) {
        if (has_type(value, json_value_text(json_value_at(type, i)))) return true;
    }
    return false;
}

static bool equals_const(const struct json_value *value, const struct json_value *schema)
{
    const struct json_value *one = json_value_member(schema, "const");
    return one == NULL || same(value, one);
}

static bool valid(const struct json_value *value, const struct json_value *schema)
{
    const struct json_value *list;
    bool any = false, flag;

    if (json_value_bool(schema, &flag)) return flag;
    list = json_value_member(schema, "not");
    if (list != NULL && valid(value, list)) return false;
    if (json_value_member(schema, "$ref") != NULL) return valid(value, root_schema);
    list = json_value_member(schema, "enum");
    for (size_t i = 0; i < json_value_count(list); i++)
        any |= same(value, json_value_at(list, i));
    if (list != NULL) return any;
    list = json_value_member(schema, "anyOf");
    for (size_t i = 0; i < json_value_count(list) && !any; i++)
        any = valid(value, json_value_at(list, i));
    if (list != NULL && !any) return false;
    list = json_value_member(schema, "oneOf");
    size_t fitting = 0;
    for (size_t i = 0; i < json_value_count(list); i++)
        fitting += valid(value, json_value_at(list, i));
    if (list != NULL && fitting != 1) return false;
    return equals_const(value, schema) && valid_type(value, json_value_member(schema, "type")) &&
           valid_object(value, schema) && valid_array(value, schema) &&
           valid_string(value, schema) && valid_pattern(value, schema) &&
           valid_number(value, schema);
}

/* ---- drawing ---- */

static bool has_bit(const uint64_t *mask, uint32_t token)
{
    return (mask[token / 64] >> (token % 64) & 1) != 0;
}

/* Any of the allowed tokens; after a while one that leads to an end. */
static uint32_t draw(struct rng *rng, const uint64_t *mask, uint32_t step)
{
    static const char CLOSING[] = "\"}]";
    uint32_t count = 0;

    if (step > 60) {
        if (has_bit(mask, 1)) return 1;
        for (size_t i = 0; i < sizeof(CLOSING) - 1; i++) {
            if (has_bit(mask, 2 + (uint8_t)CLOSING[i])) return 2 + (uint8_t)CLOSING[i];
        }
    }
    for (uint32_t t = 0; t < TINY_VOCAB; t++)
        count += has_bit(mask, t);
    assert_true(count > 0); /* never stuck */
    uint32_t pick = below(rng, count);
    for (uint32_t t = 0; t < TINY_VOCAB; t++) {
        if (has_bit(mask, t) && pick-- == 0) return t;
    }
    return 0;
}

/* The mask says what asking says, and what a matcher says that has come here at once. */
static void check_mask(struct grammar_matcher *matcher, const struct grammar *grammar,
                       const uint32_t *tokens, uint32_t count)
{
    struct grammar_matcher *other;
    uint64_t mask[WORDS];

    memcpy(mask, grammar_matcher_mask(matcher), sizeof(mask));
    assert_int_equal(grammar_matcher_create(grammar, words, &other), STATUS_OK);
    grammar_matcher_follow(other, tokens, count);
    for (uint32_t t = 0; t < TINY_VOCAB; t++)
        assert_int_equal(has_bit(mask, t), grammar_matcher_allows(other, t));
    assert_memory_equal(mask, grammar_matcher_mask(other), sizeof(mask));
    grammar_matcher_destroy(other);
}

/* One answer; true if it came to an end. */
static bool sample(const struct grammar *grammar, struct rng *rng, const char *document)
{
    static uint32_t tokens[TOKENS_MAX];
    struct grammar_matcher *matcher;
    struct json_value *value = NULL;
    struct buf text;
    struct errmsg err = { "" };
    uint32_t count = 0;
    bool ended = false;

    buf_init(&text, 1 << 20);
    assert_int_equal(grammar_matcher_create(grammar, words, &matcher), STATUS_OK);
    while (count < TOKENS_MAX && !ended) {
        size_t len;
        grammar_matcher_follow(matcher, tokens, count);
        if (below(rng, 40) == 0) check_mask(matcher, grammar, tokens, count);
        tokens[count] = draw(rng, grammar_matcher_mask(matcher), count);
        ended = tokens[count] == 1;
        const char *bytes = tokenizer_bytes(tokenizer, tokens[count++], &len);
        if (!ended) assert_int_equal(buf_append(&text, bytes, len), STATUS_OK);
    }
    grammar_matcher_destroy(matcher);
    if (ended) {
        /* In an array: our reader takes no bare values. Members drawn twice are no fault. */
        struct buf whole;
        buf_init(&whole, 1 << 20);
        put(&whole, "[");
        assert_int_equal(buf_append(&whole, buf_data(&text), text.len), STATUS_OK);
        put(&whole, "]");
        const enum status status =
            json_document_parse((const char *)buf_data(&whole), whole.len, &value, &err);
        if (status != STATUS_OK && strstr(err.text, "duplicate") == NULL)
            fail_msg("%s: %.*s: %s", document, (int)text.len, (char *)buf_data(&text), err.text);
        if (status == STATUS_OK && !valid(json_value_at(value, 0), root_schema))
            fail_msg("%s: %.*s is not valid", document, (int)text.len, (char *)buf_data(&text));
        json_document_destroy(value);
        buf_fini(&whole);
    }
    buf_fini(&text);
    return ended;
}

static void random_answers_are_valid(void **state)
{
    const uint64_t seed = test_seed();
    struct rng rng;
    unsigned grammars = 0, answers = 0, ended = 0;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 80; round++) {
        struct buf text;
        struct json_value *document;
        struct grammar *grammar;
        struct errmsg err = { "" };
        buf_init(&text, 1 << 20);
        put(&text, "{\"schema\":");
        put_schema(&text, &rng, 0);
        put(&text, "}");
        const char *schema = (const char *)buf_data(&text);
        assert_int_equal(json_document_parse(schema, text.len, &document, &err), STATUS_OK);
        root_schema = json_value_member(document, "schema");
        const enum status status = grammar_compile(schema, text.len, &grammar, &err);
        if (status != STATUS_OK && strstr(err.text, "itself") == NULL) fail_msg("%s", err.text);
        for (int i = 0; status == STATUS_OK && i < 8; i++, answers++)
            ended += sample(grammar, &rng, schema);
        grammars += status == STATUS_OK;
        if (status == STATUS_OK) grammar_destroy(grammar);
        json_document_destroy(document);
        buf_fini(&text);
    }
    printf("%u grammars, %u answers, %u ended\n", grammars, answers, ended);
    assert_true(grammars > 40 && ended > answers * 9 / 10);
}

/* Any text, now and then with the mark in it: the mask is what asking says, everything can go on,
 * and what is free forbids nothing but a call that is none. */
static void free_text_is_free(void **state)
{
    static const char *const STYLES[] = { "hermes", "llama3", "mistral" };
    static const char *const MARKS[] = { "<tool_call>", "{\"name\": \"", "[TOOL_CALLS]" };
    static uint32_t tokens[TOKENS_MAX];
    struct rng rng;
    unsigned constrained = 0, free_steps = 0;

    (void)state;
    rng_init(&rng, test_seed());
    for (unsigned round = 0; round < 18; round++) {
        char document[256];
        struct grammar_matcher *matcher;
        const char *mark = MARKS[round % 3];
        snprintf(document, sizeof(document),
                 "{\"calls\":{\"style\":\"%s\",\"many\":true,\"lazy\":true,"
                 "\"tools\":[{\"name\":\"f\"}]}}",
                 STYLES[round % 3]);
        struct grammar *grammar = compiled(document);
        assert_int_equal(grammar_matcher_create(grammar, words, &matcher), STATUS_OK);
        for (uint32_t count = 0, marked = below(&rng, 3) * 8; count < 120; count++) {
            uint32_t allowed = 0;
            grammar_matcher_follow(matcher, tokens, count);
            const uint64_t *mask = grammar_matcher_mask(matcher);
            for (uint32_t t = 0; t < TINY_VOCAB; t++)
                allowed += has_bit(mask, t);
            if (allowed >= TINY_VOCAB - 4)
                free_steps++;
            else
                constrained++;
            if (count >= marked && count < marked + strlen(mark)) {
                tokens[count] = 2 + (uint8_t)mark[count - marked];
                assert_true(grammar_matcher_allows(matcher, tokens[count]));
            } else {
                do
                    tokens[count] = draw(&rng, mask, 0);
                while (tokens[count] == 1 && allowed > 1);
                if (tokens[count] == 1) break;
            }
            if (below(&rng, 10) == 0) check_mask(matcher, grammar, tokens, count);
        }
        grammar_matcher_destroy(matcher);
        grammar_destroy(grammar);
    }
    assert_true(constrained > 100 && free_steps > 100);
}

/* What was never allowed leaves only the end. */
static void strangers_end_it(void **state)
{
    struct grammar *grammar = compiled("{\"object\":true}");
    struct grammar_matcher *matcher;
    const uint32_t wrong[] = { 2 + 'x' }, right[] = { 2 + '{' };

    (void)state;
    assert_int_equal(grammar_matcher_create(grammar, words, &matcher), STATUS_OK);
    grammar_matcher_follow(matcher, wrong, 1);
    const uint64_t *mask = grammar_matcher_mask(matcher);
    for (uint32_t t = 0; t < TINY_VOCAB; t++)
        assert_int_equal(has_bit(mask, t), t == 1);
    grammar_matcher_follow(matcher, wrong, 0); /* back to the start */
    grammar_matcher_follow(matcher, right, 1);
    assert_true(grammar_matcher_allows(matcher, 2 + '}'));
    assert_false(grammar_matcher_allows(matcher, 1));
    grammar_matcher_destroy(matcher);
    grammar_destroy(grammar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_taken_or_not),
        cmocka_unit_test(the_rest_is_refused_by_name),
        cmocka_unit_test(explosions_are_bounded),
        cmocka_unit_test(random_answers_are_valid),
        cmocka_unit_test(strangers_end_it),
        cmocka_unit_test(free_text_is_free),
        cmocka_unit_test(calls_of_ones_own_accord_are_calls),
    };

    return cmocka_run_group_tests(tests, open_words, close_words);
}
