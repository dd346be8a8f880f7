"""Which methods a path has: Starlette tells those of one route only, a path has several."""

import re
from functools import cache

from api.openapi.tables import OPERATIONS


def methods_of(path: str) -> list[str]:
    """Ascending; empty for a path that the table does not know. path: decoded, so that a name in
    it may hold slashes.
    """
    return sorted({method for pattern, method in _patterns() if pattern.fullmatch(path)})


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"{\w+}", ".*", o.path)), o.method) for o in OPERATIONS]
