/* SPDX-License-Identifier: Apache-2.0
 *
 * net/wire.c - see the header.
 *
 * What the owner wants to know of is kept here; the stream is watched for what TLS needs to find
 * out. A timer stands in for readiness that the stream does not have: bytes that were decrypted
 * already, and a failure.
 *
 *     HANDSHAKE --tls_handshake() is over--> OPEN
 *         |                                   |
 *         +---------> failed <----------------+   wire_read() and wire_write() say why
 *
 * Invariant: nothing is touched after a call of the owner's on_ready, which may close the wire. */
#include "net/wire.h"

#include <stdlib.h>

#include "base/log.h"
#include "net/tls.h"

struct wire_tls {
    struct env *env;
    struct env_stream *stream;
    struct tls *tls;
    bool open;
    bool quiet;
    enum status failure;
    unsigned wanted;
    env_ready_fn on_ready;
    void *ctx;
    struct env_timer timer;
};

static void on_stream(void *ctx, unsigned events);

static void watch_stream(struct wire_tls *w)
{
    unsigned events = w->open ? w->wanted : ENV_READ;

    if (w->failure != STATUS_OK) events = 0;
    if (w->failure == STATUS_OK && tls_wants_write(w->tls)) events |= ENV_WRITE;
    env_stream_watch(w->stream, events, on_stream, w);
}

static void tell_soon(struct wire_tls *w)
{
    if (w->wanted != 0 && !env_timer_armed(&w->timer)) env_timer_set(w->env, &w->timer, 0);
}

static enum status note(struct wire_tls *w, enum status status)
{
    if (status == STATUS_OK || status == STATUS_AGAIN || w->failure != STATUS_OK) return status;
    w->failure = status;
    if (w->quiet || (status == STATUS_CONN_CLOSED && w->open)) return status;
    LOG_WARN("tls", "failed", "peer=%s status=%s reason=%s", env_stream_peer(w->stream),
             status_name(status), tls_why(w->tls));
    return status;
}

static void tell(struct wire_tls *w, unsigned events)
{
    if ((events & w->wanted) != 0) w->on_ready(w->ctx, events & w->wanted);
}

static void on_stream(void *ctx, unsigned events)
{
    struct wire_tls *w = ctx;

    if (w->open) {
        if ((events & ENV_WRITE) != 0 && tls_wants_write(w->tls)) events |= ENV_READ;
        tell(w, events);
        return;
    }
    w->open = note(w, tls_handshake(w->tls)) == STATUS_OK;
    watch_stream(w);
    if (w->open || w->failure != STATUS_OK) tell(w, ENV_READ | ENV_WRITE);
}

static void on_timer(void *ctx)
{
    struct wire_tls *w = ctx;

    if (w->failure != STATUS_OK) {
        tell(w, ENV_READ | ENV_WRITE);
    } else if (tls_waiting(w->tls)) {
        tell(w, ENV_READ);
    }
}

enum status wire_open(struct wire *wire, struct env *env, struct env_stream *stream,
                      const struct tls_identity *identity, bool is_server)
{
    *wire = (struct wire){ .stream = stream };
    if (identity == NULL) return STATUS_OK;
    struct wire_tls *w = calloc(1, sizeof(*w));
    if (w == NULL || tls_create(env, stream, identity, is_server, &w->tls) != STATUS_OK) {
        free(w);
        *wire = (struct wire){ 0 };
        return STATUS_NO_MEMORY;
    }
    w->env = env;
    w->stream = stream;
    env_timer_init(&w->timer, on_timer, w);
    wire->tls = w;
    watch_stream(w);
    return STATUS_OK;
}

void wire_close(struct wire *wire)
{
    if (wire->tls != NULL) {
        env_timer_cancel(wire->tls->env, &wire->tls->timer);
        tls_destroy(wire->tls->tls);
        free(wire->tls);
    }
    env_stream_close(wire->stream);
    *wire = (struct wire){ 0 };
}

void wire_watch(struct wire *wire, unsigned events, env_ready_fn on_ready, void *ctx)
{
    struct wire_tls *w = wire->tls;

    if (w == NULL) {
        env_stream_watch(wire->stream, events, on_ready, ctx);
        return;
    }
    w->wanted = events;
    w->on_ready = on_ready;
    w->ctx = ctx;
    watch_stream(w);
    if (w->failure != STATUS_OK || tls_waiting(w->tls)) tell_soon(w);
}

enum status wire_read(struct wire *wire, void *buf, size_t len, size_t *n)
{
    struct wire_tls *w = wire->tls;

    if (w == NULL) return env_stream_read(wire->stream, buf, len, n);
    if (w->failure != STATUS_OK) return w->failure;
    if (!w->open) return STATUS_AGAIN;
    const bool wanted_write = tls_wants_write(w->tls);
    const enum status status = note(w, tls_read(w->tls, buf, len, n));
    if (tls_wants_write(w->tls) != wanted_write)
        watch_stream(w); /* even a read may have to write */
    if (w->failure != STATUS_OK || tls_waiting(w->tls)) tell_soon(w);
    return status;
}

enum status wire_write(struct wire *wire, const void *data, size_t len, size_t *n)
{
    struct wire_tls *w = wire->tls;
    const struct iovec part = { (void *)(uintptr_t)data, len };

    if (w == NULL) return env_stream_writev(wire->stream, &part, 1, n);
    if (w->failure != STATUS_OK) return w->failure;
    if (!w->open) return STATUS_AGAIN;
    return note(w, tls_write(w->tls, data, len, n));
}

void wire_be_quiet(struct wire *wire)
{
    if (wire->tls != NULL) wire->tls->quiet = true;
}

const char *wire_why(const struct wire *wire)
{
    return wire->tls != NULL ? tls_why(wire->tls->tls) : "";
}

/* A record of TLS ends a read, too, with more behind it. */
bool wire_is_drained(const struct wire *wire, size_t asked, size_t n)
{
    return wire->tls == NULL && n < asked;
}

bool wire_peer_is_plain(const struct wire *wire)
{
    return wire->tls != NULL && tls_peer_is_plain(wire->tls->tls);
}

/* What has come is read first: closed with bytes unread, the kernel may drop what we write. */
void wire_answer_plain(struct wire *wire, const void *data, size_t len)
{
    enum { SINK_SIZE = 4096, READS_MAX = 16 };
    const struct iovec part = { (void *)(uintptr_t)data, len };
    char sink[SINK_SIZE];
    size_t n = 0;

    for (int i = 0; i < READS_MAX; i++)
        if (env_stream_read(wire->stream, sink, sizeof(sink), &n) != STATUS_OK) break;
    if (env_stream_writev(wire->stream, &part, 1, &n) != STATUS_OK)
        LOG_DEBUG("tls", "plain_peer_not_told", "peer=%s", env_stream_peer(wire->stream));
}
