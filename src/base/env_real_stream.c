/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_stream.c - TCP over the loop: listeners that accept, streams that are ready.
 *
 *     env_connect                 first event, no error
 *     ------------> CONNECTING ---------------------------> OPEN <------------ accepted
 *       |              ^ |                                    |
 *       | a name       | | refused, timed out, to itself      | reset, closed by the peer
 *       v         found| v                                    v
 *     LOOKING ---------' BROKEN <---------------------------BROKEN     (sticky: `failure` says why)
 *        `- not found ---^
 *
 *     any state -- env_stream_close, unread bytes inside --> LINGERING --> freed
 *     any state -- env_stream_close, otherwise ----------------------------> freed
 *
 * Looking. A host that is a name is looked up by a thread (env_real_lookup.c). Until that is over
 * the stream's descriptor is an eventfd, which becomes readable then; the socket takes its number.
 *
 * Lingering. Closing a socket that holds unread bytes makes the kernel send a reset, and a reset
 * makes the peer's kernel throw away what we had sent before: the answer "413, too large" would
 * never be read. So such a socket is shut for writing, and its input thrown away until the peer
 * closes too, at most LINGER_NS and LINGER_BYTES_MAX long. Nobody outside can tell it from closed.
 *
 * A connection to a free port of our own host's ephemeral range can, rarely, connect to itself;
 * that counts as refused.
 *
 * Limits: streams_max streams and listeners. A listener that meets a limit, ours or the kernel's,
 * rests for ACCEPT_REST_NS and leaves the others waiting in the backlog. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

enum { BACKLOG = 1024, ACCEPTS_PER_EVENT = 64, LINGER_BYTES_MAX = 64 << 20 };

#define ACCEPT_REST_NS (20 * ENV_NS_PER_MS)
#define LINGER_NS (2 * ENV_NS_PER_S)

enum stream_state {
    STREAM_LOOKING,
    STREAM_CONNECTING,
    STREAM_OPEN,
    STREAM_BROKEN,
    STREAM_LINGERING
};

struct stream {
    struct env_stream base;
    struct env_source source;
    enum stream_state state;
    enum status failure; /* in BROKEN: what read and write answer */
    unsigned wanted;     /* ENV_READ, ENV_WRITE */
    env_ready_fn on_ready;
    void *ctx;
    struct env_timer linger_timer;
    size_t linger_bytes;
    char local_host[ENV_HOST_SIZE];
    struct env_lookup *lookup; /* in LOOKING, */
    char from[ENV_HOST_SIZE];  /* and where the connection is to come from; "": anywhere */
};

struct listener {
    struct env_listener base;
    struct env_source source;
    env_accept_fn on_accept;
    void *ctx;
    struct env_timer rest_timer;
};

static struct stream *stream_of(const struct env_stream *base)
{
    return (struct stream *)(uintptr_t)base; /* `base` is the first member */
}

static struct stream *stream_of_source(struct env_source *source)
{
    return (struct stream *)(void *)((char *)source - offsetof(struct stream, source));
}

static struct listener *listener_of_source(struct env_source *source)
{
    return (struct listener *)(void *)((char *)source - offsetof(struct listener, source));
}

static bool edge_exists(enum stream_state from, enum stream_state to)
{
    switch (from) {
    case STREAM_LOOKING: return to == STREAM_CONNECTING || to == STREAM_BROKEN;
    case STREAM_CONNECTING: return to == STREAM_OPEN || to == STREAM_BROKEN;
    case STREAM_OPEN: return to == STREAM_BROKEN || to == STREAM_LINGERING;
    case STREAM_BROKEN: return to == STREAM_BROKEN;
    case STREAM_LINGERING: return false;
    }
    return false;
}

static void stream_set_state(struct stream *stream, enum stream_state state)
{
    ASSERT(edge_exists(stream->state, state));
    stream->state = state;
}

static enum status stream_break(struct stream *stream, enum status failure)
{
    stream_set_state(stream, STREAM_BROKEN);
    stream->failure = failure;
    return failure;
}

/* ---- addresses ---- */

static void sockaddr_text(const struct sockaddr_storage *addr, char host[ENV_HOST_SIZE],
                          uint16_t *port)
{
    char service[8] = "0";
    const socklen_t len =
        addr->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    const int result =
        getnameinfo((const struct sockaddr *)(const void *)addr, len, host, ENV_HOST_SIZE, service,
                    sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
    if (result != 0) snprintf(host, ENV_HOST_SIZE, "?");
    *port = (uint16_t)strtoul(service, NULL, 10);
}

static void peer_text(const struct sockaddr_storage *addr, char peer[ENV_PEER_SIZE])
{
    char host[ENV_HOST_SIZE];
    uint16_t port;

    sockaddr_text(addr, host, &port);
    if (addr->ss_family == AF_INET6)
        snprintf(peer, ENV_PEER_SIZE, "[%s]:%u", host, port);
    else
        snprintf(peer, ENV_PEER_SIZE, "%s:%u", host, port);
}

/* STATUS_AGAIN if `flags` has AI_NUMERICHOST and the host is a name. */
static enum status resolve(const char *address, int flags, struct sockaddr_storage *out,
                           socklen_t *out_len, struct errmsg *err)
{
    const bool passive = (flags & AI_PASSIVE) != 0;
    char host[ENV_HOST_SIZE], service[8];
    struct addrinfo *found = NULL;
    uint16_t port;

    const enum status status = env_address_parse(address, host, &port, err);
    if (status != STATUS_OK) return status;
    if (host[0] == '\0' && !passive)
        return errmsg_set(err, STATUS_INVALID, "'%s': no host to connect to", address);
    snprintf(service, sizeof(service), "%u", port);
    const struct addrinfo hints = { .ai_family = host[0] == '\0' ? AF_INET : AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICSERV | flags };
    const int result = getaddrinfo(host[0] == '\0' ? NULL : host, service, &hints, &found);
    if (result == EAI_NONAME && (flags & AI_NUMERICHOST) != 0) return STATUS_AGAIN;
    if (result != 0)
        return errmsg_set(err, STATUS_INVALID, "'%.100s': %s", address, gai_strerror(result));
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *out_len = found->ai_addrlen;
    freeaddrinfo(found);
    return STATUS_OK;
}

enum status env_real_resolve(const char *address, bool passive, struct sockaddr_storage *out,
                             socklen_t *out_len, struct errmsg *err)
{
    return resolve(address, passive ? AI_PASSIVE : 0, out, out_len, err);
}

static void set_option(int fd, int level, int option)
{
    const int on = 1;
    if (setsockopt(fd, level, option, &on, sizeof(on)) != 0)
        LOG_DEBUG("env", "option_refused", "option=%d errno=%d", option, errno);
}

/* ---- streams ---- */

/* Refused is what the other host says: it proves that nobody listens there. A network that is down
 * proves nothing. */
static enum status status_of_connect(int error)
{
    if (error == ECONNREFUSED || error == ECONNRESET) return STATUS_CONN_REFUSED;
    return error == ETIMEDOUT ? STATUS_TIMEOUT : STATUS_UNAVAILABLE;
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family) return false;
    if (a->ss_family == AF_INET) {
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    }
    return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

/* A connection of this host with itself crosses no wire, and a congestion control that paces what
 * it sends to a wire (BBR, where the system prefers it) holds it up with timers: on a virtual
 * machine they cost more than the bytes. Reno does not, and any user may choose it. */
static void tune_to_path(int fd, const struct sockaddr_storage *local,
                         const struct sockaddr_storage *remote)
{
    static const char control[] = "reno";

    if (!same_host(local, remote)) return;
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, sizeof(control) - 1) != 0)
        LOG_DEBUG("env", "option_refused", "option=%d errno=%d", TCP_CONGESTION, errno);
}

/* False if it is connected to itself. */
static bool check_ends(int fd)
{
    struct sockaddr_storage local = { 0 }, remote = { 0 };
    socklen_t local_len = sizeof(local), remote_len = sizeof(remote);

    if (getsockname(fd, (struct sockaddr *)&local, &local_len) != 0) return true;
    if (getpeername(fd, (struct sockaddr *)&remote, &remote_len) != 0) return true;
    tune_to_path(fd, &local, &remote);
    return local_len != remote_len || memcmp(&local, &remote, local_len) != 0;
}

static void finish_connect(struct stream *stream)
{
    int error = 0;
    socklen_t len = sizeof(error);

    ASSERT(stream->state == STREAM_CONNECTING);
    if (getsockopt(stream->source.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) error = errno;
    if (error != 0)
        (void)stream_break(stream, status_of_connect(error));
    else if (!check_ends(stream->source.fd))
        (void)stream_break(stream, STATUS_CONN_REFUSED);
    else
        stream_set_state(stream, STREAM_OPEN);
}

static void finish_lookup(struct stream *stream);

static void on_stream_event(struct env_source *source, uint32_t epoll_events)
{
    struct stream *stream = stream_of_source(source);
    unsigned events = 0;

    if (stream->state == STREAM_LOOKING) {
        finish_lookup(stream);
        if (stream->state != STREAM_BROKEN) return;
    }
    if (stream->state == STREAM_CONNECTING) finish_connect(stream);
    if ((epoll_events & EPOLLIN) != 0) events |= ENV_READ;
    if ((epoll_events & EPOLLOUT) != 0) events |= ENV_WRITE;
    if ((epoll_events & (EPOLLERR | EPOLLHUP)) != 0) events |= ENV_READ | ENV_WRITE;
    if (stream->state == STREAM_BROKEN) events = ENV_READ | ENV_WRITE;
    events &= stream->wanted; /* may have changed since the kernel looked */
    if (events != 0) stream->on_ready(stream->ctx, events);
}

void env_real_stream_ask_eager(struct env_real *real)
{
    struct stream *stream = real->eager;

    ASSERT(!stream->source.dead);
    if (stream->state != STREAM_OPEN || (stream->wanted & ENV_EAGER) == 0) {
        real->eager = NULL;
        return;
    }
    stream->on_ready(stream->ctx, ENV_READ);
}

static void free_stream(struct env_source *source)
{
    struct stream *stream = stream_of_source(source);

    env_lookup_abandon(stream->lookup);
    free(stream);
}

/* Takes the descriptor. NULL at the limit or without memory; the descriptor is then closed. */
static struct stream *stream_new(struct env_real *real, int fd, enum stream_state state)
{
    struct stream *stream = NULL;

    if (real->stream_count < real->streams_max) stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        close(fd);
        return NULL;
    }
    if (state != STREAM_LOOKING) set_option(fd, IPPROTO_TCP, TCP_NODELAY);
    stream->base.env = &real->base;
    stream->state = state;
    stream->source.fd = fd;
    stream->source.on_event = on_stream_event;
    stream->source.free = free_stream;
    env_source_add(real, &stream->source);
    real->stream_count++;
    return stream;
}

/* Takes the source address now and the port when it connects: ports are shared between peers. */
static bool bind_from(int fd, const char *local_host)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICHOST | AI_PASSIVE };
    struct addrinfo *found = NULL;

    if (getaddrinfo(local_host, NULL, &hints, &found) != 0) return false;
    set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
    const bool bound = bind(fd, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    return bound;
}

/* A socket that connects, or has failed to. */
static enum status socket_connect(const char *local_host, const struct sockaddr_storage *addr,
                                  socklen_t addr_len, int *fd, int *error, struct errmsg *err)
{
    *fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) return errmsg_set(err, env_real_status(errno), "socket: %s", strerror(errno));
    if (local_host[0] != '\0' && !bind_from(*fd, local_host)) {
        close(*fd);
        return errmsg_set(err, STATUS_UNAVAILABLE, "%.60s is no address of this host", local_host);
    }
    const int result = connect(*fd, (const struct sockaddr *)(const void *)addr, addr_len);
    *error = result != 0 && errno != EINPROGRESS ? errno : 0;
    return STATUS_OK;
}

/* The socket takes the place of the eventfd, under its number. */
static enum status found(struct stream *stream, const struct env_found *where)
{
    struct env_real *real = env_real_of(stream->base.env);
    struct errmsg err = { "" };
    int fd = -1, error = 0;

    enum status status = where->status;
    if (status == STATUS_OK) {
        status = socket_connect(stream->from, &where->addr, where->addr_len, &fd, &error, &err);
    }
    if (status != STATUS_OK) {
        LOG_WARN("env", "not_found", "peer=%s reason=%s", stream->base.peer,
                 where->status != STATUS_OK ? where->err.text : err.text);
        return stream_break(stream, STATUS_UNAVAILABLE);
    }
    status = env_source_arm(real, &stream->source, 0);
    if (dup3(fd, stream->source.fd, O_CLOEXEC) < 0) error = errno;
    close(fd);
    set_option(stream->source.fd, IPPROTO_TCP, TCP_NODELAY);
    peer_text(&where->addr, stream->base.peer);
    stream_set_state(stream, STREAM_CONNECTING);
    return error == 0 ? status : stream_break(stream, status_of_connect(error));
}

static void finish_lookup(struct stream *stream)
{
    struct env_found where;

    if (!env_lookup_take(stream->lookup, &where)) return;
    stream->lookup = NULL;
    if (found(stream, &where) == STATUS_OK || stream->source.armed == 0) {
        env_real_stream_watch(&stream->base, stream->wanted, stream->on_ready, stream->ctx);
    }
}

static enum status connect_by_name(struct env_real *real, const char *local_host,
                                   const char *address, struct env_stream **out, struct errmsg *err)
{
    struct env_lookup *lookup;
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) return errmsg_set(err, env_real_status(errno), "eventfd: %s", strerror(errno));
    if (strlen(local_host) >= ENV_HOST_SIZE) {
        close(fd);
        return errmsg_set(err, STATUS_UNAVAILABLE, "%.60s is no address of this host", local_host);
    }
    const enum status status = env_lookup_start(address, fd, &lookup);
    if (status != STATUS_OK) {
        close(fd);
        return errmsg_set(err, status, "'%.100s': no thread to look it up", address);
    }
    struct stream *stream = stream_new(real, fd, STREAM_LOOKING);
    if (stream == NULL) {
        env_lookup_abandon(lookup);
        return errmsg_set(err, STATUS_NO_MEMORY, "no memory for a connection");
    }
    stream->lookup = lookup;
    memcpy(stream->from, local_host, strlen(local_host) + 1);
    snprintf(stream->base.peer, ENV_PEER_SIZE, "%s", address);
    *out = &stream->base;
    return STATUS_OK;
}

enum status env_real_connect(struct env *env, const char *local_host, const char *address,
                             struct env_stream **out, struct errmsg *err)
{
    struct env_real *real = env_real_of(env);
    struct sockaddr_storage addr = { 0 };
    socklen_t addr_len;
    int fd, error;

    enum status status = resolve(address, AI_NUMERICHOST, &addr, &addr_len, err);
    if (status != STATUS_OK && status != STATUS_AGAIN) return status;
    if (real->stream_count >= real->streams_max)
        return errmsg_set(err, STATUS_FULL, "%u connections are open", real->stream_count);
    if (status == STATUS_AGAIN) return connect_by_name(real, local_host, address, out, err);
    status = socket_connect(local_host, &addr, addr_len, &fd, &error, err);
    if (status != STATUS_OK) return status;
    struct stream *stream = stream_new(real, fd, STREAM_CONNECTING);
    if (stream == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for a connection");
    peer_text(&addr, stream->base.peer);
    /* An error known at once is told like one that comes later: by the first read or write. */
    if (error != 0) (void)stream_break(stream, status_of_connect(error));
    *out = &stream->base;
    return STATUS_OK;
}

void env_real_stream_watch(struct env_stream *base, unsigned events, env_ready_fn on_ready,
                           void *ctx)
{
    struct stream *stream = stream_of(base);
    uint32_t epoll_events = 0;

    ASSERT(!stream->source.dead && stream->state != STREAM_LINGERING);
    if ((events & ENV_READ) != 0) epoll_events |= EPOLLIN;
    if ((events & ENV_WRITE) != 0) epoll_events |= EPOLLOUT;
    stream->wanted = events;
    stream->on_ready = on_ready;
    stream->ctx = ctx;
    if (stream->state == STREAM_LOOKING) epoll_events = events != 0 ? EPOLLIN : 0;
    const enum status status =
        env_source_arm(env_real_of(base->env), &stream->source, epoll_events);
    ASSERT(status == STATUS_OK); /* fails only where the kernel has no memory left */
}

static enum status stream_error(struct stream *stream, int error)
{
    if (error == EAGAIN || error == EINTR) return STATUS_AGAIN;
    return stream_break(stream, STATUS_CONN_CLOSED);
}

/* Who has said or heard something waits for this stream next. */
static void eager_for(struct stream *stream)
{
    struct env_real *real = env_real_of(stream->base.env);

    if ((stream->wanted & ENV_EAGER) == 0) return;
    real->eager = stream;
    real->eager_misses = 0;
}

enum status env_real_stream_readv(struct env_stream *base, const struct iovec *iov, int iov_count,
                                  size_t *n)
{
    struct stream *stream = stream_of(base);

    ASSERT(!stream->source.dead && stream->state != STREAM_LINGERING);
    if (stream->state <= STREAM_CONNECTING) return STATUS_AGAIN;
    if (stream->state == STREAM_BROKEN) return stream->failure;
    const ssize_t got = iov_count == 1 ? recv(stream->source.fd, iov->iov_base, iov->iov_len, 0)
                                       : readv(stream->source.fd, iov, iov_count);
    if (got < 0) return stream_error(stream, errno);
    if (got == 0) return STATUS_CONN_CLOSED; /* the peer's end only: we may still write */
    eager_for(stream);
    if ((stream->wanted & ENV_EAGER) != 0) env_real_of(base->env)->eager_heard = true;
    *n = (size_t)got;
    return STATUS_OK;
}

enum status env_real_stream_writev(struct env_stream *base, const struct iovec *iov, int iov_count,
                                   size_t *n)
{
    struct stream *stream = stream_of(base);

    ASSERT(!stream->source.dead && stream->state != STREAM_LINGERING);
    if (stream->state <= STREAM_CONNECTING) return STATUS_AGAIN;
    if (stream->state == STREAM_BROKEN) return stream->failure;
    const ssize_t put = iov_count == 1
                            ? send(stream->source.fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                            : writev(stream->source.fd, iov, iov_count);
    if (put < 0) return stream_error(stream, errno);
    eager_for(stream);
    *n = (size_t)put;
    return STATUS_OK;
}

const char *env_real_stream_local_host(const struct env_stream *base)
{
    struct stream *stream = stream_of(base);
    struct sockaddr_storage addr = { 0 };
    socklen_t len = sizeof(addr);
    uint16_t port;

    if (stream->local_host[0] != '\0') return stream->local_host;
    if (getsockname(stream->source.fd, (struct sockaddr *)&addr, &len) != 0) return "?";
    sockaddr_text(&addr, stream->local_host, &port);
    return stream->local_host;
}

/* ---- closing ---- */

static void stream_release(struct stream *stream)
{
    struct env_real *real = env_real_of(stream->base.env);

    if (env_timer_armed(&stream->linger_timer))
        env_timers_cancel(&real->timers, &stream->linger_timer);
    if (real->eager == stream) real->eager = NULL;
    ASSERT(real->stream_count > 0);
    real->stream_count--;
    env_source_close(real, &stream->source);
}

static void on_linger_timer(void *ctx)
{
    stream_release(ctx);
}

static void on_linger_event(struct env_source *source, uint32_t epoll_events)
{
    struct stream *stream = stream_of_source(source);
    char waste[16384];

    (void)epoll_events;
    const ssize_t got = read(source->fd, waste, sizeof(waste));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) stream->linger_bytes += (size_t)got;
    if (got <= 0 || stream->linger_bytes > LINGER_BYTES_MAX) stream_release(stream);
}

static bool stream_linger(struct stream *stream)
{
    struct env_real *real = env_real_of(stream->base.env);
    int unread = 0;

    if (stream->state != STREAM_OPEN) return false;
    if (env_real_of(stream->base.env)->eager == stream) env_real_of(stream->base.env)->eager = NULL;
    if (ioctl(stream->source.fd, FIONREAD, &unread) != 0 || unread == 0) return false;
    if (shutdown(stream->source.fd, SHUT_WR) != 0) return false;
    if (env_source_arm(real, &stream->source, EPOLLIN) != STATUS_OK) return false;
    stream_set_state(stream, STREAM_LINGERING);
    stream->source.on_event = on_linger_event;
    env_timer_init(&stream->linger_timer, on_linger_timer, stream);
    env_timers_set(&real->timers, &stream->linger_timer, env_real_now_ns() + LINGER_NS, 0);
    return true;
}

void env_real_stream_close(struct env_stream *base)
{
    struct stream *stream = stream_of(base);

    ASSERT(!stream->source.dead && stream->state != STREAM_LINGERING);
    if (!stream_linger(stream)) stream_release(stream);
}

/* ---- listeners ---- */

static void listener_rest(struct listener *listener, int error)
{
    struct env_real *real = env_real_of(listener->base.env);

    LOG_WARN("env", "accept_paused", "port=%u streams=%u errno=%d", listener->base.port,
             real->stream_count, error);
    (void)env_source_arm(real, &listener->source, 0);
    env_timers_set(&real->timers, &listener->rest_timer, env_real_now_ns() + ACCEPT_REST_NS, 0);
}

static void on_rest_over(void *ctx)
{
    struct listener *listener = ctx;
    struct env_real *real = env_real_of(listener->base.env);

    if (env_source_arm(real, &listener->source, EPOLLIN) != STATUS_OK)
        env_timers_set(&real->timers, &listener->rest_timer, env_real_now_ns() + ACCEPT_REST_NS, 0);
}

/* True if there may be more to accept. */
static bool accept_one(struct listener *listener)
{
    struct env_real *real = env_real_of(listener->base.env);
    struct sockaddr_storage addr = { 0 };
    socklen_t len = sizeof(addr);

    ASSERT(!listener->source.dead);
    if (real->stream_count >= real->streams_max) {
        listener_rest(listener, 0);
        return false;
    }
    const int fd =
        accept4(listener->source.fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN) return false;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            listener_rest(listener, errno);
            return false;
        }
        return true; /* that connection has gone already; the next may be well */
    }
    struct stream *stream = stream_new(real, fd, STREAM_OPEN);
    if (stream == NULL) {
        listener_rest(listener, ENOMEM);
        return false;
    }
    peer_text(&addr, stream->base.peer);
    (void)check_ends(fd);
    listener->on_accept(listener->ctx, &stream->base);
    return !listener->source.dead;
}

static void on_listener_event(struct env_source *source, uint32_t epoll_events)
{
    (void)epoll_events;
    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        if (!accept_one(listener_of_source(source))) return;
    }
}

static void free_listener(struct env_source *source)
{
    free(listener_of_source(source));
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage addr = { 0 };
    socklen_t len = sizeof(addr);
    char host[ENV_HOST_SIZE];
    uint16_t port = 0;

    if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0) sockaddr_text(&addr, host, &port);
    return port;
}

/* A socket bound and listening in *out. */
static enum status open_listener(const char *address, int *out, struct errmsg *err)
{
    struct sockaddr_storage addr = { 0 };
    socklen_t addr_len;

    const enum status status = env_real_resolve(address, true, &addr, &addr_len, err);
    if (status != STATUS_OK) return status;
    const int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errmsg_set(err, env_real_status(errno), "socket: %s", strerror(errno));
    set_option(fd, SOL_SOCKET, SO_REUSEADDR); /* a restart need not wait for old connections */
    if (bind(fd, (struct sockaddr *)&addr, addr_len) != 0 || listen(fd, BACKLOG) != 0) {
        const int error = errno;
        close(fd);
        return errmsg_set(err, env_real_status(error), "cannot listen on %s: %s", address,
                          strerror(error));
    }
    *out = fd;
    return STATUS_OK;
}

enum status env_real_listen(struct env *env, const char *address, env_accept_fn on_accept,
                            void *ctx, struct env_listener **out, struct errmsg *err)
{
    struct env_real *real = env_real_of(env);
    int fd = -1;

    if (real->stream_count >= real->streams_max)
        return errmsg_set(err, STATUS_FULL, "%u connections are open", real->stream_count);
    const enum status status = open_listener(address, &fd, err);
    if (status != STATUS_OK) return status;
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        close(fd);
        return errmsg_set(err, STATUS_NO_MEMORY, "no memory for a listener");
    }
    listener->base = (struct env_listener){ .env = env, .port = bound_port(fd) };
    listener->on_accept = on_accept;
    listener->ctx = ctx;
    listener->source.fd = fd;
    listener->source.on_event = on_listener_event;
    listener->source.free = free_listener;
    env_timer_init(&listener->rest_timer, on_rest_over, listener);
    env_source_add(real, &listener->source);
    real->stream_count++;
    on_rest_over(listener); /* arms it */
    *out = &listener->base;
    return STATUS_OK;
}

void env_real_listener_close(struct env_listener *base)
{
    struct listener *listener = (struct listener *)(void *)base;
    struct env_real *real = env_real_of(base->env);

    ASSERT(!listener->source.dead);
    if (env_timer_armed(&listener->rest_timer))
        env_timers_cancel(&real->timers, &listener->rest_timer);
    real->stream_count--;
    env_source_close(real, &listener->source);
}
