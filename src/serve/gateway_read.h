/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_read.h - the body of a request for answers, read: what is asked for, checked, and
 * its prompts as tokens and keys of blocks. All that takes long for a long body, and nothing that
 * needs the loop.
 *
 * Memory:  what a prompt holds is whoever's takes it; the rest ends with gateway_read_fini().
 * Threads: gateway_read() may run on any thread. It writes nothing but its reading, and reads
 *          nothing of the gateway but what never changes.
 * Limits:  those of api_parse(); context_max tokens a prompt. */
#ifndef SERVE_GATEWAY_READ_H
#define SERVE_GATEWAY_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "serve/api.h"

struct gateway;

/* Blocks there can be in so many tokens, of 16 or more each. */
static inline uint32_t read_keys_max(uint32_t tokens)
{
    return tokens / 16 + 1;
}

struct read_prompt {
    uint32_t *tokens; /* room for `max` */
    uint32_t count;
    uint32_t max;           /* of prompt and answer together: the context, or less, as asked for */
    struct block_key *keys; /* room for read_keys_max(max) */
    uint32_t keys_count;    /* of its full blocks */
    struct block_key key_root; /* that they were made from */
};

struct reading {
    /* Set before. */
    const struct gateway *gateway;
    enum api_kind kind;
    const char *body; /* borrowed until it is read */
    size_t len;
    uint32_t context_max;
    int64_t now_s;         /* since 1970: what templates are told */
    const char *tenant;    /* of an API key; "": of none. For salts */
    bool salted;           /* also without a `cache_salt` */
    struct block_key root; /* of keys, for blocks of so many tokens; 0: not known yet, and */
    uint32_t block_tokens; /* keys are not made */

    /* What it makes. */
    enum status status; /* STATUS_INVALID: `error` says why, and there is nothing else */
    struct api_error error;
    struct api_request api;
    struct block_key salt;       /* if it is `salted` */
    struct read_prompt *prompts; /* of a chat one, of a completion api.prompts_count */
    uint32_t prompts_count;
};

void gateway_read(struct reading *reading);
void gateway_read_fini(struct reading *reading); /* all zero is allowed */

#endif
