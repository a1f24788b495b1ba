"""One training from its order to its result: pictures, network, learning, what explainers learn, the comparison.

Every stage is cheap to repeat: features and checkpoints are on disk, and a model that is registered twice is one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heatbox.contract import Head
from heatbox.datasets.examples import Example
from heatbox.errors import NotFittedError, TooLittleError, UnsupportedError
from heatbox.fitted import find_state
from heatbox.models import Card, ModelStore
from heatbox.pictures.fetching import Fetcher
from heatbox.pictures.images import Limits
from heatbox.pipeline import Pipeline, pipeline_for
from heatbox.plugins import make_explainer
from heatbox.remote_store import open_store
from heatbox.settings import Settings
from heatbox.trainings.order import HeadWish, TrainingOrder
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.examples import ExampleBatches, Labelled
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.training.checkpoint import forget
from heatbox_workers.training.contest import Measured, is_better, measure, pipeline_of
from heatbox_workers.training.kept_features import KeptFeatures, Shown, trim
from heatbox_workers.training.learning import Epoch, Learner
from heatbox_workers.training.material import Material, class_names, gather
from heatbox_workers.training.transfer import Behind, Transferred, find_cut, transfer
from heatbox_workers.training.variants import VARIANTS

__all__ = ["run_training"]

Tell = Callable[[dict[str, Any]], None]

_FEWEST_HELD_OUT = 10


def run_training(order: TrainingOrder, settings: Settings, folder: Path, tell: Tell) -> dict[str, Any]:
    """Train, register the new model and compare it with the champion.

    Args:
        order: what is to be learnt.
        settings: name the model store, and where pictures and features are.
        folder: of this training's checkpoints; the same order in the same folder goes on where it was.
        tell: told how far it is: {"stage", "done", "total"} or {"stage", "epoch", "epochs", "loss", "val_loss"}.

    Returns:
        JSON-ready {"model": "name@version", "better", "comparison", "pictures", "rejected", "states", "epochs",
        "seconds"}.

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
        head = _head(self.order.options.head, base, material)
        usable = [one for one in material.examples if _is_usable(one, head)]
        transferred = transfer(
            base, self.order.name, material.classes, dict(self.order.class_of), head, self.order.options.seed
        )
        cut = find_cut(transferred, self.order.options.unfreeze)
        features = self._features(base, cut)
        with self._timed("features"):
            shown = self._prepared(features, [one for one in usable if one.split != "test"])
        with self._timed("training"):
            epoch = self._learn(transferred, cut, features, shown, material)
        card = self._registered(store, transferred, material)
        challenger = load_classifier(store, card)
        with self._timed("explainers"):
            states, untaught = self._taught(store, challenger, material)
        with self._timed("comparison"):
            comparison, better = self._compared(store, challenger, material)
        forget(self.folder)
        return {
            "model": card.id,
            "better": better,
            "comparison": comparison,
            "pictures": material.counts,
            "rejected": [asdict(one) for one in material.rejected],
            "states": states,
            "untaught": untaught,
            "epochs": {"done": epoch.number, "best": epoch.best},
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }

    def _material(self, base: TorchClassifier) -> Material:
        order = self.order
        classes = order.labels or (class_names(order.data) if order.data else base.labels)
        count = 0

        def seen(_: Example) -> None:
            nonlocal count
            count += 1
            self.tell({"stage": "reading pictures", "done": count})

        return gather(order, classes, self.fetcher.fetch, Limits.from_settings(self.settings), seen)

    def _features(self, base: TorchClassifier, cut: str) -> KeptFeatures:
        folder = self.settings.home / "features"
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder)
        variants = VARIANTS if self.order.options.augment else 1
        return KeptFeatures(folder, base, cut, variants, Limits.from_settings(self.settings))

    def _prepared(self, features: KeptFeatures, examples: Sequence[Example]) -> list[Shown]:
        shown = []
        for number, example in enumerate(examples, start=1):
            shown.append(features.prepare(example))
            self.tell({"stage": "computing features", "done": number, "total": len(examples)})
        return shown

    def _learn(
        self,
        transferred: Transferred,
        cut: str,
        features: KeptFeatures,
        shown: Sequence[Shown],
        material: Material,
    ) -> Epoch:
        training = [one for one in shown if one.example.split == "train"]
        if not training:
            raise TooLittleError(
                "No picture is left to learn from.", "A softmax head needs pictures with labels."
            )
        behind = Behind(transferred, cut, features.maps([training[0].example], [0]))
        identity = hashlib.sha256(
            json.dumps([self.order.as_dict(), [one.sha256 for one in material.examples]]).encode()
        ).hexdigest()
        learner = Learner(transferred, behind, features, self.order.options, identity, self.folder)
        return learner.learn(training, [one for one in shown if one.example.split == "val"], self._tell_epoch)

    def _tell_epoch(self, epoch: Epoch) -> None:
        told: dict[str, Any] = {
            "stage": "training",
            "epoch": epoch.number,
            "epochs": epoch.total,
            "loss": epoch.loss,
        }
        self.tell(told if epoch.validation is None else {**told, "val_loss": epoch.validation})

    def _registered(self, store: ModelStore, transferred: Transferred, material: Material) -> Card:
        order, counts = self.order, material.counts
        boxed = sum(one.boxes is not None for one in material.of("train"))
        source = f"trained from {order.base} on {counts['train']} pictures, {boxed} of them with boxes"
        card = transferred.card.model_copy(update={"trained_from": order.base, "source": source})
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
            pictures = [_labelled(one, material.classes) for one in material.of("train")]
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
        """Measure both on pictures that were not learnt from; where few are, also on those that chose the epoch."""
        held_out = material.of("test")
        if len(held_out) < _FEWEST_HELD_OUT:
            held_out = [*held_out, *material.of("val")]
        reference = self.order.champion or self.order.base
        card = store.find(reference)
        pipeline = Pipeline.from_dict(self.order.pipeline) if self.order.pipeline else pipeline_for(card)
        ours = self._measured(
            challenger, pipeline_of(pipeline, challenger.card, store, material.classes), store, held_out
        )
        theirs = None
        if self.order.champion:
            champion = (
                pipeline if pipeline.model == card.id else pipeline_of(pipeline, card, store, card.labels)
            )
            theirs = self._measured(load_classifier(store, card), champion, store, held_out)
        comparison = {
            "pictures": len(held_out),
            "challenger": ours.as_dict(),
            "champion": None if theirs is None else theirs.as_dict(),
        }
        return comparison, is_better(ours, theirs)

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


def _head(wish: HeadWish, base: TorchClassifier, material: Material) -> Head:
    """Return the head that is wished; `keep` is the base's where it has these classes, else what the pictures need."""
    if wish != "keep":
        return wish
    if set(material.classes) <= set(base.labels):
        return base.card.head
    return "sigmoid" if any(len(one.labels) != 1 for one in material.examples) else "softmax"


def _is_usable(example: Example, head: Head) -> bool:
    """Return whether a head can learn from a picture: one of nothing only where classes are independent."""
    if head == "arcface":
        return len(example.labels) == 1
    return head == "sigmoid" or bool(example.labels)


def _labelled(example: Example, classes: Sequence[str]) -> Labelled:
    """Return the example in the form that explainers learn from."""
    boxes = example.boxes or ()
    placed = tuple((classes.index(one.label), one.box) for one in boxes)
    somewhere = set(example.labels) - {one.label for one in boxes}
    return Labelled(
        example.path,
        (*placed, *((classes.index(label), None) for label in sorted(somewhere))),
        (example.width, example.height),
    )
