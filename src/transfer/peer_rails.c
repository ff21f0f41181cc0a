/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/peer_rails.c - the initiator's rails: over which one a slice goes, when lanes are opened
 * on them, and what is done about one that fails.
 *
 * A peer starts with one rail, its name, from whatever address the kernel chooses. When a greeting
 * has shown that both ends have several addresses, they tell each other (RAILS), and the pairs
 * become rails beside it; the one that is the same way as the name takes its place. Lanes are
 * opened on a rail when there is work that found no room.
 *
 * A rail fails when a connect on it fails, or when it is silent while others speak (rail.h). Then
 * its lanes are closed: READs go elsewhere at once, WRITEs as soon as the target has confirmed, on
 * another rail, that it lands nothing more of them (F2 in peer.c). While there is work it is asked
 * again every few tens of milliseconds with a connect of at most PROBE_NS.
 *
 * A peer opened by a name has no address until that has been looked up (naming.c); it is looked up
 * again whenever no lane works. What listens there must be the start that the entry speaks of: if
 * it is not, on any rail, the rail is paused and the name is looked up again.
 *
 * A further address could belong to somebody else. So a lane on a further rail must meet the start
 * of the peer that the others met, or one that calls itself the same; otherwise only the rail is
 * paused. Whether the process is no more (F3) is decided by its name alone. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum { CROWDED_MS = 20 }; /* before looking again for a connection that can be spared */

/* ---- choosing ---- */

static bool lane_fits(const struct lane *lane, int class)
{
    const uint64_t window =
        class == YOLK_TRANSFER_BACKGROUND ? WINDOW_BACKGROUND_SIZE : WINDOW_SIZE;

    if (lane->state != LANE_READY || !lane_has_room(lane)) return false;
    return lane->inflight_count < WIRE_REQUESTS_MAX && lane->inflight_size < window;
}

/* A fence does not wait behind what a fabric has in flight, it closes the endpoint; and with little
 * in flight both ends are woken for every message. */
static uint64_t window_of(const struct lane *lane, int class)
{
    const uint64_t window = rail_window(lane->rail, class);
    const bool widen = lane->session->fabric && class != YOLK_TRANSFER_BACKGROUND &&
                       !lane->rail->draining && window < FABRIC_WINDOW_MIN;

    return widen ? FABRIC_WINDOW_MIN : window;
}

static struct lane *lane_on(const struct peer *peer, const struct rail *rail, int class)
{
    struct lane *best = NULL;

    for (uint32_t i = 0; i < peer->lanes_high; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane == NULL || lane->rail != rail || !lane_fits(lane, class)) continue;
        if (best == NULL || lane->inflight_size < best->inflight_size) best = lane;
    }
    /* What is only copied on this host is bounded by the lane alone. */
    if (best == NULL || best->session->shm) return best;
    return rail->inflight < window_of(best, class) ? best : NULL;
}

static enum rail_rank rank_for(const struct peer *peer, const struct rail *rail,
                               const struct buffer *buffer)
{
    enum rail_rank rank = rail->remote_rank;

    if (rail->local_index >= 0) {
        const enum rail_rank ours =
            topology_rank(&peer->transfer->topology, buffer->location, (uint32_t)rail->local_index);
        if (ours > rank) rank = ours;
    }
    return rank;
}

static bool rail_works(const struct peer *peer, const struct rail *rail)
{
    if (!rail->used || rail->state != RAIL_UP) return false;
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        const struct lane *lane = peer->lanes[i];
        if (lane != NULL && lane->rail == rail && lane->state == LANE_READY) return true;
    }
    return false;
}

/* The best score of a working rail of a better rank: nothing of a worse one is used below it. */
static uint64_t score_to_beat(const struct peer *peer, const struct buffer *buffer,
                              enum rail_rank rank, uint64_t length)
{
    uint64_t best = UINT64_MAX;

    for (uint32_t i = 0; i < peer->rail_count; i++) {
        const struct rail *rail = &peer->rails[i];
        const enum rail_rank its = rank_for(peer, rail, buffer);
        if (its >= rank || !rail_works(peer, rail)) continue;
        const uint64_t score = rail_score(rail, length, its);
        if (score < best) best = score;
    }
    return best;
}

struct lane *peer_pick_lane(struct peer *peer, int class, const struct buffer *buffer)
{
    const uint64_t length = peer->transfer->slice_size;
    struct lane *best = NULL;
    uint64_t best_score = UINT64_MAX;

