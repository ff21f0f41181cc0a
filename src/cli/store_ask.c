/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/store_ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "cli/cli.h"
#include "cli/store_view.h"
#include "yolk/transfer.h"

/* ---- asking and waiting ---- */

enum status store_ask_open(struct store_ask *ask, struct cli *cli, bool moves_data,
                           struct errmsg *err)
{
    const struct config *config = cli->config;
    const char *listen = config_text(config, "transfer-listen");
    const struct yolk_transfer_options transfer = {
        .listen = listen[0] != '\0' ? listen : "127.0.0.1:0",
        .secret = config_text(config, "secret"),
    };
    struct yolk_store_options options = {
        .env = cli->env,
        .master = config_text(config, "master"),
        .secret = config_text(config, "secret"),
        .timeout_ms = STORE_ASK_MS,
        .tenant = config_text(config, "tenant"),
    };
    enum status status = STATUS_OK;

    *ask = (struct store_ask){ .cli = cli, .master = options.master };
    status = cli_cluster_tls(cli, err);
    if (status == STATUS_OK && moves_data) {
        status = yolk_transfer_create(cli->env, &transfer, &ask->transfer, err);
    }
    options.transfer = ask->transfer;
    if (status == STATUS_OK) status = yolk_store_create(&options, &ask->store, err);
    return status;
}

void store_ask_close(struct store_ask *ask)
{
    yolk_store_destroy(ask->store);
    yolk_transfer_destroy(ask->transfer);
    cli_cluster_tls_end(ask->cli);
}

enum status store_ask_wait(struct store_ask *ask, enum status asked)
{
    if (asked != STATUS_OK) return asked;
    while (ask->left > 0)
        (void)env_poll(ask->cli->env, ENV_NS_PER_S);
    return ask->status;
}

static void on_pause_over(void *ctx)
{
    struct store_ask *ask = ctx;
    ask->left--;
}

void store_ask_pause(struct store_ask *ask, uint64_t ns)
{
    struct env *env = ask->cli->env;
    struct env_timer timer;

    env_timer_init(&timer, on_pause_over, ask);
    ask->left = 1;
    env_timer_set(env, &timer, env_now_ns(env) + ns);
    (void)store_ask_wait(ask, STATUS_OK);
}

struct yolk_store_call store_ask_put_call(struct store_ask *ask)
{
    const struct config *config = ask->cli->config;
    const uint32_t soft_pin_ms = (uint32_t)(config_u64(config, "soft-pin") / ENV_NS_PER_MS);
    return (struct yolk_store_call){
        .replace = config_bool(config, "replace"),
        .hard_pin = config_bool(config, "pin"),
        .replicas = (uint32_t)config_u64(config, "replicas"),
        .soft_pin_ms = soft_pin_ms,
        .soft_pin_off = config_is_flag(config, "soft-pin") && soft_pin_ms == 0,
        .on_item = store_ask_item,
        .ctx = ask,
    };
}

void store_ask_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct store_ask *ask = ctx;
    (void)index;
    ask->left--;
    ask->status = status;
    ask->size = size;
}

int store_ask_refuse(const struct store_ask *ask, const char *what, enum status status)
{
    if (ask->message[0] != '\0') return cli_refuse("%s: %s", what, ask->message);
    switch ((int)status) {
    case STATUS_NOT_FOUND: return cli_refuse("%s: there is no such key", what);
    case STATUS_EXISTS:
        return cli_refuse("%s: has a value already, which stays (put: --replace)", what);
    case STATUS_BUSY:
        return cli_refuse("%s: being written, or leased by a reader (rm: --force)", what);
    case STATUS_FULL: return cli_refuse("%s: no room, even by evicting", what);
    case STATUS_QUOTA:
        return cli_refuse("%s: over the quota of tenant %s, even by evicting what is its own", what,
                          config_text(ask->cli->config, "tenant"));
    case STATUS_DENIED:
        return cli_refuse("%s: tenant %s has no quota, and the master takes values of such as have "
                          "one",
                          what, config_text(ask->cli->config, "tenant"));
    case STATUS_CORRUPT: return cli_refuse("%s: every replica's bytes are wrong", what);
    case STATUS_AGAIN:
        return cli_refuse("%s: the master has just started and does not know yet", what);
    case STATUS_UNAVAILABLE:
        return cli_refuse("%s: no node that could be reached lends memory for values "
                          "(yolk node --values-size)",
                          what);
    case STATUS_TIMEOUT:
    case STATUS_CONN_CLOSED:
    case STATUS_CONN_REFUSED:
        return cli_refuse("%s: no answer from the master at %s: is it up, and --secret right?",
                          what, ask->master);
    default: return cli_refuse("%s: %s", what, status_name(status));
    }
}

/* ---- keys ---- */

enum status store_ask_key(const char *text, struct yolk_store_key *out, struct errmsg *err)
{
    const size_t len = strlen(text);
    uint8_t *bytes = malloc(len + 1);
    size_t n = 0;

    if (bytes == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    if (!store_view_unescape(text, bytes, &n)) {
        free(bytes);
        return errmsg_set(err, STATUS_INVALID, "%.100s: only \\xNN and \\\\ follow a backslash",
                          text);
    }
    if (n == 0 || n > YOLK_STORE_KEY_SIZE_MAX) {
        free(bytes);
        return errmsg_set(err, STATUS_INVALID, "a key has 1 to %d bytes, not %zu",
                          YOLK_STORE_KEY_SIZE_MAX, n);
    }
    *out = (struct yolk_store_key){ bytes, n };
    return STATUS_OK;
}

void store_ask_key_free(struct yolk_store_key *key)
{
    free((void *)(uintptr_t)key->bytes);
}
