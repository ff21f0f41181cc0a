/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_except.c - what a `not` takes away: types, and single values.
 *
 * Rules cannot take away from rules; so a `not` is understood where what remains can be written:
 * whole types are left out, texts go another way than those that are excepted at some character,
 * and numbers lie between them (grammar_schema.c). More may be taken away than the `not` says,
 * where both an integer and a number may be meant: what is written is a part of what is valid. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar_int.h"

enum { NUMERIC = TYPE_NUMBER | TYPE_INTEGER };

/* ---- what it is about ---- */

/* 1.0 is an integer, so numbers of both kinds count as either. */
static unsigned kinds_of(const struct json_value *value)
{
    const unsigned types = grammar_judge_type_of(value);
    return (types & NUMERIC) != 0 ? types | NUMERIC : types;
}

static const char *read_values(const struct json_value *schema, unsigned types,
                               struct grammar_except *out, const char **name)
{
    const struct json_value *one = json_value_member(schema, "const");
    const struct json_value *list = json_value_member(schema, "enum");
    const size_t count = one != NULL ? 1 : json_value_count(list);

    for (size_t i = 0; i < count; i++) {
        const struct json_value *value = one != NULL ? one : json_value_at(list, i);
        if ((kinds_of(value) & types) == 0) continue;
        *name = "not";
        if (out->count == GRAMMAR_EXCEPT_MAX) return "more than 256 values in '";
        out->values[out->count++] = value;
    }
    return NULL;
}

const char *grammar_except_read(const struct json_value *schema, struct grammar_except *out,
                                const char **name)
{
    static const char *const KNOWN[] = { "type", "enum", "const", "anyOf", NULL };
    const struct json_value *choices = json_value_member(schema, "anyOf");
    const bool listed =
        json_value_member(schema, "enum") != NULL || json_value_member(schema, "const") != NULL;
    const char *why = NULL;
    unsigned types;

    *name = "not";
    if (!json_value_is_object(schema)) return "must be an object: '";
    *name = json_value_stranger(schema, KNOWN);
    if (*name != NULL) return "not supported within a 'not': '";
    if (choices != NULL) {
        *name = "anyOf";
        if (listed || json_value_member(schema, "type") != NULL || json_value_count(choices) == 0)
            return "not supported beside others in a 'not': '";
        for (size_t i = 0; i < json_value_count(choices) && why == NULL; i++) {
            *name = "anyOf";
            if (json_value_member(json_value_at(choices, i), "anyOf") != NULL)
                return "not supported in itself, within a 'not': '";
            why = grammar_except_read(json_value_at(choices, i), out, name);
        }
        return why;
    }
    types = grammar_judge_types(schema);
    *name = "type";
    if (types == 0) return "unknown '";
    if (listed) {
        if ((types & NUMERIC) != 0) types |= NUMERIC;
        return read_values(schema, types, out, name);
    }
    *name = "not";
    if (types == TYPE_ALL) return "nothing fits '";
    out->types |= types;
    return NULL;
}

unsigned grammar_except_kinds(const struct grammar_except *except)
{
    unsigned kinds = except->types;

    for (uint32_t i = 0; i < except->count; i++)
        kinds |= kinds_of(except->values[i]);
    return kinds;
}

bool grammar_except_has(const struct grammar_except *except, const struct json_value *value)
{
    const unsigned kinds = kinds_of(value);

    if ((kinds & except->types) != 0) return true;
    for (uint32_t i = 0; i < except->count; i++) {
        if ((kinds & kinds_of(except->values[i])) == 0) continue;
        if ((kinds & (TYPE_OBJECT | TYPE_ARRAY)) != 0) return true;
        if (grammar_judge_same(value, except->values[i])) return true;
    }
    return false;
}

/* ---- numbers ---- */

static int compare_numbers(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

uint32_t grammar_except_numbers(const struct grammar_except *except, double out[GRAMMAR_EXCEPT_MAX])
{
    uint32_t count = 0, different = 0;

    for (uint32_t i = 0; i < except->count; i++) {
        if (json_value_number(except->values[i], &out[count])) count++;
    }
    qsort(out, count, sizeof(*out), compare_numbers);
    for (uint32_t i = 0; i < count; i++) {
        if (different == 0 || out[i] != out[different - 1]) out[different++] = out[i];
    }
    return different;
}

/* ---- texts ---- */

struct text {
    const char *data; /* UTF-8 */
    size_t len;
};

static int compare_texts(const void *a, const void *b)
{
    const struct text *x = a, *y = b;
    const size_t both = x->len < y->len ? x->len : y->len;
    const int order = both > 0 ? memcmp(x->data, y->data, both) : 0;
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* The code point there, and its length. */
static uint32_t code_point(const char *at, size_t *len)
{
    const uint8_t first = (uint8_t)at[0];
    uint32_t code = first;

    *len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (*len > 1) code = first & (0x7fu >> *len);
    for (size_t i = 1; i < *len; i++)
        code = code << 6 | ((uint8_t)at[i] & 0x3f);
    return code;
}

/* What may come behind the first `at` bytes of texts[0..count), which are sorted, and equal so far:
 * anything but the rest of one of them. Once it is another text, `any` goes on. */
static void add_others(struct grammar *grammar, uint32_t rule, const struct text *texts,
                       size_t count, size_t at, uint32_t any)
{
    struct chars others = { 0 };
    bool ends = false;
    size_t end = 0;

    for (size_t i = 0; i < count && !grammar->failed; i = end) {
        struct chars one = { 0 };
        size_t len = 0;
        end = i + 1;
        if (texts[i].len == at) {
            ends = true;
            continue;
        }
        const uint32_t code = code_point(texts[i].data + at, &len);
        while (end < count && texts[end].len > at &&
               memcmp(texts[end].data + at, texts[i].data + at, len) == 0)
            end++;
        const uint32_t behind = grammar_rule(grammar);
        chars_add(&one, code, code);
        chars_add(&others, code, code);
        if (chars_add_rule(grammar, &one, rule, behind))
            add_others(grammar, behind, texts + i, end - i, at + len, any);
    }
    chars_settle(&others);
    chars_invert(&others);
    if (others.full) grammar->failed = true;
    if (!ends) GRAMMAR_ADD(grammar, rule, symbol_of(SYMBOL_BYTE, '"'));
    if (!chars_add_rule(grammar, &others, rule, any)) grammar->failed = true;
}

bool grammar_except_texts(struct grammar *grammar, const struct grammar_except *except,
                          uint32_t rule, uint32_t character)
{
    const uint32_t first = grammar_rule(grammar), any = grammar_rule(grammar);
    const symbol quote = symbol_of(SYMBOL_BYTE, '"');
    struct text texts[GRAMMAR_EXCEPT_MAX];
    size_t count = 0;

    for (uint32_t i = 0; i < except->count; i++) {
        texts[count].data = json_value_string(except->values[i], &texts[count].len);
        if (texts[count].data == NULL) continue;
        if (texts[count].len > GRAMMAR_EXCEPT_SIZE_MAX) return false;
        count++;
    }
    qsort(texts, count, sizeof(*texts), compare_texts);
    GRAMMAR_ADD(grammar, rule, quote, symbol_of(SYMBOL_RULE, first));
    GRAMMAR_ADD(grammar, any, quote);
    GRAMMAR_ADD(grammar, any, symbol_of(SYMBOL_RULE, character), symbol_of(SYMBOL_RULE, any));
    add_others(grammar, first, texts, count, 0, any);
    return true;
}
