/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_world_sim.h - the simulated worlds of store_sim_test.c: what they are, what is known
 * of each value in them, and who is at work there: clients that put, get, ask and remove, sessions
 * that write and read in parts, nodes that commit and fetch blocks. Each actor checks what it is
 * told against what the world knows. What breaks, and what holds of the whole, is in the test.
 * Included by that one program. */
#ifndef STORE_STORE_WORLD_SIM_H
#define STORE_STORE_WORLD_SIM_H

#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "store/client_commit.h"
#include "store/client_int.h"
#include "store/master_int.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "store/node_values.h"
#include "store/proto.h"
#include "store/rank.h"
#include "store/reading.h"
#include "store/scope.h"
#include "yolk/store.h"
#include "yolk/store_session.h"
#include "yolk/store_task.h"

enum {
    CLIENTS = 2, /* both read; the first one does everything else */
    KEYS = 12,
    RED = 8, /* keys from here on are of a tenant, and named as those from 0 */
    TENANTS = 2,
    RED_QUOTA = 12 * 4096,
    VALUE_SIZE_MAX = 150000,
    SLOTS = 6,
    BLOCKS = 40,
    FETCHES = 4,
    FETCH_BLOCKS = 4,
    SESSIONS = 4,
    PARTS = 3,
    REVISIONS = 256,
    STEPS = 250,
    STEP_MS = 40,
    VALUES_DISK_SIZE = 4 << 20,
    SEEDS_DEFAULT = 32,
};

#define DEATH_KNOWN_NS (6 * ENV_NS_PER_S) /* more than dead_ms of the master */

enum kind { CALM_NODES, MORTAL_NODES, TINY };

static uint64_t current_seed;
static unsigned long long acked_total, reads_total, fetched_total, lost_explained, evictions_seen,
    replaced_total, copied_total, kept_total, promoted_total, together_total, seen_total,
    over_quota_total, hot_total, drafts_total, session_reads_total, known_total, guessed_total,
    posted_total, committed_total, faults_total, moved_total;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail_msg("SEED=%llu: %s", (unsigned long long)current_seed, #condition); \
    } while (0)

enum op { OP_NONE, OP_PUT, OP_REPLACE, OP_GET, OP_EXIST, OP_REMOVE, OP_DRAFT, OP_HOLD };

struct world;

struct slot {
    struct world *world;
    enum op op;
    unsigned key;
    unsigned revision; /* put, replace: of the value */
    bool pinned;       /* likewise: it is never to be evicted */
    uint64_t offset;   /* get: from here to the end */
    unsigned client;   /* get: who reads */
    uint8_t *memories[CLIENTS];
    uint8_t *memory;    /* of these, that of who does it */
    enum status status; /* of the last one that ended */
    bool ended;
    uint64_t evictions; /* until it began: a value may be evicted before its owner's word is here */
    unsigned deaths;    /* of nodes, until it began */
    uint64_t began_ns;
    bool acked;   /* when it began, the value was acknowledged, and nothing made that unsure */
    bool removed; /* when it began, likewise, the removal was */
};

/* Slots that read, or put, with one call. */
struct together {
    struct slot *slots[SLOTS];
    uint32_t left; /* not ended */
};

/* A session, from its start to its end; it rests between its calls until the world goes on with
 * it. */
struct session {
    struct world *world;
    enum op op; /* OP_DRAFT, OP_HOLD */
    unsigned key;
    unsigned revision; /* draft: of the value; hold: acknowledged last when it was started */
    bool acked;        /* hold: likewise, nothing made that unsure, and it is looked for anew */
    uint64_t size;
    uint64_t moved; /* draft: bytes written */
    unsigned calls; /* of reading, or of writing, that are left */
    enum { SESSION_STARTING, SESSION_MOVING, SESSION_REVOKING, SESSION_ENDING } step;
    bool resting;
    bool may_be[REVISIONS]; /* hold: what was read was of one of these */
    struct yolk_store_part parts[PARTS];
    uint32_t parts_count;
    uint8_t *memory;
    enum status status; /* of the end, or why it was not come to */
    uint64_t evictions; /* as of a slot */
    unsigned deaths;
};

/* What we were told about a key, and who held it then. */
struct known {
    bool acked;             /* a put ended OK, and no remove was begun since */
    unsigned revision;      /* of the value acknowledged last */
    unsigned tried;         /* the highest that was put */
    bool removable;         /* a remove may still happen, likewise */
    bool unsure;            /* a put may still happen, though nobody waits for it any more */
    unsigned deaths;        /* of nodes, when that was begun */
    struct rank rank;       /* of the value acknowledged last */
    bool gone;              /* the last node that held that was killed, or counted on one that
                                  had been killed just before */
    uint64_t death_ns;      /* when a node that held it was killed last */
    bool pinned;            /* it is never evicted */
    bool removed;           /* a removal was acknowledged, and no put was begun since */
    uint64_t removed_terms; /* masters until then: the next one may not know of it */
    uint64_t leased_ns;     /* it is leased until then, */
    uint64_t leased_terms;  /* if there was no other master since */
    uint64_t evictions;
};

