"""The official Pinecone clients, unmodified, on both deployments: one suite, three versions.

Each client lives in an environment of its own (`make clients`), because one environment holds one
version. The suite is `client_suite.py`; this file serves a deployment and runs it there.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.processes import KEY, ROOT, clean_environment

VERSIONS = ["7.3.0", "9.0.1", "10.2.0"]
SUITE = Path(__file__).with_name("client_suite.py")


@pytest.fixture(scope="module")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("embedded")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def distributed_server(
    tmp_path_factory: pytest.TempPathFactory, service_settings: Mapping[str, str]
) -> Iterator[Deployment]:
    with distributed(tmp_path_factory.mktemp("distributed"), service_settings) as deployment:
        yield deployment


def run_suite(
    version: str,
    deployment: Deployment,
    suite: Path = SUITE,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Fails with its output when the suite fails in that client's own environment."""
    python = ROOT / ".clients" / version / "bin" / "python"
    if not python.exists():
        pytest.fail(f"pinecone {version} is not installed in .clients/: run `make clients`")
    settings = {
        **clean_environment(),
        "PINECONE_API_KEY": KEY,
        "PINECONE_CONTROLLER_HOST": deployment.url,
        **(environment or {}),
    }
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--noconftest",
    ]
    command += ["-c", os.devnull, "--rootdir", suite.parent, "-W", "ignore", suite]
    ended = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, f"pinecone {version}:\n{ended.stdout[-6000:]}{ended.stderr}"


@pytest.mark.parametrize("version", VERSIONS)
def test_client_on_the_embedded_deployment(embedded_server: Deployment, version: str) -> None:
    run_suite(version, embedded_server)


@pytest.mark.parametrize("version", VERSIONS)
def test_client_on_the_distributed_deployment(distributed_server: Deployment, version: str) -> None:
    run_suite(version, distributed_server)
