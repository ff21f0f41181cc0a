/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_rules.c - rules: how they are put together, and what must hold of them before
 * anybody follows them.
 *
 * need(alternative) is the depth of stack that is enough to complete it: for a symbol that is a
 * rule, what the rule needs, and one more for the way back unless it is the last symbol. need(rule)
 * is the least of its alternatives. A matcher that enters an alternative only where depth +
 * need(alternative) <= GRAMMAR_DEPTH_MAX can therefore always go on: each later rule of the
 * alternative finds at least one of its own that fits (I1 in grammar.h). The numbers are found by
 * going through all rules until nothing changes; rules without one never end. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "infer/grammar_int.h"

enum { PASSES_MAX = 256 };

/* ---- building ---- */

/* Room for one more; false: failed. */
static bool grow(struct grammar *grammar, void **base, uint32_t count, uint32_t *room, size_t size,
                 uint32_t max)
{
    if (grammar->failed || count == max) {
        grammar->failed = true;
        return false;
    }
    if (count < *room) return true;
    const uint32_t wanted = *room == 0 ? 256 : *room * 2 < max ? *room * 2 : max;
    void *grown = realloc(*base, wanted * size);
    if (grown == NULL) {
        grammar->failed = true;
        return false;
    }
    *base = grown;
    *room = wanted;
    return true;
}

uint32_t grammar_rule(struct grammar *grammar)
{
    void *rules = grammar->rules;

    if (!grow(grammar, &rules, grammar->rules_count, &grammar->rules_room, sizeof(*grammar->rules),
              GRAMMAR_RULES_MAX))
        return 0;
    grammar->rules = rules;
    grammar->rules[grammar->rules_count] =
        (struct rule){ .first = GRAMMAR_NONE, .last = GRAMMAR_NONE, .need = GRAMMAR_NONE };
    return grammar->rules_count++;
}

static void add_symbol(struct grammar *grammar, symbol s)
{
    void *code = grammar->code;

    if (!grow(grammar, &code, grammar->code_count, &grammar->code_room, sizeof(*grammar->code),
              GRAMMAR_SIZE_MAX))
        return;
    grammar->code = code;
    grammar->code[grammar->code_count++] = s;
}

/* Begins an alternative at the end of the code. */
static bool begin(struct grammar *grammar, uint32_t rule)
{
    void *alternatives = grammar->alternatives;

    if (!grow(grammar, &alternatives, grammar->alternatives_count, &grammar->alternatives_room,
              sizeof(*grammar->alternatives), GRAMMAR_SIZE_MAX))
        return false;
    grammar->alternatives = alternatives;
    const uint32_t added = grammar->alternatives_count++;
    grammar->alternatives[added] = (struct alternative){ .start = grammar->code_count,
                                                         .next = GRAMMAR_NONE,
                                                         .need = GRAMMAR_NONE };
    struct rule *to = &grammar->rules[rule];
    if (to->last != GRAMMAR_NONE)
        grammar->alternatives[to->last].next = added;
    else
        to->first = added;
    to->last = added;
    return true;
}

void grammar_add(struct grammar *grammar, uint32_t rule, const symbol *symbols, size_t count)
{
    if (!begin(grammar, rule)) return;
    for (size_t i = 0; i < count; i++)
        add_symbol(grammar, symbols[i]);
    add_symbol(grammar, symbol_of(SYMBOL_END, 0));
}

void grammar_add_text(struct grammar *grammar, uint32_t rule, const char *text, size_t len,
                      uint32_t then)
{
    if (!begin(grammar, rule)) return;
    for (size_t i = 0; i < len; i++)
        add_symbol(grammar, symbol_of(SYMBOL_BYTE, (uint8_t)text[i]));
    if (then != GRAMMAR_NONE) add_symbol(grammar, symbol_of(SYMBOL_RULE, then));
    add_symbol(grammar, symbol_of(SYMBOL_END, 0));
}

symbol grammar_set_of(struct grammar *grammar, const struct byte_set *set)
{
    for (uint32_t i = 0; i < grammar->sets_count; i++) {
        if (memcmp(&grammar->sets[i], set, sizeof(*set)) == 0) return symbol_of(SYMBOL_SET, i);
    }
    if (grammar->sets_count == GRAMMAR_SETS_MAX) {
        grammar->failed = true;
        return symbol_of(SYMBOL_SET, 0);
    }
    grammar->sets[grammar->sets_count] = *set;
    return symbol_of(SYMBOL_SET, grammar->sets_count++);
}

