"""The benefit and cost of escalation: accuracy by share of inputs passed to a stronger decider."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from langchain_pld.errors import InputError
from langchain_pld.verdict import Verdict

__all__ = ["EscalationRow", "escalation_curve"]


class EscalationRow(BaseModel):
    """One point of the curve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    """Share of the inputs escalated, least confident first; 0 to 1."""
    escalated: int
    """Number of inputs escalated."""
    accuracy: float
    """Share of right labels among all inputs; no label counts as wrong."""
    decided: float
    """Share of inputs that get a label."""
    threshold: float | None
    """The lowest confidence that stays with the student; `None` if none or all are escalated."""
    other_calls: int
    """Calls to the stronger decider."""
    other_tokens: int
    """Input and output tokens of these calls."""
    latency_ms: float
    """Mean wall-clock milliseconds per input, student and stronger decider together."""


def escalation_curve(
    verdicts: Sequence[Verdict],
    gold: Sequence[str],
    escalated_verdicts: Sequence[Verdict],
    *,
    shares: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
) -> tuple[EscalationRow, ...]:
    """Accuracy and cost when the least confident share of the inputs goes to the stronger decider.

    Failed verdicts go first, then the least confident, abstained or not. A verdict that stays with the student counts
    with its `predicted_label`, so the curve shows what the gate gives away; if the stronger decider has no label, the
    student's stands.

    Args:
        verdicts: The student's verdict on each input.
        gold: Gold label of each input.
        escalated_verdicts: The stronger decider's verdict on every input.
        shares: Shares to tabulate, 0 to 1.

    Raises:
        InputError: The lengths differ, there are no rows, or a share is not between 0 and 1.
    """
    size = len(verdicts)
    if not size == len(gold) == len(escalated_verdicts) or not size:
        msg = f"an escalation curve needs two verdicts and a gold label per input, got {size} verdicts, "
        msg += f"{len(escalated_verdicts)} escalated verdicts and {len(gold)} labels"
        raise InputError(msg)
    if not all(0 <= share <= 1 for share in shares):
        msg = f"shares must lie between 0 and 1, got {', '.join(map(str, shares))}"
        raise InputError(msg)
    # The sort is stable: of equally confident inputs the first goes first.
    order = sorted(range(size), key=lambda n: (verdicts[n].status != "failed", verdicts[n].confidence or 0.0))
    labels = [verdict.label or verdict.predicted_label for verdict in verdicts]
    latency = sum(verdict.latency_ms for verdict in verdicts)
    rows = []
    for share in shares:
        count = round(share * size)
        others = {n: escalated_verdicts[n] for n in order[:count]}
        final = [others[n].label or label if n in others else label for n, label in enumerate(labels)]
        rows.append(
            EscalationRow(
                share=count / size,
                escalated=count,
                accuracy=sum(label == truth for label, truth in zip(final, gold, strict=True)) / size,
                decided=sum(label is not None for label in final) / size,
                threshold=verdicts[order[count]].confidence if 0 < count < size else None,
                other_calls=sum(max(verdict.usage.calls, 1) for verdict in others.values()),
                other_tokens=sum(
                    verdict.usage.input_tokens + verdict.usage.output_tokens for verdict in others.values()
                ),
                latency_ms=(latency + sum(verdict.latency_ms for verdict in others.values())) / size,
            )
        )
    return tuple(rows)
