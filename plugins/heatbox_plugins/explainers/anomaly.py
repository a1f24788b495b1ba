"""Anomaly: how far a picture is from all normal ones, and which of its cells have no counterpart there; no class."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from heatbox.contract import Classifier, Evidence, Examples
from heatbox.errors import NotFittedError

__all__ = ["Anomaly"]

_TINY = 1e-6


@dataclass(frozen=True)
class Anomaly:
    """The distance to the nearest normal embeddings, and the cells that these normal pictures do not have.

    `fit` keeps normal pictures as a bank: their embeddings e, and their feature maps' cells f projected at random to
    few dimensions. A picture looks up its k nearest by the cosine, and is hot where its cells differ from theirs:

        d = 1 - max_b <e / |e|, e_b / |e_b|>        L[i, j] = ReLU(min |f[i, j] - f'| - t),  f' the cells of the k

    L is zero where a normal picture is left out of the bank and looked up in it: t is the given quantile of the cells'
    distances then. How sure it is says the confidence, with d_0 the same quantile of the distances d of normal pictures

        c = d / (d + d_0)

    so c > 1/2 is farther than nearly all that is normal. Pictures below `--min-probability` get no box.

    Source: Sub-Image Anomaly Detection with Deep Pyramid Correspondences (SPADE), https://arxiv.org/abs/2005.02357;
        projection and choice of the bank as in PatchCore, https://arxiv.org/abs/2106.08265; the score is that of the
        demo of https://github.com/shinmura0/Faster-Grad-CAM (largest cosine to stored normal vectors)

    Attributes:
        layer: the module whose cells are compared; `auto` is the classifier's feature layer.
        neighbours: k, normal pictures that a picture is compared with.
        bank: at most so many normal pictures are kept, those that are farthest from each other.
        dimensions: of the projected cells.
        quantile: of the distances among normal pictures, which counts as normal.
        seed: of the projection.
    """

    layer: str = "auto"
    neighbours: int = 5
    bank: int = 300
    dimensions: int = 128
    quantile: float = 0.95
    seed: int = 0
    class_agnostic: ClassVar[bool] = True
    label: ClassVar[str] = "anomaly"

    def __post_init__(self) -> None:
        if min(self.neighbours, self.dimensions) < 1 or self.bank <= self.neighbours:
            msg = (
                f"neighbours and dimensions are at least 1 and bank is larger than neighbours, "
                f"got {self.neighbours}, {self.dimensions} and {self.bank}"
            )
            raise ValueError(msg)
        if not 0 < self.quantile <= 1:
            msg = f"quantile is above 0 and at most 1, got {self.quantile}"
            raise ValueError(msg)

    def fit(self, classifier: Classifier, examples: Iterable[Examples]) -> dict[str, Tensor]:
        """Return the bank: embeddings (B, D), cells (B, h w, P), projection (K, P), and what counts as normal (2,).

        Every example counts as normal.
        """
        units, cells, projection = [], [], None
        for batch in examples:
            found = classifier.embed(batch.images, self.layer)
            if projection is None:
                projection = self._projection(found.maps)
            units.append(normalize(found.embeddings))
            cells.append(_cells(found.maps, projection).half())
        if projection is None or sum(map(len, units)) < 2:  # noqa: PLR2004 - a distance needs two
            raise NotFittedError(
                "What is normal cannot be learnt from fewer than two pictures.", "Give more normal pictures."
            )
        kept = _spread(torch.cat(units), self.bank)
        bank, own = torch.cat(units)[kept], torch.cat(cells)[kept]
        cosines = (bank @ bank.T).fill_diagonal_(-1)
        apart = torch.stack(
            [_apart(cell, own[near]) for cell, near in zip(own, self._nearest(cosines), strict=True)]
        )
        normal = [1 - cosines.amax(dim=1), apart.flatten()]
        limits = [_quantile(values, self.quantile) for values in normal]
        return {"bank": bank, "cells": own, "projection": projection, "normal": torch.stack(limits)}

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w) with confidences (M,)."""
        state, found = classifier.state, classifier.embed(images, self.layer)
        cosines = normalize(found.embeddings) @ state["bank"].T
        cells = _cells(found.maps, state["projection"])
        apart = [
            _apart(cell, state["cells"][near])
            for cell, near in zip(cells, self._nearest(cosines), strict=True)
        ]
        usual, far = state["normal"].unbind()
        heatmaps = (torch.stack(apart) - far).relu().reshape(-1, *found.maps.shape[2:])
        distance = (1 - cosines.amax(dim=1)).clamp_min(0)
        image = targets[:, 0]
        return Evidence(heatmaps=heatmaps[image], confidences=(distance / (distance + usual))[image])

    def _nearest(self, cosines: Tensor) -> Tensor:
        """Return the most similar of the bank: (N, B) -> (N, k)."""
        return cosines.topk(min(self.neighbours, cosines.shape[1]), dim=1).indices

    def _projection(self, maps: Tensor) -> Tensor:
        """Return a seeded random projection that keeps distances (Johnson-Lindenstrauss): (K, P)."""
        random = torch.Generator().manual_seed(self.seed)
        width = min(self.dimensions, maps.shape[1])
        projection: Tensor = torch.randn(maps.shape[1], width, generator=random) / width**0.5
        return projection.to(maps.device)


def _cells(maps: Tensor, projection: Tensor) -> Tensor:
    """Return projected cells: (N, K, h, w), (K, P) -> (N, h w, P)."""
    return maps.flatten(2).transpose(1, 2) @ projection


def _apart(cells: Tensor, others: Tensor) -> Tensor:
    """Return each cell's distance to the nearest cell of other pictures: (h w, P), (k, h w, P) -> (h w,)."""
    return torch.cdist(cells.float(), others.flatten(0, 1).float()).amin(dim=1)


def _spread(units: Tensor, count: int) -> Tensor:
    """Return the rows of at most `count` vectors, each the farthest from those before it: (N, D) -> (B,)."""
    if len(units) <= count:
        return torch.arange(len(units), device=units.device)
    chosen = [0]
    nearest = units @ units[0]
    while len(chosen) < count:
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, units @ units[chosen[-1]])
    return torch.tensor(chosen, device=units.device)


def _quantile(values: Tensor, part: float) -> Tensor:
    """Return a quantile that is above zero; of any number of values, where torch's own takes 16 million."""
    rank = min(int(part * len(values)), len(values) - 1)
    limit: Tensor = torch.sort(values).values[rank]
    return limit.clamp_min(_TINY)
