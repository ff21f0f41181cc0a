/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_trace.c - says what a request trace is like, and makes traces; trace_record.c records. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/trace_record.h"
#include "sim/trace.h"
#include "sim/trace_gen.h"

enum { LRU_MAX = 64, OUT_SIZE_MAX = 0x7fffffff };

enum status cli_trace_read(struct cli *cli, const char *path, struct trace **out,
                           struct errmsg *err)
{
    char *text = NULL;
    size_t len = 0;
    enum status status = env_file_read_all(cli->env, path, (size_t)4 << 30, &text, &len, err);

    if (status != STATUS_OK) return status;
    errmsg_set(err, STATUS_NO_MEMORY, "%s: not enough memory", path);
    status = trace_parse(path, text, len, out, err);
    free(text);
    return status;
}

enum status cli_number(const char *name, const char *text, double *out, struct errmsg *err)
{
    char *end = NULL;
    const double value = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(value))
        return errmsg_set(err, STATUS_INVALID, "--%s: `%.64s` is not a number", name, text);
    *out = value;
    return STATUS_OK;
}

/* ---- stat ---- */

struct capacities {
    uint32_t count;
    double tokens[LRU_MAX];
    double token_hit[LRU_MAX], block_hit[LRU_MAX];
};

static enum status read_capacities(const char *list, struct capacities *out, struct errmsg *err)
{
    out->count = 0;
    while (*list != '\0') {
        char item[64];
        const size_t len = strcspn(list, ",");
        snprintf(item, sizeof(item), "%.*s", (int)(len < 63 ? len : 63), list);
        if (out->count == LRU_MAX)
            return errmsg_set(err, STATUS_INVALID, "--lru: more than %d capacities", LRU_MAX);
        double *tokens = &out->tokens[out->count++];
        const enum status status = cli_number("lru", item, tokens, err);
        if (status != STATUS_OK) return status;
        if (!(*tokens >= 1 && *tokens <= 1e15))
            return errmsg_set(err, STATUS_INVALID, "--lru: %s is no number of tokens", item);
        list += len;
        if (*list == ',') list++;
    }
    return STATUS_OK;
}

