"""What a run ships: the gate between the old prompt and the new one, the reading of the test rows, the artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import DistilledPrompt, FinishReason, Gate, ScoreCard
from langchain_pld.distillation.roles import Role, labelled
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.errors import InputError
from langchain_pld.evaluation.baselines import majority_card, ngram_card
from langchain_pld.evaluation.comparison import Comparison, compare
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.examples import ExampleSet
from langchain_pld.student.calibration import MINIMUM_ROWS
from langchain_pld.student.gates import fit_gate
from langchain_pld.task import Task

__all__ = ["Contest", "calibration_notes", "gate_for", "release"]

_TEST_UNREAD = (
    "the test rows were not read: the budget ended the search, and with a larger one it goes on; to end it here and "
    "measure this prompt, use `pld evaluate`"
)


@dataclass(frozen=True)
class Contest:
    """The prompts of which one is shipped, all scored on the validation rows."""

    zero_shot: ScoredCandidate
    """The prompt without rules, with its own best answer form."""
    champion: ScoredCandidate
    """The best prompt of the run; the zero-shot one where no rules were as good."""
    incumbent: ScoredCandidate | None = None
    """The prompt that is in use now, where there is one."""
    all_rules: ScoredCandidate | None = None
    """The prompt with all merged rules: what is shown of rules when the champion has none."""
    reviewed: bool = False
    """A person has accepted the champion's rules: they are shipped, whatever the scores say."""

    @property
    def old(self) -> ScoredCandidate:
        """What stays when nothing better was found."""
        return self.incumbent or self.zero_shot

    @property
    def old_name(self) -> str:
        """What it is called."""
        return "incumbent" if self.incumbent else "zero-shot"


