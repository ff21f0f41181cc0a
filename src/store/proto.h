/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto.h - the messages between clients, master and nodes of the pool.
 *
 * Bodies are msgpack maps with small integer keys (net/msg.h): unknown keys are skipped, absent
 * ones take the zero value, so fields can be added. Hot lists are columns. The tables of fields are
 * in docs/internals/store-protocol.md.
 *
 * Encoders append to a struct buf: STATUS_FULL if it does not fit. Decoders never trust: any input
 * gives STATUS_OK or STATUS_INVALID, and outputs borrow from the message (keys, columns), so they
 * are valid as long as it. Threads: none of this is shared. */
#ifndef STORE_PROTO_H
#define STORE_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "net/msg.h"
#include "store/events.h"
#include "store/master.h"
#include "store/member.h"
#include "store/node.h"
#include "yolk/store.h"

struct buf;

/* RPC method ids; the names in brackets appear in logs. */
enum store_method {
    STORE_METHOD_ACQUIRE = 0x0101, /* store.acquire: node; pins blocks or objects for reading */
    STORE_METHOD_RELEASE = 0x0102, /* store.release: node; ends a pin */
    STORE_METHOD_EVENTS = 0x0103,  /* store.events: node; streaming, snapshot then changes */
    STORE_METHOD_COMMIT = 0x0104,  /* store.commit: node; what a client wrote becomes a value */
    STORE_METHOD_DROP = 0x0105,    /* store.drop: node, from the master */
    STORE_METHOD_RENEW = 0x0106,   /* store.renew: node; prolongs a pin */
    STORE_METHOD_COPY = 0x0107,    /* store.copy: node, from the master; a value to another node */
    STORE_METHOD_MARK = 0x0108,    /* store.mark: node, from the master; what is wished changed */
    STORE_METHOD_COMMITS = 0x0109, /* store.commits: node; batch of commit */
    STORE_METHOD_DOUBT = 0x010a,   /* store.doubt: node; values that were wrong twice for a reader,
                                      as struct store_acquire names them */

    MASTER_METHOD_REGISTER = 0x0201,   /* master.register: from a node */
    MASTER_METHOD_BEAT = 0x0202,       /* master.beat: from a node */
    MASTER_METHOD_LEAVE = 0x0203,      /* master.leave: from a node */
    MASTER_METHOD_WATCH = 0x0204,      /* master.watch: streaming, every member then changes */
    MASTER_METHOD_EXIST = 0x0205,      /* master.exist: batch */
    MASTER_METHOD_GET = 0x0206,        /* master.get: batch */
    MASTER_METHOD_PUT_START = 0x0207,  /* master.put_start: batch */
    MASTER_METHOD_PUT_END = 0x0208,    /* master.put_end: from the owner */
    MASTER_METHOD_PUT_REVOKE = 0x0209, /* master.put_revoke */
    MASTER_METHOD_REMOVE = 0x020a,     /* master.remove: batch */
    MASTER_METHOD_LOOK = 0x020b,     /* master.look: lists, counts or removes by pattern, a page */
    MASTER_METHOD_STAT = 0x020c,     /* master.stat: numbers of the pool and its nodes */
    MASTER_METHOD_REPLICAS = 0x020d, /* master.replicas: batch; how many there should be */
    MASTER_METHOD_CLEAR = 0x0214,    /* master.clear: batch; the replicas of one node */
    MASTER_METHOD_DRAIN = 0x020e,    /* master.drain: a node's values go elsewhere */
    MASTER_METHOD_PUT_ENDS = 0x020f, /* master.put_ends: batch of put_end, from the owner */
    MASTER_METHOD_TENANTS = 0x0210,  /* master.tenants: what they have; sets a quota */
    MASTER_METHOD_PUT_REVOKES = 0x0213, /* master.put_revokes: batch of put_revoke */
    MASTER_METHOD_TASK = 0x0211,        /* master.task: copies or moves a value to named nodes */
    MASTER_METHOD_TASK_QUERY = 0x0212,  /* master.task_query: how far that is */
};

