#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real pool of values under processes that are killed, stopped, drained and replaced.

    tests/soak_store.py [--seconds 300] [--seed N] [--clients 4]

A master behind a gate, three nodes, and `yolk store` as the clients: each has keys of its own, puts,
replaces (at once or layer by layer), gets and removes them, and some of its commands are killed or
stopped on the way, at any instant. Meanwhile masters and nodes get SIGKILL, SIGSTOP or SIGTERM,
nodes are drained, and now and then a master is stopped, another one takes its place behind the
gate, and the first one goes on, with the connections that it had. Whatever is read must be a value
that may be there: the one acknowledged last, or one whose put has had no answer since; and a key
may only be absent if it was removed, or if every node that had it died. Exits 1, and says why, if not.

An absent key is asked for again for a while: a new master says so too when it has not heard that a
node is there. `make soak` runs this; the seed decides what is done, not when exactly.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "e2e"))
from cluster import YOLK, free_port, wait_until  # noqa: E402
from fleet import Fleet  # noqa: E402

NODES = ("n0", "n1", "n2")
KEYS = 4                 # of a client
SIZE_MAX = 400_000
ABSENT_S = 45            # so long an absent key is asked for again, and a question that is
                         # refused: more than the 30 s after which a dead writer is in nobody's way
MISSING = b"no such key"


