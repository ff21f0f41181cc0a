/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

const char *status_name(enum status status)
{
    switch (status) {
    case STATUS_OK: return "ok";
    case STATUS_PENDING: return "pending";
    case STATUS_AGAIN: return "again";
    case STATUS_FULL: return "full";
    case STATUS_NOT_FOUND: return "not_found";
    case STATUS_INVALID: return "invalid";
    case STATUS_NO_MEMORY: return "no_memory";
    case STATUS_EXISTS: return "exists";
    case STATUS_BUSY: return "busy";
    case STATUS_TIMEOUT: return "timeout";
    case STATUS_CANCELLED: return "cancelled";
    case STATUS_UNSUPPORTED: return "unsupported";
    case STATUS_DENIED: return "denied";
    case STATUS_UNAVAILABLE: return "unavailable";
    case STATUS_STALE: return "stale";
    case STATUS_IO: return "io";
    case STATUS_QUOTA: return "quota";
    case STATUS_CONN_CLOSED: return "conn_closed";
    case STATUS_CONN_REFUSED: return "conn_refused";
    case STATUS_PROTOCOL: return "protocol";
    case STATUS_CORRUPT: return "corrupt";
    }
    return "unknown";
}

enum status errmsg_set(struct errmsg *err, enum status status, const char *fmt, ...)
{
    if (err == NULL) return status;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    return status;
}
