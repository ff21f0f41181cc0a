/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <jansson.h>
#include <string.h>

#include "base/assert.h"

/* A json_value is a json_t by another name: nobody else looks inside. */
static json_t *inner(const struct json_value *value)
{
    return (json_t *)(uintptr_t)value;
}

static struct json_value *outer(const json_t *json)
{
    return (struct json_value *)(uintptr_t)json;
}

enum status json_document_parse(const char *text, size_t len, struct json_value **out,
                                struct errmsg *err)
{
    json_error_t error;
    json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

    if (json == NULL) return errmsg_set(err, STATUS_INVALID, "line %d: %s", error.line, error.text);
    *out = outer(json);
    return STATUS_OK;
}

void json_document_destroy(struct json_value *document)
{
    json_decref(inner(document));
}

struct json_value *json_text_create(const char *text)
{
    return outer(json_string(text));
}

bool json_value_is_object(const struct json_value *value)
{
    return json_is_object(inner(value));
}

bool json_value_is_array(const struct json_value *value)
{
    return json_is_array(inner(value));
}

bool json_value_integer(const struct json_value *value, int64_t *out)
{
    if (!json_is_integer(inner(value))) return false;
    *out = json_integer_value(inner(value));
    return true;
}

bool json_value_number(const struct json_value *value, double *out)
{
    if (!json_is_number(inner(value))) return false;
    *out = json_number_value(inner(value));
    return true;
}

bool json_value_bool(const struct json_value *value, bool *out)
{
    if (!json_is_boolean(inner(value))) return false;
    *out = json_is_true(inner(value));
    return true;
}

const char *json_value_text(const struct json_value *value)
{
    return json_string_value(inner(value));
}

const char *json_value_string(const struct json_value *value, size_t *len)
{
    *len = json_string_length(inner(value));
    return json_string_value(inner(value));
}

const struct json_value *json_value_member(const struct json_value *value, const char *name)
{
    return outer(json_object_get(inner(value), name));
}

const struct json_value *json_value_at(const struct json_value *value, size_t index)
{
    return outer(json_array_get(inner(value), index));
}

size_t json_value_count(const struct json_value *value)
{
    return json_array_size(inner(value));
}

void json_value_each(const struct json_value *value,
                     bool (*fn)(void *ctx, const char *name, const struct json_value *value),
                     void *ctx)
{
    void *iter = json_object_iter(inner(value));

    for (; iter != NULL; iter = json_object_iter_next(inner(value), iter)) {
        if (!fn(ctx, json_object_iter_key(iter), outer(json_object_iter_value(iter)))) return;
    }
}

char *json_value_dump(const struct json_value *value)
{
    return json_dumps(inner(value), JSON_COMPACT | JSON_ENCODE_ANY);
}

const char *json_value_stranger(const struct json_value *value, const char *const names[])
{
    ASSERT(json_value_is_object(value));
    void *iter = json_object_iter(inner(value));

    for (; iter != NULL; iter = json_object_iter_next(inner(value), iter)) {
        const char *name = json_object_iter_key(iter);
        size_t i = 0;
        while (names[i] != NULL && strcmp(names[i], name) != 0)
            i++;
        if (names[i] == NULL) return name;
    }
    return NULL;
}
