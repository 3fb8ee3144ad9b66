"""critique, later passes: the teacher edits rules after the student's mistakes.

The student labels the explained train rows with the best prompt so far; the teacher must see no others. Mistakes are
grouped by confusion of two labels. For each of the most frequent, the teacher sees the rules of both labels, the wrong
texts and the nearest right ones, and answers with a list of actions: proposals that `validate` tests on validation
rows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.answer import Scorer
from langchain_pld.distillation.nodes.consolidate import quote
from langchain_pld.distillation.rules.edits import EditAction, Proposal, RuleEdit
from langchain_pld.distillation.rules.embeddings import LexicalEmbeddings
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.run.teacher import ask_all
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.racing import stratified_order
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Confusion", "find_confusions", "revise"]

_SHOWN_FAILURES = 4
_SHOWN_SUCCESSES = 4


class TeacherEdit(BaseModel):
    """One edit, in the words of the question."""

    action: EditAction
    rule: int = Field(ge=0)
    label: str = ""
    conditions: list[str] = Field(default_factory=list, max_length=4)


class Revision(BaseModel):
    """The teacher's answer."""

    cause: str = Field(max_length=400)
    edits: list[TeacherEdit] = Field(max_length=4)


@dataclass(frozen=True)
class Confusion:
    """One label that the student took for another, on train rows."""

    expected: str
    predicted: str
    failures: tuple[Example, ...]
    """The wrong rows."""
    nearest: tuple[Example, ...]
    """Right rows of the two labels, most similar to the failures first."""


async def revise(best: Candidate, scorer: Scorer, run: Run) -> dict[str, Any]:
    """The critique node after the first validation: proposals for the next one."""
    student_scorer = StudentScorer(run, await run.student_fingerprint(), scorer)
    chosen = tuple(row.example for row in await run.store.chosen())
    rows = ExampleSet(source="explained train rows", examples=chosen)
    proposals: list[Proposal] = []
    try:
        # Scored before, so this comes from the Store; it gives the calibration.
        validation = stratified_order(await run.store.require("validation"), run.seed)
        scored = await student_scorer.validate(best, validation)
        scores = await student_scorer.score(best, rows, "train", run.progress("student labels train rows"))
        confusions = await asyncio.to_thread(find_confusions, run.task, rows, scored.predict(scores))
        wrong = sum(len(confusion.failures) for confusion in confusions)
        run.note(f"{wrong} of {len(rows)} explained rows come out wrong")
        proposals = await _propose(run, best.rules, confusions[: run.plan.revisions])
    except BudgetSpent as spent:
        await run.spending.keep()
        run.note(str(spent))
    run.announce(f"{len(proposals)} proposals for validation")
    return {"proposals": proposals}


def find_confusions(task: Task, rows: ExampleSet, predictions: Sequence[str | None]) -> list[Confusion]:
    """Group the wrong rows by expected and predicted label, most frequent confusion first.

    Args:
        task: The task.
        rows: Labelled train rows, n.
        predictions: The student's label of each row, n; `None` if it gave none.
    """
    wrong: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    right: list[Example] = []
    for row, predicted in zip(rows, predictions, strict=True):
        if predicted == row.label:
            right.append(row)
        elif predicted is not None:
            wrong[str(row.label), predicted].append(row)
    ordered = sorted(wrong.items(), key=lambda item: -len(item[1]))

    def texts(some: Iterable[Example]) -> list[str]:
        return [task.render(row.input) for row in some]

    if not ordered:
        return []
    embeddings = LexicalEmbeddings(texts([*(row for _, failures in ordered for row in failures), *right]))

    def nearest(pair: tuple[str, str], failures: list[Example]) -> list[Example]:
        candidates = [row for row in right if row.label in pair]
        if not candidates:
            return []
        likeness = np.asarray(embeddings.embed_documents(texts(candidates)))
        likeness = (likeness @ np.asarray(embeddings.embed_documents(texts(failures))).T).max(axis=1)
        order = sorted(range(len(candidates)), key=lambda n: (-likeness[n], candidates[n].id))
        return [candidates[n] for n in order[:_SHOWN_SUCCESSES]]

    return [Confusion(*pair, tuple(failures), tuple(nearest(pair, failures))) for pair, failures in ordered]


async def _propose(run: Run, rules: Sequence[Rule], confusions: Sequence[Confusion]) -> list[Proposal]:
    """Ask the teacher about each confusion, one call each."""
    teacher = run.teacher()

    async def ask(confusion: Confusion) -> Proposal | Failure:
        in_question = [rule for rule in rules if rule.label in (confusion.expected, confusion.predicted)]
        answer = await teacher.ask(revision_messages(run.task, in_question, confusion), Revision)
        if isinstance(answer, Failure):
            return answer
        edits = (_translate(edit, in_question, confusion) for edit in answer.edits if edit.action != "keep")
        shown = (*confusion.failures[:_SHOWN_FAILURES], *confusion.nearest)
        return Proposal(
            expected=confusion.expected,
            predicted=confusion.predicted,
            edits=tuple(edits),
            editable=tuple(rule.id for rule in in_question),
            examples=tuple(row.id for row in shown),
            cause=answer.cause,
        )

    answers = await ask_all(map(ask, confusions))
    for confusion, answer in zip(confusions, answers, strict=True):
        outcome = f"{answer.kind}: {answer.message}" if isinstance(answer, Failure) else f"{len(answer.edits)} edits"
        run.note(f"{len(confusion.failures)} {confusion.expected} rows taken for {confusion.predicted}: {outcome}")
    return [answer for answer in answers if isinstance(answer, Proposal) and answer.edits]


def revision_messages(task: Task, rules: Sequence[Rule], confusion: Confusion) -> list[BaseMessage]:
    """The question about one confusion; it numbers the rules."""
    listed = [f"{number}. {rule.condition} -> {rule.label}" for number, rule in enumerate(rules, 1)]
    parts = ["Rules:", *(listed or ["none yet"])]
    parts += [f'\nLabelled "{confusion.predicted}" by the model, but correct is "{confusion.expected}":']
    parts += [quote(task, row) for row in confusion.failures[:_SHOWN_FAILURES]]
    for row in confusion.nearest:
        parts += [f'\nRightly labelled "{row.label}":', quote(task, row)]
    system = fill("revise", instructions=task.instructions, labels=label_lines(task))
    return [SystemMessage(system), HumanMessage("\n".join(parts))]


def _translate(edit: TeacherEdit, in_question: Sequence[Rule], confusion: Confusion) -> RuleEdit:
    """The edit with the rule's id in place of its number; an unknown number names no rule and is refused."""
    known, label = 1 <= edit.rule <= len(in_question), edit.label or confusion.expected
    conditions = () if edit.action == "discard" else tuple(filter(None, map(str.strip, edit.conditions)))
    if edit.action == "add":
        sources = tuple(row.id for row in confusion.failures[:_SHOWN_FAILURES] if row.label == label)
        return RuleEdit(action="add", label=label, conditions=conditions, sources=sources)
    rule = in_question[edit.rule - 1].id if known else f"number {edit.rule}"
    return RuleEdit(action=edit.action, rule=rule, conditions=conditions)
