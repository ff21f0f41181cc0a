/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_batch.c - the calls that name many keys: exist, get, put_start, put_ends,
 * put_revokes, remove, replicas. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "net/rpc.h"
#include "store/master_shell_int.h"
#include "store/master_removals.h"
#include "store/proto.h"

enum {
    /* What is kept for the next batch: */
    CODES_KEPT = 1024,
    PLACES_KEPT = 1024,      /* items */
    ANSWER_KEPT = 128 << 10, /* bytes */
};

/* As reply(), with the buffer that is kept. */
static void reply_kept(struct store_master_shell *shell, struct rpc_call *call, enum status status)
{
    struct buf *buf = &shell->answer;
    if (status == STATUS_OK) {
        master_removals_reply(shell->removals, call, buf_data(buf), buf->len);
    } else {
        rpc_fail(call, status, NULL);
    }
    buf_clear(buf);
    if (buf->cap > ANSWER_KEPT) {
        buf_fini(buf);
        buf_init(buf, RPC_BODY_SIZE_MAX);
    }
    master_shell_act(shell);
}

/* Room for the answers to a batch: NULL if there is no memory. To be given back. */
static uint32_t *codes_borrow(struct store_master_shell *shell, uint32_t count)
{
    return count <= CODES_KEPT ? shell->codes : malloc(count * sizeof(uint32_t));
}

static void codes_give_back(struct store_master_shell *shell, uint32_t *codes)
{
    if (codes != shell->codes) free(codes);
}

static void reply_codes(struct store_master_shell *shell, struct rpc_call *call, enum master_op op,
                        uint32_t *codes, uint32_t count)
{
    master_tally_codes(&shell->tally, op, codes, count);
    const enum status status = op == MASTER_OP_REMOVE
                                   ? store_encode_removals(&shell->answer, codes, count)
                                   : store_encode_statuses(&shell->answer, codes, count);
    codes_give_back(shell, codes);
    reply_kept(shell, call, status);
}

/* Nothing of it was looked at. */
static void refuse(struct store_master_shell *shell, struct rpc_call *call, enum master_op op,
                   enum status status, const char *message)
{
    master_tally_one(&shell->tally, op, status);
    rpc_fail(call, status, message);
}

/* Some keys of a batch, with their identities. */
struct handful {
    struct store_name names[STORE_EXPECT_MAX];
    uint32_t count;
};

/* The keys of a batch by the handful. While memory for one is on its way, the next is hashed, in
 * two halves: the first waits for what stands under the names, the second for what that leads to.
 */
struct handfuls {
    const struct store_master *master;
    const struct store_batch *batch;
    struct store_batch_iter iter;
    struct handful two[2];
    uint32_t at; /* of the two: which comes next */
};

static void handful_fill(struct handfuls *all, struct handful *some, uint32_t count)
{
    while (some->count < count && store_batch_next(all->batch, &all->iter)) {
        struct store_name *name = &some->names[some->count++];
        *name = (struct store_name){ .key = all->iter.key, .id = store_key_id(all->iter.key) };
        store_master_expect_name(all->master, name);
    }
}

static void handfuls_init(struct handfuls *all, const struct store_master *master,
                          const struct store_batch *batch)
{
    all->master = master;
    all->batch = batch;
    all->iter = (struct store_batch_iter){ 0 };
    all->at = 0;
    all->two[0].count = 0;
    handful_fill(all, &all->two[0], STORE_EXPECT_MAX);
}

/* NULL: there are no more. Valid until the next call. */
static const struct handful *handfuls_next(struct handfuls *all, uint64_t now_ns)
{
    struct handful *some = &all->two[all->at];
    struct handful *next = &all->two[1 - all->at];
    struct store_expected expected;

    next->count = 0;
    all->at = 1 - all->at;
    if (some->count <= 1) return some->count == 1 ? some : NULL; /* nothing to wait beside */
    store_master_expect_entries(all->master, some->names, some->count, &expected);
    handful_fill(all, next, STORE_EXPECT_MAX / 2);
    store_master_expect_rest(all->master, now_ns, &expected);
    handful_fill(all, next, STORE_EXPECT_MAX);
    return some;
}

