/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_keywords_test.c
 *
 * Goal:   bounds, patterns, formats, tuples and `oneOf` mean what they say: what is valid is taken,
 *         what is not is not, and what cannot be told is refused by name.
 * Method: every small number against random bounds; random patterns and texts against the regular
 * expressions of the C library; random schemas made together with a valid instance of each; texts
 * by hand. Random answers under all keywords are in grammar_test.c. */
#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/rng.h"
#include "grammar_words.h"
#include "seed.h"

static uint32_t below(struct rng *rng, uint32_t n)
{
    return (uint32_t)rng_below(rng, n);
}

/* ---- by hand ---- */

static const struct {
    const char *schema;
    const char *yes[7], *no[7];
} texts[] = {
    { "{'minimum':3,'maximum':12,'type':'integer'}",
      { "3", "9", "10", "12" },
      { "2", "13", "03", "3.0", "-3", "1", "100" } },
    { "{'exclusiveMinimum':-1.5,'type':'integer'}",
      { "-1", "0", "9999999999999999" },
      { "-2", "-0", "10000000000000000" } },
    { "{'minimum':0.5,'exclusiveMaximum':2}",
      { "0.5", "0.50", "1", "1.99", "0.75" },
      { "0", "0.49", "2", "2.0", "-1", "5e-1" } },
    { "{'maximum':-1.25}", { "-1.25", "-2", "-1.3", "-100.5" }, { "-1.2", "1", "0", "-1.249" } },
    { "{'pattern':'^[a-c]{2,3}$'}", { "'ab'", "'ccc'" }, { "'a'", "'abcd'", "'ad'", "ab" } },
    { "{'pattern':'ab|^c'}", { "'ab'", "'xaby'", "'c'", "'cx'" }, { "'xc'", "'a'", "''" } },
    { "{'pattern':'^\\\\d+(?:\\\\.\\\\d*)?$'}", { "'1'", "'12.'", "'12.5'" }, { "'.5'", "''" } },
    { "{'pattern':'^.$'}",
      { "'a'", "'\xc3\xa4'", "'\xf0\x9f\x98\x80'", "'\\''", "'\\\\'", "'\\t'" },
      { "''", "'\\n'", "'ab'", "'\xe2\x80\xa8'" } },
    { "{'pattern':'^[\xce\xb1-\xcf\x89]+$'}",
      { "'\xce\xb1'", "'\xcf\x89\xce\xb2'" },
      { "'a'", "'\xce\xb0'", "'\xcf\x8a'" } },
    { "{'pattern':'^[^\\\\w\\\\s]$'}", { "'-'", "'\\\\'", "'\xc3\xa4'" }, { "'a'", "' '" } },
    { "{'pattern':'^\\\\u0041\\\\x42[\\\\-\\\\]^]$'}", { "'AB-'", "'AB]'", "'AB^'" }, { "'AB'" } },
    { "{'pattern':'^(a|b(c|d)*?)+$'}", { "'a'", "'bcdda'" }, { "'c'", "''" } },
    { "{'format':'date'}",
      { "'2024-02-29'", "'1999-12-31'", "'2000-02-29'" },
      { "'2023-02-29'", "'1900-02-29'", "'2024-13-01'", "'2024-04-31'", "'24-01-01'" } },
    { "{'type':'string','format':'date-time'}",
      { "'2024-01-02T23:59:59Z'", "'2024-01-02T00:00:00.123+02:00'" },
      { "'2024-01-02'", "'2024-01-02T24:00:00Z'", "'2024-01-02T00:00:00'" } },
    { "{'type':'string','format':'uuid'}",
      { "'123e4567-e89b-12d3-A456-426614174000'" },
      { "'123e4567e89b12d3a456426614174000'" } },
    { "{'type':'string','format':'ipv4'}", { "'127.0.0.1'", "'255.9.99.199'" }, { "'256.1.1.1'" } },
    { "{'type':'string','format':'colour'}", { "'anything'" }, { "1" } },
    { "{'prefixItems':[{'type':'integer'},{'type':'boolean'}],'items':{'type':'null'}}",
      { "[]", "[1]", "[1,true]", "[1,true,null,null]" },
      { "[true]", "[1,true,1]", "[1,null]" } },
    { "{'prefixItems':[{'type':'integer'},{'type':'boolean'}],'minItems':2}",
      { "[1,true]" },
      { "[1]", "[]", "[1,true,true]" } },
    { "{'prefixItems':[{'type':'integer'}],'items':false,'minItems':1}", { "[7]" }, { "[7,7]" } },
    { "{'prefixItems':[{'type':'integer'}],'minItems':2}", { "[7,'x']" }, { "[7]", "[7,1,1]" } },
    { "{'items':false}", { "[]" }, { "[1]" } },
    { "{'prefixItems':[{'type':'null'},{'type':'boolean'}],'maxItems':1}",
      { "[null]", "[]" },
      { "[null,true]" } },
    { "{'oneOf':[{'type':'integer'},{'type':'string','maxLength':2},{'type':'string','minLength':3}"
      "]}",
      { "1", "'ab'", "'abc'" },
      { "1.5", "null" } },
    { "{'oneOf':[{'properties':{'kind':{'const':'a'},'x':{'type':'integer'}},'required':['kind','x'"
      "]"
      "},{'$ref':'#/$defs/b'}],'$defs':{'b':{'properties':{'kind':{'enum':['b','c']}},'required':["
      "'kind']}}}",
      { "{'kind':'a','x':1}", "{'kind':'c'}" },
      { "{'kind':'a'}", "{'kind':'d'}", "{}" } },
    { "{'oneOf':[{'properties':{'a':{}},'required':['a']},{'properties':{'b':{}},'required':['b']}]"
      "}",
      { "{'a':1}", "{'b':1}" },
      { "{'a':1,'b':1}", "{}" } },
    { "{'oneOf':[{'maximum':1},{'exclusiveMinimum':1}]}", { "1", "1.5", "0" }, { "'a'" } },
    { "{'oneOf':[{'enum':[1,2]},{'enum':[3,'x']}]}", { "1", "3", "'x'" }, { "4" } },
    { "{'type':'integer','multipleOf':60}",
      { "0", "60", "-120", "3600", "999999999999960" },
      { "6", "90", "-0", "060", "0.0", "1", "9999999999999960" } },
    { "{'multipleOf':0.01}",
      { "0", "19.99", "-0.5", "7.00", "0.05", "1234567890123.45" },
      { "0.001", "1.", ".5", "-0.00", "00.5", "1e2", "0.050" } },
    { "{'multipleOf':2.5,'minimum':-5,'exclusiveMaximum':10}",
      { "-5", "-2.5", "0", "0.0", "7.5", "-5.0" },
      { "-7.5", "10", "10.0", "1", "2.50", "5.5", "-0.0" } },
    { "{'type':'integer','multipleOf':2.5}", { "5", "-10", "0" }, { "2", "2.5", "5.0" } },
    { "{'multipleOf':1000,'maximum':5000}", { "0", "-1000", "5000" }, { "500", "6000", "0000" } },
    { "{'not':{'type':'null'}}", { "1", "'a'", "{}", "[1]", "true" }, { "null" } },
    { "{'type':['string','null'],'not':{'enum':['no','none','nÃ¶',null]}}",
      { "''", "'n'", "'non'", "'nothing'", "'nÃ¤'", "'N'", "'N\\u00f7'" },
      { "'no'", "'none'", "'nÃ¶'", "null", "'n\\u00f6'", "'\\u006eo'" } },
    { "{'type':'integer','minimum':0,'maximum':6,'not':{'enum':[0,3,4.0,9]}}",
      { "1", "2", "5", "6" },
      { "0", "3", "4", "7", "9" } },
    { "{'type':'number','not':{'const':2.5}}",
      { "2.49", "2.51", "-3", "2.501" },
      { "2.5", "2.50", "2.5000" } },
    { "{'type':['boolean','integer'],'not':{'anyOf':[{'const':false},{'const':7}]}}",
      { "true", "8", "77" },
      { "false", "7", "null" } },
    { "{'enum':['a','b',3],'not':{'type':'integer'}}", { "'a'", "'b'" }, { "3" } },
};

