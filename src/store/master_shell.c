/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_shell.c - requests in, actions out.
 *
 * Every handler does the same: decode, ask the directory (store/master.h), encode, reply, and then
 * carry out what the directory wants done (shell_act()). Actions are: listening to a node's events,
 * asking a node to drop a value, telling the watchers.
 *
 * A listener that hears another epoch than the registered one hears another life of the node: it
 * keeps silent until that life registers, which replaces it. */
#include "store/master_shell.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/master_ends.h"
#include "store/master_look.h"
#include "store/master_removals.h"
#include "store/master_tally.h"
#include "store/peers.h"
#include "store/proto.h"

enum {
    WATCHERS_MAX = 1024,
    DROP_MS = 2000,
    MEMORY_WORTH = 1 << 20, /* bytes */
    COPY_SLACK_MS = 10000,  /* for the commit, behind the time to write */
    /* What is kept for the next batch: */
    CODES_KEPT = 1024,
    PLACES_KEPT = 1024,      /* items */
    ANSWER_KEPT = 128 << 10, /* bytes */
};

struct listener {
    struct listener *next;
    struct store_master_shell *shell;
    struct store_node_id node;
    uint64_t epoch;
    bool mute;  /* another life than the registered one is speaking */
    bool heard; /* the connection is there, and it is the registered life that speaks */
    struct store_subscription *subscription;
};

struct watcher {
    struct watcher *next;
    struct store_master_shell *shell;
    struct rpc_call *call;
};

struct drop {
    struct store_master_shell *shell;
    struct store_node_id node;
    struct block_key id;
    uint64_t generation;
    bool evict;
};

/* A get's or put_start's reply while it is put together. Kept from call to call, unless a large one
 * has made it large. */
struct places {
    uint32_t count;        /* items there is room for */
    uint32_t replicas_max; /* replicas there is room for */
    uint32_t *codes;
    uint64_t *numbers; /* get: sizes; put_start: put ids */
    uint32_t *counts;  /* get: replicas of each item; put_start: versions */
    bool versions;     /* one of them is not 0 */
    uint32_t *nodes;   /* of each replica: place in the list */
    uint64_t *addresses;
    uint32_t replicas_count;
    struct store_reply_node *node_list;
    struct store_node_id node_ids[STORE_REPLY_NODES_MAX];
    uint32_t nodes_count;
};

struct store_master_shell {
    struct env *env;
    struct store_master *master;
    struct store_peers *peers;
    char *secret;
    struct listener *listeners;
    struct watcher *watchers;
    uint32_t watchers_count;
    struct env_timer tick;
    struct master_look look;
    struct master_ends *ends;
    struct master_removals *removals;
    struct master_tally tally;
    uint64_t memory_most; /* the directory had, since some was given back */
    struct places places;
    struct buf answer; /* of a batch, while it is put together; kept as `places` is */
    uint32_t *codes;   /* likewise; CODES_KEPT of them */
    bool closing;
};

static void shell_act(struct store_master_shell *shell);

static uint64_t now(const struct store_master_shell *shell)
{
    return env_now_ns(shell->env);
}

/* ---- listening to nodes ---- */

static void on_reset(void *ctx, uint64_t epoch)
{
    struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    listener->mute = epoch != listener->epoch;
    listener->heard = !listener->mute;
    if (listener->mute) return;
    store_master_reset(shell->master, now(shell), listener->node);
    shell_act(shell);
}

static void on_events(void *ctx, const struct store_event *events, uint32_t count)
{
    const struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    bool removed = false;
    if (listener->mute) return;
    for (uint32_t i = 0; i < count; i++) {
        store_master_event(shell->master, now(shell), listener->node, &events[i]);
        if (events[i].kind != STORE_EVENT_REMOVED) continue;
        master_ends_removed(shell->ends, &events[i].id);
        removed = true;
    }
    if (removed) master_removals_heard(shell->removals);
    shell_act(shell);
}

static void on_synced(void *ctx)
{
    const struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    if (listener->mute) return;
    store_master_synced(shell->master, now(shell), listener->node);
    shell_act(shell);
}