struct fetching {
    struct world *world;
    bool busy;
    unsigned node;
    unsigned life;
    uint64_t first;
    uint32_t count;
    struct store_page pages[FETCH_BLOCKS];
    struct store_fetch *fetch;
};

struct client {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_store *stores[TENANTS];
};

struct world {
    struct sim_cluster cluster;
    struct rng rng;
    enum kind kind;
    struct client clients[CLIENTS];
    unsigned gets; /* calls */
    struct slot slots[SLOTS];
    struct together together;
    struct together puts;
    struct session sessions[SESSIONS];
    bool whole; /* with sessions and unrest; each has dice of its own, so that without both a world
                   is what it was before they were there */
    bool flips; /* bits flip in flight: bytes may be found to be wrong, and that is then said */
    struct rng sessions_rng;
    struct rng unrest_rng;
    bool in_haste;       /* sessions do not rest */
    uint64_t settled_ns; /* when the master of then was last seen to know what there is */
    struct known known[KEYS];
    struct fetching fetches[FETCHES];
    uint64_t evictions; /* of masters that are gone */
    unsigned deaths;    /* of nodes */
    bool parted[SIM_NODES];
    bool paused[SIM_NODES];
    bool leaving[SIM_NODES];
    bool master_paused;
    bool clients_paused[CLIENTS];
    bool cut[CLIENTS][1 + SIM_NODES]; /* from the master; from nodes */
    unsigned drained;                 /* 1 + the node; 0: none */
};

/* Revisions of a key have other bytes, and every other one another size. */
static uint64_t value_size(unsigned key, unsigned revision)
{
    const uint64_t sizes[] = { 1, 4096, 65536, 65537, VALUE_SIZE_MAX };
    const uint64_t size = key < 5 ? sizes[key] : 1 + rng_counter(3, key) % 40000;
    return revision % 2 == 0 ? size : size / 2 + 1;
}

static const char *const tenants[TENANTS] = { "default", "red" };

static struct yolk_store *store_of(const struct world *world, unsigned key)
{
    return world->clients[0].stores[key / RED];
}

static struct yolk_store_key value_key(unsigned key, char text[16])
{
    key %= RED;
    snprintf(text, 16, "value/%02u%s", key, key % 2 ? "-long" : "");
    return (struct yolk_store_key){ text, strlen(text) };
}

static struct block_key value_id(unsigned key)
{
    uint8_t whole[SCOPE_SIZE_MAX + 16];
    char text[16];
    const struct yolk_store_key name = value_key(key, text);
    const struct store_key own = { name.bytes, (uint32_t)name.len };
    const size_t len = scope_prefix(tenants[key / RED], own, whole);
    memcpy(whole + len, text, own.len);
    return store_key_id((struct store_key){ whole, (uint32_t)len + own.len });
}

static void value_bytes(unsigned key, unsigned revision, uint8_t *out, uint64_t size)
{
    sim_bytes(1000 + key + revision * KEYS, out, size);
}

/* Whether these are the bytes of one revision of first..last, whole: old or new, never a mix. */
static bool value_is_one_of(unsigned key, unsigned first, unsigned last, const uint8_t *bytes,
                            uint64_t size, uint64_t offset)
{
    static uint8_t want[VALUE_SIZE_MAX];
    for (unsigned revision = first; revision <= last; revision++) {
        const uint64_t start = size < 8 ? size : 8;
        if (value_size(key, revision) != size) continue;
        value_bytes(key, revision, want, start);
        if (offset == 0 && memcmp(bytes, want, start) != 0) continue;
        value_bytes(key, revision, want, size);
        if (memcmp(bytes, want + offset, size - offset) == 0) return true;
    }
    return false;
}

/* ---- the client ---- */

static uint64_t evictions_now(struct world *world)
{
    struct store_master_counts counts = { 0 };
    if (world->cluster.master != NULL) {
        store_master_counts(store_master_shell_directory(world->cluster.master), &counts);
    }
    return world->evictions + counts.evictions_total;
}

/* What a node has of the key, in memory or on its disk. */
static bool node_has(const struct world *world, unsigned i, unsigned key, struct rank *out)
{
    const struct sim_node *node = &world->cluster.nodes[i];
    const struct block_key id = value_id(key);
    if (node->env == NULL) return false;
    const struct object *object = objects_find(node->node->objects, &id);
    const struct vlog_entry *entry = object == NULL ? node_values_find(node->node, &id) : NULL;
    if (object != NULL) *out = rank_of(&object->attributes);
    if (entry != NULL) *out = rank_of(&entry->meta.attributes);
    return object != NULL || entry != NULL;
}

