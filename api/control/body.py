"""Bodies of the control plane: 400 for what is not JSON, 422 for JSON of another shape."""

from typing import TypeVar

import msgspec
import orjson
from starlette.responses import Response

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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"Failed to parse the request body as JSON: {error}") from None


def json_response(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
