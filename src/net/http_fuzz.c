/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_fuzz.c - the request parser over foreign bytes.
 *
 * The same input is parsed whole and cut at places that its own bytes choose; where the network
 * cuts must not matter: the same requests, with the same strings, or the same refusal. */
#include "net/http_int.h"

#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { HEAD_SIZE_MAX = 512, BODY_SIZE_MAX = 256, REQUESTS_MAX = 32 };

/* What a parse came to, for comparison. */
struct digest {
    unsigned requests;
    int error;
    size_t left; /* bytes of an unfinished request */
    uint64_t hash;
};

static void mix(struct digest *digest, const void *data, size_t len)
{
    digest->hash = digest->hash * 31 + hash_xxh3(data, len);
}

static void take_request(struct digest *digest, const struct http_parse *parse)
{
    static const char *const names[] = { "Host", "Content-Length", "Expect", "X" };
    size_t len;

    const char *body = http_parse_body(parse, &len);
    ASSERT(len <= BODY_SIZE_MAX && body[len] == '\0');
    mix(digest, body, len);
    mix(digest, http_parse_method(parse), strlen(http_parse_method(parse)));
    mix(digest, http_parse_path(parse), strlen(http_parse_path(parse)));
    mix(digest, http_parse_query(parse), strlen(http_parse_query(parse)));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = http_parse_header(parse, names[i]);
        if (value == NULL) continue;
        ASSERT(strpbrk(value, "\r\n") == NULL);
        mix(digest, value, strlen(value));
    }
    digest->hash += http_parse_keeps_alive(parse) + 2u * http_parse_is_1_1(parse);
    digest->requests++;
}

/* Bytes of the next piece: all that is left, or a few, as the input says. */
static size_t piece_size(const uint8_t *data, size_t left, bool is_cut)
{
    const size_t size = (data[0] * 7u + left) % 11 + 1;
    return is_cut && size < left ? size : left;
}

/* Feeds one request; returns how many bytes it took, or sets the error. */
static size_t parse_one(const uint8_t *data, size_t len, bool is_cut, struct digest *digest)
{
    const struct http_limits limits = { HEAD_SIZE_MAX, BODY_SIZE_MAX };
    struct http_parse *parse = http_parse_create(&limits);
    size_t at = 0;

    ASSERT(parse != NULL);
    while (at < len && http_parse_state(parse) < HTTP_PARSE_DONE) {
        const size_t size = piece_size(data + at, len - at, is_cut);
        const size_t n = http_parse_feed(parse, (const char *)data + at, size);
        ASSERT(n <= size);
        ASSERT(n == size || http_parse_state(parse) >= HTTP_PARSE_DONE);
        at += n;
    }
    const enum http_parse_state state = http_parse_state(parse);
    if (state == HTTP_PARSE_DONE) take_request(digest, parse);
    if (state < HTTP_PARSE_DONE) digest->left = at;
    if (state == HTTP_PARSE_FAILED) {
        const char *message = NULL;
        digest->error = http_parse_error(parse, &message);
        ASSERT(message != NULL && strpbrk(message, "\"\\") == NULL); /* it goes into JSON */
        ASSERT(digest->error >= 400 && digest->error <= 599);
    }
    http_parse_destroy(parse);
    return at;
}

static struct digest parse_all(const uint8_t *data, size_t len, bool is_cut)
{
    struct digest digest = { 0 };

    while (len > 0 && digest.error == 0 && digest.left == 0 && digest.requests < REQUESTS_MAX) {
        const size_t n = parse_one(data, len, is_cut, &digest);
        ASSERT(n > 0 || digest.error != 0);
        data += n;
        len -= n;
    }
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct digest whole = parse_all(data, len, false);
    const struct digest cut = parse_all(data, len, true);

    ASSERT(whole.requests == cut.requests && whole.hash == cut.hash);
    ASSERT(whole.error == cut.error && whole.left == cut.left);
    return 0;
}
