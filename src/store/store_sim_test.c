/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_sim_test.c
 *
 * Goal:   what was acknowledged is readable, or its absence is explained; no byte is ever wrong,
 *         and nothing that was replaced is seen after that was acknowledged; the books of master
 *         and nodes always balance; and when nothing breaks any more, everything works.
 * Method: master, three nodes and two clients in one thread, from a seed. One client puts,
 *         replaces, gets, removes and asks, the other one gets what that has put; nodes commit
 *         blocks and fetch them from each other; meanwhile connections break, hosts are cut off,
 *         processes are stopped, killed and started again, the master among them. Bytes are a
 *         function of key and revision, so every read can be checked. Reads are of one key or of
 *         several with one call, whose values the owners send inline, or let be read, or both.
 *         Sessions put values in parts, and read parts, which must all be of one value, whatever
 *         becomes of its key. Three kinds of world:
 *           calm nodes    only the master and the client die: every acknowledged value survives
 *           mortal nodes  an acknowledged value may go with the last life that held it
 *           tiny          values do not fit: eviction may take them, puts must still succeed
 *         In every second world nodes have a disk below their pages, and load from it too; one of
 *         the clients is on the host of a node; in every third one values have a disk; in every
 *         fifth one the first key is read by many others for a while, and what is hot gets
 *         replicas. The last keys are another tenant's, under the same names as the first ones; in
 *         tiny worlds it has a quota.
 *         The actors are in store_world_sim.h; here are what breaks, what operators do, and the
 *         checks of the whole.
 *         YOLK_SIM_SEEDS=n runs n seeds of each kind; SEED=n starts there. */
#include "store/store_world_sim.h"

#include "seed.h"

/* ---- breaking ---- */

static void master_kill(struct world *world)
{
    world->evictions = evictions_now(world);
    sim_master_kill(&world->cluster);
    world->master_paused = false;
}

static void node_kill(struct world *world, unsigned i, bool power)
{
    struct sim_node *node = &world->cluster.nodes[i];
    remember_death(world, i);
    if (power) env_sim_power_off(world->cluster.sim, node->host);
    sim_node_kill(node);
    world->paused[i] = false;
    world->leaving[i] = false;
}

static void node_toggle(struct world *world, unsigned i)
{
    struct sim_node *node = &world->cluster.nodes[i];
    if (node->env == NULL) {
        sim_node_start(&world->cluster, i);
    } else {
        node_kill(world, i, false);
    }
}

static void part_toggle(struct world *world, unsigned i)
{
    struct sim_cluster *cluster = &world->cluster;
    const char *host = cluster->nodes[i].host;
    const char *others[] = { "10.0.0.1", "10.0.2.1", cluster->nodes[(i + 1) % SIM_NODES].host };

    if (cluster->nodes[i].lives == 0) return;
    for (unsigned o = 0; o < 3; o++) {
        if (world->parted[i]) {
            env_sim_heal(cluster->sim, host, others[o]);
        } else if (o != 1 || rng_below(&world->rng, 2) == 0) {
            env_sim_partition(cluster->sim, host, others[o]);
        }
    }
    world->parted[i] = !world->parted[i];
}

static void pause_toggle(struct world *world, unsigned i)
{
    struct sim_node *node = &world->cluster.nodes[i];
    if (node->env == NULL) return;
    if (world->paused[i]) {
        env_sim_resume(node->env);
    } else {
        env_sim_pause(node->env);
    }
    world->paused[i] = !world->paused[i];
}

/* Owners vouch for what they have to who remembers it only after half a minute with one master, or
 * with the first one they know. */
static bool master_stays(const struct world *world)
{
    return world->whole && current_seed % 4 == 3;
}

static void break_something(struct world *world)
{
    const unsigned i = (unsigned)rng_below(&world->rng, SIM_NODES);

    switch (rng_below(&world->rng, 24)) {
    case 0:
        if (world->cluster.master == NULL) {
            sim_master_start(&world->cluster);
        } else if (rng_below(&world->rng, 2) == 0 && !master_stays(world)) {
            master_kill(world);
        }
        break;
    case 1:
        if (world->cluster.master == NULL) sim_master_start(&world->cluster);
        break;
    case 2:
        if (world->kind == MORTAL_NODES) node_toggle(world, i);
        break;
    case 3:
        if (world->kind == MORTAL_NODES && world->cluster.nodes[i].env == NULL) {
            node_toggle(world, i);
        }
        break;
    case 4: part_toggle(world, i); break;
    case 5:
        if (world->parted[i]) part_toggle(world, i);
        break;
    case 6: pause_toggle(world, i); break;
    case 7:
    case 8:
        if (world->paused[i]) pause_toggle(world, i);
        break;
    case 9:
        if (rng_below(&world->rng, 4) == 0) {
            client_kill(world, 0);
            client_start(world, 0);
        }
        break;
    default: break;
    }
}

/* ---- unrest: what operators do, and what happens to others than nodes, meanwhile ---- */

enum unrest {
    UNREST_DRAIN,
    UNREST_REPLICAS,
    UNREST_COPY,
    UNREST_MOVE,
    UNREST_LIST,
    UNREST_REMOVE_MATCHING,
    UNREST_PUT_BATCH,
    UNREST_UNMOUNT,
    UNREST_MASTER_PAUSE,
    UNREST_CLIENT_PAUSE,
    UNREST_CLIENT_CUT,
    UNREST_CLIENT_KILL,
    UNREST_POWER_OFF,
    UNREST_SKEW,
    UNREST_KINDS,
};

