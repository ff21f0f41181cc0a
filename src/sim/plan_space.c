/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plan_space.c - what may be chosen from, and what it costs: defaults and the plan file. */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "sim/plan.h"

enum { PRICES = 5 };

static const double PRICE_MAX = 1e9;
static const double VALUE_MAX = 1e9;

static const char *const price_names[PRICES + 1] = { "prefill_node", "decode_node", "dram_gb",
                                                     "ssd_gb",       "nic_gbps",    NULL };
static const size_t price_offsets[PRICES] = {
    offsetof(struct plan_prices, prefill_node), offsetof(struct plan_prices, decode_node),
    offsetof(struct plan_prices, dram_gb),      offsetof(struct plan_prices, ssd_gb),
    offsetof(struct plan_prices, nic_gbps),
};

static void set_values(struct plan_space *space, enum plan_choice choice, const double *values,
                       uint32_t count)
{
    space->counts[choice] = count;
    memcpy(space->values[choice], values, count * sizeof(*values));
}

void plan_space_init(struct plan_space *space)
{
    static const double dram[] = { 128, 256, 512, 1024, 2048 };
    static const double ssd[] = { 0, 4096, 16384 };
    static const double nic[] = { 100, 200, 400, 800 };

    *space = (struct plan_space){
        .prices = { .prefill_node = 6,
                    .decode_node = 6,
                    .dram_gb = 1e-4,
                    .ssd_gb = 3e-6,
                    .nic_gbps = 2e-4 },
        .counts = { 32, 32 },
    };
    for (uint32_t i = 0; i < 32; i++)
        space->values[PLAN_PREFILL][i] = space->values[PLAN_DECODE][i] = i + 1;
    set_values(space, PLAN_DRAM, dram, sizeof(dram) / sizeof(dram[0]));
    set_values(space, PLAN_SSD, ssd, sizeof(ssd) / sizeof(ssd[0]));
    set_values(space, PLAN_NIC, nic, sizeof(nic) / sizeof(nic[0]));
}

/* ---- the file ---- */

static enum status refuse_stranger(const struct json_value *object, const char *what,
                                   const char *const names[], struct errmsg *err)
{
    const char *stranger;

    if (!json_value_is_object(object))
        return errmsg_set(err, STATUS_INVALID, "%s: expected an object", what);
    stranger = json_value_stranger(object, names);
    if (stranger == NULL) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "%s: `%.64s` is not known", what, stranger);
}

static enum status read_prices(const struct json_value *object, struct plan_prices *prices,
                               struct errmsg *err)
{
    const enum status status = refuse_stranger(object, "prices", price_names, err);
    if (status != STATUS_OK) return status;

    for (int i = 0; i < PRICES; i++) {
        const struct json_value *value = json_value_member(object, price_names[i]);
        double price = 0;
        if (value == NULL) continue;
        if (!json_value_number(value, &price) || !(price >= 0 && price <= PRICE_MAX))
            return errmsg_set(err, STATUS_INVALID, "prices: %s: expected a number in 0..%g",
                              price_names[i], PRICE_MAX);
        memcpy((char *)prices + price_offsets[i], &price, sizeof(price));
    }
    return STATUS_OK;
}

/* Nodes are whole, and there is at least one of each kind; there is some network. */
static enum status check_value(enum plan_choice choice, double value, struct errmsg *err)
{
    const bool nodes = choice == PLAN_PREFILL || choice == PLAN_DECODE;
    const double least = nodes || choice == PLAN_NIC ? 1 : 0;
    const double most = nodes ? 2000 : VALUE_MAX;

    if (!(value >= least && value <= most))
        return errmsg_set(err, STATUS_INVALID, "choices: %s: %g is not in %g..%g",
                          plan_choices[choice], value, least, most);
    if (nodes && value != floor(value))
        return errmsg_set(err, STATUS_INVALID, "choices: %s: %g is no whole number",
                          plan_choices[choice], value);
    return STATUS_OK;
}

