"""Box regression: the supervised way, class and box heads trained together on pictures whose boxes are known."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from heatbox.contract import Classifier, Evidence, Examples
from heatbox.errors import NotFittedError

__all__ = ["BoxRegression"]

_GRID = 5  # cells a side that the heads read
_REDUCED, _HIDDEN = 48, 192
_BATCH = 32
_SMALLEST_CUT, _VISIBLE = 0.6, 0.6  # side of a cut-out; part of a box that must be in it


@dataclass(frozen=True)
class BoxRegression:
    """Classification and localisation by two heads over shared features.

    `fit` trains, on the frozen feature maps A pooled to 5 x 5 cells, a shared hidden layer z, a class head and for each
    class a box head. With l the true class and x, y, w, h the box's centre and size in parts of the picture's sides,

        z = ReLU(W_2 ReLU(W_1 A))      p = softmax(W_c z)      x', y', w', h' = sigmoid(W_b[l] z)
        loss = -log p_l + lambda || [x', y', w', h'] - [x, y, w, h] ||_2

    Each target gets one box, of its class, with the score p_l. It learns the classes that the examples have boxes of,
    the largest box of each class in a picture; any other class gets no box. Pictures are learnt from in several views:
    as they are, mirrored, and cut out at seeded places.

    Source: the class and box heads of OverFeat (Sermanet et al., ICLR 2014), https://arxiv.org/abs/1312.6229

    Attributes:
        layer: the module whose maps are read; `auto` is the classifier's feature layer.
        views: of each picture; the first is the picture itself.
        epochs: over all views.
        learning_rate: of Adam, the highest of a cosine schedule.
        box_weight: lambda.
        seed: of initial weights, views and order.
    """

    layer: str = "auto"
    views: int = 4
    epochs: int = 60
    learning_rate: float = 1e-3
    box_weight: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.views, self.epochs) < 1:
            msg = f"views and epochs are at least 1, got {self.views} and {self.epochs}"
            raise ValueError(msg)
        if min(self.learning_rate, self.box_weight) <= 0:
            msg = f"learning_rate and box_weight are above 0, got {self.learning_rate} and {self.box_weight}"
            raise ValueError(msg)

    def fit(self, classifier: Classifier, examples: Iterable[Examples]) -> dict[str, Tensor]:
        """Return the heads' weights and the classes (L,) that they know."""
        random = torch.Generator().manual_seed(self.seed)
        cells, boxes, classes = [], [], []
        for batch in examples:
            for view in range(self.views):
                seen = _view(_largest(batch), view, random)
                if len(seen.targets):
                    cells.append(self._cells(classifier, seen.images)[seen.targets[:, 0]].half())
                    boxes.append(_centred(seen.boxes, classifier.input_size))
                    classes.append(seen.targets[:, 1])
        if not classes:
            raise NotFittedError(
                "Box regression learns from boxes, and no example has one.",
                "Give a COCO data set with boxes of the model's classes.",
            )
        known, labels = torch.unique(torch.cat(classes), return_inverse=True)
        heads = _initial(cells[0].shape[1], len(known), random, known.device)
        self._train(heads, torch.cat(cells), torch.cat(boxes), labels, random)
        return {**heads, "classes": known}

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> one box per target, none for a class that was not learnt."""
        state = classifier.state
        with torch.no_grad():
            scores, boxes = _heads(state, self._cells(classifier, images))
        probabilities, side = scores.softmax(dim=1), classifier.input_size
        known = {index: position for position, index in enumerate(state["classes"].tolist())}
        found, sure = [], []
        for image, index in targets.tolist():
            place = known.get(index)
            rows = slice(0, 0) if place is None else slice(place, place + 1)
            found.append(_corners(boxes[image, rows], side))
            sure.append(probabilities[image, rows])
        return Evidence(boxes=found, scores=sure)

    def _cells(self, classifier: Classifier, images: Tensor) -> Tensor:
        """Return the pooled maps: (N, 3, H, W) -> (N, K, 5, 5)."""
        maps = classifier.feature_maps(images, self.layer)
        return functional.interpolate(maps, (_GRID, _GRID), mode="bilinear", antialias=True)

    def _train(
        self,
        heads: Mapping[str, Tensor],
        cells: Tensor,
        boxes: Tensor,
        labels: Tensor,
        random: torch.Generator,
    ) -> None:
        """Train the heads in place: (R, K, 5, 5), (R, 4) in parts of the side, (R,)."""
        weights = [weight.requires_grad_() for weight in heads.values()]
        optimiser = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=1e-2)
        steps = self.epochs * -(-len(cells) // _BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(cells), generator=random).to(cells.device)
            for rows in torch.split(order, _BATCH):
                with torch.enable_grad():
                    scores, found = _heads(heads, cells[rows].float())
                    own = found[torch.arange(len(rows)), labels[rows]]
                    distance = (own - boxes[rows]).square().sum(dim=1).add(1e-12).sqrt().mean()
                    loss = functional.cross_entropy(scores, labels[rows]) + self.box_weight * distance
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        for weight in weights:
            weight.requires_grad_(False)  # noqa: FBT003 - torch's own signature


def _initial(channels: int, classes: int, random: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Return seeded weights of all layers, as He et al. (https://arxiv.org/abs/1502.01852) scale them."""
    shapes = {
        "reduce": (_REDUCED, channels, 1, 1),
        "hidden": (_HIDDEN, _REDUCED * _GRID * _GRID),
        "class": (classes, _HIDDEN),
        "box": (4 * classes, _HIDDEN),
    }
    heads = {}
    for name, shape in shapes.items():
        fan = shape[1]
        heads[f"{name}.weight"] = (torch.randn(shape, generator=random) * (2 / fan) ** 0.5).to(device)
        heads[f"{name}.bias"] = torch.zeros(shape[0], device=device)
    return heads


