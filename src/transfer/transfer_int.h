/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_int.h - what the files of the engine know of each other.
 *
 *   transfer.c   engines, their turns, segments
 *   register.c   our memory, and what peers may do with it
 *   batch.c      batches of requests, as users see them
 *   task.c       tasks, slices, and how tasks end
 *   peer.c       as initiator: which slice goes when, on which lane; lanes lost and fenced
 *   peer_rails.c as initiator: over which rail; connecting, pausing, evicting
 *   rail.c       how good one rail is
 *   topology.c   which rails this host has, and for what
 *   rails_listen.c  choosing them at start, and listening there
 *   target.c     as target: what others ask of our memory
 *   lane.c       one connection: greeting, frames out by class, payloads straight into memory
 *   sealing.c    whether a connection is encrypted
 *   session.c    what we know of one start of another engine: its shares, mapped
 *   buffer.c     registered ranges
 *   copy.c       memcpy in portions, for local, shm and pulls
 *   file.c       segments that are files of this host
 *   cuda.c       memory of devices
 *   cuda_ipc.c   memory of devices of other processes on this host
 *   fabric_engine.c, fabric_lane.c, fabric_ofi.c  data through libfabric
 *   errand.c     notices and probes
 *   naming.c     our name on a metadata server, and the addresses of peers opened by theirs
 *   history.c    what became of tasks, for people and for dashboards
 *   loan.c       looking at a peer's memory without a copy
 *
 * Everything belongs to the thread of the env. Nothing here calls back a user except
 * transfer_turn(), which runs from the loop. */
#ifndef TRANSFER_TRANSFER_INT_H
#define TRANSFER_TRANSFER_INT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"
#include "transfer/cuda.h"
#include "transfer/fabric_lane.h"
#include "transfer/metadata.h"
#include "transfer/rail.h"
#include "transfer/topology.h"
#include "transfer/wire.h"
#include "yolk/transfer.h"

enum {
    LANE_FRAMES_MAX = 192,      /* frames waiting to be sent on one lane */
    LANE_RX_SIZE = 256 << 10,   /* headers, control payloads and small data; large bypasses it */
    LANE_RX_LARGE = 4096,       /* of it, while payloads are large: what lands there is copied */
    LANE_SMALL_SIZE = 16 << 10, /* a payload for which a call costs more than a copy */
    LANE_TURN_SIZE = 4 << 20,   /* bytes read or written on a lane in one turn of the loop */
    LANE_TURN_MIN = 128 << 10,  /* see turn_size() of lane.c */
    LANE_GATHER_MAX = 64,       /* frames of one writev */
    LANE_GATHER_SIZE = 1 << 20, /* and their bytes: beyond it a higher class would wait */
    COPY_TURN_SIZE = 4 << 20,   /* bytes copied in one turn of the loop */
    COPY_STEP_SIZE = 1 << 20,
    WINDOW_SIZE = 4 << 20,            /* bytes in flight on a lane */
    WINDOW_BACKGROUND_SIZE = 1 << 20, /* of them, when background adds to them */
    FABRIC_WINDOW_MIN = 1 << 20,      /* likewise on a rail, of what is no background */
    PULL_SLICE_SIZE = 1 << 20,
    PULL_SIZE_MIN = 16 << 10, /* smaller writes go inline even on one host */
    SHARES_MAX = 64,          /* mapped memory of one other engine */
    SHARE_PARTS_MAX = 16,     /* copied in one go */
    SLICES_MAX = 1 << 16,
    SLICE_CHUNK = 256,
    REFUSALS_GONE = 8, /* refused connects in a row that prove that no process is there */
};

struct cuda_import;
struct file_segment;
struct files;
struct lane;
struct peer;
struct task;
struct session;

/* ---- buffers ---- */

/* On the page behind shared memory: how a reader knows whose it is, and that it still is. */
struct identity {
    _Atomic uint64_t live;  /* the owner's generation; 0: withdrawn */
    _Atomic uint64_t epoch; /* of the owner, now */
    _Atomic uint64_t term;
    uint8_t token[WIRE_TOKEN_SIZE];
};