static const char *const unrest_names[UNREST_KINDS] = {
    "drain",           "replicas",    "copy",      "move",         "list",
    "remove_matching", "put_batch",   "unmount",   "master_pause", "client_pause",
    "client_cut",      "client_kill", "power_off", "skew",
};
static unsigned long long unrest_total[UNREST_KINDS];

static void on_unrest_drain(void *ctx, enum status status, uint64_t left)
{
    (void)ctx;
    (void)left;
    CHECK(status != STATUS_INVALID && status != STATUS_CORRUPT);
}

/* One node at a time, so that there is room for what it has. */
static bool unrest_drain(struct world *world, unsigned i)
{
    char name[STORE_NAME_SIZE];
    const bool undo = world->drained != 0;
    if (undo) i = world->drained - 1;
    if (world->cluster.nodes[i].lives == 0) return false;
    snprintf(name, sizeof(name), "node-%s", world->cluster.nodes[i].host);
    world->drained = undo ? 0 : 1 + i;
    CHECK(yolk_store_drain(world->clients[0].stores[0], name, undo, 0, on_unrest_drain, world) ==
          STATUS_OK);
    return !undo;
}

static void on_unrest_replicas(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    (void)ctx;
    (void)size;
    CHECK(index == 0 && status != STATUS_INVALID && status != STATUS_CORRUPT);
}

static bool unrest_replicas(struct world *world, unsigned key)
{
    char text[16];
    const struct yolk_store_key name = value_key(key, text);
    const struct yolk_store_call call = { .on_item = on_unrest_replicas,
                                          .ctx = world,
                                          .replicas =
                                              1 + (uint32_t)rng_below(&world->unrest_rng, 3) };
    CHECK(yolk_store_replicas(store_of(world, key), &name, 1, &call) == STATUS_OK);
    return true;
}

static void on_unrest_task(void *ctx, enum status status, const struct yolk_store_task *task,
                           const char *message)
{
    (void)ctx;
    (void)message;
    CHECK((status == STATUS_OK) == (task != NULL) && status != STATUS_CORRUPT);
}

static void node_name(const struct world *world, unsigned i, char out[STORE_NAME_SIZE])
{
    snprintf(out, STORE_NAME_SIZE, "node-%s", world->cluster.nodes[i].host);
}

static bool unrest_copy(struct world *world, unsigned key)
{
    char text[16];
    char names[2][STORE_NAME_SIZE];
    const char *const to[] = { names[0], names[1] };
    const uint32_t count = 1 + (uint32_t)rng_below(&world->unrest_rng, 2);
    const struct yolk_store_key name = value_key(key, text);
    const unsigned first = (unsigned)rng_below(&world->unrest_rng, SIM_NODES);

    for (unsigned i = 0; i < 2; i++)
        node_name(world, (first + i) % SIM_NODES, names[i]);
    CHECK(yolk_store_copy(store_of(world, key), &name, to, count, 0, on_unrest_task, world) ==
          STATUS_OK);
    return true;
}

static bool unrest_move(struct world *world, unsigned key)
{
    char text[16];
    char to[STORE_NAME_SIZE];
    char from[STORE_NAME_SIZE];
    const struct yolk_store_key name = value_key(key, text);

    node_name(world, (unsigned)rng_below(&world->unrest_rng, SIM_NODES), to);
    node_name(world, (unsigned)rng_below(&world->unrest_rng, SIM_NODES), from);
    CHECK(yolk_store_move(store_of(world, key), &name,
                          rng_below(&world->unrest_rng, 2) == 0 ? from : NULL, to, 0,
                          on_unrest_task, world) == STATUS_OK);
    return true;
}

static void on_unrest_list(void *ctx, enum status status, const struct yolk_store_page *page,
                           const char *message)
{
    (void)ctx;
    (void)message;
    CHECK(status != STATUS_INVALID && (status == STATUS_OK) == (page != NULL));
    for (uint32_t i = 0; page != NULL && i < page->count; i++)
        CHECK(page->entries[i].size > 0 && page->entries[i].size <= VALUE_SIZE_MAX);
}

static bool unrest_list(struct world *world, unsigned key)
{
    const struct yolk_store_query query = { .prefix = "value/", .prefix_len = 6, .limit = key };
    CHECK(yolk_store_list(store_of(world, key), &query, 0, on_unrest_list, world) == STATUS_OK);
    return true;
}

static void on_unrest_remove(void *ctx, enum status status, const struct yolk_store_page *page,
                             const char *message)
{
    (void)message;
    CHECK((status == STATUS_OK) == (page != NULL));
    if (page != NULL && page->kept > 0) status = STATUS_BUSY;
    if (page != NULL && page->kept + page->removed == 0) status = STATUS_NOT_FOUND;
    on_item(ctx, 0, status, 0);
}

/* One key, as others are being put; by an expression that finds no other. */
static bool unrest_remove_matching(struct world *world, unsigned key)
{
    char regex[24];
    char text[16];
    struct slot *slot = &world->slots[rng_below(&world->unrest_rng, SLOTS)];
    const struct yolk_store_query query = { .regex = regex, .force = true };

    if (slot->op != OP_NONE || key_in_use(world, key)) return false;
    const struct yolk_store_key name = value_key(key, text);
    snprintf(regex, sizeof(regex), "^%.*s$", (int)name.len, text);
    slot->op = OP_REMOVE;
    slot->key = key;
    slot_begin(slot);
    world->known[key].acked = false;
    CHECK(yolk_store_remove_matching(store_of(world, key), &query, 0, on_unrest_remove, slot) ==
          STATUS_OK);
    return true;
}