def _heads(weights: Mapping[str, Tensor], cells: Tensor) -> tuple[Tensor, Tensor]:
    """Run the heads: (N, K, 5, 5) -> class scores (N, L), boxes (N, L, 4) as centre and size in parts of the side."""
    level = cells / cells.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    reduced = functional.conv2d(level, weights["reduce.weight"], weights["reduce.bias"]).relu()
    hidden = functional.linear(reduced.flatten(1), weights["hidden.weight"], weights["hidden.bias"]).relu()
    scores = functional.linear(hidden, weights["class.weight"], weights["class.bias"])
    boxes = functional.linear(hidden, weights["box.weight"], weights["box.bias"]).sigmoid()
    return scores, boxes.reshape(len(boxes), -1, 4)


def _largest(batch: Examples) -> Examples:
    """Keep the largest known box of each class in each picture."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for row, (target, (x1, y1, x2, y2)) in enumerate(
        zip(batch.targets.tolist(), batch.boxes.tolist(), strict=True)
    ):
        area = (x2 - x1) * (y2 - y1)
        key = target[0], target[1]
        if area > best.get(key, (0.0, -1))[0]:  # never true of NaN
            best[key] = area, row
    rows = torch.tensor([row for _, row in best.values()], dtype=torch.int64, device=batch.targets.device)
    return Examples(batch.images, batch.targets[rows], batch.boxes[rows])


def _view(batch: Examples, view: int, random: torch.Generator) -> Examples:
    """Return a view of pictures and boxes: 0 as they are, 1 mirrored, else cut out and every other one mirrored."""
    if view > 1:
        batch = _cut(batch, random)
    if view % 2 == 0:
        return batch
    side = batch.images.shape[3]
    x1, y1, x2, y2 = batch.boxes.unbind(1)
    return Examples(batch.images.flip(3), batch.targets, torch.stack([side - x2, y1, side - x1, y2], dim=1))


def _cut(batch: Examples, random: torch.Generator) -> Examples:
    """Cut out a seeded square of all pictures and enlarge it; boxes that are mostly outside are left out."""
    side = batch.images.shape[3]
    size, left, top = torch.rand(3, generator=random).tolist()
    length = round(side * (_SMALLEST_CUT + (1 - _SMALLEST_CUT) * size))
    x, y = round(left * (side - length)), round(top * (side - length))
    cut = batch.images[:, :, y : y + length, x : x + length]
    images = functional.interpolate(cut, (side, side), mode="bilinear")
    moved = batch.boxes - torch.tensor([x, y, x, y], device=batch.boxes.device)
    inside = moved.clamp(0, length)
    kept = _area(inside) >= _VISIBLE * _area(moved)
    return Examples(images, batch.targets[kept], inside[kept] * (side / length))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _centred(boxes: Tensor, side: int) -> Tensor:
    """Return centre and size in parts of the side: xyxy (R, 4) -> (R, 4)."""
    near, far = boxes[:, :2] / side, boxes[:, 2:] / side
    return torch.cat([(near + far) / 2, far - near], dim=1)


def _corners(boxes: Tensor, side: int) -> Tensor:
    """Return xyxy in pixels: centre and size (R, 4) -> (R, 4)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return (torch.cat([centre - half, centre + half], dim=1) * side).clamp(0, side)
