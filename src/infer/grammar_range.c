/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_range.c - numbers between two bounds, digit by digit.
 *
 * A number is written as sign, whole part and fraction, without an exponent. On one side of zero
 * the whole part is compared first: strictly between those of the bounds any fraction will do;
 * equal to one of them, the fraction has to be on the right side of its. Digits of equal length are
 * compared from the first on, with two flags each: is what has been written so far still equal to
 * the lower bound, and to the upper one? A fraction that ends goes on in zeros.
 *
 * Exactness. Who checks an answer compares doubles, not digits. A bound is taken as the shortest
 * decimal that reads as its double, so what is inside by its digits is inside as a double; and what
 * is strictly inside stays so, because near a bound of w whole digits there are at most
 * EXACT_DIGITS - w behind the point: decimals that doubles tell apart. Bounds of more digits than
 * that are refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "infer/grammar_int.h"

enum { WHOLE_MAX = 16, EXACT_DIGITS = 15 };
static const uint64_t WHOLE_END = UINT64_C(10000000000000000); /* 10^WHOLE_MAX */

/* A bound of numbers >= 0. */
struct bound {
    uint64_t whole;
    char fraction[EXACT_DIGITS + 1]; /* padded with zeros to range->digits */
    bool open;
};

struct range {
    struct grammar *grammar;
    uint32_t digits;                  /* behind the point, at most; 0: integers */
    uint32_t free[WHOLE_MAX + 1];     /* rules: exactly so many digits; GRAMMAR_NONE: not made */
    uint32_t tails[EXACT_DIGITS + 1]; /* rules: up to so many digits; likewise */
    uint32_t fraction;                /* rule: any, or none */
};

static symbol digits_symbol(struct range *r, char from, char to)
{
    const char ranges[] = { from, to, '\0' };
    return from == to ? symbol_of(SYMBOL_BYTE, (uint8_t)from) : grammar_set(r->grammar, ranges);
}

static symbol rule_symbol(uint32_t rule)
{
    return symbol_of(SYMBOL_RULE, rule);
}

static uint32_t free_digits(struct range *r, size_t count)
{
    if (r->free[count] != GRAMMAR_NONE) return r->free[count];
    const uint32_t rule = grammar_rule(r->grammar);
    if (count == 0)
        grammar_add(r->grammar, rule, NULL, 0);
    else
        GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, '0', '9'),
                    rule_symbol(free_digits(r, count - 1)));
    return r->free[count] = rule;
}

static uint32_t tail_digits(struct range *r, size_t most)
{
    if (r->tails[most] != GRAMMAR_NONE) return r->tails[most];
    const uint32_t rule = grammar_rule(r->grammar);
    grammar_add(r->grammar, rule, NULL, 0);
    if (most > 0)
        GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, '0', '9'),
                    rule_symbol(tail_digits(r, most - 1)));
    return r->tails[most] = rule;
}

/* ---- whole parts ---- */

/* Digits as many as in `low` and `high` (of one length), between them as far as they are still
 * equal to what has been written. NULL: free on that side. */
static void add_digits_between(struct range *r, uint32_t rule, const char *low, const char *high)
{
    const size_t count = strlen(low != NULL ? low : high);
    const char from = low != NULL ? low[0] : '0', to = high != NULL ? high[0] : '9';

    if (count == 0) {
        grammar_add(r->grammar, rule, NULL, 0);
        return;
    }
    for (char digit = from; digit <= to; digit++) {
        const char *next_low = low != NULL && digit == from ? low + 1 : NULL;
        const char *next_high = high != NULL && digit == to ? high + 1 : NULL;
        if (next_low == NULL && next_high == NULL) {
            /* All that are free at once. */
            const char last = high != NULL ? (char)(to - 1) : to;
            GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, digit, last),
                        rule_symbol(free_digits(r, count - 1)));
            digit = last;
            continue;
        }
        const uint32_t rest = grammar_rule(r->grammar);
        GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, digit, digit), rule_symbol(rest));
        add_digits_between(r, rest, next_low, next_high);
    }
}

/* Whole numbers from `low` to `high`, length by length: none begins with a zero that it does not
 * need. */
static void add_whole_between(struct range *r, uint32_t rule, uint64_t low, uint64_t high)
{
    uint64_t first = 0, end = 10; /* of this length */

    for (; first <= high && first < WHOLE_END; first = end, end *= 10) {
        char from[24], to[24];
        if (low >= end) continue;
        snprintf(from, sizeof(from), "%llu", (unsigned long long)(low > first ? low : first));
        snprintf(to, sizeof(to), "%llu", (unsigned long long)(high < end ? high : end - 1));
        add_digits_between(r, rule, from, to);
    }
}

/* ---- fractions ---- */

static bool all_zero(const char *digits)
{
    return digits[strspn(digits, "0")] == '\0';
}

/* May the number end here? Its other digits are zeros. */
static bool may_end(const struct bound *low, const char *low_rest, const struct bound *high,
                    const char *high_rest)
{
    if (low_rest != NULL && (low->open || !all_zero(low_rest))) return false;
    return high_rest == NULL || !high->open || !all_zero(high_rest);
}

