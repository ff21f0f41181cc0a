/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/store_layers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/env.h"
#include "cli/cli.h"
#include "cli/store_ask.h"
#include "yolk/store_session.h"
#include "yolk/transfer.h"

struct layers {
    struct store_ask ask;
    const char *name;
    const struct yolk_store_key *key;
    uint64_t count;
    uint64_t size;   /* of the value */
    uint8_t *memory; /* registered: put: the value, get: a layer */
};

/* Where layer i begins; i may be `count`. */
static uint64_t layer_at(const struct layers *layers, uint64_t i)
{
    return layers->size / layers->count * i + layers->size % layers->count * i / layers->count;
}

static enum status memory_alloc(struct layers *layers, uint64_t size, unsigned access,
                                struct errmsg *err)
{
    void *memory = NULL;
    const enum status status =
        yolk_transfer_alloc(layers->ask.transfer, size, access, &memory, err);
    layers->memory = memory;
    return status;
}

/* More layers than bytes would be empty ones. */
static bool layers_fit(const struct layers *layers)
{
    return layers->size >= layers->count;
}

/* ---- standard input ---- */

/* What has come of the value. A pipe is waited for in the loop, which keeps connections alive
 * meanwhile; a file cannot be watched, and need not be. */
struct input {
    uint8_t *bytes;
    uint64_t size; /* that are wanted */
    uint64_t got;
    bool ended; /* no more will come */
    struct env_watch *watch;
};

static void input_close(struct input *input)
{
    env_watch_close(input->watch);
    input->watch = NULL;
}

static void input_take(void *ctx)
{
    struct input *input = ctx;
    const ssize_t n = read(STDIN_FILENO, input->bytes + input->got, input->size - input->got);

    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n > 0) input->got += (uint64_t)n;
    input->ended = n <= 0;
    if (input->ended || input->got == input->size) input_close(input);
}

/* False: it ended before `upto` bytes had come. */
static bool input_wait(struct env *env, struct input *input, uint64_t upto)
{
    while (input->got < upto && !input->ended) {
        if (input->watch == NULL)
            input_take(input);
        else
            (void)env_poll(env, ENV_NS_PER_S);
    }
    return input->got >= upto;
}

/* A layer, which is at `data` or to come there. */
static struct yolk_store_part layer_part(const struct layers *layers, uint64_t i, uint8_t *data)
{
    const uint64_t from = layer_at(layers, i);
    return (struct yolk_store_part){ .data = data,
                                     .size = layer_at(layers, i + 1) - from,
                                     .offset = from };
}

/* ---- put ---- */

static struct yolk_store_call item_call(struct layers *layers)
{
    return (struct yolk_store_call){ .on_item = store_ask_item, .ctx = &layers->ask };
}

static enum status put_start(struct layers *layers)
{
    const struct yolk_store_value value = { .key = *layers->key, .size = layers->size };
    const struct yolk_store_call call = store_ask_put_call(&layers->ask);
    struct yolk_store *store = layers->ask.store;

    layers->ask.left = 1;
    return store_ask_wait(&layers->ask, yolk_store_put_session_start(store, &value, 1, &call));
}

static enum status put_layer(struct layers *layers, uint64_t i)
{
    const struct yolk_store_part part = layer_part(layers, i, layers->memory + layer_at(layers, i));
    const struct yolk_store_parts item = { *layers->key, &part, 1 };
    const struct yolk_store_call call = item_call(layers);
    struct yolk_store *store = layers->ask.store;

    layers->ask.left = 1;
    return store_ask_wait(&layers->ask, yolk_store_put_session_write(store, &item, 1, &call));
}

typedef enum status (*keys_fn)(struct yolk_store *store, const struct yolk_store_key *keys,
                               uint32_t count, const struct yolk_store_call *call);

static enum status session_key(struct layers *layers, keys_fn fn)
{
    const struct yolk_store_call call = item_call(layers);
    layers->ask.left = 1;
    return store_ask_wait(&layers->ask, fn(layers->ask.store, layers->key, 1, &call));
}

static int put_refuse(const struct layers *layers, enum status status)
{
    if (status == STATUS_NOT_FOUND || status == STATUS_STALE)
        return cli_refuse("%s: too late: a value has 30 s from its first layer to its last",
                          layers->name);
    return store_ask_refuse(&layers->ask, layers->name, status);
}

