/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_demo.c - shows, live, what the Conductor does under overload.
 *
 * A small cluster of real processes gets twice the requests that it can serve, the same ones once
 * for each policy. Without refusals every request waits for every other, and hardly one is answered
 * in time; a policy that refuses early keeps those it accepts in time. Each run has a cluster of
 * its own, and a few requests to learn from.
 *
 * With the builtin engine the cluster is one prefill and one decode node that compute with the real
 * model; what they can serve, and limits that fit, are measured first. With --engine timed it is
 * two of each, and what they can serve follows from the modelled costs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/demo_screen.h"
#include "cli/replay.h"
#include "infer/timed.h"
#include "sim/trace.h"
#include "sim/trace_gen.h"
#include "yolk/conductor.h"

enum {
    WARM_SECONDS = 4,
    MEASURED_REQUESTS = 16,
    ALONE_RATE = 3, /* a second */
    TOGETHER_RATE = 1000,
    FIRST_WAITS = 4,
    READY_S = 20,
    READY_POLL_MS = 5,
    DRAW_MS = 250,
    TEXT_SIZE = 64,
};

#define HELD_SHARE 0.85 /* what policies are asked to hold, of a limit */

/* The cluster and its requests: means of tokens, and limits in milliseconds. */
struct demo_scale {
    const char *engine, *pool_size;
    int prefill_nodes, decode_nodes;
    int prompt_tokens, prompt_tokens_max, answer_tokens;
    int ttft_limit_ms, tbt_limit_ms; /* what is in time */
    int ttft_held_ms, tbt_held_ms;   /* what the policy is asked to hold: less, as one does */
};

static const struct demo_scale BUILTIN = { "builtin", "1G", 1, 1, 400, 1600, 40, 0, 0, 0, 0 };
static const struct demo_scale TIMED = {
    "timed", "64M", 2, 2, 1500, 6000, 100, 1500, 40, 1300, 34
};

struct demo {
    struct cli *cli;
    struct demo_scale scale;
    struct demo_screen screen;
    struct demo_run *run; /* under way */
    struct replay *replay;
    struct env_timer timer;
    struct bench_child child;
    char address[TEXT_SIZE];
    char model[CLI_PATH_SIZE]; /* its file */
    double capacity;           /* requests a second that meet both limits */
    double load;               /* of it */
    double seconds;
    struct trace *warm, *trace;
};

/* ---- what the cluster can do ---- */

/* Within the limits, from the costs: the lesser of what prefill computes and what decode holds. */
static double modelled_capacity(const struct demo_scale *scale, const struct timed_profile *profile)
{
    const double n = scale->prompt_tokens;
    const double prefill_s =
        profile->prefill_fixed_s + profile->prefill_new_s * n + profile->prefill_square_s * n * n;
    const double step_s = scale->tbt_held_ms / 1e3;
    const double batch = floor((step_s - profile->decode_base_s) / profile->decode_sequence_s);

    ASSERT(batch >= 1);
    return fmin(scale->prefill_nodes / prefill_s,
                scale->decode_nodes * batch / (step_s * scale->answer_tokens));
}

static enum status make_trace(const struct demo *demo, double rate, double seconds, uint64_t seed,
                              struct trace **out, struct errmsg *err)
{
    struct trace_gen_options options = trace_gen_defaults();

    options.seed = seed;
    options.rate = rate;
    options.requests = (uint32_t)ceil(rate * seconds);
    options.follow = 0;
    options.roots = 0;
    options.input_tokens = demo->scale.prompt_tokens;
    options.output_tokens = demo->scale.answer_tokens;
    options.spread = 0.4;
    options.input_max = demo->scale.prompt_tokens_max;
    options.block_tokens = 32;
    return trace_gen(&options, out, err);
}

static enum status read_options(struct demo *demo, struct errmsg *err)
{
    const struct config *config = demo->cli->config;
    const char *list = config_text(config, "policies");

