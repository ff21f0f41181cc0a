/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants
 *   F1  a machine that is down has no work, no flows, nothing pinned and nothing in its batch.
 *   F2  an event of an attempt that has been given up is out of date by its version. */
#include "sim/failure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/group.h"
#include "sim/inline.h"
#include "sim/mooncake_int.h"

enum { ATTEMPTS_MAX = 16, BACKOFF_MS = 50, BACKOFF_MS_MAX = 1000 }; /* of the live gateway */

/* ---- the schedule ---- */

static bool read_number(const char **at, double *out)
{
    char *end = NULL;
    if (**at < '0' || **at > '9') return false;
    *out = strtod(*at, &end);
    *at = end;
    return *out <= 1e8;
}

static bool read_item(const char **at, struct failure *out)
{
    double node = 0;

    if (**at != 'p' && **at != 'd') return false;
    out->decode = *(*at)++ == 'd';
    if (!read_number(at, &node) || node != floor(node) || *(*at)++ != '@') return false;
    if (!read_number(at, &out->at_s) || *(*at)++ != '+') return false;
    if (!read_number(at, &out->down_s) || out->down_s <= 0 || out->down_s > FAILURE_DOWN_S_MAX)
        return false;
    out->node = (uint32_t)node;
    return **at == '\0' || **at == ' ';
}

enum status failure_parse(const char *text, struct failure out[FAILURES_MAX], uint32_t *count,
                          struct errmsg *err)
{
    const char *at = text;

    for (*count = 0; *at != '\0'; (*count)++) {
        const int len = (int)strcspn(at, " ");
        const char *item = at;
        if (*count == FAILURES_MAX)
            return errmsg_set(err, STATUS_INVALID, "failures: more than %d", FAILURES_MAX);
        if (!read_item(&at, &out[*count]))
            return errmsg_set(err, STATUS_INVALID,
                              "failures: `%.*s` is not like p0@100+30, "
                              "down for at most %d s",
                              len < 64 ? len : 64, item, FAILURE_DOWN_S_MAX);
        at += strspn(at, " ");
    }
    return STATUS_OK;
}

static void schedule(struct sim *sim, double at_s, uint32_t kind, uint32_t machine, double down_s)
{
    const uint64_t at_ns = sim_ns(at_s);
    const uint64_t now = sim->events.now_ns;
    const struct event event = { .time_ns = at_ns > now ? at_ns : now,
                                 .kind = kind,
                                 .who = machine,
                                 .version = (uint32_t)ceil(down_s * 1e3) };
    if (events_push(&sim->events, event) != STATUS_OK) sim_fail(sim, STATUS_NO_MEMORY);
}

/* The next time that chance stops this machine. */
static void schedule_chance(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);
    const double mean_s = sim->cluster.mtbf_s;

    if (mean_s == 0) return;
    const double wait_s = -log(1 - rng_unit(&m->chance)) * mean_s;
    schedule(sim, (double)sim->events.now_ns / 1e9 + fmin(wait_s, 1e8), SIM_EVENT_STOP, machine,
             sim->cluster.mttr_s);
}

void failure_begin(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    struct failure failures[FAILURES_MAX];
    uint32_t count = 0;

    const enum status status = failure_parse(sim->cluster.failures, failures, &count, sim->err);
    if (status != STATUS_OK) sim_fail(sim, status);
    for (uint32_t i = 0; status == STATUS_OK && i < count; i++) {
        const struct failure *f = &failures[i];
        const uint32_t machine = f->node + (f->decode ? (uint32_t)sim->cluster.prefill : 0);
        schedule(sim, f->at_s, SIM_EVENT_STOP, machine, f->down_s);
    }
    rng_init(&m->chance, rng_counter((uint64_t)sim->cluster.seed, 77));
    for (uint32_t i = 0; i < m->machines; i++)
        schedule_chance(sim, i);
}

/* ---- who is hit ---- */

static bool is_hit(const struct sim *sim, const struct sim_request *request, uint32_t machine)
{
    const struct mooncake *m = mooncake_of(sim);
    const bool decodes = m->decode_first + request->decode == machine;
    const bool in_group = request->group != NULL && group_has(request->group, machine);

    switch (request->state) {
    case SIM_QUEUED:
    case SIM_PREFILLING: return decodes || request->cut || in_group || request->prefill == machine;
    case SIM_SENDING: return decodes || request->cut;
    case SIM_LOADING:
    case SIM_JOINING:
    case SIM_DECODING: return decodes;
    case SIM_ARRIVING:
    case SIM_WAITING:
    case SIM_ENDED: return false;
    }
    return false;
}

struct cut {
    struct sim *sim;
    uint32_t machine; /* SIM_NONE: of a request */
    uint32_t who;
    bool only_gathering;
};

