/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_judge.c - schemas as they are: types, references, bounds, and whether two of them
 * have nothing in common.
 *
 * The last is for `oneOf`. An answer may fit one of its schemas only, and rules cannot take away
 * from rules; so `oneOf` is written as `anyOf` where what is written for one schema is shown to fit
 * no other one, and refused elsewhere. What is shown: other types; other values; numbers, lengths
 * or counts that do not meet; of objects, a property that tells them apart (written for one always,
 * and for the other never or with values that are apart), or one that is required and never
 * written. Nothing else is tried, so `false` means "not shown". */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_int.h"

enum { APART_DEPTH_MAX = 12 };

static bool has(const struct json_value *value, const char *name)
{
    return json_value_member(value, name) != NULL;
}

/* ---- types ---- */

static unsigned type_named(const char *name)
{
    static const char *const NAMES[] = { "object",  "array",   "string", "number",
                                         "integer", "boolean", "null" };

    for (unsigned i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (name != NULL && strcmp(NAMES[i], name) == 0) return 1u << i;
    }
    return 0;
}

unsigned grammar_judge_type_of(const struct json_value *value)
{
    int64_t integer = 0;
    double number = 0;
    bool flag = false;

    if (json_value_is_object(value)) return TYPE_OBJECT;
    if (json_value_is_array(value)) return TYPE_ARRAY;
    if (json_value_text(value) != NULL) return TYPE_STRING;
    if (json_value_integer(value, &integer)) return TYPE_NUMBER | TYPE_INTEGER;
    if (json_value_number(value, &number)) return TYPE_NUMBER;
    return json_value_bool(value, &flag) ? TYPE_BOOLEAN : TYPE_NULL;
}

unsigned grammar_judge_types(const struct json_value *schema)
{
    const struct json_value *type = json_value_member(schema, "type");
    unsigned types = type_named(json_value_text(type));

    if (type == NULL) return TYPE_ALL;
    for (size_t i = 0; json_value_is_array(type) && i < json_value_count(type); i++) {
        const unsigned one = type_named(json_value_text(json_value_at(type, i)));
        if (one == 0) return 0;
        types |= one;
    }
    return types;
}

unsigned grammar_judge_types_written(const struct json_value *schema)
{
    static const struct {
        const char *keyword;
        unsigned types;
    } SPEAKS[] = {
        { "properties", TYPE_OBJECT },
        { "required", TYPE_OBJECT },
        { "additionalProperties", TYPE_OBJECT },
        { "items", TYPE_ARRAY },
        { "prefixItems", TYPE_ARRAY },
        { "minItems", TYPE_ARRAY },
        { "maxItems", TYPE_ARRAY },
        { "minLength", TYPE_STRING },
        { "maxLength", TYPE_STRING },
        { "pattern", TYPE_STRING },
        { "minimum", TYPE_NUMBER },
        { "maximum", TYPE_NUMBER },
        { "exclusiveMinimum", TYPE_NUMBER },
        { "exclusiveMaximum", TYPE_NUMBER },
        { "multipleOf", TYPE_NUMBER },
    };
    const unsigned types = grammar_judge_types(schema);

    if (types != TYPE_ALL) return types;
    for (size_t i = 0; i < sizeof(SPEAKS) / sizeof(SPEAKS[0]); i++) {
        if (has(schema, SPEAKS[i].keyword)) return SPEAKS[i].types;
    }
    return TYPE_ALL;
}

/* ---- references ---- */

/* Undoes ~1, ~0 and nothing else of one step of a JSON pointer. */
static bool pointer_step(const char **text, char *out, size_t size)
{
    size_t len = 0;

    for (; **text != '\0' && **text != '/'; (*text)++) {
        char c = **text;
        if (c == '~' && ((*text)[1] == '0' || (*text)[1] == '1')) c = *++*text == '0' ? '~' : '/';
        if (c == '%' || len + 1 == size) return false;
        out[len++] = c;
    }
    out[len] = '\0';
    return true;
}

const struct json_value *grammar_judge_pointed(const struct json_value *document, const char *text)
{
    char step[128];

    if (text[0] != '#') return NULL;
    text++;
    while (document != NULL && *text == '/') {
        text++;
        if (!pointer_step(&text, step, sizeof(step))) return NULL;
        if (json_value_is_array(document)) {
            document = json_value_at(document, strtoul(step, NULL, 10));
        } else {
            document = json_value_member(document, step);
        }
    }
    return *text == '\0' ? document : NULL;
}

/* ---- bounds ---- */

