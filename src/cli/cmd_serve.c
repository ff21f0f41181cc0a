/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_serve.c - a whole cluster on this machine: a master, a gateway, and nodes of both roles,
 * as the same processes with the same protocols that several machines would run.
 *
 * What can be wrong with the command line, the model file or the port is found here, before
 * anything is started, so that it is said once. The children know each other by the master's port,
 * taken from the free ones, and by a secret made for this run unless one is given. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/disk_keys.h"
#include "cli/fetch.h"
#include "infer/timed.h"
#include "model/model.h"
#include "net/http_client.h"
#include "net/tls.h"
#include "conductor/slo.h"
#include "serve/supervisor.h"
#include "store/ssd_seal.h"

enum { CPUS_SIZE = 256 }; /* of one node */
enum { WORDS_MAX = 96, WORD_SIZE = 64, SECRET_BYTES = 24, READY_POLL_MS = 10, DATA_DIRS_MAX = 8 };

struct serve {
    struct cli *cli;
    struct supervisor *supervisor;
    char model[CLI_PATH_SIZE];
    char model_name[128]; /* as clients call it */
    char program[CLI_PATH_SIZE];
    char master[WORD_SIZE];
    char address[WORD_SIZE];  /* of the gateway, as a client on this machine reaches it */
    char data[CLI_PATH_SIZE]; /* directory of the disk tier; "": none */
    struct env_file *data_lock;
    struct tls_identity *anybody; /* whom the probe believes, with HTTPS */
    uint64_t started_ns;
    struct env_timer probe;
    uint32_t nodes; /* started so far */
    int exit_code;
};

/* How many nodes of each role. */
struct counts {
    unsigned prefill, decode, coupled;
};

/* Coupled nodes need no others: those are only there besides if they were asked for. */
static struct counts counts_of(const struct config *config)
{
    const unsigned coupled = (unsigned)config_u64(config, "coupled");
    const bool prefills = coupled == 0 || config_is_set(config, "prefill");
    const bool decodes = coupled == 0 || config_is_set(config, "decode");

    return (struct counts){ .prefill = prefills ? (unsigned)config_u64(config, "prefill") : 0,
                            .decode = decodes ? (unsigned)config_u64(config, "decode") : 0,
                            .coupled = coupled };
}

/* ---- command lines ---- */

struct words {
    const char *argv[WORDS_MAX];
    size_t count;
};

static void add(struct words *words, const char *word)
{
    if (words->count + 1 < WORDS_MAX) words->argv[words->count++] = word;
}

/* Passes an option on as it was given to us; its number is formatted into `text`. */
static void pass_u64(struct words *words, const struct config *config, const char *flag,
                     char text[WORD_SIZE])
{
    snprintf(text, WORD_SIZE, "%" PRIu64, config_u64(config, flag + 2));
    add(words, flag);
    add(words, text);
}

static void pass_text(struct words *words, const struct config *config, const char *flag)
{
    const char *value = config_text(config, flag + 2);
    if (value[0] == '\0') return;
    add(words, flag);
    add(words, value);
}

/* In nanoseconds, which every duration is read in. */
static void pass_duration(struct words *words, const struct config *config, const char *flag,
                          char value[WORD_SIZE])
{
    snprintf(value, WORD_SIZE, "%lluns", (unsigned long long)config_u64(config, flag + 2));
    add(words, flag);
    add(words, value);
}

static void pass_log(struct words *words, const struct serve *serve)
{
    add(words, "--log");
    add(words,
        config_is_set(serve->cli->config, "log") ? config_text(serve->cli->config, "log") : "warn");
}

static void pass_common(struct words *words, const struct serve *serve)
{
    add(words, config_bool(serve->cli->config, "pool") ? "--pool" : "--no-pool");
    pass_log(words, serve);
}

static enum status start_master(struct serve *serve, struct errmsg *err)
{
    struct words words = { { serve->program, "master", "--listen", serve->master }, 4 };
    pass_log(&words, serve);
    return supervisor_start(serve->supervisor, "master", words.argv, err);
}

/* What a modelled machine costs is no prior for the real one: it is kept apart. */
static bool timed_profile(const struct serve *serve, char out[CLI_PATH_SIZE])
{
    char part[WORD_SIZE + sizeof(serve->model_name)];

    if (!cli_engine_is_timed(serve->cli) || config_is_set(serve->cli->config, "profile") ||
        strchr(serve->model_name, '/') != NULL)
        return false;
    snprintf(part, sizeof(part), "profiles/%s-timed.json", serve->model_name);
    return cli_cache_path(part, out, NULL) == STATUS_OK;
}

