"""The verdict: what the student decided, or why it did not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Failure", "FailureKind", "Opinion", "Usage", "Verdict", "VerdictStatus"]

VerdictStatus = Literal["decided", "abstained", "failed"]
"""`decided`: there is a label; `abstained`: readable, but below the gate; `failed`: no readable answer."""

FailureKind = Literal[
    "connection",  # no connection, or it broke
    "timeout",  # no answer in time
    "authentication",  # 401, 403
    "model_missing",  # 404: the server does not have the model
    "rate_limit",  # 429
    "server",  # 5xx and other refusals by the service
    "circuit_open",  # not asked: the model failed too often just before
    "empty",  # an answer without content
    "cut",  # the answer ended at the token limit
    "unreadable",  # an answer that is no label
    "input",  # the input cannot be classified: empty, too long, wrong fields
    "budget",  # not asked: the budget of the distillation run is spent
    "unexpected",  # anything else; the message names the exception
]
"""Classes of failure."""


class Failure(BaseModel):
    """Why there is no label. Never holds the user's text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    """The class of failure."""
    message: str
    """What happened, and what to do about it."""

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed a moment later."""
        return self.kind in {"connection", "timeout", "rate_limit", "server"}


class Usage(BaseModel):
    """Tokens spent on a verdict, as counted by the model's server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_tokens: int = 0
    """Prompt tokens, including cached ones."""
    output_tokens: int = 0
    """Generated tokens."""
    cached_tokens: int = 0
    """Prompt tokens read from the prefix cache."""
    calls: int = 0
    """Model calls: more than one for chunks, retries and escalations."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            calls=self.calls + other.calls,
        )


class Opinion(BaseModel):
    """One decider's view of an input, kept when more than one was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decider: str
    """Name of the model or person."""
    status: VerdictStatus
    """decided, abstained or failed."""
    label: str | None = None
    """Its most probable label, even if it abstained."""
    confidence: float | None = None
    """Probability of the label, 0 to 1."""
    failure: Failure | None = None
    """Why it gave no readable answer."""


class Verdict(BaseModel):
    """One decision of a classifier; equality ignores what it cost (`usage`, `latency_ms`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: VerdictStatus
    """decided, abstained or failed."""
    label: str | None = None
    """The label; `None` unless `status` is decided."""
    predicted_label: str | None = None
    """The most probable label, even if the verdict is abstained."""
    probabilities: dict[str, float] | None = None
    """Label name to probability, adding up to 1; `None` if the answer carried no scores."""
    confidence: float | None = None
    """Probability of the most probable label, 0 to 1."""
    calibrated: bool = False
    """Whether the probabilities were calibrated on labelled rows for this student."""
    label_mass: float | None = None
    """Probability of valid answers, 0 to 1; low if the student did not follow the answer form."""
    evidence: str | None = None
    """The words of the input that the student called decisive, if the answer form asks for them."""
    rule_ids: tuple[str, ...] = ()
    """Ids of the artifact's rules for the label, or the predicted one, in prompt order. They show what the prompt says
    about that label, not why the student chose it: a one-token answer cites nothing."""
    failure: Failure | None = None
    """Why there is no label; set if and only if `status` is failed."""
    artifact_id: str | None = None
    """Id of the artifact that decided."""
    decided_by: str | None = None
    """Name of the model or person that chose the label."""
    opinions: tuple[Opinion, ...] = ()
    """Each decider's opinion in the order asked, if there was more than one."""
    unread: tuple[str, ...] = ()
    """Kinds of message parts that were not read, e.g. `image_url` or `tool_call`."""
    chunks: int = 1
    """Number of chunks in which the input was read."""
    usage: Usage = Field(default_factory=Usage)
    """Tokens and calls spent."""
    latency_ms: float = 0.0
    """Wall-clock milliseconds from input to verdict."""

    @model_validator(mode="after")
    def _consistent(self) -> Verdict:
        if (self.status == "decided") != (self.label is not None):
            msg = f"a {self.status} verdict {'needs' if self.status == 'decided' else 'must not have'} a label"
            raise ValueError(msg)
        if (self.status == "failed") != (self.failure is not None):
            msg = f"a {self.status} verdict {'needs' if self.status == 'failed' else 'must not have'} a failure"
            raise ValueError(msg)
        return self

    def __str__(self) -> str:
        """The decision and its confidence, then who made it, in two lines for people."""
        likely = f", most likely {self.predicted_label}" if self.predicted_label else ""
        label = self.label or f"{self.status}{likely}"
        sure = "" if self.confidence is None else f" ({self.confidence:.0%})"
        why = f": {self.failure.kind}, {self.failure.message}" if self.failure else ""
        others = ", ".join(f"{name} {chance:.2f}" for name, chance in (self.probabilities or {}).items())
        raw = "" if self.calibrated or self.probabilities is None else " (not calibrated)"
        by = f"by {self.decided_by or 'nobody'} with {self.artifact_id or 'no artifact'}"
        return " ".join(f"{label}{sure}{why}".split()) + f"\n{by}" + (f": {others}{raw}" if others else "")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Verdict):
            return NotImplemented
        return self._decision() == other._decision()

    def __hash__(self) -> int:
        return hash((self.status, self.label, self.confidence, self.artifact_id))

    def _decision(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in {"usage", "latency_ms"}}
