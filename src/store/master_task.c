/* SPDX-License-Identifier: Apache-2.0
 *
 * A value with a task is on the list of work of store/master_copy.c until the task has ended; its
 * turns there are the task's, and nothing else is mended meanwhile.
 *
 * Invariants (master_tasks_check())
 *   I1  A task that has not ended is that of exactly one value, whose extra->task it is; one that
 *       has is on the list of those, the oldest first. */
#include "store/master_task.h"

#include <string.h>

#include "base/assert.h"
#include "store/master_int.h"
#include "store/proto.h"

enum { TASK_MS = 300000, PAUSE_MS = 50 /* before the next try; one more each time */ };

struct task {
    struct yolk_store_task_id id;
    uint64_t created_ns;
    uint64_t ended_ns;
    uint64_t size;
    struct rank rank;    /* of the value */
    uint32_t ended_next; /* link */
    uint32_t to_count;
    uint32_t done;     /* of the targets, in their order */
    uint32_t failures; /* of the copy to the next one */
    enum status last;  /* of them */
    bool copying;      /* a copy to the next target was begun */
    bool adds;         /* and makes more replicas than are wished */
    bool move;
    enum yolk_store_task_state state;
    enum status status;
    struct store_node_id from; /* move */
    struct store_node_id to[STORE_REPLICAS_MAX];
};

_Static_assert(sizeof(struct task) % 8 == 0, "as a slab wants it");

/* ---- life ---- */

bool master_tasks_init(struct store_master *master)
{
    struct tasks *tasks = &master->tasks;
    if (master->options.task_ms == 0) master->options.task_ms = TASK_MS;
    tasks->slab = slab_create(sizeof(struct task), STORE_TASKS_MAX + STORE_TASKS_KEPT + 1);
    return tasks->slab != NULL;
}

void master_tasks_fini(struct store_master *master)
{
    slab_destroy(master->tasks.slab);
}

static struct task *task_at(const struct store_master *master, uint32_t link)
{
    return link == 0 ? NULL : slab_at(master->tasks.slab, link - 1);
}

static void oldest_free(struct store_master *master)
{
    struct tasks *tasks = &master->tasks;
    const uint32_t link = tasks->ended_head;

    tasks->ended_head = task_at(master, link)->ended_next;
    if (tasks->ended_head == 0) tasks->ended_tail = 0;
    tasks->ended--;
    slab_free(tasks->slab, link - 1);
}

void master_tasks_run(struct store_master *master, uint64_t now_ns)
{
    struct tasks *tasks = &master->tasks;

    tasks->now_ns = now_ns;
    while (tasks->ended_head != 0 &&
           now_ns >= task_at(master, tasks->ended_head)->ended_ns + master_ms(STORE_TASK_KEPT_MS)) {
        oldest_free(master);
    }
}

static void task_end(struct store_master *master, uint64_t now_ns, struct entry *entry,
                     enum status status)
{
    struct tasks *tasks = &master->tasks;
    const uint32_t link = entry->extra->task;
    struct task *task = task_at(master, link);
    ASSERT(task->state == YOLK_STORE_TASK_PENDING || task->state == YOLK_STORE_TASK_PROCESSING);

    task->state = status == STATUS_OK ? YOLK_STORE_TASK_SUCCESS : YOLK_STORE_TASK_FAILED;
    task->status = status;
    task->ended_ns = now_ns;
    entry->extra->task = 0;
    if (tasks->ended_tail == 0) {
        tasks->ended_head = link;
    } else {
        task_at(master, tasks->ended_tail)->ended_next = link;
    }
    tasks->ended_tail = link;
    ASSERT(tasks->active > 0);
    tasks->active--;
    if (++tasks->ended > STORE_TASKS_KEPT) oldest_free(master);
}

void master_task_forget(struct store_master *master, struct entry *entry)
{
    if (entry->extra == NULL || entry->extra->task == 0) return;
    task_end(master, master->tasks.now_ns, entry, STATUS_NOT_FOUND);
}

/* ---- steps ---- */

static struct replica *replica_at(const struct store_master *master, const struct entry *entry,
                                  struct store_node_id node)
{
    const struct member *member = master_member_at(master, node);
    return member == NULL ? NULL : master_replica_find(master, entry, member);
}

/* It is there for certain, as far as anybody can know. */
static bool is_there(const struct store_master *master, const struct entry *entry,
                     struct store_node_id node)
{
    const struct replica *replica = replica_at(master, entry, node);
    return replica != NULL && master_replica_sure(master, replica) &&
           master_member_with(master, replica)->state == STORE_MEMBER_ALIVE;
}

/* Whether the source of a move has nothing more of the value, that anybody could read; else it is
 * asked to drop it, again if a reader had it the last time. */
static bool source_let_go(struct store_master *master, const struct entry *entry,
                          const struct task *task)
{
    struct replica *replica = replica_at(master, entry, task->from);

    if (replica == NULL) return true;
    if (replica->dropping) return false;
    if (master_member_with(master, replica)->state == STORE_MEMBER_DEAD) return true;
    const bool asked = master_replica_drop(master, replica, false);
    (void)asked; /* else the next time */
    return false;
}

