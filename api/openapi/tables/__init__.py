"""Every operation of the API, by area."""

from api.openapi.operation import Operation
from api.openapi.tables import (
    accounts,
    backups,
    imports,
    indexes,
    inference,
    namespaces,
    process,
    records,
    schedules,
    vectors,
)

OPERATIONS: tuple[Operation, ...] = (
    *indexes.OPERATIONS,
    *vectors.OPERATIONS,
    *namespaces.OPERATIONS,
    *records.OPERATIONS,
    *inference.OPERATIONS,
    *imports.OPERATIONS,
    *backups.OPERATIONS,
    *schedules.OPERATIONS,
    *accounts.OPERATIONS,
    *process.OPERATIONS,
)
"""In the order of the document. Each is a route of `api.app`, and no other route is there but those
of the local admin endpoint; `tests/api/test_openapi.py` compares the two.
"""
