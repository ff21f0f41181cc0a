/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/wire.h - wire format v1 of the transfer engine, as pure functions over bytes.
 *
 * docs/internals/transfer-wire.md has the tables and the conversation; this has the layouts in
 * code. Everything is little-endian and encoded field by field. A frame is a header of
 * WIRE_HEADER_SIZE bytes and a payload of wire_payload_size() bytes.
 *
 * Memory:  none.
 * Threads: any. Decoders accept any bytes: what is not a frame is STATUS_PROTOCOL, a header whose
 *          checksum is wrong STATUS_CORRUPT, and then nothing has been written. */
#ifndef TRANSFER_WIRE_H
#define TRANSFER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER_SIZE = 88,
    WIRE_HELLO_SIZE = 240,
    WIRE_SHARE_SIZE = 136,
    WIRE_SHARE_DEVICE_SIZE = 216, /* of memory of a device; only to one that has WIRE_CAP_IPC */
    WIRE_IPC_SIZE = 64,
    WIRE_PROOF_SIZE = 32,
    WIRE_NONCE_SIZE = 32,
    WIRE_TOKEN_SIZE = 16,
    WIRE_NAME_SIZE = 128,
    WIRE_SHARE_NAME_SIZE = 96,
    WIRE_RAILS_MAX = 8,
    WIRE_RAIL_SIZE = 96,
    WIRE_RAILS_SIZE = 8 + WIRE_RAILS_MAX * WIRE_RAIL_SIZE,
    WIRE_NOTICE_NAME_SIZE = 64, /* NOTIFY: the name, padded with zeros; then the message */
    WIRE_RAIL_ADDRESS_SIZE = 64,
    WIRE_RAIL_INTERFACE_SIZE = 16,
    WIRE_CONTROL_MAX = 1024, /* payload of HELLO, AUTH, SHARE */
    WIRE_PROVIDER_SIZE = 64,
    WIRE_FABRIC_ADDRESS_SIZE = 192,
    WIRE_FABRIC_SIZE = 264,
    WIRE_GRANT_SIZE = 40,
    WIRE_SLICE_MAX = 4 << 20, /* payload of WRITE and READ_DATA, length of READ and PULL */
    WIRE_REQUESTS_MAX = 64,   /* unanswered READ, WRITE, PULL of one connection */
    WIRE_CLASSES = 3,
};

#define WIRE_MAGIC UINT32_C(0x46584b59) /* "YKXF" */

enum wire_opcode {
    WIRE_HELLO = 1,
    WIRE_AUTH = 2,
    WIRE_READ = 3,
    WIRE_READ_DATA = 4,
    WIRE_WRITE = 5,
    WIRE_ACK = 6,
    WIRE_PULL = 7,
    WIRE_CANCEL = 8,
    WIRE_FENCE = 9,
    WIRE_FENCE_ACK = 10,
    WIRE_ASK = 11,
    WIRE_SHARE = 12,
    WIRE_PING = 13,
    WIRE_PONG = 14,
    WIRE_GOODBYE = 15,
    WIRE_RAILS = 16,      /* only between two that have WIRE_CAP_RAILS */
    WIRE_NOTIFY = 17,     /* only to one that has WIRE_CAP_NOTIFY */
    WIRE_NOTIFY_ACK = 18, /* the answer */
    WIRE_ACKS = 19,       /* only to one that has WIRE_CAP_ACKS */
    WIRE_FABRIC = 20,     /* this and the next two only to one that has WIRE_CAP_FABRIC */
    WIRE_FABRIC_ASK = 21,
    WIRE_FABRIC_GRANT = 22,
};

enum { WIRE_CHECKSUM = 1 }; /* flags: `checksum` covers the payload, or is wanted in the answer */

enum {
    WIRE_CAP_SHM = 1,          /* capabilities: may map shares, and offers its own */
    WIRE_CAP_RAILS = 2,        /* has several addresses, and understands RAILS */
    WIRE_CAP_NOTIFY = 8,       /* takes notices */
    WIRE_CAP_VM = 4,           /* reads memory of other processes, and names its own so */
    WIRE_CAP_SEAL = 16,        /* has a secret and can encrypt */
    WIRE_CAP_SEAL_ALWAYS = 32, /* does not talk without */
    WIRE_CAP_SEAL_AES = 64,    /* has instructions for AES, and would rather use it */
    WIRE_CAP_ACKS = 128,       /* understands ACKS */
    WIRE_CAP_FABRIC = 256,     /* moves data through libfabric when asked to */
    WIRE_CAP_IPC = 512,        /* understands shares of memory of devices */
};

struct wire_header {
    enum wire_opcode opcode;
    uint8_t flags;
    uint8_t class;
    uint64_t attempt; /* of the initiator's task; CANCEL names it */
    uint64_t request; /* the answer repeats it */
    uint64_t epoch;   /* of the target, 0: any */
    uint64_t term;    /* 0: any */
    uint64_t address; /* at the target; FENCE: the connection to close */
    uint64_t length;  /* of the range; of the payload where there is one */
    uint64_t checksum;
    uint64_t source;    /* PULL: address at the initiator */
    enum status status; /* ACK, FENCE_ACK, GOODBYE; FABRIC and FABRIC_GRANT that refuse */
};

