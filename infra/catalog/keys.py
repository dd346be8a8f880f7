"""API keys: how they are made, and the only form in which they are kept.

A key that FirnDB makes has 256 random bits, so a plain SHA-256 of it cannot be searched backwards;
a slow password hash would only cost every request. The catalog holds the hash and a short prefix
that people tell keys apart by.
"""

import hashlib
import hmac
import secrets

KEY_START = "firn_"
# What may be shown: the start and four of 43 random characters; of a short key of the user's own, a
# quarter.
PREFIX_CHARS_MAX = len(KEY_START) + 4
# A key that the user chose: short ones can be guessed, long ones do not fit into a header.
CHOSEN_CHARS_MIN = 6
CHOSEN_CHARS_MAX = 512
FIT = (
    f"an API key has {CHOSEN_CHARS_MIN} to {CHOSEN_CHARS_MAX} printable ASCII characters, no spaces"
)


def new_key() -> str:
    """A new secret, shown to its owner once."""
    return KEY_START + secrets.token_urlsafe(32)


def is_fit(key: str) -> bool:
    """Can this be a key: of a length between the bounds, and sendable in a header as it is."""
    sendable = key.isascii() and key.isprintable() and " " not in key
    return sendable and CHOSEN_CHARS_MIN <= len(key) <= CHOSEN_CHARS_MAX


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def same_hash(one: str, other: str) -> bool:
    """Compares in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)


def shown_prefix(key: str) -> str:
    return key[: min(PREFIX_CHARS_MAX, len(key) // 4)]
