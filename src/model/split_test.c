/* SPDX-License-Identifier: Apache-2.0
 *
 * model/split_test.c
 *
 * Goal:   words are cut where the pre-tokenizer's author says; no byte is lost, whatever the bytes.
 * Method: texts with the cuts written down ("|"); random bytes put together again. */
#include "model/split.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "seed.h"

struct joined {
    char text[512];
    size_t len;
    size_t stop_after; /* pieces, then STATUS_FULL */
};

static enum status join(void *ctx, const char *piece, size_t len)
{
    struct joined *joined = ctx;

    assert_true(len > 0);
    if (joined->stop_after-- == 0) return STATUS_FULL;
    assert_true(joined->len + len + 1 < sizeof(joined->text));
    if (joined->len > 0) joined->text[joined->len++] = '|';
    memcpy(joined->text + joined->len, piece, len);
    joined->len += len;
    joined->text[joined->len] = 0;
    return STATUS_OK;
}

static const struct {
    const char *pre;
    const char *cut; /* the text with | at the cuts */
} cases[] = {
    { "smollm", "Hello| world|!" },
    { "smollm", "I|'m| fine|,| they|'ve| left" },
    { "smollm", "DON|'|T" },
    { "smollm", "a|1|2|3|b" },
    { "smollm", "in| |2|0|2|6|." }, /* the space is not part of the digit's word */
    { "smollm", "two| | spaces|  |2" },
    { "smollm", "tab|\t|\t|x" },
    { "smollm", "x| \n \n| y" },
    { "smollm", "end|   " },
    { "smollm", "\xc2\xbd|x|\xd9\xa3|\xd9\xa4" }, /* a fraction and Arabic digits are numbers */
    { "smollm", "\xe6\xbc\xa2\xe5\xad\x97|\xe3\x80\x82|x" },
    { "smollm", "a|\xc2\xa0|b" },        /* no-break space is white space */
    { "smollm", "ok|\xff\xfe|ok|\xc3" }, /* bad bytes are a piece of their own */
    { "gpt-2", "in| 2026|." },
    { "gpt-2", "abc|123|abc" },
    { "llama-bpe", "in| |202|6|." },
    { "qwen2", "in| |2|0|2|6|." },
    { "qwen2", "I|'M| fine| | !!\n\n|\tx" },
    { "llama-bpe", "I|'M| fine" },
    { "llama-bpe", "x|\n\n|y|.\n|z" },
    { "llama-bpe", "(word| (|word" },
};

static void texts_with_known_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct splitter *splitter;
        struct joined joined = { .stop_after = SIZE_MAX };
        char text[256];
        size_t len = 0;
        for (const char *c = cases[i].cut; *c != 0; c++) {
            if (*c != '|') text[len++] = *c;
        }
        assert_int_equal(splitter_create(cases[i].pre, strlen(cases[i].pre), &splitter, NULL),
                         STATUS_OK);
        assert_int_equal(splitter_run(splitter, text, len, join, &joined), STATUS_OK);
        assert_string_equal(joined.text, cases[i].cut);
        splitter_destroy(splitter);
    }
}

static void a_refused_piece_ends_the_walk(void **state)
{
    struct splitter *splitter;
    struct joined joined = { .stop_after = 2 };

    (void)state;
    assert_int_equal(splitter_create("smollm", 6, &splitter, NULL), STATUS_OK);
    assert_int_equal(splitter_run(splitter, "one two three", 13, join, &joined), STATUS_FULL);
    assert_string_equal(joined.text, "one| two");
    assert_int_equal(splitter_run(splitter, "", 0, join, &joined), STATUS_OK);
    splitter_destroy(splitter);
}

static void unknown_names_are_refused(void **state)
{
    struct splitter *splitter = NULL;
    struct errmsg err;

    (void)state;
    assert_int_equal(splitter_create("tekken", 6, &splitter, &err), STATUS_UNSUPPORTED);
    assert_string_equal(err.text, "pre-tokenizer \"tekken\" (tokenizer.ggml.pre) is not supported, "
                                  "only smollm, gpt-2, llama-bpe, qwen2");
    assert_int_equal(splitter_create("smollm\0", 7, &splitter, &err), STATUS_UNSUPPORTED);
    assert_null(splitter);
}

struct copy {
    uint8_t bytes[256];
    size_t len;
};

static enum status append(void *ctx, const char *piece, size_t len)
{
    struct copy *copy = ctx;

    assert_true(len > 0 && copy->len + len <= sizeof(copy->bytes));
    memcpy(copy->bytes + copy->len, piece, len);
    copy->len += len;
    return STATUS_OK;
}

static void no_byte_is_lost(void **state)
{
    static const char *const names[] = { "smollm", "gpt-2", "llama-bpe", "qwen2" };
    static const char some[] = " \n\t'sdA1\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff";
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int round = 0; round < 6000; round++) {
        struct splitter *splitter;
        struct copy copy = { .len = 0 };
        char text[64];
        const size_t len = rng_below(&rng, sizeof(text) + 1);
        for (size_t i = 0; i < len; i++)
            text[i] = some[rng_below(&rng, sizeof(some) - 1)];
        const char *name = names[round % 4];
        assert_int_equal(splitter_create(name, strlen(name), &splitter, NULL), STATUS_OK);
        assert_int_equal(splitter_run(splitter, text, len, append, &copy), STATUS_OK);
        assert_int_equal(copy.len, len);
        assert_memory_equal(copy.bytes, text, len);
        splitter_destroy(splitter);
    }
}

static enum status add_length(void *ctx, const char *piece, size_t len)
{
    size_t *total = ctx;

    (void)piece;
    *total += len;
    return STATUS_OK;
}

/* A quadratic pattern, or a check that looks at the rest again, would not end within the test. */
static void megabytes_are_linear(void **state)
{
    static const char *const names[] = { "smollm", "gpt-2", "llama-bpe", "qwen2" };
    static const char *const patterns[] = {
        "a", " ", "\n", " \n", "=", "1", "\xff", "a\xff", "' "
    };
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < 4 * sizeof(patterns) / sizeof(patterns[0]); i++) {
        const char *pattern = patterns[i / 4];
        struct splitter *splitter;
        size_t total = 0;
        for (size_t k = 0; k < SIZE; k++)
            text[k] = pattern[k % strlen(pattern)];
        text[SIZE - 1] = 'x';
        assert_int_equal(splitter_create(names[i % 4], strlen(names[i % 4]), &splitter, NULL),
                         STATUS_OK);
        assert_int_equal(splitter_run(splitter, text, SIZE, add_length, &total), STATUS_OK);
        assert_int_equal(total, SIZE);
        splitter_destroy(splitter);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_with_known_cuts),
        cmocka_unit_test(a_refused_piece_ends_the_walk),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(no_byte_is_lost),
        cmocka_unit_test(megabytes_are_linear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
