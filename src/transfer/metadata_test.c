/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_test.c
 *
 * Goal:    the pure parts of metadata: entries, connection strings, Redis answers, base64, queries,
 *          and the server's table say what they mean and refuse everything else.
 * Method:  tables of cases; every prefix and every flipped byte of a valid text; and the table
 *          against a naive model in a seeded walk, its image read back after every step.
 *          `SEED=n` replays one walk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/rng.h"
#include "seed.h"
#include "transfer/base64.h"
#include "transfer/metadata_backend.h"
#include "transfer/metadata_entry.h"
#include "transfer/metadata_server.h"
#include "transfer/metadata_table.h"
#include "transfer/resp.h"

/* ---- entries ---- */

static const struct metadata_entry example = {
    .name = "prefill-0",
    .address = "10.0.0.7:7010",
    .generation = 0xabcdef,
    .owner = "0123456789abcdef0123456789abcdef",
    .ttl_ms = 30000,
    .published_s = 1700000000,
    .rail_count = 2,
    .rails = { "10.1.0.7:7010", "10.2.0.7:7010" },
};

static void write_example(struct buf *ram, struct buf *rpc)
{
    buf_init(ram, METADATA_VALUE_MAX);
    buf_init(rpc, METADATA_VALUE_MAX);
    assert_int_equal(metadata_entry_write(&example, ram, rpc), STATUS_OK);
}

static void test_an_entry_is_read_as_it_was_written(void **state)
{
    struct buf ram, rpc;
    struct metadata_entry entry;

    (void)state;
    write_example(&ram, &rpc);
    assert_int_equal(metadata_entry_read((char *)buf_data(&ram), ram.len, &entry), STATUS_OK);
    assert_string_equal(entry.name, example.name);
    assert_string_equal(entry.address, example.address);
    assert_string_equal(entry.owner, example.owner);
    assert_int_equal(entry.generation, example.generation);
    assert_int_equal(entry.ttl_ms, example.ttl_ms);
    assert_int_equal(buf_append(&rpc, "", 1), STATUS_OK);
    assert_non_null(
        strstr((char *)buf_data(&rpc), "{\"ip_or_host_name\":\"10.0.0.7\",\"rpc_port\":7010,"));
    assert_non_null(strstr((char *)buf_data(&rpc), example.owner));
    buf_fini(&ram);
    buf_fini(&rpc);
}

static void test_the_keys_are_those_of_the_contract(void **state)
{
    char ram[METADATA_KEY_SIZE], rpc[METADATA_KEY_SIZE];

    (void)state;
    metadata_entry_keys("", "10.0.0.7:12345", ram, rpc);
    assert_string_equal(ram, "mooncake/ram/10.0.0.7:12345");
    assert_string_equal(rpc, "mooncake/rpc_meta/10.0.0.7:12345");
    metadata_entry_keys("blue", "prefill-0", ram, rpc);
    assert_string_equal(ram, "mooncake/blue/ram/prefill-0");
    assert_string_equal(rpc, "mooncake/blue/rpc_meta/prefill-0");
}

static void test_foreign_entries_are_refused_by_kind(void **state)
{
    static const struct {
        enum status status;
        const char *text;
    } cases[] = {
        { STATUS_PROTOCOL, "" },
        { STATUS_PROTOCOL, "null" },
        { STATUS_PROTOCOL, "[]" },
        { STATUS_PROTOCOL, "{\"name\":" },
        { STATUS_UNSUPPORTED, "{}" },
        { STATUS_UNSUPPORTED,
          "{\"name\":\"a\",\"protocol\":\"tcp\",\"tcp_data_port\":1,\"buffers\":[]}" },
        { STATUS_UNSUPPORTED, "{\"name\":\"a\",\"yolk\":{\"version\":2}}" },
        { STATUS_PROTOCOL, "{\"name\":\"a\",\"yolk\":{\"version\":\"1\"}}" },
        { STATUS_PROTOCOL, "{\"name\":\"a\",\"yolk\":{\"version\":1}}" },
    };
    struct metadata_entry entry;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(metadata_entry_read(cases[i].text, strlen(cases[i].text), &entry),
                         cases[i].status);
    }
}

