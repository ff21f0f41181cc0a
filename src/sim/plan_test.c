/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plan_test.c
 *
 * Goal:    the search finds the cheapest cluster that keeps the limits, asks about each at most
 *          once, and accounts for all of the grid; floors never exclude a cluster that keeps them.
 * Method:  hundreds of random grids, prices and monotone oracles against trying everything; the
 *          same with the simulator on small grids of two traces; plan files, good and bad. */
#include "sim/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "sim/plan_sim.h"
#include "sim/trace_gen.h"

enum { GRIDS = 400, GENERATORS_MAX = 4, CLUSTERS_MAX = 4096 };

static const double no_floors[2] = { 0, 0 };
static const double GOOD = 0.9;

static struct plan_config config_of(const struct plan_space *space, uint32_t number)
{
    struct plan_config config;
    for (int c = PLAN_CHOICES; c-- > 0; number /= space->counts[c])
        config.steps[c] = number % space->counts[c];
    return config;
}

static uint32_t clusters_of(const struct plan_space *space)
{
    uint32_t total = 1;
    for (int c = 0; c < PLAN_CHOICES; c++)
        total *= space->counts[c];
    return total;
}

static uint32_t number_of(const struct plan_space *space, const struct plan_config *config)
{
    uint32_t number = 0;
    for (int c = 0; c < PLAN_CHOICES; c++)
        number = number * space->counts[c] + config->steps[c];
    return number;
}

/* ---- oracles made up ---- */

/* The share of good requests is GOOD and more where there is as much of everything as in one of the
 * generators; elsewhere it falls with what is lacking most. Chance moves it by at most `noise`. */
struct made_up {
    double noise;
    uint64_t seed;
    const struct plan_space *space;
    uint32_t generators_count;
    struct plan_config generators[GENERATORS_MAX];
    uint32_t asked_count;
    struct plan_config asked[CLUSTERS_MAX];
    uint32_t decided;
};

static struct plan_score made_up_score(const struct made_up *oracle,
                                       const struct plan_config *config)
{
    const uint64_t number = number_of(oracle->space, config);
    double most = 0;

    for (uint32_t i = 0; i < oracle->generators_count; i++) {
        double least = 1;
        for (int c = 0; c < PLAN_CHOICES; c++)
            least = fmin(least, (config->steps[c] + 1.0) / (oracle->generators[i].steps[c] + 1.0));
        most = fmax(most, least);
    }
    const double chance = (double)(rng_counter(oracle->seed, number) >> 11) / 0x1p53;
    const double good = most * GOOD + oracle->noise * chance;
    return (struct plan_score){ .meets = good >= GOOD,
                                .nearly = good < GOOD && good >= GOOD - PLAN_SLACK,
                                .good = good };
}

static bool made_up_meets(const struct made_up *oracle, const struct plan_config *config)
{
    return made_up_score(oracle, config).meets;
}

static enum status made_up_ask(void *ctx, const struct plan_config *configs, uint32_t count,
                               struct plan_score *out, struct errmsg *err)
{
    struct made_up *oracle = ctx;
    (void)err;
    assert_true(count > 0 && count <= PLAN_BATCH);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < oracle->asked_count; j++)
            assert_memory_not_equal(&oracle->asked[j], &configs[i], sizeof(configs[i]));
        assert_true(oracle->asked_count < CLUSTERS_MAX);
        oracle->asked[oracle->asked_count++] = configs[i];
        out[i] = made_up_score(oracle, &configs[i]);
    }
    return STATUS_OK;
}

static void made_up_progress(void *ctx, uint32_t decided, uint32_t count)
{
    struct made_up *oracle = ctx;
    assert_true(decided >= oracle->decided && decided <= count);
    assert_int_equal(count, clusters_of(oracle->space));
    oracle->decided = decided;
}

static void random_space(struct rng *rng, struct plan_space *space)
{
    static const uint32_t most[PLAN_CHOICES] = { 9, 9, 4, 3, 4 };

    *space = (struct plan_space){ .prices = { (double)rng_below(rng, 5), (double)rng_below(rng, 5),
                                              0.1 * (double)rng_below(rng, 4), rng_unit(rng),
                                              0.01 * (double)rng_below(rng, 9) } };
    for (int c = 0; c < PLAN_CHOICES; c++) {
        double value = c == PLAN_DRAM || c == PLAN_SSD ? 0 : 1;
        space->counts[c] = 1 + (uint32_t)rng_below(rng, most[c]);
        for (uint32_t i = 0; i < space->counts[c]; i++) {
            space->values[c][i] = value;
            value += 1 + (double)rng_below(rng, 3);
        }
    }
}

