/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/plan_sim.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "sim/farm.h"
#include "sim/spread.h"

struct sim_cluster plan_sim_cluster(const struct plan_sim *plan, const struct plan_config *config)
{
    struct sim_cluster cluster = plan->base;
    const double tokens_gb = 1e9 / cluster.cost.kv_token_bytes;

    ASSERT(cluster.system == CLUSTER_MOONCAKE);
    cluster.prefill = plan_value(plan->space, config, PLAN_PREFILL);
    cluster.decode = plan_value(plan->space, config, PLAN_DECODE);
    cluster.dram_tokens = plan_value(plan->space, config, PLAN_DRAM) * tokens_gb;
    cluster.ssd_tokens = plan_value(plan->space, config, PLAN_SSD) * tokens_gb;
    cluster.nic_gbps = plan_value(plan->space, config, PLAN_NIC);
    return cluster;
}

enum status plan_sim_ask(void *ctx, const struct plan_config *configs, uint32_t count,
                         struct plan_score *out, struct errmsg *err)
{
    const struct plan_sim *plan = ctx;
    struct farm_job jobs[PLAN_BATCH];

    ASSERT(count <= PLAN_BATCH);
    for (uint32_t i = 0; i < count; i++)
        jobs[i] = (struct farm_job){ .cluster = plan_sim_cluster(plan, &configs[i]) };
    const enum status status = farm_run(plan->trace, jobs, count, plan->threads,
                                        (struct farm_progress){ NULL, NULL }, err);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        const struct sim_summary *s = &jobs[i].summary;
        out[i] = (struct plan_score){
            .meets = s->good >= plan->good - 1e-9, /* a sum of many small shares */
            .nearly = s->good < plan->good - 1e-9 && s->good >= plan->good - PLAN_SLACK,
            .good = s->good,
            .ttft_p50_s = s->ttft_ms.p50 / 1e3,
            .ttft_p90_s = s->ttft_ms.p90 / 1e3,
            .tbt_p90_ms = s->tbt_ms.p90,
            .token_hit = s->token_hit,
        };
    }
    return STATUS_OK;
}

/* ---- floors ---- */

static uint32_t requests_of(const struct plan_sim *plan)
{
    const double most = plan->base.requests_max;
    return most > 0 && most < plan->trace->count ? (uint32_t)most : plan->trace->count;
}

/* The sum of as many of the smallest values as must be good. */
static double least_sum(const struct plan_sim *plan, double *values, uint32_t count)
{
    const uint32_t needed = (uint32_t)fmin(ceil(plan->good * count - 1e-6), count);
    double sum = 0;

    sim_spread_sort(values, count);
    for (uint32_t i = 0; i < needed; i++)
        sum += values[i];
    return sum;
}

/* Every block that the trace has more than once, from the first on, was there before. */
static double least_prefill_s(const struct plan_sim *plan, const uint32_t *references, uint32_t who)
{
    const struct trace_request *request = &plan->trace->requests[who];
    const uint32_t *ids = plan->trace->ids + request->first;
    const uint32_t block = plan->trace->block_tokens;
    const uint32_t reusable = (request->input_tokens - 1) / block;
    uint32_t run = 0;

    while (run < request->blocks && run < reusable && references[ids[run]] > 1)
        run++;
    return sim_profile_prefill_s(&plan->base.cost, request->input_tokens, (double)run * block);
}

static double answer_tokens(const struct plan_sim *plan, uint32_t who)
{
    const double tokens = fmax(plan->trace->requests[who].output_tokens, 1);
    const double most = plan->base.output_max;
    return most > 0 && tokens > most ? most : tokens;
}

/* Nodes that many seconds of work need between the first arrival and `later_s` behind the last. */
static double nodes_for(const struct plan_sim *plan, double work_s, double later_s)
{
    const struct sim_cluster *base = &plan->base;
    const double last_ms = plan->trace->requests[requests_of(plan) - 1].arrival_ms;
    const double span_s = (last_ms + base->jitter_ms) / 1e3 / base->speed + later_s;
    return ceil(work_s / span_s - 1e-6);
}

static double prefill_floor(const struct plan_sim *plan, const uint32_t *references, double *values)
{
    const uint32_t count = requests_of(plan);

    for (uint32_t i = 0; i < count; i++)
        values[i] = least_prefill_s(plan, references, i);
    return nodes_for(plan, least_sum(plan, values, count), plan->base.ttft_limit_s);
}

/* The first token of an answer comes from the prefill. */
static double decode_floor(const struct plan_sim *plan, double *values)
{
    const uint32_t count = requests_of(plan);
    const struct sim_profile *cost = &plan->base.cost;
    const double limit_s = plan->base.tbt_limit_ms / 1e3;
    double longest = 0;

    for (uint32_t i = 0; i < count; i++) {
        values[i] = answer_tokens(plan, i) - 1;
        longest = fmax(longest, values[i]);
    }
    double sequences = plan->base.batch_max;
    if (cost->decode_sequence_s > 0)
        sequences = fmin(sequences, (limit_s - cost->decode_base_s) / cost->decode_sequence_s);
    if (sequences <= 0) return 0; /* no step is within the limit: the search will say so */
    const double step_s = cost->decode_base_s + cost->decode_sequence_s * sequences;
    const double work_s = least_sum(plan, values, count) * step_s / sequences;
    return nodes_for(plan, work_s, plan->base.ttft_limit_s + longest * limit_s);
}

enum status plan_sim_floors(const struct plan_sim *plan, double floors[2])
{
    double *values = calloc(requests_of(plan), sizeof(*values));
    uint32_t *references = calloc((size_t)plan->trace->unique + 1, sizeof(*references));
    enum status status = STATUS_NO_MEMORY;

    if (values != NULL && references != NULL) {
        for (uint32_t i = 0; i < plan->trace->ids_count; i++)
            references[plan->trace->ids[i]]++;
        floors[0] = prefill_floor(plan, references, values);
        floors[1] = decode_floor(plan, values);
        status = STATUS_OK;
    }
    free(values);
    free(references);
    return status;
}
