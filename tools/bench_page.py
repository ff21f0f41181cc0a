#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what `make bench` and `make peers` measured: docs/numbers.md, and its headlines into README.md.

    tools/bench_page.py [--from build/bench] [--root DIR]

Reads NAME.json of each bench (the rows of every `yolk bench NAME --json`), and, where they are there,
peers.json and peers_store.json. docs/numbers.md is replaced; in README.md what is between the lines
`<!-- numbers -->` and `<!-- end of numbers -->`. Every row of the benches is on the page, and README
counts those that miss their targets and names them; which rows are headlines is chosen below. Benches
of different commits or machines are refused; the peers' tables say which they are of. Python 3 and
nothing else.
"""

import argparse
import json
import os
import sys

BEGIN, END = "<!-- numbers -->\n", "<!-- end of numbers -->\n"

# What each bench's baseline is.
BENCHES = {
    "engine": "Beside it llama.cpp (PyPI's prebuilt xllamacpp) on as many threads, in the same run.",
    "serve": "Beside it the first request, one node, one coupled process, or all bytes moved.",
    "gateway": "Beside it a bare exchange over a socket; decode nodes are stand-ins that make words up. A gap is "
               "the longest of eight streams with a token every 5 ms, while a text of that size is tokenised "
               "for somebody else.",
    "transfer": "Beside it raw sockets (waiting the same way), libfabric, memcpy, process_vm_readv, fio, "
                "MADV_POPULATE_WRITE, or one rail. A row is met when the 95% interval of its ratio "
                "reaches the target.",
    "store": "Beside it the bare disk, raw sockets, memcpy, or a bare echo on epoll. A ratio with an interval "
             "is met when that reaches the target.",
    "conductor": "500 prefill and 500 decode instances, 10 million indexed blocks.",
    "sim": "Replays, on one core.",
}

# (bench, row, what a reader calls it)
HEADLINES = [
    ("serve", "ttft_shared_3000_token_prefix", "first token, prefix of 3,000 tokens in the pool; beside: computed"),
    ("serve", "exec_to_ready", "start of a node to ready"),
    ("serve", "ttft_8000_tokens_two_nodes_of_a_group", "first token of 8,000 tokens, two nodes; beside: one"),
    ("serve", "pause_added_by_the_kill_p99", "pause of streams when their decode node is killed, p99"),
    ("engine", "prefill_2048", "SmolLM2-135M, prefill; beside: llama.cpp"),
    ("engine", "decode_8", "SmolLM2-135M, decode of 8; beside: llama.cpp"),
    ("engine", "gemma3_prefill_2048", "Gemma 3 270M, prefill; beside: llama.cpp"),
    ("engine", "gemma3_decode_8", "Gemma 3 270M, decode of 8; beside: llama.cpp"),
    ("gateway", "streams_of_16_tokens_per_core", "streams of 16 tokens through a gateway, a core"),
    ("transfer", "tcp_write_1m_depth4", "transfer over TCP, 1 MiB; beside: raw sockets"),
    ("transfer", "tcp_read_4k_depth128", "the same, 4 KiB, 128 under way; beside: raw sockets"),
    ("transfer", "shm_read_1m_depth4", "through shared memory; beside: memcpy"),
    ("transfer", "rails_read_two_of_1gbit", "two network interfaces; beside: one"),
    ("transfer", "rails_read_cut_stall", "pause when one of them is cut"),
    ("store", "lookup_one_key_8_threads", "lookups in the directory, one key a call"),
    ("store", "get_batch_128", "the same, 128 keys a call"),
    ("store", "get_tcp_4MiB", "values of 4 MiB from another process over TCP, verified; beside: raw sockets"),
    ("store", "ssd_cold_read_1MiB", "blocks from disk, cold and verified; beside: the bare disk"),
    ("conductor", "decision_256_blocks_p50", "one decision, 1,000 instances, prompt of 128k tokens"),
    ("sim", "million_1000_nodes", "a million requests on 1,000 simulated nodes"),
]


def number(value):
    if value is None:
        return ""
    digits = f"{value:.3g}"
    return f"{float(digits):,.0f}" if 1e3 <= abs(value) < 1e12 else digits


def with_unit(row):
    return f"{number(row['value'])} {row['unit']}".strip()


def ratio(row):
    interval = "" if row["low"] is None else f" [{number(row['low'])}, {number(row['high'])}]"
    return number(row["ratio"]) + interval


def target(row):
    return "" if row["met"] is None else number(row["target"])


def met(row):
    if row["skipped"]:
        return "skipped"
    return {True: "yes", False: "**no**", None: ""}[row["met"]]


def bench_section(name, report):
    lines = [f"## `yolk bench {name}`", "", BENCHES[name], "",
             "| row | value | beside it | ratio | target | met |", "|---|---|---|---|---|---|"]
    for row in report["rows"]:
        if row["skipped"]:
            lines.append(f"| {row['name']} | skipped: {row['skipped']} | | | | |")
            continue
        lines.append(f"| {row['name']} | {with_unit(row)} | {number(row['baseline'])} | {ratio(row)} | "
                     f"{target(row)} | {met(row)} |")
    return lines + [""]


def peers_section(directory, root):
    """The tables of the scripts that made the files."""
    sys.path.insert(0, os.path.join(root, "bench", "peers"))
    import mooncake
    import mooncake_store
    lines = []
    for name, table in (("peers.json", mooncake.table), ("peers_store.json", mooncake_store.markdown)):
        result = load(directory, name)
        if result is not None:
            lines += [table(result), ""]
    return lines


def load(directory, name):
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as text:
        return json.load(text)


def provenance(reports):
    found = {(r["machine"], r["commit"]) for r in reports.values()}
    if len(found) != 1:
        raise SystemExit(f"the benches are of {len(found)} machines or commits: {sorted(found)}")
    return found.pop()


def headlines(reports):
    lines = ["| what | value | beside it | ratio | target | met |", "|---|---|---|---|---|---|"]
    for bench, name, words in HEADLINES:
        row = next((r for r in reports[bench]["rows"] if r["name"] == name), None) if bench in reports else None
        if row is None:
            raise SystemExit(f"{bench}: there is no row {name}")
        lines.append(f"| {words} | {with_unit(row)} | {number(row['baseline'])} | {number(row['ratio'])} | "
                     f"{target(row)} | {met(row)} |")
    return lines


def balance(reports):
    judged = [(bench, row) for bench, report in reports.items() for row in report["rows"]
              if row["met"] is not None]
    missed = [f"`{row['name']}`" for _, row in judged if not row["met"]]
    words = f"Of {len(judged)} rows with a target, {len(judged) - len(missed)} meet it."
    return words if not missed else words + " Missed: " + ", ".join(missed) + "."


def write_page(path, machine, commit, reports, peers):
    lines = ["# Numbers", "",
             f"Made by `make bench peers numbers` on {machine}, commit {commit[:12]}; one run of each bench, "
             "which takes medians. Everything is on one machine whose two CPUs are shared with others: expect "
             "single figures to move by a quarter, ratios by less. A target is of the ratio where there is one, else "
             "of the value. Why rows are missed is in ARCHITECTURE.md, "
             "store.md and transfer.md.", "", balance(reports), ""]
    for name in BENCHES:
        if name in reports:
            lines += bench_section(name, reports[name])
    if peers:
        lines += ["## Beside Mooncake", ""] + peers
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines).rstrip() + "\n")


def write_readme(path, machine, commit, reports, peers):
    with open(path, encoding="utf-8") as text:
        whole = text.read()
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: the lines around the numbers are not there")
    lines = [f"{machine}, commit {commit[:12]}; all rows, and what they are compared with, are in "
             "docs/numbers.md. A target is of the ratio where there is one, else of the value.", "", *headlines(reports), "", balance(reports), ""]
    if peers:
        lines += ["### Beside Mooncake", "", *peers]
    with open(path, "w", encoding="utf-8") as out:
        out.write(before + begin + "\n".join(lines).rstrip() + "\n" + end + after)


def main():
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="directory", help="default: build/bench")
    parser.add_argument("--root", default=here)
    options = parser.parse_args()
    directory = options.directory or os.path.join(options.root, "build", "bench")
    reports = {name: report for name in BENCHES if (report := load(directory, f"{name}.json")) is not None}
    if not reports:
        raise SystemExit(f"{directory}: no figures; run `make bench` first")
    machine, commit = provenance(reports)
    peers = peers_section(directory, here)
    write_readme(os.path.join(options.root, "README.md"), machine, commit, reports, peers)
    write_page(os.path.join(options.root, "docs", "numbers.md"), machine, commit, reports, peers)


if __name__ == "__main__":
    main()
