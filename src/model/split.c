/* SPDX-License-Identifier: Apache-2.0
 *
 * model/split.c - the pre-tokenizers by name, as patterns for PCRE2.
 *
 * Differences from the patterns that model authors publish, none of which changes a result:
 *   - White space is spelled out (WS): "\s" means something else in every library. It is Unicode's
 *     White_Space, which is what tokenizers use.
 *   - The last alternative "\s+" is left out where the pieces between matches are kept anyway.
 * Validity is checked once here, run by run, so the library is told not to check again: its own
 * check would look at the rest of the text for every word, which is quadratic. */
#include "model/split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "model/gguf.h"
#include "base/utf8.h"

enum { STAGES_MAX = 2, MATCH_LIMIT = 1 << 30 };

#define WS                                                                                         \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"   \
    "\\x{3000}"

#define DIGIT "\\p{N}"
#define GPT2                                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|[" WS "]+(?![^" WS "])"
/* Llama 3, and those who took its pattern over with other numbers. */
#define CL100K(numbers)                                                                            \
    "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers   \
    "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])"

struct known {
    const char *name;
    const char *patterns[STAGES_MAX];
    struct split_traits traits;
};

static const struct known table[] = {
    { "smollm", { DIGIT, GPT2 }, { false, false } },
    { "gpt-2", { GPT2, NULL }, { false, false } },
    { "llama-bpe", { CL100K("\\p{N}{1,3}"), NULL }, { true, true } },
    { "qwen2", { CL100K(DIGIT), NULL }, { false, false } },
};
enum { KNOWN = sizeof(table) / sizeof(table[0]) };

struct splitter {
    const struct known *known;
    pcre2_code *stages[STAGES_MAX];
    pcre2_match_context *limits;
    int stages_count;
};

static enum status unknown(const char *name, size_t name_len, struct errmsg *err)
{
    char list[128] = "";
    size_t len = 0;

    for (size_t i = 0; i < KNOWN; i++) {
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i > 0 ? ", " : "",
                                table[i].name);
        ASSERT(len < sizeof(list));
    }
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "pre-tokenizer \"%s\" (tokenizer.ggml.pre) is not supported, only %s",
                      gguf_show((struct gguf_string){ name, name_len }).text, list);
}

static enum status compile(const char *pattern, pcre2_code **out)
{
    int error = 0;
    PCRE2_SIZE at = 0;

    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
    if (code == NULL) {
        ASSERT(error == PCRE2_ERROR_HEAP_FAILED); /* the patterns are ours */
        return STATUS_NO_MEMORY;
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without it the interpreter does it */
    *out = code;
    return STATUS_OK;
}

static enum status compile_stages(struct splitter *splitter)
{
    splitter->limits = pcre2_match_context_create(NULL);
    if (splitter->limits == NULL) return STATUS_NO_MEMORY;
    pcre2_set_match_limit(splitter->limits, MATCH_LIMIT);
    for (int i = 0; i < STAGES_MAX && splitter->known->patterns[i] != NULL; i++) {
        enum status status = compile(splitter->known->patterns[i], &splitter->stages[i]);
        if (status != STATUS_OK) return status;
        splitter->stages_count++;
    }
    return STATUS_OK;
}

enum status splitter_create(const char *name, size_t name_len, struct splitter **out,
                            struct errmsg *err)
{
    const struct known *known = NULL;

    for (size_t i = 0; i < KNOWN; i++) {
        if (strlen(table[i].name) == name_len && memcmp(table[i].name, name, name_len) == 0) {
            known = &table[i];
        }
    }
    if (known == NULL) return unknown(name, name_len, err);

