# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from cluster import YOLK, Cluster, model_path


@pytest.fixture(scope="session", autouse=True)
def needs():
    assert YOLK.exists(), f"{YOLK} is not built: make build"
    if model_path() is None:
        message = "the model is not fetched: yolk model fetch smollm2"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One prefill and one decode process, shared by the tests of a module."""
    made = Cluster(tmp_path_factory.mktemp("cluster")).wait_ready()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(cluster):
    from openai import OpenAI

    return OpenAI(base_url=cluster.url + "/v1", api_key="none", max_retries=0, timeout=120)


def pytest_runtest_makereport(item, call):
    """On failure, show what the cluster said."""
    if call.when == "call" and call.excinfo is not None:
        made = item.funcargs.get("cluster")
        if made is not None:
            item.add_report_section("call", "cluster log", made.tail())
