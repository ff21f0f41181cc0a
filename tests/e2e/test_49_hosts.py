# SPDX-License-Identifier: Apache-2.0
"""Three hosts: network namespaces on one switch. What docs/serving.md says is typed there word for
word, then one host is cut off, or stands still, while answers are under way."""
import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

from cluster import MODEL_FILE, ROOT, YOLK, model_path, wait_until
from fleet import Fleet, get, is_ready, stream, wait_ready

HOSTS = {"front": "10.0.0.1", "p": "10.0.0.2", "d": "10.0.0.3", "e": "10.0.0.4"}
FRONT = HOSTS["front"]
CLONE_NEWNET = 0x40000000


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


class Hosts:
    """Namespaces named for this process, joined by a bridge in one of their own."""

    def __init__(self):
        self.prefix = f"yolk{os.getpid()}"
        self.switch = self.name("switch")
        self.made = []

    def name(self, host):
        return f"{self.prefix}-{host}"

    def make(self):
        """None, or why it cannot be done here."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        for host in ("switch", *HOSTS):
            made = ip("netns", "add", self.name(host))
            if made.returncode != 0:
                return f"no network namespaces here: {made.stderr.strip()}"
            self.made.append(host)
        steps = [("-n", self.switch, "link", "add", "br0", "type", "bridge"),
                 ("-n", self.switch, "link", "set", "br0", "up")]
        for host, address in HOSTS.items():
            there = self.name(host)
            steps += [("-n", self.switch, "link", "add", f"to-{host}", "type", "veth", "peer",
                       "name", "eth0", "netns", there),
                      ("-n", self.switch, "link", "set", f"to-{host}", "master", "br0", "up"),
                      ("-n", there, "address", "add", f"{address}/24", "dev", "eth0"),
                      ("-n", there, "link", "set", "eth0", "up"),
                      ("-n", there, "link", "set", "lo", "up")]
        for step in steps:
            made = ip(*step)
            if made.returncode != 0:
                return f"no virtual network here: ip {' '.join(step)}: {made.stderr.strip()}"
        return None

    def set_wire(self, host, up):
        """Pulls the host's plug at the switch, or puts it back."""
        made = ip("-n", self.switch, "link", "set", f"to-{host}", "up" if up else "down")
        assert made.returncode == 0, made.stderr

    def on(self, host):
        return ("ip", "netns", "exec", self.name(host))

    def inside(self, host, function):
        """What function() returns on that host: in a thread that has entered it."""
        result = {}

        def run():
            try:
                with open(f"/var/run/netns/{self.name(host)}", "rb") as there:
                    libc = ctypes.CDLL(None, use_errno=True)
                    assert libc.setns(there.fileno(), CLONE_NEWNET) == 0, ctypes.get_errno()
                result["value"] = function()
            except BaseException as error:  # raised again below
                result["error"] = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(180)
        assert not thread.is_alive()
        if "error" in result:
            raise result["error"]
        return result["value"]

    def remove(self):
        for host in self.made:
            ip("netns", "delete", self.name(host))


@pytest.fixture(scope="module")
def hosts():
    made = Hosts()
    problem = made.make()
    if problem:
        made.remove()
        pytest.skip(problem)
    yield made
    made.remove()


# ---- docs/serving.md ----

def manual():
    """(host, command) of every line of its shell blocks that says where it is typed."""
    text = (ROOT / "docs" / "serving.md").read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        first, *lines = block.strip().splitlines()
        where = re.match(r"# on (\w+)( host)?", first)
        assert where, f"a block that does not say where: {first}"
        for line in lines:
            yield where[1], line


