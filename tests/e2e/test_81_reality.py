# SPDX-License-Identifier: Apache-2.0
"""tools/reality.py runs from end to end: small forms of its parts with modelled engines."""
import json
import os
import subprocess
import sys

from cluster import ROOT, YOLK, model_path


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
