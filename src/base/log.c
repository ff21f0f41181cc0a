/* SPDX-License-Identifier: Apache-2.0
 *
 * base/log.c - from a call site to one line.
 *
 * A line is made in the caller's stack, without the lock: the format is walked field by field, each
 * conversion is printed on its own, and a value is quoted as a whole once it is known. So a peer's
 * text can hold anything and still be one value. Then, under the lock, the line is counted against
 * its site's burst, kept in the ring of last events, and written in one write().
 *
 * Levels are cached in the site, stamped with the generation of the levels: a changed level makes
 * every cache stale at once. log_configure() is the only writer of the generation.
 *
 * The dump tries the lock once, then reads without it: the dying thread may hold it. A torn line in
 * a crash report is better than none. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real.h"
#include "base/utf8.h"

enum { MODULE_NAME_SIZE = 24, VALUE_SIZE = 1024 };

#define LEVEL_DEFAULT LOG_LEVEL_INFO

struct module_level {
    char name[MODULE_NAME_SIZE];
    enum log_level level;
};

struct levels {
    enum log_level fallback;
    uint32_t module_count;
    struct module_level modules[LOG_MODULES_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below but `generation` */
static struct levels levels = { .fallback = LEVEL_DEFAULT };
static _Atomic uint64_t generation = 1; /* of `levels`; 0 is what a fresh site has */
static void (*sink_fn)(void *ctx, const char *line, size_t len);
static void *sink_ctx;
static uint64_t (*now_fn)(void *ctx);
static void *now_ctx;
static char events[LOG_EVENTS_MAX][LOG_EVENT_SIZE]; /* NUL-terminated lines */
static uint64_t event_count;                        /* ever; the next goes to count % MAX */

static const char *const level_names[] = { "error", "warn", "info", "debug", "trace" };

/* ---- levels ---- */

static bool parse_level(const char *text, size_t len, enum log_level *out)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strlen(level_names[i]) != len || memcmp(level_names[i], text, len) != 0) continue;
        *out = (enum log_level)i;
        return true;
    }
    return false;
}

static enum status parse_item(const char *item, size_t len, struct levels *out, struct errmsg *err)
{
    const char *equals = memchr(item, '=', len);
    enum log_level level;

    if (equals == NULL) {
        if (parse_level(item, len, &out->fallback)) return STATUS_OK;
        return errmsg_set(err, STATUS_INVALID,
                          "log: '%.*s' is no level (error warn info debug trace)", (int)len, item);
    }
    const size_t name_len = (size_t)(equals - item);
    if (name_len == 0 || name_len >= MODULE_NAME_SIZE)
        return errmsg_set(err, STATUS_INVALID, "log: '%.*s' names no module", (int)len, item);
    if (!parse_level(equals + 1, len - name_len - 1, &level))
        return errmsg_set(err, STATUS_INVALID,
                          "log: '%.*s' has no level (error warn info debug trace)", (int)len, item);
    if (out->module_count == LOG_MODULES_MAX)
        return errmsg_set(err, STATUS_INVALID, "log: more than %d modules", LOG_MODULES_MAX);
    struct module_level *module = &out->modules[out->module_count++];
    memcpy(module->name, item, name_len);
    module->name[name_len] = '\0';
    module->level = level;
    return STATUS_OK;
}

enum status log_configure(const char *spec, struct errmsg *err)
{
    struct levels parsed = { .fallback = LEVEL_DEFAULT };

    while (*spec != '\0') {
        const size_t len = strcspn(spec, ",");
        if (len > 0) {
            const enum status status = parse_item(spec, len, &parsed, err);
            if (status != STATUS_OK) return status;
        }
        spec += len + (spec[len] == ',');
    }
    pthread_mutex_lock(&lock);
    levels = parsed;
    atomic_fetch_add(&generation, 1);
    pthread_mutex_unlock(&lock);
    return STATUS_OK;
}

static enum log_level level_of(const char *mod)
{
    enum log_level level;

    pthread_mutex_lock(&lock);
    level = levels.fallback;
    for (uint32_t i = 0; i < levels.module_count; i++) {
        if (strcmp(levels.modules[i].name, mod) == 0) level = levels.modules[i].level;
    }
    pthread_mutex_unlock(&lock);
    return level;
}