    enum status status = cli_number("load", config_text(config, "load"), &demo->load, err);
    if (status != STATUS_OK) return status;
    if (!(demo->load >= 0.1 && demo->load <= 5))
        return errmsg_set(err, STATUS_INVALID, "--load: must be in 0.1..5");
    demo->seconds = (double)config_u64(config, "seconds");
    demo->scale = strcmp(config_text(config, "engine"), TIMED.engine) == 0 ? TIMED : BUILTIN;
    while (*list != '\0') {
        const size_t len = strcspn(list, ",");
        if (len == 0 || len >= DEMO_NAME_SIZE || demo->screen.runs_count == DEMO_RUNS_MAX)
            return errmsg_set(err, STATUS_INVALID, "--policies: up to %d names, as none,predict",
                              DEMO_RUNS_MAX);
        struct demo_run *run = &demo->screen.runs[demo->screen.runs_count++];
        enum yolk_policy policy;
        snprintf(run->name, sizeof(run->name), "%.*s", (int)len, list);
        if (yolk_policy_of(run->name, &policy) != STATUS_OK)
            return errmsg_set(err, STATUS_INVALID, "--policies: no policy `%s`", run->name);
        list += len;
        if (*list == ',') list++;
    }
    if (demo->screen.runs_count == 0)
        return errmsg_set(err, STATUS_INVALID, "--policies names none");
    return STATUS_OK;
}

/* ---- a cluster ---- */

/* It may also have ended by itself: a policy that is none. */
static enum status wait_ready(struct demo *demo)
{
    struct env *env = demo->cli->env;
    const uint64_t end_ns = env_now_ns(env) + READY_S * ENV_NS_PER_S;
    struct bench_answer answer;

    while (demo->child.process != NULL && env_now_ns(env) < end_ns) {
        bench_request(demo->cli, demo->address, "/ready", NULL, &answer);
        if (answer.status == STATUS_OK && answer.code == 200) return STATUS_OK;
        env_real_sleep_ns(READY_POLL_MS * ENV_NS_PER_MS);
    }
    return STATUS_UNAVAILABLE;
}

static enum status start_cluster(struct demo *demo, const char *policy, struct errmsg *err)
{
    uint16_t port = 0;
    char port_text[TEXT_SIZE], prefill[TEXT_SIZE], decode[TEXT_SIZE], ttft[TEXT_SIZE],
        tbt[TEXT_SIZE];

    if (bench_free_port(demo->cli, &port) != STATUS_OK)
        return errmsg_set(err, STATUS_IO, "no free port");
    snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(demo->address, sizeof(demo->address), "127.0.0.1:%u", port);
    snprintf(prefill, sizeof(prefill), "%d", demo->scale.prefill_nodes);
    snprintf(decode, sizeof(decode), "%d", demo->scale.decode_nodes);
    snprintf(ttft, sizeof(ttft), "%dms", demo->scale.ttft_held_ms);
    snprintf(tbt, sizeof(tbt), "%dms", demo->scale.tbt_held_ms);
    const char *args[] = { "serve",
                           demo->model,
                           "--quiet",
                           "--engine",
                           demo->scale.engine,
                           "--served-model-name",
                           "demo",
                           "--port",
                           port_text,
                           "--prefill",
                           prefill,
                           "--decode",
                           decode,
                           "--pool-size",
                           demo->scale.pool_size,
                           "--policy",
                           policy,
                           "--ttft-slo",
                           ttft,
                           "--tbt-slo",
                           tbt,
                           "--log",
                           "error",
                           NULL };
    enum status status = bench_spawn(demo->cli, &demo->child, args, err);
    if (status != STATUS_OK) return status;
    status = wait_ready(demo);
    if (status == STATUS_OK) return status;
    bench_end(&demo->child);
    return errmsg_set(err, status, "the cluster with --policy %s did not become ready", policy);
}

/* ---- a run ---- */

static void on_draw(void *ctx)
{
    struct demo *demo = ctx;
    struct demo_run *run = demo->run;
    const uint64_t now = env_now_ns(demo->cli->env);

    if (run->state == DEMO_RUNNING) {
        const struct replay_counts *counts = replay_counts(demo->replay);
        run->seconds = (double)(now - counts->started_ns) / ENV_NS_PER_S;
        const uint32_t second = (uint32_t)run->seconds;
        if (second < DEMO_SECONDS_MAX)
            run->good_by_second[second] += counts->good - run->counts.good;
        run->counts = *counts;
    }
    demo_screen_draw(&demo->screen, run);
    env_timer_set(demo->cli->env, &demo->timer, now + DRAW_MS * ENV_NS_PER_MS);
}

