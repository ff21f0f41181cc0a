/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/cost.c - least squares in information form, with non-negative coefficients.
 *
 * Kept per fit: M = sum w x x^T and t = sum w x y over all samples, where the weight w of a sample
 * shrinks by FORGET with every later one. The coefficients minimise
 *
 *     c^T M c - 2 t^T c + RIDGE * |c - prior|^2        subject to c >= 0
 *
 * The ridge does not shrink: a direction in which no samples come (all prompts of one length, say)
 * returns to the prior instead of drifting, which is what plain recursive least squares with
 * forgetting would do. With at most four features the constraint is met exactly: every subset of
 * coefficients that may be positive is solved, and the best feasible solution wins (16 tiny
 * systems, a few microseconds a sample, and never a negative cost).
 *
 * Internal basis, scaled so that features are near 1 and the ridge treats them alike. For prefill
 * the features (1, n-p, n^2-p^2, n) span the same space as the documented (1, n-p, n^2-p^2, p):
 * a (n-p) + b n = (a+b) (n-p) + b p. In this basis non-negative means that a reused token costs no
 * more than a computed one.
 *
 * Invariants
 *   I1  every number in a fit is finite; coef >= 0.
 *   I2  a refused sample changes nothing. */
#include "conductor/cost.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"

static const double FORGET = 0.995; /* half of the weight after 138 samples */
static const double RIDGE = 0.05;   /* the prior counts as a twentieth of a sample */
static const double VARIANCE_DECAY = 0.95;
static const double SAMPLE_MAX = 1e15; /* above this a number is absurd, and squares overflow */
static const double TOKENS_SCALE = 1024.0;
static const double BYTES_SCALE = 1024.0 * 1024.0;
static const double BATCH_SCALE = 8.0;

static const int FEATURES[CONDUCTOR_FIT_KINDS] = { 4, 3, 2 };

/* Guesses for a 135M-parameter model on two cores; replaced by the first few samples. */
static const double PRIORS[CONDUCTOR_FIT_KINDS][CONDUCTOR_FEATURES_MAX] = {
    { 5.0, 1000.0, 50.0, 1.0 }, /* ms; per 1024 new; per 1024^2; per 1024 tokens */
    { 10.0, 8.0, 1.0, 0.0 },    /* ms; per 8 sequences; per 1024 tokens of context */
    { 0.3, 0.5, 0.0, 0.0 },     /* ms; per MiB */
};

/* ---- solving ---- */

/* Solves the k x k system a x = b by elimination with pivoting. False if it is singular. */
static bool solve(double a[CONDUCTOR_FEATURES_MAX][CONDUCTOR_FEATURES_MAX],
                  double b[CONDUCTOR_FEATURES_MAX], int k)
{
    for (int col = 0; col < k; col++) {
        int pivot = col;
        for (int row = col + 1; row < k; row++) {
            if (fabs(a[row][col]) > fabs(a[pivot][col])) pivot = row;
        }
        if (fabs(a[pivot][col]) < 1e-12) return false;
        for (int j = 0; j < k; j++) {
            const double swapped = a[col][j];
            a[col][j] = a[pivot][j];
            a[pivot][j] = swapped;
        }
        const double swapped = b[col];
        b[col] = b[pivot];
        b[pivot] = swapped;
        for (int row = col + 1; row < k; row++) {
            const double factor = a[row][col] / a[col][col];
            for (int j = col; j < k; j++)
                a[row][j] -= factor * a[col][j];
            b[row] -= factor * b[col];
        }
    }
    for (int row = k - 1; row >= 0; row--) {
        for (int j = row + 1; j < k; j++)
            b[row] -= a[row][j] * b[j];
        b[row] /= a[row][row];
    }
    return true;
}

/* The unconstrained minimum over the coefficients in `subset`, the others zero. False unless it is
 * feasible. */
static bool solve_subset(const struct conductor_fit *fit, unsigned subset,
                         double out[CONDUCTOR_FEATURES_MAX])
{
    double a[CONDUCTOR_FEATURES_MAX][CONDUCTOR_FEATURES_MAX];
    double b[CONDUCTOR_FEATURES_MAX] = { 0 };
    int member[CONDUCTOR_FEATURES_MAX];
    int k = 0;

    for (int i = 0; i < FEATURES[fit->kind]; i++) {
        if (subset & (1u << i)) member[k++] = i;
    }
    for (int i = 0; i < k; i++) {
        for (int j = 0; j < k; j++)
            a[i][j] = fit->moment[member[i]][member[j]];
        a[i][i] += RIDGE;
        b[i] = fit->target[member[i]] + RIDGE * fit->prior[member[i]];
    }
    if (k > 0 && !solve(a, b, k)) return false;
    memset(out, 0, sizeof(double) * CONDUCTOR_FEATURES_MAX);
    for (int i = 0; i < k; i++) {
        if (!isfinite(b[i]) || b[i] < 0) return false;
        out[member[i]] = b[i];
    }
    return true;
}

/* What is minimised, up to a constant. */
static double objective(const struct conductor_fit *fit, const double c[CONDUCTOR_FEATURES_MAX])
{
    double sum = 0;

    for (int i = 0; i < FEATURES[fit->kind]; i++) {
        for (int j = 0; j < FEATURES[fit->kind]; j++)
            sum += c[i] * fit->moment[i][j] * c[j];
        sum -= 2 * fit->target[i] * c[i];
        sum += RIDGE * (c[i] - fit->prior[i]) * (c[i] - fit->prior[i]);
    }
    return sum;
}