static void remember_acknowledged(struct world *world, unsigned key, unsigned revision, bool pinned,
                                  uint64_t evictions)
{
    struct known *known = &world->known[key];
    struct rank rank;
    bool any = false;

    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (!node_has(world, i, key, &rank)) continue;
        if (!any || rank_compare(rank, known->rank) > 0) known->rank = rank;
        any = true;
    }
    known->revision = revision;
    known->evictions = evictions;
    known->gone = false;
    known->death_ns = 0;
    known->pinned = pinned;
    known->unsure = false; /* what may still happen is of a lower rank */
    known->acked = any;    /* acknowledged while its owner was being killed: nothing to expect */
}

/* How many nodes but `except` have what was acknowledged, or what has replaced it since. */
static unsigned holders(const struct world *world, unsigned key, unsigned except)
{
    struct rank rank;
    unsigned count = 0;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (i == except || !node_has(world, i, key, &rank)) continue;
        count += rank_compare(rank, world->known[key].rank) >= 0;
    }
    return count;
}

/* The node is about to die: what nobody else has goes with it. */
static void remember_death(struct world *world, unsigned dying)
{
    for (unsigned key = 0; key < KEYS; key++) {
        struct known *known = &world->known[key];
        const unsigned others = holders(world, key, dying);
        if (holders(world, key, SIM_NODES) == others) continue;
        known->gone = known->gone || others == 0;
        known->death_ns = env_sim_now_ns(world->cluster.sim);
    }
    world->deaths++;
}

/* While the master takes a dead node for one that lives, it may have others drop what they have: of
 * a node that drains, or as there are more than are wished. */
static void remember_drops(struct world *world)
{
    const uint64_t now_ns = env_sim_now_ns(world->cluster.sim);
    for (unsigned key = 0; key < KEYS; key++) {
        struct known *known = &world->known[key];
        const bool lately = known->death_ns > 0 && now_ns < known->death_ns + DEATH_KNOWN_NS;
        if (known->acked && lately && holders(world, key, SIM_NODES) == 0) known->gone = true;
    }
}

/* What is leased is not evicted. */
static void check_leases(const struct world *world)
{
    const uint64_t now_ns = env_sim_now_ns(world->cluster.sim);
    for (unsigned key = 0; key < KEYS; key++) {
        const struct known *known = &world->known[key];
        if (!known->acked || known->unsure || known->removable || known->gone) continue;
        if (now_ns >= known->leased_ns || known->leased_terms != world->cluster.terms) continue;
        CHECK(holders(world, key, SIM_NODES) > 0);
    }
}

/* An acknowledged value is gone: is there a reason? */
static bool explained(struct world *world, unsigned key)
{
    const struct known *known = &world->known[key];

    if (known->gone || known->removable) return true;
    if (known->unsure && world->deaths > known->deaths) return true; /* it had replaced that */
    return (!known->pinned || known->unsure) && evictions_now(world) > known->evictions;
}

static bool uncertain(enum status status)
{
    return status != STATUS_OK && status != STATUS_EXISTS && status != STATUS_FULL &&
           status != STATUS_QUOTA;
}

static bool settled(const struct world *world)
{
    const struct sim_cluster *cluster = &world->cluster;
    return cluster->master != NULL && master_settled(store_master_shell_directory(cluster->master),
                                                     env_now_ns(cluster->master_env));
}

/* A master that knew what there is may have answered just before somebody came whose values it does
 * not know: looked at more often than answers come, it is seen to have known. */
static void note_settled(struct world *world)
{
    if (settled(world)) world->settled_ns = env_sim_now_ns(world->cluster.sim);
}

/* What is known as something begins. */
static void slot_begin(struct slot *slot)
{
    struct world *world = slot->world;
    const struct known *known = &world->known[slot->key];
    slot->ended = false;
    slot->evictions = evictions_now(world);
    slot->deaths = world->deaths;
    slot->began_ns = env_sim_now_ns(world->cluster.sim);
    slot->acked = known->acked && !known->unsure && !known->removable;
    slot->removed =
        known->removed && !known->unsure && known->removed_terms == world->cluster.terms;
    note_settled(world);
}

/* What was removed is not there, what is there is not said to be absent by a master that cannot
 * know yet, and who was told that it is there has a lease. */
