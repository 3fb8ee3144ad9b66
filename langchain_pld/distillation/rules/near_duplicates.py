"""Near-duplicates: micro-rules whose conditions use nearly the same words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from langchain_pld.rules import MicroRule
from langchain_pld.student.sanitize import skeleton

__all__ = ["group_near_duplicates"]

_MIN_WORDS = 4


def group_near_duplicates(micro_rules: Iterable[MicroRule]) -> list[tuple[MicroRule, ...]]:
    """Group the near-duplicates among micro-rules of one or more labels, in the order of their first members.

    Two conditions are near-duplicates if their content words and negations are equal or, with at least four such words
    each, if their negations are equal and their Jaccard similarity is at least 0.8.
    """
    members: dict[frozenset[str], list[tuple[int, MicroRule]]] = defaultdict(list)
    for place, micro in enumerate(micro_rules):
        members[_content_words(micro.condition)].append((place, micro))
    word_sets = list(members)
    edges = _near_pairs(word_sets)
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_array(([1] * len(edges), (rows, columns)), shape=(len(word_sets), len(word_sets)))
    groups: dict[int, list[tuple[int, MicroRule]]] = defaultdict(list)
    for group, words in zip(connected_components(graph, directed=False)[1], word_sets, strict=True):
        groups[int(group)] += members[words]
    return [tuple(micro for _, micro in sorted(group, key=lambda member: member[0])) for group in groups.values()]


def _near_pairs(word_sets: list[frozenset[str]]) -> list[tuple[int, int]]:
    """Pairs of indices, in near-linear time: near-duplicates share one of their rarest words (prefix filter)."""
    frequency = Counter(word for words in word_sets for word in words)
    sharing: dict[str, list[int]] = defaultdict(list)
    pairs: list[tuple[int, int]] = []
    for place, words in enumerate(word_sets):
        if len(words) < _MIN_WORDS:
            continue
        rarest = sorted(words, key=lambda word: (frequency[word], word))
        for word in rarest[: len(words) // 5 + 1]:  # at least four in five are shared
            pairs += [(place, other) for other in sharing[word] if _near(words, word_sets[other])]
            sharing[word].append(place)
    return pairs


def _near(words: frozenset[str], others: frozenset[str]) -> bool:
    return not (words ^ others) & _NEGATIONS and 5 * len(words & others) >= 4 * len(words | others)


def _content_words(condition: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", skeleton(condition))).difference(_FUNCTION_WORDS)


_NEGATIONS = frozenset({"no", "not", "never", "nor", "neither", "without", "cannot", "none", "t"})
_FUNCTION_WORDS = (ENGLISH_STOP_WORDS | {"text", "message", "says", "contains"}) - _NEGATIONS
