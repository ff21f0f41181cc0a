/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/seen.h - prompts that came before, in whatever shape: what a block key cannot tell.
 *
 * Two bounded memories, filled from struct yolk_prompt (yolk/explain.h has its meaning):
 *
 *     token prefixes, with the layout and the salt they were asked for under. Not of every block:
 *     of the first SEEN_DENSE, then of every SEEN_STRIDE-th, and of the last of each prompt.
 *     texts of conversations, with the token prefix that the text became.
 *
 * "Seen" is closed under prefixes, so the end of what was seen is found by doubling and halving.
 * What was forgotten since may make an answer too short, never too long but for a collision of
 * hashes (32 bits in a bucket of 8).
 *
 * Memory:  all allocated by seen_create(), of fixed size.
 * Threads: belongs to one thread at a time. */
#ifndef CONDUCTOR_SEEN_H
#define CONDUCTOR_SEEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/explain.h"

enum { SEEN_DENSE = 16, SEEN_STRIDE = 16, SEEN_TEXTS_LOOKED_AT = 16 };

struct seen; /* opaque */

MUST_USE enum status seen_create(struct seen **out);
void seen_destroy(struct seen *seen); /* NULL is allowed */
uint64_t seen_bytes(const struct seen *seen);

/* Remembers the prompt, of `blocks` full blocks. */
void seen_note(struct seen *seen, const struct yolk_prompt *prompt, uint32_t blocks);

/* How far the prompt was seen: n blocks, from <= n <= to; `from` when no further than that. */
uint32_t seen_same(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                   uint32_t to);
/* ... under another layout or, the layout being the same, another salt: *why says which, set when
 * n > from. */
uint32_t seen_other(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                    uint32_t to, enum yolk_miss *why);
/* ... as a text that became other tokens. */
uint32_t seen_text(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                   uint32_t to);

#endif
