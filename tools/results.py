#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Regenerates docs/results/: the papers' experiments, replayed by `yolk sim`.

    tools/results.py [--yolk build/bin/yolk] [--traces DIR] [--only R1,R6] [--out docs/results]

With --only, the other experiments keep what summary.json and README.md say of them.

Traces are looked for in --traces, $YOLK_TRACES and ../shared/traces; what needs one that is not there is
skipped, aloud. Each experiment becomes one page with a table "paper, ours, difference" and its misses with
their reasons; every cell is a row of summary.json as well: {"name", "value", "unit", "baseline", "ratio",
"target", "met"}, where `baseline` is the paper's number, `ratio` ours over it, `target` the largest
difference allowed (null where only the order or nothing is asked), `met` whether it was kept.

All runs use one parameter set, the a800 profile of src/sim/profile.c. Python 3 and nothing else.
"""

import argparse
import concurrent.futures
import json
import math
import os
import subprocess
import sys
import tempfile

SYSTEMS = ["mooncake", "vllm", "vllm-prefix", "vllm-chunked"]
LABELS = {
    "mooncake": "Mooncake 8P+8D",
    "vllm": "vLLM",
    "vllm-prefix": "vLLM, prefix caching",
    "vllm-chunked": "vLLM, chunked prefill",
}
TRACES = {
    "conversation": "conversation_trace.jsonl",
    "tool&agent": "toolagent_like.jsonl",
    "synthetic": "synthetic_trace.jsonl",
}
NOTE = {"tool&agent": "tool&agent (stand-in)"}


def label(workload):
    return NOTE.get(workload, workload)


# ---- the papers' numbers ----

# R1: share of requests within 30 s and the given time between tokens, in percent.
THRESHOLDS = [100, 200, 300]
CAPACITY = {
    "conversation": [(96.6, 100, 100), (16.1, 38.8, 62.8), (15.1, 34.3, 56.0), (9.4, 28.8, 55.4)],
    "tool&agent": [(93.2, 99.8, 100), (43.1, 45.3, 49.8), (56.5, 70.0, 81.3), (18.6, 21.3, 40.4)],
    "synthetic": [(99.6, 100, 100), (61.3, 71.0, 78.1), (61.0, 70.8, 77.2), (46.6, 57.3, 69.5)],
}
CDF_POINTS = [40, 50, 60, 70, 80, 90, 100, 120, 150, 200, 250, 300, 400, 500, 700, 1000]
# R2: mean prefill seconds of a request.
PREFILL = {
    "conversation": [1.062, 1.661, 1.523, 2.021],
    "tool&agent": [0.527, 1.117, 0.740, 1.415],
    "synthetic": [0.733, 2.022, 1.896, 2.436],
}
# R3: token hit of an exact LRU by capacity, computed from the traces by another program.
LRU_TOKENS = [1e4, 1e5, 3e5, 1e6, 2e6, 3e6, 4e6, 5e6, 8e6, 1e7, 3e7, 5e7, 1e8, 1e9]
LRU = {
    "conversation": [.043, .043, .043, .054, .086, .139, .178, .211, .266, .291, .366, .371, .374, .374],
    "tool&agent": [.204, .358, .368, .383, .420, .451, .479, .505, .545, .560, .585, .586, .586, .586],
    "synthetic": [.002, .017, .055, .145, .233, .315, .375, .428, .536, .577, .651, .651, .651, .651],
}
LRU_PAPER = {  # Figure 9
    "conversation": {1e4: .045, 1e5: .073, 1e6: .087, 2e6: .120, 4e6: .215, 5e6: .247, 8e6: .300,
                     1e7: .326, 5e7: .398, 1e8: .401, 1e9: .401},
    "tool&agent": {1e4: .173, 1e5: .363, 1e6: .386, 2e6: .414, 4e6: .484, 5e6: .505, 8e6: .544,
                   1e7: .561, 5e7: .595, 1e8: .595, 1e9: .595},
    "synthetic": {1e4: .000, 1e5: .012, 1e6: .146, 2e6: .235, 4e6: .380, 5e6: .435, 8e6: .545,
                  1e7: .589, 5e7: .658, 1e8: .658, 1e9: .658},
}
# R4: hit ratio local, global; prefill seconds local, global.
LOCAL_GLOBAL = {
    "conversation": (16.9, 37.5, 1.379, 1.051),
    "tool&agent": (42.0, 58.1, 0.703, 0.521),
    "synthetic": (26.4, 62.2, 1.497, 0.783),
}
# R5: (rank, replicas, seconds until there are so many).
REPLICAS = {
    "conversation": [(10, 4, 240), (10, 6, 630), (10, 8, 1110), (100, 2, 300), (100, 4, 1200),
                     (100, 6, 2070), (100, 7, 2430)],
    "tool&agent": [(10, 8, 60), (100, 2, 300), (100, 4, 660), (100, 6, 1200), (100, 7, 2100)],
    "synthetic": [(10, 4, 60), (100, 4, 420)],
}
RANKS = [10, 100, 1000, 10000]
# R6: prefill nodes of 16: effective percent, mean TTFT s, mean TBT ms.
SPLITS = {5: (77.7, 5.74, 31.5), 6: (97.2, 1.71, 31.8), 7: (99.1, 1.30, 32.9), 8: (99.0, 1.19, 35.0),
          9: (99.2, 1.12, 38.2), 10: (98.4, 1.11, 44.2), 11: (86.1, 1.14, 58.3)}
# R7: mean TTFT s.
POLICIES = ["random", "load", "local", "global"]
PLACEMENT_FAST = [19.65, 5.27, 3.58, 3.07]
PLACEMENT_ARXIV = [92.07, 60.41, 14.36, 6.26]
# R9: shares within 100 ms and within 30 s, of 10P+10D and of 20 coupled nodes.
REAL_TBT = {40: (9.3, 14), 50: (30, 22), 60: (54.5, 29), 80: (87.5, 44), 100: (99.7, 57.1),
            150: (None, 75.4), 200: (None, 83.7), 300: (None, 91.1), 500: (None, 94.8)}
REAL_TTFT = {1: (52, 47), 2: (77, 76), 3: (86, 85), 5: (93, 92), 10: (97.7, 96.7), 30: (99.8, 99.8)}
# R10: refused of 23,608.
OVERLOAD = {"baseline": 4183, "early": 3771, "predict": 3589}
# R11: thousand tokens: seconds that storing KV adds to a prefill, afterwards and layer by layer.
STORING = {8: (.111, .100), 16: (.121, .100), 32: (.230, .120), 64: (.422, .100), 128: (.866, .100)}
# R12: Gbps: mean TTFT s, mean transfer s.
BANDWIDTH = {24: (5.10, 3.649), 40: (2.40, 1.134), 80: (1.73, .510), 100: (1.60, .404), 160: (1.41, .251),
             320: (1.25, .126), 400: (1.25, .102)}
RECOMPUTE_TTFT = 2.62
# R13: tokens: (prefill, transfer, load, ms a step) without and with 95% of the prompt cached.
BREAKDOWN = {
    0: {8: (1.000, .034, .029, 26.5), 16: (2.053, .063, .053, 26.8), 32: (4.478, .126, .106, 27.5),
        64: (10.585, .251, .213, 28.6), 128: (27.512, .498, .420, 30.8)},
    95: {8: (.135, .030, .029, 26.6), 16: (.227, .061, .055, 26.9), 32: (.406, .124, .108, 27.5),
         64: (.882, .249, .213, 28.6), 128: (2.329, .494, .422, 30.8)},
}


# ---- running ----


class Runner:
    """Runs `yolk`, each command once, two at a time."""

    def __init__(self, yolk, traces, scratch):
        self.yolk, self.traces, self.scratch = yolk, traces, scratch
        self.pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)
        self.started = {}

    def start(self, *args):
        if args not in self.started:
            self.started[args] = self.pool.submit(self.call, args)
        return self.started[args]

    def call(self, args):
        done = subprocess.run([self.yolk, *args], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"yolk {' '.join(args)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def path(self, workload):
        return os.path.join(self.traces, TRACES[workload])

    def has(self, workload):
        return self.traces is not None and os.path.exists(self.path(workload))

    def sim(self, trace, *args, **settings):
        """A future. `trace` is a workload or a path; settings go to --set."""
        path = self.path(trace) if trace in TRACES else trace
        sets = ",".join(f"{name.replace('__', '.')}={value}" for name, value in sorted(settings.items()))
        command = ["sim", "--json", "--trace", path, *args]
        return self.start(*command, *(["--set", sets] if sets else []))

    def file(self, name, text):
        path = os.path.join(self.scratch, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Page:
    """One experiment: prose, tables, misses, and its rows of the summary."""

    def __init__(self, key, title):
        self.key, self.title = key, title
        self.lines, self.rows, self.misses, self.plots = [], [], [], []

    def say(self, *lines):
        self.lines += [*lines, ""]

    def cell(self, name, ours, paper, unit, allowed=None, met=None):
        """Adds a row; `allowed` is the largest difference, or `met` says it. Returns table cells."""
        if met is None and allowed is not None:
            met = abs(ours - paper) <= allowed
        ratio = ours / paper if paper else None
        self.rows.append({"name": f"{self.key}: {name}", "value": round(ours, 6), "unit": unit,
                          "baseline": paper, "ratio": None if ratio is None else round(ratio, 4),
                          "target": None if allowed is None else round(allowed, 6), "met": met})
        if met is False:
            self.misses.append(name)
        mark = "" if met is None else " | yes" if met else " | **no**"
        difference = "" if paper is None else f"{round(ours - paper, 9) + 0:+.3g}"
        return f"{'' if paper is None else format(paper, 'g')} | {ours:.4g} | {difference}{mark}"

    def verdict(self, name, met, words):
        """A row that is true or false."""
        self.rows.append({"name": f"{self.key}: {name}", "value": int(met), "unit": "bool",
                          "baseline": None, "ratio": None, "target": 1, "met": bool(met)})
        if not met:
            self.misses.append(name)
        self.say(f"- {name}: **{'yes' if met else 'no'}** ({words})")

    def text(self):
        judged = [row for row in self.rows if row["met"] is not None]
        kept = sum(row["met"] for row in judged)
        head = [f"# {self.key}: {self.title}", "", f"{kept} of {len(judged)} targets met.", ""]
        return "\n".join(head + self.lines).rstrip() + "\n"


def table(page, heads, rows):
    page.say("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads) + "\n" +
             "\n".join("| " + " | ".join(row) + " |" for row in rows))


# ---- plots ----

COLORS = ["#1b6ca8", "#c0392b", "#27814b", "#8e44ad", "#b9770e", "#555555"]


def plot(path, title, x_name, y_name, series, log_x=False):
    """Lines as SVG. series: {name: [(x, y)]}; "paper" is dashed."""
    width, height, left, top, right, bottom = 640, 360, 56, 34, 170, 44
    scale = (lambda x: math.log10(x)) if log_x else (lambda x: x)
    points = [(scale(x), y) for line in series.values() for x, y in line]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    high_y = max(y for _, y in points) or 1
    span = high_x - low_x or 1

    def place(x, y):
        return (left + (scale(x) - low_x) / span * (width - left - right),
                height - bottom - y / high_y * (height - top - bottom))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="20" font-size="14">{escape(title)}</text>']
    for i in range(5):
        y = high_y * i / 4
        at = place(10 ** low_x if log_x else low_x, y)[1]
        out.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        x = low_x + span * i / 4
        value = 10 ** x if log_x else x
        out.append(f'<text x="{place(value, 0)[0]:.1f}" y="{height - bottom + 16}" '
                   f'text-anchor="middle">{value:.3g}</text>')
    out.append(f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">'
               f'{escape(x_name)}</text><text x="14" y="{height / 2}" text-anchor="middle" '
               f'transform="rotate(-90 14 {height / 2})">{escape(y_name)}</text>')
    for i, (name, line) in enumerate(series.items()):
        color = COLORS[i % len(COLORS)]
        dash = ' stroke-dasharray="5 4"' if name == "paper" else ""
        way = " ".join(f"{'L' if j else 'M'}{a:.1f} {b:.1f}"
                       for j, (a, b) in enumerate(place(x, y) for x, y in line))
        at = top + 16 * i
        out.append(f'<path d="{way}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>'
                   f'<path d="M{width - right + 8} {at}h18" stroke="{color}" stroke-width="1.6"{dash}/>'
                   f'<text x="{width - right + 30}" y="{at + 4}" font-size="11">{escape(name)}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out + ["</svg>"]) + "\n")


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


# ---- experiments ----


def four_systems(run, workload):
    return [run.sim(workload, "--system", system) for system in SYSTEMS]


def effective(result, limit):
    return 100 * next(p["share"] for p in result["effective"] if p["tbt_ms"] == limit)


def r1(run, out):
    page = Page("R1", "effective request capacity (FAST'25 Figures 6 and 7)")
    page.say("Share of requests, in percent, whose first token came within 30 s and whose longest tenth of "
             "token intervals has a mean within the limit; 16 nodes. Allowed: 15% of the paper's number for "
             "Mooncake, the larger of 25% and 8 points for the others.")
    started = {w: four_systems(run, w) for w in TRACES if run.has(w)}
    rows, series = [], {}
    for workload, futures in started.items():
        for i, future in enumerate(futures):
            result = future.result()
            series.setdefault(workload, {})[LABELS[SYSTEMS[i]]] = [
                (p["tbt_ms"], 100 * p["share"]) for p in result["effective"]]
            for j, limit in enumerate(THRESHOLDS):
                paper = CAPACITY[workload][i][j]
                allowed = .15 * paper if i == 0 else max(.25 * paper, 8)
                name = f"{label(workload)}, {LABELS[SYSTEMS[i]]}, {limit} ms"
                cell = page.cell(name, effective(result, limit), paper, "%", allowed)
                rows.append([label(workload), LABELS[SYSTEMS[i]], str(limit), cell])
    table(page, ["workload", "system", "limit ms", "paper", "ours", "difference", "met"], rows)
    for workload, futures in started.items():
        gains(page, workload, [f.result() for f in futures])
    for workload, lines in series.items():
        name = f"r1-{workload.replace('&', '-')}.svg"
        plot(os.path.join(out, name), f"TBT of {label(workload)}", "ms", "% of requests", lines, log_x=True)
        page.say(f"![{label(workload)}]({name})")
    page.say("The baselines' router is not published. Ours sends a request to the node with the fewest prompts that "
             "are not computed, of equals to the one with the fewest sequences: all three baselines' curves on the "
             "synthetic workload and on tool&agent then have the paper's shape. Of the 27 cells of the baselines 22 are "
             "met with it, 19 with the fewest requests, 11 round robin, 13 at random. Prompts that wait are computed at "
             "once up to 131,072 tokens, as that version does by default. An iteration that computes prompts in chunks "
             "reads the weights once: the fixed part of a decode step is in it and not counted again.")
    page.say("A prefix cache has a price: that version hashes, for every block of 16 tokens, the prompt from its first token "
             "on, and looks for the block to evict among all that came free with it, in Python, while the device "
             "waits. Both grow with the square of the prompt; their time was measured (src/sim/profile.c): 0.19 s in the "
             "mean over conversation, a tenth of whose prompts are longer than 27,000 tokens. The cache saves 0.10 s there. So "
             "there tokens come later with the cache than without, as in the paper.")
    page.say("And every step has one: that version plans, prepares, samples, detokenises and streams in one process, and the "
             "device waits. Its own code, with the device left out, takes 0.1 ms a sequence and 5.4 ns a token of context, "
             "13.8 ns with a prefix cache (src/sim/profile.c): 1.3 ms before a step of eight sequences of 12,000 tokens, "
             "or 2.1. It was measured, and fitted to no result; with it 31 cells are met instead of 30, and the "
             "baselines' are 6.5 points off in the mean instead of 7.1. Mooncake has nothing of it but what is in its slope: how "
             "its engine's host works is not published. Beyond 8,192 tokens of context that version also launches every "
             "kernel by itself; what that takes is hidden behind the step, as it answers in 30 ms a token on synthetic, and "
             "nothing was added.")
    page.say("Why cells are missed. On conversation the paper's baselines are still slower than ours where nothing but their "
             "decode steps is left to explain it: those of vLLM's requests that are within 100 ms take 59 ms in the median, "
             "ours 53 (50 without the host), at the same computing time of prompts (R2). On tool&agent ours are slow "
             "enough: chunked prefill met its 300 ms without the host. What else was tried, for all cells "
             "at once: 4.7 ms a sequence instead of 4.5, 34 of 36 met, as with 4.6. But Mooncake's medians chose the "
             "step: of all tenths from 4.0 to 5.0 they ask for 4.5, and with 4.7 its conversation's is 82 ms where the "
             "paper's is 74. And so does the whole figure, all twelve curves at its 16 limits: it is 4.66 points off "
             "in the mean with 4.5, 4.83 with 4.6, 4.88 with 4.4 and 5.14 with 4.7. 4.95 ms meets 31 cells, Mooncake's "
             "own at 100 ms on two workloads among the lost; the 35 ns a token of context that Figure 14 shows, 31 "
             "with 4.5 ms and the same two lost, 33 with 4.3 and 29 with 4.0. Arrivals spread over the 3 s that the "
             "trace's stamps are rounded to: one fewer.")
    return page


def gains(page, workload, results):
    """The paper's headline: how much more Mooncake serves than the best baseline."""
    for j, limit in enumerate(THRESHOLDS):
        paper = [column[j] for column in CAPACITY[workload]]
        ours = [effective(result, limit) for result in results]
        wanted = 100 * (paper[0] / max(paper[1:]) - 1)
        found = 100 * (ours[0] / max(ours[1:]) - 1)
        page.say(f"- {label(workload)}, {limit} ms: Mooncake over the best baseline "
                 f"{found:+.0f}% (paper {wanted:+.0f}%)")


