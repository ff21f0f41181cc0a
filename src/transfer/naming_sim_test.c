/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/naming_sim_test.c
 *
 * Goal:    engines find each other by name whatever happens to the metadata server and to them: the
 *          start that came last has the name, nothing stale outlives its entry, an entry that leads
 *          to a stranger moves no byte, and a server that is away or talks nonsense costs time and
 *          nothing else.
 * Method:  a simulated world with a metadata server, or a server of bytes in its place, on one host
 *          and engines on others; at last a seeded walk in which engines come under two names, die,
 *          stop, are cut off, and the server is killed. `SEED=n` replays one. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/log.h"
#include "base/rng.h"
#include "net/http.h"
#include "seed.h"
#include "transfer/metadata_server.h"

#define SERVER "10.0.0.9:8080"
#define URL "http://" SERVER "/metadata"

enum { ENGINES = 4, SIZE = 64 << 10, TTL_MS = 6000, FENCE_MS = 2000 };

struct engine {
    struct env *env;
    struct yolk_transfer *transfer;
    uint8_t *memory;
};

struct world {
    struct env_sim *sim;
    struct env *server_env;
    struct metadata_server *server;
    struct engine engines[ENGINES];
};

static void run_ms(struct world *world, uint64_t ms)
{
    env_sim_run_for(world->sim, ms * ENV_NS_PER_MS);
}

static void server_start(struct world *world, const char *state_file)
{
    const struct metadata_server_options options = { .listen = SERVER, .state_file = state_file };

    world->server_env = env_sim_add(world->sim, "10.0.0.9");
    assert_int_equal(metadata_server_create(world->server_env, &options, &world->server, NULL),
                     STATUS_OK);
}

static void server_kill(struct world *world)
{
    env_sim_kill(world->server_env);
    metadata_server_destroy(world->server);
    world->server = NULL;
}

