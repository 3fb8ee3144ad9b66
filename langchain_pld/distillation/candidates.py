"""Candidate prompts and their scores on validation rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from langchain_core.language_models import BaseChatModel

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import Calibration, DistilledPrompt, LedgerLine, ModelFingerprint, ScoreCard
from langchain_pld.distillation.roles import Role, RunStore
from langchain_pld.evaluation.evaluate import aclassify, gold_labels, score_card
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.student.calibration import MINIMUM_ROWS, CalibrationFit, content_free_inputs, fit_calibration
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task
from langchain_pld.verdict import Verdict

__all__ = ["Candidate", "RowScore", "ScoredCandidate", "StudentBench"]

LogProbabilities = dict[str, float]


@dataclass(frozen=True)
class Candidate:
    """Rules and answer form that make one prompt."""

    rules: tuple[Rule, ...]
    answer: AnswerFormat


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


class StudentBench:
    """Scores candidate prompts with the real student, each prompt and row once.

    Answers are kept in the Store under the prompt's hash, so that a resumed run asks only what is missing.
    """

    def __init__(
        self,
        task: Task,
        student: BaseChatModel,
        fingerprint: ModelFingerprint,
        scorer: Scorer,
        run: RunStore,
        seed: int,
    ) -> None:
        self.task = task
        self.student = student
        self.fingerprint = fingerprint
        self.scorer: Scorer = scorer
        self.seed = seed
        self.calls = 0
        self.cached = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.seconds = 0.0
        self._run = run

    def artifact(self, candidate: Candidate, calibration: Calibration | None = None) -> DistilledPrompt:
        """The artifact that a candidate is scored, and later shipped, as."""
        return DistilledPrompt(
            task=self.task,
            rules=candidate.rules,
            system_prompt=compile_prompt(self.task, candidate.rules, candidate.answer),
            answer=candidate.answer,
            scorer=self.scorer,
            calibration=calibration or Calibration.identity(candidate.answer.labels),
            student=self.fingerprint,
        )

    async def score(
        self, candidate: Candidate, rows: ExampleSet, role: Role, on_progress: Callable[[int, int], None]
    ) -> tuple[RowScore, ...]:
        """The student's scores of each row under a candidate's prompt."""
        artifact = self.artifact(candidate)
        kind = f"scores-{role}-{_score_key(artifact)}"
        known = await self._run.get_many(kind, [row.id for row in rows])
        missing = ExampleSet(source=rows.source, examples=tuple(row for row in rows if row.id not in known))
        self.cached += len(known)
        if len(missing):
            classifier = PLDClassifier(artifact=artifact, student=self.student)
            verdicts = await aclassify(
                classifier, missing, on_progress=lambda done, _: on_progress(len(known) + done, len(rows))
            )
            for verdict in verdicts:
                self.calls += verdict.usage.calls
                self.input_tokens += verdict.usage.input_tokens
                self.output_tokens += verdict.usage.output_tokens
                self.seconds += verdict.latency_ms / 1000
            fresh = {row.id: _stored(verdict) for row, verdict in zip(missing, verdicts, strict=True)}
            # A server that was down is no property of the prompt: such rows are asked again next time.
            lasting = {
                row.id: fresh[row.id]
                for row, verdict in zip(missing, verdicts, strict=True)
                if verdict.failure is None or not verdict.failure.transient
            }
            await self._run.put_many(kind, lasting)
            known |= fresh
        return tuple(
            RowScore(
                label=known[row.id]["label"],
                log_probabilities=known[row.id]["log_probabilities"],
                latency_ms=known[row.id]["latency_ms"],
                output_tokens=known[row.id].get("output_tokens", 0),
            )
            for row in rows
        )

    async def validate(
        self, candidate: Candidate, rows: ExampleSet, on_progress: Callable[[int, int], None]
    ) -> ScoredCandidate:
        """Score a candidate on validation rows and calibrate it."""
        scores = await self.score(candidate, rows, "validation", on_progress)
        gold, labels = gold_labels(rows), self.task.label_names
        groups = [row.group for row in rows]
        usable = [index for index, score in enumerate(scores) if score.log_probabilities is not None]
        fit: CalibrationFit | None = None
        raw: list[LogProbabilities] = [scores[index].log_probabilities or {} for index in usable]
        if len(usable) >= MINIMUM_ROWS:
            free = await self.score(candidate, _content_free(self.task), "validation", lambda *_: None)
            fit = fit_calibration(
                raw,
                [gold[i] for i in usable],
                labels,
                groups=[groups[i] for i in usable],
                content_free=[s.log_probabilities for s in free if s.log_probabilities] or None,
                seed=self.seed,
            )
        predictions: list[str | None] = [score.label for score in scores]
        wrong_and_sure = -math.log(1e-6)
        losses = [0.0 if s.label == g else wrong_and_sure for s, g in zip(scores, gold, strict=True)]
        for position, index in enumerate(usable):
            probabilities = fit.out_of_fold[position] if fit else {key: math.exp(v) for key, v in raw[position].items()}
            predictions[index] = max(probabilities, key=probabilities.__getitem__)
            losses[index] = -math.log(max(probabilities[gold[index]], 1e-6))
        return ScoredCandidate(
            candidate=candidate,
            prompt=compile_prompt(self.task, candidate.rules, candidate.answer),
            rows=scores,
            fit=fit,
            predictions=tuple(predictions),
            losses=tuple(losses),
        )

    def cards(self, scored: ScoredCandidate, rows: ExampleSet, *, name: str, role: Role) -> list[ScoreCard]:
        """Raw and calibrated score card on the validation rows; calibrated figures are out of fold."""
        raw = _probabilities(scored.rows)
        cards = [self._card(scored, scored.rows, raw, rows, name=name, role=role, calibrated=False)]
        if scored.fit is not None:
            held_out = iter(scored.fit.out_of_fold)
            calibrated = [next(held_out) if p is not None else None for p in raw]
            cards.append(self._card(scored, scored.rows, calibrated, rows, name=name, role=role, calibrated=True))
        return cards

    def cards_of(
        self, scored: ScoredCandidate, scores: Sequence[RowScore], rows: ExampleSet, *, name: str, role: Role
    ) -> list[ScoreCard]:
        """Raw and calibrated score card on other rows, with the calibration of the validation rows."""
        raw = _probabilities(scores)
        cards = [self._card(scored, scores, raw, rows, name=name, role=role, calibrated=False)]
        if scored.calibration.method != "none":
            applied = [
                scored.calibration.apply(score.log_probabilities) if score.log_probabilities is not None else None
                for score in scores
            ]
            cards.append(self._card(scored, scores, applied, rows, name=name, role=role, calibrated=True))
        return cards

    def ledger_line(self, node: str) -> LedgerLine:
        """What the student's answers cost."""
        return LedgerLine(
            node=node,
            model=self.fingerprint.spec,
            calls=self.calls,
            cache_hits=self.cached,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            seconds=self.seconds,
        )

    def _card(
        self,
        scored: ScoredCandidate,
        scores: Sequence[RowScore],
        probabilities: Sequence[dict[str, float] | None],
        rows: ExampleSet,
        *,
        name: str,
        role: Role,
        calibrated: bool,
    ) -> ScoreCard:
        return score_card(
            self.task.label_names,
            rows,
            [max(p, key=p.__getitem__) if p else s.label for p, s in zip(probabilities, scores, strict=True)],
            probabilities,
            name=name,
            role=role,
            student=self.fingerprint.spec,
            calibrated=calibrated,
            seed=self.seed,
            prompt_tokens=self._prompt_tokens(scored.prompt),
            ms_per_text=median(score.latency_ms for score in scores),
        )

    def _prompt_tokens(self, prompt: str) -> int | None:
        return self.student.get_num_tokens(prompt) if self.fingerprint.spec.startswith("embedded:") else None


def _content_free(task: Task) -> ExampleSet:
    """Inputs without content, for the contextual calibration."""
    rows = tuple(
        Example(id=f"content-free {number}", input=value if isinstance(value, str) else dict(value))
        for number, value in enumerate(content_free_inputs(task))
    )
    return ExampleSet(source="content-free", examples=rows)


def _probabilities(scores: Sequence[RowScore]) -> list[dict[str, float] | None]:
    return [
        None if score.log_probabilities is None else {k: math.exp(v) for k, v in score.log_probabilities.items()}
        for score in scores
    ]


def _score_key(artifact: DistilledPrompt) -> str:
    """Hash of all that the student's answers depend on; what is known of a rule's effect is not part of it."""
    parts = [
        artifact.system_prompt,
        artifact.answer.model_dump_json(),
        artifact.scorer,
        artifact.student.model_dump_json(),
    ]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _stored(verdict: Verdict) -> dict[str, object]:
    probabilities = verdict.probabilities
    return {
        "label": verdict.leaning,
        "log_probabilities": None
        if probabilities is None
        else {label: math.log(max(p, 1e-12)) for label, p in probabilities.items()},
        "latency_ms": verdict.latency_ms,
        "output_tokens": verdict.usage.output_tokens,
    }
