/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/runner.c - see runner.h.
 *
 * Commands go in through a ring of step pointers, answers come out through a ring of events, with
 * at most one env_post() on the way: whoever finds `posted` unset posts, and the loop unsets it
 * before it drains. The rings and that flag live in a mailbox apart from the runner, because a post
 * that is on the way when the runner is destroyed still runs: it finds the mailbox without an owner
 * and frees it.
 *
 * Invariants
 *   I1  At most one step is under way, so the event ring (layers + 2 entries and more) is never
 *       full.
 *   I2  The engine is touched by the engine thread only. */
#include "serve/runner.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/ring.h"
#include "model/model.h"

enum { COMMANDS_MAX = 4, EVENTS_MAX = 1024 };

enum event_kind { EVENT_READY, EVENT_LAYER, EVENT_DONE };

struct event {
    enum event_kind kind;
    enum status status;
    uint32_t layer;
    uint64_t duration_ns, waited_ns;
};

struct command {
    struct runner_step *step; /* NULL: end */
};

struct mailbox {
    struct ring *events;
    atomic_bool posted;    /* set by the engine thread, unset by the loop; orders ring and post */
    struct runner *runner; /* loop thread only; NULL once destroyed */
};

struct runner {
    struct runner_options options;
    pthread_t thread;
    struct ring *commands;
    struct mailbox *mailbox;
    bool ready;          /* loop thread */
    bool under_way;      /* loop thread */
    struct errmsg error; /* written before EVENT_READY, read after */

    pthread_mutex_t lock; /* guards every gate and `ending` */
    pthread_cond_t opened;
    bool ending;

    /* Engine thread only (I2). */
    struct backend *backend;
    struct runner_step *step;
    uint64_t waited_ns; /* of the step under way */
    struct backend_item items[ENGINE_ITEMS_MAX];
};

/* ---- answers ---- */

static void handle_event(struct runner *runner, const struct event *event)
{
    const struct runner_options *options = &runner->options;
    switch (event->kind) {
    case EVENT_READY:
        runner->ready = event->status == STATUS_OK;
        options->on_ready(options->ctx, event->status, runner->error.text);
        return;
    case EVENT_LAYER:
        ASSERT(runner->under_way);
        options->on_layer(options->ctx, event->layer);
        return;
    case EVENT_DONE:
        ASSERT(runner->under_way);
        runner->under_way = false;
        options->on_done(options->ctx, &(struct runner_result){
                                           .status = event->status,
                                           .duration_ns = event->duration_ns,
                                           .waited_ns = event->waited_ns,
                                       });
        return;
    }
    ASSERT(false);
}

static void mailbox_free(struct mailbox *mailbox)
{
    if (mailbox == NULL) return;
    ring_destroy(mailbox->events);
    free(mailbox);
}

static void drain(void *ctx)
{
    struct mailbox *mailbox = ctx;
    struct event event;

    if (mailbox->runner == NULL) {
        mailbox_free(mailbox);
        return;
    }
    /* Whoever pushes after this posts again, so nothing is left behind. */
    atomic_store_explicit(&mailbox->posted, false, memory_order_seq_cst);
    while (mailbox->runner != NULL && ring_pop(mailbox->events, &event) == STATUS_OK) {
        handle_event(mailbox->runner, &event);
    }
}

/* Engine thread. */
static void post_event(struct runner *runner, const struct event *event)
{
    struct mailbox *mailbox = runner->mailbox;
    const enum status pushed = ring_push(mailbox->events, event);
    ASSERT(pushed == STATUS_OK);
    if (atomic_exchange_explicit(&mailbox->posted, true, memory_order_seq_cst)) return;
    while (env_post(runner->options.env, drain, mailbox) != STATUS_OK)
        sched_yield();
}

/* ---- gates ---- */

void runner_gate_open(struct runner *runner, struct runner_gate *gate, uint32_t layers_open)
{
    pthread_mutex_lock(&runner->lock);
    ASSERT(layers_open >= gate->layers_open);
    gate->layers_open = layers_open;
    pthread_cond_signal(&runner->opened);
    pthread_mutex_unlock(&runner->lock);
}