/* Every slot that is idle puts, each another key of one tenant. */
static bool unrest_put_batch(struct world *world, unsigned tenant)
{
    struct together *puts = &world->puts;
    struct rng *rng = &world->unrest_rng;
    const struct yolk_store_call call = { .on_item = on_together,
                                          .ctx = puts,
                                          .replace = rng_below(rng, 2) == 0,
                                          .replicas = 1 + (uint32_t)rng_below(rng, 2) };
    struct yolk_store_value values[SLOTS];
    char texts[SLOTS][16];
    uint32_t count = 0;

    if (puts->left > 0) return false;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &world->slots[i];
        const unsigned key = (unsigned)rng_below(rng, KEYS);
        if (slot->op != OP_NONE || key / RED != tenant || key_in_use(world, key)) continue;
        slot->op = call.replace ? OP_REPLACE : OP_PUT;
        slot->key = key;
        slot->pinned = false;
        slot_begin(slot);
        slot->memory = slot->memories[0];
        values[count] = value_prepare(slot, value_key(key, texts[count]));
        puts->slots[count++] = slot;
    }
    puts->left = count;
    if (count == 0) return false;
    CHECK(yolk_store_put(world->clients[0].stores[tenant], values, count, &call) == STATUS_OK);
    return true;
}

static void on_unrest_unmounted(void *ctx, enum status status)
{
    (void)ctx;
    CHECK(status != STATUS_INVALID);
}

/* It is killed, sooner or later, whether or not it has come to an end. */
static bool unrest_unmount(struct world *world, unsigned i)
{
    struct sim_node *node = &world->cluster.nodes[i];
    if (world->kind != MORTAL_NODES || node->env == NULL || world->leaving[i] || world->paused[i])
        return false;
    store_unmount(node->member, on_unrest_unmounted, world);
    world->leaving[i] = true;
    return true;
}

static bool unrest_master_pause(struct world *world)
{
    struct env *env = world->cluster.master_env;
    if (env == NULL) return false;
    if (world->master_paused) {
        env_sim_resume(env);
    } else {
        env_sim_pause(env);
    }
    world->master_paused = !world->master_paused;
    return world->master_paused;
}

static bool unrest_client_pause(struct world *world, unsigned c)
{
    if (world->clients_paused[c]) {
        env_sim_resume(world->clients[c].env);
    } else {
        env_sim_pause(world->clients[c].env);
    }
    world->clients_paused[c] = !world->clients_paused[c];
    return world->clients_paused[c];
}

/* From the master (0), or from a node. */
static bool unrest_client_cut(struct world *world, unsigned c, unsigned from)
{
    const char *host = client_host(c);
    const char *other = from == 0 ? "10.0.0.1" : world->cluster.nodes[from - 1].host;
    if (strcmp(host, other) == 0) return false;
    if (world->cut[c][from]) {
        env_sim_heal(world->cluster.sim, host, other);
    } else {
        env_sim_partition(world->cluster.sim, host, other);
    }
    world->cut[c][from] = !world->cut[c][from];
    return world->cut[c][from];
}

/* No client is on this host. */
static bool unrest_power_off(struct world *world, unsigned i)
{
    if (world->kind != MORTAL_NODES || i == 0 || world->cluster.nodes[i].env == NULL) return false;
    node_kill(world, i, true);
    return true;
}

static bool unrest_skew(struct world *world, unsigned which)
{
    struct env *env = which == 0 ? world->cluster.master_env : world->cluster.nodes[which - 1].env;
    if (env == NULL) return false;
    env_sim_skew(env, ((int64_t)rng_below(&world->unrest_rng, 41) - 20) * (int64_t)ENV_NS_PER_S);
    return true;
}

/* What has just begun, and not what is over, is told by `true`. */
static bool unrest_make(struct world *world, enum unrest what)
{
    struct rng *rng = &world->unrest_rng;
    const unsigned node = (unsigned)rng_below(rng, SIM_NODES);
    const unsigned client = (unsigned)rng_below(rng, CLIENTS);
    const unsigned key = (unsigned)rng_below(rng, KEYS);

    if (what <= UNREST_PUT_BATCH && world->clients_paused[0]) return false;
    switch (what) {
    case UNREST_DRAIN: return unrest_drain(world, node);
    case UNREST_REPLICAS: return unrest_replicas(world, key);
    case UNREST_COPY: return unrest_copy(world, key);
    case UNREST_MOVE: return unrest_move(world, key);
    case UNREST_LIST: return unrest_list(world, key);
    case UNREST_REMOVE_MATCHING: return unrest_remove_matching(world, key);
    case UNREST_PUT_BATCH: return unrest_put_batch(world, key / RED);
    case UNREST_UNMOUNT: return unrest_unmount(world, node);
    case UNREST_MASTER_PAUSE: return unrest_master_pause(world);
    case UNREST_CLIENT_PAUSE: return unrest_client_pause(world, client);
    case UNREST_CLIENT_CUT: return unrest_client_cut(world, client, key % (1 + SIM_NODES));
    case UNREST_CLIENT_KILL:
        if (rng_below(rng, 8) != 0) return false;
        client_kill(world, 1);
        client_start(world, 1);
        return true;
    case UNREST_POWER_OFF: return unrest_power_off(world, node);
    case UNREST_SKEW: return unrest_skew(world, key % (1 + SIM_NODES));
    case UNREST_KINDS: break;
    }
    return false;
}

static void unrest_step(struct world *world)
{
    const uint64_t what = rng_below(&world->unrest_rng, 4 * UNREST_KINDS);

    if (!world->whole) return;
    if (what < UNREST_KINDS) {
        unrest_total[what] += unrest_make(world, (enum unrest)what);
    } else if (what < 2 * UNREST_KINDS) { /* who stands still does so for a while */
        if (world->master_paused) unrest_master_pause(world);
        for (unsigned c = 0; c < CLIENTS; c++)
            if (world->clients_paused[c]) unrest_client_pause(world, c);
    }
}