/* Written with ' for ". */
static const char *quoted(const char *text, char *out, size_t size)
{
    size_t len = 0;

    for (; *text != '\0'; text++) {
        assert_true(len + 3 < size);
        out[len++] = *text == '\'' ? '"' : *text;
    }
    out[len] = '\0';
    return out;
}

static struct grammar *compiled_schema(const char *schema)
{
    char text[8192], document[8192 + 16];

    snprintf(document, sizeof(document), "{\"schema\":%s}", quoted(schema, text, sizeof(text)));
    return compiled(document);
}

static bool takes_quoted(const struct grammar *grammar, const char *text)
{
    char out[4096];
    return takes(grammar, quoted(text, out, sizeof(out)));
}

static void texts_are_taken_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct grammar *grammar = compiled_schema(texts[i].schema);
        for (size_t k = 0; k < 7 && texts[i].yes[k] != NULL; k++) {
            if (!takes_quoted(grammar, texts[i].yes[k]))
                fail_msg("%s does not take %s", texts[i].schema, texts[i].yes[k]);
        }
        for (size_t k = 0; k < 7 && texts[i].no[k] != NULL; k++) {
            if (takes_quoted(grammar, texts[i].no[k]))
                fail_msg("%s takes %s", texts[i].schema, texts[i].no[k]);
        }
        grammar_destroy(grammar);
    }
}