static enum status start_gateway(struct serve *serve, struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    struct words words = { { serve->program, "gateway", serve->model, "--master", serve->master,
                             "--served-model-name", serve->model_name },
                           7 };
    char port[WORD_SIZE], context[WORD_SIZE], profile[CLI_PATH_SIZE], stretch[WORD_SIZE],
        inline_tbt[WORD_SIZE], hot[WORD_SIZE], group[WORD_SIZE];
    char ttft[WORD_SIZE], tbt[WORD_SIZE], window[WORD_SIZE], dwell[WORD_SIZE], drain[WORD_SIZE],
        patience[WORD_SIZE];

    pass_text(&words, config, "--host");
    pass_text(&words, config, "--tls-cert");
    pass_text(&words, config, "--tls-key");
    pass_u64(&words, config, "--port", port);
    pass_text(&words, config, "--chat-template");
    pass_u64(&words, config, "--max-model-len", context);
    if (timed_profile(serve, profile)) {
        add(&words, "--profile");
        add(&words, profile);
    } else {
        pass_text(&words, config, "--profile");
    }
    pass_text(&words, config, "--placement");
    pass_text(&words, config, "--policy");
    pass_text(&words, config, "--slo-class");
    pass_text(&words, config, "--api-keys");
    if (!config_bool(config, "door")) add(&words, "--no-door");
    pass_u64(&words, config, "--stretch", stretch);
    pass_duration(&words, config, "--inline-tbt", inline_tbt);
    pass_u64(&words, config, "--group-max", group);
    if (config_bool(config, "replicate")) add(&words, "--replicate");
    pass_u64(&words, config, "--replicate-hot", hot);
    pass_duration(&words, config, "--ttft-slo", ttft);
    pass_duration(&words, config, "--tbt-slo", tbt);
    if (config_bool(config, "elastic")) add(&words, "--elastic");
    pass_duration(&words, config, "--elastic-window", window);
    pass_duration(&words, config, "--elastic-dwell", dwell);
    pass_duration(&words, config, "--elastic-drain", drain);
    pass_duration(&words, config, "--drain-timeout", patience);
    add(&words, "--drain-grace"); /* nobody stands in front of it who would look elsewhere */
    add(&words, "0s");
    pass_common(&words, serve);
    return supervisor_start(serve->supervisor, "gateway", words.argv, err);
}

static enum status start_node(struct serve *serve, const char *role, unsigned number,
                              struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    char name[WORD_SIZE], pool[WORD_SIZE], threads[WORD_SIZE], block[WORD_SIZE], context[WORD_SIZE],
        answer[WORD_SIZE], ssd[WORD_SIZE], values[WORD_SIZE], values_ssd[WORD_SIZE],
        patience[WORD_SIZE], handover[WORD_SIZE], cpus[CPUS_SIZE], data[CLI_PATH_SIZE + WORD_SIZE];
    struct words words = { { serve->program, "node", serve->model, "--role", role, "--master",
                             serve->master, "--name", name },
                           9 };

    snprintf(name, sizeof(name), "%s-%u", role, number);
    pass_u64(&words, config, "--pool-size", pool);
    pass_u64(&words, config, "--values-size", values);
    pass_u64(&words, config, "--threads", threads);
    if (config_text(config, "cpus")[0] != '\0') {
        const enum status status =
            cli_cpus_part(config_text(config, "cpus"), serve->nodes, cpus, sizeof(cpus), err);
        if (status != STATUS_OK) return status;
        add(&words, "--cpus");
        add(&words, cpus);
    }
    serve->nodes++;
    pass_u64(&words, config, "--block-tokens", block);
    pass_u64(&words, config, "--max-model-len", context);
    pass_text(&words, config, "--kv-type");
    pass_text(&words, config, "--isa");
    if (config_bool(config, "transfer-encrypt")) add(&words, "--transfer-encrypt");
    if (config_bool(config, "pool-populate")) add(&words, "--pool-populate");
    if (cli_engine_is_timed(serve->cli)) {
        pass_text(&words, config, "--engine");
        pass_text(&words, config, "--engine-profile");
        pass_text(&words, config, "--engine-speed");
        pass_u64(&words, config, "--engine-answer", answer);
    }
    if (serve->data[0] != '\0') {
        snprintf(data, sizeof(data), "%s/%s", serve->data, name);
        add(&words, "--data-dir");
        add(&words, data);
        pass_u64(&words, config, "--ssd-size", ssd);
        pass_u64(&words, config, "--values-ssd-size", values_ssd);
        pass_text(&words, config, "--ssd-key-file");
        pass_text(&words, config, "--ssd-compress");
    }
    pass_duration(&words, config, "--drain-timeout", patience);
    pass_duration(&words, config, "--handover-timeout", handover);
    pass_common(&words, serve);
    return supervisor_start(serve->supervisor, name, words.argv, err);
}

