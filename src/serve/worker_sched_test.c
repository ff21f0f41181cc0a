/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_sched_test.c
 *
 * Goal:   the scheduler never loses a sequence, never exceeds a limit, computes every row exactly
 *         once and in order, starves nobody.
 * Method: small cases by hand, then a seeded random walk beside a model that keeps, per sequence,
 *         nothing but which rows have been computed. SEED=n replays a walk. */
#include "serve/worker_sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

enum { BLOCK = 16, ROWS = 64, SEQUENCES = 24, DECODES = 8 };

static struct sched *sched_new(void)
{
    struct sched *sched;
    const struct sched_options options = {
        .sequences_max = SEQUENCES, .decode_max = DECODES, .rows_max = ROWS, .block_tokens = BLOCK
    };
    assert_int_equal(sched_create(&options, &sched), STATUS_OK);
    return sched;
}

static struct sched_id add(struct sched *sched, enum sched_kind kind, uint32_t tokens)
{
    const struct sched_arrival arrival = { .kind = kind, .tokens = tokens };
    struct sched_id id;
    assert_int_equal(sched_add(sched, &arrival, &id), STATUS_OK);
    return id;
}

/* Prompts that are ready to be computed. */
static struct sched_id ordered(struct sched *sched, uint32_t tokens, int priority, uint64_t tenant,
                               uint64_t order)
{
    const struct sched_arrival arrival = { SCHED_KIND_PREFILL, tokens, priority, tenant, order };
    struct sched_id id;
    assert_int_equal(sched_add(sched, &arrival, &id), STATUS_OK);
    sched_ready(sched, id, 0, false);
    return id;
}

static struct sched_id prompt(struct sched *sched, uint32_t tokens, int priority, uint64_t tenant)
{
    return ordered(sched, tokens, priority, tenant, 0);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct sched *sched = NULL;
    struct sched_options options = {
        .sequences_max = 4, .decode_max = ROWS, .rows_max = ROWS, .block_tokens = BLOCK
    };
    assert_int_equal(sched_create(&options, &sched), STATUS_INVALID); /* no room for a chunk */
    options.decode_max = 4;
    options.sequences_max = 0;
    assert_int_equal(sched_create(&options, &sched), STATUS_INVALID);
    options.sequences_max = 4;
    options.rows_max = SCHED_ROWS_MAX + 1;
    assert_int_equal(sched_create(&options, &sched), STATUS_INVALID);
    assert_null(sched);
}

static void prompt_is_cut_in_chunks_that_end_on_blocks(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id decode = add(sched, SCHED_KIND_DECODE, 5);
    const struct sched_id prompt = add(sched, SCHED_KIND_PREFILL, 86);

    sched_ready(sched, decode, 0, false);
    assert_int_equal(sched_decode(sched, decode), STATUS_OK);
    sched_ready(sched, prompt, BLOCK, false);

    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_int_equal(step.items_count, 2);
    assert_int_equal(step.items[0].rows, 1);
    assert_int_equal(step.items[0].position, 5);
    assert_true(step.items[0].last);
    assert_false(step.items[0].needs_page);
    assert_int_equal(step.items[1].position, BLOCK);
    assert_int_equal(step.items[1].rows, 3 * BLOCK); /* 63 are free, 70 are left */
    assert_false(step.items[1].last);
    sched_step_done(sched, &step, true);

    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_int_equal(step.items[1].position, 4 * BLOCK);
    assert_int_equal(step.items[1].rows, 22);
    assert_true(step.items[1].last);
    sched_step_done(sched, &step, true);
    assert_int_equal(sched_state(sched, prompt), SCHED_PUSHING);
    assert_int_equal(sched_tokens(sched, decode), 8);
    assert_int_equal(sched_computed(sched, decode), 7);
    sched_destroy(sched);
}

