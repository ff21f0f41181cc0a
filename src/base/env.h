/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env.h - the one seam to the world: time, timers, streams, files, shared memory, randomness.
 *
 * An env is one event loop and everything it can touch. It has two bodies: the real one
 * (base/env_real.h: epoll, one per thread that wants a loop) and the simulated one (base/env_sim.h:
 * virtual time, many processes in one thread, one seed; loss, delay, partition, crash, torn and
 * corrupt disk). Code above this header cannot tell which one it runs on, so a whole cluster runs
 * in one deterministic test. Nothing else in the tree reads a clock, opens a socket or a file, or
 * draws random bytes (`make tidy` checks).
 *
 * Threads: while a thread is in env_run() or env_poll() the env is its own, and every call except
 * env_post() asserts that; at other times (set-up, tear-down) it belongs to whoever holds it.
 * Callbacks run from env_run() or env_poll(), never from inside the call that armed them.
 * Limits: fixed at creation; at the limit of streams or posts the answer is STATUS_FULL. Timers
 * live in what they time, so that has the limit; a million armed at once is a leak, and asserted.
 */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"

struct env;

#define ENV_NS_PER_US UINT64_C(1000)
#define ENV_NS_PER_MS UINT64_C(1000000)
#define ENV_NS_PER_S UINT64_C(1000000000)
#define ENV_NEVER UINT64_MAX

/* ---- time and chance ---- */

/* Monotonic; starts anywhere. Every deadline in the tree is on this clock. */
uint64_t env_now_ns(struct env *env);

/* Since the Unix epoch; may jump. For stamps that people read, never for deadlines. */
uint64_t env_wall_ns(struct env *env);

/* Unpredictable bytes (real) or the seed's next bytes (simulated). */
void env_random(struct env *env, void *out, size_t len);

/* ---- the loop ---- */

/* Runs until env_stop(). */
void env_run(struct env *env);

/* Ends env_run() after the current turn. */
void env_stop(struct env *env);

/* One turn: waits at most `timeout_ns` for something to do (0: does not wait), runs what is due.
 * True if any callback ran. For a loop that lives inside somebody else's thread. */
bool env_poll(struct env *env, uint64_t timeout_ns);

/* Runs fn(ctx) on the env's thread, soon. May be called from any thread; the only such call. Posts
 * of one thread keep their order. STATUS_FULL when ENV_POSTS_MAX are waiting. */
enum { ENV_POSTS_MAX = 65536 };
MUST_USE enum status env_post(struct env *env, void (*fn)(void *ctx), void *ctx);

/* One pointer that the process on this env keeps with it, for what all its connections share: NULL
 * at first. net/rpc.h keeps there who the process is. */
void env_set_user(struct env *env, void *user);
void *env_user(struct env *env);

/* ---- events for other threads ---- */

/* A descriptor that a thread may wait for in poll(), epoll or read(): readable, as a count of eight
 * bytes, once env_event_signal() has added to it. STATUS_UNSUPPORTED in the simulated body. */
MUST_USE enum status env_event_create(struct env *env, int *fd);
void env_event_signal(int fd, uint64_t count);
void env_event_close(int fd); /* -1 is allowed */

/* ---- a loop beside this one ---- */

/* An env of its own, for a conversation that must be over before a call returns while nothing of
 * `env` may run, as when what its callbacks work on is being taken apart. Of the same thread.
 * STATUS_UNSUPPORTED in the simulated body, whose world turns as one. */
MUST_USE enum status env_apart_create(struct env *env, struct env **out);
void env_apart_destroy(struct env *apart); /* NULL is allowed */

/* ---- descriptors of libraries that do their own I/O ---- */

struct env_watch;

/* fn(ctx) runs on every turn while `fd` is readable. The descriptor stays its owner's, who may
 * close it once the watch is closed. STATUS_UNSUPPORTED in the simulated body, STATUS_FULL, or
 * STATUS_NO_MEMORY. */
