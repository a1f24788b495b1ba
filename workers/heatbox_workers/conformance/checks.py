"""The checks of the conformance kit: each returns what came where its rule is broken, or None.

A check meets an explainer and a bench. It works on a fresh copy of the bench's network, so that damage done in one is
not seen by the next. What a check raises is what the explainer raised: `check_explainer` turns it into words.
"""

import dataclasses
from contextlib import suppress

import torch
from torch import Tensor

from heatbox.contract import Evidence, Explainer
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.conformance.bench import Bench, Tripwire, randomised
from heatbox_workers.conformance.heat import difference, finite, inside_and_outside, rows_of, stretched
from heatbox_workers.conformance.memory import kept_per_call
from heatbox_workers.conformance.state import left_in_network, left_in_rng, network_state, rng_state
from heatbox_workers.evidence import raise_for_evidence

__all__ = [
    "batch",
    "constant",
    "evidence",
    "exception",
    "finite_values",
    "fits",
    "frozen",
    "inputs",
    "memory",
    "network",
    "order",
    "planted",
    "refusal",
    "repeatable",
    "rng",
    "runs",
    "supports",
    "targets",
    "weights",
]

SAME = 1e-5  # the same call again
CLOSE = 1e-3  # the same answer from a batch of another size: convolutions sum in another order
DIFFERENT = 1e-2
CLEARLY = 1.5  # heat inside the object to heat outside it


def frozen(explainer: Explainer, _bench: Bench) -> str | None:
    """Options are the fields of a frozen dataclass."""
    name = type(explainer).__name__
    if not dataclasses.is_dataclass(explainer):
        return f"{name} is no dataclass"
    return None if explainer.__dataclass_params__.frozen else f"{name} is a dataclass that can be changed"


def refusal(explainer: Explainer, bench: Bench) -> object:
    """Return what `supports` says of a bench's network; None: it is supported."""
    asked = getattr(explainer, "supports", None)
    return None if asked is None else asked(bench.fresh())


def supports(explainer: Explainer, bench: Bench) -> str | None:
    """A network is supported, or the reason is given in words."""
    said = refusal(explainer, bench)
    return None if said is None or (isinstance(said, str) and said.strip()) else f"{said!r}"


def fits(explainer: Explainer, bench: Bench) -> str | None:
    """What is learnt is tensors, repeatable, and learning damages nothing."""
    if not hasattr(explainer, "fit"):
        return None
    classifier = bench.fresh()
    before, generators = network_state(classifier.network), rng_state()
    first = bench.learnt(explainer, classifier)
    left = left_in_network(before, network_state(classifier.network)) or left_in_rng(generators, rng_state())
    if left:
        return left
    again = bench.learnt(explainer, bench.fresh())
    changed = [name for name, value in first.items() if not torch.equal(value, again[name])]
    return (
        f"learning again from the same examples gave other values of {', '.join(changed)}"
        if changed
        else None
    )


def runs(explainer: Explainer, bench: Bench) -> str | None:
    """A batch is explained without an error."""
    explainer(bench.fresh(), *bench.question())
    return None


def evidence(explainer: Explainer, bench: Bench) -> str | None:
    """Kind, shape and type of what comes back."""
    _explain(explainer, bench.fresh(), *bench.question())
    return None


def finite_values(explainer: Explainer, bench: Bench) -> str | None:
    """No NaN, no infinity."""
    rows = _rows(explainer, bench.fresh(), *bench.question())
    wrong = [index for index, row in enumerate(rows) if not finite(row)]
    return f"NaN or infinity in the entries {wrong} of {len(rows)}" if wrong else None


def network(explainer: Explainer, bench: Bench) -> str | None:
    """The network is left as it was found."""
    classifier = bench.fresh()
    before = network_state(classifier.network)
    explainer(classifier, *bench.question())
    return left_in_network(before, network_state(classifier.network))


def inputs(explainer: Explainer, bench: Bench) -> str | None:
    """Pictures and targets are not written to."""
    images, targets = bench.question()
    explainer(bench.fresh(), images, targets)
    if not (torch.equal(images, bench.images) and torch.equal(targets, bench.targets)):
        return f"{'targets' if torch.equal(images, bench.images) else 'images'} were changed in place"
    return "images were left with requires_grad or .grad" if images.requires_grad else None


def rng(explainer: Explainer, bench: Bench) -> str | None:
    """The random generators that everybody shares are not touched."""
    before = rng_state()
    explainer(bench.fresh(), *bench.question())
    return left_in_rng(before, rng_state())


def repeatable(explainer: Explainer, bench: Bench) -> str | None:
    """The same question has the same answer, also from the forward pass that was made to choose the classes."""
    images, targets = bench.question()
    seen = bench.fresh().seen(images)
    first = _rows(explainer, seen, images, targets)
    first = [row.clone() for row in first]  # it may hand out a view of what it writes to in the second call
    for words, classifier in (("in a second call", seen), ("without the pass already made", bench.fresh())):
        came = difference(first, _rows(explainer, classifier, images, targets))
        if came > SAME:
            return f"{words} maps differ by {came:.2g} of their maximum"
    return None


