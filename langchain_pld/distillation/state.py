"""The state of a run: references and small results. Examples, drafts and scores are in the Store.

`overview`, `measured` and `log` are for people who look at a node.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from langchain_pld.answer import Scorer
from langchain_pld.artifact import DataFingerprint, DistilledPrompt, FinishReason, LedgerLine
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.rules.edits import Proposal
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.signature import ReviewAnswer
from langchain_pld.task import Task

__all__ = ["DistillationInput", "DistillationOutput", "DistillationState", "Overview", "validate_state"]


class DistillationInput(TypedDict, total=False):
    """The input of a run: task and rows, as paths or values, or a run whose rows are already in the Store."""

    task_file: str
    """Path of the task's YAML file."""
    train_file: str
    """Path of the labelled rows that the teacher may see."""
    validation_file: str
    """Path of the rows for selection and calibration."""
    test_file: str
    """Path of the rows read once, at the end; optional."""
    train_rows: list[dict[str, Any]]
    """Rows in place of a file: mappings with `text` (or the task's fields), `label`, and optionally `id` and
    `group`."""
    validation_rows: list[dict[str, Any]]
    """As `train_rows`."""
    test_rows: list[dict[str, Any]]
    """As `train_rows`."""
    run_id: str
    """Name of the run in the Store, by default made from the thread and the settings. Results of a run of this name are
    reused."""
    task: Task
    """The task, in place of a file."""
    plan: Plan
    """Concrete numbers, in place of the effort preset."""
    incumbent: DistilledPrompt
    """The prompt now in use, which a new one has to beat; optional."""


class Overview(TypedDict, total=False):
    """A run at a glance, rewritten after each node; long lists are shortened."""

    rows: dict[str, int]
    """Data role to its rows."""
    labels: dict[str, int]
    """Label to the number of examples that the teacher explained."""
    explanations: list[str]
    """Some of them: label, text, and explanation."""
    micro_rules: dict[str, int]
    """Label to the number of its micro-rules."""
    sample_micro_rules: list[str]
    """Some of them, for each label."""
    rules: list[str]
    """The rules of the best prompt so far, or else all merged rules: condition, label and support."""
    proposals: list[str]
    """What the teacher wants to change, and why."""
    prompt: str
    """The student's best system prompt so far."""
    spent: str
    """Calls, tokens and money."""


class DistillationOutput(TypedDict, total=False):
    """The result of a run, and what its stream shows after each node."""

    artifact: DistilledPrompt
    """The tested prompt."""
    finish_reason: FinishReason
    """Why the run ended."""
    measured: dict[str, dict[str, float]]
    """The latest figures on the validation rows: prompt to macro-F1 and log loss."""
    overview: Overview
    """The run at a glance."""
    log: Annotated[list[str], operator.add]
    """What each node did, one line each."""


class DistillationState(DistillationInput, DistillationOutput, total=False):
    """What travels from node to node."""

    settings: dict[str, Any]
    """The settings that differ from the defaults."""
    data: dict[str, DataFingerprint]
    """Data role to its rows."""
    micro_rules: list[MicroRule]
    """Drafts that passed extraction, later those that passed critique."""
    rules: list[Rule]
    """Merged rules; after a review, the accepted ones."""
    drafts: dict[str, list[Rule]]
    """Id of a merged rule to the other drafts of its cluster."""
    pool: list[Rule]
    """Rules in no prompt yet: those outside every cluster, and those the prompt had no room for."""
    scorer: Scorer
    """How the student's answers are read; set once the student was asked."""
    zero_shot: Candidate
    """The best prompt without rules."""
    champion: Candidate
    """The best prompt so far."""
    all_rules: Candidate
    """The prompt with all merged rules, if any."""
    tried: list[str]
    """The answer formats tried, for the artifact's notes."""
    round: int
    """Passes of validation so far."""
    proposals: list[Proposal]
    """Edits that the next validation decides about."""
    reviewed: ReviewAnswer
    """A person's decisions about the rules; set once they are reviewed."""
    ledger: list[LedgerLine]
    """What the run has spent, one line per node and model."""


def validate_state(state: DistillationState) -> DistillationState:
    """Convert the values of a state to their types.

    LangGraph's server passes the input as JSON and, in strict mode, checkpoints as plain data as well.

    Raises:
        ValidationError: A value from outside does not match its type.
    """
    return _types().validate_python(state)


@cache
def _types() -> TypeAdapter[DistillationState]:
    return TypeAdapter(DistillationState)
