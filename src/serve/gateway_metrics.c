/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_metrics.c - every series is looked up once, at the start. */
#include "serve/gateway_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/metrics.h"
#include "net/rpc.h"

enum { NAME_SIZE = 64 };

/* Bounds in seconds that vLLM uses, so that dashboards made for it show the same buckets. */
static const double TTFT_BOUNDS[] = { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                      0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                      20,    40,    80,   160,  640,  2560 };
static const double ITL_BOUNDS[] = { 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                     0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80 };
static const double SECONDS_BOUNDS[] = { 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,  10,
                                         15,   20,  30,  40,  50,  60, 120, 240, 480, 960 };
static const double TOKENS_BOUNDS[] = { 1,   2,    5,    10,   20,    50,    100,   200,
                                        500, 1000, 2000, 5000, 10000, 20000, 50000, 100000 };
static const double N_BOUNDS[] = { 1, 2, 5, 10, 20, 50, 100 };
static const double RATIO_BOUNDS[] = { 0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4 };
#define COUNT_OF(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

struct gateway_metrics {
    struct metrics *registry;
    char model_name[NAME_SIZE];
    struct metric *http, *finished, *reasons, *attempts_failed, *refusals, *role_changes;
    struct metric *tenant_tokens, *tenant_limited;
    struct series *unauthorized;
    struct series *damaged;
    struct metric *classes;
    struct series *copied_blocks, *uncopied_blocks, *copies, *copies_held;
    struct series *handed_over, *role_draining, *prefill_need, *decode_need;
    struct series *rejections, *accepted, *audited, *servable, *late_ttft, *late_tbt;
    struct series *limit_ttft, *limit_tbt, *prefill_load, *decode_load;
    struct series *decode_mean, *margin_ttft, *margin_tbt, *pressure;
    struct series *running, *waiting, *reading, *kv_usage, *prompt_tokens, *generation_tokens;
    struct series *cache_queries, *cache_hits;
    struct series *ttft, *itl, *e2e, *queue, *prefill, *decode, *prompt_size, *output_size;
    struct series *predicted_ratio, *door_wait, *at_door, *inlined, *groups, *group_stages;
    struct series *prefill_up, *decode_up, *known, *pages_total, *pages_used, *block_tokens;
    struct series *disk[PROTO_DISK_NUMBERS], *moves[PROTO_MOVES];
    struct series *tbt_regret, *tbt_regret_wrong;
    struct series *regret, *regret_wrong, *hits_predicted, *hits_realised, *hits_kept, *hit_alarm;
    struct series *hit_alarms, *misses[YOLK_MISSES], *index_bytes_each, *index_unknown;
    struct series *index_holdings, *index_forgotten, *conductor_bytes, *samples;
    struct series *kv_usage_old, *external_queries, *external_hits, *preemptions;
    struct series *tpot_old, *tpot, *inference, *computed_size, *params_n, *params_max_tokens;
    struct series *tiers[GATEWAY_TIERS];
    struct metric *cache_config;
    struct series *config; /* of cache_config, the one that is 1; NULL: none yet */
    uint64_t config_pages;
    uint32_t config_block_tokens;
};

static struct series *with_model(struct gateway_metrics *m, struct metric *metric)
{
    return metrics_series(metric, (const char *const[]){ m->model_name, NULL });
}

static const char *const MODEL_LABEL[] = { "model_name", NULL };

static struct series *counter(struct gateway_metrics *m, const char *name, const char *help)
{
    return with_model(m, metrics_counter(m->registry, name, help, MODEL_LABEL));
}

static struct series *gauge(struct gateway_metrics *m, const char *name, const char *help)
{
    return with_model(m, metrics_gauge(m->registry, name, help, MODEL_LABEL));
}

static struct series *histogram(struct gateway_metrics *m, const char *name, const char *help,
                                const double *bounds, uint32_t count)
{
    return with_model(m, metrics_histogram(m->registry, name, help, MODEL_LABEL, bounds, count));
}

static struct series *plain_gauge(struct gateway_metrics *m, const char *name, const char *help)
{
    return metrics_only(metrics_gauge(m->registry, name, help, NULL));
}

static struct series *plain_counter(struct gateway_metrics *m, const char *name, const char *help)
{
    return metrics_only(metrics_counter(m->registry, name, help, NULL));
}

