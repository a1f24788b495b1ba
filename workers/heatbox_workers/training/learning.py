"""The training itself: epochs over kept feature maps, with a schedule, early stopping and checkpoints.

Every epoch draws its order and variants from its own number and the seed, and the learning rate follows from the number
of the step, so what comes after a checkpoint depends on nothing but the checkpoint. AdamW
(https://arxiv.org/abs/1711.05101) with a warm-up and a cosine (https://arxiv.org/abs/1608.03983).

While it learns, a linear head reads its inputs less their mean and divided by their deviation over the training
pictures; in the end that is folded into its weights, so the trained network is the plain one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from heatbox.errors import ModelInvalidError
from heatbox.trainings.order import TrainingOptions
from heatbox_workers.embeddings import record_embeddings
from heatbox_workers.features import record
from heatbox_workers.training.checkpoint import (
    Checkpoint,
    Progress,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from heatbox_workers.training.cut import Behind
from heatbox_workers.training.kept_features import KeptFeatures, Shown
from heatbox_workers.training.losses import ClassLoss, box_loss, heat, occupancy
from heatbox_workers.training.transfer import Transferred, linear_head

__all__ = ["Epoch", "Learner"]

_BATCH = 16
_DECAY = 1e-2
_WARM_UP = 0.1  # of the steps
_SAY = 0.01  # of the classes' loss in choosing the epoch
_LEAST_DEVIATION = 1e-3
_BLOCKS_RATE = 1 / 3  # of the head's: what was learnt on a million pictures should not be forgotten
_NOT_FINITE = "The loss is no longer a finite number.", "Lower --learning-rate."


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1.
        total: how many there are at most.
        loss: mean over the steps.
        validation: error of the validation part; None where it has no pictures.
        best: number of the epoch with the lowest.
    """

    number: int
    total: int
    loss: float
    validation: float | None
    best: int


