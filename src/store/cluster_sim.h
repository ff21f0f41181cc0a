/* SPDX-License-Identifier: Apache-2.0
 *
 * store/cluster_sim.h - a small cluster in a simulated world, for tests: one master and some nodes,
 * each a process of its own that can be killed and started again. Included by one test program
 * each. */
#ifndef STORE_CLUSTER_SIM_H
#define STORE_CLUSTER_SIM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/rng.h"
#include "net/rpc.h"
#include "store/master_shell.h"
#include "store/member.h"
#include "store/node.h"
#include "yolk/transfer.h"

enum {
    SIM_NODES = 3,
    SIM_LAYERS = 3,
    SIM_LAYER_SIZE = 5000,
    SIM_PAGE_SIZE = 16384,
    SIM_PAGES = 24,
    SIM_OBJECT_SIZE = 256 * 4096,
    SIM_LEASE_MS = 500,
};

#define SIM_SECRET "sim"
#define SIM_MASTER "10.0.0.1:7000"
#define SIM_TERM 1000

struct sim_node {
    struct env *env; /* NULL: not running */
    char host[32];
    char rpc_address[64];
    const char *front; /* address that it gives for its own; NULL: its own */
    struct rpc_server *server;
    struct yolk_transfer *transfer;
    struct store_node *node;
    struct store_member *member;
    unsigned lives;
};

struct sim_cluster {
    struct env_sim *sim;
    struct env *master_env; /* NULL: not running */
    struct rpc_server *master_server;
    struct store_master_shell *master;
    uint64_t terms;                   /* masters started */
    uint32_t hot_replicas;            /* of a master started from now on */
    enum order_policy eviction;       /* likewise */
    uint64_t object_size;             /* of a node started from now on */
    uint64_t disk_size;               /* likewise; 0: no disk */
    uint64_t values_disk_size;        /* likewise, below values */
    const struct ssd_keys *disk_keys; /* likewise; NULL: what is on disk is clear */
    struct ssd_packing disk_packing;  /* likewise; all 0: it is as it is */
    struct sim_node nodes[SIM_NODES];
};

static inline void sim_master_start(struct sim_cluster *cluster)
{
    const struct rpc_server_options server = { .address = SIM_MASTER,
                                               .secret = SIM_SECRET,
                                               .name = "master" };
    ASSERT(cluster->master_env == NULL);
    cluster->master_env = env_sim_add(cluster->sim, "10.0.0.1");
    struct errmsg err = { "" };
    enum status status =
        rpc_server_create(cluster->master_env, &server, &cluster->master_server, &err);
    ASSERT(status == STATUS_OK);
    const struct store_master_shell_options options = {
        .env = cluster->master_env,
        .server = cluster->master_server,
        .secret = SIM_SECRET,
        .master = { .term = SIM_TERM + cluster->terms++,
                    .seed = 7,
                    .lease_ms = SIM_LEASE_MS,
                    .settle_ms = 3000,
                    .discard_ms = 4000,
                    .put_ms = 3000,
                    .fence_ms = 2000,
                    .suspect_ms = 1500,
                    .dead_ms = 5000,
                    .forget_ms = 20000,
                    .eviction = cluster->eviction,
                    .hot_replicas = cluster->hot_replicas,
                    .task_ms = 20000,
                    .hot_reads = 1 },
    };
    status = store_master_shell_create(&options, &cluster->master, &err);
    ASSERT(status == STATUS_OK);
}

/* SIGKILL; what is left is only memory to be freed. */
static inline void sim_master_kill(struct sim_cluster *cluster)
{
    if (cluster->master_env == NULL) return;
    env_sim_kill(cluster->master_env);
    rpc_server_destroy(cluster->master_server);
    store_master_shell_destroy(cluster->master);
    cluster->master_env = NULL;
    cluster->master = NULL;
    cluster->master_server = NULL;
}

static inline void sim_layout(struct store_layout *out)
{
    memset(out, 0, sizeof(*out));
    out->pages = SIM_PAGES;
    out->page_size = SIM_PAGE_SIZE;
    out->layers = SIM_LAYERS;
    out->layer_size = SIM_LAYER_SIZE;
    out->block_tokens = 16;
    memcpy(out->id, "simulated layout", sizeof(out->id));
}

static inline void sim_node_info(const struct sim_node *node, struct store_member_info *out)
{
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "node-%s", node->host);
    out->role = STORE_ROLE_PREFILL;
    snprintf(out->rpc_address, sizeof(out->rpc_address), "%s",
             node->front != NULL ? node->front : node->rpc_address);
    snprintf(out->segment, sizeof(out->segment), "%s", store_node_segment(node->node));
    sim_layout(&out->layout);
    out->epoch = store_node_epoch(node->node);
}

