/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"

enum {
    TTL_DEFAULT_MS = 30000,
    TTL_MIN_MS = 1000,
    TTL_MAX_MS = 24 * 3600 * 1000,
    TRY_MS = 2000,       /* for one endpoint to answer */
    RETRY_MIN_MS = 250,  /* after no answer; doubles */
    RETRY_MAX_MS = 5000, /* but at most a third of the ttl */
};

enum state { STATE_IDLE, STATE_TAKING, STATE_HELD, STATE_LOST, STATE_DROPPING, STATE_GONE };

struct metadata {
    struct env *env;
    struct metadata_backend backend;
    uint32_t endpoint; /* that answered last */
    char cluster[METADATA_CLUSTER_SIZE];
    uint32_t ttl_ms;

    enum state state;
    enum status last;   /* of the publisher's last call */
    uint32_t failures;  /* in a row */
    uint64_t asked_ns;  /* when that call began */
    uint64_t stands_ns; /* until when the server surely has the entry */
    struct metadata_entry entry;
    char ram_key[METADATA_KEY_SIZE], rpc_key[METADATA_KEY_SIZE];
    struct buf ram, rpc; /* with a NUL behind each */
    struct env_timer timer;
    struct metadata_call *call;
    void (*on_dropped)(void *ctx);
    void *ctx;
    struct metadata_counts counts;
};

static void set_state(struct metadata *metadata, enum state state)
{
    static const unsigned edges[] = {
        [STATE_IDLE] = 1u << STATE_TAKING | 1u << STATE_GONE,
        [STATE_TAKING] = 1u << STATE_HELD | 1u << STATE_DROPPING,
        [STATE_HELD] = 1u << STATE_HELD | 1u << STATE_LOST | 1u << STATE_DROPPING,
        [STATE_LOST] = 1u << STATE_HELD | 1u << STATE_LOST | 1u << STATE_DROPPING,
        [STATE_DROPPING] = 1u << STATE_GONE,
        [STATE_GONE] = 0,
    };

    ASSERT((edges[metadata->state] & 1u << state) != 0);
    metadata->state = state;
}

/* True if another endpoint, or the same later, may answer. */
static bool worth_retrying(enum status status)
{
    return status != STATUS_OK && status != STATUS_EXISTS && status != STATUS_NOT_FOUND;
}

static void next_endpoint(struct metadata *metadata)
{
    metadata->endpoint = (metadata->endpoint + 1) % metadata->backend.endpoint_count;
}

/* ---- publishing ---- */

static void act(void *ctx);

/* Not all at the same moment when a server, or a rack, starts. */
static void act_in(struct metadata *metadata, uint64_t delay_ms)
{
    uint32_t dice;

    env_random(metadata->env, &dice, sizeof(dice));
    const uint64_t delay_ns = delay_ms * ENV_NS_PER_MS;
    const uint64_t spread_ns = delay_ns / 8 * (dice % 1024) / 1024;
    env_timer_set(metadata->env, &metadata->timer,
                  env_now_ns(metadata->env) + delay_ns - spread_ns);
}

static void log_failure(const struct metadata *metadata, enum status status)
{
    /* Once when it begins, and then at each doubling. */
    if ((metadata->failures & (metadata->failures - 1)) != 0) return;
    LOG_WARN("transfer", "metadata_unreachable", "server=%s name=%s reason=%s failures=%u",
             metadata->backend.label, metadata->entry.name, status_name(status),
             metadata->failures);
}

static void kept(struct metadata *metadata)
{
    if (metadata->state != STATE_HELD) {
        LOG_INFO("transfer", "name_published", "server=%s name=%s address=%s",
                 metadata->backend.label, metadata->entry.name, metadata->entry.address);
    }
    set_state(metadata, STATE_HELD);
    metadata->counts.renewals++;
    metadata->stands_ns = metadata->asked_ns + metadata->ttl_ms * ENV_NS_PER_MS;
    act_in(metadata, metadata->ttl_ms / 3);
}

static void lost(struct metadata *metadata)
{
    if (metadata->state != STATE_LOST) {
        metadata->counts.names_lost++;
        LOG_ERROR("transfer", "name_lost", "server=%s name=%s hint=%s", metadata->backend.label,
                  metadata->entry.name, "another engine was started under it");
    }
    set_state(metadata, STATE_LOST);
    act_in(metadata, metadata->ttl_ms / 3);
}

