"""extract: one micro-rule per example, without its names and details.

In: the explanations. Out: micro-rules. If a draft copies words, names or numbers of its example or is not a plain
condition, another one is asked for; if that is no better, the example is rejected with the reason. Cues that fail the
same screen are left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from langchain_pld.distillation.nodes.generate import Explanation, explanation_messages
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import ChosenRow, content_key
from langchain_pld.distillation.run.teacher import ask_all
from langchain_pld.distillation.state import DistillationState
from langchain_pld.rules import MicroRule
from langchain_pld.student.sanitize import clean_text
from langchain_pld.task import Task

__all__ = ["extract"]


async def extract(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    del state  # everything it needs is in the Store
    task, teacher = run.task, run.teacher()
    chosen = await run.store.chosen()
    found = await run.store.get_many("explanations", [content_key(row.example) for row in chosen])
    screen = await asyncio.to_thread(Screen.of, task, await run.store.rows_for_teacher())
    asked_again = 0

    async def draft(row: ChosenRow, explanation: Explanation) -> MicroRule | str:
        nonlocal asked_again
        text = task.render(row.example.input)
        objection = screen.objection(explanation.condition, [text])
        if objection is not None:
            asked_again += 1
            question = explanation_messages(task, row.example, objection=objection.request)
            answer = await teacher.ask(question, Explanation)
            if isinstance(answer, Explanation):
                explanation = answer
                objection = screen.objection(explanation.condition, [text])
        return objection.reason if objection else _micro_rule(task, row, explanation, screen)

    drafts = [
        draft(row, Explanation.model_validate(found[key]["explanation"]))
        for row in chosen
        if "explanation" in found.get(key := content_key(row.example), {})
    ]
    results = await ask_all(drafts, run.progress("drafts are checked"))
    micro_rules = [result for result in results if isinstance(result, MicroRule)]
    rejected = Counter(result for result in results if isinstance(result, str))
    note = f"{len(micro_rules)} micro-rules, {asked_again} drafts asked for again"
    if rejected:
        note += "; rejected: " + ", ".join(f"{count} that {reason}" for reason, count in rejected.most_common())
    run.announce(note)
    return {"micro_rules": micro_rules}


def _micro_rule(task: Task, row: ChosenRow, explanation: Explanation, screen: Screen) -> MicroRule:
    """The micro-rule of a screened explanation, with the cues that pass the same screen."""
    source = [task.render(row.example.input)]
    return MicroRule(
        label=str(row.example.label),
        condition=_plain(explanation.condition),
        cues=tuple(_plain(cue) for cue in explanation.cues if not screen.objection(cue, source)),
        counter_cues=tuple(_plain(cue) for cue in explanation.counter_cues if not screen.objection(cue, source)),
        source=row.example.id,
        origin=row.origin,
    )


def _plain(text: str) -> str:
    return " ".join(clean_text(text).split())