static void check_presence(const struct slot *slot, enum status status)
{
    struct world *world = slot->world;
    struct known *known = &world->known[slot->key];
    const bool one_master = known->removed_terms == world->cluster.terms;

    note_settled(world);
    CHECK(status != STATUS_OK || !slot->removed || !known->removed || !one_master);
    if (status == STATUS_NOT_FOUND && slot->acked && known->acked && world->cluster.master != NULL)
        CHECK(world->settled_ns >= slot->began_ns || explained(slot->world, slot->key));
    if (status == STATUS_OK && slot->op == OP_EXIST) {
        known->leased_ns = slot->began_ns + SIM_LEASE_MS * ENV_NS_PER_MS;
        known->leased_terms = world->cluster.terms;
    }
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct slot *slot = ctx;
    struct world *world = slot->world;
    CHECK(index == 0 && slot->op != OP_NONE);

    if (slot->op == OP_GET || slot->op == OP_EXIST) check_presence(slot, status);
    if ((slot->op == OP_PUT || slot->op == OP_REPLACE) && status == STATUS_OK) {
        acked_total++;
        replaced_total += slot->op == OP_REPLACE;
        remember_acknowledged(world, slot->key, slot->revision, slot->pinned, slot->evictions);
    }
    if (slot->op == OP_GET && status == STATUS_OK) {
        const struct known *known = &world->known[slot->key];
        const bool strict = known->acked && !known->unsure && !explained(world, slot->key);
        reads_total++;
        CHECK(value_is_one_of(slot->key, strict ? known->revision : 1, known->tried, slot->memory,
                              size, slot->offset));
    }
    if ((slot->op == OP_PUT || slot->op == OP_REPLACE) && uncertain(status)) {
        struct known *known = &world->known[slot->key];
        if (!known->unsure) known->deaths = slot->deaths;
        known->unsure = true;
    }
    const bool told = status == STATUS_NOT_FOUND || status == STATUS_BUSY;
    if (slot->op == OP_REMOVE && uncertain(status) && !told) {
        world->known[slot->key].removable = true;
    }
    if (slot->op == OP_REMOVE && status == STATUS_OK) {
        world->known[slot->key].removed = true;
        world->known[slot->key].removed_terms = world->cluster.terms;
    }
    CHECK(status != STATUS_CORRUPT || world->flips); /* nothing corrupts memory in this world */
    slot->op = OP_NONE;
    slot->status = status;
    slot->ended = true;
}

/* In every world one of them is on the host of a node. */
static const char *client_host(unsigned which)
{
    const bool neighbour = (current_seed + which) % 2 == 1;
    return neighbour ? "10.0.1.1" : which == 0 ? "10.0.2.1" : "10.0.2.2";
}

static void client_start(struct world *world, unsigned which)
{
    const char *host = client_host(which);
    const bool neighbour = strcmp(host, "10.0.1.1") == 0;
    struct client *client = &world->clients[which];
    char listen[32];
    const struct yolk_transfer_options transfer = {
        .listen = listen, .secret = SIM_SECRET, .slice_size = 16384, .fence_ms = 2000
    };
    void *memory = NULL;

    snprintf(listen, sizeof(listen), "%s:%s", host, neighbour ? "7300" : "7200");
    client->env = env_sim_add(world->cluster.sim, host);
    CHECK(yolk_transfer_create(client->env, &transfer, &client->transfer, NULL) == STATUS_OK);
    CHECK(yolk_transfer_alloc(client->transfer, (size_t)(SLOTS + SESSIONS) * VALUE_SIZE_MAX,
                              YOLK_TRANSFER_REMOTE_ALL, &memory, NULL) == STATUS_OK);
    for (unsigned i = 0; i < TENANTS; i++) {
        const struct yolk_store_options options = { .env = client->env,
                                                    .transfer = client->transfer,
                                                    .master = SIM_MASTER,
                                                    .secret = SIM_SECRET,
                                                    .tenant = tenants[i],
                                                    .timeout_ms = 6000 };
        CHECK(yolk_store_create(&options, &client->stores[i], NULL) == STATUS_OK);
        /* Nothing comes inline, as from and for a peer of before; or small values; or all. */
        const uint32_t inlines[] = { 0, client->stores[i]->inline_max, VALUE_SIZE_MAX };
        client->stores[i]->inline_max = inlines[current_seed / 3 % 3];
        if (current_seed % 4 == 1) client_commits_limit(client->stores[i]->commits, 1);
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        world->slots[i].world = world;
        world->slots[i].memories[which] = (uint8_t *)memory + (size_t)i * VALUE_SIZE_MAX;
    }
    for (unsigned i = 0; which == 0 && i < SESSIONS; i++) {
        world->sessions[i].world = world;
        world->sessions[i].memory = (uint8_t *)memory + (size_t)(SLOTS + i) * VALUE_SIZE_MAX;
    }
}

