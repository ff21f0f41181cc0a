/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_sched.c - see worker_sched.h for states and invariants.
 *
 * Live sequences stand in one array in the order in which they are served (`order`): each is put
 * in its place when it arrives, so that "first" is a walk and "last" is a walk from the end. With
 * at most a few thousand sequences a walk per step costs microseconds next to a step's
 * milliseconds. */
#include "serve/worker_sched.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/fair.h"

struct sequence {
    enum sched_state state;
    enum sched_kind kind;
    uint32_t tokens;
    uint32_t computed;
    int priority;
    uint64_t tenant;
    uint64_t stamp;   /* of its kind's fair: whose turn it is */
    uint64_t order;   /* which of its tenant's prompts takes that turn */
    uint32_t offered; /* of a prompt: only so many tokens may be computed for now */
    bool begun;       /* has been in a step */
    bool in_step;
    bool alone;
};

struct sched {
    struct sched_options options;
    bool step_under_way;
    bool last_alone;     /* the last step was one sequence's alone */
    uint32_t live;       /* entries of order */
    uint32_t decoding;   /* sequences in DECODE */
    uint32_t *order;     /* slots in use, first in order first */
    uint32_t *free_list; /* free_list[0..sequences_max - live): slots in NONE */
    struct sequence *sequences;
    struct fair fair_prefill, fair_decode;
};

const char *sched_state_name(enum sched_state state)
{
    static const char *const names[SCHED_STATES] = { "none",    "queued",   "loading",
                                                     "prefill", "pushing",  "waiting_kv",
                                                     "decode",  "finished", "cancelled",
                                                     "failed" };
    return (unsigned)state < SCHED_STATES ? names[state] : "unknown";
}

static bool options_valid(const struct sched_options *options)
{
    if (options->sequences_max == 0 || options->sequences_max > SCHED_SEQUENCES_MAX) return false;
    if (options->rows_max == 0 || options->rows_max > SCHED_ROWS_MAX) return false;
    if (options->block_tokens == 0 || options->decode_max == 0) return false;
    return (uint64_t)options->decode_max + options->block_tokens <= options->rows_max;
}

enum status sched_create(const struct sched_options *options, struct sched **out)
{
    if (!options_valid(options)) return STATUS_INVALID;
    const uint32_t count = options->sequences_max;
    struct sched *sched = calloc(1, sizeof(*sched));
    if (sched == NULL) return STATUS_NO_MEMORY;
    sched->options = *options;
    sched->order = calloc(count, sizeof(*sched->order));
    sched->free_list = calloc(count, sizeof(*sched->free_list));
    sched->sequences = calloc(count, sizeof(*sched->sequences));
    if (sched->order == NULL || sched->free_list == NULL || sched->sequences == NULL) {
        sched_destroy(sched);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++)
        sched->free_list[i] = count - 1 - i;
    *out = sched;
    return STATUS_OK;
}

void sched_destroy(struct sched *sched)
{
    if (sched == NULL) return;
    free(sched->order);
    free(sched->free_list);
    free(sched->sequences);
    free(sched);
}

static struct sequence *get(const struct sched *sched, struct sched_id id)
{
    ASSERT(id.index < sched->options.sequences_max);
    struct sequence *seq = &sched->sequences[id.index];
    ASSERT(seq->state != SCHED_NONE);
    return seq;
}

/* ---- states ---- */

static bool is_over(enum sched_state state)
{
    return state == SCHED_FINISHED || state == SCHED_CANCELLED || state == SCHED_FAILED;
}

static bool edge_allowed(enum sched_state from, enum sched_state to)
{
    switch (to) {
    case SCHED_NONE: return is_over(from);
    case SCHED_QUEUED: return from == SCHED_NONE;
    case SCHED_LOADING: return from == SCHED_QUEUED || from == SCHED_PREFILL;
    case SCHED_PREFILL:
        return from == SCHED_QUEUED || from == SCHED_LOADING || from == SCHED_WAITING_KV;
    case SCHED_PUSHING: return from == SCHED_PREFILL;
    case SCHED_WAITING_KV: return from == SCHED_QUEUED || from == SCHED_PREFILL;
    case SCHED_DECODE: return from == SCHED_WAITING_KV;
    case SCHED_FINISHED:
        return from == SCHED_PUSHING || from == SCHED_WAITING_KV || from == SCHED_DECODE;
    case SCHED_CANCELLED:
    case SCHED_FAILED: return from != SCHED_NONE && !is_over(from);
    }
    return false;
}

