/* SPDX-License-Identifier: Apache-2.0
 *
 * model/chat.h - a conversation to a prompt, as the model was trained to see it.
 *
 * The template in the file is a program in a template language. We do not run programs from files:
 * we recognise the ones we know, exactly, and refuse the others by name with `--chat-template` as
 * the way out. What a message says is always text: it can contain "<|im_end|>" and still not end a
 * turn.
 *
 * Threads: immutable after creation.
 * Memory:  chat_create() copies what it needs.
 * Limits:  CHAT_MESSAGES_MAX messages; the total length is bounded by the tokenizer's. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct gguf;
struct tokenizer;
struct chat; /* opaque */

enum { CHAT_MESSAGES_MAX = 4096, CHAT_DEFAULT_SYSTEM_MAX = 4096 };

struct chat_message {
    const char *role; /* "system", "user", "assistant", "tool" */
    size_t role_len;
    const char *content;
    size_t content_len;
};

/* `name` is the value of --chat-template: NULL or "auto" recognises the file's template; "chatml"
 * is plain ChatML whatever the file says; "none" puts nothing around the messages: their contents,
 * joined by newlines. STATUS_UNSUPPORTED if the template is not recognised or there is none,
 * STATUS_INVALID for another name or a vocabulary without the tokens that the template needs.
 * The tokenizer must outlive the chat. */
MUST_USE enum status chat_create(const struct gguf *gguf, const struct tokenizer *tokenizer,
                                 const char *name, struct chat **out, struct errmsg *err);
void chat_destroy(struct chat *chat); /* NULL is allowed */

/* What is in use: "chatml", "chatml with a default system message", "none". */
const char *chat_name(const struct chat *chat);

/* The tokens of the conversation, BOS included where the model wants it; with `generate`, up to and
 * including the opening of the assistant's turn. *count is set on success. STATUS_INVALID for an
 * unknown role, no message or too many (err says which); STATUS_FULL if tokens_max is too small;
 * STATUS_NO_MEMORY. */
MUST_USE enum status chat_encode(const struct chat *chat, const struct chat_message *messages,
                                 size_t messages_count, bool generate, uint32_t *tokens,
                                 size_t tokens_max, size_t *count, struct errmsg *err);

/* The same conversation in pieces: text, and special tokens by id. Adjacent texts are one piece,
 * because the tokenizer must see them together. */
struct chat_piece {
    uint32_t token; /* TOKENIZER_NONE for text */
    size_t offset;  /* of the text in struct chat_prompt's text */
    size_t len;
};

struct chat_prompt {
    char *text;
    size_t text_len;
    struct chat_piece *pieces;
    size_t pieces_count;
};

/* On success the caller owns *out and ends it with chat_prompt_fini(). Statuses as above. */
MUST_USE enum status chat_render(const struct chat *chat, const struct chat_message *messages,
                                 size_t messages_count, bool generate, struct chat_prompt *out,
                                 struct errmsg *err);
void chat_prompt_fini(struct chat_prompt *prompt);

#endif
