/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_text.c - byte by byte: is a stop string complete here, and if not, how much of the
 * end could still become one?
 *
 * `held` is the longest end of the text so far that is a proper beginning of some stop string. A
 * new byte is put behind it. If a stop string now is an end of held, the text is over. Otherwise
 * held is shortened from the front, releasing bytes, until it is a beginning of a stop string
 * again. Stop strings and text are valid UTF-8, and a beginning of a stop string starts at a code
 * point, so what is released before it is whole code points once a push has been taken in.
 *
 * Cost: a byte looks at each stop string once, and at each held length while shortening. */
#include "serve/gateway_text.h"

#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

enum { PIECE_SIZE = 256 };

void gateway_text_init(struct gateway_text *text, const struct api_text *stops,
                       uint32_t stops_count)
{
    ASSERT(stops_count <= API_STOPS_MAX);
    *text = (struct gateway_text){ .stops = stops, .stops_count = stops_count };
    for (uint32_t i = 0; i < stops_count; i++) {
        ASSERT(stops[i].len > 0 && stops[i].len <= API_STOP_SIZE_MAX);
    }
    utf8_stream_init(&text->utf8);
}

/* Length of the longest stop string that ends `held`, or 0. */
static size_t complete_stop(const struct gateway_text *text, const char *held, size_t len)
{
    size_t longest = 0;

    for (uint32_t i = 0; i < text->stops_count; i++) {
        const struct api_text *stop = &text->stops[i];
        if (stop->len > len || stop->len <= longest) continue;
        if (memcmp(held + len - stop->len, stop->data, stop->len) == 0) longest = stop->len;
    }
    return longest;
}

/* Is the whole of `held` a proper beginning of a stop string? */
static bool begins_stop(const struct gateway_text *text, const char *held, size_t len)
{
    for (uint32_t i = 0; i < text->stops_count; i++) {
        const struct api_text *stop = &text->stops[i];
        if (stop->len > len && memcmp(stop->data, held, len) == 0) return true;
    }
    return len == 0;
}

static enum status take_byte(struct gateway_text *text, char byte, struct buf *out)
{
    char held[API_STOP_SIZE_MAX + 1];
    size_t len = text->held_len, released = 0;

    ASSERT(len < API_STOP_SIZE_MAX && !text->stopped);
    memcpy(held, text->held, len);
    held[len++] = byte;
    const size_t stop = complete_stop(text, held, len);
    if (stop > 0) {
        text->stopped = true;
        text->held_len = 0;
        return buf_append(out, held, len - stop);
    }
    while (!begins_stop(text, held + released, len - released))
        released++;
    text->held_len = len - released;
    ASSERT(text->held_len < API_STOP_SIZE_MAX);
    memcpy(text->held, held + released, text->held_len);
    return buf_append(out, held, released);
}

static enum status take(struct gateway_text *text, const char *piece, size_t len, struct buf *out)
{
    if (text->stops_count == 0) return buf_append(out, piece, len);
    for (size_t i = 0; i < len && !text->stopped; i++) {
        const enum status status = take_byte(text, piece[i], out);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

enum status gateway_text_push(struct gateway_text *text, const void *bytes, size_t len,
                              struct buf *out)
{
    char valid[UTF8_STREAM_OUT_MAX(PIECE_SIZE)];
    const char *at = bytes;

    while (len > 0 && !text->stopped) {
        const size_t piece = len < PIECE_SIZE ? len : PIECE_SIZE;
        const size_t valid_len = utf8_stream_push(&text->utf8, at, piece, valid);
        const enum status status = take(text, valid, valid_len, out);
        if (status != STATUS_OK) return status;
        at += piece;
        len -= piece;
    }
    return STATUS_OK;
}

enum status gateway_text_finish(struct gateway_text *text, struct buf *out)
{
    char valid[3];

    if (text->stopped) return STATUS_OK;
    const size_t valid_len = utf8_stream_finish(&text->utf8, valid);
    enum status status = take(text, valid, valid_len, out);
    if (status == STATUS_OK && !text->stopped) {
        status = buf_append(out, text->held, text->held_len);
        text->held_len = 0;
    }
    return status;
}
