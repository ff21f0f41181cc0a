/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cluster.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/json.h"
#include "sim/classes.h"
#include "sim/failure.h"

enum setting_kind {
    SETTING_TEXT,
    SETTING_NUMBER,
    SETTING_WHOLE,
    SETTING_BOOL,
    SETTING_CHOICE,
    SETTING_PROFILE
};
enum { SETTING_SIZE = 64, VALUE_SIZE = CLUSTER_TEXT_SIZE };

struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset;
    double min, max;
    const char *const *choices;
    const char *help;
};

static const char *const systems[] = { "mooncake", "vllm", "vllm-prefix", "vllm-chunked", NULL };
static const char *const policies[] = { "global", "local",  "match",       "load",
                                        "count",  "random", "round-robin", NULL };
static const char *const overloads[] = { "none", "baseline", "early", "predict", "adaptive", NULL };
static const char *const stores[] = { "measured", "layerwise", "serialized", NULL };

#define AT(field) offsetof(struct sim_cluster, field)
#define COST(field) offsetof(struct sim_cluster, cost.field)

/* The profile is first: the costs behind it replace its own. */
static const struct setting settings_table[] = {
    { "profile", SETTING_PROFILE, AT(cost), 0, 0, NULL, "hardware: a800, a800-lone or h800" },
    { "system", SETTING_CHOICE, AT(system), 0, 0, systems, "what runs on the nodes" },
    { "policy", SETTING_CHOICE, AT(policy), 0, 0, policies, "which node a request goes to" },
    { "overload", SETTING_CHOICE, AT(overload), 0, 0, overloads, "what is refused" },
    { "prefill", SETTING_WHOLE, AT(prefill), 1, CLUSTER_NODES_MAX, NULL, "prefill nodes" },
    { "decode", SETTING_WHOLE, AT(decode), 1, CLUSTER_NODES_MAX, NULL, "decode nodes" },
    { "nodes", SETTING_WHOLE, AT(nodes), 1, CLUSTER_NODES_MAX, NULL, "coupled nodes" },
    { "dram_tokens", SETTING_NUMBER, AT(dram_tokens), 0, 1e12, NULL, "pool in a node's DRAM" },
    { "ssd_tokens", SETTING_NUMBER, AT(ssd_tokens), 0, 1e12, NULL, "pool on a node's SSD" },
    { "nic_gbps", SETTING_NUMBER, AT(nic_gbps), 0, 1e6, NULL, "of a node; 0: the profile's" },
    { "batch_max", SETTING_WHOLE, AT(batch_max), 1, 65536, NULL, "sequences a node decodes" },
    { "prompt_tokens_max", SETTING_NUMBER, AT(prompt_tokens_max), 1, 1e9, NULL, "at once" },
    { "theta", SETTING_NUMBER, AT(theta), 1, 1e6, NULL, "fetch only what is so much longer" },
    { "group_max", SETTING_WHOLE, AT(group_max), 1, 8, NULL, "prefill nodes that share a prompt" },
    { "inline_tbt_ms", SETTING_NUMBER, AT(inline_tbt_ms), 0, 3.6e6, NULL,
      "of a step with a short prefill in it; 0: none has one" },
    { "layerwise", SETTING_BOOL, AT(layerwise), 0, 0, NULL, "KV is sent while computed" },
    { "store", SETTING_CHOICE, AT(store), 0, 0, stores, "KV into DRAM after a prefill" },
    { "learn", SETTING_BOOL, AT(learn), 0, 0, NULL, "the conductor goes on fitting costs" },
    { "replicate", SETTING_BOOL, AT(replicate), 0, 0, NULL, "hot prefixes are copied" },
    { "tiers", SETTING_BOOL, AT(tiers), 0, 0, NULL, "placement knows what is on SSD" },
    { "congestion", SETTING_BOOL, AT(congestion), 0, 0, NULL, "busy senders count" },
    { "elastic", SETTING_BOOL, AT(elastic), 0, 0, NULL, "nodes change between the roles" },
    { "elastic_window_s", SETTING_NUMBER, AT(elastic_window_s), 1, 86400, NULL, "of demand" },
    { "elastic_dwell_s", SETTING_NUMBER, AT(elastic_dwell_s), 0, 86400, NULL, "in a role" },
    { "regret", SETTING_BOOL, AT(regret), 0, 0, NULL, "decisions are judged in hindsight" },
    { "failures", SETTING_TEXT, AT(failures), 0, 0, NULL, "like p0@100+30 d2@15+60" },
    { "classes", SETTING_TEXT, AT(classes), 0, 0, NULL, "like a=ttft:2s priority:1;b=ttft:none" },
    { "class_shares", SETTING_TEXT, AT(class_shares), 0, 0, NULL, "of requests, like 30 70" },
    { "mtbf_s", SETTING_NUMBER, AT(mtbf_s), 0, 1e8, NULL, "of a machine, by chance; 0: none stop" },
    { "mttr_s", SETTING_NUMBER, AT(mttr_s), 1e-3, 4e6, NULL, "that it is down then" },
    { "fail_forget_s", SETTING_NUMBER, AT(fail_forget_s), 0, 1e8, NULL, "until it is removed" },
    { "ttft_limit_s", SETTING_NUMBER, AT(ttft_limit_s), 1e-3, 1e6, NULL, "of a good answer" },
    { "tbt_limit_ms", SETTING_NUMBER, AT(tbt_limit_ms), 1e-3, 1e9, NULL, "of a good answer" },
    { "admit_ttft_s", SETTING_NUMBER, AT(admit_ttft_s), 0, 3600, NULL, "overload's; 0: none" },
    { "admit_tbt_ms", SETTING_NUMBER, AT(admit_tbt_ms), 0, 3.6e6, NULL, "overload's; 0: none" },
    { "stretch", SETTING_NUMBER, AT(stretch), 0, 1000, NULL,
      "short prompts go first; 0: in order" },
    { "node_checks", SETTING_BOOL, AT(node_checks), 0, 0, NULL,
      "decode nodes hold the limit by themselves" },
    { "first_at_prefill", SETTING_BOOL, AT(first_at_prefill), 0, 0, NULL,
      "first tokens do not wait for the decode node" },
    { "lengths_known", SETTING_BOOL, AT(lengths_known), 0, 0, NULL,
      "requests say how long their answer will be" },
    { "door", SETTING_BOOL, AT(door), 0, 0, NULL, "adaptive: wait at a full decode node" },
    { "decode_time_s", SETTING_NUMBER, AT(decode_time_s), 0, 3600, NULL, "predict's; 0: learned" },
    { "speed", SETTING_NUMBER, AT(speed), 1e-6, 1e6, NULL, "of the replay" },
    { "jitter_ms", SETTING_NUMBER, AT(jitter_ms), 0, 1e9, NULL, "of arrivals, at most" },
    { "output_max", SETTING_WHOLE, AT(output_max), 0, 1 << 24, NULL, "answers are cut there" },
    { "requests_max", SETTING_WHOLE, AT(requests_max), 0, 1 << 24, NULL, "of the trace" },
    { "sample_s", SETTING_NUMBER, AT(sample_s), 0.1, 1e6, NULL, "between samples of load" },
    { "seed", SETTING_WHOLE, AT(seed), 0, 9e15, NULL, "of chance" },
    { "cost.kv_token_bytes", SETTING_NUMBER, COST(kv_token_bytes), 1, 1e12, NULL, "" },
    { "cost.prefill_fixed_s", SETTING_NUMBER, COST(prefill_fixed_s), 0, 1e3, NULL, "" },
    { "cost.prefill_new_s", SETTING_NUMBER, COST(prefill_new_s), 0, 1e3, NULL, "a token" },
    { "cost.prefill_square_s", SETTING_NUMBER, COST(prefill_square_s), 0, 1, NULL, "" },
    { "cost.prefill_reused_s", SETTING_NUMBER, COST(prefill_reused_s), 0, 1e3, NULL, "a token" },
    { "cost.decode_base_s", SETTING_NUMBER, COST(decode_base_s), 1e-9, 1e3, NULL, "a step" },
    { "cost.decode_sequence_s", SETTING_NUMBER, COST(decode_sequence_s), 0, 1e3, NULL, "" },
    { "cost.decode_context_s", SETTING_NUMBER, COST(decode_context_s), 0, 1, NULL, "a token" },
    { "cost.decode_beside", SETTING_NUMBER, COST(decode_beside), 1, 100, NULL,
      "times a step, beside prefill nodes of its machine" },
    { "cost.nic_bytes_s", SETTING_NUMBER, COST(nic_bytes_s), 1, 1e15, NULL, "each way" },
    { "cost.load_bytes_s", SETTING_NUMBER, COST(load_bytes_s), 1, 1e15, NULL, "into the device" },
    { "cost.layers", SETTING_WHOLE, COST(layers), 1, 10000, NULL, "of the model" },
    { "cost.store_bytes_s", SETTING_NUMBER, COST(store_bytes_s), 1, 1e15, NULL, "into DRAM" },
    { "cost.store_launch_s", SETTING_NUMBER, COST(store_launch_s), 0, 1e3, NULL, "a layer" },
    { "cost.ssd_bytes_s", SETTING_NUMBER, COST(ssd_bytes_s), 1, 1e15, NULL, "reading" },
    { "cost.transfer_setup_s", SETTING_NUMBER, COST(transfer_setup_s), 0, 1e3, NULL, "" },
    { "cost.schedule_s", SETTING_NUMBER, COST(schedule_s), 0, 1e3, NULL, "before the queue" },
    { "cost.vram_tokens", SETTING_NUMBER, COST(vram_tokens), 1, 1e12, NULL, "of a node" },
    { "cost.activation_token_bytes", SETTING_NUMBER, COST(activation_token_bytes), 0, 1e9, NULL,
      "between the nodes of a group" },
    { "cost.chunk_tokens", SETTING_WHOLE, COST(chunk_tokens), 1, 1 << 24, NULL, "an iteration" },
    { "cost.chunk_factor", SETTING_NUMBER, COST(chunk_factor), 0.1, 100, NULL, "" },
    { "cost.keys_square_s", SETTING_NUMBER, COST(keys_square_s), 0, 1, NULL,
      "vllm-prefix: keys and eviction" },
    { "cost.host_sequence_s", SETTING_NUMBER, COST(host_sequence_s), 0, 1e3, NULL,
      "vllm: a step's sequence" },
    { "cost.host_context_s", SETTING_NUMBER, COST(host_context_s), 0, 1, NULL, "vllm: a token" },
    { "cost.host_cached_s", SETTING_NUMBER, COST(host_cached_s), 0, 1, NULL,
      "vllm-prefix: a token" },
};

