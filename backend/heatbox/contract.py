"""The plugin contract on one page: what an explainer and a box fitter are given and what they return.

An explainer is a frozen dataclass registered under the entry-point group `heatbox.explainers`. Its fields are its
options; calling it explains a batch. It meets tensors and a classifier, never Label Studio, files or queues::

    @dataclass(frozen=True)
    class GradCAM:
        layer: str = "auto"

        def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence: ...

A box fitter is a frozen dataclass under `heatbox.box_fitters`; it turns one heatmap into a mask and boxes.

Symbols: N images, M targets (rows of image index and class index), C classes, K channels, h x w feature-map cells,
H x W input pixels, B boxes. torch is named here for type checkers only; this module never imports it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

__all__ = [
    "BoxFitter",
    "Classifier",
    "Embedded",
    "Evidence",
    "Examples",
    "Explainer",
    "Fit",
    "FittedExplainer",
    "HeadGradients",
    "PictureFitter",
]


@dataclass(frozen=True)
class HeadGradients:
    """Feature maps of each target's image and the gradient of the target's logit with respect to them.

    Attributes:
        maps: (M, K, h, w) float32, A.
        gradients: (M, K, h, w) float32, dy^c / dA.
        logits: (M,) float32, y^c before the softmax.
    """

    maps: "Tensor"
    gradients: "Tensor"
    logits: "Tensor"


@dataclass(frozen=True)
class Embedded:
    """Feature maps and embeddings of the same pictures.

    Attributes:
        maps: (N, K, h, w) float32, A.
        embeddings: (N, D) float32, e: what the last linear layer reads.
    """

    maps: "Tensor"
    embeddings: "Tensor"


@dataclass(frozen=True)
class Examples:
    """A batch of pictures with what people know about them, for `fit`.

    Attributes:
        images: (N, 3, H, W) float32, normalised as the classifier wants it.
        targets: (M, 2) int64, rows of (image index, class index): what is in them. A picture may have no row.
        boxes: (M, 4) float32, xyxy in input pixels, far edges exclusive, one for each row; NaN where it is not known.
    """

    images: "Tensor"
    targets: "Tensor"
    boxes: "Tensor"


class Classifier(Protocol):
    """A frozen classifier and the tools an explainer needs; hooks are on the network only inside these calls."""

    @property
    def network(self) -> "nn.Module":
        """The network in eval mode; no parameter requires a gradient."""

    @property
    def feature_layer(self) -> str:
        """Name of the module whose output is explained when an option says `auto`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, index = class index."""

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels (H = W)."""

    @property
    def version(self) -> str:
        """Content id of the weights and of all that changes the function."""

    @property
    def state(self) -> "Mapping[str, Tensor]":
        """What the explainer's own `fit` returned for this classifier; empty where it has none."""

    def logits(self, images: "Tensor") -> "Tensor":
        """Return class scores before the softmax, no graph: (N, 3, H, W) -> (N, C)."""

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Return class probabilities as this classifier's head defines them (softmax or sigmoid): (N, C) -> (N, C)."""

    def rescore(self, image: "Tensor", maps: "Tensor", layer: str = "auto") -> "Tensor":
        """Return the scores of other maps in a layer's place: (1, 3, H, W), (B, K, h, w) -> (B, C); no graph.

        Only what comes after the layer runs B times; the layer must not lie inside a residual branch.
        """

    def feature_maps(self, images: "Tensor", layer: str = "auto") -> "Tensor":
        """Return a layer's output, no graph: (N, 3, H, W) -> (N, K, h, w)."""

    def embed(self, images: "Tensor", layer: str = "auto") -> Embedded:
        """Return a layer's output and the embeddings from one forward pass, no graph.

        The embedding is what the last linear layer reads, or where there is none the mean of the feature layer's maps.
        """

    def head_gradients(self, images: "Tensor", targets: "Tensor", layer: str = "auto") -> HeadGradients:
        """Return maps and gradients of each target from one forward pass; only the head records a graph."""

    def layer_gradients(
        self, images: "Tensor", targets: "Tensor", layers: "Sequence[str]"
    ) -> tuple[HeadGradients, ...]:
        """Return maps and gradients at several layers, from one forward pass; the graph begins at the first to run."""

    def gap_weights(self, layer: str = "auto") -> "Tensor | None":
        """Return W (C, K) where logits = W GAP(A) + b holds numerically for the layer, else None."""


