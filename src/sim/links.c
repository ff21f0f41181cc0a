/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants
 *   I1  a flow in use is in exactly two lists: its sender's and its receiver's.
 *   I2  the latest event pushed for a flow has its version, and is when its bytes run out. */
#include "sim/links.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"

#define NONE UINT32_MAX

enum { OUT = 0, IN = 1, SIDES = 2 };

struct flow {
    bool used;
    uint32_t node[SIDES];
    uint32_t next[SIDES], prev[SIDES];
    uint32_t version;
    uint64_t tag;
    uint64_t since_ns; /* `left` was true then */
    double bytes, left, rate;
};

struct side {
    uint32_t head, count;
    double bytes; /* of ended flows */
};

struct links {
    struct links_options options;
    struct events *events;
    struct side *sides[SIDES];
    struct flow *flows;
    uint32_t cap, free, used;
};

enum status links_create(const struct links_options *options, struct events *events,
                         struct links **out)
{
    ASSERT(options->nodes > 0 && options->bytes_s > 0);
    struct links *links = calloc(1, sizeof(*links));
    if (links == NULL) return STATUS_NO_MEMORY;
    links->options = *options;
    links->events = events;
    links->free = NONE;
    for (int s = 0; s < SIDES; s++) {
        links->sides[s] = calloc(options->nodes, sizeof(struct side));
        if (links->sides[s] == NULL) {
            links_destroy(links);
            return STATUS_NO_MEMORY;
        }
        for (uint32_t i = 0; i < options->nodes; i++)
            links->sides[s][i].head = NONE;
    }
    *out = links;
    return STATUS_OK;
}

void links_destroy(struct links *links)
{
    if (links == NULL) return;
    free(links->sides[OUT]);
    free(links->sides[IN]);
    free(links->flows);
    free(links);
}

static enum status take_flow(struct links *links, uint32_t *out)
{
    if (links->free == NONE) {
        const uint32_t cap = links->cap == 0 ? 64 : links->cap * 2;
        struct flow *flows = realloc(links->flows, cap * sizeof(*flows));
        if (flows == NULL) return STATUS_NO_MEMORY;
        links->flows = flows;
        for (uint32_t i = cap; i-- > links->cap;) {
            flows[i] = (struct flow){ .next = { links->free, NONE } };
            links->free = i;
        }
        links->cap = cap;
    }
    *out = links->free;
    ASSERT(!links->flows[*out].used);
    links->free = links->flows[*out].next[OUT];
    return STATUS_OK;
}

static void list_add(struct links *links, uint32_t index, int s)
{
    struct flow *flow = &links->flows[index];
    struct side *side = &links->sides[s][flow->node[s]];

    flow->prev[s] = NONE;
    flow->next[s] = side->head;
    if (side->head != NONE) links->flows[side->head].prev[s] = index;
    side->head = index;
    side->count++;
}

static void list_remove(struct links *links, uint32_t index, int s)
{
    const struct flow *flow = &links->flows[index];
    struct side *side = &links->sides[s][flow->node[s]];

    ASSERT(side->count > 0);
    if (flow->prev[s] == NONE)
        side->head = flow->next[s];
    else
        links->flows[flow->prev[s]].next[s] = flow->next[s];
    if (flow->next[s] != NONE) links->flows[flow->next[s]].prev[s] = flow->prev[s];
    side->count--;
}

/* Brings a flow up to now, gives it the rate of now, and says when it will end. */
static enum status reschedule(struct links *links, uint32_t index)
{
    struct flow *flow = &links->flows[index];
    const uint64_t now = links->events->now_ns;
    const uint32_t out = links->sides[OUT][flow->node[OUT]].count;
    const uint32_t in = links->sides[IN][flow->node[IN]].count;
    ASSERT(flow->used && out > 0 && in > 0);

    flow->left -= flow->rate * (double)(now - flow->since_ns) / 1e9;
    if (flow->left < 0) flow->left = 0;
    flow->since_ns = now;
    flow->rate = links->options.bytes_s / (out > in ? out : in);
    flow->version++;
    const double ns = fmin(ceil(flow->left / flow->rate * 1e9), (double)EVENTS_NEVER_NS);
    return events_push(links->events, (struct event){ .time_ns = now + (uint64_t)ns,
                                                      .kind = links->options.event_kind,
                                                      .who = index,
                                                      .version = flow->version });
}

