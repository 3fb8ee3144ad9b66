"""The state of a run: references and small results. Examples, drafts and scores lie in the Store."""

from __future__ import annotations

import operator
from typing import Annotated

from typing_extensions import TypedDict

from langchain_pld.answer import Scorer
from langchain_pld.artifact import DataFingerprint, DistilledPrompt, LedgerLine
from langchain_pld.distillation.candidates import Candidate
from langchain_pld.distillation.edits import Proposal
from langchain_pld.distillation.ledger import merge_ledgers
from langchain_pld.distillation.plan import Plan
from langchain_pld.rules import MicroRule, Rule
from langchain_pld.signature import ReviewAnswer
from langchain_pld.task import Task

__all__ = ["DistillationInput", "DistillationOutput", "DistillationState"]


class DistillationInput(TypedDict, total=False):
    """What a run starts from: files by path, or a run whose examples are in the Store already."""

    task_file: str
    """Path of the task's YAML file."""
    train_file: str
    """Path of the labelled rows that the teacher may see."""
    validation_file: str
    """Path of the rows for selection and calibration."""
    test_file: str
    """Path of the rows that are read once, at the end; optional."""
    run_id: str
    """Name of the run; with a known name it goes on where it was."""
    task: Task
    """The task, where it is not given as a file."""
    plan: Plan
    """Concrete numbers, where the effort preset is not to be used."""
    incumbent: DistilledPrompt
    """The prompt in use now, which a new one has to beat; optional."""


class DistillationOutput(TypedDict, total=False):
    """What a run ends with."""

    artifact: DistilledPrompt
    """The tested prompt."""
    finish_reason: str
    """Why the run ended."""
    log: list[str]
    """What each node did, a line each."""


class DistillationState(TypedDict, total=False):
    """What travels from node to node."""

    task_file: str
    train_file: str
    validation_file: str
    test_file: str
    run_id: str
    task: Task
    plan: Plan
    incumbent: DistilledPrompt
    data: dict[str, DataFingerprint]
    """Data role to its rows."""
    explained: int
    """Examples with a usable explanation."""
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
    artifact: DistilledPrompt
    finish_reason: str
    log: Annotated[list[str], operator.add]
    ledger: Annotated[list[LedgerLine], merge_ledgers]
