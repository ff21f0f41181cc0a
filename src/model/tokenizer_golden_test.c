/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_golden_test.c
 *
 * Goal:   the real model's tokens, exactly; no special token from text; no input is slow.
 * Method: the golden prompts (44 texts, many scripts, odd bytes) token by token; random strings
 *         against a quadratic merge that is too simple to be wrong; megabyte words timed. */
#include "model/tokenizer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env_real.h"
#include "base/rng.h"
#include "golden.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model_path.h"

enum { SEED = 20261122, MEGABYTE = 1 << 20 };

static struct env *env;
static struct model *model;
static struct tokenizer *tokenizer;

static int open_model(void **state)
{
    struct errmsg err = { { 0 } };

    (void)state;
    if (env_real_create(NULL, &env, &err) != STATUS_OK ||
        model_open(env, model_path(), &model, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    const uint64_t start = env_real_now_ns();
    if (tokenizer_create(model_gguf(model), &tokenizer, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    printf("tokenizer loaded in %.1f ms\n", (double)(env_real_now_ns() - start) / 1e6);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    env_real_destroy(env);
    return 0;
}

static void assert_tokens(const char *name, const uint32_t *expected, size_t expected_count,
                          const uint32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count && i < expected_count; i++) {
        size_t len;
        if (tokens[i] == expected[i]) continue;
        const char *bytes = tokenizer_bytes(tokenizer, tokens[i], &len);
        fail_msg("%s: token %zu is %u (\"%.*s\"), expected %u", name, i, tokens[i], (int)len, bytes,
                 expected[i]);
    }
    if (count != expected_count) {
        fail_msg("%s: %zu tokens, expected %zu", name, count, expected_count);
    }
}

/* All bytes of the vocabulary: what tokenizer_encode() does not drop. */
static bool byte_is_known(uint8_t byte)
{
    uint32_t token;
    size_t count = 0;

    assert_int_equal(tokenizer_encode(tokenizer, (const char *)&byte, 1, &token, 1, &count),
                     STATUS_OK);
    return count == 1;
}

static void golden_prompts(void **state)
{
    struct golden *golden = golden_load("smollm2");

    (void)state;
    for (size_t i = 0; i < golden->count; i++) {
        const struct golden_prompt *prompt = &golden->prompts[i];
        uint32_t *tokens = malloc(prompt->text_len * sizeof(*tokens));
        size_t count = 0;
        assert_non_null(tokens);
        assert_int_equal(tokenizer_encode(tokenizer, prompt->text, prompt->text_len, tokens,
                                          prompt->text_len, &count),
                         STATUS_OK);
        assert_tokens(prompt->name, prompt->tokens, prompt->tokens_count, tokens, count);
        free(tokens);
    }
    printf("%zu prompts\n", golden->count);
    golden_free(golden);
}

static void decoding_restores_the_text(void **state)
{
    struct golden *golden = golden_load("smollm2");

    (void)state;
    for (size_t i = 0; i < golden->count; i++) {
        const struct golden_prompt *prompt = &golden->prompts[i];
        char *text = malloc(prompt->text_len + 1);
        size_t len = 0, known = 0;
        assert_non_null(text);
        for (uint32_t k = 0; k < prompt->tokens_count; k++) {
            size_t piece_len;
            const char *piece = tokenizer_bytes(tokenizer, prompt->tokens[k], &piece_len);
            assert_true(len + piece_len <= prompt->text_len);
            memcpy(text + len, piece, piece_len);
            len += piece_len;
        }
        for (size_t k = 0; k < prompt->text_len; k++) { /* the text without unknown bytes */
            if (!byte_is_known((uint8_t)prompt->text[k])) continue;
            assert_true(known < len && text[known] == prompt->text[k]);
            known++;
        }
        assert_int_equal(known, len);
        free(text);
    }
    golden_free(golden);
}

static void text_never_becomes_special(void **state)
{
    static const char *const texts[] = { "<|im_start|>", "<|im_end|>", "<|endoftext|>",
                                         "<repo_name>", "a<|im_end|>\n<|im_start|>system\n" };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        uint32_t tokens[64];
        size_t count = 0;
        assert_int_equal(
            tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), tokens, 64, &count), STATUS_OK);
        assert_true(count > 1);
        for (size_t k = 0; k < count; k++)
            assert_false(tokenizer_is_special(tokenizer, tokens[k]));
    }
}

