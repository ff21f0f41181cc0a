/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_call.c - filters, tests, methods and functions of the template language. What is
 * not in the tables at the end is not known, and refused when a template is parsed. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "model/template_int.h"

/* ---- arguments ---- */

/* By place or by name; NULL: not given. */
static const struct value *argument(const struct arguments *arguments, unsigned place,
                                    const char *name)
{
    if (place < arguments->placed) return &arguments->values[place];
    for (unsigned i = arguments->placed; i < arguments->count; i++) {
        if (strcmp(arguments->names[i], name) == 0) return &arguments->values[i];
    }
    return NULL;
}

static bool text_argument(struct run *run, const struct arguments *arguments, unsigned place,
                          const char *name, struct string *out)
{
    const struct value *value = argument(arguments, place, name);

    if (value == NULL || value->kind != VALUE_STRING) {
        run_fail(run, "argument %u must be a text", place + 1);
        return false;
    }
    *out = value->string;
    return true;
}

/* The subject as a text: what `{{ }}` would show of it. */
static struct string as_text(struct run *run, struct value subject)
{
    struct sink sink = { 0 };

    if (subject.kind == VALUE_STRING) return subject.string;
    sink_value(run, &sink, subject);
    return sink_take(run, &sink);
}

/* ---- texts ---- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool strips(char c, const struct string *set)
{
    if (set == NULL) return is_blank(c);
    return set->len > 0 && memchr(set->bytes, c, set->len) != NULL;
}

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };

/* strip, lstrip, rstrip, trim; with a set of characters, which are bytes here */
static struct value call_strip(struct run *run, struct value subject,
                               const struct arguments *arguments, int64_t sides)
{
    const struct string text = as_text(run, subject);
    const struct value *given = argument(arguments, 0, "chars");
    const struct string *set = NULL;
    size_t from = 0, to = text.len;

    if (given != NULL && given->kind == VALUE_STRING) set = &given->string;
    while ((sides & STRIP_LEFT) && from < to && strips(text.bytes[from], set))
        from++;
    while ((sides & STRIP_RIGHT) && to > from && strips(text.bytes[to - 1], set))
        to--;
    return value_of_string(string_part(text, from, to));
}

static struct value fn_strip(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    return call_strip(run, subject, arguments, STRIP_LEFT | STRIP_RIGHT);
}

static struct value fn_lstrip(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    return call_strip(run, subject, arguments, STRIP_LEFT);
}

static struct value fn_rstrip(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    return call_strip(run, subject, arguments, STRIP_RIGHT);
}

static char cased(char c, bool upper)
{
    return (char)(upper ? toupper((unsigned char)c) : tolower((unsigned char)c));
}

/* Only ASCII letters have cases here. `upper` says for each place whether it is a large one. */
static struct value change_case(struct run *run, struct string text,
                                bool (*upper)(struct string text, size_t at))
{
    char *bytes = run_alloc(run, text.len + 1);

    if (bytes == NULL) return value_undefined();
    for (size_t i = 0; i < text.len; i++) {
        const bool ascii = (unsigned char)text.bytes[i] < 0x80;
        bytes[i] = ascii ? cased(text.bytes[i], upper(text, i)) : text.bytes[i];
    }
    text.bytes = bytes;
    return value_of_string(text);
}

static bool always(struct string text, size_t at)
{
    (void)text;
    (void)at;
    return true;
}

static bool never(struct string text, size_t at)
{
    (void)text;
    (void)at;
    return false;
}

static bool at_first(struct string text, size_t at)
{
    (void)text;
    return at == 0;
}

static bool at_word(struct string text, size_t at)
{
    return at == 0 || !isalpha((unsigned char)text.bytes[at - 1]);
}

static struct value fn_upper(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)arguments;
    return change_case(run, as_text(run, subject), always);
}

static struct value fn_lower(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)arguments;
    return change_case(run, as_text(run, subject), never);
}

static struct value fn_capitalize(struct run *run, struct value subject,
                                  const struct arguments *arguments)
{
    (void)arguments;
    return change_case(run, as_text(run, subject), at_first);
}

static struct value fn_title(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)arguments;
    return change_case(run, as_text(run, subject), at_word);
}

