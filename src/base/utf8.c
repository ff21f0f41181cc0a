/* SPDX-License-Identifier: Apache-2.0
 *
 * base/utf8.c - one byte at a time: the held prefix and the next byte decide everything.
 *
 * Well-formed sequences (Unicode, table 3-7); every further byte is 80..BF:
 *
 *   00..7F          | C2..DF .       | E0 A0..BF .    | E1..EC . .   | ED 80..9F .
 *   EE..EF . .      | F0 90..BF . .  | F1..F3 . . .   | F4 80..8F . .
 *
 * Invariant: held[] is always a proper prefix of some well-formed sequence. */
#include "base/utf8.h"

#include <string.h>

#include "base/assert.h"

static const char replacement[3] = { (char)0xef, (char)0xbf, (char)0xbd };

/* Bytes in the sequence that `lead` starts; 0 if none starts with it. */
static unsigned sequence_size(uint8_t lead)
{
    if (lead < 0x80) return 1;
    if (lead < 0xc2) return 0;
    if (lead < 0xe0) return 2;
    if (lead < 0xf0) return 3;
    if (lead < 0xf5) return 4;
    return 0;
}

/* May `byte` stand at position 1 after `lead`? */
static bool second_fits(uint8_t lead, uint8_t byte)
{
    if (lead == 0xe0) return byte >= 0xa0 && byte <= 0xbf;
    if (lead == 0xed) return byte >= 0x80 && byte <= 0x9f;
    if (lead == 0xf0) return byte >= 0x90 && byte <= 0xbf;
    if (lead == 0xf4) return byte >= 0x80 && byte <= 0x8f;
    return byte >= 0x80 && byte <= 0xbf;
}

static bool continues(const uint8_t *held, unsigned held_len, uint8_t byte)
{
    if (held_len == 1) return second_fits(held[0], byte);
    return byte >= 0x80 && byte <= 0xbf;
}

size_t utf8_valid_prefix(const void *data, size_t len)
{
    const uint8_t *bytes = data;
    size_t at = 0;

    while (at < len) {
        const unsigned size = sequence_size(bytes[at]);
        if (size == 0 || size > len - at) return at;
        for (unsigned i = 1; i < size; i++) {
            if (!continues(bytes + at, i, bytes[at + i])) return at;
        }
        at += size;
    }
    return at;
}

void utf8_stream_init(struct utf8_stream *stream)
{
    *stream = (struct utf8_stream){ 0 };
}

static size_t put(char *out, const void *bytes, size_t len)
{
    memcpy(out, bytes, len);
    return len;
}

/* Takes one byte; writes at most 4 bytes: what was held, or a replacement and an ASCII byte. */
static size_t step(struct utf8_stream *stream, uint8_t byte, char *out)
{
    size_t written = 0;

    ASSERT(stream->held_len < 4);
    if (stream->held_len > 0 && continues(stream->held, stream->held_len, byte)) {
        if (stream->held_len + 1u < sequence_size(stream->held[0])) {
            stream->held[stream->held_len++] = byte;
            return 0;
        }
        written = put(out, stream->held, stream->held_len);
        written += put(out + written, &byte, 1);
        stream->held_len = 0;
        return written;
    }
    if (stream->held_len > 0) written = utf8_stream_finish(stream, out);

    const unsigned size = sequence_size(byte);
    if (size == 0) return written + put(out + written, replacement, sizeof(replacement));
    if (size == 1) return written + put(out + written, &byte, 1);
    stream->held[0] = byte;
    stream->held_len = 1;
    return written;
}

size_t utf8_stream_push(struct utf8_stream *stream, const void *data, size_t len, char *out)
{
    const uint8_t *bytes = data;
    size_t written = 0;

    for (size_t i = 0; i < len; i++)
        written += step(stream, bytes[i], out + written);
    ASSERT(written <= UTF8_STREAM_OUT_MAX(len));
    return written;
}

size_t utf8_stream_finish(struct utf8_stream *stream, char *out)
{
    if (stream->held_len == 0) return 0;
    stream->held_len = 0;
    return put(out, replacement, sizeof(replacement));
}
