/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_fetch.c - blocks of an attempt that are brought from another node or from the own
 * disk.
 *
 *     job_fetch --> under way --all, or what could be had--> on_done
 *                     |   ^                                    ^
 *             quiet   |   | a layer                            |
 *                     v   |                                    |
 *                   (timer) --nothing for quiet_ns--> late ----+  reason DEADLINE
 *
 * Why it is watched: a holder that stands still, or is cut off, says nothing, and its connections
 * end many seconds later. Who waits for it could have computed the blocks meanwhile. What is
 * measured is the time since the last layer, not since the beginning, so that a large fetch over a
 * slow link may take its time (WORKER_FETCH_MS at most). The own disk is not watched: it answers
 * with an error, or slowly.
 *
 * Invariants
 *   I1  The timer is armed only while a fetch is under way, and has not been given up.
 *   I2  A fetch is cancelled at most once. */
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

enum { LAYERS_AT_ONCE = 4 }; /* that may be on their way before the first of them is whole */

uint32_t job_wanted_blocks(struct job *job, uint32_t local, uint32_t reusable, uint32_t below)
{
    const struct worker *worker = job->worker;
    const uint32_t planned = job->plan.reuse_blocks < reusable ? job->plan.reuse_blocks : reusable;
    const bool elsewhere =
        job->plan.holder[0] != '\0' && strcmp(job->plan.holder, worker->address) != 0;
    const uint32_t on_disk =
        below > local ? store_node_match(worker->node, job->keys + local, below - local) : 0;

    job->fetching.from_disk = on_disk > 0 && (!elsewhere || local + on_disk >= planned);
    if (job->fetching.from_disk) return local + on_disk;
    return elsewhere && planned > local ? planned : local;
}

/* ---- the watch ---- */

static void watch_again(struct job *job)
{
    struct fetching *fetching = &job->fetching;

    if (fetching->quiet_ns == 0 || fetching->late) return;
    env_timer_set(job->worker->env, &fetching->timer,
                  env_now_ns(job->worker->env) + fetching->quiet_ns);
}

static void on_quiet(void *ctx)
{
    struct job *job = ctx;

    ASSERT(job->fetching.fetch != NULL && !job->fetching.late && !job->over); /* I1 */
    job->fetching.late = true;
    store_fetch_cancel(job->fetching.fetch);
}

/* What may be on its way before anything is whole takes its time, too. */
static uint64_t quiet_ns(const struct worker *worker, uint32_t blocks)
{
    const uint64_t layer = worker->layout.page_size / worker->layout.n_layers * blocks;

    return worker->options.fetch_quiet_ms * ENV_NS_PER_MS +
           layer * LAYERS_AT_ONCE * (ENV_NS_PER_S / WORKER_FETCH_RATE_MIN);
}

/* ---- the fetch ---- */

static void on_layer(void *ctx, uint32_t layer, uint32_t blocks)
{
    struct job *job = ctx;

    if (job->over) return;
    watch_again(job);
    if (job->fetching.on_layer != NULL) job->fetching.on_layer(job, layer, blocks);
}

static void on_done(void *ctx, const struct store_fetch_result *result)
{
    struct job *job = ctx;
    struct fetching *fetching = &job->fetching;
    struct store_fetch_result told = *result;

    ASSERT(job->inflight > 0);
    env_timer_cancel(job->worker->env, &fetching->timer);
    fetching->fetch = NULL;
    job->inflight--;
    job->loaded_ns = env_now_ns(job->worker->env);
    if (job->over) {
        job_settle(job);
        return;
    }
    if (fetching->late && told.reason == STORE_MISS_CANCELLED) told.reason = STORE_MISS_DEADLINE;
    fetching->on_done(job, &told);
}

bool job_fetch(struct job *job, uint32_t local, uint32_t wanted, store_fetch_layer_fn each,
               store_fetch_done_fn done)
{
    struct worker *worker = job->worker;
    struct fetching *fetching = &job->fetching;
    const uint64_t limit_ns = env_now_ns(worker->env) + WORKER_FETCH_MS * ENV_NS_PER_MS;

    if (wanted <= local) return false;
    const struct store_fetch_options options = {
        .holder = fetching->from_disk ? NULL : job->plan.holder,
        .keys = job->keys + local,
        .pages = job->pages + local,
        .count = wanted - local,
        .transfer_class = YOLK_TRANSFER_LOAD,
        .deadline_ns = job->deadline_ns < limit_ns ? job->deadline_ns : limit_ns,
        .on_layer = on_layer,
        .on_done = on_done,
        .ctx = job,
    };
    if (store_node_fetch(worker->node, &options, &fetching->fetch) != STATUS_OK) {
        fetching->miss = PROTO_MISS_FAILED;
        return false;
    }
    job->inflight++;
    fetching->on_layer = each;
    fetching->on_done = done;
    fetching->late = false;
    fetching->quiet_ns = fetching->from_disk ? 0 : quiet_ns(worker, wanted - local);
    env_timer_init(&fetching->timer, on_quiet, job);
    watch_again(job);
    return true;
}

void job_fetch_cancel(struct job *job)
{
    struct fetching *fetching = &job->fetching;

    if (fetching->fetch == NULL || fetching->late) return; /* I2 */
    env_timer_cancel(job->worker->env, &fetching->timer);
    store_fetch_cancel(fetching->fetch);
}

/* ---- what did not come ---- */

static enum proto_miss miss_of(enum store_miss reason)
{
    switch (reason) {
    case STORE_MISS_NONE: return PROTO_MISS_NONE;
    case STORE_MISS_ABSENT: return PROTO_MISS_GONE;
    case STORE_MISS_DEADLINE: return PROTO_MISS_TIMEOUT;
    case STORE_MISS_HOLDER:
    case STORE_MISS_REFUSED:
    case STORE_MISS_TRANSFER:
    case STORE_MISS_CHECKSUM:
    case STORE_MISS_CANCELLED:
    case STORE_MISS_COUNT: break;
    }
    return PROTO_MISS_FAILED;
}

void job_fetch_short(struct job *job, uint32_t wanted, const struct store_fetch_result *result)
{
    struct fetching *fetching = &job->fetching;

    fetching->miss = miss_of(result->reason);
    LOG_INFO("worker", "fetch_short", "req=%016llx holder=%s wanted=%u got=%u reason=%s",
             (unsigned long long)job->request_id, fetching->from_disk ? "disk" : job->plan.holder,
             wanted, result->blocks, store_miss_name(result->reason));
}
