/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_put.c - put: from the ticket to the acknowledgement (client.c has the states). */
#include "store/client_call.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/client_commit.h"
#include "store/client_int.h"
#include "store/client_revoke.h"
#include "store/peers.h"

/* Gives the ticket back; if that is lost, the master discards it by itself. */
static void put_revoke(struct item *item)
{
    const struct store_put_revoke message = { .key = item->key,
                                              .put_id = item->put_id,
                                              .writer = item->call->writer };

    if (item->put_id == 0) return;
    if (client_revokes_add(item->call->store->revokes, &message, ENV_NEVER, NULL, NULL) !=
        STATUS_OK) {
        LOG_DEBUG("store", "revoke_not_told", "");
    }
    item->put_id = 0;
}

void client_put_failed(struct item *item, enum status why)
{
    put_revoke(item);
    client_item_again(item, why);
}

static void put_commit(struct item *item);

static void on_committed(void *ctx, enum status status)
{
    struct item *item = ctx;
    struct call *call = item->call;

    client_call_out(call);
    switch ((int)status) {
    case STATUS_OK: client_item_done(item, STATUS_OK, item->size); break;
    case STATUS_EXISTS:
        if (call->options.replace) { /* by a later writer's: then ours comes after it */
            client_put_failed(item, STATUS_BUSY);
            break;
        }
        put_revoke(item);
        client_item_done(item, STATUS_EXISTS, 0);
        break;
    case STATUS_STALE:
    case STATUS_CORRUPT:
    case STATUS_INVALID:
    case STATUS_FULL: client_put_failed(item, status); break;
    case STATUS_BUSY:
        if (!call->options.replace) {
            client_put_failed(item, status);
            break;
        }
        /* fall through */ /* somebody reads the old value: until they have done */
    default:               /* it may have happened: the same commit again tells */
        item->last = status;
        if (client_call_late(call)) {
            client_item_done(item, status, 0);
        } else {
            env_timer_set(call->store->env, &item->retry,
                          env_now_ns(call->store->env) + CLIENT_BACKOFF_MAX_MS * ENV_NS_PER_MS);
        }
        break;
    }
    client_call_settle(call);
}

void client_put_on_retry(void *ctx)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_COMMITTING);

    if (client_call_late(call)) {
        client_item_done(item, item->last, 0);
    } else {
        put_commit(item);
    }
    client_call_settle(call);
}

static void put_commit(struct item *item)
{
    struct call *call = item->call;
    const struct client_place *place = &item->places[0];
    const struct store_commit message = { .key = item->key,
                                          .put_id = item->put_id,
                                          .term = item->term,
                                          .epoch = place->node.epoch,
                                          .address = place->address,
                                          .size = item->size,
                                          .sums_data = item->sums,
                                          .attributes = item->attributes };

    item->state = ITEM_COMMITTING;
    const enum status status =
        client_commits_add(call->store->commits, item->owner, &message,
                           client_try_until(call, CLIENT_OWNER_TRY_MS), on_committed, item);
    if (status == STATUS_OK) {
        call->inner++;
    } else {
        item->last = status;
        env_timer_set(call->store->env, &item->retry,
                      env_now_ns(call->store->env) + CLIENT_BACKOFF_MAX_MS * ENV_NS_PER_MS);
    }
}

static void put_sums(struct item *item)
{
    for (uint32_t i = 0; i < item->sums_count; i++)
        item->sums[i] = client_item_sum(item, item->size, i);
}

void client_put_ticket(struct item *item, const struct store_places *reply, uint32_t i)
{
    struct call *call = item->call;
    struct yolk_store *store = call->store;
    uint64_t until = call->asked_ns + reply->put_ms * ENV_NS_PER_MS; /* I3 */
    if (call->kind == CALL_PUT && until > call->deadline_ns) until = call->deadline_ns;

    item->put_id = msg_u64_at(reply->put_ids, i);
    item->attributes.version = reply->versions.count > 0 ? msg_u32_at(reply->versions, i) : 0;
    if (reply->pins.count > 0 && msg_u32_at(reply->pins, i) != 0) item->attributes.hard_pin = true;
    item->term = reply->term;
    item->write_until_ns = until;
    item->places = malloc(sizeof(*item->places));
    item->piece_size = STORE_PIECE_SIZE;
    item->sums_count = (uint32_t)store_pieces(item->size, item->piece_size);
    item->sums = malloc(item->sums_count * sizeof(*item->sums));
    if (item->places == NULL || item->sums == NULL) {
        client_put_failed(item, STATUS_FULL);
        return;
    }
    item->places_count = 1;
    item->places[0].node = store->nodes[msg_u32_at(reply->nodes, i)];
    item->places[0].address = msg_u64_at(reply->addresses, i);
    if (call->kind == CALL_TICKET) {
        client_item_found(item, item->size);
        return;
    }
    put_sums(item);
    enum status status =
        store_peers_get(store->peers, item->places[0].node.rpc_address, &item->owner);
    if (status == STATUS_OK) {
        item->state = ITEM_MOVING;
        status = client_item_move(item);
    }
    if (status != STATUS_OK) client_put_failed(item, status);
}

void client_put_moved(struct item *item)
{
    put_commit(item);
}
