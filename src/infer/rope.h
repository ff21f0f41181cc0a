/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/rope.h - sines and cosines of positions, the same bits on every machine.
 *
 * libm promises no last bit, and two nodes that share KV must agree on it; so the few functions
 * needed are computed here in double precision by series, with nothing contracted. */
#ifndef INFER_ROPE_H
#define INFER_ROPE_H

#include <stdint.h>

/* freqs[i] = base^(-2i / dims), i < dims / 2. base must be positive. */
void rope_frequencies(float base, uint32_t dims, double *freqs);

/* cs[2i], cs[2i + 1] = cos, sin of position * freqs[i]. */
void rope_angles(const double *freqs, uint32_t dims, uint32_t position, float *cs);

#endif
