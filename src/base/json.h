/* SPDX-License-Identifier: Apache-2.0
 *
 * base/json.h - reading JSON: the one file of this layer that knows the library behind it.
 *
 * A document is parsed whole; values are borrowed from it and live as long. Every getter takes NULL
 * (a member that is missing) and says no.
 *
 * Threads: a document belongs to one thread at a time. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct json_value; /* opaque */

/* STATUS_INVALID with the parser's words and line in err; duplicate members are refused. */
MUST_USE enum status json_document_parse(const char *text, size_t len, struct json_value **out,
                                         struct errmsg *err);
void json_document_destroy(struct json_value *document); /* NULL is allowed */

/* A document that is one text; NULL if it is not valid UTF-8, or there is no memory. */
struct json_value *json_text_create(const char *text);

bool json_value_is_object(const struct json_value *value);
bool json_value_is_array(const struct json_value *value);
bool json_value_integer(const struct json_value *value, int64_t *out);
bool json_value_number(const struct json_value *value, double *out); /* integers too */
bool json_value_bool(const struct json_value *value, bool *out);
const char *json_value_text(const struct json_value *value);                /* NULL if it is none */
const char *json_value_string(const struct json_value *value, size_t *len); /* likewise */

/* NULL when it is not there, or `value` is of another kind. */
const struct json_value *json_value_member(const struct json_value *value, const char *name);
const struct json_value *json_value_at(const struct json_value *value, size_t index);
size_t json_value_count(const struct json_value *value); /* elements of an array; else 0 */

/* Calls fn for each member of an object in the order of the text, until it returns false. */
void json_value_each(const struct json_value *value,
                     bool (*fn)(void *ctx, const char *name, const struct json_value *value),
                     void *ctx);

/* As text, on one line without blanks, members in the order of the text they came from. malloc'd,
 * NUL-terminated: the caller frees. NULL: no memory. */
char *json_value_dump(const struct json_value *value);

/* Name of the first member of an object that is not in `names` (ended by NULL), or NULL. */
const char *json_value_stranger(const struct json_value *value, const char *const names[]);

#endif