static void register_vllm(struct gateway_metrics *m)
{
    static const char *const CACHE_LABELS[] = { "model_name", "block_size", "num_gpu_blocks",
                                                NULL };
    static const char *const FINISHED_LABELS[] = { "model_name", "finished_reason", NULL };

    m->running = gauge(m, "vllm:num_requests_running", "Requests placed on nodes.");
    m->waiting = gauge(m, "vllm:num_requests_waiting", "Requests waiting to be placed.");
    m->reading = gauge(m, "yolk_gateway_requests_reading",
                       "Requests whose long bodies are parsed and tokenised.");
    m->kv_usage = gauge(m, "vllm:kv_cache_usage_perc", "KV pages in use, 0 to 1, over all nodes.");
    m->kv_usage_old =
        gauge(m, "vllm:gpu_cache_usage_perc", "The same, under the name it had before.");
    m->prompt_tokens = counter(m, "vllm:prompt_tokens_total", "Prompt tokens taken in.");
    m->generation_tokens = counter(m, "vllm:generation_tokens_total", "Tokens generated.");
    m->cache_queries =
        counter(m, "vllm:prefix_cache_queries_total", "Prompt tokens looked up in the cache.");
    m->cache_hits = counter(m, "vllm:prefix_cache_hits_total", "Prompt tokens found in the cache.");
    m->external_queries = counter(m, "vllm:external_prefix_cache_queries_total",
                                  "Prompt tokens that their prefill node did not have in memory.");
    m->external_hits = counter(m, "vllm:external_prefix_cache_hits_total",
                               "Of them, those fetched from another node or from disk.");
    m->preemptions = counter(m, "vllm:num_preemptions_total",
                             "Times a request lost its place for want of pages, and got another.");
    m->ttft = histogram(m, "vllm:time_to_first_token_seconds", "From arrival to the first token.",
                        TTFT_BOUNDS, COUNT_OF(TTFT_BOUNDS));
    m->itl = histogram(m, "vllm:inter_token_latency_seconds", "Between two tokens.", ITL_BOUNDS,
                       COUNT_OF(ITL_BOUNDS));
    m->tpot_old = histogram(m, "vllm:time_per_output_token_seconds",
                            "Between two tokens, under the name it had before.", ITL_BOUNDS,
                            COUNT_OF(ITL_BOUNDS));
    m->tpot =
        histogram(m, "vllm:request_time_per_output_token_seconds",
                  "Mean time between the tokens of an answer.", ITL_BOUNDS, COUNT_OF(ITL_BOUNDS));
    m->e2e = histogram(m, "vllm:e2e_request_latency_seconds", "From arrival to the last token.",
                       SECONDS_BOUNDS, COUNT_OF(SECONDS_BOUNDS));
    m->queue = histogram(m, "vllm:request_queue_time_seconds", "From arrival to placement.",
                         SECONDS_BOUNDS, COUNT_OF(SECONDS_BOUNDS));
    m->prefill =
        histogram(m, "vllm:request_prefill_time_seconds", "From placement to the first token.",
                  SECONDS_BOUNDS, COUNT_OF(SECONDS_BOUNDS));
    m->decode =
        histogram(m, "vllm:request_decode_time_seconds", "From the first token to the last.",
                  SECONDS_BOUNDS, COUNT_OF(SECONDS_BOUNDS));
    m->inference =
        histogram(m, "vllm:request_inference_time_seconds", "From placement to the last token.",
                  SECONDS_BOUNDS, COUNT_OF(SECONDS_BOUNDS));
    m->computed_size = histogram(m, "vllm:request_prefill_kv_computed_tokens",
                                 "Prompt tokens that were computed for a request.", TOKENS_BOUNDS,
                                 COUNT_OF(TOKENS_BOUNDS));
    m->params_n =
        histogram(m, "vllm:request_params_n", "`n` of requests.", N_BOUNDS, COUNT_OF(N_BOUNDS));
    m->params_max_tokens =
        histogram(m, "vllm:request_params_max_tokens", "`max_tokens` of requests that set it.",
                  TOKENS_BOUNDS, COUNT_OF(TOKENS_BOUNDS));
    m->prompt_size = histogram(m, "vllm:request_prompt_tokens", "Prompt tokens of a request.",
                               TOKENS_BOUNDS, COUNT_OF(TOKENS_BOUNDS));
    m->output_size =
        histogram(m, "vllm:request_generation_tokens", "Tokens generated for a request.",
                  TOKENS_BOUNDS, COUNT_OF(TOKENS_BOUNDS));
    m->cache_config =
        metrics_gauge(m->registry, "vllm:cache_config_info",
                      "Tokens of a KV page, and pages of all nodes up; always 1.", CACHE_LABELS);
    m->finished = metrics_counter(m->registry, "vllm:request_success_total",
                                  "Requests that ended, by reason.", FINISHED_LABELS);
}

void gateway_metrics_policies(struct gateway_metrics *m, const char *placement, const char *policy)
{
    static const char *const LABELS[] = { "placement", "policy", NULL };
    struct metric *info = metrics_gauge(m->registry, "yolk_conductor_policy_info",
                                        "Policies of placement and of overload; always 1.", LABELS);
    series_set(metrics_series(info, (const char *const[]){ placement, policy, NULL }), 1);
}