static void a_step_given_up_advances_nothing(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id id = add(sched, SCHED_KIND_PREFILL, 40);

    sched_loading(sched, id);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_IDLE);
    sched_ready(sched, id, 2 * BLOCK, true);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_true(sched_in_step(sched, id));
    sched_step_done(sched, &step, false);
    assert_false(sched_in_step(sched, id));
    assert_int_equal(sched_computed(sched, id), 2 * BLOCK);
    sched_loading(sched, id); /* what it relied on did not arrive */
    sched_ready(sched, id, 0, false);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_int_equal(step.items[0].rows, 40);
    sched_step_done(sched, &step, true);
    sched_end(sched, id, SCHED_FINISHED);
    sched_remove(sched, id);
    sched_destroy(sched);
}

static void who_must_be_alone_takes_turns_with_decode(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id decode = add(sched, SCHED_KIND_DECODE, 5);
    const struct sched_id alone = add(sched, SCHED_KIND_PREFILL, 10 * ROWS);

    sched_ready(sched, decode, 0, false);
    assert_int_equal(sched_decode(sched, decode), STATUS_OK);
    sched_ready(sched, alone, BLOCK, true);
    for (int turn = 0; turn < 6; turn++) {
        const struct sched_id expected = turn % 2 == 0 ? alone : decode;
        assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
        assert_int_equal(step.items_count, 1);
        assert_int_equal(step.items[0].id.index, expected.index);
        sched_step_done(sched, &step, true);
    }
    sched_loaded(sched, alone);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_int_equal(step.items_count, 2);
    sched_step_done(sched, &step, true);
    sched_destroy(sched);
}

/* Only what is offered is computed; meanwhile others go on, whoever came first. */
static void what_is_not_offered_waits(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id stage = add(sched, SCHED_KIND_PREFILL, 2 * ROWS + 5);
    const struct sched_id other = add(sched, SCHED_KIND_PREFILL, 3 * ROWS);

    sched_ready(sched, stage, 0, true);
    sched_ready(sched, other, 0, false);
    sched_offer(sched, stage, 0);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_int_equal(step.items_count, 1);
    assert_int_equal(step.items[0].id.index, other.index);
    sched_offer(sched, stage, 2 * BLOCK); /* also while a step is under way */
    sched_step_done(sched, &step, true);
    for (int turn = 0; turn < 2; turn++) {
        assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
        assert_int_equal(step.items_count, 1);
        assert_int_equal(step.items[0].id.index, turn == 0 ? stage.index : other.index);
        if (turn == 0) assert_int_equal(step.items[0].rows, 2 * BLOCK);
        sched_step_done(sched, &step, true);
    }
    sched_offer(sched, stage, 2 * ROWS + 5);
    for (uint32_t at = 2 * BLOCK; at < 2 * ROWS + 5; at += step.items[0].rows) {
        assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
        assert_int_equal(step.items[0].id.index, stage.index);
        assert_int_equal(step.items[0].position, at);
        sched_step_done(sched, &step, true);
    }
    assert_int_equal(sched_state(sched, stage), SCHED_PUSHING);
    sched_destroy(sched);
}

static void youngest_goes_when_pages_run_out(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id older = add(sched, SCHED_KIND_DECODE, BLOCK);
    const struct sched_id younger = add(sched, SCHED_KIND_DECODE, BLOCK);

    sched_ready(sched, older, 0, false);
    sched_ready(sched, younger, 0, false);
    assert_int_equal(sched_decode(sched, younger), STATUS_OK);
    assert_int_equal(sched_decode(sched, older), STATUS_OK);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_PREEMPT);
    assert_int_equal(step.items[0].id.index, younger.index);
    sched_end(sched, younger, SCHED_FAILED);
    sched_remove(sched, younger);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_true(step.items[0].needs_page);
    sched_step_done(sched, &step, true);
    assert_int_equal(sched_pick(sched, 0, &step), SCHED_PICK_STEP); /* the page has room */
    sched_step_done(sched, &step, true);
    sched_destroy(sched);
}

