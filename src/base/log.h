/* SPDX-License-Identifier: Apache-2.0
 *
 * base/log.h - logfmt lines on stderr, and the last events for whoever reads a crash.
 *
 *     LOG_WARN("transfer", "session_closed", "peer=%s reason=%s", peer, status_name(status));
 *     ts=2026-01-02T03:04:05.678901Z level=warn mod=transfer ev=session_closed peer=n3 ...
 *
 * The format is a list of `key=value` fields separated by spaces; a value is a printf conversion
 * or literal text. A value that contains a space, a quote, '=', a control character or what is not
 * UTF-8 is quoted and escaped, so that foreign text can neither break a line nor forge a field, nor
 * reach the terminal; formats bring no quotes of their own. No fields: pass "".
 * Module and event names are stable, lower case and greppable; they and the format are literals.
 *
 * Levels. error: an operator must act; warn: we coped; info: once per process or connection;
 * debug: proportional to objects; trace: proportional to operations. The level is global with
 * exceptions per module (log_configure). error, warn and info are rate-limited per call site
 * (LOG_SITE_BURST lines a second); what was left out is counted in suppressed=N on the next line.
 *
 * The last LOG_EVENTS_MAX events, debug included whatever the level, stay in memory;
 * assert_failed() dumps them.
 *
 * Threads: everything may be called from any thread.
 * Limits:  a line is cut at LOG_LINE_MAX bytes, an event in memory at LOG_EVENT_SIZE, exceptions
 *          per module at LOG_MODULES_MAX. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_TRACE,
};

enum {
    LOG_LINE_MAX = 2048,
    LOG_EVENTS_MAX = 2048,
    LOG_EVENT_SIZE = 256,
    LOG_MODULES_MAX = 32,
    LOG_SITE_BURST = 20,
};

#define LOG_ERROR(mod, ev, ...) LOG_AT(LOG_LEVEL_ERROR, mod, ev, __VA_ARGS__)
#define LOG_WARN(mod, ev, ...) LOG_AT(LOG_LEVEL_WARN, mod, ev, __VA_ARGS__)
#define LOG_INFO(mod, ev, ...) LOG_AT(LOG_LEVEL_INFO, mod, ev, __VA_ARGS__)
#define LOG_DEBUG(mod, ev, ...) LOG_AT(LOG_LEVEL_DEBUG, mod, ev, __VA_ARGS__)
#define LOG_TRACE(mod, ev, ...) LOG_AT(LOG_LEVEL_TRACE, mod, ev, __VA_ARGS__)

/* Sets the levels from text such as "info", "warn,transfer=debug,rpc=trace" (the option --log and
 * YOLK_LOG). STATUS_INVALID leaves the levels as they were. The default is "info". */
MUST_USE enum status log_configure(const char *spec, struct errmsg *err);

/* True if a line of this level and module would be printed: for work done only to be logged. */
bool log_enabled(enum log_level level, const char *mod);

/* Lines go to sink(ctx, line, len), newline included, instead of stderr; NULL: stderr again. The
 * sink runs under the log's lock and must not log. */
void log_set_sink(void (*sink)(void *ctx, const char *line, size_t len), void *ctx);

/* Stamps and rate limits use now(ctx), nanoseconds since the Unix epoch; NULL: the real clock. */
void log_set_time_source(uint64_t (*now)(void *ctx), void *ctx);

/* Writes the events in memory, oldest first, to a file descriptor. Safe while the process dies. */
void log_dump(int fd);

/* ---- what the macros need ---- */

struct log_site {
    _Atomic uint64_t level_cache; /* generation of the levels << 8 | level of this module */
    uint64_t window_start_ns;     /* the rest is under the log's lock */
    uint32_t window_count;
    uint32_t suppressed;
};

/* The site is static storage: one per line of source. The leading blank lets "" be a format. */
#define LOG_AT(level, mod, ev, ...)                                                                \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        if (log_wanted(&log_site_, (level), (mod)))                                                \
            log_write(&log_site_, (level), (mod), (ev), " " __VA_ARGS__);                          \
    } while (0)

bool log_wanted(struct log_site *site, enum log_level level, const char *mod);
void log_write(struct log_site *site, enum log_level level, const char *mod, const char *ev,
               const char *fmt, ...) PRINTF_LIKE(5, 6);

#endif