static const struct {
    const char *schema, *error;
} refused[] = {
    { "{'pattern':'a(?=b)'}",
      "schema: a group of a kind that is not supported, at character 3, in 'pattern'" },
    { "{'pattern':'(a)\\\\1'}", "an escape that is not supported" },
    { "{'pattern':'a\\\\b'}", "an escape that is not supported" },
    { "{'pattern':'(^a)'}", "an anchor inside" },
    { "{'pattern':'(a*)*'}", "what may be empty is repeated without end" },
    { "{'pattern':'(?:a|b{0,2})+'}", "what may be empty is repeated without end" },
    { "{'pattern':'[b-a]'}", "a range of nothing" },
    { "{'pattern':'[a'}", "a '[' that is not closed" },
    { "{'pattern':'(a'}", "a '(' that is not closed" },
    { "{'pattern':'a)'}", "closed and not opened" },
    { "{'pattern':'*a'}", "nothing to repeat" },
    { "{'pattern':'a{2,1}'}", "a count from more to less" },
    { "{'pattern':'a{x}'}", "a count must be {n}, {n,} or {n,m}" },
    { "{'pattern':'a{9000}'}", "a count is at most 8192" },
    { "{'pattern':'((a{200}){200}){200}'}", "it has too many states" },
    { "{'pattern':'((((((((((((((((((a))))))))))))))))))'}", "nested too deeply" },
    { "{'pattern':'[^\\\\u0001-\\\\uffff\\\\D]'}", "a set of nothing" },
    { "{'pattern':1}", "must be a text: 'pattern'" },
    { "{'pattern':'a','minLength':3}", "with a length: 'pattern'" },
    { "{'type':'integer','minimum':3,'maximum':2}", "nothing is within" },
    { "{'type':'integer','exclusiveMinimum':3,'exclusiveMaximum':4}", "is within" },
    { "{'minimum':3,'exclusiveMaximum':3}", "nothing is within" },
    { "{'minimum':1e-20}", "a bound has more digits than are exact" },
    { "{'type':'integer','minimum':9007199254740993}", "more digits than are exact" },
    { "{'minimum':3,'exclusiveMinimum':true}", "must be a number: 'exclusiveMinimum'" },
    { "{'multipleOf':0}", "schema: it must be greater than 0: 'multipleOf'" },
    { "{'multipleOf':-2}", "it must be greater than 0: 'multipleOf'" },
    { "{'multipleOf':257}", "it has too many remainders: 'multipleOf'" },
    { "{'multipleOf':1.001}", "it has too many remainders: 'multipleOf'" },
    { "{'multipleOf':1e-7}", "it has more digits than are exact: 'multipleOf'" },
    { "{'multipleOf':1e15}", "it has more digits than are exact: 'multipleOf'" },
    { "{'multipleOf':'x'}", "must be a number: 'multipleOf'" },
    { "{'multipleOf':100,'minimum':101,'maximum':199}", "nothing is within" },
    { "{'enum':[1],'multipleOf':2}", "not supported here: 'multipleOf'" },
    { "{'not':true}", "must be an object: 'not'" },
    { "{'not':{'required':['a']}}", "schema: not supported within a 'not': 'required'" },
    { "{'not':{'not':{'type':'null'}}}", "not supported within a 'not': 'not'" },
    { "{'not':{'anyOf':[{'type':'null'},{'anyOf':[{'const':1}]}]}}", "in itself, within a 'not'" },
    { "{'not':{'anyOf':[{'type':'null'}],'const':1}}", "beside others in a 'not': 'anyOf'" },
    { "{'not':{'anyOf':[{'type':'null'},{'pattern':'a'}]}}", "within a 'not': 'pattern'" },
    { "{'type':'null','not':{'const':null}}", "nothing fits 'not'" },
    { "{'type':'boolean','not':{'enum':[true,false]}}", "nothing fits 'not'" },
    { "{'type':'number','not':{'type':'integer'}}", "integers cannot be taken from numbers" },
    { "{'not':{'const':{'a':1}}}", "single objects and arrays cannot be taken away: 'not'" },
    { "{'pattern':'a','not':{'const':'b'}}", "with a length, pattern or format: 'not'" },
    { "{'type':'string','maxLength':4,'not':{'const':'b'}}", "with a length, pattern or format" },
    { "{'enum':[1,2],'not':{'enum':[2,1.0]}}", "no value fits 'not'" },
    { "{'type':'integer','minimum':3,'maximum':4,'not':{'enum':[3,4]}}", "is within" },
    { "{'$ref':'#/$defs/a','not':{'const':1},'$defs':{'a':{}}}", "not supported here: 'not'" },
    { "{'prefixItems':[]}", "1 to 1024 in 'prefixItems'" },
    { "{'prefixItems':[{},{'not':{}}]}", "schema.prefixItems[1]: nothing fits 'not'" },
    { "{'prefixItems':[{}],'items':false,'minItems':2}", "nothing fits 'minItems'" },
    { "{'oneOf':[{'type':'integer'},{'type':'null'},{'type':'number'}]}",
      "schemas 0 and 2 may both fit in 'oneOf'" },
    { "{'oneOf':[{},{'type':'null'}]}", "schemas 0 and 1 may both fit in 'oneOf'" },
    { "{'oneOf':[{'const':1.0},{'type':'integer'}]}", "schemas 0 and 1 may both fit" },
    { "{'oneOf':[{'properties':{'a':{'const':1}}},{'properties':{'a':{'const':2}}}]}",
      "schemas 0 and 1 may both fit" },
    { "{'oneOf':[{'type':'object','required':[]},{'required':['a']}]}", "may both fit" },
    { "{'oneOf':[{'$ref':'#'},{'type':'null'}]}", "may both fit" },
};

