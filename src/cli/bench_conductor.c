/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_conductor.c - what a decision costs, keys given: 500 prefill and 500 decode instances,
 * ten million (block, holder) pairs.
 *
 * The index holds chains of blocks: a head that every instance has (a system prompt), and a tail
 * that is on two instances. A decision asks for a random chain, so that its look-ups miss the
 * caches as they would in a service. Two shapes: prompts of 128k tokens in 256 blocks of 512
 * tokens, and in 8,192 blocks of 16. The first once more with uneven paths: the last quarter of
 * each chain is on SSD, and holders that serve others count as busy, so that each decision looks
 * for the best way range by range (conductor/ways.h).
 *
 * Memory: about 400 MB, one shape at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/report.h"
#include "conductor/keys.h"
#include "yolk/conductor.h"

enum {
    INSTANCES = 1000,
    HOLDINGS = 10000000,
    PROMPT_TOKENS = 131072,
    SPARE = 20000, /* room for events in between */
    HEAD_BLOCKS = 4,
    COPIES = 2,
    DECISIONS = 4000,
    PLACEMENTS = 100000,
    IN_FLIGHT = 2000,
    EVENTS = 4000000,
    BLOCK_SIZE = 1 << 20,
};

struct world {
    struct env *env;
    struct yolk_conductor *conductor;
    struct yolk_instance_id ids[INSTANCES];
    struct rng rng;
    uint32_t block_tokens, blocks; /* of a whole chain */
    bool uneven;                   /* paths: see above */
    uint32_t chains;
    struct block_key *keys; /* of the chain that is asked for */
};

/* ---- the world ---- */

/* Key i of a chain, made up: heads are the same in all chains. */
static struct block_key key_of(uint32_t chain, uint32_t i)
{
    const uint64_t name = i < HEAD_BLOCKS ? i : (uint64_t)(chain + 1) << 32 | i;
    const uint64_t low = rng_counter(name, 1), high = rng_counter(name, 2);
    struct block_key key;

    memcpy(key.bytes, &low, sizeof(low));
    memcpy(key.bytes + sizeof(low), &high, sizeof(high));
    return key;
}

static void make_chain(struct world *w, uint32_t chain)
{
    for (uint32_t i = 0; i < w->blocks; i++)
        w->keys[i] = key_of(chain, i);
}

static enum status add_instances(struct world *w)
{
    char name[YOLK_NAME_SIZE], host[YOLK_NAME_SIZE];

