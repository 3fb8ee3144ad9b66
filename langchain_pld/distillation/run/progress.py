"""What a run tells while it works: the payload of the graph's `custom` stream events."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

__all__ = ["OnProgress", "Progress"]

OnProgress = Callable[[int, int], None]
"""Called with the units done and the units in all."""


class Progress(BaseModel):
    """How far one step of a node is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    """Node of the graph; `test` for the final reading of the test rows."""
    step: str
    """What is being done, in words."""
    done: int = 0
    """Units done."""
    total: int = 0
    """Units in all."""
    note: str | None = None
    """What the step found, in one line, once it is finished."""
    cost: float | None = None
    """US dollars that the run has spent so far; stands in events of its own, which have no units."""