static void unrest_end(struct world *world)
{
    if (world->master_paused) unrest_master_pause(world);
    for (unsigned c = 0; c < CLIENTS; c++) {
        if (world->clients_paused[c]) unrest_client_pause(world, c);
        for (unsigned from = 0; from <= SIM_NODES; from++)
            if (world->cut[c][from]) unrest_client_cut(world, c, from);
    }
    for (unsigned i = 0; i < SIM_NODES; i++)
        if (world->leaving[i]) node_kill(world, i, false); /* heal() brings it back */
}

static void check_books(const struct world *world)
{
    if (world->cluster.master != NULL) {
        store_master_check(store_master_shell_directory(world->cluster.master));
    }
    for (unsigned i = 0; i < SIM_NODES; i++) {
        const struct store_node *node = world->cluster.nodes[i].node;
        if (node == NULL) continue;
        pool_check(node->pool);
        if (node_tier_ssd(node) != NULL) ssd_check(node_tier_ssd(node));
        node_values_check(node);
    }
}

/* ---- faults off ---- */

static void heal(struct world *world)
{
    unrest_end(world);
    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (world->paused[i]) pause_toggle(world, i);
        if (world->parted[i]) part_toggle(world, i);
        if (world->cluster.nodes[i].env == NULL) node_toggle(world, i);
    }
    if (world->cluster.master == NULL) sim_master_start(&world->cluster);
    env_sim_calm(world->cluster.sim);
}

static bool all_idle(void *ctx)
{
    const struct world *world = ctx;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (world->slots[i].op != OP_NONE) return false;
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        if (world->sessions[i].op != OP_NONE) return false;
    }
    for (unsigned i = 0; i < FETCHES; i++) {
        if (world->fetches[i].busy) return false;
    }
    return true;
}

static enum status do_now(struct world *world, enum op op, unsigned key)
{
    struct slot *slot = &world->slots[0];
    op_start(world, slot, op, key);
    CHECK(env_sim_run_until(world->cluster.sim, all_idle, world, 30 * ENV_NS_PER_S));
    CHECK(slot->ended);
    return slot->status;
}

static enum status session_now(struct world *world, enum op op, unsigned key)
{
    struct session *session = &world->sessions[0];
    session_begin(session, op, key);
    CHECK(env_sim_run_until(world->cluster.sim, all_idle, world, 30 * ENV_NS_PER_S));
    return session->status;
}

static void check_acknowledged(struct world *world)
{
    for (unsigned key = 0; key < KEYS; key++) {
        if (!world->known[key].acked) continue;
        const enum status status = do_now(world, OP_GET, key); /* bytes are checked by on_item */
        if (status == STATUS_OK) continue;
        if (status != STATUS_NOT_FOUND || !explained(world, key)) {
            fail_msg("SEED=%llu: acknowledged key %u answers %s", (unsigned long long)current_seed,
                     key, status_name(status));
        }
        if (world->kind == CALM_NODES && !world->known[key].removable) {
            fail_msg("SEED=%llu: key %u went where no node dies and memory is not short",
                     (unsigned long long)current_seed, key);
        }
        lost_explained++;
    }
}

/* Every node has a value that must stay, which operators may have moved there: what needs all of a
 * node's memory in one piece finds none. */
static bool pinned_everywhere(const struct world *world)
{
    const struct store_master *master = store_master_shell_directory(world->cluster.master);
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        const struct replica *r = master_replica_at(master, member->replicas);
        while (r != NULL && !(r->placed && master_entry_hard(master_entry_with(master, r))))
            r = master_replica_at(master, r->next_of_member);
        if (r == NULL) return false;
    }
    return true;
}

static void check_liveness(struct world *world)
{
    for (unsigned key = 0; key < KEYS; key++) {
        enum status put = do_now(world, OP_PUT, key);
        if (put == STATUS_FULL || put == STATUS_QUOTA) { /* all of it is leased: not for long */
            /* Or its tenant pays for the ranges of copies that failed, until none can write. */
            sim_run_ms(&world->cluster, put == STATUS_QUOTA ? 6000 : 1000);
            put = do_now(world, OP_PUT, key);
        }
        if (put == STATUS_FULL && pinned_everywhere(world)) continue;
        if (put != STATUS_OK && put != STATUS_EXISTS) {
            fail_msg("SEED=%llu: in a calm world put of key %u ends %s",
                     (unsigned long long)current_seed, key, status_name(put));
        }
        if (do_now(world, OP_REPLACE, key) == STATUS_OK) {
            CHECK(world->known[key].revision == world->known[key].tried);
        }
        const enum status get = do_now(world, OP_GET, key);
        if (get != STATUS_OK) {
            fail_msg("SEED=%llu: in a calm world put of key %u ends %s, then get %s",
                     (unsigned long long)current_seed, key, status_name(put), status_name(get));
        }
        if (!world->whole) continue;
        const enum status draft = session_now(world, OP_DRAFT, key);
        const bool full = draft == STATUS_FULL || draft == STATUS_QUOTA;
        if (draft != STATUS_OK && draft != STATUS_EXISTS && !(full && world->kind == TINY)) {
            fail_msg("SEED=%llu: in a calm world a put session of key %u ends %s",
                     (unsigned long long)current_seed, key, status_name(draft));
        }
        const enum status hold = session_now(world, OP_HOLD, key);
        if (hold != STATUS_OK) {
            fail_msg("SEED=%llu: in a calm world a get session of key %u ends %s",
                     (unsigned long long)current_seed, key, status_name(hold));
        }
    }
}