def r2(run, _out):
    page = Page("R2", "prefill time (FAST'25 Figure 8)")
    page.say("Mean seconds that a request's prefill takes a node. Allowed: 15% for Mooncake, 25% for the "
             "others.")
    rows = []
    for workload in TRACES:
        if not run.has(workload):
            continue
        for i, future in enumerate(four_systems(run, workload)):
            paper = PREFILL[workload][i]
            ours = future.result()["prefill_s"]["mean"]
            allowed = (.15 if i == 0 else .25) * paper
            cell = page.cell(f"{label(workload)}, {LABELS[SYSTEMS[i]]}", ours, paper, "s", allowed)
            rows.append([label(workload), LABELS[SYSTEMS[i]], cell])
    table(page, ["workload", "system", "paper", "ours", "difference", "met"], rows)
    page.say("The prefill cost was fitted to ten single requests (R13), not to these. On the synthetic trace "
             "it is high without any cache too (7% for vLLM). The rest is reuse: if everything that ever came were "
             "cached everywhere, a prompt would take 0.807 s at our costs, still above the paper's; caches of "
             "3 million tokens a node add 0.02 s, prefixes that are not worth fetching as much again. Blocks of 256 "
             "tokens, which the paper had, would save 0.007 s.")
    return page


def r3(run, out):
    page = Page("R3", "hit ratio against capacity (FAST'25 Figure 9)")
    page.say("Token hit of one LRU over the whole trace. Exact: within 0.002 of values that another program "
             "computed from the same traces. The paper's curve counts finer blocks.")
    rows = []
    for workload in TRACES:
        if not run.has(workload):
            continue
        capacities = ",".join(f"{tokens:.0f}" for tokens in LRU_TOKENS)
        stat = run.start("trace", "stat", run.path(workload), "--json", "--lru", capacities).result()
        ours = []
        for tokens, known, found in zip(LRU_TOKENS, LRU[workload], stat["lru"]):
            cell = page.cell(f"{label(workload)}, {tokens:g} tokens", found["token_hit"], known, "share",
                             .002)
            paper = LRU_PAPER[workload].get(tokens)
            rows.append([label(workload), f"{tokens:g}", "" if paper is None else f"{paper:g}", cell])
            ours.append((tokens, found["token_hit"]))
        name = f"r3-{workload.replace('&', '-')}.svg"
        plot(os.path.join(out, name), f"LRU hit ratio, {label(workload)}", "tokens", "token hit",
             {"ours": ours, "paper": sorted(LRU_PAPER[workload].items())}, log_x=True)
        page.plots.append(f"![{label(workload)}]({name})")
    table(page, ["workload", "tokens", "paper's figure", "exact", "ours", "difference", "met"], rows)
    page.say(*page.plots)
    return page


