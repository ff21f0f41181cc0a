# SPDX-License-Identifier: Apache-2.0
"""More work than there is memory for: everybody waits a turn, and no token differs."""
import json
import socket
import threading

import pytest

from cluster import Cluster, wait_until


def body(i, **more):
    return {"model": "smollm2", "temperature": 0, "ignore_eos": True,
            "messages": [{"role": "user", "content": f"Tell me about the number {i}."}], **more}


def text(cluster, request):
    status, answer, _ = cluster.post("/v1/chat/completions", request)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]


def together(cluster, requests):
    out = [None] * len(requests)

    def run(i):
        out[i] = text(cluster, requests[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    return out


def idle(cluster):
    return (cluster.metric("vllm:num_requests_running") == 0
            and cluster.metric("vllm:num_requests_waiting") == 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """21 pages of 32 tokens a node: two answers of 330 tokens are begun, but do not fit."""
    made = Cluster(tmp_path_factory.mktemp("small"), "--pool-size", "15M").wait_ready()
    yield made
    made.stop()


def test_long_answers_displace_each_other_and_stay_the_same(small):
    requests = [body(i, max_tokens=330) for i in range(3)]
    alone = [text(small, request) for request in requests]
    assert all(count == 330 for _, count in alone)
    # Room is kept for what answers took lately: short ones, so that the long ones are all begun.
    for i in range(24):
        text(small, body(100 + i, max_tokens=2))
    assert together(small, requests) == alone
    assert small.metric("yolk_gateway_attempts_failed_total", cause="pages") > 0
    wait_until(lambda: idle(small), 5, "nothing is left")


def test_context_is_what_the_pool_holds(small):
    """Without max_tokens an answer ends where the memory of a node does."""
    content, count = text(small, body(7))
    assert 600 < count < 672
    assert json.loads(small.get("/v1/models")[1])["data"][0]["max_model_len"] == 672
    status, answer, _ = small.post("/v1/completions", {"model": "smollm2", "prompt": "a " * 1000})
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded"


def test_no_limit_given_is_no_reason_to_wait(cluster):
    """Room is kept for an answer of common length, not for all that the context would allow."""
    clients = []
    for i in range(8):
        data = json.dumps(body(i, stream=True)).encode()
        raw = socket.create_connection(("127.0.0.1", cluster.port))
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                    b"application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        clients.append(raw)
    wait_until(lambda: cluster.metric("vllm:num_requests_running") == 8, 20, "all run at once")
    for raw in clients:
        raw.close()
    wait_until(lambda: idle(cluster), 5, "nothing is left")
