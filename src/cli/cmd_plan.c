/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_plan.c - finds the cheapest cluster for a trace, and says what it looked at and what each
 * choice is worth. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "sim/cluster.h"
#include "sim/plan.h"
#include "sim/plan_sim.h"

struct planning {
    struct plan_space space;
    struct plan_sim sim;
    double floors[2];
    struct plan_result result;
    struct progress bar;
};

static const char *const step_names[PLAN_CHOICES] = { "prefill nodes", "decode nodes",
                                                      "DRAM, GB a prefill node",
                                                      "SSD, GB a prefill node",
                                                      "network, Gbit/s a node" };
static const char *const choice_units[PLAN_CHOICES] = { "nodes", "nodes", "GB", "GB", "Gbit/s" };

/* ---- what is asked ---- */

static enum status read_space(struct cli *cli, struct plan_space *out, struct errmsg *err)
{
    const char *path = config_text(cli->config, "plan");
    char *text = NULL;
    size_t len = 0;

    plan_space_init(out);
    if (path[0] == '\0') return STATUS_OK;
    enum status status = env_file_read_all(cli->env, path, PLAN_FILE_SIZE_MAX, &text, &len, err);
    if (status == STATUS_OK) status = plan_space_parse(path, text, len, out, err);
    free(text);
    return status;
}

static enum status read_base(struct cli *cli, struct sim_cluster *out, struct errmsg *err)
{
    const struct config *config = cli->config;

    cluster_init(out);
    enum status status = cli_cluster_read(cli, out, err);
    if (status == STATUS_OK) status = cluster_set(out, config_text(config, "set"), err);
    if (status != STATUS_OK) return status;
    if (out->system != CLUSTER_MOONCAKE)
        return errmsg_set(err, STATUS_INVALID, "only clusters of the system mooncake are planned");
    if (out->failures[0] != '\0')
        return errmsg_set(err, STATUS_INVALID,
                          "failures of named nodes suit no plan; mtbf_s says how often any fails");
    if (config_is_set(config, "ttft-limit"))
        out->ttft_limit_s = (double)config_u64(config, "ttft-limit") / 1e9;
    if (config_is_set(config, "tbt-limit"))
        out->tbt_limit_ms = (double)config_u64(config, "tbt-limit") / 1e6;
    if (!(out->ttft_limit_s > 0) || !(out->tbt_limit_ms > 0))
        return errmsg_set(err, STATUS_INVALID, "--ttft-limit and --tbt-limit must be above 0");
    return cluster_check(out, err);
}

static enum status read_good(struct cli *cli, double *out, struct errmsg *err)
{
    const enum status status = cli_number("good", config_text(cli->config, "good"), out, err);

    if (status != STATUS_OK) return status;
    if (*out > 0 && *out <= 1) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--good: %g is not above 0 and up to 1", *out);
}

static void show(void *ctx, uint32_t decided, uint32_t count)
{
    progress_show(ctx, decided, count);
}

static enum status ask(void *ctx, const struct plan_config *configs, uint32_t count,
                       struct plan_score *out, struct errmsg *err)
{
    struct planning *planning = ctx;
    return plan_sim_ask(&planning->sim, configs, count, out, err);
}

static void show_planning(void *ctx, uint32_t decided, uint32_t count)
{
    struct planning *planning = ctx;
    show(&planning->bar, decided, count);
}

static enum status search(struct cli *cli, struct planning *planning, struct errmsg *err)
{
    const struct plan_oracle oracle = { ask, show_planning, planning };

    enum status status = plan_sim_floors(&planning->sim, planning->floors);
    if (status != STATUS_OK) return errmsg_set(err, status, "not enough memory");
    progress_begin(&planning->bar, cli->env, "clusters decided");
    planning->bar.uneven = true;
    status = plan_search(&planning->space, planning->floors, &oracle, &planning->result, err);
    progress_end(&planning->bar);
    return status;
}

/* ---- as text ---- */

static void print_values(const struct planning *planning, const struct plan_row *row)
{
    for (int c = 0; c < PLAN_CHOICES; c++)
        printf(" %8g", plan_value(&planning->space, &row->config, (enum plan_choice)c));
}