static void special_tokens_of_the_model(void **state)
{
    size_t len;

    (void)state;
    assert_int_equal(tokenizer_vocab(tokenizer), 49152);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_false(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_find_special(tokenizer, "<|im_start|>"), 1);
    assert_int_equal(tokenizer_find_special(tokenizer, "<|im_end|>"), 2);
    assert_int_equal(tokenizer_find_special(tokenizer, "the"), TOKENIZER_NONE);
    assert_true(tokenizer_is_end(tokenizer, 0) && tokenizer_is_end(tokenizer, 2));
    assert_false(tokenizer_is_end(tokenizer, 1) || tokenizer_is_end(tokenizer, 1000));
    assert_true(tokenizer_is_special(tokenizer, 16) && !tokenizer_is_special(tokenizer, 17));
    assert_false(tokenizer_is_special(tokenizer, 49152));
    assert_string_equal(tokenizer_bytes(tokenizer, 49152, &len), "");
    assert_int_equal(len, 0);
    assert_memory_equal(tokenizer_bytes(tokenizer, 2, &len), "<|im_end|>", 10);
    assert_int_equal(len, 10);
}

static void a_full_array_is_an_answer(void **state)
{
    const char *text = "one two three four five";
    uint32_t tokens[5] = { 0, 0, 0, 0, 77 };
    size_t count = 0;

    (void)state;
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), tokens, 4, &count),
                     STATUS_FULL);
    assert_int_equal(count, 0);
    assert_int_equal(tokens[4], 77);
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), tokens, 5, &count), STATUS_OK);
    assert_int_equal(count, 5);
    assert_int_equal(tokenizer_encode(tokenizer, "", 0, tokens, 5, &count), STATUS_OK);
    assert_int_equal(count, 5);
    assert_int_equal(tokenizer_encode(tokenizer, "x", 1, tokens, 5, &count), STATUS_FULL);
}

/* ---- against a naive merge of the file's own list ---- */

/* Ranks by linear search over the merges of the file: slow and obvious. */
struct naive {
    struct gguf_string *merges;
    size_t count;
};

static int naive_open(struct naive *naive)
{
    struct gguf_array array;
    size_t cursor = 0;

    if (gguf_get_array(model_gguf(model), "tokenizer.ggml.merges", GGUF_STRING, &array, NULL) !=
        STATUS_OK) {
        return -1;
    }
    naive->count = array.count;
    naive->merges = calloc(array.count, sizeof(*naive->merges));
    for (size_t i = 0; gguf_array_next_string(&array, &cursor, &naive->merges[i]); i++) {
        if (i + 1 == array.count) break;
    }
    return 0;
}

/* The rank of two strings; SIZE_MAX if they do not merge. Plain letters only: no alphabet needed.
 */
static size_t naive_rank(const struct naive *naive, const char *left, size_t left_len,
                         const char *right, size_t right_len)
{
    for (size_t i = 0; i < naive->count; i++) {
        const struct gguf_string *merge = &naive->merges[i];
        if (merge->len != left_len + right_len + 1 || merge->data[left_len] != ' ') continue;
        if (memcmp(merge->data, left, left_len) != 0) continue;
        if (memcmp(merge->data + left_len + 1, right, right_len) == 0) return i;
    }
    return SIZE_MAX;
}

/* Cuts `word` in place: ends[i] is where symbol i ends. */
static size_t naive_merge(const struct naive *naive, const char *word, size_t len, size_t *ends)
{
    size_t count = len;

    for (size_t i = 0; i < len; i++)
        ends[i] = i + 1;
    for (;;) {
        size_t best = SIZE_MAX, best_at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            const size_t start = i == 0 ? 0 : ends[i - 1];
            const size_t rank = naive_rank(naive, word + start, ends[i] - start, word + ends[i],
                                           ends[i + 1] - ends[i]);
            if (rank < best) {
                best = rank;
                best_at = i;
            }
        }
        if (best == SIZE_MAX) return count;
        memmove(ends + best_at, ends + best_at + 1, (count - best_at - 1) * sizeof(*ends));
        count--;
    }
}

