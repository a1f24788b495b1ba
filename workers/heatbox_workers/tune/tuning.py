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
    board = Board(work.pictures, seen, work.pipeline.normalisation, always=work.asked)
    every = np.ones(len(work.pictures), dtype=bool)
    gains: list[LabelGain] = []
    held: list[Held] = []
    tried: list[Tried] = []
    chosen: dict[str, Choice] = {}
    for step, (label, count) in enumerate(work.counts.items()):
        progress("fitting boxes", step, len(work.counts))
        question = _question(work, seen, board, label)
        if label not in work.labels:
            reason = f"fewer than {work.options.least_pictures} pictures have boxes of it"
            gains.append(LabelGain(label, count, reason=reason))
            continue
        parts = cross_validate(question)
        measured, is_sure = measure([parts], work.options.seed)
        best = choose(question, every) if is_sure else question.present
        tried += _tried(question, work.candidates)
        if best == question.present:
            reason = "nothing was better on left-out pictures"
            kept = Held(parts.before, parts.before)
            held.append(kept)
            gains.append(LabelGain(label, count, measure([kept], work.options.seed)[0], reason=reason))
            continue
        chosen[label] = best
        held.append(parts)
        gains.append(LabelGain(label, count, measured, _in_words(work, best)))
    progress("fitting boxes", len(work.counts), len(work.counts))
    overall = measure(held, work.options.seed)[0]
    profile = _profile(work, seen, chosen)
    profile = replace(profile, expected=expected(overall, tuple(gains), len(work.pictures)))
    failed = [
        f"{work.candidates[one].name} was not tried: {why.sentence}" for one, why in seen.broken.items()
    ]
    return Tuned(profile, overall, tuple(gains), tuple(tried), len(work.pictures), (*work.notes, *failed))


def _question(work: Work, seen: Seen, board: Board, label: str) -> Question:
    left_out = seen.doubles | seen.broken.keys()
    usable = {number: one for number, one in enumerate(work.candidates) if number not in left_out}
    return Question(
        board,
        label,
        work.present[label],
        usable,
        ways=work.options.ways and label not in work.options.keep_thresholds,
        probabilities=work.options.probabilities
        and not work.asked
        and label not in work.options.keep_probabilities,
    )


def _tried(question: Question, candidates: Sequence[Candidate]) -> Iterable[Tried]:
    """Return the best of each explainer on all pictures, the best first."""
    every = np.ones(len(question.board.pictures), dtype=bool)
    numbers = question.candidates if question.ways else [question.present.explainer]
    rows = [
        Tried(
            question.label,
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
    """Return the profile: what labels had of their own and what they get now, learnt from all pictures."""
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
            examples_of(work, seen),
        )
    state = states[choice.explainer]
    return replace(way, explainer_options=dict(state.options), state=state.id)