static void client_kill(struct world *world, unsigned which)
{
    struct client *client = &world->clients[which];
    env_sim_kill(client->env);
    for (unsigned i = 0; i < TENANTS; i++) {
        seen_total += readings_bytes(client->stores[i]->readings);
        known_total += client->stores[i]->known_gets;
        guessed_total += client->stores[i]->guesses.right;
        posted_total += client->stores[i]->board_gets;
        committed_total += client_commits_together(client->stores[i]->commits);
        yolk_store_destroy(client->stores[i]);
        client->stores[i] = NULL;
    }
    yolk_transfer_destroy(client->transfer);
    world->clients_paused[which] = false;
    for (unsigned i = 0; which == 0 && i < SESSIONS; i++)
        world->sessions[i].op = OP_NONE; /* those that rested */
}

static void on_together(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct together *together = ctx;
    CHECK(index < SLOTS && together->left > 0);
    together->left--;
    on_item(together->slots[index], 0, status, size);
}

/* Clients read in turn. */
static unsigned reader(struct world *world)
{
    const unsigned client = world->gets++ % CLIENTS;
    return world->clients_paused[client] ? 0 : client;
}

static void get_prepare(struct world *world, struct slot *slot, unsigned client, unsigned key,
                        struct yolk_store_buffer *out)
{
    slot->op = OP_GET;
    slot->client = client;
    slot->memory = slot->memories[client];
    slot->key = key;
    slot->offset = world->known[key].tried % 4 == 3 ? value_size(key, 1) / 2 : 0;
    slot_begin(slot);
    memset(slot->memory, 0, VALUE_SIZE_MAX);
    *out = (struct yolk_store_buffer){ .data = slot->memory,
                                       .size = VALUE_SIZE_MAX,
                                       .range = slot->offset > 0,
                                       .offset = slot->offset };
}

/* The next value of the slot's key, in its memory. */
static struct yolk_store_value value_prepare(struct slot *slot, struct yolk_store_key name)
{
    slot->revision = ++slot->world->known[slot->key].tried;
    slot->world->known[slot->key].removed = false;
    CHECK(slot->revision < REVISIONS);
    const struct yolk_store_value value = { .key = name,
                                            .data = slot->memory,
                                            .size = value_size(slot->key, slot->revision),
                                            .group = slot->revision % 3 == 0 ? slot->key % 4 : 0,
                                            .cost_ms = slot->revision % 7 * 10,
                                            .depth = slot->key };
    value_bytes(slot->key, slot->revision, slot->memory, value.size);
    return value;
}

static void op_start(struct world *world, struct slot *slot, enum op op, unsigned key)
{
    char text[16];
    const struct yolk_store_key name = value_key(key, text);
    struct yolk_store_call call = { .on_item = on_item, .ctx = slot, .force = true };
    enum status status = STATUS_INVALID;
    CHECK(slot->op == OP_NONE);

    slot->op = op;
    slot->key = key;
    slot->offset = world->known[key].tried % 4 == 3 ? value_size(key, 1) / 2 : 0;
    slot_begin(slot);
    slot->memory = slot->memories[0];
    slot->pinned = false;
    if (op == OP_PUT || op == OP_REPLACE) {
        const struct yolk_store_value value = value_prepare(slot, name);
        call.replace = op == OP_REPLACE;
        if (slot->revision % 4 == 0) call.soft_pin_ms = 2000;
        if (slot->revision % 3 == 1) call.replicas = 2;
        if (world->whole) {
            call.preferred = slot->revision % 5 == 1 ? "node-10.0.1.2" : NULL;
            call.hard_pin = slot->revision % 5 == 2 && value.size <= 4096;
        }
        slot->pinned = call.hard_pin;
        status = yolk_store_put(store_of(world, key), &value, 1, &call);
    } else if (op == OP_GET) {
        struct yolk_store_buffer buffer;
        get_prepare(world, slot, reader(world), key, &buffer);
        buffer.key = name;
        status = yolk_store_get(world->clients[slot->client].stores[key / RED], &buffer, 1, &call);
    } else if (op == OP_EXIST) {
        status = yolk_store_exist(store_of(world, key), &name, 1, &call);
    } else {
        world->known[key].acked = false;
        status = yolk_store_remove(store_of(world, key), &name, 1, &call);
    }
    CHECK(status == STATUS_OK);
}

/* One user of a key at a time when it may be removed: else what was acknowledged is anybody's
 * guess. */
static bool key_in_use(const struct world *world, unsigned key)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (world->slots[i].op != OP_NONE && world->slots[i].key == key) return true;
    }
    for (unsigned i = 0; i < SESSIONS; i++) { /* who reads is in nobody's way */
        if (world->sessions[i].op == OP_DRAFT && world->sessions[i].key == key) return true;
    }
    return false;
}

