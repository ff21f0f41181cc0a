# SPDX-License-Identifier: Apache-2.0
"""Every block of a prompt that was not reused has a reason, and a decision says what else there was."""
import json

import pytest

from cluster import Cluster, run_yolk, wait_until

SHAPE = ("--engine", "timed", "--engine-speed", 20, "--pool-size", "1M", "--prefill", 2)
# The model's own, and a word in front that a request may choose.
TEMPLATE = """{{ stamp | default('') }}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WORDS = " ".join(f"Item {i} of the list is {(i * 7919) % 997}." for i in range(40))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cluster")
    template = directory / "template.jinja"
    template.write_text(TEMPLATE)
    made = Cluster(directory, *SHAPE, "--chat-template", template).wait_ready()
    wait_until(lambda: made.metric("yolk_gateway_nodes_up", role="prefill") == 2)
    yield made
    made.stop()


def chat(cluster, name, messages, **more):
    status, body, _ = cluster.post("/v1/chat/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": 40, "messages": messages, **more},
        headers={"X-Request-Id": name})
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def why(cluster, name):
    page = json.loads(cluster.get("/debug/decisions?limit=1000")[1])
    return next(d for d in page["decisions"] if d["request_id"] == name), page


def test_a_conversation_hits_what_it_had(cluster):
    turns = [{"role": "user", "content": WORDS}]
    said = chat(cluster, "turn-1", turns)
    first, _ = why(cluster, "turn-1")
    blocks = first["hits"]["reusable_blocks"]
    assert blocks > 10 and first["hits"]["missed"] == {"never_seen": blocks}
    assert first["hits"]["reused_blocks"] == 0
    # The events of what was stored come within a moment.
    wait_until(lambda: cluster.metric("yolk_conductor_index_holdings") >= blocks)
    turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    chat(cluster, "turn-2", turns)
    second, page = why(cluster, "turn-2")
    assert second["hits"]["predicted_blocks"] >= blocks - 1
    assert second["hits"]["reused_blocks"] >= blocks - 1
    assert sum(second["hits"]["missed"].values()) == (
        second["hits"]["reusable_blocks"] - second["hits"]["reused_blocks"])
    assert page["hits"]["alarm"] is False
    assert cluster.metric("yolk_conductor_reused_blocks_total") >= blocks - 1
    assert cluster.metric("yolk_conductor_missed_blocks_total", reason="never_seen") >= blocks


def test_another_text_of_the_same_tokens_is_never_seen(cluster):
    chat(cluster, "other", [{"role": "user", "content": "Not at all. " + WORDS}])
    decision, _ = why(cluster, "other")
    assert set(decision["hits"]["missed"]) == {"never_seen"}


def missed_by(cluster, name):
    hits = why(cluster, name)[0]["hits"]
    assert hits["reusable_blocks"] > 10
    return {reason: blocks / hits["reusable_blocks"] for reason, blocks in hits["missed"].items()}


def test_what_a_key_hides_is_told_apart(cluster):
    turns = [{"role": "user", "content": "Of salts. " + WORDS}]
    chat(cluster, "salt-1", turns, cache_salt="a")
    chat(cluster, "salt-2", turns, cache_salt="b")
    assert missed_by(cluster, "salt-1") == {"never_seen": 1}
    assert missed_by(cluster, "salt-2") == {"salt": 1}
    turns = [{"role": "user", "content": "Of templates. " + WORDS}]
    chat(cluster, "stamp-1", turns)
    chat(cluster, "stamp-2", turns, chat_template_kwargs={"stamp": "It is Monday. "})
    assert missed_by(cluster, "stamp-1") == {"never_seen": 1}
    assert missed_by(cluster, "stamp-2")["template"] > 0.9


def test_what_was_there_and_is_gone_is_evicted(cluster):
    turns = [{"role": "user", "content": "Of rooms. " + WORDS}]
    chat(cluster, "room-1", turns)
    wait_until(lambda: cluster.metric("yolk_conductor_index_holdings") > 0)
    for i in range(40):  # each as long, and all nodes together hold about 24
        chat(cluster, f"fill-{i}", [{"role": "user", "content": f"{i} " + WORDS}])
    chat(cluster, "room-2", turns)
    assert missed_by(cluster, "room-2").get("evicted", 0) > 0.9


def test_candidates_and_regret(cluster):
    chat(cluster, "ranked", [{"role": "user", "content": "Rank them. " + WORDS}])
    decision, page = why(cluster, "ranked")
    prefill = decision["candidates"]["prefill"]
    assert len(prefill) == 2 and prefill[0]["name"] == decision["prefill"]
    assert prefill[0]["ttft_ms"] <= prefill[1]["ttft_ms"]
    assert decision["candidates"]["decode"][0]["name"] == decision["decode"]
    assert decision["regret_ms"] >= 0 and page["regret"]["judged"] >= 1
    assert cluster.metric("yolk_conductor_regret_seconds_count") == page["regret"]["judged"]
    assert cluster.metric("yolk_conductor_tbt_regret_seconds_count") == page["regret"]["tbt_judged"]
    said = run_yolk("explain", "request", "ranked", "--url", cluster.url)
    assert said.returncode == 0
    for part in ("candidates", prefill[1]["name"], "regret", "never_seen", "blocks could be reused"):
        assert part in said.stdout, said.stdout


def test_an_answer_that_comes_back_in_other_words_is_no_template_matter(cluster):
    turns = [{"role": "user", "content": "Count. " + WORDS}]
    said = chat(cluster, "count-1", turns)
    turns += [{"role": "assistant", "content": said + " indeed"}, {"role": "user", "content": "On."}]
    chat(cluster, "count-2", turns)
    decision, _ = why(cluster, "count-2")
    assert "template" not in decision["hits"]["missed"]
