/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_store.c - `yolk store`: puts, gets, removes and shows what is in the KVCache pool, as a
 * client of its master (yolk/store.h).
 *
 * Keys are any bytes. On the command line and in what is printed, \xNN is a byte and \\ a
 * backslash, so that every key that `ls` shows can be given back to the other commands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/quotas.h"
#include "cli/store_ask.h"
#include "cli/store_layers.h"
#include "cli/store_move.h"
#include "cli/store_view.h"
#include "yolk/store.h"
#include "yolk/transfer.h"

enum {
    VALUE_SIZE_MAX = 1 << 30,
    POSITIONS_MAX = 64, /* CONFIG_POSITIONS_MAX */
    GET_TRIES = 5,      /* while the value becomes longer and longer */
};

/* ---- layer by layer ---- */

static bool is_layered(const struct cli *cli)
{
    return config_u64(cli->config, "layers") > 0;
}

static int with_key(struct cli *cli,
                    int (*fn)(struct cli *cli, const char *name, const struct yolk_store_key *key))
{
    const char *name = config_position(cli->config, 1);
    struct yolk_store_key key = { NULL, 0 };
    struct errmsg err = { "" };

    if (store_ask_key(name, &key, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    const int code = fn(cli, name, &key);
    store_ask_key_free(&key);
    return code;
}

static int put_layered(struct cli *cli)
{
    if (config_positions(cli->config) != 2)
        return cli_refuse("store put: with --layers a value comes through standard input");
    return with_key(cli, store_layers_put);
}

static int get_layered(struct cli *cli)
{
    const struct config *config = cli->config;
    if (config_text(config, "out")[0] != '\0' || config_u64(config, "offset") > 0 ||
        config_u64(config, "length") > 0) {
        return cli_refuse("store get: --layers goes to standard output, and is of the whole value");
    }
    return with_key(cli, store_layers_get);
}

/* ---- put ---- */

static enum status read_stdin(struct buf *out, struct errmsg *err)
{
    for (;;) {
        uint8_t *room;
        if (buf_reserve(out, 1 << 16, &room) != STATUS_OK) {
            return errmsg_set(err, STATUS_INVALID, "standard input: a value has at most 1 GiB");
        }
        const size_t n = fread(room, 1, 1 << 16, stdin);
        if (n == 0) break;
        buf_commit(out, n);
    }
    if (ferror(stdin)) return errmsg_set(err, STATUS_INVALID, "standard input cannot be read");
    return STATUS_OK;
}

/* The value, from a file or, without one, from standard input. */
static enum status read_value(struct cli *cli, const char *path, struct buf *out,
                              struct errmsg *err)
{
    char *text = NULL;
    size_t len = 0;

    if (path == NULL || strcmp(path, "-") == 0) return read_stdin(out, err);
    enum status status = env_file_read_all(cli->env, path, VALUE_SIZE_MAX, &text, &len, err);
    if (status == STATUS_OK) status = buf_append(out, text, len);
    free(text);
    return status;
}

static int put_value(struct cli *cli, const char *name, const struct yolk_store_key *key,
                     const struct buf *value)
{
    struct store_ask ask;
    struct errmsg err = { "" };
    void *memory = NULL;
    int code = CLI_EXIT_OK;

    enum status status = store_ask_open(&ask, cli, true, &err);
    if (status == STATUS_OK) {
        status =
            yolk_transfer_alloc(ask.transfer, value->len, YOLK_TRANSFER_REMOTE_READ, &memory, &err);
    }
    if (status != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        const struct yolk_store_value item = { .key = *key, .data = memory, .size = value->len };
        memcpy(memory, buf_data(value), value->len);
        ask.left = 1;
        const struct yolk_store_call call = store_ask_put_call(&ask);
        status = store_ask_wait(&ask, yolk_store_put(ask.store, &item, 1, &call));
        if (status != STATUS_OK) code = store_ask_refuse(&ask, name, status);
    }
    store_ask_close(&ask);
    return code;
}

static int store_put(struct cli *cli)
{
    const uint32_t positions = config_positions(cli->config);
    struct yolk_store_key key = { NULL, 0 };
    struct errmsg err = { "" };
    struct buf value;
    int code;

    if (positions < 2 || positions > 3) return cli_refuse("store put: KEY [FILE]");
    if (config_bool(cli->config, "pin") && config_is_flag(cli->config, "soft-pin")) {
        return cli_refuse("store put: --soft-pin has no effect beside --pin");
    }
    if (is_layered(cli)) return put_layered(cli);
    const char *name = config_position(cli->config, 1);
    buf_init(&value, VALUE_SIZE_MAX);
    enum status status = store_ask_key(name, &key, &err);
    if (status == STATUS_OK) {
        status =
            read_value(cli, positions == 3 ? config_position(cli->config, 2) : NULL, &value, &err);
    }
    if (status == STATUS_OK && value.len == 0) {
        status = errmsg_set(&err, STATUS_INVALID, "%s: a value has at least one byte", name);
    }
    code = status == STATUS_OK ? put_value(cli, name, &key, &value) : cli_refuse("%s", err.text);
    buf_fini(&value);
    store_ask_key_free(&key);
    return code;
}

/* ---- get ---- */

static void on_where(void *ctx, enum status status, const struct yolk_store_where *where)
{
    struct store_ask *ask = ctx;
    ask->left--;
    ask->status = status;
    if (where != NULL) ask->size = where->size;
}

static int write_value(struct cli *cli, const void *data, size_t size)
{
    const char *path = config_text(cli->config, "out");
    struct errmsg err = { "" };

    if (path[0] == '\0') {
        const bool whole = fwrite(data, 1, size, stdout) == size && fflush(stdout) == 0;
        return whole ? CLI_EXIT_OK : cli_refuse("standard output is closed");
    }
    if (env_file_replace(cli->env, path, data, size, &err) == STATUS_OK) return CLI_EXIT_OK;
    return cli_refuse("%s", err.text);
}

/* Bytes of a value of `whole` bytes, which has some at `offset`. */
static uint64_t asked_for(uint64_t whole, uint64_t offset, uint64_t length)
{
    const uint64_t left = whole - offset;
    return length == 0 || length > left ? left : length;
}

/* What of the value lies where the user asked, into memory that stays the engine's. It may be
 * replaced by a value of another size between the question how long it is and the reading: what
 * counts is the size that came with the bytes. STATUS_FULL: it is longer now than it was;
 * STATUS_INVALID: so much shorter that nothing of it lies there. */
static enum status read_located(struct store_ask *ask, const struct yolk_store_key *key,
                                uint64_t offset, uint64_t length, void **data, uint64_t *size)
{
    const struct yolk_store_call call = { .on_item = store_ask_item, .ctx = ask };
    const uint64_t whole = ask->size, room = asked_for(whole, offset, length);
    struct errmsg err = { "" };

    if (yolk_transfer_alloc(ask->transfer, room, YOLK_TRANSFER_REMOTE_WRITE, data, &err) !=
        STATUS_OK) {
        return STATUS_NO_MEMORY;
    }
    const struct yolk_store_buffer buffer = {
        .key = *key, .data = *data, .size = room, .range = room < whole, .offset = offset
    };
    ask->left = 1;
    const enum status status = store_ask_wait(ask, yolk_store_get(ask->store, &buffer, 1, &call));
    if (status != STATUS_OK) return status;
    *size = asked_for(ask->size, offset, length);
    return *size > room ? STATUS_FULL : STATUS_OK;
}

static bool size_changed(enum status status)
{
    return status == STATUS_FULL || status == STATUS_INVALID;
}

static int get_value(struct store_ask *ask, const char *name, const struct yolk_store_key *key)
{
    const uint64_t offset = config_u64(ask->cli->config, "offset");
    const uint64_t length = config_u64(ask->cli->config, "length");
    enum status status = STATUS_FULL;
    void *memory = NULL;
    uint64_t size = 0;

    for (int tries = 0; size_changed(status) && tries < GET_TRIES; tries++) {
        if (memory != NULL) (void)!yolk_transfer_free(ask->transfer, memory);
        memory = NULL;
        ask->left = 1;
        status =
            store_ask_wait(ask, yolk_store_locate(ask->store, key, STORE_ASK_MS, on_where, ask));
        if (status != STATUS_OK) break;
        if (offset >= ask->size) {
            return cli_refuse("%s: has %llu bytes, none at --offset", name,
                              (unsigned long long)ask->size);
        }
        status = read_located(ask, key, offset, length, &memory, &size);
    }
    if (size_changed(status)) {
        return cli_refuse("%s: is replaced by values of other sizes faster than it is read", name);
    }
    if (status != STATUS_OK) return store_ask_refuse(ask, name, status);
    return write_value(ask->cli, memory, size);
}

static int store_get(struct cli *cli)
{
    struct yolk_store_key key = { NULL, 0 };
    struct store_ask ask = { 0 };
    struct errmsg err = { "" };
    int code;

    if (config_positions(cli->config) != 2) return cli_refuse("store get: KEY [--out FILE]");
    if (is_layered(cli)) return get_layered(cli);
    const char *name = config_position(cli->config, 1);
    enum status status = store_ask_key(name, &key, &err);
    if (status == STATUS_OK) status = store_ask_open(&ask, cli, true, &err);
    code = status == STATUS_OK ? get_value(&ask, name, &key) : cli_refuse("%s", err.text);
    store_ask_close(&ask);
    store_ask_key_free(&key);
    return code;
}

/* ---- pages: ls, rm by pattern ---- */

typedef enum status (*page_fn)(struct yolk_store *store, const struct yolk_store_query *query,
                               uint32_t timeout_ms, yolk_store_page_fn on_page, void *ctx);

/* A walk through all pages of a query. */
struct walk {
    struct store_ask ask;
    uint64_t next;
    uint64_t matched, bytes, removed, kept;
    uint64_t left;           /* keys that may still be printed */
    struct store_list *list; /* NULL: nothing is printed */
};

static void on_page(void *ctx, enum status status, const struct yolk_store_page *page,
                    const char *message)
{
    struct walk *walk = ctx;

    walk->ask.left--;
    walk->ask.status = status;
    snprintf(walk->ask.message, sizeof(walk->ask.message), "%s", message);
    if (page == NULL) return;
    walk->next = page->next;
    walk->matched += page->matched;
    walk->bytes += page->bytes;
    walk->removed += page->removed;
    walk->kept += page->kept;
    if (walk->list == NULL) return;
    for (uint32_t i = 0; i < page->count; i++)
        store_view_entry(walk->list, &page->entries[i]);
    walk->left -= page->count;
}

/* Page after page, until the last or until `left` keys were printed. */
static enum status walk_all(struct walk *walk, page_fn ask, struct yolk_store_query query)
{
    enum status status = STATUS_OK;
    do {
        query.limit = walk->left < YOLK_STORE_PAGE_MAX ? (uint32_t)walk->left : YOLK_STORE_PAGE_MAX;
        walk->ask.left = 1;
        status =
            store_ask_wait(&walk->ask, ask(walk->ask.store, &query, STORE_ASK_MS, on_page, walk));
        query.cursor = walk->next;
    } while (status == STATUS_OK && walk->next != 0 && walk->left > 0);
    return status;
}

static int ls_print(struct cli *cli, const struct yolk_store_key *prefix)
{
    const struct config *config = cli->config;
    const uint64_t limit = config_u64(config, "limit");
    const struct yolk_store_query query = {
        .prefix = prefix->bytes,
        .prefix_len = prefix->len,
        .regex = config_is_set(config, "regex") ? config_text(config, "regex") : NULL,
        .blocks = config_bool(config, "blocks"),
    };
    struct store_list list = { .json = config_bool(config, "json") };
    struct walk walk = { .left = limit == 0 ? UINT64_MAX : limit, .list = &list };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (store_ask_open(&walk.ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        store_view_begin(&list);
        const enum status status = walk_all(&walk, yolk_store_list, query);
        store_view_end(&list);
        if (status != STATUS_OK) code = store_ask_refuse(&walk.ask, "ls", status);
    }
    store_ask_close(&walk.ask);
    return code;
}

static int store_ls(struct cli *cli)
{
    const uint32_t positions = config_positions(cli->config);
    struct yolk_store_key prefix = { NULL, 0 };
    struct errmsg err = { "" };

    if (positions > 2) return cli_refuse("store ls: [PREFIX] [--regex EXPRESSION]");
    if (positions == 2 &&
        store_ask_key(config_position(cli->config, 1), &prefix, &err) != STATUS_OK) {
        return cli_refuse("%s", err.text);
    }
    const int code = ls_print(cli, &prefix);
    store_ask_key_free(&prefix);
    return code;
}

static int rm_matching(struct cli *cli)
{
    const struct config *config = cli->config;
    const struct yolk_store_query query = {
        .regex = config_is_set(config, "regex") ? config_text(config, "regex") : NULL,
        .force = config_bool(config, "force"),
    };
    struct walk walk = { .left = UINT64_MAX };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (config_positions(config) != 1) {
        return cli_refuse("store rm: either keys, or --regex or --all");
    }
    enum status status = store_ask_open(&walk.ask, cli, false, &err);
    if (status != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        status = walk_all(&walk, yolk_store_remove_matching, query);
        if (status != STATUS_OK)
            code = store_ask_refuse(&walk.ask, "rm", status);
        else if (walk.kept > 0) {
            code = cli_refuse("rm: %llu removed; %llu stay, being written or leased (--force)",
                              (unsigned long long)walk.removed, (unsigned long long)walk.kept);
        } else {
            printf("%llu removed\n", (unsigned long long)walk.removed);
        }
    }
    store_ask_close(&walk.ask);
    return code;
}

/* ---- rm by name ---- */

struct removal {
    struct store_ask ask;
    struct yolk_store_key keys[POSITIONS_MAX];
    const char *names[POSITIONS_MAX]; /* as they were given */
    uint32_t count;
    enum status statuses[POSITIONS_MAX];
};

static void on_removed(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct removal *removal = ctx;
    (void)size;
    removal->ask.left--;
    removal->ask.status = STATUS_OK;
    removal->statuses[index] = status;
}

static int rm_keys(struct cli *cli, struct removal *removal)
{
    const struct yolk_store_call call = { .force = config_bool(cli->config, "force"),
                                          .on_item = on_removed,
                                          .ctx = removal };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (store_ask_open(&removal->ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        removal->ask.left = removal->count;
        const enum status status =
            store_ask_wait(&removal->ask, yolk_store_remove(removal->ask.store, removal->keys,
                                                            removal->count, &call));
        if (status != STATUS_OK) code = store_ask_refuse(&removal->ask, "rm", status);
        for (uint32_t i = 0; status == STATUS_OK && i < removal->count; i++) {
            if (removal->statuses[i] == STATUS_OK) continue;
            if (removal->statuses[i] == STATUS_EXISTS) {
                code = cli_refuse("%s: being written", removal->names[i]);
                continue;
            }
            code = store_ask_refuse(&removal->ask, removal->names[i], removal->statuses[i]);
        }
    }
    store_ask_close(&removal->ask);
    return code;
}

static int store_rm(struct cli *cli)
{
    struct removal removal = { 0 };
    const uint32_t count = config_positions(cli->config) - 1;
    int code = CLI_EXIT_OK;

    const bool all = config_bool(cli->config, "all");
    if (config_is_set(cli->config, "regex") && all) {
        return cli_refuse("store rm: --regex or --all, not both");
    }
    if (config_is_set(cli->config, "regex") || all) return rm_matching(cli);
    if (count == 0) return cli_refuse("store rm: KEY..., --regex EXPRESSION or --all");
    for (uint32_t i = 0; i < count; i++) {
        const char *name = config_position(cli->config, i + 1);
        struct errmsg err = { "" };
        if (store_ask_key(name, &removal.keys[removal.count], &err) == STATUS_OK) {
            removal.names[removal.count++] = name;
        } else { /* the others are removed */
            code = cli_refuse("%s", err.text);
        }
    }
    const int others = removal.count > 0 ? rm_keys(cli, &removal) : CLI_EXIT_OK;
    for (uint32_t i = 0; i < removal.count; i++)
        store_ask_key_free(&removal.keys[i]);
    return code != CLI_EXIT_OK ? code : others;
}

/* ---- stat, top ---- */

static void on_located(void *ctx, enum status status, const struct yolk_store_where *where)
{
    struct store_ask *ask = ctx;
    ask->left--;
    ask->status = status;
    if (where != NULL) store_view_where(where, config_bool(ask->cli->config, "json"));
}

static int stat_key(struct cli *cli, const char *name)
{
    struct yolk_store_key key = { NULL, 0 };
    struct store_ask ask = { 0 };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    enum status status = store_ask_key(name, &key, &err);
    if (status == STATUS_OK) status = store_ask_open(&ask, cli, false, &err);
    if (status != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        ask.left = 1;
        status = store_ask_wait(&ask,
                                yolk_store_locate(ask.store, &key, STORE_ASK_MS, on_located, &ask));
        if (status != STATUS_OK) code = store_ask_refuse(&ask, name, status);
    }
    store_ask_close(&ask);
    store_ask_key_free(&key);
    return code;
}

/* The pool's numbers, and those before them, to say what happened in between. */
struct viewing {
    struct store_ask ask;
    struct store_view view;
    struct yolk_store_tenant *tenants; /* of the last answer, copied */
    uint32_t tenants_count;
};

static void on_tenants(void *ctx, enum status status, const struct yolk_store_tenant *tenants,
                       uint32_t count)
{
    struct viewing *viewing = ctx;
    viewing->ask.left--;
    viewing->ask.status = status;
    if (status != STATUS_OK) return;
    struct yolk_store_tenant *copy = calloc(count + 1, sizeof(*copy));
    if (copy == NULL) return;
    memcpy(copy, tenants, count * sizeof(*copy));
    free(viewing->tenants);
    viewing->tenants = copy;
    viewing->tenants_count = count;
}

/* A master that knows no tenants has none to show. */
static void tenants_ask(struct viewing *viewing, const struct yolk_store_tenant *set)
{
    struct store_ask *ask = &viewing->ask;
    ask->left = 1;
    ask->status =
        store_ask_wait(ask, yolk_store_tenants(ask->store, set, STORE_ASK_MS, on_tenants, viewing));
}

static void on_stats(void *ctx, enum status status, const struct yolk_store_stats *stats,
                     const struct yolk_store_node *nodes, uint32_t nodes_count)
{
    struct viewing *viewing = ctx;
    viewing->ask.left--;
    viewing->ask.status = status;
    if (stats == NULL) return;
    store_view_stats(&viewing->view, stats, nodes, nodes_count, viewing->tenants,
                     viewing->tenants_count);
}

static int stat_pool(struct cli *cli, bool live)
{
    struct viewing viewing = { .view = { .json = config_bool(cli->config, "json"),
                                         .live = live && !config_bool(cli->config, "json") &&
                                                 isatty(STDOUT_FILENO) } };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;
    if (config_is_flag(cli->config, "tenant"))
        return cli_refuse("store stat: --tenant has no effect without a KEY");
    enum status status = store_ask_open(&viewing.ask, cli, false, &err);

    if (status != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    }
    while (code == CLI_EXIT_OK) {
        tenants_ask(&viewing, NULL);
        viewing.ask.left = 1;
        status = store_ask_wait(
            &viewing.ask, yolk_store_stat(viewing.ask.store, STORE_ASK_MS, on_stats, &viewing));
        if (status != STATUS_OK)
            code = store_ask_refuse(&viewing.ask, live ? "top" : "stat", status);
        if (!viewing.view.live) break;
        store_ask_pause(&viewing.ask, ENV_NS_PER_S);
    }
    store_ask_close(&viewing.ask);
    free(viewing.tenants);
    return code;
}

/* ---- quota ---- */

static int quota_ask(struct cli *cli, const struct yolk_store_tenant *set, const char *name)
{
    struct viewing viewing = { 0 };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (store_ask_open(&viewing.ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        tenants_ask(&viewing, set);
        if (viewing.ask.status == STATUS_INVALID)
            code = cli_refuse("quota: %.80s is not the name of a tenant", name);
        else if (viewing.ask.status != STATUS_OK)
            code = viewing.ask.status == STATUS_BUSY
                       ? cli_refuse("quota: tenant %.80s has values, and the master takes those of "
                                    "such as have a quota only",
                                    name)
                       : store_ask_refuse(&viewing.ask, "quota", viewing.ask.status);
        else if (set == NULL)
            store_view_tenants(viewing.tenants, viewing.tenants_count, name,
                               config_bool(cli->config, "json"));
    }
    store_ask_close(&viewing.ask);
    free(viewing.tenants);
    return code;
}

static int store_quota(struct cli *cli)
{
    const uint32_t positions = config_positions(cli->config);
    struct yolk_store_tenant set = { .quota_bytes = 0 };
    struct errmsg err = { "" };

    if (positions > 3) return cli_refuse("store quota: [TENANT [SIZE[/COUNT] | none]]");
    const char *name = positions > 1 ? config_position(cli->config, 1) : NULL;
    if (positions < 3) return quota_ask(cli, NULL, name);
    if (name[0] == '\0' || strlen(name) >= sizeof(set.name))
        return cli_refuse("quota: %.80s is not the name of a tenant", name);
    memcpy(set.name, name, strlen(name));
    if (quotas_parse_one(config_position(cli->config, 2), &set, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    return quota_ask(cli, &set, name);
}

/* ---- replicas, drain ---- */

static int replicas_set(struct cli *cli, const char *name, const struct yolk_store_key *key,
                        uint32_t count)
{
    struct store_ask ask;
    const struct yolk_store_call call = { .replicas = count,
                                          .on_item = store_ask_item,
                                          .ctx = &ask };
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (store_ask_open(&ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        ask.left = 1;
        const enum status status =
            store_ask_wait(&ask, yolk_store_replicas(ask.store, key, 1, &call));
        if (status != STATUS_OK) code = store_ask_refuse(&ask, name, status);
    }
    store_ask_close(&ask);
    return code;
}

static int store_replicas(struct cli *cli)
{
    struct yolk_store_key key = { NULL, 0 };
    struct errmsg err = { "" };

    if (config_positions(cli->config) != 3) return cli_refuse("store replicas: KEY N");
    const char *name = config_position(cli->config, 1);
    const char *number = config_position(cli->config, 2);
    if (number[0] < '1' || number[0] > '0' + YOLK_STORE_REPLICAS_MAX || number[1] != '\0') {
        return cli_refuse("store replicas: %.20s is not a number from 1 to %d", number,
                          YOLK_STORE_REPLICAS_MAX);
    }
    if (store_ask_key(name, &key, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    const int code = replicas_set(cli, name, &key, (uint32_t)(number[0] - '0'));
    store_ask_key_free(&key);
    return code;
}

static void on_left(void *ctx, enum status status, uint64_t left)
{
    struct store_ask *ask = ctx;
    ask->left--;
    ask->status = status;
    ask->size = left;
}

/* One node drains, or does not any more; adds what is left there. */
static int drain_one(struct store_ask *ask, const char *node, bool undo, uint64_t *left)
{
    ask->left = 1;
    const enum status status =
        store_ask_wait(ask, yolk_store_drain(ask->store, node, undo, STORE_ASK_MS, on_left, ask));
    if (status == STATUS_NOT_FOUND)
        return cli_refuse("drain: there is no node `%.64s` (store top lists them)", node);
    if (status != STATUS_OK) return store_ask_refuse(ask, "drain", status);
    *left += ask->size;
    return CLI_EXIT_OK;
}

/* Every node is told before anything is waited for, so that hardly anything goes from one of them
 * to another. Asks again and again, until nothing is left. */
static int store_drain(struct cli *cli)
{
    const bool undo = config_bool(cli->config, "undo");
    const uint32_t positions = config_positions(cli->config);
    struct store_ask ask;
    struct errmsg err = { "" };
    uint64_t told = UINT64_MAX;
    uint64_t left = UINT64_MAX;
    int code = CLI_EXIT_OK;

    if (positions < 2) return cli_refuse("store drain: NODE... [--undo]");
    if (store_ask_open(&ask, cli, false, &err) != STATUS_OK) code = cli_refuse("%s", err.text);
    while (code == CLI_EXIT_OK && left > 0) {
        if (told != UINT64_MAX) store_ask_pause(&ask, ENV_NS_PER_S / 4);
        left = 0;
        for (uint32_t i = 1; i < positions && code == CLI_EXIT_OK; i++)
            code = drain_one(&ask, config_position(cli->config, i), undo, &left);
        if (undo || code != CLI_EXIT_OK) break;
        if (left != told) printf("%llu values left\n", (unsigned long long)left);
        fflush(stdout);
        told = left;
    }
    store_ask_close(&ask);
    return code;
}

int cmd_store(struct cli *cli)
{
    const char *what = config_position(cli->config, 0);
    const uint32_t positions = config_positions(cli->config);

    if (strcmp(what, "put") == 0) return store_put(cli);
    if (strcmp(what, "get") == 0) return store_get(cli);
    if (strcmp(what, "ls") == 0) return store_ls(cli);
    if (strcmp(what, "rm") == 0) return store_rm(cli);
    if (strcmp(what, "stat") == 0 && positions == 2) {
        return stat_key(cli, config_position(cli->config, 1));
    }
    if (strcmp(what, "stat") == 0 && positions == 1) return stat_pool(cli, false);
    if (strcmp(what, "top") == 0 && positions == 1) return stat_pool(cli, true);
    if (strcmp(what, "replicas") == 0) return store_replicas(cli);
    if (strcmp(what, "copy") == 0) return store_copy(cli);
    if (strcmp(what, "move") == 0) return store_move(cli);
    if (strcmp(what, "task") == 0) return store_task(cli);
    if (strcmp(what, "drain") == 0) return store_drain(cli);
    if (strcmp(what, "quota") == 0) return store_quota(cli);
    return cli_refuse(
        "store what? put KEY [FILE], get KEY, ls [PREFIX], stat [KEY], rm KEY..., "
        "top, replicas KEY N, copy KEY --to NODE, move KEY --to NODE, task TASK, drain NODE..., "
        "quota [TENANT [SIZE]]");
}
