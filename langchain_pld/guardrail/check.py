"""One check: a classifier is asked, a policy judges its verdict, a decision comes out.

Everything that guards (node, middleware, stream, chain) goes through `check_all` and `acheck_all`. A check never raises
for what a model or an input does; LangGraph's interrupts, cancellation and Ctrl-C pass through.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from copy import copy
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_executor_for_config
from pydantic import BaseModel, ConfigDict

from langchain_pld.errors import InputError, PLDError
from langchain_pld.guardrail.audit import AuditTrail
from langchain_pld.guardrail.classifier_call import ClassifierCall
from langchain_pld.guardrail.content import Stage, has_invisible, read
from langchain_pld.guardrail.policy import STRICTNESS, FinalAction, GuardrailPolicy, Outcome, strictest
from langchain_pld.guardrail.silent_callbacks import silent_config
from langchain_pld.guardrail.telemetry import GuardTelemetry
from langchain_pld.student.inputs import input_text
from langchain_pld.task import Task
from langchain_pld.verdict import Verdict

__all__ = [
    "Decision",
    "Finding",
    "Guard",
    "GuardrailError",
    "Stage",
    "acheck_all",
    "check_all",
    "placed",
]

_logger = logging.getLogger(__name__)


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
    """The classifier's verdict, then that of the model escalated to; none where nothing had to be asked."""
    invisible: bool = False
    """Whether the text held invisible characters that the policy removes."""
    latency_ms: float = 0.0
    """Wall-clock milliseconds."""

    @property
    def decided_by(self) -> str | None:
        """The model whose verdict counted; `None` where none was asked or none answered."""
        return self.verdicts[-1].decided_by if self.verdicts else None


class Decision(BaseModel):
    """What to do with one input: that of the strictest guard, with what each found."""

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
    def removes_invisible(self) -> bool:
        """Whether the content goes on without its invisible characters, as it was checked."""
        return any(finding.invisible for finding in self.findings)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict, in the order of the guards."""
        return tuple(verdict for finding in self.findings for verdict in finding.verdicts)

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards that checked."""
        return tuple(finding.guard for finding in self.findings)

    def enforce(self) -> Decision:
        """Give the decision back, unless its action is `raise`.

        Raises:
            GuardrailError: The action is `raise`.
        """
        if self.action == "raise":
            raise GuardrailError(self)
        return self

    def summary(self) -> dict[str, Any]:
        """Plain values for a graph's state or a trace: the same without verdicts, hence without any of the text."""
        return {
            "allowed": self.allowed,
            **self.model_dump(mode="json", include={"action", "outcome", "label", "reason", "message", "latency_ms"}),
            "findings": [
                {
                    **finding.model_dump(
                        mode="json", include={"guard", "stage", "outcome", "action", "label", "reason", "latency_ms"}
                    ),
                    "confidence": finding.verdicts[-1].confidence if finding.verdicts else None,
                    "decided_by": finding.decided_by,
                }
                for finding in self.findings
            ],
        }


