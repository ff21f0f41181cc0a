/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_pattern.c - a regular expression to rules.
 *
 * The part of ECMA 262 that says which texts there are, and no more:
 *
 *   PATTERN = BRANCH ( "|" BRANCH )*           BRANCH = "^"? TERM* "$"?   (anchors out here only)
 *   TERM    = ATOM ( "*" | "+" | "?" | "{n}" | "{n,}" | "{n,m}" )? "?"?   (lazy or not: the same)
 *   ATOM    = CHARACTER | "." | "[...]" | \d \D \w \W \s \S | ESCAPE | "(" ... ")" | "(?:" ... ")"
 *
 * A pattern is found anywhere in a text unless it is anchored, as JSON Schema has it. Each part
 * reads between two rules: it adds its texts to the first, each followed by the second. So rules
 * are the states of an automaton, everything is the last symbol of its alternative, and no stack
 * grows. Counted parts are read again for each time, their text parsed anew.
 *
 * Invariants
 *   I1  Nothing that may be empty is repeated without end: no rule begins with itself.
 *   I2  At most STATES_MAX rules are made for a pattern, whatever is counted in what.
 *
 * Limits:  PATTERN_SIZE_MAX bytes, STATES_MAX, NESTING_MAX groups in groups, counts as
 *          GRAMMAR_COUNT_MAX. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "infer/grammar_int.h"

enum {
    PATTERN_SIZE_MAX = 4096,
    STATES_MAX = 10000,
    NESTING_MAX = 16,
    CLASSES = 16,
    CHAR_MAX_CODE = 0x10ffff,
};

/* A set that has a rule of its own, because it takes many symbols. */
struct class
{
    struct chars chars;
    uint32_t rule;
};

struct pattern {
    struct grammar *grammar;
    const char *at;
    unsigned depth;
    uint32_t states;
    const char *wrong; /* NULL: nothing yet; else why, with the character at `at` */
    struct class classes[CLASSES];
    unsigned classes_count;
};

/* Where a part has ended. */
struct part {
    uint32_t to;
    bool nullable;
};

static struct part choice(struct pattern *p, uint32_t from);

static void refuse(struct pattern *p, const char *why)
{
    if (p->wrong == NULL) p->wrong = why;
}

static uint32_t state(struct pattern *p)
{
    if (++p->states > STATES_MAX) refuse(p, "it has too many states");
    return p->wrong == NULL ? grammar_rule(p->grammar) : 0;
}

/* From one state to another for nothing. */
static void join(struct pattern *p, uint32_t from, uint32_t to)
{
    if (p->wrong == NULL) GRAMMAR_ADD(p->grammar, from, symbol_of(SYMBOL_RULE, to));
}

/* ---- characters ---- */

/* The next one; the text is valid UTF-8. */
static uint32_t next_code(struct pattern *p)
{
    const uint8_t *s = (const uint8_t *)p->at;
    const unsigned len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t code = len == 1 ? s[0] : s[0] & (0x7fu >> len);

    for (unsigned i = 1; i < len; i++)
        code = code << 6 | (s[i] & 0x3f);
    p->at += len;
    return code;
}

static bool hex_digits(struct pattern *p, unsigned count, uint32_t *out)
{
    static const char DIGITS[] = "00112233445566778899aAbBcCdDeEfF";
    uint32_t code = 0;

    for (unsigned i = 0; i < count; i++) {
        const char *digit = p->at[i] != '\0' ? strchr(DIGITS, p->at[i]) : NULL;
        if (digit == NULL) return false;
        code = code * 16 + (uint32_t)(digit - DIGITS) / 2;
    }
    p->at += count;
    *out = code;
    return true;
}

static void add_digits(struct chars *chars)
{
    chars_add(chars, '0', '9');
}

static void add_word(struct chars *chars)
{
    add_digits(chars);
    chars_add(chars, 'A', 'Z');
    chars_add(chars, '_', '_');
    chars_add(chars, 'a', 'z');
}

static void add_space(struct chars *chars)
{
    static const uint32_t RANGES[][2] = { { 9, 13 },          { ' ', ' ' },
                                          { 0xa0, 0xa0 },     { 0x1680, 0x1680 },
                                          { 0x2000, 0x200a }, { 0x2028, 0x2029 },
                                          { 0x202f, 0x202f }, { 0x205f, 0x205f },
                                          { 0x3000, 0x3000 }, { 0xfeff, 0xfeff } };

    for (size_t i = 0; i < sizeof(RANGES) / sizeof(RANGES[0]); i++)
        chars_add(chars, RANGES[i][0], RANGES[i][1]);
}

