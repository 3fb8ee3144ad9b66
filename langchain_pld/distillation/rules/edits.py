"""Edits of rules: a list of actions, never a free rewrite, so that ids, sources and support survive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.rules import Rule

__all__ = ["EditAction", "Proposal", "RuleEdit", "apply_edits"]

EditAction = Literal["keep", "modify", "split", "discard", "add"]


class RuleEdit(BaseModel):
    """One change of a rule list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: EditAction
    """`modify` replaces a rule's condition by one, `split` by several; `add` makes a new rule for a label."""
    rule: str | None = None
    """Id of the rule that is changed; `None` for `add`."""
    label: str | None = None
    """Label of an added rule."""
    conditions: tuple[str, ...] = ()
    """The new conditions."""
    sources: tuple[str, ...] = ()
    """Ids of the examples that an added rule rests on."""


class Proposal(BaseModel):
    """Edits that answer one confusion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: str
    """The right label of the wrong texts."""
    predicted: str
    """The label that the student gave them."""
    edits: tuple[RuleEdit, ...]
    """What the teacher wants changed."""
    editable: tuple[str, ...]
    """Ids of the rules of both labels, the only ones that may be changed."""
    examples: tuple[str, ...]
    """Ids of the examples that the teacher saw."""
    cause: str = ""
    """Why the student is wrong, as the teacher sees it."""

    @property
    def name(self) -> str:
        """The name in the log."""
        return f"edits for {self.expected} taken for {self.predicted}"


def apply_edits(
    rules: Sequence[Rule],
    edits: Sequence[RuleEdit],
    *,
    editable: Collection[str],
    labels: Collection[str],
    screen: Screen,
    sources: Sequence[str] = (),
) -> tuple[tuple[Rule, ...], list[str]]:
    """Apply edits in order; an edit that is not allowed is refused and logged.

    A changed rule keeps its place, label, sources and support, and names the old rule as its parent. An added rule
    comes last.

    Args:
        rules: The rules.
        edits: The edits.
        editable: Ids of the rules that may be changed.
        labels: Labels for which a rule may be added.
        screen: Screens the new conditions.
        sources: The texts that the author of the edits saw; no condition may copy their wording, names or numbers.

    Returns:
        The new rules, and a log line for each edit except `keep`.
    """
    current = list(rules)
    log: list[str] = []
    for edit in edits:
        if edit.action == "keep":
            continue
        conditions = [" ".join(condition.split()) for condition in edit.conditions]
        place = next((n for n, rule in enumerate(current) if rule.id == edit.rule and rule.id in editable), None)
        label = edit.label if edit.action == "add" else None if place is None else current[place].label
        refusal = (
            _wrong_count(edit)
            or _wrong_target(edit, place, editable, labels)
            or _wrong_condition(conditions, str(label), current, screen, sources)
        )
        if refusal:
            log.append(f"{edit.action} {edit.rule or edit.label} refused: {refusal}")
        elif place is None:
            rule = Rule.added(str(label), conditions[0], edit.sources)
            current.append(rule)
            log.append(f"add {rule.id} for {rule.label}")
        else:
            new = {rule.id: rule for rule in map(current[place].revised, conditions)}
            current[place : place + 1] = new.values()
            log.append(f"{edit.action} {edit.rule}" + (f" into {', '.join(new)}" if new else ""))
    return tuple(current), log


def _wrong_count(edit: RuleEdit) -> str | None:
    allowed = {"modify": range(1, 2), "split": range(2, 5), "discard": range(1), "add": range(1, 2)}[edit.action]
    return None if len(edit.conditions) in allowed else f"{len(edit.conditions)} conditions given"


def _wrong_target(edit: RuleEdit, place: int | None, editable: Collection[str], labels: Collection[str]) -> str | None:
    if edit.action == "add":
        return None if edit.label in labels else f"no rule may be added for the label {edit.label!r} here"
    if edit.rule not in editable:
        return "it is not one of the rules in question"
    return "an earlier edit already changed it" if place is None else None


def _wrong_condition(
    conditions: Sequence[str], label: str, rules: Sequence[Rule], screen: Screen, sources: Sequence[str]
) -> str | None:
    known = {(rule.label, " ".join(rule.condition.split())) for rule in rules}
    for condition in conditions:
        if len(condition) < 10:
            return "a condition is too short to say anything"
        if (label, condition) in known:
            return "the same rule already exists"
        if objection := screen.objection(condition, sources):
            return f"a condition {objection.reason}"
    return None