static void on_lost(void *ctx)
{
    struct listener *listener = ctx;
    listener->heard = false;
}

static void listen_to(struct store_master_shell *shell, const struct store_action *action)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    const struct store_subscribe_options options = {
        .env = shell->env,
        .address = action->info.rpc_address,
        .secret = shell->secret,
        .term = store_master_term(shell->master),
        .on_reset = on_reset,
        .on_events = on_events,
        .on_synced = on_synced,
        .on_lost = on_lost,
        .ctx = listener,
    };
    struct errmsg err = { "" };

    if (listener == NULL) return;
    listener->shell = shell;
    listener->node = action->node;
    listener->epoch = action->info.epoch;
    if (store_subscribe(&options, &listener->subscription, &err) != STATUS_OK) {
        LOG_WARN("master", "cannot_listen", "node=%s message=%s", action->info.name, err.text);
        free(listener);
        return;
    }
    listener->next = shell->listeners;
    shell->listeners = listener;
}

/* The struct is freed by the subscription's end only when nothing can call it: at once. */
static void listen_no_more(struct store_master_shell *shell, struct store_node_id node)
{
    struct listener **link = &shell->listeners;
    while (*link != NULL) {
        struct listener *listener = *link;
        if (listener->node.index != node.index) {
            link = &listener->next;
            continue;
        }
        *link = listener->next;
        store_unsubscribe(listener->subscription);
        free(listener);
    }
}

/* ---- drops ---- */

static void on_dropped(void *ctx, const struct rpc_result *result)
{
    struct drop *drop = ctx;
    struct store_master_shell *shell = drop->shell;
    if (!shell->closing) {
        store_master_dropped(shell->master, now(shell), drop->node, &drop->id, drop->generation,
                             result->status);
        if (result->status == STATUS_BUSY) master_removals_heard(shell->removals);
    }
    free(drop);
    if (!shell->closing) shell_act(shell);
}

static enum status drop_send(struct store_master_shell *shell, const char *address,
                             struct drop *drop)
{
    const struct store_drop message = { .term = store_master_term(shell->master),
                                        .id = drop->id,
                                        .generation = drop->generation,
                                        .evict = drop->evict };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    enum status status = store_peers_get(shell->peers, address, &client);
    if (status != STATUS_OK) return status;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    status = store_encode_drop(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_DROP,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = now(shell) + DROP_MS * ENV_NS_PER_MS,
                                         .on_end = on_dropped,
                                         .ctx = drop };
    if (status == STATUS_OK) status = rpc_call(client, &request, &id);
    buf_fini(&buf);
    return status;
}

static void drop_at(struct store_master_shell *shell, const struct store_action *action)
{
    struct drop *drop = calloc(1, sizeof(*drop));
    enum status status = STATUS_FULL;

    if (drop != NULL) {
        *drop = (struct drop){ .shell = shell,
                               .node = action->node,
                               .id = action->id,
                               .generation = action->generation,
                               .evict = action->evict };
        status = drop_send(shell, action->info.rpc_address, drop);
    }
    if (status == STATUS_OK) return;
    store_master_dropped(shell->master, now(shell), action->node, &action->id, action->generation,
                         status);
    free(drop);
}

/* ---- copies ---- */

struct copy {
    struct store_master_shell *shell;
    struct block_key id;
    uint64_t put_id;
};

static void on_copied(void *ctx, const struct rpc_result *result)
{
    struct copy *copy = ctx;
    struct store_master_shell *shell = copy->shell;
    if (!shell->closing) {
        master_tally_one(&shell->tally,
                         result->status == STATUS_OK ? MASTER_OP_COPY_END : MASTER_OP_COPY_REVOKE,
                         STATUS_OK);
        store_master_copied(shell->master, now(shell), &copy->id, copy->put_id, result->status);
    }
    free(copy);
    if (!shell->closing) shell_act(shell);
}

