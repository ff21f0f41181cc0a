/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker.h - a node: prefills prompts, decodes answers, and lends its memory to the pool.
 *
 * Prefill and decode nodes are the same program; the role is what the Conductor prefers to give it.
 * A worker serves the calls of serve/proto.h, owns one engine on a thread of its own
 * (serve/runner.h), and keeps the engine's KV pages in its node of the pool (store/node.h), so that
 * a local hit moves nothing and publishing a block is a commit.
 *
 * Memory:  the pool is reserved at creation and touched as it is used; each request allocates what
 *          it needs when it arrives and frees it whole when it ends.
 * Threads: everything here belongs to the env's loop thread; the engine thread is inside.
 * Limits:  sequences_max requests at once, queued ones included (beyond: refused with
 *          PROTO_CAUSE_QUEUE); decode_max decoding; pages (requests wait for them in order). */
#ifndef SERVE_WORKER_H
#define SERVE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/engine.h"
#include "serve/proto.h"

struct env;
struct model;
struct timed_options;
struct tokenizer;
struct worker; /* opaque */

enum {
    WORKER_SEQUENCES_DEFAULT = 256,
    WORKER_DECODES_DEFAULT = 64,
    WORKER_ROWS_DEFAULT = 512,
    WORKER_LEASE_MS_DEFAULT = 10000,
    WORKER_LEASE_MS_MIN = 100,
    WORKER_FETCH_QUIET_MS = 2000,
};

/* Text is copied. 0 and NULL take the default in brackets. */
struct worker_options {
    const char *name; /* unique in the cluster */
    enum proto_role role;
    const char *listen;        /* RPC, "host:port" [127.0.0.1:0] */
    const char *advertise;     /* the host others reach us at [the host of `listen`] */
    const char *transfer;      /* transfer engine, "host:port" [host of `listen`, any port] */
    const char *master;        /* RPC address ["": no membership, for tests] */
    const char *rails;         /* for KVCache data, see yolk_transfer_options [none] */
    const char *protocol;      /* between hosts, see yolk_transfer_options [tcp] */
    const char *topology;      /* file with what suits which of them [NUMA nodes decide] */
    const char *secret;        /* of the cluster [""] */
    const struct model *model; /* outlives the worker */
    const char *model_name;    /* for node.info [model_name(model)] */
    uint64_t pool_size;        /* bytes [1 GiB] */
    bool pool_populate;        /* their pages, and those of object_size, are made at start */
    uint32_t threads;          /* of the engine [one per CPU] */
    uint32_t block_tokens;     /* [ENGINE_BLOCK_TOKENS_DEFAULT] */
    uint32_t context_max;      /* [the model's] */
    enum engine_isa isa;       /* [auto] */
    enum engine_kv kv;         /* the same in the whole cluster [F16] */
    const struct timed_options *timed; /* infer/timed.h; outlives the worker [NULL: compute] */
    uint32_t sequences_max;            /* [WORKER_SEQUENCES_DEFAULT] */
    uint32_t decode_max;               /* [WORKER_DECODES_DEFAULT] */
    uint32_t rows_max;                 /* of a step [WORKER_ROWS_DEFAULT] */
    uint32_t lease_ms;         /* of permissions to push, and of the transfer engine's fences; the
                             same in the whole cluster [WORKER_LEASE_MS_DEFAULT] */
    uint32_t fetch_quiet_ms;   /* how long nothing of a fetch may come [WORKER_FETCH_QUIET_MS] */
    bool no_reuse;             /* neither finds nor publishes blocks: the pool is off */
    const char *metadata;      /* where its transfer engine is published under `name` [nowhere] */
    bool forbid_shm;           /* see yolk_transfer_options */
    bool encrypt;              /* likewise; needs a secret */
    const char *data_dir;      /* of the disk tier of the pool ["": none] */
    uint64_t disk_size;        /* bytes it may use */
    uint64_t object_size;      /* lent for values put by key, beside the pool [0] */
    uint64_t values_disk_size; /* bytes of disk below them, in data_dir [0] */
    uint64_t handover_ms; /* how long worker_drain() copies them to other nodes, if no disk keeps
                                  them [0: not at all] */
    const struct ssd_keys *disk_keys; /* of what is written there; outlive it [NULL: clear] */
    uint32_t disk_pack_level;         /* of its compression; see struct ssd_packing [0: none] */
    /* Which tokens end an answer (model/tokenizer.h knows). NULL: none does. */
    bool (*is_end)(const void *ctx, uint32_t token);
    const void *is_end_ctx;
    const struct tokenizer *tokenizer; /* for answers of a given form; outlives the worker [NULL:
                                          they are refused] */
    /* The engine is there and, with a master, we are a member: OK. Or why that will never be, with
     * one line in `error`. Once; not inside worker_create(). NULL is allowed. */
    void (*on_ready)(void *ctx, enum status status, const char *error);
    void *ctx;
};

/* The identity of KV that this model gives under this ISA class and layout: what goes into block
 * keys (struct conductor_key_identity) and is told in node.info and to the master. */
void worker_fingerprint(const struct model *model, const struct engine_layout *layout,
                        uint8_t out[PROTO_FINGERPRINT_SIZE]);

/* On success the worker listens. STATUS_INVALID for options out of range (err says which), what
 * engine_layout_query(), the listeners and the pool answer, STATUS_NO_MEMORY. */
MUST_USE enum status worker_create(struct env *env, const struct worker_options *options,
                                   struct worker **out, struct errmsg *err);

/* Leaves in good order: gateways are told (node.leaving) and place nothing here any more; what is
 * under way goes on, here or where they hand it over to; blocks may be fetched. on_drained runs
 * once, from the loop, when nothing is under way, and where gateways were told, has not been for a
 * moment. Then, or when the caller's patience ends, worker_destroy(). Once. */
void worker_drain(struct worker *worker, void (*on_drained)(void *ctx), void *ctx);

/* Fails every request (PROTO_CAUSE_SHUTDOWN), leaves the cluster, waits for the step under way. Not
 * from inside a callback. The env must turn once more afterwards. NULL is allowed. */
void worker_destroy(struct worker *worker);

const char *worker_address(const struct worker *worker); /* of its RPC server, "host:port" */
void worker_info(const struct worker *worker, struct proto_node_info *out);
void worker_status(const struct worker *worker, struct proto_node_status *out);

#endif