/* What is read of a damaged entry is still within bounds: names valid, an address to dial. */
static void test_damaged_entries_never_give_nonsense(void **state)
{
    struct buf ram, rpc;
    struct metadata_entry entry;
    unsigned refused = 0;

    (void)state;
    write_example(&ram, &rpc);
    for (size_t i = 0; i < ram.len; i++) {
        assert_int_not_equal(metadata_entry_read((char *)buf_data(&ram), i, &entry), STATUS_OK);
        for (unsigned flip = 1; flip < 256; flip <<= 1) {
            buf_data(&ram)[i] ^= (uint8_t)flip;
            if (metadata_entry_read((char *)buf_data(&ram), ram.len, &entry) == STATUS_OK) {
                assert_true(metadata_name_valid(entry.name));
                assert_true(metadata_name_valid(entry.address));
                assert_non_null(strchr(entry.address, ':'));
                assert_true(entry.generation != 0 && entry.ttl_ms > 0);
                assert_int_equal(strlen(entry.owner), METADATA_OWNER_SIZE - 1);
            } else {
                refused++;
            }
            buf_data(&ram)[i] ^= (uint8_t)flip;
        }
    }
    assert_true(refused > ram.len);
    buf_fini(&ram);
    buf_fini(&rpc);
}

static void test_names_that_no_key_can_hold_are_refused(void **state)
{
    char name[YOLK_TRANSFER_NAME_SIZE + 1];

    (void)state;
    assert_true(metadata_name_valid("a"));
    assert_true(metadata_name_valid("rack1/prefill-0:x%2F?&="));
    assert_false(metadata_name_valid(NULL));
    assert_false(metadata_name_valid(""));
    assert_false(metadata_name_valid("a b"));
    assert_false(metadata_name_valid("a\"b"));
    assert_false(metadata_name_valid("a\\b"));
    assert_false(metadata_name_valid("a\nb"));
    assert_false(metadata_name_valid("\xc3\xa4"));
    memset(name, 'n', sizeof(name));
    name[YOLK_TRANSFER_NAME_SIZE] = '\0';
    assert_false(metadata_name_valid(name));
    name[YOLK_TRANSFER_NAME_SIZE - 1] = '\0';
    assert_true(metadata_name_valid(name));
}

/* ---- connection strings ---- */

static void test_connection_strings(void **state)
{
    static const struct {
        const char *url;
        enum metadata_kind kind;
        unsigned endpoints;
        const char *first, *path, *user, *password, *label;
        unsigned database;
    } cases[] = {
        { "http://h:8080/metadata", METADATA_HTTP, 1, "h:8080", "/metadata", "", "",
          "http://h:8080/metadata", 0 },
        { "http://h", METADATA_HTTP, 1, "h:80", "/metadata", "", "", "http://h:80/metadata", 0 },
        { "http://h/", METADATA_HTTP, 1, "h:80", "/metadata", "", "", "http://h:80/metadata", 0 },
        { "http://[::1]:9/m", METADATA_HTTP, 1, "[::1]:9", "/m", "", "", "http://[::1]:9/m", 0 },
        { "etcd://a:1,b:2,c", METADATA_ETCD, 3, "a:1", NULL, "", "", "etcd://a:1,...", 0 },
        { "etcd://me:p\"w@a:1,b", METADATA_ETCD, 2, "a:1", NULL, "me", "p\"w", "etcd://a:1,...",
          0 },
        { "10.0.0.1:2379", METADATA_ETCD, 1, "10.0.0.1:2379", NULL, "", "", "etcd://10.0.0.1:2379",
          0 },
        { "redis://h", METADATA_REDIS, 1, "h:6379", NULL, "", "", "redis://h:6379", 0 },
        { "redis://:pw@h:1/3", METADATA_REDIS, 1, "h:1", NULL, "", "pw", "redis://h:1/3", 3 },
        { "redis://me:p@:w/@h:1", METADATA_REDIS, 1, "h:1", NULL, "me", "p@:w/", "redis://h:1", 0 },
        { "redis://pw@h", METADATA_REDIS, 1, "h:6379", NULL, "", "pw", "redis://h:6379", 0 },
    };
    struct metadata_backend backend;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(metadata_backend_parse(cases[i].url, &backend, NULL), STATUS_OK);
        assert_int_equal(backend.kind, cases[i].kind);
        assert_int_equal(backend.endpoint_count, cases[i].endpoints);
        assert_string_equal(backend.endpoints[0], cases[i].first);
        if (cases[i].path != NULL) assert_string_equal(backend.path, cases[i].path);
        assert_string_equal(backend.user, cases[i].user);
        assert_string_equal(backend.password, cases[i].password);
        assert_string_equal(backend.label, cases[i].label);
        assert_int_equal(backend.database, cases[i].database);
    }
}

