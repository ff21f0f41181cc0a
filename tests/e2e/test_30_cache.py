# SPDX-License-Identifier: Apache-2.0
"""The pool: the second question about the same document is cached, sooner, and answered the same."""
import pytest

from cluster import Cluster, model_path, run_yolk

# A long document with no two equal lines, so that only a true prefix can be shared.
DOCUMENT = "\n".join(f"Item {i}: the value of entry number {i * 37 % 1009} is {i * i % 977}."
                     for i in range(80))
QUESTIONS = ["What is item 5?", "How many items are there?", "Which entry is the largest?"]


def ask(cluster, question, max_tokens=48, **more):
    status, body, _ = cluster.post("/v1/chat/completions", {
        "model": "smollm2", "temperature": 0, "max_tokens": max_tokens, "ignore_eos": True,
        "messages": [{"role": "user", "content": DOCUMENT + "\n" + question}], **more})
    assert status == 200, body
    usage = body["usage"]
    return (body["choices"][0]["message"]["content"], usage["prompt_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"])


def test_second_question_is_cached_and_answers_do_not_change(cluster, tmp_path):
    first = [ask(cluster, q) for q in QUESTIONS]
    assert first[0][2] == 0
    for _, prompt, cached in first[1:]:
        assert cached % 32 == 0
        assert prompt * 0.9 < cached < prompt
    again = [ask(cluster, q) for q in QUESTIONS]
    for (text, prompt, _), (text2, _, cached2) in zip(first, again):
        assert text2 == text
        assert prompt - 32 <= cached2 < prompt

    off = Cluster(tmp_path, "--no-pool").wait_ready()
    try:
        for question, (text, prompt, _) in zip(QUESTIONS, first):
            assert ask(off, question) == (text, prompt, 0)
    finally:
        off.stop()


def test_sampled_answer_is_the_same_cached_or_not(cluster):
    more = {"temperature": 0.9, "top_p": 0.9, "seed": 42}
    texts = {ask(cluster, "Sampled: what is item 9?", **more)[0] for _ in range(3)}
    assert len(texts) == 1


def test_one_process_and_many_agree(cluster):
    """`yolk run` computes everything in one process; the cluster must say the same."""
    for prompt, sampling in [("The three primary colours are", ["--temperature", "0"]),
                             ("Once upon a time", ["--temperature", "0.8", "--seed", "7"])]:
        alone = run_yolk("run", model_path(), prompt, "--raw", "--max-tokens", "40", "--ignore-eos",
                         *sampling)
        assert alone.returncode == 0, alone.stderr
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": 40, "ignore_eos": True,
                "temperature": float(sampling[1])}
        if "--seed" in sampling:
            body["seed"] = 7
        status, answer, _ = cluster.post("/v1/completions", body)
        assert status == 200
        assert alone.stdout.rstrip("\n") == answer["choices"][0]["text"].rstrip("\n")


@pytest.mark.parametrize("shape", [("--prefill", 2, "--decode", 1), ("--prefill", 1, "--decode", 2)])
def test_more_nodes_share_one_cache(tmp_path, shape):
    """Whichever node gets the second question, it finds the first one's blocks in the pool."""
    cluster = Cluster(tmp_path, *shape, "--threads", 1).wait_ready()
    try:
        first = ask(cluster, QUESTIONS[0])
        for _ in range(4):
            text, prompt, cached = ask(cluster, QUESTIONS[0])
            assert text == first[0]
            assert cached >= prompt - 32
    finally:
        cluster.stop()
