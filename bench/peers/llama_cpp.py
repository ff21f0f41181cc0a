# SPDX-License-Identifier: Apache-2.0
"""llama.cpp on the same model and threads, for `yolk bench engine`.

Usage: llama_cpp.py MODEL THREADS RESULT. Writes lines of a row's name and tokens/s to RESULT
(prefill_512, prefill_2048, decode_1, decode_8): medians of 5, by the library's own timings (prefill,
decode at batch 1) or by the clock over all streams (decode at batch 8). Exits 77 if the binding
(`pip install xllamacpp`) is not installed.
"""
import json
import random
import statistics
import sys
import threading
import time

try:
    import xllamacpp as xlc
except ImportError:
    sys.exit(77)

RUNS = 5
DECODE_TOKENS = 64
PROMPT = 128


def complete(server, tokens, n_predict):
    answer = server.handle_completions({
        "prompt": tokens, "n_predict": n_predict, "cache_prompt": False, "temperature": 0,
        "ignore_eos": True})
    return json.loads(answer) if isinstance(answer, (str, bytes)) else answer


def main(model, threads, result):
    params = xlc.CommonParams()
    params.model.path = model
    params.n_ctx = 8 * 4096
    params.n_parallel = 8
    params.n_batch = 2048
    params.n_ubatch = 512
    params.cpuparams.n_threads = int(threads)
    params.cpuparams_batch.n_threads = int(threads)
    server = xlc.Server(params)
    rng = random.Random(1)

    def tokens(n):
        return [rng.randrange(1000, 40000) for _ in range(n)]

    def prefill(n):
        return statistics.median(
            complete(server, tokens(n), 1)["timings"]["prompt_per_second"] for _ in range(RUNS))

    def decode_one():
        return statistics.median(
            complete(server, tokens(PROMPT), DECODE_TOKENS)["timings"]["predicted_per_second"]
            for _ in range(RUNS))

    def decode_eight():
        """Rate while all eight decode: the slowest stream's tokens over the time of decoding."""
        answers = [None] * 8

        def run(i):
            answers[i] = complete(server, tokens(PROMPT), DECODE_TOKENS)["timings"]

        streams = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()
        return sum(a["predicted_per_second"] for a in answers)

    complete(server, tokens(64), 4)  # warm
    rows = {"prefill_512": prefill(512), "prefill_2048": prefill(2048), "decode_1": decode_one(),
            "decode_8": statistics.median(decode_eight() for _ in range(RUNS))}
    with open(result, "w") as out:
        for name, rate in rows.items():
            out.write(f"{name} {rate:.2f}\n")


if __name__ == "__main__":
    start = time.monotonic()
    main(*sys.argv[1:4])
    print(f"llama.cpp measured in {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.stderr.flush()
    import os
    os._exit(0)  # the server's threads do not end by themselves
