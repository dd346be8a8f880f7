"""A running gateway for the tests of the HTTP edge."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.gateway import Running, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_gateway(tmp_path) as running:
        yield running
