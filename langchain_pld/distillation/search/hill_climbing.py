"""Hill climbing over rules: single moves, each scored by the student on validation rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.rules import Rule

__all__ = ["SearchSpace", "climb", "harm_by_label", "strongest_first"]

Race = Callable[[Candidate, ScoredCandidate, str], Awaitable[ScoredCandidate | None]]
"""Scores a candidate against the best so far under a name; `None` if scoring stopped early."""


@dataclass(frozen=True)
class SearchSpace:
    """The rules that may enter the prompt, and what is known about them."""

    rules: tuple[Rule, ...] = ()
    """All merged rules, in the prompt or not."""
    drafts: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """Rule id to the other drafts of the same cluster."""
    pool: tuple[Rule, ...] = ()
    """Rules made from drafts outside every cluster."""
    reorder: bool = False
    """Whether other orders of the rules are tried."""
    harm: Mapping[str, float] = field(default_factory=dict)
    """From `harm_by_label`; decides which rule to remove or add first."""


@dataclass(frozen=True)
class Move:
    """One change to the rules of the best prompt."""

    name: str
    """What the move does, in words; no move is tried twice."""
    rules: tuple[Rule, ...]
    removed: Rule | None = None
    """The rule whose effect this move measures."""


async def climb(start: ScoredCandidate, space: SearchSpace, trials: int, race: Race) -> ScoredCandidate:
    """Make single moves while they lower the log loss, and return the best prompt.

    Moves, in this order: remove a rule, the most harmful first; swap a rule for another draft of its cluster; add a
    rule; change the order. The first improvement is taken.

    Args:
        start: Where to start, scored on all validation rows.
        space: What may be added or swapped in.
        trials: Maximum number of candidate prompts to score.
        race: Scores a candidate.
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
    """How far the rules push each label the wrong way, in nats per row: up on other labels' rows, down on its own.

    Measured on raw scores against the prompt without rules. All rules of a label share the figure.
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
    """The rules in prompt order: by measured effect, then by support."""
    return tuple(sorted(rules, key=lambda rule: (-(rule.effect or 0.0), -rule.support, rule.label, rule.id)))


def _moves(rules: tuple[Rule, ...], space: SearchSpace) -> Iterator[Move]:
    """All moves, most promising first."""
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
    """Rules to add, in turns: labels with few rules first, then the least harmful."""
    present = {rule.id for rule in rules}
    absent = [rule for rule in (*space.rules, *space.pool) if rule.id not in present]
    count = Counter(rule.label for rule in rules)
    turn: dict[str, int] = {}
    for rule in sorted(absent, key=lambda r: (-r.support, r.id)):
        turn[rule.id] = count[rule.label]
        count[rule.label] += 1
    return sorted(absent, key=lambda r: (turn[r.id], space.harm.get(r.label, 0.0), r.id))


def _with_effect(scored: ScoredCandidate, measured: Rule, effect: float) -> ScoredCandidate:
    """The same prompt with the measured effect noted on a rule."""
    rules = tuple(
        rule.model_copy(update={"effect": effect}) if rule.id == measured.id else rule
        for rule in scored.candidate.rules
    )
    return replace(scored, candidate=scored.candidate.with_rules(rules))