static bool flow_touches(void *ctx, uint32_t from, uint32_t to, uint64_t tag)
{
    const struct cut *cut = ctx;
    struct sim_request *request = &cut->sim->requests[mooncake_flow_who(tag)];

    if (from != cut->machine && to != cut->machine) return false;
    if (mooncake_flow_kind(tag) == FLOW_GATHER)
        request->cut_gathering = true;
    else
        request->cut = true;
    return true;
}

static bool flow_is_of(void *ctx, uint32_t from, uint32_t to, uint64_t tag)
{
    const struct cut *cut = ctx;

    ASSERT(from != to);
    if (cut->only_gathering && mooncake_flow_kind(tag) != FLOW_GATHER) return false;
    return mooncake_flow_who(tag) == cut->who;
}

static void cut_flows(struct sim *sim, links_which_fn *which, struct cut cut)
{
    double bytes = 0;
    const enum status status = links_cancel(mooncake_of(sim)->links, which, &cut, &bytes);
    if (status != STATUS_OK) sim_fail(sim, status);
    sim->result->failures.cut_bytes += bytes;
}

/* ---- giving up an attempt ---- */

/* Out of every prefill node's hands. */
static void leave_prefill(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    const struct sim_request *request = &sim->requests[who];

    for (uint32_t i = 0; i < m->prefill_count; i++) {
        struct prefill_node *node = &m->prefill[i];
        if (line_leave(&node->queue, who)) node->queued_ns -= request->estimate_ns;
        if (node->running != who) continue;
        node->running = SIM_NONE;
        node->epoch++; /* F2 */
    }
}

/* Out of every prefill node's memory. */
static void unpin(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    const uint32_t *ids = sim_ids(sim, who);

    for (uint32_t i = request->pinned; request->fetching && i < request->held; i++)
        kvcache_unpin(m->prefill[request->holder].cache, ids[i]);
    request->fetching = false;
    mooncake_unpin(sim, who);
}

/* What it has had of its answer stays with it. */
static void keep_tokens(struct sim *sim, uint32_t who, const struct batch_member *member)
{
    struct decode_node *node = &mooncake_of(sim)->decode[sim->requests[who].decode];

    sim->requests[who].generated += 1 + (uint32_t)(member->done - member->joined);
    sim->requests[who].failures = 0;
    sim_keep_intervals(sim, node->batch, member);
}

static void leave_decode(struct sim *sim, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];

    mooncake_leave_decode(sim, who);
    if (request->state != SIM_JOINING) return;
    sim_queue_leave(sim, &mooncake_of(sim)->decode[request->decode].joining, who);
}

static double backoff_s(const struct sim_request *request)
{
    double ms = BACKOFF_MS;

    if (request->failures <= 1) return 0; /* the first time another node is tried at once */
    for (uint32_t i = 2; i < request->failures && ms < BACKOFF_MS_MAX; i++)
        ms *= 2;
    return fmin(ms, BACKOFF_MS_MAX) / 1e3;
}

static void forget_record(struct sim *sim, uint32_t who)
{
    struct sim_record *record = &sim->result->records[who];

    if (sim->requests[who].generated > 0) return; /* of the placement that had its first token */
    record->reused_tokens = record->fetched_tokens = 0;
    record->queue_s = record->prefill_s = record->transfer_s = 0;
}

static void give_up(struct sim *sim, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];

    cut_flows(sim, flow_is_of, (struct cut){ sim, SIM_NONE, who, false });
    leave_prefill(sim, who);
    unpin(sim, who);
    group_destroy(sim, who);
    if (request->inlined) inline_give_up(sim, who);
    leave_decode(sim, who);
    yolk_conductor_finish(mooncake_of(sim)->conductor, (struct yolk_ticket){ request->ticket },
                          STATUS_CONN_CLOSED, (double)sim->events.now_ns / 1e6);
    forget_record(sim, who);
    request->attempt++; /* F2 */
    request->failures++;
    request->inlined = false;
    request->sent = request->grown = request->reuse = request->held = 0;
    if (request->failures >= ATTEMPTS_MAX) {
        sim_end(sim, who, SIM_FAILED);
        return;
    }
    sim_set_state(sim, who, SIM_WAITING);
    sim->result->failures.placed_again++;
    sim_schedule(sim, backoff_s(request), SIM_EVENT_RETRY, who);
}

/* Blocks on their way to the pool, of a request that does not need them any more. */
static void give_up_gathering(struct sim *sim, uint32_t who)
{
    cut_flows(sim, flow_is_of, (struct cut){ sim, SIM_NONE, who, true });
    unpin(sim, who);
    group_destroy(sim, who);
}

static void give_up_all(struct sim *sim, uint32_t machine)
{
    for (uint32_t who = 0; who < sim->count; who++) {
        struct sim_request *request = &sim->requests[who];
        if (is_hit(sim, request, machine))
            give_up(sim, who);
        else if (request->cut_gathering)
            give_up_gathering(sim, who);
        request->cut = request->cut_gathering = false;
    }
}

/* ---- a machine ---- */

/* Where nodes change their roles, every machine has both halves. */
static bool has_prefill(const struct mooncake *m, uint32_t machine)
{
    return machine < m->prefill_count;
}

