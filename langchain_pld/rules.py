"""Rules: the drafts of the teacher, one per example, and the merged rules of a prompt."""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import BaseModel, Field

__all__ = ["MicroRule", "Origin", "Rule"]

Origin = Literal["gold", "voted", "synthetic"]
"""Where an example's label comes from: a person, the teacher's votes, or a teacher that also made up the text."""


class MicroRule(BaseModel, frozen=True, extra="forbid"):
    """An instruction drafted from one example, without its names and details."""

    label: str
    """The label it argues for."""
    condition: str = Field(min_length=1)
    """When the label applies, in one sentence."""
    cues: tuple[str, ...] = ()
    """Signs for the label."""
    counter_cues: tuple[str, ...] = ()
    """Signs against it."""
    source: str
    """Id of the example it was drafted from."""
    origin: Origin = "gold"
    """Where that example's label comes from."""

    @property
    def id(self) -> str:
        """Stable id, derived from content and example."""
        return f"m-{_digest(self.label, self.condition, self.source)}"


class Rule(BaseModel, frozen=True, extra="forbid"):
    """A rule of the prompt.

    A rule is a value: `revised` makes a new one, which keeps sources and support and names its parent.
    """

    id: str
    """Stable id, `r-` and eight hex digits."""
    label: str
    """The label it argues for."""
    condition: str = Field(min_length=1)
    """When the label applies, in one or two sentences."""
    cues: tuple[str, ...] = ()
    """Signs for the label."""
    counter_cues: tuple[str, ...] = ()
    """Signs against it."""
    sources: tuple[str, ...] = ()
    """Ids of the examples behind it."""
    support: int = Field(default=0, ge=0)
    """Number of training examples behind it."""
    parents: tuple[str, ...] = ()
    """Ids of the rules or micro-rules it was made from, nearest last."""
    effect: float | None = None
    """Increase in mean validation log loss, in nats, when the rule is removed; `None` if not measured."""

    @classmethod
    def merged(cls, label: str, condition: str, micro_rules: tuple[MicroRule, ...]) -> Rule:
        """Make one rule from a cluster of micro-rules."""
        sources = tuple(dict.fromkeys(micro.source for micro in micro_rules))
        return cls(
            id=f"r-{_digest(label, condition)}",
            label=label,
            condition=condition,
            cues=tuple(dict.fromkeys(cue for micro in micro_rules for cue in micro.cues)),
            counter_cues=tuple(dict.fromkeys(cue for micro in micro_rules for cue in micro.counter_cues)),
            sources=sources,
            support=len(sources),
            parents=tuple(micro.id for micro in micro_rules),
        )

    @classmethod
    def added(cls, label: str, condition: str, sources: tuple[str, ...]) -> Rule:
        """Make a rule from examples that no rule covered."""
        return cls(
            id=f"r-{_digest(label, condition)}",
            label=label,
            condition=condition,
            sources=tuple(dict.fromkeys(sources)),
            support=len(set(sources)),
        )

    def revised(self, condition: str, *, label: str | None = None) -> Self:
        """A copy with another condition: new id, this rule as its last parent, sources and support kept."""
        label = label or self.label
        if (label, condition) == (self.label, self.condition):
            return self
        return self.model_copy(
            update={
                "id": f"r-{_digest(label, condition)}",
                "label": label,
                "condition": condition,
                "parents": (*self.parents, self.id),
                "effect": None,
            }
        )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]
