/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_trust.c - see the header.
 */
#include "store/node_trust.h"

#include "base/env.h"
#include "store/master.h"

_Static_assert((int)NODE_DOUBT_MS < (int)STORE_DOUBT_MS,
               "the owner doubts before the master counts on it");

bool node_trust_doubts(const struct node_trust *trust, uint64_t now_ns)
{
    if (trust->doubt) return true;
    return trust->heard_ns != 0 && now_ns >= trust->heard_ns + NODE_DOUBT_MS * ENV_NS_PER_MS;
}

void node_trust_heard(struct node_trust *trust, uint64_t sent_ns)
{
    const bool gap =
        trust->heard_ns == 0 || sent_ns >= trust->heard_ns + NODE_DOUBT_MS * ENV_NS_PER_MS;

    trust->doubt = node_trust_doubts(trust, sent_ns);
    if (gap) trust->since_ns = sent_ns;
    if (sent_ns > trust->heard_ns) trust->heard_ns = sent_ns;
    if (trust->heard_ns >= trust->since_ns + NODE_TRUST_MS * ENV_NS_PER_MS) trust->doubt = false;
}

void node_trust_found(struct node_trust *trust)
{
    trust->doubt = true;
}
