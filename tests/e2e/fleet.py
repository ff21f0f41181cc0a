# SPDX-License-Identifier: Apache-2.0
"""The processes of a cluster one by one, as an operator of several hosts starts them.

A Fleet starts `yolk master`, `yolk node` and `yolk gateway` by name, each alone, and stops or
restarts any of them. `prefix` puts a process elsewhere ("ip netns exec NAME").
"""
import http.client
import json
import os
import pathlib
import signal
import subprocess
import time

from cluster import YOLK, events, free_port, get, model_path, wait_until

SECRET = "a secret of these tests"


class Fleet:
    def __init__(self, directory, secret=SECRET):
        self.directory = pathlib.Path(directory)
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(self.directory / "cache"),
                                YOLK_SECRET=secret)
        self.commands = {}
        self.running = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Also when the test, or its preparation, has failed: nobody is left behind."""
        self.kill_all()

    def start(self, name, kind, *args, prefix=()):
        """Starts a process; the same name again repeats what was said first."""
        model = () if kind == "master" else (str(model_path()),)
        self.commands[name] = [*prefix, str(YOLK), kind, *model, *map(str, args)]
        return self.again(name)

    def again(self, name):
        with open(self.log_path(name), "ab") as log:
            self.running[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log,
                                                  env=self.environment)
        return self.running[name]

    def log_path(self, name):
        return self.directory / f"{name}.log"

    def log(self, name):
        path = self.log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, name, number):
        self.running[name].send_signal(number)

    def stop(self, name, timeout=60):
        """Asks it to end, and waits; returns how it did."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} did not end:\n{self.log(name)[-3000:]}") from None

    def kill_all(self):
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()
        self.running.clear()

    def all_logs(self, lines=25):
        return "\n".join(f"== {name}\n" + "\n".join(self.log(name).splitlines()[-lines:])
                         for name in self.commands)


def is_ready(port, prefill=1, decode=1, host="127.0.0.1"):
    """Is this gateway, and does it see at least so many nodes?"""
    try:
        status, text = get(port, "/ready", host)
    except OSError:
        return False
    seen = json.loads(text)
    return status == 200 and seen["prefill"] >= prefill and seen["decode"] >= decode


def wait_ready(fleet, port, prefill=1, decode=1, host="127.0.0.1", timeout=30):
    try:
        wait_until(lambda: is_ready(port, prefill, decode, host), timeout, f"port {port} ready")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{fleet.all_logs()}") from None


def stream(port, request, on_token=None, host="127.0.0.1"):
    """The pieces of a streamed completion, and the longest pause between two, in seconds. Raises
    ConnectionError only if nothing was taken: then somebody else may be asked."""
    connection = http.client.HTTPConnection(host, port, timeout=120)
    try:
        connection.connect()
    except OSError as error:
        raise ConnectionError("nobody listens") from error
    try:
        connection.request("POST", "/v1/completions", json.dumps({**request, "stream": True}),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        pieces, last, pause = [], None, 0.0
        for event in events(response):
            for choice in event["choices"]:
                if choice["text"]:
                    now = time.monotonic()
                    pause = max(pause, now - last if last else 0.0)
                    last = now
                    pieces.append(choice["text"])
                    if on_token:
                        on_token(len(pieces))
        return "".join(pieces), pause
    finally:
        connection.close()


__all__ = ["Fleet", "SECRET", "free_port", "get", "is_ready", "stream", "wait_ready"]