/* Engine `at` on host 10.0.0.<at + 1>, under that name. */
static struct engine *engine_start_at(struct world *world, unsigned at, unsigned port,
                                      const char *name, const char *url)
{
    struct engine *engine = &world->engines[at];
    char host[32], listen[48];
    void *memory;

    snprintf(host, sizeof(host), "10.0.0.%u", at + 1);
    snprintf(listen, sizeof(listen), "%s:%u", host, port);
    const struct yolk_transfer_options options = { .listen = listen,
                                                   .secret = "s",
                                                   .forbid_shm = true,
                                                   .fence_ms = FENCE_MS,
                                                   .metadata = url,
                                                   .segment = name,
                                                   .metadata_ttl_ms = TTL_MS };
    engine->env = env_sim_add(world->sim, host);
    assert_int_equal(yolk_transfer_create(engine->env, &options, &engine->transfer, NULL),
                     STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(engine->transfer, SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    engine->memory = memory;
    return engine;
}

static struct engine *engine_start(struct world *world, unsigned at, unsigned port,
                                   const char *name)
{
    return engine_start_at(world, at, port, name, URL);
}

static void engine_kill(struct engine *engine)
{
    env_sim_kill(engine->env);
    yolk_transfer_destroy(engine->transfer);
    engine->transfer = NULL;
}

static struct world *world_create(uint64_t seed)
{
    struct world *world = calloc(1, sizeof(*world));

    world->sim = env_sim_create(&(struct env_sim_options){ .seed = seed });
    return world;
}

static void world_destroy(struct world *world)
{
    for (unsigned i = 0; i < ENGINES; i++)
        yolk_transfer_destroy(world->engines[i].transfer);
    metadata_server_destroy(world->server);
    env_sim_destroy(world->sim);
    free(world);
}

/* ---- moving bytes ---- */

struct write {
    struct engine *from;
    struct yolk_transfer_segment segment;
    struct yolk_transfer_batch batch;
};

static bool write_over(void *ctx)
{
    const struct write *write = ctx;
    struct yolk_transfer_result result;

    assert_int_equal(yolk_transfer_poll(write->from->transfer, write->batch, 0, &result),
                     STATUS_OK);
    return result.state >= YOLK_TRANSFER_INVALID;
}

static struct write write_begin(struct engine *from, struct yolk_transfer_segment segment,
                                const struct engine *to)
{
    struct write write = { .from = from, .segment = segment };
    const struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE,
                                                   .local = from->memory,
                                                   .segment = segment,
                                                   .remote = (uintptr_t)to->memory,
                                                   .length = SIZE };

    assert_int_equal(yolk_transfer_batch_create(from->transfer, 1, NULL, NULL, &write.batch),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_submit(from->transfer, write.batch, &request, 1), STATUS_OK);
    return write;
}

static struct yolk_transfer_result write_end(struct world *world, struct write *write)
{
    struct yolk_transfer_result result;

    assert_true(env_sim_run_until(world->sim, write_over, write, 60 * ENV_NS_PER_S));
    assert_int_equal(yolk_transfer_poll(write->from->transfer, write->batch, 0, &result),
                     STATUS_OK);
    run_ms(world, 1); /* called back */
    assert_int_equal(yolk_transfer_batch_free(write->from->transfer, write->batch), STATUS_OK);
    return result;
}

static struct yolk_transfer_segment open_name(struct engine *engine, const char *name)
{
    struct yolk_transfer_segment segment;
    assert_int_equal(yolk_transfer_open(engine->transfer, name, &segment), STATUS_OK);
    return segment;
}

static struct yolk_transfer_result write_to(struct world *world, struct engine *from,
                                            struct yolk_transfer_segment segment,
                                            const struct engine *to)
{
    struct write write = write_begin(from, segment, to);
    return write_end(world, &write);
}

/* Writes a fresh pattern under the name and sees it arrive. */
static void expect_reached(struct world *world, struct engine *from, const char *name,
                           const struct engine *to)
{
    static uint8_t pattern;
    const struct yolk_transfer_segment segment = open_name(from, name);

    memset(from->memory, ++pattern, SIZE);
    const struct yolk_transfer_result result = write_to(world, from, segment, to);
    assert_int_equal(result.state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(to->memory, from->memory, SIZE);
    assert_int_equal(yolk_transfer_close(from->transfer, segment), STATUS_OK);
}

/* ---- the good case ---- */

static void test_engines_find_each_other_by_name(void **state)
{
    static char text[64 << 10];
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_AGAIN);
    run_ms(world, 100);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    assert_int_equal(yolk_transfer_published(b->transfer), STATUS_OK);
    assert_int_equal(metadata_server_entries(world->server), 4);
    expect_reached(world, b, "a", a);
    expect_reached(world, a, "b", b);
    expect_reached(world, a, "10.0.0.2:7000", b); /* an address needs no server */
    const size_t len = yolk_transfer_metrics_text(b->transfer, text, sizeof(text));
    assert_true(len < sizeof(text));
    assert_non_null(strstr(text, "\nyolk_transfer_published 1\n"));
    assert_non_null(strstr(text, "\nyolk_transfer_name_lookups_total 1\n"));
    assert_non_null(strstr(text, "\nyolk_transfer_name_lookup_failures_total 0\n"));
    world_destroy(world);
}

static void test_our_own_name_is_the_local_segment(void **state)
{
    struct world *world = world_create(7);
    struct yolk_transfer_explain explain;

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a");
    struct engine half = *a;
    half.memory += SIZE / 2;
    const struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE,
                                                   .local = a->memory,
                                                   .segment = open_name(a, "a"),
                                                   .remote = (uintptr_t)half.memory,
                                                   .length = SIZE / 2 };
    struct write write = { .from = a };
    assert_int_equal(yolk_transfer_batch_create(a->transfer, 1, NULL, NULL, &write.batch),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_submit(a->transfer, write.batch, &request, 1), STATUS_OK);
    run_ms(world, 10);
    assert_int_equal(yolk_transfer_explain(a->transfer, write.batch, 0, &explain), STATUS_OK);
    assert_int_equal(explain.path, YOLK_TRANSFER_PATH_LOCAL);
    assert_int_equal(explain.state, YOLK_TRANSFER_COMPLETED);
    world_destroy(world);
}

static void test_options_that_make_no_sense_are_refused(void **state)
{
    struct world *world = world_create(7);
    struct env *env = env_sim_add(world->sim, "10.0.0.1");
    static const struct yolk_transfer_options cases[] = {
        { .metadata = "gopher://h" },
        { .metadata = URL, .segment = "a b" },
        { .metadata = URL, .metadata_cluster = "a\"b" },
        { .metadata = URL, .metadata_ttl_ms = 999 },
    };
    const struct yolk_transfer_options none = { .metadata = "P2PHANDSHAKE", .segment = "a" };
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = { "" };
        assert_int_equal(yolk_transfer_create(env, &cases[i], &transfer, &err), STATUS_INVALID);
        assert_true(err.text[0] != '\0');
    }
    assert_int_equal(yolk_transfer_create(env, &none, &transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_open(transfer, "b", &segment), STATUS_INVALID);
    assert_int_equal(yolk_transfer_published(transfer), STATUS_UNSUPPORTED);
    assert_int_equal(yolk_transfer_withdraw(transfer, 0), STATUS_OK);
    yolk_transfer_destroy(transfer);
    world_destroy(world);
}

