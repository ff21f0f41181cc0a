/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_sim.c - replays a trace on a simulated cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "sim/cluster.h"
#include "sim/sim.h"

enum { SIM_OUT_SIZE_MAX = 256 << 20 };

static enum status read_cluster(struct cli *cli, struct sim_cluster *out, struct errmsg *err)
{
    const char *path = config_text(cli->config, "cluster");
    char *text = NULL;
    size_t len = 0;

    if (path[0] == '\0') return STATUS_OK;
    enum status status = env_file_read_all(cli->env, path, CLUSTER_FILE_SIZE_MAX, &text, &len, err);
    if (status == STATUS_OK) status = cluster_parse(path, text, len, out, err);
    free(text);
    return status;
}

/* "name=value", where the flag was given. */
static enum status apply_flag(struct cli *cli, const char *flag, struct sim_cluster *out,
                              struct errmsg *err)
{
    char setting[128];

    if (!config_is_set(cli->config, flag)) return STATUS_OK;
    snprintf(setting, sizeof(setting), "%s=%s", flag, config_text(cli->config, flag));
    return cluster_set(out, setting, err);
}

/* The file first, then flags, then --set. The policy of a coupled system is round robin unless
 * somebody says otherwise. */
static enum status build_cluster(struct cli *cli, struct sim_cluster *out, struct errmsg *err)
{
    const struct config *config = cli->config;

    cluster_init(out);
    enum status status = read_cluster(cli, out, err);
    if (status == STATUS_OK) status = apply_flag(cli, "system", out, err);
    if (out->system != CLUSTER_MOONCAKE && out->policy == CLUSTER_GLOBAL)
        out->policy = CLUSTER_ROUND_ROBIN;
    if (status == STATUS_OK) status = apply_flag(cli, "policy", out, err);
    if (status == STATUS_OK && config_is_set(config, "nodes"))
        status = cluster_set_nodes(out, config_text(config, "nodes"), err);
    if (status == STATUS_OK) status = cluster_set(out, config_text(config, "set"), err);
    return status;
}

static void show_progress(void *ctx, uint32_t finished, uint32_t count)
{
    (void)ctx;
    fprintf(stderr, "\r%3.0f%%  %u of %u requests", 100.0 * finished / count, finished, count);
}

static enum status print_result(struct cli *cli, const struct sim_result *result)
{
    struct sim_summary summary;
    struct buf text;

    buf_init(&text, SIM_OUT_SIZE_MAX);
    enum status status = sim_summarize(result, &summary);
    if (status == STATUS_OK && config_bool(cli->config, "json"))
        status = sim_write_json(result, &summary, config_bool(cli->config, "series"), &text);
    else if (status == STATUS_OK)
        status = sim_write_text(result, &summary, &text);
    if (status == STATUS_OK) fwrite(buf_data(&text), 1, text.len, stdout);
    buf_fini(&text);
    return status;
}

static int print_settings(void)
{
    struct buf text;

    buf_init(&text, SIM_OUT_SIZE_MAX);
    if (cluster_help(&text) == STATUS_OK) fwrite(buf_data(&text), 1, text.len, stdout);
    buf_fini(&text);
    return CLI_EXIT_OK;
}

int cmd_sim(struct cli *cli)
{
    const char *path = config_text(cli->config, "trace");
    struct sim_cluster cluster;
    struct trace *trace = NULL;
    struct sim_result *result = NULL;
    struct errmsg err = { "not enough memory" };
    const bool watched = isatty(STDERR_FILENO) == 1;

    if (config_bool(cli->config, "settings")) return print_settings();
    if (path[0] == '\0') return cli_refuse("sim: --trace FILE says what to replay");
    enum status status = build_cluster(cli, &cluster, &err);
    if (status == STATUS_OK) status = cli_trace_read(cli, path, &trace, &err);
    const struct sim_progress progress = { watched ? show_progress : NULL, NULL };
    if (status == STATUS_OK) status = sim_run(&cluster, trace, progress, &result, &err);
    if (watched) fputs("\r\033[K", stderr);
    if (status == STATUS_OK) status = print_result(cli, result);
    sim_result_destroy(result);
    trace_destroy(trace);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("sim: %s", err.text);
}
