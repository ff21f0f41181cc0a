/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_schema.c - a JSON Schema to rules, of what grammar_json.h has.
 *
 * Every schema becomes one rule; schemas that a $ref names become theirs once, before they are
 * looked into, so that recursion is recursion of rules. With n properties an object is
 *
 *   OBJECT  = "{" ws FIRST(0)
 *   FIRST(i) = PAIR(i) REST(i+1) | FIRST(i+1) if i may be left out        FIRST(n) = "}"
 *   REST(i)  = "," ws NEXT(i) | ws "}" if all from i on may be left out   REST(n)  = ws "}"
 *   NEXT(i)  = PAIR(i) REST(i+1) | NEXT(i+1) if i may be left out and is not the last
 *
 * Errors carry the path of the schema they are about: each level puts its own name in front as it
 * returns. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "infer/grammar_int.h"
#include "infer/grammar_json.h"

enum { REFS_MAX = 256, REF_SIZE_MAX = 512 };

/* A $ref, with the document it was in: tools have one each. */
struct reference {
    const struct json_value *document;
    const char *text;
    uint32_t rule;
};

struct compile {
    struct grammar *grammar;
    struct errmsg *err;
    const struct json_value *document; /* that "#" means */
    struct reference refs[REFS_MAX];
    uint32_t refs_count;
    unsigned depth;
    uint32_t work;            /* of grammar_judge_apart() */
    struct grammar_json json; /* rules that all share */
};

static enum status schema(struct compile *c, const struct json_value *value, uint32_t rule);

/* ---- errors ---- */

static enum status refuse(struct compile *c, const char *why, const char *name)
{
    return errmsg_set(c->err, STATUS_INVALID, ": %s%.60s%s", why, name, name[0] ? "'" : "");
}

/* Puts ".name" or "[index]" in front of what went wrong below. */
static enum status at_name(struct compile *c, enum status status, const char *name)
{
    if (status == STATUS_OK || c->err == NULL) return status;
    const struct errmsg below = *c->err;
    return errmsg_set(c->err, status, ".%.60s%.180s", name, below.text);
}

static enum status at_index(struct compile *c, enum status status, size_t index)
{
    if (status == STATUS_OK || c->err == NULL) return status;
    const struct errmsg below = *c->err;
    return errmsg_set(c->err, status, "[%zu]%.220s", index, below.text);
}

#define ADD(c, rule, ...) GRAMMAR_ADD((c)->grammar, rule, __VA_ARGS__)

/* ---- literals ---- */

static int compare_literals(const void *a, const void *b)
{
    return strcmp(((const struct grammar_literal *)a)->text,
                  ((const struct grammar_literal *)b)->text);
}

static bool literal_of(const struct json_value *value, struct grammar_literal *out)
{
    out->text = json_value_dump(value);
    out->len = out->text != NULL ? strlen(out->text) : 0;
    return out->text != NULL;
}

/* ---- keywords ---- */

/* A count; *out is unchanged if it is not there. */
static enum status read_count(struct compile *c, const struct json_value *value, const char *name,
                              uint32_t *out)
{
    const struct json_value *count = json_value_member(value, name);
    int64_t number = 0;

    if (count == NULL) return STATUS_OK;
    if (!json_value_integer(count, &number) || number < 0 || number > GRAMMAR_COUNT_MAX)
        return refuse(c, "a count must be between 0 and 8192: '", name);
    *out = (uint32_t)number;
    return STATUS_OK;
}

static enum status read_range(struct compile *c, const struct json_value *value, const char *least,
                              const char *most, uint32_t *min, uint32_t *max)
{
    *min = 0;
    *max = GRAMMAR_NONE;
    enum status status = read_count(c, value, least, min);
    if (status == STATUS_OK) status = read_count(c, value, most, max);
    if (status == STATUS_OK && *min > *max) return refuse(c, "nothing fits '", least);
    return status;
}

static const char *const ANNOTATIONS[] = {
    "title", "description", "default",  "examples",   "format",   "$schema",   "$id",
    "$defs", "definitions", "$comment", "deprecated", "readOnly", "writeOnly", "nullable",
};

static bool is_annotation(const char *name)
{
    for (size_t i = 0; i < sizeof(ANNOTATIONS) / sizeof(ANNOTATIONS[0]); i++) {
        if (strcmp(ANNOTATIONS[i], name) == 0) return true;
    }
    return false;
}

struct keywords {
    const char *const *known; /* ended by NULL */
    const char *stranger;
};