/* The digits that can come behind those written so far. A rest is NULL once that bound cannot be
 * violated any more. */
static void add_fraction(struct range *r, uint32_t rule, const struct bound *low,
                         const char *low_rest, const struct bound *high, const char *high_rest,
                         uint32_t left)
{
    const char from = low_rest != NULL ? low_rest[0] : '0';
    const char to = high_rest != NULL ? high_rest[0] : '9';

    if (left == 0) return;
    for (char digit = from; digit <= to; digit++) {
        const char *next_low = low_rest != NULL && digit == from ? low_rest + 1 : NULL;
        const char *next_high = high_rest != NULL && digit == to ? high_rest + 1 : NULL;
        if (next_low == NULL && next_high == NULL) {
            const char last = high_rest != NULL ? (char)(to - 1) : to;
            GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, digit, last),
                        rule_symbol(tail_digits(r, left - 1)));
            digit = last;
            continue;
        }
        const uint32_t rest = grammar_rule(r->grammar);
        if (may_end(low, next_low, high, next_high)) grammar_add(r->grammar, rest, NULL, 0);
        add_fraction(r, rest, low, next_low, high, next_high, left - 1);
        GRAMMAR_ADD(r->grammar, rule, digits_symbol(r, digit, digit), rule_symbol(rest));
    }
}

/* One whole part, and fractions within the bounds that are given. */
static void add_at(struct range *r, uint32_t rule, uint64_t whole, const struct bound *low,
                   const struct bound *high)
{
    const char *low_rest = low != NULL ? low->fraction : NULL;
    const char *high_rest = high != NULL ? high->fraction : NULL;
    const uint32_t behind = grammar_rule(r->grammar), digits = grammar_rule(r->grammar);
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)whole);
    grammar_add_text(r->grammar, rule, text, strlen(text), behind);
    if (may_end(low, low_rest, high, high_rest)) grammar_add(r->grammar, behind, NULL, 0);
    add_fraction(r, digits, low, low_rest, high, high_rest, r->digits);
    if (r->digits > 0)
        GRAMMAR_ADD(r->grammar, behind, symbol_of(SYMBOL_BYTE, '.'), rule_symbol(digits));
}

/* From low to high, both >= 0. */
static void add_between(struct range *r, uint32_t rule, const struct bound *low,
                        const struct bound *high)
{
    const uint32_t whole = grammar_rule(r->grammar);

    if (low->whole > high->whole) return;
    if (low->whole == high->whole) {
        const int order = strcmp(low->fraction, high->fraction);
        if (order < 0 || (order == 0 && !low->open && !high->open))
            add_at(r, rule, low->whole, low, high);
        return;
    }
    add_at(r, rule, low->whole, low, NULL);
    add_at(r, rule, high->whole, NULL, high);
    if (low->whole + 1 == high->whole) return;
    add_whole_between(r, whole, low->whole + 1, high->whole - 1);
    GRAMMAR_ADD(r->grammar, rule, rule_symbol(whole), rule_symbol(r->fraction));
}

/* ---- bounds ---- */

void grammar_decimal(double value, uint64_t *digits, int *exponent)
{
    char text[40];
    int precision = 0;

    value = fabs(value);
    do {
        snprintf(text, sizeof(text), "%.*e", precision, value);
    } while (strtod(text, NULL) != value && precision++ < 17);
    /* d.ddd...e[+-]xx: `precision` digits behind the point, moved by the exponent. */
    *exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10) - precision;
    *digits = 0;
    for (const char *c = text; *c != 'e'; c++) {
        if (*c != '.') *digits = *digits * 10 + (uint64_t)(*c - '0');
    }
    for (; *digits > 0 && *digits % 10 == 0; *digits /= 10)
        ++*exponent;
}

/* |value| as its shortest decimal: whole digits and a fraction. False if it has more than can be
 * kept. */
static bool read_bound(double value, bool open, struct bound *out)
{
    char plain[64];
    uint64_t digits = 0, whole = 0;
    int exponent = 0;

    value = fabs(value);
    if (value >= 1e15) return false;
    grammar_decimal(value, &digits, &exponent);
    const int behind = exponent < 0 ? -exponent : 0;
    if (behind > EXACT_DIGITS) return false;
    snprintf(plain, sizeof(plain), "%.*f", behind, value);
    const char *point = strchr(plain, '.');
    whole = strtoull(plain, NULL, 10);
    *out = (struct bound){ .whole = whole, .open = open };
    memset(out->fraction, '0', EXACT_DIGITS);
    if (point != NULL) memcpy(out->fraction, point + 1, strlen(point + 1));
    return true;
}

static uint32_t digits_of(uint64_t whole)
{
    uint32_t count = 0;

    for (; whole > 0; whole /= 10)
        count++;
    return count;
}

/* Cuts a bound to `digits`; false if something other than zeros would be lost. */
static bool cut_bound(struct bound *bound, uint32_t digits)
{
    if (!all_zero(bound->fraction + digits)) return false;
    bound->fraction[digits] = '\0';
    return true;
}