struct buffer {
    uint64_t address;
    uint64_t length;
    unsigned flags;
    uint32_t slot;             /* index in the lanes' `announced` bits */
    uint32_t users;            /* tasks of ours */
    uint32_t location;         /* see topology_location() */
    uint32_t device;           /* it is memory of that one, counted from 1; 0: of the host */
    struct identity *identity; /* NULL: not shared */
    bool vm;                   /* not by mapping, but by reading our memory; identity is malloc'd */
    char share_name[WIRE_SHARE_NAME_SIZE];
    struct env_map map;            /* of yolk_transfer_alloc(); of a device: of its identity */
    uint8_t handle[WIRE_IPC_SIZE]; /* of a device, with an identity: what opens it */
    uint64_t handle_offset;
};

struct buffers {
    struct buffer *sorted[YOLK_TRANSFER_BUFFERS_MAX];
    uint32_t count;
    uint64_t slots[YOLK_TRANSFER_BUFFERS_MAX / 64];
};

/* STATUS_EXISTS if it overlaps, STATUS_FULL, STATUS_NO_MEMORY. */
MUST_USE enum status buffers_add(struct buffers *buffers, uint64_t address, uint64_t length,
                                 unsigned flags, struct buffer **out);
void buffers_remove(struct buffers *buffers, struct buffer *buffer); /* and frees it */
struct buffer *buffers_at(const struct buffers *buffers, uint64_t address);

/* The one that holds all of [address, address+length), or NULL. */
struct buffer *buffers_find(const struct buffers *buffers, uint64_t address, uint64_t length);

bool buffer_ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length);

/* ---- sessions ---- */

struct share {
    struct wire_share is;
    struct env_map map;        /* zero: not mapped, not shared, or not on this host */
    struct identity *identity; /* in map; vm: the copy that was read last; NULL: no use */
    bool vm;                   /* it is read from the memory of its owner */
    struct env_memory memory;
    uint64_t identity_at; /* there */
    struct identity seen;
    uint32_t users; /* copies under way */
    bool dead;      /* withdrawn by its owner */
    bool device;    /* memory of one: map is of its identity only */
    struct cuda_import *imports;
};

struct session {
    struct session *next;
    struct yolk_transfer *transfer;
    uint64_t generation;
    char name[WIRE_NAME_SIZE]; /* "host:port", as it calls itself */
    uint32_t refs;
    uint32_t share_count;
    bool shm;   /* same host and both want it */
    bool rails; /* it has several addresses, too */
    bool vm;    /* the same for memory that cannot be mapped */
    bool pull_refused, vm_pull_refused;
    bool ipc;         /* the same for memory of devices */
    bool ipc_refused; /* by the driver, here or there */
    bool fabric;      /* both want libfabric */
    bool notify;      /* it takes notices */
    bool acks;        /* it understands ACKS */
    uint64_t noticed; /* number of the last that we took from it */
    struct share shares[SHARES_MAX];
};

/* Adds a reference. NULL without memory. */
struct session *session_ref(struct yolk_transfer *transfer, const struct wire_hello *hello);
void session_unref(struct session *session);
struct share *session_find(struct session *session, uint64_t address, uint64_t length);
/* What a peer needs to reach our buffer, which has an identity: all but range and flags. */
void session_describe(const struct buffer *buffer, struct wire_share *out);
/* Remembers, and maps if it can. STATUS_FULL. */
enum status session_add(struct session *session, const struct wire_share *is);
enum status share_check(const struct session *session, struct share *share, uint64_t epoch,
                        uint64_t term);
/* The same by what the last look showed: after share_copy() for each of what it copied. */
enum status share_judge(const struct session *session, const struct share *share, uint64_t epoch,
                        uint64_t term);
/* Copies parts of the share, up to SHARE_PARTS_MAX, and then checks whose it is: the bytes are good
 * if that is well. The caller has checked before, so as not to copy what is known to be wrong. */
enum status share_copy(const struct session *session, struct share *share,
                       const struct env_memory_part *parts, uint32_t count);
/* Where [address, ...) of the share's owner is read from: in our mapping, or, vm, over there. */
const uint8_t *share_at(const struct share *share, uint64_t address);
enum yolk_transfer_path share_path(const struct share *share);

/* ---- slices: the part of a task that is in one place ---- */

