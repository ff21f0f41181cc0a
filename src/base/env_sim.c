/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim.c - the world: virtual time, processes and their turns, crashes.
 *
 * Everything that will happen is a timer in one heap: the arrival of bytes (env_sim_stream.c) and
 * the turn of a process. Running means: take the soonest, move the clock there, run it. The clock
 * moves only so.
 *
 * A process runs in turns like a real loop: what is ready in its streams, its posts, its timers. If
 * it then still has something ready, its next turn comes TURN_NS later, so that a process that
 * never stops being ready cannot stop the clock.
 *
 *   I1  Only the one thread, the seed and the calls decide what happens: no addresses, no real
 *       time.
 *   I2  A dead process has no turn armed and no timers; nothing of it runs.
 *   I3  Memory of connections goes between events, never during one. */
#include "base/env_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_sim_int.h"

enum { TURN_NS = 1000, HOSTS_MAX = 256, TIMERS_MAX = 1 << 20 };

/* 2026-01-01, so that logs of simulations look like logs. */
#define WALL_START_NS (UINT64_C(1767225600) * ENV_NS_PER_S)

enum { TRACE_TURN = 1, TRACE_CRASH = 2, TRACE_CALLBACKS = 3 };

void *env_sim_alloc(size_t size)
{
    void *memory = calloc(1, size);
    ASSERT(memory != NULL);
    return memory;
}

void *env_sim_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size);
    ASSERT(memory != NULL);
    return memory;
}

bool env_sim_chance(struct env_sim *sim, uint32_t ppm)
{
    const bool hit = ppm != 0 && rng_below(&sim->rng, 1000000) < ppm;

    if (hit) sim->fault_count++;
    return hit;
}

uint64_t env_sim_random(struct env_sim *sim, uint64_t below)
{
    return rng_below(&sim->rng, below);
}

void env_sim_trace(struct env_sim *sim, uint64_t what, uint64_t value)
{
    const uint64_t words[3] = { what, value, sim->now_ns };
    for (int i = 0; i < 3; i++) {
        sim->trace_hash = (sim->trace_hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        sim->trace_hash ^= sim->trace_hash >> 29;
    }
}

/* ---- hosts ---- */

struct sim_host *env_sim_host(struct env_sim *sim, const char *name)
{
    for (struct sim_host *host = sim->hosts; host != NULL; host = host->next) {
        if (strcmp(host->name, name) == 0) return host;
    }
    return NULL;
}

static struct sim_host *host_get(struct env_sim *sim, const char *name)
{
    struct sim_host *host = env_sim_host(sim, name);

    if (host != NULL) return host;
    ASSERT(sim->host_count < HOSTS_MAX);
    ASSERT(strlen(name) < sizeof(host->name));
    host = env_sim_alloc(sizeof(*host));
    snprintf(host->name, sizeof(host->name), "%s", name);
    host->home = host;
    host->index = sim->host_count++;
    host->port_next = 30000;
    host->next = sim->hosts;
    sim->hosts = host;
    return host;
}

void env_sim_add_address(struct env_sim *sim, const char *host, const char *address)
{
    ASSERT(env_sim_host(sim, address) == NULL);
    struct sim_host *home = host_get(sim, host);
    host_get(sim, address)->home = home->home;
}

bool env_sim_cut(const struct env_sim *sim, const struct sim_host *a, const struct sim_host *b)
{
    return sim->cut[a->index * HOSTS_MAX + b->index] != 0;
}

static void set_cut(struct env_sim *sim, const char *host_a, const char *host_b, uint8_t cut)
{
    const struct sim_host *a = host_get(sim, host_a);
    const struct sim_host *b = host_get(sim, host_b);

    ASSERT(a != b);
    sim->cut[a->index * HOSTS_MAX + b->index] = cut;
    sim->cut[b->index * HOSTS_MAX + a->index] = cut;
}

void env_sim_partition(struct env_sim *sim, const char *host_a, const char *host_b)
{
    sim->fault_count++;
    set_cut(sim, host_a, host_b, 1);
}

void env_sim_heal(struct env_sim *sim, const char *host_a, const char *host_b)
{
    set_cut(sim, host_a, host_b, 0);
}

/* ---- the functions of an env that need only time ---- */

static uint64_t now_ns(struct env *env)
{
    return sim_process_of(env)->sim->now_ns;
}

static uint64_t wall_ns(struct env *env)
{
    return WALL_START_NS + now_ns(env) + (uint64_t)sim_process_of(env)->skew_ns;
}

static void random_bytes(struct env *env, void *out, size_t len)
{
    rng_fill(&sim_process_of(env)->sim->rng, out, len);
}

void env_sim_wake(struct sim_process *process, uint64_t at_ns)
{
    if (!process->alive || process->paused) return;
    if (env_timer_armed(&process->turn) && process->turn.deadline_ns <= at_ns) return;
    env_timers_set(&process->sim->events, &process->turn, at_ns, process->sim->now_ns);
}

static enum status post(struct env *env, void (*fn)(void *ctx), void *ctx)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->alive) return STATUS_UNAVAILABLE;
    if (process->post_count == ENV_POSTS_MAX) return STATUS_FULL;
    if (process->posts == NULL) {
        process->post_capacity = ENV_POSTS_MAX;
        process->posts = env_sim_alloc(process->post_capacity * sizeof(*process->posts));
    }
    const uint32_t tail = (process->post_head + process->post_count) % process->post_capacity;
    process->posts[tail] = (struct sim_post){ .fn = fn, .ctx = ctx };
    process->post_count++;
    env_sim_wake(process, process->sim->now_ns);
    return STATUS_OK;
}