/* ---- names that move ---- */

static void test_a_restarted_peer_is_found_where_it_is_now(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    const struct yolk_transfer_segment old = open_name(b, "a");
    assert_int_equal(write_to(world, b, old, a).state, YOLK_TRANSFER_COMPLETED);
    engine_kill(a);
    a = engine_start(world, 0, 7111, "a");
    run_ms(world, 100); /* it need not wait for the old entry to expire */
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    const struct yolk_transfer_result stale = write_to(world, b, old, a);
    assert_int_equal(stale.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(stale.reason, STATUS_STALE);
    expect_reached(world, b, "a", a);
    world_destroy(world);
}

static void test_the_entry_of_a_dead_owner_expires(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 10 * TTL_MS);
    assert_int_equal(metadata_server_entries(world->server), 4); /* the living are renewed */
    engine_kill(a);
    run_ms(world, TTL_MS + 1100);
    assert_int_equal(metadata_server_entries(world->server), 2);
    a->memory = b->memory;
    const struct yolk_transfer_result result = write_to(world, b, open_name(b, "a"), b);
    assert_int_equal(result.state, YOLK_TRANSFER_INVALID);
    assert_int_equal(result.reason, STATUS_NOT_FOUND);
    world_destroy(world);
}

static void test_the_later_start_has_the_name_and_the_earlier_gets_it_back(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *first = engine_start(world, 0, 7000, "a");
    struct engine *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    struct engine *second = engine_start(world, 2, 7000, "a");
    run_ms(world, TTL_MS);
    assert_int_equal(yolk_transfer_published(first->transfer), STATUS_EXISTS);
    assert_int_equal(yolk_transfer_published(second->transfer), STATUS_OK);
    expect_reached(world, b, "a", second);
    assert_int_equal(yolk_transfer_withdraw(first->transfer, 0), STATUS_TIMEOUT);
    run_ms(world, 100); /* it takes nothing away from the second */
    assert_int_equal(yolk_transfer_published(first->transfer), STATUS_CANCELLED);
    expect_reached(world, b, "a", second);
    struct engine *third = engine_start(world, 3, 7000, "a");
    run_ms(world, TTL_MS);
    assert_int_equal(yolk_transfer_published(second->transfer), STATUS_EXISTS);
    engine_kill(third);
    run_ms(world, 2 * TTL_MS);
    assert_int_equal(yolk_transfer_published(second->transfer), STATUS_OK);
    expect_reached(world, b, "a", second);
    world_destroy(world);
}

static void test_withdrawing_removes_the_entry_at_once(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a");
    run_ms(world, 100);
    assert_int_equal(metadata_server_entries(world->server), 2);
    assert_int_equal(yolk_transfer_withdraw(a->transfer, 0), STATUS_TIMEOUT);
    run_ms(world, 100);
    assert_int_equal(yolk_transfer_withdraw(a->transfer, 0), STATUS_OK);
    assert_int_equal(metadata_server_entries(world->server), 0);
    run_ms(world, 3 * TTL_MS);
    assert_int_equal(metadata_server_entries(world->server), 0);
    world_destroy(world);
}

/* The port of a dead engine has been taken by another before the entry expired. */
static void test_a_stranger_behind_a_stale_entry_gets_no_byte(void **state)
{
    struct world *world = world_create(7);
    static const uint8_t zeros[SIZE];

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    engine_kill(a);
    struct engine *stranger = engine_start(world, 0, 7000, "c");
    run_ms(world, 100);
    memset(b->memory, 0x5a, SIZE);
    const struct yolk_transfer_result result = write_to(world, b, open_name(b, "a"), stranger);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    assert_int_equal(result.reason, STATUS_STALE);
    assert_memory_equal(stranger->memory, zeros, SIZE);
    expect_reached(world, b, "c", stranger);
    world_destroy(world);
}