static enum status start_nodes(struct serve *serve, const char *role, unsigned count,
                               struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (unsigned i = 0; status == STATUS_OK && i < count; i++)
        status = start_node(serve, role, i, err);
    return status;
}

/* In the order in which they need each other: the gateway finishes what it has before its nodes are
 * asked to end. */
static enum status start_all(struct serve *serve, struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    const struct counts counts = counts_of(config);
    enum status status = start_master(serve, err);
    supervisor_next_stage(serve->supervisor);
    if (status == STATUS_OK) status = start_nodes(serve, "prefill", counts.prefill, err);
    if (status == STATUS_OK) status = start_nodes(serve, "decode", counts.decode, err);
    if (status == STATUS_OK) status = start_nodes(serve, "both", counts.coupled, err);
    supervisor_next_stage(serve->supervisor);
    return status == STATUS_OK ? start_gateway(serve, err) : status;
}

/* ---- before anything is started ---- */

static void name_model(struct serve *serve)
{
    const char *given = config_text(serve->cli->config, "served-model-name");
    const char *model = config_position(serve->cli->config, 0);
    const char *end = model + (fetch_is_url(model) ? strcspn(model, "?#") : strlen(model));
    const char *slash = memrchr(model, '/', (size_t)(end - model));
    const char *base = slash != NULL ? slash + 1 : model;

    if (given[0] != '\0') {
        base = given;
        end = given + strlen(given);
    }
    snprintf(serve->model_name, sizeof(serve->model_name), "%.*s", (int)(end - base), base);
    char *suffix = strstr(serve->model_name, ".gguf");
    if (given[0] == '\0' && suffix != NULL && suffix != serve->model_name) *suffix = '\0';
}

static enum status check_cpus(struct serve *serve, struct errmsg *err)
{
    const struct counts counts = counts_of(serve->cli->config);
    const char *lists = config_text(serve->cli->config, "cpus");
    enum status status = STATUS_OK;
    char cpus[CPUS_SIZE];

    if (lists[0] == '\0') return STATUS_OK;
    for (uint32_t i = 0; i < counts.prefill + counts.decode + counts.coupled; i++)
        if (status == STATUS_OK) status = cli_cpus_part(lists, i, cpus, sizeof(cpus), err);
    return status;
}

static enum status check_model(struct serve *serve, struct errmsg *err)
{
    struct env *env = serve->cli->env;
    struct model *model = NULL;

    enum status status =
        cli_model_path(env, config_position(serve->cli->config, 0), serve->model, err);
    if (status == STATUS_OK) status = model_open(env, serve->model, &model, err);
    model_destroy(model);
    return status;
}

static enum status check_engine(struct serve *serve, struct errmsg *err)
{
    struct timed_profile profile;
    return cli_engine_is_timed(serve->cli) ? cli_timed_profile(serve->cli, &profile, err)
                                           : STATUS_OK;
}

/* Are the certificates good? And who looks whether the gateway is ready reaches it on this machine,
 * whatever name its certificate has. */
static enum status check_tls(struct serve *serve, struct errmsg *err)
{
    const struct tls_files anybody = { .anybody = true };
    struct tls_identity *identity = NULL;

    const enum status status = cli_http_tls(serve->cli, "", &identity, err);
    if (status != STATUS_OK || identity == NULL) return status;
    tls_identity_destroy(identity);
    return tls_identity_load(serve->cli->env, &anybody, &serve->anybody, err);
}

static enum status check_classes(struct serve *serve, struct errmsg *err)
{
    struct slo_classes classes;
    return slo_parse(config_text(serve->cli->config, "slo-class"), &classes, err);
}

