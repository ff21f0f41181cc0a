/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/conductor.c - the books around Algorithm 1: made, told what each instance holds, and
 * taught what things cost.
 *
 * Who is in them is instances.c, what was decided for whom is tickets.c, and a decision, which only
 * reads them, is propose.c.
 *
 * Invariants
 *   I1  a ticket is in the queue of its prefill instance exactly while PREFILLING and attached.
 *   I2  an instance's sequences, tokens and pages are the sums over the tickets attached to it; its
 *       decoding and decoding_tokens over those of them that are DECODING.
 *   I3  fits of instances that are free are not used; fits of used ones hold finite numbers.
 *   I4  a host slot is used exactly while an instance lies on it.
 *   I5  prefill_up and decode_up count the instances that conductor_open(). */
#include "conductor/conductor_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static_assert((int)YOLK_INSTANCES_MAX == (int)CONDUCTOR_HOLDERS_MAX, "an instance is a holder");
static_assert((int)YOLK_GROUP_MAX == (int)PIPELINE_STAGES_MAX, "an instance is a stage");
static_assert((int)YOLK_PATHS == (int)CONDUCTOR_PATHS, "paths have the same numbers");

enum { PREFETCH_AHEAD = 12 }; /* keys of a batch of events */

/* ---- making ---- */

struct yolk_conductor_options yolk_conductor_defaults(void)
{
    return (struct yolk_conductor_options){
        .instances_max = 1024,
        .holdings_max = 1 << 20,
        .tickets_max = 16384,
        .decisions_max = 1024,
        .theta = 1.25,
        .reuse = true,
        .group_max = 1,
        .chunk_tokens = 2048,
        .activation_bytes = 16384,
        .inline_factor = 1.25,
    };
}

static enum status check_range(const char *what, uint64_t value, uint64_t max, struct errmsg *err)
{
    if (value >= 1 && value <= max) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "conductor: %s is %llu, not in 1..%llu", what,
                      (unsigned long long)value, (unsigned long long)max);
}

static enum status check_options(const struct yolk_conductor_options *o, struct errmsg *err)
{
    const struct {
        const char *what;
        uint64_t value, max;
    } ranges[] = {
        { "instances_max", o->instances_max, YOLK_INSTANCES_MAX },
        { "holdings_max", o->holdings_max, YOLK_HOLDINGS_MAX },
        { "tickets_max", o->tickets_max, YOLK_TICKETS_MAX },
        { "decisions_max", o->decisions_max, YOLK_DECISIONS_MAX },
        { "block_tokens", o->block_tokens, 4096 },
        { "block_size", o->block_size, UINT64_C(1) << 40 },
        { "group_max", o->group_max, YOLK_GROUP_MAX },
        { "chunk_tokens", o->chunk_tokens, UINT32_MAX },
        { "activation_bytes", o->activation_bytes, UINT32_MAX },
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const enum status status = check_range(ranges[i].what, ranges[i].value, ranges[i].max, err);
        if (status != STATUS_OK) return status;
    }
    if ((o->block_tokens & (o->block_tokens - 1)) != 0) {
        return errmsg_set(err, STATUS_INVALID, "conductor: block_tokens is no power of two");
    }
    if ((int)o->placement < 0 || (int)o->placement >= YOLK_PLACEMENTS) {
        return errmsg_set(err, STATUS_INVALID, "conductor: no such placement");
    }
    if (!(o->inline_tbt_ms >= 0 && o->inline_tbt_ms <= YOLK_LIMIT_MS_MAX)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: inline_tbt_ms is not in 0..%d",
                          YOLK_LIMIT_MS_MAX);
    }
    if (!(o->inline_factor >= 1 && o->inline_factor <= 100)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: inline_factor is not in 1..100");
    }
    if (!(o->stretch >= 0 && o->stretch <= 1000)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: stretch is not in 0..1000");
    }
    if (!(o->theta >= 1 && o->theta <= 1e6)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: theta is not in 1..1000000");
    }
    return STATUS_OK;
}

