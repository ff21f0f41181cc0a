/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar_fuzz.c - any bytes as the document of a grammar; what compiles is followed for a
 * while, and never stuck.
 *
 * The first byte chooses how: among the allowed tokens it is where to look first. Corpus:
 * tests/corpus/grammar/. */
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "infer/grammar.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TOKENS = 48 };

static const struct grammar_words *the_words(void)
{
    static struct grammar_words *words; /* made once, for the whole run */
    struct gguf_maker maker;
    struct gguf *gguf = NULL;
    static struct tokenizer *tokenizer;
    size_t size;

    if (words != NULL) return words;
    gguf_maker_init(&maker);
    tiny_tokenizer_keys(&maker, "smollm");
    const void *made = gguf_maker_finish(&maker, &size);
    enum status status = gguf_parse(made, size, &gguf, NULL);
    if (status == STATUS_OK) status = tokenizer_create(gguf, &tokenizer, NULL);
    if (status == STATUS_OK) status = grammar_words_create(tokenizer, &words, NULL);
    ASSERT(status == STATUS_OK);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
    return words;
}

static uint32_t allowed_from(const uint64_t *mask, uint32_t from)
{
    for (uint32_t i = 0; i < TINY_VOCAB; i++) {
        const uint32_t token = (from + i) % TINY_VOCAB;
        if ((mask[token / 64] >> (token % 64) & 1) != 0) return token;
    }
    ASSERT(false); /* stuck */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct grammar_words *words = the_words();
    struct grammar *grammar;
    struct grammar_matcher *matcher;
    struct errmsg err;
    uint32_t tokens[TOKENS];
    uint32_t from = size > 0 ? data[0] * 31u : 0;

    if (size == 0) return 0;
    if (grammar_compile((const char *)data + 1, size - 1, &grammar, &err) != STATUS_OK) return 0;
    if (grammar_matcher_create(grammar, words, &matcher) == STATUS_OK) {
        for (uint32_t i = 0; i < TOKENS; i++) {
            grammar_matcher_follow(matcher, tokens, i);
            tokens[i] = allowed_from(grammar_matcher_mask(matcher), from);
            ASSERT(grammar_matcher_allows(matcher, tokens[i]));
            from = from * 1103515245u + 12345;
        }
        grammar_matcher_destroy(matcher);
    }
    grammar_destroy(grammar);
    return 0;
}
