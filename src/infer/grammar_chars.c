/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_chars.c - sets of characters, and how one of them is written inside a JSON text.
 *
 * A range of code points becomes sequences of ranges of bytes: it is cut where the number of bytes
 * changes, and then so that in each piece every byte goes over a range of its own, whatever the
 * others are. Quotes, backslashes and controls are escaped, in the short form if there is one; no
 * other character is.
 *
 * A vocabulary may lack bytes of rare characters. So that what uses a set can be completed with any
 * vocabulary that passes grammar_matcher_create(), a set without an ASCII character names its first
 * one byte by byte: bytes, unlike sets, must all be there. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "infer/grammar_int.h"

enum { CHAR_MAX_CODE = 0x10ffff, SURROGATES = 0xd800, SURROGATES_END = 0xdfff, SEQUENCE_MAX = 4 };

/* ---- ranges ---- */

void chars_add(struct chars *chars, uint32_t from, uint32_t to)
{
    ASSERT(from <= to);
    if (chars->count == CHARS_RANGES_MAX) {
        chars->full = true;
        return;
    }
    chars->ranges[chars->count++] = (struct chars_range){ from, to };
}

void chars_add_all(struct chars *chars, const struct chars *more)
{
    for (uint32_t i = 0; i < more->count; i++)
        chars_add(chars, more->ranges[i].from, more->ranges[i].to);
    chars->full |= more->full;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct chars_range *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

void chars_settle(struct chars *chars)
{
    uint32_t kept = 0;

    qsort(chars->ranges, chars->count, sizeof(chars->ranges[0]), compare_ranges);
    for (uint32_t i = 0; i < chars->count; i++) {
        const struct chars_range range = chars->ranges[i];
        struct chars_range *last = kept > 0 ? &chars->ranges[kept - 1] : NULL;
        if (last == NULL || range.from > last->to + 1) {
            chars->ranges[kept++] = range;
        } else if (range.to > last->to) {
            last->to = range.to;
        }
    }
    chars->count = kept;
}

void chars_invert(struct chars *chars)
{
    struct chars other = { .full = chars->full };
    uint32_t next = 0;

    for (uint32_t i = 0; i < chars->count; i++) {
        if (chars->ranges[i].from > next) chars_add(&other, next, chars->ranges[i].from - 1);
        next = chars->ranges[i].to + 1;
    }
    if (next <= CHAR_MAX_CODE) chars_add(&other, next, CHAR_MAX_CODE);
    *chars = other;
}

/* ---- rules ---- */

struct writing {
    struct grammar *grammar;
    uint32_t rule, then;
    struct byte_set plain;     /* ASCII that stands for itself, */
    struct byte_set shorts;    /* that has a short escape, by its letter, */
    struct byte_set digits[2]; /* and that has none, by its first digit: the last one */
    bool ascii;                /* something that is ASCII is in the set */
    bool any;
};

static void add_symbols(struct writing *w, const symbol *symbols, size_t count)
{
    symbol all[SEQUENCE_MAX + 1];

    ASSERT(count <= SEQUENCE_MAX);
    memcpy(all, symbols, count * sizeof(*all));
    if (w->then != GRAMMAR_NONE) all[count++] = symbol_of(SYMBOL_RULE, w->then);
    grammar_add(w->grammar, w->rule, all, count);
    w->any = true;
}

static void set_byte(struct byte_set *set, char byte)
{
    set->bits[(uint8_t)byte / 64] |= UINT64_C(1) << ((uint8_t)byte % 64);
}

static bool is_empty(const struct byte_set *set)
{
    return (set->bits[0] | set->bits[1]) == 0; /* ASCII */
}

static void note_escaped(struct writing *w, uint32_t code)
{
    static const char SHORT[] = "b\bf\fn\nr\rt\t\"\"\\\\";

    for (const char *s = SHORT; *s != '\0'; s += 2) {
        if ((uint32_t)s[1] != code) continue;
        set_byte(&w->shorts, s[0]);
        return;
    }
    ASSERT(code < ' ');
    set_byte(&w->digits[code / 16], "0123456789abcdef"[code % 16]);
    set_byte(&w->digits[code / 16], "0123456789ABCDEF"[code % 16]);
}

/* All that is escaped begins alike: one way to read it. */
static void add_escapes(struct writing *w)
{
    const bool any = !is_empty(&w->shorts) || !is_empty(&w->digits[0]) || !is_empty(&w->digits[1]);

    if (!any) return;
    const uint32_t behind = grammar_rule(w->grammar);
    if (!is_empty(&w->shorts))
        GRAMMAR_ADD(w->grammar, behind, grammar_set_of(w->grammar, &w->shorts));
    for (unsigned i = 0; i < 2; i++) {
        if (is_empty(&w->digits[i])) continue;
        const symbol zero = symbol_of(SYMBOL_BYTE, '0');
        GRAMMAR_ADD(w->grammar, behind, symbol_of(SYMBOL_BYTE, 'u'), zero, zero,
                    symbol_of(SYMBOL_BYTE, '0' + i), grammar_set_of(w->grammar, &w->digits[i]));
    }
    const symbol symbols[] = { symbol_of(SYMBOL_BYTE, '\\'), symbol_of(SYMBOL_RULE, behind) };
    add_symbols(w, symbols, 2);
}

static void add_ascii(struct writing *w, uint32_t from, uint32_t to)
{
    for (uint32_t code = from; code <= to; code++) {
        if (code == 0) continue;
        w->ascii = true;
        if (code < ' ' || code == '"' || code == '\\') {
            note_escaped(w, code);
        } else {
            set_byte(&w->plain, (char)code);
        }
    }
}

static size_t encode(uint32_t code, uint8_t out[SEQUENCE_MAX])
{
    const size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t LEAD[] = { 0, 0x00, 0xc0, 0xe0, 0xf0 };

    for (size_t i = len; i-- > 1; code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)(LEAD[len] | code);
    return len;
}

/* All of one length, and each byte over its own range. */
static void add_sequence(struct writing *w, uint32_t from, uint32_t to)
{
    uint8_t low[SEQUENCE_MAX], high[SEQUENCE_MAX];
    symbol symbols[SEQUENCE_MAX];
    const size_t len = encode(from, low);

    (void)encode(to, high);
    for (size_t i = 0; i < len; i++) {
        struct byte_set set = { { 0 } };
        for (unsigned byte = low[i]; byte <= high[i]; byte++)
            set.bits[byte / 64] |= UINT64_C(1) << (byte % 64);
        symbols[i] = grammar_set_of(w->grammar, &set);
    }
    add_symbols(w, symbols, len);
}

/* Cuts [from, to], all of one length, into pieces for add_sequence(), from the left. */
static void add_wide(struct writing *w, uint32_t from, uint32_t to)
{
    while (from <= to) {
        uint32_t end = to;
        for (unsigned bits = 18; bits >= 6; bits -= 6) {
            const uint32_t mask = (1u << bits) - 1;
            if ((from & ~mask) == (end & ~mask)) continue;
            if ((from & mask) != 0)
                end = from | mask;
            else if ((end & mask) != mask)
                end = (end & ~mask) - 1;
        }
        add_sequence(w, from, end);
        from = end + 1;
    }
}

static void add_range(struct writing *w, struct chars_range range)
{
    static const struct chars_range PIECES[] = { { 0x80, 0x7ff },
                                                 { 0x800, SURROGATES - 1 },
                                                 { SURROGATES_END + 1, 0xffff },
                                                 { 0x10000, CHAR_MAX_CODE } };

    if (range.from < 0x80) add_ascii(w, range.from, range.to < 0x80 ? range.to : 0x7f);
    for (size_t i = 0; i < sizeof(PIECES) / sizeof(PIECES[0]); i++) {
        const uint32_t from = range.from > PIECES[i].from ? range.from : PIECES[i].from;
        const uint32_t to = range.to < PIECES[i].to ? range.to : PIECES[i].to;
        if (from <= to) add_wide(w, from, to);
    }
}

/* The first that is not ASCII, byte by byte. */
static void add_first(struct writing *w, const struct chars *chars)
{
    uint8_t bytes[SEQUENCE_MAX];
    symbol symbols[SEQUENCE_MAX];

    for (uint32_t i = 0; i < chars->count; i++) {
        uint32_t first = chars->ranges[i].from < 0x80 ? 0x80 : chars->ranges[i].from;
        if (first >= SURROGATES && first <= SURROGATES_END) first = SURROGATES_END + 1;
        if (first > chars->ranges[i].to) continue;
        const size_t len = encode(first, bytes);
        for (size_t k = 0; k < len; k++)
            symbols[k] = symbol_of(SYMBOL_BYTE, bytes[k]);
        add_symbols(w, symbols, len);
        return;
    }
}

bool chars_add_rule(struct grammar *grammar, const struct chars *chars, uint32_t rule,
                    uint32_t then)
{
    struct writing w = { .grammar = grammar, .rule = rule, .then = then };

    for (uint32_t i = 0; i < chars->count; i++)
        add_range(&w, chars->ranges[i]);
    add_escapes(&w);
    if (!is_empty(&w.plain)) {
        const symbol plain = grammar_set_of(grammar, &w.plain);
        add_symbols(&w, &plain, 1);
    }
    if (w.any && !w.ascii) add_first(&w, chars);
    return w.any;
}
