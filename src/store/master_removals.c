/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_removals.c - see the header. What is noted becomes the list of the call that waits,
 * which is looked through from its end: what is over leaves it.
 */
#include "store/master_removals.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/list.h"
#include "net/rpc.h"
#include "store/master.h"

enum { LOOK_MS = 100 }; /* owners may fall silent, which nobody tells */

struct ids {
    struct block_key *list;
    uint32_t count;
    uint32_t room;
};

struct waiting {
    struct waiting *prev;
    struct waiting *next;
    struct master_removals *removals;
    struct rpc_call *call;
    struct ids ids;
    size_t len;
    uint8_t bytes[];
};

struct master_removals {
    struct env *env;
    struct store_master *master;
    struct waiting *waiting;
    struct env_timer look;
    struct ids noted;
    bool missed; /* there was no memory to note one */
};

static void waiting_end(struct waiting *waiting, enum status status)
{
    struct master_removals *removals = waiting->removals;

    LIST_REMOVE(removals->waiting, waiting);
    if (status == STATUS_OK) {
        rpc_reply(waiting->call, waiting->bytes, waiting->len);
    } else {
        rpc_fail(waiting->call, status, NULL);
    }
    free(waiting->ids.list);
    free(waiting);
}

static void on_asker_gone(void *ctx, enum status why)
{
    waiting_end(ctx, why);
}

/* What is over leaves the list. */
static bool all_over(const struct master_removals *removals, struct ids *ids)
{
    const uint64_t now_ns = env_now_ns(removals->env);
    while (ids->count > 0) {
        const struct block_key *id = &ids->list[ids->count - 1];
        if (store_master_removed(removals->master, now_ns, id) != STATUS_OK) return false;
        ids->count--;
    }
    return true;
}

void master_removals_heard(struct master_removals *removals)
{
    struct waiting *next;
    for (struct waiting *waiting = removals->waiting; waiting != NULL; waiting = next) {
        next = waiting->next;
        if (all_over(removals, &waiting->ids)) waiting_end(waiting, STATUS_OK);
    }
}

static void look_later(struct master_removals *removals)
{
    if (removals->waiting == NULL || env_timer_armed(&removals->look)) return;
    env_timer_set(removals->env, &removals->look,
                  env_now_ns(removals->env) + LOOK_MS * ENV_NS_PER_MS);
}

static void on_look(void *ctx)
{
    struct master_removals *removals = ctx;
    master_removals_heard(removals);
    look_later(removals);
}

void master_removals_note(struct master_removals *removals, const struct block_key *id)
{
    struct ids *ids = &removals->noted;
    if (store_master_removed(removals->master, env_now_ns(removals->env), id) == STATUS_OK) return;
    if (ids->count == ids->room) {
        const uint32_t room = ids->room == 0 ? 16 : 2 * ids->room;
        struct block_key *list = realloc(ids->list, room * sizeof(*list));
        removals->missed |= list == NULL;
        if (list == NULL) return;
        ids->list = list;
        ids->room = room;
    }
    ids->list[ids->count++] = *id;
}

/* Takes what was noted. */
static bool wait_with(struct master_removals *removals, struct rpc_call *call, struct ids ids,
                      const uint8_t *bytes, size_t len)
{
    struct waiting *waiting = malloc(sizeof(*waiting) + len);
    if (waiting == NULL) return false;
    *waiting = (struct waiting){ .removals = removals, .call = call, .ids = ids, .len = len };
    if (len > 0) memcpy(waiting->bytes, bytes, len);
    LIST_PUSH(removals->waiting, waiting);
    rpc_on_cancel(call, on_asker_gone, waiting);
    look_later(removals);
    return true;
}

void master_removals_reply(struct master_removals *removals, struct rpc_call *call,
                           const uint8_t *bytes, size_t len)
{
    const struct ids ids = removals->noted;
    const bool missed = removals->missed;

    removals->noted = (struct ids){ 0 };
    removals->missed = false;
    if (ids.count == 0 && !missed) {
        free(ids.list);
        rpc_reply(call, bytes, len);
    } else if (missed || !wait_with(removals, call, ids, bytes, len)) {
        free(ids.list);
        rpc_fail(call, STATUS_FULL, "no memory");
    }
}

enum status master_removals_create(struct env *env, struct store_master *master,
                                   struct master_removals **out)
{
    struct master_removals *removals = calloc(1, sizeof(*removals));
    if (removals == NULL) return STATUS_NO_MEMORY;
    removals->env = env;
    removals->master = master;
    env_timer_init(&removals->look, on_look, removals);
    *out = removals;
    return STATUS_OK;
}

void master_removals_destroy(struct master_removals *removals)
{
    if (removals == NULL) return;
    env_timer_cancel(removals->env, &removals->look);
    while (removals->waiting != NULL)
        waiting_end(removals->waiting, STATUS_UNAVAILABLE);
    free(removals->noted.list);
    free(removals);
}
