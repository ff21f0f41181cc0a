/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_conn.c - one connection: handshake, frames in, frames out, signs of life.
 *
 *   client   DIALING -- writable: HELLO --> CHALLENGE_DUE -- CHALLENGE: PROOF --> READY_DUE
 *                                                              READY, proof good --> READY
 *   server   HELLO_DUE -- HELLO: CHALLENGE --> PROOF_DUE -- PROOF good: READY --> READY
 *   both     any -- failure, REFUSE, silence, garbage --> on_closed
 *
 * Handshake. Each side draws a nonce. A proof is HMAC-SHA256 under the cluster secret over a label
 * (which side proves), both nonces and the versions offered and chosen; so a proof cannot be
 * replayed, reflected, or moved to another version. The client proves first: who merely connects
 * learns nothing to guess the secret by. An open cluster runs the same with the empty secret.
 *
 * Damage. From version 2 on every frame has checksums, those of the handshake too
 * (net/rpc_frame.c). A frame that is not what was sent closes the connection, so that both ends
 * know that something is lost, and is counted. Bits that flip in the handshake cannot lead to less
 * than both speak: a peer whose frame says version 2 owes the checksum, and the proofs, with the
 * empty secret as well, are over the versions as both have read them.
 *
 * Invariants
 *   I1  on_frame runs only in READY: before that no frame may be larger than a handshake needs.
 *   I2  on_closed runs once, as the last thing the connection does in its turn, so that the owner
 *       can destroy it there. A failure found inside rpc_conn_send() is kept until then.
 *   I3  While bytes wait, the stream is watched for writing. Answers to frames that came together
 *       wait for the last of them, and then go out together.
 *   I4  With version 2 no field of a frame is looked at before its checksum was right, and no
 *       length believed before that of its head was.
 *
 * Threads: the env's.
 * Limits:  one frame of RPC_FRAME_SIZE_MAX inwards; outwards write_queue_max, and one frame over
 *          it, because a reply must not depend on what else is waiting. */
#include "net/rpc_int.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/wire.h"

enum {
    READ_SIZE_MIN = 64 << 10,
    READ_SIZE_MAX = 1 << 20,
    SILENT_TICKS_MAX = 3,           /* of keepalive_ns */
    READS_PER_TURN = 8,             /* then other connections get their turn */
    HELD_SIZE_MAX = 64 << 10,       /* bytes written while frames are taken, then flushed */
    IDLE_BUFFER_SIZE_MAX = 1 << 20, /* a larger buffer is given back when it is empty */
};

enum conn_state {
    CONN_DIALING,
    CONN_CHALLENGE_DUE,
    CONN_READY_DUE,
    CONN_HELLO_DUE,
    CONN_PROOF_DUE,
    CONN_READY,
};

struct rpc_conn {
    struct env *env;
    struct wire wire;
    struct rpc_conn_options options;
    struct rpc_conn_events events;
    void *ctx;
    enum conn_state state;
    enum status failure; /* not OK: closes with this, for `reason`, at the end of the turn */
    const char *reason;
    struct buf in, out;
    unsigned watched;
    bool is_taking;  /* frames; what is written meanwhile goes out together, after them */
    bool is_blocked; /* the queue was over a quarter of its limit since the last on_drained */
    bool is_heard;   /* something came since the last tick of the timer */
    unsigned
        silent_ticks; /* in a row; counted in ticks, so that our own pauses are not the peer's */
    struct env_timer timer;      /* handshake deadline, then keepalive */
    struct env_timer fail_timer; /* brings a kept failure back to the loop */
    uint8_t nonce_client[RPC_NONCE_SIZE];
    uint8_t nonce_server[RPC_NONCE_SIZE];
    uint32_t versions[3]; /* offered by the client: least, most; chosen */
    char peer[RPC_NAME_SIZE + 64];
};

/* Added to by the threads of all envs, read by whoever shows it: a number for people, that orders
 * nothing. */
static _Atomic uint64_t damaged_total;

static void conn_ready(void *ctx, unsigned events);
static void conn_on_timer(void *ctx);
static void conn_on_fail_timer(void *ctx);

