"""The errors of FirnDB, chosen by what the caller does next.

    FirnError
    ├── InvalidRequest        fix the request
    │   └── TooLarge          send less at once
    ├── Unauthenticated       send a valid API key
    ├── Forbidden             this key, or this object's protection, does not allow it
    │   └── QuotaExceeded     delete something, or have the quota raised
    ├── NotFound              it is not there (or not yours)
    │   └── ObjectNotFound    an object store key that does not exist
    ├── AlreadyExists         choose another name
    ├── FailedPrecondition    change the state first
    ├── Unavailable           try again after `retry_after_s`
    │   ├── Overloaded        slow down, then try again
    │   └── DeadlineExceeded  the answer was not there in time
    ├── Fenced                stop: somebody newer owns this
    ├── LogMismatch           stop and page someone: this log is not the one that was indexed
    ├── CorruptData           page someone: bytes do not match their checksum or format
    └── ConfigError           change a setting; shown as one line on the command line

Nobody below `api/` knows about HTTP; one table there maps these to status codes.
"""


class FirnError(Exception):
    """The message is one or two sentences for a person and says what to do."""


class InvalidRequest(FirnError):
    """The request itself is wrong; repeating it gives the same error."""


class TooLarge(InvalidRequest):
    """The request or one of its parts is over a size limit, which the message names."""


class Unauthenticated(FirnError):
    """No API key, or one that is not known."""


class Forbidden(FirnError):
    """A known caller may not do this."""


class QuotaExceeded(Forbidden):
    """The project has as many of these as it may have."""


class NotFound(FirnError):
    """What the request names does not exist, or belongs to another project."""


class ObjectNotFound(NotFound):
    """The object store holds nothing at this key."""


class AlreadyExists(FirnError):
    """The name is taken."""


class FailedPrecondition(FirnError):
    """The request is right, but not in the present state."""


class Unavailable(FirnError):
    """A part of the system is away for now; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A bound is reached; the caller slows down."""


class DeadlineExceeded(Unavailable):
    """The outcome is not known in time; for a write it may still take effect."""


class Fenced(FirnError):
    """A newer owner exists; the caller stops writing at once."""


class LogMismatch(FirnError):
    """The log's identity or range contradicts what is indexed; nothing may be consumed from it."""


class CorruptData(FirnError):
    """Stored bytes fail their checksum or their format."""


class ConfigError(FirnError):
    """A setting is wrong or something outside cannot be reached; the message names the setting."""