static bool check_keyword(void *ctx, const char *name, const struct json_value *value)
{
    struct keywords *keywords = ctx;
    bool flag = true;

    if (is_annotation(name) && strcmp(name, "nullable") != 0) return true;
    if (strcmp(name, "nullable") == 0 || strcmp(name, "uniqueItems") == 0) {
        if (json_value_bool(value, &flag) && !flag) return true;
    }
    for (size_t i = 0; keywords->known[i] != NULL; i++) {
        if (strcmp(keywords->known[i], name) == 0) return true;
    }
    keywords->stranger = name;
    return false;
}

/* Beside annotations only these keywords: what a schema of this kind cannot mean, or we cannot do,
 * is refused. */
static enum status only(struct compile *c, const struct json_value *value,
                        const char *const known[])
{
    struct keywords keywords = { known, NULL };

    json_value_each(value, check_keyword, &keywords);
    if (keywords.stranger == NULL) return STATUS_OK;
    return refuse(c, "not supported here: '", keywords.stranger);
}

/* What a "not" takes away; nothing if there is none. */
static enum status read_except(struct compile *c, const struct json_value *value,
                               struct grammar_except *out)
{
    const struct json_value *except = json_value_member(value, "not");
    const char *name = NULL;

    if (except == NULL) return STATUS_OK;
    const char *why = grammar_except_read(except, out, &name);
    return why == NULL ? STATUS_OK : refuse(c, why, name);
}

/* ---- schemas of each kind ---- */

static enum status one_of_values(struct compile *c, const struct json_value *value,
                                 const struct json_value *values, unsigned types, uint32_t rule)
{
    static const char *const KNOWN[] = { "type", "enum", "const", "not", NULL };
    const bool is_const = values == json_value_member(value, "const");
    const size_t all = is_const ? 1 : json_value_count(values);
    struct grammar_except except = { 0 };
    enum status status = only(c, value, KNOWN);
    size_t count = 0;

    if (status == STATUS_OK) status = read_except(c, value, &except);
    if (status != STATUS_OK) return status;
    if (all == 0 || all > GRAMMAR_CHOICES_MAX) return refuse(c, "1 to 1024 values in '", "enum");
    struct grammar_literal *literals = calloc(all, sizeof(*literals));
    if (literals == NULL) return STATUS_NO_MEMORY;
    for (size_t i = 0; i < all && status == STATUS_OK; i++) {
        const struct json_value *one = is_const ? values : json_value_at(values, i);
        if ((grammar_judge_type_of(one) & types) == 0) continue;
        if (grammar_except_has(&except, one)) continue;
        if (!literal_of(one, &literals[count++])) status = STATUS_NO_MEMORY;
    }
    if (status == STATUS_OK && count == 0)
        status =
            refuse(c, "no value fits '", except.types != 0 || except.count > 0 ? "not" : "type");
    if (status == STATUS_OK) {
        size_t different = 0;
        qsort(literals, count, sizeof(*literals), compare_literals);
        for (size_t i = 0; i < count; i++) {
            if (i > 0 && strcmp(literals[i].text, literals[different - 1].text) == 0) continue;
            const struct grammar_literal kept = literals[i];
            literals[i] = literals[different];
            literals[different++] = kept;
        }
        grammar_json_literals(&c->json, rule, literals, 0, different, 0);
    }
    for (size_t i = 0; i < count; i++)
        free(literals[i].text);
    free(literals);
    return status;
}

/* An answer that fits one fits no other: see grammar_judge.c. */
static enum status check_one_of(struct compile *c, const struct json_value *choices, size_t count)
{
    char why[96];

    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            if (i == k || grammar_judge_apart(c->document, json_value_at(choices, i),
                                              json_value_at(choices, k), &c->work))
                continue;
            snprintf(why, sizeof(why), "schemas %zu and %zu may both fit in '", i, k);
            return refuse(c, why, "oneOf");
        }
    }
    return STATUS_OK;
}

static enum status any_of(struct compile *c, const struct json_value *value, const char *name,
                          uint32_t rule)
{
    const char *const known[] = { name, NULL };
    const struct json_value *choices = json_value_member(value, name);
    const size_t count = json_value_count(choices);

    enum status status = only(c, value, known);
    if (status != STATUS_OK) return status;
    if (count == 0 || count > GRAMMAR_CHOICES_MAX) return refuse(c, "1 to 1024 in '", name);
    if (strcmp(name, "allOf") == 0 && count > 1) return refuse(c, "more than one in '", name);
    if (strcmp(name, "oneOf") == 0) status = check_one_of(c, choices, count);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const uint32_t choice = grammar_rule(c->grammar);
        ADD(c, rule, symbol_rule(choice));
        status = at_name(c, at_index(c, schema(c, json_value_at(choices, i), choice), i), name);
    }
    return status;
}

