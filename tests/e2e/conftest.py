"""Fixtures of the end-to-end tests."""

from collections.abc import Mapping

import pytest

from infra.services.service import Service
from tests.e2e.deployments import fresh_settings


@pytest.fixture(scope="module")
def service_settings(
    kafka_service: Service, s3_service: Service, postgres_service: Service
) -> Mapping[str, str]:
    """FIRNDB_* settings of a distributed deployment that this module has for itself."""
    return fresh_settings(kafka_service, s3_service, postgres_service)