enum { SETTINGS = sizeof(settings_table) / sizeof(settings_table[0]) };

void cluster_init(struct sim_cluster *cluster)
{
    *cluster = (struct sim_cluster){
        .prefill = 8,
        .decode = 8,
        .nodes = 16,
        .dram_tokens = 3e6,
        .batch_max = 256,
        .prompt_tokens_max = 131072,
        .theta = 1.25,
        .elastic_window_s = 30,
        .elastic_dwell_s = 60,
        .group_max = 1,
        .mttr_s = 60,
        .fail_forget_s = 30,
        .ttft_limit_s = 30,
        .tbt_limit_ms = 100,
        .admit_ttft_s = 30,
        .admit_tbt_ms = 100,
        .speed = 1,
        .sample_s = 30,
        .seed = 1,
        .cost = *sim_profile_at(0),
    };
}

/* ---- one setting ---- */

static void *place_of(struct sim_cluster *cluster, const struct setting *setting)
{
    return (char *)cluster + setting->offset;
}

static enum status set_number(struct sim_cluster *cluster, const struct setting *setting,
                              double value, struct errmsg *err)
{
    if (setting->kind != SETTING_NUMBER && setting->kind != SETTING_WHOLE)
        return errmsg_set(err, STATUS_INVALID, "%s: a number was not expected", setting->name);
    if (!(value >= setting->min && value <= setting->max))
        return errmsg_set(err, STATUS_INVALID, "%s: %g is not in %.12g..%.12g", setting->name,
                          value, setting->min, setting->max);
    if (setting->kind == SETTING_WHOLE && value != floor(value))
        return errmsg_set(err, STATUS_INVALID, "%s: %g is no whole number", setting->name, value);
    memcpy(place_of(cluster, setting), &value, sizeof(value));
    return STATUS_OK;
}