struct slice {
    struct slice *next; /* in `free`, a retry list or a copy queue */
    struct task *task;  /* NULL: nobody waits for it any more, or a pull */
    struct lane *lane;  /* in flight on it; or the lane that asked for the pull */
    uint64_t offset;
    uint64_t length;
    uint64_t done; /* copies: how far */
    uint64_t request;
    uint64_t sent_ns; /* given to its lane */
    uint32_t tries;
    uint8_t class;
    uint8_t fabric;      /* enum fabric_stage */
    const uint8_t *from; /* copies only, up to the end; vm: in the owner */
    uint8_t *to;
    struct session *session;
    struct share *share;
    struct wire_header pull;
    struct bounce *bounce;    /* memory of a device goes through it; NULL: of the host */
    struct peer *bounce_peer; /* whom it counts for; NULL: nobody */
};

struct slice_list {
    struct slice *head, *tail;
};

/* NULL at SLICES_MAX. The one that was freed last, because a cache still holds it. */
struct slice *slice_new(struct yolk_transfer *transfer);
void slice_free(struct yolk_transfer *transfer, struct slice *slice);
void slice_push(struct slice_list *list, struct slice *slice);
struct slice *slice_pop(struct slice_list *list);

/* Removes those for which match() is true, and gives each to fn(). */
void slice_filter(struct slice_list *list, bool (*match)(const struct slice *, const void *),
                  const void *what, void (*fn)(struct yolk_transfer *, struct slice *),
                  struct yolk_transfer *transfer);

/* ---- tasks ---- */

struct batch;

struct task {
    struct batch *batch;
    struct task *prev, *next; /* in the peer's list of those with bytes to schedule */
    struct task *done_next;
    struct peer *peer;
    struct buffer *buffer;     /* of req.local; counted */
    struct buffer *remote;     /* local path: of req.remote; counted */
    struct file_segment *file; /* file path: counted until it is final; then NULL */
    struct yolk_transfer_request req;
    struct env_timer timer; /* the deadline, then how long the target may take to acknowledge */
    enum yolk_transfer_state state;
    enum status ending; /* not OK: why it will end, as soon as slices_out is 0 */
    enum yolk_transfer_path path;
    bool queued;
    bool staged; /* memory of a device: cuda.c cuts it */
    bool called_back;
    bool no_share;       /* the target does not share what it wants */
    uint64_t id;         /* the attempt on the wire */
    uint64_t generation; /* of the target; 0 until bound */
    uint64_t offset;     /* scheduled up to here */
    uint64_t bytes;
    uint32_t slices_out;     /* on lanes, live or lost, and in copy queues */
    uint32_t slices_waiting; /* in retry lists */
    uint32_t slices;
    uint32_t retries;
    uint64_t submitted_ns, started_ns, ended_ns;
    uint64_t predicted_us;
    uint64_t direct_bytes; /* file path: past the page cache */
    uint64_t staged_bytes; /* through bounces */
    uint64_t rail_bytes[RAILS_MAX + 1];
};

struct task_list {
    struct task *head, *tail;
};

void task_queue(struct task_list *list, struct task *task);
void task_unqueue(struct task_list *list, struct task *task);
/* Of a new request; nothing has been checked. */
void task_init(struct yolk_transfer *transfer, struct task *task, struct batch *batch,
               const struct yolk_transfer_request *request);

static inline bool task_is_final(const struct task *task)
{
    return task->state >= YOLK_TRANSFER_INVALID;
}

/* It has its final state, of which its batch tells the user. */
void task_finish(struct yolk_transfer *transfer, struct task *task);
void task_started(struct yolk_transfer *transfer, struct task *task, enum yolk_transfer_path path);

/* The slice has arrived whole; frees it, and ends the task if it was the last. */
void task_slice_done(struct yolk_transfer *transfer, struct slice *slice);
/* The slice is nowhere now: tries it again, or ends the task with `status`. */
void task_slice_lost(struct yolk_transfer *transfer, struct slice *slice, enum status status,
                     bool counts);
/* Nothing more of it is scheduled; it becomes final when nothing of it can land. */
void task_end(struct yolk_transfer *transfer, struct task *task, enum status status);
/* Final now, if that is true already. */
void task_settle(struct yolk_transfer *transfer, struct task *task);

/* ---- lanes ---- */

enum lane_state {
    LANE_CONNECTING, /* initiator: no answer of the network yet */
    LANE_GREETING,   /* waiting for the other's HELLO */
    LANE_PROVING,    /* waiting for the proof, or for its acceptance */
    LANE_READY,
    LANE_LOST, /* initiator: closed, but the target may still be writing what was in flight */
    LANE_DEAD, /* waiting to be freed */
};