/* ---- the directory of the disk tier ---- */

static enum status data_lock(struct serve *serve, const char *directory, struct errmsg *err)
{
    struct env *env = serve->cli->env;
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_LOCK;
    char path[CLI_PATH_SIZE + WORD_SIZE];

    enum status status = env_make_dirs(env, directory, err);
    snprintf(path, sizeof(path), "%s/lock", directory);
    if (status == STATUS_OK) status = env_file_open(env, path, flags, &serve->data_lock, err);
    if (status == STATUS_OK) snprintf(serve->data, sizeof(serve->data), "%s", directory);
    return status;
}

/* Several serves of one user take one directory each, always the first that is free, so that one
 * that starts again finds what it had. Without any, it serves without a disk. */
static void take_default_data(struct serve *serve)
{
    char directory[CLI_PATH_SIZE], name[WORD_SIZE];
    struct errmsg err = { "" };
    enum status status = STATUS_EXISTS;

    for (unsigned i = 0; i < DATA_DIRS_MAX && status == STATUS_EXISTS; i++) {
        snprintf(name, sizeof(name), "data/%u", i);
        status = cli_cache_path(name, directory, &err);
        if (status == STATUS_OK) status = data_lock(serve, directory, &err);
    }
    if (status != STATUS_OK) LOG_WARN("cli", "no_disk_tier", "reason=%s", err.text);
}

static enum status take_data(struct serve *serve, struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    const char *given = config_text(config, "data-dir");

    const uint64_t wanted = config_u64(config, "ssd-size") + config_u64(config, "values-ssd-size");

    if (wanted == 0 || !config_bool(config, "pool")) return STATUS_OK;
    if (cli_engine_is_timed(serve->cli)) return STATUS_OK;
    struct ssd_keys keys; /* the nodes read them again; here is who can say what is wrong */
    const enum status readable = disk_keys_load(serve->cli, &keys, err);
    explicit_bzero(&keys, sizeof(keys));
    if (readable != STATUS_OK) return readable;
    uint32_t level; /* likewise */
    const enum status packable = disk_packing_load(serve->cli, &level, err);
    if (packable != STATUS_OK) return packable;
    if (given[0] == '\0') {
        take_default_data(serve);
        return STATUS_OK;
    }
    struct errmsg why = { "" };
    const enum status status = data_lock(serve, given, &why);
    if (status == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, status, "--data-dir: %s", why.text);
}