enum {
    STORE_PIECE_SIZE = 64 << 10,     /* bytes of an object under one checksum */
    STORE_OBJECT_SIZE_MAX = 1 << 30, /* bytes */
    STORE_PIECES_MAX = STORE_OBJECT_SIZE_MAX / STORE_PIECE_SIZE,
    STORE_PARTS_MAX = 2 * STORE_PIECES_MAX, /* of a value that was written in parts */
    STORE_KEYS_MAX = 65536,                 /* of one batch */
    STORE_SUMS_MAX = STORE_FETCH_BLOCKS_MAX * STORE_LAYERS_MAX,
    STORE_KNOWN_MS = 1000, /* who has a value may be remembered, from when the master was asked */
    STORE_INLINE_MAX = 1 << 20, /* bytes of values inside one answer to acquire */
    STORE_NEXT_SIZE = STORE_REPLICAS_MAX * STORE_NAME_SIZE + 1, /* of names to place at, in turn */
};

/* ---- columns of variable-length keys ---- */

/* The identity of a key: a 16-byte key is its own, any other is the first 128 bits of its SHA-256.
 * Directories compare the whole key too, so a made-up collision is an absent key, not another's. */
struct block_key store_key_id(struct store_key key);

/* How many pieces of `piece_size` > 0 bytes there are in `size`; 0 also for absurd sizes. */
uint64_t store_pieces(uint64_t size, uint32_t piece_size);

/* ---- statuses in columns ---- */

uint32_t store_status_code(enum status status);
/* STATUS_PROTOCOL for a code of no status we know. */
enum status store_status_of(uint32_t code);

/* ---- members ---- */

enum { STORE_NOTES_SIZE_MAX = 256 << 10 };

/* `notes`: what an earlier master has asked the node to remember for it (store_encode_notes());
 * borrowed from the body, empty: nothing. */
struct store_register {
    struct store_member_info info;
    uint64_t term_seen;
    struct msg_bytes notes;
};
MUST_USE enum status store_encode_register(struct buf *buf, const struct store_register *reg);
MUST_USE enum status store_decode_register(const uint8_t *body, size_t len,
                                           struct store_register *out);

/* register's reply. */
MUST_USE enum status store_encode_term(struct buf *buf, uint64_t term);
MUST_USE enum status store_decode_term(const uint8_t *body, size_t len, uint64_t *term);

/* beat's reply. */
struct store_beaten {
    uint64_t term;
    uint64_t clock_ns;      /* the master's when it answered; 0: one of before does not say */
    bool draining;          /* the node is being drained */
    uint64_t notes_version; /* 0: what the node remembers is right; else `notes` is, borrowed */
    struct msg_bytes notes;
};
MUST_USE enum status store_encode_beaten(struct buf *buf, const struct store_beaten *beaten);
MUST_USE enum status store_decode_beaten(const uint8_t *body, size_t len, struct store_beaten *out);

/* Quotas that were set while a master ran, as the nodes remember them: bytes to them. */
MUST_USE enum status store_encode_notes(struct buf *buf, const struct store_quota_note *notes,
                                        uint32_t count);
/* notes[STORE_TENANTS_MAX]. */
MUST_USE enum status store_decode_notes(struct msg_bytes bytes, struct store_quota_note *notes,
                                        uint32_t *count);

/* beat and leave. */
struct store_beat {
    char name[STORE_NAME_SIZE];
    uint64_t epoch;
    bool remembers; /* beat: notes are welcome; it has those of this version (0: none) */
    uint64_t notes_version;
    struct store_node_load load; /* beat; of a node of the release before: zero */
};
MUST_USE enum status store_encode_beat(struct buf *buf, const struct store_beat *beat);
MUST_USE enum status store_decode_beat(const uint8_t *body, size_t len, struct store_beat *out);

/* One item of master.watch. `synced`: every member has been sent. */
struct store_watch_item {
    bool has_member;
    bool gone;
    bool synced;
    uint64_t term;
    enum store_member_state state;
    struct store_member_info info;
};
MUST_USE enum status store_encode_watch(struct buf *buf, const struct store_watch_item *item);
MUST_USE enum status store_decode_watch(const uint8_t *body, size_t len,
                                        struct store_watch_item *out);

/* ---- acquire, renew, release ---- */

struct store_acquire {
    enum store_class class;
    bool prefix;                /* stop at the first one missing (blocks) */
    struct store_layout layout; /* blocks: the caller's; must match */
    const uint8_t *ids;         /* 16 bytes each */
    uint32_t count;             /* 1..STORE_FETCH_BLOCKS_MAX */
    uint32_t inline_max; /* values: those of no more bytes may come with the answer; 0: none */
    bool look; /* values: nothing is pinned, and nothing brought up from disk; who asks only wants
                  to know whether what is remembered is still so */
};
MUST_USE enum status store_encode_acquire(struct buf *buf, const struct store_acquire *request);
MUST_USE enum status store_decode_acquire(const uint8_t *body, size_t len,
                                          struct store_acquire *out);

