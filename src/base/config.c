/* SPDX-License-Identifier: Apache-2.0
 *
 * base/config.c - one setter, set_value(), that every source goes through; the sources differ only
 * in how they find (name, text) pairs and in what they call them in messages.
 *
 * A value remembers where it came from, and a weaker source never replaces a stronger one, so the
 * order in which sources are read does not matter:  default < file < variable < flag.
 *
 * Besides the caller's rows the config has rows of its own: `config` (a path), and `x-file` (a
 * path) for each secret x. */
#include "base/config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"

enum { NAME_LEN_MAX = 64, HELP_COLUMN = 34 };

enum source { FROM_DEFAULT, FROM_FILE, FROM_VARIABLE, FROM_FLAG };

struct value {
    struct config_option option; /* a copy: own rows are built at run time */
    char name[NAME_LEN_MAX];     /* for rows of our own */
    struct value *secret;        /* for x-file: the row of x */
    enum source source;
    char *text;
    uint64_t number; /* bool: 0 or 1; choice: the index */
};

struct config {
    struct config_spec spec;
    struct value *values;
    size_t count;
    const char *positions[CONFIG_POSITIONS_MAX];
    uint32_t positions_count;
    bool wants_help;
};

/* ---- values from text ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 },
    { "B", 1 },
    { "K", UINT64_C(1) << 10 },
    { "KiB", UINT64_C(1) << 10 },
    { "M", UINT64_C(1) << 20 },
    { "MiB", UINT64_C(1) << 20 },
    { "G", UINT64_C(1) << 30 },
    { "GiB", UINT64_C(1) << 30 },
    { "T", UINT64_C(1) << 40 },
    { "TiB", UINT64_C(1) << 40 },
    { NULL, 0 },
};

static const struct unit duration_units[] = {
    { "ns", 1 },           { "us", ENV_NS_PER_US },    { "ms", ENV_NS_PER_MS },
    { "s", ENV_NS_PER_S }, { "m", 60 * ENV_NS_PER_S }, { "h", 3600 * ENV_NS_PER_S },
    { NULL, 0 },
};

static const struct unit plain_units[] = { { "", 1 }, { NULL, 0 } };

/* Decimal digits and one of the units, nothing else; false also when it does not fit 64 bits. */
static bool parse_number(const char *text, const struct unit *units, uint64_t *out)
{
    const char *at = text;
    uint64_t number = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, 10, &number)) return false;
        if (__builtin_add_overflow(number, (uint64_t)(*at - '0'), &number)) return false;
    }
    if (at == text) return false;
    if (number == 0 && *at == '\0') { /* zero needs no unit */
        *out = 0;
        return true;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(at, units->name) == 0)
            return !__builtin_mul_overflow(number, units->factor, out);
    }
    return false;
}

bool config_parse_size(const char *text, uint64_t *out)
{
    return parse_number(text, size_units, out);
}

static bool parse_bool(const char *text, uint64_t *out)
{
    static const char *const words[] = { "false", "true", "no", "yes", "off", "on", "0", "1" };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(text, words[i]) != 0) continue;
        *out = i % 2;
        return true;
    }
    return false;
}

static bool parse_choice(const char *choices, const char *text, uint64_t *out)
{
    const size_t len = strlen(text);
    uint64_t index = 0;

    for (const char *at = choices; at != NULL; index++) {
        const char *end = strchr(at, '|');
        const size_t choice_len = end != NULL ? (size_t)(end - at) : strlen(at);
        if (choice_len == len && memcmp(at, text, len) == 0) {
            *out = index;
            return true;
        }
        at = end != NULL ? end + 1 : NULL;
    }
    return false;
}

/* What a user should have written. */
static const char *expectation(const struct config_option *option)
{
    switch (option->type) {
    case CONFIG_BOOL: return "true or false";
    case CONFIG_U64: return "a whole number";
    case CONFIG_SIZE: return "a size such as 4096, 64K, 512M or 2G";
    case CONFIG_DURATION: return "a duration such as 250ms, 5s or 2m";
    case CONFIG_CHOICE: return option->choices;
    case CONFIG_TEXT:
    case CONFIG_PATH: break;
    }
    return "text";
}