static enum status reference(struct compile *c, const struct json_value *value, uint32_t rule)
{
    static const char *const KNOWN[] = { "$ref", NULL };
    const char *text = json_value_text(json_value_member(value, "$ref"));

    enum status status = only(c, value, KNOWN);
    if (status != STATUS_OK) return status;
    const struct json_value *target =
        text != NULL ? grammar_judge_pointed(c->document, text) : NULL;
    if (target == NULL) return refuse(c, "names nothing in this document: '", "$ref");
    for (uint32_t i = 0; i < c->refs_count; i++) {
        if (c->refs[i].document != c->document || strcmp(c->refs[i].text, text) != 0) continue;
        ADD(c, rule, symbol_rule(c->refs[i].rule));
        return STATUS_OK;
    }
    if (c->refs_count == REFS_MAX) return refuse(c, "more than 256 different '", "$ref");
    const uint32_t named = grammar_rule(c->grammar);
    c->refs[c->refs_count++] = (struct reference){ c->document, text, named };
    ADD(c, rule, symbol_rule(named));
    return at_name(c, schema(c, target, named), text);
}

struct property {
    const char *name;
    uint32_t value; /* rule */
    bool required;
};

struct properties {
    struct compile *c;
    const struct json_value *required;
    struct property list[GRAMMAR_PROPERTIES_MAX];
    uint32_t count;
    enum status status;
};

static bool is_required(const struct json_value *required, const char *name)
{
    for (size_t i = 0; i < json_value_count(required); i++) {
        const char *text = json_value_text(json_value_at(required, i));
        if (text != NULL && strcmp(text, name) == 0) return true;
    }
    return false;
}

static bool add_property(void *ctx, const char *name, const struct json_value *value)
{
    struct properties *properties = ctx;
    struct compile *c = properties->c;

    if (properties->count == GRAMMAR_PROPERTIES_MAX) {
        properties->status = refuse(c, "more than 256 '", "properties");
        return false;
    }
    struct property *property = &properties->list[properties->count++];
    *property = (struct property){ name, grammar_rule(c->grammar),
                                   is_required(properties->required, name) };
    properties->status = at_name(c, schema(c, value, property->value), name);
    return properties->status == STATUS_OK;
}

/* Names that are required and not declared: their values are what additional ones may be. */
static enum status add_undeclared(struct properties *properties, const struct json_value *declared,
                                  uint32_t additional)
{
    struct compile *c = properties->c;

    for (size_t i = 0; i < json_value_count(properties->required); i++) {
        const char *name = json_value_text(json_value_at(properties->required, i));
        bool known = false;
        if (name == NULL) return refuse(c, "must be names: '", "required");
        for (uint32_t k = 0; k < properties->count; k++)
            known |= strcmp(properties->list[k].name, name) == 0;
        if (known || json_value_member(declared, name) != NULL) continue;
        if (additional == GRAMMAR_NONE) return refuse(c, "required and not allowed: '", name);
        if (properties->count == GRAMMAR_PROPERTIES_MAX)
            return refuse(c, "more than 256 '", "properties");
        properties->list[properties->count++] = (struct property){ name, additional, true };
    }
    return STATUS_OK;
}

/* "name": VALUE */
static uint32_t pair_rule(struct compile *c, const struct property *property)
{
    const uint32_t rule = grammar_rule(c->grammar), behind = grammar_rule(c->grammar),
                   name = grammar_rule(c->grammar);
    struct json_value *text = json_text_create(property->name);
    struct grammar_literal literal = { NULL, 0 };

    if (text == NULL || !literal_of(text, &literal)) {
        c->grammar->failed = true;
    } else {
        grammar_add_text(c->grammar, name, literal.text, literal.len, GRAMMAR_NONE);
    }
    json_document_destroy(text);
    free(literal.text);
    ADD(c, behind, symbol_byte(':'), symbol_rule(c->json.blank), symbol_rule(property->value));
    ADD(c, rule, symbol_rule(name), symbol_rule(behind));
    return rule;
}

