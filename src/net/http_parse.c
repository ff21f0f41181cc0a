/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_parse.c - one request, or one answer, from bytes, with http-parser.
 *
 * Every string of a head goes into one buffer, NUL-terminated, and is known by its offset,
 * because the buffer moves while it grows. http-parser hands names and values over in pieces,
 * wherever the network happened to cut; a piece continues the string that was begun last.
 *
 * The parser is stopped at the end of each request and a new one made for the next: what is
 * pipelined stays with the caller until the answer is out.
 *
 * Trailers behind a chunked body are dropped: they must not pass for headers.
 *
 * What another server may read as one request more or less is refused, however well the library
 * takes it: blanks in or before a header's name, folded lines, a CR without its LF, Host twice, and
 * any transfer coding but one `chunked` of HTTP/1.1.
 *
 * Limits: http_limits, HTTP_HEADERS_MAX. They are checked here, not by http-parser, whose own limit
 * is one number for the process and for something else. */
#include "net/http_int.h"

#include <http_parser.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/buf.h"
#include "net/http.h"

enum part { PART_NONE, PART_URL, PART_NAME, PART_VALUE };

struct header {
    uint32_t name, value; /* offsets in text */
};

/* Of a request or of an answer. */
struct head {
    struct buf text; /* its strings, each with its NUL */
    enum part part;  /* what the last piece was of */
    struct header headers[HTTP_HEADERS_MAX];
    uint32_t count;
};

struct http_parse {
    http_parser parser;
    struct http_limits limits;
    enum http_parse_state state;
    struct head head;
    size_t head_size;
    int error;
    const char *error_message;
    struct buf body;
    uint32_t path, query; /* offsets in the head's text */
    bool keeps_alive, expects_continue;
    bool is_overfull; /* too many headers: said at the end of the head, wherever that was cut */
    bool has_line, in_line, after_cr, is_past_lines; /* where lines_len() is in the head's lines */
};

/* ---- strings in pieces; each of these is false when there is no room ---- */

static const char *text_at(const struct head *head, uint32_t offset)
{
    ASSERT(offset < head->text.len);
    return (const char *)buf_data(&head->text) + offset;
}

/* Ends the string under way; a value loses the blanks behind it. */
static bool end_string(struct head *head)
{
    if (head->part == PART_NONE) return true;
    while (head->part == PART_VALUE && head->text.len > 0) {
        const uint8_t last = buf_data(&head->text)[head->text.len - 1];
        if (last != ' ' && last != '\t') break;
        buf_truncate(&head->text, head->text.len - 1);
    }
    head->part = PART_NONE;
    return buf_append(&head->text, "", 1) == STATUS_OK;
}

static bool take_name(struct head *head, const char *data, size_t len)
{
    if (head->part != PART_NAME) {
        if (!end_string(head) || head->count == HTTP_HEADERS_MAX) return false;
        head->headers[head->count++].name = (uint32_t)head->text.len;
        head->part = PART_NAME;
    }
    return buf_append(&head->text, data, len) == STATUS_OK;
}

static bool take_value(struct head *head, const char *data, size_t len)
{
    ASSERT(head->count > 0);
    if (head->part != PART_VALUE) {
        if (!end_string(head)) return false;
        head->headers[head->count - 1].value = (uint32_t)head->text.len;
        head->part = PART_VALUE;
    }
    return buf_append(&head->text, data, len) == STATUS_OK;
}

static const char *header_of(const struct head *head, const char *name)
{
    for (uint32_t i = 0; i < head->count; i++) {
        const struct header *header = &head->headers[i];
        if (strcasecmp(text_at(head, header->name), name) != 0) continue;
        return text_at(head, header->value);
    }
    return NULL;
}

static uint32_t count_of(const struct head *head, const char *name)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < head->count; i++)
        if (strcasecmp(text_at(head, head->headers[i].name), name) == 0) count++;
    return count;
}

/* ---- the head of a request ---- */

/* The first error wins. Returns what tells http-parser to stop. */
static int refuse(struct http_parse *parse, int code, const char *message)
{
    if (parse->state != HTTP_PARSE_FAILED) {
        parse->state = HTTP_PARSE_FAILED;
        parse->error = code;
        parse->error_message = message;
    }
    return -1;
}

static int refuse_head(struct http_parse *parse)
{
    return refuse(parse, 431, "The request's head is too large");
}

static int on_url(http_parser *parser, const char *data, size_t len)
{
    struct http_parse *parse = parser->data;
    parse->head.part = PART_URL;
    return buf_append(&parse->head.text, data, len) == STATUS_OK ? 0 : refuse_head(parse);
}

