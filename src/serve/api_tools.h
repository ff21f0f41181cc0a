/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_tools.h - tools in requests: `tools`, `tool_choice`, and messages that call or answer.
 *
 * What tools are is told to the model by its template (model/chat.h). A call that must be made
 * becomes the form of the answer (infer/grammar.h): its opening mark is put into the prompt, and
 * what follows can only be a call. One that may be made is free text until the model writes the
 * mark; where the tools make no grammar it is free text altogether.
 *
 * Limits: API_TOOLS_MAX tools; all that must be called together, GRAMMAR_TEXT_MAX bytes. */
#ifndef SERVE_API_TOOLS_H
#define SERVE_API_TOOLS_H

#include "model/chat.h"
#include "serve/api.h"

struct json_value;

enum { API_TOOLS_MAX = 512, API_TOOL_NAME_MAX = 64 };

/* Each: STATUS_INVALID with *error. */
MUST_USE enum status api_tools_take(struct api_request *request, const struct json_value *value,
                                    struct api_error *error);
MUST_USE enum status api_tools_take_choice(struct api_request *request,
                                           const struct json_value *value, struct api_error *error);
/* chat_template_kwargs: more variables for the template. */
MUST_USE enum status api_tools_take_variables(struct api_request *request,
                                              const struct json_value *value,
                                              struct api_error *error);
/* "tool_calls" of message `index`; `path` names it. */
MUST_USE enum status api_tools_take_calls(struct api_request *request, size_t index,
                                          const char *path, const struct json_value *value,
                                          struct api_error *error);

/* What no single field can say. */
MUST_USE enum status api_tools_check(struct api_request *request, struct api_error *error);

/* For the model at hand: refused if its template has no tools; request->grammar, for the calls that
 * must or may be made. */
MUST_USE enum status api_tools_prepare(struct api_request *request, enum chat_tools style,
                                       struct api_error *error);

#endif