static bool edge_exists(enum conn_state from, enum conn_state to)
{
    switch (from) {
    case CONN_DIALING: return to == CONN_CHALLENGE_DUE;
    case CONN_CHALLENGE_DUE: return to == CONN_READY_DUE;
    case CONN_HELLO_DUE: return to == CONN_PROOF_DUE;
    case CONN_READY_DUE:
    case CONN_PROOF_DUE: return to == CONN_READY;
    case CONN_READY: return false;
    }
    return false;
}

static void set_state(struct rpc_conn *conn, enum conn_state state)
{
    ASSERT(edge_exists(conn->state, state));
    conn->state = state;
}

static void watch(struct rpc_conn *conn)
{
    const bool wants_write = conn->state == CONN_DIALING || conn->out.len > 0;
    const unsigned events = ENV_READ | ENV_EAGER | (wants_write ? ENV_WRITE : 0);

    if (events == conn->watched) return;
    conn->watched = events;
    wire_watch(&conn->wire, events, conn_ready, conn);
}

struct rpc_conn *rpc_conn_create(struct env *env, struct env_stream *stream,
                                 const struct rpc_conn_options *options,
                                 const struct rpc_conn_events *events, void *ctx)
{
    struct rpc_conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) return NULL;

    snprintf(conn->peer, sizeof(conn->peer), "%s", env_stream_peer(stream));
    if (wire_open(&conn->wire, env, stream, rpc_identity(env), options->is_server) != STATUS_OK) {
        free(conn);
        return NULL;
    }
    conn->env = env;
    conn->options = *options;
    conn->events = *events;
    conn->ctx = ctx;
    conn->state = options->is_server ? CONN_HELLO_DUE : CONN_DIALING;
    buf_init(&conn->in, RPC_HEAD_SIZE + RPC_FRAME_SIZE_MAX + READ_SIZE_MAX);
    buf_init(&conn->out, options->write_queue_max + RPC_HEAD_SIZE + RPC_FRAME_SIZE_MAX);
    env_random(env, options->is_server ? conn->nonce_server : conn->nonce_client, RPC_NONCE_SIZE);
    env_timer_init(&conn->timer, conn_on_timer, conn);
    env_timer_init(&conn->fail_timer, conn_on_fail_timer, conn);
    env_timer_set(env, &conn->timer, env_now_ns(env) + options->handshake_ns);
    watch(conn);
    return conn;
}

void rpc_conn_destroy(struct rpc_conn *conn)
{
    if (conn == NULL) return;
    env_timer_cancel(conn->env, &conn->timer);
    env_timer_cancel(conn->env, &conn->fail_timer);
    wire_close(&conn->wire);
    buf_fini(&conn->in);
    buf_fini(&conn->out);
    free(conn);
}

size_t rpc_conn_queued(const struct rpc_conn *conn)
{
    return conn->out.len;
}

const char *rpc_conn_peer(const struct rpc_conn *conn)
{
    return conn->peer;
}

void rpc_set_identity(struct env *env, struct tls_identity *identity)
{
    env_set_user(env, identity);
}

struct tls_identity *rpc_identity(struct env *env)
{
    return env_user(env);
}

/* ---- failing ---- */

static enum status fail(struct rpc_conn *conn, enum status why, const char *reason)
{
    ASSERT(why != STATUS_OK);
    if (conn->failure == STATUS_OK) {
        conn->failure = why;
        conn->reason = reason;
    }
    return conn->failure;
}

uint64_t rpc_damaged_total(void)
{
    return atomic_load_explicit(&damaged_total, memory_order_relaxed);
}

static enum status fail_damaged(struct rpc_conn *conn)
{
    atomic_fetch_add_explicit(&damaged_total, 1, memory_order_relaxed);
    return fail(conn, STATUS_CORRUPT, "a frame was damaged on its way");
}

void rpc_conn_fail(struct rpc_conn *conn, enum status why, const char *reason)
{
    fail(conn, why, reason);
    env_timer_set(conn->env, &conn->fail_timer, 0);
}