static int on_name(http_parser *parser, const char *data, size_t len)
{
    struct http_parse *parse = parser->data;

    if (parse->state != HTTP_PARSE_HEAD) return 0;
    if (memchr(data, ' ', len) != NULL) return refuse(parse, 400, "A header's name has a blank");
    if (parse->head.part != PART_NAME && parse->head.count == HTTP_HEADERS_MAX)
        parse->is_overfull = true;
    return parse->is_overfull || take_name(&parse->head, data, len) ? 0 : refuse_head(parse);
}

static int on_value(http_parser *parser, const char *data, size_t len)
{
    struct http_parse *parse = parser->data;

    if (parse->state != HTTP_PARSE_HEAD) return 0;
    if (parse->head.count == 0) return refuse(parse, 400, "A header has no name");
    return parse->is_overfull || take_value(&parse->head, data, len) ? 0 : refuse_head(parse);
}

/* ---- the end of the head ---- */

static uint32_t copy_field(struct http_parse *parse, const struct http_parser_url *url,
                           enum http_parser_url_fields field, const char *absent)
{
    const uint32_t start = (uint32_t)parse->head.text.len;
    const bool is_there = (url->field_set & (1u << field)) != 0;
    const size_t len = is_there ? url->field_data[field].len : strlen(absent);
    uint8_t *to;

    if (buf_reserve(&parse->head.text, len + 1, &to) != STATUS_OK) {
        refuse_head(parse);
        return 0;
    }
    /* The URL is at the front of the same buffer, wherever that is now. */
    memcpy(to, is_there ? text_at(&parse->head, url->field_data[field].off) : absent, len);
    to[len] = '\0';
    buf_commit(&parse->head.text, len + 1);
    return start;
}

static int split_url(struct http_parse *parse)
{
    struct http_parser_url url;
    const char *text = text_at(&parse->head, 0);

    http_parser_url_init(&url);
    const bool is_connect = parse->parser.method == HTTP_CONNECT;
    if (http_parser_parse_url(text, strlen(text), is_connect, &url) != 0)
        return refuse(parse, 400, "The request's target is malformed");
    parse->path = copy_field(parse, &url, UF_PATH, "/");
    parse->query = copy_field(parse, &url, UF_QUERY, "");
    return parse->state == HTTP_PARSE_FAILED ? -1 : 0;
}

static int check_expect(struct http_parse *parse)
{
    const char *expect = http_parse_header(parse, "Expect");

    if (expect == NULL || !http_parse_is_1_1(parse)) return 0;
    if (strcasecmp(expect, "100-continue") != 0)
        return refuse(parse, 417, "The expectation is not 100-continue");
    parse->expects_continue = true;
    return 0;
}

static int check_coding(struct http_parse *parse)
{
    const uint32_t count = count_of(&parse->head, "Transfer-Encoding");

    if (count == 0) return 0;
    if (!http_parse_is_1_1(parse)) return refuse(parse, 400, "HTTP/1.0 has no transfer codings");
    if (count == 1 && strcasecmp(http_parse_header(parse, "Transfer-Encoding"), "chunked") == 0)
        return 0;
    return refuse(parse, 501, "The transfer coding is not chunked");
}

static int on_headers_complete(http_parser *parser)
{
    struct http_parse *parse = parser->data;

    if (!end_string(&parse->head)) return refuse_head(parse);
    if (parse->is_overfull) return refuse(parse, 431, "The request has too many headers");
    if (split_url(parse) != 0) return -1;
    if (parser->http_major != 1) return refuse(parse, 505, "The version is not HTTP/1.0 or 1.1");
    if (http_parse_is_1_1(parse) && http_parse_header(parse, "Host") == NULL)
        return refuse(parse, 400, "The Host header is missing");
    if (count_of(&parse->head, "Host") > 1)
        return refuse(parse, 400, "The Host header is there more than once");
    if (check_coding(parse) != 0) return -1;
    const bool has_length = (parser->flags & F_CONTENTLENGTH) != 0;
    if (has_length && parser->content_length > parse->limits.body_size_max)
        return refuse(parse, 413, "The request's body is too large");
    if (check_expect(parse) != 0) return -1;
    parse->keeps_alive = http_should_keep_alive(parser) != 0;
    parse->state = HTTP_PARSE_BODY;
    return 0;
}

static int on_body(http_parser *parser, const char *data, size_t len)
{
    struct http_parse *parse = parser->data;

    if (len > parse->limits.body_size_max - parse->body.len)
        return refuse(parse, 413, "The request's body is too large");
    if (buf_append(&parse->body, data, len) == STATUS_OK) return 0;
    return refuse(parse, 503, "There is no memory for the request's body");
}