typedef enum status (*name_fn)(struct store_master_shell *shell, const struct store_batch *batch,
                               uint64_t now_ns, const struct store_name *name);

/* exist, remove and replicas: one status a key. */
static void handle_codes(struct store_master_shell *shell, struct rpc_call *call,
                         const uint8_t *body, size_t len, enum master_op op, name_fn answer)
{
    const uint64_t now_ns = master_shell_now(shell);
    struct store_batch batch;
    struct handfuls all;
    const struct handful *some;
    uint32_t done = 0;

    if (store_decode_batch(body, len, &batch) != STATUS_OK) {
        refuse(shell, call, op, STATUS_INVALID, "malformed batch");
        return;
    }
    uint32_t *codes = codes_borrow(shell, batch.count);
    if (codes == NULL) {
        refuse(shell, call, op, STATUS_FULL, "no memory");
        return;
    }
    handfuls_init(&all, shell->master, &batch);
    while ((some = handfuls_next(&all, now_ns)) != NULL) {
        for (uint32_t i = 0; i < some->count; i++)
            codes[done++] = store_status_code(answer(shell, &batch, now_ns, &some->names[i]));
    }
    reply_codes(shell, call, op, codes, batch.count);
}

static enum status answer_exist(struct store_master_shell *shell, const struct store_batch *batch,
                                uint64_t now_ns, const struct store_name *name)
{
    (void)batch;
    return store_master_exist_name(shell->master, now_ns, name);
}

static enum status answer_remove(struct store_master_shell *shell, const struct store_batch *batch,
                                 uint64_t now_ns, const struct store_name *name)
{
    const enum status status = store_master_remove(shell->master, now_ns, name->key, batch->force);
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) {
        master_removals_note(shell->removals, &name->id);
    }
    return status;
}

static enum status answer_replicas(struct store_master_shell *shell,
                                   const struct store_batch *batch, uint64_t now_ns,
                                   const struct store_name *name)
{
    return store_master_replicas(shell->master, now_ns, name->key, batch->replicas);
}

static enum status answer_clear(struct store_master_shell *shell, const struct store_batch *batch,
                                uint64_t now_ns, const struct store_name *name)
{
    const enum status status =
        store_master_clear(shell->master, now_ns, name->key, batch->preferred);
    if (status == STATUS_OK) master_removals_note(shell->removals, &name->id); /* if it all goes */
    return status;
}

static void handle_exist(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    handle_codes(ctx, call, body, len, MASTER_OP_EXIST_KEY, answer_exist);
}

static void handle_remove(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    handle_codes(ctx, call, body, len, MASTER_OP_REMOVE, answer_remove);
}

static void handle_replicas(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    handle_codes(ctx, call, body, len, MASTER_OP_CREATE_COPY_TASK, answer_replicas);
}

static void handle_clear(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    handle_codes(ctx, call, body, len, MASTER_OP_REPLICA_CLEAR, answer_clear);
}

/* ---- places ---- */

static void places_fini(struct places *places)
{
    free(places->codes);
    free(places->numbers);
    free(places->counts);
    free(places->nodes);
    free(places->addresses);
    free(places->flags);
    free(places->yields);
    free(places->node_list);
    *places = (struct places){ 0 };
}

