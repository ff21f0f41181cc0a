/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_chat.c - see run_chat.h.
 *
 * The whole conversation goes to the model each time; what of it has been computed for the turn
 * before is not computed again (solo.h), as a cluster would find it in its cache.
 *
 *   a line   a turn                     /reset   forgets the conversation
 *   Ctrl-C   stops an answer            /exit    leaves, as the end of the input does
 *
 * What an answer had said when it was stopped stays in the conversation. A turn that does not fit
 * the context is not taken. In a pipe there are no prompts: an answer and a newline for each line.
 *
 * Ctrl-C is asked for after each token, and ends the wait for a line. */
#include "cli/run_chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env_real.h"
#include "cli/cli.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "model/utf8.h"
#include "serve/solo.h"

enum { ANSWER_SIZE_MAX = 16 << 20, PIECE_SIZE = 1024 };

struct conversation {
    const struct run_chat_options *options;
    bool terminal; /* somebody sits there */
    struct chat_message messages[CHAT_MESSAGES_MAX];
    size_t count;
    uint32_t *tokens; /* of the prompt: as many as the context has */
    struct utf8_stream utf8;
    struct buf answer;
    bool enough; /* the answer is as long as it may be */
};

/* ---- the conversation ---- */

static void forget(struct conversation *c, size_t from)
{
    while (c->count > from)
        free((char *)(uintptr_t)c->messages[--c->count].content);
}

/* False: there is no room for more. */
static bool add(struct conversation *c, const char *role, const char *text, size_t len)
{
    char *copy = c->count < CHAT_MESSAGES_MAX ? malloc(len + 1) : NULL;

    if (copy == NULL) return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    c->messages[c->count++] = (struct chat_message){
        .role = role, .role_len = strlen(role), .content = copy, .content_len = len
    };
    return true;
}

/* ---- an answer ---- */

static void show(struct conversation *c, const char *text, size_t len)
{
    fwrite(text, 1, len, stdout);
    if (buf_append(&c->answer, text, len) != STATUS_OK) c->enough = true;
}

static bool on_token(void *ctx, uint32_t token)
{
    struct conversation *c = ctx;
    const struct tokenizer *tokenizer = c->options->tokenizer;
    char text[UTF8_STREAM_OUT_MAX(PIECE_SIZE)];
    size_t len = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &len);

    for (size_t at = 0; at < len && !tokenizer_is_special(tokenizer, token); at += PIECE_SIZE) {
        const size_t part = len - at < PIECE_SIZE ? len - at : PIECE_SIZE;
        show(c, text, utf8_stream_push(&c->utf8, bytes + at, part, text));
    }
    return fflush(stdout) == 0 && !c->enough && !(c->terminal && env_interrupted());
}

static bool is_end(const void *ctx, uint32_t token)
{
    return tokenizer_is_end(ctx, token);
}

static enum status answer(struct conversation *c, struct errmsg *err)
{
    const struct run_chat_options *options = c->options;
    const struct chat_talk talk = { .messages = c->messages,
                                    .messages_count = c->count,
                                    .generate = true };
    struct solo_request request = {
        .tokens = c->tokens,
        .max_tokens = options->max_tokens,
        .sampling = options->sampling,
        .keep = true,
        .on_token = on_token,
        .is_end = options->ignore_eos ? NULL : is_end,
        .is_end_ctx = options->tokenizer,
        .ctx = c,
    };
    const uint32_t context = solo_context_max(options->solo);
    size_t count = 0;
    enum solo_end end;
    char rest[3];

    enum status status = chat_encode(options->chat, &talk, c->tokens, context, &count, err);
    if (status == STATUS_FULL || (status == STATUS_OK && count >= context)) {
        return errmsg_set(err, STATUS_FULL,
                          "the conversation is longer than the context of %u tokens; /reset starts "
                          "a new one",
                          context);
    }
    if (status != STATUS_OK) return status;
    request.tokens_count = (uint32_t)count;
    buf_clear(&c->answer);
    utf8_stream_init(&c->utf8);
    c->enough = false;
    status = solo_generate(options->solo, &request, &end);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "the engine said %s", status_name(status));
    show(c, rest, utf8_stream_finish(&c->utf8, rest));
    putchar('\n');
    if (c->terminal) putchar('\n');
    fflush(stdout);
    return STATUS_OK;
}

/* One turn; it is taken back if it cannot be answered. False: nothing can be, any more. */
static bool turn(struct conversation *c, const char *line, size_t len)
{
    const size_t before = c->count;
    struct errmsg err = { "the conversation is too long; /reset starts a new one" };

    if (utf8_valid_prefix(line, len) != len) {
        (void)cli_refuse("this line is not valid UTF-8");
        return true;
    }
    if (add(c, "user", line, len) && answer(c, &err) == STATUS_OK &&
        add(c, "assistant", (const char *)buf_data(&c->answer), c->answer.len))
        return true;
    forget(c, before);
    (void)cli_refuse("%s", err.text);
    return c->terminal;
}

/* ---- the input ---- */

/* The next line without its end; -1: there is none. */
static ssize_t read_line(struct conversation *c, char **line, size_t *room)
{
    for (;;) {
        if (c->terminal) {
            fputs(">>> ", stdout);
            fflush(stdout);
        }
        if (c->terminal && !env_wait_readable(STDIN_FILENO)) {
            fputs("\n(/exit or Ctrl-D leaves)\n", stdout);
            continue;
        }
        ssize_t len = getline(line, room, stdin);
        while (len > 0 && ((*line)[len - 1] == '\n' || (*line)[len - 1] == '\r'))
            len--;
        return len;
    }
}

static bool is_command(const char *line, size_t len, const char *command)
{
    return len == strlen(command) && memcmp(line, command, len) == 0;
}

static int talk_on(struct conversation *c)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    int code = CLI_EXIT_OK;

    while (code == CLI_EXIT_OK && (len = read_line(c, &line, &room)) >= 0) {
        const size_t n = (size_t)len;
        if (is_command(line, n, "/exit")) break;
        if (is_command(line, n, "/reset")) {
            forget(c, 0);
        } else if (n > 0 && !turn(c, line, n)) {
            code = CLI_EXIT_FAILED;
        }
    }
    free(line);
    return code;
}

int run_chat(const struct run_chat_options *options)
{
    struct conversation *c = calloc(1, sizeof(*c));
    uint32_t *tokens = calloc(solo_context_max(options->solo), sizeof(*tokens));
    int code = CLI_EXIT_FAILED;

    if (c != NULL && tokens != NULL) {
        c->options = options;
        c->tokens = tokens;
        c->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
        buf_init(&c->answer, ANSWER_SIZE_MAX);
        if (!c->terminal) env_release_interrupts();
        if (c->terminal)
            puts("Ctrl-C stops an answer, /reset forgets the conversation, /exit leaves.\n");
        code = talk_on(c);
        forget(c, 0);
        buf_fini(&c->answer);
    } else {
        code = cli_refuse("out of memory");
    }
    free(tokens);
    free(c);
    return code;
}