/* A node counts from its start: over all nodes that is less after a restart, and then shows again
 * when it is more. */
static const struct {
    const char *name;
    const char *help;
    bool counts_up;
} DISK_METRICS[PROTO_DISK_NUMBERS] = {
    [PROTO_DISK_BLOCKS] = { "yolk_ssd_blocks", "KV blocks on disk.", false },
    [PROTO_DISK_SIZE] = { "yolk_ssd_size_bytes", "Disk taken for KV blocks.", false },
    [PROTO_DISK_SIZE_MAX] = { "yolk_ssd_capacity_bytes", "Disk that may be taken.", false },
    [PROTO_DISK_QUEUE] = { "yolk_ssd_write_queue", "Blocks that wait to be written.", false },
    [PROTO_DISK_BYTES_ACCEPTED] = { "yolk_ssd_accepted_bytes_total",
                                    "Bytes of blocks that were to be written.", true },
    [PROTO_DISK_BYTES_WRITTEN] = { "yolk_ssd_write_bytes_total",
                                   "Bytes written; over accepted: write amplification.", true },
    [PROTO_DISK_BYTES_READ] = { "yolk_ssd_read_bytes_total", "Bytes read.", true },
    [PROTO_DISK_BLOCKS_WRITTEN] = { "yolk_ssd_write_ops_total", "Blocks written.", true },
    [PROTO_DISK_BLOCKS_READ] = { "yolk_ssd_read_ops_total", "Blocks read, and right.", true },
    [PROTO_DISK_CORRUPT] = { "yolk_ssd_corrupt_total",
                             "Blocks whose bytes were not what was written; computed again.",
                             true },
    [PROTO_DISK_ERRORS] = { "yolk_ssd_errors_total", "Times the disk said no.", true },
    [PROTO_DISK_DROPPED] = { "yolk_ssd_dropped_total",
                             "Blocks gone from memory before they were written.", true },
    [PROTO_DISK_PROMOTED] = { "yolk_ssd_promoted_total", "Blocks brought up for other nodes.",
                              true },
    [PROTO_DISK_RECLAIMED] = { "yolk_ssd_reclaimed_total", "Blocks given up for newer ones.",
                               true },
    [PROTO_DISK_VALUES] = { "yolk_ssd_values", "Values put by key that are on disk.", false },
    [PROTO_DISK_VALUES_SIZE] = { "yolk_ssd_values_size_bytes", "Disk taken for values.", false },
    [PROTO_DISK_VALUES_QUEUE] = { "yolk_ssd_values_write_queue", "Values that wait to be written.",
                                  false },
    [PROTO_DISK_VALUES_ACCEPTED] = { "yolk_ssd_values_accepted_bytes_total",
                                     "Bytes of values that were to be written.", true },
    [PROTO_DISK_VALUES_WRITTEN] = { "yolk_ssd_values_write_bytes_total",
                                    "Bytes written for values.", true },
    [PROTO_DISK_VALUES_READ] = { "yolk_ssd_values_read_ops_total", "Values read, and right.",
                                 true },
    [PROTO_DISK_VALUES_KEPT] = { "yolk_ssd_values_kept_total",
                                 "Values on disk only since their memory was wanted.", true },
    [PROTO_DISK_VALUES_LOST] = { "yolk_ssd_values_lost_total",
                                 "Values that went then: too large, or the disk failed.", true },
    [PROTO_DISK_VALUES_CORRUPT] = { "yolk_ssd_values_corrupt_total",
                                    "Values whose bytes were not what was written.", true },
    [PROTO_DISK_VALUES_ERRORS] = { "yolk_ssd_values_errors_total",
                                   "Times the disk of values said no.", true },
    [PROTO_DISK_PACKED_FROM] = { "yolk_ssd_packed_from_bytes_total",
                                 "Bytes that were to be compressed for the disk.", true },
    [PROTO_DISK_PACKED_TO] = { "yolk_ssd_packed_bytes_total",
                               "Bytes that became of them; over those: what is left.", true },
};

static void register_disk(struct gateway_metrics *m)
{
    for (unsigned i = 0; i < PROTO_DISK_NUMBERS; i++) {
        const char *name = DISK_METRICS[i].name, *help = DISK_METRICS[i].help;
        m->disk[i] =
            metrics_only(DISK_METRICS[i].counts_up ? metrics_counter(m->registry, name, help, NULL)
                                                   : metrics_gauge(m->registry, name, help, NULL));
    }
}

