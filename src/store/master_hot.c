/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_hot.c - values that are read more than one owner should carry get further replicas,
 * and lose them when they cool.
 *
 * The Conductor does the same for prefixes of KVCache (conductor/replicate.c), which the master
 * leaves alone; so each thing has one who looks after its heat, and both count it alike
 * (base/heat.h). Here a read of a value by name counts once, and once more for each MiB of it: what
 * is sent then is what wears its owner out. Only a sample of the reads is counted, at random
 * distances, or batches that come again and again would be counted by one of their keys.
 *
 *                more reads a second than hot_reads for each replica
 *   (as wished) ----------------------------------------------------> hot: 1..hot_replicas more
 *        ^                                                                | ^  (a spot)
 *        |  all but one of them could carry twice as much:                +-+
 *        +---- one goes, at most one every HOLD_MS ----------------- more, or fewer
 *
 * How many there should be because somebody wished it is an attribute of the value, which its
 * owners announce; what heat adds is known here alone, in `hot` of struct extra. Copies and drops
 * are those of store/master_copy.c, which works towards the sum. A copy for heat takes idle memory
 * only, and within the quota of the value's tenant, who is charged for it; and where room is needed
 * it is the first to go (store/master_evict.c). After that nothing is added for REST_MS.
 *
 * Owners mark what was copied for heat (`hot` of struct store_attributes), so that a new master
 * knows that there may be others than it has heard. What it finds beyond the wish it takes for
 * heat's, and lets go unless it proves hot again.
 *
 * Invariants (master_hot_check())
 *   I1  A value is a spot exactly when its extra->hot is above 0.
 *   I2  extra->hot is at most hot_replicas, and with the wish at most STORE_REPLICAS_MAX when it is
 *       set.
 *
 * Limits: HEAT_ENTRIES values whose heat is known, SPOTS_MAX that are hot; others wait until one
 * has cooled. */
#include "store/master_int.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/heat.h"

enum {
    HEAT_ENTRIES = 4096,
    SPOTS_MAX = 128,
    HALF_LIFE_MS = 10000,
    HOLD_MS = 10000, /* after a change, before one replica fewer */
    REST_MS = 30000, /* after some had to make room, before more */
    LOOK_MS = 1000,  /* between looks at what has cooled */
    READS_DEFAULT = 500,
    SAMPLE_MAX = 32,  /* one read of so many is counted, */
    SAMPLE_PART = 16, /* or fewer where a value is hot after few: so many are seen in a second */
};

#define LN2 0.69314718055994531

struct spot {
    struct entry *entry;
    uint64_t since_ns; /* of its last change */
};

struct hot {
    struct heat *heat;
    uint32_t sample;
    uint64_t rest_until;
    uint64_t look_ns; /* the next one */
    uint32_t count;
    struct spot spots[SPOTS_MAX];
};

/* ---- life ---- */

static uint32_t sample_of(uint32_t reads)
{
    const uint32_t sample = reads / SAMPLE_PART;
    return sample < 1 ? 1 : sample < SAMPLE_MAX ? sample : SAMPLE_MAX;
}

bool master_hot_init(struct store_master *master)
{
    struct store_master_options *o = &master->options;

    if (o->hot_replicas == 0) return true;
    if (o->hot_replicas > STORE_REPLICAS_MAX - 1) o->hot_replicas = STORE_REPLICAS_MAX - 1;
    if (o->hot_reads == 0) o->hot_reads = READS_DEFAULT;
    struct hot *hot = calloc(1, sizeof(*hot));
    if (hot == NULL) return false;
    hot->sample = sample_of(o->hot_reads);
    if (heat_create(HEAT_ENTRIES, HALF_LIFE_MS, &hot->heat) != STATUS_OK) {
        free(hot);
        return false;
    }
    master->hot = hot;
    master->hot_skip = 1;
    return true;
}

void master_hot_fini(struct store_master *master)
{
    if (master->hot == NULL) return;
    heat_destroy(master->hot->heat);
    free(master->hot);
}

/* ---- spots ---- */

static struct spot *spot_of(struct hot *hot, const struct entry *entry)
{
    for (uint32_t i = 0; i < hot->count; i++) {
        if (hot->spots[i].entry == entry) return &hot->spots[i];
    }
    return NULL;
}

static void spot_end(struct hot *hot, struct spot *spot)
{
    ASSERT(hot->count > 0);
    *spot = hot->spots[--hot->count];
}

/* More or fewer for heat; the value is a spot while there are any (I1). */
static void spot_set(struct hot *hot, uint64_t now_ns, struct entry *entry, uint32_t replicas)
{
    struct spot *spot = spot_of(hot, entry);

    ASSERT(entry->extra != NULL && replicas < STORE_REPLICAS_MAX);
    if (spot == NULL && replicas > 0) {
        ASSERT(hot->count < SPOTS_MAX);
        spot = &hot->spots[hot->count++];
        spot->entry = entry;
    }
    entry->extra->hot = (uint8_t)replicas;
    if (spot == NULL) return;
    spot->since_ns = now_ns;
    if (replicas == 0) spot_end(hot, spot);
}

void master_hot_forget(struct store_master *master, struct entry *entry)
{
    if (entry->extra == NULL || entry->extra->hot == 0) return;
    entry->extra->hot = 0;
    spot_end(master->hot, spot_of(master->hot, entry));
}

