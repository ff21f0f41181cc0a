/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_text.h - tokens to the text a client may see: whole code points, and nothing of a
 * stop string.
 *
 * Bytes of tokens go in. Out comes valid UTF-8 that no later token can take back: an incomplete
 * code point waits for its rest, and an end that could be the beginning of a stop string waits
 * until it is known not to be. The first stop string to be complete ends the text before it; of
 * several that end at the same byte the longest counts. So the result does not depend on how the
 * text was cut into tokens.
 *
 * Memory:  stop strings are borrowed; the held text is bounded by the longest of them.
 * Threads: a value; belongs to its owner.
 * Limits:  API_STOPS_MAX stops of API_STOP_SIZE_MAX bytes. */
#ifndef SERVE_GATEWAY_TEXT_H
#define SERVE_GATEWAY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/utf8.h"
#include "serve/api.h"

struct buf;

struct gateway_text {
    const struct api_text *stops;
    uint32_t stops_count;
    bool stopped;
    struct utf8_stream utf8;
    char held[API_STOP_SIZE_MAX]; /* shorter than the longest stop string */
    size_t held_len;
};

/* `stops` are not empty, valid UTF-8, at most API_STOP_SIZE_MAX bytes, and outlive the text. */
void gateway_text_init(struct gateway_text *text, const struct api_text *stops,
                       uint32_t stops_count);

/* Appends what may be shown now to *out. text->stopped tells whether a stop string has been met;
 * after that nothing more comes. STATUS_FULL as buf_append(). */
MUST_USE enum status gateway_text_push(struct gateway_text *text, const void *bytes, size_t len,
                                       struct buf *out);

/* The answer is over: what was held back is shown after all. */
MUST_USE enum status gateway_text_finish(struct gateway_text *text, struct buf *out);

#endif