/* \d and the like, behind the backslash; false if it is something else. */
static bool class_escape(struct pattern *p, struct chars *chars)
{
    struct chars set = { 0 };

    switch (*p->at) {
    case 'd':
    case 'D': add_digits(&set); break;
    case 'w':
    case 'W': add_word(&set); break;
    case 's':
    case 'S': add_space(&set); break;
    default: return false;
    }
    if (*p->at < 'a') chars_invert(&set);
    chars_add_all(chars, &set);
    p->at++;
    return true;
}

/* What an escape stands for, behind the backslash. */
static uint32_t character_escape(struct pattern *p)
{
    static const char SHORT[] = "f\fn\nr\rt\tv\v";
    uint32_t code = 0;
    const char c = *p->at;

    for (const char *s = SHORT; *s != '\0'; s += 2) {
        if (*s != c) continue;
        p->at++;
        return (uint32_t)s[1];
    }
    if (c == 'x' || c == 'u') {
        p->at++;
        if (!hex_digits(p, c == 'x' ? 2 : 4, &code)) refuse(p, "an escape lacks digits");
        if (code >= 0xd800 && code <= 0xdfff) refuse(p, "a surrogate");
        return code;
    }
    if (c == '\0' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        refuse(p, "an escape that is not supported");
        return 0;
    }
    return next_code(p);
}

/* One character of a class, or \d and the like; *code is UINT32_MAX for these. */
static void class_member(struct pattern *p, struct chars *chars, uint32_t *code)
{
    *code = UINT32_MAX;
    if (*p->at != '\\') {
        *code = next_code(p);
        return;
    }
    p->at++;
    if (class_escape(p, chars)) return;
    if (*p->at == 'b') {
        p->at++;
        *code = '\b';
    } else {
        *code = character_escape(p);
    }
}

/* Behind "[". */
static void class_members(struct pattern *p, struct chars *chars)
{
    const bool inverted = *p->at == '^';

    p->at += inverted;
    while (*p->at != ']' && p->wrong == NULL) {
        uint32_t from = 0, to = 0;
        if (*p->at == '\0') {
            refuse(p, "a '[' that is not closed");
            return;
        }
        class_member(p, chars, &from);
        to = from;
        if (p->at[0] == '-' && p->at[1] != ']' && p->at[1] != '\0') {
            p->at++;
            class_member(p, chars, &to);
            if (from == UINT32_MAX || to == UINT32_MAX || from > to)
                refuse(p, "a range of nothing");
        }
        if (from != UINT32_MAX && p->wrong == NULL) chars_add(chars, from, to);
    }
    if (p->wrong == NULL) p->at++;
    chars_settle(chars);
    if (inverted) chars_invert(chars);
}

static bool same_chars(const struct chars *a, const struct chars *b)
{
    return a->count == b->count &&
           memcmp(a->ranges, b->ranges, a->count * sizeof(a->ranges[0])) == 0;
}

/* The rule of a set, one for all its uses as long as there is room to remember them. */
static uint32_t class_rule(struct pattern *p, const struct chars *chars)
{
    for (unsigned i = 0; i < p->classes_count; i++) {
        if (same_chars(&p->classes[i].chars, chars)) return p->classes[i].rule;
    }
    const uint32_t rule = state(p);
    if (p->wrong != NULL) return 0;
    if (!chars_add_rule(p->grammar, chars, rule, GRAMMAR_NONE)) refuse(p, "a set of nothing");
    if (p->classes_count < CLASSES) p->classes[p->classes_count++] = (struct class){ *chars, rule };
    return rule;
}

/* One of the characters, then `to`. Few symbols are written where they are; others once. */
static void take_chars(struct pattern *p, const struct chars *chars, uint32_t from, uint32_t to)
{
    const bool ascii = chars->count > 0 && chars->ranges[0].from >= ' ' &&
                       chars->ranges[chars->count - 1].to < 0x80;

    if (chars->full) refuse(p, "a set of too many ranges");
    if (p->wrong != NULL) return;
    if (ascii || (chars->count == 1 && chars->ranges[0].from == chars->ranges[0].to)) {
        if (!chars_add_rule(p->grammar, chars, from, to)) refuse(p, "a set of nothing");
        return;
    }
    const uint32_t rule = class_rule(p, chars);
    if (p->wrong == NULL)
        GRAMMAR_ADD(p->grammar, from, symbol_of(SYMBOL_RULE, rule), symbol_of(SYMBOL_RULE, to));
}

/* Any text, then the state that is returned. */
static uint32_t any_text(struct pattern *p, uint32_t from)
{
    struct chars all = { 0 };

    chars_add(&all, 1, CHAR_MAX_CODE);
    take_chars(p, &all, from, from);
    const uint32_t to = state(p);
    join(p, from, to);
    return to;
}

/* ---- parts ---- */

