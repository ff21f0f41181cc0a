/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/lane.c - one connection to or from another engine.
 *
 * The side that connects (the initiator) asks, the other (the target) answers; peer.c and target.c
 * say what. Here are the parts both share: the greeting, frames out in order of class, and frames
 * in, with payloads straight into the memory they belong to.
 *
 *     initiator   CONNECTING --hello--> GREETING --auth--> PROVING --accepted--> READY
 *     target                            GREETING --hello--> PROVING --accepted--> READY
 *     any of these ----lane_die----> DEAD
 *     initiator, with unacknowledged writes ----lane_die----> LOST --fenced (peer.c)--> DEAD
 *
 * Out. A frame waits in the queue of its class; control goes first. lane_flush() moves at most
 * LANE_GATHER_SIZE bytes to `sending`, where the order is settled, and writes them with one writev;
 * so a more urgent frame waits for that much and no more. Payload memory is borrowed until the
 * frame has left.
 *
 * In. While a payload arrives, a read is a readv into (its place, rx): the next header comes along
 * for free. After small payloads rx takes many frames at once, and they are copied from there.
 * A payload nobody wants any more goes to a sink, and the stream stays in step.
 *
 * Encrypted connections (sealing.c) are so from the first frame after the greeting: frames go out
 * through net/seal.h, and come in through it to rx, whatever their size. So nothing of a record
 * lands before all of it is known to be the peer's.
 *
 * Invariants
 *   I1  landing_at + payload_left stays inside memory that was registered when the header came, and
 *       whoever unregisters it has called lane_stop_landing() before.
 *   I2  A target never lands bytes of a connection that was silent for its lease: the clock is read
 *       before the socket, and before each step of a pull. So an initiator may count on it (see
 *       peer.c).
 *   I3  A dead lane is freed from transfer_turn(), never while something up the stack holds it.
 *
 * Limits: LANE_FRAMES_MAX frames queued; a peer that makes us exceed it is dropped. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/seal.h"
#include "transfer/transfer_int.h"

enum { FRAMES_FOR_CONTROL = 64 };

#define PROBE_NS (400 * ENV_NS_PER_MS) /* for a connect on a rail that had failed */

static bool lane_alive(const struct lane *lane)
{
    return lane->state != LANE_LOST && lane->state != LANE_DEAD;
}

void lane_set_state(struct lane *lane, enum lane_state state)
{
    static const unsigned edges[] = {
        [LANE_CONNECTING] = 1u << LANE_GREETING | 1u << LANE_DEAD,
        [LANE_GREETING] = 1u << LANE_PROVING | 1u << LANE_DEAD,
        [LANE_PROVING] = 1u << LANE_READY | 1u << LANE_DEAD,
        [LANE_READY] = 1u << LANE_LOST | 1u << LANE_DEAD,
        [LANE_LOST] = 1u << LANE_DEAD,
        [LANE_DEAD] = 0,
    };
    struct yolk_transfer_stats *stats = &lane->transfer->stats;

    ASSERT((edges[lane->state] & 1u << state) != 0);
    if (state == LANE_READY) stats->lanes_open++;
    if (lane->state == LANE_READY) stats->lanes_open--;
    lane->state = state;
}

/* ---- frames out ---- */

static void frame_push(struct frame_list *list, struct frame *frame)
{
    frame->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = frame;
    } else {
        list->head = frame;
    }
    list->tail = frame;
}

static struct frame *frame_pop(struct frame_list *list)
{
    struct frame *frame = list->head;

    if (frame == NULL) return NULL;
    list->head = frame->next;
    if (list->head == NULL) list->tail = NULL;
    return frame;
}

static void frame_free(struct lane *lane, struct frame *frame)
{
    ASSERT(lane->frames_used > 0);
    ASSERT(lane->serving >= frame->answers);
    lane->serving -= frame->answers;
    free(frame->owned);
    frame->owned = NULL;
    cuda_bounce_free(frame->bounce);
    frame->bounce = NULL;
    lane->frames_used--;
    frame->next = lane->frames_free; /* on top: a cache still holds it */
    lane->frames_free = frame;
}

bool lane_has_room(const struct lane *lane)
{
    return lane->frames_used < LANE_FRAMES_MAX - FRAMES_FOR_CONTROL;
}

static struct frame *frame_new(struct lane *lane, const struct wire_header *header)
{
    struct frame *frame = lane->frames_free;

    if (frame == NULL) return NULL;
    lane->frames_free = frame->next;
    lane->frames_used++;
    wire_header_encode(header, frame->header);
    frame->payload = NULL;
    frame->payload_len = wire_payload_size(header);
    frame->request = header->request;
    frame->attempt = header->attempt;
    frame->answers = 0;
    frame->clear = lane->seal == NULL;
    frame->owned = NULL;
    return frame;
}

