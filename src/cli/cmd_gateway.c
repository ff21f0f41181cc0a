/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "cli/cli.h"
#include "net/tls.h"
#include "serve/gateway.h"

enum { DRAIN_POLL_MS = 20, ADDRESS_SIZE = 256 };

struct front {
    struct cli *cli;
    struct gateway *gateway;
    struct tls_identity *identity; /* NULL: HTTP */
    struct env_timer timer;
    uint64_t grace_end_ns; /* 0: no signal has come */
    uint64_t drain_end_ns;
};

static enum status load_identity(struct cli *cli, struct tls_identity **out, struct errmsg *err)
{
    return cli_http_tls(cli, config_text(cli->config, "tls-client-ca"), out, err);
}

static enum status on_reload(void *ctx, struct errmsg *err)
{
    struct front *front = ctx;
    struct tls_identity *identity = NULL;

    const enum status status = load_identity(front->cli, &identity, err);
    if (status != STATUS_OK || identity == NULL) return status;
    gateway_set_identity(front->gateway, identity);
    tls_identity_destroy(front->identity);
    front->identity = identity;
    return STATUS_OK;
}

static enum status on_reload_keys(void *ctx, struct errmsg *err)
{
    struct front *front = ctx;
    return gateway_reload_keys(front->gateway, err);
}

static void on_drain_tick(void *ctx)
{
    struct front *front = ctx;
    struct env *env = front->cli->env;
    const uint64_t now = env_now_ns(env);

    if (now >= front->drain_end_ns) {
        env_stop(env);
        return;
    }
    if (now >= front->grace_end_ns) {
        gateway_drain(front->gateway);
        if (gateway_idle(front->gateway)) {
            env_stop(env);
            return;
        }
    }
    env_timer_set(env, &front->timer, now + DRAIN_POLL_MS * ENV_NS_PER_MS);
}

/* The first signal finishes what is under way, the second does not. */
static void on_stop(void *ctx)
{
    struct front *front = ctx;
    const struct config *config = front->cli->config;
    const uint64_t now = env_now_ns(front->cli->env);

    if (front->grace_end_ns == 0) {
        gateway_leave(front->gateway);
        front->grace_end_ns = now + config_u64(config, "drain-grace");
        front->drain_end_ns = front->grace_end_ns + config_u64(config, "drain-timeout");
    } else {
        front->drain_end_ns = now;
    }
    env_timer_set(front->cli->env, &front->timer, now);
}

/* The profile is kept per model name; where there is no cache directory, none is. */
static const char *profile_path(const struct cli *cli, char out[CLI_PATH_SIZE])
{
    const char *given = config_text(cli->config, "profile");
    const char *name = config_text(cli->config, "served-model-name");
    const char *model = strrchr(config_position(cli->config, 0), '/');
    char part[256], directory[CLI_PATH_SIZE];

    if (given[0] != '\0') return given;
    if (name[0] == '\0') name = model != NULL ? model + 1 : config_position(cli->config, 0);
    snprintf(part, sizeof(part), "profiles/%.200s.json", name);
    if (strchr(name, '/') != NULL || cli_cache_path("profiles", directory, NULL) != STATUS_OK ||
        env_make_dirs(cli->env, directory, NULL) != STATUS_OK ||
        cli_cache_path(part, out, NULL) != STATUS_OK)
        return NULL;
    return out;
}

static double duration_ms(const struct config *config, const char *name)
{
    return (double)config_u64(config, name) / (double)ENV_NS_PER_MS;
}

/* Limits without a policy are kept by the one that is best at it. */
static enum status take_policies(const struct config *config, struct gateway_options *out,
                                 struct errmsg *err)
{
    const char *policy = config_text(config, "policy");

    /* The names are the option's choices. */
    if (yolk_placement_of(config_text(config, "placement"), &out->placement) != STATUS_OK)
        return errmsg_set(err, STATUS_INVALID, "--placement: no such policy");
    out->policy = YOLK_POLICY_ADAPTIVE;
    out->inline_tbt_ms = duration_ms(config, "inline-tbt");
    out->group_max = (uint32_t)config_u64(config, "group-max");
    out->door = config_bool(config, "door");
    out->stretch = (double)config_u64(config, "stretch");
    out->ttft_slo_ms = duration_ms(config, "ttft-slo");
    out->tbt_slo_ms = duration_ms(config, "tbt-slo");
    if (policy[0] == '\0' || yolk_policy_of(policy, &out->policy) == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID,
                      "--policy %.40s is not none, baseline, early, predict or adaptive", policy);
}

static enum status take_elastic(const struct config *config, struct gateway_options *out,
                                struct errmsg *err)
{
    struct yolk_elastic_options *elastic = &out->elastic;

    *elastic = yolk_elastic_defaults();
    elastic->on = config_bool(config, "elastic");
    elastic->window_ms = duration_ms(config, "elastic-window");
    elastic->dwell_ms = duration_ms(config, "elastic-dwell");
    elastic->drain_ms = duration_ms(config, "elastic-drain");
    if (elastic->window_ms >= 1 && elastic->window_ms <= YOLK_ELASTIC_MS_MAX &&
        elastic->dwell_ms <= YOLK_ELASTIC_MS_MAX && elastic->drain_ms <= YOLK_ELASTIC_MS_MAX)
        return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID,
                      "--elastic-window has to be 1ms to 24h, --elastic-dwell and --elastic-drain "
                      "at most 24h");
}

int cmd_gateway(struct cli *cli)
{
    const struct config *config = cli->config;
    struct front front = { .cli = cli };
    char model[CLI_PATH_SIZE], profile[CLI_PATH_SIZE], address[ADDRESS_SIZE];
    struct errmsg err = { "out of memory" };
    struct gateway_options options = {
        .version = YOLK_VERSION,
        .address = address,
        .master = config_text(config, "master"),
        .secret = config_text(config, "secret"),
        .model_path = model,
        .served_name = config_is_set(config, "served-model-name")
                           ? config_text(config, "served-model-name")
                           : NULL,
        .chat_template = config_text(config, "chat-template"),
        .profile_path = profile_path(cli, profile),
        .slo_classes = config_text(config, "slo-class"),
        .api_keys = config_text(config, "api-keys"),
        .replicate = config_bool(config, "replicate"),
        .replicate_hot = (uint32_t)config_u64(config, "replicate-hot"),
        .pool_off = !config_bool(config, "pool"),
        .context_max = (uint32_t)config_u64(config, "max-model-len"),
    };

    if (take_policies(config, &options, &err) != STATUS_OK ||
        take_elastic(config, &options, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    if (cli_model_path(cli->env, config_position(config, 0), model, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    snprintf(address, sizeof(address), "%s:%u", config_text(config, "host"),
             (unsigned)config_u64(config, "port"));
    if (cli_cluster_tls(cli, &err) != STATUS_OK ||
        load_identity(cli, &front.identity, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    options.identity = front.identity;
    if (gateway_create(cli->env, &options, &front.gateway, &err) != STATUS_OK)
        return cli_refuse("%s", err.text);
    LOG_INFO("cli", "gateway_listening", "address=%s", address);
    env_timer_init(&front.timer, on_drain_tick, &front);
    struct cli_reload reload = { cli, on_reload, on_reload_keys, &front };
    cli_reload_on_hang_up(&reload);
    cli_run_until_signal(cli, on_stop, &front);
    env_timer_cancel(cli->env, &front.timer);
    gateway_destroy(front.gateway);
    tls_identity_destroy(front.identity);
    cli_cluster_tls_end(cli);
    return CLI_EXIT_OK;
}
