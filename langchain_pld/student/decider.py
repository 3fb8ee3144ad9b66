"""From an input to a verdict: lay it out, ask the student, read the answer, calibrate and gate it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_pld.artifact import DistilledPrompt, ModelFingerprint
from langchain_pld.errors import InputError
from langchain_pld.steps import Steps, blocking_call
from langchain_pld.student.chunks import LongInput, mean_scores, most_severe, worst_chunk
from langchain_pld.student.context_window import ContextWindow
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.inputs import ClassifierInput, Select, read_input
from langchain_pld.student.model_caller import ModelCaller, Reply
from langchain_pld.student.prompt import chat
from langchain_pld.student.providers import ModelProfile
from langchain_pld.student.sanitize import CleanText, clean_text
from langchain_pld.student.scoring import Scores, read_answer
from langchain_pld.student.two_stage import two_stage
from langchain_pld.verdict import Failure, Usage, Verdict

__all__ = ["Decider"]

_SHORT = 20_000
"""Up to so many characters are cleaned in the event loop, within milliseconds."""


class Decider:
    """Decides with one artifact and one student; does no I/O itself."""

    def __init__(
        self,
        artifact: DistilledPrompt,
        profile: ModelProfile,
        fingerprint: ModelFingerprint,
        *,
        select: Select,
        long_input: LongInput,
        timeout_s: float,
        retry: RetryPolicy,
    ) -> None:
        self.artifact_id = artifact.id
        self._select = select
        self.spec = profile.spec
        self.other_student = artifact.student.differs_from(fingerprint)
        """How the student differs from the artifact's; `None` if it does not, as far as known."""
        self.calibrated = self.other_student is None and artifact.calibration.method != "none"
        """Whether this student's probabilities were calibrated on labelled rows."""
        # First tokens learned from one student do not apply to another.
        self._artifact = artifact.model_copy(update={"answer": artifact.answer_for(fingerprint)})
        self._rule_ids = {
            name: tuple(rule.id for rule in artifact.rules_for(name)) for name in artifact.task.label_names
        }
        self._window = ContextWindow(artifact, profile, long_input)
        self._long_input = long_input
        self._severity = long_input.severity(artifact.task)
        self._caller = ModelCaller(
            profile,
            artifact.answer,
            artifact.scorer,
            timeout_s=timeout_s,
            retry=retry,
            context_length=self._window.length,
        )

    def steps(self, value: ClassifierInput, config: RunnableConfig) -> Steps[Verdict]:
        """Decide about one input; the config is passed on to the student."""
        started, usage = time.perf_counter(), Usage()

        def ask(messages: list[BaseMessage]) -> Steps[Reply]:
            nonlocal usage
            reply = yield from self._caller.ask(messages, config)
            usage = usage + _usage(reply) if usage.calls else _usage(reply)
            return reply

        def verdict(outcome: Scores | Failure) -> Verdict:
            made = self._verdict(outcome, usage, (time.perf_counter() - started) * 1000)
            return made.model_copy(update={"unread": unread}) if unread else made

        unread: tuple[str, ...] = ()
        try:
            text, unread = read_input(self._artifact.task, value, self._select)
        except InputError as error:
            return verdict(Failure(kind="input", message=str(error)))
        chunks = yield from self._chunks(text)
        if isinstance(chunks, Failure):
            return verdict(chunks)
        outcomes: list[Scores | Failure] = []
        for chunk in chunks:
            if self._artifact.answer.form == "two_stage":
                outcome = yield from two_stage(self._artifact, chunk, ask)
            else:
                outcome = self._read((yield from ask(chat(self._artifact.system_prompt, chunk))))
            outcomes.append(outcome)
        if len(outcomes) == 1:
            return verdict(outcomes[0])
        long_input = self._long_input
        worst = worst_chunk.get() if long_input.combine is None and not long_input.severe else None
        if worst is None and self._severity:
            worst = partial(most_severe, severity=self._severity)
        whole = verdict(mean_scores(outcomes)) if worst is None else worst([verdict(outcome) for outcome in outcomes])
        return whole.model_copy(update={"chunks": len(chunks)})

    def _chunks(self, raw: str) -> Steps[list[CleanText] | Failure]:
        """The cleaned text in parts that fit the context; mostly one part."""
        # Cleaning a long text would block the event loop too long.
        text = clean_text(raw) if len(raw) <= _SHORT else (yield blocking_call(partial(clean_text, raw)))
        task = self._artifact.task
        if len(text) > task.max_chars:
            message = (
                f"the input has {len(text):,} characters once its ligatures are spelled out, the limit of task "
                f"{task.name!r} is {task.max_chars:,}; shorten it, or raise max_chars in the task"
            )
            return Failure(kind="input", message=message)
        if self._window.surely_fits(text):
            return [text]
        chunks: list[CleanText] | Failure = yield blocking_call(partial(self._window.split, text))
        return chunks

    def _read(self, reply: Reply) -> Scores | Failure:
        if isinstance(reply, Failure):
            return reply
        artifact = self._artifact
        return read_answer(reply, artifact.answer, artifact.scorer, min_label_mass=artifact.min_label_mass)

    def _verdict(self, outcome: Scores | Failure, usage: Usage, latency_ms: float) -> Verdict:
        common: dict[str, Any] = {"artifact_id": self.artifact_id, "usage": usage, "latency_ms": latency_ms}
        if isinstance(outcome, Failure):
            return Verdict(status="failed", failure=outcome, **common)
        probabilities, label, confidence = None, outcome.label, None
        if outcome.log_probabilities is not None:
            probabilities = self._artifact.calibration.apply(outcome.log_probabilities)
            label = max(probabilities, key=probabilities.__getitem__)
            confidence = probabilities[label]
        gate = self._artifact.gate
        # A gate needs a probability, and the student it was fitted to.
        admitted = gate is None or (
            confidence is not None and self.other_student is None and gate.admits(label, confidence)
        )
        decided = admitted and not (probabilities is not None and _is_tied(probabilities))
        return Verdict(
            status="decided" if decided else "abstained",
            label=label if decided else None,
            predicted_label=label,
            probabilities=probabilities,
            confidence=confidence,
            calibrated=probabilities is not None and self.calibrated,
            label_mass=outcome.label_mass,
            evidence=outcome.evidence,
            rule_ids=self._rule_ids[label],
            decided_by=self.spec if decided else None,
            **common,
        )


def _is_tied(probabilities: Mapping[str, float]) -> bool:
    """Whether two labels are equally likely, so that their order alone would decide."""
    most = max(probabilities.values())
    return sum(math.isclose(value, most, rel_tol=1e-9) for value in probabilities.values()) > 1


def _usage(reply: Reply) -> Usage:
    """The tokens of an answer. A client that counts oddly or not at all must not cost the verdict."""
    counts: Any = None if isinstance(reply, Failure) else reply.usage_metadata
    if not isinstance(counts, Mapping):
        return Usage(calls=1)
    details = counts.get("input_token_details")
    return Usage(
        input_tokens=_count(counts.get("input_tokens")),
        output_tokens=_count(counts.get("output_tokens")),
        cached_tokens=_count(details.get("cache_read")) if isinstance(details, Mapping) else 0,
        calls=1,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
