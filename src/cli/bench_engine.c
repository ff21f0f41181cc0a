/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_engine.c - the engine beside llama.cpp: same machine, same threads, same model, one
 * run.
 *
 * llama.cpp is measured by bench/peers/llama_cpp.py when that file is here and a Python that has
 * the binding is named by YOLK_PEER_PYTHON (or is python3); otherwise the rows have no baseline. */
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
    const char *python = getenv("YOLK_PEER_PYTHON");
    char threads_text[16], result[CLI_PATH_SIZE];
    char *text = NULL;
    size_t len = 0;

    if (cli_cache_path("peer-llama-cpp.txt", result, NULL) != STATUS_OK) return NULL;
    snprintf(threads_text, sizeof(threads_text), "%u", threads);
    const enum status removed = env_file_remove(cli->env, result); /* of an earlier run */
    if (removed != STATUS_OK && removed != STATUS_NOT_FOUND) return NULL;
    if (python == NULL) python = "python3";
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

enum status bench_engine(struct cli *cli, struct report *report, struct errmsg *err)
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
    char path[CLI_PATH_SIZE];

    enum status status = cli_model_path(cli->env, config_text(config, "model"), path, err);
    if (status == STATUS_OK) status = model_open(cli->env, path, &model, err);
    if (status == STATUS_OK) status = engine_bench(cli->env, model, &options, rows, err);
    model_destroy(model);
    if (status != STATUS_OK) return status;
    char *peer = measure_peer(cli, path, options.threads);
    for (int i = 0; i < ENGINE_BENCH_ROWS; i++) {
        struct report_row *row =
            report_add(report, rows[i].name, rows[i].tokens_per_second, rows[i].unit);
        const double rate = peer_rate(peer, rows[i].name);
        if (rate > 0) row->baseline = rate;
    }
    free(peer);
    return STATUS_OK;
}