/* The end of a prompt does not wait for the beginning of the next, unless both are short. */
static void the_end_of_a_prompt_is_not_kept_waiting(void **state)
{
    (void)state;
    const struct sched_options options = {
        .sequences_max = 8, .decode_max = 4, .rows_max = 256, .block_tokens = BLOCK
    };
    struct sched *sched = NULL;
    struct sched_step step;

    assert_int_equal(sched_create(&options, &sched), STATUS_OK);
    (void)prompt(sched, 256 + SCHED_FILL_ROWS, 0, 0);
    (void)prompt(sched, 300, 0, 0);
    (void)prompt(sched, SCHED_FILL_ROWS / 2, 0, 0);
    (void)prompt(sched, SCHED_FILL_ROWS / 2 - 1, 0, 0);
    const uint32_t rows[] = { 256, SCHED_FILL_ROWS, 256, 44 + SCHED_FILL_ROWS / 2,
                              SCHED_FILL_ROWS / 2 - 1 };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
        assert_int_equal(step.rows, rows[i]);
        sched_step_done(sched, &step, true);
    }
    sched_destroy(sched);
}

static struct sched_id first_of_step(struct sched *sched)
{
    static struct sched_step step;
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    sched_step_done(sched, &step, true);
    return step.items[0].id;
}

static void higher_priority_goes_before_the_next_chunk(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    const struct sched_id low = prompt(sched, 3 * ROWS, -1, 0);
    const struct sched_id normal = prompt(sched, 2 * ROWS, 0, 0);

    assert_int_equal(first_of_step(sched).index, normal.index);
    const struct sched_id high = prompt(sched, 2 * ROWS, 2, 0);
    assert_int_equal(first_of_step(sched).index, high.index);
    assert_int_equal(first_of_step(sched).index, high.index);
    assert_int_equal(first_of_step(sched).index, normal.index);
    assert_int_equal(first_of_step(sched).index, low.index);
    const struct sched_arrival waiting = { SCHED_KIND_PREFILL, 10, 1, 0, 0 };
    struct sched_id id, found;
    const struct sched_id later = add(sched, SCHED_KIND_PREFILL, 10);
    assert_int_equal(sched_add(sched, &waiting, &id), STATUS_OK);
    assert_true(sched_queued(sched, 0, &found)); /* for pages too */
    assert_int_equal(found.index, id.index);
    assert_true(sched_queued(sched, 1, &found));
    assert_int_equal(found.index, later.index);
    sched_destroy(sched);
}

/* One tenant fills the queue; another one's short prompt waits for one of its, not for all. */
static void tenants_get_equal_tokens(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_id greedy[6];

    for (int i = 0; i < 6; i++)
        greedy[i] = prompt(sched, 2 * ROWS, 0, 1);
    assert_int_equal(first_of_step(sched).index, greedy[0].index);
    const struct sched_id first = prompt(sched, ROWS, 0, 2), second = prompt(sched, ROWS, 0, 2);
    const struct sched_id third = prompt(sched, ROWS, 0, 2);
    assert_int_equal(first_of_step(sched).index, greedy[0].index); /* what has begun is finished */
    assert_int_equal(first_of_step(sched).index, first.index);
    assert_int_equal(first_of_step(sched).index, second.index);
    assert_int_equal(first_of_step(sched).index, greedy[1].index);
    assert_int_equal(first_of_step(sched).index, greedy[1].index);
    assert_int_equal(first_of_step(sched).index, third.index);
    assert_int_equal(first_of_step(sched).index, greedy[2].index);
    sched_destroy(sched);
}

/* A tenant's turns are its own: the prompt with the least order takes the next one, what has begun
 * is finished, and other tenants and priorities are served as if the order were another. */
static void turns_go_to_the_least_order(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    const struct sched_id begun = ordered(sched, 2 * ROWS, 0, 1, 90);

    assert_int_equal(first_of_step(sched).index, begun.index);
    const struct sched_id late = ordered(sched, ROWS, 0, 1, 80);
    const struct sched_id other = ordered(sched, ROWS, 0, 2, 95);
    const struct sched_id low = ordered(sched, ROWS, -1, 1, 1);
    const struct sched_id soon = ordered(sched, ROWS, 0, 1, 70);
    const struct sched_id same = ordered(sched, ROWS, 0, 1, 70);
    const struct sched_id want[] = { begun, other, soon, same, late, low };
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_int_equal(first_of_step(sched).index, want[i].index);
    sched_destroy(sched);
}