/* The end: nothing of the connection may be touched after it (I2). */
static void close_now(struct rpc_conn *conn)
{
    const enum status why = conn->failure;

    ASSERT(why != STATUS_OK);
    if (why == STATUS_CONN_CLOSED || why == STATUS_CONN_REFUSED || why == STATUS_UNAVAILABLE) {
        LOG_DEBUG("rpc", "conn_closed", "peer=%s reason=%s", conn->peer, conn->reason);
    } else {
        LOG_WARN("rpc", "conn_closed", "peer=%s status=%s reason=%s", conn->peer, status_name(why),
                 conn->reason);
    }
    conn->events.on_closed(conn->ctx, why);
}

static void conn_on_fail_timer(void *ctx)
{
    close_now(ctx);
}

/* ---- writing ---- */

/* Writes what the kernel takes. */
static enum status flush(struct rpc_conn *conn)
{
    while (conn->out.len > 0) {
        size_t n = 0;
        const enum status status = wire_write(&conn->wire, buf_data(&conn->out), conn->out.len, &n);
        if (status == STATUS_AGAIN) break;
        if (status != STATUS_OK) return fail(conn, status, "the peer closed while we wrote");
        ASSERT(n > 0 && n <= conn->out.len);
        buf_consume(&conn->out, n);
    }
    if (conn->out.len == 0 && conn->out.cap > IDLE_BUFFER_SIZE_MAX) {
        const size_t size_max = conn->out.size_max;
        buf_fini(&conn->out);
        buf_init(&conn->out, size_max);
    }
    return STATUS_OK;
}

/* Whether what was written waits for the rest of what there is to answer (I3). Far from the limit,
 * so that nobody is thought slow who was not offered it yet. */
static bool may_hold(const struct rpc_conn *conn)
{
    return conn->is_taking && conn->state == CONN_READY && conn->out.len < HELD_SIZE_MAX &&
           conn->out.len < conn->options.write_queue_max / 4;
}

/* Of the frames that come and go now. */
static uint32_t framing(const struct rpc_conn *conn)
{
    return conn->state == CONN_READY ? conn->versions[2] : 1;
}

/* Without the limit, which is for calls: the handshake and signs of life always fit. */
static enum status send_frame(struct rpc_conn *conn, const struct rpc_frame *frame)
{
    if (rpc_frame_write(&conn->out, frame, framing(conn)) != STATUS_OK)
        return fail(conn, STATUS_FULL, "the peer does not read");
    if (may_hold(conn)) return STATUS_OK;
    const enum status status = flush(conn);
    if (conn->out.len > conn->options.write_queue_max / 4) conn->is_blocked = true;
    return status;
}

enum status rpc_conn_send(struct rpc_conn *conn, const struct rpc_frame *frame)
{
    ASSERT(conn->state == CONN_READY);
    if (conn->failure != STATUS_OK) return STATUS_CONN_CLOSED;
    if (conn->out.len >= conn->options.write_queue_max) return STATUS_FULL;
    if (send_frame(conn, frame) != STATUS_OK) {
        env_timer_set(conn->env, &conn->fail_timer, 0);
        return STATUS_CONN_CLOSED;
    }
    if (!conn->is_taking) watch(conn);
    return STATUS_OK;
}

/* ---- handshake ---- */

static struct msg_bytes bytes_of(const void *data, size_t len)
{
    return (struct msg_bytes){ data, len };
}

static struct msg_bytes text_of(const char *text)
{
    return bytes_of(text, strlen(text));
}

