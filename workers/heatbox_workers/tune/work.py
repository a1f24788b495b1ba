"""All that a tuning works on, made ready: pictures, present ways, candidates, and what they make of the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from heatbox.datasets.examples import Example
from heatbox.errors import TuningError, UnsupportedError
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import states_of
from heatbox_workers.targets import Target, choose_targets, classes_by_label
from heatbox_workers.tune.candidates import Candidate, Choice, grid, present_choices
from heatbox_workers.tune.choosing import PROBABILITIES
from heatbox_workers.tune.learning import SeenExamples, cross_fit, remembering
from heatbox_workers.tune.seeing import Picture, Seen, doubles, look, read_pictures
from heatbox_workers.tune.values import Progress, TuneOptions

__all__ = ["Work", "examples_of", "prepare", "see"]


@dataclass(frozen=True)
class Work:
    """All that a tuning works on."""

    classifier: TorchClassifier
    store: ModelStore
    pipeline: Pipeline
    options: TuneOptions
    pictures: Sequence[Picture]
    known: Mapping[str, list[int]]
    counts: Mapping[str, int]
    candidates: Sequence[Candidate]
    present: Mapping[str, Choice]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels with enough pictures."""
        least = self.options.least_pictures
        return tuple(label for label, count in self.counts.items() if count >= least)

    @property
    def asked(self) -> bool:
        """Whether labels are explained however improbable they are."""
        return bool(self.pipeline.labels or self.pipeline.labels_from)


def prepare(
    classifier: TorchClassifier,
    store: ModelStore,
    pipeline: Pipeline,
    examples: Sequence[Example],
    options: TuneOptions,
) -> Work:
    """Read the pictures and make everything that is tried; raises as `heatbox_workers.tune.tune` does."""
    if pipeline.own_label:
        raise UnsupportedError(
            f"{pipeline.explainer} finds what is no class of the model, so that no label can have another way.",
            "Choose another explainer for the project.",
        )
    unique = {one.sha256: one for one in examples if one.boxes is not None}
    taken = [unique[key] for key in sorted(unique)][: options.most_pictures]
    pictures, notes = read_pictures(taken, classifier.input_size, options.folds, options.limits)
    known = classes_by_label(pipeline, classifier.labels)
    named = sorted({label for one in pictures for label in one.truths})
    counts = {label: sum(label in one.truths for one in pictures) for label in named if label in known}
    _require_enough(sum(bool(known.keys() & one.truths) for one in pictures), counts, options.least_pictures)
    notes += [f"No class of the model stands for {label}." for label in named if label not in known]
    states = states_of(pipeline, classifier, store)
    owned = replace(classifier, state=states.get(pipeline.state, {}))
    found, present = present_choices(pipeline, owned, states, counts)
    candidates, more = grid(classifier, options.explainers, found) if options.ways else (found, [])
    return Work(
        classifier, store, pipeline, options, pictures, known, counts, candidates, present, (*notes, *more)
    )


def _require_enough(boxed: int, counts: Mapping[str, int], least: int) -> None:
    if boxed >= least:
        return
    there = ", ".join(f"{label} {count}" for label, count in counts.items()) or "none at all"
    raise TuningError(
        f"Fewer than {least} pictures have boxes, which it takes to tell better ways from chance ({there}).",
        "Correct more pictures, and pull the corrections.",
    )


def see(work: Work, progress: Progress) -> Seen:
    """Return what every explainer makes of every target; those that learn, by what they learnt from other folds."""
    done, total = 0, len(work.pictures)

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress("looking at pictures", done, total)

    plain = {number: one.ready for number, one in enumerate(work.candidates) if not one.learns}
    seen = look(work.pictures, work.classifier, plain, lambda row: _rank(work, row), _Want(work), tell)
    learning = {number: one for number, one in enumerate(work.candidates) if one.learns}
    examples = examples_of(work, seen)
    folds, steps = len({one.fold for one in work.pictures}), 0
    for number, one in learning.items():

        def told() -> None:
            nonlocal steps
            steps += 1
            progress("letting explainers learn", steps, folds * len(learning))

        cross_fit(examples, number, one.ready, told)
    _require_present(work, seen)
    seen.doubles |= doubles(seen, sorted(plain))
    return seen


def _require_present(work: Work, seen: Seen) -> None:
    """Raise where an explainer of the present way failed; what others fail with is told."""
    for choice in work.present.values():
        if choice.explainer in seen.broken:
            raise seen.broken[choice.explainer]


def examples_of(work: Work, seen: Seen) -> SeenExamples:
    """Return all pictures as examples of the labels that are tuned, for explainers that learn."""
    return SeenExamples(work.pictures, seen, remembering(work.classifier), frozenset(work.counts))


def _rank(work: Work, row: Tensor) -> list[Target]:
    """Return every label with its most probable class."""
    every = replace(
        work.pipeline, labels=(), min_probability=0.0, label_min_probabilities=(), max_labels=len(work.known)
    )
    return choose_targets(row, work.known, every)


@dataclass(frozen=True)
class _Want:
    """Says which labels are explained in a picture: those that the service might, at the lowest limit that is tried."""

    work: Work

    def __call__(self, ranked: list[Target], picture: Picture) -> list[Target]:
        pipeline, counted = self.work.pipeline, self.work.counts
        if pipeline.labels:
            return [one for one in ranked if one.label in counted]
        if pipeline.labels_from:
            return [one for one in ranked if one.label in counted and one.label in picture.labels]
        likely = ranked[: pipeline.max_labels]
        return [one for one in likely if one.label in counted and one.probability >= self._least(one.label)]

    def _least(self, label: str) -> float:
        present = self.work.present[label].min_probability
        return min(present, *PROBABILITIES) if self.work.options.probabilities else present
