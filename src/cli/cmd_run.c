/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_run.c - one process: no network, no pool. One prompt and its answer, or a conversation
 * (run_chat.h). What the cluster answers for the same prompt and sampling is the same, token for
 * token. */
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
#include "model/chat.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "model/utf8.h"
#include "serve/solo.h"

enum { PROMPT_SIZE_MAX = 16 << 20 };

struct run {
    struct cli *cli;
    struct model *model;
    struct tokenizer *tokenizer;
    struct chat *chat; /* NULL with --raw */
    struct solo *solo;
    struct utf8_stream utf8;
    struct sampling sampling;
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

static enum status encode(struct run *run, const struct buf *prompt, struct errmsg *err)
{
    const char *text = (const char *)buf_data(prompt);
    const size_t max = prompt->len + 4096;
    enum status status;

    run->tokens = calloc(max, sizeof(*run->tokens));
    if (run->tokens == NULL) return STATUS_NO_MEMORY;
    if (utf8_valid_prefix(text, prompt->len) != prompt->len)
        return errmsg_set(err, STATUS_INVALID, "the prompt is not valid UTF-8");
    if (run->chat != NULL) {
        const struct chat_message message = {
            .role = "user", .role_len = 4, .content = text, .content_len = prompt->len
        };
        const struct chat_talk talk = { &message, 1, .generate = true };
        status = chat_encode(run->chat, &talk, run->tokens, max, &run->tokens_count, err);
    } else {
        if (tokenizer_adds_bos(run->tokenizer))
            run->tokens[run->tokens_count++] = tokenizer_bos(run->tokenizer);
        status = tokenizer_encode(run->tokenizer, text, prompt->len, run->tokens, max,
                                  &run->tokens_count);
    }
    if (status == STATUS_OK && run->tokens_count == 0)
        return errmsg_set(err, STATUS_INVALID, "the prompt is empty");
    if (status == STATUS_OK && run->tokens_count >= solo_context_max(run->solo))
        return errmsg_set(err, STATUS_INVALID,
                          "the prompt has %zu tokens, and prompt and answer together may have %u",
                          run->tokens_count, solo_context_max(run->solo));
    return status;
}

static bool on_token(void *ctx, uint32_t token)
{
    struct run *run = ctx;
    char text[UTF8_STREAM_OUT_MAX(1024)];
    size_t len = 0;
    const char *bytes = tokenizer_bytes(run->tokenizer, token, &len);

    if (tokenizer_is_special(run->tokenizer, token)) return true;
    for (size_t at = 0; at < len; at += 1024) {
        const size_t part = len - at < 1024 ? len - at : 1024;
        fwrite(text, 1, utf8_stream_push(&run->utf8, bytes + at, part, text), stdout);
    }
    return fflush(stdout) == 0; /* nobody reads any more: enough */
}

static bool is_end(const void *ctx, uint32_t token)
{
    return tokenizer_is_end(ctx, token);
}

static enum status generate(struct run *run, struct errmsg *err)
{
    const struct config *config = run->cli->config;
    const struct solo_request request = {
        .tokens = run->tokens,
        .tokens_count = (uint32_t)run->tokens_count,
        .max_tokens = (uint32_t)config_u64(config, "max-tokens"),
        .sampling = run->sampling,
        .on_token = on_token,
        .is_end = config_bool(config, "ignore-eos") ? NULL : is_end,
        .is_end_ctx = run->tokenizer,
        .ctx = run,
    };
    enum solo_end end;
    char text[3];

    enum status status = solo_generate(run->solo, &request, &end);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "the engine said %s", status_name(status));
    fwrite(text, 1, utf8_stream_finish(&run->utf8, text), stdout);
    putchar('\n');
    return STATUS_OK;
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
    if (status == STATUS_OK) status = solo_create(run->model, &options, &run->solo, err);
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

static enum status answer_prompt(struct run *run, struct errmsg *err)
{
    struct buf prompt;

    buf_init(&prompt, PROMPT_SIZE_MAX);
    enum status status = read_prompt(run->cli->config, &prompt, err);
    if (status == STATUS_OK) status = encode(run, &prompt, err);
    if (status == STATUS_OK) status = generate(run, err);
    buf_fini(&prompt);
    return status;
}

static int converse(struct run *run)
{
    const struct config *config = run->cli->config;
    const struct run_chat_options options = {
        .tokenizer = run->tokenizer,
        .chat = run->chat,
        .solo = run->solo,
        .sampling = run->sampling,
        .max_tokens = (uint32_t)config_u64(config, "max-tokens"),
        .ignore_eos = config_bool(config, "ignore-eos"),
    };
    return run_chat(&options);
}

int cmd_run(struct cli *cli)
{
    struct run run = { .cli = cli, .sampling = { .seed = config_u64(cli->config, "seed") } };
    struct errmsg err = { "out of memory" };
    char path[CLI_PATH_SIZE];
    const bool chat = wants_chat(cli->config);
    int code = CLI_EXIT_OK;

    utf8_stream_init(&run.utf8);
    enum status status = check_chat(cli->config, &err);
    if (status == STATUS_OK)
        status = read_decimal(cli->config, "temperature", 0, 2, &run.sampling.temperature, &err);
    if (status == STATUS_OK)
        status = read_decimal(cli->config, "top-p", 1e-6, 1, &run.sampling.top_p, &err);
    if (status == STATUS_OK) /* Ctrl-C ends it, if it is fetched */
        status = cli_model_path(cli->env, config_position(cli->config, 0), path, &err);
    if (chat) env_hold_interrupts();
    if (status == STATUS_OK) status = open_all(&run, path, &err);
    if (status == STATUS_OK && chat) code = converse(&run);
    if (status == STATUS_OK && !chat) status = answer_prompt(&run, &err);
    free(run.tokens);
    solo_destroy(run.solo);
    chat_destroy(run.chat);
    tokenizer_destroy(run.tokenizer);
    model_destroy(run.model);
    return status == STATUS_OK ? code : cli_refuse("%s", err.text);
}
