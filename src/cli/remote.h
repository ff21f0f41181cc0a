/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/remote.h - the gateway that --url names, as top, explain, replay, run and trace record reach
 * it: by HTTP, or by HTTPS believing whom --tls-ca names, and only if the certificate is for the
 * host; showing the key of YOLK_API_KEY or --api-key-file, and the certificate of --tls-cert.
 *
 * Threads: the env's. */
#ifndef CLI_REMOTE_H
#define CLI_REMOTE_H

#include <stdbool.h>

#include "base/status.h"
#include "net/url.h"

struct buf;
struct cli;
struct env;
struct http_reply;
struct tls_identity;

enum { REMOTE_KEY_LEN_MAX = 256, REMOTE_HEADERS_SIZE = REMOTE_KEY_LEN_MAX + 80 };

struct remote {
    struct env *env;
    struct url url;
    struct tls_identity *identity;     /* NULL: HTTP */
    bool has_certificate;              /* of its own */
    char headers[REMOTE_HEADERS_SIZE]; /* of a request with JSON; a secret, if there is a key */
};

/* What the options above say; nobody is called yet. Nothing to close on failure. */
MUST_USE enum status remote_open(struct cli *cli, struct remote *out, struct errmsg *err);
/* When no request is under way. Wipes the key. */
void remote_close(struct remote *remote);

/* Of its headers the one with the key, as a line; "": there is no key. */
const char *remote_authorization(const struct remote *remote);

/* GETs `path`, waits for the answer, and appends it to `body`, as far as there is room.
 * STATUS_NOT_FOUND: it was 404. err is what remote_trouble() says. */
MUST_USE enum status remote_get(const struct remote *remote, const char *path, struct buf *body,
                                struct errmsg *err);

/* Says in one line what is wrong with an answer that is not a whole one of 200, and returns its
 * status, or STATUS_NOT_FOUND for 404, STATUS_DENIED for 401 and 403, and STATUS_UNAVAILABLE for
 * any other code. */
enum status remote_trouble(const struct remote *remote, const struct http_reply *reply,
                           struct errmsg *err);

#endif
