# SPDX-License-Identifier: Apache-2.0
"""Overload: with a limit some are refused, in a way clients understand; without one nobody is."""
import concurrent.futures
import json

import pytest

from cluster import Cluster, run_yolk

# Half a second of prefill for each, however busy this machine is: six or so fit into the limit.
SHAPE = ("--engine", "timed", "--pool-size", "128M")
REQUESTS = 24
LONG = " ".join(f"Fact {i} is {i * 37 % 1009}." for i in range(200))


def ask(cluster, i, max_tokens=24):
    """A long prompt that shares nothing with the others."""
    return cluster.post("/v1/chat/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
        "messages": [{"role": "user", "content": f"{i}. {LONG}"}]},
        headers={"X-Request-Id": f"overload-{i}"})


def flood(cluster, first=0):
    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(lambda i: (i, *ask(cluster, i)), range(first, first + REQUESTS)))


def check(answers):
    """Everybody gets a whole answer, or a refusal a client can act on. Returns ids of both."""
    accepted, refused = [], []
    for i, status, body, headers in answers:
        if status == 200:
            assert body["usage"]["completion_tokens"] == 24
            accepted.append(i)
            continue
        assert status == 429, body
        assert body["error"]["type"] == "rate_limit_error"
        assert body["error"]["code"] == "overloaded"
        assert "verload" in body["error"]["message"]
        assert int(headers["Retry-After"]) >= 1
        refused.append(i)
    return accepted, refused


@pytest.mark.parametrize("policy", ["baseline", "early", "predict", "adaptive"])
def test_limit_refuses_some_and_serves_the_rest(tmp_path, policy):
    made = Cluster(tmp_path, *SHAPE, "--policy", policy, "--ttft-slo", "3s", "--tbt-slo", "10s")
    try:
        made.wait_ready()
        assert ask(made, 10000)[0] == 200  # a sample, so that prediction rests on something
        accepted, refused = check(flood(made))
        assert accepted and refused
        assert made.metric("yolk_conductor_refusals_total") == len(refused)
        assert made.metric("vllm:admission_rejections_total") == len(refused)
        assert made.metric("yolk_conductor_limit_seconds", stage="ttft") == 3

        decisions = json.loads(made.get("/debug/decisions?limit=1000")[1])["decisions"]
        by_id = {d["request_id"]: d for d in decisions}
        ages = [d["age_ms"] for d in decisions]
        assert ages == sorted(ages)
        for i in accepted:
            entry = by_id[f"overload-{i}"]
            assert entry["accepted"] and entry["actual"]["outcome"] == "ok"
            assert entry["policy"] == policy
        for i in refused:
            entry = by_id[f"overload-{i}"]
            assert not entry["accepted"] and entry["refusal"] != "none"
        assert len(json.loads(made.get("/debug/decisions?limit=3")[1])["decisions"]) == 3

        said = run_yolk("explain", "request", f"overload-{refused[0]}", "--url", made.url)
        assert said.returncode == 0 and "refused" in said.stdout, said
        said = run_yolk("explain", "request", f"overload-{accepted[0]}", "--url", made.url)
        assert said.returncode == 0 and "accepted" in said.stdout and "prefill-" in said.stdout
        assert run_yolk("explain", "request", "nobody", "--url", made.url).returncode == 2
    finally:
        made.stop()


def test_no_limit_refuses_nobody(tmp_path):
    made = Cluster(tmp_path, *SHAPE, "--engine-speed", 4)
    try:
        made.wait_ready()
        accepted, refused = check(flood(made))
        assert len(accepted) == REQUESTS and not refused
        assert made.metric("yolk_conductor_limit_seconds", stage="ttft") == 0
    finally:
        made.stop()


def test_bad_policy_is_one_line(tmp_path):
    said = run_yolk("gateway", "nothing.gguf", "--policy", "often")
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1 and "adaptive" in said.stderr