static bool places_grow(struct places *places, uint32_t count, uint32_t replicas_max)
{
    places_fini(places);
    places->codes = calloc(count, sizeof(uint32_t));
    places->numbers = calloc(count, sizeof(uint64_t));
    places->counts = calloc(count, sizeof(uint32_t));
    places->nodes = calloc(replicas_max, sizeof(uint32_t));
    places->addresses = calloc(replicas_max, sizeof(uint64_t));
    places->flags = calloc(replicas_max, sizeof(uint32_t));
    places->yields = calloc(replicas_max, sizeof(uint32_t));
    places->node_list = malloc(STORE_REPLY_NODES_MAX * sizeof(*places->node_list));
    if (places->codes == NULL || places->numbers == NULL || places->counts == NULL ||
        places->nodes == NULL || places->addresses == NULL || places->flags == NULL ||
        places->yields == NULL || places->node_list == NULL) {
        places_fini(places);
        return false;
    }
    places->count = count;
    places->replicas_max = replicas_max;
    return true;
}

/* Empty, with room for so many items of so many replicas each. False: no memory. */
static bool places_begin(struct places *places, uint32_t count, uint32_t replicas_each)
{
    const uint32_t replicas_max = count * replicas_each;
    if (count > places->count || replicas_max > places->replicas_max) {
        if (!places_grow(places, count, replicas_max)) return false;
    }
    memset(places->numbers, 0, count * sizeof(uint64_t));
    memset(places->counts, 0, count * sizeof(uint32_t));
    places->versions = false;
    places->flagged = false;
    places->yielding = false;
    places->replicas_count = 0;
    places->nodes_count = 0;
    return true;
}

static uint32_t places_node(struct places *places, const struct store_replica *replica)
{
    for (uint32_t i = 0; i < places->nodes_count; i++) {
        if (places->node_ids[i].index == replica->node.index) return i;
    }
    ASSERT(places->nodes_count < STORE_REPLY_NODES_MAX); /* no more members than that */
    struct store_reply_node *node = &places->node_list[places->nodes_count];
    memcpy(node->rpc_address, replica->rpc_address, sizeof(node->rpc_address));
    memcpy(node->segment, replica->segment, sizeof(node->segment));
    node->epoch = replica->epoch;
    places->node_ids[places->nodes_count] = replica->node;
    return places->nodes_count++;
}

static void places_replica(struct places *places, const struct store_replica *replica, bool flag)
{
    places->nodes[places->replicas_count] = places_node(places, replica);
    places->addresses[places->replicas_count] = replica->address;
    places->flags[places->replicas_count] = flag;
    places->flagged |= flag;
    places->replicas_count++;
}

static void places_reply(struct store_master_shell *shell, struct rpc_call *call,
                         struct places *places, uint32_t count, bool put, uint32_t put_ms)
{
    const struct store_places_out message = {
        .count = count,
        .replicas_count = places->replicas_count,
        .term = store_master_term(shell->master),
        .put_ms = put_ms,
        .codes = places->codes,
        .sizes = put ? NULL : places->numbers,
        .put_ids = put ? places->numbers : NULL,
        .counts = put ? NULL : places->counts,
        .nodes = places->nodes,
        .addresses = places->addresses,
        .versions = put && places->versions ? places->counts : NULL,
        .disks = !put && places->flagged ? places->flags : NULL,
        .yields = !put && places->yielding ? places->yields : NULL,
        .pins = put && places->flagged ? places->flags : NULL,
        .node_list = places->node_list,
        .nodes_count = places->nodes_count,
    };
    master_tally_codes(&shell->tally, put ? MASTER_OP_PUT_START : MASTER_OP_GET_REPLICA_LIST,
                       places->codes, count);
    const enum status status = store_encode_places(&shell->answer, &message);
    if (places->count > PLACES_KEPT) places_fini(places);
    reply_kept(shell, call, status);
}

/* What is there of item i, or why nothing is. */
static void places_object(struct places *places, uint32_t i, enum status status,
                          const struct store_object *object)
{
    places->codes[i] = store_status_code(status);
    if (status != STATUS_OK) return;
    places->numbers[i] = object->size;
    places->counts[i] = object->replicas_count;
    for (uint32_t r = 0; r < object->replicas_count; r++) {
        const struct store_replica *replica = &object->replicas[r];
        places->yields[places->replicas_count] = replica->yields;
        places->yielding |= replica->yields;
        places_replica(places, replica, replica->disk);
    }
}