/* The cache is one word, so that a racing reader sees a level with the generation it belongs to. */
static enum log_level site_level(struct log_site *site, const char *mod)
{
    const uint64_t current = atomic_load_explicit(&generation, memory_order_acquire);
    const uint64_t cached = atomic_load_explicit(&site->level_cache, memory_order_relaxed);

    if (cached >> 8 == current) return (enum log_level)(cached & 0xff);
    const enum log_level level = level_of(mod);
    atomic_store_explicit(&site->level_cache, current << 8 | level, memory_order_relaxed);
    return level;
}

bool log_enabled(enum log_level level, const char *mod)
{
    return level <= level_of(mod);
}

/* Debug and above are always made, because the ring keeps them. */
bool log_wanted(struct log_site *site, enum log_level level, const char *mod)
{
    return level <= LOG_LEVEL_DEBUG || level <= site_level(site, mod);
}

/* ---- text ---- */

struct text {
    char *data;
    size_t size; /* of data; the last byte stays free for a NUL */
    size_t len;
};

static void text_add(struct text *text, const char *bytes, size_t len)
{
    const size_t room = text->size - 1 - text->len;
    if (len > room) len = room;
    memcpy(text->data + text->len, bytes, len);
    text->len += len;
}

static void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

/* Bytes at the front that may stand as they are: a character that is printed. 0: none. Besides
 * ASCII, UTF-8 without its control characters, which terminals obey as well. */
static size_t text_plain_size(const char *value, size_t len)
{
    const unsigned char lead = (unsigned char)value[0];
    const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;

    if (lead < 0x80) return lead < ' ' || lead == 0x7f ? 0 : 1;
    if (size > len || utf8_valid_prefix(value, size) != size) return 0;
    return lead == 0xc2 && (unsigned char)value[1] < 0xa0 ? 0 : size;
}

static bool needs_quotes(const char *value, size_t len)
{
    size_t size;

    if (len == 0) return true;
    for (size_t i = 0; i < len; i += size) {
        size = text_plain_size(value + i, len - i);
        if (size == 0 || strchr(" \"=\\", value[i]) != NULL) return true;
    }
    return false;
}

static void text_add_escaped(struct text *text, unsigned char byte)
{
    char escape[8];

    if (byte == '\n')
        snprintf(escape, sizeof(escape), "\\n");
    else
        snprintf(escape, sizeof(escape), "\\x%02x", byte);
    text_add_string(text, escape);
}

static void text_add_value(struct text *text, const char *value, size_t len)
{
    if (!needs_quotes(value, len)) {
        text_add(text, value, len);
        return;
    }
    text_add_string(text, "\"");
    for (size_t i = 0, size; i<len; i += size> 0 ? size : 1) {
        size = text_plain_size(value + i, len - i);
        if (value[i] == '"' || value[i] == '\\') text_add_string(text, "\\");
        if (size > 0) {
            text_add(text, value + i, size);
        } else {
            text_add_escaped(text, (unsigned char)value[i]);
        }
    }
    text_add_string(text, "\"");
}

/* ---- printf, one conversion at a time ---- */

struct conversion {
    char spec[32]; /* "%-8.3llu" */
    size_t len;
    char length[3]; /* "", "h", "hh", "l", "ll", "z", "t", "j" */
    int stars[2];   /* arguments of '*' */
    int star_count;
};

/* Copies the conversion at *fmt, which points at '%', and moves *fmt behind it. */
static void conversion_read(struct conversion *conversion, const char **fmt, va_list *args)
{
    const char *at = *fmt;
    size_t length_len = 0;

    *conversion = (struct conversion){ 0 };
    conversion->spec[conversion->len++] = *at++;
    while (*at != '\0' && strchr("-+ #0123456789.*hlztjL", *at) != NULL) {
        ASSERT(conversion->len < sizeof(conversion->spec) - 2);
        if (*at == '*') {
            ASSERT(conversion->star_count < 2);
            conversion->stars[conversion->star_count++] = va_arg(*args, int);
        }
        if (strchr("hlztj", *at) != NULL) {
            ASSERT(length_len < 2);
            conversion->length[length_len++] = *at;
        }
        conversion->spec[conversion->len++] = *at++;
    }
    ASSERT(*at != '\0');
    conversion->spec[conversion->len++] = *at++;
    *fmt = at;
}

