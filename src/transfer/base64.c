/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/base64.h"

#include <string.h>

#include "base/buf.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum status base64_write(struct buf *out, const void *data, size_t len)
{
    const uint8_t *at = data;
    enum status status = STATUS_OK;

    for (size_t i = 0; i < len && status == STATUS_OK; i += 3) {
        const size_t left = len - i;
        const uint32_t bits = (uint32_t)at[i] << 16 | (left > 1 ? (uint32_t)at[i + 1] << 8 : 0) |
                              (left > 2 ? (uint32_t)at[i + 2] : 0);
        const char four[4] = { alphabet[bits >> 18], alphabet[bits >> 12 & 63],
                               left > 1 ? alphabet[bits >> 6 & 63] : '=',
                               left > 2 ? alphabet[bits & 63] : '=' };
        status = buf_append(out, four, sizeof(four));
    }
    return status;
}

static int digit_of(char c)
{
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
    return at != NULL ? (int)(at - alphabet) : -1;
}

/* How many of the last four characters are padding. */
static unsigned padding_of(const char *four)
{
    if (four[3] != '=') return 0;
    return four[2] == '=' ? 2 : 1;
}

enum status base64_read(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    size_t n = 0;

    if (len % 4 != 0) return STATUS_PROTOCOL;
    for (size_t i = 0; i < len; i += 4) {
        const unsigned pad = i + 4 == len ? padding_of(text + i) : 0;
        uint32_t bits = 0;
        for (unsigned j = 0; j < 4; j++) {
            const int digit = j >= 4 - pad ? 0 : digit_of(text[i + j]);
            if (digit < 0) return STATUS_PROTOCOL;
            bits = bits << 6 | (uint32_t)digit;
        }
        if ((bits & ((1u << 8 * pad) - 1)) != 0) return STATUS_PROTOCOL;
        for (unsigned j = 0; j < 3 - pad; j++)
            out[n++] = (uint8_t)(bits >> (16 - 8 * j));
    }
    *out_len = n;
    return STATUS_OK;
}