static void print_score(const struct plan_row *row)
{
    const struct plan_score *score = &row->score;
    printf(" %8.1f%% %9.2f %9.2f %9.1f %8.1f%%\n", 100 * score->good, score->ttft_p50_s,
           score->ttft_p90_s, score->tbt_p90_ms, 100 * score->token_hit);
}

static const char score_head[] = "      good  TTFT P50  TTFT P90   TBT P90    reused";

static void print_rows(const struct planning *planning)
{
    const struct plan_result *result = &planning->result;

    printf("      cost  prefill   decode  DRAM GB   SSD GB   Gbit/s%s\n", score_head);
    for (uint32_t i = 0; i <= result->runners_count; i++) {
        const struct plan_row *row = i == 0 ? &result->best : &result->runners[i - 1];
        printf("%10.2f", row->cost);
        print_values(planning, row);
        print_score(row);
    }
}

static void print_steps(const struct planning *planning)
{
    const struct plan_result *result = &planning->result;

    printf("\none step                                       cost%s\n", score_head);
    for (int c = 0; c < PLAN_CHOICES; c++) {
        const double here = plan_value(&planning->space, &result->best.config, (enum plan_choice)c);
        for (int up = 0; up < 2; up++) {
            const struct plan_row *row = &result->step[c][up];
            if (!result->has_step[c][up]) {
                printf("%-24s %7g: there is no %s\n", step_names[c], here, up ? "more" : "less");
                continue;
            }
            printf("%-24s %7g -> %-6g %+9.2f", step_names[c], here,
                   plan_value(&planning->space, &row->config, (enum plan_choice)c),
                   row->cost - result->best.cost);
            print_score(row);
        }
    }
}

static void print_account(const struct planning *planning)
{
    const struct plan_counts *counts = &planning->result.counts;

    printf(
        "\n%u clusters: %u simulated, %u at most as strong as one that clearly missed, %u at least "
        "as dear\nas one that did not, %u too few nodes by arithmetic (under %g prefill or %g "
        "decode); %u simulated besides\n",
        counts->configs, counts->simulated, counts->weaker, counts->dearer, counts->shorter,
        planning->floors[0], planning->floors[1], counts->extra);
    if (counts->surprises > 0)
        printf("%u missed the limits, with at least as much of everything as one that kept them\n",
               counts->surprises);
}

static void print_limits(const struct planning *planning)
{
    const struct sim_cluster *base = &planning->sim.base;
    printf("%g%% of requests within %g s to the first token and %g ms between tokens, %s",
           100 * planning->sim.good, base->ttft_limit_s, base->tbt_limit_ms, base->cost.name);
}

static void print_found(const struct planning *planning)
{
    printf("the cheapest cluster for ");
    print_limits(planning);
    printf(", and the next:\n\n");
    print_rows(planning);
    print_steps(planning);
    print_account(planning);
}

static void print_none(const struct planning *planning)
{
    const struct plan_row *best = &planning->result.best;

    printf("no cluster within the bounds keeps ");
    print_limits(planning);
    printf("\nthe best reaches %.1f%%: TTFT P90 %.2f s, TBT P90 %.1f ms, at %.2f:\n",
           100 * best->score.good, best->score.ttft_p90_s, best->score.tbt_p90_ms, best->cost);
    for (int c = 0; c < PLAN_CHOICES; c++)
        printf("  %-24s %g\n", step_names[c],
               plan_value(&planning->space, &best->config, (enum plan_choice)c));
    if (planning->floors[0] > 0 || planning->floors[1] > 0)
        printf("by arithmetic alone it takes %g prefill and %g decode nodes\n", planning->floors[0],
               planning->floors[1]);
}

/* ---- as JSON ---- */

static void add_row(struct report *report, const char *what, const char *name, double value,
                    const char *unit)
{
    char full[64];
    snprintf(full, sizeof(full), "%s/%s", what, name);
    report_add(report, full, value, unit);
}

static void add_scored(const struct planning *planning, struct report *report, const char *what,
                       const struct plan_row *scored)
{
    char name[64];

    snprintf(name, sizeof(name), "%s/cost", what);
    report_add(report, name, scored->cost, "an hour")->baseline = planning->result.best.cost;
    snprintf(name, sizeof(name), "%s/good", what);
    struct report_row *row = report_add(report, name, scored->score.good, "share");
    row->kind = REPORT_AT_LEAST;
    row->target = planning->sim.good - 1e-9;
    add_row(report, what, "ttft_p90", scored->score.ttft_p90_s, "s");
    add_row(report, what, "tbt_p90", scored->score.tbt_p90_ms, "ms");
}

