"""Integrated gradients through captum: what each pixel adds on the way from a blank picture to this one."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.captum_adapter import attribute_each, why_no_captum
from heatbox_plugins.guided import require_blur, smooth

__all__ = ["IntegratedGradients"]

_STEPS_PER_PASS = 8  # bounds memory


@dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients (Sundararajan, Taly, Yan, ICML 2017), computed by `captum.attr.IntegratedGradients`.

    With y^c the logit of class c, X the normalised picture and 0 the mean of the training pictures as baseline,

        IG = X * integral over a in [0, 1] of dy^c(a X) / dX        sum IG = y^c(X) - y^c(0)
        heat(x, y) = sum over channels |IG|, smoothed

    Pixels of the mean colour have no heat, however much they matter: the factor X is zero there.

    Source: Axiomatic Attribution for Deep Networks, https://arxiv.org/abs/1703.01365

    Attributes:
        steps: points of the Gauss-Legendre rule that replaces the integral; each costs a forward and backward pass.
        blur: sigma of the Gaussian that smooths the map, as part of the image's side; 0 for none.
    """

    steps: int = 32
    blur: float = 0.018

    def __post_init__(self) -> None:
        if self.steps < 1:
            msg = f"steps must be at least 1, got {self.steps!r}"
            raise ValueError(msg)
        require_blur(self.blur)

    def supports(self, classifier: Classifier) -> str | None:  # noqa: ARG002 - the question is about this machine
        """Return why captum cannot be used, or None."""
        return why_no_captum()

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        parts = attribute_each(images, targets, partial(self._parts, classifier))
        return Evidence(heatmaps=smooth(parts.abs().sum(1), self.blur))

    def _parts(self, classifier: Classifier, image: Tensor, target: int) -> Tensor:
        """Return what each value adds to one class's logit: (1, 3, H, W) -> (1, 3, H, W)."""
        from captum.attr import IntegratedGradients as CaptumGradients  # type: ignore[import-untyped]

        parts: Tensor = CaptumGradients(classifier.network).attribute(
            image, target=target, n_steps=self.steps, internal_batch_size=_STEPS_PER_PASS
        )
        return parts
