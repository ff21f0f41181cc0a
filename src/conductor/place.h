/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/place.h - Algorithm 1: one request, the candidates, and the best choice among them.
 *
 * A pure function of its input. For each prefill candidate i with hit_i cached blocks there are up
 * to three ways: compute all but its own hits; or first fetch from the best holder on the same
 * host, or from the best one across the network, if that holder has more than theta * hit_i blocks
 * and fetching is predicted to be cheaper than computing. Why these few suffice: on one path,
 * moving a block costs the same wherever it is, while computing costs more the later the block; so
 * fetching the longest prefix on a path, or nothing, beats every choice between. The test compares
 * with the search over all holders and all lengths. Where holders are not alike (`uneven`) there
 * are more ways, and conductor/ways.h finds the best of them.
 *
 * Under YOLK_PLACEMENT_LOCAL nothing is fetched; under the policies of choose.h the instances are
 * chosen there, and what is left here is to say what the choice will cost.
 *
 * A candidate of both roles that is chosen to prefill decodes as well, if it has room.
 *
 * Cost: O(prefill + decode + holders). Memory: the caller's. Threads: any. */
#ifndef CONDUCTOR_PLACE_H
#define CONDUCTOR_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "conductor/cost.h"
#include "conductor/profile.h"
#include "yolk/conductor.h"

struct conductor_prefill_candidate {
    uint32_t instance;
    uint32_t host; /* below hosts_max */
    uint32_t hit_blocks;
    uint32_t queued; /* requests */
    double queue_ms;
    const struct conductor_fit *fit;
    uint32_t slow_blocks; /* of hit_blocks, how many at the end are on SSD */
    bool both;            /* decodes what it prefills, where it has room for that */
};

struct conductor_decode_candidate {
    uint32_t instance;
    uint32_t sequences;
    uint64_t context_tokens;
    const struct conductor_fit *fit;
};

struct conductor_holder {
    uint32_t instance;
    uint32_t host;
    uint32_t blocks;      /* leading blocks it has; 0 is allowed */
    uint32_t slow_blocks; /* of them, how many at the end are on SSD */
    double busy_ms;       /* until what it is sending already is through */
};

struct conductor_place_input {
    const struct conductor_prefill_candidate *prefill; /* at least one */
    uint32_t prefill_count;
    const struct conductor_decode_candidate *decode; /* at least one; those with room */
    uint32_t decode_count;
    struct conductor_holder *holders;
    uint32_t holders_count;
    uint32_t *on_host; /* scratch: hosts_max entries; positions in holders */
    uint32_t *next;    /* scratch: one for each holder; the same */
    uint32_t hosts_max;
    const struct conductor_fit *transfer; /* [CONDUCTOR_PATHS]: same host, network */
    const struct conductor_fit *load;     /* from SSD; NULL: nobody has anything there */
    bool uneven;     /* some have blocks on SSD, or are busy sending: conductor/ways.h */
    uint32_t tokens; /* at least 1 */
    uint32_t block_tokens;
    uint64_t block_size;
    double theta;
    enum yolk_placement placement;
    uint64_t draw; /* of conductor_choose() */
};

#define CONDUCTOR_NO_HOLDER UINT32_MAX

/* The best few of either kind, for whoever asks later what else there was. */
enum { CONDUCTOR_RANKED = 4 };

struct conductor_ranked_prefill {
    uint32_t position;   /* in input->prefill */
    uint32_t holder;     /* instance to fetch from, or CONDUCTOR_NO_HOLDER */
    uint32_t own_blocks; /* of reuse_blocks, those that are not fetched */
    uint32_t reuse_blocks;
    bool near; /* the holder is on the same host */
    double queue_ms, transfer_ms, compute_ms, ttft_ms;
};

struct conductor_ranked_decode {
    uint32_t position; /* in input->decode */
    double tbt_ms;
};

struct conductor_place_output {
    uint32_t prefill;                  /* position in input->prefill */
    uint32_t decode;                   /* position in input->decode */
    uint32_t holder;                   /* instance to fetch from, or CONDUCTOR_NO_HOLDER */
    uint32_t own_blocks, reuse_blocks; /* not fetched; not computed */
    uint32_t best_blocks;              /* of any holder or candidate */
    bool coupled;                      /* one instance, of both roles, is prefill and decode */
    double queue_ms, transfer_ms, compute_ms, ttft_ms, tbt_ms;
    /* At least one of each: first the choice above, then the best of the others. */
    struct conductor_ranked_prefill ranked_prefill[CONDUCTOR_RANKED];
    struct conductor_ranked_decode ranked_decode[CONDUCTOR_RANKED];
    uint32_t ranked_prefill_count, ranked_decode_count;
};

/* Blocks of a prompt that may be reused: the last token is always computed. */
uint32_t conductor_reusable_blocks(uint32_t tokens, uint32_t block_tokens);

void conductor_place(const struct conductor_place_input *input, struct conductor_place_output *out);

#endif
