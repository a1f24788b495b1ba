"""Augmented Grad-CAM: one sharp heatmap out of the coarse heatmaps of many moved copies of a picture."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.options import require_ranges
from heatbox_plugins.super_resolution import Operator, pyramid, super_resolve

__all__ = ["AugmentedGradCAM"]

_RANGES = {
    "copies": (1, 1000),
    "rotation": (0.0, math.pi),
    "shift": (0.0, 0.5),
    "scale": (0.0, 1.0),
    "total_variation": (0.0, 1.0),
    "ridge": (0.0, 1.0),
    "resolution": (16, 1024),
    "iterations": (1, 10_000),
    "batch": (1, 1024),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class AugmentedGradCAM:
    """Augmented Grad-CAM (Morbidelli, Carrera, Rossi, Fragneto, Boracchi, ICASSP 2020).

    With A_1 ... A_L the augmentations (A_1 the identity), I the picture, g_l the Grad-CAM of A_l(I) divided by its
    maximum and D the step down to the size of g_l (bilinear, without antialiasing),

        h = argmin_h sum_l |D A_l h - g_l|^2 + tv L sum(|d_x h| + |d_y h|) + ridge L sum h^2

    Each g_l saw the object at another place under its cells, so together they tell where its edge is. A_l mirrors,
    scales, rotates about the centre and shifts in one bilinear step, zero outside. The solution is that of the
    inverse problem (a primal-dual method, 2 % from the optimum), not of the authors' 200 steps of Adam.

    Source: Augmented Grad-CAM: Heat-Maps Super Resolution Through Augmentation,
        https://doi.org/10.1109/ICASSP40776.2020.9054416

    Attributes:
        layer: the module whose maps Grad-CAM weights; `auto` is the classifier's feature layer.
        copies: L, with the picture itself as the first; each costs a forward pass. 100 in the paper.
        rotation: largest angle in radians, either way.
        shift: largest shift in x and in y, as part of the side.
        scale: copies are enlarged or shrunk by a factor of at most 1 + scale.
        flip: mirror half of the copies, left to right.
        total_variation: tv, weight of the edges; larger is flatter.
        ridge: weight of the heat itself; larger is lower.
        resolution: side of the heatmap in pixels.
        iterations: steps on each of three levels (a quarter, a half, the whole resolution).
        batch: copies per forward pass.
        seed: of the augmentations; every picture gets the same ones.
    """

    layer: str = "auto"
    copies: int = 24
    rotation: float = 0.5
    shift: float = 30 / 224
    scale: float = 0.0
    flip: bool = False
    total_variation: float = 0.002
    ridge: float = 0.0001
    resolution: int = 224
    iterations: int = 100
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require_ranges(self, _RANGES)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, resolution, resolution)."""
        transforms = self.transforms()
        heatmaps = images.new_zeros(len(targets), self.resolution, self.resolution)
        operators: list[Operator] = []
        for image in sorted(set(targets[:, 0].tolist())):
            rows = (targets[:, 0] == image).nonzero()[:, 0]
            coarse = self._coarse(classifier, images[image], targets[rows, 1], transforms)
            operators = operators or pyramid(transforms, coarse.shape[2:], self.resolution)
            flat = coarse.cpu().reshape(len(rows), -1).T.contiguous()
            solution = super_resolve(operators, flat, self.total_variation, self.ridge, self.iterations)
            heatmaps[rows] = solution.permute(2, 0, 1).to(heatmaps.device)
        return Evidence(heatmaps=heatmaps)

    def transforms(self) -> Tensor:
        """Return the augmentations as affine maps from a point of the copy to that of the picture, (L, 2, 3).

        Coordinates are those of `torch.nn.functional.affine_grid`: (x, y) from -1 to 1 between the outer edges.
        """
        generator = torch.Generator().manual_seed(self.seed)
        turn, x, y, zoom, mirror = (2 * torch.rand(5, self.copies, generator=generator) - 1).double().unbind()
        angle, factor = turn * self.rotation, torch.exp(-zoom * math.log1p(self.scale))
        side = torch.where(mirror < 0, -1.0, 1.0) if self.flip else torch.ones_like(mirror)
        cos, sin = angle.cos() * factor, angle.sin() * factor
        linear = torch.stack([torch.stack([cos * side, sin * side], 1), torch.stack([-sin, cos], 1)], 1)
        offset = -linear @ (2 * self.shift * torch.stack([x, y], 1)).unsqueeze(2)
        transforms = torch.cat([linear, offset], 2)
        transforms[0] = torch.eye(2, 3)
        return transforms

    def _coarse(self, classifier: Classifier, image: Tensor, classes: Tensor, transforms: Tensor) -> Tensor:
        """Return g: the Grad-CAM of every copy for every class, (3, H, W), (T,) -> (T, L, h, w)."""
        parts = []
        for chunk in torch.split(transforms.to(image), self.batch):
            grid = affine_grid(chunk, [len(chunk), *image.shape], align_corners=False)
            copies = grid_sample(image.expand(len(chunk), -1, -1, -1), grid, align_corners=False)
            index = torch.arange(len(chunk), device=image.device)
            rows = torch.cartesian_prod(index, classes)
            maps = GradCAM(self.layer)(classifier, copies, rows).heatmaps
            assert maps is not None  # noqa: S101 - what GradCAM returns
            parts.append(maps.view(len(chunk), len(classes), *maps.shape[1:]).transpose(0, 1))
        coarse = torch.cat(parts, 1)
        peak = coarse.amax(dim=(2, 3), keepdim=True)
        return torch.where(peak > 0, coarse / peak, 0.0)
