"""Candidate prompts and their scores on validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration
from langchain_pld.rules import Rule
from langchain_pld.student.calibration import CalibrationFit

__all__ = ["Candidate", "RowScore", "ScoredCandidate"]

LogProbabilities = dict[str, float]


class Candidate(BaseModel):
    """Rules and answer form that make one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    """The rules in the order of the prompt; none for zero-shot."""
    answer: AnswerFormat
    """What the student answers with."""

    def having(self, rules: tuple[Rule, ...]) -> Candidate:
        """The same answer form with other rules."""
        return Candidate(rules=rules, answer=self.answer)


@dataclass(frozen=True)
class RowScore:
    """What the student said about one row, before calibration."""

    label: str | None
    """The most probable label; `None` for a failed answer."""
    log_probabilities: LogProbabilities | None
    """Label to log-probability; `None` when the answer failed or carried no scores."""
    latency_ms: float
    output_tokens: int = 0


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with its validation scores and the calibration that they give."""

    candidate: Candidate
    prompt: str
    rows: tuple[RowScore, ...]
    fit: CalibrationFit | None
    """`None` where calibration was refused or there are no scores."""
    predictions: tuple[str | None, ...]
    """Label of each row: by out-of-fold calibrated probabilities where there is a fit, else raw."""
    losses: tuple[float, ...]
    """Cross-validated log loss of each row in nats; a failed row costs what a wrong sure answer does."""

    @property
    def loss(self) -> float:
        """Mean of the losses; lower is better."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def output_tokens(self) -> float:
        """Mean tokens that an answer takes."""
        return math.fsum(row.output_tokens for row in self.rows) / len(self.rows)

    @property
    def ms_per_text(self) -> float:
        """Median milliseconds that a text takes."""
        return median(row.latency_ms for row in self.rows)

    @property
    def calibration(self) -> Calibration:
        """The fitted calibration, or none."""
        return self.fit.calibration if self.fit else Calibration.identity(self.candidate.answer.labels)
