"""Fused CAM: the last layer's class map, sharpened by two earlier layers that agree with it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from heatbox.contract import Classifier, Evidence, HeadGradients
from heatbox_plugins.trunk import last_stage

__all__ = ["FusedCAM"]

_STRIDE = 32  # of common networks: other input sizes would leave a part of a cell at the far edges
_TINY = 1e-12
_FLOOR = 1e-3  # a layer without heat at a place dims it, and does not blacken it
MAX_SCALE = 4.0


@dataclass(frozen=True)
class FusedCAM:
    """The geometric mean of the class maps of three layers of one forward and one backward pass.

    With A_k the feature maps of a layer, h x w their size and y^c the logit of class c,

        L^c  = (G . P_1 . P_2)^(1/3)                     each map divided by its maximum before
        G    = ReLU(sum_k alpha_k^c A_k),                alpha_k^c = 1 / (h w) sum_ij dy^c / dA_k[i, j]
        P_l  = sum_k ReLU(dy^c / dA_k * A_k)

    G is Grad-CAM at the last layer: it knows the class and not the edges. P is LayerCAM for maps with a sign: where a
    layer ends without ReLU (the linear bottlenecks of MobileNet), a negative activation with a negative gradient
    speaks for the class too. P_1 is of the middle of the last resolution, P_2 of the end of the one before it, which
    has cells of half the side; P_2 is averaged over 3 x 3 cells. A place is hot where all three layers say so.

    Sources: Grad-CAM, https://arxiv.org/abs/1610.02391; LayerCAM, https://doi.org/10.1109/TIP.2021.3089943; the
    product of layers is that of RefineCAM, https://arxiv.org/abs/2605.14641, here as geometric mean.

    Attributes:
        layer: the last layer; `auto` is the classifier's feature layer.
        middle: the layer of P_1; `auto`: the middle one of those with maps as large as the last one's.
        fine: the layer of P_2; `auto`: the last one with larger maps; left out where there is none (transformers).
        scales: of the input's sides, rounded to multiples of 32 pixels, each explained and the maps averaged.
        mirror: look at each scale from left to right too, at twice the cost.
    """

    layer: str = "auto"
    middle: str = "auto"
    fine: str = "auto"
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= MAX_SCALE for scale in self.scales):
            msg = f"scales must be at least one number above 0 and up to {MAX_SCALE}, got {self.scales!r}"
            raise ValueError(msg)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why this network cannot look at scaled pictures, or None."""
        for side in set(self._sides(classifier.input_size)) - {classifier.input_size}:
            parameter = next(classifier.network.parameters())
            try:
                classifier.logits(torch.zeros(1, 3, side, side, device=parameter.device))
            except (RuntimeError, ValueError, AssertionError):
                return (
                    f"it does not take pictures of {side} x {side} pixels; scales=1 asks for no other size."
                )
        return None

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H / 4, W / 4)."""
        side = images.shape[-1]
        total = images.new_zeros(len(targets), max(1, side // 4), max(1, side // 4))
        for size in self._sides(side):
            scaled = images if size == side else _resize(images, size)
            for mirrored in (False, True) if self.mirror else (False,):
                maps = self._fused(
                    classifier, scaled.flip(3) if mirrored else scaled, targets, total.shape[2]
                )
                total += maps.flip(2) if mirrored else maps
        return Evidence(heatmaps=total / (len(self.scales) * (1 + self.mirror)))

    def _fused(self, classifier: Classifier, images: Tensor, targets: Tensor, side: int) -> Tensor:
        """Return one view's maps: (N, 3, H, W), (M, 2) -> (M, side, side)."""
        last, middle, *fine = classifier.layer_gradients(images, targets, self.watches(classifier))
        alpha = last.gradients.mean(dim=(2, 3))
        grad_cam = torch.einsum("mk,mkhw->mhw", alpha, last.maps).relu()
        maps = [grad_cam, _positive(middle), *(_smooth(_positive(head)) for head in fine)]
        return _at_most_one(_geometric_mean([_enlarge(one, side) for one in maps]))

    def watches(self, classifier: Classifier) -> tuple[str, ...]:
        """Return the names of the last, the middle and, where there is one, the fine layer."""
        last = classifier.feature_layer if self.layer == "auto" else self.layer
        if "auto" not in (self.middle, self.fine):
            return last, self.middle, self.fine
        stage = last_stage(classifier)
        middle = stage.layers[(len(stage.layers) - 1) // 2] if self.middle == "auto" else self.middle
        fine = stage.before if self.fine == "auto" else self.fine
        return (last, middle) if fine is None else (last, middle, fine)

    def _sides(self, side: int) -> tuple[int, ...]:
        """Return the sides of the views in pixels; the input's own is never rounded."""
        return tuple(
            side if scale == 1 else _STRIDE * max(1, round(scale * side / _STRIDE)) for scale in self.scales
        )


def _positive(head: HeadGradients) -> Tensor:
    """Return the sum of the positive products: (M, K, h, w) -> (M, h, w)."""
    return (head.gradients * head.maps).relu().sum(dim=1)


def _smooth(maps: Tensor) -> Tensor:
    """Average each cell with its neighbours, edges extended: (M, h, w) -> (M, h, w)."""
    return avg_pool2d(pad(maps[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]


def _enlarge(maps: Tensor, side: int) -> Tensor:
    """Interpolate to a maximum of 1, no heat stays 0: (M, h, w) -> (M, side, side)."""
    return _at_most_one(interpolate(maps[:, None], (side, side), mode="bicubic")[:, 0].clamp(min=0))


def _geometric_mean(maps: list[Tensor]) -> Tensor:
    """Return the geometric mean of maps in [0, 1], each lifted by the floor: L times (M, h, w) -> (M, h, w)."""
    return ((torch.stack(maps) + _FLOOR).log().mean(dim=0).exp() - _FLOOR).clamp(min=0)


def _at_most_one(maps: Tensor) -> Tensor:
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)


def _resize(images: Tensor, side: int) -> Tensor:
    """Resize a batch without aliasing: (N, 3, H, W) -> (N, 3, side, side)."""
    return interpolate(images, (side, side), mode="bilinear", antialias=True)