symbol grammar_set(struct grammar *grammar, const char *ranges)
{
    struct byte_set set = { { 0 } };

    for (; ranges[0] != '\0'; ranges += 2) {
        for (unsigned byte = (uint8_t)ranges[0]; byte <= (uint8_t)ranges[1]; byte++)
            set.bits[byte / 64] |= UINT64_C(1) << (byte % 64);
    }
    return grammar_set_of(grammar, &set);
}

void grammar_destroy(struct grammar *grammar)
{
    if (grammar == NULL) return;
    free(grammar->code);
    free(grammar->alternatives);
    free(grammar->rules);
    free(grammar);
}

bool grammar_is_lazy(const struct grammar *grammar)
{
    return grammar->mark.len > 0;
}

/* ---- needs ---- */

/* GRAMMAR_NONE while some rule in it has none. */
static uint32_t alternative_need(const struct grammar *grammar, uint32_t start, bool *nullable)
{
    uint32_t need = 0;

    *nullable = true;
    for (const symbol *s = &grammar->code[start]; symbol_kind_of(*s) != SYMBOL_END; s++) {
        if (symbol_kind_of(*s) != SYMBOL_RULE) {
            *nullable = false;
            continue;
        }
        const struct rule *rule = &grammar->rules[symbol_value(*s)];
        const uint32_t back = symbol_kind_of(s[1]) != SYMBOL_END;
        if (!rule->nullable) *nullable = false;
        if (rule->need == GRAMMAR_NONE) return GRAMMAR_NONE;
        if (rule->need + back > need) need = rule->need + back;
    }
    return need;
}

static bool update_rule(struct grammar *grammar, uint32_t index)
{
    struct rule *rule = &grammar->rules[index];
    bool changed = false;

    for (uint32_t a = rule->first; a != GRAMMAR_NONE; a = grammar->alternatives[a].next) {
        bool nullable = false;
        struct alternative *alternative = &grammar->alternatives[a];
        alternative->need = alternative_need(grammar, alternative->start, &nullable);
        if (alternative->need < rule->need) {
            rule->need = alternative->need;
            changed = true;
        }
        if (nullable && alternative->need != GRAMMAR_NONE && !rule->nullable) {
            rule->nullable = true;
            changed = true;
        }
    }
    return changed;
}

/* From the last rule to the first: rules mostly refer to later ones. False if they go to and fro
 * too often. */
static bool compute_needs(struct grammar *grammar)
{
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        bool changed = false;
        for (uint32_t i = grammar->rules_count; i-- > 0;)
            changed |= update_rule(grammar, i);
        if (!changed) return true;
    }
    return false;
}

/* ---- left recursion ---- */

enum { UNSEEN, OPEN, DONE };

/* Does the rule come back to itself before any byte? Depth is that of rules that begin with rules:
 * bounded by the properties of an object and the nesting of schemas. */
static bool begins_with_itself(const struct grammar *grammar, uint32_t rule, uint8_t *marks)
{
    if (marks[rule] != UNSEEN) return marks[rule] == OPEN;
    marks[rule] = OPEN;
    for (uint32_t a = grammar->rules[rule].first; a != GRAMMAR_NONE;
         a = grammar->alternatives[a].next) {
        const symbol *s = &grammar->code[grammar->alternatives[a].start];
        for (; symbol_kind_of(*s) == SYMBOL_RULE; s++) {
            if (begins_with_itself(grammar, symbol_value(*s), marks)) return true;
            if (!grammar->rules[symbol_value(*s)].nullable) break;
        }
    }
    marks[rule] = DONE;
    return false;
}

enum status grammar_check(struct grammar *grammar, struct errmsg *err)
{
    if (grammar->failed)
        return errmsg_set(err, STATUS_INVALID, "too large: more than %d states", GRAMMAR_SIZE_MAX);
    uint8_t *marks = calloc(grammar->rules_count, 1);
    if (marks == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the grammar");
    const bool settled = compute_needs(grammar);
    const bool loops = begins_with_itself(grammar, grammar->root, marks);
    bool others = false; /* those that only come later */
    for (uint32_t i = 0; i < grammar->rules_count && !loops && !others; i++)
        others = marks[i] == UNSEEN && begins_with_itself(grammar, i, marks);
    free(marks);
    if (loops || others)
        return errmsg_set(err, STATUS_INVALID, "a $ref refers to itself with nothing around it");
    if (grammar->rules[grammar->root].need == GRAMMAR_NONE)
        return errmsg_set(err, STATUS_INVALID, "nothing that ends is allowed");
    if (!settled || grammar->rules[grammar->root].need > GRAMMAR_DEPTH_MAX)
        return errmsg_set(err, STATUS_INVALID, "nested too deeply");
    return STATUS_OK;
}