/* The one place where a state changes. */
static void set_state(struct sched *sched, struct sequence *seq, enum sched_state state)
{
    ASSERT(edge_allowed(seq->state, state));
    if (seq->state == SCHED_DECODE) sched->decoding--;
    if (state == SCHED_DECODE) sched->decoding++;
    ASSERT(sched->decoding <= sched->options.decode_max);
    seq->state = state;
}

static struct fair *fair_of(struct sched *sched, const struct sequence *seq)
{
    return seq->kind == SCHED_KIND_PREFILL ? &sched->fair_prefill : &sched->fair_decode;
}

static bool goes_before(const struct sequence *a, const struct sequence *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->stamp < b->stamp;
}

/* May `later` take the turn of `earlier`, which stands before it? */
static bool changes_turns(const struct sequence *earlier, const struct sequence *later)
{
    return earlier->kind == SCHED_KIND_PREFILL && later->kind == SCHED_KIND_PREFILL &&
           earlier->tenant == later->tenant && earlier->priority == later->priority;
}

/* Turns are the tenant's: among its prompts that have not begun, the one at order[at] takes the
 * turn that its order gives it, and those behind move by one turn. */
static void take_turn(struct sched *sched, uint32_t at)
{
    for (uint32_t i = at; i > 0; i--) {
        struct sequence *own = &sched->sequences[sched->order[at]];
        struct sequence *other = &sched->sequences[sched->order[i - 1]];
        if (!changes_turns(other, own)) continue;
        if (other->begun) continue;
        if (other->order <= own->order) return;
        const uint64_t stamp = own->stamp;
        own->stamp = other->stamp;
        other->stamp = stamp;
        const uint32_t index = sched->order[at];
        sched->order[at] = sched->order[i - 1];
        sched->order[i - 1] = index;
        at = i - 1;
    }
}

/* Behind all that it does not go before. Stamps of the two kinds are not comparable, nor does it
 * matter: the kinds never wait for the same thing. */
static void put_in_order(struct sched *sched, uint32_t index)
{
    uint32_t at = sched->live;

    while (at > 0) {
        const struct sequence *before = &sched->sequences[sched->order[at - 1]];
        if (!goes_before(&sched->sequences[index], before)) break;
        sched->order[at] = sched->order[at - 1];
        at--;
    }
    sched->order[at] = index;
    sched->live++;
    take_turn(sched, at);
}

enum status sched_add(struct sched *sched, const struct sched_arrival *arrival,
                      struct sched_id *out)
{
    ASSERT(arrival->tokens >= 1);
    ASSERT(arrival->kind == SCHED_KIND_PREFILL || arrival->kind == SCHED_KIND_DECODE);
    if (sched->live == sched->options.sequences_max) return STATUS_FULL;
    const uint32_t index = sched->free_list[sched->options.sequences_max - sched->live - 1];
    struct sequence *seq = &sched->sequences[index];
    ASSERT(seq->state == SCHED_NONE);
    *seq = (struct sequence){ .kind = arrival->kind,
                              .tokens = arrival->tokens,
                              .priority = arrival->priority,
                              .tenant = arrival->tenant,
                              .order = arrival->order,
                              .offered = arrival->tokens };
    seq->stamp = fair_stamp(fair_of(sched, seq), arrival->tenant, arrival->tokens);
    set_state(sched, seq, SCHED_QUEUED);
    put_in_order(sched, index);
    *out = (struct sched_id){ index };
    return STATUS_OK;
}

void sched_loading(struct sched *sched, struct sched_id id)
{
    struct sequence *seq = get(sched, id);
    ASSERT(seq->kind == SCHED_KIND_PREFILL && !seq->in_step);
    seq->computed = 0;
    seq->alone = false;
    set_state(sched, seq, SCHED_LOADING);
}

void sched_ready(struct sched *sched, struct sched_id id, uint32_t computed, bool alone)
{
    struct sequence *seq = get(sched, id);
    ASSERT(computed < seq->tokens);
    ASSERT(computed % sched->options.block_tokens == 0);
    if (seq->kind == SCHED_KIND_DECODE) {
        ASSERT(computed == 0 && !alone);
        fair_served(&sched->fair_decode, seq->stamp);
        set_state(sched, seq, SCHED_WAITING_KV);
        return;
    }
    seq->computed = computed;
    seq->alone = alone;
    set_state(sched, seq, SCHED_PREFILL);
}

void sched_loaded(struct sched *sched, struct sched_id id)
{
    struct sequence *seq = get(sched, id);
    ASSERT(seq->kind == SCHED_KIND_PREFILL);
    seq->alone = false;
}

