/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_replay.c - replays a trace against a live gateway. */
#include <stdio.h>
#include <unistd.h>

#include "base/env.h"
#include "cli/cli.h"
#include "cli/remote.h"
#include "cli/replay.h"
#include "sim/trace.h"

enum { PROGRESS_MS = 500 };

struct command {
    struct cli *cli;
    struct replay *replay;
    struct env_timer progress;
    uint32_t stops; /* signals */
};

static enum status read_options(struct cli *cli, struct replay_options *out, struct errmsg *err)
{
    const struct config *config = cli->config;
    const struct {
        const char *name;
        double *value;
    } numbers[] = {
        { "speed", &out->speed },
        { "scale", &out->scale },
        { "output-scale", &out->output_scale },
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const char *text = config_text(config, numbers[i].name);
        const enum status status = cli_number(numbers[i].name, text, numbers[i].value, err);
        if (status != STATUS_OK) return status;
    }
    out->model = config_text(config, "model");
    out->requests_max = (uint32_t)config_u64(config, "max-requests");
    out->input_max = (uint32_t)config_u64(config, "prompt-max");
    out->ttft_limit_ms = (double)config_u64(config, "ttft-limit") / ENV_NS_PER_MS;
    out->tbt_limit_ms = (double)config_u64(config, "tbt-limit") / ENV_NS_PER_MS;
    return STATUS_OK;
}

/* ---- printing ---- */

static void print_quantiles_json(const char *name, const struct replay_quantiles *q)
{
    printf(" \"%s_ms\": {\"count\": %u, \"mean\": %.3f, \"p50\": %.3f, \"p90\": %.3f, "
           "\"p99\": %.3f, \"max\": %.3f},\n",
           name, q->count, q->mean, q->p50, q->p90, q->p99, q->max);
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static void print_json(const struct replay_options *options, const struct replay_result *result)
{
    const struct replay_counts *c = &result->counts;

    printf("{\"requests\": %u, \"finished\": %u, \"rejected\": %u, \"failed\": %u,\n", c->due,
           c->finished, c->rejected, c->failed);
    printf(" \"seconds\": %.3f, \"speed\": %g, \"scale\": %g,\n", result->seconds, options->speed,
           options->scale);
    printf(" \"prompt_tokens\": %llu, \"cached_tokens\": %llu, \"generated_tokens\": %llu,\n",
           (unsigned long long)c->prompt_tokens, (unsigned long long)c->cached_tokens,
           (unsigned long long)c->tokens);
    print_quantiles_json("ttft", &result->ttft);
    print_quantiles_json("tbt", &result->tbt);
    print_quantiles_json("request_tbt", &result->pace);
    printf(" \"limits\": {\"ttft_ms\": %g, \"tbt_ms\": %g},\n", options->ttft_limit_ms,
           options->tbt_limit_ms);
    printf(" \"good\": %u, \"good_share\": %.6f, \"good_tokens\": %llu, "
           "\"goodput_requests_s\": %.6f, \"goodput_tokens_s\": %.3f}\n",
           c->good, share(c->good, c->due), (unsigned long long)c->good_tokens,
           share(c->good, result->seconds), share((double)c->good_tokens, result->seconds));
}

static void print_quantiles(const char *name, const struct replay_quantiles *q)
{
    printf("%-5s %9u %9.1f %9.1f %9.1f %9.1f %9.1f\n", name, q->count, q->mean, q->p50, q->p90,
           q->p99, q->max);
}

static void print_text(const struct replay_result *result)
{
    const struct replay_counts *c = &result->counts;

    printf("%u requests in %.1f s: %u answered, %u rejected, %u failed\n\n", c->due,
           result->seconds, c->finished, c->rejected, c->failed);
    printf("ms        count      mean       p50       p90       p99       max\n");
    print_quantiles("TTFT", &result->ttft);
    print_quantiles("TBT", &result->tbt);
    printf("\ncached    %.1f%% of %llu prompt tokens\n",
           100 * share((double)c->cached_tokens, (double)c->prompt_tokens),
           (unsigned long long)c->prompt_tokens);
    printf("generated %llu tokens, %.1f a second\n", (unsigned long long)c->tokens,
           share((double)c->tokens, result->seconds));
    printf(
        "goodput   %u requests (%.1f%%) within the limits, %.2f a second, %.1f tokens a second\n",
        c->good, 100 * share(c->good, c->due), share(c->good, result->seconds),
        share((double)c->good_tokens, result->seconds));
}

/* ---- running ---- */

static void on_progress(void *ctx)
{
    struct command *command = ctx;
    const struct replay_counts *c = replay_counts(command->replay);

    fprintf(stderr, "\r%6u sent %5u running %6u answered %6u rejected %5u failed ", c->due,
            c->running, c->finished, c->rejected, c->failed);
    env_timer_set(command->cli->env, &command->progress,
                  env_now_ns(command->cli->env) + PROGRESS_MS * ENV_NS_PER_MS);
}

static void on_end(void *ctx)
{
    struct command *command = ctx;
    env_stop(command->cli->env);
}

/* The first signal waits for what is under way, the second does not. */
static void on_stop(void *ctx)
{
    struct command *command = ctx;
    if (command->stops++ == 0)
        replay_stop_sending(command->replay);
    else
        env_stop(command->cli->env);
}

static void print_failure(const struct remote *remote, const struct replay *replay)
{
    const struct http_reply *failure = replay_first_failure(replay);
    struct errmsg err = { "" };

    if (failure == NULL) return;
    remote_trouble(remote, failure, &err);
    fprintf(stderr, "yolk: the first request that failed: %s\n", err.text);
}

static int run(struct cli *cli, const struct remote *remote, const struct replay_options *options)
{
    struct command command = { .cli = cli };
    struct replay_options own = *options;
    struct replay_result result;
    struct errmsg err = { "" };
    const bool json = config_bool(cli->config, "json");

    own.on_end = on_end;
    own.ctx = &command;
    if (replay_start(cli->env, &own, &command.replay, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    env_timer_init(&command.progress, on_progress, &command);
    const bool shown = !json && isatty(STDERR_FILENO);
    if (shown) env_timer_set(cli->env, &command.progress, env_now_ns(cli->env));
    cli_run_until_signal(cli, on_stop, &command);
    env_timer_cancel(cli->env, &command.progress);
    if (shown) fprintf(stderr, "\r%79s\r", "");
    replay_result(command.replay, &result);
    print_failure(remote, command.replay);
    replay_destroy(command.replay);
    if (json)
        print_json(options, &result);
    else
        print_text(&result);
    const bool answered = result.counts.finished + result.counts.rejected > 0;
    return answered && result.counts.failed == 0 ? CLI_EXIT_OK : CLI_EXIT_FAILED;
}

int cmd_replay(struct cli *cli)
{
    const char *path = config_text(cli->config, "trace");
    struct remote remote = { .identity = NULL };
    struct replay_options options = { .address = remote.url.address };
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    int code = CLI_EXIT_USER;

    if (path[0] == '\0') return cli_refuse("replay: --trace FILE says what");
    enum status status = remote_open(cli, &remote, &err);
    options.identity = remote.identity;
    options.headers = remote.headers;
    if (status == STATUS_OK) status = read_options(cli, &options, &err);
    if (status == STATUS_OK) status = cli_trace_read(cli, path, &trace, &err);
    options.trace = trace;
    if (status == STATUS_OK)
        code = run(cli, &remote, &options);
    else
        cli_refuse("%s", err.text);
    trace_destroy(trace);
    remote_close(&remote);
    return code;
}