static void failed(struct metadata *metadata, enum status status)
{
    uint64_t delay_ms = (uint64_t)RETRY_MIN_MS << (metadata->failures < 5 ? metadata->failures : 5);

    if (delay_ms > RETRY_MAX_MS) delay_ms = RETRY_MAX_MS;
    if (delay_ms > metadata->ttl_ms / 3) delay_ms = metadata->ttl_ms / 3;
    metadata->failures++;
    metadata->counts.renewal_failures++;
    log_failure(metadata, status);
    next_endpoint(metadata);
    act_in(metadata, delay_ms);
}

static void gone(struct metadata *metadata, enum status status)
{
    if (worth_retrying(status)) {
        LOG_WARN("transfer", "name_left_behind", "server=%s name=%s reason=%s ttl_ms=%u",
                 metadata->backend.label, metadata->entry.name, status_name(status),
                 metadata->ttl_ms);
    }
    set_state(metadata, STATE_GONE);
}

static void dropped(struct metadata *metadata, enum status status)
{
    gone(metadata, status);
    metadata->on_dropped(metadata->ctx);
}

static void on_called(void *ctx, enum status status, const char *value, size_t len)
{
    struct metadata *metadata = ctx;

    (void)value, (void)len;
    metadata->call = NULL;
    metadata->last = status;
    if (metadata->state == STATE_DROPPING) {
        dropped(metadata, status);
    } else if (status == STATUS_OK) {
        metadata->failures = 0;
        kept(metadata);
    } else if (status == STATUS_EXISTS && metadata->state != STATE_TAKING) {
        metadata->failures = 0;
        lost(metadata);
    } else {
        failed(metadata, status); /* also what is no answer to this question */
    }
}

static struct metadata_request request_of(const struct metadata *metadata, enum metadata_verb verb,
                                          uint64_t deadline_ns)
{
    return (struct metadata_request){
        .verb = verb,
        .ram_key = metadata->ram_key,
        .rpc_key = metadata->rpc_key,
        .ram_value = (const char *)buf_data(&metadata->ram),
        .rpc_value = (const char *)buf_data(&metadata->rpc),
        .owner = metadata->entry.owner,
        .ttl_ms = metadata->ttl_ms,
        .deadline_ns = deadline_ns,
    };
}

static enum status call(struct metadata *metadata, enum metadata_verb verb)
{
    const uint64_t now = env_now_ns(metadata->env);
    const struct metadata_request request =
        request_of(metadata, verb, now + TRY_MS * ENV_NS_PER_MS);

    metadata->asked_ns = now;
    return metadata_call_start(metadata->env, &metadata->backend, metadata->endpoint, &request,
                               on_called, metadata, &metadata->call);
}

/* The timer's: what the state asks for next. */
static void act(void *ctx)
{
    struct metadata *metadata = ctx;
    enum status status = STATUS_INVALID;

    ASSERT(metadata->call == NULL);
    switch (metadata->state) {
    case STATE_TAKING: status = call(metadata, METADATA_TAKE); break;
    case STATE_HELD:
    case STATE_LOST: status = call(metadata, METADATA_KEEP); break;
    case STATE_DROPPING: status = call(metadata, METADATA_DROP); break;
    case STATE_GONE: metadata->on_dropped(metadata->ctx); return;
    case STATE_IDLE: break;
    }
    if (status != STATUS_OK) on_called(metadata, status, NULL, 0);
}

void metadata_publish(struct metadata *metadata, const struct metadata_entry *entry)
{
    uint8_t token[(METADATA_OWNER_SIZE - 1) / 2];

    ASSERT(metadata->state == STATE_IDLE);
    metadata->entry = *entry;
    metadata->entry.ttl_ms = metadata->ttl_ms;
    env_random(metadata->env, token, sizeof(token));
    for (size_t i = 0; i < sizeof(token); i++)
        snprintf(metadata->entry.owner + 2 * i, 3, "%02x", token[i]);
    metadata_entry_keys(metadata->cluster, entry->name, metadata->ram_key, metadata->rpc_key);
    enum status status = metadata_entry_write(&metadata->entry, &metadata->ram, &metadata->rpc);
    if (status == STATUS_OK) status = buf_append(&metadata->ram, "", 1);
    if (status == STATUS_OK) status = buf_append(&metadata->rpc, "", 1);
    ASSERT(status == STATUS_OK); /* the names are valid, and so bounded */
    set_state(metadata, STATE_TAKING);
    env_timer_set(metadata->env, &metadata->timer, 0);
}

enum status metadata_state(const struct metadata *metadata)
{
    const bool denied = metadata->failures > 0 && metadata->last == STATUS_DENIED;