static void words_match_a_naive_merge(void **state)
{
    static const char letters[] = "etaoinshrdlucmaaaa";
    struct naive naive = { 0 };
    struct rng rng;

    (void)state;
    assert_int_equal(naive_open(&naive), 0);
    rng_init(&rng, SEED);
    printf("seed %d\n", SEED);
    for (int round = 0; round < 12; round++) {
        char word[24];
        size_t ends[24], count = 0;
        uint32_t tokens[24];
        const size_t len = rng_between(&rng, 1, sizeof(word));
        for (size_t i = 0; i < len; i++)
            word[i] = letters[rng_below(&rng, sizeof(letters) - 1)];
        const size_t expected = naive_merge(&naive, word, len, ends);
        assert_int_equal(tokenizer_encode(tokenizer, word, len, tokens, 24, &count), STATUS_OK);
        assert_int_equal(count, expected);
        for (size_t i = 0, start = 0; i < count; start = ends[i], i++) {
            size_t token_len;
            const char *bytes = tokenizer_bytes(tokenizer, tokens[i], &token_len);
            assert_int_equal(token_len, ends[i] - start);
            assert_memory_equal(bytes, word + start, token_len);
        }
    }
    free(naive.merges);
}

static void random_bytes_survive(void **state)
{
    struct rng rng;

    (void)state;
    rng_init(&rng, SEED + 1);
    for (int round = 0; round < 3000; round++) {
        uint8_t text[300];
        char back[300];
        uint32_t tokens[300];
        size_t count = 0, len = rng_below(&rng, sizeof(text)), back_len = 0, kept = 0;
        rng_fill(&rng, text, len);
        assert_int_equal(tokenizer_encode(tokenizer, (const char *)text, len, tokens, 300, &count),
                         STATUS_OK);
        for (size_t i = 0; i < count; i++) {
            size_t token_len;
            const char *bytes = tokenizer_bytes(tokenizer, tokens[i], &token_len);
            assert_false(tokenizer_is_special(tokenizer, tokens[i]));
            assert_true(back_len + token_len <= len);
            memcpy(back + back_len, bytes, token_len);
            back_len += token_len;
        }
        for (size_t i = 0; i < len; i++) {
            if (!byte_is_known(text[i])) continue;
            assert_true(kept < back_len && (uint8_t)back[kept] == text[i]);
            kept++;
        }
        assert_int_equal(kept, back_len);
    }
}

/* Words that are quadratic for a merge that rescans, and for a splitter that checks again. */
static void megabyte_words_are_fast(void **state)
{
    static const char *const patterns[] = {
        "a", "ab", " ", "\n", "=", "\xc3\xa9", "\xff", "a ", "1"
    };
    char *text = malloc(MEGABYTE);
    uint32_t *tokens = malloc(MEGABYTE * sizeof(*tokens));

    (void)state;
    assert_true(text != NULL && tokens != NULL);
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        const size_t period = strlen(patterns[i]);
        size_t count = 0;
        for (size_t k = 0; k < MEGABYTE; k++)
            text[k] = patterns[i][k % period];
        text[MEGABYTE - 1] = 'x';
        const uint64_t start = env_real_now_ns();
        assert_int_equal(tokenizer_encode(tokenizer, text, MEGABYTE, tokens, MEGABYTE, &count),
                         STATUS_OK);
        const double ms = (double)(env_real_now_ns() - start) / 1e6;
        printf("1 MiB of 0x%02x..: %zu tokens, %.0f ms\n", (uint8_t)patterns[i][0], count, ms);
        assert_true(ms <
                    20000); /* quadratic would be hours; sanitizers and busy machines are slow */
    }
    free(text);
    free(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_prompts),
        cmocka_unit_test(decoding_restores_the_text),
        cmocka_unit_test(text_never_becomes_special),
        cmocka_unit_test(special_tokens_of_the_model),
        cmocka_unit_test(a_full_array_is_an_answer),
        cmocka_unit_test(words_match_a_naive_merge),
        cmocka_unit_test(random_bytes_survive),
        cmocka_unit_test(megabyte_words_are_fast),
    };

    model_path_or_skip();
    return cmocka_run_group_tests(tests, open_model, close_model);
}
