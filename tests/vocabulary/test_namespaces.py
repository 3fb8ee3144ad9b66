"""Names that people give, as labels of a Store's namespace."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.store.memory import InMemoryStore

from langchain_pld.namespaces import namespace_label

NAMES = ["chat.v2", "chat=2Ev2", "", "=", ".", "a/b", "a:b", "a b", "x" * 200, "x" * 201, "检查", "\x00", "\ud800", "%"]


@pytest.mark.parametrize("name", NAMES)
def test_a_store_takes_every_name(name: str) -> None:
    store = InMemoryStore()
    store.put(("pld", namespace_label(name)), "key", {"name": name})
    kept = store.get(("pld", namespace_label(name)), "key")
    assert kept is not None
    assert kept.value == {"name": name}


def test_a_plain_name_stays_as_it_is() -> None:
    assert namespace_label("chat-20261124_0900") == "chat-20261124_0900"


@given(st.text(st.characters(), max_size=250), st.text(st.characters(), max_size=250))
@example("x" * 200, "x" * 199 + "y")
@example("." * 50, namespace_label("." * 50))
@example("a.b", "a=2Eb")
@example("", "=")
def test_no_two_names_share_a_label(one: str, other: str) -> None:
    labels = {namespace_label(name) for name in (one, other)}
    assert len(labels) == len({one, other})
    assert all(label and "." not in label and label.isascii() and len(label) <= 120 for label in labels)
