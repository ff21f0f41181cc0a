# SPDX-License-Identifier: Apache-2.0
"""Every process is asked to end and started again, one after the other, under load: no request is
lost and no answer differs. Nodes compute as --engine timed says; what they make up depends on every
token before, and on the content of the pages."""
import itertools
import json
import signal
import ssl
import subprocess
import threading
import urllib.request

import pytest

from cluster import YOLK, Cluster, model_path, run_yolk, wait_until
from fleet import Fleet, free_port, get, is_ready, stream, wait_ready

SHAPE = ("--engine", "timed", "--engine-speed", 4, "--pool-size", "64M")
NODES = ("prefill-0", "prefill-1", "decode-0", "decode-1")
GATEWAYS = ("gateway-0", "gateway-1")
PROMPTS = [f"Request {i}: " + " ".join(f"word{i * j * 7919 % 10007}" for j in range(60))
           for i in range(6)]


def request_of(prompt):
    return {"model": "smollm2", "temperature": 0, "max_tokens": 40, "ignore_eos": True,
            "prompt": prompt}


class Balancer:
    """What stands in front of gateways: asks who is ready, and goes to the next if nobody is there
    any more when it connects."""

    def __init__(self, ports):
        self.ports = ports
        self.turn = itertools.count()

    def ask(self, prompt, on_token=None):
        for _ in range(200):
            port = self.ports[next(self.turn) % len(self.ports)]
            if not is_ready(port):
                continue
            try:
                return stream(port, request_of(prompt), on_token)
            except ConnectionError:
                continue
        raise AssertionError("no gateway takes a request")


class Load:
    """Clients that ask all the while; every answer is compared."""

    def __init__(self, balancer, expected, clients=4):
        self.stop_now = threading.Event()
        self.answers, self.wrong = 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(balancer, expected, i))
                        for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, balancer, expected, at):
        while not self.stop_now.is_set():
            at = (at + 1) % len(PROMPTS)
            try:
                text, _ = balancer.ask(PROMPTS[at])
                problem = None if text == expected[at] else f"{text!r} for {expected[at]!r}"
            except Exception as error:  # whatever a client would see
                problem = repr(error)
            with self.lock:
                self.answers += 1
                if problem:
                    self.wrong.append(problem)

    def wait_answers(self, count):
        end = self.answers + count
        wait_until(lambda: self.answers >= end, 60, f"{count} more answers")

    def end(self):
        self.stop_now.set()
        for thread in self.threads:
            thread.join(120)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("rolling")) as made:
        master = f"127.0.0.1:{free_port()}"
        made.start("master", "master", "--listen", master)
        for name in NODES:
            made.start(name, "node", "--role", name.split("-")[0], "--name", name, "--master",
                       master, *SHAPE)
        made.ports = []
        for name in GATEWAYS:
            made.ports.append(free_port())
            made.start(name, "gateway", "--port", made.ports[-1], "--master", master,
                       "--served-model-name", "smollm2", "--drain-grace", "200ms")
        for port in made.ports:
            wait_ready(made, port, 2, 2)
        yield made


@pytest.fixture(scope="module")
def expected(fleet):
    return [stream(fleet.ports[0], request_of(prompt))[0] for prompt in PROMPTS]


def all_seen(fleet):
    return all(is_ready(port, 2, 2) for port in fleet.ports)


def test_every_process_is_restarted_under_load(fleet, expected):
    load = Load(Balancer(fleet.ports), expected)
    try:
        for name in ("master", *NODES, *GATEWAYS):
            assert fleet.stop(name) == 0, fleet.log(name)[-3000:]
            load.wait_answers(4)
            fleet.again(name)
            wait_until(lambda: all_seen(fleet), 30, f"{name} is back")
            load.wait_answers(4)
    finally:
        load.end()
    assert load.wrong == [], fleet.all_logs()
    assert load.answers >= 50


