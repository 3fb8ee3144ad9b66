"""Clustering of micro-rules inside each label.

`paper` is DBSCAN as the paper has it. `auto` tries methods in turn, from those that find the number of groups and leave
out what fits nowhere to k-means, which always finds something, and takes the first healthy result. Each step leaves a
line in the log. Whatever is in no group stays as noise: candidates for single rules later on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
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
_FEW = 4
_GIANT_SHARE = 0.8
_NOISE_SHARE = 0.6
_LEAST_SILHOUETTE = 0.05
_MOST_TIMES = 3
_SAME = 1e-6


@dataclass(frozen=True)
class Clustering:
    """The micro-rules of one label in groups; each is in exactly one group or in the noise."""

    groups: tuple[tuple[MicroRule, ...], ...]
    """Largest first; inside a group the micro-rule nearest to its middle first."""
    noise: tuple[MicroRule, ...]
    """In no group, or in one beyond the number asked for."""
    method: str
    """The method that found the groups, with its numbers."""
    log: tuple[str, ...]
    """What was tried and why it was not taken, a line each, last what was taken."""


def cluster_label(
    micro_rules: Sequence[MicroRule], vectors: np.ndarray, *, mode: ClusterMode, most: int, seed: int
) -> Clustering:
    """Group the micro-rules of one label by what they say.

    The result does not depend on the order of the micro-rules.

    Args:
        micro_rules: Micro-rules of one label.
        vectors: Their vectors, one row each, shape `(len(micro_rules), dimensions)`.
        mode: `paper`: DBSCAN with cosine distance, eps 0.4 and min_samples 6. `auto`: DBSCAN with eps from the knee of
            the k-distances and min_samples by the size of the label, else HDBSCAN, agglomerative clustering, k-means.
            `kmeans`: `most` groups.
        most: Groups wanted at most; members of smaller ones become noise.
        seed: Seed of k-means.

    Returns:
        At least one group, unless there are no micro-rules.
    """
    if not micro_rules:
        return Clustering((), (), "none", ("no micro-rules",))
    order = sorted(range(len(micro_rules)), key=lambda n: (micro_rules[n].id, micro_rules[n].cues))
    members = [micro_rules[n] for n in order]
    points = np.asarray(vectors, dtype=float)[order]
    distances = np.clip(cosine_distances(points), 0.0, 2.0)
    if mode == "paper":
        assigned, method, log = _paper(distances)
    elif most == 1 or _distinct(distances) < (_FEW if mode == "auto" else 2):
        assigned, method = np.zeros(len(members), dtype=int), "one group"
        log = [f"{len(members)} micro-rules in one group, since {'one is wanted' if most == 1 else 'few differ'}"]
    elif mode == "kmeans":
        assigned, method = _kmeans(points, most, seed)
        log = [f"{method} taken"]
    else:
        assigned, method, log = _auto(points, distances, most, seed)
    groups, noise = _grouped(assigned, distances, most)
    return Clustering(
        groups=tuple(tuple(members[n] for n in group) for group in groups),
        noise=tuple(members[n] for n in noise),
        method=method,
        log=tuple(log),
    )


_Attempt = tuple[np.ndarray, str]


def _paper(distances: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    assigned, method = _dbscan(distances, PAPER_EPS, PAPER_MIN_SAMPLES)
    if (assigned >= 0).any():
        return assigned, method, [f"{method} taken: {_sizes(assigned)}"]
    log = [f"{method} finds no group; one group of all, so that the label has a rule"]
    return np.zeros(len(distances), dtype=int), "one group", log


def _auto(points: np.ndarray, distances: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, str, list[str]]:
    """The first healthy attempt; k-means is taken as it is."""
    log: list[str] = []
    for attempt in _attempts(distances, most):
        assigned, method = attempt()
        assigned = _without_singles(assigned)
        reason = _unhealthy(assigned, distances, most)
        if reason is None:
            log.append(f"{method} taken: {_sizes(assigned)}")
            return assigned, method, log
        log.append(f"{method} not taken: {reason}")
    assigned, method = _kmeans(points, most, seed)
    log.append(f"{method} taken: {_sizes(assigned)}")
    return assigned, method, log


def _attempts(distances: np.ndarray, most: int) -> Iterator[Callable[[], _Attempt]]:
    samples = _min_samples(len(distances))
    yield lambda: _dbscan(distances, knee_eps(distances, samples), samples)
    yield lambda: _hdbscan(distances, samples)
    yield lambda: _agglomerative(distances, most)


def knee_eps(distances: np.ndarray, neighbour: int) -> float:
    """The distance at the knee of the sorted distances to the n-th neighbour: the usual eps of DBSCAN.

    The knee is the point farthest below the line from the first to the last, after Satopää et al. 2011 ("Kneedle").

    Args:
        distances: Square matrix of distances.
        neighbour: Which neighbour, the point itself counted, as DBSCAN's min_samples counts it.
    """
    sorted_rows = np.sort(distances, axis=1)
    curve = np.sort(sorted_rows[:, min(neighbour, len(distances)) - 1])
    line = np.linspace(curve[0], curve[-1], len(curve))
    return float(curve[int(np.argmax(line - curve))])


def _min_samples(count: int) -> int:
    """The paper's 6 for a hundred micro-rules and more; fewer for fewer, at least 2."""
    return max(2, min(PAPER_MIN_SAMPLES, round(math.sqrt(count) * PAPER_MIN_SAMPLES / 10)))


