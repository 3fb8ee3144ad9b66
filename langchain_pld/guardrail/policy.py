"""What a guard does with a verdict: which labels block, and what follows a violation, a doubt and a failure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from langchain_pld.errors import InputError
from langchain_pld.verdict import Verdict
from langchain_pld.yaml_files import read_yaml

__all__ = ["STRICTNESS", "Action", "FinalAction", "GuardrailPolicy", "Outcome", "strictest"]

Action = Literal["block", "allow", "flag", "escalate", "interrupt", "raise"]
"""`block`: not passed on; `allow`: passed on; `flag`: passed on and marked; `escalate`: another model is asked;
`interrupt`: a person is asked; `raise`: an exception ends the run."""

FinalAction = Literal["block", "allow", "flag", "interrupt", "raise"]
"""An action that needs no other model any more."""

Outcome = Literal["clear", "violation", "uncertain", "error"]
"""What a verdict means under a policy."""

STRICTNESS: tuple[FinalAction, ...] = ("allow", "flag", "interrupt", "block", "raise")
"""The final actions, the strictest last."""

_STRICTER: tuple[Action, ...] = ("allow", "flag", "escalate", "interrupt", "block", "raise")
_WORSE: tuple[Outcome, ...] = ("clear", "uncertain", "error", "violation")
_ROUNDING = 1e-6
_Threshold = Annotated[float, Field(gt=0, le=1)]


class GuardrailPolicy(BaseModel):
    """What follows from a verdict. Closed by default: whatever is not clear is blocked.

    Example:
        >>> policy = GuardrailPolicy(block_labels={"threat": 0.3, "insult": None}, on_uncertain="interrupt")
        >>> policy.on_error
        'block'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_labels: dict[str, _Threshold | None] = Field(min_length=1)
    """The labels that are violations. With a threshold: from that probability on, whichever label is on top, and below
    it a verdict for the label is uncertain. With `None`: when the classifier decides for it. A list means `None` each.
    """
    on_violation: Action = "block"
    """What to do with a violation."""
    on_uncertain: Action = "block"
    """What to do when the classifier abstained, or decided for a blocking label below its threshold."""
    on_error: Action = "block"
    """What to do when there is no verdict: a failed model, no answer in time, an unreadable answer."""
    after_escalation: FinalAction = "block"
    """What to do when the policy escalates and the other model's verdict asks for that again."""
    on_unreadable: FinalAction = "block"
    """What to do with content that holds parts which no classifier can read: images, sound, files, unknown objects."""
    invisible_text: Literal["remove", "block", "keep"] = "remove"
    """What to do with characters that nobody sees but a model reads; the classifier never reads them. `remove`: inputs
    and tool results go on without them, as they were checked; `keep`: unchanged; `block`: held back."""
    on_audit_error: Literal["continue", "block"] = "continue"
    """What to do while the audit log cannot be written; an error in the log of `langchain_pld` tells either way."""
    deadline_s: float = Field(default=10.0, gt=0, le=86_400)
    """Seconds that a check may wait for a model; one that is escalated to gets as many again."""
    violation_message: str = "This content was not passed on because it does not meet the rules of this service."
    """What takes the place of content that is a violation. Never holds the content."""
    uncertain_message: str = "This content was not passed on because it could not be cleared."
    """What takes the place of content in doubt."""
    error_message: str = "This content was not passed on because it could not be checked. Please try again later."
    """What takes the place of content that could not be checked."""

    @field_validator("block_labels", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            msg = f"must be a list of labels or a mapping from label to threshold, not the text {value!r}"
            raise ValueError(msg)
        return dict.fromkeys(value) if isinstance(value, list | tuple | set | frozenset) else value

    @classmethod
    def from_yaml(cls, path: str | Path) -> GuardrailPolicy:
        """Read a policy file.

        Raises:
            InputError: The file is missing, not YAML, or not a policy; the message says which field.
        """
        path = Path(path)
        try:
            data = read_yaml(path)
        except FileNotFoundError:
            msg = f"no policy file at {path}"
            raise InputError(msg) from None
        except (OSError, ValueError) as error:
            msg = f"the policy file {path} cannot be read: {error}"
            raise InputError(msg) from error
        if not isinstance(data, dict):
            msg = f"the policy file {path} must hold a mapping with at least `block_labels`"
            raise InputError(msg)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors()[:3]
            ]
            msg = f"the policy file {path} is wrong: {'; '.join(problems)}"
            raise InputError(msg) from error

    def check_labels(self, labels: Iterable[str]) -> None:
        """Compare the blocking labels with those of a task.

        Raises:
            InputError: A blocking label is not one of them, so that it would never block.
        """
        known = tuple(labels)
        unknown = [label for label in self.block_labels if label not in known]
        if unknown:
            msg = f"the policy blocks {unknown[0]!r}, which the task does not have; its labels are {', '.join(known)}"
            raise InputError(msg)

    def judge(self, verdict: Verdict) -> tuple[Outcome, str | None]:
        """What a verdict means: the outcome, and the blocking label that it is about, if one."""
        probabilities = verdict.probabilities or {}
        thresholds = {label: threshold for label, threshold in self.block_labels.items() if threshold is not None}
        # A verdict without any probability counts for its label; a label that it leaves out has at most what is left.
        rest = 1 - math.fsum(probabilities.values()) if probabilities else 0.0
        known = all(map(_is_probability, probabilities.values())) and all(
            label in probabilities or rest < threshold for label, threshold in thresholds.items()
        )
        if verdict.status == "failed" or not known:
            return "error", None
        over = [label for label, threshold in thresholds.items() if probabilities.get(label, 0.0) >= threshold]
        if over:
            return "violation", max(over, key=probabilities.__getitem__)
        if verdict.status == "abstained":
            return "uncertain", verdict.predicted_label if verdict.predicted_label in self.block_labels else None
        if verdict.label not in self.block_labels:
            return "clear", None
        return "violation" if self.block_labels[verdict.label] is None else "uncertain", verdict.label

    def worst(self, verdicts: Sequence[Verdict]) -> Verdict:
        """Of several verdicts about parts of one input, that with the strictest action."""

        def badness(verdict: Verdict) -> tuple[int, int, float]:
            outcome, _ = self.judge(verdict)
            sure = verdict.confidence or 0.0
            return (
                _STRICTER.index(self.action_for(outcome)),
                _WORSE.index(outcome),
                -sure if outcome == "clear" else sure,
            )

        return max(verdicts, key=badness)

    def action_for(self, outcome: Outcome) -> Action:
        """What the policy does with an outcome."""
        chosen: dict[Outcome, Action] = {
            "clear": "allow",
            "violation": self.on_violation,
            "uncertain": self.on_uncertain,
            "error": self.on_error,
        }
        return chosen[outcome]

    def message_for(self, outcome: Outcome) -> str:
        """What takes the place of content that is not passed on; empty for a clear outcome."""
        texts: dict[Outcome, str] = {
            "clear": "",
            "violation": self.violation_message,
            "uncertain": self.uncertain_message,
            "error": self.error_message,
        }
        return texts[outcome]

    @property
    def actions(self) -> frozenset[Action]:
        """Every action that can follow from it."""
        first = {self.on_violation, self.on_uncertain, self.on_error, self.on_unreadable}
        return frozenset(first | {self.after_escalation} if "escalate" in first else first)


def _is_probability(value: float) -> bool:
    return -_ROUNDING <= value <= 1 + _ROUNDING  # false for what is no number


def strictest(actions: Iterable[FinalAction]) -> FinalAction:
    """The strictest of some actions; `allow` when there is none."""
    return max(actions, key=STRICTNESS.index, default="allow")
