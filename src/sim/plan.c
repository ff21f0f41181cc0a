/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { NONE = -1, LINE_POINTS = 3 };

enum state { OPEN = 0, SIMULATED, WEAKER, DEARER, SHORTER };

const char *const plan_choices[PLAN_CHOICES] = { "prefill", "decode", "dram_gb", "ssd_gb",
                                                 "nic_gbps" };

struct search {
    const struct plan_space *space;
    const struct plan_oracle *oracle;
    struct errmsg *err;
    uint32_t total, open;
    uint8_t *states;       /* enum state, by number of the cluster */
    int32_t *row_of;       /* by number of the cluster, or NONE */
    struct plan_row *rows; /* what was asked */
    uint32_t rows_count, rows_cap;
    int32_t best; /* row, or NONE */
    struct plan_counts counts;
};

/* ---- the grid ---- */

double plan_value(const struct plan_space *space, const struct plan_config *config,
                  enum plan_choice choice)
{
    ASSERT(config->steps[choice] < space->counts[choice]);
    return space->values[choice][config->steps[choice]];
}

double plan_cost(const struct plan_space *space, const struct plan_config *config)
{
    const struct plan_prices *prices = &space->prices;
    const double nic = prices->nic_gbps * plan_value(space, config, PLAN_NIC);
    const double prefill = prices->prefill_node + nic +
                           prices->dram_gb * plan_value(space, config, PLAN_DRAM) +
                           prices->ssd_gb * plan_value(space, config, PLAN_SSD);

    return plan_value(space, config, PLAN_PREFILL) * prefill +
           plan_value(space, config, PLAN_DECODE) * (prices->decode_node + nic);
}

static uint32_t number_of(const struct plan_space *space, const struct plan_config *config)
{
    uint32_t number = 0;
    for (int c = 0; c < PLAN_CHOICES; c++)
        number = number * space->counts[c] + config->steps[c];
    return number;
}

static struct plan_config config_at(const struct plan_space *space, uint32_t number)
{
    struct plan_config config;
    for (int c = PLAN_CHOICES; c-- > 0; number /= space->counts[c])
        config.steps[c] = number % space->counts[c];
    return config;
}

static bool is_weaker(const struct plan_config *a, const struct plan_config *b)
{
    for (int c = 0; c < PLAN_CHOICES; c++) {
        if (a->steps[c] > b->steps[c]) return false;
    }
    return true;
}

static struct plan_config largest(const struct plan_space *space)
{
    struct plan_config config;
    for (int c = 0; c < PLAN_CHOICES; c++)
        config.steps[c] = space->counts[c] - 1;
    return config;
}

/* ---- what is known ---- */

static void decide(struct search *s, uint32_t number, enum state state)
{
    ASSERT(s->states[number] == OPEN && state != OPEN);
    s->states[number] = (uint8_t)state;
    s->open--;
    switch (state) {
    case SIMULATED: s->counts.simulated++; return;
    case WEAKER: s->counts.weaker++; return;
    case DEARER: s->counts.dearer++; return;
    case SHORTER: s->counts.shorter++; return;
    case OPEN: break;
    }
}

static void close_weaker(struct search *s, const struct plan_config *missed)
{
    const uint32_t last = number_of(s->space, missed); /* none weaker has a larger number */

    for (uint32_t i = 0; i <= last; i++) {
        if (s->states[i] != OPEN) continue;
        const struct plan_config config = config_at(s->space, i);
        if (is_weaker(&config, missed)) decide(s, i, WEAKER);
    }
}

static void close_dearer(struct search *s, double cost)
{
    for (uint32_t i = 0; i < s->total; i++) {
        if (s->states[i] != OPEN) continue;
        const struct plan_config config = config_at(s->space, i);
        if (plan_cost(s->space, &config) >= cost) decide(s, i, DEARER);
    }
}

static void close_shorter(struct search *s, const double floors[2])
{
    for (uint32_t i = 0; i < s->total; i++) {
        const struct plan_config config = config_at(s->space, i);
        if (plan_value(s->space, &config, PLAN_PREFILL) < floors[0] ||
            plan_value(s->space, &config, PLAN_DECODE) < floors[1])
            decide(s, i, SHORTER);
    }
}

static bool is_better(const struct plan_row *a, const struct plan_row *b)
{
    if (a->cost < b->cost) return true;
    return !(a->cost > b->cost) && a->score.good > b->score.good;
}

static void learn(struct search *s, uint32_t index)
{
    const struct plan_row *row = &s->rows[index];

    if (!row->score.meets) {
        if (!row->score.nearly) close_weaker(s, &row->config);
        return;
    }
    if (s->best != NONE && !is_better(row, &s->rows[s->best])) return;
    s->best = (int32_t)index;
    close_dearer(s, row->cost);
}