static enum status set_choice(struct sim_cluster *cluster, const struct setting *setting,
                              const char *text, struct errmsg *err)
{
    for (unsigned i = 0; setting->choices[i] != NULL; i++) {
        if (strcmp(setting->choices[i], text) != 0) continue;
        memcpy(place_of(cluster, setting), &i, sizeof(i));
        return STATUS_OK;
    }
    return errmsg_set(err, STATUS_INVALID, "%s: `%.64s` is not known", setting->name, text);
}

static enum status set_profile(struct sim_cluster *cluster, const char *text, struct errmsg *err)
{
    const struct sim_profile *profile = sim_profile_find(text);
    if (profile == NULL)
        return errmsg_set(err, STATUS_INVALID, "profile: `%.64s` is not known", text);
    cluster->cost = *profile;
    return STATUS_OK;
}

static enum status set_bool(struct sim_cluster *cluster, const struct setting *setting, bool value)
{
    ASSERT(setting->kind == SETTING_BOOL);
    memcpy(place_of(cluster, setting), &value, sizeof(value));
    return STATUS_OK;
}

static enum status set_words(struct sim_cluster *cluster, const struct setting *setting,
                             const char *text, struct errmsg *err)
{
    if (strlen(text) >= CLUSTER_TEXT_SIZE)
        return errmsg_set(err, STATUS_INVALID, "%s: longer than %d", setting->name,
                          CLUSTER_TEXT_SIZE - 1);
    for (const char *at = text; *at != '\0'; at++) { /* what a text of JSON may have as it is */
        if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
            return errmsg_set(err, STATUS_INVALID, "%s: a character that cannot be in it",
                              setting->name);
    }
    snprintf(place_of(cluster, setting), CLUSTER_TEXT_SIZE, "%s", text);
    return STATUS_OK;
}