static enum status copy_send(struct store_master_shell *shell, const struct store_action *action,
                             struct copy *copy)
{
    const struct store_ticket *ticket = &action->ticket;
    const uint64_t time = now(shell);
    struct store_copy message = {
        .term = ticket->term,
        .id = action->id,
        .generation = action->generation,
        .put_id = ticket->put_id,
        .address = ticket->where.address,
        .epoch = ticket->where.epoch,
        .put_ms =
            ticket->expires_ns > time ? (uint32_t)((ticket->expires_ns - time) / ENV_NS_PER_MS) : 0,
        .hot = action->hot,
    };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    memcpy(message.rpc_address, ticket->where.rpc_address, sizeof(message.rpc_address));
    memcpy(message.segment, ticket->where.segment, sizeof(message.segment));
    enum status status = store_peers_get(shell->peers, action->info.rpc_address, &client);
    if (status != STATUS_OK) return status;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    status = store_encode_copy(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_COPY,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             ticket->expires_ns + COPY_SLACK_MS * ENV_NS_PER_MS,
                                         .on_end = on_copied,
                                         .ctx = copy };
    if (status == STATUS_OK) status = rpc_call(client, &request, &id);
    buf_fini(&buf);
    return status;
}

static void copy_at(struct store_master_shell *shell, const struct store_action *action)
{
    struct copy *copy = calloc(1, sizeof(*copy));
    enum status status = STATUS_FULL;

    if (copy != NULL) {
        *copy = (struct copy){ shell, action->id, action->ticket.put_id };
        status = copy_send(shell, action, copy);
    }
    master_tally_one(&shell->tally, MASTER_OP_COPY_START, status);
    if (status == STATUS_OK) return;
    store_master_copied(shell->master, now(shell), &action->id, action->ticket.put_id, status);
    free(copy);
}

/* ---- marks ---- */

static void on_marked(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    (void)result; /* whoever has it says what it knows when it is asked next */
}

static void mark_at(struct store_master_shell *shell, const struct store_action *action)
{
    const struct store_mark message = { .term = store_master_term(shell->master),
                                        .id = action->id,
                                        .generation = action->generation,
                                        .replicas = action->replicas };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    if (store_peers_get(shell->peers, action->info.rpc_address, &client) != STATUS_OK) return;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status encoded = store_encode_mark(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_MARK,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = now(shell) + DROP_MS * ENV_NS_PER_MS,
                                         .on_end = on_marked,
                                         .ctx = shell };
    if (encoded != STATUS_OK || rpc_call(client, &request, &id) != STATUS_OK) {
        LOG_DEBUG("store", "mark_not_sent", "node=%s", action->info.name);
    }
    buf_fini(&buf);
}

/* ---- watchers ---- */

static void watcher_end(struct watcher *watcher, enum status why)
{
    struct store_master_shell *shell = watcher->shell;
    struct watcher **link = &shell->watchers;

    while (*link != watcher)
        link = &(*link)->next;
    *link = watcher->next;
    ASSERT(shell->watchers_count > 0);
    shell->watchers_count--;
    rpc_fail(watcher->call, why, NULL);
    free(watcher);
}

static void on_watcher_gone(void *ctx, enum status why)
{
    watcher_end(ctx, why);
}

/* False: the watcher was too slow and is gone; it will ask again and get the whole state. */
static bool watcher_send(struct watcher *watcher, const struct store_watch_item *item)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_watch(&buf, item);
    if (status == STATUS_OK) status = rpc_send(watcher->call, buf_data(&buf), buf.len);
    buf_fini(&buf);
    if (status == STATUS_OK || status == STATUS_CANCELLED) return true; /* cancel: told soon */
    watcher_end(watcher, STATUS_FULL);
    return false;
}

static void watchers_tell(struct store_master_shell *shell, const struct store_action *action)
{
    const struct store_watch_item item = {
        .has_member = true,
        .gone = action->kind == STORE_ACTION_GONE,
        .term = store_master_term(shell->master),
        .state = action->state,
        .info = action->info,
    };
    struct watcher *next;
    for (struct watcher *watcher = shell->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        watcher_send(watcher, &item);
    }
}