/* `count` items, those asked for or, with `prefix`, a prefix of them. An absent item has address 0.
 * Sums of all present items follow each other: per block one a layer, per object one a piece. So
 * do the bytes of values that come inline: whole ones, STORE_INLINE_MAX in all. */
struct store_acquired {
    uint64_t pin; /* of all that is present and not inline; 0: there is no such item */
    uint64_t epoch;
    uint64_t transfer_generation;
    uint32_t lease_ms;
    uint32_t piece_size; /* bytes under one checksum; the last piece may be shorter */
    char segment[STORE_ADDRESS_SIZE];
    struct msg_column addresses;
    struct msg_column generations;
    struct msg_column sizes;
    struct msg_column sums;
    struct msg_column inlines; /* bytes of each item that are inline, its size or 0; or empty */
    struct msg_bytes bytes;
    bool vouched; /* for what is there: who was told by the master within STORE_KNOWN_MS that the
                     owner has it may read it (store/node_trust.h) */
    char board[STORE_ADDRESS_SIZE]; /* of the owner, for readers of its host (store/board.h); "":
                                       none */
};
MUST_USE enum status store_decode_acquired(const uint8_t *body, size_t len,
                                           struct store_acquired *out);

struct store_acquired_out {
    struct store_acquired head; /* columns unused */
    uint32_t count;
    const uint64_t *addresses;
    const uint64_t *generations;
    const uint64_t *sizes;
    const uint64_t *sums;
    uint32_t sums_count;
    const uint32_t *inlines; /* of each item: all of it, which lies at its address here, or 0 */
    size_t inline_len;       /* in all; 0: `inlines` is not looked at */
};
MUST_USE enum status store_encode_acquired(struct buf *buf, const struct store_acquired_out *reply);

/* renew and release. */
MUST_USE enum status store_encode_pin(struct buf *buf, uint64_t pin);
MUST_USE enum status store_decode_pin(const uint8_t *body, size_t len, uint64_t *pin);

/* ---- events ---- */

struct store_events_request {
    uint64_t term; /* of a master; 0: not a master */
    bool blocks_only;
};
MUST_USE enum status store_encode_events_request(struct buf *buf,
                                                 const struct store_events_request *request);
MUST_USE enum status store_decode_events_request(const uint8_t *body, size_t len,
                                                 struct store_events_request *out);

enum { STORE_EVENTS_RESET = 1, STORE_EVENTS_SYNCED = 2 };

/* One item of store.events: a reset comes before the events, a sync after them. */
MUST_USE enum status store_encode_events(struct buf *buf, uint64_t epoch, unsigned flags,
                                         const struct store_event *events, uint32_t count);
/* Events go to out[STORE_EVENTS_BATCH_MAX]; their keys borrow from the body. */
MUST_USE enum status store_decode_events(const uint8_t *body, size_t len, uint64_t *epoch,
                                         unsigned *flags, struct store_event *out, uint32_t *count);

/* ---- put ---- */

struct store_commit {
    struct store_key key;
    uint64_t put_id;
    uint64_t term;
    uint64_t epoch;
    uint64_t address;
    uint64_t size;
    struct msg_column sums;     /* decoded */
    const uint64_t *sums_data;  /* to encode; one a piece, or a part */
    struct msg_column parts;    /* decoded: bytes under each sum, in order, all of the value; empty:
                                   those of pieces */
    const uint32_t *parts_data; /* to encode; NULL: pieces */
    uint32_t parts_count;       /* to encode; 1..STORE_PARTS_MAX */
    struct store_attributes attributes; /* its term: of a copy, that of the value; 0: `term` */
};
MUST_USE enum status store_encode_commit(struct buf *buf, const struct store_commit *commit);
MUST_USE enum status store_decode_commit(const uint8_t *body, size_t len, struct store_commit *out);

/* Many of them, of one term and epoch (store/proto_commits.c); the reply is one status a value, as
 * exist's. No copies are among them: the terms of the values are that of the tickets. */
enum {
    STORE_COMMITS_MAX = 1024, /* values, which are STORE_OBJECT_SIZE_MAX bytes together at most */
    STORE_COMMITS_SUMS_MAX = 2 * STORE_PARTS_MAX,
};
MUST_USE enum status store_encode_commits(struct buf *buf, const struct store_commit *commits,
                                          uint32_t count);
