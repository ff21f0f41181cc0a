/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/elastic.h"

enum { LOOKS = 60 }; /* per window */

enum status elastic_set(struct yolk_conductor *conductor, const struct sim_cluster *cluster,
                        struct errmsg *err)
{
    struct yolk_elastic_options options = yolk_elastic_defaults();

    options.on = true;
    options.ttft_ms = cluster->ttft_limit_s * 1e3;
    options.tbt_ms = cluster->tbt_limit_ms;
    options.window_ms = cluster->elastic_window_s * 1e3;
    options.dwell_ms = cluster->elastic_dwell_s * 1e3;
    options.drain_ms = YOLK_ELASTIC_MS_MAX;
    return yolk_conductor_set_elastic(conductor, &options, err);
}

double elastic_look_s(const struct sim_cluster *cluster)
{
    return cluster->elastic_window_s / LOOKS;
}

bool elastic_look(struct yolk_conductor *conductor, const struct yolk_instance_id *up,
                  uint32_t count, const struct yolk_outside *outside, double now_ms)
{
    struct yolk_flip flip;
    bool changed = false;

    for (uint32_t i = 0; i < count; i++) {
        if (!yolk_conductor_drained(conductor, up[i])) continue;
        yolk_conductor_flip_end(conductor, up[i], true, now_ms);
        changed = true;
    }
    (void)yolk_conductor_elastic(conductor, outside, now_ms, &flip);
    return changed;
}

struct elastic_nodes elastic_count(const struct yolk_conductor *conductor,
                                   const struct yolk_instance_id *up, uint32_t count)
{
    struct elastic_nodes nodes = { 0 };

    for (uint32_t i = 0; i < count; i++) {
        if (yolk_conductor_draining(conductor, up[i]))
            nodes.draining++;
        else if (yolk_conductor_roles(conductor, up[i]) & YOLK_ROLE_PREFILL)
            nodes.prefill++;
        else
            nodes.decode++;
    }
    return nodes;
}
