/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_int.h - the rules of a grammar: what grammar_schema.c and its helpers write,
 * grammar_rules.c checks and grammar.c follows.
 *
 * A rule is one of its alternatives; an alternative is a sequence of symbols in `code`, ended by
 * SYMBOL_END: a byte, a set of bytes, or a rule. Rules are never left-recursive. */
#ifndef INFER_GRAMMAR_INT_H
#define INFER_GRAMMAR_INT_H

#include "infer/grammar.h"

enum { GRAMMAR_RULES_MAX = 1 << 17, GRAMMAR_SETS_MAX = 1024 };
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

enum { GRAMMAR_MARK_MAX = 24 };

/* Free text goes on until a mark begins what the rules say. */
struct lazy_mark {
    uint8_t len; /* 0: the rules hold from the start */
    bool first;  /* only where the text begins with it, but for blanks; else anywhere */
    bool within; /* the mark is the beginning of what the rules say, not before it */
    bool again;  /* behind what they say the text is free again; else it ends there */
    char text[GRAMMAR_MARK_MAX];
    uint8_t border[GRAMMAR_MARK_MAX]; /* [n]: how much of the first n bytes is their end, too */
};

struct grammar {
    struct lazy_mark mark;
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
symbol grammar_set_of(struct grammar *grammar, const struct byte_set *set);

#define GRAMMAR_ADD(grammar, rule, ...)                                                            \
    do {                                                                                           \
        const symbol symbols[] = { __VA_ARGS__ };                                                  \
        grammar_add(grammar, rule, symbols, sizeof(symbols) / sizeof(symbols[0]));                 \
    } while (0)

/* Computes needs, and refuses rules that never end or begin with themselves. */
enum status grammar_check(struct grammar *grammar, struct errmsg *err);

/* ---- grammar_chars.c: sets of characters ---- */

enum { CHARS_RANGES_MAX = 128 };

/* Ranges of code points; chars_settle() sorts and joins them. */
struct chars {
    uint32_t count;
    bool full; /* there were more than CHARS_RANGES_MAX: sticky */
    struct chars_range {
        uint32_t from, to; /* inclusive */
    } ranges[CHARS_RANGES_MAX];
};

void chars_add(struct chars *chars, uint32_t from, uint32_t to);
void chars_add_all(struct chars *chars, const struct chars *more);
void chars_settle(struct chars *chars);
void chars_invert(struct chars *chars); /* settled before and after */

/* Adds to `rule` the ways to write one of these (settled) inside a JSON text, each followed by rule
 * `then` unless that is GRAMMAR_NONE: itself, or escaped if it must be. U+0000 and surrogates are
 * left out. False if nothing remains. */
MUST_USE bool chars_add_rule(struct grammar *grammar, const struct chars *chars, uint32_t rule,
                             uint32_t then);

/* ---- grammar_pattern.c ---- */

/* Adds to `rule` the JSON texts, in quotes, in which `pattern` is found. STATUS_INVALID with *err.
 */
MUST_USE enum status grammar_pattern(struct grammar *grammar, const char *pattern, uint32_t rule,
                                     struct errmsg *err);
/* The pattern of a "format"; NULL: none is known. */
const char *grammar_format(const char *name);

/* ---- grammar_range.c ---- */

/* Bounds of a number; those not given are NAN. */
struct number_bounds {
    double min, max;
    bool min_open, max_open; /* the bound itself is outside */
    bool integer;
};

/* Adds to `rule` the numbers within. STATUS_INVALID with *err if there are none, or they cannot be
 * told exactly. */
MUST_USE enum status grammar_range(struct grammar *grammar, const struct number_bounds *bounds,
                                   uint32_t rule, struct errmsg *err);

/* The shortest decimal that reads as |value|, which is finite: digits * 10^exponent, without zeros
 * at its end. */
void grammar_decimal(double value, uint64_t *digits, int *exponent);

/* ---- grammar_multiple.c ---- */

/* Adds to `rule` the multiples of `factor` within the bounds, maybe none. STATUS_INVALID with *err
 * if they cannot be told exactly, or by few enough states. */
MUST_USE enum status grammar_multiple(struct grammar *grammar, const struct number_bounds *bounds,
                                      double factor, uint32_t rule, struct errmsg *err);

/* ---- grammar_except.c: what a `not` takes away ---- */

struct json_value;

enum { GRAMMAR_EXCEPT_MAX = 256, GRAMMAR_EXCEPT_SIZE_MAX = 512 /* bytes of a text */ };

struct grammar_except {
    unsigned types; /* bits of enum type_bits: all values of them */
    const struct json_value *values[GRAMMAR_EXCEPT_MAX];
    uint32_t count;
};

/* Adds what this `not` is about. On failure returns why, for *name. */
const char *grammar_except_read(const struct json_value *schema, struct grammar_except *out,
                                const char **name);
/* Is the value taken away? Of objects and arrays that are not known to differ, yes. */
bool grammar_except_has(const struct grammar_except *except, const struct json_value *value);
/* Kinds of the values, and of all that is taken away whole. */
unsigned grammar_except_kinds(const struct grammar_except *except);
/* Adds to `rule` the JSON texts, in quotes, that are none of the values. False if one is too long.
 * `character` is the rule of any character. */
MUST_USE bool grammar_except_texts(struct grammar *grammar, const struct grammar_except *except,
                                   uint32_t rule, uint32_t character);
/* The numbers among the values, sorted, each once; returns how many. */
uint32_t grammar_except_numbers(const struct grammar_except *except,
                                double out[GRAMMAR_EXCEPT_MAX]);

/* ---- grammar_judge.c: schemas as they are, without rules ---- */

enum type_bits {
    TYPE_OBJECT = 1,
    TYPE_ARRAY = 2,
    TYPE_STRING = 4,
    TYPE_NUMBER = 8,
    TYPE_INTEGER = 16,
    TYPE_BOOLEAN = 32,
    TYPE_NULL = 64,
    TYPE_ALL = 127,
};

/* What a value is: an integer is a number, too. */
unsigned grammar_judge_type_of(const struct json_value *value);
/* Those that "type" names; TYPE_ALL without one, 0 if it is not understood. */
unsigned grammar_judge_types(const struct json_value *schema);
/* Those that are written: without a "type" a schema that speaks of one kind of values means it. */
unsigned grammar_judge_types_written(const struct json_value *schema);
/* Are they one value? Of objects and arrays that are not written alike, false may be wrong. */
bool grammar_judge_same(const struct json_value *a, const struct json_value *b);
/* What a $ref means in the document; NULL: nothing. */
const struct json_value *grammar_judge_pointed(const struct json_value *document, const char *text);
/* The bounds of numbers. False with *wrong a keyword that is no number. */
bool grammar_judge_bounds(const struct json_value *schema, struct number_bounds *out,
                          const char **wrong);
enum { JUDGE_WORK = 200000 }; /* pairs of schemas and values, in all */
/* Is nothing that is written for schema `a` valid by `b`? False where it cannot be shown, and when
 * *work, which is counted down, has come to 0. */
bool grammar_judge_apart(const struct json_value *document, const struct json_value *a,
                         const struct json_value *b, uint32_t *work);

#endif