/* The compiler has checked the whole format against the arguments at the call site; what is printed
 * here is one piece of it. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#define PRINT(value)                                                                               \
    (conversion->star_count == 0 ? snprintf(out, size, conversion->spec, (value))                  \
     : conversion->star_count == 1                                                                 \
         ? snprintf(out, size, conversion->spec, conversion->stars[0], (value))                    \
         : snprintf(out, size, conversion->spec, conversion->stars[0], conversion->stars[1],       \
                    (value)))

static int print_integer(const struct conversion *conversion, char *out, size_t size, va_list *args)
{
    /* Signed and unsigned of one size travel alike through variable arguments. */
    if (strcmp(conversion->length, "ll") == 0) return PRINT(va_arg(*args, long long));
    if (conversion->length[0] == 'l') return PRINT(va_arg(*args, long));
    if (conversion->length[0] == 'z') return PRINT(va_arg(*args, size_t));
    if (conversion->length[0] == 't') return PRINT(va_arg(*args, ptrdiff_t));
    if (conversion->length[0] == 'j') return PRINT(va_arg(*args, intmax_t));
    return PRINT(va_arg(*args, int));
}

static size_t print_conversion(const struct conversion *conversion, char *out, size_t size,
                               va_list *args)
{
    const char kind = conversion->spec[conversion->len - 1];
    int printed = 0;

    if (kind == '%')
        printed = snprintf(out, size, "%%");
    else if (strchr("diuoxXc", kind) != NULL)
        printed = print_integer(conversion, out, size, args);
    else if (kind == 's')
        printed = PRINT(va_arg(*args, const char *));
    else if (kind == 'p')
        printed = PRINT(va_arg(*args, void *));
    else if (strchr("feEgGaF", kind) != NULL)
        printed = PRINT(va_arg(*args, double));
    else
        ASSERT(kind == 0); /* a conversion that the log does not know */
    if (printed < 0) return 0;
    return (size_t)printed < size ? (size_t)printed : size - 1;
}
#pragma GCC diagnostic pop

/* Fields are separated by the blanks of the format; blanks inside a value come from arguments. */
static void text_add_fields(struct text *text, const char *fmt, va_list *args)
{
    while (*fmt != '\0') {
        char value[VALUE_SIZE];
        size_t len = 0;

        if (*fmt == ' ') {
            fmt++;
            continue;
        }
        /* The key is literal text up to '='. A word without one is printed as it stands. */
        const size_t key_len = strcspn(fmt, "=% ");
        text_add_string(text, " ");
        if (fmt[key_len] == '=') {
            text_add(text, fmt, key_len + 1);
            fmt += key_len + 1;
        }
        while (*fmt != '\0' && *fmt != ' ') {
            if (*fmt == '%') {
                struct conversion conversion;
                conversion_read(&conversion, &fmt, args);
                len += print_conversion(&conversion, value + len, sizeof(value) - len, args);
            } else {
                if (len < sizeof(value) - 1) value[len++] = *fmt;
                fmt++;
            }
        }
        text_add_value(text, value, len);
    }
}

/* Civil date from a count of days since 1970-01-01 (proleptic Gregorian): eras of 400 years that
 * start on 1 March, so that the leap day is the last of its year. */
static void text_add_stamp(struct text *text, uint64_t wall_ns)
{
    const uint64_t seconds = wall_ns / ENV_NS_PER_S;
    const uint64_t days = seconds / 86400 + 719468;
    const unsigned era_day = (unsigned)(days % 146097);
    const unsigned era_year = (era_day - era_day / 1460 + era_day / 36524 - era_day / 146096) / 365;
    const unsigned year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    const unsigned month_from_march = (5 * year_day + 2) / 153;
    const unsigned day = year_day - (153 * month_from_march + 2) / 5 + 1;
    const unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    const unsigned year = (unsigned)(days / 146097) * 400 + era_year + (month <= 2);
    const unsigned second = (unsigned)(seconds % 86400);
    char stamp[64];

    snprintf(stamp, sizeof(stamp), "ts=%04u-%02u-%02uT%02u:%02u:%02u.%06uZ", year, month, day,
             second / 3600, second / 60 % 60, second % 60,
             (unsigned)(wall_ns % ENV_NS_PER_S / ENV_NS_PER_US));
    text_add_string(text, stamp);
}

