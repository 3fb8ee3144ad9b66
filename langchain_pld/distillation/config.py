"""The settings of a run: models, effort, limits, review, and the teacher's prompts; shown in LangGraph Studio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from typing_extensions import TypedDict

from langchain_pld.distillation import templates
from langchain_pld.distillation.plan import PLANS, Effort, Plan
from langchain_pld.errors import InputError

__all__ = ["DistillConfig", "DistillSettings", "check_models"]

_DEFAULT_MODEL = "embedded:qwen2.5-coder-1.5b"
_WORKING = ["generate", "extract", "critique", "consolidate", "validate"]
_PROMPTS = [f"{name}_prompt" for name in templates.NAMES]


def _at(*nodes: str) -> dict[str, Any]:
    """The nodes at which Studio shows a field."""
    return {"langgraph_nodes": list(nodes)}


def _prompt(name: str, description: str, *nodes: str) -> Any:
    return Field(
        default=templates.default_text(name),
        description=f"The teacher's system prompt: {description} Each $placeholder has to stay.",
        min_length=1,
        json_schema_extra={**_at(*nodes), "langgraph_type": "prompt"},
    )


class DistillConfig(BaseModel):
    """Settings of a run. A resumed or forked run keeps its first settings, except for those set anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = Field(
        default=_DEFAULT_MODEL,
        description="The model that explains examples and writes rules, as provider:name; the stronger the better.",
        json_schema_extra=_at(*_WORKING),
    )
    student: str = Field(
        default=_DEFAULT_MODEL,
        description="The small model that will decide with the prompt, as provider:name.",
        json_schema_extra=_at("generate", "critique", "consolidate", "validate"),
    )
    embeddings: str = Field(
        default="",
        description="Vectors for the clustering of conditions, as provider:name; when empty, an offline default that "
        "needs no model.",
        json_schema_extra=_at("consolidate"),
    )
    effort: Effort = Field(
        default="light",
        description="How much work to do: light, medium or heavy. A plan in the input takes precedence.",
        json_schema_extra=_at("generate"),
    )
    seed: int = Field(default=0, description="Seed of every random choice.", json_schema_extra=_at(*_WORKING))
    max_calls: int | None = Field(
        default=None,
        ge=0,
        description="Maximum model calls, teacher and student together; the run then ends with the best prompt so far.",
        json_schema_extra=_at(*_WORKING),
    )
    max_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Maximum tokens, input and output together.",
        json_schema_extra=_at(*_WORKING),
    )
    max_usd: float | None = Field(
        default=None,
        ge=0,
        description="Maximum cost in US dollars.",
        json_schema_extra=_at(*_WORKING),
    )
    max_minutes: float | None = Field(
        default=None, ge=0, description="Maximum minutes of work.", json_schema_extra=_at(*_WORKING)
    )
    max_risk: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The highest risk at which the student may decide alone; when empty, it always decides.",
        json_schema_extra=_at("validate"),
    )
    require_review: bool = Field(
        default=False,
        description="The run waits until a person has accepted, edited or rejected each rule; the artifact cannot be "
        "used before.",
        json_schema_extra=_at("validate", "review"),
    )
    reviewer: str = Field(
        default="",
        description="The reviewer, if the answer to the review names none.",
        json_schema_extra=_at("review"),
    )
    explain_prompt: str = _prompt("explain", "why an example has its label.", "generate", "extract")
    vote_prompt: str = _prompt("vote", "a vote on the label of an unlabelled example.", "generate")
    invent_prompt: str = _prompt("invent", "examples made up for a label with few.", "generate")
    judge_prompt: str = _prompt("judge", "which drafted conditions are to be dropped.", "critique")
    merge_prompt: str = _prompt("merge", "one rule for a cluster of conditions.", "consolidate")
    settle_prompt: str = _prompt("settle", "two rules that say nearly the same are told apart.", "consolidate")
    revise_prompt: str = _prompt("revise", "edits of rules in view of the student's mistakes.", "critique")
    words_prompt: str = _prompt("words", "words that the student could answer with.", "validate")

    @field_validator(*_PROMPTS)
    @classmethod
    def _same_placeholders(cls, text: str, info: ValidationInfo) -> str:
        return templates.check_placeholders(str(info.field_name).removesuffix("_prompt"), text)

    @property
    def wording(self) -> dict[str, str]:
        """The teacher's prompts, name of a template to its text."""
        return {name: getattr(self, f"{name}_prompt") for name in templates.NAMES}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        return self.model_dump(exclude_defaults=True)

    def inherit(self, began: Mapping[str, Any]) -> DistillConfig:
        """The settings of a resumed run: those set here, else those it began with (its `changed`)."""
        return DistillConfig.model_validate({**began, **self.model_dump(exclude_unset=True)})

    def resolve_plan(self, plan: Plan | None) -> Plan:
        """The given plan, else that of the effort, with the limits set here."""
        plan = Plan.model_validate(plan or PLANS[self.effort])
        limits = {name: getattr(self, f"max_{name}") for name in ("calls", "tokens", "usd", "minutes")}
        limits = {name: limit for name, limit in limits.items() if limit is not None}
        changes = {
            "budget": plan.budget.model_copy(update=limits),
            "max_risk": plan.max_risk if self.max_risk is None else self.max_risk,
            "require_review": plan.require_review or self.require_review,
        }
        return plan.model_copy(update=changes)


class DistillSettings(TypedDict, total=False):
    """The fields of `DistillConfig` as keyword arguments; `distill` itself takes models and effort."""

    seed: int
    max_calls: int | None
    max_tokens: int | None
    max_usd: float | None
    max_minutes: float | None
    max_risk: float | None
    require_review: bool
    reviewer: str
    explain_prompt: str
    vote_prompt: str
    invent_prompt: str
    judge_prompt: str
    merge_prompt: str
    settle_prompt: str
    revise_prompt: str
    words_prompt: str


def check_models(**models: BaseChatModel | str | None) -> None:
    """Check that a call names all its models; defaults are only for runs whose settings a person sees.

    Raises:
        InputError: A model is `None` or empty.
    """
    for role, model in models.items():
        if model is None or model == "":
            msg = (
                f"the {role.replace('_', ' ')} is {model!r}; name one as provider:name, e.g. "
                f"google_genai:gemini-2.5-pro or {_DEFAULT_MODEL}, or give a chat model. Did you read it from a "
                "variable that is not set?"
            )
            raise InputError(msg)