@dataclass(frozen=True)
class Evidence:
    """What an explainer found: exactly one of heatmaps, masks or boxes, one entry per target, in target order.

    Attributes:
        heatmaps: (M, h, w) float32 of any resolution; negative values count as no evidence.
        masks: (M, H, W) bool.
        boxes: M tensors (B, 4) float32, xyxy in input pixels, far edges exclusive.
        scores: M tensors (B,) float32 in [0, 1]; only with boxes.
        confidences: (M,) float32 in [0, 1], how sure the explainer itself is that the target is there; it takes the
            place of the classifier's probability. None: it has no opinion.
    """

    heatmaps: "Tensor | None" = None
    masks: "Tensor | None" = None
    boxes: "Sequence[Tensor] | None" = None
    scores: "Sequence[Tensor] | None" = None
    confidences: "Tensor | None" = None

    def __post_init__(self) -> None:
        given = [name for name in ("heatmaps", "masks", "boxes") if getattr(self, name) is not None]
        if len(given) != 1:
            msg = f"evidence holds exactly one of heatmaps, masks or boxes, got {given or 'none'}"
            raise ValueError(msg)
        if (self.boxes is None) != (self.scores is None):
            msg = "scores belong to boxes: give both or neither"
            raise ValueError(msg)


@runtime_checkable
class Explainer(Protocol):
    """Turns images and target classes into evidence.

    It may also have `supports(classifier) -> str | None`: why it cannot explain this network, in words, or None.
    It may have `watches(classifier) -> Sequence[str]`: the layers whose gradients it asks for, so that the forward pass
    that chooses the classes records them too.
    `class_agnostic: ClassVar[bool] = True` says that it gives every class of a picture the same map.
    `box_threshold: ClassVar[float]` is the threshold that suits its heat, where it is far from what suits CAMs.
    One with `fit` is a `FittedExplainer`.
    """

    def __call__(self, classifier: Classifier, images: "Tensor", targets: "Tensor") -> Evidence:
        """Explain a batch.

        Args:
            classifier: the classifier whose decision is explained; it must be left as it was found.
            images: (N, 3, H, W) float32, normalised as the classifier wants it.
            targets: (M, 2) int64, rows of (image index, class index); several rows may name one image.

        Returns:
            Evidence with M entries.
        """


class FittedExplainer(Explainer, Protocol):
    """An explainer that learns something about a classifier once, before it explains.

    `heatbox fit` calls `fit` and keeps what it returns beside the weights of that version; from then on it is handed
    back as `classifier.state`. The state's content is part of the version of every prediction.
    `label: ClassVar[str] = "..."` says that it finds one kind of thing that is no class of the classifier: it is asked
    for one target a picture, whose class index means nothing, and its regions have this label.
    """

    def fit(self, classifier: Classifier, examples: "Iterable[Examples]") -> "Mapping[str, Tensor]":
        """Learn from examples; the same examples and options give the same state.

        Args:
            classifier: as in a call; it must be left as it was found.
            examples: batches, which may be gone through several times, in the same order.

        Returns:
            Tensors by name.

        Raises:
            NotFittedError: there is too little to learn from; says what is needed.
        """


@dataclass(frozen=True)
class Fit:
    """What a box fitter made of one heatmap.

    Attributes:
        mask: (H, W) bool, the binary image the boxes were fitted to.
        boxes: (B, 4) float64, xyxy in heatmap pixels, far edges exclusive; best first, ties by position.
        scores: (B,) float64 in [0, 1], each box's own evidence.
    """

    mask: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]


@runtime_checkable
class BoxFitter(Protocol):
    """Turns one heatmap into boxes; deterministic, no randomness."""

    @property
    def threshold(self) -> float:
        """What the mask keeps, as part of the heatmap's maximum; the one option that every fitter has."""

    def __call__(self, heatmap: NDArray[np.float32]) -> Fit:
        """Fit boxes to a heatmap (H, W) with values in [0, 1] (see `heatbox.heatmaps.normalise`)."""


@runtime_checkable
class PictureFitter(Protocol):
    """A box fitter that also looks at the picture; otherwise as `BoxFitter`."""

    @property
    def threshold(self) -> float:
        """What the mask keeps, as part of the heatmap's maximum."""

    @property
    def needs_picture(self) -> Literal[True]:
        """Says that it is called with the picture: `needs_picture: ClassVar[bool] = True`."""

    def __call__(self, heatmap: NDArray[np.float32], picture: NDArray[np.uint8]) -> Fit:
        """Fit boxes to a heatmap (H, W) with values in [0, 1] over its picture (H, W, 3), RGB, squashed like it."""


Head = Literal["softmax", "sigmoid", "arcface"]