static void handle_watch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_watch_item item = { .term = store_master_term(shell->master) };
    struct store_node_id id;
    (void)body;
    (void)len;

    struct watcher *watcher =
        shell->watchers_count < WATCHERS_MAX ? calloc(1, sizeof(*watcher)) : NULL;
    if (watcher == NULL) {
        rpc_fail(call, STATUS_FULL, "master.watch: too many watchers");
        return;
    }
    watcher->shell = shell;
    watcher->call = call;
    watcher->next = shell->watchers;
    shell->watchers = watcher;
    shell->watchers_count++;
    rpc_on_cancel(call, on_watcher_gone, watcher);
    item.has_member = true;
    for (uint32_t i = 0; store_master_member(shell->master, i, &item.info, &item.state, &id); i++) {
        if (!watcher_send(watcher, &item)) return;
    }
    item.has_member = false;
    item.synced = true;
    watcher_send(watcher, &item);
}

/* ---- actions ---- */

static void shell_act(struct store_master_shell *shell)
{
    struct store_action action;

    while (store_master_next_action(shell->master, &action)) {
        switch (action.kind) {
        case STORE_ACTION_LISTEN: listen_to(shell, &action); break;
        case STORE_ACTION_FORGET: listen_no_more(shell, action.node); break;
        case STORE_ACTION_CHANGED:
            LOG_INFO("master", "member", "name=%s role=%s state=%s address=%s", action.info.name,
                     store_role_name(action.info.role), store_member_state_name(action.state),
                     action.info.rpc_address);
            watchers_tell(shell, &action);
            break;
        case STORE_ACTION_GONE:
            LOG_INFO("master", "member_gone", "name=%s", action.info.name);
            watchers_tell(shell, &action);
            break;
        case STORE_ACTION_DROP: drop_at(shell, &action); break;
        case STORE_ACTION_COPY: copy_at(shell, &action); break;
        case STORE_ACTION_MARK: mark_at(shell, &action); break;
        }
    }
}

/* Entries, keys and replicas are small and many: what they leave behind lies between others, and
 * the allocator keeps it unless it is told to look. That takes some 0.15 ms a MB that goes back, so
 * it is done only when a quarter of what the directory had at most is gone. */
static void memory_give_back(struct store_master_shell *shell)
{
    struct store_master_counts counts;

    store_master_counts(shell->master, &counts);
    if (counts.memory > shell->memory_most) shell->memory_most = counts.memory;
    if (shell->memory_most - counts.memory < MEMORY_WORTH) return;
    if (counts.memory > shell->memory_most / 4 * 3) return;
    malloc_trim(0);
    shell->memory_most = counts.memory;
}

static void on_tick(void *ctx)
{
    struct store_master_shell *shell = ctx;
    const uint64_t next = store_master_tick(shell->master, now(shell));
    shell_act(shell);
    memory_give_back(shell);
    env_timer_set(shell->env, &shell->tick, next);
}

/* ---- replies ---- */

/* Ends the call with the buffer, or with what went wrong, and then acts. */
static void reply(struct store_master_shell *shell, struct rpc_call *call, struct buf *buf,
                  enum status status)
{
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(buf), buf->len);
    } else {
        rpc_fail(call, status, NULL);
    }
    buf_fini(buf);
    shell_act(shell);
}

static void reply_term(struct store_master_shell *shell, struct rpc_call *call, enum status status)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (status == STATUS_OK) status = store_encode_term(&buf, store_master_term(shell->master));
    reply(shell, call, &buf, status);
}

/* Is somebody else of this name at work? One that beats and can be heard is; one that was killed is
 * not, from the moment its connection broke, so that its successor need not wait. */
static bool name_taken(const struct store_master_shell *shell, const struct store_member_info *info)
{
    struct store_member_info have;
    enum store_member_state state;
    struct store_node_id id;

    for (uint32_t n = 0; store_master_member(shell->master, n, &have, &state, &id); n++) {
        if (strcmp(have.name, info->name) != 0) continue;
        if (have.epoch == info->epoch || state != STORE_MEMBER_ALIVE) return false;
        const struct listener *listener = shell->listeners;
        while (listener != NULL && listener->node.index != id.index)
            listener = listener->next;
        return listener != NULL && listener->heard;
    }
    return false;
}

