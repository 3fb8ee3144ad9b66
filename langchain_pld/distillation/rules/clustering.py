"""Clustering the micro-rules of each label.

`paper` is DBSCAN as in the paper. `auto` takes the first healthy result from a list of methods: first those that find
the number of clusters and leave outliers, last k-means, which always finds something. Outliers may become single rules
later.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import cosine_distances

from langchain_pld.distillation.plan import ClusterMode
from langchain_pld.rules import MicroRule

__all__ = ["Clustering", "cluster_label"]

PAPER_EPS = 0.4
PAPER_MIN_SAMPLES = 6
_MIN_DISTINCT = 4
_MAX_LARGEST_SHARE = 0.8
_MAX_NOISE_SHARE = 0.6
_MIN_SILHOUETTE = 0.05
_MAX_CLUSTERS_PER_WANTED = 3
_SAME = 1e-6


@dataclass(frozen=True)
class Clustering:
    """The micro-rules of one label, each in exactly one group or in the noise."""

    groups: tuple[tuple[MicroRule, ...], ...]
    """Largest group first; within a group, the most central micro-rule first."""
    noise: tuple[MicroRule, ...]
    """In no group, or in one beyond the wanted number."""
    log: tuple[str, ...]
    """One line per method tried, with the reason for rejecting it; the last one was taken."""


def cluster_label(
    micro_rules: Sequence[MicroRule], vectors: np.ndarray, *, mode: ClusterMode, most: int, seed: int
) -> Clustering:
    """Group the micro-rules of one label by meaning, whatever their order.

    Args:
        micro_rules: Micro-rules of one label.
        vectors: Their vectors, shape `(len(micro_rules), dimensions)`.
        mode: `paper`: DBSCAN with cosine distance, eps 0.4 and min_samples 6. `auto`: DBSCAN with eps at the knee of
            the k-distances and min_samples by the number of micro-rules, else HDBSCAN, agglomerative clustering,
            k-means. `kmeans`: `most` groups.
        most: Maximum number of groups; members of smaller ones become noise.
        seed: Seed of k-means.

    Returns:
        At least one group, unless there are no micro-rules.
    """
    if not micro_rules:
        return Clustering((), (), ("no micro-rules",))
    order = sorted(range(len(micro_rules)), key=lambda n: (micro_rules[n].id, micro_rules[n].cues))
    vectors = np.asarray(vectors, dtype=float)[order]
    distances = np.clip(cosine_distances(vectors), 0.0, 2.0)
    if mode == "paper":
        clusters, log = _paper(distances)
    elif most == 1 or _distinct(distances) < (_MIN_DISTINCT if mode == "auto" else 2):
        clusters = np.zeros(len(order), dtype=int)
        log = [f"{len(order)} micro-rules in one group, since {'one is wanted' if most == 1 else 'few differ'}"]
    elif mode == "kmeans":
        clusters, method = _kmeans(vectors, most, seed)
        log = [f"{method} taken"]
    else:
        clusters, log = _auto(vectors, distances, most, seed)
    groups = _largest_groups(clusters, distances, most)
    noise = sorted(set(range(len(order))).difference(*groups))
    return Clustering(
        groups=tuple(tuple(micro_rules[order[n]] for n in group) for group in groups),
        noise=tuple(micro_rules[order[n]] for n in noise),
        log=tuple(log),
    )


_Attempt = tuple[np.ndarray, str]
"""The cluster of each micro-rule, -1 for noise; and the method with its parameters."""


def _paper(distances: np.ndarray) -> tuple[np.ndarray, list[str]]:
    clusters, method = _dbscan(distances, PAPER_EPS, PAPER_MIN_SAMPLES)
    if (clusters >= 0).any():
        return clusters, [f"{method} taken: {_sizes(clusters)}"]
    log = [f"{method} finds no group; one group of all, so that the label has a rule"]
    return np.zeros(len(distances), dtype=int), log


def _auto(vectors: np.ndarray, distances: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """The first healthy attempt, or k-means."""
    log: list[str] = []
    for clusters, method in _attempts(distances, most):
        numbers, sizes = np.unique(clusters, return_counts=True)
        without_singles = np.where(np.isin(clusters, numbers[sizes < 2]), -1, clusters)
        objection = _objection(without_singles, distances, most)
        if objection is None:
            return without_singles, [*log, f"{method} taken: {_sizes(without_singles)}"]
        log.append(f"{method} not taken: {objection}")
    clusters, method = _kmeans(vectors, most, seed)
    return clusters, [*log, f"{method} taken: {_sizes(clusters)}"]


def _attempts(distances: np.ndarray, most: int) -> Iterator[_Attempt]:
    # The paper's 6 from a hundred micro-rules on, fewer below, at least 2.
    min_samples = max(2, min(PAPER_MIN_SAMPLES, round(math.sqrt(len(distances)) * PAPER_MIN_SAMPLES / 10)))
    yield _dbscan(distances, _knee_eps(distances, min_samples), min_samples)
    yield _hdbscan(distances, min_samples)
    yield _agglomerative(distances, most)


def _knee_eps(distances: np.ndarray, neighbour: int) -> float:
    """The usual eps of DBSCAN: the knee of the sorted distances to the n-th neighbour.

    The knee is the point farthest below the line from first to last, as in "Kneedle" (Satopää et al. 2011). A point is
    its own first neighbour, as in DBSCAN's min_samples.
    """
    curve = np.sort(np.sort(distances, axis=1)[:, min(neighbour, len(distances)) - 1])
    line = np.linspace(curve[0], curve[-1], len(curve))
    return float(curve[int(np.argmax(line - curve))])


def _dbscan(distances: np.ndarray, eps: float, min_samples: int) -> _Attempt:
    eps = max(eps, _SAME)
    clusters = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
    return clusters, f"DBSCAN (eps {eps:.2f}, min_samples {min_samples})"


def _hdbscan(distances: np.ndarray, min_cluster_size: int) -> _Attempt:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # identical drafts make it divide by zero
        model = HDBSCAN(min_cluster_size=min_cluster_size, metric="precomputed", copy=True)
        return model.fit_predict(distances), f"HDBSCAN (min_cluster_size {min_cluster_size})"


def _agglomerative(distances: np.ndarray, most: int) -> _Attempt:
    """Average linkage, cut at the best silhouette."""
    cuts = [
        AgglomerativeClustering(count, metric="precomputed", linkage="average").fit_predict(distances)
        for count in range(2, min(most, _distinct(distances) - 1) + 1)
    ]
    best = max(cuts, key=lambda clusters: _silhouette(clusters, distances))
    return best, f"agglomerative ({best.max() + 1} groups)"


def _kmeans(vectors: np.ndarray, count: int, seed: int) -> _Attempt:
    with warnings.catch_warnings():
        # It warns when fewer vectors are distinct than clusters are wanted; fewer groups are fine.
        warnings.simplefilter("ignore")
        clusters = KMeans(n_clusters=min(count, len(vectors)), n_init=10, random_state=seed).fit_predict(vectors)
    return clusters, f"k-means ({len(np.unique(clusters))} groups)"


def _objection(clusters: np.ndarray, distances: np.ndarray, most: int) -> str | None:
    """What is wrong with a clustering, or `None`."""
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    if not len(numbers):
        return "all are noise"
    noise = 1 - sizes.sum() / len(clusters)
    if noise > _MAX_NOISE_SHARE:
        return f"{noise:.0%} are noise"
    if sizes.max() > _MAX_LARGEST_SHARE * sizes.sum():
        return f"one group has {sizes.max()} of {sizes.sum()}"
    if len(numbers) > _MAX_CLUSTERS_PER_WANTED * most:
        return f"{len(numbers)} groups, {most} are wanted"
    silhouette = _silhouette(clusters, distances)
    if silhouette < _MIN_SILHOUETTE:
        return f"the groups overlap, silhouette {silhouette:.2f}"
    return None


def _silhouette(clusters: np.ndarray, distances: np.ndarray) -> float:
    inside = clusters >= 0
    if not 2 <= len(np.unique(clusters[inside])) < inside.sum():
        return -1.0
    return float(silhouette_score(distances[np.ix_(inside, inside)], clusters[inside], metric="precomputed"))


def _largest_groups(clusters: np.ndarray, distances: np.ndarray, most: int) -> list[list[int]]:
    """Indices of the largest groups, each from its centre outwards."""
    groups = [np.flatnonzero(clusters == number) for number in np.unique(clusters[clusters >= 0])]
    groups.sort(key=lambda group: (-len(group), int(group[0])))
    spreads = [distances[np.ix_(group, group)].mean(axis=1).round(9) for group in groups[:most]]
    return [group[np.argsort(spread, kind="stable")].tolist() for group, spread in zip(groups, spreads, strict=False)]


def _distinct(distances: np.ndarray) -> int:
    """Number of distinct vectors."""
    return sum(not (row[:n] < _SAME).any() for n, row in enumerate(distances))


def _sizes(clusters: np.ndarray) -> str:
    sizes = sorted(np.unique(clusters[clusters >= 0], return_counts=True)[1], reverse=True)
    noise = int((clusters < 0).sum())
    return f"groups of {', '.join(map(str, sizes))}" + (f", {noise} noise" if noise else "")
