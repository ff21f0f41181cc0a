/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/errand.c - notices and probes: small questions to a peer, each answered once.
 *
 *     given --its batch COMPLETED--> waiting --a lane is ready--> asked --answer--> told
 *        `---- a task did not ----> told      ^                     |
 *                                             `---- lane lost ------'
 *
 * A probe is a PING with a number, which every peer answers. A notice is NOTIFY; since a lost lane
 * may have delivered it, it is sent again with the same number, and the target, which remembers the
 * highest number it took from each start of a peer, takes it only once. So notices of one peer are
 * asked in the order of their numbers: at most one is under way.
 *
 * Limits: YOLK_TRANSFER_ERRANDS_MAX of ours, YOLK_TRANSFER_NOTICES_MAX that nobody took. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

_Static_assert(WIRE_NOTICE_NAME_SIZE + YOLK_TRANSFER_NOTICE_SIZE_MAX <= WIRE_CONTROL_MAX,
               "a notice is one frame");

static void push(struct errand_list *list, struct errand *errand)
{
    errand->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = errand;
    } else {
        list->head = errand;
    }
    list->tail = errand;
}

static void take_out(struct errand_list *list, const struct errand *errand)
{
    struct errand **link = &list->head, *before = NULL;

    while (*link != NULL && *link != errand) {
        before = *link;
        link = &(*link)->next;
    }
    if (*link == NULL) return;
    *link = errand->next;
    if (list->tail == errand) list->tail = before;
}

static bool grow(struct yolk_transfer *transfer)
{
    if (transfer->errands != NULL) return false;
    transfer->errands = calloc(YOLK_TRANSFER_ERRANDS_MAX, sizeof(struct errand));
    if (transfer->errands == NULL) return false;
    for (int i = 0; i < YOLK_TRANSFER_ERRANDS_MAX; i++)
        push(&transfer->errands_free, &transfer->errands[i]);
    return true;
}

static void on_timer(void *ctx)
{
    struct errand *errand = ctx;
    struct yolk_transfer *transfer = errand->transfer;
    const enum status fate = errand->fate == STATUS_OK ? STATUS_TIMEOUT : errand->fate;
    const enum status status = fate == STATUS_PENDING ? STATUS_OK : fate;
    const yolk_transfer_told_fn on_told = errand->on_told;
    const uint64_t rtt_us = status == STATUS_OK ? 1 + errand->rtt_ns / ENV_NS_PER_US : 0;
    void *told_ctx = errand->ctx;

    take_out(errand->batch_list != NULL ? errand->batch_list : &errand->peer->errands, errand);
    errand->peer->tasks--;
    push(&transfer->errands_free, errand);
    if (on_told != NULL) on_told(told_ctx, status, rtt_us);
}

/* From the loop, soon: nobody is called back from inside the call that caused it. */
static void tell_soon(struct errand *errand, enum status fate)
{
    errand->fate = fate;
    errand->lane = NULL;
    env_timer_set(errand->transfer->env, &errand->timer, 0);
}

static struct errand *errand_new(struct yolk_transfer *transfer, struct peer *peer,
                                 uint64_t timeout_ns, yolk_transfer_told_fn on_told, void *ctx)
{
    if (transfer->errands_free.head == NULL && !grow(transfer)) return NULL;
    struct errand *errand = transfer->errands_free.head;
    take_out(&transfer->errands_free, errand);
    memset(errand, 0, sizeof(*errand));
    errand->transfer = transfer;
    errand->peer = peer;
    errand->on_told = on_told;
    errand->ctx = ctx;
    peer->tasks++;
    env_timer_init(&errand->timer, on_timer, errand);
    const uint64_t now = env_now_ns(transfer->env);
    const uint64_t end = now + timeout_ns;
    env_timer_set(transfer->env, &errand->timer, end < now ? UINT64_MAX : end);
    return errand;
}

static enum status keep(struct yolk_transfer *transfer, const uint8_t *payload, size_t len)
{
    struct notices *notices = &transfer->notices;

