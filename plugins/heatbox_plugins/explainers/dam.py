"""DAM-selected guided backpropagation: the pixels behind the few neurons that speak most for a class."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from heatbox.contract import Classifier, Evidence
from heatbox.heatmaps import connected_components
from heatbox_plugins.guided import guided, require_blur, smooth, why_unguided

__all__ = ["DAM", "neuron_gradients", "opening", "strongest_neurons"]

_NEURONS_PER_PASS = 16  # bounds memory: a batched backward pass holds gradients of every activation for each
_IMAGES_PER_PASS = 32


@dataclass(frozen=True)
class DAM:
    """Localisation by the neurons of the largest impact (M. Fathi, UnsupervisedObjectLocalization, 2018).

    With A a late feature map and y^c the logit of class c, the DAM score of a neuron is activation times derivative,
    the first-order change of y^c when it is silenced; R_n is the guided gradient of neuron n down to the pixels:

        s = A * dy^c / dA,    n = the neurons of largest s > 0, one of each channel at most
        M_n = opening(smoothed max_channel R_n^+ > its percentile)    loss_n = -log p_c(x * M_n)
        mask = largest parts of the union of the M_n of lowest loss

    Hidden pixels have the value 0, the data set's mean. The smallest box around the mask, the project's last step,
    is the box fitter `enclosing`. Unlike the project: the logit's gradient instead of the softmax's, which
    saturates; the true probability as loss; a percentile that keeps a tenth of the pixels, not four fifths.

    Source: https://github.com/MahanFathi/UnsupervisedObjectLocalization; guided backpropagation,
    https://arxiv.org/abs/1412.6806

    Attributes:
        layer: the module whose neurons are looked at; `auto` is the classifier's feature layer.
        neurons: how many neurons are traced down to the pixels.
        keep: how many masks, those of the lowest class loss, are united.
        percentile: a mask is what exceeds this percentile of its neuron's map.
        blur: sigma of the Gaussian that smooths a neuron's map, as part of the image's side; 0 for none.
        min_area: parts of the union that cover less of the image are dropped; the largest part always stays.
    """

    layer: str = "auto"
    neurons: int = 10
    keep: int = 5
    percentile: float = 90.0
    blur: float = 0.018
    min_area: float = 0.01

    def __post_init__(self) -> None:
        require_blur(self.blur)
        for name, low, high in (("neurons", 1, 1000), ("keep", 1, self.neurons), ("percentile", 0, 100)):
            if not low <= getattr(self, name) <= high:
                msg = f"{name} must be from {low} to {high}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        if not 0 <= self.min_area <= 1:
            msg = f"min_area must be from 0 to 1 of the image, got {self.min_area!r}"
            raise ValueError(msg)

    def supports(self, classifier: Classifier) -> str | None:
        """Return why guided backpropagation means nothing for this network, or None."""
        return why_unguided(classifier)

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> masks (M, H, W)."""
        head = classifier.head_gradients(images, targets, self.layer)
        strength, neurons = strongest_neurons(head.maps * head.gradients, self.neurons)
        masks = images.new_zeros((len(targets), *images.shape[2:]), dtype=torch.bool)
        image, target = targets.unbind(1)
        for index in torch.unique(image).tolist():
            rows = (image == index).nonzero()[:, 0]
            pixels = images[index : index + 1]
            found = (
                self._neuron_masks(classifier, pixels, neurons[rows]) & (strength[rows] > 0)[..., None, None]
            )
            masks[rows] = self._unite(found, _probabilities(classifier, pixels, found, target[rows]))
        return Evidence(masks=masks)

    def _neuron_masks(self, classifier: Classifier, image: Tensor, neurons: Tensor) -> Tensor:
        """Return the mask of each neuron: (1, 3, H, W), (m, n) -> (m, n, H, W) bool."""
        layer = classifier.feature_layer if self.layer == "auto" else self.layer
        gradients = neuron_gradients(classifier.network, layer, image, neurons.flatten())
        saliency = smooth(gradients.relu().amax(dim=1), self.blur)
        rank = max(round(self.percentile / 100 * saliency[0].numel()), 1)
        limit = saliency.flatten(1).kthvalue(rank, dim=1).values
        return opening(saliency > limit[:, None, None]).view(*neurons.shape, *image.shape[2:])

    def _unite(self, masks: Tensor, probabilities: Tensor) -> Tensor:
        """Unite the masks of the lowest loss, less their small parts: (m, n, H, W), (m, n) -> (m, H, W) bool."""
        best = probabilities.argsort(dim=1, descending=True, stable=True)[:, : self.keep]
        united = masks.take_along_dim(best[..., None, None], dim=1).any(dim=1)
        return torch.stack([self._large_parts(mask) for mask in united])

    def _large_parts(self, mask: Tensor) -> Tensor:
        found = connected_components(mask.cpu().numpy())
        least = min(self.min_area * mask.numel(), found.areas.max(initial=0))
        large = np.flatnonzero(found.areas >= least) + 1
        return torch.from_numpy(np.isin(found.labels, large)).to(mask.device)