static void prove(const struct rpc_conn *conn, bool by_server, uint8_t out[RPC_PROOF_SIZE])
{
    enum { LABEL_SIZE = 16 };
    static const char labels[2][LABEL_SIZE] = { "yolk-rpc-client", "yolk-rpc-server" };
    uint8_t text[LABEL_SIZE + 2 * RPC_NONCE_SIZE + 3 * 4];
    size_t at = LABEL_SIZE + 2 * RPC_NONCE_SIZE;

    memcpy(text, labels[by_server], LABEL_SIZE);
    memcpy(text + LABEL_SIZE, conn->nonce_client, RPC_NONCE_SIZE);
    memcpy(text + LABEL_SIZE + RPC_NONCE_SIZE, conn->nonce_server, RPC_NONCE_SIZE);
    for (int i = 0; i < 3; i++) {
        for (int shift = 0; shift < 32; shift += 8)
            text[at++] = (uint8_t)(conn->versions[i] >> shift);
    }
    ASSERT(at == sizeof(text));
    hash_hmac_sha256(conn->options.secret, strlen(conn->options.secret), text, sizeof(text), out);
}

static bool is_proved(const struct rpc_conn *conn, bool by_server, struct msg_bytes proof)
{
    uint8_t expected[RPC_PROOF_SIZE];

    ASSERT(proof.len == RPC_PROOF_SIZE);
    prove(conn, by_server, expected);
    return hash_equal_secret(expected, proof.data, RPC_PROOF_SIZE);
}

static enum status refuse(struct rpc_conn *conn, enum status why, const char *reason)
{
    const struct rpc_frame frame = { .kind = RPC_KIND_REFUSE,
                                     .status = why,
                                     .message = text_of(reason) };
    send_frame(conn, &frame);
    return fail(conn, why, reason);
}

/* The name is foreign text: only what is printable and not '@' is kept. */
static void learn_name(struct rpc_conn *conn, struct msg_bytes name)
{
    char clean[RPC_NAME_SIZE];
    size_t len = 0;

    for (size_t i = 0; i < name.len && len < sizeof(clean) - 1; i++) {
        const uint8_t c = name.data[i];
        if (c > ' ' && c < 0x7f && c != '@') clean[len++] = (char)c;
    }
    clean[len] = '\0';
    snprintf(conn->peer, sizeof(conn->peer), "%s@%s", clean, env_stream_peer(conn->wire.stream));
}

static enum status become_ready(struct rpc_conn *conn)
{
    set_state(conn, CONN_READY);
    env_timer_set(conn->env, &conn->timer, env_now_ns(conn->env) + conn->options.keepalive_ns);
    LOG_DEBUG("rpc", "conn_ready", "peer=%s version=%u", conn->peer, conn->versions[2]);
    conn->events.on_ready(conn->ctx);
    return conn->failure;
}

static enum status say_hello(struct rpc_conn *conn)
{
    conn->versions[0] = RPC_VERSION_MIN;
    conn->versions[1] = RPC_VERSION_MAX;
    const struct rpc_frame frame = { .kind = RPC_KIND_HELLO,
                                     .version_min = RPC_VERSION_MIN,
                                     .version_max = RPC_VERSION_MAX,
                                     .name = text_of(conn->options.name),
                                     .nonce = bytes_of(conn->nonce_client, RPC_NONCE_SIZE) };
    const enum status status = send_frame(conn, &frame);
    if (status != STATUS_OK) return status;
    set_state(conn, CONN_CHALLENGE_DUE);
    return STATUS_OK;
}

static enum status answer_hello(struct rpc_conn *conn, const struct rpc_frame *hello)
{
    const uint32_t chosen =
        hello->version_max < RPC_VERSION_MAX ? hello->version_max : (uint32_t)RPC_VERSION_MAX;

    if (chosen < RPC_VERSION_MIN || chosen < hello->version_min)
        return refuse(conn, STATUS_PROTOCOL, "no common version of the protocol");
    learn_name(conn, hello->name);
    memcpy(conn->nonce_client, hello->nonce.data, RPC_NONCE_SIZE);
    conn->versions[0] = hello->version_min;
    conn->versions[1] = hello->version_max;
    conn->versions[2] = chosen;
    const struct rpc_frame frame = { .kind = RPC_KIND_CHALLENGE,
                                     .version_min = chosen,
                                     .version_max = chosen,
                                     .name = text_of(conn->options.name),
                                     .nonce = bytes_of(conn->nonce_server, RPC_NONCE_SIZE) };
    set_state(conn, CONN_PROOF_DUE);
    return send_frame(conn, &frame);
}

