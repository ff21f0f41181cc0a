/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_fuzz.c - request bodies of strangers: no crash, no leak, and a refusal says why. What
 * is accepted keeps the promises of the header. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/utf8.h"
#include "serve/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_accepted(const struct api_request *request)
{
    ASSERT(request->temperature >= 0 && request->temperature <= 2);
    ASSERT(request->top_p > 0 && request->top_p <= 1);
    ASSERT(request->stops_count <= API_STOPS_MAX);
    ASSERT(request->max_tokens <= API_MAX_TOKENS_MAX);
    for (uint32_t i = 0; i < request->stops_count; i++) {
        ASSERT(request->stops[i].len > 0 && request->stops[i].len <= API_STOP_SIZE_MAX);
    }
    if (request->kind == API_CHAT) ASSERT(request->messages_count > 0);
    ASSERT(request->logprobs <= 1 + API_LOGPROBS_MAX);
    ASSERT(request->n >= 1 && request->n <= API_CHOICES_MAX);
    ASSERT(request->prompts_count * request->n <= API_CHOICES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    for (int kind = API_CHAT; kind < API_KINDS; kind++) {
        struct api_request request;
        struct api_error error;
        struct buf out;

        if (api_parse((enum api_kind)kind, (const char *)data, len, &request, &error) ==
            STATUS_OK) {
            check_accepted(&request);
            api_request_fini(&request);
            continue;
        }
        ASSERT(error.http_status >= 400 && error.message[0] != '\0');
        buf_init(&out, 4096);
        const enum status status = api_write_error(&out, &error);
        ASSERT(status == STATUS_OK && utf8_valid_prefix(buf_data(&out), out.len) == out.len);
        buf_fini(&out);
    }
    return 0;
}
