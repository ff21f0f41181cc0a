/* SPDX-License-Identifier: Apache-2.0 */
#include "store/scope.h"

#include <string.h>

#include "base/assert.h"

enum { MARK_LEN = 4 };
static const uint8_t mark[MARK_LEN] = { 0x00, 0xf5, 't', 'n' }; /* in no UTF-8 text */

static bool name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool name_bytes(const uint8_t *name, size_t len)
{
    if (len > SCOPE_NAME_LEN_MAX || (len > 0 && name[0] == '_')) return false;
    for (size_t i = 0; i < len; i++) {
        if (!name_byte(name[i])) return false;
    }
    return true;
}

bool scope_name_default(const char *name)
{
    return name[0] == '\0' || strcmp(name, "default") == 0;
}

bool scope_name_valid(const char *name)
{
    return name_bytes((const uint8_t *)name, strlen(name));
}

static bool marked(struct store_key key)
{
    return key.len >= MARK_LEN && memcmp(key.bytes, mark, MARK_LEN) == 0;
}

size_t scope_prefix(const char *name, struct store_key key, uint8_t out[SCOPE_SIZE_MAX])
{
    const size_t len = scope_name_default(name) ? 0 : strlen(name);
    ASSERT(scope_name_valid(name));

    if (len == 0 && !marked(key)) return 0;
    memcpy(out, mark, MARK_LEN);
    out[MARK_LEN] = (uint8_t)len;
    memcpy(out + MARK_LEN + 1, name, len);
    return MARK_LEN + 1 + len;
}

struct scope scope_split(struct store_key whole)
{
    const struct scope plain = { .key = whole };
    if (!marked(whole) || whole.len <= MARK_LEN) return plain;

    const uint32_t len = whole.bytes[MARK_LEN];
    const uint8_t *name = whole.bytes + MARK_LEN + 1;
    const uint32_t before = MARK_LEN + 1 + len;
    const bool wrong = whole.len < before || !name_bytes(name, len);
    if (wrong || (len == 7 && memcmp(name, "default", len) == 0)) return plain;
    return (struct scope){ .name = name,
                           .name_len = len,
                           .key = { whole.bytes + before, whole.len - before } };
}
