"""Explainers that each break one rule of the plugin contract, for the tests of the kit that must tell them apart."""

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from heatbox.contract import Evidence


def heat_of(classifier, images, targets):
    """Return gradient times activation, from which every fault is made: (M, h, w)."""
    head = classifier.head_gradients(images, targets)
    return (head.gradients * head.maps).sum(1).relu()


def fault(call, **members):
    """Return an explainer, a frozen dataclass, that calls a function."""
    return dataclass(frozen=True)(type("Fault", (), {"__call__": call, **members}))()


def maps(change):
    """Return an explainer that returns what a function makes of good maps (and the call's arguments)."""
    return fault(lambda _, *call: Evidence(heatmaps=change(heat_of(*call), *call)))


def after(act):
    """Return an explainer that returns good maps, and then does something to the classifier or the images."""

    def call(_, classifier, images, targets):
        heat = heat_of(classifier, images, targets)
        act(classifier, images)
        return Evidence(heatmaps=heat)

    return fault(call)


@dataclass
class NotFrozen:
    def __call__(self, *call):
        return Evidence(heatmaps=heat_of(*call))


@dataclass(frozen=True)
class Keeps:
    """Keeps something of every call."""

    what: str
    kept: list = field(default_factory=list)

    def __call__(self, *call):
        heat = heat_of(*call)
        self.kept.append({"maps": heat, "arrays": heat.numpy().copy(), "nothing": None}[self.what])
        return Evidence(heatmaps=heat)


@dataclass(frozen=True)
class Counts:
    """Answers every second call differently."""

    odd: list = field(default_factory=lambda: [False])

    def __call__(self, *call):
        self.odd[0] = not self.odd[0]
        return Evidence(heatmaps=heat_of(*call) ** (2 if self.odd[0] else 1))


def learns(fit):
    """Return an explainer that returns good maps, and learns with a function of classifier and examples."""
    return fault(
        lambda _, *call: Evidence(heatmaps=heat_of(*call)),
        fit=lambda _, classifier, examples: fit(classifier, examples),
    )


def learn_beside_a_hook(classifier, _examples):
    leave_hook(classifier, None)
    return {"learnt": torch.ones(1)}


def learn_unseeded(_classifier, _examples):
    return {"learnt": noise(torch.zeros(3))}


def leave_hook(classifier, _images):
    classifier.network.features.register_forward_hook(lambda *_: None)


def leave_gradient(classifier, images):
    classifier.network.classifier.bias.requires_grad_()
    with torch.enable_grad():
        classifier.network(images).sum().backward()
    classifier.network.classifier.bias.requires_grad_(requires_grad=False)


def leave_guided(classifier, _images):
    classifier.network.features[-1] = nn.Identity()


def hook_without_finally(_self, classifier, images, targets):
    handle = classifier.network.features.register_forward_hook(lambda *_: None)
    classifier.logits(images)
    handle.remove()
    return Evidence(heatmaps=heat_of(classifier, images, targets))


def grouped_by_picture(heat, _classifier, _images, targets):
    return heat[targets[:, 0].argsort(stable=True)]


def of_the_best_class(_self, classifier, images, targets):
    best = targets.clone()
    best[:, 1] = classifier.logits(images).argmax(1)[targets[:, 0]]
    return Evidence(heatmaps=heat_of(classifier, images, best))


def of_the_picture(_heat, _classifier, images, targets):
    return images[targets[:, 0], targets[:, 1]].relu()


def in_a_given_map(_self, classifier, images, targets):
    given = classifier.feature_maps(images)
    heat = given[targets[:, 0], targets[:, 1]].relu()
    given *= torch.linspace(0, 1, 8)
    return Evidence(heatmaps=heat)


def noise(heat, *_call):
    generator = torch.Generator()
    generator.seed()
    return heat + torch.rand(heat.shape, generator=generator)


def only_batches(heat, _classifier, images, _targets):
    if len(images) == 1:
        message = "one picture is no batch"
        raise ValueError(message)
    return heat


HANDLES = []
"""Of hooks on every module, which the test takes off."""