/* How many sums one to encode has. */
uint32_t store_commit_sums(const struct store_commit *commit);
struct store_commits {
    uint64_t term;
    uint64_t epoch;
    uint32_t count; /* 1..STORE_COMMITS_MAX */
    struct msg_column lens, numbers, sums, attributes, counts, parts;
    struct msg_bytes keys;
};
MUST_USE enum status store_decode_commits(const uint8_t *body, size_t len,
                                          struct store_commits *out);
/* Walks them; all zero at first. What it gives borrows from the body. False: there are no more. */
struct store_commits_iter {
    uint32_t i;
    size_t key, sum, part;
};
bool store_commits_next(const struct store_commits *commits, struct store_commits_iter *iter,
                        struct store_commit *out);

struct store_put_end {
    char name[STORE_NAME_SIZE];
    uint64_t epoch;
    uint64_t put_id;
    uint64_t term; /* of the ticket */
    struct store_event stored;
};
MUST_USE enum status store_encode_put_end(struct buf *buf, const struct store_put_end *end);
MUST_USE enum status store_decode_put_end(const uint8_t *body, size_t len,
                                          struct store_put_end *out);

/* Many of them, of one node (store/proto_ends.c); the reply is one status a put, as exist's. */
struct store_ended {
    uint64_t put_id;
    struct store_event stored;
};
MUST_USE enum status store_encode_put_ends(struct buf *buf, const char *name, uint64_t epoch,
                                           const struct store_ended *ends, uint32_t count);
struct store_put_ends {
    char name[STORE_NAME_SIZE];
    uint64_t epoch;
    uint32_t count; /* 1..STORE_KEYS_MAX */
    struct msg_column lens, numbers, attributes, terms;
    const uint8_t *keys;
};
MUST_USE enum status store_decode_put_ends(const uint8_t *body, size_t len,
                                           struct store_put_ends *out);
/* Walks them: `i` from 0, and *offset is 0 at first. The key borrows from the body. */
void store_put_ends_at(const struct store_put_ends *ends, uint32_t i, size_t *offset,
                       struct store_ended *out);

struct store_put_revoke {
    struct store_key key;
    uint64_t put_id;
    uint64_t writer;
};
MUST_USE enum status store_encode_put_revoke(struct buf *buf,
                                             const struct store_put_revoke *revoke);
MUST_USE enum status store_decode_put_revoke(const uint8_t *body, size_t len,
                                             struct store_put_revoke *out);

/* Many of them; the reply is one status each, as exist's. */
MUST_USE enum status
store_encode_put_revokes(struct buf *buf, const struct store_put_revoke *revokes, uint32_t count);
struct store_put_revokes {
    uint32_t count; /* 1..STORE_KEYS_MAX */
    struct msg_column lens, put_ids, writers;
    struct msg_bytes keys;
};
MUST_USE enum status store_decode_put_revokes(const uint8_t *body, size_t len,
                                              struct store_put_revokes *out);
/* Walks them: `i` from 0, and *offset is 0 at first. The key borrows from the body. */
void store_put_revokes_at(const struct store_put_revokes *revokes, uint32_t i, size_t *offset,
                          struct store_put_revoke *out);

struct store_drop {
    uint64_t term;
    struct block_key id;
    uint64_t generation;
    bool evict; /* its memory is wanted: where there is a disk, it may stay there */
};
MUST_USE enum status store_encode_drop(struct buf *buf, const struct store_drop *drop);
MUST_USE enum status store_decode_drop(const uint8_t *body, size_t len, struct store_drop *out);

/* From the master to a node that has the value: what it is to announce from now on. */
struct store_mark {
    uint64_t term;
    struct block_key id;
    uint64_t generation; /* of the node's value */
    uint32_t replicas;
};
MUST_USE enum status store_encode_mark(struct buf *buf, const struct store_mark *mark);
MUST_USE enum status store_decode_mark(const uint8_t *body, size_t len, struct store_mark *out);

