# SPDX-License-Identifier: Apache-2.0
"""`yolk store`: what a person puts into the pool is there, is shown, and goes when told to."""
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from cluster import YOLK, Cluster, free_port, model_path, run_yolk

SECRET = "store test"

pytestmark = pytest.mark.skipif(model_path() is None, reason="no model: `yolk model fetch smollm2`")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Runs `yolk store` against a cluster of its own."""
    master = f"127.0.0.1:{free_port()}"
    cluster = Cluster(tmp_path_factory.mktemp("store"), "--engine", "timed", "--pool-size", "64M",
                      "--values-size", "16M", "--master", master, "--secret", SECRET)
    environment = dict(os.environ, YOLK_MASTER=master, YOLK_SECRET=SECRET)

    def run(*args, stdin=b"", secret=SECRET):
        return subprocess.run([str(YOLK), "store", *args], input=stdin, capture_output=True,
                              timeout=60, env=dict(environment, YOLK_SECRET=secret))

    run.master = master
    run.cluster = cluster
    try:
        cluster.wait_ready()
        yield run
    finally:
        cluster.stop()


def one_line(result, *words):
    assert result.returncode == 2 and result.stdout == b""
    lines = result.stderr.decode().strip().splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]


def test_values_come_back_and_go(store, tmp_path):
    value = os.urandom(3_000_001)
    path = tmp_path / "value"
    path.write_bytes(value)
    assert store("put", "doc/1", str(path)).returncode == 0
    assert store("put", "doc/2", stdin=b"from a pipe").returncode == 0
    assert store("put", r"bin\x00\xff\\", stdin=b"x").returncode == 0
    assert store("get", "doc/1").stdout == value
    part = store("get", "doc/1", "--offset", "100001", "--length", "70000").stdout
    assert part == value[100001:170001]
    one_line(store("get", "doc/2", "--offset", "11"), "doc/2", "11 bytes")
    assert store("get", "doc/1", "--out", str(tmp_path / "copy")).stdout == b""
    assert (tmp_path / "copy").read_bytes() == value

    listed = json.loads(store("ls", "--json").stdout)
    assert {e["key"]: e["size"] for e in listed} == {
        "doc/1": len(value), "doc/2": 11, r"bin\x00\xff\\": 1}
    assert [e["key"] for e in json.loads(store("ls", "--json", "--regex", r"/2$").stdout)] == ["doc/2"]
    assert len(store("ls", "doc/").stdout.splitlines()) == 2
    assert len(store("ls", "--limit", "1").stdout.splitlines()) == 1
    where = json.loads(store("stat", "doc/1", "--json").stdout)
    assert where["size"] == len(value) and len(where["replicas"]) == 1
    stats = json.loads(store("top", "--json").stdout)
    assert stats["values"] == 3 and stats["space_total"] == 32 << 20
    assert sum(n["values"] for n in stats["nodes"]) == 3
    assert b"NODE" in store("stat").stdout

    one_line(store("put", "doc/2", stdin=b"other"), "doc/2", "already", "--replace")
    assert store("put", "doc/2", "--replace", "--pin", stdin=b"other").returncode == 0
    assert store("get", "doc/2").stdout == b"other"
    assert [e["state"] for e in json.loads(store("ls", "doc/2", "--json").stdout)] == ["pinned"]
    one_line(store("rm", "doc/1"), "doc/1", "leased")
    assert store("rm", "doc/1", r"bin\x00\xff\\", "--force").returncode == 0
    one_line(store("get", "doc/1"), "doc/1", "no such key")
    assert store("put", "doc/3", stdin=b"x").returncode == 0
    one_line(store("rm", "", "doc/3"), "1 to 1024 bytes")
    one_line(store("get", "doc/3"), "doc/3", "no such key")
    assert store("rm", "--regex", "^doc", "--force").stdout == b"1 removed\n"
    assert store("ls").stdout == b""


def eventually(condition, timeout=20):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_older_readers_are_served_by_an_owner(store):
    """A reader of before pins what it is told about; the first that only looked is told whether it may believe what
    it remembers, and pins nothing."""
    not_found, large = 3, os.urandom(100_000)
    assert store("put", "older/small", "--replicas", "2", stdin=b"seven b").returncode == 0
    assert store("put", "older/large", "--replicas", "2", stdin=large).returncode == 0
    where = json.loads(store("stat", "older/large", "--json").stdout)["replicas"][0]
    eventually(lambda: all(len(json.loads(store("stat", key, "--json").stdout)["replicas"]) == 2
                           for key in ("older/small", "older/large")))
    reader = OlderClient(where, "older_reader.txt")
    pinned = reader.call("acquire")
    assert pinned[1] != 0 and pinned[2] != 0 and pinned[3] != 0 and pinned[4] > 0 and ":" in pinned[5]
    assert [address != 0 for address in column(pinned[6], 8)] == [True, True, False]
    assert column(pinned[8], 8) == [7, len(large), 0] and pinned[10] == 65536
    assert len(column(pinned[9], 8)) == 3, "one piece and two"
    assert column(pinned[11]) == [7, 0, 0] and pinned[12] == b"seven b"
    alone = reader.call("acquire_large")
    assert alone[1] not in (0, pinned[1]) and alone[6] == pinned[6][8:16] and 12 not in alone

    # An owner vouches while it is in touch with its master, and has had no short-lived one: no test before this kills it.
    eventually(lambda: reader.call("look").get(13) is True)
    looked = reader.call("look")
    assert looked.get(1, 0) == 0
    assert all(looked[field] == pinned[field] for field in (2, 3, 5, 6, 7, 8, 9, 10, 11, 12))

    for pin in (pinned[1], alone[1]):
        assert reader.with_pin("renew", pin) == {}
        assert reader.with_pin("release", pin) == {}
        assert reader.with_pin("renew", pin) == -not_found
    assert store("rm", "older/small", "older/large", "--force").returncode == 0
    assert column(reader.call("look")[6], 8) == [0, 0, 0]


def test_replicas_are_made_and_a_node_drains(store):
    def places(key):
        return len(json.loads(store("stat", key, "--json").stdout)["replicas"])

    def held():
        return {n["name"]: n["values"] for n in json.loads(store("top", "--json").stdout)["nodes"]}

    assert store("put", "twice", "--replicas", "2", stdin=bytes(200_000)).returncode == 0
    assert store("put", "once", stdin=b"once").returncode == 0
    eventually(lambda: places("twice") == 2)
    assert store("replicas", "twice", "1").returncode == 0
    eventually(lambda: places("twice") == 1)
    result = store("drain", "prefill-0")
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == b"0 values left"
    assert held() == {"prefill-0": 0, "decode-0": 2}
    assert store("get", "once").stdout == b"once"
    assert store("drain", "prefill-0", "--undo").returncode == 0
    one_line(store("drain", "nobody"), "nobody")
    one_line(store("replicas", "once", "9"), "9")
    assert store("rm", "--all", "--force").returncode == 0


def test_tenants_are_apart(store):
    red = ("--tenant", "red")
    assert store("put", "same", stdin=b"ours").returncode == 0
    assert store("put", "same", *red, stdin=b"theirs").returncode == 0
    assert store("get", "same").stdout == b"ours"
    assert store("get", "same", *red).stdout == b"theirs"
    one_line(store("get", "same", "--tenant", "blue"), "same", "no such key")
    listed = json.loads(store("ls", "--json", *red).stdout)
    assert [(e["key"], e["size"]) for e in listed] == [("same", 6)]
    assert b"theirs" not in store("get", "same", "--tenant", "default").stdout

    # Over its quota a tenant loses its own; what can never fit is refused; nobody else notices.
    assert store("quota", "red", "1M").returncode == 0
    half = os.urandom(600_000)
    for name in ("big/1", "big/2", "big/3"):
        assert store("put", name, *red, stdin=half).returncode == 0
    eventually(lambda: len(store("ls", "big/", *red).stdout.splitlines()) == 1)
    one_line(store("put", "big/4", *red, stdin=2 * half), "big/4", "quota", "red")
    stats = json.loads(store("stat", "--json").stdout)
    tenants = {t["name"]: t for t in stats["tenants"]}
    assert tenants["red"]["used_bytes"] <= tenants["red"]["quota_bytes"] == 1 << 20
    assert tenants["red"]["refused_total"] == stats["refused_quota_total"] == 1
    assert tenants["red"]["evicted_replicas"] >= 2 and tenants["default"]["evicted_replicas"] == 0
    assert b"red" in store("quota").stdout and b"default" not in store("quota", "red").stdout
    one_line(store("quota", "red", "lots"), "lots", "512M")
    one_line(store("quota", "_red", "1M"), "_red")
    one_line(store("ls", "--tenant", "a/b"), "a/b")

    assert store("rm", "--all", "--force", *red).returncode == 0
    assert store("get", "same").stdout == b"ours"
    assert store("ls", *red).stdout == b""
    assert store("quota", "red", "none").returncode == 0
    assert store("rm", "same", "--force").returncode == 0


def test_quotas_survive_the_master(store):
    """Its nodes remember what was said while it ran."""
    def pool():
        return json.loads(store("stat", "--json").stdout or "{}")

    def quotas():
        return {t["name"]: (t["quota_bytes"], t["quota_replicas"]) for t in pool()["tenants"]}

    def heard():
        stats = pool()
        return [stats["uptime_ms"] - node["silent_ms"] for node in stats["nodes"]]

    assert store("quota", "green", "3M/7").returncode == 0
    assert store("quota", "default", "12M").returncode == 0
    assert store("put", "of/green", "--tenant", "green", stdin=b"x").returncode == 0
    for _ in range(2):  # the answer to one beat has arrived when the next one comes
        before = heard()
        eventually(lambda: all(now > then + 100 for now, then in zip(heard(), before)))
    term = pool()["term"]
    os.kill(store.cluster.children("master")[0], signal.SIGKILL)
    eventually(lambda: pool().get("term", term) != term and len(pool().get("nodes", [])) == 2)
    assert quotas()["green"] == (3 << 20, 7) and quotas()["default"] == (12 << 20, 0)
    eventually(lambda: store("get", "of/green", "--tenant", "green").stdout == b"x")
    assert store("rm", "--all", "--force", "--tenant", "green").returncode == 0
    for name in ("green", "default"):
        assert store("quota", name, "none").returncode == 0
    eventually(lambda: "green" not in quotas())


def test_a_node_that_is_stopped_hands_its_values_over(store):
    """They are readable before, while and after it is gone; there is no disk here that keeps them."""
    def held():
        return {n["name"]: n["values"] for n in json.loads(store("top", "--json").stdout)["nodes"]}

    value = os.urandom(3_000_001)
    assert store("put", "moves", "--pin", stdin=value).returncode == 0
    stopped = next(name for name, values in held().items() if values == 1)
    other = next(name for name in held() if name != stopped)
    pid = store.cluster.children(stopped)[0]
    os.kill(pid, signal.SIGTERM)
    while held().get(stopped) == 1:  # until the master has heard of the copy, or of the good-bye
        assert store("get", "moves").stdout == value
    assert held()[other] == 1
    assert store("get", "moves").stdout == value
    eventually(lambda: store.cluster.children(stopped) not in ([], [pid]) and stopped in held())
    assert store("get", "moves").stdout == value
    assert store("rm", "--all", "--force").returncode == 0


@contextlib.contextmanager
def stopped(pid, seconds=0.3):
    """Stops a process; it goes on by itself, whatever becomes of the test."""
    os.kill(pid, signal.SIGSTOP)
    waker = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
    waker.start()
    try:
        yield
    finally:
        waker.join()


@pytest.mark.parametrize("who", ["prefill-0", "decode-0", "master"])
def test_a_stopped_process_delays_and_loses_nothing(store, who):
    """Values of both nodes are read, replaced and put while one process stands still for less than
    the patience of a call."""
    values = {f"still/{i}": os.urandom(300_000) for i in range(6)}
    for key, value in values.items():
        assert store("put", key, stdin=value).returncode == 0
    pid = store.cluster.children(who)[0]
    with stopped(pid):
        for key in list(values)[:2]:
            assert store("get", key).stdout == values[key]
    with stopped(pid):
        for key in list(values)[2:4]:
            values[key] = os.urandom(400_000)
            assert store("put", key, "--replace", stdin=values[key]).returncode == 0
            assert store("get", key).stdout == values[key]
    with stopped(pid):
        values["still/new"] = os.urandom(500_000)
        assert store("put", "still/new", stdin=values["still/new"]).returncode == 0
    for key, value in values.items():
        assert store("get", key).stdout == value
    assert store("rm", "--all", "--force").returncode == 0


def test_a_stopped_writer_leaves_one_whole_value(store):
    """It stands still somewhere between its start and its end while another one replaces the value
    under its hands; what it is told, and what is there, agree."""
    for delay in (0.005, 0.02, 0.05):
        mine, theirs = os.urandom(2_000_000), os.urandom(1_500_000)
        writer = subprocess.Popen([str(YOLK), "store", "put", "hand", "--replace"],
                                  stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  env=dict(os.environ, YOLK_MASTER=store.master, YOLK_SECRET=SECRET))
        writer.stdin.write(mine)
        writer.stdin.close()
        time.sleep(delay)
        with stopped(writer.pid):
            other = store("put", "hand", "--replace", stdin=theirs)
        told = writer.wait(timeout=60)
        got = store("get", "hand").stdout
        assert got in [value for value, code in ((mine, told), (theirs, other.returncode)) if code == 0]
        assert other.returncode == 0 or told == 0
    assert store("rm", "--all", "--force").returncode == 0


class Relay:
    """Stands between one client and the master; `pause` is called before a frame of the client goes on, with how
    many did before."""

    def __init__(self, master, pause):
        self.master, self.pause = master, pause
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        host, port = self.master.rsplit(":", 1)
        client, _ = self.listener.accept()
        with client, socket.create_connection((host, int(port))) as server:
            threading.Thread(target=self.back, args=(server, client), daemon=True).start()
            frames = 0
            # Behind the two of the handshake checksums follow the length (docs/internals/rpc-wire.md).
            while head := client.recv(4 if frames < 2 else 16, socket.MSG_WAITALL):
                frame = client.recv(struct.unpack_from("<I", head)[0], socket.MSG_WAITALL)
                self.pause(frames)
                frames += 1
                server.sendall(head + frame)

    @staticmethod
    def back(server, client):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


@pytest.mark.parametrize("sizes,options", [
    ((200_000, 90_000), ()), ((90_000, 200_000), ("--offset", "1000", "--length", "99000")),
    ((200_000, 500), ("--offset", "1000"))])
def test_a_value_that_is_replaced_while_it_is_read_is_read_whole(store, sizes, options):
    """By a longer or shorter one, after the reader has asked how long it is: its third question."""
    old, new = (os.urandom(size) for size in sizes)
    assert store("put", "race", "--replace", stdin=old).returncode == 0

    def replace(frames):
        if frames == 3:  # after two of the handshake
            assert store("put", "race", "--replace", stdin=new).returncode == 0

    result = store("get", "race", *options, "--master", Relay(store.master, replace).address)
    first = 1000 if options else 0
    if first >= len(new):
        one_line(result, "race", "500 bytes")
    else:
        assert result.returncode == 0, result.stderr
        assert result.stdout == (new[1000:100_000] if len(options) == 4 else new[first:])
    assert store("rm", "race", "--force").returncode == 0


def test_wrong_use_is_one_precise_line(store):
    one_line(store("get", "nothing"), "nothing", "no such key")
    one_line(store("get"), "KEY")
    one_line(store("frob"), "put", "top")
    one_line(store("put", "k", "/nowhere/file"), "/nowhere/file")
    one_line(store("put", "k"), "k", "one byte")
    one_line(store("put", ""), "1 to 1024")
    one_line(store("put", r"\q", stdin=b"x"), "backslash")
    one_line(store("ls", "--regex", "("), "parenthesis")
    one_line(store("rm"), "KEY", "--all")
    one_line(store("put", "big", stdin=bytes(17 << 20)), "big")
    one_line(store("ls", secret="wrong"), "--secret")


def test_nobody_answers():
    result = run_yolk("store", "ls", "--master", f"127.0.0.1:{free_port()}", timeout=30)
    assert result.returncode == 2 and "is it up" in result.stderr


def msgpack(data, at=0):
    """One msgpack value of the kinds that frames and messages have, and where the next one starts."""
    first = data[at]
    at += 1
    if first <= 0x7f or first >= 0xe0:
        return first if first <= 0x7f else first - 256, at
    if first & 0xf0 == 0x80:
        result = {}
        for _ in range(first & 15):
            key, at = msgpack(data, at)
            result[key], at = msgpack(data, at)
        return result, at
    if first & 0xf0 == 0x90:
        items = []
        for _ in range(first & 15):
            item, at = msgpack(data, at)
            items.append(item)
        return items, at
    if first & 0xe0 == 0xa0:
        return data[at:at + (first & 31)].decode(), at + (first & 31)
    if first in (0xc2, 0xc3):
        return first == 0xc3, at
    for lead, form in ((0xcc, ">B"), (0xcd, ">H"), (0xce, ">I"), (0xcf, ">Q"), (0xd0, ">b"), (0xd1, ">h")):
        if first == lead:
            return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    form = {0xc4: ">B", 0xc5: ">H", 0xc6: ">I", 0xd9: ">B"}[first]
    size = struct.unpack_from(form, data, at)[0]
    at += struct.calcsize(form)
    body = data[at:at + size]
    return body.decode() if first == 0xd9 else body, at + size


class OlderClient:
    """Sends the bytes that a client of an older commit sent, and reads answers as that one did: by the numbers of
    the fields it knew."""

    def __init__(self, server, corpus="older_client.txt"):
        lines = pathlib.Path(__file__).parent.parent.joinpath("corpus/store_session", corpus).read_text()
        self.frames = {name: bytes.fromhex(text) for name, text in
                       (line.split() for line in lines.splitlines() if not line.startswith("#"))}
        host, port = server.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        challenge = self.ask("hello")
        assert challenge[1] == 2 and challenge[2] == challenge[3] == 1, "version 1 is chosen"
        hello = msgpack(self.frames["hello"][4:])[0]
        text = b"yolk-rpc-client\0" + hello[5] + challenge[5] + struct.pack("<III", 1, 1, 1)
        proof = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
        self.frames["proof"] = self.frames["proof"][:-32] + proof
        assert self.ask("proof")[1] == 4

    def ask(self, name):
        self.socket.sendall(self.frames[name])
        size = struct.unpack("<I", self.read(4))[0]
        return msgpack(self.read(size))[0]

    def read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "the server hung up"
            data += part
        return data

    def call(self, name):
        """The body of the reply, or the status of a refusal."""
        frame = self.ask(name)
        if frame[1] == 10:
            return frame[10]
        assert frame[1] == 9, frame
        return msgpack(frame[12])[0] if 12 in frame else {}

    def with_pin(self, name, pin):
        """A frame about a pin: of it the last eight bytes."""
        self.frames[name] = self.frames[name][:-8] + struct.pack(">Q", pin)
        return self.call(name)


def column(body, size=4):
    return [int.from_bytes(body[i:i + size], "little") for i in range(0, len(body), size)]


def test_an_older_client_is_served(store):
    not_found, busy = 3, 7
    assert store("put", "older/there", stdin=b"seven b").returncode == 0
    client = OlderClient(store.master)
    assert column(client.call("exist")[1]) == [not_found, 0]
    places = client.call("get")
    assert column(places[1]) == [0] and column(places[2], 8) == [7] and column(places[4]) == [1]
    assert column(places[5]) == [0] and column(places[6], 8)[0] != 0
    (node,) = places[7]
    assert ":" in node[1] and node[2] and node[3] != 0
    tickets = client.call("put_start")
    assert column(tickets[1]) == [0, 0] and tickets[9] > 0 and len(column(tickets[6], 8)) == 2
    again = client.call("put_start_again")
    assert again[3] == tickets[3] and again[6] == tickets[6], "the same tickets again"
    assert column(client.call("get_mine")[1]) == [busy, busy]
    assert client.call("put_revoke") == -not_found, "no such put"
    assert column(client.call("remove")[1]) == [busy], "it has a lease of its own"
    assert column(client.call("remove_force")[1]) == [0]
    assert client.call("beat") == -not_found and client.call("put_end") == -not_found
    assert client.ask("ping")[1] == 12


def test_two_thousand_clients_at_once(store):
    """All are connected before the first one asks; all ask before the first answer is read."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 4096:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    assert store("put", "older/there", stdin=b"seven b").returncode == 0
    clients = [OlderClient(store.master) for _ in range(2000)]
    for client in clients:
        client.socket.sendall(client.frames["exist"])
    assert store("get", "older/there").stdout == b"seven b"
    for client in clients:
        frame = msgpack(client.read(struct.unpack("<I", client.read(4))[0]))[0]
        assert frame[1] == 9 and column(msgpack(frame[12])[0][1])[1] == 0
        client.socket.close()
    assert store("get", "older/there").stdout == b"seven b"
    assert store("rm", "older/there", "--force").returncode == 0
