/* SPDX-License-Identifier: Apache-2.0
 *
 * model/chat.c - which template, and what of its output is a token.
 *
 * The families below are known for three things: the plain form that --chat-template NAME stands
 * for, the special tokens it needs, and the marks by which a file's own template is told to be of
 * the family. The last is for people and for tools (how calls are written); what is rendered is
 * always the template itself, so a variant of a family is rendered as that variant.
 *
 * The output of a template is cut where the template, not a message, has written a special token's
 * text; between those, text of template and messages is tokenised together. A prompt of a model
 * that wants BOS starts with it once, whether or not the template has written it. */
#include "model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/json.h"
#include "model/gguf.h"
#include "model/template.h"
#include "model/tokenizer.h"

enum { TOKENS_NEEDED_MAX = 4, PIECES_MAX = 1 << 20 };

/* ---- families ---- */

/* "A conversation starts with what the system says" for models that know no such role: it goes in
 * front of the first user's words. */
#define LEAD                                                                                       \
    "{% set lead = '' %}{% set rest = messages %}"                                                 \
    "{% if messages[0].role == 'system' %}"                                                        \
    "{% set lead = messages[0].content %}{% set rest = messages[1:] %}{% endif %}"

#define CHATML                                                                                     \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\\n' }}"        \
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"

#define LLAMA2                                                                                     \
    LEAD "{% if lead %}{% set lead = '<<SYS>>\\n' ~ lead ~ '\\n<</SYS>>\\n\\n' %}{% endif %}"      \
         "{% for m in rest %}{% if m.role == 'assistant' %}"                                       \
         "{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{% else %}"                                \
         "{{ bos_token ~ '[INST] ' ~ (lead if loop.first else '') ~ m.content | trim }} [/INST]"   \
         "{% endif %}{% endfor %}"

#define LLAMA3                                                                                     \
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"       \
    "{{ '\\n\\n' ~ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"        \
    "<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}{% endif %}"

#define MISTRAL                                                                                    \
    LEAD "{{ bos_token }}{% for m in rest %}{% if m.role == 'assistant' %}"                        \
         "{{ ' ' ~ m.content | trim ~ eos_token }}{% else %}"                                      \
         "[INST] {{ lead ~ '\\n\\n' if lead and loop.first }}{{ m.content }} [/INST]"              \
         "{% endif %}{% endfor %}"

#define GEMMA                                                                                      \
    LEAD "{{ bos_token }}{% for m in rest %}<start_of_turn>"                                       \
         "{{ 'model' if m.role == 'assistant' else m.role }}\n"                                    \
         "{{ lead ~ '\\n\\n' if lead and loop.first }}{{ m.content | trim }}<end_of_turn>"         \
         "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model{{ '\\n' }}"    \
         "{% endif %}"

#define PHI                                                                                        \
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>{{ '\\n' }}{% endfor %}"       \
    "{% if add_generation_prompt %}<|assistant|>{{ '\\n' }}{% endif %}"

#define ZEPHYR                                                                                     \
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content ~ eos_token ~ '\\n' }}{% endfor %}"     \
    "{% if add_generation_prompt %}<|assistant|>{{ '\\n' }}{% endif %}"

#define NOTHING "{% for m in messages %}{{ '\\n' if not loop.first }}{{ m.content }}{% endfor %}"

struct family {
    const char *name;
    const char *text;
    const char *tokens[TOKENS_NEEDED_MAX]; /* special, and needed by the plain form */
    const char *marks[2];                  /* both are in a template of this family */
};

