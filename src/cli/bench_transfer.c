/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/log.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "transfer/bench.h"

static enum status run(struct cli *cli, struct transfer_bench *bench, struct errmsg *err)
{
    const char *peer = config_text(cli->config, "peer");

    if (peer[0] == '\0') return transfer_bench(bench, err);
    return transfer_bench_peer(bench, peer, config_text(cli->config, "secret"), err);
}

enum status bench_transfer_serve(struct cli *cli, struct errmsg *err)
{
    const char *listen = config_text(cli->config, "listen");
    struct transfer_bench_server *server;

    cli_hold_signals(cli);
    const enum status status =
        transfer_bench_serve(cli->env, listen, config_text(cli->config, "secret"), &server, err);
    if (status != STATUS_OK) return status;
    LOG_INFO("cli", "bench_ready", "listen=%s", listen);
    cli_run_until_signal(cli, NULL, NULL);
    transfer_bench_server_close(server);
    return STATUS_OK;
}

enum status bench_transfer(struct cli *cli, struct report *report, struct errmsg *err)
{
    static struct transfer_bench bench;

    bench = (struct transfer_bench){ .only = config_positions(cli->config) > 1
                                                 ? config_position(cli->config, 1)
                                                 : NULL };
    const enum status status = run(cli, &bench, err);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < bench.count; i++) {
        const struct transfer_bench_row *from = &bench.rows[i];
        struct report_row *row = report_add(report, from->name, from->value, from->unit);
        /* the ratio is the median of the pairs */
        if (from->yardstick != NULL) row->baseline = from->value / from->ratio;
        row->low = from->ratio_low;
        row->high = from->ratio_high;
        if (from->target > 0) row->kind = from->at_most ? REPORT_AT_MOST : REPORT_AT_LEAST;
        row->target = from->target;
        memcpy(row->skipped, from->skipped, sizeof(row->skipped));
    }
    return STATUS_OK;
}
