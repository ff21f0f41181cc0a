/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_json.h - JSON of strangers, in and out: the only file of this layer that knows the JSON
 * library.
 *
 * Reading builds a tree that is bounded in depth by JSON_DEPTH_MAX, and in memory by the text: some
 * JSON_TREE_PER_BYTE times its size, and JSON_TREE_FREE bytes that any may have. A name
 * twice in one object is refused: two readers could understand it differently. Numbers out of range
 * and invalid UTF-8 are refused with their position. Strings may contain NUL and have a length.
 *
 * Writing appends to a struct buf; there is no tree.
 *
 * Threads: a tree belongs to one thread at a time. */
#ifndef SERVE_API_JSON_H
#define SERVE_API_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

enum {
    JSON_DEPTH_MAX = 32,
    JSON_TREE_PER_BYTE = 24,  /* as numbers of one digit take; empty objects would take 80 */
    JSON_TREE_FREE = 2 << 20, /* a text of 24 KiB may be anything */
};

/* A value inside a tree; borrowed, and valid until api_json_destroy(). It is a value of base/json.h
 * too: both are the library's. */
struct json_value;
struct json_doc;

enum json_type {
    JSON_TYPE_NULL,
    JSON_TYPE_BOOL,
    JSON_TYPE_INTEGER,
    JSON_TYPE_REAL,
    JSON_TYPE_STRING,
    JSON_TYPE_ARRAY,
    JSON_TYPE_OBJECT,
};

/* STATUS_INVALID with a message that names the place. */
MUST_USE enum status api_json_parse(const char *text, size_t len, struct json_doc **out,
                                    struct errmsg *err);
void api_json_destroy(struct json_doc *doc); /* NULL is allowed */
const struct json_value *api_json_root(const struct json_doc *doc);

enum json_type api_json_type_of(const struct json_value *value);
const char *api_json_type_text(enum json_type type); /* "an object", "a string", ... */

/* Each is called only for a value of its type (asserted). */
bool api_json_bool(const struct json_value *value);
int64_t api_json_int(const struct json_value *value);
double api_json_num(const struct json_value *value); /* integer or real */
const char *api_json_str(const struct json_value *value, size_t *len);
size_t api_json_len(const struct json_value *array);
const struct json_value *api_json_at(const struct json_value *array, size_t index);

/* Frees what is in the array: millions of values, that nobody asks for again. */
void api_json_forget_elements(const struct json_value *array);

/* The member of that name, or NULL. */
const struct json_value *api_json_member(const struct json_value *object, const char *name);

/* Calls fn for each member in the order of the text, until it returns false. */
void api_json_each(const struct json_value *object,
                   bool (*fn)(void *ctx, const char *name, const struct json_value *value),
                   void *ctx);

/* Appends "text" with quotes and escapes. `text` is valid UTF-8; NULL is allowed with len 0. */
MUST_USE enum status api_json_write_string(struct buf *out, const char *text, size_t len);

#endif
