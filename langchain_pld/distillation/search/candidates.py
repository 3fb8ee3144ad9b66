"""Candidate prompts and their scores on validation rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration
from langchain_pld.rules import Rule
from langchain_pld.student.calibration import CalibrationFit

__all__ = ["Candidate", "RowScore", "ScoredCandidate", "most_probable"]

Probabilities = dict[str, float]
"""Label to probability."""


class Candidate(BaseModel):
    """The rules and the answer format of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    """In prompt order; empty for zero-shot."""
    answer: AnswerFormat
    """What the student answers with."""

    def with_rules(self, rules: tuple[Rule, ...]) -> Candidate:
        """The same answer format with other rules."""
        return Candidate(rules=rules, answer=self.answer)


@dataclass(frozen=True)
class RowScore:
    """What the student said about one row, before calibration."""

    label: str | None
    """The most probable label; `None` for a failed answer."""
    log_probabilities: dict[str, float] | None
    """Label to log-probability; `None` if the answer failed or carried no scores."""
    latency_ms: float
    output_tokens: int = 0

    @property
    def probabilities(self) -> Probabilities | None:
        """Label to probability."""
        scores = self.log_probabilities
        return None if scores is None else {label: math.exp(value) for label, value in scores.items()}


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with its scores on validation rows and the calibration fitted to them."""

    candidate: Candidate
    prompt: str
    rows: tuple[RowScore, ...]
    fit: CalibrationFit | None
    """`None` if there are too few scores to calibrate."""
    probabilities: tuple[Probabilities | None, ...]
    """One entry per row: calibrated out of fold if there is a fit, else raw."""
    losses: tuple[float, ...]
    """Log loss of each row in nats; a failed row costs as much as a confident wrong answer."""

    @property
    def predictions(self) -> list[str | None]:
        """The label of each row."""
        return most_probable(self.probabilities, self.rows)

    @property
    def loss(self) -> float:
        """Mean log loss; lower is better."""
        return fmean(self.losses)

    @property
    def output_tokens(self) -> float:
        """Mean output tokens per answer."""
        return fmean(row.output_tokens for row in self.rows)

    @property
    def ms_per_text(self) -> float:
        """Median milliseconds per text."""
        return median(row.latency_ms for row in self.rows)

    @property
    def calibration(self) -> Calibration:
        """The fitted calibration, or the identity."""
        return self.fit.calibration if self.fit else Calibration.identity(self.candidate.answer.labels)

    def calibrate(self, scores: Sequence[RowScore]) -> list[Probabilities | None]:
        """Calibrated probabilities of other rows."""
        rows = (score.log_probabilities for score in scores)
        return [None if row is None else self.calibration.apply(row) for row in rows]

    def predict(self, scores: Sequence[RowScore]) -> list[str | None]:
        """Predicted labels of other rows."""
        return most_probable(self.calibrate(scores), scores)


def most_probable(probabilities: Sequence[Probabilities | None], scores: Sequence[RowScore]) -> list[str | None]:
    """The most probable label of each row, or the label as read if there are no probabilities."""
    return [max(p, key=p.__getitem__) if p else s.label for p, s in zip(probabilities, scores, strict=True)]
