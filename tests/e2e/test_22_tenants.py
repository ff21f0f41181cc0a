# SPDX-License-Identifier: Apache-2.0
"""API keys, what their tenants may ask for, and whose cache is whose."""
import http.server
import json
import os
import signal
import threading

import openai
import pytest

from test_24_chat import Terminal
from cluster import Cluster, free_port, get, model_path, run_yolk, wait_until

KEYS = """# KEY              TENANT   OPTIONS
sk-alpha-0123456789  alpha    salted
sk-beta-0123456789   beta     salted
sk-gamma-0123456789  gamma
sk-delta-0123456789  delta
sk-few-0123456789    few      requests=3
sk-short-0123456789  short    tokens=60
"""
PROMPT = "Ships are called by names, and names are given at their launch, with wine. "


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tenants")
    (directory / "keys").write_text(KEYS)
    made = Cluster(directory, "--api-keys", directory / "keys", "--log", "debug").wait_ready()
    yield made
    made.stop()


def client_of(cluster, tenant):
    return openai.OpenAI(base_url=cluster.url + "/v1", api_key=f"sk-{tenant}-0123456789", max_retries=0, timeout=120)


def cached(cluster, tenant, prompt, **more):
    answer = client_of(cluster, tenant).completions.create(model="smollm2", prompt=prompt, max_tokens=1, temperature=0,
                                                           extra_body=more)
    return answer.usage.prompt_tokens_details.cached_tokens


def test_without_a_key_nothing_is_answered(cluster):
    for key in ("sk-alpha-012345678", "sk-alpha-01234567890", "alpha", "none"):
        with pytest.raises(openai.AuthenticationError) as error:
            openai.OpenAI(base_url=cluster.url + "/v1", api_key=key, max_retries=0).models.list()
        assert error.value.code == "invalid_api_key" and error.value.type == "authentication_error"
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/embeddings"):
        status, body, headers = cluster.post(path, {"prompt": "x"})
        assert (status, body["error"]["type"]) == (401, "authentication_error")
        assert headers["WWW-Authenticate"] == "Bearer"
    for path in ("/v1/models", "/debug/nodes", "/debug/decisions", "/debug/decisions/x", "/debug/record"):
        assert cluster.get(path)[0] == 401
    assert cluster.metric("yolk_gateway_unauthorized_total") == 14
    for path in ("/health", "/ready", "/ping", "/version", "/metrics"):
        assert cluster.get(path)[0] == 200
    assert client_of(cluster, "alpha").models.list().data[0].id == "smollm2"


def test_requests_a_minute(cluster):
    few, other = client_of(cluster, "few"), client_of(cluster, "gamma")
    body = dict(model="smollm2", prompt="x", max_tokens=1)
    for left in (2, 1, 0):
        answer = few.completions.with_raw_response.create(**body)
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
    with pytest.raises(openai.RateLimitError) as error:
        few.completions.create(**body)
    assert error.value.code == "rate_limit_exceeded" and "requests" in error.value.message
    assert 1 <= int(error.value.response.headers["Retry-After"]) <= 20
    assert other.completions.create(**body).choices
    assert cluster.metric("yolk_gateway_tenant_limited_total", tenant="few", limit="requests") == 1