/* A WRITE was on its way to the first owner of a name, who is cut off and not dead. That another
 * has the name now says nothing about what the first may still land. */
static void test_a_write_is_not_final_because_the_name_has_moved(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *first = engine_start(world, 0, 7000, "a");
    struct engine *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    const struct yolk_transfer_segment segment = open_name(b, "a");
    assert_int_equal(write_to(world, b, segment, first).state, YOLK_TRANSFER_COMPLETED);
    env_sim_pause(first->env);
    struct write write = write_begin(b, segment, first);
    run_ms(world, 10); /* it is in the socket by now */
    assert_int_equal(yolk_transfer_cancel(b->transfer, write.batch, 0), STATUS_OK);
    struct engine *second = engine_start(world, 2, 7000, "a");
    run_ms(world, 1200); /* the connection has been cut, and the second been met */
    expect_reached(world, b, "a", second);
    assert_false(write_over(&write));
    const struct yolk_transfer_result result = write_end(world, &write);
    assert_int_equal(result.state, YOLK_TRANSFER_CANCELED);
    memset(first->memory, 0x77, SIZE);
    env_sim_resume(first->env);
    run_ms(world, 10 * FENCE_MS);
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(first->memory[i], 0x77);
    world_destroy(world);
}

/* ---- a server that is away ---- */

static void test_a_server_that_comes_later_is_found(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    env_sim_add(world->sim, "10.0.0.9"); /* the host is there */
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 20000);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_AGAIN);
    const struct yolk_transfer_result result = write_to(world, b, open_name(b, "a"), a);
    assert_int_equal(result.state, YOLK_TRANSFER_FAILED);
    server_start(world, NULL);
    run_ms(world, 6000);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    expect_reached(world, b, "a", a);
    world_destroy(world);
}

static void test_a_server_that_goes_away_hurts_nobody_who_has_met(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, NULL);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    expect_reached(world, b, "a", a);
    server_kill(world);
    run_ms(world, 3 * TTL_MS);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_AGAIN);
    expect_reached(world, b, "a", a); /* over the connection there is */
    env_sim_partition(world->sim, "10.0.0.1", "10.0.0.2");
    run_ms(world, 10 * FENCE_MS); /* until both have given it up */
    env_sim_heal(world->sim, "10.0.0.1", "10.0.0.2");
    expect_reached(world, b, "a", a); /* over a new one, to where it was */
    server_start(world, NULL);        /* it has forgotten everything */
    run_ms(world, 6000);
    assert_int_equal(metadata_server_entries(world->server), 4);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    world_destroy(world);
}

static void test_a_server_that_was_killed_keeps_its_state(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, "/state");
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 100);
    server_kill(world);
    env_sim_power_off(world->sim, "10.0.0.9");
    server_start(world, "/state");
    assert_int_equal(metadata_server_entries(world->server), 4); /* nobody has renewed anything */
    expect_reached(world, b, "a", a);
    engine_kill(a);
    run_ms(world, 2 * TTL_MS);
    assert_int_equal(metadata_server_entries(world->server), 2); /* the dead are forgotten too */
    server_kill(world);
    server_start(world, "/state");
    assert_int_equal(metadata_server_entries(world->server), 2);
    world_destroy(world);
}

/* What cannot be kept is said, held all the same, and kept as soon as that can be done. */
static void test_a_disk_that_fails_costs_nothing_but_a_restart(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    env_sim_destroy(world->sim);
    world->sim = env_sim_create(&(struct env_sim_options){ .seed = 7, .disk_error_ppm = 700000 });
    world->server_env = env_sim_add(world->sim, "10.0.0.9");
    const struct metadata_server_options options = { .listen = SERVER, .state_file = "/state" };
    assert_int_equal(metadata_server_create(world->server_env, &options, &world->server, NULL),
                     STATUS_OK);
    struct engine *a = engine_start(world, 0, 7000, "a"), *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 3000);
    expect_reached(world, b, "a", a);
    env_sim_calm(world->sim);
    run_ms(world, 6000);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    server_kill(world);
    server_start(world, "/state");
    assert_int_equal(metadata_server_entries(world->server), 4);
    world_destroy(world);
}

