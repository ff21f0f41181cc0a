/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/rail.c - see rail.h.
 *
 * Invariants
 *   I1  inflight is the sum of the lengths given to rail_sent() and not to rail_done() or
 *       rail_taken().
 *   I2  busy_ns is not 0 exactly while something is in flight or a fence is asked for.
 *   I3  rate is never 0. */
#include "transfer/rail.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

enum {
    RATE_UNKNOWN = 1250 << 20, /* bytes per second: ten gigabit */
    RATE_MIN = 1 << 20,
    WINDOW_MIN = 128 << 10,
    WINDOW_FIRST = 512 << 10, /* before anything is known; it grows with what arrives */
    WINDOW_BACKGROUND_MIN = 128 << 10,
    BURST_MIN = 128 << 10, /* bytes of a sample that is over because all has arrived */
    SLICE_UNIT = RAIL_SLICE_SIZE_MIN,
    BACKOFF_MIN_MS = 20,
    BACKOFF_MAX_MS = 100,
    BACKOFF_UNPROVEN_MS = 10000,
    LATENCY_GUESS_NS = 1000000,
};

void rail_init(struct rail *rail, const char *local, const char *remote, uint32_t speed_mbps)
{
    memset(rail, 0, sizeof(*rail));
    rail->used = true;
    snprintf(rail->local, sizeof(rail->local), "%s", local);
    snprintf(rail->remote, sizeof(rail->remote), "%s", remote);
    rail->local_index = -1;
    rail->rate = speed_mbps != 0 ? (uint64_t)speed_mbps * 125000 : RATE_UNKNOWN;
    if (rail->rate < RATE_MIN) rail->rate = RATE_MIN;
}

static void busy_begin(struct rail *rail, uint64_t now_ns)
{
    if (rail->busy_ns == 0) rail->busy_ns = now_ns != 0 ? now_ns : 1;
}

static void busy_end(struct rail *rail)
{
    if (rail->inflight == 0 && rail->fences == 0) rail->busy_ns = 0;
    if (rail->inflight == 0) rail->sample_ns = 0;
}

void rail_sent(struct rail *rail, uint64_t length, uint64_t now_ns)
{
    busy_begin(rail, now_ns);
    if (rail->draining && rail->clean_ns == 0 && rail->inflight < WINDOW_MIN) {
        rail->clean_ns = now_ns;
    }
    rail->inflight += length;
    rail->slices++;
    if (rail->sample_ns != 0) return;
    rail->sample_ns = now_ns != 0 ? now_ns : 1;
    rail->sample_size = 0;
    rail->sample_thin = false;
    rail->sample_burst = rail->inflight == length;
}

void rail_taken(struct rail *rail, uint64_t length)
{
    ASSERT(rail->inflight >= length);
    rail->inflight -= length;
    busy_end(rail);
}

void rail_fence(struct rail *rail, uint64_t now_ns)
{
    busy_begin(rail, now_ns);
    rail->fences++;
}

void rail_fenced(struct rail *rail, uint64_t count)
{
    ASSERT(rail->fences >= count);
    rail->fences -= count;
    busy_end(rail);
}

void rail_heard(struct rail *rail, uint64_t now_ns)
{
    if (now_ns > rail->heard_ns) rail->heard_ns = now_ns;
}

static void latency_add(struct rail *rail, uint64_t latency_ns, uint64_t now_ns)
{
    const bool clean =
        rail->draining && rail->clean_ns != 0 && now_ns - latency_ns >= rail->clean_ns;

    rail->latency_ns = rail->latency_ns == 0 ? latency_ns : (7 * rail->latency_ns + latency_ns) / 8;
    if (rail->latency_min_ns == 0 || latency_ns < rail->latency_min_ns || clean) {
        rail->latency_min_ns = latency_ns;
    }
    if (clean) {
        rail->draining = false;
        rail->drained_ns = now_ns;
    }
    if (now_ns - rail->drained_ns > RAIL_DRAIN_NS && !rail->draining) {
        rail->draining = true;
        rail->clean_ns = 0;
    }
}

static void sample_end(struct rail *rail, uint64_t now_ns)
{
    const uint64_t took_ns = now_ns - rail->sample_ns;
    const double seen = (double)rail->sample_size * 1e9 / (double)took_ns;
    uint64_t rate = (uint64_t)seen;

    if (rate < RATE_MIN) rate = RATE_MIN;
    if (!rail->sample_thin) {
        rail->rate = rail->measured ? (3 * rail->rate + rate) / 4 : rate;
        rail->measured = true;
    } else if (rate > rail->rate) {
        rail->rate = rate;
    }
    rail->sample_ns = now_ns;
    rail->sample_size = 0;
    rail->sample_thin = false;
    rail->sample_burst = false; /* what is in flight by now was sent before */
}

/* When its time is up, or a burst that says something is (it is thin then, see rail.h). */
static bool sample_over(const struct rail *rail, uint64_t now_ns)
{
    if (now_ns - rail->sample_ns >= RAIL_SAMPLE_NS) return true;
    return rail->sample_burst && rail->inflight == 0 && rail->sample_size >= BURST_MIN &&
           now_ns > rail->sample_ns;
}

