# SPDX-License-Identifier: Apache-2.0
"""The door before decode: who has prefilled waits until its decode node has a place for it. The
timed engine says what a batch costs; the real model, that answers are the same."""
import concurrent.futures
import json
import threading
import time

import pytest

from cluster import Cluster, run_yolk, wait_until

PLACES = 3  # 10 ms and 20 ms a sequence within 80 ms
TOKENS = 30
CROWD = 10


def body(number, max_tokens=TOKENS):
    return {"model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
            "prompt": f"{number}. Tell me about the number {number * 37}."}


def ask(cluster, number, max_tokens=TOKENS):
    status, answer, _ = cluster.post("/v1/completions", body(number, max_tokens),
                                     headers={"X-Request-Id": f"door-{number}"})
    assert status == 200, answer
    assert answer["usage"]["completion_tokens"] == max_tokens
    return answer["choices"][0]["text"]


def insist(cluster, number, max_tokens):
    """As ask(), again while there is no room at the door either."""
    end = time.monotonic() + 60
    while True:
        status, answer, _ = cluster.post("/v1/completions", body(number, max_tokens))
        if status == 200:
            return answer["choices"][0]["text"]
        assert status == 429 and time.monotonic() < end, answer
        time.sleep(0.1)


def decode_nodes(cluster):
    nodes = json.loads(cluster.get("/debug/nodes")[1])["nodes"]
    return [node for node in nodes if node["role"] == "decode" and node["works"]]


def start(directory, *args):
    machine = directory / "machine.json"
    machine.write_text(json.dumps({"cost": {
        "prefill_fixed_s": 0.01, "prefill_new_s": 0, "prefill_square_s": 0, "prefill_reused_s": 0,
        "decode_base_s": 0.01, "decode_sequence_s": 0.02, "decode_context_s": 0}}))
    return Cluster(directory, "--engine", "timed", "--engine-profile", machine, "--pool-size",
                   "64M", "--tbt-slo", "80ms", *args).wait_ready()


@pytest.fixture
def cluster(tmp_path):
    made = start(tmp_path)
    yield made
    made.stop()


class Watch(threading.Thread):
    """What the decode nodes say of themselves, again and again."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.most, self.waiting, self.ends = cluster, 0, 0, False
        self.start()

    def run(self):
        while not self.ends:
            self.waiting = max(self.waiting, self.cluster.metric("yolk_conductor_at_door"))
            for node in decode_nodes(self.cluster):
                self.most = max(self.most, node["decoding"])
            time.sleep(0.05)

    def stop(self):
        self.ends = True
        self.join()


def test_a_crowd_waits_and_the_limit_is_kept(cluster):
    ask(cluster, 100)  # steps of one, before there are larger ones
    watch = Watch(cluster)
    with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
        assert len(set(pool.map(lambda i: ask(cluster, i), range(CROWD)))) == CROWD
    watch.stop()
    # A busy machine makes steps long by chance, and what is learned of them is one place wrong.
    assert 2 <= watch.most <= PLACES + 1 and watch.waiting >= CROWD - PLACES - 2
    # Without a door all would be late; with one, only what a busy machine makes late.
    assert cluster.metric("yolk_conductor_slo_violations_total", stage="tbt") < CROWD // 2
    assert cluster.metric("yolk_conductor_at_door") == 0
    assert cluster.metric("yolk_conductor_door_wait_seconds_count") == CROWD + 1
    waited = max(json.loads(cluster.get("/debug/decisions")[1])["decisions"],
                 key=lambda d: d["actual"]["door_ms"])
    assert waited["actual"]["door_ms"] > 500
    said = run_yolk("explain", "request", waited["request_id"], "--url", cluster.url).stdout
    assert "  door        waited " in said


def test_who_leaves_at_the_door_leaves_nothing(cluster):
    """Half of those that wait hang up; then the decode node dies under the other half."""
    want = [ask(cluster, i) for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(2 * CROWD) as pool:
        first = [pool.submit(ask, cluster, i, 80) for i in range(20, 20 + PLACES)]
        wait_until(lambda: sum(n["decoding"] for n in decode_nodes(cluster)) == PLACES,
                   what="a full batch")
        hasty = [pool.submit(cluster.post, "/v1/completions", body(i), 0.7)
                 for i in range(40, 44)]
        patient = [pool.submit(ask, cluster, i) for i in range(4)]
        wait_until(lambda: cluster.metric("yolk_conductor_at_door") == 8, what="eight wait")
        for future in hasty:
            with pytest.raises(TimeoutError):
                future.result()
        wait_until(lambda: cluster.metric("yolk_conductor_at_door") == 4, what="four have left")
        cluster.kill("decode")
        assert [future.result() for future in patient] == want
        assert all(future.result() for future in first)
    assert cluster.metric("yolk_conductor_at_door") == 0
    assert cluster.metric("yolk_gateway_attempts_failed_total") >= 4
    wait_until(lambda: [(n["running"], n["at_door"]) for n in decode_nodes(cluster)] == [(0, 0)],
               what="an idle decode node")


def test_answers_do_not_change(tmp_path):
    """The real model under a limit that only one can keep: each waits its turn, and says the same."""
    answers = []
    for name, options in [("off", []), ("door", ["--tbt-slo", "1ms"])]:
        (tmp_path / name).mkdir()
        made = Cluster(tmp_path / name, "--pool-size", "64M", *options).wait_ready()
        try:
            insist(made, 100, 24)
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                answers.append(list(pool.map(lambda i: insist(made, i, 24), range(6))))
            if options:
                assert made.metric("yolk_conductor_door_wait_seconds_count") == 7
        finally:
            made.stop()
    assert answers[0] == answers[1]
