"""One training from its order to its result: pictures, network, learning, what explainers learn, the comparison.

Every stage is cheap to repeat: features and checkpoints are on disk, and a model that is registered twice is one.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heatbox.datasets.examples import Example, RejectedExample, for_comparison
from heatbox.errors import HeatboxError, NotFittedError, PictureError, TooLittleError, UnsupportedError
from heatbox.fitted import find_state
from heatbox.models import Card, ModelStore
from heatbox.pictures.fetching import Fetcher
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, pipeline_for
from heatbox.plugins import make_explainer
from heatbox.remote_store import open_store
from heatbox.settings import Settings
from heatbox.trainings.order import TrainingOrder
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.examples import ExampleBatches
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.training.checkpoint import forget
from heatbox_workers.training.contest import Measured, is_better, measure, pipeline_of
from heatbox_workers.training.cut import Behind, find_cut
from heatbox_workers.training.kept_features import KeptFeatures, Shown, trim
from heatbox_workers.training.learning import Epoch, Learner
from heatbox_workers.training.material import Material, as_labelled, choose_head, class_names, gather, held
from heatbox_workers.training.transfer import Transferred, transfer
from heatbox_workers.training.variants import VARIANTS

__all__ = ["run_training"]

Tell = Callable[[dict[str, Any]], None]

_HELD = "pictures"


def run_training(order: TrainingOrder, settings: Settings, folder: Path, tell: Tell) -> dict[str, Any]:
    """Train, register the new model and compare it with the champion.

    Args:
        order: what is to be learnt.
        settings: name the model store, and where pictures and features are.
        folder: of this training's checkpoints; the same order in the same folder goes on where it was.
        tell: told how far it is: {"stage", "done", "total"} or {"stage", "epoch", "epochs", "loss", "val_error"}.

    Returns:
        JSON-ready {"model": "name@version", "better", "comparison", "pictures", "rejected", "unlearnt", "states",
        "untaught", "epochs", "seconds"}: `pictures` counts those that are used, `unlearnt` are the classes that
        nothing to learn from shows. Where the two cannot be compared, `comparison` says why and `better` is false.

    Raises:
        HeatboxError: nothing can be learnt, with the reason.
    """
    with closing(Fetcher(settings)) as fetcher:
        return _Training(order, settings, folder, tell, fetcher).run()


@dataclass
class _Training:
    order: TrainingOrder
    settings: Settings
    folder: Path
    tell: Tell
    fetcher: Fetcher
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        store = open_store(self.settings)
        base = load_classifier(store, store.find(self.order.base))
        with self._timed("pictures"):
            material = self._material(base)
        options = self.order.options
        head = choose_head(options.head, base.card, material)
        transferred = transfer(
            base, self.order.name, material.classes, dict(self.order.class_of), head, options.seed
        )
        with self._timed("features"):
            behind = find_cut(transferred, options.unfreeze)
            features = self._features(base, behind.layer)
            shown = self._prepared(features, material, material.usable(head))
        with self._timed("training"):
            epoch = self._learn(transferred, behind, features, shown)
        card = self._registered(store, transferred, shown)
        challenger = load_classifier(store, card)
        with self._timed("explainers"):
            states, untaught = self._taught(store, challenger, material)
        with self._timed("comparison"):
            comparison, better = self._compared(store, challenger, material)
        forget(self.folder)
        shutil.rmtree(self.folder / _HELD, ignore_errors=True)
        return {
            "model": card.id,
            "better": better,
            "comparison": comparison,
            "pictures": {
                "train": len(_of(shown, "train")),
                "val": len(_of(shown, "val")),
                "test": len(material.of("test")),
            },
            "rejected": [asdict(one) for one in material.rejected],
            "unlearnt": _unlearnt(material.classes, _of(shown, "train")),
            "states": states,
            "untaught": untaught,
            "epochs": {"done": epoch.number, "best": epoch.best},
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }

    def _material(self, base: TorchClassifier) -> Material:
        order = self.order
        classes = order.labels or (class_names(order.data) if order.data else base.labels)
        count = 0

        def hold(example: Example) -> Example:
            nonlocal count
            count += 1
            self.tell({"stage": "reading pictures", "done": count})
            fetched = example.path.is_relative_to(self.settings.home)
            return held(example, self.folder / _HELD) if fetched else example

        return gather(order, classes, self.fetcher.fetch, Limits.from_settings(self.settings), hold)

    def _features(self, base: TorchClassifier, cut: str) -> KeptFeatures:
        folder = self.settings.home / "features"
        variants = VARIANTS if self.order.options.augment else 1
        features = KeptFeatures(folder, base, cut, variants, Limits.from_settings(self.settings))
        trim(folder)  # what this training uses is the newest now
        return features

    def _prepared(
        self, features: KeptFeatures, material: Material, examples: Sequence[Example]
    ) -> list[Shown]:
        shown = []
        for number, example in enumerate(examples, start=1):
            try:
                shown.append(features.prepare(example))
            except PictureError as error:  # gone since it was looked at
                material.rejected.append(
                    RejectedExample(example.name, error.code, error.sentence, example.task)
                )
            self.tell({"stage": "computing features", "done": number, "total": len(examples)})
        return shown

    def _learn(
        self, transferred: Transferred, behind: Behind, features: KeptFeatures, shown: Sequence[Shown]
    ) -> Epoch:
        training = _of(shown, "train")
        if not training:
            raise TooLittleError(
                f"No picture is left that a {transferred.card.head} head can learn from.",
                "It needs pictures of one label each; with --head sigmoid any number will do.",
            )
        content = [self.order.as_dict(), [_known(one.example) for one in shown]]
        identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        learner = Learner(transferred, behind, features, self.order.options, identity, self.folder)
        return learner.learn(training, _of(shown, "val"), self._tell_epoch)

    def _tell_epoch(self, epoch: Epoch) -> None:
        told: dict[str, Any] = {
            "stage": "training",
            "epoch": epoch.number,
            "epochs": epoch.total,
            "loss": epoch.loss,
        }
        self.tell(told if epoch.validation is None else {**told, "val_error": epoch.validation})

    def _registered(self, store: ModelStore, transferred: Transferred, shown: Sequence[Shown]) -> Card:
        training = _of(shown, "train")
        boxed = sum(one.example.boxes is not None for one in training)
        source = f"trained from {self.order.base} on {len(training)} pictures, {boxed} of them with boxes"
        card = transferred.card.model_copy(update={"trained_from": self.order.base, "source": source})
        return register(store, card, transferred.network.state_dict())

    def _taught(
        self, store: ModelStore, challenger: TorchClassifier, material: Material
    ) -> tuple[list[str], list[str]]:
        """Let explainers learn about the new model; return what they learnt, and why others did not."""
        states, untaught = [], []
        base = store.find(self.order.champion or self.order.base)
        for name in self.order.fit:
            self.tell({"stage": f"fitting {name}"})
            before = find_state(store, base, name)
            pictures = [as_labelled(one, material.classes) for one in material.of("train")]
            examples = ExampleBatches(pictures, challenger, Limits.from_settings(self.settings))
            try:
                made = make_explainer(name, dict(before.options) if before else {})
                states.append(f"{name}.{fit_explainer(store, challenger, name, made, examples).id}")
            except (NotFittedError, UnsupportedError) as error:
                untaught.append(f"{name}: {error.sentence}")
        return states, untaught

    def _compared(
        self, store: ModelStore, challenger: TorchClassifier, material: Material
    ) -> tuple[dict[str, Any], bool]:
        """Measure both on pictures that neither has learnt from."""
        compared = for_comparison(material.examples)
        ours = theirs = None
        reason = ""
        try:
            ours, theirs = self._both(store, challenger, material, compared)
        except HeatboxError as error:  # an explainer without its state, say; the model is there all the same
            reason = f"They cannot be compared: {error.sentence} {error.remedy or ''}".strip()
        comparison = {
            "pictures": len(compared),
            "challenger": ours and ours.as_dict(),
            "champion": theirs and theirs.as_dict(),
            "reason": reason,
        }
        return comparison, ours is not None and is_better(ours, theirs)

    def _both(
        self,
        store: ModelStore,
        challenger: TorchClassifier,
        material: Material,
        compared: Sequence[Example],
    ) -> tuple[Measured, Measured | None]:
        card = store.find(self.order.champion or self.order.base)
        pipeline = Pipeline.from_dict(self.order.pipeline) if self.order.pipeline else pipeline_for(card)
        own = pipeline_of(pipeline, challenger.card, store, material.classes)
        ours = self._measured(challenger, own, store, compared)
        if not self.order.champion:
            return ours, None
        if pipeline.model != card.id:
            pipeline = pipeline_of(pipeline, card, store, card.labels)
        return ours, self._measured(load_classifier(store, card), pipeline, store, compared)

    def _measured(
        self, classifier: TorchClassifier, pipeline: Pipeline, store: ModelStore, examples: Sequence[Example]
    ) -> Measured:
        count = 0

        def tell() -> None:
            nonlocal count
            count += 1
            self.tell({"stage": f"measuring {classifier.card.id}", "done": count, "total": len(examples)})

        return measure(classifier, pipeline, store, examples, Limits.from_settings(self.settings), tell)

    def _timed(self, stage: str) -> "_Stopwatch":
        return _Stopwatch(self.seconds, stage)


@dataclass
class _Stopwatch:
    seconds: dict[str, float]
    stage: str
    began: float = 0.0

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.stage] = time.perf_counter() - self.began


def _of(shown: Sequence[Shown], split: str) -> list[Shown]:
    return [one for one in shown if one.example.split == split]


def _known(example: Example) -> list[Any]:
    """Return all of an example that is learnt, JSON-ready."""
    boxes = [[one.label, one.box.as_xyxy()] for one in example.boxes or ()]
    return [example.sha256, example.labels, example.boxes is None, boxes]


def _unlearnt(classes: Sequence[str], training: Sequence[Shown]) -> list[str]:
    """Return the classes that no picture shows."""
    shown = {label for one in training for label in one.example.labels}
    return [name for name in classes if name not in shown]