static bool parse_text(const struct config_option *option, const char *text, uint64_t *out)
{
    switch (option->type) {
    case CONFIG_BOOL: return parse_bool(text, out);
    case CONFIG_U64: return parse_number(text, plain_units, out);
    case CONFIG_SIZE: return parse_number(text, size_units, out);
    case CONFIG_DURATION: return parse_number(text, duration_units, out);
    case CONFIG_CHOICE: return parse_choice(option->choices, text, out);
    case CONFIG_TEXT:
    case CONFIG_PATH: *out = 0; return true;
    }
    ASSERT(false);
    return false;
}

static void print_number(const struct config_option *option, uint64_t number, char out[32])
{
    const struct unit *units = plain_units;
    const char *unit = "";

    if (option->type == CONFIG_SIZE) units = size_units;
    if (option->type == CONFIG_DURATION) units = duration_units;
    for (const struct unit *at = units; at->name != NULL; at++) {
        const bool is_long_form = strlen(at->name) == 3;
        if (is_long_form || number == 0 || number % at->factor != 0) continue;
        if (at->factor == 1 && option->type == CONFIG_SIZE) continue;
        unit = at->name;
    }
    for (const struct unit *at = units; at->name != NULL; at++) {
        if (strcmp(at->name, unit) == 0) number /= at->factor;
    }
    snprintf(out, 32, "%llu%s", (unsigned long long)number, unit);
}

static bool has_range(const struct config_option *option)
{
    return option->min != 0 || option->max != 0;
}

static enum status check_range(const struct config_option *option, uint64_t number,
                               const char *where, const char *text, struct errmsg *err)
{
    char low[32], high[32];

    if (!has_range(option) || (number >= option->min && number <= option->max)) return STATUS_OK;
    print_number(option, option->min, low);
    print_number(option, option->max, high);
    return errmsg_set(err, STATUS_INVALID, "%s: %s is out of range, %s to %s", where, text, low,
                      high);
}

/* The one way a value changes. `where` is what the user calls it: "--port", "YOLK_PORT", "f:3:
 * port". */
static enum status set_value(struct value *value, enum source source, const char *where,
                             const char *text, struct errmsg *err)
{
    const struct config_option *option = &value->option;
    uint64_t number;

    if (strlen(text) > CONFIG_VALUE_LEN_MAX)
        return errmsg_set(err, STATUS_INVALID, "%s: the value is longer than %d bytes", where,
                          CONFIG_VALUE_LEN_MAX);
    if (!parse_text(option, text, &number))
        return errmsg_set(err, STATUS_INVALID, "%s: \"%s\" is not valid, expected %s", where, text,
                          expectation(option));
    const enum status status = check_range(option, number, where, text, err);
    if (status != STATUS_OK || source < value->source) return status;

    char *copy = strdup(text);
    ASSERT(copy != NULL);
    free(value->text);
    value->text = copy;
    value->number = number;
    value->source = source;
    return STATUS_OK;
}

/* ---- the table ---- */

static bool in_scope(const struct config *config, const struct value *value)
{
    return (value->option.scope & config->spec.scope) != 0;
}

static struct value *find(const struct config *config, const char *name, size_t len)
{
    for (size_t i = 0; i < config->count; i++) {
        const char *have = config->values[i].option.name;
        if (strlen(have) == len && memcmp(have, name, len) == 0) return &config->values[i];
    }
    return NULL;
}

static void check_option(const struct config_option *option)
{
    ASSERT(option->name != NULL && option->name[0] != '\0' && option->help != NULL);
    ASSERT(strlen(option->name) + sizeof("-file") <= NAME_LEN_MAX);
    ASSERT((option->type == CONFIG_CHOICE) == (option->choices != NULL));
    ASSERT(!option->secret || option->type == CONFIG_TEXT);
    ASSERT(!option->unseen || option->secret);
    ASSERT(option->min <= option->max);
}

static const char *default_of(const struct config_option *option)
{
    if (option->def != NULL) return option->def;
    if (option->type == CONFIG_BOOL) return "false";
    if (option->type == CONFIG_TEXT || option->type == CONFIG_PATH) return "";
    return "0";
}

