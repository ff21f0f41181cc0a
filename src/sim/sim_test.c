/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/sim_test.c
 *
 * Goal:    a run obeys its laws, is the same every time, and its numbers are those of the cost
 *          model.
 * Method:  single requests against the formulas by hand; then every system and policy on a
 *          generated trace (the laws themselves are asserted inside: every request ends once, bytes
 *          sent are bytes received, no node over capacity, nothing pinned at the end); digests of
 *          whole runs that were written down, so that another compiler has to find the same ones.
 */
#include "sim/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/json.h"
#include "sim/sim_fixture.h"

/* ---- one request ---- */

#define LONE "{\"timestamp\": 0, \"input_length\": 10000, \"output_length\": 11}\n"

static void one_request_takes_what_the_formulas_say(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *result = run(trace, "layerwise=false");
    const struct sim_profile *p = sim_profile_at(0);
    const double n = 10000, bytes = n * p->kv_token_bytes;
    const double prefill = p->prefill_fixed_s + p->prefill_new_s * n + p->prefill_square_s * n * n;
    const double transfer = p->transfer_setup_s + bytes / p->nic_bytes_s;
    const double step = p->decode_base_s + p->decode_sequence_s;

    near(result->records[0].prefill_s, prefill, 1e-9);
    near(result->records[0].transfer_s, transfer, 1e-8);
    near(result->records[0].ttft_ms,
         1e3 * (p->schedule_s + prefill + transfer + bytes / p->load_bytes_s), 1e-4);
    near(result->records[0].tbt_ms, 1e3 * step, 1e-5);
    near(result->records[0].total_s, result->records[0].ttft_ms / 1e3 + 10 * step, 1e-6);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* The first token comes sooner by transfer and load, and the first interval is so much longer. */
static void a_first_token_may_be_shown_by_the_prefill(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *late = run(trace, "layerwise=false");
    struct sim_result *soon = run(trace, "layerwise=false,first_at_prefill=true");
    const struct sim_record *a = &late->records[0], *b = &soon->records[0];
    const struct sim_profile *p = sim_profile_at(0);
    const double between_ms = 1e3 * (a->transfer_s + 10000 * p->kv_token_bytes / p->load_bytes_s);

    near(a->ttft_ms - b->ttft_ms, between_ms, 1e-4);
    near(b->tbt_mean_ms - a->tbt_mean_ms, between_ms / 10, 1e-4); /* of ten intervals */
    near(b->tbt_ms - a->tbt_ms, between_ms, 1e-4);                /* the longest of them */
    near(b->total_s, a->total_s, 1e-9);
    sim_result_destroy(late);
    sim_result_destroy(soon);
    trace_destroy(trace);
    refuses("first_at_prefill=true,mtbf_s=9", "not together with failures");
}

static void layerwise_sending_hides_the_transfer(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *after = run(trace, "layerwise=false");
    struct sim_result *during = run(trace, "layerwise=true");
    near(after->records[0].ttft_ms - during->records[0].ttft_ms, 1e3 * after->records[0].transfer_s,
         1e-4);
    sim_result_destroy(after);
    sim_result_destroy(during);
    trace_destroy(trace);
}

#define NO_HOST "cost.host_sequence_s=0,cost.host_context_s=0,cost.host_cached_s=0"

static void a_coupled_node_stalls_what_it_decodes(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 41}\n"
              "{\"timestamp\": 500, \"input_length\": 20000, \"output_length\": 1}\n");
    struct sim_result *result = run(trace, "system=vllm,policy=round-robin,nodes=1," NO_HOST);
    const struct sim_profile *p = sim_profile_at(0);
    const double step = p->decode_base_s + p->decode_sequence_s;
    /* The longest 4 of 40 intervals: one has the stall in it. */
    near(result->records[0].tbt_ms, 1e3 * (step + result->records[1].prefill_s / 4), 1e-4);
    sim_result_destroy(result);
    result = run(trace, "system=vllm-chunked,policy=round-robin,nodes=1," NO_HOST);
    /* The longest 4: with the sixth to the ninth chunk of 2,047 tokens, which read the weights. */
    const double from = 5.0 * 2047, to = 9.0 * 2047;
    const double chunks = p->chunk_factor * (p->prefill_new_s * (to - from) +
                                             p->prefill_square_s * (to * to - from * from));
    near(result->records[0].tbt_ms, 1e3 * (chunks / 4 + p->decode_sequence_s), 1e-4);
    near(result->records[1].prefill_s,
         p->chunk_factor * (p->prefill_new_s * 20000 + p->prefill_square_s * 4e8), 1e-6);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* One decodes 300 tokens; after a second two prompts come, of which one prefill node computes the
 * first and, with two of them, the other the second. A step that begins meanwhile takes 1.5 times
 * as long, or 1.25 times while half of the nodes compute: walked step by step. */
