"""The benchmark of distilling runs to its end and tells paired differences; a fake stands for the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_core.messages import AIMessage, BaseMessage

from langchain_pld import Task
from langchain_pld.answer import AnswerFormat
from tests.benchmarks import distillation
from tests.fakes import FakeChatModel, scored
from tests.teams import SUBJECTS, TASK, jsonl, rows, rule_for, student_script


class FakeLoadedModel(FakeChatModel):
    """Teacher and student in one, as the embedded model is in the benchmark."""

    def load(self) -> None:
        """Nothing has to be fetched."""

    def get_num_tokens(self, text: str) -> int:
        """A token a word."""
        return len(text.split())


def both(messages: list[BaseMessage]) -> AIMessage:
    told = "\n".join(str(message.text) for message in messages)
    if TASK.instructions in str(messages[0].text) and "label is" not in told:
        return student_script(messages)
    return AIMessage(rule_for(told))


# As people write rules: several labels in one, a label that holds another one's name, no label at all.
MODERATION = (
    "Slurs used against someone are hateful; a slur reclaimed by its own group is non_hateful.",
    "A post that quotes hate to condemn it is non_hateful, not hateful.",
    "Profanity alone is not hate.",
)


async def test_a_persons_rules_stand_as_written_under_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("hateful", "non_hateful")
    (tmp_path / "posts").mkdir()
    for role, count in {"train": 40, "validation": 40, "test": 20}.items():
        posts = [{"id": f"{role}-{n}", "text": f"{role} post {n}", "label": labels[n % 2]} for n in range(count)]
        (tmp_path / "posts" / f"{role}.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    definition = {"instructions": "Moderate.", "labels": dict.fromkeys(labels, "so"), "rules": list(MODERATION)}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump({"posts": definition}), encoding="utf-8")
    why = json.dumps({"reason": "it says so", "condition": "If the post is of that kind", "cues": ["kind"]})

    def script(messages: list[BaseMessage]) -> AIMessage:
        about_a_label = "label is" in "\n".join(str(message.text) for message in messages)
        return AIMessage(why) if about_a_label else scored({"hateful": 0.6, "non_hateful": 0.3})

    model = FakeLoadedModel(script=script)
    monkeypatch.setattr(distillation, "EmbeddedChatModel", lambda **_: model)
    command = ["distillation", "--data", tmp_path, "--definitions", tmp_path / "sets.yaml", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--sets", "posts", "--seeds", "0"])

    await distillation.main()
    capsys.readouterr()
    prompts = {str(asked[0].text) for asked in model.asked if "Profanity alone" in str(asked[0].text)}
    assert prompts, "the student was asked with the person's rules"
    for prompt in prompts:
        rules = [line for line in prompt.splitlines() if line.partition(". ")[0].isdigit()]
        assert [line.partition(". ")[2] for line in rules] == list(MODERATION)


def test_a_rule_in_prose_tells_the_word_that_the_student_answers() -> None:
    task = Task(name="nda", instructions="Decide.", labels=[{"name": "entailment"}, {"name": "not_entailment"}])
    answer = AnswerFormat.letters(task)
    told = distillation.in_prose(["A duty is entailment, silence not_entailment; entailments vary."], answer)
    first, second = answer.codes["entailment"], answer.codes["not_entailment"]
    assert told == f"1. A duty is entailment ({first}), silence not_entailment ({second}); entailments vary."


async def test_a_set_is_measured_once_with_paired_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "teams", tmp_path / "out"
    folder.mkdir()
    for role, count in {"train": 60, "validation": 60, "test": 45}.items():
        (folder / f"{role}.jsonl").write_text(jsonl(rows(role, count)), encoding="utf-8")
    person = [f'If the text is about a {subject}, answer "{label}"' for label, subject in SUBJECTS.items()]
    definition = {"instructions": TASK.instructions, "labels": dict.fromkeys(SUBJECTS, "gets it"), "rules": person}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump({"teams": definition}), encoding="utf-8")
    model = FakeLoadedModel(script=both)
    monkeypatch.setattr(distillation, "EmbeddedChatModel", lambda **_: model)
    monkeypatch.setitem(distillation.ALONE, "teams", "text")
    command = ["distillation", "--data", tmp_path, "--definitions", tmp_path / "sets.yaml", "--out", out]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--sets", "teams", "--seeds", "3"])

    await distillation.main()
    (result,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert result["shipped"] == "rules"
    cards: dict[tuple[str, bool], Any] = {(card["prompt"], card["calibrated"]): card for card in result["cards"]}
    assert cards["distilled", False]["macro_f1"] == cards["rules by a person", False]["macro_f1"] == 1.0
    assert cards["zero-shot", False]["macro_f1"] < 0.5
    assert cards["text alone, naive Bayes (60 rows)", False]["macro_f1"] == 1.0
    paired = result["against_zero_shot"]
    assert set(paired) == {"distilled", "8-shot", "rules by a person"}
    assert paired["distilled"]["interval"][0] > 0.3
    assert paired["distilled"]["mcnemar_p"] < 0.001

    asked = len(model.asked)
    await distillation.main()
    assert len(model.asked) == asked, "what is kept is not made again"
