"""How often a verdict flips when the labels stand in another order, or are answered in another form.

A small model may favour what stands first. The artifact fixes order and form, so that verdicts do not wander; how much
hangs on that choice is measured here, without labelled rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import DistilledPrompt
from langchain_pld.errors import InputError
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.verdict import Verdict

__all__ = ["Flips", "other_orders", "verdict_flips"]


class Flips(BaseModel):
    """How many verdicts another order or form of answer changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    """Inputs that were asked about."""
    formats: tuple[AnswerFormat, ...]
    """The answer formats that were tried instead of the artifact's own."""
    flipped: tuple[float, ...]
    """For each of them the share of inputs, 0 to 1, whose label is another or gone."""
    any_flip: float
    """Share of inputs that at least one of them changes."""


async def verdict_flips(
    classifier: PLDClassifier,
    inputs: Sequence[ClassifierInput],
    *,
    formats: Sequence[AnswerFormat] | None = None,
    config: RunnableConfig | None = None,
) -> Flips:
    """Decide about the same inputs with the artifact's answer format and with others, and compare.

    Costs a call for each input and format. Calibration and gate stay, whose labels go by name.

    Args:
        classifier: The classifier; it is not changed.
        inputs: What to decide about; a hundred texts tell a share to within ten points.
        formats: Answer formats to try; the other label orders of the artifact's own when absent.
        config: Handed on to each call.

    Raises:
        InputError: There are no inputs, or no other format to try.
    """
    tried = tuple(formats if formats is not None else other_orders(classifier.artifact.answer))
    if not inputs or not tried:
        msg = f"flips need inputs and formats to compare; got {len(inputs)} input(s) and {len(tried)} other format(s)"
        raise InputError(msg)
    alone = classifier.model_copy(update={"escalate_to": None, "on_failure": "return"})
    own = [_said(verdict) for verdict in await alone.abatch(list(inputs), config)]
    changed = []
    for answer in tried:
        other = alone.model_copy(update={"artifact": _with_format(classifier.artifact, answer)})
        said = [_said(verdict) for verdict in await other.abatch(list(inputs), config)]
        changed.append([one != two for one, two in zip(own, said, strict=True)])
    return Flips(
        rows=len(inputs),
        formats=tried,
        flipped=tuple(sum(column) / len(inputs) for column in changed),
        any_flip=sum(map(any, zip(*changed, strict=True))) / len(inputs),
    )


def other_orders(answer: AnswerFormat) -> tuple[AnswerFormat, ...]:
    """The same format with its labels rotated, so that each label stands first once; none for two stages."""
    return answer.model_copy(update={"orders": len(answer.codes)}).rotated()[1:]


def _with_format(artifact: DistilledPrompt, answer: AnswerFormat) -> DistilledPrompt:
    prompt = compile_prompt(artifact.task, artifact.rules, answer)
    # It is another prompt, which nobody has reviewed, and it is not kept.
    changes = {"answer": answer, "system_prompt": prompt, "require_review": False, "review": None}
    return artifact.model_copy(update=changes)


def _said(verdict: Verdict) -> str | None:
    # A verdict that only leans counts by its label: a gate must not hide what would flip. A failure is none.
    return verdict.label or verdict.predicted_label
