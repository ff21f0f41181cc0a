/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway.h - the front door: the OpenAI API over HTTP, and the Conductor behind it.
 *
 *   POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /v1/models/{id}
 *   GET /health   200 while the process lives
 *   GET /ready    200 when a prefill and a decode node are up with the same model; 503 otherwise
 *   GET /metrics  Prometheus text
 *   GET /debug/decisions[?limit=N]  the latest decisions, as JSON
 *   GET /debug/decisions/{id}       one of them, for people
 *   GET /debug/nodes                nodes, roles and loads, as JSON
 *   GET /debug/record[?block=N]     the traffic as a trace, while it comes (serve/gateway_record.h)
 *
 * The gateway maps the model file for its tokenizer and chat template only. Who is in the cluster
 * it learns from the master, what each node holds from the node's own events. It keeps no state
 * that matters: a new gateway is as good as the old one, but for the requests that were under way.
 *
 * Threads: everything belongs to the env's thread.
 * Limits:  the options; beyond requests_max the answer is 429. */
#ifndef SERVE_GATEWAY_H
#define SERVE_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/conductor.h"

struct env;
struct gateway;      /* opaque */
struct tls_identity; /* net/tls.h */

/* Texts are copied. 0 and NULL take the default in brackets. */
struct gateway_options {
    const char *address;                 /* to listen on, "host:port" as for env_listen() */
    const struct tls_identity *identity; /* answers HTTPS under it [HTTP]; see
                                          * gateway_set_identity() */
    const char *master;                  /* RPC address of the master */
    const char *secret;                  /* of the cluster [""] */
    const char *model_path;              /* GGUF */
    const char *version;                 /* of this software, a static text; NULL: "unknown" */
    const char *api_keys;      /* file of API keys (serve/tenants.h) [everybody may ask] */
    const char *served_name;   /* what clients call the model [the file's name without .gguf] */
    const char *chat_template; /* as in model/chat.h ["auto"] */
    const char *profile_path;  /* cost profile: read at start, replaced at times [none is kept] */
    bool pool_off;             /* compute every prompt whole */
    enum yolk_placement placement; /* which prefill node a request goes to [global] */
    enum yolk_policy policy;       /* overload: what is refused; nothing while both limits are 0 */
    double ttft_slo_ms;            /* the first token is due within; 0: no limit */
    double tbt_slo_ms;             /* mean time between tokens; 0: no limit */
    const char *slo_classes;       /* limits and priorities by class (conductor/slo.h) [none] */
    /* These two are for the policy adaptive, and nothing under another or without its limit. */
    bool door;      /* under a limit between tokens sequences wait in front of their decode node */
    double stretch; /* under a limit to the first token, of the queues of prefill nodes: see
                     * yolk_conductor_options; 0: in the order of arrival */
    double inline_tbt_ms; /* short prompts are computed by their decode node, beside a step that
                           * takes no longer with one than this; 0: none are */
    uint32_t group_max;   /* prefill nodes that may share one long prompt [1: none do] */
    struct yolk_elastic_options elastic; /* nodes change their roles; off if not `on` */
    bool replicate;         /* prefixes in demand are copied ahead of it (serve/gateway_copies.h) */
    uint32_t replicate_hot; /* ... after about so many requests a minute [8] */
    double theta;         /* Conductor: fetch only if the holder has more than theta times [1.25] */
    uint32_t context_max; /* tokens [the model's; never more] */
    uint32_t requests_max;    /* in the house at once [1024] */
    uint32_t sequences_max;   /* decoded at once by one node [64] */
    uint32_t wait_ms;         /* for a node to be there [30000] */
    uint32_t queue_ms;        /* for room on the nodes that are there [120000] */
    uint32_t request_ms;      /* for a whole answer [600000] */
    uint32_t attempts_max;    /* placements of one request [16] */
    uint32_t connections_max; /* HTTP [1024] */
    uint64_t body_size_max;   /* HTTP [16 MiB] */
    uint32_t beside_size;     /* bodies of more bytes are read beside the loop [16 KiB] */
    uint32_t profile_ms;      /* between saves of a profile that changed [30000] */
};

/* Listens and starts to look for nodes. STATUS_INVALID, STATUS_UNSUPPORTED, STATUS_NOT_FOUND, ...
 * for the model file; env_listen()'s statuses for the address; err says which. A profile that
 * cannot be read is a warning, not an error. */
MUST_USE enum status gateway_create(struct env *env, const struct gateway_options *options,
                                    struct gateway **out, struct errmsg *err);

/* Before the end: /ready says no from here on, and answers close their connections, so that who
 * looks turns elsewhere. Everything else goes on. */
void gateway_leave(struct gateway *gateway);

/* Stops listening; requests under way go on. gateway_idle() tells when they have ended and their
 * answers have left. */
void gateway_drain(struct gateway *gateway);
bool gateway_idle(const struct gateway *gateway);

/* Ends every request with an error, saves the profile. NULL is allowed. Not from a callback of the
 * gateway. */
void gateway_destroy(struct gateway *gateway);

/* Another one for connections from now on, where there was one; the old one is not needed any more.
 */
void gateway_set_identity(struct gateway *gateway, const struct tls_identity *identity);

/* Reads options.api_keys again, if it was given: from now on its keys and limits hold, and tenants
 * that are still there have spent what they have spent. On failure what was there stays. */
MUST_USE enum status gateway_reload_keys(struct gateway *gateway, struct errmsg *err);

uint16_t gateway_port(const struct gateway *gateway);
bool gateway_is_ready(const struct gateway *gateway);

#endif
