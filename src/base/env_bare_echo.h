/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_echo.h - a bare echo on epoll: what one loop gives clients that ask one short
 * question after the other. A yardstick for benches; no part of Yolk runs on it.
 *
 * The server is one thread that reads what has come, sends it back, and counts. A client is one
 * connection with one message under way, which waits in epoll as a client inside a loop does.
 * Messages have one size, known to both.
 *
 * Threads: each call blocks the calling thread, and shares nothing. */
#ifndef BASE_ENV_BARE_ECHO_H
#define BASE_ENV_BARE_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { ENV_BARE_ECHO_SIZE_MIN = 16, ENV_BARE_ECHO_SIZE_MAX = 4096 };

/* Serves on 127.0.0.1 until it fails: STATUS_EXISTS for a taken port, STATUS_IO. */
MUST_USE enum status env_bare_echo_serve(uint16_t port, size_t size);

/* Asks until the server is gone: STATUS_IO. */
MUST_USE enum status env_bare_echo_ask(uint16_t port, size_t size);

/* How many messages of all clients have been sent back. STATUS_UNAVAILABLE: no server (yet). */
MUST_USE enum status env_bare_echo_count(uint16_t port, size_t size, uint64_t *count);

/* Whether anybody accepts connections at that port of 127.0.0.1. */
bool env_bare_listens(uint16_t port);

#endif
