# SPDX-License-Identifier: Apache-2.0
"""--group-max: several prefill nodes compute one long prompt together, and the answer is that of one
node; when one of them is killed meanwhile, the request is placed again."""
import json
import threading

import pytest

from cluster import Cluster, run_yolk, wait_until

LONG = " ".join(f"Line {i} says {i * 7919 % 1009}." for i in range(55))
LONGER = " ".join(f"Row {i} holds {i * 104729 % 997}." for i in range(90))


def ask(cluster, text, name):
    status, answer, _ = cluster.post(
        "/v1/completions", {"model": "smollm2", "temperature": 0.8, "seed": 7, "max_tokens": 16,
                            "ignore_eos": True, "prompt": text, "logprobs": 2, "cache_salt": "group"},
        headers={"X-Request-Id": name})
    assert status == 200, answer
    return answer["choices"][0]["text"], answer["choices"][0]["logprobs"]


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("group"), "--prefill", "2", "--group-max", "2",
                   "--threads", "1").wait_ready()
    wait_until(lambda: json.loads(made.get("/ready")[1])["prefill"] == 2)
    yield made
    made.stop()


def test_a_group_answers_as_one_node(cluster, group):
    assert ask(group, LONG, "together") == ask(cluster, LONG, "alone")
    assert group.metric("yolk_conductor_groups_total") == 1
    assert group.metric("yolk_conductor_group_stages_total") == 2
    assert cluster.metric("yolk_conductor_groups_total") == 0
    decisions = json.loads(group.get("/debug/decisions")[1])["decisions"]
    assert decisions[0]["stages"] == 2 and decisions[0]["actual"]["outcome"] == "ok"
    said = run_yolk("explain", "request", "together", "--url", group.url).stdout
    assert "with 1 more, each a part of the layers" in said


def test_scored_prompts_are_computed_by_one_node(cluster, group):
    """Its stages find no probabilities of a prompt, so no group is formed, and they are the same."""
    scored = {"model": "smollm2", "prompt": LONG, "temperature": 0, "max_tokens": 2, "prompt_logprobs": 2}
    before = group.metric("yolk_conductor_groups_total")
    assert group.post("/v1/completions", scored)[1]["choices"] == cluster.post("/v1/completions", scored)[1]["choices"]
    assert group.metric("yolk_conductor_groups_total") == before


def test_a_stage_is_killed_meanwhile(cluster, group):
    wait_until(lambda: json.loads(group.get("/ready")[1])["prefill"] == 2)
    before = group.metric("yolk_conductor_groups_total")
    answer = {}
    thread = threading.Thread(target=lambda: answer.update(text=ask(group, LONGER, "killed")))
    thread.start()
    wait_until(lambda: group.metric("yolk_conductor_groups_total") > before, 20, "a group")
    group.kill("prefill-1")
    thread.join(90)
    assert not thread.is_alive()
    assert answer["text"] == ask(cluster, LONGER, "not killed")
    wait_until(lambda: len(group.children("prefill")) == 2 and group.get("/ready")[0] == 200)


def test_what_a_group_computed_is_reused(cluster, group):
    """Last, because what it teaches of transfers, on a busy machine, may speak against groups."""
    before = group.metric("vllm:prefix_cache_hits_total")
    assert ask(group, LONG, "again") == ask(cluster, LONG, "alone again")
    assert group.metric("vllm:prefix_cache_hits_total") > before  # the decode node published it
    for way in ("store", "load"):  # the second question's prefix came from there
        wait_until(lambda: group.metric("yolk_kv_moved_seconds_total", direction=way) > 0, 20, way)
        assert group.metric("yolk_kv_hidden_seconds_total", direction=way) >= 0
