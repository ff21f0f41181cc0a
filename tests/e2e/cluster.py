# SPDX-License-Identifier: Apache-2.0
"""Starts real `yolk` processes for the end-to-end tests, and looks at them from outside.

A Cluster is one `yolk serve` with its children. Everything it writes goes to a directory of its own
(XDG_CACHE_HOME included, with the model linked in), so that tests neither see nor leave anything.
"""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
YOLK = pathlib.Path(os.environ.get("YOLK", ROOT / "build" / "bin" / "yolk"))
MODEL_NAME = "smollm2"
MODEL_FILE = "smollm2-135m-instruct-q4_1.gguf"


def model_path():
    """The fetched model, or None. YOLK_TEST_MODEL names another copy."""
    named = os.environ.get("YOLK_TEST_MODEL")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    path = pathlib.Path(named) if named else cache / "yolk" / "models" / MODEL_FILE
    return path if path.exists() else None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_yolk(*args, timeout=120, env=None, stdin=None):
    return subprocess.run([str(YOLK), *map(str, args)], capture_output=True, text=True,
                          timeout=timeout, env=env, input=stdin)


def get(port, path, host="127.0.0.1", headers=None):
    """(status, text)"""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def events(response):
    """The JSON of each server-sent event; an error, or an end without [DONE], is a failure."""
    for raw in response:
        line = raw.decode().strip()
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            event = json.loads(line[6:])
            assert "error" not in event, event
            yield event
    raise AssertionError("the stream broke off")


class Cluster:
    def __init__(self, directory, *args, model=None, env=None):
        self.directory = pathlib.Path(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = self.directory / "serve.log"
        environment = dict(os.environ, XDG_CACHE_HOME=str(self.directory / "cache"))
        environment.update(env or {})
        command = [str(YOLK), "serve", str(model or model_path()), "--port", str(self.port),
                   "--served-model-name", "smollm2", *map(str, args)]
        self.started = time.monotonic()
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)

    def wait_ready(self, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"yolk serve exited {self.process.returncode}:\n{self.tail()}")
            try:
                if self.get("/ready")[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready after {timeout} s:\n{self.tail()}")

    def tail(self, lines=60):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path):
        return get(self.port, path)

    def post(self, path, body, timeout=120, headers=None):
        """POSTs a JSON value, or bytes as they are; returns (status, parsed JSON, headers)."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, data,
                               {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, json.loads(text), dict(response.getheaders())
        finally:
            connection.close()

    def metric(self, name, **labels):
        """The sum over all series of a metric whose labels include the given ones."""
        total, found = 0.0, False
        for line in self.get("/metrics")[1].splitlines():
            match = re.match(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", line)
            if not match or match[1] != name:
                continue
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            if all(have.get(k) == v for k, v in labels.items()):
                total, found = total + float(match[3]), True
        assert found, f"no metric {name} {labels}"
        return total

    def children(self, role):
        """Process ids of the cluster's processes of one kind: master, gateway, prefill, decode."""
        pids = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and (role in words[1:2] or role in words):
                pids.append(int(entry.name))
        return pids

    def kill(self, role):
        """Kills a process by its role, or by its name among those of a role."""
        pids = self.children(role)
        assert pids, f"no {role} process to kill:\n{self.tail()}"
        os.kill(pids[0], signal.SIGKILL)
        return pids[0]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return self.process.returncode


def wait_until(condition, timeout=20, what="condition"):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: still not so after {timeout} s")
