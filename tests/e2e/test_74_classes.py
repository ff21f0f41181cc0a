# SPDX-License-Identifier: Apache-2.0
"""--slo-class: each class has its own limits and priority; the decode node checks limits too."""
import concurrent.futures
import json
import time

import pytest

from cluster import Cluster, free_port, model_path, run_yolk, wait_until

LONG = " ".join(f"Fact {i} is {i * 37 % 1009}." for i in range(200))
CLASS = "X-Gateway-Inference-Objective"


def body(number, max_tokens, stream=False):
    return {"model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
            "stream": stream, "prompt": f"{number}. {LONG}"}


def ask(cluster, number, name=None, max_tokens=8, tenant=None):
    headers = {"X-Request-Id": f"class-{number}"}
    if name is not None:
        headers[CLASS] = name
    if tenant is not None:
        headers["X-Llm-D-Inference-Fairness-Id"] = tenant
    began = time.monotonic()
    status, answer, _ = cluster.post("/v1/completions", body(number, max_tokens), headers=headers)
    return status, answer, time.monotonic() - began


def ask_all(cluster, jobs):
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: ask(cluster, **job), jobs))


def test_each_class_is_held_to_its_own_limit(tmp_path):
    made = Cluster(tmp_path, "--engine", "timed", "--pool-size", "128M", "--slo-class",
                   "strict=ttft:3500ms,priority:1;loose=ttft:none,tbt:none", "--policy", "early")
    try:
        made.wait_ready()
        assert ask(made, 999)[0] == 200  # a sample; and no class, no limit
        jobs = [{"number": i, "name": "strict" if i % 2 else "loose"} for i in range(32)]
        answers = ask_all(made, jobs)
        loose = [a for a, job in zip(answers, jobs) if job["name"] == "loose"]
        strict = [a for a, job in zip(answers, jobs) if job["name"] == "strict"]
        assert all(status == 200 for status, _, _ in loose)
        refused = [answer for status, answer, _ in strict if status == 429]
        assert 0 < len(refused) < len(strict)
        assert all("3500 ms" in answer["error"]["message"] for answer in refused)
        count = "yolk_gateway_class_requests_total"
        wait_until(lambda: made.metric(count) == 33, what="all are counted")
        assert made.metric(count, **{"class": "strict", "outcome": "refused"}) == len(refused)
        assert made.metric(count, **{"class": "loose", "outcome": "in_time"}) == 16
        assert made.metric(count, **{"class": "none"}) == 1
    finally:
        made.stop()


def test_higher_priority_and_modest_tenants_go_first(tmp_path):
    """One prefill node with a queue of one tenant: who comes last with priority, or as another
    tenant, is served before the queue is."""
    made = Cluster(tmp_path, "--engine", "timed", "--pool-size", "128M", "--slo-class",
                   "high=priority:2")
    try:
        made.wait_ready()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            crowd = [pool.submit(ask, made, i, None, 2, "greedy") for i in range(8)]
            wait_until(lambda: made.metric("vllm:num_requests_running") == 8, what="a queue")
            modest = pool.submit(ask, made, 100, None, 2, "modest")
            high = pool.submit(ask, made, 101, "high", 2, "greedy")
            ended = {}
            for name, future in [("high", high), ("modest", modest), *enumerate(crowd)]:
                future.add_done_callback(lambda f, n=name: ended.setdefault(n, time.monotonic()))
            assert all(f.result()[0] == 200 for f in [high, modest, *crowd])
        later = [n for n in range(8) if ended[n] > ended["modest"]]
        assert len(later) >= 3 and sum(ended[n] > ended["high"] for n in range(8)) >= 3
    finally:
        made.stop()


def test_the_decode_node_refuses_what_the_gateway_did_not_foresee(tmp_path):
    """Nothing has ended, so the gateway still takes steps to be fast; the node has measured them."""
    machine = tmp_path / "machine.json"
    machine.write_text(json.dumps({"cost": {
        "prefill_fixed_s": 0.01, "prefill_new_s": 0, "prefill_square_s": 0, "prefill_reused_s": 0,
        "decode_base_s": 0.01, "decode_sequence_s": 0.04, "decode_context_s": 0}}))
    made = Cluster(tmp_path, "--engine", "timed", "--engine-profile", machine, "--pool-size",
                   "128M", "--policy", "early", "--tbt-slo", "150ms")
    try:
        made.wait_ready()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            first = pool.submit(ask, made, 0, None, 120)
            time.sleep(2)  # some forty steps
            others = list(pool.map(lambda i: ask(made, i, None, 40), range(1, 8)))
            assert first.result()[0] == 200
        refused = [answer for status, answer, _ in others if status == 429]
        assert refused and any(status == 200 for status, _, _ in others)
        assert all(answer["error"]["code"] == "overloaded" for answer in refused)
        at_node = made.metric("yolk_conductor_refusals_total", reason="tbt_at_node")
        assert at_node > 0
        number = next(i for i, (status, _, _) in enumerate(others, 1) if status == 429)
        said = run_yolk("explain", "request", f"class-{number}", "--url", made.url)
        assert said.returncode == 0 and "refused" in said.stdout and "hindsight" in said.stdout
    finally:
        made.stop()


@pytest.mark.parametrize("text", ["chat", "chat=ttft:soon", "a b=ttft:1s", "chat=priority:99"])
def test_bad_classes_are_one_line(text):
    refused = run_yolk("serve", model_path(), "--port", free_port(), "--slo-class", text)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
