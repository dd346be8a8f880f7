"""Who sends a request: the `Api-Key` header, or `Authorization: Bearer`."""

from collections.abc import Mapping
from typing import Protocol

from api.in_flight import claim
from core.errors import Forbidden, Unauthenticated
from infra.catalog.callers import Callers
from infra.catalog.model import Caller, KeyRole


class Arrival(Protocol):
    """A request as far as it says who sends it: an HTTP request, or a gRPC call's metadata."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower case names."""


class Gate:
    """Lets callers in by their API key."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def reader(self, request: Arrival) -> Caller:
        """Any valid key; `Unauthenticated` otherwise. `Overloaded`: its project has too many
        requests under way.
        """
        caller = await self._callers.prove(_key_of(request))
        claim(caller.project_id)
        return caller

    async def writer(self, request: Arrival) -> Caller:
        """A valid key that may change records; `Forbidden` for one that only reads."""
        return may_write(await self.reader(request))

    async def admin(self, request: Arrival) -> Caller:
        """A valid key that may change indexes, keys and whatever else the project has;
        `Forbidden` for any other.
        """
        return may_administer(await self.reader(request))


def may_write(caller: Caller) -> Caller:
    """The caller, if its role is read-write or admin; `Forbidden`."""
    if caller.role is KeyRole.READ_ONLY:
        raise Forbidden("This API key may only read: its role is read-only.")
    return caller


def may_administer(caller: Caller) -> Caller:
    """The caller, if its role is admin; `Forbidden`."""
    if caller.role is not KeyRole.ADMIN:
        raise Forbidden(
            f"This API key may not change what its project has: that needs the role admin, and "
            f"its role is {caller.role.value}."
        )
    return caller


def _key_of(request: Arrival) -> str:
    key = request.headers.get("api-key")
    if key:
        return key
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    raise Unauthenticated("Invalid API Key: send one in the Api-Key header")
