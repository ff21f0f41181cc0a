/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "sim/plot.h"
#include "sim/study.h"
#include "sim/writer.h"

enum {
    CDF_POINTS = 240,
    TIME_POINTS = 300, /* samples are averaged to at most so many */
    VALUE_SIZE_MAX = 256,
};

static const char *const system_labels[] = { "Mooncake", "vLLM", "vLLM, prefix caching",
                                             "vLLM, chunked prefill" };

static const struct sim_result *main_run(const struct page *page)
{
    return page->study->systems[0];
}

static bool is_pooled(const struct page *page)
{
    return main_run(page)->cluster.system == CLUSTER_MOONCAKE;
}

/* "Mooncake 8P+8D", "vLLM, 16 nodes" */
static void label_system(const struct sim_cluster *cluster, char *out, size_t size)
{
    ASSERT(cluster->system <= CLUSTER_VLLM_CHUNKED);
    if (cluster->system == CLUSTER_MOONCAKE)
        snprintf(out, size, "%s %.0fP+%.0fD", system_labels[cluster->system], cluster->prefill,
                 cluster->decode);
    else
        snprintf(out, size, "%s", system_labels[cluster->system]);
}

/* ---- figures ---- */

static void open_figure(struct writer *w, const char *title, const char *caption)
{
    writer_put(w, "<figure><h3>%s</h3><p>%s</p>\n", title, caption);
}

static void close_figure(struct writer *w)
{
    writer_put(w, "</figure>\n");
}

/* Share of all requests, refused ones too, with at most so much of the field at `offset`. */
static uint32_t make_cdf(const struct sim_result *result, size_t offset, double *scratch,
                         struct plot_point out[CDF_POINTS + 1])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < result->count; i++) {
        const char *record = (const char *)&result->records[i];
        if (result->records[i].outcome == SIM_DONE)
            memcpy(&scratch[count++], record + offset, sizeof(double));
    }
    if (count == 0) return 0;
    sim_spread_sort(scratch, count);
    const uint32_t points = count < CDF_POINTS ? count : CDF_POINTS;
    for (uint32_t i = 0; i <= points; i++) {
        const uint32_t rank = (uint32_t)((uint64_t)(count - 1) * i / points);
        out[i] = (struct plot_point){ scratch[rank], (rank + 1.0) / result->count };
    }
    return points + 1;
}

struct cdf {
    const char *title, *caption, *x_label;
    size_t offset;
    double scale, least; /* of the values, for the axis */
    struct plot_mark mark;
};

/* The axis begins at 1, 2 or 5 times a power of ten below all curves, and not below `least`. */
static double cdf_start(const struct cdf *cdf, struct plot_series *series, uint32_t count,
                        struct plot_point points[][CDF_POINTS + 1])
{
    double start = INFINITY;

    for (uint32_t s = 0; s < count; s++) {
        for (uint32_t i = 0; i < series[s].count; i++) {
            struct plot_point *point = &points[s][i];
            point->x = fmax(point->x * cdf->scale, cdf->least);
            if (point->x > cdf->least) start = fmin(start, point->x);
        }
    }
    if (!isfinite(start)) return cdf->least;
    const double power = pow(10, floor(log10(start)));
    const double digit = start / power;
    return power * (digit >= 5 ? 5 : digit >= 2 ? 2 : 1);
}

static void put_cdf(const struct page *page, const struct cdf *cdf, double *scratch,
                    struct writer *w)
{
    const struct study *study = page->study;
    struct plot_point points[STUDY_SYSTEMS][CDF_POINTS + 1];
    struct plot_series series[STUDY_SYSTEMS];
    char labels[STUDY_SYSTEMS][64];

    for (uint32_t s = 0; s < study->systems_count; s++) {
        label_system(&study->systems[s]->cluster, labels[s], sizeof(labels[s]));
        series[s] = (struct plot_series){
            .label = labels[s],
            .points = points[s],
            .count = make_cdf(study->systems[s], cdf->offset, scratch, points[s]),
            .colour = s,
            .dashed = s > 0,
        };
    }
    const struct plot plot = {
        .title = cdf->title,
        .x_label = cdf->x_label,
        .y_label = "requests",
        .x_log = true,
        .x_min = cdf_start(cdf, series, study->systems_count, points),
        .y_percent = true,
        .y_max = 1,
        .series = series,
        .series_count = study->systems_count,
        .marks = &cdf->mark,
        .marks_count = 1,
    };
    open_figure(w, cdf->title, cdf->caption);
    plot_write(&plot, w);
    close_figure(w);
}