static struct value *add_row(struct config *config, const struct config_option *option)
{
    struct errmsg err = { "" };

    check_option(option);
    ASSERT(config->count < 2 * CONFIG_OPTIONS_MAX);
    ASSERT(find(config, option->name, strlen(option->name)) == NULL);
    struct value *value = &config->values[config->count++];
    value->option = *option;
    const enum status status = set_value(value, FROM_DEFAULT, "default", default_of(option), &err);
    ASSERT(status == STATUS_OK);
    return value;
}

static void add_secret_file_row(struct config *config, struct value *secret)
{
    struct config_option option = {
        .type = CONFIG_PATH,
        .scope = secret->option.scope,
        .help = "File that holds the value of the option above",
    };
    char name[NAME_LEN_MAX];

    snprintf(name, sizeof(name), "%.*s-file", NAME_LEN_MAX - 6, secret->option.name);
    option.name = name;
    struct value *value = add_row(config, &option);
    memcpy(value->name, name, sizeof(name));
    value->option.name = value->name;
    value->secret = secret;
}

struct config *config_create(const struct config_spec *spec)
{
    static const struct config_option config_option = {
        .name = "config",
        .type = CONFIG_PATH,
        .scope = ~0u,
        .help = "File of options, one `name = value` a line",
    };

    ASSERT(spec->options_count <= CONFIG_OPTIONS_MAX - 1);
    ASSERT(spec->positions_max <= CONFIG_POSITIONS_MAX);
    struct config *config = calloc(1, sizeof(*config));
    ASSERT(config != NULL);
    config->spec = *spec;
    config->values = calloc(2 * CONFIG_OPTIONS_MAX, sizeof(*config->values));
    ASSERT(config->values != NULL);
    for (size_t i = 0; i < spec->options_count; i++) {
        struct value *value = add_row(config, &spec->options[i]);
        if (value->option.secret) add_secret_file_row(config, value);
    }
    add_row(config, &config_option);
    return config;
}

void config_destroy(struct config *config)
{
    if (config == NULL) return;
    for (size_t i = 0; i < config->count; i++) {
        struct value *value = &config->values[i];
        if (value->option.secret) explicit_bzero(value->text, strlen(value->text));
        free(value->text);
    }
    free(config->values);
    free(config);
}

/* ---- unknown names ---- */

static size_t smallest(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's: how many letters to insert, delete or change. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t row[NAME_LEN_MAX + 1];

    if (a_len > NAME_LEN_MAX || b_len > NAME_LEN_MAX) return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            const size_t changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smallest(row[j] + 1, row[j - 1] + 1, changed);
        }
    }
    return row[b_len];
}

/* The name in scope that was probably meant; NULL if none is near. */
static const char *nearest(const struct config *config, const char *name, size_t len)
{
    const char *best = NULL;
    size_t best_distance = len / 3 + 2;

    for (size_t i = 0; i < config->count; i++) {
        const char *have = config->values[i].option.name;
        if (!in_scope(config, &config->values[i])) continue;
        const bool starts = len >= 3 && strncmp(have, name, len) == 0;
        const size_t distance = starts ? 1 : edit_distance(name, len, have, strlen(have));
        if (distance >= best_distance) continue;
        best_distance = distance;
        best = have;
    }
    return best;
}

static enum status unknown(const struct config *config, const char *where, const char *dashes,
                           const char *name, size_t len, struct errmsg *err)
{
    const char *near = nearest(config, name, len);

    if (near == NULL)
        return errmsg_set(err, STATUS_INVALID, "%sunknown option %s%.*s; --help lists them", where,
                          dashes, (int)len, name);
    return errmsg_set(err, STATUS_INVALID, "%sunknown option %s%.*s; did you mean %s%s?", where,
                      dashes, (int)len, name, dashes, near);
}

/* ---- flags ---- */

static struct value *find_flag(const struct config *config, const char *name, size_t len)
{
    struct value *value = find(config, name, len);
    return value != NULL && in_scope(config, value) ? value : NULL;
}

