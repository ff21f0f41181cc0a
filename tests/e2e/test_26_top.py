# SPDX-License-Identifier: Apache-2.0
"""`yolk top`: in a pipe, as JSON, and in terminals of 80 and 120 columns."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pytest

from cluster import YOLK, run_yolk, free_port


@pytest.fixture(scope="module", autouse=True)
def some_work(cluster):
    for _ in range(3):
        status, _, _ = cluster.post("/v1/completions", {"prompt": "Foxes and hens. " * 30, "max_tokens": 9,
                                                        "ignore_eos": True})
        assert status == 200


def test_piped_it_is_plain_and_ends(cluster):
    result = run_yolk("top", "--url", cluster.url, timeout=30)
    assert result.returncode == 0 and result.stderr == ""
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in ("smollm2", "2 of 2 nodes up", "requests", "p99", "prefill", "decode", "% hit"):
        assert word in result.stdout


def test_json(cluster):
    result = run_yolk("top", "--url", cluster.url, "--json", timeout=30)
    look = json.loads(result.stdout)
    assert [n["role"] for n in look["nodes"]] == ["prefill", "decode"]
    assert 0 < look["ttft_s"]["p50"] <= look["ttft_s"]["p99"] and 0 < look["tbt_s"]["p50"]
    cached = look["cache_tokens"]
    assert cached["local"] > 0 and cached["computed"] > 0
    assert look["pages"]["total"] == sum(n["pages"]["total"] for n in look["nodes"])


def screens(cluster, width, count):
    """What a terminal of that width shows, one look after the other, without colours."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("COLUMNS", None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs in the background ignores it
        time.sleep(0.2)  # until the size is set
        os.execv(str(YOLK), [str(YOLK), "top", "--url", cluster.url])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    seen, end = "", time.monotonic() + 30
    while seen.count("\x1b[J") < count and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            seen += os.read(fd, 65536).decode(errors="ignore")
    os.kill(pid, signal.SIGINT)
    try:
        while os.read(fd, 65536):  # or it may never have room for its last line
            pass
    except OSError:  # so a terminal says that nobody has it open any more
        pass
    assert os.waitpid(pid, 0)[1] == signal.SIGINT
    os.close(fd)
    return [re.sub(r"\x1b\[[0-9;]*m", "", s).replace("\x1b[K", "").replace("\r", "")
            for s in seen.split("\x1b[H")[1:] if "\x1b[J" in s]


@pytest.mark.parametrize("width", [80, 120])
def test_terminals(cluster, width):
    shown = screens(cluster, width, 2)
    assert len(shown) == 2
    lines = shown[1].split("\n")
    assert len(lines[0]) == width and lines[0].endswith("2 of 2 nodes up")
    assert max(map(len, lines)) <= width
    assert [line.split()[:2] for line in lines if line.startswith(("prefill-", "decode-"))] == [
        ["prefill-0", "prefill"], ["decode-0", "decode"]]


def test_nobody_there():
    result = run_yolk("top", "--url", f"http://127.0.0.1:{free_port()}", timeout=30)
    assert result.returncode == 2 and "no gateway answers" in result.stderr
