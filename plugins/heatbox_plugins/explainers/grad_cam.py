"""Grad-CAM: feature maps weighted by the average gradient of the class score."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["GradCAM"]


@dataclass(frozen=True)
class GradCAM:
    """Gradient-weighted class activation mapping (Selvaraju et al., ICCV 2017).

    With A_k the feature maps of a layer, h x w their size and y^c the logit of class c,

        alpha_k^c = 1 / (h w) sum_ij dy^c / dA_k[i, j]        L^c = ReLU(sum_k alpha_k^c A_k)

    Source: Grad-CAM: Visual Explanations from Deep Networks, https://arxiv.org/abs/1610.02391

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer.
    """

    layer: str = "auto"

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        head = classifier.head_gradients(images, targets, self.layer)
        alpha = head.gradients.mean(dim=(2, 3))
        return Evidence(heatmaps=torch.einsum("mk,mkhw->mhw", alpha, head.maps).relu())