static enum status answer_challenge(struct rpc_conn *conn, const struct rpc_frame *challenge)
{
    uint8_t proof[RPC_PROOF_SIZE];
    const uint32_t chosen = challenge->version_max;

    if (chosen < RPC_VERSION_MIN || chosen > RPC_VERSION_MAX)
        return fail(conn, STATUS_PROTOCOL, "the peer chose a version that we do not speak");
    learn_name(conn, challenge->name);
    memcpy(conn->nonce_server, challenge->nonce.data, RPC_NONCE_SIZE);
    conn->versions[2] = chosen;
    prove(conn, false, proof);
    const struct rpc_frame frame = { .kind = RPC_KIND_PROOF,
                                     .proof = bytes_of(proof, sizeof(proof)) };
    set_state(conn, CONN_READY_DUE);
    return send_frame(conn, &frame);
}

static enum status answer_proof(struct rpc_conn *conn, const struct rpc_frame *claim)
{
    uint8_t proof[RPC_PROOF_SIZE];

    if (!is_proved(conn, false, claim->proof))
        return refuse(conn, STATUS_DENIED, "the cluster secrets differ");
    prove(conn, true, proof);
    const struct rpc_frame frame = { .kind = RPC_KIND_READY,
                                     .proof = bytes_of(proof, sizeof(proof)) };
    const enum status status = send_frame(conn, &frame);
    return status == STATUS_OK ? become_ready(conn) : status;
}

static enum status check_ready(struct rpc_conn *conn, const struct rpc_frame *claim)
{
    if (!is_proved(conn, true, claim->proof))
        return fail(conn, STATUS_DENIED, "the peer does not know the cluster secret");
    return become_ready(conn);
}

/* ---- reading ---- */

static enum status take_refusal(struct rpc_conn *conn, const struct rpc_frame *frame)
{
    LOG_WARN("rpc", "refused", "peer=%s status=%s message=%.*s", conn->peer,
             status_name(frame->status), (int)frame->message.len,
             (const char *)frame->message.data);
    return fail(conn, frame->status, "the peer refused us");
}

/* Whether a frame of the handshake lacks a checksum that its sender, by its own words, would have
 * put there. A refusal has none of an older server. */
static bool lacks_check(const struct rpc_conn *conn, const struct rpc_frame *frame)
{
    const bool first = frame->kind == RPC_KIND_HELLO || frame->kind == RPC_KIND_CHALLENGE;
    const uint32_t speaks = first ? frame->version_max : conn->versions[2];

    return !frame->checked && frame->kind != RPC_KIND_REFUSE && speaks > 1;
}

static enum status handshake(struct rpc_conn *conn, const struct rpc_frame *frame)
{
    if (lacks_check(conn, frame)) return fail_damaged(conn);
    if (!conn->options.is_server && frame->kind == RPC_KIND_REFUSE)
        return take_refusal(conn, frame);
    if (conn->state == CONN_HELLO_DUE && frame->kind == RPC_KIND_HELLO)
        return answer_hello(conn, frame);
    if (conn->state == CONN_CHALLENGE_DUE && frame->kind == RPC_KIND_CHALLENGE)
        return answer_challenge(conn, frame);
    if (conn->state == CONN_PROOF_DUE && frame->kind == RPC_KIND_PROOF)
        return answer_proof(conn, frame);
    if (conn->state == CONN_READY_DUE && frame->kind == RPC_KIND_READY)
        return check_ready(conn, frame);
    return fail(conn, STATUS_PROTOCOL, "a frame out of turn in the handshake");
}

static enum status dispatch(struct rpc_conn *conn, const struct rpc_frame *frame)
{
    const struct rpc_frame pong = { .kind = RPC_KIND_PONG };

