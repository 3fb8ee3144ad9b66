"""Running a classifier over labelled rows and scoring it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict

from langchain_pld.artifact import ScoreCard
from langchain_pld.blocking import run_blocking
from langchain_pld.errors import InputError
from langchain_pld.evaluation.metrics import (
    Confusion,
    accuracy,
    expected_calibration_error,
    log_loss,
    macro_f1,
    per_label_f1,
)
from langchain_pld.examples import ExampleSet, Rows, examples_from
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.verdict import Verdict

__all__ = ["Evaluation", "aclassify", "aevaluate", "evaluate", "gold_labels", "score_card", "score_verdicts"]


class Evaluation(BaseModel):
    """A score card and the verdicts that it sums up."""

    model_config = ConfigDict(frozen=True)

    card: ScoreCard
    """The figures."""
    verdicts: tuple[Verdict, ...]
    """One verdict a row, in the rows' order."""


async def aevaluate(
    classifier: PLDClassifier,
    examples: Rows,
    *,
    name: str,
    role: str,
    seed: int = 0,
    concurrency: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classify labelled rows and score the verdicts.

    Args:
        classifier: What is measured; an abstained verdict counts with the label that it leans to.
        examples: Labelled rows, in any form that `examples_from` takes.
        name: What the card is called.
        role: Data role of the rows.
        seed: Seed of the bootstrap.
        concurrency: Calls in flight; 1 for a model in this process, so that a text's time is its own, else 8.
        on_progress: Called with rows done and rows in all.

    Raises:
        InputError: A row has no label, or there is no row.
    """
    examples = examples_from(examples, classifier.artifact.task)
    verdicts = await aclassify(classifier, examples, concurrency=concurrency, on_progress=on_progress)
    card = score_verdicts(classifier, examples, verdicts, name=name, role=role, seed=seed)
    return Evaluation(card=card, verdicts=verdicts)


def evaluate(
    classifier: PLDClassifier,
    examples: Rows,
    *,
    name: str,
    role: str,
    seed: int = 0,
    concurrency: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """As `aevaluate`, for code that does not await, notebooks included."""
    return run_blocking(
        aevaluate(
            classifier,
            examples,
            name=name,
            role=role,
            seed=seed,
            concurrency=concurrency,
            on_progress=on_progress,
        )
    )


async def aclassify(
    classifier: PLDClassifier,
    examples: ExampleSet,
    *,
    concurrency: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Verdict, ...]:
    """One verdict a row, in the rows' order."""
    verdicts: dict[int, Verdict] = {}
    config = RunnableConfig(max_concurrency=concurrency or (1 if classifier.in_process else 8))
    async for index, verdict in classifier.abatch_as_completed([row.input for row in examples], config):
        verdicts[index] = verdict
        if on_progress:
            on_progress(len(verdicts), len(examples))
    return tuple(verdicts[index] for index in range(len(examples)))


def score_verdicts(
    classifier: PLDClassifier,
    examples: ExampleSet,
    verdicts: Sequence[Verdict],
    *,
    name: str,
    role: str,
    seed: int = 0,
) -> ScoreCard:
    """The score card of verdicts that are already there.

    Raises:
        InputError: A row has no label, or there is no row.
    """
    return score_card(
        classifier.artifact.task.label_names,
        examples,
        [verdict.predicted_label for verdict in verdicts],
        [verdict.probabilities for verdict in verdicts],
        name=name,
        role=role,
        student=classifier.spec,
        calibrated=classifier.calibrated,
        seed=seed,
        prompt_tokens=classifier.prompt_tokens,
        ms_per_text=median(verdict.latency_ms for verdict in verdicts) if verdicts else None,
    )


def score_card(
    labels: Sequence[str],
    examples: ExampleSet,
    predicted: Sequence[str | None],
    probabilities: Sequence[Mapping[str, float] | None],
    *,
    name: str,
    role: str,
    student: str,
    calibrated: bool = False,
    seed: int = 0,
    prompt_tokens: int | None = None,
    ms_per_text: float | None = None,
) -> ScoreCard:
    """Score predictions, and probabilities where there are any.

    Args:
        labels: The declared labels.
        examples: Labelled rows, n.
        predicted: The label of each row, n; `None` where the answer failed.
        probabilities: Label to probability of each row, n; rows without are left out of log loss and ECE.
        name: What is measured.
        role: Data role of the rows.
        student: The model that answered; `-` for none.
        calibrated: Whether the probabilities are calibrated.
        seed: Seed of the bootstrap.
        prompt_tokens: Length of the system prompt.
        ms_per_text: Median milliseconds a text.

    Raises:
        InputError: A row has no label, or there is no row.
    """
    gold = gold_labels(examples)
    counts = Confusion(gold, predicted, labels, [row.group for row in examples])
    given = [(p, list(labels).index(label)) for p, label in zip(probabilities, gold, strict=True) if p is not None]
    table = np.array([[p[label] for label in labels] for p, _ in given])
    truth = np.array([index for _, index in given])
    return ScoreCard(
        name=name,
        role=role,
        rows=len(gold),
        student=student,
        calibrated=calibrated,
        macro_f1=counts.interval(macro_f1, seed=seed),
        accuracy=counts.interval(accuracy, seed=seed),
        per_label_f1=dict(zip(labels, map(float, per_label_f1(counts.total)), strict=True)),
        failed=sum(label is None for label in predicted),
        ece=expected_calibration_error(table, truth) if given else None,
        log_loss=log_loss(table, truth) if given else None,
        prompt_tokens=prompt_tokens,
        ms_per_text=ms_per_text,
    )


def gold_labels(examples: ExampleSet) -> list[str]:
    """The gold label of each row.

    Raises:
        InputError: A row has none, or there is no row.
    """
    missing = [row.id for row in examples if row.label is None]
    if missing or not len(examples):
        what = f"{len(missing)} have none, e.g. {missing[0]!r}" if missing else "there is no row"
        msg = f"scoring {examples.source} needs a label on each row: {what}"
        raise InputError(msg)
    return [row.label for row in examples if row.label is not None]
