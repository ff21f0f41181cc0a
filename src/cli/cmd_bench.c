/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/bench.h"
#include "cli/bench_store.h"
#include "cli/cli.h"
#include "cli/report.h"

struct bench {
    const char *name;
    enum status (*run)(struct cli *cli, struct report *report, struct errmsg *err);
};

static const struct bench benches[] = {
    { "engine", bench_engine }, { "serve", bench_serve },       { "gateway", bench_gateway },
    { "store", bench_store },   { "transfer", bench_transfer }, { "conductor", bench_conductor },
    { "sim", bench_sim },
};

static bool is_load(const struct config *config)
{
    return strcmp(config_position(config, 0), "store") == 0 && config_positions(config) > 1 &&
           strcmp(config_position(config, 1), "load") == 0;
}

static int run_load(struct cli *cli)
{
    struct errmsg err = { "" };
    const char *name = config_positions(cli->config) > 2 ? config_position(cli->config, 2) : "";
    if (bench_store_load(cli, name, &err) == STATUS_OK) return CLI_EXIT_OK;
    return cli_refuse("%s", err.text);
}

int cmd_bench(struct cli *cli)
{
    const char *name = config_position(cli->config, 0);
    struct errmsg err = { "out of memory" };

    if (strcmp(name, "transfer") == 0 && config_text(cli->config, "listen")[0] != '\0') {
        if (bench_transfer_serve(cli, &err) != STATUS_OK) return cli_refuse("%s", err.text);
        return CLI_EXIT_OK;
    }
    if (is_load(cli->config)) return run_load(cli);
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++) {
        struct report report = { .bench = benches[i].name };
        if (strcmp(benches[i].name, name) != 0) continue;
        if (benches[i].run(cli, &report, &err) != STATUS_OK) return cli_refuse("%s", err.text);
        if (report.count == 0) {
            return cli_refuse("no row of the bench `%s` has `%s` in its name", name,
                              config_position(cli->config, 1));
        }
        report_print(&report, config_bool(cli->config, "json"));
        return CLI_EXIT_OK;
    }
    return cli_refuse("no bench `%s`; engine, serve, gateway, store, transfer, conductor or sim",
                      name);
}