/* From the last to the first: see the top. */
static void object_rules(struct compile *c, const struct properties *properties, uint32_t rule)
{
    uint32_t first = grammar_json_text(&c->json, "}"), rest = grammar_rule(c->grammar),
             next = GRAMMAR_NONE;
    bool optional = true; /* all from i on */

    ADD(c, rest, symbol_rule(c->json.blank), symbol_byte('}'));
    for (uint32_t i = properties->count; i-- > 0 && !c->grammar->failed;) {
        const struct property *property = &properties->list[i];
        const uint32_t pair = pair_rule(c, property);
        const uint32_t first_i = grammar_rule(c->grammar), rest_i = grammar_rule(c->grammar),
                       next_i = grammar_rule(c->grammar);
        ADD(c, first_i, symbol_rule(pair), symbol_rule(rest));
        ADD(c, next_i, symbol_rule(pair), symbol_rule(rest));
        if (!property->required) {
            ADD(c, first_i, symbol_rule(first));
            if (next != GRAMMAR_NONE) ADD(c, next_i, symbol_rule(next));
        }
        optional &= !property->required;
        ADD(c, rest_i, symbol_byte(','), symbol_rule(c->json.blank), symbol_rule(next_i));
        if (optional) ADD(c, rest_i, symbol_rule(c->json.blank), symbol_byte('}'));
        first = first_i;
        rest = rest_i;
        next = next_i;
    }
    ADD(c, rule, symbol_byte('{'), symbol_rule(c->json.blank), symbol_rule(first));
}

/* The rule of values of members that are not declared; GRAMMAR_NONE: there are none. */
static enum status read_additional(struct compile *c, const struct json_value *value, uint32_t *out)
{
    const struct json_value *additional = json_value_member(value, "additionalProperties");
    bool flag = true;

    *out = c->json.any;
    if (additional == NULL) return STATUS_OK;
    if (json_value_bool(additional, &flag)) {
        if (!flag) *out = GRAMMAR_NONE;
        return STATUS_OK;
    }
    *out = grammar_rule(c->grammar);
    return at_name(c, schema(c, additional, *out), "additionalProperties");
}

static enum status object_schema(struct compile *c, const struct json_value *value, uint32_t rule)
{
    const struct json_value *declared = json_value_member(value, "properties");
    uint32_t additional = GRAMMAR_NONE;

    enum status status = read_additional(c, value, &additional);
    if (status != STATUS_OK) return status;
    struct properties *properties = calloc(1, sizeof(*properties));
    if (properties == NULL) return STATUS_NO_MEMORY;
    properties->c = c;
    properties->required = json_value_member(value, "required");
    if (properties->required != NULL && !json_value_is_array(properties->required)) {
        status = refuse(c, "must be an array: '", "required");
    } else if (json_value_is_object(declared)) {
        json_value_each(declared, add_property, properties);
        status = at_name(c, properties->status, "properties");
    } else if (declared != NULL) {
        status = refuse(c, "must be an object: '", "properties");
    }
    if (status == STATUS_OK) status = add_undeclared(properties, declared, additional);
    if (status == STATUS_OK && properties->count == 0 && additional != GRAMMAR_NONE) {
        grammar_json_members(&c->json, rule, additional);
    } else if (status == STATUS_OK) {
        object_rules(c, properties, rule);
    }
    free(properties);
    return status;
}

/* The first items, each by its own schema: *first is malloc'd. */
static enum status read_first_items(struct compile *c, const struct json_value *value,
                                    uint32_t **first, uint32_t *count)
{
    const struct json_value *list = json_value_member(value, "prefixItems");
    enum status status = STATUS_OK;

    if (list == NULL) return STATUS_OK;
    if (json_value_count(list) == 0 || json_value_count(list) > GRAMMAR_CHOICES_MAX)
        return refuse(c, "1 to 1024 in '", "prefixItems");
    *first = calloc(json_value_count(list), sizeof(**first));
    if (*first == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < json_value_count(list) && status == STATUS_OK; i++) {
        (*first)[i] = grammar_rule(c->grammar);
        status = at_index(c, schema(c, json_value_at(list, i), (*first)[i]), i);
        *count = i + 1;
    }
    return at_name(c, status, "prefixItems");
}

/* Behind the first ones there is what "items" says, or nothing; without it, and without first ones,
 * anything; without it, and with too few first ones, anything up to what there must be. */
static enum status read_other_items(struct compile *c, const struct json_value *value,
                                    struct grammar_items *of)
{
    const struct json_value *others = json_value_member(value, "items");
    bool some = true;

    of->value = c->json.any;
    if (others == NULL ? of->first_count > 0 && of->min <= of->first_count
                       : json_value_bool(others, &some) && !some) {
        if (of->max > of->first_count) of->max = of->first_count;
        return of->min <= of->max ? STATUS_OK : refuse(c, "nothing fits '", "minItems");
    }
    if (others == NULL) {
        if (of->first_count > 0 && of->max > of->min) of->max = of->min;
        return STATUS_OK;
    }
    if (of->max <= of->first_count) return STATUS_OK; /* there are none */
    of->value = grammar_rule(c->grammar);
    return at_name(c, schema(c, others, of->value), "items");
}