class Gate:
    """Where the nodes and clients look for the master: forwards to the present one, and keeps what is connected."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.port = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.port), timeout=1)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.forward, args=pair, daemon=True).start()

    @staticmethod
    def forward(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Key:
    def __init__(self, name):
        self.name = name
        self.may_be = {None}    # values, None: absent
        self.unheard = set()    # of puts without an answer, since the last one that had one
        self.places = None      # the nodes that have what was acknowledged; None: not known
        self.lock = threading.Lock()


class Soak:
    def __init__(self, fleet, seed):
        self.fleet, self.seed = fleet, seed
        self.gate = Gate()
        self.environment = dict(fleet.environment, YOLK_MASTER=self.gate.address)
        self.over = threading.Event()
        self.counts = collections.Counter()
        self.wrong = []
        self.lock = threading.Lock()
        self.masters = 0
        self.deaths = 0         # of nodes, and other reasons why values are not where they were
        self.keys = []
        self.names = {}         # of the nodes, by address

    # ---- the pool ----

    def start(self):
        self.master_start()
        for name in NODES:
            address = f"127.0.0.1:{free_port()}"
            self.names[address] = name
            self.fleet.start(name, "node", "--name", name, "--listen", address, "--master",
                             self.gate.address, "--engine", "timed", "--pool-size", "16M", "--values-size", "64M", "--handover-timeout", "5s")
        wait_until(lambda: self.command("put", "ready", "--replace", stdin=b"?")[0] == 0, 60, "a pool")
        wait_until(lambda: len(self.nodes()) == len(NODES), 60, "all nodes")

    def master_start(self):
        """Its predecessor, if it lives, keeps its connections, and gets no others."""
        self.masters += 1
        self.master, port = f"master-{self.masters}", free_port()
        self.fleet.start(self.master, "master", "--listen", f"127.0.0.1:{port}", "--hot-replicas", 0)
        self.gate.port = port

    def nodes(self):
        code, out, _ = self.command("top", "--json")
        return json.loads(out)["nodes"] if code == 0 else []

    # ---- clients ----

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def complain(self, what):
        self.wrong.append(f"{time.strftime('%H:%M:%S')} {what}")

    def command(self, *args, stdin=b"", rng=None):
        """(exit code, output, errors); with `rng` it may be killed (code -9) or stopped for a while."""
        pipe = subprocess.PIPE
        with subprocess.Popen([str(YOLK), "store", *map(str, args)], stdin=pipe, stdout=pipe, stderr=pipe,
                              env=self.environment) as process:
            if rng is not None and rng.random() < .5:
                number = rng.choice([signal.SIGKILL, signal.SIGSTOP])
                threading.Thread(target=self.hurt, args=(process, number, rng.uniform(0, .05),
                                                         rng.uniform(.1, 2))).start()
            out, errors = process.communicate(stdin)
        return process.returncode, out, errors

    def hurt(self, process, number, after, seconds):
        time.sleep(after)
        if process.poll() is None:
            process.send_signal(number)
            self.count(f"client {number.name}")
            if number == signal.SIGSTOP:
                time.sleep(seconds)
                process.send_signal(signal.SIGCONT)

    def locate(self, key, deaths):
        """Which nodes have it, unless somebody died since."""
        code, out, _ = self.command("stat", key.name, "--json")
        places = {self.names[address] for address in json.loads(out)["replicas"]} if code == 0 else set()
        with key.lock:
            key.places = places if places and deaths == self.deaths else None
            if deaths != self.deaths:
                key.may_be.add(None)

    def put(self, key, rng):
        deaths = self.deaths
        size = rng.choice([1, 5000, 65536, 65537, rng.randrange(1, SIZE_MAX)])
        value = key.name.encode() + b"\0" + rng.randbytes(size)
        options = ["--replicas", "2"] if rng.random() < .5 else []
        if rng.random() < .4:
            options += ["--layers", min(len(value), 5), "--size", len(value)]
        with key.lock:
            key.may_be.add(value)
            key.unheard.add(value)
        code, _, errors = self.command("put", key.name, "--replace", *options, stdin=value, rng=rng)
        self.count("put" if code == 0 else "put killed" if code == -9 else "put refused")
        if code == 0:
            with key.lock:
                key.may_be, key.unheard, key.places = {value}, set(), None
                if deaths != self.deaths:
                    key.may_be.add(None)
            self.locate(key, deaths)
        elif code not in (-9, 2):
            self.complain(f"put {key.name} exits {code}: {errors[-300:]!r}")

    def remove(self, key, rng):
        code, _, errors = self.command("rm", key.name, "--force", rng=rng)
        with key.lock:
            key.may_be.add(None)
            if code == 0:
                key.may_be = {None} | key.unheard
        self.count("rm" if code == 0 else "rm not told")
        if code not in (0, 2, -9):
            self.complain(f"rm {key.name} exits {code}: {errors[-300:]!r}")

    def get(self, key, rng, patience=ABSENT_S):
        end = time.monotonic() + patience
        options = ["--layers", 3] if rng.random() < .3 else []
        while True:
            code, out, errors = self.command("get", key.name, *options)
            with key.lock:
                if code == 0 and out not in key.may_be:
                    self.complain(f"get {key.name}: {len(out)} bytes {out[:60]!r} that may not be there")
                if code == 0 or (MISSING in errors and None in key.may_be):
                    self.count("get" if code == 0 else "get absent")
                    return True
            if code not in (0, 2):
                self.complain(f"get {key.name} exits {code}: {errors[-300:]!r}")
            self.count("get asked again")
            if time.monotonic() > end:
                self.complain(f"get {key.name}: {errors[-300:]!r} for {patience} s, which nodes {key.places} had")
                return False
            time.sleep(.2)

    def client(self, keys, number):
        try:
            self.work(keys, random.Random(f"{self.seed} client {number}"))
        except Exception as error:  # what else may happen is what is looked for
            self.complain(f"client {number}: {error!r}")

    def work(self, keys, rng):
        while not self.over.is_set() and not self.wrong:
            key, dice = rng.choice(keys), rng.random()
            if dice < .4:
                self.put(key, rng)
            elif dice < .5:
                self.remove(key, rng)
            else:
                self.get(key, rng)

    # ---- faults ----

    def moved(self, name=None):
        """The node has died, or (None) values go elsewhere: what may be gone now."""
        self.deaths += 1
        for key in self.keys:
            with key.lock:
                if key.places is not None and name is not None:
                    key.places.discard(name)
                if name is not None and not key.places:
                    key.may_be.add(None)
                if name is None:
                    key.places = None

    def fault(self, rng):
        name = rng.choice(NODES)
        kind = rng.choice(["master kill", "master stop", "master twice", "node stop", "node kill", "node end", "drain"])
        self.count(kind)
        if kind == "master kill":
            self.fleet.running[self.master].kill()
            self.fleet.running.pop(self.master).wait()
            time.sleep(rng.uniform(0, 2))
            self.master_start()
        elif kind == "master stop":
            self.stopped(self.master, rng.uniform(.1, 4))
        elif kind == "master twice":
            old = self.master
            self.fleet.signal(old, signal.SIGSTOP)
            self.master_start()
            time.sleep(rng.uniform(.1, 6))
            self.fleet.signal(old, signal.SIGCONT)
            time.sleep(rng.uniform(1, 5))
            self.fleet.running[old].kill()
            self.fleet.running.pop(old).wait()
        elif kind == "node stop":
            self.stopped(name, rng.uniform(.1, 4))
        elif kind == "drain":
            self.moved()
            self.command("drain", name)
            self.moved()
            self.command("drain", name, "--undo")
        else:
            process = self.fleet.running.pop(name)
            self.moved(name if kind == "node kill" else None)
            process.send_signal(signal.SIGKILL if kind == "node kill" else signal.SIGTERM)
            process.wait(60)
            self.moved(name)
            time.sleep(rng.uniform(0, 2))
            self.fleet.again(name)
            wait_until(lambda: len(self.nodes()) == len(NODES), 60, "the node again")

    def stopped(self, name, seconds):
        self.fleet.signal(name, signal.SIGSTOP)
        time.sleep(seconds)
        self.fleet.signal(name, signal.SIGCONT)

    def run(self, seconds, clients):
        rng = random.Random(f"{self.seed} faults")
        threads = []
        for number in range(clients):
            keys = [Key(f"{number}/{i}") for i in range(KEYS)]
            self.keys += keys
            threads.append(threading.Thread(target=self.client, args=(keys, number), daemon=True))
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            time.sleep(rng.uniform(.5, 6))
            self.fault(rng)
        self.over.set()
        for thread in threads:
            thread.join(120)
            if thread.is_alive():
                self.complain("a command is stuck")
        for key in self.keys:
            if not self.wrong:
                self.get(key, rng, 60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Fleet(folder) as fleet:
        soak = Soak(fleet, args.seed)
        soak.start()
        soak.run(args.seconds, args.clients)
        print(f"seed {args.seed}: " + ", ".join(f"{n} {what}" for what, n in sorted(soak.counts.items())), flush=True)
        if soak.wrong:
            print(fleet.all_logs(12))
            print("\n".join(soak.wrong[:10]))
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
