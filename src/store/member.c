/* SPDX-License-Identifier: Apache-2.0
 *
 * store/member.c - the two clients of the master's membership: a node that joins, and a watcher.
 *
 * Joining is one timer. While the master does not know us it sends master.register, otherwise
 * master.beat; an answer of NOT_FOUND (a master that restarted, or that took us for dead) goes back
 * to registering, silence only repeats. Terms in the answers go to the node, which refuses lower
 * ones.
 *
 * With the beats' answers comes what the master asks its nodes to remember, once whenever that has
 * changed; a node keeps it as it is, and says it to a master at which it registers.
 *
 * Who is about to leave asks, ten times a second, for what only it has to be copied elsewhere,
 * until the master says that this is done.
 *
 * Watching is one streaming call that is made again whenever it ends. After each start the master
 * sends every member it knows and then "synced"; members known from before that it did not name are
 * kept for STORE_WATCH_GRACE_MS, because a master that restarted learns them one by one. */
#include "store/member.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/proto.h"

enum {
    BEAT_MS_DEFAULT = 500,
    ANSWER_MS = 2000,
    RETRY_MS = 100,
    UNMOUNT_ASK_MS = 100,
    UNMOUNT_ANSWER_MS = 1000,
    UNMOUNT_FAILURES_MAX = 2, /* in a row: the master is gone, too */
};

const char *store_role_name(enum store_role role)
{
    switch (role) {
    case STORE_ROLE_PREFILL: return "prefill";
    case STORE_ROLE_DECODE: return "decode";
    case STORE_ROLE_STORE: return "store";
    case STORE_ROLE_BOTH: return "both";
    }
    return "unknown";
}

const char *store_member_state_name(enum store_member_state state)
{
    switch (state) {
    case STORE_MEMBER_ALIVE: return "alive";
    case STORE_MEMBER_SUSPECT: return "suspect";
    case STORE_MEMBER_DEAD: return "dead";
    }
    return "unknown";
}

/* ---- joining ---- */

struct store_member {
    struct env *env;
    struct rpc_client *master;
    struct store_member_info info;
    struct store_node *node;
    uint32_t beat_ms;
    struct env_timer timer;
    bool registered;
    enum status refused; /* why the last master would not take us in; OK: it was not asked */
    bool name_taken;     /* has been told */
    bool asking;         /* a call is under way */
    uint64_t asked_ns;   /* when the last one began */
    bool leaving;
    struct buf notes; /* what the master asks us to remember: bytes to us */
    uint64_t notes_version;
    void (*on_joined)(void *ctx, uint64_t term);
    void *ctx;
    struct env_timer unmount_timer;
    uint32_t unmount_failures;
    void (*on_unmounted)(void *ctx, enum status status); /* NULL: nobody waits */
    void *unmount_ctx;
};

static void beat_in(struct store_member *member, uint32_t ms)
{
    env_timer_set(member->env, &member->timer, env_now_ns(member->env) + ms * ENV_NS_PER_MS);
}

/* A master of a lower term is not our master any more: nothing it says counts. */
static enum status term_take(struct store_member *member, const struct rpc_result *result,
                             uint64_t *term)
{
    struct store_beaten said = { .term = 0 };
    enum status status = store_decode_beaten(result->body, result->len, &said);
    *term = said.term;
    if (status == STATUS_OK) status = store_node_see_term(member->node, *term);
    if (status == STATUS_OK) {
        member->node->master_clock = (struct node_master_clock){
            .term = said.clock_ns > 0 ? *term : 0,
            .asked_ns = member->asked_ns,
            .clock_ns = said.clock_ns,
        };
        node_trust_heard(&member->node->trust, *term, member->asked_ns);
        node_trust_changed(member->node);
    }
    if (status == STATUS_STALE) {
        LOG_WARN("store", "old_master", "master=%s term=%lu", rpc_client_address(member->master),
                 *term);
    }
    return status;
}

static void on_registered(void *ctx, const struct rpc_result *result)
{
    struct store_member *member = ctx;
    uint64_t term = 0;

    member->asking = false;
    if (member->leaving) return;
    enum status status = result->status;
    if (status == STATUS_OK) status = term_take(member, result, &term);
    if (status != STATUS_OK) {
        if (result->status == STATUS_EXISTS && !member->name_taken) {
            LOG_ERROR("store", "name_taken", "name=%s master=%s text=%s", member->info.name,
                      rpc_client_address(member->master),
                      "another node of this name is alive: choose another --name; this one waits "
                      "until that one has gone");
        }
        member->name_taken = result->status == STATUS_EXISTS;
        member->refused = STATUS_OK;
        if (result->status == STATUS_INVALID || result->status == STATUS_DENIED) {
            LOG_ERROR("store", "registration_refused", "master=%s reason=%s message=%s",
                      rpc_client_address(member->master), status_name(status), result->message);
            member->refused = result->status;
        }
        if (member->name_taken) member->refused = STATUS_EXISTS;
        beat_in(member, member->beat_ms);
        return;
    }
    LOG_INFO("store", "joined", "master=%s name=%s term=%lu", rpc_client_address(member->master),
             member->info.name, term);
    member->registered = true;
    member->refused = STATUS_OK;
    member->name_taken = false;
    beat_in(member, member->beat_ms);
    if (member->on_joined != NULL) member->on_joined(member->ctx, term);
}