void runner_gate_break(struct runner *runner, struct runner_gate *gate)
{
    pthread_mutex_lock(&runner->lock);
    gate->broken = true;
    pthread_cond_signal(&runner->opened);
    pthread_mutex_unlock(&runner->lock);
}

void runner_gate_reset(struct runner *runner, struct runner_gate *gate)
{
    pthread_mutex_lock(&runner->lock);
    *gate = (struct runner_gate){ 0 };
    pthread_mutex_unlock(&runner->lock);
}

static bool gate_wait(struct runner *runner, const struct runner_gate *gate, uint32_t layer)
{
    pthread_mutex_lock(&runner->lock);
    while (gate->layers_open <= layer && !gate->broken && !runner->ending) {
        pthread_cond_wait(&runner->opened, &runner->lock);
    }
    const bool open = gate->layers_open > layer && !gate->broken;
    pthread_mutex_unlock(&runner->lock);
    return open;
}

/* ---- the engine thread ---- */

static bool before_layer(void *ctx, uint32_t layer)
{
    struct runner *runner = ctx;
    for (uint32_t i = 0; i < runner->step->items_count; i++) {
        const struct runner_item *item = &runner->step->items[i];
        if (item->gate == NULL) continue;
        const uint64_t asked_ns = env_real_now_ns();
        const bool open = gate_wait(runner, item->gate, layer);
        runner->waited_ns += env_real_now_ns() - asked_ns;
        if (!open) return false;
    }
    return true;
}

static void sum_pieces(struct runner *runner, const struct runner_item *item, uint32_t layer)
{
    const struct engine_layout *layout = backend_layout(runner->backend);
    for (uint32_t block = item->sums_from; block < item->sums_to; block++) {
        const uint8_t *page = runner->options.pages + item->pages[block] * layout->page_size;
        item->sums[(size_t)block * layout->n_layers + layer] =
            hash_xxh3(page + layer * layout->layer_size, layout->layer_size);
    }
}

static void after_layer(void *ctx, uint32_t layer)
{
    struct runner *runner = ctx;
    bool anything = false;
    for (uint32_t i = 0; i < runner->step->items_count; i++) {
        const struct runner_item *item = &runner->step->items[i];
        if (item->sums == NULL) continue;
        sum_pieces(runner, item, layer);
        anything = true;
    }
    if (anything) post_event(runner, &(struct event){ .kind = EVENT_LAYER, .layer = layer });
}

static void prepare_items(struct runner *runner)
{
    for (uint32_t i = 0; i < runner->step->items_count; i++) {
        const struct runner_item *item = &runner->step->items[i];
        ASSERT(item->sums_to <= item->pages_count);
        runner->items[i] = (struct backend_item){
            .pages = item->pages,
            .pages_count = item->pages_count,
            .position = item->position,
            .tokens = item->tokens,
            .tokens_count = item->tokens_count,
            .prefill = item->prefill,
            .prefill_first = item->prefill_first,
            .sample = item->sample,
            .sampling = item->sampling,
            .past = item->past,
            .sample_index = item->sample_index,
            .row = item->row,
            .row_top = item->row_top,
            .score = item->score,
        };
    }
}

static void take_sampled(struct runner *runner)
{
    for (uint32_t i = 0; i < runner->step->items_count; i++) {
        runner->step->items[i].sampled = runner->items[i].sampled;
        runner->step->items[i].row_count = runner->items[i].row_count;
        runner->step->items[i].score.words = runner->items[i].score.words;
    }
}