/* A value as on the command line. */
static enum status set_text(struct sim_cluster *cluster, const struct setting *setting,
                            const char *text, struct errmsg *err)
{
    char *end = NULL;

    switch (setting->kind) {
    case SETTING_PROFILE: return set_profile(cluster, text, err);
    case SETTING_TEXT: return set_words(cluster, setting, text, err);
    case SETTING_CHOICE: return set_choice(cluster, setting, text, err);
    case SETTING_BOOL:
        if (strcmp(text, "true") == 0) return set_bool(cluster, setting, true);
        if (strcmp(text, "false") == 0) return set_bool(cluster, setting, false);
        return errmsg_set(err, STATUS_INVALID, "%s: neither true nor false", setting->name);
    case SETTING_NUMBER:
    case SETTING_WHOLE: break;
    }
    const double value = strtod(text, &end);
    if (end == text || *end != '\0')
        return errmsg_set(err, STATUS_INVALID, "%s: `%.64s` is no number", setting->name, text);
    return set_number(cluster, setting, value, err);
}

/* ---- the command line ---- */

static const struct setting *find_setting(const char *name)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        if (strcmp(settings_table[i].name, name) == 0) return &settings_table[i];
    }
    return NULL;
}

enum status cluster_set(struct sim_cluster *cluster, const char *settings, struct errmsg *err)
{
    struct sim_cluster changed = *cluster;

