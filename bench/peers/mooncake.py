#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mooncake's transfer engine beside ours: same machine, same run, same size, depth and threads.

    bench/peers/mooncake.py [--yolk build/bin/yolk] [--venv DIR] [--rounds 3] [--seconds 2]
                            [--only PART] [--json FILE]

Installs PyPI's `mooncake-transfer-engine-non-cuda` into a scratch environment (a temporary one that
is removed, or DIR, which is kept and used again) and runs its `transfer_engine_bench` over tcp
through the loopback, with its connection pool on and off. Between its runs, in turns,
`yolk bench transfer` measures the row of the same shape together with bare sockets. Where that binds
its two ends to a core each (one request after another), so is the peer, which then runs unbound,
too. A figure is the median of the rounds; of the peer's the best counts. Prints a table in Markdown,
as the README has it, and JSON to FILE if one is named.

What is the same: bytes a request, requests under way, threads that submit, one host, one process an
end. What is not: its bench hands in a batch and waits for all of it, over the same few blocks again
and again; ours keeps the depth filled and walks through 256 MiB that no cache holds.

Exits with 77 and the reason if the package cannot be had or does not run here. Python 3 and nothing
else.
"""
import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

PACKAGE = "mooncake-transfer-engine-non-cuda"
MEMORY = 256 << 20
START_S = 20  # for its target to listen

# name of our row, operation, bytes a request, depth of one thread, threads
ROWS = [
    ("tcp_write_4k_depth1", "write", 4 << 10, 1, 1),
    ("tcp_read_4k_depth1", "read", 4 << 10, 1, 1),
    ("tcp_write_4k_depth128", "write", 4 << 10, 128, 1),
    ("tcp_read_4k_depth128", "read", 4 << 10, 128, 1),
    ("tcp_write_64k_depth16", "write", 64 << 10, 16, 1),
    ("tcp_read_64k_depth16", "read", 64 << 10, 16, 1),
    ("tcp_write_1m_depth4", "write", 1 << 20, 4, 1),
    ("tcp_read_1m_depth4", "read", 1 << 20, 4, 1),
    ("tcp_write_4m_depth2", "write", 4 << 20, 2, 1),
    ("tcp_read_4m_depth2", "read", 4 << 20, 2, 1),
    ("tcp_write_64k_four_threads", "write", 64 << 10, 16, 4),
]


class Unavailable(Exception):
    """The peer is not here, and why."""


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"


def install(directory, program):
    """Its Python, one of its programs, and the version of the package."""
    python = os.path.join(directory, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    got = subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                          PACKAGE], capture_output=True, text=True)
    if got.returncode != 0:
        raise Unavailable(f"pip install {PACKAGE}: {last_line(got.stderr)}")
    asked = subprocess.run(
        [python, "-c", "import importlib.metadata as m, sysconfig; "
         f"print(m.version('{PACKAGE}')); print(sysconfig.get_paths()['platlib'])"],
        capture_output=True, text=True, check=True).stdout.split()
    # What bin/ has is a wrapper, whose child would outlive it when it is stopped.
    path = os.path.join(asked[1], "mooncake", program)
    if not os.path.exists(path):
        raise Unavailable(f"{PACKAGE} {asked[0]} has no {program}")
    os.chmod(path, 0o755)
    return python, path, asked[0]


def arguments(bench, mode, name):
    return [bench, f"-mode={mode}", "-protocol=tcp", "-metadata_server=P2PHANDSHAKE",
            f"-local_server_name={name}", f"-buffer_size={MEMORY}", "-logtostderr"]


def cores(row):
    """Which core the initiator and the target are bound to: as place_ends() in bench_paths.c."""
    allowed = sorted(os.sched_getaffinity(0))
    alone = row[3] == 1 and row[4] == 1
    return (allowed[0], allowed[1]) if alone and len(allowed) > 1 else None


def bound_to(core):
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def environment(**its):
    """Nothing of ours may change how it runs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MC_")}
    return dict(kept, MC_FORCE_TCP="1", **its)


def pooled(pool):
    return environment(MC_TCP_ENABLE_CONNECTION_POOL="1" if pool else "0")