def test_a_stream_moves_when_its_node_leaves(fleet, expected):
    """Both decode nodes leave in turn, in the middle of one answer."""
    left = []

    def leave(count):
        if count in (10, 25) and len(left) < 2:
            name = f"decode-{len(left)}"
            left.append(name)
            assert fleet.stop(name) == 0
            fleet.again(name)
            wait_until(lambda: is_ready(fleet.ports[0], 2, 2), 30, f"{name} is back")

    text, _ = stream(fleet.ports[0], {**request_of(PROMPTS[0]), "max_tokens": 40}, leave)
    assert text == expected[0]
    assert "drained" in fleet.log(left[0]) and "drain_timeout" not in fleet.log(left[0])


def test_a_gateway_finishes_its_streams(fleet, expected):
    """It is not ready at once, refuses connections after the grace, and ends with the answer."""
    seen = {}

    def leave(count):
        if count == 5:
            fleet.signal("gateway-0", signal.SIGTERM)
            wait_until(lambda: get(fleet.ports[0], "/ready")[0] == 503, 10, "not ready")
        if count == 39:
            seen["refuses"] = not is_ready(fleet.ports[0])

    text, _ = stream(fleet.ports[0], {**request_of(PROMPTS[1]), "max_tokens": 40}, leave)
    assert text == expected[1] and seen["refuses"]
    assert fleet.running.pop("gateway-0").wait(30) == 0
    fleet.again("gateway-0")
    wait_ready(fleet, fleet.ports[0], 2, 2)


def test_the_second_signal_ends_at_once(fleet):
    """A node that has work for minutes, and nobody who could take it."""
    assert fleet.stop("decode-1") == 0
    wait_until(lambda: not is_ready(fleet.ports[0], 2, 2), 30, "one decode node left")
    asked = {}

    def ask():
        text, _ = stream(fleet.ports[0], {**request_of(PROMPTS[2]), "max_tokens": 200},
                         lambda count: asked.setdefault("begun", count))
        asked["text"] = text

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: "begun" in asked, 30, "an answer")
    fleet.signal("decode-0", signal.SIGTERM)
    wait_until(lambda: "ev=draining" in fleet.log("decode-0"), 10, "it drains")
    fleet.signal("decode-0", signal.SIGTERM)
    assert fleet.running.pop("decode-0").wait(10) == 0
    client.join(120)
    assert len(asked["text"]) > 0  # a prefill node went on with it
    for name in ("decode-0", "decode-1"):
        fleet.again(name)
    wait_until(lambda: all_seen(fleet), 30, "both are back")


# ---- HTTPS ----

def make_certificate(directory, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", directory / "key.pem",
                    "-out", directory / "cert.pem"], check=True, capture_output=True)
    return (directory / "cert.pem").read_text()


def ask_securely(port, authority, path, body=None):
    context = ssl.create_default_context(cadata=authority)
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}",
                                     json.dumps(body).encode() if body else None,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        return answer.status, answer.read().decode()


def is_ready_securely(port, authority):
    try:
        return ask_securely(port, authority, "/ready")[0] == 200
    except OSError:
        return False


