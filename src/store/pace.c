/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pace.c - the counts. */
#include "store/pace.h"

enum {
    LONG_ASLEEP = 4,   /* credit that a long wait costs */
    LONG_LOOKING = 8,  /* then the core was wanted, or the answer was not worth it */
    GOOD_FOR_LESS = 8, /* brief waits, in bars, until the bar is halved */
};

static uint32_t get(const _Atomic uint32_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void set(_Atomic uint32_t *count, uint32_t value)
{
    atomic_store_explicit(count, value, memory_order_relaxed);
}

void pace_init(struct pace *pace)
{
    atomic_init(&pace->looks, false);
    atomic_init(&pace->bar, PACE_BAR_LEAST);
    atomic_init(&pace->credit, 0);
    atomic_init(&pace->good, 0);
}

bool pace_looks(const struct pace *pace)
{
    return atomic_load_explicit(&pace->looks, memory_order_relaxed);
}

static void change(struct pace *pace, bool looks)
{
    set(&pace->credit, looks ? PACE_PATIENCE : 0);
    set(&pace->good, 0);
    atomic_store_explicit(&pace->looks, looks, memory_order_relaxed);
}

static void note_asleep(struct pace *pace, bool brief)
{
    const uint32_t credit = get(&pace->credit);

    if (!brief) {
        set(&pace->credit, credit > LONG_ASLEEP ? credit - LONG_ASLEEP : 0);
    } else if (credit + 1 < get(&pace->bar)) {
        set(&pace->credit, credit + 1);
    } else {
        change(pace, true);
    }
}

static void note_brief(struct pace *pace)
{
    const uint32_t credit = get(&pace->credit);
    const uint32_t bar = get(&pace->bar);
    const uint32_t good = get(&pace->good) + 1;
    const bool lower = good >= GOOD_FOR_LESS * bar && bar > PACE_BAR_LEAST;

    if (credit < PACE_PATIENCE) set(&pace->credit, credit + 1);
    if (lower) set(&pace->bar, bar / 2);
    set(&pace->good, lower ? 0 : good);
}

static void note_long(struct pace *pace)
{
    const uint32_t credit = get(&pace->credit);
    const uint32_t bar = get(&pace->bar);

    if (credit > LONG_LOOKING) {
        set(&pace->credit, credit - LONG_LOOKING);
        return;
    }
    change(pace, false);
    if (bar < PACE_BAR_MOST) set(&pace->bar, 2 * bar);
}

void pace_note(struct pace *pace, bool brief)
{
    if (!pace_looks(pace)) {
        note_asleep(pace, brief);
    } else if (brief) {
        note_brief(pace);
    } else {
        note_long(pace);
    }
}
