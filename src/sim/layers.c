/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/layers.h"

#include <math.h>

static double layerwise_s(double launch_s, double copy_s, int layers, double compute_s)
{
    double computed_s = 0, copied_s = 0;

    for (int i = 0; i < layers; i++) {
        computed_s += compute_s / layers + launch_s;
        copied_s = fmax(copied_s, computed_s) + copy_s;
    }
    return copied_s - compute_s;
}

double layers_store_s(const struct sim_profile *cost, enum layers_store store, double tokens,
                      double compute_s)
{
    const int layers = (int)cost->layers;
    const double copy_s = tokens * cost->kv_token_bytes / layers / cost->store_bytes_s;

    switch (store) {
    case LAYERS_MEASURED: return 0;
    case LAYERS_LAYERWISE: return layerwise_s(cost->store_launch_s, copy_s, layers, compute_s);
    case LAYERS_SERIALIZED: return layers * fmax(cost->store_launch_s, copy_s);
    }
    return 0;
}