static void steps_beside_a_prefill_take_longer(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 301}\n"
              "{\"timestamp\": 1000, \"input_length\": 20000, \"output_length\": 1}\n"
              "{\"timestamp\": 1000, \"input_length\": 8000, \"output_length\": 1}\n");
    static const char *const settings[] = {
        "prefill=1,decode=1,cost.decode_beside=1.5,cost.decode_context_s=2e-7",
        "prefill=2,decode=1,cost.decode_beside=1.5,cost.decode_context_s=2e-7",
        "prefill=2,decode=1,cost.decode_beside=1,cost.decode_context_s=2e-7",
    };

    for (int i = 0; i < 3; i++) {
        struct sim_result *result = run(trace, settings[i]);
        const struct sim_cluster *cluster = &result->cluster;
        const struct sim_record *r = result->records;
        const double begins = 1 + cluster->cost.schedule_s, nodes = cluster->prefill;
        const double both = r[1].prefill_s + r[2].prefill_s;
        double now = r[0].ttft_ms / 1e3, slowed = 0;
        for (int step = 0; step < 300; step++) {
            double computing = 0; /* of the nodes */
            if (now >= begins) {
                computing = nodes == 1 ? now < begins + both
                                       : (now < begins + r[1].prefill_s) / 2.0 +
                                             (now < begins + r[2].prefill_s) / 2.0;
            }
            now += (1 + (cluster->cost.decode_beside - 1) * computing) *
                   (cluster->cost.decode_base_s + cluster->cost.decode_sequence_s +
                    cluster->cost.decode_context_s * (1001 + step));
            slowed += computing > 0;
        }
        assert_true(slowed > 20);
        near(r[0].total_s, now, 1e-6);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

/* Hashing is no computing, but nothing else goes on: 1e-9 s times 10,000 squared, and what is
 * decoded stands still. Without a prefix cache there are no keys. */
static void the_keys_of_a_prefix_cache_keep_everybody(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"timestamp\": 0, \"input_length\": 512, \"output_length\": 41}\n"
              "{\"timestamp\": 500, \"input_length\": 10000, \"output_length\": 1}\n");
    static const char *const settings[] = {
        "system=vllm-prefix,policy=round-robin,nodes=1,cost.keys_square_s=0," NO_HOST,
        "system=vllm-prefix,policy=round-robin,nodes=1,cost.keys_square_s=1e-9," NO_HOST,
        "system=vllm,policy=round-robin,nodes=1,cost.keys_square_s=1e-9," NO_HOST,
    };
    struct sim_result *free_keys = run(trace, settings[0]);
    struct sim_result *keys = run(trace, settings[1]);
    struct sim_result *none = run(trace, settings[2]);

    near(keys->records[1].prefill_s, free_keys->records[1].prefill_s, 1e-9);
    near(keys->records[1].ttft_ms - free_keys->records[1].ttft_ms, 100, 0.5);
    near(keys->records[0].tbt_ms - free_keys->records[0].tbt_ms, 100.0 / 4, 1e-3);
    near(none->records[0].tbt_ms, free_keys->records[0].tbt_ms, 1e-6);
    sim_result_destroy(free_keys);
    sim_result_destroy(keys);
    sim_result_destroy(none);
    trace_destroy(trace);
}

