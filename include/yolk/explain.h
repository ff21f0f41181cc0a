/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/explain.h - what else a decision could have been, what it would have cost, and why cached
 * blocks were missed.
 *
 * Candidates. With each decision the best few prefill and decode instances are kept: the chosen one
 * and behind it, best first, those that come next by predicted cost, with the numbers of that.
 * (Under a placement policy that does not look at costs these are what it passed over.)
 *
 * Regret is the time to first token that the choice cost beyond the best of those candidates, with
 * what is known when the request has ended:
 *
 *     regret = max(0, actual - min over the other candidates i of hindsight_i)
 *     hindsight_i = until all who stood before it at i at the time of the decision had left
 *                 + transfer and prefill there, of the same reuse, by the cost model as it is now
 *                 + what was predicted for having those blocks beside moving them
 *
 * `actual` is measured from placement to the end of prefill. A candidate whose queue had not
 * drained by the end of the request, or which has left the cluster, would not have been better and
 * is infinitely dear. Each candidate is judged alone, with everybody else where he really was; who
 * leaves a queue from behind counts for one who stood before (as for refusals). The rest is model
 * error: a regret below the spread of the model at that candidate is noise, and only one above is
 * counted as `wrong`. A request that never ended its prefill has no regret.
 *
 * So for the decode instance, by the time between tokens. `actual` is the mean of the request from
 * the moment it began to decode (with a door: came in) to its end, and
 *
 *     hindsight_i = a step there, by the cost model as it is now, of what instance i decoded on the
 *                   mean over that time, and of this sequence at its mean length
 *
 * Only a request that ended well after two tokens or more is judged. A prompt that was computed
 * beside steps is in `actual`, and not in the hindsight of the others.
 *
 * Misses. Of a prompt's full blocks that may be reused, those not reused are told apart, each block
 * under one reason. What a key hides cannot be read back from it: keys are hashes over layout, salt
 * and tokens together. So a caller may describe the prompt besides (struct yolk_prompt), and blocks
 * are looked up in three bounded memories: names of blocks that somebody once held and nobody holds
 * now; token prefixes that were asked for, with the layout and salt they were asked under; texts of
 * conversations, with the tokens they became. From the front of the prompt to its end:
 *
 *     declined    somebody holds it, and computing it was predicted to be faster than fetching
 *     evicted     somebody held this very block, and nobody does any more
 *     pending     these tokens were asked for in this shape before, and nobody was heard to hold
 *                 them: still being computed, or never stored
 *     layout      these tokens came before under another layout (model, element, block size, shard)
 *     salt        these tokens came before under another salt
 *     template    the same messages came before and became other tokens
 *     never_seen  none of these
 *
 * and for blocks that were predicted to be reused and were not, what the prefill instance said:
 *
 *     evicted     it was gone when it was asked for (also when the instance does not say)
 *     timeout     it did not come in time
 *     failed      it came broken, or its holder could not be reached
 *
 * What cannot be told: a prompt that a client renders by itself differently each time is
 * never_seen; without struct yolk_prompt so are pending, layout, salt and template. Memories are
 * searched by halves and forget the oldest, so that a count may be short, and then shows as
 * never_seen.
 *
 * Alarm. Over the last YOLK_HITS_WINDOW prefills that a hit was predicted for: raised when fewer
 * than half of the predicted blocks were reused, lowered when four in five are again.
 *
 * Threads and memory: those of the conductor. */
#ifndef YOLK_EXPLAIN_H
#define YOLK_EXPLAIN_H

#include "yolk/conductor.h"

/* ---- what the caller may add to a request ---- */

/* Optional in struct yolk_place_request; borrowed for the call. */
struct yolk_prompt {
    /* One per key: yolk_prefix_next() over all tokens up to the end of that block. NULL: unknown;
     * the rest is then not looked at. */
    const uint64_t *prefixes;
    uint64_t layout; /* names everything but tokens and salt that the keys cover */
    uint64_t salt;   /* names the salt; 0 for none */
    /* The conversation as the client sent it, its latest few beginnings: the last names all its
     * messages, the one before it all but the last message, and so on. May be none. */
    const uint64_t *texts;
    uint32_t texts_count;
    uint32_t text_blocks; /* leading full blocks that the last text decides alone */
};

enum { YOLK_PREFIX_ROOT = 0 };

/* The name of `parent`'s tokens and these behind them, in any cut: YOLK_PREFIX_ROOT names none. For
 * telling shapes apart, not for finding blocks: it is no cryptographic hash. */
uint64_t yolk_prefix_next(uint64_t parent, const uint32_t *tokens, size_t count);
/* The same for bytes of text. */
uint64_t yolk_text_next(uint64_t parent, const void *text, size_t len);

/* ---- what was decided, and what came of it ---- */