static enum status array_schema(struct compile *c, const struct json_value *value, uint32_t rule)
{
    struct grammar_items of = { .max = GRAMMAR_NONE };
    uint32_t *first = NULL;

    enum status status = read_range(c, value, "minItems", "maxItems", &of.min, &of.max);
    if (status == STATUS_OK) status = read_first_items(c, value, &first, &of.first_count);
    of.first = first;
    if (status == STATUS_OK) status = read_other_items(c, value, &of);
    if (status == STATUS_OK) grammar_json_items(&c->json, rule, &of);
    free(first);
    return status;
}

static bool has(const struct json_value *value, const char *name)
{
    return json_value_member(value, name) != NULL;
}

static enum status pattern_schema(struct compile *c, const char *pattern, const char *keyword,
                                  uint32_t rule)
{
    struct errmsg why = { "" };
    char text[160];

    if (pattern == NULL) return refuse(c, "must be a text: '", keyword);
    if (grammar_pattern(c->grammar, pattern, rule, &why) == STATUS_OK) return STATUS_OK;
    snprintf(text, sizeof(text), "%.120s, in '", why.text);
    return refuse(c, text, keyword);
}

static enum status string_schema(struct compile *c, const struct json_value *value,
                                 const struct grammar_except *except, uint32_t rule)
{
    const char *format = json_value_text(json_value_member(value, "format"));
    const bool counted = has(value, "minLength") || has(value, "maxLength");
    uint32_t min = 0, max = GRAMMAR_NONE;

    if ((grammar_except_kinds(except) & TYPE_STRING) != 0) {
        if (counted || has(value, "pattern") || has(value, "format"))
            return refuse(c, "with a length, pattern or format: '", "not");
        if (grammar_except_texts(c->grammar, except, rule, c->json.character)) return STATUS_OK;
        return refuse(c, "a text of more than 512 bytes in '", "not");
    }
    if (has(value, "pattern")) {
        if (counted) return refuse(c, "with a length: '", "pattern");
        return pattern_schema(c, json_value_text(json_value_member(value, "pattern")), "pattern",
                              rule);
    }
    if (!counted && format != NULL && grammar_format(format) != NULL)
        return pattern_schema(c, grammar_format(format), "format", rule);
    const enum status status = read_range(c, value, "minLength", "maxLength", &min, &max);
    if (status != STATUS_OK) return status;
    if (min == 0 && max == GRAMMAR_NONE)
        ADD(c, rule, symbol_rule(c->json.text));
    else
        grammar_json_characters(&c->json, rule, min, max);
    return STATUS_OK;
}

/* Numbers within bounds, and multiples of one if that is asked for. */
static enum status numbers_within(struct compile *c, const struct json_value *value,
                                  const struct number_bounds *bounds, uint32_t rule)
{
    const struct json_value *multiple = json_value_member(value, "multipleOf");
    struct errmsg why = { "" };
    char text[160];
    double factor = 0;

    if (multiple == NULL) {
        if (grammar_range(c->grammar, bounds, rule, &why) == STATUS_OK) return STATUS_OK;
        return refuse(c, why.text, "");
    }
    if (!json_value_number(multiple, &factor))
        return refuse(c, "must be a number: '", "multipleOf");
    if (grammar_multiple(c->grammar, bounds, factor, rule, &why) == STATUS_OK) return STATUS_OK;
    snprintf(text, sizeof(text), "%.120s: '", why.text);
    return refuse(c, text, "multipleOf");
}

static bool is_empty_range(const struct number_bounds *bounds)
{
    double min = bounds->min, max = bounds->max;

    if (isnan(min) || isnan(max)) return false;
    if (bounds->integer) {
        min = bounds->min_open ? floor(min) + 1 : ceil(min);
        max = bounds->max_open ? ceil(max) - 1 : floor(max);
        return min > max;
    }
    return min > max || (min == max && (bounds->min_open || bounds->max_open));
}