static void random_oracle(struct rng *rng, const struct plan_space *space, struct made_up *oracle)
{
    memset(oracle, 0, sizeof(*oracle));
    oracle->space = space;
    oracle->noise = (double)rng_below(rng, 2) * PLAN_SLACK;
    oracle->seed = rng_u64(rng);
    oracle->generators_count = (uint32_t)rng_below(rng, GENERATORS_MAX + 1);
    for (uint32_t g = 0; g < oracle->generators_count; g++)
        oracle->generators[g] = config_of(space, (uint32_t)rng_below(rng, clusters_of(space)));
}

/* INFINITY: none keeps the limits. */
static double cheapest(const struct plan_space *space, const struct made_up *oracle)
{
    double least = INFINITY;
    for (uint32_t i = 0; i < clusters_of(space); i++) {
        const struct plan_config config = config_of(space, i);
        if (made_up_meets(oracle, &config)) least = fmin(least, plan_cost(space, &config));
    }
    return least;
}

static void check_account(const struct plan_space *space, const struct plan_result *result,
                          const struct made_up *oracle)
{
    const struct plan_counts *counts = &result->counts;
    assert_int_equal(counts->configs, clusters_of(space));
    assert_int_equal(counts->simulated + counts->weaker + counts->dearer + counts->shorter,
                     counts->configs);
    assert_int_equal(counts->simulated + counts->extra, oracle->asked_count);
    if (oracle->noise == 0) assert_int_equal(counts->surprises, 0);
    assert_int_equal(oracle->decided, counts->configs);
}

static void check_told(const struct plan_space *space, const struct plan_result *result,
                       const struct made_up *oracle)
{
    for (uint32_t i = 0; i < result->runners_count; i++) {
        const double before = i == 0 ? result->best.cost : result->runners[i - 1].cost;
        assert_true(result->runners[i].cost >= before);
        assert_true(made_up_meets(oracle, &result->runners[i].config));
    }
    for (int c = 0; c < PLAN_CHOICES; c++) {
        const uint32_t step = result->best.config.steps[c];
        assert_int_equal(result->has_step[c][0], step > 0);
        assert_int_equal(result->has_step[c][1], step + 1 < space->counts[c]);
        for (int up = 0; up < 2; up++) {
            const struct plan_row *row = &result->step[c][up];
            if (!result->has_step[c][up]) continue;
            assert_int_equal(row->config.steps[c], up ? step + 1 : step - 1);
            assert_int_equal(row->score.meets, made_up_meets(oracle, &row->config));
            if (!up && row->score.meets) assert_true(row->cost >= result->best.cost);
        }
    }
}

static void the_cheapest_of_all_is_found(void **state)
{
    (void)state;
    static struct made_up oracle;
    struct rng rng;
    struct plan_space space;
    uint32_t asked = 0, all = 0;

    rng_init(&rng, 7);
    for (int i = 0; i < GRIDS; i++) {
        const struct plan_oracle asking = { made_up_ask, made_up_progress, &oracle };
        struct plan_result result;
        random_space(&rng, &space);
        random_oracle(&rng, &space, &oracle);
        const double least = cheapest(&space, &oracle);
        assert_int_equal(plan_search(&space, no_floors, &asking, &result, NULL), STATUS_OK);
        assert_int_equal(result.found, isfinite(least));
        check_account(&space, &result, &oracle);
        if (!result.found) continue;
        if (result.best.cost != least)
            fail_msg("grid %d: %g is not %g", i, result.best.cost, least);
        assert_true(made_up_meets(&oracle, &result.best.config));
        check_told(&space, &result, &oracle);
        asked += oracle.asked_count;
        all += clusters_of(&space);
    }
    assert_true(asked < all / 4); /* it does not try everything */
}

static enum status failing_ask(void *ctx, const struct plan_config *configs, uint32_t count,
                               struct plan_score *out, struct errmsg *err)
{
    uint32_t *calls = ctx;
    (void)configs;
    if (++*calls == 3) return errmsg_set(err, STATUS_INVALID, "the third");
    for (uint32_t i = 0; i < count; i++)
        out[i] = (struct plan_score){ .meets = true };
    return STATUS_OK;
}

