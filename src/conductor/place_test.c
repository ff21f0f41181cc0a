/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/place_test.c
 *
 * Goal:   Algorithm 1 finds the best choice there is, and keeps its promises.
 * Method: random clusters, each solved a second time by trying every prefill candidate with every
 *         holder and every fetched length, and every decode candidate. SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "conductor/place.h"

enum { INSTANCES_MAX = 8, ROUNDS = 3000, BLOCK_TOKENS = 32 };

struct cluster {
    struct conductor_fit prefill_fit[INSTANCES_MAX], decode_fit[INSTANCES_MAX];
    struct conductor_fit transfer[CONDUCTOR_PATHS], load;
    struct conductor_prefill_candidate prefill[INSTANCES_MAX];
    struct conductor_decode_candidate decode[INSTANCES_MAX];
    struct conductor_holder holders[INSTANCES_MAX];
    uint32_t on_host[INSTANCES_MAX], next[INSTANCES_MAX];
    struct conductor_place_input input;
};

static void random_fit(struct conductor_fit *fit, enum conductor_fit_kind kind, struct rng *rng)
{
    conductor_fit_init(fit, kind);
    for (int i = 0; i < CONDUCTOR_FEATURES_MAX; i++)
        fit->coef[i] *= 4 * rng_unit(rng);
}

