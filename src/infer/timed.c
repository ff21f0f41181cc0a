/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/timed.c - see timed.h.
 *
 * The clock of a step runs on from planned time to planned time, so that a sleep that lasts too
 * long is made up for by the next one, and the time between two hooks is right on average. Only
 * what a hook waits moves the plan. A step that follows another one at once goes on with its plan:
 * what the machine we run on needs in between is not the modelled machine's. */
#include "infer/timed.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/rng.h"
#include "model/model.h"

enum { WORDS_MAX = 8192 };

/* A step that begins so soon behind another one follows it at once. */
#define AT_ONCE_NS (3 * ENV_NS_PER_MS)

static_assert(ENGINE_BLOCK_TOKENS_MIN * TIMED_STATE_SIZE % 64 == 0, "layers stay aligned");

/* What the state of a layer is before the first token. */
#define SEED UINT64_C(0x796f6c6b74696d65)

struct timed {
    struct timed_options options;
    struct engine_layout layout;
    uint8_t *slab;
    uint32_t pages_count;
    uint32_t context_max;
    uint32_t vocab;
    uint32_t *words; /* tokens to answer with */
    uint32_t words_count;
    uint64_t ended_ns; /* planned end of the last step */
};

const struct timed_profile timed_profile_default = {
    .prefill_fixed_s = 0.010,
    .prefill_new_s = 1.1e-4,
    .prefill_square_s = 3e-9,
    .prefill_reused_s = 2.5e-6,
    .decode_base_s = 0.010,
    .decode_sequence_s = 0.002,
    .decode_context_s = 0,
    .speed = 1,
};

/* ---- how long ---- */

enum status timed_profile_check(const struct timed_profile *profile, struct errmsg *err)
{
    const struct {
        const char *name;
        double value, max;
    } numbers[] = {
        { "prefill_fixed_s", profile->prefill_fixed_s, TIMED_STEP_S_MAX },
        { "prefill_new_s", profile->prefill_new_s, 1 },
        { "prefill_square_s", profile->prefill_square_s, 1 },
        { "prefill_reused_s", profile->prefill_reused_s, 1 },
        { "decode_base_s", profile->decode_base_s, TIMED_STEP_S_MAX },
        { "decode_sequence_s", profile->decode_sequence_s, 1 },
        { "decode_context_s", profile->decode_context_s, 1 },
        { "speed", profile->speed, 1e6 },
        { "answer_tokens", profile->answer_tokens, 1e9 },
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].value >= 0 && numbers[i].value <= numbers[i].max) continue;
        return errmsg_set(err, STATUS_INVALID, "%s is %g: must be in 0..%g", numbers[i].name,
                          numbers[i].value, numbers[i].max);
    }
    if (profile->speed <= 0) return errmsg_set(err, STATUS_INVALID, "speed is 0: must be more");
    if (profile->answer_tokens > 0 && profile->answer_tokens < 1)
        return errmsg_set(err, STATUS_INVALID, "answer_tokens is %g: must be 0, or at least 1",
                          profile->answer_tokens);
    return STATUS_OK;
}

static double prefill_s(const struct timed_profile *profile, const struct backend_item *item)
{
    const double before = item->position, after = before + item->tokens_count;
    double seconds = profile->prefill_new_s * (after - before) +
                     profile->prefill_square_s * (after * after - before * before);
    if (item->prefill_first)
        seconds += profile->prefill_fixed_s + profile->prefill_reused_s * before;
    return seconds;
}

double timed_step_s(const struct timed_profile *profile, const struct backend_item *items,
                    uint32_t items_count)
{
    double seconds = 0, sequences = 0, context = 0;

    ASSERT(profile->speed > 0);
    for (uint32_t i = 0; i < items_count; i++) {
        if (items[i].prefill) {
            seconds += prefill_s(profile, &items[i]);
        } else {
            sequences += 1;
            context += (double)items[i].position + items[i].tokens_count;
        }
    }
    if (sequences > 0) {
        seconds += profile->decode_base_s + profile->decode_sequence_s * sequences +
                   profile->decode_context_s * context;
    }
    return fmin(seconds / profile->speed, TIMED_STEP_S_MAX);
}

