"""How often a verdict flips when the labels stand in another order, or are answered in another form.

A small model may favour what stands first. The artifact fixes order and form, so that verdicts do not wander; how much
hangs on that choice is measured here, without labelled rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict

from langchain_pld.answer import AnswerFormat
from langchain_pld.errors import InputError
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.inputs import ClassifierInput
from langchain_pld.student.prompt import compile_prompt

__all__ = ["FlipRates", "flip_rates"]


class FlipRates(BaseModel):
    """How many verdicts another order or form of answer changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    """Inputs that were asked about."""
    formats: tuple[AnswerFormat, ...]
    """The answer formats that were tried instead of the artifact's own."""
    of_format: tuple[float, ...]
    """For each of them the share of inputs, 0 to 1, whose label changed or is missing."""
    any_format: float
    """Share of inputs that at least one of them changes."""


async def flip_rates(
    classifier: PLDClassifier,
    inputs: Sequence[ClassifierInput],
    *,
    formats: Sequence[AnswerFormat] | None = None,
    config: RunnableConfig | None = None,
) -> FlipRates:
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
    artifact = classifier.artifact
    tried = tuple(formats if formats is not None else _other_orders(artifact.answer))
    if not inputs or not tried:
        msg = f"flips need inputs and formats to compare; got {len(inputs)} input(s) and {len(tried)} other format(s)"
        raise InputError(msg)

    async def labels(answer: AnswerFormat, prompt: str) -> list[str | None]:
        # It is another prompt, which nobody has reviewed, and it is not kept.
        changes = {"answer": answer, "system_prompt": prompt, "require_review": False, "review": None}
        other = {"artifact": artifact.model_copy(update=changes), "escalate_to": None, "on_failure": "return"}
        verdicts = await classifier.model_copy(update=other).abatch(list(inputs), config)
        # Below the gate the predicted label counts: a gate must not hide what would flip.
        return [verdict.label or verdict.predicted_label for verdict in verdicts]

    own = await labels(artifact.answer, artifact.system_prompt)
    changed = []
    for answer in tried:
        others = await labels(answer, compile_prompt(artifact.task, artifact.rules, answer))
        changed.append([one != two for one, two in zip(own, others, strict=True)])
    return FlipRates(
        rows=len(inputs),
        formats=tried,
        of_format=tuple(sum(column) / len(inputs) for column in changed),
        any_format=sum(map(any, zip(*changed, strict=True))) / len(inputs),
    )


def _other_orders(answer: AnswerFormat) -> list[AnswerFormat]:
    """The same format with its labels rotated, so that each other label stands first once; none for two stages.

    Words move with their labels; letters stay in place: A is always the first.
    """
    if answer.form == "two_stage":
        return []
    names, orders = list(answer.codes), []
    for cut in range(1, len(names)):
        order = names[cut:] + names[:cut]
        codes = answer.codes.values() if answer.form == "letters" else [answer.codes[name] for name in order]
        orders.append(answer.model_copy(update={"codes": dict(zip(order, codes, strict=True))}))
    return orders
