"""A contract read clause by clause, for LangGraph Studio: which clause says what about each hypothesis.

`read -> check -> (ask) -> report`. Each clause is checked against each hypothesis with one task (premise, hypothesis).
Where the student is not sure, or gave no readable answer, a person decides. A help for reading, no legal advice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import get_runtime
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from langchain_pld import DistilledPrompt, PLDClassifier, Task, Verdict, resolve_chat_model
from langchain_pld.answer import AnswerFormat
from langchain_pld.errors import InputError, StudentError
from langchain_pld.guardrail.human_review import ask_person, read_decisions
from langchain_pld.student.inputs import ClassifierInput

__all__ = ["ReviewContext", "ReviewInput", "ReviewOutput", "graph", "split_clauses"]

HYPOTHESES = (
    "Spoken information is protected without any further step.",
    "The receiving party may share confidential information with outside consultants.",
    "The receiving party may keep a copy after the agreement ends.",
    "The duties end after a fixed time.",
)
"""What is looked for when the input names nothing else."""
SILENT = "not_mentioned"
"""The label of a clause that says nothing about a hypothesis; the report leaves it out."""


class ReviewContext(BaseModel):
    """Settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: str = Field(
        default="embedded:qwen2.5-coder-1.5b",
        description="The small model that decides, as provider:name.",
        json_schema_extra={"langgraph_nodes": ["check"]},
    )
    artifact: str = Field(
        default="",
        description="A *.pld.json file distilled for the task. Without one the student decides zero-shot: for a look.",
        json_schema_extra={"langgraph_nodes": ["check"]},
    )
    task_file: str = Field(
        default="examples/nda_review.yaml",
        description="The task with the fields premise and hypothesis; used where there is no artifact.",
        json_schema_extra={"langgraph_nodes": ["check"]},
    )
    ask_below: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="A person is asked where the student is less confident than this.",
        json_schema_extra={"langgraph_nodes": ["check", "ask"]},
    )


class ReviewInput(TypedDict):
    """What a run is given."""

    contract: str
    """The text of the contract."""
    hypotheses: NotRequired[list[str]]
    """The statements that each clause is checked against; `HYPOTHESES` when absent."""


class Clause(TypedDict):
    """A part of the contract."""

    number: int
    """Its number in the contract; 0 for what stands before the first clause."""
    text: str
    """Its words, the heading included."""


class Finding(TypedDict):
    """What one clause says about one hypothesis."""

    clause: int
    """Number of the clause."""
    hypothesis: str
    """The statement."""
    verdict: str | None
    """The label; `None` while nobody has decided, and where a person left it open."""
    predicted_label: str | None
    """The likeliest label, also where it is not sure."""
    confidence: float | None
    """The student's probability for it."""
    rule: str | None
    """The strongest rule for the label of which a cue stands in the clause; the student itself cites none."""
    decided_by: str | None
    """The model, or "person"."""
    why_asked: str | None
    """Why a person is asked; `None` where the student decided."""


class ReviewOutput(TypedDict):
    """What a run gives."""

    findings: list[Finding]
    """One for each clause and hypothesis."""
    report: str
    """The same as Markdown, without the silent clauses."""


class ReviewState(ReviewInput, ReviewOutput):
    """What the nodes share."""

    clauses: list[Clause]
    """The parts of the contract."""
    labels: list[str]
    """The labels of the task."""


