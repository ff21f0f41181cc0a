/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/lengths.c - histograms that forget.
 *
 * Buckets   0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8-9 | 10-11 | 12-13 | 14-15 | 16-19 | ...
 * A length below 4 has its own bucket; above, an octave has four of equal width.
 *
 * Forgetting: the weight of a new sample grows by 1 / FORGET instead of all old ones shrinking;
 * when it gets large everything is scaled back.
 *
 * Invariants
 *   I1  above[i] is the sum of the weights of all buckets behind i; total is that of all.
 *   I2  class 0 holds the samples of everybody, on top of the guess. */
#include "conductor/lengths.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

enum { BUCKETS = 76, NAME_MAX = 256 };

static const double FORGET = 0.999;      /* half of the weight after 693 answers */
static const double WEIGHT_MAX = 1e9;    /* then everything is scaled back */
static const double LEAN = 20;           /* everybody counts as so many answers of a class */
static const double GUESS_MEAN = 256;    /* tokens of an answer, before there was any */
static const double GUESS_WEIGHT = 5;    /* ... which counts as so many answers */
static const double CHARGE_KEEP = 0.999; /* of what each tenant has had, per charge */

struct histogram {
    double weight; /* of the next sample; 1 sample = this much */
    double total;
    double bucket[BUCKETS];
    double above[BUCKETS];
};

struct class
{
    uint64_t name; /* 0: free */
    uint32_t tenant;
    struct histogram lengths;
};

struct tenant {
    uint64_t name; /* 0: free */
    double tokens;
};

struct lengths {
    struct class classes[LENGTHS_CLASSES_MAX];
    struct tenant tenants[LENGTHS_CLASSES_MAX];
};

/* ---- buckets ---- */

static uint32_t bucket_of(uint32_t tokens)
{
    if (tokens < 4) return tokens;
    const uint32_t octave = 31 - (uint32_t)__builtin_clz(tokens);
    return 4 * (octave - 1) + ((tokens >> (octave - 2)) & 3);
}

static uint32_t bucket_low(uint32_t bucket)
{
    if (bucket < 4) return bucket;
    return (4 + (bucket & 3)) << (bucket / 4 - 1);
}

static uint32_t bucket_width(uint32_t bucket)
{
    return bucket < 8 ? 1 : 1u << (bucket / 4 - 1);
}

static uint32_t clip(uint32_t tokens)
{
    return tokens < LENGTHS_TOKENS_MAX ? tokens : LENGTHS_TOKENS_MAX;
}

/* ---- histograms ---- */

static void histogram_sum(struct histogram *h)
{
    double sum = 0;

    for (uint32_t i = BUCKETS; i-- > 0;) {
        h->above[i] = sum;
        sum += h->bucket[i];
    }
    h->total = sum;
    ASSERT(isfinite(h->total));
}

static void histogram_learn(struct histogram *h, uint32_t tokens)
{
    const uint32_t at = bucket_of(tokens);

    ASSERT(at < BUCKETS && h->weight > 0);
    h->bucket[at] += h->weight;
    h->weight /= FORGET;
    if (h->weight > WEIGHT_MAX) {
        for (uint32_t i = 0; i < BUCKETS; i++)
            h->bucket[i] /= h->weight;
        h->weight = 1;
    }
    histogram_sum(h);
}

/* Weight of answers longer than this. */
static double histogram_above(const struct histogram *h, uint32_t tokens)
{
    const uint32_t at = bucket_of(tokens), width = bucket_width(at);
    const uint32_t last = bucket_low(at) + width - 1;

    ASSERT(at < BUCKETS && tokens <= last);
    return h->above[at] + h->bucket[at] * (double)(last - tokens) / (double)width;
}

static void guess(struct histogram *h)
{
    h->weight = 1;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        const double low = bucket_low(i), high = low + bucket_width(i);
        h->bucket[i] = GUESS_WEIGHT * (exp(-low / GUESS_MEAN) - exp(-high / GUESS_MEAN));
    }
    histogram_sum(h);
}

/* ---- making ---- */

enum status lengths_create(struct lengths **out)
{
    struct lengths *lengths = calloc(1, sizeof(*lengths));

    if (lengths == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < LENGTHS_CLASSES_MAX; i++)
        lengths->classes[i].lengths.weight = 1;
    guess(&lengths->classes[0].lengths);
    ASSERT(bucket_of(LENGTHS_TOKENS_MAX) == BUCKETS - 1);
    *out = lengths;
    return STATUS_OK;
}

void lengths_destroy(struct lengths *lengths)
{
    free(lengths);
}

uint64_t lengths_bytes(void)
{
    return sizeof(struct lengths);
}

/* ---- names ---- */