class Reader:
    """Types what the manual says. `yolk` runs until it is stopped, the rest to its end."""

    def __init__(self, hosts, directory):
        self.hosts, self.directory = hosts, pathlib.Path(directory)
        models = self.directory / "cache" / "yolk" / "models"
        models.mkdir(parents=True)
        (models / MODEL_FILE).symlink_to(model_path())
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(self.directory / "cache"),
                                PATH=f"{YOLK.parent}:{os.environ['PATH']}", YOLK_THREADS="1",
                                YOLK_POOL_SIZE="64M", YOLK_LOG="info")
        self.exported, self.running = [], []

    def type(self, host, line):
        line = line.replace("MODEL", "smollm2")
        if line.startswith("export "):
            self.exported.append(line)
            return None
        script = "\n".join([*self.exported, ("exec " if line.startswith("yolk ") else "") + line])
        command = [*self.hosts.on(host), "sh", "-c", script]
        if not line.startswith("yolk "):
            return subprocess.run(command, capture_output=True, text=True, cwd=self.directory,
                                  env=self.environment, timeout=60, check=True).stdout
        with open(self.directory / "log", "ab") as log:
            self.running.append(subprocess.Popen(command, stdout=log, stderr=log,
                                                 cwd=self.directory, env=self.environment))
        return None

    def log(self):
        return (self.directory / "log").read_text(errors="replace")

    def stop(self):
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(40) for process in self.running]
        self.running.clear()
        return codes


def test_the_manual_word_for_word(hosts, tmp_path):
    """First as it is written for several hosts; then the same with the section on TLS."""
    reader = Reader(hosts, tmp_path)
    lines = list(manual())
    assert {host for host, _ in lines} == {"every", "front", "p", "d"}
    tls = next(i for i, (_, line) in enumerate(lines) if line.startswith("openssl"))
    nodes = [(host, line) for host, line in lines[:tls] if line.startswith("yolk")]
    ask = next(line for _, line in lines if line.startswith("curl"))
    answers = []
    try:
        for host, line in lines[:tls]:
            if line == ask:
                hosts.inside("front", lambda: wait_until(
                    lambda: is_ready(8000, host=FRONT), 60, f"ready:\n{reader.log()[-3000:]}"))
                answers.append(json.loads(reader.type(host, line)))
            else:
                reader.type(host, line)
        assert reader.stop() == [0] * 4, reader.log()[-3000:]
        for host, line in lines[tls:]:
            if line.startswith("yolk gateway"):
                for other, said in nodes:
                    if " gateway " not in said:
                        reader.type(other, said)
            reader.type(host, line)
        secure = ask.replace("http:", "https:").replace("8000", "8443")
        curl = secure.replace("curl -s", "curl -s --cacert ca.pem --connect-to node:8443:10.0.0.1:8443")
        curl = curl.replace("https://10.0.0.1:8443", "https://node:8443")
        end = time.monotonic() + 60
        while "choices" not in (text := try_curl(reader, curl)):
            assert time.monotonic() < end, text + reader.log()[-3000:]
            time.sleep(0.2)
        answers.append(json.loads(text))
        assert answers[0]["choices"] == answers[1]["choices"]
        plain = reader.type("front", "curl -s http://10.0.0.1:8443/ready")
        assert "HTTPS only" in plain
        expect_tls_refusals(reader)
        assert reader.stop() == [0] * 4, reader.log()[-3000:]
    finally:
        for process in reader.running:
            process.kill()


def try_curl(reader, line):
    try:
        return reader.type("front", line)
    except subprocess.CalledProcessError as error:
        return error.stdout