def r4(run, _out):
    page = Page("R4", "local against global cache (FAST'25 Figure 10)")
    page.say("10 prefill nodes of 3 million tokens each, answers of one token. The paper's local mode "
             "\"still routes to the node with the best match\", and its hit ratios equal those of one node. "
             "That is what comes out if the match alone decides and the first of equals wins: all "
             "conversations begin with the same block, so all go to one node. `match` is that router; "
             "`local` is the conductor without fetches, which also looks at the queues. Allowed: 20% on "
             "the ratios.")
    rows = []
    for workload in TRACES:
        if not run.has(workload):
            continue
        hit_l, hit_g, gpu_l, gpu_g = LOCAL_GLOBAL[workload]
        futures = {p: run.sim(workload, "--nodes", "10P+1D", "--policy", p, output_max=1)
                   for p in ("match", "local", "global")}
        found = {policy: future.result() for policy, future in futures.items()}
        hits = {policy: 100 * result["token_hit"] for policy, result in found.items()}
        gpu = {policy: result["prefill_s"]["mean"] for policy, result in found.items()}
        name = label(workload)
        rows.append([name, "hit, local (match), %", page.cell(f"{name}, hit local", hits["match"], hit_l, "%") + " | "])
        rows.append([name, "hit, local (queues seen), %", f" | {hits['local']:.4g} | | "])
        rows.append([name, "hit, global, %", page.cell(f"{name}, hit global", hits["global"], hit_g, "%") + " | "])
        rows.append([name, "hit, global / local", page.cell(
            f"{name}, hit ratio", hits["global"] / hits["match"], round(hit_g / hit_l, 2), "ratio",
            .2 * hit_g / hit_l)])
        rows.append([name, "prefill s, global / local", page.cell(
            f"{name}, prefill ratio", gpu["global"] / gpu["match"], round(gpu_g / gpu_l, 2), "ratio",
            .2 * gpu_g / gpu_l)])
    table(page, ["workload", "what", "paper", "ours", "difference", "met"], rows)
    page.say("Such a router plans nothing: a prompt finds what the node still has when its turn comes. All wait at one "
             "node here, for half an hour and more; blocks kept for whoever waits would let it hit 37% on synthetic, where an "
             "LRU of 3 million tokens hits 31.5% (R3).")
    return page


def r5(run, out):
    page = Page("R5", "replicas of hot blocks (FAST'25 Figure 11)")
    page.say("Prefill nodes, of 8, that hold the k-th hottest block, over time: the mean of up to 32 blocks that are used as "
             "often, as chance says which of them has the rank. Seconds until there were so "
             "many replicas; replication is a by-product of fetching. No target but the order.")
    rows = []
    for workload in TRACES:
        if not run.has(workload):
            continue
        futures = [run.sim(workload, "--series", speed=speed) for speed in (1, 1.4)]
        samples, faster = [future.result()["samples"] for future in futures]
        for rank, replicas, seconds in REPLICAS[workload]:
            rows.append([label(workload), str(rank), str(replicas), str(seconds),
                         *(reached(s, RANKS.index(rank), replicas) for s in (samples, faster))])
        means, others = [[sum(s["replicas"][i] for s in found) / len(found) for i in range(4)]
                         for found in (samples, faster)]
        page.verdict(f"{label(workload)}: hotter blocks have more replicas", means == sorted(means, reverse=True),
                     "means " + ", ".join(f"{m:.2f}" for m in means) + "; at 1.4x "
                     + ", ".join(f"{m:.2f}" for m in others))
        name = f"r5-{workload.replace('&', '-')}.svg"
        plot(os.path.join(out, name), f"replicas, {label(workload)}", "s", "nodes",
             {f"{rank}th": [(s["time_s"], s["replicas"][i]) for s in samples]
              for i, rank in enumerate(RANKS)})
        page.plots.append(f"![{label(workload)}]({name})")
    table(page, ["workload", "rank", "replicas", "paper s", "ours s", "at 1.4x, s"], rows)
    page.say(*page.plots)
    page.say("Why it differs. With the trace's own speed on 8 nodes queues are short, and a prefix is fetched only"
             " where its holder is busier than the transfer is long: fewer copies than in the paper, whose load is"
             " not published. Where there is more to do there are more. The tenth block of"
             " tool&agent is used by 9,915 requests, the hundredth by 7, so our stand-in has no block as warm as the paper's"
             " hundredth. In synthetic the ranks have 24, 20, 11 and 4 uses,"
             " and the least two change places with the load.")
    return page


def reached(samples, rank, replicas):
    first = next((s["time_s"] for s in samples if s["replicas"][rank] >= replicas), None)
    return "never" if first is None else f"{first:.0f}"


def r6(run, out):
    page = Page("R6", "split of 16 nodes into prefill and decode (FAST'25 Figure 15)")
    page.say("Synthetic workload, TTFT within 10 s, TBT within 100 ms. Allowed: 20%.")
    if not run.has("synthetic"):
        return page
    futures = {p: run.sim("synthetic", "--nodes", f"{p}P+{16 - p}D", ttft_limit_s=10) for p in SPLITS}
    rows, good = [], {}
    for prefill, (share, ttft, tbt) in SPLITS.items():
        result = futures[prefill].result()
        good[prefill] = 100 * result["good"]
        name = f"{prefill}P+{16 - prefill}D"
        rows.append([name, "effective %", page.cell(f"{name}, effective", good[prefill], share, "%", .2 * share)])
        rows.append([name, "mean TTFT s", page.cell(
            f"{name}, TTFT", result["ttft_ms"]["mean"] / 1e3, ttft, "s", .2 * ttft)])
        rows.append([name, "mean TBT ms", page.cell(
            f"{name}, TBT", result["tbt_mean_ms"]["mean"], tbt, "ms", .2 * tbt)])
    table(page, ["split", "what", "paper", "ours", "difference", "met"], rows)
    best = max(good, key=good.get)
    page.verdict("the best split is between 7P and 10P", 7 <= best <= 10, f"ours {best}P")
    page.verdict("5P is the worst", min(good, key=good.get) == 5, f"{good[5]:.1f}%")
    plot(os.path.join(out, "r6.svg"), "effective requests by split", "prefill nodes of 16", "%",
         {"ours": sorted(good.items()), "paper": [(p, v[0]) for p, v in SPLITS.items()]})
    page.say("![capacity by split](r6.svg)")
    page.say("At 11P+5D the paper loses 13% of the requests to TBT, which needs a spread of its decode load "
             "that ours, balanced by sequences, has not.")
    page.say("At 5P+11D the prefill nodes are busy nearly all the time, where the length of a queue hangs on the "
             "last percents of the load: " + ", ".join(
                 f"{run.sim('synthetic', '--nodes', '5P+11D', ttft_limit_s=10, speed=s).result()['ttft_ms']['mean'] / 1e3:.2f} s "
                 f"at {s}x" for s in (1.005, 1.01, 1.02)) + ".")
    return page


def r7(run, _out):
    page = Page("R7", "placement policies (FAST'25 Figure 5, arXiv Figure 8)")
    page.say("Mean time to the first token, in seconds. The papers' absolute load is not known: 8 prefill "
             "nodes at the trace's speed give shorter queues than theirs, so more load is shown beside it. "
             "Asked: the order, and global / local within 20%.")
    if run.has("conversation"):
        placement(page, run, "conversation", PLACEMENT_FAST, [("8P+8D", 1), ("6P+8D", 1), ("8P+8D", 1.4)],
                  "FAST Figure 5")
    if run.has("tool&agent"):
        placement(page, run, "tool&agent", PLACEMENT_ARXIV, [("8P+8D", 1), ("5P+8D", 1), ("5P+8D", 1.1), ("5P+8D", 1.15)],
                  "arXiv Figure 8")
    page.say("Why ratios are missed. Fetching pays off more the longer the queues are: from 5P+8D at 1x to 1.15x "
             "ours falls towards the paper's ratio and comes within 20% of it; the paper's load is not published.")
    return page


def placement(page, run, workload, paper, loads, figure):
    rows = []
    for nodes, speed in loads:
        futures = [run.sim(workload, "--nodes", nodes, "--policy", p, speed=speed) for p in POLICIES]
        ours = [future.result()["ttft_ms"]["mean"] / 1e3 for future in futures]
        where = f"{figure}, {label(workload)}, {nodes} at {speed}x"
        for policy, wanted, found in zip(POLICIES, paper, ours):
            rows.append([nodes, f"{speed}x", policy, f"{wanted:g}", f"{found:.4g}",
                         f"{wanted / paper[3]:.2f}", f"{found / ours[3]:.2f}"])
        page.verdict(f"{where}: order random > load > local > global", ours == sorted(ours, reverse=True),
                     ", ".join(f"{value:.2f}" for value in ours))
        page.cell(f"{where}: global / local", ours[3] / ours[2], round(paper[3] / paper[2], 3), "ratio",
                  .2 * paper[3] / paper[2])
    page.say(f"## {figure}, {label(workload)}")
    table(page, ["nodes", "speed", "policy", "paper s", "ours s", "paper / global", "ours / global"], rows)


