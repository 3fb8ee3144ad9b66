"""The result of a check: each guard's finding, and the decision of the strictest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from langchain_pld.errors import PLDError
from langchain_pld.guardrail.content import Stage
from langchain_pld.guardrail.policy import STRICTNESS, FinalAction, Outcome
from langchain_pld.verdict import Verdict

__all__ = ["Decision", "Finding", "GuardrailError"]


class Finding(BaseModel):
    """What one guard found. Its reason is free of the text; a verdict's `evidence` may quote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guard: str
    """Name of the guard."""
    stage: Stage
    """Where the guard stands."""
    outcome: Outcome
    """What the verdict means under the guard's policy."""
    action: FinalAction
    """What is to be done."""
    label: str | None = None
    """The blocking label that it is about."""
    reason: str
    """Why, in neutral words."""
    message: str = ""
    """What takes the place of content that is not passed on; the policy's words."""
    verdicts: tuple[Verdict, ...] = ()
    """The classifier's verdict, then that of the model escalated to; none where no model was asked."""
    strips_invisible: bool = False
    """Whether the content is to go on without its invisible characters, as it was checked."""
    latency_ms: float = 0.0
    """Wall-clock milliseconds."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that counted; `None` if no model was asked."""
        return self.verdicts[-1] if self.verdicts else None

    @property
    def decided_by(self) -> str | None:
        """The model whose verdict counted; `None` if none was asked or none answered."""
        return self.verdicts[-1].decided_by if self.verdicts else None


class Decision(BaseModel):
    """What to do with one input: the action of the strictest guard, with what each found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: FinalAction
    """block, allow, flag, interrupt or raise. Where no person can be asked, `interrupt` means block."""
    outcome: Outcome
    """clear, violation, uncertain or error."""
    label: str | None = None
    """The blocking label that it is about."""
    reason: str
    """Why, in neutral words; never the user's text."""
    message: str = ""
    """What takes the place of content that is not passed on; never the user's text."""
    findings: tuple[Finding, ...]
    """What each guard found, in the order of the guards."""
    latency_ms: float = 0.0
    """Wall-clock milliseconds of the whole check."""

    @classmethod
    def of(cls, findings: Sequence[Finding], *, latency_ms: float = 0.0) -> Decision:
        """Combine findings: the strictest action wins, the first of equals."""
        worst = max(findings, key=lambda finding: STRICTNESS.index(finding.action))
        return cls(
            action=worst.action,
            outcome=worst.outcome,
            label=worst.label,
            reason=worst.reason,
            message="" if worst.action in {"allow", "flag"} else worst.message,
            findings=tuple(findings),
            latency_ms=latency_ms,
        )

    @property
    def allowed(self) -> bool:
        """Whether the content may be passed on as things stand; not while a person is to be asked."""
        return self.action in {"allow", "flag"}

    @property
    def strips_invisible(self) -> bool:
        """Whether the content goes on without its invisible characters, as it was checked."""
        return any(finding.strips_invisible for finding in self.findings)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict, in the order of the guards."""
        return tuple(verdict for finding in self.findings for verdict in finding.verdicts)

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards that checked."""
        return tuple(finding.guard for finding in self.findings)

    def enforce(self) -> Decision:
        """Return the decision, unless its action is `raise`.

        Raises:
            GuardrailError: The action is `raise`.
        """
        if self.action == "raise":
            raise GuardrailError(self)
        return self

    def summary(self) -> dict[str, Any]:
        """Plain values for a graph's state or a trace: the same without verdicts, hence without any of the text."""
        unquoted = self.model_dump(mode="json", exclude={"findings": {"__all__": {"verdicts", "message"}}})
        for shown, finding in zip(unquoted["findings"], self.findings, strict=True):
            shown["confidence"] = finding.verdict.confidence if finding.verdict else None
            shown["decided_by"] = finding.decided_by
        return {"allowed": self.allowed, **unquoted}


class GuardrailError(PLDError):
    """A guard whose policy says `raise` did not let something pass.

    Attributes:
        decision: The decision, with its reason.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision
