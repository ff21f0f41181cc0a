/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/apps.c - the counts.
 *
 * Invariants
 *   I1  a name is there at most once, and only with a count above 0.
 *   I2  the counts together are at most prompts. */
#include "conductor/apps.h"

#include <assert.h>
#include <string.h>

#include "base/assert.h"

static const double KEEP = 0.999;  /* of all counts, per prompt */
static const double SHARE = 0.05;  /* of prompts, from which on a beginning is an application */
static const double PROMPTS = 100; /* so many are seen before any is */

static uint64_t name_of(const struct block_key *first)
{
    uint64_t name;
    static_assert(sizeof(name) <= BLOCK_KEY_SIZE, "a name is the front of a key");
    memcpy(&name, first->bytes, sizeof(name));
    return name != 0 ? name : 1;
}

static void fade(struct apps *apps)
{
    apps->prompts *= KEEP;
    for (int i = 0; i < APPS_MAX; i++)
        apps->blocks[i].count *= KEEP;
}

static void take_one_off(struct apps *apps)
{
    for (int i = 0; i < APPS_MAX; i++) {
        ASSERT(apps->blocks[i].name != 0 && apps->blocks[i].count > 0); /* I1 */
        apps->blocks[i].count -= 1;
        if (apps->blocks[i].count > 0) continue;
        apps->blocks[i].name = 0;
        apps->blocks[i].count = 0;
    }
}

void apps_note(struct apps *apps, const struct block_key *first)
{
    const uint64_t name = name_of(first);
    int at = -1;

    fade(apps);
    apps->prompts += 1;
    for (int i = 0; i < APPS_MAX; i++) {
        if (apps->blocks[i].name == name) {
            apps->blocks[i].count += 1;
            return;
        }
        if (at < 0 && apps->blocks[i].name == 0) at = i;
    }
    if (at < 0) {
        take_one_off(apps);
        return;
    }
    apps->blocks[at].name = name;
    apps->blocks[at].count = 1;
}

uint64_t apps_name(const struct apps *apps, const struct block_key *first)
{
    const uint64_t name = name_of(first);

    for (int i = 0; i < APPS_MAX; i++) {
        if (apps->blocks[i].name != name) continue;
        ASSERT(apps->blocks[i].count <= apps->prompts * (1 + 1e-9)); /* I2 */
        return apps->prompts >= PROMPTS && apps->blocks[i].count >= SHARE * apps->prompts ? name
                                                                                          : 0;
    }
    return 0;
}
