/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer.h - text to tokens and back with the vocabulary of the model file: byte-level BPE
 * ("gpt2") or SentencePiece ("llama").
 *
 * Text never becomes a special token: tokenizer_encode() treats "<|im_end|>" in a user's text as
 * ten ordinary characters. Special tokens are placed by id, by the chat template (model/chat.h).
 *
 * Added words (tokens of kind "user defined", which are not special) are text, and are recognised
 * in it.
 *
 * Any bytes are accepted, valid UTF-8 or not: an invalid byte is a piece of its own. A byte for
 * which the vocabulary has no token is dropped, as other runtimes do; with all 256 bytes in the
 * vocabulary, decoding what was encoded gives the same bytes. SentencePiece vocabularies cannot
 * tell U+2581 from a space, and most put a space before a text: after "a", "b" decodes to "a b".
 *
 * Memory:  tokenizer_create() copies what it needs; the gguf may go. tokenizer_encode() allocates
 *          scratch for words longer than 256 bytes (for SentencePiece a text is one word), at most
 *          33 bytes per byte, and 640 KiB for a text of 4 KiB or more, and frees it.
 * Threads: immutable after creation; any number of threads may encode and decode at once.
 * Limits:  texts up to TOKENIZER_TEXT_SIZE_MAX bytes; time O(n log n) in the longest word. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct gguf;
struct tokenizer; /* opaque */

enum { TOKENIZER_TEXT_SIZE_MAX = 1 << 26 };
#define TOKENIZER_NONE UINT32_MAX /* no such token */

/* STATUS_UNSUPPORTED for a tokenizer or a pre-tokenizer we do not know (err names it and those we
 * do), STATUS_INVALID for an inconsistent vocabulary, STATUS_NO_MEMORY. */
MUST_USE enum status tokenizer_create(const struct gguf *gguf, struct tokenizer **out,
                                      struct errmsg *err);
void tokenizer_destroy(struct tokenizer *tokenizer); /* NULL is allowed */

/* Appends the tokens of `text` to tokens[*count..tokens_max) and advances *count. Adds no BOS.
 * STATUS_FULL if they do not fit (a prompt longer than the context: *count is unchanged, the
 * array's tail is undefined), also for len > TOKENIZER_TEXT_SIZE_MAX; STATUS_NO_MEMORY. A token
 * stands for at least one byte of the text or a space put before a part of it, so tokens_max >=
 * *count + 2 * len always suffices. */
MUST_USE enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text,
                                      size_t len, uint32_t *tokens, size_t tokens_max,
                                      size_t *count);

/* The bytes a token stands for, borrowed; for a special token, its text. "" and length 0 for an id
 * out of range. */
const char *tokenizer_bytes(const struct tokenizer *tokenizer, uint32_t token, size_t *len);

/* Control tokens: not text, never shown to a user, never made from text. */
bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t token);

/* Tokens that end an answer: the file's end-of-sequence and end-of-turn, <|im_end|>, <|endoftext|>,
 * <|eot_id|>, <end_of_turn> and the like where they are special tokens of the vocabulary. */
bool tokenizer_is_end(const struct tokenizer *tokenizer, uint32_t token);

/* The special token with exactly this text, or TOKENIZER_NONE. */
uint32_t tokenizer_find_special(const struct tokenizer *tokenizer, const char *text);

uint32_t tokenizer_vocab(const struct tokenizer *tokenizer);
uint32_t tokenizer_bos(const struct tokenizer *tokenizer); /* TOKENIZER_NONE if there is none */
uint32_t tokenizer_eos(const struct tokenizer *tokenizer);

/* Whether a prompt starts with BOS (/v1/completions prepends it; chat_encode() does it itself). */
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);

#endif
