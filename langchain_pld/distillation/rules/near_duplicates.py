"""Families of micro-rules: conditions that say nearly the same in nearly the same words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from langchain_pld.rules import MicroRule
from langchain_pld.student.sanitize import skeleton

__all__ = ["families"]

_LEAST_WORDS = 4
_OVERLAP = 0.8


def families(micro_rules: Iterable[MicroRule]) -> list[tuple[MicroRule, ...]]:
    """Group micro-rules, of one label or of several, by what their conditions say.

    Two conditions are near when they have the same content words and negations, or of at least four such words four in
    five; a negation that only one of them has keeps them apart.

    Returns:
        The families in the order of their first members; each micro-rule is in exactly one.
    """
    rules = list(micro_rules)
    words = [_content(micro.condition) for micro in rules]
    holding: dict[str, list[int]] = defaultdict(list)
    for place, own in enumerate(words):
        for word in own:
            holding[word].append(place)
    edges = [(place, place) for place in range(len(rules))]
    for place, own in enumerate(words):
        others = {other for word in own for other in holding[word] if other < place}
        edges += [(place, other) for other in others if _near(own, words[other])]
        edges += [] if own else [(place, words.index(own))]
    if not edges:
        return []
    rows, columns = zip(*edges, strict=True)
    graph = coo_array(([1] * len(edges), (rows, columns)), shape=(len(rules), len(rules)))
    _, numbers = connected_components(graph, directed=False)
    found: dict[int, list[MicroRule]] = defaultdict(list)
    for number, micro in zip(numbers, rules, strict=True):
        found[int(number)].append(micro)
    return [tuple(members) for members in found.values()]


def _near(own: frozenset[str], other: frozenset[str]) -> bool:
    if own == other:
        return True
    if (own ^ other) & _NEGATIONS or min(len(own), len(other)) < _LEAST_WORDS:
        return False
    return len(own & other) >= _OVERLAP * len(own | other)


def _content(condition: str) -> frozenset[str]:
    return frozenset(word for word in _WORD.findall(skeleton(condition)) if word not in _FUNCTION_WORDS)


_NEGATIONS = frozenset({"no", "not", "never", "nor", "neither", "without", "cannot", "none", "t"})
_FUNCTION_WORDS = (ENGLISH_STOP_WORDS | {"text", "message", "says", "contains"}) - _NEGATIONS
_WORD = re.compile(r"\w+")
