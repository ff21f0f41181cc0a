/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_run.c - one prompt and its answer, or a conversation (run_chat.h): of this process,
 * without network and pool (run_local.h), or of the gateway that --url names (run_remote.h). What a
 * cluster answers for the same prompt and sampling is the same, token for token. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env_real.h"
#include "cli/cli.h"
#include "cli/run_chat.h"
#include "cli/run_local.h"
#include "cli/run_remote.h"
#include "model/chat.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "base/utf8.h"
#include "serve/solo.h"

enum { PROMPT_SIZE_MAX = 16 << 20 };

struct run {
    struct cli *cli;
    struct model *model;
    struct tokenizer *tokenizer;
    struct chat *chat; /* NULL with --raw */
    struct run_local local;
    uint32_t *tokens;
    size_t tokens_count;
};

static enum status read_decimal(const struct config *config, const char *name, double min,
                                double max, float *out, struct errmsg *err)
{
    const char *text = config_text(config, name);
    char *end = NULL;

    errno = 0;
    const double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !(value >= min && value <= max))
        return errmsg_set(err, STATUS_INVALID, "--%s: `%s` is not a number from %g to %g", name,
                          text, min, max);
    *out = (float)value;
    return STATUS_OK;
}

static enum status read_prompt(const struct config *config, struct buf *out, struct errmsg *err)
{
    char chunk[4096];
    size_t n;

    if (config_positions(config) > 1) return buf_append_text(out, config_position(config, 1));
    while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        if (buf_append(out, chunk, n) != STATUS_OK)
            return errmsg_set(err, STATUS_FULL, "the prompt has more than %d bytes",
                              PROMPT_SIZE_MAX);
    }
    if (ferror(stdin)) return errmsg_set(err, STATUS_IO, "standard input: %s", strerror(errno));
    return STATUS_OK;
}

static enum status take_prompt(const struct config *config, struct buf *out, struct errmsg *err)
{
    const enum status status = read_prompt(config, out, err);

    if (status != STATUS_OK) return status;
    if (utf8_valid_prefix((const char *)buf_data(out), out->len) == out->len) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "the prompt is not valid UTF-8");
}

static struct chat_message said_by_user(const struct buf *prompt)
{
    return (struct chat_message){ .role = "user",
                                  .role_len = 4,
                                  .content = (const char *)buf_data(prompt),
                                  .content_len = prompt->len };
}

/* False: nobody reads any more. */
static bool show(void *ctx, const char *text, size_t len)
{
    (void)ctx;
    fwrite(text, 1, len, stdout);
    return fflush(stdout) == 0;
}

static enum status encode(struct run *run, const struct buf *prompt, struct errmsg *err)
{
    const char *text = (const char *)buf_data(prompt);
    const size_t max = prompt->len + 4096;
    enum status status;

    run->tokens = calloc(max, sizeof(*run->tokens));
    if (run->tokens == NULL) return STATUS_NO_MEMORY;
    if (run->chat != NULL) {
        const struct chat_message message = said_by_user(prompt);
        const struct chat_talk talk = {
            .messages = &message, .messages_count = 1, .generate = true, .now_s = run_local_now_s()
        };
        status = chat_encode(run->chat, &talk, run->tokens, max, &run->tokens_count, err);
    } else {
        if (tokenizer_adds_bos(run->tokenizer))
            run->tokens[run->tokens_count++] = tokenizer_bos(run->tokenizer);
        status = tokenizer_encode(run->tokenizer, text, prompt->len, run->tokens, max,
                                  &run->tokens_count);
    }
    if (status == STATUS_OK && run->tokens_count == 0)
        return errmsg_set(err, STATUS_INVALID, "the prompt is empty");
    if (status == STATUS_OK && run->tokens_count >= solo_context_max(run->local.solo))
        return errmsg_set(err, STATUS_INVALID,
                          "the prompt has %zu tokens, and prompt and answer together may have %u",
                          run->tokens_count, solo_context_max(run->local.solo));
    return status;
}

static enum status open_all(struct run *run, const char *path, struct errmsg *err)
{
    const struct config *config = run->cli->config;
    const struct solo_options options = {
        .threads = (uint32_t)config_u64(config, "threads"),
        .block_tokens = (uint32_t)config_u64(config, "block-tokens"),
        .context_max = (uint32_t)config_u64(config, "max-model-len"),
        .isa = (enum engine_isa)config_choice(config, "isa"),
        .kv = (enum engine_kv)config_choice(config, "kv-type"),
    };

    enum status status = model_open(run->cli->env, path, &run->model, err);
    if (status == STATUS_OK)
        status = tokenizer_create(model_gguf(run->model), &run->tokenizer, err);
    if (status == STATUS_OK && !config_bool(config, "raw"))
        status = chat_create(run->cli->env, model_gguf(run->model), run->tokenizer,
                             config_text(config, "chat-template"), &run->chat, err);
    if (status == STATUS_OK) status = solo_create(run->model, &options, &run->local.solo, err);
    run->local.tokenizer = run->tokenizer;
    run->local.chat = run->chat;
    return status;
}