async def release(
    contest: Contest | None,
    bench: StudentScorer,
    rows: ExampleSet,
    *,
    ended: FinishReason,
    first_choice: AnswerFormat,
    origin: Mapping[str, Any],
    trials: Sequence[str],
) -> tuple[DistilledPrompt, str]:
    """Choose the prompt to ship, read the test rows with it and with the old one, and write the artifact.

    Args:
        contest: The prompts; `None` where the budget was spent before any was scored.
        bench: Scores test rows.
        rows: The validation rows.
        ended: Why the search ended.
        first_choice: The answer form of the prompt that is shipped when none was scored.
        origin: Fields of the artifact that say where it comes from: teacher, data, parent.
        trials: Lines about what was tried, for the notes.

    Returns:
        The artifact, and the sentence that says why its prompt is shipped.
    """
    run, plan = bench.run, bench.run.plan
    origin = {**origin, "seed": run.seed, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    if contest is None:
        reason = "the budget was spent before any prompt was scored: this one has no rules and was never measured"
        unmeasured = bench.artifact(Candidate(answer=first_choice)).model_copy(
            update={**origin, "finish_reason": ended, "ledger": tuple(run.spending.ledger), "notes": (reason,)}
        )
        return unmeasured, reason
    winner, finish_reason, reasons = _gate_between(contest, bench, rows, ended)
    prompts = {"zero-shot": contest.zero_shot}
    if contest.incumbent:
        prompts["incumbent"] = contest.incumbent
    if contest.champion.candidate.rules or contest.reviewed:
        # What is called distilled is what is shipped; rules that lost are shown beside it under another name.
        prompts["distilled" if winner is contest.champion else "rules, not shipped"] = contest.champion
    elif contest.all_rules is not None:
        prompts["rules, not shipped"] = contest.all_rules
    scores: list[ScoreCard] = []
    for name, one in prompts.items():
        # Asks the student's tokenizer, and resamples the rows.
        scores += await asyncio.to_thread(bench.cards, one, rows, name=name, role="validation")
    read: tuple[str, ...] = ()
    try:
        if ended == "budget" and not contest.reviewed:
            # With a larger budget the search goes on: nobody may know by then how it does on the test rows.
            read = (_TEST_UNREAD,)
        # What a person has yet to review is scored again afterwards; the test rows are read once.
        elif not plan.require_review or contest.reviewed or not winner.candidate.rules:
            cards, read = await _test_cards(bench, prompts)
            scores += cards
    except BudgetSpent as spent:
        read = (f"the test rows were not read: {spent}",)
    gate: Gate | None = None
    gate_notes: tuple[str, ...] = ()
    if plan.max_risk is not None:
        gate, gate_notes = gate_for(Gate(alpha=plan.max_risk), winner, rows, run.task, run.seed)
    artifact = bench.artifact(winner.candidate, winner.calibration).model_copy(
        update={
            **origin,
            "gate": gate,
            "require_review": plan.require_review,
            "scores": tuple(scores),
            "finish_reason": finish_reason,
            "ledger": tuple(run.spending.ledger),
            "notes": (*reasons, *read, *trials, *calibration_notes(winner), *gate_notes),
        }
    )
    return artifact, reasons[0]


def _gate_between(
    contest: Contest, bench: StudentScorer, rows: ExampleSet, ended: FinishReason
) -> tuple[ScoredCandidate, str, tuple[str, ...]]:
    """The prompt to ship, the finish reason, and the sentences that say why."""
    champion, level = contest.champion, bench.run.plan.replace_level
    against = {"zero-shot": contest.zero_shot}
    if contest.incumbent:
        against["incumbent"] = contest.incumbent
    found = {name: _compared(champion, other, rows, bench, level) for name, other in against.items()}
    figures = "; ".join(f"against {name} {_figures(comparison)}" for name, comparison in found.items())
    harmed = sorted({label for comparison in found.values() for label in comparison.worse_labels})
    labels = (f"single labels do detectably worse with the rules: {', '.join(harmed)}",) if harmed else ()
    if contest.reviewed and not champion.candidate.rules:
        return champion, "reviewed", ("a person accepted none of the rules, so this prompt has none",)
    if contest.reviewed:
        worse = [name for name, comparison in found.items() if comparison.worse]
        verdict = f"detectably worse than {' and '.join(worse)}" if worse else "not detectably worse than before"
        return champion, "reviewed", (f"a person accepted these rules; they are {verdict}: {figures}", *labels)
    if champion.candidate.rules and all(comparison.better for comparison in found.values()):
        return champion, ended, (f"the distilled prompt is better: {figures}", *labels)
    if contest.incumbent:
        plain = _compared(contest.zero_shot, contest.incumbent, rows, bench, level)
        if plain.better:
            reason = f"the prompt without rules is better than the incumbent, {_figures(plain)}"
            lost = f"; the rules are not better than both: {figures}" if champion.candidate.rules else ""
            return contest.zero_shot, ended, (reason + lost,)
    if not champion.candidate.rules:
        why = "no rules have a lower log loss on the validation rows than none"
        if contest.all_rules is not None:
            comparison = _compared(contest.all_rules, contest.zero_shot, rows, bench, level)
            why += f"; all rules {_figures(comparison)}"
        if ended == "ceiling":
            why = "without rules the validation rows come out as right as they need to be"
        reason = f"no detectable gain, the {contest.old_name} prompt stays: {why}"
        return contest.old, "no_gain" if ended == "converged" else ended, (reason,)
    reason = f"no detectable gain, the {contest.old_name} prompt stays: {figures}"
    return contest.old, ended if ended == "budget" else "no_gain", (reason,)


def _compared(
    challenger: ScoredCandidate, incumbent: ScoredCandidate, rows: ExampleSet, bench: StudentScorer, level: float
) -> Comparison:
    return _paired(challenger.predictions, incumbent.predictions, rows, bench, level)


def _paired(
    challenger: Sequence[str | None],
    incumbent: Sequence[str | None],
    rows: ExampleSet,
    bench: StudentScorer,
    level: float,
) -> Comparison:
    return compare(
        gold_labels(rows),
        challenger,
        incumbent,
        bench.run.task.label_names,
        [row.group for row in rows],
        confidence=level,
        seed=bench.run.seed,
    )


def _figures(comparison: Comparison, role: Role = "validation") -> str:
    difference = comparison.difference
    return (
        f"macro-F1 on {comparison.rows} {role} rows {difference.value:+.3f}, "
        f"{difference.level:.0%} interval {difference.low:+.3f} to {difference.high:+.3f}, "
        f"McNemar p {comparison.mcnemar_p:.2g}"
    )


async def _test_cards(
    bench: StudentScorer, prompts: dict[str, ScoredCandidate]
) -> tuple[list[ScoreCard], tuple[str, ...]]:
    """The only place where test rows are read: the prompts beside the plain baselines, and what they are to each other.

    The sentences compare the new prompt with the old ones. They are told and nothing is chosen by them.
    """
    run = bench.run
    rows = await run.store.examples("test")
    if rows is None:
        return [], ()
    train = labelled(await run.store.required("train"))
    baselines = await asyncio.to_thread(
        lambda: [
            majority_card(run.task, train, rows, role="test", seed=run.seed),
            ngram_card(run.task, train, rows, role="test", seed=run.seed),
        ]
    )
    cards = [card for card in baselines if card is not None]
    labels: dict[str, list[str | None]] = {}
    for name, scored in prompts.items():
        progress = run.progress(f"student reads the test rows, {name}", node="test")
        scores = await bench.score(scored.candidate, rows, "test", progress)
        cards += await asyncio.to_thread(bench.cards_of, scored, scores, rows, name=name, role="test")
        labels[name] = bench.labels_of(scored, scores)
    told: list[str] = []
    for old in (name for name in ("zero-shot", "incumbent") if name in labels):
        for name in labels.keys() - {"zero-shot", "incumbent"}:
            found = await asyncio.to_thread(_paired, labels[name], labels[old], rows, bench, 0.95)
            told.append(f"{name} against {old}, {_figures(found, 'test')}: {_verdict(found)}")
    return cards, tuple(told)


def _verdict(comparison: Comparison) -> str:
    if comparison.better or comparison.worse:
        return f"detectably {'better' if comparison.better else 'worse'}"
    return "no detectable difference"


def calibration_notes(scored: ScoredCandidate) -> tuple[str, ...]:
    """What calibrating a prompt brought, or why it was not calibrated."""
    if scored.fit is None:
        return (f"not calibrated: fewer than {MINIMUM_ROWS} validation rows have a scored answer",)
    return (scored.fit.describe(), *scored.fit.warnings)


def gate_for(
    wanted: Gate, scored: ScoredCandidate, rows: ExampleSet, task: Task, seed: int
) -> tuple[Gate, tuple[str, ...]]:
    """The gate of a prompt for the wanted risk, with notes; one that always abstains where no threshold keeps it.

    Args:
        wanted: Says risk and confidence.
        scored: The prompt, scored on the validation rows.
        rows: Those rows.
        task: The task.
        seed: Seed of the fit.
    """
    held_out = iter(scored.fit.out_of_fold if scored.fit else ())
    probabilities = [None if row.log_probabilities is None else next(held_out, None) for row in scored.rows]
    alpha, confidence = wanted.alpha, wanted.confidence
    try:
        gate = fit_gate(
            probabilities,
            gold_labels(rows),
            task.label_names,
            alpha=alpha,
            confidence=confidence,
            groups=[row.group for row in rows],
            seed=seed,
        )
    except InputError as error:
        return Gate(alpha=alpha, confidence=confidence), (f"the gate always abstains: {error}",)
    if gate.threshold is None and not any(gate.label_thresholds.values()):
        return gate, (f"the gate always abstains: no threshold keeps the risk at or below {alpha:.0%}",)
    return gate, ()
