/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/trace_stat.c - what a trace is like, and what a cache would make of it. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/spread.h"
#include "sim/trace.h"

#define NONE UINT32_MAX

/* ---- lengths ---- */

static struct trace_lengths measure_lengths(double *values, uint32_t count)
{
    const struct sim_spread spread = sim_spread_of(values, count);
    return (struct trace_lengths){
        .mean = spread.mean,
        .min = (uint32_t)spread.min,
        .p10 = (uint32_t)spread.p10,
        .p25 = (uint32_t)spread.p25,
        .p50 = (uint32_t)spread.p50,
        .p75 = (uint32_t)spread.p75,
        .p90 = (uint32_t)spread.p90,
        .p95 = (uint32_t)spread.p95,
        .p99 = (uint32_t)spread.p99,
        .max = (uint32_t)spread.max,
    };
}

/* ---- hits ---- */

struct hits {
    uint64_t tokens, blocks;
};

static void count_hit(const struct trace *trace, const struct trace_request *request, uint32_t run,
                      struct hits *hits)
{
    const uint64_t tokens = (uint64_t)run * trace->block_tokens;
    hits->blocks += run;
    hits->tokens += tokens < request->input_tokens ? tokens : request->input_tokens;
}

static void hit_ratios(const struct trace *trace, const struct hits *hits, double *token_hit,
                       double *block_hit)
{
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < trace->count; i++)
        tokens += trace->requests[i].input_tokens;
    *token_hit = (double)hits->tokens / (double)tokens;
    *block_hit = trace->ids_count == 0 ? 0 : (double)hits->blocks / trace->ids_count;
}

/* A doubly linked list in arrays, by id; the head is the most recently used. */
struct lru {
    uint32_t *next, *prev; /* NONE at the ends; prev[id] == id when not resident */
    uint32_t head, tail;
    uint64_t count, capacity;
};

static bool lru_has(const struct lru *lru, uint32_t id)
{
    return lru->prev[id] != id;
}

static void lru_unlink(struct lru *lru, uint32_t id)
{
    ASSERT(lru_has(lru, id) && lru->count > 0);
    const uint32_t prev = lru->prev[id], next = lru->next[id];
    if (prev == NONE)
        lru->head = next;
    else
        lru->next[prev] = next;
    if (next == NONE)
        lru->tail = prev;
    else
        lru->prev[next] = prev;
    lru->prev[id] = id;
    lru->count--;
}

static void lru_touch(struct lru *lru, uint32_t id)
{
    if (lru_has(lru, id)) lru_unlink(lru, id);
    lru->prev[id] = NONE;
    lru->next[id] = lru->head;
    if (lru->head != NONE)
        lru->prev[lru->head] = id;
    else
        lru->tail = id;
    lru->head = id;
    lru->count++;
    while (lru->count > lru->capacity)
        lru_unlink(lru, lru->tail);
}

enum status trace_lru(const struct trace *trace, uint64_t capacity, double *token_hit,
                      double *block_hit)
{
    struct lru lru = { .head = NONE, .tail = NONE, .capacity = capacity };
    struct hits hits = { 0, 0 };

    lru.next = calloc((size_t)trace->unique + 1, sizeof(*lru.next));
    lru.prev = calloc((size_t)trace->unique + 1, sizeof(*lru.prev));
    if (lru.next == NULL || lru.prev == NULL) {
        free(lru.next);
        free(lru.prev);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t id = 0; id < trace->unique; id++)
        lru.prev[id] = id;
    for (uint32_t i = 0; i < trace->count; i++) {
        const struct trace_request *request = &trace->requests[i];
        const uint32_t *ids = trace->ids + request->first;
        uint32_t run = 0;
        while (run < request->blocks && lru_has(&lru, ids[run]))
            run++;
        count_hit(trace, request, run, &hits);
        for (uint32_t j = request->blocks; j-- > 0;)
            lru_touch(&lru, ids[j]);
    }
    free(lru.next);
    free(lru.prev);
    hit_ratios(trace, &hits, token_hit, block_hit);
    return STATUS_OK;
}

enum status trace_measure(const struct trace *trace, struct trace_stat *out)
{
    ASSERT(trace->count > 0);
    struct trace_stat stat = { .requests = trace->count,
                               .references = trace->ids_count,
                               .unique = trace->unique };
    double *values = calloc(trace->count, sizeof(*values));
    if (values == NULL) return STATUS_NO_MEMORY;

    for (uint32_t i = 0; i < trace->count; i++) {
        values[i] = trace->requests[i].input_tokens;
        stat.input_tokens += trace->requests[i].input_tokens;
    }
    stat.input = measure_lengths(values, trace->count);
    for (uint32_t i = 0; i < trace->count; i++) {
        values[i] = trace->requests[i].output_tokens;
        stat.output_tokens += trace->requests[i].output_tokens;
    }
    stat.output = measure_lengths(values, trace->count);
    free(values);
    stat.duration_ms = trace->requests[trace->count - 1].arrival_ms;
    stat.rate = stat.duration_ms > 0 ? trace->count / (stat.duration_ms / 1e3) : 0;
    const enum status status =
        trace_lru(trace, (uint64_t)trace->unique + 1, &stat.token_hit, &stat.block_hit);
    if (status == STATUS_OK) *out = stat;
    return status;
}
