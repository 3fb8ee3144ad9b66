"""generate: the teacher reasons about each example under its label.

In: files, rows, or examples in the Store. Out: the examples chosen to learn from and their explanations, both in
the Store. Labelled train rows come first; where they do not fill the plan, unlabelled ones on whose label the votes of
the teacher agree; where the plan wants it, made-up ones for labels with few. One joint call explains an example and
drafts the condition that `extract` checks. An example whose call fails is recorded as failed; too many of them end the
run, with everything paid for kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, Field

from langchain_pld.distillation.nodes.example_selection import POOL, choose_uncertain, zero_shot_losses
from langchain_pld.distillation.nodes.synthetic_examples import invent, small_labels
from langchain_pld.distillation.nodes.voting import elect
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.roles import Role, balanced_sample, labelled_rows, text_key
from langchain_pld.distillation.rules.condition import Condition
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.run.store import ChosenRow, content_key
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.search.model_checks import check_embeddings, check_student
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.errors import DistillationError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Explanation", "explanation_messages", "generate"]


class Explanation(BaseModel):
    """Why an example has its label, and the condition drafted from it."""

    reason: str = Field(min_length=1, max_length=400)
    condition: Condition
    cues: list[str] = Field(default_factory=list, max_length=3)
    counter_cues: list[str] = Field(default_factory=list, max_length=2)


async def generate(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    del state  # what it needs lies in the Store
    teacher = run.teacher(unproven=True)
    await check_student(run, await run.store.require("validation"))
    await check_embeddings(run)
    chosen = await _choose(run, teacher)
    failures = await _explain(run, teacher, [row.example for row in chosen])
    note = f"{len(chosen) - len(failures)} of {len(chosen)} examples explained by {teacher.spec}"
    if failures:
        note += f"; {len(failures)} failed, first: {failures[0].kind}: {failures[0].message}"
    run.announce(note)
    return {"explained": len(chosen) - len(failures)}


def explanation_messages(task: Task, example: Example, *, objection: str = "") -> list[BaseMessage]:
    """The question about one example; `objection` says what was wrong with an earlier answer."""
    system = fill("explain", instructions=task.instructions, labels=label_lines(task), label=str(example.label))
    text = delimited(clean_text(task.render(example.input)))
    return [SystemMessage(system), HumanMessage(f"{text}\n\n{objection}" if objection else text)]


async def _choose(run: Run, teacher: Teacher) -> list[ChosenRow]:
    """The examples that the teacher explains; the same ones when a run is resumed."""
    train, wanted = await run.store.require("train"), run.plan.train_examples
    gold = labelled_rows(train)
    rows = await _pick(run, gold) if len(gold) > wanted else gold
    chosen = [ChosenRow(example=row) for row in rows]
    unlabelled = [row for row in train if row.label is None]
    if unlabelled and len(chosen) < wanted:
        voted = await _vote(run, teacher, unlabelled, wanted - len(chosen))
        chosen += [ChosenRow(example=row, origin="voted") for row in voted]
    if run.plan.synthetic_per_small_label and chosen:
        synthetic = await _synthesize(run, teacher, [row.example for row in chosen])
        chosen += [ChosenRow(example=row, origin="synthetic") for row in synthetic]
    missing = set(run.task.label_names) - {row.example.label for row in chosen}
    if missing:
        run.note(f"no example has the label {', '.join(sorted(missing))}")
    await run.store.put_chosen(chosen)
    return chosen


async def _pick(run: Run, gold: ExampleSet) -> ExampleSet:
    """As many labelled rows as the plan wants."""
    wanted = run.plan.train_examples
    if run.plan.choose == "uncertain":
        pool = balanced_sample(gold, POOL * wanted, run.seed)
        try:
            losses = await zero_shot_losses(run, pool)
        except BudgetSpent as spent:
            run.note(f"examples chosen at random, {spent}")
        else:
            run.note(
                f"{wanted} of {len(gold)} labelled rows, half of them the hardest for the student among {len(pool)}"
            )
            return choose_uncertain(pool, losses, wanted, run.seed)
    run.note(f"{wanted} of {len(gold)} labelled rows, balanced over labels")
    return balanced_sample(gold, wanted, run.seed)


async def _vote(run: Run, teacher: Teacher, rows: Sequence[Example], wanted: int) -> list[Example]:
    """Unlabelled rows with the labels that the teacher's votes agree on."""
    plan = run.plan
    some = random.Random(run.seed).sample(rows, min(wanted, len(rows)))
    progress = run.progress("teacher votes on unlabelled examples")
    voted, failures = await elect(run.task, some, teacher, plan, progress)
    _stop_at_too_many(failures, plan.votes * len(some), teacher, plan)
    counts = Counter(str(row.label) for row in voted)
    shares = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    run.note(
        f"{len(voted)} of {len(some)} unlabelled rows have a label by {plan.votes} votes, agreement "
        f"{plan.agreement:.0%}" + (f": {shares}" if shares else "")
    )
    return voted