def test_tokens_a_minute(cluster):
    short = client_of(cluster, "short")
    answer = short.completions.create(model="smollm2", prompt=PROMPT, max_tokens=40, extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens > 50
    with pytest.raises(openai.RateLimitError) as error:
        short.completions.create(model="smollm2", prompt=PROMPT, max_tokens=1)
    assert "tokens" in error.value.message
    assert 1 <= int(error.value.response.headers["Retry-After"]) <= 60
    assert cluster.metric("yolk_gateway_tenant_tokens_total", tenant="short", kind="answer") == 40


def test_salted_tenants_are_apart(cluster):
    prompt = "Apart. " + PROMPT * 4
    assert cached(cluster, "gamma", prompt) == 0
    assert cached(cluster, "delta", prompt) > 0, "these two share"
    assert cached(cluster, "alpha", prompt) == 0
    assert cached(cluster, "beta", prompt) == 0
    assert cached(cluster, "alpha", prompt) > 0, "its own it finds"


def test_cache_salt(cluster):
    prompt = "Salt. " + PROMPT * 4
    assert cached(cluster, "gamma", prompt) == 0
    assert cached(cluster, "gamma", prompt, cache_salt="one") == 0
    assert cached(cluster, "gamma", prompt, cache_salt="two") == 0
    assert cached(cluster, "gamma", prompt, cache_salt="one") > 0
    assert cached(cluster, "delta", prompt, cache_salt="one") == 0, "a salt is the tenant's own"
    # Decoded blocks carry it on: the next turn finds the answer, under the same salt only.
    body = dict(model="smollm2", prompt=prompt, max_tokens=64, temperature=0)
    text = client_of(cluster, "gamma").completions.create(
        **body, extra_body={"cache_salt": "one", "ignore_eos": True}).choices[0].text
    longer, plain = prompt + text, cached(cluster, "gamma", prompt + text)
    assert cached(cluster, "gamma", longer, cache_salt="one") > plain


def test_salts_change_no_answer(cluster):
    body = dict(model="smollm2", prompt=PROMPT, max_tokens=12, temperature=0)
    texts = {client_of(cluster, tenant).completions.create(**body, extra_body=more).choices[0].text
             for tenant in ("alpha", "gamma") for more in ({}, {"cache_salt": "x"})}
    assert len(texts) == 1


def test_keys_stay_secret_and_traces_do_not(cluster):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    status, _, _ = cluster.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers={
        "Authorization": "bearer sk-gamma-0123456789", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert status == 200
    log = cluster.log_path.read_text(errors="replace")
    assert f"trace={trace} tenant=gamma" in log
    assert "0123456789" not in log
    gamma = {"Authorization": "Bearer sk-gamma-0123456789"}
    status, decisions = get(cluster.port, "/debug/decisions", headers=gamma)
    assert status == 200 and "0123456789" not in cluster.get("/metrics")[1] + decisions


def tools(directory, url):
    """What asks a gateway, and how it ends when it may."""
    trace = directory / "trace.jsonl"
    trace.write_text(json.dumps({"timestamp": 0, "input_length": 8, "output_length": 2, "hash_ids": [1],
                                 "block_size": 32}) + "\n")
    return (("top", "--json", "--url", url),
            ("trace", "record", "--for", "100ms", "--url", url),
            ("replay", "--trace", trace, "--model", "smollm2", "--json", "--url", url),
            ("run", "smollm2", "Hi", "--raw", "--max-tokens", "2", "--url", url),
            ("explain", "request", "ID", "--url", url))


def refused(text, command, **more):
    ran = run_yolk(*command, **more)
    said = [line for line in ran.stderr.splitlines() if "requests recorded" not in line]
    assert ran.returncode != 0 and len(said) == 1 and text in said[0], ran.stderr
    assert "0123456789" not in ran.stdout + ran.stderr


def test_tools_have_keys(cluster, tmp_path):
    """From the environment and from a file; each reason to be refused is one line, without the key."""
    (tmp_path / "good").write_text("sk-gamma-0123456789\n")
    (tmp_path / "bad").write_text("sk-gamma-0123456789x\n")
    (tmp_path / "split").write_text("sk-gamma-0123456789\nX-Other: 1\n")
    gamma = {"Authorization": "Bearer sk-gamma-0123456789"}
    assert cluster.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=gamma)[0] == 200
    decision = json.loads(get(cluster.port, "/debug/decisions?limit=1", headers=gamma)[1])["decisions"][0]
    for command in tools(tmp_path, cluster.url):
        refused("wants an API key (401): YOLK_API_KEY or --api-key-file FILE", command)
        refused("does not know the API key", (*command, "--api-key-file", tmp_path / "bad"))
        refused("other users can see", (*command, "--api-key", "sk-gamma-0123456789"))
        command = [decision["request_id"] if word == "ID" else word for word in command]
        ran = run_yolk(*command, "--api-key-file", tmp_path / "good", "--log", "trace")
        assert ran.returncode == 0 and "0123456789" not in ran.stdout + ran.stderr, ran.stderr
    named = dict(os.environ, YOLK_API_KEY="sk-gamma-0123456789")
    assert run_yolk(*command, env=named).returncode == 0
    refused("has a blank", (*command, "--api-key-file", tmp_path / "split"))
    refused("No such file", (*command, "--api-key-file", tmp_path / "nowhere"))


def test_tools_tell_403_from_401(tmp_path):
    """Whoever stands in front of gateways may answer it."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def refuse(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_error(403)
        do_GET = do_POST = refuse

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        for command in tools(tmp_path, f"http://127.0.0.1:{front.server_port}"):
            refused("allows this to somebody else only (403); an API key comes from", command)
            refused("allows this to somebody else only (403)", command,
                    env=dict(os.environ, YOLK_API_KEY="sk-gamma-0123456789"))
        front.shutdown()


def test_run_asks_a_gateway(cluster, monkeypatch):
    """The same answers as those of its own process, and in one line why there is none."""
    monkeypatch.setenv("YOLK_API_KEY", "sk-gamma-0123456789")
    there, here = ("run", "smollm2", "--url", cluster.url), ("run", model_path())
    talk = ("--chat", "--max-tokens", "9")
    for more, stdin in ((("Why \"quote\"?", "--max-tokens", "9"), None),
                        (("Ships are", "--raw", "--max-tokens", "9"), None),
                        (("Ships are", "--raw", "--max-tokens", "9", "--temperature", ".9", "--seed", "5"), None),
                        (("--max-tokens", "9"), "Ünïcode\nfrom a pipe"),
                        (talk, "My name is Ada.\nWhat is my name?\n/reset\nWhat is my name?\n")):
        ran, own = run_yolk(*there, *more, stdin=stdin), run_yolk(*here, *more, stdin=stdin)
        assert ran.returncode == own.returncode == 0 and ran.stdout == own.stdout != "", ran.stderr
    refused("(404)", ("run", "other", "x", "--url", cluster.url))
    refused("tokens", (*there, "word " * 9000))
    refused("no gateway answers", ("run", "smollm2", "x", "--url", f"http://127.0.0.1:{free_port()}"))
    assert "is not valid UTF-8" in run_yolk(*there, b"\xff".decode(errors="surrogateescape")).stderr
    terminal = Terminal("--url", cluster.url, "--max-tokens", "4000", "--ignore-eos", model="smollm2")
    terminal.wait(">>> ")
    terminal.type("Tell a story.\n")
    terminal.wait(r"\w+ \w+ \w+ \w+ \w+ \w+")
    terminal.type("\x03")
    terminal.wait(">>> ", 10)
    wait_until(lambda: cluster.metric("vllm:num_requests_running") == 0, 10, "it was hung up on")
    terminal.type("/exit\n")
    terminal.end()


def test_keys_are_read_again(cluster):
    """On SIGHUP: new keys are known, those that are gone are not; a file that does not parse changes nothing and is
    named in the log."""
    def rewrite(text, event):
        seen = cluster.tail(10 ** 6).count(event)
        keys.write_text(text)
        os.kill(cluster.children("gateway")[0], signal.SIGHUP)
        wait_until(lambda: cluster.tail(10 ** 6).count(event) > seen, 10, event)

    def knows(tenant):
        key = {"Authorization": f"Bearer sk-{tenant}-0123456789"}
        return cluster.post("/tokenize", {"prompt": "x"}, headers=key)[0] == 200

    keys = cluster.directory / "keys"
    rewrite(KEYS.replace("sk-delta", "sk-omega") + "garbage\n", "ev=keys_kept")
    assert "API keys in" in cluster.tail(10 ** 6) and "line 8" in cluster.tail(10 ** 6)
    assert knows("delta") and not knows("omega")
    rewrite(KEYS.replace("sk-delta", "sk-omega"), "ev=keys_read")
    assert knows("omega") and knows("gamma") and not knows("delta")


def test_a_bad_key_file_is_refused(tmp_path):
    (tmp_path / "keys").write_text("sk-alpha-0123456789\n")
    result = run_yolk("serve", model_path(), "--port", free_port(), "--api-keys", tmp_path / "keys")
    assert result.returncode == 2
    assert "line 1" in result.stderr and "0123456789" not in result.stderr