/* Marks are tried in this order. */
static const struct family FAMILIES[] = {
    { "chatml", CHATML, { "<|im_start|>", "<|im_end|>" }, { "<|im_start|>", "<|im_end|>" } },
    { "llama3",
      LLAMA3,
      { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
      { "<|start_header_id|>", "<|eot_id|>" } },
    { "gemma",
      GEMMA,
      { "<start_of_turn>", "<end_of_turn>" },
      { "<start_of_turn>", "<end_of_turn>" } },
    { "llama2", LLAMA2, { NULL }, { "[INST]", "<<SYS>>" } },
    { "mistral", MISTRAL, { NULL }, { "[INST]", "[/INST]" } },
    { "phi", PHI, { "<|assistant|>", "<|end|>" }, { "<|assistant|>", "<|end|>" } },
    { "zephyr", ZEPHYR, { NULL }, { "<|assistant|>", "eos_token" } },
    { "none", NOTHING, { NULL }, { NULL } },
};
enum { FAMILIES_COUNT = sizeof(FAMILIES) / sizeof(FAMILIES[0]) };

static const struct family OTHER = { .name = "other" };

struct special {
    const char *text; /* the tokenizer's */
    size_t len;
    uint32_t token;
};

struct chat {
    const struct family *family;
    enum chat_tools tools;
    struct template *template;
    const struct tokenizer *tokenizer;
    struct special *specials; /* by their bytes */
    size_t specials_count;
};

static const struct family *family_named(const char *name)
{
    for (size_t i = 0; i < FAMILIES_COUNT; i++) {
        if (strcmp(FAMILIES[i].name, name) == 0) return &FAMILIES[i];
    }
    return NULL;
}

static bool has(const char *text, size_t len, const char *mark)
{
    return memmem(text, len, mark, strlen(mark)) != NULL;
}

static const struct family *family_of(const char *text, size_t len)
{
    for (size_t i = 0; i < FAMILIES_COUNT; i++) {
        const struct family *family = &FAMILIES[i];
        if (family->marks[0] == NULL) continue;
        if (has(text, len, family->marks[0]) && has(text, len, family->marks[1])) return family;
    }
    return &OTHER;
}

static enum chat_tools tools_of(const char *text, size_t len)
{
    if (!has(text, len, "tools")) return CHAT_TOOLS_NONE;
    if (has(text, len, "<tool_call>")) return CHAT_TOOLS_HERMES;
    if (has(text, len, "[TOOL_CALLS]")) return CHAT_TOOLS_MISTRAL;
    if (has(text, len, "<|start_header_id|>") && has(text, len, "\"parameters\""))
        return CHAT_TOOLS_LLAMA3;
    return CHAT_TOOLS_NONE;
}

/* ---- special tokens ---- */

static int compare_specials(const void *a, const void *b)
{
    const struct special *x = a, *y = b;
    const size_t len = x->len < y->len ? x->len : y->len;
    const int order = memcmp(x->text, y->text, len);

    if (order != 0) return order;
    return x->len < y->len ? -1 : x->len > y->len;
}

static bool collect_specials(struct chat *chat)
{
    const uint32_t vocab = tokenizer_vocab(chat->tokenizer);
    size_t count = 0;

    for (uint32_t i = 0; i < vocab; i++)
        count += tokenizer_is_special(chat->tokenizer, i);
    chat->specials = calloc(count + 1, sizeof(*chat->specials));
    if (chat->specials == NULL) return false;
    for (uint32_t i = 0; i < vocab; i++) {
        struct special special = { .token = i };
        if (!tokenizer_is_special(chat->tokenizer, i)) continue;
        special.text = tokenizer_bytes(chat->tokenizer, i, &special.len);
        if (special.len > 0) chat->specials[chat->specials_count++] = special;
    }
    qsort(chat->specials, chat->specials_count, sizeof(*chat->specials), compare_specials);
    return true;
}

/* First of specials[from..to) whose byte `at` is not below `byte`; all have more bytes than `at`,
 * and are equal before it. */
static size_t lower_bound(const struct chat *chat, size_t from, size_t to, size_t at, unsigned byte)
{
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if ((unsigned char)chat->specials[middle].text[at] < byte)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* The longest special token that text[0..len) starts with, or NULL. */
static const struct special *match_special(const struct chat *chat, const char *text, size_t len)
{
    const struct special *longest = NULL;
    size_t from = 0, to = chat->specials_count;

    for (size_t at = 0; at < len && from < to; at++) {
        const unsigned byte = (unsigned char)text[at];
        from = lower_bound(chat, from, to, at, byte);
        to = lower_bound(chat, from, to, at, byte + 1);
        if (from == to || chat->specials[from].len != at + 1) continue;
        longest = &chat->specials[from++]; /* those that go on are behind it */
    }
    return longest;
}

/* ---- creation ---- */

static enum status parse(struct chat *chat, const char *text, size_t len, struct errmsg *err)
{
    chat->family = family_of(text, len);
    chat->tools = tools_of(text, len);
    return template_parse(text, len, &chat->template, err);
}

/* What must at least work: one user asks. */
static enum status try_out(const struct chat *chat, struct errmsg *err)
{
    const struct chat_message message = {
        .role = "user", .role_len = 4, .content = "x", .content_len = 1
    };
    const struct chat_talk talk = { .messages = &message, .messages_count = 1, .generate = true };
    struct chat_prompt prompt;

    const enum status status = chat_render(chat, &talk, &prompt, err);
    if (status == STATUS_OK) chat_prompt_fini(&prompt);
    return status;
}

static enum status not_understood(enum status status, struct gguf_string text, struct errmsg *err)
{
    const struct errmsg why = *err;

    if (status == STATUS_NO_MEMORY) return status;
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "the model's chat template \"%.24s...\" is not understood (%.120s); choose "
                      "one with --chat-template chatml (or another family, a file, none)",
                      gguf_show(text).text, why.text);
}

static enum status from_model(struct chat *chat, const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_string text;
    struct errmsg why = { "" };

    enum status status = gguf_get_string(gguf, "tokenizer.chat_template", &text, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "the model has no chat template; choose one with --chat-template chatml "
                          "(or another family, a file, none)");
    }
    if (status != STATUS_OK) return status;
    status = parse(chat, text.data, text.len, &why);
    if (status == STATUS_OK) status = try_out(chat, &why);
    if (status == STATUS_OK) return STATUS_OK;
    if (err != NULL) *err = why;
    return err != NULL ? not_understood(status, text, err) : STATUS_UNSUPPORTED;
}