static void test_bad_connection_strings_are_refused_without_their_password(void **state)
{
    static const char *const cases[] = {
        "",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://sesame@h",
        "http://h/a?b",
        "http://h/a b",
        "etcd://a,",
        "etcd://a,b,c,d,e",
        "etcd://a/path",
        "etcd://sesame@a",
        "etcd://:sesame@a",
        "etcd://me:@a",
        "redis://:sesame@",
        "redis://:sesame@h/x",
        "redis://:sesame@h:port",
        "redis://:sesame open@h",
    };
    struct metadata_backend backend;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = { "" };
        assert_int_equal(metadata_backend_parse(cases[i], &backend, &err), STATUS_INVALID);
        assert_true(err.text[0] != '\0');
        assert_null(strstr(err.text, "sesame"));
    }
}

static void test_redis_login_of_the_environment(void **state)
{
    struct metadata_backend backend;

    (void)state;
    assert_int_equal(setenv("MC_REDIS_USERNAME", "u", 1), 0);
    assert_int_equal(setenv("MC_REDIS_PASSWORD", "sesame", 1), 0);
    assert_int_equal(setenv("MC_REDIS_DB_INDEX", "7", 1), 0);
    assert_int_equal(metadata_backend_parse("redis://h", &backend, NULL), STATUS_OK);
    assert_string_equal(backend.user, "u");
    assert_string_equal(backend.password, "sesame");
    assert_int_equal(backend.database, 7);
    assert_null(strstr(backend.label, "sesame"));
    assert_int_equal(metadata_backend_parse("redis://:own@h/2", &backend, NULL), STATUS_OK);
    assert_string_equal(backend.user, "");
    assert_string_equal(backend.password, "own");
    assert_int_equal(backend.database, 2);
    unsetenv("MC_REDIS_USERNAME");
    unsetenv("MC_REDIS_PASSWORD");
    unsetenv("MC_REDIS_DB_INDEX");
}

/* ---- redis answers ---- */

static void test_redis_answers(void **state)
{
    static const struct {
        const char *text;
        enum status status;
        enum resp_kind kind;
        const char *said;
        int64_t integer;
    } cases[] = {
        { "+OK\r\n", STATUS_OK, RESP_STATUS, "OK", 0 },
        { "-ERR no\r\n", STATUS_OK, RESP_ERROR, "ERR no", 0 },
        { ":-12\r\n", STATUS_OK, RESP_INTEGER, NULL, -12 },
        { "$3\r\na\nb\r\n", STATUS_OK, RESP_BULK, "a\nb", 3 },
        { "$0\r\n\r\n", STATUS_OK, RESP_BULK, "", 0 },
        { "$-1\r\n", STATUS_OK, RESP_NIL, NULL, -1 },
        { "*1\r\n:1\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "hello", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "+OK\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { ":\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { ":1x\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "$-2\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "$65537\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "$999999999999999999999\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
        { "$1\r\nab\r\n", STATUS_PROTOCOL, RESP_NIL, NULL, 0 },
    };
    struct resp_reply reply;
    size_t taken;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t len = strlen(cases[i].text);
        assert_int_equal(resp_read(cases[i].text, len, &reply, &taken), cases[i].status);
        if (cases[i].status != STATUS_OK) continue;
        assert_int_equal(taken, len);
        assert_int_equal(reply.kind, cases[i].kind);
        if (cases[i].said != NULL) {
            assert_int_equal(reply.len, strlen(cases[i].said));
            assert_memory_equal(reply.text, cases[i].said, reply.len);
        } else {
            assert_int_equal(reply.integer, cases[i].integer);
        }
        for (size_t part = 0; part < len; part++)
            assert_int_equal(resp_read(cases[i].text, part, &reply, &taken), STATUS_AGAIN);
    }
}

static void test_a_redis_line_without_end_is_given_up(void **state)
{
    char text[RESP_LINE_MAX];
    struct resp_reply reply;
    size_t taken;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[0] = '+';
    assert_int_equal(resp_read(text, sizeof(text) - 1, &reply, &taken), STATUS_AGAIN);
    assert_int_equal(resp_read(text, sizeof(text), &reply, &taken), STATUS_PROTOCOL);
}

/* ---- base64 ---- */

static void test_base64(void **state)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = { { "", "" },
                  { "f", "Zg==" },
                  { "fo", "Zm8=" },
                  { "foo", "Zm9v" },
                  { "foob", "Zm9vYg==" },
                  { "fooba", "Zm9vYmE=" },
                  { "foobar", "Zm9vYmFy" },
                  { "\xfb\xff\xfe", "+//+" } };
    static const char *const wrong[] = { "Z",    "Zg",   "Zg=",  "=Zg=",     "Z===",     "====",
                                         "Zh==", "Zm9=", "Zm9!", "Zg==Zg==", "Zm9v\nZm8" };
    uint8_t bytes[16];
    struct buf text;
    size_t len;

    (void)state;
    buf_init(&text, 64);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buf_clear(&text);
        assert_int_equal(base64_write(&text, cases[i].bytes, strlen(cases[i].bytes)), STATUS_OK);
        assert_int_equal(text.len, strlen(cases[i].text));
        assert_memory_equal(buf_data(&text), cases[i].text, text.len);
        assert_int_equal(base64_read(cases[i].text, text.len, bytes, &len), STATUS_OK);
        assert_int_equal(len, strlen(cases[i].bytes));
        assert_memory_equal(bytes, cases[i].bytes, len);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(base64_read(wrong[i], strlen(wrong[i]), bytes, &len), STATUS_PROTOCOL);
    buf_fini(&text);
}

