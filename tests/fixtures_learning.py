"""What tests of the training engine share: pictures with coloured squares, and small networks with random weights."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from heatbox.boxes import Box
from heatbox.datasets.examples import Example, Marked
from heatbox.datasets.stored import digest_of
from heatbox.models import make_card
from heatbox.pictures.images import Limits
from heatbox.trainings.order import TrainingOptions
from heatbox_workers.loading import build_from_card, make_classifier
from heatbox_workers.training.cut import find_cut
from heatbox_workers.training.kept_features import KeptFeatures
from heatbox_workers.training.learning import Learner
from heatbox_workers.training.transfer import transfer

__all__ = ["RGB", "example_of", "is_untouched", "learner_of", "network_of", "painted", "squares", "told"]

RGB = {"red": (230, 20, 20), "blue": (20, 20, 230), "green": (20, 200, 20)}


def painted(path, squares, size=(64, 64), seed=0):
    """Write a grey picture with squares (colour, x, y, side) in it."""
    width, height = size
    pixels = np.random.default_rng(seed).normal(145, 6, (height, width, 3))
    for colour, x, y, side in squares:
        pixels[y : y + side, x : x + side] = RGB[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def example_of(path, labels, boxes=(), size=(64, 64)):
    """Return the example of a file; boxes are (label, x1, y1, x2, y2) in pixels, None: nobody said."""
    marked = None if boxes is None else tuple(Marked(label, Box(*corners)) for label, *corners in boxes)
    return Example(path, path.name, digest_of(path), *size, tuple(sorted(labels)), marked)


def squares(folder: Path, count=24, colours=("red", "green"), seed=0):
    """Return examples with one square each, whose colour is the label."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        colour, side = colours[number % len(colours)], int(random.integers(14, 26))
        x, y = (int(value) for value in random.integers(0, 64 - side, 2))
        path = painted(folder / f"{colour}-{number:03}.png", [(colour, x, y, side)], seed=seed + number)
        found.append(example_of(path, [colour], [(colour, x, y, x + side, y + side)]))
    return found


def network_of(architecture="heatbox/tiny", labels=("red", "blue"), head="softmax", size=64, **fields):
    """Return a classifier with random weights, none of them zero, so that everything has a say in the logits."""
    card = make_card(
        name="base", architecture=architecture, labels=labels, head=head, input_size=size, **fields
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_from_card(card)
        with torch.no_grad():
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(0, 0.05)
    return make_classifier(card.model_copy(update={"sha256": "0" * 64}), network.state_dict())


def is_untouched(network):
    """Whether no hook and no other forward is left on a network."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    own = [vars(module) for module in network.modules()]
    return not any(one[kind] for one in own for kind in kinds) and not any("forward" in one for one in own)


def told(learner, shown):
    """Return the logits of pictures as they are."""
    with torch.no_grad(), learner.behind.given(learner.features.maps(shown, [0] * len(shown))):
        return learner.behind.logits()


def learner_of(base, examples, folder, **options):
    """Return a learner, its training part and its validation part; features are kept below the folder."""
    identity, head = options.pop("identity", "one"), options.pop("head", "softmax")
    classes = options.pop("classes", ("red", "green"))
    chosen = TrainingOptions(**{"augment": False, "epochs": 4, "patience": 100, **options})
    transferred = transfer(base, "new", classes, {}, head, chosen.seed)
    behind = find_cut(transferred, chosen.unfreeze)
    variants = 4 if chosen.augment else 1
    features = KeptFeatures(folder / "features", base, behind.layer, variants, Limits())
    shown = [features.prepare(one) for one in examples]
    learner = Learner(transferred, behind, features, chosen, identity, folder / "training")
    third = len(shown) // 3
    return learner, shown[third:], shown[:third]