/* Between those that are taken away, which are sorted. */
static enum status number_gaps(struct compile *c, const struct json_value *value,
                               struct number_bounds bounds, const double *numbers, uint32_t count,
                               uint32_t rule)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i <= count && status == STATUS_OK; i++) {
        struct number_bounds gap = bounds;
        if (i < count) {
            if (numbers[i] < bounds.min) continue;
            if (numbers[i] > bounds.max) continue;
            gap.max = numbers[i];
            gap.max_open = true;
            bounds.min = numbers[i]; /* of the next gap */
            bounds.min_open = true;
        }
        if (!is_empty_range(&gap)) status = numbers_within(c, value, &gap, rule);
    }
    return status;
}

static enum status number_schema(struct compile *c, const struct json_value *value, bool integer,
                                 const struct grammar_except *except, uint32_t rule)
{
    double numbers[GRAMMAR_EXCEPT_MAX];
    const uint32_t count = grammar_except_numbers(except, numbers), all = grammar_rule(c->grammar);
    struct number_bounds bounds;
    const char *wrong = NULL;
    enum status status;

    if (!grammar_judge_bounds(value, &bounds, &wrong))
        return refuse(c, "must be a number: '", wrong);
    bounds.integer = integer;
    if (isnan(bounds.min) && isnan(bounds.max) && !has(value, "multipleOf") && count == 0) {
        ADD(c, rule, symbol_rule(integer ? c->json.integer : c->json.number));
        return STATUS_OK;
    }
    if (is_empty_range(&bounds)) return refuse(c, "nothing is within", "");
    ADD(c, rule, symbol_rule(all));
    if (count == 0) {
        status = numbers_within(c, value, &bounds, all);
    } else {
        status = number_gaps(c, value, bounds, numbers, count, all);
    }
    if (status == STATUS_OK && !c->grammar->failed && c->grammar->rules[all].first == GRAMMAR_NONE)
        return refuse(c, "nothing is within", "");
    return status;
}

/* Bit 0: false may still be written, bit 1: true. */
static unsigned booleans_left(const struct grammar_except *except)
{
    unsigned left = 3;

    for (uint32_t i = 0; i < except->count; i++) {
        bool flag = false;
        if (json_value_bool(except->values[i], &flag)) left &= flag ? 1u : 2u;
    }
    return left;
}

static void add_booleans(struct compile *c, const struct grammar_except *except, uint32_t rule)
{
    const unsigned left = booleans_left(except);

    if (left == 3) ADD(c, rule, symbol_rule(c->json.boolean));
    if (left == 1) ADD(c, rule, symbol_rule(grammar_json_text(&c->json, "false")));
    if (left == 2) ADD(c, rule, symbol_rule(grammar_json_text(&c->json, "true")));
}

/* Leaves the types of which something remains. */
static enum status take_types(struct compile *c, const struct grammar_except *except,
                              unsigned *types)
{
    const unsigned numeric = TYPE_NUMBER | TYPE_INTEGER;
    unsigned gone = except->types;

    if ((gone & TYPE_NUMBER) != 0) gone |= TYPE_INTEGER;
    if ((gone & numeric) == TYPE_INTEGER && (*types & TYPE_NUMBER) != 0)
        return refuse(c, "integers cannot be taken from numbers: '", "not");
    *types &= ~gone;
    const unsigned kinds = grammar_except_kinds(except) & ~gone;
    if ((*types & kinds & (TYPE_OBJECT | TYPE_ARRAY)) != 0)
        return refuse(c, "single objects and arrays cannot be taken away: '", "not");
    if ((kinds & TYPE_NULL) != 0) *types &= ~(unsigned)TYPE_NULL;
    if (*types == TYPE_BOOLEAN && booleans_left(except) == 0) *types = 0;
    return *types != 0 ? STATUS_OK : refuse(c, "nothing fits '", "not");
}

static enum status typed_schema(struct compile *c, const struct json_value *value, unsigned types,
                                uint32_t rule)
{
    static const char *const KNOWN[] = {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "prefixItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "not",
        NULL,
    };
    struct grammar_except except = { 0 };
    enum status status = only(c, value, KNOWN);

    if (status == STATUS_OK) status = read_except(c, value, &except);
    if (status != STATUS_OK) return status;
    if (types == TYPE_ALL) types = grammar_judge_types_written(value);
    if (has(value, "not")) {
        status = take_types(c, &except, &types);
        if (status != STATUS_OK) return status;
    }
    if (types & TYPE_OBJECT) {
        const uint32_t object = grammar_rule(c->grammar);
        ADD(c, rule, symbol_rule(object));
        status = object_schema(c, value, object);
    }
    if (status == STATUS_OK && (types & TYPE_ARRAY)) {
        const uint32_t array = grammar_rule(c->grammar);
        ADD(c, rule, symbol_rule(array));
        status = array_schema(c, value, array);
    }
    if (status == STATUS_OK && (types & TYPE_STRING)) {
        const uint32_t string = grammar_rule(c->grammar);
        ADD(c, rule, symbol_rule(string));
        status = string_schema(c, value, &except, string);
    }
    if (status == STATUS_OK && (types & (TYPE_NUMBER | TYPE_INTEGER)))
        status = number_schema(c, value, (types & TYPE_NUMBER) == 0, &except, rule);
    if (types & TYPE_BOOLEAN) add_booleans(c, &except, rule);
    if (types & TYPE_NULL) ADD(c, rule, symbol_rule(c->json.null));
    return status;
}