static void handle_get(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = master_shell_now(shell);
    struct store_batch batch;
    struct store_object object;
    struct places *places = &shell->places;
    struct handfuls all;
    const struct handful *some;
    uint32_t done = 0;

    if (store_decode_batch(body, len, &batch) != STATUS_OK) {
        refuse(shell, call, MASTER_OP_GET_REPLICA_LIST, STATUS_INVALID, "master.get: malformed");
        return;
    }
    if (!places_begin(places, batch.count, STORE_REPLICAS_MAX)) {
        refuse(shell, call, MASTER_OP_GET_REPLICA_LIST, STATUS_FULL, "master.get: no memory");
        return;
    }
    handfuls_init(&all, shell->master, &batch);
    while ((some = handfuls_next(&all, now_ns)) != NULL) {
        for (uint32_t i = 0; i < some->count; i++) {
            const struct store_name *name = &some->names[i];
            const enum status status =
                batch.peek ? store_master_peek(shell->master, now_ns, name->key, &object)
                           : store_master_get_name(shell->master, now_ns, name, &object);
            if (status == STATUS_OK && batch.reads.count > 0) {
                const uint32_t times = msg_u32_at(batch.reads, done);
                store_master_was_read(shell->master, now_ns, name, times);
            }
            places_object(places, done++, status, &object);
        }
    }
    places_reply(shell, call, places, batch.count, false, 0);
}

static void places_ticket(struct places *places, uint32_t i, enum status status,
                          const struct store_ticket *ticket)
{
    places->codes[i] = store_status_code(status);
    if (status != STATUS_OK) { /* one place a key, empty for this one */
        places->nodes[places->replicas_count] = 0;
        places->flags[places->replicas_count] = 0;
        places->addresses[places->replicas_count++] = 0;
        return;
    }
    places->numbers[i] = ticket->put_id;
    places->counts[i] = ticket->version;
    places->versions |= ticket->version != 0;
    places_replica(places, &ticket->where, ticket->hard_pin);
}

static void handle_put_start(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = master_shell_now(shell);
    struct store_batch batch;
    struct store_ticket ticket;
    struct store_wish wish;
    struct places *places = &shell->places;
    struct handfuls all;
    const struct handful *some;
    struct store_node_id near = { 0 };
    bool placed = false;          /* one of them, at `near` */
    uint32_t put_ms = UINT32_MAX; /* that of the shortest ticket */
    uint32_t done = 0;

    if (store_decode_batch(body, len, &batch) != STATUS_OK || batch.sizes.count == 0) {
        refuse(shell, call, MASTER_OP_PUT_START, STATUS_INVALID, "master.put_start: malformed");
        return;
    }
    if (!places_begin(places, batch.count, 1)) {
        refuse(shell, call, MASTER_OP_PUT_START, STATUS_FULL, "master.put_start: no memory");
        return;
    }
    handfuls_init(&all, shell->master, &batch);
    while ((some = handfuls_next(&all, now_ns)) != NULL) {
        for (uint32_t i = 0; i < some->count; i++, done++) {
            store_batch_wish(&batch, done, &wish);
            if (batch.together && placed) wish.near = &near;
            const enum status status =
                store_master_put_start_name(shell->master, now_ns, batch.writer, &some->names[i],
                                            msg_u64_at(batch.sizes, done), &wish, &ticket);
            places_ticket(places, done, status, &ticket);
            if (status != STATUS_OK) continue;
            near = ticket.where.node;
            placed = true;
            const uint64_t left = (ticket.expires_ns - now_ns) / ENV_NS_PER_MS;
            if (left < put_ms) put_ms = (uint32_t)left;
        }
    }
    places_reply(shell, call, places, batch.count, true, put_ms == UINT32_MAX ? 0 : put_ms);
}

