/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/profile.c - the only file of this layer that knows the JSON library. */
#include "conductor/profile.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"

enum { PROFILE_VERSION = 1 };
static const double NUMBER_MAX = 1e15;

static const char *const KIND_NAMES[CONDUCTOR_FIT_KINDS] = { "prefill", "decode", "transfer" };

void conductor_profile_init(struct conductor_profile *profile)
{
    conductor_fit_init(&profile->prefill, CONDUCTOR_FIT_PREFILL);
    conductor_fit_init(&profile->decode, CONDUCTOR_FIT_DECODE);
    for (int i = 0; i < CONDUCTOR_PATHS; i++) {
        conductor_fit_init(&profile->transfer[i], CONDUCTOR_FIT_TRANSFER);
    }
    conductor_fit_init(&profile->ssd, CONDUCTOR_FIT_TRANSFER);
}

/* Not NaN either. */
static bool plausible(double value)
{
    return value >= 0 && value <= NUMBER_MAX;
}

static json_t *fit_to_json(const struct conductor_fit *fit)
{
    json_t *coef = json_array();

    for (int i = 0; i < conductor_fit_features(fit->kind); i++) {
        json_array_append_new(coef, json_real(fit->coef[i]));
    }
    return json_pack("{s:s, s:I, s:f, s:o}", "kind", KIND_NAMES[fit->kind], "samples",
                     (json_int_t)fit->samples, "variance", fit->variance, "coef", coef);
}

enum status conductor_profile_format(const struct conductor_profile *profile, char **out,
                                     size_t *len)
{
    json_t *root =
        json_pack("{s:i, s:o, s:o, s:[o,o], s:o}", "version", PROFILE_VERSION, "prefill",
                  fit_to_json(&profile->prefill), "decode", fit_to_json(&profile->decode),
                  "transfer", fit_to_json(&profile->transfer[0]),
                  fit_to_json(&profile->transfer[1]), "ssd", fit_to_json(&profile->ssd));
    static_assert(CONDUCTOR_PATHS == 2, "the format lists two paths");
    if (root == NULL) return STATUS_NO_MEMORY;
    char *text = json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS);
    json_decref(root);
    if (text == NULL) return STATUS_NO_MEMORY;
    *out = text;
    *len = strlen(text);
    return STATUS_OK;
}

/* The text says what was learned; it becomes the prior, so that stale knowledge yields quickly. */
static enum status fit_from_json(const json_t *json, enum conductor_fit_kind kind,
                                 struct conductor_fit *out, struct errmsg *err)
{
    const char *name = json_string_value(json_object_get(json, "kind"));
    const json_t *coef = json_object_get(json, "coef");
    const double variance = json_number_value(json_object_get(json, "variance"));
    struct conductor_fit fit;

    if (name == NULL || strcmp(name, KIND_NAMES[kind]) != 0) {
        return errmsg_set(err, STATUS_INVALID, "profile: no fit for %s", KIND_NAMES[kind]);
    }
    if (json_array_size(coef) != (size_t)conductor_fit_features(kind) || !plausible(variance)) {
        return errmsg_set(err, STATUS_INVALID, "profile: fit for %s is malformed", name);
    }
    conductor_fit_init(&fit, kind);
    for (int i = 0; i < conductor_fit_features(kind); i++) {
        const json_t *value = json_array_get(coef, (size_t)i);
        if (!json_is_number(value) || !plausible(json_number_value(value))) {
            return errmsg_set(err, STATUS_INVALID, "profile: bad coefficient for %s", name);
        }
        fit.coef[i] = json_number_value(value);
        fit.prior[i] = fit.coef[i];
    }
    fit.variance = variance;
    *out = fit;
    return STATUS_OK;
}

static enum status profile_from_json(const json_t *root, struct conductor_profile *out,
                                     struct errmsg *err)
{
    struct conductor_profile profile;
    const json_t *transfer = json_object_get(root, "transfer");
    enum status status;

    if (json_integer_value(json_object_get(root, "version")) != PROFILE_VERSION) {
        return errmsg_set(err, STATUS_INVALID, "profile: not of version %d", PROFILE_VERSION);
    }
    status = fit_from_json(json_object_get(root, "prefill"), CONDUCTOR_FIT_PREFILL,
                           &profile.prefill, err);
    if (status != STATUS_OK) return status;
    status =
        fit_from_json(json_object_get(root, "decode"), CONDUCTOR_FIT_DECODE, &profile.decode, err);
    if (status != STATUS_OK) return status;
    for (size_t i = 0; i < CONDUCTOR_PATHS; i++) {
        status = fit_from_json(json_array_get(transfer, i), CONDUCTOR_FIT_TRANSFER,
                               &profile.transfer[i], err);
        if (status != STATUS_OK) return status;
    }
    conductor_fit_init(&profile.ssd, CONDUCTOR_FIT_TRANSFER);
    if (json_object_get(root, "ssd") != NULL) {
        status =
            fit_from_json(json_object_get(root, "ssd"), CONDUCTOR_FIT_TRANSFER, &profile.ssd, err);
        if (status != STATUS_OK) return status;
    }
    *out = profile;
    return STATUS_OK;
}

enum status conductor_profile_parse(const char *text, size_t len, struct conductor_profile *out,
                                    struct errmsg *err)
{
    json_error_t error;

    if (len > CONDUCTOR_PROFILE_SIZE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "profile: larger than %d bytes",
                          CONDUCTOR_PROFILE_SIZE_MAX);
    }
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return errmsg_set(err, STATUS_INVALID, "profile: line %d: %s", error.line, error.text);
    }
    const enum status status = profile_from_json(root, out, err);
    json_decref(root);
    return status;
}
