"""Request and response files of a teacher that answers later."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_pld.errors import AnswersPendingError, InputError, ModelSetupError
from langchain_pld.models.batch import BatchChatModel, BatchFolder
from langchain_pld.models.batch_rows import MOST_ROW_BYTES, Answer, BadRow, Question, read_rows
from langchain_pld.models.resolve import absolute_spec, resolve_chat_model

SCHEMA = {
    "title": "Explanation",
    "type": "object",
    "properties": {"condition": {"type": "string", "minLength": 5}},
    "required": ["condition"],
}
GOOD = {"condition": "If the text is about a parcel"}


def question(text: str) -> Question:
    return Question.of([SystemMessage("Explain."), HumanMessage(text)], SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> BatchFolder:
    """A folder in which three questions were asked."""
    folder = BatchFolder(tmp_path / "answers")
    folder.ask([question(text) for text in ("one", "two", "three")], node="generate")
    return folder


def row(text: str, answer: Any = GOOD) -> dict[str, Any]:
    return {"custom_id": question(text).id, "answer": answer}


def response_file(folder: BatchFolder, *rows: Any) -> Path:
    """A response file beside the folder; a row that is no text is written as JSON."""
    file = folder.path.parent / "in.jsonl"
    file.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows), encoding="utf-8")
    return file


def reasons(folder: BatchFolder, *rows: Any) -> list[str]:
    return [bad.reason for bad in folder.check_file(response_file(folder, *rows)).bad]


def test_a_request_row_has_the_form_of_openais_batch_interface(folder: BatchFolder) -> None:
    (file,) = folder.request_files()
    assert file.name == "0001-generate.jsonl"
    sent = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [one["custom_id"] for one in sent] == [question(text).id for text in ("one", "two", "three")]
    assert sent[0]["body"]["messages"] == [
        {"role": "system", "content": "Explain."},
        {"role": "user", "content": "one"},
    ]
    assert sent[0]["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (sent[0]["method"], sent[0]["url"]) == ("POST", "/v1/chat/completions")


def test_ids_follow_from_prompt_schema_and_draft() -> None:
    messages = [HumanMessage("one")]
    ids = {
        Question.of(messages, SCHEMA).id,
        Question.of(messages, SCHEMA, draft=1).id,
        Question.of(messages, {**SCHEMA, "required": []}).id,
        Question.of([HumanMessage("other")], SCHEMA).id,
    }
    assert len(ids) == 4
    assert Question.of([HumanMessage("one")], dict(SCHEMA)).id in ids
    assert all(len(one) <= 64 for one in ids)


@pytest.mark.parametrize(
    "answered",
    [
        {"answer": GOOD},
        {"answer": json.dumps(GOOD)},
        {"answer": f"Here it is:\n```json\n{json.dumps(GOOD)}\n```"},
        {
            "response": {"status_code": 200, "body": {"choices": [{"message": {"content": json.dumps(GOOD)}}]}},
            "error": None,
        },
        {
            "response": {
                "candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": json.dumps(GOOD)}]}}]
            }
        },
    ],
    ids=["by hand", "as text", "with prose", "OpenAI", "Gemini"],
)
def test_answers_are_read_in_each_form(folder: BatchFolder, answered: dict[str, Any]) -> None:
    taken, _ = folder.import_file(response_file(folder, {"custom_id": question("one").id, **answered}))
    assert not taken.bad
    model = BatchChatModel(path=folder.path)
    structured = model.with_structured_output(SCHEMA, include_raw=True)
    assert structured.invoke([SystemMessage("Explain."), HumanMessage("one")])["parsed"] == GOOD


def test_tokens_are_told_where_the_provider_counts_them(folder: BatchFolder) -> None:
    body = {
        "choices": [{"message": {"content": json.dumps(GOOD)}}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 11},
    }
    gemini = {
        "candidates": [{"content": {"parts": [{"text": json.dumps(GOOD)}]}}],
        "usageMetadata": {"promptTokenCount": 80, "candidatesTokenCount": 9, "thoughtsTokenCount": 4},
    }
    folder.import_file(
        response_file(
            folder,
            {"custom_id": question("one").id, "response": {"body": body}},
            {"key": question("two").id, "response": gemini},
            row("three") | {"usage": {"prompt_tokens": -5, "completion_tokens": "many"}},
        )
    )
    found = folder.read_responses().answers.values()
    assert [(one.input_tokens, one.output_tokens) for one in found] == [(90, 11), (80, 13), (0, 0)]


def test_each_bad_row_is_reported_with_file_line_id_and_reason_and_the_good_ones_count(folder: BatchFolder) -> None:
    file = response_file(
        folder,
        row("one"),
        "{half a row",
        row("one"),
        {"custom_id": "explanation-unknown", "answer": GOOD},
        {"answer": GOOD},
        row("two", {"reason": "no condition"}),
        "",
        {"custom_id": question("three").id, "error": {"code": "rate_limit", "message": "slow\u001b[2J down"}},
        row("two"),
    )
    taken, where = folder.import_file(file)
    assert [str(bad).removeprefix(f"{file}:") for bad in taken.bad] == [
        "2: row without a known id is no JSON object",
        f"3: {question('one').id} is already answered; the first usable answer counts",
        "4: row without a known id names explanation-unknown, which was not asked",
        "5: row without a known id has no custom_id (or key) of a question",
        f"6: {question('two').id} does not fit: 'condition' is a required property",
        f"8: {question('three').id} is an error of the service: "
        '{"code": "rate_limit", "message": "slow\\u001b[2J down"}',
    ]
    assert set(taken.answers) == {question("one").id, question("two").id}
    assert where is not None
    assert [one.id for one in folder.open_questions()] == [question("three").id]
    assert file.read_text(encoding="utf-8").count("\n") == 9  # it stays as it was


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (row("one", {"condition": "If"}), "does not fit: condition: 'If' is too short"),
        (row("one", "no JSON at all"), "does not fit: it holds no whole JSON object"),
        (row("one", '{"condition": "If the te'), "does not fit: it holds no whole JSON object"),
        (row("one", '{"condition": "half \\ud800 a character"}'), "does not fit: it holds half a character"),
        (row("one", "[" * 100_000), "does not fit: it holds no whole JSON object"),
        ('{"custom_id": NaN}', "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ({"custom_id": question("one").id, "response": {"status_code": 500, "body": {}}}, "status 500"),
        (
            {"custom_id": question("one").id, "response": {"candidates": [{"finishReason": "SAFETY"}]}},
            "holds no answer",
        ),
        ({"custom_id": "x" * 65, "answer": GOOD}, "has no custom_id"),
        ('{"custom_id": "' + "x" * MOST_ROW_BYTES + '"}', f"more than {MOST_ROW_BYTES} bytes"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(folder: BatchFolder, one: Any, reason: str) -> None:
    (said,) = reasons(folder, one)
    assert reason in said
    assert len(said) < 400


def test_a_file_that_is_too_long_is_not_read(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_pld.models.batch_rows.MOST_FILE_BYTES", 10)
    assert "the file has" in reasons(folder, row("one"))[0]


_pieces = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"custom_id": st.sampled_from([question("two").id, question("three").id, "", "?"])},
        optional={
            name: st.one_of(st.none(), st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.integers()))
            for name in ("answer", "response", "error", "usage")
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(_pieces, max_size=5), after=st.lists(_pieces, max_size=5))
def test_whatever_stands_around_it_a_good_row_is_never_lost_and_every_other_row_is_reported(
    folder: BatchFolder, before: list[bytes], after: list[bytes]
) -> None:
    file = folder.path.parent / "any.jsonl"
    lines = [*before, json.dumps(row("one")).encode(), *after]
    file.write_bytes(b"\n".join(lines))
    found = folder.check_file(file)
    assert question("one").id in found.answers
    # A byte order mark at the beginning of a file is no row.
    rows = [line for line in file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip()]
    assert len(found.answers) + len(found.bad) == len(rows)
    assert all(isinstance(one, Answer | BadRow) for _, one in read_rows(file))


def test_a_question_without_an_answer_is_told_of(folder: BatchFolder) -> None:
    model = resolve_chat_model(f"batch:{folder.path}")
    with pytest.raises(AnswersPendingError, match="no answer yet") as caught:
        model.invoke([SystemMessage("Explain."), HumanMessage("new")])
    assert [one.messages[-1]["content"] for one in caught.value.questions] == ["new"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("")
    with pytest.raises(ModelSetupError, match="is not a folder"):
        resolve_chat_model(f"batch:{tmp_path / 'answers'}")


def test_what_was_asked_already_is_not_written_twice_and_what_did_not_fit_is_asked_with_the_reason(
    folder: BatchFolder,
) -> None:
    again = [question("one"), question("two")]
    folder.add_responses("by-hand", [row("one", "rubbish")])
    file = folder.ask(again, node="generate")
    assert folder.ask(again, node="generate") == file
    assert len(folder.request_files()) == 2
    asks = {one.id: str(one.messages[-1]["content"]) for one in folder.request_files()[file]}
    assert asks[question("one").id].startswith("one\n\nAn earlier answer did not fit: it holds no whole JSON object.")
    assert asks[question("two").id] == "two"


def test_a_question_fails_after_two_answers_of_no_use_and_not_before(folder: BatchFolder) -> None:
    model = BatchChatModel(path=folder.path)
    folder.add_responses("by-hand", [row("one", "rubbish")])
    with pytest.raises(AnswersPendingError):
        model.answer_to(question("one"))
    folder.add_responses("by-hand", [row("one", "rubbish again")])
    assert folder.read_responses().failed(question("one").id)
    assert model.answer_to(question("one")).text == "rubbish again"
    folder.add_responses("by-hand", [row("one")])
    assert model.answer_to(question("one")).text == json.dumps(GOOD)


def test_a_request_file_that_was_damaged_is_named(folder: BatchFolder) -> None:
    (file,) = folder.request_files()
    file.write_text(file.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"0001-generate\.jsonl:4: the row is not a question"):
        folder.questions()


def test_nothing_can_be_taken_where_nothing_was_asked(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="nothing was asked"):
        BatchFolder(tmp_path / "empty").import_file(tmp_path / "in.jsonl")
    with pytest.raises(InputError, match="no file at"):
        BatchFolder(tmp_path / "empty").check_file(tmp_path / "missing.jsonl")


def test_the_folder_of_a_run_is_kept_as_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_spec("batch:answers") == f"batch:{tmp_path / 'answers'}"
    assert absolute_spec("ollama:gemma3:4b") == "ollama:gemma3:4b"