bool lane_send(struct lane *lane, unsigned queue, const struct wire_header *header,
               const uint8_t *payload, bool answer)
{
    ASSERT(queue < FRAME_QUEUES && lane_alive(lane));
    struct frame *frame = frame_new(lane, header);
    if (frame == NULL) return false;
    ASSERT((payload != NULL) == (frame->payload_len > 0));
    frame->payload = payload;
    frame->answers = answer ? 1 : 0;
    frame_push(&lane->out[queue], frame);
    return true;
}

bool lane_send_bounce(struct lane *lane, const struct wire_header *header, struct bounce *bounce)
{
    if (!lane_send(lane, header->class, header, cuda_bounce_memory(bounce), true)) {
        cuda_bounce_free(bounce);
        return false;
    }
    lane->out[header->class].tail->bounce = bounce;
    return true;
}

bool lane_send_control(struct lane *lane, const struct wire_header *header, const uint8_t *payload,
                       size_t len)
{
    struct wire_header checked = *header;

    ASSERT(len == wire_payload_size(header));
    uint8_t *owned = malloc(len);
    if (owned == NULL) return false;
    memcpy(owned, payload, len);
    checked.flags |= WIRE_CHECKSUM;
    checked.checksum = hash_xxh3(payload, len);
    if (!lane_send(lane, FRAME_CONTROL, &checked, owned, false)) {
        free(owned);
        return false;
    }
    lane->out[FRAME_CONTROL].tail->owned = owned;
    return true;
}

bool lane_answer(struct lane *lane, const struct wire_header *request, enum status status)
{
    const struct wire_header ack = { .opcode = WIRE_ACK,
                                     .class = request->class,
                                     .attempt = request->attempt,
                                     .request = request->request,
                                     .status = status };

    if (status != STATUS_OK) lane->transfer->stats.refused++;
    return lane_send(lane, FRAME_CONTROL, &ack, NULL, true);
}

bool lane_ack(struct lane *lane, const struct wire_header *request)
{
    if (!lane->session->acks) return lane_answer(lane, request, STATUS_OK);
    ASSERT(lane->acks_count < WIRE_REQUESTS_MAX);
    lane->acks[lane->acks_count++] = request->request;
    return true;
}

/* A header of 88 bytes for each of them would cost both ends as much as everything else that a
 * write of 4 KiB needs beside its bytes. */
static bool acks_send(struct lane *lane)
{
    uint8_t payload[WIRE_REQUESTS_MAX * WIRE_ACK_SIZE];
    const uint32_t count = lane->acks_count;
    const size_t len = count * WIRE_ACK_SIZE;

    lane->acks_count = 0;
    if (count == 1) {
        const struct wire_header one = { .opcode = WIRE_ACK, .request = lane->acks[0] };
        return lane_send(lane, FRAME_CONTROL, &one, NULL, true);
    }
    for (uint32_t i = 0; i < count; i++)
        wire_ack_encode(lane->acks[i], payload + i * WIRE_ACK_SIZE);
    const struct wire_header header = { .opcode = WIRE_ACKS, .length = len };
    if (!lane_send_control(lane, &header, payload, len)) return false;
    lane->out[FRAME_CONTROL].tail->answers = count;
    return true;
}

bool lane_unsend(struct lane *lane, uint64_t request, uint8_t class)
{
    struct frame_list *list = &lane->out[class], kept = { NULL, NULL };
    struct frame *frame;
    bool found = false;

    while ((frame = frame_pop(list)) != NULL) {
        if (frame->request == request) {
            frame_free(lane, frame);
            found = true;
        } else {
            frame_push(&kept, frame);
        }
    }
    *list = kept;
    return found;
}

static void frame_cancel(struct lane *lane, struct frame *frame, uint8_t class)
{
    const struct wire_header ack = { .opcode = WIRE_ACK,
                                     .class = class,
                                     .attempt = frame->attempt,
                                     .request = frame->request,
                                     .status = STATUS_CANCELLED };

    wire_header_encode(&ack, frame->header);
    cuda_bounce_free(frame->bounce);
    frame->bounce = NULL;
    frame->payload = NULL;
    frame->payload_len = 0;
    frame_push(&lane->out[FRAME_CONTROL], frame);
}

void lane_cancel_answers(struct lane *lane, uint64_t attempt)
{
    for (uint8_t class = 0; class < WIRE_CLASSES; class ++) {
        struct frame_list kept = { NULL, NULL };
        struct frame *frame;
        while ((frame = frame_pop(&lane->out[class])) != NULL) {
            if (frame->attempt == attempt) {
                frame_cancel(lane, frame, class);
            } else {
                frame_push(&kept, frame);
            }
        }
        lane->out[class] = kept;
    }
}

static bool list_sends_from(const struct frame_list *list, uint64_t address, uint64_t length)
{
    for (const struct frame *frame = list->head; frame != NULL; frame = frame->next) {
        if (frame->payload_len == 0) continue;
        if (buffer_ranges_overlap((uintptr_t)frame->payload, frame->payload_len, address, length)) {
            return true;
        }
    }
    return false;
}

