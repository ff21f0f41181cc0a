/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/layers.h - storing the KV of a prefill from device memory into DRAM, layer by layer or
 * afterwards.
 *
 * The copy of a layer has to be launched, which takes the computing side a fixed time, and then
 * moves on its own, one copy after the other. Layer by layer it is launched when the layer has
 * been computed, while the next one is; afterwards nothing is computed meanwhile, and launching
 * overlaps with the copies before:
 *
 *     layer-wise    computed(i) = computed(i-1) + compute + launch
 *                   copied(i)   = max(copied(i-1), computed(i)) + copy
 *     serialized    layers * max(launch, copy), after everything
 *
 * Threads: values. */
#ifndef SIM_LAYERS_H
#define SIM_LAYERS_H

#include "sim/profile.h"

enum layers_store {
    LAYERS_MEASURED, /* the prefill cost has it in it, as it was measured */
    LAYERS_LAYERWISE,
    LAYERS_SERIALIZED,
};

/* Seconds that storing `tokens` tokens adds to a prefill that computes for compute_s. */
double layers_store_s(const struct sim_profile *cost, enum layers_store store, double tokens,
                      double compute_s);

#endif
