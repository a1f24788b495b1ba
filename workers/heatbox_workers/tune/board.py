"""The board: boxes of candidates against the true ones by picture, so that any set of pictures is measured fast.

quality = 2 (sum of the matched IoU) / (predicted boxes + true boxes)        (`heatbox.metrics.box_quality`)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heatbox.heatmaps import normalise, resize
from heatbox.metrics import match
from heatbox.pipeline import Normalisation
from heatbox_workers.evidence import fit_heatmap
from heatbox_workers.tune.candidates import Choice, Fitting
from heatbox_workers.tune.seeing import Boxes, Picture, Seen
from heatbox_workers.ways import Fitter

__all__ = ["Board", "Floats", "quality"]

_TOUCHING = 1e-9

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass
class Board:
    """What candidates reach; boxes are fitted when they are first asked for.

    Attributes:
        pictures: P, with the true boxes.
        seen: what explainers made of them.
        normalisation: of heatmaps.
        always: every target is explained, however improbable it is.
    """

    pictures: Sequence[Picture]
    seen: Seen
    normalisation: Normalisation = "max"
    always: bool = False
    _scores: dict[tuple[str, int, Fitting], Floats] = field(default_factory=dict)
    _sure: dict[tuple[str, int], Floats] = field(default_factory=dict)
    _truths: dict[str, Floats] = field(default_factory=dict)

    def truths(self, label: str) -> Floats:
        """Return the number of true boxes of a label: (P,)."""
        if label not in self._truths:
            counts = [len(one.truths.get(label, ())) for one in self.pictures]
            self._truths[label] = np.array(counts, dtype=np.float64)
        return self._truths[label]

    def sure(self, label: str, explainer: int) -> Floats:
        """Return the probability of a label: (P,), -1 where it is no target."""
        if (label, explainer) not in self._sure:
            values = [self._probability(label, explainer, place) for place in range(len(self.pictures))]
            self._sure[label, explainer] = np.array(values)
        return self._sure[label, explainer]

    def _probability(self, label: str, explainer: int, place: int) -> float:
        target, heat = self.seen.targets[place].get(label), self.seen.heats.get((explainer, place, label))
        if target is None or heat is None:
            return -1.0
        return target.probability if heat.confidence is None else heat.confidence

    def draws(self, explainer: int) -> bool:
        """Return whether an explainer's boxes come ready, so that no fitter and no threshold matters."""
        first = next((heat for (number, _, _), heat in self.seen.heats.items() if number == explainer), None)
        return first is not None and first.boxes is not None

    def parts(self, label: str, choice: Choice) -> Floats:
        """Return twice the matched IoU and the number of boxes in each picture: (P, 2); what `quality` divides."""
        self.fit(label, choice.explainer, [choice.fitting])
        scores = self._scores[label, choice.explainer, choice.fitting]
        shown = self.sure(label, choice.explainer) >= (0.0 if self.always else choice.min_probability)
        parts = scores * shown[:, None]
        parts[:, 1] += self.truths(label)
        return parts

    def fit(self, label: str, explainer: int, fittings: Iterable[Fitting]) -> None:
        """Fit boxes to a label's heat in every picture, for all fittings that are not yet known."""
        new = [one for one in dict.fromkeys(fittings) if (label, explainer, one) not in self._scores]
        if not new:
            return
        fitters = {one: one.made() for one in new}
        found = {one: np.zeros((len(self.pictures), 2)) for one in new}
        for place in range(len(self.pictures)):
            for one, boxes in self._boxes(label, explainer, place, fitters).items():
                found[one][place] = self._score(label, place, boxes)
        self._scores |= {(label, explainer, one): scores for one, scores in found.items()}

    def _boxes(
        self, label: str, explainer: int, place: int, fitters: Mapping[Fitting, Fitter]
    ) -> dict[Fitting, Boxes]:
        heat = self.seen.heats.get((explainer, place, label))
        if heat is None:
            return {}
        if heat.heatmap is None:
            ready = np.zeros((0, 4)) if heat.boxes is None else heat.boxes
            return dict.fromkeys(fitters, ready)
        square = self.pictures[place].square
        side = len(square)
        full = normalise(resize(heat.heatmap.astype(np.float32), side, side), self.normalisation)
        return {one: fit_heatmap(fitter, full, square).boxes for one, fitter in fitters.items()}

    def _score(self, label: str, place: int, boxes: Boxes) -> tuple[float, float]:
        truth = self.pictures[place].truths.get(label, np.zeros((0, 4)))
        return 2 * float(match(boxes, truth, _TOUCHING).sum()), float(len(boxes))


def quality(parts: Floats, rows: Rows | None = None) -> float:
    """Return the box quality of pictures: (P, 2), (P,); 1 where there is no box at all."""
    overlap, boxes = (parts if rows is None else parts[rows]).sum(axis=0)
    return float(overlap / boxes) if boxes else 1.0
