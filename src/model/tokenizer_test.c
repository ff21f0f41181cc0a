/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_test.c
 *
 * Goal:   the rules of the tokenizer one by one, and every way a vocabulary can be inconsistent.
 * Method: small vocabularies made in memory; tokenizer_golden_test.c has the real one. */
#include "model/tokenizer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "gguf_maker.h"
#include "model/gguf.h"
#include "seed.h"
#include "tiny_model.h"

/* A vocabulary that a test fills in; NULL and 0 leave a key out. */
struct vocabulary {
    const char *model, *pre;
    const char *tokens[24];
    int32_t kinds[24];
    uint32_t tokens_count, kinds_count;
    const char *merges[16];
    uint32_t merges_count;
    int64_t bos, eos; /* -1: no key */
    int adds_bos;     /* -1: no key */
};

static const struct vocabulary letters = {
    .model = "gpt2",
    .pre = "gpt-2",
    .tokens = { "<s>", "</s>", "a", "b", "c", "\xc4\xa0", "ab", "bc", "abc",
                "\xc4\xa0"
                "a",
                "<x>", "<x>y", "<z>" },
    .kinds = { 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 2 },
    .tokens_count = 13,
    .kinds_count = 13,
    .merges = { "b c", "a b", "ab c", "\xc4\xa0 a" },
    .merges_count = 4,
    .bos = 0,
    .eos = 1,
    .adds_bos = -1,
};

static enum status create(const struct vocabulary *v, struct tokenizer **out, struct errmsg *err)
{
    struct gguf_maker maker;
    struct gguf *gguf;
    size_t size;

    gguf_maker_init(&maker);
    if (v->model != NULL) gguf_maker_string(&maker, "tokenizer.ggml.model", v->model);
    if (v->pre != NULL) gguf_maker_string(&maker, "tokenizer.ggml.pre", v->pre);
    if (v->tokens_count > 0) {
        gguf_maker_strings(&maker, "tokenizer.ggml.tokens", v->tokens, v->tokens_count);
    }
    if (v->kinds_count > 0) {
        gguf_maker_i32s(&maker, "tokenizer.ggml.token_type", v->kinds, v->kinds_count);
    }
    if (v->merges_count > 0) {
        gguf_maker_strings(&maker, "tokenizer.ggml.merges", v->merges, v->merges_count);
    }
    if (v->bos >= 0) gguf_maker_u32(&maker, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos >= 0) gguf_maker_u32(&maker, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->adds_bos >= 0) {
        gguf_maker_bool(&maker, "tokenizer.ggml.add_bos_token", (uint8_t)v->adds_bos);
    }
    const void *data = gguf_maker_finish(&maker, &size);
    assert_int_equal(gguf_parse(data, size, &gguf, NULL), STATUS_OK);
    const enum status status = tokenizer_create(gguf, out, err);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
    return status;
}

/* `expected` is token ids as text, "2 3 4". */
static void check(const struct tokenizer *tokenizer, const char *text, const char *expected)
{
    uint32_t tokens[64];
    char found[256] = "";
    size_t count = 0, len = 0;

    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), tokens, 64, &count),
                     STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        len +=
            (size_t)snprintf(found + len, sizeof(found) - len, "%s%u", i > 0 ? " " : "", tokens[i]);
    }
    if (strcmp(found, expected) != 0) fail_msg("%s: %s, expected %s", text, found, expected);
}

static void merges_go_by_rank(void **state)
{
    struct tokenizer *tokenizer;
    struct errmsg err = { { 0 } };

    (void)state;
    if (create(&letters, &tokenizer, &err) != STATUS_OK) fail_msg("%s", err.text);
    check(tokenizer, "", "");
    check(tokenizer, "a", "2");
    check(tokenizer, "ab", "6");
    check(tokenizer, "abc", "2 7"); /* "b c" ranks before "a b", and "a bc" is no merge */
    check(tokenizer, "abab", "6 6");
    check(tokenizer, "abcab", "2 7 6");
    check(tokenizer, "b a", "3 9");
    check(tokenizer, "aXb", "2 3"); /* X is not in the vocabulary */
    check(tokenizer, "XX", "");
    check(tokenizer, "<s>", ""); /* special, and its letters are not in the vocabulary */
    tokenizer_destroy(tokenizer);
}

