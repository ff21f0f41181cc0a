# SPDX-License-Identifier: Apache-2.0
"""yolk trace and yolk sim: one JSON object, the same every time, and precise words for bad input."""
import html.parser
import json
import os

import pytest

from cluster import run_yolk

SYSTEMS = ["mooncake", "vllm", "vllm-prefix", "vllm-chunked"]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("sim") / "trace.jsonl"
    result = run_yolk("trace", "gen", "--requests", 400, "--seed", 5, "--out", path)
    assert result.returncode == 0, result.stderr
    return path


def run_json(*args):
    result = run_yolk(*args, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_generated_trace_is_measured(trace):
    stat = run_json("trace", "stat", trace, "--lru", "1e4,1e12")
    assert stat["requests"] == 400
    small, large = stat["lru"]
    assert small["capacity_tokens"] == 10000 and small["token_hit"] < large["token_hit"]
    assert large["token_hit"] == pytest.approx(stat["infinite_hit"]["token"])
    assert large["block_hit"] == pytest.approx(stat["infinite_hit"]["block"])
    text = run_yolk("trace", "stat", trace)
    assert text.returncode == 0 and "400 requests" in text.stdout


def test_generating_twice_gives_the_same_bytes(trace, tmp_path):
    assert run_yolk("trace", "gen", "--requests", 400, "--seed", 5).stdout == trace.read_text()
    other = run_yolk("trace", "gen", "--requests", 400, "--seed", 6).stdout
    assert other != trace.read_text()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_ends_every_request_and_repeats(trace, system):
    args = ["sim", "--trace", trace, "--system", system, "--json", "--series"]
    first, second = run_yolk(*args), run_yolk(*args)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    result = json.loads(first.stdout)
    assert result["done"] == result["requests"] == 400
    shares = [point["share"] for point in result["effective"]]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] <= 1
    assert result["ttft_ms"]["p50"] <= result["ttft_ms"]["p90"] <= result["ttft_ms"]["max"]
    assert result["samples"]


def test_a_cluster_file_and_flags_on_top(trace, tmp_path):
    cluster = tmp_path / "cluster.json"
    cluster.write_text('{"prefill": 2, "decode": 3, "theta": 2, "cost": {"decode_base_s": 0.03}}')
    result = run_json("sim", "--trace", trace, "--cluster", cluster, "--set", "theta=4")["cluster"]
    assert (result["prefill"], result["decode"], result["theta"]) == (2, 3, 4)
    assert result["cost"]["decode_base_s"] == 0.03
    result = run_json("sim", "--trace", trace, "--cluster", cluster, "--nodes", "4P+1D")["cluster"]
    assert (result["prefill"], result["decode"]) == (4, 1)


def test_overload_policies_refuse(trace):
    args = ["sim", "--trace", trace, "--nodes", "2P+1D"]
    none = run_json(*args, "--set", "speed=3")
    assert none["done"] == 400
    for policy in ("baseline", "early", "predict", "adaptive"):
        result = run_json(*args, "--set", f"speed=3,overload={policy}")
        refused = result["refused_early"] + result["refused_late"]
        assert refused > 0 and refused + result["done"] == 400
    assert result["good"] > none["good"]


class Page(html.parser.HTMLParser):
    """What a page refers to, and the words of its headings."""

    def __init__(self, text):
        super().__init__()
        self.refers, self.headings, self.plots, self.open = [], [], 0, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.refers += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.plots += ("class", "plot") in attrs
        self.open = tag

    def handle_data(self, data):
        if self.open in ("h1", "h2", "h3"):
            self.headings.append(data.strip())


@pytest.mark.parametrize("system, plots", [("mooncake", 8), ("vllm-prefix", 6)])
def test_a_report_is_a_page_that_needs_nothing_else(trace, tmp_path, system, plots):
    out = tmp_path / "made" / "here"
    args = ["sim", "--trace", trace, "--system", system, "--nodes", "2P+2D" if plots == 8 else "4"]
    reported = run_json(*args, "--report", out, "--threads", 2)
    assert reported == run_json(*args)
    assert sorted(os.listdir(out)) == ["index.html", "report.json"]
    page = Page((out / "index.html").read_text())
    assert page.refers == [] and page.plots == plots
    for heading in ("Time to first token", "Time between tokens", "Load", "Replicas of hot blocks",
                    "Hit ratio against capacity", "The trace", "Settings"):
        assert heading in page.headings
    assert ("Capacity against the split" in page.headings) == (system == "mooncake")
    numbers = json.loads((out / "report.json").read_text())
    assert numbers["systems"][0]["ttft_ms"] == reported["ttft_ms"]
    assert len(numbers["systems"]) == 4 and numbers["lru"]
    again = run_yolk(*args, "--report", out, "--threads", 1)
    assert again.returncode == 0 and json.loads((out / "report.json").read_text()) == numbers


