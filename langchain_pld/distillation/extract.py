"""extract: one de-entitised micro-rule an example.

In: the explanations. Out: micro-rules. A draft that takes over words, names or numbers of its example is asked for
once more; if it still does, it is rejected with the reason.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langgraph.runtime import Runtime

from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.generate import Explanation, explanation_messages
from langchain_pld.distillation.node import Node
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import RunStore, balanced
from langchain_pld.distillation.screening import screen
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.teacher import Teacher
from langchain_pld.examples import Example
from langchain_pld.rules import MicroRule
from langchain_pld.task import Task

__all__ = ["extract_node"]


def extract_node(models: RunModels) -> Node:
    """Build the node."""

    async def extract(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        run = RunStore(runtime.store, state["run_id"])
        task, plan = state["task"], state["plan"]
        train = await run.required("train")
        rows = balanced(train, plan.train_examples, settings(runtime).seed)
        found = await run.get_many("explanations", [row.id for row in rows])
        teacher = Teacher(
            await models.teacher_for(runtime), node="extract", store=run.store, concurrency=plan.concurrency
        )
        explained = [
            (row, Explanation.model_validate(found[row.id]["explanation"]))
            for row in rows
            if "explanation" in found.get(row.id, {})
        ]
        done = 0

        async def draft(row: Example, explanation: Explanation) -> MicroRule | str:
            nonlocal done
            result = await _micro_rule(task, row, explanation, teacher)
            done += 1
            runtime.stream_writer(
                Progress(node="extract", step="drafts are checked", done=done, total=len(explained)).model_dump()
            )
            return result

        results = await asyncio.gather(*(draft(row, explanation) for row, explanation in explained))
        micro_rules = [result for result in results if isinstance(result, MicroRule)]
        rejected = [result for result in results if isinstance(result, str)]
        note = f"extract: {len(micro_rules)} micro-rules, {len(rejected)} drafts rejected"
        if rejected:
            note += f", e.g. a draft that {rejected[0]}"
        runtime.stream_writer(
            Progress(node="extract", step="done", done=len(results), total=len(results), note=note).model_dump()
        )
        return {"micro_rules": micro_rules, "log": [note], "ledger": teacher.ledger}

    return extract


async def _micro_rule(task: Task, row: Example, explanation: Explanation, teacher: Teacher) -> MicroRule | str:
    """The checked micro-rule of an example, or the reason of its rejection."""
    text = task.render(row.input)
    reason = screen(explanation.condition, [text])
    if reason:
        objection = (
            f"An earlier condition {reason}. Write one in general words: no names, no numbers, no wording of the text."
        )
        again = await teacher.ask(explanation_messages(task, row, objection=objection), Explanation)
        if not isinstance(again, Explanation):
            return reason
        explanation = again
        reason = screen(explanation.condition, [text])
        if reason:
            return reason
    clean = [cue for cue in explanation.cues if not screen(cue, [])]
    counter = [cue for cue in explanation.counter_cues if not screen(cue, [])]
    return MicroRule(
        label=str(row.label),
        condition=" ".join(explanation.condition.split()),
        cues=tuple(clean),
        counter_cues=tuple(counter),
        source=row.id,
    )
