/* SPDX-License-Identifier: Apache-2.0 */
#include "base/env.h"
#include "base/log.h"
#include "cli/cli.h"
#include "transfer/metadata_server.h"

int cmd_metadata(struct cli *cli)
{
    const char *listen = config_text(cli->config, "listen");
    const struct metadata_server_options options = {
        .listen = listen[0] != '\0' ? listen : "127.0.0.1:8080",
        .state_file = config_text(cli->config, "state-file"),
        .entries_max = (uint32_t)config_u64(cli->config, "entries-max"),
        .size_max = config_u64(cli->config, "size-max"),
    };
    struct metadata_server *server = NULL;
    struct errmsg err = { "out of memory" };

    if (metadata_server_create(cli->env, &options, &server, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    LOG_INFO("cli", "metadata_ready", "listen=%s port=%u entries=%u", options.listen,
             (unsigned)metadata_server_port(server), metadata_server_entries(server));
    cli_run_until_signal(cli, NULL, NULL);
    metadata_server_destroy(server);
    return CLI_EXIT_OK;
}
