"""Eigen-CAM: the feature maps' first principal component; no class, no gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["EigenCAM"]


@dataclass(frozen=True)
class EigenCAM:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020).

    With A (h w, K) the feature maps of one image, a row for each cell, and A = U S V^T,

        L = A V_1 = S_1 U_1

    It does not look at the class: all targets of an image get the same map. U_1 comes from the smaller of the Gram
    matrices A A^T (h w, h w) and A^T A (K, K), never from a singular value decomposition of A. A singular vector's
    sign is arbitrary; here the value of the largest size is positive.

    Source: Eigen-CAM: Class Activation Map using Principal Components, https://arxiv.org/abs/2008.00299

    Attributes:
        layer: the module whose maps are decomposed; `auto` is the classifier's feature layer.
        centred: take each channel's mean over the cells away first, so that the component is the strongest contrast
            inside the image; the paper does not, pytorch-grad-cam does.
    """

    layer: str = "auto"
    centred: bool = False
    class_agnostic: ClassVar[bool] = True

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        maps = classifier.feature_maps(images, self.layer)
        if self.centred:
            maps = maps - maps.mean(dim=(2, 3), keepdim=True)
        heatmaps = torch.stack([_first_component(single) for single in maps])
        return Evidence(heatmaps=heatmaps[targets[:, 0]])


def _first_component(maps: Tensor) -> Tensor:
    """Return A V_1 as a map: (K, h, w) -> (h, w)."""
    cells = maps.flatten(1).T.double()
    if cells.shape[0] <= cells.shape[1]:
        values, vectors = torch.linalg.eigh(cells @ cells.T)
        component: Tensor = values[-1].clamp_min(0).sqrt() * vectors[:, -1]
    else:
        component = cells @ torch.linalg.eigh(cells.T @ cells).eigenvectors[:, -1]
    sign = component[component.abs().argmax()].sign()
    heatmap: Tensor = (sign * component).reshape(maps.shape[1:])
    return heatmap.float()