static uint64_t name_hash(const char *text, uint64_t seed)
{
    char name[NAME_MAX + sizeof(seed)];
    const size_t len = text != NULL ? strnlen(text, NAME_MAX) : 0;

    memcpy(name, &seed, sizeof(seed));
    if (len > 0) memcpy(name + sizeof(seed), text, len);
    const uint64_t hash = hash_xxh3(name, sizeof(seed) + len);
    return hash != 0 ? hash : 1;
}

/* Slots 1.. are used in order, so the first free one ends the search. 0 when all are taken. */
static uint32_t tenant_of(struct lengths *lengths, uint64_t name)
{
    for (uint32_t i = 1; i < LENGTHS_CLASSES_MAX; i++) {
        if (lengths->tenants[i].name == name) return i;
        if (lengths->tenants[i].name != 0) continue;
        lengths->tenants[i].name = name;
        return i;
    }
    return 0;
}

uint32_t lengths_class(struct lengths *lengths, const char *tenant, const char *route, uint64_t app)
{
    const uint64_t tenant_name = name_hash(tenant, 0);
    const uint64_t name =
        name_hash(route, app != 0 ? name_hash(NULL, tenant_name ^ app) : tenant_name);

    for (uint32_t i = 1; i < LENGTHS_CLASSES_MAX; i++) {
        struct class *class = &lengths->classes[i];
        if (class->name == name) return i;
        if (class->name != 0) continue;
        class->name = name;
        class->tenant = tenant_of(lengths, tenant_name);
        return i;
    }
    return 0;
}

/* ---- lengths ---- */

void lengths_learn(struct lengths *lengths, uint32_t class_index, uint32_t tokens)
{
    ASSERT(class_index < LENGTHS_CLASSES_MAX);
    histogram_learn(&lengths->classes[0].lengths, clip(tokens)); /* I2 */
    if (class_index != 0) histogram_learn(&lengths->classes[class_index].lengths, clip(tokens));
}

double lengths_survival(const struct lengths *lengths, uint32_t class_index, uint32_t tokens)
{
    ASSERT(class_index < LENGTHS_CLASSES_MAX);
    const struct histogram *own = &lengths->classes[class_index].lengths;
    const struct histogram *all = &lengths->classes[0].lengths;
    const uint32_t at = clip(tokens);
    const double everybody = histogram_above(all, at) / all->total;

    if (class_index == 0) return everybody;
    const double lean = LEAN * own->weight; /* weights are in units of the next sample's */
    return (histogram_above(own, at) + lean * everybody) / (own->total + lean);
}

uint32_t lengths_quantile(const struct lengths *lengths, uint32_t class_index, double q)
{
    uint32_t low = 0, high = LENGTHS_TOKENS_MAX;

    ASSERT(q >= 0 && q < 1);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (lengths_survival(lengths, class_index, middle) <= 1 - q) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The sum of the survival of 0 .. max - 1; within a bucket survival is a straight line. */
double lengths_mean(const struct lengths *lengths, uint32_t class_index, uint32_t max)
{
    const uint32_t end = clip(max);
    double sum = 0;

    for (uint32_t i = 0; i < BUCKETS && bucket_low(i) < end; i++) {
        const uint32_t first = bucket_low(i), width = bucket_width(i);
        const uint32_t count = first + width < end ? width : end - first;
        const double at_first = lengths_survival(lengths, class_index, first);
        const double at_last = lengths_survival(lengths, class_index, first + count - 1);
        sum += count * (at_first + at_last) / 2;
    }
    ASSERT(sum >= 0 && sum <= (double)end + 1e-6 * end);
    return sum;
}

/* ---- shares ---- */

void lengths_charge(struct lengths *lengths, uint32_t class_index, uint32_t tokens)
{
    ASSERT(class_index < LENGTHS_CLASSES_MAX);
    struct tenant *tenant = &lengths->tenants[lengths->classes[class_index].tenant];

    for (uint32_t i = 0; i < LENGTHS_CLASSES_MAX; i++)
        lengths->tenants[i].tokens *= CHARGE_KEEP;
    tenant->tokens += tokens;
}

double lengths_share(const struct lengths *lengths, uint32_t class_index)
{
    ASSERT(class_index < LENGTHS_CLASSES_MAX);
    const struct tenant *tenant = &lengths->tenants[lengths->classes[class_index].tenant];
    double total = 0;
    uint32_t active = 0;

    for (uint32_t i = 0; i < LENGTHS_CLASSES_MAX; i++) {
        total += lengths->tenants[i].tokens;
        if (lengths->tenants[i].tokens >= 1) active++;
    }
    return total > 0 && active > 1 ? tenant->tokens * active / total : 1;
}
