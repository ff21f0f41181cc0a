/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/batch.h"
#include "sim/kvcache.h"
#include "sim/sim_int.h"

enum { PROGRESS_EVERY = 512, SETTLE_EVERY = 4096 };

const uint32_t sim_ranks[SIM_RANKS] = { 10, 100, 1000, 10000 };

/* ---- what the systems use ---- */

uint64_t sim_ns(double seconds)
{
    ASSERT(seconds >= 0);
    /* Costs and lengths that are each possible can be impossible together: run() ends then. */
    return (uint64_t)llround(fmin(seconds * 1e9, (double)EVENTS_NEVER_NS));
}

uint32_t sim_input(const struct sim *sim, uint32_t who)
{
    return sim->trace->requests[who].input_tokens + sim->requests[who].generated;
}

static uint32_t output_of(const struct sim *sim, uint32_t who)
{
    const uint32_t tokens = sim->trace->requests[who].output_tokens;
    const uint32_t most = (uint32_t)sim->cluster.output_max;
    if (most > 0 && tokens > most) return most;
    return tokens > 0 ? tokens : 1;
}

uint32_t sim_output(const struct sim *sim, uint32_t who)
{
    ASSERT(sim->requests[who].generated < output_of(sim, who));
    return output_of(sim, who) - sim->requests[who].generated;
}

uint32_t sim_full_blocks(const struct sim *sim, uint32_t who)
{
    return sim->trace->requests[who].input_tokens / sim->trace->block_tokens;
}

uint32_t sim_reusable(const struct sim *sim, uint32_t who)
{
    const uint32_t most = (sim_input(sim, who) - 1) / sim->trace->block_tokens;
    return most < sim_full_blocks(sim, who) ? most : sim_full_blocks(sim, who);
}

void sim_fail(struct sim *sim, enum status status)
{
    if (sim->status == STATUS_OK) sim->status = status;
}

/* From when it is placed until it ends it may have to be placed again, or be given up. */
static bool is_placed(enum sim_state state)
{
    return state >= SIM_QUEUED && state <= SIM_DECODING;
}

static bool may_follow(enum sim_state from, enum sim_state to)
{
    if (is_placed(from) && (to == SIM_WAITING || to == SIM_ENDED)) return true;
    switch (from) {
    case SIM_ARRIVING: return to == SIM_WAITING || to == SIM_QUEUED || to == SIM_ENDED;
    case SIM_WAITING: return to == SIM_QUEUED || to == SIM_ENDED;
    case SIM_QUEUED: return to == SIM_PREFILLING;
    case SIM_PREFILLING: return to == SIM_SENDING || to == SIM_LOADING || to == SIM_DECODING;
    case SIM_SENDING: return to == SIM_LOADING;
    case SIM_LOADING: return to == SIM_JOINING;
    case SIM_JOINING: return to == SIM_DECODING;
    case SIM_DECODING:
    case SIM_ENDED: return false;
    }
    return false;
}

void sim_set_state(struct sim *sim, uint32_t who, enum sim_state state)
{
    ASSERT(who < sim->count);
    ASSERT(may_follow(sim->requests[who].state, state));
    sim->requests[who].state = state;
}

void sim_schedule_version(struct sim *sim, double in_s, enum sim_event kind, uint32_t who,
                          uint32_t version)
{
    const struct event event = {
        .time_ns = sim->events.now_ns + sim_ns(in_s), .kind = kind, .who = who, .version = version
    };
    const enum status status = events_push(&sim->events, event);
    if (status != STATUS_OK) sim_fail(sim, status);
}

void sim_schedule(struct sim *sim, double in_s, enum sim_event kind, uint32_t who)
{
    sim_schedule_version(sim, in_s, kind, who, 0);
}

void sim_end(struct sim *sim, uint32_t who, enum sim_outcome outcome)
{
    struct sim_record *record = &sim->result->records[who];

    ASSERT(record->outcome == SIM_UNFINISHED && outcome != SIM_UNFINISHED);
    sim_set_state(sim, who, SIM_ENDED);
    record->outcome = outcome;
    record->total_s = (double)(sim->events.now_ns - sim->requests[who].arrival_ns) / 1e9;
    sim->ended++;
    if (sim->progress.fn != NULL && sim->ended % PROGRESS_EVERY == 0)
        sim->progress.fn(sim->progress.ctx, sim->ended, sim->count);
}