static void the_rest_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char schema[1024], document[1100];
        struct grammar *grammar;
        struct errmsg err = { "" };
        snprintf(document, sizeof(document), "{\"schema\":%s}",
                 quoted(refused[i].schema, schema, sizeof(schema)));
        if (grammar_compile(document, strlen(document), &grammar, &err) != STATUS_INVALID)
            fail_msg("%s: is not refused", document);
        if (strstr(err.text, refused[i].error) == NULL) fail_msg("%s: %s", document, err.text);
    }
}

/* ---- numbers ---- */

struct bounds {
    double min, max; /* NAN: not given */
    bool min_open, max_open;
};

static bool inside(const struct bounds *bounds, double value)
{
    if (value < bounds->min || value > bounds->max) return false;
    return (!bounds->min_open || value != bounds->min) &&
           (!bounds->max_open || value != bounds->max);
}

/* Appends the keyword with the value as it is printed, and returns that. */
static double put_bound(const char *keyword, double value, int places, char *schema, size_t size)
{
    const double scale = pow(10, places), bound = round(value * scale) / scale;
    const size_t len = strlen(schema);

    snprintf(schema + len, size - len, ",'%s':%.*f", keyword, places, bound);
    return bound;
}

/* `places` digits behind the point, as printed. */
static struct bounds random_bounds(struct rng *rng, int places, char *schema, size_t size)
{
    struct bounds bounds = { NAN, NAN, below(rng, 2) == 0, below(rng, 2) == 0 };
    const double low = ((double)below(rng, 4000) - 2000) / (below(rng, 3) == 0 ? 10 : 100);

