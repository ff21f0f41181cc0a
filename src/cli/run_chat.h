/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_chat.h - a conversation in the terminal: `yolk run MODEL`. Who answers it, this process
 * (run_local.h) or a gateway (run_remote.h), is the caller's choice. */
#ifndef CLI_RUN_CHAT_H
#define CLI_RUN_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct chat_message;

/* Takes a piece of an answer, whole characters. False: enough, stop; also asked without a piece. */
typedef bool (*run_show_fn)(void *ctx, const char *text, size_t len);

/* Answers a conversation, piece by piece. STATUS_OK also if it was stopped; err says in one line
 * why not. */
typedef enum status (*run_answer_fn)(void *ctx, const struct chat_message *messages, size_t count,
                                     run_show_fn show, void *show_ctx, struct errmsg *err);

/* Reads standard input line by line, each a turn, and answers on standard output, until it ends or
 * says /exit. Returns the exit code. env_hold_interrupts() has been called before threads were
 * started. */
int run_chat(run_answer_fn answer, void *ctx);

#endif