@contextlib.contextmanager
def target(bench, pool, core):
    """Its target, running; gives the segment's name."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(arguments(bench, "target", "127.0.0.1:12345"), stderr=log,
                                   stdout=log, env=pooled(pool),
                                   preexec_fn=bound_to(core))
        try:
            end = time.monotonic() + START_S
            while True:
                log.seek(0)
                said = log.read()
                at = re.search(r"listening on (\S+)", said)
                if at and "DRAM is used" in said:
                    time.sleep(0.5)  # its memory is registered after that line
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise Unavailable(f"its target does not listen: {last_line(said)}")
                time.sleep(0.05)
            yield at.group(1)
        finally:
            process.kill()
            process.wait()


def theirs(bench, segment, pool, core, row, seconds):
    """Bytes per second; None if it failed, as it does where it runs out of ports without its pool."""
    _, operation, size, depth, threads = row
    command = arguments(bench, "initiator", "127.0.0.1:12346") + [
        f"-segment_id={segment}", f"-operation={operation}", f"-block_size={size}",
        f"-batch_size={depth}", f"-threads={threads}", f"-duration={seconds}"]
    try:
        got = subprocess.run(command, capture_output=True, text=True, env=pooled(pool),
                             timeout=seconds + 60, preexec_fn=bound_to(core))
    except subprocess.TimeoutExpired as late:
        raise Unavailable(f"its {operation} of {size} bytes did not end") from late
    end = re.search(r"duration ([0-9.]+), batch count ([0-9]+)", got.stderr)
    if not end:
        print(f"its {operation} of {size} bytes {'with' if pool else 'without'} its pool ended with "
              f"{got.returncode}: {last_line(got.stderr)}", file=sys.stderr, flush=True)
        return None
    return int(end.group(2)) * depth * size / float(end.group(1))


def ours(yolk, row):
    """Bytes per second of the engine, and of bare sockets where they are its yardstick."""
    name, _, size, _, _ = row
    got = subprocess.run([yolk, "bench", "transfer", name, "--json"], capture_output=True,
                         text=True, check=True, env=dict(os.environ))
    report = json.loads(got.stdout)
    found = next(r for r in report["rows"] if r["name"] == name)

    def rate(value):
        return size / (value * 1e-6) if found["unit"] == "us" else value * 1e9

    bare = None if name.endswith("threads") else rate(found["baseline"])
    return rate(found["value"]), bare, report


def measure(bench, yolk, row, rounds, seconds, say):
    ways = [("pool", True, None), ("no_pool", False, None)]
    if cores(row):
        ways += [("pool_bound", True, cores(row)), ("no_pool_bound", False, cores(row))]
    got = {name: [] for name, _, _ in ways} | {"ours": [], "sockets": []}
    for _ in range(rounds):
        for name, pool, where in ways:
            here, there = where or (None, None)
            with target(bench, pool, there) as segment:
                rate = theirs(bench, segment, pool, here, row, seconds)
                got[name] += [rate] if rate is not None else []
        value, bare, report = ours(yolk, row)
        got["ours"].append(value)
        if bare is not None:
            got["sockets"].append(bare)
    middle = {name: statistics.median(v) if v else None for name, v in got.items()}
    pool = max(middle["pool"] or 0, middle.get("pool_bound") or 0)
    no_pool = max(middle["no_pool"] or 0, middle.get("no_pool_bound") or 0)
    best = max(pool, no_pool)
    if not best:
        raise Unavailable(f"its {row[0]} never ended well")
    name, operation, size, depth, threads = row
    say(f"{name}: theirs {best / 1e9:.3f} GB/s, ours {middle['ours'] / 1e9:.3f} GB/s")
    return {"name": name, "operation": operation, "size": size, "depth": depth,
            "threads": threads, "theirs": best, "theirs_pool": pool, "theirs_no_pool": no_pool,
            "theirs_ways": {name: middle[name] for name, _, _ in ways}, "ours": middle["ours"],
            "ratio": middle["ours"] / best, "sockets": middle["sockets"]}, report


def in_gb(rate):
    return "" if rate is None else f"{rate / 1e9:.3g}" if rate else "failed"


def table(result):
    """Markdown, to be put into README as it is."""
    lines = [f"Beside PyPI's `{PACKAGE}` {result['version']} over tcp, in one run (`make peers`): "
             f"GB/s, medians of {result['rounds']} rounds in turns, {result['machine']}, commit "
             f"{result['commit']}. At depth 1 without threads its two ends were tried bound to a core "
             "each, as ours are, and unbound; the better counts.", "",
             "| request | depth | threads | Mooncake, pool on | pool off | Yolk | Yolk / the better "
             "| bare sockets |", "|---|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        size = f"{row['size'] >> 20} MiB" if row["size"] >= 1 << 20 else f"{row['size'] >> 10} KiB"
        lines.append(f"| {row['operation']} {size} | {row['depth']} | {row['threads']} "
                     f"| {in_gb(row['theirs_pool'])} | {in_gb(row['theirs_no_pool'])} "
                     f"| {in_gb(row['ours'])} | {row['ratio']:.2f} | {in_gb(row['sockets'])} |")
    return "\n".join(lines)


def run(options, directory):
    def say(text):
        print(text, file=sys.stderr, flush=True)

    _, bench, version = install(directory, "transfer_engine_bench")
    say(f"{PACKAGE} {version}")
    result = {"package": PACKAGE, "version": version, "rounds": options.rounds,
              "seconds": options.seconds, "rows": []}
    for row in ROWS:
        if options.only not in row[0]:
            continue
        measured, report = measure(bench, options.yolk, row, options.rounds, options.seconds, say)
        result["machine"], result["commit"] = report["machine"], report["commit"]
        result["rows"].append(measured)
    if not result["rows"]:
        raise Unavailable(f"no row is named like {options.only}")
    print(table(result))
    if options.json:
        with open(options.json, "w") as out:
            json.dump(result, out, indent=1)
            out.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yolk", default="build/bin/yolk")
    parser.add_argument("--venv", help="kept, and used again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of theirs")
    parser.add_argument("--only", default="", help="rows whose name contains it")
    parser.add_argument("--json", help="write the figures there")
    options = parser.parse_args()
    try:
        if options.venv:
            run(options, options.venv)
        else:
            with tempfile.TemporaryDirectory() as directory:
                run(options, directory)
    except Unavailable as why:
        print(f"mooncake: {why}", file=sys.stderr)
        sys.exit(77)


if __name__ == "__main__":
    main()