static bool wants_text(struct run *run, struct value subject, const char *method)
{
    if (subject.kind != VALUE_STRING) run_fail(run, "%s of %s", method, value_kind_name(subject));
    return run->status == STATUS_OK;
}

static struct value fn_startswith(struct run *run, struct value subject,
                                  const struct arguments *arguments)
{
    struct string with;

    if (!wants_text(run, subject, "startswith")) return value_undefined();
    if (!text_argument(run, arguments, 0, "prefix", &with)) return value_undefined();
    return value_of_bool(subject.string.len >= with.len &&
                         memcmp(subject.string.bytes, with.bytes, with.len) == 0);
}

static struct value fn_endswith(struct run *run, struct value subject,
                                const struct arguments *arguments)
{
    struct string with;

    if (!wants_text(run, subject, "endswith")) return value_undefined();
    if (!text_argument(run, arguments, 0, "suffix", &with)) return value_undefined();
    const size_t len = subject.string.len;
    return value_of_bool(len >= with.len &&
                         memcmp(subject.string.bytes + len - with.len, with.bytes, with.len) == 0);
}

/* Where `what` is next in text from `at` on; text.len if nowhere. */
static size_t find(struct string text, size_t at, struct string what)
{
    const char *found = memmem(text.bytes + at, text.len - at, what.bytes, what.len);
    return found != NULL ? (size_t)(found - text.bytes) : text.len;
}

static struct value split_blanks(struct run *run, struct string text)
{
    struct list *list = list_create(run, 0);
    size_t at = 0;

    while (list != NULL && run->status == STATUS_OK) {
        while (at < text.len && is_blank(text.bytes[at]))
            at++;
        if (at == text.len) break;
        size_t end = at;
        while (end < text.len && !is_blank(text.bytes[end]))
            end++;
        (void)list_add(run, list, value_of_string(string_part(text, at, end)));
        at = end;
    }
    return value_of_list(list);
}

static struct value fn_split(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    const struct value *most = argument(arguments, 1, "maxsplit");
    struct string text, between;
    int64_t left = most != NULL && most->kind == VALUE_INT ? most->integer : -1;
    size_t at = 0;

    if (!wants_text(run, subject, "split")) return value_undefined();
    text = subject.string;
    if (argument(arguments, 0, "sep") == NULL) return split_blanks(run, text);
    if (!text_argument(run, arguments, 0, "sep", &between)) return value_undefined();
    if (between.len == 0) return run_fail(run, "split at an empty text");
    struct list *list = list_create(run, 0);
    while (list != NULL && run->status == STATUS_OK) {
        const size_t end = left != 0 ? find(text, at, between) : text.len;
        (void)list_add(run, list, value_of_string(string_part(text, at, end)));
        if (end == text.len) break;
        at = end + between.len;
        left--;
    }
    return value_of_list(list);
}

static struct value fn_replace(struct run *run, struct value subject,
                               const struct arguments *arguments)
{
    const struct string text = as_text(run, subject);
    const struct value *most = argument(arguments, 2, "count");
    struct string what, with;
    struct sink sink = { 0 };
    int64_t left = most != NULL && most->kind == VALUE_INT ? most->integer : -1;
    size_t at = 0;

    if (!text_argument(run, arguments, 0, "old", &what)) return value_undefined();
    if (!text_argument(run, arguments, 1, "new", &with)) return value_undefined();
    if (what.len == 0) return run_fail(run, "replace of an empty text");
    for (size_t found; left != 0 && (found = find(text, at, what)) < text.len; left--) {
        sink_string(run, &sink, string_part(text, at, found));
        sink_string(run, &sink, with);
        at = found + what.len;
    }
    sink_string(run, &sink, string_part(text, at, text.len));
    return value_of_string(sink_take(run, &sink));
}