static void run_step(struct runner *runner, struct runner_step *step)
{
    const struct engine_hooks hooks = { .before_layer = before_layer,
                                        .after_layer = after_layer,
                                        .ctx = runner };
    const uint64_t start_ns = env_real_now_ns();

    ASSERT(step->items_count >= 1 && step->items_count <= ENGINE_ITEMS_MAX);
    runner->step = step;
    runner->waited_ns = 0;
    prepare_items(runner);
    const enum status status =
        step->part.last == 0
            ? backend_step(runner->backend, runner->items, step->items_count, &hooks)
            : backend_step_part(runner->backend, runner->items, step->items_count, &step->part,
                                &hooks);
    if (status == STATUS_OK) take_sampled(runner);
    runner->step = NULL;
    post_event(runner, &(struct event){ .kind = EVENT_DONE,
                                        .status = status,
                                        .duration_ns = env_real_now_ns() - start_ns,
                                        .waited_ns = runner->waited_ns });
}

static enum status start_engine(struct runner *runner)
{
    const struct runner_options *options = &runner->options;
    const struct backend_options backend_options = {
        .engine = { .threads = options->threads,
                    .block_tokens = options->block_tokens,
                    .isa = options->isa,
                    .kv = options->kv,
                    .context_max = options->context_max,
                    .pages = options->pages,
                    .pages_count = options->pages_count },
        .timed = options->timed,
    };
    return backend_create(options->model, &backend_options, &runner->backend, &runner->error);
}

static void *thread_main(void *ctx)
{
    struct runner *runner = ctx;
    struct command command;
    const enum status status = start_engine(runner);

    post_event(runner, &(struct event){ .kind = EVENT_READY, .status = status });
    for (;;) {
        while (ring_pop(runner->commands, &command) != STATUS_OK) {
            ring_wait(runner->commands, UINT64_MAX);
        }
        if (command.step == NULL) break;
        ASSERT(status == STATUS_OK);
        run_step(runner, command.step);
    }
    backend_destroy(runner->backend);
    return NULL;
}

/* ---- the loop thread ---- */

static void runner_free(struct runner *runner)
{
    if (runner->mailbox != NULL) {
        runner->mailbox->runner = NULL;
        /* A post on the way frees it when it arrives. */
        if (!atomic_load(&runner->mailbox->posted)) mailbox_free(runner->mailbox);
    }
    ring_destroy(runner->commands);
    pthread_cond_destroy(&runner->opened);
    pthread_mutex_destroy(&runner->lock);
    free(runner);
}

enum status runner_create(const struct runner_options *options, struct runner **out,
                          struct errmsg *err)
{
    enum status status = STATUS_NO_MEMORY;
    struct runner *runner = calloc(1, sizeof(*runner));
    if (runner == NULL) return STATUS_NO_MEMORY;
    runner->options = *options;
    pthread_mutex_init(&runner->lock, NULL);
    pthread_cond_init(&runner->opened, NULL);
    runner->mailbox = calloc(1, sizeof(*runner->mailbox));
    if (runner->mailbox == NULL) goto fail;
    runner->mailbox->runner = runner;
    status = ring_create(EVENTS_MAX, sizeof(struct event), &runner->mailbox->events);
    if (status != STATUS_OK) goto fail;
    status = ring_create(COMMANDS_MAX, sizeof(struct command), &runner->commands);
    if (status != STATUS_OK) goto fail;
    static_assert(EVENTS_MAX > MODEL_LAYERS_MAX + 2, "I1");
    if (pthread_create(&runner->thread, NULL, thread_main, runner) != 0) {
        status = errmsg_set(err, STATUS_IO, "cannot start the engine thread");
        goto fail;
    }
    *out = runner;
    return STATUS_OK;

fail:
    runner_free(runner);
    return status;
}

void runner_destroy(struct runner *runner)
{
    if (runner == NULL) return;
    pthread_mutex_lock(&runner->lock);
    runner->ending = true;
    pthread_cond_signal(&runner->opened);
    pthread_mutex_unlock(&runner->lock);
    const enum status pushed = ring_push(runner->commands, &(struct command){ 0 });
    ASSERT(pushed == STATUS_OK);
    pthread_join(runner->thread, NULL);
    runner_free(runner);
}

void runner_submit(struct runner *runner, struct runner_step *step)
{
    ASSERT(runner->ready && !runner->under_way);
    runner->under_way = true;
    const enum status pushed = ring_push(runner->commands, &(struct command){ step });
    ASSERT(pushed == STATUS_OK);
}