static inline void sim_node_start(struct sim_cluster *cluster, unsigned index)
{
    struct sim_node *node = &cluster->nodes[index];
    char transfer_address[64];
    char rpc_address[64];
    struct errmsg err = { "" };
    ASSERT(node->env == NULL);

    snprintf(node->host, sizeof(node->host), "10.0.1.%u", index + 1);
    snprintf(rpc_address, sizeof(rpc_address), "10.0.1.%u:7100", index + 1);
    snprintf(transfer_address, sizeof(transfer_address), "10.0.1.%u:7200", index + 1);
    memcpy(node->rpc_address, rpc_address, sizeof(rpc_address));
    node->env = env_sim_add(cluster->sim, node->host);
    node->lives++;
    const struct rpc_server_options server = { .address = node->rpc_address,
                                               .secret = SIM_SECRET,
                                               .name = "node" };
    const struct yolk_transfer_options transfer = {
        .listen = transfer_address, .secret = SIM_SECRET, .slice_size = 4096, .fence_ms = 2000
    };
    enum status status = rpc_server_create(node->env, &server, &node->server, &err);
    ASSERT(status == STATUS_OK);
    status = yolk_transfer_create(node->env, &transfer, &node->transfer, &err);
    ASSERT(status == STATUS_OK);
    struct store_node_options options = {
        .env = node->env,
        .transfer = node->transfer,
        .server = node->server,
        .name = "node",
        .secret = SIM_SECRET,
        .lease_ms = 1000,
        .disk_directory = cluster->disk_size + cluster->values_disk_size > 0 ? "/tmp/disk" : NULL,
        .values_disk_size = cluster->values_disk_size,
        .disk_size = cluster->disk_size,
        .disk_part_size = 4096,
        .disk_keys = cluster->disk_keys,
        .disk_packing = cluster->disk_packing,
        .object_size = cluster->object_size
    };
    sim_layout(&options.layout);
    do { /* who starts it does so again when its disk has failed */
        status = store_node_create(&options, &node->node, &err);
    } while (status == STATUS_IO);
    ASSERT(status == STATUS_OK);
    struct store_join_options join = { .env = node->env,
                                       .master = SIM_MASTER,
                                       .secret = SIM_SECRET,
                                       .node = node->node,
                                       .beat_ms = 200 };
    sim_node_info(node, &join.info);
    status = store_join(&join, &node->member, &err);
    ASSERT(status == STATUS_OK);
}

static inline void sim_node_kill(struct sim_node *node)
{
    if (node->env == NULL) return;
    env_sim_kill(node->env);
    store_leave(node->member);
    rpc_server_destroy(node->server);
    yolk_transfer_destroy(node->transfer);
    store_node_destroy(node->node);
    node->env = NULL;
    node->node = NULL;
    node->member = NULL;
    node->server = NULL;
    node->transfer = NULL;
}

static inline void sim_cluster_start(struct sim_cluster *cluster,
                                     const struct env_sim_options *options)
{
    memset(cluster, 0, sizeof(*cluster));
    cluster->object_size = SIM_OBJECT_SIZE;
    cluster->sim = env_sim_create(options);
    sim_master_start(cluster);
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_start(cluster, i);
}

/* All nodes anew, with the sizes that the cluster says now. */
static inline void sim_nodes_restart(struct sim_cluster *cluster)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_kill(&cluster->nodes[i]);
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_start(cluster, i);
}

static inline void sim_cluster_end(struct sim_cluster *cluster)
{
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_kill(&cluster->nodes[i]);
    sim_master_kill(cluster);
    env_sim_destroy(cluster->sim);
}

static inline void sim_run_ms(struct sim_cluster *cluster, uint64_t ms)
{
    env_sim_run_for(cluster->sim, ms * ENV_NS_PER_MS);
}

/* Block `n` of the one world-wide set of blocks: its key, and the bytes it must have. */
static inline struct block_key sim_key(uint64_t n)
{
    struct block_key key;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t word = rng_counter(n, i);
        memcpy(key.bytes + 8 * i, &word, sizeof(word));
    }
    return key;
}

static inline void sim_bytes(uint64_t n, void *out, size_t len)
{
    struct rng rng;
    rng_init(&rng, n);
    rng_fill(&rng, out, len);
}

#endif