def test_https_and_its_certificate_replaced(fleet, expected, tmp_path):
    """Clients that know the certificate are answered; it is replaced on SIGHUP, and one that cannot
    be read is not taken."""
    first = make_certificate(tmp_path, "first")
    port = free_port()
    master = fleet.commands["master"][-1]
    fleet.start("secure", "gateway", "--port", port, "--master", master, "--served-model-name",
                "smollm2", "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    wait_until(lambda: is_ready_securely(port, first), 30, "HTTPS")
    answer = ask_securely(port, first, "/v1/completions", request_of(PROMPTS[0]))
    assert json.loads(answer[1])["choices"][0]["text"] == expected[0]
    second = make_certificate(tmp_path, "second")
    fleet.signal("secure", signal.SIGHUP)
    wait_until(lambda: is_ready_securely(port, second), 10, "the second certificate")
    assert not is_ready_securely(port, first)
    (tmp_path / "cert.pem").write_text("nothing")
    fleet.signal("secure", signal.SIGHUP)
    wait_until(lambda: "certificates_kept" in fleet.log("secure"), 10, "it is told")
    assert "no certificate in it" in fleet.log("secure")
    assert is_ready_securely(port, second)
    assert fleet.stop("secure") == 0


class Authority:
    """Signs a certificate for a name, or one that has expired."""

    def __init__(self, directory, name):
        self.directory, self.file = directory / name, directory / name / "cert.pem"
        self.directory.mkdir()
        make_certificate(self.directory, name)

    def sign(self, to, name, days=2):
        run = {"check": True, "capture_output": True}
        (self.directory / "name").write_text(f"subjectAltName={name}")
        subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-subj", "/CN=gateway", "-keyout", to / "key.pem", "-out",
                        to / "csr.pem"], **run)
        subprocess.run(["openssl", "x509", "-req", "-in", to / "csr.pem", "-CA", self.file,
                        "-CAkey", self.directory / "key.pem", "-CAcreateserial", "-days",
                        str(days), "-extfile", self.directory / "name", "-out", to / "cert.pem"],
                       **run)


def test_tools_speak_https(fleet, tmp_path):
    """explain, top, replay and trace record reach a gateway by HTTPS; each reason not to is one
    line."""
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    authority.sign(tmp_path, "IP:127.0.0.1")
    port = free_port()
    fleet.start("tools", "gateway", "--port", port, "--master", fleet.commands["master"][-1],
                "--served-model-name", "smollm2", "--tls-cert", tmp_path / "cert.pem", "--tls-key",
                tmp_path / "key.pem")
    believed = authority.file.read_text()
    wait_until(lambda: is_ready_securely(port, believed), 30, "HTTPS")
    url = f"https://127.0.0.1:{port}"
    trace, recorded = tmp_path / "trace.jsonl", tmp_path / "recorded.jsonl"
    trace.write_text(json.dumps({"timestamp": 0, "input_length": 64, "output_length": 4,
                                 "hash_ids": [1, 2], "block_size": 32}) + "\n")
    replay = ("replay", "--trace", trace, "--model", "smollm2", "--json")
    record = ("trace", "record", "--max-requests", "1", "--out", recorded)

    def expect(text, *command, url=url, ca=authority.file):
        ran = run_yolk(*command, "--url", url, "--tls-ca", ca)
        said = [line for line in ran.stderr.splitlines() if "requests recorded" not in line]
        assert ran.returncode != 0 and len(said) == 1 and text in said[0], ran.stderr

    with subprocess.Popen([str(part) for part in (YOLK, *record, "--url", url, "--tls-ca",
                                                  authority.file)],
                          stderr=subprocess.PIPE, text=True) as recording:
        def replayed_until_recorded():
            ran = run_yolk(*replay, "--url", url, "--tls-ca", authority.file)
            assert ran.returncode == 0 and json.loads(ran.stdout)["finished"] == 1, ran.stderr
            return recording.poll() is not None
        wait_until(replayed_until_recorded, 30, "a request is recorded")
        assert recording.returncode == 0, recording.communicate()[1]
    assert json.loads(recorded.read_text())["input_length"] == 64
    recorded.unlink()
    decisions = json.loads(ask_securely(port, believed, "/debug/decisions?limit=1")[1])["decisions"]
    asked = decisions[0]["request_id"]
    said = run_yolk("explain", "request", asked, "--url", url, "--tls-ca", authority.file)
    assert said.returncode == 0 and asked in said.stdout, said.stderr
    said = run_yolk("top", "--json", "--url", url, "--tls-ca", authority.file)
    assert said.returncode == 0 and len(json.loads(said.stdout)["nodes"]) == 4, said.stderr

    nobody = free_port()
    for command in (("explain", "request", "x"), ("top", "--json"), replay, record):
        expect("no gateway answers", *command, url=f"https://127.0.0.1:{nobody}")
        expect("certificate is refused", *command, ca=other.file)
        expect("say https://", *command, url=f"http://127.0.0.1:{port}")
        expect("speak TLS", *command, url=f"https://127.0.0.1:{fleet.ports[0]}")
    assert not recorded.exists()
    top = ("top", "--json")
    expect("No such file", *top, ca=tmp_path / "nowhere.pem")
    expect("hostname mismatch", *top, url=f"https://localhost:{port}")
    for name, days, text in (("DNS:elsewhere", 2, "IP address mismatch"),
                             ("IP:127.0.0.1", -1, "certificate has expired")):
        authority.sign(tmp_path, name, days)
        read = fleet.log("tools").count("certificates_read")
        fleet.signal("tools", signal.SIGHUP)
        wait_until(lambda: fleet.log("tools").count("certificates_read") > read, 10, "it is read")
        expect(text, *top)
    assert fleet.stop("tools") == 0


