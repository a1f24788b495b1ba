"""Occlusion through captum: a grey square slides over the picture and the class score falls where it matters."""

from dataclasses import dataclass

from torch import Tensor

from heatbox.contract import Classifier, Evidence
from heatbox_plugins.captum_adapter import require_captum, why_no_captum

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """Occlusion sensitivity (Zeiler and Fergus, ECCV 2014), computed by `captum.attr.Occlusion`.

    With y^c the logit of class c, X the picture, m_i the square at place i and 0 the mean of the training pictures,

        L^c(x, y) = mean over the squares i that cover (x, y) of y^c(X) - y^c(X * (1 - m_i))

    Negative where hiding helps the class. All classes of a picture share the forward passes, one per place:
    about (1 + (1 - window) / step)^2, whatever the size of the input.

    Source: Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901

    Attributes:
        window: side of the square, as part of the picture's side.
        step: how far it moves, as part of the picture's side; at most `window`.
        batch: occluded pictures per forward pass and class.
    """

    window: float = 0.2
    step: float = 0.07
    batch: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.window <= 1:
            msg = f"0 < step <= window <= 1 must hold, got step {self.step!r} and window {self.window!r}"
            raise ValueError(msg)
        if self.batch < 1:
            msg = f"batch must be at least 1, got {self.batch!r}"
            raise ValueError(msg)

    def supports(self, classifier: Classifier) -> str | None:  # noqa: ARG002 - the question is about this machine
        """Return why captum cannot be used, or None."""
        return why_no_captum()

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, H, W)."""
        require_captum()
        heatmaps = images.new_zeros(len(targets), *images.shape[2:])
        for image in sorted(set(targets[:, 0].tolist())):
            rows = targets[:, 0] == image
            heatmaps[rows] = self._drops(classifier, images[image], targets[rows, 1])
        return Evidence(heatmaps=heatmaps)

    def _drops(self, classifier: Classifier, image: Tensor, classes: Tensor) -> Tensor:
        """Return the fall of each class's logit: (3, H, W), (T,) -> (T, H, W)."""
        from captum.attr import Occlusion as CaptumOcclusion  # type: ignore[import-untyped]

        def scores(pictures: Tensor) -> Tensor:
            # captum repeats every occluded picture for each class: one of the repetitions goes through the network.
            return classifier.logits(pictures[:: len(classes)])[:, classes].flatten()

        window, step = (max(1, round(part * image.shape[1])) for part in (self.window, self.step))
        drops: Tensor = CaptumOcclusion(scores).attribute(
            image.repeat(len(classes), 1, 1, 1),
            sliding_window_shapes=(len(image), window, window),
            strides=(len(image), step, step),
            perturbations_per_eval=self.batch,
        )
        return drops[:, 0]  # the square hides all channels at once, so all have the same fall
