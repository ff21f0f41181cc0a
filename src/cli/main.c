/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/main.c - finds the subcommand, reads its options, runs it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "cli/cli.h"

extern char **environ;

struct command {
    const char *name;
    const char *usage;
    const char *summary;
    int (*run)(struct cli *cli);
    unsigned scope;
    uint32_t positions_min, positions_max;
    const char *log; /* default of --log: people look at some of these, operators at others */
};

static const struct command commands[] = {
    { "serve", "yolk serve MODEL [options]", "Serves MODEL on this machine: all processes at once.",
      cmd_serve, CLI_SERVE, 1, 1, "warn" },
    { "gateway", "yolk gateway MODEL [options]",
      "Answers the OpenAI API and places requests on the cluster's nodes.", cmd_gateway,
      CLI_GATEWAY, 1, 1, "info" },
    { "master", "yolk master [options]", "Keeps the directory of the KVCache pool.", cmd_master,
      CLI_MASTER, 0, 0, "info" },
    { "metadata", "yolk metadata [options]",
      "Lets transfer engines find each other by name, over HTTP.", cmd_metadata, CLI_METADATA, 0, 0,
      "info" },
    { "node", "yolk node MODEL [options]", "Computes, and lends its memory to the pool.", cmd_node,
      CLI_NODE, 1, 1, "info" },
    { "run", "yolk run MODEL [PROMPT] [options]",
      "Answers one prompt in this process, PROMPT or what comes in through a pipe. In a "
      "terminal without PROMPT, or with --chat, it is a conversation: Ctrl-C stops an answer, "
      "/reset forgets it, /exit leaves. With --url a gateway answers.",
      cmd_run, CLI_RUN, 1, 2, "warn" },
    { "model", "yolk model fetch|list|info|path [MODEL]",
      "Fetches a model by name or URL, or says what a model file is.", cmd_model, CLI_MODEL, 1, 2,
      "warn" },
    { "bench", "yolk bench engine|serve|gateway|store|transfer|conductor|sim [ROWS] [options]",
      "Measures, each number beside its yardstick.", cmd_bench, CLI_BENCH, 1, 3, "warn" },
    { "trace",
      "yolk trace stat FILE | yolk trace gen [options] | yolk trace record --out FILE [options]",
      "Says what a request trace is like, makes one, or records a live gateway's traffic.",
      cmd_trace, CLI_TRACE, 1, 2, "warn" },
    { "sim", "yolk sim --trace FILE [options]",
      "Replays a trace on a simulated cluster, and says what its users would have seen.", cmd_sim,
      CLI_SIM, 0, 0, "warn" },
    { "plan", "yolk plan --trace FILE [options]",
      "Finds the cheapest cluster that serves a trace within limits, by simulation.", cmd_plan,
      CLI_PLAN, 0, 0, "warn" },
    { "replay", "yolk replay --trace FILE [options]",
      "Replays a trace against a live gateway, and says what its users saw.", cmd_replay,
      CLI_REPLAY, 0, 0, "warn" },
    { "explain", "yolk explain request ID | yolk explain transfer ID|last|metrics [options]",
      "Says what a gateway decided about a request, and why; or how a node moved bytes.",
      cmd_explain, CLI_EXPLAIN, 2, 2, "warn" },
    { "store",
      "yolk store put KEY [FILE] | get KEY | ls [PREFIX] | stat [KEY] | rm KEY... | top |\n"
      "       replicas KEY N | copy KEY --to NODE,... | move KEY --to NODE | task TASK |\n"
      "       drain NODE... | quota [TENANT [SIZE]] [options]",
      "Puts, gets, removes and shows what is in the KVCache pool.", cmd_store, CLI_STORE, 1, 64,
      "error" },
    { "top", "yolk top [--url http://HOST:PORT|https://HOST:PORT] [--json]",
      "Shows a live cluster: nodes, queues, cache, latencies, once a second.", cmd_top, CLI_TOP, 0,
      0, "error" },
    { "doctor", "yolk doctor [--json]",
      "Says what of this machine will slow Yolk down, and how to mend it.", cmd_doctor, CLI_DOCTOR,
      0, 0, "warn" },
    { "demo", "yolk demo overload [options]",
      "Shows live, on a small cluster, what refusing early does under overload.", cmd_demo,
      CLI_DEMO, 1, 1, "warn" },
    { "version", "yolk version", "Says what this binary is.", cmd_version, CLI_VERSION, 0, 0,
      "warn" },
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]), HELP_SIZE_MAX = 64 << 10 };