@dataclass
class Learner:
    """A network, its cut, and what it learns from.

    Attributes:
        transferred: the network; it is changed in place.
        behind: the part of it that learns.
        features: maps of the layer in front of that.
        options: how to train.
        identity: of this training; a checkpoint of another one is not used.
        folder: of the checkpoint.
    """

    transferred: Transferred
    behind: Behind
    features: KeptFeatures
    options: TrainingOptions
    identity: str
    folder: Path

    def learn(
        self, training: Sequence[Shown], validation: Sequence[Shown], tell: Callable[[Epoch], None]
    ) -> Epoch:
        """Train until the validation error has not fallen for some epochs, and keep the best weights.

        Args:
            training: at least one.
            validation: may be empty; then the last weights are kept.
            tell: told every epoch, after its checkpoint is written.

        Raises:
            ModelInvalidError: the loss is no longer finite, or heat cannot be computed for this network.
        """
        network = self.transferred.network
        loss = ClassLoss.of(
            self.transferred.card.head, self._presence(training), self.transferred.card.head_scale
        )
        # the loss has the heat's gradient in it, which has a gradient only by this kernel of attention
        with sdpa_kernel(SDPBackend.MATH), self._standardised(training):
            weights = self._learning_weights(training[0])
            best = self._epochs(weights, loss, training, validation, tell)
            with torch.no_grad():
                for name, value in best[1].items():
                    network.get_parameter(name).copy_(value)
            network.requires_grad_(requires_grad=False)
        return best[0]

    def _epochs(
        self,
        weights: dict[str, nn.Parameter],
        loss: ClassLoss,
        training: Sequence[Shown],
        validation: Sequence[Shown],
        tell: Callable[[Epoch], None],
    ) -> tuple[Epoch, dict[str, Tensor]]:
        options = self.options
        optimiser = self._optimiser(weights)
        names = {id(weight): name for name, weight in weights.items()}
        progress, best = self._taken_up(weights, optimiser, names)
        epoch = Epoch(progress.epoch, options.epochs, 0.0, None, progress.best_epoch)
        while progress.epoch < options.epochs and not self._stands_still(progress):
            mean = self._pass(progress.epoch, optimiser, loss, training)
            judged = self._judge(loss, validation) if validation else None
            number = progress.epoch + 1
            if judged is None or judged < progress.best:
                progress = Progress(number, mean if judged is None else judged, number)
                best = {name: weight.detach().clone() for name, weight in weights.items()}
            else:
                progress = Progress(number, progress.best, progress.best_epoch)
            kept = Checkpoint(progress, weights, best, optimiser_tensors(optimiser, names))
            save_checkpoint(self.folder, self.identity, kept)
            epoch = Epoch(number, options.epochs, mean, judged, progress.best_epoch)
            tell(epoch)
        return epoch, best

    def _taken_up(
        self, weights: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, names: dict[int, str]
    ) -> tuple[Progress, dict[str, Tensor]]:
        """Return where to begin: at the checkpoint of this very training, else at the beginning."""
        kept = load_checkpoint(self.folder, self.identity)
        if kept is None or kept.weights.keys() != weights.keys():
            return Progress(), {name: weight.detach().clone() for name, weight in weights.items()}
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept.weights[name])
        restore_optimiser(optimiser, names, kept.optimiser)
        return kept.progress, dict(kept.best)

    def _stands_still(self, progress: Progress) -> bool:
        return progress.best_epoch > 0 and progress.epoch - progress.best_epoch >= self.options.patience

    def _pass(
        self, epoch: int, optimiser: torch.optim.Optimizer, loss: ClassLoss, training: Sequence[Shown]
    ) -> float:
        """Go once over the pictures, each in one of its variants; return the mean loss."""
        random = torch.Generator().manual_seed((self.options.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(training), generator=random)
        drawn = torch.randint(self.features.variants, (len(training),), generator=random)
        batches = torch.split(order, _BATCH)
        total = 0.0
        for step, rows in enumerate(batches):
            done = (epoch * len(batches) + step) / (self.options.epochs * len(batches))
            for group in optimiser.param_groups:
                group["lr"] = group["highest"] * _share(done)
            found = self._loss(loss, [training[row] for row in rows.tolist()], drawn[rows].tolist())
            if not bool(found.isfinite()):
                raise ModelInvalidError(*_NOT_FINITE)
            optimiser.zero_grad()
            found.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(found.detach())
        return total / len(batches)

    def _judge(self, loss: ClassLoss, validation: Sequence[Shown]) -> float:
        """Return how wrong the pictures as they are come out: labels told wrong, and the loss of boxes.

        The loss of the classes has little say: it rises for the few that are wrong while more and more are right.
        """
        total = 0.0
        for first in range(0, len(validation), _BATCH):
            some = validation[first : first + _BATCH]
            logits, presence, boxes = self._outcome(some, [0] * len(some))
            error = loss.error(logits, presence) + _SAY * loss(logits, presence) + boxes
            total += float(error.detach()) * len(some)
        if not math.isfinite(total):
            raise ModelInvalidError(*_NOT_FINITE)
        return total / len(validation)

    def _loss(self, loss: ClassLoss, shown: Sequence[Shown], numbers: Sequence[int]) -> Tensor:
        logits, presence, boxes = self._outcome(shown, numbers)
        return loss(logits, presence) + boxes

    def _outcome(self, shown: Sequence[Shown], numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, C), presence (N, C) of 0 and 1, and the loss of the boxes, 0 without any."""
        variants = [one.variants[number] for one, number in zip(shown, numbers, strict=True)]
        classes = self.transferred.card.labels
        presence = torch.tensor([[float(name in one.labels) for name in classes] for one in variants])
        rows, boxes = [], []
        for image, one in enumerate(variants):
            for label in sorted({label for label, _ in one.boxes or ()}):
                rows.append((image, classes.index(label)))
                boxes.append([corners for name, corners in one.boxes or () if name == label])
        wanted = bool(rows) and self.options.box_weight > 0
        layer = self.transferred.card.feature_layer if wanted else ""
        maps = self.features.maps(shown, numbers)
        logits, looked = self._run(maps, layer)
        presence = presence.to(logits)
        if looked is None:
            return logits, presence, logits.new_zeros(())
        height, width = looked.shape[2:]
        inside = torch.stack([occupancy(corners, height, width) for corners in boxes]).to(logits)
        where = heat(logits, looked, torch.tensor(rows, device=logits.device))
        return logits, presence, self.options.box_weight * len(rows) / len(shown) * box_loss(where, inside)

    def _run(self, maps: Tensor, layer: str) -> tuple[Tensor, Tensor | None]:
        """Run what is behind the cut: maps (B, ...) -> logits (B, C), and the maps of a layer, (B, K, h, w)."""
        with torch.enable_grad(), self.behind.given(maps):
            if not layer:
                return self.behind.logits(), None
            with record(self.transferred.network, (layer,), connected=True) as recorded:
                logits = self.behind.logits()
        return logits, recorded[layer]

    def _learning_weights(self, sample: Shown) -> dict[str, nn.Parameter]:
        """Return the weights that learn: the head's, and with unfrozen blocks all that the cut's maps run through."""
        network = self.transferred.network
        named = dict(network.named_parameters())
        if self.options.unfreeze:
            network.requires_grad_(requires_grad=True)
            logits, _ = self._run(self.features.maps([sample], [0]), "")
            found = torch.autograd.grad(logits.square().sum(), list(named.values()), allow_unused=True)
            network.requires_grad_(requires_grad=False)
            reached = {name for name, one in zip(named, found, strict=True) if one is not None}
        else:
            reached = set(self.transferred.head)
        chosen = {name: weight for name, weight in named.items() if name in reached}
        for weight in chosen.values():
            weight.requires_grad = True
        return chosen

    def _optimiser(self, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        rate, head = self.options.learning_rate, set(self.transferred.head)
        groups = [
            {"params": [weight for name, weight in weights.items() if name in head], "highest": rate},
            {
                "params": [weight for name, weight in weights.items() if name not in head],
                "highest": rate * _BLOCKS_RATE,
            },
        ]
        return torch.optim.AdamW([one for one in groups if one["params"]], weight_decay=_DECAY)

    def _presence(self, shown: Sequence[Shown]) -> Tensor:
        """Return what is in the pictures: (N, C) of 0 and 1."""
        classes = self.transferred.card.labels
        rows = [[float(name in one.example.labels) for name in classes] for one in shown]
        return torch.tensor(rows, device=self.behind.device)

    @contextmanager
    def _standardised(self, training: Sequence[Shown]) -> Iterator[None]:
        """Let a linear head read standardised inputs while the body runs; the function of the network stays."""
        found = linear_head(self.transferred)
        if found is None:
            yield
            return
        head = found[1]
        mean, deviation = self._moments(training)
        with torch.no_grad():
            head.bias.add_(head.weight @ mean)
            head.weight.mul_(deviation)
        handle = head.register_forward_pre_hook(lambda _, inputs: ((inputs[0] - mean) / deviation,))
        try:
            yield
        finally:
            handle.remove()
        with torch.no_grad():
            head.weight.div_(deviation)
            head.bias.sub_(head.weight @ mean)

    def _moments(self, training: Sequence[Shown]) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (D,) of what the head reads of the training pictures as they are."""
        found: list[Tensor] = []
        with torch.no_grad(), record_embeddings(self.transferred.network) as embeddings:
            for first in range(0, len(training), _BATCH):
                some = training[first : first + _BATCH]
                self._run(self.features.maps(some, [0] * len(some)), "")
                found.append(embeddings[-1].detach())
        whole = torch.cat(found)
        return whole.mean(0), whole.std(0, unbiased=False).clamp_min(_LEAST_DEVIATION)


def _share(done: float) -> float:
    """Return the share of the highest learning rate after a share of the steps: soon up, then down along a cosine."""
    if done < _WARM_UP:
        return (done + 0.01) / (_WARM_UP + 0.01)
    return 0.01 + 0.495 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
