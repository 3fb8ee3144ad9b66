"""Drawing rows of a data set."""

from __future__ import annotations

import random

from langchain_pld.examples import ExampleSet


def draw(rows: ExampleSet, count: int, seed: int) -> ExampleSet:
    """At most `count` rows, drawn at random."""
    drawn = random.Random(seed).sample(list(rows), min(count, len(rows)))
    return ExampleSet(source=rows.source, examples=tuple(drawn))
