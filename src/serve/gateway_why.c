/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_why.c - see the header for the format. */
#include "serve/gateway_why.h"

#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "serve/api_json.h"
#include "yolk/explain.h"

#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

/* ---- JSON ---- */

/* null for what is not known, or beyond all measure. */
static enum status write_ms(struct buf *out, const char *key, double ms)
{
    if (ms < 0 || !isfinite(ms)) return buf_printf(out, ",\"%s\":null", key);
    return buf_printf(out, ",\"%s\":%.2f", key, ms);
}

static enum status write_prefill(struct buf *out, const struct yolk_prefill_candidate *c)
{
    enum status status = buf_append_text(out, "{\"name\":");

    THEN(status, api_json_write_string(out, c->name, strlen(c->name)));
    THEN(status, buf_append_text(out, ",\"holder\":"));
    if (c->holder_name[0] != '\0') {
        THEN(status, api_json_write_string(out, c->holder_name, strlen(c->holder_name)));
    } else {
        THEN(status, buf_append_text(out, "null"));
    }
    THEN(status, buf_printf(out, ",\"reuse_blocks\":%u", c->reuse_blocks));
    THEN(status, write_ms(out, "queue_ms", c->queue_ms));
    THEN(status, write_ms(out, "transfer_ms", c->transfer_ms));
    THEN(status, write_ms(out, "compute_ms", c->compute_ms));
    THEN(status, write_ms(out, "ttft_ms", c->ttft_ms));
    THEN(status, write_ms(out, "hindsight_ms", c->hindsight_ms));
    THEN(status, buf_printf(out, ",\"samples\":%llu", (unsigned long long)c->samples));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

static enum status write_decode(struct buf *out, const struct yolk_decode_candidate *c)
{
    enum status status = buf_append_text(out, "{\"name\":");

    THEN(status, api_json_write_string(out, c->name, strlen(c->name)));
    THEN(status, buf_printf(out, ",\"sequences\":%u,\"context_tokens\":%llu", c->sequences,
                            (unsigned long long)c->context_tokens));
    THEN(status, write_ms(out, "tbt_ms", c->tbt_ms));
    THEN(status, write_ms(out, "hindsight_ms", c->hindsight_ms));
    THEN(status, buf_printf(out, ",\"samples\":%llu", (unsigned long long)c->samples));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

static enum status write_candidates(struct buf *out, const struct yolk_explanation *x)
{
    enum status status = buf_append_text(out, ",\"candidates\":{\"prefill\":[");

    for (uint32_t i = 0; i < x->prefill_count; i++) {
        if (i > 0) THEN(status, buf_append_text(out, ","));
        THEN(status, write_prefill(out, &x->prefill[i]));
    }
    THEN(status, buf_append_text(out, "],\"decode\":["));
    for (uint32_t i = 0; i < x->decode_count; i++) {
        if (i > 0) THEN(status, buf_append_text(out, ","));
        THEN(status, write_decode(out, &x->decode[i]));
    }
    THEN(status, buf_append_text(out, "]}"));
    return status;
}

static enum status write_missed(struct buf *out, const uint64_t missed[YOLK_MISSES])
{
    enum status status = buf_append_text(out, ",\"missed\":{");
    bool first = true;

    for (int i = 0; i < YOLK_MISSES; i++) {
        if (missed[i] == 0) continue;
        THEN(status, buf_printf(out, "%s\"%s\":%llu", first ? "" : ",",
                                yolk_miss_name((enum yolk_miss)i), (unsigned long long)missed[i]));
        first = false;
    }
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum status gateway_why_json(struct buf *out, const struct yolk_explanation *x)
{
    uint64_t missed[YOLK_MISSES];
    enum status status = write_candidates(out, x);

    for (int i = 0; i < YOLK_MISSES; i++)
        missed[i] = x->missed[i];
    THEN(status, write_ms(out, "regret_ms", x->regret_ms));
    THEN(status, write_ms(out, "regret_spread_ms", x->regret_ms < 0 ? -1 : x->regret_spread_ms));
    THEN(status, write_ms(out, "tbt_regret_ms", x->tbt_regret_ms));
    THEN(status, write_ms(out, "tbt_regret_spread_ms",
                          x->tbt_regret_ms < 0 ? -1 : x->tbt_regret_spread_ms));
    THEN(status, buf_printf(out, ",\"hits\":{\"reusable_blocks\":%u,\"predicted_blocks\":%u",
                            x->reusable_blocks, x->predicted_blocks));
    if (x->realised_blocks >= 0) {
        THEN(status, buf_printf(out, ",\"reused_blocks\":%lld", (long long)x->realised_blocks));
    } else {
        THEN(status, buf_append_text(out, ",\"reused_blocks\":null"));
    }
    THEN(status, write_missed(out, missed));
    THEN(status, buf_append_text(out, "}"));
    return status;
}

enum status gateway_why_all_json(struct buf *out, const struct yolk_explain_stats *s)
{
    enum status status =
        buf_printf(out,
                   ",\"hits\":{\"window_requests\":%u,\"window_predicted_blocks\":%llu,"
                   "\"window_reused_blocks\":%llu,\"alarm\":%s,\"mostly\":\"%s\","
                   "\"predicted_blocks\":%llu,\"reused_blocks\":%llu",
                   s->window_requests, (unsigned long long)s->window_predicted,
                   (unsigned long long)s->window_kept, s->alarm ? "true" : "false",
                   yolk_miss_name(s->window_why), (unsigned long long)s->predicted_blocks,
                   (unsigned long long)s->realised_blocks);

