/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_stream.c - connections of the simulated world.
 *
 * A connection has two ends; each end has a queue of segments on the way to the other one. A
 * segment arrives after its delay, never before the one in front of it, so a stream keeps its order
 * while streams overtake each other. Opening, closing and breaking are segments too: what was
 * written before a close arrives before the close.
 *
 *     SYN       the listener is looked up on arrival; answered by SYNACK or RST
 *     SYNACK    the initiator is connected
 *     DATA      into the inbox; the sender's room is its buffer less what is on the way or unread
 *     FIN       no more will come; readable as an end after the inbox
 *     RST       broken: nobody is there (any more)
 *
 * A segment that cannot pass (partition, power off) is tried again every RETRY_NS or so, like a
 * retransmission, and gives up after SYN_LIMIT_NS or DATA_LIMIT_NS.
 *
 * An end is `gone` when no living process is behind it (closed, or crashed), and `released` when
 * the code that owned it has closed it. A crash makes it gone, but only its owner releases it.
 *
 *   I1  A connection is freed when both ends are released and nothing is on the way.
 *   I2  inbox_len + the peer's out_bytes <= stream_buffer_size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_sim_int.h"
#include "base/list.h"

#define RETRY_NS (200 * ENV_NS_PER_MS)
#define SYN_LIMIT_NS (127 * ENV_NS_PER_S)
#define DATA_LIMIT_NS (900 * ENV_NS_PER_S)
#define LINGER_NS (2 * ENV_NS_PER_S) /* as the real body does after a close with unread bytes */

enum segment_kind { SEGMENT_SYN, SEGMENT_SYNACK, SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RST };

struct segment {
    enum segment_kind kind;
    uint64_t sent_ns, arrive_ns;
    size_t len;
    struct segment *next;
    uint8_t data[];
};

enum end_state { END_CONNECTING, END_OPEN, END_BROKEN };

struct sim_end {
    struct env_stream base; /* base.env: the process, NULL before it is accepted */
    struct sim_conn *conn;
    struct sim_host *host;
    enum end_state state;
    enum status failure; /* in BROKEN */
    bool gone, released;
    bool linked; /* in the process's list */

    unsigned wanted;
    env_ready_fn on_ready;
    void *ctx;

    uint8_t *inbox; /* stream_buffer_size bytes, made at the first arrival */
    size_t inbox_head, inbox_len;
    bool eof, reset;
    uint64_t reset_after_ns; /* when gone: data that arrives before is swallowed */

    struct segment *out_first, *out_last;
    size_t out_bytes;
    uint64_t line_free_ns; /* when the last byte handed to the line has left */
    struct env_timer pump;

    struct sim_end *prev, *next; /* of the process */
    struct sim_end *accept_next;
};

struct sim_conn {
    struct env_sim *sim;
    uint64_t id;
    uint16_t port;
    struct sim_end ends[2]; /* 0 connected, 1 accepted */
    struct sim_conn *prev, *next;
    struct sim_conn *gone_next;
    bool in_gone;
};

struct sim_listener {
    struct env_listener base;
    struct sim_host *host;
    env_accept_fn on_accept;
    void *ctx;
    struct sim_end *accept_first, *accept_last;
    struct sim_listener *next;
};

static struct sim_end *end_of(const struct env_stream *base)
{
    return (struct sim_end *)(uintptr_t)base; /* `base` is the first member */
}

static struct sim_end *other_end(struct sim_end *end)
{
    return end == &end->conn->ends[0] ? &end->conn->ends[1] : &end->conn->ends[0];
}

static struct sim_process *owner_of(const struct sim_end *end)
{
    return sim_process_of(end->base.env);
}

static void end_wake(struct sim_end *end)
{
    if (end->base.env == NULL || end->gone) return;
    env_sim_wake(owner_of(end), end->conn->sim->now_ns);
}

static void end_break(struct sim_end *end, enum status failure)
{
    ASSERT(end->state != END_BROKEN);
    end->state = END_BROKEN;
    end->failure = failure;
    end_wake(end);
}