    schema[0] = '\0';
    if (below(rng, 4) != 0)
        bounds.min =
            put_bound(bounds.min_open ? "exclusiveMinimum" : "minimum", low, places, schema, size);
    if (below(rng, 4) != 0)
        bounds.max = put_bound(bounds.max_open ? "exclusiveMaximum" : "maximum",
                               low + (double)below(rng, 500) / 100, places, schema, size);
    return bounds;
}

static struct grammar *try_bounds(const char *type, const char *keywords)
{
    char schema[256], text[256], document[300];
    struct grammar *grammar;
    struct errmsg err = { "" };

    snprintf(schema, sizeof(schema), "{'type':'%s'%s}", type, keywords);
    snprintf(document, sizeof(document), "{\"schema\":%s}", quoted(schema, text, sizeof(text)));
    if (grammar_compile(document, strlen(document), &grammar, &err) == STATUS_OK) return grammar;
    if (strstr(err.text, "within") == NULL && strstr(err.text, "nothing that ends") == NULL)
        fail_msg("%s: %s", document, err.text);
    return NULL; /* there is nothing inside */
}

static void check_number(const struct grammar *grammar, const struct bounds *bounds,
                         const char *keywords, double value, const char *text)
{
    const bool taken = grammar != NULL && takes(grammar, text);
    const bool wanted = inside(bounds, value) && strcmp(text, "-0") != 0;

    if (taken != wanted) fail_msg("%s: %s is %s", keywords, text, taken ? "taken" : "not taken");
}

static void ask_integers(struct rng *rng, const struct grammar *grammar,
                         const struct bounds *bounds, const char *keywords)
{
    const int most = below(rng, 4) == 0 ? 1 : 9;
    char text[32];

    for (int value = -260; value <= 260; value += 1 + (int)below(rng, (uint32_t)most)) {
        snprintf(text, sizeof(text), "%d", value);
        check_number(grammar, bounds, keywords, value, text);
    }
}

/* Around the bounds, and anywhere. */
static void ask_numbers(struct rng *rng, const struct grammar *grammar, const struct bounds *bounds,
                        const char *keywords)
{
    char text[32];

    for (int i = 0; i < 150; i++) {
        const double at = below(rng, 3) == 0                          ? 0
                          : below(rng, 2) == 0 && !isnan(bounds->min) ? bounds->min
                          : isnan(bounds->max)                        ? 0
                                                                      : bounds->max;
        const double away = ((double)below(rng, 400) - 200) / pow(10, below(rng, 5));
        snprintf(text, sizeof(text), "%.*f", (int)below(rng, 6), at + away);
        if (strtod(text, NULL) == 0) snprintf(text, sizeof(text), "0.0");
        check_number(grammar, bounds, keywords, strtod(text, NULL), text);
    }
}

