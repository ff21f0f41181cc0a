/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_trust.c - see the header.
 */
#include "store/node_trust.h"

#include "base/env.h"
#include "store/master.h"

_Static_assert((int)NODE_DOUBT_MS < (int)STORE_DOUBT_MS,
               "the owner doubts before the master counts on it");

static bool out_of_touch(const struct node_trust *trust, uint64_t now_ns)
{
    return trust->heard_ns != 0 && now_ns >= trust->heard_ns + NODE_DOUBT_MS * ENV_NS_PER_MS;
}

bool node_trust_doubts(const struct node_trust *trust, uint64_t term, uint64_t now_ns)
{
    return trust->doubt || term < trust->below || out_of_touch(trust, now_ns);
}

static bool for_long(const struct node_trust *trust)
{
    return trust->heard_ns >= trust->since_ns + NODE_TRUST_MS * ENV_NS_PER_MS;
}

/* Between this master and the one before there was time for one that had settled. */
static bool may_have_missed(const struct node_trust *trust, uint64_t term, uint64_t sent_ns)
{
    return trust->heard_ns != 0 && term != trust->term &&
           sent_ns >= trust->heard_ns + NODE_VOUCH_MS * ENV_NS_PER_MS;
}

void node_trust_heard(struct node_trust *trust, uint64_t term, uint64_t sent_ns)
{
    const bool gap = trust->heard_ns == 0 || out_of_touch(trust, sent_ns);

    trust->left = false;
    trust->doubt = trust->doubt || out_of_touch(trust, sent_ns);
    if (term != trust->term && !for_long(trust)) trust->below = trust->term;
    if (may_have_missed(trust, term, sent_ns)) trust->below = term;
    if (gap || term != trust->term) trust->since_ns = sent_ns;
    trust->term = term;
    if (sent_ns > trust->heard_ns) trust->heard_ns = sent_ns;
    if (!for_long(trust)) return;
    trust->doubt = false;
    trust->below = 0;
}

void node_trust_left(struct node_trust *trust)
{
    trust->left = true;
}

void node_trust_quiet(struct node_trust *trust, uint64_t now_ns)
{
    trust->quiet_until_ns = now_ns + NODE_QUIET_MS * ENV_NS_PER_MS;
}

bool node_trust_vouches(const struct node_trust *trust, uint64_t now_ns)
{
    if (trust->left || trust->heard_ns == 0 || node_trust_doubts(trust, 0, now_ns)) return false;
    if (now_ns < trust->quiet_until_ns) return false;
    return now_ns < trust->heard_ns + NODE_VOUCH_MS * ENV_NS_PER_MS;
}

uint64_t node_trust_vouches_until(const struct node_trust *trust, uint64_t now_ns)
{
    if (!node_trust_vouches(trust, now_ns)) return 0;
    return trust->heard_ns + NODE_VOUCH_MS * ENV_NS_PER_MS;
}

void node_trust_found(struct node_trust *trust)
{
    trust->doubt = true;
}