# R8: a run takes so long, as the one whose length that paper gives (its Figure 9).
POISSON_S = 1200
RATE_STEP, RATES_BEYOND, POISSON_SEEDS = 1.05, 2, 3
# Data set: trace gen flags, rates tested, highest rate within limits (Mooncake 3P+1D, vLLM), which limits
# count, and extra settings of vLLM.
DATASETS = {
    "ArXiv Summarization": (
        {"input-tokens": 8088, "output-tokens": 229, "spread": 0.4, "roots": 0}, [.5, .8, 1, 1.5, 2, 2.5, 3, 4],
        (3.0, 2.5), ("ttft_ms", "tbt_mean_ms"), {}),
    "L-Eval": (
        {"input-tokens": 3000, "root-tokens": 16000, "output-tokens": 72, "spread": 0.4, "roots": 30},
        [.1, .2, .5, .8, 1, 1.25, 1.5, 1.75, 2, 2.5, 3], (1.75, 1.25), ("ttft_ms",), {}),
    "16k": (None, [.1, .2, .5, 1, 1.25], (1.25, .2), ("ttft_ms", "tbt_mean_ms"), {"batch_max": 1}),
    "32k": (None, [.1, .2, .5, .6], (.6, .2), ("ttft_ms", "tbt_mean_ms"), {"batch_max": 1}),
    "64k": (None, [.05, .1, .2, .3, .4], (.3, .2), ("ttft_ms", "tbt_mean_ms"), {"batch_max": 1}),
    "128k": (None, [.02, .05, .1, .11, .12, .14], (.14, .12), ("ttft_ms", "tbt_mean_ms"), {"batch_max": 1}),
}


def simulated(name):
    """Prompts of one length, half of it one of twenty shared beginnings."""
    half = int(name[:-1]) * 512
    return {"input-tokens": half, "root-tokens": half, "output-tokens": 512, "spread": 0, "roots": 20}


def keeps(result, lowest, keys):
    """Every P90 is within its limit: 10 times (TTFT) and 5 times (TBT) that at the lowest rate."""
    return all(result[key]["p90"] <= (10 if key == "ttft_ms" else 5) * lowest[key]["p90"] for key in keys)


def highest_rate(rates, results, keys):
    """The highest tested rate up to which the limits are kept."""
    best = 0
    for rate, result in zip(rates, results):
        if not keeps(result, results[0], keys):
            break
        best = rate
    return best


def carried(rates, simulate, keys):
    """The highest rate that is kept, in steps of 5% from the lowest tested to twice the highest: what is kept falls
    with the rate, so halves are asked."""
    steps = [rates[0]]
    while steps[-1] * RATE_STEP <= RATES_BEYOND * rates[-1]:
        steps.append(round(steps[-1] * RATE_STEP, 5))
    lowest = simulate(steps[0]).result()
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high + 1) // 2
        kept = keeps(simulate(steps[middle]).result(), lowest, keys)
        low, high = (middle, high) if kept else (low, middle - 1)
    return steps[low]


def next_rate(rates, rate):
    """The one tested after `rate`, or infinity."""
    return next((higher for higher in rates if higher > rate), math.inf)


def poisson(run, name, seed):
    flags, rates = DATASETS[name][:2]
    flags = {**(flags or simulated(name)), "follow": 0, "requests": math.ceil(POISSON_S * RATES_BEYOND * rates[-1]),
             "rate": 1, "input-max": 300000, "seed": seed}
    path = os.path.join(run.scratch, f"{name.replace(' ', '-')}-{seed}.jsonl")
    subprocess.run([run.yolk, "trace", "gen", "--out", path,
                    *(word for flag, value in flags.items() for word in (f"--{flag}", str(value)))], check=True)
    return path


def at_rate(run, path, words, extra):
    """A function of the rate: the simulation, a future."""
    return lambda rate: run.sim(path, *words, profile="a800-lone", speed=rate, requests_max=round(POISSON_S * rate),
                                **extra)


def r8(run, _out):
    page = Page("R8", "data sets with Poisson arrivals, 4 nodes (arXiv Figures 11 and 12)")
    page.say("Highest tested rate (requests a second) at which P90 TTFT is within 10 times and P90 TBT within 5 "
             "times that at the lowest rate; for L-Eval TTFT alone, as both of the paper's systems break the "
             "other. Generated prompts with the published means and cache ratios; on the simulated ones the "
             "paper's vLLM takes one request at a time. Profile a800-lone: at the slope of the FAST'25 "
             "cluster one decode node could not carry the paper's rates. Asked: Mooncake ahead, and the "
             "ratio within 20%.")
    page.say("The rates that the paper tested are a factor of up to 2.5 apart and end where its Mooncake often has room "
             "left, so that its ratio says no more than that the real one is in a range, the last column but one. The ratio "
             "asked for is of tested rates on both sides, like the paper's. Who is ahead is asked in steps of 5%, up to twice the "
             f"highest tested rate, the mean of {POISSON_SEEDS} seeds: of two systems that end at the same tested rate "
             "nothing can be said otherwise.")
    page.say("A run takes 20 minutes at each rate, from cold: the paper does not say how long its runs are, and a "
             "fixed number of requests, which would be a day at the lowest rates, lets a rate just above what a system "
             "can carry fail that passes in minutes. TBT is the mean of a request's intervals; the FAST'25 paper's mean "
             "of the longest tenth is another: of vLLM on ArXiv Summarization this paper has P90 TBT at .20, .24, .27, "
             ".35, .62 and .91 of the limit from 0.5 to 2.5 requests a second, the mean gives .20, .23, .26, .34, .50 and .87, "
             "the longest tenth .20, .32, .40, .69, 1.21 and 2.42.")
    rows = []
    for name, (_, rates, (moon, vllm), keys, extra) in DATASETS.items():
        paths = [poisson(run, name, 1 + i) for i in range(POISSON_SEEDS)]
        systems = {"3P+1D": (("--nodes", "3P+1D"), {}), "2P+2D": (("--nodes", "2P+2D"), {}),
                   "vllm": (("--system", "vllm", "--nodes", "4"), extra)}
        tested = {system: [at_rate(run, paths[0], *how)(rate) for rate in rates] for system, how in systems.items()}
        jobs = [lambda path=path, how=systems[system]: carried(rates, at_rate(run, path, *how), keys)
                for system in ("3P+1D", "vllm") for path in paths]
        fine = at_once(jobs)
        fine = [sum(fine[:POISSON_SEEDS]) / POISSON_SEEDS, sum(fine[POISSON_SEEDS:]) / POISSON_SEEDS]
        found = {system: highest_rate(rates, [f.result() for f in futures], keys)
                 for system, futures in tested.items()}
        ratio, wanted = found["3P+1D"] / max(found["vllm"], 1e-9), moon / vllm
        cell = page.cell(f"{name}, ratio 3P+1D over vLLM", ratio, round(wanted, 3), "ratio", .2 * wanted)
        page.cell(f"{name}, ratio in steps of 5%", fine[0] / fine[1], None, "ratio")
        low, high = moon / next_rate(rates, vllm), next_rate(rates, moon) / vllm
        rows.append([name, f"{moon:g} / {vllm:g}", f"{found['3P+1D']:g} / {found['vllm']:g}", f"{found['2P+2D']:g}", cell,
                     f"above {low:.3g}" if high == math.inf else f"{low:.3g} to {high:.3g}", f"{fine[0] / fine[1]:.3g}"])
        page.verdict(f"{name}: 3P+1D ahead of vLLM", fine[0] > fine[1], f"{fine[0]:.3g} to {fine[1]:.3g}")
    table(page, ["data set", "paper: 3P+1D / vLLM", "ours: 3P+1D / vLLM", "ours: 2P+2D", "ratio, paper", "ours",
                 "difference", "met", "range of the paper's", "ours, in steps of 5%"], rows)
    page.say("Why targets are missed. Of the 64k prompts our vLLM, one request at a time on four nodes, cannot carry more "
             "than 0.158: a prompt takes 10.4 s and its answer 14.9 s. The paper's carries 0.2 at 0.91 of its limit, for which both "
             "together may take no more than 20 s. Our Mooncake carries what three nodes can at the 6.1 s of a prompt "
             "of which half is cached; the paper's ends near the 0.29 that they could if nothing were. On L-Eval too our "
             "Mooncake still keeps its limit at the highest rate tested, and the paper's breaks it at 2, as if most of what its "
             "prompts share was computed anew; how many documents its runs had, and whether they were cached, it does "
             "not say. Nor does it say whether vLLM's prefix cache was on: with it ours carries no more of the 128k prompts, "
             "of which a node's memory holds ten, and 3 and more on L-Eval, where the paper's carries 1.25.")
    return page


def r9(run, out):
    page = Page("R9", "the real workload, 10P+10D against 20 coupled nodes (arXiv Figure 13)")
    if not run.has("tool&agent"):
        return page
    page.say("On the tool&agent stand-in, which has the lengths and the arrivals of that workload. Shares of "
             "requests in percent; the headline is the ratio at 100 ms between tokens, 75% more.")
    ours = [run.sim("tool&agent", "--nodes", "10P+10D").result(),
            run.sim("tool&agent", "--system", "vllm", "--nodes", "20").result()]
    rows = []
    for points, key, axis, unit in ((REAL_TTFT, "ttft_cdf", "ttft_s", "s"),
                                    (REAL_TBT, "effective", "tbt_ms", "ms")):
        for limit, wanted in points.items():
            for i, system in enumerate(("Mooncake", "vLLM")):
                if wanted[i] is None:
                    continue
                found = 100 * next(p["share"] for p in ours[i][key] if p[axis] == limit)
                name = f"{system}, {key.split('_')[0]} within {limit} {unit}"
                rows.append([name, page.cell(name, found, wanted[i], "%")])
    ratio = effective(ours[0], 100) / effective(ours[1], 100)
    rows.append(["more requests, ratio at 100 ms", page.cell("ratio at 100 ms", ratio, 1.75, "ratio", .35)])
    table(page, ["share within", "paper", "ours", "difference"], rows)
    plot(os.path.join(out, "r9.svg"), "TBT, 20 nodes", "ms", "% of requests",
         {name: [(p["tbt_ms"], 100 * p["share"]) for p in result["effective"]]
          for name, result in zip(("Mooncake 10P+10D", "vLLM 20"), ours)}, log_x=True)
    page.say("![TBT](r9.svg)")
    return page


