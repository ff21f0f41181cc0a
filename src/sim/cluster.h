/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/cluster.h - what is simulated: the machines, the system on them, the limits, and how a trace
 * is replayed.
 *
 * A cluster file is a JSON object with any of the settings of the table in cluster.c; the costs are
 * an object of their own, "cost". The same names serve as NAME=VALUE on the command line, costs as
 * cost.NAME. A profile is taken first, whatever the order, then single costs replace its own.
 *
 * Threads: values.
 * Limits:  CLUSTER_NODES_MAX nodes, and each setting's range. */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "sim/layers.h"
#include "sim/profile.h"

struct buf;

enum { CLUSTER_NODES_MAX = 2000, CLUSTER_FILE_SIZE_MAX = 1 << 20, CLUSTER_TEXT_SIZE = 512 };

/* The coupled ones compute prefill and decode on every node, one scheduler a node. */
enum cluster_system {
    CLUSTER_MOONCAKE,     /* prefill and decode nodes, KVCache pool in the prefill nodes' DRAM */
    CLUSTER_VLLM,         /* coupled; a prefill stalls the running decodes */
    CLUSTER_VLLM_PREFIX,  /* and keeps KV of old prompts in device memory */
    CLUSTER_VLLM_CHUNKED, /* coupled; prefill in chunks beside the decodes */
};

/* Which node a request goes to. Those of the conductor are mooncake's only. */
enum cluster_policy {
    CLUSTER_GLOBAL, /* the conductor: Algorithm 1 */
    CLUSTER_LOCAL,  /* the conductor, nothing fetched over the network */
    CLUSTER_MATCH,  /* the longest local prefix, of equals the first node; queue unseen */
    CLUSTER_LOAD,   /* the least work queued, in predicted time; of coupled nodes the fewest prompts
                     * that are not computed, and of equals the fewest sequences */
    CLUSTER_COUNT,  /* the fewest requests queued; of coupled nodes the fewest requests */
    CLUSTER_RANDOM,
    CLUSTER_ROUND_ROBIN,
};

/* What the conductor refuses, by number of enum yolk_policy (mooncake only). */
enum { CLUSTER_OVERLOAD_NONE = 0, CLUSTER_OVERLOADS = 5 };

struct sim_cluster {
    unsigned system, policy, overload;
    unsigned store;                 /* enum layers_store */
    double prefill, decode;         /* nodes of mooncake */
    double nodes;                   /* nodes of a coupled system */
    double dram_tokens, ssd_tokens; /* of each prefill node, for the pool */
    double nic_gbps;                /* 0: the profile's */
    double batch_max;               /* sequences decoded at once by a node */
    double prompt_tokens_max;       /* of the prompts that a coupled node computes at once */
    double theta;
    double
        inline_tbt_ms; /* a step may take so long with a short prefill beside it; 0: none has one */
    double group_max;  /* prefill nodes that may share one long prompt; 1: none do */
    bool layerwise;    /* KV goes to the decode node while it is computed, not after */
    bool learn;        /* the conductor goes on fitting costs to what happens */
    bool elastic;      /* nodes change between prefill and decode */
    bool replicate;    /* hot prefixes are copied, and copies removed when they are cold */
    bool congestion;   /* the conductor counts what a sender serves already */
    bool regret;       /* decisions are judged against the best in hindsight */
    bool tiers;        /* the conductor knows what is on SSD, and loading it may be forgone */
    double elastic_window_s, elastic_dwell_s;
    char failures[CLUSTER_TEXT_SIZE];     /* machines that stop, and when: sim/failure.h */
    char classes[CLUSTER_TEXT_SIZE];      /* limits and priorities by class: conductor/slo.h */
    char class_shares[CLUSTER_TEXT_SIZE]; /* of requests: sim/classes.h */
    double mtbf_s, mttr_s; /* by chance: mean time until one stops, 0: never; and down */
    double fail_forget_s;  /* down so long, the conductor has forgotten it */
    double ttft_limit_s, tbt_limit_ms;
    double decode_time_s; /* what overload=predict takes a decode to last; 0: the mean of late */
    double stretch;       /* of the queues of prefill nodes: see yolk_conductor_options */
    bool node_checks;     /* a decode node refuses who would make its batch slower than the limit */
    bool first_at_prefill; /* the prefill's end shows the first token, not the step that follows */
    bool lengths_known; /* who refuses is told how long each answer may be, and it gets that long */
    bool door; /* overload=adaptive: sequences wait at a decode node until it has room for them */
    double admit_ttft_s, admit_tbt_ms; /* limits that overload policies hold; 0: none */
    double speed;                      /* the trace's time runs so much faster */
    double jitter_ms;                  /* arrivals are late by up to so much, uniformly */
    double output_max;                 /* answers are cut there; 0: they are not */
    double requests_max;               /* the trace is cut there; 0: it is not */
    double sample_s;                   /* between samples of load and replicas */
    double seed;
    struct sim_profile cost;
};

/* 8 + 8 nodes, or 16 coupled ones, of the a800 profile, 3 million tokens of DRAM each. */
void cluster_init(struct sim_cluster *cluster);

/* STATUS_INVALID with file, setting and range in err; the cluster is then unchanged. */
MUST_USE enum status cluster_parse(const char *name, const char *text, size_t len,
                                   struct sim_cluster *cluster, struct errmsg *err);

/* `settings` is "name=value,name=value"; empty is allowed. */
MUST_USE enum status cluster_set(struct sim_cluster *cluster, const char *settings,
                                 struct errmsg *err);

/* "8P+8D" for mooncake, "16" for the others. */
MUST_USE enum status cluster_set_nodes(struct sim_cluster *cluster, const char *nodes,
                                       struct errmsg *err);

/* Do the settings go together? */
MUST_USE enum status cluster_check(const struct sim_cluster *cluster, struct errmsg *err);

/* Where nobody says otherwise: global, or load for the coupled systems. */
unsigned cluster_default_policy(unsigned system);

const char *cluster_system_name(unsigned system);
const char *cluster_policy_name(unsigned policy);

/* Every setting as a JSON object. */
MUST_USE enum status cluster_write(const struct sim_cluster *cluster, struct buf *out);

/* The `index`-th setting: its name and help, and its value appended to `value`. STATUS_NOT_FOUND
 * behind the last. */
MUST_USE enum status cluster_setting_at(const struct sim_cluster *cluster, uint32_t index,
                                        const char **name, const char **help, struct buf *value);

/* Appends one line of help a setting. */
MUST_USE enum status cluster_help(struct buf *out);

#endif