static void register_tiers(struct gateway_metrics *m)
{
    static const char *const TIER[] = { "tier", NULL };
    static const char *const NAMES[] = { "local", "remote", "disk" };
    struct metric *tiers =
        metrics_counter(m->registry, "yolk_gateway_cached_tokens_total",
                        "Prompt tokens that were not computed, by where the prefill node had them "
                        "from: its memory, another node, its disk.",
                        TIER);

    for (int i = 0; i < GATEWAY_TIERS; i++)
        m->tiers[i] = metrics_series(tiers, (const char *const[]){ NAMES[i], NULL });
}

static void register_tenants(struct gateway_metrics *m)
{
    static const char *const KIND[] = { "tenant", "kind", NULL };
    static const char *const LIMIT[] = { "tenant", "limit", NULL };

    m->tenant_tokens = metrics_counter(m->registry, "yolk_gateway_tenant_tokens_total",
                                       "Tokens of prompts and answers, by tenant.", KIND);
    m->tenant_limited = metrics_counter(m->registry, "yolk_gateway_tenant_limited_total",
                                        "Requests refused for a tenant's limit.", LIMIT);
    m->unauthorized = plain_counter(m, "yolk_gateway_unauthorized_total",
                                    "Requests with a wrong API key, or none.");
    m->damaged = plain_counter(m, "yolk_rpc_damaged_frames_total",
                               "Frames that did not come as they were sent.");
}

static void register_moves(struct gateway_metrics *m)
{
    static const char *const DIRECTION[] = { "direction", NULL };
    struct metric *moved =
        metrics_counter(m->registry, "yolk_kv_moved_seconds_total",
                        "Time that KV was on its way from or to a prefill.", DIRECTION);
    struct metric *hidden =
        metrics_counter(m->registry, "yolk_kv_hidden_seconds_total",
                        "Of it, time in which that prefill was computing.", DIRECTION);
    const char *const load[] = { "load", NULL }, *const store[] = { "store", NULL };

    m->moves[PROTO_LOAD_MOVED_US] = metrics_series(moved, load);
    m->moves[PROTO_LOAD_HIDDEN_US] = metrics_series(hidden, load);
    m->moves[PROTO_STORE_MOVED_US] = metrics_series(moved, store);
    m->moves[PROTO_STORE_HIDDEN_US] = metrics_series(hidden, store);
}

static void register_own(struct gateway_metrics *m)
{
    static const char *const CODE[] = { "code", NULL };
    static const char *const REASON[] = { "reason", NULL };
    static const char *const CAUSE[] = { "cause", NULL };
    static const char *const ROLE[] = { "role", NULL };
    struct metric *up =
        metrics_gauge(m->registry, "yolk_gateway_nodes_up", "Nodes that may get work.", ROLE);

    m->prefill_up = metrics_series(up, (const char *const[]){ "prefill", NULL });
    m->decode_up = metrics_series(up, (const char *const[]){ "decode", NULL });
    m->known = plain_gauge(m, "yolk_gateway_nodes_known", "Nodes the master has named.");
    m->pages_total = plain_gauge(m, "yolk_cluster_pages_total", "KV pages of all nodes up.");
    m->pages_used = plain_gauge(m, "yolk_cluster_pages_used", "KV pages in use.");
    m->block_tokens = plain_gauge(m, "yolk_cluster_block_tokens", "Tokens of one KV block.");
    register_disk(m);
    register_tiers(m);
    register_tenants(m);
    register_moves(m);
    m->http = metrics_counter(m->registry, "yolk_gateway_http_responses_total",
                              "HTTP answers by status.", CODE);
    m->reasons = metrics_counter(m->registry, "yolk_conductor_decisions_total",
                                 "Placements by what was decided about cached blocks.", REASON);
    m->attempts_failed = metrics_counter(m->registry, "yolk_gateway_attempts_failed_total",
                                         "Attempts that were placed again or given up.", CAUSE);
    m->predicted_ratio = metrics_only(
        metrics_histogram(m->registry, "yolk_conductor_ttft_predicted_ratio",
                          "Predicted over actual time from placement to the first token.", NULL,
                          RATIO_BOUNDS, COUNT_OF(RATIO_BOUNDS)));
    m->door_wait = metrics_only(
        metrics_histogram(m->registry, "yolk_conductor_door_wait_seconds",
                          "From the end of a prefill to a place in its decode node's batch.", NULL,
                          TTFT_BOUNDS, COUNT_OF(TTFT_BOUNDS)));
    m->inlined = plain_counter(m, "yolk_conductor_inlined_total",
                               "Prompts computed beside a step of their decode node.");
    m->groups = plain_counter(m, "yolk_conductor_groups_total",
                              "Prompts that several prefill nodes computed together.");
    m->group_stages = plain_counter(m, "yolk_conductor_group_stages_total",
                                    "Prefill nodes of all groups together.");
    m->at_door = plain_gauge(m, "yolk_conductor_at_door",
                             "Sequences that wait in front of their decode node.");
    m->index_holdings = plain_gauge(m, "yolk_conductor_index_holdings",
                                    "(block, holder) pairs in the prefix index.");
    m->index_bytes_each =
        plain_gauge(m, "yolk_conductor_index_bytes_per_holding",
                    "Memory of the prefix index over the pairs that it has room for.");
    m->index_forgotten =
        plain_gauge(m, "yolk_conductor_index_forgotten", "Blocks not indexed for lack of room.");
    m->index_unknown = plain_gauge(m, "yolk_conductor_index_unknown",
                                   "Events about instances that are not there.");
    m->conductor_bytes = plain_gauge(m, "yolk_conductor_bytes", "Memory of the Conductor.");
    m->samples =
        plain_gauge(m, "yolk_conductor_samples", "Samples the cost model has learned from.");
}

