"""What a chain may hand over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from langchain_pld import Task
from langchain_pld.errors import InputError
from langchain_pld.student.inputs import input_text
from langchain_pld.student.sanitize import clean_text
from tests.student.small_artifact import TASK

PAIRS = Task(name="pairs", instructions="x", labels=TASK.labels, fields=("text", "input"), template="{input}|{text}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi {x}", "hi {x}"),
        (HumanMessage("hi"), "hi"),
        (HumanMessage([{"type": "text", "text": "hi"}]), "hi"),
        ([HumanMessage("hi")], "hi"),
        ([HumanMessage("hi"), AIMessage(""), AIMessage("yes")], "human: hi\nai: yes"),
        ([("human", "hi"), ("ai", "{yes}")], "human: hi\nai: {yes}"),
        ([{"role": "user", "content": "hi"}], "hi"),
        ({"role": "user", "content": "hi"}, "hi"),
        (StringPromptValue(text="hi"), "hi"),
        (ChatPromptValue(messages=[HumanMessage("hi")]), "hi"),
        ({"text": "hi"}, "hi"),
        ({"input": "hi", "other": 3}, "hi"),
        ({"messages": [("human", "hi")]}, "hi"),
    ],
)
def test_the_shapes_of_a_text(value: Any, expected: str) -> None:
    assert input_text(TASK, value) == expected


def test_of_several_messages_the_last_one_of_a_person_may_be_selected() -> None:
    history = [
        SystemMessage("be kind"),
        HumanMessage("one"),
        AIMessage("two"),
        HumanMessage("three"),
        AIMessage("four"),
    ]
    assert input_text(TASK, history, "last_human") == "three"
    assert input_text(TASK, [SystemMessage("be kind"), AIMessage("4")], "last_human") == "4"
    assert input_text(TASK, history).startswith("system: be kind\nhuman: one")


def test_a_mapping_with_the_fields_of_the_task_is_laid_out_by_it() -> None:
    assert input_text(PAIRS, {"text": "a", "input": "b", "id": 1}) == "b|a"


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        (TASK, 3, "cannot classify a int"),
        (TASK, None, "cannot classify a NoneType"),
        (TASK, "", "the text is empty"),
        (TASK, [], "the text is empty"),
        (TASK, [HumanMessage("")], "the text is empty"),
        (TASK, "x" * 5_001, "5,001 characters"),
        (TASK, {}, "needs one of text, input and messages; this one has 0 other keys"),
        (TASK, {"body": "x"}, "this one has 1 other keys"),
        (TASK, {"text": "a", "input": "b"}, "needs one of text, input and messages"),
        (TASK, {"text": None}, "cannot classify a NoneType"),
        (TASK, [3], "these messages cannot be read"),
        (TASK, [("wizard", "hi")], "these messages cannot be read"),
        (PAIRS, "plain", "takes the fields text, input; got a plain text"),
        (PAIRS, {"text": "a"}, "text, input"),
    ],
)
def test_wrong_shapes_are_input_errors(task: Task, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        input_text(task, value)
    assert expected in str(caught.value)


PARTS = st.sampled_from(["<<<", ">>>", "=>", "<|", "<s>", "[INST]", "\r", "\r\n", "\x00", "\x7f", "<", "= ", "\t"])


@given(st.lists(PARTS | st.text(st.characters(max_codepoint=127), max_size=5)).map("".join))
def test_plain_ascii_is_cleaned_the_short_way_and_alike(text: str) -> None:
    # A zero-width space is removed without a trace, but sends the text the long way.
    assert clean_text(text) == clean_text(f"{text}\u200b")