void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_SIZE]);
MUST_USE enum status wire_header_decode(const uint8_t in[WIRE_HEADER_SIZE],
                                        struct wire_header *out);

/* The payload of ACKS: the numbers of requests, 8 bytes each. */
enum { WIRE_ACK_SIZE = 8 };
void wire_ack_encode(uint64_t request, uint8_t out[WIRE_ACK_SIZE]);
uint64_t wire_ack_decode(const uint8_t in[WIRE_ACK_SIZE]);

/* Bytes that follow the header: bounded by WIRE_SLICE_MAX or WIRE_CONTROL_MAX. */
uint64_t wire_payload_size(const struct wire_header *header);

struct wire_hello {
    uint8_t version_min;
    uint8_t version_max;
    uint32_t capabilities;
    uint64_t generation;
    uint64_t epoch;
    uint64_t connection; /* the initiator's number for it; the target repeats it */
    uint64_t host;       /* equal on one host, 0: unknown */
    uint32_t lease_ms;   /* the target closes a connection that was silent that long */
    uint8_t nonce[WIRE_NONCE_SIZE];
    char name[WIRE_NAME_SIZE];
    uint8_t proof[WIRE_PROOF_SIZE]; /* zero in the initiator's */
};

void wire_hello_encode(const struct wire_hello *hello, uint8_t out[WIRE_HELLO_SIZE]);
/* Longer payloads are of later versions: the tail is ignored. */
MUST_USE enum status wire_hello_decode(const uint8_t *in, size_t len, struct wire_hello *out);

struct wire_share {
    uint64_t address;
    uint64_t length;
    uint32_t flags; /* YOLK_TRANSFER_REMOTE_... */
    uint8_t token[WIRE_TOKEN_SIZE];
    char name[WIRE_SHARE_NAME_SIZE]; /* "": this memory is not shared */
    bool device;                     /* it is memory of one: `name` is that of its identity, and */
    bool has_handle;                 /* the driver opens it with this: */
    uint8_t handle[WIRE_IPC_SIZE];
    uint64_t handle_offset; /* of `address` in what the handle opens */
};

/* The size: WIRE_SHARE_DEVICE_SIZE for memory of a device, else WIRE_SHARE_SIZE. */
size_t wire_share_encode(const struct wire_share *share, uint8_t out[WIRE_SHARE_DEVICE_SIZE]);
/* Memory of a kind that we do not know is not shared: it has no name. */
MUST_USE enum status wire_share_decode(const uint8_t *in, size_t len, struct wire_share *out);

struct wire_rail {
    char address[WIRE_RAIL_ADDRESS_SIZE];     /* "host:port", where this side listens */
    char interface[WIRE_RAIL_INTERFACE_SIZE]; /* for people */
    uint32_t speed_mbps;                      /* 0: not known */
    int32_t numa_node;                        /* -1: not known */
    uint8_t rank; /* 0 preferred, 1 secondary, for the memory of this side */
};

struct wire_rails {
    uint32_t count;
    struct wire_rail rails[WIRE_RAILS_MAX];
};

void wire_rails_encode(const struct wire_rails *rails, uint8_t out[WIRE_RAILS_SIZE]);
/* More than WIRE_RAILS_MAX are STATUS_PROTOCOL. */
MUST_USE enum status wire_rails_decode(const uint8_t *in, size_t len, struct wire_rails *out);

struct wire_fabric {
    char provider[WIRE_PROVIDER_SIZE];
    uint32_t address_len;                      /* 1..WIRE_FABRIC_ADDRESS_SIZE */
    uint8_t address[WIRE_FABRIC_ADDRESS_SIZE]; /* as libfabric writes it */
};

void wire_fabric_encode(const struct wire_fabric *fabric, uint8_t out[WIRE_FABRIC_SIZE]);
MUST_USE enum status wire_fabric_decode(const uint8_t *in, size_t len, struct wire_fabric *out);

/* Memory of the target, as the initiator's end of the fabric may name it. */
struct wire_grant {
    uint64_t address; /* virtual, at the target */
    uint64_t length;
    uint32_t flags; /* YOLK_TRANSFER_REMOTE_... */
    uint64_t base;  /* what the fabric calls its first byte */
    uint64_t key;
};

void wire_grant_encode(const struct wire_grant *grant, uint8_t out[WIRE_GRANT_SIZE]);
MUST_USE enum status wire_grant_decode(const uint8_t *in, size_t len, struct wire_grant *out);

/* The proof of `role` ("target", "initiator") that it knows the secret, over both greetings. */
void wire_proof(const char *secret, const char *role, const uint8_t initiator[WIRE_HELLO_SIZE],
                const uint8_t target[WIRE_HELLO_SIZE], uint8_t out[WIRE_PROOF_SIZE]);

#endif
