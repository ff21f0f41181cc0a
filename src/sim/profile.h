/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/profile.h - how long work takes on some hardware: the truth of a simulation.
 *
 * One parameter set per hardware profile, all of them in profile.c, never tuned to a workload.
 *
 *     prefill of n tokens, p of them reused   fixed + new (n-p) + square (n^2-p^2) + reused p
 *     decode step of b sequences              base + sequence b + context (sum of their tokens),
 *                                             times beside while prefill nodes compute beside it
 *     host before a coupled node's step       sequence b + (context + cached) (sum of their tokens)
 *     transfer of t tokens                    setup + t kv_token_bytes / bandwidth, shared
 *     load of t tokens into device memory     t kv_token_bytes / load bandwidth
 *
 * Threads: values. */
#ifndef SIM_PROFILE_H
#define SIM_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

struct sim_profile {
    char name[32];
    double kv_token_bytes;
    double prefill_fixed_s, prefill_new_s, prefill_square_s, prefill_reused_s;
    double decode_base_s, decode_sequence_s, decode_context_s;
    double decode_beside;  /* of a machine that prefill and decode share; 1: nodes have their own */
    double nic_bytes_s;    /* each way of each node */
    double load_bytes_s;   /* DRAM to device memory */
    double layers;         /* of the model */
    double store_bytes_s;  /* device memory to DRAM */
    double store_launch_s; /* of the copy of one layer */
    double ssd_bytes_s;    /* SSD to DRAM, reading */
    double transfer_setup_s;       /* before the first byte of a transfer */
    double schedule_s;             /* from the arrival until a prefill queue has the request */
    double vram_tokens;            /* KV that fits into the device memory of a node */
    double activation_token_bytes; /* from one node of a group to the next */
    double chunk_tokens;  /* of a chunked prefill: an iteration's budget, a group's chunk */
    double chunk_factor;  /* compute in chunks costs so much more */
    double keys_square_s; /* the device waits for a prefix cache's keys: of tokens squared */
    /* And before each step of a coupled node for its host; `cached`: more with a prefix cache. */
    double host_sequence_s, host_context_s, host_cached_s;
};

/* By name; NULL if there is none. */
const struct sim_profile *sim_profile_find(const char *name);
/* The `index`-th, or NULL behind the last. */
const struct sim_profile *sim_profile_at(uint32_t index);

double sim_profile_prefill_s(const struct sim_profile *profile, double tokens, double reused);
/* Of nodes that have the machine for themselves. */
double sim_profile_decode_s(const struct sim_profile *profile, double sequences, double context);
/* How many times longer a decode step takes while this share of the prefill nodes, 0..1, computes:
 * they share memory bus, caches and cores with it, in proportion. */
double sim_profile_beside(const struct sim_profile *profile, double computing);
/* Only where the device waits for the host, as in the coupled systems. */
double sim_profile_host_s(const struct sim_profile *profile, double sequences, double context,
                          bool has_cache);

#endif