static void one_character(struct pattern *p, struct chars *chars)
{
    switch (*p->at) {
    case '[':
        p->at++;
        class_members(p, chars);
        return;
    case '.':
        p->at++;
        chars_add(chars, '\n', '\n');
        chars_add(chars, '\r', '\r');
        chars_add(chars, 0x2028, 0x2029);
        chars_invert(chars);
        return;
    case '\\':
        p->at++;
        if (!class_escape(p, chars)) {
            const uint32_t code = character_escape(p);
            chars_add(chars, code, code);
        }
        return;
    case '^':
    case '$': refuse(p, "an anchor inside"); return;
    case '*':
    case '+':
    case '?':
    case '{': refuse(p, "nothing to repeat"); return;
    case '}':
    case ']': refuse(p, "closed and not opened"); return;
    default: break;
    }
    const uint32_t code = next_code(p);
    chars_add(chars, code, code);
}

static struct part group(struct pattern *p, uint32_t from)
{
    p->at++;
    if (p->at[0] == '?' && p->at[1] != ':') refuse(p, "a group of a kind that is not supported");
    if (p->at[0] == '?' && p->wrong == NULL) p->at += 2;
    if (p->depth == NESTING_MAX) refuse(p, "nested too deeply");
    if (p->wrong != NULL) return (struct part){ from, true };
    p->depth++;
    const struct part part = choice(p, from);
    p->depth--;
    if (*p->at != ')') refuse(p, "a '(' that is not closed");
    if (p->wrong == NULL) p->at++;
    return part;
}

static struct part atom(struct pattern *p, uint32_t from)
{
    struct chars chars = { 0 };

    if (*p->at == '(') return group(p, from);
    one_character(p, &chars);
    const uint32_t to = state(p);
    take_chars(p, &chars, from, to);
    return (struct part){ to, false };
}

/* Behind an atom that is only looked at: where it ends. What is wrong in it is found later. */
static const char *atom_end(const char *at)
{
    unsigned open = 0;
    bool class = false;

    for (; *at != '\0'; at++) {
        if (*at == '\\' && at[1] != '\0') {
            size_t digits = *++at == 'x' ? 2 : *at == 'u' ? 4 : 0;
            for (; digits > 0 && at[1] != '\0'; digits--)
                at++;
        } else if (class) {
            class = *at != ']';
        } else if (*at == '[') {
            class = true;
        } else if (*at == '(') {
            open++;
        } else if (*at == ')' && open > 0) {
            open--;
        }
        if (open == 0 && !class) break;
    }
    if (*at == '\0') return at;
    for (at++; ((uint8_t)*at & 0xc0) == 0x80;) /* the rest of a character */
        at++;
    return at;
}

static uint32_t number(struct pattern *p)
{
    uint32_t value = 0;

    if (*p->at < '0' || *p->at > '9') refuse(p, "a count must be {n}, {n,} or {n,m}");
    for (; *p->at >= '0' && *p->at <= '9'; p->at++) {
        value = value * 10 + (uint32_t)(*p->at - '0');
        if (value <= GRAMMAR_COUNT_MAX) continue;
        refuse(p, "a count is at most 8192");
        return 0;
    }
    return value;
}

/* How often; max GRAMMAR_NONE: without end. */
static void quantifier(struct pattern *p, uint32_t *min, uint32_t *max)
{
    const char c = *p->at;

    *min = c == '*' || c == '?' ? 0 : 1;
    *max = c == '*' || c == '+' ? GRAMMAR_NONE : 1;
    if (c != '*' && c != '+' && c != '?' && c != '{') return;
    p->at++;
    if (c == '{') {
        *min = *max = number(p);
        if (p->wrong == NULL && *p->at == ',') {
            p->at++;
            *max = *p->at == '}' ? GRAMMAR_NONE : number(p);
        }
        if (*p->at != '}') refuse(p, "a count must be {n}, {n,} or {n,m}");
        if (*min > *max) refuse(p, "a count from more to less");
        if (p->wrong != NULL) return;
        p->at++;
    }
    if (*p->at == '?') p->at++;
}

/* The atom at `text` from `min` to `max` times. */
static struct part repeat(struct pattern *p, const char *text, uint32_t from, uint32_t min,
                          uint32_t max)
{
    struct part part = { from, min == 0 };
    bool nullable = true;

    for (uint32_t i = 0; i < min && p->wrong == NULL; i++) {
        p->at = text;
        const struct part one = atom(p, part.to);
        part.to = one.to;
        nullable &= one.nullable;
    }
    if (min > 0) part.nullable = nullable;
    if (max == min || p->wrong != NULL) return part;
    const uint32_t end = state(p);
    if (max == GRAMMAR_NONE) {
        const uint32_t again = state(p);
        join(p, part.to, again);
        p->at = text;
        const struct part one = atom(p, again);
        if (one.nullable) refuse(p, "what may be empty is repeated without end"); /* I1 */
        join(p, one.to, again);
        join(p, again, end);
        part.to = end;
        return part;
    }
    for (uint32_t i = min; i < max && p->wrong == NULL; i++) {
        join(p, part.to, end);
        p->at = text;
        part.to = atom(p, part.to).to;
    }
    join(p, part.to, end);
    part.to = end;
    return part;
}