static void on_end(void *ctx)
{
    env_stop(((struct demo *)ctx)->cli->env);
}

/* Replays one trace to its end. */
static enum status replay_one(struct demo *demo, const struct trace *trace,
                              struct replay_result *out, struct errmsg *err)
{
    const struct replay_options options = {
        .address = demo->address,
        .model = "demo",
        .trace = trace,
        .speed = 1,
        .scale = 1,
        .output_scale = 1,
        .ttft_limit_ms = demo->scale.ttft_limit_ms,
        .tbt_limit_ms = demo->scale.tbt_limit_ms,
        .salt = trace == demo->warm,
        .on_end = on_end,
        .ctx = demo,
    };
    const enum status status = replay_start(demo->cli->env, &options, &demo->replay, err);
    if (status != STATUS_OK) return status;
    if (demo->run != NULL) env_timer_set(demo->cli->env, &demo->timer, env_now_ns(demo->cli->env));
    while (replay_counts(demo->replay)->ended_ns == 0 && demo->child.process != NULL)
        env_run(demo->cli->env);
    if (demo->run != NULL) on_draw(demo);
    env_timer_cancel(demo->cli->env, &demo->timer);
    replay_result(demo->replay, out);
    replay_destroy(demo->replay);
    demo->replay = NULL;
    return demo->child.process != NULL
               ? STATUS_OK
               : errmsg_set(err, STATUS_UNAVAILABLE, "the cluster has ended");
}

/* Requests with pauses between them, or all at once. */
static enum status replay_measured(struct demo *demo, double rate, struct replay_result *out,
                                   struct errmsg *err)
{
    struct trace *trace = NULL;
    enum status status =
        make_trace(demo, rate, MEASURED_REQUESTS / rate, (uint64_t)rate, &trace, err);

    if (status == STATUS_OK) status = replay_one(demo, trace, out, err);
    trace_destroy(trace);
    if (status != STATUS_OK || out->counts.finished == MEASURED_REQUESTS) return status;
    return errmsg_set(err, STATUS_UNAVAILABLE, "%u of %d requests were not answered",
                      MEASURED_REQUESTS - out->counts.finished, MEASURED_REQUESTS);
}

/* What the machine can serve, and limits that fit it: a first token may wait for FIRST_WAITS
 * others, and tokens may come a quarter later than with everybody at once. */
static enum status measure(struct demo *demo, struct errmsg *err)
{
    struct replay_result alone, together;
    struct demo_scale *scale = &demo->scale;

    if (!demo->screen.silent) fprintf(stderr, "Measuring what the cluster can serve ...\n");
    enum status status = start_cluster(demo, "none", err);
    if (status != STATUS_OK) return status;
    status = replay_measured(demo, ALONE_RATE, &alone, err);
    if (status == STATUS_OK) status = replay_measured(demo, TOGETHER_RATE, &together, err);
    bench_end(&demo->child);
    if (status != STATUS_OK) return status;
    demo->capacity = MEASURED_REQUESTS / together.seconds;
    scale->ttft_limit_ms = (int)ceil(alone.ttft.p50 * (1 + FIRST_WAITS));
    scale->tbt_limit_ms = (int)ceil(together.tbt.p90 * 1.25);
    scale->ttft_held_ms = (int)(scale->ttft_limit_ms * HELD_SHARE);
    scale->tbt_held_ms = (int)(scale->tbt_limit_ms * HELD_SHARE);
    return STATUS_OK;
}

static enum status prepare(struct demo *demo, struct errmsg *err)
{
    struct demo_screen *screen = &demo->screen;
    enum status status = read_options(demo, err);