static void end_link(struct sim_end *end)
{
    struct sim_process *process = owner_of(end);

    ASSERT(!end->linked);
    end->linked = true;
    LIST_PUSH(process->ends, end);
}

static void end_unlink(struct sim_end *end)
{
    ASSERT(end->linked);
    end->linked = false;
    LIST_REMOVE(owner_of(end)->ends, end);
}

/* ---- the life of a connection ---- */

static void drop_out(struct sim_end *end)
{
    while (end->out_first != NULL) {
        struct segment *segment = end->out_first;
        end->out_first = segment->next;
        free(segment);
    }
    end->out_last = NULL;
    end->out_bytes = 0;
    if (env_timer_armed(&end->pump)) env_timers_cancel(&end->conn->sim->events, &end->pump);
}

static void drop_inbox(struct sim_end *end)
{
    free(end->inbox);
    end->inbox = NULL;
    end->inbox_head = 0;
    end->inbox_len = 0;
}

static void conn_free(struct sim_conn *conn)
{
    for (int i = 0; i < 2; i++) {
        drop_out(&conn->ends[i]);
        drop_inbox(&conn->ends[i]);
    }
    LIST_REMOVE(conn->sim->conns, conn);
    free(conn);
}

static bool conn_is_over(const struct sim_conn *conn)
{
    for (int i = 0; i < 2; i++) {
        if (!conn->ends[i].released || conn->ends[i].out_first != NULL) return false;
    }
    return true;
}

/* Looked at again when the event is over (I1). */
static void conn_maybe_over(struct sim_conn *conn)
{
    if (conn->in_gone || !conn_is_over(conn)) return;
    conn->in_gone = true;
    conn->gone_next = conn->sim->conns_gone;
    conn->sim->conns_gone = conn;
}

void env_sim_streams_sweep(struct env_sim *sim)
{
    while (sim->conns_gone != NULL) {
        struct sim_conn *conn = sim->conns_gone;
        sim->conns_gone = conn->gone_next;
        conn->in_gone = false;
        if (conn_is_over(conn)) conn_free(conn);
    }
}

/* ---- segments ---- */

static uint64_t draw_delay(struct env_sim *sim)
{
    const struct env_sim_options *options = &sim->options;
    const uint64_t delay = rng_between(&sim->rng, options->delay_min_ns, options->delay_max_ns);
    return env_sim_chance(sim, options->slow_ppm) ? delay * 100 : delay;
}

static void send_segment(struct sim_end *end, enum segment_kind kind, const struct iovec *iov,
                         int iov_count, size_t len)
{
    struct env_sim *sim = end->conn->sim;
    struct segment *segment = env_sim_alloc(sizeof(*segment) + len);
    size_t copied = 0;

    for (int i = 0; i < iov_count && copied < len; i++) {
        const size_t part = iov[i].iov_len < len - copied ? iov[i].iov_len : len - copied;
        memcpy(segment->data + copied, iov[i].iov_base, part);
        copied += part;
    }
    ASSERT(copied == len);
    if (end->line_free_ns < sim->now_ns) end->line_free_ns = sim->now_ns;
    if (sim->options.bytes_per_s != 0)
        end->line_free_ns += len * ENV_NS_PER_S / sim->options.bytes_per_s;
    segment->kind = kind;
    segment->len = len;
    segment->sent_ns = sim->now_ns;
    segment->arrive_ns = end->line_free_ns + draw_delay(sim);
    end->out_bytes += len;
    if (end->out_last != NULL) {
        if (segment->arrive_ns < end->out_last->arrive_ns)
            segment->arrive_ns = end->out_last->arrive_ns;
        end->out_last->next = segment;
    } else {
        end->out_first = segment;
        env_timers_set(&sim->events, &end->pump, segment->arrive_ns, sim->now_ns);
    }
    end->out_last = segment;
}

static void send_control(struct sim_end *end, enum segment_kind kind)
{
    send_segment(end, kind, NULL, 0, 0);
}