/* Lines after the first get `width` blanks in front, empty ones do not. */
static struct value fn_indent(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    static const char BLANKS[] = "                                ";
    const struct string text = as_text(run, subject);
    const struct value *width = argument(arguments, 0, "width");
    const struct value *first = argument(arguments, 1, "first");
    const int64_t blanks = width != NULL && width->kind == VALUE_INT ? width->integer : 4;
    struct sink sink = { 0 };

    if (blanks < 0 || blanks >= (int64_t)sizeof(BLANKS)) return run_fail(run, "indent is too wide");
    for (size_t at = 0; at < text.len && run->status == STATUS_OK;) {
        const struct string newline = { .bytes = "\n", .len = 1 };
        const size_t end = find(text, at, newline);
        const bool wanted = at > 0 || (first != NULL && value_true(*first));
        if (wanted && end > at) sink_write(run, &sink, BLANKS, (size_t)blanks, 0);
        sink_string(run, &sink, string_part(text, at, end < text.len ? end + 1 : end));
        at = end + 1;
    }
    return value_of_string(sink_take(run, &sink));
}

static struct value fn_join(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    const struct value *given = argument(arguments, 0, "d");
    const struct value *attribute = argument(arguments, 1, "attribute");
    const struct list *list = value_items(run, subject);
    struct sink sink = { 0 };

    for (size_t i = 0; list != NULL && i < list->count && run->status == STATUS_OK; i++) {
        struct value value = list->values[i];
        if (i > 0 && given != NULL) sink_value(run, &sink, *given);
        if (attribute != NULL && attribute->kind == VALUE_STRING)
            value = value_attribute(run, value, attribute->string.bytes, attribute->string.len);
        sink_value(run, &sink, value);
    }
    return value_of_string(sink_take(run, &sink));
}

/* text.join(list) */
static struct value fn_join_with(struct run *run, struct value subject,
                                 const struct arguments *arguments)
{
    struct arguments turned = { .count = 1, .placed = 1 };

    if (!wants_text(run, subject, "join")) return value_undefined();
    if (arguments->placed != 1) return run_fail(run, "join needs one list");
    turned.values[0] = subject;
    return fn_join(run, arguments->values[0], &turned);
}

static struct value fn_find(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    struct string what;

    if (!wants_text(run, subject, "find")) return value_undefined();
    if (!text_argument(run, arguments, 0, "sub", &what)) return value_undefined();
    if (what.len > subject.string.len) return value_of_int(-1);
    const size_t at = find(subject.string, 0, what);
    return value_of_int(at < subject.string.len || what.len == 0 ? (int64_t)at : -1);
}

/* ---- conversions ---- */

static struct value fn_tojson(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    const struct value *indent = argument(arguments, 1, "indent"); /* after ensure_ascii */
    struct sink sink = { 0 };
    int width = -1;

    if (indent != NULL && indent->kind == VALUE_INT && indent->integer >= 0 &&
        indent->integer <= 16)
        width = (int)indent->integer;
    sink_json(run, &sink, subject, width, 0);
    return value_of_string(sink_take(run, &sink));
}

static struct value fn_string(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    (void)arguments;
    return value_of_string(as_text(run, subject));
}

static struct value fn_int(struct run *run, struct value subject, const struct arguments *arguments)
{
    char digits[32] = "";

    (void)arguments;
    (void)run;
    if (subject.kind == VALUE_BOOL) return value_of_int(subject.flag);
    if (subject.kind == VALUE_INT) return subject;
    if (subject.kind == VALUE_FLOAT && subject.number > -9e15 && subject.number < 9e15)
        return value_of_int((int64_t)subject.number);
    if (subject.kind != VALUE_STRING || subject.string.len >= sizeof(digits))
        return value_of_int(0);
    memcpy(digits, subject.string.bytes, subject.string.len);
    return value_of_int(strtoll(digits, NULL, 10));
}

static struct value fn_float(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)arguments;
    (void)run;
    return value_of_float(value_is_number(subject) ? value_number(subject) : 0);
}

static struct value fn_abs(struct run *run, struct value subject, const struct arguments *arguments)
{
    (void)arguments;
    if (subject.kind == VALUE_FLOAT)
        return value_of_float(subject.number < 0 ? -subject.number : subject.number);
    if (subject.kind != VALUE_INT || subject.integer == INT64_MIN)
        return run_fail(run, "abs of %s", value_kind_name(subject));
    return value_of_int(subject.integer < 0 ? -subject.integer : subject.integer);
}

