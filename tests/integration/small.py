"""An artifact made by hand for the real small model, whose words its tokenizer tells apart."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_pld import DistilledPrompt, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.models import EmbeddedChatModel
from langchain_pld.rules import Rule
from langchain_pld.student.binding import fingerprint_of
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


def classifier_of(model: EmbeddedChatModel | BaseChatModel) -> PLDClassifier:
    return PLDClassifier(artifact=artifact_of(fingerprint_of(model)), student=model, timeout_s=120)