/* ---- queries ---- */

static void test_queries(void **state)
{
    static const struct {
        const char *query, *name, *value; /* NULL: refused */
    } cases[] = {
        { "key=a%2Fb%3a1&x=2", "key", "a/b:1" },
        { "x=2&key=a+b", "key", "a b" },
        { "x=2&key=a+b", "x", "2" },
        { "monkey=1&key=2", "key", "2" },
        { "key", "key", "" },
        { "key=", "key", "" },
        { "", "key", "" },
        { "key=1&key=2", "key", "1" },
        { "key=%", "key", NULL },
        { "key=%2", "key", NULL },
        { "key=%2&x=1", "key", NULL },
        { "key=%zz", "key", NULL },
        { "key=a%00b", "key", NULL },
        { "key=12345678", "key", NULL },
        { "key=1234567", "key", "1234567" },
    };
    char out[8];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const bool fits = metadata_server_query(cases[i].query, cases[i].name, out, sizeof(out));
        assert_int_equal(fits, cases[i].value != NULL);
        if (fits) assert_string_equal(out, cases[i].value);
    }
}

/* ---- the server's table ---- */

enum { KEYS = 12, OWNERS = 3, STEPS = 4000, ENTRIES_MAX = 8, SIZE_MAX_TABLE = 700 };

struct model_entry {
    bool there;
    unsigned owner; /* 0: nobody's */
    char value[128];
    size_t len;
    uint32_t ttl_ms;
    uint64_t ends_ns;
};

struct model {
    struct model_entry entries[KEYS];
    uint64_t now_ns;
};

static void key_of(unsigned key, char out[16])
{
    snprintf(out, 16, "key/%u", key);
}

static const char *owner_of(unsigned owner)
{
    static const char *const owners[OWNERS] = { "", "alice", "bob" };
    return owners[owner];
}

static uint64_t model_size(const struct model *model, unsigned but)
{
    uint64_t size = 0;
    char key[16];

    for (unsigned i = 0; i < KEYS; i++) {
        if (!model->entries[i].there || i == but) continue;
        key_of(i, key);
        size += strlen(key) + strlen(owner_of(model->entries[i].owner)) + model->entries[i].len;
    }
    return size;
}

static unsigned model_count(const struct model *model, unsigned but)
{
    unsigned count = 0;
    for (unsigned i = 0; i < KEYS; i++)
        count += model->entries[i].there && i != but;
    return count;
}

