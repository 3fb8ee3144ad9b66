"""One check: a classifier gives a verdict, a policy turns it into a decision.

Node, middleware, stream and chain all use `check_steps`. A check never raises because of a model or an input;
LangGraph's interrupts, cancellation and Ctrl-C pass through.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from copy import copy
from pathlib import Path
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.errors import InputError
from langchain_pld.guardrail.audit import AuditTrail
from langchain_pld.guardrail.classifier_call import ClassifierCall, unwrap
from langchain_pld.guardrail.content import Content, Stage, read
from langchain_pld.guardrail.decision import Decision, Finding
from langchain_pld.guardrail.invisible import has_invisible, strip_invisible
from langchain_pld.guardrail.nostream import nostream_config
from langchain_pld.guardrail.policy import FinalAction, GuardrailPolicy, Outcome, strictest
from langchain_pld.guardrail.telemetry import GuardTelemetry
from langchain_pld.steps import Call, Steps, arun_steps, run_steps
from langchain_pld.student.classifier import PLDClassifier
from langchain_pld.student.inputs import input_text
from langchain_pld.verdict import Verdict

__all__ = ["Guard", "acheck_all", "at_stage", "check_all", "check_steps", "side_by_side"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Guard:
    """A classifier under a policy.

    Args:
        classifier: A `PLDClassifier`, any Runnable that takes a text and gives a `Verdict`, or the path of an artifact.
        policy: What follows from a verdict.
        name: Name in reasons, records and traces; by default the task's name.
        stage: Its stage.
        escalate_to: Who is asked when the policy says `escalate`: a Runnable giving a `Verdict`, or a chat model (or
            `provider:name`), which is asked with the classifier's own prompt.
        labels: The possible labels; needed only for a classifier without an artifact.
        audit: Where records go; by default the logger `langchain_pld.audit`, without texts.
        telemetry: OpenTelemetry spans and metrics of each check; by default none.

    Raises:
        InputError: The policy blocks a label that the task does not have, has thresholds for a classifier without
            probabilities, or escalates to nobody or twice; or the labels are not known.

    Example:
        >>> guard = Guard(  # doctest: +SKIP
        ...     PLDClassifier.from_artifact("chat.pld.json"), GuardrailPolicy(block_labels=["pressure"])
        ... )
        >>> guard.check("Could you finish this on Sunday?").allowed  # doctest: +SKIP
        False
    """

    def __init__(
        self,
        classifier: Runnable[Any, Verdict] | str | Path,
        policy: GuardrailPolicy,
        *,
        name: str | None = None,
        stage: Stage = "input",
        escalate_to: Runnable[Any, Any] | str | None = None,
        labels: Sequence[str] | None = None,
        audit: AuditTrail | None = None,
        telemetry: GuardTelemetry | None = None,
    ) -> None:
        self.classifier = PLDClassifier.from_artifact(classifier) if isinstance(classifier, str | Path) else classifier
        """Who is asked."""
        own = unwrap(self.classifier)
        artifact = getattr(own, "artifact", None)
        artifact = artifact if isinstance(artifact, DistilledPrompt) else None
        self.task = artifact.task if artifact is not None else None
        """The classifier's task; `None` where the classifier has no artifact."""
        known = self.task.label_names if self.task is not None else labels
        if not known:
            msg = "the labels of this classifier are not known; pass labels=[...], or a classifier with an artifact"
            raise InputError(msg)
        policy.check_labels(known)
        if labels is not None:
            _check_same_labels("labels=", labels, known)
        _check_fit(policy, own, artifact, escalate_to)
        if isinstance(escalate_to, str) or isinstance(unwrap(escalate_to), BaseChatModel):
            escalate_to = _classifier_for(own, cast("BaseChatModel | str", escalate_to))
        other = getattr(unwrap(escalate_to), "artifact", None)
        if isinstance(other, DistilledPrompt):
            _check_same_labels("escalate_to", other.task.label_names, known)
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
        self.identity = f"{policy.model_dump_json()} {artifact.id if artifact is not None else known}"
        """What decides: policy and artifact. What one guard let pass, another one under the same name checks again."""
        self._telemetry = telemetry
        self._first = ClassifierCall(self.classifier, self.name, worst=policy.worst)
        self._second: ClassifierCall | None = None
        if escalate_to is not None:
            self._second = ClassifierCall(cast("Any", escalate_to), f"{self.name} (escalated)", worst=policy.worst)

    def check(self, value: Any, config: RunnableConfig | None = None) -> Decision:
        """Check one input.

        Args:
            value: A text, messages, the task's fields, or any other plain values. What holds nothing is clear.
            config: The config of the run that the check is part of.
        """
        return check_all([self], value, config)

    async def acheck(self, value: Any, config: RunnableConfig | None = None) -> Decision:
        """Async form of `check`."""
        return await acheck_all([self], value, config)

    def text_of(self, value: Any) -> str | None:
        """The text that the classifier reads of an input; `None` where it cannot be laid out."""
        if self.task is None:
            return None if isinstance(value, Mapping) else read(value).text
        try:
            return input_text(self.task, self._classifier_input(value, read(value)))
        except InputError:
            return None

    def find(self, value: Any, config: RunnableConfig) -> Steps[Finding]:
        """The steps of a check by this guard alone, recorded."""
        started = time.perf_counter()
        content = read(value)
        outcome, action, label, reason, verdicts = yield from self._judge(value, content, config)
        strips = bool(verdicts) and self.policy.invisible_text == "remove" and has_invisible(content.text)
        finding = Finding(
            guard=self.name,
            stage=self.stage,
            outcome=outcome,
            action=action,
            label=label,
            reason=f"{self.name}: {reason}",
            message=self.policy.message_for(outcome),
            verdicts=verdicts,
            strips_invisible=strips,
            latency_ms=(time.perf_counter() - started) * 1000,
        )
        if self._report(finding, value) or self.policy.on_audit_error == "continue":
            return finding
        block = {"action": strictest([finding.action, "block"]), "outcome": "error"}
        reason = f"{self.name}: the audit log cannot be written"
        return finding.model_copy(update={**block, "reason": reason, "message": self.policy.error_message})

    def _judge(
        self, value: Any, content: Content, config: RunnableConfig
    ) -> Steps[tuple[Outcome, FinalAction, str | None, str, tuple[Verdict, ...]]]:
        """Outcome, action, blocking label, reason and verdicts."""
        policy = self.policy
        has_text = bool(content.text.strip())
        if content.unreadable and (not has_text or policy.on_unreadable not in {"allow", "flag"}):
            return "uncertain", policy.on_unreadable, None, "it holds parts that the classifier cannot read", ()
        if policy.invisible_text != "keep" and has_invisible(content.text):
            if policy.invisible_text == "block":
                return "uncertain", "block", None, "it holds invisible characters", ()
            if not _is_strippable(value):
                return "uncertain", "block", None, "it holds invisible characters that cannot be taken out", ()
        if not has_text:
            return "clear", "allow", None, "there is nothing to check", ()
        metadata = {**(config.get("metadata") or {}), "pld_guard": self.name, "pld_stage": self.stage}
        asked, own = self._classifier_input(value, content), cast("RunnableConfig", {**config, "metadata": metadata})
        verdicts = [(yield from self._first.steps(asked, own, policy.deadline_s))]
        outcome, label = self._outcome(verdicts[0])
        action = policy.action_for(outcome)
        if action == "escalate" and self._second is not None:
            verdicts.append((yield from self._second.steps(asked, own, policy.deadline_s)))
            outcome, label = self._outcome(verdicts[1])
            action = policy.action_for(outcome)
        final: FinalAction = policy.after_escalation if action == "escalate" else action
        if content.unreadable:
            final = strictest([final, policy.on_unreadable])
        return outcome, final, label, _reason(outcome, label, verdicts[-1]), tuple(verdicts)

    def _outcome(self, verdict: Verdict) -> tuple[Outcome, str | None]:
        """What a verdict means; one about labels that the guard does not know is no verdict at all."""
        labels = {verdict.label, verdict.predicted_label, *(verdict.probabilities or ())} - {None}
        return self.policy.judge(verdict) if labels <= set(self.labels) else ("error", None)

    def _classifier_input(self, value: Any, content: Content) -> Any:
        """What the classifier is handed: its fields as they are, anything else as one text with all its words."""
        fields = set(self.task.fields) if self.task is not None else None
        is_row = isinstance(value, Mapping) and (fields is None or (fields and set(value) == fields))
        return value if is_row else content.text

    def _report(self, finding: Finding, value: Any) -> bool:
        """Tell audit log and telemetry, whose errors are loud but decide nothing here; whether the log was written."""
        try:
            if self._telemetry is not None:
                self._telemetry.record(finding)
        except Exception:  # an exporter of the application's
            _logger.exception("%s: the telemetry cannot be written", self.name)
        try:
            self.audit.record(finding, self.text_of(value) if self.audit.enabled else None)
        except Exception:  # a handler of the application's
            _logger.exception("%s: the audit log cannot be written", self.name)
            return False
        return not self.audit.failing


