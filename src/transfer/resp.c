/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/resp.h"

#include <stdbool.h>
#include <string.h>

#include "base/buf.h"

enum status resp_write(struct buf *out, const char *const words[], size_t count)
{
    enum status status = buf_printf(out, "*%zu\r\n", count);

    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = buf_printf(out, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
    return status;
}

static bool parse_integer(const char *text, size_t len, int64_t *out)
{
    const bool negative = len > 0 && text[0] == '-';
    int64_t value = 0;
    size_t i = negative ? 1 : 0;

    if (i == len || len > 18) return false;
    for (; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (text[i] - '0');
    }
    *out = negative ? -value : value;
    return true;
}

/* `line`: behind "$12\r\n" there are `left` bytes. */
static enum status read_bulk(int64_t size, const char *at, size_t left, struct resp_reply *out,
                             size_t *taken)
{
    if (size == -1) {
        out->kind = RESP_NIL;
        return STATUS_OK;
    }
    if (size < 0 || size > RESP_BULK_MAX) return STATUS_PROTOCOL;
    const size_t len = (size_t)size;
    if (left < len + 2) return STATUS_AGAIN;
    if (at[len] != '\r' || at[len + 1] != '\n') return STATUS_PROTOCOL;
    out->kind = RESP_BULK;
    out->text = at;
    out->len = len;
    *taken += len + 2;
    return STATUS_OK;
}

enum status resp_read(const char *data, size_t len, struct resp_reply *out, size_t *taken)
{
    const size_t seen = len < RESP_LINE_MAX ? len : RESP_LINE_MAX;
    const char *end = seen > 0 ? memchr(data, '\n', seen) : NULL;
    struct resp_reply reply = { .kind = RESP_STATUS };

    if (len > 0 && memchr("+-:$", data[0], 4) == NULL) return STATUS_PROTOCOL;
    if (end == NULL) return seen < RESP_LINE_MAX ? STATUS_AGAIN : STATUS_PROTOCOL;
    if (end - data < 2 || end[-1] != '\r') return STATUS_PROTOCOL;
    size_t used = (size_t)(end - data) + 1;
    reply.text = data + 1;
    reply.len = used - 3;
    const bool numeric = data[0] == ':' || data[0] == '$';
    if (numeric && !parse_integer(reply.text, reply.len, &reply.integer)) return STATUS_PROTOCOL;
    if (data[0] == '-') reply.kind = RESP_ERROR;
    if (data[0] == ':') reply.kind = RESP_INTEGER;
    if (data[0] == '$') {
        const enum status status = read_bulk(reply.integer, end + 1, len - used, &reply, &used);
        if (status != STATUS_OK) return status;
    }
    *out = reply;
    *taken = used;
    return STATUS_OK;
}