/* From the master to a node that has the value: where to, as in a ticket. */
struct store_copy {
    uint64_t term;
    struct block_key id;
    uint64_t generation; /* of the node's value */
    uint64_t put_id;
    char rpc_address[STORE_ADDRESS_SIZE];
    char segment[STORE_ADDRESS_SIZE];
    uint64_t address;
    uint64_t epoch;    /* of the target */
    uint32_t put_ms;   /* how long it may be written, from when this was sent */
    uint64_t until_ns; /* and until when, on the master's clock; 0: one of before does not say */
    bool hot;          /* for heat: both are announced as such from now on */
};
MUST_USE enum status store_encode_copy(struct buf *buf, const struct store_copy *copy);
MUST_USE enum status store_decode_copy(const uint8_t *body, size_t len, struct store_copy *out);

struct store_drain {
    char name[STORE_NAME_SIZE];
    bool undo;
    bool unmount;       /* the node itself says so, and has seconds; see store_master_unmount() */
    uint64_t keeps_max; /* unmount only */
};
MUST_USE enum status store_encode_drain(struct buf *buf, const struct store_drain *drain);
MUST_USE enum status store_decode_drain(const uint8_t *body, size_t len, struct store_drain *out);
/* Its reply: values that are still there, or still to go. */
MUST_USE enum status store_encode_left(struct buf *buf, uint64_t left);
MUST_USE enum status store_decode_left(const uint8_t *body, size_t len, uint64_t *left);

/* ---- batches at the master ---- */

/* exist, get, remove; put_start adds sizes, writer and preferred. */
struct store_batch {
    uint32_t count;                    /* 1..STORE_KEYS_MAX */
    struct msg_column lens;            /* decoded: of each key */
    const uint8_t *keys;               /* decoded: one after the other */
    struct msg_column sizes;           /* decoded: put_start */
    const struct store_key *keys_data; /* to encode */
    const uint64_t *sizes_data;        /* to encode; NULL for all but put_start */
    uint64_t writer;
    char preferred[STORE_NAME_SIZE]; /* put_start; of clear the node */
    const char *next; /* put_start: see struct store_wish; decoded: NULL or as it wants it */
    size_t next_len;  /* to encode: with all NULs */
    bool together;    /* put_start: each at the node of the one before, as far as it has room */
    bool force;
    bool peek;                  /* get: without a lease */
    struct msg_column reads;    /* decoded: get; see reads_data */
    const uint32_t *reads_data; /* to encode, get: how often each was read since the last question
                                   about it, without the master; NULL: never */
    /* put_start, of every key: */
    bool hard_pin;
    bool replace;
    uint32_t soft_pin_ms;
    bool soft_pin_off;
    uint32_t write_ms;        /* see struct store_wish */
    uint32_t replicas;        /* of replicas, too */
    struct msg_column groups; /* decoded: of each key, or empty; ask store_batch_wish() */
    struct msg_column costs;
    struct msg_column depths;
    const uint64_t *groups_data; /* to encode; NULL: all 0 */
    const uint32_t *costs_data;
    const uint32_t *depths_data;
};
/* What a decoded put_start wishes for its key i. */
void store_batch_wish(const struct store_batch *batch, uint32_t i, struct store_wish *out);
MUST_USE enum status store_encode_batch(struct buf *buf, const struct store_batch *batch);
/* Every key's length is in range and they add up. */
MUST_USE enum status store_decode_batch(const uint8_t *body, size_t len, struct store_batch *out);

/* Walks the keys of a decoded batch: struct store_batch_iter it = { 0 }; */
struct store_batch_iter {
    uint32_t next;
    size_t offset;
    struct store_key key;
};
bool store_batch_next(const struct store_batch *batch, struct store_batch_iter *iter);

/* The reply to exist and the like: one status a key. */
MUST_USE enum status store_encode_statuses(struct buf *buf, const uint32_t *codes, uint32_t count);
/* Of remove, which to N-1 says STATUS_BUSY for STATUS_EXISTS, too. */
MUST_USE enum status store_encode_removals(struct buf *buf, const uint32_t *codes, uint32_t count);
MUST_USE enum status store_decode_statuses(const uint8_t *body, size_t len,
                                           struct msg_column *codes);

enum { STORE_REPLY_NODES_MAX = STORE_MEMBERS_MAX };

/* A node that a get or put_start reply refers to by its place in the list. */
struct store_reply_node {
    char rpc_address[STORE_ADDRESS_SIZE];
    char segment[STORE_ADDRESS_SIZE];
    uint64_t epoch;
};

/* get's and put_start's reply. get: replicas of all items follow each other, `counts` says how many
 * each has. put_start: one a key (of status OK; unspecified for the others). */