/* A decode node computes a prompt itself: rows beside decode rows, and then it waits to decode. */
static void a_prompt_is_computed_where_it_decodes(void **state)
{
    (void)state;
    struct sched *sched = sched_new();
    struct sched_step step;
    const struct sched_id decode = add(sched, SCHED_KIND_DECODE, 5);
    const struct sched_id both = add(sched, SCHED_KIND_DECODE, 2 * BLOCK + 70);

    sched_ready(sched, decode, 0, false);
    assert_int_equal(sched_decode(sched, decode), STATUS_OK);
    sched_ready(sched, both, 0, false);
    sched_compute(sched, both, 2 * BLOCK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
        assert_int_equal(step.items_count, 2);
        assert_false(step.items[0].prompt);
        assert_true(step.items[1].prompt);
        assert_int_equal(step.items[1].kind, SCHED_KIND_DECODE);
        assert_false(step.items[1].needs_page);
        assert_true(step.items[1].last == (i == 1)); /* 48 rows, and 22 */
        sched_step_done(sched, &step, true);
    }
    assert_int_equal(sched_state(sched, both), SCHED_WAITING_KV);
    assert_int_equal(sched_decode(sched, both), STATUS_OK);
    assert_int_equal(sched_pick(sched, 1, &step), SCHED_PICK_STEP);
    assert_false(step.items[1].prompt);
    assert_int_equal(step.items[1].position, 2 * BLOCK + 70);
    sched_step_done(sched, &step, true);
    sched_destroy(sched);
}

/* ---- the walk ---- */

struct model_sequence {
    bool used;
    enum sched_kind kind;
    uint32_t tokens;
    int priority;
    uint64_t tenant, order;
    bool begun;         /* has been in a step */
    bool alone;         /* perhaps */
    uint32_t rows_done; /* the next row that must be computed */
    uint32_t waited;    /* steps without a row though it could have had one */
};

struct walk {
    struct rng rng;
    struct sched *sched;
    struct model_sequence model[SEQUENCES];
    struct sched_step step;
    bool under_way;
    uint32_t used;
};

static uint32_t below(struct walk *walk, uint32_t limit)
{
    return (uint32_t)rng_below(&walk->rng, limit);
}