static enum status schema_object(struct compile *c, const struct json_value *value, uint32_t rule)
{
    const unsigned types = grammar_judge_types(value);

    if (has(value, "$ref")) return reference(c, value, rule);
    if (has(value, "anyOf")) return any_of(c, value, "anyOf", rule);
    if (has(value, "oneOf")) return any_of(c, value, "oneOf", rule);
    if (has(value, "allOf")) return any_of(c, value, "allOf", rule);
    if (types == 0) return refuse(c, "unknown '", "type");
    if (has(value, "const"))
        return one_of_values(c, value, json_value_member(value, "const"), types, rule);
    if (has(value, "enum"))
        return one_of_values(c, value, json_value_member(value, "enum"), types, rule);
    return typed_schema(c, value, types, rule);
}

static enum status schema(struct compile *c, const struct json_value *value, uint32_t rule)
{
    bool flag = false;

    if (json_value_bool(value, &flag)) {
        if (!flag) return refuse(c, "false allows nothing", "");
        ADD(c, rule, symbol_rule(c->json.any));
        return STATUS_OK;
    }
    if (!json_value_is_object(value)) return refuse(c, "a schema must be an object", "");
    if (c->depth == GRAMMAR_NESTING_MAX) return refuse(c, "nested too deeply", "");
    if (c->grammar->failed) return refuse(c, "too large", "");
    c->depth++;
    const enum status status = schema_object(c, value, rule);
    c->depth--;
    return status;
}

/* ---- calls of tools ---- */

struct style {
    const char *name;
    const char *before, *between, *after; /* of all calls; the opening mark is in the prompt */
    const char *arguments;
    bool many;
    /* Where the model makes the mark itself. */
    const char *mark, *behind;
    bool mark_first, mark_within;
};

static const struct style STYLES[] = {
    { "hermes", "", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", "arguments", true,
      "<tool_call>", "\n", false, false },
    { "llama3", "", "", "", "parameters", false, "{\"name\": \"", "", true, true },
    { "mistral", "[", ", ", "]", "arguments", true, "[TOOL_CALLS]", " ", false, false },
};

static void set_mark(struct lazy_mark *mark, const struct style *style)
{
    mark->len = (uint8_t)strlen(style->mark);
    mark->first = style->mark_first;
    mark->within = style->mark_within;
    ASSERT(mark->len < GRAMMAR_MARK_MAX);
    memcpy(mark->text, style->mark, mark->len);
    for (uint8_t n = 2; n <= mark->len; n++) {
        uint8_t k = mark->border[n - 1];
        while (k > 0 && mark->text[k] != mark->text[n - 1])
            k = mark->border[k];
        mark->border[n] = mark->text[k] == mark->text[n - 1] ? (uint8_t)(k + 1) : 0;
    }
}

static enum status call_rule(struct compile *c, const struct style *style,
                             const struct json_value *tool, uint32_t rule)
{
    const struct json_value *name = json_value_member(tool, "name");
    const struct json_value *parameters = json_value_member(tool, "parameters");
    const uint32_t arguments = grammar_rule(c->grammar), head = grammar_rule(c->grammar);
    struct grammar_literal literal = { NULL, 0 };
    char middle[32];
    enum status status = STATUS_OK;

    if (json_value_text(name) == NULL) return refuse(c, "a tool needs a '", "name");
    if (!literal_of(name, &literal)) return STATUS_NO_MEMORY;
    snprintf(middle, sizeof(middle), ", \"%s\": ", style->arguments);
    const uint32_t behind = grammar_json_text(&c->json, middle);
    grammar_add_text(c->grammar, head, literal.text, literal.len, behind);
    free(literal.text);
    ADD(c, rule, symbol_rule(grammar_json_text(&c->json, "{\"name\": ")), symbol_rule(head),
        symbol_rule(arguments), symbol_byte('}'));
    c->document = parameters;
    if (parameters == NULL) {
        ADD(c, arguments, symbol_rule(c->json.object));
    } else {
        /* Arguments are an object even where the schema does not say so. */
        if (json_value_is_object(parameters) && !has(parameters, "type") &&
            grammar_judge_types_written(parameters) == TYPE_ALL && !has(parameters, "$ref") &&
            !has(parameters, "anyOf") && !has(parameters, "oneOf") && !has(parameters, "allOf")) {
            ADD(c, arguments, symbol_rule(c->json.object));
        } else {
            status = at_name(c, schema(c, parameters, arguments), "parameters");
        }
    }
    return status;
}