static struct value fn_default(struct run *run, struct value subject,
                               const struct arguments *arguments)
{
    const struct value *other = argument(arguments, 0, "default_value");
    const struct value *falsy = argument(arguments, 1, "boolean");
    const bool absent = subject.kind == VALUE_UNDEFINED ||
                        (falsy != NULL && value_true(*falsy) && !value_true(subject));

    (void)run;
    if (!absent) return subject;
    return other != NULL ? *other : value_of_text("");
}

/* ---- lists and dicts ---- */

static struct value fn_length(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    (void)arguments;
    if (subject.kind == VALUE_DICT) return value_of_int((int64_t)subject.dict->count);
    if (subject.kind == VALUE_UNDEFINED || value_is_number(subject) || subject.kind == VALUE_NONE)
        return run_fail(run, "length of %s", value_kind_name(subject));
    const struct list *list = value_items(run, subject);
    return list != NULL ? value_of_int((int64_t)list->count) : value_undefined();
}

static struct value fn_first(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    const struct list *list = value_items(run, subject);

    (void)arguments;
    return list != NULL && list->count > 0 ? list->values[0] : value_undefined();
}

static struct value fn_last(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    const struct list *list = value_items(run, subject);

    (void)arguments;
    return list != NULL && list->count > 0 ? list->values[list->count - 1] : value_undefined();
}

static struct value fn_list(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    (void)arguments;
    return value_of_list(value_items(run, subject));
}

static struct value fn_reverse(struct run *run, struct value subject,
                               const struct arguments *arguments)
{
    const struct list *all = value_items(run, subject);
    struct list *list = all != NULL ? list_create(run, all->count) : NULL;

    (void)arguments;
    for (size_t i = list != NULL ? all->count : 0; i-- > 0;)
        (void)list_add(run, list, all->values[i]);
    return value_of_list(list);
}

static struct value fn_unique(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    const struct list *all = value_items(run, subject);
    struct list *list = list_create(run, 0);

    (void)arguments;
    for (size_t i = 0; all != NULL && list != NULL && i < all->count; i++) {
        bool known = false;
        run->steps += (unsigned)(list->count / 16);
        for (size_t k = 0; k < list->count && !known; k++)
            known = value_same(list->values[k], all->values[i]);
        if (!known && !list_add(run, list, all->values[i])) break;
    }
    return value_of_list(list);
}

static struct value key_of(struct run *run, struct value value, const struct value *attribute)
{
    if (attribute == NULL || attribute->kind != VALUE_STRING) return value;
    return value_attribute(run, value, attribute->string.bytes, attribute->string.len);
}

/* Insertion: lists in templates are short, and equal ones keep their order. */
static struct value fn_sort(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    const struct value *attribute = argument(arguments, 2, "attribute");
    const struct list *all = value_items(run, subject);
    struct list *list = list_create(run, 0);

    if (all != NULL && all->count > 1024) return run_fail(run, "sort of more than 1024 values");
    for (size_t i = 0; all != NULL && i < all->count; i++) {
        if (!list_add(run, list, all->values[i])) break;
        const struct value key = key_of(run, all->values[i], attribute);
        for (size_t k = i; k > 0; k--) {
            if (value_compare(run, key_of(run, list->values[k - 1], attribute), key) <= 0) break;
            list->values[k] = list->values[k - 1];
            list->values[k - 1] = all->values[i];
        }
    }
    return value_of_list(list);
}

static struct value pairs_of(struct run *run, const struct dict *dict)
{
    struct list *list = list_create(run, dict->count);

    for (const struct member *m = dict->first; m != NULL && list != NULL; m = m->next) {
        struct list *pair = list_create(run, 2);
        if (pair == NULL) return value_undefined();
        (void)list_add(run, pair, value_of_string(m->key));
        (void)list_add(run, pair, m->value);
        (void)list_add(run, list, value_of_list(pair));
    }
    return value_of_list(list);
}

static bool wants_dict(struct run *run, struct value subject, const char *method)
{
    if (subject.kind != VALUE_DICT) run_fail(run, "%s of %s", method, value_kind_name(subject));
    return run->status == STATUS_OK;
}