static struct series *of_stage(struct metric *metric, const char *stage)
{
    return metrics_series(metric, (const char *const[]){ stage, NULL });
}

/* Overload: what was refused and why, how right that was, and what the policy sees. */
static void register_admission(struct gateway_metrics *m)
{
    static const char *const REASON[] = { "reason", NULL };
    static const char *const STAGE[] = { "stage", NULL };
    static const char *const CLASS[] = { "class", "outcome", NULL };
    struct metric *late =
        metrics_counter(m->registry, "yolk_conductor_slo_violations_total",
                        "Accepted requests that broke a limit, by the limit.", STAGE);
    struct metric *limit = metrics_gauge(m->registry, "yolk_conductor_limit_seconds",
                                         "Limits in force; 0 is none.", STAGE);
    struct metric *load =
        metrics_gauge(m->registry, "yolk_conductor_load",
                      "Predicted latency over its limit, mean of the pool.", STAGE);
    struct metric *margin =
        metrics_gauge(m->registry, "yolk_conductor_margin",
                      "Standard deviations that adaptive keeps from a limit.", STAGE);

    m->rejections = with_model(m, metrics_counter(m->registry, "vllm:admission_rejections_total",
                                                  "Requests refused under overload.", MODEL_LABEL));
    m->refusals = metrics_counter(m->registry, "yolk_conductor_refusals_total",
                                  "Requests refused under overload, by reason.", REASON);
    m->classes = metrics_counter(m->registry, "yolk_gateway_class_requests_total",
                                 "Requests by class and what became of them.", CLASS);
    m->accepted = plain_counter(m, "yolk_conductor_accepted_total",
                                "Requests accepted while a limit was set.");
    m->audited =
        plain_counter(m, "yolk_conductor_refusals_audited_total", "Refusals judged in hindsight.");
    m->servable = plain_counter(m, "yolk_conductor_refusals_servable_total",
                                "Of them, those that could have been served.");
    m->late_ttft = of_stage(late, "ttft");
    m->late_tbt = of_stage(late, "tbt");
    m->limit_ttft = of_stage(limit, "ttft");
    m->limit_tbt = of_stage(limit, "tbt");
    m->prefill_load = of_stage(load, "prefill");
    m->decode_load = of_stage(load, "decode");
    m->margin_ttft = of_stage(margin, "ttft");
    m->margin_tbt = of_stage(margin, "tbt");
    m->decode_mean =
        plain_gauge(m, "yolk_conductor_decode_seconds_mean", "Mean time a request decodes.");
    m->pressure = plain_gauge(m, "yolk_conductor_pressure", "Share of requests refused lately.");
}

/* Was the choice right, and did what was cached come? */
static void register_explain(struct gateway_metrics *m)
{
    static const char *const REASON[] = { "reason", NULL };
    struct metric *misses = metrics_counter(
        m->registry, "yolk_conductor_missed_blocks_total",
        "Full blocks of prompts that could have been reused and were not, by reason.", REASON);

    m->regret = metrics_only(
        metrics_histogram(m->registry, "yolk_conductor_regret_seconds",
                          "Time to first token beyond the best candidate in hindsight.", NULL,
                          TTFT_BOUNDS, COUNT_OF(TTFT_BOUNDS)));
    m->tbt_regret = metrics_only(
        metrics_histogram(m->registry, "yolk_conductor_tbt_regret_seconds",
                          "Time between tokens beyond the best other decode node in hindsight.",
                          NULL, TTFT_BOUNDS, COUNT_OF(TTFT_BOUNDS)));
    m->tbt_regret_wrong =
        plain_counter(m, "yolk_conductor_tbt_regret_beyond_noise_total",
                      "Requests whose regret between tokens is more than the model's spread.");
    m->regret_wrong = plain_counter(m, "yolk_conductor_regret_beyond_noise_total",
                                    "Requests whose regret is more than the model's spread.");
    m->hits_predicted = plain_counter(m, "yolk_conductor_predicted_blocks_total",
                                      "Blocks that decisions counted on being reused.");
    m->hits_kept = plain_counter(m, "yolk_conductor_predicted_blocks_reused_total",
                                 "Of them, those that were reused.");
    m->hits_realised = plain_counter(m, "yolk_conductor_reused_blocks_total",
                                     "Blocks that were reused, predicted or not.");
    m->hit_alarm =
        plain_gauge(m, "yolk_conductor_hits_alarm", "1 while predicted hits do not realise.");
    m->hit_alarms =
        plain_counter(m, "yolk_conductor_hits_alarms_total", "Times that alarm has been raised.");
    for (int i = 0; i < YOLK_MISSES; i++) {
        const char *const name[] = { yolk_miss_name((enum yolk_miss)i), NULL };
        m->misses[i] = metrics_series(misses, name);
    }
}