/* Remembered for the next master. */
static void notes_keep(struct store_member *member, const struct store_beaten *beaten)
{
    if (beaten->notes_version == 0) return;
    buf_clear(&member->notes);
    if (buf_append(&member->notes, beaten->notes.data, beaten->notes.len) != STATUS_OK) {
        buf_clear(&member->notes); /* no memory: asked for again with the next beat */
        member->notes_version = 0;
        return;
    }
    member->notes_version = beaten->notes_version;
}

static void on_beat(void *ctx, const struct rpc_result *result)
{
    struct store_member *member = ctx;
    struct store_beaten beaten;
    uint64_t term = 0;

    member->asking = false;
    if (member->leaving) return;
    enum status status = result->status;
    if (status == STATUS_OK) status = term_take(member, result, &term);
    if (status == STATUS_OK) {
        status = store_decode_beaten(result->body, result->len, &beaten);
    }
    if (status == STATUS_OK) {
        member->info.draining = beaten.draining;
        notes_keep(member, &beaten);
    }
    if (status == STATUS_NOT_FOUND || status == STATUS_STALE) member->registered = false;
    beat_in(member, status == STATUS_NOT_FOUND ? 0 : member->beat_ms);
}

static enum status ask(struct store_member *member, uint16_t method, const struct buf *buf,
                       void (*on_end)(void *ctx, const struct rpc_result *result))
{
    struct rpc_call_id id;
    member->asked_ns = env_now_ns(member->env);
    const struct rpc_request request = {
        .method = method,
        .body = buf_data(buf),
        .len = buf->len,
        .deadline_ns = member->asked_ns + ANSWER_MS * ENV_NS_PER_MS,
        .wait_until_up = true,
        .on_end = on_end,
        .ctx = member,
    };
    return rpc_call(member->master, &request, &id);
}

static struct store_beat beat_of(const struct store_member *member)
{
    struct store_beat beat = { .epoch = member->info.epoch,
                               .remembers = true,
                               .notes_version = member->notes_version,
                               .load = store_node_load(member->node) };
    memcpy(beat.name, member->info.name, sizeof(beat.name));
    return beat;
}

/* A master is to take a later term than any that it has heard of, or a value of its is of. */
static uint64_t term_known(const struct store_node *node)
{
    return node->term > node->term_found ? node->term : node->term_found;
}

static void on_timer(void *ctx)
{
    struct store_member *member = ctx;
    struct buf buf;
    enum status status;
    ASSERT(!member->asking && !member->leaving);

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (member->registered) {
        const struct store_beat beat = beat_of(member);
        status = store_encode_beat(&buf, &beat);
        if (status == STATUS_OK) status = ask(member, MASTER_METHOD_BEAT, &buf, on_beat);
    } else {
        const struct store_register reg = {
            .info = member->info,
            .term_seen = term_known(member->node),
            .notes = { buf_data(&member->notes), member->notes.len },
        };
        status = store_encode_register(&buf, &reg);
        if (status == STATUS_OK) status = ask(member, MASTER_METHOD_REGISTER, &buf, on_registered);
    }
    buf_fini(&buf);
    member->asking = status == STATUS_OK;
    if (status != STATUS_OK) beat_in(member, member->beat_ms);
}

enum status store_joined(const struct store_member *member)
{
    if (member->registered) return STATUS_OK;
    return member->refused == STATUS_OK ? STATUS_AGAIN : member->refused;
}

/* ---- leaving ---- */

static void unmount_end(struct store_member *member, enum status status)
{
    void (*on_end)(void *ctx, enum status status) = member->on_unmounted;
    member->on_unmounted = NULL;
    on_end(member->unmount_ctx, status);
}

static void on_unmounting(void *ctx, const struct rpc_result *result)
{
    struct store_member *member = ctx;
    uint64_t left = 1;

    if (member->leaving) return;
    enum status status = result->status;
    if (status == STATUS_OK) status = store_decode_left(result->body, result->len, &left);
    if (status == STATUS_OK && left == 0) {
        unmount_end(member, STATUS_OK);
        return;
    }
    member->unmount_failures = status == STATUS_OK ? 0 : member->unmount_failures + 1;
    if (member->unmount_failures >= UNMOUNT_FAILURES_MAX) {
        unmount_end(member, status);
        return;
    }
    env_timer_set(member->env, &member->unmount_timer,
                  env_now_ns(member->env) + UNMOUNT_ASK_MS * ENV_NS_PER_MS);
}

