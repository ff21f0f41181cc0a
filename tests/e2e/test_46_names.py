# SPDX-License-Identifier: Apache-2.0
"""Nodes that cannot take part: they are told why, and do no harm."""
import os
import signal
import subprocess
import time

import pytest

from cluster import YOLK, Cluster, model_path, wait_until

SECRET = {"YOLK_SECRET": "names"}
SHAPE = ("--engine", "timed", "--engine-speed", "20", "--pool-size", "64M")


def master_of(cluster):
    pid = cluster.children("master")[0]
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().decode().split("\0")
    return words[words.index("--listen") + 1]


class Node:
    def __init__(self, cluster, directory, *args):
        self.log_path = directory / f"node-{len(args)}-{time.monotonic_ns()}.log"
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [str(YOLK), "node", str(model_path()), "--master", master_of(cluster), *SHAPE,
             *map(str, args)], stdout=self.log, stderr=self.log, env=dict(os.environ, **SECRET))

    def said(self, text):
        return text in self.log_path.read_text(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture()
def cluster(tmp_path):
    made = Cluster(tmp_path, *SHAPE, env=SECRET).wait_ready()
    yield made
    made.stop()


def ask(cluster, number):
    status, body, _ = cluster.post("/v1/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": 4, "prompt": f"Name {number}"})
    assert status == 200, body


def epochs_of_decode(cluster):
    """How often the gateway has met a new life of a node so far."""
    return sum("ev=node_up" in line and "decode-0" in line
               for line in cluster.log_path.read_text(errors="replace").splitlines())


def test_the_second_of_a_name_waits_until_the_first_has_gone(tmp_path):
    made = Cluster(tmp_path, *SHAPE, "--log", "info", env=SECRET).wait_ready()
    second = Node(made, tmp_path, "--role", "decode", "--name", "decode-0", "--log", "info")
    try:
        wait_until(lambda: second.said("ev=name_taken"), what="the second is told")
        before = epochs_of_decode(made)
        for i in range(20):
            ask(made, i)
            time.sleep(0.1)
        assert epochs_of_decode(made) == before  # nobody took turns
        assert not second.said("ev=joined")
        # A node that was killed is followed at once, by whoever is first.
        made.kill("decode")
        wait_until(lambda: epochs_of_decode(made) > before, timeout=10, what="a successor")
        ask(made, 100)
    finally:
        second.stop()
        made.stop()


def test_a_node_that_does_not_fit_learns_why(cluster, tmp_path):
    odd = Node(cluster, tmp_path, "--role", "decode", "--name", "odd", "--block-tokens", 64)
    try:
        wait_until(lambda: odd.said("ev=refused_by_gateway"), what="it is told")
        assert odd.said("its blocks have 64 tokens, those here 32")
        ask(cluster, 1)
        assert cluster.metric("yolk_gateway_nodes_up", role="decode") == 1
    finally:
        odd.stop()
