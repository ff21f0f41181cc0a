# SPDX-License-Identifier: Apache-2.0
"""tools/reality.py runs from end to end: small forms of its parts with modelled engines; and its fits find again what
made their samples."""
import argparse
import json
import os
import subprocess
import sys

import pytest
from cluster import ROOT, YOLK, model_path

sys.path.insert(0, str(ROOT / "tools"))
import reality as tool  # noqa: E402


def reality(tmp_path, *args):
    """The page and its rows."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reality.py"), "--yolk", str(YOLK), "--model",
         str(model_path()), "--dry", *args],
        capture_output=True, text=True, timeout=200, check=False,
        env=dict(os.environ, XDG_CACHE_HOME=str(tmp_path)))
    assert ran.returncode == 0, ran.stderr
    page, rows = ran.stdout.split("\n[\n", 1)
    assert "Others used up to" in page
    return page, json.loads("[" + rows)


def test_refusals_are_compared_live_and_simulated(tmp_path):
    page, rows = reality(tmp_path, "--only", "overload", "--seconds", "3", "--rounds", "1")
    assert "P90 TTFT, live" in page and "Rounds: 1" in page
    assert [row["name"].rpartition("timed, ")[2].partition(" with")[0] for row in rows[:3]] == [
        "predict", "predict", "adaptive"]
    assert all(0 < row["baseline"] <= 1 and 0 < row["value"] <= 1 for row in rows[:3])
    assert len(rows) == 5 and all(row["met"] in (True, False) for row in rows[3:])


def test_policies_are_ranked_live_and_simulated(tmp_path):
    page, rows = reality(tmp_path, "--only", "order", "--seconds", "4")
    assert "mean TTFT ms" in page
    assert len(rows) == 5 and all(row["name"].startswith("reality: ") for row in rows)
    assert all(row["baseline"] > 0 and row["value"] > 0 for row in rows[:4])
    assert rows[4]["met"] in (True, False)
    # The two that are far apart are told apart by both.
    ttft = {row["name"].rpartition(", ")[2]: row for row in rows[:4]}
    assert ttft["match"]["value"] > ttft["global"]["value"]
    assert ttft["match"]["baseline"] > ttft["global"]["baseline"]


def busy_machine(base, sequence, context, beside):
    """Stands for a cluster: what a batch beside an idle, and beside a busy prefill node would show."""
    prefill = {"busy": False}

    class Busy:
        def __init__(self, cluster):
            pass

        def __enter__(self):
            prefill["busy"] = True

        def __exit__(self, *_):
            prefill["busy"] = False

    def step(_, prompts, answer):
        if len(prompts) == 6 and prefill["busy"]:
            return None  # answers did not come together
        assert len({tuple(prompt) for prompt in prompts}) == len(prompts)  # or they would share pages
        seconds = base + sequence * len(prompts) + context * sum(len(prompt) + answer / 2 for prompt in prompts)
        return seconds * (beside if prefill["busy"] else 1)

    return Busy, step


@pytest.mark.parametrize("beside", [1.25, 0.97])
def test_decode_costs_are_found_again(monkeypatch, beside):
    busy, step = busy_machine(0.009, 0.001, 3e-6, beside)
    monkeypatch.setattr(tool, "ask", lambda *_: None)
    monkeypatch.setattr(tool, "BusyPrefill", busy)
    monkeypatch.setattr(tool, "step_of_batch", step)
    cost, samples = tool.fit_decode(None)
    assert samples == 10
    assert cost == pytest.approx({"decode_base_s": 0.009, "decode_sequence_s": 0.001, "decode_context_s": 3e-6,
                                  "decode_beside": max(1, beside)}, rel=0.01)


def test_the_level_is_found_again(tmp_path):
    """A cluster whose steps are 1.3 times as long as the batches said, and that shows nothing but its mean."""
    options = argparse.Namespace(yolk=YOLK)
    path, cluster = tmp_path / "trace.jsonl", tmp_path / "cluster.json"
    tokens = [100 + 37 * i % 900 for i in range(80)]
    tool.write_trace(path, [{"timestamp": 400 * i, "input_length": count, "output_length": 2 + 29 * i % 90,
                             "hash_ids": [100 * i + block for block in range(-(-count // tool.BLOCK))],
                             "block_size": tool.BLOCK} for i, count in enumerate(tokens)])
    cost = {"prefill_fixed_s": 0.007, "prefill_new_s": 1e-3, "decode_base_s": 0.01, "decode_sequence_s": 0.003,
            "decode_context_s": 3e-6, "decode_beside": 1.14, "nic_bytes_s": 1e12, "transfer_setup_s": 0}

    def write_cluster(costs):
        cluster.write_text(json.dumps({"prefill": 1, "decode": 1, "layerwise": True, "first_at_prefill": True,
                                       "cost": costs}))
        return cluster

    real = tool.simulate(options, path, write_cluster(tool.at_level(cost, 1.3)))
    live = {"request_tbt_ms": real["tbt_mean_ms"]}
    assert tool.fit_level(options, cost, write_cluster, path, live) == pytest.approx(1.3, rel=0.01)
    beside = tool.simulate(options, path, write_cluster(cost))["tbt_mean_ms"]["mean"]
    alone = tool.simulate(options, path, write_cluster(dict(cost, decode_beside=1)))["tbt_mean_ms"]["mean"]
    assert beside > 1.1 * alone