static bool allocate(struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;

    c->instances =
        aligned_alloc(alignof(struct instance), o->instances_max * sizeof(*c->instances));
    if (c->instances != NULL) memset(c->instances, 0, o->instances_max * sizeof(*c->instances));
    c->hosts = calloc(o->instances_max, sizeof(*c->hosts));
    c->tickets = calloc(o->tickets_max, sizeof(*c->tickets));
    c->decisions = calloc(o->decisions_max, sizeof(*c->decisions));
    c->matched = calloc(o->instances_max, sizeof(*c->matched));
    c->ends_slow = calloc(o->instances_max, sizeof(*c->ends_slow));
    c->prefill = calloc(o->instances_max, sizeof(*c->prefill));
    c->decode = calloc(o->instances_max, sizeof(*c->decode));
    c->holders = calloc(o->instances_max, sizeof(*c->holders));
    c->on_host = calloc(o->instances_max, sizeof(*c->on_host));
    c->next_holder = calloc(o->instances_max, sizeof(*c->next_holder));
    c->decoders = calloc(o->instances_max, sizeof(*c->decoders));
    c->members = calloc(o->instances_max, sizeof(*c->members));
    if (o->group_max > 1) {
        c->chunks = calloc(PIPELINE_CHUNKS_MAX, sizeof(*c->chunks));
        if (c->chunks == NULL) return false;
    }
    return c->instances && c->hosts && c->tickets && c->decisions && c->matched && c->ends_slow &&
           c->prefill && c->decode && c->holders && c->on_host && c->next_holder && c->decoders &&
           c->members;
}

static uint64_t bytes_of(const struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;
    const uint64_t per_instance =
        sizeof(*c->instances) + sizeof(*c->hosts) + sizeof(*c->matched) + sizeof(*c->ends_slow) +
        sizeof(*c->prefill) + sizeof(*c->decode) + sizeof(*c->holders) + sizeof(*c->on_host) +
        sizeof(*c->next_holder) + sizeof(*c->decoders) + sizeof(*c->members);
    return sizeof(*c) + per_instance * o->instances_max + sizeof(*c->tickets) * o->tickets_max +
           sizeof(*c->decisions) * o->decisions_max + conductor_index_bytes(c->index) +
           admission_bytes(c->admission) + audit_bytes() + conductor_explain_bytes(c->explain) +
           (c->chunks == NULL ? 0 : PIPELINE_CHUNKS_MAX * sizeof(*c->chunks));
}

enum status yolk_conductor_create(const struct yolk_conductor_options *options,
                                  struct yolk_conductor **out, struct errmsg *err)
{
    const enum status valid = check_options(options, err);
    if (valid != STATUS_OK) return valid;
    struct yolk_conductor *c = calloc(1, sizeof(*c));
    if (c == NULL) goto no_memory;
    c->options = *options;
    if (!allocate(c)) goto no_memory;
    if (conductor_index_create(options->instances_max, options->holdings_max, &c->index) !=
        STATUS_OK) {
        goto no_memory;
    }
    if (admission_create(options->tickets_max, options->instances_max, &c->admission) !=
        STATUS_OK) {
        goto no_memory;
    }
    if (audit_create(&c->audit) != STATUS_OK) goto no_memory;
    if (conductor_explain_create(options, &c->explain) != STATUS_OK) goto no_memory;
    conductor_index_set_ghost(c->index, conductor_explain_ghost(c->explain));
    conductor_profile_init(&c->profile);
    conductor_elastic_init(c);
    c->free_ticket = 0;
    for (uint32_t i = 0; i < options->tickets_max; i++) {
        c->tickets[i].next = i + 1 < options->tickets_max ? (int32_t)i + 1 : NONE;
    }
    c->stats.bytes = bytes_of(c);
    *out = c;
    return STATUS_OK;

no_memory:
    yolk_conductor_destroy(c);
    return errmsg_set(err, STATUS_NO_MEMORY, "conductor: not enough memory");
}

void yolk_conductor_destroy(struct yolk_conductor *c)
{
    if (c == NULL) return;
    conductor_index_destroy(c->index);
    admission_destroy(c->admission);
    audit_destroy(c->audit);
    conductor_replication_destroy(c->replication);
    conductor_explain_destroy(c->explain);
    free(c->decoders);
    free(c->members);
    free(c->chunks);
    free(c->instances);
    free(c->hosts);
    free(c->tickets);
    free(c->decisions);
    free(c->matched);
    free(c->ends_slow);
    free(c->prefill);
    free(c->decode);
    free(c->holders);
    free(c->on_host);
    free(c->next_holder);
    free(c);
}

/* ---- what each instance holds ---- */

/* Ids of events come from wherever the caller has them: a wrong one is counted, not trusted. */
static bool known(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (id.index < c->options.instances_max && c->instances[id.index].used) return true;
    c->stats.events_unknown++;
    return false;
}