static enum status put_cdfs(const struct page *page, struct writer *w)
{
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    char ttft[64], tbt[64];
    double *scratch = calloc(main_run(page)->count, sizeof(*scratch));

    if (scratch == NULL) return STATUS_NO_MEMORY;
    snprintf(ttft, sizeof(ttft), "limit %g s", cluster->ttft_limit_s);
    snprintf(tbt, sizeof(tbt), "limit %g ms", cluster->tbt_limit_ms);
    put_cdf(page,
            &(struct cdf){ "Time to first token",
                           "Share of all requests that had their first token in time. What was "
                           "refused never had one.",
                           "seconds",
                           offsetof(struct sim_record, ttft_ms),
                           1e-3,
                           1e-3,
                           { cluster->ttft_limit_s, ttft } },
            scratch, w);
    put_cdf(page,
            &(struct cdf){ "Time between tokens",
                           "Of each request the mean of its longest tenth of intervals; share of "
                           "all requests.",
                           "milliseconds",
                           offsetof(struct sim_record, tbt_ms),
                           1,
                           1,
                           { cluster->tbt_limit_ms, tbt } },
            scratch, w);
    free(scratch);
    return w->status;
}

/* ---- over time ---- */

typedef double (*sample_fn)(const struct sim_sample *sample);

static double prefill_load(const struct sim_sample *sample)
{
    return sample->prefill_load;
}

static double decode_load(const struct sim_sample *sample)
{
    return sample->decode_load;
}

static double queued(const struct sim_sample *sample)
{
    return sample->queued + sample->waiting;
}

static double decoding(const struct sim_sample *sample)
{
    return sample->decoding;
}

static double prefill_nodes(const struct sim_sample *sample)
{
    return sample->prefill_nodes;
}

static double decode_nodes(const struct sim_sample *sample)
{
    return sample->decode_nodes;
}

static double draining_nodes(const struct sim_sample *sample)
{
    return sample->draining_nodes;
}

static double replicas_10(const struct sim_sample *sample)
{
    return sample->replicas[0];
}

static double replicas_100(const struct sim_sample *sample)
{
    return sample->replicas[1];
}

static double replicas_1000(const struct sim_sample *sample)
{
    return sample->replicas[2];
}

static double replicas_10000(const struct sim_sample *sample)
{
    return sample->replicas[3];
}

struct curve {
    const char *label;
    sample_fn value;
};

struct over_time {
    const char *title, *caption, *y_label;
    uint32_t curves_count;
    struct curve curves[SIM_RANKS];
};

/* Means of equally many samples each, at the time of the last of them, in minutes. */
static uint32_t thin_samples(const struct sim_result *result, sample_fn value,
                             struct plot_point out[TIME_POINTS])
{
    const uint32_t each = (result->samples_count + TIME_POINTS - 1) / TIME_POINTS;
    uint32_t count = 0;

    for (uint32_t from = 0; from < result->samples_count; from += each) {
        const uint32_t left = result->samples_count - from;
        const uint32_t taken = left < each ? left : each;
        double sum = 0;
        for (uint32_t i = 0; i < taken; i++)
            sum += value(&result->samples[from + i]);
        out[count++] =
            (struct plot_point){ result->samples[from + taken - 1].time_s / 60, sum / taken };
    }
    ASSERT(count <= TIME_POINTS);
    return count;
}

static void put_over_time(const struct page *page, const struct over_time *over, struct writer *w)
{
    struct plot_point points[SIM_RANKS][TIME_POINTS];
    struct plot_series series[SIM_RANKS];

    for (uint32_t i = 0; i < over->curves_count; i++) {
        series[i] = (struct plot_series){
            .label = over->curves[i].label,
            .points = points[i],
            .count = thin_samples(main_run(page), over->curves[i].value, points[i]),
            .shape = PLOT_STEPS,
            .colour = i,
        };
    }
    const struct plot plot = {
        .title = over->title,
        .x_label = "minutes",
        .y_label = over->y_label,
        .series = series,
        .series_count = over->curves_count,
    };
    open_figure(w, over->title, over->caption);
    plot_write(&plot, w);
    close_figure(w);
}