/* Nobody is behind this end any more. */
static void end_leave(struct sim_end *end, enum segment_kind last_word)
{
    ASSERT(!end->gone);
    end->gone = true;
    end->reset_after_ns = 0;
    if (end->inbox_len > 0 && last_word == SEGMENT_FIN)
        end->reset_after_ns = end->conn->sim->now_ns + LINGER_NS;
    drop_inbox(end);
    if (end->state != END_BROKEN && !end->reset) send_control(end, last_word);
    if (!other_end(end)->gone) end_wake(other_end(end)); /* room: what was unread is gone */
}

/* The same without a word, and without what was on the way. */
static void end_vanish(struct sim_end *end)
{
    ASSERT(!end->gone);
    end->gone = true;
    end->reset_after_ns = 0;
    drop_inbox(end);
    drop_out(end);
}

static void conn_break(struct sim_conn *conn)
{
    for (int i = 0; i < 2; i++) {
        drop_out(&conn->ends[i]);
        send_control(&conn->ends[i], SEGMENT_RST);
    }
}

static struct sim_listener *find_listener(struct sim_host *host, uint16_t port)
{
    for (struct sim_listener *listener = host->listeners; listener != NULL;
         listener = listener->next) {
        if (listener->base.port == port) return listener;
    }
    return NULL;
}

static void deliver_syn(struct sim_end *end)
{
    struct env_sim *sim = end->conn->sim;
    struct sim_listener *listener = find_listener(end->host->home, end->conn->port);

    if (listener == NULL || env_sim_chance(sim, sim->options.conn_refuse_ppm)) {
        end->gone = true;
        send_control(end, SEGMENT_RST);
        return;
    }
    end->base.env = listener->base.env;
    end->state = END_OPEN;
    end->released = false; /* the listener's, then its callback's to close */
    if (listener->accept_last != NULL)
        listener->accept_last->accept_next = end;
    else
        listener->accept_first = end;
    listener->accept_last = end;
    send_control(end, SEGMENT_SYNACK);
    end_wake(end);
}

static bool is_spared(const struct sim_end *end)
{
    const char *spared = end->conn->sim->options.flip_spares;

    if (spared == NULL) return false;
    return strcmp(end->conn->ends[0].host->home->name, spared) == 0 ||
           strcmp(end->conn->ends[1].host->home->name, spared) == 0;
}

/* What checksums of TCP do not see, as they are weak, or as it happened in between. */
static void maybe_flip(const struct sim_end *end, uint8_t *data, size_t len)
{
    struct env_sim *sim = end->conn->sim;

    if (is_spared(end) || !env_sim_chance(sim, sim->options.flip_ppm)) return;
    data[rng_below(&sim->rng, len)] ^= (uint8_t)(1U << rng_below(&sim->rng, 8));
}

static void deliver_data(struct sim_end *end, const struct segment *segment)
{
    const size_t size = end->conn->sim->options.stream_buffer_size;

    if (end->gone) {
        if (end->conn->sim->now_ns >= end->reset_after_ns) send_control(end, SEGMENT_RST);
        return;
    }
    if (end->state == END_BROKEN || end->reset) return; /* what a reset cut off stays cut off */
    ASSERT(end->inbox_len + segment->len <= size);      /* I2 */
    if (end->inbox == NULL) end->inbox = env_sim_alloc(size);
    if (end->inbox_head + end->inbox_len + segment->len > size) {
        memmove(end->inbox, end->inbox + end->inbox_head, end->inbox_len);
        end->inbox_head = 0;
    }
    uint8_t *tail = end->inbox + end->inbox_head + end->inbox_len;
    memcpy(tail, segment->data, segment->len);
    maybe_flip(end, tail, segment->len);
    end->inbox_len += segment->len;
    end_wake(end);
}

static void deliver_rst(struct sim_end *end)
{
    if (end->gone || end->state == END_BROKEN) return;
    end->reset = true;
    if (end->state == END_CONNECTING) end_break(end, STATUS_CONN_REFUSED);
    end_wake(end);
}