    if (status == STATUS_OK)
        status = cli_model_path(demo->cli->env, config_text(demo->cli->config, "model"),
                                demo->model, err);
    if (status != STATUS_OK) return status;
    if (strcmp(demo->scale.engine, TIMED.engine) == 0)
        demo->capacity = modelled_capacity(&demo->scale, &timed_profile_default);
    else
        status = measure(demo, err);
    if (status != STATUS_OK) return status;
    screen->rate = demo->load * demo->capacity;
    screen->send_seconds = demo->seconds;
    snprintf(screen->header, sizeof(screen->header),
             "%d prefill and %d decode nodes get %.1f requests a second, %.1f times what they can "
             "serve;\nin time means a first token within %.1f s and %d ms between tokens.\n",
             demo->scale.prefill_nodes, demo->scale.decode_nodes, screen->rate, demo->load,
             demo->scale.ttft_limit_ms / 1e3, demo->scale.tbt_limit_ms);
    status = make_trace(demo, demo->capacity / 2, WARM_SECONDS, 1, &demo->warm, err);
    if (status == STATUS_OK)
        status = make_trace(demo, screen->rate, demo->seconds, 2, &demo->trace, err);
    return status;
}

static enum status run_one(struct demo *demo, struct errmsg *err)
{
    struct demo_run *run = demo->run;
    struct replay_result warm;

    run->state = DEMO_WARMING;
    demo_screen_draw(&demo->screen, run);
    enum status status = start_cluster(demo, run->name, err);
    if (status != STATUS_OK) return status;
    status = replay_one(demo, demo->warm, &warm, err);
    if (status == STATUS_OK) {
        run->state = DEMO_RUNNING;
        status = replay_one(demo, demo->trace, &run->result, err);
    }
    bench_end(&demo->child);
    run->state = DEMO_ENDED;
    if (status == STATUS_OK) demo_screen_draw(&demo->screen, run);
    return status;
}

static void print_json(const struct demo *demo)
{
    const struct demo_screen *screen = &demo->screen;

    printf("{\"demo\": \"overload\", \"engine\": \"%s\", \"rate\": %.3f, \"load\": %g, "
           "\"ttft_limit_ms\": %d, "
           "\"tbt_limit_ms\": %d, \"runs\": [",
           demo->scale.engine, screen->rate, demo->load, demo->scale.ttft_limit_ms,
           demo->scale.tbt_limit_ms);
    for (uint32_t i = 0; i < screen->runs_count; i++) {
        const struct demo_run *run = &screen->runs[i];
        const struct replay_counts *c = &run->counts;
        printf("%s\n {\"policy\": \"%s\", \"requests\": %u, \"good\": %u, \"good_share\": %.6f, "
               "\"goodput_requests_s\": %.6f, \"rejected\": %u, \"late\": %u, \"failed\": %u, "
               "\"ttft_p90_ms\": %.3f, \"tbt_p90_ms\": %.3f}",
               i == 0 ? "" : ",", run->name, c->due, c->good, demo_good_share(run),
               demo_goodput(screen, run), c->rejected, c->finished - c->good, c->failed,
               run->result.ttft.p90, run->result.tbt.p90);
    }
    printf("]}\n");
}

static int demo_overload(struct cli *cli)
{
    struct demo *demo = calloc(1, sizeof(*demo));
    struct errmsg err = { "" };
    int code = CLI_EXIT_OK;

    if (demo == NULL) return cli_refuse("out of memory");
    demo->cli = cli;
    demo_screen_init(&demo->screen);
    demo->screen.silent = config_bool(cli->config, "json");
    env_timer_init(&demo->timer, on_draw, demo);
    enum status status = prepare(demo, &err);
    for (uint32_t i = 0; status == STATUS_OK && i < demo->screen.runs_count; i++) {
        demo->run = &demo->screen.runs[i];
        status = run_one(demo, &err);
    }
    if (status != STATUS_OK)
        code = cli_refuse("%s", err.text);
    else if (config_bool(cli->config, "json"))
        print_json(demo);
    else
        demo_screen_finish(&demo->screen);
    trace_destroy(demo->warm);
    trace_destroy(demo->trace);
    free(demo);
    return code;
}

int cmd_demo(struct cli *cli)
{
    const char *name = config_position(cli->config, 0);

    if (strcmp(name, "overload") == 0) return demo_overload(cli);
    return cli_refuse("no demo `%s`; overload", name);
}