/* "--no-name" of a bool; NULL if it is not one. */
static struct value *find_negated(const struct config *config, const char *name, size_t len)
{
    if (len <= 3 || memcmp(name, "no-", 3) != 0) return NULL;
    struct value *value = find_flag(config, name + 3, len - 3);
    return value != NULL && value->option.type == CONFIG_BOOL ? value : NULL;
}

static const char prefix[] = "YOLK_";

static void variable_name(const char *option, char out[NAME_LEN_MAX + sizeof(prefix)])
{
    size_t at = sizeof(prefix) - 1;

    memcpy(out, prefix, at);
    for (const char *c = option; *c != '\0'; c++)
        out[at++] = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    out[at] = '\0';
}

/* Without what was given as it. */
static enum status refuse_seen(const struct value *value, struct errmsg *err)
{
    char variable[NAME_LEN_MAX + sizeof(prefix)];

    variable_name(value->option.name, variable);
    return errmsg_set(err, STATUS_INVALID,
                      "--%s: other users can see command lines; it is taken from %s in the "
                      "environment, or from --%s-file FILE",
                      value->option.name, variable, value->option.name);
}

/* Takes the flag at args[*index], and the argument behind it when that is its value. */
static enum status load_flag(struct config *config, int args_count, char *const *args, int *index,
                             struct errmsg *err)
{
    const char *name = args[*index] + 2;
    const char *equals = strchr(name, '=');
    const size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    char where[NAME_LEN_MAX + 3];

    struct value *value = find_flag(config, name, len);
    if (value == NULL && equals == NULL) {
        struct value *negated = find_negated(config, name, len);
        if (negated != NULL) return set_value(negated, FROM_FLAG, args[*index], "false", err);
    }
    if (value == NULL) return unknown(config, "", "--", name, len, err);

    if (value->option.unseen) return refuse_seen(value, err);
    snprintf(where, sizeof(where), "--%s", value->option.name);
    if (equals != NULL) return set_value(value, FROM_FLAG, where, equals + 1, err);
    if (value->option.type == CONFIG_BOOL) return set_value(value, FROM_FLAG, where, "true", err);
    if (*index + 1 == args_count)
        return errmsg_set(err, STATUS_INVALID, "%s needs a value, %s", where,
                          expectation(&value->option));
    (*index)++;
    return set_value(value, FROM_FLAG, where, args[*index], err);
}

static enum status load_position(struct config *config, const char *arg, struct errmsg *err)
{
    if (config->positions_count == config->spec.positions_max)
        return errmsg_set(err, STATUS_INVALID, "unexpected argument \"%s\"; usage: %s", arg,
                          config->spec.usage);
    config->positions[config->positions_count++] = arg;
    return STATUS_OK;
}

enum status config_load_args(struct config *config, int args_count, char *const *args,
                             struct errmsg *err)
{
    enum status status = STATUS_OK;
    bool only_positions = false;

    for (int i = 0; i < args_count && status == STATUS_OK; i++) {
        const char *arg = args[i];
        if (only_positions || arg[0] != '-' || arg[1] == '\0') {
            status = load_position(config, arg, err);
        } else if (strcmp(arg, "--") == 0) {
            only_positions = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            config->wants_help = true;
        } else if (arg[1] == '-') {
            status = load_flag(config, args_count, args, &i, err);
        } else {
            status = unknown(config, "", "", arg, strlen(arg), err);
        }
    }
    return status;
}

/* ---- variables ---- */

static struct value *find_variable(const struct config *config, const char *name, size_t len)
{
    char have[NAME_LEN_MAX + sizeof(prefix)];

    for (size_t i = 0; i < config->count; i++) {
        variable_name(config->values[i].option.name, have);
        if (strlen(have) == len && memcmp(have, name, len) == 0) return &config->values[i];
    }
    return NULL;
}

static enum status load_variable(struct config *config, const char *variable, struct errmsg *err)
{
    char where[NAME_LEN_MAX + sizeof(prefix)];
    const char *equals = strchr(variable, '=');

    if (equals == NULL || strncmp(variable, prefix, sizeof(prefix) - 1) != 0) return STATUS_OK;
    const size_t len = (size_t)(equals - variable);
    struct value *value = find_variable(config, variable, len);
    if (value == NULL) {
        LOG_WARN("config", "unknown_variable", "name=%.*s", (int)len, variable);
        return STATUS_OK;
    }
    if (!in_scope(config, value)) return STATUS_OK;
    variable_name(value->option.name, where);
    return set_value(value, FROM_VARIABLE, where, equals + 1, err);
}

