/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_doubt.c - see the header. */
#include "store/node_doubt.h"

#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/objects.h"
#include "store/proto.h"

enum {
    LOOK_SIZE = 1 << 20, /* bytes hashed in one go, */
    LOOK_MS = 4,         /* one so often */
    DROP_MS = 50,        /* between tries to drop what is still pinned */
};

static struct doubt *doubt_find(struct node_doubts *doubts, const struct block_key *id)
{
    for (uint32_t i = 0; i < doubts->count; i++) {
        if (block_key_equal(&doubts->list[i].id, id)) return &doubts->list[i];
    }
    return NULL;
}

static void doubt_forget(struct node_doubts *doubts, struct doubt *doubt)
{
    ASSERT(doubts->count > 0);
    for (struct doubt *last = &doubts->list[--doubts->count]; doubt < last; doubt++)
        doubt[0] = doubt[1]; /* in the order in which they came */
}

/* I2 */
static void look_soon(struct store_node *node)
{
    struct env_timer *timer = &node->doubts.timer;
    const uint64_t now = env_now_ns(node->env);
    const uint64_t at = node->doubts.looked_ns + LOOK_MS * ENV_NS_PER_MS;
    if (env_timer_armed(timer) && timer->deadline_ns <= at) return;
    env_timer_set(node->env, timer, at > now ? at : now);
}

/* The value that is doubted; NULL: there is another by now, or none. */
static const struct object *doubted(const struct store_node *node, const struct doubt *doubt)
{
    const struct object *object = objects_find(node->objects, &doubt->id);
    return object != NULL && object->generation == doubt->generation ? object : NULL;
}

/* The next pieces, up to LOOK_SIZE. False: one of them is wrong (I1). */
static bool pieces_right(struct doubt *doubt, const struct object *object)
{
    ASSERT(object->sums_count == store_pieces(object->size, STORE_PIECE_SIZE));
    for (uint32_t left = LOOK_SIZE / STORE_PIECE_SIZE; left > 0; left--) {
        if (doubt->piece == object->sums_count) break;
        if (!object_piece_right(object, doubt->piece)) return false;
        doubt->piece++;
    }
    return true;
}

/* Those that are known to be wrong, and that nobody reads any more. */
static void wrong_drop(struct store_node *node)
{
    struct node_doubts *doubts = &node->doubts;

    for (uint32_t i = doubts->count; i > 0; i--) {
        struct doubt *doubt = &doubts->list[i - 1];
        if (!doubt->wrong) continue;
        if (objects_drop(node->objects, &doubt->id, doubt->generation) != STATUS_BUSY) {
            doubt_forget(doubts, doubt);
        }
    }
}

/* Goes on with the one that has waited longest. False: none waits. */
static bool look(struct store_node *node)
{
    struct node_doubts *doubts = &node->doubts;
    struct doubt *doubt = doubts->list;

    while (doubt < doubts->list + doubts->count && doubt->wrong)
        doubt++;
    if (doubt == doubts->list + doubts->count) return false;
    const struct object *object = doubted(node, doubt);
    if (object == NULL) {
        doubt_forget(doubts, doubt);
    } else if (!pieces_right(doubt, object)) {
        doubt->wrong = true;
        doubts->wrong_total++;
        LOG_WARN("store", "own_value_wrong", "bytes=%llu piece=%u",
                 (unsigned long long)object->size, doubt->piece);
    } else if (doubt->piece == object->sums_count) {
        LOG_DEBUG("store", "value_doubted_is_right", "bytes=%llu",
                  (unsigned long long)object->size);
        doubt_forget(doubts, doubt);
    }
    return true;
}

static void on_look(void *ctx)
{
    struct store_node *node = ctx;
    struct node_doubts *doubts = &node->doubts;
    const uint64_t now = env_now_ns(node->env);
    const bool looked = look(node);

    wrong_drop(node);
    if (looked) doubts->looked_ns = now;
    if (doubts->count == 0) return;
    if (looked) {
        look_soon(node);
    } else {
        env_timer_set(node->env, &doubts->timer, now + DROP_MS * ENV_NS_PER_MS);
    }
}

void node_doubt(struct store_node *node, const struct block_key *id)
{
    struct node_doubts *doubts = &node->doubts;
    const struct object *object = objects_find(node->objects, id);

    if (object == NULL) return;
    struct doubt *doubt = doubt_find(doubts, id);
    if (doubt != NULL && doubt->generation == object->generation) return;
    if (doubt == NULL && doubts->count == DOUBTS_MAX) return;
    if (doubt == NULL) doubt = &doubts->list[doubts->count++];
    *doubt = (struct doubt){ .id = *id, .generation = object->generation };
    look_soon(node);
}

bool node_doubts_wrong(const struct store_node *node, const struct object *object)
{
    for (uint32_t i = 0; i < node->doubts.count; i++) {
        const struct doubt *doubt = &node->doubts.list[i];
        if (doubt->wrong && doubt->generation == object->generation &&
            block_key_equal(&doubt->id, &object->id))
            return true;
    }
    return false;
}

void node_handle_doubt(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_acquire message;
    struct block_key id;

    if (store_decode_acquire(body, len, &message) != STATUS_OK ||
        message.class != STORE_CLASS_OBJECT) {
        rpc_fail(call, STATUS_INVALID, "store.doubt: malformed");
        return;
    }
    for (uint32_t i = 0; i < message.count; i++) {
        memcpy(id.bytes, message.ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
        node_doubt(node, &id);
    }
    rpc_reply(call, NULL, 0);
}

void node_doubts_init(struct store_node *node)
{
    env_timer_init(&node->doubts.timer, on_look, node);
}

void node_doubts_fini(struct store_node *node)
{
    env_timer_cancel(node->env, &node->doubts.timer);
}
