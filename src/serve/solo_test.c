/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/solo_test.c
 *
 * Goal:   a conversation that keeps what was computed answers as one that does not.
 * Method: a small model with random weights; turns that grow, differ early, repeat and shrink, each
 * answered with and without keeping. */
#include "serve/solo.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tiny_model.h"

enum { ANSWER = 12, TOKENS_MAX = 96 };

struct answer {
    uint32_t tokens[ANSWER];
    uint32_t count;
};

static bool on_token(void *ctx, uint32_t token)
{
    struct answer *answer = ctx;
    answer->tokens[answer->count++] = token;
    return true;
}

static struct answer ask(struct solo *solo, const uint32_t *tokens, uint32_t count, bool keep)
{
    struct answer answer = { .count = 0 };
    const struct solo_request request = {
        .tokens = tokens,
        .tokens_count = count,
        .max_tokens = ANSWER,
        .sampling = { .temperature = 0.8f, .top_p = 1, .seed = 3 },
        .keep = keep,
        .on_token = on_token,
        .ctx = &answer
    };
    enum solo_end end;
    assert_int_equal(solo_generate(solo, &request, &end), STATUS_OK);
    assert_int_equal(end, SOLO_LENGTH);
    return answer;
}

static void keeping_changes_no_answer(void **state)
{
    const struct solo_options options = { .threads = 1, .block_tokens = 16, .context_max = 128 };
    struct solo *keeping = NULL, *fresh = NULL;
    struct gguf_maker maker;
    struct model *model = NULL;
    uint32_t tokens[TOKENS_MAX];
    size_t size;

    (void)state;
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    const uint8_t *file = gguf_maker_finish(&maker, &size);
    assert_int_equal(model_parse(file, size, &model, NULL), STATUS_OK);
    assert_int_equal(solo_create(model, &options, &keeping, NULL), STATUS_OK);
    assert_int_equal(solo_create(model, &options, &fresh, NULL), STATUS_OK);
    for (uint32_t i = 0; i < TOKENS_MAX; i++)
        tokens[i] = (i * i * 31 + 7) % TINY_VOCAB;

    uint32_t count = 20;
    for (int turn = 0; turn < 8; turn++) {
        const struct answer a = ask(keeping, tokens, count, true);
        const struct answer b = ask(fresh, tokens, count, false);
        assert_int_equal(a.count, ANSWER);
        assert_memory_equal(a.tokens, b.tokens, sizeof(a.tokens));
        if (turn == 3) tokens[5] ^= 1;                      /* another conversation, almost */
        if (turn == 5) count = 11;                          /* forgotten */
        if (turn == 6) continue;                            /* the same again */
        memcpy(tokens + count, a.tokens, sizeof(a.tokens)); /* history */
        count += turn == 5 ? 0 : ANSWER;
        if (count > TOKENS_MAX - ANSWER) count = TOKENS_MAX - ANSWER;
    }
    solo_destroy(keeping);
    solo_destroy(fresh);
    model_destroy(model);
    gguf_maker_fini(&maker);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(keeping_changes_no_answer) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