    for (uint32_t i = 0; i < INSTANCES; i++) {
        const bool prefills = i < INSTANCES / 2;
        const struct yolk_instance instance = {
            .name = name,
            .host = host,
            .roles = prefills ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE,
            .pages_max = 1u << 30,
            .sequences_max = 4096,
        };
        snprintf(name, sizeof(name), "n%u", i);
        snprintf(host, sizeof(host), "h%u", i);
        const enum status status = yolk_conductor_add(w->conductor, &instance, &w->ids[i]);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status store(struct world *w, struct yolk_instance_id id, uint32_t from, uint32_t to,
                         enum yolk_tier tier)
{
    return yolk_conductor_stored(w->conductor, id, w->keys + from, to - from, tier);
}

/* Puts a chain on a prefill and on a decode instance, heads first. */
static enum status store_chain(struct world *w, uint32_t chain, uint64_t *spent_ns)
{
    enum status status = STATUS_OK;

    make_chain(w, chain);
    for (uint32_t copy = 0; copy < COPIES && status == STATUS_OK; copy++) {
        const uint32_t of_role = (uint32_t)rng_below(&w->rng, INSTANCES / 2);
        const struct yolk_instance_id id = w->ids[copy * (INSTANCES / 2) + of_role];
        const uint64_t start = env_now_ns(w->env);
        const uint32_t fast = w->uneven ? w->blocks - w->blocks / 4 : w->blocks;
        status = store(w, id, HEAD_BLOCKS, fast, YOLK_TIER_DRAM);
        if (status == STATUS_OK && fast < w->blocks) {
            status = store(w, id, fast, w->blocks, YOLK_TIER_SSD);
        }
        *spent_ns += env_now_ns(w->env) - start;
    }
    return status;
}

static enum status fill(struct world *w, uint64_t *spent_ns)
{
    enum status status = STATUS_OK;

    make_chain(w, 0);
    for (uint32_t i = 0; i < INSTANCES && status == STATUS_OK; i++) {
        status = store(w, w->ids[i], 0, HEAD_BLOCKS, YOLK_TIER_DRAM);
    }
    w->chains = (HOLDINGS - SPARE - INSTANCES * HEAD_BLOCKS) / ((w->blocks - HEAD_BLOCKS) * COPIES);
    for (uint32_t chain = 0; chain < w->chains && status == STATUS_OK; chain++)
        status = store_chain(w, chain, spent_ns);
    return status;
}

static void world_end(struct world *w)
{
    yolk_conductor_destroy(w->conductor);
    free(w->keys);
}

static enum status world_start(struct world *w, struct cli *cli, uint32_t blocks, bool uneven,
                               uint64_t *fill_ns, struct errmsg *err)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();

    *w = (struct world){
        .env = cli->env, .blocks = blocks, .block_tokens = PROMPT_TOKENS / blocks, .uneven = uneven
    };
    rng_init(&w->rng, 1);
    options.instances_max = INSTANCES;
    options.holdings_max = HOLDINGS;
    options.block_tokens = w->block_tokens;
    options.block_size = BLOCK_SIZE;
    options.congestion = uneven;
    w->keys = calloc(blocks, sizeof(*w->keys));
    if (w->keys == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "not enough memory");
    enum status status = yolk_conductor_create(&options, &w->conductor, err);
    if (status == STATUS_OK) {
        status = add_instances(w);
        if (status == STATUS_OK) status = fill(w, fill_ns);
        if (status != STATUS_OK) errmsg_set(err, status, "the index could not be filled");
    }
    if (status != STATUS_OK) world_end(w);
    return status;
}

static struct yolk_place_request request_of(const struct world *w, uint32_t tokens)
{
    return (struct yolk_place_request){ .request_id = "bench",
                                        .tokens = tokens,
                                        .output_tokens = 512,
                                        .keys = w->keys,
                                        .keys_count = tokens / w->block_tokens,
                                        .avoid_prefill = YOLK_INSTANCE_NONE,
                                        .avoid_decode = YOLK_INSTANCE_NONE,
                                        .avoid_holder = YOLK_INSTANCE_NONE };
}

/* ---- one decision ---- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void add_at_most(struct report *report, const char *name, double value, const char *unit,
                        double target)
{
    struct report_row *row = report_add(report, name, value, unit);
    row->kind = REPORT_AT_MOST;
    row->target = target;
}

static void add_at_least(struct report *report, const char *name, double value, const char *unit,
                         double target)
{
    struct report_row *row = report_add(report, name, value, unit);
    row->kind = REPORT_AT_LEAST;
    row->target = target;
}

static double now_ms(const struct world *w)
{
    return (double)env_now_ns(w->env) / 1e6;
}

/* A target of 0 is none. */
static void measure_decisions(struct world *w, double p50_target, double p99_target,
                              struct report *report)
{
    static double samples[DECISIONS];
    const struct yolk_place_request request = request_of(w, PROMPT_TOKENS);
    struct yolk_decision decision;
    char name[64];

