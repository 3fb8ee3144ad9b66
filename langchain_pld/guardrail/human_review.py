"""Asking a person, in the format of LangChain's human-in-the-loop interrupts, and reading the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, ValidationError

from langchain_pld.errors import InputError
from langchain_pld.examples import Example
from langchain_pld.guardrail.audit import input_hash
from langchain_pld.guardrail.decision import Finding
from langchain_pld.guardrail.guard import Guard
from langchain_pld.guardrail.stores import StoreItem, save_answers
from langchain_pld.namespaces import namespace_label
from langchain_pld.steps import Steps
from langchain_pld.task import Task

__all__ = ["ReviewAnswer", "ReviewRequest", "ask_person", "read_decisions", "reviewed_examples"]

T = TypeVar("T")


class ReviewAnswer(BaseModel):
    """A person's decision about one finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["approve", "edit", "reject", "respond"]
    """The kind of decision."""
    allowed: bool
    """Whether the content, or what the person made of it, is passed on."""
    label: str | None = None
    """The label that the answer gives the text; `None` where it cannot be told."""
    text: str | None = None
    """The person's own words in place of the content."""
    arguments: dict[str, Any] | None = None
    """The person's own arguments of a tool call."""


def ask_person(question: dict[str, Any], read: Callable[[Any], T]) -> T:
    """Interrupt with a question until the answer can be read; each time it says what was wrong with the last one.

    Args:
        question: The interrupt's value: action requests and review configs.
        read: Reads the answer; raises `InputError` for one that it cannot use.
    """
    shown = question
    while True:
        response = interrupt(shown)
        try:
            return read(response)
        except InputError as error:
            # Raised instead, it would come again at each resume: LangGraph keeps the answers that a node was given.
            first, *others = question["action_requests"]
            description = f"The last answer could not be used: {error}. {first.get('description', '')}"
            shown = {**question, "action_requests": [{**first, "description": description}, *others]}


def read_decisions(response: Any, count: int) -> list[Any]:
    """The decisions in what a person sent back.

    Raises:
        InputError: They are not as many as the actions that were asked about.
    """
    decisions = response.get("decisions") if isinstance(response, Mapping) else None
    if not isinstance(decisions, list) or len(decisions) != count:
        got = f"got {len(decisions)}" if isinstance(decisions, list) else f"got {type(response).__name__}"
        msg = f'resume with {{"decisions": [...]}}, one for each of {count} action(s); {got}'
        raise InputError(msg)
    return decisions


