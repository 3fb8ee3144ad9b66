"""Artifacts made by hand: one for scripted students, one with words that the real small model writes."""

from __future__ import annotations

from typing import Any

from langchain_pld import DistilledPrompt, Label, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.rules import Rule
from langchain_pld.student.prompt import compile_prompt

TASK = Task(
    name="mood",
    instructions="Decide whether the message is friendly.",
    labels=[{"name": "yes", "description": "It is friendly."}, {"name": "no", "description": "It is not."}],
)
WORDS = AnswerFormat.words(TASK)
RULES = (Rule.merged("yes", "If the text thanks or praises somebody", ()),)
_STARTS = ["Thank you for", "I hate", "What a lovely", "Nobody needs", "Please send"]
_ENDS = ["the slides.", "this meeting!", "your help, Ana.", "the new office."]
TEXTS = [f"{start} {end}" for start in _STARTS for end in _ENDS]


def artifact_of(student: ModelFingerprint, **changes: Any) -> DistilledPrompt:
    fields = {
        "task": TASK,
        "rules": RULES,
        "system_prompt": compile_prompt(TASK, RULES, WORDS),
        "answer": WORDS,
        "calibration": Calibration(method="batch", labels=TASK.label_names, bias=(0.25, -0.5), rows=60),
        "min_label_mass": 0.0,
        "student": student,
    }
    return DistilledPrompt(**{**fields, **changes})


# So small a model mostly repeats the opening of its input, whatever it is asked: here that is an answer.
MODEL_TASK = TASK.model_copy(update={"labels": (*TASK.labels, Label(name="unclear", description="Nobody can tell."))})
MODEL_WORDS = AnswerFormat.words(MODEL_TASK, {"yes": "yes", "no": "no", "unclear": "<<"})


def small_model_artifact(student: ModelFingerprint) -> DistilledPrompt:
    return artifact_of(
        student,
        task=MODEL_TASK,
        rules=(),
        system_prompt=compile_prompt(MODEL_TASK, (), MODEL_WORDS),
        answer=MODEL_WORDS,
        calibration=Calibration(method="batch", labels=MODEL_TASK.label_names, bias=(0.25, -0.5, 0.0), rows=60),
    )