/* The next target has it. */
static void arrived(struct store_master *master, struct entry *entry, struct task *task)
{
    const uint32_t wished = master_entry_wished(entry);

    if (task->copying && task->adds && !task->move && wished < STORE_REPLICAS_MAX)
        master_copies_wish(master, entry, wished + 1);
    task->state = YOLK_STORE_TASK_PROCESSING;
    task->copying = false;
    task->failures = 0;
    task->done++;
}

/* One try has come to nothing: false, if that was the last one. */
static bool failed(struct entry *entry, uint64_t now_ns, struct task *task, enum status status)
{
    const uint64_t again_ns = now_ns + master_ms(PAUSE_MS * (task->failures + 1));

    task->last = status;
    task->copying = false;
    if (entry->extra->copy_after < again_ns) entry->extra->copy_after = again_ns;
    return ++task->failures < STORE_TASK_TRIES;
}

/* STATUS_OK: it goes on; else why it cannot. */
static enum status copy_next(struct store_master *master, uint64_t now_ns, struct entry *entry,
                             struct task *task)
{
    struct member *to = master_member_at(master, task->to[task->done]);
    const struct member *from = task->move ? master_member_at(master, task->from) : NULL;

    if (to == NULL || to->draining) return STATUS_UNAVAILABLE;
    if (entry->ticket != 0) return STATUS_OK; /* this copy, or another one, is under way */
    if (task->copying && !failed(entry, now_ns, task, task->last)) return task->last;
    if (now_ns < entry->extra->copy_after) return STATUS_OK;
    task->adds = master_copies_settled(master, entry) >= master_entry_wished(entry);
    const enum status status = master_copy_to(master, now_ns, entry, from, to);
    if (status == STATUS_AGAIN) return STATUS_OK;
    if (status != STATUS_OK) return failed(entry, now_ns, task, status) ? STATUS_OK : status;
    task->state = YOLK_STORE_TASK_PROCESSING;
    task->copying = true;
    task->last = STATUS_UNAVAILABLE; /* until it is known better */
    return STATUS_OK;
}

void master_task_copied(struct store_master *master, const struct entry *entry, enum status status)
{
    struct task *task = entry->extra == NULL ? NULL : task_at(master, entry->extra->task);
    if (task != NULL && task->copying) task->last = status;
}

void master_task_step(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    struct task *task = task_at(master, entry->extra->task);
    enum status status = STATUS_OK;

    while (task->done < task->to_count && is_there(master, entry, task->to[task->done]))
        arrived(master, entry, task);
    if (entry->removing) {
        status = STATUS_NOT_FOUND;
    } else if (rank_compare(master_rank(master, task->rank), master_entry_rank(master, entry)) !=
               0) {
        status = STATUS_STALE;
    } else if (now_ns >= task->created_ns + master_ms(master->options.task_ms)) {
        status = STATUS_TIMEOUT;
    } else if (task->done < task->to_count) {
        status = copy_next(master, now_ns, entry, task);
    } else if (!task->move) {
        task_end(master, now_ns, entry, STATUS_OK);
    } else if (!is_there(master, entry, task->to[0])) {
        task->done = 0; /* and is gone again, while the source still has it */
    } else if (source_let_go(master, entry, task)) {
        task_end(master, now_ns, entry, STATUS_OK);
    }
    if (status != STATUS_OK) task_end(master, now_ns, entry, status);
}

/* ---- asking ---- */

static void task_describe(const struct task *task, uint64_t now_ns, struct yolk_store_task *out)
{
    const bool ended =
        task->state == YOLK_STORE_TASK_FAILED || task->state == YOLK_STORE_TASK_SUCCESS;
    *out = (struct yolk_store_task){ .id = task->id,
                                     .move = task->move,
                                     .state = task->state,
                                     .status = task->status,
                                     .targets = task->to_count,
                                     .done = task->done,
                                     .size = task->size };
    out->age_ms = ((ended ? task->ended_ns : now_ns) - task->created_ns) / ENV_NS_PER_MS;
}

static enum status refused(enum status status, const char *message, const char **why)
{
    *why = message;
    return status;
}

/* The one node that has the value; NULL: several, or none, do. */
static const struct member *only_owner(const struct store_master *master, const struct entry *entry)
{
    const struct member *owner = NULL;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!master_replica_readable(master, r)) continue;
        if (owner != NULL) return NULL;
        owner = master_member_with(master, r);
    }
    return owner;
}

static enum status source_find(const struct store_master *master, const struct entry *entry,
                               const struct store_task_wish *wish, struct task *task,
                               const char **why)
{
    const bool any = wish->from[0] == '\0';
    const struct member *from =
        any ? only_owner(master, entry) : master_member_find(master, wish->from);

    if (from == NULL) {
        return refused(STATUS_INVALID,
                       any ? "several nodes have the value: say which is to let go of it"
                           : "the node that it is to be moved from does not exist",
                       why);
    }
    const struct replica *replica = master_replica_find(master, entry, from);
    if (replica == NULL || !master_replica_readable(master, replica))
        return refused(STATUS_INVALID, "the node that it is to be moved from has it not", why);
    task->from = from->id;
    return STATUS_OK;
}