static void added_words_are_taken_first(void **state)
{
    struct tokenizer *tokenizer;
    struct vocabulary v = letters;

    (void)state;
    assert_int_equal(create(&v, &tokenizer, NULL), STATUS_OK);
    check(tokenizer, "<x>", "10");
    check(tokenizer, "a<x>b", "2 10 3");
    check(tokenizer, "<x>y<x>", "11 10"); /* the longest */
    check(tokenizer, "<x", "");
    check(tokenizer, "a<x><x>b", "2 10 10 3");
    check(tokenizer, "<z>", ""); /* unknown is special */
    assert_false(tokenizer_is_special(tokenizer, 10));
    tokenizer_destroy(tokenizer);

    v.eos = 10; /* it ends answers now, so text cannot make it */
    assert_int_equal(create(&v, &tokenizer, NULL), STATUS_OK);
    check(tokenizer, "a<x>b", "2 3");
    tokenizer_destroy(tokenizer);
}

static void whole_words_skip_merges(void **state)
{
    struct tokenizer *tokenizer;
    struct vocabulary v = letters;

    (void)state;
    v.pre = "llama-bpe";
    assert_int_equal(create(&v, &tokenizer, NULL), STATUS_OK);
    check(tokenizer, "abc", "8");
    check(tokenizer, "abca", "2 7 2");
    assert_true(tokenizer_adds_bos(tokenizer));
    tokenizer_destroy(tokenizer);
    v.adds_bos = 0;
    assert_int_equal(create(&v, &tokenizer, NULL), STATUS_OK);
    assert_false(tokenizer_adds_bos(tokenizer));
    tokenizer_destroy(tokenizer);
}

/* What a long text remembers of its words changes nothing: it is what its words are one by one,
 * also of words that share a place and their first bytes, and of bytes that are no token. */
static void repeated_words_are_the_same(void **state)
{
    (void)state;
    enum { WORDS = 20000, WORD_MAX = 20, TEXT_MAX = WORDS * (WORD_MAX + 1) };
    static uint32_t tokens[2 * TEXT_MAX], expected[2 * TEXT_MAX];
    static char text[TEXT_MAX];
    size_t len = 0, count = 0, expected_count = 0;
    struct rng rng;
    struct tokenizer *tokenizer;

    assert_int_equal(create(&letters, &tokenizer, NULL), STATUS_OK);
    rng_init(&rng, test_seed());
    for (int i = 0; i < WORDS; i++) {
        const char *word = text + len;
        const bool is_long = rng_below(&rng, 2) == 0; /* and begins as all long ones do */
        const uint64_t size = 1 + rng_below(&rng, is_long ? WORD_MAX : 4);
        text[len++] = ' ';
        for (uint64_t j = 0; j < size; j++)
            text[len++] = is_long && j < 8 ? 'd' : "abcabcabcd"[rng_below(&rng, 10)];
        assert_int_equal(
            tokenizer_encode(tokenizer, word, size + 1, expected, 2 * TEXT_MAX, &expected_count),
            STATUS_OK);
    }
    assert_int_equal(tokenizer_encode(tokenizer, text, len, tokens, 2 * TEXT_MAX, &count),
                     STATUS_OK);
    assert_int_equal(count, expected_count);
    assert_memory_equal(tokens, expected, count * sizeof(*tokens));
    /* One token too many is refused from there, too. */
    size_t used = 0;
    assert_int_equal(tokenizer_encode(tokenizer, text, len, tokens, count - 1, &used), STATUS_FULL);
    assert_int_equal(used, 0);
    tokenizer_destroy(tokenizer);
}

static void expect_refusal(const struct vocabulary *v, enum status expected, const char *words)
{
    struct tokenizer *tokenizer = NULL;
    struct errmsg err = { { 0 } };
    const enum status status = create(v, &tokenizer, &err);

    if (status != expected || strstr(err.text, words) == NULL) {
        fail_msg("%s: \"%s\", expected %s: \"%s\"", status_name(status), err.text,
                 status_name(expected), words);
    }
    assert_null(tokenizer);
}