struct frame {
    struct frame *next;
    const uint8_t *payload;
    uint64_t payload_len;
    uint64_t request;
    uint64_t attempt;
    uint32_t answers; /* of those counted in lane->serving */
    bool clear;       /* of the greeting: before the lane was sealed */
    uint8_t header[WIRE_HEADER_SIZE];
    uint8_t *owned;        /* control payload, freed when sent */
    struct bounce *bounce; /* likewise */
};

struct frame_list {
    struct frame *head, *tail;
};

enum { FRAME_CONTROL = WIRE_CLASSES, FRAME_QUEUES = WIRE_CLASSES + 1 };

enum landing { LANDING_NONE, LANDING_MEMORY, LANDING_SINK, LANDING_CONTROL };

struct lane {
    struct lane *prev, *next; /* in the engine's list */
    struct yolk_transfer *transfer;
    struct env_stream *stream;
    struct env_timer timer;
    enum lane_state state;
    struct peer *peer; /* initiator's lanes; NULL on accepted ones */
    struct rail *rail; /* of the peer; NULL on accepted and lost ones */
    uint32_t index;    /* in peer->lanes */
    bool visited;      /* used since SIEVE's hand came by */
    struct session *session;
    struct seal *seal; /* NULL: not encrypted, or still greeting */
    uint64_t id;
    uint64_t heard_ns;
    uint64_t lease_ns; /* the target's */
    uint8_t hello_ours[WIRE_HELLO_SIZE];
    uint8_t hello_theirs[WIRE_HELLO_SIZE];

    struct fabric_lane *fabric; /* what its data goes through; NULL: its own connection */
    enum status fabric_refused; /* by the other end, or ours: why it cannot; OK: not so far */

    /* out */
    struct frame frames[LANE_FRAMES_MAX];
    struct frame *frames_free;
    uint32_t frames_used;
    struct frame_list out[FRAME_QUEUES];
    struct frame_list sending; /* order settled; the first may be partly gone */
    uint64_t sent;             /* bytes of it that are */
    bool watching_write;
    uint32_t serving;                 /* answers owed: queued frames, acks and pulls */
    uint64_t acks[WIRE_REQUESTS_MAX]; /* WRITEs that went well and are told when it is flushed */
    uint32_t acks_count;
    bool farewell; /* the target has said that it will land nothing more */

    /* in */
    uint8_t rx[LANE_RX_SIZE];
    uint32_t rx_start, rx_end;
    struct wire_header head; /* of the payload being received */
    uint64_t payload_left;
    enum landing landing;
    uint8_t *landing_at;
    struct bounce *landing_bounce; /* of a WRITE into memory of a device */
    enum status landing_status;    /* what a WRITE that does not land is answered */
    struct slice *landing_slice;
    uint8_t control[WIRE_CONTROL_MAX];

    /* initiator */
    struct slice *slots[WIRE_REQUESTS_MAX];
    uint64_t slots_used; /* bit i: slots[i] is not NULL */
    uint32_t inflight_count;
    uint64_t inflight_size;
    uint64_t serial;
    uint64_t announced[YOLK_TRANSFER_BUFFERS_MAX / 64]; /* our shares that it was told */
    uint64_t asked;                                     /* LANE_LOST: bit i, lanes[i] asks */
    uint64_t fences;                                    /* asked for on it, not answered */
};

/* Frames that do not fit are the other's fault, or a bug of ours: false, and the lane must die. */
MUST_USE bool lane_send(struct lane *lane, unsigned queue, const struct wire_header *header,
                        const uint8_t *payload, bool answer);
MUST_USE bool lane_send_control(struct lane *lane, const struct wire_header *header,
                                const uint8_t *payload, size_t len);
/* As lane_answer() with STATUS_OK, together with others if the peer understands that. */
MUST_USE bool lane_ack(struct lane *lane, const struct wire_header *request);
MUST_USE bool lane_answer(struct lane *lane, const struct wire_header *request, enum status status);
/* As lane_send(), of an answer whose payload is in the bounce, which it takes in any case. */
MUST_USE bool lane_send_bounce(struct lane *lane, const struct wire_header *header,
                               struct bounce *bounce);