static void random_cluster(struct cluster *c, struct rng *rng)
{
    const uint32_t instances = 1 + (uint32_t)rng_below(rng, INSTANCES_MAX);
    const uint32_t tokens = 1 + (uint32_t)rng_below(rng, 8000);

    for (int i = 0; i < CONDUCTOR_PATHS; i++) {
        random_fit(&c->transfer[i], CONDUCTOR_FIT_TRANSFER, rng);
        /* From instant to far slower than computing. */
        c->transfer[i].coef[1] *= pow(10, 3 * rng_unit(rng) - 1);
    }
    for (uint32_t i = 0; i < instances; i++) {
        const uint32_t host = (uint32_t)rng_below(rng, 3);
        const uint32_t blocks = rng_below(rng, 3) ? (uint32_t)rng_below(rng, 300) : 0;
        random_fit(&c->prefill_fit[i], CONDUCTOR_FIT_PREFILL, rng);
        random_fit(&c->decode_fit[i], CONDUCTOR_FIT_DECODE, rng);
        c->prefill[i] = (struct conductor_prefill_candidate){
            .instance = i,
            .host = host,
            .hit_blocks = blocks,
            .queued = (uint32_t)rng_below(rng, 4),
            .queue_ms = rng_below(rng, 2) ? 0 : 5000 * rng_unit(rng),
            .fit = &c->prefill_fit[i],
        };
        c->decode[i] =
            (struct conductor_decode_candidate){ i, (uint32_t)rng_below(rng, 4),
                                                 rng_below(rng, 3) * 1000,
                                                 &c->decode_fit[rng_below(rng, 2) ? 0 : i] };
        c->holders[i] = (struct conductor_holder){ .instance = i, .host = host, .blocks = blocks };
    }
    c->input = (struct conductor_place_input){
        .prefill = c->prefill,
        .prefill_count = 1 + (uint32_t)rng_below(rng, instances),
        .decode = c->decode,
        .decode_count = instances,
        .holders = c->holders,
        .holders_count = instances,
        .on_host = c->on_host,
        .next = c->next,
        .hosts_max = 3,
        .transfer = c->transfer,
        .tokens = tokens,
        .block_tokens = BLOCK_TOKENS,
        .block_size = 737280,
        .theta = 1 + (double)rng_below(rng, 3) * 0.5,
    };
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static double prefill_ms(const struct cluster *c, uint32_t i, uint32_t reuse)
{
    return c->prefill[i].queue_ms + conductor_cost_prefill(&c->prefill_fit[i], c->input.tokens,
                                                           (double)reuse * BLOCK_TOKENS);
}

/* Some hold a part on SSD, some are busy sending, on an SSD that may be anything. */
static void make_uneven(struct cluster *c, struct rng *rng)
{
    random_fit(&c->load, CONDUCTOR_FIT_TRANSFER, rng);
    c->load.coef[0] *= pow(10, 4 * rng_unit(rng));
    c->load.coef[1] *= pow(10, 4 * rng_unit(rng) - 1);
    c->input.load = &c->load;
    c->input.uneven = true;
    for (uint32_t i = 0; i < c->input.holders_count; i++) {
        struct conductor_holder *holder = &c->holders[i];
        if (rng_below(rng, 2)) holder->slow_blocks = (uint32_t)rng_below(rng, holder->blocks + 1);
        if (rng_below(rng, 2)) holder->busy_ms = 1000 * rng_unit(rng) * rng_unit(rng);
        c->prefill[i].slow_blocks = holder->slow_blocks;
    }
}

static double moved_ms(const struct cluster *c, const struct conductor_fit *fit, uint32_t from,
                       uint32_t to)
{
    if (to <= from) return 0;
    return conductor_cost_transfer(fit, (double)(to - from) * (double)c->input.block_size);
}

static double longer(double a, double b)
{
    return a > b ? a : b;
}

/* With `own` blocks of its own, the rest up to `reuse` from holder j or NULL, and others computed.
 */
static double way_ms(const struct cluster *c, uint32_t i, uint32_t own, uint32_t reuse,
                     const struct conductor_holder *j)
{
    const struct conductor_prefill_candidate *p = &c->prefill[i];
    const uint32_t fast = p->hit_blocks - p->slow_blocks;
    const double load = moved_ms(c, &c->load, fast, own);
    const double ms = longer(prefill_ms(c, i, reuse) - p->queue_ms, load) + p->queue_ms;

    if (j == NULL) return ms;
    const uint32_t there = j->blocks - j->slow_blocks;
    const int path = j->host == p->host ? 0 : 1;
    return ms + j->busy_ms +
           longer(moved_ms(c, &c->transfer[path], own, reuse),
                  moved_ms(c, &c->load, there > own ? there : own, reuse));
}

/* The best time of candidate i over every holder, behind what it has in memory itself, and every
 * length, by the rules of the paper. */
static double naive_ttft(const struct cluster *c, uint32_t i)
{
    const uint32_t limit = (c->input.tokens - 1) / BLOCK_TOKENS;
    const uint32_t hit = smaller(c->prefill[i].hit_blocks, limit);
    const uint32_t fast = smaller(c->prefill[i].hit_blocks - c->prefill[i].slow_blocks, limit);
    double best = INFINITY;

    for (uint32_t reuse = 0; reuse <= hit; reuse++)
        best = fmin(best, way_ms(c, i, reuse, reuse, NULL));
    for (uint32_t j = 0; j < c->input.holders_count; j++) {
        const uint32_t have = smaller(c->holders[j].blocks, limit);
        if (j == i || (double)have <= c->input.theta * fast) continue;
        for (uint32_t reuse = fast + 1; reuse <= have; reuse++)
            best = fmin(best, way_ms(c, i, fast, reuse, &c->holders[j]));
    }
    return best;
}

static void check_decode(const struct cluster *c, const struct conductor_place_output *out)
{
    for (uint32_t i = 0; i < c->input.decode_count; i++) {
        const struct conductor_decode_candidate *d = &c->decode[i];
        const double tbt = conductor_cost_decode(d->fit, d->sequences + 1.0,
                                                 (double)d->context_tokens + c->input.tokens);
        assert_true(out->tbt_ms <= tbt);
        if (tbt == out->tbt_ms) {
            assert_true(c->decode[out->decode].context_tokens <= d->context_tokens);
        }
    }
}

static void check_holder(const struct cluster *c, const struct conductor_place_output *out)
{
    const struct conductor_prefill_candidate *p = &c->prefill[out->prefill];

    assert_true((uint64_t)out->reuse_blocks * BLOCK_TOKENS < c->input.tokens);
    if (out->holder == CONDUCTOR_NO_HOLDER) {
        assert_true(out->reuse_blocks <= p->hit_blocks);
        assert_true(out->own_blocks == out->reuse_blocks);
        assert_true(out->transfer_ms == 0 || p->slow_blocks > 0);
        return;
    }
    assert_true(out->own_blocks < out->reuse_blocks && out->own_blocks <= p->hit_blocks);
    assert_true(out->holder != p->instance);
    assert_true(c->holders[out->holder].blocks >= out->reuse_blocks);
    assert_true(out->reuse_blocks > p->hit_blocks - p->slow_blocks);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The best few of all, in order, each candidate once; the first is the choice. */
static void check_ranks(const struct cluster *c, const struct conductor_place_output *out)
{
    double prefill[INSTANCES_MAX], decode[INSTANCES_MAX];

    for (uint32_t i = 0; i < c->input.prefill_count; i++)
        prefill[i] = naive_ttft(c, i);
    for (uint32_t i = 0; i < c->input.decode_count; i++) {
        const struct conductor_decode_candidate *d = &c->decode[i];
        decode[i] = conductor_cost_decode(d->fit, d->sequences + 1.0,
                                          (double)d->context_tokens + c->input.tokens);
    }
    for (uint32_t i = 0; i < out->ranked_prefill_count; i++) {
        const struct conductor_ranked_prefill *way = &out->ranked_prefill[i];
        assert_true(fabs(way->ttft_ms - prefill[way->position]) <= 1e-9 * (1 + way->ttft_ms));
        assert_true(way->ttft_ms == way->queue_ms + way->transfer_ms + way->compute_ms);
        for (uint32_t j = 0; j < i; j++)
            assert_true(out->ranked_prefill[j].position != way->position);
    }
    for (uint32_t i = 0; i < out->ranked_decode_count; i++) {
        assert_true(out->ranked_decode[i].tbt_ms == decode[out->ranked_decode[i].position]);
        for (uint32_t j = 0; j < i; j++)
            assert_true(out->ranked_decode[j].position != out->ranked_decode[i].position);
    }
    qsort(prefill, c->input.prefill_count, sizeof(prefill[0]), ascending);
    qsort(decode, c->input.decode_count, sizeof(decode[0]), ascending);
    assert_int_equal(out->ranked_prefill_count, smaller(c->input.prefill_count, CONDUCTOR_RANKED));
    assert_int_equal(out->ranked_decode_count, smaller(c->input.decode_count, CONDUCTOR_RANKED));
    for (uint32_t i = 0; i < out->ranked_prefill_count; i++)
        assert_true(fabs(out->ranked_prefill[i].ttft_ms - prefill[i]) <= 1e-9 * (1 + prefill[i]));
    for (uint32_t i = 0; i < out->ranked_decode_count; i++)
        assert_true(out->ranked_decode[i].tbt_ms == decode[i]);
    assert_int_equal(out->ranked_prefill[0].position, out->prefill);
    assert_int_equal(out->ranked_decode[0].position, out->decode);
}

static void check_against_all(int rounds, uint32_t uneven_of_four)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 42;
    static struct cluster cluster;
    struct rng rng;
    int fetched = 0, local = 0;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    for (int round = 0; round < rounds; round++) {
        struct conductor_place_output out;
        random_cluster(&cluster, &rng);
        if (rng_below(&rng, 4) < uneven_of_four) make_uneven(&cluster, &rng);
        conductor_place(&cluster.input, &out);
        double best = INFINITY;
        for (uint32_t i = 0; i < cluster.input.prefill_count; i++) {
            const double ms = naive_ttft(&cluster, i);
            if (ms < best) best = ms;
        }
        assert_true(fabs(out.ttft_ms - best) <= 1e-9 * (1 + best));
        check_decode(&cluster, &out);
        check_holder(&cluster, &out);
        check_ranks(&cluster, &out);
        if (out.holder != CONDUCTOR_NO_HOLDER) fetched++;
        if (out.holder == CONDUCTOR_NO_HOLDER && out.reuse_blocks > 0) local++;
    }
    /* The walk met both kinds often, or it proved little. */
    assert_true(fetched > rounds / 20);
    assert_true(local > rounds / 20);
}

static void test_equals_exhaustive_search(void **state)
{
    (void)state;
    check_against_all(ROUNDS, 0);
}

static void test_equals_exhaustive_search_with_tiers_and_busy_senders(void **state)
{
    (void)state;
    check_against_all(2 * ROUNDS, 4);
}

/* Where nobody is busy and nothing is on SSD, the general search finds what the quick one does. */
static void test_even_is_a_case_of_uneven(void **state)
{
    (void)state;
    static struct cluster cluster;
    struct rng rng;

    rng_init(&rng, 99);
    for (int round = 0; round < ROUNDS; round++) {
        struct conductor_place_output quick, general;
        random_cluster(&cluster, &rng);
        conductor_place(&cluster.input, &quick);
        cluster.input.uneven = true;
        conductor_place(&cluster.input, &general);
        assert_true(fabs(quick.ttft_ms - general.ttft_ms) <= 1e-9 * (1 + quick.ttft_ms));
        assert_int_equal(quick.best_blocks, general.best_blocks);
    }
}

/* One more cached block anywhere never raises the predicted time. */
static void test_more_cache_never_hurts(void **state)
{
    (void)state;
    static struct cluster cluster;
    struct rng rng;

    rng_init(&rng, 4242);
    for (int round = 0; round < ROUNDS; round++) {
        struct conductor_place_output before, after;
        random_cluster(&cluster, &rng);
        if (round % 2) make_uneven(&cluster, &rng);
        cluster.input.theta = 1; /* above 1 the rule itself forgoes fetches when a hit grows */
        conductor_place(&cluster.input, &before);
        const uint32_t lucky = (uint32_t)rng_below(&rng, cluster.input.holders_count);
        const uint32_t more = 1 + (uint32_t)rng_below(&rng, 50);
        cluster.holders[lucky].blocks += more;
        if (cluster.holders[lucky].slow_blocks > 0 || (cluster.input.uneven && rng_below(&rng, 2)))
            cluster.holders[lucky].slow_blocks += more; /* behind the others */
        cluster.prefill[lucky].hit_blocks = cluster.holders[lucky].blocks;
        cluster.prefill[lucky].slow_blocks = cluster.holders[lucky].slow_blocks;
        conductor_place(&cluster.input, &after);
        assert_true(after.ttft_ms <= before.ttft_ms * (1 + 1e-12));
    }
}

/* ---- the policies it is compared with ---- */

/* What a policy should take, read off its name: the position, or where all are as good, any. */
static bool is_best(const struct cluster *c, uint32_t taken)
{
    const struct conductor_prefill_candidate *t = &c->prefill[taken];

    for (uint32_t i = 0; i < c->input.prefill_count; i++) {
        const struct conductor_prefill_candidate *p = &c->prefill[i];
        const bool before = i < taken;
        if (c->input.placement == YOLK_PLACEMENT_MATCH &&
            (p->hit_blocks > t->hit_blocks || (before && p->hit_blocks == t->hit_blocks)))
            return false;
        if (c->input.placement == YOLK_PLACEMENT_LOAD &&
            (p->queue_ms < t->queue_ms || (before && p->queue_ms == t->queue_ms)))
            return false;
        if (c->input.placement == YOLK_PLACEMENT_COUNT &&
            (p->queued < t->queued || (before && p->queued == t->queued)))
            return false;
    }
    return true;
}

static void check_fewest(const struct cluster *c, uint32_t taken)
{
    const struct conductor_decode_candidate *t = &c->decode[taken];

    for (uint32_t i = 0; i < c->input.decode_count; i++) {
        const struct conductor_decode_candidate *d = &c->decode[i];
        assert_true(d->sequences >= t->sequences);
        if (d->sequences == t->sequences) assert_true(d->context_tokens >= t->context_tokens);
    }
}

/* Behind the choice come the best of the others, as if costs had chosen among them. */
static void check_others(const struct cluster *c, const struct conductor_place_output *out)
{
    const uint32_t limit = (c->input.tokens - 1) / BLOCK_TOKENS;
    double prefill[INSTANCES_MAX], decode[INSTANCES_MAX];
    uint32_t prefills = 0, decodes = 0;

    for (uint32_t i = 0; i < c->input.prefill_count; i++) {
        if (i == out->prefill) continue;
        prefill[prefills++] = prefill_ms(c, i, smaller(c->prefill[i].hit_blocks, limit));
    }
    for (uint32_t i = 0; i < c->input.decode_count; i++) {
        const struct conductor_decode_candidate *d = &c->decode[i];
        if (i == out->decode) continue;
        decode[decodes++] = conductor_cost_decode(d->fit, d->sequences + 1.0,
                                                  (double)d->context_tokens + c->input.tokens);
    }
    qsort(prefill, prefills, sizeof(prefill[0]), ascending);
    qsort(decode, decodes, sizeof(decode[0]), ascending);
    assert_int_equal(out->ranked_prefill_count, smaller(prefills + 1, CONDUCTOR_RANKED));
    assert_int_equal(out->ranked_decode_count, smaller(decodes + 1, CONDUCTOR_RANKED));
    assert_int_equal(out->ranked_prefill[0].position, out->prefill);
    assert_int_equal(out->ranked_decode[0].position, out->decode);
    assert_true(out->ranked_prefill[0].ttft_ms == out->ttft_ms);
    assert_true(out->ranked_decode[0].tbt_ms == out->tbt_ms);
    for (uint32_t i = 1; i < out->ranked_prefill_count; i++) {
        const double want = prefill[i - 1];
        assert_true(fabs(out->ranked_prefill[i].ttft_ms - want) <= 1e-9 * (1 + want));
    }
    for (uint32_t i = 1; i < out->ranked_decode_count; i++)
        assert_true(out->ranked_decode[i].tbt_ms == decode[i - 1]);
}

static void test_other_policies_take_what_they_say(void **state)
{
    (void)state;
    static struct cluster cluster;
    uint32_t drawn[INSTANCES_MAX] = { 0 };
    struct rng rng;

    rng_init(&rng, 77);
    for (int round = 0; round < ROUNDS; round++) {
        struct conductor_place_output out;
        random_cluster(&cluster, &rng);
        const uint32_t count = cluster.input.prefill_count;
        const uint32_t limit = (cluster.input.tokens - 1) / BLOCK_TOKENS;
        cluster.input.placement = (enum yolk_placement)(2 + rng_below(&rng, 5));
        cluster.input.draw = rng_below(&rng, 1 << 20);
        conductor_place(&cluster.input, &out);
        assert_true(is_best(&cluster, out.prefill));
        check_fewest(&cluster, out.decode);
        check_others(&cluster, &out);
        assert_int_equal(out.holder, CONDUCTOR_NO_HOLDER);
        assert_int_equal(out.reuse_blocks, smaller(cluster.prefill[out.prefill].hit_blocks, limit));
        assert_true(fabs(out.ttft_ms - prefill_ms(&cluster, out.prefill, out.reuse_blocks)) <
                    1e-6 * (1 + out.ttft_ms));
        if (cluster.input.placement == YOLK_PLACEMENT_ROUND_ROBIN)
            assert_int_equal(out.prefill, cluster.input.draw % count);
        if (cluster.input.placement == YOLK_PLACEMENT_RANDOM) {
            assert_int_equal(out.prefill, cluster.input.draw % count);
            drawn[out.prefill]++;
        }
    }
    for (int i = 0; i < INSTANCES_MAX / 2; i++)
        assert_true(drawn[i] > 0);
}

/* Nothing is fetched, and of what is left the best is taken. */
static void test_local_is_global_without_fetches(void **state)
{
    (void)state;
    static struct cluster cluster;
    struct rng rng;

    rng_init(&rng, 78);
    for (int round = 0; round < ROUNDS; round++) {
        struct conductor_place_output out;
        random_cluster(&cluster, &rng);
        const uint32_t limit = (cluster.input.tokens - 1) / BLOCK_TOKENS;
        double best = INFINITY;
        cluster.input.placement = YOLK_PLACEMENT_LOCAL;
        conductor_place(&cluster.input, &out);
        for (uint32_t i = 0; i < cluster.input.prefill_count; i++)
            best =
                fmin(best, prefill_ms(&cluster, i, smaller(cluster.prefill[i].hit_blocks, limit)));
        assert_int_equal(out.holder, CONDUCTOR_NO_HOLDER);
        assert_true(fabs(out.ttft_ms - best) <= 1e-9 * (1 + best));
        check_decode(&cluster, &out);
    }
}

/* Of both roles, the one that prefills decodes, unless it has no room; nothing else changes. */
static void test_both_roles_are_one_choice(void **state)
{
    (void)state;
    static struct cluster cluster;
    uint32_t coupled = 0, full = 0;
    struct rng rng;

    rng_init(&rng, 78);
    for (int round = 0; round < ROUNDS; round++) {
        struct conductor_place_output apart, out;
        random_cluster(&cluster, &rng);
        cluster.input.placement = (enum yolk_placement)rng_below(&rng, YOLK_PLACEMENTS);
        if (cluster.input.decode_count > 1) /* the first has no room */
            memmove(&cluster.decode[0], &cluster.decode[1],
                    --cluster.input.decode_count * sizeof(cluster.decode[0]));
        conductor_place(&cluster.input, &apart);
        for (uint32_t i = 0; i < cluster.input.prefill_count; i++)
            cluster.prefill[i].both = rng_below(&rng, 2) != 0;
        conductor_place(&cluster.input, &out);
        assert_int_equal(out.prefill, apart.prefill);
        assert_true(out.ttft_ms == apart.ttft_ms && out.holder == apart.holder);
        const struct conductor_prefill_candidate *p = &cluster.prefill[out.prefill];
        const bool room = cluster.decode[0].instance == 0 || p->instance > 0;
        assert_true(out.coupled == (p->both && room));
        full += p->both && !room;
        coupled += out.coupled;
        if (!out.coupled) {
            assert_int_equal(out.decode, apart.decode);
            continue;
        }
        const struct conductor_decode_candidate *d = &cluster.decode[out.decode];
        assert_int_equal(d->instance, p->instance);
        assert_true(out.tbt_ms ==
                    conductor_cost_decode(d->fit, d->sequences + 1.0,
                                          (double)d->context_tokens + cluster.input.tokens));
        assert_int_equal(out.ranked_decode_count, 1);
        assert_int_equal(out.ranked_decode[0].position, out.decode);
    }
    assert_true(coupled > ROUNDS / 8 && full > 0);
}

static void test_names_go_both_ways(void **state)
{
    (void)state;
    enum yolk_placement placement = YOLK_PLACEMENT_GLOBAL;

    for (int i = 0; i < YOLK_PLACEMENTS; i++) {
        const char *name = yolk_placement_name((enum yolk_placement)i);
        assert_int_equal(yolk_placement_of(name, &placement), STATUS_OK);
        assert_int_equal((int)placement, i);
    }
    assert_int_equal(yolk_placement_of("best", &placement), STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_exhaustive_search),
        cmocka_unit_test(test_equals_exhaustive_search_with_tiers_and_busy_senders),
        cmocka_unit_test(test_even_is_a_case_of_uneven),
        cmocka_unit_test(test_more_cache_never_hurts),
        cmocka_unit_test(test_other_policies_take_what_they_say),
        cmocka_unit_test(test_local_is_global_without_fetches),
        cmocka_unit_test(test_both_roles_are_one_choice),
        cmocka_unit_test(test_names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
