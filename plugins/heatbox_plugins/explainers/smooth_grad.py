"""SmoothGrad through captum: the gradient of the class score, averaged over noisy copies of the picture."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.captum_adapter import attribute_each, seeded, why_no_captum
from heatbox_plugins.guided import require_blur, smooth

__all__ = ["SmoothGrad"]

_NOISY_PER_PASS = 8  # bounds memory; not an option, since captum's random numbers depend on it


@dataclass(frozen=True)
class SmoothGrad:
    """SmoothGrad (Smilkov, Thorat, Kim, Viegas, Wattenberg, 2017), by captum's `NoiseTunnel` around `Saliency`.

    With y^c the logit of class c, X the picture and e_i Gaussian noise whose sigma is a part of X's range,

        G^c = 1/n sum_i dy^c(X + e_i) / dX        heat(x, y) = sum over channels |G^c|, smoothed

    Every target costs n forward and backward passes: captum draws noise per target, and the same for each here.

    Source: SmoothGrad: removing noise by adding noise, https://arxiv.org/abs/1706.03825

    Attributes:
        samples: n, noisy copies.
        noise: sigma, as part of the picture's largest less its smallest value.
        blur: sigma of the Gaussian that smooths the map, as part of the image's side; 0 for none.
        seed: of the noise.
    """

    samples: int = 25
    noise: float = 0.15
    blur: float = 0.018
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            msg = f"samples must be at least 1, got {self.samples!r}"
            raise ValueError(msg)
        if not 0 <= self.noise <= 1:
            msg = f"noise must be from 0 to 1, got {self.noise!r}"
            raise ValueError(msg)
        require_blur(self.blur)

    def supports(self, classifier: Classifier) -> str | None:  # noqa: ARG002 - the question is about this machine
        """Return why captum cannot be used, or None."""
        return why_no_captum()

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        gradients = attribute_each(images, targets, partial(self._gradient, classifier))
        return Evidence(heatmaps=smooth(gradients.abs().sum(1), self.blur))

    def _gradient(self, classifier: Classifier, image: Tensor, target: int) -> Tensor:
        """Return the mean gradient of one class: (1, 3, H, W) -> (1, 3, H, W)."""
        from captum.attr import NoiseTunnel, Saliency  # type: ignore[import-untyped]

        with seeded(self.seed, image.device):
            gradient: Tensor = NoiseTunnel(Saliency(classifier.network)).attribute(
                image,
                nt_type="smoothgrad",
                nt_samples=self.samples,
                nt_samples_batch_size=_NOISY_PER_PASS,
                stdevs=self.noise * float(image.max() - image.min()),
                target=target,
                abs=False,
            )
        return gradient
