# SPDX-License-Identifier: Apache-2.0
"""Models by URL: from a server that answers well, badly, and not to the end."""
import hashlib
import http.server
import os
import pathlib
import shutil
import signal
import ssl
import struct
import subprocess
import threading

import pytest

from cluster import YOLK, free_port, model_path, run_yolk, wait_until


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


# A GGUF file without tensors, of an architecture that nobody has, and a version that nobody reads.
GOOD = (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + struct.pack("<I", 8) +
        text("unheard-of")).ljust(300_000, b"\0")
DAMAGED = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + b"\xff" * 64
HALF = 100_000


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Server:
    """Answers by path; remembers what was asked."""

    def __init__(self, certificate=None):
        self.asked = []          # (path, Range, If-Range)
        self.tag, self.breaks = '"one"', 0
        self.hold = threading.Event()
        self.beside = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.partition("?")[0]
                outer.asked.append((self.path, self.headers["Range"], self.headers["If-Range"]))
                if path.endswith(".sha256"):
                    body = outer.beside.get(path)
                    return self.answer(200, body) if body else self.answer(404, b"no")
                return getattr(self, path.strip("/").partition(".")[0], self.nothing)()

            def answer(self, code, body, *headers, cut=None):
                self.send_response(code)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True

            def nothing(self):
                self.answer(404, b"no")

            def part(self, cut=None):
                asked = self.headers["Range"]
                same = self.headers["If-Range"] in (None, outer.tag)
                if asked and same:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    place = ("Content-Range", f"bytes {start}-{len(GOOD) - 1}/{len(GOOD)}")
                    return self.answer(206, GOOD[start:], place, cut=cut)
                return self.answer(200, GOOD, ("ETag", outer.tag), cut=cut)

            ok = signed = lied = part

            def breaks(self):
                outer.breaks -= 1
                self.part(HALF if outer.breaks >= 0 else None)

            def hangs(self):
                self.part(None if outer.hold.is_set() else HALF)
                outer.hold.wait(20)

            def always(self):
                self.answer(200, GOOD, ("ETag", outer.tag), cut=HALF)

            def page(self):
                self.answer(200, b"<!DOCTYPE html><html>" * 100_000)

            def damaged(self):
                self.answer(200, DAMAGED)

            def secret(self):
                self.answer(403, b"no")

            def unsafe(self):
                self.answer(302, b"", ("Location", outer.url.replace("https:", "http:") + "/ok.gguf"))

            def moved(self):
                self.answer(302, b"there", ("Location", "/ok.gguf?signature=hunter2"))

            def around(self):
                self.answer(307, b"", ("Location", "/around.gguf"))

            def nowhere(self):
                self.answer(301, b"", ("Location", "gopher://x/"))

            def large(self):
                self.send_response(200)
                self.send_header("Content-Length", str(100 << 30))
                self.end_headers()
                self.close_connection = True

            def model(self):
                with open(model_path(), "rb") as file:
                    self.answer(200, file.read())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server():
    with Server() as made:
        yield made


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def environment(cache, **more):
    return dict(os.environ, XDG_CACHE_HOME=str(cache), **more)


def fetch(cache, url, **more):
    return run_yolk("model", "fetch", url, env=environment(cache, **more))


def path_of(cache, url):
    ran = run_yolk("model", "path", url, env=environment(cache))
    assert ran.returncode == 0, ran.stderr
    return pathlib.Path(ran.stdout.strip())


def refused(cache, url, *words, **more):
    ran = fetch(cache, url, **more)
    assert ran.returncode == 1 and all(word in ran.stderr for word in words), ran.stderr
    assert not list((cache / "yolk" / "models").glob("*.gguf"))
    assert "hunter2" not in ran.stderr + ran.stdout
    return ran.stderr


def test_fetched_once_and_told_what_it_is(server, cache):
    ran = fetch(cache, server.url + "/a/../ok.gguf")  # whatever a path is to the server
    assert ran.returncode == 1 and "there is nothing (404)" in ran.stderr
    ran = fetch(cache, server.url + "/ok.gguf")
    assert ran.returncode == 0 and f"#sha256={sha256(GOOD)} behind it would" in ran.stderr
    asked = len(server.asked)
    path = path_of(cache, server.url + "/ok.gguf")
    assert path.read_bytes() == GOOD and path.name.startswith("ok-")
    assert path.with_name(path.name + ".sha256").read_text() == f"{sha256(GOOD)}  {path.name}\n"
    assert path_of(cache, f"{server.url}/ok.gguf#sha256={sha256(GOOD)}") == path
    assert len(server.asked) == asked, "it is there"
    other = path_of(cache, server.url + "/ok.gguf?v=2")
    assert other != path, "another URL, another file"


def test_redirections(server, cache):
    path = path_of(cache, server.url + "/moved.gguf")
    assert path.read_bytes() == GOOD and path.name.startswith("moved-")
    shutil.rmtree(cache)
    refused(cache, server.url + "/around.gguf", "sends us on more than 5 times")
    refused(cache, server.url + "/nowhere.gguf", "sends us to no URL")


