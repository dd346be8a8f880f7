"""The envelope: no damage passes for an object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptData
from storage.envelope import HEADER_BYTES, seal, unseal

MAGIC = b"FIRNTST1"


@given(st.binary(max_size=200))
def test_what_was_sealed_is_unsealed(body: bytes) -> None:
    sealed = seal(MAGIC, body)
    assert len(sealed) == HEADER_BYTES + len(body)
    assert unseal(MAGIC, sealed, "there") == body


def test_every_changed_bit_is_noticed() -> None:
    sealed = seal(MAGIC, b"a body of some bytes")
    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(CorruptData, match="there"):
            unseal(MAGIC, bytes(changed), "there")


def test_every_missing_end_and_every_appended_byte_is_noticed() -> None:
    sealed = seal(MAGIC, b"a body of some bytes")
    for end in range(len(sealed)):
        with pytest.raises(CorruptData, match="there"):
            unseal(MAGIC, sealed[:end], "there")
    with pytest.raises(CorruptData, match="there"):
        unseal(MAGIC, sealed + b"\0", "there")


def test_another_kind_or_a_later_format_is_refused() -> None:
    with pytest.raises(CorruptData, match="there begins with b'FIRNTST2'; this build reads"):
        unseal(MAGIC, seal(b"FIRNTST2", b"body"), "there")