SEEDS = 20


def r10(run, out):
    page = Page("R10", "overload at twice the speed (arXiv Table 3, Figure 9)")
    if not run.has("tool&agent"):
        return page
    limit, decode_s = 100, 100
    page.say("Requests refused of 23,608, 8P+8D, replay at 2x, mean over 20 seeds of arrival jitter within "
             "3 s, on the stand-in trace, with the limits of the paper's real workload: 30 s to the first "
             f"token, {limit} ms between tokens. Prediction takes every decode to last t_d = {decode_s} s; the "
             "paper gives no value, see the sweep below. `adaptive` is ours. More are refused than in the "
             "paper: at the decode cost that R1 shows, 8 nodes can serve about three quarters of what is "
             "asked, whatever the policy, so that run of theirs must have been cheaper. Allowed: 4 points on "
             "the reductions.")
    settings = {"speed": 2, "jitter_ms": 3000, "sample_s": 15, "admit_tbt_ms": limit, "tbt_limit_ms": limit,
                "decode_time_s": decode_s}
    policies = [*OVERLOAD, "adaptive"]
    futures = {p: [run.sim("tool&agent", seed=s + 1, overload=p, **settings) for s in range(SEEDS)]
               for p in policies}
    sweep = {t: run.sim("tool&agent", seed=1, overload="predict", **{**settings, "decode_time_s": t})
             for t in (0, 20, 40, 60, 80, 100, 120, 150, 200)}
    found = {p: [f.result() for f in futures[p]] for p in policies}
    refused = {p: [r["refused_early"] + r["refused_late"] for r in found[p]] for p in policies}
    mean = {p: sum(refused[p]) / SEEDS for p in policies}
    rows = []
    for policy in policies:
        cell = page.cell(f"{policy}, refused", mean[policy], OVERLOAD.get(policy), "requests")
        good = 100 * sum(r["good"] for r in found[policy]) / SEEDS
        waste = sum(r["wasted_prefill_s"] for r in found[policy]) / SEEDS
        correlation = sum(r["load_correlation"] or 0 for r in found[policy]) / SEEDS
        rows.append([policy, cell, f"{good:.1f}", f"{waste:.0f}", f"{correlation:+.2f}"])
    table(page, ["policy", "paper", "ours", "difference", "good %", "wasted prefill s", "load correlation"],
          rows)
    for policy, wanted in (("early", 9.8), ("predict", 14.2)):
        cuts = [100 * (1 - a / b) for a, b in zip(refused[policy], refused["baseline"])]
        page.cell(f"{policy}, fewer refusals than the baseline", sum(cuts) / SEEDS, wanted, "%", 4)
        page.say(f"- {policy}: {sum(cuts) / SEEDS:.1f}% fewer refusals than the baseline (paper {wanted}%), "
                 f"between {min(cuts):.1f}% and {max(cuts):.1f}% over the seeds")
    for better, worse in (("early", "baseline"), ("predict", "early"), ("adaptive", "predict")):
        wins = sum(a < b for a, b in zip(refused[better], refused[worse]))
        page.verdict(f"{better} refuses fewer than {worse} in 15 of 20 seeds or more", wins >= 15,
                     f"{wins} of {SEEDS}")  # 15 of 20: a sign test at 95%
    rows = []
    for seconds, future in sweep.items():
        result = future.result()
        rows.append([f"{seconds} s" if seconds else "the mean, learned", str(result["refused_early"]),
                     str(result["refused_late"]), f"{100 * result['good']:.1f}"])
    page.say("## What prediction takes t_d to be (seed 1)")
    table(page, ["t_d", "refused at arrival", "refused after prefill", "good %"], rows)
    page.say("The mean does not work on this trace: half of its answers are under 60 tokens and a tenth over "
             "500, so most of what is decoded at any time is older than the mean, counts as gone, and "
             "nothing is refused early. The longer t_d, the better. `adaptive` has learned how long answers "
             "of each age go on.")
    swing(page, run, out)
    return page


SWING_NODES, SWING_SPEED, SWING_DECODE_S = "6P+14D", 3, 40
SWING_FROM_S, SWING_SAMPLE_S = 100, 15
STUDENT = {3: 4.303, 5: 2.776, 20: 2.093}  # 97.5% point of Student's t for so many samples


def interval(values):
    """Mean and half the width of its 95% interval."""
    n = len(values)
    mean = sum(values) / n
    deviation = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** .5
    return mean, STUDENT[n] * deviation / n ** .5


def correlation(xs, ys):
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    both = sum((x - mx) * (y - my) for x, y in zip(xs, ys))
    return both / (sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys)) ** .5


def loads(result, speed):
    """Prefill and decode load while requests arrive, without the time in which the queues fill."""
    kept = [s for s in result["samples"] if SWING_FROM_S < s["time_s"] < 3537 / speed]
    return [s["prefill_load"] for s in kept], [s["decode_load"] for s in kept]


def swings(run, workload, nodes, speed, policy, decode_s, seeds):
    return [run.sim(workload, "--nodes", nodes, "--series", seed=s + 1, overload=policy, speed=speed,
                    jitter_ms=3000, sample_s=SWING_SAMPLE_S, decode_time_s=decode_s) for s in range(seeds)]


def swing_cells(futures, speed):
    """Table cells, and (mean, half of the interval) of the correlation at the same time."""
    pairs = [loads(f.result(), speed) for f in futures]
    lags = [interval([correlation(p[:len(p) - lag], d[lag:]) for p, d in pairs]) for lag in (0, 2, 5)]
    levels = [sum(sum(pair[i]) / len(pair[i]) for pair in pairs) / len(pairs) for i in (0, 1)]
    return [*(f"{m:+.2f} ± {h:.2f}" for m, h in lags), *(f"{level:.2f}" for level in levels)], lags[0]


def swing(page, run, out):
    """The anti-phase fluctuation of the arXiv paper's Figure 9: both pools loaded, 20 machines, 20 minutes."""
    if not run.has("conversation"):
        return
    page.say("## The two loads against each other (arXiv Figure 9)")
    page.say(f"20 machines, 20 minutes, a sample every {SWING_SAMPLE_S} s, as in the paper, which finds -0.52 under early "
             "rejection, and +0.30 with decode 30 s later; what runs on them it does not say. The swing needs "
             "both pools loaded and prefills that take long: at 8P+8D above nothing waits for prefill, and "
             f"nothing swings. Here it is conversation on {SWING_NODES} at {SWING_SPEED}x, where both pools are "
             f"full; t_d is {SWING_DECODE_S} s. Mean correlation over {SEEDS} seeds, and its 95% interval:")
    heads = ["correlation", "decode 30 s later", "decode 75 s later", "prefill load", "decode load"]
    rows, means = [], {}
    policies = ("early", "predict", "adaptive")
    series = {p: swings(run, "conversation", SWING_NODES, SWING_SPEED, p, SWING_DECODE_S, SEEDS) for p in policies}
    for policy in policies:
        cells, means[policy] = swing_cells(series[policy], SWING_SPEED)
        rows.append([policy, *cells])
    table(page, ["policy", *heads], rows)
    mean, half = means["early"]
    page.cell("load correlation under early rejection", mean, -.52, "correlation", met=mean + half < -.2)
    page.say(f"- clearly negative under early rejection: **{'yes' if mean + half < -.2 else 'no'}** (all of its "
             f"interval below -0.2: up to {mean + half:+.2f})")
    mean, half = means["predict"]
    page.cell("load correlation under prediction", mean, 0, "correlation", met=mean - half > -.1)
    page.say(f"- gone under prediction: **{'yes' if mean - half > -.1 else 'no'}** (none of its interval below "
             f"-0.1: from {mean - half:+.2f})")
    page.say("Elsewhere (5 seeds). Prediction takes the swing away where the answers are about equally long; on the "
             "stand-in, whose answers are not, it does not.")
    rows = []
    for workload, speed, t_d in (("conversation", 2.7, SWING_DECODE_S), ("conversation", 3.5, SWING_DECODE_S),
                                 ("tool&agent", 3, 100)):
        if not run.has(workload):
            continue
        for policy in ("early", "predict"):
            cells, _ = swing_cells(swings(run, workload, SWING_NODES, speed, policy, t_d, 5), speed)
            rows.append([label(workload), f"{speed}x", policy, *cells])
    table(page, ["workload", "speed", "policy", *heads], rows)
    shown = {p: loads(series[p][0].result(), SWING_SPEED) for p in policies}
    for name in ("early", "predict"):
        prefill, decode = shown[name]
        at = [SWING_FROM_S + SWING_SAMPLE_S * i for i in range(len(prefill))]
        plot(os.path.join(out, f"r10-{name}.svg"), f"loads, {name}, seed 1", "s", "load",
             {"prefill": list(zip(at, prefill)), "decode": list(zip(at, decode))})
        page.say(f"![loads under {name}](r10-{name}.svg)")


