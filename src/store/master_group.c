/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_group.c - values that are kept, and go, together: a list a group, linked through
 * what entries keep of their wishes. A group lives as long as it has a member.
 */
#include "store/master_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/map.h"

/* Two tenants' groups of one number are two. */
static struct block_key group_key(const struct entry *entry)
{
    struct block_key key = { { 0 } };
    const uint64_t id = entry->extra->attributes.group;
    const uint32_t tenant = entry->tenant;
    memcpy(key.bytes, &id, sizeof(id));
    memcpy(key.bytes + sizeof(id), &tenant, sizeof(tenant));
    return key;
}

static struct group *group_find(struct store_master *master, const struct entry *entry)
{
    const struct block_key key = group_key(entry);
    uint64_t value;

    if (map_find(master->groups, &key, &value)) return (struct group *)(uintptr_t)value;
    struct group *group = calloc(1, sizeof(*group));
    if (group == NULL) return NULL;
    group->id = key;
    if (map_insert(master->groups, &key, (uint64_t)(uintptr_t)group) == STATUS_OK) return group;
    free(group);
    return NULL;
}

void master_group_join(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    ASSERT(extra->group == NULL);
    if (extra->attributes.group == 0) return;
    struct group *group = group_find(master, entry);
    if (group == NULL || group->count == STORE_GROUP_MAX) return;

    extra->group = group;
    extra->group_prev = NULL;
    extra->group_next = group->members;
    if (group->members != NULL) group->members->extra->group_prev = entry;
    group->members = entry;
    group->count++;
}

void master_group_leave(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    if (extra == NULL || extra->group == NULL) return;
    struct group *group = extra->group;

    if (extra->group_prev == NULL) {
        ASSERT(group->members == entry);
        group->members = extra->group_next;
    } else {
        extra->group_prev->extra->group_next = extra->group_next;
    }
    if (extra->group_next != NULL) extra->group_next->extra->group_prev = extra->group_prev;
    extra->group = NULL;
    if (--group->count > 0) return;
    const bool was_there = map_remove(master->groups, &group->id, NULL);
    ASSERT(was_there);
    free(group);
}
