"""What a key may be: the same rule for every object store."""

from core.errors import InvalidRequest

KEY_BYTES_MAX = 1024  # S3's limit
PART_BYTES_MAX = 255  # a name in a file system


def check_key(key: str) -> None:
    """`InvalidRequest` unless the key is 1..1024 printable ASCII characters in non-empty parts,
    none `.` or `..`.
    """
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise InvalidRequest(
            f"object key has {len(key)} characters; 1 to {KEY_BYTES_MAX} are allowed"
        )
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest(f"object key {key!r} must be printable ASCII")
    for part in key.split("/"):
        if part in ("", ".", "..") or len(part) > PART_BYTES_MAX:
            raise InvalidRequest(f"object key {key!r} has a part that is not allowed: {part!r}")
