# SPDX-License-Identifier: Apache-2.0
"""Hostile HTTP against a live gateway: each is answered or dropped, and never harms the next one."""
import json
import socket
import time

import pytest

GOOD = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def talk(cluster, data, timeout=15, half_close=False):
    """Sends bytes, returns everything the server says until it closes or falls silent."""
    raw = socket.create_connection(("127.0.0.1", cluster.port), timeout=timeout)
    try:
        raw.sendall(data)
        if half_close:
            raw.shutdown(socket.SHUT_WR)
        said = b""
        while True:
            piece = raw.recv(65536)
            if not piece:
                return said
            said += piece
    except (TimeoutError, ConnectionResetError, BrokenPipeError):
        return said if "said" in locals() else b""
    finally:
        raw.close()


def request(body, *headers):
    data = json.dumps(body).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json",
            f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


@pytest.fixture(autouse=True)
def others_are_served(cluster):
    yield
    status, body, _ = cluster.post("/v1/chat/completions", GOOD)
    assert status == 200, body


def test_pipelined_requests_are_answered_in_order(cluster):
    said = talk(cluster, request(GOOD, "X-Request-Id: one") + request(GOOD, "X-Request-Id: two")
                + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 200") == 3
    assert said.find(b"one") < said.find(b"two")


def test_oversize_header_is_431(cluster):
    said = talk(cluster, b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100000 + b"\r\n\r\n")
    assert b" 431 " in said.split(b"\r\n")[0]


def test_oversize_body_is_413(cluster):
    said = talk(cluster, b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 99999999999\r\n\r\n")
    assert b" 413 " in said.split(b"\r\n")[0]


@pytest.mark.parametrize("data", [
    b"\x00\x01\x02\x03\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\nhello",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
])
def test_garbage_is_400_and_closed(cluster, data):
    said = talk(cluster, data, half_close=True)
    code = said.split(b"\r\n")[0]
    assert said == b"" or b" 400 " in code or b" 505 " in code, said


def test_half_sent_request_does_not_hold_the_server(cluster):
    whole = request(GOOD)
    for cut in (1, 20, 60, len(whole) - 1):
        assert b" 200 " not in talk(cluster, whole[:cut], half_close=True)


def test_slow_loris_is_dropped(cluster):
    raw = socket.create_connection(("127.0.0.1", cluster.port), timeout=30)
    raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    end = time.monotonic() + 25
    closed = False
    while time.monotonic() < end and not closed:
        try:
            raw.sendall(b"X: y\r\n")
            raw.settimeout(1)
            answer = raw.recv(4096)
            closed = answer == b"" or b" 408 " in answer
        except TimeoutError:
            pass
        except OSError:
            closed = True
    raw.close()
    assert closed, "a client that never finishes its header was kept for 25 s"


def test_hundred_idle_connections(cluster):
    idle = [socket.create_connection(("127.0.0.1", cluster.port)) for _ in range(100)]
    status, _, _ = cluster.post("/v1/chat/completions", GOOD)
    assert status == 200
    for raw in idle:
        raw.close()


def test_reader_that_never_reads(cluster):
    """A stream nobody reads is bounded by the socket and the gateway's limit, not by memory."""
    stuck = []
    for _ in range(3):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.connect(("127.0.0.1", cluster.port))
        raw.sendall(request({**GOOD, "stream": True, "max_tokens": 300, "ignore_eos": True}))
        stuck.append(raw)
    status, _, _ = cluster.post("/v1/chat/completions", GOOD)
    assert status == 200
    for raw in stuck:
        raw.close()