void rail_done(struct rail *rail, uint64_t length, uint64_t latency_ns, bool measure,
               uint64_t now_ns)
{
    ASSERT(rail->inflight >= length);
    rail->inflight -= length;
    rail->bytes += length;
    rail_heard(rail, now_ns);
    if (measure) latency_add(rail, latency_ns, now_ns);
    if (measure && rail->sample_ns != 0) {
        rail->sample_size += length;
        if (rail->inflight < length) rail->sample_thin = true;
        if (sample_over(rail, now_ns)) sample_end(rail, now_ns);
    }
    busy_end(rail);
}

static uint64_t bytes_in(const struct rail *rail, uint64_t ns)
{
    return (uint64_t)((double)rail->rate * (double)ns / 1e9);
}

uint64_t rail_window(const struct rail *rail, int class)
{
    const uint64_t min_ns = rail->latency_min_ns != 0 ? rail->latency_min_ns : LATENCY_GUESS_NS;
    const bool background = class == YOLK_TRANSFER_BACKGROUND;
    const uint64_t window =
        bytes_in(rail, background ? ENV_NS_PER_MS : 2 * min_ns + 2 * ENV_NS_PER_MS);
    const uint64_t least = background ? WINDOW_BACKGROUND_MIN : WINDOW_MIN;

    if (!rail->measured && !rail->draining && !background) return WINDOW_FIRST + 2 * rail->bytes;
    return window > least && !rail->draining ? window : least;
}

uint64_t rail_slice_size(const struct rail *rail, uint64_t size_max)
{
    const uint64_t size = bytes_in(rail, ENV_NS_PER_MS) / SLICE_UNIT * SLICE_UNIT;

    if (size >= size_max || size_max <= SLICE_UNIT) return size_max;
    return size < SLICE_UNIT ? SLICE_UNIT : size;
}

uint64_t rail_score(const struct rail *rail, uint64_t length, enum rail_rank rank)
{
    static const double penalty[] = {
        [RAIL_PREFERRED] = 1, [RAIL_SECONDARY] = 3, [RAIL_LAST] = 1000
    };
    return (uint64_t)((double)(rail->inflight + length) * 1e9 / (double)rail->rate * penalty[rank]);
}

static uint64_t quiet_since(const struct rail *rail)
{
    return rail->heard_ns > rail->busy_ns ? rail->heard_ns : rail->busy_ns;
}

static uint64_t quiet_limit(const struct rail *rail)
{
    return RAIL_SILENCE_NS + rail->latency_ns;
}

bool rail_suspect(const struct rail *rail, uint64_t now_ns)
{
    return rail->busy_ns != 0 && now_ns >= quiet_since(rail) + quiet_limit(rail) / 2;
}

bool rail_silent(const struct rail rails[], uint32_t count, uint32_t at, uint64_t now_ns)
{
    const struct rail *rail = &rails[at];
    const uint64_t since_ns = quiet_since(rail), limit_ns = quiet_limit(rail);

    if (rail->busy_ns == 0 || now_ns < since_ns + limit_ns) return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct rail *other = &rails[i];
        if (i == at || !other->used || other->state != RAIL_UP) continue;
        if (other->heard_ns >= since_ns + limit_ns / 2) return true;
    }
    return false;
}

/* ---- states ---- */

static void set_state(struct rail *rail, enum rail_state state)
{
    static const unsigned edges[] = {
        [RAIL_UP] = 1u << RAIL_UP | 1u << RAIL_PAUSED,
        [RAIL_PAUSED] = 1u << RAIL_PROBING | 1u << RAIL_PAUSED,
        [RAIL_PROBING] = 1u << RAIL_UP | 1u << RAIL_PAUSED,
    };

    ASSERT((edges[rail->state] & 1u << state) != 0);
    rail->state = state;
}

bool rail_may_connect(const struct rail *rail, uint64_t now_ns)
{
    if (!rail->used || rail->connecting) return false;
    ASSERT(rail->state != RAIL_PROBING);
    return now_ns >= rail->retry_ns;
}

void rail_connect(struct rail *rail)
{
    ASSERT(!rail->connecting);
    rail->connecting = true;
    if (rail->state == RAIL_PAUSED) set_state(rail, RAIL_PROBING);
}

void rail_connected(struct rail *rail, uint64_t now_ns)
{
    ASSERT(rail->connecting);
    rail->connecting = false;
    rail->failures = 0;
    rail->proven = true;
    rail_heard(rail, now_ns);
    /* A lane that was already on its way when the rail was paused proves as much as a probe. */
    if (rail->state == RAIL_PAUSED) set_state(rail, RAIL_PROBING);
    set_state(rail, RAIL_UP);
}

void rail_fail(struct rail *rail, bool usable, uint64_t now_ns)
{
    uint64_t backoff_ms = BACKOFF_MIN_MS << (rail->failures < 10 ? rail->failures : 10);
    const uint64_t backoff_max_ms = rail->proven ? BACKOFF_MAX_MS : BACKOFF_UNPROVEN_MS;

    if (backoff_ms > backoff_max_ms) backoff_ms = backoff_max_ms;
    rail->failures++;
    rail->retry_ns = now_ns + backoff_ms * ENV_NS_PER_MS;
    if (usable && rail->state == RAIL_UP) return;
    rail->pauses += rail->state == RAIL_UP;
    rail->latency_ns = 0;
    set_state(rail, RAIL_PAUSED);
}

const char *rail_state_name(enum rail_state state)
{
    static const char *const names[] = { "up", "paused", "probing" };
    return (unsigned)state <= RAIL_PROBING ? names[state] : "unknown";
}