static bool has_decode(const struct mooncake *m, uint32_t machine)
{
    return machine >= m->decode_first;
}

/* The conductor knows it. */
static bool is_decoding(const struct sim *sim, uint32_t machine)
{
    const struct mooncake *m = mooncake_of(sim);
    if (!sim->cluster.elastic) return has_decode(m, machine);
    return yolk_conductor_roles(m->conductor, m->prefill[machine].id) & YOLK_ROLE_DECODE;
}

static struct yolk_instance_id id_of(const struct mooncake *m, uint32_t machine)
{
    return has_prefill(m, machine) ? m->prefill[machine].id
                                   : m->decode[machine - m->decode_first].id;
}

static void count_up(struct mooncake *m, uint32_t machine, uint32_t change)
{
    if (has_prefill(m, machine))
        m->prefill_up += change;
    else
        m->decode_up += change;
}

static void empty_batch(struct sim *sim, struct decode_node *node)
{
    struct batch_member member;

    while (batch_drop(node->batch, &member))
        keep_tokens(sim, member.who, &member);
    node->stepping = false;
    node->epoch++; /* F2 */
}

static void lose_dram(struct sim *sim, struct prefill_node *node)
{
    uint32_t id;

    ASSERT(kvcache_pinned(node->cache) == 0 && node->queue.count == 0); /* F1 */
    while (kvcache_lose(node->cache, &id))
        sim->result->failures.lost_blocks++;
    sim->result->failures.kept_blocks += kvcache_count(node->cache);
}

void failure_stop(struct sim *sim, const struct event *event)
{
    struct mooncake *m = mooncake_of(sim);
    const uint32_t machine = event->who;
    const double now_s = (double)sim->events.now_ns / 1e9, down_s = event->version / 1e3;

    if (sim->ended == sim->count || m->machine[machine].down) return;
    m->machine[machine].down = true;
    count_up(m, machine, -1u);
    yolk_conductor_suspect(m->conductor, id_of(m, machine), true);
    if (yolk_conductor_draining(m->conductor, id_of(m, machine)))
        yolk_conductor_flip_end(m->conductor, id_of(m, machine), false, now_s * 1e3);
    if (has_decode(m, machine)) empty_batch(sim, &m->decode[machine - m->decode_first]);
    cut_flows(sim, flow_touches, (struct cut){ sim, machine, SIM_NONE, false });
    give_up_all(sim, machine);
    if (has_prefill(m, machine)) lose_dram(sim, &m->prefill[machine]);
    sim->result->failures.stopped[is_decoding(sim, machine)]++;
    schedule(sim, now_s + down_s, SIM_EVENT_RETURN, machine, 0);
    if (sim->cluster.fail_forget_s < down_s)
        schedule(sim, now_s + sim->cluster.fail_forget_s, SIM_EVENT_FORGET, machine, 0);
    for (uint32_t i = 0; i < m->prefill_count; i++)
        mooncake_start_prefill(sim, i);
    mooncake_place_waiting(sim);
}

void failure_forget(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);

    ASSERT(m->machine[machine].down && !m->machine[machine].forgotten);
    m->machine[machine].forgotten = true;
    yolk_conductor_remove(m->conductor, id_of(m, machine));
}

/* What lies on its SSD. */
static void announce(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);
    uint32_t cursor = KVCACHE_START, id;

    if (!has_prefill(m, machine)) return;
    while (kvcache_next(m->prefill[machine].cache, &cursor, &id)) {
        if (yolk_conductor_stored(m->conductor, m->prefill[machine].id, &m->names[id], 1,
                                  YOLK_TIER_SSD) != STATUS_OK)
            sim_fail(sim, STATUS_FULL);
    }
}

static void welcome(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);

    if (m->machine[machine].forgotten) {
        const enum status status = mooncake_add_machine(sim, machine);
        if (status == STATUS_OK) announce(sim, machine);
        if (status != STATUS_OK) sim_fail(sim, status);
        return;
    }
    yolk_conductor_resync_begin(m->conductor, id_of(m, machine));
    announce(sim, machine);
    yolk_conductor_resync_end(m->conductor, id_of(m, machine));
    yolk_conductor_suspect(m->conductor, id_of(m, machine), false);
}

void failure_return(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);

    ASSERT(m->machine[machine].down);
    welcome(sim, machine);
    m->machine[machine] = (struct machine){ false, false };
    count_up(m, machine, 1);
    if (sim->ended == sim->count) return;
    schedule_chance(sim, machine);
    mooncake_place_waiting(sim);
}

void failure_retry(struct sim *sim, uint32_t who)
{
    const struct slo_class *class = sim_class(sim, who);

    ASSERT(sim->requests[who].state == SIM_WAITING);
    sim->requests[who].priority = class != NULL ? class->priority : 0;
    sim_queue_insert(sim, &mooncake_of(sim)->waiting, who);
    mooncake_place_waiting(sim);
}