static void timer_set(struct env *env, struct env_timer *timer, uint64_t deadline_ns)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->alive) return; /* I2 */
    env_timers_set(&process->timers, timer, deadline_ns, process->sim->now_ns);
    env_sim_wake(process, timer->deadline_ns);
}

static void timer_cancel(struct env *env, struct env_timer *timer)
{
    env_timers_cancel(&sim_process_of(env)->timers, timer);
}

/* ---- turns ---- */

static void run_posts(struct sim_process *process)
{
    for (uint32_t left = process->post_count; left > 0 && process->alive; left--) {
        const struct sim_post item = process->posts[process->post_head];
        process->post_head = (process->post_head + 1) % process->post_capacity;
        process->post_count--;
        process->callback_count++;
        item.fn(item.ctx);
    }
}

static void run_timers(struct sim_process *process)
{
    struct env_sim *sim = process->sim;
    const uint64_t order = process->timers.order;
    struct env_timer *timer;

    while (process->alive &&
           (timer = env_timers_take_due(&process->timers, sim->now_ns, order)) != NULL) {
        if (env_sim_chance(sim, sim->options.buggify_ppm)) { /* as if the machine were busy */
            const uint64_t late = rng_below(&sim->rng, 10 * ENV_NS_PER_MS) + 1;
            env_timers_set(&process->timers, timer, sim->now_ns + late, 0);
            continue;
        }
        process->callback_count++;
        timer->fn(timer->ctx);
    }
}

/* When the process has something to do next, if nothing comes from outside. */
static void arm_next_turn(struct sim_process *process)
{
    const uint64_t next_ns = process->sim->now_ns + TURN_NS;
    const struct env_timer *timer = env_timers_peek(&process->timers);

    if (process->post_count > 0 || process->ios_done.count > 0 || env_sim_streams_ready(process))
        env_sim_wake(process, next_ns);
    else if (timer != NULL && timer->deadline_ns != ENV_NEVER)
        env_sim_wake(process, timer->deadline_ns > next_ns ? timer->deadline_ns : next_ns);
}

static void on_turn(void *ctx)
{
    struct sim_process *process = ctx;

    ASSERT(process->alive && !process->paused);
    const uint64_t before = process->callback_count;
    process->base.owner = pthread_self();
    env_sim_streams_turn(process);
    if (process->alive) env_sim_ios_turn(process);
    if (process->alive) run_posts(process);
    if (process->alive) run_timers(process);
    env_sim_trace(process->sim, TRACE_TURN, process->index);
    env_sim_trace(process->sim, TRACE_CALLBACKS, process->callback_count - before);
    /* What was woken during the turn is looked at again in the next one. */
    if (env_timer_armed(&process->turn)) env_timers_cancel(&process->sim->events, &process->turn);
    if (process->alive) arm_next_turn(process);
}

/* The next event, if it comes by `limit_ns`; else the clock moves there and the answer is false. */
static bool step(struct env_sim *sim, uint64_t limit_ns)
{
    const struct env_timer *next = env_timers_peek(&sim->events);

    ASSERT(!sim->stepping); /* nothing may run the world from inside a callback */
    if (next == NULL || next->deadline_ns > limit_ns) {
        if (limit_ns != ENV_NEVER && limit_ns > sim->now_ns) sim->now_ns = limit_ns;
        return false;
    }
    struct env_timer *event = env_timers_take_due(&sim->events, limit_ns, UINT64_MAX);
    ASSERT(event != NULL && event->deadline_ns >= sim->now_ns);
    sim->now_ns = event->deadline_ns;
    sim->event_count++;
    sim->stepping = true;
    event->fn(event->ctx);
    sim->stepping = false;
    env_sim_streams_sweep(sim); /* I3 */
    return true;
}