/* 1 ms a sequence and 1e-6 s a token, 2e-6 s more with a prefix cache: of 40 steps the last four
 * are the longest, and begin with 1,037 to 1,040 tokens. A decode node does not wait for a host. */
static void the_host_of_a_coupled_node_costs_every_step(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"timestamp\": 0, \"input_length\": 1000, \"output_length\": 41}\n");
    static const struct {
        const char *system;
        double wait_ms;
    } cases[] = {
        { "system=vllm,policy=load,nodes=1", 1 + 1.0385 },
        { "system=vllm-prefix,policy=load,nodes=1", 1 + 3 * 1.0385 },
        { "system=vllm-chunked,policy=load,nodes=1", 1 + 1.0385 },
        { "system=mooncake,prefill=1,decode=1", 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char with[192], without[192];
        snprintf(without, sizeof(without), "%s," NO_HOST, cases[i].system);
        snprintf(with, sizeof(with),
                 "%s,cost.host_sequence_s=1e-3,cost.host_context_s=1e-6,cost.host_cached_s=2e-6",
                 cases[i].system);
        struct sim_result *none = run(trace, without), *host = run(trace, with);
        near(host->records[0].tbt_ms - none->records[0].tbt_ms, cases[i].wait_ms, 1e-4);
        near(host->records[0].ttft_ms, none->records[0].ttft_ms, 1e-6);
        sim_result_destroy(none);
        sim_result_destroy(host);
    }
    trace_destroy(trace);
}

/* The first node has a prompt to compute when the second request comes, and the second is decoding
 * when the third comes: by prompts that is the better place, by requests they are equals, and the
 * turn decides. */