MUST_USE enum status env_watch_open(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                                    struct env_watch **out);
void env_watch_close(struct env_watch *watch); /* NULL allowed; also inside fn */

/* ---- timers: storage is the caller's, embedded in what it times ---- */

struct env_timer {
    void (*fn)(void *ctx);
    void *ctx;
    uint64_t deadline_ns;
    uint64_t order;      /* private: ties fire in the order they were set */
    uint32_t heap_index; /* private: 0 when not armed */
};

void env_timer_init(struct env_timer *timer, void (*fn)(void *ctx), void *ctx);

/* Arms, or moves if armed. A deadline in the past fires on the next turn. */
void env_timer_set(struct env *env, struct env_timer *timer, uint64_t deadline_ns);

/* Idempotent. After it the callback will not run. */
void env_timer_cancel(struct env *env, struct env_timer *timer);
bool env_timer_armed(const struct env_timer *timer);

/* ---- streams: TCP, readiness style, so that bytes go straight to where they belong ---- */

struct env_stream;
struct env_listener;

/* ENV_EAGER, beside ENV_READ: on_ready may also be told ENV_READ when nothing is there, and then
 * makes little of STATUS_AGAIN. Who polls (env_poll() with a timeout of 0) hears of the stream that
 * spoke last sooner that way, because the stream is asked instead of the loop. */
enum { ENV_READ = 1, ENV_WRITE = 2, ENV_EAGER = 4 };
enum { ENV_IOV_MAX = 128 }; /* parts of one writev or readv */

typedef void (*env_ready_fn)(void *ctx, unsigned events);
typedef void (*env_accept_fn)(void *ctx, struct env_stream *stream);

/* `address` is "host:port" ("127.0.0.1:8000", "[::1]:8000", ":8000" for all interfaces); port 0
 * takes any free one. STATUS_EXISTS if the port is taken, STATUS_INVALID for an address that does
 * not parse, STATUS_IO otherwise; err says which. The accepted stream is the callback's to close.
 */
MUST_USE enum status env_listen(struct env *env, const char *address, env_accept_fn on_accept,
                                void *ctx, struct env_listener **out, struct errmsg *err);
uint16_t env_listener_port(const struct env_listener *listener);
void env_listener_close(struct env_listener *listener); /* NULL is allowed */

/* Starts to connect; how long to wait is the caller's (a timer, and env_stream_close). A host that
 * is a name is looked up first, beside the loop; one that is not found counts as a connection that
 * failed, STATUS_UNAVAILABLE. The stream becomes writable when connected; on failure it becomes
 * readable and writable, and the next read or write says why: STATUS_CONN_REFUSED when the peer's
 * host says that nobody listens there, STATUS_TIMEOUT or STATUS_UNAVAILABLE when nobody could be
 * asked. STATUS_FULL: too many names are being looked up, or streams open. */
MUST_USE enum status env_connect(struct env *env, const char *address, struct env_stream **out,
                                 struct errmsg *err);

/* The same, from the address `local_host` of this host, so that the connection takes the way that
 * leads from there: "10.1.0.1", without a port; NULL or "": the kernel's choice. An address that is
 * not ours is STATUS_UNAVAILABLE. */
MUST_USE enum status env_connect_from(struct env *env, const char *local_host, const char *address,
                                      struct env_stream **out, struct errmsg *err);

/* Level-triggered: on_ready(ctx, events) runs on every turn while a wanted event holds. `events` 0
 * stops it. Replaces what was set before. */
void env_stream_watch(struct env_stream *stream, unsigned events, env_ready_fn on_ready, void *ctx);

/* STATUS_OK with 1..len bytes in *n; STATUS_AGAIN when nothing is there now; STATUS_CONN_CLOSED
 * when the peer has closed or reset; STATUS_CONN_REFUSED if it never was open. */
