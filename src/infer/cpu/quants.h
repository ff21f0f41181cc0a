/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/quants.h - blocks of quantized weights as plain integers, whatever their type in the
 * file: model/model.h says what the bytes mean.
 *
 * Threads: pure functions of their arguments. */
#ifndef INFER_CPU_QUANTS_H
#define INFER_CPU_QUANTS_H

#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"

/* 32 consecutive elements of a row. With f(d) the value of a half:
 *   Q8_0, Q5_0, Q4_0   x[i] = f(d) * (q[i] - 128, - 16, - 8)
 *   Q4_1, Q5_1         x[i] = f(d) * q[i] + f(m)
 *   Q4_K, Q5_K         x[i] = (f(d) * part[0]) * q[i] - f(m) * part[1]
 *   Q6_K               x[i] = (f(d) * (int8_t)part[i / 16]) * (q[i] - 32) */
struct quant_part {
    uint16_t d, m;
    uint8_t part[2];
    uint8_t q[32];
};

/* True if rows of the type are made of blocks. */
bool quants_has(enum model_type type);

/* Part `index` of a row: elements 32 * index and following. quants_has(type) must hold. */
void quants_read(enum model_type type, const uint8_t *row, uint32_t index, struct quant_part *out);

/* The 32 elements as floats: each product and sum above rounded once. */
void quants_expand(enum model_type type, const struct quant_part *part, float out[32]);

#endif