def test_what_is_no_model_is_one_line(server, cache):
    refused(cache, server.url + "/none.gguf", "/none.gguf: there is nothing (404)")
    refused(cache, server.url + "/secret.gguf?token=hunter2", "/secret.gguf: it is not for everybody (403)")
    refused(cache, server.url + "/page.gguf", "is no GGUF file")
    refused(cache, server.url + "/damaged.gguf", "/damaged.gguf is damaged: ")
    refused(cache, server.url + "/large.gguf", f"has {100 << 30} bytes; at most {64 << 30}")
    refused(cache, server.url + "/ok.gguf#md5=1", "behind # stands sha256= and 64 hex digits")
    refused(cache, server.url + "/o k.gguf?hunter2", "has a blank")
    refused(cache, "http://127.0.0.1:99999/x?hunter2", "is not of the form http://HOST:PORT")
    refused(cache, f"http://127.0.0.1:{free_port()}/ok.gguf", "nobody answers at", "refused")


def test_sha256(server, cache):
    """Of the URL, or beside the file; what is not of it is not kept, and fetched anew."""
    wrong, right = "0" * 64, sha256(GOOD)
    refused(cache, f"{server.url}/ok.gguf#sha256={wrong}", f"has the SHA-256 {right}, not {wrong}")
    assert fetch(cache, f"{server.url}/ok.gguf#sha256={right.upper()}").returncode == 0
    path = path_of(cache, server.url + "/ok.gguf")
    path.write_bytes(GOOD[:-1])
    path.with_name(path.name + ".sha256").unlink()
    assert path_of(cache, f"{server.url}/ok.gguf#sha256={right}").read_bytes() == GOOD
    shutil.rmtree(cache)
    server.beside["/lied.gguf.sha256"] = f"{wrong}  lied.gguf\n".encode()
    refused(cache, server.url + "/lied.gguf", f"has the SHA-256 {right}, not {wrong}")
    server.beside["/signed.gguf.sha256"] = f"{right}  signed.gguf\n".encode()
    ran = fetch(cache, server.url + "/signed.gguf?token=hunter2")
    assert ran.returncode == 0 and "compared with nothing" not in ran.stderr
    assert ("/signed.gguf.sha256?token=hunter2", None, None) in server.asked


def test_a_broken_connection_goes_on(server, cache):
    server.breaks = 1
    assert path_of(cache, server.url + "/breaks.gguf").read_bytes() == GOOD
    assert server.asked[-1] == ("/breaks.gguf", f"bytes={HALF}-", '"one"')
    shutil.rmtree(cache)
    refused(cache, server.url + "/always.gguf", f"it ended after {HALF} of {len(GOOD)} bytes")


@pytest.mark.parametrize("changed", [False, True])
def test_another_process_goes_on(server, cache, changed):
    """Also from SIGKILL; if the server has another file by then, from the start. Two do not fetch one file."""
    url = server.url + "/hangs.gguf"
    with subprocess.Popen([YOLK, "model", "fetch", url], env=environment(cache), stderr=subprocess.DEVNULL) as first:
        def half():
            parts = list((cache / "yolk" / "models" / ".fetch").glob("*.part"))
            return parts and parts[0].stat().st_size == HALF
        wait_until(half, 20, "half of it is there")
        refused(cache, url, "is being fetched by another process")
        first.send_signal(signal.SIGKILL)
    server.hold.set()
    if changed:
        server.tag = '"two"'
    server.asked.clear()
    assert path_of(cache, url).read_bytes() == GOOD
    files = [asked for asked in server.asked if ".sha256" not in asked[0]]
    assert files[0] == ("/hangs.gguf", f"bytes={HALF}-", '"one"')
    assert not list((cache / "yolk" / "models" / ".fetch").glob("*.part"))


def test_a_full_disk_is_said(server, tmp_path):
    at = tmp_path / "small"
    at.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", at], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("no file system of our own here: needs root")
    try:
        refused(at, server.url + "/ok.gguf", "no space is left on its disk after ")
    finally:
        subprocess.run(["umount", at], check=True)


def test_https(tmp_path, cache):
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=files", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0],
                    "-keyout", files[1]], check=True, capture_output=True)
    with Server(files) as server:
        refused(cache, server.url + "/ok.gguf", "certificate is refused")
        refused(cache, server.url + "/unsafe.gguf", "sends us from https to http://", SSL_CERT_FILE=str(files[0]))
        assert fetch(cache, server.url + "/ok.gguf", SSL_CERT_FILE=str(files[0])).returncode == 0


def test_run_and_demo_take_urls(server, cache):
    if model_path() is None:
        pytest.skip("the model is not fetched")
    ran = run_yolk("run", server.url + "/model.gguf", "--raw", "--max-tokens", "4", "The sky is", env=environment(cache))
    assert ran.returncode == 0 and len(ran.stdout) > 3, ran.stderr
    assert ran.stdout == run_yolk("run", model_path(), "--raw", "--max-tokens", "4", "The sky is").stdout
    ran = run_yolk("demo", "overload", "--model", server.url + "/none.gguf", env=environment(cache))
    assert ran.returncode == 2 and "there is nothing (404)" in ran.stderr