def batch(explainer: Explainer, bench: Bench) -> str | None:
    """A picture's evidence does not depend on its company."""
    classifier = bench.fresh()
    together = _rows(explainer, classifier, *bench.question())
    for row, (image, target) in enumerate(bench.targets.tolist()):
        alone = _rows(explainer, classifier, bench.images[[image]], torch.tensor([[0, target]]))
        came = difference(together[row : row + 1], alone)
        if came > CLOSE:
            return (
                f"target {row} of the batch differs by {came:.2g} of its maximum when it is explained alone"
            )
    return None


def order(explainer: Explainer, bench: Bench) -> str | None:
    """Entry i of the evidence belongs to row i of the targets, in whatever order pictures and rows come."""
    plain = _rows(explainer, bench.fresh(), *bench.question())
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randperm(len(bench.images), generator=generator)
    rows = torch.randperm(len(bench.targets), generator=generator)
    targets = bench.targets[rows].clone()
    targets[:, 0] = pictures.argsort()[targets[:, 0]]
    shuffled = _rows(explainer, bench.fresh(), bench.images[pictures], targets)
    for index, row in enumerate(rows.tolist()):
        came = difference(plain[row : row + 1], shuffled[index : index + 1])
        if came > CLOSE:
            return (
                f"after shuffling, the entry of picture {bench.targets[row, 0]} and class "
                f"{bench.targets[row, 1]} differs by {came:.2g} of its maximum"
            )
    return None


def targets(explainer: Explainer, bench: Bench) -> str | None:
    """Two classes of one picture have two maps."""
    rows = _rows(explainer, bench.fresh(), *bench.question())
    first, second = bench.pair
    came = difference([stretched(rows[first])], [stretched(rows[second])])
    classes = bench.targets[[first, second], 1].tolist()
    return (
        None
        if came > DIFFERENT
        else f"the maps of the classes {classes} differ by {came:.2g} of their maximum"
    )


def planted(explainer: Explainer, bench: Bench) -> str | None:
    """The heat is where the object is."""
    found = _explain(explainer, bench.fresh(), *bench.question())
    for index, place in enumerate(bench.places):
        inside, outside = inside_and_outside(found, index, place, bench.classifier.input_size)
        if not inside > CLEARLY * outside:
            return (
                f"the object of picture {index} is at {place}; the mean heat inside is {inside:.3f}, "
                f"outside {outside:.3f} (of a map from 0 to 1)"
            )
    return None


def weights(explainer: Explainer, bench: Bench) -> str | None:
    """Another network has another explanation (the sanity check of https://arxiv.org/abs/1810.03292)."""
    rows = _rows(explainer, bench.fresh(), *bench.question())
    other = _rows(explainer, randomised(bench.classifier), *bench.question())
    came = max(
        difference([stretched(row)], [stretched(changed)]) for row, changed in zip(rows, other, strict=True)
    )
    return None if came > DIFFERENT else f"with random weights the maps differ by {came:.2g} of their maximum"


def constant(explainer: Explainer, bench: Bench) -> str | None:
    """Nothing to see, and classes that are not there, are no reason for NaN."""
    classes = len(bench.classifier.labels)
    every = torch.cartesian_prod(torch.arange(2), torch.arange(classes))
    black, even = torch.zeros_like(bench.images[:1]), torch.full_like(bench.images[:1], 0.5)
    for name, images in (
        ("a constant picture", torch.cat([black, even])),
        ("absent classes", bench.question()[0][:2]),
    ):
        rows = _rows(explainer, bench.fresh(), images, every.clone())
        if not all(finite(row) for row in rows):
            return f"NaN or infinity for {name}"
    return None


def exception(explainer: Explainer, bench: Bench) -> str | None:
    """A network that raises is left as it was found too."""
    wrong = torch.zeros(1, 4, *bench.images.shape[2:])
    for name, images, armed in (("at its end", bench.images, True), ("at its first layer", wrong, False)):
        classifier = bench.fresh()
        for module in classifier.network.modules():
            if isinstance(module, Tripwire):
                module.armed = armed
        before, generators = network_state(classifier.network), rng_state()
        with suppress(Exception):  # that it raises is what was asked for
            explainer(classifier, images.clone(), torch.tensor([[0, 0]]))
        came = left_in_network(before, network_state(classifier.network)) or left_in_rng(
            generators, rng_state()
        )
        if came:
            return f"after the network raised {name}, {came}"
    return None


def memory(explainer: Explainer, bench: Bench) -> str | None:
    """Calls leave nothing behind."""
    classifier, generator = bench.fresh(), torch.Generator().manual_seed(4)

    def call() -> None:
        images = torch.randn(bench.images.shape, generator=generator)
        explainer(classifier, images, bench.targets.clone())

    return kept_per_call(call)


def _explain(explainer: Explainer, classifier: TorchClassifier, images: Tensor, targets: Tensor) -> Evidence:
    """Explain a batch and return the evidence when its kinds, shapes and types are those of the contract."""
    return raise_for_evidence(explainer(classifier, images, targets), len(targets), classifier.input_size)


def _rows(explainer: Explainer, classifier: TorchClassifier, images: Tensor, targets: Tensor) -> list[Tensor]:
    """Return the evidence as one tensor per target."""
    return rows_of(_explain(explainer, classifier, images, targets))