def expect_tls_refusals(reader):
    """A node without certificates, and one with those of another authority, are told why."""
    node = "yolk node MODEL --role decode --name e0 --master 10.0.0.1:50051 --listen 10.0.0.4:7000"
    bare = "unset YOLK_CLUSTER_TLS_CA YOLK_CLUSTER_TLS_CERT YOLK_CLUSTER_TLS_KEY; exec "
    reader.type("e", "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                     "-days 1 -subj /CN=x -keyout x.key -out x.pem")
    for prefix, words in ((bare, "this cluster speaks TLS"),
                          ("exec env YOLK_CLUSTER_TLS_CERT=x.pem YOLK_CLUSTER_TLS_KEY=x.key ",
                           "certificate is refused: self-signed certificate")):
        script = "\n".join([*reader.exported, prefix + node.replace("MODEL", "smollm2")])
        with open(reader.directory / "log", "ab") as log:
            stranger = subprocess.Popen([*reader.hosts.on("e"), "sh", "-c", script], stdout=log,
                                        stderr=log, cwd=reader.directory, env=reader.environment)
        try:
            wait_until(lambda: words in reader.log(), 20, f"'{words}' in the log:\n"
                       + reader.log()[-3000:])
        finally:
            stranger.kill()
            stranger.wait()


# ---- one host is cut off, or stands still ----

SHAPE = ("--engine", "timed", "--pool-size", "64M")
PROMPT = "A long prompt: " + " ".join(f"word{i * 7919 % 10007}" for i in range(60))
REQUEST = {"model": "smollm2", "temperature": 0, "max_tokens": 60, "ignore_eos": True,
           "prompt": PROMPT}


@pytest.fixture(scope="module")
def fleet(hosts, tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("hosts")) as made:
        master = f"{FRONT}:50051"
        made.start("master", "master", "--listen", master, prefix=hosts.on("front"))
        for host, role in (("p", "prefill"), ("d", "decode"), ("e", "decode")):
            made.start(host, "node", "--role", role, "--name", host, "--master", master,
                       "--listen", f"{HOSTS[host]}:7000", *SHAPE, prefix=hosts.on(host))
        made.start("gateway", "gateway", "--master", master, "--host", "0.0.0.0", "--port", 8000,
                   "--served-model-name", "smollm2", prefix=hosts.on("front"))
        hosts.inside("front", lambda: wait_ready(made, 8000, 1, 2, FRONT))
        yield made


@pytest.fixture(scope="module")
def expected(hosts, fleet):
    """Taken before anything is disturbed, so that each request is served by its first attempt."""
    text = hosts.inside("front", lambda: stream(8000, REQUEST, host=FRONT))[0]
    assert "attempt_failed" not in fleet.log("gateway"), fleet.all_logs()
    return text


def answer_while(hosts, fleet, disturb):
    """One answer, with disturb(HOST) once it has begun to be decoded on HOST; its text and longest
    pause."""
    begun = threading.Event()
    result = {}

    def ask():
        def on_token(count):
            if count == 5:
                begun.set()
        result["value"] = hosts.inside("front",
                                       lambda: stream(8000, {**REQUEST, "max_tokens": 60},
                                                      on_token, FRONT))

    client = threading.Thread(target=ask)
    client.start()
    assert begun.wait(30), fleet.all_logs()
    decided = hosts.inside("front", lambda: get(8000, "/debug/decisions?limit=1", FRONT)[1])
    disturb(json.loads(decided)["decisions"][0]["decode"])
    client.join(60)
    assert not client.is_alive(), fleet.all_logs()
    return result["value"]


def back(hosts, fleet):
    hosts.inside("front", lambda: wait_until(
        lambda: is_ready(8000, 1, 2, FRONT), 40, "all are back\n" + fleet.all_logs()))


def test_a_host_is_cut_off_and_rejoins(hosts, fleet, expected):
    cut = []

    def pull(host):
        hosts.set_wire(host, False)
        cut.append(host)

    text, pause = answer_while(hosts, fleet, pull)
    assert text == expected
    assert 1 < pause < 10  # it was the one that decoded, and its connection was not waited for
    hosts.set_wire(cut[0], True)
    back(hosts, fleet)
    assert hosts.inside("front", lambda: stream(8000, REQUEST, host=FRONT))[0] == expected


def test_a_process_stands_still_and_goes_on(hosts, fleet, expected):
    still = []

    def stop(host):
        fleet.signal(host, signal.SIGSTOP)
        still.append(host)

    text, pause = answer_while(hosts, fleet, stop)
    assert text == expected
    assert 1 < pause < 10
    fleet.signal(still[0], signal.SIGCONT)
    back(hosts, fleet)
    assert hosts.inside("front", lambda: stream(8000, REQUEST, host=FRONT))[0] == expected


def test_the_host_of_the_prompt_is_cut_off(hosts, fleet, expected):
    """New prompts are computed where else they can be, and the cluster is whole again after."""
    hosts.set_wire("p", False)
    hosts.inside("front", lambda: wait_until(lambda: not is_ready(8000, 1, 2, FRONT), 20,
                                             "p is missed"))
    text, _ = hosts.inside("front", lambda: stream(8000, REQUEST, host=FRONT))
    assert text == expected
    hosts.set_wire("p", True)
    back(hosts, fleet)
