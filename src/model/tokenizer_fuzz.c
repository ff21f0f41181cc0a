/* SPDX-License-Identifier: Apache-2.0
 *
 * model/tokenizer_fuzz.c - any bytes as text: nothing is lost, nothing special appears, and the
 * stream decoder gives valid UTF-8 that does not depend on how tokens cut it.
 *
 * The vocabulary is the tiny one of tests/tiny_model.h, which has all 256 bytes; the first byte of
 * the input chooses the pre-tokenizer. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "base/utf8.h"
#include "tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PRES = 3 };

static struct tokenizer *make_tokenizer(const char *pre)
{
    struct gguf_maker maker;
    struct tokenizer *tokenizer = NULL;
    struct gguf *gguf;
    size_t size;

    gguf_maker_init(&maker);
    tiny_tokenizer_keys(&maker, pre);
    const void *data = gguf_maker_finish(&maker, &size);
    ASSERT(gguf_parse(data, size, &gguf, NULL) == STATUS_OK);
    ASSERT(tokenizer_create(gguf, &tokenizer, NULL) == STATUS_OK);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
    return tokenizer;
}

/* Each token's bytes through a stream, against all the text in one push. */
static void check_stream(const struct tokenizer *tokenizer, const uint32_t *tokens, size_t count,
                         const uint8_t *text, size_t len)
{
    char *whole = malloc(UTF8_STREAM_OUT_MAX(len) + 3), *cut = malloc(UTF8_STREAM_OUT_MAX(len) + 3);
    size_t whole_len = 0, cut_len = 0, at = 0;
    struct utf8_stream stream;

    ASSERT(whole != NULL && cut != NULL);
    utf8_stream_init(&stream);
    whole_len = utf8_stream_push(&stream, text, len, whole);
    whole_len += utf8_stream_finish(&stream, whole + whole_len);
    for (size_t i = 0; i < count; i++) {
        size_t token_len;
        const char *bytes = tokenizer_bytes(tokenizer, tokens[i], &token_len);
        ASSERT(!tokenizer_is_special(tokenizer, tokens[i]));
        ASSERT(at + token_len <= len && memcmp(text + at, bytes, token_len) == 0);
        at += token_len;
        cut_len += utf8_stream_push(&stream, bytes, token_len, cut + cut_len);
        ASSERT(utf8_valid_prefix(cut, cut_len) == cut_len);
    }
    cut_len += utf8_stream_finish(&stream, cut + cut_len);
    ASSERT(at == len && cut_len == whole_len && memcmp(cut, whole, cut_len) == 0);
    free(whole);
    free(cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pres[PRES] = { "smollm", "gpt-2", "llama-bpe" };
    static struct tokenizer *tokenizers[PRES];

    if (size == 0) return 0;
    const int pre = data[0] % PRES;
    if (tokenizers[pre] == NULL) tokenizers[pre] = make_tokenizer(pres[pre]);
    const struct tokenizer *tokenizer = tokenizers[pre];
    const size_t len = size - 1;
    uint32_t *tokens = malloc((len + 1) * sizeof(*tokens));
    size_t count = 0;
    ASSERT(tokens != NULL);
    ASSERT(tokenizer_encode(tokenizer, (const char *)data + 1, len, tokens, len, &count) ==
           STATUS_OK);
    check_stream(tokenizer, tokens, count, data + 1, len);
    free(tokens);
    return 0;
}
