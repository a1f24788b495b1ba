"""TTA-CAM: class activation averaged over flipped and scaled copies of the picture, at map level."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from heatbox.contract import Classifier, Evidence

__all__ = ["TTACAM"]

_STRIDE = 32  # of common networks: other input sizes would leave a part of a cell at the far edges
_TINY = 1e-12
MAX_SCALE = 4.0


@dataclass(frozen=True)
class TTACAM:
    """Test-time augmented class activation: the mean of the maps of scaled and mirrored copies.

    With v a view of the picture (scale, mirror), v^-1 its way back, A_k the feature maps of a layer, h x w their
    size and y^c the logit of class c,

        L^c = mean_v v^-1 (M_v / max M_v)

        positive:  M = sum_k ReLU(dy^c / dA_k * A_k)
        grad_cam:  M = ReLU(sum_k alpha_k^c A_k),    alpha_k^c = 1 / (h w) sum_ij dy^c / dA_k[i, j]

    `positive` is LayerCAM for maps with a sign: where a layer ends without ReLU (the linear bottlenecks of MobileNet),
    a negative activation with a negative gradient speaks for the class too. Where A_k >= 0 it is LayerCAM.

    Source: Grad-CAM, https://arxiv.org/abs/1610.02391; LayerCAM, https://doi.org/10.1109/TIP.2021.3089943

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer. The end of the block
            before it often gives better boxes.
        rule: how gradients and maps become one map.
        scales: of the input's sides, rounded to multiples of 32 pixels; each costs its square in forward passes.
        mirror: look at each scale from left to right too, at twice the cost.
    """

    layer: str = "auto"
    rule: Literal["positive", "grad_cam"] = "positive"
    scales: tuple[float, ...] = (1.0, 1.4)
    mirror: bool = True

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= MAX_SCALE for scale in self.scales):
            msg = f"scales must be at least one number above 0 and up to {MAX_SCALE}, got {self.scales!r}"
            raise ValueError(msg)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why this network cannot look at scaled pictures, or None."""
        for side in self._sides(classifier.input_size):
            parameter = next(classifier.network.parameters())
            try:
                classifier.logits(torch.zeros(1, 3, side, side, device=parameter.device))
            except (RuntimeError, ValueError, AssertionError):
                return (
                    f"it does not take pictures of {side} x {side} pixels; scales=[1] asks for no other size."
                )
        return None

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H / 4, W / 4)."""
        side = images.shape[-1]
        total = images.new_zeros(len(targets), max(1, side // 4), max(1, side // 4))
        for size in self._sides(side):
            scaled = images if size == side else _resize(images, size)
            for mirrored in (False, True) if self.mirror else (False,):
                maps = self._maps(classifier, scaled.flip(3) if mirrored else scaled, targets)
                maps = maps.flip(2) if mirrored else maps
                maps = interpolate(maps[:, None], total.shape[1:], mode="bicubic")[:, 0].clamp(min=0)
                total += maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)
        return Evidence(heatmaps=total / (len(self.scales) * (1 + self.mirror)))

    def _maps(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return one view's maps: (N, 3, H, W), (M, 2) -> (M, h, w)."""
        head = classifier.head_gradients(images, targets, self.layer)
        if self.rule == "positive":
            return (head.gradients * head.maps).relu().sum(dim=1)
        alpha = head.gradients.mean(dim=(2, 3))
        return torch.einsum("mk,mkhw->mhw", alpha, head.maps).relu()

    def _sides(self, side: int) -> tuple[int, ...]:
        """Return the sides of the views in pixels; the input's own is never rounded."""
        return tuple(
            side if scale == 1 else _STRIDE * max(1, round(scale * side / _STRIDE)) for scale in self.scales
        )


def _resize(images: Tensor, side: int) -> Tensor:
    """Resize a batch without aliasing: (N, 3, H, W) -> (N, 3, side, side)."""
    return interpolate(images, (side, side), mode="bilinear", antialias=True)
