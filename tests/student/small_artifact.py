"""One small artifact and classifiers around it."""

from typing import Any

from langchain_pld import DistilledPrompt, Label, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, ModelFingerprint
from langchain_pld.rules import Rule
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.prompt import compile_prompt
from tests.fakes import FakeChatModel

TASK = Task(
    name="mood",
    instructions="Decide how the writer feels.",
    labels=[Label(name="glad", description="Pleased."), Label(name="sad", description="Grieving."), Label(name="calm")],
    max_chars=5_000,
)
RULES = (Rule.merged("sad", "It mourns a loss.", ()), Rule.merged("glad", "It cheers.", ()))
WORDS = AnswerFormat.words(TASK)
LETTERS = AnswerFormat.letters(TASK)
EVIDENCE = AnswerFormat.words(TASK, form="evidence")


def artifact(**changes: Any) -> DistilledPrompt:
    answer = changes.get("answer", WORDS)
    return DistilledPrompt(
        **{
            "task": TASK,
            "rules": RULES,
            "system_prompt": compile_prompt(TASK, RULES, answer),
            "answer": answer,
            "calibration": Calibration(method="batch", labels=TASK.label_names, bias=(0.0, 0.0, 0.0), rows=60),
            "student": ModelFingerprint(spec="fake-chat:fake"),
            **changes,
        }
    )


def classifier(
    script: Any, *, latency_s: float = 0.0, timeout_s: float = 30.0, attempts: int = 1, **changes: Any
) -> PLDClassifier:
    return PLDClassifier(
        artifact=artifact(**changes),
        student=FakeChatModel(script=script, latency_s=latency_s),
        timeout_s=timeout_s,
        retry=RetryPolicy(attempts=attempts, initial_s=0),
    )