static void put_times(const struct page *page, struct writer *w)
{
    const struct over_time load = { "Load",
                                    "Of the pools, as admission reckons it: 1 is the limit.",
                                    "load",
                                    2,
                                    { { "prefill", prefill_load }, { "decode", decode_load } } };
    const struct over_time coupled = { "Load",
                                       "Of the nodes: 1 is the limit of the time between tokens.",
                                       "load",
                                       1,
                                       { { "decode", decode_load } } };
    const struct over_time requests = { "Requests in the cluster",
                                        "Before their prefill, and while their answer is made.",
                                        "requests",
                                        2,
                                        { { "waiting or queued", queued },
                                          { "decoding", decoding } } };
    const struct over_time replicas = { "Replicas of hot blocks",
                                        "Nodes that hold the n-th most referenced block: mean "
                                        "over blocks that are referenced as often.",
                                        "replicas",
                                        SIM_RANKS,
                                        { { "10th", replicas_10 },
                                          { "100th", replicas_100 },
                                          { "1,000th", replicas_1000 },
                                          { "10,000th", replicas_10000 } } };

    const struct over_time roles = {
        "Roles",
        "What the nodes do; those that change drain first.",
        "nodes",
        3,
        { { "prefill", prefill_nodes }, { "decode", decode_nodes }, { "changing", draining_nodes } }
    };

    put_over_time(page, is_pooled(page) ? &load : &coupled, w);
    if (main_run(page)->cluster.elastic) put_over_time(page, &roles, w);
    put_over_time(page, &requests, w);
    put_over_time(page, &replicas, w);
}

/* ---- sweeps ---- */

static void put_pools(const struct page *page, struct writer *w)
{
    const struct study *study = page->study;
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    const double here = (cluster->dram_tokens + cluster->ssd_tokens) * cluster->prefill;
    struct plot_point lru[STUDY_POOLS_MAX], pool[STUDY_POOLS_MAX], local[STUDY_POOLS_MAX];

    for (uint32_t i = 0; i < study->lru_count; i++)
        lru[i] = (struct plot_point){ study->lru[i].capacity_tokens, study->lru[i].token_hit };
    for (uint32_t i = 0; i < study->pools_count; i++) {
        const struct study_run *run = &study->pools[i];
        pool[i] = (struct plot_point){ run->at, run->summary.token_hit };
        local[i] = (struct plot_point){ run->at, run->summary.local_hit };
    }
    const struct plot_series series[] = {
        { "this cluster", pool, study->pools_count, PLOT_DOTS, 0, false },
        { "of it without a fetch", local, study->pools_count, PLOT_DOTS, 1, true },
        { "one LRU of that size", lru, study->lru_count, PLOT_DOTS, 2, true },
    };
    const struct plot_mark mark = { here, "as asked for" };
    const struct plot plot = {
        .title = "Hit ratio against capacity",
        .x_label = "tokens in the pools of all nodes together",
        .y_label = "prompt tokens reused",
        .x_log = true,
        .y_percent = true,
        .series = is_pooled(page) ? series : &series[2],
        .series_count = is_pooled(page) ? 3 : 1,
        .marks = &mark,
        .marks_count = is_pooled(page) && here > 0 ? 1 : 0,
    };
    open_figure(w, "Hit ratio against capacity",
                "Beside it what one pool of that size hits without replicas, least recently used "
                "first out.");
    plot_write(&plot, w);
    close_figure(w);
}

static void put_splits(const struct page *page, struct writer *w)
{
    const struct study *study = page->study;
    struct plot_point points[STUDY_LOADS][STUDY_SPLITS_MAX];
    struct plot_series series[STUDY_LOADS];
    char labels[STUDY_LOADS][32];
    char caption[160];

    if (!is_pooled(page)) return;
    for (int load = 0; load < STUDY_LOADS; load++) {
        for (uint32_t i = 0; i < study->splits_count; i++) {
            const struct study_run *run = &study->splits[load][i];
            points[load][i] = (struct plot_point){ run->at, run->summary.good };
        }
        snprintf(labels[load], sizeof(labels[load]), "%g times the load", study_loads[load]);
        series[load] =
            (struct plot_series){ labels[load], points[load],   study->splits_count,
                                  PLOT_DOTS,    (unsigned)load, load != STUDY_LOAD_AS_IS };
    }
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    const struct plot_mark mark = { cluster->prefill, "as asked for" };
    const struct plot plot = {
        .title = "Capacity against the split",
        .x_label = "prefill nodes",
        .y_label = "requests within both limits",
        .y_percent = true,
        .y_max = 1,
        .series = series,
        .series_count = STUDY_LOADS,
        .marks = &mark,
        .marks_count = 1,
    };
    snprintf(caption, sizeof(caption),
             "Effective requests of %.0f nodes, by how many of them prefill; the others decode.",
             study_nodes(cluster));
    open_figure(w, "Capacity against the split", caption);
    plot_write(&plot, w);
    close_figure(w);
}

