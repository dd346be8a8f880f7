"""The one error of a worker itself; what handlers and the log raise passes through as it is."""

from core.errors import FirnError


class ConsumerStuck(FirnError):
    """The worker makes no progress though there is something to do; restart the process."""