bool lane_sends_from(const struct lane *lane, uint64_t address, uint64_t length)
{
    for (int queue = 0; queue < FRAME_QUEUES; queue++) {
        if (list_sends_from(&lane->out[queue], address, length)) return true;
    }
    return list_sends_from(&lane->sending, address, length);
}

/* Settles the order of the next frames: control, then class by class. */
static void settle_order(struct lane *lane)
{
    static const int order[FRAME_QUEUES] = { FRAME_CONTROL, 0, 1, 2 };
    uint64_t size = 0;
    uint32_t count = 0;

    for (const struct frame *f = lane->sending.head; f != NULL; f = f->next) {
        size += WIRE_HEADER_SIZE + f->payload_len;
        count++;
    }
    for (int i = 0; i < FRAME_QUEUES; i++) {
        struct frame_list *list = &lane->out[order[i]];
        while (list->head != NULL && count < LANE_GATHER_MAX && size < LANE_GATHER_SIZE) {
            struct frame *frame = frame_pop(list);
            size += WIRE_HEADER_SIZE + frame->payload_len;
            count++;
            frame_push(&lane->sending, frame);
        }
    }
}

static int gather_part(struct iovec *iov, int count, const uint8_t *data, uint64_t len,
                       uint64_t *skip)
{
    if (*skip >= len) {
        *skip -= len;
        return count;
    }
    iov[count].iov_base = (void *)(uintptr_t)(data + *skip);
    iov[count].iov_len = (size_t)(len - *skip);
    *skip = 0;
    return count + 1;
}

static int gather(const struct lane *lane, struct iovec iov[2 * LANE_GATHER_MAX])
{
    uint64_t skip = lane->sent;
    int count = 0;

    for (const struct frame *f = lane->sending.head; f != NULL; f = f->next) {
        ASSERT(count + 2 <= 2 * LANE_GATHER_MAX);
        if (f->clear != lane->sending.head->clear) break; /* the end of the greeting */
        count = gather_part(iov, count, f->header, WIRE_HEADER_SIZE, &skip);
        if (f->payload_len > 0) count = gather_part(iov, count, f->payload, f->payload_len, &skip);
    }
    return count;
}

static void sent(struct lane *lane, size_t n)
{
    lane->sent += n;
    while (lane->sending.head != NULL) {
        const uint64_t size = WIRE_HEADER_SIZE + lane->sending.head->payload_len;
        if (lane->sent < size) return;
        lane->sent -= size;
        frame_free(lane, frame_pop(&lane->sending));
    }
    ASSERT(lane->sent == 0);
}

static void lane_on_ready(void *ctx, unsigned events);

static void lane_watch(struct lane *lane, bool write)
{
    if (lane->watching_write == write) return;
    lane->watching_write = write;
    env_stream_watch(lane->stream, ENV_READ | ENV_EAGER | (write ? ENV_WRITE : 0u), lane_on_ready,
                     lane);
}

/* Writes some of `sending`, or, when that is empty, what is sealed and has not left. */
static enum status lane_write(struct lane *lane, size_t *n)
{
    struct iovec iov[2 * LANE_GATHER_MAX];

    if (lane->sending.head == NULL) {
        return lane->seal != NULL ? seal_flush(lane->seal, lane->stream) : STATUS_OK;
    }
    const int count = gather(lane, iov);
    if (lane->sending.head->clear) return env_stream_writev(lane->stream, iov, count, n);
    return seal_writev(lane->seal, lane->stream, iov, count, n);
}

void lane_flush(struct lane *lane)
{
    size_t budget = LANE_TURN_SIZE;

    if (!lane_alive(lane) || lane->state == LANE_CONNECTING) return;
    if (lane->acks_count > 0 && !acks_send(lane)) {
        lane_die(lane, STATUS_NO_MEMORY);
        return;
    }
    for (;;) {
        size_t n = 0;
        settle_order(lane);
        const bool last = lane->sending.head == NULL;
        const enum status status = lane_write(lane, &n);
        if (status == STATUS_OK && last) {
            lane_watch(lane, false);
            return;
        }
        if (status == STATUS_OK) sent(lane, n);
        if (status == STATUS_AGAIN || (status == STATUS_OK && n >= budget)) {
            lane_watch(lane, true);
            return;
        }
        if (status != STATUS_OK) {
            lane_die(lane, status);
            return;
        }
        budget -= n;
    }
}

static void drop_frames(struct lane *lane)
{
    struct frame *frame;

    while ((frame = frame_pop(&lane->sending)) != NULL)
        frame_free(lane, frame);
    for (int queue = 0; queue < FRAME_QUEUES; queue++) {
        while ((frame = frame_pop(&lane->out[queue])) != NULL)
            frame_free(lane, frame);
    }
    lane->sent = 0;
    ASSERT(lane->frames_used == 0);
}

/* ---- life ---- */

bool lane_expired(const struct lane *lane)
{
    if (lane->peer != NULL || lane->state != LANE_READY) return false;
    return env_now_ns(lane->transfer->env) - lane->heard_ns > lane->lease_ns;
}

