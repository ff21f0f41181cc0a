# SPDX-License-Identifier: Apache-2.0
"""Processes die, clients vanish: streams go on, nothing is stuck, no token differs."""
import http.client
import json
import socket
import threading
import time

import pytest

from cluster import Cluster, events, wait_until

LONG = " ".join(f"word{i * 7919 % 10007}" for i in range(220))


def body(text, **more):
    return {"model": "smollm2", "temperature": 0, "messages": [{"role": "user", "content": text}],
            "ignore_eos": True, **more}


def stream(cluster, request, on_token=None, rows=None):
    """The text of a streamed answer; on_token(count) is called after each piece, and what is said
    about the probabilities of tokens is put in `rows`."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps({**request, "stream": True}))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    pieces = []
    for event in events(response):
        for choice in event["choices"]:
            if rows is not None:
                rows.extend((choice["logprobs"] or {"content": []})["content"])
            if choice["delta"].get("content"):
                pieces.append(choice["delta"]["content"])
                if on_token:
                    on_token(len(pieces))
    connection.close()
    return "".join(pieces)


@pytest.fixture(scope="module")
def expected(cluster):
    return {n: stream(cluster, body(LONG, max_tokens=n)) for n in (64, 128)}


def test_decode_killed_mid_stream(cluster, expected):
    killed = []

    def kill_once(count):
        if count == 20 and not killed:
            killed.append(cluster.kill("decode"))

    assert stream(cluster, body(LONG, max_tokens=128), kill_once) == expected[128]
    assert killed
    wait_until(lambda: cluster.children("decode") and cluster.get("/ready")[0] == 200)


def test_probabilities_survive_a_killed_decode_node(cluster, expected):
    """Each token's row comes once, and is the same to the last bit, whoever computed it."""
    request = body(LONG, max_tokens=64, logprobs=True, top_logprobs=3)
    whole, torn, killed = [], [], []

    def kill_once(count):
        if count == 20 and not killed:
            killed.append(cluster.kill("decode"))

    assert stream(cluster, request, rows=whole) == expected[64]
    assert stream(cluster, request, kill_once, rows=torn) == expected[64]
    assert killed and len(whole) == 64
    assert torn == whole
    wait_until(lambda: cluster.children("decode") and cluster.get("/ready")[0] == 200)


def while_prefill_is_killed(cluster, ask):
    """What ask() returns while the prefill node dies that computes its prompt."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(ask()))
    thread.start()
    wait_until(lambda: cluster.metric("vllm:num_requests_running") > 0, 60, "request running")
    cluster.kill("prefill")
    thread.join(300)
    assert not thread.is_alive()
    wait_until(lambda: cluster.get("/ready")[0] == 200)
    return answer[0]


def test_prefill_killed_mid_request(cluster, expected):
    """The prompt is new to the pool, so the prefill is still running when its process dies."""
    fresh = body("Fresh. " + LONG, max_tokens=32)
    before = cluster.metric("vllm:prompt_tokens_total")
    text = while_prefill_is_killed(cluster, lambda: stream(cluster, fresh))
    assert stream(cluster, fresh) == text
    assert cluster.metric("vllm:prompt_tokens_total") > before


def test_probabilities_of_a_prompt_survive_a_killed_prefill_node(cluster):
    """It dies while it scores them, or just after; they are those of an undisturbed cluster."""
    scored = {"model": "smollm2", "prompt": "Scored. " + LONG, "temperature": 0, "max_tokens": 4, "echo": True,
              "logprobs": 2, "prompt_logprobs": 1}
    answer = while_prefill_is_killed(cluster, lambda: cluster.post("/v1/completions", scored, timeout=290)[1])
    assert answer["choices"] == cluster.post("/v1/completions", scored)[1]["choices"]


def test_master_killed_and_back(cluster, expected):
    cluster.kill("master")
    assert stream(cluster, body(LONG, max_tokens=64)) == expected[64]
    wait_until(lambda: cluster.children("master"))
    assert stream(cluster, body(LONG, max_tokens=64)) == expected[64]


def test_sampled_stream_continues_exactly(cluster):
    request = {**body(LONG, max_tokens=96), "temperature": 1.0, "seed": 11,
               "repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_k": 100}
    reference = stream(cluster, request)
    killed = []

    def kill_once(count):
        if count == 15 and not killed:
            killed.append(cluster.kill("decode"))

    assert stream(cluster, request, kill_once) == reference
    wait_until(lambda: cluster.get("/ready")[0] == 200)


def idle(cluster):
    return (cluster.metric("vllm:num_requests_running") == 0
            and cluster.metric("vllm:num_requests_waiting") == 0)


def test_hang_up_stops_the_work(cluster):
    """A client that leaves after a few tokens must not cost the other 1,500."""
    raw = socket.create_connection(("127.0.0.1", cluster.port))
    data = json.dumps({**body("Tell me a long story", max_tokens=1500), "stream": True}).encode()
    raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(data) + data)
    heard = b""
    while b"data:" not in heard:  # the head may come by itself
        piece = raw.recv(65536)
        assert piece, heard
        heard += piece
    generated = cluster.metric("vllm:generation_tokens_total")
    raw.close()
    wait_until(lambda: idle(cluster), 5, "work stopped after hang-up")
    assert cluster.metric("vllm:generation_tokens_total") - generated < 1000


def test_hang_up_before_the_answer(cluster):
    for _ in range(8):
        raw = socket.create_connection(("127.0.0.1", cluster.port))
        data = json.dumps(body("Prompt " + LONG, max_tokens=500)).encode()
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                    b"application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        time.sleep(0.05)
        raw.close()
    wait_until(lambda: idle(cluster), 10, "abandoned requests gone")
    status, answer, _ = cluster.post("/v1/chat/completions", body("Still there?", max_tokens=4))
    assert status == 200 and answer["usage"]["completion_tokens"] == 4


def test_many_at_once_agree_with_one_alone(cluster):
    prompts = [f"Question {i}: tell me about the number {i}." for i in range(12)]
    alone = [stream(cluster, body(p, max_tokens=24)) for p in prompts]
    together = [None] * len(prompts)

    def run(i):
        together[i] = stream(cluster, body(prompts[i], max_tokens=24))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert together == alone


def test_no_process_outlives_the_supervisor(tmp_path):
    made = Cluster(tmp_path).wait_ready()
    pids = sum((made.children(r) for r in ("master", "gateway", "prefill", "decode")), [])
    assert len(pids) == 4
    made.process.kill()
    made.process.wait()

    def gone(pid):
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_until(lambda: all(gone(pid) for pid in pids), 10, "children gone")
    made.log.close()


def test_terminate_is_clean(tmp_path):
    made = Cluster(tmp_path).wait_ready()
    assert made.stop() == 0
    assert "level=error" not in made.tail(1000)