/* What the node remembers of earlier masters. What cannot be read was never written by one. */
static void notes_take(struct store_master_shell *shell, struct msg_bytes bytes)
{
    struct store_quota_note *notes = malloc(STORE_TENANTS_MAX * sizeof(*notes));
    uint32_t count = 0;

    if (notes == NULL || store_decode_notes(bytes, notes, &count) != STATUS_OK)
        LOG_WARN("master", "notes_not_read", "bytes=%lu", bytes.len);
    for (uint32_t i = 0; i < count; i++)
        store_master_note_take(shell->master, &notes[i]);
    free(notes);
}

/* All there is to remember, into the buffer. */
static enum status notes_write(const struct store_master_shell *shell, struct buf *buf)
{
    struct store_quota_note *notes = malloc(STORE_TENANTS_MAX * sizeof(*notes));
    uint32_t count = 0;

    if (notes == NULL) return STATUS_NO_MEMORY;
    for (uint32_t cursor = 0; count < STORE_TENANTS_MAX; count++) {
        if (!store_master_note(shell->master, &cursor, &notes[count])) break;
    }
    const enum status status = store_encode_notes(buf, notes, count);
    free(notes);
    return status;
}

static void handle_register(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_register reg;
    struct store_node_id id;

    enum status status = store_decode_register(body, len, &reg);
    const bool again = status == STATUS_OK && reg.term_seen > 0;
    const enum master_op op = again ? MASTER_OP_REMOUNT_SEGMENT : MASTER_OP_MOUNT_SEGMENT;
    if (status == STATUS_OK && name_taken(shell, &reg.info)) status = STATUS_EXISTS;
    if (status == STATUS_OK) {
        status = store_master_register(shell->master, now(shell), &reg.info, reg.term_seen, &id);
    }
    if (status == STATUS_OK && reg.notes.len > 0) notes_take(shell, reg.notes);
    master_tally_one(&shell->tally, op, status);
    reply_term(shell, call, status);
}

