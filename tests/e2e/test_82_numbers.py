# SPDX-License-Identifier: Apache-2.0
"""tools/bench_page.py puts what was measured, all of it, into README and docs/numbers.md."""
import json
import subprocess
import sys

from cluster import ROOT

SCRIPT = ROOT / "tools" / "bench_page.py"
sys.path.insert(0, str(SCRIPT.parent))
from bench_page import HEADLINES  # noqa: E402


def row(name, **changes):
    return {"name": name, "value": 1234.5, "unit": "us", "baseline": None, "ratio": None, "low": None,
            "high": None, "target": 2000, "met": True, "skipped": None} | changes


def made(tmp_path, changes=(), commits=()):
    """A tree with figures of every bench that has headlines, and what the script says of it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- numbers -->\nold\n<!-- end of numbers -->\nafter\n")
    for bench in {bench for bench, _, _ in HEADLINES}:
        rows = [row(name, **dict(changes).get(name, {})) for b, name, _ in HEADLINES if b == bench]
        rows.append(row("no_headline", target=None, met=None))
        (tmp_path / f"{bench}.json").write_text(json.dumps(
            {"bench": bench, "machine": "m", "commit": dict(commits).get(bench, "c"), "rows": rows}))
    return subprocess.run([sys.executable, str(SCRIPT), "--from", str(tmp_path), "--root", str(tmp_path)],
                          capture_output=True, text=True, timeout=60, check=False)


def test_every_row_is_told_and_misses_are_named(tmp_path):
    missed = {"met": False, "baseline": 10, "ratio": 0.5, "low": 0.4, "high": 0.6}
    ran = made(tmp_path, [("exec_to_ready", missed), ("get_batch_128", {"met": None, "skipped": "no disk"})])
    assert ran.returncode == 0, ran.stderr
    readme, page = (tmp_path / "README.md").read_text(), (tmp_path / "docs" / "numbers.md").read_text()
    assert readme.startswith("before\n<!-- numbers -->\nm, commit c;") and "\nold\n" not in readme
    assert readme.endswith("<!-- end of numbers -->\nafter\n")
    balance = f"Of {len(HEADLINES) - 1} rows with a target, {len(HEADLINES) - 2} meet it. Missed: `exec_to_ready`."
    assert balance in readme and balance in page
    assert "| exec_to_ready | 1,230 us | 10 | 0.5 [0.4, 0.6] | 2,000 | **no** |" in page
    assert "| get_batch_128 | skipped: no disk |" in page
    assert page.count("no_headline") == len({bench for bench, _, _ in HEADLINES})


def test_figures_of_two_commits_are_refused(tmp_path):
    ran = made(tmp_path, commits=[("store", "d")])
    assert ran.returncode != 0 and "of 2 machines or commits" in ran.stderr
    assert "\nold\n" in (tmp_path / "README.md").read_text()
    assert not (tmp_path / "docs" / "numbers.md").exists()
