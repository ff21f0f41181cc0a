# SPDX-License-Identifier: Apache-2.0
"""Hits that were counted on and did not come, live: a holder that stands still is late, the alarm is raised, and
nodes of another layout start from nothing. The answers stay right."""
import concurrent.futures
import http.client
import json
import signal

import pytest

from cluster import run_yolk, wait_until
from fleet import Fleet, free_port, get, wait_ready

TIMED = ("--engine", "timed", "--engine-speed", 5, "--pool-size", "8M")
BLOCK = 32
HELD = [100 + i * 7919 % 30000 for i in range(12 * BLOCK)]  # what one node has
LONG = HELD + [50 + i * 31 % 20000 for i in range(6000)]
ASKING = 20  # at once


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        made.port, master = free_port(), f"127.0.0.1:{free_port()}"
        made.start("master", "master", "--listen", master)
        made.start("gateway", "gateway", "--port", made.port, "--master", master, "--served-model-name", "smollm2")
        made.node = lambda name, role, *options: made.start(
            name, "node", "--role", role, "--name", name, "--master", master, *options)
        for name, role in (("holder", "prefill"), ("other", "prefill"), ("decoder", "decode")):
            made.node(name, role, *TIMED)
        wait_ready(made, made.port, prefill=2)
        yield made


def ask(fleet, name, prompt, max_tokens=4):
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps({
            "model": "smollm2", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}),
            {"Content-Type": "application/json", "X-Request-Id": name})
        response = connection.getresponse()
        body = json.loads(response.read())
        assert response.status == 200, body
        return body["choices"][0]["text"]
    finally:
        connection.close()


def page(fleet):
    return json.loads(get(fleet.port, "/debug/decisions?limit=1000")[1])


def decisions(fleet, name):
    return [d for d in page(fleet)["decisions"] if d["request_id"] == name]


def explain(fleet, name):
    said = run_yolk("explain", "request", name, "--url", f"http://127.0.0.1:{fleet.port}")
    assert said.returncode == 0, said.stderr
    return said.stdout


def metric(fleet, name):
    """The value of one series, written as it is in the exposition."""
    return next(float(line.rpartition(" ")[2]) for line in get(fleet.port, "/metrics")[1].splitlines()
                if line.startswith(name + " "))


def question(i):
    return HELD + [7, 8, 9, 10 + i]


def replace_nodes(fleet, names, name, *options):
    """Those go, and one node that does everything comes."""
    for old in names:
        fleet.signal(old, signal.SIGTERM)
    for old in names:
        fleet.stop(old)
    fleet.node(name, "both", *options)
    wait_until(lambda: f"ev=node_up node={name}" in fleet.log("gateway"), what=f"node {name}")


def test_a_holder_that_stands_still_is_late_and_the_alarm_is_raised(fleet):
    ask(fleet, "first", HELD + [5])
    holder = decisions(fleet, "first")[0]["prefill"]
    fleet.stop("decoder")  # it has them as well; the next one has not
    wait_until(lambda: "ev=node_gone node=decoder" in fleet.log("gateway"))
    fleet.again("decoder")
    wait_ready(fleet, fleet.port, prefill=2)
    missed = 'yolk_conductor_missed_blocks_total{reason="timeout"}'
    assert metric(fleet, missed) == 0 and metric(fleet, "yolk_conductor_hits_alarm") == 0

    # It stands still, which nobody knows for two seconds, and is thought to be busy with this one: so the
    # others are placed elsewhere, and count on fetching from it.
    fleet.signal(holder, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(ASKING + 1) as pool:
        long = pool.submit(ask, fleet, "long", LONG)
        wait_until(lambda: decisions(fleet, "long"))
        answers = list(pool.map(lambda i: ask(fleet, f"late-{i}", question(i)), range(ASKING)))
        long = long.result()
    fleet.signal(holder, signal.SIGCONT)
    placed = [d for name in ("long", *(f"late-{i}" for i in range(ASKING))) for d in decisions(fleet, name)]
    late = [d for d in placed if d["hits"]["missed"].get("timeout") and d["request_id"] != "long"]
    assert len(late) >= 16  # what an alarm takes
    for d in late:
        assert d["holder"] == holder and d["prefill"] != holder
        assert d["hits"]["missed"]["timeout"] == d["hits"]["predicted_blocks"] - d["hits"]["reused_blocks"]
        assert d["actual"]["total_ms"] < 5000  # not as long as a dead connection takes
    assert metric(fleet, missed) == sum(d["hits"]["missed"].get("timeout", 0) for d in placed)
    assert page(fleet)["hits"]["alarm"] is True and page(fleet)["hits"]["mostly"] == "timeout"
    assert metric(fleet, "yolk_conductor_hits_alarm") == metric(fleet, "yolk_conductor_hits_alarms_total") == 1
    assert "ev=predicted_hits_missing" in fleet.log("gateway")
    said = explain(fleet, late[0]["request_id"])
    assert f"{len(HELD) // BLOCK} timeout" in said and "alarm " in said and "mostly timeout" in said, said

    # When it is back, all is as it was: the same answers, and hits that realise.
    wait_ready(fleet, fleet.port, prefill=2)
    assert [ask(fleet, f"again-{i}", question(i)) for i in range(ASKING)] == answers
    for i in range(8):
        assert ask(fleet, f"long-{i}", LONG) == long
    assert page(fleet)["hits"]["alarm"] is False and metric(fleet, "yolk_conductor_hits_alarm") == 0
    assert "ev=predicted_hits_back" in fleet.log("gateway")
    assert "alarm " not in explain(fleet, "long-7")


def test_nodes_of_another_layout_have_nothing_to_reuse(fleet):
    """The gateway stays; in place of its nodes comes one with a real engine, larger blocks, and KV of another type."""
    replace_nodes(fleet, ["holder", "other", "decoder"], "rounded", "--block-tokens", 64, "--kv-type", "q8_0",
                  "--pool-size", "64M")
    answer = ask(fleet, "of-rounded", HELD + [5])
    hits = decisions(fleet, "of-rounded")[0]["hits"]
    assert hits["reusable_blocks"] == len(HELD) // 64 and hits["predicted_blocks"] == 0
    assert hits["missed"] == {"layout": hits["reusable_blocks"]}
    assert "under another layout" in explain(fleet, "of-rounded")
    assert metric(fleet, 'yolk_conductor_missed_blocks_total{reason="layout"}') == hits["reusable_blocks"]
    assert ask(fleet, "of-rounded-again", HELD + [5]) == answer
    assert decisions(fleet, "of-rounded-again")[0]["hits"]["missed"] == {}