def check_all(guards: Sequence[Guard], value: Any, config: RunnableConfig | None = None) -> Decision:
    """Check one input with several guards in parallel; the strictest wins, and every finding is kept.

    Raises:
        InputError: There is no guard.
    """
    return run_steps(check_steps(guards, value, config))


async def acheck_all(guards: Sequence[Guard], value: Any, config: RunnableConfig | None = None) -> Decision:
    """Async form of `check_all`."""
    return await arun_steps(check_steps(guards, value, config))


def check_steps(guards: Sequence[Guard], value: Any, config: RunnableConfig | None) -> Steps[Decision]:
    """The steps of `check_all`, for whoever has further steps around them."""
    if not guards:
        msg = "there is no guard to check with; pass at least one"
        raise InputError(msg)
    started = time.perf_counter()
    nostream = nostream_config(config)
    findings = yield from side_by_side([guard.find(value, nostream) for guard in guards])
    return Decision.of(findings, latency_ms=(time.perf_counter() - started) * 1000)


def side_by_side(several: Sequence[Steps[T]]) -> Steps[list[T]]:
    """The results of several generators, run at the same time."""
    if len(several) == 1:
        return [(yield from several[0])]
    results: list[T] = yield Call(lambda: _in_threads(several), lambda: _in_tasks(several))
    return results


