/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_echo.c - see base/env_bare_echo.h. A message that begins with a 1 asks for the
 * count, which comes back in its second eight bytes; any other is an echo. */
#include "base/env_bare_echo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"

enum { EVENTS_MAX = 64, BACKLOG = 256, COUNT_ASKED = 1 };

struct peer {
    int fd;
    size_t have;
    uint8_t bytes[ENV_BARE_ECHO_SIZE_MAX];
};

static struct sockaddr_in address_of(uint16_t port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void no_delay(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static bool watch(int epoll, int fd, void *peer)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = peer };
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* ---- the server ---- */

static void peer_accept(int epoll, int listener)
{
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct peer *peer = fd < 0 ? NULL : calloc(1, sizeof(*peer));

    if (peer != NULL) {
        peer->fd = fd;
        no_delay(fd);
        if (watch(epoll, fd, peer)) return;
    }
    free(peer);
    if (fd >= 0) close(fd);
}

/* False: it is gone. */
static bool peer_serve(struct peer *peer, size_t size, uint64_t *count)
{
    const ssize_t n = recv(peer->fd, peer->bytes + peer->have, size - peer->have, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    peer->have += (size_t)n;
    if (peer->have < size) return true;
    peer->have = 0;
    if (peer->bytes[0] == COUNT_ASKED) {
        memcpy(peer->bytes + sizeof(*count), count, sizeof(*count));
    } else {
        ++*count;
    }
    /* one message is under way: it fits the socket's buffer */
    return send(peer->fd, peer->bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static enum status serve(int epoll, int listener, size_t size)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t count = 0;

    for (;;) {
        const int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        if (ready < 0 && errno != EINTR) return STATUS_IO;
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (peer == NULL) {
                peer_accept(epoll, listener);
            } else if (!peer_serve(peer, size, &count)) {
                close(peer->fd);
                free(peer);
            }
        }
    }
}

enum status env_bare_echo_serve(uint16_t port, size_t size)
{
    const struct sockaddr_in address = address_of(port);
    const int on = 1;
    ASSERT(size >= ENV_BARE_ECHO_SIZE_MIN && size <= ENV_BARE_ECHO_SIZE_MAX);

    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    enum status status = listener < 0 || epoll < 0 ? STATUS_IO : STATUS_OK;
    if (status == STATUS_OK) {
        (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(listener, (const void *)&address, sizeof(address)) != 0) status = STATUS_EXISTS;
    }
    if (status == STATUS_OK && listen(listener, BACKLOG) != 0) status = STATUS_IO;
    if (status == STATUS_OK && !watch(epoll, listener, NULL)) status = STATUS_IO;
    if (status == STATUS_OK) status = serve(epoll, listener, size);
    if (listener >= 0) close(listener);
    if (epoll >= 0) close(epoll);
    return status;
}

/* ---- the client ---- */

static int dial(uint16_t port)
{
    const struct sockaddr_in address = address_of(port);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (const void *)&address, sizeof(address)) == 0) {
        no_delay(fd);
        return fd;
    }
    close(fd);
    return -1;
}

static bool exchange(int fd, int epoll, uint8_t *bytes, size_t size)
{
    struct epoll_event event;
    size_t have = 0;

    if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) return false;
    while (have < size) {
        if (epoll >= 0 && epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR) return false;
        const ssize_t n = recv(fd, bytes + have, size - have, epoll >= 0 ? MSG_DONTWAIT : 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return false;
        have += (size_t)n;
    }
    return true;
}

enum status env_bare_echo_ask(uint16_t port, size_t size)
{
    uint8_t bytes[ENV_BARE_ECHO_SIZE_MAX] = { 0 };
    const int fd = dial(port);
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    ASSERT(size >= ENV_BARE_ECHO_SIZE_MIN && size <= ENV_BARE_ECHO_SIZE_MAX);

    if (fd >= 0 && epoll >= 0 && watch(epoll, fd, NULL)) {
        while (exchange(fd, epoll, bytes, size)) {
        }
    }
    if (fd >= 0) close(fd);
    if (epoll >= 0) close(epoll);
    return STATUS_IO;
}

enum status env_bare_echo_count(uint16_t port, size_t size, uint64_t *count)
{
    uint8_t bytes[ENV_BARE_ECHO_SIZE_MAX] = { COUNT_ASKED };
    ASSERT(size >= ENV_BARE_ECHO_SIZE_MIN && size <= ENV_BARE_ECHO_SIZE_MAX);

    const int fd = dial(port);
    if (fd < 0) return STATUS_UNAVAILABLE;
    const bool answered = exchange(fd, -1, bytes, size);
    close(fd);
    if (!answered) return STATUS_UNAVAILABLE;
    memcpy(count, bytes + sizeof(*count), sizeof(*count));
    return STATUS_OK;
}

bool env_bare_listens(uint16_t port)
{
    const int fd = dial(port);
    if (fd < 0) return false;
    close(fd);
    return true;
}
