/* SPDX-License-Identifier: Apache-2.0
 *
 * model/template_value.c - values of the template language, and how they are written.
 *
 * Lists and dicts are small and searched from the front: a message has a handful of members. JSON
 * is written as Python's json.dumps(x, ensure_ascii=False) does, because that is what models were
 * trained on: ", " and ": " between things, or one per line with `indent`. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "model/template_int.h"

/* ---- failure, memory ---- */

struct value run_fail(struct run *run, const char *fmt, ...)
{
    struct errmsg what;
    va_list args;

    if (run->status != STATUS_OK) return value_undefined();
    va_start(args, fmt);
    vsnprintf(what.text, sizeof(what.text), fmt, args);
    va_end(args);
    run->status = errmsg_set(&run->error, STATUS_INVALID, "the chat template, line %u: %s",
                             run->line, what.text);
    return value_undefined();
}

struct value run_no_memory(struct run *run)
{
    if (run->status == STATUS_OK)
        run->status =
            errmsg_set(&run->error, STATUS_FULL, "the chat template takes too much memory");
    return value_undefined();
}

void *run_alloc(struct run *run, size_t size)
{
    void *memory = run->status == STATUS_OK ? arena_alloc(run->arena, size) : NULL;

    if (memory == NULL) run_no_memory(run);
    return memory;
}

/* ---- making ---- */

struct value value_undefined(void)
{
    return (struct value){ .kind = VALUE_UNDEFINED };
}

struct value value_none(void)
{
    return (struct value){ .kind = VALUE_NONE };
}

struct value value_of_bool(bool flag)
{
    return (struct value){ .kind = VALUE_BOOL, .flag = flag };
}

struct value value_of_int(int64_t integer)
{
    return (struct value){ .kind = VALUE_INT, .integer = integer };
}

struct value value_of_float(double number)
{
    return (struct value){ .kind = VALUE_FLOAT, .number = number };
}

struct value value_of_string(struct string string)
{
    return (struct value){ .kind = VALUE_STRING, .string = string };
}

struct value value_of_text(const char *text)
{
    return value_of_string((struct string){ .bytes = text, .len = strlen(text) });
}

struct value value_of_dict(struct dict *dict)
{
    if (dict == NULL) return value_undefined();
    return (struct value){ .kind = VALUE_DICT, .dict = dict };
}

struct value value_of_list(struct list *list)
{
    if (list == NULL) return value_undefined();
    return (struct value){ .kind = VALUE_LIST, .list = list };
}

struct list *list_create(struct run *run, size_t room)
{
    struct list *list = run_alloc(run, sizeof(*list));

    if (list == NULL) return NULL;
    *list = (struct list){ .room = room };
    if (room == 0) return list;
    list->values = run_alloc(run, room * sizeof(*list->values));
    return list->values != NULL ? list : NULL;
}

bool list_add(struct run *run, struct list *list, struct value value)
{
    if (list == NULL) return false;
    if (list->count == list->room) {
        const size_t room = list->room == 0 ? 8 : 2 * list->room;
        struct value *values = run_alloc(run, room * sizeof(*values));
        if (values == NULL) return false;
        if (list->count > 0) memcpy(values, list->values, list->count * sizeof(*values));
        list->values = values;
        list->room = room;
    }
    list->values[list->count++] = value;
    return true;
}

struct dict *dict_create(struct run *run)
{
    struct dict *dict = run_alloc(run, sizeof(*dict));

    if (dict != NULL) *dict = (struct dict){ 0 };
    return dict;
}

static struct member *member_find(const struct dict *dict, const char *key, size_t len)
{
    for (struct member *member = dict->first; member != NULL; member = member->next) {
        if (member->key.len == len && memcmp(member->key.bytes, key, len) == 0) return member;
    }
    return NULL;
}

static bool dict_append(struct run *run, struct dict *dict, struct string key, struct value value)
{
    struct member *member = run_alloc(run, sizeof(*member));

    if (member == NULL) return false;
    *member = (struct member){ .key = key, .value = value };
    if (dict->last != NULL)
        dict->last->next = member;
    else
        dict->first = member;
    dict->last = member;
    dict->count++;
    return true;
}

bool dict_set(struct run *run, struct dict *dict, struct string key, struct value value)
{
    if (dict == NULL) return false;
    struct member *member = member_find(dict, key.bytes, key.len);
    if (member == NULL) return dict_append(run, dict, key, value);
    member->value = value;
    return true;
}

