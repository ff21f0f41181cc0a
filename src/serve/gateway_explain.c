/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_explain.c - see the header.
 *
 * A message is named by its role and content, between two bytes that UTF-8 text has no use for; a
 * conversation by its messages in order. An answer is named as the assistant's message that the
 * client will send back. */
#include "serve/gateway_explain.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "model/chat.h"
#include "serve/gateway_request.h"

enum { ALARM_REPEAT_S = 60, OPENING_MAX = 256 };
static const char BEHIND_ROLE = '\x1f', BEHIND_CONTENT = '\x1e';
static const char ASSISTANT[] = "assistant";

uint32_t gateway_explain_opening(const struct chat *chat, int64_t now_s)
{
    const struct chat_message message = {
        .role = "user", .role_len = 4, .content = "x", .content_len = 1
    };
    struct chat_talk talk = { .messages = &message, .messages_count = 1, .now_s = now_s };
    uint32_t tokens[OPENING_MAX];
    size_t closed = 0, open = 0;

    /* A template that says more than this around a message gets an opening of 0: the last blocks
     * of a prompt may then be taken for another template's. */
    if (chat_encode(chat, &talk, tokens, OPENING_MAX, &closed, NULL) != STATUS_OK) return 0;
    talk.generate = true;
    if (chat_encode(chat, &talk, tokens, OPENING_MAX, &open, NULL) != STATUS_OK) return 0;
    return open > closed ? (uint32_t)(open - closed) : 0;
}

/* ---- the shape of a prompt ---- */

static uint64_t open_message(uint64_t parent, const char *role, size_t len)
{
    return yolk_text_next(yolk_text_next(parent, role, len), &BEHIND_ROLE, 1);
}

static void push_text(struct gateway_shape *shape, uint64_t text)
{
    if (shape->texts_count == EXPLAIN_TEXTS) {
        memmove(&shape->texts[0], &shape->texts[1], (EXPLAIN_TEXTS - 1) * sizeof(text));
        shape->texts_count--;
    }
    shape->texts[shape->texts_count++] = text;
}

static void name_messages(struct request *request)
{
    const struct api_request *api = &request->ask->api;
    uint64_t text = 0;

    for (size_t i = 0; i < api->messages_count; i++) {
        const struct chat_message *message = &api->messages[i];
        text = open_message(text, message->role, message->role_len);
        if (message->content != NULL)
            text = yolk_text_next(text, message->content, message->content_len);
        text = yolk_text_next(text, &BEHIND_CONTENT, 1);
        push_text(&request->shape, text);
    }
    request->shape.answer = open_message(text, ASSISTANT, strlen(ASSISTANT));
}

enum status gateway_explain_start(struct request *request, uint32_t keys_max)
{
    request->shape.prefixes = malloc((size_t)keys_max * sizeof(*request->shape.prefixes));
    if (request->shape.prefixes == NULL) return STATUS_NO_MEMORY;
    name_messages(request);
    return STATUS_OK;
}

void gateway_explain_fini(struct request *request)
{
    free(request->shape.prefixes);
    request->shape.prefixes = NULL;
}

/* Names the first `blocks` blocks; what is named already stays. */
static void extend(struct request *request, uint32_t block_tokens, uint32_t blocks)
{
    struct gateway_shape *shape = &request->shape;

    ASSERT((uint64_t)blocks * block_tokens <= request->tokens_count);
    if (shape->block_tokens != block_tokens) shape->prefixes_count = 0;
    shape->block_tokens = block_tokens;
    while (shape->prefixes_count < blocks) {
        const uint32_t i = shape->prefixes_count++;
        shape->prefixes[i] =
            yolk_prefix_next(i > 0 ? shape->prefixes[i - 1] : YOLK_PREFIX_ROOT,
                             request->tokens + (size_t)i * block_tokens, block_tokens);
    }
}

/* Full blocks that the messages decide alone. The last token is left out: what follows a text may
 * merge with its end. */
static uint32_t text_blocks(const struct request *request, uint32_t block_tokens)
{
    const uint32_t opening = request->gateway->chat_opening + 1;

    return request->prompt_tokens > opening ? (request->prompt_tokens - opening) / block_tokens : 0;
}

