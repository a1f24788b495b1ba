"""LayerCAM: activation times positive gradient, reliable at shallow layers too, several layers fused into one."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from heatbox.contract import Classifier, Evidence

__all__ = ["LayerCAM"]

SHALLOW = 8  # stages one to three halve the input's side three times


@dataclass(frozen=True)
class LayerCAM:
    """LayerCAM (Jiang, Zhang, Hou, Cheng and Wei, IEEE TIP 30, 2021).

    With A_k the feature maps of a layer and y^c the logit of class c,

        M^c[i, j] = ReLU(sum_k ReLU(dy^c / dA_k[i, j]) A_k[i, j])

    One layer gives M itself. Several are fused: each M is divided by its maximum, those of shallow layers go through
    tanh(gamma M / max M), all are interpolated to the largest map, and each cell keeps the greatest value. Shallow
    are the first three stages, here every map with at least an eighth of the input's side.

    Source: LayerCAM: Exploring Hierarchical Class Activation Maps for Localization,
        https://doi.org/10.1109/TIP.2021.3089943 (no arXiv version)

    Attributes:
        layers: the modules whose maps are fused; `auto` is the classifier's feature layer.
        gamma: how far shallow maps are lifted before they are fused, > 0; the paper's value is 2.
    """

    layers: tuple[str, ...] = ("auto",)
    gamma: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not self.layers or not all(self.layers):
            msg = f"layers names one or more modules, got {self.layers!r}"
            raise ValueError(msg)
        if not self.gamma > 0:
            msg = f"gamma is greater than 0, got {self.gamma}"
            raise ValueError(msg)

    def watches(self, classifier: Classifier) -> tuple[str, ...]:
        """Return the layers that are asked for in one call."""
        return tuple(classifier.feature_layer if layer == "auto" else layer for layer in self.layers)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        found = classifier.layer_gradients(images, targets, self.layers)
        maps = [(head.gradients.relu() * head.maps).sum(dim=1).relu() for head in found]
        if len(maps) == 1:
            return Evidence(heatmaps=maps[0])
        return Evidence(heatmaps=fuse([self._scaled(single, images.shape[2]) for single in maps]))

    def _scaled(self, heatmaps: Tensor, side: int) -> Tensor:
        """Bring one layer's maps to a maximum near 1: (M, h, w) -> (M, h, w); `side` is H in pixels."""
        peaks = heatmaps.amax(dim=(1, 2), keepdim=True)
        scaled = (heatmaps / peaks).where(peaks > 0, 0)
        return (self.gamma * scaled).tanh() if heatmaps.shape[1] * SHALLOW >= side else scaled


def fuse(maps: list[Tensor]) -> Tensor:
    """Return the greatest value of each cell at the largest map's size: L times (M, h_l, w_l) -> (M, h, w)."""
    size = max(single.shape[1] for single in maps), max(single.shape[2] for single in maps)
    resized = [interpolate(single[:, None], size, mode="bilinear")[:, 0] for single in maps]
    return torch.stack(resized).amax(dim=0)