const struct value *dict_find(const struct dict *dict, const char *key, size_t len)
{
    const struct member *member = member_find(dict, key, len);
    return member != NULL ? &member->value : NULL;
}

/* ---- from JSON ---- */

struct from_json {
    struct run *run;
    struct dict *dict;
    uint8_t mark;
};

static bool add_member(void *ctx, const char *name, const struct json_value *json)
{
    struct from_json *from = ctx;
    const struct string key = { .bytes = name, .len = strlen(name), .mark = from->mark };
    /* Names are different already. */
    return dict_append(from->run, from->dict, key, value_of_json(from->run, json, from->mark));
}

static struct value from_array(struct run *run, const struct json_value *json, uint8_t mark)
{
    const size_t count = json_value_count(json);
    struct list *list = list_create(run, count);

    for (size_t i = 0; i < count; i++) {
        if (!list_add(run, list, value_of_json(run, json_value_at(json, i), mark))) break;
    }
    return value_of_list(list);
}

/* Depth is bounded by the parser's. */
struct value value_of_json(struct run *run, const struct json_value *json, uint8_t mark)
{
    int64_t integer = 0;
    double number = 0;
    bool flag = false;
    size_t len = 0;

    if (json == NULL) return value_none();
    const char *text = json_value_string(json, &len);
    if (text != NULL)
        return value_of_string((struct string){ .bytes = text, .len = len, .mark = mark });
    if (json_value_integer(json, &integer)) return value_of_int(integer);
    if (json_value_number(json, &number)) return value_of_float(number);
    if (json_value_bool(json, &flag)) return value_of_bool(flag);
    if (json_value_is_array(json)) return from_array(run, json, mark);
    if (!json_value_is_object(json)) return value_none();
    struct from_json from = { run, dict_create(run), mark };
    if (from.dict != NULL) json_value_each(json, add_member, &from);
    return value_of_dict(from.dict);
}

/* ---- asking ---- */

struct string string_part(struct string string, size_t from, size_t to)
{
    ASSERT(from <= to && to <= string.len);
    string.bytes += from;
    if (string.marks != NULL) string.marks += from;
    string.len = to - from;
    return string;
}

bool string_is(struct string string, const char *text)
{
    return string.len == strlen(text) && memcmp(string.bytes, text, string.len) == 0;
}

uint8_t string_mark(struct string string, size_t at)
{
    return string.marks != NULL ? string.marks[at] : string.mark;
}

bool value_is_number(struct value value)
{
    return value.kind == VALUE_INT || value.kind == VALUE_FLOAT || value.kind == VALUE_BOOL;
}

double value_number(struct value value)
{
    if (value.kind == VALUE_FLOAT) return value.number;
    if (value.kind == VALUE_BOOL) return value.flag;
    return (double)value.integer;
}

bool value_true(struct value value)
{
    switch (value.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: return false;
    case VALUE_BOOL: return value.flag;
    case VALUE_INT: return value.integer != 0;
    case VALUE_FLOAT: return value.number != 0;
    case VALUE_STRING: return value.string.len > 0;
    case VALUE_LIST: return value.list->count > 0;
    case VALUE_DICT: return value.dict->count > 0;
    case VALUE_NAMESPACE:
    case VALUE_LOOP:
    case VALUE_MACRO:
    case VALUE_FUNCTION: return true;
    }
    return false;
}

static bool lists_same(const struct list *a, const struct list *b)
{
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        if (!value_same(a->values[i], b->values[i])) return false;
    }
    return true;
}

static bool dicts_same(const struct dict *a, const struct dict *b)
{
    if (a->count != b->count) return false;
    for (const struct member *m = a->first; m != NULL; m = m->next) {
        const struct value *other = dict_find(b, m->key.bytes, m->key.len);
        if (other == NULL || !value_same(m->value, *other)) return false;
    }
    return true;
}

