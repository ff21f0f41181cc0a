/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_beside.c - see the header. */
#include "serve/gateway_beside.h"

#include "base/assert.h"
#include "net/http.h"
#include "serve/api.h"
#include "serve/gateway_int.h"

static void take_off(struct beside *beside)
{
    struct gateway *gateway = beside->gateway;

    ASSERT(gateway->besides_count > 0);
    *(beside->previous != NULL ? &beside->previous->next : &gateway->besides) = beside->next;
    if (beside->next != NULL) beside->next->previous = beside->previous;
    gateway->besides_count--;
}

static void end(struct beside *beside, enum beside_end how)
{
    take_off(beside);
    beside->done(beside->ctx, how);
}

/* Not on the loop. */
static void on_work(void *ctx)
{
    const struct beside *beside = ctx;

    beside->work(beside->ctx);
}

static void on_worked(void *ctx)
{
    struct beside *beside = ctx;

    end(beside, beside->left ? BESIDE_LEFT : BESIDE_WORKED);
}

static void on_hangup(void *ctx)
{
    struct beside *beside = ctx;

    beside->left = true;
    if (env_job_cancel(&beside->job)) end(beside, BESIDE_LEFT);
}

enum status beside_start(struct gateway *gateway, struct http_request *http, struct beside *beside)
{
    size_t len = 0;

    ASSERT(beside->work != NULL && beside->done != NULL);
    (void)http_body(http, &len);
    if (len <= gateway->options.beside_size) {
        beside->work(beside->ctx);
        beside->done(beside->ctx, BESIDE_WORKED);
        return STATUS_OK;
    }
    if (gateway->besides_count == BESIDE_MAX) return STATUS_FULL;
    beside->job = (struct env_job){ .run = on_work, .done = on_worked, .ctx = beside };
    const enum status status = env_job_start(gateway->env, &beside->job);
    if (status != STATUS_OK) return status;
    beside->gateway = gateway;
    beside->next = gateway->besides;
    if (gateway->besides != NULL) gateway->besides->previous = beside;
    gateway->besides = beside;
    gateway->besides_count++;
    http_on_hangup(http, on_hangup, beside);
    return STATUS_OK;
}

enum status beside_refuse(enum status status, struct api_error *error)
{
    if (status == STATUS_FULL) {
        return api_refuse(error, 429, "overloaded", NULL, "%d long requests are being read already",
                          BESIDE_MAX);
    }
    return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
}

void beside_end_all(struct gateway *gateway)
{
    while (gateway->besides != NULL) {
        env_job_settle(&gateway->besides->job);
        end(gateway->besides, BESIDE_SHUTDOWN);
    }
}
