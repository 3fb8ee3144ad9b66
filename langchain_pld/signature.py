"""A person's decisions about the rules of a prompt, and the hashes that tie the decisions to them.

The hashes show that no rule and no prompt was changed since, but do not prove who decided: anyone who can write the
file can write a name into it. Keep artifacts where only the right people can write, or sign the file itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, field_validator, model_validator

from langchain_pld.rules import Rule

__all__ = ["DecisionType", "Review", "ReviewAnswer", "RuleDecision", "rules_sha256"]

DecisionType = Literal["approve", "edit", "reject", "respond"]
"""The decisions of LangChain's human-in-the-loop interrupts."""

_NAME_LENGTH = 200


class RuleDecision(BaseModel, frozen=True, extra="forbid"):
    """The decision about one rule."""

    type: DecisionType
    """`approve` and `edit` let a rule into the prompt; `reject` and `respond` keep it out."""
    rule: Rule
    """The rule as the reviewer saw it; after a mere comment it still waits for a decision."""
    revised: Rule | None = None
    """The reviewer's version; only for `edit`."""
    message: str | None = None
    """The reviewer's comment or reason."""

    @model_validator(mode="after")
    def _revised_by_an_edit(self) -> RuleDecision:
        if (self.revised is not None) != (self.type == "edit"):
            msg = f"rule {self.rule.id}: an edit, and no other decision, has a revised rule; this one is {self.type!r}"
            raise ValueError(msg)
        return self

    @property
    def accepted(self) -> Rule | None:
        """The rule that may enter the prompt; `None` if it was not accepted."""
        return self.rule if self.type == "approve" else self.revised


class ReviewAnswer(BaseModel, frozen=True, extra="forbid"):
    """A reviewer's decisions about all rules of a prompt."""

    reviewer: str
    """Name of the person who decided, on one line; taken on trust."""
    time: str
    """Time of the decision, ISO 8601, UTC."""
    decisions: dict[str, RuleDecision]
    """Id of the shown rule to the decision about it."""

    @field_validator("reviewer")
    @classmethod
    def _one_line(cls, name: str) -> str:
        name = name.strip()
        if not name or len(name) > _NAME_LENGTH or not name.isprintable():
            raise ValueError(f"the reviewer needs a name of 1 to {_NAME_LENGTH} characters on one line")
        return name

    @field_validator("time")
    @classmethod
    def _utc(cls, time: str) -> str:
        try:
            moment = datetime.fromisoformat(time)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC).isoformat(timespec="seconds")
        except (ValueError, OverflowError):
            pass
        raise ValueError(f"the time {time!r} is not ISO 8601 with its offset from UTC, e.g. 2026-11-24T09:00:00+00:00")

    @model_validator(mode="after")
    def _ids(self) -> ReviewAnswer:
        misplaced = [key for key, decision in self.decisions.items() if key != decision.rule.id]
        if misplaced:
            raise ValueError(f"a decision does not stand under the id of its rule: {', '.join(misplaced)}")
        accepted = [rule.id for rule in self.accepted]
        if len(set(accepted)) < len(accepted):
            raise ValueError(f"a rule is accepted twice: {', '.join(sorted(accepted))}")
        return self

    @property
    def accepted(self) -> tuple[Rule, ...]:
        """The rules that may enter the prompt, in the order shown."""
        return tuple(rule for decision in self.decisions.values() if (rule := decision.accepted) is not None)

    @property
    def undecided(self) -> tuple[Rule, ...]:
        """The rules with only a comment; they stay out of the prompt until a person accepts them."""
        return tuple(decision.rule for decision in self.decisions.values() if decision.type == "respond")

    def summary(self) -> str:
        """The counts of the decisions, in one line."""
        types = [decision.type for decision in self.decisions.values()]
        past = {"approve": "approved", "edit": "edited", "reject": "rejected", "respond": "commented"}
        counts = [f"{types.count(kind)} {name}" for kind, name in past.items() if kind in types]
        return f"{self.reviewer}: {', '.join(counts) or 'no rule'}"


class Review(ReviewAnswer):
    """Signed decisions, valid only for these rules and this prompt."""

    rules_sha256: str
    """Hash of the accepted rules, without order and measured effects."""
    prompt_sha256: str
    """Hash of the system prompt made from them."""

    @classmethod
    def of(cls, answer: ReviewAnswer, *, prompt_sha256: str) -> Review:
        """Sign the decisions."""
        return cls(**dict(answer), rules_sha256=rules_sha256(answer.accepted), prompt_sha256=prompt_sha256)

    def problem(self, rules: Sequence[Rule], prompt_sha256: str) -> str | None:
        """Why this signature does not hold for some rules and their prompt; `None` if it does."""
        if rules_sha256(rules) != self.rules_sha256:
            return f"{difference(self.accepted, rules)} since {self.reviewer} accepted the rules on {self.time}"
        if rules_sha256(self.accepted) != self.rules_sha256:
            return f"the record of what {self.reviewer} decided on {self.time} was changed"
        if prompt_sha256 != self.prompt_sha256:
            return f"the system prompt was changed since {self.reviewer} accepted its rules on {self.time}"
        return None


def rules_sha256(rules: Sequence[Rule]) -> str:
    """Hash of rules, without their order and their effects, which are measured again with each prompt."""
    return hashlib.sha256("\n".join(sorted(set(map(_signed_part, rules)))).encode()).hexdigest()


def difference(accepted: Sequence[Rule], rules: Sequence[Rule]) -> str:
    """How two sets of rules differ, in words."""
    then, now = ({rule.id: _signed_part(rule) for rule in some} for some in (accepted, rules))
    keys = {
        "changed": [key for key in now if key in then and now[key] != then[key]],
        "added": [key for key in now if key not in then],
        "taken out": [key for key in then if key not in now],
    }
    parts = [f"{', '.join(ids)} {what}" for what, ids in keys.items() if ids]
    return f"rules differ ({'; '.join(parts)})" if parts else "the rules were changed"


def _signed_part(rule: Rule) -> str:
    content = rule.model_dump(mode="json", exclude={"effect"})
    return json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
