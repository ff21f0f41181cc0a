/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/conductor_fixture.h - what tests of a whole Conductor begin with. Include cmocka first.
 */
#ifndef CONDUCTOR_CONDUCTOR_FIXTURE_H
#define CONDUCTOR_CONDUCTOR_FIXTURE_H

#include "yolk/conductor.h"

static inline struct yolk_instance_id fixture_add(struct yolk_conductor *conductor,
                                                  struct yolk_instance instance)
{
    struct yolk_instance_id id;
    assert_int_equal(yolk_conductor_add(conductor, &instance, &id), STATUS_OK);
    return id;
}

/* One with room for all that a test may place on it. */
static inline struct yolk_instance_id fixture_add_large(struct yolk_conductor *conductor,
                                                        const char *name, unsigned roles)
{
    return fixture_add(conductor, (struct yolk_instance){ name, "host", roles, 100000, 1000 });
}

/* A request that may go anywhere; `keys` NULL and 0: nothing of it can be reused. */
static inline struct yolk_place_request fixture_request(uint32_t tokens, uint32_t output_tokens,
                                                        const struct block_key *keys,
                                                        uint32_t keys_count)
{
    return (struct yolk_place_request){ .request_id = "r",
                                        .tokens = tokens,
                                        .output_tokens = output_tokens,
                                        .keys = keys,
                                        .keys_count = keys_count,
                                        .avoid_prefill = YOLK_INSTANCE_NONE,
                                        .avoid_decode = YOLK_INSTANCE_NONE,
                                        .avoid_holder = YOLK_INSTANCE_NONE };
}

#endif