bool value_same(struct value a, struct value b)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (a.kind == VALUE_INT && b.kind == VALUE_INT) return a.integer == b.integer;
        return value_number(a) == value_number(b);
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case VALUE_STRING:
        return a.string.len == b.string.len &&
               memcmp(a.string.bytes, b.string.bytes, a.string.len) == 0;
    case VALUE_LIST: return lists_same(a.list, b.list);
    case VALUE_DICT: return dicts_same(a.dict, b.dict);
    case VALUE_NAMESPACE: return a.dict == b.dict;
    case VALUE_LOOP: return a.loop == b.loop;
    case VALUE_MACRO: return a.macro == b.macro;
    case VALUE_FUNCTION: return a.function == b.function;
    case VALUE_UNDEFINED:
    case VALUE_NONE:
    case VALUE_BOOL:
    case VALUE_INT:
    case VALUE_FLOAT: break;
    }
    return true;
}

int value_compare(struct run *run, struct value a, struct value b)
{
    if (value_is_number(a) && value_is_number(b)) {
        const double x = value_number(a), y = value_number(b);
        return x < y ? -1 : x > y;
    }
    if (a.kind == VALUE_STRING && b.kind == VALUE_STRING) {
        const size_t len = a.string.len < b.string.len ? a.string.len : b.string.len;
        const int order = memcmp(a.string.bytes, b.string.bytes, len);
        if (order != 0) return order;
        return a.string.len < b.string.len ? -1 : a.string.len > b.string.len;
    }
    run_fail(run, "%s and %s have no order", value_kind_name(a), value_kind_name(b));
    return 0;
}

const char *value_kind_name(struct value value)
{
    static const char *const NAMES[] = {
        "an undefined value", "none",   "a boolean", "an integer",
        "a number",           "a text", "a list",    "a dict",
        "a namespace",        "a loop", "a macro",   "a function"
    };
    ASSERT((size_t)value.kind < sizeof(NAMES) / sizeof(NAMES[0]));
    return NAMES[value.kind];
}

/* ---- writing ---- */

static bool sink_reserve(struct run *run, struct sink *sink, size_t len)
{
    if (run->status != STATUS_OK) return false;
    if (len > run->written_max - run->written) {
        run_no_memory(run);
        return false;
    }
    run->written += len;
    if (len <= sink->room - sink->len) return true;
    size_t room = sink->room == 0 ? 256 : sink->room;
    while (room - sink->len < len)
        room *= 2;
    char *bytes = realloc(sink->bytes, room);
    if (bytes != NULL) sink->bytes = bytes;
    uint8_t *marks = bytes != NULL ? realloc(sink->marks, room) : NULL;
    if (marks == NULL) {
        run_no_memory(run);
        return false;
    }
    sink->marks = marks;
    sink->room = room;
    return true;
}

void sink_write(struct run *run, struct sink *sink, const char *bytes, size_t len, uint8_t mark)
{
    if (len == 0 || !sink_reserve(run, sink, len)) return;
    memcpy(sink->bytes + sink->len, bytes, len);
    memset(sink->marks + sink->len, mark, len);
    sink->len += len;
}

void sink_string(struct run *run, struct sink *sink, struct string string)
{
    const size_t start = sink->len;

    sink_write(run, sink, string.bytes, string.len, string.mark);
    if (string.marks == NULL || run->status != STATUS_OK || string.len == 0) return;
    memcpy(sink->marks + start, string.marks, string.len);
}

struct string sink_take(struct run *run, struct sink *sink)
{
    struct string string = { .bytes = "" };
    char *bytes = sink->len > 0 ? run_alloc(run, sink->len) : NULL;
    uint8_t *marks = sink->len > 0 ? run_alloc(run, sink->len) : NULL;

    if (bytes != NULL && marks != NULL) {
        memcpy(bytes, sink->bytes, sink->len);
        memcpy(marks, sink->marks, sink->len);
        string = (struct string){ .bytes = bytes, .marks = marks, .len = sink->len };
    }
    free(sink->bytes);
    free(sink->marks);
    *sink = (struct sink){ 0 };
    return string;
}

static void sink_text(struct run *run, struct sink *sink, const char *text)
{
    sink_write(run, sink, text, strlen(text), 0);
}

/* The shortest digits that read back as the same number, with ".0" if they look like an integer. */
static void sink_float(struct run *run, struct sink *sink, double number)
{
    char text[40];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    sink_text(run, sink, text);
    if (isfinite(number) && strpbrk(text, ".e") == NULL) sink_text(run, sink, ".0");
}

static void sink_int(struct run *run, struct sink *sink, int64_t integer)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, integer);
    sink_text(run, sink, text);
}

