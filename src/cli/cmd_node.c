/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/disk_keys.h"
#include "infer/timed.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "serve/worker.h"
#include "store/layout.h"
#include "store/ssd_seal.h"

enum { NAME_SIZE = PROTO_NAME_SIZE };

struct node {
    struct cli *cli;
    struct worker *worker;
    struct timed_options timed;
    struct ssd_keys disk_keys;
    struct env_timer patience; /* while it drains */
    bool drains;
    int exit_code;
};

static bool is_end(const void *ctx, uint32_t token)
{
    return tokenizer_is_end(ctx, token);
}

static void on_ready(void *ctx, enum status status, const char *error)
{
    struct node *node = ctx;
    if (status == STATUS_OK) {
        LOG_INFO("cli", "node_ready", "address=%s", worker_address(node->worker));
        return;
    }
    node->exit_code = cli_refuse("%s", error);
    env_stop(node->cli->env);
}

/* ---- the end ---- */

static void on_drained(void *ctx)
{
    struct node *node = ctx;
    env_stop(node->cli->env);
}

static void on_patience(void *ctx)
{
    struct node *node = ctx;
    LOG_WARN("cli", "drain_timeout", "text=%s", "what is left goes on elsewhere");
    env_stop(node->cli->env);
}

/* The first signal lets what is under way end or move, the second does not. */
static void on_stop(void *ctx)
{
    struct node *node = ctx;
    struct env *env = node->cli->env;
    const uint64_t now_ns = env_now_ns(env);

    if (node->drains) {
        env_stop(env);
        return;
    }
    node->drains = true;
    env_timer_set(env, &node->patience, now_ns + config_u64(node->cli->config, "drain-timeout"));
    worker_drain(node->worker, on_drained, node);
}

static void node_name(const struct cli *cli, char out[NAME_SIZE])
{
    const char *given = config_text(cli->config, "name");
    uint32_t chance;

    env_random(cli->env, &chance, sizeof(chance));
    if (given[0] != '\0')
        snprintf(out, NAME_SIZE, "%s", given);
    else
        snprintf(out, NAME_SIZE, "%s-%08x", config_text(cli->config, "role"), chance);
}

/* ---- the disk ---- */

struct files {
    struct env *env;
    const char *directory;
    uint64_t size;
};

static void on_file(void *ctx, const char *name)
{
    struct files *files = ctx;
    char path[CLI_PATH_SIZE];
    struct env_file *file;
    uint64_t size = 0;

    if (snprintf(path, sizeof(path), "%s/%s", files->directory, name) >= (int)sizeof(path)) return;
    if (env_file_open(files->env, path, ENV_FILE_READ, &file, NULL) != STATUS_OK) return;
    if (env_file_size(file, &size) == STATUS_OK) files->size += size;
    env_file_close(file);
}

/* What the option says, but never more than what we have there already and half of what is free. */
static enum status disk_size(struct cli *cli, const char *option, const char *directory,
                             uint64_t *out, struct errmsg *err)
{
    struct files files = { .env = cli->env, .directory = directory };
    const uint64_t asked = config_u64(cli->config, option);
    uint64_t room = 0;

    enum status status = env_make_dirs(cli->env, directory, err);
    if (status == STATUS_OK) status = env_dir_list(cli->env, directory, on_file, &files, err);
    if (status != STATUS_OK) return status;
    if (env_disk_free(cli->env, directory, &room) != STATUS_OK) room = asked;
    const uint64_t most = files.size + room / 2;
    *out = asked < most ? asked : most;
    if (*out < asked) {
        LOG_WARN("cli", "ssd_size_reduced", "option=%s asked=%llu bytes=%llu directory=%s", option,
                 (unsigned long long)asked, (unsigned long long)*out, directory);
    }
    return STATUS_OK;
}

static enum status disk_sizes(struct cli *cli, struct worker_options *options, struct errmsg *err)
{
    char values[CLI_PATH_SIZE];
    enum status status = disk_size(cli, "ssd-size", options->data_dir, &options->disk_size, err);

    if (status != STATUS_OK || config_u64(cli->config, "values-ssd-size") == 0) return status;
    if (snprintf(values, sizeof(values), "%s/values", options->data_dir) >= (int)sizeof(values)) {
        return errmsg_set(err, STATUS_INVALID, "--data-dir: too long");
    }
    return disk_size(cli, "values-ssd-size", values, &options->values_disk_size, err);
}

