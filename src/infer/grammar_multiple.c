/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_multiple.c - numbers that are multiples of one, digit by digit.
 *
 * The factor is a decimal, taken as the shortest one that reads as its double: q * 10^e, with q no
 * multiple of ten. With e >= 0 a multiple is one of q, e zeros, and nothing behind the point. With
 * e = -k a number of j digits behind the point, at most k, is a multiple exactly if its digits,
 * without the point, are one of q / gcd(q, 10^(k-j)): a rule for each j.
 *
 * Digits of one length are read from the first on by an automaton whose states are the remainder so
 * far and how many are left; along a bound, for as long as they are equal to it, the digits so far.
 * Only digits behind which there is a multiple are allowed, so every state can be completed.
 *
 * Exactness. By digits it is exact; all have at most MULTIPLE_DIGITS, which doubles tell apart. Who
 * checks with a division of doubles may find otherwise (19.99 / 0.01).
 *
 * Limits: MULTIPLE_MAX for q, POINT_MAX for k. */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "infer/grammar_int.h"

enum { MULTIPLE_DIGITS = 15, MULTIPLE_MAX = 256, POINT_MAX = 6 };
static const uint64_t BEYOND = UINT64_C(1000000000000000); /* 10^MULTIPLE_DIGITS */

/* Digits that are a multiple of q, with `point` of them behind the point, and `zeros` more. */
struct form {
    struct grammar *grammar;
    uint32_t q, point, zeros;
    uint32_t free[MULTIPLE_DIGITS + 1][MULTIPLE_MAX]; /* rules, by digits left and remainder */
};

static uint64_t power(uint32_t exponent)
{
    uint64_t value = 1;

    ASSERT(exponent < 20);
    while (exponent-- > 0)
        value *= 10;
    return value;
}

static bool has_multiple(uint64_t from, uint64_t to, uint32_t q)
{
    return from <= to && to / q * q >= from;
}

static void add_digits(struct form *form, uint32_t rule, uint64_t before, uint32_t left,
                       uint64_t from, uint64_t to);

/* `left` digits that complete a multiple behind others of this remainder. */
static uint32_t free_rule(struct form *form, uint32_t remainder, uint32_t left)
{
    uint32_t *made = &form->free[left][remainder];

    if (*made == GRAMMAR_NONE) {
        *made = grammar_rule(form->grammar);
        add_digits(form, *made, remainder, left, 0, UINT64_MAX);
    }
    return *made;
}

static void add_end(const struct form *form, uint32_t rule)
{
    static const char ZEROS[] = "000000000000000";

    ASSERT(form->zeros < sizeof(ZEROS));
    grammar_add_text(form->grammar, rule, ZEROS, form->zeros, GRAMMAR_NONE);
}

/* The digits `set`, with a point in front if it is there, and then the rule. */
static void add_step(struct form *form, uint32_t rule, const struct byte_set *set, uint32_t left,
                     uint32_t next)
{
    const symbol digits = grammar_set_of(form->grammar, set);
    const symbol then = symbol_of(SYMBOL_RULE, next);

    if (form->point > 0 && left == form->point)
        GRAMMAR_ADD(form->grammar, rule, symbol_of(SYMBOL_BYTE, '.'), digits, then);
    else
        GRAMMAR_ADD(form->grammar, rule, digits, then);
}

/* `left` more digits behind those of `before`, so that all of them are a multiple from..to. */
static void add_digits(struct form *form, uint32_t rule, uint64_t before, uint32_t left,
                       uint64_t from, uint64_t to)
{
    uint32_t next[10];

    if (left == 0) {
        add_end(form, rule);
        return;
    }
    const uint64_t unit = power(left - 1);
    for (uint32_t digit = 0; digit < 10 && !form->grammar->failed; digit++) {
        const uint64_t digits = before * 10 + digit, first = digits * unit, last = first + unit - 1;
        const bool inside = first >= from && last <= to;
        next[digit] = GRAMMAR_NONE;
        if (!has_multiple(first > from ? first : from, last < to ? last : to, form->q)) continue;
        if (inside) {
            next[digit] = free_rule(form, (uint32_t)(digits % form->q), left - 1);
        } else {
            next[digit] = grammar_rule(form->grammar);
            add_digits(form, next[digit], digits, left - 1, from, to);
        }
    }
    if (form->grammar->failed) return;
    for (uint32_t digit = 0; digit < 10; digit++) {
        const uint32_t then = next[digit];
        struct byte_set set = { { 0 } };
        if (then == GRAMMAR_NONE) continue;
        for (uint32_t same = digit; same < 10; same++) { /* all that lead there */
            if (next[same] != then) continue;
            set.bits[0] |= UINT64_C(1) << ('0' + same);
            next[same] = GRAMMAR_NONE;
        }
        add_step(form, rule, &set, left, then);
    }
}