static bool model_alive(const struct model *model, unsigned key)
{
    return model->entries[key].there && model->entries[key].ends_ns > model->now_ns;
}

static void walk_put(struct metadata_table *table, struct model *model, struct rng *rng)
{
    const unsigned key = (unsigned)rng_below(rng, KEYS), owner = (unsigned)rng_below(rng, OWNERS);
    struct model_entry *entry = &model->entries[key], made = { .there = true, .owner = owner };
    char key_text[16];
    bool changed;

    key_of(key, key_text);
    made.len = rng_below(rng, 4) == 0 ? entry->len : rng_below(rng, sizeof(made.value));
    memset(made.value, 'a' + (int)rng_below(rng, 2), made.len);
    made.ttl_ms = rng_below(rng, 3) == 0 ? 0 : 100;
    made.ends_ns = made.ttl_ms == 0 ? ENV_NEVER : model->now_ns + made.ttl_ms * ENV_NS_PER_MS;
    const struct metadata_put put = { .key = key_text,
                                      .owner = owner_of(owner),
                                      .value = made.value,
                                      .len = made.len,
                                      .ttl_ms = made.ttl_ms,
                                      .keep = rng_below(rng, 2) == 0 };
    const enum status status = metadata_table_put(table, &put, model->now_ns, &changed);
    const bool theirs = model_alive(model, key) && entry->owner != 0 && entry->owner != owner;
    const uint64_t size =
        model_size(model, key) + strlen(key_text) + strlen(owner_of(owner)) + made.len;
    if (put.keep && theirs) {
        assert_int_equal(status, STATUS_EXISTS);
    } else if (size > SIZE_MAX_TABLE || model_count(model, key) == ENTRIES_MAX) {
        assert_int_equal(status, STATUS_FULL);
    } else {
        assert_int_equal(status, STATUS_OK);
        const bool same = entry->there && entry->owner == owner && entry->len == made.len &&
                          entry->ttl_ms == made.ttl_ms &&
                          memcmp(entry->value, made.value, made.len) == 0;
        if (model_alive(model, key))
            assert_int_equal(changed, !same);
        else
            assert_true(changed);
        *entry = made;
    }
}

static void walk_remove(struct metadata_table *table, struct model *model, struct rng *rng)
{
    const unsigned key = (unsigned)rng_below(rng, KEYS), owner = (unsigned)rng_below(rng, OWNERS);
    struct model_entry *entry = &model->entries[key];
    char key_text[16];

    key_of(key, key_text);
    const enum status status =
        metadata_table_remove(table, key_text, owner_of(owner), model->now_ns);
    if (!model_alive(model, key)) {
        assert_int_equal(status, STATUS_NOT_FOUND);
        entry->there = false;
    } else if (owner != 0 && entry->owner != owner) {
        assert_int_equal(status, STATUS_EXISTS);
    } else {
        assert_int_equal(status, STATUS_OK);
        entry->there = false;
    }
}

static void expect_equal(const struct metadata_table *table, const struct model *model)
{
    for (unsigned i = 0; i < KEYS; i++) {
        const char *value;
        char key[16];
        size_t len;

        key_of(i, key);
        const enum status status = metadata_table_get(table, key, model->now_ns, &value, &len);
        assert_int_equal(status, model_alive(model, i) ? STATUS_OK : STATUS_NOT_FOUND);
        if (status != STATUS_OK) continue;
        assert_int_equal(len, model->entries[i].len);
        assert_memory_equal(value, model->entries[i].value, len);
    }
    assert_int_equal(metadata_table_count(table), model_count(model, KEYS));
    assert_int_equal(metadata_table_size(table), model_size(model, KEYS));
}

/* Written and read again, as a restart does; every life begins anew. */
static struct metadata_table *restart(struct metadata_table *table, struct model *model)
{
    struct metadata_table *again = metadata_table_create(ENTRIES_MAX, SIZE_MAX_TABLE, 2);
    struct buf image;

    buf_init(&image, 1 << 20);
    assert_int_equal(metadata_table_write(table, &image), STATUS_OK);
    assert_int_equal(metadata_table_read(again, buf_data(&image), image.len, model->now_ns),
                     STATUS_OK);
    buf_fini(&image);
    metadata_table_destroy(table);
    for (unsigned i = 0; i < KEYS; i++) {
        struct model_entry *entry = &model->entries[i];
        if (entry->ttl_ms != 0) entry->ends_ns = model->now_ns + entry->ttl_ms * ENV_NS_PER_MS;
    }
    return again;
}

