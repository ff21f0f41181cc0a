/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_pieces_test.c
 *
 * Goal:   SentencePiece vocabularies: the pair whose join scores highest merges first, the leftmost
 *         among equals; what has no token becomes its bytes; decoding gives the text back.
 * Method: by hand, then random vocabularies and texts against the definition, which looks at all
 *         pairs again after every merge. SEED repeats the walk. The tokens of a real vocabulary
 *         were compared with llama.cpp's once: see tests/golden/README.md. */
#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "gguf_maker.h"
#include "model/gguf.h"
#include "seed.h"

enum {
    UNK,
    BOS,
    EOS,
    BYTES,
    PIECES = BYTES + 256,
    PIECES_MAX = 64,
    VOCAB_MAX = PIECES + PIECES_MAX
};
enum { TEXT_MAX = 96 };

/* Pieces are written with '_' for U+2581. */
struct vocabulary {
    const char *pieces[PIECES_MAX];
    float scores[PIECES_MAX];
    uint32_t count;
    int kind;       /* of the last piece; 0: text, like the others */
    int adds_space; /* -1: no key */
    int missing;    /* the byte that has no token, -1: none has */
};

static void piece_text(const char *piece, char *out)
{
    for (; *piece != 0; piece++) {
        if (*piece == '_') {
            memcpy(out, "\xe2\x96\x81", 3);
            out += 3;
        } else {
            *out++ = *piece;
        }
    }
    *out = 0;
}

static enum status create(const struct vocabulary *v, struct tokenizer **out, struct errmsg *err)
{
    static char texts[VOCAB_MAX][64];
    const char *tokens[VOCAB_MAX];
    float scores[VOCAB_MAX] = { 0 };
    int32_t kinds[VOCAB_MAX] = { 2, 3, 3 };
    const uint32_t vocab = PIECES + v->count;
    struct gguf_maker maker;
    struct gguf *gguf;
    size_t size;

    snprintf(texts[UNK], 64, "<unk>");
    snprintf(texts[BOS], 64, "<s>");
    snprintf(texts[EOS], 64, "</s>");
    for (int i = 0; i < 256; i++) {
        snprintf(texts[BYTES + i], 64, "<0x%02X>", (unsigned)(i == v->missing ? 0 : i));
        kinds[BYTES + i] = 6;
    }
    for (uint32_t i = 0; i < v->count; i++) {
        piece_text(v->pieces[i], texts[PIECES + i]);
        scores[PIECES + i] = v->scores[i];
        kinds[PIECES + i] = i + 1 == v->count && v->kind != 0 ? v->kind : 1;
    }
    for (uint32_t i = 0; i < vocab; i++)
        tokens[i] = texts[i];
    gguf_maker_init(&maker);
    gguf_maker_string(&maker, "tokenizer.ggml.model", "llama");
    gguf_maker_strings(&maker, "tokenizer.ggml.tokens", tokens, vocab);
    gguf_maker_i32s(&maker, "tokenizer.ggml.token_type", kinds, vocab);
    gguf_maker_f32s(&maker, "tokenizer.ggml.scores", scores, vocab);
    gguf_maker_u32(&maker, "tokenizer.ggml.bos_token_id", BOS);
    gguf_maker_u32(&maker, "tokenizer.ggml.eos_token_id", EOS);
    if (v->adds_space >= 0)
        gguf_maker_bool(&maker, "tokenizer.ggml.add_space_prefix", (uint8_t)v->adds_space);
    const void *data = gguf_maker_finish(&maker, &size);
    assert_int_equal(gguf_parse(data, size, &gguf, NULL), STATUS_OK);
    const enum status status = tokenizer_create(gguf, out, err);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
    return status;
}

/* `expected`: pieces as in the vocabulary and bytes as "<0x41>", each followed by a space. */
static void check(const struct vocabulary *v, const char *text, const char *expected)
{
    struct tokenizer *tokenizer;
    struct errmsg err = { "" };
    uint32_t tokens[64];
    char found[512] = "";
    size_t count = 0, len = 0;

    if (create(v, &tokenizer, &err) != STATUS_OK) fail_msg("%s", err.text);
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), tokens, 64, &count),
                     STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= PIECES) {
            len += (size_t)snprintf(found + len, sizeof(found) - len, "%s ",
                                    v->pieces[tokens[i] - PIECES]);
        } else {
            len +=
                (size_t)snprintf(found + len, sizeof(found) - len, "<0x%02X> ", tokens[i] - BYTES);
        }
    }
    if (strcmp(found, expected) != 0) fail_msg("%s: %s, expected %s", text, found, expected);
    assert_true(tokenizer_adds_bos(tokenizer));
    tokenizer_destroy(tokenizer);
}

static const struct vocabulary letters = {
    .pieces = { "_", "a", "b", "c", "ab", "bc", "_a", "abc", "xy", "\xc3\xa9", "<t>" },
    .scores = { -9, -9, -9, -9, -3, -2, -4, -5, -6, -9, 0 },
    .count = 11,
    .kind = 4,
    .adds_space = 0,
    .missing = -1,
};

