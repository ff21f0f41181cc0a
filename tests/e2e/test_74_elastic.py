# SPDX-License-Identifier: Apache-2.0
"""yolk serve --elastic: four real nodes change between prefill and decode as the demand moves, and
nobody who asks can tell. What a node makes up depends on its pages alone (--engine timed), so equal
answers mean that whatever was handed over arrived whole."""
import concurrent.futures
import json
import time

import pytest

from cluster import Cluster, free_port, model_path, run_yolk, wait_until

# 1,000 tokens take about a tenth of a second to prefill, a decode step 5 ms and 5 ms more for each
# sequence: five at once are at the limit of 30 ms.
MACHINE = {"cost": {"prefill_fixed_s": 0.01, "prefill_new_s": 1e-4, "prefill_square_s": 0,
                    "prefill_reused_s": 0, "decode_base_s": 0.005, "decode_sequence_s": 0.005,
                    "decode_context_s": 0}}
LONG_ANSWERS, LONG_PROMPTS = 8, 24


def ask(cluster, prompt, max_tokens):
    status, body, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "prompt": prompt})
    assert status == 200, body
    assert body["usage"]["completion_tokens"] == max_tokens
    return body["choices"][0]["text"]


def long_answer(number):
    return f"Tell me at length about the number {number}.", 280


def long_prompt(number):
    return "\n".join(f"Item {i} of {number} is {i * 7919 % 1000}." for i in range(300)), 2


def ask_all(cluster, requests):
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: ask(cluster, *request), requests))


def roles(cluster):
    nodes = json.loads(cluster.get("/debug/nodes")[1])["nodes"]
    return [node["role"] for node in nodes if node["works"]]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    path = tmp_path_factory.mktemp("machine") / "machine.json"
    path.write_text(json.dumps(MACHINE))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, machine):
    """What one prefill and one decode node whose roles are fixed answer, pool off, much faster."""
    made = Cluster(tmp_path_factory.mktemp("alone"), "--engine", "timed", "--engine-profile",
                   machine, "--engine-speed", 20, "--pool-size", "64M", "--no-pool").wait_ready()
    answers = [ask_all(made, [long_answer(i) for i in range(LONG_ANSWERS)]),
               ask_all(made, [long_prompt(i) for i in range(LONG_PROMPTS)])]
    made.stop()
    return answers


def test_roles_follow_the_demand(tmp_path, machine, undisturbed):
    made = Cluster(tmp_path, "--engine", "timed", "--engine-profile", machine, "--pool-size", "64M",
                   "--prefill", 3, "--decode", 1, "--policy", "none", "--ttft-slo", "2s",
                   "--tbt-slo", "30ms", "--elastic", "--elastic-window", "3s", "--elastic-dwell",
                   "2s", "--elastic-drain", "1s").wait_ready()
    try:
        wait_until(lambda: len(roles(made)) == 4, what="all nodes are up")
        assert sorted(roles(made)) == ["decode", "prefill", "prefill", "prefill"]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            # Long answers to short prompts: one decode node is not enough.
            answers = pool.submit(ask_all, made, [long_answer(i) for i in range(LONG_ANSWERS)])
            assert answers.result() == undisturbed[0]
            assert roles(made).count("decode") >= 2
            assert made.metric("yolk_conductor_role_changes_total", role="decode") >= 1
            # Long prompts, while a few long answers are under way on whoever changes back.
            answers = pool.submit(ask_all, made, [long_answer(i) for i in range(3)])
            time.sleep(0.5)
            prompts = pool.submit(ask_all, made, [long_prompt(i) for i in range(LONG_PROMPTS)])
            assert prompts.result() == undisturbed[1]
            assert answers.result() == undisturbed[0][:3]
        assert made.metric("yolk_conductor_role_changes_total", role="prefill") >= 1
        assert "prefill" in roles(made) and "decode" in roles(made)
        wait_until(lambda: made.metric("yolk_conductor_draining") == 0, what="nobody drains")
    finally:
        made.stop()


@pytest.mark.parametrize("flag, value, text", [
    ("--elastic-window", "0s", "--elastic-window"),
    ("--elastic-dwell", "100h", "--elastic-dwell"),
])
def test_bad_times_are_refused(flag, value, text):
    refused = run_yolk("gateway", model_path(), "--port", free_port(), "--elastic", flag, value)
    assert refused.returncode == 2
    assert text in refused.stderr and len(refused.stderr.splitlines()) == 1
