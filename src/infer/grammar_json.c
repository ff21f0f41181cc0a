/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_json.c - see the header.
 *
 * Counted things (items, characters, digits) are chains of rules, one for each count; what has no
 * upper end closes its chain with a rule that follows itself. */
#include "infer/grammar_json.h"

#include <string.h>

enum { INDENT_MAX = 24, DIGITS_MAX = 15 };

#define ADD(c, rule, ...) GRAMMAR_ADD((c)->grammar, rule, __VA_ARGS__)

static void add_nothing(struct grammar_json *c, uint32_t rule)
{
    grammar_add(c->grammar, rule, NULL, 0);
}

uint32_t grammar_json_text(struct grammar_json *c, const char *text)
{
    const uint32_t rule = grammar_rule(c->grammar);
    grammar_add_text(c->grammar, rule, text, strlen(text), GRAMMAR_NONE);
    return rule;
}

static symbol set(struct grammar_json *c, const char *ranges)
{
    return grammar_set(c->grammar, ranges);
}

/* Nothing, a blank, or a newline and an indentation: enough to look good, and it ends. */
static uint32_t blank_rule(struct grammar_json *c)
{
    const uint32_t rule = grammar_rule(c->grammar);
    uint32_t indent = grammar_rule(c->grammar);

    add_nothing(c, rule);
    ADD(c, rule, symbol_byte(' '));
    ADD(c, rule, symbol_byte('\n'), symbol_rule(indent));
    for (int i = 0; i < INDENT_MAX; i++) {
        const uint32_t deeper = grammar_rule(c->grammar);
        add_nothing(c, indent);
        ADD(c, indent, symbol_byte(' '), symbol_rule(deeper));
        indent = deeper;
    }
    add_nothing(c, indent);
    return rule;
}

/* Up to `max` digits. */
static uint32_t digits_rule(struct grammar_json *c, int max)
{
    const uint32_t first = grammar_rule(c->grammar);
    uint32_t rule = first;

    for (int i = 0; i < max; i++) {
        const uint32_t more = grammar_rule(c->grammar);
        add_nothing(c, rule);
        ADD(c, rule, set(c, "09"), symbol_rule(more));
        rule = more;
    }
    add_nothing(c, rule);
    return first;
}

static void number_rules(struct grammar_json *c)
{
    const uint32_t digits = digits_rule(c, DIGITS_MAX), exponent_digits = digits_rule(c, 1);
    const uint32_t fraction = grammar_rule(c->grammar), exponent = grammar_rule(c->grammar),
                   unsigned_integer = grammar_rule(c->grammar);
    const symbol digit = set(c, "09"), sign = set(c, "++--");

    ADD(c, unsigned_integer, symbol_byte('0'));
    ADD(c, unsigned_integer, set(c, "19"), symbol_rule(digits));
    ADD(c, c->integer, symbol_rule(unsigned_integer));
    ADD(c, c->integer, symbol_byte('-'), symbol_rule(unsigned_integer));
    add_nothing(c, fraction);
    ADD(c, fraction, symbol_byte('.'), digit, symbol_rule(digits));
    add_nothing(c, exponent);
    ADD(c, exponent, set(c, "EEee"), digit, symbol_rule(exponent_digits));
    ADD(c, exponent, set(c, "EEee"), sign, digit, symbol_rule(exponent_digits));
    ADD(c, c->number, symbol_rule(c->integer), symbol_rule(fraction), symbol_rule(exponent));
}

/* One character of a text: itself, or escaped. No surrogates, and no \u0000. */
static void character_rules(struct grammar_json *c)
{
    const symbol hex = set(c, "09afAF"), next = set(c, "\x80\xbf");
    const uint32_t code = grammar_rule(c->grammar), hex_not_0 = grammar_rule(c->grammar);

    ADD(c, c->character, set(c, " !#[]~"));
    ADD(c, c->character, symbol_byte('\\'), set(c, "\"\"\\\\//bbffnnrrtt"));
    ADD(c, c->character, symbol_byte('\\'), symbol_byte('u'), symbol_rule(code));
    ADD(c, c->character, set(c, "\xc2\xdf"), next);
    ADD(c, c->character, set(c, "\xe0\xe0"), set(c, "\xa0\xbf"), next);
    ADD(c, c->character, set(c, "\xe1\xec\xee\xef"), next, next);
    ADD(c, c->character, set(c, "\xed\xed"), set(c, "\x80\x9f"), next);
    ADD(c, c->character, set(c, "\xf0\xf0"), set(c, "\x90\xbf"), next, next);
    ADD(c, c->character, set(c, "\xf1\xf3"), next, next, next);
    ADD(c, c->character, set(c, "\xf4\xf4"), set(c, "\x80\x8f"), next, next);
    ADD(c, code, set(c, "19acefACEF"), hex, hex, hex);
    ADD(c, code, set(c, "ddDD"), set(c, "07"), hex, hex);
    ADD(c, code, symbol_byte('0'), symbol_rule(hex_not_0));
    ADD(c, hex_not_0, set(c, "19afAF"), hex, hex);
    ADD(c, hex_not_0, symbol_byte('0'), set(c, "19afAF"), hex);
    ADD(c, hex_not_0, symbol_byte('0'), symbol_byte('0'), set(c, "19afAF"));
}

