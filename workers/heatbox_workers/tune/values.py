"""What is asked of a tuning, and what comes out of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from heatbox.pictures.images import Limits
from heatbox.profiles import Profile

__all__ = ["LabelGain", "Measured", "Progress", "Tried", "TuneOptions", "Tuned"]

Progress = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class TuneOptions:
    """How to tune.

    Attributes:
        name: of the profile.
        explainers: entry-point names to try besides the present one; empty: those that suit most pictures.
        folds: parts of cross-validation.
        most_pictures: that are looked at; of more, those with the lowest hashes are taken.
        least_pictures: with boxes of a label, below which the label keeps what it has.
        ways: whether another explainer, fitter or threshold may be chosen.
        probabilities: whether another least probability may be chosen.
        keep_thresholds: labels whose threshold stands in the label config, and so their way.
        keep_probabilities: labels whose least probability stands there.
        publish: whether what explainers have learnt is kept in the store; without it, it is only measured.
        seed: of the bootstrap.
        limits: of the pictures that are read.
    """

    name: str = "tuned"
    explainers: tuple[str, ...] = ()
    folds: int = 5
    most_pictures: int = 400
    least_pictures: int = 10
    ways: bool = True
    probabilities: bool = True
    keep_thresholds: frozenset[str] = frozenset()
    keep_probabilities: frozenset[str] = frozenset()
    publish: bool = True
    seed: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        least = {"folds": 2, "most_pictures": 2, "least_pictures": 2}
        for name, value in least.items():
            if getattr(self, name) < value:
                msg = f"{name} is at least {value}, got {getattr(self, name)}"
                raise ValueError(msg)


@dataclass(frozen=True)
class Measured:
    """Box quality on left-out pictures, with the present way and with the chosen one, in [0, 1].

    Attributes:
        before: with the present way.
        after: with what was chosen on the other folds.
        low: lower end of the gain's 90 % interval, by a bootstrap over pictures.
        high: upper end.
    """

    before: float
    after: float
    low: float = 0.0
    high: float = 0.0

    @property
    def gain(self) -> float:
        """What is expected to be gained."""
        return self.after - self.before

    def as_dict(self) -> dict[str, float]:
        """Return JSON-ready values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class LabelGain:
    """What tuning does for a label.

    Attributes:
        label: of the project.
        pictures: with boxes of it.
        measured: by cross-validation; None: there were too few pictures.
        chosen: explainer, fitter and limits in words; empty: the label keeps what it has.
        reason: why it keeps what it has; empty: it does not.
    """

    label: str
    pictures: int
    measured: Measured | None = None
    chosen: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Tried:
    """The best that an explainer reached for a label, on all pictures: chosen on them, so it promises too much."""

    label: str
    explainer: str
    way: str
    quality: float
    is_present: bool = False


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        profile: what to serve with; not yet stored.
        measured: over all labels.
        labels: what it does for each.
        tried: the best of each explainer for each label, the best first.
        pictures: that were looked at.
        notes: what a person should know, one sentence each.
        seconds: that it took.
    """

    profile: Profile
    measured: Measured
    labels: tuple[LabelGain, ...]
    tried: tuple[Tried, ...] = ()
    pictures: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "profile": self.profile.as_dict(),
            "pictures": self.pictures,
            "notes": list(self.notes),
            "tried": [asdict(one) for one in self.tried],
        }


def expected(measured: Measured, labels: tuple[LabelGain, ...], pictures: int) -> dict[str, Any]:
    """Return what a profile says about its gain, JSON-ready."""
    of_labels = {
        one.label: {"pictures": one.pictures, "changed": bool(one.chosen), **one.measured.as_dict()}
        for one in labels
        if one.measured is not None
    }
    return {"pictures": pictures, **measured.as_dict(), "labels": of_labels}
