"""Which pictures to label next: the doubtful, the ones on which explainers disagree, and those unlike all before.

Diversity is facility location, a submodular choice that greedy picking solves to 1 - 1/e (Nemhauser et al., 1978)::

    gain(u) = sum over v of max(0, cos(e_v, e_u) - max over chosen c of cos(e_v, e_c))

where e is the embedding of a picture, v runs through the open pictures, and the chosen are at first those that people
have corrected. Greedy k-centre, the core-set choice of Sener & Savarese (ICLR 2018, https://arxiv.org/abs/1708.00489),
stands on the same distances, but goes for outliers: on our sets it was worse than chance (docs/how-to/label-next.md).

Of several criteria the next picture has the highest mean::

    value(u) = mean of { rank of doubt(u), rank of disagreement(u), gain(u) / max gain }

A rank is the share of the open pictures with a lower value, so the scales of scores do not matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Choice", "choose", "ranks"]

_REFERENCES = 1000  # pictures that are to be represented; of more, so many are drawn

Vectors = NDArray[np.float32]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A picture that was chosen.

    Attributes:
        index: of the open pictures.
        gain: share of the greatest gain that any picture had then, in [0, 1]; None where diversity did not count.
    """

    index: int
    gain: float | None = None


def choose(
    measured: Mapping[str, Sequence[float]],
    embeddings: Vectors | None,
    corrected: Vectors | None,
    limit: int,
    seed: int = 0,
) -> list[Choice]:
    """Return the pictures to label next, the first first; of equals the one that comes first.

    Args:
        measured: values of each open picture in [0, 1] by criterion, such as doubt; may be empty.
        embeddings: (N, D) of the open pictures; None: diversity does not count.
        corrected: (M, D) of those that people have corrected; None: there are none.
        limit: at most so many.
        seed: of the drawing of references.
    """
    shares = [ranks(np.asarray(values, dtype=np.float64)) for values in measured.values()]
    if embeddings is None:
        value = np.mean(shares, axis=0)
        return [Choice(int(index)) for index in np.argsort(-value, kind="stable")[:limit]]
    return _greedy(shares, embeddings, corrected, limit, seed)


def ranks(values: Values) -> Values:
    """Return the share of the other values that are lower than each: (N,) -> (N,) in [0, 1]."""
    lower = np.searchsorted(np.sort(values), values, side="left")
    return np.asarray(lower / max(len(values) - 1, 1), dtype=np.float64)


def _greedy(
    shares: Sequence[Values], embeddings: Vectors, corrected: Vectors | None, limit: int, seed: int
) -> list[Choice]:
    open_ones = _unit(embeddings)
    similar = np.maximum(open_ones @ open_ones[_references(len(open_ones), seed)].T, 0)  # (N, R)
    covered = np.zeros(similar.shape[1], dtype=np.float32)
    if corrected is not None and len(corrected):
        references = open_ones[_references(len(open_ones), seed)]
        covered = np.maximum(references @ _unit(corrected).T, 0).max(axis=1)
    taken = np.zeros(len(open_ones), dtype=bool)
    chosen: list[Choice] = []
    while len(chosen) < min(limit, len(open_ones)):
        gain = np.maximum(similar - covered, 0).sum(axis=1, dtype=np.float64)
        gain /= max(gain[~taken].max(), np.finfo(np.float64).tiny)
        value = np.mean([*shares, gain], axis=0)
        value[taken] = -1
        index = int(value.argmax())
        taken[index] = True
        covered = np.maximum(covered, similar[index])
        chosen.append(Choice(index, min(float(gain[index]), 1.0)))
    return chosen


def _references(count: int, seed: int) -> NDArray[np.int64]:
    if count <= _REFERENCES:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _REFERENCES, replace=False))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
