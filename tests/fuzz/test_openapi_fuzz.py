"""Requests made from the API's own description, right and wrong ones, by schemathesis.

At stake: whatever a client can send by the description gets an answer that the description has, and
never a 500.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.openapi.routes import document
from tests.e2e.processes import KEY
from tests.fuzz.target import Target

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_file(document().decode())
# Hosted models and documents, which are not here; an LSN that no write has had is not reached.
RIGHT = (501, 504)


def operations() -> Iterator[Any]:
    for found in SCHEMA.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        yield pytest.param(operation, id=f"{operation.method.upper()} {operation.path}")


def fuzz(target: Target, operation: Any, examples: int) -> None:
    for mode in schemathesis.GenerationMode:

        @seed(20_260_731)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            answer = case.call(base_url=target.host, headers={"Api-Key": KEY}, timeout=30)
            checks = CHECKS[1:] if answer.status_code in RIGHT else CHECKS
            case.validate_response(answer, checks=checks)

        try:
            ask()
        except Unsatisfiable:  # a request that has nothing in it has nothing that could be wrong
            if mode is not schemathesis.GenerationMode.NEGATIVE:
                raise


@pytest.mark.parametrize("operation", list(operations()))
def test_whatever_the_description_allows_or_forbids_is_answered_as_it_says(
    target: Target, operation: Any
) -> None:
    fuzz(target, operation, 1)


@pytest.mark.long
@pytest.mark.parametrize("operation", list(operations()))
def test_many_requests_by_the_description(target: Target, operation: Any) -> None:
    fuzz(target, operation, 60)


def test_afterwards_it_works_as_before(target: Target) -> None:
    target.check_alive()
