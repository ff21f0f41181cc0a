/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/gateway_calls.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serve/api_json.h"

enum { HELD_SIZE_MAX = 16 << 20 };

static const char OPEN[] = "<tool_call>", CLOSE[] = "</tool_call>";

void gateway_calls_init(struct gateway_calls *calls, enum chat_tools style, bool forced,
                        bool pieces, uint64_t id)
{
    *calls = (struct gateway_calls){ .style = style, .inside = forced, .pieces = pieces, .id = id };
    buf_init(&calls->held, HELD_SIZE_MAX);
}

void gateway_calls_fini(struct gateway_calls *calls)
{
    buf_fini(&calls->held);
}

void gateway_calls_mark(struct gateway_calls *calls)
{
    calls->inside = true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static const char *held_text(const struct gateway_calls *calls)
{
    return (const char *)buf_data(&calls->held);
}

/* ---- calls ---- */

/* An element of tool_calls up to its arguments. */
static enum status write_name(struct gateway_calls *calls, const char *name, size_t len,
                              struct buf *out)
{
    enum status status = buf_printf(
        out,
        "%s{\"index\":%u,\"id\":\"call_%016llx_%u\",\"type\":\"function\","
        "\"function\":{\"name\":",
        out->len > 0 ? "," : "", calls->count, (unsigned long long)calls->id, calls->count);
    if (status == STATUS_OK) status = api_json_write_string(out, name, len);
    if (status == STATUS_OK) status = buf_append_text(out, ",\"arguments\":");
    if (status == STATUS_OK) calls->count++;
    return status;
}

/* One element of tool_calls; arguments are a text. */
static enum status write_call(struct gateway_calls *calls, const struct json_value *call,
                              struct buf *out)
{
    const char *name = json_value_text(json_value_member(call, "name"));
    const struct json_value *arguments = json_value_member(call, "arguments");

    if (arguments == NULL) arguments = json_value_member(call, "parameters");
    if (name == NULL) return STATUS_INVALID;
    if (arguments != NULL && !json_value_is_object(arguments)) return STATUS_INVALID;
    char *text = arguments != NULL ? json_value_dump(arguments) : strdup("{}");
    enum status status = text == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) status = write_name(calls, name, strlen(name), out);
    if (status == STATUS_OK) status = api_json_write_string(out, text, strlen(text));
    if (status == STATUS_OK) status = buf_append_text(out, "}}");
    free(text);
    return status;
}

/* The text as one call, or as an array of them. STATUS_INVALID if it is neither: nothing is
 * written then. */
static enum status write_calls(struct gateway_calls *calls, const char *text, size_t len,
                               struct buf *out)
{
    const size_t before = out->len;
    const uint32_t count = calls->count;
    struct json_value *value = NULL;
    struct errmsg err;

    if (json_document_parse(text, len, &value, &err) != STATUS_OK) return STATUS_INVALID;
    enum status status = STATUS_OK;
    if (!json_value_is_array(value)) {
        status = write_call(calls, value, out);
    } else {
        if (json_value_count(value) == 0) status = STATUS_INVALID;
        for (size_t i = 0; i < json_value_count(value) && status == STATUS_OK; i++)
            status = write_call(calls, json_value_at(value, i), out);
    }
    json_document_destroy(value);
    if (status == STATUS_INVALID) {
        buf_truncate(out, before);
        calls->count = count;
    }
    return status;
}

/* ---- pieces ---- */

enum head { HEAD_MORE, HEAD_DONE, HEAD_NONE };

/* Is `text` what comes at *at? Takes it if it is whole. */
static enum head expect(const char *held, size_t len, const char *text, size_t *at)
{
    const size_t size = strlen(text), there = len - *at < size ? len - *at : size;

    if (memcmp(held + *at, text, there) != 0) return HEAD_NONE;
    if (there < size) return HEAD_MORE;
    *at += size;
    return HEAD_DONE;
}

/* A call up to its arguments, behind blanks and what stands between calls. */
static enum head read_head(const struct gateway_calls *calls, size_t *name, size_t *name_len,
                           size_t *end)
{
    const char *text = held_text(calls);
    const size_t len = calls->held.len;
    size_t at = 0;

    while (at < len && (is_blank(text[at]) || text[at] == '[' || text[at] == ','))
        at++;
    enum head head = expect(text, len, "{\"name\": \"", &at);
    if (head != HEAD_DONE) return at < len && text[at] == ']' ? HEAD_MORE : head;
    *name = at;
    while (at < len && text[at] != '"') {
        if (text[at] == '\\') return HEAD_NONE;
        at++;
    }
    *name_len = at - *name;
    head = expect(text, len, "\", \"arguments\": ", &at);
    if (head == HEAD_NONE) head = expect(text, len, "\", \"parameters\": ", &at);
    *end = at;
    return head;
}

