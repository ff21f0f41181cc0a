/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_json.c - jansson behind our own types. A json_value is a json_t and nothing else. */
#include "serve/api_json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/utf8.h"

struct json_doc {
    json_t *root;
};

static const json_t *tree(const struct json_value *value)
{
    ASSERT(value != NULL);
    return (const json_t *)(const void *)value;
}

static const struct json_value *value_of(const json_t *json)
{
    return (const struct json_value *)(const void *)json;
}

/* What the library takes for a value, about: it and the bytes around it, seen from its first. */
static size_t cost_of(char c)
{
    switch (c) {
    case '{': return 240;
    case '[': return 144;
    case '"': return 96;
    case ':': return 64; /* a place in an object */
    case ',': return 40; /* a number, and a place in an array */
    default: return 0;
    }
}

/* The library recurses as deep as the text says, and takes for each value what it takes: refuse
 * deep and wide texts before it sees them. What is in strings does not count. */
static enum status check_shape(const char *text, size_t len, struct errmsg *err)
{
    const size_t cost_max = JSON_TREE_FREE + len * JSON_TREE_PER_BYTE;
    size_t depth = 0, cost = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        const char c = text[i];
        if (!in_string) cost += cost_of(c);
        if (cost > cost_max) {
            return errmsg_set(err, STATUS_INVALID,
                              "so many small values that they would take over %zu MiB of memory",
                              cost >> 20);
        }
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_DEPTH_MAX) {
                return errmsg_set(err, STATUS_INVALID, "nested deeper than %d at byte %zu",
                                  JSON_DEPTH_MAX, i);
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return STATUS_OK;
}

enum status api_json_parse(const char *text, size_t len, struct json_doc **out, struct errmsg *err)
{
    json_error_t error;
    const size_t valid = utf8_valid_prefix(text, len);

    if (valid != len) return errmsg_set(err, STATUS_INVALID, "invalid UTF-8 at byte %zu", valid);
    const enum status shallow = check_shape(text, len, err);
    if (shallow != STATUS_OK) return shallow;
    json_t *root =
        json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root == NULL) {
        return errmsg_set(err, STATUS_INVALID, "%s (line %d, column %d)", error.text, error.line,
                          error.column);
    }
    struct json_doc *doc = malloc(sizeof(*doc));
    if (doc == NULL) {
        json_decref(root);
        return errmsg_set(err, STATUS_NO_MEMORY, "not enough memory");
    }
    doc->root = root;
    *out = doc;
    return STATUS_OK;
}

void api_json_destroy(struct json_doc *doc)
{
    if (doc == NULL) return;
    json_decref(doc->root);
    free(doc);
}

const struct json_value *api_json_root(const struct json_doc *doc)
{
    return value_of(doc->root);
}

enum json_type api_json_type_of(const struct json_value *value)
{
    switch (json_typeof(tree(value))) {
    case JSON_OBJECT: return JSON_TYPE_OBJECT;
    case JSON_ARRAY: return JSON_TYPE_ARRAY;
    case JSON_STRING: return JSON_TYPE_STRING;
    case JSON_INTEGER: return JSON_TYPE_INTEGER;
    case JSON_REAL: return JSON_TYPE_REAL;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_TYPE_BOOL;
    case JSON_NULL: break;
    }
    return JSON_TYPE_NULL;
}

const char *api_json_type_text(enum json_type type)
{
    static const char *const TEXTS[] = { "null",     "a boolean", "an integer", "a number",
                                         "a string", "an array",  "an object" };
    ASSERT((size_t)type < sizeof(TEXTS) / sizeof(TEXTS[0]));
    return TEXTS[type];
}

bool api_json_bool(const struct json_value *value)
{
    ASSERT(json_is_boolean(tree(value)));
    return json_is_true(tree(value));
}

int64_t api_json_int(const struct json_value *value)
{
    ASSERT(json_is_integer(tree(value)));
    return json_integer_value(tree(value));
}

double api_json_num(const struct json_value *value)
{
    ASSERT(json_is_number(tree(value)));
    return json_number_value(tree(value));
}

const char *api_json_str(const struct json_value *value, size_t *len)
{
    ASSERT(json_is_string(tree(value)));
    *len = json_string_length(tree(value));
    return json_string_value(tree(value));
}

size_t api_json_len(const struct json_value *array)
{
    ASSERT(json_is_array(tree(array)));
    return json_array_size(tree(array));
}

const struct json_value *api_json_at(const struct json_value *array, size_t index)
{
    ASSERT(index < api_json_len(array));
    return value_of(json_array_get(tree(array), index));
}

void api_json_forget_elements(const struct json_value *array)
{
    /* The tree is ours: whoever has a value of it has the document. */
    json_t *ours = (json_t *)(uintptr_t)tree(array);
    ASSERT(json_is_array(ours));
    (void)json_array_clear(ours);
}

const struct json_value *api_json_member(const struct json_value *object, const char *name)
{
    ASSERT(json_is_object(tree(object)));
    return value_of(json_object_get(tree(object), name));
}

void api_json_each(const struct json_value *object,
                   bool (*fn)(void *ctx, const char *name, const struct json_value *value),
                   void *ctx)
{
    ASSERT(json_is_object(tree(object)));
    json_t *members = (json_t *)(uintptr_t)tree(object); /* the iterator wants it so; reads only */
    const char *name;
    json_t *value;

    json_object_foreach(members, name, value)
    {
        if (!fn(ctx, name, value_of(value))) return;
    }
}

/* How one byte is written inside a string, if not as itself. */
static const char *escape_of(unsigned char c, char room[8])
{
    static const char HEX[] = "0123456789abcdef";

    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
    }
    if (c >= 0x20 && c != 0x7f) return NULL;
    memcpy(room, "\\u00", 4);
    room[4] = HEX[c >> 4];
    room[5] = HEX[c & 15];
    room[6] = '\0';
    return room;
}

enum status api_json_write_string(struct buf *out, const char *text, size_t len)
{
    char room[8];
    size_t plain = 0; /* start of the run that needs no escape */
    enum status status = buf_append(out, "\"", 1);

    for (size_t i = 0; i < len && status == STATUS_OK; i++) {
        const char *escape = escape_of((unsigned char)text[i], room);
        if (escape == NULL) continue;
        status = buf_append(out, text + plain, i - plain);
        if (status == STATUS_OK) status = buf_append_text(out, escape);
        plain = i + 1;
    }
    if (status == STATUS_OK && plain < len) status = buf_append(out, text + plain, len - plain);
    if (status == STATUS_OK) status = buf_append(out, "\"", 1);
    return status;
}