static struct value fn_items(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)arguments;
    return wants_dict(run, subject, "items") ? pairs_of(run, subject.dict) : value_undefined();
}

static struct value fn_keys(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    (void)arguments;
    if (!wants_dict(run, subject, "keys")) return value_undefined();
    return value_of_list(value_items(run, subject));
}

static struct value fn_values(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    struct list *list = list_create(run, 0);

    (void)arguments;
    if (!wants_dict(run, subject, "values")) return value_undefined();
    for (const struct member *m = subject.dict->first; m != NULL; m = m->next) {
        if (!list_add(run, list, m->value)) break;
    }
    return value_of_list(list);
}

static struct value fn_get(struct run *run, struct value subject, const struct arguments *arguments)
{
    const struct value *other = argument(arguments, 1, "default");
    struct string key;

    if (!wants_dict(run, subject, "get")) return value_undefined();
    if (!text_argument(run, arguments, 0, "key", &key)) return value_undefined();
    const struct value *found = dict_find(subject.dict, key.bytes, key.len);
    if (found != NULL) return *found;
    return other != NULL ? *other : value_none();
}

static struct value call_test(struct run *run, struct value subject, const struct arguments *from,
                              unsigned at)
{
    struct arguments rest = { .count = 0 };
    char name[24] = "";

    if (at >= from->placed) return value_of_bool(value_true(subject));
    if (from->values[at].kind != VALUE_STRING || from->values[at].string.len >= sizeof(name))
        return run_fail(run, "the name of a test must be a text");
    memcpy(name, from->values[at].string.bytes, from->values[at].string.len);
    const struct template_function *test = template_test(name);
    if (test == NULL) return run_fail(run, "unknown test \"%s\"", name);
    for (unsigned i = at + 1; i < from->placed; i++)
        rest.values[rest.count++] = from->values[i];
    rest.placed = rest.count;
    return test->fn(run, subject, &rest);
}

/* select, reject, selectattr, rejectattr */
static struct value choose(struct run *run, struct value subject, const struct arguments *arguments,
                           bool by_attribute, bool wanted)
{
    const struct list *all = value_items(run, subject);
    struct list *list = list_create(run, 0);

    if (by_attribute && arguments->placed == 0) return run_fail(run, "an attribute is missing");
    for (size_t i = 0; all != NULL && i < all->count && run->status == STATUS_OK; i++) {
        struct value value = all->values[i];
        if (by_attribute) value = key_of(run, value, &arguments->values[0]);
        if (value_true(call_test(run, value, arguments, by_attribute)) != wanted) continue;
        if (!list_add(run, list, all->values[i])) break;
    }
    return value_of_list(list);
}

static struct value fn_select(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    return choose(run, subject, arguments, false, true);
}

static struct value fn_reject(struct run *run, struct value subject,
                              const struct arguments *arguments)
{
    return choose(run, subject, arguments, false, false);
}

static struct value fn_selectattr(struct run *run, struct value subject,
                                  const struct arguments *arguments)
{
    return choose(run, subject, arguments, true, true);
}

static struct value fn_rejectattr(struct run *run, struct value subject,
                                  const struct arguments *arguments)
{
    return choose(run, subject, arguments, true, false);
}

static struct value mapped(struct run *run, struct value value, const struct arguments *arguments,
                           const struct value *attribute)
{
    struct arguments rest = { .count = 0 };
    char name[24] = "";

    if (attribute != NULL) return key_of(run, value, attribute);
    if (arguments->placed == 0 || arguments->values[0].kind != VALUE_STRING ||
        arguments->values[0].string.len >= sizeof(name))
        return run_fail(run, "map needs an attribute or a filter");
    memcpy(name, arguments->values[0].string.bytes, arguments->values[0].string.len);
    const struct template_function *filter = template_filter(name);
    if (filter == NULL) return run_fail(run, "unknown filter \"%s\"", name);
    for (unsigned i = 1; i < arguments->placed; i++)
        rest.values[rest.count++] = arguments->values[i];
    rest.placed = rest.count;
    return filter->fn(run, value, &rest);
}

