"""CAM: class activation maps of networks that end in global average pooling and one linear layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence
from heatbox.errors import UnsupportedError

__all__ = ["CAM"]


@dataclass(frozen=True)
class CAM:
    """Class activation mapping (Zhou et al., CVPR 2016).

    With A_k the feature maps that global average pooling sees and W the linear layer behind it,

        M_c(x, y) = sum_k W[c, k] A_k(x, y)        y^c = GAP(M_c) + b_c

    No backward pass, no ReLU, the bias is left out as in the paper.

    Source: Learning Deep Features for Discriminative Localization, https://arxiv.org/abs/1512.04150

    Attributes:
        layer: the module whose maps are pooled; `auto` is the classifier's feature layer.
    """

    layer: str = "auto"

    def supports(self, classifier: Classifier) -> str | None:
        """Return why this network has no class activation map, or None."""
        if classifier.gap_weights(self.layer) is None:
            return "CAM needs global average pooling followed by one linear layer; grad_cam explains any network."
        return None

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        weights = classifier.gap_weights(self.layer)
        if weights is None:
            raise UnsupportedError("The network has no GAP + linear head.", "Use the explainer grad_cam.")
        maps = classifier.feature_maps(images, self.layer)
        image, target = targets.unbind(1)
        return Evidence(heatmaps=torch.einsum("mk,mkhw->mhw", weights[target], maps[image]))
