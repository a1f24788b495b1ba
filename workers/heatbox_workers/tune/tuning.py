"""Tuning labels on corrected pictures: what to change, what that gains on left-out pictures, and the profile."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from heatbox.datasets.examples import Example
from heatbox.fitted import FittedState
from heatbox.models import ModelStore
from heatbox.pipeline import Pipeline, Way
from heatbox.profiles import Profile
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.tune.board import Board
from heatbox_workers.tune.candidates import Candidate, Choice
from heatbox_workers.tune.choosing import (
    Held,
    Question,
    best_of_explainer,
    choose,
    cross_validate,
    measure,
    worthwhile,
)
from heatbox_workers.tune.seeing import Seen
from heatbox_workers.tune.values import LabelGain, Progress, Tried, Tuned, TuneOptions, expected
from heatbox_workers.tune.work import Work, examples_of, prepare, see

__all__ = ["tune"]


def tune(  # noqa: PLR0913, PLR0917 - the three that there are, pictures, and how
    classifier: TorchClassifier,
    store: ModelStore,
    base_pipeline: Pipeline,
    examples: Sequence[Example],
    options: TuneOptions | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Tuned:
    """Choose explainer, layer, fitter, threshold and least probability for each label.

    A label changes only where cross-validation says that it gains. The gain that is told is that of the left-out folds.
    The self-check (`min_mask_iou`, `min_crop_probability`) is left aside, before and after.

    Args:
        classifier: the pipeline's model, as registered.
        store: holds it; states of explainers are read from it, and where `options.publish` says so kept in it.
        base_pipeline: the present way; its labels are those of its label map.
        examples: corrected pictures; those in which nobody looked for boxes are left aside.
        options: how to tune.
        progress: told what is done.

    Raises:
        TuningError: no label has enough pictures with boxes.
        UnsupportedError: the pipeline's explainer finds what is no class of the model.
    """
    began, options = time.monotonic(), options or TuneOptions()
    work = prepare(classifier, store, base_pipeline, examples, options)
    seen = see(work, progress)
    tuned = _decide(work, seen, progress)
    return replace(tuned, seconds=time.monotonic() - began)


def _decide(work: Work, seen: Seen, progress: Progress) -> Tuned:
    """Ask for each label by itself; those that have too few pictures for that, or gain nothing, are asked together."""
    board = Board(work.pictures, seen, work.pipeline.normalisation, always=work.asked)
    asked = [_question(work, seen, board, (label,)) for label in work.labels]
    found: dict[str, tuple[Choice, Held]] = {}
    for step, question in enumerate(asked):
        progress("fitting boxes", step, len(asked) + 1)
        found |= _answer(work, question)
    left = [label for label in work.counts if label not in found]
    for labels in _alike(work, left):
        together = _question(work, seen, board, labels)
        if len(labels) > 1 and _pictures(board, labels) >= work.options.least_pictures:
            found |= _answer(work, together)
    progress("fitting boxes", len(asked) + 1, len(asked) + 1)
    gains = [_gain(work, board, label, found) for label in work.counts]
    held = [
        found[label][1] if label in found else _unchanged(work, board, label)
        for label in work.counts
        if label in found or label in work.labels
    ] or [_unchanged(work, board, label) for label in work.counts]
    overall = measure(held, work.options.seed)[0]
    profile = _profile(work, seen, {label: choice for label, (choice, _) in found.items()})
    profile = replace(profile, expected=expected(overall, tuple(gains), len(work.pictures)))
    failed = [
        f"{work.candidates[one].name} was not tried: {why.sentence}" for one, why in seen.broken.items()
    ]
    tried = [row for question in asked for row in _tried(question, work.candidates)]
    return Tuned(profile, overall, tuple(gains), tuple(tried), len(work.pictures), (*work.notes, *failed))


def _answer(work: Work, question: Question) -> dict[str, tuple[Choice, Held]]:
    """Return what the labels of a question get and what that is worth on left-out pictures; nothing for no gain."""
    left = worthwhile(cross_validate(question), work.options.seed)
    if not left:
        return {}
    best = choose(question, np.ones(len(work.pictures), dtype=bool))
    return {} if best == question.present else {label: (best, one) for label, one in left.items()}


def _alike(work: Work, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of labels that have the same now and may get the same."""
    groups: dict[tuple[Choice, bool, bool], list[str]] = {}
    for label in labels:
        options = work.options
        key = work.present[label], label in options.keep_thresholds, label in options.keep_probabilities
        groups.setdefault(key, []).append(label)
    return [tuple(group) for group in groups.values()]