/* Every slot that is idle reads, each another key of one tenant. */
static void gets_start(struct world *world)
{
    struct together *together = &world->together;
    const struct yolk_store_call call = { .on_item = on_together, .ctx = together };
    struct yolk_store_buffer buffers[SLOTS];
    char texts[SLOTS][16];
    uint32_t count = 0;

    if (together->left > 0) return;
    const unsigned tenant = rng_below(&world->rng, 4) == 0;
    const unsigned client = reader(world);
    for (unsigned i = 0; i < SLOTS; i++) {
        const unsigned key = (unsigned)rng_below(&world->rng, KEYS);
        if (world->slots[i].op != OP_NONE || key_in_use(world, key)) continue;
        if (key / RED != tenant) continue;
        get_prepare(world, &world->slots[i], client, key, &buffers[count]);
        buffers[count].key = value_key(key, texts[count]);
        together->slots[count++] = &world->slots[i];
    }
    together->left = count;
    if (count == 0) return;
    together_total += count;
    CHECK(yolk_store_get(world->clients[client].stores[tenant], buffers, count, &call) ==
          STATUS_OK);
}

static void client_step(struct world *world)
{
    struct slot *slot = &world->slots[rng_below(&world->rng, SLOTS)];
    const unsigned key = (unsigned)rng_below(&world->rng, KEYS);
    const uint64_t dice = rng_below(&world->rng, 20);

    if (world->clients_paused[0] || slot->op != OP_NONE || key_in_use(world, key)) return;
    if (dice < 6) {
        op_start(world, slot, OP_PUT, key);
    } else if (dice < 9) {
        op_start(world, slot, OP_REPLACE, key);
    } else if (dice < 13) {
        op_start(world, slot, OP_GET, key);
    } else if (dice < 17) {
        gets_start(world);
    } else if (dice < 19) {
        op_start(world, slot, OP_EXIST, key);
    } else {
        op_start(world, slot, OP_REMOVE, key);
    }
}

/* Others read the first key. */
static void heat(struct world *world, unsigned times)
{
    struct store_object object;
    char text[16];
    const struct yolk_store_key name = value_key(0, text);
    const struct store_key key = { name.bytes, (uint32_t)name.len };

    if (world->cluster.master == NULL || world->master_paused) return;
    struct store_master *master = store_master_shell_directory(world->cluster.master);
    for (unsigned i = 0; i < times; i++) {
        const enum status status =
            store_master_get(master, env_now_ns(world->cluster.master_env), key, &object);
        CHECK(status != STATUS_OK || object.replicas_count > 0);
    }
}

/* ---- sessions ---- */

static void session_call(struct session *session);

static void session_over(struct session *session, enum status status)
{
    struct known *known = &session->world->known[session->key];

    session->status = status;
    if (session->op == OP_DRAFT && session->step == SESSION_ENDING) {
        if (status == STATUS_OK) {
            drafts_total++;
            remember_acknowledged(session->world, session->key, session->revision, false,
                                  session->evictions);
        } else if (uncertain(status) && status != STATUS_NOT_FOUND) {
            if (!known->unsure) known->deaths = session->deaths;
            known->unsure = true;
        }
    }
    session->op = OP_NONE;
}

/* Which revisions have what was found. */
static void candidates_start(struct session *session)
{
    const struct known *known = &session->world->known[session->key];
    const bool strict = session->acked && known->acked && !known->unsure &&
                        known->revision == session->revision &&
                        !explained(session->world, session->key);
    bool any = false;

    CHECK(known->tried < REVISIONS);
    for (unsigned r = 0; r < REVISIONS; r++) {
        session->may_be[r] = r >= (strict ? session->revision : 1) && r <= known->tried &&
                             value_size(session->key, r) == session->size;
        any = any || session->may_be[r];
    }
    CHECK(any);
}

/* Those that also have what was read. */
static void candidates_read(struct session *session)
{
    static uint8_t want[VALUE_SIZE_MAX];
    bool any = false;

    for (unsigned r = 0; r < REVISIONS; r++) {
        if (!session->may_be[r]) continue;
        value_bytes(session->key, r, want, session->size);
        for (uint32_t i = 0; i < session->parts_count; i++) {
            const struct yolk_store_part *part = &session->parts[i];
            if (memcmp(part->data, want + part->offset, part->size) != 0)
                session->may_be[r] = false;
        }
        any = any || session->may_be[r];
    }
    session_reads_total++;
    CHECK(any); /* else wrong bytes, or of two values in one session */
}

/* Whether the session goes on to another call of its kind. */
static bool session_moved(struct session *session, enum status status)
{
    session->calls--;
    if (session->op == OP_HOLD) {
        if (status == STATUS_OK) candidates_read(session);
        CHECK(status != STATUS_NOT_FOUND);
        return status == STATUS_OK && session->calls > 0;
    }
    for (uint32_t i = 0; i < session->parts_count && status == STATUS_OK; i++)
        session->moved += session->parts[i].size;
    return session->moved < session->size && session->calls > 0;
}

