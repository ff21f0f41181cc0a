/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_debug.c - see the header for the format. Decisions and refusals are two logs of the
 * Conductor; here they are merged by time. */
#include "serve/gateway_debug.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "serve/api_json.h"
#include "serve/gateway_why.h"
#include "yolk/explain.h"

#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

/* ---- JSON ---- */

static enum status write_name(struct buf *out, const char *key, const char *text)
{
    enum status status = buf_printf(out, ",\"%s\":", key);
    THEN(status,
         text[0] ? api_json_write_string(out, text, strlen(text)) : buf_append_text(out, "null"));
    return status;
}

static enum status write_head(struct buf *out, const char *request_id, double age_ms, bool accepted,
                              const struct yolk_verdict *verdict, uint32_t tokens)
{
    enum status status = buf_append_text(out, "{\"request_id\":");
    THEN(status, api_json_write_string(out, request_id, strlen(request_id)));
    THEN(status,
         buf_printf(out, ",\"age_ms\":%.1f,\"accepted\":%s,\"policy\":\"%s\",\"tokens\":%u", age_ms,
                    accepted ? "true" : "false", yolk_policy_name(verdict->policy), tokens));
    THEN(status, buf_printf(out,
                            ",\"load\":{\"prefill\":%.4f,\"decode\":%.4f,\"predicted\":%.4f,"
                            "\"gate\":%.4f}",
                            verdict->prefill_load, verdict->decode_load, verdict->predicted_load,
                            verdict->gate));
    return status;
}

/* Not refused when its prefill had ended. */
static bool joined(const struct yolk_decision *d)
{
    return d->verdict.refusal == YOLK_REFUSAL_NONE;
}

static enum status write_actual(struct buf *out, const struct yolk_decision *d)
{
    enum status status = buf_append_text(out, ",\"actual\":");

    if (d->actual_ttft_ms < 0 && !d->finished) {
        THEN(status, buf_append_text(out, "null}"));
        return status;
    }
    if (d->actual_ttft_ms >= 0) {
        THEN(status, buf_printf(out, "{\"ttft_ms\":%.2f,\"cached_tokens\":%lld", d->actual_ttft_ms,
                                (long long)d->actual_cached_tokens));
    } else {
        THEN(status, buf_append_text(out, "{\"ttft_ms\":null,\"cached_tokens\":null"));
    }
    if (d->actual_door_ms >= 0)
        THEN(status, buf_printf(out, ",\"door_ms\":%.2f", d->actual_door_ms));
    if (d->finished) {
        THEN(status,
             buf_printf(out, ",\"total_ms\":%.2f,\"output_tokens\":%lld,\"outcome\":\"%s\"}}",
                        d->actual_total_ms, (long long)d->actual_output_tokens,
                        status_name(d->outcome)));
    } else {
        THEN(status,
             buf_append_text(out, ",\"total_ms\":null,\"output_tokens\":null,\"outcome\":null}}"));
    }
    return status;
}

static enum status write_decision(struct buf *out, const struct yolk_decision *d,
                                  const struct yolk_explanation *why, double now_ms)
{
    enum status status =
        write_head(out, d->request_id, now_ms - d->placed_ms, joined(d), &d->verdict, d->tokens);

    if (!joined(d)) THEN(status, write_name(out, "refusal", yolk_refusal_name(d->verdict.refusal)));
    THEN(status, write_name(out, "prefill", d->inlined ? d->decode_name : d->prefill_name));
    if (d->inlined) THEN(status, buf_append_text(out, ",\"inlined\":true"));
    if (d->group_count > 1) THEN(status, buf_printf(out, ",\"stages\":%u", d->group_count));
    THEN(status, write_name(out, "decode", d->decode_name));
    THEN(status, write_name(out, "holder", d->holder_name));
    THEN(status, buf_printf(out,
                            ",\"reuse\":\"%s\",\"reuse_blocks\":%u,\"local_blocks\":%u,"
                            "\"best_blocks\":%u,\"prefill_candidates\":%u,\"decode_candidates\":%u",
                            yolk_reuse_reason_name(d->reason), d->reuse_blocks, d->local_blocks,
                            d->best_blocks, d->prefill_candidates, d->decode_candidates));
    THEN(status, buf_printf(out,
                            ",\"predicted_ms\":{\"queue\":%.2f,\"transfer\":%.2f,\"compute\":%.2f,"
                            "\"spread\":%.2f,\"ttft\":%.2f,\"tbt\":%.2f},\"finished\":%s",
                            d->queue_ms, d->transfer_ms, d->compute_ms, d->spread_ms, d->ttft_ms,
                            d->tbt_ms, d->finished ? "true" : "false"));
    THEN(status, gateway_why_json(out, why));
    THEN(status, write_actual(out, d));
    return status;
}