    while (*settings != '\0') {
        char name[SETTING_SIZE], value[VALUE_SIZE];
        const size_t len = strcspn(settings, ",");
        const size_t split = strcspn(settings, "=,");
        if (split >= len || split >= SETTING_SIZE || len - split - 1 >= VALUE_SIZE)
            return errmsg_set(err, STATUS_INVALID, "`%.*s` is not NAME=VALUE",
                              (int)(len < 64 ? len : 64), settings);
        snprintf(name, sizeof(name), "%.*s", (int)split, settings);
        snprintf(value, sizeof(value), "%.*s", (int)(len - split - 1), settings + split + 1);
        const struct setting *setting = find_setting(name);
        if (setting == NULL)
            return errmsg_set(err, STATUS_INVALID, "there is no setting `%s`", name);
        const enum status status = set_text(&changed, setting, value, err);
        if (status != STATUS_OK) return status;
        settings += settings[len] == ',' ? len + 1 : len;
    }
    *cluster = changed;
    return STATUS_OK;
}

static bool read_count(const char **at, double *out)
{
    char *end = NULL;
    if (**at < '0' || **at > '9') return false;
    const unsigned long value = strtoul(*at, &end, 10);
    *at = end;
    *out = (double)value;
    return true;
}

enum status cluster_set_nodes(struct sim_cluster *cluster, const char *nodes, struct errmsg *err)
{
    const char *at = nodes;
    double first = 0, second = 0;
    enum status status;

    if (!read_count(&at, &first)) goto malformed;
    if (*at == '\0') return set_number(cluster, find_setting("nodes"), first, err);
    if (*at == 'P') at++;
    if (*at++ != '+') goto malformed;
    if (!read_count(&at, &second)) goto malformed;
    if (*at == 'D') at++;
    if (*at != '\0') goto malformed;
    status = set_number(cluster, find_setting("prefill"), first, err);
    if (status == STATUS_OK) status = set_number(cluster, find_setting("decode"), second, err);
    return status;

malformed:
    return errmsg_set(err, STATUS_INVALID, "nodes: `%.64s` is neither like 8P+8D nor like 16",
                      nodes);
}

/* ---- the file ---- */

/* The member of a setting's name; "cost.x" is that, or x in the object cost. */
static const struct json_value *member_of(const struct json_value *root, const char *name)
{
    const struct json_value *cost = json_value_member(root, "cost");
    const struct json_value *value = json_value_member(root, name);

    if (value != NULL || strncmp(name, "cost.", 5) != 0) return value;
    return json_value_member(cost, name + 5);
}

static enum status set_json(struct sim_cluster *cluster, const struct setting *setting,
                            const struct json_value *value, struct errmsg *err)
{
    const char *text = json_value_text(value);
    double number;
    bool truth;

    switch (setting->kind) {
    case SETTING_NUMBER:
    case SETTING_WHOLE:
        if (json_value_number(value, &number)) return set_number(cluster, setting, number, err);
        return errmsg_set(err, STATUS_INVALID, "%s: expected a number", setting->name);
    case SETTING_BOOL:
        if (json_value_bool(value, &truth)) return set_bool(cluster, setting, truth);
        return errmsg_set(err, STATUS_INVALID, "%s: expected true or false", setting->name);
    case SETTING_TEXT:
    case SETTING_CHOICE:
    case SETTING_PROFILE: break;
    }
    if (text == NULL) return errmsg_set(err, STATUS_INVALID, "%s: expected a text", setting->name);
    return set_text(cluster, setting, text, err);
}

/* Refuses a member that is no setting; `prefix` is what its name lacks in the table. */
static enum status check_members(const struct json_value *object, const char *prefix,
                                 struct errmsg *err)
{
    const char *names[SETTINGS + 2] = { NULL };
    const size_t skip = strlen(prefix);
    size_t count = 0;

    for (size_t i = 0; i < SETTINGS; i++) {
        if (strncmp(settings_table[i].name, prefix, skip) == 0)
            names[count++] = settings_table[i].name + skip;
    }
    if (skip == 0) names[count++] = "cost";
    const char *stranger = json_value_stranger(object, names);
    if (stranger == NULL) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "there is no setting `%s%.64s`", prefix, stranger);
}

