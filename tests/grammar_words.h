/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/grammar_words.h - a vocabulary in which every byte is a token, and asking a grammar whether
 * it takes a text.
 *
 * To be included by one test program's file, behind cmocka.h. */
#ifndef TESTS_GRAMMAR_WORDS_H
#define TESTS_GRAMMAR_WORDS_H

#include <string.h>

#include "infer/grammar.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

enum { TAKES_MAX = 1024 }; /* bytes of a text that is asked for */

static struct tokenizer *tokenizer;
static struct grammar_words *words;

static int open_words(void **state)
{
    struct gguf_maker maker;
    struct gguf *gguf;
    struct errmsg err;
    size_t size;

    (void)state;
    gguf_maker_init(&maker);
    tiny_tokenizer_keys(&maker, "smollm");
    const void *data = gguf_maker_finish(&maker, &size);
    if (gguf_parse(data, size, &gguf, &err) != STATUS_OK) fail_msg("%s", err.text);
    if (tokenizer_create(gguf, &tokenizer, &err) != STATUS_OK) fail_msg("%s", err.text);
    if (grammar_words_create(tokenizer, &words, &err) != STATUS_OK) fail_msg("%s", err.text);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
    return 0;
}

static int close_words(void **state)
{
    (void)state;
    grammar_words_destroy(words);
    tokenizer_destroy(tokenizer);
    return 0;
}

static struct grammar *compiled(const char *text)
{
    struct grammar *grammar;
    struct errmsg err = { "" };

    if (grammar_compile(text, strlen(text), &grammar, &err) != STATUS_OK)
        fail_msg("%s: %s", text, err.text);
    return grammar;
}

/* Does the grammar take the text, byte by byte, and may it end there? */
static bool takes(const struct grammar *grammar, const char *text)
{
    struct grammar_matcher *matcher;
    uint32_t tokens[TAKES_MAX];
    size_t count = 0;
    bool ok = true;

    assert_int_equal(grammar_matcher_create(grammar, words, &matcher), STATUS_OK);
    assert_true(strlen(text) < TAKES_MAX);
    for (; ok && text[count] != '\0'; count++) {
        tokens[count] = 2 + (uint8_t)text[count];
        grammar_matcher_follow(matcher, tokens, count);
        ok = grammar_matcher_allows(matcher, tokens[count]);
    }
    if (ok) grammar_matcher_follow(matcher, tokens, count);
    ok = ok && grammar_matcher_allows(matcher, 1);
    grammar_matcher_destroy(matcher);
    return ok;
}

#endif
