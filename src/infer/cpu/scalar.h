/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/scalar.h - single numbers with a fixed arithmetic: what one lane of a kernel does.
 *
 * No function of libm whose last bit may differ between versions is used: fmaf and sqrtf are exact
 * by definition, exp is ours. */
#ifndef INFER_CPU_SCALAR_H
#define INFER_CPU_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXP_LOW -87.0f /* below it exp() is 0 */
#define EXP_HIGH 88.0f /* above it exp() is exp(88) */
#define EXP_LOG2E 1.44269504088896341f
#define EXP_LN2_HIGH 0.693145751953125f /* 16 bits, so that n * it is exact */
#define EXP_LN2_LOW 1.42860682030941723e-6f
#define EXP_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
#define EXP_ROUND_BITS 0x4B400000u
/* Taylor coefficients; on |r| <= ln2 / 2 the rest is below 6e-9. */
#define EXP_C7 (1.0f / 5040.0f)
#define EXP_C6 (1.0f / 720.0f)
#define EXP_C5 (1.0f / 120.0f)
#define EXP_C4 (1.0f / 24.0f)
#define EXP_C3 (1.0f / 6.0f)
#define EXP_C2 0.5f

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float scalar_exp(float x)
{
    if (x < EXP_LOW) return 0.0f;
    if (x > EXP_HIGH) x = EXP_HIGH;
    const float t = fmaf(x, EXP_LOG2E, EXP_ROUND);
    const float n = t - EXP_ROUND;
    const float r = fmaf(n, -EXP_LN2_LOW, fmaf(n, -EXP_LN2_HIGH, x));
    float p = EXP_C7;
    p = fmaf(p, r, EXP_C6);
    p = fmaf(p, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * float_of_bits((float_bits(t) - EXP_ROUND_BITS + 127u) << 23);
}

#endif
