# SPDX-License-Identifier: Apache-2.0
"""--placement: the live gateway places as each policy says, and answers are the same under all."""
import json

import pytest

from cluster import Cluster, run_yolk, wait_until

SHAPE = ("--engine", "timed", "--engine-speed", 20, "--pool-size", "64M", "--prefill", 3)
PROMPTS = [" ".join(f"Item {d} of list {i} is {(d * 7919 + i) % 997}." for d in range(30))
           for i in range(3)]


def ask(cluster, number):
    status, body, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": 4,
        "prompt": PROMPTS[number % len(PROMPTS)]}, headers={"X-Request-Id": f"placed-{number}"})
    assert status == 200, body
    return body["choices"][0]["text"], body["usage"]["prompt_tokens_details"]["cached_tokens"]


def nodes_of(cluster, count):
    decisions = json.loads(cluster.get("/debug/decisions?limit=1000")[1])["decisions"]
    by_id = {d["request_id"]: d for d in decisions}
    return [by_id[f"placed-{i}"] for i in range(count)]


@pytest.fixture(scope="module")
def answers():
    return {}


@pytest.mark.parametrize("placement", ["global", "local", "match", "load", "count", "random",
                                       "round-robin"])
def test_each_policy_places_as_it_says(tmp_path, placement, answers):
    made = Cluster(tmp_path, *SHAPE, "--placement", placement)
    try:
        made.wait_ready()
        wait_until(lambda: made.metric("yolk_gateway_nodes_up", role="prefill") == 3)
        # One at a time, so that queues are empty and only what is cached tells nodes apart.
        said = [ask(made, i) for i in range(9)]
        assert made.metric("yolk_conductor_policy_info", placement=placement) == 1
        chosen = nodes_of(made, 9)
    finally:
        made.stop()
    names = [d["prefill"] for d in chosen]
    assert all(d["actual"]["outcome"] == "ok" for d in chosen)
    answers.setdefault("texts", [text for text, _ in said])
    assert [text for text, _ in said] == answers["texts"]
    if placement in ("load", "count", "match"):
        assert set(names) == {names[0]}  # equals, or the only one that has anything: the first
    if placement == "round-robin":
        assert len(set(names[:3])) == 3 and names == 3 * names[:3]
    if placement == "random":
        assert len(set(names)) > 1
    if placement != "global":
        assert all(d["reuse"] != "fetch" for d in chosen)


def test_unknown_placement_is_one_line():
    said = run_yolk("gateway", "nothing.gguf", "--placement", "best")
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1 and "round-robin" in said.stderr