static int on_complete(http_parser *parser)
{
    struct http_parse *parse = parser->data;

    ASSERT(parse->state == HTTP_PARSE_BODY);
    if (buf_append(&parse->body, "", 1) != STATUS_OK)
        return refuse(parse, 503, "There is no memory for the request's body");
    parse->state = HTTP_PARSE_DONE;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* ---- feeding ---- */

struct http_parse *http_parse_create(const struct http_limits *limits)
{
    struct http_parse *parse = calloc(1, sizeof(*parse));
    if (parse == NULL) return NULL;

    parse->limits = *limits;
    http_parser_init(&parse->parser, HTTP_REQUEST);
    parse->parser.data = parse;
    /* The head, a NUL for each string, and path and query once more. */
    buf_init(&parse->head.text, (size_t)limits->head_size_max * 2 + 2 * HTTP_HEADERS_MAX + 8);
    buf_init(&parse->body, limits->body_size_max + 1);
    return parse;
}

void http_parse_destroy(struct http_parse *parse)
{
    if (parse == NULL) return;
    buf_fini(&parse->head.text);
    buf_fini(&parse->body);
    free(parse);
}

static void refuse_for(struct http_parse *parse, enum http_errno number)
{
    if (number == HPE_INVALID_TRANSFER_ENCODING) {
        refuse(parse, 501, "The transfer coding is not chunked");
    } else if (number == HPE_HEADER_OVERFLOW) {
        refuse_head(parse);
    } else {
        refuse(parse, 400, http_errno_description(number));
    }
}

/* How many of the bytes come before a line of the head, up to the empty one that ends it, that has
 * a CR in its midst or begins with a blank; and what is wrong with that. The library takes the
 * first for an end, of the head, too, and joins the second to the line before. */
static size_t lines_len(struct http_parse *parse, const char *data, size_t len,
                        const char **message)
{
    for (size_t i = 0; i < len && !parse->is_past_lines; i++) {
        const char c = data[i];
        if (parse->after_cr && c != '\n') {
            *message = "A line of the head has a CR in it";
            return i;
        }
        parse->after_cr = c == '\r';
        if (c == '\n') {
            parse->is_past_lines = parse->has_line && !parse->in_line;
            parse->in_line = false;
        } else if (c != '\r') {
            if (!parse->in_line && parse->has_line && (c == ' ' || c == '\t')) {
                *message = "A line of the head begins with a blank";
                return i;
            }
            parse->has_line = true;
            parse->in_line = true;
        }
    }
    return len;
}

/* Feeds http-parser once, and counts what was head. What is wrong is said of what comes first,
 * wherever the network has cut. */
static size_t feed_once(struct http_parse *parse, const char *data, size_t len)
{
    const bool was_head = parse->state == HTTP_PARSE_HEAD;
    const char *message = NULL;
    const size_t sound = was_head ? lines_len(parse, data, len, &message) : len;
    size_t n = 0;

    if (sound > 0) n = http_parser_execute(&parse->parser, &settings, data, sound);
    const enum http_errno number = HTTP_PARSER_ERRNO(&parse->parser);

    ASSERT(n <= sound);
    if (was_head) parse->head_size += n;
    if (parse->state == HTTP_PARSE_DONE || parse->state == HTTP_PARSE_FAILED) return n;
    if (number != HPE_OK) {
        refuse_for(parse, number);
    } else if (n < sound) {
        refuse(parse, 400, "The request is malformed");
    } else if (message != NULL && parse->state == HTTP_PARSE_HEAD) {
        refuse(parse, 400, message);
    }
    return n;
}

size_t http_parse_feed(struct http_parse *parse, const char *data, size_t len)
{
    size_t fed = 0;

    ASSERT(parse->state == HTTP_PARSE_HEAD || parse->state == HTTP_PARSE_BODY);
    while (fed < len && parse->state == HTTP_PARSE_HEAD) {
        const size_t room = parse->limits.head_size_max - parse->head_size;
        const size_t part = len - fed < room ? len - fed : room;
        fed += feed_once(parse, data + fed, part);
        if (parse->state == HTTP_PARSE_HEAD && parse->head_size >= parse->limits.head_size_max)
            refuse_head(parse);
    }
    if (fed < len && parse->state == HTTP_PARSE_BODY)
        fed += feed_once(parse, data + fed, len - fed);
    return fed;
}

/* ---- reading ---- */

enum http_parse_state http_parse_state(const struct http_parse *parse)
{
    return parse->state;
}

int http_parse_error(const struct http_parse *parse, const char **message)
{
    ASSERT(parse->state == HTTP_PARSE_FAILED);
    *message = parse->error_message;
    return parse->error;
}

const char *http_parse_method(const struct http_parse *parse)
{
    return http_method_str((enum http_method)parse->parser.method);
}

const char *http_parse_path(const struct http_parse *parse)
{
    return text_at(&parse->head, parse->path);
}

const char *http_parse_query(const struct http_parse *parse)
{
    return text_at(&parse->head, parse->query);
}

const char *http_parse_header(const struct http_parse *parse, const char *name)
{
    return header_of(&parse->head, name);
}

bool http_parse_expects_continue(const struct http_parse *parse)
{
    return parse->expects_continue;
}

bool http_parse_keeps_alive(const struct http_parse *parse)
{
    return parse->keeps_alive;
}

bool http_parse_is_1_1(const struct http_parse *parse)
{
    return parse->parser.http_minor >= 1;
}

bool http_parse_is_head(const struct http_parse *parse)
{
    return parse->parser.method == HTTP_HEAD;
}

size_t http_parse_body_size(const struct http_parse *parse)
{
    return parse->body.len;
}

const char *http_parse_body(const struct http_parse *parse, size_t *len)
{
    ASSERT(parse->state == HTTP_PARSE_DONE);
    if (len != NULL) *len = parse->body.len - 1;
    return (const char *)buf_data(&parse->body);
}

/* ---- answers ---- */

enum { INTERIM_MAX = 32 };

struct http_answer {
    http_parser parser;
    enum http_parse_state state;
    unsigned interims; /* that have come before it */
    struct head head;
    bool is_head;
    int (*take_body)(void *ctx, const char *data, size_t len);
    void *ctx;
};

/* Trailers are dropped here, too. */
static int answer_on_name(http_parser *parser, const char *data, size_t len)
{
    struct http_answer *answer = parser->data;
    return answer->state != HTTP_PARSE_HEAD || take_name(&answer->head, data, len) ? 0 : -1;
}

static int answer_on_value(http_parser *parser, const char *data, size_t len)
{
    struct http_answer *answer = parser->data;

    if (answer->state != HTTP_PARSE_HEAD) return 0;
    return answer->head.count > 0 && take_value(&answer->head, data, len) ? 0 : -1;
}

static int answer_on_headers(http_parser *parser)
{
    struct http_answer *answer = parser->data;
    if (!end_string(&answer->head)) return -1;
    answer->state = HTTP_PARSE_BODY;
    return answer->is_head ? 1 : 0; /* 1: no body follows */
}

static int answer_on_body(http_parser *parser, const char *data, size_t len)
{
    const struct http_answer *answer = parser->data;
    return answer->take_body(answer->ctx, data, len);
}

/* 1xx is not the answer yet, but for 101, after which there is no HTTP. */
static bool is_interim(const struct http_answer *answer)
{
    const unsigned code = answer->parser.status_code;
    return code >= 100 && code < 200 && code != 101;
}

static int answer_on_complete(http_parser *parser)
{
    struct http_answer *answer = parser->data;

    if (is_interim(answer)) {
        buf_clear(&answer->head.text);
        answer->head.count = 0;
        answer->state = HTTP_PARSE_HEAD;
        return ++answer->interims <= INTERIM_MAX ? 0 : -1;
    }
    answer->state = HTTP_PARSE_DONE;
    http_parser_pause(parser, 1);
    return 0;
}

static const http_parser_settings answer_settings = {
    .on_header_field = answer_on_name,
    .on_header_value = answer_on_value,
    .on_headers_complete = answer_on_headers,
    .on_body = answer_on_body,
    .on_message_complete = answer_on_complete,
};

struct http_answer *http_answer_create(bool is_head,
                                       int (*take_body)(void *ctx, const char *data, size_t len),
                                       void *ctx)
{
    struct http_answer *answer = calloc(1, sizeof(*answer));

    ASSERT(take_body != NULL);
    if (answer == NULL) return NULL;
    http_parser_init(&answer->parser, HTTP_RESPONSE);
    answer->parser.data = answer;
    answer->is_head = is_head;
    answer->take_body = take_body;
    answer->ctx = ctx;
    buf_init(&answer->head.text, HTTP_ANSWER_HEAD_SIZE_MAX);
    return answer;
}

void http_answer_destroy(struct http_answer *answer)
{
    if (answer == NULL) return;
    buf_fini(&answer->head.text);
    free(answer);
}

enum http_parse_state http_answer_feed(struct http_answer *answer, const char *data, size_t len)
{
    ASSERT(answer->state == HTTP_PARSE_HEAD || answer->state == HTTP_PARSE_BODY);
    const size_t n = http_parser_execute(&answer->parser, &answer_settings, data, len);
    if (answer->state == HTTP_PARSE_DONE) return HTTP_PARSE_DONE;
    if (n != len || HTTP_PARSER_ERRNO(&answer->parser) != HPE_OK) answer->state = HTTP_PARSE_FAILED;
    return answer->state;
}

int http_answer_code(const struct http_answer *answer)
{
    return is_interim(answer) ? 0 : answer->parser.status_code;
}

const char *http_answer_header(const struct http_answer *answer, const char *name)
{
    ASSERT(answer->state != HTTP_PARSE_HEAD);
    return header_of(&answer->head, name);
}