/* A conversation: asked for, or without a prompt in a terminal. */
static bool wants_chat(const struct config *config)
{
    if (config_bool(config, "chat")) return true;
    return config_positions(config) < 2 && !config_bool(config, "raw") && isatty(STDIN_FILENO);
}

static enum status check_chat(const struct config *config, struct errmsg *err)
{
    if (!config_bool(config, "chat")) return STATUS_OK;
    if (config_bool(config, "raw"))
        return errmsg_set(err, STATUS_INVALID, "--chat and --raw exclude each other");
    if (config_positions(config) > 1)
        return errmsg_set(err, STATUS_INVALID, "--chat takes no PROMPT: it reads standard input");
    return STATUS_OK;
}

/* ---- this process ---- */

static enum status answer_prompt(struct run *run, struct errmsg *err)
{
    struct buf prompt;

    buf_init(&prompt, PROMPT_SIZE_MAX);
    enum status status = take_prompt(run->cli->config, &prompt, err);
    if (status == STATUS_OK) status = encode(run, &prompt, err);
    if (status == STATUS_OK)
        status = run_local_continue(&run->local, run->tokens, (uint32_t)run->tokens_count, false,
                                    show, NULL, err);
    if (status == STATUS_OK) putchar('\n');
    buf_fini(&prompt);
    return status;
}

static int run_here(struct cli *cli, const struct run_local *options)
{
    struct run run = { .cli = cli, .local = *options };
    struct errmsg err = { "out of memory" };
    const bool chat = wants_chat(cli->config);
    char path[CLI_PATH_SIZE];
    int code = CLI_EXIT_OK;

    /* Ctrl-C ends it while it is fetched. */
    enum status status = cli_model_path(cli->env, config_position(cli->config, 0), path, &err);
    if (chat) env_hold_interrupts();
    if (status == STATUS_OK) status = open_all(&run, path, &err);
    if (status == STATUS_OK && chat) code = run_chat(run_local_answer, &run.local);
    if (status == STATUS_OK && !chat) status = answer_prompt(&run, &err);
    free(run.tokens);
    solo_destroy(run.local.solo);
    chat_destroy(run.chat);
    tokenizer_destroy(run.tokenizer);
    model_destroy(run.model);
    return status == STATUS_OK ? code : cli_refuse("%s", err.text);
}

/* ---- a gateway ---- */

static enum status ask_prompt(struct cli *cli, struct run_remote *run, struct errmsg *err)
{
    struct buf prompt;

    buf_init(&prompt, PROMPT_SIZE_MAX);
    enum status status = take_prompt(cli->config, &prompt, err);
    if (status == STATUS_OK && config_bool(cli->config, "raw")) {
        status =
            run_remote_continue(run, (const char *)buf_data(&prompt), prompt.len, show, NULL, err);
    } else if (status == STATUS_OK) {
        const struct chat_message message = said_by_user(&prompt);
        status = run_remote_answer(run, &message, 1, show, NULL, err);
    }
    if (status == STATUS_OK) putchar('\n');
    buf_fini(&prompt);
    return status;
}

static int run_elsewhere(struct cli *cli, const struct run_local *options)
{
    struct run_remote run = { .model = config_position(cli->config, 0),
                              .temperature = options->sampling.temperature,
                              .top_p = options->sampling.top_p,
                              .seed = options->sampling.seed,
                              .max_tokens = options->max_tokens,
                              .ignore_eos = options->ignore_eos };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (utf8_valid_prefix(run.model, strlen(run.model)) != strlen(run.model))
        return cli_refuse("the model's name is not valid UTF-8");
    enum status status = remote_open(cli, &run.remote, &err);
    if (status != STATUS_OK) return cli_refuse("%s", err.text);
    if (wants_chat(cli->config)) {
        env_hold_interrupts();
        code = run_chat(run_remote_answer, &run);
    } else {
        status = ask_prompt(cli, &run, &err);
    }
    remote_close(&run.remote);
    return status == STATUS_OK ? code : cli_refuse("%s", err.text);
}

int cmd_run(struct cli *cli)
{
    const struct config *config = cli->config;
    struct run_local options = { .sampling = { .seed = config_u64(config, "seed") },
                                 .max_tokens = (uint32_t)config_u64(config, "max-tokens"),
                                 .ignore_eos = config_bool(config, "ignore-eos") };
    struct errmsg err = { "" };

    enum status status = check_chat(config, &err);
    if (status == STATUS_OK)
        status = read_decimal(config, "temperature", 0, 2, &options.sampling.temperature, &err);
    if (status == STATUS_OK)
        status = read_decimal(config, "top-p", 1e-6, 1, &options.sampling.top_p, &err);
    if (status != STATUS_OK) return cli_refuse("%s", err.text);
    return config_is_set(config, "url") ? run_elsewhere(cli, &options) : run_here(cli, &options);
}
