/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_cluster.h - the nodes as the gateway sees them: who is up, how to call them, and
 * what they hold, told to the Conductor.
 *
 * The master says who is a member; the node itself says, over its own connection, what it is and
 * what it holds. A node gets work only while the master calls it alive, its connection is up, and
 * it has said that it runs the model that this cluster view is about.
 *
 *                on_member            connected              same model
 *     (unknown) -----------> DIALING -----------> ASKING -------------------> UP
 *                               ^                  |  |  another model         |
 *                               |  connection lost |  +----------> REFUSED     |
 *                               +------------------+-----------------+---------+
 *
 *   any --on_gone, or a new epoch or address--> (unknown)
 *
 * A node that begins to leave says so (node.leaving). It stays UP, so that its blocks can be
 * fetched, but gets no work; its next life is a new node.
 *
 * The first node to come decides which model that is; it is free again when no node of it is left.
 *
 * Invariants
 *   I1  a node is in the Conductor from its first UP until it is forgotten; it is suspected there
 *       exactly while it is not UP and alive.
 *   I2  a cluster_ref names one life of a node: after it is forgotten, the ref finds nothing.
 *
 * Threads: the env's loop thread.
 * Limits:  STORE_MEMBERS_MAX nodes. */
#ifndef SERVE_GATEWAY_CLUSTER_H
#define SERVE_GATEWAY_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "serve/proto.h"
#include "yolk/conductor.h"

struct cluster; /* opaque */
struct env;
struct rpc_client;

/* One life of one node. */
struct cluster_ref {
    uint32_t index;
    uint32_t serial; /* 0: none */
};

struct cluster_options {
    struct env *env;
    const char *master; /* copied */
    const char *secret; /* copied; "" for none */
    uint32_t vocab;     /* of our tokenizer: nodes with another one are refused */
    uint32_t sequences_max;
    struct yolk_conductor_options conductor; /* block_tokens and block_size come from the nodes */
    struct yolk_admission_options admission;
    struct yolk_elastic_options elastic;         /* roles; used if `on` */
    struct yolk_replication_options replication; /* used if `replicates` */
    bool replicates;
    const char *profile; /* text of a cost profile, or NULL; copied */
    /* Something is there that was not before: a node, or room. Called from the loop. */
    void (*on_change)(void *ctx);
    /* Called from the loop, once for each life of a node that leaves in good order: the Conductor
     * places nobody there any more. NULL is allowed. */
    void (*on_leaving)(void *ctx, struct cluster_ref node);
    /* The same for a node that the master has not heard for a while: it may be back soon, or never.
     * Then, and again every two seconds while that is so. */
    void (*on_suspected)(void *ctx, struct cluster_ref node);
    void *ctx;
};

MUST_USE enum status cluster_create(const struct cluster_options *options, struct cluster **out,
                                    struct errmsg *err);
/* Ends all calls to nodes: their on_end runs from inside, with STATUS_CANCELLED. NULL is allowed.
 */
void cluster_destroy(struct cluster *cluster);

/* NULL until a first node has said what model there is. Changes only when no node is left. */
struct yolk_conductor *cluster_conductor(struct cluster *cluster);

/* Valid while cluster_conductor() is not NULL. */
uint32_t cluster_block_tokens(const struct cluster *cluster);
uint32_t cluster_context_max(const struct cluster *cluster); /* the smallest of all nodes */
const struct block_key *cluster_key_root(const struct cluster *cluster);
uint64_t cluster_page_size(const struct cluster *cluster);

struct cluster_ref cluster_ref_of(const struct cluster *cluster, struct yolk_instance_id id);
/* Each answers NULL or NONE once the node has been forgotten. */
struct rpc_client *cluster_client(const struct cluster *cluster, struct cluster_ref ref);
const char *cluster_name(const struct cluster *cluster, struct cluster_ref ref);
const char *cluster_address(const struct cluster *cluster, struct cluster_ref ref); /* of its RPC */
struct yolk_instance_id cluster_instance(const struct cluster *cluster, struct cluster_ref ref);

/* How bytes go between two nodes, as far as their addresses tell; NETWORK if one is forgotten. */
enum yolk_path cluster_path(const struct cluster *cluster, struct cluster_ref a,
                            struct cluster_ref b);

/* The node has taken another role, and the Conductor knows. A node that is forgotten is ignored. */
void cluster_note_role(struct cluster *cluster, struct cluster_ref ref, enum proto_role role);

/* One node, for people. Texts are borrowed until the loop turns. */
struct cluster_node {
    const char *name, *address, *phase, *state;
    enum proto_role role; /* 0: it has not said yet */
    bool works;           /* it may get work */
    bool leaving;
    struct yolk_instance_id id;
    struct proto_node_status status;
};
uint32_t cluster_slots(const struct cluster *cluster);
/* False for a slot without a node. */
bool cluster_node_at(const struct cluster *cluster, uint32_t slot, struct cluster_node *out);

/* Nodes that may get work now, by role; 0 for STORE. */
uint32_t cluster_count_up(const struct cluster *cluster, enum proto_role role);

/* It has not answered us what it is asked every two seconds. */
bool cluster_is_silent(const struct cluster *cluster, struct cluster_ref ref);
uint32_t cluster_count_known(const struct cluster *cluster);

/* Pages of all nodes that are up, as they said last (they are asked every few seconds). */
void cluster_pages(const struct cluster *cluster, uint64_t *total, uint64_t *used);
/* The same of their disks, added up. */
void cluster_moves(const struct cluster *cluster, uint64_t out[PROTO_MOVES]);
void cluster_disk(const struct cluster *cluster, uint64_t out[PROTO_DISK_NUMBERS]);

#endif
