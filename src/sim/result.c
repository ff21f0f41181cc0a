/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/result.c - what a run amounts to: percentiles, shares, loads; as JSON and as text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "sim/sim.h"
#include "sim/writer.h"

const double sim_tbt_points[SIM_TBT_POINTS] = { 40,  50,  60,  70,  80,  90,  100, 120,
                                                150, 200, 250, 300, 400, 500, 700, 1000 };
const double sim_ttft_points[SIM_TTFT_POINTS] = { 0.5, 1, 2, 3, 5, 8, 10, 15, 20, 30, 60, 120 };

/* ---- spreads ---- */

enum { ALL = SLO_CLASSES_MAX };

/* A column of the records: `offset` of a double. Of a class or ALL; only of those that are done. */
static struct sim_spread measure(const struct sim_result *result, uint32_t class, size_t offset,
                                 double *scratch)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < result->count; i++) {
        if (result->records[i].outcome != SIM_DONE) continue;
        if (class != ALL && result->records[i].class != class) continue;
        memcpy(&scratch[count++], (const char *)&result->records[i] + offset, sizeof(double));
    }
    return sim_spread_of(scratch, count);
}

/* ---- counts and shares ---- */

static void count_outcomes(const struct sim_result *result, struct sim_summary *out)
{
    out->requests = result->count;
    for (uint32_t i = 0; i < result->count; i++) {
        switch (result->records[i].outcome) {
        case SIM_DONE: out->done++; break;
        case SIM_REFUSED_EARLY: out->refused_early++; break;
        case SIM_REFUSED_LATE:
            out->refused_late++;
            out->wasted_prefill_s += result->records[i].prefill_s;
            break;
        case SIM_NEVER_FITS: out->never_fit++; break;
        case SIM_FAILED: out->failed++; break;
        case SIM_UNFINISHED: ASSERT(i == result->count); /* impossible */
        }
    }
    ASSERT(out->done + out->refused_early + out->refused_late + out->never_fit + out->failed ==
           result->count);
}

/* Within the limits of its class, the general ones where that has none of its own. */
static bool is_within(const struct sim_result *result, const struct sim_record *record,
                      double record_tbt_ms)
{
    double ttft_ms = result->cluster.ttft_limit_s * 1e3, tbt_ms = result->cluster.tbt_limit_ms;

    if (record->outcome != SIM_DONE) return false;
    if (result->classes.count > 0) {
        const struct slo_class *class = &result->classes.classes[record->class];
        if (class->ttft_ms > 0) ttft_ms = class->ttft_ms;
        if (class->tbt_ms > 0) tbt_ms = class->tbt_ms;
    }
    return record->ttft_ms <= ttft_ms && record_tbt_ms <= tbt_ms;
}

static bool is_good(const struct sim_result *result, const struct sim_record *record)
{
    return is_within(result, record, record->tbt_ms);
}

static void count_good(const struct sim_result *result, struct sim_summary *out)
{
    const double ttft_limit_ms = result->cluster.ttft_limit_s * 1e3;
    const double one = 1.0 / result->count;

    for (uint32_t i = 0; i < result->count; i++) {
        const struct sim_record *record = &result->records[i];
        if (record->outcome != SIM_DONE) continue;
        for (int p = 0; p < SIM_TTFT_POINTS; p++) {
            if (record->ttft_ms <= sim_ttft_points[p] * 1e3) out->ttft[p] += one;
        }
        if (is_good(result, record)) out->good += one;
        if (is_within(result, record, record->tbt_mean_ms)) out->good_mean += one;
        if (record->ttft_ms > ttft_limit_ms) continue;
        for (int p = 0; p < SIM_TBT_POINTS; p++) {
            if (record->tbt_ms <= sim_tbt_points[p]) out->effective[p] += one;
        }
    }
}

static void count_hits(const struct sim_result *result, struct sim_summary *out)
{
    double input = 0, reused = 0, fetched = 0;

    for (uint32_t i = 0; i < result->count; i++) {
        const struct sim_record *record = &result->records[i];
        input += record->input_tokens;
        reused += record->reused_tokens;
        fetched += record->fetched_tokens;
    }
    out->token_hit = reused / input;
    out->local_hit = (reused - fetched) / input;
}

