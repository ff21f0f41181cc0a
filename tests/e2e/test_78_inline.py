# SPDX-License-Identifier: Apache-2.0
"""--inline-tbt: short prompts are computed by their decode node, beside its steps. --coupled: all
are. What is answered depends on neither."""
import concurrent.futures
import json

import pytest

from cluster import Cluster, run_yolk

CROWD = 6
PREFIX = " ".join(f"Rule {i} is {i * 7919 % 1000}." for i in range(12))
LONG = " ".join(f"Fact {i} is {i * 37 % 1009}." for i in range(40))


def ask(cluster, number, text=PREFIX, max_tokens=12):
    status, answer, _ = cluster.post(
        "/v1/completions", {"model": "smollm2", "temperature": 0.8, "seed": number,
                            "max_tokens": max_tokens, "ignore_eos": True,
                            "prompt": f"{text} Question {number}:"},
        headers={"X-Request-Id": f"inline-{number}"})
    assert status == 200, answer
    return answer["choices"][0]["text"]


def score(cluster):
    """A prompt's probabilities, twice: the second time its blocks are cached, and not used."""
    status, answer, _ = cluster.post(
        "/v1/completions", {"model": "smollm2", "temperature": 0, "max_tokens": 2, "ignore_eos": True, "n": 2,
                            "prompt": [PREFIX, PREFIX], "prompt_logprobs": 2, "echo": True, "logprobs": 1})
    assert status == 200 and answer["choices"][0]["text"] == answer["choices"][3]["text"]
    return answer["choices"]


def ask_all(cluster):
    """Short prompts behind long ones, which the prefill node is busy with."""
    ask(cluster, 99)
    with concurrent.futures.ThreadPoolExecutor(CROWD + 2) as pool:
        long = [pool.submit(ask, cluster, i, f"{i}. {LONG}") for i in (50, 51)]
        short = list(pool.map(lambda i: ask(cluster, i), range(CROWD)))
        return short + [future.result() for future in long]


@pytest.mark.parametrize("engine", [(), ("--engine", "timed")])
def test_answers_do_not_depend_on_it(tmp_path, engine):
    answers = []
    for name, options in [("off", []), ("on", ["--inline-tbt", "10s"]), ("coupled", ["--coupled", "1"])]:
        (tmp_path / name).mkdir()
        made = Cluster(tmp_path / name, "--pool-size", "64M", *engine, *options).wait_ready()
        try:
            answers.append((ask_all(made), score(made)))
            inlined = made.metric("yolk_conductor_inlined_total")
            assert inlined > 0 if options else inlined == 0
            if options:
                decisions = json.loads(made.get("/debug/decisions")[1])["decisions"]
                one = next(d for d in decisions if d.get("inlined"))
                assert one["prefill"] == one["decode"] and one["actual"]["outcome"] == "ok"
                said = run_yolk("explain", "request", one["request_id"], "--url", made.url).stdout
                assert f"beside a step of {one['decode']}" in said
        finally:
            made.stop()
    assert answers[0] == answers[1] == answers[2]
