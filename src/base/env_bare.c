/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare.c - see base/env_bare.h. Each stream walks through a part of the memory of its own,
 * so both ends know where its bytes belong without a word about it. */
#include "base/env_bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_bare_int.h"
#include "base/env_real.h"

enum { REQUEST_SIZE = 16 };

/* Where byte `moved` of the stream's messages lies, and how many bytes are in one piece there. */
static uint8_t *place(const struct env_bare *bare, const struct end *end, uint32_t stream,
                      uint64_t *room)
{
    const struct env_bare_options *o = &bare->options;
    const uint64_t part = o->memory_size / o->streams;
    const uint64_t at = end->bulk[stream].moved % part;

    *room = part - at;
    return end->memory + stream * part + at;
}

/* 1: something moved, 0: nothing can now, -1: broken. */
static int step(ssize_t n, struct flow *flow)
{
    if (n > 0) {
        flow->moved += (uint64_t)n;
        return 1;
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static int bulk_step(const struct env_bare *bare, struct end *end, uint32_t i, int flags)
{
    struct flow *flow = &end->bulk[i];
    uint64_t len;
    uint8_t *at = place(bare, end, i, &len);

    if (flow->owed == flow->moved) return 0;
    if (len > flow->owed - flow->moved) len = flow->owed - flow->moved;
    return step(end->sends ? send(end->fds[i], at, len, flags | MSG_NOSIGNAL)
                           : recv(end->fds[i], at, len, flags),
                flow);
}

/* Who sends messages receives words: acknowledgements of a write, requests of a read. */
static int word_step(struct end *end, uint32_t i, int flags)
{
    uint8_t words[ENV_BARE_DEPTH_MAX * REQUEST_SIZE] = { 0 };
    struct flow *flow = &end->word[i];
    uint64_t len = flow->owed - flow->moved;

    if (end->sends) return step(recv(end->fds[i], words, sizeof(words), flags), flow);
    if (len == 0) return 0;
    if (len > sizeof(words)) len = sizeof(words);
    return step(send(end->fds[i], words, len, flags | MSG_NOSIGNAL), flow);
}

static void wait_any(const struct env_bare *bare, const struct end *end)
{
    struct pollfd polled[ENV_BARE_STREAMS_MAX];

    for (uint32_t i = 0; i < bare->options.streams; i++) {
        const bool write = end->sends ? end->bulk[i].owed > end->bulk[i].moved
                                      : end->word[i].owed > end->word[i].moved;
        polled[i] =
            (struct pollfd){ .fd = end->fds[i], .events = (short)(POLLIN | (write ? POLLOUT : 0)) };
    }
    (void)poll(polled, bare->options.streams, -1);
}

/* ---- the target ---- */

static int target_step(const struct env_bare *bare, struct end *end, uint32_t i, int flags)
{
    const struct env_bare_options *o = &bare->options;

    if (o->read) { /* as many messages as were requested */
        const int words =
            word_step(end, i, end->bulk[i].owed > end->bulk[i].moved ? MSG_DONTWAIT : flags);
        end->bulk[i].owed = end->word[i].moved / REQUEST_SIZE * o->size;
        const int bulk = words < 0 ? -1 : bulk_step(bare, end, i, flags);
        return words < 0 || bulk < 0 ? -1 : words | bulk;
    }
    end->bulk[i].owed = UINT64_MAX;
    const int bulk = bulk_step(bare, end, i, flags);
    end->word[i].owed = end->bulk[i].moved / o->size;
    const int words = bulk < 0 ? -1 : word_step(end, i, flags);
    return bulk < 0 || words < 0 ? -1 : words | bulk;
}

void *env_bare_target(void *ctx)
{
    struct env_bare *bare = ctx;
    const bool alone = bare->options.streams == 1 && !bare->options.polling;

    for (;;) {
        int moved = 0;
        for (uint32_t i = 0; i < bare->options.streams; i++) {
            const int n = target_step(bare, &bare->theirs, i, alone ? 0 : MSG_DONTWAIT);
            if (n < 0) return NULL;
            moved |= n;
        }
        if (moved == 0 && !(bare->options.polling && bare->running)) wait_any(bare, &bare->theirs);
    }
}

/* ---- the initiator ---- */

/* What may be under way now, given what has come back. */
static void owe(const struct env_bare *bare, struct end *end, uint32_t i, uint64_t begin,
                uint64_t count)
{
    const struct env_bare_options *o = &bare->options;
    const uint64_t depth = o->depth / o->streams;
    const uint64_t done = o->read ? end->bulk[i].moved / o->size : end->word[i].moved;
    uint64_t begun = done + depth;

    if (begun > begin + count) begun = begin + count;
    if (o->read) {
        end->word[i].owed = begun * REQUEST_SIZE;
        end->bulk[i].owed = begun * o->size;
    } else {
        end->bulk[i].owed = begun * o->size;
    }
}

static int initiator_step(struct env_bare *bare, uint32_t i, uint64_t begin, uint64_t count,
                          bool alone)
{
    struct end *end = &bare->ours;
    const bool read = bare->options.read;

    owe(bare, end, i, begin, count);
    if (read) {
        const int words = word_step(end, i, alone ? 0 : MSG_DONTWAIT);
        if (words < 0) return -1;
        const int bulk = bulk_step(bare, end, i, alone ? 0 : MSG_DONTWAIT);
        return bulk < 0 ? -1 : words | bulk;
    }
    const int bulk = bulk_step(bare, end, i, alone ? 0 : MSG_DONTWAIT);
    if (bulk < 0) return -1;
    const bool wait = alone && end->bulk[i].moved == end->bulk[i].owed;
    const int words = word_step(end, i, wait ? 0 : MSG_DONTWAIT);
    return words < 0 ? -1 : words | bulk;
}

static uint64_t done_of(const struct env_bare *bare, uint32_t i)
{
    return bare->options.read ? bare->ours.bulk[i].moved / bare->options.size
                              : bare->ours.word[i].moved;
}

enum status env_bare_run(struct env_bare *bare, uint64_t count, uint64_t *ns)
{
    const uint32_t streams = bare->options.streams;
    const bool alone = streams == 1 && !bare->options.polling;
    const uint64_t each = count / streams, start_ns = env_real_now_ns();
    uint64_t begin[ENV_BARE_STREAMS_MAX];
    uint32_t open = streams;

    ASSERT(count > 0 && count % streams == 0);
    for (uint32_t i = 0; i < streams; i++)
        begin[i] = done_of(bare, i);
    bare->running = true;
    while (open > 0) {
        int moved = 0;
        open = 0;
        for (uint32_t i = 0; i < streams; i++) {
            if (done_of(bare, i) >= begin[i] + each) continue;
            const int n = initiator_step(bare, i, begin[i], each, alone);
            if (n < 0) {
                bare->running = false;
                return STATUS_IO;
            }
            moved |= n;
            open += done_of(bare, i) < begin[i] + each;
        }
        if (moved == 0 && open > 0 && !bare->options.polling) wait_any(bare, &bare->ours);
    }
    bare->running = false;
    *ns = env_real_now_ns() - start_ns;
    return STATUS_OK;
}

/* ---- where ---- */

static bool pick_core(const cpu_set_t *allowed, int nth, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, allowed) || nth-- > 0) continue;
        CPU_SET(cpu, out);
        return true;
    }
    return false;
}