/* ---- looking around ---- */

struct looking {
    bool ended;
    uint64_t next;
    uint64_t removed, kept;
    unsigned tenant;
    unsigned seen[KEYS];
};

static void on_page(void *ctx, enum status status, const struct yolk_store_page *page,
                    const char *message)
{
    struct looking *looking = ctx;
    char text[16];
    (void)message;

    CHECK(status == STATUS_OK);
    looking->ended = true;
    looking->next = page->next;
    looking->removed += page->removed;
    looking->kept += page->kept;
    for (uint32_t i = 0; i < page->count; i++) {
        const struct yolk_store_key *key = &page->entries[i].key;
        unsigned n = 0;
        CHECK(key->len < sizeof(text));
        memcpy(text, key->bytes, key->len);
        text[key->len] = 0;
        CHECK(sscanf(text, "value/%u", &n) == 1 && n < RED);
        n += looking->tenant * RED;
        CHECK(n < KEYS);
        CHECK(page->entries[i].status == STATUS_OK);
        CHECK(page->entries[i].size == value_size(n, 0) ||
              page->entries[i].size == value_size(n, 1));
        looking->seen[n]++;
    }
}

static bool look_over(void *ctx)
{
    return ((struct looking *)ctx)->ended;
}

static void look(struct world *world, struct looking *looking, bool removing)
{
    struct yolk_store *store = world->clients[0].stores[looking->tenant];
    struct yolk_store_query query = { .regex = "^value/", .limit = 5, .force = true };
    do {
        looking->ended = false;
        query.cursor = looking->next;
        CHECK((removing ? yolk_store_remove_matching(store, &query, 0, on_page, looking)
                        : yolk_store_list(store, &query, 0, on_page, looking)) == STATUS_OK);
        CHECK(env_sim_run_until(world->cluster.sim, look_over, looking, 30 * ENV_NS_PER_S));
    } while (looking->next != 0);
}

/* What exists is listed, once; what is removed by an expression is gone, everywhere; of the one
 * tenant that lists or removes. */
static void check_looking_of(struct world *world, unsigned tenant)
{
    const unsigned first = tenant * RED;
    const unsigned end = tenant == 0 ? RED : KEYS;
    struct looking looking = { .tenant = tenant };
    uint32_t present = 0;

    look(world, &looking, false);
    for (unsigned key = first; key < end; key++) {
        const enum status status = do_now(world, OP_EXIST, key);
        CHECK(looking.seen[key] == (status == STATUS_OK ? 1u : 0u));
        present += looking.seen[key];
    }
    looking = (struct looking){ .tenant = tenant };
    look(world, &looking, true);
    CHECK(looking.removed == present && looking.kept == 0);
    for (unsigned key = first; key < end; key++)
        CHECK(do_now(world, OP_EXIST, key) == STATUS_NOT_FOUND);
}

static void check_looking(struct world *world)
{
    for (unsigned tenant = 0; tenant < TENANTS; tenant++) {
        sim_run_ms(&world->cluster, 1000); /* drops, and copies into the room they leave */
        check_looking_of(world, tenant);
    }
    sim_run_ms(&world->cluster, 3000);
    for (unsigned i = 0; i < SIM_NODES; i++)
        CHECK(objects_count(world->cluster.nodes[i].node->objects) == 0);
}

/* ---- replicas ---- */

struct draining {
    bool ended;
    uint64_t left;
};

static void on_left(void *ctx, enum status status, uint64_t left)
{
    struct draining *draining = ctx;
    CHECK(status == STATUS_OK);
    draining->ended = true;
    draining->left = left;
}

static bool drain_over(void *ctx)
{
    return ((struct draining *)ctx)->ended;
}

static uint64_t drain_now(struct world *world, unsigned i, bool undo)
{
    struct draining draining = { .left = 1 };
    char name[STORE_NAME_SIZE];
    snprintf(name, sizeof(name), "node-%s", world->cluster.nodes[i].host);
    CHECK(yolk_store_drain(world->clients[0].stores[0], name, undo, 0, on_left, &draining) ==
          STATUS_OK);
    CHECK(env_sim_run_until(world->cluster.sim, drain_over, &draining, 30 * ENV_NS_PER_S));
    return draining.left;
}

/* A node's values go elsewhere while they are read, and none is lost; then it is taken back. */
static void check_drain(struct world *world)
{
    enum status before[KEYS];
    const unsigned which = (unsigned)rng_below(&world->rng, SIM_NODES);
    uint64_t left = 1;

    for (unsigned key = 0; key < KEYS; key++)
        before[key] = do_now(world, OP_GET, key);
    for (int i = 0; i < 100 && left > 0; i++) {
        left = drain_now(world, which, false);
        sim_run_ms(&world->cluster, 300);
    }
    CHECK(left == 0 && objects_count(world->cluster.nodes[which].node->objects) == 0);
    for (unsigned key = 0; key < KEYS; key++)
        CHECK(do_now(world, OP_GET, key) == before[key]);
    drain_now(world, which, true);
}

static void on_replicas(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    bool *over = ctx;
    (void)index;
    (void)size;
    CHECK(status == STATUS_OK);
    *over = true;
}

static bool is_true(void *ctx)
{
    return *(bool *)ctx;
}

static struct store_master_counts counts_of(const struct world *world)
{
    struct store_master_counts counts;
    store_master_counts(store_master_shell_directory(world->cluster.master), &counts);
    return counts;
}

/* ---- tasks ---- */

struct moving {
    bool heard;
    struct yolk_store_task task;
};