enum status config_load_variables(struct config *config, char *const *variables, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (; *variables != NULL && status == STATUS_OK; variables++)
        status = load_variable(config, *variables, err);
    return status;
}

/* ---- the file ---- */

struct span {
    const char *at;
    size_t len;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct span trim(struct span span)
{
    while (span.len > 0 && is_blank(span.at[0])) {
        span.at++;
        span.len--;
    }
    while (span.len > 0 && is_blank(span.at[span.len - 1]))
        span.len--;
    return span;
}

/* Without the comment: from a '#' at the start or behind a blank, outside quotes. */
static struct span strip_comment(struct span line)
{
    bool quoted = false;

    for (size_t i = 0; i < line.len; i++) {
        if (line.at[i] == '"') quoted = !quoted;
        if (line.at[i] != '#' || quoted) continue;
        if (i == 0 || is_blank(line.at[i - 1])) line.len = i;
    }
    return line;
}

static struct span unquote(struct span value)
{
    if (value.len < 2 || value.at[0] != '"' || value.at[value.len - 1] != '"') return value;
    return (struct span){ value.at + 1, value.len - 2 };
}

static enum status load_line(struct config *config, const char *origin, unsigned number,
                             struct span line, struct errmsg *err)
{
    char where[128], text[CONFIG_VALUE_LEN_MAX + 1];

    line = trim(strip_comment(line));
    if (line.len == 0) return STATUS_OK;
    snprintf(where, sizeof(where), "%.60s:%u: ", origin, number);
    const char *equals = memchr(line.at, '=', line.len);
    if (equals == NULL) return errmsg_set(err, STATUS_INVALID, "%sexpected name = value", where);

    const struct span name = trim((struct span){ line.at, (size_t)(equals - line.at) });
    struct span content = { equals + 1, line.len - (size_t)(equals + 1 - line.at) };
    content = unquote(trim(content));
    struct value *value = find(config, name.at, name.len);
    if (value == NULL) return unknown(config, where, "", name.at, name.len, err);
    if (value == find(config, "config", strlen("config")))
        return errmsg_set(err, STATUS_INVALID, "%sa file cannot name another one", where);
    if (!in_scope(config, value)) return STATUS_OK;
    if (content.len > CONFIG_VALUE_LEN_MAX || memchr(content.at, '\0', content.len) != NULL)
        return errmsg_set(err, STATUS_INVALID, "%sthe value is too long or binary", where);
    memcpy(text, content.at, content.len);
    text[content.len] = '\0';
    const size_t used = strlen(where);
    snprintf(where + used, sizeof(where) - used, "%.60s", value->option.name);
    return set_value(value, FROM_FILE, where, text, err);
}

enum status config_load_text(struct config *config, const char *origin, const char *text,
                             size_t len, struct errmsg *err)
{
    enum status status = STATUS_OK;
    unsigned number = 0;

    while (len > 0 && status == STATUS_OK) {
        const char *newline = memchr(text, '\n', len);
        const size_t line_len = newline != NULL ? (size_t)(newline - text) : len;
        const size_t step = newline != NULL ? line_len + 1 : line_len;
        status = load_line(config, origin, ++number, (struct span){ text, line_len }, err);
        text += step;
        len -= step;
    }
    return status;
}

static enum status load_file(struct config *config, struct env *env, struct errmsg *err)
{
    const char *path = config_text(config, "config");
    char *text = NULL;
    size_t len = 0;

    if (path[0] == '\0') return STATUS_OK;
    enum status status = env_file_read_all(env, path, CONFIG_FILE_SIZE_MAX, &text, &len, err);
    if (status != STATUS_OK) return status;
    status = config_load_text(config, path, text, len, err);
    explicit_bzero(text, len);
    free(text);
    return status;
}

/* The value of a secret from the file that its -file option names, as strong as that option. */
static enum status load_secret(const struct value *file, struct env *env, struct errmsg *err)
{
    char where[NAME_LEN_MAX + 3];
    char *text = NULL;
    size_t len = 0;

