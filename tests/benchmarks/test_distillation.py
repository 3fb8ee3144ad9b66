"""The benchmark of distilling runs to its end and tells paired differences; a fake stands for the model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_core.messages import AIMessage, BaseMessage

from tests.benchmarks import distillation
from tests.fakes import FakeChatModel
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
