/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_engine.h - between fabric_engine.c and fabric_lane.c. */
#ifndef TRANSFER_FABRIC_ENGINE_H
#define TRANSFER_FABRIC_ENGINE_H

#include "transfer/fabric.h"
#include "transfer/fabric_lane.h"

/* The provider for lanes with `address` at our end, opened at the first; NULL if it cannot be,
 * which is logged. */
struct fabric *fabric_engine_at(struct fabric_engine *engine, const char *address);

#endif
