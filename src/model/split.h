/* SPDX-License-Identifier: Apache-2.0
 *
 * model/split.h - cuts text into the words that byte-pair merges do not cross.
 *
 * A model file names its pre-tokenizer (tokenizer.ggml.pre); each name we know is a list of one or
 * two patterns. The first cuts the text into matches and what lies between them, the next cuts each
 * of those pieces again. Every byte ends up in exactly one piece, in order.
 *
 * Text that is not UTF-8 is cut at the bad bytes: a run of them is a piece, and the valid runs
 * between are treated as texts of their own.
 *
 * This is the only file that knows the regular expression library (PCRE2).
 * Threads: immutable after creation; any number of threads may run it. */
#ifndef MODEL_SPLIT_H
#define MODEL_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct splitter; /* opaque */

/* What else the name decides. */
struct split_traits {
    bool whole_words; /* a word that is a token is that token, merges or not */
    bool adds_bos;    /* unless the file says otherwise */
};

/* STATUS_UNSUPPORTED for an unknown name (err lists the known ones), STATUS_NO_MEMORY. */
MUST_USE enum status splitter_create(const char *name, size_t name_len, struct splitter **out,
                                     struct errmsg *err);
void splitter_destroy(struct splitter *splitter); /* NULL is allowed */
struct split_traits splitter_traits(const struct splitter *splitter);

/* Gets each piece, at least one byte long. Anything but STATUS_OK ends the walk. */
typedef enum status (*split_fn)(void *ctx, const char *piece, size_t len);

/* The status of the first piece refused; STATUS_NO_MEMORY if the library has none. */
MUST_USE enum status splitter_run(const struct splitter *splitter, const char *text, size_t len,
                                  split_fn on_piece, void *ctx);

#endif