static enum status from_family(struct chat *chat, const struct family *family, struct errmsg *err)
{
    for (size_t i = 0; i < TOKENS_NEEDED_MAX && family->tokens[i] != NULL; i++) {
        if (tokenizer_find_special(chat->tokenizer, family->tokens[i]) != TOKENIZER_NONE) continue;
        return errmsg_set(err, STATUS_INVALID,
                          "the vocabulary has no special token %s, which --chat-template %s needs",
                          family->tokens[i], family->name);
    }
    const enum status status = parse(chat, family->text, strlen(family->text), err);
    ASSERT(status == STATUS_OK || status == STATUS_NO_MEMORY);
    chat->family = family;
    return status;
}

static enum status from_file(struct chat *chat, struct env *env, const char *path,
                             struct errmsg *err)
{
    struct errmsg why = { "" };
    char *text = NULL;
    size_t len = 0;

    if (env == NULL ||
        env_file_read_all(env, path, TEMPLATE_SIZE_MAX, &text, &len, &why) != STATUS_OK) {
        return errmsg_set(err, STATUS_INVALID,
                          "--chat-template: \"%.60s\" is neither auto, chatml, llama2, llama3, "
                          "mistral, gemma, phi, zephyr, none, nor a file (%.60s)",
                          path, why.text);
    }
    enum status status = parse(chat, text, len, &why);
    free(text);
    if (status == STATUS_OK) status = try_out(chat, &why);
    if (status == STATUS_OK || status == STATUS_NO_MEMORY) return status;
    return errmsg_set(err, STATUS_UNSUPPORTED, "--chat-template %.60s: %.160s", path, why.text);
}

static enum status choose(struct chat *chat, struct env *env, const struct gguf *gguf,
                          const char *name, struct errmsg *err)
{
    if (!collect_specials(chat))
        return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the chat template");
    if (name == NULL || strcmp(name, "auto") == 0) return from_model(chat, gguf, err);
    const struct family *family = family_named(name);
    return family != NULL ? from_family(chat, family, err) : from_file(chat, env, name, err);
}

enum status chat_create(struct env *env, const struct gguf *gguf, const struct tokenizer *tokenizer,
                        const char *name, struct chat **out, struct errmsg *err)
{
    struct chat *chat = calloc(1, sizeof(*chat));

    ASSERT(tokenizer != NULL);
    if (chat == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the chat template");
    chat->tokenizer = tokenizer;
    const enum status status = choose(chat, env, gguf, name, err);
    if (status != STATUS_OK) {
        chat_destroy(chat);
        return status;
    }
    *out = chat;
    return STATUS_OK;
}

void chat_destroy(struct chat *chat)
{
    if (chat == NULL) return;
    template_destroy(chat->template);
    free(chat->specials);
    free(chat);
}

const char *chat_name(const struct chat *chat)
{
    return chat->family->name;
}

enum chat_tools chat_tools(const struct chat *chat)
{
    return chat->tools;
}

const char *chat_tools_opening(enum chat_tools tools)
{
    switch (tools) {
    case CHAT_TOOLS_HERMES: return "<tool_call>\n";
    case CHAT_TOOLS_MISTRAL: return "[TOOL_CALLS]";
    case CHAT_TOOLS_LLAMA3:
    case CHAT_TOOLS_NONE: break;
    }
    return "";
}

/* ---- rendering ---- */

static bool has_role(const struct chat_message *message, const char *role)
{
    return message->role_len == strlen(role) && memcmp(message->role, role, strlen(role)) == 0;
}

static enum status check_messages(const struct chat_message *messages, size_t count,
                                  struct errmsg *err)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };

    if (count == 0) return errmsg_set(err, STATUS_INVALID, "there are no messages");
    if (count > CHAT_MESSAGES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%zu messages, at most %d", count,
                          CHAT_MESSAGES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof(roles) / sizeof(roles[0]); k++) {
            if (has_role(&messages[i], roles[k])) known = true;
        }
        if (known) continue;
        const struct gguf_string role = { messages[i].role, messages[i].role_len };
        return errmsg_set(err, STATUS_INVALID,
                          "messages[%zu].role is \"%s\", expected system, user, assistant or tool",
                          i, gguf_show(role).text);
    }
    return STATUS_OK;
}

