/* SPDX-License-Identifier: Apache-2.0
 *
 * base/config.h - options, declared once in one table, set from four places.
 *
 * A row of the table gives an option's name, type, default, range, scope and help, and thereby:
 *   the flag              --name value, --name=value; --name and --no-name for a bool
 *   the variable          YOLK_NAME: upper case, '-' as '_'
 *   the line of a file    name = value; '#' starts a comment; "..." keeps blanks
 *   its part of --help, and of the sample file
 * A flag beats a variable, which beats the file (--config FILE or YOLK_CONFIG, added to every
 * table), which beats the default.
 *
 * One table may serve many subcommands: an option outside the scope is unknown as a flag, and
 * passed over in the environment and the file, which are shared. A name unknown to the whole table
 * is an error that names the nearest one; in the environment, which others share, it is a logged
 * warning.
 *
 * What would have no effect is an error where it was meant, as a flag: an option that needs another
 * one, or is of other verbs (`yolk store put`, `get`, ...) than the one that was given.
 *
 * A secret option `x` may also be read from a file, with the option x-file; it is never printed.
 * Other users see command lines: one that is `unseen` is no flag, x-file is.
 *
 * Values:  u64 decimal | size: bytes, or with K M G T (binary) | duration: a number with ns us ms s
 *          m h | bool: true false yes no on off 1 0 | one of the row's choices | any text | a path.
 * Threads: none; filled at start-up, read-only afterwards.
 * Limits:  CONFIG_OPTIONS_MAX rows, CONFIG_POSITIONS_MAX positional arguments, values of
 *          CONFIG_VALUE_LEN_MAX bytes, files of CONFIG_FILE_SIZE_MAX. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;
struct config; /* opaque */
struct env;

enum {
    CONFIG_OPTIONS_MAX = 256,
    CONFIG_POSITIONS_MAX = 64,
    CONFIG_VALUE_LEN_MAX = 4096,
    CONFIG_FILE_SIZE_MAX = 256 << 10,
};

enum config_type {
    CONFIG_BOOL,
    CONFIG_U64,
    CONFIG_SIZE,     /* bytes */
    CONFIG_DURATION, /* nanoseconds */
    CONFIG_TEXT,
    CONFIG_CHOICE,
    CONFIG_PATH,
};

struct config_option {
    const char *name; /* lower case, digits, '-' */
    enum config_type type;
    const char *def;     /* as a user would write it; NULL: empty text, false or 0 */
    const char *choices; /* CONFIG_CHOICE: "one|two|three" */
    uint64_t min, max;   /* of numbers, sizes and durations; both 0: any */
    unsigned scope;      /* a bit for each subcommand that takes it; the caller numbers them */
    bool secret;         /* CONFIG_TEXT only */
    const char *help;    /* one line, no full stop */
    bool unseen;         /* of a secret */
    const char *needs;   /* as a flag only beside this option, which is neither 0, false nor "" */
    const char *verbs;   /* "put|get": as a flag only with one of these as the first position... */
    unsigned verbs_of;   /* ...of these subcommands; 0: of all in scope */
};

struct config_spec {
    const struct config_option *options; /* borrowed for the config's life, like all text in it */
    size_t options_count;
    unsigned scope;      /* the bit of this subcommand */
    const char *usage;   /* "yolk serve MODEL [options]" */
    const char *summary; /* "Serves MODEL on this machine" */
    uint32_t positions_min, positions_max;
};

/* A table that contradicts itself (a default out of range, a name twice) is a bug. */
struct config *config_create(const struct config_spec *spec);
void config_destroy(struct config *config); /* NULL is allowed; wipes secrets */

/* Reads flags, variables and the file, in one go. `args` are the arguments behind the subcommand;
 * `variables` is environ. STATUS_INVALID with one line that says what is wrong and where it was
 * said. When --help or -h was given it succeeds whatever else is missing. */
MUST_USE enum status config_load(struct config *config, struct env *env, int args_count,
                                 char *const *args, char *const *variables, struct errmsg *err);

/* The three parts, for tests and for those who have no env; in any order. `origin` names the file
 * in messages. config_load() checks the number of positions, and what has no effect; these do
 * not. */
MUST_USE enum status config_load_args(struct config *config, int args_count, char *const *args,
                                      struct errmsg *err);
MUST_USE enum status config_load_variables(struct config *config, char *const *variables,
                                           struct errmsg *err);
MUST_USE enum status config_load_text(struct config *config, const char *origin, const char *text,
                                      size_t len, struct errmsg *err);

bool config_wants_help(const struct config *config);

/* Values. A name that is not in the table and this scope, or is of another type, is a bug. Text
 * lives as long as the config. */
bool config_bool(const struct config *config, const char *name);
uint64_t config_u64(const struct config *config, const char *name); /* also sizes and durations */
const char *config_text(const struct config *config, const char *name); /* also choices and paths */
unsigned config_choice(const struct config *config, const char *name);  /* index into choices */

/* A size as options of that type have it, all of the text. */
bool config_parse_size(const char *text, uint64_t *out);

/* Whether a flag, a variable or the file set it; whether a flag did. */
bool config_is_set(const struct config *config, const char *name);
bool config_is_flag(const struct config *config, const char *name);

uint32_t config_positions(const struct config *config);
const char *config_position(const struct config *config, uint32_t index);

/* Append text: the --help page; a file with every option at its default, commented out; the values
 * in force, each with where it came from, secrets as "(secret)". */
MUST_USE enum status config_help(const struct config *config, struct buf *out);
MUST_USE enum status config_sample(const struct config *config, struct buf *out);
MUST_USE enum status config_describe(const struct config *config, struct buf *out);

#endif