/* The 90th percentiles as parts of their limits, which both pools want to be low. */
static void put_balance(const struct page *page, struct writer *w)
{
    const struct study *study = page->study;
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    struct plot_point ttft[STUDY_SPLITS_MAX], tbt[STUDY_SPLITS_MAX];

    if (!is_pooled(page)) return;
    for (uint32_t i = 0; i < study->splits_count; i++) {
        const struct study_run *run = &study->splits[STUDY_LOAD_AS_IS][i];
        const struct sim_summary *s = &run->summary;
        ttft[i] = (struct plot_point){ run->at, s->ttft_ms.p90 / 1e3 / cluster->ttft_limit_s };
        tbt[i] = (struct plot_point){ run->at, s->tbt_ms.p90 / cluster->tbt_limit_ms };
    }
    const struct plot_series series[] = {
        { "to the first token, P90", ttft, study->splits_count, PLOT_DOTS, 0, false },
        { "between tokens, P90", tbt, study->splits_count, PLOT_DOTS, 1, true },
    };
    const struct plot_mark mark = { cluster->prefill, "as asked for" };
    const struct plot plot = {
        .title = "Latency against the split",
        .x_label = "prefill nodes",
        .y_label = "of the limit",
        .y_percent = true,
        .y_max = 2,
        .series = series,
        .series_count = 2,
        .marks = &mark,
        .marks_count = 1,
    };
    open_figure(w, "Latency against the split",
                "At the load as it is: 100% is the limit, and what is above 200% is cut off.");
    plot_write(&plot, w);
    close_figure(w);
}

/* ---- tables ---- */

static void put_tile(struct writer *w, const char *name, double value, const char *unit)
{
    writer_put(w, "<div><b>%.3g%s</b><span>%s</span></div>\n", value, unit, name);
}

static void put_tiles(const struct page *page, struct writer *w)
{
    const struct sim_summary *s = &page->study->summaries[0];
    const double refused = s->refused_early + s->refused_late;

    writer_put(w, "<div class=\"tiles\">\n");
    put_tile(w, "within both limits", 100 * s->good, "%");
    put_tile(w, "first token, median", s->ttft_ms.p50 / 1e3, " s");
    put_tile(w, "first token, P90", s->ttft_ms.p90 / 1e3, " s");
    put_tile(w, "between tokens, P90", s->tbt_ms.p90, " ms");
    put_tile(w, "of prompt tokens reused", 100 * s->token_hit, "%");
    put_tile(w, "of requests refused", 100 * refused / fmax(s->requests, 1), "%");
    writer_put(w, "</div>\n");
}

static void put_cell(struct writer *w, double value)
{
    writer_put(w, fabs(value) >= 1000 ? "<td>%.0f</td>" : "<td>%.4g</td>", value);
}

static void put_spread_row(struct writer *w, const char *name, const struct sim_spread *s,
                           double scale)
{
    const double values[] = { s->mean, s->min, s->p10, s->p25, s->p50,
                              s->p75,  s->p90, s->p95, s->p99, s->max };

    writer_put(w, "<tr><th>%s</th>", name);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        put_cell(w, values[i] * scale);
    writer_put(w, "</tr>\n");
}

static const char spread_head[] = "<th>mean<th>min<th>P10<th>P25<th>P50<th>P75<th>P90<th>P95"
                                  "<th>P99<th>max</tr>\n";

static void put_numbers(const struct page *page, struct writer *w)
{
    const struct sim_summary *s = &page->study->summaries[0];
    const struct sim_result *result = main_run(page);

    writer_put(w, "<h2>Numbers</h2><div class=\"wide\"><table><tr><th>%s", spread_head);
    put_spread_row(w, "first token, s", &s->ttft_ms, 1e-3);
    put_spread_row(w, "between tokens, longest tenth, ms", &s->tbt_ms, 1);
    put_spread_row(w, "between tokens, mean, ms", &s->tbt_mean_ms, 1);
    put_spread_row(w, "queue, s", &s->queue_s, 1);
    put_spread_row(w, "prefill, s", &s->prefill_s, 1);
    put_spread_row(w, "transfer, s", &s->transfer_s, 1);
    writer_put(w,
               "</table></div>\n<p>%u requests: %u done, %u refused at arrival, %u after their "
               "prefill, %u that never fit, %u failed. ",
               s->requests, s->done, s->refused_early, s->refused_late, s->never_fit, s->failed);
    writer_put(w,
               "The last answer ended after %.0f s. Fetched between nodes: ", result->duration_s);
    writer_put_short(w, result->fetched_bytes);
    writer_put(w, "B; sent to decode nodes: ");
    writer_put_short(w, result->sent_bytes);
    writer_put(
        w, "B. Prefill wasted on refused requests: %.0f s. Digest %013llx, %llu events.</p>\n",
        s->wasted_prefill_s, (unsigned long long)s->digest, (unsigned long long)result->events);
}