bool lane_has_room(const struct lane *lane);
/* Takes back the request that has not begun to leave; false if it has. */
bool lane_unsend(struct lane *lane, uint64_t request, uint8_t class);
/* Answers of that attempt that have not begun to leave become ACKs that say CANCELLED. */
void lane_cancel_answers(struct lane *lane, uint64_t attempt);
/* True if bytes in [address, address+length) wait to be sent. */
bool lane_sends_from(const struct lane *lane, uint64_t address, uint64_t length);
void lane_flush(struct lane *lane);
/* Closes it. Its slices are tried again, except those that the target may still write. */
void lane_die(struct lane *lane, enum status status);
/* Accepted lane: silent for its lease, so nothing that came on it may land any more. */
bool lane_expired(const struct lane *lane);
/* Says that nothing that came on it will land any more, if there is room to say it. */
void lane_farewell(struct lane *lane, enum status why);
void lane_free(struct lane *lane);
struct lane *lane_connect(struct peer *peer, struct rail *rail, enum status *status);
/* Closes an idle connection of ours, the next by SIEVE; false if there is none. */
bool lane_evict(struct yolk_transfer *transfer);
void lane_accept(void *ctx, struct env_stream *stream);
/* The payload that is arriving goes nowhere from now on; a WRITE is answered with `status`. */
void lane_stop_landing(struct lane *lane, enum status status);
void lane_set_state(struct lane *lane, enum lane_state state);

/* ---- encrypted lanes ---- */

/* What our greeting says of it: WIRE_CAP_SEAL... */
uint32_t sealing_capabilities(const struct yolk_transfer *transfer);
/* False if we insist on it, and they cannot. */
bool sealing_possible(const struct yolk_transfer *transfer, const struct wire_hello *theirs);
/* Both greetings are known and proven: sets lane->seal if it is to be. */
MUST_USE enum status sealing_start(struct lane *lane);

/* ---- errands: notices and probes ---- */

struct errand {
    struct errand *next; /* in the free list, a batch's or a peer's */
    struct yolk_transfer *transfer;
    struct peer *peer;
    struct lane *lane; /* sent on it, not answered; NULL: waiting */
    struct env_timer timer;
    struct errand_list *batch_list; /* it waits in; NULL: in the peer's, or nowhere */
    uint64_t number;                /* in the order in which they were given */
    uint64_t sent_ns, rtt_ns;
    enum status fate; /* OK: not decided; PENDING: answered OK, and about to be told */
    bool probe;
    yolk_transfer_told_fn on_told;
    void *ctx;
    uint32_t len; /* of payload: the name and the message */
    uint8_t payload[WIRE_NOTICE_NAME_SIZE + YOLK_TRANSFER_NOTICE_SIZE_MAX];
};

struct errand_list {
    struct errand *head, *tail;
};

struct notices {
    struct yolk_transfer_notice *all; /* a circle of NOTICES_MAX, made at the first */
    uint32_t head, count;
};

/* The batch's tasks have ended: its notices go out, or, not `completed`, are given up. */
void errand_release(struct errand_list *list, bool completed);
void errand_schedule(struct peer *peer);
void errand_fail_waiting(struct peer *peer, enum status status);
void errand_lane_gone(struct lane *lane);
bool errand_waiting(const struct peer *peer);
/* The answer to one; false if none such was asked on the lane. */
bool errand_answered(struct lane *lane, uint64_t number, bool probe, enum status status);
/* Target: keeps the notice in lane->control, and answers. */
MUST_USE enum status errand_take(struct lane *lane);
void errand_destroy_all(struct yolk_transfer *transfer);

/* ---- peers ---- */

