"""review: a person decides which rules may enter the prompt.

In: the artifact of `validate`, if a review is required. Out: first the accepted rules, which `validate` scores without
choosing among them; then the signed artifact. The interrupt has the format of LangChain's human-in-the-loop middleware,
with one action request per rule. Unreadable decisions are asked for again, readable ones are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt, interrupt
from pydantic import ValidationError

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.rules.conflicts import find_conflicts
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.state import DistillationState
from langchain_pld.errors import DistillationError, InputError
from langchain_pld.examples import Example
from langchain_pld.rules import Rule
from langchain_pld.signature import ReviewAnswer, RuleDecision, rules_sha256
from langchain_pld.student.sanitize import clean_text
from langchain_pld.task import Task

__all__ = [
    "ACTION",
    "PROBLEM",
    "ReviewForm",
    "after_review",
    "after_validate",
    "aresume_review",
    "near_conflicts",
    "review",
]

ACTION = "accept_rule"
"""Name of the action that each request asks about."""

PROBLEM = "The last answer cannot be used: "
"""The beginning of a repeated request's description."""

ALIKE = 0.8
"""Cosine of character n-grams from which on conditions of different labels are shown as a conflict."""

SHOWN_SOURCES = 3
"""Source texts shown with a rule."""


async def review(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node. It needs a checkpointer to wait; without one the run ends with an unsigned artifact."""
    artifact = state["artifact"]
    if _signable(state):
        answer = state["reviewed"]
        run.note(f"signed, {answer.summary()}")
        return {"artifact": artifact.sign(answer)}
    train, reviewer = await run.store.examples("train") or (), _reviewer(run.config)
    form = await asyncio.to_thread(ReviewForm, artifact.task, artifact.rules, train, reviewer=reviewer)
    # Everything before an interrupt runs again after the answer, so there is only reading here.
    while form.open:
        form.take(interrupt(form.request()))
    answer = form.answer()
    run.note(answer.summary())
    return {"reviewed": answer, "rules": list(answer.accepted)}


def after_validate(state: DistillationState) -> Literal["review", "__end__"]:
    """On to the review if rules wait for it, or if it can be signed now."""
    artifact = state["artifact"]
    if artifact.review is None and ((artifact.require_review and artifact.rules) or _signable(state)):
        return "review"
    return "__end__"


def after_review(state: DistillationState) -> Literal["validate", "__end__"]:
    """Back to be scored with the accepted rules, until the artifact is signed."""
    return "validate" if state["artifact"].review is None else "__end__"


class ReviewForm:
    """The questions to a reviewer and the answers so far, for a run, a terminal or a file of decisions.

    Args:
        task: The task of the rules.
        rules: The rules to decide about.
        train: Known train rows; those behind a rule are shown, and an edit must not copy from them.
        reviewer: The reviewer, if the answer names none.
    """

    def __init__(
        self,
        task: Task,
        rules: Sequence[Rule],
        train: Iterable[Example] = (),
        *,
        reviewer: str | None = None,
    ) -> None:
        self.task = task
        self.rules = tuple({rule.id: rule for rule in rules}.values())
        self.decisions: dict[str, RuleDecision] = {}
        """Rule id to readable decision."""
        self.problems: dict[str, str] = {}
        """Rule id to what was wrong with the last answer; "" for what concerns all of it."""
        rows = list(train)
        sources = {source for rule in rules for source in rule.sources}
        self._texts = {row.id: task.render(row.input) for row in rows if row.id in sources}
        self._screen = Screen.of(task, rows)
        self._conflicts = near_conflicts(self.rules)
        self._reviewer = reviewer
        self._signers: dict[str, None] = {}
        self._time = ""

    @property
    def open(self) -> list[Rule]:
        """The rules that still wait for a decision."""
        return [rule for rule in self.rules if rule.id not in self.decisions]

    def request(self) -> dict[str, Any]:
        """The interrupt's value: an action request and a review config for each open rule."""
        rules = self.open
        config = {"action_name": ACTION, "allowed_decisions": ["approve", "edit", "reject", "respond"]}
        return {
            "action_requests": [self._request(rule) for rule in rules],
            "review_configs": [config] * len(rules),
        }

    def take(self, response: Any) -> None:
        """Read an answer to the last request; unreadable decisions are noted in `problems` and stay open.

        Args:
            response: `decisions`, and optionally `reviewer` and `time` (ISO 8601, by default now). `decisions` is a
                list in the order of the requests, one decision for all of them, or a mapping from rule ids, which may
                change earlier decisions.
        """
        self.problems = {}
        try:
            name, time = _signer(response, self._reviewer)
            answers = _decisions_by_rule(response, [rule.id for rule in self.open], [rule.id for rule in self.rules])
        except InputError as error:
            self.problems = {"": str(error)}
            return
        for rule in self.rules:
            if rule.id not in answers:
                continue
            self.decisions.pop(rule.id, None)
            try:
                self.decisions[rule.id] = self._decision(answers[rule.id], rule)
            except InputError as error:
                self.problems[rule.id] = str(error)
            else:
                self._signers[name] = None
        self._time = time

    def answer(self) -> ReviewAnswer:
        """All decisions, in the order of the rules.

        Raises:
            InputError: Some rules are still open, or there are none.
        """
        if self.open or not self.rules:
            msg = f"{len(self.open)} of {len(self.rules)} rules have no decision yet: {self.complaint()}"
            raise InputError(msg)
        decisions = {rule.id: self.decisions[rule.id] for rule in self.rules}
        return ReviewAnswer(reviewer=", ".join(self._signers), time=self._time, decisions=decisions)

    def complaint(self) -> str:
        """The problems of the last answer, in one line."""
        lines = [f"rule {key}: {problem}" if key else problem for key, problem in self.problems.items()]
        return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")

    def _request(self, rule: Rule) -> dict[str, Any]:
        problem = self.problems.get(rule.id) or self.problems.get("")
        conflicts = self._conflicts.get(rule.id, [])
        parts = [
            f"{PROBLEM}{problem}" if problem else "",
            f"Rule {rule.id} for {rule.label!r}, from {rule.support} example{'s' * (rule.support != 1)}"
            + ("" if rule.effect is None else f", measured effect {rule.effect:+.3f}"),
            *(f"Conflict: {other['rule']} says nearly the same for {other['label']!r}" for other in conflicts),
            "approve: it stands in the prompt; edit: with another condition or label; reject: it does not; respond: a "
            "comment, and it stays out until somebody accepts it",
        ]
        shown = [key for key in rule.sources if key in self._texts][:SHOWN_SOURCES]
        return {
            "name": ACTION,
            "args": {
                "condition": rule.condition,
                "label": rule.label,
                "rule": rule.id,
                "cues": list(rule.cues),
                "counter_cues": list(rule.counter_cues),
                "support": rule.support,
                "effect": rule.effect,
                "sources": list(rule.sources),
                "texts": {key: _shorten(self._texts[key]) for key in shown},
                "conflicts": conflicts,
                "labels": list(self.task.label_names),
            },
            "description": "\n".join(part for part in parts if part),
        }

    def _decision(self, answer: Any, rule: Rule) -> RuleDecision:
        kind = answer.get("type") if isinstance(answer, Mapping) else None
        message = answer.get("message") if isinstance(answer, Mapping) else None
        if message is not None and not (isinstance(message, str) and len(message) <= _MESSAGE_LENGTH):
            msg = f"its message is not a text of at most {_MESSAGE_LENGTH} characters"
            raise InputError(msg)
        message = (message or "").strip() or None
        if kind == "respond" and not message:
            msg = "respond needs a comment as its message"
            raise InputError(msg)
        if kind == "edit":
            revised = self._revise(answer, rule)
            if revised.id != rule.id:
                return RuleDecision(type="edit", rule=rule, revised=revised, message=message)
            kind = "approve"
        if kind not in ("approve", "accept", "reject", "respond"):
            msg = f"a decision of type {kind!r} is none of approve, edit, reject and respond"
            raise InputError(msg)
        return RuleDecision(type="approve" if kind == "accept" else kind, rule=rule, message=message)

    def _revise(self, answer: Mapping[str, Any], rule: Rule) -> Rule:
        action = answer.get("edited_action")
        # A form returns every field, but only these two can be edited.
        arguments = action.get("args") if isinstance(action, Mapping) else None
        if not isinstance(arguments, Mapping) or not {"condition", "label"} & set(arguments):
            msg = "edit needs edited_action.args with the new condition, the new label, or both"
            raise InputError(msg)
        condition, label = arguments.get("condition", rule.condition), arguments.get("label", rule.label)
        if label not in self.task.label_names:
            msg = f"the label {label!r} is none of {', '.join(self.task.label_names)}"
            raise InputError(msg)
        if not isinstance(condition, str) or len(condition) > _CONDITION_LENGTH:
            msg = f"the condition is not a text of at most {_CONDITION_LENGTH} characters"
            raise InputError(msg)
        if condition != rule.condition:
            sources = [self._texts[key] for key in rule.sources if key in self._texts]
            condition = _check_condition(condition, sources, self._screen)
        revised = rule.revised(condition, label=label)
        others = {other.id for other in self.rules} | {d.revised.id for d in self.decisions.values() if d.revised}
        if revised.id != rule.id and revised.id in others:
            msg = f"the edit makes it the same as rule {revised.id}; accept that one, and reject this one"
            raise InputError(msg)
        return revised


async def aresume_review(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    config: RunnableConfig,
    ask: Callable[[dict[str, Any]], Any],
    *,
    context: DistillConfig | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> DistilledPrompt:
    """Answer the review that a run waits for, run it to its end, and return the artifact.

    Args:
        graph: The distillation graph, with the checkpointer and Store of the run.
        config: Names the run's thread.
        ask: Called with each request, including repeated ones; returns the answer, see `ReviewForm.take`.
        context: The settings of the run.
        on_progress: Called with each step's progress while the accepted rules are scored.

    Raises:
        DistillationError: The run is not waiting for a review.
    """
    waiting = _review_request((await graph.aget_state(config)).interrupts)
    if waiting is None:
        msg = "this run does not wait for a review; start it with a review required, or review its artifact file"
        raise DistillationError(msg)
    while waiting is not None:
        answer: Command[Any] = Command(resume=ask(waiting))
        async for event in graph.astream(answer, config, context=context, stream_mode="custom"):
            on_progress(Progress.model_validate(event))
        waiting = _review_request((await graph.aget_state(config)).interrupts)
    artifact: DistilledPrompt = (await graph.aget_state(config)).values["artifact"]
    return artifact


def near_conflicts(rules: Sequence[Rule]) -> dict[str, list[dict[str, Any]]]:
    """For each rule, similar ones of other labels, most alike first, by character n-grams.

    This needs no model, but misses the same thought in other words.

    Returns:
        Rule id to entries with `rule`, `label`, `condition` and `similarity`.
    """
    if not rules:
        return {}
    from sklearn.feature_extraction.text import HashingVectorizer

    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**14, alternate_sign=False)
    vectors = grams.transform([rule.condition for rule in rules]).toarray()
    found: dict[str, list[dict[str, Any]]] = {}
    for conflict in find_conflicts(rules, vectors, similarity=ALIKE):
        for rule, other in ((conflict.first, conflict.second), (conflict.second, conflict.first)):
            entry = {"rule": other.id, "label": other.label, "condition": other.condition}
            found.setdefault(rule.id, []).append({**entry, "similarity": round(conflict.similarity, 2)})
    return found


_MESSAGE_LENGTH = 2_000
_CONDITION_LENGTH = 1_000
_TEXT_LENGTH = 600


def _signable(state: DistillationState) -> bool:
    """Whether the artifact has exactly the accepted rules."""
    answer = state.get("reviewed")
    return answer is not None and rules_sha256(answer.accepted) == rules_sha256(state["artifact"].rules)


def _reviewer(config: DistillConfig) -> str | None:
    """The reviewer, if known: from the config or settings, or the authenticated user of LangGraph's server."""
    known = get_config().get("configurable") or {}
    name = known.get("reviewer") or config.reviewer or known.get("langgraph_auth_user_id")
    return str(name) if name else None


def _review_request(interrupts: Iterable[Interrupt]) -> dict[str, Any] | None:
    """The review request among the interrupts of a run."""
    for waiting in interrupts:
        requests = waiting.value.get("action_requests") if isinstance(waiting.value, dict) else None
        if requests and requests[0].get("name") == ACTION:
            return dict(waiting.value)
    return None


def _signer(response: Any, fallback: str | None) -> tuple[str, str]:
    """The reviewer and time of an answer, checked as in a signature."""
    if not isinstance(response, Mapping):
        msg = 'the answer is not a mapping; give {"reviewer": "…", "decisions": […]}'
        raise InputError(msg)
    name, time = response.get("reviewer") or fallback, response.get("time")
    if name is None:
        msg = "the reviewer is unknown; add `reviewer` beside `decisions`, or to the run's config under `configurable`"
        raise InputError(msg)
    try:
        checked = ReviewAnswer(
            reviewer=name, time=datetime.now(UTC).isoformat() if time is None else time, decisions={}
        )
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"the {first['loc'][0]} of the answer cannot be used: {first['msg'].removeprefix('Value error, ')}"
        raise InputError(msg) from error
    return checked.reviewer, checked.time


def _decisions_by_rule(response: Mapping[str, Any], ids: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Rule id to decision: for the requested rules, and in a mapping for any known rule."""
    decisions = response.get("decisions")
    if isinstance(decisions, Mapping) and isinstance(decisions.get("type"), str):
        if decisions["type"] == "edit" and len(ids) > 1:
            msg = "one edit cannot stand for all rules; give a decision for each"
            raise InputError(msg)
        return dict.fromkeys(ids, decisions)
    if isinstance(decisions, Mapping):
        unknown = [str(key) for key in decisions if key not in known]
        missing = [key for key in ids if key not in decisions]
        if unknown or missing:
            lines = {"unknown rules": unknown, "no decision about": missing}
            msg = "; ".join(f"{what} {', '.join(keys)}" for what, keys in lines.items() if keys)
            raise InputError(msg)
        return dict(decisions)
    if not isinstance(decisions, list | tuple):
        msg = "the answer has no `decisions`: a list with one for each rule, a mapping from rule ids, or one for all"
        raise InputError(msg)
    if len(decisions) != len(ids):
        msg = f"{len(decisions)} decisions for {len(ids)} rules; give one for each, in the order of the requests"
        raise InputError(msg)
    return dict(zip(ids, decisions, strict=True))


def _check_condition(condition: str, sources: Iterable[str], screen: Screen) -> str:
    """An edited condition, screened and on one line."""
    condition = " ".join(clean_text(condition).split())
    if not condition:
        msg = "the edited condition is empty"
        raise InputError(msg)
    objection = screen.objection(condition, sources)
    if objection is not None:
        msg = f"the edited condition {objection.reason}"
        raise InputError(msg)
    return condition


def _shorten(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else f"{text[:_TEXT_LENGTH]} […]"