static void handle_beat(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t notes_version = store_master_notes_version(shell->master);
    struct store_beaten beaten = { .term = store_master_term(shell->master) };
    struct store_beat beat;
    struct buf notes, buf;

    enum status status = store_decode_beat(body, len, &beat);
    if (status == STATUS_OK) {
        status = store_master_beat(shell->master, now(shell), beat.name, beat.epoch);
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    buf_init(&notes, STORE_NOTES_SIZE_MAX);
    if (status == STATUS_OK && beat.remembers && beat.notes_version != notes_version &&
        notes_version > 0 && notes_write(shell, &notes) == STATUS_OK) {
        beaten.notes_version = notes_version;
        beaten.notes = (struct msg_bytes){ buf_data(&notes), notes.len };
    }
    if (status == STATUS_OK) {
        beaten.draining = store_master_drains(shell->master, beat.name);
        status = store_encode_beaten(&buf, &beaten);
    }
    buf_fini(&notes);
    master_tally_one(&shell->tally, MASTER_OP_PING, status);
    reply(shell, call, &buf, status);
}

static void handle_leave(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_beat beat;

    const enum status status = store_decode_beat(body, len, &beat);
    if (status == STATUS_OK) store_master_leave(shell->master, now(shell), beat.name, beat.epoch);
    master_tally_one(&shell->tally, MASTER_OP_UNMOUNT_SEGMENT, status);
    reply_term(shell, call, status);
}

static void handle_put_end(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_put_end end;

    enum status status = store_decode_put_end(body, len, &end);
    if (status == STATUS_OK) {
        status = store_master_put_end(shell->master, now(shell), end.name, end.epoch, end.put_id,
                                      &end.stored);
    }
    if (status == STATUS_AGAIN && master_ends_wait(shell->ends, call, &end.stored.id)) {
        shell_act(shell);
    } else {
        master_tally_one(&shell->tally, MASTER_OP_PUT_END, status);
        reply_term(shell, call, status);
    }
}

static void handle_put_revoke(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_put_revoke revoke;

    enum status status = store_decode_put_revoke(body, len, &revoke);
    if (status == STATUS_OK) {
        status = store_master_put_revoke(shell->master, now(shell), revoke.writer, revoke.key,
                                         revoke.put_id);
    }
    master_tally_one(&shell->tally, MASTER_OP_PUT_REVOKE, status);
    reply_term(shell, call, status);
}

/* ---- batches ---- */

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
    shell_act(shell);
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
    const enum status status = store_encode_statuses(&shell->answer, codes, count);
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
    const uint64_t now_ns = now(shell);
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

static enum status unmount(struct store_master_shell *shell, const struct store_drain *drain,
                           uint64_t *left)
{
    struct store_unmounting unmounting;
    const enum status status =
        store_master_unmount(shell->master, now(shell), drain->name, drain->keeps_max, &unmounting);
    if (status != STATUS_OK) return status;
    *left = unmounting.left;
    if (unmounting.left == 0) {
        LOG_INFO("master", "unmounted", "name=%s stranded=%lu", drain->name, unmounting.stranded);
    }
    return STATUS_OK;
}

static void handle_drain(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_drain drain;
    struct buf buf;
    uint64_t left = 0;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_decode_drain(body, len, &drain);
    if (status == STATUS_OK && drain.unmount) {
        status = unmount(shell, &drain, &left);
    } else if (status == STATUS_OK) {
        status = store_master_drain(shell->master, now(shell), drain.name, drain.undo, &left);
    }
    if (status == STATUS_OK) status = store_encode_left(&buf, left);
    reply(shell, call, &buf, status);
}

static void places_fini(struct places *places)
{
    free(places->codes);
    free(places->numbers);
    free(places->counts);
    free(places->nodes);
    free(places->addresses);
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
    places->node_list = malloc(STORE_REPLY_NODES_MAX * sizeof(*places->node_list));
    if (places->codes == NULL || places->numbers == NULL || places->counts == NULL ||
        places->nodes == NULL || places->addresses == NULL || places->node_list == NULL) {
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

static void places_replica(struct places *places, const struct store_replica *replica)
{
    places->nodes[places->replicas_count] = places_node(places, replica);
    places->addresses[places->replicas_count] = replica->address;
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
    for (uint32_t r = 0; r < object->replicas_count; r++)
        places_replica(places, &object->replicas[r]);
}

static void handle_get(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = now(shell);
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
        places->addresses[places->replicas_count++] = 0;
        return;
    }
    places->numbers[i] = ticket->put_id;
    places->counts[i] = ticket->version;
    places->versions |= ticket->version != 0;
    places_replica(places, &ticket->where);
}

static void handle_put_start(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = now(shell);
    struct store_batch batch;
    struct store_ticket ticket;
    struct store_wish wish;
    struct places *places = &shell->places;
    struct handfuls all;
    const struct handful *some;
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
            const enum status status =
                store_master_put_start_name(shell->master, now_ns, batch.writer, &some->names[i],
                                            msg_u64_at(batch.sizes, done), &wish, &ticket);
            places_ticket(places, done, status, &ticket);
            if (status != STATUS_OK) continue;
            const uint64_t left = (ticket.expires_ns - now_ns) / ENV_NS_PER_MS;
            if (left < put_ms) put_ms = (uint32_t)left;
        }
    }
    places_reply(shell, call, places, batch.count, true, put_ms == UINT32_MAX ? 0 : put_ms);
}