static void bounds_are_kept(void **state)
{
    const uint64_t seed = test_seed();
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 60; round++) {
        const bool integers = round % 2 == 0;
        char keywords[160];
        const struct bounds bounds =
            random_bounds(&rng, (int)below(&rng, integers ? 2 : 4), keywords, 160);
        struct grammar *grammar = try_bounds(integers ? "integer" : "number", keywords);
        (integers ? ask_integers : ask_numbers)(&rng, grammar, &bounds, keywords);
        grammar_destroy(grammar);
    }
}

/* Numbers of `places` digits behind the point, as integers without it, against division. */
static void multiples_are_what_division_says(void **state)
{
    static const char *const FACTORS[] = {
        "3", "7", "20", "64", "250", "0.5", "0.25", "0.3", "1.2"
    };
    static const int64_t HUNDREDTHS[] = { 300, 700, 2000, 6400, 25000, 50, 25, 30, 120 };
    const uint64_t seed = test_seed();
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 18; round++) {
        char keywords[160], with[200], text[32];
        const int which = round % 9;
        const struct bounds bounds = random_bounds(&rng, (int)below(&rng, 3), keywords, 160);
        snprintf(with, sizeof(with), "%s,'multipleOf':%s", keywords, FACTORS[which]);
        struct grammar *grammar = try_bounds("number", with);
        for (int i = 0; i < 150; i++) {
            const int places = (int)below(&rng, 3);
            int64_t number = (int64_t)below(&rng, 6000) - 3000; /* hundredths */
            if (below(&rng, 2) == 0) number -= number % HUNDREDTHS[which];
            number -= number % (places == 0 ? 100 : places == 1 ? 10 : 1);
            snprintf(text, sizeof(text), "%.*f", places, (double)number / 100);
            const bool taken = grammar != NULL && takes(grammar, text);
            /* No zeros behind the last digit that the factor has. */
            const char *point = strchr(FACTORS[which], '.');
            const size_t most = point != NULL ? strlen(point + 1) : 0;
            const bool wanted = number % HUNDREDTHS[which] == 0 &&
                                inside(&bounds, (double)number / 100) && (size_t)places <= most &&
                                (number != 0 || text[0] != '-');
            if (taken != wanted)
                fail_msg("%s: %s is %s", with, text, taken ? "taken" : "not taken");
        }
        grammar_destroy(grammar);
    }
}

/* ---- patterns ---- */

static void put_pattern(struct rng *rng, char *out, size_t size, int depth)
{
    static const char *const ATOMS[] = { "a", "b", "c", ".", "[ab]", "[^a]", "[b-c]" };
    static const char *const OFTEN[] = {
        "", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}"
    };
    const uint32_t terms = 1 + below(rng, 3);

    for (uint32_t i = 0; i < terms && strlen(out) + 64 < size; i++) {
        const size_t len = strlen(out);
        if (depth < 2 && below(rng, 3) == 0) {
            snprintf(out + len, size - len, "(");
            put_pattern(rng, out, size, depth + 1);
            snprintf(out + strlen(out), size - strlen(out), ")");
        } else {
            snprintf(out + len, size - len, "%s", ATOMS[below(rng, 7)]);
        }
        snprintf(out + strlen(out), size - strlen(out), "%s", OFTEN[below(rng, 10)]);
    }
    if (below(rng, 3) == 0 && strlen(out) + 64 < size) {
        snprintf(out + strlen(out), size - strlen(out), "|");
        put_pattern(rng, out, size, depth + 1);
    }
}

