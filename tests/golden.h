/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/golden.h - reads the golden files that tests/golden/README.md describes.
 *
 * Everything is loaded at once and freed at once; a file that does not have the documented form
 * ends the program with a line that says where, because a test on half a file would prove nothing.
 * Paths are relative to the root of the tree, where ctest runs the tests. */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GOLDEN_GREEDY = 64,
    GOLDEN_POINTS = 4,
    GOLDEN_TOP = 32,
    GOLDEN_FIXED = 12,
    GOLDEN_PROMPTS_MAX = 64,
    GOLDEN_TOKENS_MAX = 8192,
    GOLDEN_MESSAGES_MAX = 16,
    GOLDEN_CHATS_MAX = 64,
};

struct golden_logit {
    uint32_t token;
    float value;
};

/* The logits that chose greedy[step]. */
struct golden_point {
    uint32_t step;
    float logsumexp;
    struct golden_logit top[GOLDEN_TOP];
    struct golden_logit fixed[GOLDEN_FIXED];
};

struct golden_run {
    uint32_t greedy[GOLDEN_GREEDY];
    float gaps[GOLDEN_GREEDY];
    struct golden_point points[GOLDEN_POINTS];
};

struct golden_prompt {
    char name[64];
    char *text; /* text_len bytes and a NUL */
    size_t text_len;
    uint32_t *tokens;
    uint32_t tokens_count;
    struct golden_run f32;
    struct golden_run quant;
};

struct golden {
    struct golden_prompt prompts[GOLDEN_PROMPTS_MAX]; /* shortest first */
    size_t count;
};

struct golden_bytes {
    char *data;
    size_t len;
};

struct golden_chat {
    char name[64];
    unsigned generate;
    unsigned messages_count;
    char roles[GOLDEN_MESSAGES_MAX][16];
    struct golden_bytes contents[GOLDEN_MESSAGES_MAX];
    struct golden_bytes text;
    uint32_t *tokens;
    uint32_t tokens_count;
};

struct golden_chats {
    struct golden_chat chats[GOLDEN_CHATS_MAX];
    size_t count;
};

_Noreturn static inline void golden_bad(FILE *file, const char *what)
{
    fprintf(stderr, "golden file: bad %s near byte %ld\n", what, file != NULL ? ftell(file) : -1L);
    exit(1);
}

static inline void golden_need(bool holds, FILE *file, const char *what)
{
    if (!holds) golden_bad(file, what);
}

static inline struct golden_bytes golden_read_bytes(FILE *file, size_t len)
{
    struct golden_bytes bytes = { calloc(len + 1, 1), len };

    golden_need(bytes.data != NULL, file, "length");
    golden_need(fread(bytes.data, 1, len, file) == len && fgetc(file) == '\n', file, "bytes");
    return bytes;
}

static inline uint32_t *golden_read_tokens(FILE *file, uint32_t *count)
{
    golden_need(fscanf(file, " tokens %u", count) == 1, file, "tokens");
    golden_need(*count <= GOLDEN_TOKENS_MAX, file, "number of tokens");
    uint32_t *tokens = calloc(*count + 1, sizeof(*tokens));
    golden_need(tokens != NULL, file, "tokens");
    for (uint32_t i = 0; i < *count; i++) {
        golden_need(fscanf(file, "%u", &tokens[i]) == 1, file, "token");
    }
    return tokens;
}

static inline void golden_read_logits(FILE *file, struct golden_logit *logits, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        golden_need(fscanf(file, " %u:%f", &logits[i].token, &logits[i].value) == 2, file, "logit");
    }
}

static inline void golden_read_run(FILE *file, const char *variant, struct golden_run *run)
{
    char word[16];
    int count = 0;

    golden_need(fscanf(file, " run %15s", word) == 1 && strcmp(word, variant) == 0, file, "run");
    golden_need(fscanf(file, " greedy %d", &count) == 1 && count == GOLDEN_GREEDY, file, "greedy");
    for (int i = 0; i < GOLDEN_GREEDY; i++) {
        golden_need(fscanf(file, "%u", &run->greedy[i]) == 1, file, "greedy token");
    }
    golden_need(fscanf(file, " gaps %d", &count) == 1 && count == GOLDEN_GREEDY, file, "gaps");
    for (int i = 0; i < GOLDEN_GREEDY; i++) {
        golden_need(fscanf(file, "%f", &run->gaps[i]) == 1, file, "gap");
    }
    for (int i = 0; i < GOLDEN_POINTS; i++) {
        struct golden_point *point = &run->points[i];
        golden_need(fscanf(file, " logits %u %f", &point->step, &point->logsumexp) == 2, file,
                    "logits");
        golden_need(fscanf(file, " top %d", &count) == 1 && count == GOLDEN_TOP, file, "top");
        golden_read_logits(file, point->top, GOLDEN_TOP);
        golden_need(fscanf(file, " fixed %d", &count) == 1 && count == GOLDEN_FIXED, file, "fixed");
        golden_read_logits(file, point->fixed, GOLDEN_FIXED);
    }
}