static void record_intervals(struct sim *sim, uint32_t who, struct batch_intervals intervals)
{
    struct sim_record *record = &sim->result->records[who];
    record->tbt_ms = intervals.longest_ms;
    record->tbt_mean_ms = intervals.mean_ms;
}

void sim_first_token(struct sim *sim, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];
    const uint64_t now = sim->events.now_ns;

    if (request->past == NULL) {
        ASSERT(sim->result->records[who].ttft_ms == 0 && request->generated == 0);
        sim->result->records[who].ttft_ms = (double)(now - request->arrival_ns) / 1e6;
        return;
    }
    request->past[request->past_count++] = now - request->latest_ns;
    if (sim_output(sim, who) == 1)
        record_intervals(sim, who, batch_summary(request->past, request->past_count));
}

void sim_keep_intervals(struct sim *sim, const struct batch *batch,
                        const struct batch_member *member)
{
    struct sim_request *request = &sim->requests[member->who];

    if (request->past == NULL)
        request->past = calloc(output_of(sim, member->who), sizeof(*request->past));
    if (request->past == NULL) {
        sim_fail(sim, STATUS_NO_MEMORY);
        return;
    }
    request->past_count += batch_read(batch, member, request->past + request->past_count);
    request->latest_ns = batch_latest_ns(batch, member);
}

void sim_record_intervals(struct sim *sim, struct batch *batch, const struct batch_member *member)
{
    struct sim_request *request = &sim->requests[member->who];

    if (request->past == NULL) {
        record_intervals(sim, member->who, batch_measure(batch, member));
        return;
    }
    request->past_count += batch_read(batch, member, request->past + request->past_count);
    record_intervals(sim, member->who, batch_summary(request->past, request->past_count));
}

const struct slo_class *sim_class(const struct sim *sim, uint32_t who)
{
    if (sim->classes.list.count == 0) return NULL;
    return &sim->classes.list.classes[sim->result->records[who].class];
}

void sim_queue_init(struct sim_queue *queue)
{
    *queue = (struct sim_queue){ SIM_NONE, SIM_NONE, 0 };
}

void sim_queue_push(struct sim *sim, struct sim_queue *queue, uint32_t who)
{
    sim->requests[who].next = SIM_NONE;
    if (queue->tail != SIM_NONE)
        sim->requests[queue->tail].next = who;
    else
        queue->head = who;
    queue->tail = who;
    queue->count++;
}

void sim_queue_insert(struct sim *sim, struct sim_queue *queue, uint32_t who)
{
    const int priority = sim->requests[who].priority;
    uint32_t before = SIM_NONE;

    if (queue->count == 0 || sim->requests[queue->tail].priority >= priority) {
        sim_queue_push(sim, queue, who);
        return;
    }
    for (uint32_t at = queue->head; sim->requests[at].priority >= priority;
         at = sim->requests[at].next)
        before = at;
    sim->requests[who].next = before == SIM_NONE ? queue->head : sim->requests[before].next;
    *(before == SIM_NONE ? &queue->head : &sim->requests[before].next) = who;
    queue->count++;
}

uint32_t sim_queue_pop(struct sim *sim, struct sim_queue *queue)
{
    ASSERT(queue->count > 0);
    const uint32_t who = queue->head;
    queue->head = sim->requests[who].next;
    if (queue->head == SIM_NONE) queue->tail = SIM_NONE;
    queue->count--;
    return who;
}

void sim_queue_leave(struct sim *sim, struct sim_queue *queue, uint32_t who)
{
    struct sim_queue kept;

    sim_queue_init(&kept);
    while (queue->count > 0) {
        const uint32_t other = sim_queue_pop(sim, queue);
        if (other != who) sim_queue_push(sim, &kept, other);
    }
    *queue = kept;
}

/* ---- getting ready ---- */

struct arrival {
    uint64_t time_ns;
    uint32_t who;
};

static int compare_arrivals(const void *a, const void *b)
{
    const struct arrival *x = a, *y = b;
    if (x->time_ns != y->time_ns) return x->time_ns < y->time_ns ? -1 : 1;
    return (x->who > y->who) - (x->who < y->who);
}

static enum status read_requests(struct sim *sim)
{
    struct arrival *arrivals = calloc(sim->count, sizeof(*arrivals));
    if (arrivals == NULL) return STATUS_NO_MEMORY;

