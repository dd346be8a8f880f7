"""The first things that somebody who comes from Pinecone types work as they are, over gRPC and TLS.

Each client's own environment runs `first_steps_suite.py` and what README.md shows.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.certificates import certified
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY, ROOT, clean_environment

SUITE = Path(__file__).with_name("first_steps_suite.py")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    files = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
    settings = {f"FIRNDB_{name.upper()}": value for name, value in files.settings.items()}
    with embedded(tmp_path, settings) as deployment:
        yield deployment


def run(version: str, arguments: Sequence[str | Path], server: Deployment) -> str:
    """What the client's interpreter prints; the environment is all that it is told."""
    python = ROOT / ".clients" / version / "bin" / "python"
    if not python.exists():
        pytest.fail(f"pinecone {version} is not installed in .clients/: run `make clients`")
    settings = {
        **clean_environment(),
        "PINECONE_API_KEY": KEY,
        "PINECONE_CONTROLLER_HOST": server.url,
        "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
    }
    command = [python, "-W", "ignore", *arguments]
    ended = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.mark.parametrize("version", ["9.0.1", "10.2.0"])
def test_first_steps(server: Deployment, version: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull]
    run(version, ["-m", "pytest", *options, "--rootdir", SUITE.parent, SUITE], server)


def test_what_the_readme_shows(server: Deployment) -> None:
    section = (ROOT / "README.md").read_text().split("## Coming from Pinecone")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    checked = """
assert [m.id for m in found.matches] == ["A", "B", "C"]
assert set(pc.Index("copy").fetch(ids=["A", "D"]).vectors) == {"A", "D"}
assert sorted(index.name for index in pc.list_indexes()) == ["copy", "pods"]
"""
    code = code.replace("\nindex.query(", "\nfound = index.query(")
    printed = run("9.0.1", ["-c", code + checked], server)
    assert "eletion protection is enabled" in printed
