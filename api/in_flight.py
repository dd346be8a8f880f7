"""How many requests are being answered, REST and gRPC together, with a bound."""

from core.errors import Overloaded

# Each may hold a body of 4 MiB: 2 GiB at the very worst. Beyond, clients are told to slow down.
IN_FLIGHT_MAX = 500


class InFlight:
    """Entered by every request for the time that it takes."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "InFlight":
        self.count += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.count -= 1

    def check(self) -> None:
        """`Overloaded` when there are too many, counting the one that asks."""
        if self.count > IN_FLIGHT_MAX:
            raise Overloaded(f"{IN_FLIGHT_MAX} requests are being served; try again soon")