def test_a_report_that_cannot_be_written_is_refused_before_the_runs(trace, tmp_path):
    (tmp_path / "file").write_text("mine")
    for where in ("file", "file/below"):
        result = run_yolk("sim", "--trace", trace, "--report", tmp_path / where)
        assert result.returncode == 2 and result.stdout == ""
        assert str(tmp_path / "file") in result.stderr and result.stderr.count("\n") == 1
    (tmp_path / "dir" / "index.html").mkdir(parents=True)
    result = run_yolk("sim", "--trace", trace, "--nodes", "1P+1D", "--report", tmp_path / "dir")
    assert result.returncode == 2 and "index.html" in result.stderr
    assert os.listdir(tmp_path / "dir") == ["index.html"]
    assert (tmp_path / "file").read_text() == "mine"


BAD_LINE = '{"timestamp": 0, "input_length": 5, "output_length": 1}\n{"timestamp": -4}\n'


@pytest.mark.parametrize("args, words", [
    (["sim"], ["--trace"]),
    (["sim", "--trace", "/nowhere/t"], ["/nowhere/t", "No such file"]),
    (["sim", "--trace", "BAD"], ["BAD:2", "expected"]),
    (["trace", "stat", "BAD"], ["BAD:2", "expected"]),
    (["sim", "--trace", "GOOD", "--nodes", "0P+8D"], ["prefill", "0 is not in 1.."]),
    (["sim", "--trace", "GOOD", "--nodes", "many"], ["many", "8P+8D"]),
    (["sim", "--trace", "GOOD", "--nodes", "4"], ["`4`", "mooncake", "8P+8D"]),
    (["sim", "--trace", "GOOD", "--system", "vllm", "--nodes", "2P+2D"], ["`2P+2D`", "vllm", "16"]),
    (["sim", "--trace", "GOOD", "--set", "cost.vram_tokens=1"], ["none of the 400 requests", "vram_tokens"]),
    (["sim", "--trace", "GOOD", "--set", "failures=p0@1+99999999"], ["p0@1+99999999", "4000000"]),
    (["sim", "--trace", "GOOD", "--set", "prefil=3"], ["prefil"]),
    (["sim", "--trace", "GOOD", "--set", "dram_tokens=-1"], ["dram_tokens", "-1"]),
    (["sim", "--trace", "GOOD", "--set", "theta=nan"], ["theta"]),
    (["sim", "--trace", "GOOD", "--system", "vllm", "--policy", "global"], ["global", "vllm"]),
    (["sim", "--trace", "GOOD", "--policy", "load", "--set", "overload=early"], ["load"]),
    (["sim", "--trace", "GOOD", "--cluster", "BAD"], ["BAD", "line 2"]),
    (["sim", "--trace", "GOOD", "--set", "cost.prefill_square_s=1"], ["simulated seconds"]),
    (["trace", "gen", "--rate", "0"], ["rate", "0"]),
    (["trace", "gen", "--follow", "1"], ["follow"]),
    (["trace", "draw"], ["draw"]),
    (["trace", "stat", "GOOD", "--lru", "few"], ["few"]),
])
def test_bad_input_is_one_precise_line(trace, tmp_path, args, words):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(BAD_LINE)
    names = {"BAD": bad, "GOOD": trace}
    result = run_yolk(*[names.get(arg, arg) for arg in args])
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.strip().split("\n")
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word.replace("BAD", str(bad)) in lines[0]


def test_machines_stop_by_a_schedule_and_by_chance(trace, tmp_path):
    cluster = tmp_path / "cluster.json"
    cluster.write_text('{"prefill": 3, "decode": 3, "failures": "p0@10+5 d1@20+40", "mtbf_s": 100, "mttr_s": 5}')
    args = ["sim", "--trace", trace, "--cluster", cluster]
    result = run_json(*args)
    failures = result["failures"]
    assert failures["prefill"] > 0 and failures["decode"] > 0 and failures["placed_again"] > 0
    assert result["done"] + result["failed"] == 400
    assert run_json(*args, "--set", "seed=2")["digest"] != result["digest"]
    assert result["cluster"]["failures"] == "p0@10+5 d1@20+40"
    refused = run_yolk("sim", "--trace", trace, "--set", "failures=p9@1+1")
    assert refused.returncode == 2 and "p9" in refused.stderr