static void handle_put_ends(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = master_shell_now(shell);
    struct store_put_ends ends;
    struct store_ended some[STORE_EXPECT_MAX];
    struct store_name names[STORE_EXPECT_MAX];
    struct store_expected expected;
    size_t offset = 0;

    if (store_decode_put_ends(body, len, &ends) != STATUS_OK) {
        refuse(shell, call, MASTER_OP_PUT_END, STATUS_INVALID, "master.put_ends: malformed");
        return;
    }
    uint32_t *codes = codes_borrow(shell, ends.count);
    if (codes == NULL) {
        refuse(shell, call, MASTER_OP_PUT_END, STATUS_FULL, "master.put_ends: no memory");
        return;
    }
    for (uint32_t first = 0; first < ends.count; first += STORE_EXPECT_MAX) {
        const uint32_t left = ends.count - first;
        const uint32_t count = left < STORE_EXPECT_MAX ? left : STORE_EXPECT_MAX;
        for (uint32_t i = 0; i < count; i++) {
            store_put_ends_at(&ends, first + i, &offset, &some[i]);
            names[i].id = some[i].stored.id;
            store_master_expect_name(shell->master, &names[i]);
        }
        store_master_expect_entries(shell->master, names, count, &expected);
        store_master_expect_rest(shell->master, now_ns, &expected);
        for (uint32_t i = 0; i < count; i++) {
            const enum status status = store_master_put_end(
                shell->master, now_ns, ends.name, ends.epoch, some[i].put_id, &some[i].stored);
            codes[first + i] = store_status_code(status);
        }
    }
    reply_codes(shell, call, MASTER_OP_PUT_END, codes, ends.count);
}

static void handle_put_revokes(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = master_shell_now(shell);
    struct store_put_revokes revokes;
    struct store_put_revoke one;
    size_t offset = 0;

    if (store_decode_put_revokes(body, len, &revokes) != STATUS_OK) {
        refuse(shell, call, MASTER_OP_PUT_REVOKE, STATUS_INVALID, "master.put_revokes: malformed");
        return;
    }
    uint32_t *codes = codes_borrow(shell, revokes.count);
    if (codes == NULL) {
        refuse(shell, call, MASTER_OP_PUT_REVOKE, STATUS_FULL, "master.put_revokes: no memory");
        return;
    }
    for (uint32_t i = 0; i < revokes.count; i++) {
        store_put_revokes_at(&revokes, i, &offset, &one);
        codes[i] = store_status_code(
            store_master_put_revoke(shell->master, now_ns, one.writer, one.key, one.put_id));
    }
    reply_codes(shell, call, MASTER_OP_PUT_REVOKE, codes, revokes.count);
}

/* ---- life ---- */

enum status master_batch_init(struct store_master_shell *shell)
{
    shell->codes = malloc(CODES_KEPT * sizeof(*shell->codes));
    buf_init(&shell->answer, RPC_BODY_SIZE_MAX);
    return shell->codes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

void master_batch_fini(struct store_master_shell *shell)
{
    places_fini(&shell->places);
    buf_fini(&shell->answer);
    free(shell->codes);
}

void master_batch_serve(struct store_master_shell *shell, struct rpc_server *server)
{
    rpc_server_add(server, MASTER_METHOD_EXIST, "master.exist", handle_exist, shell);
    rpc_server_add(server, MASTER_METHOD_GET, "master.get", handle_get, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_START, "master.put_start", handle_put_start, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_ENDS, "master.put_ends", handle_put_ends, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_REVOKES, "master.put_revokes", handle_put_revokes,
                   shell);
    rpc_server_add(server, MASTER_METHOD_REMOVE, "master.remove", handle_remove, shell);
    rpc_server_add(server, MASTER_METHOD_REPLICAS, "master.replicas", handle_replicas, shell);
    rpc_server_add(server, MASTER_METHOD_CLEAR, "master.clear", handle_clear, shell);
}