static struct part term(struct pattern *p, uint32_t from)
{
    const char *text = p->at;
    uint32_t min = 1, max = 1;

    p->at = atom_end(text);
    quantifier(p, &min, &max);
    const char *behind = p->at;
    if (p->wrong != NULL) return (struct part){ from, true };
    if (max == 0) { /* none; but what it is must be sound */
        p->at = text;
        (void)atom(p, state(p));
    }
    const struct part part = repeat(p, text, from, min, max);
    if (p->wrong == NULL) p->at = behind;
    return part;
}

/* Up to "|", ")", "$" at the outside, or the end. */
static struct part sequence(struct pattern *p, uint32_t from)
{
    struct part part = { from, true };

    while (p->wrong == NULL && *p->at != '\0' && *p->at != '|' && *p->at != ')') {
        if (p->depth == 0 && p->at[0] == '$' && (p->at[1] == '\0' || p->at[1] == '|')) break;
        const struct part one = term(p, part.to);
        part.to = one.to;
        part.nullable &= one.nullable;
    }
    return part;
}

static struct part choice(struct pattern *p, uint32_t from)
{
    struct part part = { 0, false };
    const uint32_t end = state(p);

    for (;;) {
        const uint32_t start = state(p);
        join(p, from, start);
        const struct part one = sequence(p, start);
        part.nullable |= one.nullable;
        join(p, one.to, end);
        if (*p->at != '|' || p->wrong != NULL) break;
        p->at++;
    }
    part.to = end;
    return part;
}

/* Branches of the whole, which may be anchored. */
static void branches(struct pattern *p, uint32_t from, uint32_t end)
{
    for (;;) {
        uint32_t start = state(p);
        join(p, from, start);
        if (*p->at == '^')
            p->at++;
        else
            start = any_text(p, start);
        uint32_t to = sequence(p, start).to;
        if (*p->at == '$')
            p->at++;
        else
            to = any_text(p, to);
        join(p, to, end);
        if (*p->at == ')') refuse(p, "closed and not opened");
        if (*p->at != '|' || p->wrong != NULL) return;
        p->at++;
    }
}

enum status grammar_pattern(struct grammar *grammar, const char *pattern, uint32_t rule,
                            struct errmsg *err)
{
    if (strlen(pattern) > PATTERN_SIZE_MAX)
        return errmsg_set(err, STATUS_INVALID, "more than %d bytes", PATTERN_SIZE_MAX);
    struct pattern p = { .grammar = grammar, .at = pattern };
    const symbol quote = symbol_of(SYMBOL_BYTE, '"');
    const uint32_t start = state(&p), end = state(&p);

    GRAMMAR_ADD(grammar, rule, quote, symbol_of(SYMBOL_RULE, start));
    GRAMMAR_ADD(grammar, end, quote);
    branches(&p, start, end);
    if (p.wrong == NULL) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "%s, at character %zu", p.wrong,
                      (size_t)(p.at - pattern) + 1);
}

/* ---- formats ---- */

#define MONTH_DAY                                                                                  \
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"          \
    "02-(?:0[1-9]|1\\d|2[0-8]))"
#define LEAP_YEAR "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
#define DATE "(?:\\d{4}-" MONTH_DAY "|" LEAP_YEAR "-02-29)"
#define CLOCK "(?:[01]\\d|2[0-3]):[0-5]\\d"
#define TIME CLOCK ":[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-]" CLOCK ")"
#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"

const char *grammar_format(const char *name)
{
    static const struct {
        const char *name, *pattern;
    } FORMATS[] = {
        { "date", "^" DATE "$" },
        { "time", "^" TIME "$" },
        { "date-time", "^" DATE "T" TIME "$" },
        { "uuid", "^[\\da-fA-F]{8}(?:-[\\da-fA-F]{4}){3}-[\\da-fA-F]{12}$" },
        { "ipv4", "^(?:" OCTET "\\.){3}" OCTET "$" },
    };

    for (size_t i = 0; i < sizeof(FORMATS) / sizeof(FORMATS[0]); i++) {
        if (strcmp(FORMATS[i].name, name) == 0) return FORMATS[i].pattern;
    }
    return NULL;
}
