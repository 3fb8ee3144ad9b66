"""Which labelled examples the teacher explains, where there are more than the plan allows."""

from __future__ import annotations

import math

from langchain_pld.distillation.roles import balanced_sample
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.search.answer_formats import student_formats
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.search.student_probes import prepare_formats
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.examples import ExampleSet

__all__ = ["POOL", "choose_uncertain", "zero_shot_losses"]

POOL = 2
"""How many times the rows wanted the student reads, so that the hard ones among them can be taken."""


def choose_uncertain(pool: ExampleSet, losses: dict[str, float], count: int, seed: int) -> ExampleSet:
    """Half of the rows at random, the other half those with the highest loss; both balanced over labels.

    Not only the hard ones: among them are the mislabelled and the odd.

    Args:
        pool: Labelled rows.
        losses: Row id to the student's loss without rules.
        count: Rows wanted.
        seed: Seed of the random half.
    """
    usual = balanced_sample(pool, (count + 1) // 2, seed)
    known = {row.id for row in usual}
    left = [row for row in pool if row.id not in known]
    hard = sorted(left, key=lambda row: -losses.get(row.id, 0.0))
    rest = balanced_sample(ExampleSet(source=pool.source, examples=tuple(hard)), count - len(usual), seed=None)
    return ExampleSet(source=pool.source, examples=(*usual.examples, *rest.examples))


async def zero_shot_losses(run: Run, rows: ExampleSet) -> dict[str, float]:
    """Log loss of each train row, in nats, under the prompt without rules; uncalibrated.

    Raises:
        BudgetSpent: The budget does not allow it.
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