static enum status write_refusal(struct buf *out, const struct yolk_refused *r, double now_ms)
{
    const struct yolk_verdict *v = &r->verdict;
    enum status status =
        write_head(out, r->request_id, now_ms - r->refused_ms, false, v, r->tokens);

    THEN(status, buf_printf(out,
                            ",\"refusal\":\"%s\",\"predicted_ms\":{\"ttft\":%.2f,\"tbt\":%.2f},"
                            "\"retry_after_ms\":%.0f,\"hindsight\":\"%s\",\"peak_load\":%.4f}",
                            yolk_refusal_name(v->refusal), v->ttft_ms, v->tbt_ms, v->retry_after_ms,
                            yolk_hindsight_name(r->hindsight), r->peak_load));
    return status;
}

/* ---- the two logs as one ---- */

struct merged {
    const struct yolk_conductor *conductor;
    uint32_t decisions, refusals; /* how many of each have been passed */
    bool have_decision, have_refused;
    struct yolk_decision decision;
    struct yolk_explanation why; /* of the decision */
    struct yolk_refused refused;
};

static void merged_load(struct merged *m)
{
    m->have_decision = yolk_conductor_decision(m->conductor, m->decisions, &m->decision) &&
                       yolk_conductor_explanation(m->conductor, m->decisions, &m->why);
    m->have_refused = yolk_conductor_refused(m->conductor, m->refusals, &m->refused);
}

/* The newer of the two is the refusal? Only while there is one of either. */
static bool merged_is_refusal(const struct merged *m)
{
    if (!m->have_decision) return true;
    return m->have_refused && m->refused.refused_ms > m->decision.placed_ms;
}

static void merged_pass(struct merged *m)
{
    if (merged_is_refusal(m)) {
        m->refusals++;
    } else {
        m->decisions++;
    }
    merged_load(m);
}

static uint32_t limit_of(const char *query)
{
    const char *found = query != NULL ? strstr(query, "limit=") : NULL;
    const unsigned long limit =
        found != NULL ? strtoul(found + strlen("limit="), NULL, 10) : DEBUG_LIST_DEFAULT;
    return limit < DEBUG_LIST_MAX ? (uint32_t)limit : DEBUG_LIST_MAX;
}

enum status gateway_debug_list(const struct yolk_conductor *conductor, double now_ms,
                               const char *query, struct buf *out)
{
    enum status status = buf_append_text(out, "{\"decisions\":[");
    struct merged m = { .conductor = conductor };
    const uint32_t limit = conductor != NULL ? limit_of(query) : 0;

    if (limit > 0) merged_load(&m);
    for (uint32_t i = 0; i < limit && (m.have_decision || m.have_refused); i++) {
        if (i > 0) THEN(status, buf_append_text(out, ",\n"));
        THEN(status, merged_is_refusal(&m) ? write_refusal(out, &m.refused, now_ms)
                                           : write_decision(out, &m.decision, &m.why, now_ms));
        merged_pass(&m);
    }
    THEN(status, buf_append_text(out, "]"));
    if (conductor != NULL) {
        struct yolk_explain_stats stats;
        yolk_conductor_explain_stats(conductor, &stats);
        THEN(status, gateway_why_all_json(out, &stats));
    }
    THEN(status, buf_append_text(out, "}\n"));
    return status;
}

/* ---- for people ---- */