struct store_places {
    uint32_t count; /* of items */
    uint64_t term;
    uint32_t put_ms; /* put_start: how long the writer may write, from when it asked */
    struct msg_column codes;
    struct msg_column sizes;     /* get */
    struct msg_column put_ids;   /* put_start */
    struct msg_column counts;    /* get: replicas of each item */
    struct msg_column nodes;     /* of each replica: index in the list of nodes */
    struct msg_column addresses; /* of each replica */
    struct msg_column versions;  /* put_start: of each key; empty: all 0 */
    struct msg_column pins;      /* put_start: of each key, whether what is replaced has a hard pin;
                                    empty: none has */
    struct msg_column disks;     /* get: of each replica, whether it is on disk; empty: none is */
    struct msg_column yields;    /* get: of each replica, whether those of its host, too, had better
                                    read another; empty: none */
    uint32_t nodes_count;
};
/* `nodes` has room for STORE_REPLY_NODES_MAX. */
MUST_USE enum status store_decode_places(const uint8_t *body, size_t len, struct store_places *out,
                                         struct store_reply_node *nodes);

/* Of a get, whether replica `i` of all of them is on disk. */
bool store_place_on_disk(const struct store_places *places, uint32_t i);
/* Likewise, whether it is not to be preferred for being near. */
bool store_place_yields(const struct store_places *places, uint32_t i);

struct store_places_out {
    uint32_t count;
    uint32_t replicas_count;
    uint64_t term;
    uint32_t put_ms;
    const uint32_t *codes;
    const uint64_t *sizes;   /* NULL for put_start */
    const uint64_t *put_ids; /* NULL for get */
    const uint32_t *counts;  /* NULL for put_start */
    const uint32_t *nodes;
    const uint64_t *addresses;
    const uint32_t *versions; /* NULL: all 0 */
    const uint32_t *disks;    /* NULL: none is */
    const uint32_t *pins;     /* NULL: none has */
    const uint32_t *yields;   /* NULL: none does */
    const struct store_reply_node *node_list;
    uint32_t nodes_count;
};
MUST_USE enum status store_encode_places(struct buf *buf, const struct store_places_out *reply);

/* ---- looking around (store/proto_look.c) ---- */

enum store_look_op { STORE_LOOK_LIST = 0, STORE_LOOK_COUNT = 1, STORE_LOOK_REMOVE = 2 };

struct store_look {
    enum store_look_op op;
    uint64_t cursor;
    const uint8_t *prefix;
    size_t prefix_len;
    const char *regex; /* not terminated; NULL: none */
    size_t regex_len;
    uint32_t limit; /* 1..YOLK_STORE_PAGE_MAX */
    bool blocks;
    bool force;
};
MUST_USE enum status store_encode_look(struct buf *buf, const struct store_look *look);
/* An operation we do not know is STATUS_INVALID. */
MUST_USE enum status store_decode_look(const uint8_t *body, size_t len, struct store_look *out);

/* A page: `list` of `count`, with room for YOLK_STORE_PAGE_MAX when it is decoded. */
MUST_USE enum status store_encode_page(struct buf *buf, const struct yolk_store_page *page);
MUST_USE enum status store_decode_page(const uint8_t *body, size_t len,
                                       struct yolk_store_entry *entries,
                                       struct yolk_store_page *out);

/* `nodes` has room for YOLK_STORE_NODES_MAX when it is decoded. */
MUST_USE enum status store_encode_stats(struct buf *buf, const struct yolk_store_stats *stats,
                                        const struct yolk_store_node *nodes, uint32_t count);
MUST_USE enum status store_decode_stats(const uint8_t *body, size_t len,
                                        struct yolk_store_stats *stats,
                                        struct yolk_store_node *nodes, uint32_t *count);

/* master.tenants: `set` NULL only asks. Decoded: its name is "" then. */
MUST_USE enum status store_encode_quota(struct buf *buf, const struct yolk_store_tenant *set);
MUST_USE enum status store_decode_quota(const uint8_t *body, size_t len,
                                        struct yolk_store_tenant *out);
/* Its reply; room for YOLK_STORE_TENANTS_MAX when it is decoded. */
MUST_USE enum status store_encode_tenants(struct buf *buf, const struct yolk_store_tenant *tenants,
                                          uint32_t count);
MUST_USE enum status store_decode_tenants(const uint8_t *body, size_t len,
                                          struct yolk_store_tenant *tenants, uint32_t *count);

#endif
