"""critique, later passes: the teacher edits rules in view of the student's mistakes.

The mistakes are made on train rows, the only ones that a teacher may see: the student labels those that were
explained, with the best prompt so far. They are grouped by confusion (this label taken for that one). For each of the
most frequent confusions the teacher sees the rules of both labels, the wrong texts and the nearest right ones, and
answers with an action list. What comes out are proposals; `validate` decides about each on validation rows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
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
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.search.racing import stratified_order
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["RowsByOutcome", "by_outcome", "propose", "revise"]

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
class RowsByOutcome:
    """Train rows by what the student made of them."""

    failures: dict[tuple[str, str], list[Example]]
    """Expected and predicted label to the rows, the most frequent confusion first."""
    successes: tuple[Example, ...]
    """Rows that came right."""


async def revise(best: Candidate, scorer: Scorer, run: Run) -> dict[str, Any]:
    """The critique node after the first validation: proposals for the next one."""
    student_scorer = StudentScorer(run, await run.student_fingerprint(), scorer)
    chosen = tuple(row.example for row in await run.store.chosen())
    rows = ExampleSet(source="explained train rows", examples=chosen)
    proposals: list[Proposal] = []
    try:
        # Scored before, so this comes from the Store.
        validation = stratified_order(await run.store.require("validation"), run.seed)
        outcome = await by_outcome(student_scorer, await student_scorer.validate(best, validation), rows)
        wrong = sum(map(len, outcome.failures.values()))
        run.note(f"{wrong} of {len(rows)} explained rows come out wrong")
        proposals = await propose(run, best.rules, outcome)
    except BudgetSpent as spent:
        await run.spending.keep()
        run.note(str(spent))
    run.announce(f"{len(proposals)} proposals for validation")
    return {"proposals": proposals}


async def by_outcome(student_scorer: StudentScorer, best: ScoredCandidate, rows: ExampleSet) -> RowsByOutcome:
    """Have the student label train rows with the best prompt so far, calibrated as that prompt is.

    Raises:
        BudgetSpent: The budget does not allow it.
    """
    progress = student_scorer.run.progress("student labels train rows")
    scores = await student_scorer.score(best.candidate, rows, "train", progress)
    failures: dict[tuple[str, str], list[Example]] = defaultdict(list)
    successes: list[Example] = []
    for row, predicted in zip(rows, best.predict(scores), strict=True):
        if predicted == row.label:
            successes.append(row)
        elif predicted is not None:
            failures[str(row.label), predicted].append(row)
    most_frequent_first = sorted(failures.items(), key=lambda item: -len(item[1]))
    return RowsByOutcome(failures=dict(most_frequent_first), successes=tuple(successes))


async def propose(run: Run, rules: Sequence[Rule], rows: RowsByOutcome) -> list[Proposal]:
    """Ask the teacher about the most frequent confusions, one call each.

    Args:
        run: The run, with the teacher; gets a line of log for each call.
        rules: The rules of the best prompt so far.
        rows: From `by_outcome`.
    """
    teacher, pairs = run.teacher(), list(rows.failures)[: run.plan.revisions]
    nearest = await asyncio.to_thread(_nearest, run.task, rows, pairs)
    answers = await ask_all(
        _ask(run.task, rules, pair, rows.failures[pair][:_SHOWN_FAILURES], nearest[pair], teacher) for pair in pairs
    )
    for pair, answer in zip(pairs, answers, strict=True):
        said = f"{answer.kind}: {answer.message}" if isinstance(answer, Failure) else f"{len(answer.edits)} edits"
        run.note(f"{len(rows.failures[pair])} {pair[0]} rows taken for {pair[1]}: {said}")
    return [answer for answer in answers if isinstance(answer, Proposal) and answer.edits]


def revision_messages(
    task: Task, rules: Sequence[Rule], pair: tuple[str, str], failures: Sequence[Example], successes: Sequence[Example]
) -> list[BaseMessage]:
    """The question about one confusion; rules are named by their place in it."""
    expected, predicted = pair
    listed = [f"{number}. {rule.condition} -> {rule.label}" for number, rule in enumerate(rules, 1)]
    parts = ["Rules:", *(listed or ["none yet"])]
    parts += [
        f'\nLabelled "{predicted}" by the model, but correct is "{expected}":',
        *(quote(task, row) for row in failures),
    ]
    for row in successes:
        parts += [f'\nRightly labelled "{row.label}":', quote(task, row)]
    system = fill("revise", instructions=task.instructions, labels=label_lines(task))
    return [SystemMessage(system), HumanMessage("\n".join(parts))]


async def _ask(
    task: Task,
    rules: Sequence[Rule],
    pair: tuple[str, str],
    failures: Sequence[Example],
    successes: Sequence[Example],
    teacher: Teacher,
) -> Proposal | Failure:
    in_question = [rule for rule in rules if rule.label in pair]
    answer = await teacher.ask(revision_messages(task, in_question, pair, failures, successes), Revision)
    if isinstance(answer, Failure):
        return answer
    return Proposal(
        expected=pair[0],
        predicted=pair[1],
        edits=tuple(_translate(edit, in_question, pair, failures) for edit in answer.edits if edit.action != "keep"),
        editable=tuple(rule.id for rule in in_question),
        examples=tuple(row.id for row in (*failures, *successes)),
        cause=answer.cause,
    )


def _translate(
    edit: TeacherEdit, in_question: Sequence[Rule], pair: tuple[str, str], failures: Sequence[Example]
) -> RuleEdit:
    """The edit with the rule's id in place of its number; a number that was not shown names no rule, and is refused."""
    known = 1 <= edit.rule <= len(in_question)
    return RuleEdit(
        action=edit.action,
        rule=None if edit.action == "add" else in_question[edit.rule - 1].id if known else f"number {edit.rule}",
        label=(edit.label or pair[0]) if edit.action == "add" else None,
        conditions=() if edit.action == "discard" else tuple(filter(None, map(str.strip, edit.conditions))),
        sources=tuple(row.id for row in failures if row.label == (edit.label or pair[0]))
        if edit.action == "add"
        else (),
    )


def _nearest(task: Task, rows: RowsByOutcome, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Example]]:
    """For each confusion the right rows of its two labels that are most like the wrong ones."""
    found: dict[tuple[str, str], list[Example]] = {}
    texts = [task.render(row.input) for group in rows.failures.values() for row in group]
    texts += [task.render(row.input) for row in rows.successes]
    if not texts:
        return found
    embeddings = LexicalEmbeddings(texts)
    for pair in pairs:
        candidates = [row for row in rows.successes if row.label in pair]
        if not candidates:
            found[pair] = []
            continue
        wrong = np.asarray(embeddings.embed_documents([task.render(row.input) for row in rows.failures[pair]]))
        right = np.asarray(embeddings.embed_documents([task.render(row.input) for row in candidates]))
        likeness = (right @ wrong.T).max(axis=1)
        order = sorted(range(len(candidates)), key=lambda n: (-likeness[n], candidates[n].id))
        found[pair] = [candidates[n] for n in order[:_SHOWN_SUCCESSES]]
    return found