static enum status read_settings(const struct json_value *root, struct sim_cluster *cluster,
                                 struct errmsg *err)
{
    const struct json_value *cost = json_value_member(root, "cost");

    if (!json_value_is_object(root)) return errmsg_set(err, STATUS_INVALID, "expected an object");
    if (cost != NULL && !json_value_is_object(cost))
        return errmsg_set(err, STATUS_INVALID, "cost: expected an object");
    enum status status = check_members(root, "", err);
    if (status == STATUS_OK && cost != NULL) status = check_members(cost, "cost.", err);
    for (size_t i = 0; status == STATUS_OK && i < SETTINGS; i++) {
        const struct json_value *value = member_of(root, settings_table[i].name);
        if (value != NULL) status = set_json(cluster, &settings_table[i], value, err);
    }
    return status;
}

enum status cluster_parse(const char *name, const char *text, size_t len,
                          struct sim_cluster *cluster, struct errmsg *err)
{
    struct json_value *root = NULL;
    struct sim_cluster changed = *cluster;
    struct errmsg words = { "" };

    enum status status = json_document_parse(text, len, &root, &words);
    if (status == STATUS_OK) status = read_settings(root, &changed, &words);
    json_document_destroy(root);
    if (status != STATUS_OK) return errmsg_set(err, status, "%.100s: %.150s", name, words.text);
    *cluster = changed;
    return STATUS_OK;
}

/* ---- sense ---- */

static bool has_failures(const struct sim_cluster *cluster)
{
    return cluster->failures[0] != '\0' || cluster->mtbf_s > 0;
}

/* What is asked for that only the conductor does, or NULL. */
static const char *conductors_own(const struct sim_cluster *cluster)
{
    if (cluster->overload != CLUSTER_OVERLOAD_NONE) return "refuses";
    if (cluster->elastic) return "changes roles";
    if (cluster->replicate) return "copies hot prefixes";
    if (cluster->group_max > 1) return "forms groups";
    if (cluster->node_checks) return "hears of refusals";
    if (cluster->inline_tbt_ms > 0) return "has prompts computed beside decode steps";
    if (cluster->regret) return "judges its decisions";
    if (cluster->classes[0] != '\0') return "tells classes apart";
    if (has_failures(cluster)) return "places requests again when a node stops";
    return NULL;
}

static enum status check_failures(const struct sim_cluster *cluster, struct errmsg *err)
{
    struct failure failures[FAILURES_MAX];
    uint32_t count = 0;
    const enum status status = failure_parse(cluster->failures, failures, &count, err);

    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        if (failures[i].node < (failures[i].decode ? cluster->decode : cluster->prefill)) continue;
        return errmsg_set(err, STATUS_INVALID, "failures: there is no node %c%u",
                          failures[i].decode ? 'd' : 'p', failures[i].node);
    }
    if (cluster->replicate && has_failures(cluster))
        return errmsg_set(err, STATUS_INVALID, "failures: not together with replicate");
    return STATUS_OK;
}

static enum status check_mooncake(const struct sim_cluster *cluster, struct errmsg *err)
{
    const char *own = conductors_own(cluster);

    if (cluster->prefill + cluster->decode > CLUSTER_NODES_MAX)
        return errmsg_set(err, STATUS_INVALID, "more than %d nodes", CLUSTER_NODES_MAX);
    if (own != NULL && cluster->policy > CLUSTER_LOCAL)
        return errmsg_set(err, STATUS_INVALID,
                          "policy %s places without the conductor, and only the conductor %s",
                          cluster_policy_name(cluster->policy), own);
    if (cluster->first_at_prefill && has_failures(cluster))
        return errmsg_set(err, STATUS_INVALID, "first_at_prefill: not together with failures");
    if (cluster->node_checks &&
        (cluster->first_at_prefill || cluster->door || cluster->classes[0] != '\0'))
        return errmsg_set(err, STATUS_INVALID,
                          "node_checks: not together with first_at_prefill, a door or classes");
    struct sim_classes classes;
    const enum status status =
        sim_classes_parse(cluster->classes, cluster->class_shares, &classes, err);
    return status == STATUS_OK ? check_failures(cluster, err) : status;
}