struct peer {
    struct yolk_transfer *transfer;
    char name[YOLK_TRANSFER_NAME_SIZE];
    bool local;
    uint32_t segments;   /* open handles */
    uint32_t tasks;      /* not final */
    uint64_t generation; /* of the last greeting; 0: none yet */
    struct lane *lanes[YOLK_TRANSFER_LANES_MAX];
    uint32_t lanes_high;              /* those that are not NULL lie below */
    struct rail rails[RAILS_MAX + 1]; /* 0: the name; then those that both ends know */
    uint32_t rail_count;              /* used ones lie below */
    uint64_t rails_of;                /* generation that was asked for its rails */
    char met_name[WIRE_NAME_SIZE];    /* what it calls itself */
    uint32_t lost_count;              /* lanes in LANE_LOST */
    uint32_t failures;                /* to connect, in a row */
    uint32_t refusals;
    struct env_timer timer;     /* when to connect again */
    struct env_timer watch;     /* when to look for silent rails */
    struct lane *ask_lane;      /* a question about a share is under way */
    struct task *ask_task;      /* who needs the answer; NULL: a borrower */
    uint64_t ask_address;       /* what a borrower asked about; 0: nobody did */
    bool ask_denied;            /* the answer was no, and nobody has been told yet */
    bool dirty;                 /* transfer_turn() schedules it */
    uint32_t bounce_units;      /* of cuda.c's pool, that its slices hold */
    struct errand_list errands; /* waiting or asked */
    bool named;                 /* opened by a name that has to be looked up: rails[0] is what is
                                   known of it, "" at first */
    bool found;                 /* since the last connect that failed, or while one works */
    uint64_t found_generation;  /* only this start of it is the peer */
    struct metadata_lookup lookup;
    struct task_list ready[WIRE_CLASSES];
    struct slice_list retry[WIRE_CLASSES];
};

void peer_init(struct peer *peer, struct yolk_transfer *transfer, const char *name, bool local);
void peer_schedule(struct peer *peer);
void peer_lane_ready(struct lane *lane);
void peer_lane_gone(struct lane *lane, enum status status);
void peer_lane_timer(struct lane *lane);
/* STATUS_PROTOCOL when the frame makes no sense. Sets the landing of a payload. */
MUST_USE enum status peer_frame(struct lane *lane, const struct wire_header *header);
MUST_USE enum status peer_payload(struct lane *lane);
/* A slice on the lane's fabric has arrived. */
void peer_slice_moved(struct lane *lane, struct slice *slice);
/* Takes all slices of the task out of queues, and off lanes where that is safe. */
void peer_withdraw(struct task *task);
/* Kills the lanes on which the task still has something. */
void peer_cut(struct task *task);

/* Ends every task that waits for a lane. */
void peer_fail_all(struct peer *peer, enum status status);
bool peer_any_ready(const struct peer *peer);
bool peer_has_work(const struct peer *peer);
/* The lost lanes of the peer are of a start of it that is no more. */
void peer_lost_are_gone(struct peer *peer);

/* For a borrower: OK when `share` covers the range, AGAIN while it is asked for. */
enum status peer_find_share(struct peer *peer, uint64_t address, uint64_t length,
                            struct session **session, struct share **share);

/* When a task of `length` bytes, submitted now, should end; 0: nothing is known. */
uint64_t peer_predict_us(const struct peer *peer, uint64_t length);

/* ---- what happened ---- */

void history_describe(const struct yolk_transfer *transfer, const struct task *task,
                      struct yolk_transfer_explain *out);
void history_add(struct yolk_transfer *transfer, const struct task *task);

/* ---- loans ---- */

struct loan {
    bool out;
    uint32_t serial;
    uint32_t free_next;
    struct session *session; /* NULL: our own memory */
    struct share *share;
    struct buffer *buffer; /* our own; counted */
    uint64_t epoch;
};

void loan_destroy_all(struct yolk_transfer *transfer);

/* ---- rails of a peer ---- */

void peer_rails_init(struct peer *peer);
/* The lookup of its name has ended. */
void peer_rails_found(struct peer *peer, enum status status, const struct metadata_entry *entry);
/* The lane for the next slice of this class out of or into `buffer`; NULL: none has room. */
struct lane *peer_pick_lane(struct peer *peer, int class, const struct buffer *buffer);
/* True if a rail has no lane though enough is under way to use it. */
bool peer_rails_lacking(const struct peer *peer);
/* Opens a lane on each rail that could use one and has none on its way. */
void peer_connect_more(struct peer *peer);
void peer_connect_failed(struct peer *peer, struct rail *rail, enum status status);
/* False if this lane leads somewhere else than the others, and has been closed. */
bool peer_lane_is_ours(struct lane *lane);
/* Tells the peer our rails and asks for its own, once per start of it. */
void peer_rails_ask(struct lane *lane);
MUST_USE enum status peer_rails_learn(struct lane *lane, const struct wire_rails *theirs);
/* All slots below rail_count; a slot that is not used has state NULL. */
uint32_t peer_rails_describe(const struct peer *peer, struct yolk_transfer_rail out[RAILS_MAX + 1]);
/* Looks for silent rails while something is in flight on several. */
void peer_rails_watch(struct peer *peer);
MUST_USE bool lane_send_rails(struct lane *lane);

