/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/study.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "sim/writer.h"

enum { JOBS_MAX = STUDY_SYSTEMS + STUDY_POOLS_MAX + STUDY_LOADS * STUDY_SPLITS_MAX };

static const double POOL_TOKENS_MIN = 1e5;

const double study_loads[STUDY_LOADS] = { 0.75, 1, 1.25 };

/* All runs, in the order of struct study: systems, pools, splits by load. */
struct roster {
    uint32_t count;
    struct farm_job jobs[JOBS_MAX];
};

static struct farm_job *add_job(struct roster *roster, const struct sim_cluster *cluster)
{
    ASSERT(roster->count < JOBS_MAX);
    struct farm_job *job = &roster->jobs[roster->count++];
    *job = (struct farm_job){ .cluster = *cluster };
    return job;
}

double study_nodes(const struct sim_cluster *cluster)
{
    return cluster->system == CLUSTER_MOONCAKE ? cluster->prefill + cluster->decode
                                               : cluster->nodes;
}

/* ---- what is run ---- */

static struct sim_cluster as_system(const struct sim_cluster *cluster, unsigned system)
{
    struct sim_cluster other = *cluster;

    other.system = system;
    other.overload = CLUSTER_OVERLOAD_NONE;
    other.elastic = false;
    other.failures[0] = '\0';
    other.mtbf_s = 0;
    if (system != CLUSTER_MOONCAKE) other.store = LAYERS_MEASURED;
    other.policy = cluster_default_policy(system);
    other.nodes = study_nodes(cluster);
    other.prefill = floor(other.nodes / 2);
    other.decode = other.nodes - other.prefill;
    return other;
}

static void plan_systems(const struct sim_cluster *cluster, struct study *study,
                         struct roster *roster)
{
    add_job(roster, cluster)->keep = true;
    for (unsigned system = CLUSTER_MOONCAKE; system <= CLUSTER_VLLM_CHUNKED; system++) {
        if (system == cluster->system) continue;
        if (system == CLUSTER_MOONCAKE && study_nodes(cluster) < 2) continue;
        const struct sim_cluster other = as_system(cluster, system);
        if (cluster_check(&other, NULL) == STATUS_OK) add_job(roster, &other)->keep = true;
    }
    study->systems_count = roster->count;
}

/* 1, 2 and 5 times the powers of ten, up to the first that holds the whole trace. */
static void list_capacities(struct study *study)
{
    static const double digits[] = { 1, 2, 5 };
    const double all = (double)study->trace->unique * study->trace->block_tokens;

    for (uint32_t i = 0; i < STUDY_POOLS_MAX; i++) {
        const double tokens = POOL_TOKENS_MIN * digits[i % 3] * pow(10, floor(i / 3.0));
        study->lru[study->lru_count++].capacity_tokens = tokens;
        if (tokens >= all) break;
    }
}

static void plan_pools(const struct sim_cluster *cluster, struct study *study,
                       struct roster *roster)
{
    const double node_tokens = cluster->dram_tokens + cluster->ssd_tokens;
    const double fast = node_tokens > 0 ? cluster->dram_tokens / node_tokens : 1;

    if (cluster->system != CLUSTER_MOONCAKE) return;
    for (uint32_t i = 0; i < study->lru_count; i++) {
        struct study_run *run = &study->pools[study->pools_count++];
        run->at = study->lru[i].capacity_tokens;
        run->cluster = *cluster;
        run->cluster.dram_tokens = fast * run->at / cluster->prefill;
        run->cluster.ssd_tokens = (1 - fast) * run->at / cluster->prefill;
        add_job(roster, &run->cluster);
    }
}

static void plan_splits(const struct sim_cluster *cluster, struct study *study,
                        struct roster *roster)
{
    const double nodes = study_nodes(cluster);
    const double splits = fmin(nodes - 1, STUDY_SPLITS_MAX);

    if (cluster->system != CLUSTER_MOONCAKE) return;
    for (int load = 0; load < STUDY_LOADS; load++) {
        for (uint32_t i = 0; i < splits; i++) {
            struct study_run *run = &study->splits[load][i];
            run->at = splits < 2 ? 1 : floor(1 + (nodes - 2) * i / (splits - 1) + 0.5);
            run->cluster = *cluster;
            run->cluster.failures[0] = '\0'; /* of nodes that another split may not have */
            run->cluster.prefill = run->at;
            run->cluster.decode = nodes - run->at;
            run->cluster.speed *= study_loads[load];
            add_job(roster, &run->cluster);
        }
    }
    study->splits_count = (uint32_t)splits;
}

/* ---- what came out ---- */

