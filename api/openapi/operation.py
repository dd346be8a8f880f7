"""One operation of the API as data: what it is asked with, what it answers, who may ask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from api.errors import is_data_path

JSON = "application/json"
NDJSON = "application/x-ndjson"

JsonSchema = dict[str, Any]


class Access(Enum):
    """Which keys may call it."""

    PUBLIC = "no key is needed"
    READ = "any key"
    WRITE = "a key that may write records"
    ADMIN = "a key that may change the control plane"


@dataclass(frozen=True, slots=True)
class Versions:
    """A value in the shape of one of the structs, by the API version that was sent.

    `name`: of the component that the document has for it. `alike`: a value may fit several.
    """

    name: str
    structs: tuple[type[msgspec.Struct], ...]
    description: str
    alike: bool = False


Shape = type[msgspec.Struct] | Versions


@dataclass(frozen=True, slots=True)
class Answer:
    """`shape` None: an empty body, or for another `media` than JSON a text."""

    description: str
    shape: Shape | None = None
    headers: tuple[str, ...] = ()
    media: str = JSON


@dataclass(frozen=True, slots=True)
class Parameter:
    """Of the query or a header. `schema`: JSON schema of one value, of an array if it repeats."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Operation:
    """`path`: as registered, `{name}` for a parameter. `errors`: statuses besides those that every
    operation of its access and kind has (see `document.error_statuses`).
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    access: Access
    answers: Mapping[int, Answer]
    request: Shape | None = None
    request_media: tuple[str, ...] = (JSON,)
    request_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()
    description: str = ""

    @property
    def on_index_host(self) -> bool:
        """It belongs to the data plane, which each index serves at a host of its own."""
        return is_data_path(self.path)