static enum status take_head(struct gateway_calls *calls, struct buf *out, bool *more)
{
    size_t name = 0, name_len = 0, end = 0;
    const enum head head = read_head(calls, &name, &name_len, &end);

    if (head == HEAD_NONE) calls->pieces = false;
    if (head == HEAD_MORE) *more = false;
    if (head != HEAD_DONE) return STATUS_OK;
    enum status status = write_name(calls, held_text(calls) + name, name_len, out);
    if (status == STATUS_OK) status = buf_append_text(out, "\"\"}}");
    buf_consume(&calls->held, end);
    calls->part = CALLS_ARGUMENTS;
    calls->depth = 0;
    calls->quoted = calls->escaped = false;
    return status;
}

/* One byte of arguments; false for a blank that says nothing. */
static bool follow_argument(struct gateway_calls *calls, char c)
{
    if (calls->quoted) {
        if (c == '"' && !calls->escaped) calls->quoted = false;
        calls->escaped = c == '\\' && !calls->escaped;
        return true;
    }
    if (c == '"') calls->quoted = true;
    if (c == '{' || c == '[') calls->depth++;
    if ((c == '}' || c == ']') && calls->depth > 0) calls->depth--;
    return !is_blank(c);
}

static enum status take_arguments(struct gateway_calls *calls, struct buf *out, bool *more)
{
    struct buf piece;
    enum status status = STATUS_OK;
    size_t at = 0;

    buf_init(&piece, HELD_SIZE_MAX);
    while (at < calls->held.len && calls->part == CALLS_ARGUMENTS && status == STATUS_OK) {
        const char c = held_text(calls)[at++];
        if (follow_argument(calls, c)) status = buf_append(&piece, &c, 1);
        if (calls->depth == 0 && !calls->quoted) calls->part = CALLS_TAIL;
    }
    buf_consume(&calls->held, at);
    if (calls->part == CALLS_ARGUMENTS) *more = false;
    if (status == STATUS_OK && piece.len > 0) {
        status =
            buf_printf(out, "%s{\"index\":%u,\"function\":{\"arguments\":", out->len > 0 ? "," : "",
                       calls->count - 1);
        if (status == STATUS_OK)
            status = api_json_write_string(out, (const char *)buf_data(&piece), piece.len);
        if (status == STATUS_OK) status = buf_append_text(out, "}}");
    }
    buf_fini(&piece);
    return status;
}

/* Up to the end mark, or the next call of the "mistral" style. */
static void take_tail(struct gateway_calls *calls, bool *more)
{
    const char *end = calls->style == CHAT_TOOLS_HERMES ? CLOSE : "}";
    const char *mark = memmem(held_text(calls), calls->held.len, end, strlen(end));

    if (mark == NULL || calls->style == CHAT_TOOLS_LLAMA3) {
        *more = false;
        return;
    }
    buf_consume(&calls->held, (size_t)(mark - held_text(calls)) + strlen(end));
    calls->part = CALLS_HEAD;
    if (calls->style == CHAT_TOOLS_HERMES) calls->inside = false;
}

/* Inside, until nothing more can be done, or the call is over, or is none. */
static enum status take_pieces(struct gateway_calls *calls, struct buf *out, bool *more)
{
    enum status status = STATUS_OK;

    while (*more && calls->inside && calls->pieces && status == STATUS_OK) {
        switch (calls->part) {
        case CALLS_HEAD: status = take_head(calls, out, more); break;
        case CALLS_ARGUMENTS: status = take_arguments(calls, out, more); break;
        case CALLS_TAIL: take_tail(calls, more); break;
        }
    }
    return status;
}

/* ---- hermes ---- */

/* How many of the last bytes could begin the mark. */
static size_t begun(const char *text, size_t len, const char *mark)
{
    size_t n = strlen(mark) - 1;

    if (n > len) n = len;
    while (n > 0 && memcmp(text + len - n, mark, n) != 0)
        n--;
    return n;
}