static inline void golden_read_text(struct golden_prompt *prompt)
{
    char path[128];

    snprintf(path, sizeof(path), "tests/golden/prompts/%s.txt", prompt->name);
    FILE *file = fopen(path, "rb");
    golden_need(file != NULL, NULL, path);
    golden_need(fseek(file, 0, SEEK_END) == 0, file, path);
    prompt->text_len = (size_t)ftell(file);
    rewind(file);
    prompt->text = calloc(prompt->text_len + 1, 1);
    golden_need(prompt->text != NULL, file, path);
    golden_need(fread(prompt->text, 1, prompt->text_len, file) == prompt->text_len, file, path);
    fclose(file);
}

/* tests/golden/MODEL.txt and the prompts. Never NULL. */
static inline struct golden *golden_load(const char *model)
{
    struct golden *golden = calloc(1, sizeof(*golden));
    char path[128], word[16];

    snprintf(path, sizeof(path), "tests/golden/%s.txt", model);
    FILE *file = fopen(path, "r");
    golden_need(golden != NULL && file != NULL, NULL, path);
    while (fscanf(file, " %15s", word) == 1 && strcmp(word, "prompt") == 0) {
        golden_need(golden->count < GOLDEN_PROMPTS_MAX, file, "number of prompts");
        struct golden_prompt *prompt = &golden->prompts[golden->count++];
        golden_need(fscanf(file, " %63s", prompt->name) == 1, file, "name");
        prompt->tokens = golden_read_tokens(file, &prompt->tokens_count);
        golden_read_run(file, "f32", &prompt->f32);
        golden_read_run(file, "quant", &prompt->quant);
        golden_read_text(prompt);
    }
    golden_need(strcmp(word, "end") == 0 && golden->count > 0, file, "end");
    fclose(file);
    return golden;
}

static inline void golden_free(struct golden *golden)
{
    for (size_t i = 0; i < golden->count; i++) {
        free(golden->prompts[i].text);
        free(golden->prompts[i].tokens);
    }
    free(golden);
}

/* tests/golden/chat.txt. Never NULL. */
static inline struct golden_chats *golden_chats_load(void)
{
    struct golden_chats *all = calloc(1, sizeof(*all));
    FILE *file = fopen("tests/golden/chat.txt", "rb");
    char name[64];
    size_t len;

    golden_need(all != NULL && file != NULL, NULL, "tests/golden/chat.txt");
    while (fscanf(file, " chat %63s", name) == 1) {
        golden_need(all->count < GOLDEN_CHATS_MAX, file, "number of chats");
        struct golden_chat *chat = &all->chats[all->count++];
        snprintf(chat->name, sizeof(chat->name), "%s", name);
        golden_need(fscanf(file, "%u %u", &chat->generate, &chat->messages_count) == 2, file, name);
        golden_need(chat->messages_count <= GOLDEN_MESSAGES_MAX, file, "number of messages");
        for (unsigned i = 0; i < chat->messages_count; i++) {
            golden_need(fscanf(file, " message %15s %zu", chat->roles[i], &len) == 2, file, name);
            golden_need(fgetc(file) == '\n', file, name);
            chat->contents[i] = golden_read_bytes(file, len);
        }
        golden_need(fscanf(file, " text %zu", &len) == 1 && fgetc(file) == '\n', file, name);
        chat->text = golden_read_bytes(file, len);
        chat->tokens = golden_read_tokens(file, &chat->tokens_count);
    }
    golden_need(all->count > 0 && feof(file), file, "end");
    fclose(file);
    return all;
}

static inline void golden_chats_free(struct golden_chats *all)
{
    for (size_t i = 0; i < all->count; i++) {
        struct golden_chat *chat = &all->chats[i];
        for (unsigned m = 0; m < chat->messages_count; m++)
            free(chat->contents[m].data);
        free(chat->text.data);
        free(chat->tokens);
    }
    free(all);
}

#endif