static int put_layers(struct layers *layers, struct input *input)
{
    enum status status = put_start(layers);

    if (status != STATUS_OK) return store_ask_refuse(&layers->ask, layers->name, status);
    for (uint64_t i = 0; status == STATUS_OK && i < layers->count; i++) {
        if (!input_wait(layers->ask.cli->env, input, layer_at(layers, i + 1))) {
            (void)session_key(layers, yolk_store_put_session_revoke);
            return cli_refuse("%s: standard input ended after %" PRIu64 " of %" PRIu64
                              " bytes; nothing was put",
                              layers->name, input->got, layers->size);
        }
        status = put_layer(layers, i);
        if (status != STATUS_OK) break;
        printf("layer %" PRIu64 " of %" PRIu64 "\n", i + 1, layers->count);
        fflush(stdout);
    }
    if (status == STATUS_OK) status = session_key(layers, yolk_store_put_session_end);
    if (status == STATUS_OK) return CLI_EXIT_OK;
    const int code = put_refuse(layers, status);
    (void)session_key(layers, yolk_store_put_session_revoke);
    return code;
}

int store_layers_put(struct cli *cli, const char *name, const struct yolk_store_key *key)
{
    struct layers layers = { .name = name,
                             .key = key,
                             .count = config_u64(cli->config, "layers"),
                             .size = config_u64(cli->config, "size") };
    struct input input = { .size = layers.size };
    struct errmsg err = { "" };
    int code;

    if (layers.size == 0) {
        return cli_refuse("store put: --layers needs --size, of the whole value that comes through "
                          "standard input");
    }
    if (!layers_fit(&layers)) return cli_refuse("%s: fewer bytes than --layers", name);
    enum status status = store_ask_open(&layers.ask, cli, true, &err);
    if (status == STATUS_OK)
        status = memory_alloc(&layers, layers.size, YOLK_TRANSFER_REMOTE_READ, &err);
    if (status == STATUS_OK) {
        input.bytes = layers.memory;
        if (env_watch_open(cli->env, STDIN_FILENO, input_take, &input, &input.watch) != STATUS_OK)
            input.watch = NULL;
        code = put_layers(&layers, &input);
    } else {
        code = cli_refuse("%s", err.text);
    }
    input_close(&input);
    store_ask_close(&layers.ask);
    return code;
}

/* ---- get ---- */

static enum status get_layer(struct layers *layers, uint64_t i, uint64_t *size)
{
    const struct yolk_store_part part = layer_part(layers, i, layers->memory);
    const struct yolk_store_parts item = { *layers->key, &part, 1 };
    const struct yolk_store_call call = item_call(layers);
    struct yolk_store *store = layers->ask.store;

    *size = part.size;
    layers->ask.left = 1;
    return store_ask_wait(&layers->ask, yolk_store_get_session_read(store, &item, 1, &call));
}

static int get_refuse(const struct layers *layers, enum status status)
{
    if (status == STATUS_STALE)
        return cli_refuse("%s: replaced or evicted while nobody took its layers", layers->name);
    return store_ask_refuse(&layers->ask, layers->name, status);
}

static int get_layers(struct layers *layers)
{
    struct errmsg err = { "" };
    uint64_t size;
    enum status status = session_key(layers, yolk_store_get_session_start);

    if (status != STATUS_OK) return get_refuse(layers, status);
    layers->size = layers->ask.size;
    if (!layers_fit(layers)) {
        return cli_refuse("%s: has %" PRIu64 " bytes, fewer than --layers", layers->name,
                          layers->size);
    }
    const uint64_t largest = layers->size / layers->count + 1;
    if (memory_alloc(layers, largest, YOLK_TRANSFER_REMOTE_WRITE, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    for (uint64_t i = 0; i < layers->count; i++) {
        status = get_layer(layers, i, &size);
        if (status != STATUS_OK) return get_refuse(layers, status);
        if (fwrite(layers->memory, 1, size, stdout) != size || fflush(stdout) != 0)
            return cli_refuse("standard output is closed");
    }
    status = session_key(layers, yolk_store_get_session_end);
    return status == STATUS_OK ? CLI_EXIT_OK : get_refuse(layers, status);
}

int store_layers_get(struct cli *cli, const char *name, const struct yolk_store_key *key)
{
    struct layers layers = { .name = name, .key = key, .count = config_u64(cli->config, "layers") };
    struct errmsg err = { "" };

    const enum status status = store_ask_open(&layers.ask, cli, true, &err);
    const int code = status == STATUS_OK ? get_layers(&layers) : cli_refuse("%s", err.text);
    store_ask_close(&layers.ask);
    return code;
}