static void on_unmount_timer(void *ctx)
{
    struct store_member *member = ctx;
    struct store_drain message = { .unmount = true,
                                   .keeps_max = node_values_keeps_max(member->node) };
    struct rpc_call_id id;
    struct buf buf;

    memcpy(message.name, member->info.name, sizeof(message.name));
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_drain(&buf, &message);
    const struct rpc_request request = { .method = MASTER_METHOD_DRAIN,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = env_now_ns(member->env) +
                                                        UNMOUNT_ANSWER_MS * ENV_NS_PER_MS,
                                         .on_end = on_unmounting,
                                         .ctx = member };
    if (status == STATUS_OK) status = rpc_call(member->master, &request, &id);
    buf_fini(&buf);
    if (status != STATUS_OK) unmount_end(member, status);
}

void store_unmount(struct store_member *member, void (*on_end)(void *ctx, enum status status),
                   void *ctx)
{
    ASSERT(member->on_unmounted == NULL && on_end != NULL);
    member->on_unmounted = on_end;
    member->unmount_ctx = ctx;
    env_timer_set(member->env, &member->unmount_timer, env_now_ns(member->env));
}

/* ---- life ---- */

static enum status info_check(const struct store_member_info *info, struct errmsg *err)
{
    if (info->name[0] == 0 || strnlen(info->name, sizeof(info->name)) == sizeof(info->name)) {
        return errmsg_set(err, STATUS_INVALID, "a member's name has 1..%d bytes",
                          STORE_NAME_SIZE - 1);
    }
    if (info->rpc_address[0] == 0 || !store_layout_valid(&info->layout) || info->epoch == 0) {
        return errmsg_set(err, STATUS_INVALID, "member %s: no address, layout or epoch",
                          info->name);
    }
    return STATUS_OK;
}