    switch (metadata->state) {
    case STATE_IDLE: return STATUS_INVALID;
    case STATE_TAKING: return denied ? STATUS_DENIED : STATUS_AGAIN;
    case STATE_HELD:
        if (env_now_ns(metadata->env) < metadata->stands_ns) return STATUS_OK;
        return denied ? STATUS_DENIED : STATUS_AGAIN;
    case STATE_LOST: return STATUS_EXISTS;
    case STATE_DROPPING:
    case STATE_GONE: return STATUS_CANCELLED;
    }
    return STATUS_INVALID;
}

void metadata_withdraw(struct metadata *metadata, void (*on_done)(void *ctx), void *ctx)
{
    ASSERT(metadata->state != STATE_DROPPING);
    metadata->on_dropped = on_done;
    metadata->ctx = ctx;
    metadata_call_cancel(metadata->call);
    metadata->call = NULL;
    if (metadata->state == STATE_IDLE) {
        set_state(metadata, STATE_GONE);
    } else if (metadata->state != STATE_GONE) {
        set_state(metadata, STATE_DROPPING);
    }
    env_timer_set(metadata->env, &metadata->timer, 0);
}

/* ---- withdrawing at once ---- */

struct farewell {
    bool over;
    enum status status;
};

static void on_farewell(void *ctx, enum status status, const char *value, size_t len)
{
    struct farewell *farewell = ctx;

    (void)value, (void)len;
    *farewell = (struct farewell){ .over = true, .status = status };
}

/* One endpoint's answer to DROP, over a loop of its own. */
static enum status drop_apart(struct metadata *metadata, struct env *apart, uint64_t deadline_ns)
{
    const struct metadata_request request = request_of(metadata, METADATA_DROP, deadline_ns);
    struct farewell farewell = { .status = STATUS_TIMEOUT };
    struct metadata_call *under_way = NULL;

    const enum status status = metadata_call_start(apart, &metadata->backend, metadata->endpoint,
                                                   &request, on_farewell, &farewell, &under_way);
    if (status != STATUS_OK) return status;
    for (uint64_t now = env_now_ns(apart); !farewell.over && now < deadline_ns;) {
        env_poll(apart, deadline_ns - now);
        now = env_now_ns(apart);
    }
    if (!farewell.over) metadata_call_cancel(under_way);
    return farewell.status;
}

/* The server may have the entry, and it may be ours. */
static bool may_be_there(const struct metadata *metadata)
{
    if (metadata->state == STATE_TAKING)
        return metadata->asked_ns != 0 && metadata->last != STATUS_DENIED;
    return metadata->state == STATE_HELD;
}

void metadata_farewell(struct metadata *metadata, uint64_t timeout_ns)
{
    enum status status = STATUS_UNAVAILABLE;
    struct env *apart;

    if (!may_be_there(metadata)) return;
    if (env_apart_create(metadata->env, &apart) != STATUS_OK) return; /* it expires */
    env_timer_cancel(metadata->env, &metadata->timer);
    metadata_call_cancel(metadata->call);
    metadata->call = NULL;
    set_state(metadata, STATE_DROPPING);
    const uint64_t deadline_ns = env_now_ns(apart) + timeout_ns;
    for (uint32_t i = 0; i < metadata->backend.endpoint_count && worth_retrying(status); i++) {
        if (env_now_ns(apart) >= deadline_ns) break;
        status = drop_apart(metadata, apart, deadline_ns);
        if (worth_retrying(status)) next_endpoint(metadata);
    }
    gone(metadata, status);
    env_apart_destroy(apart);
}

/* ---- finding others ---- */

static void lookup_end(struct metadata_lookup *lookup, enum status status,
                       const struct metadata_entry *entry)
{
    struct metadata *metadata = lookup->metadata;
    const bool failure = status != STATUS_OK && status != STATUS_NOT_FOUND;

    metadata->counts.lookup_failures += failure;
    lookup->metadata = NULL;
    lookup->on_found(lookup->ctx, status, entry);
}

static void lookup_answered(void *ctx, enum status status, const char *value, size_t len)
{
    struct metadata_lookup *lookup = ctx;
    struct metadata *metadata = lookup->metadata;
    struct metadata_entry entry;

    lookup->call = NULL;
    if (worth_retrying(status)) {
        next_endpoint(metadata);
        lookup->last = status;
        env_timer_set(metadata->env, &lookup->timer, 0);
        return;
    }
    if (status == STATUS_OK) status = metadata_entry_read(value, len, &entry);
    if (status == STATUS_OK && strcmp(entry.name, lookup->name) != 0) status = STATUS_PROTOCOL;
    lookup_end(lookup, status, status == STATUS_OK ? &entry : NULL);
}