def test_clients_show_certificates(fleet, tmp_path):
    """A gateway with --tls-client-ca answers who has a certificate of that authority; each reason not to is one
    line at the client, and another in the gateway's log."""
    authority, other = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    make_certificate(tmp_path, "mutual")
    port = free_port()
    fleet.start("mutual", "gateway", "--port", port, "--master", fleet.commands["master"][-1], "--served-model-name",
                "smollm2", "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem",
                "--tls-client-ca", authority.file)
    wait_until(lambda: "gateway_listening" in fleet.log("mutual"), 30, "it listens")

    def own(name, authority, days=2):
        (tmp_path / name).mkdir()
        authority.sign(tmp_path / name, "DNS:me", days)
        return "--tls-cert", tmp_path / name / "cert.pem", "--tls-key", tmp_path / name / "key.pem"

    top = ("top", "--json", "--url", f"https://127.0.0.1:{port}", "--tls-ca", tmp_path / "cert.pem")
    good = own("good", authority)
    def answered():
        ran = run_yolk(*top, *good)
        return ran.returncode == 0 and len(json.loads(ran.stdout)["nodes"]) == 4
    wait_until(answered, 30, "who has a certificate is answered")
    for files, text, logged in (
            ((), "certificate required; --tls-cert FILE and --tls-key FILE", "did not return a certificate"),
            (own("stranger", other), "unknown ca", "unable to get local issuer certificate"),
            (own("old", authority, -1), "certificate expired", "certificate has expired")):
        ran = run_yolk(*top, *files)
        assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr
        assert "refuses this end's certificate: " in ran.stderr and text in ran.stderr
        wait_until(lambda: logged in fleet.log("mutual"), 10, logged)
    for wrong, text in ((good[:2], "go together"), ((*good[:3], tmp_path / "key.pem"), "not that of the certificate"),
                        (("--url", f"http://127.0.0.1:{port}", *good), "shown only to https://")):
        ran = run_yolk(*top, *wrong)
        assert ran.returncode == 2 and text in ran.stderr, ran.stderr
    assert fleet.stop("mutual") == 0
    assert "needs --tls-cert" in run_yolk("gateway", model_path(), "--tls-client-ca", authority.file).stderr


def test_one_box_with_https(tmp_path):
    """yolk serve finds out by HTTPS that it is ready, and refuses what cannot be read before it
    starts anything."""
    make_certificate(tmp_path, "box")
    files = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    made = Cluster(tmp_path, *SHAPE, *files)
    wait_until(lambda: "https://" in made.tail(), 30, "it says that it is ready")
    assert made.stop() == 0
    (tmp_path / "key.pem").write_text("nothing")
    again = Cluster(tmp_path, *SHAPE, *files)
    assert again.process.wait(10) == 2
    assert "no private key" in again.tail()
    again.stop()
