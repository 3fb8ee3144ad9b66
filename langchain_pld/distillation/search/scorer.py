"""The bench on which candidate prompts are scored with the real student, each prompt and row once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from statistics import median

from langchain_core.language_models import BaseChatModel

from langchain_pld._version import __version__
from langchain_pld.answer import Scorer
from langchain_pld.artifact import Calibration, DistilledPrompt, LedgerLine, ModelFingerprint, ScoreCard
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.progress import OnProgress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.search.candidates import Candidate, LogProbabilities, RowScore, ScoredCandidate
from langchain_pld.distillation.search.racing import behind, looks
from langchain_pld.evaluation.evaluate import Predictions, aclassify, gold_labels, score_card
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.calibration import MINIMUM_ROWS, CalibrationFit, content_free_inputs, fit_calibration
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task, TaskInput
from langchain_pld.verdict import Verdict

__all__ = ["StudentScorer"]

_CHUNK = 25
"""Rows after which what was scored is kept and the budget is looked at."""
_LEAST_PROBABILITY = 1e-6


class StudentScorer:
    """Scores candidates on the rows of a run.

    Answers are kept in the Store under a hash of all that they depend on, so that a resumed run, a race or another
    candidate with the same prompt asks only what is missing.

    Args:
        run: The run, with the student; what test rows take is entered under the node `test`.
        fingerprint: Which model the student is.
        scorer: How its answers are read.
    """

    def __init__(self, run: Run, fingerprint: ModelFingerprint, scorer: Scorer) -> None:
        self.run = run
        self.fingerprint = fingerprint
        self.scorer: Scorer = scorer

    def artifact(self, candidate: Candidate, calibration: Calibration | None = None) -> DistilledPrompt:
        """The artifact that a candidate is scored, and later shipped, as."""
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
        self, candidate: Candidate, rows: ExampleSet, role: Role, on_progress: OnProgress
    ) -> tuple[RowScore, ...]:
        """The student's scores of each row under a candidate's prompt.

        Raises:
            BudgetSpent: The budget does not allow the calls; what was scored before is kept.
        """
        artifact = self.artifact(candidate)
        # Asking for the runtime may import llama.cpp.
        kind = f"scores-{role}-{await asyncio.to_thread(_score_key, artifact, self.run.student)}"
        keys = {row.id: _input_key(row.input) for row in rows}
        known = await self.run.store.get_many(kind, list(keys.values()))
        # The reading of the test rows is no part of the search.
        node = "test" if role == "test" else self.run.node
        missing = [row for row in rows if keys[row.id] not in known]
        if len(missing) < len(rows):
            await self.run.spending.add(LedgerLine(node=node, model=self.fingerprint.spec, cache_hits=len(known)))
        if missing:
            classifier = PLDClassifier(artifact=artifact, student=self.run.student)
            on_progress(len(known), len(rows))  # it begins here
        for start in range(0, len(missing), _CHUNK):
            self.run.spending.check(self.fingerprint.spec)
            part = ExampleSet(source=rows.source, examples=tuple(missing[start : start + _CHUNK]))
            before = len(known)
            verdicts = await aclassify(
                classifier,
                part,
                on_progress=lambda done, _: on_progress(before + done, len(rows)),  # noqa: B023
            )
            fresh = {keys[row.id]: _stored(verdict) for row, verdict in zip(part, verdicts, strict=True)}
            # Kept before they are entered: killed in between, a run does not pay for them again.
            # A server that was down is no property of the prompt: such rows are asked again next time.
            await self.run.store.put_many(
                kind,
                {
                    keys[row.id]: fresh[keys[row.id]]
                    for row, verdict in zip(part, verdicts, strict=True)
                    if verdict.failure is None or not verdict.failure.transient
                },
            )
            await self.run.spending.add(
                _spent(node, self.fingerprint.spec, verdicts),
                cached_tokens=sum(verdict.usage.cached_tokens for verdict in verdicts),
            )
            known |= fresh
        return tuple(RowScore(**known[keys[row.id]]) for row in rows)

    async def validate(
        self, candidate: Candidate, rows: ExampleSet, on_progress: OnProgress = lambda *_: None
    ) -> ScoredCandidate:
        """Score a candidate on validation rows and calibrate it.

        Raises:
            BudgetSpent: The budget does not allow it.
        """
        scores = await self.score(candidate, rows, "validation", on_progress)
        gold, labels = gold_labels(rows), self.run.task.label_names
        groups = [row.group for row in rows]
        usable = [index for index, score in enumerate(scores) if score.log_probabilities is not None]
        fit: CalibrationFit | None = None
        raw: list[LogProbabilities] = [scores[index].log_probabilities or {} for index in usable]
        if len(usable) >= MINIMUM_ROWS:
            free = await self.score(candidate, _content_free(self.run.task), "validation", lambda *_: None)
            fit = fit_calibration(
                raw,
                [gold[i] for i in usable],
                labels,
                groups=[groups[i] for i in usable],
                content_free=[s.log_probabilities for s in free if s.log_probabilities] or None,
                seed=self.run.seed,
            )
        predictions: list[str | None] = [score.label for score in scores]
        losses = [0.0 if s.label == g else -math.log(_LEAST_PROBABILITY) for s, g in zip(scores, gold, strict=True)]
        for position, index in enumerate(usable):
            probabilities = fit.out_of_fold[position] if fit else {key: math.exp(v) for key, v in raw[position].items()}
            predictions[index] = max(probabilities, key=probabilities.__getitem__)
            losses[index] = -math.log(max(probabilities[gold[index]], _LEAST_PROBABILITY))
        return ScoredCandidate(
            candidate=candidate,
            prompt=self.artifact(candidate).system_prompt,
            rows=scores,
            fit=fit,
            predictions=tuple(predictions),
            losses=tuple(losses),
        )

    async def race(
        self,
        candidate: Candidate,
        best: ScoredCandidate,
        rows: ExampleSet,
        on_progress: OnProgress = lambda *_: None,
    ) -> ScoredCandidate | str:
        """Score a candidate as long as it may still beat the best so far, at the plan's `race_level`; see `racing`.

        Args:
            candidate: The challenger.
            best: Scored on all rows.
            rows: The validation rows in an order in which each beginning stands for the whole.
            on_progress: Told the rows done.

        Returns:
            The scored candidate, or why its scoring was stopped.

        Raises:
            BudgetSpent: The budget does not allow it.
        """
        seen = looks(len(rows))
        for count in seen:
            part = ExampleSet(source=rows.source, examples=rows.examples[:count])
            challenger = await self.validate(candidate, part, lambda done, _: on_progress(done, len(rows)))
            incumbent = await self.validate(best.candidate, part)
            p_value = behind(
                challenger.losses,
                incumbent.losses,
                [row.group for row in part],
                level=self.run.plan.race_level / len(seen),
            )
            if p_value is not None:
                return (
                    f"stopped after {count} of {len(rows)} rows: log loss {challenger.loss:.3f} against "
                    f"{incumbent.loss:.3f}, p = {p_value:.1g}"
                )
        return await self.validate(candidate, rows, on_progress)

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
            applied = _calibrated(scored, scores)
            cards.append(self._card(scored, scores, applied, rows, name=name, role=role, calibrated=True))
        return cards

    def labels_of(self, scored: ScoredCandidate, scores: Sequence[RowScore]) -> list[str | None]:
        """The label of each of other rows, with the calibration of the validation rows; `None` where it failed."""
        return _likeliest(_calibrated(scored, scores), scores)

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
        predictions = Predictions(
            _likeliest(probabilities, scores),
            probabilities,
            student=self.fingerprint.spec,
            calibrated=calibrated,
            prompt_tokens=self._prompt_tokens(scored.prompt),
            ms_per_text=median(score.latency_ms for score in scores),
        )
        return score_card(self.run.task, rows, predictions, name=name, role=role, seed=self.run.seed)

    def _prompt_tokens(self, prompt: str) -> int | None:
        return self.run.student.get_num_tokens(prompt) if self.fingerprint.spec.startswith("embedded:") else None


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


def _calibrated(scored: ScoredCandidate, scores: Sequence[RowScore]) -> list[dict[str, float] | None]:
    return [
        None if score.log_probabilities is None else scored.calibration.apply(score.log_probabilities)
        for score in scores
    ]


def _likeliest(probabilities: Sequence[dict[str, float] | None], scores: Sequence[RowScore]) -> list[str | None]:
    """The likeliest label of each row; the one that was read where there are no probabilities."""
    return [max(p, key=p.__getitem__) if p else s.label for p, s in zip(probabilities, scores, strict=True)]


def _input_key(value: TaskInput) -> str:
    """Hash of what the student reads; a row's id may stand for another text in the next run."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _score_key(artifact: DistilledPrompt, student: BaseChatModel) -> str:
    """Hash of all that an answer depends on beside the text; what is known of a rule's effect is not part of it."""
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


def _spent(node: str, model: str, verdicts: Sequence[Verdict]) -> LedgerLine:
    """What the answers took."""
    return LedgerLine(
        node=node,
        model=model,
        calls=sum(verdict.usage.calls for verdict in verdicts),
        failures=sum(verdict.failure is not None for verdict in verdicts),
        input_tokens=sum(verdict.usage.input_tokens for verdict in verdicts),
        output_tokens=sum(verdict.usage.output_tokens for verdict in verdicts),
        seconds=sum(verdict.latency_ms for verdict in verdicts) / 1000,
    )


def _stored(verdict: Verdict) -> dict[str, object]:
    probabilities = verdict.probabilities
    return {
        "label": verdict.predicted_label,
        "log_probabilities": None
        if probabilities is None
        else {label: math.log(max(p, 1e-12)) for label, p in probabilities.items()},
        "latency_ms": verdict.latency_ms,
        "output_tokens": verdict.usage.output_tokens,
    }
