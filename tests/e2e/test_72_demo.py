# SPDX-License-Identifier: Apache-2.0
"""yolk demo overload: refusing early must pay, and every request is accounted for."""
import json
import os
import pty
import subprocess

import pytest

from cluster import YOLK, model_path, run_yolk


def apart(directory):
    """Costs that were learned before, and those learned here, stay where they are."""
    return dict(os.environ, XDG_CACHE_HOME=str(directory), TERM="xterm")


def test_refusing_early_pays(tmp_path):
    ran = run_yolk("demo", "overload", "--engine", "timed", "--model", model_path(), "--seconds", 6,
                   "--policies", "none,early", "--json", env=apart(tmp_path))
    assert ran.returncode == 0, ran.stderr
    out = json.loads(ran.stdout)
    none, early = out["runs"]
    assert [none["policy"], early["policy"]] == ["none", "early"]
    for run in (none, early):
        assert run["requests"] == none["requests"] > 60
        assert run["good"] + run["rejected"] + run["late"] + run["failed"] == run["requests"]
        assert run["failed"] == 0
    assert none["rejected"] == 0 and early["rejected"] > 0
    assert early["good"] > 1.2 * none["good"]


def test_the_real_model_too(tmp_path):
    """What a machine can serve is measured, and so are the limits: no telling what is refused."""
    ran = run_yolk("demo", "overload", "--model", model_path(), "--seconds", 2, "--policies",
                   "predict", "--json", env=apart(tmp_path), timeout=300)
    assert ran.returncode == 0, ran.stderr
    out = json.loads(ran.stdout)
    assert out["engine"] == "builtin" and out["rate"] > 0
    assert out["ttft_limit_ms"] > 0 and out["tbt_limit_ms"] > 0
    run, = out["runs"]
    assert run["requests"] > 0 and run["failed"] == 0
    assert run["good"] + run["rejected"] + run["late"] == run["requests"]


def test_lines_when_nobody_watches(tmp_path):
    ran = run_yolk("demo", "overload", "--engine", "timed", "--model", model_path(), "--seconds", 2,
                   "--policies", "predict", env=apart(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "\x1b" not in ran.stdout and "\r" not in ran.stdout
    assert "in time" in ran.stdout and "predict" in ran.stdout


def test_a_terminal_is_drawn_in_place(tmp_path):
    master, slave = pty.openpty()
    command = [str(YOLK), "demo", "overload", "--engine", "timed", "--model",
               str(model_path()), "--seconds", "2", "--policies", "none"]
    process = subprocess.Popen(command, stdout=slave, env=apart(tmp_path))
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert b"\x1b[1A" in shown and shown.count(b"policy ") == 2


@pytest.mark.parametrize("args, text", [
    (("nothing",), "no demo"),
    (("overload", "--load", "9"), "--load"),
    (("overload", "--policies", "none,,early"), "--policies"),
    (("overload", "--policies", "nonsense"), "nonsense"),
])
def test_bad_input(args, text):
    ran = run_yolk("demo", *args)
    assert ran.returncode == 2
    assert text in ran.stderr