/* A filter named in a value could be `map` again: one level is enough for templates. */
static struct value fn_map(struct run *run, struct value subject, const struct arguments *arguments)
{
    const struct value *attribute = argument(arguments, ARGUMENTS_MAX, "attribute");
    const struct list *all = value_items(run, subject);
    struct list *list = list_create(run, 0);

    if (++run->depth > 4 * TEMPLATE_DEPTH_MAX) return run_fail(run, "nested too deeply");
    for (size_t i = 0; all != NULL && i < all->count && run->status == STATUS_OK; i++) {
        if (++run->steps > TEMPLATE_STEPS_MAX) run_fail(run, "it takes too long");
        if (!list_add(run, list, mapped(run, all->values[i], arguments, attribute))) break;
    }
    run->depth--;
    return value_of_list(list);
}

/* ---- functions ---- */

static struct value fn_raise(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    struct string why = { .bytes = "an exception", .len = 12 };

    (void)subject;
    if (arguments->placed > 0 && arguments->values[0].kind == VALUE_STRING)
        why = arguments->values[0].string;
    return run_fail(run, "%.*s", why.len < 200 ? (int)why.len : 200, why.bytes);
}

static struct value make_dict(struct run *run, const struct arguments *arguments,
                              enum value_kind kind)
{
    struct dict *dict = dict_create(run);

    if (arguments->placed > 0) return run_fail(run, "arguments must have names here");
    for (unsigned i = 0; i < arguments->count && dict != NULL; i++) {
        const char *name = arguments->names[i];
        const struct string key = { .bytes = name, .len = strlen(name) };
        if (!dict_set(run, dict, key, arguments->values[i])) break;
    }
    if (dict == NULL) return value_undefined();
    return (struct value){ .kind = kind, .dict = dict };
}

static struct value fn_namespace(struct run *run, struct value subject,
                                 const struct arguments *arguments)
{
    (void)subject;
    return make_dict(run, arguments, VALUE_NAMESPACE);
}

static struct value fn_dict(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    (void)subject;
    return make_dict(run, arguments, VALUE_DICT);
}

static struct value fn_range(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    int64_t bounds[3] = { 0, 0, 1 };
    struct list *list = list_create(run, 0);

    (void)subject;
    if (arguments->placed < 1 || arguments->placed > 3)
        return run_fail(run, "range takes one to three integers");
    for (unsigned i = 0; i < arguments->placed; i++) {
        const struct value *value = &arguments->values[i];
        if (value->kind != VALUE_INT || value->integer > 1 << 24 || value->integer < -(1 << 24))
            return run_fail(run, "range takes integers below 2^24");
        bounds[arguments->placed == 1 ? 1 : i] = value->integer;
    }
    if (bounds[2] == 0) return run_fail(run, "range with a step of 0");
    for (int64_t at = bounds[0]; bounds[2] > 0 ? at < bounds[1] : at > bounds[1]; at += bounds[2]) {
        if (!list_add(run, list, value_of_int(at))) break;
    }
    return value_of_list(list);
}

/* One conversion of strftime(3), in the C locale; NULL for one that is not known. */
static const char *time_part(char conversion, const struct tm *when, char *out, size_t size)
{
    static const char *const DAYS[] = { "Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday" };
    static const char *const MONTHS[] = { "January",   "February", "March",    "April",
                                          "May",       "June",     "July",     "August",
                                          "September", "October",  "November", "December" };
    const int hour = when->tm_hour % 12 == 0 ? 12 : when->tm_hour % 12;

    switch (conversion) {
    case 'A': return DAYS[when->tm_wday];
    case 'a': snprintf(out, size, "%.3s", DAYS[when->tm_wday]); return out;
    case 'B': return MONTHS[when->tm_mon];
    case 'b': snprintf(out, size, "%.3s", MONTHS[when->tm_mon]); return out;
    case 'Y': snprintf(out, size, "%d", when->tm_year + 1900); return out;
    case 'y': snprintf(out, size, "%02d", when->tm_year % 100); return out;
    case 'm': snprintf(out, size, "%02d", when->tm_mon + 1); return out;
    case 'd': snprintf(out, size, "%02d", when->tm_mday); return out;
    case 'e': snprintf(out, size, "%2d", when->tm_mday); return out;
    case 'j': snprintf(out, size, "%03d", when->tm_yday + 1); return out;
    case 'H': snprintf(out, size, "%02d", when->tm_hour); return out;
    case 'I': snprintf(out, size, "%02d", hour); return out;
    case 'M': snprintf(out, size, "%02d", when->tm_min); return out;
    case 'S': snprintf(out, size, "%02d", when->tm_sec); return out;
    case 'p': return when->tm_hour < 12 ? "AM" : "PM";
    case 'Z': return "UTC";
    case '%': return "%";
    default: return NULL;
    }
}

