"""Replacing an artifact's rules, e.g. after a review: old measurements are dropped or made again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from langchain_core.language_models import BaseChatModel
from langgraph.store.memory import InMemoryStore

from langchain_pld.artifact import Calibration, DataFingerprint, DistilledPrompt, Gate
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.progress import OnProgress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.promotion import Contest, gate_for, promote
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.search.student_probes import learn_tokens
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt

__all__ = ["UNMEASURED", "rescore", "with_rules"]

UNMEASURED = "not measured since the edit: no scores, no calibration; a gate, where there is one, always abstains"
"""The note on a prompt without scores."""

_EARLIER = "before the review: "
_DEFAULT_MASS = DistilledPrompt.model_fields["min_label_mass"].default


def with_rules(artifact: DistilledPrompt, rules: Sequence[Rule], *, trusted: bool = True) -> DistilledPrompt:
    """Replace the rules of an artifact.

    If this changes the prompt, scores and calibration are dropped and a gate always abstains, because they were
    measured for the old prompt.

    Args:
        artifact: The artifact; its review is dropped.
        rules: The rules in prompt order.
        trusted: `False` for an artifact edited by hand, which keeps no measurements in any case. Its task and answer
            format are still in the prompt, where a person can read them.
    """
    prompt = compile_prompt(artifact.task, rules, artifact.answer)
    update: dict[str, object] = {"rules": tuple(rules), "review": None}
    if trusted and prompt == artifact.system_prompt:
        return artifact.model_copy(update=update)
    gate = artifact.gate
    earlier = (note.removeprefix(_EARLIER) for note in artifact.notes if note != UNMEASURED)
    return artifact.model_copy(
        update={
            **update,
            "system_prompt": prompt,
            "calibration": Calibration.identity(artifact.answer.labels),
            "gate": gate and Gate(alpha=gate.alpha, confidence=gate.confidence),
            "min_label_mass": artifact.min_label_mass if trusted else _DEFAULT_MASS,
            "scores": (),
            "finish_reason": "reviewed",
            "parent": artifact.id if trusted else None,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "notes": (UNMEASURED, *(f"{_EARLIER}{note}" for note in earlier)),
        }
    )


async def rescore(
    artifact: DistilledPrompt,
    rows: ExampleSet,
    student: BaseChatModel,
    *,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> DistilledPrompt:
    """Measure scores, calibration and gate again on validation rows, and compare with the prompt without rules.

    The rules stay whatever the outcome; the first note says how they compare.

    Args:
        artifact: From `with_rules`.
        rows: Labelled validation rows.
        student: The model that decides.
        seed: Seed of folds and bootstraps.
        on_progress: Called with rows done and total rows, for each prompt in turn.
    """
    run = await Run.open(
        "review",
        task=artifact.task,
        plan=PLANS["light"].model_copy(update={"replace_level": 0.95}),
        store=RunStore(InMemoryStore(), "rescoring"),
        student=student,
        config=DistillConfig(seed=seed),
    )
    fingerprint = await run.student_fingerprint()
    scorer = StudentScorer(run, fingerprint, artifact.scorer)
    answer = await learn_tokens(run, artifact.answer_for(fingerprint), artifact.scorer)
    zero_shot = scored = await scorer.validate(Candidate(answer=answer), rows, on_progress)
    if artifact.rules:
        scored = await scorer.validate(Candidate(rules=artifact.rules, answer=answer), rows, on_progress)
    contest = Contest(zero_shot, scored, reviewed=True)
    data = DataFingerprint(sha256=rows.sha256, rows=len(rows), source=rows.source)
    measured = await promote(contest, scorer, rows, ended="reviewed", origin={}, trials=())
    gate = artifact.gate
    gate_notes: tuple[str, ...] = ()
    if gate is not None:
        gate, gate_notes = gate_for(gate, scored, rows, run)
    earlier = [note for note in artifact.notes if note != UNMEASURED]
    return artifact.model_copy(
        update={
            **{field: getattr(measured, field) for field in ("answer", "calibration", "student", "scores")},
            "gate": gate,
            "data": {**artifact.data, "validation": data},
            "ledger": (*artifact.ledger, *measured.ledger),
            "notes": (*measured.notes, *gate_notes, *earlier),
        }
    )