/* How many heat may add to what is wished. */
static uint32_t limit_of(const struct store_master *master, const struct entry *entry)
{
    const uint32_t room = STORE_REPLICAS_MAX - master_entry_wished(entry);
    return room < master->options.hot_replicas ? room : master->options.hot_replicas;
}

/* ---- warming ---- */

static double reads_of(double heat)
{
    return heat * LN2 / (HALF_LIFE_MS / 1e3);
}

static void warmed(struct store_master *master, uint64_t now_ns, struct entry *entry, double reads)
{
    struct hot *hot = master->hot;
    const uint32_t wished = master_entry_wished(entry);
    const uint32_t most = limit_of(master, entry);
    const uint32_t have = entry->extra == NULL ? 0 : entry->extra->hot;
    uint32_t more = have;

    while (more < most && reads > (double)master->options.hot_reads * (wished + more))
        more++;
    if (more == have || master_hot_rests(master, now_ns)) return;
    if (have == 0 && (hot->count == SPOTS_MAX || master_entry_extra(entry) == NULL)) return;
    spot_set(hot, now_ns, entry, more);
    master_copies_look(master, entry);
}

void master_hot_sampled(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const struct hot *hot = master->hot;

    master->hot_skip = 1 + (uint32_t)rng_below(&master->hot_rng, 2 * hot->sample - 1);
    if (master_entry_block(entry)) return;
    const double amount = (double)hot->sample * (double)(1 + (entry->size >> 20));
    const double heat = heat_add(hot->heat, &entry->id, amount, (double)now_ns / ENV_NS_PER_MS);
    warmed(master, now_ns, entry, reads_of(heat));
}

void master_hot_adopt(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    struct hot *hot = master->hot;

    if (hot == NULL || entry->extra == NULL) return;
    const uint32_t surplus = master_copies_surplus(master, entry);
    const uint32_t most = limit_of(master, entry);
    const uint32_t found = surplus < most ? surplus : most;
    if (found <= entry->extra->hot || (entry->extra->hot == 0 && hot->count == SPOTS_MAX)) return;
    spot_set(hot, now_ns, entry, found);
}

/* ---- cooling ---- */

static void spot_cool(struct store_master *master, uint64_t now_ns, const struct spot *spot)
{
    struct hot *hot = master->hot;
    struct entry *entry = spot->entry;
    const uint32_t without = master_entry_wished(entry) + entry->extra->hot - 1u;
    const double heat = heat_of(hot->heat, &entry->id, (double)now_ns / ENV_NS_PER_MS);

    if (now_ns < spot->since_ns + master_ms(HOLD_MS)) return;
    if (2 * reads_of(heat) >= (double)master->options.hot_reads * without) return;
    spot_set(hot, now_ns, entry, entry->extra->hot - 1u);
    master_copies_look(master, entry);
}

void master_hot_run(struct store_master *master, uint64_t now_ns)
{
    struct hot *hot = master->hot;

    if (hot == NULL || now_ns < hot->look_ns) return;
    hot->look_ns = now_ns + master_ms(LOOK_MS);
    for (uint32_t i = hot->count; i-- > 0;) /* the last one takes the place of one that ends */
        spot_cool(master, now_ns, &hot->spots[i]);
}

/* ---- making room ---- */

struct entry *master_hot_next(const struct store_master *master, uint32_t *cursor)
{
    const struct hot *hot = master->hot;

    if (hot == NULL) return NULL;
    if (*cursor > hot->count) *cursor = hot->count;
    return *cursor == 0 ? NULL : hot->spots[--*cursor].entry;
}

void master_hot_taken(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    struct hot *hot = master->hot;
    const uint32_t surplus = master_copies_surplus(master, entry);

    hot->rest_until = now_ns + master_ms(REST_MS);
    if (surplus < entry->extra->hot) spot_set(hot, now_ns, entry, surplus);
}

bool master_hot_rests(const struct store_master *master, uint64_t now_ns)
{
    return master->hot == NULL || now_ns < master->hot->rest_until;
}

/* ---- looking around ---- */

void master_hot_counts(const struct store_master *master, struct store_master_counts *out)
{
    const struct hot *hot = master->hot;

    for (uint32_t i = 0; hot != NULL && i < hot->count; i++) {
        const uint32_t surplus = master_copies_surplus(master, hot->spots[i].entry);
        const uint32_t given = hot->spots[i].entry->extra->hot;
        out->hot_values++;
        out->hot_replicas += surplus < given ? surplus : given;
    }
}

void master_hot_check(const struct store_master *master)
{
    const struct hot *hot = master->hot;
    uint32_t count = 0;

    for (uint32_t i = 0; (i = slab_next(master->entries, i)) != SLAB_NONE; i++) {
        const struct extra *extra = master_entry_at(master, i)->extra;
        if (extra == NULL || extra->hot == 0) continue;
        ASSERT(hot != NULL && extra->hot <= master->options.hot_replicas); /* I2 */
        count++;
    }
    ASSERT(count == (hot == NULL ? 0 : hot->count));
    for (uint32_t i = 0; i < count; i++) { /* I1 */
        ASSERT(hot->spots[i].entry->extra->hot > 0);
        for (uint32_t j = 0; j < i; j++)
            ASSERT(hot->spots[j].entry != hot->spots[i].entry);
    }
}