static void lane_on_timer(void *ctx)
{
    struct lane *lane = ctx;
    struct env *env = lane->transfer->env;

    transfer_clock(lane->transfer);
    switch (lane->state) {
    case LANE_CONNECTING:
    case LANE_GREETING:
    case LANE_PROVING: lane_die(lane, STATUS_TIMEOUT); break;
    case LANE_READY:
    case LANE_LOST:
        if (lane->peer != NULL) {
            peer_lane_timer(lane);
        } else if (lane_expired(lane)) {
            lane_die(lane, STATUS_TIMEOUT);
        } else {
            env_timer_set(env, &lane->timer, lane->heard_ns + lane->lease_ns + 1);
        }
        break;
    case LANE_DEAD: break;
    }
}

static struct lane *lane_new(struct yolk_transfer *transfer, struct env_stream *stream)
{
    struct lane *lane = calloc(1, sizeof(*lane));

    if (lane == NULL) return NULL;
    lane->transfer = transfer;
    lane->stream = stream;
    lane->heard_ns = env_now_ns(transfer->env);
    lane->lease_ns = transfer->fence_ns;
    for (int i = 0; i + 1 < LANE_FRAMES_MAX; i++)
        lane->frames[i].next = &lane->frames[i + 1];
    lane->frames_free = lane->frames;
    env_timer_init(&lane->timer, lane_on_timer, lane);
    env_timer_set(transfer->env, &lane->timer, lane->heard_ns + transfer->connect_ns);
    lane->next = transfer->lanes;
    if (lane->next != NULL) {
        lane->next->prev = lane;
    } else {
        transfer->lanes_tail = lane;
    }
    transfer->lanes = lane;
    return lane;
}

void lane_free(struct lane *lane)
{
    struct yolk_transfer *transfer = lane->transfer;

    env_timer_cancel(transfer->env, &lane->timer);
    fabric_lane_close(lane);
    env_stream_close(lane->stream);
    drop_frames(lane);
    session_unref(lane->session);
    seal_destroy(lane->seal);
    cuda_bounce_free(lane->landing_bounce);
    free(lane);
}

static void lane_unlink(struct lane *lane)
{
    struct yolk_transfer *transfer = lane->transfer;

    if (transfer->sieve_hand == lane) transfer->sieve_hand = lane->prev;
    if (lane->next != NULL) {
        lane->next->prev = lane->prev;
    } else {
        transfer->lanes_tail = lane->prev;
    }
    if (lane->prev != NULL) {
        lane->prev->next = lane->next;
    } else {
        ASSERT(transfer->lanes == lane);
        transfer->lanes = lane->next;
    }
    if (lane->peer == NULL) transfer->accepted_count--;
    lane->prev = NULL;
    lane->next = transfer->graveyard;
    transfer->graveyard = lane;
    transfer_kick(transfer);
}

void lane_die(struct lane *lane, enum status status)
{
    if (!lane_alive(lane)) {
        if (lane->state == LANE_LOST) { /* fenced */
            lane_set_state(lane, LANE_DEAD);
            lane_unlink(lane);
        }
        return;
    }
    LOG_DEBUG("transfer", "lane_closed", "peer=%s lane=%llu reason=%s",
              env_stream_peer(lane->stream), (unsigned long long)lane->id, status_name(status));
    if (status == STATUS_PROTOCOL || status == STATUS_CORRUPT) {
        lane->transfer->stats.protocol_errors++;
        LOG_WARN("transfer", "lane_garbage", "peer=%s", env_stream_peer(lane->stream));
    }
    if (lane->seal != NULL) lane->transfer->stats.lanes_sealed--;
    env_timer_cancel(lane->transfer->env, &lane->timer);
    fabric_lane_close(lane);
    env_stream_close(lane->stream);
    lane->stream = NULL;
    lane->landing = LANDING_NONE;
    lane->payload_left = 0;
    if (lane->peer != NULL) {
        peer_lane_gone(lane, status);
    } else {
        target_lane_gone(lane);
        lane_set_state(lane, LANE_DEAD);
    }
    drop_frames(lane);
    if (lane->state == LANE_DEAD) lane_unlink(lane);
}

static bool lane_idle(const struct lane *lane)
{
    return lane->peer != NULL && lane->state == LANE_READY && lane->inflight_count == 0 &&
           lane->frames_used == 0 && lane->fences == 0 && lane->payload_left == 0 &&
           lane->peer->ask_lane != lane;
}

/* SIEVE: the hand goes from the oldest to the newest and round again, forgives those that were used
 * since it last came by, and takes the first that was not. */