enum yolk_miss {
    YOLK_MISS_DECLINED,
    YOLK_MISS_EVICTED,
    YOLK_MISS_PENDING,
    YOLK_MISS_LAYOUT,
    YOLK_MISS_SALT,
    YOLK_MISS_TEMPLATE,
    YOLK_MISS_NEVER_SEEN,
    YOLK_MISS_TIMEOUT,
    YOLK_MISS_FAILED,
};
enum { YOLK_MISSES = 9 };
const char *yolk_miss_name(enum yolk_miss miss);

enum { YOLK_CANDIDATES = 4, YOLK_HITS_WINDOW = 64 };

struct yolk_prefill_candidate {
    char name[YOLK_NAME_SIZE];
    char holder_name[YOLK_NAME_SIZE]; /* it would have fetched from; "" for nobody */
    uint32_t reuse_blocks;
    double queue_ms, transfer_ms, compute_ms, ttft_ms; /* predicted */
    uint64_t
        samples; /* that the cost model of this instance rests on; 0: a guess, or the profile */
    double hindsight_ms; /* the first: actual. Negative while unknown; INFINITY: not better */
};

struct yolk_decode_candidate {
    char name[YOLK_NAME_SIZE];
    uint32_t sequences; /* there already */
    uint64_t context_tokens;
    uint64_t samples;    /* as above */
    double tbt_ms;       /* predicted */
    double hindsight_ms; /* the first: actual. Negative while unknown; INFINITY: it has left */
};

struct yolk_explanation {
    uint32_t prefill_count, decode_count; /* [0] was chosen */
    struct yolk_prefill_candidate prefill[YOLK_CANDIDATES];
    struct yolk_decode_candidate decode[YOLK_CANDIDATES];
    double regret_ms;        /* negative while unknown, or never known */
    double regret_spread_ms; /* of the model at the best alternative: below it, regret is noise */
    double tbt_regret_ms, tbt_regret_spread_ms; /* the same of the time between tokens */
    uint32_t reusable_blocks;  /* full blocks of the prompt that could be reused; 0: reuse is off */
    uint32_t predicted_blocks; /* that the decision counted on */
    int64_t realised_blocks;   /* that were reused; negative while unknown */
    /* Sums to reusable - realised, or while that is unknown to reusable - predicted. */
    uint32_t missed[YOLK_MISSES];
};

/* Of the `age`-th latest decision, as yolk_conductor_decision(). */
bool yolk_conductor_explanation(const struct yolk_conductor *conductor, uint32_t age,
                                struct yolk_explanation *out);

/* The prefill instance says why blocks that were predicted could not be reused: EVICTED, TIMEOUT or
 * FAILED. Before yolk_conductor_prefill_done(), without it they count as EVICTED; or before
 * yolk_conductor_finish() of a request whose prefill could not even begin without them. */
void yolk_conductor_missed(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                           enum yolk_miss why);

/* A prompt that is known to the cluster in this shape without having been asked for: a conversation
 * with the answer to it. */
void yolk_conductor_note_prompt(struct yolk_conductor *conductor, const struct yolk_prompt *prompt,
                                uint32_t blocks);

/* The new conductor takes over what the old one has seen of prompts, so that a change of layout is
 * told from a prompt never seen; block sizes must be equal for that. The old one starts anew. */
void yolk_conductor_inherit(struct yolk_conductor *conductor, struct yolk_conductor *old);

/* What the regret of this request would be if it ended now; negative if unknown. Its prefill has
 * ended, and its ticket not. */
double yolk_conductor_regret(const struct yolk_conductor *conductor, struct yolk_ticket ticket);

/* The same of the time between its tokens. */
double yolk_conductor_tbt_regret(const struct yolk_conductor *conductor, struct yolk_ticket ticket,
                                 double now_ms);

struct yolk_explain_stats {
    uint64_t judged, wrong;         /* requests with a regret; of them, those beyond noise */
    double regret_ms;               /* of all judged */
    uint64_t tbt_judged, tbt_wrong; /* the same of the time between tokens */
    double tbt_regret_ms;
    /* Blocks of prefills that have ended. kept: predicted, and reused. */
    uint64_t reusable_blocks, predicted_blocks, kept_blocks, realised_blocks;
    uint64_t missed[YOLK_MISSES];
    /* The window of the alarm. */
    uint32_t window_requests;
    uint64_t window_predicted, window_kept;
    enum yolk_miss window_why; /* the most frequent reason of its shortfall; EVICTED if none */
    bool alarm;
    uint64_t alarms; /* raised, ever */
    uint64_t bytes;  /* memory of all this; part of that of the conductor */
};
void yolk_conductor_explain_stats(const struct yolk_conductor *conductor,
                                  struct yolk_explain_stats *out);

#endif
