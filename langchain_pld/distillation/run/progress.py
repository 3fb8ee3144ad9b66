"""Progress of a run: the payload of the graph's `custom` stream events."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

__all__ = ["OnProgress", "Progress", "log_progress"]

_logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with units done and total units."""


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
    """Total units."""
    note: str | None = None
    """The result of a finished step, in one line."""
    cost: float | None = None
    """US dollars spent so far; sent in separate events without units."""

    def __str__(self) -> str:
        """One line for people, so that `on_progress=print` shows a run."""
        if self.cost is not None:
            return f"{self.node}: {self.cost:.4f} USD so far"
        return f"{self.node}: {self.note or f'{self.step}, {self.done}/{self.total}'}"


def log_progress(progress: Progress) -> None:
    """Log the result of a step; at a prompt or in a notebook without logging, write it to standard error."""
    if not progress.note:
        return
    _logger.info("%s", progress)
    if (hasattr(sys, "ps1") or "ipykernel" in sys.modules) and not _logger.hasHandlers():
        sys.stderr.write(f"{progress}\n")