static const char run_head[] = "<th>within limits, %<th>reused, %<th>without a fetch, %"
                               "<th>first token P50, s<th>P90<th>between tokens P50, ms<th>P90"
                               "</tr>\n";

static void put_run_cells(struct writer *w, const struct sim_summary *s)
{
    put_cell(w, 100 * s->good);
    put_cell(w, 100 * s->token_hit);
    put_cell(w, 100 * s->local_hit);
    put_cell(w, s->ttft_ms.p50 / 1e3);
    put_cell(w, s->ttft_ms.p90 / 1e3);
    put_cell(w, s->tbt_ms.p50);
    put_cell(w, s->tbt_ms.p90);
    writer_put(w, "</tr>\n");
}

static void put_systems(const struct page *page, struct writer *w)
{
    const struct study *study = page->study;

    writer_put(w, "<h2>Systems on as many nodes</h2><div class=\"wide\"><table><tr><th>%s",
               run_head);
    for (uint32_t i = 0; i < study->systems_count; i++) {
        const struct sim_cluster *cluster = &study->systems[i]->cluster;
        char label[64];
        label_system(cluster, label, sizeof(label));
        writer_put(w, "<tr><th>%s, %s</th>", label, cluster_policy_name(cluster->policy));
        put_run_cells(w, &study->summaries[i]);
    }
    writer_put(w, "</table></div>\n");
}

static void put_sweep_tables(const struct page *page, struct writer *w)
{
    const struct study *study = page->study;

    if (!is_pooled(page)) return;
    writer_put(w,
               "<details><summary>The pool made smaller and larger, in numbers</summary>"
               "<div class=\"wide\"><table><tr><th>tokens%s",
               run_head);
    for (uint32_t i = 0; i < study->pools_count; i++) {
        writer_put(w, "<tr><th>");
        writer_put_short(w, study->pools[i].at);
        writer_put(w, "</th>");
        put_run_cells(w, &study->pools[i].summary);
    }
    writer_put(w,
               "</table></div></details>\n<details><summary>Splits, in numbers</summary>"
               "<div class=\"wide\"><table><tr><th>load, split%s",
               run_head);
    for (int load = 0; load < STUDY_LOADS; load++) {
        for (uint32_t i = 0; i < study->splits_count; i++) {
            const struct sim_cluster *cluster = &study->splits[load][i].cluster;
            writer_put(w, "<tr><th>%g times, %.0fP+%.0fD</th>", study_loads[load], cluster->prefill,
                       cluster->decode);
            put_run_cells(w, &study->splits[load][i].summary);
        }
    }
    writer_put(w, "</table></div></details>\n");
}

static void put_lengths(struct writer *w, const char *name, const struct trace_lengths *l)
{
    const struct sim_spread spread = { l->mean, l->min, l->p10, l->p25, l->p50,
                                       l->p75,  l->p90, l->p95, l->p99, l->max };
    put_spread_row(w, name, &spread, 1);
}

static void put_trace(const struct page *page, struct writer *w)
{
    const struct trace *trace = page->study->trace;
    const struct trace_stat *stat = &page->study->stat;

    writer_put(w, "<h2>The trace</h2><p>");
    writer_put_escaped(w, page->trace_name);
    writer_put(w,
               ", format %s: %u requests in %.0f s, %.4g a second; blocks of %u tokens, %llu "
               "referenced, %u of them different. A cache of unlimited size hits %.2f%% of prompt "
               "tokens, %.2f%% of blocks.</p>\n",
               trace_format_name(trace->format), stat->requests, stat->duration_ms / 1e3,
               stat->rate, trace->block_tokens, (unsigned long long)stat->references, stat->unique,
               100 * stat->token_hit, 100 * stat->block_hit);
    writer_put(w, "<div class=\"wide\"><table><tr><th>tokens%s", spread_head);
    put_lengths(w, "prompt", &stat->input);
    put_lengths(w, "answer", &stat->output);
    writer_put(w, "</table></div>\n");
}