static void print_overview(FILE *out)
{
    fprintf(out, "usage: yolk COMMAND [options]\n\n"
                 "Serves language models with prefill, KVCache pool and decode apart.\n\n");
    for (size_t i = 0; i < COMMANDS; i++) {
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
    }
    fprintf(out, "\n`yolk COMMAND --help` lists its options.\n");
}

int cli_refuse(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("yolk: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_EXIT_USER;
}

enum status cli_cache_path(const char *name, char out[CLI_PATH_SIZE], struct errmsg *err)
{
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    int n;

    if (cache != NULL && cache[0] == '/') {
        n = snprintf(out, CLI_PATH_SIZE, "%s/yolk/%s", cache, name);
    } else if (home != NULL && home[0] == '/') {
        n = snprintf(out, CLI_PATH_SIZE, "%s/.cache/yolk/%s", home, name);
    } else {
        return errmsg_set(err, STATUS_INVALID, "neither XDG_CACHE_HOME nor HOME names a directory");
    }
    if (n < 0 || n >= CLI_PATH_SIZE)
        return errmsg_set(err, STATUS_INVALID, "the path of the cache directory is too long");
    return STATUS_OK;
}

struct waiter {
    struct env *env;
    void (*stop)(void *ctx);
    void *ctx;
};

static void on_signal(void *ctx, int signo)
{
    struct waiter *waiter = ctx;
    LOG_INFO("cli", "signal", "signo=%d", signo);
    if (waiter->stop == NULL)
        env_stop(waiter->env);
    else
        waiter->stop(waiter->ctx);
}

static void catch_signals(struct cli *cli, env_signal_fn fn, void *ctx)
{
    if (env_on_signal(cli->env, SIGTERM, fn, ctx) != STATUS_OK ||
        env_on_signal(cli->env, SIGINT, fn, ctx) != STATUS_OK)
        LOG_WARN("cli", "signals_not_handled", "");
}

static void on_early_signal(void *ctx, int signo)
{
    (void)signo;
    env_stop(ctx);
}

void cli_hold_signals(struct cli *cli)
{
    catch_signals(cli, on_early_signal, cli->env);
}

void cli_set_poll(struct cli *cli)
{
    env_real_set_poll(cli->env, config_u64(cli->config, "poll-us") * ENV_NS_PER_US);
}

void cli_run_until_signal(struct cli *cli, void (*stop)(void *ctx), void *ctx)
{
    struct waiter waiter = { cli->env, stop, ctx };
    catch_signals(cli, on_signal, &waiter);
    env_run(cli->env);
}

static int print_help(struct cli *cli)
{
    struct buf text;
    buf_init(&text, HELP_SIZE_MAX);
    int code = CLI_EXIT_FAILED;
    if (config_help(cli->config, &text) == STATUS_OK) {
        fwrite(buf_data(&text), 1, text.len, stdout);
        code = CLI_EXIT_OK;
    }
    buf_fini(&text);
    return code;
}

static int run_command(const struct command *command, int args_count, char **args)
{
    const struct config_spec spec = { .options = cli_options,
                                      .options_count = cli_options_count,
                                      .scope = command->scope,
                                      .usage = command->usage,
                                      .summary = command->summary,
                                      .positions_min = command->positions_min,
                                      .positions_max = command->positions_max };
    struct errmsg err = { "" };
    struct cli cli = { NULL, NULL };
    int code = CLI_EXIT_USER;

    if (log_configure(command->log, &err) != STATUS_OK ||
        env_real_create(NULL, &cli.env, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    cli.config = config_create(&spec);
    if (config_load(cli.config, cli.env, args_count, args, environ, &err) != STATUS_OK) {
        cli_refuse("%s", err.text);
    } else if (config_wants_help(cli.config)) {
        code = print_help(&cli);
    } else if (command->scope != CLI_VERSION && config_is_set(cli.config, "log") &&
               log_configure(config_text(cli.config, "log"), &err) != STATUS_OK) {
        cli_refuse("--log: %s", err.text);
    } else {
        code = command->run(&cli);
    }
    config_destroy(cli.config);
    env_real_destroy(cli.env);
    if (fflush(stdout) != 0 && code == CLI_EXIT_OK) code = CLI_EXIT_FAILED;
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return CLI_EXIT_USER;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_overview(stdout);
        return CLI_EXIT_OK;
    }
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return run_command(&commands[i], argc - 2, argv + 2);
    }
    return cli_refuse("no command `%s`; `yolk --help` lists them", argv[1]);
}