static const char *why_text(enum yolk_refusal refusal)
{
    switch (refusal) {
    case YOLK_REFUSAL_NONE: break;
    case YOLK_REFUSAL_TTFT: return "its first token would have come too late";
    case YOLK_REFUSAL_TBT: return "the decode pool was full";
    case YOLK_REFUSAL_TBT_PREDICTED: return "the decode pool would have been full by then";
    case YOLK_REFUSAL_TBT_AT_JOIN: return "the decode pool was full when its prefill had ended";
    case YOLK_REFUSAL_TBT_AT_NODE: return "its decode node had no room when its prefill had ended";
    case YOLK_REFUSAL_RESERVED: return "the room that was left is kept for smaller requests";
    }
    return "";
}

static const char *hindsight_text(enum yolk_hindsight hindsight)
{
    switch (hindsight) {
    case YOLK_HINDSIGHT_OPEN: return "not known yet whether it could have been served";
    case YOLK_HINDSIGHT_RIGHT: return "right: it could not have been served within the limits";
    case YOLK_HINDSIGHT_SERVABLE: return "a mistake: it could have been served within the limits";
    }
    return "";
}

static enum status explain_loads(struct buf *out, const struct yolk_verdict *v)
{
    if (v->policy == YOLK_POLICY_NONE) {
        return buf_append_text(out, "  policy      none: nothing was compared with a limit\n");
    }
    return buf_printf(out,
                      "  policy      %s\n"
                      "  load        prefill %.2f, decode %.2f now, %.2f as compared with %.2f\n",
                      yolk_policy_name(v->policy), v->prefill_load, v->decode_load,
                      v->predicted_load, v->gate);
}

static enum status explain_reuse(struct buf *out, const struct yolk_decision *d)
{
    enum status status = buf_printf(out, "  prompt      %u tokens; %u blocks reused (%s)",
                                    d->tokens, d->reuse_blocks, yolk_reuse_reason_name(d->reason));
    if (d->reuse_blocks > 0) {
        THEN(status, buf_printf(out, ", held by %s", d->holder_name));
    }
    THEN(status, buf_printf(out, "; %u there already, %u with the best holder\n", d->local_blocks,
                            d->best_blocks));
    return status;
}

static enum status explain_outcome(struct buf *out, const struct yolk_decision *d)
{
    enum status status = STATUS_OK;

    if (d->actual_ttft_ms < 0 && !d->finished) {
        return buf_append_text(out, "  happened    nothing yet\n");
    }
    if (d->actual_ttft_ms >= 0) {
        status = buf_printf(out,
                            "  happened    prefill ended after %.1f ms (%+.1f to the prediction), "
                            "%lld tokens were cached\n",
                            d->actual_ttft_ms, d->actual_ttft_ms - d->ttft_ms,
                            (long long)d->actual_cached_tokens);
    }
    if (d->actual_door_ms >= 0) {
        THEN(status, buf_printf(out, "  door        waited %.1f ms for a place at %s\n",
                                d->actual_door_ms, d->decode_name));
    }
    if (d->finished) {
        THEN(status, buf_printf(out, "  ended       %s after %.1f ms, %lld tokens\n",
                                status_name(d->outcome), d->actual_total_ms,
                                (long long)d->actual_output_tokens));
    }
    return status;
}

static enum status explain_decision(struct buf *out, const struct yolk_decision *d,
                                    const struct yolk_explanation *why, double now_ms)
{
    const char *how = joined(d) ? "accepted" : "accepted, and refused after its prefill,";
    enum status status =
        buf_printf(out, "%s: %s %.1f s ago\n", d->request_id, how, (now_ms - d->placed_ms) / 1000);

    if (!joined(d)) {
        THEN(status, buf_printf(out, "  why         %s\n", why_text(d->verdict.refusal)));
    }

    if (d->inlined) {
        THEN(status, buf_printf(out, "  prefill     beside a step of %s, sooner than on %s\n",
                                d->decode_name, d->prefill_name));
    } else {
        THEN(status, buf_printf(out, "  prefill     %s, of %u that could\n", d->prefill_name,
                                d->prefill_candidates));
    }
    if (d->group_count > 1) {
        THEN(status, buf_printf(out, "  group       with %u more, each a part of the layers\n",
                                d->group_count - 1));
    }
    THEN(status, buf_printf(out, "  decode      %s, of %u that had room\n", d->decode_name,
                            d->decode_candidates));
    THEN(status, explain_reuse(out, d));
    THEN(status,
         buf_printf(out,
                    "  predicted   first token after %.1f ms = %.1f queue + %.1f transfer + "
                    "%.1f prefill (give or take %.1f); then %.1f ms a token\n",
                    d->ttft_ms, d->queue_ms, d->transfer_ms, d->compute_ms, d->spread_ms,
                    d->tbt_ms));
    THEN(status, explain_loads(out, &d->verdict));
    THEN(status, explain_outcome(out, d));
    THEN(status, gateway_why_text(out, why));
    return status;
}

