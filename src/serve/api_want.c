/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_want.c - what the value of a field may be: of a type and in a range, or neutral. And
 * how it is refused. */
#include "serve/api_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

enum status api_refuse(struct api_error *error, int http_status, const char *code,
                       const char *param, const char *fmt, ...)
{
    va_list args;

    ASSERT(http_status >= 400 && http_status < 600);
    *error = (struct api_error){ .http_status = http_status, .code = code };
    error->type = http_status >= 500   ? "server_error"
                  : http_status == 401 ? "authentication_error"
                  : http_status == 404 ? "not_found_error"
                  : http_status == 429 ? "rate_limit_error"
                                       : "invalid_request_error";
    if (param != NULL) snprintf(error->param, sizeof(error->param), "%s", param);
    va_start(args, fmt);
    vsnprintf(error->message, sizeof(error->message), fmt, args);
    va_end(args);
    /* Cutting may have split a code point of a quoted name; names are short, so drop what is high.
     */
    for (char *c = error->message; *c; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    for (char *c = error->param; *c; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    return STATUS_INVALID;
}

enum status api_no_memory(struct parse *parse)
{
    return api_refuse(parse->error, 503, "overloaded", NULL, "Not enough memory");
}

enum status api_wrong_type(struct parse *parse, const char *name, const char *want,
                           const struct json_value *value)
{
    return api_refuse(parse->error, 400, "invalid_type", name, "'%s' must be %s, not %s", name,
                      want, api_json_type_text(api_json_type_of(value)));
}

enum status api_want_bool(struct parse *parse, const char *name, const struct json_value *value,
                          bool *out)
{
    if (api_json_type_of(value) != JSON_TYPE_BOOL)
        return api_wrong_type(parse, name, "a boolean", value);
    *out = api_json_bool(value);
    return STATUS_OK;
}

enum status api_want_int(struct parse *parse, const char *name, const struct json_value *value,
                         int64_t min, int64_t max, int64_t *out)
{
    if (api_json_type_of(value) != JSON_TYPE_INTEGER) {
        return api_wrong_type(parse, name, "an integer", value);
    }
    if (api_json_int(value) < min || api_json_int(value) > max) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' must be between %lld and %lld, not %lld", name, (long long)min,
                          (long long)max, (long long)api_json_int(value));
    }
    *out = api_json_int(value);
    return STATUS_OK;
}

enum status api_want_number(struct parse *parse, const char *name, const struct json_value *value,
                            double min, double max, double *out)
{
    const enum json_type type = api_json_type_of(value);

    if (type != JSON_TYPE_INTEGER && type != JSON_TYPE_REAL) {
        return api_wrong_type(parse, name, "a number", value);
    }
    const double number = api_json_num(value);
    if (!(number >= min && number <= max)) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' must be between %g and %g, not %g", name, min, max, number);
    }
    *out = number;
    return STATUS_OK;
}

enum status api_want_text(struct parse *parse, const char *name, const struct json_value *value,
                          struct api_text *out)
{
    if (api_json_type_of(value) != JSON_TYPE_STRING)
        return api_wrong_type(parse, name, "a string", value);
    out->data = api_json_str(value, &out->len);
    return STATUS_OK;
}

/* ---- fields allowed at their neutral value ---- */

static enum status not_supported(struct parse *parse, const char *name, const char *neutral)
{
    return api_refuse(parse->error, 400, "unsupported_parameter", name, "'%s' is not supported%s%s",
                      name, neutral ? "; allowed is only " : "", neutral ? neutral : "");
}

static bool is_number(const struct json_value *value, double number)
{
    const enum json_type type = api_json_type_of(value);
    return (type == JSON_TYPE_INTEGER || type == JSON_TYPE_REAL) && api_json_num(value) == number;
}

enum status api_only_zero(struct parse *parse, const char *name, const struct json_value *value)
{
    return is_number(value, 0) ? STATUS_OK : not_supported(parse, name, "0");
}

enum status api_only_one(struct parse *parse, const char *name, const struct json_value *value)
{
    return is_number(value, 1) ? STATUS_OK : not_supported(parse, name, "1");
}

enum status api_only_false(struct parse *parse, const char *name, const struct json_value *value)
{
    const bool ok = api_json_type_of(value) == JSON_TYPE_BOOL && !api_json_bool(value);
    return ok ? STATUS_OK : not_supported(parse, name, "false");
}

enum status api_only_true(struct parse *parse, const char *name, const struct json_value *value)
{
    const bool ok = api_json_type_of(value) == JSON_TYPE_BOOL && api_json_bool(value);
    return ok ? STATUS_OK : not_supported(parse, name, "true");
}

enum status api_only_absent(struct parse *parse, const char *name, const struct json_value *value)
{
    (void)value;
    return not_supported(parse, name, NULL);
}

enum status api_only_empty(struct parse *parse, const char *name, const struct json_value *value)
{
    size_t len = 0;

    switch (api_json_type_of(value)) {
    case JSON_TYPE_ARRAY:
        if (api_json_len(value) == 0) return STATUS_OK;
        break;
    case JSON_TYPE_STRING:
        (void)api_json_str(value, &len);
        if (len == 0) return STATUS_OK;
        break;
    case JSON_TYPE_OBJECT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_BOOL:
    case JSON_TYPE_INTEGER:
    case JSON_TYPE_REAL: break;
    }
    return not_supported(parse, name, NULL);
}

enum status api_only_none(struct parse *parse, const char *name, const struct json_value *value)
{
    size_t len = 0;
    if (api_json_type_of(value) == JSON_TYPE_STRING &&
        strcmp(api_json_str(value, &len), "none") == 0) {
        return STATUS_OK;
    }
    return not_supported(parse, name, "\"none\"");
}

enum status api_ignored(struct parse *parse, const char *name, const struct json_value *value)
{
    (void)parse;
    (void)name;
    (void)value;
    return STATUS_OK;
}