MUST_USE enum status env_stream_read(struct env_stream *stream, void *buf, size_t len, size_t *n);
MUST_USE enum status env_stream_readv(struct env_stream *stream, const struct iovec *iov,
                                      int iov_count, size_t *n);
/* STATUS_OK with 1.. bytes accepted in *n; otherwise as above. */
MUST_USE enum status env_stream_writev(struct env_stream *stream, const struct iovec *iov,
                                       int iov_count, size_t *n);

/* Sends what the kernel has, then closes; safe inside the stream's own callback, which will not run
 * again. NULL is allowed. */
void env_stream_close(struct env_stream *stream);

/* The peer's "host:port", for logs; valid while the stream is. */
const char *env_stream_peer(const struct env_stream *stream);

/* The address the connection has on our side, without the port: what a peer could call us. */
const char *env_stream_local_host(const struct env_stream *stream);

/* ---- the network interfaces of this host ---- */

enum { ENV_INTERFACES_MAX = 64, ENV_ADDRESS_SIZE = 64, ENV_INTERFACE_SIZE = 16 };

struct env_interface {
    char name[ENV_INTERFACE_SIZE];  /* "eth0" */
    char address[ENV_ADDRESS_SIZE]; /* "10.1.0.1" or "fd00::1" */
    uint32_t prefix_bits;           /* of its network */
    uint32_t mtu;                   /* 0: not known, as below */
    uint32_t speed_mbps;
    int32_t numa_node; /* -1: not known, or the host has only one */
    bool up;
    bool loopback;
};

/* True if both numeric addresses (no port, no brackets) agree in their first `prefix_bits` bits. */
bool env_same_network(const char *a, const char *b, uint32_t prefix_bits);

/* One entry per address, IPv4 and global IPv6, in the kernel's order; how many were written. */
uint32_t env_interfaces(struct env *env, struct env_interface *out, uint32_t max);

/* ---- files: for start-up, caches and manifests; blocking, so never for bulk data on a loop ----
 */

struct env_file;

/* ENV_FILE_DIRECT: past the page cache, where the file system can; then what env_io moves must lie
 * at multiples of ENV_DIRECT_ALIGN in memory and in the file, in such lengths. ENV_FILE_LOCK:
 * nobody else on this host has it open with this flag, until it is closed or the process has gone.
 */
enum {
    ENV_FILE_READ = 1,
    ENV_FILE_WRITE = 2,
    ENV_FILE_CREATE = 4,
    ENV_FILE_TRUNCATE = 8,
    ENV_FILE_DIRECT = 16,
    ENV_FILE_LOCK = 32,
};
enum { ENV_DIRECT_ALIGN = 4096 };

/* STATUS_NOT_FOUND, STATUS_DENIED, STATUS_FULL (no space), STATUS_EXISTS (somebody has it locked;
 * said only after ENV_FILE_LOCK_WAIT_MS, because a process that was killed goes slowly) or
 * STATUS_IO; err has path and reason. */
enum { ENV_FILE_LOCK_WAIT_MS = 1000 };
MUST_USE enum status env_file_open(struct env *env, const char *path, unsigned flags,
                                   struct env_file **out, struct errmsg *err);
/* Reads up to len bytes; *n < len only at the end of the file. */
MUST_USE enum status env_file_pread(struct env_file *file, void *buf, size_t len, uint64_t offset,
                                    size_t *n);
/* Writes all or fails. */
MUST_USE enum status env_file_pwrite(struct env_file *file, const void *buf, size_t len,
                                     uint64_t offset);
MUST_USE enum status env_file_sync(struct env_file *file);
MUST_USE enum status env_file_size(struct env_file *file, uint64_t *out);
/* Cuts the file, and gives back disk space reserved beyond; never makes it longer. */
MUST_USE enum status env_file_truncate(struct env_file *file, uint64_t size);
/* False if it was not opened with ENV_FILE_DIRECT, or the file system has no such way. */
bool env_file_direct(const struct env_file *file);
/* NULL is allowed. Waits for what env_io_start() has on its way in the file; those callbacks will
 * not run. */
