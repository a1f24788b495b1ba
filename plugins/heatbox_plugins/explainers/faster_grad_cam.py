"""Faster-Grad-CAM: Grad-CAM's weights looked up by the embedding, no backward pass."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from heatbox.contract import Classifier, Evidence, Examples
from heatbox.errors import NotFittedError

__all__ = ["FasterGradCAM"]

_STARTS = 10  # of k-means; the best one is kept


@dataclass(frozen=True)
class FasterGradCAM:
    """Faster-Grad-CAM (shinmura0, 2019), after Grad-CAM for embedding networks (Chen et al., WACV 2020).

    `fit` computes Grad-CAM's weights alpha for pictures of each class, clusters their embeddings e by k-means, and
    keeps for each cluster q the mean weights of its pictures at the n channels K_q where they are largest:

        alpha_k = 1 / (h w) sum_ij dy^c / dA_k[i, j]        w_q = mean of alpha over the pictures in cluster q

    A picture is explained by the nearest cluster of the class, in one forward pass:

        q = argmin |e - centre_q|        L^c = ReLU(sum_(k in K_q) w_q[k] A_k)

    Differences to the project: the gradient is that of the logit, because the softmax's vanishes where the class is
    sure, and every class has clusters of its own. A class without examples has an empty map.

    Source: https://github.com/shinmura0/Faster-Grad-CAM; Adapting Grad-CAM for Embedding Networks,
        https://arxiv.org/abs/2001.06538

    Attributes:
        layer: the module whose maps are weighted; `auto` is the classifier's feature layer.
        clusters: of each class; fewer where there are fewer examples.
        channels: n, feature maps that count in each cluster.
        seed: of k-means.
    """

    layer: str = "auto"
    clusters: int = 10
    channels: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.clusters, self.channels) < 1:
            msg = f"clusters and channels are at least 1, got {self.clusters} and {self.channels}"
            raise ValueError(msg)

    def fit(self, classifier: Classifier, examples: Iterable[Examples]) -> dict[str, Tensor]:
        """Return centres (Q, D), classes (Q,), weights (Q, n) and channels (Q, n) of Q clusters."""
        embeddings, alphas, classes = [], [], []
        for batch in examples:
            if len(batch.targets):
                alphas.append(self._alphas(classifier, batch))
                embeddings.append(classifier.embed(batch.images, self.layer).embeddings[batch.targets[:, 0]])
                classes.append(batch.targets[:, 1])
        if not classes:
            raise NotFittedError(
                "Faster-Grad-CAM learns from pictures with a class, and none was given.",
                "Give a folder with one folder of pictures for each class, or a COCO data set.",
            )
        known = torch.cat(classes)
        rows = [(index, known == index) for index in sorted(set(known.tolist()))]
        each = [
            self._clusters(torch.cat(embeddings)[own], torch.cat(alphas)[own], index) for index, own in rows
        ]
        names = ("centres", "classes", "weights", "channels")
        return {name: torch.cat(parts) for name, parts in zip(names, zip(*each, strict=True), strict=True)}

    def __call__(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Evidence:
        """Explain a batch: (N, 3, H, W), (M, 2) -> heatmaps (M, h, w)."""
        state, found = classifier.state, classifier.embed(images, self.layer)
        image, target = targets.unbind(1)
        distances = torch.cdist(found.embeddings[image], state["centres"])
        other = state["classes"] != target[:, None]
        nearest = distances.masked_fill(other, torch.inf).argmin(dim=1)
        maps = found.maps[image[:, None], state["channels"][nearest]]
        heatmaps = torch.einsum("mn,mnhw->mhw", state["weights"][nearest], maps).relu()
        return Evidence(heatmaps=heatmaps.masked_fill(other.all(dim=1)[:, None, None], 0))

    def _alphas(self, classifier: Classifier, batch: Examples) -> Tensor:
        """Return Grad-CAM's weights of each target: (M, K)."""
        return classifier.head_gradients(batch.images, batch.targets, self.layer).gradients.mean(dim=(2, 3))

    def _clusters(self, embeddings: Tensor, alphas: Tensor, index: int) -> tuple[Tensor, ...]:
        """Cluster one class: (M, D), (M, K) -> centres (q, D), classes (q,), weights (q, n), channels (q, n)."""
        distinct = len(np.unique(embeddings.cpu().numpy(), axis=0))
        means = KMeans(min(self.clusters, distinct), n_init=_STARTS, random_state=self.seed)
        member = torch.from_numpy(means.fit_predict(embeddings.cpu().numpy())).to(embeddings.device)
        centres = torch.from_numpy(means.cluster_centers_).to(embeddings)
        weights = torch.stack([alphas[member == q].mean(dim=0) for q in range(len(centres))])
        largest = weights.topk(min(self.channels, weights.shape[1]), dim=1)
        return centres, torch.full((len(centres),), index), largest.values, largest.indices
