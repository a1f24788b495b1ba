"""A thread of a web service: it works until the service stops, and whoever comes next goes on."""

import threading
from abc import ABC, abstractmethod

__all__ = ["Background"]

_STOP_SECONDS = 1.0


class Background(ABC):
    """Work in the background; `run` looks at `stopping` often.

    Args:
        name: of the thread.

    Attributes:
        stopping: set when the service stops.
    """

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    @abstractmethod
    def run(self) -> None:
        """Work until `stopping` is set."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; what is not done then is done at the next start."""
        self.stopping.set()
        self._thread.join(_STOP_SECONDS)