static void what_the_oracle_says_is_passed_on(void **state)
{
    (void)state;
    struct plan_space space;
    struct plan_result result;
    struct errmsg err = { "" };
    uint32_t calls = 0;
    const struct plan_oracle asking = { failing_ask, NULL, &calls };

    plan_space_init(&space);
    assert_int_equal(plan_search(&space, no_floors, &asking, &result, &err), STATUS_INVALID);
    assert_string_equal(err.text, "the third");

    for (int c = 0; c < PLAN_CHOICES; c++)
        space.counts[c] = 32;
    assert_int_equal(plan_search(&space, no_floors, &asking, &result, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "33554432 clusters"));
}

/* ---- the simulator ---- */

static struct trace *generate_at(uint32_t requests, double rate)
{
    struct trace_gen_options options = trace_gen_defaults();
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    options.requests = requests;
    options.rate = rate;
    options.follow = 0.6;
    if (trace_gen(&options, &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
    return trace;
}

static void parse(struct plan_space *space, const char *text)
{
    struct errmsg err = { "" };
    if (plan_space_parse("p", text, strlen(text), space, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

/* INFINITY: none. Asserts that floors exclude none that keeps the limits. */
static double cheapest_simulated(struct plan_sim *plan, const double floors[2])
{
    double least = INFINITY;
    for (uint32_t i = 0; i < clusters_of(plan->space); i++) {
        const struct plan_config config = config_of(plan->space, i);
        struct plan_score score;
        assert_int_equal(plan_sim_ask(plan, &config, 1, &score, NULL), STATUS_OK);
        if (!score.meets) continue;
        assert_true(plan_value(plan->space, &config, PLAN_PREFILL) >= floors[0]);
        assert_true(plan_value(plan->space, &config, PLAN_DECODE) >= floors[1]);
        least = fmin(least, plan_cost(plan->space, &config));
    }
    return least;
}

static void simulated_plans_are_the_cheapest(void **state)
{
    (void)state;
    static const struct {
        double rate, good, ttft_s, tbt_ms;
        const char *file;
    } cases[] = {
        { 1, 0.9, 10, 80,
          "{\"choices\": {\"prefill\": {\"min\": 1, \"max\": 6}, \"decode\": {\"min\": 1, "
          "\"max\": 6}, \"dram_gb\": [0, 100], \"ssd_gb\": [0], \"nic_gbps\": [20, 400]}}" },
        { 0.5, 0.9, 10, 80,
          "{\"prices\": {\"dram_gb\": 0.01, \"ssd_gb\": 0.001}, \"choices\": {\"prefill\": [1, 2, "
          "3, 5], \"decode\": [1, 2, 3, 4], \"dram_gb\": [0, 50, 500], \"ssd_gb\": [0, 1000], "
          "\"nic_gbps\": [50, 100]}}" },
        { 4, 0.95, 3, 40,
          "{\"choices\": {\"prefill\": [1, 2, 4], \"decode\": [1, 2], \"dram_gb\": [0], "
          "\"ssd_gb\": [0], \"nic_gbps\": [1, 100]}}" },
    };
    uint32_t found = 0;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct trace *trace = generate_at(250, cases[i].rate);
        struct plan_space space;
        struct plan_sim plan = { .space = &space, .trace = trace, .good = cases[i].good };
        const struct plan_oracle asking = { plan_sim_ask, NULL, &plan };
        struct plan_result result;
        double floors[2];

        plan_space_init(&space);
        parse(&space, cases[i].file);
        cluster_init(&plan.base);
        plan.base.ttft_limit_s = cases[i].ttft_s;
        plan.base.tbt_limit_ms = cases[i].tbt_ms;
        assert_int_equal(plan_sim_floors(&plan, floors), STATUS_OK);
        const double least = cheapest_simulated(&plan, floors);
        assert_int_equal(plan_search(&space, floors, &asking, &result, NULL), STATUS_OK);
        assert_int_equal(result.found, isfinite(least));
        if (result.found && result.best.cost != least)
            fail_msg("case %zu: %g is not %g", i, result.best.cost, least);
        if (result.found) assert_true(result.counts.simulated < clusters_of(&space));
        assert_int_equal(result.best.score.meets, result.found);
        found += result.found;
        trace_destroy(trace);
    }
    assert_int_equal(found, 2); /* the last asks for the impossible */
}

static void floors_follow_the_work(void **state)
{
    (void)state;
    struct trace *trace = generate_at(400, 4);
    struct plan_space space;
    struct plan_sim plan = { .space = &space, .trace = trace, .good = 1 };
    double all[2], half[2], fast[2];

    plan_space_init(&space);
    cluster_init(&plan.base);
    plan.base.ttft_limit_s = 5;
    assert_int_equal(plan_sim_floors(&plan, all), STATUS_OK);
    plan.good = 0.5;
    assert_int_equal(plan_sim_floors(&plan, half), STATUS_OK);
    plan.good = 1;
    plan.base.speed = 20;
    assert_int_equal(plan_sim_floors(&plan, fast), STATUS_OK);
    assert_true(all[0] >= 1 && all[1] >= 1);
    assert_true(half[0] <= all[0] && half[1] < all[1]);
    assert_true(fast[0] > all[0] && fast[1] > all[1]);
    trace_destroy(trace);
}

/* ---- plan files ---- */

static void refused(const char *text, const char *words)
{
    struct plan_space space, before;
    struct errmsg err = { "" };
    plan_space_init(&space);
    before = space;
    assert_int_equal(plan_space_parse("plan.json", text, strlen(text), &space, &err),
                     STATUS_INVALID);
    if (strstr(err.text, words) == NULL) fail_msg("`%s` lacks `%s`", err.text, words);
    assert_non_null(strstr(err.text, "plan.json"));
    assert_memory_equal(&space, &before, sizeof(space));
}

static void plan_files(void **state)
{
    (void)state;
    struct plan_space space;

    plan_space_init(&space);
    parse(&space, "{\"prices\": {\"dram_gb\": 2}, \"choices\": {\"prefill\": {\"min\": 4, \"max\": "
                  "10, \"step\": 3}, \"ssd_gb\": [0, 5.5]}}");
    assert_true(space.prices.dram_gb == 2 && space.prices.prefill_node == 6);
    assert_true(space.counts[PLAN_PREFILL] == 3 && space.values[PLAN_PREFILL][2] == 10);
    assert_true(space.counts[PLAN_SSD] == 2 && space.values[PLAN_SSD][1] == 5.5);
    assert_int_equal(space.counts[PLAN_DECODE], 32);

    refused("{\"price\": {}}", "`price` is not known");
    refused("{\"prices\": {\"gpu\": 1}}", "`gpu` is not known");
    refused("{\"prices\": {\"dram_gb\": -1}}", "dram_gb: expected a number in 0..");
    refused("{\"prices\": {\"dram_gb\": \"1\"}}", "dram_gb: expected a number");
    refused("{\"prices\": 3}", "prices: expected an object");
    refused("{\"choices\": {\"nodes\": [1]}}", "`nodes` is not known");
    refused("{\"choices\": {\"prefill\": []}}", "prefill: there is none");
    refused("{\"choices\": {\"prefill\": [0]}}", "prefill: 0 is not in 1..2000");
    refused("{\"choices\": {\"prefill\": [1.5]}}", "no whole number");
    refused("{\"choices\": {\"decode\": [2, 2]}}", "decode: 2 does not ascend");
    refused("{\"choices\": {\"nic_gbps\": [0]}}", "nic_gbps: 0 is not in 1..");
    refused("{\"choices\": {\"decode\": {\"min\": 3, \"max\": 2}}}", "min <= max");
    refused("{\"choices\": {\"decode\": {\"min\": 1, \"max\": 2, \"step\": 0}}}", "min <= max");
    refused("{\"choices\": {\"decode\": {\"min\": 1, \"max\": 2000}}}", "more than 256 values");
    refused("{\"choices\": {\"decode\": {\"from\": 1}}}", "`from` is not known");
    refused("[]", "expected an object");
    refused("{", "line 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cheapest_of_all_is_found),
        cmocka_unit_test(what_the_oracle_says_is_passed_on),
        cmocka_unit_test(simulated_plans_are_the_cheapest),
        cmocka_unit_test(floors_follow_the_work),
        cmocka_unit_test(plan_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
