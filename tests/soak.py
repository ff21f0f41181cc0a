#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real cluster under clients that hang up and processes that are killed, stopped and drained.

    tests/soak.py [--seconds 600] [--seed N] [--clients 6]

Two prefill and two decode nodes serve; what each question's greedy answer is was asked of a cluster
without a pool before. Meanwhile prefill and decode nodes and the master get SIGKILL, SIGSTOP for a
while, or SIGTERM, at random. Afterwards nobody may still wait, every answer that was not hung up on
must have been the right one, no KV page may be held, and the gateway, which is never killed, must have grown
neither in memory nor in open files. Exits 1, and says why, if not.

A refusal (429 or 503 before the first byte) is allowed, counted, and asked again. `make soak` runs
this for half of its time; the seed decides what is asked and done, not when exactly.
"""
import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "e2e"))
from cluster import Cluster, events, wait_until  # noqa: E402

QUESTIONS, DOCUMENTS = 24, 4
STUCK_S = 180            # no answer takes longer, faults and a slow machine included
GROWTH_MAX = 48 << 20    # bytes that the gateway may grow after the first fifth of the time
FILES_MAX = 8            # files, sockets among them, that it may have more when nobody asks than it had then


class HungUp(Exception):
    pass


class Refused(Exception):
    pass


def questions(rng):
    """Chats, some of which share a long document."""
    documents = [" ".join(f"word{rng.randrange(10000)}" for _ in range(rng.randrange(40, 220)))
                 for _ in range(DOCUMENTS)]
    return [{"model": "smollm2", "temperature": 0, "ignore_eos": True, "stream": True,
             "max_tokens": rng.randrange(8, 96),
             "messages": [{"role": "user",
                           "content": f"{rng.choice([*documents, 'Hello.'])} Question {n}: why?"}]}
            for n in range(QUESTIONS)]


def ask(port, body, hang_up_after=None):
    """The text of the streamed answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STUCK_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        if response.status in (429, 503):
            raise Refused
        if response.status != 200:
            raise AssertionError(f"status {response.status}: {response.read(500)!r}")
        pieces = []
        for event in events(response):
            pieces += [c["delta"]["content"] for c in event["choices"] if c["delta"].get("content")]
            if hang_up_after is not None and len(pieces) >= hang_up_after:
                raise HungUp
        return "".join(pieces)
    finally:
        connection.close()


class Soak:
    def __init__(self, cluster, asked, answers, seed):
        self.cluster, self.asked, self.answers, self.seed = cluster, asked, answers, seed
        self.over = threading.Event()
        self.counts = collections.Counter()
        self.wrong = []
        self.lock = threading.Lock()

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def client(self, number):
        rng = random.Random(f"{self.seed} client {number}")
        while not self.over.is_set():
            which = rng.randrange(QUESTIONS)
            after = rng.randrange(1, 30) if rng.random() < .15 else None
            try:
                text = ask(self.cluster.port, self.asked[which], after)
            except HungUp:
                self.count("hung up")
            except Refused:
                self.count("refused")
                time.sleep(.2)
            except Exception as error:  # what else may happen is what is looked for
                self.wrong.append(f"question {which}: {type(error).__name__}: {error}")
            else:
                self.count("answered")
                if text != self.answers[which]:
                    self.wrong.append(f"question {which}: {text!r}, not {self.answers[which]!r}")

    def fault(self, rng):
        role = rng.choice(["prefill", "prefill", "decode", "decode", "master"])
        kind = rng.choice(["kill", "stop", "drain"])
        pids = self.cluster.children(role)
        if not pids:
            return
        pid = rng.choice(pids)
        try:
            if kind == "stop":
                os.kill(pid, signal.SIGSTOP)
                time.sleep(rng.uniform(.1, 3))
                os.kill(pid, signal.SIGCONT)
            else:
                os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        except ProcessLookupError:
            return
        self.count(f"{kind} {role}")

    def size(self):
        """Resident bytes and open files of the gateway."""
        pid, = self.cluster.children("gateway")
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE"), len(os.listdir(f"/proc/{pid}/fd"))

    def nobody_holds_pages(self):
        nodes = json.loads(self.cluster.get("/debug/nodes")[1])["nodes"]
        return len(nodes) == 4 and all(
            n["works"] and n["pages_free"] + n["pages_cached"] == n["pages_total"] for n in nodes)

    def run(self, seconds, clients):
        rng = random.Random(f"{self.seed} faults")
        threads = [threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(clients)]
        for thread in threads:
            thread.start()
        start, before = time.monotonic(), None
        while time.monotonic() < start + seconds and not self.wrong:
            time.sleep(rng.uniform(.5, 6))
            self.fault(rng)
            if before is None and time.monotonic() > start + seconds / 5:
                before = self.size()
        self.over.set()
        for thread in threads:
            thread.join(STUCK_S)
        if any(thread.is_alive() for thread in threads):
            self.wrong.append(f"a request is stuck for {STUCK_S} s")
        self.settle(before)

    def settle(self, before):
        """Once nobody asks, nothing may be left, and a question is answered as ever."""
        try:
            wait_until(lambda: self.cluster.get("/ready")[0] == 200, 60, "ready again")
            for name in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
                wait_until(lambda: self.cluster.metric(name) == 0, 60, f"{name} back to 0")
            wait_until(self.nobody_holds_pages, 60, "four nodes without a page in use")
            if ask(self.cluster.port, self.asked[0]) != self.answers[0]:
                self.wrong.append("a wrong answer after all faults")
        except (AssertionError, Refused) as error:
            self.wrong.append(f"afterwards: {error!r}")
        after = self.size()
        print(f"gateway: (bytes, files) {before} at a fifth of the time, {after} at its end", flush=True)
        if before is not None and (after[0] > before[0] + GROWTH_MAX or after[1] > before[1] + FILES_MAX):
            self.wrong.append(f"the gateway grew from {before} to {after} (bytes, files)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=6)
    args = parser.parse_args()
    asked = questions(random.Random(args.seed))
    with tempfile.TemporaryDirectory() as folder:
        plain = pathlib.Path(folder, "plain")
        plain.mkdir()
        quiet = Cluster(plain, "--no-pool").wait_ready()
        answers = [ask(quiet.port, body) for body in asked]
        quiet.stop()
        cluster = Cluster(folder, "--prefill", 2, "--decode", 2).wait_ready()
        soak = Soak(cluster, asked, answers, args.seed)
        soak.run(args.seconds, args.clients)
        print(f"seed {args.seed}: " + ", ".join(f"{n} {what}" for what, n in sorted(soak.counts.items())), flush=True)
        if soak.wrong:
            print(cluster.tail(30))
            print("\n".join(soak.wrong[:10]))
        cluster.stop()
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
