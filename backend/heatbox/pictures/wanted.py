"""A picture that is asked for, with what is known about it beforehand.

It travels as one text through the ledger, the queues and the job process, which only compare it: its address, or JSON
where more is known.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Wanted"]


@dataclass(frozen=True)
class Wanted:
    """A picture that is asked for.

    Attributes:
        address: as the task names it.
        task: number of the task, where Label Studio must be asked for the picture by it.
        labels: labels of the project that are known to be in it; None: whatever the classifier sees.
        within: x, y, width, height in percent of the upright picture: look only there.
        point: x, y in percent: only finds that contain it, or else the nearest one.
        evidence: whether the pictures of the evidence are wanted too.
    """

    address: str
    task: int | None = None
    labels: tuple[str, ...] | None = None
    within: tuple[float, float, float, float] | None = None
    point: tuple[float, float] | None = None
    evidence: bool = False

    @property
    def text(self) -> str:
        """What travels. An address that looks like JSON is wrapped, so that no task can say what is not its own."""
        more = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        if set(more) == {"address"} and not self.address.startswith("{"):
            return self.address
        return json.dumps(more, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `text` wrote."""
        if not text.startswith("{"):
            return cls(text)
        values: dict[str, Any] = json.loads(text)
        for name in ("labels", "within", "point"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)