/* Blanks between calls, and behind the last one, are nobody's. */
static size_t leading_blanks(const struct gateway_calls *calls)
{
    size_t n = 0;

    if (calls->count == 0) return 0;
    while (n < calls->held.len && is_blank(held_text(calls)[n]))
        n++;
    return n;
}

/* Content up to `end`, and then the mark goes. */
static enum status give_content(struct gateway_calls *calls, size_t end, size_t mark,
                                struct buf *content)
{
    const size_t skip = leading_blanks(calls);
    enum status status = STATUS_OK;

    if (end > skip) status = buf_append(content, held_text(calls) + skip, end - skip);
    buf_consume(&calls->held, end + mark);
    return status;
}

/* Takes one mark, or what there can be of content; false when nothing more can be done. */
static enum status take_outside(struct gateway_calls *calls, struct buf *content, bool *more)
{
    const char *text = held_text(calls);
    const char *mark = memmem(text, calls->held.len, OPEN, sizeof(OPEN) - 1);

    if (mark != NULL) {
        calls->inside = true;
        return give_content(calls, (size_t)(mark - text), sizeof(OPEN) - 1, content);
    }
    *more = false;
    const size_t end = calls->held.len - begun(text, calls->held.len, OPEN);
    return end > leading_blanks(calls) ? give_content(calls, end, 0, content) : STATUS_OK;
}

static enum status take_inside(struct gateway_calls *calls, struct buf *content, struct buf *out,
                               bool *more)
{
    const char *text = held_text(calls);
    const char *mark = memmem(text, calls->held.len, CLOSE, sizeof(CLOSE) - 1);

    if (mark == NULL) {
        *more = false;
        return STATUS_OK;
    }
    const size_t len = (size_t)(mark - text);
    enum status status = write_calls(calls, text, len, out);
    if (status == STATUS_INVALID) {
        status = buf_append_text(content, OPEN);
        if (status == STATUS_OK) status = buf_append(content, text, len + sizeof(CLOSE) - 1);
    }
    buf_consume(&calls->held, len + sizeof(CLOSE) - 1);
    calls->inside = false;
    return status;
}

/* ---- all ---- */

/* What closes a list of calls, and nothing else. */
static bool is_end(const struct gateway_calls *calls)
{
    for (size_t i = 0; i < calls->held.len; i++) {
        if (!is_blank(held_text(calls)[i]) && held_text(calls)[i] != ']') return false;
    }
    return calls->count > 0;
}

enum status gateway_calls_push(struct gateway_calls *calls, const char *text, size_t len,
                               struct buf *content, struct buf *out)
{
    bool more = true;

    if (calls->style == CHAT_TOOLS_NONE) return buf_append(content, text, len);
    enum status status = buf_append(&calls->held, text, len);
    if (status != STATUS_OK) return status;
    if (calls->style == CHAT_TOOLS_LLAMA3 && !calls->inside) {
        size_t at = 0;
        while (at < calls->held.len && is_blank(held_text(calls)[at]))
            at++;
        if (at == calls->held.len) return STATUS_OK;
        calls->inside = held_text(calls)[at] == '{';
        if (!calls->inside) calls->style = CHAT_TOOLS_NONE; /* a text, to its end */
    }
    if (calls->style != CHAT_TOOLS_HERMES) {
        if (calls->inside && calls->pieces) return take_pieces(calls, out, &more);
        if (calls->inside) return STATUS_OK; /* to the end of the answer */
        status = buf_append(content, held_text(calls), calls->held.len);
        buf_clear(&calls->held);
        return status;
    }
    while (more && status == STATUS_OK) {
        if (calls->inside && calls->pieces) {
            status = take_pieces(calls, out, &more);
            continue;
        }
        status = calls->inside ? take_inside(calls, content, out, &more)
                               : take_outside(calls, content, &more);
    }
    return status;
}

enum status gateway_calls_finish(struct gateway_calls *calls, struct buf *content, struct buf *out)
{
    enum status status = STATUS_INVALID;

    if (calls->held.len == 0) return STATUS_OK;
    if (calls->inside && calls->pieces && (calls->part != CALLS_HEAD || is_end(calls))) {
        buf_clear(&calls->held); /* nothing of it is content */
        return STATUS_OK;
    }
    if (calls->inside) status = write_calls(calls, held_text(calls), calls->held.len, out);
    if (status == STATUS_INVALID) {
        const size_t skip = calls->inside ? 0 : leading_blanks(calls);
        status = buf_append(content, held_text(calls) + skip, calls->held.len - skip);
    }
    buf_clear(&calls->held);
    return status;
}