void env_file_close(struct env_file *file);

/* The whole file, NUL-terminated beyond *len, malloc'd: the caller frees. STATUS_FULL if it is
 * larger than len_max. */
MUST_USE enum status env_file_read_all(struct env *env, const char *path, size_t len_max,
                                       char **out, size_t *len, struct errmsg *err);
/* Replaces the file or leaves it as it was: temporary file beside it, sync, rename. */
MUST_USE enum status env_file_replace(struct env *env, const char *path, const void *data,
                                      size_t len, struct errmsg *err);
MUST_USE enum status env_file_remove(struct env *env, const char *path);
MUST_USE enum status env_file_rename(struct env *env, const char *from, const char *to);
MUST_USE enum status env_make_dirs(struct env *env, const char *path, struct errmsg *err);

/* Whether nobody but its owner and root may read or change the file: so a secret should be. */
MUST_USE enum status env_file_private(struct env *env, const char *path, bool *out);

/* Calls fn with the name of everything in the directory, in no order. fn must not change it. */
MUST_USE enum status env_dir_list(struct env *env, const char *path,
                                  void (*fn)(void *ctx, const char *name), void *ctx,
                                  struct errmsg *err);

/* Bytes that may still be written to the file system of `path`. */
MUST_USE enum status env_disk_free(struct env *env, const char *path, uint64_t *out);

/* ---- files in bulk: asynchronous, so for data on a loop; storage is the caller's ---- */

enum env_io_op {
    ENV_IO_READ,    /* into the parts; n is less than asked for only at the end of the file */
    ENV_IO_WRITE,   /* all of the parts, or it fails */
    ENV_IO_SYNC,    /* what was written before it started is on the disk */
    ENV_IO_RESERVE, /* disk space for the bytes [0, offset); the size of the file stays. STATUS_OK
                       too where the file system cannot */
};

enum { ENV_IO_PARTS_MAX = 2, ENV_IOS_MAX = 256 };

struct env_io {
    enum env_io_op op;
    struct env_file *file;
    struct iovec parts[ENV_IO_PARTS_MAX]; /* memory that belongs to the I/O until fn runs */
    int parts_count;                      /* 1..ENV_IO_PARTS_MAX for READ and WRITE; 0 else */
    uint64_t offset;
    /* Status: STATUS_OK with the bytes moved; STATUS_FULL, no space; STATUS_IO;
     * STATUS_UNSUPPORTED, the file is direct, and its device does not take what is so aligned. */
    void (*fn)(void *ctx, enum status status, size_t n);
    void *ctx;

    struct env_io *prev, *next; /* private, from here on */
    struct env_timer timer;
    struct iovec left[ENV_IO_PARTS_MAX];
    size_t done;
    enum status status;
    uint8_t phase;
};

/* STATUS_OK: fn runs exactly once, from the loop, never before this returns; unless the file is
 * closed or the env destroyed before. STATUS_FULL: ENV_IOS_MAX of this env are on their way. */
MUST_USE enum status env_io_start(struct env_io *io);

/* ---- computing beside the loop; storage is the caller's ---- */

/* `run` computes on one of a few threads of the env: it touches nothing of any env, and nothing
 * that the loop may change meanwhile. `done` follows on the loop, and may free the job. */
struct env_job {
    void (*run)(void *ctx);
    void (*done)(void *ctx);
    void *ctx;

    struct env *env; /* private, from here on */
    struct env_job *prev, *next;
    struct env_timer timer;
    uint8_t phase;
};

enum { ENV_JOBS_MAX = 1024, ENV_JOB_THREADS_MAX = 4 };

