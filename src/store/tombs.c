/* SPDX-License-Identifier: Apache-2.0 */
#include "store/tombs.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct tomb {
    uint32_t mark;    /* of the key */
    uint32_t version; /* 0: free */
};

void tombs_fini(struct tombs *tombs)
{
    free(tombs->list);
    tombs->list = NULL;
}

/* Its set, and its mark. The identity is a digest, or was chosen by whoever gains nothing by it. */
static struct tomb *set_of(const struct tombs *tombs, const struct block_key *id, uint32_t *mark)
{
    uint64_t words[2];
    memcpy(words, id->bytes, sizeof(words));
    *mark = (uint32_t)(words[1] ^ words[1] >> 32);
    const uint64_t mixed = (words[0] ^ words[1]) * UINT64_C(0x9e3779b97f4a7c15);
    return tombs->list + mixed % (TOMBS_KEYS_MAX / TOMBS_WAYS) * TOMBS_WAYS;
}

void tombs_raise(struct tombs *tombs, const struct block_key *id, uint32_t version)
{
    uint32_t mark;
    uint32_t way = 0;

    if (version == 0) return;
    if (tombs->list == NULL) tombs->list = calloc(TOMBS_KEYS_MAX, sizeof(*tombs->list));
    if (tombs->list == NULL) {
        LOG_WARN("store", "removal_not_remembered", "reason=\"out of memory\"");
        return;
    }
    struct tomb *set = set_of(tombs, id, &mark);
    while (way < TOMBS_WAYS - 1 && set[way].version != 0 && set[way].mark != mark)
        way++;
    if (set[way].version != 0 && set[way].mark == mark && set[way].version > version) {
        version = set[way].version;
    }
    memmove(set + 1, set, way * sizeof(*set));
    set[0] = (struct tomb){ mark, version };
}

uint32_t tombs_floor(const struct tombs *tombs, const struct block_key *id)
{
    uint32_t mark;

    if (tombs->list == NULL) return 0;
    const struct tomb *set = set_of(tombs, id, &mark);
    for (uint32_t way = 0; way < TOMBS_WAYS && set[way].version != 0; way++) {
        if (set[way].mark == mark) return set[way].version;
    }
    return 0;
}
