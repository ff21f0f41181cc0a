# SPDX-License-Identifier: Apache-2.0
"""`yolk metadata` as a process, asked as clients of other engines ask it; and a node that uses it."""
import http.client
import json
import signal
import subprocess
import time
import urllib.request

import pytest

from cluster import YOLK, free_port, model_path, run_yolk, wait_until


class Process:
    def __init__(self, directory, *args):
        self.log_path = directory / f"{args[0]}-{time.monotonic_ns()}.log"
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen([str(YOLK), *map(str, args)], stdout=self.log,
                                        stderr=self.log)

    def said(self, text):
        return text in self.log_path.read_text(errors="replace")

    def end(self, signo):
        self.process.send_signal(signo)
        self.process.wait(timeout=20)
        self.log.close()


class Metadata(Process):
    def __init__(self, directory, port=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/metadata"
        super().__init__(directory, "metadata", "--listen", f"127.0.0.1:{self.port}",
                         "--state-file", directory / "state", "--entries-max", 8)
        wait_until(lambda: self.said("ev=metadata_ready"))

    def ask(self, method, target, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def keys(self, *keys):
        return [self.ask("GET", f"/metadata?key={key}")[0] for key in keys]


@pytest.fixture()
def metadata(tmp_path):
    made = Metadata(tmp_path)
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def test_clients_of_other_engines_are_served_and_a_kill_loses_nothing(tmp_path, metadata):
    key = "/metadata?key=mooncake%2Fram%2F10.0.0.1%3A12345"
    assert metadata.ask("GET", key) == (404, b"metadata not found")
    assert metadata.ask("PUT", key, b'{"name":"x"}')[0] == 200
    assert metadata.ask("PUT", key, b'{"name":"y"}')[0] == 200
    assert metadata.ask("PUT", "/metadata?key=gone", b"1")[0] == 200
    assert metadata.ask("DELETE", "/metadata?key=gone") == (200, b"metadata deleted")
    assert metadata.ask("DELETE", "/metadata?key=gone")[0] == 404
    metadata.end(signal.SIGKILL)

    again = Metadata(tmp_path, metadata.port)
    try:
        assert again.ask("GET", "/metadata?key=mooncake/ram/10.0.0.1:12345") == (200, b'{"name":"y"}')
        assert again.keys("gone") == [404]
    finally:
        again.end(signal.SIGTERM)


def test_bad_requests_are_refused(metadata):
    assert metadata.ask("GET", "/metadata")[0] == 400
    assert metadata.ask("GET", "/metadata?key=%zz")[0] == 400
    assert metadata.ask("POST", "/metadata?key=a", b"1")[0] == 405
    assert metadata.ask("GET", "/elsewhere")[0] == 404
    assert metadata.ask("PUT", "/metadata?key=a&ttl_ms=soon", b"1")[0] == 400
    assert metadata.ask("PUT", "/metadata?key=a&owner=me", b"1")[0] == 200
    assert metadata.ask("PUT", "/metadata?key=a&owner=you&keep=1", b"2")[0] == 409
    assert metadata.ask("DELETE", "/metadata?key=a&owner=you")[0] == 409
    too_long = {"Content-Length": str((1 << 20) + 1)}  # refused before it is sent
    assert metadata.ask("PUT", "/metadata?key=big", headers=too_long)[0] == 413
    assert [metadata.ask("PUT", f"/metadata?key={i}", b"1")[0] for i in range(8)][-2:] == [200, 507]
    assert metadata.ask("GET", "/health")[0] == 200
    assert b"yolk_metadata_entries 8\n" in metadata.ask("GET", "/metrics")[1]


def test_a_node_is_published_under_its_name_and_withdrawn_at_its_end(tmp_path, metadata):
    master_port = free_port()
    master_http = free_port()
    master = Process(tmp_path, "master", "--listen", f"127.0.0.1:{master_port}",
                     "--metrics-listen", f"127.0.0.1:{master_http}")
    node = Process(tmp_path, "node", model_path(), "--master", f"127.0.0.1:{master_port}",
                   "--engine", "timed", "--pool-size", "64M", "--name", "n1",
                   "--transfer-metadata", metadata.url)
    try:
        ram, rpc = "mooncake/ram/n1", "mooncake/rpc_meta/n1"
        wait_until(lambda: metadata.keys(ram, rpc) == [200, 200])
        entry = json.loads(metadata.ask("GET", f"/metadata?key={ram}")[1])
        assert entry["name"] == "n1" and entry["protocol"] == "yolk"
        host, _, port = entry["yolk"]["address"].rpartition(":")
        assert host == "127.0.0.1" and int(port) == entry["tcp_data_port"]
        where = json.loads(metadata.ask("GET", f"/metadata?key={rpc}")[1])
        assert (where["ip_or_host_name"], where["rpc_port"]) == (host, int(port))
        wait_until(lambda: node.said("ev=node_ready"))
        with urllib.request.urlopen(f"http://127.0.0.1:{master_http}/metrics", timeout=10) as got:
            page = got.read().decode()
        assert 'segment_total_capacity_bytes{segment="n1"} 268435456\n' in page
        segments = f"http://127.0.0.1:{master_http}/get_all_segments"
        with urllib.request.urlopen(segments, timeout=10) as got:
            assert got.read() == b"n1\n"
        assert "\nmaster_key_count 0\n" in page
        node.end(signal.SIGTERM)
        assert metadata.keys(ram, rpc) == [404, 404]
    finally:
        if node.process.poll() is None:
            node.end(signal.SIGKILL)
        master.end(signal.SIGKILL)


def test_a_password_is_not_repeated():
    result = run_yolk("node", model_path(), "--engine", "timed", "--transfer-metadata",
                      "redis://:sesame@nowhere:port")
    assert result.returncode == 2
    assert "redis://host:port" in result.stderr and "sesame" not in result.stderr
