"""What both API shapes demand of an index, with Pinecone's texts where they are known."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.errors import InvalidRequest, NotFound
from core.indexes import IndexInfo, IndexState, VectorType
from core.limits import DIMENSION_MAX
from core.metric import Metric
from ingest.vectors import shown

NAME_CHARS_MAX = 45
TAGS_MAX = 20
TAG_KEY_CHARS_MAX = 80
TAG_VALUE_CHARS_MAX = 120

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TAG_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TAG_VALUE = re.compile(r"[ -~]*")


def check_name(name: str) -> str:
    if not 1 <= len(name) <= NAME_CHARS_MAX or _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            "Name must consist of lower case alphanumeric characters or '-', must start and end "
            f"with an alphanumeric character, and have 1 to {NAME_CHARS_MAX} characters"
        )
    return name


def known_name(name: str) -> str:
    """A name that an index or collection can have; `NotFound` for anything else."""
    if len(name) > NAME_CHARS_MAX or _NAME.fullmatch(name) is None:
        raise NotFound(f"Resource {shown(name)} not found")
    return name


def check_dimension(dimension: int | None) -> int:
    if dimension is None:
        raise InvalidRequest("A dense index needs a dimension")
    if not 1 <= dimension <= DIMENSION_MAX:
        raise InvalidRequest(
            f"Bad request: dimension must be between 1 and {DIMENSION_MAX}, got {dimension}"
        )
    return dimension


def parse_metric(text: str) -> Metric:
    try:
        return Metric(text)
    except ValueError:
        known = ", ".join(metric.value for metric in Metric)
        raise InvalidRequest(f"Unknown metric {text!r}: it must be one of {known}") from None


def parse_vector_type(text: str) -> VectorType:
    try:
        return VectorType(text)
    except ValueError:
        raise InvalidRequest(f"Unknown vector_type {text!r}: dense or sparse") from None


def parse_protection(text: str) -> bool:
    if text not in ("enabled", "disabled"):
        raise InvalidRequest(f"deletion_protection must be enabled or disabled, not {text!r}")
    return text == "enabled"


def shown_protection(protected: bool) -> str:
    return "enabled" if protected else "disabled"


def shown_status(info: IndexInfo) -> dict[str, Any]:
    return {"ready": info.state is IndexState.READY, "state": info.state.value}


def shown_time(ms: int | None) -> str | None:
    """RFC 3339, UTC."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def check_text(text: str | None, what: str, chars_max: int) -> str | None:
    """A name or description that people chose: printable, of a bounded length. "" is none."""
    if text is not None and (len(text) > chars_max or not text.replace("\n", "").isprintable()):
        raise InvalidRequest(f"{what} has at most {chars_max} printable characters")
    return text or None


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a new index; empty values mean "no such tag"."""
    return merge_tags({}, tags)


def merge_tags(before: Mapping[str, str], change: Mapping[str, str]) -> dict[str, str]:
    """`before` with the given ones replaced or added, and those given as "" gone."""
    for key, value in change.items():
        if len(key) > TAG_KEY_CHARS_MAX or _TAG_KEY.fullmatch(key) is None:
            raise InvalidRequest(
                f"Tag keys have 1 to {TAG_KEY_CHARS_MAX} characters of A-Z, a-z, 0-9, _ and -, "
                f"but one is {key[: TAG_KEY_CHARS_MAX + 1]!r}"
            )
        if len(value) > TAG_VALUE_CHARS_MAX or _TAG_VALUE.fullmatch(value) is None:
            raise InvalidRequest(
                f"Tag values have at most {TAG_VALUE_CHARS_MAX} printable ASCII characters, "
                f"but that of {key!r} has not"
            )
    merged = {key: value for key, value in {**before, **change}.items() if value}
    if len(merged) > TAGS_MAX:
        raise InvalidRequest(f"An index has at most {TAGS_MAX} tags, these would be {len(merged)}")
    return merged