static void test_a_damaged_state_file_is_put_aside(void **state)
{
    struct world *world = world_create(7);

    (void)state;
    server_start(world, "/state");
    struct engine *a = engine_start(world, 0, 7000, "a");
    run_ms(world, 100);
    server_kill(world);
    assert_true(env_sim_disk_damage(world->sim, "10.0.0.9"));
    server_start(world, "/state");
    assert_int_equal(metadata_server_entries(world->server), 0);
    run_ms(world, TTL_MS);
    assert_int_equal(metadata_server_entries(world->server), 2);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    char *aside;
    size_t len;
    assert_int_equal(
        env_file_read_all(world->server_env, "/state.corrupt", 1 << 20, &aside, &len, NULL),
        STATUS_OK);
    free(aside);
    world_destroy(world);
}

/* ---- a server of the protocol without owners ---- */

/* As others have it: keys and values, no owner, no life; the first rpc_meta of a name stays. */
struct plain {
    struct http_server *http;
    char keys[8][64];
    char values[8][1024];
    bool refuses_second;
};

static int plain_find(const struct plain *plain, const char *key)
{
    int at = 0;
    while (at < 8 && strcmp(plain->keys[at], key) != 0)
        at++;
    return at;
}

static void on_plain_request(void *ctx, struct http_request *req)
{
    struct plain *plain = ctx;
    const char *method = http_method(req);
    char key[64];
    size_t len;

    assert_string_equal(http_path(req), "/metadata");
    assert_true(metadata_server_query(http_query(req), "key", key, sizeof(key)));
    const char *body = http_body(req, &len);
    int at = plain_find(plain, key);
    if (strcmp(method, "PUT") == 0) {
        if (at < 8 && plain->refuses_second && strstr(key, "rpc_meta") != NULL) {
            http_respond(req, 400, NULL, "Duplicate rpc_meta key not allowed", 34);
            return;
        }
        if (at == 8) at = plain_find(plain, "");
        assert_true(at < 8 && len < sizeof(plain->values[at]));
        memcpy(plain->keys[at], key, sizeof(key));
        memcpy(plain->values[at], body, len + 1);
        http_respond(req, 200, NULL, "metadata updated", 16);
    } else if (at == 8) {
        http_respond(req, 404, NULL, "metadata not found", 18);
    } else if (strcmp(method, "DELETE") == 0) {
        plain->keys[at][0] = '\0';
        http_respond(req, 200, NULL, "metadata deleted", 16);
    } else {
        http_respond(req, 200, "application/json", plain->values[at], strlen(plain->values[at]));
    }
}

static void test_servers_that_know_no_owners_will_do(void **state)
{
    (void)state;
    for (int refuses = 0; refuses < 2; refuses++) {
        struct world *world = world_create(7);
        struct plain plain = { .refuses_second = refuses != 0 };
        const struct http_server_options options = { .address = SERVER,
                                                     .on_request = on_plain_request,
                                                     .ctx = &plain };
        assert_int_equal(
            http_server_create(env_sim_add(world->sim, "10.0.0.9"), &options, &plain.http, NULL),
            STATUS_OK);
        struct engine *a = engine_start(world, 0, 7000, "a");
        struct engine *b = engine_start(world, 1, 7000, "b");
        run_ms(world, TTL_MS);
        assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
        expect_reached(world, b, "a", a);
        engine_kill(a);
        a = engine_start(world, 0, 7111, "a");
        run_ms(world, 100);
        expect_reached(world, b, "a", a);
        const int at = plain_find(&plain, "mooncake/rpc_meta/a");
        assert_non_null(strstr(plain.values[at], "7111")); /* not that of the first start */
        struct engine *later = engine_start(world, 2, 7000, "a");
        run_ms(world, TTL_MS);
        assert_int_equal(yolk_transfer_published(a->transfer), STATUS_EXISTS);
        assert_int_equal(yolk_transfer_withdraw(a->transfer, 0), STATUS_TIMEOUT);
        run_ms(world, TTL_MS);
        assert_int_equal(yolk_transfer_published(later->transfer), STATUS_OK);
        struct engine *c = engine_start(world, 3, 7000, "c");
        expect_reached(world, b, "a", a); /* over the connection it has */
        expect_reached(world, c, "a", later);
        assert_int_equal(yolk_transfer_withdraw(later->transfer, 0), STATUS_TIMEOUT);
        run_ms(world, 100);
        assert_int_equal(plain_find(&plain, "mooncake/ram/a"), 8);
        assert_int_equal(plain_find(&plain, "mooncake/rpc_meta/a"), 8);
        http_server_destroy(plain.http);
        world_destroy(world);
    }
}