static enum status reschedule_side(struct links *links, uint32_t node, int s, uint32_t except)
{
    enum status status = STATUS_OK;
    for (uint32_t i = links->sides[s][node].head; status == STATUS_OK && i != NONE;
         i = links->flows[i].next[s]) {
        if (i != except) status = reschedule(links, i);
    }
    return status;
}

enum status links_start(struct links *links, uint32_t from, uint32_t to, double bytes, uint64_t tag)
{
    ASSERT(from < links->options.nodes && to < links->options.nodes && from != to);
    ASSERT(bytes >= 0);
    uint32_t index = NONE;
    enum status status = take_flow(links, &index);
    if (status != STATUS_OK) return status;
    struct flow *flow = &links->flows[index];

    *flow = (struct flow){ .used = true,
                           .node = { from, to },
                           .version = flow->version,
                           .tag = tag,
                           .since_ns = links->events->now_ns,
                           .bytes = bytes,
                           .left = bytes };
    links->used++;
    list_add(links, index, OUT);
    list_add(links, index, IN);
    status = reschedule_side(links, from, OUT, index);
    if (status == STATUS_OK) status = reschedule_side(links, to, IN, NONE);
    return status;
}

/* `moved` bytes of the flow count; it is gone, and those beside it are faster. */
static enum status end_flow(struct links *links, uint32_t index, double moved)
{
    struct flow *flow = &links->flows[index];

    ASSERT(flow->used && moved >= 0);
    list_remove(links, index, OUT);
    list_remove(links, index, IN);
    links->sides[OUT][flow->node[OUT]].bytes += moved;
    links->sides[IN][flow->node[IN]].bytes += moved;
    flow->used = false;
    links->used--;
    enum status status = reschedule_side(links, flow->node[OUT], OUT, NONE);
    if (status == STATUS_OK) status = reschedule_side(links, flow->node[IN], IN, NONE);
    flow->next[OUT] = links->free;
    links->free = index;
    return status;
}

enum status links_event(struct links *links, const struct event *event, bool *ended, uint64_t *tag)
{
    const struct flow *flow = &links->flows[event->who];

    *ended = false;
    ASSERT(event->who < links->cap);
    if (!flow->used || flow->version != event->version) return STATUS_OK;
    *ended = true;
    *tag = flow->tag;
    return end_flow(links, event->who, flow->bytes);
}

enum status links_cancel(struct links *links, links_which_fn *which, void *ctx, double *bytes)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; status == STATUS_OK && i < links->cap; i++) {
        const struct flow *flow = &links->flows[i];
        if (!flow->used || !which(ctx, flow->node[OUT], flow->node[IN], flow->tag)) continue;
        const double since_s = (double)(links->events->now_ns - flow->since_ns) / 1e9;
        const double left = fmax(0, flow->left - flow->rate * since_s);
        *bytes += flow->bytes - left;
        status = end_flow(links, i, flow->bytes - left);
    }
    return status;
}

uint32_t links_flows(const struct links *links)
{
    return links->used;
}

uint32_t links_sending(const struct links *links, uint32_t node)
{
    ASSERT(node < links->options.nodes);
    return links->sides[OUT][node].count;
}

static double rate_of(const struct links *links, uint32_t node, int s)
{
    ASSERT(node < links->options.nodes);
    double sum = 0;
    for (uint32_t i = links->sides[s][node].head; i != NONE; i = links->flows[i].next[s])
        sum += links->flows[i].rate;
    return sum;
}

double links_rate_out(const struct links *links, uint32_t node)
{
    return rate_of(links, node, OUT);
}

double links_rate_in(const struct links *links, uint32_t node)
{
    return rate_of(links, node, IN);
}

double links_bytes_sent(const struct links *links, uint32_t node)
{
    ASSERT(node < links->options.nodes);
    return links->sides[OUT][node].bytes;
}

double links_bytes_received(const struct links *links, uint32_t node)
{
    ASSERT(node < links->options.nodes);
    return links->sides[IN][node].bytes;
}
