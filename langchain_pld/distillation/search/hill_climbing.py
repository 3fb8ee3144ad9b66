"""Choosing rules on validation rows: a hill climb by single moves, each a candidate prompt that the student scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.rules import Rule

__all__ = ["Attempt", "Spare", "blame", "climb", "strongest_first"]

Attempt = Callable[[Candidate, ScoredCandidate, str], Awaitable[ScoredCandidate | str]]
"""Scores a candidate against the best so far, told what is being tried; a text says why scoring was stopped."""


@dataclass(frozen=True)
class Spare:
    """What may come into the prompt."""

    rules: tuple[Rule, ...] = ()
    """Merged rules, whether they are in the prompt or not."""
    drafts: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """Rule id to the other drafts of the same cluster."""
    pool: tuple[Rule, ...] = ()
    """Rules of drafts that fitted no cluster."""
    orders: bool = False
    """Whether other orders of the rules are tried."""


@dataclass(frozen=True)
class Move:
    """One step: from the rules of the best prompt to others."""

    what: str
    """What is done, in words; the same words are not tried twice."""
    rules: tuple[Rule, ...]
    removed: Rule | None = None
    """The rule whose effect the move measures."""


async def climb(
    best: ScoredCandidate,
    zero_shot: ScoredCandidate,
    all_rules: ScoredCandidate | None,
    gold: Sequence[str],
    spare: Spare,
    trials: int,
    attempt: Attempt,
    tell: Callable[[str], None],
) -> ScoredCandidate:
    """Take single steps as long as the log loss falls.

    Steps: a rule is taken out, the most blamed first; a draft is exchanged for another of its cluster; a rule is added;
    the order is changed. The first that helps is taken.

    Args:
        best: Where to start, scored on all rows.
        zero_shot: The prompt without rules, scored on the same rows.
        all_rules: The prompt with all rules, scored on the same rows; what its labels gained against `zero_shot` tells
            which rule to take out or add first.
        gold: Gold labels of those rows.
        spare: What may be added or exchanged.
        trials: Candidate prompts to score at most.
        attempt: Scores a candidate.
        tell: Called with a line about each step once it is decided.

    Returns:
        The best prompt.
    """
    blamed = blame(all_rules, zero_shot, gold) if all_rules is not None else {}
    tried: set[str] = set()
    for _ in range(trials):
        move = next((move for move in _moves(best.candidate.rules, blamed, spare) if move.what not in tried), None)
        if move is None:
            break
        tried.add(move.what)
        outcome = await attempt(best.candidate.having(move.rules), best, move.what)
        if isinstance(outcome, str):
            tell(f"{move.what}: {outcome}")
            continue
        change = f"log loss {best.loss:.3f} to {outcome.loss:.3f}"
        if outcome.loss < best.loss:
            tell(f"{move.what}: taken, {change}")
            best = outcome
            continue
        tell(f"{move.what}: not taken, {change}")
        if move.removed is not None:
            best = _with_effect(best, move.removed, outcome.loss - best.loss)
    return best


def blame(scored: ScoredCandidate, zero_shot: ScoredCandidate, gold: Sequence[str]) -> dict[str, float]:
    """How much each label gained on rows of other labels, less what it gained on its own, in nats a row.

    Measured on raw scores against the prompt without rules; the rules of a label share the figure.
    """
    shifts: dict[str, list[float]] = {}
    for new, old, label in zip(scored.rows, zero_shot.rows, gold, strict=True):
        if new.log_probabilities is None or old.log_probabilities is None:
            continue
        for name, value in new.log_probabilities.items():
            gain = value - old.log_probabilities[name]
            shifts.setdefault(name, []).append(-gain if name == label else gain)
    return {name: sum(values) / len(values) for name, values in shifts.items()}


def strongest_first(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The order of the prompt: measured effect first, then support."""
    return tuple(sorted(rules, key=lambda rule: (-(rule.effect or 0.0), -rule.support, rule.label, rule.id)))


def _moves(rules: tuple[Rule, ...], blamed: Mapping[str, float], spare: Spare) -> Iterator[Move]:
    """All steps from these rules, the most promising first."""
    present = {rule.id for rule in rules}
    if len(rules) > 1:
        for rule in sorted(rules, key=lambda r: (-blamed.get(r.label, 0.0), r.support, r.id)):
            yield Move(f"without rule {rule.id} ({rule.label})", _without(rules, rule), removed=rule)
    for rule in rules:
        for other in spare.drafts.get(rule.id, ()):
            if other.id not in present:
                exchanged = tuple(other if one.id == rule.id else one for one in rules)
                yield Move(f"draft {other.id} for {rule.id} ({rule.label})", exchanged)
    for rule in _additions(rules, blamed, spare):
        yield Move(f"with rule {rule.id} ({rule.label})", (*rules, rule))
    if spare.orders and len(rules) > 2:
        yield Move("rules in the opposite order", rules[::-1])
        yield Move("rules label by label", tuple(sorted(rules, key=lambda rule: rule.label)))


def _additions(rules: tuple[Rule, ...], blamed: Mapping[str, float], spare: Spare) -> list[Rule]:
    """What may be added: labels with few rules first, and among those the least blamed, so that each has its turn."""
    present = {rule.id for rule in rules}
    absent = [rule for rule in (*spare.rules, *spare.pool) if rule.id not in present]
    count = Counter(rule.label for rule in rules)
    place: dict[str, int] = {}
    for rule in sorted(absent, key=lambda r: (-r.support, r.id)):
        place[rule.id] = count[rule.label]
        count[rule.label] += 1
    return sorted(absent, key=lambda r: (place[r.id], blamed.get(r.label, 0.0), r.id))


def _without(rules: tuple[Rule, ...], gone: Rule) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.id != gone.id)


def _with_effect(scored: ScoredCandidate, measured: Rule, effect: float) -> ScoredCandidate:
    """The same prompt, in which a rule knows what it is worth."""
    rules = tuple(
        rule.model_copy(update={"effect": effect}) if rule.id == measured.id else rule
        for rule in scored.candidate.rules
    )
    return replace(scored, candidate=scored.candidate.having(rules))
