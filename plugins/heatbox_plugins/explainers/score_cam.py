"""Score-CAM: each feature map is weighted by the class probability of the picture that it lets through."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from heatbox.contract import Classifier, Evidence

__all__ = ["ScoreCAM"]


@dataclass(frozen=True)
class ScoreCAM:
    """Score-CAM (Wang et al., CVPR workshops 2020).

    With A_k the feature maps of a layer, U bilinear interpolation to the picture's size, s(.) the step to [0, 1] by
    minimum and maximum, X the normalised picture and p the class probabilities,

        w_k^c = p_c(X * s(U(A_k)))        L^c = ReLU(sum_k w_k^c A_k)

    A constant A_k masks nothing and has the weight 0. As in the authors' code, w is the probability itself; their
    paper and torchcam take a softmax of the logits over the channels instead, which leaves little more than one
    channel. Every channel costs one forward pass, shared by all targets of the picture. `top_channels` bounds that:
    the channels that vary most over the picture are kept (as Faster-Score-CAM does), the others count as 0.

    Source: Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks,
        https://arxiv.org/abs/1910.01279

    Attributes:
        layer: the module whose maps are the masks; `auto` is the classifier's feature layer.
        top_channels: how many channels are scored, at least 1; None scores all, as the paper does.
        batch: masked pictures per forward pass, at least 1.
    """

    layer: str = "auto"
    top_channels: int | None = None
    batch: int = 8

    def __post_init__(self) -> None:
        if self.top_channels is not None and self.top_channels < 1:
            msg = f"top_channels is at least 1, or None for all, got {self.top_channels}"
            raise ValueError(msg)
        if self.batch < 1:
            msg = f"batch is at least 1, got {self.batch}"
            raise ValueError(msg)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        maps = classifier.feature_maps(images, self.layer)
        heatmaps = maps.new_zeros(len(targets), *maps.shape[2:])
        for image in sorted(set(targets[:, 0].tolist())):
            rows = targets[:, 0] == image
            channels = maps[image, self._chosen(maps[image])]
            weights = self._weights(classifier, images[image : image + 1], channels, targets[rows, 1])
            heatmaps[rows] = torch.einsum("km,khw->mhw", weights, channels).relu()
        return Evidence(heatmaps=heatmaps)

    def _chosen(self, maps: Tensor) -> Tensor:
        """Return which channels to score: those that vary, most first, ties by index: (K, h, w) -> (k,)."""
        spread = maps.flatten(1).std(dim=1, correction=0)
        order = spread.argsort(descending=True, stable=True)[: self.top_channels]
        return order[maps[order].amax(dim=(1, 2)) > maps[order].amin(dim=(1, 2))]

    def _weights(self, classifier: Classifier, image: Tensor, channels: Tensor, classes: Tensor) -> Tensor:
        """Return each channel's class probabilities: (1, 3, H, W), (k, h, w), (m,) -> (k, m)."""
        weights = channels.new_zeros(len(channels), len(classes))
        for start in range(0, len(channels), self.batch):
            masks = interpolate(channels[start : start + self.batch, None], image.shape[2:], mode="bilinear")
            low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
            scores = classifier.logits(image * ((masks - low) / (high - low)))
            weights[start : start + self.batch] = classifier.probabilities(scores)[:, classes]
        return weights
