"""The state of a run: references and small results. Examples, drafts and scores lie in the Store.

A person who looks at a node reads `overview`, `measured` and `log`.
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
    """What a run starts from: task and rows by path or as they are, or a run whose rows are in the Store already."""

    task_file: str
    """Path of the task's YAML file."""
    train_file: str
    """Path of the labelled rows that the teacher may see."""
    validation_file: str
    """Path of the rows for selection and calibration."""
    test_file: str
    """Path of the rows that are read once, at the end; optional."""
    train_rows: list[dict[str, Any]]
    """The rows themselves, in place of a file: mappings with `text` (or the task's fields), `label`, and optionally
    `id` and `group`."""
    validation_rows: list[dict[str, Any]]
    """As `train_rows`."""
    test_rows: list[dict[str, Any]]
    """As `train_rows`."""
    run_id: str
    """Name of the run in the Store; made from the thread and the settings when absent. What a run of this name found
    out is not asked for again."""
    task: Task
    """The task, where it is not given as a file."""
    plan: Plan
    """Concrete numbers, where the effort preset is not to be used."""
    incumbent: DistilledPrompt
    """The prompt in use now, which a new one has to beat; optional."""


class Overview(TypedDict, total=False):
    """What a person wants to see of a run, written anew after each node; a long list is shown in part."""

    rows: dict[str, int]
    """Data role to its rows."""
    labels: dict[str, int]
    """Label to the examples that the teacher explained."""
    explanations: list[str]
    """Some of them: label, text, and what the teacher said."""
    micro_rules: dict[str, int]
    """Label to its micro-rules."""
    sample_micro_rules: list[str]
    """Some of them, of each label."""
    rules: list[str]
    """The rules of the best prompt so far, before there is one all that were merged: condition, label and support."""
    proposals: list[str]
    """What the teacher wants to change, and why."""
    prompt: str
    """The student's best system prompt so far."""
    spent: str
    """Calls, tokens and money."""


class DistillationOutput(TypedDict, total=False):
    """What a run ends with, and what its stream shows after each node."""

    artifact: DistilledPrompt
    """The tested prompt."""
    finish_reason: FinishReason
    """Why the run ended."""
    measured: dict[str, dict[str, float]]
    """The latest figures on the validation rows: prompt to macro-F1 and log loss."""
    overview: Overview
    """The run at a glance."""
    log: Annotated[list[str], operator.add]
    """What each node did, a line each."""


class DistillationState(DistillationInput, DistillationOutput, total=False):
    """What travels from node to node."""

    settings: dict[str, Any]
    """Those of the run's context that differ from the defaults."""
    data: dict[str, DataFingerprint]
    """Data role to its rows."""
    micro_rules: list[MicroRule]
    """Drafts that passed extraction, later those that passed critique."""
    rules: list[Rule]
    """Merged rules; after a review, the accepted ones."""
    drafts: dict[str, list[Rule]]
    """Id of a merged rule to the other drafts of its cluster."""
    pool: list[Rule]
    """Rules that are in no prompt yet: what fitted no cluster, and what the prompt had no room for."""
    scorer: Scorer
    """How the student's answers are read; there once the student was asked."""
    zero_shot: Candidate
    """The best prompt without rules."""
    champion: Candidate
    """The best prompt so far."""
    all_rules: Candidate
    """The prompt with all merged rules, where there are any."""
    tried: list[str]
    """Which ways of answering were tried, for the artifact's notes."""
    round: int
    """Passes of validation so far."""
    proposals: list[Proposal]
    """Edits that the next validation decides about."""
    reviewed: ReviewAnswer
    """What a person decided about the rules; there once they are reviewed."""
    ledger: list[LedgerLine]
    """All that the run has spent, a line for each node and model."""


def validate_state(state: DistillationState) -> DistillationState:
    """The state as its types say.

    LangGraph's server hands the input over as JSON, and where it is told to be strict, what comes back from a
    checkpoint is plain as well.

    Raises:
        ValidationError: A value is not what its type says; it came from outside.
    """
    return _types().validate_python(state)


@cache
def _types() -> TypeAdapter[DistillationState]:
    return TypeAdapter(DistillationState)
