"""Recorded answers: a teacher without a model, and the recordings that are shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_pld import Task, adistill, read_examples
from langchain_pld.cli.demo import demo_plan
from langchain_pld.errors import InputError, ModelSetupError
from langchain_pld.models.batch import BatchFolder
from langchain_pld.models.batch_rows import Question
from langchain_pld.models.recorded import RECORDINGS, UnknownPromptError, record
from langchain_pld.models.resolve import resolve_chat_model
from tests.fakes import FakeChatModel, scored

SHOP = Path(__file__).parents[2] / "langchain_pld" / "example_data" / "shop_inbox"
SCHEMA = {"title": "Explanation", "type": "object", "properties": {"reason": {"type": "string"}}}


def messages(text: str) -> list[BaseMessage]:
    return [SystemMessage("Explain the label.\nAnswer in JSON."), HumanMessage(text)]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = BatchFolder(tmp_path / "answers")
    folder.ask([Question.of(messages(text), SCHEMA) for text in ("a parcel came", "an invoice went out")], node="n")
    ids = [one.id for one in folder.questions().values()]
    folder.add_responses("t", [{"custom_id": key, "answer": f'So: {{"reason": "{key[-4:]}"}}'} for key in ids])
    assert record(folder, tmp_path / "mine.jsonl", about="written for a test") == 2
    return tmp_path / "mine.jsonl"


def test_a_recorded_prompt_gets_its_answer_under_any_spelling_of_the_schema(recording: Path) -> None:
    model = resolve_chat_model(f"recorded:{recording}")
    expected = {"reason": Question.of(messages("a parcel came"), SCHEMA).id[-4:]}
    for schema in (SCHEMA, {**SCHEMA, "description": "as another release words it"}):
        assert model.with_structured_output(schema).invoke(messages("a parcel came")) == expected
    head = json.loads(recording.read_text(encoding="utf-8").splitlines()[0])
    assert head == {"recording": 2, "about": "written for a test", "questions": 2}


def test_an_unknown_prompt_is_an_error_that_shows_what_differs_from_the_nearest(recording: Path) -> None:
    model = resolve_chat_model(f"recorded:{recording}").with_structured_output(SCHEMA)
    with pytest.raises(UnknownPromptError) as caught:
        model.invoke(messages("an invoice went astray"))
    assert "\n-an invoice went out\n+an invoice went astray" in str(caught.value)
    assert "a parcel came" not in str(caught.value)
    with pytest.raises(UnknownPromptError, match=r"-\[Explanation\]\n\+\[Judgement\]"):
        resolve_chat_model(f"recorded:{recording}").with_structured_output({"title": "Judgement"}).invoke(
            messages("a parcel came")
        )


def test_a_long_difference_is_cut(recording: Path) -> None:
    model = resolve_chat_model(f"recorded:{recording}")
    with pytest.raises(UnknownPromptError, match=r"and \d+ more lines") as caught:
        model.invoke(messages("\n".join(f"line {n}" for n in range(500))))
    assert len(str(caught.value).splitlines()) < 50


def test_a_recording_needs_all_answers(tmp_path: Path) -> None:
    folder = BatchFolder(tmp_path / "answers")
    folder.ask([Question.of(messages("a parcel came"), SCHEMA)], node="n")
    with pytest.raises(InputError, match="1 of 1 questions"):
        record(folder, tmp_path / "mine.jsonl", about="half done")


def test_a_missing_or_damaged_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelSetupError, match=r"no recording of_no_task; .* shipped: shop_inbox"):
        resolve_chat_model("recorded:of_no_task")
    (tmp_path / "bad.jsonl").write_text('{"recording": 2, "about": "x"}\n{"messages": []}\n')
    with pytest.raises(ModelSetupError, match=r"bad\.jsonl:2: no row of a recording"):
        resolve_chat_model(f"recorded:{tmp_path / 'bad.jsonl'}")


def explained(text: str, label: str, instructions: str = "Explain the label.") -> list[BaseMessage]:
    return [SystemMessage(f'{instructions}\nIts label is "{label}".'), HumanMessage(f"<<<\n{text}\n>>>")]


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    folder = BatchFolder(tmp_path / "mail")
    question = Question.of(explained("a parcel came", "post"), SCHEMA)
    folder.ask([question], node="n")
    folder.add_responses("t", [{"custom_id": question.id, "answer": {"reason": "it came"}}])
    record(folder, tmp_path / "mail.jsonl", about="written for a test")
    return tmp_path / "mail.jsonl"


def test_another_wording_of_a_recorded_question_gets_its_answer(mail: Path) -> None:
    model = resolve_chat_model(f"recorded:{mail}").with_structured_output(SCHEMA)
    worded = explained("a parcel came", "post", 'You are an annotator. In short: why? Say "If the text …".')
    assert model.invoke(worded) == {"reason": "it came"}


@pytest.mark.parametrize(("text", "label"), [("a parcel came", "bills"), ("a parcel went", "post")])
def test_another_label_or_text_is_another_question(mail: Path, text: str, label: str) -> None:
    model = resolve_chat_model(f"recorded:{mail}").with_structured_output(SCHEMA)
    with pytest.raises(UnknownPromptError, match=r"\n-.*\n\+"):
        model.invoke(explained(text, label))


def test_two_answers_to_one_question_are_refused(mail: Path) -> None:
    lines = mail.read_text(encoding="utf-8").splitlines()
    mail.write_text("\n".join([*lines, lines[1].replace("it came", "it went")]), encoding="utf-8")
    with pytest.raises(ModelSetupError, match=r"mail\.jsonl:3: another answer"):
        resolve_chat_model(f"recorded:{mail}")


async def test_the_shipped_recording_answers_every_question_of_the_demo() -> None:
    task = Task.from_yaml(SHOP / "task.yaml")
    data: Any = {role: read_examples(SHOP / f"{role}.jsonl", task) for role in ("train", "validation")}
    even = scored(dict.fromkeys(task.label_names, 1 / len(task.labels)))

    def student(messages: list[BaseMessage]) -> AIMessage:
        return even

    teacher = resolve_chat_model("recorded:shop_inbox")
    notes: list[str] = []
    artifact = await adistill(
        task,
        **data,
        teacher=teacher,
        student=FakeChatModel(script=student),
        effort=demo_plan(),
        on_progress=lambda progress: notes.append(progress.note or ""),
    )
    lines = [line for line in artifact.ledger if line.model == "recorded:shop_inbox"]
    rows = (RECORDINGS / "shop_inbox.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(line.calls for line in lines) == len(rows) - 1
    assert sum(line.failures for line in lines) == 0
    # Four ways to each label, and no draft was refused.
    log = "\n".join(notes)
    assert f"became {4 * len(task.labels)} rules" in log
    assert ", 0 drafts asked for again" in log
    about = json.loads(rows[0])["about"]
    assert "strong writer" in about
    assert "offline teacher" in about
