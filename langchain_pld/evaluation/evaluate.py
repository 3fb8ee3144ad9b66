"""Running and scoring a classifier on labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict

from langchain_pld.artifact import ScoreCard
from langchain_pld.blocking import blocking
from langchain_pld.errors import InputError
from langchain_pld.evaluation.metrics import accuracy, cluster_bootstrap, confusion_tables, macro_f1, per_label_f1
from langchain_pld.examples import ExampleSet, Rows, examples_from
from langchain_pld.student.calibration_metrics import expected_calibration_error, log_loss
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.task import Task
from langchain_pld.verdict import Verdict

__all__ = ["Evaluation", "Predictions", "aclassify", "aevaluate", "evaluate", "gold_labels", "score_card"]


class Evaluation(BaseModel):
    """A score card and the verdicts behind it."""

    model_config = ConfigDict(frozen=True)

    card: ScoreCard
    """The figures."""
    verdicts: tuple[Verdict, ...]
    """One verdict per row, in row order."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier said about n rows."""

    labels: Sequence[str | None]
    """The label of each row, n; `None` if the answer failed."""
    probabilities: Sequence[Mapping[str, float] | None] = ()
    """Label to probability for each row, n; or empty. Rows without are left out of log loss and ECE."""
    student: str = "-"
    """The model that answered; `-` for none."""
    calibrated: bool = False
    """Whether the probabilities are calibrated."""
    prompt_tokens: int | None = None
    """Length of the system prompt."""
    ms_per_text: float | None = None
    """Median milliseconds per text."""


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
    """Classify labelled rows and score the verdicts; `evaluate` is the blocking form.

    Args:
        classifier: The classifier; an abstained verdict counts with its `predicted_label`.
        examples: Labelled rows, in any form that `examples_from` takes.
        name: Name of the score card.
        role: Data role of the rows.
        seed: Seed of the bootstrap.
        concurrency: Calls in flight; by default 1 for a model in this process, so that each text is timed alone, else
            8.
        on_progress: Called with rows done and total rows.

    Raises:
        InputError: A row has no label, or there are no rows.
    """
    artifact, rows = classifier.artifact, examples_from(examples, classifier.artifact.task)
    gold_labels(rows)
    verdicts = await aclassify(classifier, rows, concurrency=concurrency, on_progress=on_progress)
    predictions = Predictions(
        [verdict.predicted_label for verdict in verdicts],
        [verdict.probabilities for verdict in verdicts],
        student=classifier.spec,
        calibrated=classifier.calibrated,
        prompt_tokens=classifier.prompt_tokens,
        ms_per_text=median(verdict.latency_ms for verdict in verdicts),
    )
    card = score_card(artifact.task, rows, predictions, name=name, role=role, seed=seed)
    return Evaluation(card=card, verdicts=verdicts)


evaluate = blocking(aevaluate)


async def aclassify(
    classifier: PLDClassifier,
    examples: ExampleSet,
    *,
    concurrency: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Verdict, ...]:
    """Classify rows; one verdict per row, in row order."""
    verdicts: dict[int, Verdict] = {}
    config = RunnableConfig(max_concurrency=concurrency or (1 if classifier.in_process else 8))
    async for index, verdict in classifier.abatch_as_completed([row.input for row in examples], config):
        verdicts[index] = verdict
        if on_progress:
            on_progress(len(verdicts), len(examples))
    return tuple(verdicts[index] for index in range(len(examples)))


def score_card(
    task: Task, rows: ExampleSet, predictions: Predictions, *, name: str, role: str, seed: int = 0
) -> ScoreCard:
    """Score the predictions for n labelled rows.

    Args:
        task: The task with its labels.
        rows: Labelled rows, n.
        predictions: Their predictions.
        name: Name of the score card.
        role: Data role of the rows.
        seed: Seed of the bootstrap.

    Raises:
        InputError: A row has no label, or there are no rows.
    """
    gold, labels = gold_labels(rows), task.label_names
    tables = confusion_tables(gold, predictions.labels, labels, [row.group for row in rows])
    scored = [(p, labels.index(label)) for p, label in zip(predictions.probabilities, gold, strict=False) if p]
    probabilities = np.array([[p[label] for label in labels] for p, _ in scored])
    truth = np.array([index for _, index in scored])
    return ScoreCard(
        name=name,
        role=role,
        rows=len(gold),
        student=predictions.student,
        calibrated=predictions.calibrated,
        macro_f1=cluster_bootstrap([tables], macro_f1, seed=seed),
        accuracy=cluster_bootstrap([tables], accuracy, seed=seed),
        per_label_f1=dict(zip(labels, map(float, per_label_f1(tables.sum(axis=0))), strict=True)),
        failed=sum(label is None for label in predictions.labels),
        ece=expected_calibration_error(probabilities, truth) if scored else None,
        log_loss=log_loss(probabilities, truth) if scored else None,
        prompt_tokens=predictions.prompt_tokens,
        ms_per_text=predictions.ms_per_text,
    )


def gold_labels(examples: ExampleSet) -> list[str]:
    """The gold label of each row.

    Raises:
        InputError: A row has none, or there are no rows.
    """
    missing = [row.id for row in examples if row.label is None]
    if missing or not len(examples):
        what = f"{len(missing)} have none, e.g. {missing[0]!r}" if missing else "there are no rows"
        msg = f"scoring {examples.source} needs a label on each row: {what}"
        raise InputError(msg)
    return [row.label for row in examples if row.label is not None]