enum status yolk_conductor_stored(struct yolk_conductor *c, struct yolk_instance_id id,
                                  const struct block_key *keys, size_t count, enum yolk_tier tier)
{
    if (!known(c, id)) return STATUS_NOT_FOUND;
    ASSERT((int)tier >= 0 && (int)tier < CONDUCTOR_TIERS);
    if (tier == YOLK_TIER_SSD) c->ssd_seen = true;
    enum status result = STATUS_OK;

    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            conductor_index_prefetch(c->index, &keys[i + PREFETCH_AHEAD]);
        }
        const enum status status =
            conductor_index_store(c->index, id.index, &keys[i], (uint8_t)tier);
        if (status == STATUS_OK) continue;
        ASSERT(status == STATUS_FULL);
        c->stats.events_forgotten++;
        result = STATUS_FULL;
    }
    c->stats.events_stored += count;
    return result;
}

void yolk_conductor_removed(struct yolk_conductor *c, struct yolk_instance_id id,
                            const struct block_key *keys, size_t count)
{
    if (!known(c, id)) return;
    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            conductor_index_prefetch(c->index, &keys[i + PREFETCH_AHEAD]);
        }
        (void)conductor_index_remove(c->index, id.index, &keys[i]);
    }
    c->stats.events_removed += count;
}

void yolk_conductor_cleared(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
    conductor_index_clear(c->index, id.index);
}

void yolk_conductor_resync_begin(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
    conductor_index_resync_begin(c->index, id.index);
}

void yolk_conductor_resync_end(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
    conductor_index_resync_end(c->index, id.index);
}

/* ---- learning: each sample goes to its instance and to the profile that new ones start from ----
 */

static enum status counted(struct yolk_conductor *c, enum status status, uint64_t *samples)
{
    if (status == STATUS_OK) {
        (*samples)++;
    } else {
        c->stats.samples_refused++;
    }
    return status;
}

enum status yolk_conductor_learn_prefill(struct yolk_conductor *c, struct yolk_instance_id id,
                                         uint32_t tokens, uint32_t reused_tokens, double ms)
{
    struct instance *instance = conductor_instance(c, id);
    enum status status = conductor_fit_prefill(&instance->prefill_fit, tokens, reused_tokens, ms);

    if (status == STATUS_OK) {
        status = conductor_fit_prefill(&c->profile.prefill, tokens, reused_tokens, ms);
        ASSERT(status == STATUS_OK);
    }
    return counted(c, status, &c->stats.samples_prefill);
}

enum status yolk_conductor_learn_decode(struct yolk_conductor *c, struct yolk_instance_id id,
                                        double sequences, double context_tokens, double ms)
{
    struct instance *instance = conductor_instance(c, id);
    enum status status = conductor_fit_decode(&instance->decode_fit, sequences, context_tokens, ms);

    if (status == STATUS_OK) {
        status = conductor_fit_decode(&c->profile.decode, sequences, context_tokens, ms);
        ASSERT(status == STATUS_OK);
    }
    return counted(c, status, &c->stats.samples_decode);
}

enum status yolk_conductor_learn_transfer(struct yolk_conductor *c, enum yolk_path path,
                                          uint64_t bytes, double ms)
{
    ASSERT((int)path >= 0 && (int)path < CONDUCTOR_PATHS);
    return counted(c, conductor_fit_transfer(&c->profile.transfer[path], (double)bytes, ms),
                   &c->stats.samples_transfer);
}

enum status yolk_conductor_learn_load(struct yolk_conductor *c, uint64_t bytes, double ms)
{
    return counted(c, conductor_fit_transfer(&c->profile.ssd, (double)bytes, ms),
                   &c->stats.samples_transfer);
}

enum status yolk_conductor_profile_save(const struct yolk_conductor *c, char **out, size_t *len)
{
    return conductor_profile_format(&c->profile, out, len);
}

enum status yolk_conductor_profile_load(struct yolk_conductor *c, const char *text, size_t len,
                                        struct errmsg *err)
{
    return conductor_profile_parse(text, len, &c->profile, err);
}

/* ---- explaining ---- */

void yolk_conductor_stats(const struct yolk_conductor *c, struct yolk_conductor_stats *out)
{
    *out = c->stats;
    out->holdings = conductor_index_count(c->index);
    out->holdings_max = c->options.holdings_max;
    out->index_bytes = conductor_index_bytes(c->index);
    out->tickets = c->tickets_used;
}

bool yolk_conductor_decision(const struct yolk_conductor *c, uint32_t age,
                             struct yolk_decision *out)
{
    if (age >= c->decisions_count || age >= c->options.decisions_max) return false;
    *out = c->decisions[(c->decisions_count - 1 - age) % c->options.decisions_max];
    return true;
}
