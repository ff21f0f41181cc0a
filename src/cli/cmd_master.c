/* SPDX-License-Identifier: Apache-2.0 */
#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/quotas.h"
#include "net/rpc.h"
#include "store/master_metrics.h"
#include "store/master_shell.h"

static enum status quota_set(void *ctx, const struct yolk_store_tenant *tenant)
{
    struct store_master_shell *shell = ctx;
    const struct store_quota quota = { tenant->quota_bytes, tenant->quota_replicas };
    return store_master_quota(store_master_shell_directory(shell), tenant->name, &quota);
}

enum { CONNECTIONS_MAX = 16384 }; /* every node and every client has one */

int cmd_master(struct cli *cli)
{
    const char *listen = config_text(cli->config, "listen");
    const char *secret = config_text(cli->config, "secret");
    const struct rpc_server_options server_options = {
        .address = listen[0] != '\0' ? listen : "127.0.0.1:50051",
        .secret = secret,
        .name = "master",
        .connections_max = CONNECTIONS_MAX,
    };
    struct rpc_server *server = NULL;
    struct store_master_shell *shell = NULL;
    struct store_master_metrics *metrics = NULL;
    struct errmsg err = { "" };

    struct cli_reload reload = { .cli = cli };

    env_real_raise_files();
    if (cli_cluster_tls(cli, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    cli_reload_on_hang_up(&reload);
    if (rpc_server_create(cli->env, &server_options, &server, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    const struct store_master_shell_options options = {
        .env = cli->env,
        .server = server,
        .secret = secret,
        /* the choices are in the order of the policies */
        .master = { .eviction = (enum order_policy)config_choice(cli->config, "eviction"),
                    .keep_soft_pins = config_bool(cli->config, "keep-soft-pins"),
                    .tenants_listed = config_bool(cli->config, "tenants-listed"),
                    .hot_replicas = (uint32_t)config_u64(cli->config, "hot-replicas"),
                    .hot_reads = (uint32_t)config_u64(cli->config, "hot-reads") },
    };
    enum status status = store_master_shell_create(&options, &shell, &err);
    if (status == STATUS_OK) {
        status = quotas_parse(config_text(cli->config, "tenant-quota"), quota_set, shell, &err);
    }
    const char *metrics_listen = config_text(cli->config, "metrics-listen");
    if (status == STATUS_OK && metrics_listen[0] != '\0') {
        status = store_master_metrics_create(cli->env, store_master_shell_directory(shell),
                                             store_master_shell_tally(shell), metrics_listen,
                                             &metrics, &err);
    }
    if (metrics != NULL) {
        LOG_INFO("cli", "metrics_ready", "address=%s port=%u", metrics_listen,
                 (unsigned)store_master_metrics_port(metrics));
    }
    if (status == STATUS_OK) {
        LOG_INFO("cli", "master_ready", "address=%s port=%u", server_options.address,
                 (unsigned)rpc_server_port(server));
        cli_set_poll(cli);
        cli_run_until_signal(cli, NULL, NULL);
    }
    store_master_metrics_destroy(metrics);
    store_master_shell_destroy(shell);
    rpc_server_destroy(server);
    cli_cluster_tls_end(cli);
    return status == STATUS_OK ? CLI_EXIT_OK : cli_refuse("%s", err.text);
}