/* ---- integers ---- */

/* The bound as an integer that is inside; not given: as far as there are digits. */
static int64_t integer_bound(double value, bool open, bool low)
{
    const int64_t end = (int64_t)WHOLE_END - 1;

    if (isnan(value)) return low ? -end : end;
    double inside = low ? ceil(value) : floor(value);
    if (open && inside == value) inside += low ? 1 : -1;
    if (inside > (double)end) return low ? end + 1 : end;
    if (inside < (double)-end) return low ? -end : -end - 1;
    return (int64_t)inside;
}

/* Doubles do not tell all integers of 16 digits apart; those of more are out of reach anyway. */
static bool is_blurred(double value)
{
    return fabs(value) >= 9007199254740992.0 && fabs(value) < (double)WHOLE_END;
}

static enum status integers(struct range *r, const struct number_bounds *bounds, uint32_t rule,
                            struct errmsg *err)
{
    if (is_blurred(bounds->min) || is_blurred(bounds->max))
        return errmsg_set(err, STATUS_INVALID, "a bound has more digits than are exact");
    const int64_t low = integer_bound(bounds->min, bounds->min_open, true);
    const int64_t high = integer_bound(bounds->max, bounds->max_open, false);
    if (low > high) return errmsg_set(err, STATUS_INVALID, "nothing of 16 digits is within");
    if (high >= 0) add_whole_between(r, rule, low > 0 ? (uint64_t)low : 0, (uint64_t)high);
    if (low < 0) {
        const uint32_t below = grammar_rule(r->grammar);
        add_whole_between(r, below, high < 0 ? (uint64_t)-high : 1, (uint64_t)-low);
        GRAMMAR_ADD(r->grammar, rule, symbol_of(SYMBOL_BYTE, '-'), rule_symbol(below));
    }
    return STATUS_OK;
}

/* ---- numbers ---- */

/* Any fraction of up to r->digits, or none. */
static void make_fraction(struct range *r)
{
    r->fraction = grammar_rule(r->grammar);
    grammar_add(r->grammar, r->fraction, NULL, 0);
    if (r->digits > 0)
        GRAMMAR_ADD(r->grammar, r->fraction, symbol_of(SYMBOL_BYTE, '.'),
                    digits_symbol(r, '0', '9'), rule_symbol(tail_digits(r, r->digits - 1)));
}

/* One side of zero: from `min` (0 or more) to `max` (NAN: no end). */
static void add_side(struct range *r, uint32_t rule, const struct bound *min,
                     const struct bound *max)
{
    struct bound low = { .open = false }, high = { .whole = WHOLE_END - 1 };

    memset(low.fraction, '0', r->digits);
    memset(high.fraction, '9', r->digits);
    add_between(r, rule, min != NULL ? min : &low, max != NULL ? max : &high);
}

static enum status numbers(struct range *r, const struct number_bounds *bounds, uint32_t rule,
                           struct errmsg *err)
{
    struct bound min = { 0 }, max = { 0 };
    const bool has_min = !isnan(bounds->min), has_max = !isnan(bounds->max);
    uint32_t whole = 0;
    bool ok = true;

    if (has_min && has_max && bounds->min > bounds->max)
        return errmsg_set(err, STATUS_INVALID, "nothing is within");
    if (has_min) ok = read_bound(bounds->min, bounds->min_open, &min);
    if (has_max) ok = read_bound(bounds->max, bounds->max_open, &max) && ok;
    if (digits_of(min.whole) > whole) whole = digits_of(min.whole);
    if (digits_of(max.whole) > whole) whole = digits_of(max.whole);
    if (ok) r->digits = EXACT_DIGITS - whole;
    if (ok && has_min) ok = cut_bound(&min, r->digits);
    if (ok && has_max) ok = cut_bound(&max, r->digits);
    if (!ok) return errmsg_set(err, STATUS_INVALID, "a bound has more digits than are exact");
    make_fraction(r);

    if (!has_max || bounds->max >= 0) {
        const bool above = has_min && bounds->min >= 0;
        add_side(r, rule, above ? &min : NULL, has_max ? &max : NULL);
    }
    if (!has_min || bounds->min < 0) {
        /* Turned around; zero is not written with a sign. */
        const uint32_t below = grammar_rule(r->grammar);
        struct bound zero = { .open = true };
        memset(zero.fraction, '0', r->digits);
        add_side(r, below, has_max && bounds->max < 0 ? &max : &zero, has_min ? &min : NULL);
        GRAMMAR_ADD(r->grammar, rule, symbol_of(SYMBOL_BYTE, '-'), rule_symbol(below));
    }
    return STATUS_OK;
}

enum status grammar_range(struct grammar *grammar, const struct number_bounds *bounds,
                          uint32_t rule, struct errmsg *err)
{
    struct range r = { .grammar = grammar };

    memset(r.free, 0xff, sizeof(r.free));
    memset(r.tails, 0xff, sizeof(r.tails));
    return bounds->integer ? integers(&r, bounds, rule, err) : numbers(&r, bounds, rule, err);
}
