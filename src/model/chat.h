/* SPDX-License-Identifier: Apache-2.0
 *
 * model/chat.h - a conversation to a prompt, as the model was trained to see it.
 *
 * The template is a small program in the model's file, and is run as one (model/template.h); what
 * of its language is not known is refused by name when the model is loaded, with --chat-template as
 * the way out. What a message says is always text: it can contain "<|im_end|>" and still not end a
 * turn, because special tokens are looked for only in what the template itself has written.
 *
 * Threads: immutable after creation; any number of threads may encode at once.
 * Memory:  chat_create() copies what it needs.
 * Limits:  CHAT_MESSAGES_MAX messages; the total length is bounded by the tokenizer's. */
#ifndef MODEL_CHAT_H
#define MODEL_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct gguf;
struct json_value;
struct tokenizer;
struct chat; /* opaque */

enum { CHAT_MESSAGES_MAX = 4096 };

struct chat_message {
    const char *role; /* "system", "user", "assistant", "tool" */
    size_t role_len;
    const char *content; /* NULL: an assistant who only called */
    size_t content_len;
    const char *tool_call_id; /* NULL, or in a "tool" message: which call this answers */
    size_t tool_call_id_len;
    const struct json_value *tool_calls; /* NULL, or the calls of an assistant, as in the API but
                                          * that "arguments" may be an object */
};

/* A conversation, and what a template may say around it. All is borrowed. */
struct chat_talk {
    const struct chat_message *messages;
    size_t messages_count;
    bool generate;       /* up to and including the opening of an answer */
    const char *opening; /* with `generate`: what the answer begins with already; NULL: nothing */
    const struct json_value *tools;     /* as in the API; NULL: none */
    const struct json_value *variables; /* more variables for the template, an object; or NULL */
    int64_t now_s;                      /* since 1970, UTC: templates ask for the date */
};

/* How a family's models write that they call a tool. */
enum chat_tools {
    CHAT_TOOLS_NONE,    /* the template says nothing of tools */
    CHAT_TOOLS_HERMES,  /* <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>, repeated */
    CHAT_TOOLS_LLAMA3,  /* {"name": ..., "parameters": {...}} is the whole answer */
    CHAT_TOOLS_MISTRAL, /* [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] */
};

/* `name` is the value of --chat-template: NULL or "auto" is the file's own template; the name of a
 * family ("chatml", "llama2", "llama3", "mistral", "gemma", "phi", "zephyr") is that family's
 * plain form; "none" puts nothing around the messages: their contents, joined by newlines; anything
 * else is a file with a template, read through `env` (which may be NULL otherwise).
 * STATUS_UNSUPPORTED if the template is not understood or there is none, STATUS_INVALID if there is
 * no such name and no such file, or for a vocabulary without the tokens that the family needs. The
 * tokenizer must outlive the chat. */
MUST_USE enum status chat_create(struct env *env, const struct gguf *gguf,
                                 const struct tokenizer *tokenizer, const char *name,
                                 struct chat **out, struct errmsg *err);
void chat_destroy(struct chat *chat); /* NULL is allowed */

/* The family whose marks the template has: "chatml", "llama3", ..., "none"; "other" if it is
 * understood and no family's. */
const char *chat_name(const struct chat *chat);
enum chat_tools chat_tools(const struct chat *chat);

/* What stands before a call. */
const char *chat_tools_opening(enum chat_tools tools);

/* The tokens of the conversation, BOS included where the model wants it. *count is set on success.
 * STATUS_INVALID for an unknown role, no message or too many, or what the template refuses (err
 * says which); STATUS_FULL if tokens_max is too small; STATUS_NO_MEMORY. */
MUST_USE enum status chat_encode(const struct chat *chat, const struct chat_talk *talk,
                                 uint32_t *tokens, size_t tokens_max, size_t *count,
                                 struct errmsg *err);

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
MUST_USE enum status chat_render(const struct chat *chat, const struct chat_talk *talk,
                                 struct chat_prompt *out, struct errmsg *err);
void chat_prompt_fini(struct chat_prompt *prompt);

#endif
