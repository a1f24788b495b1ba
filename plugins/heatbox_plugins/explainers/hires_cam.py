"""HiResCAM: each cell's activation times its own gradient, summed over the channels."""

from dataclasses import dataclass

from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["HiResCAM"]


@dataclass(frozen=True)
class HiResCAM:
    """HiResCAM (Draelos and Carin, 2020).

    With A_k the feature maps of a layer and y^c the logit of class c,

        L^c[i, j] = sum_k dy^c / dA_k[i, j] A_k[i, j]

    The gradient is not averaged over the map, so a cell shows only what the network computed with that very cell.
    Behind global average pooling and one linear layer, L^c is CAM / (h w) and sums to y^c - b_c. There is no ReLU in
    the definition; negative values speak against the class.

    Source: Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks,
        https://arxiv.org/abs/2011.08891

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer.
    """

    layer: str = "auto"

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        head = classifier.head_gradients(images, targets, self.layer)
        return Evidence(heatmaps=(head.gradients * head.maps).sum(dim=1))
