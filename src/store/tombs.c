/* SPDX-License-Identifier: Apache-2.0 */
#include "store/tombs.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"

enum { MARK_BITS = 24 };

struct tomb {
    uint32_t mark : MARK_BITS; /* of the key */
    uint32_t term : 8;         /* its place in the list of terms + 1; 0: not known */
    uint32_t version;          /* free: this and the term are 0 */
};

_Static_assert(sizeof(struct tomb) == 8 && TOMBS_TERMS_MAX < 1 << 8, "half a million of them");

static bool is_free(const struct tomb *tomb)
{
    return tomb->version == 0 && tomb->term == 0;
}

static struct rank rank_kept(const struct tombs *tombs, const struct tomb *tomb)
{
    return (struct rank){ tomb->term == 0 ? 0 : tombs->terms[tomb->term - 1], tomb->version };
}

/* Its place in the list + 1, made if need be; 0: one too many. */
static uint32_t term_place(struct tombs *tombs, uint64_t term)
{
    uint32_t i = 0;
    if (term == 0) return 0;
    while (i < tombs->terms_count && tombs->terms[i] != term)
        i++;
    if (i == TOMBS_TERMS_MAX) return 0;
    if (i == tombs->terms_count) tombs->terms[tombs->terms_count++] = term;
    return i + 1;
}

void tombs_fini(struct tombs *tombs)
{
    free(tombs->list);
    tombs->list = NULL;
}

/* Its set, and its mark. The identity is a digest, or the key itself, of 16 bytes, and chosen by
 * whoever gains nothing by a collision. */
static struct tomb *set_of(const struct tombs *tombs, const struct block_key *id, uint32_t *mark)
{
    uint64_t words[2];
    memcpy(words, id->bytes, sizeof(words));
    const uint64_t mixed = rng_counter(words[0], words[1]);
    *mark = (uint32_t)(mixed >> (64 - MARK_BITS));
    return tombs->list + mixed % (TOMBS_KEYS_MAX / TOMBS_WAYS) * TOMBS_WAYS;
}

void tombs_raise(struct tombs *tombs, const struct block_key *id, struct rank rank)
{
    uint32_t mark;
    uint32_t way = 0;

    const uint32_t term = term_place(tombs, rank.term);
    if (rank.version == 0 && term == 0) return;
    if (tombs->list == NULL) tombs->list = calloc(TOMBS_KEYS_MAX, sizeof(*tombs->list));
    if (tombs->list == NULL) {
        LOG_WARN("store", "removal_not_remembered", "reason=%s", "out of memory");
        return;
    }
    struct tomb *set = set_of(tombs, id, &mark);
    while (way < TOMBS_WAYS - 1 && !is_free(&set[way]) && set[way].mark != mark)
        way++;
    const struct rank before = rank_kept(tombs, &set[way]);
    const struct tomb raised = { mark & ((1u << MARK_BITS) - 1), term & UINT8_MAX, rank.version };
    const bool lower = set[way].mark == mark && rank_compare(before, rank) > 0;
    const struct tomb kept = lower ? set[way] : raised;
    memmove(set + 1, set, way * sizeof(*set));
    set[0] = kept;
}

struct rank tombs_floor(const struct tombs *tombs, const struct block_key *id)
{
    uint32_t mark;

    if (tombs->list == NULL) return (struct rank){ 0 };
    const struct tomb *set = set_of(tombs, id, &mark);
    for (uint32_t way = 0; way < TOMBS_WAYS && !is_free(&set[way]); way++) {
        if (set[way].mark == mark) return rank_kept(tombs, &set[way]);
    }
    return (struct rank){ 0 };
}