class GuardrailError(PLDError):
    """A guard whose policy says `raise` did not let something pass.

    Attributes:
        decision: What was decided, and why.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision


class Guard:
    """A classifier under a policy.

    Args:
        classifier: A `PLDClassifier`, or any Runnable that takes a text and gives a `Verdict`.
        policy: What follows from a verdict.
        name: Name in reasons, records and traces; the task's name when absent.
        stage: Where it stands.
        escalate_to: The Runnable giving a `Verdict` that is asked when the policy says `escalate`.
        labels: The labels that verdicts can have; needed only where the classifier has no artifact to tell them.
        audit: Where records go; the logger `langchain_pld.audit`, without texts, when absent.
        telemetry: OpenTelemetry spans and metrics of each check; none when absent.

    Raises:
        InputError: The policy blocks a label that the task does not have, escalates to nobody, or the labels are
            not known.

    Example:
        >>> guard = Guard(  # doctest: +SKIP
        ...     PLDClassifier.from_artifact("chat.pld.json"), GuardrailPolicy(block_labels=["pressure"])
        ... )
        >>> guard.check("Could you finish this on Sunday?").allowed  # doctest: +SKIP
        False
    """

    def __init__(
        self,
        classifier: Runnable[Any, Verdict],
        policy: GuardrailPolicy,
        *,
        name: str | None = None,
        stage: Stage = "input",
        escalate_to: Runnable[Any, Verdict] | None = None,
        labels: Sequence[str] | None = None,
        audit: AuditTrail | None = None,
        telemetry: GuardTelemetry | None = None,
    ) -> None:
        self.task = _task_of(classifier)
        """The classifier's task; `None` where the classifier has no artifact."""
        known = self.task.label_names if self.task is not None else labels
        if not known:
            msg = "the labels of this classifier are not known; pass labels=[...], or a classifier with an artifact"
            raise InputError(msg)
        policy.check_labels(known)
        if labels is not None:
            _check_same_labels("labels=", labels, known)
        if "escalate" in policy.actions and escalate_to is None:
            msg = "the policy escalates, but the guard has no escalate_to; pass the classifier to escalate to"
            raise InputError(msg)
        if escalate_to is not None and (other := _task_of(escalate_to)) is not None:
            _check_same_labels("escalate_to", other.label_names, known)
        self.policy = policy
        """What follows from a verdict."""
        self.name = name or (self.task.name if self.task is not None else "guard")
        """Name in reasons, records and traces."""
        self.stage: Stage = stage
        """Where it stands."""
        self.labels = tuple(known)
        """The labels that a verdict can have."""
        self.audit = audit or AuditTrail()
        """Where records go."""
        self._telemetry = telemetry
        self._first = ClassifierCall(classifier, self.name, worst=policy.worst)
        self._second = (
            None if escalate_to is None else ClassifierCall(escalate_to, f"{self.name} (escalated)", worst=policy.worst)
        )

    def check(self, value: Any, config: RunnableConfig | None = None) -> Decision:
        """Check one input.

        Args:
            value: A text, messages, the task's fields, or any other plain values. What holds nothing is clear.
            config: The config of the run that the check is part of.
        """
        return check_all([self], value, config)

    async def acheck(self, value: Any, config: RunnableConfig | None = None) -> Decision:
        """Check one input without blocking the event loop; equal to `check`."""
        return await acheck_all([self], value, config)

    def text_of(self, value: Any) -> str | None:
        """The text that the classifier reads of an input; `None` where it cannot be laid out."""
        if self.task is None:
            return None if isinstance(value, Mapping) else read(value).text
        try:
            return input_text(self.task, self._given(value))
        except InputError:
            return None

    def _given(self, value: Any) -> Any:
        """What the classifier is handed: its fields as they are, anything else as one text with all its words."""
        fields = set(self.task.fields) if self.task is not None else None
        is_row = isinstance(value, Mapping) and (fields is None or (fields and set(value) == fields))
        return value if is_row else read(value).text

    def _find(self, value: Any, config: RunnableConfig) -> Finding:
        steps, given = self._steps(value), self._given(value)
        try:
            call = next(steps)
            while True:
                call = steps.send(call.call(given, self._config(config), self.policy.deadline_s))
        except StopIteration as done:
            finding: Finding = done.value
        return self._report(finding, value)

    async def _afind(self, value: Any, config: RunnableConfig) -> Finding:
        steps, given = self._steps(value), self._given(value)
        try:
            call = next(steps)
            while True:
                call = steps.send(await call.acall(given, self._config(config), self.policy.deadline_s))
        except StopIteration as done:
            finding: Finding = done.value
        return self._report(finding, value)

    def _report(self, finding: Finding, value: Any) -> Finding:
        """Tell the audit log and the telemetry; what goes wrong there is loud, but decides nothing by itself."""
        try:
            self.audit.record(finding, self.text_of(value) if self.audit.enabled else None)
            audited = not self.audit.failing
        except Exception:  # a handler of the application's
            _logger.exception("%s: the audit log cannot be written", self.name)
            audited = False
        try:
            if self._telemetry is not None:
                self._telemetry.record(finding)
        except Exception:  # an exporter of the application's
            _logger.exception("%s: the telemetry cannot be written", self.name)
        if audited or self.policy.on_audit_error == "continue":
            return finding
        blocked = {"action": strictest([finding.action, "block"]), "outcome": "error"}
        reason = f"{self.name}: the audit log cannot be written"
        return finding.model_copy(update={**blocked, "reason": reason, "message": self.policy.error_message})

    # The logic, free of I/O: yields who is to be asked and is sent the verdict. The two drivers above differ only in
    # how they ask.
    def _steps(self, value: Any) -> Generator[ClassifierCall, Verdict, Finding]:
        started = time.perf_counter()
        policy = self.policy
        content = read(value)
        has_text, invisible = bool(content.text.strip()), has_invisible(content.text)
        if content.unreadable and (not has_text or policy.on_unreadable not in {"allow", "flag"}):
            reason = "it holds parts that the classifier cannot read"
            return self._finding("uncertain", policy.on_unreadable, None, reason, (), started)
        if invisible and policy.invisible_text == "block":
            return self._finding("uncertain", "block", None, "it holds invisible characters", (), started)
        if not has_text:
            return self._finding("clear", "allow", None, "there is nothing to check", (), started)
        verdicts = [(yield self._first)]
        outcome, label = self._judge(verdicts[0])
        action = policy.action_for(outcome)
        if action == "escalate":
            verdicts.append((yield cast("ClassifierCall", self._second)))
            outcome, label = self._judge(verdicts[1])
            action = policy.action_for(outcome)
        final: FinalAction = policy.after_escalation if action == "escalate" else action
        if content.unreadable:
            final = strictest([final, policy.on_unreadable])
        finding = self._finding(outcome, final, label, _why(outcome, label, verdicts[-1]), tuple(verdicts), started)
        return finding.model_copy(update={"invisible": invisible and policy.invisible_text == "remove"})

    def _judge(self, verdict: Verdict) -> tuple[Outcome, str | None]:
        """What a verdict means; one about labels that the guard does not know is no verdict at all."""
        named = {verdict.label, verdict.predicted_label, *(verdict.probabilities or ())} - {None}
        return self.policy.judge(verdict) if named <= set(self.labels) else ("error", None)

    def _finding(
        self,
        outcome: Outcome,
        action: FinalAction,
        label: str | None,
        reason: str,
        verdicts: tuple[Verdict, ...],
        started: float,
    ) -> Finding:
        return Finding(
            guard=self.name,
            stage=self.stage,
            outcome=outcome,
            action=action,
            label=label,
            reason=f"{self.name}: {reason}",
            message=self.policy.message_for(outcome),
            verdicts=verdicts,
            latency_ms=(time.perf_counter() - started) * 1000,
        )

    def _config(self, config: RunnableConfig) -> RunnableConfig:
        metadata = {**(config.get("metadata") or {}), "pld_guard": self.name, "pld_stage": self.stage}
        return {**config, "metadata": metadata}