bool lane_evict(struct yolk_transfer *transfer)
{
    struct lane *lane = transfer->sieve_hand;

    for (int rounds = 0; rounds < 3;) {
        if (lane == NULL) {
            lane = transfer->lanes_tail;
            rounds++;
            if (lane == NULL) return false;
        }
        if (lane_idle(lane) && !lane->visited) {
            transfer->sieve_hand = lane->prev;
            transfer->stats.evictions++;
            lane_die(lane, STATUS_CANCELLED);
            return true;
        }
        lane->visited = false;
        lane = lane->prev;
    }
    return false;
}

struct lane *lane_connect(struct peer *peer, struct rail *rail, enum status *status)
{
    struct yolk_transfer *transfer = peer->transfer;
    struct env_stream *stream;

    *status = env_connect_from(transfer->env, rail->local, rail->remote, &stream, NULL);
    if (*status != STATUS_OK) return NULL;
    struct lane *lane = lane_new(transfer, stream);
    if (lane == NULL) {
        *status = STATUS_NO_MEMORY;
        env_stream_close(stream);
        return NULL;
    }
    lane->peer = peer;
    lane->rail = rail;
    transfer->connected_count++;
    if (rail->state == RAIL_PROBING && transfer->connect_ns > PROBE_NS) {
        env_timer_set(transfer->env, &lane->timer, lane->heard_ns + PROBE_NS);
    }
    lane->id = ++transfer->lane_serial;
    lane->state = LANE_CONNECTING;
    lane->watching_write = true;
    env_stream_watch(stream, ENV_WRITE, lane_on_ready, lane);
    return lane;
}

void lane_accept(void *ctx, struct env_stream *stream)
{
    struct yolk_transfer *transfer = ctx;
    struct lane *lane = NULL;

    if (transfer->accepted_count < transfer->peers_max * 4) lane = lane_new(transfer, stream);
    if (lane == NULL) {
        env_stream_close(stream);
        return;
    }
    transfer->accepted_count++;
    lane->state = LANE_GREETING;
    env_stream_watch(stream, ENV_READ | ENV_EAGER, lane_on_ready, lane);
}

/* ---- greeting ---- */

static uint32_t capabilities(const struct yolk_transfer *transfer)
{
    const uint32_t shm = transfer->forbid_shm ? 0 : WIRE_CAP_SHM | WIRE_CAP_VM | WIRE_CAP_IPC;
    const uint32_t fabric = transfer->fabric != NULL ? WIRE_CAP_FABRIC : 0;
    return shm | fabric | WIRE_CAP_NOTIFY | WIRE_CAP_ACKS |
           (transfer->topology.rail_count > 0 ? WIRE_CAP_RAILS : 0) |
           sealing_capabilities(transfer);
}

static void hello_fill(const struct lane *lane, struct wire_hello *hello)
{
    const struct yolk_transfer *transfer = lane->transfer;

    *hello = (struct wire_hello){ .version_min = WIRE_VERSION,
                                  .version_max = WIRE_VERSION,
                                  .capabilities = capabilities(transfer),
                                  .generation = transfer->generation,
                                  .epoch = transfer->epoch,
                                  .connection = lane->id,
                                  .host = transfer->host,
                                  .lease_ms = (uint32_t)(transfer->fence_ns / ENV_NS_PER_MS) };
    env_random(transfer->env, hello->nonce, sizeof(hello->nonce));
    memcpy(hello->name, transfer->name, sizeof(hello->name));
}

static bool hello_send(struct lane *lane)
{
    const struct wire_header header = { .opcode = WIRE_HELLO, .length = WIRE_HELLO_SIZE };

    return lane_send_control(lane, &header, lane->hello_ours, WIRE_HELLO_SIZE);
}

static void lane_connected(struct lane *lane)
{
    struct wire_hello hello;

    hello_fill(lane, &hello);
    wire_hello_encode(&hello, lane->hello_ours);
    lane_set_state(lane, LANE_GREETING);
    lane->watching_write = false;
    env_stream_watch(lane->stream, ENV_READ | ENV_EAGER, lane_on_ready, lane);
    if (hello_send(lane)) {
        lane_flush(lane);
    } else {
        lane_die(lane, STATUS_NO_MEMORY);
    }
}

void lane_farewell(struct lane *lane, enum status why)
{
    const struct wire_header header = { .opcode = WIRE_GOODBYE, .status = why };

    fabric_lane_close(lane);
    if (lane->acks_count > 0 && !acks_send(lane)) return;
    if (lane_send(lane, FRAME_CONTROL, &header, NULL, false)) lane_flush(lane);
}

/* Says why before the lane dies of it. */
static enum status refuse(struct lane *lane, enum status status)
{
    lane_farewell(lane, status);
    return status;
}

static enum status target_greeted(struct lane *lane, const struct wire_hello *theirs)
{
    const char *secret = lane->transfer->secret;
    struct wire_hello hello;