static void add_values(const struct planning *planning, struct report *report, const char *what,
                       const struct plan_row *row)
{
    for (int c = 0; c < PLAN_CHOICES; c++)
        add_row(report, what, plan_choices[c],
                plan_value(&planning->space, &row->config, (enum plan_choice)c), choice_units[c]);
}

static void add_account(const struct planning *planning, struct report *report)
{
    const struct plan_counts *counts = &planning->result.counts;

    add_row(report, "floor", "prefill", planning->floors[0], "nodes");
    add_row(report, "floor", "decode", planning->floors[1], "nodes");
    add_row(report, "explored", "clusters", counts->configs, "clusters");
    add_row(report, "explored", "simulated", counts->simulated, "clusters");
    add_row(report, "explored", "weaker", counts->weaker, "clusters");
    add_row(report, "explored", "dearer", counts->dearer, "clusters");
    add_row(report, "explored", "short", counts->shorter, "clusters");
    add_row(report, "explored", "besides", counts->extra, "clusters");
    add_row(report, "explored", "surprises", counts->surprises, "clusters");
}

static void add_steps(const struct planning *planning, struct report *report)
{
    for (int i = 0; i < 2 * PLAN_CHOICES; i++) {
        const int c = i / 2, up = i % 2;
        const struct plan_row *row = &planning->result.step[c][up];
        char what[48];
        if (!planning->result.has_step[c][up]) continue;
        snprintf(what, sizeof(what), "step/%s=%g", plan_choices[c],
                 plan_value(&planning->space, &row->config, (enum plan_choice)c));
        add_scored(planning, report, what, row);
    }
}

static void print_json(const struct planning *planning)
{
    const struct plan_result *result = &planning->result;
    const char *best = result->found ? "cheapest" : "nearest";
    struct report report = { .bench = "plan" };

    report_add(&report, "found", result->found ? 1 : 0, "bool");
    add_values(planning, &report, best, &result->best);
    add_scored(planning, &report, best, &result->best);
    add_row(&report, best, "ttft_p50", result->best.score.ttft_p50_s, "s");
    add_row(&report, best, "token_hit", result->best.score.token_hit, "share");
    add_account(planning, &report);
    for (uint32_t i = 0; i < result->runners_count; i++) {
        char what[32];
        snprintf(what, sizeof(what), "next_%u", i + 1);
        add_values(planning, &report, what, &result->runners[i]);
        add_scored(planning, &report, what, &result->runners[i]);
    }
    if (result->found) add_steps(planning, &report);
    report_print(&report, true);
}

/* ---- the command ---- */

static void print_plan(struct cli *cli, const struct planning *planning)
{
    if (config_bool(cli->config, "json"))
        print_json(planning);
    else if (planning->result.found)
        print_found(planning);
    else
        print_none(planning);
}

int cmd_plan(struct cli *cli)
{
    const char *path = config_text(cli->config, "trace");
    struct planning *planning = calloc(1, sizeof(*planning));
    struct trace *trace = NULL;
    struct errmsg err = { "not enough memory" };
    int code = CLI_EXIT_OK;

    if (planning == NULL) return cli_refuse("plan: %s", err.text);
    planning->sim.space = &planning->space;
    planning->sim.threads = (uint32_t)config_u64(cli->config, "threads");
    enum status status = STATUS_OK;
    if (path[0] == '\0')
        status = errmsg_set(&err, STATUS_INVALID, "--trace FILE says what is to be served");
    if (status == STATUS_OK) status = read_space(cli, &planning->space, &err);
    if (status == STATUS_OK) status = read_base(cli, &planning->sim.base, &err);
    if (status == STATUS_OK) status = read_good(cli, &planning->sim.good, &err);
    if (status == STATUS_OK) status = cli_trace_read(cli, path, &trace, &err);
    planning->sim.trace = trace;
    if (status == STATUS_OK) status = search(cli, planning, &err);
    if (status == STATUS_OK) {
        print_plan(cli, planning);
        if (!planning->result.found) code = CLI_EXIT_FAILED;
    } else {
        code = cli_refuse("plan: %s", err.text);
    }
    trace_destroy(trace);
    free(planning);
    return code;
}
