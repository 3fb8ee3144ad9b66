"""The end of a run: old prompt or new one, the test rows, the artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import DistilledPrompt, FinishReason, Gate, ScoreCard
from langchain_pld.distillation.roles import labelled_rows
from langchain_pld.distillation.run.run import Run
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

__all__ = ["Contest", "gate_for", "promote", "unmeasured"]

_TEST_UNREAD = (
    "the test rows were not read: the budget ended the search, and a larger one would continue it; to stop here and "
    "measure this prompt, run `pld evaluate`"
)


@dataclass(frozen=True)
class Contest:
    """The prompts to choose from, all scored on the validation rows."""

    zero_shot: ScoredCandidate
    """The prompt without rules, with its own best answer format."""
    champion: ScoredCandidate
    """The best prompt of the run; the zero-shot one if no rules were as good."""
    incumbent: ScoredCandidate | None = None
    """The prompt now in use."""
    all_rules: ScoredCandidate | None = None
    """The prompt with all merged rules, shown when the champion has none."""
    reviewed: bool = False
    """A person accepted the champion's rules, so they ship whatever the scores say."""

    @property
    def old_prompts(self) -> dict[str, ScoredCandidate]:
        """The prompts that the champion has to beat; if it does not, the last one stays."""
        return {"zero-shot": self.zero_shot} | ({"incumbent": self.incumbent} if self.incumbent else {})

    def prompts(self, winner: ScoredCandidate) -> dict[str, ScoredCandidate]:
        """Score-card name to prompt."""
        if self.champion.candidate.rules:
            # "distilled" is what ships; rules that lost are shown under another name.
            name = "distilled" if winner is self.champion else "rules, not shipped"
            return {**self.old_prompts, name: self.champion}
        return self.old_prompts | ({} if self.all_rules is None else {"rules, not shipped": self.all_rules})


@dataclass(frozen=True)
class Decision:
    """Which prompt ships, and why."""

    winner: ScoredCandidate
    finish_reason: FinishReason
    reasons: tuple[str, ...]
    """Sentences, the most important first."""


async def promote(
    contest: Contest,
    scorer: StudentScorer,
    rows: ExampleSet,
    *,
    ended: FinishReason,
    origin: Mapping[str, Any],
    trials: Sequence[str],
) -> DistilledPrompt:
    """Choose the prompt to ship, score it and the old ones on the test rows, and build the artifact.

    Args:
        contest: The prompts.
        scorer: Scores test rows.
        rows: The validation rows.
        ended: Why the search ended.
        origin: The artifact's fields about its origin: teacher, data, parent.
        trials: Lines about what was tried, for the notes.

    Returns:
        The artifact; its first note says why this prompt ships.
    """
    run, plan = scorer.run, scorer.run.plan

    def compare_scored(new: ScoredCandidate, old: ScoredCandidate) -> Comparison:
        return _compare(run, rows, new.predictions, old.predictions, plan.replace_level)

    decision = await asyncio.to_thread(_decide, contest, ended, compare_scored)
    winner, prompts = decision.winner, contest.prompts(decision.winner)
    cards: list[ScoreCard] = []
    for name, scored in prompts.items():
        # In a thread: it runs the student's tokenizer and resamples the rows.
        cards += await asyncio.to_thread(scorer.cards, scored, rows, name=name)
    test_notes: tuple[str, ...] = ()
    if ended == "budget" and not contest.reviewed:
        # A larger budget continues the search, which must not have seen the test rows by then.
        test_notes = (_TEST_UNREAD,)
    # Rules still to be reviewed are scored again afterwards, and the test rows are read only once.
    elif not plan.require_review or contest.reviewed or not winner.candidate.rules:
        try:
            test_cards, test_notes = await _read_test_rows(scorer, prompts)
            cards += test_cards
        except BudgetSpent as spent:
            test_notes = (f"the test rows were not read: {spent}",)
    gate: Gate | None = None
    gate_notes: tuple[str, ...] = ()
    if plan.max_risk is not None:
        gate, gate_notes = gate_for(Gate(alpha=plan.max_risk), winner, rows, run)
    return scorer.artifact(winner.candidate, winner.calibration).model_copy(
        update={
            **_origin(run, origin),
            "gate": gate,
            "require_review": plan.require_review,
            "scores": tuple(cards),
            "finish_reason": decision.finish_reason,
            "notes": (*decision.reasons, *test_notes, *trials, *_calibration_notes(winner), *gate_notes),
        }
    )


def unmeasured(scorer: StudentScorer, answer: AnswerFormat, origin: Mapping[str, Any]) -> DistilledPrompt:
    """The artifact of a run whose budget ran out before any prompt was scored: no rules, and a note saying so."""
    note = "the budget ran out before any prompt was scored: this one has no rules and was never measured"
    return scorer.artifact(Candidate(answer=answer)).model_copy(
        update={**_origin(scorer.run, origin), "finish_reason": "budget", "notes": (note,)}
    )


