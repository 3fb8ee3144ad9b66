"""The contract itself: it passes what keeps it and names what breaks it."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from langchain_pld import Verdict
from langchain_pld.testing import VerdictRunnableTests
from langchain_pld.verdict import Failure


def decide(value: Any) -> Verdict:
    if not isinstance(value, str):
        return Verdict(status="failed", failure=Failure(kind="input", message="no text"))
    return Verdict(status="decided", label=value)


def contract(make: Callable[[], Runnable[Any, Any]]) -> VerdictRunnableTests:
    class Contract(VerdictRunnableTests):
        asks_a_model = False

        def runnable(self) -> Runnable[Any, Any]:
            return make()

        def inputs(self) -> list[str]:
            return ["glad", "sad"]

    return Contract()


TESTS = [name for name in dir(VerdictRunnableTests) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
def test_a_plain_runnable_keeps_it(test: str) -> None:
    getattr(contract(lambda: RunnableLambda(decide)), test)()


class Loses(Runnable[Any, Any]):
    """Drops the config."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        return decide(input)


def counted(make: Callable[[Any, int], Any]) -> Callable[[], Runnable[Any, Any]]:
    calls = itertools.count()
    return lambda: RunnableLambda(lambda value: make(value, next(calls)))


BROKEN: dict[str, tuple[str, Callable[[], Runnable[Any, Any]]]] = {
    "invoke must return a Verdict": (
        "test_every_way_of_calling_gives_the_same_verdict",
        lambda: RunnableLambda(lambda value: value),
    ),
    "batch differs from invoke": (
        "test_every_way_of_calling_gives_the_same_verdict",
        counted(lambda value, n: decide(value if n < 2 else value + "!")),
    ),
    "batch mixed verdicts": (
        "test_many_at_once_never_mix",
        counted(lambda value, n: decide(value if n < 50 else "glad")),
    ),
    "no run was reported to the callbacks": ("test_callbacks_tags_and_metadata_are_passed_on", Loses),
    "an unusable input must never be decided": (
        "test_one_unusable_input_spoils_no_other",
        lambda: RunnableLambda(lambda value: decide(value if isinstance(value, str) else "glad")),
    ),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_what_breaks_it_is_named(complaint: str) -> None:
    test, make = BROKEN[complaint]
    with pytest.raises(AssertionError, match=complaint):
        getattr(contract(make), test)()
