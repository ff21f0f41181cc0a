/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_sim.c - replays a trace on a simulated cluster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/sim_report.h"
#include "sim/cluster.h"
#include "sim/sim.h"
#include "sim/study.h"

enum { SIM_OUT_SIZE_MAX = 256 << 20 };

enum status cli_cluster_read(struct cli *cli, struct sim_cluster *out, struct errmsg *err)
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

/* The flag says which kind of nodes is meant, and only those of the system count. */
static enum status check_nodes(const char *nodes, const struct sim_cluster *cluster,
                               struct errmsg *err)
{
    const bool pools = strchr(nodes, '+') != NULL;

    if (pools == (cluster->system == CLUSTER_MOONCAKE)) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--nodes: `%.64s` is not for the system %s: like %s",
                      nodes, cluster_system_name(cluster->system), pools ? "16" : "8P+8D");
}

/* The file first, then flags, then --set. */
static enum status build_cluster(struct cli *cli, struct sim_cluster *out, struct errmsg *err)
{
    const struct config *config = cli->config;

    cluster_init(out);
    enum status status = cli_cluster_read(cli, out, err);
    if (status == STATUS_OK) status = apply_flag(cli, "system", out, err);
    if (out->system != CLUSTER_MOONCAKE && out->policy == CLUSTER_GLOBAL)
        out->policy = cluster_default_policy(out->system);
    if (status == STATUS_OK) status = apply_flag(cli, "policy", out, err);
    if (status == STATUS_OK && config_is_set(config, "nodes"))
        status = cluster_set_nodes(out, config_text(config, "nodes"), err);
    if (status == STATUS_OK) status = cluster_set(out, config_text(config, "set"), err);
    if (status == STATUS_OK && config_is_set(config, "nodes"))
        status = check_nodes(config_text(config, "nodes"), out, err);
    return status;
}

/* The progress of one run, and of many. */
static void show_requests(void *ctx, uint32_t finished, uint32_t count)
{
    progress_show(ctx, finished, count);
}

static void show_runs(void *ctx, double done, uint32_t count)
{
    progress_show(ctx, done, count);
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

/* That nothing of the trace can ever run is a mistake in the sizes, not a result. */
static enum status check_something_fits(const struct sim_result *result, struct errmsg *err)
{
    struct sim_summary summary;
    const enum status status = sim_summarize(result, &summary);

    if (status != STATUS_OK || summary.never_fit < summary.requests) return status;
    return errmsg_set(err, STATUS_INVALID,
                      "none of the %u requests fits into a node: cost.vram_tokens is %g",
                      summary.requests, result->cluster.cost.vram_tokens);
}

/* One run, and its numbers on standard output. */
static enum status run_once(struct cli *cli, const struct sim_cluster *cluster,
                            const struct trace *trace, struct errmsg *err)
{
    struct progress bar;
    struct sim_result *result = NULL;

    progress_begin(&bar, cli->env, "requests");
    enum status status =
        sim_run(cluster, trace, (struct sim_progress){ show_requests, &bar }, &result, err);
    progress_end(&bar);
    if (status == STATUS_OK) status = check_something_fits(result, err);
    if (status == STATUS_OK) status = print_result(cli, result);
    sim_result_destroy(result);
    return status;
}

/* That run and those beside it, as a page; its numbers on standard output all the same. */
static enum status run_report(struct cli *cli, const struct sim_cluster *cluster,
                              const struct trace *trace, struct errmsg *err)
{
    const char *dir = config_text(cli->config, "report");
    const uint32_t threads = (uint32_t)config_u64(cli->config, "threads");
    struct progress bar;
    struct study *study = NULL;

    enum status status = sim_report_prepare(cli, dir, err);
    if (status != STATUS_OK) return status;
    progress_begin(&bar, cli->env, "runs");
    status =
        study_run(cluster, trace, threads, (struct farm_progress){ show_runs, &bar }, &study, err);
    progress_end(&bar);
    if (status == STATUS_OK) status = check_something_fits(study->systems[0], err);
    if (status == STATUS_OK) status = sim_report_write(cli, dir, study, err);
    if (status == STATUS_OK) status = print_result(cli, study->systems[0]);
    study_destroy(study);
    return status;
}

int cmd_sim(struct cli *cli)
{
    const char *path = config_text(cli->config, "trace");
    const bool report = config_text(cli->config, "report")[0] != '\0';
    struct sim_cluster cluster;
    struct trace *trace = NULL;
    struct errmsg err = { "not enough memory" };

    if (config_bool(cli->config, "settings")) return print_settings();
    if (path[0] == '\0') return cli_refuse("sim: --trace FILE says what to replay");
    enum status status = build_cluster(cli, &cluster, &err);
    if (status == STATUS_OK) status = cluster_check(&cluster, &err);
    if (status == STATUS_OK) status = cli_trace_read(cli, path, &trace, &err);
    if (status == STATUS_OK)
        status =
            report ? run_report(cli, &cluster, trace, &err) : run_once(cli, &cluster, trace, &err);
    trace_destroy(trace);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("sim: %s", err.text);
}
