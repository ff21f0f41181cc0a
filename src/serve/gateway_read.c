/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_read.c - see the header. */
#include "serve/gateway_read.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/keys.h"
#include "model/chat.h"
#include "serve/api_tools.h"
#include "serve/gateway_int.h"
#include "serve/gateway_prompt.h"

/* Who is salted is apart, and so is who asks to be. */
static void take_salt(struct reading *reading)
{
    const struct api_text *own = &reading->api.cache_salt;

    reading->salted = reading->salted || own->data != NULL;
    if (!reading->salted) return;
    reading->salt = gateway_keys_salt(reading->gateway, reading->tenant, own->data, own->len);
}

static void make_keys(const struct reading *reading, struct read_prompt *prompt)
{
    const struct block_key *salt = reading->salted ? &reading->salt : NULL;
    const uint32_t block_tokens = reading->block_tokens;

    if (block_tokens == 0) return;
    prompt->key_root = reading->root;
    prompt->keys_count = prompt->count / block_tokens;
    ASSERT(prompt->keys_count <= read_keys_max(prompt->max));
    for (uint32_t i = 0; i < prompt->keys_count; i++) {
        prompt->keys[i] =
            conductor_key_next(i > 0 ? &prompt->keys[i - 1] : &reading->root, i == 0 ? salt : NULL,
                               prompt->tokens + (size_t)i * block_tokens, block_tokens);
    }
}

static enum status no_memory(struct reading *reading)
{
    return api_refuse(&reading->error, 503, "overloaded", NULL, "Not enough memory");
}

/* A prompt may take the whole context; most take little of it, and keep no more. */
static void give_tokens_back(struct read_prompt *prompt)
{
    uint32_t *smaller = realloc(prompt->tokens, prompt->max * sizeof(*prompt->tokens));
    if (smaller != NULL) prompt->tokens = smaller;
}

static enum status read_prompt(struct reading *reading, size_t index, struct read_prompt *out)
{
    const uint32_t context = reading->context_max, wanted = reading->api.max_tokens;
    size_t count = 0;

    out->tokens = malloc(context * sizeof(*out->tokens));
    if (out->tokens == NULL) return no_memory(reading);
    const struct gateway_wording wording = { &reading->api, index, reading->now_s };
    const enum status status =
        gateway_tokenize(reading->gateway, &wording, out->tokens, context, &count, &reading->error);
    if (status != STATUS_OK) return status;
    ASSERT(count > 0 && count < context);
    out->count = (uint32_t)count;
    out->max = wanted > 0 && wanted < context - out->count ? out->count + wanted : context;
    give_tokens_back(out);
    out->keys = malloc(read_keys_max(out->max) * sizeof(*out->keys));
    if (out->keys == NULL) return no_memory(reading);
    make_keys(reading, out);
    return STATUS_OK;
}

static enum status read_all(struct reading *reading)
{
    const struct gateway *gateway = reading->gateway;
    struct api_request *api = &reading->api;
    struct api_error *error = &reading->error;

    enum status status = gateway_check_model(gateway, api, error);
    if (status == STATUS_OK) status = gateway_check_wishes(gateway, api, error);
    if (status == STATUS_OK) status = api_tools_prepare(api, chat_tools(gateway->chat), error);
    if (status != STATUS_OK) return status;
    take_salt(reading);
    reading->prompts_count = reading->kind == API_CHAT ? 1 : (uint32_t)api->prompts_count;
    reading->prompts = calloc(reading->prompts_count, sizeof(*reading->prompts));
    if (reading->prompts == NULL) return no_memory(reading);
    for (uint32_t i = 0; i < reading->prompts_count && status == STATUS_OK; i++)
        status = read_prompt(reading, i, &reading->prompts[i]);
    return status;
}

void gateway_read(struct reading *reading)
{
    ASSERT(reading->kind == API_CHAT || reading->kind == API_COMPLETION);
    reading->status =
        api_parse(reading->kind, reading->body, reading->len, &reading->api, &reading->error);
    if (reading->status != STATUS_OK) return;
    reading->status = read_all(reading);
    if (reading->status != STATUS_OK) gateway_read_fini(reading);
}

void gateway_read_fini(struct reading *reading)
{
    for (uint32_t i = 0; reading->prompts != NULL && i < reading->prompts_count; i++) {
        free(reading->prompts[i].tokens);
        free(reading->prompts[i].keys);
    }
    free(reading->prompts);
    reading->prompts = NULL;
    api_request_fini(&reading->api);
}
