"""The rules of the plugin contract: what is expected, how it is checked, how to mend it, and what must hold before.

A rule is judged only when the rules it needs are kept: where the same call gives two answers, a comparison of a batch
with its pictures says nothing. So one fault is told once, by the rule that it breaks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from heatbox.contract import Explainer
from heatbox_workers.conformance import checks
from heatbox_workers.conformance.bench import Bench

__all__ = ["FITS", "RULES", "SUPPORTS", "Rule"]


@dataclass(frozen=True)
class Rule:
    """A rule of the contract.

    Attributes:
        id: its name in tables and messages.
        expected: what the contract wants, a sentence without its full stop.
        remedy: how to mend it.
        check: returns what came where the rule is broken, or None.
        needs: rules without which this one cannot be judged.
        per_class: an explainer that is class-agnostic need not keep it.
        once: one network is enough.
    """

    id: str
    expected: str
    remedy: str
    check: Callable[[Explainer, Bench], str | None]
    needs: tuple[str, ...] = ("supports",)
    per_class: bool = False
    once: bool = False


SUPPORTS, FITS = "supports", "fits"
_SOUND = ("finite", "network", "inputs")
_COMPARED = (*_SOUND, "repeatable")

RULES = (
    Rule(
        "frozen",
        "An explainer is a frozen dataclass, its fields are its options",
        "Decorate the class with @dataclass(frozen=True).",
        checks.frozen,
        needs=(),
    ),
    Rule(
        SUPPORTS,
        "`supports` returns None or the reason in words, and one of the kit's networks is supported",
        "Return None for a network that can be explained. For special networks give check_explainer benches of "
        "your own.",
        checks.supports,
        needs=(),
    ),
    Rule(
        FITS,
        "`fit`, where there is one, returns finite tensors by name, the same from the same examples, and leaves the "
        "network and the random generators as they were found",
        "Return a dict of tensors; seed your own generators; use the classifier's tools, which clean up.",
        checks.fits,
    ),
    Rule(
        "runs",
        "explainer(classifier, images, targets) explains a batch without an error",
        "Take these three arguments; images are (N, 3, H, W), targets are rows of (image index, class index).",
        checks.runs,
        needs=(SUPPORTS, FITS),
    ),
    Rule(
        "evidence",
        "Evidence with one entry per target: heatmaps (M, h, w) float32, masks (M, H, W) bool, or boxes with scores",
        "Index pictures by targets[:, 0] and classes by targets[:, 1]; return Evidence(heatmaps=maps.float()).",
        checks.evidence,
        needs=("runs",),
    ),
    Rule(
        "finite",
        "Every value is finite",
        "Look for a division by zero, a logarithm or a square root; add a small constant or use clamp_min.",
        checks.finite_values,
        needs=("evidence",),
    ),
    Rule(
        "network",
        "The network is left as it was found: weights, mode, requires_grad, gradients, hooks, modules",
        "Use the classifier's tools, which clean up, or remove your hooks in a `finally`; never call .train(), "
        ".backward() or an operation that ends in _ on the network.",
        checks.network,
        needs=("runs",),
    ),
    Rule(
        "inputs",
        "Images and targets are only read",
        "Work on images.clone(), or images.detach().clone().requires_grad_() where you need their gradient.",
        checks.inputs,
        needs=("runs",),
    ),
    Rule(
        "rng",
        "The random generators of torch, numpy and random are not touched",
        "Make your own: torch.Generator().manual_seed(self.seed), and pass it as generator=.",
        checks.rng,
        needs=("runs",),
    ),
    Rule(
        "repeatable",
        "The same call has the same answer, also from the forward pass that was already made",
        "Seed your generator in the call, keep no state between calls, and change no map that a tool gave you.",
        checks.repeatable,
        needs=_SOUND,
    ),
    Rule(
        "batch",
        "A picture has the same evidence alone and in a batch",
        "Normalise per target, never over the batch, and draw the same random numbers for every picture.",
        checks.batch,
        needs=_COMPARED,
    ),
    Rule(
        "order",
        "Entry i of the evidence belongs to row i of the targets, in whatever order they come",
        "Do not sort or group the targets, or bring the evidence back into their order.",
        checks.order,
        needs=_COMPARED,
    ),
    Rule(
        "targets",
        "Two classes of one picture have two maps",
        "Explain the class of targets[:, 1]. Where the method knows no class, say so: "
        "class_agnostic: ClassVar[bool] = True.",
        checks.targets,
        needs=_COMPARED,
        per_class=True,
    ),
    Rule(
        "planted",
        "The mean heat inside a planted object is clearly above that outside (1.5 times)",
        "Look at the map: is it upside down or transposed, is its sign right, is it the map of the wrong picture?",
        checks.planted,
        needs=_COMPARED,
    ),
    Rule(
        "weights",
        "Random weights change the map",
        "A map that does not depend on the network shows the picture, not the decision: use maps or gradients.",
        checks.weights,
        needs=_COMPARED,
    ),
    Rule(
        "constant",
        "Values stay finite for a constant picture and for classes that are not in the picture",
        "A map may be zero everywhere: divide by map.amax(...).clamp_min(1e-12).",
        checks.constant,
        needs=("finite", "network"),
    ),
    Rule(
        "exception",
        "The network and the generators are left as they were found also when the network raises",
        "Undo your changes in a `finally` or in a context manager.",
        checks.exception,
        needs=("network", "rng"),
    ),
    Rule(
        "memory",
        "Calls leave nothing in memory",
        "Keep no results in fields, module variables or caches without a limit; .detach() what you must keep.",
        checks.memory,
        needs=("network",),
        once=True,
    ),
)
"""In the order in which they are judged; a rule needs only rules before it."""
