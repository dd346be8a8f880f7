"""The envelope of small objects (manifests, sections, registries, …): a name and a checksum.

Layout: 8 bytes magic, which says kind and format version; 16 bytes xxh3-128 digest of the body,
canonical (big-endian) byte order; the body. A changed bit or a missing end anywhere is noticed.
"""

import xxhash

from core.errors import CorruptData

MAGIC_BYTES = 8
DIGEST_BYTES = 16
HEADER_BYTES = MAGIC_BYTES + DIGEST_BYTES


def seal(magic: bytes, body: bytes) -> bytes:
    """The object's bytes. `magic`: exactly 8 bytes."""
    assert len(magic) == MAGIC_BYTES, magic
    return b"".join((magic, xxhash.xxh3_128_digest(body), body))


def unseal(magic: bytes, data: bytes, where: str) -> bytes:
    """The body. `CorruptData` naming `where` if `data` is of another kind or format, or damaged."""
    if len(data) < HEADER_BYTES:
        raise CorruptData(f"{where} is cut off: {len(data)} bytes")
    if data[:MAGIC_BYTES] != magic:
        raise CorruptData(f"{where} begins with {data[:MAGIC_BYTES]!r}; this build reads {magic!r}")
    body = data[HEADER_BYTES:]
    if xxhash.xxh3_128_digest(body) != data[MAGIC_BYTES:HEADER_BYTES]:
        raise CorruptData(f"{where} does not match its checksum")
    return body
