# SPDX-License-Identifier: Apache-2.0
"""The pool of values with every process started alone: a master that serves metrics, three nodes,
and `yolk store` as the clients. What is asked moves exactly the counters it should; values that are
written layer by layer are read by others when they are whole, and not before; and what is read much
has more replicas while there is room."""
import contextlib
import json
import os
import re
import subprocess
import time

import pytest

from cluster import YOLK, free_port, get, model_path, wait_until
from fleet import Fleet

pytestmark = pytest.mark.skipif(model_path() is None, reason="no model: `yolk model fetch smollm2`")

NODES = ("n0", "n1", "n2")
MIB = 1 << 20
LAYERS, LAYER = 4, 300_000
NOBODYS = 50  # seconds after which the room of a writer that died is free
LENT = 16 * MIB  # by each


class Pool:
    def __init__(self, fleet):
        self.fleet = fleet
        self.master = f"127.0.0.1:{free_port()}"
        self.http = free_port()
        self.environment = dict(fleet.environment, YOLK_MASTER=self.master)

    def start(self):
        self.fleet.start("master", "master", "--listen", self.master, "--metrics-listen",
                         f"127.0.0.1:{self.http}", "--hot-reads", 2)
        for name in NODES:
            self.fleet.start(name, "node", "--name", name, "--master", self.master, "--engine",
                             "timed", "--pool-size", "16M", "--values-size", LENT)
        wait_until(lambda: self.lent() == LENT * len(NODES), 30, "all nodes lend")
        wait_until(lambda: self.run("ls").returncode == 0 and self.put("ready", b"?"), 30, "settled")
        self.run("rm", "--all", "--force")

    def lent(self):
        try:
            return self.metrics()["master_total_capacity_bytes"]
        except OSError:
            return 0

    def command(self, *args):
        return [str(YOLK), "store", *map(str, args)]

    def run(self, *args, stdin=b""):
        return subprocess.run(self.command(*args), input=stdin, capture_output=True, timeout=60,
                              env=self.environment)

    @contextlib.contextmanager
    def process(self, *args):
        """`yolk store` with both ends in hand."""
        with subprocess.Popen(self.command(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=self.environment, bufsize=0) as process:
            try:
                yield process
            finally:
                process.kill()

    def put(self, key, value, *args):
        return self.run("put", key, *args, stdin=value).returncode == 0

    def get(self, key, *args):
        result = self.run("get", key, *args)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def replicas(self, key, *args):
        return len(json.loads(self.run("stat", key, "--json", *args).stdout)["replicas"])

    def owners(self, key):
        """Names of the nodes that have it."""
        names = {node["address"]: node["name"] for node in json.loads(self.run("stat", "--json").stdout)["nodes"]}
        return sorted(names[at] for at in json.loads(self.run("stat", key, "--json").stdout)["replicas"])

    def metrics(self):
        """Every series without labels."""
        status, page = get(self.http, "/metrics")
        assert status == 200
        return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", page, re.M)}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("pool")) as fleet:
        made = Pool(fleet)
        made.start()
        yield made


@pytest.fixture(scope="module")
def left_behind(pool):
    """A writer is killed with half of its value written, before all else. When that was, what it
    had asked for, and what the pool had before."""
    before = pool.metrics()
    with pool.process("put", *HALF, *PARTS) as writer:
        layers_in(writer, value_of(0)[:LAYER * 2])
        assert pool.run("get", *HALF).returncode == 2
        writer.kill()
        assert writer.wait() == -9
    return time.monotonic(), before


HALF = ("half", "--tenant", "late")
PARTS = ("--layers", LAYERS, "--size", LAYERS * LAYER)


def value_of(seed):
    return bytes((seed + i // 7) % 251 for i in range(LAYERS * LAYER))


def layers_in(writer, data):
    """Writes them, and waits until each is with its owner."""
    writer.stdin.write(data)
    for _ in range(len(data) // LAYER):
        assert writer.stdout.readline().startswith(b"layer ")


def layer_out(reader):
    layer = b""
    while len(layer) < LAYER:
        more = reader.stdout.read(LAYER - len(layer))
        assert more, "the reader ended"
        layer += more
    return layer


class Moved:
    """What the counters of requests, those of beats apart, did since this was made."""

    def __init__(self, pool):
        self.pool = pool
        self.before = pool.metrics()

    def now(self):
        return {name.removeprefix("master_").removesuffix("_total"): value - self.before[name]
                for name, value in self.pool.metrics().items()
                if re.search(r"_(requests|failures|items|partial_successes)_total$", name)
                and "_ping_" not in name and value != self.before[name]}


def test_every_request_counts_once(pool, left_behind):
    moved = Moved(pool)
    assert pool.put("count/1", b"one") and pool.put("count/2", b"two")
    assert not pool.put("count/1", b"other")  # has a value
    assert pool.put("count/2", b"changed", "--replace")  # its end waits for the old value to go
    assert moved.now() == {"put_start_requests": 4, "put_start_failures": 1, "put_end_requests": 3}

    moved = Moved(pool)
    assert pool.get("count/2") == b"changed"  # how long is it, then: where is it
    assert pool.run("get", "count/3").returncode == 2
    assert pool.replicas("count/1") == 1
    assert moved.now() == {"get_replica_list_requests": 4, "get_replica_list_failures": 1}

    moved = Moved(pool)
    assert pool.run("replicas", "count/1", "2").returncode == 0
    wait_until(lambda: pool.metrics()["yolk_store_replicas"] == 3 and moved.now() == {
        "create_copy_task_requests": 1, "copy_start_requests": 1, "put_end_requests": 1,
        "copy_end_requests": 1}, what="one more replica")

    moved = Moved(pool)
    assert len(pool.run("ls", "count/").stdout.splitlines()) == 2
    assert pool.run("ls", "--regex", "(").returncode == 2
    assert pool.run("rm", "count/2").returncode == 2  # leased
    assert pool.run("rm", "count/2", "count/3", "--force").returncode == 2
    assert pool.run("rm", "--regex", "^count/1$", "--force").stdout == b"1 removed\n"
    assert pool.run("rm", "--all").stdout == b"0 removed\n"
    assert moved.now() == {
        "get_replica_list_by_regex_requests": 2, "get_replica_list_by_regex_failures": 1,
        "remove_requests": 3, "remove_failures": 2, "remove_by_regex_requests": 1,
        "remove_all_requests": 1}


def test_a_session_is_read_by_others_when_it_has_ended(pool):
    old, new = value_of(1), value_of(2)
    assert pool.put("deep", old)
    with pool.process("put", "deep", *PARTS, "--replace") as writer, \
            pool.process("get", "deep", "--layers", LAYERS) as reader:
        assert layer_out(reader) == old[:LAYER]
        layers_in(writer, new[:LAYER * 3])
        assert pool.get("deep") == old
        assert pool.get("deep", "--offset", LAYER * 2 + 1, "--length", 7) == old[LAYER * 2 + 1:][:7]
        assert layer_out(reader) == old[LAYER:LAYER * 2]
        writer.stdin.write(new[LAYER * 3:])
        writer.stdin.close()
        # The reader has what it began with, and the writer is not done before it has let go.
        assert b"".join(layer_out(reader) for _ in range(2)) == old[LAYER * 2:]
        assert reader.wait(20) == 0 and writer.wait(20) == 0
    assert pool.get("deep") == new == pool.get("deep", "--layers", 7)
    assert pool.get("deep", "--offset", LAYER * 3 - 9, "--length", 20) == new[LAYER * 3 - 9:][:20]


def test_an_input_that_ends_early_puts_nothing(pool):
    result = pool.run("put", "short", *PARTS, stdin=value_of(3)[:-1])
    assert result.returncode == 2 and b"ended after 1199999 of 1200000 bytes" in result.stderr
    assert pool.run("get", "short").returncode == 2
    assert pool.put("short", value_of(3), *PARTS)  # a revoked session is in nobody's way
    assert pool.get("short") == value_of(3)
    for args in (("put", "x", "--layers", 3), ("put", "x", "--layers", 3, "--size", 2),
                 ("put", "x", "/dev/null", *PARTS), ("get", "short", "--layers", 2, "--length", 1)):
        result = pool.run(*args)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    pool.run("rm", "--all", "--force")


def test_what_is_read_much_has_more_replicas_until_room_is_wanted(pool, left_behind):
    value, red = os.urandom(6 * MIB), ("--tenant", "red")
    assert pool.run("quota", "red", "10M").returncode == 0
    assert pool.put("hot", value) and pool.put("hot", value, *red)
    for _ in range(16):  # of 6 MiB: seven reads each
        assert pool.get("hot") == value == pool.get("hot", *red)
    wait_until(lambda: pool.replicas("hot") == 3, what="two replicas for heat")
    before = pool.metrics()
    assert before["yolk_store_hot_replicas"] == 2
    assert pool.replicas("hot", *red) == 1  # two would be 12 MiB

    # With them 31 MiB more do not fit, without them they do: nothing else has to go.
    for i in range(31):
        assert pool.put(f"more/{i}", value[:MIB])
    after = pool.metrics()
    assert after["yolk_store_hot_taken_total"] - before["yolk_store_hot_taken_total"] == 2
    assert after["master_evicted_key_count"] == before["master_evicted_key_count"]
    assert pool.replicas("hot") == 1 == pool.replicas("hot", *red)
    assert pool.get("hot") == value == pool.get("hot", *red)
    assert len(pool.run("ls", "more/").stdout.splitlines()) == 31
    assert pool.run("rm", "--all", "--force").returncode == 0
    assert pool.run("rm", "--all", "--force", *red).returncode == 0


def test_values_go_to_the_nodes_that_are_named(pool, left_behind):
    value = os.urandom(3 * MIB)
    assert pool.put("here", value)
    first = pool.owners("here")[0]
    second, third = (name for name in NODES if name != first)
    moved = Moved(pool)
    result = pool.run("move", "here", "--to", second, "--json")
    assert result.returncode == 0, result.stderr
    task = json.loads(result.stdout)
    assert (task["what"], task["state"], task["done"], task["size"]) == ("move", "success", 1, 3 * MIB)
    assert pool.owners("here") == [second]
    assert json.loads(pool.run("task", task["task"], "--json").stdout) == task
    seen = moved.now()
    assert seen.pop("query_task_requests") > 0
    seen = {name: count for name, count in seen.items() if not name.startswith("get_replica_list")}
    assert seen == {"create_move_task_requests": 1, "move_start_requests": 1, "move_end_requests": 1,
                    "put_end_requests": 1}
    assert pool.get("here") == value

    assert pool.run("copy", "here", "--to", f"{first},{third}").returncode == 0
    assert pool.owners("here") == list(NODES)
    for args, why in ((("move", "here", "--from", first, "--to", first), b"same node"),
                      (("move", "here", "--from", first, "--to", third), b"has it already"),
                      (("move", "here", "--to", first), b"several nodes have the value"),
                      (("copy", "here", "--to", "nobody"), b"does not exist"),
                      (("copy", "gone", "--to", first), b"no such key"),
                      (("copy", "here"), b"store copy: KEY --to NODE"),
                      (("task", "1-2"), b"no such task")):
        result = pool.run(*args)
        assert result.returncode == 2 and why in result.stderr and len(result.stderr.splitlines()) == 1
    assert pool.run("rm", "here", "--force").returncode == 0


def test_nodes_that_go_together_are_drained_together(pool, left_behind):
    stays, *leave = NODES
    values = {f"drained/{i}": os.urandom(MIB) for i in range(6)}
    for key, value in values.items():
        assert pool.put(key, value)
    result = pool.run("drain", *leave)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == b"0 values left", result.stderr
    for key, value in values.items():
        assert pool.owners(key) == [stays] and pool.get(key) == value
    assert pool.run("drain", *leave, "--undo").returncode == 0
    assert [n["state"] for n in json.loads(pool.run("stat", "--json").stdout)["nodes"]].count("draining") == 0
    refused = pool.run("drain")
    assert refused.returncode == 2 and b"NODE..." in refused.stderr
    assert pool.run("rm", "--all", "--force").returncode == 0


def test_a_dead_writer_leaves_nothing_behind(pool, left_behind):
    killed, before = left_behind
    assert pool.run("get", *HALF).returncode == 2
    assert pool.run("rm", "--all", "--force").returncode == 0
    time.sleep(max(0, killed + NOBODYS - time.monotonic()))
    wait_until(lambda: pool.metrics()["master_allocated_bytes"] == 0, what="its room is free")
    after = pool.metrics()
    released, discarded = "master_put_start_release_cnt", "master_put_start_discard_cnt"
    assert after[discarded] - before[discarded] == 1
    assert after["master_put_start_discarded_staging_size"] == 0 < after[released]
    assert pool.run("get", *HALF).returncode == 2
    assert pool.put(*HALF[:1], b"whole", *HALF[1:]) and pool.get(*HALF) == b"whole"
    assert pool.run("rm", *HALF, "--force").returncode == 0


def test_nodes_are_counted_as_they_come_and_go(pool):
    moved = Moved(pool)
    beats = pool.metrics()["master_ping_requests_total"]
    assert pool.fleet.stop("n2") == 0
    assert moved.now() == {"unmount_segment_requests": 1}
    pool.fleet.again("n2")
    wait_until(lambda: pool.lent() == LENT * len(NODES), what="it lends again")
    wait_until(lambda: pool.metrics()["master_ping_requests_total"] > beats, what="beats")
    assert moved.now() == {"unmount_segment_requests": 1, "mount_segment_requests": 1}


def test_a_new_master_begins_to_count(pool):
    pool.fleet.running["master"].kill()
    pool.fleet.running["master"].wait()
    pool.fleet.again("master")
    wait_until(lambda: pool.lent() == LENT * len(NODES), what="all have come again")
    counted = pool.metrics()
    assert counted["master_remount_segment_requests_total"] == len(NODES)
    assert counted["master_mount_segment_requests_total"] == 0
    assert counted["master_put_end_requests_total"] == 0


def test_a_value_outlives_a_master_that_is_killed_in_its_move(pool):
    value = os.urandom(4 * MIB)
    assert pool.put("carried", value)
    target = next(name for name in NODES if name not in pool.owners("carried"))
    assert pool.run("move", "carried", "--to", target, "--no-wait").returncode == 0
    pool.fleet.running["master"].kill()
    pool.fleet.running["master"].wait()
    pool.fleet.again("master")
    wait_until(lambda: pool.lent() == LENT * len(NODES), what="all have come again")
    wait_until(lambda: pool.run("stat", "carried").returncode == 0, what="the value is known again")
    assert pool.get("carried") == value  # wherever the move was stopped
