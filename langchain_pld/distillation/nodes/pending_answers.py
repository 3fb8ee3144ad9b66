"""The shape of every node of the distillation graph: state in, partial state out.

Where the teacher answers later, a node ends at the first step whose answers are missing. All questions of that step are
written into one request file, and the graph is interrupted. When it is resumed the node runs again: what was answered
and scored before comes from the Store.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from langchain_pld.distillation.context import DistillationContext, RunModels
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.state import DistillationState
from langchain_pld.errors import AnswersPendingError
from langchain_pld.models.batch import BatchChatModel

__all__ = ["Node", "waiting"]


class Node(Protocol):
    """A node; what it returns is merged into the state."""

    async def __call__(self, state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        """Do the node's work."""


def waiting(name: str, node: Node, models: RunModels) -> Node:
    """The node, which interrupts the graph where its teacher has not answered yet.

    Args:
        name: The node's name.
        node: The node.
        models: The models of the run.
    """

    async def run(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        try:
            return await node(state, runtime)
        except AnswersPendingError as error:
            teacher = await models.teacher_for(runtime)
            if not isinstance(teacher, BatchChatModel):
                raise
            request = await asyncio.to_thread(teacher.request, error.questions, node=name)
        note = f"waits for {request['questions']} answers"
        runtime.stream_writer(Progress(node=name, step="waits", note=note).model_dump())
        # What the graph was resumed with before comes back here first. Answers are read from files, so it says nothing.
        while True:
            interrupt(request)

    return run
