/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_json.h - JSON as rules: the values that a schema may leave open, and what the rules
 * of a schema are put together from.
 *
 * Every value ends, and blanks are few: one of them, or a newline and an indentation. Numbers have
 * at most 15 digits on either side of the point; characters are any but U+0000 and surrogates,
 * themselves or escaped.
 *
 * Memory: rules belong to the grammar. Errors: none; a grammar that has grown too large is
 * `failed` (grammar_int.h). Threads: those of the grammar. */
#ifndef INFER_GRAMMAR_JSON_H
#define INFER_GRAMMAR_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "infer/grammar_int.h"

static inline symbol symbol_byte(char c)
{
    return symbol_of(SYMBOL_BYTE, (uint8_t)c);
}

static inline symbol symbol_rule(uint32_t rule)
{
    return symbol_of(SYMBOL_RULE, rule);
}

/* Rules that all schemas of a grammar share. */
struct grammar_json {
    struct grammar *grammar;
    uint32_t blank, any, object, array, text, character, number, integer, boolean, null;
};

/* Makes them all in the grammar. */
void grammar_json_make(struct grammar *grammar, struct grammar_json *out);

/* A new rule: this text. */
uint32_t grammar_json_text(struct grammar_json *c, const char *text);

/* The others add to `rule`: an object with any names, whose values are all of the rule `value`; */
void grammar_json_members(struct grammar_json *c, uint32_t rule, uint32_t value);

/* an array (the first items have rules of their own); */
struct grammar_items {
    const uint32_t *first; /* rules */
    uint32_t first_count;
    uint32_t value;    /* rule of the others */
    uint32_t min, max; /* GRAMMAR_NONE: any number */
};
void grammar_json_items(struct grammar_json *c, uint32_t rule, const struct grammar_items *of);

/* a text of min to max characters, or with GRAMMAR_NONE of any number from min on; */
void grammar_json_characters(struct grammar_json *c, uint32_t rule, uint32_t min, uint32_t max);

/* one of literals[from..to), which are sorted, different, and equal in their first `at` bytes: one
 * way to read any text, however many there are. */
struct grammar_literal {
    char *text;
    size_t len;
};
void grammar_json_literals(struct grammar_json *c, uint32_t rule,
                           const struct grammar_literal *literals, size_t from, size_t to,
                           size_t at);

#endif
