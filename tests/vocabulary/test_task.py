"""A task: what it allows, how it lays an input out, and how its file is read."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from langchain_pld import Label, Task
from langchain_pld.errors import InputError, TaskError

LABELS = [Label(name="glad"), Label(name="sad")]
PARTS = {"fields": ("claim", "proof")}


def mood(**changes: Any) -> Task:
    return Task(**{"name": "mood", "instructions": "Decide.", "labels": LABELS, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"none_label": "calm"}, "none_label 'calm' is not one of the labels glad, sad"),
        ({"labels": [*LABELS, Label(name="sad")]}, "label 'sad' is declared twice"),
        ({"labels": LABELS[:1]}, "at least 2 items"),
        ({"template": "{claim}"}, "a template needs `fields`"),
        ({**PARTS, "template": "{claim}"}, "uses {claim} but must use each of the fields claim, proof once"),
        ({**PARTS, "template": "{claim}{proof}{claim}"}, "must use each of the fields"),
        ({**PARTS, "template": "{claim}{proof}{}"}, "must use each of the fields"),
        ({**PARTS, "template": "{claim}{proof.__class__}"}, "must use each of the fields"),
        ({**PARTS, "template": "{claim"}, "cannot be read"),
        ({**PARTS, "template": "{claim!r}{proof}"}, "must name the field {claim} alone"),
        ({**PARTS, "template": "{claim}{proof:>9}"}, "must name the field {proof} alone"),
        ({"verbalizers": ({"glad": "yes.", "sad": "no"},)}, "'yes.' must not begin or end in white space"),
        ({"verbalizers": ({"glad": "yes"},)}, "must name each of the labels glad, sad once"),
        ({"verbalizers": ({"glad": "yes", "sad": " YES"},)}, "needs a different, non-empty word for each label"),
        ({"verbalizers": ({"glad": "yes", "sad": " "},)}, "needs a different, non-empty word for each label"),
        ({"max_chars": 0}, "greater than 0"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_a_contradictory_task_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        mood(**changes)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["", "two words", "{x}", "<s>", "x" * 81])
def test_a_label_name_that_could_upset_a_prompt_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Label(name=name)


def test_a_text_is_rendered_as_it_is() -> None:
    assert mood().render("  {claim} {0} \n") == "  {claim} {0} \n"


def test_braces_in_values_are_not_read_again() -> None:
    task = mood(**PARTS, template="C: {claim} {{literal}}\nP: {proof}")
    assert task.render({"claim": "{proof}", "proof": "{claim!r} }{"}) == "C: {proof} {literal}\nP: {claim!r} }{"


def test_fields_without_a_template_get_a_line_each() -> None:
    assert mood(**PARTS).render({"proof": "b", "claim": "a"}) == "claim: a\nproof: b"


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, "", "the text is empty"),
        ({}, " \n\t", "the text is empty"),
        ({}, {"text": "a"}, "takes a text, got dict"),
        ({"max_chars": 3}, "abcd", "the input has 4 characters, the limit of task 'mood' is 3"),
        (PARTS, "plain", "takes the fields claim, proof; got a plain text"),
        (PARTS, {"claim": "a"}, "takes the fields claim, proof; got claim"),
        (PARTS, {"claim": "a", "proof": "b", "more": "c"}, "got claim, proof, more"),
        (PARTS, {}, "got nothing"),
        (PARTS, {"claim": "a", "proof": " "}, "the field 'proof' is empty or not a text"),
        (PARTS, {"claim": "a", "proof": 3}, "the field 'proof' is empty or not a text"),
    ],
)
def test_an_unusable_input_is_refused(changes: dict[str, Any], value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        mood(**changes).render(value)
    assert expected in str(caught.value)


def test_an_input_of_exactly_the_limit_is_taken() -> None:
    assert mood(max_chars=4).render("abcd") == "abcd"


def test_a_task_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "name: mood\ninstructions: Entscheide für 'süß'.\nlabels:\n- {name: glad, description: x}\n- name: sad\n",
        encoding="utf-8",
    )
    task = Task.from_yaml(path)
    assert task.label_names == ("glad", "sad")
    assert task.labels[0].description == "x"
    assert "süß" in task.instructions


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[{name: on}, {name: Off}]", ("on", "Off")),
        ("[0, 1]", ("0", "1")),
        ("[1.0, 1]", ("1.0", "1")),
        ("[True, false]", ("True", "false")),
        ("[2024-13-45, 2024-01-01]", ("2024-13-45", "2024-01-01")),
    ],
)
def test_a_label_in_a_task_file_is_the_text_that_stands_there(
    tmp_path: Path, labels: str, expected: tuple[str, ...]
) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(f"name: m\ninstructions: x\nmax_chars: 200\nnone_label: null\nlabels: {labels}\n")
    task = Task.from_yaml(path)
    assert (task.label_names, task.max_chars, task.none_label) == (expected, 200, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no task file at"),
        (b"name: \xff\xfe\x00", "cannot be read"),
        (b"name: [", "cannot be read"),
        (b"- a\n- b\n", "must hold a mapping with name, instructions and labels"),
        (b"", "must hold a mapping"),
        (b"name: mood\n", "instructions: Field required; labels: Field required"),
        (b"name: m\ninstructions: x\nlabels: [{name: a}, {name: a}]\n", "label 'a' is declared twice"),
        (b"name: m\ninstructions: x\nlabels: [{name: a}, {name: [b]}]\n", "labels.1.name"),
        (b"name: !!timestamp 2024-13-45\n", "cannot be read"),
        (b"name: m\ninstructions: x\nlabels: [spam, free offer]\n", "write 'free_offer'; the rows may keep it"),
        (b"name: m\nname: n\ninstructions: x\nlabels: [a, b]\n", "the key 'name' is given twice"),
        (b"name: !!python/object/apply:os.getcwd []\n", "cannot be read"),
    ],
)
def test_a_bad_task_file_is_explained(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "task.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TaskError) as caught:
        Task.from_yaml(path)
    assert expected in str(caught.value)
    assert "task.yaml" in str(caught.value)


def test_labels_may_be_bare_names_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("name: mail\ninstructions: Decide.\nlabels: [spam, 0, {name: ham, description: fine}]\n")
    assert Task.from_yaml(path).labels == (Label(name="spam"), Label(name="0"), Label(name="ham", description="fine"))