    if (notices->all == NULL) {
        notices->all = calloc(YOLK_TRANSFER_NOTICES_MAX, sizeof(struct yolk_transfer_notice));
        if (notices->all == NULL) return STATUS_NO_MEMORY;
    }
    if (notices->count == YOLK_TRANSFER_NOTICES_MAX) return STATUS_FULL;
    struct yolk_transfer_notice *notice =
        &notices->all[(notices->head + notices->count++) % YOLK_TRANSFER_NOTICES_MAX];
    memset(notice, 0, sizeof(*notice));
    memcpy(notice->name, payload, WIRE_NOTICE_NAME_SIZE);
    notice->name[WIRE_NOTICE_NAME_SIZE - 1] = '\0';
    notice->len = len - WIRE_NOTICE_NAME_SIZE;
    memcpy(notice->message, payload + WIRE_NOTICE_NAME_SIZE, notice->len);
    return STATUS_OK;
}

static void give(struct errand *errand)
{
    struct peer *peer = errand->peer;

    errand->number = ++errand->transfer->errand_serial;
    push(&peer->errands, errand);
    if (peer->local) {
        enum status status = STATUS_OK;
        if (!errand->probe) status = keep(errand->transfer, errand->payload, errand->len);
        tell_soon(errand, status == STATUS_OK ? STATUS_PENDING : status);
        return;
    }
    peer_kick(peer);
}

void errand_release(struct errand_list *list, bool completed)
{
    while (list->head != NULL) {
        struct errand *errand = list->head;
        take_out(list, errand);
        errand->batch_list = NULL;
        if (completed) {
            give(errand);
        } else {
            tell_soon(errand, STATUS_CANCELLED);
        }
    }
}

bool errand_waiting(const struct peer *peer)
{
    for (const struct errand *errand = peer->errands.head; errand != NULL; errand = errand->next) {
        if (errand->lane == NULL && errand->fate == STATUS_OK) return true;
    }
    return false;
}

static bool ask(struct lane *lane, struct errand *errand)
{
    const struct wire_header ping = { .opcode = WIRE_PING, .request = errand->number };
    const struct wire_header notify = { .opcode = WIRE_NOTIFY,
                                        .request = errand->number,
                                        .length = errand->len };

    if (!lane_has_room(lane)) return false;
    const bool sent = errand->probe
                          ? lane_send(lane, FRAME_CONTROL, &ping, NULL, false)
                          : lane_send_control(lane, &notify, errand->payload, errand->len);
    if (!sent) return false;
    errand->lane = lane;
    errand->sent_ns = env_now_ns(lane->transfer->env);
    return true;
}

void errand_schedule(struct peer *peer)
{
    struct lane *lane = NULL;
    bool notice_out = false;

    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX && lane == NULL; i++) {
        if (peer->lanes[i] != NULL && peer->lanes[i]->state == LANE_READY) lane = peer->lanes[i];
    }
    if (lane == NULL) return;
    for (struct errand *errand = peer->errands.head; errand != NULL; errand = errand->next) {
        const bool out = errand->lane != NULL;
        if (!errand->probe && !out && errand->fate == STATUS_OK && !notice_out) {
            if (!lane->session->notify) {
                tell_soon(errand, STATUS_UNSUPPORTED);
                continue;
            }
            if (!ask(lane, errand)) return;
        } else if (errand->probe && !out && errand->fate == STATUS_OK && !ask(lane, errand)) {
            return;
        }
        notice_out = notice_out || (!errand->probe && errand->fate == STATUS_OK);
    }
}

void errand_fail_waiting(struct peer *peer, enum status status)
{
    for (struct errand *errand = peer->errands.head; errand != NULL; errand = errand->next) {
        if (errand->lane == NULL && errand->fate == STATUS_OK) tell_soon(errand, status);
    }
}

void errand_lane_gone(struct lane *lane)
{
    for (struct errand *errand = lane->peer->errands.head; errand != NULL; errand = errand->next) {
        if (errand->lane == lane) errand->lane = NULL; /* again, on another */
    }
}

bool errand_answered(struct lane *lane, uint64_t number, bool probe, enum status status)
{
    for (struct errand *errand = lane->peer->errands.head; errand != NULL; errand = errand->next) {
        if (errand->lane != lane || errand->number != number || errand->probe != probe) continue;
        errand->rtt_ns = env_now_ns(lane->transfer->env) - errand->sent_ns;
        tell_soon(errand, status == STATUS_OK ? STATUS_PENDING : status);
        peer_kick(lane->peer);
        return true;
    }
    return false;
}