static void on_task(void *ctx, enum status status, const struct yolk_store_task *task,
                    const char *message)
{
    struct moving *moving = ctx;
    (void)message;
    CHECK(status == STATUS_OK);
    moving->heard = true;
    moving->task = *task;
}

static bool task_heard(void *ctx)
{
    return ((struct moving *)ctx)->heard;
}

/* A replica that the value lacks is made anywhere, be it where it was just moved away from. */
static bool wants_more(const struct world *world, unsigned key)
{
    const struct store_master *master = store_master_shell_directory(world->cluster.master);
    const struct block_key id = value_id(key);
    const struct entry *entry = master_entry_find(master, &id);
    return entry != NULL && entry->extra != NULL && entry->extra->attributes.replicas > 1;
}

/* One value goes from one node to another, which has it not; whoever asks meanwhile finds it. */
static void move_now(struct world *world, unsigned key, unsigned from, unsigned to)
{
    char text[16];
    char names[2][STORE_NAME_SIZE];
    const struct yolk_store_key name = value_key(key, text);
    struct yolk_store *store = store_of(world, key);
    struct moving moving = { .heard = false };
    struct rank rank;

    node_name(world, from, names[0]);
    node_name(world, to, names[1]);
    CHECK(yolk_store_move(store, &name, names[0], names[1], 0, on_task, &moving) == STATUS_OK);
    for (;;) {
        CHECK(env_sim_run_until(world->cluster.sim, task_heard, &moving, 30 * ENV_NS_PER_S));
        CHECK(moving.task.state != YOLK_STORE_TASK_FAILED);
        if (moving.task.state == YOLK_STORE_TASK_SUCCESS) break;
        CHECK(do_now(world, OP_GET, key) == STATUS_OK);
        moving.heard = false;
        CHECK(yolk_store_task(store, moving.task.id, 0, on_task, &moving) == STATUS_OK);
    }
    CHECK(node_has(world, to, key, &rank));
    CHECK(!node_has(world, from, key, &rank) || wants_more(world, key));
    CHECK(do_now(world, OP_GET, key) == STATUS_OK);
    moved_total++;
}

/* Tasks of the time of faults have ended, and new ones do what they should. */
static void check_tasks(struct world *world)
{
    struct rank rank;
    for (int i = 0; i < 30 && counts_of(world).tasks > 0; i++)
        sim_run_ms(&world->cluster, 1000);
    CHECK(counts_of(world).tasks == 0);
    if (world->kind == TINY || world->cluster.hot_replicas > 0) return;
    for (unsigned i = 0; i < 3; i++) {
        const unsigned key = (unsigned)rng_below(&world->rng, KEYS);
        const unsigned from = (unsigned)rng_below(&world->rng, SIM_NODES);
        const unsigned to = (from + 1) % SIM_NODES;
        if (do_now(world, OP_GET, key) != STATUS_OK) continue;
        if (node_has(world, from, key, &rank) && !node_has(world, to, key, &rank))
            move_now(world, key, from, to);
    }
}

/* What is hot has more replicas than were wished, and the same bytes; when it has cooled it has
 * not. */
static void check_heat(struct world *world)
{
    CHECK(do_now(world, OP_GET, 0) == STATUS_OK);
    sim_run_ms(&world->cluster, 30000); /* what had to make room is forgotten */
    heat(world, 500);
    sim_run_ms(&world->cluster, 5000);
    const uint64_t hot = counts_of(world).hot_replicas;
    CHECK(hot > 0 && hot <= world->cluster.hot_replicas);
    for (int i = 0; i < 4; i++)
        CHECK(do_now(world, OP_GET, 0) == STATUS_OK);
    sim_run_ms(&world->cluster, 120000);
    CHECK(counts_of(world).hot_values == 0);
    CHECK(do_now(world, OP_GET, 0) == STATUS_OK);
    hot_total += hot;
}

/* A drain, a number of replicas that was changed, and a quota outlive the master that was told. */
static void check_memory_of_nodes(struct world *world)
{
    const unsigned key = 0;
    char text[16];
    char name[STORE_NAME_SIZE];
    bool over = false;
    const struct yolk_store_key name_of = value_key(key, text);
    const struct yolk_store_call call = { .on_item = on_replicas, .ctx = &over, .replicas = 2 };
    const unsigned which = (unsigned)rng_below(&world->rng, SIM_NODES);
    uint32_t wished = 0;

    CHECK(do_now(world, OP_GET, key) == STATUS_OK);
    CHECK(yolk_store_replicas(store_of(world, key), &name_of, 1, &call) == STATUS_OK);
    CHECK(env_sim_run_until(world->cluster.sim, is_true, &over, 30 * ENV_NS_PER_S));
    snprintf(name, sizeof(name), "node-%s", world->cluster.nodes[which].host);
    drain_now(world, which, false);
    const struct store_quota quota = { .bytes = 1 << 30, .replicas = world->deaths + 1 };
    CHECK(store_master_quota_set(store_master_shell_directory(world->cluster.master), "blue",
                                 &quota) == STATUS_OK);
    sim_run_ms(&world->cluster, 1000);
    master_kill(world);
    sim_run_ms(&world->cluster, 1000);
    sim_master_start(&world->cluster);
    sim_run_ms(&world->cluster, 10000);
    CHECK(store_master_drains(store_master_shell_directory(world->cluster.master), name));
    struct store_tenant_counts tenant = { .name = "" };
    for (uint32_t cursor = 0; strcmp(tenant.name, "blue") != 0;)
        CHECK(store_master_tenant(store_master_shell_directory(world->cluster.master), &cursor,
                                  &tenant));
    CHECK(memcmp(&tenant.quota, &quota, sizeof(quota)) == 0);
    const struct block_key id = value_id(key);
    for (unsigned i = 0; i < SIM_NODES; i++) {
        const struct object *object = objects_find(world->cluster.nodes[i].node->objects, &id);
        if (object != NULL && object->attributes.replicas == 2) wished++;
    }
    CHECK(wished == 2 || (wished > 2 && world->cluster.hot_replicas > 0));
    CHECK(do_now(world, OP_GET, key) == STATUS_OK);
    drain_now(world, which, true);
}