/* Elasticity: how full the pools are, as it sees them, and what it has done. */
static void register_elastic(struct gateway_metrics *m)
{
    static const char *const ROLE[] = { "role", NULL };
    static const char *const STAGE[] = { "stage", NULL };
    struct metric *need = metrics_gauge(m->registry, "yolk_conductor_role_load",
                                        "Instances' worth of work per instance.", STAGE);

    m->role_changes = metrics_counter(m->registry, "yolk_conductor_role_changes_total",
                                      "Nodes that have changed to this role.", ROLE);
    m->handed_over = plain_counter(m, "yolk_gateway_handed_over_total",
                                   "Requests placed again because their node changed its role.");
    m->role_draining =
        plain_gauge(m, "yolk_conductor_draining", "Nodes that finish their old role's work.");
    m->prefill_need = of_stage(need, "prefill");
    m->decode_need = of_stage(need, "decode");
}

/* Copies of hot prefixes. */
static void register_copies(struct gateway_metrics *m)
{
    m->copies = plain_counter(m, "yolk_conductor_copies_total",
                              "Copies of hot prefixes that nodes were told to make.");
    m->copies_held = plain_gauge(m, "yolk_conductor_copies_held", "Of them, those that are hot.");
    m->copied_blocks =
        plain_counter(m, "yolk_gateway_copied_blocks_total", "Blocks that came by such copies.");
    m->uncopied_blocks = plain_counter(m, "yolk_gateway_copied_blocks_removed_total",
                                       "Of them, those removed when they were cold.");
}

enum status gateway_metrics_create(const char *model_name, struct gateway_metrics **out)
{
    struct gateway_metrics *m = calloc(1, sizeof(*m));
    if (m == NULL) return STATUS_NO_MEMORY;
    m->registry = metrics_create();
    if (m->registry == NULL) {
        free(m);
        return STATUS_NO_MEMORY;
    }
    snprintf(m->model_name, sizeof(m->model_name), "%s", model_name);
    register_vllm(m);
    register_own(m);
    register_admission(m);
    register_explain(m);
    register_elastic(m);
    register_copies(m);
    *out = m;
    return STATUS_OK;
}

void gateway_metrics_destroy(struct gateway_metrics *m)
{
    if (m == NULL) return;
    metrics_destroy(m->registry);
    free(m);
}

void gateway_metrics_http(struct gateway_metrics *m, int status)
{
    char code[16];
    snprintf(code, sizeof(code), "%d", status);
    series_add(metrics_series(m->http, (const char *const[]){ code, NULL }), 1);
}

void gateway_metrics_prompt(struct gateway_metrics *m, uint32_t tokens)
{
    series_add(m->prompt_tokens, tokens);
    series_observe(m->prompt_size, tokens);
}

void gateway_metrics_first_token(struct gateway_metrics *m, double since_arrival_s)
{
    series_observe(m->ttft, since_arrival_s);
    series_add(m->generation_tokens, 1);
}

void gateway_metrics_next_token(struct gateway_metrics *m, double since_last_s)
{
    series_observe(m->itl, since_last_s);
    series_observe(m->tpot_old, since_last_s);
    series_add(m->generation_tokens, 1);
}

void gateway_metrics_cached(struct gateway_metrics *m, uint32_t queried, uint32_t hit)
{
    ASSERT(hit <= queried);
    series_add(m->cache_queries, queried);
    series_add(m->cache_hits, hit);
    series_observe(m->computed_size, queried - hit);
}

void gateway_metrics_prefilled(struct gateway_metrics *m, uint32_t tokens, uint32_t local,
                               uint32_t fetched, bool from_disk)
{
    ASSERT((uint64_t)local + fetched <= tokens);
    series_add(m->external_queries, tokens - local);
    series_add(m->external_hits, fetched);
    series_add(m->tiers[GATEWAY_TIER_LOCAL], local);
    series_add(m->tiers[from_disk ? GATEWAY_TIER_DISK : GATEWAY_TIER_REMOTE], fetched);
}