    if (peer->rail_count == 1) return lane_on(peer, &peer->rails[0], class);
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        struct rail *rail = &peer->rails[i];
        if (!rail->used || rail->state != RAIL_UP) continue;
        struct lane *lane = lane_on(peer, rail, class);
        if (lane == NULL) continue;
        const enum rail_rank rank = rank_for(peer, rail, buffer);
        const uint64_t score = rail_score(rail, length, rank);
        if (score >= best_score) continue;
        if (rank != RAIL_PREFERRED && score > score_to_beat(peer, buffer, rank, length)) continue;
        best = lane;
        best_score = score;
    }
    return best;
}

/* ---- connecting ---- */

static uint32_t lanes_of_rail(const struct peer *peer)
{
    const uint32_t share = YOLK_TRANSFER_LANES_MAX / (peer->rail_count > 0 ? peer->rail_count : 1);
    const uint32_t wanted = peer->transfer->lanes_per_peer;

    return wanted < share ? wanted : share;
}

static uint32_t slot_free_at(const struct peer *peer)
{
    uint32_t i = 0;

    while (i < YOLK_TRANSFER_LANES_MAX && peer->lanes[i] != NULL)
        i++;
    return i;
}

/* The address of the name is not used for data as long as other rails work. */
static bool rail_wanted(const struct peer *peer, const struct rail *rail)
{
    if (!rail->used || rail->lanes >= lanes_of_rail(peer)) return false;
    if (rail->remote_rank != RAIL_LAST) return true;
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        if (&peer->rails[i] != rail && rail_works(peer, &peer->rails[i])) return false;
    }
    return true;
}

static void connect_on(struct peer *peer, struct rail *rail)
{
    const uint32_t at = slot_free_at(peer);
    enum status status;

    if (at == YOLK_TRANSFER_LANES_MAX) return;
    rail_connect(rail);
    struct lane *lane = lane_connect(peer, rail, &status);
    if (lane != NULL) {
        lane->index = at;
        peer->lanes[at] = lane;
        if (at >= peer->lanes_high) peer->lanes_high = at + 1;
        rail->lanes++;
        return;
    }
    rail->connecting = false;
    LOG_WARN("transfer", "connect_failed", "peer=%s rail=%s reason=%s", peer->name, rail->remote,
             status_name(status));
    if (peer->rail_count == 1) peer_fail_all(peer, status);
    rail_fail(rail, rail_works(peer, rail), env_now_ns(peer->transfer->env));
}

/* Something would gain from one more rail: more is under way than a rail begins with. */
bool peer_rails_lacking(const struct peer *peer)
{
    uint64_t inflight = 0;
    bool lacking = false;

    if (peer->rail_count < 2) return false;
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        const struct rail *rail = &peer->rails[i];
        inflight += rail->inflight;
        lacking = lacking || (rail->used && rail->lanes == 0 && rail->remote_rank != RAIL_LAST);
    }
    return lacking && inflight >= peer->transfer->slice_size;
}

/* One lane of a rail is always opened alone, so that a dead peer costs one connect at a time. */
void peer_connect_more(struct peer *peer)
{
    struct yolk_transfer *transfer = peer->transfer;
    const uint64_t now = env_now_ns(transfer->env);
    uint64_t next_ns = UINT64_MAX;

    for (uint32_t i = 0; i < peer->rail_count; i++) {
        struct rail *rail = &peer->rails[i];
        if (rail->connecting || !rail_wanted(peer, rail)) continue;
        if (!rail_may_connect(rail, now)) {
            if (rail->retry_ns < next_ns) next_ns = rail->retry_ns;
        } else if (rail == &peer->rails[0] && naming_wants(peer)) {
            rail_connect(rail); /* from now on until peer_rails_found() */
            naming_find(peer);
        } else if (transfer->connected_count < transfer->lanes_max || lane_evict(transfer)) {
            connect_on(peer, rail);
        } else if (now + CROWDED_MS * ENV_NS_PER_MS < next_ns) {
            next_ns = now + CROWDED_MS * ENV_NS_PER_MS;
        }
    }
    if (next_ns != UINT64_MAX) env_timer_set(transfer->env, &peer->timer, next_ns);
}