static void refit(struct conductor_fit *fit)
{
    double best[CONDUCTOR_FEATURES_MAX] = { 0 }, candidate[CONDUCTOR_FEATURES_MAX];
    double best_value = objective(fit, best);

    for (unsigned subset = 1; subset < 1u << FEATURES[fit->kind]; subset++) {
        if (!solve_subset(fit, subset, candidate)) continue;
        const double value = objective(fit, candidate);
        if (!(value < best_value)) continue;
        best_value = value;
        memcpy(best, candidate, sizeof(best));
    }
    memcpy(fit->coef, best, sizeof(best));
}

static enum status learn(struct conductor_fit *fit, const struct conductor_features *features,
                         double ms)
{
    if (!isfinite(ms) || ms < 0 || ms > SAMPLE_MAX) return STATUS_INVALID;
    const double *x = features->x;
    const double error = conductor_predict(fit, features) - ms;
    /* The error of the first prediction is that of a guess: the second one takes its place. */
    const double decay = fit->samples <= 1 ? 0 : VARIANCE_DECAY;

    fit->variance = decay * fit->variance + (1 - decay) * error * error;
    for (int i = 0; i < FEATURES[fit->kind]; i++) {
        for (int j = 0; j < FEATURES[fit->kind]; j++) {
            fit->moment[i][j] = FORGET * fit->moment[i][j] + x[i] * x[j];
        }
        fit->target[i] = FORGET * fit->target[i] + x[i] * ms;
    }
    fit->samples++;
    refit(fit);
    return STATUS_OK;
}

/* ---- the three kinds ---- */

void conductor_fit_init(struct conductor_fit *fit, enum conductor_fit_kind kind)
{
    *fit = (struct conductor_fit){ .kind = kind };
    memcpy(fit->prior, PRIORS[kind], sizeof(fit->prior));
    memcpy(fit->coef, PRIORS[kind], sizeof(fit->coef));
}

void conductor_fit_init_from(struct conductor_fit *fit, const struct conductor_fit *prior)
{
    *fit = (struct conductor_fit){ .kind = prior->kind };
    memcpy(fit->prior, prior->coef, sizeof(fit->prior));
    memcpy(fit->coef, prior->coef, sizeof(fit->coef));
}

/* Not NaN either. */
static bool plausible(double value)
{
    return value >= 0 && value <= SAMPLE_MAX;
}

struct conductor_features conductor_features_prefill(double tokens, double reused)
{
    ASSERT(plausible(tokens) && reused >= 0 && reused <= tokens);
    const double n = tokens / TOKENS_SCALE, p = reused / TOKENS_SCALE;
    return (struct conductor_features){ { 1, n - p, n * n - p * p, n } };
}

static struct conductor_features decode_features(double sequences, double context)
{
    ASSERT(plausible(sequences) && plausible(context));
    return (struct conductor_features){ { 1, sequences / BATCH_SCALE, context / TOKENS_SCALE, 0 } };
}

static struct conductor_features transfer_features(double bytes)
{
    ASSERT(plausible(bytes));
    return (struct conductor_features){ { 1, bytes / BYTES_SCALE, 0, 0 } };
}

enum status conductor_fit_prefill(struct conductor_fit *fit, double tokens, double reused,
                                  double ms)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_PREFILL);

    /* n^2 is a feature, and its square enters the moments. */
    if (!plausible(tokens) || tokens > 1e9) return STATUS_INVALID;
    if (!plausible(reused) || reused > tokens) return STATUS_INVALID;
    const struct conductor_features features = conductor_features_prefill(tokens, reused);
    return learn(fit, &features, ms);
}

enum status conductor_fit_decode(struct conductor_fit *fit, double sequences, double context,
                                 double ms)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_DECODE);

    if (!plausible(sequences) || !plausible(context)) return STATUS_INVALID;
    const struct conductor_features features = decode_features(sequences, context);
    return learn(fit, &features, ms);
}

enum status conductor_fit_transfer(struct conductor_fit *fit, double bytes, double ms)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_TRANSFER);

    if (!plausible(bytes)) return STATUS_INVALID;
    const struct conductor_features features = transfer_features(bytes);
    return learn(fit, &features, ms);
}

/* Coefficients and features are not negative (I1), so no prediction is. */
double conductor_cost_prefill(const struct conductor_fit *fit, double tokens, double reused)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_PREFILL);
    const struct conductor_features features = conductor_features_prefill(tokens, reused);
    return conductor_predict(fit, &features);
}

double conductor_cost_decode(const struct conductor_fit *fit, double sequences, double context)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_DECODE);
    const struct conductor_features features = decode_features(sequences, context);
    return conductor_predict(fit, &features);
}

double conductor_cost_transfer(const struct conductor_fit *fit, double bytes)
{
    ASSERT(fit->kind == CONDUCTOR_FIT_TRANSFER);
    const struct conductor_features features = transfer_features(bytes);
    return conductor_predict(fit, &features);
}

double conductor_cost_spread(const struct conductor_fit *fit, double predicted_ms)
{
    return fit->samples == 0 ? predicted_ms : sqrt(fit->variance);
}

int conductor_fit_features(enum conductor_fit_kind kind)
{
    ASSERT((int)kind < CONDUCTOR_FIT_KINDS);
    return FEATURES[kind];
}
