/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_engine.c - the engine beside llama.cpp: same machine, same threads, same model, one
 * run.
 *
 * llama.cpp is measured by bench/peers/llama_cpp.py when that file is here and --peer-python has
 * the binding; otherwise the rows have no baseline. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/report.h"
#include "infer/bench.h"
#include "model/model.h"

static const char peer_script[] = "bench/peers/llama_cpp.py";
static const char second_model[] = "gemma3";

static unsigned cpus_here(void)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
}

struct peer {
    struct env *env;
    struct env_exit how;
};

static void on_peer_exit(void *ctx, struct env_exit how)
{
    struct peer *peer = ctx;
    peer->how = how;
    env_stop(peer->env);
}

/* Runs the peer; its lines of "row rate", or NULL when it is not there. The caller frees them. */
static char *measure_peer(struct cli *cli, const char *model, unsigned threads)
{
    struct peer peer = { cli->env, { -1, 0 } };
    struct env_process *process = NULL;
    const char *python = config_text(cli->config, "peer-python");
    char threads_text[16], result[CLI_PATH_SIZE];
    char *text = NULL;
    size_t len = 0;

    if (cli_cache_path("peer-llama-cpp.txt", result, NULL) != STATUS_OK) return NULL;
    snprintf(threads_text, sizeof(threads_text), "%u", threads);
    const enum status removed = env_file_remove(cli->env, result); /* of an earlier run */
    if (removed != STATUS_OK && removed != STATUS_NOT_FOUND) return NULL;
    const char *argv[] = { "sh",  "-c",         "exec \"$@\" >/dev/null 2>&1",
                           "sh",  python,       peer_script,
                           model, threads_text, result,
                           NULL };
    if (env_process_spawn(cli->env, argv, on_peer_exit, &peer, &process, NULL) != STATUS_OK)
        return NULL;
    env_run(cli->env);
    if (peer.how.code != 0 ||
        env_file_read_all(cli->env, result, 4096, &text, &len, NULL) != STATUS_OK)
        return NULL;
    return text;
}

/* 0 if the peer has no such row. */
static double peer_rate(const char *lines, const char *name)
{
    const size_t len = strlen(name);
    for (const char *line = lines; line != NULL && *line != '\0';) {
        if (strncmp(line, name, len) == 0 && line[len] == ' ') return strtod(line + len, NULL);
        line = strchr(line, '\n');
        if (line != NULL) line++;
    }
    return 0;
}

/* What of llama.cpp's rate is asked of each row, in the order of the rows. */
static const double targets[ENGINE_BENCH_ROWS] = { 0.8, 0.8, 0.95, 1.0 };

/* The same with KV of type Q8_0, beside what it is with halves; where the heads divide. */
static enum status measure_quantized_kv(struct cli *cli, const struct model *model,
                                        const struct engine_bench_options *options,
                                        const struct engine_bench_row *halves,
                                        struct report *report, struct errmsg *err)
{
    struct engine_bench_options own = *options;
    struct engine_bench_row rows[ENGINE_BENCH_ROWS];
    char name[64];

    own.kv = ENGINE_KV_Q8_0;
    const enum status status = engine_bench(cli->env, model, &own, rows, err);
    if (status == STATUS_UNSUPPORTED) return STATUS_OK;
    if (status != STATUS_OK) return status;
    for (int i = 0; i < ENGINE_BENCH_ROWS; i++) {
        snprintf(name, sizeof(name), "kv_q8_0_%s", rows[i].name);
        struct report_row *row = report_add(report, name, rows[i].tokens_per_second, rows[i].unit);
        row->baseline = halves[i].tokens_per_second;
    }
    return STATUS_OK;
}

static enum status measure_model(struct cli *cli, const char *name, const char *prefix,
                                 struct report *report, struct errmsg *err)
{
    const struct config *config = cli->config;
    const unsigned asked = (unsigned)config_u64(config, "threads");
    const struct engine_bench_options options = {
        .threads = asked != 0 ? asked : cpus_here(),
        .runs = BENCH_RUNS,
        .isa = (enum engine_isa)config_choice(config, "isa"),
    };
    struct engine_bench_row rows[ENGINE_BENCH_ROWS];
    struct model *model = NULL;
    char path[CLI_PATH_SIZE], row_name[64];

    enum status status = cli_model_path(cli->env, name, path, err);
    if (status == STATUS_OK) status = model_open(cli->env, path, &model, err);
    if (status == STATUS_OK) status = engine_bench(cli->env, model, &options, rows, err);
    if (status != STATUS_OK) goto out;
    char *peer = measure_peer(cli, path, options.threads);
    for (int i = 0; i < ENGINE_BENCH_ROWS; i++) {
        snprintf(row_name, sizeof(row_name), "%s%s", prefix, rows[i].name);
        struct report_row *row =
            report_add(report, row_name, rows[i].tokens_per_second, rows[i].unit);
        const double rate = peer_rate(peer, rows[i].name);
        if (rate <= 0) continue;
        row->baseline = rate;
        row->kind = REPORT_AT_LEAST;
        row->target = targets[i];
    }
    free(peer);
    if (prefix[0] == '\0') status = measure_quantized_kv(cli, model, &options, rows, report, err);
out:
    model_destroy(model);
    return status;
}

/* Whoever names no model gets the two that `yolk model fetch` knows; the larger one only where it
 * has been fetched. */
enum status bench_engine(struct cli *cli, struct report *report, struct errmsg *err)
{
    const char *name = config_text(cli->config, "model");
    char path[CLI_PATH_SIZE];

    const enum status status = measure_model(cli, name, "", report, err);
    if (status != STATUS_OK || config_is_set(cli->config, "model")) return status;
    if (cli_model_path(cli->env, second_model, path, NULL) == STATUS_OK)
        return measure_model(cli, second_model, "gemma3_", report, err);
    struct report_row *row = report_add(report, "gemma3", 0, "tokens/s");
    snprintf(row->skipped, sizeof(row->skipped), "not here: yolk model fetch %s", second_model);
    return STATUS_OK;
}