enum status store_join(const struct store_join_options *options, struct store_member **out,
                       struct errmsg *err)
{
    ASSERT(options->node != NULL);
    enum status status = info_check(&options->info, err);
    if (status != STATUS_OK) return status;
    struct store_member *member = calloc(1, sizeof(*member));
    if (member == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    const struct rpc_client_options client = { .address = options->master,
                                               .secret = options->secret,
                                               .name = options->info.name };
    status = rpc_client_create(options->env, &client, &member->master, err);
    if (status != STATUS_OK) {
        free(member);
        return status;
    }
    buf_init(&member->notes, STORE_NOTES_SIZE_MAX);
    member->env = options->env;
    member->info = options->info;
    member->node = options->node;
    member->beat_ms = options->beat_ms == 0 ? BEAT_MS_DEFAULT : options->beat_ms;
    member->on_joined = options->on_joined;
    member->ctx = options->ctx;
    env_timer_init(&member->timer, on_timer, member);
    env_timer_init(&member->unmount_timer, on_unmount_timer, member);
    beat_in(member, 0);
    store_node_set_master(member->node, member->master, member->info.name);
    *out = member;
    return STATUS_OK;
}

static void on_left(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    (void)result;
}

void store_leave(struct store_member *member)
{
    if (member == NULL) return;
    const struct store_beat beat = beat_of(member);
    struct buf buf;

    member->leaving = true;
    node_trust_left(&member->node->trust);
    node_trust_changed(member->node);
    env_timer_cancel(member->env, &member->timer);
    env_timer_cancel(member->env, &member->unmount_timer);
    store_node_set_master(member->node, NULL, "");
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (member->registered && store_encode_beat(&buf, &beat) == STATUS_OK &&
        ask(member, MASTER_METHOD_LEAVE, &buf, on_left) != STATUS_OK) {
        LOG_DEBUG("store", "leave_not_told", "");
    }
    buf_fini(&buf);
    rpc_client_destroy(member->master);
    buf_fini(&member->notes);
    free(member);
}

/* ---- watching ---- */

struct watched {
    struct store_member_info info;
    bool confirmed; /* named since the present stream began */
};

struct store_watch {
    struct env *env;
    struct rpc_client *master;
    struct watched *members;
    uint32_t members_count;
    struct env_timer retry;
    struct env_timer grace;
    uint32_t depth; /* of callbacks: the client cannot be destroyed inside one */
    bool closed;
    void (*on_member)(void *ctx, const struct store_member_info *info,
                      enum store_member_state state);
    void (*on_gone)(void *ctx, const char *name);
    void *ctx;
};

static void watch_free(struct store_watch *watch)
{
    env_timer_cancel(watch->env, &watch->retry);
    env_timer_cancel(watch->env, &watch->grace);
    rpc_client_destroy(watch->master);
    free(watch->members);
    free(watch);
}

static struct watched *watched_find(struct store_watch *watch, const char *name)
{
    for (uint32_t i = 0; i < watch->members_count; i++) {
        if (strcmp(watch->members[i].info.name, name) == 0) return &watch->members[i];
    }
    return NULL;
}

static void watched_remove(struct store_watch *watch, struct watched *member)
{
    char name[STORE_NAME_SIZE];
    memcpy(name, member->info.name, sizeof(name));
    *member = watch->members[--watch->members_count];
    if (!watch->closed) watch->on_gone(watch->ctx, name);
}

static void watched_update(struct store_watch *watch, const struct store_watch_item *item)
{
    struct watched *member = watched_find(watch, item->info.name);

    if (item->gone) {
        if (member != NULL) watched_remove(watch, member);
        return;
    }
    if (member == NULL) {
        if (watch->members_count == STORE_MEMBERS_MAX) return;
        member = &watch->members[watch->members_count++];
    }
    member->info = item->info;
    member->confirmed = true;
    watch->on_member(watch->ctx, &item->info, item->state);
}

static void on_watch_item(void *ctx, const uint8_t *body, size_t len)
{
    struct store_watch *watch = ctx;
    struct store_watch_item item;

    if (watch->closed) return;
    if (store_decode_watch(body, len, &item) != STATUS_OK) {
        LOG_WARN("store", "watch_malformed", "master=%s", rpc_client_address(watch->master));
        return;
    }
    watch->depth++;
    if (item.has_member) watched_update(watch, &item);
    if (item.synced && !watch->closed) {
        env_timer_set(watch->env, &watch->grace,
                      env_now_ns(watch->env) + STORE_WATCH_GRACE_MS * ENV_NS_PER_MS);
    }
    watch->depth--;
}

static void on_watch_end(void *ctx, const struct rpc_result *result)
{
    struct store_watch *watch = ctx;
    if (watch->closed) return;
    LOG_DEBUG("store", "watch_ended", "reason=%s", status_name(result->status));
    env_timer_cancel(watch->env, &watch->grace);
    env_timer_set(watch->env, &watch->retry, env_now_ns(watch->env) + RETRY_MS * ENV_NS_PER_MS);
}

static void on_watch_retry(void *ctx)
{
    struct store_watch *watch = ctx;
    struct rpc_call_id id;

    if (watch->closed) {
        watch_free(watch);
        return;
    }
    for (uint32_t i = 0; i < watch->members_count; i++)
        watch->members[i].confirmed = false;
    const struct rpc_request request = { .method = MASTER_METHOD_WATCH,
                                         .deadline_ns = ENV_NEVER,
                                         .wait_until_up = true,
                                         .on_item = on_watch_item,
                                         .on_end = on_watch_end,
                                         .ctx = watch };
    if (rpc_call(watch->master, &request, &id) == STATUS_OK) return;
    env_timer_set(watch->env, &watch->retry, env_now_ns(watch->env) + RETRY_MS * ENV_NS_PER_MS);
}

static void on_watch_grace(void *ctx)
{
    struct store_watch *watch = ctx;
    uint32_t i = 0;

    watch->depth++;
    while (i < watch->members_count && !watch->closed) {
        if (watch->members[i].confirmed) {
            i++;
        } else {
            watched_remove(watch, &watch->members[i]); /* the last one takes its place */
        }
    }
    watch->depth--;
}

enum status store_watch(const struct store_watch_options *options, struct store_watch **out,
                        struct errmsg *err)
{
    ASSERT(options->on_member != NULL && options->on_gone != NULL);
    const struct rpc_client_options client = { .address = options->master,
                                               .secret = options->secret,
                                               .name = "watcher" };
    struct store_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    watch->members = calloc(STORE_MEMBERS_MAX, sizeof(*watch->members));
    if (watch->members == NULL) {
        free(watch);
        return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    }
    const enum status status = rpc_client_create(options->env, &client, &watch->master, err);
    if (status != STATUS_OK) {
        free(watch->members);
        free(watch);
        return status;
    }
    watch->env = options->env;
    watch->on_member = options->on_member;
    watch->on_gone = options->on_gone;
    watch->ctx = options->ctx;
    env_timer_init(&watch->retry, on_watch_retry, watch);
    env_timer_init(&watch->grace, on_watch_grace, watch);
    env_timer_set(watch->env, &watch->retry, env_now_ns(watch->env));
    *out = watch;
    return STATUS_OK;
}

void store_unwatch(struct store_watch *watch)
{
    if (watch == NULL) return;
    ASSERT(!watch->closed);
    watch->closed = true;
    if (watch->depth == 0) {
        watch_free(watch);
    } else {
        env_timer_set(watch->env, &watch->retry, env_now_ns(watch->env)); /* frees it */
    }
}
