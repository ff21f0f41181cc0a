/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/rope.c - exp, log, sin and cos by argument reduction and a series, in double precision.
 *
 * Errors are a few 1e-16 of the result for the arguments that occur (positions up to 2^20), far
 * below the float that the result is rounded to. */
#include "infer/rope.h"

#include <math.h>

#include "base/assert.h"

#define LN2 0.693147180559945309417
/* pi / 2 in two parts; the first has 33 bits, so that n * it is exact for n below 2^20. */
#define HALF_PI_HIGH 1.57079632673412561417
#define HALF_PI_LOW 6.07710050650619224932e-11

/* log(m * 2^e) with m in [0.70, 1.42): 2 atanh((m - 1) / (m + 1)). frexp is exact. */
static double log_of(double x)
{
    int exponent;
    double m = frexp(x, &exponent);

    ASSERT(x > 0);
    if (m < 0.7071) {
        m *= 2;
        exponent--;
    }
    const double z = (m - 1) / (m + 1), square = z * z;
    double sum = 0;
    for (int k = 27; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return exponent * LN2 + 2 * z * sum;
}

static double exp_of(double x)
{
    const double n = floor(x / LN2 + 0.5);
    const double r = x - n * LN2;
    double sum = 1;

    for (int k = 18; k >= 1; k--)
        sum = 1 + sum * r / k;
    return ldexp(sum, (int)n);
}

void rope_frequencies(float base, uint32_t dims, double *freqs)
{
    const double log_base = log_of((double)base);

    for (uint32_t i = 0; i < dims / 2; i++) {
        freqs[i] = exp_of(-2.0 * i / dims * log_base);
    }
}

/* |r| <= pi / 4. */
static double sin_series(double r)
{
    const double square = r * r;
    double sum = 1;
    for (int k = 20; k >= 2; k -= 2)
        sum = 1 - sum * square / (k * (k + 1));
    return r * sum;
}

static double cos_series(double r)
{
    const double square = r * r;
    double sum = 1;
    for (int k = 20; k >= 2; k -= 2)
        sum = 1 - sum * square / (k * (k - 1));
    return sum;
}

void rope_angles(const double *freqs, uint32_t dims, uint32_t position, float *cs)
{
    for (uint32_t i = 0; i < dims / 2; i++) {
        const double angle = position * freqs[i];
        const double n = floor(angle / (HALF_PI_HIGH + HALF_PI_LOW) + 0.5);
        const double r = angle - n * HALF_PI_HIGH - n * HALF_PI_LOW;
        const double s = sin_series(r), c = cos_series(r);
        switch ((uint64_t)n % 4) {
        case 0: cs[2 * i] = (float)c, cs[2 * i + 1] = (float)s; break;
        case 1: cs[2 * i] = (float)-s, cs[2 * i + 1] = (float)c; break;
        case 2: cs[2 * i] = (float)-c, cs[2 * i + 1] = (float)-s; break;
        default: cs[2 * i] = (float)s, cs[2 * i + 1] = (float)-c; break;
        }
    }
}