/* ---- names ---- */

MUST_USE enum status naming_start(struct yolk_transfer *transfer,
                                  const struct yolk_transfer_options *options, struct errmsg *err);
/* Takes our name off the server, if it is there, in at most a second, without turning the loop. */
void naming_farewell(struct yolk_transfer *transfer);
void naming_stop(struct yolk_transfer *transfer);
bool naming_is_ours(const struct yolk_transfer *transfer, const char *name);
/* A name that could be looked up. */
bool naming_valid(const struct yolk_transfer *transfer, const char *name);
/* True if its address has to be looked up before the next connect on rails[0]. */
bool naming_wants(const struct peer *peer);
/* Ends in peer_rails_found(), from the loop. */
void naming_find(struct peer *peer);
void naming_forget(struct peer *peer); /* no lookup is under way any more */

/* ---- target ---- */

MUST_USE enum status target_frame(struct lane *lane, const struct wire_header *header);
MUST_USE enum status target_payload(struct lane *lane);
void target_lane_gone(struct lane *lane);
/* Is the request of the epoch and term that we are in? */
MUST_USE enum status target_check_owner(const struct yolk_transfer *transfer,
                                        const struct wire_header *header);
/* Answers a READ with the bytes at `data`, of `bounce` if that is not NULL. */
MUST_USE bool target_send_data(struct lane *lane, const struct wire_header *request,
                               const uint8_t *data, struct bounce *bounce);
/* The pull has ended, well or not: answers it, and frees the slice. */
void target_pull_done(struct yolk_transfer *transfer, struct slice *slice, enum status status);
/* Stops what peers are doing to the buffer, or, NULL, under older epochs and terms. */
void target_revoke(struct yolk_transfer *transfer, const struct buffer *buffer);

/* ---- copies ---- */

void copy_queue(struct yolk_transfer *transfer, struct slice *slice);
/* True if some are left. */
bool copy_run(struct yolk_transfer *transfer);
void copy_drop_task(struct yolk_transfer *transfer, const struct task *task);
void copy_drop_lane(struct yolk_transfer *transfer, const struct lane *lane);
void copy_release(struct slice *slice);
/* Whether what the slice reads is still, by a look at its identity, whose it should be. */
MUST_USE enum status copy_check(const struct slice *slice);

/* ---- files ---- */

/* May the task, of our own generation, do that to the file? NOT_FOUND beyond its end. */
MUST_USE enum status file_check(const struct yolk_transfer *transfer,
                                const struct file_segment *file, const struct task *task);
void file_ref(struct file_segment *file);
void file_unref(struct yolk_transfer *transfer, struct file_segment *file);
/* Puts what waits in transfer->disk into the kernel, as far as there is room. */
void file_schedule(struct yolk_transfer *transfer);
const char *file_name(const struct file_segment *file); /* as explain shows it */
/* Of the task, from its offset on, what one slice takes: up to where the file, or the way into it,
 * changes. */
uint64_t file_piece_length(const struct yolk_transfer *transfer, const struct task *task);
/* As peer_predict_us(). */
uint64_t file_predict_us(const struct yolk_transfer *transfer, uint64_t length);
/* Waits for the kernel; nobody is called back. */
void file_destroy_all(struct yolk_transfer *transfer);

/* ---- the engine ---- */

struct batch_slot {
    struct batch *batch;
    uint32_t serial;
    uint32_t free_next;
};

struct segment {
    struct peer *peer;         /* NULL: free */
    struct file_segment *file; /* counted; NULL: it is an engine's memory */
    uint64_t generation;
    uint32_t serial;
    uint32_t free_next;
};

struct slice_chunk {
    struct slice_chunk *next;
    struct slice slices[SLICE_CHUNK];
};

struct yolk_transfer {
    struct env *env;
    struct env_listener *listener;
    char name[YOLK_TRANSFER_NAME_SIZE];
    char *secret;
    bool forbid_shm, allow_open, encrypt;
    uint64_t generation, epoch, term, host;
    uint32_t lanes_per_peer, slice_size, peers_max, retries_max, lanes_max;
    struct topology topology;
    struct env_listener *rail_listeners[RAILS_MAX];
    struct fabric_engine *fabric; /* NULL: the protocol is tcp */
    uint64_t connect_ns, fence_ns;