static uint64_t now_ns(const struct timed *timed)
{
    const struct timed_options *options = &timed->options;
    return options->now_ns != NULL ? options->now_ns(options->clock_ctx) : env_real_now_ns();
}

static void sleep_until(const struct timed *timed, uint64_t end_ns)
{
    const struct timed_options *options = &timed->options;
    const uint64_t now = now_ns(timed);

    if (now >= end_ns) return;
    if (options->sleep_ns != NULL)
        options->sleep_ns(options->clock_ctx, end_ns - now);
    else
        env_real_sleep_ns(end_ns - now);
}

/* ---- life ---- */

void timed_layout_of(uint32_t block_tokens, struct engine_layout *layout)
{
    ASSERT(block_tokens >= ENGINE_BLOCK_TOKENS_MIN);
    layout->block_tokens = block_tokens;
    layout->n_layers = TIMED_LAYERS;
    layout->kv_heads = 1;
    layout->head_dim = 1;
    layout->layer_size = (uint64_t)block_tokens * TIMED_STATE_SIZE;
    layout->page_size = (layout->layer_size * TIMED_LAYERS + ENGINE_PAGE_ALIGN - 1) /
                        ENGINE_PAGE_ALIGN * ENGINE_PAGE_ALIGN;
    layout->isa_name = "timed";
    (void)snprintf(layout->id, sizeof(layout->id), "timed-1-l%d-t%u", TIMED_LAYERS, block_tokens);
}

/* Chosen evenly from all that may be used, so that WORDS_MAX cuts off no part of the vocabulary. */
static enum status choose_words(struct timed *timed, struct errmsg *err)
{
    const struct timed_options *options = &timed->options;
    const uint32_t stride = (timed->vocab + WORDS_MAX - 1) / WORDS_MAX;

    timed->words = calloc(WORDS_MAX, sizeof(*timed->words));
    if (timed->words == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for words");
    for (uint32_t token = 0; token < timed->vocab; token += stride) {
        if (options->profile.answer_tokens > 0 && token == options->end_token) continue;
        if (options->usable != NULL && !options->usable(options->usable_ctx, token)) continue;
        timed->words[timed->words_count++] = token;
    }
    if (timed->words_count == 0)
        return errmsg_set(err, STATUS_INVALID, "the vocabulary has no token to answer with");
    return STATUS_OK;
}

static enum status check(const struct model_params *params, const struct engine_options *engine,
                         const struct timed_options *options, struct errmsg *err)
{
    if (engine->context_max > params->context) {
        return errmsg_set(err, STATUS_INVALID, "context of %u tokens: the model was trained for %u",
                          engine->context_max, params->context);
    }
    if (options->profile.answer_tokens > 0 && options->end_token >= params->vocab)
        return errmsg_set(err, STATUS_INVALID, "the vocabulary has no token to end an answer with");
    return timed_profile_check(&options->profile, err);
}

enum status timed_create(const struct model_params *params, const struct engine_options *engine,
                         const struct timed_options *options, struct timed **out,
                         struct errmsg *err)
{
    const uint32_t block_tokens =
        engine->block_tokens != 0 ? engine->block_tokens : ENGINE_BLOCK_TOKENS_DEFAULT;