/* STATUS_OK: both functions run exactly once, never before this returns; unless it is cancelled or
 * settled, or the env destroyed, before. Jobs begin in the order in which they were started, and
 * end in any. STATUS_FULL: ENV_JOBS_MAX of this env are under way; STATUS_NO_MEMORY: there is no
 * thread. */
MUST_USE enum status env_job_start(struct env *env, struct env_job *job);

/* True: it had not begun, and neither function will run. False: it has, and `done` will. Of a job
 * that was started and is not done. */
bool env_job_cancel(struct env_job *job);

/* Neither function runs any more: what has begun is waited for. Nothing happens if the job is done
 * already, or was never started (all zero). */
void env_job_settle(struct env_job *job);

/* ---- memory that other processes may see, and files seen as memory ---- */

struct env_map {
    void *data;
    size_t size;
    void *handle; /* private */
};

/* A file, read-only, shared, not populated. */
MUST_USE enum status env_map_file(struct env *env, const char *path, struct env_map *out,
                                  struct errmsg *err);

/* Zeroed memory, untouched until used, that processes of this user on this host may map read-only
 * under the name written to name[]. The simulated body shares within the process. */
enum { ENV_SHARE_NAME_SIZE = 96 };
MUST_USE enum status env_map_create(struct env *env, size_t size, struct env_map *out,
                                    char name[ENV_SHARE_NAME_SIZE], struct errmsg *err);

/* Maps what another process created, read-only. STATUS_NOT_FOUND when it is not on this host or not
 * ours to see: the caller falls back to the network. The memory may belong to a stranger who got
 * the same name: check an identity inside it before trusting a byte. */
MUST_USE enum status env_map_open(struct env *env, const char *name, size_t size,
                                  struct env_map *out);
void env_map_close(struct env_map *map); /* all zero is allowed */

/* Of what env_map_open() gave: whether the process that created it lives; false, too, once it has
 * closed it, unless something else has the descriptor's number. If it died, this is known here
 * before any peer of it finds its connections broken. */
bool env_map_alive(const struct env_map *map);

/* Of what env_map_open() gave: [offset, offset+len) will be read soon. What its creator has made of
 * it is mapped here meanwhile, beside the loop, so that the reader need not wait for that page by
 * page. Advice: it may not happen, and what is mapped already costs next to nothing. */
void env_map_ahead(struct env *env, const struct env_map *map, size_t offset, size_t len);

/* Has the pages of [address, address+len), ours and writable, made now, by several threads where
 * there are cores for it, so that nobody waits for them later. Contents stay. Blocks: some seconds
 * for many gigabytes. STATUS_NO_MEMORY: any part may be there; STATUS_UNSUPPORTED: not writable
 * memory, or a kernel that cannot (Linux before 5.14). */
MUST_USE enum status env_populate(struct env *env, void *address, size_t len);

/* ---- memory of other processes, where the system lets us read it ---- */

struct env_memory {
    uint64_t process; /* private */
};

/* What other processes of this host call our memory. Empty where there is no such thing. */
void env_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE]);

/* STATUS_NOT_FOUND when the name is not of this host, STATUS_INVALID when it is none. Whether we
 * may read, and whether it is still the same process, shows when reading: check an identity. */
MUST_USE enum status env_memory_open(struct env *env, const char *name, struct env_memory *out);

struct env_memory_part {
    uint64_t from; /* in the other process */
    void *to;
    size_t len;
};

enum { ENV_MEMORY_PARTS_MAX = 32 };

/* Copies 1..ENV_MEMORY_PARTS_MAX ranges of the other process, one after the other. STATUS_DENIED,
 * or STATUS_NOT_FOUND when the process or a part of a range is gone; then any part may have been
 * copied. */
MUST_USE enum status env_memory_readv(struct env *env, const struct env_memory *memory,
                                      const struct env_memory_part *parts, uint32_t count);
MUST_USE enum status env_memory_read(struct env *env, const struct env_memory *memory,
                                     uint64_t address, void *to, size_t len);

#endif
