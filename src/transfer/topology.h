/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/topology.h - the rails of this host, and which of them suit which memory.
 *
 * A location is where memory lies: "cpu:0" (a NUMA node), "cuda:1" (a device), or "*", which means
 * anywhere. Every rail is preferred, secondary or last for every location. That comes from a JSON
 * object in the form other engines use,
 *
 *     { "cpu:0": [["mlx5_0"], ["mlx5_1"]], "cpu:1": [["mlx5_1"], ["mlx5_0"]] }
 *
 * preferred interfaces first, the others after; a rail that is in neither list is last. A location
 * "*" in it speaks for all that are not named. Without JSON the NUMA nodes of the interfaces
 * decide: a rail is preferred for "cpu:N" if it is on node N or its node is not known.
 *
 * Memory:  none.
 * Threads: any. */
#ifndef TRANSFER_TOPOLOGY_H
#define TRANSFER_TOPOLOGY_H

#include <stdint.h>

#include "base/env.h"
#include "base/status.h"
#include "transfer/rail.h"
#include "transfer/wire.h"

enum { TOPOLOGY_LOCATIONS_MAX = 64, TOPOLOGY_LOCATION_SIZE = 16 };

/* One address of ours that peers may use. */
struct topology_rail {
    struct env_interface interface;
    char listen[WIRE_RAIL_ADDRESS_SIZE]; /* "host:port"; "" until it listens */
};

struct topology {
    uint32_t rail_count;
    struct topology_rail rails[RAILS_MAX];
    uint32_t location_count;
    struct {
        char name[TOPOLOGY_LOCATION_SIZE];
        uint32_t preferred, secondary; /* bit i: rails[i] */
    } locations[TOPOLOGY_LOCATIONS_MAX];
};

/* Fills `rails` with the interfaces that `list` names, by name or address, separated by commas;
 * "auto": every one that is up and not loopback. STATUS_NOT_FOUND, with err, for one that is not
 * here; STATUS_FULL beyond RAILS_MAX. */
MUST_USE enum status topology_select(struct topology *topology, const char *list,
                                     const struct env_interface *interfaces, uint32_t count,
                                     struct errmsg *err);

/* Takes the locations from JSON. Interfaces that are not among the rails are ignored. */
MUST_USE enum status topology_parse(struct topology *topology, const char *json, size_t len,
                                    struct errmsg *err);

/* Makes locations out of the rails' NUMA nodes. */
void topology_discover(struct topology *topology);

/* Number of a location, for topology_rank(); 0 stands for "*" and for a name that is not known. */
uint32_t topology_location(const struct topology *topology, const char *name);
enum rail_rank topology_rank(const struct topology *topology, uint32_t location, uint32_t rail);

/* What peers are told; `home` is the location of most of our memory. */
void topology_describe(const struct topology *topology, uint32_t home, struct wire_rails *out);

/* Pairs our rails with the peer's: on one network first, the rest in order. Each of ours gets one;
 * pair[i] is the index of theirs, or -1 if they have none. */
void topology_pair(const struct topology *topology, const struct wire_rails *theirs,
                   int pair[RAILS_MAX]);

#endif