    for (uint32_t i = 0; i < DECISIONS; i++) {
        make_chain(w, (uint32_t)rng_below(&w->rng, w->chains));
        const uint64_t start = env_now_ns(w->env);
        const enum status status =
            yolk_conductor_place(w->conductor, &request, (double)start / 1e6, &decision);
        samples[i] = (double)(env_now_ns(w->env) - start) / 1e3;
        ASSERT(status == STATUS_OK && decision.best_blocks + 1 >= w->blocks);
        yolk_conductor_finish(w->conductor, decision.ticket, STATUS_OK, now_ms(w));
    }
    qsort(samples, DECISIONS, sizeof(samples[0]), compare);
    const char *kind = w->uneven ? "_uneven" : "";
    snprintf(name, sizeof(name), "decision_%u_blocks%s_p50", w->blocks, kind);
    if (p50_target > 0) {
        add_at_most(report, name, samples[DECISIONS / 2], "us", p50_target);
    } else {
        report_add(report, name, samples[DECISIONS / 2], "us");
    }
    snprintf(name, sizeof(name), "decision_%u_blocks%s_p99", w->blocks, kind);
    if (p99_target > 0) {
        add_at_most(report, name, samples[DECISIONS * 99 / 100], "us", p99_target);
    } else {
        report_add(report, name, samples[DECISIONS * 99 / 100], "us");
    }
}

/* ---- requests a second ---- */

/* A length of the conversation trace's distribution: its deciles, joined by lines. */
static uint32_t conversation_length(struct rng *rng)
{
    static const uint32_t DECILES[] = { 891,  964,   1662,  3263,  4993,  6909,
                                        9570, 13196, 17869, 27367, 126195 };
    const double at = rng_unit(rng) * (sizeof(DECILES) / sizeof(DECILES[0]) - 1);
    const uint32_t low = (uint32_t)at;
    const double between = DECILES[low + 1] - (double)DECILES[low];
    return DECILES[low] + (uint32_t)(between * (at - low));
}

/* Placed, prefilled and finished, with IN_FLIGHT under way; what a policy adds, too. */
static double placements_per_s(struct world *w, bool judged)
{
    static struct yolk_ticket flying[IN_FLIGHT];
    uint64_t spent_ns = 0;

    for (uint32_t i = 0; i < PLACEMENTS + IN_FLIGHT; i++) {
        struct yolk_ticket *ticket = &flying[i % IN_FLIGHT];
        struct yolk_place_request request;
        struct yolk_decision decision;
        struct yolk_verdict verdict;
        enum status status = STATUS_OK;
        make_chain(w, (uint32_t)rng_below(&w->rng, w->chains));
        request = request_of(w, conversation_length(&w->rng));
        const uint64_t start = env_now_ns(w->env);
        if (i >= IN_FLIGHT) {
            yolk_conductor_prefill_done(w->conductor, *ticket, 0, (double)start / 1e6);
            yolk_conductor_finish(w->conductor, *ticket, STATUS_OK, (double)start / 1e6);
        }
        if (i < PLACEMENTS) {
            status = judged ? yolk_conductor_admit(w->conductor, &request, NULL,
                                                   (double)start / 1e6, &decision, &verdict)
                            : yolk_conductor_place(w->conductor, &request, (double)start / 1e6,
                                                   &decision);
            *ticket = decision.ticket;
        }
        spent_ns += env_now_ns(w->env) - start;
        ASSERT(status == STATUS_OK);
    }
    return PLACEMENTS / ((double)spent_ns / 1e9);
}

/* ---- events ---- */

/* Blocks come to instances and leave them: what a cluster under eviction reports. */
static double events_per_s(struct world *w)
{
    const uint32_t tail = w->blocks - HEAD_BLOCKS;
    uint64_t events = 0, spent_ns = 0;

    while (events < EVENTS) {
        const struct yolk_instance_id id = w->ids[rng_below(&w->rng, INSTANCES)];
        const uint32_t chain = w->chains + (uint32_t)rng_below(&w->rng, 1u << 20);
        make_chain(w, chain);
        const uint64_t start = env_now_ns(w->env);
        const enum status status =
            yolk_conductor_stored(w->conductor, id, w->keys + HEAD_BLOCKS, tail, YOLK_TIER_DRAM);
        yolk_conductor_removed(w->conductor, id, w->keys + HEAD_BLOCKS, tail);
        spent_ns += env_now_ns(w->env) - start;
        ASSERT(status == STATUS_OK);
        events += 2 * (uint64_t)tail;
    }
    return (double)events / ((double)spent_ns / 1e9);
}

/* ---- hashing, beside it ---- */

static void measure_hashing(struct world *w, struct report *report)
{
    static uint32_t tokens[PROMPT_TOKENS];
    const struct block_key root = key_of(0, 0);
    double samples[BENCH_RUNS];

    for (uint32_t i = 0; i < PROMPT_TOKENS; i++)
        tokens[i] = (uint32_t)rng_below(&w->rng, 50000);
    for (int run = 0; run < BENCH_RUNS; run++) {
        const uint64_t start = env_now_ns(w->env);
        const size_t count = conductor_keys(&root, tokens, PROMPT_TOKENS, w->block_tokens, w->keys);
        samples[run] = (double)(env_now_ns(w->env) - start) / 1e3;
        ASSERT(count == w->blocks);
    }
    char name[64];
    snprintf(name, sizeof(name), "hashing_%u_blocks", w->blocks);
    report_add(report, name, report_median(samples, BENCH_RUNS), "us");
}

enum status bench_conductor(struct cli *cli, struct report *report, struct errmsg *err)
{
    const struct yolk_admission_options limits = { .policy = YOLK_POLICY_ADAPTIVE,
                                                   .ttft_ms = 3600000,
                                                   .tbt_ms = 3600000 };
    struct yolk_conductor_stats stats;
    struct world world;
    uint64_t fill_ns = 0;

    enum status status = world_start(&world, cli, 256, false, &fill_ns, err);
    if (status != STATUS_OK) return status;
    yolk_conductor_stats(world.conductor, &stats);
    const double fill_rate = (double)stats.holdings / ((double)fill_ns / 1e9);
    measure_decisions(&world, 20, 100, report);
    measure_hashing(&world, report);
    add_at_least(report, "placements", placements_per_s(&world, false), "requests/s", 20000);
    status = yolk_conductor_set_admission(world.conductor, &limits, err);
    if (status == STATUS_OK) {
        report_add(report, "placements_adaptive", placements_per_s(&world, true), "requests/s");
    }
    add_at_least(report, "events_filling", fill_rate, "events/s", 5e6);
    add_at_least(report, "events_moving", events_per_s(&world), "events/s", 5e6);
    add_at_most(report, "bytes_per_holding", (double)stats.index_bytes / HOLDINGS, "bytes", 32);
    world_end(&world);
    if (status == STATUS_OK) status = world_start(&world, cli, 256, true, &fill_ns, err);
    if (status != STATUS_OK) return status;
    measure_decisions(&world, 0, 0, report);
    world_end(&world);
    status = world_start(&world, cli, 8192, false, &fill_ns, err);
    if (status != STATUS_OK) return status;
    measure_decisions(&world, 100, 0, report);
    measure_hashing(&world, report);
    world_end(&world);
    return status;
}
