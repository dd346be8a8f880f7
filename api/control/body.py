"""Decoding of control plane bodies: 400 for what is not JSON, 422 for JSON of another shape."""

from typing import TypeVar

import msgspec

from api.errors import Unprocessable
from core.errors import InvalidRequest

T = TypeVar("T")


def decode(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise Unprocessable(
            f"Failed to deserialize the JSON body into the target type: {error}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Failed to parse the request body as JSON: {error}") from None