/* ---- lines ---- */

/* False: not to be printed. On true *suppressed is how many were not since the last that was. */
static bool site_admits(struct log_site *site, enum log_level level, uint64_t now_ns,
                        uint32_t *suppressed)
{
    if (level >= LOG_LEVEL_DEBUG) return true; /* asked for explicitly: all of it */
    if (now_ns < site->window_start_ns || now_ns - site->window_start_ns >= ENV_NS_PER_S) {
        site->window_start_ns = now_ns;
        site->window_count = 0;
    }
    if (site->window_count == LOG_SITE_BURST) {
        site->suppressed++;
        return false;
    }
    site->window_count++;
    *suppressed = site->suppressed;
    site->suppressed = 0;
    return true;
}

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        const ssize_t written = write(fd, bytes, len);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return; /* nobody is left to tell */
        bytes += written;
        len -= (size_t)written;
    }
}

static void keep_event(const char *line, size_t len)
{
    char *event = events[event_count++ % LOG_EVENTS_MAX];
    if (len > LOG_EVENT_SIZE - 1) len = LOG_EVENT_SIZE - 1;
    memcpy(event, line, len);
    event[len] = '\0';
}

static void emit(const char *line, size_t len)
{
    if (sink_fn != NULL)
        sink_fn(sink_ctx, line, len);
    else
        write_all(STDERR_FILENO, line, len);
}

void log_write(struct log_site *site, enum log_level level, const char *mod, const char *ev,
               const char *fmt, ...)
{
    const int saved_errno = errno;
    char line[LOG_LINE_MAX];
    struct text text = { .data = line, .size = sizeof(line) - 32 }; /* 32: suppressed=N, newline */
    uint32_t suppressed = 0;
    va_list args;

    pthread_mutex_lock(&lock);
    const uint64_t now_ns = now_fn != NULL ? now_fn(now_ctx) : env_real_wall_ns();
    const bool admitted = site_admits(site, level, now_ns, &suppressed);
    pthread_mutex_unlock(&lock);
    if (!admitted) return;

    text_add_stamp(&text, now_ns);
    text_add_string(&text, " level=");
    text_add_string(&text, level_names[level]);
    text_add_string(&text, " mod=");
    text_add_string(&text, mod);
    text_add_string(&text, " ev=");
    text_add_string(&text, ev);
    va_start(args, fmt);
    text_add_fields(&text, fmt, &args);
    va_end(args);
    text.size = sizeof(line);
    if (suppressed > 0) {
        char note[28];
        snprintf(note, sizeof(note), " suppressed=%u", suppressed);
        text_add_string(&text, note);
    }

    const bool printed = level <= site_level(site, mod);
    pthread_mutex_lock(&lock);
    keep_event(line, text.len);
    text_add_string(&text, "\n");
    if (printed) emit(line, text.len);
    pthread_mutex_unlock(&lock);
    errno = saved_errno;
}

void log_set_sink(void (*sink)(void *ctx, const char *line, size_t len), void *ctx)
{
    pthread_mutex_lock(&lock);
    sink_fn = sink;
    sink_ctx = ctx;
    pthread_mutex_unlock(&lock);
}

void log_set_time_source(uint64_t (*now)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&lock);
    now_fn = now;
    now_ctx = ctx;
    pthread_mutex_unlock(&lock);
}

void log_dump(int fd)
{
    const bool locked = pthread_mutex_trylock(&lock) == 0;
    const uint64_t count = event_count;
    const uint64_t first = count > LOG_EVENTS_MAX ? count - LOG_EVENTS_MAX : 0;

    write_all(fd, "--- last events ---\n", 20);
    for (uint64_t i = first; i < count; i++) {
        const char *event = events[i % LOG_EVENTS_MAX];
        write_all(fd, event, strnlen(event, LOG_EVENT_SIZE));
        write_all(fd, "\n", 1);
    }
    if (locked) pthread_mutex_unlock(&lock);
}
