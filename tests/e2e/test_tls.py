"""`firndb serve` over TLS: its commands reach it, and so do the official clients, REST and gRPC."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certified, certified
from tests.e2e.commands import firndb
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY, ROOT, clean_environment


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(files: Certified, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    environment = {f"FIRNDB_{name.upper()}": value for name, value in files.settings.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(files.authority))
        with embedded(tmp_path_factory.mktemp("tls"), environment) as deployment:
            yield deployment


def test_commands_reach_the_server_beside_them(server: Deployment) -> None:
    """They are not told of the certificate: the server's address in its folder names it."""
    shown = firndb("status", "--data", server.folder / "data")
    assert shown.returncode == 0, shown.stderr
    assert "no namespace is indexed yet" in shown.stdout


@pytest.mark.parametrize("version", ["7.3.0", "9.0.1", "10.2.0"])
def test_official_clients(server: Deployment, files: Certified, version: str) -> None:
    python = ROOT / ".clients" / version / "bin" / "python"
    assert python.exists(), f"pinecone {version} is not installed in .clients/: run `make clients`"
    ended = subprocess.run(
        [python, Path(__file__).with_name("tls_client.py"), files.authority],
        env={
            **clean_environment(),
            "PINECONE_API_KEY": KEY,
            "PINECONE_CONTROLLER_HOST": server.url,
            "SSL_CERT_FILE": str(files.authority),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "served over TLS" in ended.stdout, ended.stdout + ended.stderr
