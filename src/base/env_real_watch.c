/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_watch.c - other people's descriptors in the loop, by a duplicate, so that closing a
 * watch is closing a source like any other and the original stays open. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "base/assert.h"
#include "base/env_real_int.h"

struct real_watch {
    struct env_source source; /* the first member */
    struct env_watch base;
    void (*fn)(void *ctx);
    void *ctx;
};

static void on_readable(struct env_source *source, uint32_t events)
{
    struct real_watch *watch = (struct real_watch *)(void *)source;

    (void)events;
    watch->fn(watch->ctx);
}

static void watch_free(struct env_source *source)
{
    free(source);
}

enum status env_real_watch_open(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                                struct env_watch **out)
{
    struct env_real *real = env_real_of(env);
    struct real_watch *watch = calloc(1, sizeof(*watch));

    if (watch == NULL) return STATUS_NO_MEMORY;
    watch->base.env = env;
    watch->fn = fn;
    watch->ctx = ctx;
    watch->source.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    watch->source.on_event = on_readable;
    watch->source.free = watch_free;
    if (watch->source.fd < 0) {
        free(watch);
        return env_real_status(errno);
    }
    env_source_add(real, &watch->source);
    const enum status status = env_source_arm(real, &watch->source, EPOLLIN);
    if (status == STATUS_OK) {
        *out = &watch->base;
    } else {
        env_source_close(real, &watch->source);
    }
    return status;
}

void env_real_watch_close(struct env_watch *base)
{
    struct real_watch *watch =
        (struct real_watch *)(void *)((char *)base - offsetof(struct real_watch, base));

    env_source_close(env_real_of(base->env), &watch->source);
}