uint64_t env_sim_now_ns(const struct env_sim *sim)
{
    return sim->now_ns;
}

static uint64_t later(uint64_t now, uint64_t duration_ns)
{
    return duration_ns > ENV_NEVER - now ? ENV_NEVER : now + duration_ns;
}

void env_sim_run_for(struct env_sim *sim, uint64_t duration_ns)
{
    const uint64_t limit_ns = later(sim->now_ns, duration_ns);
    while (step(sim, limit_ns)) {
    }
}

bool env_sim_run_until(struct env_sim *sim, bool (*done)(void *ctx), void *ctx,
                       uint64_t duration_ns)
{
    const uint64_t limit_ns = later(sim->now_ns, duration_ns);

    for (;;) {
        if (done(ctx)) return true;
        if (!step(sim, limit_ns)) return done(ctx); /* time alone may have made it true */
    }
}

static void run(struct env *env)
{
    struct sim_process *process = sim_process_of(env);

    env->running = false; /* one thread runs everybody; a turn checks its own nesting */
    while (!process->stopping && process->alive) {
        const bool stepped = step(process->sim, ENV_NEVER);
        ASSERT(stepped); /* else it would wait for ever: nothing in this world can wake it */
    }
    process->stopping = false;
}

static void stop(struct env *env)
{
    sim_process_of(env)->stopping = true;
}

static bool poll(struct env *env, uint64_t timeout_ns)
{
    struct sim_process *process = sim_process_of(env);
    const uint64_t before = process->callback_count;
    const uint64_t limit_ns = later(process->sim->now_ns, timeout_ns);

    env->running = false;
    while (process->callback_count == before && step(process->sim, limit_ns)) {
    }
    return process->callback_count != before;
}

uint64_t env_sim_trace_hash(const struct env_sim *sim)
{
    return sim->trace_hash;
}

uint64_t env_sim_event_count(const struct env_sim *sim)
{
    return sim->event_count;
}

uint64_t env_sim_fault_count(const struct env_sim *sim)
{
    return sim->fault_count;
}

/* ---- crashes and pauses ---- */

static void process_die(struct sim_process *process, bool loud)
{
    struct env_timer *timer;

    if (!process->alive) return;
    env_sim_ios_crash(process);
    process->alive = false;
    if (env_timer_armed(&process->turn)) env_timers_cancel(&process->sim->events, &process->turn);
    while ((timer = env_timers_peek(&process->timers)) != NULL) {
        env_timers_cancel(&process->timers, timer);
    }
    process->post_count = 0;
    env_sim_streams_crash(process, loud);
    env_sim_maps_crash(process);
    env_sim_trace(process->sim, TRACE_CRASH, process->index);
}

void env_sim_kill(struct env *env)
{
    sim_process_of(env)->sim->fault_count++;
    process_die(sim_process_of(env), true);
}

void env_sim_power_off(struct env_sim *sim, const char *name)
{
    struct sim_host *host = env_sim_host(sim, name);

    ASSERT(host != NULL);
    sim->fault_count++;
    host->on = false;
    for (struct sim_process *process = sim->processes; process != NULL; process = process->next) {
        if (process->host == host) process_die(process, false);
    }
    env_sim_disk_power_off(sim, host);
}

bool env_sim_alive(const struct env *env)
{
    return ((const struct sim_process *)(const void *)env)->alive;
}

void env_sim_skew(struct env *env, int64_t ns)
{
    sim_process_of(env)->skew_ns = ns;
}

void env_sim_pause(struct env *env)
{
    struct sim_process *process = sim_process_of(env);

    process->sim->fault_count++;
    process->paused = true;
    if (env_timer_armed(&process->turn)) env_timers_cancel(&process->sim->events, &process->turn);
}

void env_sim_resume(struct env *env)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->paused) return;
    process->paused = false;
    env_sim_wake(process, process->sim->now_ns);
}

void env_sim_flip(struct env_sim *sim, uint32_t ppm)
{
    sim->options.flip_ppm = ppm;
}

void env_sim_calm(struct env_sim *sim)
{
    struct env_sim_options *options = &sim->options;

    options->conn_loss_ppm = 0;
    options->conn_refuse_ppm = 0;
    options->slow_ppm = 0;
    options->flip_ppm = 0;
    options->buggify_ppm = 0;
    options->disk_corrupt_ppm = 0;
    options->disk_error_ppm = 0;
    memset(sim->cut, 0, (size_t)HOSTS_MAX * HOSTS_MAX);
    for (struct sim_process *process = sim->processes; process != NULL; process = process->next) {
        env_sim_resume(&process->base);
    }
}

/* ---- birth and death of the world ---- */