    if (theirs->version_min > WIRE_VERSION) return refuse(lane, STATUS_UNSUPPORTED);
    if (!sealing_possible(lane->transfer, theirs)) return refuse(lane, STATUS_UNSUPPORTED);
    lane->id = theirs->connection;
    hello_fill(lane, &hello);
    wire_hello_encode(&hello, lane->hello_ours);
    wire_proof(secret, "yolk-transfer target", lane->hello_theirs, lane->hello_ours, hello.proof);
    wire_hello_encode(&hello, lane->hello_ours);
    lane_set_state(lane, LANE_PROVING);
    return hello_send(lane) ? STATUS_OK : STATUS_NO_MEMORY;
}

static enum status initiator_greeted(struct lane *lane, const struct wire_hello *theirs)
{
    const struct wire_header header = { .opcode = WIRE_AUTH, .length = WIRE_PROOF_SIZE };
    const char *secret = lane->transfer->secret;
    uint8_t proof[WIRE_PROOF_SIZE];

    if (theirs->version_min > WIRE_VERSION) return refuse(lane, STATUS_UNSUPPORTED);
    wire_proof(secret, "yolk-transfer target", lane->hello_ours, lane->hello_theirs, proof);
    if (!hash_equal_secret(proof, theirs->proof, sizeof(proof))) {
        return refuse(lane, STATUS_DENIED);
    }
    if (!sealing_possible(lane->transfer, theirs)) return refuse(lane, STATUS_UNSUPPORTED);
    lane->session = session_ref(lane->transfer, theirs);
    if (lane->session == NULL) return STATUS_NO_MEMORY;
    lane->lease_ns = theirs->lease_ms * ENV_NS_PER_MS;
    if (lane->lease_ns < ENV_NS_PER_MS) return STATUS_PROTOCOL;
    wire_proof(secret, "yolk-transfer initiator", lane->hello_ours, lane->hello_theirs, proof);
    lane_set_state(lane, LANE_PROVING);
    return lane_send_control(lane, &header, proof, sizeof(proof)) ? STATUS_OK : STATUS_NO_MEMORY;
}

static enum status greeted(struct lane *lane)
{
    struct wire_hello hello;
    const enum status status = wire_hello_decode(lane->control, lane->head.length, &hello);

    if (status != STATUS_OK) return status;
    memcpy(lane->hello_theirs, lane->control, WIRE_HELLO_SIZE);
    return lane->peer != NULL ? initiator_greeted(lane, &hello) : target_greeted(lane, &hello);
}

/* The greeting is over: if both agreed, everything else is encrypted, what lies in rx included. */
static enum status lane_seal(struct lane *lane)
{
    enum status status = sealing_start(lane);

    if (status != STATUS_OK || lane->seal == NULL) return status;
    status = seal_feed(lane->seal, lane->rx + lane->rx_start, lane->rx_end - lane->rx_start);
    lane->rx_start = lane->rx_end = 0;
    return status;
}

/* Target: the initiator has shown that it knows the secret, or not. */
static enum status proven(struct lane *lane)
{
    const struct wire_header accepted = { .opcode = WIRE_ACK };
    struct yolk_transfer *transfer = lane->transfer;
    uint8_t proof[WIRE_PROOF_SIZE];
    struct wire_hello hello;

    if (lane->head.length != WIRE_PROOF_SIZE) return STATUS_PROTOCOL;
    wire_proof(transfer->secret, "yolk-transfer initiator", lane->hello_theirs, lane->hello_ours,
               proof);
    if (!hash_equal_secret(proof, lane->control, sizeof(proof))) {
        return refuse(lane, STATUS_DENIED);
    }
    if (wire_hello_decode(lane->hello_theirs, WIRE_HELLO_SIZE, &hello) != STATUS_OK) {
        return STATUS_PROTOCOL;
    }
    lane->session = session_ref(transfer, &hello);
    if (lane->session == NULL) return STATUS_NO_MEMORY;
    if (!lane_send(lane, FRAME_CONTROL, &accepted, NULL, false)) return STATUS_FULL;
    lane_set_state(lane, LANE_READY);
    env_timer_set(transfer->env, &lane->timer, lane->heard_ns + lane->lease_ns + 1);
    return lane_seal(lane);
}

/* ---- frames in ---- */

void lane_stop_landing(struct lane *lane, enum status status)
{
    if (lane->landing != LANDING_MEMORY) return;
    lane->landing = LANDING_SINK;
    lane->landing_status = status;
}

static bool opcode_fits_state(const struct lane *lane, enum wire_opcode opcode)
{
    switch (lane->state) {
    case LANE_GREETING: return opcode == WIRE_HELLO;
    case LANE_PROVING: return opcode == (lane->peer != NULL ? WIRE_ACK : WIRE_AUTH);
    case LANE_READY: return opcode != WIRE_HELLO && opcode != WIRE_AUTH;
    case LANE_CONNECTING:
    case LANE_LOST:
    case LANE_DEAD: break;
    }
    return false;
}

static enum status got_ready(struct lane *lane, const struct wire_header *header)
{
    if (header->status != STATUS_OK) return STATUS_PROTOCOL;
    const enum status status = lane_seal(lane);
    if (status != STATUS_OK) return status;
    lane_set_state(lane, LANE_READY);
    peer_lane_ready(lane);
    return STATUS_OK;
}

