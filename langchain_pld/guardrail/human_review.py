"""Asking a person, in the shape of LangChain's human-in-the-loop interrupts, and reading the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, ValidationError

from langchain_pld.errors import InputError
from langchain_pld.examples import Example
from langchain_pld.guardrail.audit import input_hash
from langchain_pld.guardrail.check import Finding, Guard
from langchain_pld.namespaces import namespace_label
from langchain_pld.task import Task

__all__ = ["Answer", "Inquiry", "ask", "decisions_of", "review_namespace", "reviewed_examples"]


T = TypeVar("T")
StoreItem = tuple[tuple[str, ...], str, dict[str, Any]]
"""Namespace, key and value of an item of the Store."""


class Answer(BaseModel):
    """What a person decided about one finding."""

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


def ask(question: dict[str, Any], read: Callable[[Any], T]) -> T:
    """Interrupt with a question until the answer can be read; each time it says what was wrong with the last one.

    Args:
        question: The interrupt's value: action requests and review configs.
        read: Reads the answer; raises `InputError` for one that it cannot use.
    """
    asked = question
    while True:
        response = interrupt(asked)
        try:
            return read(response)
        except InputError as error:
            # Raised instead, it would come again at each resume: LangGraph keeps the answers that a node was given.
            problem = f"The last answer could not be used: {error}"
            first, *others = question["action_requests"]
            described = {**first, "description": f"{problem}. {first.get('description', '')}"}
            asked = {**question, "action_requests": [described, *others]}


def decisions_of(response: Any, count: int) -> list[Any]:
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


class Inquiry:
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
        self.guards = [guard for guard, _ in pairs]
        self.findings = [finding for _, finding in pairs]
        read = (text for guard in self.guards if (text := guard.text_of(value)) is not None)
        # A text that no classifier takes, since it is too long, is shown all the same.
        self.text = next(read, value if isinstance(value, str) else "")
        self._value = value
        self._arguments = arguments

    def question(self) -> dict[str, Any]:
        """The interrupt's value: one action request for each finding that a person is asked about."""
        requests, configs = [], []
        for guard, finding in zip(self.guards, self.findings, strict=True):
            last = finding.verdicts[-1] if finding.verdicts else None
            shown = {
                "text": self.text,
                "label": _shown_label(finding),
                "labels": list(guard.labels),
                "probabilities": last.probabilities if last is not None else None,
                **({"arguments": dict(self._arguments)} if self._arguments is not None else {}),
            }
            description = (
                f"{finding.reason}. approve: pass it on; reject: hold it back; edit: change the text, or give its "
                "label; respond: the name of its label, or what to say in its place."
            )
            action = f"pass_{finding.stage}"
            requests.append({"name": action, "args": shown, "description": description})
            configs.append({"action_name": action, "allowed_decisions": ["approve", "edit", "reject", "respond"]})
        return {"action_requests": requests, "review_configs": configs}

    def read(self, decisions: Sequence[Any]) -> list[Answer]:
        """The answers in what a person decided, in the order of the findings.

        Raises:
            InputError: A decision cannot be used; the message says which and why.
        """
        return [
            _answer(decision, guard, finding, self.text, self._arguments)
            for decision, guard, finding in zip(decisions, self.guards, self.findings, strict=True)
        ]

    def records(self, answers: Sequence[Answer], config: RunnableConfig | None) -> list[StoreItem]:
        """Write the audit records; gives what the Store is to keep."""
        person = ((config or {}).get("configurable") or {}).get("langgraph_auth_user_id")
        items: list[StoreItem] = []
        for guard, finding, answer in zip(self.guards, self.findings, answers, strict=True):
            guard.audit.record_person(
                guard=guard.name,
                answer=answer.type,
                label=answer.label,
                person=person,
                text=self.text or None,
            )
            if guard.task is not None and self.text and guard.text_of(self._value) is not None:
                key, value = _example_item(guard.task, self._value, self.text, answer, finding)
                items.append((review_namespace(guard.task), key, value))
        return items


def review_namespace(task: Task) -> tuple[str, ...]:
    """Where in a Store people's answers for a task lie."""
    return ("pld", "examples", namespace_label(task.name))


