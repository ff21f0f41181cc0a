/* SPDX-License-Identifier: Apache-2.0
 *
 * store/events.c - the listener's side of store.events: one streaming call, made again when it
 * ends.
 *
 *   CALLING --first item--> HEARING --the call ends--> CALLING (after a pause)
 *                               on_reset ...               on_lost */
#include "store/events.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/proto.h"

enum { RETRY_MS = 100 };

struct store_subscription {
    struct store_subscribe_options options;
    struct rpc_client *node;
    struct rpc_call_id call;
    struct env_timer retry;
    bool hearing; /* a reset has come since the call began */
    bool closed;
    uint32_t depth; /* of callbacks: the client cannot be destroyed inside one */
};

static void subscription_free(struct store_subscription *subscription)
{
    env_timer_cancel(subscription->options.env, &subscription->retry);
    rpc_client_destroy(subscription->node);
    free(subscription);
}

static void retry_later(struct store_subscription *subscription)
{
    struct env *env = subscription->options.env;
    env_timer_set(env, &subscription->retry, env_now_ns(env) + RETRY_MS * ENV_NS_PER_MS);
}

static void deliver(struct store_subscription *subscription, uint64_t epoch, unsigned flags,
                    const struct store_event *events, uint32_t count)
{
    const struct store_subscribe_options *to = &subscription->options;

    if (flags & STORE_EVENTS_RESET) {
        subscription->hearing = true;
        to->on_reset(to->ctx, epoch);
    }
    if (count > 0 && !subscription->closed) to->on_events(to->ctx, events, count);
    if ((flags & STORE_EVENTS_SYNCED) && !subscription->closed && to->on_synced != NULL) {
        to->on_synced(to->ctx);
    }
}

static void on_item(void *ctx, const uint8_t *body, size_t len)
{
    struct store_subscription *subscription = ctx;
    struct store_event events[STORE_EVENTS_BATCH_MAX];
    uint64_t epoch;
    unsigned flags;
    uint32_t count;

    if (subscription->closed || subscription->call.value == 0) return;
    const enum status status = store_decode_events(body, len, &epoch, &flags, events, &count);
    if (status != STATUS_OK || (!subscription->hearing && !(flags & STORE_EVENTS_RESET))) {
        /* What was lost is unknown: start again. */
        LOG_WARN("store", "events_malformed", "node=%s", rpc_client_address(subscription->node));
        rpc_cancel(subscription->node, subscription->call);
        subscription->call.value = 0;
        return;
    }
    subscription->depth++;
    deliver(subscription, epoch, flags, events, count);
    subscription->depth--;
}

static void on_end(void *ctx, const struct rpc_result *result)
{
    struct store_subscription *subscription = ctx;
    const struct store_subscribe_options *to = &subscription->options;
    const bool heard = subscription->hearing;

    subscription->call.value = 0;
    subscription->hearing = false;
    if (subscription->closed) return;
    LOG_DEBUG("store", "events_ended", "node=%s reason=%s", rpc_client_address(subscription->node),
              status_name(result->status));
    retry_later(subscription);
    subscription->depth++;
    if (heard && to->on_lost != NULL) to->on_lost(to->ctx);
    subscription->depth--;
}

static void on_retry(void *ctx)
{
    struct store_subscription *subscription = ctx;
    const struct store_events_request message = {
        .term = subscription->options.term,
        .blocks_only = subscription->options.blocks_only,
    };
    struct buf buf;

    if (subscription->closed) {
        subscription_free(subscription);
        return;
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_events_request(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_EVENTS,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = ENV_NEVER,
                                         .wait_until_up = true,
                                         .on_item = on_item,
                                         .on_end = on_end,
                                         .ctx = subscription };
    if (status == STATUS_OK) status = rpc_call(subscription->node, &request, &subscription->call);
    buf_fini(&buf);
    if (status != STATUS_OK) retry_later(subscription);
}

enum status store_subscribe(const struct store_subscribe_options *options,
                            struct store_subscription **out, struct errmsg *err)
{
    ASSERT(options->on_reset != NULL && options->on_events != NULL);
    const struct rpc_client_options client = { .address = options->address,
                                               .secret = options->secret,
                                               .name = "listener" };
    struct store_subscription *subscription = calloc(1, sizeof(*subscription));
    if (subscription == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    const enum status status = rpc_client_create(options->env, &client, &subscription->node, err);
    if (status != STATUS_OK) {
        free(subscription);
        return status;
    }
    subscription->options = *options;
    subscription->options.address = NULL; /* the client has its own copies */
    subscription->options.secret = NULL;
    env_timer_init(&subscription->retry, on_retry, subscription);
    env_timer_set(options->env, &subscription->retry, env_now_ns(options->env));
    *out = subscription;
    return STATUS_OK;
}

void store_unsubscribe(struct store_subscription *subscription)
{
    if (subscription == NULL) return;
    ASSERT(!subscription->closed);
    subscription->closed = true;
    if (subscription->depth == 0) {
        subscription_free(subscription);
    } else {
        struct env *env = subscription->options.env;
        env_timer_set(env, &subscription->retry, env_now_ns(env)); /* frees it */
    }
}