async def _synthesize(run: Run, teacher: Teacher, rows: Sequence[Example]) -> list[Example]:
    """Examples that the teacher makes up for labels with few, and that win its vote."""
    task, plan, count = run.task, run.plan, run.plan.synthetic_per_small_label
    screen = await asyncio.to_thread(Screen.of, task, await run.store.require("train"))
    # Of validation and test rows it is only looked whether a text stands there.
    sets = [await run.store.examples(role) for role in get_args(Role)]
    taken = {text_key(task, row.input) for found in sets for row in found or ()}
    kept: list[Example] = []

    async def invent_and_vote(label: str) -> tuple[list[Example], list[Example]] | Failure:
        answer = await invent(task, label, rows, teacher, count=count, screen=screen, taken=taken, seed=run.seed)
        if isinstance(answer, Failure):
            return answer
        voted, _ = await elect(task, answer, teacher, plan)
        return answer, voted

    labels = small_labels(task, rows)
    for label, outcome in zip(labels, await ask_all(map(invent_and_vote, labels)), strict=True):
        if isinstance(outcome, Failure):
            run.note(f"no examples made up for {label}: {outcome.message}")
            continue
        answer, voted = outcome
        won = [row for row in voted if row.label == label]
        run.note(
            f"{len(won)} of {count} made-up examples for {label} kept, {count - len(answer)} screened out, "
            f"{len(answer) - len(won)} lost the vote"
        )
        kept += won
    return kept


async def _explain(run: Run, teacher: Teacher, rows: Sequence[Example]) -> list[Failure]:
    """Explain each row; returns why some have no explanation."""
    failures: list[Failure] = []

    async def explain(example: Example) -> None:
        answer = await teacher.ask(explanation_messages(run.task, example), Explanation)
        if isinstance(answer, Failure):
            failures.append(answer)
        kind = "failed" if isinstance(answer, Failure) else "explanation"
        await run.store.put_many("explanations", {content_key(example): {kind: answer.model_dump()}})

    # Asked one label after the other, so that the prompts of one label share their prefix in the model's cache.
    by_label = sorted(rows, key=lambda row: str(row.label))
    await ask_all(map(explain, by_label), run.progress("teacher explains examples"))
    _stop_at_too_many(failures, len(rows), teacher, run.plan)
    return failures


def _stop_at_too_many(failures: Sequence[Failure], calls: int, teacher: Teacher, plan: Plan) -> None:
    """End the run where too many calls failed; a call that the budget did not allow is none of them."""
    failed = [failure for failure in failures if failure.kind != "budget"]
    if len(failed) > plan.max_failure_share * calls:
        msg = (
            f"{len(failed)} of {calls} calls to the teacher {teacher.spec} failed, more than the "
            f"{plan.max_failure_share:.0%} allowed; first reason: {failed[0].kind}: {failed[0].message}. The "
            "answers that came are kept"
        )
        raise DistillationError(msg)