def _pictures(board: Board, labels: Sequence[str]) -> int:
    """Return how many pictures have boxes of one of the labels."""
    return int(np.any([board.truths(label) > 0 for label in labels], axis=0).sum())


def _unchanged(work: Work, board: Board, label: str) -> Held:
    parts = board.parts(label, work.present[label])
    return Held(parts, parts)


def _gain(work: Work, board: Board, label: str, found: Mapping[str, tuple[Choice, Held]]) -> LabelGain:
    count = work.counts[label]
    if label in found:
        choice, held = found[label]
        return LabelGain(label, count, measure([held], work.options.seed)[0], _in_words(work, choice))
    if label not in work.labels:
        return LabelGain(
            label, count, reason=f"fewer than {work.options.least_pictures} pictures have boxes of it"
        )
    measured = measure([_unchanged(work, board, label)], work.options.seed)[0]
    return LabelGain(label, count, measured, reason="nothing was better on left-out pictures")


def _question(work: Work, seen: Seen, board: Board, labels: tuple[str, ...]) -> Question:
    left_out = seen.doubles | seen.broken.keys()
    usable = {number: one for number, one in enumerate(work.candidates) if number not in left_out}
    return Question(
        board,
        labels,
        work.present[labels[0]],
        usable,
        ways=work.options.ways and labels[0] not in work.options.keep_thresholds,
        probabilities=work.options.probabilities
        and not work.asked
        and labels[0] not in work.options.keep_probabilities,
    )


def _tried(question: Question, candidates: Sequence[Candidate]) -> Iterable[Tried]:
    """Return the best of each explainer on all pictures, the best first."""
    every = np.ones(len(question.board.pictures), dtype=bool)
    numbers = question.candidates if question.ways else [question.present.explainer]
    rows = [
        Tried(
            question.labels[0],
            candidates[number].name,
            _fitting_words(best),
            round(value, 4),
            number == question.present.explainer,
        )
        for number in numbers
        for best, value in [best_of_explainer(question, number, every)]
    ]
    return sorted(rows, key=lambda row: -row.quality)


def _in_words(work: Work, choice: Choice) -> str:
    return f"{work.candidates[choice.explainer].name}, {_fitting_words(choice)}"


def _fitting_words(choice: Choice) -> str:
    threshold = choice.fitting.threshold
    above = "" if threshold is None else f"{choice.fitting.fitter} above {threshold:g}, "
    return f"{above}from probability {choice.min_probability:g}"


def _profile(work: Work, seen: Seen, chosen: Mapping[str, Choice]) -> Profile:
    """Return the profile: what labels had of their own and what they get now."""
    ways = dict(work.pipeline.label_ways)
    kept = work.options.keep_probabilities
    limits = {label: limit for label, limit in work.pipeline.label_min_probabilities if label not in kept}
    states: dict[int, FittedState] = {}
    for label, choice in chosen.items():
        present = work.present[label]
        if (choice.explainer, choice.fitting) != (present.explainer, present.fitting):
            ways[label] = _way(work, seen, choice, states)
        if choice.min_probability != present.min_probability:
            limits[label] = choice.min_probability
    card = work.classifier.card
    return Profile(
        work.options.name,
        card.id,
        card.architecture,
        tuple(sorted(ways.items(), key=lambda pair: pair[0])),
        tuple(sorted(limits.items())),
    )


def _way(work: Work, seen: Seen, choice: Choice, states: dict[int, FittedState]) -> Way:
    candidate = work.candidates[choice.explainer]
    way = replace(candidate.way, fitter=choice.fitting.fitter, fitter_options=dict(choice.fitting.options))
    if not candidate.learns or not work.options.publish:
        return way
    if choice.explainer not in states:
        states[choice.explainer] = fit_explainer(
            work.store,
            work.classifier,
            way.explainer,
            candidate.ready.explainer,
            replace(examples_of(work, seen), is_final=True),
        )
    state = states[choice.explainer]
    return replace(way, explainer_options=dict(state.options), state=state.id)
