"""What a user sets for a run: models, effort, seed. Shown and edited in LangGraph Studio."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field

from langchain_pld.distillation.plan import Effort
from langchain_pld.models.resolve import resolve_chat_model

__all__ = ["DistillationContext", "RunModels"]

_DEFAULT_MODEL = "embedded:qwen2.5-coder-1.5b"


class DistillationContext(BaseModel):
    """Settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = Field(
        default=_DEFAULT_MODEL,
        description="The model that explains examples and writes rules, as provider:name; the stronger the better.",
        json_schema_extra={"langgraph_nodes": ["generate", "extract", "consolidate"]},
    )
    student: str = Field(
        default=_DEFAULT_MODEL,
        description="The small model that will decide with the prompt, as provider:name.",
        json_schema_extra={"langgraph_nodes": ["validate"]},
    )
    effort: Effort = Field(default="light", description="How much work is done; light, medium or heavy.")
    seed: int = Field(default=0, description="Seed of every random choice.")


@dataclass(frozen=True)
class RunModels:
    """The models of a run: those handed in as objects, else those that the context names."""

    teacher: BaseChatModel | None = None
    """Used in place of the context's teacher."""
    student: BaseChatModel | None = None
    """Used in place of the context's student."""
    embeddings: Embeddings | None = None
    """Where the vectors of rules come from; an offline default when absent."""
    _resolved: dict[str, BaseChatModel] = field(default_factory=dict)

    async def teacher_for(self, runtime: Runtime[DistillationContext]) -> BaseChatModel:
        """The teacher of this run."""
        return self.teacher or await self._resolve(settings(runtime).teacher)

    async def student_for(self, runtime: Runtime[DistillationContext]) -> BaseChatModel:
        """The student of this run."""
        return self.student or await self._resolve(settings(runtime).student)

    async def _resolve(self, spec: str) -> BaseChatModel:
        if spec not in self._resolved:
            # Importing a provider and looking up model files block.
            self._resolved[spec] = await asyncio.to_thread(resolve_chat_model, spec)
        return self._resolved[spec]


def settings(runtime: Runtime[DistillationContext]) -> DistillationContext:
    """The run's context, or the defaults: without one, LangGraph hands over `None`."""
    return runtime.context or DistillationContext()