/* What a modelled engine leaves in its pages is no KV. */
static bool wants_disk(const struct cli *cli)
{
    const struct config *config = cli->config;
    const uint64_t wanted = config_u64(config, "ssd-size") + config_u64(config, "values-ssd-size");
    return config_text(config, "data-dir")[0] != '\0' && wanted > 0 &&
           config_bool(config, "pool") && !cli_engine_is_timed(cli);
}

/* What is lent is whole pages. */
static uint64_t pages_of(uint64_t size)
{
    return size / STORE_PAGE_ALIGN * STORE_PAGE_ALIGN;
}

static enum status open_worker(struct node *node, const struct model *model,
                               const struct tokenizer *tokenizer, struct errmsg *err)
{
    const struct config *config = node->cli->config;
    const char *listen = config_text(config, "listen");
    char name[NAME_SIZE];
    struct worker_options options = {
        .name = name,
        .listen = listen[0] != '\0' ? listen : NULL,
        .transfer = config_text(config, "transfer-listen"),
        .protocol = config_text(config, "transfer-protocol"),
        .rails = config_text(config, "transfer-rails"),
        .topology = config_text(config, "transfer-topology"),
        .encrypt = config_bool(config, "transfer-encrypt"),
        .metadata = config_text(config, "transfer-metadata"),
        .master = config_text(config, "master"),
        .secret = config_text(config, "secret"),
        .model = model,
        .pool_size = config_u64(config, "pool-size"),
        .pool_populate = config_bool(config, "pool-populate"),
        .object_size = pages_of(config_u64(config, "values-size")),
        .handover_ms = config_u64(config, "handover-timeout") / ENV_NS_PER_MS,
        .threads = (uint32_t)config_u64(config, "threads"),
        .block_tokens = (uint32_t)config_u64(config, "block-tokens"),
        .context_max = (uint32_t)config_u64(config, "max-model-len"),
        .isa = (enum engine_isa)config_choice(config, "isa"),
        .kv = (enum engine_kv)config_choice(config, "kv-type"),
        .no_reuse = !config_bool(config, "pool"),
        .is_end = is_end,
        .is_end_ctx = tokenizer,
        .tokenizer = tokenizer,
        .on_ready = on_ready,
        .ctx = node,
    };

    node_name(node->cli, name);
    enum status status = proto_role_parse(config_text(config, "role"), &options.role);
    if (status != STATUS_OK) return errmsg_set(err, status, "--role");
    if (cli_engine_is_timed(node->cli)) {
        status = cli_timed_options(node->cli, tokenizer, &node->timed, err);
        if (status != STATUS_OK) return status;
        options.timed = &node->timed;
    }
    if (wants_disk(node->cli)) {
        options.data_dir = config_text(config, "data-dir");
        status = disk_sizes(node->cli, &options, err);
        if (status == STATUS_OK) status = disk_keys_load(node->cli, &node->disk_keys, err);
        if (status != STATUS_OK) return status;
        if (node->disk_keys.count > 0) options.disk_keys = &node->disk_keys;
        status = disk_packing_load(node->cli, &options.disk_pack_level, err);
        if (status != STATUS_OK) return status;
    }
    return worker_create(node->cli->env, &options, &node->worker, err);
}

int cmd_node(struct cli *cli)
{
    struct node node = { .cli = cli, .exit_code = CLI_EXIT_OK };
    struct model *model = NULL;
    struct tokenizer *tokenizer = NULL;
    char path[CLI_PATH_SIZE];
    struct errmsg err = { "out of memory" };

    env_timer_init(&node.patience, on_patience, &node);
    struct cli_reload reload = { .cli = cli };

    cli_hold_signals(cli);
    env_real_raise_files();
    cli_reload_on_hang_up(&reload);
    enum status status = cli_bind_cpus(config_text(cli->config, "cpus"), &err);
    if (status == STATUS_OK) status = cli_cluster_tls(cli, &err);
    if (status == STATUS_OK)
        status = cli_model_path(cli->env, config_position(cli->config, 0), path, &err);
    if (status == STATUS_OK) status = model_open(cli->env, path, &model, &err);
    if (status == STATUS_OK) status = tokenizer_create(model_gguf(model), &tokenizer, &err);
    if (status == STATUS_OK) status = open_worker(&node, model, tokenizer, &err);
    if (status == STATUS_OK) {
        cli_set_poll(cli);
        cli_run_until_signal(cli, on_stop, &node);
    } else
        node.exit_code = cli_refuse("%s", err.text);
    env_timer_cancel(cli->env, &node.patience);
    worker_destroy(node.worker);
    env_poll(cli->env, 0);
    cli_cluster_tls_end(cli);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    return node.exit_code;
}
