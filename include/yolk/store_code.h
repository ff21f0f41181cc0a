/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store_code.h - what the statuses of the KVCache pool are called by callers of Mooncake's
 * store: its error codes, negative numbers that its users have learnt to tell apart. A code depends
 * on what was asked as well as on the status: STATUS_FULL of a put is -200, back-pressure; of a get
 * it is -600, a buffer that is too small.
 *
 * What a layer that answers with those codes has to add, because it is about results and no error:
 * exist is 1 for STATUS_OK and 0 for STATUS_NOT_FOUND; a get that went well is the bytes that were
 * read; a put that ended with -705 is reported as 0 there, and its value is not replaced.
 *
 * Threads: none of this is shared. */
#ifndef YOLK_STORE_CODE_H
#define YOLK_STORE_CODE_H

#include "base/status.h"

/* What was asked; beside each, the calls it is about. */
enum yolk_store_op {
    YOLK_STORE_OP_PUT,          /* put without `replace`; the start of a put session without */
    YOLK_STORE_OP_UPSERT,       /* either with it */
    YOLK_STORE_OP_GET,          /* get, range reads, describe; the start of a get session */
    YOLK_STORE_OP_EXIST,        /* exist, locate, list, count */
    YOLK_STORE_OP_REMOVE,       /* remove, clear; of all keys or by an expression */
    YOLK_STORE_OP_REMOVE_FORCE, /* the same with `force`, where no lease is in the way */
    YOLK_STORE_OP_REPLICAS,     /* replicas; a copy or a move that is asked for */
    YOLK_STORE_OP_TASK,         /* how such a copy or move does */
    YOLK_STORE_OP_PUT_SESSION,  /* write, end, revoke */
    YOLK_STORE_OP_GET_SESSION,  /* read, end */
    YOLK_STORE_OP_SEGMENT,      /* lending memory, taking it back, drain */
    YOLK_STORE_OP_TENANT,       /* quotas */
    YOLK_STORE_OPS,
};

/* Codes of the contract that statuses become. */
enum yolk_store_code {
    YOLK_STORE_CODE_OK = 0,
    YOLK_STORE_CODE_INTERNAL = -1,
    YOLK_STORE_CODE_SEGMENT_NOT_FOUND = -101,
    YOLK_STORE_CODE_SEGMENT_EXISTS = -102,
    YOLK_STORE_CODE_NO_ROOM = -200,
    YOLK_STORE_CODE_VERSION = -300,
    YOLK_STORE_CODE_INVALID = -600,
    YOLK_STORE_CODE_NO_WRITE = -700,
    YOLK_STORE_CODE_NOT_READY = -703,
    YOLK_STORE_CODE_NOT_FOUND = -704,
    YOLK_STORE_CODE_EXISTS = -705,
    YOLK_STORE_CODE_LEASED = -706,
    YOLK_STORE_CODE_LEASE_EXPIRED = -707,
    YOLK_STORE_CODE_HAS_TASK = -708,
    YOLK_STORE_CODE_BUSY = -714,
    YOLK_STORE_CODE_TRANSFER = -800,
    YOLK_STORE_CODE_CHECKSUM = -801,
    YOLK_STORE_CODE_RPC = -900,
    YOLK_STORE_CODE_RPC_TIMEOUT = -901,
    YOLK_STORE_CODE_NOT_NOW = -1010,
    YOLK_STORE_CODE_UNSUPPORTED = -1012,
    YOLK_STORE_CODE_TASK_NOT_FOUND = -1400,
    YOLK_STORE_CODE_TASKS_FULL = -1401,
    YOLK_STORE_CODE_PERMISSION = -1603,
    YOLK_STORE_CODE_TENANT_QUOTA = -1700,
    YOLK_STORE_CODE_TENANT_UNKNOWN = -1701,
    YOLK_STORE_CODE_TENANT_NOT_EMPTY = -1702,
};

/* 0 for STATUS_OK, and for every other status a code below 0; YOLK_STORE_CODE_INTERNAL for what is
 * no status, and for STATUS_PENDING, which no call ends with. */
enum yolk_store_code yolk_store_code(enum yolk_store_op op, enum status status);

/* The contract's name of a code, such as "OBJECT_NOT_FOUND"; "UNKNOWN" for another number. */
const char *yolk_store_code_name(int code);

#endif