static void deliver(struct sim_end *end, const struct segment *segment)
{
    env_sim_trace(end->conn->sim, 16 + segment->kind, end->conn->id << 32 | segment->len);
    switch (segment->kind) {
    case SEGMENT_SYN: deliver_syn(end); break;
    case SEGMENT_SYNACK:
        if (end->state == END_CONNECTING) end->state = END_OPEN;
        end_wake(end);
        break;
    case SEGMENT_DATA: deliver_data(end, segment); break;
    case SEGMENT_FIN:
        end->eof = true;
        end_wake(end);
        break;
    case SEGMENT_RST: deliver_rst(end); break;
    }
}

static bool can_pass(struct sim_end *from, struct sim_end *to)
{
    if (!to->host->home->on) return false;
    return from->host->home == to->host->home ||
           !env_sim_cut(from->conn->sim, from->host, to->host);
}

/* The first segment could not pass. */
static void retry_or_give_up(struct sim_end *end)
{
    struct env_sim *sim = end->conn->sim;
    struct segment *first = end->out_first;
    const uint64_t limit_ns = first->kind == SEGMENT_SYN ? SYN_LIMIT_NS : DATA_LIMIT_NS;

    if (sim->now_ns - first->sent_ns < limit_ns) {
        first->arrive_ns = sim->now_ns + rng_between(&sim->rng, RETRY_NS / 2, RETRY_NS * 2);
        return;
    }
    const bool connecting = first->kind == SEGMENT_SYN;
    drop_out(end);
    if (!end->gone && end->state != END_BROKEN)
        end_break(end, connecting ? STATUS_TIMEOUT : STATUS_CONN_CLOSED);
}

static void on_pump(void *ctx)
{
    struct sim_end *end = ctx;
    struct sim_end *to = other_end(end);
    struct env_sim *sim = end->conn->sim;

    while (end->out_first != NULL && end->out_first->arrive_ns <= sim->now_ns) {
        struct segment *segment = end->out_first;
        if (!can_pass(end, to)) {
            retry_or_give_up(end);
            break;
        }
        end->out_first = segment->next;
        if (end->out_first == NULL) end->out_last = NULL;
        end->out_bytes -= segment->len;
        deliver(to, segment);
        free(segment);
    }
    if (end->out_first != NULL)
        env_timers_set(&sim->events, &end->pump, end->out_first->arrive_ns, sim->now_ns);
    conn_maybe_over(end->conn);
}

/* ---- what the process does with its end ---- */

static size_t end_room(const struct sim_end *end)
{
    const struct sim_end *peer =
        end == &end->conn->ends[0] ? &end->conn->ends[1] : &end->conn->ends[0];
    const size_t used = end->out_bytes + peer->inbox_len;
    const size_t size = end->conn->sim->options.stream_buffer_size;
    return used < size ? size - used : 0;
}

static unsigned end_ready(const struct sim_end *end)
{
    unsigned events = 0;

    if (end->state == END_CONNECTING) return 0;
    if (end->state == END_BROKEN || end->reset) return ENV_READ | ENV_WRITE;
    if (end->inbox_len > 0 || end->eof) events |= ENV_READ;
    if (end_room(end) > 0) events |= ENV_WRITE;
    return events;
}

enum status env_sim_connect(struct env *env, const char *local_host, const char *address,
                            struct env_stream **out, struct errmsg *err)
{
    struct sim_process *process = sim_process_of(env);
    struct env_sim *sim = process->sim;
    char host[ENV_HOST_SIZE];
    uint16_t port;