class ReviewRequest:
    """What a person is asked about one content: the findings whose action is `interrupt`, with their guards.

    Args:
        guards: All guards that checked.
        findings: What each found, in the same order.
        value: What was checked; the text that the person sees is what the classifier read of it.
        arguments: Those of a tool call, where the person may change them.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        findings: Sequence[Finding],
        value: Any,
        *,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        pairs = [pair for pair in zip(guards, findings, strict=True) if pair[1].action == "interrupt"]
        texts = (text for guard, _ in pairs if (text := guard.text_of(value)) is not None)
        # A text that no classifier takes, since it is too long, is shown all the same.
        text = next(texts, value if isinstance(value, str) else "")
        self.questions = [_Question(guard, finding, text, arguments) for guard, finding in pairs]
        """One for each guard that asks."""
        self._value = value

    @classmethod
    def ask(cls, requests: Sequence[ReviewRequest]) -> list[list[ReviewAnswer]]:
        """Ask about several contents in one interrupt; gives the answers to each, in the order of its questions."""
        questions = [question for request in requests for question in request.questions]

        def read(response: Any) -> list[ReviewAnswer]:
            decisions = read_decisions(response, len(questions))
            return [question.read(decision) for question, decision in zip(questions, decisions, strict=True)]

        shown = {
            "action_requests": [question.action_request() for question in questions],
            "review_configs": [question.review_config() for question in questions],
        }
        answers = iter(ask_person(shown, read))
        return [[next(answers) for _ in request.questions] for request in requests]

    def record(self, answers: Sequence[ReviewAnswer], config: RunnableConfig | None) -> Steps[None]:
        """Write the answers into the audit log, and into the Store where the text can be an example."""
        person = ((config or {}).get("configurable") or {}).get("langgraph_auth_user_id")
        items: list[StoreItem] = []
        for question, answer in zip(self.questions, answers, strict=True):
            guard, text = question.guard, question.text
            guard.audit.record_person(
                guard=guard.name, answer=answer.type, label=answer.label, person=person, text=text or None
            )
            if guard.task is not None and text and guard.text_of(self._value) is not None:
                items.append(question.store_item(guard.task, self._value, answer))
        yield from save_answers(items)


@dataclass(frozen=True)
class _Question:
    """What one guard asks about one content."""

    guard: Guard
    finding: Finding
    text: str
    arguments: Mapping[str, Any] | None

    def action_request(self) -> dict[str, Any]:
        verdict = self.finding.verdict
        shown = {
            "text": self.text,
            "label": self._shown_label,
            "labels": list(self.guard.labels),
            "probabilities": verdict.probabilities if verdict is not None else None,
            **({"arguments": dict(self.arguments)} if self.arguments is not None else {}),
        }
        description = (
            f"{self.finding.reason}. approve: pass it on; reject: hold it back; edit: change the text, or give its "
            "label; respond: the name of its label, or what to say in its place."
        )
        return {"name": f"pass_{self.finding.stage}", "args": shown, "description": description}

    def review_config(self) -> dict[str, Any]:
        allowed = ["approve", "edit", "reject", "respond"]
        return {"action_name": f"pass_{self.finding.stage}", "allowed_decisions": allowed}

    def read(self, decision: Any) -> ReviewAnswer:
        """The answer in a decision.

        Raises:
            InputError: It cannot be used; the message says why.
        """
        kind = decision.get("type") if isinstance(decision, Mapping) else None
        if kind == "approve":
            return ReviewAnswer(type="approve", allowed=True, label=self._likeliest(blocking=False))
        if kind == "reject":
            return ReviewAnswer(type="reject", allowed=False, label=self._likeliest(blocking=True))
        if kind == "respond" and isinstance(decision.get("message"), str):
            return self._read_response(decision["message"].strip())
        if kind == "edit" and isinstance(decision.get("edited_action"), Mapping):
            return self._read_edit(decision["edited_action"].get("args"))
        got = repr(kind) if kind in ("edit", "respond") else "an unknown type" if kind else type(decision).__name__
        msg = f"approve, reject, respond with a message, or edit with edited_action.args; got {got}"
        raise InputError(msg)

    def _read_response(self, message: str) -> ReviewAnswer:
        """A label's name decides; any other words stand in the place of the content."""
        if message in self.guard.labels:
            return ReviewAnswer(type="respond", allowed=not self._blocks(message), label=message)
        harmful = self._likeliest(blocking=True)
        return ReviewAnswer(type="respond", allowed=False, label=harmful, text=message or None)

    def _read_edit(self, args: Any) -> ReviewAnswer:
        """A changed text, or changed arguments, are the person's own and pass; else the label decides."""
        args = args if isinstance(args, Mapping) else {}
        text, label, arguments = args.get("text", self.text), args.get("label"), args.get("arguments", self.arguments)
        if self.arguments is not None and isinstance(arguments, dict) and arguments != self.arguments:
            return ReviewAnswer(type="edit", allowed=True, arguments=arguments)
        if label is None or label in self.guard.labels:
            if text == self.text and label is not None and arguments == self.arguments:
                return ReviewAnswer(type="edit", allowed=not self._blocks(label), label=label)
            # The text of a call only shows its arguments; it cannot be turned back into them.
            changeable = isinstance(text, str) and text.strip() and self.finding.stage != "tool_call"
            if text != self.text and changeable:
                # A form sends every field back: the label that was only shown is no answer.
                own = label if label != self._shown_label else None
                return ReviewAnswer(type="edit", allowed=True, label=own, text=text)
        labels = ", ".join(self.guard.labels)
        msg = f"an edit needs a changed text, label ({labels}) or arguments under edited_action.args"
        raise InputError(msg)

    def store_item(self, task: Task, value: Any, answer: ReviewAnswer) -> StoreItem:
        """What the Store keeps of an answer about a value."""
        key = input_hash(self.text)
        fields = isinstance(value, Mapping) and set(task.fields) <= set(value) and bool(task.fields)
        content = {name: str(value[name]) for name in task.fields} if fields else self.text
        example = Example(id=f"person-{key[:16]}", input=content, label=answer.label)
        verdict = self.finding.verdict
        item = {
            "example": example.model_dump(mode="json"),
            "answer": answer.type,
            "guard": self.finding.guard,
            "verdict": verdict.model_dump(mode="json", exclude={"evidence"}) if verdict is not None else None,
        }
        return _namespace(task), key, item

    @property
    def _shown_label(self) -> str | None:
        verdict = self.finding.verdict
        return (verdict.label or verdict.predicted_label) if verdict is not None else None

    def _blocks(self, label: str) -> bool:
        return label in self.guard.policy.block_labels

    def _likeliest(self, *, blocking: bool) -> str | None:
        """The only label that blocks, or does not, or the one that the verdict names.

        A guess would spoil the next distillation.
        """
        labels = [label for label in self.guard.labels if self._blocks(label) == blocking]
        if len(labels) > 1:
            labels = [label for label in labels if label in {self.finding.label, self._shown_label}]
        return labels[0] if len(labels) == 1 else None


def reviewed_examples(store: BaseStore, task: Task) -> tuple[Example, ...]:
    """The labelled examples from people's answers, ready for the next distillation, in the order of their ids.

    Args:
        store: The Store of the guardrail graph.
        task: The task of the guard that asked.
    """
    examples: dict[str, Example] = {}
    offset = 0
    namespace = _namespace(task)
    while page := store.search(namespace, limit=_PAGE, offset=offset):
        offset += len(page)
        for item in page:
            if item.namespace != namespace:
                continue  # some stores compare beginnings: `chat` would find `chat2` too
            try:
                example = Example.model_validate(item.value.get("example"))
            except ValidationError:
                continue  # written by something else
            if example.label in task.label_names:
                examples[example.id] = example
    return tuple(examples[identity] for identity in sorted(examples))


_PAGE = 500


def _namespace(task: Task) -> tuple[str, ...]:
    """The namespace of people's answers for a task."""
    return ("pld", "examples", namespace_label(task.name))