    if (conn->state != CONN_READY) return handshake(conn, frame);
    switch (frame->kind) {
    case RPC_KIND_PING: return send_frame(conn, &pong);
    case RPC_KIND_PONG: return STATUS_OK;
    case RPC_KIND_REQUEST:
    case RPC_KIND_CANCEL:
        if (!conn->options.is_server) break;
        conn->events.on_frame(conn->ctx, frame);
        return conn->failure;
    case RPC_KIND_ITEM:
    case RPC_KIND_REPLY:
    case RPC_KIND_FAIL:
        if (conn->options.is_server) break;
        conn->events.on_frame(conn->ctx, frame);
        return conn->failure;
    case RPC_KIND_HELLO:
    case RPC_KIND_CHALLENGE:
    case RPC_KIND_PROOF:
    case RPC_KIND_READY:
    case RPC_KIND_REFUSE: break;
    }
    return fail(conn, STATUS_PROTOCOL, "a frame that this side does not take");
}

/* The head of the frame at the front. STATUS_AGAIN: it is not there yet. */
static enum status front_head(const struct rpc_conn *conn, struct rpc_head *out)
{
    if (conn->in.len < rpc_head_size(framing(conn))) return STATUS_AGAIN;
    return rpc_head_read(buf_data(&conn->in), framing(conn), out);
}

/* A greeting of TLS, where a length was due. */
static bool speaks_tls(const struct rpc_conn *conn)
{
    const uint8_t *data = buf_data(&conn->in);

    return conn->state == CONN_HELLO_DUE && conn->in.len >= 2 && data[0] == 0x16 && data[1] == 3;
}

/* The frame at the front, behind whose head all of it is there. */
static enum status take_frame(struct rpc_conn *conn, const struct rpc_head *head)
{
    const uint32_t version = framing(conn);
    const size_t head_size = rpc_head_size(version);
    struct rpc_frame frame;

    enum status status = rpc_frame_read(buf_data(&conn->in) + head_size, head, version, &frame);
    if (status == STATUS_CORRUPT) return fail_damaged(conn);
    if (status != STATUS_OK) return fail(conn, STATUS_PROTOCOL, "a malformed frame");
    status = dispatch(conn, &frame);
    buf_consume(&conn->in, head_size + head->len);
    return status;
}

/* Whether a frame of the handshake is all there though its length, which has no checksum, says that
 * more comes. Waiting for that would cost the whole time that a handshake may take. */
static bool is_too_long(const struct rpc_conn *conn)
{
    const struct rpc_head all = { .len = conn->in.len - RPC_LENGTH_SIZE };
    struct rpc_frame frame;

    if (conn->state == CONN_READY) return false;
    return rpc_frame_read(buf_data(&conn->in) + RPC_LENGTH_SIZE, &all, 1, &frame) != STATUS_INVALID;
}

/* Takes every whole frame. */
static enum status take_frames(struct rpc_conn *conn)
{
    enum status status = STATUS_OK;
    struct rpc_head head;

    while (status == STATUS_OK) {
        const enum status found = front_head(conn, &head);
        const size_t len_max =
            conn->state == CONN_READY ? RPC_FRAME_SIZE_MAX : RPC_HANDSHAKE_FRAME_SIZE_MAX;
        if (found == STATUS_AGAIN) return STATUS_OK;
        if (found != STATUS_OK) return fail_damaged(conn);
        if (speaks_tls(conn))
            return fail(conn, STATUS_DENIED,
                        "the peer speaks TLS and we do not: --cluster-tls-* is not set here");
        if (head.len == 0 || head.len > len_max)
            return fail(conn, STATUS_PROTOCOL, "a frame of impossible length");
        if (conn->in.len - rpc_head_size(framing(conn)) < head.len)
            return is_too_long(conn) ? fail_damaged(conn) : STATUS_OK;
        status = take_frame(conn, &head);
    }
    return status;
}

/* How much to read at once: up to the end of a large frame, so that it is not copied in small
 * steps. */
static size_t read_size(const struct rpc_conn *conn)
{
    struct rpc_head head;

    if (front_head(conn, &head) != STATUS_OK) return READ_SIZE_MIN;
    const size_t need = rpc_head_size(framing(conn)) + head.len;
    const size_t missing = need > conn->in.len ? need - conn->in.len : 0;

    if (missing < READ_SIZE_MIN) return READ_SIZE_MIN;
    return missing < READ_SIZE_MAX ? missing : READ_SIZE_MAX;
}