    for (uint32_t i = 0; i < sim->count; i++) {
        const struct trace_request *request = &sim->trace->requests[i];
        const double late_ms = sim->cluster.jitter_ms * rng_unit(&sim->rng);
        const double seconds = (request->arrival_ms + late_ms) / 1e3 / sim->cluster.speed;
        const uint32_t output = sim_output(sim, i);

        arrivals[i] = (struct arrival){ sim_ns(seconds), i };
        sim->requests[i].arrival_ns = arrivals[i].time_ns;
        sim->result->records[i].input_tokens = request->input_tokens;
        sim->result->records[i].output_tokens = output;
        sim->result->records[i].arrival_s = seconds;
        if (sim->classes.list.count > 0) {
            const uint32_t class = sim_classes_draw(&sim->classes, (uint64_t)sim->cluster.seed, i);
            sim->result->records[i].class = class;
            sim->requests[i].priority = sim->classes.list.classes[class].priority;
        }
        if (output > sim->output_longest) sim->output_longest = output;
    }
    qsort(arrivals, sim->count, sizeof(*arrivals), compare_arrivals);
    for (uint32_t i = 0; i < sim->count; i++)
        sim->order[i] = arrivals[i].who;
    free(arrivals);
    return STATUS_OK;
}

struct heat {
    uint32_t references, id;
};

