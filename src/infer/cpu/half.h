/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/half.h - IEEE half precision, one number at a time. */
#ifndef INFER_CPU_HALF_H
#define INFER_CPU_HALF_H

#include <stdint.h>

float half_to_float(uint16_t half);

/* To nearest even; beyond the range to infinity. */
uint16_t half_from_float(float value);

#endif