def r11(run, out):
    page = Page("R11", "layer-wise storing (arXiv Figure 7)")
    page.say("Seconds that storing the KV of one prompt in DRAM adds to its prefill: afterwards (serialized), and "
             "layer by layer while the next layers are computed. One request alone; the prefill with storing, less "
             "the prefill without. Allowed: 20% on every cell and on the ratio of the two at 128k.")
    rows, found = [], {}
    for tokens, wanted in STORING.items():
        path = run.file(f"one-0-{tokens}.jsonl", one_request(tokens, 0))
        stores = ("measured", "serialized", "layerwise")
        futures = [run.sim(path, "--nodes", "1P+1D", store=store) for store in stores]
        without, *times = [future.result()["prefill_s"]["max"] for future in futures]
        found[tokens] = [seconds - without for seconds in times]
        for i, store in enumerate(("serialized", "layer-wise")):
            name = f"{tokens}k, {store}"
            cell = page.cell(name, found[tokens][i], wanted[i], "s", .2 * wanted[i])
            rows.append([f"{tokens}k", store, cell])
    wanted = STORING[128][0] / STORING[128][1]
    ratio = found[128][0] / found[128][1]
    rows.append(["128k", "ratio", page.cell("128k, serialized over layer-wise", ratio, round(wanted, 3), "ratio",
                                            .2 * wanted)])
    table(page, ["prompt", "storing", "paper", "ours", "difference", "met"], rows)
    page.verdict("layer-wise never takes longer", all(b <= a + 1e-3 for a, b in found.values()), "within a millisecond")
    page.verdict("layer-wise grows by less than a quarter from 8k to 128k",
                 found[128][1] < 1.25 * found[8][1], f"{found[8][1]:.3f} s to {found[128][1]:.3f} s")
    page.say("Two of the ten times were used to fit: 128k serialized is the rate of 48 GB/s, 128k layer-wise the "
             "1.25 ms that launching the copy of a layer takes. The other eight are a test. Everything but this page "
             "runs with the setting store=measured, which adds nothing: the prefill cost was measured with storing.")
    plot(os.path.join(out, "r11.svg"), "storing the KV of a prompt", "thousand tokens", "s", {
        name + paper: [(tokens, (STORING if paper else found)[tokens][i]) for tokens in STORING]
        for i, name in enumerate(("serialized", "layer-wise")) for paper in ("", " (paper)")}, log_x=True)
    page.say("![storing](r11.svg)")
    return page


def r12(run, out):
    page = Page("R12", "bandwidth against time to first token (FAST'25 Figure 13)")
    page.say("Synthetic workload, 8P+8D, replayed at half speed: the paper does not say how fast, but its 2.62 s "
             "with recomputation are not possible at the trace's own, where 8 nodes would be busy all the "
             "time. Allowed: 20% on TTFT relative to that at 400 Gbps.")
    if not run.has("synthetic"):
        return page
    futures = {gbps: run.sim("synthetic", nic_gbps=gbps, speed=0.5) for gbps in BANDWIDTH}
    none = run.sim("synthetic", dram_tokens=0, speed=0.5).result()["ttft_ms"]["mean"] / 1e3
    found = {gbps: future.result() for gbps, future in futures.items()}
    fast = found[400]["ttft_ms"]["mean"] / 1e3
    rows = []
    for gbps, (ttft, transfer) in BANDWIDTH.items():
        ours = found[gbps]["ttft_ms"]["mean"] / 1e3
        wanted = ttft / BANDWIDTH[400][0]
        rows.append([f"{gbps} Gbps", "TTFT s", page.cell(f"{gbps} Gbps, TTFT", ours, ttft, "s") + " | "])
        rows.append([f"{gbps} Gbps", "TTFT / at 400", page.cell(
            f"{gbps} Gbps, TTFT over that at 400", ours / fast, round(wanted, 3), "ratio", .2 * wanted)])
        rows.append([f"{gbps} Gbps", "transfer s", page.cell(
            f"{gbps} Gbps, transfer", found[gbps]["transfer_s"]["mean"], transfer, "s") + " | "])
    rows.append(["recomputation", "TTFT s", page.cell("recomputation, TTFT", none, RECOMPUTE_TTFT, "s") + " | "])
    table(page, ["bandwidth", "what", "paper", "ours", "difference", "met"], rows)
    page.verdict("from 100 Gbps on, reuse over the network beats recomputation",
                 all(found[g]["ttft_ms"]["mean"] / 1e3 < none for g in BANDWIDTH if g >= 100), f"{none:.2f} s")
    plot(os.path.join(out, "r12.svg"), "mean TTFT by bandwidth", "Gbps", "s",
         {"ours": [(g, r["ttft_ms"]["mean"] / 1e3) for g, r in found.items()],
          "paper": [(g, v[0]) for g, v in BANDWIDTH.items()]}, log_x=True)
    page.say("![TTFT by bandwidth](r12.svg)")
    return page


