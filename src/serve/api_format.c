/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/api_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "infer/grammar.h"
#include "serve/api_json.h"

static const char FIELD[] = "response_format";

enum status api_format_keep(struct api_request *request, char *document, const char *param,
                            struct api_error *error)
{
    struct grammar *grammar = NULL;
    struct errmsg err = { "" };

    if (document == NULL) return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    free(request->grammar); /* of the same field, there twice */
    request->grammar = document;
    const enum status status = grammar_compile(document, strlen(document), &grammar, &err);
    if (status == STATUS_NO_MEMORY)
        return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    if (status != STATUS_OK) {
        return api_refuse(error, 400, "invalid_value", param, "'%s' cannot be obeyed: %s", param,
                          err.text);
    }
    grammar_destroy(grammar);
    return STATUS_OK;
}

/* {"NAME":VALUE} */
static char *wrapped(const char *name, const struct json_value *value)
{
    char *inner = json_value_dump(value);
    char *out = NULL;

    if (inner == NULL) return NULL;
    if (asprintf(&out, "{\"%s\":%s}", name, inner) < 0) out = NULL;
    free(inner);
    return out;
}

static enum status unknown_member(const struct json_value *value, const char *path,
                                  const char *const names[], struct api_error *error)
{
    char param[API_PARAM_SIZE];
    const char *stranger = json_value_stranger(value, names);

    if (stranger == NULL) return STATUS_OK;
    snprintf(param, sizeof(param), "%s.%s", path, stranger);
    return api_refuse(error, 400, "unknown_parameter", param, "Unknown field '%s'", param);
}

static enum status take_schema(struct api_request *request, const struct json_value *format,
                               struct api_error *error)
{
    static const char PATH[] = "response_format.json_schema";
    static const char *const NAMES[] = { "name", "description", "schema", "strict", NULL };
    const struct json_value *outer = json_value_member(format, "json_schema");
    const struct json_value *schema = json_value_member(outer, "schema");

    if (!json_value_is_object(outer)) {
        return api_refuse(error, 400, "missing_required_parameter", PATH,
                          "'%s' must be an object with a 'schema'", PATH);
    }
    const enum status status = unknown_member(outer, PATH, NAMES, error);
    if (status != STATUS_OK) return status;
    if (schema == NULL) {
        return api_refuse(error, 400, "missing_required_parameter",
                          "response_format.json_schema.schema", "'%s' has no 'schema'", PATH);
    }
    return api_format_keep(request, wrapped("schema", schema), "response_format.json_schema.schema",
                           error);
}

enum status api_format_take(struct api_request *request, const struct json_value *value,
                            struct api_error *error)
{
    static const char *const NAMES[] = { "type", "json_schema", NULL };
    const char *type = json_value_text(json_value_member(value, "type"));

    if (!json_value_is_object(value) || type == NULL) {
        return api_refuse(error, 400, "invalid_type", FIELD, "'%s' must be an object with a 'type'",
                          FIELD);
    }
    const enum status status = unknown_member(value, FIELD, NAMES, error);
    if (status != STATUS_OK) return status;
    if (strcmp(type, "text") == 0) return STATUS_OK;
    if (strcmp(type, "json_object") == 0)
        return api_format_keep(request, strdup("{\"object\":true}"), FIELD, error);
    if (strcmp(type, "json_schema") == 0) return take_schema(request, value, error);
    return api_refuse(error, 400, "invalid_value", "response_format.type",
                      "'response_format.type' must be 'text', 'json_object' or 'json_schema', not "
                      "'%.32s'",
                      type);
}

/* ---- as vLLM has it ---- */

enum status api_format_take_guided(struct api_request *request, const char *name,
                                   const struct json_value *value, struct api_error *error)
{
    const char *text = json_value_text(value);
    struct json_value *parsed = NULL;
    struct errmsg err = { "" };

    if (text == NULL) return api_format_keep(request, wrapped("schema", value), name, error);
    const enum status status = json_document_parse(text, strlen(text), &parsed, &err);
    if (status == STATUS_NO_MEMORY)
        return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    if (status != STATUS_OK)
        return api_refuse(error, 400, "invalid_value", name, "'%s': %s", name, err.text);
    const enum status kept = api_format_keep(request, wrapped("schema", parsed), name, error);
    json_document_destroy(parsed);
    return kept;
}

static bool is_null(const struct json_value *value)
{
    return value == NULL || api_json_type_of(value) == JSON_TYPE_NULL;
}

enum status api_format_take_structured(struct api_request *request, const struct json_value *value,
                                       struct api_error *error)
{
    static const char *const OTHERS[] = { "regex", "choice", "grammar", "structural_tag" };
    static const char *const KNOWN[] = { "json",    "json_object",    "regex", "choice",
                                         "grammar", "structural_tag", NULL };
    static const char PATH[] = "structured_outputs";
    const struct json_value *schema = json_value_member(value, "json");
    bool any_object = false;

    if (!json_value_is_object(value))
        return api_refuse(error, 400, "invalid_type", PATH, "'%s' must be an object", PATH);
    const enum status status = unknown_member(value, PATH, KNOWN, error);
    if (status != STATUS_OK) return status;
    for (size_t i = 0; i < sizeof(OTHERS) / sizeof(OTHERS[0]); i++) {
        if (is_null(json_value_member(value, OTHERS[i]))) continue;
        return api_refuse(error, 400, "unsupported_parameter", PATH,
                          "'%s.%s' is not supported; 'json' and 'json_object' are", PATH,
                          OTHERS[i]);
    }
    (void)json_value_bool(json_value_member(value, "json_object"), &any_object);
    if (!is_null(schema))
        return api_format_take_guided(request, "structured_outputs.json", schema, error);
    if (!any_object) return STATUS_OK;
    return api_format_keep(request, strdup("{\"object\":true}"), PATH, error);
}

enum status api_format_check(const struct api_request *request, struct api_error *error)
{
    if (request->grammar == NULL) return STATUS_OK;
    if (request->ignore_eos) {
        return api_refuse(error, 400, "invalid_value", "ignore_eos",
                          "'ignore_eos' with an answer of a given form: it would never end");
    }
    if (request->min_tokens > 0) {
        return api_refuse(error, 400, "invalid_value", "min_tokens",
                          "'min_tokens' with an answer of a given form, which ends where it ends");
    }
    return STATUS_OK;
}
