#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator against reality: docs/results/reality.md, and its rows of summary.json.

    tools/reality.py [--yolk build/bin/yolk] [--model smollm2] [--traces DIR] [--out docs/results]
                     [--seconds 70] [--rounds 3] [--only times|order|overload] [--rehearse] [--dry]

times   One prefill and one decode node serve a real model, each pinned to a core of its own. Batches of 1 to 8
        sequences, short and long, say what a decode step costs, while the prefill node is idle and while it
        computes. A scaled trace is then replayed in two parts: prefill costs and the level of decode costs are
        fitted on the first, the second is predicted by `yolk sim` with all of them, and mean and 90th
        percentile of TTFT and TBT are compared (target: within 15%).
order   Four prefill and four decode nodes with `--engine timed` serve another part under four placement
        policies; the simulator, told the same machine, has to put them in the same order.
overload  The same eight nodes get twice what they can serve, answers being long, in turns under prediction and
        under `adaptive`, both given the limits that answers are judged by; and prediction once more with the
        tighter limit that the simulator finds best for it. Shares of good answers, live and simulated.

The load is chosen, not tuned: the rate is set so that prefill is busy half of the time (times) and so that the
simulator's four policies differ (order), or twice what the costs allow (overload), before anything is measured. All parts say how much of the machine
others used meanwhile; a busy machine makes the first comparison meaningless and the page says so; each live run of it
waits for a quiet moment, IDLE_WAIT_S at most. --dry
writes to standard output instead of --out. Python 3 and nothing else.
"""

import argparse
import itertools
import json
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

BLOCK = 32  # tokens of a block here, for 512 in the trace
SHRINK = 16
ANSWER_SHRINK = 8
UTILISATION = 0.5  # of the prefill node, in `times`
# Of all cores, used by others: beyond it the times mean little. On two cores twice that may be missing to one engine.
BUSY_SHARE_MAX = 0.05
IDLE_SHARE, IDLE_WAIT_S = 0.03, 60  # a machine is idle enough to begin; if it does not become so, it begins all the same
TOLERANCE = 0.15
# Of decode steps, before `times`: each batch with a short and a long prompt.
CALIBRATION_BATCHES, CALIBRATION_PROMPTS, CALIBRATION_ANSWER = (1, 2, 4, 6, 8), (64, 1024), 64
# New prompts keep the prefill node busy: so many at a time, of this length.
BUSY_PROMPTS, PACE_PROMPT = 2, 700
# Of decode costs. Longer steps make larger batches, and these longer steps: the level is enclosed, not computed.
LEVELS, LEVEL_ROUNDS = (0.25, 4), 14
POLICIES = ["global", "count", "random", "match"]
# Of the modelled machine in `order`: some three tenths of a second for a mean prompt.
MACHINE = {"prefill_fixed_s": 0.01, "prefill_new_s": 4e-4, "prefill_square_s": 1e-8,
           "prefill_reused_s": 1e-5, "decode_base_s": 0.01, "decode_sequence_s": 0.002,
           "decode_context_s": 0, "kv_token_bytes": 240, "nic_bytes_s": 1e9, "load_bytes_s": 1e11,
           "schedule_s": 0, "transfer_setup_s": 0.002, "vram_tokens": 1e6}
# Of `overload`: answers are so many times shorter than in the trace, and in time within these limits.
OVERLOAD_ANSWER_SHRINK, OVERLOAD_FACTOR = 2, 2
# Limits lie between two sizes of a batch: a step of so many sequences takes whole pairs of milliseconds, and where
# that is the limit itself, what a live clock adds decides.
TTFT_LIMIT_S, TBT_LIMIT_MS = 2, 31
TIGHTER_MS = (23, 25, 27, 29)


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- the machine ----

def cpu_ticks():
    """(busy, all) of every core together."""
    fields = [int(x) for x in open("/proc/stat", encoding="ascii").readline().split()[1:]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def process_ticks(pid):
    try:
        fields = open(f"/proc/{pid}/stat", encoding="ascii").read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except OSError:
        return 0


class Load:
    """What others used of the machine between start and stop."""

    def __init__(self, pids):
        self.pids = pids
        self.before = [process_ticks(p) for p in pids]
        self.busy, self.all = cpu_ticks()
        self.children = os.times()

    def stop(self):
        busy, total = cpu_ticks()
        times = os.times()
        ticks = os.sysconf("SC_CLK_TCK")
        ours = sum(process_ticks(p) - b for p, b in zip(self.pids, self.before))
        ours += ticks * (times.children_user + times.children_system
                         - self.children.children_user - self.children.children_system)
        return max(0.0, (busy - self.busy - ours) / max(1, total - self.all))


def wait_idle(options):
    """Until others leave the machine nearly alone for a second; a modelled one need not be."""
    end = time.monotonic() + (0 if options.rehearse else IDLE_WAIT_S)
    while time.monotonic() < end:
        load = Load([])
        time.sleep(1)
        if load.stop() <= IDLE_SHARE:
            return
    if not options.rehearse:
        say(f"the machine did not become idle within {IDLE_WAIT_S} s")


def machine_name():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


# ---- a cluster ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    """`yolk serve` without a disk, as simulated: an earlier cluster's would still know the prompts."""

    def __init__(self, options, directory, *args):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = os.path.join(directory, f"serve-{self.port}.log")
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [options.yolk, "serve", options.model, "--port", str(self.port), "--served-model-name",
             "model", "--quiet", "--block-tokens", str(BLOCK), "--ssd-size", "0", *map(str, args)],
            stdout=self.log, stderr=self.log)

    def wait_ready(self, prefill, decode, timeout=120):
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.process.poll() is None:
            try:
                text = urllib.request.urlopen(self.url + "/metrics", timeout=5).read().decode()
                up = dict(re.findall(r'yolk_gateway_nodes_up\{role="(\w+)"\} (\d+)', text))
                if int(up.get("prefill", 0)) == prefill and int(up.get("decode", 0)) == decode:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.stop()
        raise SystemExit(f"the cluster did not become ready:\n{open(self.log_path).read()[-2000:]}")

    def pids(self):
        """Process ids by what they are: master, gateway, prefill, decode."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                words = open(f"/proc/{name}/cmdline", "rb").read().decode().split("\0")
                stat = open(f"/proc/{name}/stat", encoding="ascii").read()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) != self.process.pid:
                continue
            kind = words[1] if words[1] != "node" else words[words.index("--role") + 1]
            found.setdefault(kind, []).append(int(name))
        return found

    def pin(self):
        """Each engine to a core of its own; the rest goes where there is room."""
        cores = sorted(os.sched_getaffinity(0))
        pids = self.pids()
        for core, kind in zip(cores, ("prefill", "decode")):
            for pid in pids[kind]:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setaffinity(int(thread), {core})
        return len(cores) >= 2

    def everyone(self):
        return [self.process.pid] + [p for group in self.pids().values() for p in group]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def ask(cluster, tokens, answer):
    body = json.dumps({"model": "model", "prompt": tokens, "max_tokens": answer, "temperature": 0,
                       "ignore_eos": True}).encode()
    request = urllib.request.Request(cluster.url + "/v1/completions", body,
                                     {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=300).read())


# ---- traces ----

def read_source(options):
    """The conversation trace, or a generated one with its shape where that is not there."""
    for path in (options.traces, os.environ.get("YOLK_TRACES"),
                 os.path.join(options.root, "..", "shared", "traces")):
        name = os.path.join(path or "", "conversation_trace.jsonl")
        if path and os.path.exists(name):
            with open(name, encoding="utf-8") as lines:
                return "the conversation trace", [json.loads(line) for line in lines]
    made = run([options.yolk, "trace", "gen", "--requests", "4000", "--rate", "3.3",
                "--input-tokens", "9000", "--output-tokens", "340", "--seed", "1"])
    return "a generated trace", [json.loads(line) for line in made.splitlines()]


def scaled_part(rows, first, count, prompt_max, answer_shrink=ANSWER_SHRINK):
    """`count` requests from the `first` on, 16 times shorter, without those that are still too long."""
    part = []
    for row in rows[first:]:
        tokens = max(1, round(row["input_length"] / SHRINK))
        if tokens > prompt_max:
            continue
        blocks = -(-tokens // BLOCK)
        part.append({"timestamp": row["timestamp"], "input_length": tokens,
                     "output_length": max(2, round(row["output_length"] / answer_shrink)),
                     "hash_ids": row["hash_ids"][:blocks], "block_size": BLOCK})
        if len(part) == count:
            break
    return part


def paced(part, rate):
    """The same gaps, stretched to this many requests a second."""
    first, last = part[0]["timestamp"], part[-1]["timestamp"]
    stretch = (len(part) - 1) / rate * 1000 / max(1, last - first)
    return [dict(row, timestamp=round((row["timestamp"] - first) * stretch)) for row in part]


def write_trace(path, part):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in part)
    return path


def cold_tokens(part):
    """Mean tokens of a prompt that no prompt before it had."""
    seen, new = set(), 0
    for row in part:
        ids = row["hash_ids"]
        have = 0
        while have < len(ids) and ids[have] in seen:
            have += 1
        new += row["input_length"] - min(have * BLOCK, row["input_length"] - 1)
        seen.update(ids)
    return new / len(part)


# ---- running ----

def run(words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout[-500:]}")
    return done.stdout


def replay(options, cluster, path, *limits):
    return json.loads(run([options.yolk, "replay", "--trace", path, "--url", cluster.url, "--model",
                           "model", "--prompt-max", "100000", "--json", *limits]))


def simulate(options, path, cluster_file, *settings):
    return json.loads(run([options.yolk, "sim", "--trace", path, "--cluster", cluster_file, "--json",
                           *settings]))


# ---- times ----

def least_squares(samples, features):
    """Coefficients >= 0 of the least squares of relative errors, by coordinate descent."""
    coef = [0.0] * features
    for _ in range(2000):
        for j in range(features):
            top = bottom = 0.0
            for x, y in samples:
                rest = y - sum(c * v for k, (c, v) in enumerate(zip(coef, x)) if k != j)
                top += x[j] * rest / (y * y)
                bottom += x[j] * x[j] / (y * y)
            coef[j] = max(0.0, top / bottom) if bottom > 0 else 0.0
    return coef


def token_times(cluster, tokens, answer, out):
    """Appends the list of times at which the tokens of one answer came."""
    body = json.dumps({"model": "model", "prompt": tokens, "max_tokens": answer, "temperature": 0,
                       "ignore_eos": True, "stream": True}).encode()
    request = urllib.request.Request(cluster.url + "/v1/completions", body,
                                     {"Content-Type": "application/json"})
    came = []
    for line in urllib.request.urlopen(request, timeout=300):
        if line.startswith(b"data: {") and b'"text"' in line:
            came.append(time.monotonic())
    out.append(came)


def step_of_batch(cluster, prompts, answer):
    """Seconds of a decode step while the answers to these prompts, which are cached, come together; None if
    they hardly did."""
    found, batch = [], len(prompts)
    threads = [threading.Thread(target=token_times, args=(cluster, prompt, answer, found)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) != batch or any(len(came) < 2 for came in found):
        return None
    begin, end = max(came[0] for came in found), min(came[-1] for came in found)
    inside = sum(sum(begin < at <= end for at in came) for came in found)
    return (end - begin) * batch / inside if inside >= 8 * batch else None


def new_prompt(number, length=PACE_PROMPT):
    """Tokens that no prompt of another number begins with."""
    return [1000 + (number * 7919 + k * 31) % 20000 for k in range(length)]


class BusyPrefill:
    """While it lasts the prefill node computes new prompts, whose KV goes to the decode node, as in the replay."""

    numbers = itertools.count(100)  # of prompts: no two of a process are alike

    def __init__(self, cluster):
        self.cluster, self.over = cluster, threading.Event()
        self.threads = [threading.Thread(target=self.keep_asking) for _ in range(BUSY_PROMPTS)]

    def keep_asking(self):
        while not self.over.is_set():
            ask(self.cluster, new_prompt(next(self.numbers)), 1)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(0.5)

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def steps_of_batches(cluster, length):
    """Seconds of a decode step by size of the batch, prompts being of this length. They are different ones: sequences
    with the same prompt read the same pages, which a cache then has."""
    prompts = [new_prompt(number, length) for number in range(CALIBRATION_BATCHES[-1])]
    for prompt in prompts:
        ask(cluster, prompt, 1)
    found = {batch: step_of_batch(cluster, prompts[:batch], CALIBRATION_ANSWER) for batch in CALIBRATION_BATCHES}
    return {batch: step for batch, step in found.items() if step is not None}


def fit_decode(cluster):
    """(the costs of decode steps, how many batches they rest on). The trace's own batches are nearly of one size,
    and say nothing of the slope. Beside a prefill node that computes steps take so many times longer, in the
    median of the batches: the two share memory bus and caches, and KV that arrives is work for the decode node."""
    samples, times_longer = [], []
    for length in CALIBRATION_PROMPTS:
        alone = steps_of_batches(cluster, length)
        with BusyPrefill(cluster):
            beside = steps_of_batches(cluster, length)
        for batch, step in alone.items():
            context = batch * (length + CALIBRATION_ANSWER / 2)
            samples.append(([1.0, batch / 8, context / 1024], step))
            if batch in beside:
                times_longer.append(beside[batch] / step)
    if len(times_longer) < 2 * len(CALIBRATION_PROMPTS):
        raise SystemExit("decode steps could not be measured: answers did not come together")
    base, sequence, context = least_squares(samples, 3)
    return {"decode_base_s": base, "decode_sequence_s": sequence / 8, "decode_context_s": context / 1024,
            "decode_beside": max(1.0, statistics.median(times_longer))}, len(samples)


def at_level(cost, level):
    """The same with all decode steps so many times longer."""
    return dict(cost, **{name: level * cost[name]
                         for name in ("decode_base_s", "decode_sequence_s", "decode_context_s")})


def fit_level(options, cost, write_cluster, path, live):
    """How many times longer decode steps are in the replay than in batches, so that the simulated mean time between
    tokens of this part is the live one. It is 1 where nothing but the model's own parts makes them longer and the
    machine's speed stays the same."""
    low, high = LEVELS
    for _ in range(LEVEL_ROUNDS):
        level = math.sqrt(low * high)
        found = simulate(options, path, write_cluster(at_level(cost, level)))
        if found["tbt_mean_ms"]["mean"] < live["request_tbt_ms"]["mean"]:
            low = level
        else:
            high = level
    return math.sqrt(low * high)