static void put_settings(const struct page *page, struct writer *w)
{
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    const char *name, *help;
    struct buf value;

    writer_put(w, "<h2>Settings</h2><div class=\"wide\"><table class=\"left\">\n");
    buf_init(&value, VALUE_SIZE_MAX);
    for (uint32_t i = 0; w->status == STATUS_OK; i++) {
        buf_clear(&value);
        const enum status status = cluster_setting_at(cluster, i, &name, &help, &value);
        if (status == STATUS_NOT_FOUND) break;
        if (status != STATUS_OK) {
            w->status = status;
            break;
        }
        writer_put(w, "<tr><th>%s</th><td>%.*s</td><td>", name, (int)value.len,
                   (const char *)buf_data(&value));
        writer_put_escaped(w, help);
        writer_put(w, "</td></tr>\n");
    }
    buf_fini(&value);
    writer_put(w, "</table></div>\n");
}

/* ---- the page ---- */

static void put_style(struct writer *w)
{
    writer_put(w, "<style>\n"
                  ":root{color-scheme:light dark}\n"
                  "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1320px;"
                  "padding:24px;background:#fff;color:#222}\n"
                  "h1{font-size:26px;margin:0}h2{font-size:20px;margin:36px 0 8px}\n"
                  "h3{font-size:16px;margin:0}figure p,.sub{color:#555;margin:0 0 8px}\n"
                  "figure p{font-size:14px}.none{padding:40px;text-align:center}\n"
                  ".figures{display:grid;gap:20px;margin:24px 0;"
                  "grid-template-columns:repeat(auto-fit,minmax(min(480px,100%%),1fr))}\n"
                  "figure{margin:0;padding:16px;border:1px solid #ddd;border-radius:8px}\n"
                  ".tiles{display:grid;gap:12px;margin:20px 0;"
                  "grid-template-columns:repeat(auto-fit,minmax(160px,1fr))}\n"
                  ".tiles div{padding:12px 16px;border:1px solid #ddd;border-radius:8px}\n"
                  ".tiles b{display:block;font-size:24px}.tiles span{color:#555;font-size:14px}\n"
                  ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px}\n"
                  "th,td{padding:4px 10px;text-align:right;border-bottom:1px solid #e2e2e2;"
                  "font-variant-numeric:tabular-nums;font-weight:normal}\n"
                  "tr>th:first-child,.left td{text-align:left}tr:first-child th{color:#555}\n"
                  "details{margin:12px 0}summary{cursor:pointer}\n");
    plot_style(w);
    writer_put(w, "@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}\n"
                  "figure,.tiles div{border-color:#383838}th,td{border-color:#333}\n"
                  "figure p,.sub,.tiles span,tr:first-child th{color:#aaa}}\n"
                  "</style>\n");
}

static void put_head(const struct page *page, struct writer *w)
{
    const struct sim_cluster *cluster = &main_run(page)->cluster;
    char label[64];

    label_system(cluster, label, sizeof(label));
    writer_put(w, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                  "<title>");
    writer_put(w, "%s: ", label);
    writer_put_escaped(w, page->trace_name);
    writer_put(w, "</title>\n");
    put_style(w);
    writer_put(w, "</head><body>\n<h1>%s</h1>\n<p class=\"sub\">", label);
    writer_put_escaped(w, page->trace_name);
    writer_put(w,
               " at %g times its speed, placement %s, hardware %s; limits %g s to the first token "
               "and %g ms between tokens. Simulated by yolk ",
               cluster->speed, cluster_policy_name(cluster->policy), cluster->cost.name,
               cluster->ttft_limit_s, cluster->tbt_limit_ms);
    writer_put_escaped(w, page->version);
    writer_put(w, ".</p>\n");
}

enum status page_write(const struct page *page, struct buf *out)
{
    struct writer w = { out, STATUS_OK };

    put_head(page, &w);
    put_tiles(page, &w);
    writer_put(&w, "<div class=\"figures\">\n");
    const enum status status = put_cdfs(page, &w);
    if (status != STATUS_OK) return status;
    put_times(page, &w);
    put_pools(page, &w);
    put_splits(page, &w);
    put_balance(page, &w);
    writer_put(&w, "</div>\n");
    put_numbers(page, &w);
    put_systems(page, &w);
    put_sweep_tables(page, &w);
    put_trace(page, &w);
    put_settings(page, &w);
    writer_put(&w, "</body></html>\n");
    return w.status;
}