    struct buffers buffers;
    struct session *sessions;
    struct peer local;
    struct peer disk;    /* where tasks of files wait; it has no lanes */
    struct files *files; /* NULL until the first is opened */
    struct cuda *cuda;   /* NULL until memory of a device is registered */
    struct peer **peers;
    uint32_t peer_count;
    struct lane *lanes, *lanes_tail; /* all that are not dead, newest first */
    struct lane *sieve_hand;
    uint32_t accepted_count;
    uint32_t connected_count; /* that we opened, lost ones not among them */
    struct lane *graveyard;
    uint64_t lane_serial, task_serial;

    struct slice_chunk *slice_chunks;
    struct slice *slices_free;
    uint32_t slice_count;
    struct slice_list copies[WIRE_CLASSES];

    struct batch *spare; /* memory of a large batch that was freed */
    struct batch_slot *batches;
    uint32_t batch_high, batch_free; /* indices + 1; 0: none */
    struct segment *segments;
    uint32_t segment_high, segment_free;

    struct yolk_transfer_explain *history; /* a circle; made at the first */
    uint64_t history_count;                /* ever added */
    uint64_t copy_rate;                    /* bytes per second, smoothed; 0: none yet */

    struct errand *errands; /* all; made at the first */
    struct errand_list errands_free;
    uint64_t errand_serial;
    struct notices notices;

    struct metadata *metadata; /* NULL: names are "host:port" */
    char segment_name[YOLK_TRANSFER_NAME_SIZE];
    bool withdrawing, withdrawn;

    struct loan *loans; /* YOLK_TRANSFER_LOANS_MAX, made at the first */
    uint32_t loan_high, loan_free;

    /* The clock as it was when the engine last began something (transfer_clock()): what a transfer
     * of 4 KiB costs, apart from its bytes, would otherwise be mostly looks at the clock. */
    uint64_t now_ns;
    struct env_timer work;
    struct task *done_head, *done_tail;
    bool in_callback;
    uint8_t sink[64 << 10]; /* where bytes go that nobody wants */
    struct yolk_transfer_stats stats;
};

/* Calls back what has ended since; what ends meanwhile waits for the next time. */
void batch_call_back_all(struct yolk_transfer *transfer);
void batch_destroy_all(struct yolk_transfer *transfer);
/* Withdraws all that is registered; nobody reads or writes it any more. */
void register_destroy_all(struct yolk_transfer *transfer);
/* The notices that wait for the batch; NULL for a dead handle. */
struct errand_list *transfer_batch_errands(struct yolk_transfer *transfer,
                                           struct yolk_transfer_batch handle);
/* Releases them if it has no unfinished task. */
void transfer_batch_look(struct yolk_transfer *transfer, struct yolk_transfer_batch handle);
struct segment *transfer_segment(struct yolk_transfer *transfer,
                                 struct yolk_transfer_segment handle);
/* A handle to the peer, or to a file, whose reference it takes. STATUS_FULL. */
MUST_USE enum status transfer_segment_add(struct yolk_transfer *transfer, struct peer *peer,
                                          struct file_segment *file,
                                          struct yolk_transfer_segment *out);
/* Looks at the clock. Whatever begins something calls it: calls of the user, timers, bytes that
 * arrive, copies. Times that are only told or averaged are taken from now_ns. */
uint64_t transfer_clock(struct yolk_transfer *transfer);
/* transfer_turn() runs on the next turn of the loop. */
void transfer_kick(struct yolk_transfer *transfer);
/* Copies, callbacks, work for the lanes, dead lanes; nothing of the engine may be on the stack. */
void transfer_turn(struct yolk_transfer *transfer);
void peer_kick(struct peer *peer); /* and schedules it */
/* The length of the host part of "host:port", or 0 if it is not of that form. */
size_t transfer_host_length(const char *name);
/* Chooses our rails, reads the topology, and listens. What it opened is closed by _stop(). */
MUST_USE enum status transfer_rails_start(struct yolk_transfer *transfer,
                                          const struct yolk_transfer_options *options,
                                          const char *listen, struct errmsg *err);
void transfer_rails_stop(struct yolk_transfer *transfer);
bool transfer_bind(struct yolk_transfer *transfer, struct task *task, uint64_t generation);

#endif