static enum status add_value(struct plan_space *space, enum plan_choice choice, double value,
                             struct errmsg *err)
{
    const uint32_t count = space->counts[choice];
    const enum status status = check_value(choice, value, err);

    if (status != STATUS_OK) return status;
    if (count == PLAN_VALUES_MAX)
        return errmsg_set(err, STATUS_INVALID, "choices: %s: more than %d values",
                          plan_choices[choice], PLAN_VALUES_MAX);
    if (count > 0 && value <= space->values[choice][count - 1])
        return errmsg_set(err, STATUS_INVALID, "choices: %s: %g does not ascend",
                          plan_choices[choice], value);
    space->values[choice][space->counts[choice]++] = value;
    return STATUS_OK;
}

static enum status read_list(const struct json_value *list, struct plan_space *space,
                             enum plan_choice choice, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; status == STATUS_OK && i < json_value_count(list); i++) {
        double value = 0;
        if (!json_value_number(json_value_at(list, i), &value))
            return errmsg_set(err, STATUS_INVALID, "choices: %s: expected numbers",
                              plan_choices[choice]);
        status = add_value(space, choice, value, err);
    }
    return status;
}

static enum status read_range(const struct json_value *range, struct plan_space *space,
                              enum plan_choice choice, struct errmsg *err)
{
    static const char *const names[] = { "min", "max", "step", NULL };
    double min = 0, max = 0, step = 1;

    enum status status = refuse_stranger(range, plan_choices[choice], names, err);
    if (status != STATUS_OK) return status;
    const struct json_value *width = json_value_member(range, "step");
    if (!json_value_number(json_value_member(range, "min"), &min) ||
        !json_value_number(json_value_member(range, "max"), &max) ||
        (width != NULL && !json_value_number(width, &step)) || !(step > 0) || max < min)
        return errmsg_set(err, STATUS_INVALID,
                          "choices: %s: expected a list, or min and max with min <= max",
                          plan_choices[choice]);
    for (uint32_t i = 0; status == STATUS_OK && min + i * step <= max; i++)
        status = add_value(space, choice, min + i * step, err);
    return status;
}

static enum status read_choices(const struct json_value *object, struct plan_space *space,
                                struct errmsg *err)
{
    const char *names[PLAN_CHOICES + 1] = { NULL };

    memcpy(names, plan_choices, sizeof(plan_choices));
    enum status status = refuse_stranger(object, "choices", names, err);
    for (int c = 0; status == STATUS_OK && c < PLAN_CHOICES; c++) {
        const struct json_value *value = json_value_member(object, plan_choices[c]);
        if (value == NULL) continue;
        space->counts[c] = 0;
        if (json_value_is_array(value))
            status = read_list(value, space, (enum plan_choice)c, err);
        else
            status = read_range(value, space, (enum plan_choice)c, err);
        if (status == STATUS_OK && space->counts[c] == 0)
            return errmsg_set(err, STATUS_INVALID, "choices: %s: there is none", plan_choices[c]);
    }
    return status;
}

static enum status read_root(const struct json_value *root, struct plan_space *space,
                             struct errmsg *err)
{
    static const char *const names[] = { "prices", "choices", NULL };
    const struct json_value *prices = json_value_member(root, "prices");
    const struct json_value *choices = json_value_member(root, "choices");

    enum status status = refuse_stranger(root, "a plan", names, err);
    if (status == STATUS_OK && prices != NULL) status = read_prices(prices, &space->prices, err);
    if (status == STATUS_OK && choices != NULL) status = read_choices(choices, space, err);
    return status;
}

enum status plan_space_parse(const char *name, const char *text, size_t len,
                             struct plan_space *space, struct errmsg *err)
{
    struct json_value *root = NULL;
    struct plan_space changed = *space;
    struct errmsg words = { "" };

    enum status status = json_document_parse(text, len, &root, &words);
    if (status == STATUS_OK) status = read_root(root, &changed, &words);
    json_document_destroy(root);
    if (status != STATUS_OK) return errmsg_set(err, status, "%.100s: %.150s", name, words.text);
    *space = changed;
    return STATUS_OK;
}
