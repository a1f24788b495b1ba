"""Checking evidence: what a plugin returned becomes one checked entry per target, or that target's error."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatbox.contract import BoxFitter, Evidence, Fit, PictureFitter
from heatbox.errors import EvidenceError
from heatbox.heatmaps import normalise, resize
from heatbox.pipeline import Normalisation

__all__ = ["fit_evidence", "fit_heatmap", "raise_for_evidence"]

Window = tuple[float, float, float, float]

_REMEDY = "This is a defect of the plugin; please tell its authors."


def raise_for_evidence(evidence: object, targets: int, side: int) -> Evidence:
    """Return the evidence when its kinds, shapes and types are those of the contract.

    Args:
        evidence: what an explainer returned.
        targets: M, how many entries it must have.
        side: H = W of the input in pixels, the size masks must have.

    Raises:
        EvidenceError: says what was expected and what came.
    """
    if not isinstance(evidence, Evidence):
        raise EvidenceError(f"The explainer returned {type(evidence).__name__}, not Evidence.", _REMEDY)
    if evidence.heatmaps is not None:
        _expect(evidence.heatmaps, (targets, None, None), torch.float32, "heatmaps")
    elif evidence.masks is not None:
        _expect(evidence.masks, (targets, side, side), torch.bool, "masks")
    else:
        boxes, scores = evidence.boxes or (), evidence.scores or ()
        if len(boxes) != targets or len(scores) != targets:
            raise EvidenceError(f"Boxes for {len(boxes)} targets came, {targets} were expected.", _REMEDY)
        for box, score in zip(boxes, scores, strict=True):
            _expect(box, (None, 4), torch.float32, "boxes")
            _expect(score, (len(box),), torch.float32, "scores")
    if evidence.confidences is not None:
        _expect(evidence.confidences, (targets,), torch.float32, "confidences")
        if not evidence.confidences.isfinite().all():
            raise EvidenceError("A confidence is not finite.", _REMEDY)
    return evidence


def fit_evidence(  # noqa: PLR0913, PLR0917 - one target, and how it is fitted
    evidence: Evidence,
    row: int,
    fitter: BoxFitter | PictureFitter,
    normalisation: Normalisation,
    picture: NDArray[np.uint8],
    window: Window | None = None,
) -> tuple[NDArray[np.float32], Fit]:
    """Return one target's heatmap (side, side) in [0, 1] and the boxes fitted to it, in input pixels.

    Args:
        evidence: checked.
        row: the target.
        fitter: how boxes are fitted.
        normalisation: how the heatmap becomes [0, 1].
        picture: (side, side, 3) RGB, as the classifier saw it.
        window: x1, y1, x2, y2 in parts of the side: what lies outside is no evidence. None: all of it.

    Raises:
        EvidenceError: a value is not finite.
    """
    side = len(picture)
    if evidence.heatmaps is not None:
        raw = evidence.heatmaps[row].detach().cpu().numpy()
        heatmap = normalise(_inside(resize(raw, side, side), window), normalisation)
        return heatmap, fit_heatmap(fitter, heatmap, picture)
    if evidence.masks is not None:
        heatmap = _inside(evidence.masks[row].detach().cpu().numpy().astype(np.float32), window)
        return heatmap, fit_heatmap(fitter, heatmap, picture)
    return _drawn((evidence.boxes or ())[row], (evidence.scores or ())[row], side)


def _inside(heatmap: NDArray[np.float32], window: Window | None) -> NDArray[np.float32]:
    """Return a heatmap (side, side) with its lowest value everywhere outside the window."""
    if window is None:
        return heatmap
    side = len(heatmap)
    x1, y1, x2, y2 = (min(max(round(edge * side), 0), side) for edge in window)
    part = heatmap[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    kept = np.full_like(heatmap, min(part.min(initial=0.0), 0.0))
    kept[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = part
    return kept


def fit_heatmap(
    fitter: BoxFitter | PictureFitter, heatmap: NDArray[np.float32], picture: NDArray[np.uint8]
) -> Fit:
    """Return the boxes of a heatmap (side, side); the fitter is shown the picture (side, side, 3) if it asks for it."""
    if isinstance(fitter, PictureFitter):
        return fitter(heatmap, picture)
    return fitter(heatmap)


def _drawn(boxes: Tensor, scores: Tensor, side: int) -> tuple[NDArray[np.float32], Fit]:
    """Return boxes that came ready, with a heatmap that shows them."""
    corners = boxes.detach().cpu().numpy().astype(np.float64)
    values = scores.detach().cpu().numpy().astype(np.float64)
    if not (np.isfinite(corners).all() and np.isfinite(values).all()):
        raise EvidenceError("A box or score is not finite.", _REMEDY)
    order = np.argsort(-values, kind="stable")
    heatmap = np.zeros((side, side), np.float32)
    for index in order[::-1]:
        x1, y1, x2, y2 = np.clip(corners[index].round(), 0, side).astype(int)
        heatmap[y1:y2, x1:x2] = values[index]
    return heatmap, Fit(heatmap > 0, corners[order], np.clip(values[order], 0, 1))


def _expect(tensor: object, shape: tuple[int | None, ...], dtype: torch.dtype, name: str) -> None:
    if not isinstance(tensor, Tensor):
        raise EvidenceError(f"{name} is {type(tensor).__name__}, not a tensor.", _REMEDY)
    fits = len(tensor.shape) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits or tensor.dtype != dtype:
        wanted = "x".join("*" if side is None else str(side) for side in shape)
        came = "x".join(map(str, tensor.shape))
        raise EvidenceError(f"{name} should be {wanted} {dtype}, and is {came} {tensor.dtype}.", _REMEDY)
