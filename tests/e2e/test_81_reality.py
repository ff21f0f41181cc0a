# SPDX-License-Identifier: Apache-2.0
"""tools/reality.py runs from end to end: a small order of policies, live and simulated."""
import json
import os
import subprocess
import sys

from cluster import ROOT, YOLK, model_path


def test_policies_are_ranked_live_and_simulated(tmp_path):
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reality.py"), "--yolk", str(YOLK), "--model",
         str(model_path()), "--only", "order", "--seconds", "4", "--dry"],
        capture_output=True, text=True, timeout=200, check=False,
        env=dict(os.environ, XDG_CACHE_HOME=str(tmp_path)))
    assert ran.returncode == 0, ran.stderr
    page, rows = ran.stdout.split("\n[\n", 1)
    assert "mean TTFT ms" in page and "Others used up to" in page
    rows = json.loads("[" + rows)
    assert len(rows) == 5 and all(row["name"].startswith("reality: ") for row in rows)
    assert all(row["baseline"] > 0 and row["value"] > 0 for row in rows[:4])
    assert rows[4]["met"] in (True, False)
    # The two that are far apart are told apart by both.
    ttft = {row["name"].rpartition(", ")[2]: row for row in rows[:4]}
    assert ttft["match"]["value"] > ttft["global"]["value"]
    assert ttft["match"]["baseline"] > ttft["global"]["baseline"]