static enum status got_header(struct lane *lane, const struct wire_header *header)
{
    const struct wire_header pong = { .opcode = WIRE_PONG, .request = header->request };

    if (header->opcode == WIRE_GOODBYE) {
        lane->farewell = true;
        return header->status == STATUS_OK ? STATUS_CONN_CLOSED : header->status;
    }
    if (!opcode_fits_state(lane, header->opcode)) return STATUS_PROTOCOL;
    lane->head = *header;
    lane->payload_left = wire_payload_size(header);
    if (lane->state != LANE_READY) {
        if (header->opcode == WIRE_ACK) return got_ready(lane, header);
        lane->landing = LANDING_CONTROL;
        lane->landing_at = lane->control;
        return lane->payload_left > 0 ? STATUS_OK : STATUS_PROTOCOL;
    }
    if (header->opcode == WIRE_PONG) {
        if (lane->peer != NULL) (void)errand_answered(lane, header->request, true, STATUS_OK);
        return STATUS_OK;
    }
    if (header->opcode == WIRE_PING) {
        return lane_send(lane, FRAME_CONTROL, &pong, NULL, false) ? STATUS_OK : STATUS_PROTOCOL;
    }
    return lane->peer != NULL ? peer_frame(lane, header) : target_frame(lane, header);
}

/* What is not bytes of a task. An engine of before put a checksum on nothing but ACKS. */
static bool control_damaged(const struct lane *lane)
{
    const struct wire_header *head = &lane->head;

    if (head->opcode == WIRE_WRITE || head->opcode == WIRE_READ_DATA) return false;
    return (head->flags & WIRE_CHECKSUM) != 0 &&
           hash_xxh3(lane->control, (size_t)head->length) != head->checksum;
}

static enum status got_payload(struct lane *lane)
{
    if (control_damaged(lane)) return STATUS_CORRUPT;
    if (lane->head.opcode == WIRE_HELLO) return greeted(lane);
    if (lane->head.opcode == WIRE_AUTH) return proven(lane);
    return lane->peer != NULL ? peer_payload(lane) : target_payload(lane);
}

/* What memcpy does for some KiB (rep movsb) takes a third longer where source and destination lie
 * differently in their cache lines, as they do here: a header is 88 bytes. */
static void copy_small(uint8_t *to, const uint8_t *from, size_t len)
{
    enum { LINE = 64 };

    for (; len >= LINE; len -= LINE) {
        memcpy(to, from, LINE);
        to += LINE;
        from += LINE;
    }
    memcpy(to, from, len);
}

/* Moves `len` bytes that lie in rx to where the payload goes. */
static void land_copy(struct lane *lane, const uint8_t *from, size_t len)
{
    ASSERT(len <= lane->payload_left && lane->landing != LANDING_NONE);
    if (lane->landing != LANDING_SINK) {
        copy_small(lane->landing_at, from, len);
        lane->landing_at += len;
    }
    lane->payload_left -= len;
}

/* One header or one portion of payload out of rx; STATUS_AGAIN when there is not enough. */
static enum status parse_one(struct lane *lane)
{
    const uint32_t there = lane->rx_end - lane->rx_start;
    struct wire_header header;

    if (lane->payload_left > 0) {
        if (there == 0) return STATUS_AGAIN;
        const size_t len = there < lane->payload_left ? there : (size_t)lane->payload_left;
        land_copy(lane, lane->rx + lane->rx_start, len);
        lane->rx_start += (uint32_t)len;
        return lane->payload_left == 0 ? got_payload(lane) : STATUS_OK;
    }
    if (there < WIRE_HEADER_SIZE) return STATUS_AGAIN;
    enum status status = wire_header_decode(lane->rx + lane->rx_start, &header);
    if (status != STATUS_OK) return status;
    lane->rx_start += WIRE_HEADER_SIZE;
    return got_header(lane, &header);
}

static enum status parse(struct lane *lane)
{
    enum status status = STATUS_OK;

    while (status == STATUS_OK && lane_alive(lane))
        status = parse_one(lane);
    if (lane->rx_start == lane->rx_end) {
        lane->rx_start = lane->rx_end = 0;
    } else if (lane->rx_start > 0) {
        memmove(lane->rx, lane->rx + lane->rx_start, lane->rx_end - lane->rx_start);
        lane->rx_end -= lane->rx_start;
        lane->rx_start = 0;
    }
    return status == STATUS_AGAIN ? STATUS_OK : status;
}

