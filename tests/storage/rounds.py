"""A store that counts rounds: requests that are under way together are one round trip."""

import asyncio

from tests.storage.memory_store import MemoryStore


class RoundStore(MemoryStore):
    """Gets wait until nobody has anything else to do, and are then answered together.

    rounds: dependent round trips so far; keys: those asked for in each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[list[str]] = []
        self._turn: asyncio.Future[None] | None = None

    @property
    def rounds(self) -> int:
        return len(self.keys)

    async def get(self, key: str) -> bytes:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            self.keys.append([])
            # Whoever is to ask in this round needs some turns of the loop, or of a thread, for it.
            asyncio.get_running_loop().call_later(0.05, self._answer)
        self.keys[-1].append(key)
        await asyncio.shield(self._turn)
        return await super().get(key)

    def _answer(self) -> None:
        assert self._turn is not None
        self._turn.set_result(None)
        self._turn = None