static int compare_heat(const void *a, const void *b)
{
    const struct heat *x = a, *y = b;
    if (x->references != y->references) return x->references > y->references ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* From all that are as hot as the one at `at`, evenly. */
static void take_peers(const struct heat *heat, uint32_t count, uint32_t at, struct sim_rank *out)
{
    uint32_t first = at, end = at + 1;

    while (first > 0 && heat[first - 1].references == heat[at].references)
        first--;
    while (end < count && heat[end].references == heat[at].references)
        end++;
    const uint32_t peers = end - first;
    out->count = peers < SIM_PEERS_MAX ? peers : SIM_PEERS_MAX;
    for (uint32_t i = 0; i < out->count; i++)
        out->ids[i] = heat[first + (uint64_t)i * peers / out->count].id;
}

static enum status find_hottest(struct sim *sim)
{
    const uint32_t unique = sim->trace->unique;
    struct heat *heat = calloc((size_t)unique + 1, sizeof(*heat));
    if (heat == NULL) return STATUS_NO_MEMORY;

    for (uint32_t i = 0; i < unique; i++)
        heat[i].id = i;
    for (uint32_t i = 0; i < sim->trace->ids_count; i++)
        heat[sim->trace->ids[i]].references++;
    qsort(heat, unique, sizeof(*heat), compare_heat);
    for (int r = 0; r < SIM_RANKS; r++) {
        if (sim_ranks[r] <= unique) take_peers(heat, unique, sim_ranks[r] - 1, &sim->hottest[r]);
    }
    free(heat);
    return STATUS_OK;
}

void sim_count_replicas(const struct sim *sim, const struct kvcache *cache, struct sim_sample *out)
{
    for (int r = 0; r < SIM_RANKS; r++) {
        const struct sim_rank *rank = &sim->hottest[r];
        uint32_t held = 0;
        for (uint32_t i = 0; i < rank->count; i++)
            held += kvcache_has(cache, rank->ids[i]);
        if (rank->count > 0) out->replicas[r] += (double)held / rank->count;
    }
}

static enum status allocate(struct sim *sim)
{
    const uint32_t most = (uint32_t)sim->cluster.requests_max;

    sim->count = sim->trace->count;
    if (most > 0 && most < sim->count) sim->count = most;
    sim->result = calloc(1, sizeof(*sim->result));
    sim->requests = calloc(sim->count, sizeof(*sim->requests));
    sim->order = calloc(sim->count, sizeof(*sim->order));
    if (sim->result == NULL || sim->requests == NULL || sim->order == NULL) return STATUS_NO_MEMORY;
    sim->result->cluster = sim->cluster;
    sim->result->classes = sim->classes.list;
    sim->result->count = sim->count;
    sim->result->records = calloc(sim->count, sizeof(*sim->result->records));
    sim->result->samples = calloc(SIM_SAMPLES_MAX, sizeof(*sim->result->samples));
    if (sim->result->records == NULL || sim->result->samples == NULL) return STATUS_NO_MEMORY;
    const enum status status = read_requests(sim);
    return status == STATUS_OK ? find_hottest(sim) : status;
}

/* ---- the loop ---- */

/* The arrival at `place` in order; it is heard of once it has been looked at. */
static void schedule_arrival(struct sim *sim, uint32_t place)
{
    if (place >= sim->count) return;
    const uint64_t time_ns =
        sim->requests[sim->order[place]].arrival_ns + sim_ns(sim->cluster.cost.schedule_s);
    ASSERT(time_ns >= sim->events.now_ns);
    const struct event event = { .time_ns = time_ns, .kind = SIM_EVENT_ARRIVAL, .who = place };
    if (events_push(&sim->events, event) != STATUS_OK) sim_fail(sim, STATUS_NO_MEMORY);
}

static void take_sample(struct sim *sim, const struct sim_system *system)
{
    struct sim_result *result = sim->result;

    if (result->samples_count == SIM_SAMPLES_MAX) return;
    struct sim_sample *sample = &result->samples[result->samples_count++];
    sample->time_s = (double)sim->events.now_ns / 1e9;
    system->sample(sim, sample);
    if (sim->ended < sim->count) sim_schedule(sim, sim->cluster.sample_s, SIM_EVENT_SAMPLE, 0);
}

static void handle(struct sim *sim, const struct sim_system *system, const struct event *event)
{
    if (event->kind == SIM_EVENT_ARRIVAL) {
        schedule_arrival(sim, event->who + 1);
        system->arrive(sim, sim->order[event->who]);
    } else if (event->kind == SIM_EVENT_SAMPLE) {
        take_sample(sim, system);
    } else {
        system->event(sim, event);
    }
}

static enum status too_long(struct sim *sim)
{
    return errmsg_set(sim->err, STATUS_INVALID,
                      "after %.0f simulated seconds %u of %u requests have not ended; expected "
                      "costs, lengths and a speed that are possible together",
                      (double)EVENTS_END_NS / 1e9, sim->count - sim->ended, sim->count);
}

/* These may come long after the last answer. */
static bool is_about_machines(const struct event *event)
{
    return event->kind == SIM_EVENT_STOP || event->kind == SIM_EVENT_RETURN ||
           event->kind == SIM_EVENT_FORGET;
}

static enum status run(struct sim *sim, const struct sim_system *system)
{
    struct event event;

    schedule_arrival(sim, 0);
    sim_schedule(sim, sim->cluster.sample_s, SIM_EVENT_SAMPLE, 0);
    while (sim->status == STATUS_OK && events_pop(&sim->events, &event)) {
        if (event.time_ns > EVENTS_END_NS) return too_long(sim);
        handle(sim, system, &event);
        if (sim->events.popped % SETTLE_EVERY == 0) system->check(sim);
        if (sim->ended < sim->count || event.kind == SIM_EVENT_SAMPLE) continue;
        if (is_about_machines(&event)) continue;
        sim->result->duration_s = (double)event.time_ns / 1e9;
    }
    if (sim->status != STATUS_OK) return sim->status;
    system->check(sim);
    ASSERT(sim->ended == sim->count); /* every request ends */
    sim->result->events = sim->events.popped;
    return STATUS_OK;
}

enum status sim_run(const struct sim_cluster *cluster, const struct trace *trace,
                    struct sim_progress progress, struct sim_result **out, struct errmsg *err)
{
    const bool coupled = cluster->system != CLUSTER_MOONCAKE;
    const struct sim_system *system = coupled ? &coupled_system : &mooncake_system;
    struct sim sim = { .cluster = *cluster, .trace = trace, .err = err, .progress = progress };

    enum status status = cluster_check(cluster, err);
    if (status != STATUS_OK) return status;
    status = sim_classes_parse(cluster->classes, cluster->class_shares, &sim.classes, err);
    if (status != STATUS_OK) return status;
    events_init(&sim.events);
    rng_init(&sim.rng, (uint64_t)cluster->seed);
    if (err != NULL) err->text[0] = '\0';
    status = allocate(&sim);
    if (status == STATUS_OK) status = system->create(&sim);
    if (status == STATUS_OK) status = run(&sim, system);
    if (sim.system != NULL) system->destroy(&sim);
    events_fini(&sim.events);
    for (uint32_t i = 0; sim.requests != NULL && i < sim.count; i++)
        free(sim.requests[i].past);
    free(sim.requests);
    free(sim.order);
    if (status != STATUS_OK) {
        if (err != NULL && err->text[0] == '\0') errmsg_set(err, status, "not enough memory");
        sim_result_destroy(sim.result);
        return status;
    }
    *out = sim.result;
    return STATUS_OK;
}

void sim_result_destroy(struct sim_result *result)
{
    if (result == NULL) return;
    free(result->records);
    free(result->samples);
    free(result);
}
