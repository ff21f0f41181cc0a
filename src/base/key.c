/* SPDX-License-Identifier: Apache-2.0
 *
 * base/key.c - block keys to and from text. */
#include "base/key.h"

static const char digits[] = "0123456789abcdef";

void block_key_to_hex(const struct block_key *key, char out[BLOCK_KEY_HEX_SIZE])
{
    for (int i = 0; i < BLOCK_KEY_SIZE; i++) {
        out[2 * i] = digits[key->bytes[i] >> 4];
        out[2 * i + 1] = digits[key->bytes[i] & 15];
    }
    out[BLOCK_KEY_HEX_SIZE - 1] = '\0';
}

/* -1 if it is no hexadecimal digit. */
static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

enum status block_key_from_hex(const char *hex, size_t len, struct block_key *out)
{
    struct block_key key;

    if (len != 2 * BLOCK_KEY_SIZE) return STATUS_INVALID;
    for (int i = 0; i < BLOCK_KEY_SIZE; i++) {
        const int high = digit_value(hex[2 * i]);
        const int low = digit_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) return STATUS_INVALID;
        key.bytes[i] = (uint8_t)(high * 16 + low);
    }
    *out = key;
    return STATUS_OK;
}
