/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_short.h - SHA-256 of what fits one block, by the CPU's own instructions: names of some
 * tens of bytes, hashed by the million, for which a library's general way costs several times the
 * digest. Private to base/hash.c, which knows another way where the CPU has no such instructions.
 *
 * Threads: any. */
#ifndef BASE_HASH_SHORT_H
#define BASE_HASH_SHORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HASH_SHORT_MAX = 55 }; /* bytes; with the padding, one block */

/* Whether this CPU can. Asks the CPU: keep the answer. */
bool hash_short_usable(void);

/* `len` up to HASH_SHORT_MAX; only where it is usable. */
void hash_short_sha256(const void *data, size_t len, uint8_t out[32]);

#endif