/* Other threads are not of this world. */
static enum status event_create(int *fd)
{
    (void)fd;
    return STATUS_UNSUPPORTED;
}

/* Nor are other people's descriptors. */
static enum status watch_open(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                              struct env_watch **out)
{
    (void)env;
    (void)fd;
    (void)fn;
    (void)ctx;
    (void)out;
    return STATUS_UNSUPPORTED;
}

static void watch_close(struct env_watch *watch)
{
    ASSERT(watch == NULL); /* there are none */
}

static const struct env_ops sim_ops = {
    .now_ns = now_ns,
    .wall_ns = wall_ns,
    .random = random_bytes,
    .run = run,
    .stop = stop,
    .poll = poll,
    .post = post,
    .event_create = event_create,
    .watch_open = watch_open,
    .watch_close = watch_close,
    .timer_set = timer_set,
    .timer_cancel = timer_cancel,
    .listen = env_sim_listen,
    .listener_close = env_sim_listener_close,
    .connect = env_sim_connect,
    .interfaces = env_sim_interfaces,
    .stream_watch = env_sim_stream_watch,
    .stream_readv = env_sim_stream_readv,
    .stream_writev = env_sim_stream_writev,
    .stream_close = env_sim_stream_close,
    .stream_local_host = env_sim_stream_local_host,
    .file_open = env_sim_file_open,
    .file_pread = env_sim_file_pread,
    .file_pwrite = env_sim_file_pwrite,
    .file_sync = env_sim_file_sync,
    .file_size = env_sim_file_size,
    .file_truncate = env_sim_file_truncate,
    .file_close = env_sim_file_close,
    .file_remove = env_sim_file_remove,
    .file_rename = env_sim_file_rename,
    .make_dirs = env_sim_make_dirs,
    .dir_list = env_sim_dir_list,
    .file_private = env_sim_file_private,
    .disk_free = env_sim_disk_free,
    .io_start = env_sim_io_start,
    .job_start = env_sim_job_start,
    .job_cancel = env_sim_job_cancel,
    .job_settle = env_sim_job_settle,
    .map_file = env_sim_map_file,
    .map_create = env_sim_map_create,
    .map_open = env_sim_map_open,
    .memory_name = env_sim_memory_name,
    .memory_open = env_sim_memory_open,
    .memory_readv = env_sim_memory_readv,
};

struct env_sim *env_sim_create(const struct env_sim_options *options)
{
    struct env_sim *sim = env_sim_alloc(sizeof(*sim));

    sim->options = *options;
    if (sim->options.delay_min_ns == 0) sim->options.delay_min_ns = 50 * ENV_NS_PER_US;
    if (sim->options.delay_max_ns == 0) sim->options.delay_max_ns = 500 * ENV_NS_PER_US;
    if (sim->options.stream_buffer_size == 0) sim->options.stream_buffer_size = 256 * 1024;
    ASSERT(sim->options.delay_min_ns <= sim->options.delay_max_ns);
    rng_init(&sim->rng, options->seed);
    sim->now_ns = ENV_NS_PER_S; /* a clock that starts at 0 hides mistakes with 0 */
    sim->cut = env_sim_alloc((size_t)HOSTS_MAX * HOSTS_MAX);
    env_timers_init(&sim->events, TIMERS_MAX);
    return sim;
}

struct env *env_sim_add(struct env_sim *sim, const char *host)
{
    ASSERT(sim->process_count < ENV_SIM_PROCESSES_MAX);
    struct sim_process *process = env_sim_alloc(sizeof(*process));

    process->base.ops = &sim_ops;
    process->base.owner = pthread_self();
    process->sim = sim;
    process->host = host_get(sim, host);
    ASSERT(process->host->home == process->host);
    process->host->on = true;
    process->index = sim->process_count++;
    process->alive = true;
    env_timers_init(&process->timers, TIMERS_MAX);
    env_timer_init(&process->turn, on_turn, process);
    process->next = sim->processes;
    sim->processes = process;
    return &process->base;
}

static void free_hosts(struct env_sim *sim)
{
    while (sim->hosts != NULL) {
        struct sim_host *host = sim->hosts;
        sim->hosts = host->next;
        free(host);
    }
}

void env_sim_destroy(struct env_sim *sim)
{
    if (sim == NULL) return;
    env_sim_streams_free(sim);
    env_sim_disks_end(sim);
    env_sim_maps_free(sim);
    free_hosts(sim);
    while (sim->processes != NULL) {
        struct sim_process *process = sim->processes;
        sim->processes = process->next;
        env_timers_fini(&process->timers);
        free(process->posts);
        free(process);
    }
    env_timers_fini(&sim->events);
    free(sim->cut);
    free(sim);
}