/* Where the next bytes go: the payload's place, then rx. Returns how many of them are payload. */
static size_t scatter(struct lane *lane, struct iovec iov[2], int *count)
{
    size_t len = (size_t)lane->payload_left;
    const size_t rx_size = lane->head.length <= LANE_SMALL_SIZE ? LANE_RX_SIZE : LANE_RX_LARGE;

    *count = 0;
    if (len > 0) {
        ASSERT(lane->rx_end == 0 && lane->landing != LANDING_NONE);
        const bool sink = lane->landing == LANDING_SINK;
        if (sink && len > sizeof(lane->transfer->sink)) len = sizeof(lane->transfer->sink);
        iov[0].iov_base = sink ? lane->transfer->sink : lane->landing_at;
        iov[0].iov_len = len;
        *count = 1;
        if (len < lane->payload_left) return len;
    }
    iov[*count].iov_base = lane->rx + lane->rx_end;
    iov[*count].iov_len = (lane->rx_end < rx_size ? rx_size : LANE_RX_SIZE) - lane->rx_end;
    *count += 1;
    return len;
}

static enum status receive_once(struct lane *lane, size_t *n, bool *drained)
{
    struct iovec iov[2];
    int count;
    const size_t payload = scatter(lane, iov, &count);
    const enum status status = env_stream_readv(lane->stream, iov, count, n);

    if (status != STATUS_OK) return status;
    lane->heard_ns = transfer_clock(lane->transfer);
    if (lane->rail != NULL) rail_heard(lane->rail, lane->heard_ns);
    *drained = *n < iov[0].iov_len + (count > 1 ? iov[1].iov_len : 0);
    const size_t landed = *n < payload ? *n : payload;
    if (landed > 0) {
        if (lane->landing != LANDING_SINK) lane->landing_at += landed;
        lane->payload_left -= landed;
    }
    lane->rx_end += (uint32_t)(*n - landed);
    ASSERT(lane->rx_end <= LANE_RX_SIZE);
    if (landed > 0 && lane->payload_left == 0) {
        const enum status done = got_payload(lane);
        if (done != STATUS_OK) return done;
    }
    return lane_alive(lane) ? parse(lane) : STATUS_OK;
}

/* The same through the seal: a record at a time, and a byte of it is looked at only when all of it
 * is known to be the peer's. */
static enum status receive_sealed(struct lane *lane, size_t *n)
{
    ASSERT(lane->rx_start == 0 && LANE_RX_SIZE - lane->rx_end >= SEAL_RECORD_SIZE);
    const enum status status = seal_read(lane->seal, lane->stream, lane->rx + lane->rx_end, n);
    if (status == STATUS_CORRUPT || status == STATUS_PROTOCOL) {
        lane->transfer->stats.seal_failures++;
    }
    if (status != STATUS_OK) return status;
    lane->heard_ns = transfer_clock(lane->transfer);
    if (lane->rail != NULL) rail_heard(lane->rail, lane->heard_ns);
    lane->rx_end += (uint32_t)*n;
    return parse(lane);
}

/* An initiator reads half of what is under way and then lets the turn go on: what has ended is told
 * and its successors are sent while the other half arrives. If it read on as long as there is
 * something, all would end at once, and the target would have nothing to do until it hears. */
static size_t turn_size(const struct lane *lane)
{
    const uint64_t half = lane->peer != NULL ? lane->inflight_size / 2 : LANE_TURN_SIZE;

    if (half == 0 || half > LANE_TURN_SIZE) return LANE_TURN_SIZE;
    return half > LANE_TURN_MIN ? (size_t)half : LANE_TURN_MIN;
}

/* False if nothing was there, or the lane has died. */
static bool lane_receive(struct lane *lane)
{
    const size_t turn = turn_size(lane);
    size_t budget = turn;
    bool drained = false;

    if (lane_expired(lane)) { /* see I2 */
        lane_die(lane, STATUS_TIMEOUT);
        return false;
    }
    while (lane_alive(lane)) {
        size_t n = 0;
        const enum status status =
            lane->seal != NULL ? receive_sealed(lane, &n) : receive_once(lane, &n, &drained);
        if (status == STATUS_AGAIN) return budget < turn;
        if (status != STATUS_OK) {
            lane_die(lane, status);
            return false;
        }
        budget -= n < budget ? n : budget;
        /* What waits behind the seal makes no stream readable. */
        const bool waiting = lane->seal != NULL && seal_waiting(lane->seal);
        if ((drained || budget == 0) && !waiting) break;
    }
    return lane_alive(lane);
}

static void lane_on_ready(void *ctx, unsigned events)
{
    struct lane *lane = ctx;
    struct yolk_transfer *transfer = lane->transfer;

    ASSERT(lane_alive(lane));
    if (lane->state == LANE_CONNECTING) {
        lane_connected(lane);
        return;
    }
    const bool heard = (events & ENV_READ) != 0 && lane_receive(lane);
    if (heard) fabric_lane_heard(lane);
    if (heard && transfer->done_head == NULL && lane->state == LANE_READY && lane->peer != NULL) {
        peer_schedule(lane->peer);
    }
    if (heard || (events & ENV_WRITE) != 0) lane_flush(lane);
    if (transfer->done_head == NULL) return;
    if (lane->peer != NULL) lane->peer->dirty = true;
    transfer_turn(transfer); /* it may free the lane */
}
