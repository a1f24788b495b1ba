"""Embeddings as places on a plane: t-SNE (van der Maaten & Hinton, JMLR 9, 2008), after a PCA.

scikit-learn's, started from the first two principal components, so that the same pictures make the same map.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

__all__ = ["PERPLEXITY", "bounded", "flat_map"]

PERPLEXITY = 30.0
"""How many neighbours count, roughly; less where there are few pictures."""

_COMPONENTS = 50
_LEAST = 5  # pictures; of fewer there are no neighbourhoods
_START = 1e-4  # standard deviation of the start, as scikit-learn has it


def flat_map(
    embeddings: NDArray[np.float32], seed: int = 0, perplexity: float = PERPLEXITY
) -> NDArray[np.float64]:
    """Return places in [0, 1]: (N, D) -> (N, 2); one scale for both axes, around the middle, wider than high.

    Args:
        embeddings: of at least one picture.
        seed: of t-SNE.
        perplexity: bounded by the number of pictures.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
    count = min(_COMPONENTS, *unit.shape)
    parts = PCA(count, svd_solver="full").fit_transform(unit) if np.ptp(unit, axis=0).any() else unit * 0
    start = np.zeros((len(parts), 2))
    start[:, : min(2, parts.shape[1])] = parts[:, :2]
    if len(parts) < _LEAST or not start[:, 0].std():
        return _within(start)
    spread = TSNE(
        perplexity=bounded(perplexity, len(parts)), init=start / start[:, 0].std() * _START, random_state=seed
    )
    return _within(spread.fit_transform(parts.astype(np.float32)).astype(np.float64))


def bounded(perplexity: float, count: int) -> float:
    """Return the perplexity that so many pictures can have."""
    return max(min(perplexity, (count - 1) / 3), 1.0)


def _within(places: NDArray[np.float64]) -> NDArray[np.float64]:
    if np.ptp(places[:, 1]) > np.ptp(places[:, 0]):  # screens are wider than high
        places = places[:, ::-1]
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5)