    const enum status status = env_address_parse(address, host, &port, err);
    if (status != STATUS_OK) return status;
    if (!process->alive) return errmsg_set(err, STATUS_UNAVAILABLE, "the process is dead");
    if (host[0] == '\0')
        return errmsg_set(err, STATUS_INVALID, "'%s': no host to connect to", address);
    const bool here = strcmp(host, "127.0.0.1") == 0 || strcmp(host, "localhost") == 0;
    struct sim_host *target = here ? process->host : env_sim_host(sim, host);
    if (target == NULL) return errmsg_set(err, STATUS_INVALID, "'%s': no such host", address);
    struct sim_host *source = local_host[0] == '\0' ? process->host : env_sim_host(sim, local_host);
    if (source == NULL || source->home != process->host)
        return errmsg_set(err, STATUS_UNAVAILABLE, "%s is no address of this host", local_host);

    struct sim_conn *conn = env_sim_alloc(sizeof(*conn));
    conn->sim = sim;
    conn->id = sim->event_count;
    conn->port = port;
    LIST_PUSH(sim->conns, conn);
    for (int i = 0; i < 2; i++) {
        struct sim_end *end = &conn->ends[i];
        end->conn = conn;
        end->host = i == 0 ? source : target;
        end->released = i == 1; /* until it is accepted */
        env_timer_init(&end->pump, on_pump, end);
    }
    conn->ends[0].base.env = env;
    snprintf(conn->ends[0].base.peer, ENV_PEER_SIZE, "%s", address);
    snprintf(conn->ends[1].base.peer, ENV_PEER_SIZE, "%s:%u", source->name,
             process->host->port_next++);
    if (process->host->port_next < 30000) process->host->port_next = 30000;
    end_link(&conn->ends[0]);
    send_control(&conn->ends[0], SEGMENT_SYN);
    *out = &conn->ends[0].base;
    return STATUS_OK;
}

void env_sim_stream_watch(struct env_stream *stream, unsigned events, env_ready_fn on_ready,
                          void *ctx)
{
    struct sim_end *end = end_of(stream);

    ASSERT(!end->released);
    end->wanted = events;
    end->on_ready = on_ready;
    end->ctx = ctx;
    if ((end_ready(end) & events) != 0) end_wake(end);
}

/* What a call finds before it looks at bytes. */
static enum status end_check(struct sim_end *end)
{
    struct env_sim *sim = end->conn->sim;

    ASSERT(!end->released);
    if (end->gone) return STATUS_UNAVAILABLE; /* its process is dead */
    if (end->state == END_CONNECTING) return STATUS_AGAIN;
    if (end->state == END_BROKEN) return end->failure;
    if (env_sim_chance(sim, sim->options.buggify_ppm)) return STATUS_AGAIN;
    return STATUS_OK;
}

static size_t maybe_shorten(struct env_sim *sim, size_t len)
{
    if (!env_sim_chance(sim, sim->options.buggify_ppm)) return len;
    return (size_t)rng_between(&sim->rng, 1, len < 16 ? len : 16);
}

enum status env_sim_stream_readv(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                 size_t *n)
{
    struct sim_end *end = end_of(stream);
    size_t done = 0;

    const enum status status = end_check(end);
    if (status != STATUS_OK) return status;
    if (end->inbox_len == 0) {
        if (end->reset) {
            end_break(end, STATUS_CONN_CLOSED);
            return STATUS_CONN_CLOSED;
        }
        return end->eof ? STATUS_CONN_CLOSED : STATUS_AGAIN;
    }
    const size_t limit = maybe_shorten(end->conn->sim, end->inbox_len);
    for (int i = 0; i < iov_count && done < limit; i++) {
        const size_t part = iov[i].iov_len < limit - done ? iov[i].iov_len : limit - done;
        if (part == 0) continue;
        memcpy(iov[i].iov_base, end->inbox + end->inbox_head + done, part);
        done += part;
    }
    end->inbox_head += done;
    end->inbox_len -= done;
    if (end->inbox_len == 0) end->inbox_head = 0;
    end_wake(other_end(end)); /* room */
    *n = done;
    return STATUS_OK;
}

enum status env_sim_stream_writev(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                  size_t *n)
{
    struct sim_end *end = end_of(stream);
    struct env_sim *sim = end->conn->sim;
    size_t len = 0;

