"""critique, first pass: screens the micro-rules, then has the teacher judge them, before they are merged.

In: micro-rules. Out: those that neither a screen nor the teacher objects to. Conditions that say nearly the same are
one family: of one label it is judged once and each member keeps its source; across labels it decides nothing, and goes
out on both sides unless most of its sources stand on one. The teacher reads conditions, never texts. A judgement that
cannot be read, or that condemns most of what it was shown, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from langchain_pld.distillation.context import DistillationContext, RunModels
from langchain_pld.distillation.nodes.pending_answers import Node
from langchain_pld.distillation.nodes.revision import revise
from langchain_pld.distillation.rules.near_duplicates import group_near_duplicates
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import Teacher, together
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.rules import MicroRule
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Judgement", "critique_node", "judge_messages", "screened"]

_BATCH = 12
_MOST_DROPPED = 0.5
_MAJORITY = 0.75

Family = tuple[MicroRule, ...]


class Drop(BaseModel):
    """One condition that the teacher objects to."""

    number: int = Field(ge=1)
    reason: str = Field(max_length=200)


class Judgement(BaseModel):
    """The teacher's judgement of a batch."""

    drop: list[Drop] = Field(max_length=_BATCH)


def critique_node(models: RunModels) -> Node:
    """Build the node."""

    async def critique(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        if "champion" in state:
            return await revise(state, runtime, models)
        task, plan, drafts = state["task"], state["plan"], state["micro_rules"]
        run = RunStore(runtime.store, state["run_id"])
        screen = await asyncio.to_thread(Screen.of, task, await run.taught())
        kept, reasons = screened(drafts, screen)
        log = [_note(len(kept), drafts, reasons)]
        teacher = Teacher(
            await models.teacher_for(runtime),
            node="critique",
            store=run.store,
            concurrency=plan.concurrency,
            spending=await Spending.of(run, plan, runtime),
        )
        if plan.judge:
            kept, lines = await _judged(task, kept, teacher, runtime)
            log += [f"critique: {line}" for line in lines]
        runtime.stream_writer(
            Progress(node="critique", step="done", done=len(drafts), total=len(drafts), note=log[-1]).model_dump()
        )
        return {"micro_rules": kept, "log": log, "ledger": teacher.ledger}

    return critique


def screened(micro_rules: Sequence[MicroRule], screen: Screen) -> tuple[list[MicroRule], list[str]]:
    """The micro-rules that pass the screens, and the reason of each that does not.

    Args:
        micro_rules: Of all labels.
        screen: What a condition must not hold; its labels are those that the task has.
    """
    reasons: list[str] = []
    passed: list[MicroRule] = []
    for micro in micro_rules:
        objection = screen.objection(micro.condition)
        if micro.label not in screen.labels:
            reasons.append("argue for a label that the task does not have")
        elif objection is not None:
            reasons.append(objection.reason)
        else:
            passed.append(micro)
    doubtful: set[str] = set()
    for family in group_near_duplicates(passed):
        sides = Counter(micro.label for micro in family)
        winner, most = sides.most_common(1)[0]
        if len(sides) > 1:
            lost = [micro for micro in family if micro.label != winner or most < _MAJORITY * len(family)]
            doubtful |= {micro.id for micro in lost}
            reasons += ["argue for several labels at once"] * len(lost)
    return [micro for micro in passed if micro.id not in doubtful], reasons


def judge_messages(task: Task, label: str, conditions: Sequence[str]) -> list[BaseMessage]:
    """The question about a batch of conditions of one label."""
    system = fill("judge", instructions=task.instructions, labels=label_lines(task), label=label)
    return [SystemMessage(system), HumanMessage("\n".join(f"{n}. {text}" for n, text in enumerate(conditions, 1)))]


async def _judged(
    task: Task, micro_rules: list[MicroRule], teacher: Teacher, runtime: Runtime[DistillationContext]
) -> tuple[list[MicroRule], list[str]]:
    """The micro-rules that the teacher does not object to, and what it said."""
    by_label: dict[str, list[Family]] = defaultdict(list)
    for family in group_near_duplicates(micro_rules):
        by_label[family[0].label].append(family)
    batches = [
        found[start : start + _BATCH]
        for label in task.label_names
        for found in [by_label[label]]
        for start in range(0, len(found), _BATCH)
    ]
    done = 0

    async def judge(batch: list[Family]) -> tuple[set[str], str]:
        nonlocal done
        label = batch[0][0].label
        question = judge_messages(task, label, [family[0].condition for family in batch])
        answer = await teacher.ask(question, Judgement)
        done += 1
        runtime.stream_writer(
            Progress(node="critique", step="teacher judges conditions", done=done, total=len(batches)).model_dump()
        )
        return _verdict(label, batch, answer)

    verdicts = await together(map(judge, batches))
    dropped = {one for ids, _ in verdicts for one in ids}
    kept = [micro for micro in micro_rules if micro.id not in dropped]
    lines = [line for _, line in verdicts if line]
    return kept, [*lines, f"the teacher judged {len(micro_rules)} micro-rules and keeps {len(kept)}"]


def _verdict(label: str, batch: list[Family], answer: Judgement | Failure) -> tuple[set[str], str]:
    """Ids of the micro-rules to drop, and a line for the log."""
    if isinstance(answer, Failure):
        return set(), f"{len(batch)} conditions of {label} not judged and kept: {answer.message}"
    drops = {drop.number: drop.reason for drop in answer.drop if drop.number <= len(batch)}
    if len(drops) > _MOST_DROPPED * len(batch):
        return set(), f"a judgement that would drop {len(drops)} of {len(batch)} conditions of {label} is not followed"
    ids = {micro.id for number in drops for micro in batch[number - 1]}
    said = "; ".join(f"{batch[number - 1][0].condition!r}: {' '.join(why.split())}" for number, why in drops.items())
    return ids, f"out for {label}: {said}" if said else ""


def _note(kept: int, drafts: Sequence[MicroRule], reasons: Sequence[str]) -> str:
    note = f"critique: {kept} of {len(drafts)} micro-rules kept"
    if reasons:
        counts = Counter(reasons)
        note += "; out: " + ", ".join(f"{count} that {reason}" for reason, count in counts.most_common())
    return note
