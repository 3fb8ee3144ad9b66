"""Conditions that rest on the label instead of the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_pld import Task
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.rules.tautologies import is_tautology

BIAS = Task(
    name="bias",
    instructions="You decide which kind of social bias a sentence is about: the group that the generalisation targets.",
    labels=[
        {"name": "gender", "description": "the person is described as a man, woman, boy, girl, or by a family role"},
        {"name": "profession", "description": "the person is described by an occupation or job"},
        {"name": "race", "description": "the person is described by ethnicity, nationality or country of origin"},
        {"name": "religion", "description": "the person is described by a faith, its followers or its clergy"},
    ],
)
HATE = Task(
    name="hate",
    instructions="You moderate posts. Decide whether the post is hate speech against a protected group.",
    labels=[{"name": "hateful", "description": "attacks people for their group"}, {"name": "non_hateful"}],
)
PLAIN_LABELS = ("violence", "sexual", "self_harm", "no", "spam", "other", "class", "Ärger", "entailment")


@pytest.mark.parametrize(
    "condition",
    [
        "If the text meets the criteria for the 'gender' label",
        "If the text meets the criteria for gender",
        "If the text fulfils the definition of the religion label",
        "If the text meets the criteria for this label",
        "If the text belongs to this category",
        "If the label fits",
        "If the text falls under the category of religion",
        "If the gender category applies",
        "If the sentence is classified as profession.",
        "If the text is labelled as RACE",
        'If the text is an example of "race" in some way',
        "If the class 'gender' is the right one for it",
        "If the text is about gender",
        "If the text expresses gender bias",
        "If the sentence is about religion.",
        "If the person is described by an occupation or job",
    ],
)
def test_a_condition_that_speaks_of_labels_or_says_only_their_name_is_worthless(condition: str) -> None:
    assert is_tautology(condition, BIAS)
    objection = Screen.of(BIAS, []).objection(condition)
    assert objection is not None
    assert objection.reason == "rests on a label instead of the text"
    assert "Do not write a label" in objection.request


@pytest.mark.parametrize(
    "condition",
    [
        "If the post is hateful",
        "If the post is non-hateful.",
        "If the text is non hateful",
        "If the text is considered hateful",
        "If it qualifies as hateful",
        "If the post is `non_hateful` in tone",
    ],
)
def test_a_name_is_known_in_each_of_its_spellings(condition: str) -> None:
    assert is_tautology(condition, HATE)


@pytest.mark.parametrize(
    "condition",
    [
        "If the text insults a religion",
        "If the text says that gender decides what a person may do",
        "If the text uses the word 'gender' about jobs",
        'If the text says "race" or "tribe" of a person',
        "If the text describes a person by religion or its clergy",
        "If the text describes a race against time",
        "If the text complains about the label on the bottle",
        "If the record label of a band is named",
        "If the text is about a religion class at school",
        "If the text labels people as criminals",
        "If the text is hateful towards a group because of its origin",
        "If the text says that a class of people is lazy",
        "If the text lists criteria for choosing a nurse",
        "If the text names a person's profession, such as nurse",
        "If the text is about gender roles in a family",
        # In the style of rules that an expert wrote by hand, which end in the label.
        "Job titles that contain man or woman (policeman, salesman) are profession.",
        "Words for a language or cuisine of a country count as that country: race.",
        "A slur reclaimed by its own group or a homonym with another meaning is non_hateful.",
        "Insults, threats or calls for exclusion of such a group are hateful, also in polite wording.",
    ],
)
def test_a_condition_about_texts_may_hold_a_label_as_an_ordinary_word(condition: str) -> None:
    assert not is_tautology(condition, BIAS)
    assert not is_tautology(condition, HATE)


def test_where_the_texts_are_about_labels_a_condition_may_be_too() -> None:
    shop = Task(
        name="shop",
        instructions="Decide which desk gets a note about a wrong label.",
        labels=[{"name": "print"}, {"name": "post"}],
    )
    assert Screen.of(shop, []).objection("If the label came off") is None
    assert Screen.of(BIAS, []).objection("If the label came off")


TASKS = st.lists(st.sampled_from(PLAIN_LABELS), min_size=2, max_size=5, unique=True).map(
    lambda names: Task(name="any", instructions="Decide.", labels=[{"name": name} for name in names])
)


@settings(deadline=None, max_examples=60)
@given(TASKS, st.data())
def test_criteria_for_any_label_are_found_and_the_label_in_a_sentence_of_its_own_words_is_not(
    task: Task, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(task.label_names))
    shown = data.draw(st.sampled_from([name, name.upper(), name.replace("_", " ")]))
    quote = data.draw(st.sampled_from(["", "'", '"', "`"]))
    assert is_tautology(f"If the text meets the criteria for the {quote}{shown}{quote} label", task)
    assert not is_tautology(f"If an old sailor tells of {shown} in the harbour", task)


@settings(deadline=None, max_examples=100)
@given(TASKS, st.text(max_size=200))
def test_any_text_can_be_looked_at(task: Task, condition: str) -> None:
    assert is_tautology(condition, task) in (True, False)