    const enum status status = end_check(end);
    if (status != STATUS_OK) return status;
    if (end->reset) {
        end_break(end, STATUS_CONN_CLOSED);
        return STATUS_CONN_CLOSED;
    }
    const size_t room = end_room(end);
    if (room == 0) return STATUS_AGAIN;
    for (int i = 0; i < iov_count; i++) {
        len += iov[i].iov_len;
    }
    if (len > room) len = room;
    len = maybe_shorten(sim, len);
    if (env_sim_chance(sim, sim->options.conn_loss_ppm))
        conn_break(end->conn); /* accepted and lost, as far as anybody can tell */
    else
        send_segment(end, SEGMENT_DATA, iov, iov_count, len);
    *n = len;
    return STATUS_OK;
}

void env_sim_stream_close(struct env_stream *stream)
{
    struct sim_end *end = end_of(stream);

    ASSERT(!end->released);
    if (!end->gone) end_leave(end, SEGMENT_FIN);
    end_unlink(end);
    end->released = true;
    conn_maybe_over(end->conn);
}

const char *env_sim_stream_local_host(const struct env_stream *stream)
{
    return end_of(stream)->host->name;
}

/* The host's own address and those added, each an interface of its own. */
uint32_t env_sim_interfaces(struct env *env, struct env_interface *out, uint32_t max)
{
    const struct sim_process *process = sim_process_of(env);
    uint32_t count = 0;

    for (const struct sim_host *host = process->sim->hosts; host != NULL && count < max;
         host = host->next) {
        if (host->home != process->host) continue;
        struct env_interface *one = &out[count];
        *one = (struct env_interface){ .prefix_bits = 24, .numa_node = -1, .up = true };
        snprintf(one->name, sizeof(one->name), "sim%u", host->index);
        snprintf(one->address, sizeof(one->address), "%s", host->name);
        count++;
    }
    return count;
}

/* ---- listeners ---- */

static bool is_own_host(const struct sim_process *process, const char *host)
{
    const struct sim_host *named = env_sim_host(process->sim, host);

    if (named != NULL && named->home == process->host) return true;
    return host[0] == '\0' || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "127.0.0.1") == 0 ||
           strcmp(host, "localhost") == 0;
}

enum status env_sim_listen(struct env *env, const char *address, env_accept_fn on_accept, void *ctx,
                           struct env_listener **out, struct errmsg *err)
{
    struct sim_process *process = sim_process_of(env);
    struct sim_host *home = process->host;
    char host[ENV_HOST_SIZE];
    uint16_t port;

    const enum status status = env_address_parse(address, host, &port, err);
    if (status != STATUS_OK) return status;
    if (!process->alive) return errmsg_set(err, STATUS_UNAVAILABLE, "the process is dead");
    if (!is_own_host(process, host))
        return errmsg_set(err, STATUS_IO, "cannot listen on %s: not this host", address);
    const bool any = port == 0;
    while (any && (port == 0 || find_listener(home, port) != NULL)) {
        port = home->port_next++;
    }
    if (find_listener(home, port) != NULL)
        return errmsg_set(err, STATUS_EXISTS, "cannot listen on %s: in use", address);
    struct sim_listener *listener = env_sim_alloc(sizeof(*listener));
    listener->base = (struct env_listener){ .env = env, .port = port };
    listener->host = home;
    listener->on_accept = on_accept;
    listener->ctx = ctx;
    listener->next = home->listeners;
    home->listeners = listener;
    *out = &listener->base;
    return STATUS_OK;
}

static void listener_unlink(struct sim_listener *listener)
{
    struct sim_listener **at = &listener->host->listeners;

    while (*at != NULL && *at != listener) {
        at = &(*at)->next;
    }
    if (*at != NULL) *at = listener->next;
}

static struct sim_end *accept_pop(struct sim_listener *listener)
{
    struct sim_end *end = listener->accept_first;

    if (end == NULL) return NULL;
    listener->accept_first = end->accept_next;
    if (listener->accept_first == NULL) listener->accept_last = NULL;
    return end;
}

