/* SPDX-License-Identifier: Apache-2.0
 *
 * store/lend_test.c
 *
 * Goal:   a process that is a client lends memory to the pool and takes it back: values are placed
 *         there and read from elsewhere, a new master knows them, what is withdrawn is somewhere
 *         else before it goes, and nobody hangs who reads when it goes without.
 * Method: a simulated cluster of nodes that lend too, an engine that lends and puts, and a reader
 *         on another host. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"
#include "seed.h"
#include "yolk/store.h"
#include "yolk/store_lend.h"

enum { VALUE_SIZE = 70000, VALUES = 4, LENT_SIZE = 1 << 20, PATIENCE_MS = 20000 };

#define LISTEN "10.0.2.1:7300"

struct user {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory; /* VALUES times VALUE_SIZE */
    uint32_t left;
    enum status statuses[VALUES];
};

static struct sim_cluster cluster;
static struct user engine, reader;
static struct yolk_store_lend *lend;
static unsigned joins;

static void user_start(struct user *user, const char *host, const char *listen)
{
    const struct yolk_transfer_options transfer = { .listen = listen, .secret = SIM_SECRET };
    void *memory;
    user->env = env_sim_add(cluster.sim, host);
    assert_int_equal(yolk_transfer_create(user->env, &transfer, &user->transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(user->transfer, (size_t)VALUES * VALUE_SIZE,
                                         YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
                     STATUS_OK);
    user->memory = memory;
    const struct yolk_store_options options = {
        .env = user->env, .transfer = user->transfer, .master = SIM_MASTER, .secret = SIM_SECRET
    };
    assert_int_equal(yolk_store_create(&options, &user->store, NULL), STATUS_OK);
}

static void user_end(struct user *user)
{
    yolk_store_destroy(user->store);
    yolk_transfer_destroy(user->transfer);
    *user = (struct user){ 0 };
}

static void on_joined(void *ctx, enum status status)
{
    (void)ctx;
    assert_int_equal(status, STATUS_OK);
    joins++;
}

static struct yolk_store_lend_options lend_options(void)
{
    return (struct yolk_store_lend_options){ .env = engine.env,
                                             .master = SIM_MASTER,
                                             .secret = SIM_SECRET,
                                             .listen = LISTEN,
                                             .size = LENT_SIZE,
                                             .on_joined = on_joined };
}

static int setup(void **state)
{
    const struct env_sim_options options = { .seed = test_seed() };
    (void)state;

    joins = 0;
    sim_cluster_start(&cluster, &options);
    user_start(&engine, "10.0.2.1", "10.0.2.1:7200");
    user_start(&reader, "10.0.2.2", "10.0.2.2:7200");
    const struct yolk_store_lend_options lent = lend_options();
    assert_int_equal(yolk_store_lend_create(&lent, &lend, NULL), STATUS_OK);
    assert_int_equal(yolk_store_lend_joined(lend), STATUS_AGAIN);
    sim_run_ms(&cluster, 4000);
    assert_int_equal(yolk_store_lend_joined(lend), STATUS_OK);
    assert_int_equal(joins, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    yolk_store_lend_destroy(lend);
    user_end(&engine);
    user_end(&reader);
    sim_cluster_end(&cluster);
    lend = NULL;
    return 0;
}

/* ---- what users do ---- */

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct user *user = ctx;
    (void)size;
    user->statuses[index] = status;
    user->left--;
}

static bool is_over(void *ctx)
{
    return ((struct user *)ctx)->left == 0;
}

static void wait_for(struct user *user)
{
    assert_true(env_sim_run_until(cluster.sim, is_over, user, PATIENCE_MS * ENV_NS_PER_MS));
}

static struct yolk_store_key key_of(unsigned n)
{
    static const char *const names[VALUES] = { "zero", "one", "two", "three" };
    return (struct yolk_store_key){ names[n], strlen(names[n]) };
}

/* All of them, at what the engine lends. */
static void put_all(void)
{
    const struct yolk_store_call call = { .preferred = yolk_store_lend_name(lend),
                                          .on_item = on_item,
                                          .ctx = &engine };
    struct yolk_store_value values[VALUES];

    for (unsigned i = 0; i < VALUES; i++) {
        uint8_t *data = engine.memory + (size_t)i * VALUE_SIZE;
        sim_bytes(i, data, VALUE_SIZE);
        values[i] = (struct yolk_store_value){ key_of(i), data, VALUE_SIZE, 0, 0, 0 };
    }
    engine.left = VALUES;
    assert_int_equal(yolk_store_put(engine.store, values, VALUES, &call), STATUS_OK);
    wait_for(&engine);
    for (unsigned i = 0; i < VALUES; i++)
        assert_int_equal(engine.statuses[i], STATUS_OK);
}

static void get_start(struct user *user)
{
    const struct yolk_store_call call = { .timeout_ms = 5000, .on_item = on_item, .ctx = user };
    struct yolk_store_buffer buffers[VALUES];

    memset(user->memory, 0, (size_t)VALUES * VALUE_SIZE);
    for (unsigned i = 0; i < VALUES; i++) {
        buffers[i] = (struct yolk_store_buffer){ .key = key_of(i),
                                                 .data = user->memory + (size_t)i * VALUE_SIZE,
                                                 .size = VALUE_SIZE };
    }
    user->left = VALUES;
    assert_int_equal(yolk_store_get(user->store, buffers, VALUES, &call), STATUS_OK);
}

static void get_all(struct user *user)
{
    static uint8_t want[VALUE_SIZE];

    get_start(user);
    wait_for(user);
    for (unsigned i = 0; i < VALUES; i++) {
        assert_int_equal(user->statuses[i], STATUS_OK);
        sim_bytes(i, want, VALUE_SIZE);
        assert_memory_equal(user->memory + (size_t)i * VALUE_SIZE, want, VALUE_SIZE);
    }
}

static void on_where(void *ctx, enum status status, const struct yolk_store_where *where)
{
    char *address = ctx;
    assert_int_equal(status, STATUS_OK);
    snprintf(address, YOLK_STORE_ADDRESS_SIZE, "%s", where->replicas[0].rpc_address);
    engine.left--;
}

static void assert_all_lie_here(bool here)
{
    for (unsigned i = 0; i < VALUES; i++) {
        const struct yolk_store_key key = key_of(i);
        char address[YOLK_STORE_ADDRESS_SIZE];
        engine.left = 1;
        assert_int_equal(yolk_store_locate(engine.store, &key, 0, on_where, address), STATUS_OK);
        wait_for(&engine);
        assert_int_equal(strcmp(address, LISTEN) == 0, here);
    }
}

/* ---- tests ---- */

static void what_a_client_lends_is_read_by_others(void **state)
{
    (void)state;
    assert_string_equal(yolk_store_lend_name(lend), LISTEN);
    put_all();
    assert_all_lie_here(true);
    get_all(&reader);
    get_all(&engine);
}

static void a_new_master_knows_what_is_lent(void **state)
{
    (void)state;
    put_all();
    sim_master_kill(&cluster);
    sim_master_start(&cluster);
    sim_run_ms(&cluster, 4000);
    assert_int_equal(joins, 2);
    assert_all_lie_here(true);
    get_all(&reader);
}

static void on_withdrawn(void *ctx, enum status status)
{
    *(enum status *)ctx = status;
    engine.left--;
}

static void what_is_withdrawn_is_elsewhere(void **state)
{
    enum status withdrawn = STATUS_PENDING;
    (void)state;

    put_all();
    engine.left = 1;
    assert_int_equal(yolk_store_lend_withdraw(lend, on_withdrawn, &withdrawn), STATUS_OK);
    assert_int_equal(yolk_store_lend_withdraw(lend, on_withdrawn, &withdrawn), STATUS_BUSY);
    wait_for(&engine);
    assert_int_equal(withdrawn, STATUS_OK);
    get_all(&reader); /* still here, too */
    yolk_store_lend_destroy(lend);
    lend = NULL;
    sim_run_ms(&cluster, 100);
    assert_all_lie_here(false);
    get_all(&engine);
}

static void readers_of_what_goes_do_not_hang(void **state)
{
    (void)state;
    put_all();
    get_start(&reader);
    sim_run_ms(&cluster, 1);
    yolk_store_lend_destroy(lend);
    lend = NULL;
    wait_for(&reader);
    get_start(&reader);
    wait_for(&reader);
    for (unsigned i = 0; i < VALUES; i++)
        assert_int_equal(reader.statuses[i], STATUS_NOT_FOUND);
    const struct yolk_store_lend_options again = lend_options();
    assert_int_equal(yolk_store_lend_create(&again, &lend, NULL), STATUS_OK);
    sim_run_ms(&cluster, 1000);
    put_all();
    assert_all_lie_here(true);
    get_all(&reader);
}

static void memory_of_one_process_is_lent_in_parts(void **state)
{
    struct yolk_store_lend_options options = lend_options();
    struct yolk_store_lend *second;
    (void)state;

    options.listen = "10.0.2.1:7301";
    options.name = "second";
    assert_int_equal(yolk_store_lend_create(&options, &second, NULL), STATUS_OK);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(yolk_store_lend_joined(second), STATUS_OK);
    put_all();
    yolk_store_lend_destroy(second);
    get_all(&reader);
}

static void a_name_belongs_to_one(void **state)
{
    struct yolk_store_lend_options options = lend_options();
    struct yolk_store_lend *second;
    (void)state;

    options.listen = "10.0.2.1:7301";
    options.name = LISTEN; /* the first one's */
    assert_int_equal(yolk_store_lend_create(&options, &second, NULL), STATUS_OK);
    sim_run_ms(&cluster, 2000);
    assert_int_equal(yolk_store_lend_joined(second), STATUS_EXISTS);
    yolk_store_lend_destroy(lend);
    lend = second;
    sim_run_ms(&cluster, 2000);
    assert_int_equal(yolk_store_lend_joined(lend), STATUS_OK);
}

static void assert_refused(struct yolk_store_lend_options options, const char *part)
{
    struct yolk_store_lend *out = NULL;
    struct errmsg err = { "" };

    if (options.listen != NULL && strcmp(options.listen, LISTEN) == 0)
        options.listen = "10.0.2.1:7309";
    assert_int_equal(yolk_store_lend_create(&options, &out, &err), STATUS_INVALID);
    assert_null(out);
    if (strstr(err.text, part) == NULL) fail_msg("\"%s\" without \"%s\"", err.text, part);
}

static void wrong_options_are_refused(void **state)
{
    const struct yolk_store_lend_options good = lend_options();
    char name[YOLK_STORE_NAME_SIZE + 1] = { 0 };
    struct yolk_store_lend_options options = good;
    (void)state;

    options.size = YOLK_STORE_LEND_SIZE_MIN - 1;
    assert_refused(options, "4095");
    options.size = YOLK_STORE_LEND_SIZE_MAX + 1;
    assert_refused(options, "1 TiB");
    options.size = UINT64_MAX;
    assert_refused(options, "1 TiB");
    options = good;
    memset(name, 'n', YOLK_STORE_NAME_SIZE);
    options.name = name;
    assert_refused(options, "63 bytes");
    options = good;
    options.master = "nowhere";
    assert_refused(options, "nowhere");
    options = good;
    options.listen = "nowhere";
    assert_refused(options, "nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_client_lends_is_read_by_others, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_master_knows_what_is_lent, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_withdrawn_is_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(readers_of_what_goes_do_not_hang, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_one_process_is_lent_in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_belongs_to_one, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_options_are_refused, setup, teardown),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
