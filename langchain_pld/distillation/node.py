"""The shape of every node of the distillation graph: state in, partial state out."""

from __future__ import annotations

from typing import Any, Protocol

from langgraph.runtime import Runtime

from langchain_pld.distillation.context import DistillationContext
from langchain_pld.distillation.state import DistillationState

__all__ = ["Node"]


class Node(Protocol):
    """A node; what it returns is merged into the state."""

    async def __call__(self, state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        """Do the node's work."""
