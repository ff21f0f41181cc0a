/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/fetch_place.c - see the header. */
#include "cli/fetch_place.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "cli/fetch.h"

enum { LEN_MAX = 80 }; /* of a name, before its hash */

enum status fetch_place_parse(const char *text, struct fetch_place *out, struct errmsg *err)
{
    const size_t len = strcspn(text, "#");
    char open[URL_TEXT_SIZE]; /* what may be shown of it; longer hosts are refused anyway */

    snprintf(open, sizeof(open), "%.*s", (int)strcspn(text, "?#"), text);
    const enum status status = url_parse(open, &out->url, err);
    if (status != STATUS_OK) return status;
    const char *host = strstr(text, "://") + 3;
    const char *path = host + strcspn(host, "/?#");
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            return errmsg_set(err, STATUS_INVALID,
                              "%s: what follows has a blank, or a character that is not ASCII",
                              out->url.text);
    }
    const int rest = (int)(text + len - path);
    const int n =
        snprintf(out->target, sizeof(out->target), "%s%.*s", *path == '/' ? "" : "/", rest, path);
    if (n >= (int)sizeof(out->target) - URL_TEXT_SIZE)
        return errmsg_set(err, STATUS_INVALID, "%s: the URL is longer than %d bytes", out->url.text,
                          FETCH_URL_SIZE - URL_TEXT_SIZE);
    snprintf(out->shown, sizeof(out->shown), "%s%.*s", out->url.text,
             (int)strcspn(out->target, "?"), out->target);
    return STATUS_OK;
}

enum status fetch_place_move(const struct fetch_place *from, const char *location,
                             struct fetch_place *out, struct errmsg *err)
{
    char text[FETCH_URL_SIZE + URL_TEXT_SIZE];

    if (fetch_is_url(location)) {
        snprintf(text, sizeof(text), "%s", location);
    } else if (location[0] == '/' && location[1] != '/') {
        snprintf(text, sizeof(text), "%s%s", from->url.text, location);
    } else {
        return errmsg_set(err, STATUS_PROTOCOL, "%s sends us to no URL", from->shown);
    }
    const enum status status = fetch_place_parse(text, out, err);
    if (status != STATUS_OK) return status;
    if (from->url.secure && !out->url.secure)
        return errmsg_set(err, STATUS_DENIED, "%s sends us from https to %s, which is not safe",
                          from->shown, out->url.text);
    return STATUS_OK;
}

void fetch_place_host(const struct fetch_place *place, char out[URL_ADDRESS_SIZE])
{
    const struct url *url = &place->url;
    const char *port = url->secure ? ":443" : ":80";
    const size_t len = strlen(url->address), cut = strlen(port);
    const bool usual = len > cut && strcmp(url->address + len - cut, port) == 0;

    snprintf(out, URL_ADDRESS_SIZE, "%.*s", (int)(usual ? len - cut : len), url->address);
}

void fetch_place_name(const struct fetch_place *place, char out[FETCH_NAME_SIZE])
{
    const size_t end = strcspn(place->target, "?");
    const char *base = place->target;
    uint8_t digest[HASH_SHA256_SIZE];
    struct hash_stream *hash;
    size_t n = 0;

    for (const char *c = base; c < place->target + end; c++)
        if (*c == '/') base = c + 1;
    for (const char *c = base; c < place->target + end && n < LEN_MAX; c++) {
        const bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                           (*c >= '0' && *c <= '9') || *c == '_' || (*c == '.' && n > 0);
        out[n++] = plain ? *c : '-';
    }
    out[n] = '\0';
    if (n == 0) n = (size_t)snprintf(out, FETCH_NAME_SIZE, "model");
    if (n > 5 && strcmp(out + n - 5, ".gguf") == 0) n -= 5;
    hash = hash_sha256_create();
    hash_sha256_update(hash, place->url.text, strlen(place->url.text) + 1);
    hash_sha256_update(hash, place->target, strlen(place->target));
    hash_sha256_final(hash, digest);
    hash_sha256_destroy(hash);
    snprintf(out + n, FETCH_NAME_SIZE - n, "-%02x%02x%02x%02x%02x%02x", digest[0], digest[1],
             digest[2], digest[3], digest[4], digest[5]);
}