/* ---- asking ---- */

static enum status make_room(struct search *s)
{
    if (s->rows_count + PLAN_BATCH <= s->rows_cap) return STATUS_OK;
    const uint32_t cap = s->rows_cap * 2 + PLAN_BATCH;
    struct plan_row *rows = realloc(s->rows, cap * sizeof(*rows));
    if (rows == NULL) return errmsg_set(s->err, STATUS_NO_MEMORY, "not enough memory");
    s->rows = rows;
    s->rows_cap = cap;
    return STATUS_OK;
}

/* Asks about clusters that were not asked about yet. */
static enum status ask(struct search *s, const struct plan_config *configs, uint32_t count)
{
    struct plan_score scores[PLAN_BATCH];

    ASSERT(count > 0 && count <= PLAN_BATCH);
    enum status status = make_room(s);
    if (status == STATUS_OK)
        status = s->oracle->ask(s->oracle->ctx, configs, count, scores, s->err);
    if (status != STATUS_OK) return status;
    const uint32_t first = s->rows_count;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t number = number_of(s->space, &configs[i]);
        ASSERT(s->row_of[number] == NONE);
        s->row_of[number] = (int32_t)s->rows_count;
        s->rows[s->rows_count++] =
            (struct plan_row){ configs[i], plan_cost(s->space, &configs[i]), scores[i] };
        if (s->states[number] == OPEN)
            decide(s, number, SIMULATED);
        else
            s->counts.extra++;
    }
    for (uint32_t i = first; i < s->rows_count; i++)
        learn(s, i);
    if (s->oracle->progress != NULL)
        s->oracle->progress(s->oracle->ctx, s->total - s->open, s->total);
    return STATUS_OK;
}

/* Adds a cluster to a batch, unless it is there. */
static void add_once(const struct search *s, struct plan_config *batch, uint32_t *count,
                     const struct plan_config *config)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (number_of(s->space, &batch[i]) == number_of(s->space, config)) return;
    }
    batch[(*count)++] = *config;
}

/* ---- along one choice ---- */

/* Steps up to `lo` miss; from `hi` on they keep the limits or cost too much. */
struct line {
    struct plan_config config;
    enum plan_choice choice;
    int32_t lo, hi;
};

static struct line line_through(const struct plan_config *config, enum plan_choice choice,
                                const struct plan_space *space)
{
    return (struct line){ *config, choice, -1, (int32_t)space->counts[choice] };
}

static void look_at_line(const struct search *s, struct line *line)
{
    for (int32_t step = line->lo + 1; step < line->hi; step++) {
        line->config.steps[line->choice] = (uint32_t)step;
        const uint32_t number = number_of(s->space, &line->config);
        switch ((enum state)s->states[number]) {
        case OPEN: break;
        case WEAKER:
        case SHORTER: line->lo = step; break;
        case DEARER: line->hi = step; break;
        case SIMULATED:
            if (s->rows[s->row_of[number]].score.meets)
                line->hi = step;
            else
                line->lo = step;
            break;
        }
    }
}

static void add_line_points(const struct search *s, struct line *line, struct plan_config *batch,
                            uint32_t *count)
{
    const int32_t between = line->hi - line->lo - 1;
    const int32_t points = between < LINE_POINTS ? between : LINE_POINTS;

    for (int32_t i = 1; i <= points; i++) {
        const int32_t step = line->lo + (line->hi - line->lo) * i / (points + 1);
        line->config.steps[line->choice] = (uint32_t)(step > line->lo ? step : line->lo + 1);
        if (s->states[number_of(s->space, &line->config)] == OPEN)
            add_once(s, batch, count, &line->config);
    }
}

/* Narrows all lines until nothing on them is open. At most PLAN_BATCH / LINE_POINTS lines. */
static enum status bisect(struct search *s, struct line *lines, uint32_t lines_count)
{
    for (;;) {
        struct plan_config batch[PLAN_BATCH];
        uint32_t count = 0;
        ASSERT(lines_count * LINE_POINTS <= PLAN_BATCH);
        for (uint32_t i = 0; i < lines_count; i++) {
            look_at_line(s, &lines[i]);
            add_line_points(s, &lines[i], batch, &count);
        }
        if (count == 0) return STATUS_OK;
        const enum status status = ask(s, batch, count);
        if (status != STATUS_OK) return status;
    }
}

/* ---- the search ---- */

static enum status search_nodes_apart(struct search *s)
{
    const struct plan_config top = largest(s->space);
    struct line lines[2] = { line_through(&top, PLAN_PREFILL, s->space),
                             line_through(&top, PLAN_DECODE, s->space) };
    return bisect(s, lines, 2);
}