enum status cluster_check(const struct sim_cluster *cluster, struct errmsg *err)
{
    if (cluster->system == CLUSTER_MOONCAKE) return check_mooncake(cluster, err);
    if (cluster->policy <= CLUSTER_MATCH)
        return errmsg_set(err, STATUS_INVALID, "policy %s is not for the system %s",
                          cluster_policy_name(cluster->policy),
                          cluster_system_name(cluster->system));
    if (cluster->store != LAYERS_MEASURED)
        return errmsg_set(err, STATUS_INVALID, "the system %s stores nothing",
                          cluster_system_name(cluster->system));
    if (conductors_own(cluster) != NULL)
        return errmsg_set(err, STATUS_INVALID, "the system %s has no conductor, which %s",
                          cluster_system_name(cluster->system), conductors_own(cluster));
    return STATUS_OK;
}

unsigned cluster_default_policy(unsigned system)
{
    return system == CLUSTER_MOONCAKE ? CLUSTER_GLOBAL : CLUSTER_LOAD;
}

const char *cluster_system_name(unsigned system)
{
    ASSERT(system <= CLUSTER_VLLM_CHUNKED);
    return systems[system];
}

const char *cluster_policy_name(unsigned policy)
{
    ASSERT(policy <= CLUSTER_ROUND_ROBIN);
    return policies[policy];
}

/* ---- writing ---- */

static enum status write_value(const struct sim_cluster *cluster, const struct setting *setting,
                               struct buf *out)
{
    const void *place = (const char *)cluster + setting->offset;
    double number;
    unsigned choice;
    bool truth;

    switch (setting->kind) {
    case SETTING_NUMBER:
    case SETTING_WHOLE:
        memcpy(&number, place, sizeof(number));
        return buf_printf(out, "%.9g", number);
    case SETTING_BOOL:
        memcpy(&truth, place, sizeof(truth));
        return buf_append_text(out, truth ? "true" : "false");
    case SETTING_CHOICE:
        memcpy(&choice, place, sizeof(choice));
        return buf_printf(out, "\"%s\"", setting->choices[choice]);
    case SETTING_TEXT: return buf_printf(out, "\"%s\"", (const char *)place);
    case SETTING_PROFILE: return buf_printf(out, "\"%s\"", cluster->cost.name);
    }
    ASSERT(setting == NULL); /* impossible */
    return STATUS_INVALID;
}

enum status cluster_write(const struct sim_cluster *cluster, struct buf *out)
{
    enum status status = buf_append_text(out, "{");
    bool costs = false;

    for (size_t i = 0; status == STATUS_OK && i < SETTINGS; i++) {
        const char *name = settings_table[i].name;
        const bool cost = strncmp(name, "cost.", 5) == 0;
        status = buf_printf(out, "%s%s\"%s\": ", i == 0 ? "" : ", ",
                            cost && !costs ? "\"cost\": {" : "", cost ? name + 5 : name);
        costs = cost;
        if (status == STATUS_OK) status = write_value(cluster, &settings_table[i], out);
    }
    return status == STATUS_OK ? buf_append_text(out, "}}") : status;
}

enum status cluster_setting_at(const struct sim_cluster *cluster, uint32_t index, const char **name,
                               const char **help, struct buf *value)
{
    if (index >= SETTINGS) return STATUS_NOT_FOUND;
    *name = settings_table[index].name;
    *help = settings_table[index].help;
    return write_value(cluster, &settings_table[index], value);
}

enum status cluster_help(struct buf *out)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; status == STATUS_OK && i < SETTINGS; i++) {
        const struct setting *setting = &settings_table[i];
        status = buf_printf(out, "  %-24s %s", setting->name, setting->help);
        for (int c = 0; status == STATUS_OK && setting->choices && setting->choices[c]; c++)
            status = buf_printf(out, "%s%s", c == 0 ? ": " : ", ", setting->choices[c]);
        if (status == STATUS_OK) status = buf_append_text(out, "\n");
    }
    return status;
}
