"""Grad-CAM++: feature maps weighted by those gradients that raise the class score, cell by cell."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["GradCAMPP"]


@dataclass(frozen=True)
class GradCAMPP:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018).

    With A_k the feature maps of a layer, g_k[i, j] = dy^c / dA_k[i, j] and y^c the logit of class c,

        alpha_k[i, j] = g_k[i, j]^2 / (2 g_k[i, j]^2 + sum_ab A_k[a, b] g_k[i, j]^3)
        w_k = sum_ij alpha_k[i, j] ReLU(g_k[i, j])        L^c = ReLU(sum_k w_k A_k)

    The paper scores by exp(y^c), whose higher derivatives are powers of g behind a piecewise linear head; the factor
    exp(y^c) is common to all weights and left out. Only g > 0 counts, and there alpha = 1 / (2 + g sum_ab A), which
    does not underflow. The derivation has A >= 0: where negative maps turn that denominator to zero or below it,
    alpha is 0.

    Source: Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks, https://arxiv.org/abs/1710.11063

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer.
    """

    layer: str = "auto"

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        head = classifier.head_gradients(images, targets, self.layer)
        rising = head.gradients.relu()
        denominator = 2 + rising * head.maps.sum(dim=(2, 3), keepdim=True)
        alpha = (1 / denominator).where(denominator > 0, 0)
        weights = (alpha * rising).sum(dim=(2, 3))
        return Evidence(heatmaps=torch.einsum("mk,mkhw->mhw", weights, head.maps).relu())
