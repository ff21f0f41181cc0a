# SPDX-License-Identifier: Apache-2.0
"""yolk replay: prompts share what the trace says, and every request is counted once."""
import http.server
import json
import threading
import time

import pytest

from cluster import Cluster, free_port, run_yolk

# Blocks of 4 tokens. The second prompt shares two blocks with the first, the third none.
TRACE = [(0, 11, 3, [1, 2, 3]), (100, 14, 3, [1, 2, 4, 5]), (200, 8, 3, [6, 7]),
         (300, 8, 3, [6, 7]), (400, 5, 3, [8, 9])]


def write_trace(path, rows=TRACE, block=4):
    path.write_text("".join(json.dumps({
        "timestamp": at, "input_length": n, "output_length": out, "hash_ids": ids,
        "block_size": block}) + "\n" for at, n, out, ids in rows))
    return path


class Gateway:
    """Answers as told: tokens so far apart, or a refusal."""

    def __init__(self, refuse=(), pace=0.02):
        self.bodies, self.times, lock = [], [], threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.times.append(time.monotonic())
                self.send_response(refuse[number] if number < len(refuse) else 200)
                self.end_headers()
                if number < len(refuse) and refuse[number] != 200:
                    return
                time.sleep(0.1)
                for _ in range(body["max_tokens"]):
                    self.say({"choices": [{"text": " a"}]})
                    time.sleep(pace)
                self.say({"choices": [], "usage": {
                    "prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"],
                    "prompt_tokens_details": {"cached_tokens": 4}}})
                self.wfile.write(b"data: [DONE]\n\n")

            def say(self, value):
                text = json.dumps(value, separators=(",", ":"))
                self.wfile.write(f"data: {text}\n\n".encode())
                self.wfile.flush()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def replay(trace, url, *args):
    return run_yolk("replay", "--trace", trace, "--url", url, "--model", "m", *args)


def test_prompts_share_what_the_trace_says(tmp_path):
    gateway = Gateway()
    ran = replay(write_trace(tmp_path / "t.jsonl"), gateway.url, "--json")
    gateway.stop()
    assert ran.returncode == 0, ran.stderr
    out = json.loads(ran.stdout)
    assert (out["requests"], out["finished"], out["rejected"], out["failed"]) == (5, 5, 0, 0)
    assert out["prompt_tokens"] == 46 and out["cached_tokens"] == 20
    assert out["generated_tokens"] == 15 and out["good"] == 5
    # 100 and 20 ms, and what a busy machine adds; in milliseconds in any case.
    assert out["ttft_ms"]["count"] == 5 and 90 < out["ttft_ms"]["p50"] < 3000
    assert out["tbt_ms"]["count"] == 10 and 5 < out["tbt_ms"]["p50"] < 1000
    prompts = [body["prompt"] for body in gateway.bodies]
    assert [len(prompt) for prompt in prompts] == [n for _, n, _, _ in TRACE]
    assert prompts[0][:8] == prompts[1][:8] and prompts[0][8:11] != prompts[1][8:11]
    assert prompts[2] == prompts[3]
    assert prompts[2][:4] != prompts[0][:4] and prompts[4][:4] != prompts[2][:4]
    assert all(body["max_tokens"] == 3 and body["ignore_eos"] for body in gateway.bodies)
    gaps = [b - a for a, b in zip(gateway.times, gateway.times[1:])]
    # Due every 100 ms: a busy machine sends late, and then the next gap is short; none comes early.
    assert gateway.times[-1] - gateway.times[0] > 0.35 and min(gaps) >= 0


def test_scale_speed_and_limits_of_size(tmp_path):
    gateway = Gateway()
    trace = write_trace(tmp_path / "t.jsonl", [(0, 400, 30, [1, 2, 3, 4]), (4000, 400, 30, [1, 2, 3, 5]),
                                               (4000, 800, 30, list(range(10, 18))),
                                               (9000, 9, 9, [99])], 100)
    ran = replay(trace, gateway.url, "--json", "--scale", "0.1", "--output-scale", "0.2", "--speed",
                 "4", "--max-requests", "3", "--prompt-max", "60")
    gateway.stop()
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["requests"] == 3
    prompts = sorted((body["prompt"] for body in gateway.bodies), key=len)  # two came together
    assert [len(prompt) for prompt in prompts] == [40, 40, 60]
    assert prompts[0][:30] == prompts[1][:30] and prompts[0][30:] != prompts[1][30:]
    assert [body["max_tokens"] for body in gateway.bodies] == [6, 6, 6]
    assert 0.5 < gateway.times[1] - gateway.times[0] < 3.5  # 1 s; 4 s without --speed


def test_every_request_is_counted_once(tmp_path):
    gateway = Gateway(refuse=[200, 429, 500, 429], pace=0.3)  # so that no two are read together
    ran = replay(write_trace(tmp_path / "t.jsonl"), gateway.url, "--json", "--tbt-limit", "1ms")
    gateway.stop()
    assert ran.returncode == 1  # something failed that was not refused
    out = json.loads(ran.stdout)
    assert (out["requests"], out["finished"], out["rejected"], out["failed"]) == (5, 2, 2, 1)
    assert out["good"] == 0 and out["good_tokens"] == 0
    gateway = Gateway(refuse=[200, 429])
    ran = replay(tmp_path / "t.jsonl", gateway.url, "--ttft-limit", "10ms")
    gateway.stop()
    assert ran.returncode == 0
    assert "4 answered, 1 rejected, 0 failed" in ran.stdout
    assert "0 requests (0.0%) within the limits" in ran.stdout


def test_cache_of_a_live_cluster_follows_the_trace(tmp_path):
    made = Cluster(tmp_path, "--engine", "timed", "--engine-speed", 20, "--pool-size", "64M",
                   "--prefill", 2).wait_ready()
    rows = [(1000 * i, 256 + 32, 4, [*range(8), 100 + i]) for i in range(6)]
    try:
        ran = run_yolk("replay", "--trace", write_trace(tmp_path / "t.jsonl", rows, 32), "--url",
                       made.url, "--speed", 10, "--json")
    finally:
        made.stop()
    out = json.loads(ran.stdout)
    assert (out["finished"], out["failed"]) == (6, 0)
    assert out["cached_tokens"] == 5 * 256


@pytest.mark.parametrize("args, code, text", [
    ((), 2, "--trace"),
    (("--trace", "nowhere.jsonl"), 2, "nowhere.jsonl"),
    (("--url", "ftp://x:1"), 2, "http://HOST:PORT"),
    (("--url", "http://"), 2, "http://HOST:PORT"),
    (("--speed", "0"), 2, "the speed"),
    (("--scale", "nan"), 2, "--scale"),
    (("--model", 'a"b'), 2, "no name of a model"),
])
def test_bad_input(tmp_path, args, code, text):
    trace = () if not args or "--trace" in args else ("--trace", write_trace(tmp_path / "t.jsonl"))
    ran = run_yolk("replay", *trace, *args)
    assert ran.returncode == code
    assert text in ran.stderr and len(ran.stderr.splitlines()) == 1 and ran.stdout == ""


def test_nobody_there(tmp_path):
    ran = replay(write_trace(tmp_path / "t.jsonl"), f"127.0.0.1:{free_port()}", "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["failed"] == 5
    assert "no gateway answers" in ran.stderr and len(ran.stderr.splitlines()) == 1
