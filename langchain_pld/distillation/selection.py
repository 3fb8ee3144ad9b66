"""Choosing rules on validation rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from langchain_pld.distillation.candidates import Candidate, ScoredCandidate
from langchain_pld.rules import Rule

__all__ = ["blame", "eliminate"]

Validate = Callable[[Candidate, str], Awaitable[ScoredCandidate]]


async def eliminate(
    best: ScoredCandidate,
    zero_shot: ScoredCandidate,
    gold: Sequence[str],
    rounds: int,
    validate: Validate,
) -> tuple[ScoredCandidate, list[str]]:
    """Backward elimination: take out the rule with the most blame as long as the log loss does not rise.

    Args:
        best: The prompt with all rules, scored.
        zero_shot: The prompt without rules, scored on the same rows.
        gold: Gold labels of those rows.
        rounds: Candidate prompts to score at most.
        validate: Scores a candidate; its second argument says what is being tried.

    Returns:
        The best prompt and a line for each round.
    """
    log: list[str] = []
    tried: set[str] = set()
    for _ in range(rounds):
        suspects = [rule for rule in best.candidate.rules if rule.id not in tried]
        if len(best.candidate.rules) < 2 or not suspects:
            break
        blamed = blame(best, zero_shot, gold)
        suspect = max(suspects, key=lambda rule: (blamed[rule.id], -rule.support, rule.id))
        tried.add(suspect.id)
        rules = tuple(rule for rule in best.candidate.rules if rule.id != suspect.id)
        challenger = await validate(Candidate(rules, best.candidate.answer), f"without rule {suspect.id}")
        effect = challenger.loss - best.loss
        if effect <= 0:
            log.append(f"rule {suspect.id} ({suspect.label}) out: log loss {best.loss:.3f} to {challenger.loss:.3f}")
            best = challenger
        else:
            kept = tuple(
                rule.model_copy(update={"effect": effect}) if rule.id == suspect.id else rule
                for rule in best.candidate.rules
            )
            best = replace(best, candidate=Candidate(kept, best.candidate.answer))
            log.append(f"rule {suspect.id} ({suspect.label}) stays: without it log loss rises by {effect:.3f}")
    return best, log


def blame(scored: ScoredCandidate, zero_shot: ScoredCandidate, gold: Sequence[str]) -> dict[str, float]:
    """How much a rule's label gained on rows of other labels, less what it gained on its own, in nats a row.

    Measured on raw scores against the prompt without rules; rules of one label share the figure.
    """
    shifts: dict[str, list[float]] = {}
    for new, old, label in zip(scored.rows, zero_shot.rows, gold, strict=True):
        if new.log_probabilities is None or old.log_probabilities is None:
            continue
        for name, value in new.log_probabilities.items():
            gain = value - old.log_probabilities[name]
            shifts.setdefault(name, []).append(-gain if name == label else gain)
    return {rule.id: _mean(shifts.get(rule.label, [])) for rule in scored.candidate.rules}


def strongest_first(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The order of the prompt: measured effect first, then support."""
    return tuple(sorted(rules, key=lambda rule: (-(rule.effect or 0.0), -rule.support, rule.label, rule.id)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
