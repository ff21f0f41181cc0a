/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_response.c - answers as JSON, written straight into the output. */
#include "serve/api.h"

#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "serve/api_json.h"

/* Each step runs only if those before it succeeded, and leaves its status in `status`. */
#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

static enum status write_text(struct buf *out, const char *text)
{
    return api_json_write_string(out, text, strlen(text));
}

enum status api_write_error(struct buf *out, const struct api_error *error)
{
    enum status status = buf_append_text(out, "{\"error\":{\"message\":");

    ASSERT(error->type != NULL && error->http_status >= 400);
    THEN(status, write_text(out, error->message));
    THEN(status, buf_append_text(out, ",\"type\":"));
    THEN(status, write_text(out, error->type));
    THEN(status, buf_append_text(out, ",\"param\":"));
    THEN(status, error->param[0] ? write_text(out, error->param) : buf_append_text(out, "null"));
    THEN(status, buf_append_text(out, ",\"code\":"));
    THEN(status, error->code ? write_text(out, error->code) : buf_append_text(out, "null"));
    THEN(status, buf_append_text(out, "}}"));
    return status;
}

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,"choices":[ */
static enum status write_head(struct buf *out, const struct api_answer *answer, const char *object)
{
    enum status status = buf_append_text(out, "{\"id\":");

    THEN(status, write_text(out, answer->id));
    THEN(status, buf_printf(out, ",\"object\":\"%s\",\"created\":%llu,\"model\":", object,
                            (unsigned long long)answer->created_s));
    THEN(status, write_text(out, answer->model));
    if (answer->fingerprint != NULL)
        THEN(status, buf_printf(out, ",\"system_fingerprint\":\"%s\"", answer->fingerprint));
    THEN(status, buf_append_text(out, ",\"choices\":["));
    return status;
}

static enum status write_usage(struct buf *out, const struct api_usage *usage)
{
    ASSERT(usage->cached_tokens <= usage->prompt_tokens);
    return buf_printf(out,
                      "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,"
                      "\"total_tokens\":%u,\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
                      usage->prompt_tokens, usage->completion_tokens,
                      usage->prompt_tokens + usage->completion_tokens, usage->cached_tokens);
}

/* ,"logprobs":...,"finish_reason": */
static enum status write_logprobs(struct buf *out, const struct api_choice *choice)
{
    const struct api_text *logprobs = &choice->logprobs;
    enum status status = buf_append_text(out, ",\"logprobs\":");

    THEN(status, logprobs->data != NULL ? buf_append(out, logprobs->data, logprobs->len)
                                        : buf_append_text(out, "null"));
    THEN(status, buf_append_text(out, ",\"finish_reason\":"));
    return status;
}

static enum status write_prompt_logprobs(struct buf *out, const struct api_choice *choice)
{
    const struct api_text *logprobs = &choice->prompt_logprobs;
    enum status status = STATUS_OK;

    if (logprobs->data == NULL) return STATUS_OK;
    THEN(status, buf_append_text(out, ",\"prompt_logprobs\":"));
    THEN(status, buf_append(out, logprobs->data, logprobs->len));
    return status;
}

/* "tool_calls":[...], if there are any */
static enum status write_calls(struct buf *out, const struct api_choice *choice, const char *before)
{
    enum status status = STATUS_OK;

    if (choice->calls.data == NULL) return STATUS_OK;
    THEN(status, buf_append_text(out, before));
    THEN(status, buf_append_text(out, "\"tool_calls\":["));
    THEN(status, buf_append(out, choice->calls.data, choice->calls.len));
    THEN(status, buf_append_text(out, "]"));
    return status;
}

static enum status write_choice(struct buf *out, bool chat, const struct api_choice *choice)
{
    enum status status =
        buf_printf(out, "{\"index\":%u,%s", choice->index,
                   chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");

    /* Who only calls says nothing. */
    if (choice->calls.data != NULL && choice->len == 0) {
        THEN(status, buf_append_text(out, "null"));
    } else {
        THEN(status, api_json_write_string(out, choice->text, choice->len));
    }
    THEN(status, write_calls(out, choice, ","));
    THEN(status, buf_append_text(out, chat ? "}" : ""));
    THEN(status, write_logprobs(out, choice));
    THEN(status, buf_printf(out, "\"%s\"", choice->finish_reason));
    if (!chat) THEN(status, write_prompt_logprobs(out, choice));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum status api_write_answer(struct buf *out, const struct api_answer *answer,
                             const struct api_choice *choices, uint32_t count,
                             const struct api_usage *usage)
{
    const bool chat = answer->kind == API_CHAT;
    enum status status = write_head(out, answer, chat ? "chat.completion" : "text_completion");

    ASSERT(count > 0);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) THEN(status, buf_append_text(out, ","));
        THEN(status, write_choice(out, chat, &choices[i]));
    }
    THEN(status, buf_append_text(out, "]"));
    if (chat) THEN(status, write_prompt_logprobs(out, &choices[0])); /* the prompt is everybody's */
    THEN(status, buf_append_text(out, ","));
    THEN(status, write_usage(out, usage));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

static enum status open_chunk(struct buf *out, const struct api_answer *answer)
{
    const bool chat = answer->kind == API_CHAT;
    enum status status = buf_append_text(out, "data: ");
    THEN(status, write_head(out, answer, chat ? "chat.completion.chunk" : "text_completion"));
    return status;
}

static enum status close_chunk(struct buf *out, const struct api_answer *answer)
{
    if (!answer->include_usage) return buf_append_text(out, "]}\n\n");
    if (answer->so_far == NULL) return buf_append_text(out, "],\"usage\":null}\n\n");
    enum status status = buf_append_text(out, "],");
    THEN(status, write_usage(out, answer->so_far));
    THEN(status, buf_append_text(out, "}\n\n"));
    return status;
}

enum status api_write_chunk_role(struct buf *out, const struct api_answer *answer, uint32_t index)
{
    ASSERT(answer->kind == API_CHAT);
    enum status status = open_chunk(out, answer);
    THEN(status, buf_printf(out,
                            "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                            "\"logprobs\":null,\"finish_reason\":null}",
                            index));
    THEN(status, close_chunk(out, answer));
    return status;
}

enum status api_write_chunk_text(struct buf *out, const struct api_answer *answer,
                                 const struct api_choice *choice)
{
    const bool chat = answer->kind == API_CHAT;
    enum status status = open_chunk(out, answer);

    THEN(status,
         buf_printf(out, "{\"index\":%u,%s", choice->index, chat ? "\"delta\":{" : "\"text\":"));
    if (chat && choice->len > 0) THEN(status, buf_append_text(out, "\"content\":"));
    if (!chat || choice->len > 0)
        THEN(status, api_json_write_string(out, choice->text, choice->len));
    THEN(status, write_calls(out, choice, choice->len > 0 ? "," : ""));
    THEN(status, buf_append_text(out, chat ? "}" : ""));
    THEN(status, write_logprobs(out, choice));
    THEN(status, buf_append_text(out, "null}"));
    THEN(status, close_chunk(out, answer));
    return status;
}

enum status api_write_chunk_finish(struct buf *out, const struct api_answer *answer,
                                   const struct api_choice *choice)
{
    const bool chat = answer->kind == API_CHAT;
    enum status status = open_chunk(out, answer);

    THEN(status, buf_printf(out, "{\"index\":%u,%s", choice->index,
                            chat ? "\"delta\":{}" : "\"text\":\"\""));
    THEN(status, write_logprobs(out, choice));
    THEN(status, buf_printf(out, "\"%s\"}", choice->finish_reason));
    THEN(status, close_chunk(out, answer));
    return status;
}

enum status api_write_chunk_usage(struct buf *out, const struct api_answer *answer,
                                  const struct api_usage *usage)
{
    enum status status = open_chunk(out, answer);
    THEN(status, buf_append_text(out, "],"));
    THEN(status, write_usage(out, usage));
    THEN(status, buf_append_text(out, "}\n\n"));
    return status;
}

enum status api_write_chunk_error(struct buf *out, const struct api_error *error)
{
    enum status status = buf_append_text(out, "data: ");
    THEN(status, api_write_error(out, error));
    THEN(status, buf_append_text(out, "\n\n"));
    return status;
}

enum status api_write_chunk_done(struct buf *out)
{
    return buf_append_text(out, "data: [DONE]\n\n");
}

enum status api_write_tokens(struct buf *out, const uint32_t *tokens, size_t count,
                             uint32_t context_max)
{
    enum status status =
        buf_printf(out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", count, context_max);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = buf_printf(out, "%s%u", i > 0 ? "," : "", tokens[i]);
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

enum status api_write_prompt(struct buf *out, const char *text, size_t len)
{
    enum status status = buf_append_text(out, "{\"prompt\":");
    THEN(status, api_json_write_string(out, text, len));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum status api_write_model(struct buf *out, const struct api_model *model)
{
    enum status status = buf_append_text(out, "{\"id\":");
    THEN(status, write_text(out, model->id));
    THEN(status, buf_printf(out,
                            ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"yolk\","
                            "\"root\":",
                            (unsigned long long)model->created_s));
    THEN(status, write_text(out, model->id));
    THEN(status, buf_printf(out, ",\"parent\":null,\"max_model_len\":%u,\"permission\":[]}",
                            model->context_max));
    return status;
}

enum status api_write_models(struct buf *out, const struct api_model *model)
{
    enum status status = buf_append_text(out, "{\"object\":\"list\",\"data\":[");
    THEN(status, api_write_model(out, model));
    THEN(status, buf_append_text(out, "]}"));
    return status;
}
