/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/identity.c - certificates of a process: those of the cluster, those of HTTPS, and their
 * replacement on SIGHUP. */
#include <signal.h>

#include "base/env_real.h"
#include "base/log.h"
#include "cli/cli.h"
#include "net/rpc.h"
#include "net/tls.h"

static bool is_set(const struct cli *cli, const char *name)
{
    return config_text(cli->config, name)[0] != '\0';
}

/* ---- the cluster's ---- */

enum status cli_cluster_tls(struct cli *cli, struct errmsg *err)
{
    const struct tls_files files = {
        .cert = config_text(cli->config, "cluster-tls-cert"),
        .key = config_text(cli->config, "cluster-tls-key"),
        .ca = config_text(cli->config, "cluster-tls-ca"),
    };
    const bool any = is_set(cli, "cluster-tls-cert") || is_set(cli, "cluster-tls-key") ||
                     is_set(cli, "cluster-tls-ca");
    const bool all = is_set(cli, "cluster-tls-cert") && is_set(cli, "cluster-tls-key") &&
                     is_set(cli, "cluster-tls-ca");
    struct tls_identity *old = rpc_identity(cli->env), *identity = NULL;

    if (!any) return STATUS_OK;
    if (!all)
        return errmsg_set(err, STATUS_INVALID,
                          "--cluster-tls-ca, --cluster-tls-cert and --cluster-tls-key go together");
    const enum status status = tls_identity_load(cli->env, &files, &identity, err);
    if (status != STATUS_OK) return status;
    rpc_set_identity(cli->env, identity);
    tls_identity_destroy(old);
    return STATUS_OK;
}

void cli_cluster_tls_end(struct cli *cli)
{
    struct tls_identity *old = rpc_identity(cli->env);

    rpc_set_identity(cli->env, NULL);
    tls_identity_destroy(old);
}

/* ---- HTTPS ---- */

enum status cli_http_tls_files(const struct cli *cli, struct tls_files *out, struct errmsg *err)
{
    *out = (struct tls_files){ .cert = config_text(cli->config, "tls-cert"),
                               .key = config_text(cli->config, "tls-key") };
    if (is_set(cli, "tls-cert") == is_set(cli, "tls-key")) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--tls-cert and --tls-key go together");
}

enum status cli_http_tls(struct cli *cli, const char *client_ca, struct tls_identity **out,
                         struct errmsg *err)
{
    struct tls_files files;

    *out = NULL;
    const enum status status = cli_http_tls_files(cli, &files, err);
    if (status != STATUS_OK) return status;
    if (!is_set(cli, "tls-cert") && client_ca[0] != '\0')
        return errmsg_set(err, STATUS_INVALID, "--tls-client-ca needs --tls-cert and --tls-key");
    if (!is_set(cli, "tls-cert")) return STATUS_OK;
    files.ca = client_ca;
    return tls_identity_load(cli->env, &files, out, err);
}

/* ---- on SIGHUP ---- */

static bool has_certificates(const struct cli_reload *reload)
{
    return is_set(reload->cli, "cluster-tls-cert") ||
           (reload->more != NULL && is_set(reload->cli, "tls-cert"));
}

static bool has_keys(const struct cli_reload *reload)
{
    return reload->keys != NULL && is_set(reload->cli, "api-keys");
}

static void reload_certificates(const struct cli_reload *reload)
{
    struct errmsg err = { "" };
    enum status status = cli_cluster_tls(reload->cli, &err);

    if (status == STATUS_OK && reload->more != NULL) status = reload->more(reload->ctx, &err);
    if (status == STATUS_OK) {
        LOG_INFO("cli", "certificates_read", "text=%s", "for connections from now on");
    } else {
        LOG_ERROR("cli", "certificates_kept", "reason=%s", err.text);
    }
}

static void reload_keys(const struct cli_reload *reload)
{
    struct errmsg err = { "" };

    if (reload->keys(reload->ctx, &err) == STATUS_OK) {
        LOG_INFO("cli", "keys_read", "text=%s", "for requests from now on");
    } else {
        LOG_ERROR("cli", "keys_kept", "reason=%s", err.text);
    }
}

static void on_hang_up(void *ctx, int signo)
{
    const struct cli_reload *reload = ctx;

    (void)signo;
    if (has_certificates(reload)) reload_certificates(reload);
    if (has_keys(reload)) reload_keys(reload);
}

/* Without certificates and keys SIGHUP means what it always does. */
void cli_reload_on_hang_up(struct cli_reload *reload)
{
    if (!has_certificates(reload) && !has_keys(reload)) return;
    if (env_on_signal(reload->cli->env, SIGHUP, on_hang_up, reload) != STATUS_OK)
        LOG_WARN("cli", "signals_not_handled", "");
}