static struct value fn_strftime_now(struct run *run, struct value subject,
                                    const struct arguments *arguments)
{
    const time_t now = (time_t)run->now_s;
    struct sink sink = { 0 };
    struct string format;
    struct tm when;

    (void)subject;
    if (!text_argument(run, arguments, 0, "format", &format)) return value_undefined();
    if (gmtime_r(&now, &when) == NULL) return run_fail(run, "the clock says what is no time");
    for (size_t i = 0; i < format.len && run->status == STATUS_OK; i++) {
        char text[32];
        if (format.bytes[i] != '%' || i + 1 == format.len) {
            sink_string(run, &sink, string_part(format, i, i + 1));
            continue;
        }
        const char *part = time_part(format.bytes[++i], &when, text, sizeof(text));
        if (part == NULL) {
            (void)run_fail(run, "strftime_now knows no %%%c", format.bytes[i]);
            break;
        }
        sink_write(run, &sink, part, strlen(part), 0);
    }
    return value_of_string(sink_take(run, &sink));
}

/* ---- tests ---- */

static struct value fn_is_kind(struct run *run, struct value subject, unsigned kinds)
{
    (void)run;
    return value_of_bool((kinds >> subject.kind & 1u) != 0);
}

#define KIND(kind) (1u << (kind))
#define TEST_OF_KINDS(name, kinds)                                                                 \
    static struct value name(struct run *run, struct value subject,                                \
                             const struct arguments *arguments)                                    \
    {                                                                                              \
        (void)arguments;                                                                           \
        return fn_is_kind(run, subject, kinds);                                                    \
    }

TEST_OF_KINDS(is_undefined, KIND(VALUE_UNDEFINED))
TEST_OF_KINDS(is_defined, ~KIND(VALUE_UNDEFINED))
TEST_OF_KINDS(is_none, KIND(VALUE_NONE))
TEST_OF_KINDS(is_boolean, KIND(VALUE_BOOL))
TEST_OF_KINDS(is_integer, KIND(VALUE_INT))
TEST_OF_KINDS(is_float, KIND(VALUE_FLOAT))
TEST_OF_KINDS(is_number, KIND(VALUE_BOOL) | KIND(VALUE_INT) | KIND(VALUE_FLOAT))
TEST_OF_KINDS(is_string, KIND(VALUE_STRING))
TEST_OF_KINDS(is_mapping, KIND(VALUE_DICT))
TEST_OF_KINDS(is_iterable, KIND(VALUE_STRING) | KIND(VALUE_LIST) | KIND(VALUE_DICT))
TEST_OF_KINDS(is_callable, KIND(VALUE_MACRO) | KIND(VALUE_FUNCTION))

static struct value is_true(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    (void)run;
    (void)arguments;
    return value_of_bool(subject.kind == VALUE_BOOL && subject.flag);
}

static struct value is_false(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    (void)run;
    (void)arguments;
    return value_of_bool(subject.kind == VALUE_BOOL && !subject.flag);
}

static struct value is_equal(struct run *run, struct value subject,
                             const struct arguments *arguments)
{
    if (arguments->placed != 1) return run_fail(run, "this test needs one value");
    return value_of_bool(value_same(subject, arguments->values[0]));
}

static struct value is_unequal(struct run *run, struct value subject,
                               const struct arguments *arguments)
{
    const struct value same = is_equal(run, subject, arguments);
    return value_of_bool(!value_true(same));
}

static struct value is_in(struct run *run, struct value subject, const struct arguments *arguments)
{
    if (arguments->placed != 1) return run_fail(run, "this test needs one value");
    const struct list *list = value_items(run, arguments->values[0]);
    for (size_t i = 0; list != NULL && i < list->count; i++) {
        if (value_same(list->values[i], subject)) return value_of_bool(true);
    }
    return value_of_bool(false);
}

