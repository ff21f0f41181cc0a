# SPDX-License-Identifier: Apache-2.0
"""The disk tier: a cluster that starts again still has its cache, and a disk that fails costs time only."""
import fcntl
import os
import random
import signal
import subprocess

import pytest

from cluster import YOLK, Cluster, free_port, model_path, run_yolk, wait_until
from test_30_cache import ask

BLOCK = 32
PROMPT = "\n".join(f"Item {i} has the value {i * 37 % 1009}." for i in range(40)) + "\nWhat is item 5?"


def ask_prompt(cluster):
    return ask(cluster, "", max_tokens=16, messages=[{"role": "user", "content": PROMPT}])


def written(cluster):
    """Nothing waits for the disk, and something is on it."""
    return (cluster.metric("yolk_ssd_blocks") > 0 and cluster.metric("yolk_ssd_write_queue") == 0 and
            cluster.metric("yolk_ssd_blocks") == cluster.metric("yolk_ssd_write_ops_total"))


def segments(data):
    return sorted(data.glob("*/seg-*.kv"))


def bytes_of(path):
    """On the disk; nothing of a segment that was given up meanwhile."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def prepared(directory, data, *options):
    """A cluster that has answered once, and has all of it on disk; and the answer."""
    directory.mkdir()
    cluster = Cluster(directory, "--data-dir", data, *options).wait_ready()
    answer = ask_prompt(cluster)
    assert answer[2] == 0
    wait_until(lambda: written(cluster), what="blocks on disk")
    return cluster, answer


def key_file(directory):
    path = directory / "disk.key"
    path.write_text("# ours\n" + "5a" * 32 + "\n")
    path.chmod(0o600)
    return path


def on_disk(data, needle):
    files = [path for path in data.rglob("*.kv")]
    assert files
    return any(needle in path.read_bytes() for path in files)


@pytest.mark.parametrize("how", ["stop", "kill sealed", "kill packed", "coupled"])
def test_the_cache_survives_a_restart(tmp_path, how):
    data = tmp_path / "data"
    options = ["--coupled", "1"] if how == "coupled" else []
    if "sealed" in how:
        options += ["--ssd-key-file", key_file(tmp_path)]
    if "packed" in how:
        options += ["--ssd-compress", "zstd"]
    cluster, (text, prompt, _) = prepared(tmp_path / "first", data, *options)
    if "packed" in how:
        wait_until(lambda: cluster.metric("yolk_ssd_packed_bytes_total") > 0, what="compressed blocks")
        stored, before = (cluster.metric(f"yolk_ssd_packed_{name}_total") for name in ("bytes", "from_bytes"))
        assert stored < 0.95 * before, "KV of a real model"
    if "kill" in how:
        os.kill(cluster.process.pid, signal.SIGKILL)
        cluster.process.wait()
    cluster.stop()
    assert segments(data)
    (tmp_path / "second").mkdir()
    again = Cluster(tmp_path / "second", "--data-dir", data, *options).wait_ready()
    try:
        text2, prompt2, cached = ask_prompt(again)
        assert (text2, prompt2) == (text, prompt)
        assert cached >= prompt - 2 * BLOCK, again.tail()
        wait_until(lambda: again.metric("yolk_ssd_read_ops_total") > 0, what="counted reads")
    finally:
        again.stop()


def test_kv_of_another_type_is_not_found(tmp_path):
    """And what is computed with KV of Q8_0 is the same in one process and in two."""
    data = tmp_path / "data"
    cluster, (text, prompt, _) = prepared(tmp_path / "first", data, "--kv-type", "q8_0")
    assert ask_prompt(cluster)[2] >= prompt - 2 * BLOCK
    cluster.stop()
    for kv_type, options in [("f16", []), ("q8_0", ["--no-pool", "--coupled", "1"])]:
        (tmp_path / kv_type).mkdir()
        other = Cluster(tmp_path / kv_type, "--data-dir", data, "--kv-type", kv_type, *options).wait_ready()
        try:
            again = ask_prompt(other)
            assert again[2] == 0, other.tail()
            if kv_type == "q8_0":
                assert again[:2] == (text, prompt)
        finally:
            other.stop()


def test_values_go_to_disk_and_survive(tmp_path):
    master, secret = f"127.0.0.1:{free_port()}", "values on disk"
    options = ("--data-dir", tmp_path / "data", "--values-size", "8M", "--values-ssd-size", "64M",
               "--ssd-key-file", key_file(tmp_path), "--ssd-compress", "zstd", "--pool-size", "64M", "--master", master, "--secret", secret)
    environment = dict(os.environ, YOLK_MASTER=master, YOLK_SECRET=secret)
    values = {f"value/{i}": random.Random(i).randbytes(900_000 + i) for i in range(24)}  # 22 MB into 14
    values |= {key: value[: len(value) // 2].hex().encode() for key, value in values.items() if key.endswith("7")}

    def store(*args, stdin=b""):
        return subprocess.run([str(YOLK), "store", *args], input=stdin, capture_output=True, timeout=60,
                              env=environment)

    (tmp_path / "first").mkdir()
    cluster = Cluster(tmp_path / "first", *options).wait_ready()
    try:
        for key, value in values.items():
            assert store("put", key, stdin=value).returncode == 0
        assert store("put", "value/0", "--replace", stdin=b"new").returncode == 0
        assert store("rm", "value/1", "--force").returncode == 0
        values["value/0"] = b"new"
        del values["value/1"]
        for key, value in values.items():
            assert store("get", key).stdout == value, key
        wait_until(lambda: cluster.metric("yolk_ssd_values_kept_total") > 0, what="values on disk only")
        wait_until(lambda: cluster.metric("yolk_ssd_values_write_queue") == 0, what="an empty queue")
        assert cluster.metric("yolk_ssd_values_lost_total") == 0
        os.kill(cluster.process.pid, signal.SIGKILL)
        cluster.process.wait()
    finally:
        cluster.stop()
    assert on_disk(tmp_path / "data", b"YOLKVSG1")
    assert not on_disk(tmp_path / "data", values["value/5"][:64]) and not on_disk(tmp_path / "data", b"value/")
    (tmp_path / "second").mkdir()
    again = Cluster(tmp_path / "second", *options).wait_ready()
    try:
        wait_until(lambda: again.metric("yolk_ssd_values") >= len(values), what="values found again")
        for key, value in values.items():
            assert store("get", key).stdout == value, key
        assert store("get", "value/1").returncode == 2
    finally:
        again.stop()


def test_a_damaged_disk_costs_a_computation(tmp_path):
    data = tmp_path / "data"
    cluster, (text, prompt, _) = prepared(tmp_path / "first", data)
    cluster.stop()
    chance = random.Random(7)
    for path in segments(data):
        content = bytearray(path.read_bytes())
        for _ in range(200):
            content[chance.randrange(4096, len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    (tmp_path / "second").mkdir()
    again = Cluster(tmp_path / "second", "--data-dir", data).wait_ready()
    try:
        text2, prompt2, _ = ask_prompt(again)
        assert (text2, prompt2) == (text, prompt), again.tail()
        wait_until(lambda: again.metric("yolk_ssd_corrupt_total") > 0, what="counted damage")
        text3, _, cached3 = ask_prompt(again)
        assert text3 == text and cached3 >= prompt - 2 * BLOCK
    finally:
        again.stop()


def test_a_small_disk_and_a_small_memory_go_on(tmp_path):
    """Prompts of their own through a pool and a disk that hold two of them each."""
    cluster = Cluster(tmp_path, "--data-dir", tmp_path / "data", "--ssd-size", "12M",
                      "--pool-size", "16M").wait_ready()

    def question(i):
        return ask(cluster, "", max_tokens=2,
                   messages=[{"role": "user", "content": f"{i} " * 200}])[:2]

    try:
        first = [question(i) for i in range(4)]
        assert [question(i) for i in range(4)] == first
        size = sum(map(bytes_of, segments(tmp_path / "data")))
        assert size <= 2 * (12 << 20)
        wait_until(lambda: cluster.metric("yolk_ssd_reclaimed_total") > 0, what="reclaimed blocks")
        assert cluster.metric("yolk_ssd_size_bytes") <= cluster.metric("yolk_ssd_capacity_bytes")
    finally:
        cluster.stop()


def test_a_disk_too_small_for_anything_is_none(tmp_path):
    cluster = Cluster(tmp_path, "--data-dir", tmp_path / "data", "--ssd-size", "1M").wait_ready()
    try:
        assert ask_prompt(cluster)[0]
        assert "no_disk" in cluster.tail()
    finally:
        cluster.stop()


def test_a_directory_has_one_user(tmp_path):
    data = tmp_path / "data"
    with Held(data):
        refused(data, "another process")


def test_a_directory_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "data", "file")


def test_a_key_that_is_no_secret_or_no_key_is_refused(tmp_path):
    path = key_file(tmp_path)
    for mode, text, why in ((0o640, "5a" * 32, "chmod 600"), (0o600, "abcd", "line 1"), (0o600, "", "no key")):
        path.write_text(text)
        path.chmod(mode)
        result = run_yolk("serve", model_path(), "--port", free_port(), "--data-dir", tmp_path / "data",
                          "--ssd-key-file", path)
        assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert "--ssd-key-file" in result.stderr and why in result.stderr
        assert text == "" or text not in result.stderr


def test_a_compression_that_is_none_is_refused(tmp_path):
    result = run_yolk("serve", model_path(), "--port", free_port(), "--data-dir", tmp_path / "data",
                      "--ssd-compress", "zstd:99")
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "--ssd-compress: zstd:99" in result.stderr


class Held:
    """Has the directory the way a serve has it."""

    def __init__(self, data):
        data.mkdir()
        self.lock = open(data / "lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lock.close()


def refused(data, why):
    result = run_yolk("serve", model_path(), "--port", free_port(), "--data-dir", data)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "--data-dir" in result.stderr and why in result.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, in a file."""
    image, at = tmp_path / "disk.img", tmp_path / "disk"
    at.mkdir()
    with open(image, "wb") as file:
        file.truncate(96 << 20)
    steps = (["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(at)])
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system in a file here ({error}): needs root, mkfs.ext4 and loop devices")
    yield at
    subprocess.run(["umount", str(at)], check=True)


def test_a_disk_that_fills_up_costs_room_never_a_value(tmp_path, small_disk):
    """Somebody else fills the disk below the cache; then he leaves."""
    master, secret = f"127.0.0.1:{free_port()}", "a full disk"
    environment = dict(os.environ, YOLK_MASTER=master, YOLK_SECRET=secret)
    chance = random.Random(11)

    def store(*args, stdin=b""):
        return subprocess.run([str(YOLK), "store", *args], input=stdin, capture_output=True, timeout=60,
                              env=environment)

    def put_and_compare(count, first):
        """Nothing wrong is read; what is not there says so."""
        there = 0
        values = {f"value/{first + i}": chance.randbytes(900_000) for i in range(count)}
        for key, value in values.items():
            assert store("put", key, stdin=value).returncode == 0
        for key, value in values.items():
            got = store("get", key)
            assert got.stdout == value if got.returncode == 0 else b"no such key" in got.stderr
            there += got.returncode == 0
        store("rm", "--all", "--force")  # what was read just now is leased, and makes room for nobody
        return there

    (tmp_path / "first").mkdir()
    cluster = Cluster(tmp_path / "first", "--data-dir", small_disk / "data", "--values-size", "8M",
                      "--values-ssd-size", "64M", "--ssd-size", "64M", "--pool-size", "64M",
                      "--master", master, "--secret", secret).wait_ready()
    try:
        text, prompt, _ = ask_prompt(cluster)
        assert put_and_compare(6, 0) == 6
        with open(small_disk / "filler", "wb", buffering=0) as filler:
            with pytest.raises(OSError):
                while True:
                    filler.write(bytes(1 << 16))
        assert put_and_compare(14, 100) > 0, "memory goes on without"
        assert ask_prompt(cluster)[:2] == (text, prompt)
        (small_disk / "filler").unlink()
        before = cluster.metric("yolk_ssd_values_write_bytes_total")
        wait_until(lambda: put_and_compare(2, 1000 + chance.randrange(10 ** 6)) == 2 and
                   cluster.metric("yolk_ssd_values_write_bytes_total") > before, 30, "writing again")
        assert cluster.metric("yolk_ssd_values_corrupt_total") == 0
    finally:
        cluster.stop()
