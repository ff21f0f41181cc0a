/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_shell.c - requests in, actions out.
 *
 * Every handler does the same: decode, ask the directory (store/master.h), encode, reply, and then
 * carry out what the directory wants done (master_shell_act()). Actions are: listening to a node's
 * events, asking a node to drop a value, telling the watchers. */
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
#include "store/master_shell_int.h"
#include "store/master_tally.h"
#include "store/peers.h"
#include "store/proto.h"

enum { MEMORY_WORTH = 1 << 20 /* bytes */ };

/* ---- actions ---- */

void master_shell_act(struct store_master_shell *shell)
{
    struct store_action action;

    while (store_master_next_action(shell->master, &action)) {
        switch (action.kind) {
        case STORE_ACTION_LISTEN: master_nodes_listen(shell, &action); break;
        case STORE_ACTION_FORGET: master_nodes_forget(shell, action.node); break;
        case STORE_ACTION_CHANGED:
            LOG_INFO("master", "member", "name=%s role=%s state=%s address=%s", action.info.name,
                     store_role_name(action.info.role), store_member_state_name(action.state),
                     action.info.rpc_address);
            master_watch_tell(shell, &action);
            break;
        case STORE_ACTION_GONE:
            LOG_INFO("master", "member_gone", "name=%s", action.info.name);
            master_watch_tell(shell, &action);
            break;
        case STORE_ACTION_DROP: master_nodes_drop(shell, &action); break;
        case STORE_ACTION_COPY: master_nodes_copy(shell, &action); break;
        case STORE_ACTION_BARRED:
            LOG_WARN("master", "node_quarantined", "name=%s ms=%u", action.info.name,
                     action.bar_ms);
            break;
        case STORE_ACTION_MARK: master_nodes_mark(shell, &action); break;
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
    const uint64_t next = store_master_tick(shell->master, master_shell_now(shell));
    master_shell_act(shell);
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
    master_shell_act(shell);
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
        return master_nodes_heard(shell, id);
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
        status = store_master_register(shell->master, master_shell_now(shell), &reg.info,
                                       reg.term_seen, &id);
    }
    if (status == STATUS_OK && reg.notes.len > 0) notes_take(shell, reg.notes);
    master_tally_one(&shell->tally, op, status);
    const struct store_beaten beaten = { .term = store_master_term(shell->master),
                                         .clock_ns = master_shell_now(shell) };
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (status == STATUS_OK) status = store_encode_beaten(&buf, &beaten);
    reply(shell, call, &buf, status);
}

static void handle_beat(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    const uint64_t notes_version = store_master_notes_version(shell->master);
    struct store_beaten beaten = { .term = store_master_term(shell->master),
                                   .clock_ns = master_shell_now(shell) };
    struct store_beat beat;
    struct buf notes, buf;

    enum status status = store_decode_beat(body, len, &beat);
    if (status == STATUS_OK) {
        status = store_master_beat(shell->master, master_shell_now(shell), beat.name, beat.epoch);
    }
    if (status == STATUS_OK) store_master_load(shell->master, beat.name, &beat.load);
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
    if (status == STATUS_OK)
        store_master_leave(shell->master, master_shell_now(shell), beat.name, beat.epoch);
    master_tally_one(&shell->tally, MASTER_OP_UNMOUNT_SEGMENT, status);
    reply_term(shell, call, status);
}

static void handle_put_end(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_put_end end;

    enum status status = store_decode_put_end(body, len, &end);
    if (status == STATUS_OK) {
        status = store_master_put_end(shell->master, master_shell_now(shell), end.name, end.epoch,
                                      end.put_id, &end.stored);
    }
    if (status == STATUS_AGAIN && master_ends_wait(shell->ends, call, &end.stored.id)) {
        master_shell_act(shell);
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
        status = store_master_put_revoke(shell->master, master_shell_now(shell), revoke.writer,
                                         revoke.key, revoke.put_id);
    }
    master_tally_one(&shell->tally, MASTER_OP_PUT_REVOKE, status);
    reply_term(shell, call, status);
}

static enum status unmount(struct store_master_shell *shell, const struct store_drain *drain,
                           uint64_t *left)
{
    struct store_unmounting unmounting;
    const enum status status = store_master_unmount(shell->master, master_shell_now(shell),
                                                    drain->name, drain->keeps_max, &unmounting);
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
        status = store_master_drain(shell->master, master_shell_now(shell), drain.name, drain.undo,
                                    &left);
    }
    if (status == STATUS_OK) status = store_encode_left(&buf, left);
    reply(shell, call, &buf, status);
}
/* ---- life ---- */

static void on_act(void *ctx)
{
    master_shell_act(ctx);
}

static void shell_serve(struct store_master_shell *shell, struct rpc_server *server)
{
    rpc_server_add(server, MASTER_METHOD_REGISTER, "master.register", handle_register, shell);
    rpc_server_add(server, MASTER_METHOD_BEAT, "master.beat", handle_beat, shell);
    rpc_server_add(server, MASTER_METHOD_LEAVE, "master.leave", handle_leave, shell);
    rpc_server_add(server, MASTER_METHOD_WATCH, "master.watch", master_watch_handle, shell);
    master_batch_serve(shell, server);
    rpc_server_add(server, MASTER_METHOD_PUT_END, "master.put_end", handle_put_end, shell);
    rpc_server_add(server, MASTER_METHOD_PUT_REVOKE, "master.put_revoke", handle_put_revoke, shell);
    rpc_server_add(server, MASTER_METHOD_DRAIN, "master.drain", handle_drain, shell);
    shell->look = (struct master_look){ .env = shell->env,
                                        .master = shell->master,
                                        .removals = shell->removals,
                                        .tally = &shell->tally,
                                        .started_ns = master_shell_now(shell),
                                        .act = on_act,
                                        .ctx = shell };
    master_look_serve(&shell->look, server);
    master_task_serve(shell, server);
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
    enum status status = master_batch_init(shell);
    if (shell->secret == NULL) status = STATUS_NO_MEMORY;
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
    master_nodes_fini(shell);
    master_watch_fini(shell);
    store_peers_destroy(shell->peers);
    master_ends_destroy(shell->ends);
    master_removals_destroy(shell->removals);
    store_master_destroy(shell->master);
    master_batch_fini(shell);
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
