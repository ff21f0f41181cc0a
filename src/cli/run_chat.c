/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_chat.c - see run_chat.h.
 *
 * The whole conversation is asked each time; what of it has been computed for the turn before is
 * not computed again (solo.h), as a cluster finds it in its cache.
 *
 *   a line   a turn                     /reset   forgets the conversation
 *   Ctrl-C   stops an answer            /exit    leaves, as the end of the input does
 *
 * What an answer had said when it was stopped stays in the conversation. A turn that does not fit
 * the context is not taken. In a pipe there are no prompts: an answer and a newline for each line.
 *
 * Ctrl-C is asked for after each piece, and ends the wait for a line. */
#include "cli/run_chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env_real.h"
#include "cli/cli.h"
#include "model/chat.h"
#include "base/utf8.h"

enum { ANSWER_SIZE_MAX = 16 << 20 };

struct conversation {
    run_answer_fn answer;
    void *ctx;     /* of it */
    bool terminal; /* somebody sits there */
    struct chat_message messages[CHAT_MESSAGES_MAX];
    size_t count;
    struct buf said; /* of the answer */
    bool enough;     /* the answer is as long as it may be */
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

static bool show(void *ctx, const char *text, size_t len)
{
    struct conversation *c = ctx;

    fwrite(text, 1, len, stdout);
    if (buf_append(&c->said, text, len) != STATUS_OK) c->enough = true;
    return fflush(stdout) == 0 && !c->enough && !(c->terminal && env_interrupted());
}

static enum status answer(struct conversation *c, struct errmsg *err)
{
    buf_clear(&c->said);
    c->enough = false;
    const enum status status = c->answer(c->ctx, c->messages, c->count, show, c, err);
    if (status != STATUS_OK) return status;
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
        add(c, "assistant", (const char *)buf_data(&c->said), c->said.len))
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

int run_chat(run_answer_fn answer_fn, void *ctx)
{
    struct conversation *c = calloc(1, sizeof(*c));

    if (c == NULL) return cli_refuse("out of memory");
    c->answer = answer_fn;
    c->ctx = ctx;
    c->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    buf_init(&c->said, ANSWER_SIZE_MAX);
    if (!c->terminal) env_release_interrupts();
    if (c->terminal)
        puts("Ctrl-C stops an answer, /reset forgets the conversation, /exit leaves.\n");
    const int code = talk_on(c);
    forget(c, 0);
    buf_fini(&c->said);
    free(c);
    return code;
}
