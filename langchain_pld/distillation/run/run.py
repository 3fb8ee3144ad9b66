"""A run as its nodes see it: Store, models, ledger and log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel

from langchain_pld.artifact import ModelFingerprint
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.run.progress import OnProgress, Progress
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import Teacher
from langchain_pld.student.providers import fingerprint_of
from langchain_pld.task import Task

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """A run as one node sees it; see `Run.open`."""

    node: str
    """The current node, for ledger, log and progress."""
    task: Task
    """What to decide."""
    plan: Plan
    """The numbers of the run."""
    store: RunStore
    """The run's part of the Store."""
    student: BaseChatModel
    """The model that will decide."""
    spending: Spending
    """Ledger and budget."""
    teacher_model: BaseChatModel | None = None
    """The model that writes the rules; `None` if a prompt is only scored."""
    embeddings: Embeddings | None = None
    """Embeddings of drafted conditions; by default offline."""
    config: DistillConfig = field(default_factory=DistillConfig)
    """The user's settings."""
    report: Callable[[Progress], None] = lambda _: None
    """Reports progress."""
    log: list[str] = field(default_factory=list)
    """What the node did, one line each."""

    @classmethod
    async def open(
        cls,
        node: str,
        *,
        task: Task,
        plan: Plan,
        store: RunStore,
        student: BaseChatModel,
        teacher_model: BaseChatModel | None = None,
        embeddings: Embeddings | None = None,
        config: DistillConfig | None = None,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> Run:
        """Open the run with the ledger in its Store."""
        spending = await Spending.of(store, plan, report)
        config = config or DistillConfig()
        return cls(node, task, plan, store, student, spending, teacher_model, embeddings, config, report)

    @property
    def seed(self) -> int:
        """Seed of every random choice."""
        return self.config.seed

    def teacher(self, *, unproven: bool = False) -> Teacher:
        """The teacher for this node; see `Teacher`."""
        assert self.teacher_model is not None, "this run has no teacher"
        return Teacher(
            self.teacher_model,
            node=self.node,
            store=self.store.store,
            concurrency=self.plan.concurrency,
            spending=self.spending,
            unproven=unproven,
        )

    async def student_fingerprint(self) -> ModelFingerprint:
        """The student's identity; may ask its server."""
        return await asyncio.to_thread(fingerprint_of, self.student)

    def progress(self, step: str, *, node: str | None = None) -> OnProgress:
        """A callback that reports the progress of a step."""
        return lambda done, total: self.report(Progress(node=node or self.node, step=step, done=done, total=total))

    def note(self, line: str) -> None:
        """Add a line to the log."""
        self.log.append(f"{self.node}: {line}")

    def announce(self, line: str) -> None:
        """Add a line to the log and report it at once."""
        self.note(line)
        self.report(Progress(node=self.node, step="done", done=1, total=1, note=self.log[-1]))