def check_all(guards: Sequence[Guard], value: Any, config: RunnableConfig | None = None) -> Decision:
    """Check one input with several guards side by side; the strictest wins, and each one's finding is kept.

    Args:
        guards: At least one.
        value: What they check.
        config: The config of the run that the check is part of.

    Raises:
        InputError: There is no guard.
    """
    _some(guards)
    started = time.perf_counter()
    silent = silent_config(config)
    if len(guards) == 1:
        findings = [guards[0]._find(value, silent)]
    else:
        # Each check ends by its own deadline, so that leaving the pool never waits longer than the slowest of them.
        with get_executor_for_config({**silent, "max_concurrency": len(guards)}) as pool:
            findings = list(pool.map(lambda guard: guard._find(value, silent), guards))
    return Decision.of(findings, latency_ms=(time.perf_counter() - started) * 1000)


async def acheck_all(guards: Sequence[Guard], value: Any, config: RunnableConfig | None = None) -> Decision:
    """Check one input with several guards side by side without blocking the event loop; equal to `check_all`.

    Raises:
        InputError: There is no guard.
    """
    _some(guards)
    started = time.perf_counter()
    silent = silent_config(config)
    if len(guards) == 1:
        findings = [await guards[0]._afind(value, silent)]
    else:
        # No TaskGroup: it would wrap an interrupt that passes through into a group that nobody looks into.
        checks = [asyncio.create_task(guard._afind(value, silent)) for guard in guards]
        try:
            findings = await asyncio.gather(*checks)
        finally:
            for check in checks:
                check.cancel()
    return Decision.of(findings, latency_ms=(time.perf_counter() - started) * 1000)


def placed(guards: Guard | Sequence[Guard], stage: Stage) -> tuple[Guard, ...]:
    """The guards as they stand at a stage, which their records then tell. They share their circuit breakers.

    Raises:
        InputError: There is none, so nothing would be checked, or one is not a `Guard`.
    """
    asked = []
    several: Sequence[Any] = guards if isinstance(guards, Sequence) else (guards,)
    for guard in several:
        if not isinstance(guard, Guard):
            msg = f"a guard is needed here, not a {type(guard).__name__}; make one: Guard(classifier, policy)"
            raise InputError(msg)
        here = copy(guard)
        here.stage = stage
        asked.append(here)
    if not asked:
        msg = "no guard was given, so nothing would be checked; pass at least one"
        raise InputError(msg)
    return tuple(asked)


def _check_same_labels(what: str, labels: Sequence[str], known: Sequence[str]) -> None:
    if set(labels) != set(known):
        msg = (
            f"{what} has the labels {', '.join(labels)}, but those of the classifier are {', '.join(known)}; "
            "a guard needs one set of labels"
        )
        raise InputError(msg)


def _why(outcome: Outcome, label: str | None, verdict: Verdict) -> str:
    if outcome == "error":
        failure = verdict.failure
        return f"there is no verdict ({failure.kind if failure is not None else 'scores or label unreadable'})"
    about = f" about {label!r}" if label is not None else ""
    return {"clear": "nothing was found", "violation": f"{label!r} was found"}.get(
        outcome, f"the classifier is not certain{about}"
    )


def _task_of(classifier: Runnable[Any, Any]) -> Task | None:
    """The task of a `PLDClassifier`, also through what `with_config` and the like put around it."""
    inner: Any = classifier
    for _ in range(4):
        task = getattr(getattr(inner, "artifact", None), "task", None)
        if isinstance(task, Task):
            return task
        inner = getattr(inner, "bound", None)
    return None


def _some(guards: Sequence[Guard]) -> None:
    if not guards:
        msg = "there is no guard to check with; pass at least one"
        raise InputError(msg)