def fit_prefill(log_path):
    """Costs but those of decode steps, from what the gateway logged of each prefill."""
    text = open(log_path, encoding="utf-8", errors="replace").read()
    prefills = [dict(re.findall(r"(\w+)=([^\s\"]+)", line)) for line in text.splitlines()
                if "ev=prefill_done" in line]
    ends = [dict(re.findall(r"(\w+)=([^\s\"]+)", line)) for line in text.splitlines()
            if "ev=request_done" in line]
    samples, whole = [], []
    first = {e["req"]: float(e["ttft_ms"]) for e in ends}
    for p in prefills:
        new, cached = int(p["computed"]), int(p["cached"])
        seconds = int(p["compute_us"]) / 1e6
        if seconds <= 0:
            continue
        total = new + cached
        samples.append(([1.0, new / 1e3, (total ** 2 - cached ** 2) / 1e6, cached / 1e3], seconds))
        if p["req"] in first:
            whole.append(first[p["req"]] / 1e3 - (int(p["queue_us"]) + int(p["compute_us"])) / 1e6)
    if len(samples) < 10:
        raise SystemExit(f"only {len(samples)} prefills were logged in {log_path}")
    fixed, new, square, cached = least_squares(samples, 4)
    whole.sort()  # who waited for others is at its end
    return {"prefill_fixed_s": fixed, "prefill_new_s": new / 1e3, "prefill_square_s": square / 1e6,
            "prefill_reused_s": cached / 1e3, "schedule_s": max(0.0, whole[len(whole) // 20]),
            "kv_token_bytes": 23040, "nic_bytes_s": 1e12,
            "load_bytes_s": 1e13, "transfer_setup_s": 0, "vram_tokens": 90000}, len(samples)


def times_cluster(options, directory, profile):
    engine = ["--pool-size", "2G"]
    if options.rehearse:
        machine = os.path.join(directory, "rehearsal.json")
        with open(machine, "w", encoding="utf-8") as out:
            json.dump({"cost": dict(MACHINE, prefill_new_s=1e-3, decode_base_s=0.03)}, out)
        engine = ["--engine", "timed", "--engine-profile", machine, "--pool-size", "64M"]
    cluster = Cluster(options, directory, "--prefill", 1, "--decode", 1, "--threads", 1, *engine,
                      "--profile", profile, "--log", "warn,gateway=debug").wait_ready(1, 1)
    return cluster, cluster.pin()


def pace_of_machine(cluster):
    """Seconds a new token of a prompt takes, all in, when nothing else is to do."""
    took = []
    for i in range(4):
        began = time.monotonic()
        ask(cluster, new_prompt(50 + i), 1)
        took.append((time.monotonic() - began) / PACE_PROMPT)
    return sorted(took)[1]


def times(options, rows, directory):
    profile = os.path.join(directory, "profile.json")
    cluster_file = os.path.join(directory, "times.json")

    def write_cluster(cost):
        with open(cluster_file, "w", encoding="utf-8") as out:
            json.dump({"prefill": 1, "decode": 1, "dram_tokens": 90000, "layerwise": True,
                       "batch_max": 64, "first_at_prefill": True, "cost": cost}, out)
        return cluster_file

    wait_idle(options)
    say("times: how fast is this machine?")
    cluster, pinned = times_cluster(options, directory, os.path.join(directory, "unused.json"))
    token_s = pace_of_machine(cluster)
    say("times: how long is a decode step?")
    decode, steps = fit_decode(cluster)
    cluster.stop()
    say(f"times: a step takes {1e3 * (decode['decode_base_s'] + decode['decode_sequence_s']):.1f} ms alone and "
        f"{decode['decode_beside']:.2f} times that beside a prefill")
    probe = scaled_part(rows, 0, 200, options.prompt_max)
    rate = UTILISATION / (token_s * cold_tokens(probe))
    count = max(20, round(rate * options.seconds))
    parts = [paced(scaled_part(rows, at, count, options.prompt_max), rate) for at in (0, 4 * count)]
    say(f"times: {1 / token_s:.0f} tokens/s, so {rate:.2f} requests/s; 2 x {count} requests")
    measured, busy = [], []
    for number, part in enumerate(parts):
        path = write_trace(os.path.join(directory, f"times-{number}.jsonl"), part)
        cluster, _ = times_cluster(options, directory, profile)
        wait_idle(options)
        load = Load(cluster.everyone())
        measured.append(replay(options, cluster, path))
        busy.append(load.stop())
        cluster.stop()
        say(f"times: part {number + 1}: TTFT {measured[-1]['ttft_ms']['mean']:.0f} ms, others used "
            f"{100 * busy[-1]:.0f}% of the machine")
        if number == 0:
            cost, samples = fit_prefill(cluster.log_path)
            cost.update(decode)
            level = fit_level(options, cost, write_cluster, path, measured[0])
            cost = at_level(cost, level)
    found = [simulate(options, os.path.join(directory, f"times-{n}.jsonl"), write_cluster(cost))
             for n in range(2)]
    return {"rate": rate, "count": count, "token_s": token_s, "pinned": pinned, "busy": busy,
            "cost": cost, "level": level, "samples": samples, "steps": steps, "measured": measured, "found": found}


TIMES_CELLS = [("mean TTFT", "ttft_ms", "ttft_ms", "mean"), ("P90 TTFT", "ttft_ms", "ttft_ms", "p90"),
               ("mean TBT", "request_tbt_ms", "tbt_mean_ms", "mean"),
               ("P90 TBT", "request_tbt_ms", "tbt_mean_ms", "p90")]


def times_rows(result, part):
    rows = []
    for name, live, model, what in TIMES_CELLS:
        real, said = result["measured"][part][live][what], result["found"][part][model][what]
        rows.append({"name": f"reality: {name}, 1P+1D", "value": round(said, 3), "unit": "ms",
                     "baseline": round(real, 3), "ratio": round(said / real, 4), "target": TOLERANCE,
                     "met": abs(said / real - 1) <= TOLERANCE})
    return rows


# ---- order ----

def choose_load(options, directory, part, cluster_file):
    """The first load at which the simulator's policies are well apart, by the least ratio of neighbours."""
    best = (0, None, None)
    cold = cold_tokens(part)
    capacity = 4 / (MACHINE["prefill_fixed_s"] + cold * MACHINE["prefill_new_s"])
    for share in (0.7, 0.85, 1.0, 1.15, 1.3):
        path = write_trace(os.path.join(directory, "order.jsonl"), paced(part, share * capacity))
        ttft = {p: simulate(options, path, cluster_file, "--policy", p)["ttft_ms"]["mean"]
                for p in POLICIES}
        ranked = sorted(ttft.values())
        apart = min(b / a for a, b in zip(ranked, ranked[1:]))
        if apart > best[0]:
            best = (apart, share, share * capacity)
        if apart >= 1.25:
            break
    return best


def modelled(directory):
    """The files of the modelled machine: for its engines, and for the simulator."""
    machine, cluster_file = (os.path.join(directory, f"modelled-{what}.json") for what in ("engine", "cluster"))
    with open(machine, "w", encoding="utf-8") as out:
        json.dump({"cost": MACHINE}, out)
    with open(cluster_file, "w", encoding="utf-8") as out:
        json.dump({"prefill": 4, "decode": 4, "dram_tokens": 250000, "batch_max": 64,
                   "layerwise": True, "first_at_prefill": True, "cost": MACHINE}, out)
    return machine, cluster_file


def modelled_run(options, directory, machine, path, settings, limits=()):
    """A cluster of the modelled machine serves the trace: what replay says, and what others used meanwhile."""
    cluster = Cluster(options, directory, "--prefill", 4, "--decode", 4, "--engine", "timed",
                      "--engine-profile", machine, "--pool-size", "64M", "--max-model-len", 8000,
                      *settings).wait_ready(4, 4)
    load = Load(cluster.everyone())
    measured = replay(options, cluster, path, *limits)
    busy = load.stop()
    cluster.stop()
    return measured, busy


def order(options, rows, directory):
    count = round(options.seconds / 70 * 280)
    part = scaled_part(rows, 2000, count, 4000)
    machine, cluster_file = modelled(directory)
    apart, share, rate = choose_load(options, directory, part, cluster_file)
    path = write_trace(os.path.join(directory, "order.jsonl"), paced(part, rate))
    say(f"order: {count} requests at {rate:.1f}/s, {share:g} of what is left to compute; the "
        f"simulator's neighbours are a factor {apart:.2f} apart")
    found = {p: simulate(options, path, cluster_file, "--policy", p) for p in POLICIES}
    measured, busy = {}, {}
    for policy in POLICIES:
        profile = os.path.join(directory, f"profile-{policy}.json")
        measured[policy], busy[policy] = modelled_run(options, directory, machine, path,
                                                      ("--placement", policy, "--profile", profile))
        say(f"order: {policy}: TTFT {measured[policy]['ttft_ms']['mean']:.0f} ms live, "
            f"{found[policy]['ttft_ms']['mean']:.0f} ms simulated")
    return {"count": count, "rate": rate, "share": share, "apart": apart, "busy": busy,
            "measured": measured, "found": found}


def ranking(result, which):
    return sorted(POLICIES, key=lambda p: result[which][p]["ttft_ms"]["mean"])


def order_rows(result):
    rows = [{"name": f"reality: mean TTFT, 4P+4D timed, {p}",
             "value": round(result["found"][p]["ttft_ms"]["mean"], 3), "unit": "ms",
             "baseline": round(result["measured"][p]["ttft_ms"]["mean"], 3),
             "ratio": round(result["found"][p]["ttft_ms"]["mean"]
                            / result["measured"][p]["ttft_ms"]["mean"], 4),
             "target": None, "met": None} for p in POLICIES]
    same = ranking(result, "found") == ranking(result, "measured")
    rows.append({"name": "reality: order of four placement policies is the same", "value": int(same),
                 "unit": "bool", "baseline": 1, "ratio": None, "target": None, "met": same})
    return rows


# ---- overload ----

def overload_capacity(part):
    """Requests a second within the limits, from the costs alone."""
    answer = sum(row["output_length"] for row in part) / len(part)
    prefill_s = MACHINE["prefill_fixed_s"] + cold_tokens(part) * MACHINE["prefill_new_s"]
    step_s = TBT_LIMIT_MS / 1e3
    sequences = (step_s - MACHINE["decode_base_s"]) / MACHINE["decode_sequence_s"]
    return min(4 / prefill_s, 4 * sequences / (answer * step_s))


def simulated_good(options, path, cluster_file, policy, tbt_ms):
    """The share of good answers."""
    settings = f"overload={policy},ttft_limit_s={TTFT_LIMIT_S},tbt_limit_ms={TBT_LIMIT_MS}," \
               f"admit_ttft_s={TTFT_LIMIT_S},admit_tbt_ms={tbt_ms}," \
               "lengths_known=true,first_at_prefill=false"  # replay asks for what the trace says; limits hold tokens back
    settings += ",door=true,stretch=5" if policy == "adaptive" else ",node_checks=true"  # as live
    return simulate(options, path, cluster_file, "--set", settings)["good_mean"]


def overload(options, rows, directory):
    count = round(options.seconds / 70 * 480)
    part = scaled_part(rows, 2000, count, 4000, OVERLOAD_ANSWER_SHRINK)
    machine, cluster_file = modelled(directory)
    rate = OVERLOAD_FACTOR * overload_capacity(part)
    path = write_trace(os.path.join(directory, "overload.jsonl"), paced(part, rate))
    tighter = max(TIGHTER_MS, key=lambda ms: simulated_good(options, path, cluster_file, "predict", ms))
    ways = [("predict", TBT_LIMIT_MS), ("predict", tighter), ("adaptive", TBT_LIMIT_MS)]
    say(f"overload: {count} requests at {rate:.1f}/s; prediction is best with {tighter} ms, says the simulator")
    found = {way: simulated_good(options, path, cluster_file, *way) for way in ways}
    measured, busy = {way: [] for way in ways}, 0.0
    for number in range(options.rounds):
        for policy, tbt_ms in ways:
            profile = os.path.join(directory, f"profile-overload-{number}-{policy}-{tbt_ms}.json")
            live, others = modelled_run(
                options, directory, machine, path,
                ("--policy", policy, "--ttft-slo", f"{TTFT_LIMIT_S}s", "--tbt-slo", f"{tbt_ms}ms",
                 "--profile", profile),
                ("--ttft-limit", f"{TTFT_LIMIT_S}s", "--tbt-limit", f"{TBT_LIMIT_MS}ms"))
            measured[policy, tbt_ms].append(live)
            busy = max(busy, others)
            say(f"overload: {policy}, {tbt_ms} ms: {live['good_share']:.3f} good live, "
                f"{found[policy, tbt_ms]:.3f} simulated")
    return {"count": count, "rate": rate, "ways": ways, "busy": busy, "measured": measured, "found": found}


def overload_rows(result):
    rows = []
    for policy, tbt_ms in result["ways"]:
        live = statistics.mean([run["good_share"] for run in result["measured"][policy, tbt_ms]])
        said = result["found"][policy, tbt_ms]
        rows.append({"name": f"reality: good share, 4P+4D timed, {policy} with {tbt_ms} ms",
                     "value": round(said, 4), "unit": "ratio", "baseline": round(live, 4),
                     "ratio": round(said / live, 4), "target": None, "met": None})
    least = min(run["good_share"] for run in result["measured"][result["ways"][2]])
    most = [max(run["good_share"] for run in result["measured"][way]) for way in result["ways"][:2]]
    rows.append({"name": "reality: adaptive live is ahead of prediction with the same limits in every run",
                 "value": int(least > most[0]), "unit": "bool", "baseline": 1, "ratio": None, "target": None,
                 "met": least > most[0]})
    rows.append({"name": "reality: adaptive live is ahead of prediction with its best limit in every run",
                 "value": int(least > most[1]), "unit": "bool", "baseline": 1, "ratio": None, "target": None,
                 "met": least > most[1]})
    return rows


# ---- the page ----

def cell(row):
    met = "" if row["met"] is None else "yes" if row["met"] else "**no**"
    difference = f"{100 * (row['ratio'] - 1):+.1f}%" if row["ratio"] else ""
    return f"{row['baseline']:.4g} | {row['value']:.4g} | {difference} | {met}"


def times_page(result, source):
    cost, lines = result["cost"], []
    busy = max(result["busy"])
    lines += ["## Times: SmolLM2-135M, 1P+1D", "",
              f"Each engine has one thread, {'pinned to a core of its own' if result['pinned'] else 'on a single core: there is only one'}. "
              f"{source.capitalize()}, prompts {SHRINK} and answers {ANSWER_SHRINK} times shorter, "
              f"{result['rate']:.2f} requests a second, at which a prefill node that computes "
              f"{1 / result['token_s']:.0f} tokens a second is busy about half of the time. What a sequence and its "
              f"context add to a decode step was fitted on {result['steps']} batches of 1 to {CALIBRATION_BATCHES[-1]} prompts "
              "of a length before, and how much longer steps are while the prefill node computes on the same batches beside "
              f"new prompts. Prefill costs were fitted on {result['samples']} prefills of a first part of "
              f"{result['count']} requests, and the level of decode costs on the mean time between tokens of that part: "
              f"{result['level']:.3f} times that of the batches. The table is about another part, which no fit has seen. Both parts start with an empty pool.", "",
              f"Others used up to {100 * busy:.0f}% of the machine meanwhile"
              + (f": more than {100 * BUSY_SHARE_MAX:.0f}%, so the machine's speed was not its own and the "
                 "comparison means little." if busy > BUSY_SHARE_MAX else "."), "",
              "| ms | live | simulated | difference | within 15% |", "|---|---|---|---|---|"]
    lines += [f"| {row['name'].partition(': ')[2]} | {cell(row)} |" for row in times_rows(result, 1)]
    lines += ["", "For comparison, the part that the costs were fitted on (its mean TBT is the level's): " + "; ".join(
        f"{row['name'].partition(': ')[2].partition(',')[0]} {100 * (row['ratio'] - 1):+.1f}%"
        for row in times_rows(result, 0)) + ".", "",
              f"Fitted: prefill {1e3 * cost['prefill_fixed_s']:.2f} ms + {1e3 * cost['prefill_new_s']:.4f} ms a "
              f"new token + {1e6 * cost['prefill_square_s']:.4f} ns a square + "
              f"{1e6 * cost['prefill_reused_s']:.2f} us a reused token; decode "
              f"{1e3 * cost['decode_base_s']:.2f} ms + {1e3 * cost['decode_sequence_s']:.3f} ms a sequence + "
              f"{1e6 * cost['decode_context_s']:.4f} us a token of context, "
              f"{cost['decode_beside']:.3f} times as much beside a prefill; {1e3 * cost['schedule_s']:.2f} ms around it.", "",
              "Two things were once not measured, and steps seemed shorter than they are. Batches had one prompt for all, "
              "whose pages the sequences share, so that a cache had them: 8 sequences of 1,024 tokens took 47 ms, with "
              "prompts of their own 66 ms; the line through both sizes of prompt was then too low for a lone sequence as well "
              "(13.8 ms instead of 15.8 with 1,056 tokens). And the prefill node was idle: of 3,482 steps of two replays, each written down, those beside a "
              "prefill took 1.14 times what such batches had said of their sizes, the others 1.05. Of the difference memory "
              "bus and caches are a quarter, 1.07 and 1.04 in the steps' own computing; the rest is what else the core did "
              "meanwhile, copying KV that arrived and sending tokens most of all. Batch sizes, the wait to join and the pauses between "
              "steps (0.27 ms) were not it. A level far from 1 means that the machine was not as fast, or not as much its "
              "own, as during the batches.", "",
              "What the model leaves out: short prompts that meet share a step live; the simulator computes one "
              "after the other. The first step of a sequence takes 5 to 8% longer than those after it, the first one "
              "after a pause 11 to 16%: answers of a few tokens feel it.", ""]
    return lines


def order_page(result):
    lines = ["## Order: placement policies, `--engine timed`, 4P+4D", "",
             f"{result['count']} requests at {result['rate']:.1f} a second, the first of five loads at which the "
             "simulator's policies are a factor 1.25 apart, or else the one at which they are the furthest apart "
             f"(here {result['apart']:.2f}). The machine is modelled, everything else is real.", "",
             "| mean TTFT ms | live | simulated | difference | same order |", "|---|---|---|---|---|"]
    rows = order_rows(result)
    lines += [f"| {row['name'].rpartition(', ')[2]} | {cell(row)} |" for row in rows[:-1]]
    lines += ["", f"Live: {' < '.join(ranking(result, 'measured'))}. Simulated: "
                  f"{' < '.join(ranking(result, 'found'))}. "
                  + ("The same order." if rows[-1]["met"] else "**Not the same order.**"),
              f"Others used up to {100 * max(result['busy'].values()):.0f}% of the machine meanwhile.", ""]
    return lines


def overload_page(result):
    rounds = len(result["measured"][result["ways"][0]])
    lines = ["## Overload: refusing early, `--engine timed`, 4P+4D", "",
             f"{result['count']} requests at {result['rate']:.1f} a second, twice what the costs allow within "
             f"{TTFT_LIMIT_S} s to the first token and {TBT_LIMIT_MS} ms between tokens (mean of an answer); answers "
             f"{OVERLOAD_ANSWER_SHRINK} times shorter than in the trace, so that decoding is what there is too little "
             f"of. Rounds: {rounds}, the policies in turns, each run with a cluster that knows nothing yet. "
             "The policies are given these limits; prediction once more with the tighter one between tokens that "
             f"is best for it in the simulator, of {', '.join(map(str, TIGHTER_MS))} ms. A request says how long its answer "
             "may be, and it gets that long: more than users say. The simulator's policies are told as much.", "",
             "| policy | limit, ms | good, live (least to most) | simulated | P90 TTFT, live | refused, live |",
             "|---|---|---|---|---|---|"]
    for policy, tbt_ms in result["ways"]:
        runs = result["measured"][policy, tbt_ms]
        good = sorted(run["good_share"] for run in runs)
        lines.append(f"| {policy} | {tbt_ms} | {100 * statistics.mean(good):.1f}% ({100 * good[0]:.1f} to {100 * good[-1]:.1f}) | "
                     f"{100 * result['found'][policy, tbt_ms]:.1f}% | "
                     f"{statistics.mean([run['ttft_ms']['p90'] for run in runs]):.0f} ms | "
                     f"{100 * statistics.mean([run['rejected'] / run['requests'] for run in runs]):.1f}% |")
    same, best = (row["met"] for row in overload_rows(result)[-2:])
    lines += ["", f"Every run of `adaptive` is ahead of every run of prediction with the same limits: {'yes' if same else '**no**'}; "
                  f"with the limit that is best for prediction: {'yes' if best else '**no**'}.",
              f"Others used up to {100 * result['busy']:.0f}% of the machine meanwhile.", ""]
    return lines


def write_results(options, lines, rows, kept):
    page = "\n".join(lines)
    if options.dry:
        print(page)
        print(json.dumps(rows, indent=1))
        return
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "reality.md"), "w", encoding="utf-8") as out:
        out.write(page)
    path = os.path.join(options.out, "summary.json")
    summary = {"bench": "results", "commit": "", "machine": "", "rows": []}
    if os.path.exists(path):
        summary = json.load(open(path, encoding="utf-8"))
    summary["rows"] = [row for row in summary["rows"]
                       if not row["name"].startswith("reality: ") or row["name"] in kept] + rows
    with open(path, "w", encoding="utf-8") as out:
        out.write(json.dumps(summary, indent=1) + "\n")


def main():
    root = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--yolk", default=os.path.join(root, "build", "bin", "yolk"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--traces")
    parser.add_argument("--out", default=os.path.join(root, "docs", "results"))
    parser.add_argument("--seconds", type=float, default=70, help="of each of the live runs, about")
    parser.add_argument("--prompt-max", type=int, default=2000, help="longer prompts are left out of `times`")
    parser.add_argument("--only", choices=["times", "order", "overload"])
    parser.add_argument("--rounds", type=int, default=3, help="of `overload`, three clusters each")
    parser.add_argument("--rehearse", action="store_true",
                        help="`times` with a modelled engine: says what is left of the difference "
                             "when the machine's speed is constant; implies --dry")
    parser.add_argument("--dry", action="store_true", help="print the page, write nothing")
    options = parser.parse_args()
    options.root = root
    options.dry |= options.rehearse
    began = time.monotonic()
    source, rows = read_source(options)
    commit = subprocess.run(["git", "-C", root, "rev-parse", "--short=12", "HEAD"], text=True,
                            capture_output=True, check=False).stdout.strip()
    lines = ["# reality: the simulator against the live cluster", "",
             f"Made by `make reality` on {machine_name()}, {len(os.sched_getaffinity(0))} cores, commit {commit}, "
             f"load average {os.getloadavg()[0]:.2f} when it began.", ""]
    found = []
    with tempfile.TemporaryDirectory(prefix="yolk-reality-") as directory:
        os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME",
                                                      os.path.expanduser("~/.cache"))
        if options.only in (None, "times"):
            result = times(options, rows, directory)
            lines += times_page(result, source)
            found += times_rows(result, 1)
        if options.only in (None, "order"):
            result = order(options, rows, directory)
            lines += order_page(result)
            found += order_rows(result)
        if options.only in (None, "overload"):
            result = overload(options, rows, directory)
            lines += overload_page(result)
            found += overload_rows(result)
    write_results(options, lines, found, kept=set())
    for row in found:
        if row["met"] is not None:
            say(f"{'met ' if row['met'] else 'MISS'}  {row['name']}: live {row['baseline']:g}, "
                f"simulated {row['value']:g} {row['unit']}")
    say(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