/* Every master is told, as by its options. */
static void quota_keep(const struct world *world)
{
    const struct store_quota quota = { .bytes = RED_QUOTA };
    if (world->kind != TINY || world->cluster.master == NULL) return;
    CHECK(store_master_quota(store_master_shell_directory(world->cluster.master), tenants[1],
                             &quota) == STATUS_OK);
}

static void on_unmounted(void *ctx, enum status status)
{
    CHECK(status == STATUS_OK);
    *(bool *)ctx = true;
}

/* A node leaves in good order: what only it had is with others at once, or, if its disk keeps it,
 * there again with the node. */
static void check_unmount(struct world *world)
{
    const unsigned which = (unsigned)rng_below(&world->rng, SIM_NODES);
    struct sim_node *node = &world->cluster.nodes[which];
    enum status before[KEYS];
    bool over = false;

    for (unsigned key = 0; key < KEYS; key++)
        before[key] = do_now(world, OP_GET, key);
    sim_run_ms(&world->cluster, 1000); /* values are written behind */
    store_unmount(node->member, on_unmounted, &over);
    CHECK(env_sim_run_until(world->cluster.sim, is_true, &over, 30 * ENV_NS_PER_S));
    store_leave(node->member);
    node->member = NULL;
    sim_run_ms(&world->cluster, 100); /* the good-bye arrives */
    node_toggle(world, which);
    for (unsigned key = 0; key < KEYS; key++) {
        const enum status status = do_now(world, OP_GET, key);
        CHECK(status == before[key] || world->cluster.values_disk_size > 0);
    }
    node_toggle(world, which);
    sim_run_ms(&world->cluster, 5000);
    for (unsigned key = 0; key < KEYS; key++)
        CHECK(do_now(world, OP_GET, key) == before[key]);
}

/* The net, in some worlds one that flips bits, and in some disks that fail and lie. */
static struct env_sim_options faults_of(const struct world *world)
{
    const uint32_t losses[] = { 300, 0, 3000 };
    struct env_sim_options options = { .seed = current_seed,
                                       .conn_loss_ppm = 300,
                                       .conn_refuse_ppm = 20000,
                                       .slow_ppm = 2000,
                                       .buggify_ppm = 2000 };
    if (!world->whole) return options;
    options.conn_loss_ppm = losses[current_seed / 2 % 3];
    if (current_seed % 5 == 1) options.delay_max_ns = 20 * ENV_NS_PER_MS;
    if (current_seed % 3 > 0) options.flip_ppm = current_seed % 3 == 1 ? 500 : 5000;
    if (current_seed % 4 == 2) {
        options.disk_error_ppm = 5000;
        options.disk_corrupt_ppm = 5000;
    }
    return options;
}

static void cluster_configure(struct world *world)
{
    struct sim_cluster *cluster = &world->cluster;
    static struct ssd_keys keys;
    char text[65];

    if (world->kind == TINY) cluster->object_size = 40 * 4096; /* the largest, and little beside */
    if (current_seed % 2 == 0) { /* enough for 20 to 52 of the blocks */
        cluster->disk_size = rng_between(&world->rng, 20, 60) * (SIM_PAGE_SIZE + 4096);
    }
    if (current_seed % 3 == 0) {
        cluster->values_disk_size = VALUES_DISK_SIZE;
        if (world->kind == TINY) cluster->object_size = 48 * 4096; /* an eighth is not lent */
    }
    if (world->whole && current_seed % 7 < 3) {
        memset(text, '7', 64);
        text[64] = '\n';
        CHECK(ssd_keys_parse(text, sizeof(text), &keys, NULL) == STATUS_OK);
        cluster->disk_keys = &keys;
    }
    if (current_seed % 4 == 2) cluster->disk_packing = (struct ssd_packing){ 1, 2 };
    if (world->kind == TINY || cluster->disk_size + cluster->values_disk_size > 0) {
        sim_nodes_restart(cluster);
    }
    if (world->whole) cluster->eviction = (enum order_policy)(current_seed / 3 % 4);
    if (current_seed % 5 == 0) cluster->hot_replicas = 1 + current_seed / 5 % 2;
    if (current_seed % 5 == 0 || cluster->eviction != ORDER_LRU) {
        sim_master_kill(cluster);
        sim_master_start(cluster);
    }
}