static void count_class(const struct sim_result *result, uint32_t class, struct sim_class *out,
                        double *scratch)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < result->count; i++) {
        const struct sim_record *record = &result->records[i];
        if (record->class != class) continue;
        out->requests++;
        out->done += record->outcome == SIM_DONE;
        out->refused += record->outcome == SIM_REFUSED_EARLY || record->outcome == SIM_REFUSED_LATE;
        good += is_good(result, record);
    }
    out->good = out->requests > 0 ? (double)good / out->requests : 0;
    out->ttft_ms = measure(result, class, offsetof(struct sim_record, ttft_ms), scratch);
    out->tbt_ms = measure(result, class, offsetof(struct sim_record, tbt_ms), scratch);
}

/* Over the samples while requests arrive. NaN if one of them does not vary. */
static double correlate_loads(const struct sim_result *result)
{
    double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;
    const double last_s = result->records[result->count - 1].arrival_s;

    for (uint32_t i = 0; i < result->samples_count; i++) {
        const struct sim_sample *sample = &result->samples[i];
        if (sample->time_s > last_s) break;
        n++;
        x += sample->prefill_load;
        y += sample->decode_load;
        xx += sample->prefill_load * sample->prefill_load;
        yy += sample->decode_load * sample->decode_load;
        xy += sample->prefill_load * sample->decode_load;
    }
    const double dx = n * xx - x * x, dy = n * yy - y * y;
    if (n < 3 || !(dx > 0) || !(dy > 0)) return NAN;
    return (n * xy - x * y) / sqrt(dx * dy);
}

/* Field by field: padding is no part of a record. */
static uint64_t digest_of(const struct sim_result *result)
{
    uint64_t digest = 0;

    for (uint32_t i = 0; i < result->count; i++) {
        const struct sim_record *r = &result->records[i];
        const double row[] = { (double)digest,    (double)r->outcome, r->reused_tokens,
                               r->fetched_tokens, r->arrival_s,       r->ttft_ms,
                               r->tbt_ms,         r->tbt_mean_ms,     r->queue_s,
                               r->prefill_s,      r->transfer_s,      r->total_s };
        digest = hash_xxh3(row, sizeof(row)) >> 12; /* a double holds it exactly */
    }
    return digest;
}

enum status sim_summarize(const struct sim_result *result, struct sim_summary *out)
{
    struct sim_summary summary = { 0 };
    double *scratch = calloc(result->count, sizeof(*scratch));

    if (scratch == NULL) return STATUS_NO_MEMORY;
    count_outcomes(result, &summary);
    count_good(result, &summary);
    count_hits(result, &summary);
    summary.ttft_ms = measure(result, ALL, offsetof(struct sim_record, ttft_ms), scratch);
    summary.tbt_ms = measure(result, ALL, offsetof(struct sim_record, tbt_ms), scratch);
    summary.tbt_mean_ms = measure(result, ALL, offsetof(struct sim_record, tbt_mean_ms), scratch);
    summary.prefill_s = measure(result, ALL, offsetof(struct sim_record, prefill_s), scratch);
    summary.queue_s = measure(result, ALL, offsetof(struct sim_record, queue_s), scratch);
    summary.transfer_s = measure(result, ALL, offsetof(struct sim_record, transfer_s), scratch);
    for (uint32_t i = 0; i < result->classes.count; i++)
        count_class(result, i, &summary.classes[i], scratch);
    summary.load_correlation = correlate_loads(result);
    summary.digest = digest_of(result);
    free(scratch);
    *out = summary;
    return STATUS_OK;
}

/* ---- JSON ---- */

static void put_spread(struct writer *w, const char *name, const struct sim_spread *s)
{
    writer_put(
        w,
        " \"%s\": {\"mean\": %.9g, \"p10\": %.9g, \"p25\": %.9g, \"p50\": %.9g, \"p75\": %.9g, "
        "\"p90\": %.9g, \"p95\": %.9g, \"p99\": %.9g, \"max\": %.9g},\n",
        name, s->mean, s->p10, s->p25, s->p50, s->p75, s->p90, s->p95, s->p99, s->max);
}

static void put_points(struct writer *w, const char *name, const char *axis, const double *points,
                       const double *shares, int count)
{
    writer_put(w, " \"%s\": [", name);
    for (int i = 0; i < count; i++)
        writer_put(w, "%s{\"%s\": %g, \"share\": %.9g}", i == 0 ? "" : ", ", axis, points[i],
                   shares[i]);
    writer_put(w, "],\n");
}