static void inconsistent_vocabularies(void **state)
{
    struct vocabulary v;

    (void)state;
    v = letters, v.model = NULL;
    expect_refusal(&v, STATUS_INVALID, "no key tokenizer.ggml.model");
    v = letters, v.model = "bert";
    expect_refusal(&v, STATUS_UNSUPPORTED, "tokenizer \"bert\" is not supported, only \"gpt2\"");
    v = letters, v.pre = NULL;
    expect_refusal(&v, STATUS_INVALID, "no key tokenizer.ggml.pre");
    v = letters, v.pre = "deepseek-llm";
    expect_refusal(&v, STATUS_UNSUPPORTED, "pre-tokenizer \"deepseek-llm\"");
    v = letters, v.tokens_count = 0;
    expect_refusal(&v, STATUS_INVALID, "no key tokenizer.ggml.tokens");
    v = letters, v.kinds_count = 0;
    expect_refusal(&v, STATUS_INVALID, "no key tokenizer.ggml.token_type");
    v = letters, v.kinds_count = 12;
    expect_refusal(&v, STATUS_INVALID, "has 12 elements for 13 tokens");
    v = letters, v.kinds[2] = 6;
    expect_refusal(&v, STATUS_INVALID, "token 2 is of kind 6, expected 1 to 5");
    v = letters, v.kinds[2] = -1;
    expect_refusal(&v, STATUS_INVALID, "token 2 is of kind 4294967295");
    v = letters, v.tokens[4] = "";
    expect_refusal(&v, STATUS_INVALID, "token 4 has 0 bytes");
    v = letters, v.tokens[4] = "a b";
    expect_refusal(&v, STATUS_INVALID, "token 4 (\"a b\") is not byte-level text");
    v = letters, v.tokens[4] = "\xe2\x82\xac";
    expect_refusal(&v, STATUS_INVALID, "token 4 (\"???\") is not byte-level text");
    v = letters, v.tokens[4] = "\xc4";
    expect_refusal(&v, STATUS_INVALID, "is not byte-level text");
    v = letters, v.merges_count = 0;
    expect_refusal(&v, STATUS_INVALID, "no key tokenizer.ggml.merges");
    v = letters, v.merges[1] = "ab";
    expect_refusal(&v, STATUS_INVALID, "merge 1 (\"ab\") is not two tokens");
    v = letters, v.merges[1] = "b a";
    expect_refusal(&v, STATUS_INVALID, "merge 1 (\"b a\") is not two tokens that join to a third");
    v = letters, v.merges[1] = "a ";
    expect_refusal(&v, STATUS_INVALID, "merge 1 (\"a \")");
    v = letters, v.merges[1] = " a";
    expect_refusal(&v, STATUS_INVALID, "merge 1 (\" a\")");
    v = letters, v.merges[1] = "< s>"; /* joins to a special token */
    expect_refusal(&v, STATUS_INVALID, "merge 1 (\"< s>\")");
    v = letters, v.bos = 13;
    expect_refusal(&v, STATUS_INVALID, "bos_token_id is 13, but there are 13 tokens");
    v = letters, v.eos = UINT32_MAX;
    expect_refusal(&v, STATUS_INVALID, "eos_token_id is 4294967295");
    v = letters, v.bos = -1, v.adds_bos = 1;
    expect_refusal(&v, STATUS_INVALID, "BOS is to be added, but there is no such token");
}

static void all_bytes_of_the_tiny_model(void **state)
{
    struct gguf_maker maker;
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    uint32_t tokens[256];
    char text[256];
    size_t size, count = 0;

    (void)state;
    gguf_maker_init(&maker);
    tiny_tokenizer_keys(&maker, "smollm");
    const void *data = gguf_maker_finish(&maker, &size);
    assert_int_equal(gguf_parse(data, size, &gguf, NULL), STATUS_OK);
    assert_int_equal(tokenizer_create(gguf, &tokenizer, NULL), STATUS_OK);
    for (int i = 0; i < 256; i++)
        text[i] = (char)i;
    assert_int_equal(tokenizer_encode(tokenizer, text, 256, tokens, 256, &count), STATUS_OK);
    assert_int_equal(count, 256);
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(tokens[i], 2 + i);
    check(tokenizer, " the her in", "260 34 259 116 34 261");
    tokenizer_destroy(tokenizer);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank),         cmocka_unit_test(added_words_are_taken_first),
        cmocka_unit_test(whole_words_skip_merges),   cmocka_unit_test(repeated_words_are_the_same),
        cmocka_unit_test(inconsistent_vocabularies), cmocka_unit_test(all_bytes_of_the_tiny_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
