"""Scoring candidate prompts with the real student; no prompt is scored twice on the same row."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from langchain_core.language_models import BaseChatModel

from langchain_pld._version import __version__
from langchain_pld.answer import Scorer
from langchain_pld.artifact import Calibration, DistilledPrompt, LedgerLine, ModelFingerprint, ScoreCard
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.progress import OnProgress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.search.candidates import (
    Candidate,
    Probabilities,
    RowScore,
    ScoredCandidate,
    most_probable,
)
from langchain_pld.evaluation.evaluate import Predictions, aclassify, gold_labels, score_card
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.calibration import MINIMUM_ROWS, content_free_inputs, fit_calibration
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import profile_of
from langchain_pld.task import Task, TaskInput
from langchain_pld.verdict import Verdict

__all__ = ["StudentScorer"]

_CHUNK = 25
"""Rows between saving scores and checking the budget."""
_MIN_PROBABILITY = 1e-6


class StudentScorer:
    """Scores candidates on the rows of a run.

    Answers are kept in the Store under a hash of everything they depend on, so a resumed run, a race or another
    candidate with the same prompt asks only for what is missing.

    Args:
        run: The run; calls on test rows go into its ledger under the node `test`.
        fingerprint: Identity of the student.
        scorer: How its answers are read.
    """

    def __init__(self, run: Run, fingerprint: ModelFingerprint, scorer: Scorer) -> None:
        self.run = run
        self.fingerprint = fingerprint
        self.scorer: Scorer = scorer

    def artifact(self, candidate: Candidate, calibration: Calibration | None = None) -> DistilledPrompt:
        """The artifact as which a candidate is scored and later shipped."""
        return DistilledPrompt(
            task=self.run.task,
            rules=candidate.rules,
            system_prompt=compile_prompt(self.run.task, candidate.rules, candidate.answer),
            answer=candidate.answer,
            scorer=self.scorer,
            calibration=calibration or Calibration.identity(candidate.answer.labels),
            student=self.fingerprint,
        )

    async def score(
        self, candidate: Candidate, rows: ExampleSet, role: Role, on_progress: OnProgress = lambda *_: None
    ) -> tuple[RowScore, ...]:
        """Score each row under a candidate's prompt.

        Raises:
            BudgetSpent: The budget ran out; scores so far are kept.
        """
        store, spending, spec = self.run.store, self.run.spending, self.fingerprint.spec
        artifact = self.artifact(candidate)
        # In a thread: reading the runtime may import llama.cpp.
        kind = f"scores-{role}-{await asyncio.to_thread(_score_key, artifact, self.run.student)}"
        keys = {row.id: _input_key(row.input) for row in rows}
        known = await store.get_many(kind, list(keys.values()))
        missing = [row for row in rows if keys[row.id] not in known]
        # Scoring the test rows is not part of the search.
        line = LedgerLine(node="test" if role == "test" else self.run.node, model=spec)
        if known:
            await spending.add(line.model_copy(update={"cache_hits": len(known)}))
        if missing:
            classifier = PLDClassifier(artifact=artifact, student=self.run.student)
            on_progress(len(known), len(rows))  # starts the step's clock
        for start in range(0, len(missing), _CHUNK):
            spending.check(spec)
            chunk = missing[start : start + _CHUNK]
            before = len(known)
            verdicts = await aclassify(
                classifier,
                ExampleSet(source=rows.source, examples=tuple(chunk)),
                on_progress=lambda done, _: on_progress(before + done, len(rows)),  # noqa: B023
            )
            by_key = {keys[row.id]: verdict for row, verdict in zip(chunk, verdicts, strict=True)}
            fresh = {key: asdict(_row_score(verdict)) for key, verdict in by_key.items()}
            # A server that was down says nothing about the prompt: such rows are asked again next time.
            lost = {key for key, verdict in by_key.items() if verdict.failure and verdict.failure.transient}
            # Saved before the ledger entry: a run killed in between does not pay twice.
            await store.put_many(kind, {key: score for key, score in fresh.items() if key not in lost})
            cached_tokens = sum(verdict.usage.cached_tokens for verdict in verdicts)
            await spending.add(_with_usage(line, verdicts), cached_tokens=cached_tokens)
            known |= fresh
        return tuple(RowScore(**known[keys[row.id]]) for row in rows)

    async def validate(
        self, candidate: Candidate, rows: ExampleSet, on_progress: OnProgress = lambda *_: None
    ) -> ScoredCandidate:
        """Score a candidate on validation rows and calibrate it.

        Raises:
            BudgetSpent: The budget ran out.
        """
        scores = await self.score(candidate, rows, "validation", on_progress)
        gold = gold_labels(rows)
        usable = [
            (score.log_probabilities, label, row.group)
            for score, label, row in zip(scores, gold, rows, strict=True)
            if score.log_probabilities is not None
        ]
        fit = None
        probabilities = [score.probabilities for score in scores]
        if len(usable) >= MINIMUM_ROWS:
            content_free = await self.score(candidate, _content_free_rows(self.run.task), "validation")
            raw, labels, groups = zip(*usable, strict=True)
            fit = fit_calibration(
                raw,
                labels,
                self.run.task.label_names,
                groups=groups,
                content_free=[row.log_probabilities for row in content_free if row.log_probabilities] or None,
                seed=self.run.seed,
            )
            out_of_fold = iter(fit.out_of_fold)
            probabilities = [None if row is None else next(out_of_fold) for row in probabilities]
        return ScoredCandidate(
            candidate=candidate,
            prompt=self.artifact(candidate).system_prompt,
            rows=scores,
            fit=fit,
            probabilities=tuple(probabilities),
            losses=tuple(map(_loss, probabilities, scores, gold)),
        )

    def cards(
        self,
        scored: ScoredCandidate,
        rows: ExampleSet,
        *,
        name: str,
        role: Role = "validation",
        scores: Sequence[RowScore] | None = None,
    ) -> list[ScoreCard]:
        """The raw score card, and the calibrated one if there is a calibration.

        Args:
            scored: The candidate.
            rows: The validation rows it was scored on, whose calibrated figures are out of fold; or other rows.
            name: Name of the cards.
            role: Data role of the rows.
            scores: Scores of the other rows.
        """
        if scores is None:
            scores, calibrated = scored.rows, list(scored.probabilities) if scored.fit else None
        else:
            calibrated = scored.calibrate(scores) if scored.calibration.method != "none" else None
        cards = []
        for probabilities in ([score.probabilities for score in scores], calibrated):
            if probabilities is not None:
                predictions = Predictions(
                    most_probable(probabilities, scores),
                    probabilities,
                    student=self.fingerprint.spec,
                    calibrated=probabilities is calibrated,
                    prompt_tokens=self._prompt_tokens(scored.prompt),
                    ms_per_text=median(score.latency_ms for score in scores),
                )
                cards.append(score_card(self.run.task, rows, predictions, name=name, role=role, seed=self.run.seed))
        return cards

    def _prompt_tokens(self, prompt: str) -> int | None:
        tokenizer = profile_of(self.run.student).tokenizer
        return None if tokenizer is None else len(tokenizer(prompt))


def _content_free_rows(task: Task) -> ExampleSet:
    """Inputs without content, for contextual calibration."""
    rows = tuple(
        Example(id=f"content-free {number}", input=value if isinstance(value, str) else dict(value))
        for number, value in enumerate(content_free_inputs(task))
    )
    return ExampleSet(source="content-free", examples=rows)


def _loss(probabilities: Probabilities | None, score: RowScore, gold: str) -> float:
    """Log loss of a row in nats; an answer without probabilities counts as certain."""
    probability = float(score.label == gold) if probabilities is None else probabilities[gold]
    return -math.log(max(probability, _MIN_PROBABILITY))


def _input_key(value: TaskInput) -> str:
    """Hash of what the student reads; a row's id may mean another text in the next run."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _score_key(artifact: DistilledPrompt, student: BaseChatModel) -> str:
    """Hash of everything but the text that an answer depends on; a rule's measured effect does not count."""
    parts = [
        __version__,
        str(getattr(student, "runtime", "")),
        artifact.task.model_dump_json(),
        artifact.system_prompt,
        artifact.answer.model_dump_json(),
        artifact.scorer,
        artifact.student.model_dump_json(),
    ]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _with_usage(line: LedgerLine, verdicts: Sequence[Verdict]) -> LedgerLine:
    usages = [verdict.usage for verdict in verdicts]
    return line.model_copy(
        update={
            "calls": sum(usage.calls for usage in usages),
            "failures": sum(verdict.failure is not None for verdict in verdicts),
            "input_tokens": sum(usage.input_tokens for usage in usages),
            "output_tokens": sum(usage.output_tokens for usage in usages),
            "seconds": sum(verdict.latency_ms for verdict in verdicts) / 1000,
        }
    )


def _row_score(verdict: Verdict) -> RowScore:
    probabilities = verdict.probabilities
    return RowScore(
        label=verdict.predicted_label,
        log_probabilities=None
        if probabilities is None
        else {label: math.log(max(p, 1e-12)) for label, p in probabilities.items()},
        latency_ms=verdict.latency_ms,
        output_tokens=verdict.usage.output_tokens,
    )
