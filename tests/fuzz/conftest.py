"""One served FirnDB for each file of fuzz tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deployments import embedded
from tests.fuzz.target import Target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    with embedded(folder, {"FIRNDB_CONSISTENCY_DEADLINE_S": "0.2"}) as deployment:
        host = deployment.create_index("fuzz", 3, "cosine")
        target = Target(deployment, host)
        yield target
        target.check_alive()
