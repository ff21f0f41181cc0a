/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf_fuzz.c - any bytes as a model file: container, model, tokenizer and chat template.
 *
 * What is accepted is used: every tensor row is read, the fingerprint taken, a text encoded and
 * decoded. Corpus: tests/corpus/gguf/, made by tools/golden/make_gguf.py. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "model/chat.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_tokenizer(const struct gguf *gguf)
{
    static const char text[] = "Hello the world 123\n\xff <|im_end|>";
    const struct chat_message message = {
        .role = "user", .role_len = 4, .content = text, .content_len = sizeof(text) - 1
    };
    const struct chat_talk talk = { .messages = &message, .messages_count = 1, .generate = true };
    uint32_t tokens[256];
    size_t count = 0;
    struct tokenizer *tokenizer;
    struct chat *chat;
    struct errmsg err;

    if (tokenizer_create(gguf, &tokenizer, &err) != STATUS_OK) return;
    ASSERT(tokenizer_encode(tokenizer, text, sizeof(text) - 1, tokens, 256, &count) == STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        size_t len;
        ASSERT(tokenizer_bytes(tokenizer, tokens[i], &len) != NULL && len > 0);
        ASSERT(!tokenizer_is_special(tokenizer, tokens[i]));
    }
    if (chat_create(NULL, gguf, tokenizer, NULL, &chat, &err) == STATUS_OK) {
        (void)!chat_encode(chat, &talk, tokens, 256, &count, &err);
        chat_destroy(chat);
    }
    tokenizer_destroy(tokenizer);
}

static uint64_t read_all(const struct model_tensor *tensor)
{
    const uint8_t *bytes = tensor->data;
    uint64_t sum = 0;

    for (size_t i = 0; i < tensor->row_size * tensor->ne[1]; i++)
        sum += bytes[i];
    return sum;
}

static volatile uint64_t sink; /* keeps the reads */

static void use_model(const struct model *model)
{
    uint8_t fingerprint[MODEL_FINGERPRINT_SIZE];
    struct model_summary summary;

    sink += read_all(model_output(model));

    for (uint32_t i = 0; i < model_params(model)->n_layers; i++) {
        const struct model_layer *layer = model_layer(model, i);
        sink += read_all(&layer->attn_q) + read_all(&layer->attn_k) + read_all(&layer->attn_v);
        sink += read_all(&layer->attn_output) + read_all(&layer->ffn_gate);
        sink += read_all(&layer->ffn_up) + read_all(&layer->ffn_down);
        sink += read_all(&layer->attn_norm) + read_all(&layer->ffn_norm);
    }
    model_fingerprint(model, fingerprint);
    model_summarize(model, &summary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct errmsg err;
    struct gguf *gguf;
    struct model *model;
    void *copy = NULL;

    if (posix_memalign(&copy, 32, size > 0 ? size : 1) != 0) return 0;
    if (size > 0) memcpy(copy, data, size);
    if (gguf_parse(copy, size, &gguf, &err) == STATUS_OK) {
        use_tokenizer(gguf);
        gguf_destroy(gguf);
    }
    if (model_parse(copy, size, &model, &err) == STATUS_OK) {
        use_model(model);
        model_destroy(model);
    }
    free(copy);
    return 0;
}