    enum status status = env_file_read_all(env, file->text, CONFIG_VALUE_LEN_MAX, &text, &len, err);
    if (status != STATUS_OK) return status;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = '\0';
    snprintf(where, sizeof(where), "--%s", file->option.name);
    if (len == 0 || strlen(text) != len) {
        status = errmsg_set(err, STATUS_INVALID, "%s: %s holds no text", where, file->text);
    } else {
        status = set_value(file->secret, file->source, where, text, err);
    }
    explicit_bzero(text, len);
    free(text);
    return status;
}

static enum status load_secrets(struct config *config, struct env *env, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < config->count && status == STATUS_OK; i++) {
        const struct value *file = &config->values[i];
        if (file->secret == NULL || file->text[0] == '\0') continue;
        status = load_secret(file, env, err);
    }
    return status;
}

/* ---- options without effect ---- */

static bool is_empty(const struct value *value)
{
    const enum config_type type = value->option.type;
    const bool words = type == CONFIG_TEXT || type == CONFIG_PATH;
    return words ? value->text[0] == '\0' : value->number == 0 && type != CONFIG_CHOICE;
}

static enum status check_verb(const struct config *config, const struct config_option *option,
                              struct errmsg *err)
{
    const unsigned of = option->verbs_of == 0 ? option->scope : option->verbs_of;
    uint64_t index;

    if (option->verbs == NULL || (of & config->spec.scope) == 0) return STATUS_OK;
    if (config->positions_count == 0) return STATUS_OK;
    if (parse_choice(option->verbs, config->positions[0], &index)) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--%s has no effect with `%.40s`, only with %s",
                      option->name, config->positions[0], option->verbs);
}

static enum status check_needs(const struct config *config, const struct config_option *option,
                               struct errmsg *err)
{
    if (option->needs == NULL) return STATUS_OK;
    const struct value *needed = find(config, option->needs, strlen(option->needs));
    ASSERT(needed != NULL);
    if (!is_empty(needed)) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "--%s has no effect without --%s", option->name,
                      option->needs);
}

static enum status check_effects(const struct config *config, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < config->count && status == STATUS_OK; i++) {
        const struct value *value = &config->values[i];
        if (value->source != FROM_FLAG) continue;
        status = check_verb(config, &value->option, err);
        if (status == STATUS_OK) status = check_needs(config, &value->option, err);
    }
    return status;
}

enum status config_load(struct config *config, struct env *env, int args_count, char *const *args,
                        char *const *variables, struct errmsg *err)
{
    enum status status = config_load_args(config, args_count, args, err);
    if (status != STATUS_OK || config->wants_help) return status;
    status = config_load_variables(config, variables, err);
    if (status != STATUS_OK) return status;
    status = load_file(config, env, err);
    if (status != STATUS_OK) return status;
    status = load_secrets(config, env, err);
    if (status != STATUS_OK) return status;
    if (config->positions_count < config->spec.positions_min)
        return errmsg_set(err, STATUS_INVALID, "an argument is missing; usage: %s",
                          config->spec.usage);
    return check_effects(config, err);
}

/* ---- reading ---- */

static const struct value *get(const struct config *config, const char *name)
{
    const struct value *value = find(config, name, strlen(name));
    ASSERT(value != NULL);
    ASSERT(in_scope(config, value));
    return value;
}

bool config_wants_help(const struct config *config)
{
    return config->wants_help;
}

bool config_bool(const struct config *config, const char *name)
{
    const struct value *value = get(config, name);
    ASSERT(value->option.type == CONFIG_BOOL);
    return value->number != 0;
}

uint64_t config_u64(const struct config *config, const char *name)
{
    const struct value *value = get(config, name);
    const enum config_type type = value->option.type;
    ASSERT(type == CONFIG_U64 || type == CONFIG_SIZE || type == CONFIG_DURATION);
    return value->number;
}

const char *config_text(const struct config *config, const char *name)
{
    const struct value *value = get(config, name);
    const enum config_type type = value->option.type;
    ASSERT(type == CONFIG_TEXT || type == CONFIG_PATH || type == CONFIG_CHOICE);
    return value->text;
}

