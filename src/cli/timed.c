/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/timed.c - the machine that --engine timed stands for, from the options.
 *
 * Its costs are those of the simulator: a profile by name, or a cluster file (sim/cluster.h), so
 * that the same file makes `yolk sim` and a live cluster comparable. */
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "cli/cli.h"
#include "infer/timed.h"
#include "model/tokenizer.h"
#include "sim/cluster.h"

/* A word in plain letters with its blank, so that every token shows as text at once. */
static bool is_word(const void *ctx, uint32_t token)
{
    size_t len;
    const char *bytes = tokenizer_bytes(ctx, token, &len);

    if (tokenizer_is_special(ctx, token) || len < 3 || bytes[0] != ' ') return false;
    for (size_t i = 1; i < len; i++) {
        if (bytes[i] < 'a' || bytes[i] > 'z') return false;
    }
    return true;
}

static enum status read_costs(struct cli *cli, struct sim_profile *out, struct errmsg *err)
{
    const char *name = config_text(cli->config, "engine-profile");
    const struct sim_profile *known = sim_profile_find(name);
    struct sim_cluster cluster;
    char *text = NULL;
    size_t len = 0;

    if (known != NULL) {
        *out = *known;
        return STATUS_OK;
    }
    struct errmsg why = { "" };
    enum status status =
        env_file_read_all(cli->env, name, CLUSTER_FILE_SIZE_MAX, &text, &len, &why);
    if (status != STATUS_OK) {
        errmsg_set(err, status, "--engine-profile: not a profile's name, and %s", why.text);
        return status;
    }
    cluster_init(&cluster);
    status = cluster_parse(name, text, len, &cluster, err);
    free(text);
    if (status == STATUS_OK) *out = cluster.cost;
    return status;
}

enum status cli_timed_profile(struct cli *cli, struct timed_profile *out, struct errmsg *err)
{
    struct sim_profile cost;
    double speed = 1;

    *out = timed_profile_default;
    if (config_text(cli->config, "engine-profile")[0] != '\0') {
        const enum status status = read_costs(cli, &cost, err);
        if (status != STATUS_OK) return status;
        *out = (struct timed_profile){
            .prefill_fixed_s = cost.prefill_fixed_s,
            .prefill_new_s = cost.prefill_new_s,
            .prefill_square_s = cost.prefill_square_s,
            .prefill_reused_s = cost.prefill_reused_s,
            .decode_base_s = cost.decode_base_s,
            .decode_sequence_s = cost.decode_sequence_s,
            .decode_context_s = cost.decode_context_s,
        };
    }
    const char *text = config_text(cli->config, "engine-speed");
    const enum status status = cli_number("engine-speed", text, &speed, err);
    if (status != STATUS_OK) return status;
    out->speed = speed;
    out->answer_tokens = (double)config_u64(cli->config, "engine-answer");
    return timed_profile_check(out, err);
}

enum status cli_timed_options(struct cli *cli, const struct tokenizer *tokenizer,
                              struct timed_options *out, struct errmsg *err)
{
    *out = (struct timed_options){ .end_token = tokenizer_eos(tokenizer),
                                   .usable = is_word,
                                   .usable_ctx = tokenizer };
    return cli_timed_profile(cli, &out->profile, err);
}

bool cli_engine_is_timed(const struct cli *cli)
{
    return strcmp(config_text(cli->config, "engine"), "timed") == 0;
}