/* The stricter of two; an open one is stricter than a closed one of the same value. */
static void take_bound(double value, bool open, bool lower, double *bound, bool *is_open)
{
    const bool stricter = isnan(*bound) || (lower ? value > *bound : value < *bound);

    if (!stricter && value != *bound) return;
    *is_open = stricter ? open : *is_open || open;
    *bound = value;
}

bool grammar_judge_bounds(const struct json_value *schema, struct number_bounds *out,
                          const char **wrong)
{
    static const struct {
        const char *name;
        bool lower, open;
    } KEYWORDS[] = { { "minimum", true, false },
                     { "exclusiveMinimum", true, true },
                     { "maximum", false, false },
                     { "exclusiveMaximum", false, true } };

    *out = (struct number_bounds){ .min = NAN, .max = NAN };
    for (size_t i = 0; i < sizeof(KEYWORDS) / sizeof(KEYWORDS[0]); i++) {
        const struct json_value *value = json_value_member(schema, KEYWORDS[i].name);
        const bool lower = KEYWORDS[i].lower;
        double number = 0;
        if (value == NULL) continue;
        if (!json_value_number(value, &number)) {
            *wrong = KEYWORDS[i].name;
            return false;
        }
        take_bound(number, KEYWORDS[i].open, lower, lower ? &out->min : &out->max,
                   lower ? &out->min_open : &out->max_open);
    }
    return true;
}

/* ---- apart ---- */

struct apart {
    const struct json_value *document;
    unsigned depth;
    uint32_t *work; /* pairs that may still be looked at */
};

static bool is_tired(struct apart *look)
{
    if (*look->work == 0) return true;
    --*look->work;
    return false;
}

static bool apart(struct apart *look, const struct json_value *a, const struct json_value *b);

/* What a chain of $ref means; NULL if nothing. */
static const struct json_value *resolved(const struct apart *look, const struct json_value *schema)
{
    for (unsigned i = 0; i < APART_DEPTH_MAX; i++) {
        const char *text = json_value_text(json_value_member(schema, "$ref"));
        if (text == NULL) return schema;
        schema = grammar_judge_pointed(look->document, text);
    }
    return NULL;
}

static const struct json_value *choices_of(const struct json_value *schema)
{
    static const char *const NAMES[] = { "anyOf", "oneOf", "allOf" };

    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (has(schema, NAMES[i])) return json_value_member(schema, NAMES[i]);
    }
    return NULL;
}

/* The values of a schema that lists them; *count 0 for another one. */
static const struct json_value *listed(const struct json_value *schema, size_t index, size_t *count)
{
    const struct json_value *one = json_value_member(schema, "const");
    const struct json_value *list = json_value_member(schema, "enum");

    *count = one != NULL ? 1 : json_value_count(list);
    return one != NULL ? one : json_value_at(list, index);
}

bool grammar_judge_same(const struct json_value *a, const struct json_value *b)
{
    double x = 0, y = 0;

    if (json_value_number(a, &x) && json_value_number(b, &y)) return x == y;
    char *s = json_value_dump(a), *t = json_value_dump(b);
    const bool same = s == NULL || t == NULL || strcmp(s, t) == 0;
    free(s);
    free(t);
    return same;
}

/* One value and a schema: other types, or none of its values. */
static bool value_apart(struct apart *look, const struct json_value *value,
                        const struct json_value *schema)
{
    unsigned types = grammar_judge_type_of(value);
    size_t count = 0;

    if ((types & TYPE_NUMBER) != 0) types |= TYPE_INTEGER; /* 1.0 is one */
    if ((types & grammar_judge_types(schema)) == 0) return true;
    (void)listed(schema, 0, &count);
    for (size_t i = 0; i < count; i++) {
        if (is_tired(look)) return false;
        if (grammar_judge_same(value, listed(schema, i, &count))) return false;
    }
    return count > 0;
}

static bool values_apart(struct apart *look, const struct json_value *a, const struct json_value *b)
{
    size_t count = 0;

    (void)listed(a, 0, &count);
    for (size_t i = 0; i < count; i++) {
        if (!value_apart(look, listed(a, i, &count), b)) return false;
    }
    return count > 0;
}

static bool numbers_apart(const struct json_value *a, const struct json_value *b)
{
    struct number_bounds x, y;
    const char *wrong = NULL;

    if (!grammar_judge_bounds(a, &x, &wrong) || !grammar_judge_bounds(b, &y, &wrong)) return false;
    /* NAN compares false. */
    return x.max < y.min || y.max < x.min || (x.max == y.min && (x.max_open || y.min_open)) ||
           (y.max == x.min && (y.max_open || x.min_open));
}

