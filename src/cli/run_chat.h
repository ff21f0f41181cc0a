/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_chat.h - a conversation in the terminal: `yolk run MODEL`. */
#ifndef CLI_RUN_CHAT_H
#define CLI_RUN_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "infer/sampler.h"

struct chat;
struct solo;
struct tokenizer;

struct run_chat_options {
    const struct tokenizer *tokenizer;
    const struct chat *chat;
    struct solo *solo;
    struct sampling sampling;
    uint32_t max_tokens; /* of an answer */
    bool ignore_eos;
};

/* Reads standard input line by line, each a turn, and answers on standard output, until it ends or
 * says /exit. Returns the exit code. env_hold_interrupts() has been called before threads were
 * started. */
int run_chat(const struct run_chat_options *options);

#endif
