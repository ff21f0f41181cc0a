/* SPDX-License-Identifier: Apache-2.0 */
#include "store/client_revoke.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/proto.h"

#define TRY_NS (2 * ENV_NS_PER_S)

struct revoke {
    struct revoke *next;
    struct store_put_revoke message; /* its key is behind it */
    uint64_t until_ns;
    void (*on_end)(void *ctx);
    void *ctx;
};

/* A message under way. */
struct telling {
    struct telling *prev;
    struct telling *next;
    struct client_revokes *revokes;
    struct revoke *first;
    uint32_t count;
};

struct client_revokes {
    struct env *env;
    struct rpc_client *master;
    struct revoke *first; /* for the next turn, in order */
    struct revoke *last;
    struct env_timer turn;
    struct telling *tellings;
    bool closing;
};

static void on_turn(void *ctx);

enum status client_revokes_create(struct env *env, struct rpc_client *master,
                                  struct client_revokes **out)
{
    struct client_revokes *revokes = calloc(1, sizeof(*revokes));
    if (revokes == NULL) return STATUS_NO_MEMORY;

    revokes->env = env;
    revokes->master = master;
    env_timer_init(&revokes->turn, on_turn, revokes);
    *out = revokes;
    return STATUS_OK;
}

static void chain_free(struct revoke *first)
{
    for (struct revoke *next; first != NULL; first = next) {
        next = first->next;
        free(first);
    }
}

static void telling_free(struct telling *telling)
{
    LIST_REMOVE(telling->revokes->tellings, telling);
    chain_free(telling->first);
    free(telling);
}

void client_revokes_close(struct client_revokes *revokes)
{
    revokes->closing = true;
    env_timer_cancel(revokes->env, &revokes->turn);
}

void client_revokes_destroy(struct client_revokes *revokes)
{
    if (revokes == NULL) return;
    client_revokes_close(revokes);
    while (revokes->tellings != NULL)
        telling_free(revokes->tellings);
    chain_free(revokes->first);
    free(revokes);
}

enum status client_revokes_add(struct client_revokes *revokes,
                               const struct store_put_revoke *message, uint64_t until_ns,
                               void (*on_end)(void *ctx), void *ctx)
{
    const uint64_t limit = env_now_ns(revokes->env) + TRY_NS;
    struct revoke *revoke = malloc(sizeof(*revoke) + message->key.len);
    ASSERT(!revokes->closing);
    if (revoke == NULL) return STATUS_FULL;

    *revoke = (struct revoke){ .message = *message,
                               .until_ns = until_ns < limit ? until_ns : limit,
                               .on_end = on_end,
                               .ctx = ctx };
    revoke->message.key.bytes = memcpy(revoke + 1, message->key.bytes, message->key.len);
    if (revokes->last == NULL) {
        revokes->first = revoke;
        env_timer_set(revokes->env, &revokes->turn, env_now_ns(revokes->env));
    } else {
        revokes->last->next = revoke;
    }
    revokes->last = revoke;
    return STATUS_OK;
}

/* ---- telling ---- */

static void chain_end(struct revoke *first)
{
    for (struct revoke *next; first != NULL; first = next) {
        next = first->next;
        if (first->on_end != NULL) first->on_end(first->ctx);
        free(first);
    }
}

static void on_told(void *ctx, const struct rpc_result *result);

static enum status telling_encode(const struct telling *telling, struct buf *buf)
{
    struct store_put_revoke *messages = malloc(telling->count * sizeof(*messages));
    uint32_t n = 0;

    if (messages == NULL) return STATUS_FULL;
    for (const struct revoke *revoke = telling->first; revoke != NULL; revoke = revoke->next)
        messages[n++] = revoke->message;
    ASSERT(n == telling->count);
    const enum status status = store_encode_put_revokes(buf, messages, n);
    free(messages);
    return status;
}

static enum status telling_send(struct telling *telling)
{
    struct client_revokes *revokes = telling->revokes;
    const bool many = telling->count > 1;
    uint64_t until_ns = ENV_NEVER;
    struct rpc_call_id id;
    struct buf buf;

    for (const struct revoke *revoke = telling->first; revoke != NULL; revoke = revoke->next) {
        if (revoke->until_ns < until_ns) until_ns = revoke->until_ns;
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = many ? telling_encode(telling, &buf)
                              : store_encode_put_revoke(&buf, &telling->first->message);
    const struct rpc_request request = { .method = many ? MASTER_METHOD_PUT_REVOKES
                                                        : MASTER_METHOD_PUT_REVOKE,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = until_ns,
                                         .on_end = on_told,
                                         .ctx = telling };
    if (status == STATUS_OK) status = rpc_call(revokes->master, &request, &id);
    buf_fini(&buf);
    return status;
}

/* The first `most` of the list with one message; the rest is returned. */
static struct revoke *tell_some(struct client_revokes *revokes, struct revoke *list, uint32_t most)
{
    struct telling *telling = calloc(1, sizeof(*telling));
    if (telling == NULL) {
        chain_end(list);
        return NULL;
    }

    *telling = (struct telling){ .revokes = revokes, .first = list };
    struct revoke *last = NULL;
    for (; list != NULL && telling->count < most; list = list->next) {
        last = list;
        telling->count++;
    }
    last->next = NULL;
    LIST_PUSH(revokes->tellings, telling);
    const enum status status = telling_send(telling);
    if (status != STATUS_OK) {
        struct revoke *first = telling->first;
        LOG_DEBUG("store", "revoke_not_told", "reason=%s", status_name(status));
        telling->first = NULL;
        telling_free(telling);
        chain_end(first);
    }
    return list;
}

static void on_turn(void *ctx)
{
    struct client_revokes *revokes = ctx;
    struct revoke *list = revokes->first;

    revokes->first = NULL;
    revokes->last = NULL;
    while (list != NULL)
        list = tell_some(revokes, list, REVOKES_MAX);
}

static void on_told(void *ctx, const struct rpc_result *result)
{
    struct telling *telling = ctx;
    struct client_revokes *revokes = telling->revokes;
    struct revoke *first = telling->first;
    const bool alone = result->status == STATUS_UNSUPPORTED && telling->count > 1;

    if (revokes->closing) return;                /* client_revokes_destroy() frees it */
    if (result->status != STATUS_OK && !alone) { /* the master discards them by itself */
        LOG_DEBUG("store", "revoke_not_told", "reason=%s", status_name(result->status));
    }
    telling->first = NULL;
    telling_free(telling);
    if (!alone) {
        chain_end(first);
        return;
    }
    while (first != NULL) /* a master of before */
        first = tell_some(revokes, first, 1);
}
