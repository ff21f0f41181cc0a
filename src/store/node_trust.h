/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_trust.h - whether what a node holds may have been replaced without its knowing.
 *
 * A put that replaces is acknowledged when every owner of the old value has dropped it, or has been
 * silent for so long that it doubts what it has (STORE_DOUBT_MS of store/master.h). This is the
 * owner's side of that promise: it reckons from when it sent what the master answered last, so it
 * begins to doubt before the master counts on it. A master that has just started serves what is in
 * doubt only when it has heard everybody else.
 *
 *                out of touch for NODE_DOUBT_MS, or found on disk
 *   (trusted) ---------------------------------------------------> (in doubt)
 *        ^                                                             |
 *        +-------------------------------------------------------------+
 *             in touch with one master for NODE_TRUST_MS, all along
 *
 * The second edge is safe because by then that master has heard who there is, and has had what was
 * replaced dropped. A node that comes later than that with a newer value is the limit: until its
 * announcement the old one is served.
 *
 * A master does not wait for nodes that it has never heard before it acknowledges a put. What such
 * a node has of earlier terms may have been replaced, which this master knows, and no other. So if
 * the node is in touch with it for less than NODE_TRUST_MS, which is time to have what was replaced
 * dropped, it tells the next master that values of terms before are in doubt (`below`).
 *
 * Such a master may also have come and gone without the node's hearing of it, between two whose
 * answers it has. It acknowledged nothing before it had settled: if there was no time for that, it
 * replaced nothing, else what the node has of terms before is in doubt, likewise.
 *
 * A client that was told by the master who has a value comes to that owner again for STORE_KNOWN_MS
 * (store/proto.h) without asking the master. The owner vouches for what it has only if
 *
 *   - it does not doubt it: nothing was acknowledged in its place that it has not dropped;
 *   - it was in touch less than NODE_VOUCH_MS ago: a master that knows nothing of it, and lets
 *     others put under its keys, settles later than that after the last one it was in touch with;
 *     by when it is in touch with the new one, nobody remembers what the old one said;
 *   - it has nothing that it was told to drop and could not, which may be removed by now.
 *
 * Threads: the env's loop thread. */
#ifndef STORE_NODE_TRUST_H
#define STORE_NODE_TRUST_H

#include <stdbool.h>
#include <stdint.h>

enum {
    NODE_DOUBT_MS = 8000, /* less than STORE_DOUBT_MS by what clocks may differ in that time */
    NODE_TRUST_MS = 30000,
    NODE_VOUCH_MS = 1500, /* less than a master takes to settle */
    NODE_QUIET_MS = 10000,
};

struct node_trust {
    uint64_t heard_ns; /* when that was sent which a master has answered last; 0: none yet */
    uint64_t since_ns; /* since when it has been in touch with that master */
    uint64_t term;     /* of it */
    uint64_t below;    /* values of terms below are in doubt: their master had us for too short */
    bool doubt;        /* all are */
    uint64_t quiet_until_ns; /* it vouches for nothing until then */
    bool left;
};

/* The master of this term has answered what was sent at `sent_ns`. */
void node_trust_heard(struct node_trust *trust, uint64_t term, uint64_t sent_ns);

/* Values were found on disk: who knows what happened meanwhile. */
void node_trust_found(struct node_trust *trust);

/* Whether a value of this term is in doubt; 0: its term is not known. */
bool node_trust_doubts(const struct node_trust *trust, uint64_t term, uint64_t now_ns);

/* It leaves: the master will count on nothing that it says from now on. */
void node_trust_left(struct node_trust *trust);

/* Something that is to be dropped is still there: for a while it vouches for nothing. The master
 * repeats the drop more often than that. */
void node_trust_quiet(struct node_trust *trust, uint64_t now_ns);

/* Whether what it has may be read by who does not ask the master first. */
bool node_trust_vouches(const struct node_trust *trust, uint64_t now_ns);
/* Until when it will, if nothing is heard any more; 0: it does not. */
uint64_t node_trust_vouches_until(const struct node_trust *trust, uint64_t now_ns);

#endif
