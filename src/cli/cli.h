/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cli.h - what the subcommands share: the option table, exit codes, where files are.
 *
 * A subcommand is one function in its own file. It gets its options parsed, an env of its own and
 * the log set up, and returns the process's exit code. Only this directory prints to stdout, and
 * only it ends the process. What a user must fix is one line on stderr and CLI_EXIT_USER. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/status.h"

struct env;
struct sim_cluster;
struct timed_options;
struct timed_profile;
struct tokenizer;
struct trace;

enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1,
    CLI_EXIT_USER = 2, /* SUPERVISOR_EXIT_USER: starting again cannot help */
    CLI_PATH_SIZE = 4096,
};

/* Bits of config_option.scope. */
enum {
    CLI_SERVE = 1,
    CLI_GATEWAY = 2,
    CLI_MASTER = 4,
    CLI_NODE = 8,
    CLI_RUN = 16,
    CLI_MODEL = 32,
    CLI_BENCH = 64,
    CLI_VERSION = 128,
    CLI_TRACE = 256,
    CLI_SIM = 512,
    CLI_REPLAY = 1024,
    CLI_EXPLAIN = 2048,
    CLI_DEMO = 4096,
    CLI_PLAN = 8192,
    CLI_DOCTOR = 16384,
    CLI_METADATA = 32768,
    CLI_STORE = 65536,
    CLI_TOP = 131072,
};

struct cli {
    struct env *env;
    struct config *config;
};

int cmd_serve(struct cli *cli);
int cmd_gateway(struct cli *cli);
int cmd_master(struct cli *cli);
int cmd_node(struct cli *cli);
int cmd_run(struct cli *cli);
int cmd_model(struct cli *cli);
int cmd_bench(struct cli *cli);
int cmd_version(struct cli *cli);
int cmd_trace(struct cli *cli);
int cmd_sim(struct cli *cli);
int cmd_explain(struct cli *cli);
int cmd_replay(struct cli *cli);
int cmd_demo(struct cli *cli);
int cmd_plan(struct cli *cli);
int cmd_doctor(struct cli *cli);
int cmd_metadata(struct cli *cli);
int cmd_store(struct cli *cli);
int cmd_top(struct cli *cli);

/* options.c: every option of every subcommand. */
extern const struct config_option cli_options[];
extern const size_t cli_options_count;

/* Prints "yolk: <text>" on stderr and returns CLI_EXIT_USER. */
int cli_refuse(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Keeps SIGTERM and SIGINT for cli_run_until_signal(): to be called before threads are started,
 * which would otherwise take them and end the process. */
void cli_hold_signals(struct cli *cli);

/* Lets the loop poll as --poll-us says. */
void cli_set_poll(struct cli *cli);

/* Runs the loop until SIGTERM or SIGINT; then `stop` is called (NULL: the loop just ends), and what
 * it started may end the loop with env_stop(). */
void cli_run_until_signal(struct cli *cli, void (*stop)(void *ctx), void *ctx);

/* ---- certificates: identity.c ---- */

struct tls_files;
struct tls_identity;

/* Loads what --cluster-tls-* name, again if called again, for all RPC of the process that begins
 * from then on. STATUS_OK also where nothing is named; on failure what was there stays. */
MUST_USE enum status cli_cluster_tls(struct cli *cli, struct errmsg *err);
/* When no connection is left. */
void cli_cluster_tls_end(struct cli *cli);

/* What --tls-cert and --tls-key name; STATUS_INVALID where only one does. */
MUST_USE enum status cli_http_tls_files(const struct cli *cli, struct tls_files *out,
                                        struct errmsg *err);
/* The same as a server's identity, which asks clients for a certificate of the authorities in
 * `client_ca` ("": for none); NULL where they name nothing. The caller destroys it. */
MUST_USE enum status cli_http_tls(struct cli *cli, const char *client_ca, struct tls_identity **out,
                                  struct errmsg *err);

/* On SIGHUP the cluster's certificates are loaded again, and then what `more` (NULL: nothing)
 * loads; and API keys, whatever became of the certificates, by `keys` (NULL: there are none).
 * Before threads are started; *reload outlives the loop. */
struct cli_reload {
    struct cli *cli;
    enum status (*more)(void *ctx, struct errmsg *err);
    enum status (*keys)(void *ctx, struct errmsg *err);
    void *ctx;
};
void cli_reload_on_hang_up(struct cli_reload *reload);

/* The user's cache directory for Yolk ($XDG_CACHE_HOME or ~/.cache, then /yolk/<name>),
 * NUL-terminated; nothing is created. STATUS_INVALID when neither variable is set, or the path is
 * too long. */
MUST_USE enum status cli_cache_path(const char *name, char out[CLI_PATH_SIZE], struct errmsg *err);

/* Turns MODEL as users give it into a path: that of a file, which may not exist, of a known name,
 * which has been fetched, or of a URL, which is fetched now (cli/fetch.h). */
MUST_USE enum status cli_model_path(struct env *env, const char *model, char out[CLI_PATH_SIZE],
                                    struct errmsg *err);

/* The trace in the file; err names the line that is wrong. */
MUST_USE enum status cli_trace_read(struct cli *cli, const char *path, struct trace **out,
                                    struct errmsg *err);

/* The settings of the file in --cluster, if it is given, on top of what `out` has. */
MUST_USE enum status cli_cluster_read(struct cli *cli, struct sim_cluster *out, struct errmsg *err);

/* What --engine timed and the options beside it say: the costs, and all of it. `tokenizer` is
 * borrowed by *out. */
MUST_USE enum status cli_timed_profile(struct cli *cli, struct timed_profile *out,
                                       struct errmsg *err);
MUST_USE enum status cli_timed_options(struct cli *cli, const struct tokenizer *tokenizer,
                                       struct timed_options *out, struct errmsg *err);
bool cli_engine_is_timed(const struct cli *cli);

/* ---- CPUs: cpus.c ---- */

/* Keeps the process, and threads that it starts from now on, to the CPUs of the list, as "0,2-3";
 * "": to all that it has. STATUS_INVALID for no such list, and for CPUs that it may not use. */
MUST_USE enum status cli_bind_cpus(const char *list, struct errmsg *err);
/* The nth of several lists with '/' between them, which begin again behind the last. */
MUST_USE enum status cli_cpus_part(const char *lists, uint32_t nth, char *out, size_t size,
                                   struct errmsg *err);

/* `text`, the value of option `name`, as a finite number. */
MUST_USE enum status cli_number(const char *name, const char *text, double *out,
                                struct errmsg *err);

#endif
