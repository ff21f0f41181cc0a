# SPDX-License-Identifier: Apache-2.0
"""The command line: help, versions, precise errors, and a model fetch that is repeatable."""
import os
import re
import socket
import subprocess

import pytest

from cluster import MODEL_FILE, ROOT, YOLK, free_port, model_path, run_yolk

COMMANDS = ["serve", "gateway", "master", "node", "run", "model", "bench", "store", "version"]


def test_version_says_what_it_is():
    result = run_yolk("version")
    assert result.returncode == 0
    assert result.stdout.startswith("yolk ")


def test_help_lists_every_command():
    result = run_yolk("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


def option_names(text):
    """Without `--cluster-tls-*` and `--cluster-tls-`, which stand for several."""
    names = re.findall(r"(?<![\w-])--([a-z][a-z0-9*-]*)", text)
    return {name for name in names if not name.endswith(("*", "-"))}


def test_the_docs_know_the_options_and_no_others():
    """An option that docs name is one of a command; those of servers are in the docs."""
    foreign = {"bcrypt-cost", "only", "rehearse"}  # of etcd, and of scripts in tools/
    commands = re.findall(r"^  (\w+) ", run_yolk("--help").stdout, re.MULTILINE)
    options = {name: option_names(run_yolk(name, "--help").stdout) for name in commands}
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    named = {page: option_names(page.read_text()) for page in pages}
    known = set().union(*options.values()) | foreign
    for page, names in named.items():
        plain = {re.sub("^no-", "", name) if name not in known else name for name in names}
        assert plain <= known, f"{page}: {sorted(plain - known)}"
    written = set().union(*named.values())
    written |= {name.removeprefix("no-") for name in written}
    for command in ("serve", "gateway", "master", "node"):
        missing = options[command] - written - {"help"}
        assert not missing, f"{command}: {sorted(missing)} are in no page"


def test_links_of_the_docs_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = run_yolk(command, "--help")
    assert result.returncode == 0, result.stderr
    assert "usage: yolk " + command in result.stdout


@pytest.mark.parametrize("args, words", [
    (["swerve"], ["swerve"]),
    (["serve"], ["MODEL"]),
    (["serve", "m.gguf", "--prt", "1"], ["--prt", "--port"]),
    (["serve", "m.gguf", "--port", "70000"], ["--port", "70000"]),
    (["serve", "m.gguf", "--port", "eight"], ["--port", "eight"]),
    (["serve", "m.gguf", "--prefill", "0"], ["--prefill"]),
    (["serve", "m.gguf", "--port"], ["--port"]),
    (["serve", "/nowhere/m.gguf"], ["/nowhere/m.gguf", "No such file"]),
    (["run", "/nowhere/m.gguf", "hello"], ["/nowhere/m.gguf"]),
    (["node", "m.gguf", "--role", "cook"], ["--role", "cook"]),
    (["node", "m.gguf", "--cpus", "0,1-"], ["--cpus", "0,1-"]),
    (["node", "m.gguf", "--cpus", "1000"], ["--cpus", "1000"]),
    (["serve", "m.gguf", "--cpus", "0/x"], ["--cpus", "x"]),
    (["model", "fetch", "gpt-17"], ["gpt-17", "smollm2"]),
    (["bench", "nothing"], ["nothing"]),
    (["bench", "store", "nosuch"], ["store", "nosuch"]),
    (["store", "put", "k", "--size", "5"], ["--size", "--layers"]),
    (["store", "get", "k", "--size", "5", "--layers", "2"], ["--size", "get", "put"]),
    (["store", "get", "k", "--pin"], ["--pin", "get"]),
    (["store", "put", "k", "--pin", "--soft-pin", "3s"], ["--soft-pin", "--pin"]),
    (["store", "rm", "k", "--json"], ["--json", "rm"]),
    (["store", "rm", "--all", "--regex", "k"], ["--all", "--regex"]),
    (["store", "stat", "--tenant", "t"], ["--tenant", "KEY"]),
    (["sim", "--trace", "t.jsonl", "--series"], ["--series", "--json"]),
])
def test_wrong_use_is_one_precise_line(args, words):
    result = run_yolk(*args, timeout=20)
    assert result.returncode != 0
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def damaged(tmp_path, name, change):
    data = bytearray(model_path().read_bytes()[:4 << 20])
    path = tmp_path / name
    path.write_bytes(change(data))
    return path


@pytest.mark.parametrize("name, change", [
    ("empty", lambda d: b""),
    ("truncated", lambda d: d[:1000]),
    ("tensors-cut", lambda d: d),
    ("not-gguf", lambda d: b"PK\x03\x04" + d[4:]),
    ("version", lambda d: d[:4] + b"\x63\x00\x00\x00" + d[8:]),
    ("huge-count", lambda d: d[:8] + b"\xff" * 16 + d[24:]),
    ("flipped", lambda d: d[:200] + bytes(b ^ 0x5A for b in d[200:600]) + d[600:]),
])
def test_damaged_model_is_refused_by_name(tmp_path, name, change):
    path = damaged(tmp_path, name + ".gguf", change)
    for command in (["run", path, "hello"], ["serve", path, "--port", free_port()]):
        result = run_yolk(*command, timeout=30)
        assert result.returncode not in (0, -6, -11), (result.returncode, result.stderr)
        assert str(path) in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_port_in_use_is_named():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        result = run_yolk("serve", model_path(), "--host", "127.0.0.1", "--port", port, timeout=30)
    assert result.returncode != 0
    assert str(port) in result.stderr and "in use" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_fetch_does_nothing_when_the_model_is_there():
    before = model_path().stat()
    result = run_yolk("model", "fetch", "smollm2", timeout=60)
    assert result.returncode == 0, result.stderr
    after = model_path().stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_fetch_refuses_a_damaged_copy_and_says_so(tmp_path):
    """A file of the right name with other bytes is not taken for the model."""
    models = tmp_path / "yolk" / "models"
    models.mkdir(parents=True)
    (models / MODEL_FILE).write_bytes(b"GGUF" + b"\0" * 100)
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python3").write_text("#!/bin/sh\necho no network here >&2\nexit 1\n")
    (fake / "python3").chmod(0o755)
    env = dict(os.environ, XDG_CACHE_HOME=str(tmp_path), PATH=f"{fake}:{os.environ['PATH']}")
    result = run_yolk("model", "fetch", "smollm2", env=env, timeout=60)
    assert result.returncode != 0
    assert "fetch" in result.stderr
    assert not list(models.glob("*.partial*"))


def test_no_space_for_the_model_is_said(tmp_path):
    """The cache directory is a file system of 1 MiB: the fetch fails with the reason."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = f"mount -t tmpfs -o size=1m none {mount} && XDG_CACHE_HOME={mount} {YOLK} model fetch smollm2"
    result = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True,
                            timeout=120)
    if "unshare" in result.stderr or "mount:" in result.stderr:
        pytest.skip("a private mount needs root")
    assert result.returncode != 0
    assert "space" in result.stderr.lower(), result.stderr


def test_bench_prints_one_json_object():
    import json

    result = run_yolk("bench", "gateway", "health", "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) == {"bench", "commit", "machine", "rows"}
    for row in report["rows"]:
        assert set(row) == {"name", "value", "unit", "baseline", "ratio", "low", "high", "target", "met",
                            "skipped"}
    assert {"health", "refused_chat", "resident"} == {row["name"] for row in report["rows"]}


def test_bench_of_the_directory_runs_in_short_form():
    import json

    result = run_yolk("bench", "store", "_8_", "--short", "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert set(rows) == {"lookup_one_key_8_threads", "lookup_one_key_8_processes", "put_start_end_8_threads"}
    assert all(row["value"] > 0 for row in rows.values())
    assert all(row["target"] > 0 for row in rows.values())
    result = run_yolk("bench", "store", "batch_128", "--short", "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row["value"] for row in json.loads(result.stdout)["rows"]}
    assert set(rows) == {"exist_batch_128", "get_batch_128", "put_start_end_batch_128", "put_tcp_4KiB_batch_128",
                         "put_tcp_64KiB_batch_128"}
    assert all(rows.values())


def test_bench_of_values_runs_in_short_form():
    import json

    result = run_yolk("bench", "store", "1MiB", "--short", "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert set(rows) == {"get_tcp_1MiB_first", "get_tcp_1MiB", "get_shm_1MiB_first", "get_shm_1MiB_again",
                         "get_own_1MiB_again"}
    assert all(row["value"] > 0 and row["baseline"] > 0 for row in rows.values())


def test_a_killed_master_knows_20000_values_of_4_nodes_again():
    import json

    result = run_yolk("bench", "store", "master_killed", "--short", "--json", timeout=120)
    assert result.returncode == 0, result.stderr  # every value answers, 1,000 were read and compared
    assert [row["name"] for row in json.loads(result.stdout)["rows"]] == ["master_killed_all_readable"]
