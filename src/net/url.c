/* SPDX-License-Identifier: Apache-2.0
 *
 * net/url.c - see the header. */
#include "net/url.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Whether `text` begins with `scheme`, which is then skipped. */
static bool skip(const char **text, const char *scheme)
{
    const size_t len = strlen(scheme);

    if (strncmp(*text, scheme, len) != 0) return false;
    *text += len;
    return true;
}

/* 1 to 65535, in digits alone; 0: it is none. */
static uint32_t port_of(const char *digits, size_t len)
{
    uint32_t port = 0;

    if (len == 0 || len > 5) return 0;
    for (size_t i = 0; i < len; i++) {
        if (digits[i] < '0' || digits[i] > '9') return 0;
        port = port * 10 + (uint32_t)(digits[i] - '0');
    }
    return port <= UINT16_MAX ? port : 0;
}

/* A host may stand in a header and in a log: nothing of it ends a line or a word. */
static bool is_host(const char *host, size_t len, const char *but)
{
    for (size_t i = 0; i < len; i++)
        if (host[i] <= ' ' || host[i] > '~' || strchr(but, host[i]) != NULL) return false;
    return len > 0 && len < URL_HOST_SIZE;
}

/* Takes "host", "host:port" or "[address]:port" of `len` bytes apart; *port stays without one. */
static bool split(const char *at, size_t len, char host[URL_HOST_SIZE], uint32_t *port)
{
    const char *bracket = at[0] == '[' ? memchr(at, ']', len) : NULL;
    const char *first = bracket != NULL ? at + 1 : at;
    const char *end = bracket != NULL ? bracket : memchr(at, ':', len);

    if (end == NULL) end = at + len;
    if (!is_host(first, (size_t)(end - first), bracket != NULL ? "@[]\"\\" : "@[]\"\\:"))
        return false;
    memcpy(host, first, (size_t)(end - first));
    host[end - first] = '\0';
    if (bracket != NULL) end++;
    const size_t rest = (size_t)(at + len - end);
    if (rest > 0) *port = *end == ':' ? port_of(end + 1, rest - 1) : 0;
    return *port != 0;
}

enum status url_parse(const char *text, struct url *out, struct errmsg *err)
{
    const char *at = text;
    struct url url = { .secure = skip(&at, "https://") };
    uint32_t port = url.secure ? 443 : skip(&at, "http://") ? 80 : 0;

    if (!split(at, strcspn(at, "/?#"), url.host, &port))
        return errmsg_set(err, STATUS_INVALID,
                          "`%.150s` is not of the form http://HOST:PORT or https://HOST:PORT",
                          text);
    const bool brackets = strchr(url.host, ':') != NULL;
    snprintf(url.address, sizeof(url.address), "%s%s%s:%u", brackets ? "[" : "", url.host,
             brackets ? "]" : "", port);
    snprintf(url.text, sizeof(url.text), "%s://%s", url.secure ? "https" : "http", url.address);
    *out = url;
    return STATUS_OK;
}