void sched_offer(struct sched *sched, struct sched_id id, uint32_t until)
{
    struct sequence *seq = get(sched, id);
    ASSERT(seq->kind == SCHED_KIND_PREFILL && until <= seq->tokens);
    ASSERT(until == seq->tokens || until % sched->options.block_tokens == 0);
    seq->offered = until;
}

void sched_compute(struct sched *sched, struct sched_id id, uint32_t computed)
{
    struct sequence *seq = get(sched, id);
    ASSERT(seq->kind == SCHED_KIND_DECODE && seq->state == SCHED_WAITING_KV);
    ASSERT(computed < seq->tokens && computed % sched->options.block_tokens == 0);
    seq->computed = computed;
    set_state(sched, seq, SCHED_PREFILL);
}

enum status sched_decode(struct sched *sched, struct sched_id id)
{
    struct sequence *seq = get(sched, id);
    ASSERT(seq->kind == SCHED_KIND_DECODE);
    if (sched->decoding == sched->options.decode_max) return STATUS_FULL;
    set_state(sched, seq, SCHED_DECODE);
    seq->computed = seq->tokens;
    seq->tokens++; /* the first token, sampled where the prompt was computed */
    return STATUS_OK;
}

void sched_end(struct sched *sched, struct sched_id id, enum sched_state end)
{
    ASSERT(is_over(end));
    set_state(sched, get(sched, id), end);
}

void sched_remove(struct sched *sched, struct sched_id id)
{
    struct sequence *seq = get(sched, id);
    uint32_t at = 0;

    ASSERT(!seq->in_step);
    set_state(sched, seq, SCHED_NONE);
    while (sched->order[at] != id.index)
        at++;
    ASSERT(at < sched->live);
    memmove(&sched->order[at], &sched->order[at + 1],
            (sched->live - at - 1) * sizeof(*sched->order));
    sched->live--;
    sched->free_list[sched->options.sequences_max - sched->live - 1] = id.index;
}

/* ---- steps ---- */

static void add_item(struct sched *sched, struct sched_step *step, uint32_t index, uint32_t rows)
{
    struct sequence *seq = &sched->sequences[index];
    const bool decode = seq->state == SCHED_DECODE;

    ASSERT(rows >= 1 && step->rows + rows <= sched->options.rows_max);
    ASSERT(seq->computed + rows <= seq->tokens);
    step->items[step->items_count++] = (struct sched_item){
        .id = { index },
        .kind = seq->kind,
        .position = seq->computed,
        .rows = rows,
        .prompt = !decode,
        .last = seq->computed + rows == seq->tokens,
        .needs_page = decode && seq->computed % sched->options.block_tokens == 0,
    };
    step->rows += rows;
}

/* One row for each that decodes. False if pages_free do not suffice. */
static bool pick_decode(struct sched *sched, uint32_t pages_free, struct sched_step *step)
{
    for (uint32_t i = 0; i < sched->live; i++) {
        const uint32_t index = sched->order[i];
        if (sched->sequences[index].state != SCHED_DECODE) continue;
        add_item(sched, step, index, 1);
        if (!step->items[step->items_count - 1].needs_page) continue;
        if (pages_free == 0) return false;
        pages_free--;
    }
    return true;
}

/* How many rows of `seq` fit in `room`, ending on a block boundary unless they end the prompt, or
 * what is offered of it (I5). */
static uint32_t chunk_rows(const struct sched *sched, const struct sequence *seq, uint32_t room)
{
    if (seq->offered <= seq->computed) return 0;
    const uint32_t rest = seq->offered - seq->computed;
    if (rest <= room) return rest;
    return room - room % sched->options.block_tokens;
}

static void pick_prefill(struct sched *sched, struct sched_step *step)
{
    for (uint32_t i = 0; i < sched->live; i++) {
        const uint32_t index = sched->order[i];
        const struct sequence *seq = &sched->sequences[index];
        if (seq->state != SCHED_PREFILL || seq->alone) continue;
        const uint32_t rows = chunk_rows(sched, seq, sched->options.rows_max - step->rows);
        if (rows == 0) return;
        add_item(sched, step, index, rows);
        if (seq->computed + rows == seq->tokens && step->rows >= SCHED_FILL_ROWS) return;
    }
}

