"""A deterministic embedding for the suites of others: texts that share words lie close.

Each component counts the words that hash to it; vectors have unit length.
"""

import math
import re
import zlib

DIMENSION = 24


def embed(text: str, dimension: int = DIMENSION) -> list[float]:
    counts = [0.0] * dimension
    for word in _words(text):
        counts[zlib.crc32(word.encode()) % dimension] += 1.0
    norm = math.sqrt(sum(c * c for c in counts)) or 1.0
    return [c / norm for c in counts]


def weigh(text: str) -> dict[int, float]:
    """Sparse: how often each word occurs, by its hash."""
    weights: dict[int, float] = {}
    for word in _words(text):
        index = zlib.crc32(word.encode())
        weights[index] = weights.get(index, 0.0) + 1.0
    return weights


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