/* ---- the other side ---- */

enum status errand_take(struct lane *lane)
{
    struct wire_header ack = { .opcode = WIRE_NOTIFY_ACK, .request = lane->head.request };
    const uint64_t len = lane->head.length;

    if (len < WIRE_NOTICE_NAME_SIZE ||
        len > WIRE_NOTICE_NAME_SIZE + YOLK_TRANSFER_NOTICE_SIZE_MAX) {
        return STATUS_PROTOCOL;
    }
    if (lane->head.request > lane->session->noticed) { /* else it was taken, and the answer lost */
        ack.status = keep(lane->transfer, lane->control, (size_t)len);
        if (ack.status == STATUS_OK) lane->session->noticed = lane->head.request;
    }
    return lane_send(lane, FRAME_CONTROL, &ack, NULL, false) ? STATUS_OK : STATUS_PROTOCOL;
}

enum status yolk_transfer_take_notice(struct yolk_transfer *transfer,
                                      struct yolk_transfer_notice *out)
{
    if (transfer == NULL || out == NULL) return STATUS_INVALID;
    struct notices *notices = &transfer->notices;
    if (notices->count == 0) return STATUS_NOT_FOUND;
    *out = notices->all[notices->head];
    notices->head = (notices->head + 1) % YOLK_TRANSFER_NOTICES_MAX;
    notices->count--;
    return STATUS_OK;
}

/* ---- the calls ---- */

enum status yolk_transfer_probe(struct yolk_transfer *transfer,
                                struct yolk_transfer_segment segment, uint64_t timeout_ns,
                                yolk_transfer_told_fn on_told, void *ctx)
{
    struct segment *at = transfer_segment(transfer, segment);

    if (at == NULL) return STATUS_INVALID;
    if (at->file != NULL) return STATUS_UNSUPPORTED;
    struct errand *errand = errand_new(transfer, at->peer, timeout_ns, on_told, ctx);
    if (errand == NULL) return STATUS_FULL;
    errand->probe = true;
    give(errand);
    return STATUS_OK;
}

enum status yolk_transfer_notify(struct yolk_transfer *transfer,
                                 struct yolk_transfer_segment segment,
                                 struct yolk_transfer_batch after, const char *name,
                                 const void *message, size_t len, uint64_t timeout_ns,
                                 yolk_transfer_told_fn on_told, void *ctx)
{
    struct segment *at = transfer_segment(transfer, segment);
    struct errand_list *list = NULL;

    if (at == NULL || name == NULL || (message == NULL && len > 0)) return STATUS_INVALID;
    if (at->file != NULL) return STATUS_UNSUPPORTED;
    if (strlen(name) >= WIRE_NOTICE_NAME_SIZE || len > YOLK_TRANSFER_NOTICE_SIZE_MAX) {
        return STATUS_INVALID;
    }
    if (after.id != 0) list = transfer_batch_errands(transfer, after);
    if (after.id != 0 && list == NULL) return STATUS_INVALID;
    struct errand *errand = errand_new(transfer, at->peer, timeout_ns, on_told, ctx);
    if (errand == NULL) return STATUS_FULL;
    memcpy(errand->payload, name, strlen(name));
    if (len > 0) memcpy(errand->payload + WIRE_NOTICE_NAME_SIZE, message, len);
    errand->len = (uint32_t)(WIRE_NOTICE_NAME_SIZE + len);
    if (list != NULL) {
        errand->batch_list = list;
        push(list, errand);
        transfer_batch_look(transfer, after);
    } else {
        give(errand);
    }
    return STATUS_OK;
}

void errand_destroy_all(struct yolk_transfer *transfer)
{
    for (int i = 0; i < YOLK_TRANSFER_ERRANDS_MAX && transfer->errands != NULL; i++)
        env_timer_cancel(transfer->env, &transfer->errands[i].timer);
    free(transfer->errands);
    free(transfer->notices.all);
}