static void handle_put_ends(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t now_ns = now(shell);
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

/* ---- life ---- */

static void on_act(void *ctx)
{
    shell_act(ctx);
}

static void shell_serve(struct store_master_shell *shell, struct rpc_server *server)
{
    rpc_server_add(server, MASTER_METHOD_REGISTER, "master.register", handle_register, shell);
    rpc_server_add(server, MASTER_METHOD_BEAT, "master.beat", handle_beat, shell);
    rpc_server_add(server, MASTER_METHOD_LEAVE, "master.leave", handle_leave, shell);
    rpc_server_add(server, MASTER_METHOD_WATCH, "master.watch", handle_watch, shell);
    rpc_server_add(server, MASTER_METHOD_EXIST, "master.exist", handle_exist, shell);
    rpc_server_add(server, MASTER_METHOD_GET, "master.get", handle_get, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_START, "master.put_start", handle_put_start, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_END, "master.put_end", handle_put_end, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_ENDS, "master.put_ends", handle_put_ends, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_REVOKE, "master.put_revoke", handle_put_revoke, shell);
    rpc_server_add(server, MASTER_METHOD_REMOVE, "master.remove", handle_remove, shell);
    rpc_server_add(server, MASTER_METHOD_REPLICAS, "master.replicas", handle_replicas, shell);
    rpc_server_add(server, MASTER_METHOD_DRAIN, "master.drain", handle_drain, shell);
    shell->look = (struct master_look){ .env = shell->env,
                                        .master = shell->master,
                                        .removals = shell->removals,
                                        .tally = &shell->tally,
                                        .started_ns = now(shell),
                                        .act = on_act,
                                        .ctx = shell };
    master_look_serve(&shell->look, server);
}

enum status store_master_shell_create(const struct store_master_shell_options *options,
                                      struct store_master_shell **out, struct errmsg *err)
{
    ASSERT(options->server != NULL);
    struct store_master_options master = options->master;
    struct store_master_shell *shell = calloc(1, sizeof(*shell));
    if (shell == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    shell->env = options->env;
    if (master.term == 0) master.term = env_wall_ns(shell->env) / ENV_NS_PER_MS + 1;
    if (master.seed == 0) env_random(shell->env, &master.seed, sizeof(master.seed));
    env_timer_init(&shell->tick, on_tick, shell);
    shell->secret = strdup(options->secret == NULL ? "" : options->secret);
    shell->codes = malloc(CODES_KEPT * sizeof(*shell->codes));
    buf_init(&shell->answer, RPC_BODY_SIZE_MAX);
    enum status status =
        shell->secret == NULL || shell->codes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        status = store_peers_create(shell->env, options->secret, "master", &shell->peers);
    }
    if (status == STATUS_OK) {
        status = store_master_create(&master, env_now_ns(shell->env), &shell->master);
    }
    if (status == STATUS_OK) {
        status =
            master_ends_create(shell->env, shell->master, &shell->tally, master.seed, &shell->ends);
    }
    if (status == STATUS_OK) {
        status = master_removals_create(shell->env, shell->master, &shell->removals);
    }
    if (status != STATUS_OK) {
        store_master_shell_destroy(shell);
        return errmsg_set(err, status, "the directory cannot be made: %s", status_name(status));
    }
    shell_serve(shell, options->server);
    on_tick(shell);
    *out = shell;
    return STATUS_OK;
}

void store_master_shell_destroy(struct store_master_shell *shell)
{
    if (shell == NULL) return;
    shell->closing = true;
    env_timer_cancel(shell->env, &shell->tick);
    while (shell->listeners != NULL) {
        struct listener *listener = shell->listeners;
        shell->listeners = listener->next;
        store_unsubscribe(listener->subscription);
        free(listener);
    }
    while (shell->watchers != NULL)
        watcher_end(shell->watchers, STATUS_UNAVAILABLE);
    store_peers_destroy(shell->peers);
    master_ends_destroy(shell->ends);
    master_removals_destroy(shell->removals);
    store_master_destroy(shell->master);
    places_fini(&shell->places);
    buf_fini(&shell->answer);
    free(shell->codes);
    free(shell->secret);
    free(shell);
}

struct store_master *store_master_shell_directory(struct store_master_shell *shell)
{
    return shell->master;
}

const struct master_tally *store_master_shell_tally(const struct store_master_shell *shell)
{
    return &shell->tally;
}
