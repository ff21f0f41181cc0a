/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/slo.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "yolk/conductor.h"

enum { SETTING_SIZE = 64 };

/* Milliseconds. */
static enum status parse_duration(const char *text, double *out)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = { { "us", 1e-3 }, { "ms", 1 }, { "s", 1e3 }, { "m", 6e4 } };
    char *end = NULL;

    if (strcmp(text, "none") == 0) {
        *out = INFINITY;
        return STATUS_OK;
    }
    const double value = strtod(text, &end);
    if (end == text || !isfinite(value) || !(value > 0)) return STATUS_INVALID;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) != 0) continue;
        *out = value * units[i].ms;
        return *out <= YOLK_LIMIT_MS_MAX ? STATUS_OK : STATUS_INVALID;
    }
    return STATUS_INVALID;
}

static enum status parse_priority(const char *text, int *out)
{
    char *end = NULL;
    const long value = strtol(text, &end, 10);

    if (end == text || *end != '\0') return STATUS_INVALID;
    if (value < YOLK_PRIORITY_MIN || value > YOLK_PRIORITY_MAX) return STATUS_INVALID;
    *out = (int)value;
    return STATUS_OK;
}

static enum status parse_setting(const char *text, struct slo_class *class, struct errmsg *err)
{
    const char *colon = strchr(text, ':');
    const char *value = colon != NULL ? colon + 1 : "";
    const size_t len = colon != NULL ? (size_t)(colon - text) : strlen(text);
    enum status status = STATUS_INVALID;

    if (len == 4 && memcmp(text, "ttft", 4) == 0) status = parse_duration(value, &class->ttft_ms);
    if (len == 3 && memcmp(text, "tbt", 3) == 0) status = parse_duration(value, &class->tbt_ms);
    if (len == 8 && memcmp(text, "priority", 8) == 0) {
        status = parse_priority(value, &class->priority);
    }
    if (status == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID,
                      "class %s: `%s` is not ttft:TIME, tbt:TIME (such as 2s, 50ms or none) or "
                      "priority:N with N in %d..%d",
                      class->name, text, YOLK_PRIORITY_MIN, YOLK_PRIORITY_MAX);
}

static bool good_name(const char *name, size_t len)
{
    if (len == 0 || len >= SLO_NAME_SIZE) return false;
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)name[i]) && strchr("-_.", name[i]) == NULL) return false;
    }
    return true;
}

/* Copies the next piece up to `end` or a separator; false when there is none left. */
static bool next_piece(const char **at, const char *end, char separator, char out[SETTING_SIZE])
{
    if (*at >= end) return false;
    const char *stop = memchr(*at, separator, (size_t)(end - *at));
    const size_t len = (size_t)((stop != NULL ? stop : end) - *at);
    snprintf(out, SETTING_SIZE, "%.*s", (int)(len < SETTING_SIZE ? len : SETTING_SIZE), *at);
    *at += len + (stop != NULL ? 1 : 0);
    return true;
}

static enum status parse_class(const char *at, const char *end, struct slo_classes *classes,
                               struct errmsg *err)
{
    const char *equals = memchr(at, '=', (size_t)(end - at));
    const size_t len = equals != NULL ? (size_t)(equals - at) : 0;
    char setting[SETTING_SIZE];

    if (equals == NULL || !good_name(at, len)) {
        return errmsg_set(err, STATUS_INVALID,
                          "`%.*s` is not NAME=SETTING,... with a name of letters, digits, -, _, .",
                          (int)(end - at < 60 ? end - at : 60), at);
    }
    if (classes->count == SLO_CLASSES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "more than %d classes", SLO_CLASSES_MAX);
    }
    struct slo_class *class = &classes->classes[classes->count];
    *class = (struct slo_class){ .priority = 0 };
    memcpy(class->name, at, len);
    for (uint32_t i = 0; i < classes->count; i++) {
        if (strcmp(classes->classes[i].name, class->name) != 0) continue;
        return errmsg_set(err, STATUS_INVALID, "class %s is there twice", class->name);
    }
    for (at = equals + 1; next_piece(&at, end, ',', setting);) {
        const enum status status = parse_setting(setting, class, err);
        if (status != STATUS_OK) return status;
    }
    classes->count++;
    return STATUS_OK;
}

enum status slo_parse(const char *text, struct slo_classes *out, struct errmsg *err)
{
    struct slo_classes classes = { 0 };

    for (const char *at = text; at != NULL && *at != '\0';) {
        const char *stop = strchr(at, ';');
        const char *end = stop != NULL ? stop : at + strlen(at);
        const enum status status = parse_class(at, end, &classes, err);
        if (status != STATUS_OK) return status;
        at = stop != NULL ? stop + 1 : end;
    }
    *out = classes;
    return STATUS_OK;
}

const struct slo_class *slo_find(const struct slo_classes *classes, const char *name)
{
    const struct slo_class *fallback = NULL;

    ASSERT(classes->count <= SLO_CLASSES_MAX);
    for (uint32_t i = 0; i < classes->count; i++) {
        const struct slo_class *class = &classes->classes[i];
        if (name != NULL && strcmp(class->name, name) == 0) return class;
        if (strcmp(class->name, "default") == 0) fallback = class;
    }
    return fallback;
}