static enum status calls(struct compile *c, const struct json_value *value, uint32_t root)
{
    const struct json_value *tools = json_value_member(value, "tools");
    const char *name = json_value_text(json_value_member(value, "style"));
    const struct style *style = NULL;
    const uint32_t call = grammar_rule(c->grammar), rest = grammar_rule(c->grammar);
    bool many = false, lazy = false;
    enum status status = STATUS_OK;

    for (size_t i = 0; i < sizeof(STYLES) / sizeof(STYLES[0]); i++) {
        if (name != NULL && strcmp(STYLES[i].name, name) == 0) style = &STYLES[i];
    }
    if (style == NULL) return refuse(c, "unknown '", "style");
    const size_t count = json_value_count(tools);
    if (count == 0 || count > GRAMMAR_CHOICES_MAX) return refuse(c, "1 to 1024 in '", "tools");
    (void)json_value_bool(json_value_member(value, "many"), &many);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const uint32_t one = grammar_rule(c->grammar);
        ADD(c, call, symbol_rule(one));
        status =
            at_name(c, at_index(c, call_rule(c, style, json_value_at(tools, i), one), i), "tools");
    }
    (void)json_value_bool(json_value_member(value, "lazy"), &lazy);
    const uint32_t before = grammar_json_text(&c->json, style->before);
    ADD(c, root, symbol_rule(before), symbol_rule(call), symbol_rule(rest));
    ADD(c, rest, symbol_rule(grammar_json_text(&c->json, style->after)));
    if (lazy) {
        set_mark(&c->grammar->mark, style);
        if (style->behind[0] != '\0')
            ADD(c, root, symbol_rule(grammar_json_text(&c->json, style->behind)),
                symbol_rule(before), symbol_rule(call), symbol_rule(rest));
        /* What ends with a mark of its own is made anew, behind any text. */
        c->grammar->mark.again = many && style->many && style->before[0] == '\0';
    }
    if (many && style->many && !c->grammar->mark.again)
        ADD(c, rest, symbol_rule(grammar_json_text(&c->json, style->between)), symbol_rule(call),
            symbol_rule(rest));
    return status;
}

/* ---- the document ---- */

static enum status compile(struct compile *c, const struct json_value *value)
{
    bool flag = false;

    c->grammar->root = grammar_rule(c->grammar);
    grammar_json_make(c->grammar, &c->json);
    if (json_value_bool(json_value_member(value, "object"), &flag) && flag) {
        ADD(c, c->grammar->root, symbol_rule(c->json.object));
        return STATUS_OK;
    }
    if (has(value, "calls")) return calls(c, json_value_member(value, "calls"), c->grammar->root);
    if (!has(value, "schema")) return refuse(c, "neither object, schema nor calls", "");
    c->document = json_value_member(value, "schema");
    return at_name(c, schema(c, c->document, c->grammar->root), "schema");
}

enum status grammar_compile(const char *text, size_t len, struct grammar **out, struct errmsg *err)
{
    struct errmsg why = { "" };
    struct json_value *document = NULL;

    if (len > GRAMMAR_TEXT_MAX)
        return errmsg_set(err, STATUS_INVALID, "more than %d bytes", GRAMMAR_TEXT_MAX);
    enum status status = json_document_parse(text, len, &document, err);
    if (status != STATUS_OK) return status;
    struct compile *c = calloc(1, sizeof(*c));
    struct grammar *grammar = calloc(1, sizeof(*grammar));
    status = c == NULL || grammar == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        *c = (struct compile){ .grammar = grammar, .err = &why, .work = JUDGE_WORK };
        status = compile(c, document);
        if (status == STATUS_OK) status = grammar_check(grammar, &why);
    }
    free(c);
    json_document_destroy(document);
    if (status == STATUS_OK) {
        *out = grammar;
        return STATUS_OK;
    }
    grammar_destroy(grammar);
    /* The path begins with a dot. */
    return errmsg_set(err, status, "%s", why.text + (why.text[0] == '.' || why.text[0] == ':'));
}
