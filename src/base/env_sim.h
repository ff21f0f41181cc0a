/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim.h - the simulated world behind base/env.h: many processes on many hosts in one
 * thread, under virtual time, decided by one seed.
 *
 *     struct env_sim *sim = env_sim_create(&(struct env_sim_options){ .seed = seed });
 *     struct env *master = env_sim_add(sim, "10.0.0.1");
 *     struct env *node = env_sim_add(sim, "10.0.0.2");
 *     ... env_listen(master, "10.0.0.1:7000", ...), env_connect(node, "10.0.0.1:7000", ...) ...
 *     CHECK(env_sim_run_until(sim, done, &state, 30 * ENV_NS_PER_S));
 *
 * A host has an address, ports, a disk and shared memory. Processes of one host see the same of
 * each. Streams are ordered and lossless like TCP, but each has its own delay, so that streams
 * overtake each other; they break by loss, crash and partition, and bits of them flip in flight
 * where the options say so. Nothing takes time except what the options say; computation is free.
 *
 * The same seed and the same calls give the same run: env_sim_trace_hash() is equal. Whoever draws
 * randomness draws it from env_random().
 *
 * Crash. env_sim_kill(): the process is gone, its peers see a reset, its shared memory vanishes,
 * what it wrote to files stays. env_sim_power_off(): every process of the host is gone without a
 * word (peers hang until the host is back or they give up), and each write since the last sync is
 * kept, lost, or torn. Callbacks of a dead env never run again. Its streams, timers and files may
 * still be closed and cancelled, and must be freed by their owner as usual; other calls on it fail
 * with STATUS_UNAVAILABLE. Add the host again to restart it: a new env on the old disk.
 *
 * Threads: one.
 * Limits:  ENV_SIM_PROCESSES_MAX processes, restarts included. */
#ifndef BASE_ENV_SIM_H
#define BASE_ENV_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"

enum { ENV_SIM_PROCESSES_MAX = 4096 };

struct env_sim; /* opaque */

/* Zero is a calm world with the delays given by the defaults. `ppm` is chances in a million. */
struct env_sim_options {
    uint64_t seed;
    uint64_t delay_min_ns;       /* one way; 0: 50 us */
    uint64_t delay_max_ns;       /* 0: 500 us; at least delay_min_ns */
    uint64_t bytes_per_s;        /* of one stream; 0: no limit */
    uint32_t stream_buffer_size; /* bytes a stream holds on the way; 0: 256 KiB */
    uint32_t conn_loss_ppm;      /* per segment sent: the connection breaks at both ends */
    uint32_t conn_refuse_ppm;    /* per connect: refused though somebody listens */
    uint32_t slow_ppm;           /* per segment: 100 times its delay */
    uint32_t flip_ppm;           /* per segment of data: one bit of it arrives flipped */
    const char *flip_spares;   /* a host whose connections are spared that; NULL: none; borrowed */
    uint32_t buggify_ppm;      /* per call: short read or write, an early AGAIN, a late timer */
    uint32_t disk_corrupt_ppm; /* per read: one bit of the answer is flipped */
    uint32_t disk_error_ppm;   /* per read, write, sync: STATUS_IO; of a write any part is done */
    uint64_t disk_size_max;    /* bytes per host; 0: no limit; above: STATUS_FULL */
    bool disk_no_direct;       /* ENV_FILE_DIRECT opens, and then every I/O is refused */
};

/* NULL never: the simulator aborts when there is no memory. */
struct env_sim *env_sim_create(const struct env_sim_options *options);

/* Frees every env of the world. Objects made on them (streams, files) must be closed before. */
void env_sim_destroy(struct env_sim *sim);

/* Starts a process on `host` ("10.0.0.1"), a new host or one that is there. Owned by the world. */
struct env *env_sim_add(struct env_sim *sim, const char *host);

/* Gives the host one more address: peers reach its listeners there too, processes of the host may
 * connect from there, and env_sim_partition() takes it like a host, so that one way between two
 * hosts can be cut while another holds. Before or after the host is added. */
void env_sim_add_address(struct env_sim *sim, const char *host, const char *address);

/* ---- running ---- */

uint64_t env_sim_now_ns(const struct env_sim *sim);

/* Runs for `duration_ns` of virtual time. */
void env_sim_run_for(struct env_sim *sim, uint64_t duration_ns);

/* Runs until done(ctx) is true, checked after every event; false if `duration_ns` passed before, or
 * if nothing is left to happen. */
bool env_sim_run_until(struct env_sim *sim, bool (*done)(void *ctx), void *ctx,
                       uint64_t duration_ns);

/* Changes with every event, its time and its outcome: equal runs have equal hashes. */
uint64_t env_sim_trace_hash(const struct env_sim *sim);
uint64_t env_sim_event_count(const struct env_sim *sim);
/* Of those below, and of the options' chances, those that came about. */
uint64_t env_sim_fault_count(const struct env_sim *sim);

/* The world's own dice, for tests that choose what to break next: 0..below-1. */
uint64_t env_sim_random(struct env_sim *sim, uint64_t below);

/* ---- breaking things ---- */

void env_sim_kill(struct env *env);
void env_sim_power_off(struct env_sim *sim, const char *host);
bool env_sim_alive(const struct env *env);

/* Flips one bit of one file of the host, for good. False if it has no byte. */
bool env_sim_disk_damage(struct env_sim *sim, const char *host);

/* SIGSTOP and SIGCONT: nothing of it runs; peers can still connect and send until buffers fill. */
void env_sim_pause(struct env *env);
void env_sim_resume(struct env *env);

/* The wall clock of the process is wrong by so much from now on; its monotonic clock is not. */
void env_sim_skew(struct env *env, int64_t ns);

/* Nothing passes between two hosts until healed; connections survive, connects hang. */
void env_sim_partition(struct env_sim *sim, const char *host_a, const char *host_b);
void env_sim_heal(struct env_sim *sim, const char *host_a, const char *host_b);

/* flip_ppm from now on: for tests that want damage at one step and not at another. */
void env_sim_flip(struct env_sim *sim, uint32_t ppm);

/* No more faults from now on (options' ppm, partitions, pauses): for checks of liveness. */
void env_sim_calm(struct env_sim *sim);

#endif