/* It failed, or was moved: what came of it, in a line. */
static enum status explain_earlier(struct buf *out, const struct yolk_decision *d,
                                   const struct yolk_explanation *why, double now_ms)
{
    enum status status =
        buf_printf(out, "  earlier     %.1f s ago at %s and %s: ", (now_ms - d->placed_ms) / 1000,
                   d->prefill_name, d->decode_name);

    if (!d->finished) {
        THEN(status, buf_append_text(out, "under way"));
    } else {
        THEN(status, buf_printf(out, "%s after %.1f ms, %lld tokens", status_name(d->outcome),
                                d->actual_total_ms, (long long)d->actual_output_tokens));
    }
    THEN(status, gateway_why_missed_text(out, why));
    THEN(status, buf_append_text(out, "\n"));
    return status;
}

/* Who was placed more than once. A client may also have given two requests one id. */
static enum status explain_all_earlier(struct merged *m, const char *request_id, double now_ms,
                                       struct buf *out)
{
    enum status status = STATUS_OK;
    uint32_t said = 0;

    for (; m->have_decision && said < DEBUG_EARLIER_MAX && status == STATUS_OK; merged_pass(m)) {
        if (merged_is_refusal(m) || strcmp(m->decision.request_id, request_id) != 0) continue;
        status = explain_earlier(out, &m->decision, &m->why, now_ms);
        said++;
    }
    return status;
}

static enum status explain_refusal(struct buf *out, const struct yolk_refused *r, double now_ms)
{
    enum status status = buf_printf(
        out, "%s: refused %.1f s ago (%s): %s\n", r->request_id, (now_ms - r->refused_ms) / 1000,
        yolk_refusal_name(r->verdict.refusal), why_text(r->verdict.refusal));

    THEN(status, buf_printf(out, "  prompt      %u tokens\n", r->tokens));
    THEN(status, buf_printf(out, "  predicted   first token after %.1f ms; then %.1f ms a token\n",
                            r->verdict.ttft_ms, r->verdict.tbt_ms));
    THEN(status, explain_loads(out, &r->verdict));
    THEN(status, buf_printf(out, "  retry       after %.0f ms\n", r->verdict.retry_after_ms));
    THEN(status, buf_printf(out, "  hindsight   %s\n", hindsight_text(r->hindsight)));
    return status;
}

static bool at_join(enum yolk_refusal refusal)
{
    return refusal == YOLK_REFUSAL_TBT_AT_JOIN || refusal == YOLK_REFUSAL_TBT_AT_NODE;
}

enum status gateway_debug_explain(const struct yolk_conductor *conductor, double now_ms,
                                  const char *request_id, struct buf *out)
{
    struct merged m = { .conductor = conductor };

    if (conductor == NULL) return STATUS_NOT_FOUND;
    for (merged_load(&m); m.have_decision || m.have_refused; merged_pass(&m)) {
        if (merged_is_refusal(&m)) {
            if (strcmp(m.refused.request_id, request_id) != 0) continue;
            const enum status status = explain_refusal(out, &m.refused, now_ms);
            if (status != STATUS_OK || !at_join(m.refused.verdict.refusal)) return status;
            continue; /* the decision that it was placed by says more */
        }
        if (strcmp(m.decision.request_id, request_id) != 0) continue;
        enum status status = explain_decision(out, &m.decision, &m.why, now_ms);
        struct yolk_explain_stats stats;
        yolk_conductor_explain_stats(conductor, &stats);
        THEN(status, gateway_why_alarm_text(out, &stats));
        merged_pass(&m);
        THEN(status, explain_all_earlier(&m, request_id, now_ms, out));
        return status;
    }
    return STATUS_NOT_FOUND;
}
