"""Selecting the examples that the teacher explains.

Labelled train rows come first; if there are too many, half of those taken are hard for the student. If there are too
few, unlabelled rows follow whose label the teacher's votes agree on, and, if the plan wants them, synthetic examples
for small labels.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from langchain_pld.distillation.nodes.synthetic_examples import invent, small_labels
from langchain_pld.distillation.nodes.voting import elect
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.roles import Role, balanced_sample, labelled_rows, text_key
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.run.store import ChosenRow
from langchain_pld.distillation.run.teacher import Teacher, ask_all
from langchain_pld.distillation.search.answer_formats import student_formats
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.search.student_probes import prepare_formats
from langchain_pld.errors import DistillationError
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.verdict import Failure

__all__ = ["POOL", "select_examples", "stop_at_too_many"]

POOL = 2
"""The student reads so many times the wanted rows, to find the hard ones."""


async def select_examples(run: Run, teacher: Teacher) -> list[ChosenRow]:
    """Choose and store the examples that the teacher explains; a resumed run gets the same ones.

    Raises:
        DistillationError: Too many of the votes failed.
    """
    train, wanted = await run.store.require("train"), run.plan.train_examples
    gold = labelled_rows(train)
    rows = await _pick_labelled(run, gold) if len(gold) > wanted else gold
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


async def _pick_labelled(run: Run, gold: ExampleSet) -> ExampleSet:
    """As many labelled rows as the plan wants."""
    wanted = run.plan.train_examples
    if run.plan.choose == "uncertain":
        pool = balanced_sample(gold, POOL * wanted, run.seed)
        try:
            losses = await _zero_shot_losses(run, pool)
        except BudgetSpent as spent:
            run.note(f"examples chosen at random, {spent}")
        else:
            run.note(
                f"{wanted} of {len(gold)} labelled rows, half of them the hardest for the student among {len(pool)}"
            )
            return _half_hard(pool, losses, wanted, run.seed)
    run.note(f"{wanted} of {len(gold)} labelled rows, balanced over labels")
    return balanced_sample(gold, wanted, run.seed)


def _half_hard(pool: ExampleSet, losses: dict[str, float], count: int, seed: int) -> ExampleSet:
    """Half of the rows at random, half with the highest loss, both balanced over labels.

    Not only hard ones, because mislabelled and odd rows are among them.
    """
    usual = balanced_sample(pool, (count + 1) // 2, seed)
    known = {row.id for row in usual}
    left = [row for row in pool if row.id not in known]
    hard = sorted(left, key=lambda row: -losses.get(row.id, 0.0))
    rest = balanced_sample(ExampleSet(source=pool.source, examples=tuple(hard)), count - len(usual), seed=None)
    return ExampleSet(source=pool.source, examples=(*usual.examples, *rest.examples))


async def _zero_shot_losses(run: Run, rows: ExampleSet) -> dict[str, float]:
    """Uncalibrated log loss of each train row, in nats, under the prompt without rules.

    Raises:
        BudgetSpent: The budget ran out.
        StudentError: The student cannot be reached, or none of its answers can be read.
    """
    formats = await student_formats(run, ("names",))
    (answer,), scorer = await prepare_formats(run, formats[:1], run.task.render(rows[0].input))
    student_scorer = StudentScorer(run, await run.student_fingerprint(), scorer)
    progress = run.progress("student reads examples without rules")
    scores = await student_scorer.score(Candidate(answer=answer), rows, "train", progress)
    losses: dict[str, float] = {}
    for row, gold, score in zip(rows, gold_labels(rows), scores, strict=True):
        if score.log_probabilities is not None:
            losses[row.id] = -score.log_probabilities[gold]
        else:
            losses[row.id] = 0.0 if score.label == gold else math.log(len(run.task.labels))
    return losses


async def _vote(run: Run, teacher: Teacher, rows: Sequence[Example], wanted: int) -> list[Example]:
    """Unlabelled rows with the labels that the teacher's votes agree on."""
    plan = run.plan
    some = random.Random(run.seed).sample(rows, min(wanted, len(rows)))
    progress = run.progress("teacher votes on unlabelled examples")
    voted, failures = await elect(run.task, some, teacher, plan, progress)
    stop_at_too_many(failures, plan.votes * len(some), teacher, plan)
    counts = Counter(str(row.label) for row in voted)
    shares = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    run.note(
        f"{len(voted)} of {len(some)} unlabelled rows have a label by {plan.votes} votes, agreement "
        f"{plan.agreement:.0%}" + (f": {shares}" if shares else "")
    )
    return voted


async def _synthesize(run: Run, teacher: Teacher, rows: Sequence[Example]) -> list[Example]:
    """Examples that the teacher makes up for small labels and that win its vote."""
    task, plan, count = run.task, run.plan, run.plan.synthetic_per_small_label
    screen = await asyncio.to_thread(Screen.of, task, await run.store.require("train"))
    # Validation and test rows are only checked for equal texts.
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


def stop_at_too_many(failures: Sequence[Failure], calls: int, teacher: Teacher, plan: Plan) -> None:
    """End the run if too many calls failed, not counting those that the budget did not allow."""
    failed = [failure for failure in failures if failure.kind != "budget"]
    if len(failed) > plan.max_failure_share * calls:
        msg = (
            f"{len(failed)} of {calls} calls to the teacher {teacher.spec} failed, more than the "
            f"{plan.max_failure_share:.0%} allowed; first reason: {failed[0].kind}: {failed[0].message}. The "
            "answers that came are kept"
        )
        raise DistillationError(msg)
