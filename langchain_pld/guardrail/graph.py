"""The guard as a subgraph of its own: it checks, asks a person where the policy says so, and settles."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from langchain_core.messages import AnyMessage, BaseMessage, RemoveMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore
from typing_extensions import TypedDict

from langchain_pld.guardrail.check import Decision, Guard, Stage, acheck_all, check_all
from langchain_pld.guardrail.content import stage_input
from langchain_pld.guardrail.human_review import Answer, Inquiry, decisions_of
from langchain_pld.guardrail.human_review import ask as ask_person
from langchain_pld.guardrail.node import cleaned, replacement, same_stage, value_of

__all__ = ["create_guardrail_graph"]


def create_guardrail_graph(
    guards: Guard | Sequence[Guard],
    *,
    input_key: str = "messages",
    output_key: str = "guardrail",
    replace_blocked: bool = True,
    name: str = "guardrail",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the compiled graph `check -> (ask) -> done`; add it to another graph as a node, or open it in Studio.

    It shares the keys `input_key` and `output_key` with the graph around it. Under `output_key` it leaves what
    `Decision.summary()` gives, after a person's answer with their `answers`; route by its `allowed`. Where a policy
    says `interrupt`, the run is interrupted with the action requests and review configs of LangChain's
    `HumanInTheLoopMiddleware`; resume it with `Command(resume={"decisions": [{"type": "approve"}]})`.
    Without a checkpointer to wait with, the run ends there. The answer is kept as a labelled example when the graph
    runs with a Store (see `reviewed_examples`). It has no checkpointer of its own.

    Args:
        guards: One guard, or several of one stage; they check side by side and the strictest wins.
        input_key: Where the state holds what is checked: messages, of which the stage takes its part, or whatever
            else the classifiers take.
        output_key: Where the decision goes.
        replace_blocked: Take a blocked message out of the history: the policy's message, or the person's words, stand
            in its place. Needs the `add_messages` reducer in the graph around.
        name: Name in traces.

    Raises:
        InputError: The guards stand at different stages, or there are none.
    """
    watch = [guards] if isinstance(guards, Guard) else list(guards)
    stage = same_stage(watch)
    pending, answered = f"{output_key}_pending", f"{output_key}_answers"
    held: Any = Annotated[list[AnyMessage], _newest] if input_key == "messages" else Any
    shared = {input_key: held, output_key: dict[str, Any]}
    make: Any = TypedDict  # the keys are the caller's, which no type checker can know
    state_schema = make("GuardrailState", {**shared, pending: dict[str, Any], answered: list[dict[str, Any]]})

    def found(decision: Decision) -> dict[str, Any]:
        decision.enforce()
        kept = decision.model_dump(mode="json", exclude={"findings": {"__all__": {"verdicts": {"__all__": _QUOTES}}}})
        return {output_key: decision.summary(), pending: kept}

    def check(state: Any, config: RunnableConfig) -> dict[str, Any]:
        return found(check_all(watch, value_of(state, input_key, None, stage), config))

    async def acheck(state: Any, config: RunnableConfig) -> dict[str, Any]:
        return found(await acheck_all(watch, value_of(state, input_key, None, stage), config))

    def who_is_next(state: Any) -> Literal["ask", "done"]:
        return "ask" if state[output_key]["action"] == "interrupt" else "done"

    def inquiry(state: Any) -> Inquiry:
        findings = Decision.model_validate(state[pending]).findings
        return Inquiry(watch, findings, value_of(state, input_key, None, stage))

    # Alone in its node: a node that was interrupted runs again from its beginning.
    def ask(state: Any) -> dict[str, Any]:
        asked = inquiry(state)
        answers = ask_person(asked.question(), lambda response: asked.read(decisions_of(response, len(asked.findings))))
        return {answered: [answer.model_dump(mode="json") for answer in answers]}

    def finish(state: Any, answers: Sequence[Answer]) -> dict[str, Any]:
        """The last update; `answers` is empty where nobody was asked."""
        summary = state[output_key]
        if answers:
            summary = _with_answers(summary, answers)
        update: dict[str, Any] = {output_key: summary, pending: {}, answered: []}
        words = next((answer.text for answer in answers if answer.text), None)
        if not summary["allowed"] and replace_blocked:
            update |= replacement(state[input_key], stage, words or summary["message"], key=input_key)
        elif summary["allowed"] and words is not None:
            update[input_key] = _reworded(state[input_key], stage, words)
        elif summary["allowed"] and Decision.model_validate(state[pending]).removes_invisible:
            update |= cleaned(state[input_key], stage, key=input_key)
        return update

    def answers_of(state: Any) -> list[Answer]:
        if state[output_key]["action"] != "interrupt":
            return []
        return [Answer.model_validate(answer) for answer in state[answered]]

    def done(state: Any, config: RunnableConfig) -> dict[str, Any]:
        answers, store = answers_of(state), _store()
        if answers:
            for namespace, key, value in inquiry(state).records(answers, config):
                if store is not None:
                    store.put(namespace, key, value)
        return finish(state, answers)

    async def adone(state: Any, config: RunnableConfig) -> dict[str, Any]:
        answers, store = answers_of(state), _store()
        if answers:
            for namespace, key, value in inquiry(state).records(answers, config):
                if store is not None:
                    await store.aput(namespace, key, value)
        return finish(state, answers)

    shared_schema = make("GuardrailShared", shared)
    builder = StateGraph(state_schema, input_schema=shared_schema, output_schema=shared_schema)
    builder.add_node("check", RunnableLambda(check, acheck))
    builder.add_node("ask", ask)
    builder.add_node("done", RunnableLambda(done, adone))
    builder.add_edge(START, "check")
    builder.add_conditional_edges("check", who_is_next)
    builder.add_edge("ask", "done")
    builder.add_edge("done", END)
    return builder.compile(name=name)


_QUOTES = {"evidence": True}  # the words of the input in a verdict


def _with_answers(summary: dict[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    allowed = all(answer.allowed for answer in answers)
    return {
        **summary,
        "allowed": allowed,
        "action": "allow" if allowed else "block",
        "reason": f"{summary['reason']}; a person {'passed it on' if allowed else 'held it back'}",
        "message": "" if allowed else summary["message"],
        "answers": [answer.model_dump(mode="json", include={"type", "allowed", "label"}) for answer in answers],
    }


def _reworded(value: Any, stage: Stage, words: str) -> Any:
    """What was checked, in a person's words: the text itself, or changes to the messages."""
    if not (isinstance(value, list) and value and isinstance(value[0], BaseMessage)):
        return words
    *earlier, last = stage_input(value, stage)
    if stage == "tool_result":  # each belongs to a call and must stay
        return [message.model_copy(update={"content": words}) for message in (*earlier, last)]
    removed = [RemoveMessage(id=str(message.id)) for message in earlier]
    return [*removed, last.model_copy(update={"content": words})]


def _newest(_: list[BaseMessage], given: Any) -> list[BaseMessage]:
    """The messages given last, and nothing of those before.

    Merging is left to the graph around, which alone can take a message out of its history: what leaves here are the
    messages as they came, or the changes to them.
    """
    messages = convert_to_messages(given if isinstance(given, list) else [given])
    return [message if message.id else message.model_copy(update={"id": str(uuid.uuid4())}) for message in messages]


def _store() -> BaseStore | None:
    return cast("BaseStore | None", get_store())