static void walk_add(struct walk *walk)
{
    struct sched_id id;
    const enum sched_kind kind = below(walk, 2) == 0 ? SCHED_KIND_PREFILL : SCHED_KIND_DECODE;
    const uint32_t tokens = 1 + below(walk, 5 * ROWS);
    const struct sched_arrival arrival = { kind, tokens, (int)below(walk, 3) - 1, below(walk, 3),
                                           below(walk, 40) };
    const enum status status = sched_add(walk->sched, &arrival, &id);
    if (walk->used == SEQUENCES) {
        assert_int_equal(status, STATUS_FULL);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_false(walk->model[id.index].used);
    walk->model[id.index] = (struct model_sequence){
        .used = true,
        .kind = kind,
        .tokens = tokens,
        .priority = arrival.priority,
        .tenant = arrival.tenant,
        .order = arrival.order,
    };
    walk->used++;
}

static void walk_ready(struct walk *walk, struct sched_id id, struct model_sequence *m)
{
    if (m->kind == SCHED_KIND_DECODE) {
        sched_ready(walk->sched, id, 0, false);
        return;
    }
    const uint32_t reuse = below(walk, (m->tokens - 1) / BLOCK + 1) * BLOCK;
    m->alone = below(walk, 3) == 0;
    sched_ready(walk->sched, id, reuse, m->alone);
    m->rows_done = reuse;
}

static void walk_decode(struct walk *walk, struct sched_id id, struct model_sequence *m)
{
    struct sched_counts counts;
    sched_counts(walk->sched, &counts);
    const enum status status = sched_decode(walk->sched, id);
    if (counts.states[SCHED_DECODE] == DECODES) {
        assert_int_equal(status, STATUS_FULL);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    m->rows_done = m->tokens++;
}

static void walk_event(struct walk *walk, uint32_t index)
{
    struct model_sequence *m = &walk->model[index];
    const struct sched_id id = { index };
    if (!m->used) return;
    const bool ends = below(walk, 8) == 0;
    switch (sched_state(walk->sched, id)) {
    case SCHED_NONE: fail(); break;
    case SCHED_QUEUED:
        if (ends) {
            sched_end(walk->sched, id, SCHED_CANCELLED);
        } else if (m->kind == SCHED_KIND_PREFILL && below(walk, 2) == 0) {
            sched_loading(walk->sched, id);
        } else {
            walk_ready(walk, id, m);
        }
        break;
    case SCHED_LOADING:
        if (ends) {
            sched_end(walk->sched, id, SCHED_FAILED);
        } else {
            walk_ready(walk, id, m);
        }
        break;
    case SCHED_PREFILL:
        if (ends) {
            sched_end(walk->sched, id, SCHED_CANCELLED);
        } else if (m->kind == SCHED_KIND_DECODE) {
            break; /* nothing is on the way */
        } else if (below(walk, 4) == 0) {
            sched_loaded(walk->sched, id);
        } else if (below(walk, 8) == 0 && !sched_in_step(walk->sched, id)) {
            sched_loading(walk->sched, id);
            m->rows_done = 0;
        }
        break;
    case SCHED_WAITING_KV:
        if (ends) {
            sched_end(walk->sched, id, SCHED_FINISHED);
        } else if (m->rows_done < m->tokens && below(walk, 2) == 0) {
            m->rows_done = below(walk, (m->tokens - 1) / BLOCK + 1) * BLOCK;
            sched_compute(walk->sched, id, m->rows_done);
        } else {
            walk_decode(walk, id, m);
        }
        break;
    case SCHED_PUSHING:
    case SCHED_DECODE:
        if (ends) sched_end(walk->sched, id, below(walk, 2) ? SCHED_FINISHED : SCHED_FAILED);
        break;
    case SCHED_FINISHED:
    case SCHED_CANCELLED:
    case SCHED_FAILED:
        if (sched_in_step(walk->sched, id)) break;
        sched_remove(walk->sched, id);
        m->used = false;
        walk->used--;
        break;
    }
}

static void check_step(struct walk *walk)
{
    bool seen[SEQUENCES] = { false };
    uint32_t rows = 0;

    assert_in_range(walk->step.items_count, 1, SEQUENCES);
    for (uint32_t i = 0; i < walk->step.items_count; i++) {
        const struct sched_item *item = &walk->step.items[i];
        struct model_sequence *m = &walk->model[item->id.index];
        assert_false(seen[item->id.index]);
        seen[item->id.index] = true;
        assert_int_equal(item->position, m->rows_done);
        assert_true(m->used && item->rows >= 1);
        const uint32_t end = item->position + item->rows;
        assert_true(end <= m->tokens);
        assert_true(item->last == (end == m->tokens));
        if (!item->last) assert_int_equal(end % BLOCK, 0);
        rows += item->rows;
    }
    assert_int_equal(rows, walk->step.rows);
    assert_true(rows <= ROWS);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        struct model_sequence *m = &walk->model[i];
        const bool waits =
            m->used && !seen[i] && sched_state(walk->sched, (struct sched_id){ i }) == SCHED_DECODE;
        m->waited = waits ? m->waited + 1 : 0;
        assert_true(m->waited <= 1); /* I6 */
    }
}

/* No prompt is computed while one of higher priority is left out. */
static void check_priorities(struct walk *walk)
{
    for (uint32_t i = 0; i < walk->step.items_count; i++) {
        const struct sched_item *item = &walk->step.items[i];
        if (item->kind != SCHED_KIND_PREFILL) continue;
        for (uint32_t k = 0; k < SEQUENCES; k++) {
            const struct model_sequence *m = &walk->model[k];
            const struct sched_id id = { k };
            if (!m->used || m->alone || m->priority <= walk->model[item->id.index].priority)
                continue;
            if (sched_state(walk->sched, id) == SCHED_PREFILL)
                assert_true(sched_in_step(walk->sched, id));
        }
    }
}

/* No prompt begins while another of its tenant and priority, that might, has a lesser order. */
static void check_order(struct walk *walk)
{
    for (uint32_t i = 0; i < walk->step.items_count; i++) {
        const struct sched_item *item = &walk->step.items[i];
        const struct model_sequence *m = &walk->model[item->id.index];
        if (item->kind != SCHED_KIND_PREFILL || m->begun) continue;
        for (uint32_t k = 0; k < SEQUENCES; k++) {
            const struct model_sequence *o = &walk->model[k];
            if (!o->used || o->begun || o->alone || o->kind != SCHED_KIND_PREFILL) continue;
            if (o->tenant != m->tenant || o->priority != m->priority || o->order >= m->order)
                continue;
            if (sched_state(walk->sched, (struct sched_id){ k }) == SCHED_PREFILL)
                assert_true(sched_in_step(walk->sched, (struct sched_id){ k }));
        }
    }
    for (uint32_t i = 0; i < walk->step.items_count; i++)
        walk->model[walk->step.items[i].id.index].begun = true;
}

static void walk_step(struct walk *walk)
{
    if (!walk->under_way) {
        const enum sched_pick pick = sched_pick(walk->sched, below(walk, 6), &walk->step);
        if (pick == SCHED_PICK_PREEMPT) {
            sched_end(walk->sched, walk->step.items[0].id, SCHED_FAILED);
        } else if (pick == SCHED_PICK_STEP) {
            check_step(walk);
            check_priorities(walk);
            check_order(walk);
            walk->under_way = true;
        }
        return;
    }
    const bool computed = below(walk, 6) != 0;
    bool live[SEQUENCES] = { false };
    for (uint32_t i = 0; i < walk->step.items_count; i++) {
        const enum sched_state state = sched_state(walk->sched, walk->step.items[i].id);
        live[i] = state == SCHED_PREFILL || state == SCHED_DECODE;
    }
    sched_step_done(walk->sched, &walk->step, computed);
    walk->under_way = false;
    for (uint32_t i = 0; i < walk->step.items_count; i++) {
        const struct sched_item *item = &walk->step.items[i];
        struct model_sequence *m = &walk->model[item->id.index];
        if (!computed || !live[i]) continue;
        m->rows_done += item->rows;
        if (!item->prompt) m->tokens++;
        assert_int_equal(sched_computed(walk->sched, item->id), m->rows_done);
        assert_int_equal(sched_tokens(walk->sched, item->id), m->tokens);
        const bool pushing = sched_state(walk->sched, item->id) == SCHED_PUSHING;
        assert_true(pushing == (item->kind == SCHED_KIND_PREFILL && m->rows_done == m->tokens));
    }
}

static void walk_matches_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 20261122;
    printf("seed %llu\n", (unsigned long long)seed);
    static struct walk walk;
    rng_init(&walk.rng, seed);
    walk.sched = sched_new();
    uint32_t steps = 0;
    for (int turn = 0; turn < 200000; turn++) {
        const uint32_t dice = below(&walk, 8);
        if (dice == 0) {
            walk_add(&walk);
        } else if (dice < 4) {
            walk_event(&walk, below(&walk, SEQUENCES));
        } else {
            steps += walk.under_way ? 0 : 1;
            walk_step(&walk);
        }
    }
    assert_true(steps > 10000);
    sched_destroy(walk.sched);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(prompt_is_cut_in_chunks_that_end_on_blocks),
        cmocka_unit_test(a_step_given_up_advances_nothing),
        cmocka_unit_test(who_must_be_alone_takes_turns_with_decode),
        cmocka_unit_test(what_is_not_offered_waits),
        cmocka_unit_test(youngest_goes_when_pages_run_out),
        cmocka_unit_test(higher_priority_goes_before_the_next_chunk),
        cmocka_unit_test(tenants_get_equal_tokens),
        cmocka_unit_test(turns_go_to_the_least_order),
        cmocka_unit_test(a_prompt_is_computed_where_it_decodes),
        cmocka_unit_test(the_end_of_a_prompt_is_not_kept_waiting),
        cmocka_unit_test(walk_matches_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