def one_request(tokens, cached):
    """A trace of one request of so many thousand tokens; its cached part comes a minute before."""
    block, n = 64, tokens * 1024
    old = n * cached // 100 // block
    lines = []
    if old:
        lines.append({"timestamp": 0, "input_length": old * block, "output_length": 1, "block_size": block,
                      "hash_ids": list(range(old))})
    ids = list(range(old)) + list(range(n, n + n // block - old))
    lines.append({"timestamp": 60000 if old else 0, "input_length": n, "output_length": 129,
                  "block_size": block, "hash_ids": ids})
    return "".join(json.dumps(line) + "\n" for line in lines)


def r13(run, _out):
    page = Page("R13", "where the time of one request goes (FAST'25 Figure 14)")
    page.say("One request alone, answers of 129 tokens. The prefill cost was fitted to the prefill column: "
             "it shows the quality of the fit, and the rest is a test. Allowed: 20%.")
    rows = []
    for cached, lines in BREAKDOWN.items():
        for tokens, wanted in lines.items():
            path = run.file(f"one-{cached}-{tokens}.jsonl", one_request(tokens, cached))
            alone = run.sim(path, "--nodes", "1P+1D").result()
            # The last request is the one that has intervals.
            prefill, transfer = pick(alone, "prefill_s", cached), pick(alone, "transfer_s", cached, True)
            name = f"{cached}% cached, {tokens}k"
            rows.append([name, "prefill s", page.cell(f"{name}, prefill", prefill, wanted[0], "s", .2 * wanted[0])])
            rows.append([name, "transfer s", page.cell(f"{name}, transfer", transfer, wanted[1], "s", .2 * wanted[1])])
            step = alone["tbt_mean_ms"]["max"]
            rows.append([name, "ms a step", page.cell(f"{name}, step", step, wanted[3], "ms", .2 * wanted[3])])
    table(page, ["request", "what", "paper", "ours", "difference", "met"], rows)
    return page


def pick(result, name, cached, largest=False):
    """The value of the request looked at: of two done ones, the prefill is the smaller one when its
    prefix was cached, and the transfer the larger one, as the other request is not sent at all."""
    if not cached:
        return result[name]["max"]
    both = 2 * result[name]["mean"]
    return result[name]["max"] if largest else both - result[name]["max"]


# What is compared: the papers' best policy, with the t_d that serves it best, and ours. The same jitter for
# all: arrivals of the real traces are quantised to 3 s.
PAPERS = {"overload": "predict", "decode_time_s": 200}
OURS = {"overload": "adaptive", "door": "true", "stretch": 5, "group_max": 3, "admit_ttft_s": 8}
PARTS = {"no door": {"door": "false"}, "limit of 30 s": {"admit_ttft_s": 30}, "in order": {"stretch": 0},
         "one node a prompt": {"group_max": 1}}
BEAT_SEEDS, BEAT_JITTER_MS = 5, 3000
LOADS = [round(0.8 * 1.01 ** i, 4) for i in range(127)]  # speeds of a replay, 1% apart


def beat(run, trace, policy, speed, seed=1):
    return run.sim(trace, seed=seed, speed=round(speed, 4), jitter_ms=BEAT_JITTER_MS, **policy)


def highest(serves):
    """The highest of LOADS up to which serves(load) is at least nine in ten; it falls with the load."""
    low, high = 0, len(LOADS) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if serves(LOADS[middle]) >= .9 else (low, middle - 1)
    return LOADS[low]


def capacity(run, trace, policy, seed=1, unit=1):
    return unit * highest(lambda load: beat(run, trace, policy, unit * load, seed).result()["good"])


def at_once(jobs):
    """Runs functions beside each other; each waits for simulations of its own."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def read_requests(run, workload):
    with open(run.path(workload), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def share_served(needs, given):
    """Of needs that are met from what is given, the least first."""
    served = 0
    for need in sorted(needs):
        given -= need
        if given < 0:
            break
        served += 1
    return served / len(needs)


class Bound:
    """What no policy can exceed, though it knew every answer's length and when each prompt comes: at the limit
    a decode node decodes no more than b sequences, so the pool has so many tokens to give until the last answer
    may end; and the prefill nodes so many seconds until the last first token is due, each prompt taking what it
    takes with everything cached that ever was. The least are served first, as if every request could be moved in
    time, and the two are asked apart."""

    def __init__(self, run, workload, cost, nodes=8, limit_ms=100):
        lines = read_requests(run, workload)
        batch = int((limit_ms / 1e3 - cost["decode_base_s"]) / cost["decode_sequence_s"] + 1e-9)
        self.rate = nodes * batch / (cost["decode_base_s"] + cost["decode_sequence_s"] * batch)
        self.nodes, self.last_s = nodes, lines[-1]["timestamp"] / 1e3
        self.tokens = [max(line["output_length"] - 1, 0) for line in lines]
        self.longest_s = max(self.tokens) * limit_ms / 1e3
        self.prefills, seen = [], set()
        for line in lines:
            n, ids = line["input_length"], line["hash_ids"]
            hits = next((i for i, name in enumerate(ids) if name not in seen), len(ids))
            seen.update(ids)
            reused = min(512 * hits, n - 1)
            self.prefills.append(cost["prefill_fixed_s"] + cost["prefill_new_s"] * (n - reused) +
                                 cost["prefill_square_s"] * (n * n - reused * reused) +
                                 cost["prefill_reused_s"] * reused)

    def served(self, speed):
        seconds = self.last_s / speed + 30
        return min(share_served(self.tokens, self.rate * (seconds + self.longest_s)),
                   share_served(self.prefills, self.nodes * seconds))


def r14(run, _out):
    page = Page("R14", "better than the papers' policies")
    page.say("Same simulator, same traces, same limits (30 s, 100 ms), 8P+8D, 3 s of arrival jitter, "
             f"{BEAT_SEEDS} seeds; means with their 95% intervals. The papers' policy is prediction with the best "
             "t_d of R10's range and Algorithm 1. Ours is `adaptive` with a door, prefill queues that take short "
             "prompts first, and groups of up to three nodes for long prompts (docs/conductor.md). It learns while "
             "it runs, from nothing, and does not know how long an answer will be.")
    page.say("Requests are judged by 30 s to the first token; ours refuses who would not have it in "
             f"{OURS['admit_ttft_s']} s, on every trace. A queue of 30 s serves no more than one of 8 s where the nodes are "
             "busy anyway: it only keeps everybody waiting. Prediction, as published, refuses by the limit that requests "
             "are judged by; what it would do with ours is shown at the end, and R15 lets both choose.")
    workloads = [w for w in TRACES if run.has(w)]
    cost = beat(run, workloads[0], OURS, 1).result()["cluster"]["cost"]
    bounds = dict(zip(workloads, at_once([lambda w=w: Bound(run, w, cost) for w in workloads])))
    if "tool&agent" in workloads:
        beat_at_twice(page, run, bounds["tool&agent"])
    papers = beat_capacity(page, run, workloads, bounds)
    beat_ttft(page, run, workloads, papers)
    beat_same_limit(page, run, workloads, papers)
    return page


def beat_capacity(page, run, workloads, bounds):
    """Returns the papers' highest load by workload."""
    seeds = range(1, BEAT_SEEDS + 1)
    parts = {name: {**OURS, **change} for name, change in PARTS.items()}
    rows, part_rows, papers = [], [], {}
    for workload in workloads:
        jobs = [lambda p=p, s=s: capacity(run, workload, p, s) for p in (PAPERS, OURS) for s in seeds]
        jobs += [lambda p=p: capacity(run, workload, p) for p in parts.values()]
        found = at_once(jobs)
        before, after = found[:BEAT_SEEDS], found[BEAT_SEEDS:2 * BEAT_SEEDS]
        rest = dict(zip(parts, found[2 * BEAT_SEEDS:]))
        gain, half = interval([100 * (b / a - 1) for a, b in zip(before, after)])
        mean_before, mean_after = sum(before) / BEAT_SEEDS, sum(after) / BEAT_SEEDS
        papers[workload] = mean_before
        bound = highest(bounds[workload].served)
        rows.append([label(workload), f"{mean_before:.2f}x", f"{mean_after:.2f}x",
                     f"{gain:+.1f} ± {half:.1f}%", f"{bound:.2f}x"])
        part_rows.append([label(workload), f"{after[0]:.2f}x",
                          *(f"{rest[p]:.2f}x ({100 * (rest[p] / before[0] - 1):+.0f}%)" for p in parts)])
        page.verdict(f"{label(workload)}: highest load with 90% good rises by 10%", gain >= 10,
                     f"{mean_before:.2f}x to {mean_after:.2f}x, {gain:+.1f} ± {half:.1f}%")
        page.cell(f"{label(workload)}, highest load", mean_after, round(mean_before, 4), "x")
    page.say("## Highest speed of the replay at which nine in ten requests are good")
    table(page, ["workload", "prediction", "ours", "over prediction", "bound"], rows)
    page.say("The papers' other policies keep less (R10). The bound knows the future, and no policy reaches it: at the "
             "limit a node decodes no more sequences at once than fit into 100 ms, so the pool has so many tokens "
             "to give; the prefill nodes have so many seconds; the shortest are served first, as if every request "
             "could be moved in time.")
    page.say("Ours with a part taken away, and what is left of the gain (seed 1):")
    table(page, ["workload", "ours", *PARTS], part_rows)
    return papers


def beat_ttft(page, run, workloads, papers):
    seeds = range(1, BEAT_SEEDS + 1)
    rows = []
    for workload in workloads:
        for speed, where in ((1, "the trace's own speed"), (round(papers[workload], 4), "prediction's highest load")):
            both = [[beat(run, workload, p, speed, s) for s in seeds] for p in (PAPERS, OURS)]
            before, after = [[f.result() for f in futures] for futures in both]
            lower, half = interval([100 * (1 - b["ttft_ms"]["p90"] / a["ttft_ms"]["p90"]) for a, b in zip(before, after)])
            p90 = [sum(r["ttft_ms"]["p90"] for r in found) / BEAT_SEEDS / 1e3 for found in (before, after)]
            good = [100 * sum(r["good"] for r in found) / BEAT_SEEDS for found in (before, after)]
            done = [100 * sum(r["done"] / r["requests"] for r in found) / BEAT_SEEDS for found in (before, after)]
            rows.append([label(workload), f"{speed:.2f}x", f"{p90[0]:.2f}", f"{p90[1]:.2f}", f"{lower:.0f} ± {half:.0f}",
                         *(f"{done[i]:.1f} / {good[i]:.1f}" for i in (0, 1))])
            page.cell(f"{label(workload)} at {where}, P90 TTFT", p90[1], round(p90[0], 4), "s")
            page.verdict(f"{label(workload)} at {where}: P90 TTFT is 20% lower", lower >= 20,
                         f"{p90[0]:.2f} s to {p90[1]:.2f} s, {lower:.0f} ± {half:.0f}%")
    page.say("## Time to first token at equal load")
    table(page, ["workload", "speed", "P90 s, prediction", "ours", "lower by %", "served / good %, prediction", "ours"], rows)
    page.say("Of the requests that were served. Most of it comes from groups: where nobody waits, the tenth longest "
             "first token is a long prompt's own computation, which two or three nodes do in about half the time.")


def beat_same_limit(page, run, workloads, papers):
    tighter = {**PAPERS, "admit_ttft_s": OURS["admit_ttft_s"]}
    loads = at_once([lambda w=w, p=p: capacity(run, w, p) for w in workloads for p in (tighter, OURS)])
    rows = []
    for workload, load, ours in zip(workloads, loads[::2], loads[1::2]):
        p90 = [beat(run, workload, p, papers[workload]).result()["ttft_ms"]["p90"] / 1e3 for p in (tighter, OURS)]
        rows.append([label(workload), f"{load:.2f}x", f"{ours:.2f}x", f"{100 * (ours / load - 1):+.0f}%",
                     f"{p90[0]:.2f}", f"{p90[1]:.2f}", f"{100 * (1 - p90[1] / p90[0]):.0f}"])
    page.say(f"## Prediction with our limit of {OURS['admit_ttft_s']} s (seed 1)")
    table(page, ["workload", "highest load, prediction", "ours", "more", "P90 s at prediction's highest load of above",
                 "ours", "lower by %"], rows)


def beat_at_twice(page, run, bound):
    swift = f"ours, first token in {SWIFT_LIMITS_S[0]} s"
    policies = {"baseline": {"overload": "baseline"}, "early": {"overload": "early"}, "predict": PAPERS, "ours": OURS,
                swift: {**OURS, "admit_ttft_s": SWIFT_LIMITS_S[0]}}
    futures = {p: [beat(run, "tool&agent", setting, 2, s + 1) for s in range(BEAT_SEEDS)]
               for p, setting in policies.items()}
    found = {p: [f.result() for f in futures[p]] for p in policies}

    def mean(policy, value):
        return sum(value(r) for r in found[policy]) / BEAT_SEEDS

    def late(result):
        return max(0, result["done"] / result["requests"] - result["good"])

    most = bound.served(2)
    rows = [[policy, f"{100 * mean(policy, lambda r: r['good']):.1f}", f"{100 * mean(policy, late):.1f}",
             f"{mean(policy, lambda r: r['ttft_ms']['p90']) / 1e3:.2f}"] for policy in policies]
    rows.append(["clairvoyant bound", f"{100 * most:.1f}", "0", ""])
    page.say("## Twice the speed, tool&agent stand-in")
    table(page, ["policy", "good %", "served too late %", "P90 TTFT s"], rows)
    before = mean("predict", lambda r: r["good"])
    closed, half = interval([100 * (r["good"] - before) / (most - before) for r in found["ours"]])
    page.verdict("30% of the gap from prediction to the bound is closed", closed >= 30, f"{closed:.0f} ± {half:.0f}%")
    page.verdict("no more violations among the accepted", mean("ours", late) <= mean("predict", late),
                 f"{100 * mean('predict', late):.1f}% to {100 * mean('ours', late):.1f}% of requests")
    ttft = {p: mean(p, lambda r: r["ttft_ms"]["p90"]) / 1e3 for p in policies}
    page.verdict("P90 TTFT of the served is 20% lower at twice the speed", ttft["ours"] <= .8 * ttft["predict"],
                 f"{ttft['predict']:.2f} s to {ttft['ours']:.2f} s")
    page.say("Of two in five of those whom prediction serves the answers are too slow; their first tokens are not. Ours "
             "serves more, all in time, and lets three in ten wait for a place in a full batch, which this last row "
             "counts as time to the first token. A tighter limit keeps that wait short and costs nothing here, where decoding "
             "is what is scarce; on synthetic, where prefill is, it costs load, and this page has one limit for all (R15 "
             "chooses it by the aim).")


# R15: what may be chosen, for the papers' policy and for ours.
CHOICES_PAPERS = [{**PAPERS, "decode_time_s": t, "admit_ttft_s": s} for t, s in ((100, 30), (200, 30), (200, 8))]
CHOICES_OURS = [{**OURS, "stretch": x, "admit_ttft_s": s} for x, s in ((0, 8), (5, 8), (5, 30))]
# What a first token may be limited to by who wants it soon rather than serve more.
SWIFT_LIMITS_S = (2, 3, 4, 6, 8, 30)
UNSEEN = {"Azure 2023, conversation": ("azure2023/AzureLLMInferenceTrace_conv.csv", 1),
          "Azure 2023, code": ("azure2023/AzureLLMInferenceTrace_code.csv", 4)}  # file, speed that loads are of


def halves(run, workload):
    """Two traces: the requests of the first half of the time, and those of the second, from 0."""
    lines = read_requests(run, workload)
    middle = lines[-1]["timestamp"] / 2
    parts = [line for line in lines if line["timestamp"] < middle], [line for line in lines if line["timestamp"] >= middle]
    out = []
    for name, part in zip(("first", "second"), parts):
        start = part[0]["timestamp"]
        text = "".join(json.dumps({**line, "timestamp": line["timestamp"] - start}) + "\n" for line in part)
        out.append(run.file(f"{name}-{workload.replace('&', '-')}.jsonl", text))
    return out


def words(policy):
    shown = {"decode_time_s": "t_d {} s", "stretch": "stretch {}", "group_max": "groups of {}",
             "admit_ttft_s": "first token in {} s"}
    return ", ".join(text.format(policy[key]) for key, text in shown.items() if key in policy)


def r15(run, _out):
    page = Page("R15", "hold-out: judged on what nothing was fitted to")
    page.say("Both policies' numbers are chosen on the first half of a trace, by the highest load at which nine in ten "
             "requests are good (then by P90 TTFT at the trace's own speed), and judged on its second half, with cold "
             "caches and nothing learned. And on traces that nothing was ever chosen on: those have no block ids, so "
             "nothing is reused, and groups, order and door are all there is. 8P+8D, 3 s of jitter, seed 1. What ours "
             "learns while it runs (lengths, margins, applications) it learns anew each time.")
    page.say("To serve more and to answer sooner are two aims, and one number, the limit on the first token that requests "
             "are refused by, trades one for the other. So it is chosen twice: for the highest load as said; and for "
             f"the first token from {', '.join(map(str, SWIFT_LIMITS_S))} s, by the lowest P90 TTFT on the first half "
             "at prediction's highest load there, with no fewer good than under prediction. Prediction itself has nothing "
             "to give at its highest load, where just nine in ten are good. Asked of the second half (or the other "
             "trace): P90 TTFT 20% lower, and no fewer good.")
    rows, chosen = [], {}
    for workload in TRACES:
        if not run.has(workload):
            continue
        first, second = halves(run, workload)
        (papers, load), (ours, _) = [choose(run, first, choices) for choices in (CHOICES_PAPERS, CHOICES_OURS)]
        chosen[workload] = papers, ours, choose_limit(run, first, papers, ours, load)
        hold_out(page, run, rows, f"{label(workload)}, second half", second, *chosen[workload])
    for name, (file, unit) in UNSEEN.items():
        path = os.path.join(run.traces, file)
        if not os.path.exists(path):
            continue
        workload, choice = next(iter(chosen.items()))
        hold_out(page, run, rows, f"{name}, as on {label(workload)}", path, *choice, unit)
    table(page, ["judged on", "prediction", "ours", "highest load", "ours", "more", "P90 TTFT s / good %, prediction",
                 "ours, the same numbers", "ours, for the first token", "lower"], rows)
    page.say("The highest load is a multiple of the trace's own speed; P90 TTFT is at prediction's highest load.")
    page.say("Why targets are missed. Azure's conversations: prompts are short and nobody waits, so that the tenth longest "
             "first token is a prompt's own computation (0.46 s at any limit from 2 s to 30 s, 0.49 with one node a prompt). "
             "Azure's code: there prefill is what is scarce, and a limit that was chosen where it is not refuses too many; "
             "with 4 s instead, ours would have 3.3 s to 3.7 and more good, but that is not known from the other trace. "
             "There a t_d of 100 s or more, with answers of two seconds, refuses far too many: the danger of such "
             "a constant, and most of the gain in load.")
    return page


def choose(run, trace, choices):
    """The policy with the highest load, and that load."""
    loads_found = at_once([lambda c=c: capacity(run, trace, c) for c in choices])
    best = max(loads_found)
    ties = [c for c, load in zip(choices, loads_found) if load == best]
    return min(ties, key=lambda c: beat(run, trace, c, 1).result()["ttft_ms"]["p90"]), best


def choose_limit(run, trace, papers, ours, load):
    """Ours with the limit that has the lowest P90 TTFT and no fewer good than the papers' policy at its highest load."""
    least = beat(run, trace, papers, load).result()["good"]
    found = [({**ours, "admit_ttft_s": s}, beat(run, trace, {**ours, "admit_ttft_s": s}, load)) for s in SWIFT_LIMITS_S]
    kept = [(policy, future.result()) for policy, future in found if future.result()["good"] >= least]
    return min(kept, key=lambda pair: pair[1]["ttft_ms"]["p90"], default=(ours, None))[0]


def hold_out(page, run, rows, name, trace, papers, ours, swift, unit=1):
    before, after = at_once([lambda p=p: capacity(run, trace, p, unit=unit) for p in (papers, ours)])
    found = [beat(run, trace, p, before).result() for p in (papers, ours, swift)]
    p90, good = [r["ttft_ms"]["p90"] / 1e3 for r in found], [100 * r["good"] for r in found]
    gain, lower = 100 * (after / before - 1), 100 * (1 - p90[2] / p90[0])
    shown = [f"{ttft:.2f} / {share:.1f}" for ttft, share in zip(p90, good)]
    rows.append([name, words(papers), words(ours), f"{before:.2f}x", f"{after:.2f}x", f"{gain:+.0f}%",
                 *shown[:2], f"{shown[2]} ({swift['admit_ttft_s']} s)", f"{lower:.0f}%"])
    page.cell(f"{name}, highest load", after, before, "x")
    page.verdict(f"{name}: highest load rises by 10%", gain >= 10, f"{before:.2f}x to {after:.2f}x, {gain:+.1f}%")
    page.cell(f"{name}, P90 TTFT at prediction's highest load, the same numbers", p90[1], round(p90[0], 4), "s")
    page.cell(f"{name}, P90 TTFT at prediction's highest load", p90[2], round(p90[0], 4), "s")
    page.verdict(f"{name}: P90 TTFT is 20% lower, and no fewer good", lower >= 20 and good[2] >= good[0],
                 f"{p90[0]:.2f} s to {p90[2]:.2f} s, {good[0]:.1f}% to {good[2]:.1f}%")


EXPERIMENTS = {"R1": r1, "R2": r2, "R3": r3, "R4": r4, "R5": r5, "R6": r6, "R7": r7, "R8": r8, "R9": r9, "R10": r10,
               "R11": r11, "R12": r12, "R13": r13, "R14": r14, "R15": r15}


# ---- putting it together ----


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def machine():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return f"{models[0] if models else 'unknown CPU'}, {os.cpu_count()} CPUs"


def commit(root):
    done = subprocess.run(["git", "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


def title_of(out, key):
    """As the page of that experiment says it."""
    with open(os.path.join(out, f"{key}.md"), encoding="utf-8") as file:
        return file.readline().split(": ", 1)[1].strip()


def merge(out, pages):
    """{key: rows} of all experiments: those of `pages`, and of the others, tools/reality.py's too, what
    was found before."""
    rows = {page.key: page.rows for page in pages}
    try:
        with open(os.path.join(out, "summary.json"), encoding="utf-8") as file:
            before = json.load(file)["rows"]
    except FileNotFoundError:
        before = []
    kept = [row for row in before if row["name"].split(":")[0] not in rows]
    for row in kept:
        rows.setdefault(row["name"].split(":")[0], []).append(row)
    return {key: rows[key] for key in (*EXPERIMENTS, "reality") if key in rows}


def write_index(out, rows):
    lines = ["# The papers' experiments, simulated", "",
             "Made by `make results` from public traces; one parameter set (profile a800 of",
             "`src/sim/profile.c`) for all of it but R8. Every cell is a row of `summary.json`. tool&agent is a",
             "generated stand-in with the published aggregates of that trace, not the trace itself.", "",
             "| | experiment | targets met | missed |", "|---|---|---|---|"]
    for key, found in rows.items():
        judged = [row for row in found if row["met"] is not None]
        misses = [row["name"].split(": ", 1)[1] for row in judged if not row["met"]]
        missed = "; ".join(misses[:4]) + (f"; and {len(misses) - 4} more" if len(misses) > 4 else "")
        lines.append(f"| [{key}]({key}.md) | {title_of(out, key)} | "
                     f"{sum(row['met'] for row in judged)} of {len(judged)} | {missed} |")
    lines += ["", "## What was chosen with a look at the papers' numbers", "",
              "- The prefill cost: fitted to R13. The slope of the decode cost: by Mooncake's medians in R1's",
              "  figure, from three values. All else in the profile is measured, by the papers or, what is the software",
              "  of the baselines, here.",
              "- R4: the local router, because its hit ratios are those of one node.",
              "- R7: the loads beside 1x. R12: half speed, because recomputation is not possible at 1x.",
              "- R1: the baselines' router, one for all three, by the shape of its figure's curves.",
              "- R8: the profile a800-lone, and which mean its TBT is. R10: t_d, from the sweep shown there, and the",
              "  cluster of its Figure 9.",
              "- R14: the constants of our policy, on these traces; R15 judges it on others.",
              "- R11: the rate and the launch of storing, from two of its ten times.",
              "", "Everything else is a test."]
    write(os.path.join(out, "README.md"), "\n".join(lines) + "\n")


def find_traces(given, root):
    for path in (given, os.environ.get("YOLK_TRACES"), os.path.join(root, "..", "shared", "traces")):
        if path and os.path.isdir(path):
            return path
    return None


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--yolk", default=os.path.join(root, "build", "bin", "yolk"))
    parser.add_argument("--traces")
    parser.add_argument("--only", default=",".join(EXPERIMENTS))
    parser.add_argument("--out", default=os.path.join(root, "docs", "results"))
    args = parser.parse_args()
    traces = find_traces(args.traces, root)
    if traces is None:
        print("skipped: no traces in $YOLK_TRACES or ../shared/traces")
        return 0
    os.makedirs(args.out, exist_ok=True)
    pages = []
    with tempfile.TemporaryDirectory() as scratch:
        run = Runner(os.path.abspath(args.yolk), traces, scratch)
        for workload in TRACES:
            if not run.has(workload):
                print(f"skipped: {TRACES[workload]} is not in the traces: its cells are left out")
        for key in args.only.split(","):
            print(f"{key} ...", end="", flush=True)
            page = EXPERIMENTS[key](run, args.out)
            pages.append(page)
            judged = [row for row in page.rows if row["met"] is not None]
            print(f" {sum(row['met'] for row in judged)} of {len(judged)} targets met")
            write(os.path.join(args.out, f"{key}.md"), page.text())
    rows = merge(args.out, pages)
    write_index(args.out, rows)
    summary = {"bench": "results", "commit": commit(root), "machine": machine(),
               "rows": [row for found in rows.values() for row in found]}
    write(os.path.join(args.out, "summary.json"), json.dumps(summary, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