static void world_run(enum kind kind, uint64_t world_seed, bool whole)
{
    static struct world world;

    current_seed = world_seed;
    memset(&world, 0, sizeof(world));
    rng_init(&world.rng, world_seed);
    rng_init(&world.sessions_rng, ~world_seed);
    rng_init(&world.unrest_rng, world_seed ^ 0x5555555555555555u);
    world.whole = whole;
    world.kind = kind;
    const struct env_sim_options options = faults_of(&world);
    world.flips = options.flip_ppm > 0;
    sim_cluster_start(&world.cluster, &options);
    cluster_configure(&world);
    for (unsigned i = 0; i < CLIENTS; i++)
        client_start(&world, i);
    for (int step = 0; step < STEPS; step++) {
        note_settled(&world);
        quota_keep(&world);
        client_step(&world);
        sessions_step(&world);
        if (world.cluster.hot_replicas > 0 && step / 30 % 3 == 1) heat(&world, 5);
        blocks_step(&world);
        break_something(&world);
        unrest_step(&world);
        remember_drops(&world);
        check_leases(&world);
        sim_run_ms(&world.cluster, rng_below(&world.rng, 2 * STEP_MS));
        check_books(&world);
    }
    heal(&world);
    sessions_hurry(&world);
    quota_keep(&world);
    CHECK(env_sim_run_until(world.cluster.sim, all_idle, &world, 60 * ENV_NS_PER_S));
    world.flips = false;
    for (int i = 0; i < 20; i++) { /* registrations, settling, quarantines */
        sim_run_ms(&world.cluster, 1000);
        remember_drops(&world);
    }
    for (unsigned i = 0; i < SIM_NODES && whole; i++)
        drain_now(&world, i, true);
    check_acknowledged(&world);
    check_liveness(&world);
    check_tasks(&world);
    if (kind == CALM_NODES && world.cluster.hot_replicas > 0) check_heat(&world);
    if (kind != TINY) check_drain(&world); /* there is room elsewhere */
    if (kind == CALM_NODES && world_seed % 4 == 0) check_memory_of_nodes(&world);
    if (kind != TINY && world_seed % 4 == 1) check_unmount(&world);
    check_looking(&world);
    check_books(&world);
    faults_total += env_sim_fault_count(world.cluster.sim);
    const struct store_master_counts counts = counts_of(&world);
    copied_total += counts.copies_total;
    over_quota_total += counts.refused_quota_total;
    evictions_seen += evictions_now(&world);
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct store_node_counts node;
        store_node_counts(world.cluster.nodes[i].node, &node);
        kept_total += node.values_evicted_total;
        promoted_total += node.values_promoted_total;
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        client_kill(&world, i);
    sim_cluster_end(&world.cluster);
}

static void run_seeds(enum kind kind)
{
    const uint64_t first = test_seed();
    for (unsigned i = 0; i < test_seeds(SEEDS_DEFAULT); i++)
        world_run(kind, first + i, true);
}

/* Worlds in which a new master once heard only of what had been replaced, or of one of two values
 * that were put under a key on both sides of a cut, and served it. */
static void what_was_replaced_does_not_come_back(void **state)
{
    const uint64_t calm[] = { 79, 213, 249, 549, 1067, 1181, 3225, 20246 };
    const uint64_t mortal[] = { 747, 1083, 3010, 710067 };
    (void)state;

    for (size_t i = 0; i < sizeof(calm) / sizeof(calm[0]); i++)
        world_run(CALM_NODES, calm[i], false);
    for (size_t i = 0; i < sizeof(mortal) / sizeof(mortal[0]); i++)
        world_run(MORTAL_NODES, mortal[i], false);
    world_run(TINY, 1477, false);
    lost_explained = 0;
}

/* A world in which a put that had been evicted was committed again, into a range that was another
 * writer's by then, just before the master died: the next one took it for a value. */
static void what_was_written_over_is_no_value(void **state)
{
    (void)state;
    world_run(TINY, 20261123053, true);
    lost_explained = 0;
}

static void masters_die_and_nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    run_seeds(CALM_NODES);
    assert_true(acked_total > 0 && reads_total > 0 && fetched_total > 0);
    assert_true(drafts_total > 0 && session_reads_total > 0);
    assert_true(known_total > 0 || test_seeds(SEEDS_DEFAULT) < 2);
    assert_true(guessed_total > 0 || test_seeds(SEEDS_DEFAULT) < 10);
    assert_true(posted_total > 0 || test_seeds(SEEDS_DEFAULT) < 10);
    assert_true(committed_total > 0 || test_seeds(SEEDS_DEFAULT) < 10);
    assert_true(seen_total > 0 || test_seeds(SEEDS_DEFAULT) < 2);
    assert_true(moved_total > 0 || test_seeds(SEEDS_DEFAULT) < 10);
    assert_true(hot_total > 0 || test_seeds(SEEDS_DEFAULT) < 10);
}

static void nodes_die_and_only_their_values_go(void **state)
{
    (void)state;
    run_seeds(MORTAL_NODES);
}

static void tiny_memory_evicts_and_goes_on(void **state)
{
    (void)state;
    run_seeds(TINY);
    assert_true(evictions_seen > 0 && over_quota_total > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_replaced_does_not_come_back),
        cmocka_unit_test(what_was_written_over_is_no_value),
        cmocka_unit_test(masters_die_and_nothing_acknowledged_is_lost),
        cmocka_unit_test(nodes_die_and_only_their_values_go),
        cmocka_unit_test(tiny_memory_evicts_and_goes_on),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("acknowledged=%llu read=%llu fetched_blocks=%llu lost_explained=%llu evictions=%llu "
           "replaced=%llu copied=%llu kept=%llu promoted=%llu together=%llu seen=%llu "
           "over_quota=%llu hot=%llu drafts=%llu session_reads=%llu known=%llu "
           "guessed=%llu posted=%llu moved=%llu committed_together=%llu\n",
           acked_total, reads_total, fetched_total, lost_explained, evictions_seen, replaced_total,
           copied_total, kept_total, promoted_total, together_total, seen_total, over_quota_total,
           hot_total, drafts_total, session_reads_total, known_total, guessed_total, posted_total,
           moved_total, committed_total);
    printf("unrest:");
    for (unsigned i = 0; i < UNREST_KINDS; i++)
        printf(" %s=%llu", unrest_names[i], unrest_total[i]);
    printf("\n");
    test_soaked(3ULL * test_seeds(SEEDS_DEFAULT), faults_total);
    return failed;
}