def _dbscan(distances: np.ndarray, eps: float, samples: int) -> _Attempt:
    eps = max(eps, _SAME)
    found = DBSCAN(eps=eps, min_samples=samples, metric="precomputed").fit_predict(distances)
    return found, f"DBSCAN (eps {eps:.2f}, min_samples {samples})"


def _hdbscan(distances: np.ndarray, samples: int) -> _Attempt:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # it divides by the distance of identical drafts
        found = HDBSCAN(min_cluster_size=samples, metric="precomputed", copy=True).fit_predict(distances)
    return found, f"HDBSCAN (min_cluster_size {samples})"


def _agglomerative(distances: np.ndarray, most: int) -> _Attempt:
    """Average linkage, cut where the silhouette is best."""
    cuts = {
        wanted: AgglomerativeClustering(wanted, metric="precomputed", linkage="average").fit_predict(distances)
        for wanted in range(2, min(most, _distinct(distances) - 1) + 1)
    }
    best = max(cuts, key=lambda wanted: (_silhouette(cuts[wanted], distances), -wanted))
    return cuts[best], f"agglomerative ({best} groups)"


def _kmeans(points: np.ndarray, wanted: int, seed: int) -> _Attempt:
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: fewer groups come, which is fine.
        warnings.simplefilter("ignore")
        found = KMeans(n_clusters=min(wanted, points.shape[0]), n_init=10, random_state=seed).fit_predict(points)
    return found, f"k-means ({len(np.unique(found))} groups)"


def _unhealthy(assigned: np.ndarray, distances: np.ndarray, most: int) -> str | None:
    """What is wrong with a clustering, or `None`."""
    numbers, sizes = np.unique(assigned[assigned >= 0], return_counts=True)
    if not len(numbers):
        return "all are noise"
    noise = 1 - sizes.sum() / len(assigned)
    if noise > _NOISE_SHARE:
        return f"{noise:.0%} are noise"
    if sizes.max() > _GIANT_SHARE * sizes.sum():
        return f"one group has {sizes.max()} of {sizes.sum()}"
    if len(numbers) > _MOST_TIMES * most:
        return f"{len(numbers)} groups, {most} are wanted"
    silhouette = _silhouette(assigned, distances)
    if silhouette < _LEAST_SILHOUETTE:
        return f"the groups overlap, silhouette {silhouette:.2f}"
    return None


def _silhouette(assigned: np.ndarray, distances: np.ndarray) -> float:
    inside = np.flatnonzero(assigned >= 0)
    if not 2 <= len(np.unique(assigned[inside])) < len(inside):
        return -1.0
    square = distances[np.ix_(inside, inside)]
    np.fill_diagonal(square, 0.0)
    return float(silhouette_score(square, assigned[inside], metric="precomputed"))


def _without_singles(assigned: np.ndarray) -> np.ndarray:
    numbers, sizes = np.unique(assigned, return_counts=True)
    return np.where(np.isin(assigned, numbers[sizes < 2]), -1, assigned)


def _grouped(assigned: np.ndarray, distances: np.ndarray, most: int) -> tuple[list[list[int]], list[int]]:
    """The largest groups, each from its middle outwards, and all else."""
    groups = [np.flatnonzero(assigned == number) for number in np.unique(assigned[assigned >= 0])]
    groups.sort(key=lambda group: (-len(group), int(group[0])))
    chosen: list[list[int]] = []
    for group in groups[:most]:
        spread = distances[np.ix_(group, group)].mean(axis=1).round(9)
        chosen.append([int(n) for n in group[np.argsort(spread, kind="stable")]])
    left = set(range(len(assigned))) - {n for group in chosen for n in group}
    return chosen, sorted(left)


def _distinct(distances: np.ndarray) -> int:
    """How many points differ from all before them."""
    return sum(not (row[:n] < _SAME).any() for n, row in enumerate(distances))


def _sizes(assigned: np.ndarray) -> str:
    _, sizes = np.unique(assigned[assigned >= 0], return_counts=True)
    noise = int((assigned < 0).sum())
    shown = ", ".join(str(size) for size in sorted(sizes, reverse=True))
    return f"groups of {shown}" + (f", {noise} noise" if noise else "")
