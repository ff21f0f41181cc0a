/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_put.c - how bytes that a client wrote into our region become a value (store.commit,
 * and store.commits for many), and how a value goes (store.drop).
 *
 *   client                      owner (here)                         master
 *     | WRITE into the ticket's range |                                 |
 *     | store.commit{ticket, sums} -> | checks term, range, checksums   |
 *     |                               | into the manifest               |
 *     |                               | master.put_end ---------------> | COMPLETE
 *     | <---------------------- reply | <------------------------ reply |
 *
 * The reply to the client is the acknowledgement, and it comes only when the owner has committed
 * and the master knows, and what was replaced has been dropped by its owners (I8 of
 * store/master.c). node_ends.c asks the master, about many at a time, until it knows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/commit_wait.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/proto.h"

static enum status commit_place(const struct store_node *node, const struct store_commit *commit)
{
    const uint64_t region = node_region_address(node);

    if (commit->epoch != node->epoch || commit->term != node->term) return STATUS_STALE;
    if (commit->address < region || commit->size > node->object_size) return STATUS_INVALID;
    if (commit->address - region > node->object_size - commit->size) return STATUS_INVALID;
    return STATUS_OK;
}

static uint64_t piece_len(const struct store_commit *commit, uint64_t offset)
{
    const uint64_t left = commit->size - offset;
    return left < STORE_PIECE_SIZE ? left : STORE_PIECE_SIZE;
}

/* Of each piece what it should be, as the writer says. */
static enum status pieces_check(const struct store_commit *commit, uint64_t *sums)
{
    const uint8_t *data = (const uint8_t *)(uintptr_t)commit->address;

    for (size_t i = 0; i < commit->sums.count; i++) {
        const uint64_t offset = (uint64_t)i * STORE_PIECE_SIZE;
        sums[i] = msg_u64_at(commit->sums, i);
        if (hash_xxh3(data + offset, piece_len(commit, offset)) != sums[i]) return STATUS_CORRUPT;
    }
    return STATUS_OK;
}

/* Of a value that was written in parts: the writer vouches for each of them; what is the sum of a
 * piece that is not one part we say ourselves, once all of its parts are right. */
static enum status parts_check(const struct store_commit *commit, uint64_t *sums)
{
    const uint8_t *data = (const uint8_t *)(uintptr_t)commit->address;
    uint64_t at = 0;   /* bytes before part i */
    uint64_t done = 0; /* bytes before the first piece without a sum */

    for (size_t i = 0; i < commit->parts.count; i++) {
        const uint32_t len = msg_u32_at(commit->parts, i);
        const uint64_t sum = hash_xxh3(data + at, len);
        if (sum != msg_u64_at(commit->sums, i)) return STATUS_CORRUPT;
        const bool piece = at == done && len == piece_len(commit, done);
        at += len;
        ASSERT(at <= commit->size);
        for (; done < commit->size && done + piece_len(commit, done) <= at;
             done += piece_len(commit, done)) {
            *sums++ = piece ? sum : hash_xxh3(data + done, piece_len(commit, done));
        }
    }
    return STATUS_OK;
}

/* The sums of its pieces, if all is what the writer says; the caller frees them. */
static enum status commit_check(const struct store_node *node, const struct store_commit *commit,
                                uint64_t **out)
{
    const uint64_t count = store_pieces(commit->size, STORE_PIECE_SIZE);

    enum status status = commit_place(node, commit);
    if (status != STATUS_OK) return status;
    uint64_t *sums = malloc(count * sizeof(*sums));
    if (sums == NULL) return STATUS_FULL;
    status = commit->parts.count > 0 ? parts_check(commit, sums) : pieces_check(commit, sums);
    if (status != STATUS_OK) {
        free(sums);
        return status;
    }
    *out = sums;
    return STATUS_OK;
}

static uint64_t soft_until(const struct store_node *node, const struct store_commit *commit)
{
    const uint32_t wished = commit->attributes.soft_pin_ms;
    const uint32_t ms = wished < STORE_SOFT_PIN_MS_MAX ? wished : STORE_SOFT_PIN_MS_MAX;
    return ms == 0 ? 0 : env_now_ns(node->env) + ms * ENV_NS_PER_MS;
}

/* A put is of the term of its ticket; a copy says what its value is of (store/rank.h). */
static struct store_attributes dated(const struct store_commit *commit)
{
    struct store_attributes attributes = commit->attributes;
    if (attributes.term == 0 || attributes.term > commit->term) attributes.term = commit->term;
    return attributes;
}

/* Into the manifest. The same put again (the client repeats itself) finds what it made. */
static enum status commit_store(struct store_node *node, const struct store_commit *commit,
                                const uint64_t *sums, const struct object **out)
{
    const uint32_t count = (uint32_t)store_pieces(commit->size, STORE_PIECE_SIZE);
    const struct block_key id = store_key_id(commit->key);
    const bool below = objects_find(node->objects, &id) == NULL;
    const struct store_attributes attributes = dated(commit);
    if (below && node_values_newer(node, &id, &attributes)) return STATUS_EXISTS;
    const struct object wanted = { .key = commit->key,
                                   .address = commit->address,
                                   .size = commit->size,
                                   .generation = node->generation + 1,
                                   .put_id = commit->put_id,
                                   .attributes = attributes,
                                   .soft_until_ns = soft_until(node, commit) };
    enum status status = objects_put(node->objects, &wanted, sums, count, out);
    if (status == STATUS_OK) node->generation++;
    if (status == STATUS_OK) traffic_add(&node->traffic, env_now_ns(node->env), commit->size);
    if (status == STATUS_OK) node_values_drop(node, &id); /* what it has replaced */
    if (status == STATUS_EXISTS && (*out)->put_id == commit->put_id &&
        (*out)->address == commit->address) {
        status = STATUS_OK;
    }
    return status;
}