/* Those who wait to be accepted are turned away, or left without a word. */
static void listener_turn_away(struct sim_listener *listener, bool loud)
{
    struct sim_end *end;

    while ((end = accept_pop(listener)) != NULL) {
        if (loud)
            end_leave(end, SEGMENT_RST);
        else
            end_vanish(end);
        end->released = true;
        conn_maybe_over(end->conn);
    }
}

void env_sim_listener_close(struct env_listener *base)
{
    struct sim_listener *listener = (struct sim_listener *)(void *)base;

    listener_turn_away(listener, true);
    listener_unlink(listener); /* a crash has done it already */
    free(listener);
}

/* ---- turns and crashes ---- */

static struct sim_listener *next_accepting(const struct sim_process *process)
{
    for (struct sim_listener *listener = process->host->listeners; listener != NULL;
         listener = listener->next) {
        if (listener->base.env == &process->base && listener->accept_first != NULL) return listener;
    }
    return NULL;
}

static void run_accepts(struct sim_process *process)
{
    struct sim_listener *listener;

    for (int i = 0; i < 64 && process->alive && (listener = next_accepting(process)) != NULL; i++) {
        struct sim_end *end = accept_pop(listener);
        end_link(end);
        process->callback_count++;
        listener->on_accept(listener->ctx, &end->base);
    }
}

bool env_sim_streams_ready(const struct sim_process *process)
{
    if (next_accepting(process) != NULL) return true;
    for (const struct sim_end *end = process->ends; end != NULL; end = end->next) {
        if ((end_ready(end) & end->wanted) != 0) return true;
    }
    return false;
}

/* The ready ends, in an order that the seed chooses. NULL if there are none. */
static struct sim_end **collect_ready(const struct sim_process *process, size_t *count)
{
    struct sim_end **ready = NULL;
    size_t capacity = 0;

    *count = 0;
    for (struct sim_end *end = process->ends; end != NULL; end = end->next) {
        if ((end_ready(end) & end->wanted) == 0) continue;
        if (*count == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            ready = env_sim_realloc(ready, capacity * sizeof(struct sim_end *));
        }
        const size_t place = (size_t)rng_below(&process->sim->rng, *count + 1);
        ready[*count] = end;
        struct sim_end *swapped = ready[place];
        ready[place] = ready[*count];
        ready[(*count)++] = swapped;
    }
    return ready;
}

void env_sim_streams_turn(struct sim_process *process)
{
    size_t count;
    struct sim_end **ready = collect_ready(process, &count);

    for (size_t i = 0; i < count && process->alive; i++) {
        struct sim_end *end = ready[i];
        if (end->released || end->gone) continue;
        const unsigned events = end_ready(end) & end->wanted;
        if (events == 0) continue;
        process->callback_count++;
        end->on_ready(end->ctx, events);
    }
    free(ready);
    if (process->alive) run_accepts(process);
}

void env_sim_streams_crash(struct sim_process *process, bool loud)
{
    struct env_sim *sim = process->sim;

    for (struct sim_end *end = process->ends; end != NULL; end = end->next) {
        if (loud)
            end_leave(end, rng_below(&sim->rng, 2) == 0 ? SEGMENT_RST : SEGMENT_FIN);
        else
            end_vanish(end);
    }
    struct sim_listener *next;
    for (struct sim_listener *listener = process->host->listeners; listener != NULL;
         listener = next) {
        next = listener->next;
        if (listener->base.env != &process->base) continue;
        listener_turn_away(listener, loud);
        listener_unlink(listener); /* its owner frees it by closing it */
    }
}

void env_sim_streams_free(struct env_sim *sim)
{
    sim->conns_gone = NULL;
    while (sim->conns != NULL) {
        conn_free(sim->conns);
    }
    for (struct sim_host *host = sim->hosts; host != NULL; host = host->next) {
        while (host->listeners != NULL) {
            struct sim_listener *listener = host->listeners;
            host->listeners = listener->next;
            free(listener);
        }
    }
}