    struct splitter *splitter = calloc(1, sizeof(*splitter));
    if (splitter == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the tokenizer");
    splitter->known = known;
    enum status status = compile_stages(splitter);
    if (status != STATUS_OK) {
        splitter_destroy(splitter);
        return errmsg_set(err, status, "no memory for the tokenizer's patterns");
    }
    *out = splitter;
    return STATUS_OK;
}

void splitter_destroy(struct splitter *splitter)
{
    if (splitter == NULL) return;
    for (int i = 0; i < STAGES_MAX; i++)
        pcre2_code_free(splitter->stages[i]);
    pcre2_match_context_free(splitter->limits);
    free(splitter);
}

struct split_traits splitter_traits(const struct splitter *splitter)
{
    return splitter->known->traits;
}

/* ---- running ---- */

struct walk {
    const struct splitter *splitter;
    pcre2_match_data *matches[STAGES_MAX];
    split_fn on_piece;
    void *ctx;
};

/* The next match in text[*start..len). False if there is none; STATUS in *status otherwise. */
static enum status next_match(const struct walk *walk, int stage, const char *text, size_t len,
                              size_t *start, size_t *end)
{
    const int rc = pcre2_match(walk->splitter->stages[stage], (PCRE2_SPTR)text, len, *start,
                               PCRE2_NO_UTF_CHECK, walk->matches[stage], walk->splitter->limits);
    if (rc == PCRE2_ERROR_NOMATCH) return STATUS_NOT_FOUND;
    if (rc < 0) return STATUS_NO_MEMORY; /* its heap, its stack or its match limit */
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(walk->matches[stage]);
    ASSERT(range[0] >= *start && range[1] > range[0] && range[1] <= len);
    *start = range[0];
    *end = range[1];
    return STATUS_OK;
}

/* Valid UTF-8 from here on. Recursion is as deep as there are stages. */
static enum status split_stage(const struct walk *walk, int stage, const char *text, size_t len)
{
    size_t done = 0;

    if (len == 0) return STATUS_OK;
    if (stage == walk->splitter->stages_count) return walk->on_piece(walk->ctx, text, len);
    while (done < len) {
        size_t start = done, end = len;
        enum status status = next_match(walk, stage, text, len, &start, &end);
        if (status == STATUS_NOT_FOUND) break;
        if (status != STATUS_OK) return status;
        status = split_stage(walk, stage + 1, text + done, start - done);
        if (status != STATUS_OK) return status;
        status = split_stage(walk, stage + 1, text + start, end - start);
        if (status != STATUS_OK) return status;
        done = end;
    }
    return split_stage(walk, stage + 1, text + done, len - done);
}

/* Bytes at the start of text that are not part of a valid sequence. */
static size_t invalid_run(const char *text, size_t len)
{
    size_t run = 0;

    while (run < len) {
        const size_t window = len - run < 4 ? len - run : 4;
        size_t whole = 1; /* the shortest window that is a code point decides */
        while (whole <= window && utf8_valid_prefix(text + run, whole) == 0)
            whole++;
        if (whole <= window) return run;
        run++;
    }
    return run;
}

static enum status split_runs(const struct walk *walk, const char *text, size_t len)
{
    size_t at = 0;

    while (at < len) {
        const size_t valid = utf8_valid_prefix(text + at, len - at);
        enum status status = split_stage(walk, 0, text + at, valid);
        if (status != STATUS_OK) return status;
        at += valid;
        const size_t invalid = invalid_run(text + at, len - at);
        if (invalid > 0) status = walk->on_piece(walk->ctx, text + at, invalid);
        if (status != STATUS_OK) return status;
        at += invalid;
    }
    return STATUS_OK;
}

enum status splitter_run(const struct splitter *splitter, const char *text, size_t len,
                         split_fn on_piece, void *ctx)
{
    struct walk walk = { .splitter = splitter, .on_piece = on_piece, .ctx = ctx };
    enum status status = STATUS_NO_MEMORY;

    ASSERT(text != NULL || len == 0);
    for (int i = 0; i < splitter->stages_count; i++) {
        walk.matches[i] = pcre2_match_data_create(1, NULL);
        if (walk.matches[i] == NULL) goto out;
    }
    status = split_runs(&walk, text, len);
out:
    for (int i = 0; i < STAGES_MAX; i++)
        pcre2_match_data_free(walk.matches[i]);
    return status;
}