    ASSERT(engine->pages != NULL);
    enum status status = check(params, engine, options, err);
    if (status != STATUS_OK) return status;
    struct timed *timed = calloc(1, sizeof(*timed));
    if (timed == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an engine");
    timed->options = *options;
    timed_layout_of(block_tokens, &timed->layout);
    timed->slab = engine->pages;
    timed->pages_count = engine->pages_count;
    timed->context_max = engine->context_max != 0 ? engine->context_max : params->context;
    timed->vocab = params->vocab;
    status = choose_words(timed, err);
    if (status != STATUS_OK) {
        timed_destroy(timed);
        return status;
    }
    *out = timed;
    return STATUS_OK;
}

void timed_destroy(struct timed *timed)
{
    if (timed == NULL) return;
    free(timed->words);
    free(timed);
}

const struct engine_layout *timed_layout(const struct timed *timed)
{
    return &timed->layout;
}

/* ---- the step ---- */

/* As for the real engine: page tables and tokens come from other processes. */
static bool item_valid(const struct timed *timed, const struct backend_item *item)
{
    if (item->tokens_count == 0 || item->tokens_count > ENGINE_ROWS_MAX) return false;
    if (item->position >= timed->context_max) return false;
    if (item->tokens_count > timed->context_max - item->position) return false;
    const uint32_t end = item->position + item->tokens_count;
    const uint32_t pages = (end + timed->layout.block_tokens - 1) / timed->layout.block_tokens;
    if (pages > item->pages_count) return false;
    for (uint32_t i = 0; i < pages; i++) {
        if (item->pages[i] >= timed->pages_count) return false;
    }
    for (uint32_t i = 0; i < item->tokens_count; i++) {
        if (item->tokens[i] >= timed->vocab) return false;
    }
    return true;
}

static bool step_valid(const struct timed *timed, const struct backend_item *items,
                       uint32_t items_count)
{
    uint64_t rows = 0;

    if (items_count == 0 || items_count > ENGINE_ITEMS_MAX) return false;
    for (uint32_t i = 0; i < items_count; i++) {
        if (!item_valid(timed, &items[i])) return false;
        rows += items[i].tokens_count;
    }
    return rows <= ENGINE_ROWS_MAX;
}

static uint8_t *state_at(const struct timed *timed, const struct backend_item *item, uint32_t layer,
                         uint32_t position)
{
    const struct engine_layout *layout = &timed->layout;
    const uint32_t page = item->pages[position / layout->block_tokens];
    const uint32_t slot = position % layout->block_tokens;

    return timed->slab + page * layout->page_size + layer * layout->layer_size +
           (size_t)slot * TIMED_STATE_SIZE;
}

static uint64_t state_load(const struct timed *timed, const struct backend_item *item,
                           uint32_t layer, uint32_t position)
{
    uint64_t state;
    memcpy(&state, state_at(timed, item, layer, position), sizeof(state));
    return state;
}

static void run_layer(const struct timed *timed, const struct backend_item *item, uint32_t layer)
{
    uint64_t state = item->position == 0 ? rng_counter(SEED, layer)
                                         : state_load(timed, item, layer, item->position - 1);

    for (uint32_t i = 0; i < item->tokens_count; i++) {
        state = rng_counter(state, item->tokens[i]);
        memcpy(state_at(timed, item, layer, item->position + i), &state, sizeof(state));
    }
}

/* The states of one token through the layers of a part, on top of those before: what a residual
 * stream is to the real engine. Row `r` of the step is the item's `i`th. */
static uint64_t mix_layers(const struct timed *timed, const struct backend_item *item, uint32_t i,
                           const struct engine_part *part, uint64_t r)
{
    uint64_t mix = 0;

    if (part->first > 0) memcpy(&mix, part->in + r * TIMED_HIDDEN_SIZE, sizeof(mix));
    for (uint32_t layer = part->first; layer < part->last; layer++)
        mix = rng_counter(mix, state_load(timed, item, layer, item->position + i));
    return mix;
}

static void hand_out(const struct timed *timed, const struct backend_item *items,
                     uint32_t items_count, const struct engine_part *part)
{
    uint64_t r = 0;

    for (uint32_t i = 0; i < items_count; i++) {
        for (uint32_t t = 0; t < items[i].tokens_count; t++, r++) {
            const uint64_t mix = mix_layers(timed, &items[i], t, part, r);
            memcpy(part->out + r * TIMED_HIDDEN_SIZE, &mix, sizeof(mix));
        }
    }
}

static void score_certain(struct backend_score *score)
{
    score->words = 0;
    for (uint32_t i = 0; i < score->count; i++)
        score->words +=
            logprobs_row_certain(score->targets[i], score->top, score->rows + score->words);
}

static uint32_t next_token(const struct timed *timed, const struct backend_item *item, uint64_t mix)
{
    const struct timed_options *options = &timed->options;

    if (item->sampling.temperature > 0)
        mix = rng_counter(mix ^ item->sampling.seed, item->sample_index);
    if (options->profile.answer_tokens > 0 &&
        rng_unit_of(rng_counter(mix, 1)) * options->profile.answer_tokens < 1)
        return options->end_token;
    return timed->words[mix % timed->words_count];
}

static uint64_t planned_start(const struct timed *timed)
{
    const uint64_t now = now_ns(timed);
    const bool at_once = now >= timed->ended_ns && now - timed->ended_ns < AT_ONCE_NS;
    return at_once && timed->ended_ns != 0 ? timed->ended_ns : now;
}

static bool run_layers(struct timed *timed, struct backend_item *items, uint32_t items_count,
                       const struct engine_part *part, const struct engine_hooks *hooks)
{
    const double seconds = timed_step_s(&timed->options.profile, items, items_count);
    const uint64_t share_ns = (uint64_t)(seconds * ENV_NS_PER_S / TIMED_LAYERS);
    uint64_t planned_ns = planned_start(timed);

    for (uint32_t layer = part->first; layer < part->last; layer++) {
        if (hooks != NULL && hooks->before_layer != NULL) {
            const uint64_t asked_ns = now_ns(timed);
            if (!hooks->before_layer(hooks->ctx, layer)) return false;
            planned_ns += now_ns(timed) - asked_ns;
        }
        planned_ns += share_ns;
        for (uint32_t i = 0; i < items_count; i++)
            run_layer(timed, &items[i], layer);
        sleep_until(timed, planned_ns);
        if (hooks != NULL && hooks->after_layer != NULL) hooks->after_layer(hooks->ctx, layer);
    }
    timed->ended_ns = planned_ns;
    return true;
}

enum status timed_step(struct timed *timed, struct backend_item *items, uint32_t items_count,
                       const struct engine_hooks *hooks)
{
    const struct engine_part whole = { .last = TIMED_LAYERS };

    return timed_step_part(timed, items, items_count, &whole, hooks);
}

static bool part_valid(const struct engine_part *part)
{
    if (part->first >= part->last || part->last > TIMED_LAYERS) return false;
    return (part->first == 0 || part->in != NULL) &&
           (part->last == TIMED_LAYERS || part->out != NULL);
}

enum status timed_step_part(struct timed *timed, struct backend_item *items, uint32_t items_count,
                            const struct engine_part *part, const struct engine_hooks *hooks)
{
    uint64_t rows = 0;

    if (!part_valid(part) || !step_valid(timed, items, items_count)) return STATUS_INVALID;
    if (!run_layers(timed, items, items_count, part, hooks)) return STATUS_CANCELLED;
    if (part->last < TIMED_LAYERS) {
        hand_out(timed, items, items_count, part);
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < items_count; i++) {
        struct backend_item *item = &items[i];
        const uint32_t last = item->tokens_count - 1;
        const uint64_t row = rows + last;
        rows += item->tokens_count;
        score_certain(&item->score);
        if (!item->sample) continue;
        item->sampled = next_token(timed, item, mix_layers(timed, item, last, part, row));
        if (item->row != NULL)
            item->row_count = logprobs_row_certain(item->sampled, item->row_top, item->row);
    }
    return STATUS_OK;
}