static void merges_go_by_score(void **state)
{
    struct vocabulary v = letters;

    (void)state;
    check(&v, "", "");
    check(&v, "ab", "ab ");
    check(&v, "abc", "abc "); /* b c first, and then a bc makes abc */
    check(&v, "abab", "ab ab ");
    check(&v, "a a", "a _a ");
    check(&v,
          "a\xe2\x96\x81"
          "a",
          "a _a ");         /* U+2581 is a space */
    check(&v, "xy", "xy "); /* neither letter is a token */
    check(&v, "x", "<0x78> ");
    check(&v, "\xc3\xa9", "\xc3\xa9 ");
    check(&v, "\xc3\xa8", "<0xC3> <0xA8> ");
    check(&v,
          "\xff"
          "a",
          "<0xFF> a ");
    check(&v, "a<t>b", "a <t> b ");
    check(&v, "<s>", "<0x3C> <0x73> <0x3E> "); /* special tokens are not made from text */
    v.adds_space = 1;
    check(&v, "abc", "_a bc ");
    check(&v, "a<t>b", "_a <t> _ b "); /* each text has its space */
    v.adds_space = -1;
    check(&v, "a", "_a ");
}

static void inconsistent_vocabularies(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct vocabulary v = letters;
    struct errmsg err;

    (void)state;
    v.missing = 10;
    assert_int_equal(create(&v, &tokenizer, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "no token <0x0A>"));
    v = letters, v.kind = 7;
    assert_int_equal(create(&v, &tokenizer, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "is of kind 7, expected 1 to 6"));
    v = letters, v.kind = 6;
    assert_int_equal(create(&v, &tokenizer, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "(\"<t>\") is not a byte"));
    v = letters, v.scores[3] = NAN;
    assert_int_equal(create(&v, &tokenizer, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "is not a number"));
    assert_null(tokenizer);
}

/* ---- against the definition ---- */

struct symbols {
    char text[TEXT_MAX][TEXT_MAX];
    uint32_t count;
};

static int piece_of(const struct vocabulary *v, const char *text)
{
    for (uint32_t i = 0; i < v->count; i++) {
        if (strcmp(v->pieces[i], text) == 0) return (int)i;
    }
    return -1;
}

static void join_all(const struct vocabulary *v, struct symbols *s)
{
    for (;;) {
        char both[2 * TEXT_MAX];
        float best = -INFINITY;
        uint32_t at = UINT32_MAX;
        for (uint32_t i = 0; i + 1 < s->count; i++) {
            snprintf(both, sizeof(both), "%s%s", s->text[i], s->text[i + 1]);
            const int piece = piece_of(v, both);
            if (piece < 0 || !(v->scores[piece] > best)) continue;
            best = v->scores[piece];
            at = i;
        }
        if (at == UINT32_MAX) return;
        snprintf(both, sizeof(both), "%s%s", s->text[at], s->text[at + 1]);
        memcpy(s->text[at], both, TEXT_MAX);
        s->count--;
        memmove(s->text[at + 1], s->text[at + 2], (s->count - at - 1) * sizeof(s->text[0]));
    }
}

static void a_walk_of_vocabularies(void **state)
{
    static const char alphabet[] = "abc_d"; /* d is never a piece by itself */
    static char pieces[PIECES_MAX][8];
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int round = 0; round < 300; round++) {
        struct vocabulary v = { .adds_space = 0, .missing = -1 };
        struct tokenizer *tokenizer;
        struct symbols expected = { .count = 0 };
        char text[TEXT_MAX + 1] = "", decoded[2 * TEXT_MAX] = "";
        uint32_t tokens[2 * TEXT_MAX];
        size_t count = 0;

        while (v.count < 24) {
            const size_t len = 1 + rng_below(&rng, 4);
            memset(pieces[v.count], 0, 8);
            for (size_t i = 0; i < len; i++)
                pieces[v.count][i] = alphabet[rng_below(&rng, len == 1 ? 4 : 5)];
            if (piece_of(&v, pieces[v.count]) >= 0) continue;
            v.scores[v.count] = -(float)rng_below(&rng, 6);
            v.pieces[v.count] = pieces[v.count];
            v.count++;
        }
        const uint32_t len = (uint32_t)rng_between(&rng, 1, TEXT_MAX / 2);
        for (uint32_t i = 0; i < len; i++) {
            const char letter = alphabet[rng_below(&rng, 5)];
            text[i] = letter == '_' ? ' ' : letter;
            expected.text[expected.count][0] = letter;
            expected.text[expected.count++][1] = 0;
        }
        join_all(&v, &expected);
        assert_int_equal(create(&v, &tokenizer, NULL), STATUS_OK);
        assert_int_equal(tokenizer_encode(tokenizer, text, len, tokens, 2 * TEXT_MAX, &count),
                         STATUS_OK);
        assert_int_equal(count, expected.count);
        for (size_t i = 0, at = 0; i < count; i++) {
            size_t bytes;
            const int piece = piece_of(&v, expected.text[i]);
            const uint32_t letter = expected.text[i][0] == '_' ? ' ' : (uint8_t)expected.text[i][0];
            assert_int_equal(tokens[i], piece >= 0 ? PIECES + (uint32_t)piece : BYTES + letter);
            const char *data = tokenizer_bytes(tokenizer, tokens[i], &bytes);
            memcpy(decoded + at, data, bytes);
            at += bytes;
        }
        assert_string_equal(decoded, text);
        tokenizer_destroy(tokenizer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_score),
        cmocka_unit_test(inconsistent_vocabularies),
        cmocka_unit_test(a_walk_of_vocabularies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
