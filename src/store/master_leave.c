/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_leave.c - a node says that it will go soon (store_master_unmount()): values that
 * nobody else has are copied to nodes with room, those first that matter most.
 *
 *   unmount --> collected, sorted --> copied, COPIES_MAX at a time --> all tried --> none left
 *                    ^                                                    |
 *                    +---- there were more than fit, or a copy failed ----+
 *
 * A drain (store/master_copy.c) has all the time there is, moves everything and makes room by
 * evicting; who leaves has some seconds. So the order decides: hard-pinned values first, then those
 * read last. Only for a pinned one is something else evicted. What the node keeps on its disk is
 * not moved, it comes back with it; nor is what another node has, which is copied from there when
 * the number of replicas is mended. Copies go past the list of work, which is in no order.
 *
 * Limits: LEAVE_MAX values are collected at a time, of any number. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/master_int.h"

enum {
    LEAVE_MAX = 1 << 16,
    LEAVE_LOOKS_MAX = 256, /* tried in one turn */
    AGAIN_MS = 500,        /* from one collection to the next */
    PINNED_ROUNDS = 6,     /* collections in which pinned values wait for room */
};

struct candidate {
    struct block_key id;
    uint64_t used; /* the end of its last lease */
    bool hard;
};

struct leave {
    uint64_t keeps_max;
    struct candidate *list; /* LEAVE_MAX of them; while collected a heap with the least on top */
    uint32_t count;
    uint32_t next;    /* to be tried */
    bool more;        /* than fit the list */
    uint32_t rounds;  /* collections */
    uint32_t started; /* copies, since the last collection */
    uint32_t waiting; /* whose copy failed, and is tried again later */
    uint64_t stranded;
    uint64_t again_ns; /* not collected before */
    bool over;
};

void master_leave_end(struct member *member)
{
    if (member->leave != NULL) free(member->leave->list);
    free(member->leave);
    member->leave = NULL;
}

/* ---- what is to go, in order ---- */

static bool goes_before(const struct candidate *a, const struct candidate *b)
{
    return a->hard != b->hard ? a->hard : a->used > b->used;
}

static int by_order(const void *a, const void *b)
{
    if (goes_before(a, b)) return -1;
    return goes_before(b, a) ? 1 : 0;
}

/* Restores the heap below `at`. */
static void sift_down(struct candidate *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
            if (goes_before(&heap[least], &heap[child])) least = child;
        }
        if (least == at) return;
        const struct candidate moved = heap[at];
        heap[at] = heap[least];
        heap[least] = moved;
        at = least;
    }
}

/* Whether the value is nowhere but at the member, in memory that goes with it. */
static bool is_only_at(const struct store_master *master, const struct entry *entry,
                       const struct member *member)
{
    bool here = false;
    if (master_entry_block(entry) || entry->removing) return false;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        const struct member *owner = master_member_with(master, r);
        if (!master_replica_readable(master, r)) continue;
        if (owner != member && !owner->draining) return false;
        here = here || (owner == member && !r->disk);
    }
    return here && entry->size > member->leave->keeps_max;
}

static void offer(struct leave *leave, const struct candidate *candidate)
{
    if (leave->count < LEAVE_MAX) {
        leave->list[leave->count++] = *candidate;
        if (leave->count < LEAVE_MAX) return;
        for (uint32_t i = LEAVE_MAX / 2; i-- > 0;)
            sift_down(leave->list, LEAVE_MAX, i);
        return;
    }
    leave->more = true;
    if (!goes_before(candidate, &leave->list[0])) return;
    leave->list[0] = *candidate;
    sift_down(leave->list, LEAVE_MAX, 0);
}

static void collect(const struct store_master *master, uint64_t now_ns, const struct member *member)
{
    struct leave *leave = member->leave;
    leave->count = leave->next = leave->started = leave->waiting = 0;
    leave->rounds++;
    leave->stranded = 0;
    leave->more = false;
    leave->again_ns = now_ns + master_ms(AGAIN_MS);
    for (const struct replica *r = master_replica_at(master, member->replicas); r != NULL;
         r = master_replica_at(master, r->next_of_member)) {
        const struct entry *entry = master_entry_with(master, r);
        if (!is_only_at(master, entry, member)) continue;
        const struct candidate candidate = { entry->id, entry->lease_until,
                                             master_entry_hard(entry) };
        offer(leave, &candidate);
    }
    qsort(leave->list, leave->count, sizeof(*leave->list), by_order);
}

/* ---- turns ---- */

static void leave_try(struct store_master *master, uint64_t now_ns, const struct member *member,
                      const struct candidate *candidate)
{
    struct leave *leave = member->leave;
    struct entry *entry = master_entry_find(master, &candidate->id);

    if (entry == NULL || !is_only_at(master, entry, member)) return;
    if (entry->ticket != 0 || master_entry_extra(entry) == NULL) { /* it is on its way somehow */
        leave->waiting++;
    } else if (now_ns < entry->extra->copy_after) {
        leave->waiting++;
    } else if (master_copy_start(master, now_ns, entry,
                                 candidate->hard ? COPY_MAKE_ROOM : COPY_ROOM)) {
        leave->started++;
    } else if (candidate->hard && leave->rounds < PINNED_ROUNDS) {
        leave->waiting++; /* room is being made */
    } else {
        leave->stranded++;
    }
}

static void leave_run(struct store_master *master, uint64_t now_ns, struct member *member)
{
    struct leave *leave = member->leave;

    for (int looks = 0; looks < LEAVE_LOOKS_MAX && leave->next < leave->count; looks++) {
        if (!master_copies_may_start(master)) return;
        leave_try(master, now_ns, member, &leave->list[leave->next++]);
    }
    if (leave->over || leave->next < leave->count || member->copies_from > 0) return;
    if (!leave->more && leave->started == 0 && leave->waiting == 0) {
        leave->over = true;
    } else if (now_ns >= leave->again_ns || leave->more) {
        collect(master, now_ns, member);
    }
}

void master_leaves_run(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        if (master->by_age[i]->leave != NULL) leave_run(master, now_ns, master->by_age[i]);
    }
}

enum status store_master_unmount(struct store_master *master, uint64_t now_ns, const char *name,
                                 uint64_t keeps_max, struct store_unmounting *out)
{
    struct member *member = master_member_find(master, name);
    if (member == NULL) return STATUS_NOT_FOUND;
    if (member->leave == NULL) {
        struct leave *leave = calloc(1, sizeof(*leave));
        struct candidate *list = calloc(LEAVE_MAX, sizeof(*list));
        if (leave == NULL || list == NULL) {
            free(leave);
            free(list);
            return STATUS_FULL;
        }
        *leave = (struct leave){ .keeps_max = keeps_max, .list = list };
        member->leave = leave;
        member->draining = true;
        collect(master, now_ns, member);
    }
    master_copies_run(master, now_ns);
    const struct leave *leave = member->leave;
    out->left = leave->over ? 0 : leave->count - leave->next + member->copies_from + 1;
    out->stranded = leave->stranded;
    return STATUS_OK;
}
