"""The original Faster-Grad-CAM project's own network and hands: rock, scissors, paper (see the test data's README)."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from heatbox.contract import Examples
from heatbox.models import make_card
from heatbox.pictures.images import Limits
from heatbox_workers.classifier import TorchClassifier
from heatbox_workers.embeddings import last_linear
from heatbox_workers.examples import ExampleBatches, read_dataset
from heatbox_workers.loading import make_classifier
from heatbox_workers.prototypes import with_class_vectors

LAYER = "features.17.conv.0"
LABELS = ("gu", "choki", "pa")


@dataclass(frozen=True)
class Janken:
    """The network with class vectors from every other picture, what the project stored, and all pictures.

    Attributes:
        classifier: head `arcface`.
        stored: cluster_centers (10, D), channel_weight (10, 50), channel_index (10, 50).
        images: (116, 3, 96, 96).
        classes: (116,) index in `LABELS`; the first of each class, the third and so on made the class vectors.
    """

    classifier: TorchClassifier
    stored: dict[str, torch.Tensor]
    images: torch.Tensor
    classes: torch.Tensor

    def half(self, label: str, first: int) -> torch.Tensor:
        """Return every other picture of a class, from the first (0) or the second (1) one: (N, 3, 96, 96)."""
        return self.images[self.classes == LABELS.index(label)][first::2]


def examples(images: torch.Tensor, index: int) -> list[Examples]:
    """Return pictures of one class as what `fit` is given, in batches of seven."""
    return [
        Examples(
            batch,
            torch.tensor([[row, index] for row in range(len(batch))]),
            torch.full((len(batch), 4), torch.nan),
        )
        for batch in images.split(7)
    ]


@functools.cache
def janken(test_data: Path) -> Janken:
    """Read it all; takes about two seconds."""
    torch.set_num_threads(1)
    file = torch.load(test_data / "weights" / "faster_gradcam_janken.pt", weights_only=True)
    card = make_card(
        name="janken",
        architecture="torchvision/mobilenet_v2",
        architecture_options={"width_mult": 0.5},
        labels=LABELS,
        input_size=96,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        padding="tf_same",
        head="arcface",
        feature_layer=LAYER,
    )
    pictures, _ = read_dataset(test_data / "janken", LABELS)
    pictures.sort(key=lambda one: one.path)
    weights = with_class_vectors(card, file["state_dict"], _every_other(pictures), Limits())
    classifier = make_classifier(card, weights)
    assert last_linear(classifier.network)
    batches = list(ExampleBatches(pictures, classifier, Limits()))
    classes = torch.cat([batch.targets[:, 1] for batch in batches])
    stored = {name: file[name] for name in ("cluster_centers", "channel_weight", "channel_index")}
    return Janken(classifier, stored, torch.cat([batch.images for batch in batches]), classes)


def _every_other(pictures):
    """Return the first picture of each class, its third and so on."""
    return [
        one
        for index in range(len(LABELS))
        for one in [one for one in pictures if one.objects[0][0] == index][::2]
    ]
