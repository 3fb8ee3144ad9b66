"""The rule behind a verdict, found by taking rules out: a small student cites none."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.rules import Rule
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.verdict import Verdict

__all__ = ["DecidingRule", "deciding_rule"]


@dataclass(frozen=True)
class DecidingRule:
    """A rule that a verdict hangs on."""

    rule: Rule
    without: Verdict
    """The verdict of the prompt that lacks this rule alone."""


def deciding_rule(
    artifact: DistilledPrompt, student: BaseChatModel, text: str, verdict: Verdict
) -> DecidingRule | None:
    """The rule for the verdict's label without which another label is decided, or else its probability falls most.

    Rules are taken out one at a time, in the order of the prompt, until the decision changes.

    Args:
        artifact: The prompt that decided.
        student: The model that decided; asked at most once for each rule for the label.
        text: What was decided.
        verdict: How.

    Returns:
        The rule; `None` where taking out any single one lowers nothing, or nothing was decided with probabilities.
    """
    label = verdict.label
    if label is None or not verdict.probabilities:
        return None
    found: DecidingRule | None = None
    least = verdict.probabilities[label]
    for rule in artifact.rules_for(label):
        rules = tuple(other for other in artifact.rules if other.id != rule.id)
        # The calibration stays, so that the rule is all that differs.
        shorter = artifact.model_copy(
            update={"rules": rules, "system_prompt": compile_prompt(artifact.task, rules, artifact.answer)}
        )
        without = PLDClassifier(artifact=shorter, student=student).invoke(text)
        if without.probabilities and without.probabilities[label] < least:
            found, least = DecidingRule(rule, without), without.probabilities[label]
        if without.label not in (label, None):
            return DecidingRule(rule, without)
    return found
