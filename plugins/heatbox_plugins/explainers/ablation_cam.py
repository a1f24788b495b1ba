"""Ablation-CAM: each feature map is weighted by how much the class score drops without it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatbox.contract import Classifier, Evidence

__all__ = ["AblationCAM", "measured_drops", "pooled_drops"]


@dataclass(frozen=True)
class AblationCAM:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020).

    With A_k the feature maps of a layer, y^c the logit of class c and y_k^c the same with A_k set to zero,

        w_k^c = (y^c - y_k^c) / |y^c|        L^c = ReLU(sum_k w_k^c A_k)

    The paper divides by y^c; the size keeps the map upright when a logit is negative. Only the part behind the layer
    runs for each channel, and all targets of a picture share these runs. Behind global average pooling and one
    linear layer W nothing runs, because there y^c - y_k^c = W[c, k] GAP(A_k). The layer must not lie inside a
    residual branch.

    Source: Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization,
        https://openaccess.thecvf.com/content_WACV_2020/html/Desai_Ablation-CAM_Visual_Explanations_for_Deep_Convolutional_Network_via_Gradient-free_Localization_WACV_2020_paper.html

    Attributes:
        layer: the module whose channels are taken away; `auto` is the classifier's feature layer.
        batch: ablated copies of the maps per run of the head, at least 1.
    """

    layer: str = "auto"
    batch: int = 64

    def __post_init__(self) -> None:
        if self.batch < 1:
            msg = f"batch is at least 1, got {self.batch}"
            raise ValueError(msg)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        maps = classifier.feature_maps(images, self.layer)
        image, target = targets.unbind(1)
        head = classifier.gap_weights(self.layer)
        if head is not None:
            drops = pooled_drops(head, maps)[image, :, target]
        else:
            drops = maps.new_zeros(len(targets), maps.shape[1])
            for one in sorted(set(image.tolist())):
                rows = image == one
                found = measured_drops(classifier, images[one : one + 1], maps[one], self.layer, self.batch)
                drops[rows] = found[:, target[rows]].T
        scores = classifier.logits(images)[image, target].abs()
        weights = drops / scores.clamp_min(torch.finfo(scores.dtype).tiny)[:, None]
        return Evidence(heatmaps=torch.einsum("mk,mkhw->mhw", weights, maps[image]).relu())


def pooled_drops(head: Tensor, maps: Tensor) -> Tensor:
    """Return y^c - y_k^c behind global average pooling and W: (C, K), (N, K, h, w) -> (N, K, C)."""
    return maps.mean(dim=(2, 3))[:, :, None] * head.T


def measured_drops(classifier: Classifier, image: Tensor, maps: Tensor, layer: str, batch: int) -> Tensor:
    """Return y^c - y_k^c by running the head without each channel: (1, 3, H, W), (K, h, w) -> (K, C)."""
    whole = classifier.rescore(image, maps[None], layer)
    drops = whole.new_zeros(len(maps), whole.shape[1])
    for start in range(0, len(maps), batch):
        ablated = maps.repeat(min(batch, len(maps) - start), 1, 1, 1)
        copies = torch.arange(len(ablated), device=maps.device)
        ablated[copies, start + copies] = 0
        drops[start : start + len(ablated)] = whole - classifier.rescore(image, ablated, layer)
    return drops
