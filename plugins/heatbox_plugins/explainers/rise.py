"""RISE: random masks, each weighted by the class probability of the picture that it lets through."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.options import require_ranges

__all__ = ["RISE"]

# Maps are looked at after so many masks and at every further power of two.
_FIRST_LOOK = 64
_RANGES = {
    "masks": (1, 1_000_000),
    "cells": (2, 64),
    "keep": (0.01, 0.99),
    "settled": (0.0, 0.99),
    "batch": (1, 1024),
    "seed": (0, 2**62),
}


@dataclass(frozen=True)
class RISE:
    """Randomised input sampling for explanation (Petsiuk, Das, Saenko, BMVC 2018).

    With M_i random masks, X the normalised picture and f_c the probability of class c,

        S_c = 1 / (N p) sum_i f_c(X * M_i) M_i

    M_i is a grid of `cells` x `cells` that are kept with the probability p, enlarged bilinearly and cut out at a random
    offset; what it hides is 0, the mean of the training pictures. The network is a black box: only its scores
    are asked for. One set of masks and one forward pass per mask serve all classes of a picture.

    S_c stands on an offset, the mean score, which tells nothing about places and moves boxes. `debias` takes it off:
    1 / (N p) sum_i (f_c(X * M_i) - mean f_c) M_i, the covariance of score and mask; below zero means against the class.

    Source: RISE: Randomized Input Sampling for Explanation of Black-box Models, https://arxiv.org/abs/1806.07421

    Attributes:
        masks: N, forward passes per picture at most; the paper takes 4000 to 8000.
        cells: side of the random grid; more cells see smaller objects and need more masks.
        keep: p, the part of the cells that stays visible.
        debias: take the mean score off; off is the paper's sum.
        settled: a map is done at 128, 256, 512 ... masks when it has changed by at most this part since half as many
            (root of the summed squares, without the offset); pure noise changes by 1; 0 uses all masks.
        batch: masked pictures per forward pass; memory does not depend on `masks`.
        seed: of the masks; every picture gets the same ones.
    """

    masks: int = 1000
    cells: int = 7
    keep: float = 0.5
    debias: bool = True
    settled: float = 0.25
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        require_ranges(self, _RANGES)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        heatmaps = images.new_zeros(len(targets), *images.shape[2:])
        for image in sorted(set(targets[:, 0].tolist())):
            rows = targets[:, 0] == image
            heatmaps[rows] = self._explain(classifier, images[image], targets[rows, 1])
        return Evidence(heatmaps=heatmaps)

    def draw(self, side: int) -> Iterator[Tensor]:
        """Yield the masks (B, side, side) in [0, 1], at most `batch` at once; a look ends a batch."""
        cell = -(-side // self.cells)
        enlarge = interpolate(torch.eye(self.cells)[None], (self.cells + 1) * cell, mode="linear")[0]
        generator = torch.Generator().manual_seed(self.seed)
        done = 0
        while done < self.masks:
            size = min(self.batch, self.masks - done, _next_look(done) - done)
            random = torch.rand(size, self.cells**2 + 2, generator=generator)
            grid = (random[:, 2:] < self.keep).float().view(size, self.cells, self.cells)
            offset = (random[:, :2] * cell).long().T[..., None] + torch.arange(side)
            down, across = enlarge[:, offset[0]], enlarge[:, offset[1]]
            yield torch.einsum("rbh,brc,cbw->bhw", down, grid, across)
            done += size

    def _explain(self, classifier: Classifier, image: Tensor, classes: Tensor) -> Tensor:
        """Return the map of each class of a picture: (3, H, W), (T,) -> (T, H, W)."""
        weighted = image.new_zeros(len(classes), *image.shape[1:])
        covered, score = weighted[0].clone(), weighted.new_zeros(len(classes), 1, 1)
        heatmaps, before = weighted.clone(), weighted.clone()
        moving = torch.ones_like(classes, dtype=torch.bool)
        count = 0
        for masks in self.draw(image.shape[1]):
            visible = masks.to(image.device)
            logits = classifier.logits(image * visible.unsqueeze(1))
            scores = classifier.probabilities(logits)[:, classes]
            weighted += torch.einsum("bt,bhw->thw", scores, visible)
            covered += visible.sum(0)
            score += scores.sum(0).view(-1, 1, 1)
            count += len(masks)
            if count in {self.masks, _next_look(count - 1)}:
                offset = score * covered / count
                heatmaps[moving] = ((weighted - offset * self.debias) / (count * self.keep))[moving]
                now = (weighted - offset) / count
                moving &= _changes(before, now) > self.settled
                before = now
            if not moving.any():
                break
        return heatmaps


def _next_look(count: int) -> int:
    """Return the next power of two, of at least 64 masks, after a count."""
    return max(_FIRST_LOOK, 1 << count.bit_length())


def _changes(before: Tensor, now: Tensor) -> Tensor:
    """Return how much each map changed since the last look, as part of its size: (T, H, W) -> (T,)."""
    size: Tensor = now.flatten(1).norm(dim=1)
    change: Tensor = (now - before).flatten(1).norm(dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
    return change
