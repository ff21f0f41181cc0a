/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/transfer.h - moves bytes between registered memory here and registered memory elsewhere, or
 * files here.
 *
 * An engine is one listener, the buffers registered with it (its segment), and connections to the
 * engines it talks to. A segment is named by its engine's "host:port", or, with a metadata server,
 * by a name of its own that stays when the engine moves; an address in a request is the absolute
 * virtual address at the target. A segment may also be files of this host; then it is an offset.
 * Requests go in batches; each becomes a task that ends exactly once. Paths: local (same engine),
 * shm (same host, memory that yolk_transfer_alloc() gave), vm (same host, memory the user brought,
 * where the system lets one process read another's), file (segments of files), tcp, or fabric
 * where the options name it (everything else). The engine picks; yolk_transfer_explain() says which
 * it was.
 *
 * A final state means that no later byte of this task can land, neither here nor at the target:
 *   READ   ends as soon as it is cancelled or late: only this engine writes local memory, and it
 *          discards what still arrives.
 *   WRITE  stays PENDING after a cancel or a passed deadline until the target has acknowledged or
 *          fenced what was on the way, or has restarted, or is gone: normally one round trip, at
 *          worst fence_ms, after which the target's own lease on the connection has run out.
 *   Fabric READ too stays PENDING, as a WRITE does.
 *   A task that moves memory of a CUDA device stays PENDING until the device has ended its copies.
 *   Files  READ and WRITE alike stay PENDING until the kernel has ended what it was given, however
 *          long the device takes.
 * A failed or cancelled task may have written any part of its range; COMPLETED means all of it.
 *
 * Memory:  the memory of a request belongs to the engine from submit to the final state. Batches
 *          are allocated by yolk_transfer_batch_create(); submit and completion allocate nothing.
 * Threads: an engine belongs to the thread that runs its env; every call asserts that.
 * Handles: segments and batches are numbers with a generation: zero, stale and twice freed ones are
 *          answered with STATUS_INVALID, never with a crash. A NULL engine is STATUS_INVALID too.
 *          Callbacks run from the env's loop, exactly once per task, never inside the call that
 *          caused them, and may call anything here except yolk_transfer_destroy() and
 *          yolk_transfer_wait().
 * Limits:  the constants below; reaching one is STATUS_FULL. */
#ifndef YOLK_TRANSFER_H
#define YOLK_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct yolk_transfer; /* an engine; opaque */

enum {
    YOLK_TRANSFER_NAME_SIZE = 128,      /* of a segment name, with its NUL */
    YOLK_TRANSFER_BUFFERS_MAX = 1024,   /* registered ranges per engine */
    YOLK_TRANSFER_SEGMENTS_MAX = 4096,  /* open segment handles per engine */
    YOLK_TRANSFER_BATCHES_MAX = 65536,  /* living batches per engine */
    YOLK_TRANSFER_TASKS_MAX = 65536,    /* capacity of one batch */
    YOLK_TRANSFER_LANES_MAX = 16,       /* connections to one peer */
    YOLK_TRANSFER_RAILS_MAX = 8,        /* addresses of one engine that peers may use */
    YOLK_TRANSFER_IDENTITY_SIZE = 4096, /* see yolk_transfer_register() */
    YOLK_TRANSFER_FILES_MAX = 256,      /* open segments of files per engine */
    YOLK_TRANSFER_FILE_PARTS_MAX = 16,  /* files of one such segment */
};

/* All zero is a usable set of options for one machine: any free port of 127.0.0.1. */
struct yolk_transfer_options {
    const char *listen;         /* "host:port", port 0 for any; NULL: "127.0.0.1:0" */
    const char *advertise_host; /* the host part of our name; NULL: that of `listen` */
    const char *secret;         /* the cluster secret; NULL or "" admits loopback only */
    bool allow_open;            /* no secret, and yet not only loopback: private networks, tests */
    bool encrypt;               /* over tcp only with peers that encrypt, too; needs a secret. One
                                   end that says so is enough. */
    bool forbid_shm;            /* everything but local goes over tcp; so does MC_FORCE_TCP=1 */
    uint64_t generation;        /* of this start of the process; 0: drawn at random */
    uint64_t epoch;             /* see yolk_transfer_set_epoch(); 0: 1 */
    const char *protocol;       /* between hosts, obeyed or refused: NULL, "" or "tcp"; "fabric" or
                                   "fabric:PROVIDER", libfabric's ("fabric:verbs"), which a peer
                                   must have, too; not with `encrypt` */
    const char *rails;          /* interfaces or addresses of this host, "eth0,10.2.0.1", that data
                                   goes over besides `listen`; "auto": all that are up; NULL: none.
                                   Only between two engines that both name some. */
    const char *topology;       /* JSON, {"cpu:0":[["eth0"],["eth1"]]}: which rails suit which
                                   memory; NULL or "": that of the file */
    const char *topology_file;  /* NULL or "": $MC_CUSTOM_TOPO_JSON; neither: NUMA nodes decide */
    uint32_t lanes_per_peer;    /* and rail; 0: 2; at most YOLK_TRANSFER_LANES_MAX */
    uint32_t lanes_max;         /* connections that we open, to all peers; 0: 1024 */
    uint32_t slice_size;        /* bytes, 4 KiB..4 MiB; 0: 256 KiB */
    uint32_t peers_max;         /* peers we connect to, and connections we accept / 4; 0: 256 */
    uint32_t retries_max;       /* of a slice or a connection, before a task fails; 0: 3 */
    uint32_t connect_ms;        /* 0: 3000 */
    uint32_t fence_ms;          /* 0: 10000; also the lease on an accepted connection */
    const char *metadata;       /* where engines find each other by name: "http://host:port/path",
                                   "etcd://host:port", "redis://[user:password@]host:port[/db]";
                                   NULL, "" or "P2PHANDSHAKE": nowhere, names are "host:port" */
    const char *segment;        /* the name we publish there; NULL or "": yolk_transfer_name() */
    const char *metadata_cluster; /* keeps clusters on one server apart; NULL or "":
                                     $MC_METADATA_CLUSTER_ID, if any */
    uint32_t metadata_ttl_ms;     /* how long our entry outlives us; 0: 30000; from 1000 */
};

/* On success the engine listens and *out is the caller's. STATUS_INVALID for options out of range
 * and for `encrypt` without a secret, STATUS_DENIED for a listener beyond loopback without one,
 * STATUS_EXISTS for a taken port. */
MUST_USE enum status yolk_transfer_create(struct env *env,
                                          const struct yolk_transfer_options *options,
                                          struct yolk_transfer **out, struct errmsg *err);

/* Closes every connection, forgets every task without calling back, and frees everything, memory of
 * yolk_transfer_alloc() included. What was on the way to a peer may still land there. Our name is
 * taken off the metadata server first, as by yolk_transfer_withdraw() but without turning the loop;
 * after a second it is left to expire, and in a simulated env at once. NULL allowed. */
void yolk_transfer_destroy(struct yolk_transfer *transfer);

/* "host:port": what others pass to yolk_transfer_open(). Valid while the engine is. */
const char *yolk_transfer_name(const struct yolk_transfer *transfer);

/* Tells one start of a process from the next behind the same name. */
uint64_t yolk_transfer_generation(const struct yolk_transfer *transfer);

/* ---- being found by name ---- */

/* The server need not be there when the engine is created: it is asked again until it answers, and
 * what is published there is renewed while the loop turns. OK: peers find us by our segment name.
 * AGAIN: not yet, or the server has been away for longer than an entry lives. EXISTS: an engine
 * that started later has the name; we have it again when that one has gone. DENIED: the server
 * refuses our password. CANCELLED: withdrawn. UNSUPPORTED: there is no metadata server. */
enum status yolk_transfer_published(const struct yolk_transfer *transfer);

/* Takes our name off the server, unless it is somebody else's by now, turning the loop until that
 * is done or `timeout_ns` has passed: STATUS_TIMEOUT, and the entry expires. For an orderly end:
 * while the loop turns, what peers have begun is still served. STATUS_BUSY inside a callback of the
 * engine; not inside any other of the loop. */
enum status yolk_transfer_withdraw(struct yolk_transfer *transfer, uint64_t timeout_ns);

/* ---- fences of the target's owner ---- */

/* From now on requests that name another epoch, or a lower term, are refused as STALE; those being
 * received under the old one stop landing before this returns. Requests that name 0 pass.
 * STATUS_STALE for a number lower than the present one. */
MUST_USE enum status yolk_transfer_set_epoch(struct yolk_transfer *transfer, uint64_t epoch);
MUST_USE enum status yolk_transfer_set_term(struct yolk_transfer *transfer, uint64_t term);
uint64_t yolk_transfer_epoch(const struct yolk_transfer *transfer);

/* ---- memory ---- */

enum {
    YOLK_TRANSFER_REMOTE_READ = 1,  /* peers may read it */
    YOLK_TRANSFER_REMOTE_WRITE = 2, /* peers may write it */
    YOLK_TRANSFER_REMOTE_ALL = 3,
    YOLK_TRANSFER_POPULATE = 4, /* with alloc and register: see env_populate() */
};

/* Zeroed, page-aligned memory, untouched until used (with POPULATE: there at once, so that nobody
 * waits for its pages later), registered with `flags`, and reachable by shm for peers of this user
 * on this host. Freed by yolk_transfer_free() or with the engine. STATUS_NO_MEMORY, or what
 * env_map_create() or env_populate() said. */
MUST_USE enum status yolk_transfer_alloc(struct yolk_transfer *transfer, size_t size,
                                         unsigned flags, void **out, struct errmsg *err);

/* As yolk_transfer_unregister(), and gives the memory back. */
MUST_USE enum status yolk_transfer_free(struct yolk_transfer *transfer, void *address);

/* Makes [address, address+length) usable as local memory and, as `flags` say, by peers. With a
 * `share_name` (from env_map_create()) peers on this host may map it: then `address` is the start
 * of that map, and the map is YOLK_TRANSFER_IDENTITY_SIZE bytes longer than `length`, which is
 * rounded up to 4096; the engine writes there how peers recognise it. NULL: tcp only. With
 * POPULATE its pages are made first. STATUS_EXISTS if the range overlaps a registered one,
 * STATUS_INVALID if empty or wrapping, STATUS_FULL, or what env_populate() said. */
MUST_USE enum status yolk_transfer_register(struct yolk_transfer *transfer, void *address,
                                            size_t length, const char *share_name, unsigned flags);

/* The same without a share_name, for memory at `location`: "cpu:0", "cuda:1"; NULL or "*":
 * anywhere. Memory of a CUDA device is moved by the device: from and to memory of a device of
 * another process on this host directly, where the driver opens that, else over a lane, through
 * pinned memory of the engine. What wrote it must have ended before it is part of a request, and
 * may begin again after the final state. yolk_transfer_register() recognises it, too, in a process
 * that has the driver loaded; here a location that begins with "cuda:" says so. There are
 * no loans of such memory (STATUS_UNSUPPORTED). STATUS_UNSUPPORTED without a driver,
 * STATUS_INVALID if the memory is not where it is said to be, or of several devices; what the
 * driver said, as STATUS_IO, STATUS_NOT_FOUND or STATUS_NO_MEMORY. */
MUST_USE enum status yolk_transfer_register_at(struct yolk_transfer *transfer, void *address,
                                               size_t length, const char *location, unsigned flags,
                                               struct errmsg *err);

/* Says where a registered range lies: "cpu:0", "cuda:1"; "*" or NULL: anywhere. The rails that the
 * topology prefers for that place carry it first. STATUS_NOT_FOUND if it is not registered. */
MUST_USE enum status yolk_transfer_set_location(struct yolk_transfer *transfer, void *address,
                                                const char *location);

/* By start address. What peers are writing into it stops landing before this returns. STATUS_BUSY
 * while a task of ours uses it, STATUS_NOT_FOUND if it is not registered. Memory of a device that
 * a peer on this host has opened is closed there within a second; the driver wants it not to be
 * freed earlier. */
MUST_USE enum status yolk_transfer_unregister(struct yolk_transfer *transfer, void *address);

/* ---- segments ---- */

/* 0 is never a valid id. */
struct yolk_transfer_segment {
    uint64_t id;
};

/* Connects on first use, so a wrong name shows when a task fails. The handle binds to the
 * generation that answers first: after a restart of the peer its tasks fail with STATUS_STALE, and
 * opening again gives a handle to the new one. Our own names open the local segment. A name that is
 * no "host:port" is looked up whenever there is no connection: printable, without blanks, quotes
 * and backslashes. STATUS_FULL; STATUS_INVALID for another name, or for one where there is no
 * metadata server. */
MUST_USE enum status yolk_transfer_open(struct yolk_transfer *transfer, const char *name,
                                        struct yolk_transfer_segment *out);

/* Tasks under way go on. STATUS_INVALID for a handle that is not open. */
enum status yolk_transfer_close(struct yolk_transfer *transfer,
                                struct yolk_transfer_segment segment);

/* ---- segments that are files of this host ---- */

enum {
    YOLK_TRANSFER_FILE_WRITE = 1,  /* else read-only: a WRITE is DENIED */
    YOLK_TRANSFER_FILE_CREATE = 2, /* what is not there is made, what is too short made longer,
                                      with zeros, disk space not taken; implies WRITE */
    YOLK_TRANSFER_FILE_CACHED = 4, /* all through the page cache */
    YOLK_TRANSFER_FILE_LOCK = 8,   /* STATUS_EXISTS while others of this host have it so */
    YOLK_TRANSFER_FILE_ALL = 15,
};

struct yolk_transfer_file {
    const char *path; /* a regular file; copied */
    uint64_t offset;  /* the segment has the bytes [offset, offset + length) of it, */
    uint64_t length;  /* 0: all that it has now from there on, at least one */
};

/* A segment of `count` files, one after the other; in its requests `remote` is an offset, from 0.
 * READ fills registered memory from them, WRITE the other way; nothing outside the ranges given
 * here is touched. What is aligned to 4096 in memory and in the file goes past the page cache if
 * the file system can. COMPLETED says that all bytes are in memory, or given to the system; on the
 * disk they are after yolk_transfer_sync(). A range beyond the end is INVALID; where a file has
 * become shorter since, FAILED (STATUS_IO); no space, FAILED (STATUS_FULL). The request's epoch,
 * term and generation are those of this engine. Loans, notices and probes: STATUS_UNSUPPORTED.
 *
 * Opening may block, as env_file_open(). STATUS_FULL, STATUS_INVALID, and what opening said. */
MUST_USE enum status yolk_transfer_open_files(struct yolk_transfer *transfer,
                                              const struct yolk_transfer_file *files,
                                              uint32_t count, unsigned flags,
                                              struct yolk_transfer_segment *out,
                                              struct errmsg *err);

/* `rtt_us`: how long the answer, or the sync, took, once it was asked for; 0 if there was none. */
typedef void (*yolk_transfer_told_fn)(void *ctx, enum status status, uint64_t rtt_us);

/* on_told, from the loop: OK when all that was COMPLETED before this call is on the disk; else why
 * not, and nothing is known of it. STATUS_FULL when many are under way, STATUS_UNSUPPORTED for a
 * segment that is no file, STATUS_INVALID. */
MUST_USE enum status yolk_transfer_sync(struct yolk_transfer *transfer,
                                        struct yolk_transfer_segment segment,
                                        yolk_transfer_told_fn on_told, void *ctx);

/* ---- requests ---- */

enum yolk_transfer_opcode { YOLK_TRANSFER_READ = 0, YOLK_TRANSFER_WRITE = 1 };

/* Lower goes first, at both ends, slice by slice. */
enum yolk_transfer_class {
    YOLK_TRANSFER_DECODE = 0,     /* somebody's next token waits for it */
    YOLK_TRANSFER_LOAD = 1,       /* somebody's first token waits for it */
    YOLK_TRANSFER_BACKGROUND = 2, /* replication, eviction, repair */
    YOLK_TRANSFER_CLASSES = 3,
};

enum yolk_transfer_state {
    YOLK_TRANSFER_WAITING = 0, /* accepted, nothing sent */
    YOLK_TRANSFER_PENDING = 1, /* under way, or being fenced */
    /* Final: */
    YOLK_TRANSFER_INVALID = 2, /* refused, here or by the target: address, length, permission */
    YOLK_TRANSFER_CANCELED = 3,
    YOLK_TRANSFER_COMPLETED = 4,
    YOLK_TRANSFER_TIMEOUT = 5,
    YOLK_TRANSFER_FAILED = 6, /* retries used up, peer gone, stale, corrupt */
};

struct yolk_transfer_result {
    enum yolk_transfer_state state;
    enum status reason; /* STATUS_OK when COMPLETED, STATUS_PENDING before the end */
    uint64_t bytes;     /* known to have arrived; all of them exactly when COMPLETED */
};

typedef void (*yolk_transfer_done_fn)(void *ctx, const struct yolk_transfer_result *result);

struct yolk_transfer_request {
    enum yolk_transfer_opcode opcode;
    enum yolk_transfer_class class;
    void *local; /* registered here */
    struct yolk_transfer_segment segment;
    uint64_t remote;      /* address at the target, registered there */
    uint64_t length;      /* 0 completes at once */
    uint64_t deadline_ns; /* on the env's clock; 0: none */
    uint64_t attempt;     /* the caller's number for this try, for explain and logs; 0: none */
    uint64_t generation;  /* of the target that is meant; 0: the one the segment is bound to */
    uint64_t epoch;       /* of the target, see yolk_transfer_set_epoch(); 0: any */
    uint64_t term;        /* 0: any */
    bool checksum;        /* each slice carries XXH3-64, verified where it lands (tcp only) */
    yolk_transfer_done_fn on_done; /* NULL: poll */
    void *ctx;
};

/* ---- batches ---- */

/* 0 is never a valid id. */
struct yolk_transfer_batch {
    uint64_t id;
};

/* A batch takes `capacity` tasks in its life. `on_done`, if any, runs each time the last unfinished
 * task has ended and been called back; its result is COMPLETED if all are, else the first failure,
 * bytes summed. STATUS_FULL, STATUS_INVALID for a capacity of 0 or above TASKS_MAX. */
MUST_USE enum status yolk_transfer_batch_create(struct yolk_transfer *transfer, uint32_t capacity,
                                                yolk_transfer_done_fn on_done, void *ctx,
                                                struct yolk_transfer_batch *out);

/* All or none are accepted: STATUS_FULL if they do not fit the capacity, STATUS_INVALID for a dead
 * batch. Tasks are numbered in the order of submission, from 0. A bad request is accepted and ends
 * INVALID, alone. */
MUST_USE enum status yolk_transfer_submit(struct yolk_transfer *transfer,
                                          struct yolk_transfer_batch batch,
                                          const struct yolk_transfer_request *requests,
                                          uint32_t count);

/* The state of one task. Drives nothing. STATUS_INVALID for a task that was never submitted. */
MUST_USE enum status yolk_transfer_poll(struct yolk_transfer *transfer,
                                        struct yolk_transfer_batch batch, uint32_t task,
                                        struct yolk_transfer_result *out);

/* The batch as a whole, as its on_done would see it; WAITING or PENDING while any task is. */
MUST_USE enum status yolk_transfer_poll_batch(struct yolk_transfer *transfer,
                                              struct yolk_transfer_batch batch,
                                              struct yolk_transfer_result *out);

/* Runs the env's loop until every task of the batch has ended and been called back, or until
 * `timeout_ns` from now: STATUS_TIMEOUT, and the tasks go on. For whoever has no loop of their own;
 * not inside callbacks. */
MUST_USE enum status yolk_transfer_wait(struct yolk_transfer *transfer,
                                        struct yolk_transfer_batch batch, uint64_t timeout_ns);

/* Asks one task to end. It ends CANCELED, or as it would have: the final state tells. OK also for
 * one that has ended. */
enum status yolk_transfer_cancel(struct yolk_transfer *transfer, struct yolk_transfer_batch batch,
                                 uint32_t task);
enum status yolk_transfer_cancel_batch(struct yolk_transfer *transfer,
                                       struct yolk_transfer_batch batch);

/* STATUS_BUSY while a task has not ended or not been called back; allowed inside the batch's own
 * on_done. */
enum status yolk_transfer_batch_free(struct yolk_transfer *transfer,
                                     struct yolk_transfer_batch batch);

/* ---- notices, probes, events ---- */

enum {
    YOLK_TRANSFER_NOTICE_NAME_SIZE = 64, /* with its NUL */
    YOLK_TRANSFER_NOTICE_SIZE_MAX = 960, /* of a message */
    YOLK_TRANSFER_NOTICES_MAX = 1024,    /* that nobody took; more are refused */
    YOLK_TRANSFER_ERRANDS_MAX = 1024,    /* notices and probes of ours under way */
};

/* Tells the peer `name` and `len` bytes, once no task of `after` is unfinished; `after` 0: at once.
 * If one of them did not COMPLETE, nobody is told, and on_told says CANCELLED. OK means that the
 * peer holds it, once, in the order in which we told it; a notice whose answer was lost with the
 * last connection may be held twice. TIMEOUT after `timeout_ns`, waiting included: then it may be
 * held or not. UNSUPPORTED by a peer that takes none; FULL when it holds too many. on_told, NULL
 * allowed, runs from the loop. */
MUST_USE enum status yolk_transfer_notify(struct yolk_transfer *transfer,
                                          struct yolk_transfer_segment segment,
                                          struct yolk_transfer_batch after, const char *name,
                                          const void *message, size_t len, uint64_t timeout_ns,
                                          yolk_transfer_told_fn on_told, void *ctx);

struct yolk_transfer_notice {
    char name[YOLK_TRANSFER_NOTICE_NAME_SIZE];
    size_t len;
    uint8_t message[YOLK_TRANSFER_NOTICE_SIZE_MAX];
};

/* The oldest that a peer told us. STATUS_NOT_FOUND if there is none. */
MUST_USE enum status yolk_transfer_take_notice(struct yolk_transfer *transfer,
                                               struct yolk_transfer_notice *out);

/* Is the peer there, and how far? Connects if need be. */
MUST_USE enum status yolk_transfer_probe(struct yolk_transfer *transfer,
                                         struct yolk_transfer_segment segment, uint64_t timeout_ns,
                                         yolk_transfer_told_fn on_told, void *ctx);

/* A descriptor that any thread may wait for (poll, epoll, read of eight bytes): it counts the tasks
 * of the batch that have ended and been called back. Closed with the batch. STATUS_UNSUPPORTED
 * where the env has none. */
MUST_USE enum status yolk_transfer_batch_event(struct yolk_transfer *transfer,
                                               struct yolk_transfer_batch batch, int *fd);

/* ---- looking without copying ---- */

enum { YOLK_TRANSFER_LOANS_MAX = 4096 }; /* per engine */

/* A look at a peer's memory on this host. 0 is never a valid id. */
struct yolk_transfer_loan {
    uint64_t id;
    const void *data; /* read-only; `length` bytes of it */
    uint64_t length;
    uint64_t generation; /* of the engine whose memory it is */
};

/* Memory that a peer on this host allocated with yolk_transfer_alloc(), or of our own segment, is
 * seen where it is. The owner goes on owning it: it may write, withdraw, and end. So look first,
 * then ask yolk_transfer_loan_check(): OK means that what was seen was the owner's, still offered,
 * and, with `epoch`, of that epoch; whether the owner wrote meanwhile is for its protocol to say.
 * The address stays readable until the loan is returned, whatever becomes of the owner.
 * STATUS_AGAIN while the peer is being asked where it is: turn the loop and call again. Otherwise
 * STATUS_NOT_FOUND, STATUS_DENIED, STATUS_STALE, STATUS_FULL; STATUS_UNSUPPORTED where only a
 * transfer can reach it. */
MUST_USE enum status yolk_transfer_borrow(struct yolk_transfer *transfer,
                                          struct yolk_transfer_segment segment, uint64_t remote,
                                          uint64_t length, uint64_t epoch,
                                          struct yolk_transfer_loan *out);
MUST_USE enum status yolk_transfer_loan_check(struct yolk_transfer *transfer,
                                              struct yolk_transfer_loan loan);
/* Of memory of another process: all but the first `skip` bytes of the loan will be read soon, and
 * then perhaps `more` bytes behind it. What of that has never been read here is mapped meanwhile,
 * beside the loop; else it is mapped page by page as it is read, which takes half as long as
 * to copy it. Advice: it may come to nothing, and costs nothing where nothing is to be done. */
void yolk_transfer_loan_ahead(struct yolk_transfer *transfer, struct yolk_transfer_loan loan,
                              uint64_t skip, uint64_t more);
/* STATUS_INVALID for a loan that is not out. What is out when the engine is destroyed is gone. */
enum status yolk_transfer_return(struct yolk_transfer *transfer, struct yolk_transfer_loan loan);

/* ---- what happened ---- */

enum yolk_transfer_path {
    YOLK_TRANSFER_PATH_NONE = 0, /* nothing has moved */
    YOLK_TRANSFER_PATH_LOCAL = 1,
    YOLK_TRANSFER_PATH_SHM = 2,
    YOLK_TRANSFER_PATH_TCP = 3,
    YOLK_TRANSFER_PATH_VM = 4,
    YOLK_TRANSFER_PATH_FILE = 5,
    YOLK_TRANSFER_PATH_FABRIC = 6,
    YOLK_TRANSFER_PATH_CUDA = 7, /* from device to device, between processes of this host */
    YOLK_TRANSFER_PATHS = 8,
};

struct yolk_transfer_explain {
    uint64_t id;                        /* of the task, from 1 in the life of the engine */
    char peer[YOLK_TRANSFER_NAME_SIZE]; /* "local" for our own segment, "file:PATH" for files */
    enum yolk_transfer_opcode opcode;
    enum yolk_transfer_class class;
    enum yolk_transfer_state state;
    enum status reason;           /* STATUS_PENDING before the end */
    enum yolk_transfer_path path; /* the last one used */
    uint64_t attempt;
    uint64_t length;
    uint64_t bytes;        /* arrived */
    uint64_t wait_us;      /* from submit until the first byte was scheduled */
    uint64_t run_us;       /* from then until the end, or until now */
    uint64_t predicted_us; /* of wait and run together, when it was submitted; 0: not known */
    uint64_t direct_bytes; /* file: past the page cache */
    uint64_t staged_bytes; /* of a device, through pinned memory */
    uint32_t slices;       /* scheduled, retries included */
    uint32_t retries;
    /* Bytes by rail: [0] the name's, [i] the ith that both ends told each other. */
    uint64_t rail_bytes[YOLK_TRANSFER_RAILS_MAX + 1];
};

MUST_USE enum status yolk_transfer_explain(struct yolk_transfer *transfer,
                                           struct yolk_transfer_batch batch, uint32_t task,
                                           struct yolk_transfer_explain *out);

enum { YOLK_TRANSFER_HISTORY_MAX = 512 }; /* ended tasks that an engine remembers */

/* One that has ended, by its id. STATUS_NOT_FOUND if it has not, or is forgotten. */
MUST_USE enum status yolk_transfer_explain_id(const struct yolk_transfer *transfer, uint64_t id,
                                              struct yolk_transfer_explain *out);

/* The `index`th of those that ended last, from 0. STATUS_NOT_FOUND beyond. */
MUST_USE enum status yolk_transfer_explain_last(const struct yolk_transfer *transfer,
                                                uint32_t index, struct yolk_transfer_explain *out);

/* Some lines for people, cut to `size`, NUL-terminated; the length without the NUL. */
size_t yolk_transfer_explain_text(const struct yolk_transfer *transfer,
                                  const struct yolk_transfer_explain *explain, char *out,
                                  size_t size);

/* Everything that is counted, per path, peer and rail, in the text format of Prometheus. As above.
 */
size_t yolk_transfer_metrics_text(const struct yolk_transfer *transfer, char *out, size_t size);

/* "none", "local", "shm", "tcp", "vm", "file", "fabric", "cuda"; "unknown" for another number. */
const char *yolk_transfer_path_name(enum yolk_transfer_path path);
const char *yolk_transfer_state_name(enum yolk_transfer_state state);

struct yolk_transfer_stats {
    uint64_t tasks[YOLK_TRANSFER_FAILED + 1]; /* ended, by final state */
    uint64_t bytes_sent[YOLK_TRANSFER_PATHS]; /* as initiator, WRITE, by path */
    uint64_t bytes_read[YOLK_TRANSFER_PATHS]; /* as initiator, READ, by path */
    uint64_t bytes_served;                    /* as target, over tcp or pulled */
    uint64_t refused;                         /* as target: requests answered with an error */
    uint64_t retries;
    uint64_t fences;          /* connections that a target closed at our demand */
    uint64_t lanes_open;      /* now, both directions */
    uint64_t lanes_sealed;    /* of them, encrypted */
    uint64_t device_errors;   /* copies from or to a device that failed */
    uint64_t protocol_errors; /* connections dropped because of what the peer sent */
    uint64_t seal_failures;   /* of them, encrypted ones on which something was not the peer's */
    uint64_t rail_pauses;     /* rails that failed, or fell silent while others spoke */
    uint64_t evictions;       /* idle connections closed to stay within lanes_max */
};

/* One way to one peer, as it is now. */
struct yolk_transfer_rail {
    char peer[YOLK_TRANSFER_NAME_SIZE];   /* the name its segment was opened by */
    char local[64];                       /* address here; "": the kernel's choice */
    char remote[YOLK_TRANSFER_NAME_SIZE]; /* "host:port" there */
    const char *state;                    /* "up", "paused", "probing"; static */
    uint32_t lanes;                       /* connections on it */
    uint32_t rank;       /* 0 preferred, 1 secondary, 2 last, as the peer sees it */
    uint64_t rate;       /* bytes per second, measured or assumed */
    uint64_t inflight;   /* bytes */
    uint64_t latency_us; /* of a slice, smoothed; 0: not known */
    uint64_t bytes;      /* acknowledged, ever */
    uint64_t slices;     /* sent, ever */
    uint64_t pauses;     /* times it failed */
};

/* The rails of all peers; returns how many there are, of which `max` at most are written. */
uint32_t yolk_transfer_rails(const struct yolk_transfer *transfer, struct yolk_transfer_rail *out,
                             uint32_t max);

void yolk_transfer_stats(const struct yolk_transfer *transfer, struct yolk_transfer_stats *out);

#endif
