# SPDX-License-Identifier: Apache-2.0
"""What the transfer engine did can be asked, and the machine can be examined."""
import json
import pathlib
import re

from cluster import Cluster, run_yolk


def test_doctor_finds_and_says_how_to_mend():
    said = run_yolk("doctor", "--json")
    assert said.returncode == 0
    findings = json.loads(said.stdout)
    assert {"open files", "memory available", "RDMA devices", "GPU"} <= {f["what"] for f in findings}
    for finding in findings:
        assert finding["level"] in ("ok", "note", "WARN")
        assert (finding["fix"] == "") == (finding["level"] == "ok"), finding
    assert "open files" in run_yolk("doctor").stdout


def test_explain_refuses_what_it_cannot_ask():
    assert run_yolk("explain", "transfer", "7").returncode == 2  # of which node?
    assert run_yolk("explain", "transfer", "seven", "--node", "127.0.0.1:1").returncode == 2
    assert run_yolk("explain", "weather", "7").returncode == 2


def test_a_node_says_what_its_transfers_did(tmp_path):
    made = Cluster(tmp_path, "--engine", "timed", "--engine-speed", 20, "--pool-size", "64M",
                   "--prefill", 1, "--decode", 1, "--secret", "whisper", "--transfer-encrypt",
                   "--pool-populate").wait_ready()
    try:
        for pid in made.children("node"):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            shared_kib = int(re.search(r"RssShmem:\s+(\d+) kB", status).group(1))
            assert shared_kib >= 60 << 10, "the pool's pages are not there"
        status, body, _ = made.post("/v1/completions", {
            "model": "smollm2", "prompt": "Count. " * 400, "max_tokens": 4})
        assert status == 200, body
        nodes = json.loads(made.get("/debug/nodes")[1])["nodes"]
        prefill = next(n["address"] for n in nodes if n["role"] == "prefill")
        asked = ["--node", prefill, "--secret", "whisper"]
        assert run_yolk("explain", "transfer", "last", "--node", prefill).returncode == 2
        last = run_yolk("explain", "transfer", "last", *asked)
        assert last.returncode == 0, last.stderr
        first = re.search(r"^transfer (\d+): write, \w+, completed over (tcp|shm)", last.stdout, re.M)
        assert first, last.stdout
        one = run_yolk("explain", "transfer", first.group(1), *asked)
        assert one.stdout.startswith(first.group(0)) and "bytes in" in one.stdout
        assert run_yolk("explain", "transfer", "999999999", *asked).returncode == 2
        metrics = run_yolk("explain", "transfer", "metrics", *asked).stdout
        moved = re.search(r'bytes_total\{path="%s",direction="write"\} (\d+)' % first.group(2), metrics)
        assert int(moved.group(1)) > 0
        assert "yolk_transfer_rail_up{" in metrics
        count = {name: int(re.search(rf"^yolk_transfer_{name} (\d+)$", metrics, re.M).group(1))
                 for name in ("connections", "connections_encrypted", "seal_failures_total")}
        assert count["connections"] == count["connections_encrypted"] > 0
        assert count["seal_failures_total"] == 0
    finally:
        made.stop()


def test_a_node_does_not_encrypt_without_a_secret():
    said = run_yolk("node", "smollm2", "--transfer-encrypt", "--engine", "timed")
    assert said.returncode == 2
    assert "encrypting needs a cluster secret" in said.stderr