/* ---- a server that talks nonsense ---- */

/* One thing it says; "": nothing. */
struct lie {
    const char *answer;
    size_t repeat;
};

#define HTTP_200(body) "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" body

static const struct lie lies[] = {
    { "", 0 },
    { "garbage\r\n", 1 },
    { "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 4096 },
    { "+OK\r\n+OK\r\n$-7\r\n", 1 },
    { "+OK\r\n+OK\r\n$65536\r\nshort", 1 },
    { "+OK\r\n+OK\r\n*3\r\n", 1 },
    { "+OK\r\n+OK\r\n+OK\r\n+OK\r\n", 1 },
    { "+OK\r\n+OK\r\n:0\r\n", 1 },
    { "+OK\r\n+OK\r\n:1\r\n", 1 },
    { "+OK\r\n+OK\r\n$-1\r\n", 1 },
    { "+OK\r\n+OK\r\n$2\r\n{}\r\n", 1 },
    { "-WRONGPASS no\r\n", 1 },
    { "-LOADING wait\r\n", 1 },
    { "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{", 1 },
    { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1 },
    { "HTTP/1.1 302 No\r\nContent-Length: 0\r\n\r\n", 1 },
    { "HTTP/1.1 400 No\r\nContent-Length: 10\r\n\r\n{\"code\":9}", 1 },
    { "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 1 },
    { "HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\n{\"code\":5}", 1 },
    { "HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n", 1 },
    { "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", 1 },
    { "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 1 },
    { HTTP_200("[]"), 1 },
    { HTTP_200("{}"), 1 },
    { HTTP_200("{\"succeeded\":true}"), 1 },
    { HTTP_200("{\"result\":{\"TTL\":\"5\"},\"responses\":[{\"response_txn\":{}}]}"), 1 },
    { HTTP_200("{\"kvs\":[{}],\"result\":7,\"responses\":[[]]}"), 1 },
    { HTTP_200("{\"kvs\":[{\"value\":\"!!!!\"}],\"succeeded\":1}"), 1 },
    { HTTP_200("{\"kvs\":[{\"value\":\"YQ==\"}],\"succeeded\":\"yes\"}"), 1 },
    { HTTP_200("{\"kvs\":{\"a\":{\"b\":[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]}}"), 1 },
};

enum { LIES = sizeof(lies) / sizeof(lies[0]), HEARD_MAX = 512 };

struct liar {
    struct env_listener *listener;
    struct env *env;
    const struct lie *lie; /* NULL: any, each time another */
    struct env_stream *streams[HEARD_MAX];
    unsigned count;
};

/* Having said what it has to say it closes, when it has heard something. */
static void on_liar_ready(void *ctx, unsigned events)
{
    struct env_stream **stream = ctx;
    char sink[4096];
    size_t n;

    (void)events;
    if (env_stream_read(*stream, sink, sizeof(sink), &n) == STATUS_AGAIN) return;
    env_stream_close(*stream);
    *stream = NULL;
}

static void on_silent_ready(void *ctx, unsigned events)
{
    struct env_stream **stream = ctx;
    char sink[4096];
    size_t n;

    (void)events;
    const enum status status = env_stream_read(*stream, sink, sizeof(sink), &n);
    if (status == STATUS_AGAIN || status == STATUS_OK) return;
    env_stream_close(*stream);
    *stream = NULL;
}

static void on_liar_accept(void *ctx, struct env_stream *stream)
{
    struct liar *liar = ctx;
    const struct lie *lie = liar->lie;
    uint32_t dice;

    env_random(liar->env, &dice, sizeof(dice));
    if (lie == NULL) lie = &lies[dice % LIES];
    assert_true(liar->count < HEARD_MAX);
    struct env_stream **at = &liar->streams[liar->count++];
    *at = stream;
    env_stream_watch(stream, ENV_READ, lie->repeat > 0 ? on_liar_ready : on_silent_ready, at);
    for (size_t i = 0; i < lie->repeat; i++) {
        const struct iovec part = { (char *)(uintptr_t)lie->answer, strlen(lie->answer) };
        size_t n;
        if (env_stream_writev(stream, &part, 1, &n) != STATUS_OK) break;
    }
}

/* Whatever it says, every task ends in bounded time, and nobody crashes. */
static void expect_unharmed(const struct lie *lie, const char *url, uint64_t seed)
{
    struct world *world = world_create(seed);
    struct liar liar = { .lie = lie, .env = env_sim_add(world->sim, "10.0.0.9") };

    assert_int_equal(env_listen(liar.env, SERVER, on_liar_accept, &liar, &liar.listener, NULL),
                     STATUS_OK);
    struct engine *a = engine_start_at(world, 0, 7000, "a", url);
    run_ms(world, 100);
    const struct yolk_transfer_result result = write_to(world, a, open_name(a, "b"), a);
    assert_int_not_equal(result.state, YOLK_TRANSFER_COMPLETED);
    run_ms(world, 10 * TTL_MS);
    assert_true(liar.count > 1); /* it is asked again, and not all the time */
    (void)yolk_transfer_published(a->transfer);
    assert_int_equal(yolk_transfer_withdraw(a->transfer, 0), STATUS_TIMEOUT);
    run_ms(world, 5000);
    assert_int_equal(yolk_transfer_withdraw(a->transfer, 0), STATUS_OK);
    env_listener_close(liar.listener);
    for (unsigned j = 0; j < liar.count; j++)
        env_stream_close(liar.streams[j]);
    world_destroy(world);
}

static void test_a_server_that_lies_costs_time_and_nothing_else(void **state)
{
    static const char *const urls[] = { URL, "etcd://" SERVER, "redis://:pw@" SERVER "/1" };

    (void)state;
    for (size_t url = 0; url < sizeof(urls) / sizeof(urls[0]); url++) {
        for (size_t i = 0; i < LIES; i++)
            expect_unharmed(&lies[i], urls[url], 7);
        for (uint64_t seed = 1; seed <= 30; seed++)
            expect_unharmed(NULL, urls[url], seed);
    }
}

/* ---- the server's limits ---- */

static void test_a_full_server_says_so(void **state)
{
    struct world *world = world_create(7);
    const struct metadata_server_options options = { .listen = SERVER, .entries_max = 3 };

    (void)state;
    world->server_env = env_sim_add(world->sim, "10.0.0.9");
    assert_int_equal(metadata_server_create(world->server_env, &options, &world->server, NULL),
                     STATUS_OK);
    struct engine *a = engine_start(world, 0, 7000, "a");
    run_ms(world, 100);
    struct engine *b = engine_start(world, 1, 7000, "b");
    run_ms(world, 1000);
    assert_int_equal(yolk_transfer_published(a->transfer), STATUS_OK);
    assert_int_equal(yolk_transfer_published(b->transfer), STATUS_AGAIN);
    engine_kill(a);
    run_ms(world, 3 * TTL_MS);
    assert_int_equal(yolk_transfer_published(b->transfer), STATUS_OK);
    world_destroy(world);
}

/* ---- a walk ---- */

#ifdef YOLK_EXPENSIVE_ASSERTS
enum { WALKERS = ENGINES - 1, WALK_STEPS = 150, WALK_SEEDS = 10 };
#else
enum { WALKERS = ENGINES - 1, WALK_STEPS = 150, WALK_SEEDS = 60 };
#endif

static const char *const walk_names[] = { "x", "y" };

struct walk {
    struct world *world;
    struct rng rng;
    unsigned names[WALKERS]; /* index of each one's */
};

static void walk_engine(struct walk *walk)
{
    const unsigned at = (unsigned)rng_below(&walk->rng, WALKERS);
    struct engine *engine = &walk->world->engines[at];
    char host[32];

    snprintf(host, sizeof(host), "10.0.0.%u", at + 1);
    if (engine->transfer == NULL) {
        walk->names[at] = (unsigned)rng_below(&walk->rng, 2);
        engine_start(walk->world, at, 7000 + (unsigned)rng_below(&walk->rng, 3),
                     walk_names[walk->names[at]]);
        return;
    }
    switch (rng_below(&walk->rng, 6)) {
    case 0: engine_kill(engine); break;
    case 1: env_sim_pause(engine->env); break;
    case 2: env_sim_partition(walk->world->sim, host, "10.0.0.9"); break;
    case 3: env_sim_heal(walk->world->sim, host, "10.0.0.9"); break;
    default: env_sim_resume(engine->env); break;
    }
}

static void walk_server(struct walk *walk)
{
    if (walk->world->server == NULL) {
        server_start(walk->world, rng_below(&walk->rng, 4) == 0 ? NULL : "/state");
    } else if (rng_below(&walk->rng, 3) == 0) {
        server_kill(walk->world);
    }
}

/* One of those that are alive has the name, the others know, and the name leads to that one; a name
 * that nobody alive has leads nowhere. */
static void walk_check(struct walk *walk, unsigned name, struct engine *visitor)
{
    struct engine *holder = NULL;

    for (unsigned i = 0; i < WALKERS; i++) {
        struct engine *engine = &walk->world->engines[i];
        if (engine->transfer == NULL || walk->names[i] != name) continue;
        const enum status status = yolk_transfer_published(engine->transfer);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_EXISTS);
            continue;
        }
        assert_null(holder);
        holder = engine;
    }
    if (holder != NULL) {
        expect_reached(walk->world, visitor, walk_names[name], holder);
        return;
    }
    for (unsigned i = 0; i < WALKERS; i++) /* not one that all know of and nobody has */
        assert_true(walk->world->engines[i].transfer == NULL || walk->names[i] != name);
    const struct yolk_transfer_segment segment = open_name(visitor, walk_names[name]);
    assert_int_equal(write_to(walk->world, visitor, segment, visitor).reason, STATUS_NOT_FOUND);
}

/* Returns how many faults it met. */
static uint64_t walk_run(uint64_t seed)
{
    struct world *world = world_create(seed);
    struct walk walk = { .world = world };

    env_sim_destroy(world->sim);
    world->sim = env_sim_create(&(struct env_sim_options){ .seed = seed,
                                                           .conn_loss_ppm = 3000,
                                                           .conn_refuse_ppm = 50000,
                                                           .slow_ppm = 20000,
                                                           .buggify_ppm = 20000 });
    rng_init(&walk.rng, seed);
    server_start(world, "/state");
    for (unsigned step = 0; step < WALK_STEPS; step++) {
        walk_engine(&walk);
        if (rng_below(&walk.rng, 5) == 0) walk_server(&walk);
        run_ms(world, rng_below(&walk.rng, 1500));
    }
    env_sim_calm(world->sim);
    if (world->server == NULL) server_start(world, "/state");
    run_ms(world, 5 * TTL_MS);
    struct engine *visitor = engine_start(world, WALKERS, 7000, "visitor");
    for (unsigned name = 0; name < 2; name++)
        walk_check(&walk, name, visitor);
    const uint64_t faults = env_sim_fault_count(world->sim);
    world_destroy(world);
    return faults;
}

static void test_after_any_walk_each_name_leads_to_one_that_lives(void **state)
{
    const uint64_t first = test_seed();
    const char *more = getenv("YOLK_SIM_SEEDS");
    const uint64_t seeds = more != NULL             ? strtoull(more, NULL, 0)
                           : getenv("SEED") != NULL ? 1
                                                    : WALK_SEEDS;

    uint64_t faults = 0;

    (void)state;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        printf("seed %llu\n", (unsigned long long)seed);
        faults += walk_run(seed);
    }
    test_soaked(seeds, faults);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_find_each_other_by_name),
        cmocka_unit_test(test_our_own_name_is_the_local_segment),
        cmocka_unit_test(test_options_that_make_no_sense_are_refused),
        cmocka_unit_test(test_a_restarted_peer_is_found_where_it_is_now),
        cmocka_unit_test(test_the_entry_of_a_dead_owner_expires),
        cmocka_unit_test(test_the_later_start_has_the_name_and_the_earlier_gets_it_back),
        cmocka_unit_test(test_withdrawing_removes_the_entry_at_once),
        cmocka_unit_test(test_a_stranger_behind_a_stale_entry_gets_no_byte),
        cmocka_unit_test(test_a_write_is_not_final_because_the_name_has_moved),
        cmocka_unit_test(test_a_server_that_comes_later_is_found),
        cmocka_unit_test(test_a_server_that_goes_away_hurts_nobody_who_has_met),
        cmocka_unit_test(test_a_server_that_was_killed_keeps_its_state),
        cmocka_unit_test(test_a_disk_that_fails_costs_nothing_but_a_restart),
        cmocka_unit_test(test_a_damaged_state_file_is_put_aside),
        cmocka_unit_test(test_servers_that_know_no_owners_will_do),
        cmocka_unit_test(test_a_server_that_lies_costs_time_and_nothing_else),
        cmocka_unit_test(test_a_full_server_says_so),
        cmocka_unit_test(test_after_any_walk_each_name_leads_to_one_that_lives),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