unsigned config_choice(const struct config *config, const char *name)
{
    const struct value *value = get(config, name);
    ASSERT(value->option.type == CONFIG_CHOICE);
    return (unsigned)value->number;
}

bool config_is_set(const struct config *config, const char *name)
{
    return get(config, name)->source != FROM_DEFAULT;
}

bool config_is_flag(const struct config *config, const char *name)
{
    return get(config, name)->source == FROM_FLAG;
}

uint32_t config_positions(const struct config *config)
{
    return config->positions_count;
}

const char *config_position(const struct config *config, uint32_t index)
{
    ASSERT(index < config->positions_count);
    return config->positions[index];
}

/* ---- printing ---- */

static const char *placeholder(const struct config_option *option)
{
    switch (option->type) {
    case CONFIG_BOOL: return "";
    case CONFIG_U64: return " N";
    case CONFIG_SIZE: return " SIZE";
    case CONFIG_DURATION: return " TIME";
    case CONFIG_TEXT:
    case CONFIG_CHOICE: return " TEXT";
    case CONFIG_PATH: return " FILE";
    }
    return "";
}

static enum status help_row(const struct config_option *option, struct buf *out)
{
    char flag[2 * NAME_LEN_MAX], variable[NAME_LEN_MAX + sizeof(prefix)], low[32], high[32];
    const char *def = default_of(option);

    if (option->unseen) {
        variable_name(option->name, variable);
        snprintf(flag, sizeof(flag), "  %s=%s", variable, placeholder(option) + 1);
    } else {
        snprintf(flag, sizeof(flag), "  --%s%s", option->name, placeholder(option));
    }
    enum status status = buf_printf(out, "%-*s %s", HELP_COLUMN, flag, option->help);
    if (status == STATUS_OK && option->type == CONFIG_CHOICE)
        status = buf_printf(out, ": %s", option->choices);
    if (status == STATUS_OK && has_range(option)) {
        print_number(option, option->min, low);
        print_number(option, option->max, high);
        status = buf_printf(out, ", %s to %s", low, high);
    }
    if (status == STATUS_OK && def[0] != '\0' && option->type != CONFIG_BOOL)
        status = buf_printf(out, " [%s]", def);
    if (status == STATUS_OK && option->type == CONFIG_BOOL && strcmp(def, "true") == 0)
        status = buf_printf(out, " [on; --no-%s]", option->name);
    return status == STATUS_OK ? buf_append_text(out, "\n") : status;
}

enum status config_help(const struct config *config, struct buf *out)
{
    enum status status =
        buf_printf(out, "usage: %s\n\n%s\n\nOptions:\n", config->spec.usage, config->spec.summary);

    for (size_t i = 0; i < config->count && status == STATUS_OK; i++) {
        if (in_scope(config, &config->values[i])) status = help_row(&config->values[i].option, out);
    }
    if (status != STATUS_OK) return status;
    return buf_printf(out,
                      "%-*s %s\n\nEvery option can also be set as %sNAME in the environment or as "
                      "`name = value` in --config FILE.\n",
                      HELP_COLUMN, "  --help", "This page", prefix);
}

enum status config_sample(const struct config *config, struct buf *out)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < config->count && status == STATUS_OK; i++) {
        const struct config_option *option = &config->values[i].option;
        if (!in_scope(config, &config->values[i]) || strcmp(option->name, "config") == 0) continue;
        status =
            buf_printf(out, "# %s\n# %s = %s\n\n", option->help, option->name, default_of(option));
    }
    return status;
}

enum status config_describe(const struct config *config, struct buf *out)
{
    static const char *const sources[] = { "default", "file", "variable", "flag" };
    enum status status = STATUS_OK;

    for (size_t i = 0; i < config->count && status == STATUS_OK; i++) {
        const struct value *value = &config->values[i];
        if (!in_scope(config, value)) continue;
        const bool hidden = value->option.secret && value->text[0] != '\0';
        status = buf_printf(out, "%s = %s # %s\n", value->option.name,
                            hidden ? "(secret)" : value->text, sources[value->source]);
    }
    return status;
}