enum { INPUTS_OWN = 6, INPUTS_MORE = 32 };

struct inputs {
    struct template_input list[INPUTS_OWN + INPUTS_MORE];
    size_t count;
    bool full;
};

static struct template_input token_input(const struct chat *chat, const char *name, uint32_t token)
{
    struct template_input input = { .name = name, .kind = TEMPLATE_INPUT_TEXT, .text = "" };

    if (token != TOKENIZER_NONE)
        input.text = tokenizer_bytes(chat->tokenizer, token, &input.text_len);
    return input;
}

/* A request's own variables come last and win, but for what only we know. */
static bool add_variable(void *ctx, const char *name, const struct json_value *value)
{
    struct inputs *inputs = ctx;

    if (strcmp(name, "messages") == 0 || strcmp(name, "bos_token") == 0 ||
        strcmp(name, "eos_token") == 0)
        return true;
    inputs->full = inputs->count == sizeof(inputs->list) / sizeof(inputs->list[0]);
    if (inputs->full) return false;
    inputs->list[inputs->count++] = (struct template_input){
        .name = name, .kind = TEMPLATE_INPUT_JSON, .marked = true, .json = value
    };
    return true;
}

static void collect_inputs(const struct chat *chat, const struct chat_talk *talk,
                           struct inputs *out)
{
    const struct template_input own[INPUTS_OWN] = {
        token_input(chat, "bos_token", tokenizer_bos(chat->tokenizer)),
        token_input(chat, "eos_token", tokenizer_eos(chat->tokenizer)),
        { .name = "add_generation_prompt", .kind = TEMPLATE_INPUT_BOOL, .flag = talk->generate },
        { .name = "tools", .kind = TEMPLATE_INPUT_JSON, .marked = true, .json = talk->tools },
        { .name = "documents", .kind = TEMPLATE_INPUT_JSON },
        { .kind = TEMPLATE_INPUT_NOW, .now_s = talk->now_s },
    };

    *out = (struct inputs){ .count = INPUTS_OWN };
    memcpy(out->list, own, sizeof(own));
    if (talk->variables != NULL) json_value_each(talk->variables, add_variable, out);
}

static enum status run_template(const struct chat *chat, const struct chat_talk *talk,
                                struct template_output *out, struct errmsg *err)
{
    struct inputs inputs;
    struct template_message *messages = calloc(talk->messages_count, sizeof(*messages));

    if (messages == NULL) return STATUS_NO_MEMORY;
    for (size_t i = 0; i < talk->messages_count; i++) {
        const struct chat_message *from = &talk->messages[i];
        messages[i] = (struct template_message){ .role = from->role,
                                                 .role_len = from->role_len,
                                                 .content = from->content,
                                                 .content_len = from->content_len,
                                                 .tool_call_id = from->tool_call_id,
                                                 .tool_call_id_len = from->tool_call_id_len,
                                                 .tool_calls = from->tool_calls };
    }
    collect_inputs(chat, talk, &inputs);
    enum status status =
        errmsg_set(err, STATUS_INVALID, "more than %d template variables", INPUTS_MORE);
    if (!inputs.full) {
        status = template_render(chat->template, messages, talk->messages_count, inputs.list,
                                 inputs.count, out, err);
    }
    free(messages);
    return status == STATUS_FULL ? STATUS_INVALID : status; /* FULL is for tokens */
}

/* Length of the special token that the template has written at `at`, or 0. */
static size_t special_at(const struct chat *chat, const struct template_output *output, size_t at,
                         uint32_t *token)
{
    size_t end = at;

    if (output->marks[at] != 0) return 0;
    while (end < output->len && output->marks[end] == 0)
        end++;
    const struct special *special = match_special(chat, output->text + at, end - at);
    if (special == NULL) return 0;
    *token = special->token;
    return special->len;
}

static enum status add_piece(struct buf *pieces, uint32_t token, size_t offset, size_t len)
{
    const struct chat_piece piece = { token, offset, len };
    return buf_append(pieces, &piece, sizeof(piece));
}

