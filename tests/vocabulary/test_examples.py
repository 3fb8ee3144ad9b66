"""Reading labelled rows from files."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_pld import Example, Label, Task, read_examples
from langchain_pld.errors import ExampleError
from langchain_pld.examples import ExampleSet

TASK = Task(name="mood", instructions="Decide.", labels=[Label(name="glad"), Label(name="sad")], max_chars=40)
PAIRS = Task(name="pairs", instructions="Decide.", labels=TASK.labels, fields=("claim", "proof"))


def write_rows(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines_are_read_in_order_with_ids_after_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "glad"}\n\n{"text": "b", "id": 7, "group": "g", "more": 1}\n')
    assert list(read_examples(path, TASK)) == [
        Example(id="row-1", input="a", label="glad"),
        Example(id="7", input="b", group="g"),
    ]


def test_csv_with_a_byte_order_mark_quotes_and_line_breaks_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufefftext,label\r\n"a, ""b""\nc",glad\r\nd,\r\n'.encode())
    assert [(row.input, row.label) for row in read_examples(path, TASK)] == [('a, "b"\nc', "glad"), ("d", None)]


def test_csv_and_json_lines_with_the_same_rows_have_the_same_hash(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,claim,proof,label\n1,x,y,sad\n")
    lines = write_rows(tmp_path, [{"label": "sad", "proof": "y", "claim": "x", "id": "1"}])
    assert read_examples(tmp_path / "rows.csv", PAIRS).sha256 == read_examples(lines, PAIRS).sha256


def test_a_line_separator_inside_a_string_does_not_split_the_row(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{"text": "a\u2028b\u2029c\x85d\x0be", "label": "sad"}])
    assert read_examples(path, TASK)[0].input == "a\u2028b\u2029c\x85d\x0be"


BAD_ROWS = [
    ({"text": "a", "label": "calm"}, "unknown label 'calm'; the task has glad, sad"),
    ({"text": "a", "id": "first"}, "the id 'first' is used twice"),
    ({"text": " "}, "the text is empty"),
    ({"text": "x" * 41}, "the input has 41 characters"),
    ({"txt": "a"}, "no column 'text'; found: txt"),
    ({}, "no column 'text'; found: none"),
    ({"text": 3}, "column 'text' holds int, not a text"),
    ({"text": None}, "column 'text' "),
    ({"text": "\ud800"}, "not valid Unicode"),
    ({"text": "a", "group": "\udfff"}, "not valid Unicode"),
    ({"text": "a", "label": ["sad"]}, "column 'label' holds list"),
    ({"text": "a", "id": [1]}, "column 'id' holds list"),
    ([1], "not a JSON object"),
]


@pytest.mark.parametrize(("row", "expected"), BAD_ROWS)
def test_a_bad_row_is_an_error_with_file_and_line_or_is_skipped_and_listed(
    tmp_path: Path, row: Any, expected: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ok", "id": "first"}\n' + json.dumps(row) + '\nnot json\n{"text": "last"}')
    with pytest.raises(ExampleError) as caught:
        read_examples(path, TASK)
    reason, *_ = str(caught.value).splitlines()
    assert reason.startswith("rows.jsonl, line 2: ")
    assert expected in reason
    rows = read_examples(path, TASK, skip_bad_rows=True)
    assert [row.input for row in rows] == ["ok", "last"]
    assert [bad.line for bad in rows.skipped] == [2, 3]
    assert str(rows.skipped[0]) == reason
    assert str(rows.skipped[1]).startswith("rows.jsonl, line 3: not JSON")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.jsonl", None, "rows.jsonl"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "rows.jsonl, line 2: byte 24 is not UTF-8"),
        ("rows.jsonl", b"", "holds no usable row"),
        ("rows.csv", b"text,label\n", "holds no usable row"),
        ("rows.txt", b"a", "unknown kind of file '.txt'; use .jsonl, .ndjson, .json, .csv"),
        ("rows.csv", b'text,label\n"a,glad\nb,sad\n', "not CSV"),
        ("rows.csv", b"text,label\na,glad,more\n", "line 2: has more cells than the header"),
        ("rows.csv", b"words,label\na,glad\n", "line 2: no column 'text'; found: words, label"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExampleError) as caught:
        read_examples(tmp_path / name, TASK)
    assert expected in str(caught.value)


def test_rows_made_in_code_are_checked_alike() -> None:
    with pytest.raises(ExampleError, match=r"unit, example 'b': unknown label 'calm'"):
        ExampleSet.of([Example(id="a", input="x"), Example(id="b", input="y", label="calm")], TASK, source="unit")


def test_rows_and_label_counts() -> None:
    rows = ExampleSet.of([Example(id=str(i), input="x", label="sad" if i else None) for i in range(4)], TASK)
    assert rows.label_counts() == {"sad": 3}
    assert (rows[1].id, len(rows)) == ("1", 4)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            Example,
            id=texts,
            input=texts,
            label=st.sampled_from([None, "glad", "sad"]),
            group=st.none() | texts,
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row.id,
    )
)
def test_rows_written_as_json_lines_come_back_equal(rows: list[Example]) -> None:
    lines = [
        json.dumps({"id": row.id, "text": row.input, "label": row.label, "group": row.group}, ensure_ascii=False)
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
        assert list(read_examples(path, TASK)) == rows


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30), min_size=1))
def test_any_csv_file_is_read_or_refused(cells: list[str]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["text"], *([cell] for cell in cells)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_text(table.getvalue(), encoding="utf-8", newline="")
        try:
            rows = read_examples(path, TASK, skip_bad_rows=True)
        except ExampleError as error:
            assert "rows.csv" in str(error)
        else:
            assert [row.input for row in rows] == [cell for cell in cells if cell.strip()]
