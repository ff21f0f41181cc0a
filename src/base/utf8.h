/* SPDX-License-Identifier: Apache-2.0
 *
 * base/utf8.h - UTF-8 as it streams: what is complete goes out, what is not yet waits.
 *
 * Tokens end in the middle of code points. A stream holds back the incomplete tail, at most 3
 * bytes, until the next push completes it or proves that nothing can. Invalid bytes become U+FFFD,
 * one for each maximal prefix of a valid sequence (the practice Unicode recommends and browsers
 * follow), so the result does not depend on how the bytes were cut.
 *
 * Threads: a stream belongs to its caller.
 * Memory:  none allocated. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the longest valid prefix; == len exactly when all of it is valid UTF-8 (no surrogates,
 * no overlong forms, nothing above U+10FFFF). */
size_t utf8_valid_prefix(const void *data, size_t len);

struct utf8_stream {
    uint8_t held[3]; /* an incomplete sequence that may still become valid */
    uint8_t held_len;
};

/* Room that utf8_stream_push() may need for `len` bytes of input. */
#define UTF8_STREAM_OUT_MAX(len) (((len) + 3) * 3)

void utf8_stream_init(struct utf8_stream *stream);

/* Writes valid UTF-8 to `out`, which has room for UTF8_STREAM_OUT_MAX(len), and returns its length.
 */
size_t utf8_stream_push(struct utf8_stream *stream, const void *data, size_t len, char *out);

/* The end: what is still held becomes one U+FFFD. `out` has room for 3. */
size_t utf8_stream_finish(struct utf8_stream *stream, char *out);

#endif