static void put_sample(struct writer *w, const struct sim_sample *s)
{
    writer_put(w,
               "{\"time_s\": %.9g, \"prefill_load\": %.6g, \"decode_load\": %.6g, \"queued\": %u, "
               "\"decoding\": %u, \"waiting\": %u, \"prefill_nodes\": %u, \"decode_nodes\": %u, "
               "\"draining_nodes\": %u, \"replicas\": [%.6g, %.6g, %.6g, %.6g]}",
               s->time_s, s->prefill_load, s->decode_load, s->queued, s->decoding, s->waiting,
               s->prefill_nodes, s->decode_nodes, s->draining_nodes, s->replicas[0], s->replicas[1],
               s->replicas[2], s->replicas[3]);
}

static void put_failures(struct writer *w, const struct sim_failures *f)
{
    writer_put(w,
               " \"failures\": {\"prefill\": %llu, \"decode\": %llu, \"placed_again\": %llu, "
               "\"lost_blocks\": %llu, \"kept_blocks\": %llu, \"cut_bytes\": %.9g},\n",
               (unsigned long long)f->stopped[0], (unsigned long long)f->stopped[1],
               (unsigned long long)f->placed_again, (unsigned long long)f->lost_blocks,
               (unsigned long long)f->kept_blocks, f->cut_bytes);
}

static double mean_regret_ms(const struct sim_regret *regret)
{
    return regret->judged > 0 ? regret->ms / (double)regret->judged : 0;
}

static void put_counts(struct writer *w, const struct sim_result *result,
                       const struct sim_summary *s)
{
    writer_put(w,
               " \"requests\": %u, \"done\": %u, \"refused_early\": %u, \"refused_late\": %u, "
               "\"never_fit\": %u, \"failed\": %u,\n",
               s->requests, s->done, s->refused_early, s->refused_late, s->never_fit, s->failed);
    writer_put(w, " \"duration_s\": %.9g, \"events\": %llu, \"digest\": \"%013llx\",\n",
               result->duration_s, (unsigned long long)result->events,
               (unsigned long long)s->digest);
    writer_put(w,
               " \"good\": %.9g, \"good_mean\": %.9g, \"token_hit\": %.9g, \"local_hit\": %.9g,\n",
               s->good, s->good_mean, s->token_hit, s->local_hit);
    writer_put(w, " \"fetched_bytes\": %.9g, \"sent_bytes\": %.9g, \"wasted_prefill_s\": %.9g,\n",
               result->fetched_bytes, result->sent_bytes, s->wasted_prefill_s);
    writer_put(w,
               " \"copies\": %llu, \"removals\": %llu, \"copied_bytes\": %.9g, \"flips\": %llu, "
               "\"placements\": {\"cold\": %llu, \"local\": %llu, \"recompute\": "
               "%llu, \"fetch\": "
               "%llu},\n",
               (unsigned long long)result->copies, (unsigned long long)result->removals,
               result->copied_bytes, (unsigned long long)result->flips,
               (unsigned long long)result->placements[0], (unsigned long long)result->placements[1],
               (unsigned long long)result->placements[2],
               (unsigned long long)result->placements[3]);
    writer_put(w, " \"inlined\": %llu, \"groups\": {\"formed\": %llu, \"stages\": %llu},\n",
               (unsigned long long)result->inlined, (unsigned long long)result->groups,
               (unsigned long long)result->group_stages);
    put_failures(w, &result->failures);
    const struct sim_regret *regret = &result->regret;
    writer_put(w, " \"regret\": {\"judged\": %llu, \"wrong\": %llu, \"mean_ms\": %.9g},\n",
               (unsigned long long)regret->judged, (unsigned long long)regret->wrong,
               mean_regret_ms(regret));
}

static void put_classes(struct writer *w, const struct sim_result *result,
                        const struct sim_summary *summary)
{
    if (result->classes.count == 0) return;
    writer_put(w, " \"classes\": [");
    for (uint32_t i = 0; i < result->classes.count; i++) {
        const struct sim_class *c = &summary->classes[i];
        writer_put(w,
                   "%s{\"name\": \"%s\", \"requests\": %u, \"done\": %u, \"refused\": %u, "
                   "\"good\": %.9g, \"ttft_p90_ms\": %.9g, \"tbt_p90_ms\": %.9g}",
                   i == 0 ? "" : ",\n  ", result->classes.classes[i].name, c->requests, c->done,
                   c->refused, c->good, c->ttft_ms.p90, c->tbt_ms.p90);
    }
    writer_put(w, "],\n");
}