static void collect(struct roster *roster, struct study *study)
{
    struct farm_job *job = roster->jobs;

    for (uint32_t i = 0; i < study->systems_count; i++, job++) {
        study->systems[i] = job->result;
        study->summaries[i] = job->summary;
        job->result = NULL;
    }
    for (uint32_t i = 0; i < study->pools_count; i++)
        study->pools[i].summary = (job++)->summary;
    for (int load = 0; load < STUDY_LOADS; load++) {
        for (uint32_t i = 0; i < study->splits_count; i++)
            study->splits[load][i].summary = (job++)->summary;
    }
    ASSERT(job == roster->jobs + roster->count);
}

static enum status measure_lru(struct study *study)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; status == STATUS_OK && i < study->lru_count; i++) {
        struct study_lru *lru = &study->lru[i];
        const double blocks = floor(lru->capacity_tokens / study->trace->block_tokens);
        status = trace_lru(study->trace, (uint64_t)blocks, &lru->token_hit, &lru->block_hit);
    }
    return status;
}

enum status study_run(const struct sim_cluster *cluster, const struct trace *trace,
                      uint32_t threads, struct farm_progress progress, struct study **out,
                      struct errmsg *err)
{
    struct study *study = calloc(1, sizeof(*study));
    struct roster *roster = calloc(1, sizeof(*roster));
    enum status status = STATUS_NO_MEMORY;

    if (study == NULL || roster == NULL) {
        errmsg_set(err, status, "not enough memory");
        goto out;
    }
    study->trace = trace;
    list_capacities(study);
    plan_systems(cluster, study, roster);
    plan_pools(cluster, study, roster);
    plan_splits(cluster, study, roster);
    status = farm_run(trace, roster->jobs, roster->count, threads, progress, err);
    if (status != STATUS_OK) goto out;
    collect(roster, study);
    status = trace_measure(trace, &study->stat);
    if (status == STATUS_OK) status = measure_lru(study);
    if (status != STATUS_OK) errmsg_set(err, status, "not enough memory");
out:
    free(roster);
    if (status == STATUS_OK)
        *out = study;
    else
        study_destroy(study);
    return status;
}

void study_destroy(struct study *study)
{
    if (study == NULL) return;
    for (uint32_t i = 0; i < study->systems_count; i++)
        sim_result_destroy(study->systems[i]);
    free(study);
}

/* ---- JSON ---- */

static void put_run(struct writer *w, const char *axis, const struct study_run *run, bool first)
{
    const struct sim_summary *s = &run->summary;
    writer_put(w,
               "%s\n  {\"%s\": %.9g, \"speed\": %.9g, \"good\": %.9g, \"token_hit\": %.9g, "
               "\"local_hit\": %.9g, \"ttft_mean_ms\": %.9g, \"ttft_p90_ms\": %.9g, "
               "\"tbt_mean_ms\": %.9g, \"tbt_p90_ms\": %.9g}",
               first ? "" : ",", axis, run->at, run->cluster.speed, s->good, s->token_hit,
               s->local_hit, s->ttft_ms.mean, s->ttft_ms.p90, s->tbt_mean_ms.mean, s->tbt_ms.p90);
}

static void put_systems(struct writer *w, const struct study *study)
{
    for (uint32_t i = 0; i < study->systems_count; i++) {
        writer_put(w, "%s\n", i == 0 ? "" : ",");
        if (w->status != STATUS_OK) return;
        w->status = sim_write_json(study->systems[i], &study->summaries[i], i == 0, w->out);
    }
}

enum status study_write_json(const struct study *study, struct buf *out)
{
    struct writer w = { out, STATUS_OK };

    writer_put(&w, "{\"systems\": [");
    put_systems(&w, study);
    writer_put(&w, "],\n \"lru\": [");
    for (uint32_t i = 0; i < study->lru_count; i++) {
        const struct study_lru *lru = &study->lru[i];
        writer_put(&w,
                   "%s\n  {\"capacity_tokens\": %.9g, \"token_hit\": %.9g, \"block_hit\": %.9g}",
                   i == 0 ? "" : ",", lru->capacity_tokens, lru->token_hit, lru->block_hit);
    }
    writer_put(&w, "],\n \"pools\": [");
    for (uint32_t i = 0; i < study->pools_count; i++)
        put_run(&w, "pool_tokens", &study->pools[i], i == 0);
    writer_put(&w, "],\n \"splits\": [");
    for (int load = 0; load < STUDY_LOADS; load++) {
        for (uint32_t i = 0; i < study->splits_count; i++)
            put_run(&w, "prefill", &study->splits[load][i], load == 0 && i == 0);
    }
    writer_put(&w, "]}\n");
    return w.status;
}