static struct value is_divisible(struct run *run, struct value subject,
                                 const struct arguments *arguments)
{
    if (arguments->placed != 1 || subject.kind != VALUE_INT ||
        arguments->values[0].kind != VALUE_INT || arguments->values[0].integer < 1)
        return run_fail(run, "divisibleby is for integers");
    return value_of_bool(subject.integer % arguments->values[0].integer == 0);
}

static struct value is_odd(struct run *run, struct value subject, const struct arguments *arguments)
{
    (void)arguments;
    if (subject.kind != VALUE_INT) return run_fail(run, "odd and even are for integers");
    return value_of_bool(subject.integer % 2 != 0);
}

static struct value is_even(struct run *run, struct value subject,
                            const struct arguments *arguments)
{
    return value_of_bool(!value_true(is_odd(run, subject, arguments)));
}

/* ---- what is known ---- */

static const struct template_function FILTERS[] = {
    { "abs", fn_abs },
    { "capitalize", fn_capitalize },
    { "count", fn_length },
    { "d", fn_default },
    { "default", fn_default },
    { "first", fn_first },
    { "float", fn_float },
    { "indent", fn_indent },
    { "int", fn_int },
    { "items", fn_items },
    { "join", fn_join },
    { "last", fn_last },
    { "length", fn_length },
    { "list", fn_list },
    { "lower", fn_lower },
    { "map", fn_map },
    { "reject", fn_reject },
    { "rejectattr", fn_rejectattr },
    { "replace", fn_replace },
    { "reverse", fn_reverse },
    { "safe", fn_string },
    { "select", fn_select },
    { "selectattr", fn_selectattr },
    { "sort", fn_sort },
    { "string", fn_string },
    { "title", fn_title },
    { "tojson", fn_tojson },
    { "trim", fn_strip },
    { "unique", fn_unique },
    { "upper", fn_upper },
};

static const struct template_function TESTS[] = {
    { "boolean", is_boolean },   { "callable", is_callable },
    { "defined", is_defined },   { "divisibleby", is_divisible },
    { "eq", is_equal },          { "equalto", is_equal },
    { "even", is_even },         { "false", is_false },
    { "float", is_float },       { "in", is_in },
    { "integer", is_integer },   { "iterable", is_iterable },
    { "mapping", is_mapping },   { "ne", is_unequal },
    { "none", is_none },         { "number", is_number },
    { "odd", is_odd },           { "sameas", is_equal },
    { "sequence", is_iterable }, { "string", is_string },
    { "true", is_true },         { "undefined", is_undefined },
};

static const struct template_function METHODS[] = {
    { "capitalize", fn_capitalize },
    { "endswith", fn_endswith },
    { "find", fn_find },
    { "get", fn_get },
    { "items", fn_items },
    { "join", fn_join_with },
    { "keys", fn_keys },
    { "lower", fn_lower },
    { "lstrip", fn_lstrip },
    { "replace", fn_replace },
    { "rstrip", fn_rstrip },
    { "split", fn_split },
    { "startswith", fn_startswith },
    { "strip", fn_strip },
    { "title", fn_title },
    { "upper", fn_upper },
    { "values", fn_values },
};

static const struct template_function GLOBALS[] = {
    { "dict", fn_dict },   { "namespace", fn_namespace },       { "raise_exception", fn_raise },
    { "range", fn_range }, { "strftime_now", fn_strftime_now },
};

static const struct template_function *find_function(const struct template_function *table,
                                                     size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, name) == 0) return &table[i];
    }
    return NULL;
}

#define FIND(table, name) find_function(table, sizeof(table) / sizeof((table)[0]), name)

const struct template_function *template_filter(const char *name)
{
    return FIND(FILTERS, name);
}

const struct template_function *template_test(const char *name)
{
    return FIND(TESTS, name);
}

const struct template_function *template_method(const char *name)
{
    return FIND(METHODS, name);
}

const struct template_function *template_global(const char *name)
{
    return FIND(GLOBALS, name);
}
