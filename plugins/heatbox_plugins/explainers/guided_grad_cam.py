"""Guided Grad-CAM: the sharp lines of guided backpropagation where Grad-CAM sees the class."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.explainers.grad_cam import GradCAM
from heatbox_plugins.guided import guided_gradients, require_blur, smooth, why_unguided

__all__ = ["GuidedGradCAM"]


@dataclass(frozen=True)
class GuidedGradCAM:
    """Guided Grad-CAM (Selvaraju et al., ICCV 2017, section 3.2).

    With R^0 the guided gradient of the class score (3, H, W), L^c its Grad-CAM map and U bilinear upsampling,

        G^c = R^0 * U(L^c)        heat(x, y) = max_channel max(G^c, 0), smoothed

    Source: Grad-CAM: Visual Explanations from Deep Networks, https://arxiv.org/abs/1610.02391

    Attributes:
        layer: the module whose maps Grad-CAM weights; `auto` is the classifier's feature layer.
        blur: sigma of the Gaussian that smooths the map, as part of the image's side; 0 for none.
    """

    layer: str = "auto"
    blur: float = 0.018
    box_threshold: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        require_blur(self.blur)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why guided backpropagation means nothing for this network, or None."""
        return why_unguided(classifier)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        gradients = self.gradients(classifier, images, targets)
        return Evidence(heatmaps=smooth(gradients.relu().amax(dim=1), self.blur))

    def gradients(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return G^c: (N, 3, H, W), (M, 2) -> (M, 3, H, W)."""
        cam = GradCAM(self.layer)(classifier, images, targets).heatmaps
        assert cam is not None  # noqa: S101 - tells the type checker what Grad-CAM returns
        larger = functional.interpolate(cam[:, None], images.shape[2:], mode="bilinear", align_corners=False)
        return larger * guided_gradients(classifier.network, images, targets)
