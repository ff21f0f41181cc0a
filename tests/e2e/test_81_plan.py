# SPDX-License-Identifier: Apache-2.0
"""yolk plan: the cheapest cluster as rows, the same on any number of threads; what cannot be said clearly."""
import json

import pytest

from cluster import run_yolk

PLAN = """{"prices": {"prefill_node": 5, "decode_node": 3},
 "choices": {"prefill": [1, 2, 3, 4], "decode": {"min": 1, "max": 6}, "dram_gb": [16, 64],
             "ssd_gb": [0], "nic_gbps": [50, 400]}}"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    where = tmp_path_factory.mktemp("plan")
    trace, plan = where / "trace.jsonl", where / "plan.json"
    result = run_yolk("trace", "gen", "--requests", 300, "--rate", 1, "--seed", 4, "--out", trace)
    assert result.returncode == 0, result.stderr
    plan.write_text(PLAN)
    return trace, plan


def rows_of(result):
    return {row["name"]: row for row in json.loads(result.stdout)["rows"]}


def test_the_cheapest_keeps_the_limits_and_one_less_does_not(files):
    trace, plan = files
    args = ["plan", "--trace", trace, "--plan", plan, "--ttft-limit", "10s", "--tbt-limit", "80ms"]
    result = run_yolk(*args, "--json", "--threads", 2)
    assert result.returncode == 0, result.stderr
    assert json.loads(run_yolk(*args, "--json", "--threads", 1).stdout)["rows"] == \
        json.loads(result.stdout)["rows"]
    rows = rows_of(result)
    value = {name: row["value"] for name, row in rows.items()}
    assert value["found"] == 1 and rows["cheapest/good"]["met"]
    assert value["explored/clusters"] == 4 * 6 * 2 * 2 == sum(
        value[f"explored/{heap}"] for heap in ("simulated", "weaker", "dearer", "short"))
    assert value["explored/simulated"] < 40
    assert value["floor/prefill"] <= value["cheapest/prefill"]
    assert value["floor/decode"] <= value["cheapest/decode"]
    for name, row in rows.items():
        if name.startswith("step/") and name.endswith("/cost") and row["value"] < value["cheapest/cost"]:
            assert not rows[name.replace("/cost", "/good")]["met"]
        if name.startswith("next_") and name.endswith("/good"):
            assert row["met"]
    # What is planned is what the simulator says of it.
    settings = (f"ttft_limit_s=10,tbt_limit_ms=80,nic_gbps={value['cheapest/nic_gbps']:g},"
                f"dram_tokens={value['cheapest/dram_gb'] * 1e9 / 327680!r}")
    nodes = f"{value['cheapest/prefill']:g}P+{value['cheapest/decode']:g}D"
    run = json.loads(run_yolk("sim", "--trace", trace, "--nodes", nodes, "--set", settings, "--json").stdout)
    assert run["good"] == pytest.approx(value["cheapest/good"], abs=1e-5)
    text = run_yolk(*args)
    assert text.returncode == 0 and "cheapest" in text.stdout and "one step" in text.stdout


def test_limits_that_nothing_keeps(files):
    trace, plan = files
    args = ["plan", "--trace", trace, "--plan", plan, "--ttft-limit", "10s", "--tbt-limit", "27ms"]
    result = run_yolk(*args)
    assert result.returncode == 1
    assert "no cluster within the bounds" in result.stdout and "reaches" in result.stdout
    rows = rows_of(run_yolk(*args, "--json"))
    assert rows["found"]["value"] == 0 and not rows["nearest/good"]["met"]


@pytest.mark.parametrize("args, words", [
    ([], "--trace"),
    (["--trace", "TRACE", "--good", "1.5"], "--good: 1.5"),
    (["--trace", "TRACE", "--ttft-limit", "0s"], "--ttft-limit"),
    (["--trace", "TRACE", "--set", "system=vllm"], "mooncake"),
    (["--trace", "TRACE", "--set", "failures=p0@1+1"], "mtbf_s"),
    (["--trace", "TRACE", "--plan", "TRACE"], "line 2"),
    (["--trace", "TRACE", "--plan", "/nowhere/p"], "/nowhere/p"),
    (["--trace", "/nowhere/t"], "/nowhere/t"),
])
def test_bad_input_is_one_precise_line(files, args, words):
    result = run_yolk("plan", *[files[0] if arg == "TRACE" else arg for arg in args])
    assert result.returncode == 2 and result.stdout == ""
    assert words in result.stderr and result.stderr.strip().count("\n") == 0
