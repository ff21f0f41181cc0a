/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_int.h - the rules of a grammar: what grammar_schema.c writes, grammar_rules.c
 * checks and grammar.c follows.
 *
 * A rule is one of its alternatives; an alternative is a sequence of symbols in `code`, ended by
 * SYMBOL_END: a byte, a set of bytes, or a rule. Rules are never left-recursive. */
#ifndef INFER_GRAMMAR_INT_H
#define INFER_GRAMMAR_INT_H

#include "infer/grammar.h"

enum { GRAMMAR_RULES_MAX = 1 << 17, GRAMMAR_SETS_MAX = 64 };
#define GRAMMAR_NONE UINT32_MAX

typedef uint32_t symbol;

enum symbol_kind { SYMBOL_END, SYMBOL_BYTE, SYMBOL_SET, SYMBOL_RULE };

static inline enum symbol_kind symbol_kind_of(symbol s)
{
    return (enum symbol_kind)(s >> 30);
}

static inline uint32_t symbol_value(symbol s)
{
    return s & 0x3fffffff;
}

static inline symbol symbol_of(enum symbol_kind kind, uint32_t value)
{
    return (uint32_t)kind << 30 | value;
}

struct byte_set {
    uint64_t bits[4];
};

static inline bool byte_set_has(const struct byte_set *set, uint8_t byte)
{
    return (set->bits[byte / 64] >> (byte % 64) & 1) != 0;
}

struct alternative {
    uint32_t start; /* in code */
    uint32_t next;  /* of the same rule; GRAMMAR_NONE */
    uint32_t need;  /* depth of stack that it takes at least */
};

struct rule {
    uint32_t first; /* alternative; GRAMMAR_NONE: none yet */
    uint32_t last;
    uint32_t need; /* the least of its alternatives */
    bool nullable;
};

struct grammar {
    symbol *code;
    uint32_t code_count, code_room;
    struct alternative *alternatives;
    uint32_t alternatives_count, alternatives_room;
    struct rule *rules;
    uint32_t rules_count, rules_room;
    struct byte_set sets[GRAMMAR_SETS_MAX];
    uint32_t sets_count;
    uint32_t root;
    bool failed; /* too large, or no memory: sticky while it is built */
};

/* ---- grammar_rules.c ---- */

/* Building never fails at once: a grammar that has grown too large is `failed`. */
uint32_t grammar_rule(struct grammar *grammar);
void grammar_add(struct grammar *grammar, uint32_t rule, const symbol *symbols, size_t count);
/* An alternative that is this text and then, unless GRAMMAR_NONE, a rule. */
void grammar_add_text(struct grammar *grammar, uint32_t rule, const char *text, size_t len,
                      uint32_t then);
symbol grammar_set(struct grammar *grammar, const char *ranges); /* "09af": from 0 to 9, a to f */

/* Computes needs, and refuses rules that never end or begin with themselves. */
enum status grammar_check(struct grammar *grammar, struct errmsg *err);

#endif