# name: (explainer, the one rule that tells it, what the message says)
FAULTS = {
    "a dataclass that can change": (NotFrozen(), "frozen", "dataclass that can be changed"),
    "a function": (lambda *call: Evidence(heatmaps=heat_of(*call)), "frozen", "function is no dataclass"),
    "supports that says no": (
        fault(heat_of, supports=lambda *_: "too small"),
        "supports",
        "none is supported (`gap`: too small; `relu`: too small; `tokens`: too small)",
    ),
    "supports that says False": (fault(heat_of, supports=lambda *_: False), "supports", "`gap`: False"),
    "arrays learnt": (learns(lambda *_: {"learnt": np.ones(3)}), "fits", "is not tensors by name"),
    "NaN learnt": (learns(lambda *_: {"learnt": torch.full((3,), torch.nan)}), "fits", "not finite (learnt)"),
    "learning fails": (learns(lambda *_: {}["no"]), "fits", "it raised plugin-broken"),
    "learning unseeded": (learns(learn_unseeded), "fits", "same examples gave other values of learnt"),
    "learning with everybody's generator": (
        learns(lambda *_: {"learnt": torch.rand(3)}),
        "fits",
        "generator of torch was moved",
    ),
    "learning beside a hook": (learns(learn_beside_a_hook), "fits", "a hook was left on `features`"),
    "two arguments": (
        fault(lambda _, classifier, images: (classifier, images)),
        "runs",
        "it raised TypeError",
    ),
    "a tensor": (fault(lambda _, *call: heat_of(*call)), "evidence", "Tensor, not Evidence"),
    "a fourth dimension": (maps(lambda heat, *_: heat[:, None]), "evidence", "5x1x8x8"),
    "one map too few": (maps(lambda heat, *_: heat[1:]), "evidence", "is 4x8x8"),
    "double precision": (maps(lambda heat, *_: heat.double()), "evidence", "float64"),
    "NaN": (maps(lambda heat, *_: heat.log() * 0), "finite", "NaN or infinity in the entries"),
    "a hook": (after(leave_hook), "network", "a hook was left on `features`"),
    "a hook on every module": (
        after(lambda *_: HANDLES.append(nn.modules.module.register_module_forward_hook(lambda *_: None))),
        "network",
        "a hook was left on `every module`",
    ),
    "a weight": (
        after(lambda classifier, _: classifier.network.classifier.bias.add_(1)),
        "network",
        "weights `classifier.bias` were changed",
    ),
    "a mode": (
        after(lambda classifier, _: classifier.network.features.train()),
        "network",
        "`features` was left in training mode",
    ),
    "requires_grad": (
        after(lambda classifier, _: classifier.network.requires_grad_()),
        "network",
        "requires_grad of `features.0.weight`",
    ),
    "a gradient": (after(leave_gradient), "network", "`classifier.bias` was left with a gradient"),
    "a module": (after(leave_guided), "network", "`features.8` was left replaced by a Identity"),
    "a forward": (
        after(lambda classifier, _: setattr(classifier.network.end, "forward", lambda scores: scores)),
        "network",
        "`forward` of `end`",
    ),
    "the gradient mode": (after(lambda *_: torch.set_grad_enabled(False)), "network", "gradient mode"),
    "pictures": (after(lambda _, images: images.clamp_(0, 1)), "inputs", "images were changed"),
    "pictures with a gradient": (after(lambda _, images: images.requires_grad_()), "inputs", "requires_grad"),
    "torch's generator": (after(lambda *_: torch.manual_seed(0)), "rng", "generator of torch was moved"),
    "numpy's generator": (after(lambda *_: np.random.rand()), "rng", "generator of numpy was moved"),  # noqa: NPY002
    "Python's generator": (after(lambda *_: random.random()), "rng", "generator of random was moved"),  # noqa: S311
    "unseeded noise": (maps(noise), "repeatable", "in a second call maps differ by"),
    "state between calls": (Counts(), "repeatable", "in a second call maps differ by"),
    "a map that a tool gave": (fault(in_a_given_map), "repeatable", "in a second call maps differ by"),
    "the batch's maximum": (
        maps(lambda heat, *_: heat / heat.max().clamp_min(1e-9)),
        "batch",
        "when it is explained alone",
    ),
    "batches only": (maps(only_batches), "batch", "it raised ValueError: one picture is no batch"),
    "the pictures' order": (maps(grouped_by_picture), "order", "after shuffling, the entry of picture"),
    "the best class": (fault(of_the_best_class), "targets", "the classes [0, 1] differ by 0 "),
    "upside down": (
        maps(lambda heat, *_: heat.flip(1)),
        "planted",
        "the object of picture 0 is at (4, 8, 28, 32)",
    ),
    "the picture's colours": (maps(of_the_picture), "weights", "with random weights the maps differ by 0 "),
    "division by a maximum": (
        maps(lambda heat, *_: heat / heat.amax((1, 2), keepdim=True)),
        "constant",
        "NaN or infinity for",
    ),
    "a hook where the network raises": (
        fault(hook_without_finally),
        "exception",
        "after the network raised at its end, a hook was left on `features`",
    ),
    "tensors kept": (Keeps("maps"), "memory", "every call left 1.0 tensors alive"),
    "arrays kept": (Keeps("arrays"), "memory", "bytes allocated"),
}
