"""Choosing rules on validation rows: a hill climb by single moves, each a candidate prompt that the student scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.rules import Rule

__all__ = ["SearchSpace", "climb", "harm_by_label", "strongest_first"]

Race = Callable[[Candidate, ScoredCandidate, str], Awaitable[ScoredCandidate | None]]
"""Scores a candidate against the best so far under a name; `None` where it was not scored to the end."""


@dataclass(frozen=True)
class SearchSpace:
    """What may come into the prompt, and what is known about it."""

    rules: tuple[Rule, ...] = ()
    """Merged rules, whether they are in the prompt or not."""
    drafts: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """Rule id to the other drafts of the same cluster."""
    pool: tuple[Rule, ...] = ()
    """Rules of drafts that fitted no cluster."""
    reorder: bool = False
    """Whether other orders of the rules are tried."""
    harm: Mapping[str, float] = field(default_factory=dict)
    """Label to the harm that its rules do, see `harm_by_label`; decides which rule to take out or add first."""


@dataclass(frozen=True)
class Move:
    """One step: from the rules of the best prompt to others."""

    name: str
    """What is done, in words; the same move is not tried twice."""
    rules: tuple[Rule, ...]
    removed: Rule | None = None
    """The rule whose effect the move measures."""


async def climb(start: ScoredCandidate, space: SearchSpace, trials: int, race: Race) -> ScoredCandidate:
    """Take single moves as long as the log loss falls.

    Moves: take out a rule, the most harmful first; replace a rule by another draft of its cluster; add a rule; change
    the order. The first that helps is taken.

    Args:
        start: Where to start, scored on all validation rows.
        space: What may be added or replaced.
        trials: Candidate prompts to score at most.
        race: Scores a candidate.

    Returns:
        The best prompt.
    """
    best = start
    tried: set[str] = set()
    for _ in range(trials):
        move = next((move for move in _moves(best.candidate.rules, space) if move.name not in tried), None)
        if move is None:
            break
        tried.add(move.name)
        scored = await race(best.candidate.with_rules(move.rules), best, move.name)
        if scored is not None and scored.loss < best.loss:
            best = scored
        elif scored is not None and move.removed is not None:
            best = _with_effect(best, move.removed, scored.loss - best.loss)
    return best


def harm_by_label(scored: ScoredCandidate, zero_shot: ScoredCandidate, gold: Sequence[str]) -> dict[str, float]:
    """How much each label gains on rows of other labels, less what it gains on its own, in nats a row.

    Measured on raw scores against the prompt without rules; the rules of a label share the figure.
    """
    shifts: dict[str, list[float]] = defaultdict(list)
    for new, old, label in zip(scored.rows, zero_shot.rows, gold, strict=True):
        if new.log_probabilities is None or old.log_probabilities is None:
            continue
        for name, value in new.log_probabilities.items():
            gain = value - old.log_probabilities[name]
            shifts[name].append(-gain if name == label else gain)
    return {name: fmean(values) for name, values in shifts.items()}


def strongest_first(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The order of the prompt: measured effect first, then support."""
    return tuple(sorted(rules, key=lambda rule: (-(rule.effect or 0.0), -rule.support, rule.label, rule.id)))


def _moves(rules: tuple[Rule, ...], space: SearchSpace) -> Iterator[Move]:
    """All moves from these rules, the most promising first."""
    present = {rule.id for rule in rules}
    if len(rules) > 1:
        for rule in sorted(rules, key=lambda r: (-space.harm.get(r.label, 0.0), r.support, r.id)):
            others = tuple(other for other in rules if other.id != rule.id)
            yield Move(f"without rule {rule.id} ({rule.label})", others, removed=rule)
    for rule in rules:
        for draft in space.drafts.get(rule.id, ()):
            if draft.id not in present:
                replaced = tuple(draft if other.id == rule.id else other for other in rules)
                yield Move(f"draft {draft.id} for {rule.id} ({rule.label})", replaced)
    for rule in _additions(rules, space):
        yield Move(f"with rule {rule.id} ({rule.label})", (*rules, rule))
    if space.reorder and len(rules) > 2:
        yield Move("rules in the opposite order", rules[::-1])
        yield Move("rules label by label", tuple(sorted(rules, key=lambda rule: rule.label)))


def _additions(rules: tuple[Rule, ...], space: SearchSpace) -> list[Rule]:
    """Rules to add: labels with few rules first, and among those the least harmful, so that each has its turn."""
    present = {rule.id for rule in rules}
    absent = [rule for rule in (*space.rules, *space.pool) if rule.id not in present]
    count = Counter(rule.label for rule in rules)
    turn: dict[str, int] = {}
    for rule in sorted(absent, key=lambda r: (-r.support, r.id)):
        turn[rule.id] = count[rule.label]
        count[rule.label] += 1
    return sorted(absent, key=lambda r: (turn[r.id], space.harm.get(r.label, 0.0), r.id))


def _with_effect(scored: ScoredCandidate, measured: Rule, effect: float) -> ScoredCandidate:
    """The same prompt, with the measured effect of a rule."""
    rules = tuple(
        rule.model_copy(update={"effect": effect}) if rule.id == measured.id else rule
        for rule in scored.candidate.rules
    )
    return replace(scored, candidate=scored.candidate.with_rules(rules))
