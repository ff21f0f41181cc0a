/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_format.h - what form an answer must have: `response_format`.
 *
 * What the client asks for becomes the document of a grammar (infer/grammar.h) that travels with
 * the request to the nodes. It is compiled here once to be refused early and by name. */
#ifndef SERVE_API_FORMAT_H
#define SERVE_API_FORMAT_H

#include "serve/api.h"

struct json_value;

/* {"type": "text" | "json_object" | "json_schema", "json_schema": {...}}: sets request->grammar, or
 * leaves it NULL for text. STATUS_INVALID with *error. */
MUST_USE enum status api_format_take(struct api_request *request, const struct json_value *value,
                                     struct api_error *error);

/* vLLM's `structured_outputs`: {"json": SCHEMA or its text} or {"json_object": true}; and its older
 * `guided_json`, the same schema alone. As api_format_take(). */
MUST_USE enum status api_format_take_structured(struct api_request *request,
                                                const struct json_value *value,
                                                struct api_error *error);
MUST_USE enum status api_format_take_guided(struct api_request *request, const char *name,
                                            const struct json_value *value,
                                            struct api_error *error);

/* The document of a grammar, malloc'd, becomes request->grammar if it compiles; it is the request's
 * in any case. `param` is the field it came from; NULL: no memory. */
MUST_USE enum status api_format_keep(struct api_request *request, char *document, const char *param,
                                     struct api_error *error);

/* What an answer of a given form cannot have beside it. */
MUST_USE enum status api_format_check(const struct api_request *request, struct api_error *error);

#endif