def split_clauses(contract: str) -> list[Clause]:
    """Cut a contract where its numbered clauses begin, or into paragraphs where none is numbered.

    Only the next number in order begins a clause, so that a number inside of one does not. Nothing is left out.

    Raises:
        InputError: There is no text.
    """
    if not contract.strip():
        msg = "the contract is empty; give its text as `contract`"
        raise InputError(msg)
    starts = [0]
    for found in _NUMBER.finditer(contract):
        if int(found[1]) == len(starts):
            starts.append(found.start())
    if len(starts) == 1:
        paragraphs = [part.strip() for part in re.split(r"\n\s*\n", contract) if part.strip()]
        return [Clause(number=number, text=text) for number, text in enumerate(paragraphs, 1)]
    parts = [contract[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [Clause(number=number, text=text) for number, text in enumerate(parts) if text]


def read(state: ReviewInput) -> dict[str, Any]:
    """Cut the contract into clauses."""
    return {
        "clauses": split_clauses(state.get("contract") or ""),
        "hypotheses": state.get("hypotheses") or list(HYPOTHESES),
    }


async def check(state: ReviewState, config: RunnableConfig) -> dict[str, Any]:
    """Ask the student about each clause and hypothesis."""
    settings = get_runtime(ReviewContext).context or ReviewContext()
    classifier = await asyncio.to_thread(_classifier, settings)  # reads files, may fetch a model
    pairs = [(clause, hypothesis) for clause in state["clauses"] for hypothesis in state["hypotheses"]]
    inputs: list[ClassifierInput] = [
        {"premise": clause["text"], "hypothesis": hypothesis} for clause, hypothesis in pairs
    ]
    verdicts = await classifier.abatch(inputs, {**config, "max_concurrency": _AT_ONCE})
    failures = [verdict.failure for verdict in verdicts if verdict.failure is not None]
    if failures and len(failures) == len(verdicts):
        raise StudentError(failures[0])  # nobody wants to answer for a student that is not there
    findings = [
        _finding(clause, hypothesis, verdict, classifier.artifact, settings.ask_below)
        for (clause, hypothesis), verdict in zip(pairs, verdicts, strict=True)
    ]
    return {"findings": findings, "labels": list(classifier.artifact.task.label_names)}


def who_is_next(state: ReviewState) -> Literal["ask", "report"]:
    """A person, where a finding is open."""
    return "ask" if any(finding["why_asked"] for finding in state["findings"]) else "report"


# Alone in its node: a node that was interrupted runs again from its beginning.
def ask(state: ReviewState) -> dict[str, Any]:
    """Interrupt with all that is unsure, in the shape of LangChain's human-in-the-loop middleware."""
    texts = {clause["number"]: clause["text"] for clause in state["clauses"]}
    unsure = [finding for finding in state["findings"] if finding["why_asked"]]
    requests = [
        {
            "name": _ACTION,
            "args": {
                "clause": texts[finding["clause"]],
                "hypothesis": finding["hypothesis"],
                "label": finding["predicted_label"],
                "labels": state["labels"],
            },
            "description": f"Clause {finding['clause']}: {finding['why_asked']}. approve: the label is right; edit: "
            "give another label; respond: its name; reject: leave it open.",
        }
        for finding in unsure
    ]
    allowed = ["approve", "edit", "respond", "reject"]
    config = {"action_name": _ACTION, "allowed_decisions": allowed}
    labels = iter(
        ask_person(
            {"action_requests": requests, "review_configs": [config] * len(requests)},
            lambda response: [
                _label(decision, finding, state["labels"])
                for decision, finding in zip(read_decisions(response, len(unsure)), unsure, strict=True)
            ],
        )
    )
    findings = [
        {**finding, "verdict": next(labels), "decided_by": "person"} if finding["why_asked"] else finding
        for finding in state["findings"]
    ]
    return {"findings": findings}


def report(state: ReviewState) -> dict[str, Any]:
    """Write the report."""
    titles = {clause["number"]: clause["text"].splitlines()[0] for clause in state["clauses"]}
    lines = ["# Review", ""]
    for hypothesis in state["hypotheses"]:
        about = [f for f in state["findings"] if f["hypothesis"] == hypothesis and f["verdict"] != SILENT]
        lines += [f"## {hypothesis}", "", *(_line(finding, titles) for finding in about)]
        lines += [] if about else ["No clause says anything about it."]
        lines.append("")
    return {"report": "\n".join(lines)}


_NUMBER = re.compile(
    r"^[ \t]*(?:(?:clause|article|section)[ \t]+)?(\d{1,3})(?:[.):]|[ \t]*$)(?!\d)", re.MULTILINE | re.IGNORECASE
)
_AT_ONCE = 8
_ACTION = "judge_clause"


def _classifier(settings: ReviewContext) -> PLDClassifier:
    if settings.artifact:
        return PLDClassifier.from_artifact(settings.artifact, student=settings.student)
    task = Task.from_yaml(Path(settings.task_file))
    student = resolve_chat_model(settings.student)
    # Which answer words serve best is a question for `distill`; a plain yes and no stand last in our task.
    answer = AnswerFormat.words(task, task.verbalizers[-1] if task.verbalizers else None)
    return PLDClassifier.zero_shot(task, student, answer=answer, timeout_s=120)


def _finding(clause: Clause, hypothesis: str, verdict: Verdict, artifact: DistilledPrompt, ask_below: float) -> Finding:
    why = None
    if verdict.failure is not None:
        why = f"the student gave no readable answer ({verdict.failure.kind})"
    elif verdict.status == "abstained" or verdict.confidence is None or verdict.confidence < ask_below:
        why = f"the student is not sure ({verdict.confidence or 0:.2f})"
    return Finding(
        clause=clause["number"],
        hypothesis=hypothesis,
        verdict=None if why else verdict.label,
        predicted_label=verdict.predicted_label,
        confidence=verdict.confidence,
        rule=_rule(artifact, verdict, clause["text"]),
        decided_by=None if why else verdict.decided_by,
        why_asked=why,
    )


def _rule(artifact: DistilledPrompt, verdict: Verdict, text: str) -> str | None:
    folded = text.casefold()
    near = (
        rule.condition
        for rule in artifact.rules
        if rule.id in verdict.rule_ids and any(cue.casefold() in folded for cue in rule.cues if cue.strip())
    )
    return next(near, None)


def _label(decision: Any, finding: Finding, labels: Sequence[str]) -> str | None:
    """The label that a person gave.

    Raises:
        InputError: The decision cannot be read.
    """
    kind = decision.get("type") if isinstance(decision, Mapping) else None
    if kind == "reject":
        return None
    label: Any = None
    if kind == "approve":
        label = finding["predicted_label"]
    elif kind == "respond":
        label = decision.get("message")
    elif kind == "edit" and isinstance(decision.get("edited_action"), Mapping):
        arguments = decision["edited_action"].get("args")
        label = arguments.get("label") if isinstance(arguments, Mapping) else None
    if label not in labels:
        msg = (
            f"the decision of type {kind!r} about clause {finding['clause']} gives no label; approve where there is "
            f"one, reject, or edit or respond with one of {', '.join(labels)}"
        )
        raise InputError(msg)
    return str(label)


def _line(finding: Finding, titles: Mapping[int, str]) -> str:
    sure = f" {finding['confidence']:.2f}" if finding["confidence"] is not None else ""
    who = "a person" if finding["decided_by"] == "person" else f"{finding['decided_by']}{sure}"
    rule = f"; rule: {finding['rule']}" if finding["rule"] else ""
    return f"- {titles[finding['clause']]}: **{finding['verdict'] or 'open'}** ({who}{rule})"


def _build() -> Any:
    builder = StateGraph(
        ReviewState, context_schema=ReviewContext, input_schema=ReviewInput, output_schema=ReviewOutput
    )
    builder.add_node("read", read)
    builder.add_node("check", check)
    builder.add_node("ask", ask)
    builder.add_node("report", report)
    builder.add_edge(START, "read")
    builder.add_edge("read", "check")
    builder.add_conditional_edges("check", who_is_next)
    builder.add_edge("ask", "report")
    builder.add_edge("report", END)
    # Compiled without a checkpointer: the server brings its own.
    return builder.compile(name="contract_review")


graph = _build()