enum status sim_write_json(const struct sim_result *result, const struct sim_summary *summary,
                           bool series, struct buf *out)
{
    struct writer w = { out, STATUS_OK };

    writer_put(&w, "{\"system\": \"%s\", \"policy\": \"%s\",\n \"cluster\": ",
               cluster_system_name(result->cluster.system),
               cluster_policy_name(result->cluster.policy));
    if (w.status == STATUS_OK) w.status = cluster_write(&result->cluster, out);
    writer_put(&w, ",\n");
    put_counts(&w, result, summary);
    put_classes(&w, result, summary);
    put_spread(&w, "ttft_ms", &summary->ttft_ms);
    put_spread(&w, "tbt_ms", &summary->tbt_ms);
    put_spread(&w, "tbt_mean_ms", &summary->tbt_mean_ms);
    put_spread(&w, "prefill_s", &summary->prefill_s);
    put_spread(&w, "queue_s", &summary->queue_s);
    put_spread(&w, "transfer_s", &summary->transfer_s);
    put_points(&w, "effective", "tbt_ms", sim_tbt_points, summary->effective, SIM_TBT_POINTS);
    put_points(&w, "ttft_cdf", "ttft_s", sim_ttft_points, summary->ttft, SIM_TTFT_POINTS);
    if (series) {
        writer_put(&w, " \"samples\": [");
        for (uint32_t i = 0; i < result->samples_count; i++) {
            writer_put(&w, "%s\n  ", i == 0 ? "" : ",");
            put_sample(&w, &result->samples[i]);
        }
        writer_put(&w, "],\n");
    }
    if (isnan(summary->load_correlation))
        writer_put(&w, " \"load_correlation\": null}\n");
    else
        writer_put(&w, " \"load_correlation\": %.9g}\n", summary->load_correlation);
    return w.status;
}

/* ---- text ---- */

static void put_row(struct writer *w, const char *name, const struct sim_spread *s)
{
    writer_put(w, "%-22s %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f\n", name, s->mean, s->p10, s->p50,
               s->p90, s->p99, s->max);
}

static void put_head(struct writer *w, const struct sim_result *result)
{
    const struct sim_cluster *c = &result->cluster;

    writer_put(w, "%s, ", cluster_system_name(c->system));
    if (c->system == CLUSTER_MOONCAKE)
        writer_put(w, "%.0f prefill and %.0f decode nodes", c->prefill, c->decode);
    else
        writer_put(w, "%.0f nodes", c->nodes);
    writer_put(w, ", placement %s, profile %s, %.0f s in %llu events\n\n",
               cluster_policy_name(c->policy), c->cost.name, result->duration_s,
               (unsigned long long)result->events);
}

enum status sim_write_text(const struct sim_result *result, const struct sim_summary *s,
                           struct buf *out)
{
    struct writer w = { out, STATUS_OK };
    const struct sim_cluster *c = &result->cluster;

    put_head(&w, result);
    writer_put(
        &w,
        "requests  %u: %u done, %u refused at arrival, %u after prefill, %u never fit, %u failed\n",
        s->requests, s->done, s->refused_early, s->refused_late, s->never_fit, s->failed);
    writer_put(&w, "good      %.1f%% within %g s to the first token and %g ms between tokens\n",
               100 * s->good, c->ttft_limit_s, c->tbt_limit_ms);
    for (uint32_t i = 0; i < result->classes.count; i++)
        writer_put(&w,
                   "class     %s: %u requests, %u refused, good %.1f%%, first token P90 %.0f ms\n",
                   result->classes.classes[i].name, s->classes[i].requests, s->classes[i].refused,
                   100 * s->classes[i].good, s->classes[i].ttft_ms.p90);
    if (c->elastic) writer_put(&w, "roles     %llu changes\n", (unsigned long long)result->flips);
    if (c->regret)
        writer_put(&w, "regret    %.1f ms on average; %llu of %llu placements were wrong\n",
                   mean_regret_ms(&result->regret), (unsigned long long)result->regret.wrong,
                   (unsigned long long)result->regret.judged);
    writer_put(&w, "reused    %.1f%% of prompt tokens, %.1f%% without a fetch\n\n",
               100 * s->token_hit, 100 * s->local_hit);
    if (s->done == 0) {
        writer_put(&w, "No request was done: there are no times.\n");
        return w.status;
    }
    writer_put(
        &w, "                            mean       p10       p50       p90       p99       max\n");
    put_row(&w, "first token, ms", &s->ttft_ms);
    put_row(&w, "between tokens, ms", &s->tbt_mean_ms);
    put_row(&w, "longest tenth, ms", &s->tbt_ms);
    put_row(&w, "queue, s", &s->queue_s);
    put_row(&w, "prefill, s", &s->prefill_s);
    put_row(&w, "transfer, s", &s->transfer_s);
    return w.status;
}
