"""Guided backpropagation: the pixels that speak for a class, with every ReLU passing on positive gradients only."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.guided import guided_gradients, require_blur, smooth, why_unguided

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
class GuidedBackprop:
    """Guided backpropagation (Springenberg, Dosovitskiy, Brox, Riedmiller, ICLR workshop 2015).

    With R^L = 1 at the target's logit and f^l the input of a ReLU, backward through every ReLU

        R^l = 1[f^l > 0] 1[R^{l+1} > 0] R^{l+1}        heat(x, y) = max_channel |R^0|, smoothed

    The map is sharp and sparse, and says little about the class: use guided_grad_cam to tell classes apart.

    Source: Striving for Simplicity: The All Convolutional Net, https://arxiv.org/abs/1412.6806

    Attributes:
        sign: what a pixel counts: `absolute` is |R^0|, `positive` only what raises the class score.
        blur: sigma of the Gaussian that smooths the map, as part of the image's side; 0 for none.
    """

    sign: Literal["absolute", "positive"] = "absolute"
    blur: float = 0.018
    box_threshold: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        if self.sign not in {"absolute", "positive"}:
            msg = f"sign must be absolute or positive, got {self.sign!r}"
            raise ValueError(msg)
        require_blur(self.blur)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why guided backpropagation means nothing for this network, or None."""
        return why_unguided(classifier)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        gradients = guided_gradients(classifier.network, images, targets)
        strength = gradients.abs() if self.sign == "absolute" else gradients.relu()
        return Evidence(heatmaps=smooth(strength.amax(dim=1), self.blur))