static bool session_is_over(const struct session *session, enum status status)
{
    switch (session->step) {
    case SESSION_STARTING: return status != STATUS_OK;
    case SESSION_MOVING: /* NOT_FOUND: its time was over */
        return status == STATUS_CANCELLED ||
               (session->op == OP_DRAFT && status == STATUS_NOT_FOUND);
    case SESSION_REVOKING:
    case SESSION_ENDING: return true;
    }
    return true;
}

static void on_session(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct session *session = ctx;
    struct world *world = session->world;
    const bool draft = session->op == OP_DRAFT;

    CHECK(index == 0 && (draft || session->op == OP_HOLD));
    CHECK((status != STATUS_CORRUPT || world->flips) && status != STATUS_INVALID);
    if (session_is_over(session, status)) {
        session_over(session, status);
        return;
    }
    if (session->step == SESSION_STARTING) {
        session->size = size;
        session->step = SESSION_MOVING;
        if (!draft) candidates_start(session);
    } else if (!session_moved(session, status)) {
        const bool part = draft && session->moved < session->size;
        session->step = part ? SESSION_REVOKING : SESSION_ENDING;
    }
    session->resting = !world->in_haste;
    if (!session->resting) session_call(session);
}

/* The key has a session already: another start of it counts, and finds what that has found, be it
 * replaced meanwhile. */
static bool session_joins(const struct session *session)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct session *other = &session->world->sessions[i];
        if (other != session && other->op == OP_HOLD && other->key == session->key) return true;
    }
    return false;
}

static enum status session_start(struct session *session, const struct yolk_store_key *name,
                                 struct yolk_store_call *call)
{
    struct known *known = &session->world->known[session->key];
    struct yolk_store *store = store_of(session->world, session->key);
    struct rng *rng = &session->world->sessions_rng;

    session->deaths = session->world->deaths;
    session->moved = 0;
    session->calls = (unsigned)rng_between(rng, 1, 8);
    if (session->op == OP_HOLD) {
        session->revision = known->revision;
        session->acked = known->acked && !session_joins(session);
        return yolk_store_get_session_start(store, name, 1, call);
    }
    session->calls += 4;
    session->revision = ++known->tried;
    known->removed = false;
    session->size = value_size(session->key, session->revision);
    value_bytes(session->key, session->revision, session->memory, session->size);
    call->replace = rng_below(rng, 2) == 0;
    call->replicas = 1 + session->revision % 2;
    const struct yolk_store_value value = { .key = *name, .size = session->size };
    return yolk_store_put_session_start(store, &value, 1, call);
}

/* What is left is written in order, the last two times all of it; what is read is anywhere. */
static void parts_draw(struct session *session)
{
    struct rng *rng = &session->world->sessions_rng;
    const bool draft = session->op == OP_DRAFT;
    uint64_t at = session->moved;
    uint32_t count = 0;

    while (count < PARTS && at < session->size) {
        if (!draft) at = rng_below(rng, session->size);
        const uint64_t left = session->size - at;
        const uint64_t size = draft && session->calls < 3 ? left : rng_between(rng, 1, left);
        session->parts[count++] = (struct yolk_store_part){ session->memory + at, size, at };
        if (!draft) break; /* parts that are read together would have to lie apart */
        at += size;
    }
    session->parts_count = count;
}

static void session_call(struct session *session)
{
    struct yolk_store *store = store_of(session->world, session->key);
    const bool draft = session->op == OP_DRAFT;
    char text[16];
    const struct yolk_store_key name = value_key(session->key, text);
    struct yolk_store_call call = { .on_item = on_session, .ctx = session };
    enum status status = STATUS_INVALID;

    session->resting = false;
    session->evictions = evictions_now(session->world);
    if (session->step == SESSION_STARTING) {
        status = session_start(session, &name, &call);
    } else if (session->step == SESSION_MOVING) {
        parts_draw(session);
        const struct yolk_store_parts item = { name, session->parts, session->parts_count };
        status = draft ? yolk_store_put_session_write(store, &item, 1, &call)
                       : yolk_store_get_session_read(store, &item, 1, &call);
    } else if (session->step == SESSION_REVOKING) {
        status = yolk_store_put_session_revoke(store, &name, 1, &call);
    } else {
        status = draft ? yolk_store_put_session_end(store, &name, 1, &call)
                       : yolk_store_get_session_end(store, &name, 1, &call);
    }
    CHECK(status == STATUS_OK);
}

static void session_begin(struct session *session, enum op op, unsigned key)
{
    session->op = op;
    session->key = key;
    session->step = SESSION_STARTING;
    session_call(session);
}