/* Text is cut around special tokens; the pieces point into it. */
static enum status cut(const struct chat *chat, const struct template_output *output,
                       struct buf *pieces)
{
    enum status status = STATUS_OK;
    size_t start = 0;

    for (size_t at = 0; at < output->len && status == STATUS_OK;) {
        uint32_t token = TOKENIZER_NONE;
        const size_t len = special_at(chat, output, at, &token);
        if (len == 0) {
            at++;
            continue;
        }
        if (at > start) status = add_piece(pieces, TOKENIZER_NONE, start, at - start);
        if (status == STATUS_OK) status = add_piece(pieces, token, at, 0);
        start = at += len;
    }
    if (status == STATUS_OK && output->len > start)
        status = add_piece(pieces, TOKENIZER_NONE, start, output->len - start);
    return status;
}

static bool starts_with(const struct buf *pieces, uint32_t token)
{
    const struct chat_piece *first = (const struct chat_piece *)(const void *)buf_data(pieces);
    return pieces->len > 0 && first->token == token;
}

static enum status take_prompt(const struct chat *chat, struct template_output *output,
                               struct chat_prompt *out)
{
    const uint32_t bos = tokenizer_bos(chat->tokenizer);
    struct buf pieces, all;
    uint8_t *data = NULL;
    size_t len = 0;

    buf_init(&pieces, PIECES_MAX * sizeof(struct chat_piece));
    buf_init(&all, (PIECES_MAX + 1) * sizeof(struct chat_piece));
    enum status status = cut(chat, output, &pieces);
    if (status == STATUS_OK && tokenizer_adds_bos(chat->tokenizer) && !starts_with(&pieces, bos))
        status = add_piece(&all, bos, 0, 0);
    if (status == STATUS_OK) status = buf_append(&all, buf_data(&pieces), pieces.len);
    if (status == STATUS_OK) status = buf_take(&all, &data, &len);
    buf_fini(&pieces);
    buf_fini(&all);
    if (status != STATUS_OK) return status;
    *out = (struct chat_prompt){ .text = output->text,
                                 .text_len = output->len,
                                 .pieces = (struct chat_piece *)(void *)data,
                                 .pieces_count = len / sizeof(struct chat_piece) };
    output->text = NULL;
    return STATUS_OK;
}

/* As if the template had written it. */
static enum status add_opening(struct template_output *output, const char *text)
{
    const size_t len = strlen(text), all = output->len + len;
    char *grown = realloc(output->text, all);

    if (grown == NULL) return STATUS_NO_MEMORY;
    output->text = grown;
    uint8_t *marks = realloc(output->marks, all);
    if (marks == NULL) return STATUS_NO_MEMORY;
    output->marks = marks;
    memcpy(grown + output->len, text, len);
    memset(marks + output->len, 0, len);
    output->len = all;
    return STATUS_OK;
}

enum status chat_render(const struct chat *chat, const struct chat_talk *talk,
                        struct chat_prompt *out, struct errmsg *err)
{
    struct template_output output;

    enum status status = check_messages(talk->messages, talk->messages_count, err);
    if (status != STATUS_OK) return status;
    status = run_template(chat, talk, &output, err);
    if (status != STATUS_OK) return status;
    if (talk->generate && talk->opening != NULL && talk->opening[0] != '\0')
        status = add_opening(&output, talk->opening);
    if (status == STATUS_OK) status = take_prompt(chat, &output, out);
    template_output_fini(&output);
    return status;
}

void chat_prompt_fini(struct chat_prompt *prompt)
{
    free(prompt->text);
    free(prompt->pieces);
    *prompt = (struct chat_prompt){ 0 };
}

enum status chat_encode(const struct chat *chat, const struct chat_talk *talk, uint32_t *tokens,
                        size_t tokens_max, size_t *count, struct errmsg *err)
{
    struct chat_prompt prompt;
    size_t used = 0;

    enum status status = chat_render(chat, talk, &prompt, err);
    if (status != STATUS_OK) return status;
    for (size_t i = 0; i < prompt.pieces_count && status == STATUS_OK; i++) {
        const struct chat_piece *piece = &prompt.pieces[i];
        if (piece->token == TOKENIZER_NONE) {
            status = tokenizer_encode(chat->tokenizer, prompt.text + piece->offset, piece->len,
                                      tokens, tokens_max, &used);
        } else if (used == tokens_max) {
            status = STATUS_FULL;
        } else {
            tokens[used++] = piece->token;
        }
    }
    chat_prompt_fini(&prompt);
    if (status == STATUS_OK) *count = used;
    return status;
}
