/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/cost.h - how long work takes, learned from how long it took.
 *
 * One fit is a recursive least-squares fit of milliseconds on up to four features, older samples
 * counting less, coefficients never negative. Three kinds of work are fitted:
 *
 *     prefill of n tokens, p of them reused   1, n-p, n^2-p^2, p
 *     one decode step                         1, sequences, context tokens
 *     transfer over one path                  1, bytes
 *
 * A reused token never costs more than a computed one in the model, so that more cache never raises
 * a prediction. A fit knows how many samples it rests on and how far off it was lately.
 *
 * Threads: a value; belongs to whoever owns its storage. Allocates only in
 * conductor_profile_format. */
#ifndef CONDUCTOR_COST_H
#define CONDUCTOR_COST_H

#include <stdint.h>

#include "base/status.h"

enum { CONDUCTOR_FEATURES_MAX = 4 };

enum conductor_fit_kind {
    CONDUCTOR_FIT_PREFILL = 0,
    CONDUCTOR_FIT_DECODE = 1,
    CONDUCTOR_FIT_TRANSFER = 2,
};
enum { CONDUCTOR_FIT_KINDS = 3 };

struct conductor_fit {
    enum conductor_fit_kind kind;
    uint64_t samples;
    double variance; /* of prediction minus truth, ms^2, recent samples counting more */
    double coef[CONDUCTOR_FEATURES_MAX]; /* private: in the internal basis of cost.c */
    double prior[CONDUCTOR_FEATURES_MAX];
    double moment[CONDUCTOR_FEATURES_MAX][CONDUCTOR_FEATURES_MAX]; /* sum of weight * x x^T */
    double target[CONDUCTOR_FEATURES_MAX];                         /* sum of weight * x y */
};

/* Starts from a guess that fits a small model on a few CPU cores. */
void conductor_fit_init(struct conductor_fit *fit, enum conductor_fit_kind kind);

/* Starts from what another fit of the same kind has learned. */
void conductor_fit_init_from(struct conductor_fit *fit, const struct conductor_fit *prior);

/* STATUS_INVALID, and nothing learned, for what is negative, not finite, or reused > tokens. */
MUST_USE enum status conductor_fit_prefill(struct conductor_fit *fit, double tokens, double reused,
                                           double ms);
MUST_USE enum status conductor_fit_decode(struct conductor_fit *fit, double sequences,
                                          double context, double ms);
MUST_USE enum status conductor_fit_transfer(struct conductor_fit *fit, double bytes, double ms);

/* Milliseconds, never negative. Arguments are non-negative and reused <= tokens. */
double conductor_cost_prefill(const struct conductor_fit *fit, double tokens, double reused);
double conductor_cost_decode(const struct conductor_fit *fit, double sequences, double context);
double conductor_cost_transfer(const struct conductor_fit *fit, double bytes);

/* What a prediction multiplies its coefficients with: made once, and used for many fits of a kind.
 */
struct conductor_features {
    double x[CONDUCTOR_FEATURES_MAX];
};
struct conductor_features conductor_features_prefill(double tokens, double reused);

/* Without a loop over the features of the kind: those it lacks are 0 in both. */
static inline double conductor_predict(const struct conductor_fit *fit,
                                       const struct conductor_features *features)
{
    const double *c = fit->coef, *x = features->x;
    return c[0] * x[0] + c[1] * x[1] + c[2] * x[2] + c[3] * x[3];
}

/* Standard deviation of a prediction, ms; the prediction itself while there are no samples. */
double conductor_cost_spread(const struct conductor_fit *fit, double predicted_ms);

/* Coefficients of a kind in use. */
int conductor_fit_features(enum conductor_fit_kind kind);

#endif
