/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_scores.c - how likely the tokens of a prompt were: `echo` with `logprobs`, and
 * `prompt_logprobs`.
 *
 * Rows come from the node that computes the prompt, in order, before it says the first token. They
 * are noted with the leader, and are everybody's who has the same prompt. A chunk that is to begin
 * with them waits until all are there; so until then the client has seen nothing, and an answer
 * whose rows have been lost with a node is made again from the start (gateway_request.c).
 *
 * Limits: SCORE_WORDS_MAX words of rows in a whole request. */
#include "base/assert.h"
#include "serve/gateway_logprobs.h"
#include "serve/gateway_request.h"
#include "serve/proto.h"

/* A pair is some 30 bytes of a completion's JSON, and 80 of prompt_logprobs. */
enum { SCORE_WORDS_MAX = 1 << 21, PROMPT_WORDS_MAX = 1 << 19 };

static bool echoes_rows(const struct request *request)
{
    return request->ask->api.echo && request->ask->api.logprobs > 0;
}

uint32_t request_scores_wanted(const struct request *request)
{
    const struct api_request *api = &request->ask->api;
    const uint32_t echoed = echoes_rows(request) ? api->logprobs : 0;

    return echoed > api->prompt_logprobs ? echoed : api->prompt_logprobs;
}

bool request_wants_scores(const struct request *request)
{
    return request_scores_wanted(request) > 0 && request->leader == NULL &&
           request->scored + 1 < request->prompt_tokens;
}

enum status request_take_scores(struct request *request, const struct proto_scores *scores)
{
    const uint32_t next = request->scored + 1, length = scores->rows.count / scores->count;

    if (!request_wants_scores(request)) return STATUS_OK; /* it has come from another node */
    if (scores->first > next) return STATUS_INVALID;
    for (uint32_t i = next - scores->first; i < scores->count && request_wants_scores(request);
         i++) {
        const struct proto_token token = {
            .token = request->tokens[request->scored + 1],
            .row = { scores->rows.bytes + (size_t)i * length * sizeof(uint32_t), length },
        };
        if (gateway_logprobs_note(&request->scores, &token) != STATUS_OK) return STATUS_FULL;
        request->scored++;
    }
    return STATUS_OK;
}

enum status request_check_scores(const struct request *request, struct api_error *error)
{
    const bool listed = request->ask->api.prompt_logprobs > 0;
    const uint32_t wanted = request_scores_wanted(request);
    const uint32_t row = 2 * wanted + 2; /* words, as they are noted */
    const uint32_t words = listed ? PROMPT_WORDS_MAX : SCORE_WORDS_MAX;
    const uint32_t most = words / row / request->ask->choices_count;
    const char *field = listed ? "prompt_logprobs" : "logprobs";

    if (wanted == 0 || request->prompt_tokens <= most) return STATUS_OK;
    return api_refuse(error, 400, "invalid_value", field,
                      "'%s' %u of prompts: at most %u tokens each in %u answers, not %u", field,
                      wanted - 1, most, request->ask->choices_count, request->prompt_tokens);
}

/* All rows of the prompt; the first token has none. */
static enum status prompt_rows(const struct request *request, uint32_t wanted, struct buf *out)
{
    const struct request *leader = request->leader != NULL ? request->leader : request;

    ASSERT(!request_wants_scores(leader));
    const enum status status = gateway_logprobs_note_first(out, request->tokens[0]);
    return status == STATUS_OK ? gateway_logprobs_copy(out, &leader->scores, wanted - 1) : status;
}

enum status request_echo_scores(struct request *request)
{
    struct buf all;

    if (!echoes_rows(request) || request->scores_echoed) return STATUS_OK;
    request->scores_echoed = true;
    buf_init(&all, GATEWAY_ANSWER_SIZE_MAX);
    enum status status = prompt_rows(request, request->ask->api.logprobs, &all);
    if (status == STATUS_OK) status = buf_append(&all, buf_data(&request->rows), request->rows.len);
    buf_fini(&request->rows);
    request->rows = all;
    return status;
}

enum status request_list_scores(struct request *request, struct api_text *out)
{
    const uint32_t wanted = request->ask->api.prompt_logprobs;
    struct buf rows;

    *out = (struct api_text){ NULL, 0 };
    if (wanted == 0) return STATUS_OK;
    /* A chat has one prompt, and lists it once. */
    if (request->ask->api.kind == API_CHAT && request->leader != NULL) return STATUS_OK;
    buf_init(&rows, GATEWAY_ANSWER_SIZE_MAX);
    buf_clear(&request->listed);
    enum status status = prompt_rows(request, wanted, &rows);
    if (status == STATUS_OK) {
        status = gateway_logprobs_render_prompt(request->gateway->tokenizer, &rows, wanted - 1,
                                                &request->listed);
    }
    buf_fini(&rows);
    *out = (struct api_text){ (const char *)buf_data(&request->listed), request->listed.len };
    return status;
}
