"""What people build on Pinecone's clients, unmodified, with the client versions that it pins.

Each package lives in an environment of its own (`make clients`); this file serves a FirnDB, and the
suites in `ecosystem/` do the package's everyday work there.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY, ROOT, clean_environment

CLIENTS = ROOT / ".clients"
SUITES = Path(__file__).with_name("ecosystem")
NODE_MAJOR_MIN = 20  # what the TypeScript client asks for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("embedded")) as deployment:
        yield deployment


def run(command: Sequence[str | Path], deployment: Deployment, **more: str) -> None:
    settings = {
        **clean_environment(),
        "PINECONE_API_KEY": KEY,
        "PINECONE_CONTROLLER_HOST": deployment.url,
        **more,
    }
    ended = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, f"{command}:\n{ended.stdout[-6000:]}{ended.stderr[-2000:]}"


@pytest.mark.parametrize("package", ["langchain", "llama-index", "haystack"])
def test_python_package(server: Deployment, package: str) -> None:
    python = CLIENTS / package / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{package} is not installed in .clients/: run `make clients`")
    suite = SUITES / f"{package.replace('-', '_')}_suite.py"
    options = ["-q", "-p", "no:cacheprovider", "--noconftest", "-W", "ignore"]
    options += ["-c", os.devnull, "--rootdir", str(SUITES)]
    run([python, "-m", "pytest", *options, suite], server)


@pytest.mark.parametrize("package", ["pinecone-8", "pinecone-9"])
def test_typescript_client(server: Deployment, package: str) -> None:
    missing = without_node()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    assert not missing, missing
    folder = CLIENTS / "typescript"
    if not (folder / "node_modules" / package).exists():
        pytest.fail("the TypeScript client is not installed in .clients/: run `make clients`")
    suite = SUITES / "typescript" / "suite.mjs"
    run(["node", "--test", suite], server, CLIENT_FOLDER=str(folder), CLIENT_PACKAGE=package)


def without_node() -> str | None:
    """Why the TypeScript client cannot run on this machine, or None."""
    needed = f"the TypeScript client needs Node {NODE_MAJOR_MIN} or newer with npm"
    if not (shutil.which("node") and shutil.which("npm")):
        return f"{needed}, and there is none"
    answer = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    version = answer.stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR_MIN:
        return f"{needed}; here is {version}"
    return None