/* MEMBERS = text ":" ws VALUE ( "," ws MEMBERS | ws "}" ), behind "{" ws. */
void grammar_json_members(struct grammar_json *c, uint32_t rule, uint32_t value)
{
    const uint32_t some = grammar_rule(c->grammar), rest = grammar_rule(c->grammar);

    ADD(c, rule, symbol_byte('{'), symbol_rule(c->blank), symbol_byte('}'));
    ADD(c, rule, symbol_byte('{'), symbol_rule(c->blank), symbol_rule(some));
    ADD(c, some, symbol_rule(c->text), symbol_byte(':'), symbol_rule(c->blank), symbol_rule(value),
        symbol_rule(rest));
    ADD(c, rest, symbol_byte(','), symbol_rule(c->blank), symbol_rule(some));
    ADD(c, rest, symbol_rule(c->blank), symbol_byte('}'));
}

static uint32_t item_rule(const struct grammar_items *of, uint32_t index)
{
    return index < of->first_count ? of->first[index] : of->value;
}

/* "[" ws ... "]" */
void grammar_json_items(struct grammar_json *c, uint32_t rule, const struct grammar_items *of)
{
    uint32_t chain = of->max != GRAMMAR_NONE ? of->max : of->min > 0 ? of->min : 1;
    uint32_t rest = grammar_rule(c->grammar);

    if (of->max == GRAMMAR_NONE && chain <= of->first_count) chain = of->first_count + 1;
    if (of->min == 0) ADD(c, rule, symbol_byte('['), symbol_rule(c->blank), symbol_byte(']'));
    if (of->max == 0) return;
    ADD(c, rule, symbol_byte('['), symbol_rule(c->blank), symbol_rule(item_rule(of, 0)),
        symbol_rule(rest));
    for (uint32_t count = 1; count <= chain && !c->grammar->failed; count++) {
        /* `rest` is what comes behind `count` items. */
        if (count >= of->min) ADD(c, rest, symbol_rule(c->blank), symbol_byte(']'));
        if (count == of->max) break;
        const uint32_t more = count == chain ? rest : grammar_rule(c->grammar);
        ADD(c, rest, symbol_byte(','), symbol_rule(c->blank), symbol_rule(item_rule(of, count)),
            symbol_rule(more));
        rest = more;
    }
}

void grammar_json_characters(struct grammar_json *c, uint32_t rule, uint32_t min, uint32_t max)
{
    const uint32_t chain = max != GRAMMAR_NONE ? max : min;
    uint32_t rest = grammar_rule(c->grammar);

    ADD(c, rule, symbol_byte('"'), symbol_rule(rest));
    for (uint32_t count = 0; count <= chain && !c->grammar->failed; count++) {
        if (count >= min) ADD(c, rest, symbol_byte('"'));
        if (count == max) break;
        const uint32_t more = count == chain ? rest : grammar_rule(c->grammar);
        ADD(c, rest, symbol_rule(c->character), symbol_rule(more));
        rest = more;
    }
}

void grammar_json_make(struct grammar *grammar, struct grammar_json *c)
{
    c->grammar = grammar;
    c->any = grammar_rule(c->grammar);
    c->object = grammar_rule(c->grammar);
    c->array = grammar_rule(c->grammar);
    c->text = grammar_rule(c->grammar);
    c->number = grammar_rule(c->grammar);
    c->integer = grammar_rule(c->grammar);
    c->boolean = grammar_rule(c->grammar);
    c->null = grammar_json_text(c, "null");
    c->character = grammar_rule(c->grammar);
    c->blank = blank_rule(c);
    number_rules(c);
    character_rules(c);
    grammar_json_characters(c, c->text, 0, GRAMMAR_NONE);
    grammar_json_members(c, c->object, c->any);
    grammar_json_items(c, c->array,
                       &(struct grammar_items){ .value = c->any, .max = GRAMMAR_NONE });
    ADD(c, c->boolean, symbol_rule(grammar_json_text(c, "true")));
    ADD(c, c->boolean, symbol_rule(grammar_json_text(c, "false")));
    ADD(c, c->any, symbol_rule(c->object));
    ADD(c, c->any, symbol_rule(c->array));
    ADD(c, c->any, symbol_rule(c->text));
    ADD(c, c->any, symbol_rule(c->number));
    ADD(c, c->any, symbol_rule(c->boolean));
    ADD(c, c->any, symbol_rule(c->null));
}

void grammar_json_literals(struct grammar_json *c, uint32_t rule,
                           const struct grammar_literal *literals, size_t from, size_t to,
                           size_t at)
{
    while (from < to && !c->grammar->failed) {
        const char first = literals[from].text[at];
        size_t end = from + 1, common = at + 1;
        if (first == '\0') {
            add_nothing(c, rule);
            from++;
            continue;
        }
        while (end < to && literals[end].text[at] == first)
            end++;
        if (end == from + 1) {
            grammar_add_text(c->grammar, rule, literals[from].text + at, literals[from].len - at,
                             GRAMMAR_NONE);
        } else {
            /* Sorted: what the first and the last share, all share. */
            while (literals[from].text[common] != '\0' &&
                   literals[from].text[common] == literals[end - 1].text[common])
                common++;
            const uint32_t rest = grammar_rule(c->grammar);
            grammar_add_text(c->grammar, rule, literals[from].text + at, common - at, rest);
            grammar_json_literals(c, rest, literals, from, end, common);
        }
        from = end;
    }
}