static enum status targets_find(const struct store_master *master, const struct entry *entry,
                                const struct store_task_wish *wish, struct task *task,
                                const char **why)
{
    for (uint32_t i = 0; i < wish->to_count; i++) {
        const struct member *to = master_member_find(master, wish->to[i]);
        if (to == NULL)
            return refused(STATUS_INVALID, "a node named as target does not exist", why);
        for (uint32_t before = 0; before < i; before++) {
            if (task->to[before].index == to->id.index)
                return refused(STATUS_INVALID, "a node is named as target twice", why);
        }
        if (wish->move && to->id.index == task->from.index)
            return refused(STATUS_INVALID, "source and target are the same node", why);
        if (wish->move && is_there(master, entry, to->id))
            return refused(STATUS_EXISTS, "the target has it already", why);
        task->to[i] = to->id;
    }
    task->to_count = wish->to_count;
    return STATUS_OK;
}

static enum status task_allowed(struct store_master *master, uint64_t now_ns, struct store_key key,
                                struct entry **out, const char **why)
{
    struct store_object object;
    const enum status status = store_master_peek(master, now_ns, key, &object);
    if (status != STATUS_OK) return refused(status, "", why);
    const struct block_key id = store_key_id(key);
    struct entry *entry = master_entry_find(master, &id);
    ASSERT(entry != NULL);
    if (master_entry_block(entry)) return refused(STATUS_DENIED, "a block of KVCache", why);
    if (master_entry_extra(entry) == NULL) return refused(STATUS_FULL, "no memory", why);
    if (entry->extra->task != 0) return refused(STATUS_BUSY, "the value has a task already", why);
    if (master->tasks.active == STORE_TASKS_MAX)
        return refused(STATUS_FULL, "there are too many tasks", why);
    *out = entry;
    return STATUS_OK;
}

enum status store_master_task_create(struct store_master *master, uint64_t now_ns,
                                     struct store_key key, const struct store_task_wish *wish,
                                     struct yolk_store_task *out, const char **why)
{
    struct tasks *tasks = &master->tasks;
    struct task made = { .move = wish->move, .created_ns = now_ns };
    struct entry *entry = NULL;
    uint32_t number;
    ASSERT(wish->to_count > 0 && wish->to_count <= (wish->move ? 1 : STORE_REPLICAS_MAX));

    enum status status = task_allowed(master, now_ns, key, &entry, why);
    if (status == STATUS_OK && wish->move) status = source_find(master, entry, wish, &made, why);
    if (status == STATUS_OK) status = targets_find(master, entry, wish, &made, why);
    if (status != STATUS_OK) return status;
    struct task *task = slab_alloc(tasks->slab, &number);
    if (task == NULL) return refused(STATUS_FULL, "no memory", why);
    *task = made;
    task->id = (struct yolk_store_task_id){ master->term, (uint64_t)++tasks->made << 32 | number };
    task->size = entry->size;
    task->rank = master_entry_rank(master, entry);
    tasks->now_ns = now_ns; /* it may go before the next run */
    tasks->active++;
    entry->extra->task = number + 1;
    master_copies_look(master, entry);
    master_copies_run(master, now_ns);
    task_describe(task, now_ns, out); /* it may have ended; it is kept */
    return STATUS_OK;
}

enum status store_master_task(const struct store_master *master, uint64_t now_ns,
                              struct yolk_store_task_id id, struct yolk_store_task *out)
{
    const uint32_t number = (uint32_t)id.number;

    if (number > INT32_MAX || slab_next(master->tasks.slab, number) != number)
        return STATUS_NOT_FOUND;
    const struct task *task = slab_at(master->tasks.slab, number);
    if (task->id.number != id.number || task->id.term != id.term) return STATUS_NOT_FOUND;
    task_describe(task, now_ns, out);
    return STATUS_OK;
}

/* ---- looking around ---- */

void master_tasks_check(const struct store_master *master)
{
    const struct tasks *tasks = &master->tasks;
    uint32_t active = 0;
    uint32_t ended = 0;

    for (uint32_t i = 0; (i = slab_next(master->entries, i)) != SLAB_NONE; i++) { /* I1 */
        const struct extra *extra = master_entry_at(master, i)->extra;
        if (extra == NULL || extra->task == 0) continue;
        ASSERT(extra->working && task_at(master, extra->task)->state < YOLK_STORE_TASK_FAILED);
        active++;
    }
    for (uint32_t link = tasks->ended_head; link != 0;) {
        const struct task *task = task_at(master, link);
        ASSERT(task->state >= YOLK_STORE_TASK_FAILED && task->done <= task->to_count);
        ASSERT((link == tasks->ended_tail) == (task->ended_next == 0));
        link = task->ended_next;
        ended++;
    }
    ASSERT(active == tasks->active && ended == tasks->ended);
    ASSERT(slab_count(tasks->slab) == active + ended);
}