/* The next open clusters by cost with the largest sizes. */
static uint32_t cheapest_nodes(const struct search *s, struct plan_config batch[PLAN_BATCH])
{
    struct plan_config config = largest(s->space);
    double costs[PLAN_BATCH];
    uint32_t count = 0;

    for (uint32_t p = 0; p < s->space->counts[PLAN_PREFILL]; p++) {
        for (uint32_t d = 0; d < s->space->counts[PLAN_DECODE]; d++) {
            config.steps[PLAN_PREFILL] = p;
            config.steps[PLAN_DECODE] = d;
            if (s->states[number_of(s->space, &config)] != OPEN) continue;
            const double cost = plan_cost(s->space, &config);
            if (count == PLAN_BATCH && cost >= costs[count - 1]) continue;
            uint32_t at = count < PLAN_BATCH ? count++ : PLAN_BATCH - 1;
            for (; at > 0 && cost < costs[at - 1]; at--) {
                costs[at] = costs[at - 1];
                batch[at] = batch[at - 1];
            }
            costs[at] = cost;
            batch[at] = config;
        }
    }
    return count;
}

static enum status search_nodes_together(struct search *s)
{
    struct plan_config batch[PLAN_BATCH];

    for (;;) {
        const uint32_t count = cheapest_nodes(s, batch);
        if (count == 0) return STATUS_OK;
        const enum status status = ask(s, batch, count);
        if (status != STATUS_OK) return status;
    }
}

/* What the best would save at the lowest step of a choice. */
static double saving_of(const struct search *s, enum plan_choice choice)
{
    struct plan_config config = s->rows[s->best].config;
    const double cost = plan_cost(s->space, &config);
    config.steps[choice] = 0;
    return cost - plan_cost(s->space, &config);
}

static void order_by_saving(const struct search *s, enum plan_choice order[PLAN_CHOICES])
{
    for (int c = 0; c < PLAN_CHOICES; c++) {
        int at = c;
        for (; at > 0 && saving_of(s, order[at - 1]) < saving_of(s, (enum plan_choice)c); at--)
            order[at] = order[at - 1];
        order[at] = (enum plan_choice)c;
    }
}

/* Lowers one choice after another of the best, as long as one of them goes lower. */
static enum status descend(struct search *s)
{
    enum plan_choice order[PLAN_CHOICES];
    int32_t before;

    do {
        before = s->best;
        order_by_saving(s, order);
        for (int c = 0; c < PLAN_CHOICES; c++) {
            struct line line = line_through(&s->rows[s->best].config, order[c], s->space);
            const enum status status = bisect(s, &line, 1);
            if (status != STATUS_OK) return status;
        }
    } while (s->best != before);
    return STATUS_OK;
}

/* Open clusters that would decide most if they missed, none weaker than another. */
static uint32_t strongest(const struct search *s, struct plan_config batch[PLAN_BATCH])
{
    uint32_t count = 0;

    while (count < PLAN_BATCH) {
        struct plan_config best = { { 0 } };
        double most = 0;
        for (uint32_t i = 0; i < s->total; i++) {
            if (s->states[i] != OPEN) continue;
            const struct plan_config config = config_at(s->space, i);
            double volume = 1;
            for (int c = 0; c < PLAN_CHOICES; c++)
                volume *= config.steps[c] + 1;
            for (uint32_t b = 0; b < count && volume > most; b++) {
                if (is_weaker(&config, &batch[b])) volume = 0;
            }
            if (volume <= most) continue;
            most = volume;
            best = config;
        }
        if (most <= 0) break;
        batch[count++] = best;
    }
    return count;
}

static enum status decide_the_rest(struct search *s)
{
    struct plan_config batch[PLAN_BATCH];