def _in_threads(several: Sequence[Steps[T]]) -> list[T]:
    # Each check ends by its own deadline, so that leaving the pool never waits longer than the slowest of them.
    with ThreadPoolExecutor(max(1, min(len(several), _AT_ONCE))) as pool:
        runs = [pool.submit(copy_context().run, run_steps, steps) for steps in several]
        return [run.result() for run in runs]


async def _in_tasks(several: Sequence[Steps[T]]) -> list[T]:
    # No TaskGroup: it would hide an interrupt that passes through in an exception group.
    places = asyncio.Semaphore(_AT_ONCE)

    async def run(steps: Steps[T]) -> T:
        async with places:
            return await arun_steps(steps)

    tasks = [asyncio.create_task(run(steps)) for steps in several]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


_AT_ONCE = 16
"""Checks of one request at the same time, however many messages it brings."""


def at_stage(guards: Guard | Sequence[Guard], stage: Stage) -> tuple[Guard, ...]:
    """Copies of the guards for a stage, which their records then tell. They share their circuit breakers.

    Raises:
        InputError: There is none, so nothing would be checked, or one is not a `Guard`.
    """
    several: Sequence[Any] = guards if isinstance(guards, Sequence) else (guards,)
    if not several:
        msg = "no guard was given, so nothing would be checked; pass at least one"
        raise InputError(msg)
    here = []
    for guard in several:
        if not isinstance(guard, Guard):
            msg = f"a guard is needed here, not a {type(guard).__name__}; make one: Guard(classifier, policy)"
            raise InputError(msg)
        here.append(copy(guard))
        here[-1].stage = stage
    return tuple(here)


def _check_same_labels(what: str, labels: Sequence[str], known: Sequence[str]) -> None:
    if set(labels) != set(known):
        msg = (
            f"{what} has the labels {', '.join(labels)}, but those of the classifier are {', '.join(known)}; "
            "a guard needs one set of labels"
        )
        raise InputError(msg)


def _reason(outcome: Outcome, label: str | None, verdict: Verdict) -> str:
    if outcome == "error":
        failure = verdict.failure
        return f"there is no verdict ({failure.kind if failure is not None else 'scores or label unreadable'})"
    if outcome == "uncertain":
        return "the classifier is not certain" + (f" about {label!r}" if label is not None else "")
    return f"{label!r} was found" if outcome == "violation" else "nothing was found"


def _is_strippable(value: Any) -> bool:
    """Whether a value can go on without its invisible characters."""
    try:
        return not has_invisible(read(strip_invisible(value)).text)
    except Exception:  # objects that cannot be made anew, nested without end
        return False


def _check_fit(policy: GuardrailPolicy, own: Any, artifact: DistilledPrompt | None, escalate_to: object) -> None:
    """Check that classifier and policy fit together.

    Raises:
        InputError: They do not.
    """
    thresholds = any(threshold is not None for threshold in policy.block_labels.values())
    if artifact is not None and artifact.scorer != "logprobs" and thresholds:
        msg = (
            f"the policy has thresholds, but answers read as {artifact.scorer} have no probabilities; "
            "list the labels alone"
        )
        raise InputError(msg)
    if "escalate" in policy.actions and escalate_to is None:
        msg = "the policy escalates, but the guard has no escalate_to; pass the classifier or model to escalate to"
        raise InputError(msg)
    if "escalate" in {policy.on_uncertain, policy.on_error} and getattr(own, "escalate_to", None) is not None:
        msg = "both the policy and the classifier escalate what is uncertain or failed; leave one of them out"
        raise InputError(msg)


def _classifier_for(own: Any, model: BaseChatModel | str) -> PLDClassifier:
    if not isinstance(own, PLDClassifier):
        msg = "escalate_to is a chat model, but this classifier has no artifact to ask it with; pass a classifier"
        raise InputError(msg)
    return own.for_model(model)