def strongest_neurons(impact: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest impact of each of the strongest channels, and which neuron has it.

    Neighbours in one channel see the same pixels, so a channel speaks once.

    Args:
        impact: (M, K, h, w), activation times gradient.
        count: n, how many; all K where there are fewer channels.

    Returns:
        (M, n) impacts, largest first, and (M, n) neurons as indices into K * h * w.
    """
    cells = impact.shape[2] * impact.shape[3]
    of_channel, cell = impact.flatten(2).max(dim=2)
    strength, channel = of_channel.topk(min(count, impact.shape[1]), dim=1)
    return strength, channel * cells + cell.gather(1, channel)


def neuron_gradients(network: nn.Module, layer: str, image: Tensor, neurons: Tensor) -> Tensor:
    """Return the guided gradient of each neuron: (1, 3, H, W), (B,) indices into K * h * w -> (B, 3, H, W).

    One forward pass, then backward passes of many neurons at once.
    """
    with torch.enable_grad():
        # Batched backward passes fold neurons into the batch, which channels-last memory slows down (1.3 to 2 times).
        pixels = image.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        maps = _maps(network, layer, pixels)
    gradients = []
    with guided(maps):
        for piece in torch.split(neurons, _NEURONS_PER_PASS):
            starts = functional.one_hot(piece, maps.numel()).to(maps.dtype).view(-1, *maps.shape)
            (gradient,) = torch.autograd.grad(maps, pixels, starts, retain_graph=True, is_grads_batched=True)
            gradients.append(gradient[:, 0])
    return torch.cat(gradients)


def opening(masks: Tensor) -> Tensor:
    """Erode, then dilate by the 3 x 3 cross: (B, H, W) bool -> (B, H, W) bool; drops specks and thin lines."""
    return _dilate(~_dilate(~masks))


def _dilate(masks: Tensor) -> Tensor:
    grown = masks.clone()
    grown[:, 1:] |= masks[:, :-1]
    grown[:, :-1] |= masks[:, 1:]
    grown[..., 1:] |= masks[..., :-1]
    grown[..., :-1] |= masks[..., 1:]
    return grown


def _maps(network: nn.Module, layer: str, pixels: Tensor) -> Tensor:
    """Return a layer's output (1, K, h, w) with its graph down to the pixels; what follows records none."""
    recorded: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        recorded.append(output)
        return output.detach().clone()

    handle = network.get_submodule(layer).register_forward_hook(cut)
    try:
        network(pixels.clone())
    finally:
        handle.remove()
    return recorded[-1]


def _probabilities(classifier: Classifier, image: Tensor, masks: Tensor, target: Tensor) -> Tensor:
    """Return p_c of the image behind each mask, -1 behind an empty one: (m, n, H, W), (m,) -> (m, n)."""
    pieces = torch.split(masks.flatten(0, 1).unsqueeze(1), _IMAGES_PER_PASS)
    logits = torch.cat([classifier.logits(image * piece) for piece in pieces])
    scores = classifier.probabilities(logits).view(*masks.shape[:2], -1)
    chosen = scores.take_along_dim(target[:, None, None], dim=2)[..., 0]
    return chosen.where(masks.flatten(2).any(dim=2), -1.0)
