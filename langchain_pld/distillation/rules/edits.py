"""Edits of rules: an action list, never a free rewrite, so that ids, sources and support survive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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
    reason: str = Field(default="", max_length=1000)
    """Why, for the log."""


class Proposal(BaseModel):
    """Edits that answer one confusion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: str
    """The right label of the wrong texts."""
    predicted: str
    """The label that the student gave them."""
    edits: tuple[RuleEdit, ...]
    """What the teacher wants changed."""
    implicated: tuple[str, ...]
    """Ids of the rules of both labels, the only ones that may be changed."""
    shown: tuple[str, ...]
    """Ids of the texts that the teacher saw."""
    cause: str = ""
    """Why the student is wrong, as the teacher sees it."""

    @property
    def what(self) -> str:
        """The proposal in words."""
        return f"edits for {self.expected} taken for {self.predicted}"


def apply_edits(
    rules: Sequence[Rule],
    edits: Sequence[RuleEdit],
    *,
    implicated: Collection[str],
    labels: Collection[str],
    screen: Screen,
    shown: Sequence[str] = (),
) -> tuple[tuple[Rule, ...], list[str]]:
    """Carry out edits one after the other; what is not allowed is refused and logged.

    A changed rule stands where the old one stood, and keeps its label, sources and support; it names the old one as
    parent. An added rule comes last.

    Args:
        rules: The rules.
        edits: What is to be changed.
        implicated: Ids of the rules that may be changed.
        labels: Labels for which a rule may be added.
        screen: What no condition may hold.
        shown: The texts that the author of the edits saw; no condition may take over their words, names or numbers.

    Returns:
        The new rules, and a line for each edit but `keep`.
    """
    current = list(rules)
    log: list[str] = []
    for edit in edits:
        if edit.action == "keep":
            continue
        refusal = _refusal(edit, current, implicated, labels, screen, shown)
        if refusal:
            log.append(f"{edit.action} {edit.rule or edit.label} refused: {refusal}")
            continue
        if edit.action == "add":
            rule = Rule.added(str(edit.label), _folded(edit.conditions[0]), edit.sources)
            current.append(rule)
            log.append(f"add {rule.id} for {rule.label}")
            continue
        place = next(number for number, rule in enumerate(current) if rule.id == edit.rule)
        new = [current[place].revised(_folded(condition)) for condition in edit.conditions]
        current[place : place + 1] = list({rule.id: rule for rule in new}.values())
        log.append(f"{edit.action} {edit.rule}" + (f" into {', '.join(rule.id for rule in new)}" if new else ""))
    return tuple(current), log


def _refusal(
    edit: RuleEdit,
    rules: Sequence[Rule],
    implicated: Collection[str],
    labels: Collection[str],
    screen: Screen,
    shown: Sequence[str],
) -> str | None:
    """Why an edit is not carried out."""
    wanted = {"modify": range(1, 2), "split": range(2, 5), "discard": range(1), "add": range(1, 2)}[edit.action]
    if len(edit.conditions) not in wanted:
        return f"{len(edit.conditions)} conditions given"
    if edit.action == "add":
        if edit.label not in labels:
            return f"no rule may be added for the label {edit.label!r} here"
    elif edit.rule not in implicated:
        return "it is not one of the rules in question"
    elif edit.rule not in {rule.id for rule in rules}:
        return "an earlier edit changed it already"
    label = edit.label if edit.action == "add" else next(rule.label for rule in rules if rule.id == edit.rule)
    known = {(rule.label, _folded(rule.condition)) for rule in rules}
    for condition in edit.conditions:
        if len(_folded(condition)) < 10:
            return "a condition is too short to say anything"
        if (label, _folded(condition)) in known:
            return "there is such a rule already"
        objection = screen.objection(condition, shown)
        if objection:
            return f"a condition {objection.reason}"
    return None


def _folded(condition: str) -> str:
    return " ".join(condition.split())