void peer_connect_failed(struct peer *peer, struct rail *rail, enum status status)
{
    struct env *env = peer->transfer->env;
    const bool named = rail == &peer->rails[0];
    const bool hopeless = named && (status == STATUS_DENIED || status == STATUS_UNSUPPORTED ||
                                    status == STATUS_PROTOCOL);

    rail->connecting = false;
    rail_fail(rail, rail_works(peer, rail), env_now_ns(env));
    peer->failures++;
    if (named) peer->found = false;
    if (named) peer->refusals = status == STATUS_CONN_REFUSED ? peer->refusals + 1 : 0;
    /* A further lane that does not come about is no reason: the others go on. */
    if (!peer_any_ready(peer)) {
        const uint32_t failures_max = peer->transfer->retries_max * peer->rail_count;
        if (hopeless || peer->failures > failures_max) peer_fail_all(peer, status);
        if (peer->refusals >= REFUSALS_GONE) peer_lost_are_gone(peer);
    }
    if (!env_timer_armed(&peer->timer) || peer->timer.deadline_ns > rail->retry_ns) {
        env_timer_set(env, &peer->timer, rail->retry_ns);
    }
}

void peer_rails_found(struct peer *peer, enum status status, const struct metadata_entry *entry)
{
    struct yolk_transfer *transfer = peer->transfer;
    struct rail *rail = &peer->rails[0];

    ASSERT(peer->named && rail->connecting);
    if (status == STATUS_OK) {
        if (strcmp(rail->remote, entry->address) != 0) peer->refusals = 0;
        memcpy(rail->remote, entry->address, sizeof(rail->remote));
        peer->found_generation = entry->generation;
    } else if (rail->remote[0] == '\0') {
        LOG_WARN("transfer", "name_not_found", "peer=%s reason=%s", peer->name,
                 status_name(status));
        peer_connect_failed(peer, rail, status);
        return;
    }
    /* Nobody could be asked, or nobody knows any more: where it was, if it is still that start. */
    peer->found = true;
    rail->connecting = false;
    if (transfer->connected_count < transfer->lanes_max || lane_evict(transfer)) {
        connect_on(peer, rail);
    } else {
        peer_connect_failed(peer, rail, STATUS_FULL);
    }
}

/* At the address of a name somebody else may have come to listen. */
static bool lane_meets_name(struct lane *lane)
{
    struct peer *peer = lane->peer;
    struct rail *rail = lane->rail;

    if (lane->session->generation == peer->found_generation) {
        if (rail == &peer->rails[0]) peer->found = true;
        return true;
    }
    LOG_WARN("transfer", "name_stale", "peer=%s rail=%s", peer->name, rail->remote);
    lane_die(lane, STATUS_STALE);
    peer_connect_failed(peer, rail, STATUS_STALE);
    return false;
}

bool peer_lane_is_ours(struct lane *lane)
{
    const struct peer *peer = lane->peer;
    struct wire_hello hello;

    if (peer->named) return lane_meets_name(lane);
    if (lane->rail == &peer->rails[0] || lane->session->generation == peer->generation) return true;
    const enum status status = wire_hello_decode(lane->hello_theirs, WIRE_HELLO_SIZE, &hello);
    if (status == STATUS_OK && strcmp(hello.name, peer->met_name) == 0) return true;
    LOG_WARN("transfer", "rail_foreign", "peer=%s rail=%s", peer->name, lane->rail->remote);
    lane->rail->connecting = false;
    rail_fail(lane->rail, false, env_now_ns(peer->transfer->env));
    lane_die(lane, STATUS_STALE);
    return false;
}

/* ---- telling each other ---- */

bool lane_send_rails(struct lane *lane)
{
    const struct yolk_transfer *transfer = lane->transfer;
    const struct wire_header header = { .opcode = WIRE_RAILS, .length = WIRE_RAILS_SIZE };
    uint8_t bytes[WIRE_RAILS_SIZE];
    uint64_t sizes[TOPOLOGY_LOCATIONS_MAX + 1] = { 0 };
    struct wire_rails rails;
    uint32_t home = 0;

    for (uint32_t i = 0; i < transfer->buffers.count; i++) {
        const struct buffer *buffer = transfer->buffers.sorted[i];
        sizes[buffer->location] += buffer->length;
        if (sizes[buffer->location] > sizes[home]) home = buffer->location;
    }
    topology_describe(&transfer->topology, home, &rails);
    wire_rails_encode(&rails, bytes);
    return lane_send_control(lane, &header, bytes, sizeof(bytes));
}

void peer_rails_ask(struct lane *lane)
{
    struct peer *peer = lane->peer;

    if (!lane->session->rails || peer->transfer->topology.rail_count == 0) return;
    if (peer->rails_of == lane->session->generation) return;
    if (lane_send_rails(lane)) {
        peer->rails_of = lane->session->generation;
    } else {
        lane_die(lane, STATUS_NO_MEMORY);
    }
}

static void rail_close(struct peer *peer, struct rail *rail, enum status why)
{
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane != NULL && lane->rail == rail) lane_die(lane, why);
    }
}

