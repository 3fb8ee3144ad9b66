"""critique, first pass: screen the micro-rules and have the teacher judge them before they are merged.

In: micro-rules. Out: those without objections. Near-duplicates form a family: within one label it is judged once and
each member keeps its source; across labels it distinguishes nothing and is dropped, unless most of its sources are on
one side. The teacher reads conditions, never texts. A judgement that is unreadable or condemns most of a batch changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.distillation.nodes.revision import revise
from langchain_pld.distillation.rules.near_duplicates import group_near_duplicates
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.teacher import ask_all
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.rules import MicroRule
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["JUDGED_AT_ONCE", "Judgement", "critique", "judge_messages", "screen_micro_rules"]

JUDGED_AT_ONCE = 12
"""Conditions per judgement."""
_MOST_DROPPED = 0.5
_MAJORITY = 0.75

Family = tuple[MicroRule, ...]


class Drop(BaseModel):
    """One condition that the teacher objects to."""

    number: int = Field(ge=1)
    reason: str = Field(max_length=200)


class Judgement(BaseModel):
    """The teacher's judgement of a batch."""

    drop: list[Drop] = Field(max_length=JUDGED_AT_ONCE)


async def critique(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    if "champion" in state:
        return await revise(state["champion"], state["scorer"], run)
    drafts = state["micro_rules"]
    screen = await asyncio.to_thread(Screen.of, run.task, await run.store.rows_for_teacher())
    kept, reasons = screen_micro_rules(drafts, screen)
    note = f"{len(kept)} of {len(drafts)} micro-rules kept"
    if reasons:
        note += "; out: " + ", ".join(f"{count} that {reason}" for reason, count in Counter(reasons).most_common())
    if not run.plan.judge:
        run.announce(note)
        return {"micro_rules": kept}
    run.note(note)
    judged = await _judge(run, kept)
    run.announce(f"the teacher judged {len(kept)} micro-rules and keeps {len(judged)}")
    return {"micro_rules": judged}


def screen_micro_rules(micro_rules: Sequence[MicroRule], screen: Screen) -> tuple[list[MicroRule], list[str]]:
    """The micro-rules (of all labels) that pass the screens, and the reasons for rejecting the others."""
    reasons: list[str] = []
    passed: list[MicroRule] = []
    for micro in micro_rules:
        objection = screen.objection(micro.condition)
        if micro.label not in screen.task.label_names:
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


async def _judge(run: Run, micro_rules: list[MicroRule]) -> list[MicroRule]:
    """The micro-rules without an objection of the teacher."""
    teacher = run.teacher()
    by_label: dict[str, list[Family]] = defaultdict(list)
    for family in group_near_duplicates(micro_rules):
        by_label[family[0].label].append(family)
    batches = [
        found[start : start + JUDGED_AT_ONCE]
        for label in run.task.label_names
        for found in [by_label[label]]
        for start in range(0, len(found), JUDGED_AT_ONCE)
    ]

    async def judge(batch: list[Family]) -> tuple[set[str], str]:
        label = batch[0][0].label
        question = judge_messages(run.task, label, [family[0].condition for family in batch])
        return _verdict(label, batch, await teacher.ask(question, Judgement))

    verdicts = await ask_all(map(judge, batches), run.progress("teacher judges conditions"))
    for _, line in verdicts:
        if line:
            run.note(line)
    dropped = {one for ids, _ in verdicts for one in ids}
    return [micro for micro in micro_rules if micro.id not in dropped]


def _verdict(label: str, batch: list[Family], answer: Judgement | Failure) -> tuple[set[str], str]:
    """Ids of the micro-rules to drop, and a line for the log."""
    if isinstance(answer, Failure):
        return set(), f"{len(batch)} conditions of {label} not judged and kept: {answer.message}"
    drops = {drop.number: drop.reason for drop in answer.drop if drop.number <= len(batch)}
    if len(drops) > _MOST_DROPPED * len(batch):
        return set(), f"a judgement that would drop {len(drops)} of {len(batch)} conditions of {label} is not followed"
    ids = {micro.id for number in drops for micro in batch[number - 1]}
    reasons = "; ".join(f"{batch[number - 1][0].condition!r}: {' '.join(why.split())}" for number, why in drops.items())
    return ids, f"out for {label}: {reasons}" if reasons else ""