static void a_coupled_node_is_chosen_by_its_prompts(void **state)
{
    (void)state;
    struct trace *trace =
        parse("{\"timestamp\": 0, \"input_length\": 60000, \"output_length\": 2}\n"
              "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 500}\n"
              "{\"timestamp\": 3000, \"input_length\": 600, \"output_length\": 2}\n");
    struct sim_result *result = run(trace, "system=vllm,policy=load,nodes=2");
    assert_true(result->records[2].queue_s < 0.1);
    sim_result_destroy(result);
    result = run(trace, "system=vllm,policy=count,nodes=2");
    assert_true(result->records[2].queue_s > 1);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* ---- reuse ---- */

static void what_is_cached_is_reused(void **state)
{
    (void)state;
    struct trace *trace = repeated(3);
    struct sim_result *result = run(trace, "prefill=2,decode=1");
    assert_int_equal(result->records[0].reused_tokens, 0);
    assert_int_equal(result->records[1].reused_tokens, 10240);
    assert_int_equal(result->records[2].reused_tokens, 10240);
    sim_result_destroy(result);
    result = run(trace, "prefill=2,decode=1,dram_tokens=0");
    assert_int_equal(result->records[2].reused_tokens, 0);
    sim_result_destroy(result);
    result = run(trace, "system=vllm-prefix,policy=round-robin,nodes=1");
    assert_int_equal(result->records[2].reused_tokens, 10240);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* All 21 blocks are used three times, so any of them may be the tenth hottest; the last one is not
 * full and in no pool. */
static void replicas_are_of_all_that_are_as_hot(void **state)
{
    (void)state;
    struct trace *trace = repeated(3);
    struct sim_result *result = run(trace, "prefill=2,decode=1,sample_s=10");
    const struct sim_sample *last = &result->samples[result->samples_count - 1];
    near(last->replicas[0], 20.0 / 21, 1e-9);
    assert_true(last->replicas[1] == 0); /* there are no hundred blocks */
    sim_result_destroy(result);
    trace_destroy(trace);
}

static void ssd_holds_what_dram_cannot(void **state)
{
    (void)state;
    struct trace *trace = repeated(3);
    struct sim_result *dram = run(trace, "prefill=1,decode=1");
    struct sim_result *ssd = run(trace, "prefill=1,decode=1,dram_tokens=512,ssd_tokens=1000000,"
                                        "cost.ssd_bytes_s=1000000000");
    assert_int_equal(ssd->records[2].reused_tokens, 10240);
    near(ssd->records[2].prefill_s, 19 * 512 * 327680.0 / 1e9, 1e-9);
    assert_true(dram->records[2].prefill_s < ssd->records[2].prefill_s);
    sim_result_destroy(dram);
    sim_result_destroy(ssd);
    trace_destroy(trace);
}

/* ---- laws ---- */

static const char *const runs[] = {
    "policy=global",
    "policy=local",
    "policy=match",
    "policy=load",
    "policy=count",
    "policy=random",
    "policy=round-robin",
    "policy=global,layerwise=true,learn=true,jitter_ms=3000",
    "policy=global,prefill=2,decode=1,dram_tokens=60000,ssd_tokens=90000,cost.vram_tokens=200000",
    "policy=load,prefill=2,decode=1,dram_tokens=40000,cost.vram_tokens=150000,batch_max=6",
    "policy=global,overload=baseline,prefill=2,decode=2,speed=3",
    "policy=global,overload=early,prefill=2,decode=2,speed=3",
    "policy=global,overload=predict,prefill=2,decode=2,speed=3",
    "policy=local,overload=adaptive,prefill=2,decode=2,speed=3,layerwise=true",
    "policy=global,overload=adaptive,door=true,stretch=5,group_max=3,prefill=3,decode=2,speed=4",
    "system=vllm,policy=round-robin",
    "system=vllm-prefix,policy=random,cost.vram_tokens=200000,nodes=4",
    "system=vllm-chunked,policy=load,cost.vram_tokens=200000,nodes=4",
    "system=vllm,policy=count,nodes=4,batch_max=3",
    "group_max=4,layerwise=true,learn=true",
    "group_max=3,prefill=4,decode=3,mtbf_s=60,mttr_s=10,fail_forget_s=5",
    "inline_tbt_ms=300,prefill=2,decode=4,store=layerwise",
};
enum { RUNS = sizeof(runs) / sizeof(runs[0]) };

/* Of runs[i] on the trace of generate(600). A change of the model changes them, and says so; a
 * change of the compiler does not. */
static const char *const digests[RUNS] = {
    "7817a550a121e", "79cdc86ff2dff", "218356ddeaf89", "50a757bac6734", "34b5899d7a83e",
    "373d7c10b384e", "d8d942ae937a0", "b302a36148c36", "24d45a543cf4d", "f40e21bda020c",
    "5d85517d92bf1", "7e5d44929f4be", "0cf5ba4894b8f", "6bff0dbbee5af", "e78155dd5b51b",
    "e2351eb0b396c", "a71db8152a11b", "4a8bbb600aed3", "d1c1fd9d0afab", "a20a8d5e29b7c",
    "3b67360943a38", "08b2a9b8b2f8e",
};

static void laws_hold_and_runs_repeat(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    bool same = true;

    for (int i = 0; i < RUNS; i++) {
        struct sim_result *result = run(trace, runs[i]);
        const struct sim_summary summary = summarize(result);
        char digest[32];
        snprintf(digest, sizeof(digest), "%013llx", (unsigned long long)summary.digest);
        const uint32_t refused = summary.refused_early + summary.refused_late;
        assert_int_equal(summary.done + summary.never_fit + refused, 600);
        assert_int_equal(refused > 0, strstr(runs[i], "overload=") != NULL);
        assert_true(summary.token_hit >= 0 && summary.token_hit < 1);
        for (uint32_t r = 0; r < result->count; r++) {
            const struct sim_record *record = &result->records[r];
            if (record->outcome != SIM_DONE) continue;
            assert_true(record->ttft_ms / 1e3 >= record->prefill_s);
            assert_true(record->total_s * 1e3 >= record->ttft_ms - 1e-6);
            assert_true(record->tbt_ms >= record->tbt_mean_ms - 1e-9);
            assert_true(record->fetched_tokens <= record->reused_tokens);
            assert_true(record->reused_tokens < record->input_tokens);
        }
        if (strcmp(digest, digests[i]) != 0) same = false;
        if (strcmp(digest, digests[i]) != 0) print_error("    \"%s\", /* %s */\n", digest, runs[i]);
        sim_result_destroy(result);
    }
    assert_true(same);
    trace_destroy(trace);
}

/* What the door is for: nobody who is served waits longer for a token than the limit allows. */
static void behind_a_door_tokens_are_in_time(void **state)
{
    (void)state;
    struct trace *trace = generate(1500);
    struct sim_result *result = run(
        trace,
        "overload=adaptive,door=true,prefill=4,decode=4,speed=1,tbt_limit_ms=80,admit_tbt_ms=80");
    const struct sim_summary summary = summarize(result);

    assert_true(summary.refused_early > 0 && summary.done > 300);
    assert_true(summary.tbt_ms.max <= 80 + 1e-9);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* A batch that nobody joins beyond the limit is never slower than it; the pool's mean, which is all
 * that the policy looks at, says little of one node. */
static void nodes_that_check_are_in_time(void **state)
{
    (void)state;
    static const char settings[] = "overload=predict,prefill=4,decode=4,speed=2,admit_tbt_ms=80,"
                                   "tbt_limit_ms=80,node_checks=";
    struct trace *trace = generate(1500);
    struct sim_summary found[2];

    for (int checks = 0; checks < 2; checks++) {
        char text[160];
        snprintf(text, sizeof(text), "%s%s", settings, checks ? "true" : "false");
        struct sim_result *result = run(trace, text);
        found[checks] = summarize(result);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
    assert_true(found[0].tbt_ms.max > 80 && found[1].tbt_ms.max <= 80 + 1e-9);
    assert_true(found[1].refused_late > 0 && found[1].good > found[0].good);
    refuses("node_checks=true,overload=adaptive,door=true", "not together");
    refuses("node_checks=true,policy=load", "only the conductor hears of refusals");
}

/* Who is told how long each answer will be serves more within the same limits; early rejection
 * looks at what there is now, and does not care. */
static void knowing_the_lengths_serves_more(void **state)
{
    (void)state;
    static const char *const policies[] = { "adaptive,door=true", "early" };
    struct trace *trace = generate(1500);

    for (int p = 0; p < 2; p++) {
        struct sim_summary found[2];
        for (int known = 0; known < 2; known++) {
            char settings[160];
            snprintf(settings, sizeof(settings),
                     "overload=%s,prefill=4,decode=2,speed=2,lengths_known=%s", policies[p],
                     known ? "true" : "false");
            struct sim_result *result = run(trace, settings);
            found[known] = summarize(result);
            sim_result_destroy(result);
        }
        if (p == 0 && !(found[1].good > 1.02 * found[0].good))
            fail_msg("%g told, %g not", found[1].good, found[0].good);
        if (p == 1) assert_true(found[0].digest == found[1].digest);
    }
    trace_destroy(trace);
}

/* Judging changes nothing; who had no other node regrets nothing; who may be overtaken in the queue
 * that was chosen regrets it more often. */
static void decisions_are_judged_in_hindsight(void **state)
{
    (void)state;
    static const char *const settings[] = { "prefill=1", "prefill=3", "prefill=3,stretch=50" };
    struct trace *trace = generate(600);
    double mean[3];

    for (int i = 0; i < 3; i++) {
        struct sim_cluster cluster = cluster_of(settings[i]);
        struct sim_result *without = run_cluster(trace, &cluster);
        cluster.regret = true;
        struct sim_result *with = run_cluster(trace, &cluster);
        assert_true(summarize(with).digest == summarize(without).digest);
        assert_int_equal(without->regret.judged, 0);
        assert_int_equal(with->regret.judged, 600);
        assert_true(with->regret.wrong <= with->regret.judged && with->regret.ms >= 0);
        mean[i] = with->regret.ms / 600;
        sim_result_destroy(without);
        sim_result_destroy(with);
    }
    trace_destroy(trace);
    assert_true(mean[0] == 0 && mean[1] > 0);
    if (!(mean[2] > 2 * mean[1])) fail_msg("%g ms, overtaken %g ms", mean[1], mean[2]);
}

static void the_seed_moves_only_chance(void **state)
{
    (void)state;
    struct trace *trace = generate(300);
    const char *const settings[] = { "policy=random,seed=1", "policy=random,seed=2",
                                     "policy=global,seed=1", "policy=global,seed=2" };
    uint64_t found[4];
    for (int i = 0; i < 4; i++) {
        struct sim_result *result = run(trace, settings[i]);
        found[i] = summarize(result).digest;
        sim_result_destroy(result);
    }
    assert_true(found[0] != found[1]);
    assert_true(found[2] == found[3]);
    trace_destroy(trace);
}

static void better_placement_is_better(void **state)
{
    (void)state;
    struct trace *trace = generate(1500);
    const char *const settings[] = { "policy=random", "policy=load", "policy=local",
                                     "policy=global" };
    double before = INFINITY;
    for (int i = 0; i < 4; i++) {
        struct sim_cluster cluster = cluster_of(settings[i]);
        struct sim_result *result = NULL;
        cluster.prefill = 4;
        assert_int_equal(sim_run(&cluster, trace, quiet, &result, NULL), STATUS_OK);
        const double ttft = summarize(result).ttft_ms.mean;
        assert_true(ttft < before);
        before = ttft;
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

/* ---- input and output ---- */

static void refused(const char *text, const char *words)
{
    struct sim_cluster cluster, before;
    struct errmsg err = { "" };
    cluster_init(&cluster);
    before = cluster;
    assert_int_equal(cluster_parse("c.json", text, strlen(text), &cluster, &err), STATUS_INVALID);
    if (strstr(err.text, words) == NULL) fail_msg("`%s` lacks `%s`", err.text, words);
    assert_memory_equal(&cluster, &before, sizeof(cluster));
}

static void bad_clusters_are_refused(void **state)
{
    (void)state;
    refused("{\"prefill\": 0}", "prefill: 0 is not in 1..2000");
    refused("{\"prefill\": 2.5}", "no whole number");
    refused("{\"dram_tokens\": -1}", "dram_tokens");
    refused("{\"dram_tokens\": \"much\"}", "expected a number");
    refused("{\"nodes\": 1e9}", "nodes");
    refused("{\"system\": \"magic\"}", "magic");
    refused("{\"profile\": \"tpu\"}", "tpu");
    refused("{\"prefil\": 2}", "no setting `prefil`");
    refused("{\"cost\": {\"nic\": 2}}", "no setting `cost.nic`");
    refused("{\"cost\": 3}", "cost: expected an object");
    refused("{\"cost.decode_beside\": 0.9}", "cost.decode_beside: 0.9 is not in 1..100");
    refused("{\"cost.nic_bytes_s\": 0}", "cost.nic_bytes_s: 0 is not in 1..");
    refused("[1]", "expected an object");
    refused("{\"prefill\": 2,}", "c.json: line 1");

    struct sim_cluster cluster = cluster_of("system=vllm");
    struct errmsg err = { "" };
    assert_int_equal(cluster_check(&cluster, &err), STATUS_INVALID);
    assert_int_equal(cluster_set(&cluster, "prefill", &err), STATUS_INVALID);
    assert_int_equal(cluster_set_nodes(&cluster, "8P8D", &err), STATUS_INVALID);
    assert_int_equal(cluster_set_nodes(&cluster, "0P+8D", &err), STATUS_INVALID);
    assert_int_equal(cluster_set_nodes(&cluster, "3P+5D", &err), STATUS_OK);
    assert_true(cluster.prefill == 3 && cluster.decode == 5);
}

static void settings_survive_writing(void **state)
{
    (void)state;
    struct sim_cluster cluster =
        cluster_of("profile=h800,prefill=3,theta=2,layerwise=true,cost.decode_base_s=0.03");
    struct sim_cluster again;
    struct buf text;
    struct errmsg err = { "" };

    buf_init(&text, 1 << 20);
    assert_int_equal(cluster_write(&cluster, &text), STATUS_OK);
    cluster_init(&again);
    if (cluster_parse("c", (const char *)buf_data(&text), text.len, &again, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(again.prefill == 3 && again.theta == 2 && again.layerwise);
    assert_true(again.cost.decode_base_s == 0.03 && again.cost.nic_bytes_s == 190e9);
    buf_fini(&text);
}

static void requests_that_never_fit_are_counted(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *result = run(trace, "cost.vram_tokens=5000");
    assert_int_equal(summarize(result).never_fit, 1);
    sim_result_destroy(result);
    result = run(trace, "cost.vram_tokens=5000,system=vllm,policy=random");
    assert_int_equal(summarize(result).never_fit, 1);
    sim_result_destroy(result);
    trace_destroy(trace);
}

static void the_json_is_json(void **state)
{
    (void)state;
    struct trace *trace = generate(200);
    struct sim_result *result = run(trace, "sample_s=5");
    const struct sim_summary summary = summarize(result);
    struct json_value *json = NULL;
    struct buf text;
    struct errmsg err = { "" };
    double number = 0;

    buf_init(&text, 1 << 24);
    assert_int_equal(sim_write_json(result, &summary, true, &text), STATUS_OK);
    if (json_document_parse((const char *)buf_data(&text), text.len, &json, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(json_value_number(json_value_member(json, "requests"), &number) && number == 200);
    assert_int_equal(json_value_count(json_value_member(json, "samples")), result->samples_count);
    assert_true(result->samples_count > 5);
    json_document_destroy(json);
    buf_fini(&text);
    sim_result_destroy(result);
    trace_destroy(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_takes_what_the_formulas_say),
        cmocka_unit_test(a_first_token_may_be_shown_by_the_prefill),
        cmocka_unit_test(layerwise_sending_hides_the_transfer),
        cmocka_unit_test(a_coupled_node_stalls_what_it_decodes),
        cmocka_unit_test(steps_beside_a_prefill_take_longer),
        cmocka_unit_test(the_keys_of_a_prefix_cache_keep_everybody),
        cmocka_unit_test(the_host_of_a_coupled_node_costs_every_step),
        cmocka_unit_test(a_coupled_node_is_chosen_by_its_prompts),
        cmocka_unit_test(what_is_cached_is_reused),
        cmocka_unit_test(replicas_are_of_all_that_are_as_hot),
        cmocka_unit_test(ssd_holds_what_dram_cannot),
        cmocka_unit_test(laws_hold_and_runs_repeat),
        cmocka_unit_test(behind_a_door_tokens_are_in_time),
        cmocka_unit_test(nodes_that_check_are_in_time),
        cmocka_unit_test(knowing_the_lengths_serves_more),
        cmocka_unit_test(decisions_are_judged_in_hindsight),
        cmocka_unit_test(the_seed_moves_only_chance),
        cmocka_unit_test(better_placement_is_better),
        cmocka_unit_test(bad_clusters_are_refused),
        cmocka_unit_test(settings_survive_writing),
        cmocka_unit_test(requests_that_never_fit_are_counted),
        cmocka_unit_test(the_json_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
