"""Rows as people have them: other headers, separators and kinds of files; data frames, pairs, mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_pld import Example, Label, Task, read_examples
from langchain_pld.errors import ExampleError
from langchain_pld.examples import Columns, examples_from

TASK = Task(name="mail", instructions="Decide.", labels=[Label(name="spam"), Label(name="ham"), Label(name="1")])
ROWS = [("Win a «prize»;\nnow", "spam"), ("See you at noon, ok?", "ham")]
COLUMNS = Columns(text="Comment Text", label="Category")


def pairs(rows: Any) -> list[tuple[Any, str | None]]:
    return [(row.input, row.label) for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_csv_of_an_office_program_is_read(tmp_path: Path, separator: str, start: str) -> None:
    lines = [
        ("Nr", "Comment Text ", "CATEGORY"),
        *((str(n), f'"{text}"', label) for n, (text, label) in enumerate(ROWS)),
    ]
    file = tmp_path / "export.csv"
    file.write_text(start + "\r\n".join(separator.join(line) for line in lines), encoding="utf-8", newline="")
    assert pairs(read_examples(file, TASK, columns=COLUMNS)) == ROWS


def test_a_separator_inside_of_a_quoted_header_is_no_separator(tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_text('"a;b;c",text,label\n1,hello,ham\n')
    assert pairs(read_examples(file, TASK)) == [("hello", "ham")]


def test_a_tsv_and_a_json_array_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\na, b; c\tham\n")
    (tmp_path / "a.json").write_text('[\n{"text": "x", "label": 1},\n{"text": "y", "label": "spam"}\n]\n')
    assert pairs(read_examples(tmp_path / "a.tsv", TASK)) == [("a, b; c", "ham")]
    assert pairs(read_examples(tmp_path / "a.json", TASK)) == [("x", "1"), ("y", "spam")]


def test_an_excel_sheet_with_an_empty_first_row_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [(), ("Text", "Label", "note"), ("hello", 1, None), ("bye", "ham", 3.5)]:
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    (tmp_path / "broken.xlsx").write_bytes(b"PK nothing")
    assert pairs(read_examples(tmp_path / "rows.xlsx", TASK)) == [("hello", "1"), ("bye", "ham")]
    with pytest.raises(ExampleError, match=r"broken\.xlsx: not an Excel workbook"):
        read_examples(tmp_path / "broken.xlsx", TASK)


def test_a_parquet_file_with_a_categorical_column_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = pyarrow.array(["spam", "ham"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": labels}), tmp_path / "rows.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    assert pairs(read_examples(tmp_path / "rows.parquet", TASK)) == [("a", "spam"), ("b", "ham")]
    with pytest.raises(ExampleError, match=r"broken\.parquet: not a Parquet file"):
        read_examples(tmp_path / "broken.parquet", TASK)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label\nDas kostet 5 \u20ac,ham\n".encode("cp1252"), "line 2: byte 24 is not UTF-8 (Windows-1252?)"),
        ("text,label\n".encode("utf-16"), "holds no usable row"),
        (b"text,label,text\na,ham,b\n", "rows.csv has two columns named 'text'"),
        (
            b"Comment Text,Category\na,ham\n",
            "no column 'text'; found: Comment Text, Category; name it with --text-column",
        ),
    ],
)
def test_a_file_that_cannot_be_read_as_it_is_says_what_to_do(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(ExampleError) as caught:
        read_examples(file, TASK)
    assert expected in str(caught.value)


def test_bad_rows_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"a,calm{n}\n" for n in range(12)) + "b,ham\n")
    with pytest.raises(ExampleError) as caught:
        read_examples(file, TASK)
    message = str(caught.value).splitlines()
    assert message[0] == "rows.csv, line 2: unknown label 'calm0'; the task has spam, ham, 1"
    assert message[9].startswith("rows.csv, line 11: ")
    assert message[10] == "… and 2 more"
    assert message[11] == "Fix them, or leave out bad rows with --skip-bad-rows (skip_bad_rows=True)."


def test_one_text_under_two_labels_is_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nHello there,ham\nhello  there,spam\n")
    with pytest.warns(UserWarning, match=r"rows 'row-2' \(ham\) and 'row-3' \(spam\)"):
        read_examples(file, TASK)


FORMS = {
    "pairs": ROWS,
    "mappings": [{"text": text, "label": label} for text, label in ROWS],
    "examples": [Example(id=str(n), input=text, label=label) for n, (text, label) in enumerate(ROWS)],
    "generator": (pair for pair in ROWS),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_code_may_have_any_usual_form(form: str) -> None:
    rows = examples_from(FORMS[form], TASK)
    assert pairs(rows) == ROWS
    assert examples_from(rows, TASK) is rows


def test_a_data_frame_with_empty_cells_is_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"Comment Text": ["a", "b", "c"], "Category": ["spam", None, "ham"], "group": [1, None, 2]}
    )
    rows = examples_from(frame, TASK, columns=COLUMNS)
    assert pairs(rows) == [("a", "spam"), ("b", None), ("c", "ham")]
    assert [row.group for row in rows] == ["1", None, "2"]


@pytest.mark.parametrize("rows", [None, 3, {"text": "a"}, b"text"])
def test_what_is_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(ExampleError, match="rows"):
        examples_from(rows, TASK)


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_a_separator_that_the_ending_does_not_say_is_told(tmp_path: Path, separator: str, word: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f'text{separator}label\n"a, b; c|d\n\te"{separator}ham\n{separator}\n')
    rows = read_examples(file, TASK)
    assert pairs(rows) == [("a, b; c|d\n\te", "ham")]
    assert rows.notes == (f"rows.csv: read as columns separated by {word}",)
    file.write_text('text\n"x;y"\n')
    assert read_examples(file, TASK).notes == ()


def test_what_excel_calls_unicode_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("text\tlabel\r\nGröße\tham\r\n".encode("utf-16"))
    assert pairs(read_examples(tmp_path / "rows.csv", TASK)) == [("Größe", "ham")]


@pytest.mark.parametrize("columns", [Columns(text="a", label="Categorie"), Columns(text="a", id="key"), None])
def test_a_column_that_is_not_there_is_an_error_not_rows_without_labels(
    tmp_path: Path, columns: Columns | None
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,Category\nx,ham\n" if columns else "text,Category\nx,ham\n")
    with pytest.raises(ExampleError, match=r"rows\.csv: no column '(Categorie|key|label)'; found: \w+, Category; "):
        read_examples(file, TASK, columns=columns, labelled=True)


def test_a_reason_that_all_bad_rows_share_is_given_once(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("words,label\n" + "x,ham\n" * 30)
    with pytest.raises(ExampleError, match=r"^rows\.csv, line 2 and 29 more: no column 'text'") as caught:
        read_examples(file, TASK)
    assert str(caught.value).count("found:") == 1


def test_the_place_in_an_array_is_a_row_not_a_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[\n\n{"text": "x"},\n3]')
    with pytest.raises(ExampleError, match=r"rows\.json, row 2: not a JSON object"):
        read_examples(file, TASK)


@pytest.mark.parametrize("spelling", [" not_spam ", "not spam", "not  spam"])
def test_a_label_may_have_spaces_where_its_name_has_none(spelling: str) -> None:
    task = Task(name="mail", instructions="Decide.", labels=[Label(name="spam"), Label(name="not_spam")])
    assert pairs(examples_from([("x", spelling)], task)) == [("x", "not_spam")]


class Names:
    def int2str(self, number: int) -> str:
        return ["ham", "spam"][number]


class Split:
    """As the `datasets` library has it: a label is a number whose feature knows its name."""

    def __init__(self) -> None:
        self.features = {"text": None, "label": Names()}

    def __iter__(self) -> Any:
        return iter([{"text": "x", "label": 1}, {"text": "y", "label": -1}])


def test_the_label_numbers_of_a_hugging_face_split_become_names() -> None:
    assert pairs(examples_from(Split(), TASK)) == [("x", "spam"), ("y", None)]


def test_several_splits_are_not_rows() -> None:
    with pytest.raises(ExampleError, match="rows are several, 'train', 'test'; give one of them"):
        examples_from({"train": Split(), "test": Split()}, TASK)


def test_a_frame_with_na_is_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, None]}).convert_dtypes()
    assert pairs(examples_from(frame, TASK)) == [("a", "1"), ("b", None)]


def test_an_arrow_table_is_read() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    assert pairs(examples_from(pyarrow.table({"text": ["a"], "label": ["ham"]}), TASK)) == [("a", "ham")]


def test_a_number_in_a_sheet_is_a_text_and_other_sheets_are_told(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Text", "Label"), (42, 1.0)]:
        book.active.append(row)
    book.create_sheet("Notes")
    book.save(tmp_path / "rows.xlsx")
    rows = read_examples(tmp_path / "rows.xlsx", TASK)
    assert pairs(rows) == [("42", "1")]
    assert rows.notes == ("rows.xlsx: read the sheet 'Sheet', not Notes",)
