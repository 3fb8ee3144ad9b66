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
"""Why there is no verdict."""


class Failure(BaseModel):
    """Why there is no label. Never holds the user's text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    """The class of failure."""
    message: str
    """What happened, and what to do about it."""

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed a moment later."""
        return self.kind in {"connection", "timeout", "rate_limit", "server"}


class Usage(BaseModel):
    """Tokens that a verdict cost, as the model's server counted them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_tokens: int = 0
    """Prompt tokens, cached ones included."""
    output_tokens: int = 0
    """Generated tokens."""
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
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
    """What one decider thought of an input; kept when more than one was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decider: str
    """Name of the model or person."""
    status: VerdictStatus
    """How far it came."""
    label: str | None = None
    """Its label, also when it only leaned to it."""
    confidence: float | None = None
    """Probability that it gave the label, 0 to 1."""
    failure: Failure | None = None
    """Why it gave no readable answer."""


class Verdict(BaseModel):
    """One decision of a classifier.

    Two verdicts are equal when they decide the same: what a verdict cost (`usage`, `latency_ms`) is not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: VerdictStatus
    """decided, abstained or failed."""
    label: str | None = None
    """The label; `None` unless `status` is decided."""
    predicted_label: str | None = None
    """The most probable label, also of an abstained verdict."""
    probabilities: dict[str, float] | None = None
    """Label name to probability, adding up to 1; `None` where the answer carried no scores."""
    confidence: float | None = None
    """Probability of the most probable label, 0 to 1."""
    calibrated: bool = False
    """Whether the probabilities were calibrated on labelled rows for this very student."""
    label_mass: float | None = None
    """Share of the student's probability that fell on valid answers, 0 to 1; low means it did not follow the form."""
    evidence: str | None = None
    """The words of the input that the student named as decisive, where the answer form asks for them."""
    rule_ids: tuple[str, ...] = ()
    """Ids of the artifact's rules that argue for the label, or the predicted one, in the order of the prompt. They tell
    what the prompt says about that label, not what made the student decide: an answer of one token cites nothing."""
    failure: Failure | None = None
    """Why there is no label; set exactly when `status` is failed."""
    artifact_id: str | None = None
    """Id of the artifact that decided."""
    decided_by: str | None = None
    """Name of the model or person whose label this is."""
    opinions: tuple[Opinion, ...] = ()
    """What each decider thought, in the order asked, where there was more than one."""
    unread: tuple[str, ...] = ()
    """Kinds of parts of the messages that were not read, e.g. `image_url` or `tool_call`."""
    chunks: int = 1
    """Number of chunks that the input was read in."""
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
        """What was decided and how sure, then who decided, in two lines for people."""
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
