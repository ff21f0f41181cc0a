/* SPDX-License-Identifier: Apache-2.0
 *
 * base/status.h - failures grouped by the largest thing they make unusable, because that is what
 * the caller decides on: retry the call, drop the connection, or stop trusting the data.
 *
 * Three kinds of trouble are never mixed. Bugs abort (ASSERT). Operating errors are an
 * `enum status`, and every function that returns one is MUST_USE. Normal answers (full, not found,
 * again) are statuses too, but are never logged as errors. Outputs are written only on success.
 *
 * A failure that a user must fix (a flag, a file, a request) also fills a `struct errmsg`, one line
 * without a full stop, untouched on success. NULL is allowed where nobody will read it. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

enum status {
    STATUS_OK = 0,
    STATUS_PENDING = 1, /* accepted; the completion callback reports the result */

    /* Only this call. */
    STATUS_AGAIN = -1,
    STATUS_FULL = -2, /* a declared limit is reached: evict, queue or refuse */
    STATUS_NOT_FOUND = -3,
    STATUS_INVALID = -4,   /* input from a peer, a user or a file is malformed */
    STATUS_NO_MEMORY = -5, /* start-up only */
    STATUS_EXISTS = -6,    /* the key, the name or the address is taken */
    STATUS_BUSY = -7,      /* leased, pinned or in use: try later */
    STATUS_TIMEOUT = -8,   /* the deadline passed before the answer */
    STATUS_CANCELLED = -9, /* the caller, or the caller's caller, gave up */
    STATUS_UNSUPPORTED = -10,
    STATUS_DENIED = -11,      /* wrong secret, wrong tenant, permission */
    STATUS_UNAVAILABLE = -12, /* nobody is there who could do it: no node, no leader */
    STATUS_STALE = -13,       /* an older epoch, term, generation or attempt */
    STATUS_IO = -14,          /* the operating system said no; the log has its words */
    STATUS_QUOTA = -15,       /* a tenant's share of something that others still have */

    /* The connection. */
    STATUS_CONN_CLOSED = -100,
    STATUS_CONN_REFUSED = -101,
    STATUS_PROTOCOL = -102, /* the peer speaks another version, or garbage */

    /* The bytes. */
    STATUS_CORRUPT = -200,
};

/* A short stable name, such as "not_found"; "unknown" for a number that is no status. */
const char *status_name(enum status status);

struct errmsg {
    char text[256];
};

/* Fills *err, cutting what does not fit. NULL is allowed. Returns `status`, so that a refusal is
 * one line: return errmsg_set(err, STATUS_INVALID, "--port: %s is not a number", text); */
enum status errmsg_set(struct errmsg *err, enum status status, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

#endif
