# SPDX-License-Identifier: Apache-2.0
"""yolk trace record: a live gateway's traffic becomes a trace that every other command takes."""
import json
import os
import signal
import subprocess
import time

import pytest

from cluster import YOLK, Cluster, free_port, run_yolk, wait_until

SHAPE = ("--engine", "timed", "--engine-speed", 20, "--pool-size", "64M")
ROOT = list(range(100, 260))  # 160 tokens that half of the prompts begin with


def ask(cluster, tokens, max_tokens=3):
    status, body, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
        "prompt": tokens})
    assert status == 200, body


class Recording:
    def __init__(self, cluster, path, *args):
        self.path = path
        self.process = subprocess.Popen(
            [str(YOLK), "trace", "record", "--url", cluster.url, "--out", str(path),
             *map(str, args)], stderr=subprocess.PIPE, text=True)

    def started(self):
        """The gateway hears of it before the first request that is to be in it."""
        time.sleep(0.3)
        return self

    def stop(self, how=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(how)
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("record"), *SHAPE).wait_ready()
    yield made
    made.stop()


def test_what_is_recorded_is_what_was_asked(cluster, tmp_path):
    recording = Recording(cluster, tmp_path / "t.jsonl").started()
    for i in range(6):
        ask(cluster, (ROOT if i % 2 == 0 else []) + [1000 + i] * 20, 2 + i)
    wait_until(lambda: len(lines(recording.path)) == 6, what="six lines")
    code, said = recording.stop()
    assert code == 0 and "6 requests recorded" in said
    rows = lines(recording.path)
    assert [r["input_length"] for r in rows] == [180, 20] * 3
    assert [r["output_length"] for r in rows] == [2, 3, 4, 5, 6, 7]
    assert all(r["block_size"] == 32 for r in rows)
    assert [len(r["hash_ids"]) for r in rows] == [6, 1] * 3
    stamps = [r["timestamp"] for r in rows]
    assert stamps == sorted(stamps)
    # Five whole blocks are shared, the last one of each prompt is its own.
    assert len({tuple(r["hash_ids"][:5]) for r in rows[::2]}) == 1
    assert len({r["hash_ids"][-1] for r in rows}) == 6
    assert {key for r in rows for key in r} == {"timestamp", "input_length", "output_length",
                                                 "block_size", "hash_ids"}
    # Another recording of the same prompts has other ids.
    again = Recording(cluster, tmp_path / "u.jsonl", "--max-requests", 1).started()
    ask(cluster, ROOT + [1000] * 20, 2)
    assert again.process.wait(timeout=20) == 0
    assert len(lines(again.path)) == 1
    assert not set(lines(again.path)[0]["hash_ids"]) & set(rows[0]["hash_ids"])


def test_every_command_takes_it(cluster, tmp_path):
    """A trace is replayed and recorded; the recording shares what the trace does."""
    made = run_yolk("trace", "gen", "--requests", 60, "--rate", 20, "--trace-block", 32, "--roots",
                    3, "--root-tokens", 100, "--input-tokens", 60, "--output-tokens", 4, "--spread",
                    0.3, "--input-max", 400, "--out", tmp_path / "gen.jsonl")
    assert made.returncode == 0, made.stderr
    recording = Recording(cluster, tmp_path / "t.jsonl").started()
    ran = run_yolk("replay", "--trace", tmp_path / "gen.jsonl", "--url", cluster.url, "--json")
    assert ran.returncode == 0, ran.stderr
    wait_until(lambda: len(lines(recording.path)) == 60, what="all lines")
    assert recording.stop()[0] == 0
    want, got = (json.loads(run_yolk("trace", "stat", tmp_path / name, "--json").stdout)
                 for name in ("gen.jsonl", "t.jsonl"))
    assert got["requests"] == 60 and got["block_tokens"] == 32
    assert got["input_tokens"] == want["input_tokens"]
    assert got["output_tokens"] == want["output_tokens"]
    # The generator's partial blocks may be shared, a recording's are when their tokens are equal.
    assert got["infinite_hit"]["token"] == pytest.approx(want["infinite_hit"]["token"], abs=0.02)
    assert got["unique_blocks"] == pytest.approx(want["unique_blocks"], rel=0.05)
    simulated = run_yolk("sim", "--trace", tmp_path / "t.jsonl", "--nodes", "1P+1D", "--json")
    assert simulated.returncode == 0, simulated.stderr
    again = run_yolk("replay", "--trace", tmp_path / "t.jsonl", "--url", cluster.url, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["prompt_tokens"] == want["input_tokens"]


def test_blocks_and_listeners(cluster, tmp_path):
    first = Recording(cluster, tmp_path / "t.jsonl", "--trace-block", 64).started()
    second = Recording(cluster, tmp_path / "u.jsonl")
    assert second.process.wait(timeout=20) == 1
    assert "recording already" in second.stop()[1] and not second.path.exists()
    ask(cluster, ROOT)
    wait_until(lambda: len(lines(first.path)) == 1, what="a line")
    assert len(lines(first.path)[0]["hash_ids"]) == 3
    assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL  # and the gateway goes on
    assert len(lines(first.path)) == 1
    wait_until(lambda: Recording(cluster, tmp_path / "v.jsonl", "--for", "100ms").stop(0)[0] == 0,
               what="the place is free again")
    assert cluster.get("/debug/record?block=33")[0] == 400


def test_a_gateway_that_dies_leaves_a_trace(tmp_path):
    made = Cluster(tmp_path, *SHAPE).wait_ready()
    try:
        recording = Recording(made, tmp_path / "t.jsonl").started()
        ask(made, ROOT)
        wait_until(lambda: len(lines(recording.path)) == 1, what="a line")
        made.kill("gateway")
        assert recording.process.wait(timeout=20) == 1
        assert "has gone" in recording.stop()[1]
        assert run_yolk("trace", "stat", recording.path).returncode == 0
    finally:
        made.stop()


@pytest.mark.parametrize("args, code, text", [
    (("--url", f"http://127.0.0.1:{free_port()}"), 1, "no gateway"),
    (("--url", "ftp://x:1"), 2, "http://HOST:PORT"),
    (("x.jsonl",), 2, "takes no FILE"),
])
def test_bad_input(tmp_path, args, code, text):
    ran = run_yolk("trace", "record", "--out", tmp_path / "t.jsonl", *args)
    assert ran.returncode == code and text in ran.stderr
    assert os.listdir(tmp_path) == []
