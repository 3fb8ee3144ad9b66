"""The guard as a subgraph: it checks, asks a person if the policy says so, and applies the answer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from langchain_core.messages import AnyMessage, BaseMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import TypedDict

from langchain_pld.guardrail.content import read
from langchain_pld.guardrail.decision import Decision
from langchain_pld.guardrail.graph_state import (
    blocked_update,
    guards_of_one_stage,
    reworded_update,
    state_value,
    steps_node,
    stripped_update,
)
from langchain_pld.guardrail.guard import Guard, check_steps
from langchain_pld.guardrail.human_review import ReviewAnswer, ReviewRequest
from langchain_pld.guardrail.signatures import signature_of
from langchain_pld.steps import Steps

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
    several, stage = guards_of_one_stage(guards)
    pending_key, answers_key = f"{output_key}_pending", f"{output_key}_answers"
    messages: Any = Annotated[list[AnyMessage], _newest] if input_key == "messages" else Any
    shared = {input_key: messages, output_key: dict[str, Any]}
    make: Any = TypedDict  # the keys are the caller's, which no type checker can know
    state_schema = make("GuardrailState", {**shared, pending_key: dict[str, Any], answers_key: list[dict[str, Any]]})

    def check(state: Any, config: RunnableConfig) -> Steps[dict[str, Any]]:
        value = state_value(state, input_key, stage)
        decision = yield from check_steps(several, value, config)
        decision.enforce()
        dump = decision.model_dump(mode="json", exclude=_QUOTES)
        return {output_key: decision.summary(), pending_key: {"decision": dump, "signature": signature(value, dump)}}

    def signature(value: Any, decision: dict[str, Any]) -> str:
        return signature_of(" ".join(guard.identity for guard in several), [read(value).text, decision])

    def is_same(state: Any) -> bool:
        """Whether the state holds what was checked, and not what somebody put there while a person was asked."""
        value, pending = state_value(state, input_key, stage), state[pending_key]
        return signature(value, pending["decision"]) == str(pending["signature"])

    def decision_in(state: Any) -> Decision:
        return Decision.model_validate(state[pending_key]["decision"])

    def who_is_next(state: Any) -> Literal["ask", "done"]:
        return "ask" if state[output_key]["action"] == "interrupt" else "done"

    def request_of(state: Any) -> ReviewRequest:
        return ReviewRequest(several, decision_in(state).findings, state_value(state, input_key, stage))

    # Alone in its node: a node that was interrupted runs again from its beginning.
    def ask(state: Any) -> dict[str, Any]:
        if not is_same(state):
            return {answers_key: []}
        [answers] = ReviewRequest.ask([request_of(state)])
        return {answers_key: [answer.model_dump(mode="json") for answer in answers]}

    def done(state: Any, config: RunnableConfig) -> Steps[dict[str, Any]]:
        summary, words = state[output_key], None
        if summary["action"] == "interrupt":
            answers = [ReviewAnswer.model_validate(answer) for answer in state[answers_key]]
            if not answers or not is_same(state):
                answers, reason = [], "it is not what a person was asked about (other processes need PLD_SIGNING_KEY)"
                summary = {**summary, "allowed": False, "action": "block", "reason": reason}
            else:
                yield from request_of(state).record(answers, config)
                summary = _with_answers(summary, answers)
            words = next((answer.text for answer in answers if answer.text), None)
        update: dict[str, Any] = {output_key: summary, pending_key: {}, answers_key: []}
        if not summary["allowed"] and replace_blocked:
            update |= blocked_update(state, input_key, stage, words or summary["message"])
        elif summary["allowed"] and words is not None:
            update |= reworded_update(state, input_key, stage, words)
        elif summary["allowed"] and decision_in(state).strips_invisible:
            update |= stripped_update(state, input_key, stage)
        return update

    shared_schema = make("GuardrailShared", shared)
    builder = StateGraph(state_schema, input_schema=shared_schema, output_schema=shared_schema)
    builder.add_node("check", steps_node(check))
    builder.add_node("ask", ask)
    builder.add_node("done", steps_node(done))
    builder.add_edge(START, "check")
    builder.add_conditional_edges("check", who_is_next)
    builder.add_edge("ask", "done")
    builder.add_edge("done", END)
    return builder.compile(name=name)


_QUOTES: Any = {"findings": {"__all__": {"verdicts": {"__all__": {"evidence": True}}}}}
"""The words of the input in a decision's verdicts."""


def _with_answers(summary: dict[str, Any], answers: Sequence[ReviewAnswer]) -> dict[str, Any]:
    allowed = all(answer.allowed for answer in answers)
    return {
        **summary,
        "allowed": allowed,
        "action": "allow" if allowed else "block",
        "reason": f"{summary['reason']}; a person {'passed it on' if allowed else 'held it back'}",
        "message": "" if allowed else summary["message"],
        "answers": [answer.model_dump(mode="json", include={"type", "allowed", "label"}) for answer in answers],
    }


def _newest(_: list[BaseMessage], update: Any) -> list[BaseMessage]:
    """The messages that came last, and nothing of those before.

    Merging is left to the graph around, which alone can take a message out of its history: what leaves here are the
    messages as they came, or the changes to them.
    """
    messages = convert_to_messages(update if isinstance(update, list) else [update])
    return [message if message.id else message.model_copy(update={"id": str(uuid.uuid4())}) for message in messages]
