"""XGrad-CAM: feature maps weighted by the average gradient where the map is active."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["XGradCAM"]

CANCELLED = 1e-6  # |sum A| below this part of sum |A| is the rounding noise of float32


@dataclass(frozen=True)
class XGradCAM:
    """Axiom-based Grad-CAM (Fu et al., BMVC 2020).

    With A_k the feature maps of a layer and y^c the logit of class c,

        w_k^c = sum_ij dy^c / dA_k[i, j] A_k[i, j] / sum_ij A_k[i, j]        L^c = ReLU(sum_k w_k^c A_k)

    So sum_k w_k^c sum_ij A_k is the sum of gradient times activation: the map keeps the class score's first-order
    parts (sensitivity, conservation). It is meant for maps after a ReLU; the weight of a channel whose values cancel
    to nothing is 0.

    Source: Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs,
        https://arxiv.org/abs/2008.02312

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer.
    """

    layer: str = "auto"

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        head = classifier.head_gradients(images, targets, self.layer)
        total = head.maps.sum(dim=(2, 3))
        weighted = (head.gradients * head.maps).sum(dim=(2, 3))
        active = total.abs() > CANCELLED * head.maps.abs().sum(dim=(2, 3))
        weights = (weighted / total).where(active, 0)
        return Evidence(heatmaps=torch.einsum("mk,mkhw->mhw", weights, head.maps).relu())