static void sessions_step(struct world *world)
{
    struct session *session = &world->sessions[rng_below(&world->sessions_rng, SESSIONS)];
    const bool busy = rng_below(&world->sessions_rng, 2) == 0; /* so that readers meet writers */
    const unsigned key = (unsigned)rng_below(&world->sessions_rng, busy ? 4 : KEYS);
    const enum op op = rng_below(&world->sessions_rng, 2) == 0 ? OP_DRAFT : OP_HOLD;

    if (!world->whole || world->clients_paused[0]) return;
    if (session->op != OP_NONE) {
        if (session->resting) session_call(session);
    } else if (op == OP_HOLD || !key_in_use(world, key)) {
        session_begin(session, op, key);
    }
}

/* Those that rest go on to their ends. */
static void sessions_hurry(struct world *world)
{
    world->in_haste = true;
    for (unsigned i = 0; i < SESSIONS; i++) {
        if (world->sessions[i].op != OP_NONE && world->sessions[i].resting) {
            session_call(&world->sessions[i]);
        }
    }
}

/* ---- blocks ---- */

static void on_fetched(void *ctx, const struct store_fetch_result *result)
{
    struct fetching *fetching = ctx;
    struct sim_node *node = &fetching->world->cluster.nodes[fetching->node];
    uint8_t want[SIM_PAGE_SIZE];

    fetching->busy = false;
    CHECK(result->blocks <= fetching->count);
    CHECK((result->blocks == fetching->count) == (result->reason == STORE_MISS_NONE));
    if (node->node->closing) return; /* dead: its memory is gone */
    for (uint32_t i = 0; i < result->blocks; i++) {
        sim_bytes(fetching->first + i, want, sizeof(want));
        CHECK(memcmp(store_node_data(node->node, fetching->pages[i]), want,
                     SIM_LAYERS * SIM_LAYER_SIZE) == 0);
        fetched_total++;
    }
    for (uint32_t i = 0; i < fetching->count; i++) {
        store_node_unref(node->node, fetching->pages[i]);
    }
}

static void block_commit(struct world *world, struct sim_node *node)
{
    const uint64_t n = rng_below(&world->rng, BLOCKS);
    const struct block_key key = sim_key(n);
    struct store_page page;

    if (store_node_alloc(node->node, 1, &page) != STATUS_OK) return;
    sim_bytes(n, store_node_data(node->node, page), SIM_PAGE_SIZE);
    const enum status status = store_node_commit(node->node, &key, page, NULL);
    CHECK(status == STATUS_OK || status == STATUS_EXISTS);
    store_node_unref(node->node, page);
}

static void fetch_start(struct world *world, struct fetching *fetching)
{
    const unsigned to = (unsigned)rng_below(&world->rng, SIM_NODES);
    const unsigned from = (unsigned)rng_below(&world->rng, SIM_NODES);
    struct sim_node *node = &world->cluster.nodes[to];
    struct block_key keys[FETCH_BLOCKS];

    if (node->env == NULL || world->paused[to] || world->cluster.nodes[from].lives == 0) return;
    fetching->world = world;
    fetching->node = to;
    fetching->life = node->lives;
    fetching->first = rng_below(&world->rng, BLOCKS - FETCH_BLOCKS);
    fetching->count = 1 + (uint32_t)rng_below(&world->rng, FETCH_BLOCKS);
    for (uint32_t i = 0; i < fetching->count; i++)
        keys[i] = sim_key(fetching->first + i);
    if (store_node_alloc(node->node, fetching->count, fetching->pages) != STATUS_OK) return;
    const struct store_fetch_options options = {
        .holder = from == to ? NULL : world->cluster.nodes[from].rpc_address,
        .keys = keys,
        .pages = fetching->pages,
        .count = fetching->count,
        .transfer_class = YOLK_TRANSFER_LOAD,
        .deadline_ns = env_now_ns(node->env) + rng_between(&world->rng, 1, 3000) * ENV_NS_PER_MS,
        .on_done = on_fetched,
        .ctx = fetching,
    };
    const enum status status = store_node_fetch(node->node, &options, &fetching->fetch);
    CHECK(status == STATUS_OK || (status == STATUS_NOT_FOUND && from == to));
    fetching->busy = status == STATUS_OK;
    for (uint32_t i = 0; status != STATUS_OK && i < fetching->count; i++)
        store_node_unref(node->node, fetching->pages[i]);
}

static void blocks_step(struct world *world)
{
    struct fetching *fetching = &world->fetches[rng_below(&world->rng, FETCHES)];
    const unsigned i = (unsigned)rng_below(&world->rng, SIM_NODES);
    struct sim_node *node = &world->cluster.nodes[i];

    if (node->env != NULL && !world->paused[i]) block_commit(world, node);
    if (!fetching->busy) {
        fetch_start(world, fetching);
    } else if (rng_below(&world->rng, 4) == 0 &&
               fetching->life == world->cluster.nodes[fetching->node].lives &&
               !world->paused[fetching->node]) {
        store_fetch_cancel(fetching->fetch);
    }
}

#endif
