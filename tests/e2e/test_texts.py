"""Texts with the official clients: a server with a model in its process, and with one that is a
process of its own on the other side of HTTP.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.processes import KEY, ROOT, START_TRIES, free_ports
from tests.e2e.test_official_clients import VERSIONS, run_suite
from tests.fixtures import embedder

SUITE = Path(__file__).with_name("text_suite.py")
MODELS = ["near", "far"]


@contextmanager
def embedder_process(port: int) -> Iterator[None]:
    module = "tests.fixtures.embedder"
    process = subprocess.Popen([sys.executable, "-m", module, str(port)], cwd=ROOT)
    try:
        for _ in range(START_TRIES):
            try:
                httpx.post(f"http://127.0.0.1:{port}/", json={})
                break
            except httpx.TransportError:
                assert process.poll() is None, "the embedder ended"
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def write_models(folder: Path, port: int) -> dict[str, str]:
    """The settings of a server that has them."""
    path = folder / "embedders.toml"
    path.write_text(
        f'[near]\nlocal = "tests.fixtures.embedder:make"\ndimension = {embedder.DIMENSION}\n'
        f'[far]\nurl = "http://127.0.0.1:{port}/v1/embeddings"\nkey_env = "EMBEDDER_KEY"\n'
        f"dimension = {embedder.DIMENSION}\nbatch = 2\n"
    )
    return {"FIRNDB_EMBEDDERS": str(path), "EMBEDDER_KEY": embedder.KEY}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("texts")
    (port,) = free_ports(1)
    with embedder_process(port), embedded(folder, write_models(folder, port)) as deployment:
        yield deployment


@pytest.mark.parametrize("version", VERSIONS)
def test_texts_with_the_official_client(server: Deployment, version: str) -> None:
    run_suite(version, server, SUITE, {"FIRN_MODELS": ",".join(MODELS)})


@pytest.mark.long
def test_texts_on_the_distributed_deployment(
    tmp_path: Path, service_settings: Mapping[str, str]
) -> None:
    (port,) = free_ports(1)
    settings = {**service_settings, **write_models(tmp_path, port)}
    with embedder_process(port), distributed(tmp_path, settings) as deployment:
        run_suite("10.2.0", deployment, SUITE, {"FIRN_MODELS": ",".join(MODELS)})


def test_texts_outlive_the_server_and_wait_for_the_embedder(tmp_path: Path) -> None:
    """While the embedder is away nothing is written, and clients are told to repeat; what was
    written is found after a restart.
    """
    (port,) = free_ports(1)
    with embedded(tmp_path, write_models(tmp_path, port)) as deployment:
        embed = {"model": "far", "field_map": {"text": "body"}}
        body = {"name": "texts", "cloud": "aws", "region": "us-east-1", "embed": embed}
        with deployment.control() as client:
            made = client.post("/indexes/create-for-model", json=body)
            host = made.raise_for_status().json()["host"]
        with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as index:
            lines = b'{"_id":"a","body":"ice and snow"}\n{"_id":"b","body":"sea"}'
            path = "/records/namespaces/ns"
            refused = index.post(f"{path}/upsert", content=lines)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert index.get("/namespaces").json()["namespaces"] == []
            with embedder_process(port):
                assert index.post(f"{path}/upsert", content=lines).status_code == 201
                deployment.process.kill()
                deployment.restart()
                query = {"top_k": 1, "inputs": {"text": "snow"}}
                found = index.post(f"{path}/search", json={"query": query}).json()
                assert [hit["_id"] for hit in found["result"]["hits"]] == ["a"]