static struct rail *rail_find(struct peer *peer, const char *local, const char *remote)
{
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        struct rail *rail = &peer->rails[i];
        const bool same = strcmp(rail->local, local) == 0 && strcmp(rail->remote, remote) == 0;
        if (rail->used && same) return rail;
    }
    return NULL;
}

static struct rail *rail_new(struct peer *peer, const char *local, const char *remote,
                             uint32_t speed_mbps)
{
    uint32_t at = 1;

    while (at < peer->rail_count && peer->rails[at].used)
        at++;
    ASSERT(at <= RAILS_MAX);
    if (at == peer->rail_count) peer->rail_count++;
    rail_init(&peer->rails[at], local, remote, speed_mbps);
    return &peer->rails[at];
}

/* True if the kernel's choice for the name is this very pair. */
static bool same_way(const struct lane *lane, const char *local, const char *remote)
{
    return lane->rail == &lane->peer->rails[0] &&
           strcmp(env_stream_local_host(lane->stream), local) == 0 &&
           (strcmp(env_stream_peer(lane->stream), remote) == 0 ||
            strcmp(lane->rail->remote, remote) == 0);
}

static struct rail *rail_learn(struct lane *lane, uint32_t ours, const struct wire_rail *theirs)
{
    struct peer *peer = lane->peer;
    const struct env_interface *interface = &peer->transfer->topology.rails[ours].interface;
    uint32_t speed = interface->speed_mbps;
    struct rail *rail = rail_find(peer, interface->address, theirs->address);

    if (theirs->speed_mbps != 0 && (speed == 0 || theirs->speed_mbps < speed)) {
        speed = theirs->speed_mbps;
    }
    if (rail == NULL && same_way(lane, interface->address, theirs->address)) {
        rail = &peer->rails[0];
        memcpy(rail->local, interface->address, sizeof(rail->local));
    }
    if (rail == NULL && peer->rails[0].local_index == (int)ours) rail = &peer->rails[0];
    if (rail == NULL) rail = rail_new(peer, interface->address, theirs->address, speed);
    rail->local_index = (int)ours;
    rail->remote_rank = theirs->rank == 0 ? RAIL_PREFERRED : RAIL_SECONDARY;
    return rail;
}

enum status peer_rails_learn(struct lane *lane, const struct wire_rails *theirs)
{
    struct peer *peer = lane->peer;
    const struct topology *topology = &peer->transfer->topology;
    int pair[RAILS_MAX];
    uint32_t kept = 1; /* bit i: rails[i]; the name stays */
    uint32_t learnt = 0;

    if (peer->rails_of != lane->session->generation) return STATUS_PROTOCOL;
    topology_pair(topology, theirs, pair);
    /* Those that are no longer there make room first. */
    for (uint32_t i = 0; i < topology->rail_count; i++) {
        if (pair[i] < 0) continue;
        const struct rail *rail =
            rail_find(peer, topology->rails[i].interface.address, theirs->rails[pair[i]].address);
        if (rail != NULL) kept |= 1u << (rail - peer->rails);
    }
    for (uint32_t i = 1; i < peer->rail_count; i++) {
        if ((kept & 1u << i) != 0 || !peer->rails[i].used) continue;
        rail_close(peer, &peer->rails[i], STATUS_STALE);
        peer->rails[i].used = false;
    }
    if (lane->state != LANE_READY) return STATUS_OK; /* it was on one of those */
    peer->rails[0].remote_rank = RAIL_LAST;
    for (uint32_t i = 0; i < topology->rail_count; i++) {
        if (pair[i] < 0) continue;
        rail_learn(lane, i, &theirs->rails[pair[i]]);
        learnt++;
    }
    if (learnt == 0) peer->rails[0].remote_rank = RAIL_PREFERRED;
    LOG_INFO("transfer", "rails_met", "peer=%s rails=%u", peer->name, learnt);
    peer_kick(peer);
    return STATUS_OK;
}

/* ---- watching ---- */

static void rail_pause(struct peer *peer, struct rail *rail)
{
    struct yolk_transfer *transfer = peer->transfer;

    LOG_WARN("transfer", "rail_silent", "peer=%s rail=%s inflight=%llu", peer->name, rail->remote,
             (unsigned long long)rail->inflight);
    transfer->stats.rail_pauses++;
    rail_fail(rail, false, env_now_ns(transfer->env));
    rail_close(peer, rail, STATUS_TIMEOUT);
    peer_kick(peer);
}

/* An answer shows that the peer is well; one ping at a time on a rail. */
static void rail_ask(struct peer *peer, const struct rail *rail)
{
    const struct wire_header ping = { .opcode = WIRE_PING };

    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane == NULL || lane->rail != rail || lane->state != LANE_READY) continue;
        if (lane->frames_used == 0 && lane_send(lane, FRAME_CONTROL, &ping, NULL, false)) {
            lane_flush(lane);
        }
        return;
    }
}

