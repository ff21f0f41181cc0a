/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_int.h - the part of the HTTP server and client that reads foreign bytes, apart from
 * connections, so that it can be fuzzed in memory. http_parse.c is the one file that knows
 * http-parser. */
#ifndef NET_HTTP_INT_H
#define NET_HTTP_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct http_parse; /* opaque: one request on its way in */

enum http_parse_state {
    HTTP_PARSE_HEAD,
    HTTP_PARSE_BODY,
    HTTP_PARSE_DONE,   /* whole; what follows belongs to the next request */
    HTTP_PARSE_FAILED, /* never to be a request: http_parse_error() */
};

struct http_limits {
    uint32_t head_size_max;
    size_t body_size_max;
};

/* NULL if there is no memory. */
struct http_parse *http_parse_create(const struct http_limits *limits);
void http_parse_destroy(struct http_parse *parse); /* NULL is allowed */

/* Takes bytes up to the end of the request at most, and returns how many: all of them unless the
 * request is done or has failed. Not after that. */
size_t http_parse_feed(struct http_parse *parse, const char *data, size_t len);

enum http_parse_state http_parse_state(const struct http_parse *parse);

/* For HTTP_PARSE_FAILED: the HTTP status to answer, and why, for people. */
int http_parse_error(const struct http_parse *parse, const char **message);

/* From the end of the head on. Strings live as long as the parse. */
const char *http_parse_method(const struct http_parse *parse);
const char *http_parse_path(const struct http_parse *parse);
const char *http_parse_query(const struct http_parse *parse);
const char *http_parse_header(const struct http_parse *parse, const char *name);
bool http_parse_expects_continue(const struct http_parse *parse);
bool http_parse_keeps_alive(const struct http_parse *parse);
bool http_parse_is_1_1(const struct http_parse *parse); /* or later: takes chunks */
bool http_parse_is_head(const struct http_parse *parse);

/* Bytes of body so far. */
size_t http_parse_body_size(const struct http_parse *parse);

/* When done. */
const char *http_parse_body(const struct http_parse *parse, size_t *len);

/* ---- answers, for the client; those of 1xx that come before the one are passed over ---- */

struct http_answer; /* opaque: one answer on its way in */

enum { HTTP_ANSWER_HEAD_SIZE_MAX = 64 << 10 };

/* take_body() gets the body in pieces as they come; anything but 0 stops the parse as failed.
 * `is_head`: the request was HEAD, so no body follows whatever the headers say. NULL if there is no
 * memory. */
struct http_answer *http_answer_create(bool is_head,
                                       int (*take_body)(void *ctx, const char *data, size_t len),
                                       void *ctx);
void http_answer_destroy(struct http_answer *answer); /* NULL is allowed */

/* Takes what came; len 0 says that the peer has closed. Returns where the answer is now. Not after
 * it is done or has failed. */
enum http_parse_state http_answer_feed(struct http_answer *answer, const char *data, size_t len);

/* The status code; 0 before it has come. */
int http_answer_code(const struct http_answer *answer);

/* From the end of the head on; NULL: it has none of that name. Lives as long as the answer. */
const char *http_answer_header(const struct http_answer *answer, const char *name);

#endif