static struct yolk_prompt shape_of(const struct request *request, uint32_t text_blocks)
{
    return (struct yolk_prompt){ .prefixes = request->shape.prefixes,
                                 .layout = block_key_hash(&request->key_root),
                                 .salt =
                                     request->ask->salted ? block_key_hash(&request->ask->salt) : 0,
                                 .texts = request->shape.texts,
                                 .texts_count = request->shape.texts_count,
                                 .text_blocks = text_blocks };
}

struct yolk_prompt gateway_explain_prompt(struct request *request)
{
    const uint32_t block_tokens = cluster_block_tokens(request->gateway->cluster);

    extend(request, block_tokens, request->keys_count);
    return shape_of(request, text_blocks(request, block_tokens));
}

/* ---- the answer ---- */

void gateway_explain_shown(struct request *request, const void *text, size_t len)
{
    request->shape.answer = yolk_text_next(request->shape.answer, text, len);
}

void gateway_explain_answered(struct request *request)
{
    const struct cluster *cluster = request->gateway->cluster;
    struct yolk_conductor *conductor = cluster_conductor(request->gateway->cluster);

    if (request->ask->api.kind != API_CHAT || conductor == NULL) return;
    if (request->text.stopped) return; /* the tokens say more than the text */
    const uint32_t blocks = (request->tokens_count - 1) / cluster_block_tokens(cluster);
    push_text(&request->shape, yolk_text_next(request->shape.answer, &BEHIND_CONTENT, 1));
    extend(request, cluster_block_tokens(cluster), blocks);
    const struct yolk_prompt prompt = shape_of(request, blocks);
    yolk_conductor_note_prompt(conductor, &prompt, blocks);
}

/* ---- what came of it ---- */

void gateway_explain_miss(const struct attempt *attempt, enum proto_miss miss)
{
    struct yolk_conductor *conductor = cluster_conductor(attempt->gateway->cluster);

    switch (miss) {
    case PROTO_MISS_NONE: return;
    case PROTO_MISS_GONE:
        yolk_conductor_missed(conductor, attempt->decision.ticket, YOLK_MISS_EVICTED);
        return;
    case PROTO_MISS_TIMEOUT:
        yolk_conductor_missed(conductor, attempt->decision.ticket, YOLK_MISS_TIMEOUT);
        return;
    case PROTO_MISS_FAILED:
        yolk_conductor_missed(conductor, attempt->decision.ticket, YOLK_MISS_FAILED);
        return;
    }
}

void gateway_explain_hits(struct gateway *gateway)
{
    const uint64_t now = env_now_ns(gateway->env);
    struct yolk_explain_stats stats;

    yolk_conductor_explain_stats(cluster_conductor(gateway->cluster), &stats);
    if (!stats.alarm) {
        if (gateway->hits_alarm) LOG_INFO("gateway", "predicted_hits_back", "");
        gateway->hits_alarm = false;
        return;
    }
    if (gateway->hits_alarm && now < gateway->hits_alarm_ns + ALARM_REPEAT_S * ENV_NS_PER_S) return;
    gateway->hits_alarm = true;
    gateway->hits_alarm_ns = now;
    LOG_WARN("gateway", "predicted_hits_missing",
             "requests=%u predicted_blocks=%llu reused_blocks=%llu mostly=%s",
             stats.window_requests, (unsigned long long)stats.window_predicted,
             (unsigned long long)stats.window_kept, yolk_miss_name(stats.window_why));
}

void gateway_explain_regret(const struct attempt *attempt, enum status outcome)
{
    struct gateway *gateway = attempt->gateway;
    const struct yolk_conductor *conductor = cluster_conductor(gateway->cluster);
    const double ms = yolk_conductor_regret(conductor, attempt->decision.ticket);

    if (ms >= 0) gateway_metrics_regret(gateway->metrics, ms / 1000);
    if (outcome != STATUS_OK) return;
    const double tbt_ms =
        yolk_conductor_tbt_regret(conductor, attempt->decision.ticket, gateway_now_ms(gateway));
    if (tbt_ms >= 0) gateway_metrics_tbt_regret(gateway->metrics, tbt_ms / 1000);
}