static void others_ask(struct peer *peer, uint32_t suspect)
{
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        const struct rail *rail = &peer->rails[i];
        if (i != suspect && rail->used && rail->state == RAIL_UP && rail->busy_ns == 0) {
            rail_ask(peer, rail);
        }
    }
}

static void on_watch(void *ctx)
{
    struct peer *peer = ctx;
    const uint64_t now = env_now_ns(peer->transfer->env);

    for (uint32_t i = 0; i < peer->rail_count; i++) {
        if (!peer->rails[i].used || peer->rails[i].state != RAIL_UP) continue;
        if (rail_suspect(&peer->rails[i], now)) others_ask(peer, i);
        if (rail_silent(peer->rails, peer->rail_count, i, now)) rail_pause(peer, &peer->rails[i]);
    }
    peer_rails_watch(peer);
}

void peer_rails_watch(struct peer *peer)
{
    struct env *env = peer->transfer->env;

    if (peer->rail_count < 2 || env_timer_armed(&peer->watch)) return;
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        if (peer->rails[i].used && peer->rails[i].busy_ns != 0) {
            env_timer_set(env, &peer->watch, env_now_ns(env) + RAIL_WATCH_NS);
            return;
        }
    }
}

void peer_rails_init(struct peer *peer)
{
    rail_init(&peer->rails[0], "", peer->named ? "" : peer->name, 0);
    peer->rails[0].proven = true; /* somebody gave us the name */
    peer->rail_count = 1;
    env_timer_init(&peer->watch, on_watch, peer);
}

/* ---- what there is ---- */

static void rail_describe(const struct peer *peer, const struct rail *rail,
                          struct yolk_transfer_rail *out)
{
    *out = (struct yolk_transfer_rail){ .state = rail_state_name(rail->state),
                                        .lanes = rail->lanes,
                                        .rank = (uint32_t)rail->remote_rank,
                                        .rate = rail->rate,
                                        .inflight = rail->inflight,
                                        .latency_us = rail->latency_ns / ENV_NS_PER_US,
                                        .bytes = rail->bytes,
                                        .slices = rail->slices,
                                        .pauses = rail->pauses };
    memcpy(out->peer, peer->name, sizeof(out->peer));
    memcpy(out->local, rail->local, sizeof(out->local));
    memcpy(out->remote, rail->remote, sizeof(out->remote));
}

uint32_t peer_rails_describe(const struct peer *peer, struct yolk_transfer_rail out[RAILS_MAX + 1])
{
    for (uint32_t i = 0; i < peer->rail_count; i++) {
        rail_describe(peer, &peer->rails[i], &out[i]);
        if (!peer->rails[i].used) out[i].state = NULL;
    }
    return peer->rail_count;
}

/* The rails that work share the load; a copy goes as fast as copies went. */
uint64_t peer_predict_us(const struct peer *peer, uint64_t length)
{
    const uint64_t copy_rate = peer->transfer->copy_rate;
    uint64_t rate = 0, inflight = 0, latency_ns = 0;
    bool shm = peer->local;

    for (uint32_t i = 0; i < peer->rail_count; i++) {
        const struct rail *rail = &peer->rails[i];
        if (!rail_works(peer, rail) || !rail->measured) continue;
        if (latency_ns == 0 || rail->latency_min_ns < latency_ns) latency_ns = rail->latency_min_ns;
        rate += rail->rate;
        inflight += rail->inflight;
    }
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX && !shm; i++) {
        const struct lane *lane = peer->lanes[i];
        shm = lane != NULL && lane->state == LANE_READY && lane->session->shm;
    }
    if (shm) return copy_rate != 0 ? 1 + length * 1000000 / copy_rate : 0;
    if (rate == 0) return 0;
    return (uint64_t)((double)(length + inflight) * 1e6 / (double)rate) + latency_ns / 1000;
}

uint32_t yolk_transfer_rails(const struct yolk_transfer *transfer, struct yolk_transfer_rail *out,
                             uint32_t max)
{
    uint32_t count = 0;

    if (transfer == NULL || (out == NULL && max > 0)) return 0;
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        const struct peer *peer = transfer->peers[i];
        for (uint32_t j = 0; j < peer->rail_count; j++) {
            if (!peer->rails[j].used) continue;
            if (count < max) rail_describe(peer, &peer->rails[j], &out[count]);
            count++;
        }
    }
    return count;
}
