# SPDX-License-Identifier: Apache-2.0
"""Faults of real processes and disks under the pool of values: a crowd of strangers at the master, files that are
damaged or removed under a running node, disks that say no, bits that flip in an owner's memory, a greedy tenant,
clocks that jump, and a node that is put in quarantine and comes back. What is read is right, or definitely not there."""
import collections
import json
import multiprocessing
import os
import pathlib
import random
import re
import resource
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

from cluster import YOLK, free_port, get, model_path, wait_until
from fleet import Fleet
from test_45_disk import small_disk  # noqa: F401, a fixture
from test_77_store import SECRET, OlderClient, column

pytestmark = pytest.mark.skipif(model_path() is None, reason="no model: `yolk model fetch smollm2`")

KEY_MISSING, BYTES_WRONG = b"no such key", b"every replica's bytes are wrong"
TIMED = ("--engine", "timed", "--pool-size", "16M", "--values-size", "16M")


class Pool:
    def __init__(self, fleet, *options, environment=None):
        self.fleet, self.master, self.http = fleet, f"127.0.0.1:{free_port()}", free_port()
        fleet.environment.update(YOLK_MASTER=self.master, **(environment or {}))
        fleet.start("master", "master", "--listen", self.master, "--metrics-listen", f"127.0.0.1:{self.http}",
                    "--hot-replicas", 0, *options)

    def node(self, name, *options):
        self.fleet.start(name, "node", "--name", name, "--master", self.master, *options)
        wait_until(lambda: self.run("put", f"ready/{name}", "--replace", stdin=b"?").returncode == 0 and
                   name in self.names().values(), 30, "a pool")

    def run(self, *args, stdin=b"", **more):
        return subprocess.run([str(YOLK), "store", *map(str, args)], input=stdin, capture_output=True, timeout=60,
                              env={**self.fleet.environment, **more})

    def names(self):
        return {node["address"]: node["name"] for node in json.loads(self.run("stat", "--json").stdout)["nodes"]}

    def owners(self, key):
        result = self.run("stat", key, "--json")
        return [self.names()[at] for at in json.loads(result.stdout)["replicas"]] if result.returncode == 0 else []

    def put(self, key, value, *args):
        result = self.run("put", key, *args, stdin=value)
        assert result.returncode == 0, result.stderr

    def forget(self):
        assert self.run("rm", "--all", "--force").returncode == 0

    def read(self, values, missing=KEY_MISSING):
        """How many of them are there, and right; the others say so, and nobody has died of it."""
        there = 0
        for key, value in values.items():
            result = self.run("get", key)
            assert result.stdout == value if result.returncode == 0 else missing in result.stderr, result.stderr
            there += result.returncode == 0
        assert all(process.poll() is None for process in self.fleet.running.values()), self.fleet.all_logs()
        return there

    def is_found_wrong(self, key, **options):
        """It is not read, and its owner looks itself and has it no longer."""
        result = self.run("get", key, **options)
        assert (result.returncode, result.stdout) == (2, b"") and BYTES_WRONG in result.stderr
        wait_until(lambda: KEY_MISSING in self.run("get", key, **options).stderr, 5, "its owner drops it")

    def pid(self, name):
        return self.fleet.running[name].pid

    def metric(self, name):
        lines = [line.rsplit(" ", 1) for line in get(self.http, "/metrics")[1].splitlines()]
        return next((int(words[1]) for words in lines if words[0] == name), None)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two nodes of memory alone."""
    with Fleet(tmp_path_factory.mktemp("faults"), SECRET) as fleet:
        made = Pool(fleet)
        for name in "ab":
            made.node(name, *TIMED)
        yield made


def values_of(seed, count, size=400_000):
    chance = random.Random(seed)
    return {f"{seed}/{i}": chance.randbytes(size + i) for i in range(count)}


# ---- strangers ----

STRANGERS = 5000


def look_up(master, over, times):
    """One lookup after the other, until told to end; the seconds that each took."""
    client, took = OlderClient(master), []
    while not over.is_set():
        start = time.monotonic()
        assert column(client.call("exist")[1]) == [3, 0]
        took.append(time.monotonic() - start)
        time.sleep(.001)
    times.put(sorted(took))


def test_five_thousand_strangers_hold_nobody_up(pool):
    """Of five one says nothing, one stops within its first frame, one sends noise, one half of a handshake, and one is
    a browser. Meanwhile somebody who was there before is answered, and somebody new."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < STRANGERS + 1000:
        pytest.skip(f"a process may open {limits[1]} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    pool.put("older/there", b"seven b")
    client = OlderClient(pool.master)
    host, port = pool.master.rsplit(":", 1)
    hello, chance = client.frames["hello"], random.Random(1)
    says = (b"", hello[:7], chance.randbytes(300), hello, b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n")
    over, times = multiprocessing.Event(), multiprocessing.Queue()
    asker = multiprocessing.Process(target=look_up, args=(pool.master, over, times), daemon=True)
    asker.start()
    files = len(os.listdir(f"/proc/{pool.pid('master')}/fd"))
    strangers = []
    try:
        for i in range(STRANGERS):
            strangers.append(socket.create_connection((host, int(port)), timeout=20))
            strangers[-1].sendall(says[i % len(says)])
        assert pool.run("get", "older/there").stdout == b"seven b"
        # Whoever has not proved itself in five seconds is gone; only then do we let go.
        wait_until(lambda: len(os.listdir(f"/proc/{pool.pid('master')}/fd")) <= files + 1, 30, "nobody left")
    finally:
        over.set()
        for stranger in strangers:
            stranger.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    took = times.get(timeout=10)
    asker.join(10)
    assert len(took) > 100 and took[-1] < 2, f"{len(took)} lookups, the slowest {took[-1]:.3f} s"
    assert took[len(took) // 2] < .05
    status = pathlib.Path(f"/proc/{pool.pid('master')}/status").read_text()
    assert int(status.split("VmHWM:")[1].split()[0]) < 128 << 10, "kB"
    assert client.ask("ping")[1] == 12, "who was there before has its connection"
    pool.forget()


# ---- memory ----

def flip(pid, needle):
    """A bit in each place of the memory that the process shares, which has these bytes."""
    flipped = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            span, may = line.split()[:2]
            if may != "rw-s":
                continue
            first, end = (int(word, 16) for word in span.split("-"))
            memory.seek(first)
            at = (memory.read(end - first) or b"").find(needle)
            if at >= 0:
                memory.seek(first + at)
                memory.write(bytes([needle[0] ^ 1]))
                flipped += 1
    return flipped


def flipped_at(pool, name, needle):
    try:
        return flip(pool.pid(name), needle)
    except PermissionError as error:
        pytest.skip(f"no look into another process's memory here ({error})")


@pytest.mark.parametrize("way", ["shared memory", "tcp"])
@pytest.mark.parametrize("size", [200, 500_000])
def test_flipped_bits_of_an_owner_are_never_read(pool, size, way):
    """Small values come with an answer, large ones are read where they lie."""
    options = {"MC_FORCE_TCP": "1"} if way == "tcp" else {}
    value = random.Random(size).randbytes(size)
    needle = value[100:140]
    pool.forget()
    pool.put("one", value)
    assert flipped_at(pool, pool.owners("one")[0], needle) == 1
    pool.is_found_wrong("one", **options)
    pool.put("one", value)
    assert pool.run("get", "one", **options).stdout == value, "a new value is not held against the old one"

    pool.put("two", value, "--replicas", 2)
    wait_until(lambda: len(pool.owners("two")) == 2, what="two replicas")
    assert pool.run("get", "two", **options).stdout == value
    assert flipped_at(pool, pool.owners("two")[0], needle) == 1
    for _ in range(4):
        result = pool.run("get", "two", **options)
        assert (result.returncode, result.stdout == value) == (0, True), result.stderr
    pool.forget()


def test_bits_that_flip_between_two_reads_of_one_reader_are_seen(pool):
    """It has read the first half, and verified it; then a bit of the second one flips, and one of the first."""
    value = random.Random(9).randbytes(1 << 20)
    pool.forget()
    pool.put("deep", value)
    with subprocess.Popen([str(YOLK), "store", "get", "deep", "--layers", "2"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=pool.fleet.environment, bufsize=0) as reader:
        first = b""
        while len(first) < 1000:
            first += reader.stdout.read(1000 - len(first))
        assert flipped_at(pool, pool.owners("deep")[0], value[600_000:600_040]) == 1
        rest, errors = reader.communicate(timeout=60)
        assert reader.returncode == 2 and b"wrong" in errors, errors
        assert first + rest == value[:1 << 19]
    wait_until(lambda: KEY_MISSING in pool.run("get", "deep").stderr, 5, "its owner drops it")
    pool.forget()


# ---- disks ----

DISK = ("--pool-size", "16M", "--values-size", "4M", "--ssd-size", "64M", "--values-ssd-size", "64M")


@pytest.fixture
def disk_pool(tmp_path):
    """One node whose disk has more than its memory; and the values that it has."""
    def make(data):
        made = Pool(fleet)
        made.node("d", *DISK, "--data-dir", data)
        values = values_of("old", 14)
        for key, value in values.items():
            made.put(key, value)
        return made, values

    with Fleet(tmp_path, SECRET) as fleet:
        yield make


def test_a_directory_that_is_removed_under_a_node_costs_values_only(tmp_path, disk_pool):
    data = tmp_path / "data"
    pool, old = disk_pool(data)
    shutil.rmtree(data)
    assert pool.read(old) == len(old), "its files are open, and still there"
    pool.forget()
    new = values_of("new", 16)  # the next file should begin among them
    for key, value in new.items():
        pool.put(key, value)
    assert pool.read(new) > 5, "what is in memory is there"
    assert "writing_rests" in pool.fleet.log("d")
    pool.fleet.running["d"].kill()
    pool.fleet.running["d"].wait()
    pool.fleet.again("d")
    wait_until(lambda: pool.run("put", "again", "--replace", stdin=b"?").returncode == 0, 30, "it is back")
    assert pool.read({**old, **new}) == 0


@pytest.mark.parametrize("how", ["read-only", "errors"])
def test_a_disk_that_says_no_costs_values_only(tmp_path, small_disk, disk_pool, how):  # noqa: F811
    """The file system stops taking writes at once, as after an error of its own; or reads fail, and give zeros, as
    the file below has lost its end."""
    pool, old = disk_pool(small_disk / "data")
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,abort", small_disk], check=True, capture_output=True)
    else:
        os.truncate(tmp_path / "disk.img", 1 << 20)
    there = pool.read(old)
    assert there == len(old) if how == "read-only" else 5 < there < len(old)
    pool.forget()
    new = values_of("new", 16)
    for key, value in new.items():
        pool.put(key, value)
    assert pool.read(new) > 5, "memory goes on without"
    pool.fleet.kill_all()  # before the file system is taken away


# ---- quarantine ----

def test_a_node_whose_disk_fails_gets_nothing_new_for_a_while(tmp_path):
    barred = 'yolk_store_node_quarantined{segment="bad"}'
    with Fleet(tmp_path, SECRET) as fleet:
        pool = Pool(fleet)
        pool.node("bad", *DISK, "--data-dir", tmp_path / "data")
        old = values_of("old", 14)
        for key, value in old.items():
            pool.put(key, value)
        pool.node("good", *TIMED, "--values-size", "64M")
        assert pool.metric(barred) == 0
        file = next((tmp_path / "data" / "values").glob("seg-*01.kv"))
        with file.open("r+b") as under:
            under.write(random.Random(2).randbytes(file.stat().st_size))
        there = pool.read(old)
        wait_until(lambda: pool.metric(barred) == 1, 12, "quarantine")
        since = time.monotonic()
        states = {n["name"]: n["state"] for n in json.loads(pool.run("stat", "--json").stdout)["nodes"]}
        assert states == {"bad": "quarantined", "good": "alive"}
        new = values_of("new", 20, 1000)
        for key, value in new.items():
            pool.put(key, value)
        assert time.monotonic() - since < 9, "too slow a machine to say anything"
        assert all(pool.owners(key) == ["good"] for key in new)
        assert pool.read(old) == there > 0, "it serves what it has"
        wait_until(lambda: pool.metric(barred) == 0, 20, "the end of it")
        assert time.monotonic() - since > 7
        assert pool.read(new) == len(new)
        pool.forget()

        def gets_some():
            values = values_of(f"late{time.monotonic()}", 10, 1000)
            for key, value in values.items():
                pool.put(key, value)
            return any(pool.owners(key) == ["bad"] for key in values)

        wait_until(gets_some, 30, "it gets values again")


# ---- clocks ----

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*real)(clockid_t, struct timespec *);
    static const volatile int64_t *ahead;
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (ahead == NULL) ahead = mmap(NULL, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK_AHEAD"), O_RDONLY), 0);
    int failed = real(clock, out);
    if (clock == CLOCK_REALTIME) out->tv_sec += *ahead;
    return failed;
}
"""


def test_clocks_that_jump_cost_nothing(tmp_path):
    """Those of all processes of the pool, by a day back and ten years ahead, while they run and while the master is
    away. It is the clock on the wall that jumps; the one that deadlines are on does not."""
    source, library, ahead = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "ahead"
    source.write_text(CLOCK)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler here ({error})")
    ahead.write_bytes(struct.pack("<q", 0))

    def jump(seconds):
        with open(ahead, "r+b") as file:
            file.write(struct.pack("<q", seconds))

    def year(name):
        return int(re.findall(r"ts=(\d+)-", pool.fleet.log(name))[-1])

    with Fleet(tmp_path, SECRET) as fleet:
        pool = Pool(fleet, environment={"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(ahead)})
        for name in "ab":
            pool.node(name, *TIMED)
        now, values = year("master"), values_of("jumps", 4, 100_000)
        for i, seconds in enumerate((-86_400, 10 * 366 * 86_400, -86_400)):
            for key, value in values.items():
                pool.put(key, value[i:], "--replace")
            jump(seconds)
            assert pool.read({key: value[i:] for key, value in values.items()}) == len(values)
            for key, value in values.items():
                pool.put(key, value[i + 1:], "--replace")
            fleet.running["master"].kill()
            fleet.running["master"].wait()
            fleet.again("master")
            wait_until(lambda: len(pool.names()) == 2 and pool.owners(key), 20, "they are together again")
            assert year("master") - now in ((10,) if i == 1 else (0, -1)), "the library is used"
            assert pool.read({key: value[i + 1:] for key, value in values.items()}) == len(values)


# ---- tenants ----

def test_a_greedy_tenant_costs_others_nothing_they_own(pool):
    """Red has four hands that put, list, ask and remove without pause; blue has what it had, and more, in time."""
    assert pool.run("quota", "red", "2M").returncode == 0 == pool.run("quota", "blue", "8M").returncode
    over, refused, done = threading.Event(), [], collections.Counter()

    def hammer(hand):
        chance = random.Random(hand)
        while not over.is_set():
            kind = ("put", "put", "ls", "rm", "get")[chance.randrange(5)]
            key = f"red/{chance.randrange(1000)}"
            args = {"put": ("put", key, "--replace"), "ls": ("ls", "--regex", "[0-9]+[37]$"),
                    "rm": ("rm", "--regex", f"{hand}$", "--force"), "get": ("get", key)}[kind]
            result = pool.run(*args, "--tenant", "red", stdin=chance.randbytes(200_000))
            done[kind] += 1
            if not (result.returncode == 0 or kind in ("put", "get") or b"being written" in result.stderr):
                refused.append((args, result.stderr))

    hands = [threading.Thread(target=hammer, args=(i,)) for i in range(4)]
    for hand in hands:
        hand.start()
    values = values_of("blue", 12, 400_000)
    try:
        for key, value in values.items():
            pool.put(key, value, "--tenant", "blue")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for key, value in values.items():
                result = pool.run("get", key, "--tenant", "blue")
                assert (result.returncode, result.stdout == value) == (0, True), result.stderr
    finally:
        over.set()
        for hand in hands:
            hand.join()
    assert not refused and min(done.values()) > 0, (refused, done)
    tenants = {t["name"]: t for t in json.loads(pool.run("stat", "--json").stdout)["tenants"]}
    assert tenants["blue"]["evicted_replicas"] == tenants["blue"]["refused_total"] == 0
    assert tenants["red"]["used_bytes"] <= 2 << 20
    for name in ("red", "blue"):
        assert pool.run("rm", "--all", "--force", "--tenant", name).returncode == 0
        assert pool.run("quota", name, "none").returncode == 0
