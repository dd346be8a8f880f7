"""Bodies of the control plane: 400 for what is not JSON, 422 for JSON of another shape."""

from typing import TypeVar

import msgspec
import orjson
from starlette.responses import Response

from api.errors import Unprocessable
from core.errors import InvalidRequest
from ingest.bodies import with_whole_floats

T = TypeVar("T")


def decode(body: bytes, shape: type[T]) -> T:
    """What could not be shown again is refused: numbers beyond 64 bits, and what is nested deeply.
    Kept in one index, it would break every list of indexes.
    """
    try:
        decoded = with_whole_floats(lambda sent: msgspec.json.decode(sent, type=shape), body)
        orjson.dumps(msgspec.to_builtins(decoded))
        return decoded
    except msgspec.ValidationError as error:
        raise Unprocessable(
            f"Failed to deserialize the JSON body into the target type: {error}"
        ) from None
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        orjson.JSONEncodeError,
    ) as error:
        raise InvalidRequest(f"Failed to parse the request body as JSON: {error}") from None


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
