/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_int.h - what the files of the gateway share. Visible to them only. */
#ifndef SERVE_GATEWAY_INT_H
#define SERVE_GATEWAY_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "conductor/fair.h"
#include "serve/api.h"
#include "serve/gateway.h"
#include "serve/gateway_cluster.h"
#include "serve/gateway_copies.h"
#include "serve/gateway_elastic.h"
#include "serve/gateway_metrics.h"
#include "conductor/slo.h"

struct attempt;
struct beside;
struct buf;
struct chat;
struct http_request;
struct http_server;
struct model;
struct recorder;
struct request;
struct tenant;
struct tenants;
struct tokenizer;

enum {
    GATEWAY_TEXT_SIZE = 512,
    GATEWAY_ENDS_MAX = 64,
    GATEWAY_ANSWER_SIZE_MAX =
        64 << 20, /* of a whole answer, or of what a slow client has not read */
};

struct gateway {
    struct env *env;
    struct gateway_options options; /* without its texts */
    char served_name[GATEWAY_TEXT_SIZE];
    char profile_path[GATEWAY_TEXT_SIZE];
    uint64_t started_s;

    struct model *model;
    struct tokenizer *tokenizer;
    uint32_t ends[GATEWAY_ENDS_MAX]; /* tokens that end an answer, the first ones of many */
    uint32_t ends_count;
    struct chat *chat;
    uint32_t chat_opening; /* tokens of the template behind the last message */
    uint32_t context_max;  /* ours; nodes may take less */
    size_t token_bytes_max;

    struct block_key fingerprint_of; /* the root of keys that `fingerprint` is made of */
    char fingerprint[24];

    struct tenants *tenants; /* NULL: no API keys are asked for */
    char *keys_path;         /* NULL with `tenants` */
    uint8_t salt_key[32];    /* that salts of block keys are made with */

    struct http_server *http;
    struct cluster *cluster;
    struct elastic *elastic; /* NULL: roles do not change */
    struct copies *copies;   /* NULL: nothing is copied ahead of demand */
    struct gateway_metrics *metrics;

    struct beside *besides; /* requests whose bodies are read beside the loop, newest first */
    uint32_t besides_count;
    struct request *requests; /* all, newest first */
    struct attempt *attempts; /* all, also those that have left their request */
    uint32_t requests_count;
    struct request *waiting_first, *waiting_last; /* those in WAITING, who is next first */
    struct request *placing_next;                 /* while they are placed: whose turn is next */
    struct fair fair;                             /* among tenants, of those who wait */
    struct slo_classes classes;
    bool
        paces_tokens; /* some limit on the time between tokens is set, and a policy that holds it */
    bool door;        /* ... and sequences wait in front of their decode node for that */
    double stretch;   /* of the queues of prefill nodes; 0: in the order of arrival */
    struct env_timer pump_timer;

    struct env_timer profile_timer;
    uint64_t samples_saved; /* conductor samples in the file */
    bool hits_alarm;        /* has been told */
    uint64_t hits_alarm_ns;
    struct recorder *recorder; /* NULL: nobody records */
    bool leaving;              /* not ready any more */
    bool draining;             /* and nobody is let in */
};

/* ---- gateway_request.c ---- */

/* Places waiting requests, and frees what has ended, on the next turn. */
void request_pump(struct gateway *gateway);
void request_pump_run(void *gateway); /* of pump_timer */

uint32_t request_count_waiting(const struct gateway *gateway);
/* Those that wait, and their tokens. */
void request_outside(void *gateway, struct yolk_outside *out);

/* Ends every request with an error. */
void request_end_all(struct gateway *gateway);

/* ---- gateway_tokens.c: answered at once, without a node ---- */

void gateway_tokens_route(struct gateway *gateway, struct http_request *http, enum api_kind kind);

/* Appends the text that the tokens stand for, each in the vocabulary: special ones by their names,
 * what is no text as U+FFFD. STATUS_FULL as buf_append(). */
MUST_USE enum status gateway_detokenize(const struct gateway *gateway, const uint32_t *tokens,
                                        size_t count, struct buf *out);

/* What decides answers besides the request: weights, layout of KV, ISA class. Of answers, so nodes
 * are known. */
const char *gateway_fingerprint(struct gateway *gateway);

/* ---- gateway_ask.c ---- */

/* Takes over an HTTP request for one of the two POST endpoints, and ends it in the end. */
void ask_start(struct gateway *gateway, struct http_request *http, enum api_kind kind);

/* ---- gateway_attempt.c ---- */

/* Everything that this node prefills or decodes is placed again; how many those were. */
uint32_t attempt_hand_over(void *gateway, struct cluster_ref node);

/* The node leaves: what it decodes is placed again, if another one can decode it. */
void attempt_node_leaves(void *gateway, struct cluster_ref node);

/* The node may be lost: what it decodes and has gone silent is placed again, likewise. */
void attempt_node_suspected(void *gateway, struct cluster_ref node);

/* Frees what is left of attempts; every call has ended. */
void attempt_end_all(struct gateway *gateway);

/* ---- gateway_keys.c ---- */

/* Reads the file of API keys, if one is named, and makes the key of salts from the secret. */
MUST_USE enum status gateway_keys_open(struct gateway *gateway,
                                       const struct gateway_options *options, struct errmsg *err);

/* Whose key the request comes with; NULL if it is nobody's, or none are asked for. */
struct tenant *gateway_keys_tenant(const struct gateway *gateway, const struct http_request *http);

/* False, and the request has been answered with 401: it has no key, or a wrong one. */
bool gateway_keys_admit(struct gateway *gateway, struct http_request *http);

/* What keeps the blocks of this tenant, or of this `cache_salt`, from those of others. */
struct block_key gateway_keys_salt(const struct gateway *gateway, const char *tenant,
                                   const void *salt, size_t len);

/* ---- gateway.c ---- */

/* The Conductor's time. */
double gateway_now_ms(const struct gateway *gateway);

void gateway_respond(struct gateway *gateway, struct http_request *http, int code, const char *type,
                     const char *text, size_t len);
void gateway_respond_error(struct gateway *gateway, struct http_request *http,
                           const struct api_error *error);
/* Sets X-Request-Id on the answer: the client's, if it is printable and short, or a new one. */
void gateway_request_id(struct gateway *gateway, struct http_request *http, uint64_t id,
                        char out[API_ID_SIZE]);

#endif