static void test_the_table_is_the_model(void **state)
{
    const uint64_t seed = test_seed();
    struct metadata_table *table = metadata_table_create(ENTRIES_MAX, SIZE_MAX_TABLE, 1);
    struct model model = { .now_ns = ENV_NS_PER_S };
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int step = 0; step < STEPS; step++) {
        const uint64_t dice = rng_below(&rng, 20);
        if (dice < 10)
            walk_put(table, &model, &rng);
        else if (dice < 15)
            walk_remove(table, &model, &rng);
        else if (dice < 17)
            table = restart(table, &model);
        else if (dice < 19)
            model.now_ns += rng_below(&rng, 40) * ENV_NS_PER_MS;
        if (dice == 19) {
            metadata_table_expire(table, model.now_ns);
            for (unsigned i = 0; i < KEYS; i++)
                model.entries[i].there = model_alive(&model, i);
        }
        expect_equal(table, &model);
    }
    metadata_table_destroy(table);
}

static void test_a_damaged_image_is_corrupt(void **state)
{
    struct metadata_table *table = metadata_table_create(8, 4096, 1);
    const struct metadata_put put = { .key = "k", .owner = "o", .value = "v", .len = 1 };
    struct buf image;
    bool changed;

    (void)state;
    buf_init(&image, 1 << 20);
    assert_int_equal(metadata_table_put(table, &put, 1, &changed), STATUS_OK);
    assert_int_equal(metadata_table_write(table, &image), STATUS_OK);
    metadata_table_destroy(table);
    table = metadata_table_create(8, 4096, 1);
    for (size_t i = 0; i < image.len; i++) {
        assert_int_equal(metadata_table_read(table, buf_data(&image), i, 1), STATUS_CORRUPT);
        buf_data(&image)[i] ^= 1;
        assert_int_equal(metadata_table_read(table, buf_data(&image), image.len, 1),
                         STATUS_CORRUPT);
        buf_data(&image)[i] ^= 1;
    }
    assert_int_equal(metadata_table_read(table, buf_data(&image), image.len, 1), STATUS_OK);
    metadata_table_destroy(table);
    buf_fini(&image);
}

static void test_keys_and_owners_have_limits(void **state)
{
    struct metadata_table *table = metadata_table_create(8, 1 << 22, 1);
    char long_text[METADATA_TABLE_KEY_MAX + 2];
    struct metadata_put put = { .key = "", .owner = "", .value = "v", .len = 1 };
    bool changed;

    (void)state;
    memset(long_text, 'k', sizeof(long_text));
    long_text[METADATA_TABLE_KEY_MAX + 1] = '\0';
    assert_int_equal(metadata_table_put(table, &put, 1, &changed), STATUS_INVALID);
    put.key = long_text;
    assert_int_equal(metadata_table_put(table, &put, 1, &changed), STATUS_INVALID);
    long_text[METADATA_TABLE_KEY_MAX] = '\0';
    assert_int_equal(metadata_table_put(table, &put, 1, &changed), STATUS_OK);
    put.owner = long_text;
    assert_int_equal(metadata_table_put(table, &put, 1, &changed), STATUS_INVALID);
    metadata_table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_entry_is_read_as_it_was_written),
        cmocka_unit_test(test_the_keys_are_those_of_the_contract),
        cmocka_unit_test(test_foreign_entries_are_refused_by_kind),
        cmocka_unit_test(test_damaged_entries_never_give_nonsense),
        cmocka_unit_test(test_names_that_no_key_can_hold_are_refused),
        cmocka_unit_test(test_connection_strings),
        cmocka_unit_test(test_bad_connection_strings_are_refused_without_their_password),
        cmocka_unit_test(test_redis_login_of_the_environment),
        cmocka_unit_test(test_redis_answers),
        cmocka_unit_test(test_a_redis_line_without_end_is_given_up),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_the_table_is_the_model),
        cmocka_unit_test(test_a_damaged_image_is_corrupt),
        cmocka_unit_test(test_keys_and_owners_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
