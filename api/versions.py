"""What the API version that a client sends changes: the one place that knows versions.

Index resources have two shapes, and the default namespace had no name at first; everything else is
the same for all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.indexes import DEFAULT_NAMESPACE

HEADER = "x-pinecone-api-version"
# The first one with `schema` and `deployment` instead of `dimension`, `metric` and `spec`.
_FIRST_TYPED = "2026-07"
# Before it, the default namespace was shown as "".
_FIRST_NAMED_DEFAULT = "2025-04"
_UNSTABLE = "unstable"
_VERSION = re.compile(r"\d{4}-\d{2}")


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """typed: index resources have the newer shape. default_namespace: what that one is called."""

    typed: bool
    default_namespace: str

    def shown(self, namespace: str) -> str:
        """The canonical name as this client knows it."""
        return self.default_namespace if namespace == DEFAULT_NAMESPACE else namespace


_CLASSIC = ApiVersion(typed=False, default_namespace=DEFAULT_NAMESPACE)
_OLD = ApiVersion(typed=False, default_namespace="")
_TYPED = ApiVersion(typed=True, default_namespace=DEFAULT_NAMESPACE)


def api_version(headers: Mapping[str, str]) -> ApiVersion:
    """By the date that the client sends, known or not. What is no date counts as none: classic."""
    asked = headers.get(HEADER, "")
    if asked == _UNSTABLE:
        return _TYPED
    # a release candidate like 2026-01.alpha is judged by its date
    found = _VERSION.match(asked)
    if found is None:
        return _CLASSIC
    if found[0] >= _FIRST_TYPED:
        return _TYPED
    return _CLASSIC if found[0] >= _FIRST_NAMED_DEFAULT else _OLD