/* One value of the call. If the master is to hear of it, it is settled later, else at once. */
static void commit_one(struct store_node *node, struct commit_wait *wait, uint32_t index,
                       const struct store_commit *commit)
{
    const struct block_key id = store_key_id(commit->key);
    const struct object *object = NULL;
    uint64_t *sums = NULL;

    if (commit->epoch == node->epoch && node_ends_moved_down(node, &id, commit->put_id)) {
        commit_wait_settle(wait, index, STATUS_OK, NULL);
        return;
    }
    enum status status = commit_check(node, commit, &sums);
    if (status == STATUS_OK) status = commit_store(node, commit, sums, &object);
    if (status == STATUS_OK) status = node_ends_add(node, wait, index, commit, object);
    free(sums);
    if (status != STATUS_OK) commit_wait_settle(wait, index, status, "store.commit: refused");
}

void node_handle_commit(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_commit commit;

    enum status status = store_decode_commit(body, len, &commit);
    struct commit_wait *wait = status == STATUS_OK ? commit_wait_create(call, 1, false) : NULL;
    if (wait == NULL) {
        rpc_fail(call, status == STATUS_OK ? STATUS_FULL : status, "store.commit: refused");
        return;
    }
    commit_one(node, wait, 0, &commit);
    node_ends_ask(node);
}

void node_handle_commits(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_commits commits;
    struct store_commits_iter iter = { 0 };
    struct store_commit commit;

    enum status status = store_decode_commits(body, len, &commits);
    struct commit_wait *wait =
        status == STATUS_OK ? commit_wait_create(call, commits.count, true) : NULL;
    if (wait == NULL) {
        rpc_fail(call, status == STATUS_OK ? STATUS_FULL : status, "store.commits: refused");
        return;
    }
    for (uint32_t i = 0; store_commits_next(&commits, &iter, &commit); i++)
        commit_one(node, wait, i, &commit);
    node_ends_ask(node);
}

static bool object_right(const struct object *object)
{
    for (uint32_t i = 0; i < object->sums_count; i++) {
        if (!object_piece_right(object, i)) return false;
    }
    return true;
}

void node_put_fence(struct store_node *node)
{
    const struct object *object;
    uint32_t next = 0;

    if (objects_unsettled(node->objects) == 0) return;
    while ((object = objects_next(node->objects, &next)) != NULL) {
        if (object->settled || object_right(object)) continue;
        const struct block_key id = object->id;
        LOG_INFO("store", "value_overwritten", "put=%" PRIu64, object->put_id);
        node_values_drop(node, &id);
        const enum status status = objects_drop(node->objects, &id, object->generation);
        if (status == STATUS_BUSY) LOG_WARN("store", "overwritten_value_read", "");
    }
}

/* From memory, and from the disk unless the memory is all that is wanted. */
static enum status value_drop(struct store_node *node, const struct store_drop *drop)
{
    const struct object *object = objects_find(node->objects, &drop->id);
    const struct vlog_entry *below = node_values_find(node, &drop->id);
    const bool named = (object != NULL && object->generation == drop->generation) ||
                       (below != NULL && below->generation == drop->generation);

    if (!named) return STATUS_NOT_FOUND;
    if (!drop->evict) node_values_drop(node, &drop->id);
    if (object != NULL) return objects_drop(node->objects, &drop->id, object->generation);
    if (drop->evict) return STATUS_NOT_FOUND;
    node_log(node, STORE_EVENT_REMOVED, STORE_CLASS_OBJECT, &drop->id, drop->generation);
    return STATUS_OK;
}

void node_handle_mark(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_mark mark;

    enum status status = store_decode_mark(body, len, &mark);
    if (status == STATUS_OK) status = store_node_see_term(node, mark.term);
    if (status == STATUS_OK) {
        status = objects_mark(node->objects, &mark.id, mark.generation, mark.replicas);
    }
    if (status == STATUS_OK) {
        rpc_reply(call, NULL, 0);
    } else {
        rpc_fail(call, status, "store.mark: not done");
    }
}

void node_handle_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_drop drop;

    enum status status = store_decode_drop(body, len, &drop);
    if (status == STATUS_OK) status = store_node_see_term(node, drop.term);
    if (status == STATUS_OK && drop.evict && node_values_evict(node, call, &drop)) return;
    if (status == STATUS_OK) status = value_drop(node, &drop);
    if (status == STATUS_BUSY) {
        node_trust_quiet(&node->trust, env_now_ns(node->env));
        node_trust_changed(node);
    }
    if (status == STATUS_OK) {
        rpc_reply(call, NULL, 0);
    } else {
        rpc_fail(call, status, "store.drop: not done");
    }
}