def _example_item(task: Task, value: Any, text: str, answer: Answer, finding: Finding) -> tuple[str, dict[str, Any]]:
    """The Store's key and value for an answer.

    Args:
        task: The task of the guard that asked.
        value: What was checked, as it stood in the state.
        text: The same as the classifier read it.
        answer: What the person said.
        finding: What the guard had found.
    """
    key = input_hash(text)
    fields = isinstance(value, Mapping) and set(task.fields) <= set(value) and bool(task.fields)
    given = {name: str(value[name]) for name in task.fields} if fields else text
    example = Example(id=f"person-{key[:16]}", input=given, label=answer.label)
    return key, {
        "example": example.model_dump(mode="json"),
        "answer": answer.type,
        "guard": finding.guard,
        "verdict": finding.verdicts[-1].model_dump(mode="json", exclude={"evidence"}) if finding.verdicts else None,
    }


def reviewed_examples(store: BaseStore, task: Task) -> tuple[Example, ...]:
    """The labelled examples that people's answers made, ready for the next distillation, in the order of their ids.

    Args:
        store: The Store that the guardrail graph ran with.
        task: The task of the guard that asked.
    """
    found: dict[str, Example] = {}
    offset = 0
    namespace = review_namespace(task)
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
                found[example.id] = example
    return tuple(found[identity] for identity in sorted(found))


_PAGE = 500


def _shown_label(finding: Finding) -> str | None:
    last = finding.verdicts[-1] if finding.verdicts else None
    return (last.label or last.predicted_label) if last is not None else None


def _answer(decision: Any, guard: Guard, finding: Finding, text: str, arguments: Mapping[str, Any] | None) -> Answer:
    kind = decision.get("type") if isinstance(decision, Mapping) else None
    if kind == "approve":
        return Answer(type="approve", allowed=True, label=_harmless(guard, finding))
    if kind == "reject":
        return Answer(type="reject", allowed=False, label=_harmful(guard, finding))
    if kind == "respond" and isinstance(decision.get("message"), str):
        return _response(decision["message"].strip(), guard, finding)
    if kind == "edit" and isinstance(decision.get("edited_action"), Mapping):
        return _edit(decision["edited_action"].get("args"), guard, finding, text, arguments)
    got = repr(kind) if kind in ("edit", "respond") else type(decision).__name__ if kind is None else "an unknown type"
    msg = f"approve, reject, respond with a message, or edit with edited_action.args; got {got}"
    raise InputError(msg)


def _response(message: str, guard: Guard, finding: Finding) -> Answer:
    """A label's name decides; any other words stand in the place of the content."""
    if message in guard.labels:
        return Answer(type="respond", allowed=message not in guard.policy.block_labels, label=message)
    return Answer(type="respond", allowed=False, label=_harmful(guard, finding), text=message or None)


def _edit(given: Any, guard: Guard, finding: Finding, text: str, arguments: Mapping[str, Any] | None) -> Answer:
    """A changed text, or changed arguments, are the person's own and pass; else the label decides."""
    given = given if isinstance(given, Mapping) else {}
    edited, label, changed = given.get("text", text), given.get("label"), given.get("arguments", arguments)
    if arguments is not None and isinstance(changed, dict) and changed != arguments:
        return Answer(type="edit", allowed=True, arguments=changed)
    known = label is None or label in guard.labels
    if known and edited == text and label is not None and changed == arguments:
        return Answer(type="edit", allowed=label not in guard.policy.block_labels, label=label)
    # The text of a call only shows its arguments; it cannot be turned back into them.
    if known and edited != text and isinstance(edited, str) and edited.strip() and finding.stage != "tool_call":
        # A form sends every field back: the label that was only shown is no answer.
        return Answer(type="edit", allowed=True, label=label if label != _shown_label(finding) else None, text=edited)
    msg = f"an edit needs a changed text, label ({', '.join(guard.labels)}) or arguments under edited_action.args"
    raise InputError(msg)


def _harmless(guard: Guard, finding: Finding) -> str | None:
    """The label of a text that may pass, as far as the verdict or the task leaves no other."""
    return _likeliest([label for label in guard.labels if label not in guard.policy.block_labels], finding)


def _harmful(guard: Guard, finding: Finding) -> str | None:
    return _likeliest([label for label in guard.labels if label in guard.policy.block_labels], finding)


def _likeliest(labels: Sequence[str], finding: Finding) -> str | None:
    """The only one of some labels, or the one that the verdict names; a guess would spoil the next distillation."""
    if len(labels) == 1:
        return labels[0]
    named = {finding.label, _shown_label(finding)} - {None}
    fitting = [label for label in labels if label in named]
    return fitting[0] if len(fitting) == 1 else None