void gateway_metrics_asked(struct gateway_metrics *m, uint32_t n, uint32_t max_tokens)
{
    series_observe(m->params_n, n);
    if (max_tokens > 0) series_observe(m->params_max_tokens, max_tokens);
}

void gateway_metrics_displaced(struct gateway_metrics *m)
{
    series_add(m->preemptions, 1);
}

void gateway_metrics_placed(struct gateway_metrics *m, enum yolk_reuse_reason reason,
                            double waited_s)
{
    const char *name = yolk_reuse_reason_name(reason);
    series_add(metrics_series(m->reasons, (const char *const[]){ name, NULL }), 1);
    series_observe(m->queue, waited_s);
}

void gateway_metrics_predicted(struct gateway_metrics *m, double predicted_s, double actual_s)
{
    if (actual_s > 0) series_observe(m->predicted_ratio, predicted_s / actual_s);
}

void gateway_metrics_regret(struct gateway_metrics *m, double seconds)
{
    series_observe(m->regret, seconds);
}

void gateway_metrics_door(struct gateway_metrics *m, double waited_s)
{
    series_observe(m->door_wait, waited_s);
}

void gateway_metrics_tbt_regret(struct gateway_metrics *m, double seconds)
{
    series_observe(m->tbt_regret, seconds);
}

void gateway_metrics_refused(struct gateway_metrics *m, enum yolk_refusal refusal)
{
    const char *name = yolk_refusal_name(refusal);
    series_add(m->rejections, 1);
    series_add(metrics_series(m->refusals, (const char *const[]){ name, NULL }), 1);
}

void gateway_metrics_attempt_failed(struct gateway_metrics *m, const char *cause)
{
    series_add(metrics_series(m->attempts_failed, (const char *const[]){ cause, NULL }), 1);
}

void gateway_metrics_role_changed(struct gateway_metrics *m, const char *role)
{
    series_add(metrics_series(m->role_changes, (const char *const[]){ role, NULL }), 1);
}

void gateway_metrics_handed_over(struct gateway_metrics *m, uint32_t requests)
{
    series_add(m->handed_over, requests);
}

void gateway_metrics_copied(struct gateway_metrics *m, uint32_t blocks)
{
    series_add(m->copied_blocks, blocks);
}

void gateway_metrics_copies_removed(struct gateway_metrics *m, uint32_t blocks)
{
    series_add(m->uncopied_blocks, blocks);
}

void gateway_metrics_class(struct gateway_metrics *m, const char *class_name, const char *outcome)
{
    series_add(metrics_series(m->classes, (const char *const[]){ class_name, outcome, NULL }), 1);
}

void gateway_metrics_tenant(struct gateway_metrics *m, const char *tenant, const char *kind,
                            uint32_t tokens)
{
    series_add(metrics_series(m->tenant_tokens, (const char *const[]){ tenant, kind, NULL }),
               tokens);
}

void gateway_metrics_limited(struct gateway_metrics *m, const char *tenant, const char *limit)
{
    series_add(metrics_series(m->tenant_limited, (const char *const[]){ tenant, limit, NULL }), 1);
}

void gateway_metrics_unauthorized(struct gateway_metrics *m)
{
    series_add(m->unauthorized, 1);
}

void gateway_metrics_finished(struct gateway_metrics *m, const struct gateway_outcome *outcome)
{
    series_add(
        metrics_series(m->finished, (const char *const[]){ m->model_name, outcome->reason, NULL }),
        1);
    series_observe(m->e2e, outcome->total_s);
    series_observe(m->output_size, outcome->output_tokens);
    if (outcome->prefill_s >= 0) series_observe(m->prefill, outcome->prefill_s);
    if (outcome->decode_s >= 0) series_observe(m->decode, outcome->decode_s);
    if (outcome->inference_s >= 0) series_observe(m->inference, outcome->inference_s);
    if (outcome->decode_s >= 0 && outcome->output_tokens > 1)
        series_observe(m->tpot, outcome->decode_s / (outcome->output_tokens - 1));
}

/* The Conductor counts by itself, and starts over when its cluster does: then nothing is added. */
static void catch_up(struct series *series, uint64_t count)
{
    const double have = series_value(series);
    if ((double)count > have) series_add(series, (double)count - have);
}

static void set_disk(struct gateway_metrics *m, const uint64_t disk[PROTO_DISK_NUMBERS])
{
    for (unsigned i = 0; i < PROTO_DISK_NUMBERS; i++) {
        if (DISK_METRICS[i].counts_up) {
            catch_up(m->disk[i], disk[i]);
        } else {
            series_set(m->disk[i], (double)disk[i]);
        }
    }
}