/* The peer has no certificates: told in the clear, as far as the kernel takes it. */
static enum status refuse_plain(struct rpc_conn *conn)
{
    const char *reason = "this cluster speaks TLS: set --cluster-tls-ca, -cert and -key";
    const struct rpc_frame frame = { .kind = RPC_KIND_REFUSE,
                                     .status = STATUS_DENIED,
                                     .message = text_of(reason) };
    struct buf out;

    buf_init(&out, RPC_HANDSHAKE_FRAME_SIZE_MAX);
    if (rpc_frame_write(&out, &frame, 1) == STATUS_OK)
        wire_answer_plain(&conn->wire, buf_data(&out), out.len);
    buf_fini(&out);
    return fail(conn, STATUS_DENIED, "the peer does not speak TLS");
}

static enum status read_some(struct rpc_conn *conn)
{
    enum status status = STATUS_OK;

    for (int i = 0; i < READS_PER_TURN && status == STATUS_OK; i++) {
        uint8_t *to;
        size_t n = 0;
        const size_t size = read_size(conn);
        if (buf_reserve(&conn->in, size, &to) != STATUS_OK)
            return fail(conn, STATUS_FULL, "no memory for a frame");
        status = wire_read(&conn->wire, to, size, &n);
        if (status == STATUS_AGAIN) return STATUS_OK;
        if (wire_peer_is_plain(&conn->wire)) return refuse_plain(conn);
        if (status != STATUS_OK) return fail(conn, status, "the peer closed");
        buf_commit(&conn->in, n);
        conn->is_heard = true;
        conn->is_taking = true;
        status = take_frames(conn);
        conn->is_taking = false;
        const enum status flushed = flush(conn);
        if (status == STATUS_OK) status = flushed;
        if (wire_is_drained(&conn->wire, size, n)) break;
    }
    if (conn->in.len == 0 && conn->in.cap > IDLE_BUFFER_SIZE_MAX) {
        const size_t size_max = conn->in.size_max;
        buf_fini(&conn->in);
        buf_init(&conn->in, size_max);
    }
    return status;
}

static void tell_drained(struct rpc_conn *conn)
{
    if (!conn->is_blocked || conn->out.len > conn->options.write_queue_max / 4) return;
    conn->is_blocked = false;
    conn->events.on_drained(conn->ctx);
}

static void conn_ready(void *ctx, unsigned events)
{
    struct rpc_conn *conn = ctx;
    enum status status = conn->failure;

    if (status == STATUS_OK && conn->state == CONN_DIALING) {
        if ((events & ENV_WRITE) == 0) return;
        status = say_hello(conn);
    }
    if (status == STATUS_OK && (events & ENV_WRITE) != 0) status = flush(conn);
    if (status == STATUS_OK && (events & ENV_READ) != 0) status = read_some(conn);
    if (status == STATUS_OK) {
        tell_drained(conn);
        status = conn->failure;
    }
    if (status != STATUS_OK) {
        close_now(conn);
        return;
    }
    watch(conn);
}

static enum status check_life(struct rpc_conn *conn)
{
    const struct rpc_frame ping = { .kind = RPC_KIND_PING };

    if (conn->failure != STATUS_OK) return conn->failure;
    if (conn->state != CONN_READY) return fail(conn, STATUS_TIMEOUT, "no handshake in time");
    conn->silent_ticks = conn->is_heard ? 0 : conn->silent_ticks + 1;
    conn->is_heard = false;
    if (conn->silent_ticks >= SILENT_TICKS_MAX)
        return fail(conn, STATUS_TIMEOUT, "no sign of life");
    return conn->silent_ticks > 0 ? send_frame(conn, &ping) : STATUS_OK;
}

static void conn_on_timer(void *ctx)
{
    struct rpc_conn *conn = ctx;

    if (check_life(conn) != STATUS_OK) {
        close_now(conn);
        return;
    }
    env_timer_set(conn->env, &conn->timer, env_now_ns(conn->env) + conn->options.keepalive_ns);
    watch(conn);
}