static void on_nobody(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

static enum status check_port(struct serve *serve, struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    const char *host = config_text(config, "host");
    const unsigned port = (unsigned)config_u64(config, "port");
    struct env_listener *listener = NULL;
    char listen[WORD_SIZE];

    if (snprintf(listen, sizeof(listen), "%s:%u", host, port) >= (int)sizeof(listen))
        return errmsg_set(err, STATUS_INVALID, "--host: the name is too long");
    enum status status = env_listen(serve->cli->env, listen, on_nobody, NULL, &listener, err);
    env_listener_close(listener);
    const bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0 || host[0] == '\0';
    snprintf(serve->address, sizeof(serve->address), "%s:%u", any ? "127.0.0.1" : host, port);
    return status;
}

static enum status choose_master_port(struct serve *serve, struct errmsg *err)
{
    const struct config *config = serve->cli->config;
    struct env_listener *listener = NULL;

    if (config_is_set(config, "master")) {
        snprintf(serve->master, sizeof(serve->master), "%s", config_text(config, "master"));
        return STATUS_OK;
    }
    enum status status =
        env_listen(serve->cli->env, "127.0.0.1:0", on_nobody, NULL, &listener, err);
    if (status == STATUS_OK)
        snprintf(serve->master, sizeof(serve->master), "127.0.0.1:%u",
                 (unsigned)env_listener_port(listener));
    env_listener_close(listener);
    return status;
}

/* Children read it from their environment, where other users cannot look. */
static void make_secret(struct serve *serve)
{
    uint8_t bytes[SECRET_BYTES];
    char text[2 * SECRET_BYTES + 1];

    if (config_text(serve->cli->config, "secret")[0] != '\0') {
        setenv("YOLK_SECRET", config_text(serve->cli->config, "secret"), 1);
        return;
    }
    env_random(serve->cli->env, bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    setenv("YOLK_SECRET", text, 1);
}

/* ---- readiness ---- */

static void announce(struct serve *serve)
{
    const struct config *config = serve->cli->config;
    const uint64_t ms = (env_now_ns(serve->cli->env) - serve->started_ns) / ENV_NS_PER_MS;

    const char *scheme = serve->anybody != NULL ? "https" : "http";
    const struct counts counts = counts_of(config);
    char coupled[WORD_SIZE] = "";

    if (counts.coupled > 0) snprintf(coupled, sizeof(coupled), ", %u coupled", counts.coupled);

    printf("\nYolk serves %s on %s://%s, ready in %.2f s "
           "(%u prefill, %u decode%s; Ctrl-C stops). Try:\n\n"
           "curl %s://%s/v1/chat/completions -H 'Content-Type: application/json' -d '"
           "{\"model\": \"%s\", \"messages\": [{\"role\": \"user\", \"content\": "
           "\"Explain in one sentence why the sky is blue.\"}], \"temperature\": 0, "
           "\"max_tokens\": 64}'\n\n",
           serve->model_name, scheme, serve->address, (double)ms / 1e3, counts.prefill,
           counts.decode, coupled, scheme, serve->address, serve->model_name);
    fflush(stdout);
}

static void probe_later(struct serve *serve)
{
    env_timer_set(serve->cli->env, &serve->probe,
                  env_now_ns(serve->cli->env) + READY_POLL_MS * ENV_NS_PER_MS);
}

static void on_probe_done(void *ctx, const struct http_reply *reply)
{
    struct serve *serve = ctx;
    if (reply->status != STATUS_OK || reply->code != 200)
        probe_later(serve);
    else
        announce(serve);
}

static void probe(void *ctx)
{
    struct serve *serve = ctx;
    struct http_client *client = NULL;
    const struct http_client_options options = {
        .address = serve->address,
        .method = "GET",
        .path = "/ready",
        .identity = serve->anybody,
        .deadline_ns = env_now_ns(serve->cli->env) + ENV_NS_PER_S,
        .on_done = on_probe_done,
        .ctx = serve,
    };
    if (http_client_start(serve->cli->env, &options, &client, NULL) != STATUS_OK)
        probe_later(serve);
}

/* ---- running ---- */

static void on_done(void *ctx, bool user_error)
{
    struct serve *serve = ctx;
    serve->exit_code = user_error ? CLI_EXIT_USER : CLI_EXIT_OK;
    env_stop(serve->cli->env);
}

static void on_stop(void *ctx)
{
    struct serve *serve = ctx;
    supervisor_stop(serve->supervisor);
}

int cmd_serve(struct cli *cli)
{
    struct serve serve = { .cli = cli, .started_ns = env_now_ns(cli->env) };
    const struct supervisor_options options = {
        .env = cli->env,
        .on_done = on_done,
        .ctx = &serve,
        .grace_ms = (uint32_t)(config_u64(cli->config, "drain-timeout") / ENV_NS_PER_MS) +
                    SUPERVISOR_GRACE_MS,
    };
    struct errmsg err = { "" };

    name_model(&serve);
    make_secret(&serve);
    if (check_cpus(&serve, &err) != STATUS_OK || check_model(&serve, &err) != STATUS_OK ||
        check_engine(&serve, &err) != STATUS_OK || check_classes(&serve, &err) != STATUS_OK ||
        check_tls(&serve, &err) != STATUS_OK || check_port(&serve, &err) != STATUS_OK ||
        take_data(&serve, &err) != STATUS_OK || choose_master_port(&serve, &err) != STATUS_OK ||
        env_real_self_path(serve.program, sizeof(serve.program)) != STATUS_OK ||
        supervisor_create(&options, &serve.supervisor) != STATUS_OK)
        return cli_refuse("%s", err.text);
    if (start_all(&serve, &err) != STATUS_OK) return cli_refuse("%s", err.text);
    env_timer_init(&serve.probe, probe, &serve);
    if (!config_bool(cli->config, "quiet")) env_timer_set(cli->env, &serve.probe, 0);
    cli_run_until_signal(cli, on_stop, &serve);
    env_timer_cancel(cli->env, &serve.probe);
    supervisor_destroy(serve.supervisor);
    env_file_close(serve.data_lock);
    tls_identity_destroy(serve.anybody);
    return serve.exit_code;
}
