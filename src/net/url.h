/* SPDX-License-Identifier: Apache-2.0
 *
 * net/url.h - where a server answers, as people write it: http://HOST:PORT, https://HOST:PORT or
 * HOST:PORT, which is HTTP. Without a port a scheme has its own, 80 or 443. A path behind it is
 * skipped; a user's name before it is refused.
 *
 * Limits:  URL_HOST_SIZE. */
#ifndef NET_URL_H
#define NET_URL_H

#include <stdbool.h>

#include "base/status.h"

enum { URL_HOST_SIZE = 224, URL_ADDRESS_SIZE = 240, URL_TEXT_SIZE = 256 };

struct url {
    bool secure;                    /* https */
    char host[URL_HOST_SIZE];       /* a name or an address, that of IPv6 without brackets */
    char address[URL_ADDRESS_SIZE]; /* "host:port", as env_connect() takes it */
    char text[URL_TEXT_SIZE];       /* "scheme://host:port" */
};

/* STATUS_INVALID: err says what it should look like. */
MUST_USE enum status url_parse(const char *text, struct url *out, struct errmsg *err);

#endif
