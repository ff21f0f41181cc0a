#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mooncake's store beside ours: same machine, same run, same keys and sizes.

    bench/peers/mooncake_store.py [--yolk build/bin/yolk] [--venv DIR] [--rounds 3] [--seconds 1]
                                  [--only PART] [--json FILE]

Installs PyPI's `mooncake-transfer-engine-non-cuda` into a scratch environment (a temporary one that
is removed, or DIR, which is kept and used again), starts its `mooncake_master` and processes of its
Python client, and between their runs, in turns, the row of the same shape of `yolk bench store`. A
figure is the median of the rounds; where a row says so, of the best number of clients.

What is the same: keys of 40 bytes, keys a call, bytes a value, values a call, loopback, one host.
What is not: its client is Python over C++, ours C; its threads wait for each other in the
interpreter, which is what its users have; its gets are not verified, ours are. Its puts of
metadata without data have no public call and are left out.

Exits with 77 and the reason if the package cannot be had or does not run here. Python 3 and nothing
else.
"""
import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from mooncake import PACKAGE, Unavailable, environment, install, last_line

QUIET = {"GLOG_minloglevel": "3"}
KEYS = 50_000
BATCH = 128
VALUES = 16
PATIENCE_S = 30

# our row, what the peer's client does, clients to try, unit
ROWS = [
    ("master_empty_resident", None, (), "MB"),
    ("master_start_to_accepting", None, (), "ms"),
    ("lookup_one_key_8_threads", "exist-threads", (1,), "1/s"),
    ("lookup_one_key_8_processes", "exist", (8,), "1/s"),
    ("exist_batch_128", "exist-128", (1, 2, 4, 8), "1/s"),
    ("get_batch_128", "replicas-128", (1, 2, 4, 8), "1/s"),
    ("get_tcp_64KiB", "get-65536", (1,), "MiB/s"),
    ("get_tcp_1MiB", "get-1048576", (1,), "MiB/s"),
    ("get_tcp_4MiB", "get-4194304", (1,), "MiB/s"),
]

# Runs in the peer's environment: python -c CLIENT master what seconds, and the three sizes
CLIENT = r'''
import os, random, sys, threading, time
from mooncake.store import MooncakeDistributedStore
master, what, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
lends = what in ("own", "fill")
store = MooncakeDistributedStore()
host = "127.0.0.1:%d" % (20000 + os.getpid() % 20000)
rc = store.setup(host, "P2PHANDSHAKE", (768 << 20) if lends else 0, 256 << 20, "tcp", "", master)
if rc != 0:
    sys.exit("setup: %s" % rc)
KEYS, BATCH, VALUES = map(int, sys.argv[4:7])
def key(space, i):
    return "bench/%08x/blocks/%016x/v" % (space, i)
def count(step):
    """Times of step in the seconds, behind a tenth of them."""
    end = time.monotonic() + seconds / 10
    while time.monotonic() < end:
        step()
    n, start = 0, time.monotonic()
    while time.monotonic() < start + seconds:
        step()
        n += 1
    return n / (time.monotonic() - start)
def any_keys():
    return [key(0, random.randrange(KEYS)) for _ in range(BATCH)]
if what == "own":
    for i in range(KEYS):
        if store.put(key(0, i), b"x") != 0:
            sys.exit("put")
    for size in (65536, 1048576, 4194304):
        value = os.urandom(size)
        for i in range(max(VALUES, (64 << 20) // size)):
            if store.put(key(size, i), value) != 0:
                sys.exit("put")
    print("ready", flush=True)
    time.sleep(86400)
elif what == "exist":
    print(count(lambda: store.is_exist(key(0, random.randrange(KEYS))) == 1 or sys.exit("gone")))
elif what == "exist-128":
    print(BATCH * count(lambda: store.batch_is_exist(any_keys())))
elif what == "replicas-128":
    print(BATCH * count(lambda: store.batch_get_replica_desc(any_keys())))
elif what == "exist-threads":
    rates = []
    def run():
        rates.append(count(lambda: store.is_exist(key(0, random.randrange(KEYS)))))
    threads = [threading.Thread(target=run) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    print(sum(rates))
else:
    import ctypes
    size = int(what.split("-")[1])
    total = max(VALUES, (64 << 20) // size)
    memory = ctypes.create_string_buffer(VALUES * size)
    at = ctypes.addressof(memory)
    if store.register_buffer(at, VALUES * size) != 0:
        sys.exit("register_buffer")
    turn = [0]
    def get():
        first = turn[0] % (total // VALUES) * VALUES
        turn[0] += 1
        got = store.batch_get_into([key(size, first + i) for i in range(VALUES)],
                                   [at + i * size for i in range(VALUES)], [size] * VALUES)
        if any(n != size for n in got):
            sys.exit("get: %s" % got[:3])
    print(VALUES * size / 1048576 * count(get))
os._exit(0)
'''


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(arguments):
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env=environment(**QUIET))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def master_running(binary):
    """Its address, and how many milliseconds it took to accept."""
    port = free_port()
    begin = time.monotonic()
    with started([binary, f"-rpc_port={port}", f"-metrics_port={free_port()}"]) as process:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > begin + PATIENCE_S:
                raise Unavailable("mooncake_master does not accept connections")
            time.sleep(0.0005)
        yield process, f"127.0.0.1:{port}", (time.monotonic() - begin) * 1e3


def client(python, master, what, seconds):
    return [python, "-c", CLIENT, master, what, str(seconds), str(KEYS), str(BATCH), str(VALUES)]


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024 / 1e6


def empty_master(binary):
    with master_running(binary) as (process, _, ms):
        time.sleep(0.2)
        return resident_mb(process.pid), ms


def peer_rate(python, master, what, clients, seconds):
    """Of all clients together."""
    arguments = client(python, master, what, seconds)
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  env=environment(**QUIET)) for _ in range(clients)]
    total = 0
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE_S + 10 * seconds)
        if process.returncode != 0 or not out.strip():
            raise Unavailable(f"its client, {what}: {last_line(err)}")
        total += float(out.split()[-1])
    return total


def ours(yolk, row):
    """What our bench says of the row, and its report."""
    got = subprocess.run([yolk, "bench", "store", row, "--json"], capture_output=True, text=True)
    if got.returncode != 0:
        sys.exit(f"yolk bench store {row}: {last_line(got.stderr)}")
    report = json.loads(got.stdout)
    return next(r["value"] for r in report["rows"] if r["name"] == row), report


def measure(options, python, binary):
    wanted = [row for row in ROWS if options.only is None or options.only in row[0]]
    if not wanted:
        raise Unavailable(f"no row is named like {options.only}")
    found = {row[0]: {"ours": [], "peer": {}} for row in wanted}
    with master_running(binary) as (_, address, _), \
         started(client(python, address, "own", 0)) as owner:
        if "ready" not in owner.stdout.readline():
            raise Unavailable("its client cannot fill the store")
        for _ in range(options.rounds):
            for name, what, clients, _ in wanted:
                if what is None:
                    figure = empty_master(binary)[0 if name.endswith("resident") else 1]
                    found[name]["peer"].setdefault(0, []).append(figure)
                for n in clients:
                    rate = peer_rate(python, address, what, n, options.seconds)
                    found[name]["peer"].setdefault(n, []).append(rate)
                value, report = ours(options.yolk, name)
                found[name]["ours"].append(value)
    return wanted, found, report


def table(wanted, found):
    """Rows of medians."""
    rows = []
    for name, what, _, unit in wanted:
        least = what is None
        peers = [statistics.median(values) for values in found[name]["peer"].values()]
        peer = min(peers) if least else max(peers)
        our = statistics.median(found[name]["ours"])
        rows.append({"name": name, "unit": unit, "ours": our, "peer": peer,
                     "ratio": peer / our if least else our / peer})
    return rows


def markdown(result):
    lines = [f"The store of `{result['package']}` {result['version']} beside ours (`make peers`): "
             f"medians, rounds: {result['rounds']}, master and clients of each in turn, "
             f"{result['machine']}, commit {result['commit']}.", "",
             "| row | Yolk | Mooncake | times better |", "|---|---|---|---|"]
    for row in result["rows"]:
        ours, peer = (f"{row[who]:,.4g} {row['unit']}" for who in ("ours", "peer"))
        lines.append(f"| {row['name']} | {ours} | {peer} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yolk", default="build/bin/yolk")
    parser.add_argument("--venv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--only")
    parser.add_argument("--json")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = options.venv or stack.enter_context(tempfile.TemporaryDirectory())
        try:
            python, binary, version = install(directory, "mooncake_master")
            wanted, found, report = measure(options, python, binary)
        except (Unavailable, subprocess.TimeoutExpired) as why:
            print(f"skipped: {why}", file=sys.stderr)
            sys.exit(77)
    result = {"package": PACKAGE, "version": version, "rounds": options.rounds,
              "machine": report["machine"], "commit": report["commit"], "rows": table(wanted, found)}
    print(markdown(result))
    if options.json:
        with open(options.json, "w") as out:
            json.dump(result, out, indent=1)


if __name__ == "__main__":
    main()
