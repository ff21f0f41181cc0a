/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/half.c - IEEE half precision in integer arithmetic: the bits that F16C gives. */
#include "infer/cpu/half.h"

#include "infer/cpu/scalar.h"

float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1Fu;
    const uint32_t fraction = half & 0x3FFu;

    if (exponent == 0x1F) {
        /* Infinity, or NaN made quiet as the CPU does. */
        const uint32_t quiet = fraction != 0 ? 0x400000u : 0;
        return float_of_bits(sign | 0x7F800000u | quiet | fraction << 13);
    }
    if (exponent == 0) {
        const float magnitude = (float)fraction * 0x1p-24f;
        return float_of_bits(sign | float_bits(magnitude));
    }
    return float_of_bits(sign | (exponent + 112u) << 23 | fraction << 13);
}

uint16_t half_from_float(float value)
{
    const uint32_t bits = float_bits(value);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;

    if (magnitude > 0x7F800000u) {
        return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
    }
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* rounds to infinity */
    if (magnitude < 0x38800000u) {
        /* Subnormal: adding 0.5 leaves the value, rounded to 2^-24, in the low bits. */
        const uint32_t low = float_bits(float_of_bits(magnitude) + 0.5f) - float_bits(0.5f);
        return (uint16_t)(sign | low);
    }
    const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23);
    return (uint16_t)(sign | (rounded >> 13));
}