    while (s->open > 0) {
        const int32_t before = s->best;
        enum status status = ask(s, batch, strongest(s, batch));
        if (status == STATUS_OK && s->best != before) status = descend(s);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status search(struct search *s)
{
    const struct plan_config top = largest(s->space);

    enum status status = ask(s, &top, 1);
    if (status == STATUS_OK) status = search_nodes_apart(s);
    if (status == STATUS_OK) status = search_nodes_together(s);
    if (status == STATUS_OK && s->best != NONE) status = descend(s);
    if (status == STATUS_OK) status = decide_the_rest(s);
    return status;
}

/* ---- what is told ---- */

static bool step_from(const struct search *s, enum plan_choice choice, int up,
                      struct plan_config *out)
{
    *out = s->rows[s->best].config;
    if (up ? out->steps[choice] + 1 == s->space->counts[choice] : out->steps[choice] == 0)
        return false;
    out->steps[choice] = up ? out->steps[choice] + 1 : out->steps[choice] - 1;
    return true;
}

/* Asks about those neighbours of the best that were not asked about yet. */
static enum status ask_steps(struct search *s)
{
    struct plan_config configs[2 * PLAN_CHOICES];
    uint32_t count = 0;
    enum status status = STATUS_OK;

    for (int i = 0; i < 2 * PLAN_CHOICES; i++) {
        if (!step_from(s, (enum plan_choice)(i / 2), i % 2, &configs[count])) continue;
        if (s->row_of[number_of(s->space, &configs[count])] == NONE) count++;
    }
    for (uint32_t i = 0; status == STATUS_OK && i < count; i += PLAN_BATCH)
        status = ask(s, &configs[i], count - i < PLAN_BATCH ? count - i : PLAN_BATCH);
    return status;
}

/* A step down that keeps the limits after all, against the assumption, is the new best, and its
 * neighbours are asked about. The best gets cheaper each time, so this ends. */
static enum status measure_steps(struct search *s, struct plan_result *out)
{
    int32_t before;

    do {
        before = s->best;
        const enum status status = ask_steps(s);
        if (status != STATUS_OK) return status;
    } while (s->best != before);
    for (int i = 0; i < 2 * PLAN_CHOICES; i++) {
        struct plan_config config;
        const int choice = i / 2, up = i % 2;
        out->has_step[choice][up] = step_from(s, (enum plan_choice)choice, up, &config);
        if (out->has_step[choice][up])
            out->step[choice][up] = s->rows[s->row_of[number_of(s->space, &config)]];
    }
    return STATUS_OK;
}

/* Rows that missed though one that is weaker kept the limits. */
static uint32_t count_surprises(const struct search *s)
{
    uint32_t surprises = 0;

    for (uint32_t i = 0; i < s->rows_count; i++) {
        bool surprise = false;
        for (uint32_t j = 0; j < s->rows_count && !s->rows[i].score.meets; j++) {
            if (s->rows[j].score.meets && is_weaker(&s->rows[j].config, &s->rows[i].config))
                surprise = true;
        }
        surprises += surprise;
    }
    return surprises;
}

/* The row with the largest share of good requests. */
static uint32_t nearest(const struct search *s)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < s->rows_count; i++) {
        if (s->rows[i].score.good > s->rows[best].score.good) best = i;
    }
    return best;
}

static void list_runners(const struct search *s, struct plan_result *out)
{
    for (uint32_t i = 0; i < s->rows_count; i++) {
        const struct plan_row *row = &s->rows[i];
        if (!row->score.meets || (int32_t)i == s->best) continue;
        const uint32_t last = out->runners_count;
        if (last == PLAN_RUNNERS_MAX && !is_better(row, &out->runners[last - 1])) continue;
        uint32_t at = last < PLAN_RUNNERS_MAX ? out->runners_count++ : last - 1;
        for (; at > 0 && is_better(row, &out->runners[at - 1]); at--)
            out->runners[at] = out->runners[at - 1];
        out->runners[at] = *row;
    }
}

static enum status create(struct search *s, struct errmsg *err)
{
    double total = 1;

    for (int c = 0; c < PLAN_CHOICES; c++) {
        ASSERT(s->space->counts[c] > 0 && s->space->counts[c] <= PLAN_VALUES_MAX);
        total *= s->space->counts[c];
    }
    if (total > PLAN_GRID_MAX)
        return errmsg_set(err, STATUS_INVALID,
                          "%.0f clusters are more than %d: fewer values or larger steps", total,
                          PLAN_GRID_MAX);
    s->total = s->open = s->counts.configs = (uint32_t)total;
    s->states = calloc(s->total, sizeof(*s->states));
    s->row_of = malloc(s->total * sizeof(*s->row_of));
    if (s->states == NULL || s->row_of == NULL)
        return errmsg_set(err, STATUS_NO_MEMORY, "not enough memory");
    for (uint32_t i = 0; i < s->total; i++)
        s->row_of[i] = NONE;
    return STATUS_OK;
}

enum status plan_search(const struct plan_space *space, const double floors[2],
                        const struct plan_oracle *oracle, struct plan_result *out,
                        struct errmsg *err)
{
    struct search s = { .space = space, .oracle = oracle, .err = err, .best = NONE };
    struct plan_result result = { .found = false };

    enum status status = create(&s, err);
    if (status == STATUS_OK) close_shorter(&s, floors);
    if (status == STATUS_OK) status = search(&s);
    if (status == STATUS_OK) {
        ASSERT(s.open == 0);
        result.found = s.best != NONE;
    }
    if (status == STATUS_OK && result.found) {
        status = measure_steps(&s, &result);
        list_runners(&s, &result);
    }
    if (status == STATUS_OK) {
        result.best = s.rows[result.found ? (uint32_t)s.best : nearest(&s)];
        result.counts = s.counts;
        result.counts.surprises = count_surprises(&s);
        *out = result;
    }
    free(s.states);
    free(s.row_of);
    free(s.rows);
    return status;
}