static enum status run_lru(const struct trace *trace, struct capacities *capacities)
{
    for (uint32_t i = 0; i < capacities->count; i++) {
        const uint64_t blocks = (uint64_t)(capacities->tokens[i] / trace->block_tokens);
        const enum status status =
            trace_lru(trace, blocks, &capacities->token_hit[i], &capacities->block_hit[i]);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static void print_lengths_json(const char *name, const struct trace_lengths *l)
{
    printf(" \"%s\": {\"mean\": %.3f, \"min\": %u, \"p10\": %u, \"p25\": %u, \"p50\": %u, "
           "\"p75\": %u, \"p90\": %u, \"p95\": %u, \"p99\": %u, \"max\": %u},\n",
           name, l->mean, l->min, l->p10, l->p25, l->p50, l->p75, l->p90, l->p95, l->p99, l->max);
}

static void print_stat_json(const struct trace *trace, const struct trace_stat *stat,
                            const struct capacities *lru)
{
    printf("{\"format\": \"%s\", \"block_tokens\": %u, \"has_ids\": %s, \"requests\": %u,\n",
           trace_format_name(trace->format), trace->block_tokens, trace->has_ids ? "true" : "false",
           stat->requests);
    printf(" \"duration_s\": %.3f, \"rate\": %.6f,\n", stat->duration_ms / 1e3, stat->rate);
    print_lengths_json("input", &stat->input);
    print_lengths_json("output", &stat->output);
    printf(" \"input_tokens\": %llu, \"output_tokens\": %llu,\n",
           (unsigned long long)stat->input_tokens, (unsigned long long)stat->output_tokens);
    printf(" \"block_references\": %llu, \"unique_blocks\": %u,\n",
           (unsigned long long)stat->references, stat->unique);
    printf(" \"infinite_hit\": {\"token\": %.6f, \"block\": %.6f},\n \"lru\": [", stat->token_hit,
           stat->block_hit);
    for (uint32_t i = 0; i < lru->count; i++) {
        printf("%s\n  {\"capacity_tokens\": %.0f, \"token_hit\": %.6f, \"block_hit\": %.6f}",
               i == 0 ? "" : ",", lru->tokens[i], lru->token_hit[i], lru->block_hit[i]);
    }
    printf("]}\n");
}

static void print_lengths(const char *name, const struct trace_lengths *l)
{
    printf("%-8s %9.0f %7u %7u %7u %7u %7u %7u %7u\n", name, l->mean, l->min, l->p10, l->p50,
           l->p90, l->p95, l->p99, l->max);
}

static void print_stat(const struct trace *trace, const struct trace_stat *stat,
                       const struct capacities *lru)
{
    printf("%s, %u requests in %.0f s, %.3f a second, blocks of %u tokens%s\n\n",
           trace_format_name(trace->format), stat->requests, stat->duration_ms / 1e3, stat->rate,
           trace->block_tokens, trace->has_ids ? "" : ", nothing shared");
    printf("tokens        mean     min     p10     p50     p90     p95     p99     max\n");
    print_lengths("input", &stat->input);
    print_lengths("output", &stat->output);
    printf("\nblocks   %llu referenced, %u of them different\n",
           (unsigned long long)stat->references, stat->unique);
    printf("hits     %.4f of tokens, %.4f of blocks with an infinite cache\n", stat->token_hit,
           stat->block_hit);
    if (lru->count > 0) printf("\nLRU of tokens   token hit  block hit\n");
    for (uint32_t i = 0; i < lru->count; i++)
        printf("%13.0f   %9.4f  %9.4f\n", lru->tokens[i], lru->token_hit[i], lru->block_hit[i]);
}

static int trace_command_stat(struct cli *cli)
{
    struct capacities lru;
    struct trace *trace = NULL;
    struct trace_stat stat;
    struct errmsg err = { "not enough memory" };

    if (config_positions(cli->config) != 2) return cli_refuse("trace stat: which FILE?");
    enum status status = read_capacities(config_text(cli->config, "lru"), &lru, &err);
    if (status == STATUS_OK)
        status = cli_trace_read(cli, config_position(cli->config, 1), &trace, &err);
    if (status == STATUS_OK) status = trace_measure(trace, &stat);
    if (status == STATUS_OK) status = run_lru(trace, &lru);
    if (status == STATUS_OK) {
        if (config_bool(cli->config, "json"))
            print_stat_json(trace, &stat, &lru);
        else
            print_stat(trace, &stat, &lru);
    }
    trace_destroy(trace);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("%s", err.text);
}

/* ---- gen ---- */

static enum status read_gen_options(struct cli *cli, struct trace_gen_options *out,
                                    struct errmsg *err)
{
    const struct {
        const char *name;
        double *value;
    } numbers[] = {
        { "rate", &out->rate },
        { "cv", &out->cv },
        { "drift", &out->drift },
        { "drift-period", &out->drift_s },
        { "follow", &out->follow },
        { "root-tokens", &out->root_tokens },
        { "input-tokens", &out->input_tokens },
        { "output-tokens", &out->output_tokens },
        { "spread", &out->spread },
    };

    *out = trace_gen_defaults();
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        const char *text = config_text(cli->config, numbers[i].name);
        const enum status status = cli_number(numbers[i].name, text, numbers[i].value, err);
        if (status != STATUS_OK) return status;
    }
    out->seed = config_u64(cli->config, "seed");
    out->requests = (uint32_t)config_u64(cli->config, "requests");
    out->sessions = (uint32_t)config_u64(cli->config, "sessions");
    out->roots = (uint32_t)config_u64(cli->config, "roots");
    out->input_max = (uint32_t)config_u64(cli->config, "input-max");
    out->block_tokens = (uint32_t)config_u64(cli->config, "trace-block");
    return STATUS_OK;
}

static enum status write_trace(struct cli *cli, const struct trace *trace, struct errmsg *err)
{
    const char *path = config_text(cli->config, "out");
    struct buf text;

    buf_init(&text, OUT_SIZE_MAX);
    enum status status = trace_write(trace, &text);
    if (status != STATUS_OK)
        errmsg_set(err, status, "the trace is larger than %d bytes", OUT_SIZE_MAX);
    else if (path[0] != '\0')
        status = env_file_replace(cli->env, path, buf_data(&text), text.len, err);
    else if (fwrite(buf_data(&text), 1, text.len, stdout) != text.len)
        status = errmsg_set(err, STATUS_IO, "standard output is closed");
    buf_fini(&text);
    return status;
}

static int trace_command_gen(struct cli *cli)
{
    struct trace_gen_options options;
    struct trace *trace = NULL;
    struct errmsg err = { "" };

    if (config_positions(cli->config) != 1)
        return cli_refuse("trace gen takes no FILE; --out FILE says where to write");
    enum status status = read_gen_options(cli, &options, &err);
    if (status == STATUS_OK) status = trace_gen(&options, &trace, &err);
    if (status == STATUS_OK) status = write_trace(cli, trace, &err);
    trace_destroy(trace);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("trace gen: %s", err.text);
}

int cmd_trace(struct cli *cli)
{
    const char *verb = config_position(cli->config, 0);

    if (strcmp(verb, "stat") == 0) return trace_command_stat(cli);
    if (strcmp(verb, "gen") == 0) return trace_command_gen(cli);
    if (strcmp(verb, "record") == 0) return trace_record(cli);
    return cli_refuse("trace: `%s` is neither stat, gen nor record", verb);
}