static bool counts_apart(const struct json_value *a, const struct json_value *b, const char *least,
                         const char *most)
{
    int64_t min = 0, max = 0;

    if (json_value_integer(json_value_member(a, most), &max) &&
        json_value_integer(json_value_member(b, least), &min) && max < min)
        return true;
    return json_value_integer(json_value_member(b, most), &max) &&
           json_value_integer(json_value_member(a, least), &min) && max < min;
}

static bool requires(const struct json_value *schema, const char *name)
{
    const struct json_value *list = json_value_member(schema, "required");

    for (size_t i = 0; i < json_value_count(list); i++) {
        const char *text = json_value_text(json_value_at(list, i));
        if (text != NULL && strcmp(text, name) == 0) return true;
    }
    return false;
}

static bool is_closed(const struct json_value *schema)
{
    bool more = true;
    return json_value_bool(json_value_member(schema, "additionalProperties"), &more) && !more;
}

/* Is the property in no object that is written for the schema? See grammar.h: others than declared
 * ones only where none is declared. */
static bool never_written(const struct json_value *schema, const char *name)
{
    const struct json_value *declared = json_value_member(schema, "properties");

    if (json_value_member(declared, name) != NULL || requires(schema, name)) return false;
    return is_closed(schema) || json_value_count(json_value_member(schema, "required")) > 0 ||
           (json_value_is_object(declared) &&
            json_value_stranger(declared, (const char *const[]){ NULL }) != NULL);
}

/* Does a property that is always written for `a` keep it out of `b`? */
static bool property_apart(struct apart *look, const struct json_value *a,
                           const struct json_value *b, const char *name)
{
    const struct json_value *in_a = json_value_member(json_value_member(a, "properties"), name);
    const struct json_value *in_b = json_value_member(json_value_member(b, "properties"), name);

    if (in_b == NULL) return is_closed(b);
    return in_a != NULL && apart(look, in_a, in_b);
}

static bool objects_apart(struct apart *look, const struct json_value *a,
                          const struct json_value *b)
{
    const struct json_value *wanted = json_value_member(b, "required");
    const struct json_value *always = json_value_member(a, "required");

    for (size_t i = 0; i < json_value_count(wanted); i++) {
        const char *name = json_value_text(json_value_at(wanted, i));
        if (name != NULL && never_written(a, name)) return true;
    }
    for (size_t i = 0; i < json_value_count(always); i++) {
        const char *name = json_value_text(json_value_at(always, i));
        if (name != NULL && property_apart(look, a, b, name)) return true;
    }
    return false;
}

/* Neither is a $ref or a choice. */
static bool plain_apart(struct apart *look, const struct json_value *a, const struct json_value *b)
{
    const unsigned written = grammar_judge_types_written(a), taken = grammar_judge_types(b);
    const unsigned both = written & taken;
    /* An integer is a number, and a number may be one. */
    const unsigned numeric = TYPE_NUMBER | TYPE_INTEGER;
    const bool numbers = (written & numeric) != 0 && (taken & numeric) != 0;

    if (values_apart(look, a, b) || values_apart(look, b, a)) return true;
    if ((both & (TYPE_BOOLEAN | TYPE_NULL)) != 0) return false;
    if (numbers && !numbers_apart(a, b)) return false;
    if ((both & TYPE_STRING) != 0 && !counts_apart(a, b, "minLength", "maxLength")) return false;
    if ((both & TYPE_ARRAY) != 0 && !counts_apart(a, b, "minItems", "maxItems")) return false;
    return (both & TYPE_OBJECT) == 0 || objects_apart(look, a, b);
}

static bool apart(struct apart *look, const struct json_value *a, const struct json_value *b)
{
    bool flag = false;

    if (look->depth == APART_DEPTH_MAX || is_tired(look)) return false;
    a = resolved(look, a);
    b = resolved(look, b);
    if (json_value_bool(a, &flag) || json_value_bool(b, &flag)) return false;
    if (!json_value_is_object(a) || !json_value_is_object(b)) return false;
    const struct json_value *of_a = choices_of(a), *of_b = choices_of(b);
    const size_t count = of_a != NULL   ? json_value_count(of_a)
                         : of_b != NULL ? json_value_count(of_b)
                                        : 0;
    bool all = count > 0;

    look->depth++;
    for (size_t i = 0; i < count && all; i++)
        all = of_a != NULL ? apart(look, json_value_at(of_a, i), b)
                           : apart(look, a, json_value_at(of_b, i));
    if (of_a == NULL && of_b == NULL) all = plain_apart(look, a, b);
    look->depth--;
    return all;
}

bool grammar_judge_apart(const struct json_value *document, const struct json_value *a,
                         const struct json_value *b, uint32_t *work)
{
    struct apart look = { .document = document, .work = work };
    return apart(&look, a, b);
}
