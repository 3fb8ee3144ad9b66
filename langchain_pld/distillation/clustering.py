"""Clustering of micro-rules inside each label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from langchain_pld.rules import MicroRule

__all__ = ["cluster"]


def cluster(micro_rules: Sequence[MicroRule], clusters: int, *, seed: int) -> list[tuple[MicroRule, ...]]:
    """Group the micro-rules of one label by what they say, largest group first.

    K-means on TF-IDF vectors of condition and cues, words and word pairs, unit length: Euclidean distance then orders
    as cosine distance does.

    Args:
        micro_rules: Micro-rules of one label.
        clusters: Groups wanted; fewer come when there are fewer distinct drafts.
        seed: Seed of the initial centres.
    """
    if not micro_rules:
        return []
    texts = [" ".join([micro.condition, *micro.cues]) for micro in micro_rules]
    wanted = min(clusters, len(set(texts)))
    if wanted <= 1:
        return [tuple(micro_rules)]
    vectors = normalize(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1).fit_transform(texts))
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: fewer groups come, which is fine.
        warnings.simplefilter("ignore")
        assigned = KMeans(n_clusters=wanted, n_init=10, random_state=seed).fit_predict(vectors)
    groups = [
        tuple(micro for micro, own in zip(micro_rules, assigned, strict=True) if own == number)
        for number in np.unique(assigned)
    ]
    return sorted(groups, key=len, reverse=True)
