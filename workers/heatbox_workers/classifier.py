"""The classifier that explainers meet: a frozen network, its card, and the tools of `heatbox.contract.Classifier`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heatbox.contract import Embedded, HeadGradients
from heatbox.models import Card
from heatbox_workers.embeddings import record_embeddings
from heatbox_workers.features import ForwardPass, find_gap_weights, forward_pass, rescore

__all__ = ["TorchClassifier", "squash"]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Pictures (N, 3, H, W), the forward pass that was made of them, and their embeddings (N, D)."""

    images: Tensor
    forward: ForwardPass
    embeddings: Tensor


@dataclass(frozen=True, eq=False)
class TorchClassifier:
    """A classifier on one device.

    Attributes:
        card: what is known about it; `card.feature_layer` is filled in.
        network: in eval mode, no parameter requires a gradient.
        device: where images and network are.
        state: what the explainer's `fit` returned; empty where it has none.
    """

    card: Card
    network: nn.Module
    device: torch.device
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    _seen: _Seen | None = field(default=None, repr=False)
    _gap: dict[str, Tensor | None] = field(default_factory=dict, repr=False)

    @property
    def feature_layer(self) -> str:
        """Module that is explained when an option says `auto`."""
        return self.card.feature_layer

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, index = class index."""
        return self.card.labels

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return self.card.input_size

    @property
    def version(self) -> str:
        """Content id of weights and card."""
        return self.card.version

    def preprocess(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Squash RGB pictures (h, w, 3) to the square input and normalise: -> (N, 3, H, W) float32."""
        side = self.input_size
        squares = [squash(picture, side) for picture in pictures]
        batch = torch.from_numpy(np.stack(squares)).to(self.device).permute(0, 3, 1, 2)
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.card.mean, self.card.std)
        )
        return ((batch.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities as the card's head defines them: (N, C) -> (N, C)."""
        return logits.sigmoid() if self.card.head == "sigmoid" else logits.softmax(1)

    def seen(self, images: Tensor, layers: Sequence[str] = ()) -> "TorchClassifier":
        """Return the same classifier with one forward pass of `images` in hand.

        Its tools answer from that pass when they are asked about the very same tensor, so that choosing the classes
        and explaining them costs one forward pass together.

        Args:
            images: (N, 3, H, W).
            layers: that are recorded besides the feature layer.
        """
        return replace(self, _seen=self._run(images, (self.feature_layer, *layers)))

    def logits(self, images: Tensor) -> Tensor:
        """Return class scores before the softmax, no graph: (N, 3, H, W) -> (N, C)."""
        if self._seen and self._seen.images is images:
            return self._seen.forward.logits.detach()
        with torch.no_grad():
            logits: Tensor = self.network(images)
        return logits

    def feature_maps(self, images: Tensor, layer: str = "auto") -> Tensor:
        """Return a layer's output, no graph: (N, 3, H, W) -> (N, K, h, w)."""
        name = self._layer(layer)
        return self._pass(images, (name,)).forward.layers[name].detach()

    def embed(self, images: Tensor, layer: str = "auto") -> Embedded:
        """Return a layer's output and the embeddings from one forward pass, no graph: (N, K, h, w) and (N, D)."""
        name = self._layer(layer)
        found = self._pass(images, (name,))
        return Embedded(found.forward.layers[name].detach(), found.embeddings)

    def rescore(self, image: Tensor, maps: Tensor, layer: str = "auto") -> Tensor:
        """Return the scores of other maps in a layer's place: (1, 3, H, W), (B, K, h, w) -> (B, C); no graph."""
        return rescore(self.network, self._layer(layer), image, maps)

    def head_gradients(self, images: Tensor, targets: Tensor, layer: str = "auto") -> HeadGradients:
        """Return maps and gradients of each target from one forward pass; only the head records a graph."""
        return self.layer_gradients(images, targets, (layer,))[0]

    def layer_gradients(
        self, images: Tensor, targets: Tensor, layers: Sequence[str]
    ) -> tuple[HeadGradients, ...]:
        """Return maps and gradients of each target at several layers, from one forward pass."""
        names = tuple(self._layer(layer) for layer in layers)
        return self._pass(images, names).forward.gradients(targets, names)

    def gap_weights(self, layer: str = "auto") -> Tensor | None:
        """Return W (C, K) where logits = W GAP(A) + b holds numerically for the layer, else None."""
        name = self._layer(layer)
        if name not in self._gap:
            self._gap[name] = find_gap_weights(self.network, name, noise(self.input_size, self.device))
        return self._gap[name]

    def _layer(self, layer: str) -> str:
        return self.feature_layer if layer == "auto" else layer

    def _pass(self, images: Tensor, layers: Sequence[str]) -> _Seen:
        if self._seen and self._seen.images is images and self._seen.forward.layers.keys() >= set(layers):
            return self._seen
        return self._run(images, layers)

    def _run(self, images: Tensor, layers: Sequence[str]) -> _Seen:
        """Run the network once and keep layers' maps, the logits and the embeddings."""
        with record_embeddings(self.network) as embeddings:
            forward = forward_pass(self.network, tuple(dict.fromkeys(layers)), images)
        if embeddings:
            return _Seen(images, forward, embeddings[-1])
        last = forward.layers.get(self.feature_layer)
        if last is None:
            last = forward_pass(self.network, self.feature_layer, images).maps
        return _Seen(images, forward, last.detach().mean(dim=(2, 3)))


def noise(side: int, device: torch.device, count: int = 2) -> Tensor:
    """Return seeded normal noise (count, 3, side, side), the picture that probes look at."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, side, side, generator=generator).to(device)


def squash(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize without keeping the aspect ratio; averages areas where the picture shrinks."""
    if picture.shape[:2] == (side, side):
        return picture
    shrinks = min(picture.shape[:2]) >= side
    resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)