/* Multiples from..to, length by length: none begins with a zero that it does not need. */
static void add_lengths(struct form *form, uint32_t rule, uint64_t from, uint64_t to)
{
    for (uint32_t count = form->point + 1; count + form->zeros <= MULTIPLE_DIGITS; count++) {
        const uint64_t least = count == form->point + 1 ? 0 : power(count - 1);
        const uint64_t low = from > least ? from : least;
        const uint64_t high = to < power(count) ? to : power(count) - 1;
        if (has_multiple(low, high, form->q)) add_digits(form, rule, 0, count, low, high);
    }
}

/* From low to high, in units of the last digit. */
static void add_form(struct form *form, uint32_t rule, int64_t low, int64_t high)
{
    memset(form->free, 0xff, sizeof(form->free));
    if (form->zeros > 0) { /* zero itself has one digit */
        if (low <= 0 && high >= 0) GRAMMAR_ADD(form->grammar, rule, symbol_of(SYMBOL_BYTE, '0'));
        if (high > 0) add_lengths(form, rule, low > 0 ? (uint64_t)low : 1, (uint64_t)high);
    } else if (high >= 0) {
        add_lengths(form, rule, low > 0 ? (uint64_t)low : 0, (uint64_t)high);
    }
    if (low >= 0) return;
    const uint64_t least = high < 0 ? (uint64_t)-high : 1;
    const uint32_t below = grammar_rule(form->grammar);
    add_lengths(form, below, least, (uint64_t)-low);
    if (!form->grammar->failed && form->grammar->rules[below].first != GRAMMAR_NONE)
        GRAMMAR_ADD(form->grammar, rule, symbol_of(SYMBOL_BYTE, '-'),
                    symbol_of(SYMBOL_RULE, below));
}

/* The bound in units of 10^-places, moved inside; as far as there are digits if it is not given. */
static int64_t in_units(double bound, bool open, bool lower, int places)
{
    const int64_t end = (int64_t)BEYOND - 1;
    uint64_t digits = 0, whole = 0;
    int exponent = 0;
    bool exact = true;

    if (isnan(bound)) return lower ? -end : end;
    grammar_decimal(bound, &digits, &exponent);
    const int shift = exponent + places;
    if (shift >= 0) {
        const bool far = digits > 0 && (shift > MULTIPLE_DIGITS || digits >= BEYOND ||
                                        digits > BEYOND / power((uint32_t)shift));
        whole = far ? BEYOND : digits > 0 ? digits * power((uint32_t)shift) : 0;
    } else {
        const uint64_t unit = shift > -19 ? power((uint32_t)-shift) : UINT64_MAX;
        whole = digits / unit;
        exact = digits % unit == 0;
    }
    if (whole > BEYOND) whole = BEYOND;
    const int64_t value = bound < 0 ? -(int64_t)whole : (int64_t)whole;
    /* Between `value` and the next one away from zero if it is not exact. */
    if (exact) return open ? value + (lower ? 1 : -1) : value;
    if (lower) return bound < 0 ? value : value + 1;
    return bound < 0 ? value - 1 : value;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

enum status grammar_multiple(struct grammar *grammar, const struct number_bounds *bounds,
                             double factor, uint32_t rule, struct errmsg *err)
{
    uint64_t q = 0;
    int exponent = 0;

    if (!(factor > 0)) return errmsg_set(err, STATUS_INVALID, "it must be greater than 0");
    grammar_decimal(factor, &q, &exponent);
    if (q > MULTIPLE_MAX) return errmsg_set(err, STATUS_INVALID, "it has too many remainders");
    if (exponent < -POINT_MAX || exponent >= MULTIPLE_DIGITS)
        return errmsg_set(err, STATUS_INVALID, "it has more digits than are exact");
    const int most = exponent < 0 ? -exponent : 0;
    for (int places = 0; places <= (bounds->integer ? 0 : most); places++) {
        const uint64_t shared = common_divisor(q, power((uint32_t)(most - places)));
        struct form form = { .grammar = grammar,
                             .q = (uint32_t)(q / shared),
                             .point = (uint32_t)places,
                             .zeros = exponent > 0 ? (uint32_t)exponent : 0 };
        const int units = exponent > 0 ? -exponent : places;
        const int64_t low = in_units(bounds->min, bounds->min_open, true, units);
        const int64_t high = in_units(bounds->max, bounds->max_open, false, units);
        const int64_t end = (int64_t)BEYOND - 1;
        if (low <= high && low <= end && high >= -end)
            add_form(&form, rule, low < -end ? -end : low, high > end ? end : high);
    }
    return STATUS_OK;
}
