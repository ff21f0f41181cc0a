# SPDX-License-Identifier: Apache-2.0
"""--replicate: a prefix that everybody asks for comes to a second node."""
import concurrent.futures
import json

from cluster import Cluster, wait_until

PREFIX = " ".join(f"Rule {i} is {i * 7919 % 1000}." for i in range(60))
CROWD = 16


def ask(cluster, number, words=250):
    tail = " ".join(str((number + 1) * i * 37 % 9973) for i in range(words))
    status, answer, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": 2, "ignore_eos": True,
        "prompt": f"{PREFIX} {tail}"})
    assert status == 200, answer
    return answer["choices"][0]["text"]


def test_a_hot_prefix_is_copied(tmp_path):
    """Everybody goes where the prefix is (match), until both nodes have it."""
    made = Cluster(tmp_path, "--engine", "timed", "--pool-size", "64M", "--prefill", 2,
                   "--placement", "match", "--replicate", "--replicate-hot", 2).wait_ready()
    try:
        want = [ask(made, number) for number in range(4)]
        with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
            assert list(pool.map(lambda n: ask(made, n), range(CROWD)))[:4] == want
        wait_until(lambda: made.metric("yolk_gateway_copied_blocks_total") > 0, what="a copy")
        assert made.metric("yolk_conductor_copies_held") == 1
        ask(made, 100, 2)  # whom it is placed beside has blocks of its own to reuse
        last = json.loads(made.get("/debug/decisions?limit=1")[1])["decisions"][0]
        assert [c["reuse_blocks"] > 0 for c in last["candidates"]["prefill"]] == [True, True]
        assert [c["holder"] for c in last["candidates"]["prefill"]] == [None, None]
    finally:
        made.stop()