/* The first prompt, if it has to be alone. Others take turns with it (I6). */
static bool pick_alone(struct sched *sched, struct sched_step *step)
{
    if (sched->last_alone && sched->decoding > 0) return false;
    for (uint32_t i = 0; i < sched->live; i++) {
        const uint32_t index = sched->order[i];
        const struct sequence *seq = &sched->sequences[index];
        if (seq->state != SCHED_PREFILL) continue;
        if (!seq->alone) return false; /* another one goes first */
        const uint32_t rows = chunk_rows(sched, seq, sched->options.rows_max);
        if (rows == 0) continue; /* it waits for more to be offered */
        add_item(sched, step, index, rows);
        return true;
    }
    return false;
}

static uint32_t last_decoding(const struct sched *sched)
{
    for (uint32_t i = sched->live; i > 0; i--) {
        const uint32_t index = sched->order[i - 1];
        if (sched->sequences[index].state == SCHED_DECODE) return index;
    }
    ASSERT(false);
    return 0;
}

enum sched_pick sched_pick(struct sched *sched, uint32_t pages_free, struct sched_step *step)
{
    ASSERT(!sched->step_under_way);
    step->items_count = 0;
    step->rows = 0;
    const bool alone = pick_alone(sched, step);
    if (!alone) {
        if (!pick_decode(sched, pages_free, step)) {
            step->items_count = 1;
            step->rows = 0;
            step->items[0] =
                (struct sched_item){ .id = { last_decoding(sched) }, .kind = SCHED_KIND_DECODE };
            return SCHED_PICK_PREEMPT;
        }
        pick_prefill(sched, step);
    }
    if (step->items_count == 0) return SCHED_PICK_IDLE;
    for (uint32_t i = 0; i < step->items_count; i++) {
        struct sequence *seq = get(sched, step->items[i].id);
        ASSERT(!seq->in_step);
        seq->in_step = true;
        seq->begun = true;
        if (seq->kind == SCHED_KIND_PREFILL) fair_served(&sched->fair_prefill, seq->stamp);
    }
    sched->step_under_way = true;
    sched->last_alone = alone;
    return SCHED_PICK_STEP;
}

static void advance(struct sched *sched, struct sequence *seq, const struct sched_item *item)
{
    ASSERT(seq->computed == item->position);
    seq->computed += item->rows;
    ASSERT(seq->computed <= seq->tokens);
    if (seq->state == SCHED_DECODE) {
        seq->tokens++;
        ASSERT(seq->computed == seq->tokens - 1);
    } else if (seq->computed == seq->tokens) {
        set_state(sched, seq, seq->kind == SCHED_KIND_PREFILL ? SCHED_PUSHING : SCHED_WAITING_KV);
    }
}

void sched_step_done(struct sched *sched, const struct sched_step *step, bool computed)
{
    ASSERT(sched->step_under_way);
    for (uint32_t i = 0; i < step->items_count; i++) {
        struct sequence *seq = get(sched, step->items[i].id);
        ASSERT(seq->in_step);
        seq->in_step = false;
        const bool goes_on = seq->state == SCHED_PREFILL || seq->state == SCHED_DECODE;
        if (computed && goes_on) advance(sched, seq, &step->items[i]);
    }
    sched->step_under_way = false;
}

/* ---- views ---- */

enum sched_state sched_state(const struct sched *sched, struct sched_id id)
{
    return get(sched, id)->state;
}

bool sched_in_step(const struct sched *sched, struct sched_id id)
{
    return get(sched, id)->in_step;
}

uint32_t sched_tokens(const struct sched *sched, struct sched_id id)
{
    return get(sched, id)->tokens;
}

uint32_t sched_computed(const struct sched *sched, struct sched_id id)
{
    return get(sched, id)->computed;
}

bool sched_queued(const struct sched *sched, uint32_t nth, struct sched_id *out)
{
    for (uint32_t i = 0; i < sched->live; i++) {
        if (sched->sequences[sched->order[i]].state != SCHED_QUEUED) continue;
        if (nth-- > 0) continue;
        *out = (struct sched_id){ sched->order[i] };
        return true;
    }
    return false;
}

void sched_counts(const struct sched *sched, struct sched_counts *out)
{
    memset(out, 0, sizeof(*out));
    out->states[SCHED_NONE] = sched->options.sequences_max - sched->live;
    for (uint32_t i = 0; i < sched->live; i++) {
        const struct sequence *seq = &sched->sequences[sched->order[i]];
        out->states[seq->state]++;
        if (seq->kind != SCHED_KIND_PREFILL && seq->state != SCHED_PREFILL) continue;
        if (seq->state <= SCHED_PREFILL) out->tokens_to_compute += seq->tokens - seq->computed;
    }
    ASSERT(out->states[SCHED_DECODE] == sched->decoding);
}
