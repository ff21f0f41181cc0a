/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/fetch_place.h - where a file is that fetch.h gets: its URL taken apart. Pure.
 *
 * What is behind '?' may be a secret: it is in `target` alone, and in no message. */
#ifndef CLI_FETCH_PLACE_H
#define CLI_FETCH_PLACE_H

#include "base/status.h"
#include "net/url.h"

enum { FETCH_URL_SIZE = 2048, FETCH_NAME_SIZE = 128 };

struct fetch_place {
    struct url url;
    char target[FETCH_URL_SIZE]; /* path and query, as a request has them */
    char shown[FETCH_URL_SIZE];  /* for people: without the query */
};

/* A URL by fetch_is_url(); what is behind '#' is passed over. STATUS_INVALID. */
MUST_USE enum status fetch_place_parse(const char *text, struct fetch_place *out,
                                       struct errmsg *err);

/* Where `from` sends us by its header Location. STATUS_PROTOCOL if that is no URL, STATUS_DENIED
 * if it leads from https to http. */
MUST_USE enum status fetch_place_move(const struct fetch_place *from, const char *location,
                                      struct fetch_place *out, struct errmsg *err);

/* The header Host: without the port that the scheme has anyway, for signatures of URLs cover it. */
void fetch_place_host(const struct fetch_place *place, char out[URL_ADDRESS_SIZE]);

/* A name for a file, without a suffix: of the end of the path what may stand in one, and a hash of
 * the URL. */
void fetch_place_name(const struct fetch_place *place, char out[FETCH_NAME_SIZE]);

#endif
