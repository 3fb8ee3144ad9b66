"""consolidate: micro-rules become rules.

In: screened micro-rules. Out: merged rules, at least one a label that has drafts. Inside each label the micro-rules
are clustered; the teacher reads each cluster with its texts and with contrasting texts of other labels, and writes
one rule.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from langchain_pld.distillation.clustering import cluster
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.node import Node
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import RunStore
from langchain_pld.distillation.screening import screen
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.teacher import Teacher
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.student.hardening import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["MergedRule", "consolidate_node", "merge_messages"]

_SHOWN_CONDITIONS = 8
_SHOWN_TEXTS = 6
_SHOWN_CHARS = 400


class MergedRule(BaseModel):
    """The rule of a cluster."""

    shared: str = Field(min_length=1, max_length=400)
    condition: str = Field(min_length=10, max_length=300)


def consolidate_node(models: RunModels) -> Node:
    """Build the node."""

    async def consolidate(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        run = RunStore(runtime.store, state["run_id"])
        task, plan, seed = state["task"], state["plan"], settings(runtime).seed
        train = await run.required("train")
        clusters = [
            members
            for label in task.label_names
            for members in await asyncio.to_thread(
                cluster,
                [micro for micro in state["micro_rules"] if micro.label == label],
                plan.rules_per_label,
                seed=seed,
            )
        ]
        teacher = Teacher(
            await models.teacher_for(runtime), node="consolidate", store=run.store, concurrency=plan.concurrency
        )
        done = 0

        async def merge(members: tuple[MicroRule, ...]) -> Rule:
            nonlocal done
            rule = await _merged(task, members, train, plan.contrast_examples, teacher, seed)
            done += 1
            runtime.stream_writer(
                Progress(
                    node="consolidate", step="teacher merges clusters", done=done, total=len(clusters)
                ).model_dump()
            )
            return rule

        merged = await asyncio.gather(*(merge(members) for members in clusters))
        rules = list({rule.id: rule for rule in merged}.values())
        sizes = ", ".join(str(len(members)) for members in clusters)
        note = f"consolidate: {len(state['micro_rules'])} micro-rules in clusters of {sizes} became {len(rules)} rules"
        runtime.stream_writer(
            Progress(node="consolidate", step="done", done=len(clusters), total=len(clusters), note=note).model_dump()
        )
        return {"rules": rules, "log": [note], "ledger": teacher.ledger}

    return consolidate


def merge_messages(
    task: Task, members: tuple[MicroRule, ...], own: list[Example], others: list[Example]
) -> list[BaseMessage]:
    """The question about one cluster."""
    label = members[0].label
    parts = [
        f'The label is "{label}".\n\nConditions:',
        *(f"- {micro.condition}" for micro in members[:_SHOWN_CONDITIONS]),
    ]
    parts += [f'\nTexts labelled "{label}":', *(_quoted(task, example) for example in own)]
    if others:
        parts += ["\nTexts with other labels:", *(_quoted(task, example) for example in others)]
    system = fill("merge", instructions=task.instructions, labels=label_lines(task))
    return [SystemMessage(system), HumanMessage("\n".join(parts))]


async def _merged(
    task: Task,
    members: tuple[MicroRule, ...],
    train: ExampleSet,
    contrast: int,
    teacher: Teacher,
    seed: int,
) -> Rule:
    label = members[0].label
    by_id = {row.id: row for row in train}
    own = [by_id[micro.source] for micro in members[:_SHOWN_TEXTS]]
    strangers = [row for row in train if row.label != label]
    others = random.Random(f"{seed} {members[0].id}").sample(strangers, min(contrast, len(strangers)))
    answer = await teacher.ask(merge_messages(task, members, own, others), MergedRule)
    texts = [task.render(row.input) for row in (*own, *others)]
    if isinstance(answer, Failure) or screen(answer.condition, texts):
        # Without a usable merger a member's own condition, screened before, stands for the cluster.
        return Rule.merged(label, members[0].condition, members)
    return Rule.merged(label, " ".join(answer.condition.split()), members)


def _quoted(task: Task, example: Example) -> str:
    text = clean_text(task.render(example.input))
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + " […]"
    return delimited(shown)
