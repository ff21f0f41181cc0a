/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata_exchange.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "net/http_client.h"
#include "transfer/metadata_backend.h"

static void on_data(void *ctx, const char *data, size_t len)
{
    struct metadata_exchange *exchange = ctx;

    if (buf_append(&exchange->body, data, len) != STATUS_OK) exchange->overflown = true;
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct metadata_exchange *exchange = ctx;
    enum status status = reply->status;

    exchange->client = NULL;
    if (status == STATUS_OK && exchange->overflown) status = STATUS_PROTOCOL;
    exchange->on_answer(exchange->ctx, status, reply->code, (const char *)buf_data(&exchange->body),
                        exchange->body.len);
}

void metadata_exchange_init(struct metadata_exchange *exchange, struct env *env,
                            const char *address, uint64_t deadline_ns, metadata_answer_fn on_answer,
                            void *ctx)
{
    *exchange = (struct metadata_exchange){ .env = env,
                                            .address = address,
                                            .deadline_ns = deadline_ns,
                                            .on_answer = on_answer,
                                            .ctx = ctx };
    buf_init(&exchange->body, METADATA_ANSWER_MAX);
}

void metadata_exchange_fini(struct metadata_exchange *exchange)
{
    if (exchange->client != NULL) http_client_cancel(exchange->client);
    explicit_bzero(exchange->token, sizeof(exchange->token));
    buf_fini(&exchange->body);
}

enum status metadata_exchange_start(struct metadata_exchange *exchange, const char *method,
                                    const char *path, const char *body, size_t len)
{
    char headers[METADATA_TOKEN_SIZE + 64];

    snprintf(headers, sizeof(headers), "%s%s%s%s",
             body != NULL ? "Content-Type: application/json\r\n" : "",
             exchange->token[0] != '\0' ? "Authorization: " : "", exchange->token,
             exchange->token[0] != '\0' ? "\r\n" : "");
    const struct http_client_options options = {
        .address = exchange->address,
        .method = method,
        .path = path,
        .headers = headers,
        .body = body,
        .len = body != NULL ? len : 0,
        .deadline_ns = exchange->deadline_ns,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = exchange,
    };

    ASSERT(exchange->client == NULL);
    buf_clear(&exchange->body);
    exchange->overflown = false;
    return http_client_start(exchange->env, &options, &exchange->client, NULL);
}
