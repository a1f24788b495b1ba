"""What to label next in a project: its open tasks are measured picture by picture, and `picking` orders them.

doubt = (m + b) / 2, where m is one minus the margin of the two most probable answers of the classifier, and b is one
minus the score of the annotation: of its most doubtful box, or of the finding that there is none.

disagreement = 1 - Q, where Q is `heatbox.metrics.box_quality` of the boxes of two explainers, label by label: 0 where
both draw the same boxes, 1 where none of them meet.

A task with several pictures has the highest doubt and disagreement of any, and the mean of their embeddings.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heatbox.annotation import Annotation
from heatbox.errors import HeatboxError, LabelUnknownError, NotFittedError, UnsupportedError
from heatbox.fitted import find_state
from heatbox.labelling.tags import LabelConfig
from heatbox.ledger import Ledger
from heatbox.metrics import box_quality
from heatbox.models import ModelStore
from heatbox.pictures.images import Limits
from heatbox.pictures.wanted import Wanted
from heatbox.pipeline import Pipeline
from heatbox.plugins import EXPLAINERS, make_explainer
from heatbox.serving import require_plugin, serve_project, serving_model
from heatbox.settings import Settings
from heatbox_workers.annotate import Annotator, make_annotator
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.looking import Look, look_at, shares_of
from heatbox_workers.model_cache import ModelCache
from heatbox_workers.next_up.picking import choose

__all__ = ["BY", "Judge", "Measured", "Place", "disagreement", "make_judge", "order"]

BY: Mapping[str, tuple[str, ...]] = {
    "mixed": ("doubt", "disagreement", "diversity"),
    "doubt": ("doubt",),
    "disagreement": ("disagreement",),
    "diversity": ("diversity",),
}
"""What `--by` may be, and the criteria that it stands for."""

_SECONDS = ("box_regression", "layer_cam", "eigen_cam")  # explainers for a second opinion, the first that can
_NO_LIMIT = 2**62  # bytes: a handful of classifiers that share a network

Outcome = Annotation | HeatboxError


@dataclass(frozen=True, eq=False)
class Measured:
    """A task that was looked at: values in [0, 1] by criterion, and its embedding (D,)."""

    task: int
    values: Mapping[str, float]
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """A task with its place, from 1, and why it has it; diversity is its share of the greatest gain at that moment."""

    task: int
    place: int
    values: Mapping[str, float]


@dataclass
class Judge:
    """What looks at the pictures of tasks.

    Attributes:
        criteria: that count.
        classifier: that looks.
        limits: of the pictures that are read.
        fetch: returns the file of a picture, or raises HeatboxError; called in threads.
        first: the project's own way to boxes; None where neither doubt nor disagreement counts.
        second: another explainer; None where disagreement does not count.
        notes: what a person should read, one sentence each.
        failed: tasks that could not be looked at, and why.
    """

    criteria: tuple[str, ...]
    classifier: TorchClassifier
    limits: Limits
    fetch: Callable[[Wanted], Path]
    first: Annotator | None = None
    second: Annotator | None = None
    notes: tuple[str, ...] = ()
    failed: dict[int, HeatboxError] = field(default_factory=dict)

    def measure(
        self, tasks: Mapping[int, Sequence[Wanted]], told: Callable[[], object] = lambda: None
    ) -> list[Measured]:
        """Return the open tasks of which at least one picture can be used; the others are in `failed`."""
        pictures = [(task, wanted) for task, several in tasks.items() for wanted in several]
        wanted = [one for _, one in pictures]
        boxes = self._boxes(self.first, wanted), self._boxes(self.second, wanted)
        outcomes = zip(self._looks(wanted), *boxes, strict=False)  # who is not asked never ends
        found: dict[int, list[Measured]] = defaultdict(list)
        for (task, _), (look, first, second) in zip(pictures, outcomes, strict=True):
            error = next((one for one in (look, first, second) if isinstance(one, HeatboxError)), None)
            if error is not None:
                self.failed[task] = error
            elif isinstance(look, Look):
                found[task].append(Measured(task, self._values(look, first, second), look.embedding))
            told()
        for task in found:
            self.failed.pop(task, None)
        return [_together(several) for several in found.values()]

    def embed(
        self, pictures: Sequence[Wanted], told: Callable[[], object] = lambda: None
    ) -> NDArray[np.float32] | None:
        """Return the embeddings (M, D) of what people have corrected; what cannot be read is left out."""
        vectors: list[NDArray[np.float32]] = []
        for look in self._looks(pictures):
            vectors += [look.embedding] if isinstance(look, Look) else []
            told()
        return np.stack(vectors) if vectors else None

    def _looks(self, wanted: Iterable[Wanted]) -> Iterator[Look | HeatboxError]:
        return look_at(wanted, self.fetch, self.classifier, self.limits)

    def _boxes(
        self, annotator: Annotator | None, wanted: Iterable[Wanted]
    ) -> Iterator[Outcome] | Iterator[None]:
        return repeat(None) if annotator is None else annotator.annotate_wanted(wanted, self.fetch)

    def _values(self, look: Look, first: object, second: object) -> dict[str, float]:
        values: dict[str, float] = {}
        if self.first is None or not isinstance(first, Annotation):
            return values
        if "doubt" in self.criteria:
            unsure = 1 - first.score
            if not self.first.pipeline.own_label:  # its finds are no classes of the classifier
                shares = shares_of(look.probabilities, self.first.known, self.classifier.card.head)
                unsure = (unsure + shares.doubt) / 2
            values["doubt"] = unsure
        if isinstance(second, Annotation):
            values["disagreement"] = disagreement(first, second)
        return values


def order(
    measured: Sequence[Measured],
    corrected: NDArray[np.float32] | None,
    criteria: Sequence[str],
    limit: int,
    seed: int = 0,
) -> list[Place]:
    """Return the tasks to label next, the first first.

    Args:
        measured: the open tasks.
        corrected: (M, D) embeddings of what people have corrected; None: nothing.
        criteria: that count.
        limit: at most so many.
        seed: see `choose`.
    """
    if not measured:
        return []
    values = {
        name: [one.values[name] for one in measured]
        for name in criteria
        if all(name in one.values for one in measured)
    }
    embeddings = np.stack([one.embedding for one in measured]) if "diversity" in criteria else None
    chosen = choose(values, embeddings, corrected, limit, seed)
    return [
        Place(
            measured[one.index].task,
            place,
            {**measured[one.index].values, **({} if one.gain is None else {"diversity": one.gain})},
        )
        for place, one in enumerate(chosen, 1)
    ]


def disagreement(first: Annotation, second: Annotation) -> float:
    """Return how little the boxes of two annotations of a picture have in common, in [0, 1]."""
    labels = sorted({region.label for one in (first, second) for region in one.regions})
    return 1 - box_quality((_corners(first, label), _corners(second, label)) for label in labels)


def make_judge(  # noqa: PLR0913, PLR0917 - what a project is, and where it is looked up
    settings: Settings,
    store: ModelStore,
    ledger: Ledger,
    config: LabelConfig,
    project: int,
    fetch: Callable[[Wanted], Path],
    *,
    by: str = "mixed",
    against: str | None = None,
) -> Judge:
    """Load what a project is annotated with, and a second explainer.

    Args:
        settings: name model, explainer and fitter where the label config does not.
        store: holds the model.
        ledger: knows the active model.
        config: of the project.
        project: number in Label Studio.
        fetch: returns the file of a picture.
        by: one of `BY`.
        against: explainer for the second opinion; None: the first of three that can.

    Raises:
        LabelUnknownError: the classifier has no class for any label, and only doubt or disagreement counts.
        PluginNotFoundError: no explainer has the name that is given.
        HeatboxError: as `serve_project`, or the second explainer cannot be used.
    """
    if against:
        require_plugin(EXPLAINERS, against)
    criteria, limits = BY[by], Limits.from_settings(settings)
    models = ModelCache(store, _NO_LIMIT)
    try:
        serving = serve_project(settings, store, ledger, config, project=project)
    except LabelUnknownError as error:
        if "diversity" not in criteria:
            raise
        note = f"{error.sentence} So the order is by diversity alone."
        classifier = models.classifier(serving_model(settings, store, ledger).id)
        return Judge(("diversity",), classifier, limits, fetch, notes=() if by == "diversity" else (note,))
    pipeline = serving.pipeline
    judge = Judge(criteria, models.classifier(pipeline.model), limits, fetch)
    if by != "diversity":
        judge.first = _annotator(pipeline, models, limits)
    if "disagreement" in criteria:
        judge.second, reason = _second(pipeline, store, models, limits, against)
        if judge.second is None:
            if by == "disagreement":
                raise UnsupportedError(
                    reason, "Order by doubt or diversity, or name an explainer: --against NAME."
                )
            judge.notes = (f"{reason} So disagreement does not count.",)
    return judge


def _second(
    pipeline: Pipeline, store: ModelStore, models: ModelCache, limits: Limits, against: str | None
) -> tuple[Annotator | None, str]:
    """Return who gives a second opinion, or why nobody does."""
    if pipeline.own_label:
        return None, f"{pipeline.explainer} has a label of its own, which no other explainer finds."
    card = models.classifier(pipeline.model).card
    for name in [against] if against else [one for one in _SECONDS if one != pipeline.explainer]:
        state = find_state(store, card, name) if hasattr(make_explainer(name, {}), "fit") else None
        other = replace(
            pipeline,
            explainer=name,
            explainer_options={} if state is None else state.options,
            state="" if state is None else state.id,
            fitter_options={k: v for k, v in pipeline.fitter_options.items() if k != "threshold"},
            label_thresholds=(),
            label_ways=(),
            calibration=(),
        )
        try:
            return _annotator(other, models, limits), ""
        except (NotFittedError, UnsupportedError):
            if against:
                raise
    return None, f"No second explainer works with {pipeline.model}."


def _annotator(pipeline: Pipeline, models: ModelCache, limits: Limits) -> Annotator:
    classifier = models.classifier(pipeline.model, pipeline.explainer, pipeline.state)
    return make_annotator(pipeline, classifier, limits, models.states(pipeline))


def _together(pictures: Sequence[Measured]) -> Measured:
    values = {name: max(one.values[name] for one in pictures) for name in pictures[0].values}
    embedding = np.stack([one.embedding for one in pictures]).mean(axis=0)
    return Measured(pictures[0].task, values, np.asarray(embedding, dtype=np.float32))


def _corners(annotation: Annotation, label: str) -> NDArray[np.float64]:
    boxes = [region.box.as_xyxy() for region in annotation.regions if region.label == label]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