def _origin(run: Run, origin: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {**origin, "seed": run.seed, "created": created, "ledger": tuple(run.spending.ledger)}


def _decide(
    contest: Contest, ended: FinishReason, compare_scored: Callable[[ScoredCandidate, ScoredCandidate], Comparison]
) -> Decision:
    champion, zero_shot, incumbent = contest.champion, contest.zero_shot, contest.incumbent
    comparisons = {name: compare_scored(champion, old) for name, old in contest.old_prompts.items()}
    figures = "; ".join(f"against {name} {found.figures('validation')}" for name, found in comparisons.items())
    harmed = sorted({label for found in comparisons.values() for label in found.worse_labels})
    labels = (f"single labels do detectably worse with the rules: {', '.join(harmed)}",) if harmed else ()
    if contest.reviewed and not champion.candidate.rules:
        return Decision(champion, "reviewed", ("a person accepted none of the rules, so this prompt has none",))
    if contest.reviewed:
        worse = [name for name, found in comparisons.items() if found.worse]
        verdict = "not detectably worse than before"
        if worse:
            verdict = f"detectably worse than {' and '.join(worse)}"
        elif all(found.better for found in comparisons.values()):
            verdict = "detectably better than before"
        reason = f"a person accepted these rules; they are {verdict}: {figures}"
        return Decision(champion, "reviewed", (reason, *labels))
    if champion.candidate.rules and all(found.better for found in comparisons.values()):
        return Decision(champion, ended, (f"the distilled prompt is better: {figures}", *labels))
    if incumbent and (plain := compare_scored(zero_shot, incumbent)).better:
        reason = f"the prompt without rules is better than the incumbent, {plain.figures('validation')}"
        lost = f"; the rules are not better than both: {figures}" if champion.candidate.rules else ""
        return Decision(zero_shot, ended, (reason + lost,))
    old_name, old = list(contest.old_prompts.items())[-1]
    if champion.candidate.rules:
        why = figures
    elif ended == "ceiling":
        why = "the prompt without rules is already good enough on the validation rows"
    else:
        why = "no rules lower the log loss on the validation rows"
        if contest.all_rules is not None:
            why += f"; all rules {compare_scored(contest.all_rules, zero_shot).figures('validation')}"
    gainless = ended == "converged" or (ended != "budget" and champion.candidate.rules)
    reason = f"no detectable gain, the {old_name} prompt stays: {why}"
    return Decision(old, "no_gain" if gainless else ended, (reason,))


def _compare(
    run: Run, rows: ExampleSet, new: Sequence[str | None], old: Sequence[str | None], confidence: float
) -> Comparison:
    groups = [row.group for row in rows]
    labels = run.task.label_names
    return compare(gold_labels(rows), new, old, labels, groups, confidence=confidence, seed=run.seed)


async def _read_test_rows(
    scorer: StudentScorer, prompts: Mapping[str, ScoredCandidate]
) -> tuple[list[ScoreCard], tuple[str, ...]]:
    """Score the prompts and the plain baselines on the test rows, which are read nowhere else.

    Also returns sentences that compare the new prompt with the old ones, for people; nothing is chosen by them.
    """
    run = scorer.run
    rows = await run.store.examples("test")
    if rows is None:
        return [], ()
    train = labelled_rows(await run.store.require("train"))
    baselines = await asyncio.to_thread(
        lambda: [card(run.task, train, rows, role="test", seed=run.seed) for card in (majority_card, ngram_card)]
    )
    cards = [card for card in baselines if card is not None]
    predictions: dict[str, list[str | None]] = {}
    for name, scored in prompts.items():
        progress = run.progress(f"student reads the test rows, {name}", node="test")
        scores = await scorer.score(scored.candidate, rows, "test", progress)
        cards += await asyncio.to_thread(scorer.cards, scored, rows, name=name, role="test", scores=scores)
        predictions[name] = scored.predict(scores)
    notes = []
    old_names = [name for name in ("zero-shot", "incumbent") if name in predictions]
    for old in old_names:
        for new in predictions.keys() - set(old_names):
            found = await asyncio.to_thread(_compare, run, rows, predictions[new], predictions[old], 0.95)
            notes.append(f"{new} against {old}, {found.figures('test')}: {found.verdict}")
    return cards, tuple(notes)


def _calibration_notes(scored: ScoredCandidate) -> tuple[str, ...]:
    """What calibration changed, or why there is none."""
    if scored.fit is None:
        return (f"not calibrated: fewer than {MINIMUM_ROWS} validation rows have a scored answer",)
    return (scored.fit.describe(), *scored.fit.warnings)


def gate_for(wanted: Gate, scored: ScoredCandidate, rows: ExampleSet, run: Run) -> tuple[Gate, tuple[str, ...]]:
    """Fit a gate with the wanted risk and confidence; it always abstains if no threshold keeps the risk.

    Args:
        wanted: Gives risk and confidence.
        scored: The prompt, scored on the validation rows.
        rows: The validation rows.
        run: Gives the task and the seed.

    Returns:
        The gate, and notes about it.
    """
    alpha, confidence = wanted.alpha, wanted.confidence
    try:
        gate = fit_gate(
            scored.probabilities if scored.fit else [None] * len(rows),
            gold_labels(rows),
            run.task.label_names,
            alpha=alpha,
            confidence=confidence,
            groups=[row.group for row in rows],
            seed=run.seed,
        )
    except InputError as error:
        return Gate(alpha=alpha, confidence=confidence), (f"the gate always abstains: {error}",)
    if gate.threshold is None and not any(gate.label_thresholds.values()):
        return gate, (f"the gate always abstains: no threshold keeps the risk at or below {alpha:.0%}",)
    return gate, ()