void env_bare_pin(pthread_t thread, enum env_bare_place place)
{
    static cpu_set_t allowed; /* as it was when this was first asked */
    static bool known;
    cpu_set_t one;

    if (!known && sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    known = true;
    if (CPU_COUNT(&allowed) < 2) return;
    if (place == ENV_BARE_ANYWHERE) {
        (void)pthread_setaffinity_np(thread, sizeof(allowed), &allowed);
    } else if (pick_core(&allowed, place == ENV_BARE_FIRST ? 0 : 1, &one)) {
        (void)pthread_setaffinity_np(thread, sizeof(one), &one);
    }
}

/* ---- life ---- */

static bool pair_open(int fds[2])
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
    socklen_t len = sizeof(address);
    const int one = 1;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    fds[0] = fds[1] = -1;
    if (listener < 0) return false;
    if (bind(listener, (void *)&address, len) == 0 && listen(listener, 1) == 0 &&
        getsockname(listener, (void *)&address, &len) == 0) {
        fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[0] >= 0 && connect(fds[0], (void *)&address, len) == 0) {
            fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        }
    }
    close(listener);
    for (int i = 0; i < 2 && fds[1] >= 0; i++) {
        (void)setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        /* As env_real_stream.c does for connections of a host with itself, so that no pacing of the
         * system's choice weighs on one of the two. */
        (void)setsockopt(fds[i], IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
    }
    return fds[1] >= 0;
}

void env_bare_close(struct env_bare *bare)
{
    if (bare == NULL) return;
    for (uint32_t i = 0; i < bare->options.streams; i++) {
        const int fd = bare->ours.fds[i] >= 0 ? bare->ours.fds[i] : bare->theirs.fds[i];
        if (fd >= 0) shutdown(fd, SHUT_RDWR); /* either end ends the thread */
    }
    if (bare->started) pthread_join(bare->thread, NULL);
    for (uint32_t i = 0; i < bare->options.streams; i++) {
        if (bare->ours.fds[i] >= 0) close(bare->ours.fds[i]);
        if (bare->theirs.fds[i] >= 0) close(bare->theirs.fds[i]);
    }
    free(bare);
}

enum status env_bare_create(const struct env_bare_options *options, struct env_bare **out)
{
    const bool streams_fit = options->streams >= 1 && options->streams <= ENV_BARE_STREAMS_MAX;

    if (!streams_fit || options->depth == 0 || options->depth > ENV_BARE_DEPTH_MAX ||
        options->depth % options->streams != 0 || options->size == 0 || options->memory_size == 0 ||
        options->memory_size % ((size_t)options->size * options->streams) != 0) {
        return STATUS_INVALID;
    }
    struct env_bare *bare = calloc(1, sizeof(*bare));
    if (bare == NULL) return STATUS_NO_MEMORY;
    bare->options = *options;
    bare->ours.memory = options->here;
    bare->ours.sends = !options->read;
    bare->theirs.memory = options->there;
    bare->theirs.sends = options->read;
    for (uint32_t i = 0; i < ENV_BARE_STREAMS_MAX; i++)
        bare->ours.fds[i] = bare->theirs.fds[i] = -1;
    *out = bare;
    return STATUS_OK;
}

enum status env_bare_open(const struct env_bare_options *options, struct env_bare **out)
{
    struct env_bare *bare;
    const enum status status = env_bare_create(options, &bare);
    bool ok = true;

    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < options->streams && ok; i++) {
        int fds[2];
        ok = pair_open(fds);
        bare->ours.fds[i] = fds[0];
        bare->theirs.fds[i] = fds[1];
    }
    bare->started = ok && pthread_create(&bare->thread, NULL, env_bare_target, bare) == 0;
    if (bare->started) {
        env_bare_pin(bare->thread, options->place);
        *out = bare;
        return STATUS_OK;
    }
    env_bare_close(bare);
    return STATUS_IO;
}