static void patterns_are_those_of_the_library(void **state)
{
    const uint64_t seed = test_seed();
    struct rng rng;
    unsigned taken = 0, asked = 0, compared = 0;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 100; round++) {
        char middle[480] = "", pattern[512], document[700], text[32];
        struct grammar *grammar;
        struct errmsg err = { "" };
        regex_t regex;
        put_pattern(&rng, middle, sizeof(middle), 0);
        snprintf(pattern, sizeof(pattern), "%s%s%s", below(&rng, 2) == 0 ? "^" : "", middle,
                 below(&rng, 2) == 0 ? "$" : "");
        snprintf(document, sizeof(document), "{\"schema\":{\"pattern\":\"%s\"}}", pattern);
        if (grammar_compile(document, strlen(document), &grammar, &err) != STATUS_OK) {
            assert_non_null(strstr(err.text, "without end"));
            continue;
        }
        assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
        for (int i = 0; i < 30; i++, asked++) {
            char bare[12] = "";
            const uint32_t len = below(&rng, 9);
            for (uint32_t k = 0; k < len; k++)
                bare[k] = (char)('a' + below(&rng, 4));
            snprintf(text, sizeof(text), "\"%s\"", bare);
            const bool wanted = regexec(&regex, bare, 0, NULL, 0) == 0;
            if (takes(grammar, text) != wanted) fail_msg("%s: %s: not %d", pattern, text, !wanted);
            taken += wanted;
        }
        compared++;
        regfree(&regex);
        grammar_destroy(grammar);
    }
    printf("%u patterns, %u texts, %u taken\n", compared, asked, taken);
    assert_true(compared > 60 && taken > asked / 10 && taken < asked * 9 / 10);
}

/* ---- schemas together with an instance ---- */

static void put(struct buf *out, const char *text)
{
    assert_int_equal(buf_append_text(out, text), STATUS_OK);
}

static void put_case(struct buf *schema, struct buf *instance, struct rng *rng, int depth);

static void put_case_integer(struct buf *schema, struct buf *instance, struct rng *rng)
{
    const int64_t value = (int64_t)rng_below(rng, 2000000) - 1000000;
    const int64_t min = value - (int64_t)rng_below(rng, 1000), max = value + below(rng, 50);

    assert_int_equal(buf_printf(schema, "{\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld}",
                                (long long)min, (long long)max),
                     STATUS_OK);
    assert_int_equal(buf_printf(instance, "%lld", (long long)value), STATUS_OK);
}

static void put_case_text(struct buf *schema, struct buf *instance, struct rng *rng)
{
    static const struct {
        const char *schema, *instance;
    } CASES[] = {
        { "{\"type\":\"string\"}", "\"a\\\"\\u0001\xc3\xa4\"" },
        { "{\"pattern\":\"^x[0-9]{2,}y?$\"}", "\"x007\"" },
        { "{\"pattern\":\"b+\"}", "\"abbc\"" },
        { "{\"type\":\"string\",\"format\":\"date\"}", "\"2024-02-29\"" },
        { "{\"minLength\":2,\"maxLength\":3}", "\"ab\"" },
        { "{\"enum\":[\"red\",7,null]}", "\"red\"" },
        { "{\"const\":\"only\"}", "\"only\"" },
        { "{\"minimum\":-0.5,\"maximum\":0.5}", "-0.25" },
    };
    const uint32_t i = below(rng, sizeof(CASES) / sizeof(CASES[0]));

    put(schema, CASES[i].schema);
    put(instance, CASES[i].instance);
}

static void put_case_array(struct buf *schema, struct buf *instance, struct rng *rng, int depth)
{
    const uint32_t count = 1 + below(rng, 3);

    put(schema, "{\"type\":\"array\",\"prefixItems\":[");
    put(instance, "[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) put(schema, ",");
        if (i > 0) put(instance, i % 2 == 0 ? ", " : ",");
        put_case(schema, instance, rng, depth + 1);
    }
    put(schema, below(rng, 2) == 0 ? "],\"items\":false}" : "],\"items\":{\"type\":\"null\"}}");
    put(instance, "]");
}