static void set_admission(struct gateway_metrics *m, const struct yolk_admission_stats *a)
{
    catch_up(m->accepted, a->accepted);
    catch_up(m->audited, a->audited);
    catch_up(m->servable, a->servable);
    catch_up(m->late_ttft, a->late_ttft);
    catch_up(m->late_tbt, a->late_tbt);
    series_set(m->limit_ttft, a->options.ttft_ms / 1000);
    series_set(m->limit_tbt, a->options.tbt_ms / 1000);
    series_set(m->prefill_load, a->prefill_load);
    series_set(m->decode_load, a->decode_load);
    series_set(m->margin_ttft, a->margin_ttft);
    series_set(m->margin_tbt, a->margin_tbt);
    series_set(m->decode_mean, a->decode_ms / 1000);
    series_set(m->pressure, a->pressure);
}

static void set_explain(struct gateway_metrics *m, const struct yolk_explain_stats *e)
{
    catch_up(m->regret_wrong, e->wrong);
    catch_up(m->tbt_regret_wrong, e->tbt_wrong);
    catch_up(m->hits_predicted, e->predicted_blocks);
    catch_up(m->hits_kept, e->kept_blocks);
    catch_up(m->hits_realised, e->realised_blocks);
    catch_up(m->hit_alarms, e->alarms);
    series_set(m->hit_alarm, e->alarm ? 1 : 0);
    for (int i = 0; i < YOLK_MISSES; i++)
        catch_up(m->misses[i], e->missed[i]);
}

/* The latest values are 1; those before, of nodes that have come and gone, are 0. */
static void set_cache_config(struct gateway_metrics *m, const struct gateway_gauges *g)
{
    char block_size[16], pages[24];

    if (g->block_tokens == m->config_block_tokens && g->pages_total == m->config_pages) return;
    if (m->config != NULL) series_set(m->config, 0);
    snprintf(block_size, sizeof(block_size), "%u", g->block_tokens);
    snprintf(pages, sizeof(pages), "%llu", (unsigned long long)g->pages_total);
    m->config = metrics_series(m->cache_config,
                               (const char *const[]){ m->model_name, block_size, pages, NULL });
    series_set(m->config, 1);
    m->config_block_tokens = g->block_tokens;
    m->config_pages = g->pages_total;
}

enum status gateway_metrics_render(struct gateway_metrics *m, const struct gateway_gauges *g,
                                   struct buf *out)
{
    const double total = (double)g->pages_total, used = (double)g->pages_used;

    series_set(m->running, g->running);
    series_set(m->waiting, g->waiting);
    series_set(m->reading, g->reading);
    series_set(m->kv_usage, total > 0 ? used / total : 0);
    series_set(m->kv_usage_old, total > 0 ? used / total : 0);
    set_cache_config(m, g);
    series_set(m->prefill_up, g->prefill_up);
    series_set(m->decode_up, g->decode_up);
    series_set(m->known, g->known);
    series_set(m->pages_total, total);
    series_set(m->pages_used, used);
    series_set(m->block_tokens, g->block_tokens);
    if (g->conductor != NULL) {
        const struct yolk_conductor_stats *c = g->conductor;
        series_set(m->index_holdings, (double)c->holdings);
        series_set(m->index_bytes_each, (double)c->index_bytes / (double)c->holdings_max);
        series_set(m->index_unknown, (double)c->events_unknown);
        series_set(m->index_forgotten, (double)c->events_forgotten);
        series_set(m->conductor_bytes, (double)c->bytes);
        series_set(m->at_door, c->at_door);
        catch_up(m->inlined, c->inlined);
        catch_up(m->groups, c->groups);
        catch_up(m->group_stages, c->group_stages);
        series_set(m->samples,
                   (double)(c->samples_prefill + c->samples_decode + c->samples_transfer));
    }
    set_disk(m, g->disk);
    catch_up(m->damaged, rpc_damaged_total());
    for (unsigned i = 0; i < PROTO_MOVES; i++) {
        const double more = (double)g->moves[i] / 1e6 - series_value(m->moves[i]);
        if (more > 0) series_add(m->moves[i], more); /* less when a node has gone */
    }
    if (g->admission != NULL) set_admission(m, g->admission);
    if (g->explain != NULL) set_explain(m, g->explain);
    if (g->copies != NULL) {
        catch_up(m->copies, g->copies->copies);
        series_set(m->copies_held, g->copies->held);
    }
    if (g->elastic != NULL) {
        series_set(m->role_draining, g->elastic->draining);
        series_set(m->prefill_need, g->elastic->prefill_load);
        series_set(m->decode_need, g->elastic->decode_load);
    }
    return metrics_render(m->registry, out);
}