void sink_value(struct run *run, struct sink *sink, struct value value)
{
    switch (value.kind) {
    case VALUE_UNDEFINED: break;
    case VALUE_NONE: sink_text(run, sink, "None"); break;
    case VALUE_BOOL: sink_text(run, sink, value.flag ? "True" : "False"); break;
    case VALUE_INT: sink_int(run, sink, value.integer); break;
    case VALUE_FLOAT: sink_float(run, sink, value.number); break;
    case VALUE_STRING: sink_string(run, sink, value.string); break;
    case VALUE_LIST:
    case VALUE_DICT:
    case VALUE_NAMESPACE:
    case VALUE_LOOP:
    case VALUE_MACRO:
    case VALUE_FUNCTION:
        run_fail(run, "%s is printed without tojson", value_kind_name(value));
        break;
    }
}

static void json_line(struct run *run, struct sink *sink, int indent, int level)
{
    if (indent < 0) return;
    sink_text(run, sink, "\n");
    for (int i = 0; i < indent * level && run->status == STATUS_OK; i++)
        sink_text(run, sink, " ");
}

/* Escapes carry the mark of what they stand for. */
static void json_string(struct run *run, struct sink *sink, struct string string)
{
    static const char SHORT[] = "\"\"\\\\\bb\ff\nn\rr\tt";

    sink_text(run, sink, "\"");
    for (size_t i = 0; i < string.len; i++) {
        const char c = string.bytes[i];
        char escape[8] = { c, 0 };
        size_t len = 1;
        for (size_t k = 0; k + 1 < sizeof(SHORT) - 1; k += 2) {
            if (SHORT[k] != c) continue;
            escape[0] = '\\';
            escape[1] = SHORT[k + 1];
            len = 2;
        }
        if (len == 1 && (unsigned char)c < 0x20)
            len = (size_t)snprintf(escape, sizeof(escape), "\\u%04x", (unsigned char)c);
        sink_write(run, sink, escape, len, string_mark(string, i));
    }
    sink_text(run, sink, "\"");
}

static void json_list(struct run *run, struct sink *sink, const struct list *list, int indent,
                      int level)
{
    sink_text(run, sink, "[");
    for (size_t i = 0; i < list->count && run->status == STATUS_OK; i++) {
        if (i > 0) sink_text(run, sink, indent < 0 ? ", " : ",");
        json_line(run, sink, indent, level + 1);
        sink_json(run, sink, list->values[i], indent, level + 1);
    }
    if (list->count > 0) json_line(run, sink, indent, level);
    sink_text(run, sink, "]");
}

static void json_dict(struct run *run, struct sink *sink, const struct dict *dict, int indent,
                      int level)
{
    sink_text(run, sink, "{");
    for (const struct member *m = dict->first; m != NULL && run->status == STATUS_OK; m = m->next) {
        if (m != dict->first) sink_text(run, sink, indent < 0 ? ", " : ",");
        json_line(run, sink, indent, level + 1);
        json_string(run, sink, m->key);
        sink_text(run, sink, ": ");
        sink_json(run, sink, m->value, indent, level + 1);
    }
    if (dict->count > 0) json_line(run, sink, indent, level);
    sink_text(run, sink, "}");
}

/* indent < 0: on one line */
void sink_json(struct run *run, struct sink *sink, struct value value, int indent, int level)
{
    if (level > TEMPLATE_DEPTH_MAX) {
        run_fail(run, "tojson of something nested too deeply");
        return;
    }
    switch (value.kind) {
    case VALUE_NONE: sink_text(run, sink, "null"); break;
    case VALUE_BOOL: sink_text(run, sink, value.flag ? "true" : "false"); break;
    case VALUE_INT: sink_int(run, sink, value.integer); break;
    case VALUE_FLOAT: sink_float(run, sink, value.number); break;
    case VALUE_STRING: json_string(run, sink, value.string); break;
    case VALUE_LIST: json_list(run, sink, value.list, indent, level); break;
    case VALUE_DICT: json_dict(run, sink, value.dict, indent, level); break;
    case VALUE_UNDEFINED:
    case VALUE_NAMESPACE:
    case VALUE_LOOP:
    case VALUE_MACRO:
    case VALUE_FUNCTION: run_fail(run, "tojson of %s", value_kind_name(value)); break;
    }
}