static void put_case_object(struct buf *schema, struct buf *instance, struct rng *rng, int depth)
{
    const uint32_t count = 1 + below(rng, 4), required = below(rng, count);
    bool first = true;

    put(schema, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
    put(instance, "{");
    for (uint32_t i = 0; i < count; i++) {
        struct buf unused;
        const bool written = i == required || below(rng, 2) == 0;
        struct buf *to = written ? instance : &unused;
        buf_init(&unused, 1 << 16);
        assert_int_equal(buf_printf(schema, "%s\"p%u\":", i > 0 ? "," : "", i), STATUS_OK);
        assert_int_equal(buf_printf(to, "%s\"p%u\": ", first ? "" : ", ", i), STATUS_OK);
        put_case(schema, to, rng, depth + 1);
        first &= !written;
        buf_fini(&unused);
    }
    assert_int_equal(buf_printf(schema, "},\"required\":[\"p%u\"]}", required), STATUS_OK);
    put(instance, "}");
}

/* Told apart by a property; the instance is of one of them. */
static void put_case_one_of(struct buf *schema, struct buf *instance, struct rng *rng, int depth)
{
    const uint32_t count = 2 + below(rng, 2), chosen = below(rng, count);

    put(schema, "{\"oneOf\":[");
    for (uint32_t i = 0; i < count; i++) {
        struct buf unused;
        struct buf *to = i == chosen ? instance : &unused;
        buf_init(&unused, 1 << 16);
        assert_int_equal(buf_printf(schema, "%s{\"properties\":{\"kind\":{\"const\":%u},\"v\":",
                                    i > 0 ? "," : "", i),
                         STATUS_OK);
        assert_int_equal(buf_printf(to, "{\"kind\":%u,\"v\":", i), STATUS_OK);
        put_case(schema, to, rng, depth + 1);
        put(to, "}");
        put(schema, "},\"required\":[\"kind\"]}");
        buf_fini(&unused);
    }
    put(schema, "]}");
}

static void put_case(struct buf *schema, struct buf *instance, struct rng *rng, int depth)
{
    switch (below(rng, depth < 3 ? 5 : 2)) {
    case 0: put_case_integer(schema, instance, rng); break;
    case 1: put_case_text(schema, instance, rng); break;
    case 2: put_case_array(schema, instance, rng, depth); break;
    case 3: put_case_object(schema, instance, rng, depth); break;
    default: put_case_one_of(schema, instance, rng, depth); break;
    }
}

static void valid_instances_are_taken(void **state)
{
    const uint64_t seed = test_seed();
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 150; round++) {
        struct buf schema, instance;
        buf_init(&schema, 1 << 16);
        buf_init(&instance, 1 << 16);
        put(&schema, "{\"schema\":");
        put_case(&schema, &instance, &rng, 0);
        assert_int_equal(buf_append(&schema, "}", 2), STATUS_OK);
        assert_int_equal(buf_append(&instance, "", 1), STATUS_OK);
        const char *document = (const char *)buf_data(&schema);
        const char *text = (const char *)buf_data(&instance);
        struct grammar *grammar = compiled(document);
        if (strlen(text) < TAKES_MAX && !takes(grammar, text))
            fail_msg("%s does not take %s", document, text);
        grammar_destroy(grammar);
        buf_fini(&schema);
        buf_fini(&instance);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_taken_or_not),
        cmocka_unit_test(the_rest_is_refused_by_name),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(multiples_are_what_division_says),
        cmocka_unit_test(patterns_are_those_of_the_library),
        cmocka_unit_test(valid_instances_are_taken),
    };

    return cmocka_run_group_tests(tests, open_words, close_words);
}
