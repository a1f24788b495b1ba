"""The moment by which a picture must be here, whatever takes the time: a queue, a name, a connection, each byte."""

import time
from dataclasses import dataclass, field

from heatbox.errors import PictureSlowError

__all__ = ["Deadline"]


@dataclass(frozen=True)
class Deadline:
    """So many seconds from now.

    Attributes:
        seconds: from the beginning to the end.
        ends: the moment, of the monotonic clock.
    """

    seconds: float
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", time.monotonic() + self.seconds)

    def left(self) -> float:
        """Return the seconds that are left, more than 0.

        Raises:
            PictureSlowError: it is over.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def missed(self) -> PictureSlowError:
        """Return the error for a picture that was not here in time."""
        return PictureSlowError(
            f"The picture was not here within {self.seconds:g} seconds.",
            "Try again, or raise HEATBOX_FETCH_SECONDS.",
        )