/* Asks the next endpoint, until all have been. */
static void lookup_ask(void *ctx)
{
    struct metadata_lookup *lookup = ctx;
    struct metadata *metadata = lookup->metadata;
    const struct metadata_request request = {
        .verb = METADATA_GET,
        .ram_key = lookup->ram_key,
        .rpc_key = lookup->rpc_key,
        .deadline_ns = env_now_ns(metadata->env) + TRY_MS * ENV_NS_PER_MS,
    };

    if (lookup->tries++ == metadata->backend.endpoint_count) {
        lookup_end(lookup, lookup->last, NULL);
        return;
    }
    const enum status status =
        metadata_call_start(metadata->env, &metadata->backend, metadata->endpoint, &request,
                            lookup_answered, lookup, &lookup->call);
    if (status != STATUS_OK) lookup_answered(lookup, status, NULL, 0);
}

void metadata_lookup_start(struct metadata *metadata, struct metadata_lookup *lookup,
                           const char *name, metadata_found_fn on_found, void *ctx)
{
    ASSERT(lookup->metadata == NULL && metadata_name_valid(name));
    *lookup = (struct metadata_lookup){
        .metadata = metadata, .last = STATUS_UNAVAILABLE, .on_found = on_found, .ctx = ctx
    };
    memcpy(lookup->name, name, strlen(name) + 1);
    metadata_entry_keys(metadata->cluster, name, lookup->ram_key, lookup->rpc_key);
    env_timer_init(&lookup->timer, lookup_ask, lookup);
    metadata->counts.lookups++;
    env_timer_set(metadata->env, &lookup->timer, 0);
}

void metadata_lookup_cancel(struct metadata_lookup *lookup)
{
    if (lookup->metadata == NULL) return;
    env_timer_cancel(lookup->metadata->env, &lookup->timer);
    metadata_call_cancel(lookup->call);
    lookup->call = NULL;
    lookup->metadata = NULL;
}

/* ---- create and destroy ---- */

static bool cluster_valid(const char *cluster)
{
    return cluster[0] == '\0' ||
           (strlen(cluster) < METADATA_CLUSTER_SIZE && metadata_name_valid(cluster));
}

enum status metadata_create(struct env *env, const struct metadata_options *options,
                            struct metadata **out, struct errmsg *err)
{
    const char *cluster = options->cluster != NULL ? options->cluster : "";
    const uint32_t ttl_ms = options->ttl_ms != 0 ? options->ttl_ms : TTL_DEFAULT_MS;
    struct metadata_backend backend;

    if (!cluster_valid(cluster))
        return errmsg_set(err, STATUS_INVALID, "metadata: bad name of a cluster");
    if (ttl_ms < TTL_MIN_MS || ttl_ms > TTL_MAX_MS)
        return errmsg_set(err, STATUS_INVALID, "metadata: entries live %d to %d ms", TTL_MIN_MS,
                          TTL_MAX_MS);
    const enum status status = metadata_backend_parse(options->url, &backend, err);
    if (status != STATUS_OK) return status;
    struct metadata *metadata = calloc(1, sizeof(*metadata));
    if (metadata == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "metadata: no memory");
    metadata->env = env;
    metadata->backend = backend;
    metadata->ttl_ms = ttl_ms;
    memcpy(metadata->cluster, cluster, strlen(cluster) + 1);
    if (cluster[0] != '\0' && cluster[strlen(cluster) - 1] == '/')
        metadata->cluster[strlen(cluster) - 1] = '\0'; /* as others write it */
    env_timer_init(&metadata->timer, act, metadata);
    buf_init(&metadata->ram, METADATA_VALUE_MAX);
    buf_init(&metadata->rpc, METADATA_VALUE_MAX);
    *out = metadata;
    return STATUS_OK;
}

void metadata_destroy(struct metadata *metadata)
{
    if (metadata == NULL) return;
    env_timer_cancel(metadata->env, &metadata->timer);
    metadata_call_cancel(metadata->call);
    explicit_bzero(metadata->backend.password, sizeof(metadata->backend.password));
    buf_fini(&metadata->ram);
    buf_fini(&metadata->rpc);
    free(metadata);
}

const char *metadata_label(const struct metadata *metadata)
{
    return metadata->backend.label;
}

const struct metadata_counts *metadata_counts(const struct metadata *metadata)
{
    return &metadata->counts;
}