    THEN(status, write_missed(out, s->missed));
    THEN(status,
         buf_printf(out, "},\"regret\":{\"judged\":%llu,\"beyond_noise\":%llu,\"total_ms\":%.2f,",
                    (unsigned long long)s->judged, (unsigned long long)s->wrong, s->regret_ms));
    THEN(status,
         buf_printf(out, "\"tbt_judged\":%llu,\"tbt_beyond_noise\":%llu,\"tbt_total_ms\":%.2f}",
                    (unsigned long long)s->tbt_judged, (unsigned long long)s->tbt_wrong,
                    s->tbt_regret_ms));
    return status;
}

/* ---- for people ---- */

static const char *miss_text(enum yolk_miss miss)
{
    switch (miss) {
    case YOLK_MISS_DECLINED: return "another node has them, and computing was predicted faster";
    case YOLK_MISS_EVICTED: return "they were there once and are gone";
    case YOLK_MISS_PENDING: return "asked for before, but nobody has said that it holds them";
    case YOLK_MISS_LAYOUT: return "the same tokens came before under another layout or model";
    case YOLK_MISS_SALT: return "the same tokens came before under another salt";
    case YOLK_MISS_TEMPLATE: return "the same messages came before and became other tokens";
    case YOLK_MISS_NEVER_SEEN: return "nobody has asked for these tokens before";
    case YOLK_MISS_TIMEOUT: return "counted on, and they did not come in time";
    case YOLK_MISS_FAILED: return "counted on, and they came broken or not at all";
    }
    return "";
}

static enum status text_prefill(struct buf *out, const struct yolk_prefill_candidate *c, bool first)
{
    enum status status = buf_printf(
        out,
        "  %-10s  %-12s %9.1f ms = %.1f queue + %.1f transfer + %.1f prefill (%llu samples), %u "
        "blocks reused",
        first ? "candidates" : "", c->name, c->ttft_ms, c->queue_ms, c->transfer_ms, c->compute_ms,
        (unsigned long long)c->samples, c->reuse_blocks);

    if (c->holder_name[0] != '\0') THEN(status, buf_printf(out, " from %s", c->holder_name));
    if (isinf(c->hindsight_ms)) {
        THEN(status, buf_append_text(out, "; would have been later still"));
    } else if (c->hindsight_ms >= 0) {
        THEN(status,
             buf_printf(out, "; %s %.1f ms", first ? "took" : "would have taken", c->hindsight_ms));
    }
    THEN(status, buf_append_text(out, "\n"));
    return status;
}

/* `of`: what is regretted, at most ten columns; `unit`: of what the milliseconds are. */
static enum status text_regret(struct buf *out, const char *of, const char *unit, double ms,
                               double spread_ms)
{
    if (ms < 0) return STATUS_OK;
    if (ms == 0) return buf_printf(out, "  %-10s  none\n", of);
    return buf_printf(out, "  %-10s  %.1f ms%s%s\n", of, ms, unit,
                      ms > spread_ms ? "" : ", within what the model is off by");
}

static enum status text_decode(struct buf *out, const struct yolk_decode_candidate *c, bool first)
{
    enum status status =
        buf_printf(out, "              %-12s %9.1f ms a token (%llu samples), beside %u sequences",
                   c->name, c->tbt_ms, (unsigned long long)c->samples, c->sequences);

    if (c->hindsight_ms >= 0 && isfinite(c->hindsight_ms)) {
        THEN(status,
             buf_printf(out, "; %s %.1f ms", first ? "took" : "would have taken", c->hindsight_ms));
    }
    THEN(status, buf_append_text(out, "\n"));
    return status;
}

static enum status text_hits(struct buf *out, const struct yolk_explanation *x)
{
    enum status status = buf_printf(out, "  hits        %u blocks could be reused, %u predicted",
                                    x->reusable_blocks, x->predicted_blocks);

    if (x->realised_blocks >= 0) {
        THEN(status, buf_printf(out, ", %lld reused", (long long)x->realised_blocks));
    }
    THEN(status, buf_append_text(out, "\n"));
    for (int i = 0; i < YOLK_MISSES; i++) {
        if (x->missed[i] == 0) continue;
        THEN(status, buf_printf(out, "  missed      %u %s: %s\n", x->missed[i],
                                yolk_miss_name((enum yolk_miss)i), miss_text((enum yolk_miss)i)));
    }
    return status;
}

enum status gateway_why_missed_text(struct buf *out, const struct yolk_explanation *x)
{
    enum status status = STATUS_OK;
    bool first = true;

    for (int i = 0; i < YOLK_MISSES; i++) {
        if (x->missed[i] == 0) continue;
        THEN(status, buf_printf(out, "%s %u %s", first ? ", missed" : ",", x->missed[i],
                                yolk_miss_name((enum yolk_miss)i)));
        first = false;
    }
    return status;
}

enum status gateway_why_text(struct buf *out, const struct yolk_explanation *x)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < x->prefill_count; i++)
        THEN(status, text_prefill(out, &x->prefill[i], i == 0));
    for (uint32_t i = 0; i < x->decode_count; i++)
        THEN(status, text_decode(out, &x->decode[i], i == 0));
    THEN(status, text_regret(out, "regret", "", x->regret_ms, x->regret_spread_ms));
    THEN(status,
         text_regret(out, "tbt regret", " a token", x->tbt_regret_ms, x->tbt_regret_spread_ms));
    THEN(status, text_hits(out, x));
    return status;
}

enum status gateway_why_alarm_text(struct buf *out, const struct yolk_explain_stats *s)
{
    if (!s->alarm) return STATUS_OK;
    return buf_printf(out,
                      "  alarm       of %llu blocks predicted to be reused by the last %u requests "
                      "%llu were; mostly %s\n",
                      (unsigned long long)s->window_predicted, s->window_requests,
                      (unsigned long long)s->window_kept, yolk_miss_name(s->window_why));
}
