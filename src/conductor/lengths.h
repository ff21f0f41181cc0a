/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/lengths.h - how long answers are, learned per class of requests, and who had how much.
 *
 * A class is a tenant, a route and an application. Its answers form a histogram over lengths with
 * four buckets to an octave, in which older answers count less. A class that has said little leans
 * on the histogram of everybody, which itself starts from a guess. Tenants are charged the tokens
 * they were given, which also fades.
 *
 * Memory:  all allocated by lengths_create().
 * Threads: belongs to one thread at a time.
 * Limits:  LENGTHS_CLASSES_MAX classes and as many tenants; later ones share class 0. Answers
 *          beyond LENGTHS_TOKENS_MAX tokens count as that long. */
#ifndef CONDUCTOR_LENGTHS_H
#define CONDUCTOR_LENGTHS_H

#include <stdint.h>

#include "base/status.h"

enum { LENGTHS_CLASSES_MAX = 256, LENGTHS_TOKENS_MAX = (1 << 20) - 1 };

struct lengths; /* opaque */

MUST_USE enum status lengths_create(struct lengths **out);
void lengths_destroy(struct lengths *lengths); /* NULL is allowed */
uint64_t lengths_bytes(void);

/* The class of this tenant, route (NULL: none) and application (0: none), made when it is new. */
uint32_t lengths_class(struct lengths *lengths, const char *tenant, const char *route,
                       uint64_t app);

/* An answer of this class ended by itself after so many tokens. */
void lengths_learn(struct lengths *lengths, uint32_t class_index, uint32_t tokens);

/* The probability that an answer is longer than this: 1 or less, never rising with tokens. */
double lengths_survival(const struct lengths *lengths, uint32_t class_index, uint32_t tokens);

/* The least length that a share q of answers does not exceed; 0 <= q < 1. */
uint32_t lengths_quantile(const struct lengths *lengths, uint32_t class_index, double q);

/* Mean length of an answer that may not be longer than `max`. */
double lengths_mean(const struct lengths *lengths, uint32_t class_index, uint32_t max);

/* The tenant of this class was given so many tokens. */
void lengths_charge(struct lengths *lengths, uint32_t class_index, uint32_t tokens);

/* What its tenant has had lately, over what an even share among the tenants would be; 1 is fair. */
double lengths_share(const struct lengths *lengths, uint32_t class_index);

#endif
