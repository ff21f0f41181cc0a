/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_host.c - the bare path between two hosts: a server that stands in for the target's
 * thread of env_bare.c, and connecting to it.
 *
 * Each connection opens with one record of RECORD_SIZE bytes, text padded with zeros:
 *
 *     yolk-bare ask
 *     yolk-bare stream SESSION INDEX STREAMS DEPTH SIZE READ POLLING MEMORY
 *
 * The first is answered with the word. When all streams of a session have come, its thread starts;
 * the first stream of another session ends it. What comes is checked against the server's own
 * limits, since anybody may connect.
 *
 * Threads: the server has one that accepts; the session's memory is touched by the session's. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_bare_int.h"
#include "base/env_real_int.h"

enum { RECORD_SIZE = 192, PATIENCE_S = 5 };

struct env_bare_server {
    int listener;
    pthread_t thread;
    uint8_t *memory;
    size_t memory_size;
    char word[ENV_BARE_WORD_SIZE];
    struct env_bare *session; /* NULL: none yet */
    uint64_t session_id;
    uint32_t joined; /* streams of it that have come */
};

/* ---- bytes ---- */

static bool read_all(int fd, char *out, size_t len)
{
    while (len > 0) {
        const ssize_t n = recv(fd, out, len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        out += n;
        len -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        const ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* For the opening; 0: as long as it takes. */
static void set_patience(int fd, int seconds)
{
    const struct timeval limit = { .tv_sec = seconds };
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

/* ---- the server ---- */

struct opening {
    uint64_t session;
    uint32_t index;
    struct env_bare_options options;
};

static bool opening_parse(const struct env_bare_server *server, const char *record,
                          struct opening *out)
{
    unsigned read, polling;
    uint64_t memory_size;
    struct env_bare_options *o = &out->options;

    memset(out, 0, sizeof(*out));
    if (sscanf(record,
               "yolk-bare stream %" SCNx64 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32
               " %1u %1u %" SCNu64,
               &out->session, &out->index, &o->streams, &o->depth, &o->size, &read, &polling,
               &memory_size) != 8) {
        return false;
    }
    o->read = read != 0;
    o->polling = polling != 0;
    o->there = server->memory;
    o->memory_size = (size_t)memory_size;
    return out->index < o->streams && memory_size <= server->memory_size;
}

static void session_end(struct env_bare_server *server)
{
    env_bare_close(server->session);
    server->session = NULL;
    server->joined = 0;
}

/* True if the connection now belongs to the session. */
static bool session_join(struct env_bare_server *server, int fd, const struct opening *opening)
{
    if (server->session == NULL || server->session_id != opening->session) {
        session_end(server);
        if (env_bare_create(&opening->options, &server->session) != STATUS_OK) return false;
        server->session_id = opening->session;
    }
    struct env_bare *session = server->session;
    if (opening->index >= session->options.streams || session->theirs.fds[opening->index] >= 0) {
        return false;
    }
    set_patience(fd, 0);
    session->theirs.fds[opening->index] = fd;
    if (++server->joined < session->options.streams) return true;
    atomic_store(&session->running, true);
    session->started = pthread_create(&session->thread, NULL, env_bare_target, session) == 0;
    if (!session->started) session_end(server);
    return true;
}

static void connection_take(struct env_bare_server *server, int fd)
{
    char record[RECORD_SIZE + 1] = "";
    struct opening opening;
    const int one = 1;

    set_patience(fd, PATIENCE_S);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (read_all(fd, record, RECORD_SIZE)) {
        if (opening_parse(server, record, &opening) && session_join(server, fd, &opening)) return;
        if (strcmp(record, "yolk-bare ask") == 0) {
            (void)!write_all(fd, server->word, sizeof(server->word));
        }
    }
    close(fd);
}

static void *server_main(void *ctx)
{
    struct env_bare_server *server = ctx;

    for (;;) {
        const int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            connection_take(server, fd);
        } else if (errno != EINTR && errno != ECONNABORTED && errno != EMFILE && errno != ENFILE) {
            return NULL; /* shut down */
        }
    }
}

static int listener_open(const char *address, struct errmsg *err, enum status *status)
{
    struct sockaddr_storage addr;
    socklen_t len;
    const int one = 1;

    *status = env_real_resolve(address, true, &addr, &len, err);
    if (*status != STATUS_OK) return -1;
    const int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd >= 0 && bind(fd, (const void *)&addr, len) == 0 && listen(fd, 16) == 0) return fd;
    *status = errmsg_set(err, env_real_status(errno), "cannot listen on %s: %s", address,
                         strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

enum status env_bare_serve(const char *address, uint8_t *memory, size_t memory_size,
                           const char *word, struct env_bare_server **out, struct errmsg *err)
{
    enum status status;

    if (strlen(word) >= ENV_BARE_WORD_SIZE) return errmsg_set(err, STATUS_INVALID, "a long word");
    struct env_bare_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory");
    server->memory = memory;
    server->memory_size = memory_size;
    memcpy(server->word, word, strlen(word));
    server->listener = listener_open(address, err, &status);
    if (server->listener < 0) {
        free(server);
        return status;
    }
    if (pthread_create(&server->thread, NULL, server_main, server) == 0) {
        *out = server;
        return STATUS_OK;
    }
    close(server->listener);
    free(server);
    return errmsg_set(err, STATUS_NO_MEMORY, "no thread");
}

void env_bare_server_close(struct env_bare_server *server)
{
    if (server == NULL) return;
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    session_end(server);
    close(server->listener);
    free(server);
}

/* ---- the other end ---- */

static int dial(const char *address, const char *record, struct errmsg *err)
{
    char padded[RECORD_SIZE] = "";
    struct sockaddr_storage addr;
    socklen_t len;
    const int one = 1;

    ASSERT(strlen(record) < RECORD_SIZE);
    memcpy(padded, record, strlen(record));
    if (env_real_resolve(address, false, &addr, &len, err) != STATUS_OK) return -1;
    const int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) set_patience(fd, PATIENCE_S);
    if (fd < 0 || connect(fd, (const void *)&addr, len) != 0 ||
        !write_all(fd, padded, sizeof(padded))) {
        (void)errmsg_set(err, STATUS_UNAVAILABLE, "%s: %s", address, strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

enum status env_bare_ask(const char *address, char word[ENV_BARE_WORD_SIZE], struct errmsg *err)
{
    char answer[ENV_BARE_WORD_SIZE];
    const int fd = dial(address, "yolk-bare ask", err);

    if (fd < 0) return STATUS_UNAVAILABLE;
    const bool whole = read_all(fd, answer, sizeof(answer));
    close(fd);
    if (!whole || memchr(answer, '\0', sizeof(answer)) == NULL) {
        return errmsg_set(err, STATUS_PROTOCOL, "%s: no `yolk bench transfer --listen`", address);
    }
    memcpy(word, answer, sizeof(answer));
    return STATUS_OK;
}

enum status env_bare_connect(const struct env_bare_options *options, const char *address,
                             struct env_bare **out, struct errmsg *err)
{
    char record[RECORD_SIZE];
    struct env_bare *bare;
    uint64_t session;

    const enum status status = env_bare_create(options, &bare);
    if (status != STATUS_OK) return errmsg_set(err, status, "bare path: options out of range");
    if (getrandom(&session, sizeof(session), 0) != sizeof(session)) session = (uint64_t)getpid();
    for (uint32_t i = 0; i < options->streams; i++) {
        snprintf(record, sizeof(record),
                 "yolk-bare stream %" PRIx64 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32
                 " %d %d %zu",
                 session, i, options->streams, options->depth, options->size, options->read,
                 options->polling, options->memory_size);
        bare->ours.fds[i] = dial(address, record, err);
        if (bare->ours.fds[i] < 0) {
            env_bare_close(bare);
            return STATUS_UNAVAILABLE;
        }
        set_patience(bare->ours.fds[i], 0);
    }
    *out = bare;
    return STATUS_OK;
}
